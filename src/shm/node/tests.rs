//! Tests of `node.rs`, most of them with processes.

use super::*;
use crate::shm::child::{self, until, Child};
use crate::shm::loss::Loss;
use crate::shm::map::{map, Access};
use crate::shm::sys::testing::fork_and;
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const FILE: &str = "WINDLASS_TEST_FILE";

/// A control file, for as long as the test runs.
struct Control(PathBuf);

impl Control {
    fn new(test: &str) -> Self {
        let name = format!("windlass-test-{}-{test}", std::process::id());
        let path = Path::new("/dev/shm").join(name);
        let file = File::create_new(&path).expect("a test may write there");
        file.set_len(4096).expect("there is room");
        Self(path)
    }

    fn open(&self) -> Result<File> {
        open(&self.0)
    }

    fn lock(&self, id: u32) -> NodeLock {
        NodeLock::acquire(|| self.open(), id).expect("the number is free")
    }

    fn table(&self, slots: usize) -> NodeTable {
        let file = self.open().expect("it exists");
        let region =
            map(&file, "test", Access::Write, 4096, &Loss::default()).expect("it is mapped");
        NodeTable::new(region, 8, 64, slots).expect("it fits")
    }

    /// Starts a child that finds this file.
    fn child(&self, test: &str, role: &str) -> Child {
        let mut command =
            std::process::Command::new(std::env::current_exe().expect("a test has a binary"));
        command.env(FILE, &self.0);
        Child::start_in(command, test, role)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn open(path: &Path) -> Result<File> {
    let file = File::options().read(true).write(true).open(path);
    file.map_err(|error| Error::io("cannot open the test file", error))
}

/// In a child: node `id` of the file of the test.
fn own_lock(id: u32) -> NodeLock {
    let path = std::env::var_os(FILE).expect("the starter sets it");
    NodeLock::acquire(|| open(Path::new(&path)), id).expect("the number is free")
}

/// The process of node `id`.
fn pid_of(table: &NodeTable, id: u32) -> Option<u32> {
    table.find(id).map(|node| node.pid)
}

#[test]
fn a_node_is_alive_from_acquire_to_drop() {
    let control = Control::new("acquire");
    let (one, two) = (control.lock(1), control.lock(2));
    assert!(one.is_alive(1) && one.is_alive(2) && two.is_alive(1));
    assert!(!one.is_alive(3) && !one.is_alive(0) && !one.is_alive(u32::MAX));
    // Both belong to this process: dropping one must not release the other.
    drop(two);
    assert!(one.is_alive(1) && !one.is_alive(2));
    assert!(is_alive(&control.open().expect("it exists"), 1));
}

#[test]
fn anybody_who_may_read_can_ask() {
    let control = Control::new("ask");
    let last = control.lock(u32::MAX);
    let reader = File::open(&control.0).expect("it exists");
    assert!(is_alive(&reader, u32::MAX) && !is_alive(&reader, 1));
    drop(last);
    assert!(!is_alive(&reader, u32::MAX));
}

#[test]
fn a_held_number_is_refused_and_stays_held() {
    let control = Control::new("held");
    let one = control.lock(1);
    let error = NodeLock::acquire(|| control.open(), 1).err().expect("it is held");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    drop(error);
    assert!(control.lock(2).is_alive(one.id()));
}

#[test]
fn a_failed_question_counts_as_alive() {
    // The kernel keeps no locks on a file that is open as a path only.
    let path = rustix::fs::open("/dev/null", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty());
    let file = File::from(path.expect("Linux has it"));
    assert!(is_alive(&file, 1));
}

#[test]
fn a_killed_process_is_dead_and_a_stopped_one_is_not() {
    let test = concat!(module_path!(), "::a_killed_process_is_dead_and_a_stopped_one_is_not");
    if child::role().is_some() {
        let lock = own_lock(7);
        child::say("locked", lock.id());
        return child::stay();
    }
    let control = Control::new("killed");
    let mine = control.lock(1);
    assert!(!mine.is_alive(7));
    let mut other = control.child(test, "node");
    assert_eq!(other.hear("locked").as_deref(), Some("7"));
    assert!(mine.is_alive(7));

    other.signal(Signal::SIGSTOP);
    let stopped = waitpid(other.pid(), Some(WaitPidFlag::WUNTRACED));
    assert_eq!(stopped, Ok(WaitStatus::Stopped(other.pid(), Signal::SIGSTOP)));
    assert!(mine.is_alive(7), "a stopped process may go on at any moment");

    other.signal(Signal::SIGKILL);
    until("the kernel says that it is dead", || !mine.is_alive(7));
    assert!(mine.is_alive(1));
}

#[test]
fn a_forked_child_does_not_keep_a_killed_node_alive() {
    let test = concat!(module_path!(), "::a_forked_child_does_not_keep_a_killed_node_alive");
    if child::role().is_some() {
        let lock = own_lock(7);
        let survivor = fork_and(|| {
            // Holds its copy of the handle until the test hangs up.
            child::stay();
            0
        });
        child::say("forked", survivor);
        child::stay();
        return drop(lock);
    }
    let control = Control::new("orphan");
    let mine = control.lock(1);
    let mut other = control.child(test, "node");
    let survivor = other.hear("forked").and_then(|pid| pid.parse().ok()).map(Pid::from_raw);
    let survivor = survivor.expect("the pid of the survivor");
    assert!(mine.is_alive(7));
    other.signal(Signal::SIGKILL);
    other.wait();
    assert_eq!(kill(survivor, None), Ok(()), "the forked child outlives its parent");
    until("the kernel says that it is dead", || !mine.is_alive(7));
    assert_eq!(kill(survivor, None), Ok(()), "the forked child still runs");
}

#[test]
fn a_forked_child_neither_disturbs_nor_speaks_for_its_parent() {
    let control = Control::new("forked");
    let (mine, watcher) = (control.lock(1), control.lock(2));
    let table = control.table(4);
    table.join(&mine, 11).expect("there is room");
    let mut mine = Some(mine);
    let child = fork_and(|| {
        let lock = mine.take().expect("inherited");
        // Number 3 is free, but an inherited handle cannot know.
        let doubts = lock.is_inherited() && lock.is_alive(3);
        table.leave(&lock);
        drop(lock);
        // A child may become a node of its own.
        let own = NodeLock::acquire(|| control.open(), 4);
        let own = own.is_ok_and(|own| own.is_alive(1) && !own.is_alive(3));
        i32::from(!(doubts && own))
    });
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    assert!(watcher.is_alive(1), "the child released the lock of its parent");
    assert_eq!(pid_of(&table, 1), Some(11), "the child left in the name of its parent");
    drop(mine);
    assert!(!watcher.is_alive(1));
}

#[test]
fn numbers_are_drawn_once() {
    let control = Control::new("numbers");
    let table = control.table(1);
    let draw = || (0..1000).map(|_| table.draw_id().expect("there are many")).collect::<Vec<_>>();
    let drawn = std::thread::scope(|scope| {
        let threads = [scope.spawn(draw), scope.spawn(draw)];
        threads.map(|thread| thread.join().expect("it draws")).concat()
    });
    let different: BTreeSet<u32> = drawn.iter().copied().collect();
    assert_eq!(
        (different.len(), different.first(), different.last()),
        (2000, Some(&1), Some(&2000))
    );
}

#[test]
fn numbers_run_out_and_never_come_back() {
    let control = Control::new("wrap");
    let table = control.table(1);
    table.region.word(8).store(u64::from(u32::MAX) - 1, Relaxed);
    assert_eq!(table.draw_id().expect("one is left"), u32::MAX);
    for damaged in [u64::from(u32::MAX), u64::MAX] {
        table.region.word(8).store(damaged, Relaxed);
        assert_eq!(table.draw_id().expect_err("none is left").kind(), ErrorKind::Limit);
        assert_eq!(table.region.word(8).load(Relaxed), damaged);
    }
}

#[test]
fn a_table_shows_who_joined_and_forgets_who_left() {
    let control = Control::new("table");
    let (one, two) = (control.lock(1), control.lock(2));
    let table = control.table(4);
    assert_eq!(table.join(&one, 11).expect("there is room"), 0);
    assert_eq!(table.join(&two, 12).expect("there is room"), 1);
    let shown: Vec<_> = table.nodes().iter().map(|node| (node.id, node.pid)).collect();
    assert_eq!(shown, [(1, 11), (2, 12)]);
    assert!(table.nodes().iter().all(|node| node.namespace == own_namespace()));
    assert_ne!(own_namespace(), 0);
    assert_eq!((pid_of(&table, 2), pid_of(&table, 3), pid_of(&table, 0)), (Some(12), None, None));
    table.leave(&one);
    table.leave(&one);
    assert_eq!((pid_of(&table, 1), pid_of(&table, 2)), (None, Some(12)));
    // The next owner of the slot has not stored its name space yet: the old one is not taken for
    // it.
    table.word(0).store(pack(3, 13), Relaxed);
    assert_eq!(table.nodes()[0], Node { id: 3, pid: 13, namespace: 0 });
}

#[test]
fn a_full_table_gives_the_slot_of_a_dead_node_and_only_that() {
    let control = Control::new("full");
    let (one, two, three) = (control.lock(1), control.lock(2), control.lock(3));
    let table = control.table(2);
    table.join(&one, 11).expect("there is room");
    table.join(&two, 12).expect("there is room");
    let error = table.join(&three, 13).expect_err("all are alive");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("room for 2 nodes"), "{error}");
    drop(two);
    assert_eq!(table.join(&three, 13).expect("one is dead"), 1);
    assert_eq!(
        (pid_of(&table, 1), pid_of(&table, 2), pid_of(&table, 3)),
        (Some(11), None, Some(13))
    );
}

#[test]
fn reaping_frees_the_dead_and_only_them() {
    let control = Control::new("reap");
    let (one, two, three) = (control.lock(1), control.lock(2), control.lock(3));
    let table = control.table(4);
    for (lock, pid) in [(&one, 11), (&two, 12), (&three, 13)] {
        table.join(lock, pid).expect("there is room");
    }
    // Nonsense in a slot names a node that nobody is.
    table.word(3).store(u64::MAX, Relaxed);
    drop(two);
    assert_eq!(table.reap(&one), 2);
    assert_eq!(table.reap(&one), 0);
    assert_eq!(
        (pid_of(&table, 1), pid_of(&table, 2), pid_of(&table, 3)),
        (Some(11), None, Some(13))
    );
}

#[test]
fn joining_together_gives_everybody_a_slot_of_its_own() {
    let control = Control::new("together");
    let table = control.table(4);
    let locks: Vec<_> = (1..=4).map(|id| control.lock(id)).collect();
    std::thread::scope(|scope| {
        for lock in &locks {
            scope.spawn(|| {
                for _ in 0..20_000 {
                    let slot = table.join(lock, 7).expect("there is room");
                    std::hint::spin_loop();
                    assert_eq!(table.word(slot).load(Relaxed), pack(lock.id(), 7), "taken twice");
                    table.leave(lock);
                }
            });
        }
    });
    assert_eq!(table.nodes(), []);
}

#[test]
fn a_table_that_does_not_fit_its_file_is_refused() {
    let control = Control::new("fit");
    let region = control.table(1).region;
    let new = |counter, slots, slots_max| {
        NodeTable::new(region.clone(), counter, slots, slots_max).map(|_| ()).map_err(|e| e.kind())
    };
    assert_eq!(new(8, 64, (4096 - 64) / SLOT_BYTES), Ok(()));
    let bad = [(8, 64, 253), (4096, 64, 1), (8, usize::MAX - 7, 1), (8, 64, usize::MAX), (8, 4, 1)];
    for (counter, slots, slots_max) in bad {
        assert_eq!(new(counter, slots, slots_max), Err(ErrorKind::Corrupt), "{slots} {slots_max}");
    }
}

#[cfg(feature = "kill-points")]
#[test]
fn a_node_killed_at_any_step_is_dead_and_leaves_no_slot() {
    let test = concat!(module_path!(), "::a_node_killed_at_any_step_is_dead_and_leaves_no_slot");
    let table_of = |file: &File| {
        let region =
            map(file, "test", Access::Write, 4096, &Loss::default()).expect("it is mapped");
        NodeTable::new(region, 8, 64, 2).expect("it fits")
    };
    if child::role().is_some() {
        let path = std::env::var_os(FILE).expect("the starter sets it");
        let table = table_of(&open(Path::new(&path)).expect("it exists"));
        let lock = own_lock(table.draw_id().expect("there are many"));
        table.reap(&lock);
        table.join(&lock, std::process::id()).expect("there is room");
        return table.leave(&lock);
    }
    let control = Control::new("steps");
    let table = table_of(&control.open().expect("it exists"));
    let mine = control.lock(u32::MAX);
    for step in ["number", "lock", "reap", "join", "namespace", "leave", "unlock"] {
        // A slot of a dead node, for the child to reap.
        table.word(1).store(pack(1_000_000, 1), Relaxed);
        let mut command =
            std::process::Command::new(std::env::current_exe().expect("a test has a binary"));
        command.env(FILE, &control.0).env("WINDLASS_STEP", format!("node.{step}"));
        let end = Child::start_in(command, test, "node").wait();
        let signal = std::os::unix::process::ExitStatusExt::signal(&end);
        assert_eq!(signal, Some(libc::SIGKILL), "{step}");
        table.reap(&mine);
        assert_eq!(table.nodes(), [], "{step}");
        assert!(table.draw_id().is_ok_and(|id| !mine.is_alive(id - 1)), "{step}");
    }
}
