//! A client apart from what its messages are: its lane of calls, and how it waits.

use crate::error::Result;
use crate::layout::call::{End, Part};
use crate::layout::chunk::State;
use crate::layout::service as layout;
use crate::limits::{ROUND_MS, SLEEP_MS_MAX};
use crate::ring::bells::Bells;
use crate::ring::calls::{Asked, Calls, Outcome};
use crate::ring::slots::Claimed;
use crate::ring::tokens::Cursor;
use crate::service::core::Core;
use crate::service::outcome::CallError;
use crate::service::space::{self, Draft, Outgrown, Reserved};
use crate::shm::map::Access;
use crate::shm::sys;
use crate::sync::{fence, Ordering::*};
use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks for a response without a pause: a server that waits for requests answers a small one within this time.
const LOOKS_MAX: u32 = 2000;

/// Looks between which the core is left to others, before the caller sleeps: together about as long as it takes to be
/// woken.
const YIELDS_MAX: u32 = 30;

/// Looks of somebody who polls, between two looks at more than the response.
const POLLS_PER_CHECK: u32 = 256;

/// A client: an owner of a lane.
pub struct Caller {
    pub core: Arc<Core>,
    calls: Calls,
    claimed: Claimed,
    /// Woken by the servers of this lane, with the slot of this client alone.
    bells: Bells,
    fork_epoch: u32,
    /// How far it has walked along the ring.
    cursor: Cursor,
    /// Calls of the lane that are free, a bit for each.
    idle: Cell<u64>,
    /// Calls that were given up and that a server has.
    lingering: Cell<u64>,
    /// Calls in which something is left that could be taken for an answer of a later turn.
    stale: Cell<u64>,
    /// Calls made by owners of this lane.
    made: Cell<u64>,
    /// Bytes to reserve for the next typed request.
    estimate: Cell<usize>,
    /// Looks in vain of somebody who polls for a response.
    polls: Cell<u32>,
}

impl Caller {
    pub fn join(core: Arc<Core>) -> Result<Self> {
        core.member.check_process()?;
        if !sys::register_barrier() {
            core.bells.hint().demand_fences();
        }
        let calls = core.map_calls(Access::Write)?;
        let claimed = core.claim(&core.clients, "clients")?;
        let lane = claimed.slot;
        let made = core.control.word(core.shape.lane_at(lane) + layout::LANE_CALLS_AT);
        // Relaxed: statistics.
        let made = Cell::new(made.load(Relaxed));
        let all = u64::MAX >> (64 - core.shape.calls);
        let caller = Self {
            bells: core.lane_bells(lane),
            calls,
            claimed,
            fork_epoch: sys::fork_epoch(),
            cursor: Cursor::new(0),
            idle: Cell::new(0),
            lingering: Cell::new(all),
            stale: Cell::new(all),
            made,
            estimate: Cell::new(0),
            polls: Cell::new(0),
            core,
        };
        // What the last owner of the lane left.
        caller.collect(|node| caller.core.member.is_alive(node));
        caller.core.check_loss()?;
        Ok(caller)
    }

    /// The slot of this client, which is its lane.
    pub fn lane(&self) -> usize {
        self.claimed.slot
    }

    fn call(&self, bit: u32) -> usize {
        self.core.shape.lane(self.lane()).start + bit as usize
    }

    fn bit(&self, call: usize) -> u64 {
        1 << (call - self.core.shape.lane(self.lane()).start)
    }

    fn is_inherited(&self) -> bool {
        self.fork_epoch != sys::fork_epoch()
    }

    #[inline]
    fn check(&self) -> Result<(), CallError> {
        if self.is_inherited() {
            return Err(CallError::Forked);
        }
        if self.core.loss.happened() {
            return Err(CallError::Corrupt);
        }
        Ok(())
    }

    /// Looks after calls that were given up.
    #[cold]
    fn collect(&self, is_alive: impl Fn(u32) -> bool) {
        for bit in (0..64).filter(|bit| self.lingering.get() >> bit & 1 == 1) {
            if self.calls.give_up(self.call(bit), &is_alive) == Outcome::Free {
                self.lingering.set(self.lingering.get() & !(1 << bit));
                self.idle.set(self.idle.get() | 1 << bit);
            }
        }
    }

