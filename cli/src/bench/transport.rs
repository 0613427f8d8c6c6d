//! What a transport has to offer to be measured, and the loops that measure it.
//!
//! A transport is one direction from one process to another: a [`Sender`] and a [`Receiver`].
//! [`Ends`] holds what one process has of one case and runs whole operations on it (a number of
//! rounds, a number of messages) behind the object-safe [`End`]. So a call through a table costs
//! once per operation, and every loop over messages is compiled for its transport.
//!
//! ```text
//!   driver  sender   ── There ──▶  receiver  peer        latency: both ways
//!           receiver ◀── Back ───  sender                throughput: There only
//! ```

use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::bare_ring::{BareReceiver, BareSender};
use super::call::ends as call;
use super::failure::{Failure, Result};
use super::payload::{Check, Copied, Stamped, Words};
use super::sample_capnp::sample;
use super::unix::{UnixReceiver, UnixSender};
use super::windlass::{self, Bus};
use crate::memory::Memory;

/// Which transport a case measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carrier {
    /// The ring without any safety, as a baseline.
    BareRing,
    /// A Unix stream socket, as a baseline.
    UnixSocket,
    /// A windlass topic of bytes.
    Windlass,
    /// A windlass topic of Cap'n Proto messages.
    WindlassTyped,
    /// A windlass service of bytes: round trips only.
    Call,
    /// A windlass service of Cap'n Proto messages: round trips only.
    CallTyped,
}

/// How the sender writes the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Filling {
    /// Copied from a private buffer.
    Copied,
    /// Only the first and the last eight bytes, in place.
    Stamped,
    /// Word by word, in place.
    Words,
    /// Built in place by Cap'n Proto.
    Built,
}

/// How the receiver waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Waiting {
    /// Polls again at once.
    Impatient,
    /// Polls again after [`PATIENCE`] pauses, so that the sender can run ahead.
    Patient,
    /// Leaves it to the library: `recv(Wait::Spin)`.
    Library,
    /// Takes batches, and pauses after an empty one.
    Batches,
}

/// Pauses of a patient receiver after an empty poll.
pub const PATIENCE: u32 = 2048;

impl Waiting {
    /// Pauses after an empty poll.
    pub fn pauses(self) -> u32 {
        match self {
            Self::Impatient | Self::Library => 0,
            Self::Patient | Self::Batches => PATIENCE,
        }
    }
}

/// One case of a run: both processes open their end of it from this description.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The transport.
    pub carrier: Carrier,
    /// How the sender writes.
    pub filling: Filling,
    /// How the receiver waits.
    pub waiting: Waiting,
    /// Bytes of a message.
    pub bytes: usize,
    /// Whether messages also come back.
    pub both_ways: bool,
    /// The case's part of the shared memory.
    pub area: usize,
    /// The case's name, unique in its run.
    pub name: String,
}

/// Which direction, as the driver sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Driver to peer.
    There,
    /// Peer to driver.
    Back,
}

/// Which process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The one that measures.
    Driver,
    /// The one that answers.
    Peer,
}

/// What an end is opened with.
pub struct Context<'a> {
    /// The shared memory of the run.
    pub memory: &'a Memory,
    /// This process's end of the socket between the two.
    pub socket: &'a std::os::unix::net::UnixStream,
    /// The bus of this run.
    pub bus: &'a Bus,
}

/// The writing end of one direction.
pub trait Sender: Sized {
    /// Opens it. On the way there the driver opens before the peer; on the way back likewise.
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self>;

    /// Sends message `sequence`, waiting for room.
    fn send(&mut self, sequence: u64) -> Result<()>;
}

/// The reading end of one direction.
pub trait Receiver: Sized {
    /// Opens it.
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self>;

    /// Waits for one message and checks it: what decides latency.
    fn take(&mut self, check: &mut Check) -> Result<()>;

    /// Takes `count` messages the way that the case says: what decides throughput.
    fn sink(&mut self, count: u64, check: &mut Check) -> Result<()>;
}

/// The operations of one end, whatever its transport.
pub trait End {
    /// Driver: plays `batches` of `rounds` and appends the one-way nanoseconds of each batch.
    fn batches(&mut self, batches: u32, rounds: u32, one_way: &mut Vec<f64>) -> Result<()>;

    /// Driver: plays `rounds` and notes the time between every two, and before the first.
    fn stamps(&mut self, rounds: u32, stamps: &mut Vec<Instant>) -> Result<()>;

    /// Peer: sends `count` messages back.
    fn echo(&mut self, count: u64) -> Result<()>;

    /// Driver: sends `count` messages.
    fn source(&mut self, count: u64) -> Result<()>;

    /// Peer: takes `count` messages.
    fn sink(&mut self, count: u64) -> Result<()>;

    /// How many messages came that were not the one expected.
    fn mismatches(&self) -> u64;
}

/// What one process has of one case.
struct Ends<S, R> {
    sender: Option<S>,
    receiver: Option<R>,
    sent: u64,
    check: Check,
}

