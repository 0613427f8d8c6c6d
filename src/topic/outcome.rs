//! What publishing and receiving return besides messages: small values that say what to do next.

use crate::bus::Process;
use crate::error::ErrorKind;
use crate::topic::core::{BlockReason, Blocker};
use std::fmt;

/// Where a published message lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The lane that holds it.
    pub lane: u32,
    /// Its number: dense in its lane, and on an ordered topic dense in the topic.
    pub sequence: u64,
    /// Byte offset of its frame in the lane since the lane's birth.
    pub position: u64,
}

/// Why a message was not published. Nothing was lost: the caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PublishError {
    /// No segment can be taken; somebody stands in the way.
    Full {
        /// Who, and why.
        blocker: Blocker,
    },
    /// The message does not fit a segment of the topic.
    TooLarge {
        /// Payload bytes that it needs.
        need: u64,
        /// Payload bytes that a segment takes.
        max: u64,
    },
    /// The topic was closed.
    Closed,
    /// This handle was inherited through `fork`.
    Forked,
    /// The log of a durable topic cannot grow, or cannot be put on disk: its file system is full or read-only, or
    /// fails. Nothing that was published before is lost, and once there is room the next call goes on.
    ///
    /// With [`SyncPolicy::Each`](crate::SyncPolicy::Each) a failing disk may also say so when the message is there for
    /// everybody already and only its place in the order is not on disk: publishing it again may make it twice.
    Storage {
        /// What the operating system said.
        kind: ErrorKind,
    },
    /// The message was to have a certain sequence, and another publisher was first.
    Conflict,
    /// Keys and sequences are for durable topics, and this is none.
    NotDurable,
    /// The lane holds a value that no publisher writes, or a file of the topic was cut short while it was mapped; in
    /// that case alone others may see the message. `windlass doctor` says more.
    Corrupt,
}

impl fmt::Display for PublishError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { blocker: Blocker { node, pid, is_elsewhere, slot, lag, reason } } => {
                let (what, unit) = match reason {
                    BlockReason::Unread => ("has not read the oldest segment", "bytes"),
                    BlockReason::Views => ("holds views into every segment left", "bytes"),
                    BlockReason::Order => ("has not read the oldest messages", "messages"),
                };
                let process = Process { pid: *pid, is_elsewhere: *is_elsewhere };
                write!(
                    f,
                    "the lane is full: subscriber {slot} ({process}, node {node}) {what} and is \
                     {lag} {unit} behind"
                )
            }
            Self::TooLarge { need, max } => write!(
                f,
                "the message needs {need} bytes and a segment of this topic takes {max}; \
                 create the topic with a larger segment_bytes"
            ),
            Self::Closed => f.write_str("the topic was closed"),
            Self::Forked => f.write_str(
                "this publisher was inherited through fork; open the bus again in the child",
            ),
            Self::Storage { kind: ErrorKind::NoSpace } => f.write_str(
                "the log cannot grow: its file system is full; make room, and publish again",
            ),
            Self::Storage { kind } => write!(
                f,
                "the log cannot grow or be put on disk ({}); nothing that was published is lost",
                match kind {
                    ErrorKind::Permission => "its files may not be made or written",
                    ErrorKind::Limit => "this process has too many files open",
                    ErrorKind::NotFound => "its folder is gone",
                    _ => "the operating system failed",
                }
            ),
            Self::Conflict => f.write_str("another message was published first"),
            Self::NotDurable => f.write_str(
                "only a durable topic has keys and expected sequences; create it with durable()",
            ),
            Self::Corrupt => f.write_str("the lane is damaged; run windlass doctor"),
        }
    }
}

impl std::error::Error for PublishError {}

/// Why there is no message. Except for `Lagged`, `Damaged`, `TimedOut` and `Unmapped`, the next call will say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecvError {
    /// The publisher of a lossy topic overtook this subscriber, which missed exactly so many messages. The next call
    /// goes on with the oldest one still there.
    Lagged {
        /// Messages that this subscriber will never see.
        missed: u64,
    },
    /// This subscriber blocked a publisher for longer than `evict_after` and lost its backlog. Subscribe again.
    Evicted {
        /// Messages of its backlog that it will never see.
        missed: u64,
    },
    /// A message of a durable topic is not what was published: a byte of it, or of the order, changed on disk. The next
    /// call goes on behind it.
    Damaged {
        /// The message that is lost.
        sequence: u64,
    },
    /// The topic was closed and everything was read.
    Closed,
    /// Nothing came in time.
    TimedOut,
    /// This handle was inherited through `fork`.
    Forked,
    /// The topic holds a value that no publisher writes. `windlass doctor` says more.
    Corrupt,
    /// The lane of a publisher that joined later cannot be mapped in this process: it has no descriptor or memory left,
    /// or may not read it. [`Topic::info`](crate::Topic::info) says why. Nothing is lost: once the reason is gone the
    /// next call goes on.
    Unmapped {
        /// The lane.
        lane: u32,
    },
}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lagged { missed } => {
                write!(f, "this subscriber was overtaken and missed {missed} messages")
            }
            Self::Evicted { missed } => write!(
                f,
                "this subscriber blocked a publisher for too long and lost its backlog of \
                 {missed} messages; subscribe again"
            ),
            Self::Damaged { sequence } => write!(
                f,
                "message {sequence} is not what was published: its file changed on disk; the next \
                 call goes on behind it"
            ),
            Self::Closed => f.write_str("the topic was closed"),
            Self::TimedOut => f.write_str("no message came in time"),
            Self::Forked => f.write_str(
                "this subscriber was inherited through fork; open the bus again in the child",
            ),
            Self::Corrupt => f.write_str("the topic is damaged; run windlass doctor"),
            Self::Unmapped { lane } => write!(
                f,
                "lane {lane} of a new publisher cannot be mapped in this process; Topic::info says \
                 why, and once that is mended the next call goes on"
            ),
        }
    }
}

impl std::error::Error for RecvError {}
