//! A message bus in shared memory for the processes of one machine, without a broker and without copies.
//!
//! Processes link this library and open a bus by name. A [`Publisher`] builds a message in a mapped file and commits
//! it with one atomic store; every [`Subscriber`] reads it in place. Messages are Cap'n Proto structs or raw bytes.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use windlass::{Bus, Raw, Start};
//!
//! let bus = Bus::anonymous()?; // Bus::open("market")? to share it with other processes
//! let topic = bus.topic::<Raw>("greetings").open()?;
//! let mut subscriber = topic.subscriber(Start::Latest)?;
//! let mut publisher = topic.publisher()?;
//!
//! publisher.publish(b"hello")?; // copied once, into the mapping
//! let mut loan = publisher.loan(5)?; // or built there
//! loan.copy_from_slice(b"world");
//! loan.publish()?;
//!
//! let first = subscriber.try_recv()?.expect("it was published").pin(); // kept, not copied
//! let second = subscriber.try_recv()?.expect("it was published");
//! assert_eq!((first.as_bytes(), second.bytes()), (&b"hello"[..], &b"world"[..]));
//! # Ok(()) }
//! ```
//!
//! A [`Bus`] is a directory of topics. A [`Topic`] is a named, typed stream that every subscriber sees whole; its
//! options are fixed when it is created ([`TopicBuilder`]). Each publisher writes a *lane* of its own, made of
//! *segments*. A message has a *position* in its lane and a dense *sequence*. A [`View`] is a message that is kept
//! without a copy, and pins its segment.
//!
//! The type of a topic is [`Raw`] or the `Owned` type that the Cap'n Proto compiler generates for a struct:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use windlass::schemas::tick_capnp::tick;
//! use windlass::{Bus, Start};
//!
//! let topic = Bus::anonymous()?.topic::<tick::Owned>("ticks").lossy().open()?;
//! let mut publisher = topic.publisher()?;
//! let mut loan = publisher.loan()?; // a builder in shared memory
//! loan.init_root().set_price(101.25);
//! loan.publish()?;
//!
//! // The latest value: a lossy topic, and a subscriber that begins with the last message.
//! let mut subscriber = topic.subscriber(Start::Last(1))?;
//! let message = subscriber.try_recv()?.expect("there is a latest value");
//! assert_eq!(message.get()?.get_price(), 101.25);
//! # Ok(()) }
//! ```
//!
//! A [`Queue`] is the other kind of stream: every message goes to one [`Consumer`], which acknowledges it, and to
//! another one if the first dies. A [`TokenQueue`] is its ring alone, for those who bring their own memory.
//!
//! A [`Service`] is request and response: a [`Client`] calls, and whichever [`Server`] is free first answers.
//!
//! A topic stores the schema of its type. [`Bus::schema`] gives it to tools, which read single fields by it, and with
//! the feature `json` turn messages into JSON and back: see [`Schema`].
//!
//! A topic can be [durable](TopicBuilder::durable): the same publish and subscribe, kept in a [`Log`] on disk that
//! anybody replays, with [`Keys`] and an [`EventStore`] on top.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = std::env::temp_dir().join(format!("windlass-crate-{}", std::process::id()));
//! use windlass::{Bus, Log, Raw, Start};
//!
//! let topic = Bus::anonymous()?.topic::<Raw>("orders").durable_at(&folder).open()?;
//! topic.publisher()?.publish(b"buy 10")?;
//! let mut replay = topic.subscriber(Start::Oldest)?; // goes on with what is live
//! assert_eq!(replay.try_recv()?.expect("it is kept").bytes(), b"buy 10");
//! assert_eq!(Log::<Raw>::open(&folder)?.get(0)?.as_bytes(), b"buy 10");
//! # while std::fs::remove_dir_all(&folder).is_err() {} // its keeper may be making a file
//! # Ok(()) }
//! ```
//!
//! # Guarantees
//!
//! * **Whole or not at all.** A message is visible completely or not yet. A loan that is dropped, or whose process
//!   dies, never existed.
//! * **No silent loss.** On a reliable topic a subscriber receives every message from the one that it began with,
//!   those of each publisher in their order. On a lossy topic it is told exactly how many it missed
//!   ([`RecvError::Lagged`]).
//! * **No race with the first message.** When [`Topic::subscriber`] returns, everything that is published from then
//!   on will be delivered, or counted as missed.
//! * **One order**, on a topic that is [`ordered`](TopicBuilder::ordered): the same for every subscriber, under dense
//!   sequence numbers.
//! * **A durable topic keeps what was published**, through the death of all processes whatever its options are, and
//!   through a crash of the machine as its [`SyncPolicy`] says. What was lost in a crash is counted, and a message that
//!   changed on disk is named ([`RecvError::Damaged`]), not delivered.
//! * **Death is survived at any instruction.** Whoever is hindered by a dead process asks the kernel, frees or takes
//!   over what it owned, and goes on. What it committed stays. No timeout is ever taken for a death.
//! * **A view does not change.** While a message is borrowed, or a [`View`] of it lives, its bytes stay as they are.
//!   In a subscriber they are mapped read-only.
//! * **Publishing does no work for each subscriber**, and makes no system call unless a subscriber sleeps.
//! * **Memory is reserved in advance.** Too little of it is an error when a topic is created or a publisher joins. A
//!   file that somebody else cuts short later is an error too, `Corrupt`, and never a signal: the first mapping of a
//!   process installs a handler for `SIGBUS`, which passes on what is not ours.
//! * **Shared memory is input.** A value read from it is checked before it is used as an index, a length or an offset.
//!
//! # Trade-offs
//!
//! * A reliable topic is as fast as its slowest subscriber: a full lane holds its publisher up, and
//!   [`PublishError::Full`] names who blocks.
//! * A segment that somebody stands in, or holds a view into, is not used again. If that is every segment but the one
//!   that is written, even a lossy publisher is held up. Keep views for as long as needed, or copy.
//! * A stopped process is alive and keeps what it owns.
//! * Nobody is told that a publisher died. [`Topic::close`] is the end of a stream.
//! * A subscriber that sleeps costs a publisher a system call for each time that it is woken; one that polls costs a
//!   core.
//! * A lane reserves all of its segments, and keeps them until the topic is removed.
//! * One order over all publishers costs an atomic swap a message on a line that they share.
//! * Cap'n Proto goes through many small functions of another crate: build with fat link-time optimisation and one
//!   codegen unit.
//!
//! # Limits
//!
//! * One machine: Linux, on 64-bit little-endian processors (x86-64 and aarch64), on a local file system. Not NFS.
//! * Processes that may write the files of a bus trust each other, and subscribers trust the publishers of their
//!   topics: committed bytes must not change. See [`Message::to_owned_message`] for messages that may be malformed or
//!   hostile.
//! * Handles do not work in a child made by `fork` without `exec`; see [`Bus`].
//! * A message has up to [`segment_bytes`](TopicBuilder::segment_bytes) − 32 bytes, at most 1 GiB − 32. A topic has
//!   up to 64 publishers and 1024 subscribers at a time, a bus 1024 nodes.
//! * A lane carries 2^47 segments, and on an ordered topic 2^59 bytes; a bus sees 2^32 − 1 nodes.
//! * Only durable topics are kept on disk. A log has segments of up to 256 MiB, and keys of up to 65535 bytes.
//!
//! The repository has pages on the bytes (`docs/format.md`), the memory model (`docs/memory-model.md`), what a death
//! does (`docs/crash.md`), why it is like this (`docs/design.md`) and how fast it is (`docs/performance.md`).

