//! A chunk of a work queue: the word that says whose it is, and the words that go with it.
//!
//! ```text
//!  63                32 31        24 23        8 7       0
//! ┌────────────────────┬────────────┬───────────┬─────────┐
//! │ node               │ deliveries │ turn      │ state   │
//! └────────────────────┴────────────┴───────────┴─────────┘
//! ```
//!
//! The state word is the truth about a chunk; entries of the ring are hints. A node number is used once, so it names
//! an owner for good. The turn is raised, modulo 2^16, whenever the chunk is loaned or its dead letter revived. The
//! zeroes of a fresh file are free chunks.

use crate::limits::LINE;

/// Bytes from the state word of one chunk to that of the next: a state word and a note. Four chunks share a line. They
/// are used in turn, so that whoever comes to a line finds four of them, and mostly has it to itself.
pub const STRIDE: usize = 16;

/// Bytes of a word of those that have an area of their own.
const WORD: usize = 8;

/// Where the words of `chunks` chunks lie, from where they begin.
///
/// ```text
///   state, note of each │ placed of each │ due of each        each area begins with a line
/// ```
///
/// What producers alone write, and what is hardly ever written, is apart from what everybody does.
#[derive(Clone, Copy, Debug)]
pub struct Words {
    placed_at: usize,
    due_at: usize,
    end: usize,
}

impl Words {
    /// The places of the words of so many chunks.
    pub const fn of(chunks: usize) -> Self {
        let placed_at = (chunks * STRIDE).next_multiple_of(LINE);
        let due_at = (placed_at + chunks * WORD).next_multiple_of(LINE);
        let end = (due_at + chunks * WORD).next_multiple_of(LINE);
        Self { placed_at, due_at, end }
    }

    /// The state word of a chunk.
    #[inline]
    pub const fn state_at(self, chunk: usize) -> usize {
        chunk * STRIDE
    }

    /// The note on its message: see [`Note`].
    #[inline]
    pub const fn note_at(self, chunk: usize) -> usize {
        chunk * STRIDE + WORD
    }

    /// The state word for which an entry is known to have been made.
    #[inline]
    pub const fn placed_at(self, chunk: usize) -> usize {
        self.placed_at + chunk * WORD
    }

    /// When it may be delivered again, on the clock of the machine, in nanoseconds.
    #[inline]
    pub const fn due_at(self, chunk: usize) -> usize {
        self.due_at + chunk * WORD
    }

    /// Bytes of all of them.
    pub const fn bytes(self) -> usize {
        self.end
    }
}

/// What is noted of a message beside its state.
///
/// ```text
///  63                32 31                 0
/// ┌────────────────────┬────────────────────┐
/// │ since              │ length             │
/// └────────────────────┴────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Bytes of the payload. An input: check it before use.
    pub length: u32,
    /// When it was entered, on the clock of the machine, in milliseconds modulo 2^32.
    pub since_ms: u32,
}

impl Note {
    /// The word.
    #[inline]
    pub const fn word(self) -> u64 {
        (self.since_ms as u64) << 32 | self.length as u64
    }

    /// How long ago it was entered, by a clock of nanoseconds that was read after the note: that of the entry lags
    /// behind, and both go round.
    #[inline]
    pub const fn age_ms(self, now: u64) -> u32 {
        ((now / 1_000_000) as u32).wrapping_sub(self.since_ms)
    }

    /// The note in a word.
    #[inline]
    pub const fn read(word: u64) -> Self {
        Self { length: word as u32, since_ms: (word >> 32) as u32 }
    }
}

/// Bits of the number of a chunk in an entry of the ring.
pub const CHUNK_BITS: u32 = 24;

/// Bits of an entry.
pub const ENTRY_BITS: u32 = CHUNK_BITS + 16;

/// An entry of the ring: it says that the message of a turn of a chunk waits. It may be stale: the turn tells it from
/// one of a later message in the same chunk.
///
/// ```text
///  39            24 23                    0
/// ┌────────────────┬────────────────────────┐
/// │ turn           │ chunk                  │
/// └────────────────┴────────────────────────┘
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The chunk. An input: check it before use.
    pub chunk: usize,
    /// The turn of the chunk in which it was entered.
    pub turn: u32,
}

