//! The chunks of a work queue, and who has them.
//!
//! ```text
//!            loan            commit            take            ack
//!   Free ──────────▶ Loaned(p) ────▶ Ready(p) ────▶ Taken(c) ─────▶ Free
//!     ▲    abort       │                ▲               │ nack, or the death of c
//!     └────────────────┘                ├───────────────┤
//!                                       │  due          ├──▶ Later ──▶ Ready
//!                                       └───────────────┴──▶ Dead, after the last delivery
//! ```
//!
//! The state word of a chunk is the single truth; entries of the ring are hints. A message is committed when its chunk
//! is ready, and only then entered. A consumer takes it by a swap of the state word, and only then removes the entry.
//! An entry whose chunk is not ready, or is so in another turn, is stale, and whoever meets it removes it. Two entries
//! of one message do no harm; one of an earlier message in the same chunk would bring a later one before its turn.
//!
//! # Invariants
//!
//! * `I1` — Every arrow is one compare-and-swap from exactly the word that was seen, and names who did it.
//! * `I2` — Only the owner that the word names reads or writes the payload: the producer while Loaned, the consumer
//!   while Taken.
//! * `I3` — `placed` is the word of a ready chunk only if an entry was made for it after it had that word. Such an
//!   entry stays until the word changes. The turn tells the word from those of earlier messages.
//! * `I4` — A ready chunk whose word is not `placed` may have no entry. Whoever made it ready enters it; if that is a
//!   dead process, whoever repairs does; and an idle consumer takes such a chunk without an entry.
//! * `I5` — A ready chunk that is placed while the ring is empty, looked at in this order, has lost its entry to
//!   damage. An idle consumer takes it.
//!
//! # Orderings
//!
//! | edge     | `Release`                      | `Acquire`                    | hands over                       |
//! |----------|--------------------------------|------------------------------|----------------------------------|
//! | `CHUNK`  | every swap of a state word     | every load of a state word   | the payload and the other words  |
//! | `PLACED` | store of `placed` in `enter`   | load in `is_placed`          | the entry                        |
//!
//! # If a process dies
//!
//! Each chunk says whose it is. Loaned of the dead becomes free. Ready of the dead is entered, unless it is placed.
//! Taken of the dead becomes ready again, with its deliveries raised, and is entered; or dead, after the last one.
//! Whoever repairs may die as well: what it made ready names it. Checked by `loom-tests/tests/pool.rs`.
//!
//! Why `placed`: a second entry does no harm, but entries fill the ring. Without it every repair would enter everything
//! again that was ever made ready by a process that has left since.

use crate::layout::chunk::{Chunk, Entry, Note, State, Words};
use crate::ring::lane::Corrupt;
use crate::ring::tokens::{Cursor, Refused, Tokens};
use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::*};
use std::ops::Range;

/// How often a ring may be full and empty a moment later while one entry is made.
const CONTRADICTIONS_MAX: u32 = 16;

/// The chunks of a queue.
#[derive(Clone)]
pub struct Pool {
    region: Region,
    at: usize,
    words: Words,
    chunks: usize,
    tokens: Tokens,
    deliveries_max: u32,
}

/// A chunk that the caller owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which one.
    pub chunk: usize,
    /// The word that says so.
    pub word: Chunk,
}

/// What became of a message that was not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Returned {
    /// It will be delivered again.
    Again,
    /// It was delivered as often as it may be.
    Dead,
    /// The chunk is not the caller's any more.
    Lost,
}

/// What a repair did to a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Repaired {
    /// Nothing had to be done, or somebody else has.
    Nothing,
    /// It was loaned, and is free.
    Freed,
    /// It was ready, and is entered.
    Entered,
    /// It was taken, and is ready again.
    Again,
    /// It was taken, and is dead.
    Dead,
}

impl Pool {
    /// Bytes of the words of `chunks` chunks.
    pub fn bytes(chunks: usize) -> usize {
        Words::of(chunks).bytes()
    }

