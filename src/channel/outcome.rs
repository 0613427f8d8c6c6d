//! What sending and receiving return besides messages: small values that say what to do next.

use crate::bus::Process;
use std::fmt;

/// What is known about the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// It has not come yet.
    Absent,
    /// It is there.
    Here {
        /// Its process.
        pid: u32,
        /// Whether the number counts in another PID namespace than that of this process.
        is_elsewhere: bool,
    },
    /// It has left. Another one may come.
    Left,
    /// Its process died, by the word of the kernel. Another one may come.
    Died {
        /// The process.
        pid: u32,
        /// Whether the number counts in another PID namespace than that of this process.
        is_elsewhere: bool,
    },
}

/// Why a message was not sent. Nothing was lost: the caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendError {
    /// There is no room: the receiver has not read enough, or has not come.
    Full,
    /// There is no room, and the receiver died. Once another one has taken its place the next call goes on.
    Died {
        /// The process that was the receiver.
        pid: u32,
        /// Whether the number counts in another PID namespace than that of this process.
        is_elsewhere: bool,
    },
    /// The receiver has left: it does not want any more. Once another one has come the next call goes on.
    Closed,
    /// The message is longer than any that fits.
    TooLarge {
        /// Its bytes.
        need: u64,
        /// The most that there may be.
        max: u64,
    },
    /// This handle was inherited through `fork`.
    Forked,
    /// The channel holds a value that neither end writes, or its memory was cut short.
    Corrupt,
}

/// Why there is no message. All but `TimedOut` are said again by the next call, unless another sender has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The sender has left, and everything was read.
    Closed,
    /// The sender died, and everything that it committed was read.
    Died {
        /// The process that was the sender.
        pid: u32,
        /// Whether the number counts in another PID namespace than that of this process.
        is_elsewhere: bool,
    },
    /// Nothing came in time.
    TimedOut,
    /// This handle was inherited through `fork`.
    Forked,
    /// The channel holds a value that neither end writes, or its memory was cut short.
    Corrupt,
}

const FORKED: &str = "was inherited through fork; open the channel again in the child";
const CORRUPT: &str =
    "the channel is damaged; remove it (Channel::remove) and let both ends open it anew";

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Absent => f.write_str("has not come yet"),
            Self::Here { pid, is_elsewhere } => {
                write!(f, "is {}", Process { pid, is_elsewhere })
            }
            Self::Left => f.write_str("has left"),
            Self::Died { pid, is_elsewhere } => {
                write!(f, "was {}, which died", Process { pid, is_elsewhere })
            }
        }
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Full => f.write_str("the channel is full; the receiver has not read enough yet"),
            Self::Died { pid, is_elsewhere } => write!(
                f,
                "the channel is full and its receiver, {}, died; start another one",
                Process { pid, is_elsewhere }
            ),
            Self::Closed => f.write_str("the receiver has left the channel"),
            Self::TooLarge { need, max } => write!(
                f,
                "the message has {need} bytes and this channel takes {max}, half of its capacity; create it with \
                 a larger capacity"
            ),
            Self::Forked => write!(f, "this sender {FORKED}"),
            Self::Corrupt => f.write_str(CORRUPT),
        }
    }
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Closed => f.write_str("the sender has left the channel, and everything was read"),
            Self::Died { pid, is_elsewhere } => write!(
                f,
                "the sender, {}, died, and everything that it committed was read; start another one",
                Process { pid, is_elsewhere }
            ),
            Self::TimedOut => f.write_str("no message came in time"),
            Self::Forked => write!(f, "this receiver {FORKED}"),
            Self::Corrupt => f.write_str(CORRUPT),
        }
    }
}

impl std::error::Error for SendError {}
impl std::error::Error for RecvError {}
