//! Taking messages: one swap that says whose they are, reading in place, and one that says that they are done.

use crate::error::Result;
use crate::limits::{ROUND_MS, SLEEP_MS_MAX};
use crate::message::FrameSegments;
use crate::queue::core::Core;
use crate::queue::outcome::TakeError;
use crate::queue::space::Data;
use crate::ring::pool::{Held, Returned};
use crate::ring::slots::Claimed;
use crate::ring::tokens::Cursor;
use crate::shm::map::Access;
use crate::shm::sys;
use crate::topic::wait::{Next, Pace};
use crate::topic::watch::Watch;
use crate::topic::{Payload, Wait};
use std::cell::{Cell, OnceCell};
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages between two looks for what the dead left, by a consumer that is never idle.
const TAKES_PER_ROUND: u32 = 256;

/// Messages without a wait from which on the queue is busy.
const BUSY_STREAK: u32 = 64;

/// Messages between two waits that are counted.
const STREAK_MAX: u32 = 4096;

/// A consumer of a queue.
///
/// However it looks, one that finds nothing does now and then what the dead left to do, and brings what is due.
pub struct Consumer<T: Payload> {
    pub(super) core: Arc<Core>,
    pub(super) data: Data,
    pub(super) claimed: Claimed,
    /// Behind the descriptor, if somebody asked for one.
    pub(super) watch: Option<Watch>,
    /// When it last looked further than the ring.
    looked: Cell<Instant>,
    pace: Pace,
    cursor: Cursor,
    fork_epoch: u32,
    /// Messages taken since the last wait.
    streak: Cell<u32>,
    /// Messages taken since the last look for what the dead left.
    takes: Cell<u32>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> Consumer<T> {
    pub(super) fn join(core: Arc<Core>) -> Result<Self> {
        core.member.check_process()?;
        if !sys::register_barrier() {
            core.bells.hint().demand_fences();
        }
        let data = core.map_data(Access::Read)?;
        let claimed = core.claim()?;
        // Counted in messages: half of the chunks in one go mean that producers may be waiting.
        let pace = Pace::new(2 * core.shape.chunks() as u64);
        let fork_epoch = sys::fork_epoch();
        let consumer = Self {
            core,
            data,
            claimed,
            watch: None,
            looked: Cell::new(Instant::now()),
            pace,
            cursor: Cursor::new(0),
            fork_epoch,
            streak: Cell::new(0),
            takes: Cell::new(0),
            payload: PhantomData,
        };
        consumer.core.check_loss()?;
        Ok(consumer)
    }

    /// The slot of this consumer.
    pub fn slot(&self) -> u32 {
        self.claimed.slot as u32
    }

    /// Takes the first message if there is one.
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupt`.
    #[inline]
    pub fn try_take(&mut self) -> Result<Option<Job<'_, T>>, TakeError> {
        let held = self.next_or_arm()?;
        held.map(|held| self.job(held)).transpose()
    }

    /// Takes the first message, and waits for one. `None` if the queue was closed and nothing is left in it.
    ///
    /// A message may still come after that: one that another consumer has and does not acknowledge, one that was put
    /// off and is not due yet, and one whose producer had a loan when the queue was closed.
    ///
    /// # Errors
    ///
    /// `TimedOut` after the time of [`Wait::For`]; `Forked`, `Corrupt`.
    #[inline]
    pub fn take(&mut self, wait: Wait) -> Result<Option<Job<'_, T>>, TakeError> {
        self.let_run();
        let held = match self.next()? {
            Some(held) => Some(held),
            None => self.wait(wait)?,
        };
        held.map(|held| self.job(held)).transpose()
    }

    /// Takes those messages that are there now, at most `max`, one after the other as the batch is walked.
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupt`.
    pub fn batch(&mut self, max: usize) -> Result<Batch<'_, T>, TakeError> {
        self.check()?;
        self.let_run();
        Ok(Batch { consumer: self, left: max })
    }

    /// Lets the producers of a busy queue run ahead, some microseconds, when this consumer has come so near that
    /// both would work in the same cache lines: they would move to and fro for every message.
    #[inline]
    fn let_run(&self) {
        if self.streak.get() >= BUSY_STREAK && self.core.pool.tokens().is_near(&self.cursor) {
            self.core.let_run();
        }
    }

    fn check(&self) -> Result<(), TakeError> {
        if self.fork_epoch != sys::fork_epoch() {
            return Err(TakeError::Forked);
        }
        if self.core.loss.happened() {
            return Err(TakeError::Corrupt);
        }
        Ok(())
    }

    #[inline]
    fn next(&self) -> Result<Option<Held>, TakeError> {
        if self.fork_epoch != sys::fork_epoch() {
            return Err(TakeError::Forked);
        }
        let found = match self.first()? {
            Some(held) => Some(held),
            None => self.look_further()?,
        };
        if found.is_some() {
            self.streak.set((self.streak.get() + 1).min(STREAK_MAX));
            self.takes.set(self.takes.get() + 1);
            if self.takes.get() >= TAKES_PER_ROUND {
                self.takes.set(0);
                self.core.round_if_due();
            }
        }
        Ok(found)
    }

