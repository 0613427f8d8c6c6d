//! Windlass

#[macro_use]
#[doc(hidden)]
pub mod step;

#[cfg(not(windlass_loom))]
mod bus;
mod error;
#[cfg(not(windlass_loom))]
mod message;
#[cfg(not(windlass_loom))]
pub mod schemas;
#[cfg(not(windlass_loom))]
mod topic;

pub(crate) mod layout;
pub(crate) mod limits;
#[cfg(windlass_loom)]
pub mod ring;
#[cfg(not(windlass_loom))]
pub(crate) mod ring;
pub(crate) mod shm;
pub(crate) mod sync;

#[cfg(not(windlass_loom))]
pub use bus::{Bus, BusOptions, RepairReport};
pub use error::{Error, ErrorKind, Result};
#[cfg(not(windlass_loom))]
pub use topic::{
    Batch, BlockReason, Blocker, Loan, Message, Payload, Policy, PublishError, Publisher,
    PublisherInfo, Raw, Receipt, RecvError, Start, StreamChunk, Subscriber, SubscriberInfo,
    SubscriberState, Topic, TopicBuilder, TopicInfo, View, Wait, WeakView,
};