    /// Sets a free call aside.
    #[inline(always)]
    fn reserve(&self) -> Result<Aside<'_>, CallError> {
        self.check()?;
        if self.core.is_closed() {
            return Err(CallError::Closed);
        }
        if self.lingering.get() != 0 {
            // Without asking the kernel, unless there is no other way.
            let asks = self.idle.get() == 0;
            self.collect(|node| !asks || self.core.member.is_alive(node));
        }
        let bit = self.idle.get().trailing_zeros();
        if bit == u64::BITS {
            return Err(self.busy());
        }
        let call = self.call(bit);
        self.calls.fetch_to_ask(&self.cursor);
        self.idle.set(self.idle.get() & !(1 << bit));
        if self.stale.get() >> bit & 1 == 1 {
            self.calls.clear(call);
            self.stale.set(self.stale.get() & !(1 << bit));
        }
        Ok(Aside { caller: self, reserved: Reserved { call } })
    }

    #[cold]
    fn busy(&self) -> CallError {
        let lingering = self.lingering.get();
        let node = (lingering != 0).then(|| {
            let seen = self.calls.look(self.call(lingering.trailing_zeros()));
            let process = self.core.member.process_of(seen.node());
            (seen.node(), process.map(|process| process.pid))
        });
        let calls = self.core.shape.calls;
        CallError::Busy { calls, lingering: lingering.count_ones(), server: node }
    }

    /// Makes a call whose request `fill` writes; it returns its length.
    // What it returns is passed on at once; each copy of it costs as much as the rest, because small fields were just
    // written. So this and what follows on the way to a response is always inlined.
    #[inline(always)]
    pub fn begin(
        &self,
        fill: impl FnOnce(&mut Draft<'_>) -> Result<usize, Outgrown>,
    ) -> Result<Open<'_>, CallError> {
        let mut aside = self.reserve()?;
        let mut draft = Draft::of_request(&self.calls, &mut aside.reserved);
        let len = fill(&mut draft).map_err(|outgrown| {
            let max = self.core.shape.request_bytes.into();
            CallError::TooLarge { need: outgrown.need as u64, max }
        })?;
        // In a child that was forked meanwhile the lane is the parent's.
        self.check()?;
        let call = aside.reserved.call;
        let asked = self.calls.ask(&self.cursor, call, self.core.member.node(), len as u64);
        let asked = asked.map_err(|_| CallError::Corrupt)?;
        std::mem::forget(aside);
        self.core.announce();
        self.made.set(self.made.get().wrapping_add(1));
        let made = self.core.shape.lane_at(self.lane()) + layout::LANE_CALLS_AT;
        // Relaxed: statistics.
        self.core.control.word(made).store(self.made.get(), Relaxed);
        Ok(Open { caller: self, asked, index: 0, end: GOES_ON })
    }

    /// Makes a call with a copy of `bytes`.
    #[inline]
    pub fn begin_bytes(&self, bytes: &[u8]) -> Result<Open<'_>, CallError> {
        self.begin(|draft| draft.copy(bytes))
    }

    /// Makes a call with a request that is built in place.
    #[inline]
    pub fn begin_built<T: capnp::traits::Owned>(
        &self,
        build: impl FnOnce(T::Builder<'_>),
    ) -> Result<Open<'_>, CallError> {
        self.begin(|draft| {
            let (len, ()) = draft.build::<T, ()>(self.estimate.get(), build)?;
            self.estimate.set(follow(self.estimate.get(), len));
            Ok(len)
        })
    }

    /// Sleeps until a server wakes this process, `is_due`, or the time is over; never longer than the limit.
    fn sleep(&self, left: Duration, is_due: impl Fn() -> bool) {
        let limit = left.min(Duration::from_millis(SLEEP_MS_MAX));
        let bells = &self.bells;
        bells.announce(0);
        // SLEEP: every server passes this barrier before the look below.
        if !sys::barrier() {
            bells.hint().demand_fences();
            fence(SeqCst);
        }
        if let Some(ticket) = bells.ticket(0) {
            if !is_due() {
                step!("sleep.wait");
                sys::futex_wait(bells.slots().futex(0), ticket, limit);
            }
        }
        bells.rise(0);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        // Those of handles that were forgotten, too.
        let all = u64::MAX >> (64 - self.core.shape.calls);
        self.lingering.set(all & !self.idle.get());
        self.collect(|node| self.core.member.is_alive(node));
        self.core.clients.release(self.claimed.slot, self.claimed.owner);
    }
}

