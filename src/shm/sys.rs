//! The system calls that need `unsafe`, or that the rooms above wait with.
//!
//! Four unrelated jobs that share one property, that no safe crate does all of each: sleeping on a
//! word of shared memory, making other processes pass a barrier, reading the clock, and keeping a
//! lock out of a forked child.
//!
//! # Fork
//!
//! An open-file-description lock belongs to the open file, and `fork` hands the open file to the
//! child. Without a guard the child of a killed process would keep its lock, and the dead would
//! count as alive for as long as the child runs; and a child that drops its copy of a handle would
//! release the lock of its living parent. So every file that carries a lock is [`Guarded`]: it
//! stands in a table, and a handler that runs inside `fork`, in the child, puts `/dev/null` in its
//! place. The handler makes only calls that are allowed there: `dup3`, `close` and atomics.
//!
//! ```text
//!   parent   open ── enter in table ── lock ───────────────── unlock ── leave table ── close
//!            └────── gate shut ──────┘
//!   child                               dup3(/dev/null) over every entry, epoch + 1
//! ```
//!
//! * `F1` — A file is in the table before it is locked, and `fork` waits while one is open and not
//!   yet in the table (the gate). So no child ever holds a lock of its parent.
//! * `F2` — A file leaves the table before it is closed. So the handler never replaces somebody
//!   else's file.
//! * `F3` — The epoch differs between a process and its child, so a handle can tell that it was
//!   inherited.
//!
//! A child made by a bare `clone` system call, or by `_Fork`, runs no handler and is outside of
//! this guard.
//!
//! # Orderings
//!
//! | edge   | `Release` store        | `Acquire` load         | hands over                     |
//! |--------|------------------------|------------------------|--------------------------------|
//! | `GATE` | `GATE`, in `open_gate` | `GATE`, in `shut_gate` | the right to add, or to `fork` |
//!
//! All other accesses are `Relaxed`: a table entry hands over nothing but its own number, and the
//! child of a `fork` has one thread, which sees all that its parent's thread saw.

#![allow(unsafe_code)]

use crate::error::{Error, ErrorKind, Result};
use crate::sync::{AtomicU32, Ordering};
use rustix::io::Errno;
use rustix::thread::{futex, MembarrierCommand};
use std::fs::File;
use std::os::fd::{AsRawFd, IntoRawFd};
use std::time::Duration;

/// Why a sleep on a word ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// The word moved, somebody woke us, or a signal came: look again.
    Perhaps,
    /// The time is over.
    TimedOut,
}

/// Sleeps while `word` is `expected`, until somebody in any process wakes it, at most for
/// `timeout`.
///
/// May return at any time: the caller looks again whatever the answer is.
pub fn futex_wait(word: &AtomicU32, expected: u32, timeout: Duration) -> Woken {
    let timeout = futex::Timespec {
        tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(timeout.subsec_nanos()),
    };
    // No PRIVATE flag: the same word has another address, and another owner, in every process.
    match futex::wait(word, futex::Flags::empty(), expected, Some(&timeout)) {
        Err(Errno::TIMEDOUT) => Woken::TimedOut,
        Ok(()) | Err(_) => Woken::Perhaps,
    }
}

/// Wakes everybody in any process who sleeps on `word`, and returns how many that were.
pub fn futex_wake_all(word: &AtomicU32) -> usize {
    let everybody = i32::MAX.unsigned_abs();
    futex::wake(word, futex::Flags::empty(), everybody).unwrap_or(0)
}

/// Makes this process one that [`barrier`] reaches. `false` if the kernel cannot.
///
/// Repeating it costs a system call and changes nothing.
pub fn register_barrier() -> bool {
    rustix::thread::membarrier(MembarrierCommand::RegisterGlobalExpedited).is_ok()
}

/// Makes every running thread of every registered process pass a full memory barrier.
///
/// `false` if the kernel cannot; nothing was ordered then.
pub fn barrier() -> bool {
    rustix::thread::membarrier(MembarrierCommand::GlobalExpedited).is_ok()
}

/// Lets this thread handle the fault of a file that was cut short, whatever signals its starter had blocked.
pub fn let_faults_in() {
    let mut faults = nix::sys::signal::SigSet::empty();
    faults.add(nix::sys::signal::Signal::SIGBUS);
    // It fails for bad arguments only.
    let _ = faults.thread_unblock();
}

/// Nanoseconds on the clock that only goes forward and is the same for every process of this
/// machine.
pub fn monotonic_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC)
}

/// The same clock as of the last tick of the kernel: some milliseconds behind at most, and cheaper to read.
#[inline]
pub fn coarse_ns() -> u64 {
    clock_ns(libc::CLOCK_MONOTONIC_COARSE)
}

