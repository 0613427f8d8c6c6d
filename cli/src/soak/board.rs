//! Words that the supervisor and its children share beside the bus: how far everybody is.
//!
//! What a killed process had done is known to the message, because it noted it here as it went: a
//! publisher raises `tried` before it publishes and `committed` after, so the lane of a dead one
//! ends at one of the two and nowhere else. No child talks to the supervisor for a message.
//!
//! ```text
//!   phase │ cell 0: deaths, then of each lane tried, committed, old │ cell 1 │ … │ seat 0 │ … │ dockets
//! ```
//!
//! A word of a lane is written by the holder of that lane, of whom the bus allows one. A word of a
//! seat is written by the process that has the seat, and set to zero by the supervisor between two
//! of them. Up to the word `old` of a lane, its messages may have been published before the last
//! death: they say nothing of who goes on after it.

use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;

use crate::memory::Memory;

/// Most cells of a run.
pub const CELLS_MAX: usize = 32;
/// Most seats of a run.
pub const SEATS_MAX: usize = 128;
/// Producers of queues, each with a docket.
pub const DOCKETS_MAX: usize = 4;
/// Messages of a producer that its docket remembers.
pub const DOCKET_LINES: usize = 1 << 16;
/// Most lanes of a cell.
pub const LANES_MAX: usize = 16;

const CELLS_AT: usize = 128;
const CELL_BYTES: usize = 512;
const SEATS_AT: usize = CELLS_AT + CELLS_MAX * CELL_BYTES;
const SEAT_BYTES: usize = 256;
const DOCKETS_AT: usize = SEATS_AT + SEATS_MAX * SEAT_BYTES;
const BYTES: usize = DOCKETS_AT + DOCKETS_MAX * DOCKET_LINES * 8;

const DEATHS_AT: usize = 0;
const TRIED_AT: usize = 128;
const COMMITTED_AT: usize = TRIED_AT + 8 * LANES_MAX;
const OLD_AT: usize = COMMITTED_AT + 8 * LANES_MAX;

const _: () = assert!(OLD_AT + 8 * LANES_MAX <= CELL_BYTES);
const _: () = assert!(Word::COUNT * 8 <= SEAT_BYTES);

/// What everybody is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Publish and receive.
    Run,
    /// Publishers, and those who come and go, end.
    Stop,
    /// The supervisor publishes the last message of each lane.
    Last,
    /// Nothing is published any more: subscribers read to the end.
    Settle,
    /// Subscribers leave.
    Leave,
}

/// What the process of a seat notes.
#[derive(Clone, Copy, Debug)]
pub enum Word {
    /// 1 while it holds a handle of its topic.
    Joined,
    /// Messages that it published.
    Sent,
    /// Messages that it received and found right.
    Received,
    /// Payload bytes of both.
    Bytes,
    /// Messages that the bus told it it had missed.
    Missed,
    /// Times that it was told that it was evicted.
    Evicted,
    /// Times that it waited for room.
    Full,
    /// When it last published or received something, or made a round.
    Beat,
    /// The last death that it went on after: it received what was published after that was seen.
    Answered,
    /// When it did.
    AnsweredNs,
    /// Views that it held and compared with what was received.
    Views,
    /// Times that it joined, created, removed, inspected or repaired something.
    Rounds,
    /// What was wrong.
    Faults,
}

impl Word {
    const COUNT: usize = 13;
}

/// The shared words.
pub struct Board {
    memory: Memory,
}

impl Board {
    /// A new board, all zero.
    pub fn create() -> Result<Self> {
        Ok(Self { memory: Memory::create(BYTES)? })
    }

    /// The board that the supervisor passed as the standard input of this process.
    pub fn inherit() -> Result<Self> {
        let memory = Memory::inherit()?;
        // Whoever runs a hidden command by hand has something else there.
        memory.span(0, BYTES)?;
        Ok(Self { memory })
    }

    /// What a child gets as its standard input.
    pub fn as_input(&self) -> Result<Stdio> {
        self.memory.as_input()
    }

    fn load(&self, at: usize) -> u64 {
        self.word(at).load(Ordering::Acquire)
    }

    fn store(&self, at: usize, value: u64) {
        // What was done before is seen by whoever sees this.
        self.word(at).store(value, Ordering::Release);
    }

    fn word(&self, at: usize) -> &AtomicU64 {
        self.memory.word(at)
    }

