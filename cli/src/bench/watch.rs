//! Nothing of a run outlives it: peers, and the directory of its bus.
//!
//! The bus of a run lies in a directory of its own in `/dev/shm`, which the driver keeps locked for
//! as long as it lives. However the run ends, one of three removes it: [`Watch`] when it is
//! dropped, its thread when a signal or a dead peer ends the run, or the next run, which finds the
//! lock free.
//!
//! The thread also is what lets the measured loops wait without a timeout: it looks every 50 ms
//! whether a peer has died, and ends the driver if so. A peer is killed by the kernel with its
//! driver.

use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{getuid, Pid};

use super::failure::{During, Failure, Result};

/// Where the memory of all buses lives.
const SHARED: &str = "/dev/shm";

/// How often the thread looks: often enough for a person, too rarely to disturb a measurement.
const LOOK: Duration = Duration::from_millis(50);

/// The exit code of a process that a terminal interrupted.
const INTERRUPTED: i32 = 130;

/// The peers and the directory of one run.
pub struct Watch {
    held: Arc<Mutex<Held>>,
    directory: PathBuf,
}

struct Held {
    peers: Vec<Child>,
    directory: PathBuf,
    ended: bool,
    _lock: Flock<File>,
}

impl Watch {
    /// Makes the directory of this run and starts watching.
    ///
    /// Called before any other thread exists, so that every thread inherits the blocked signals,
    /// and before this thread is bound to its core, so that the watching thread is not.
    pub fn start() -> Result<Self> {
        let signals: SigSet =
            [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect();
        signals.thread_block().during("cannot block signals")?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&signals, flags).during("cannot watch for signals")?;
        sweep();
        let (directory, lock) = make_directory()?;
        let held =
            Held { peers: Vec::new(), directory: directory.clone(), ended: false, _lock: lock };
        let held = Arc::new(Mutex::new(held));
        let watched = Arc::clone(&held);
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(move || watch(&watched, &signals))
            .during("cannot start the watching thread")?;
        Ok(Self { held, directory })
    }

    /// The directory of this run.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Starts a peer that ends with this run.
    pub fn spawn(&self, command: &mut Command) -> Result<()> {
        let child = command.spawn().during("cannot start the peer process")?;
        self.held.lock().unwrap_or_else(PoisonError::into_inner).peers.push(child);
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).end();
    }
}

impl Held {
    /// Kills the peers, which have nothing to save, and removes the directory.
    fn end(&mut self) {
        self.ended = true;
        for peer in &mut self.peers {
            // A peer that is gone already is what is wanted.
            let _ = peer.kill();
            let _ = peer.wait();
        }
        // The next run removes what this one cannot.
        let _ = fs::remove_dir_all(&self.directory);
    }

    fn reason_to_end(&mut self, signals: &SignalFd) -> Option<(String, i32)> {
        if let Ok(Some(_)) = signals.read_signal() {
            return Some(("interrupted".to_owned(), INTERRUPTED));
        }
        let status = self.peers.iter_mut().find_map(|peer| peer.try_wait().ok().flatten())?;
        Some((format!("the peer process ended in the middle of the run ({status})"), 1))
    }
}

fn watch(held: &Mutex<Held>, signals: &SignalFd) {
    loop {
        std::thread::sleep(LOOK);
        let mut held = held.lock().unwrap_or_else(PoisonError::into_inner);
        if held.ended {
            return;
        }
        if let Some((sentence, code)) = held.reason_to_end(signals) {
            held.end();
            eprintln!("windlass bench: {sentence}; nothing is reported");
            std::process::exit(code);
        }
    }
}

fn prefix() -> String {
    format!("windlass-bench-{}-", getuid())
}

fn make_directory() -> Result<(PathBuf, Flock<File>)> {
    let path = Path::new(SHARED).join(format!("{}{}", prefix(), Pid::this()));
    let what = format!("cannot make {}", path.display());
    loop {
        // What has this name now was left by a dead process with the same number, or is about to be
        // removed by a sweep: the inode tells.
        DirBuilder::new().recursive(true).mode(0o700).create(&path).during(&what)?;
        let Ok(directory) = File::open(&path) else { continue };
        let lock = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, error)| Failure::new(format!("{what}: {error}")))?;
        let locked = lock.metadata().during(&what)?;
        if fs::metadata(&path).is_ok_and(|now| now.ino() == locked.ino()) {
            return Ok((path, lock));
        }
    }
}

/// Removes the directories of runs that were killed. A free lock is the proof.
fn sweep() {
    let Ok(entries) = fs::read_dir(SHARED) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_string_lossy().starts_with(&prefix()) {
            continue;
        }
        let Ok(directory) = File::open(entry.path()) else { continue };
        if let Ok(_lock) = Flock::lock(directory, FlockArg::LockExclusiveNonblock) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}
