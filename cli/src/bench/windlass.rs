//! Windlass as a transport, through its public API only, with its defaults.
//!
//! Each direction is a reliable topic with one publisher and one subscriber. The only options set
//! are `prefault`, so that no page fault is measured, and larger and fewer segments for
//! large messages.

use std::path::Path;
use std::time::Instant;

pub use ::windlass::Bus;
use ::windlass::{Payload, Publisher, Raw, RecvError, Start, Subscriber, Topic, Wait};
use serde::Serialize;

use super::failure::{During, Failure, Result};
use super::payload::{Check, Copied, Fill};
use super::private;
use super::report::{median, smallest};
use super::sample_capnp::sample;
use super::transport::{Context, Receiver, Sender, Spec, Waiting, Way};

/// Messages above this get segments of [`LARGE_SEGMENT_BYTES`].
const DEFAULT_MESSAGE_BYTES_MAX: usize = 128 << 10;

/// Room for three messages of 1 MiB in a segment.
const LARGE_SEGMENT_BYTES: u64 = 4 << 20;

/// So few of them that the lane, 12 MiB, stays in a third-level cache: the default of eight would
/// fill one of 32 MiB, and every copy would go to memory.
const LARGE_SEGMENTS: u32 = 3;

/// Messages of one batch.
const BATCH: usize = 1024;

/// Opens the bus of the run.
pub fn open(path: &Path) -> Result<Bus> {
    Bus::open(&path.to_string_lossy()).during("cannot open the bus of the run")
}

