//! Tests of `map.rs`.

use super::*;
use crate::shm::child::{self, Child};
use crate::shm::sys::testing::fork_and;
use crate::sync::Ordering::Relaxed;
use nix::sys::resource::{getrusage, setrlimit, UsageWho};
use nix::sys::signal::Signal;
use nix::sys::wait::{waitpid, WaitStatus};
use std::path::Path;
use std::process::Command;

fn memory(len: u64) -> File {
    let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(file.expect("memory for a test"));
    file.set_len(len).expect("memory for a test");
    file
}

/// A new file on the file system of `folder`, without a name.
fn file_in(folder: &Path) -> File {
    let path = folder.join(format!("windlass-test-{}-{}", nix::unistd::gettid(), line!()));
    let mut options = File::options();
    let file = options.read(true).write(true).create_new(true).open(&path);
    let file = file.expect("a test may write there");
    std::fs::remove_file(path).expect("it is ours");
    file
}

/// The permissions of the page at `address`, as the kernel states them.
fn permissions(address: usize) -> String {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let covers = |line: &&str| {
        let (start, rest) = line.split_once('-').expect("a range");
        let (end, _) = rest.split_once(' ').expect("permissions");
        let number = |text| usize::from_str_radix(text, 16).expect("an address");
        (number(start)..number(end)).contains(&address)
    };
    let line = maps.lines().find(covers).expect("the page is part of a mapping");
    line.split(' ').nth(1).expect("permissions").to_owned()
}

#[test]
fn a_file_of_another_length_is_refused_with_both_lengths() {
    let file = memory(4096);
    for expected in [4095, 4097, 8192] {
        let error = map(&file, "/x/lane-0", Access::Read, expected, &Loss::default())
            .err()
            .expect("refused");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        assert!(text.contains("/x/lane-0") && text.contains("4096"), "{text}");
        assert!(text.contains(&expected.to_string()), "{text}");
    }
    let empty =
        map(&memory(0), "/x/lane-0", Access::Read, 0, &Loss::default()).err().expect("refused");
    assert_eq!(empty.kind(), ErrorKind::Corrupt);
}

#[test]
fn two_mappings_of_a_file_are_two_views_of_the_same_bytes() {
    let file = memory(4096);
    let one = map(&file, "test", Access::Write, 4096, &Loss::default()).expect("it is mapped");
    let two = map(&file, "test", Access::Read, 4096, &Loss::default()).expect("it is mapped");
    assert_ne!(one.base(), two.base());
    one.word(4088).store(7, Relaxed);
    assert_eq!(two.word(4088).load(Relaxed), 7);
}

#[test]
fn a_mapping_outlives_its_file_and_ends_with_its_last_clone() {
    let region =
        map(&memory(4096), "test", Access::Write, 4096, &Loss::default()).expect("it is mapped");
    let clone = region.clone();
    drop(region);
    clone.word(0).store(7, Relaxed);
    assert_eq!(clone.word(0).load(Relaxed), 7);
}

#[test]
fn the_page_after_a_mapping_is_inaccessible() {
    let page = page_size();
    for (len, guard_at) in [(page, page), (2 * page, 2 * page), (page + 8, 2 * page)] {
        for (access, own) in [(Access::Read, "r--s"), (Access::Write, "rw-s")] {
            let file = memory(len as u64);
            let region =
                map(&file, "test", access, len as u64, &Loss::default()).expect("it is mapped");
            let base = region.base() as usize;
            assert_eq!(region.len(), len);
            assert_eq!(permissions(base), own);
            assert_eq!(permissions(base + len - 1), own);
            assert_eq!(permissions(base + guard_at), "---s");
        }
    }
}

#[test]
fn a_store_through_a_read_only_mapping_faults() {
    let file = memory(4096);
    let region = map(&file, "test", Access::Read, 4096, &Loss::default()).expect("it is mapped");
    let child = fork_and(|| {
        region.word(0).store(7, Relaxed);
        0
    });
    let end = waitpid(child, None).expect("the child is ours");
    assert!(matches!(end, WaitStatus::Signaled(_, Signal::SIGSEGV, _)), "{end:?}");
}

