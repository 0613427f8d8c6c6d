//! The calls of a service: a request goes to whichever server takes it first, and its answer comes back in parts of the
//! call, which the caller alone looks at.
//!
//! ```text
//!           ask                take                   end: the answer was read
//!   Free ─────────▶ Ready(c) ────────▶ Taken(s) ──────────────────────────────────▶ Free
//!     ▲    give up    │  ▲                │ s gave it back or died, before any response
//!     ├───────────────┘  └────────────────┤
//!     │                                   │ the same after a response, or the last delivery
//!     └────────────────── Dead ◀──────────┘
//! ```
//!
//! Every client has a *lane* of calls, which are its own for as long as its slot is. The state word of a call is the
//! single truth; entries of the ring are hints, as in a work queue. The caller makes the call ready and enters it; a
//! server takes it by a swap, and only then removes the entry, when it has time to. It answers by one store: the header
//! word of a part, which a small payload shares a line with. The caller polls that word. It is the caller who frees the
//! call, so an answer costs the server the lines of the answer alone.
//!
//! Response `i` goes to part `i` modulo their number, once the caller has read what was there.
//!
//! # Invariants
//!
//! * `I1` — Every arrow is one compare-and-swap from exactly the word that was seen, and names who did it; but for the
//!   two arrows that nobody else goes, `ask` and `end`, which are stores.
//! * `I2` — Only the owner of a lane leads its calls out of Free, and only while a call is Free does it write the
//!   request. So nothing has to be taken back from a caller that dies while it builds one. Only it leads a call away
//!   that was answered to the end: whoever looks after the dead leaves that alone while the lane has a living owner.
//! * `I3` — The server that the word names writes the parts of a call, until it has committed the last one. Nobody else
//!   does, but for the owner of the lane, while the call is free.
//! * `I4` — A header counts if it carries the turn of the call. When a call becomes ready no header carries its turn:
//!   the caller clears them unless the call before it ended with one response.
//! * `I5` — A ready call may have no entry. Its caller sees to it that each word has one; an idle server takes a ready
//!   call without one. Entries of calls that are not ready are stale, and whoever meets one removes it.
//! * `I6` — An answer is one server's: a call of which a response was committed is never ready again.
//!
//! # Orderings
//!
//! | edge     | `Release`                         | `Acquire`                      | hands over                         |
//! |----------|-----------------------------------|--------------------------------|------------------------------------|
//! | `CALL`   | every swap of a state word        | every load of a state word     | the request; the call              |
//! | `ANSWER` | store of a header in `answer`     | load in `response` and `part`  | the payload of the part            |
//! | `ROOM`   | store in `consume`                | load in `has_room`             | the part, back to the server       |
//!
//! # If a process dies
//!
//! Server: whoever notices makes the call ready again, with its deliveries raised, and enters it; dead, if a response
//! is out already or it was the last delivery; and does nothing if the answer is complete. Client: its calls are freed,
//! ready ones at once and taken ones when their server is done, by the next owner of the lane or whoever repairs.
//! Whoever repairs may die as well: what it made ready, and did not enter, the caller enters. Checked by
//! `loom-tests/tests/calls.rs` and `calls_death.rs`.

mod serve;

use crate::layout::call::{
    self, End, Part, CANCELLED_AT, CONSUMED_AT, INLINE_BYTES_MAX, LENGTH_AT, PAYLOAD_AT, STATE_AT,
    STRIDE,
};
use crate::layout::chunk::{Chunk, State};
use crate::ring::lane::Corrupt;
use crate::ring::tokens::{Cursor, First, Refused, Tokens};
use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::*};

/// How often somebody tries to enter a call, one after the other.
const ATTEMPTS_MAX: u32 = 16;

/// From a line to the one behind it, in bytes.
const SECOND_LINE: usize = 64;

