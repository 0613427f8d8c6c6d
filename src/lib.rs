//! Windlass

#[macro_use]
#[doc(hidden)]
pub mod step;

#[cfg(not(windlass_loom))]
mod bus;
#[cfg(not(windlass_loom))]
mod error;
#[cfg(not(windlass_loom))]
mod message;
#[cfg(not(windlass_loom))]
pub mod schemas;
#[cfg(not(windlass_loom))]
mod topic;

#[cfg(all(test, not(windlass_loom)))]
#[path = "../tests/schemas/samples.rs"]
mod samples;

#[cfg(not(windlass_loom))]
pub(crate) mod layout;
#[cfg(not(windlass_loom))]
pub(crate) mod limits;
#[cfg(not(windlass_loom))]
pub(crate) mod ring;
#[cfg(not(windlass_loom))]
pub(crate) mod shm;
pub(crate) mod sync;

// In a model build the rooms under test are open to the models.
#[cfg(windlass_loom)]
pub mod layout;
#[cfg(windlass_loom)]
pub mod limits;
#[cfg(windlass_loom)]
pub mod ring;
#[cfg(windlass_loom)]
pub mod shm;

#[cfg(not(windlass_loom))]
pub use bus::{Bus, BusOptions, NodeInfo, RepairReport};
#[cfg(not(windlass_loom))]
pub use error::{Error, ErrorKind, Result};
#[cfg(not(windlass_loom))]
pub use topic::{
    Batch, BlockReason, Blocker, Loan, Message, Payload, Policy, PublishError, Publisher,
    PublisherInfo, Raw, Receipt, RecvError, Start, StreamChunk, Subscriber, SubscriberInfo,
    SubscriberState, Topic, TopicBuilder, TopicInfo, View, Wait, WeakView,
};
