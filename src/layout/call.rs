//! A call of a service: the words beside its state word, and the header word of a part of its answer.
//!
//! ```text
//!  63                32 31         19 18           3 2   1      0
//! ┌────────────────────┬─────────────┬──────────────┬─────┬───────────┐
//! │ bytes              │ index       │ turn         │ end │ committed │
//! └────────────────────┴─────────────┴──────────────┴─────┴───────────┘
//! ```
//!
//! The state word is that of a chunk ([`chunk`](super::chunk)): its turn is raised whenever a request is made. A header
//! counts if it carries the turn of the call and the index, modulo 2^13, of the response that is due; what an older
//! call left there does not. The zeroes of a fresh file are free calls without answers.

/// The state word.
pub const STATE_AT: usize = 0;
/// Bytes of the request.
pub const LENGTH_AT: usize = 8;
/// Which turn of the call was given up. Of its caller only.
pub const CANCELLED_AT: usize = if cfg!(windlass_loom) { 16 } else { 64 };
/// How many responses of a stream were read, and of which turn. Of its caller only.
pub const CONSUMED_AT: usize = if cfg!(windlass_loom) { 24 } else { 128 };
/// From one call to the next.
pub const STRIDE: usize = if cfg!(windlass_loom) { 32 } else { 256 };

/// Where the payload of a part begins, behind its header word: in a line of its own, so that whoever polls the header
/// does not tear it from whoever writes the payload.
pub const PAYLOAD_AT: usize = if cfg!(windlass_loom) { 8 } else { 64 };
/// Where a small payload lies instead: in the line of the header word, with which it travels.
pub const INLINE_AT: usize = 8;
/// Most bytes of a small payload.
pub const INLINE_BYTES_MAX: usize = PAYLOAD_AT - INLINE_AT;

/// Where in its part a payload of `bytes` bytes lies.
#[inline]
pub const fn payload_at(bytes: usize) -> usize {
    if bytes <= INLINE_BYTES_MAX {
        INLINE_AT
    } else {
        PAYLOAD_AT
    }
}

const COMMITTED: u64 = 1;
const END_SHIFT: u32 = 1;
const END_MASK: u64 = 3;
const TURN_SHIFT: u32 = 3;
const INDEX_SHIFT: u32 = 19;
const INDEX_BITS: u32 = 13;
const BYTES_SHIFT: u32 = 32;

/// What a part is, and what comes behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum End {
    /// A response, and there is more.
    More = 0,
    /// A response, and nothing behind it.
    Last = 1,
    /// A text that says what went wrong, and nothing behind it.
    Failed = 2,
    /// No response: the one before was the last.
    Done = 3,
}

/// The header word of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part(pub u64);

impl Part {
    /// The header of response `index` of a call in `turn`.
    #[inline]
    pub fn new(turn: u32, index: u64, bytes: u32, end: End) -> Self {
        let end = (end as u64) << END_SHIFT;
        Self(Self::key(turn, index) | end | u64::from(bytes) << BYTES_SHIFT)
    }

    /// The bits that say whose response it is.
    #[inline]
    fn key(turn: u32, index: u64) -> u64 {
        let index = index & ((1 << INDEX_BITS) - 1);
        COMMITTED | u64::from(turn & 0xffff) << TURN_SHIFT | index << INDEX_SHIFT
    }

    /// Whether it is response `index` of a call in `turn`.
    #[inline]
    pub fn is(self, turn: u32, index: u64) -> bool {
        self.0 & (u32::MAX as u64 & !(END_MASK << END_SHIFT)) == Self::key(turn, index)
    }

    /// Whether it is some response of a call in `turn`.
    pub fn is_of(self, turn: u32) -> bool {
        self.0 & COMMITTED != 0 && (self.0 >> TURN_SHIFT) as u32 & 0xffff == turn & 0xffff
    }

    /// Bytes of the response. An input: check it before use.
    #[inline]
    pub fn bytes(self) -> u32 {
        (self.0 >> BYTES_SHIFT) as u32
    }

    /// What it is, and what comes behind it.
    #[inline]
    pub fn end(self) -> End {
        match self.0 >> END_SHIFT & END_MASK {
            0 => End::More,
            1 => End::Last,
            2 => End::Failed,
            _ => End::Done,
        }
    }
}

/// The word that says that a call was given up in `turn`: never zero.
pub fn cancelled(turn: u32) -> u64 {
    1 << 16 | u64::from(turn & 0xffff)
}

/// The word that says that `count` responses were read in `turn`.
pub fn consumed(turn: u32, count: u64) -> u64 {
    count << 16 | u64::from(turn & 0xffff)
}

/// How many responses were read in `turn`, if the word is about that.
pub fn count_of(consumed: u64, turn: u32) -> Option<u64> {
    (consumed & 0xffff == u64::from(turn & 0xffff)).then_some(consumed >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_apart_as_it_was_put_together() {
        for end in [End::More, End::Last, End::Failed, End::Done] {
            for (turn, index) in [(0, 0), (0xffff, 0), (7, 8191), (7, u64::MAX), (1, 8192)] {
                let part = Part::new(turn, index, u32::MAX, end);
                assert_eq!((part.bytes(), part.end()), (u32::MAX, end));
                assert!(part.is(turn, index) && part.is(turn, index.wrapping_add(8192)));
                assert!(!part.is(turn, index.wrapping_add(1)) && !part.is(turn + 1, index));
                assert!(part.is_of(turn) && !part.is_of(turn + 1));
            }
        }
        assert!(!Part(0).is(0, 0) && !Part(0).is_of(0));
        assert_eq!(count_of(consumed(0xffff, 5), 0xffff), Some(5));
        assert_eq!(count_of(consumed(0xffff, 5), 0), None);
        assert_ne!(cancelled(0), 0);
    }
}