/// Where the requests and the parts of the answers lie.
#[derive(Clone)]
pub struct Parts {
    /// What they lie in.
    pub region: Region,
    /// Where the first request begins.
    pub at: usize,
    /// Bytes of a request.
    pub request_bytes: usize,
    /// Bytes of a part, header included.
    pub part_bytes: usize,
    /// Parts of a call.
    pub count: usize,
}

impl Parts {
    /// Bytes from one call to the next.
    pub fn stride(&self) -> usize {
        self.request_bytes + self.count * self.part_bytes
    }

    /// Where the request of a call begins.
    #[inline]
    pub fn request_at(&self, call: usize) -> usize {
        self.at + call * self.stride()
    }

    /// Where the part for response `index` begins, with its header.
    #[inline]
    pub fn part_at(&self, call: usize, index: u64) -> usize {
        // As a rule there is one response, and no need to divide.
        let part = if index == 0 { 0 } else { (index % self.count as u64) as usize };
        self.request_at(call) + self.request_bytes + part * self.part_bytes
    }
}

/// The calls of a service.
#[derive(Clone)]
pub struct Calls {
    words: Region,
    at: usize,
    count: usize,
    tokens: Tokens,
    parts: Parts,
    deliveries_max: u32,
}

/// A call that its caller has made: bits 63..32 which one, 31..16 the turn of its word, and 15..0 how often it had been
/// delivered in vain when its caller entered it, and one more; 0 if it never did. That tells the words apart by which a
/// call is ready: each delivery ends one.
///
/// One word, here and in [`Held`]: what is written in pieces and passed on as a whole costs a stop of the processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked(u64);

impl Asked {
    #[inline]
    fn new(call: usize, turn: u32, is_entered: bool) -> Self {
        // There are fewer than 2^24 calls.
        Self((call as u64) << 32 | u64::from(turn) << 16 | u64::from(is_entered))
    }

    /// Which one.
    #[inline]
    pub fn call(self) -> usize {
        (self.0 >> 32) as usize
    }

    /// The turn of its word.
    #[inline]
    pub fn turn(self) -> u32 {
        (self.0 >> 16 & 0xffff) as u32
    }

    fn is_entered_as(self, delivery: u32) -> bool {
        self.0 & 0xffff == u64::from(delivery)
    }

    fn entered_as(self, delivery: u32) -> Self {
        Self(self.0 & !0xffff | u64::from(delivery))
    }
}

/// A call that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The word that says so.
    pub word: Chunk,
    call: u64,
    /// Where its entry stands that is to be removed when there is time; [`NO_ENTRY`] if there is none.
    entry: u64,
}

/// No place of a ring.
const NO_ENTRY: u64 = u64::MAX;

impl Held {
    #[inline]
    fn new(call: usize, word: Chunk, entry: Option<First>) -> Self {
        Self { word, call: call as u64, entry: entry.map_or(NO_ENTRY, |first| first.place) }
    }

    /// Which one.
    #[inline]
    pub fn call(&self) -> usize {
        self.call as usize
    }
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// It is free.
    Free,
    /// A server has it.
    Taken,
    /// It is ready again, after a delivery in vain.
    Again,
    /// It will not be delivered again.
    Dead,
    /// Nothing had to be done, or somebody else has.
    Nothing,
}

impl Calls {
    /// Bytes of the words of `count` calls.
    pub fn bytes(count: usize) -> usize {
        count * STRIDE
    }

    /// `count` calls whose words begin at byte `at` of `words`, with their ring. A request is delivered at most
    /// `deliveries_max` times.
    pub fn new(
        words: Region,
        at: usize,
        count: usize,
        tokens: Tokens,
        parts: Parts,
        deliveries_max: u32,
    ) -> Self {
        assert!(at + Self::bytes(count) <= words.len());
        assert!(parts.request_at(count) <= parts.region.len() && parts.count > 0);
        assert!(tokens.capacity() >= count as u64 && deliveries_max > 0);
        Self { words, at, count, tokens, parts, deliveries_max }
    }

