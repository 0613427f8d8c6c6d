//! A bounded ring of tokens for any number of producers and consumers.
//!
//! Entering a token and taking one are **one compare-and-swap of the slot itself**. Head and tail are hints that anyone
//! may advance, so there is no state in which a place is claimed and empty, or taken and still in the way: a process
//! may be stopped or killed at any instruction and holds up nobody.
//!
//! ```text
//!          head                      tail
//!   ─────────┼─────────────────────────┼──────────────────
//!    emptied │ filled, in their order  │ to be filled
//! ```
//!
//! # Invariants
//!
//! * `I1` — A slot goes empty(lap) → full(lap, token) → empty(lap + 1), each arrow by a swap from exactly the word
//!   that was seen.
//! * `I2` — The places that were ever filled are those below one bound, and so are those that were ever emptied: a
//!   place is filled (emptied) only by who knows that all places before it are.
//! * `I3` — The hint `tail` never passes a place that is not filled, `head` none that is not emptied.
//! * `I4` — Before a place is filled (emptied), the hint has got to the block of places that it is in: whoever walks
//!   into a block raises the hint first. A block is a line of slots, or the whole ring if that is smaller.
//!
//! So a walk begins at the hint, or where the walker was if that is further on, and finds the true end after less than
//! a block. Slots of one line cost next to nothing to look at, and hints change once in a block. The ring is empty when
//! the slot at the true head is empty in its lap, and full when the slot at the true tail holds the token of the lap
//! before; each is true at the moment when that slot is loaded. A word that is further ahead says that the walk began
//! long ago: by `I4` the hint is beyond by now.
//!
//! # Orderings
//!
//! | edge     | `Release`                       | `Acquire`                     | hands over                          |
//! |----------|---------------------------------|-------------------------------|-------------------------------------|
//! | `ENTER`  | swap of a slot in `enter`       | slot load in `first`          | what the producer did for the token |
//! | `LEAVE`  | swap of a slot in `remove`      | slot load in `enter`, `stands`| what the consumer did before        |
//! | `PASSED` | swap of a hint in `pass`        | hint load in `hint`           | the slots before the hint           |
//!
//! # If a process dies
//!
//! Before the swap of a slot: nothing happened. After it: whoever comes next walks on and raises the hint. Checked by
//! `loom-tests/tests/tokens.rs`.
//!
//! # Laps
//!
//! A lap has 63 bits less those of a token, at least 16. A process that is stopped between its look at a hint or a slot
//! and its swap, for exactly a multiple of 2^16 (or more) laps, puts its token at a later place than the tail, or takes
//! one before its turn. Nothing is lost or doubled by that; only the order is not kept, and the token waits until the
//! ring has got there.
//!
//! One swap of a slot that carries its lap, with hints that are helped along, follows Michael and Scott (PODC 1996).

use crate::layout::token::{Form, HEAD_AT, SLOTS_AT, TAIL_AT};
use crate::ring::lane::Corrupt;
use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::*};
use std::cell::Cell;

/// Highest place: decades of tokens at any speed. A hint beyond it was written by nobody who uses the ring.
pub const PLACE_MAX: u64 = u64::MAX >> 2;

/// How far ahead a consumer looks for producers that are near.
const NEAR_PLACES: u64 = 32;

/// Places in a block, if the ring has as many: a line of slots.
const BLOCK_PLACES: u64 = 8;

/// How far one handle has walked: a place before which all are filled, or all are emptied. A matter of one thread.
pub type Cursor = Cell<u64>;

/// A ring of tokens.
#[derive(Clone)]
pub struct Tokens {
    region: Region,
    at: usize,
    capacity: u64,
    lap_shift: u32,
    block_mask: u64,
    form: Form,
}

/// The token at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// The token.
    pub token: u64,
    /// Where it stands.
    pub place: u64,
    word: u64,
}

/// Why a token was not entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refused {
    /// Every slot holds a token.
    Full,
    /// A word is none that this ring can have.
    Corrupt,
}

impl Tokens {
    /// The ring of `capacity` (a power of two) slots at byte `at` of `region`.
    pub fn new(region: Region, at: usize, capacity: u64, form: Form) -> Self {
        assert!(capacity.is_power_of_two());
        let end = crate::layout::token::bytes(capacity).checked_add(at as u64);
        assert!(end.is_some_and(|end| end <= region.len() as u64));
        let (lap_shift, block_mask) = (capacity.trailing_zeros(), capacity.min(BLOCK_PLACES) - 1);
        Self { region, at, capacity, lap_shift, block_mask, form }
    }

