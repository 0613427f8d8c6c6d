//! A ring of tokens small enough to explore, and copies of its steps with something left out.

use loom::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{self, *};
use windlass::layout::token::{bytes, Form, HEAD_AT, SLOTS_AT, TAIL_AT};
use windlass::ring::tokens::{Cursor, Refused, Tokens};
use windlass::shm::place::Region;

/// Words with two bits for the lap, the fewest that tell the laps apart that can meet.
pub const FEW_LAPS: u32 = 61;

/// A ring, its bare words for broken copies, and one word of payload behind it.
#[derive(Clone)]
pub struct Ring {
    /// The ring.
    pub tokens: Tokens,
    /// Its words.
    pub words: Region,
    /// How its words are divided.
    pub form: Form,
    /// How far this clone, which is one handle, has walked when it entered tokens.
    pub tail: Cursor,
    /// The same when it took them.
    pub head: Cursor,
    capacity: u64,
}

impl Ring {
    /// An empty ring whose head and tail stand at `place`, as after that many tokens.
    pub fn new(capacity: u64, token_bits: u32, place: u64) -> Self {
        let form = Form::new(token_bits);
        let len = bytes(capacity) as usize;
        let words = Region::zeroed(len + 8, len);
        for at in place..place + capacity {
            let slot = words.word(SLOTS_AT + (at % capacity) as usize * 8);
            slot.store(form.empty(at / capacity), Relaxed);
        }
        words.word(HEAD_AT).store(place, Relaxed);
        words.word(TAIL_AT).store(place, Relaxed);
        let tokens = Tokens::new(words.clone(), 0, capacity, form);
        let (tail, head) = (Cursor::new(0), Cursor::new(0));
        Self { tokens, words, form, tail, head, capacity }
    }

    /// Byte offset of the payload.
    pub fn payload_at(&self) -> usize {
        self.words.len() - 8
    }

    /// Between two attempts: an access that conflicts with those of others, without any order for them.
    ///
    /// A swap of a slot comes after a load of it by the same thread, which hides from the model checker that the load
    /// of another thread before could see the swap. See "What a model cannot show".
    pub fn meet(&self) {
        self.words.word(self.payload_at()).fetch_add(1, Relaxed);
    }

    /// Enters a token, as a handle that keeps its cursor.
    pub fn enter(&self, token: u64) -> Result<(), Refused> {
        self.tokens.enter_from(&self.tail, token)
    }

    /// Takes a token, as a handle that keeps its cursor.
    pub fn take(&self) -> Option<u64> {
        loop {
            let first = self.tokens.first_from(&self.head).expect("it is sound")?;
            if self.tokens.remove(first) {
                return Some(first.token);
            }
        }
    }

    /// Everything that is in it, taken out.
    pub fn drain(&self) -> Vec<u64> {
        std::iter::from_fn(|| self.tokens.take().expect("it is sound")).collect()
    }

    fn slot(&self, place: u64) -> &AtomicU64 {
        self.words.word(SLOTS_AT + (place % self.capacity) as usize * 8)
    }
}

/// Places in a block of a ring of that capacity.
fn block(capacity: u64) -> u64 {
    capacity.min(8)
}

/// What [`enter`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enter {
    /// It moves the tail before it fills the slot.
    ClaimsFirst,
    /// It never raises the tail.
    NeverPasses,
    /// It raises the tail past a slot without looking whether it is filled.
    PassesBlindly,
    /// Its swap is not a release.
    NotRelease,
    /// Neither its look at the slot nor its swap is an acquire.
    NotAcquire,
}

