//! Tests of `loss.rs`.

use super::*;
use crate::shm::child::{self, until, Child};
use crate::shm::map::{map, Access};
use crate::shm::sys::testing::fork_and;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use std::fs::File;
use std::os::unix::process::ExitStatusExt;

fn memory(len: u64) -> File {
    let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC);
    let file = File::from(file.expect("memory for a test"));
    file.set_len(len).expect("memory for a test");
    file
}

/// Reads the first byte of a page of a file that was mapped and cut off since, by nobody's leave.
fn touch_a_foreign_page() {
    let file = memory(4096);
    let mapped = memmap2::MmapOptions::new().map_raw(&file).expect("a mapping of our own");
    file.set_len(0).expect("it is ours");
    // SAFETY: the address is mapped; that nothing is behind it is what the caller wants.
    let byte = unsafe { mapped.as_ptr().read_volatile() };
    child::say("read", byte);
}

#[test]
fn a_page_that_is_gone_reads_as_zeroes_and_is_noted() {
    let page = page_size();
    for access in [Access::Read, Access::Write] {
        let file = memory(8 * page as u64);
        let writer = map(&file, "test", Access::Write, 8 * page as u64, &Loss::default());
        let writer = writer.expect("it is mapped");
        (0..8).for_each(|at| writer.word(at * page).store(7, Relaxed));
        let (loss, other) = (Loss::default(), Loss::default());
        let region = map(&file, "test", access, 8 * page as u64, &loss).expect("it is mapped");
        let neighbour = map(&memory(4096), "test", access, 4096, &other).expect("it is mapped");
        file.set_len(2 * page as u64).expect("it is ours");
        assert_eq!(region.word(page).load(Relaxed), 7);
        assert!(!loss.happened() && loss.check("x").is_ok());
        assert_eq!(region.word(5 * page).load(Relaxed), 0);
        assert!(loss.happened());
        // Up to the end, and below as well.
        assert_eq!(region.word(8 * page - 8).load(Relaxed), 0);
        assert_eq!(region.word(2 * page).load(Relaxed), 0);
        assert_eq!(region.word(page).load(Relaxed), 7, "what is there is kept");
        if access == Access::Write {
            region.word(3 * page).store(1, Relaxed);
            assert_eq!(region.word(3 * page).load(Relaxed), 1);
        }
        assert_eq!(neighbour.word(0).load(Relaxed), 0);
        assert!(!other.happened());
        let text = loss.check("topic t").expect_err("it happened").to_string();
        assert!(text.contains("topic t") && text.contains("shortened"), "{text}");
    }
}

#[test]
fn more_mappings_than_a_chunk_has_spans_are_watched_and_forgotten() {
    let page = page_size();
    for _ in 0..2 {
        let loss = Loss::default();
        let file = memory(page as u64);
        let all: Vec<_> = (0..3 * SPANS)
            .map(|_| map(&file, "test", Access::Read, page as u64, &loss).expect("it is mapped"))
            .collect();
        file.set_len(0).expect("it is ours");
        assert!(all.iter().all(|region| region.word(0).load(Relaxed) == 0));
        assert!(loss.happened());
    }
    // Tests beside this one have a few mappings of their own.
    assert!(chunks().count() <= 8, "{} chunks", chunks().count());
}

#[test]
fn threads_that_lose_the_same_page_at_once_all_go_on() {
    let page = page_size();
    for _ in 0..50 {
        let (file, loss) = (memory(16 * page as u64), Loss::default());
        let region = map(&file, "test", Access::Write, 16 * page as u64, &loss);
        let region = region.expect("it is mapped");
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let (region, loss) = (&region, &loss);
                scope.spawn(move || {
                    let mut at = thread;
                    while !loss.happened() {
                        region.word(at % 16 * page).fetch_add(1, Relaxed);
                        at += 5;
                    }
                });
            }
            file.set_len(0).expect("it is ours");
        });
    }
}

#[test]
fn a_fault_elsewhere_ends_the_process_as_ever() {
    if child::role().is_some() {
        let _ours = map(&memory(4096), "test", Access::Read, 4096, &Loss::default());
        return touch_a_foreign_page();
    }
    let mut process = Child::start(
        concat!(module_path!(), "::a_fault_elsewhere_ends_the_process_as_ever"),
        "victim",
    );
    assert_eq!(process.hear("read"), None);
    assert_eq!(process.wait().signal(), Some(libc::SIGBUS));
}

extern "C" fn plain(number: libc::c_int) {
    // SAFETY: always allowed; it ends this process.
    unsafe { libc::_exit(40 + number) }
}