#[test]
fn a_file_opened_to_read_cannot_be_mapped_to_write() {
    let file = File::open("/proc/self/exe").expect("a test knows its binary");
    let len = file.metadata().expect("it is a file").len();
    let error = map(&file, "test", Access::Write, len, &Loss::default()).err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Permission);
}

#[test]
fn pages_touched_ahead_do_not_fault_later() {
    const PAGES: usize = 256;
    let len = PAGES * page_size();
    let region = map(&memory(len as u64), "test", Access::Write, len as u64, &Loss::default());
    let region = region.expect("it is mapped");
    // The ends lie inside of a page each.
    if !prefault(&region, 8, len - 16, Access::Write) {
        return; // This kernel cannot.
    }
    let faults = || {
        let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("Linux has it");
        usage.minor_page_faults()
    };
    let before = faults();
    for page in 0..PAGES {
        region.word(page * page_size()).store(1, Relaxed);
    }
    assert!(faults() - before < 16, "{} faults on {PAGES} pages", faults() - before);
    let reader = map(&memory(len as u64), "test", Access::Read, len as u64, &Loss::default());
    assert!(prefault(&reader.expect("it is mapped"), 0, len, Access::Read));
}

#[test]
fn a_reserved_file_has_all_its_memory() {
    let folders = [Path::new("/dev/shm"), &std::env::temp_dir()].map(file_in);
    for file in folders.into_iter().chain([memory(0)]) {
        let len = RESERVE_BYTES + 12_345;
        reserve(&file, "test", len).expect("there is room");
        let metadata = file.metadata().expect("it is a file");
        assert_eq!(metadata.len(), len);
        assert!(metadata.blocks() * 512 >= len, "{} blocks", metadata.blocks());
    }
}

#[test]
fn reserving_keeps_what_is_there_and_never_shrinks() {
    let file = memory(0);
    file.write_all_at(b"kept", 0).expect("there is room");
    reserve(&file, "test", 8192).expect("there is room");
    let mut found = [0; 4];
    file.read_exact_at(&mut found, 0).expect("it was written");
    assert_eq!(&found, b"kept");
    let error = reserve(&file, "test", 4096).expect_err("it would lose bytes");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert_eq!(file.metadata().expect("it is a file").len(), 8192);
}

/// Asserts that `error` is a full file system that says where, and how much.
fn assert_no_space(error: &Error, needed: u64) {
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    let text = error.to_string();
    assert!(text.contains("/x/lane-0") && text.contains(&needed.to_string()), "{text}");
    assert!(text.contains("free") || text.contains("may not"), "{text}");
}

#[test]
fn more_than_there_is_is_refused_before_anything_is_taken() {
    // So much that the kernel would refuse it as no length at all: were it tried, nothing is taken.
    let impossible = u64::MAX;
    for file in [file_in(Path::new("/dev/shm")), memory(0)] {
        let error = reserve(&file, "/x/lane-0", impossible).expect_err("nobody has that much");
        assert_no_space(&error, impossible);
        let metadata = file.metadata().expect("it is a file");
        assert_eq!((metadata.len(), metadata.blocks()), (0, 0));
    }
}

#[test]
fn memory_without_a_limit_has_that_of_the_machine() {
    let free = free_bytes(&memory(0)).expect("Linux says");
    assert!(0 < free && free < 1 << 50, "{free} bytes");
}

