//! The one error of the benchmark: a sentence for the person who started it.

use std::fmt;

/// Why the benchmark stopped.
#[derive(Debug)]
pub struct Failure(String);

/// The result of everything in the benchmark.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

impl Failure {
    /// A failure that reads as `sentence`.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self(format!("{error:#}"))
    }
}

/// Says what was being done when an operation failed.
pub trait During<T> {
    /// Turns the error into a [`Failure`] that begins with `what`.
    fn during(self, what: &str) -> Result<T>;
}

impl<T, E: fmt::Display> During<T> for std::result::Result<T, E> {
    // Cold and apart, so that the message is not assembled inside a measured loop.
    #[inline]
    fn during(self, what: &str) -> Result<T> {
        match self {
            Ok(value) => Ok(value),
            Err(error) => Err(describe(what, &error)),
        }
    }
}

#[cold]
#[inline(never)]
fn describe(what: &str, error: &dyn fmt::Display) -> Failure {
    Failure(format!("{what}: {error}"))
}
