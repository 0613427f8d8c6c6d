//! A word of the order of a log: which record a message is.
//!
//! ```text
//!  63  62     56 55    48 47                    0
//! ┌───┬─────────┬────────┬────────────────────────┐
//! │ 1 │ lane    │ check  │ position / 8           │     0 = not yet taken
//! └───┴─────────┴────────┴────────────────────────┘
//! ```
//!
//! The checksum of a record covers where it lies and not which message it is. The check ties the word to its
//! sequence: it is the sum without carries of the bytes of both, so whatever became of one byte of the word, or of a
//! word that moved to the place next to its own, is noticed.

use crate::layout::order::Place;

const TAKEN: u64 = 1 << 63;
const POSITION_MASK: u64 = (1 << 48) - 1;

/// Every position in the lanes of a log is below this.
pub const POSITION_END: u64 = (POSITION_MASK + 1) * 8;

/// The lane of a word that no publisher wrote: none has it.
pub const NO_LANE: usize = usize::MAX;

/// The sum without carries of the bytes of both words: 0 if the word has its check.
#[inline]
fn sum(word: u64, sequence: u64) -> u64 {
    let folded = word ^ sequence;
    let folded = folded ^ (folded >> 32);
    let folded = folded ^ (folded >> 16);
    (folded ^ (folded >> 8)) & 0xff
}

/// The word that makes the record at `place` the message `sequence`.
#[inline]
pub fn pack(place: Place, sequence: u64) -> u64 {
    let word = TAKEN | ((place.lane as u64) << 56) | ((place.position / 8) & POSITION_MASK);
    word | (sum(word, sequence) << 48)
}

/// Takes a word that is not zero apart. One that no publisher wrote for this sequence names [`NO_LANE`].
#[inline]
pub fn unpack(word: u64, sequence: u64) -> Place {
    if sum(word, sequence) != 0 || word & TAKEN == 0 {
        return nobodys();
    }
    Place { lane: ((word >> 56) & 0x7f) as usize, position: (word & POSITION_MASK) * 8 }
}

/// Out of the way: a reader goes on before it knows the sum.
#[cold]
fn nobodys() -> Place {
    Place { lane: NO_LANE, position: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_that_of_its_own_sequence_and_of_no_byte_less() {
        for sequence in [0, 1, 255, 256, 131_071, 131_072, 1 << 40] {
            for place in [
                Place { lane: 0, position: 16 },
                Place { lane: 63, position: POSITION_END - 8 },
                Place { lane: 5, position: 8 * 12_345_678 },
            ] {
                let word = pack(place, sequence);
                assert_eq!(unpack(word, sequence), place);
                assert_eq!(unpack(word, sequence + 1).lane, NO_LANE);
                for at in 0..8 {
                    for change in 1..=255u64 {
                        assert_eq!(unpack(word ^ (change << (8 * at)), sequence).lane, NO_LANE);
                    }
                }
            }
        }
    }
}
