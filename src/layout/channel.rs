//! The bytes of a channel: a header page, then a ring of bytes in which frames lie one behind the other.
//!
//! The header word of a frame:
//!
//! ```text
//!  63                          32 31  30 29                0
//! ┌──────────────────────────────┬──────┬───────────────────┐
//! │ position / 8, low 32 bits    │ kind │ payload bytes     │     0 = nothing here yet
//! └──────────────────────────────┴──────┴───────────────────┘
//! ```
//!
//! A *position* counts bytes since the channel was made; byte `position mod capacity` of the ring holds it. The word
//! carries its position, so a word of an older lap is not taken for one that is due.

use crate::limits::{HEADER_BYTES, LINE};

/// Bytes of a header word.
pub const WORD: usize = 8;

const WORDS_AT: usize = if cfg!(windlass_loom) { 0 } else { 128 };

/// Not zero once the file is complete: what whoever died while making it leaves is made anew.
pub const READY_AT: usize = WORDS_AT;
/// The words of the receiver that the sender looks at.
pub const RECEIVER_AT: usize = WORDS_AT + LINE;
/// The words of the sender that the receiver looks at.
pub const SENDER_AT: usize = WORDS_AT + 2 * LINE;
/// Up to where messages are done with.
pub const READ_AT: usize = WORDS_AT + 3 * LINE;
/// The same, told rarely, for a sender that needs room.
pub const ROOM_AT: usize = WORDS_AT + 4 * LINE;
/// The ring.
pub const DATA_AT: usize = if cfg!(windlass_loom) { WORDS_AT + 5 * LINE } else { HEADER_BYTES };

/// Of the words of an end: who holds it.
pub const HOLDER: usize = 0;
/// Of the words of an end: the process name space of its holder.
pub const SPACE: usize = 8;
/// Of the words of an end: the half that it sleeps on.
pub const SLEEP: usize = 16;

/// Bytes of a whole file with a ring of `capacity` bytes and `end` bytes behind it.
pub fn file_bytes(capacity: usize, end: usize) -> u64 {
    DATA_AT as u64 + capacity as u64 + end as u64
}

/// Who holds an end: a state, and the process that the state is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody held it yet.
    Nobody,
    /// This process holds it, or died with it.
    Here(u32),
    /// This process held it and gave it back.
    Left(u32),
}

impl Holder {
    /// The word for it.
    pub fn word(self) -> u64 {
        match self {
            Self::Nobody => 0,
            Self::Here(pid) => (u64::from(pid) << 32) | 1,
            Self::Left(pid) => (u64::from(pid) << 32) | 2,
        }
    }

    /// Takes a word apart; nothing if no end writes it.
    pub fn of(word: u64) -> Option<Self> {
        let pid = (word >> 32) as u32;
        match word as u32 {
            0 if pid == 0 => Some(Self::Nobody),
            1 => Some(Self::Here(pid)),
            2 => Some(Self::Left(pid)),
            _ => None,
        }
    }
}

const KIND_FRAME: u32 = 1 << 30;
const KIND_NEXT: u32 = 2 << 30;
const LEN_MASK: u32 = KIND_FRAME - 1;

/// A header word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Nothing is committed here yet.
    Empty,
    /// A message of this many bytes.
    Frame(usize),
    /// The ring goes on at its beginning.
    Next,
    /// A word that no sender writes here.
    Bad,
}

#[inline]
fn tag(position: u64) -> u64 {
    (position >> 3) << 32
}

/// The header word of a message at `position`.
#[inline]
pub fn frame(len: usize, position: u64) -> u64 {
    tag(position) | u64::from(KIND_FRAME) | len as u64
}

/// The header word at `position` that says that the rest of the lap is not used.
#[inline]
pub fn next(position: u64) -> u64 {
    tag(position) | u64::from(KIND_NEXT)
}

/// Takes the word at `position` apart.
#[inline]
pub fn head(word: u64, position: u64) -> Head {
    // All other bits are clear if the tag and the kind are right.
    let rest = word ^ tag(position) ^ u64::from(KIND_FRAME);
    if rest <= u64::from(LEN_MASK) {
        Head::Frame(rest as usize)
    } else if word == 0 {
        Head::Empty
    } else if word == next(position) {
        Head::Next
    } else {
        Head::Bad
    }
}

/// The bytes that a frame with a payload of `len` bytes takes, header included.
#[inline]
pub fn frame_bytes(len: usize) -> usize {
    WORD + ((len + 7) & !7)
}

/// The largest payload of a ring: its frame takes half of it. So whatever of a lap is left over before it, an empty
/// ring has room for it, and for the header word behind it.
pub fn payload_bytes_max(capacity: usize) -> usize {
    capacity / 2 - WORD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_apart_as_it_was_put_together() {
        for position in [0, 8, 4096, 1 << 34, (1 << 35) - 8, 1 << 62] {
            for len in [0usize, 1, 8, LEN_MASK as usize] {
                assert_eq!(head(frame(len, position), position), Head::Frame(len));
                assert_eq!(head(frame(len, position), position + 8), Head::Bad);
            }
            assert_eq!(head(next(position), position), Head::Next);
            assert_eq!(head(next(position), position + 8), Head::Bad);
            assert_eq!(head(0, position), Head::Empty);
        }
        assert_eq!(head(7, 0), Head::Bad);
        assert_eq!(head(3 << 30, 0), Head::Bad);
    }

    #[test]
    fn a_word_of_another_lap_is_not_one_that_is_due() {
        for capacity in [4096u64, 1 << 20, 1 << 30] {
            for laps in [1, 2, 3, 15] {
                assert_eq!(head(frame(8, 64), 64 + laps * capacity), Head::Bad);
            }
        }
    }

    #[test]
    fn the_holder_of_an_end_comes_apart_as_it_was_put_together() {
        for holder in [Holder::Nobody, Holder::Here(7), Holder::Left(u32::MAX)] {
            assert_eq!(Holder::of(holder.word()), Some(holder));
        }
        assert_eq!(Holder::of(3), None);
        assert_eq!(Holder::of(1 << 32), None);
    }

    #[test]
    fn the_largest_message_fits_an_empty_ring_wherever_it_begins() {
        let capacity = 4096;
        let frame = frame_bytes(payload_bytes_max(capacity));
        let skipped_most = frame - WORD;
        assert!(skipped_most + frame + WORD <= capacity);
        assert!(payload_bytes_max(1 << 30) <= LEN_MASK as usize);
    }
}