    /// `chunks` chunks whose words begin at byte `at` of `region`, with their ring. A message is delivered at most
    /// `deliveries_max` times.
    pub fn new(
        region: Region,
        at: usize,
        chunks: usize,
        tokens: Tokens,
        deliveries_max: u32,
    ) -> Self {
        assert!(at + Self::bytes(chunks) <= region.len());
        assert!(tokens.capacity() >= chunks as u64 && deliveries_max > 0);
        Self { region, at, words: Words::of(chunks), chunks, tokens, deliveries_max }
    }

    /// How many chunks there are.
    pub fn len(&self) -> usize {
        self.chunks
    }

    /// The ring.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    #[inline]
    fn word(&self, at: usize) -> &AtomicU64 {
        self.region.word(self.at + at)
    }

    /// The state word of a chunk.
    #[inline]
    pub fn look(&self, chunk: usize) -> Chunk {
        // CHUNK: pairs with `swap`.
        Chunk(self.word(self.words.state_at(chunk)).load(Acquire))
    }

    #[inline]
    fn swap(&self, chunk: usize, from: Chunk, to: Chunk) -> bool {
        // CHUNK: pairs with `look`.
        self.word(self.words.state_at(chunk))
            .compare_exchange(from.0, to.0, AcqRel, Relaxed)
            .is_ok()
    }

    /// What was noted of the message in a chunk: for its owner an input, to be checked before use; for everybody else
    /// something to show to people.
    #[inline]
    pub fn note(&self, chunk: usize) -> Note {
        // Relaxed: handed over by CHUNK.
        Note::read(self.word(self.words.note_at(chunk)).load(Relaxed))
    }

    /// When a chunk may be delivered again.
    pub fn due(&self, chunk: usize) -> u64 {
        // Relaxed: handed over by CHUNK.
        self.word(self.words.due_at(chunk)).load(Relaxed)
    }

    /// Loans a free chunk of `range` to `node`, looking from `from` on at all of them. `None` if none is free.
    pub fn loan(&self, range: Range<usize>, from: usize, node: u32) -> Option<Held> {
        let from = from.clamp(range.start, range.end);
        self.loan_among(from..range.end, node).or_else(|| self.loan_among(range.start..from, node))
    }

    /// Loans a free chunk among `chunks` to `node`.
    #[inline]
    pub fn loan_among(&self, chunks: Range<usize>, node: u32) -> Option<Held> {
        for chunk in chunks {
            let seen = self.look(chunk);
            if seen.is(State::Free) {
                let word = seen.loaned(node);
                step!("pool.loan");
                if self.swap(chunk, seen, word) {
                    return Some(Held { chunk, word });
                }
            }
        }
        None
    }

    /// Gives a loan back. False if the chunk is not the caller's any more.
    pub fn abort(&self, held: Held) -> bool {
        step!("pool.abort");
        self.swap(held.chunk, held.word, held.word.freed())
    }

    /// Commits a loan with a `note` on its message, by a producer that keeps a `cursor`: from here on it will be
    /// delivered. False if the chunk is not
    /// the caller's any more.
    #[inline]
    pub fn commit(&self, cursor: &Cursor, held: Held, note: Note) -> bool {
        // Relaxed: handed over by CHUNK.
        self.word(self.words.note_at(held.chunk)).store(note.word(), Relaxed);
        let ready = held.word.with(State::Ready, held.word.node());
        step!("pool.commit");
        if !self.swap(held.chunk, held.word, ready) {
            return false;
        }
        self.enter_from(cursor, held.chunk, ready);
        true
    }

    fn enter(&self, chunk: usize, word: Chunk) {
        self.enter_from(&Cursor::new(0), chunk, word);
    }

