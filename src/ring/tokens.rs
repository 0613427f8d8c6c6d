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
//!   place is filled (emptied) only by who has seen that all places before it are.
//! * `I3` — `tail` never passes a place that is not filled, `head` none that is not emptied.
//!
//! So the ring is empty when the slot at the head is empty in its lap, and full when the slot at the tail still holds
//! the token of the lap before. Each is true at the moment when the slot was loaded: the hint is looked at again after.
//!
//! # Orderings
//!
//! | edge     | `Release`                       | `Acquire`                     | hands over                          |
//! |----------|---------------------------------|-------------------------------|-------------------------------------|
//! | `ENTER`  | swap of a slot in `enter`       | slot load in `first`          | what the producer did for the token |
//! | `LEAVE`  | swap of a slot in `remove`      | slot load in `enter`          | what the consumer did before        |
//! | `PASSED` | swap of a hint in `pass`        | hint load in `head` and `tail`| the slots before the hint           |
//!
//! # If a process dies
//!
//! Before the swap of a slot: nothing happened. After it: whoever comes next advances the hint. Checked by
//! `loom-tests/tests/tokens.rs`.
//!
//! # Laps
//!
//! A lap has 63 bits less those of a token, at least 16. A process that is stopped between its look at a slot and its
//! swap, for exactly a multiple of 2^16 (or more) laps, puts its token at a later place than the tail, or takes one
//! before its turn. Nothing is lost or doubled by that; only the order is not kept, and the token waits until the ring
//! has got there.
//!
//! One swap of a slot that carries its lap, with hints that are helped along, follows Michael and Scott (PODC 1996).

use crate::layout::token::{Form, HEAD_AT, SLOTS_AT, TAIL_AT};
use crate::ring::lane::Corrupt;
use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::*};

/// Highest place: decades of tokens at any speed. A hint beyond it was written by nobody who uses the ring.
pub const PLACE_MAX: u64 = u64::MAX >> 2;

/// A ring of tokens.
#[derive(Clone)]
pub struct Tokens {
    region: Region,
    at: usize,
    capacity: u64,
    lap_shift: u32,
    form: Form,
}

/// The token at the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct First {
    /// The token.
    pub token: u64,
    place: u64,
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
        Self { region, at, capacity, lap_shift: capacity.trailing_zeros(), form }
    }

    /// How many tokens it holds.
    pub fn capacity(&self) -> u64 {
        self.capacity
    }

    #[inline]
    fn slot(&self, place: u64) -> &AtomicU64 {
        self.region.word(self.at + SLOTS_AT + (place & (self.capacity - 1)) as usize * 8)
    }

    #[inline]
    fn lap(&self, place: u64) -> u64 {
        place >> self.lap_shift
    }

    #[inline]
    fn head(&self) -> u64 {
        // PASSED: pairs with `pass`.
        self.region.word(self.at + HEAD_AT).load(Acquire)
    }

    #[inline]
    fn tail(&self) -> u64 {
        // PASSED: pairs with `pass`.
        self.region.word(self.at + TAIL_AT).load(Acquire)
    }

    /// Advances the hint at `hint_at` past `place`. Failing means that somebody else did.
    #[inline]
    fn pass(&self, hint_at: usize, place: u64) {
        step!("tokens.pass");
        let hint = self.region.word(self.at + hint_at);
        // PASSED: pairs with `head` and `tail`.
        let _ = hint.compare_exchange(place, place + 1, AcqRel, Relaxed);
    }

    /// Enters a token at the tail.
    ///
    /// # Errors
    ///
    /// `Full`, which was true at some moment during the call; `Corrupt`.
    #[inline]
    pub fn enter(&self, token: u64) -> Result<(), Refused> {
        debug_assert!(token <= self.form.token_max());
        loop {
            let tail = self.tail();
            let (slot, lap) = (self.slot(tail), self.lap(tail));
            // LEAVE: pairs with the swap in `remove`.
            let word = slot.load(Acquire);
            // The word is of this lap or one beside it only if the tail has not moved.
            if self.tail() != tail {
                continue;
            }
            let seen = self.form.read(word, lap);
            match (seen.ahead, seen.token) {
                _ if tail > PLACE_MAX => return Err(Refused::Corrupt),
                (0, None) => {
                    step!("tokens.enter");
                    let mine = self.form.full(lap, token);
                    // ENTER: pairs with the load in `first`.
                    if slot.compare_exchange(word, mine, AcqRel, Relaxed).is_ok() {
                        self.pass(TAIL_AT, tail);
                        return Ok(());
                    }
                }
                // Filled, and perhaps emptied, by somebody who has not advanced the tail.
                (0, Some(_)) | (1, None) => self.pass(TAIL_AT, tail),
                (-1, Some(_)) => return Err(Refused::Full),
                _ => return Err(Refused::Corrupt),
            }
        }
    }

    /// The token whose turn it is, which stays where it is. `None` if the ring is empty, which was true at some moment
    /// during the call.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a word is none that this ring can have.
    #[inline]
    pub fn first(&self) -> Result<Option<First>, Corrupt> {
        loop {
            let head = self.head();
            let lap = self.lap(head);
            // ENTER: pairs with the swap in `enter`.
            let word = self.slot(head).load(Acquire);
            if self.head() != head {
                continue;
            }
            let seen = self.form.read(word, lap);
            match (seen.ahead, seen.token) {
                _ if head > PLACE_MAX => return Err(Corrupt),
                (0, Some(token)) => return Ok(Some(First { token, place: head, word })),
                (0, None) => return Ok(None),
                // Emptied, and perhaps filled again, and nobody has advanced the head.
                (1, _) => self.pass(HEAD_AT, head),
                _ => return Err(Corrupt),
            }
        }
    }

    /// Takes the token out that `first` found. False if somebody else has.
    #[inline]
    pub fn remove(&self, first: First) -> bool {
        step!("tokens.remove");
        let next = self.form.empty(self.lap(first.place) + 1);
        let slot = self.slot(first.place);
        // LEAVE: pairs with the load in `enter`.
        let mine = slot.compare_exchange(first.word, next, AcqRel, Relaxed).is_ok();
        self.pass(HEAD_AT, first.place);
        mine
    }

    /// Takes the token whose turn it is. `None` if the ring is empty, which was true at some moment during the call.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a word is none that this ring can have.
    #[inline]
    pub fn take(&self) -> Result<Option<u64>, Corrupt> {
        loop {
            match self.first()? {
                Some(first) if self.remove(first) => return Ok(Some(first.token)),
                Some(_) => {}
                None => return Ok(None),
            }
        }
    }

    /// How many tokens there are, as far as the hints tell: exact if nobody is at work.
    pub fn depth(&self) -> u64 {
        // The head first: it never passes the true tail, so the difference is at most a little too large.
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
        if self.tail() > head && is_empty() && self.head() == head {
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
