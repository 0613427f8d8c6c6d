//! The contestants: the work queue of windlass across processes, and the queues that threads of one process use.
//!
//! All move the same 64 bytes and hesitate in the same way when there is nothing to take or no room, so that what
//! differs is the queue.

use std::sync::Arc;

use ::windlass::{Bus, Consumer, Producer, Raw, Wait};
use crossbeam::channel::{Receiver, Sender};
use crossbeam::queue::ArrayQueue;
use serde::{Deserialize, Serialize};

use crate::bench::failure::{During, Failure, Result};

/// Words of a message.
const WORDS: usize = 8;

/// Messages that a queue holds.
pub const CAPACITY: usize = 1024;

/// Messages that one batch takes at most.
const BATCH: usize = 64;

/// Who takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Contestant {
    /// `bus.queue::<Raw>`, every message a process of its own away: taken and acknowledged one by one.
    Windlass,
    /// The same, taken in batches.
    WindlassBatches,
    /// The same between threads of one process.
    WindlassThreads,
    /// `crossbeam::queue::ArrayQueue` between threads.
    ArrayQueue,
    /// `crossbeam::channel::bounded` between threads.
    CrossbeamChannel,
    /// `kanal::bounded` between threads.
    Kanal,
}

impl Contestant {
    /// For a table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Windlass => "windlass, processes",
            Self::WindlassBatches => "windlass, processes, batches",
            Self::WindlassThreads => "windlass, threads",
            Self::ArrayQueue => "ArrayQueue, threads",
            Self::CrossbeamChannel => "crossbeam channel, threads",
            Self::Kanal => "kanal, threads",
        }
    }

    /// Whether it is windlass.
    pub fn is_windlass(self) -> bool {
        self.is_of_processes() || self == Self::WindlassThreads
    }

    /// Whether its workers are processes.
    pub fn is_of_processes(self) -> bool {
        matches!(self, Self::Windlass | Self::WindlassBatches)
    }
}

/// What is moved: who sent it, which of theirs it is, and the complement of that.
pub type Message = [u64; WORDS];

/// Message `number` of `producer`.
#[inline]
pub fn message(producer: u64, number: u64) -> Message {
    let first = producer << 48 | number;
    [first, 1, 2, 3, 4, 5, 6, !first]
}

/// What a consumer took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// How many.
    pub count: u64,
    /// Sum of their first words.
    pub sum: u64,
    /// Messages that are torn, or come before an earlier one of the same producer.
    pub wrong: u64,
    next: [u64; 4],
}

impl Tally {
    /// Takes a message into account.
    #[inline]
    pub fn add(&mut self, first: u64, last: u64) {
        let next = &mut self.next[(first >> 48) as usize & 3];
        let number = first & ((1 << 48) - 1);
        self.wrong += u64::from(last != !first || number < *next);
        *next = number + 1;
        self.count += 1;
        self.sum = self.sum.wrapping_add(first);
    }

    #[inline]
    fn message(&mut self, message: &Message) {
        self.add(message[0], message[WORDS - 1]);
    }

    #[inline]
    fn bytes(&mut self, bytes: &[u8]) {
        let word = |bytes: Option<&[u8; 8]>| bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes));
        self.add(word(bytes.first_chunk()), word(bytes.last_chunk()));
    }
}

/// Where messages go in.
pub trait Entrance {
    /// False if there is no room.
    fn try_enter(&mut self, message: &Message) -> Result<bool>;

    /// Enters messages 0 to `count` of `producer`.
    fn produce(&mut self, producer: u64, count: u64, pauses: u32) -> Result<()> {
        let mut hesitation = Hesitation::default();
        for number in 0..count {
            let message = message(producer, number);
            while !self.try_enter(&message)? {
                hesitation.wait(pauses);
            }
            hesitation.reset();
        }
        Ok(())
    }
}

/// Where messages come out.
pub trait Exit {
    /// Takes one message, or several if that is its way, but no more than `most`. False if there is nothing.
    fn try_take(&mut self, most: u64, tally: &mut Tally) -> Result<bool>;

    /// Takes `count` messages.
    fn consume(&mut self, count: u64, pauses: u32) -> Result<Tally> {
        let (mut hesitation, mut tally) = (Hesitation::default(), Tally::default());
        while tally.count < count {
            match self.try_take(count - tally.count, &mut tally)? {
                true => hesitation.reset(),
                false => hesitation.wait(pauses),
            }
        }
        Ok(tally)
    }
}

