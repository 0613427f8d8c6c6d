//! Topics: named, typed streams that every subscriber sees whole.
//!
//! A topic has one lane for each publisher. [`Topic`] is the handle from which [`Publisher`]s and [`Subscriber`]s are
//! made; [`TopicBuilder`] creates or opens it.

mod append;
pub(crate) mod core;
mod durable;
mod follow;
mod inspect;
mod join;
mod lease;
pub(crate) mod loan;
mod message;
mod options;
mod outcome;
pub mod patience;
pub(crate) mod payload;
pub(crate) mod publisher;
mod replay;
mod resume;
mod seek;
mod start;
mod subscriber;
mod untyped;
pub(crate) mod view;
pub(crate) mod wait;
pub(crate) mod watch;

pub use self::core::{BlockReason, Blocker};
pub use append::Append;
pub use durable::SyncPolicy;
pub use inspect::{PublisherInfo, SubscriberInfo, SubscriberState, TopicInfo};
pub use loan::Loan;
pub use message::{Batch, Message};
pub use options::{Policy, TopicBuilder};
pub use outcome::{PublishError, Receipt, RecvError};
pub use payload::{Payload, Raw};
pub use publisher::Publisher;
pub use replay::{OnDamage, Replay, Speed};
pub use resume::Resumed;
pub use start::Start;
pub use subscriber::Subscriber;
pub use untyped::UntypedTopic;
pub use view::{StreamChunk, View, WeakView};
pub use wait::Wait;

pub(crate) use inspect::{inspect, repair};

use crate::error::{Error, ErrorKind, Result};
use crate::log::core::LogCore;
pub use crate::log::recover::Recovery;
use crate::log::source::Source;
use crate::log::Log;
use std::marker::PhantomData;
use std::sync::Arc;

/// An open topic of a bus: where publishers and subscribers come from.
///
/// Cheap to clone. `T` is [`Raw`] for bytes or the `Owned` type of a Cap'n Proto struct.
pub struct Topic<T: Payload> {
    core: Arc<core::Core>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> Clone for Topic<T> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), payload: PhantomData }
    }
}

impl<T: Payload> Topic<T> {
    pub(crate) fn new(core: Arc<core::Core>) -> Self {
        Self { core, payload: PhantomData }
    }

    /// The name of the topic.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Takes a lane and becomes its publisher.
    ///
    /// A lane that a dead or departed publisher left is continued: its positions and sequences go on. Memory for a new
    /// lane is reserved here.
    ///
    /// # Errors
    ///
    /// `Limit` if `publishers_max` living publishers exist, `NoSpace` if the memory of the lane cannot be reserved,
    /// `Closed` if the topic was closed, `Corrupt` if the lane is damaged.
    pub fn publisher(&self) -> Result<Publisher<T>> {
        Publisher::join(self.core.clone())
    }

    /// Joins the topic as a subscriber that begins at `start`.
    ///
    /// When this returns, every message published from now on will be delivered (on a lossy topic: delivered or
    /// counted as missed); there is no race with the first message.
    ///
    /// # Errors
    ///
    /// `Limit` if `subscribers_max` living subscribers exist, `OutOfRange` if `start` names a sequence that is not
    /// retained (the error names the oldest and the newest), `Corrupt` if the topic is damaged.
    pub fn subscriber(&self, start: Start) -> Result<Subscriber<T>> {
        Subscriber::join(self.core.clone(), start)
    }

    /// Ends the topic: publishers get [`PublishError::Closed`], subscribers read what is there and then get `None`.
    ///
    /// In a child of `fork` this does nothing. Closing is for good. A publisher in another process may commit one more
    /// message while this call runs.
    pub fn close(&self) {
        if self.core.member.check_process().is_ok() {
            self.core.close();
        }
    }

    /// Whether the topic was closed.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// The log of this topic, to be read at will.
    ///
    /// # Errors
    ///
    /// `Invalid` if the topic is not durable.
    pub fn log(&self) -> Result<Log<T>> {
        Ok(Log::new(Arc::new(Source::of_topic(self.log_core()?))))
    }

    /// The log of a topic that has one.
    fn log_core(&self) -> Result<Arc<LogCore>> {
        self.core.member.check_process()?;
        self.core.log.clone().ok_or_else(|| {
            let text = format!(
                "topic {} has no log; create it with durable() or durable_at(path)",
                self.core.name
            );
            Error::new(ErrorKind::Invalid, text)
        })
    }

    /// What was found in the log of a durable topic, and what had to be cut off, if this process opened it before any
    /// other one did. `None` if another process has it open, or had, or the topic is not durable.
    pub fn recovery(&self) -> Option<&Recovery> {
        self.core.log.as_ref()?.recovery.as_ref()
    }

    /// Options, publishers, subscribers, lag and counters, as they are now.
    pub fn info(&self) -> Result<TopicInfo> {
        self.core.member.check_process()?;
        inspect(&self.core)
    }
}
