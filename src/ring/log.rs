//! The order of a log: one word for each message that was ever published, in pieces that are made as it grows.
//!
//! A record lies in its lane, whole, before its place is taken; taking the place, **one compare-and-swap of the word
//! itself**, is what commits it. What lies in a lane behind its last committed record never existed.
//!
//! ```text
//!   piece 0 │ ● │ ● │ … │ ● │   piece 1 │ ● │ ● │ 0 │ 0 │ … │        ● = lane and position of a record
//!                                                 └ tail: a hint that anyone advances
//! ```
//!
//! # Invariants
//!
//! * `I1` — A word changes once, from zero. All words before one that is taken are taken.
//! * `I2` — `tail` never passes a word that is not taken.
//! * `I3` — A lane has one publisher, the holder of its lease. Before each attempt to take a word it notes which record
//!   it is about to commit, and where: the lane's *intent*. So whoever comes after it knows with one look whether that
//!   record is in.
//!
//! # Orderings
//!
//! | edge     | `Release`                         | `Acquire`                         | hands over                  |
//! |----------|-----------------------------------|-----------------------------------|-----------------------------|
//! | `PLACE`  | swap of a word in `append`        | load of it in `read` and `append` | the record                  |
//! | `TAIL`   | swap of `tail` in `finish`        | load of `tail`                    | the words before it         |
//! | `INTENT` | stores of position, then sequence | loads of them the other way round | number, then position       |
//! | `KEPT`   | `fetch_max` of `floor`            | load of `floor`                   | that older files may be gone |
//!
//! # If a process dies
//!
//! Before the swap: its record never existed, and the next holder of the lane writes over it. After: the record is
//! committed; whoever appends next advances the tail. Checked by `loom-tests/tests/log.rs`.
//!
//! The one-word append with a helped tail follows the idea of the Michael and Scott queue (PODC 1996).

use crate::layout::order::Place;
use crate::layout::place as words;
use crate::limits::{LINE, PLACES, PUBLISHERS_MAX};
use crate::ring::lane::Corrupt;
use crate::ring::order::TAIL_MAX;
use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::*};

/// Bytes of the words that publishers of a log share: two lines, and one for each lane.
pub fn bytes(lanes: usize) -> usize {
    (2 + lanes) * LINE
}

const TAIL_AT: usize = 0;
const FLOOR_AT: usize = LINE;
const SYNCED_AT: usize = LINE + 8;
const LANES_AT: usize = 2 * LINE;
const POSITION_AT: usize = 0;
const NUMBER_AT: usize = 8;
const SEQUENCE_AT: usize = 16;
const LANE_SYNCED_AT: usize = 24;

/// The sequence of an intent that nobody had: what was recovered.
const NOBODY: u64 = u64::MAX;

/// The words that the publishers and subscribers of one log share.
#[derive(Clone)]
pub struct Head {
    region: Region,
    at: usize,
    lanes: usize,
}

/// A piece of the order.
#[derive(Clone)]
pub struct Piece {
    region: Region,
    at: usize,
    number: u64,
}

/// How an attempt to commit a record ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// It is committed, under this sequence.
    At(u64),
    /// The next place is in another piece, of this number.
    Beyond(u64),
    /// Somebody else committed a message first; nothing happened.
    Moved,
    /// The tail is where no publisher puts it.
    Corrupt,
}

/// What a lane's publisher was last about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// Where the record lies.
    pub position: u64,
    /// Its number in its lane; if it is committed, perhaps that of the next record.
    pub number: u64,
    /// The place that it was to have; `None` if the position is the end of the lane.
    pub sequence: Option<u64>,
}

impl Piece {
    /// Piece `number`, with its words from byte `at` of `region` on.
    pub fn new(region: Region, at: usize, number: u64) -> Self {
        assert!(at + PLACES as usize * 8 <= region.len());
        Self { region, at, number }
    }

    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Its file.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// Whether the place of `sequence` is in it.
    #[inline]
    pub fn covers(&self, sequence: u64) -> bool {
        sequence / PLACES == self.number
    }