    /// How many tokens it holds.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline]
    fn slot_at(&self, place: u64) -> usize {
        self.at + SLOTS_AT + (place & (self.capacity - 1)) as usize * 8
    }

    #[inline]
    fn slot(&self, place: u64) -> &AtomicU64 {
        self.region.word(self.slot_at(place))
    }

    #[inline]
    fn lap(&self, place: u64) -> u64 {
        place >> self.lap_shift
    }

    /// The hint at `hint_at`.
    #[inline]
    fn hint(&self, hint_at: usize) -> u64 {
        // PASSED: pairs with `pass`.
        self.region.word(self.at + hint_at).load(Acquire)
    }

    /// Goes on behind `place`, and raises the hint at `hint_at` if a block begins there: `I4`.
    #[inline]
    fn pass(&self, hint_at: usize, place: u64) -> u64 {
        let next = place + 1;
        if next & self.block_mask == 0 {
            step!("tokens.pass");
            // PASSED: pairs with `hint`.
            self.region.word(self.at + hint_at).fetch_max(next, AcqRel);
        }
        next
    }

    /// Enters a token at the tail.
    ///
    /// # Errors
    ///
    /// `Full`, which was true at some moment during the call; `Corrupt`.
    pub fn enter(&self, token: u64) -> Result<(), Refused> {
        self.enter_from(&Cursor::new(0), token)
    }

    /// The same by a handle that keeps a `cursor` for it.
    ///
    /// # Errors
    ///
    /// As for [`enter`](Self::enter).
    #[inline]
    pub fn enter_from(&self, cursor: &Cursor, token: u64) -> Result<(), Refused> {
        debug_assert!(token <= self.form.token_max());
        let mut tail = self.hint(TAIL_AT).max(cursor.get());
        loop {
            if tail > PLACE_MAX {
                return Err(Refused::Corrupt);
            }
            let (slot, lap) = (self.slot(tail), self.lap(tail));
            // LEAVE: pairs with the swap in `remove`.
            let word = slot.load(Acquire);
            if word == self.form.empty(lap) {
                step!("tokens.enter");
                let mine = self.form.full(lap, token);
                // ENTER: pairs with the load in `first`.
                if slot.compare_exchange(word, mine, AcqRel, Relaxed).is_ok() {
                    cursor.set(self.pass(TAIL_AT, tail));
                    return Ok(());
                }
                continue;
            }
            let seen = self.form.read(word, lap);
            match (seen.ahead, seen.token) {
                // Filled by somebody else, and perhaps emptied.
                (0, Some(_)) | (1, None) => tail = self.pass(TAIL_AT, tail),
                (-1, Some(_)) => {
                    cursor.set(tail);
                    return Err(Refused::Full);
                }
                _ => match self.hint(TAIL_AT) {
                    hint if hint > tail => tail = hint,
                    _ => return Err(Refused::Corrupt),
                },
            }
        }
    }

    /// Begins to fetch the slot that the next token goes to, as far as a cursor of the tail tells. A hint.
    #[inline]
    pub fn fetch_next(&self, cursor: &Cursor) {
        self.region.fetch_to_write(self.slot_at(cursor.get()));
    }

    /// The token whose turn it is, which stays where it is. `None` if the ring is empty, which was true at some moment
    /// during the call.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a word is none that this ring can have.
    pub fn first(&self) -> Result<Option<First>, Corrupt> {
        self.first_from(&Cursor::new(0))
    }

    /// The same by a handle that keeps a `cursor` for it.
    ///
    /// # Errors
    ///
    /// As for [`first`](Self::first).
    #[inline]
    pub fn first_from(&self, cursor: &Cursor) -> Result<Option<First>, Corrupt> {
        let mut head = self.hint(HEAD_AT).max(cursor.get());
        loop {
            if head > PLACE_MAX {
                return Err(Corrupt);
            }
            // ENTER: pairs with the swap in `enter`.
            let word = self.slot(head).load(Acquire);
            let lap = self.lap(head);
            if let Some(token) = self.form.filled_in(word, lap) {
                cursor.set(head);
                return Ok(Some(First { token, place: head, word }));
            }
            let seen = self.form.read(word, lap);
            match (seen.ahead, seen.token) {
                (0, None) => {
                    cursor.set(head);
                    return Ok(None);
                }
                // Emptied by somebody else, and perhaps filled again.
                (1, _) => head = self.pass(HEAD_AT, head),
                _ => match self.hint(HEAD_AT) {
                    hint if hint > head => head = hint,
                    _ => return Err(Corrupt),
                },
            }
        }
    }