/// Bytes to reserve for the next message, after one of `len`: follows large ones at once, and small ones slowly.
pub fn follow(estimate: usize, len: usize) -> usize {
    len.max(estimate - estimate / 16)
}

/// A call that was set aside, and is idle again when this is dropped.
struct Aside<'a> {
    caller: &'a Caller,
    reserved: Reserved,
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        let bit = self.caller.bit(self.reserved.call);
        self.caller.idle.set(self.caller.idle.get() | bit);
    }
}

#[cold]
fn failed(why: &[u8]) -> CallError {
    CallError::Failed(String::from_utf8_lossy(why).into_owned())
}

/// A response that is there.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    /// Its bytes.
    pub payload: &'a [u8],
}

/// A call that was made. Dropped before it is over = given up.
pub struct Open<'a> {
    caller: &'a Caller,
    asked: Asked,
    /// The response that is due.
    index: u64,
    /// Whether anything comes behind what was read. A whole word: see [`Asked`].
    end: u64,
}

/// The response that is due, and perhaps more.
const GOES_ON: u64 = 0;
/// Nothing.
const OVER: u64 = 1;
/// Somebody else has the call.
const SPENT: u64 = 2;

impl<'a> Open<'a> {
    pub fn core(&self) -> &'a Core {
        &self.caller.core
    }

    /// Whether nothing comes behind what was read.
    #[inline]
    pub fn is_over(&self) -> bool {
        self.end != GOES_ON
    }

    /// Takes the call away; what is left is over, and nothing.
    pub fn take(&mut self) -> Self {
        let Self { caller, asked, index, .. } = *self;
        std::mem::replace(self, Self { caller, asked, index, end: SPENT })
    }

    /// Whether it was taken away.
    pub fn is_spent(&self) -> bool {
        self.end == SPENT
    }

    /// Says that the responses before the one that is due were read.
    pub fn consume(&self) {
        if self.index > 0 && !self.is_over() && !self.caller.is_inherited() {
            self.caller.calls.consume(&self.asked, self.index);
        }
    }

    /// The response that is due, and a wait for it of at most `limit`. `None` if the one before was the last.
    #[inline(always)]
    pub fn wait(&mut self, limit: Duration) -> Result<Option<Found<'a>>, CallError> {
        self.caller.check()?;
        if self.is_over() {
            return Ok(None);
        }
        for _ in 0..LOOKS_MAX {
            if let Some(part) = self.caller.calls.response(&self.asked, self.index) {
                return self.found(part);
            }
        }
        let part = self.wait_long(limit)?;
        self.found(part)
    }

    /// The response that is due, if it is there.
    pub fn poll(&mut self) -> Result<Option<Found<'a>>, CallError> {
        self.caller.check()?;
        if self.is_over() {
            return Ok(None);
        }
        if let Some(part) = self.caller.calls.response(&self.asked, self.index) {
            return self.found(part);
        }
        let polls = self.caller.polls.get().wrapping_add(1);
        self.caller.polls.set(polls);
        if polls.is_multiple_of(POLLS_PER_CHECK) {
            self.caller.core.round_if_due(&self.caller.calls);
            self.caller.calls.enter_again(&mut self.asked);
            if let Some(part) = self.look_around()? {
                return self.found(part);
            }
        }
        Ok(None)
    }

    /// What is there, checked.
    #[inline(always)]
    fn found(&mut self, part: Part) -> Result<Option<Found<'a>>, CallError> {
        let (caller, len) = (self.caller, part.bytes() as usize);
        // In this order: a page that was lost reads as zeroes.
        if len > caller.core.shape.response_bytes as usize || caller.core.loss.happened() {
            return Err(CallError::Corrupt);
        }
        let end = part.end();
        let is_over = end != End::More;
        self.end = if is_over { OVER } else { GOES_ON };
        let next = is_over.then_some(caller.estimate.get());
        caller.calls.fetch_response(self.asked, self.index, len, next);
        let payload = space::response(&caller.calls, &self.asked, self.index, len);
        self.index += 1;
        match end {
            End::More | End::Last => Ok(Some(Found { payload })),
            End::Done => Ok(None),
            End::Failed => Err(failed(payload)),
        }
    }

    #[cold]
    fn wait_long(&mut self, limit: Duration) -> Result<Part, CallError> {
        // Not before: a clock costs as much as a short wait.
        let end = Instant::now().checked_add(limit);
        let caller = self.caller;
        for _ in 0..YIELDS_MAX {
            std::thread::yield_now();
            for _ in 0..LOOKS_MAX / 10 {
                if let Some(part) = caller.calls.response(&self.asked, self.index) {
                    return Ok(part);
                }
            }
        }
        let mut healed: Option<Instant> = None;
        loop {
            if let Some(part) = self.look_around()? {
                return Ok(part);
            }
            let left = match end {
                Some(end) => end.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return self.too_late();
            }
            // Who is hindered heals.
            if healed.is_none_or(|healed| healed.elapsed() >= Duration::from_millis(ROUND_MS)) {
                caller.core.probe([caller.calls.parts().region.last()]);
                caller.core.round(&caller.calls, caller.lane()..caller.lane() + 1);
                if caller.calls.enter_again(&mut self.asked) {
                    caller.core.announce();
                }
                healed = Some(Instant::now());
            }
            caller.sleep(left, || {
                let seen = caller.calls.look(self.asked.call());
                let is_there = caller.calls.response(&self.asked, self.index).is_some();
                let is_closed = seen.is(State::Ready) && caller.core.is_closed();
                is_there || seen.is(State::Dead) || is_closed
            });
        }
    }

    /// Looks at more than the response: whether it can come at all.
    fn look_around(&mut self) -> Result<Option<Part>, CallError> {
        let caller = self.caller;
        caller.check()?;
        let seen = caller.calls.look(self.asked.call());
        // After that look: what a server committed before the call was dead is there.
        if let Some(part) = caller.calls.response(&self.asked, self.index) {
            return Ok(Some(part));
        }
        match seen.state() {
            _ if seen.turn() != self.asked.turn() => Err(CallError::Corrupt),
            Some(State::Dead) => Err(CallError::ServerDied),
            Some(State::Ready) if caller.core.is_closed() => Err(CallError::Closed),
            Some(State::Ready | State::Taken) => Ok(None),
            _ => Err(CallError::Corrupt),
        }
    }

    #[cold]
    fn too_late(&mut self) -> Result<Part, CallError> {
        let core = &self.caller.core;
        let waits = self.caller.calls.look(self.asked.call()).is(State::Ready);
        match waits && !core.has_server() {
            true => Err(CallError::NoServer),
            false => Err(CallError::Timeout),
        }
    }

    fn give_up(&self) {
        let caller = self.caller;
        let bit = caller.bit(self.asked.call());
        caller.stale.set(caller.stale.get() | bit);
        let died = caller.calls.look(self.asked.call()).is(State::Dead);
        caller.core.count(layout::ABANDONED_AT, usize::from(!died));
        match caller.calls.give_up(self.asked.call(), |_| true) {
            Outcome::Taken => caller.lingering.set(caller.lingering.get() | bit),
            _ => caller.idle.set(caller.idle.get() | bit),
        }
    }
}

impl Drop for Open<'_> {
    #[inline]
    fn drop(&mut self) {
        let caller = self.caller;
        if caller.is_inherited() || self.is_spent() {
            return;
        }
        if !self.is_over() {
            return self.give_up();
        }
        caller.calls.end(&self.asked);
        let bit = caller.bit(self.asked.call());
        if self.index > 1 {
            // A stream leaves more than one header behind.
            caller.stale.set(caller.stale.get() | bit);
        }
        caller.idle.set(caller.idle.get() | bit);
    }
}
