//! Work queues: every message goes to one consumer, which acknowledges it.

mod consumer;
pub(crate) mod core;
mod inspect;
mod letters;
mod options;
mod outcome;
mod producer;
mod space;
mod typed;
mod untyped;
pub(crate) mod waking;
mod watch;

pub use consumer::{Batch as JobBatch, Consumer, Job};
pub use inspect::{InFlight, QueueInfo};
pub use letters::{DeadLetter, DeadLetters};
pub use options::QueueBuilder;
pub use outcome::{ClassUse, EnqueueError, TakeError};
pub use producer::{Producer, RawLoan};
pub use typed::TypedLoan;
pub use untyped::UntypedQueue;

pub(crate) use inspect::{inspect, repair};

use crate::error::Result;
use crate::topic::Payload;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// An open queue of a bus: where producers and consumers come from.
///
/// A producer borrows a *chunk*, builds a message in it, and enters it. Every message goes to one consumer, which reads
/// it in place and acknowledges it. A message that is not acknowledged, because its consumer gave it back or died, is
/// delivered again, at the end of the queue, and says how often it was; after the last delivery it is a dead letter.
///
/// Messages come in the order in which they were entered. A message that is delivered again is entered again then, so
/// it comes behind what was entered meanwhile.
///
/// Nobody is held up by whoever is stopped or killed, at whatever instruction. Whoever is hindered, or idle, asks the
/// kernel who lives, and does what is left to do. A message that a stopped process has stays with it.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use windlass::{Bus, Raw, Wait};
///
/// let bus = Bus::anonymous()?; // Bus::open("market")? for processes
/// let queue = bus.queue::<Raw>("jobs").chunks(64, 256).open()?;
/// let mut producer = queue.producer()?;
/// producer.enqueue(b"sweep the floor")?;
///
/// let mut consumer = queue.consumer()?;
/// let job = consumer.take(Wait::Block)?.expect("the queue is open");
/// assert_eq!((job.bytes(), job.delivery()), (&b"sweep the floor"[..], 1));
/// job.nack()?; // or dropped, or its process killed
///
/// let job = consumer.try_take()?.expect("it is delivered again");
/// assert_eq!(job.delivery(), 2);
/// job.ack()?;
/// assert!(consumer.try_take()?.is_none());
/// # Ok(()) }
/// ```
pub struct Queue<T: Payload> {
    core: Arc<core::Core>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> Clone for Queue<T> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), payload: PhantomData }
    }
}

impl<T: Payload> Queue<T> {
    pub(crate) fn new(core: Arc<core::Core>) -> Self {
        Self { core, payload: PhantomData }
    }

    #[cfg(test)]
    fn core(&self) -> &core::Core {
        &self.core
    }

    /// The name of the queue.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Becomes a producer. There may be any number of them.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the queue is damaged; those of the operating system.
    pub fn producer(&self) -> Result<Producer<T>> {
        Producer::join(self.core.clone())
    }

    /// Becomes a consumer.
    ///
    /// # Errors
    ///
    /// `Limit` if `consumers_max` living consumers exist; `Corrupt` if the queue is damaged.
    pub fn consumer(&self) -> Result<Consumer<T>> {
        Consumer::join(self.core.clone())
    }

    /// The messages that were delivered as often as they may be.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the queue is damaged; those of the operating system.
    pub fn dead_letters(&self) -> Result<DeadLetters<T>> {
        DeadLetters::open(self.core.clone())
    }

    /// Ends the queue: producers get [`EnqueueError::Closed`], consumers take what is there and then get `None`.
    ///
    /// In a child of `fork` this does nothing. Closing is for good. A producer that has a loan may still enter it.
    pub fn close(&self) {
        if self.core.member.check_process().is_ok() {
            self.core.close();
        }
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Options, depth, age, who works on what, and counters, as they are now.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the queue is damaged, `Forked`.
    pub fn info(&self) -> Result<QueueInfo> {
        self.core.member.check_process()?;
        inspect(&self.core)
    }
}

impl<T: Payload> fmt::Debug for Queue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("name", &self.name()).finish_non_exhaustive()
    }
}
