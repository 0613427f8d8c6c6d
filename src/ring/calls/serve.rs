//! What a server does with a call, and whoever looks after what the dead left. The theory is one room up.

use super::{Calls, Held, Outcome, Parts, NO_ENTRY, SECOND_LINE};
use crate::layout::call::STRIDE;
use crate::layout::call::{self, End, Part, CANCELLED_AT, CONSUMED_AT, LENGTH_AT, PAYLOAD_AT};
use crate::layout::chunk::{Chunk, State};
use crate::ring::lane::Corrupt;
use crate::ring::slots::Slots;
use crate::ring::tokens::Cursor;
use crate::sync::Ordering::*;
use std::ops::Range;

impl Calls {
    /// Server, which keeps a `cursor` of the head: takes the first request. `None` if there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a word is none that this service can have. An entry that names no call is removed.
    #[inline(always)]
    pub fn take(&self, cursor: &Cursor, node: u32) -> Result<Option<Held>, Corrupt> {
        loop {
            let Some(first) = self.tokens.first_from(cursor)? else { return Ok(None) };
            let call = first.token as usize;
            if call >= self.count {
                self.tokens.remove(first);
                return Err(Corrupt);
            }
            self.fetch_to_serve(call);
            let seen = self.look(call);
            if !seen.is(State::Ready) {
                self.tokens.remove(first);
                continue;
            }
            let word = seen.with(State::Taken, node);
            step!("call.take");
            if self.swap(call, seen, word) {
                return Ok(Some(Held::new(call, word, Some(first))));
            }
        }
    }

    /// Begins to fetch what a server needs of a call, all at a time: its words, the first lines of the request, and, to
    /// write, those of the payload of its response. Not the line of the header, which the caller polls. A hint.
    #[inline]
    fn fetch_to_serve(&self, call: usize) {
        let Parts { region, request_bytes, part_bytes, .. } = &self.parts;
        let (request, payload) =
            (self.parts.request_at(call), self.parts.part_at(call, 0) + PAYLOAD_AT);
        self.words.fetch_to_write(self.at + call * STRIDE);
        region.fetch_to_read(request);
        region.fetch_to_read(request + (request_bytes - 1).min(SECOND_LINE));
        region.fetch_to_write(payload);
        region.fetch_to_write(payload + (part_bytes - PAYLOAD_AT - 1).min(SECOND_LINE));
    }

    /// Server: takes a request of `range` that may have no entry. For one that finds the ring empty, now and then.
    pub fn take_without_entry(&self, mut range: Range<usize>, node: u32) -> Option<Held> {
        range.find_map(|call| {
            let seen = self.look(call);
            if !seen.is(State::Ready) {
                return None;
            }
            let word = seen.with(State::Taken, node);
            step!("call.find");
            self.swap(call, seen, word).then_some(Held::new(call, word, None))
        })
    }

    /// Server: removes the entry of a call that it has taken. Whoever meets it first does the same.
    #[inline]
    pub fn remove_entry(&self, held: &mut Held) {
        let place = std::mem::replace(&mut held.entry, NO_ENTRY);
        if place != NO_ENTRY {
            self.tokens.remove_at(place, held.call);
        }
    }

    /// Bytes of the request of a call that a server has. An input: check it before use.
    #[inline]
    pub fn length(&self, held: &Held) -> u64 {
        // Relaxed: handed over by CALL.
        self.word(held.call(), LENGTH_AT).load(Relaxed)
    }

    /// Whether the caller has given a call up that a server has. It may do so at any time.
    #[inline]
    pub fn is_given_up(&self, call: usize, taken: Chunk) -> bool {
        // Relaxed: a note that orders nothing.
        self.word(call, CANCELLED_AT).load(Relaxed) == call::cancelled(taken.turn())
    }

    /// Server: whether the part for response `index` may be written.
    #[inline]
    pub fn has_room(&self, held: &Held, index: u64) -> bool {
        let count = self.parts.count as u64;
        if index < count {
            return true;
        }
        // ROOM: pairs with `consume`.
        let consumed = self.word(held.call(), CONSUMED_AT).load(Acquire);
        let consumed = call::count_of(consumed, held.word.turn());
        consumed.is_some_and(|consumed| consumed > index - count)
    }

    /// Server: commits response `index` of `bytes` bytes.
    #[inline]
    pub fn answer(&self, held: &Held, index: u64, bytes: u32, end: End) {
        let part = Part::new(held.word.turn(), index, bytes, end);
        step!("call.answer");
        // ANSWER: pairs with `response` and `parts_of`.
        self.header(held.call(), index).store(part.0, Release);
    }

    /// Server: gives a call back that it has not answered to the end; `is_wanted` says whether anybody waits for it.
    /// `Nothing` if it is not the server's any more.
    pub fn give_back(&self, held: &mut Held, is_wanted: bool) -> Outcome {
        self.remove_entry(held);
        self.put_back(held.call(), held.word, held.word.node(), is_wanted)
    }

    fn put_back(&self, call: usize, seen: Chunk, node: u32, is_wanted: bool) -> Outcome {
        let failed = seen.failed();
        let begun = self.has_begun(call, seen.turn());
        let dead = begun || !is_wanted || failed.deliveries() >= self.deliveries_max;
        let state = if dead { State::Dead } else { State::Ready };
        step!("call.return");
        if !self.swap(call, seen, failed.with(state, node)) {
            return Outcome::Nothing;
        }
        if dead {
            return Outcome::Dead;
        }
        // Without room its caller enters it, or an idle server takes it.
        self.enter(&Cursor::new(0), call);
        Outcome::Again
    }

    /// Does what is left to do in a call of `lane`, in the name of `node`; `is_alive` is the word of the kernel.
    pub fn tend(
        &self,
        call: usize,
        lane: usize,
        clients: &Slots,
        is_alive: impl Fn(u32) -> bool,
        node: u32,
    ) -> Outcome {
        let seen = self.look(call);
        if seen.is(State::Free) {
            return Outcome::Nothing;
        }
        // After the call: whoever has made it owned the lane before, so if nobody does now, nobody waits for it.
        let owner = clients.owner(lane);
        if owner.is_free() || !is_alive(owner.node()) {
            return self.free(call, seen, is_alive);
        }
        if seen.node() == owner.node() || is_alive(seen.node()) {
            return Outcome::Nothing;
        }
        if !seen.is(State::Taken) || self.is_answered(call, seen.turn()) {
            // A ready call that the dead made so and did not enter is entered by its client (`I5`).
            return Outcome::Nothing;
        }
        self.put_back(call, seen, node, !self.is_given_up(call, seen))
    }

    /// Frees a call of a lane that nobody owns, unless a living server works on it.
    fn free(&self, call: usize, seen: Chunk, is_alive: impl Fn(u32) -> bool) -> Outcome {
        let over = match seen.state() {
            Some(State::Ready | State::Dead) => true,
            Some(State::Taken) => self.is_over(call, seen, is_alive),
            _ => false,
        };
        if !over {
            return Outcome::Nothing;
        }
        step!("call.free");
        match self.swap(call, seen, seen.freed()) {
            true => Outcome::Free,
            false => Outcome::Nothing,
        }
    }
}