/// Nanoseconds since 1970, by the clock of the machine, which may be set.
#[inline]
pub fn realtime_ns() -> u64 {
    clock_ns(libc::CLOCK_REALTIME)
}

fn clock_ns(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `now` is a valid place for the answer, and these clocks exist on every Linux.
    let status = unsafe { libc::clock_gettime(clock, &raw mut now) };
    assert_eq!(status, 0, "these clocks exist on every Linux");
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// The most files that can carry a lock in one process at once: one per node, one per file being
/// built.
pub const GUARDED_MAX: usize = 1024;

/// Descriptor + 1 of every guarded file; 0 is a free entry. Fixed, so that the handler need not
/// take a lock.
static GUARDED: [AtomicU32; GUARDED_MAX] = [const { AtomicU32::new(0) }; GUARDED_MAX];

/// Descriptor + 1 of `/dev/null`; 0 until the handlers are installed.
static NULL: AtomicU32 = AtomicU32::new(0);

/// 1 while a thread adds a file to the table, or forks.
static GATE: AtomicU32 = AtomicU32::new(0);

static FORK_EPOCH: AtomicU32 = AtomicU32::new(0);

/// A number that differs between this process and every process that it was forked from.
///
/// It counts from the first guarded file on: compare only with a number read after opening one.
#[inline]
pub fn fork_epoch() -> u32 {
    // Relaxed: it changes only inside `fork`, while the process has one thread.
    FORK_EPOCH.load(Ordering::Relaxed)
}

extern "C" fn shut_gate() {
    // GATE: pairs with the store in `open_gate`. The holder is opening one file: microseconds.
    for looks in 0u32.. {
        if GATE.swap(1, Ordering::Acquire) == 0 {
            return;
        }
        match looks {
            0..100 => std::thread::yield_now(),
            // A thread of higher priority does not let the holder run by yielding.
            _ => std::thread::sleep(Duration::from_micros(50)),
        }
    }
}

extern "C" fn open_gate() {
    // GATE: pairs with the swap in `shut_gate`.
    GATE.store(0, Ordering::Release);
}

/// Runs in the child, inside `fork`: only system calls that are safe in a signal handler, and
/// atomics.
extern "C" fn forget_locks() {
    FORK_EPOCH.fetch_add(1, Ordering::Relaxed);
    let null = NULL.load(Ordering::Relaxed).cast_signed() - 1;
    for entry in &GUARDED {
        let file = entry.load(Ordering::Relaxed).cast_signed() - 1;
        if file < 0 {
            continue;
        }
        // SAFETY: by `F2` the entry is a file that a `Guarded` owns and that is open. Its owner in
        // this child goes on owning the same number, which means `/dev/null` from now on.
        let replaced = unsafe { libc::dup3(null, file, libc::O_CLOEXEC) };
        if replaced < 0 {
            // SAFETY: as above; a lock that stays would be worse than a number that is no longer
            // open.
            unsafe { libc::close(file) };
        }
    }
    open_gate();
}

/// The gate is shut while this lives.
struct Gate;

impl Gate {
    fn shut() -> Self {
        shut_gate();
        Self
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        open_gate();
    }
}

/// Runs `change`, which neither forks nor opens a file, while nobody forks and nobody else changes anything by this: a
/// child never finds it half done, or waits for a thread that it does not have.
///
/// # Errors
///
/// If the handlers that keep `fork` waiting cannot be installed.
pub fn while_nobody_forks<R>(change: impl FnOnce() -> R) -> Result<R> {
    let gate = Gate::shut();
    install(&gate)?;
    Ok(change())
}

/// The same where the handlers are installed already.
pub fn while_nobody_forks_again<R>(change: impl FnOnce() -> R) -> R {
    let _gate = Gate::shut();
    change()
}

/// A place in the table of guarded files.
struct Entry(&'static AtomicU32);

impl Entry {
    /// A free place, which stays free while the gate is shut.
    fn find(_gate: &Gate) -> Option<&'static AtomicU32> {
        // Relaxed: entries are added only behind the gate, and a free one hands over nothing.
        GUARDED.iter().find(|entry| entry.load(Ordering::Relaxed) == 0)
    }

    /// Enters `file` in a place that was found behind the gate, which is still shut.
    fn new(free: &'static AtomicU32, file: &File) -> Self {
        free.store(file.as_raw_fd().cast_unsigned() + 1, Ordering::Relaxed);
        Self(free)
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// An open file that may carry a lock: a forked child does not inherit it.
pub struct Guarded {
    // First, so that it is dropped first: F2.
    entry: Entry,
    file: File,
    epoch: u32,
}

impl Guarded {
    /// Opens a file by `open`, which must make a new open file description, and guards it.
    ///
    /// `open` runs behind the gate: it neither forks nor opens another guarded file.
    ///
    /// # Errors
    ///
    /// Those of `open`; `Limit` if [`GUARDED_MAX`] files are guarded already.
    pub fn open(open: impl FnOnce() -> Result<File>) -> Result<Self> {
        let gate = Gate::shut();
        install(&gate)?;
        // A place for it first: once it is open, there is nothing left that can fail.
        let Some(free) = Entry::find(&gate) else {
            return Err(Error::new(
                ErrorKind::Limit,
                format!(
                    "this process holds {GUARDED_MAX} nodes and files under construction, the most \
                     that it can; close a bus first"
                ),
            ));
        };
        let file = open()?;
        Ok(Self { entry: Entry::new(free, &file), file, epoch: fork_epoch() })
    }

    /// The file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether this process inherited the handle through `fork`: the file is `/dev/null` then.
    pub fn is_inherited(&self) -> bool {
        self.epoch != fork_epoch()
    }

    /// The file, no longer guarded. The caller has released its lock.
    pub fn into_file(self) -> File {
        let Self { entry, file, .. } = self;
        drop(entry);
        file
    }
}

/// Installs the handlers, once per process and its children.
fn install(_gate: &Gate) -> Result<()> {
    // Relaxed: the gate orders it.
    if NULL.load(Ordering::Relaxed) != 0 {
        return Ok(());
    }
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| Error::io("cannot open /dev/null", error))?;
    // SAFETY: the handlers are functions without arguments that never unwind and live as long as
    // the process; the one for the child makes only system calls that are safe there.
    let status =
        unsafe { libc::pthread_atfork(Some(shut_gate), Some(open_gate), Some(forget_locks)) };
    if status != 0 {
        let error = std::io::Error::from_raw_os_error(status);
        return Err(Error::io("cannot prepare for a fork of this process", error));
    }
    NULL.store(null.into_raw_fd().cast_unsigned() + 1, Ordering::Relaxed);
    Ok(())
}

#[cfg(test)]
pub mod testing {
    use nix::unistd::{fork, ForkResult, Pid};

    /// Forks; the child runs `body` and ends with the status that it returns.
    pub fn fork_and(body: impl FnOnce() -> i32) -> Pid {
        // SAFETY: the child runs test code that allocates at most, which glibc allows, and never
        // returns from here.
        match unsafe { fork() }.expect("a test may fork") {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let body = std::panic::AssertUnwindSafe(body);
                let status = std::panic::catch_unwind(body).unwrap_or(101);
                // SAFETY: ends the child at once, without the exit handlers that belong to its
                // parent.
                unsafe { libc::_exit(status) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::child::until;
    use crate::shm::loss::Loss;
    use crate::shm::map::{map, Access};
    use crate::shm::place::Region;
    use nix::sys::wait::{waitpid, WaitStatus};
    use std::time::Instant;

    fn memory() -> File {
        let file = rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC);
        let file = File::from(file.expect("memory for a test"));
        file.set_len(4096).expect("memory for a test");
        file
    }

    fn mapped(file: &File) -> Region {
        map(file, "test", Access::Write, 4096, &Loss::default()).expect("memory for a test")
    }

    #[test]
    fn a_wake_reaches_a_sleeper_through_another_mapping() {
        let file = memory();
        let (mine, other) = (mapped(&file), mapped(&file));
        assert_ne!(mine.base(), other.base());
        let sleeper = std::thread::spawn(move || {
            // The word never moves: only the wake ends this sleep early. Signals would too, hence
            // the loop.
            futex_wait(other.half(8), 0, Duration::from_secs(300))
        });
        until("one sleeper was woken", || futex_wake_all(mine.half(8)) == 1);
        assert_eq!(sleeper.join().expect("it sleeps"), Woken::Perhaps);
    }

    #[test]
    fn a_sleep_ends_when_its_time_is_over() {
        let start = Instant::now();
        let word = AtomicU32::new(0);
        let time = Duration::from_millis(20);
        until("the sleep timed out", || futex_wait(&word, 0, time) == Woken::TimedOut);
        assert!(start.elapsed() >= time);
    }

    #[test]
    fn a_word_that_moved_is_not_slept_on() {
        let word = AtomicU32::new(1);
        // An endless sleep would never return.
        assert_eq!(futex_wait(&word, 0, Duration::MAX), Woken::Perhaps);
    }

    #[test]
    fn the_barrier_works_where_the_kernel_has_it() {
        let command = MembarrierCommand::GlobalExpedited;
        let offered = rustix::thread::membarrier_query().contains_command(command);
        assert_eq!(register_barrier(), offered);
        assert_eq!(register_barrier(), offered);
        assert_eq!(barrier(), offered);
        const GET_REGISTRATIONS: libc::c_int = 1 << 9;
        const GLOBAL_EXPEDITED: libc::c_long = 1 << 2;
        // SAFETY: only asks. A kernel that does not know the question answers -1.
        let registered = unsafe { libc::syscall(libc::SYS_membarrier, GET_REGISTRATIONS, 0, 0) };
        assert!(registered < 0 || (registered & GLOBAL_EXPEDITED != 0) == offered);
    }

    #[test]
    fn the_clock_is_that_of_the_machine() {
        let uptime = || {
            let text = std::fs::read_to_string("/proc/uptime").expect("Linux has it");
            text.split('.').next().and_then(|seconds| seconds.parse::<u64>().ok())
        };
        let (before, now, after) = (monotonic_ns(), monotonic_ns(), monotonic_ns());
        assert!(before <= now && now <= after);
        // The uptime may count time asleep, the clock never does: it cannot be ahead by more than
        // rounding.
        assert!(now / 1_000_000_000 <= uptime().expect("a number of seconds") + 1);
        // Long enough to see both parts of the time move.
        let start = Instant::now();
        std::thread::sleep(Duration::from_millis(1100));
        let (moved, least) = (u128::from(monotonic_ns() - after), Duration::from_millis(1100));
        assert!((least.as_nanos()..=start.elapsed().as_nanos() + 1_000_000).contains(&moved));
    }

    /// Whether `number` is `/dev/null` in this process.
    fn is_null(number: i32) -> bool {
        let target = std::fs::read_link(format!("/proc/self/fd/{number}"));
        target.is_ok_and(|target| target.as_os_str() == "/dev/null")
    }

    fn ends_well(child: nix::unistd::Pid) {
        assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    }

    #[test]
    fn a_child_has_another_epoch_and_null_in_place_of_a_guarded_file() {
        let guarded = Guarded::open(|| Ok(memory())).expect("room in the table");
        let epoch = fork_epoch();
        let number = guarded.file().as_raw_fd();
        let child = testing::fork_and(|| {
            let inherited = guarded.is_inherited() && fork_epoch() != epoch;
            // A file opened by the child is its own, and the gate that its parent shut is open
            // again.
            let own = Guarded::open(|| Ok(memory())).expect("room in the table");
            let own = !own.is_inherited() && !is_null(own.file().as_raw_fd());
            i32::from(!(inherited && own && is_null(number)))
        });
        ends_well(child);
        assert_eq!(fork_epoch(), epoch);
        assert!(!guarded.is_inherited() && !is_null(number));
    }

    #[test]
    fn a_child_keeps_a_file_that_is_no_longer_guarded() {
        let file = Guarded::open(|| Ok(memory())).expect("room in the table").into_file();
        let number = file.as_raw_fd();
        ends_well(testing::fork_and(|| i32::from(is_null(number))));
    }

    #[test]
    fn a_number_is_forgotten_when_its_guarded_file_is_dropped() {
        let guarded = Guarded::open(|| Ok(memory())).expect("room in the table");
        let number = guarded.file().as_raw_fd();
        let other = memory();
        drop(guarded);
        // The number that was guarded, or the next free one if another test was faster.
        let reused = rustix::io::fcntl_dupfd_cloexec(&other, number).expect("a free number");
        let number = reused.as_raw_fd();
        ends_well(testing::fork_and(|| i32::from(is_null(number))));
    }

    #[test]
    fn a_fork_waits_while_a_file_is_opened() {
        // Were a fork possible inside `open`, the child would hold a copy that the handler does not
        // know of.
        let (say_forked, forked) = std::sync::mpsc::channel();
        let mut forker = None;
        let guarded = Guarded::open(|| {
            let file = memory();
            let number = file.as_raw_fd();
            forker = Some(std::thread::spawn(move || {
                let child = testing::fork_and(|| i32::from(!is_null(number)));
                say_forked.send(()).expect("the test waits");
                ends_well(child);
            }));
            let early = forked.recv_timeout(Duration::from_millis(100));
            assert!(early.is_err(), "a fork overtook the opening of a file");
            Ok(file)
        });
        forker.expect("it was started").join().expect("the child had null in place of the file");
        drop(guarded.expect("room in the table"));
    }
}
