//! A topic of whatever type, for tools.

use crate::error::Result;
use crate::log::Cursor;
use crate::topic::core::Core;
use crate::topic::payload::Raw;
use crate::topic::{inspect, Publisher, Start, Subscriber, Topic, TopicBuilder, TopicInfo};
use std::fmt;
use std::sync::Arc;

/// An open topic whose type is not known to whoever opened it; made by
/// [`Bus::topic_untyped`](crate::Bus::topic_untyped).
///
/// For tools that record, show and pass on messages. Messages come as the bytes that lie in the topic; those of a typed
/// topic are Cap'n Proto messages in the framing of streams.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use windlass::schemas::tick_capnp::tick;
/// use windlass::{Bus, Start};
///
/// let bus = Bus::anonymous()?;
/// let ticks = bus.topic::<tick::Owned>("ticks").open()?;
/// let mut subscriber = bus.topic_untyped("ticks")?.subscriber(Start::Latest)?;
/// let mut publisher = ticks.publisher()?;
/// let mut loan = publisher.loan()?;
/// loan.init_root().set_price(101.25);
/// loan.publish()?;
///
/// let message = subscriber.try_recv()?.expect("it was published");
/// let message = capnp::serialize::read_message(message.bytes(), Default::default())?;
/// assert_eq!(message.get_root::<tick::Reader>()?.get_price(), 101.25);
/// # Ok(()) }
/// ```
pub struct UntypedTopic {
    topic: Topic<Raw>,
}

impl UntypedTopic {
    pub(crate) fn new(core: Arc<Core>) -> Self {
        Self { topic: Topic::new(core) }
    }

    /// The name of the topic.
    pub fn name(&self) -> &str {
        self.topic.name()
    }

    /// Becomes a subscriber; see [`Topic::subscriber`].
    ///
    /// # Errors
    ///
    /// As for [`Topic::subscriber`].
    pub fn subscriber(&self, start: Start) -> Result<Subscriber<Raw>> {
        self.topic.subscriber(start)
    }

    /// Becomes a publisher; see [`Topic::publisher`]. The bytes that it publishes must be messages of the topic's type:
    /// subscribers trust that they are.
    ///
    /// # Errors
    ///
    /// As for [`Topic::publisher`].
    pub fn publisher(&self) -> Result<Publisher<Raw>> {
        self.topic.publisher()
    }

    /// The schema that the topic stores, as a `CodeGeneratorRequest`; `None` for raw bytes.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is damaged.
    pub fn schema_bytes(&self) -> Result<Option<Vec<u8>>> {
        let core = &self.topic.core;
        core.shape.typed.then(|| core.schema_bytes()).transpose()
    }

    /// Takes hold of a cursor of a durable topic; see [`Topic::cursor`].
    ///
    /// # Errors
    ///
    /// As for [`Topic::cursor`].
    pub fn cursor(&self, name: &str) -> Result<Cursor> {
        self.topic.cursor(name)
    }

    /// Removes a cursor of a durable topic. False if there is none of that name.
    ///
    /// # Errors
    ///
    /// As for [`Topic::remove_cursor`].
    pub fn remove_cursor(&self, name: &str) -> Result<bool> {
        self.topic.remove_cursor(name)
    }

    /// Whether the topic was closed.
    pub fn is_closed(&self) -> bool {
        self.topic.is_closed()
    }

    /// Options, publishers, subscribers, lag and counters, as they are now.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the topic is damaged, `Forked`.
    pub fn info(&self) -> Result<TopicInfo> {
        self.topic.core.member.check_process()?;
        inspect(&self.topic.core)
    }
}

impl fmt::Debug for UntypedTopic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedTopic").field("name", &self.name()).finish_non_exhaustive()
    }
}

impl TopicBuilder<Raw> {
    /// Gives the topic the schema that another one stores ([`UntypedTopic::schema_bytes`]), so that it carries messages
    /// of that type although this process does not know it: for tools that copy topics.
    ///
    /// What is published must be messages of that type.
    pub fn with_schema(self, schema: Option<Vec<u8>>) -> Self {
        Self { schema, ..self }
    }
}