    fn word(&self, sequence: u64) -> &AtomicU64 {
        debug_assert!(self.covers(sequence));
        self.region.word(self.at + (sequence % PLACES) as usize * 8)
    }

    /// The record that has this place, if any has; [`NO_LANE`](words::NO_LANE) if no publisher wrote it. An input:
    /// check lane and position before use.
    #[inline]
    pub fn read(&self, sequence: u64) -> Option<Place> {
        // PLACE: pairs with the swap in `append`.
        let found = self.word(sequence).load(Acquire);
        if found == 0 {
            return None;
        }
        Some(words::unpack(found, sequence))
    }

    /// Sets a word of a piece that nobody uses: for whoever repairs a log.
    pub fn set(&self, sequence: u64, place: Option<Place>) {
        let word = place.map_or(0, |place| words::pack(place, sequence));
        // Relaxed: published by whatever tells others of the piece.
        self.word(sequence).store(word, Relaxed);
    }

    /// The first sequence of this piece that is not taken, if all that follow are not taken either.
    ///
    /// A search by halves: for whoever has no tail.
    pub fn end(&self) -> u64 {
        let first = self.number * PLACES;
        let (mut taken, mut free) = (0, PLACES);
        while taken < free {
            let middle = taken + (free - taken) / 2;
            if self.read(first + middle).is_some() {
                taken = middle + 1;
            } else {
                free = middle;
            }
        }
        first + taken
    }
}

impl Head {
    /// The words from byte `at` of `region` on.
    pub fn new(region: Region, at: usize, lanes: usize) -> Self {
        assert!(lanes <= PUBLISHERS_MAX as usize && at + bytes(lanes) <= region.len());
        Self { region, at, lanes }
    }

    fn at(&self, offset: usize) -> &AtomicU64 {
        self.region.word(self.at + offset)
    }

    fn lane_word(&self, lane: usize, field: usize) -> &AtomicU64 {
        debug_assert!(lane < self.lanes);
        self.at(LANES_AT + lane * LINE + field)
    }

    /// Lanes of the log.
    pub fn lanes(&self) -> usize {
        self.lanes
    }

    /// Begins anew, for a log that nobody uses: with `next` messages, of which those from `floor` on are kept.
    pub fn reset(&self, next: u64, floor: u64, ends: &[u64], numbers: &[u64]) {
        // Relaxed: published by whatever tells others of the log.
        self.at(TAIL_AT).store(next, Relaxed);
        self.at(FLOOR_AT).store(floor, Relaxed);
        self.at(SYNCED_AT).store(next, Relaxed);
        for (lane, (end, number)) in ends.iter().zip(numbers).enumerate().take(self.lanes) {
            self.lane_word(lane, POSITION_AT).store(*end, Relaxed);
            self.lane_word(lane, NUMBER_AT).store(*number, Relaxed);
            self.lane_word(lane, SEQUENCE_AT).store(NOBODY, Relaxed);
            self.lane_word(lane, LANE_SYNCED_AT).store(*end, Relaxed);
        }
    }

    /// A sequence that is not taken, or one that was taken a moment ago.
    #[inline]
    pub fn tail(&self) -> u64 {
        // TAIL: pairs with the swap in `finish`.
        self.at(TAIL_AT).load(Acquire)
    }

    /// The first sequence that is kept.
    pub fn floor(&self) -> u64 {
        // KEPT: pairs with `raise_floor`.
        self.at(FLOOR_AT).load(Acquire)
    }

    /// Says that messages below `floor` are kept no longer. Before they go.
    pub fn raise_floor(&self, floor: u64) {
        step!("retain.floor");
        // KEPT: pairs with `floor`.
        self.at(FLOOR_AT).fetch_max(floor, AcqRel);
    }

    /// Every message below this sequence is on disk.
    pub fn synced(&self) -> u64 {
        // Relaxed: a lower bound, for people and for those who wait for it to rise.
        self.at(SYNCED_AT).load(Relaxed)
    }

    /// Says that every message below `sequence` is on disk.
    pub fn raise_synced(&self, sequence: u64) {
        // Relaxed: as above.
        self.at(SYNCED_AT).fetch_max(sequence, Relaxed);
    }

