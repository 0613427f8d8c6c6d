//! A piece of shared memory with a name of the operating system, and the locks of those who use it.
//!
//! The crate `shared_memory` makes, opens and maps it. It leaves the name behind when its owner is killed, and knows
//! nobody's life; so whoever uses the memory has an open file of its own, with a lock on one byte:
//!
//! ```text
//!   0          len                      LOCK_BASE
//!   ├── file ───┤ ······ nothing ······ ├─────────┬────────┬──────────┬──
//!                                       │ builder │ sender │ receiver │
//! ```
//!
//! * `A1` — The name is made, filled, given up and removed by whoever holds the lock of the builder, which is held for
//!   microseconds. A name that was removed meanwhile, or means another file by now, is noticed under that lock.
//! * `A2` — An end is taken under the lock of the builder as well. So whoever holds that and finds the locks of both
//!   ends free is alone.
//! * `A3` — Memory is reserved before it is touched.
//!
//! As for nodes, the kernel's word that a lock is free is the only proof of death, and a forked child inherits no lock.

#![allow(unsafe_code)]

use super::home::check_name;
use super::loss::{Loss, Watched};
use super::map::{page_size, reserve};
use super::node;
use super::place::Region;
use super::sys::Guarded;
use crate::error::{Error, ErrorKind, Result};
use shared_memory::{Shmem, ShmemConf, ShmemError};
use std::fmt;
use std::fs::{File, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Where the names of the operating system are.
const FOLDER: &str = "/dev/shm";

/// Whose byte a lock is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Byte {
    /// Whoever makes, opens or leaves.
    Builder = 0,
    /// The sender.
    Sender = 1,
    /// The receiver.
    Receiver = 2,
}

/// An open file of our own behind a name, which can carry locks.
pub struct Named {
    name: String,
    path: PathBuf,
    held: Guarded,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path.display().fmt(f)
    }
}

/// Where the memory of this name is.
///
/// # Errors
///
/// `Invalid` if it cannot be a name.
pub fn path_of(name: &str) -> Result<PathBuf> {
    check_name("channel", name)?;
    Ok(Path::new(FOLDER).join(name))
}

/// Removes a name, whatever it means. Whoever has it open keeps it.
///
/// # Errors
///
/// `NotFound` if there is none.
pub fn remove(name: &str) -> Result<()> {
    let path = path_of(name)?;
    std::fs::remove_file(&path)
        .map_err(|error| Error::io(format!("cannot remove channel {}", path.display()), error))
}

impl Named {
    /// Opens what `name` means; `None` if it means nothing.
    ///
    /// # Errors
    ///
    /// `Permission` if it belongs to somebody else, or others may use it.
    pub fn open(name: &str) -> Result<Option<Self>> {
        let path = path_of(name)?;
        let mut options = File::options();
        options.read(true).write(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK);
        let opened = Guarded::open(|| {
            let what = || format!("cannot open channel {}", path.display());
            options.open(&path).map_err(|error| match error.raw_os_error() {
                Some(libc::EACCES | libc::EPERM) => Error::new(
                    ErrorKind::Permission,
                    format!(
                        "{}: it belongs to another user, and a channel is its user's alone; use another name",
                        what()
                    ),
                ),
                _ => Error::io(what(), error),
            })
        });
        let held = match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let named = Self { name: name.to_owned(), path, held };
        named.check_owner()?;
        Ok(Some(named))
    }

