//! What entering and taking return besides messages: small values that say what to do next.

use std::fmt;

/// What the chunks of one class are used for, counted one by one while others go on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClassUse {
    /// Bytes of each chunk.
    pub chunk_bytes: u32,
    /// Chunks of the class.
    pub chunks: u32,
    /// Messages that wait for a consumer.
    pub ready: u32,
    /// Messages that wait until they are due.
    pub later: u32,
    /// Messages that a consumer works on.
    pub taken: u32,
    /// Messages under construction.
    pub loaned: u32,
    /// Messages that were delivered as often as they may be, and that nobody has looked after.
    pub dead: u32,
}

impl ClassUse {
    /// Chunks that a producer can have.
    pub fn free(&self) -> u32 {
        let used = [self.ready, self.later, self.taken, self.loaned, self.dead].iter().sum();
        self.chunks.saturating_sub(used)
    }
}

/// Why a message was not entered. Nothing was lost: the caller still has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnqueueError {
    /// No chunk of the class that the message needs is free.
    Full {
        /// What they are used for.
        class: ClassUse,
    },
    /// The message does not fit the largest chunk of the queue.
    TooLarge {
        /// Payload bytes that it needs.
        need: u64,
        /// Payload bytes that the largest chunk takes.
        max: u64,
    },
    /// The queue was closed.
    Closed,
    /// This handle was inherited through `fork`.
    Forked,
    /// A word of the queue is none that it can have, or a file of it was cut short while it was mapped; in that case
    /// alone others may get the message.
    Corrupt,
}

impl fmt::Display for EnqueueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { class } => {
                let ClassUse { chunk_bytes, chunks, ready, later, taken, loaned, dead } = class;
                write!(
                    f,
                    "the queue is full: of its {chunks} chunks of {chunk_bytes} bytes {ready} wait \
                     for a consumer, {later} wait until they are due, {taken} are being worked on, \
                     {loaned} are being built, and {dead} are dead letters"
                )
            }
            Self::TooLarge { need, max } => write!(
                f,
                "the message needs {need} bytes and the largest chunk of this queue takes {max}; \
                 create the queue with larger chunks"
            ),
            Self::Closed => f.write_str("the queue was closed"),
            Self::Forked => f.write_str(
                "this producer was inherited through fork; open the bus again in the child",
            ),
            Self::Corrupt => f.write_str("the queue is damaged; remove it and create it anew"),
        }
    }
}

impl std::error::Error for EnqueueError {}

/// Why there is no message. Except for `TimedOut`, the next call will say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeError {
    /// There was none in all that time.
    TimedOut,
    /// This handle was inherited through `fork`.
    Forked,
    /// A word of the queue is none that it can have, or a file of it was cut short while it was mapped.
    Corrupt,
}

impl fmt::Display for TakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no message came in time",
            Self::Forked => {
                "this consumer was inherited through fork; open the bus again in the child"
            }
            Self::Corrupt => "the queue is damaged; remove it and create it anew",
        })
    }
}

impl std::error::Error for TakeError {}