    #[inline]
    fn first(&self) -> Result<Option<Held>, TakeError> {
        let taken = self.core.pool.take(&self.cursor, self.core.member.node());
        taken.map_err(|_| TakeError::Corrupt)
    }

    /// The same as `next` for whoever does not wait here, but perhaps on a descriptor.
    #[inline]
    fn next_or_arm(&self) -> Result<Option<Held>, TakeError> {
        let found = self.next()?;
        if found.is_none() && self.watch.is_some() {
            self.arm_watch();
        }
        Ok(found)
    }

    /// Who finds nothing, however it looks, heals, and takes what may have no entry; not more often than every few
    /// milliseconds.
    #[cold]
    fn look_further(&self) -> Result<Option<Held>, TakeError> {
        if self.looked.get().elapsed() < Duration::from_millis(ROUND_MS) {
            return Ok(None);
        }
        self.looked.set(Instant::now());
        self.core.probe([self.data.last()]);
        self.check()?;
        self.core.round_if_due();
        let (pool, node) = (&self.core.pool, self.core.member.node());
        if let Some(held) = pool.take_unplaced(node).or_else(|| pool.take_stray(node)) {
            return Ok(Some(held));
        }
        pool.tokens().check_wait().map_err(|_| TakeError::Corrupt)?;
        // What is ready by now.
        self.first()
    }

    /// The message in a chunk that was taken, if its length is one that it can have.
    #[inline]
    fn job(&self, held: Held) -> Result<Job<'_, T>, TakeError> {
        let len = self.core.pool.note(held.chunk).length as usize;
        // In this order: a page that was lost reads as zeroes.
        let fits = len <= self.data.capacity(held.chunk);
        if !fits || self.core.loss.happened() {
            // Not this one again and again: it is a dead letter in the end.
            self.core.pool.nack(held);
            return Err(TakeError::Corrupt);
        }
        let payload = self.data.read(&held, len);
        Ok(Job { consumer: self, held, payload, opened: T::Opened::default(), done: false })
    }

    #[cold]
    fn wait(&mut self, wait: Wait) -> Result<Option<Held>, TakeError> {
        let end = match wait {
            Wait::For(limit) => Instant::now().checked_add(limit),
            _ => None,
        };
        // What was taken since there was nothing the last time.
        let streak = self.streak.replace(0);
        (0..streak).for_each(|_| self.pace.found(1));
        loop {
            if let Some(held) = self.next()? {
                return Ok(Some(held));
            }
            self.check()?;
            // Closed before the last look: what was entered before is seen by then.
            if self.core.is_closed() {
                return self.last();
            }
            if end.is_some_and(|end| Instant::now() >= end) {
                return Err(TakeError::TimedOut);
            }
            match self.pace.nothing(wait) {
                Next::Look => {}
                Next::Yield => std::thread::yield_now(),
                Next::Sleep => self.sleep(end),
            }
        }
    }

    /// What is left in a queue that was closed.
    fn last(&self) -> Result<Option<Held>, TakeError> {
        self.core.round(sys::monotonic_ns());
        let held = self.first()?;
        let (pool, node) = (&self.core.pool, self.core.member.node());
        Ok(held.or_else(|| pool.take_unplaced(node)).or_else(|| pool.take_stray(node)))
    }

    /// Sleeps until a producer wakes this process, something is there, or `end`; never longer than the limit, and not
    /// past what is due.
    fn sleep(&mut self, end: Option<Instant>) {
        let mut limit = Duration::from_millis(SLEEP_MS_MAX);
        if let Some(end) = end {
            limit = limit.min(end.saturating_duration_since(Instant::now()));
        }
        if let Some(due) = self.core.next_due() {
            limit = limit.min(Duration::from_nanos(due.saturating_sub(sys::monotonic_ns())));
        }
        let (bells, slot) = (&self.core.bells, self.claimed.slot);
        bells.announce(slot);
        // SLEEP: every producer passes this barrier before the look below.
        if !sys::barrier() {
            bells.hint().demand_fences();
            crate::sync::fence(crate::sync::Ordering::SeqCst);
        }
        if let Some(ticket) = bells.ticket(slot) {
            if !self.core.is_ready() {
                step!("sleep.wait");
                sys::futex_wait(self.core.slots.futex(slot), ticket, limit);
            }
        }
        bells.rise(slot);
        self.pace.slept();
    }
}

impl<T: Payload> Drop for Consumer<T> {
    fn drop(&mut self) {
        if self.fork_epoch == sys::fork_epoch() {
            self.core.slots.release(self.claimed.slot, self.claimed.owner);
            // It may have been woken for a message that it does not take.
            if self.watch.is_some() && self.core.is_ready() {
                self.core.announce();
            }
        }
    }
}