impl<S: Sender, R: Receiver> Ends<S, R> {
    fn open(context: &Context<'_>, spec: &Spec, side: Side) -> Result<Self> {
        let (out, back) = match side {
            Side::Driver => (Way::There, Way::Back),
            Side::Peer => (Way::Back, Way::There),
        };
        let sends = spec.both_ways || side == Side::Driver;
        let receives = spec.both_ways || side == Side::Peer;
        // The receiver first: a message sent before its subscriber is there is not the
        // subscriber's.
        let receiver = receives.then(|| R::open(context, spec, back)).transpose()?;
        let sender = sends.then(|| S::open(context, spec, out)).transpose()?;
        Ok(Self { sender, receiver, sent: 0, check: Check::default() })
    }

    /// Plays `rounds`. The check is a local while it runs, so that it can live in registers.
    #[inline]
    fn rounds(&mut self, rounds: u32) -> Result<()> {
        let mut check = std::mem::take(&mut self.check);
        let (sender, receiver) = both(&mut self.sender, &mut self.receiver)?;
        let first = self.sent;
        for sequence in first..first + u64::from(rounds) {
            sender.send(sequence)?;
            receiver.take(&mut check)?;
        }
        self.sent += u64::from(rounds);
        self.check = check;
        Ok(())
    }
}

fn both<'a, S, R>(
    sender: &'a mut Option<S>,
    receiver: &'a mut Option<R>,
) -> Result<(&'a mut S, &'a mut R)> {
    sender.as_mut().zip(receiver.as_mut()).ok_or_else(one_way)
}

fn one_way() -> Failure {
    Failure::new("the plan of the run has this case one way only, in the other direction")
}

impl<S: Sender, R: Receiver> End for Ends<S, R> {
    fn batches(&mut self, batches: u32, rounds: u32, one_way: &mut Vec<f64>) -> Result<()> {
        for _ in 0..batches {
            let begin = Instant::now();
            self.rounds(rounds)?;
            one_way.push(begin.elapsed().as_nanos() as f64 / f64::from(2 * rounds));
        }
        Ok(())
    }

    fn stamps(&mut self, rounds: u32, stamps: &mut Vec<Instant>) -> Result<()> {
        stamps.push(Instant::now());
        for _ in 0..rounds {
            self.rounds(1)?;
            stamps.push(Instant::now());
        }
        Ok(())
    }

    fn echo(&mut self, count: u64) -> Result<()> {
        let mut check = std::mem::take(&mut self.check);
        let (sender, receiver) = both(&mut self.sender, &mut self.receiver)?;
        let first = self.sent;
        for sequence in first..first + count {
            receiver.take(&mut check)?;
            sender.send(sequence)?;
        }
        self.sent += count;
        self.check = check;
        Ok(())
    }

    fn source(&mut self, count: u64) -> Result<()> {
        let sender = self.sender.as_mut().ok_or_else(one_way)?;
        let first = self.sent;
        self.sent += count;
        (first..first + count).try_for_each(|sequence| sender.send(sequence))
    }

    fn sink(&mut self, count: u64) -> Result<()> {
        let mut check = std::mem::take(&mut self.check);
        self.receiver.as_mut().ok_or_else(one_way)?.sink(count, &mut check)?;
        self.check = check;
        Ok(())
    }

    fn mismatches(&self) -> u64 {
        self.check.mismatches()
    }
}

/// Opens this process's end of a case.
pub fn open(context: &Context<'_>, spec: &Spec, side: Side) -> Result<Box<dyn End>> {
    match (spec.carrier, spec.filling) {
        (Carrier::BareRing, Filling::Stamped) => {
            ends::<BareSender<Stamped>, BareReceiver>(context, spec, side)
        }
        (Carrier::BareRing, Filling::Words) => {
            ends::<BareSender<Words>, BareReceiver>(context, spec, side)
        }
        (Carrier::BareRing, _) => ends::<BareSender<Copied>, BareReceiver>(context, spec, side),
        (Carrier::UnixSocket, _) => ends::<UnixSender, UnixReceiver>(context, spec, side),
        (Carrier::Windlass, Filling::Stamped) => {
            ends::<windlass::Lender<Stamped>, windlass::Taker>(context, spec, side)
        }
        (Carrier::Windlass, Filling::Words) => {
            ends::<windlass::Lender<Words>, windlass::Taker>(context, spec, side)
        }
        (Carrier::Windlass, _) => ends::<windlass::Copier, windlass::Taker>(context, spec, side),
        (Carrier::WindlassTyped, _) => {
            ends::<windlass::Builder, windlass::Reader>(context, spec, side)
        }
        (Carrier::Call, _) => call::open::<::windlass::Raw>(context, spec, side),
        (Carrier::CallTyped, _) => call::open::<sample::Owned>(context, spec, side),
    }
}

fn ends<S, R>(context: &Context<'_>, spec: &Spec, side: Side) -> Result<Box<dyn End>>
where
    S: Sender + 'static,
    R: Receiver + 'static,
{
    Ok(Box::new(Ends::<S, R>::open(context, spec, side)?))
}