    /// Makes an entry for a chunk that the caller made ready by `word`.
    ///
    /// There is room for two entries of each chunk. If it is full all the same, of entries that the dead doubled, the
    /// chunk stays without one, and an idle consumer takes it (`I4`).
    ///
    /// Full, and empty a moment later, it may be because others took everything; if it is so again and again, the hints
    /// contradict each other, and the chunk stays without an entry as well.
    #[inline]
    fn enter_from(&self, cursor: &Cursor, chunk: usize, word: Chunk) {
        let mut contradictions = 0;
        loop {
            step!("pool.enter");
            match self.tokens.enter_from(cursor, Entry::of(chunk, word).token()) {
                Ok(()) => break,
                Err(Refused::Corrupt) => return,
                Err(Refused::Full) => match self.tokens.first() {
                    Ok(Some(first)) => {
                        let entry = Entry::read(first.token);
                        if entry.chunk < self.chunks && entry.is_of(self.look(entry.chunk)) {
                            return;
                        }
                        self.tokens.remove(first);
                    }
                    Ok(None) if contradictions == CONTRADICTIONS_MAX => return,
                    Ok(None) => contradictions += 1,
                    Err(Corrupt) => return,
                },
            }
        }
        step!("pool.placed");
        // PLACED: pairs with `is_placed`.
        self.word(self.words.placed_at(chunk)).store(word.0, Release);
    }

    /// Whether an entry was made for a chunk that is ready by `word`.
    pub fn is_placed(&self, chunk: usize, word: Chunk) -> bool {
        // PLACED: pairs with `enter`.
        self.word(self.words.placed_at(chunk)).load(Acquire) == word.0
    }

    /// Takes the first message, by a consumer that keeps a `cursor`. `None` if there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a word is none that this queue can have. An entry that names no chunk is removed.
    #[inline]
    pub fn take(&self, cursor: &Cursor, node: u32) -> Result<Option<Held>, Corrupt> {
        loop {
            let Some(first) = self.tokens.first_from(cursor)? else { return Ok(None) };
            let entry = Entry::read(first.token);
            let chunk = entry.chunk;
            if chunk >= self.chunks {
                self.tokens.remove(first);
                return Err(Corrupt);
            }
            let seen = self.look(chunk);
            if !entry.is_of(seen) {
                self.tokens.remove(first);
                continue;
            }
            // This process may have been stopped since it saw the entry, while the turns of the chunk went round.
            if !self.tokens.stands(first) {
                continue;
            }
            let word = seen.with(State::Taken, node);
            step!("pool.take");
            if self.swap(chunk, seen, word) {
                self.tokens.remove(first);
                return Ok(Some(Held { chunk, word }));
            }
        }
    }

    /// Takes a message that is ready and may have no entry, while the ring is empty: whatever was entered before it has
    /// been taken. For a consumer that finds the ring empty, now and then.
    pub fn take_unplaced(&self, node: u32) -> Option<Held> {
        self.take_if(node, |chunk, seen| !self.is_placed(chunk, seen) && self.is_empty())
    }

    /// Takes a message whose entry is gone although its chunk says that one was made: only damage to the ring can bring
    /// that about. For a consumer that finds the ring empty, now and then.
    pub fn take_stray(&self, node: u32) -> Option<Held> {
        // In this order: by `I3` the entry of a message that is placed stays until its word changes, and then the swap
        // fails.
        self.take_if(node, |chunk, seen| self.is_placed(chunk, seen) && self.is_empty())
    }

    fn is_empty(&self) -> bool {
        matches!(self.tokens.first(), Ok(None))
    }

    fn take_if(&self, node: u32, may: impl Fn(usize, Chunk) -> bool) -> Option<Held> {
        (0..self.chunks).find_map(|chunk| {
            let seen = self.look(chunk);
            if !seen.is(State::Ready) || !may(chunk, seen) {
                return None;
            }
            let word = seen.with(State::Taken, node);
            step!("pool.find");
            self.swap(chunk, seen, word).then_some(Held { chunk, word })
        })
    }

    /// Whether there is a message that is ready, wherever its entry is.
    pub fn has_ready(&self) -> bool {
        (0..self.chunks).any(|chunk| self.look(chunk).is(State::Ready))
    }

    /// Takes a message that was delivered as often as it may be, of a chunk from `from` on.
    pub fn take_dead(&self, from: usize, node: u32) -> Option<Held> {
        (from..self.chunks).find_map(|chunk| {
            let seen = self.look(chunk);
            let word = seen.with(State::Taken, node);
            if !seen.is(State::Dead) {
                return None;
            }
            step!("pool.exhume");
            self.swap(chunk, seen, word).then_some(Held { chunk, word })
        })
    }

