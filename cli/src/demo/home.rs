//! The bus of one demo: made for it, removed with it.
//!
//! The parent of a demo holds a kernel lock on the directory of its bus for its whole life. A
//! parent that was killed with SIGKILL cannot remove its bus, but it cannot hold the lock either:
//! the next demo finds such buses by their names, takes the lock as proof, and removes them.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{anyhow, Context, Result};
use nix::fcntl::{Flock, FlockArg};
use windlass::Bus;

use crate::clock;

/// Buses of demos are named `demo-<process>-<time>`.
const PREFIX: &str = "demo-";

/// A bus of a name that nobody else uses, removed when this goes out of scope.
pub struct Home {
    bus: Bus,
    path: PathBuf,
    _lock: Flock<File>,
}

impl Home {
    /// Makes the bus, and removes those whose demos were killed.
    pub fn new() -> Result<Self> {
        let bus = Bus::open(&format!("{PREFIX}{}-{}", std::process::id(), clock::now_ns()))?;
        let path = bus.path();
        let lock = lock(&path).with_context(|| format!("cannot lock {}", path.display()))?;
        if let Some(root) = path.parent() {
            sweep(root);
        }
        Ok(Self { bus, path, _lock: lock })
    }

    /// The bus.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // The children are gone, this process is the last. What cannot be removed now is swept by
        // the next demo.
        let _ = Bus::remove(&self.path.display().to_string());
    }
}

/// Removes the buses under `root` whose demos are dead.
fn sweep(root: &Path) {
    for entry in std::fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().and_then(process_of) else { continue };
        // A demo that begins has not locked its bus yet; but then it has a process.
        if Path::new("/proc").join(process.to_string()).exists() {
            continue;
        }
        if let Ok(_dead) = lock(&entry.path()) {
            // Somebody else may sweep it at the same time, which is as good.
            let _ = Bus::remove(&entry.path().display().to_string());
        }
    }
}

/// The process in the name of a demo's bus.
fn process_of(name: &str) -> Option<u32> {
    let (process, time) = name.strip_prefix(PREFIX)?.split_once('-')?;
    time.parse::<u64>().ok()?;
    process.parse().ok()
}

fn lock(path: &Path) -> Result<Flock<File>> {
    Flock::lock(File::open(path)?, FlockArg::LockExclusiveNonblock)
        .map_err(|(_, errno)| anyhow!("it is locked by another process ({errno})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_demos_are_swept() {
        assert_eq!(process_of("demo-12-34"), Some(12));
        for other in ["default", "demo", "demo-12", "demo-x-1", "demo-12-x", "my-demo-1-2"] {
            assert_eq!(process_of(other), None, "{other}");
        }
    }
}
