//! The header word of a frame, and the prologue of a segment.
//!
//! ```text
//!  63        40 39   32 31                 0
//! ┌────────────┬───────┬────────────────────┐
//! │ sequence   │ kind  │ payload bytes      │     0 = nothing here yet
//! │ low 24 bits│       │                    │
//! └────────────┴───────┴────────────────────┘
//! ```
//!
//! The sequence bits let a reader recognise a word that is not the one it expects next.

/// Bytes of a header word.
pub const WORD: usize = 8;

/// Bytes before the first frame of a segment: its first sequence and its logical number plus one.
pub const PROLOGUE: usize = 16;

const KIND_FRAME: u64 = 1;
const KIND_NEXT: u64 = 2;
const TAG_MASK: u64 = (1 << 24) - 1;

/// A header word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Head {
    /// Nothing is committed here yet.
    Empty,
    /// A message of this many bytes.
    Frame(usize),
    /// The lane goes on in the next logical segment.
    Next,
    /// A word that no publisher writes here.
    Bad,
}

/// The header word of a message.
#[inline]
pub fn frame(len: usize, sequence: u64) -> u64 {
    ((sequence & TAG_MASK) << 40) | (KIND_FRAME << 32) | len as u64
}

/// The header word that ends a segment; `sequence` is that of the first message of the next one.
#[inline]
pub fn next(sequence: u64) -> u64 {
    ((sequence & TAG_MASK) << 40) | (KIND_NEXT << 32)
}

/// The upper half of the header word that the message `sequence` has.
#[inline]
pub fn expected(sequence: u64) -> u32 {
    (frame(0, sequence) >> 32) as u32
}

/// Takes a word apart, given the sequence that is due at this place.
#[inline]
pub fn head(word: u64, sequence: u64) -> Head {
    if word == 0 {
        Head::Empty
    } else if (word >> 32) as u32 == expected(sequence) {
        Head::Frame(word as u32 as usize)
    } else if word == next(sequence) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_apart_as_it_was_put_together() {
        for sequence in [0, 1, TAG_MASK, TAG_MASK + 1, u64::MAX] {
            for len in [0usize, 1, 8, 1 << 26, u32::MAX as usize] {
                assert_eq!(head(frame(len, sequence), sequence), Head::Frame(len));
                assert_eq!(head(frame(len, sequence), sequence.wrapping_add(1)), Head::Bad);
            }
            assert_eq!(head(next(sequence), sequence), Head::Next);
            assert_eq!(head(next(sequence), sequence.wrapping_add(1)), Head::Bad);
        }
        assert_eq!(head(0, 0), Head::Empty);
        assert_eq!(head(7, 0), Head::Bad);
    }

    #[test]
    fn frames_stay_aligned() {
        assert_eq!(frame_bytes(0), 8);
        assert_eq!(frame_bytes(1), 16);
        assert_eq!(frame_bytes(8), 16);
    }
}