    /// What everybody is to do.
    pub fn phase(&self) -> Phase {
        match self.load(0) {
            0 => Phase::Run,
            1 => Phase::Stop,
            2 => Phase::Last,
            3 => Phase::Settle,
            _ => Phase::Leave,
        }
    }

    /// Supervisor: what everybody is to do from now on.
    pub fn set_phase(&self, phase: Phase) {
        self.store(0, phase as u64);
    }

    /// The number of the last death in a cell.
    pub fn deaths(&self, cell: usize) -> u64 {
        self.load(cell_at(cell) + DEATHS_AT)
    }

    /// Supervisor: one more death in a cell was seen; returns its number. What was tried up to now is
    /// old.
    pub fn count_death(&self, cell: usize) -> u64 {
        for lane in 0..LANES_MAX {
            self.store(lane_at(cell, lane) + OLD_AT, self.tried(cell, lane));
        }
        let deaths = self.deaths(cell) + 1;
        self.store(cell_at(cell) + DEATHS_AT, deaths);
        deaths
    }

    /// Whether this message was published after the death was seen whose number
    /// [`deaths`](Self::deaths) said before.
    pub fn is_news(&self, cell: usize, lane: usize, sequence: u64) -> bool {
        sequence >= self.load(lane_at(cell, lane) + OLD_AT)
    }

    /// Sequences that the lane may have reached: nothing above was ever tried.
    pub fn tried(&self, cell: usize, lane: usize) -> u64 {
        self.load(lane_at(cell, lane) + TRIED_AT)
    }

    /// Sequences that the lane has reached at least.
    pub fn committed(&self, cell: usize, lane: usize) -> u64 {
        self.load(lane_at(cell, lane) + COMMITTED_AT)
    }

    /// The holder of a lane is about to publish up to this sequence.
    pub fn try_up_to(&self, cell: usize, lane: usize, sequence: u64) {
        self.store(lane_at(cell, lane) + TRIED_AT, sequence);
    }

    /// The holder of a lane has published up to this sequence.
    pub fn commit_up_to(&self, cell: usize, lane: usize, sequence: u64) {
        self.store(lane_at(cell, lane) + COMMITTED_AT, sequence);
    }

    /// The line of a docket for a message; see [`docket`](super::docket).
    pub fn line(&self, docket: usize, number: u64) -> &AtomicU64 {
        assert!(docket < DOCKETS_MAX, "there is a docket {docket}");
        let line = docket * DOCKET_LINES + (number % DOCKET_LINES as u64) as usize;
        self.word(DOCKETS_AT + 8 * line)
    }

    /// What the process of a seat noted.
    pub fn get(&self, seat: usize, word: Word) -> u64 {
        self.load(seat_at(seat) + 8 * word as usize)
    }

    /// The process of a seat notes something.
    pub fn set(&self, seat: usize, word: Word, value: u64) {
        self.store(seat_at(seat) + 8 * word as usize, value);
    }

    /// The process of a seat counts something.
    pub fn add(&self, seat: usize, word: Word, more: u64) {
        self.set(seat, word, self.get(seat, word).wrapping_add(more));
    }

    /// Supervisor, while nobody has the seat: forgets all that was noted.
    pub fn clear(&self, seat: usize) {
        self.memory.clear(seat_at(seat), SEAT_BYTES);
    }
}

fn cell_at(cell: usize) -> usize {
    assert!(cell < CELLS_MAX, "there is a cell {cell}");
    CELLS_AT + cell * CELL_BYTES
}

fn lane_at(cell: usize, lane: usize) -> usize {
    assert!(lane < LANES_MAX, "there is a lane {lane}");
    cell_at(cell) + 8 * lane
}

fn seat_at(seat: usize) -> usize {
    assert!(seat < SEATS_MAX, "there is a seat {seat}");
    SEATS_AT + seat * SEAT_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_tried_before_a_death_is_no_news() {
        let board = Board::create().expect("memory for a board");
        board.try_up_to(1, 2, 40);
        assert!(board.is_news(1, 2, 0));
        assert_eq!((board.count_death(1), board.deaths(1), board.deaths(0)), (1, 1, 0));
        assert!(!board.is_news(1, 2, 39));
        assert!(board.is_news(1, 2, 40) && board.is_news(1, 3, 0) && board.is_news(0, 2, 0));
        // Its successor goes on below what the dead one had only tried.
        board.try_up_to(1, 2, 37);
        board.count_death(1);
        assert!(!board.is_news(1, 2, 36) && board.is_news(1, 2, 37));
    }
}
