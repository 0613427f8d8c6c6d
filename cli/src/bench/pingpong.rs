//! The bare cache-line ping-pong: what the machine itself needs to carry a word across, and where
//! its two cores are at this moment.
//!
//! Each side stores a growing number into a flag that the other polls, and beside it a payload
//! word. With **one line** everything is in a single cache line that moves to and fro: the least
//! that any exchange can cost. With **two lines** each direction has lines of its own, one for the
//! flag and one for the payload, so that a side has to take back the line it writes and the
//! receiver needs two: what a transport with nothing around it would cost, and what every transport
//! is compared with. One way is half of a round. Many short batches are timed: the smallest is what
//! the hardware does when nobody interrupts, the median says whether somebody does. Both sides poll
//! without a pause.
//!
//! # Orderings
//!
//! | edge    | `Release` store | `Acquire` load            | hands over       |
//! |---------|-----------------|---------------------------|------------------|
//! | `THERE` | flag, driver    | flag, in `answer`, peer   | the payload word |
//! | `BACK`  | flag, peer      | flag, in `bounce`, driver | the payload word |

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

use serde::Serialize;

use super::failure::{Failure, Result};
use super::report::{median, smallest};
use super::wire::{Operation, Wire, PING_OFFSET};
use crate::memory::Memory;

/// Batches of each kind in one look at the machine.
const BATCHES: u64 = 24;

/// Rounds in a batch: 10 µs when the cores are near, short enough to fall between two
/// interruptions.
const ROUNDS: u64 = 200;

/// A one-way time from this on means that the two cores share no cache. On the machines this was
/// made for the states are at 27 and 160 ns with one line, 55 and 245 ns with two, so this
/// separates them safely.
const FAR_NS: f64 = 110.0;

/// A two-line one-way time below this means that nothing had to leave the core: the same machines
/// need 48 ns at least when two cores share a third-level cache, and 22 ns on two threads of one
/// core.
const NEAR_TWO_LINES_NS: f64 = 36.0;

/// How far apart the hypervisor has put the two virtual cores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// They are two threads of one core.
    Twin,
    /// They are two cores that share a cache.
    Near,
    /// They share none.
    Far,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Twin, Self::Near, Self::Far];
}

/// One-way nanoseconds of many short batches.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Span {
    /// The fastest batch.
    pub min: f64,
    /// The batch in the middle.
    pub median: f64,
}

/// One look at the machine.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Ping {
    /// Everything in one cache line.
    pub one_line: Span,
    /// Lines of its own for each direction, one for the flag and one for the payload.
    pub two_lines: Span,
}

impl Ping {
    /// Where the cores are; nothing if they moved between the two kinds.
    pub fn state(&self) -> Option<State> {
        let (one, two) = (self.one_line.min, self.two_lines.min);
        if one >= FAR_NS {
            (two >= FAR_NS).then_some(State::Far)
        } else if two >= FAR_NS {
            None
        } else if two >= NEAR_TWO_LINES_NS {
            Some(State::Near)
        } else {
            Some(State::Twin)
        }
    }
}

/// The words of one kind of ping-pong.
struct Lines {
    there: usize,
    there_payload: usize,
    back: usize,
    back_payload: usize,
}

const ONE_LINE: Lines = Lines {
    there: PING_OFFSET,
    there_payload: PING_OFFSET + 8,
    back: PING_OFFSET + 16,
    back_payload: PING_OFFSET + 24,
};

const TWO_LINES: Lines = Lines {
    there: PING_OFFSET + 256,
    there_payload: PING_OFFSET + 384,
    back: PING_OFFSET + 512,
    back_payload: PING_OFFSET + 640,
};

const KINDS: [Lines; 2] = [ONE_LINE, TWO_LINES];

/// The driver's side: how many rounds it has played, so that no number ever comes twice.
#[derive(Default)]
pub struct Pinger {
    played: u64,
}

impl Pinger {
    /// Looks at the machine.
    ///
    /// # Errors
    ///
    /// Fails if a payload arrived that does not belong to its flag.
    pub fn look(&mut self, wire: &mut Wire) -> Result<Ping> {
        Ok(Ping { one_line: self.play(wire, 0)?, two_lines: self.play(wire, 1)? })
    }

    fn play(&mut self, wire: &mut Wire, kind: usize) -> Result<Span> {
        let rounds = BATCHES * ROUNDS;
        wire.command(Operation::Ping, kind as u64, self.played);
        let mut one_way = Vec::with_capacity(BATCHES as usize);
        let mut torn = 0;
        for batch in 0..BATCHES {
            let first = self.played + batch * ROUNDS + 1;
            let begin = Instant::now();
            torn += bounce(wire.memory(), &KINDS[kind], first);
            one_way.push(begin.elapsed().as_nanos() as f64 / (2 * ROUNDS) as f64);
        }
        self.played += rounds;
        torn += wire.wait();
        if torn != 0 {
            return Err(Failure::new(format!("{torn} payloads of the bare ping-pong were torn")));
        }
        // The first batch holds the peer's start.
        Ok(Span { min: smallest(&one_way[1..]), median: median(&one_way[1..]) })
    }
}

/// The peer's side: answers the rounds behind `played` and returns how many payloads were torn.
pub fn answer(memory: &Memory, kind: u64, played: u64) -> Result<u64> {
    let lines = usize::try_from(kind).ok().and_then(|kind| KINDS.get(kind));
    let lines = lines.ok_or_else(|| Failure::new("the driver asked for an unknown ping-pong"))?;
    let (there, there_payload) = (memory.word(lines.there), memory.word(lines.there_payload));
    let (back, back_payload) = (memory.word(lines.back), memory.word(lines.back_payload));
    let mut torn = 0;
    for number in played + 1..=played + BATCHES * ROUNDS {
        // THERE: pairs with the store in `bounce`.
        while there.load(Acquire) != number {}
        torn += u64::from(there_payload.load(Relaxed) != !number);
        // BACK: pairs with the load in `bounce`.
        send(back, back_payload, number);
    }
    Ok(torn)
}

/// Plays one batch and returns how many payloads were torn.
fn bounce(memory: &Memory, lines: &Lines, first: u64) -> u64 {
    let (there, there_payload) = (memory.word(lines.there), memory.word(lines.there_payload));
    let (back, back_payload) = (memory.word(lines.back), memory.word(lines.back_payload));
    let mut torn = 0;
    for number in first..first + ROUNDS {
        // THERE: pairs with the load in `answer`.
        send(there, there_payload, number);
        // BACK: pairs with the store in `answer`.
        while back.load(Acquire) != number {}
        torn += u64::from(back_payload.load(Relaxed) != !number);
    }
    torn
}

#[inline]
fn send(flag: &AtomicU64, payload: &AtomicU64, number: u64) {
    // Relaxed: ordered by the flag, THERE or BACK.
    payload.store(!number, Relaxed);
    // THERE, BACK: pairs with the load of the side that polls this flag.
    flag.store(number, Release);
}