extern "C" fn detailed(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    _context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid description.
    let code = unsafe { (*info).si_code };
    // SAFETY: always allowed; it ends this process.
    unsafe { libc::_exit(60 + number + code) }
}

/// Installs one of the handlers above, as a program does that has its own.
fn install_own(handler: usize, flags: libc::c_int) {
    // SAFETY: all zeroes are a valid action.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    (action.sa_sigaction, action.sa_flags) = (handler, flags);
    // SAFETY: the handlers end the process at once.
    assert_eq!(unsafe { libc::sigaction(libc::SIGBUS, &action, null_mut()) }, 0);
}

#[test]
fn a_handler_that_was_there_before_gets_what_is_not_ours() {
    if let Some(role) = child::role() {
        match role.as_str() {
            "plain" => install_own(plain as *const () as usize, 0),
            _ => install_own(detailed as *const () as usize, libc::SA_SIGINFO),
        }
        let (file, loss) = (memory(4096), Loss::default());
        let ours = map(&file, "test", Access::Read, 4096, &loss).expect("it is mapped");
        file.set_len(0).expect("it is ours");
        assert_eq!(ours.word(0).load(Relaxed), 0);
        assert!(loss.happened(), "our own fault is ours");
        return touch_a_foreign_page();
    }
    let test = concat!(module_path!(), "::a_handler_that_was_there_before_gets_what_is_not_ours");
    for (role, status) in [("plain", 40), ("detailed", 60 + libc::BUS_ADRERR)] {
        let mut process = Child::start(test, role);
        assert_eq!(process.hear("read"), None);
        assert_eq!(process.wait().code(), Some(status + libc::SIGBUS), "{role}");
    }
}

#[test]
fn a_child_maps_and_unmaps_whatever_its_parent_was_doing() {
    let loss = Loss::default();
    let file = memory(4096);
    let inherited = map(&file, "test", Access::Read, 4096, &loss).expect("it is mapped");
    let busy = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let _calm = until_dropped(&busy);
        for _ in 0..3 {
            scope.spawn(|| {
                while busy.load(Relaxed) {
                    drop(map(&file, "test", Access::Read, 4096, &loss).expect("it is mapped"));
                }
            });
        }
        for _ in 0..300 {
            let inherited = inherited.clone();
            let child = fork_and(|| {
                drop(inherited);
                let own = map(&file, "test", Access::Read, 4096, &loss).map(drop);
                i32::from(own.is_err())
            });
            let mut ended = WaitStatus::StillAlive;
            until("the child ends", || {
                ended = waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("it is ours");
                ended != WaitStatus::StillAlive
            });
            assert_eq!(ended, WaitStatus::Exited(child, 0));
        }
    });
}

/// Makes `SIGBUS` do this before we have a handler.
fn dispose(action: libc::sighandler_t) {
    install_own(action, 0);
}

#[test]
fn a_signal_that_somebody_sends_does_what_it_did_before_and_leaves_us_in_place() {
    let test = concat!(
        module_path!(),
        "::a_signal_that_somebody_sends_does_what_it_did_before_and_leaves_us_in_place"
    );
    if let Some(role) = child::role() {
        match role.as_str() {
            "ignored" => dispose(libc::SIG_IGN),
            "default" => dispose(libc::SIG_DFL),
            // That of the runtime, which resets itself.
            _ => {}
        }
        let (file, loss) = (memory(4096), Loss::default());
        let ours = map(&file, "test", Access::Read, 4096, &loss).expect("it is mapped");
        nix::sys::signal::raise(nix::sys::signal::Signal::SIGBUS).expect("to this thread");
        file.set_len(0).expect("it is ours");
        assert_eq!(ours.word(0).load(Relaxed), 0);
        return child::say("alive", loss.happened());
    }
    for role in ["ignored", "runtime"] {
        let mut process = Child::start(test, role);
        assert_eq!(process.hear("alive").as_deref(), Some("true"), "{role}");
    }
    let mut process = Child::start(test, "default");
    assert_eq!(process.hear("alive"), None);
    assert_eq!(process.wait().signal(), Some(libc::SIGBUS));
}

/// Ends the threads of a test however it ends.
fn until_dropped(busy: &AtomicBool) -> impl Drop + '_ {
    struct Calm<'a>(&'a AtomicBool);
    impl Drop for Calm<'_> {
        fn drop(&mut self) {
            self.0.store(false, Relaxed);
        }
    }
    Calm(busy)
}
