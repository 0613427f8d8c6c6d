//! What moves messages, and the loops that move them: windlass and `rtrb`, one by one and in batches.
//!
//! Both sides of both wait alike: so many pauses after a look that found nothing, or no room.

use std::hint::spin_loop;
use std::time::Instant;

use serde::{Deserialize, Serialize};
use windlass::channel::{Receiver, RecvError, SendError, Sender};

use crate::bench::failure::{During, Failure, Result};

/// Messages that fit the ring of `rtrb`; the ring of windlass has as many bytes.
pub const CAPACITY: usize = 4096;

/// Messages of a batch.
pub const BATCH: u64 = 32;

/// Messages that a receiver takes at a time, if they are there.
const TAKEN_MAX: usize = CAPACITY;

/// The bytes of a message, as words.
pub type Item = [u64; 8];

/// Bytes of the ring.
pub const RING_BYTES: u64 = (CAPACITY * size_of::<Item>()) as u64;

/// Message `number`.
#[inline]
fn item(number: u64) -> Item {
    let mut words = [0x0707_0707_0707_0707; 8];
    (words[0], words[7]) = (number, !number);
    words
}

/// Writes message `number` where it will be read.
#[inline]
fn build(space: &mut [u8], number: u64) {
    for (bytes, word) in space.chunks_exact_mut(8).zip(item(number)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

/// 1 if these bytes are not message `number`.
#[inline]
fn wrong(bytes: &[u8], number: u64) -> u64 {
    u64::from(word(bytes, 0) != Some(number) || word(bytes, 56) != Some(!number))
}

#[inline]
fn pause(pauses: u32) {
    (0..pauses).for_each(|_| spin_loop());
}

/// How messages are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// One by one.
    Singles,
    /// [`BATCH`] at a time, and received as they are there.
    Batches,
}

/// The sending end.
#[expect(clippy::large_enum_variant, reason = "there are two of each")]
pub enum Source {
    /// A channel.
    Windlass(Sender),
    /// A ring between threads.
    Rtrb(rtrb::Producer<Item>),
}

/// The receiving end.
#[expect(clippy::large_enum_variant, reason = "there are two of each")]
pub enum Sink {
    /// A channel.
    Windlass(Receiver),
    /// A ring between threads.
    Rtrb(rtrb::Consumer<Item>),
}

/// Whether the sender has to look again; an error if that would be in vain.
#[inline]
fn is_full(error: SendError) -> Result<()> {
    if error == SendError::Full {
        return Ok(());
    }
    Err(error).during("cannot send")
}

fn cannot_receive(error: RecvError) -> Failure {
    Failure::new(format!("cannot receive: {error}"))
}

impl Source {
    /// Sends `count` messages from number `first` on.
    pub fn send(&mut self, first: u64, count: u64, way: Way, pauses: u32) -> Result<()> {
        match (self, way) {
            (Self::Windlass(sender), Way::Singles) => send_singles(sender, first, count, pauses),
            (Self::Windlass(sender), Way::Batches) => send_groups(sender, first, count, pauses),
            (Self::Rtrb(producer), Way::Singles) => {
                for number in first..first + count {
                    while producer.push(item(number)).is_err() {
                        pause(pauses);
                    }
                }
                Ok(())
            }
            (Self::Rtrb(producer), Way::Batches) => send_chunks(producer, first, count, pauses),
        }
    }
}

fn send_singles(sender: &mut Sender, first: u64, count: u64, pauses: u32) -> Result<()> {
    for number in first..first + count {
        loop {
            match sender.try_loan(size_of::<Item>()) {
                Ok(mut loan) => {
                    build(&mut loan, number);
                    loan.commit().during("cannot send")?;
                    break;
                }
                Err(error) => is_full(error)?,
            }
            pause(pauses);
        }
    }
    Ok(())
}

fn send_groups(sender: &mut Sender, first: u64, count: u64, pauses: u32) -> Result<()> {
    let mut number = first;
    while number < first + count {
        let most = BATCH.min(first + count - number);
        let mut group = sender.group();
        let mut added = 0;
        while added < most {
            let next = number + added;
            match group.build(size_of::<Item>(), |space| build(space, next)) {
                Ok(()) => added += 1,
                Err(error) => {
                    is_full(error)?;
                    break;
                }
            }
        }
        group.commit().during("cannot send")?;
        if added == 0 {
            pause(pauses);
        }
        number += added;
    }
    Ok(())
}

fn send_chunks(
    producer: &mut rtrb::Producer<Item>,
    first: u64,
    count: u64,
    pauses: u32,
) -> Result<()> {
    let mut number = first;
    while number < first + count {
        let most = BATCH.min(first + count - number);
        // The cached number is enough as a rule, as it is for windlass.
        let room = match producer.cached_slots() as u64 {
            room if room >= most => most,
            _ => most.min(producer.slots() as u64),
        };
        if room == 0 {
            pause(pauses);
            continue;
        }
        let chunk = producer.write_chunk_uninit(room as usize).during("there was room")?;
        chunk.fill_from_iter((number..number + room).map(item));
        number += room;
    }
    Ok(())
}

impl Sink {
    /// Receives `count` messages from number `first` on; how many of them were others.
    pub fn receive(&mut self, first: u64, count: u64, way: Way, pauses: u32) -> Result<u64> {
        match (self, way) {
            (Self::Windlass(receiver), Way::Singles) => {
                receive_singles(receiver, first, count, pauses)
            }
            (Self::Windlass(receiver), Way::Batches) => {
                receive_batches(receiver, first, count, pauses)
            }
            (Self::Rtrb(consumer), Way::Singles) => {
                let mut mismatches = 0;
                for number in first..first + count {
                    let words = loop {
                        match consumer.pop() {
                            Ok(words) => break words,
                            Err(_) => pause(pauses),
                        }
                    };
                    mismatches += u64::from(words[0] != number || words[7] != !number);
                }
                Ok(mismatches)
            }
            (Self::Rtrb(consumer), Way::Batches) => receive_chunks(consumer, first, count, pauses),
        }
    }
}

fn receive_singles(receiver: &mut Receiver, first: u64, count: u64, pauses: u32) -> Result<u64> {
    let mut mismatches = 0;
    for number in first..first + count {
        loop {
            match receiver.try_recv() {
                Ok(Some(bytes)) => {
                    mismatches += wrong(bytes, number);
                    break;
                }
                Ok(None) => pause(pauses),
                Err(error) => return Err(cannot_receive(error)),
            }
        }
    }
    receiver.release();
    Ok(mismatches)
}

fn receive_batches(receiver: &mut Receiver, first: u64, count: u64, pauses: u32) -> Result<u64> {
    let (mut number, mut mismatches) = (first, 0);
    while number < first + count {
        let before = number;
        for bytes in receiver.batch(TAKEN_MAX).map_err(cannot_receive)? {
            mismatches += wrong(bytes, number);
            number += 1;
        }
        if number == before {
            pause(pauses);
        }
    }
    receiver.release();
    Ok(mismatches)
}

fn receive_chunks(
    consumer: &mut rtrb::Consumer<Item>,
    first: u64,
    count: u64,
    pauses: u32,
) -> Result<u64> {
    let (mut number, mut mismatches) = (first, 0);
    while number < first + count {
        let there = consumer.slots();
        if there == 0 {
            pause(pauses);
            continue;
        }
        let chunk = consumer.read_chunk(there).during("they were there")?;
        let (one, other) = chunk.as_slices();
        for words in one.iter().chain(other) {
            mismatches += u64::from(words[0] != number || words[7] != !number);
            number += 1;
        }
        chunk.commit_all();
    }
    Ok(mismatches)
}

/// Sends a message and waits for it to come back, `count` times; the time of every round in nanoseconds, and how many
/// messages were others.
pub fn call(
    there: &mut Source,
    back: &mut Sink,
    first: u64,
    count: u64,
) -> Result<(Vec<u64>, u64)> {
    let mut rounds = Vec::with_capacity(count as usize);
    let (mut mismatches, mut last) = (0, Instant::now());
    for number in first..first + count {
        there.send(number, 1, Way::Singles, 1)?;
        mismatches += back.receive(number, 1, Way::Singles, 1)?;
        let now = Instant::now();
        rounds.push(u64::try_from(now.duration_since(last).as_nanos()).unwrap_or(u64::MAX));
        last = now;
    }
    Ok((rounds, mismatches))
}

/// Sends every message back.
pub fn echo(there: &mut Sink, back: &mut Source, first: u64, count: u64) -> Result<u64> {
    let mut mismatches = 0;
    for number in first..first + count {
        mismatches += there.receive(number, 1, Way::Singles, 1)?;
        back.send(number, 1, Way::Singles, 1)?;
    }
    Ok(mismatches)
}
