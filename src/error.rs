//! The error of everything that is not on the hot path: open, create, join, inspect, repair.
//!
//! One opaque type with a [`kind`](Error::kind) to branch on and a sentence to show. The errors of the hot path
//! (`PublishError`, `RecvError`) are small `Copy` enums and live with their operations.

use std::fmt;

/// What went wrong, coarse enough to branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The bus, topic or file does not exist.
    NotFound,
    /// It exists already and the caller asked to create it.
    AlreadyExists,
    /// It exists with other options, another type or another layout than asked for.
    Mismatch,
    /// Bytes in a shared file are not what the format allows.
    Corrupt,
    /// Memory or disk space could not be reserved.
    NoSpace,
    /// The operating system denies access, or the file belongs to somebody it should not belong to.
    Permission,
    /// Every slot of a fixed-size table is in use by a living process.
    Limit,
    /// An argument is outside its range.
    Invalid,
    /// The handle was inherited through `fork`; open the bus again in the child.
    Forked,
    /// The topic was closed.
    Closed,
    /// The position asked for is not retained, or not yet written.
    OutOfRange,
    /// A message of a log is not what was published: its file changed on disk, or is gone. Others are not concerned.
    Damaged,
    /// Any other failure of the operating system.
    Io,
}

/// An error with a kind to branch on and a sentence that says what, where, found, expected and what to do.
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    message: String,
    source: Option<std::io::Error>,
}

/// The result of everything that is not on the hot path.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error of `kind` that reads as `message`: one sentence, no full stop.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { inner: Box::new(Inner { kind, message: message.into(), source: None }) }
    }

    /// An operating-system error with what was being done, on which path. Says what to do where there is something to
    /// do.
    pub(crate) fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let (kind, message) = match source.raw_os_error().and_then(meaning) {
            Some((kind, why)) => (kind, format!("{what}: {why}")),
            None => (ErrorKind::Io, format!("{what}: {source}")),
        };
        Self { inner: Box::new(Inner { kind, message, source: Some(source) }) }
    }

    /// A value in a shared file that the format does not allow.
    pub(crate) fn corrupt(
        file: impl fmt::Display,
        field: &str,
        found: impl fmt::Display,
        expected: impl fmt::Display,
    ) -> Self {
        Self::new(
            ErrorKind::Corrupt,
            format!(
                "{file} is damaged: {field} is {found}, expected {expected}; to start over, remove \
                 the topic or the bus that it belongs to, or the channel that it is"
            ),
        )
    }

    /// The kind of this error, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }
}

/// What an error number of the operating system means for somebody who uses files, and what to do about it.
fn meaning(number: i32) -> Option<(ErrorKind, &'static str)> {
    Some(match number {
        libc::EACCES | libc::EPERM => (
            ErrorKind::Permission,
            "this user may not; it takes the right to read, write and enter the folder, which its owner has, and a \
             group that the owner shares the bus with (BusOptions::group)",
        ),
        libc::EROFS => (
            ErrorKind::Permission,
            "its file system is mounted read-only; mount it to be written, or use a bus elsewhere",
        ),
        libc::ELOOP => (
            ErrorKind::Permission,
            "it is a symbolic link, which is not followed; remove it, or name what it points to",
        ),
        libc::ENAMETOOLONG => {
            (ErrorKind::Invalid, "the file system does not allow so long a name; use a shorter one")
        }
        libc::EMFILE => (
            ErrorKind::Limit,
            "this process has too many files open; close some or raise its limit (ulimit -n)",
        ),
        libc::ENFILE => (
            ErrorKind::Limit,
            "this machine has too many files open; close some or raise its limit (sysctl fs.file-max)",
        ),
        libc::ENOENT => (ErrorKind::NotFound, "it does not exist"),
        libc::EEXIST => (ErrorKind::AlreadyExists, "it exists already"),
        libc::ENOSPC | libc::EDQUOT => (
            ErrorKind::NoSpace,
            "its file system has no room for another file; remove some, or give it more room (for /dev/shm: mount -o \
             remount,size=...,nr_inodes=... /dev/shm)",
        ),
        libc::ENOMEM => {
            (ErrorKind::NoSpace, "there is no memory for it; free some, or raise the limit (ulimit -v)")
        }
        libc::EISDIR => {
            (ErrorKind::Corrupt, "it is a folder, expected a file; remove it to start over")
        }
        libc::ENXIO => {
            (ErrorKind::Corrupt, "it is a socket or a device, expected a file; remove it to start over")
        }
        libc::ENOTDIR => {
            (ErrorKind::Corrupt, "it is a file, expected a folder; remove it to start over")
        }
        _ => return None,
    })
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("message", &self.to_string())
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn display_carries_the_operating_system_text() {
        let error = Error::io("cannot open /x", std::io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(error.kind(), ErrorKind::NoSpace);
        assert!(error.to_string().starts_with("cannot open /x: "), "{error}");
    }
}
