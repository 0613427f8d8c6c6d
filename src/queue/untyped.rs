//! A queue of whatever type, for tools.

use crate::error::Result;
use crate::message::dynamic::Schema;
use crate::queue::{inspect, Consumer, DeadLetters, Queue, QueueInfo};
use crate::topic::Raw;
use std::fmt;

/// An open queue whose type is not known to whoever opened it; made by
/// [`Bus::queue_untyped`](crate::Bus::queue_untyped).
///
/// For tools that look at queues, empty them and look after their dead letters. Messages come as the bytes that lie in
/// their chunks. Those of a typed queue are Cap'n Proto messages in the framing of streams, one behind the other as
/// every tool of Cap'n Proto reads them. There is no producer: what enters a queue is of its type.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use windlass::schemas::tick_capnp::tick;
/// use windlass::Bus;
///
/// let bus = Bus::anonymous()?;
/// let queue = bus.queue::<tick::Owned>("ticks").open()?;
/// let mut producer = queue.producer()?;
/// let mut loan = producer.loan()?;
/// loan.init_root().set_price(101.25);
/// loan.enqueue()?;
///
/// let queue = bus.queue_untyped("ticks")?;
/// assert!(queue.info()?.schema.is_some_and(|name| name.ends_with(":Tick")));
/// let mut consumer = queue.consumer()?;
/// let job = consumer.try_take()?.expect("it is there");
/// let message = capnp::serialize::read_message(job.bytes(), Default::default())?;
/// assert_eq!(message.get_root::<tick::Reader>()?.get_price(), 101.25);
/// job.ack()?;
/// # Ok(()) }
/// ```
pub struct UntypedQueue {
    queue: Queue<Raw>,
}

impl UntypedQueue {
    pub(crate) fn new(queue: Queue<Raw>) -> Self {
        Self { queue }
    }

    /// The name of the queue.
    pub fn name(&self) -> &str {
        self.queue.name()
    }

    /// The type of the messages, to read them without their generated code. None if they are raw bytes.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is damaged, `Forked`.
    pub fn schema(&self) -> Result<Option<Schema>> {
        let core = &self.queue.core;
        core.member.check_process()?;
        core.shape.typed.then(|| Schema::parse(&core.schema_bytes()?)).transpose()
    }

    /// Becomes a consumer; see [`Queue::consumer`].
    ///
    /// # Errors
    ///
    /// As for [`Queue::consumer`].
    pub fn consumer(&self) -> Result<Consumer<Raw>> {
        self.queue.consumer()
    }

    /// The messages that were delivered as often as they may be.
    ///
    /// # Errors
    ///
    /// As for [`Queue::dead_letters`].
    pub fn dead_letters(&self) -> Result<DeadLetters<Raw>> {
        self.queue.dead_letters()
    }

    /// Options, depth, age, who works on what, and counters, as they are now.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the queue is damaged, `Forked`.
    pub fn info(&self) -> Result<QueueInfo> {
        self.queue.core.member.check_process()?;
        inspect(&self.queue.core)
    }
}

impl fmt::Debug for UntypedQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedQueue").field("name", &self.name()).finish_non_exhaustive()
    }
}