impl Entry {
    /// The entry of a chunk whose state word is `word`.
    #[inline]
    pub fn of(chunk: usize, word: Chunk) -> Self {
        Self { chunk, turn: word.turn() }
    }

    /// The token.
    #[inline]
    pub fn token(self) -> u64 {
        u64::from(self.turn) << CHUNK_BITS | self.chunk as u64
    }

    /// The entry that a token is.
    #[inline]
    pub fn read(token: u64) -> Self {
        let chunk = (token & ((1 << CHUNK_BITS) - 1)) as usize;
        Self { chunk, turn: (token >> CHUNK_BITS) as u32 & 0xffff }
    }

    /// Whether the message waits that it speaks of. `word` is the state word of its chunk.
    #[inline]
    pub fn is_of(self, word: Chunk) -> bool {
        word.is(State::Ready) && word.turn() == self.turn
    }
}

/// Most deliveries that the word counts.
pub const DELIVERIES_MAX: u32 = 0xff;

/// Where a message is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum State {
    /// Nobody's.
    Free = 0,
    /// A producer builds a message in it.
    Loaned = 1,
    /// It waits for a consumer. The node is whoever made it ready.
    Ready = 2,
    /// A consumer works on it.
    Taken = 3,
    /// It was delivered as often as it may be, and waits for whoever looks after such.
    Dead = 4,
    /// It waits until it is due.
    Later = 5,
}

/// A state word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Chunk(pub u64);

impl Chunk {
    /// The word of these parts.
    pub fn new(node: u32, deliveries: u32, turn: u32, state: State) -> Self {
        let (deliveries, turn) = (deliveries.min(DELIVERIES_MAX), turn & 0xffff);
        Self(u64::from(node) << 32 | u64::from(deliveries << 24 | turn << 8 | state as u32))
    }

    /// Who made the last step, and owns the chunk in states that have an owner.
    pub fn node(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How often the message was delivered without an acknowledgement.
    pub fn deliveries(self) -> u32 {
        (self.0 >> 24 & 0xff) as u32
    }

    /// How often the chunk was loaned, or its dead letter revived, modulo 2^16.
    pub fn turn(self) -> u32 {
        (self.0 >> 8 & 0xffff) as u32
    }

    /// The state; `None` if the word is none that windlass writes.
    pub fn state(self) -> Option<State> {
        Some(match self.0 & 0xff {
            0 => State::Free,
            1 => State::Loaned,
            2 => State::Ready,
            3 => State::Taken,
            4 => State::Dead,
            5 => State::Later,
            _ => return None,
        })
    }

    /// Whether it is in that state.
    pub fn is(self, state: State) -> bool {
        self.0 & 0xff == state as u64
    }

    /// The same message in another state, by `node`.
    #[must_use]
    pub fn with(self, state: State, node: u32) -> Self {
        Self::new(node, self.deliveries(), self.turn(), state)
    }

    /// The same after one more delivery in vain.
    #[must_use]
    pub fn failed(self) -> Self {
        let state = self.0 & 0xff;
        let deliveries = (self.deliveries() + 1).min(DELIVERIES_MAX);
        Self(u64::from(self.node()) << 32 | u64::from(deliveries << 24 | self.turn() << 8) | state)
    }

    /// The chunk, loaned anew to `node`.
    #[must_use]
    pub fn loaned(self, node: u32) -> Self {
        Self::new(node, 0, self.turn().wrapping_add(1), State::Loaned)
    }

    /// The chunk, free.
    #[must_use]
    pub fn freed(self) -> Self {
        Self::new(0, 0, self.turn(), State::Free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_apart_as_it_was_put_together() {
        let word = Chunk::new(u32::MAX, 255, 0xffff, State::Later);
        assert_eq!((word.node(), word.deliveries(), word.turn()), (u32::MAX, 255, 0xffff));
        assert_eq!(word.state(), Some(State::Later));
        assert_eq!(word.failed(), word, "deliveries stay at their end");
        let next = word.freed().loaned(7);
        assert_eq!(next, Chunk::new(7, 0, 0, State::Loaned));
        assert_eq!(next.with(State::Taken, 8).failed(), Chunk::new(8, 1, 0, State::Taken));
        assert_eq!(Chunk(6).state(), None);
        assert!(Chunk(0).is(State::Free));
    }
}