    /// Everything below this position of a lane is on disk. An input.
    pub fn lane_synced(&self, lane: usize) -> u64 {
        // Relaxed: says something of the disk, and nothing of memory.
        self.lane_word(lane, LANE_SYNCED_AT).load(Relaxed)
    }

    /// Says that everything below `position` of a lane is on disk.
    pub fn raise_lane_synced(&self, lane: usize, position: u64) {
        // Relaxed: as above.
        self.lane_word(lane, LANE_SYNCED_AT).fetch_max(position, Relaxed);
    }

    /// Commits record `number` of its lane, which is at `place`. With `only`: under that sequence, or not at all.
    #[inline]
    pub fn append(&self, piece: &Piece, place: Place, number: u64, only: Option<u64>) -> Appended {
        loop {
            let sequence = self.tail();
            if sequence > TAIL_MAX {
                return Appended::Corrupt;
            }
            if !piece.covers(sequence) {
                return Appended::Beyond(sequence / PLACES);
            }
            // PLACE: pairs with the swap below.
            if piece.word(sequence).load(Acquire) != 0 {
                self.finish(sequence);
                continue;
            }
            if only.is_some_and(|only| only != sequence) {
                return Appended::Moved;
            }
            step!("log.intend");
            // Relaxed: published by the position.
            self.lane_word(place.lane, NUMBER_AT).store(number, Relaxed);
            step!("log.number");
            // INTENT: pairs with the load of the position in `intent`, which has this number, or the one after it.
            self.lane_word(place.lane, POSITION_AT).store(place.position, Release);
            step!("log.intent");
            // INTENT: pairs with the load of the sequence in `intent`.
            self.lane_word(place.lane, SEQUENCE_AT).store(sequence, Release);
            step!("log.place");
            let word = piece.word(sequence);
            // PLACE: pairs with the load above, and with `Piece::read`.
            if word.compare_exchange(0, words::pack(place, sequence), AcqRel, Relaxed).is_ok() {
                self.finish(sequence);
                return Appended::At(sequence);
            }
        }
    }

    /// Advances the tail over a place that is taken.
    #[inline]
    fn finish(&self, sequence: u64) {
        step!("log.tail");
        // TAIL: pairs with `tail`. Failing means that somebody else advanced it.
        let _ = self.at(TAIL_AT).compare_exchange(sequence, sequence + 1, AcqRel, Relaxed);
    }

    /// What the last publisher of a lane was about to do. To be asked by the holder of its lease.
    pub fn intent(&self, lane: usize) -> Intent {
        // INTENT: pairs with the store of the sequence in `append`.
        let sequence = self.lane_word(lane, SEQUENCE_AT).load(Acquire);
        // INTENT: pairs with the store of the position. It may be that of the record after the one that was to have
        // `sequence`, and then so is the number.
        let position = self.lane_word(lane, POSITION_AT).load(Acquire);
        // Relaxed: behind the edge. Stored before the position: it may be that of the record after it.
        let number = self.lane_word(lane, NUMBER_AT).load(Relaxed);
        Intent { position, number, sequence: (sequence != NOBODY).then_some(sequence) }
    }

    /// How far the publisher of a lane has come, as far as anybody can see from outside: the position and the number of
    /// the record that it committed last, or is about to.
    pub fn reached(&self, lane: usize) -> (u64, u64) {
        let word = |field| self.lane_word(lane, field).load(Relaxed);
        // Relaxed: a hint.
        (word(POSITION_AT), word(NUMBER_AT))
    }
}

impl Intent {
    /// Whether the record is committed, given the piece that has the place it was to get, if that piece exists.
    pub fn is_committed(&self, lane: usize, piece: Option<&Piece>) -> Result<bool, Corrupt> {
        let Some(sequence) = self.sequence else { return Ok(false) };
        if sequence > TAIL_MAX {
            return Err(Corrupt);
        }
        let Some(piece) = piece.filter(|piece| piece.covers(sequence)) else { return Ok(false) };
        Ok(piece.read(sequence) == Some(Place { lane, position: self.position }))
    }
}
