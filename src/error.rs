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

    /// An operating-system error with what was being done, on which path.
    pub(crate) fn io(what: impl fmt::Display, source: std::io::Error) -> Self {
        let kind = match source.kind() {
            std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            std::io::ErrorKind::AlreadyExists => ErrorKind::AlreadyExists,
            std::io::ErrorKind::PermissionDenied => ErrorKind::Permission,
            std::io::ErrorKind::ReadOnlyFilesystem => ErrorKind::Permission,
            std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::OutOfMemory => ErrorKind::NoSpace,
            _ => ErrorKind::Io,
        };
        Self { inner: Box::new(Inner { kind, message: what.to_string(), source: Some(source) }) }
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
            format!("{file} is damaged: {field} is {found}, expected {expected}"),
        )
    }

    /// The kind of this error, to branch on.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.inner.source {
            Some(source) => write!(f, "{}: {source}", self.inner.message),
            None => f.write_str(&self.inner.message),
        }
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
