//! Taking calls: one swap that says whose a call is.

use crate::error::Result;
use crate::limits::{ROUND_MS, SLEEP_MS_MAX};
use crate::ring::bells::Bells;
use crate::ring::calls::{Calls, Held};
use crate::ring::slots::Claimed;
use crate::ring::tokens::Cursor;
use crate::service::call::Call;
use crate::service::core::Core;
use crate::service::outcome::{ReplyError, ServeError};
use crate::service::space;
use crate::shm::map::Access;
use crate::shm::sys;
use crate::sync::{fence, Ordering::*};
use crate::topic::loan::Construction;
use crate::topic::{Payload, Raw, Wait};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Calls between two looks for what the dead left, by a server that is never idle.
const TAKES_PER_ROUND: u32 = 256;

/// Looks of a waiting server at the ring, between two looks at more than that: under a microsecond.
const LOOKS_PER_CHECK: u32 = 512;

/// So often it looks at more before it leaves the core to others now and then, unless it spins: a client may need it.
const CHECKS_BEFORE_YIELD: u32 = 8;

/// So often it looks at more before a blocking wait goes to sleep.
const CHECKS_BEFORE_SLEEP: u32 = 100;

/// A server of a service. There may be any number of them, in any processes; each call goes to one.
///
/// Dropping it leaves calls that nobody has taken to the others.
pub struct Server<Req: Payload, Resp: Payload> {
    pub(super) core: Arc<Core>,
    pub(super) calls: Calls,
    claimed: Claimed,
    /// Of each client, to wake it.
    pub(super) bells: Box<[Bells]>,
    /// Looks at more than the ring since the last call, or since it slept.
    checks: u32,
    /// How far it has walked along the ring.
    cursor: Cursor,
    fork_epoch: u32,
    /// Whether a call was taken since the last wait.
    was_busy: Cell<bool>,
    /// Calls taken since the last look for what the dead left.
    takes: Cell<u32>,
    /// Bytes to reserve for the next typed response.
    pub(super) estimate: Cell<usize>,
    messages: PhantomData<fn(Req) -> Resp>,
}

impl<Req: Payload, Resp: Payload> Server<Req, Resp> {
    pub(super) fn join(core: Arc<Core>) -> Result<Self> {
        core.member.check_process()?;
        let bells: Box<[Bells]> =
            (0..core.clients.len()).map(|lane| core.lane_bells(lane)).collect();
        if !sys::register_barrier() {
            bells.iter().for_each(|bells| bells.hint().demand_fences());
        }
        let calls = core.map_calls(Access::Write)?;
        let claimed = core.claim(&core.servers, "servers")?;
        let server = Self {
            checks: 0,
            cursor: Cursor::new(0),
            fork_epoch: sys::fork_epoch(),
            was_busy: Cell::new(false),
            takes: Cell::new(0),
            estimate: Cell::new(0),
            messages: PhantomData,
            core,
            calls,
            claimed,
            bells,
        };
        server.core.check_loss()?;
        Ok(server)
    }

    /// The slot of this server.
    pub fn slot(&self) -> u32 {
        self.claimed.slot as u32
    }

    /// Bytes that a response may have.
    pub fn response_bytes_max(&self) -> usize {
        self.core.shape.response_bytes as usize
    }