#[macro_use]
#[doc(hidden)]
pub mod step;

#[cfg(not(windlass_loom))]
mod bus;
#[cfg(not(windlass_loom))]
pub mod channel;
#[cfg(not(windlass_loom))]
mod error;
#[cfg(not(windlass_loom))]
mod log;
#[cfg(not(any(windlass_loom, feature = "rooms")))]
mod message;
#[cfg(not(windlass_loom))]
mod queue;
#[cfg(not(windlass_loom))]
pub mod schemas;
#[cfg(not(windlass_loom))]
mod service;
#[cfg(not(windlass_loom))]
mod tokens;
#[cfg(not(windlass_loom))]
mod topic;

#[cfg(all(test, not(windlass_loom)))]
#[path = "../tests/schemas/samples.rs"]
mod samples;

#[cfg(not(any(windlass_loom, feature = "rooms")))]
pub(crate) mod layout;
#[cfg(not(any(windlass_loom, feature = "rooms")))]
pub(crate) mod limits;
#[cfg(not(any(windlass_loom, feature = "rooms")))]
pub(crate) mod ring;
#[cfg(not(any(windlass_loom, feature = "rooms")))]
pub(crate) mod shm;
pub(crate) mod sync;

// The rooms under test are open to the models, and to the fuzz targets.
#[cfg(any(windlass_loom, feature = "rooms"))]
#[doc(hidden)]
pub mod layout;
#[cfg(any(windlass_loom, feature = "rooms"))]
#[doc(hidden)]
pub mod limits;
#[cfg(all(not(windlass_loom), feature = "rooms"))]
#[doc(hidden)]
pub mod message;
#[cfg(any(windlass_loom, feature = "rooms"))]
#[doc(hidden)]
pub mod ring;
#[cfg(any(windlass_loom, feature = "rooms"))]
#[doc(hidden)]
pub mod shm;

#[cfg(not(windlass_loom))]
pub use bus::{Bus, BusOptions, NodeInfo, RepairReport};
#[cfg(not(windlass_loom))]
pub use error::{Error, ErrorKind, Result};
#[cfg(not(windlass_loom))]
pub use log::{
    AppendError, Appended, Cursor, CursorHolder, CursorInfo, Damage, DamagedFile, DamagedRecord,
    EventStore, Events, Expected, Iter, KeyMessages, Keys, LaneReport, Loaded, Log, LogInfo,
    ReadError, Record, Scan, Snapshot, VerifyReport,
};
#[cfg(not(windlass_loom))]
pub use message::dynamic::{FieldPath, FieldValue, FieldValues, Schema};
#[cfg(not(windlass_loom))]
pub use queue::{
    ClassUse, Consumer, DeadLetter, DeadLetters, EnqueueError, InFlight, Job, JobBatch, Producer,
    Queue, QueueBuilder, QueueInfo, RawLoan, TakeError, TypedLoan, UntypedQueue,
};
#[cfg(not(windlass_loom))]
pub use service::{
    Call, CallError, Client, Pending, ReplyError, ReplyStream, Response, ResponseStream,
    ServeError, Server, Service, ServiceBuilder, ServiceInfo, ServiceMember, StreamResponse,
};
#[cfg(not(windlass_loom))]
pub use tokens::{TokenError, TokenQueue, TokenQueueBuilder, TokenQueueInfo};
#[cfg(not(windlass_loom))]
pub use topic::{
    Append, Batch, BlockReason, Blocker, Loan, Message, OnDamage, Payload, Policy, PublishError,
    Publisher, PublisherInfo, Raw, Receipt, Recovery, RecvError, Replay, Resumed, Speed, Start,
    StreamChunk, Subscriber, SubscriberInfo, SubscriberState, SyncPolicy, Topic, TopicBuilder,
    TopicInfo, UntypedTopic, View, Wait, WeakView,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