impl<T: Payload> fmt::Debug for Consumer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumer")
            .field("queue", &self.core.name)
            .field("slot", &self.slot())
            .finish_non_exhaustive()
    }
}

/// A message that this consumer has, read where its producer built it. Dropped without [`ack`](Self::ack) = given back.
pub struct Job<'a, T: Payload> {
    consumer: &'a Consumer<T>,
    held: Held,
    payload: &'a [u8],
    opened: T::Opened<'a>,
    done: bool,
}

impl<'a, T: Payload> Job<'a, T> {
    /// The payload. In this process it is mapped read-only.
    pub fn bytes(&self) -> &[u8] {
        self.payload
    }

    /// How often the message was delivered, this time included: 1 unless a consumer before died or gave it back.
    pub fn delivery(&self) -> u32 {
        self.held.word.deliveries() + 1
    }

    /// Says that the message is done: its chunk is free.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the message is not this consumer's any more, which only damage can bring about; it will be, or was,
    /// delivered again. `Forked` in a child that inherited it.
    pub fn ack(mut self) -> Result<(), TakeError> {
        self.consumer.check()?;
        self.done = true;
        self.consumer.data.own(&self.held, self.payload.len());
        match self.consumer.core.pool.ack(self.held) {
            true => Ok(()),
            false => Err(TakeError::Corrupt),
        }
    }

    /// Gives the message back, to be delivered again: at the end of the queue, and as a dead letter after the last
    /// delivery.
    ///
    /// # Errors
    ///
    /// As for [`ack`](Self::ack).
    pub fn nack(mut self) -> Result<(), TakeError> {
        self.consumer.check()?;
        self.give_back()
    }

    /// Gives the message back, to be delivered again after `delay` or some milliseconds later, and as a dead letter
    /// after the last delivery.
    ///
    /// # Errors
    ///
    /// As for [`ack`](Self::ack).
    pub fn nack_after(mut self, delay: Duration) -> Result<(), TakeError> {
        self.consumer.check()?;
        self.done = true;
        let delay = u64::try_from(delay.as_nanos()).unwrap_or(u64::MAX);
        let due = sys::monotonic_ns().saturating_add(delay);
        let core = &self.consumer.core;
        let returned = core.pool.postpone(self.held, due);
        // Who sleeps looks until when it may.
        core.announce();
        core.account(returned)
    }

    fn give_back(&mut self) -> Result<(), TakeError> {
        self.done = true;
        let core = &self.consumer.core;
        let returned = core.pool.nack(self.held);
        core.announce();
        core.account(returned)
    }
}

impl<T: Payload> Drop for Job<'_, T> {
    fn drop(&mut self) {
        if !self.done && self.consumer.fork_epoch == sys::fork_epoch() {
            // What cannot be given back is not ours any more.
            let _ = self.give_back();
        }
    }
}

impl<'a, T: capnp::traits::Owned> Job<'a, T>
where
    T: Payload<Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>>,
{
    /// The message, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    pub fn get(&self) -> capnp::Result<T::Reader<'_>> {
        let segments = FrameSegments::parse(self.payload).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }

    /// A validated copy on the heap: for those who do not trust the producers of the queue.
    ///
    /// # Errors
    ///
    /// If the payload is not a well-formed Cap'n Proto message, or its file was cut short.
    pub fn to_owned_message(&self) -> capnp::Result<capnp::message::TypedBuilder<T>> {
        let copy = crate::message::to_owned_message(self.payload);
        match self.consumer.core.loss.happened() {
            false => copy,
            true => Err(crate::message::shortened()),
        }
    }
}

impl<T: Payload> fmt::Debug for Job<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("bytes", &self.payload.len())
            .field("delivery", &self.delivery())
            .finish_non_exhaustive()
    }
}

/// Several messages that are there now; see [`Consumer::batch`].
pub struct Batch<'a, T: Payload> {
    consumer: &'a Consumer<T>,
    left: usize,
}

impl<'a, T: Payload> Iterator for Batch<'a, T> {
    type Item = Job<'a, T>;

    fn next(&mut self) -> Option<Job<'a, T>> {
        self.left = self.left.checked_sub(1)?;
        // An error is told by the next call of the consumer.
        let held = self.consumer.next_or_arm().ok()??;
        self.consumer.job(held).ok()
    }
}

impl Core {
    /// Counts what became of a message that was given back.
    fn account(&self, returned: Returned) -> Result<(), TakeError> {
        match returned {
            Returned::Again => self.count(crate::layout::queue::REDELIVERED_AT, 1),
            Returned::Dead => self.count(crate::layout::queue::DIED_AT, 1),
            Returned::Lost => return Err(TakeError::Corrupt),
        }
        Ok(())
    }

    /// When the next message is due that waits for its time.
    fn next_due(&self) -> Option<u64> {
        let later = (0..self.pool.len())
            .filter(|chunk| self.pool.look(*chunk).is(crate::layout::chunk::State::Later));
        later.map(|chunk| self.pool.due(chunk)).min()
    }
}