/// How everybody waits: some pauses at first, and then others are let run.
#[derive(Default)]
pub struct Hesitation(u32);

impl Hesitation {
    /// After something was done.
    #[inline]
    pub fn reset(&mut self) {
        self.0 = 0;
    }

    /// After nothing could be done. `pauses`: between two looks.
    #[inline]
    pub fn wait(&mut self, pauses: u32) {
        self.0 += 1;
        if self.0 > 64 {
            std::thread::yield_now();
        } else {
            (0..pauses).for_each(|_| std::hint::spin_loop());
        }
    }
}

/// A queue of the threads of this process.
#[derive(Clone)]
pub enum Local {
    /// See [`Contestant::ArrayQueue`].
    Array(Arc<ArrayQueue<Message>>),
    /// See [`Contestant::CrossbeamChannel`].
    Crossbeam(Sender<Message>, Receiver<Message>),
    /// See [`Contestant::Kanal`].
    Kanal(kanal::Sender<Message>, kanal::Receiver<Message>),
    /// See [`Contestant::WindlassThreads`].
    Windlass(::windlass::Queue<Raw>),
}

impl Local {
    /// A fresh one.
    pub fn new(contestant: Contestant) -> Result<Self> {
        Ok(match contestant {
            Contestant::ArrayQueue => Self::Array(Arc::new(ArrayQueue::new(CAPACITY))),
            Contestant::CrossbeamChannel => {
                let (sender, receiver) = crossbeam::channel::bounded(CAPACITY);
                Self::Crossbeam(sender, receiver)
            }
            Contestant::Kanal => {
                let (sender, receiver) = kanal::bounded(CAPACITY);
                Self::Kanal(sender, receiver)
            }
            _ => {
                let bus = Bus::anonymous().during("cannot make a bus")?;
                Self::Windlass(queue(&bus, "jobs")?)
            }
        })
    }

    /// The end of a producer.
    pub fn entrance(&self) -> Result<Box<dyn Entrance>> {
        Ok(match self {
            Self::Array(queue) => Box::new(queue.clone()),
            Self::Crossbeam(sender, _) => Box::new(sender.clone()),
            Self::Kanal(sender, _) => Box::new(sender.clone()),
            Self::Windlass(queue) => Box::new(queue.producer().during("cannot become a producer")?),
        })
    }

    /// The end of a consumer.
    pub fn exit(&self) -> Result<Box<dyn Exit>> {
        Ok(match self {
            Self::Array(queue) => Box::new(queue.clone()),
            Self::Crossbeam(_, receiver) => Box::new(receiver.clone()),
            Self::Kanal(_, receiver) => Box::new(receiver.clone()),
            Self::Windlass(queue) => Box::new(Single(queue.consumer().during(CONSUMER)?)),
        })
    }
}

const CONSUMER: &str = "cannot become a consumer";

/// The work queue of that name, as every contest uses it.
pub fn queue(bus: &Bus, name: &str) -> Result<::windlass::Queue<Raw>> {
    let chunks = u32::try_from(CAPACITY).during("too many chunks")?;
    bus.queue::<Raw>(name).chunks(chunks, 64).open().during("cannot open a queue")
}

/// The exit of a work queue.
pub fn exit_of(queue: &::windlass::Queue<Raw>, contestant: Contestant) -> Result<Box<dyn Exit>> {
    let consumer = queue.consumer().during(CONSUMER)?;
    Ok(match contestant {
        Contestant::WindlassBatches => Box::new(Batches(consumer)),
        _ => Box::new(Single(consumer)),
    })
}

#[inline]
fn fill(to: &mut [u8], message: &Message) {
    for (to, word) in to.chunks_exact_mut(8).zip(message) {
        to.copy_from_slice(&word.to_le_bytes());
    }
}

impl Entrance for Producer<Raw> {
    /// Waits for a chunk as the library does.
    fn produce(&mut self, producer: u64, count: u64, _pauses: u32) -> Result<()> {
        for number in 0..count {
            let mut loan = self.loan(size_of::<Message>()).during("cannot borrow a chunk")?;
            fill(&mut loan, &message(producer, number));
            loan.enqueue().during("cannot enter a message")?;
        }
        Ok(())
    }

