//! A word of an order log: which frame has this place in the topic's total order.
//!
//! ```text
//!  63   62       56 55                       0
//! ┌───┬────────────┬──────────────────────────┐
//! │ L │ lane       │ position / 8             │
//! └───┴────────────┴──────────────────────────┘
//! ```
//!
//! `L` is 1 in even laps of the ring and 0 in odd ones, so the zeroes of a fresh file mean "not yet taken" in lap 0.
//! Lane and position make every word unique for the life of the topic; one bit is therefore enough to tell laps apart.

use crate::limits::{HEADER_BYTES, LINE};

const LAP_BIT: u64 = 1 << 63;
const POSITION_MASK: u64 = (1 << 56) - 1;

/// Every position in the lanes of an ordered topic is below this.
pub const POSITION_END: u64 = (POSITION_MASK + 1) * 8;

/// Bytes before the words of an order file.
pub const HEAD: usize = if cfg!(windlass_loom) { 0 } else { HEADER_BYTES };

/// The next free place, as far as anybody has told. Anyone may advance it.
pub const TAIL_AT: usize = HEAD;
/// The first place that a newcomer may begin at.
pub const FLOOR_AT: usize = HEAD + LINE;
/// The first place that is certainly not overwritten: never above the floor.
pub const LAPPED_AT: usize = HEAD + LINE + 8;
/// How far each lane is known to be appended: one word a lane.
pub const ORDERED_AT: usize = HEAD + 2 * LINE;

/// Where the slots begin, after the words of `lanes` lanes.
pub fn slots_at(lanes: usize) -> usize {
    ORDERED_AT + (lanes * 8).next_multiple_of(LINE)
}

/// Bytes of a whole order file.
pub fn file_bytes(lanes: usize, slots: u64) -> u64 {
    slots_at(lanes) as u64 + slots * 8
}

/// An entry of an order log, taken apart. An input: check lane and position before use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The lane that holds the frame.
    pub lane: usize,
    /// The position of its header in that lane.
    pub position: u64,
}

/// The lap bit of place `index` in a ring of `slots`, a power of two.
pub fn lap(index: u64, slots: u64) -> u64 {
    if (index / slots) & 1 == 0 {
        LAP_BIT
    } else {
        0
    }
}

/// Whether `word` was written for the lap of `index`.
pub fn is_taken(word: u64, index: u64, slots: u64) -> bool {
    word & LAP_BIT == lap(index, slots)
}

/// The word for `place` at `index`.
pub fn pack(place: Place, index: u64, slots: u64) -> u64 {
    lap(index, slots) | ((place.lane as u64) << 56) | ((place.position / 8) & POSITION_MASK)
}

/// Takes a word apart.
pub fn unpack(word: u64) -> Place {
    Place { lane: ((word >> 56) & 0x7f) as usize, position: (word & POSITION_MASK) * 8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_taken_in_its_own_lap_only() {
        let place = Place { lane: 63, position: 8 * 12345 };
        for index in [0, 5, 255, 256, 300, 512, 1 << 40] {
            let word = pack(place, index, 256);
            assert_eq!(unpack(word), place);
            assert!(is_taken(word, index, 256));
            assert!(!is_taken(word, index + 256, 256));
        }
        assert!(!is_taken(0, 0, 256), "a fresh slot is free");
    }
}