/// Runs a test of this module in a new name space, with `kind` mounted at a folder of its own.
fn mounted(test: &str, kind: &str) -> Option<Child> {
    let exe = std::env::current_exe().expect("a test knows its binary");
    let script = format!("mount -t {kind} none /mnt && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]).arg(exe);
    let mut probe = Command::new("unshare");
    probe.args(["--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]);
    if !probe.status().is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine does not let a test mount a file system");
        return None;
    }
    Some(Child::start_in(command, test, kind))
}

#[test]
fn a_file_system_that_fills_up_is_an_error_and_gives_back() {
    if child::role().is_none() {
        let test =
            concat!(module_path!(), "::a_file_system_that_fills_up_is_an_error_and_gives_back");
        return mounted(test, "tmpfs -o size=1m").map_or((), Child::finish);
    }
    let file = file_in(Path::new("/mnt"));
    let error = reserve(&file, "/x/lane-0", 2 << 20).expect_err("there is 1 MiB");
    assert_no_space(&error, 2 << 20);
    assert!(error.to_string().contains("1048576 bytes are free"), "{error}");
    reserve(&file, "test", 1 << 20).expect("a full MiB is free again");
}

#[test]
fn a_file_system_that_cannot_reserve_gets_zeros_written() {
    if child::role().is_none() {
        let test =
            concat!(module_path!(), "::a_file_system_that_cannot_reserve_gets_zeros_written");
        return mounted(test, "ramfs").map_or((), Child::finish);
    }
    let file = file_in(Path::new("/mnt"));
    let refused = fallocate(&file, FallocateFlags::empty(), 0, 4096);
    assert_eq!(refused, Err(Errno::EOPNOTSUPP), "ramfs does not reserve");
    reserve(&file, "test", (1 << 20) + 5).expect("there is room");
    let mut bytes = vec![1; (1 << 20) + 5];
    file.read_exact_at(&mut bytes, 0).expect("it was written");
    assert!(bytes.iter().all(|&byte| byte == 0));
}

#[test]
fn limits_of_the_process_are_errors_and_kill_nobody() {
    if child::role().is_none() {
        let test = concat!(module_path!(), "::limits_of_the_process_are_errors_and_kill_nobody");
        return Child::start(test, "limited").finish();
    }
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("Linux has it");
    setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, hard).expect("lowering is allowed");
    let error = reserve(&memory(0), "/x/lane-0", 2 << 20).expect_err("it is limited");
    assert_no_space(&error, 2 << 20);
    reserve(&memory(0), "/x/lane-0", 1 << 20).expect("the limit itself is allowed");
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).expect("up to the hard limit is allowed");

    let file = memory(1 << 40);
    let (_, hard) = getrlimit(Resource::RLIMIT_AS).expect("Linux has it");
    setrlimit(Resource::RLIMIT_AS, 1 << 39, hard).expect("lowering is allowed");
    let error = map(&file, "/x/lane-0", Access::Read, 1 << 40, &Loss::default())
        .err()
        .expect("it is limited");
    assert_no_space(&error, 1 << 40);
}

#[test]
fn an_interrupted_reservation_goes_on() {
    let (file, len) = (memory(0), 2 * RESERVE_BYTES + 1);
    let mut calls = 0;
    let reserved = reserve_by(&file, "test", len, |at, span| {
        calls += 1;
        // Two signals for every call that gets through.
        if calls % 3 != 0 {
            return Err(Errno::EINTR);
        }
        fallocate(&file, FallocateFlags::empty(), at, span)
    });
    reserved.expect("there is room");
    assert_eq!(calls, 9);
    let metadata = file.metadata().expect("it is a file");
    assert!(metadata.len() == len && metadata.blocks() * 512 >= len);
}

#[test]
fn a_reservation_that_fails_half_way_gives_back() {
    // Somebody else takes the room after it was asked for.
    for error in [Errno::ENOSPC, Errno::EDQUOT, Errno::ENOMEM] {
        let (file, len) = (memory(4096), 2 * RESERVE_BYTES);
        let reserved = reserve_by(&file, "/x/lane-0", len, |at, span| {
            if at > 0 {
                return Err(error);
            }
            fallocate(&file, FallocateFlags::empty(), at, span)
        });
        assert_no_space(&reserved.expect_err("it is full"), len);
        let metadata = file.metadata().expect("it is a file");
        assert_eq!((metadata.len(), metadata.blocks() * 512), (4096, 4096));
    }
}

#[test]
fn what_cannot_be_reserved_is_written() {
    let (file, len) = (memory(0), (1 << 20) + 5);
    file.write_all_at(b"kept", 0).expect("there is room");
    let reserved = reserve_by(&file, "test", len, |_, _| Err(Errno::EOPNOTSUPP));
    reserved.expect("there is room");
    let metadata = file.metadata().expect("it is a file");
    assert!(metadata.len() == len && metadata.blocks() * 512 >= len);
    let mut found = [0; 4];
    file.read_exact_at(&mut found, 0).expect("it was written");
    assert_eq!(&found, b"kept");
}