    /// Anybody can make a name in that folder first.
    fn check_owner(&self) -> Result<()> {
        let metadata = self.metadata()?;
        let user = nix::unistd::geteuid().as_raw();
        if metadata.is_file() && metadata.uid() == user && metadata.mode() & 0o077 == 0 {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Permission,
            format!(
                "cannot use channel {self}: it is owned by user {} with mode {:06o}, expected a file of user {user} \
                 that nobody else may use (mode 100600); use another name, or remove it",
                metadata.uid(),
                metadata.mode()
            ),
        ))
    }

    fn metadata(&self) -> Result<std::fs::Metadata> {
        let metadata = self.held.file().metadata();
        metadata.map_err(|error| Error::io(format!("cannot look at channel {self}"), error))
    }

    /// Makes `name` mean new memory, a byte of it: whoever holds the lock of the builder makes it longer. Nothing
    /// happens if it means something.
    ///
    /// # Errors
    ///
    /// Those of the operating system.
    pub fn create(name: &str) -> Result<()> {
        let path = path_of(name)?;
        step!("channel.create");
        match ShmemConf::new().os_id(name).size(1).create() {
            // From now on it lives until the last end that leaves in order removes it.
            Ok(mut made) => {
                made.set_owner(false);
                Ok(())
            }
            Err(ShmemError::MappingIdExists) => Ok(()),
            Err(error) => Err(explain(format!("cannot create channel {}", path.display()), &error)),
        }
    }

    /// Waits for the lock of the builder, at most for `patience`. False if somebody has it all that time.
    ///
    /// # Errors
    ///
    /// If the kernel has no locks to give.
    pub fn lock_builder(&self, patience: Duration) -> Result<bool> {
        let end = Instant::now() + patience;
        let mut nap = Duration::from_micros(20);
        while !self.try_lock(Byte::Builder)? {
            if Instant::now() >= end {
                return Ok(false);
            }
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(2));
        }
        Ok(true)
    }

    /// Takes a lock. False if somebody else has it.
    ///
    /// # Errors
    ///
    /// If the kernel has no locks to give.
    pub fn try_lock(&self, byte: Byte) -> Result<bool> {
        node::try_lock(self.held.file(), byte as u32)
            .map_err(|error| Error::io(format!("cannot lock channel {self}"), error.into()))
    }

    /// Gives the lock of the builder back.
    pub fn unlock_builder(&self) {
        self.give_back(Byte::Builder);
    }

    /// Gives all locks back, that of the builder last: A2.
    pub fn unlock(&self) {
        [Byte::Sender, Byte::Receiver, Byte::Builder]
            .into_iter()
            .for_each(|byte| self.give_back(byte));
    }

    fn give_back(&self, byte: Byte) {
        if self.held.is_inherited() {
            return;
        }
        if let Err(error) = node::unlock(self.held.file(), byte as u32) {
            tracing::warn!(%error, channel = %self, "a lock of a channel is released late");
        }
    }

    /// Whether somebody else has a lock. Every doubt counts as yes.
    pub fn is_held(&self, byte: Byte) -> bool {
        self.held.is_inherited() || node::is_alive(self.held.file(), byte as u32)
    }

    /// Whether the name still means this file: A1.
    pub fn is_named(&self) -> Result<bool> {
        let mine = self.metadata()?;
        Ok(std::fs::symlink_metadata(&self.path)
            .is_ok_and(|named| named.dev() == mine.dev() && named.ino() == mine.ino()))
    }

    /// Removes the name, which means this file.
    pub fn unlink(&self) -> Result<()> {
        remove(&self.name)
    }

    /// Bytes of the file.
    pub fn len(&self) -> Result<u64> {
        Ok(self.metadata()?.len())
    }

    /// The word at byte `at`, or 0 where the file ends before.
    pub fn peek(&self, at: usize) -> u64 {
        let mut word = [0; 8];
        match self.held.file().read_exact_at(&mut word, at as u64) {
            Ok(()) => u64::from_le_bytes(word),
            Err(_) => 0,
        }
    }

    /// Whether all bytes are zero.
    pub fn is_blank(&self) -> Result<bool> {
        let (mut chunk, mut at) = (vec![0; 1 << 16], 0);
        loop {
            let read = self.held.file().read_at(&mut chunk, at);
            match read.map_err(|error| Error::io(format!("cannot read channel {self}"), error))? {
                0 => return Ok(true),
                read if chunk[..read].iter().any(|byte| *byte != 0) => return Ok(false),
                read => at += read as u64,
            }
        }
    }

    /// Makes the file `bytes` zeroes again, with all of their memory: A3. Nobody may be using it.
    ///
    /// # Errors
    ///
    /// `NoSpace` if there is not that much.
    pub fn blank(&self, bytes: u64) -> Result<()> {
        let file = self.held.file();
        let cannot = |error| Error::io(format!("cannot make channel {self}"), error);
        file.set_len(0).map_err(cannot)?;
        file.set_permissions(Permissions::from_mode(0o600)).map_err(cannot)?;
        reserve(file, self, bytes)
    }

    /// Maps all of it.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not `bytes` long; `NoSpace` if the process may not map so much.
    pub fn map(&self, bytes: u64, loss: &Loss) -> Result<Region> {
        let opened = ShmemConf::new().os_id(&self.name).open();
        let shmem =
            opened.map_err(|error| explain(format!("cannot map channel {self}"), &error))?;
        if shmem.len() as u64 != bytes {
            return Err(Error::corrupt(self, "its length", shmem.len(), bytes));
        }
        let base = NonNull::new(shmem.as_ptr()).expect("a mapping is never at address 0");
        let (start, len) = (base.as_ptr() as usize, shmem.len());
        let end = start + len.next_multiple_of(page_size());
        let watched = Watched::new(start, end, true, loss)?;
        let keep = Arc::new(Mapping { _watched: watched, _shmem: Sendable(shmem) });
        // SAFETY: a mapping starts at a page, and its `len` bytes stay mapped to be read and written until `keep` is
        // dropped, which the region keeps.
        Ok(unsafe { Region::new(base, len, keep) })
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        // By name, not left to the close: a child that is being forked right now may hold a copy of the open file for
        // an instant longer.
        self.unlock();
    }
}

/// A mapping, and what watches it, which ends first.
struct Mapping {
    _watched: Watched,
    _shmem: Sendable,
}

/// What is kept to be dropped.
struct Sendable(#[allow(dead_code)] Shmem);

// SAFETY: nothing but its drop is done with it, which makes system calls that any thread may make.
unsafe impl Send for Sendable {}
// SAFETY: nobody gets a reference to what is in it.
unsafe impl Sync for Sendable {}

/// What the crate says went wrong, as we say it.
fn explain(what: String, error: &ShmemError) -> Error {
    let number = match error {
        ShmemError::MapCreateFailed(number)
        | ShmemError::MapOpenFailed(number)
        | ShmemError::UnknownOsError(number) => *number,
        _ => return Error::new(ErrorKind::Io, format!("{what}: {error}")),
    };
    let number = i32::try_from(number).unwrap_or(libc::EIO);
    Error::io(what, std::io::Error::from_raw_os_error(number))
}
