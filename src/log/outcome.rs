//! What reading a log says besides messages: small values that say what to do next.

use crate::error::ErrorKind;
use std::fmt;

/// What is wrong with a message of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Damage {
    /// Its place in the order is gone, or says something that no publisher says.
    Place,
    /// The file of the segment that held it is gone.
    Gone,
    /// The file of the segment that holds it is not that segment any more.
    File,
    /// Where it should be there is no record that fits the segment.
    Record,
    /// Its bytes are not those that its checksum was made of.
    Checksum,
    /// It does not follow the record before it in its lane, or has another one's number.
    Sequence,
    /// It was read while its file was being cut short.
    Shortened,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Place => "its place in the order is damaged",
            Self::Gone => "the file that held it is gone",
            Self::File => "the file that holds it is damaged",
            Self::Record => "there is no record where it should be",
            Self::Checksum => "its checksum is wrong",
            Self::Sequence => "it does not follow the record before it",
            Self::Shortened => "its file was cut short",
        })
    }
}

/// Why an iteration over a log has no message here. The next call goes on behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReadError {
    /// A message is not what was published.
    Damaged {
        /// The message that is lost.
        sequence: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// Messages were deleted, by the retention of the log, after the iteration began and before it got there. It goes
    /// on with the oldest one that is kept.
    Lagged {
        /// Messages that this iteration will never see.
        missed: u64,
    },
    /// The file of a message cannot be mapped in this process: it has no descriptor or memory left, or may not read it.
    Unmapped {
        /// The message.
        sequence: u64,
        /// What the operating system said.
        kind: ErrorKind,
    },
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Damaged { sequence, damage } => {
                write!(f, "message {sequence} is not what was published: {damage}")
            }
            Self::Lagged { missed } => {
                write!(f, "{missed} messages were deleted before they were read")
            }
            Self::Unmapped { sequence, kind } => write!(
                f,
                "message {sequence} cannot be read ({}); nothing is lost",
                match kind {
                    ErrorKind::Limit => "this process has too many files open",
                    ErrorKind::Permission => "its file may not be read",
                    ErrorKind::NoSpace => "this process may not map more memory",
                    _ => "the operating system failed",
                }
            ),
        }
    }
}

impl std::error::Error for ReadError {}