/// `Tokens::enter`.
pub fn enter(ring: &Ring, token: u64, flaw: Option<Enter>) -> Result<(), Refused> {
    let hint = ring.words.word(TAIL_AT);
    let pass = |tail: u64| {
        if (tail + 1) % block(ring.capacity) == 0 && flaw != Some(Enter::NeverPasses) {
            windlass::step::reached("tokens.pass");
            hint.fetch_max(tail + 1, AcqRel);
        }
        tail + 1
    };
    let (look, swap) = orders(flaw == Some(Enter::NotAcquire), flaw == Some(Enter::NotRelease));
    let mut tail = hint.load(Acquire);
    loop {
        let (slot, lap) = (ring.slot(tail), tail / ring.capacity);
        let word = slot.load(look);
        let seen = ring.form.read(word, lap);
        match (seen.ahead, seen.token) {
            (0, None) if flaw == Some(Enter::ClaimsFirst) => {
                if hint.compare_exchange(tail, tail + 1, AcqRel, Relaxed).is_ok() {
                    windlass::step::reached("tokens.enter");
                    slot.store(ring.form.full(lap, token), Release);
                    return Ok(());
                }
                tail = hint.load(Acquire);
            }
            (0, None) => {
                if flaw == Some(Enter::PassesBlindly) {
                    hint.fetch_max(tail + 1, AcqRel);
                }
                let full = ring.form.full(lap, token);
                windlass::step::reached("tokens.enter");
                let swapped = slot.compare_exchange(word, full, swap, Relaxed);
                if swapped.is_ok() {
                    pass(tail);
                    return Ok(());
                }
            }
            (0, Some(_)) | (1, None) => tail = pass(tail),
            (-1, Some(_)) => return Err(Refused::Full),
            _ => match hint.load(Acquire) {
                hint if hint > tail => tail = hint,
                _ => return Err(Refused::Corrupt),
            },
        }
    }
}

/// What [`take`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It moves the head before it empties the slot.
    ClaimsFirst,
    /// It leaves an empty slot of the same lap.
    LeavesLap,
    /// It never raises the head.
    NeverPasses,
    /// It empties the slot with a store.
    Stores,
    /// Its swap is not a release.
    NotRelease,
    /// Neither its look at the slot nor its swap is an acquire.
    NotAcquire,
}

/// How a slot is looked at, and how it is swapped.
fn orders(not_acquire: bool, not_release: bool) -> (Ordering, Ordering) {
    match (not_acquire, not_release) {
        (true, _) => (Relaxed, Release),
        (_, true) => (Acquire, Acquire),
        _ => (Acquire, AcqRel),
    }
}

/// `Tokens::take`.
pub fn take(ring: &Ring, flaw: Option<Take>) -> Option<u64> {
    let hint = ring.words.word(HEAD_AT);
    let pass = |head: u64| {
        if (head + 1) % block(ring.capacity) == 0 && flaw != Some(Take::NeverPasses) {
            windlass::step::reached("tokens.pass");
            hint.fetch_max(head + 1, AcqRel);
        }
        head + 1
    };
    let (look, swap) = orders(flaw == Some(Take::NotAcquire), flaw == Some(Take::NotRelease));
    let mut head = hint.load(Acquire);
    loop {
        let (slot, lap) = (ring.slot(head), head / ring.capacity);
        let word = slot.load(look);
        let seen = ring.form.read(word, lap);
        let next = ring.form.empty(if flaw == Some(Take::LeavesLap) { lap } else { lap + 1 });
        match (seen.ahead, seen.token) {
            (0, Some(token)) if flaw == Some(Take::ClaimsFirst) => {
                if hint.compare_exchange(head, head + 1, AcqRel, Relaxed).is_ok() {
                    windlass::step::reached("tokens.remove");
                    slot.store(next, Release);
                    return Some(token);
                }
                head = hint.load(Acquire);
            }
            (0, Some(token)) if flaw == Some(Take::Stores) => {
                slot.store(next, Release);
                pass(head);
                return Some(token);
            }
            (0, Some(token)) => {
                windlass::step::reached("tokens.remove");
                let swapped = slot.compare_exchange(word, next, swap, Relaxed);
                if swapped.is_ok() {
                    pass(head);
                    return Some(token);
                }
            }
            (0, None) => return None,
            (1, _) => head = pass(head),
            _ => match hint.load(Acquire) {
                hint if hint > head => head = hint,
                _ => panic!("the ring is damaged"),
            },
        }
    }
}