    /// Whether the place of a cursor of the head is empty as it was: the shortest look for whoever polls. If not,
    /// somebody was there, and [`first_from`](Self::first_from) tells.
    #[inline]
    pub fn is_still_empty(&self, cursor: &Cursor) -> bool {
        let place = cursor.get();
        // Relaxed: a guess.
        self.slot(place).load(Relaxed) == self.form.empty(self.lap(place))
    }

    /// Whether the cursor, which is one of the head, comes to a block that is not filled yet.
    #[inline]
    pub fn is_near(&self, cursor: &Cursor) -> bool {
        let place = cursor.get() + 1;
        if place & self.block_mask != 0 {
            return false;
        }
        // Relaxed: a guess.
        let last = place + NEAR_PLACES.min(self.capacity / 4);
        self.form.filled_in(self.slot(last).load(Relaxed), self.lap(last)).is_none()
    }

    /// Whether the token that `first` found still stands there. What the caller loaded in between it loaded while the
    /// token's turn had come.
    #[inline]
    pub fn stands(&self, first: First) -> bool {
        // LEAVE: pairs with the swap in `remove`.
        self.slot(first.place).load(Acquire) == first.word
    }

    /// Takes the token out that `first` found. False if somebody else has.
    #[inline]
    pub fn remove(&self, first: First) -> bool {
        self.remove_at(first.place, first.token)
    }

    /// The same by the place where it was found.
    #[inline]
    pub fn remove_at(&self, place: u64, token: u64) -> bool {
        step!("tokens.remove");
        let lap = self.lap(place);
        let (word, next) = (self.form.full(lap, token), self.form.empty(lap + 1));
        // LEAVE: pairs with the load in `enter`.
        let mine = self.slot(place).compare_exchange(word, next, AcqRel, Relaxed).is_ok();
        self.pass(HEAD_AT, place);
        mine
    }

    /// Takes the token whose turn it is. `None` if the ring is empty, which was true at some moment during the call.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a word is none that this ring can have.
    #[inline]
    pub fn take(&self) -> Result<Option<u64>, Corrupt> {
        let cursor = Cursor::new(0);
        loop {
            match self.first_from(&cursor)? {
                Some(first) if self.remove(first) => return Ok(Some(first.token)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// Where the places end that `counts` is true of, from the hint on: less than a block ahead if nobody is at work.
    fn end(&self, hint_at: usize, counts: impl Fn(i64, bool) -> bool) -> u64 {
        let hint = self.hint(hint_at).min(PLACE_MAX);
        let is_before_end = |place: &u64| {
            // ENTER: pairs with the swap in `enter`; LEAVE with that in `remove`.
            let word = self.slot(*place).load(Acquire);
            let seen = self.form.read(word, self.lap(*place));
            counts(seen.ahead, seen.token.is_some())
        };
        (hint..hint + self.capacity).find(|place| !is_before_end(place)).unwrap_or(hint)
    }

    fn head(&self) -> u64 {
        self.end(HEAD_AT, |ahead, _| ahead == 1)
    }

    fn tail(&self) -> u64 {
        self.end(TAIL_AT, |ahead, full| (ahead == 0 && full) || (ahead == 1 && !full))
    }

    /// How many tokens there are: exact if nobody is at work.
    pub fn depth(&self) -> u64 {
        // The head first: the tail is then at most a little too far.
        let (head, tail) = (self.head(), self.tail());
        tail.saturating_sub(head).min(self.capacity)
    }

    /// Fails if whoever finds the ring empty would wait in vain, because the tail has passed the empty place.
    ///
    /// # Errors
    ///
    /// `Corrupt` in that case.
    pub fn check_wait(&self) -> Result<(), Corrupt> {
        let head = self.head();
        let is_empty = || {
            // ENTER: pairs with the swap in `enter`.
            let word = self.slot(head).load(Acquire);
            let seen = self.form.read(word, self.lap(head));
            seen.ahead == 0 && seen.token.is_none()
        };
        // The tail before the slot: by `I3` a place that it passed was filled before.
        if self.hint(TAIL_AT) > head && is_empty() && self.head() == head {
            return Err(Corrupt);
        }
        Ok(())
    }

    /// The mark at the end of the file of the ring.
    #[cfg(not(windlass_loom))]
    pub fn last(&self) -> u64 {
        self.region.last()
    }
}