    /// Takes the first call if there is one.
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupt`.
    #[inline(always)] // What it returns is passed on at once; each copy of it costs as much as the rest.
    pub fn try_take(&mut self) -> Result<Option<Call<'_, Req, Resp>>, ServeError> {
        let held = self.next()?;
        held.map(|held| self.open(held)).transpose()
    }

    /// Takes the first call, and waits for one. `None` if the service was closed and no call is left.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the time of [`Wait::For`]; `Forked`, `Corrupt`.
    #[inline(always)]
    pub fn take(&mut self, wait: Wait) -> Result<Option<Call<'_, Req, Resp>>, ServeError> {
        let held = match self.next()? {
            Some(held) => Some(held),
            None => self.wait(wait)?,
        };
        held.map(|held| self.open(held)).transpose()
    }

    pub(super) fn is_inherited(&self) -> bool {
        self.fork_epoch != sys::fork_epoch()
    }

    fn check(&self) -> Result<(), ServeError> {
        if self.is_inherited() {
            return Err(ServeError::Forked);
        }
        if self.core.loss.happened() {
            return Err(ServeError::Corrupt);
        }
        Ok(())
    }

    #[inline(always)]
    fn next(&self) -> Result<Option<Held>, ServeError> {
        if self.is_inherited() {
            return Err(ServeError::Forked);
        }
        let taken = self.calls.take(&self.cursor, self.core.member.node());
        let found = taken.map_err(|_| ServeError::Corrupt)?;
        if found.is_some() {
            self.was_busy.set(true);
            self.takes.set(self.takes.get() + 1);
            if self.takes.get() >= TAKES_PER_ROUND {
                self.takes.set(0);
                self.core.round_if_due(&self.calls);
            }
        }
        Ok(found)
    }

    /// The call that was taken, if its length is one that it can have.
    #[inline(always)]
    fn open(&self, mut held: Held) -> Result<Call<'_, Req, Resp>, ServeError> {
        let len = self.calls.length(&held);
        // In this order: a page that was lost reads as zeroes.
        let fits = len <= u64::from(self.core.shape.request_bytes);
        if !fits || self.core.loss.happened() {
            // Not this one again and again: it dies in the end.
            self.calls.give_back(&mut held, true);
            return Err(ServeError::Corrupt);
        }
        let request = space::request(&self.calls, &held, len as usize);
        Ok(Call::new(self, held, request))
    }

    #[cold]
    fn wait(&mut self, wait: Wait) -> Result<Option<Held>, ServeError> {
        let end = match wait {
            Wait::For(limit) => Instant::now().checked_add(limit),
            _ => None,
        };
        if self.was_busy.replace(false) {
            self.checks = 0;
        }
        let mut looked = None::<Instant>;
        loop {
            // Without a pause, however busy it was: callers wait, and the answer to the last call may bring the next.
            for _ in 0..LOOKS_PER_CHECK {
                if !self.calls.tokens().is_still_empty(&self.cursor) {
                    if let Some(held) = self.next()? {
                        return Ok(Some(held));
                    }
                }
            }
            self.check()?;
            // Who is idle heals, and takes what may have no entry.
            let now = Instant::now();
            let since = *looked.get_or_insert(now);
            if now - since >= Duration::from_millis(ROUND_MS) {
                looked = Some(now);
                self.core.probe([self.calls.parts().region.last()]);
                self.core.round_if_due(&self.calls);
                if let Some(held) = self.take_without_entry() {
                    return Ok(Some(held));
                }
                if self.calls.tokens().check_wait().is_err() {
                    return Err(ServeError::Corrupt);
                }
            }
            // Closed before the last look: what was entered before is seen by then.
            if self.core.is_closed() {
                let held = self.next()?;
                return Ok(held.or_else(|| self.take_without_entry()));
            }
            if end.is_some_and(|end| now >= end) {
                return Err(ServeError::TimedOut);
            }
            self.checks = self.checks.saturating_add(1);
            match wait {
                Wait::Block | Wait::For(_) if self.checks >= CHECKS_BEFORE_SLEEP => self.sleep(end),
                Wait::Spin => {}
                _ if self.checks < CHECKS_BEFORE_YIELD => {}
                _ => std::thread::yield_now(),
            }
        }
    }

    fn take_without_entry(&self) -> Option<Held> {
        let calls = 0..self.core.shape.lane(self.core.clients.high()).start;
        self.calls.take_without_entry(calls, self.core.member.node())
    }

    /// Sleeps until a client wakes this process, something is there, or `end`; never longer than the limit.
    fn sleep(&mut self, end: Option<Instant>) {
        let mut limit = Duration::from_millis(SLEEP_MS_MAX);
        if let Some(end) = end {
            limit = limit.min(end.saturating_duration_since(Instant::now()));
        }
        let (bells, slot) = (&self.core.bells, self.claimed.slot);
        bells.announce(slot);
        // SLEEP: every client passes this barrier before the look below.
        if !sys::barrier() {
            bells.hint().demand_fences();
            fence(SeqCst);
        }
        if let Some(ticket) = bells.ticket(slot) {
            let is_empty = matches!(self.calls.tokens().first(), Ok(None));
            if is_empty && !self.core.is_closed() {
                step!("sleep.wait");
                sys::futex_wait(bells.slots().futex(slot), ticket, limit);
            }
        }
        bells.rise(slot);
        self.checks = CHECKS_BEFORE_SLEEP / 2;
    }
}

impl<Req, Resp> Server<Req, Resp>
where
    Req: capnp::traits::Owned + Payload,
    Resp: capnp::traits::Owned + Payload<Building = Construction>,
{
    /// Answers calls until the service is closed. An error of `handler` is one of the call, and its text goes to the
    /// caller.
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupt`.
    pub fn serve(
        &mut self,
        mut handler: impl FnMut(Req::Reader<'_>, Resp::Builder<'_>) -> capnp::Result<()>,
    ) -> Result<(), ServeError> {
        while let Some(call) = self.take(Wait::Block)? {
            goes_on(call.respond(&mut handler))?;
        }
        Ok(())
    }
}

impl Server<Raw, Raw> {
    /// Answers calls until the service is closed. `handler` is given a request and the space for its response, and
    /// returns how much of that it has written; an error of it is one of the call, and its text goes to the caller.
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupt`.
    pub fn serve<E: fmt::Display>(
        &mut self,
        mut handler: impl FnMut(&[u8], &mut [u8]) -> Result<usize, E>,
    ) -> Result<(), ServeError> {
        while let Some(call) = self.take(Wait::Block)? {
            goes_on(call.respond(&mut handler))?;
        }
        Ok(())
    }
}

/// Whether to go on after an answer: not if the next one will go the same way.
fn goes_on(answered: Result<(), ReplyError>) -> Result<(), ServeError> {
    match answered {
        Err(ReplyError::Forked) => Err(ServeError::Forked),
        Err(ReplyError::Corrupt) => Err(ServeError::Corrupt),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl<Req: Payload, Resp: Payload> Drop for Server<Req, Resp> {
    fn drop(&mut self) {
        if !self.is_inherited() {
            self.core.servers.release(self.claimed.slot, self.claimed.owner);
        }
    }
}

impl<Req: Payload, Resp: Payload> fmt::Debug for Server<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("service", &self.core.name)
            .field("slot", &self.slot())
            .finish_non_exhaustive()
    }
}