fn topic<T: Payload>(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Topic<T>> {
    let name = match way {
        Way::There => format!("{}-there", spec.name),
        Way::Back => format!("{}-back", spec.name),
    };
    let builder = context.bus.topic::<T>(&name).reliable().prefault(true);
    let builder = if spec.bytes > DEFAULT_MESSAGE_BYTES_MAX {
        builder.segment_bytes(LARGE_SEGMENT_BYTES).segments_per_lane(LARGE_SEGMENTS)
    } else {
        builder
    };
    builder.open().during("cannot open a topic")
}

fn publisher<T: Payload>(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Publisher<T>> {
    topic::<T>(context, spec, way)?.publisher().during("cannot become a publisher")
}

/// Publishes from a private buffer.
pub struct Copier {
    publisher: Publisher<Raw>,
    message: Copied,
}

impl Sender for Copier {
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self> {
        let publisher = publisher(context, spec, way)?;
        Ok(Self { publisher, message: Copied::new(spec.bytes) })
    }

    #[inline]
    fn send(&mut self, sequence: u64) -> Result<()> {
        self.publisher.publish(self.message.made(sequence)).during("cannot publish")?;
        Ok(())
    }
}

/// Writes into a loan.
pub struct Lender<F> {
    publisher: Publisher<Raw>,
    fill: F,
    bytes: usize,
}

impl<F: Fill> Sender for Lender<F> {
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self> {
        let publisher = publisher(context, spec, way)?;
        Ok(Self { publisher, fill: F::new(spec.bytes), bytes: spec.bytes })
    }

    #[inline]
    fn send(&mut self, sequence: u64) -> Result<()> {
        let mut loan = self.publisher.loan(self.bytes).during("cannot borrow room")?;
        self.fill.fill(sequence, &mut loan);
        loan.publish().during("cannot publish")?;
        Ok(())
    }
}

/// Builds a Cap'n Proto message in a loan.
pub struct Builder {
    publisher: Publisher<sample::Owned>,
}

impl Sender for Builder {
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self> {
        Ok(Self { publisher: publisher(context, spec, way)? })
    }

    #[inline]
    fn send(&mut self, sequence: u64) -> Result<()> {
        publish_typed(&mut self.publisher, sequence)
    }
}

#[inline]
fn publish_typed(publisher: &mut Publisher<sample::Owned>, sequence: u64) -> Result<()> {
    let mut loan = publisher.loan().during("cannot borrow room")?;
    private::fill(loan.init_root(), sequence);
    loan.publish().during("cannot publish")?;
    Ok(())
}

/// What a receiver does with a message of type `T`.
trait Inspect: Payload + Sized {
    fn inspect(message: &::windlass::Message<'_, Self>, check: &mut Check) -> Result<()>;
}

impl Inspect for Raw {
    #[inline]
    fn inspect(message: &::windlass::Message<'_, Self>, check: &mut Check) -> Result<()> {
        check.bytes(message.bytes());
        Ok(())
    }
}

impl Inspect for sample::Owned {
    #[inline]
    fn inspect(message: &::windlass::Message<'_, Self>, check: &mut Check) -> Result<()> {
        private::read(message.get().during("cannot open a typed message")?, check)
    }
}

/// The subscriber of a topic of bytes.
pub type Taker = SubscriberOf<Raw>;

/// The subscriber of a typed topic.
pub type Reader = SubscriberOf<sample::Owned>;

/// A subscriber that waits the way its case says.
pub struct SubscriberOf<T: Payload> {
    subscriber: Subscriber<T>,
    waiting: Waiting,
}

impl<T: Inspect> Receiver for SubscriberOf<T> {
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self> {
        let topic = topic::<T>(context, spec, way)?;
        let subscriber = topic.subscriber(Start::Latest).during("cannot subscribe")?;
        Ok(Self { subscriber, waiting: spec.waiting })
    }

    #[inline]
    fn take(&mut self, check: &mut Check) -> Result<()> {
        let Self { subscriber, waiting } = self;
        if *waiting == Waiting::Library {
            return receive(subscriber, check);
        }
        loop {
            if let Some(message) = subscriber.try_recv().during("cannot receive")? {
                return T::inspect(&message, check);
            }
        }
    }

    fn sink(&mut self, count: u64, check: &mut Check) -> Result<()> {
        let Self { subscriber, waiting } = self;
        if *waiting == Waiting::Library {
            return (0..count).try_for_each(|_| receive(subscriber, check));
        }
        let mut left = count;
        while left > 0 {
            let before = left;
            let most = usize::try_from(left).unwrap_or(BATCH).min(BATCH);
            for message in subscriber.batch(most).during("cannot receive a batch")? {
                T::inspect(&message, check)?;
                left -= 1;
            }
            if left == before {
                (0..waiting.pauses()).for_each(|_| std::hint::spin_loop());
            }
        }
        Ok(())
    }
}

#[inline]
fn receive<T: Inspect>(subscriber: &mut Subscriber<T>, check: &mut Check) -> Result<()> {
    match subscriber.recv(Wait::Spin).during("cannot receive")? {
        Some(message) => T::inspect(&message, check),
        None => Err(Failure::new("the topic was closed in the middle of a run")),
    }
}

/// Nanoseconds of a typed message through a topic, publisher and subscriber on one core.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct TypedCost {
    /// The repetition in the middle.
    pub median: f64,
    /// The fastest repetition.
    pub min: f64,
}

/// Publishes and reads bursts of typed messages on the calling core: what Cap'n Proto and the topic
/// cost together, without moving a cache line.
pub fn typed_cost(bus: &Bus, repetitions: u32) -> Result<TypedCost> {
    const BURST: u64 = 64;
    const BURSTS: u64 = 32;
    // A lane that stays in the second-level cache, as the private memory that it is compared with does.
    let topic = bus.topic::<sample::Owned>("typed-cost").segment_bytes(64 << 10).open();
    let topic = topic.during("cannot open a topic")?;
    let mut publisher = topic.publisher().during("cannot become a publisher")?;
    let mut subscriber = topic.subscriber(Start::Latest).during("cannot subscribe")?;
    let mut check = Check::default();
    let mut sequences = 0..;
    let mut costs = Vec::new();
    for _ in 0..=repetitions {
        let begin = Instant::now();
        for _ in 0..BURSTS {
            for sequence in sequences.by_ref().take(BURST as usize) {
                publish_typed(&mut publisher, sequence)?;
            }
            for _ in 0..BURST {
                receive(&mut subscriber, &mut check)?;
            }
        }
        costs.push(begin.elapsed().as_nanos() as f64 / (BURST * BURSTS) as f64);
    }
    if check.mismatches() != 0 {
        return Err(Failure::new("a typed message came back as another one"));
    }
    Ok(TypedCost { median: median(&costs[1..]), min: smallest(&costs[1..]) })
}

/// The delivery policies that fan-out is measured with, as the number that goes over the wire.
pub const LOSSY: u64 = 0;
/// See [`LOSSY`].
pub const RELIABLE: u64 = 1;

/// Subscriptions of one topic.
pub const SUBSCRIBERS_MAX: u32 = 64;

fn fan_out_topic(bus: &Bus, policy: u64) -> Result<Topic<Raw>> {
    let builder = match policy {
        RELIABLE => bus.topic::<Raw>("fan-out-reliable").reliable(),
        _ => bus.topic::<Raw>("fan-out-lossy").lossy(),
    };
    let builder = builder.prefault(true).subscribers_max(SUBSCRIBERS_MAX);
    builder.open().during("cannot open a topic")
}

/// The publisher of a fan-out, on its topic.
pub fn fan_out_publisher(bus: &Bus, policy: u64) -> Result<Publisher<Raw>> {
    fan_out_topic(bus, policy)?.publisher().during("cannot become a publisher")
}

/// The subscriptions that one peer holds.
pub struct Audience {
    topic: Topic<Raw>,
    members: Vec<Member>,
    mismatches: u64,
}

struct Member {
    subscriber: Subscriber<Raw>,
    /// None until the first message, and behind a gap that was reported.
    check: Option<Check>,
}

impl Audience {
    /// Nobody yet.
    pub fn open(bus: &Bus, policy: u64) -> Result<Self> {
        Ok(Self { topic: fan_out_topic(bus, policy)?, members: Vec::new(), mismatches: 0 })
    }

    /// Holds exactly `count` subscriptions.
    pub fn resize(&mut self, count: u64) -> Result<()> {
        let count = usize::try_from(count).during("cannot hold so many subscriptions")?;
        self.members.truncate(count);
        while self.members.len() < count {
            let subscriber = self.topic.subscriber(Start::Latest).during("cannot subscribe")?;
            self.members.push(Member { subscriber, check: None });
        }
        Ok(())
    }

    /// Takes whatever every subscription still has.
    pub fn drain(&mut self) -> Result<()> {
        self.members.iter_mut().try_for_each(|member| member.drain(&mut self.mismatches))
    }

    /// How many messages were not the one expected.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }
}

impl Member {
    fn drain(&mut self, mismatches: &mut u64) -> Result<()> {
        loop {
            match self.subscriber.try_recv() {
                Ok(Some(message)) => {
                    let bytes = message.bytes();
                    let check = self.check.get_or_insert_with(|| Check::from_first(bytes));
                    check.bytes(bytes);
                    *mismatches += check.take_mismatches();
                }
                Ok(None) => return Ok(()),
                // Lossy: the gap is reported, and what follows it is the new beginning.
                Err(RecvError::Lagged { .. }) => self.check = None,
                Err(error) => return Err(error).during("cannot receive"),
            }
        }
    }
}