    #[inline]
    fn try_enter(&mut self, message: &Message) -> Result<bool> {
        let mut loan = match self.try_loan(size_of::<Message>()) {
            Ok(loan) => loan,
            Err(::windlass::EnqueueError::Full { .. }) => return Ok(false),
            Err(error) => return Err(Failure::new(format!("cannot borrow a chunk: {error}"))),
        };
        fill(&mut loan, message);
        loan.enqueue().during("cannot enter a message")?;
        Ok(true)
    }
}

struct Single(Consumer<Raw>);

impl Exit for Single {
    /// Waits as the library does: giving the core to others between looks.
    fn consume(&mut self, count: u64, _pauses: u32) -> Result<Tally> {
        let mut tally = Tally::default();
        while tally.count < count {
            let job = self.0.take(Wait::Yield).during("cannot take a message")?;
            let job =
                job.ok_or_else(|| Failure::new("the queue was closed in the middle of a run"))?;
            tally.bytes(job.bytes());
            job.ack().during("cannot acknowledge a message")?;
        }
        Ok(tally)
    }

    #[inline]
    fn try_take(&mut self, _most: u64, tally: &mut Tally) -> Result<bool> {
        let Some(job) = self.0.try_take().during("cannot take a message")? else {
            return Ok(false);
        };
        tally.bytes(job.bytes());
        job.ack().during("cannot acknowledge a message")?;
        Ok(true)
    }
}

struct Batches(Consumer<Raw>);

impl Exit for Batches {
    #[inline]
    fn try_take(&mut self, most: u64, tally: &mut Tally) -> Result<bool> {
        let before = tally.count;
        let most = usize::try_from(most).unwrap_or(BATCH).min(BATCH);
        for job in self.0.batch(most).during("cannot take a batch")? {
            tally.bytes(job.bytes());
            job.ack().during("cannot acknowledge a message")?;
        }
        Ok(tally.count > before)
    }
}

impl Entrance for Arc<ArrayQueue<Message>> {
    #[inline]
    fn try_enter(&mut self, message: &Message) -> Result<bool> {
        Ok(self.push(*message).is_ok())
    }
}

impl Exit for Arc<ArrayQueue<Message>> {
    #[inline]
    fn try_take(&mut self, _most: u64, tally: &mut Tally) -> Result<bool> {
        Ok(self.pop().inspect(|message| tally.message(message)).is_some())
    }
}

impl Entrance for Sender<Message> {
    #[inline]
    fn try_enter(&mut self, message: &Message) -> Result<bool> {
        Ok(self.try_send(*message).is_ok())
    }
}

impl Exit for Receiver<Message> {
    #[inline]
    fn try_take(&mut self, _most: u64, tally: &mut Tally) -> Result<bool> {
        Ok(self.try_recv().inspect(|message| tally.message(message)).is_ok())
    }
}

impl Entrance for kanal::Sender<Message> {
    #[inline]
    fn try_enter(&mut self, message: &Message) -> Result<bool> {
        self.try_send(*message).during("cannot send")
    }
}

impl Exit for kanal::Receiver<Message> {
    #[inline]
    fn try_take(&mut self, _most: u64, tally: &mut Tally) -> Result<bool> {
        let message = self.try_recv().during("cannot receive")?;
        Ok(message.inspect(|message| tally.message(message)).is_some())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Contestant; 4] = [
        Contestant::ArrayQueue,
        Contestant::CrossbeamChannel,
        Contestant::Kanal,
        Contestant::WindlassThreads,
    ];

    #[test]
    fn every_contestant_carries_every_message_once() {
        for contestant in ALL {
            let local = Local::new(contestant).expect("a queue can be made");
            let mut entrance = local.entrance().expect("it has an entrance");
            let mut exit = local.exit().expect("it has an exit");
            entrance.produce(1, 100, 1).expect("there is room");
            let tally = exit.consume(100, 1).expect("they are there");
            assert_eq!((tally.count, tally.wrong), (100, 0), "{contestant:?}");
            assert_eq!(tally.sum, (0..100).map(|number| message(1, number)[0]).sum::<u64>());
        }
    }

    #[test]
    fn a_doubled_and_a_torn_message_are_wrong() {
        let mut tally = Tally::default();
        tally.message(&message(1, 5));
        tally.message(&message(1, 5));
        tally.add(message(1, 6)[0], 0);
        assert_eq!((tally.count, tally.wrong), (3, 2));
    }
}