    /// Says that a message is done. False if the chunk is not the caller's any more: it will be, or was, delivered
    /// again.
    pub fn ack(&self, held: Held) -> bool {
        step!("pool.ack");
        self.swap(held.chunk, held.word, held.word.freed())
    }

    /// Gives a message back, to be delivered again.
    pub fn nack(&self, held: Held) -> Returned {
        self.give_back(held, held.word.node())
    }

    /// Gives a message back, to be delivered again when it is `due`.
    pub fn postpone(&self, held: Held, due: u64) -> Returned {
        let failed = held.word.failed();
        if failed.deliveries() >= self.deliveries_max {
            return self.nack(held);
        }
        // Relaxed: handed over by CHUNK; the caller owns the chunk.
        self.word(self.words.due_at(held.chunk)).store(due, Relaxed);
        step!("pool.postpone");
        match self.swap(held.chunk, held.word, failed.with(State::Later, failed.node())) {
            true => Returned::Again,
            false => Returned::Lost,
        }
    }

    /// Puts a dead message back that the caller has exhumed. False if the chunk is not the caller's any more.
    pub fn bury(&self, held: Held) -> bool {
        step!("pool.bury");
        self.swap(held.chunk, held.word, held.word.with(State::Dead, held.word.node()))
    }

    /// Makes a dead message ready again that the caller has exhumed, as if it had never been delivered.
    pub fn revive(&self, held: Held) -> bool {
        // In a turn of its own: the word must not be one that was placed before.
        let ready = held.word.loaned(held.word.node()).with(State::Ready, held.word.node());
        step!("pool.revive");
        let mine = self.swap(held.chunk, held.word, ready);
        if mine {
            self.enter(held.chunk, ready);
        }
        mine
    }

    fn give_back(&self, held: Held, node: u32) -> Returned {
        let failed = held.word.failed();
        let dead = failed.deliveries() >= self.deliveries_max;
        let state = if dead { State::Dead } else { State::Ready };
        let word = failed.with(state, node);
        step!("pool.return");
        if !self.swap(held.chunk, held.word, word) {
            return Returned::Lost;
        }
        if dead {
            return Returned::Dead;
        }
        self.enter(held.chunk, word);
        Returned::Again
    }

    /// Makes a message ready that is due at the time `now`. `seen` is the word of its chunk.
    pub fn resume(&self, chunk: usize, seen: Chunk, now: u64, node: u32) -> bool {
        if !seen.is(State::Later) || self.due(chunk) > now {
            return false;
        }
        let word = seen.with(State::Ready, node);
        step!("pool.resume");
        let mine = self.swap(chunk, seen, word);
        if mine {
            self.enter(chunk, word);
        }
        mine
    }

    /// Repairs a chunk whose word `seen` names a node that is dead, in the name of `node`.
    pub fn repair(&self, chunk: usize, seen: Chunk, node: u32) -> Repaired {
        match seen.state() {
            Some(State::Loaned) => {
                step!("pool.free");
                match self.swap(chunk, seen, seen.freed()) {
                    true => Repaired::Freed,
                    false => Repaired::Nothing,
                }
            }
            Some(State::Ready) if !self.is_placed(chunk, seen) => {
                let word = seen.with(State::Ready, node);
                step!("pool.adopt");
                if !self.swap(chunk, seen, word) {
                    return Repaired::Nothing;
                }
                self.enter(chunk, word);
                Repaired::Entered
            }
            // A dead letter that the dead have looked at.
            Some(State::Taken) if seen.deliveries() >= self.deliveries_max => {
                self.bury(Held { chunk, word: seen });
                Repaired::Nothing
            }
            Some(State::Taken) => match self.give_back(Held { chunk, word: seen }, node) {
                Returned::Again => Repaired::Again,
                Returned::Dead => Repaired::Dead,
                Returned::Lost => Repaired::Nothing,
            },
            _ => Repaired::Nothing,
        }
    }
}