    /// The ring.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Where requests and answers lie.
    pub fn parts(&self) -> &Parts {
        &self.parts
    }

    #[inline]
    fn word(&self, call: usize, at: usize) -> &AtomicU64 {
        self.words.word(self.at + call * STRIDE + at)
    }

    #[inline]
    fn header(&self, call: usize, index: u64) -> &AtomicU64 {
        self.parts.region.word(self.parts.part_at(call, index))
    }

    /// The state word of a call.
    #[inline]
    pub fn look(&self, call: usize) -> Chunk {
        // CALL: pairs with `swap`.
        Chunk(self.word(call, STATE_AT).load(Acquire))
    }

    #[inline]
    fn swap(&self, call: usize, from: Chunk, to: Chunk) -> bool {
        // CALL: pairs with `look`.
        self.word(call, STATE_AT).compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Caller: begins to fetch what the next call needs to write. A hint.
    #[inline]
    pub fn fetch_to_ask(&self, cursor: &Cursor) {
        self.tokens.fetch_next(cursor);
    }

    /// Caller: begins to fetch response `index` of `bytes` bytes, and what comes after the last one: the end of the
    /// call, and in its place the next request, of about as many bytes as `next` says. A hint.
    #[inline]
    pub fn fetch_response(&self, asked: Asked, index: u64, bytes: usize, next: Option<usize>) {
        if bytes > INLINE_BYTES_MAX {
            let at = self.parts.part_at(asked.call(), index) + PAYLOAD_AT;
            self.parts.region.fetch_to_read(at);
            self.parts.region.fetch_to_read(at + (bytes - 1).min(SECOND_LINE));
        }
        if let Some(next) = next {
            let request = self.parts.request_at(asked.call());
            self.words.fetch_to_write(self.at + asked.call() * STRIDE);
            self.parts.region.fetch_to_write(request);
            if next > SECOND_LINE {
                self.parts.region.fetch_to_write(request + SECOND_LINE);
            }
        }
    }

    /// Owner of the lane: makes sure that no header of a free call carries a turn that it may have again.
    pub fn clear(&self, call: usize) {
        for part in 0..self.parts.count as u64 {
            step!("call.clear");
            // Relaxed: handed over by CALL when the call becomes ready.
            self.header(call, part).store(0, Relaxed);
        }
        for field in [CANCELLED_AT, CONSUMED_AT] {
            self.word(call, field).store(0, Relaxed);
        }
    }

    /// Owner of the lane, who keeps a `cursor` of the tail: makes the request of `length` bytes that was built in a
    /// free call, and enters it.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the call is not free.
    #[inline]
    pub fn ask(
        &self,
        cursor: &Cursor,
        call: usize,
        node: u32,
        length: u64,
    ) -> Result<Asked, Corrupt> {
        let seen = self.look(call);
        if !seen.is(State::Free) {
            return Err(Corrupt);
        }
        // Relaxed: handed over by CALL.
        self.word(call, LENGTH_AT).store(length, Relaxed);
        let ready = seen.loaned(node).with(State::Ready, node);
        step!("call.ask");
        // CALL: pairs with `look`. A store: by `I2` nobody else moves the call.
        self.word(call, STATE_AT).store(ready.0, Release);
        Ok(Asked::new(call, ready.turn(), self.enter(cursor, call)))
    }

    /// Makes an entry for a ready call. False if there is no room: then an idle server takes it, or its caller enters
    /// it later (`I5`).
    #[inline]
    fn enter(&self, cursor: &Cursor, call: usize) -> bool {
        // Others may take the room again that this makes; and a ring that is damaged may be full and have no first.
        for _ in 0..ATTEMPTS_MAX {
            step!("call.enter");
            match self.tokens.enter_from(cursor, call as u64) {
                Ok(()) => return true,
                Err(Refused::Corrupt) => return false,
                Err(Refused::Full) => match self.tokens.first() {
                    Ok(Some(first)) => {
                        let of = first.token as usize;
                        if of < self.count && self.look(of).is(State::Ready) {
                            return false;
                        }
                        self.tokens.remove(first);
                    }
                    Ok(None) => {}
                    Err(Corrupt) => return false,
                },
            }
        }
        false
    }

    /// Caller, now and then: enters a call that is ready by another word than the one it has entered. Whoever made it
    /// ready may be stopped or dead.
    pub fn enter_again(&self, asked: &mut Asked) -> bool {
        let seen = self.look(asked.call());
        let delivery = seen.deliveries() + 1;
        let is_other = seen.turn() != asked.turn() || asked.is_entered_as(delivery);
        if !seen.is(State::Ready) || is_other || !self.enter(&Cursor::new(0), asked.call()) {
            return false;
        }
        *asked = asked.entered_as(delivery);
        true
    }

    /// Caller: the header of response `index`, if it is there.
    #[inline]
    pub fn response(&self, asked: &Asked, index: u64) -> Option<Part> {
        // ANSWER: pairs with `answer`.
        let part = Part(self.header(asked.call(), index).load(Acquire));
        part.is(asked.turn(), index).then_some(part)
    }

    /// Caller: says that the first `count` responses were read.
    #[inline]
    pub fn consume(&self, asked: &Asked, count: u64) {
        step!("call.consume");
        // ROOM: pairs with `has_room`.
        self.word(asked.call(), CONSUMED_AT).store(call::consumed(asked.turn(), count), Release);
    }

    /// Caller: ends a call whose last response it has read.
    #[inline]
    pub fn end(&self, asked: &Asked) {
        step!("call.end");
        let freed = Chunk::new(0, 0, asked.turn(), State::Free);
        // CALL: pairs with `look`. A store, and no look: by `I2` nobody else moves a call that was answered.
        self.word(asked.call(), STATE_AT).store(freed.0, Release);
    }

    /// Owner of the lane: gives a call up, or looks again after one that was given up. `Taken` if a server has it: it
    /// *lingers* then, and is free once this is repeated after that server is done, or dead.
    pub fn give_up(&self, call: usize, is_alive: impl Fn(u32) -> bool) -> Outcome {
        loop {
            let seen = self.look(call);
            match seen.state() {
                Some(State::Ready | State::Dead) => {
                    step!("call.cancel");
                    if self.swap(call, seen, seen.freed()) {
                        return Outcome::Free;
                    }
                }
                Some(State::Taken) => {
                    let word = self.word(call, CANCELLED_AT);
                    let cancelled = call::cancelled(seen.turn());
                    // Relaxed: of this lane only, and a note to the server.
                    if word.load(Relaxed) != cancelled {
                        step!("call.linger");
                        word.store(cancelled, Relaxed);
                    }
                    if !self.is_over(call, seen, &is_alive) {
                        return Outcome::Taken;
                    }
                    step!("call.collect");
                    if self.swap(call, seen, seen.freed()) {
                        return Outcome::Free;
                    }
                }
                _ => return Outcome::Free,
            }
        }
    }

    /// Whether the server of a taken call will not write any more.
    fn is_over(&self, call: usize, seen: Chunk, is_alive: impl Fn(u32) -> bool) -> bool {
        self.is_answered(call, seen.turn()) || !is_alive(seen.node())
    }

    /// Whether the last response of a call is there.
    pub fn is_answered(&self, call: usize, turn: u32) -> bool {
        self.parts_of(call).any(|part| part.is_of(turn) && part.end() != End::More)
    }

    /// Whether a response of a call is there, or was.
    fn has_begun(&self, call: usize, turn: u32) -> bool {
        self.parts_of(call).next().is_some_and(|part| part.is_of(turn))
    }

    fn parts_of(&self, call: usize) -> impl Iterator<Item = Part> + '_ {
        // ANSWER: pairs with `answer`.
        (0..self.parts.count as u64).map(move |part| Part(self.header(call, part).load(Acquire)))
    }
}
