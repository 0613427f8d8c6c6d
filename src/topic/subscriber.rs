//! The receiving end of a topic.

use crate::limits::{CURSOR_EVERY, SLEEP_MS_MAX};
use crate::log::trail::Trail;
use crate::ring::order::{Found as Placed, Order};
use crate::ring::reader::{Poll, Reader};
use crate::ring::slots::Claimed;
use crate::shm::sys;
use crate::topic::core::Core;
use crate::topic::message::{Batch, Message};
use crate::topic::outcome::RecvError;
use crate::topic::payload::Payload;
use crate::topic::view::{Hold, SlotLease};
use crate::topic::wait::{Next, Pace, Wait};
use crate::topic::watch::Watch;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Looks that found nothing before the files are probed: a load a file.
const LOOKS_BEFORE_PROBE: u32 = 1024;

/// A message that was found: where its payload lies.
#[derive(Clone, Copy)]
pub(super) struct Found {
    /// Index in `Subscriber::lanes`.
    pub lane: usize,
    pub offset: usize,
    pub len: usize,
    pub sequence: u64,
    /// Its number in its lane, which is what the header word carries.
    pub lane_sequence: u64,
}

/// A cursor in one lane and what its views hold on to.
pub(super) struct Cursor {
    pub reader: Reader,
    pub hold: Arc<Hold>,
    /// Position below which this subscriber needs nothing, whether or not the reader got there: on an ordered topic a
    /// reader moves only when a message of its lane is due.
    pub gate: u64,
    /// In a log: what the checksums of its segment begin with.
    pub seed: u32,
}

/// The receiving end of a topic: a cursor in every lane.
///
/// A message is read where it lies. It stays valid for as long as the borrow, and for as long as wanted after
/// [`Message::pin`].
///
/// # Lagging
///
/// On a reliable topic a subscriber sees every message; one that does not read holds the publishers up. On a lossy
/// topic it may be overtaken and is told exactly how many messages it missed.
///
/// # If a process dies
///
/// A killed subscriber holds nobody up: a publisher that meets its slot asks the kernel and frees it. A killed
/// publisher leaves what it committed.
///
/// A message does not outlive the next call:
///
/// ```compile_fail
/// fn keep(mut subscriber: windlass::Subscriber<windlass::Raw>) {
///     let first = subscriber.try_recv().unwrap().unwrap();
///     let second = subscriber.try_recv();
///     println!("{:?}", first.bytes());
/// }
/// ```
pub struct Subscriber<T: Payload> {
    pub(super) core: Arc<Core>,
    pub(super) slot: Arc<SlotLease>,
    pub(super) claimed: Claimed,
    pub(super) lanes: Vec<Cursor>,
    /// Index in `lanes` of each lane of the topic.
    pub(super) index_of: Vec<Option<usize>>,
    pub(super) order: Option<(Order, Cell<u64>)>,
    /// The order of a durable topic.
    pub(super) trail: Option<Trail>,
    pub(super) turn: usize,
    /// Messages taken since the cursors were published. A full streak ends a lane's turn.
    pub(super) streak: Cell<u32>,
    pub(super) born_seen: u64,
    /// Messages taken before that.
    received: u64,
    pub(super) missed: u64,
    /// Missed messages that were counted and not yet reported.
    pub(super) unreported: u64,
    /// Set once a publisher evicted this subscriber: what it missed.
    pub(super) evicted: Option<u64>,
    /// Whether a reader lost its place in a lane that is damaged.
    pub(super) damaged: bool,
    /// Looks that found nothing.
    pub(super) vain: u32,
    pace: Pace,
    /// Looks beyond the segments that this subscriber stands in.
    looks: u32,
    /// Behind the descriptor, if somebody asked for one.
    pub(super) watch: Option<Watch>,
    pub(super) fork_epoch: u32,
    payload: PhantomData<fn() -> T>,
    // A handle may move to another thread and not be shared by two.
    _not_sync: PhantomData<Cell<()>>,
}

impl<T: Payload> Subscriber<T> {
    pub(super) fn assemble(
        core: Arc<Core>,
        slot: Arc<SlotLease>,
        lanes: Vec<Cursor>,
        order: Option<(Order, u64)>,
        born_seen: u64,
    ) -> Self {
        let mut index_of = vec![None; core.shape.publishers_max as usize];
        for (index, cursor) in lanes.iter().enumerate() {
            index_of[cursor.reader.lane().index()] = Some(index);
        }
        Self {
            claimed: slot.claimed,
            slot,
            lanes,
            index_of,
            order: order.map(|(order, index)| (order, Cell::new(index))),
            trail: None,
            turn: 0,
            streak: Cell::new(0),
            born_seen,
            received: 0,
            missed: 0,
            unreported: 0,
            evicted: None,
            damaged: false,
            vain: 0,
            watch: None,
            looks: 0,
            pace: Pace::new(u64::from(core.shape.segments) * core.shape.segment_bytes),
            fork_epoch: sys::fork_epoch(),
            core,
            payload: PhantomData,
            _not_sync: PhantomData,
        }
    }

    /// The next message if there is one now; `None` if there is not.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]; `Closed` once a closed topic is read to its end.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_, T>>, RecvError> {
        let found = self.next()?;
        if found.is_none() && self.watch.is_some() {
            self.arm_watch();
        }
        Ok(found.map(|found| self.message(found)))
    }

    /// The next message, waiting for it as `wait` says; `None` once a closed topic is read to its end.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]; `TimedOut` only with [`Wait::For`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use windlass::{Bus, Raw, Start, Wait};
    ///
    /// let bus = Bus::anonymous()?;
    /// let topic = bus.topic::<Raw>("numbers").open()?;
    /// let mut subscriber = topic.subscriber(Start::Latest)?;
    /// std::thread::spawn({
    ///     let topic = topic.clone();
    ///     move || {
    ///         let mut publisher = topic.publisher().expect("there is room for a publisher");
    ///         for number in 0..3u8 {
    ///             publisher.publish(&[number]).expect("somebody reads");
    ///         }
    ///         topic.close();
    ///     }
    /// });
    /// let mut sum = 0;
    /// while let Some(message) = subscriber.recv(Wait::Block)? {
    ///     sum += message.bytes()[0];
    /// }
    /// assert_eq!(sum, 3);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn recv(&mut self, wait: Wait) -> Result<Option<Message<'_, T>>, RecvError> {
        let found = match self.next_within() {
            Some(found) => found,
            None => match self.wait_for_next(wait)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        self.pace.found(found.len);
        Ok(Some(self.message(found)))
    }

    #[cold]
    #[inline(never)]
    pub(super) fn wait_for_next(&mut self, wait: Wait) -> Result<Option<Found>, RecvError> {
        let mut end = None;
        loop {
            match self.next() {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(RecvError::Closed) => return Ok(None),
                Err(error) => return Err(error),
            }
            let next = self.pace.nothing(wait);
            if next == Next::Look {
                continue;
            }
            if let Wait::For(limit) = wait {
                // The clock starts a few microseconds late: reading it costs more than the looks before.
                let now = Instant::now();
                let end = *end.get_or_insert_with(|| now.checked_add(limit));
                if end.is_some_and(|end| now >= end) {
                    return Err(RecvError::TimedOut);
                }
            }
            match next {
                Next::Yield => std::thread::yield_now(),
                _ => self.sleep(end.flatten())?,
            }
        }
    }

    /// Sleeps until a publisher wakes this process, something is there, or `end`; never longer than the limit.
    fn sleep(&mut self, end: Option<Instant>) -> Result<(), RecvError> {
        let mut limit = Duration::from_millis(SLEEP_MS_MAX);
        if let Some(end) = end {
            limit = limit.min(end.saturating_duration_since(Instant::now()));
        }
        self.probe();
        let slot = self.claimed.slot;
        self.core.bell.announce(&self.core.slots, slot);
        // SLEEP: every publisher passes this barrier before the look below.
        if !sys::barrier() {
            self.core.bell.demand_fences();
            crate::sync::fence(crate::sync::Ordering::SeqCst);
        }
        if let Some(ticket) = self.core.bell.ticket(&self.core.slots, slot) {
            if !self.is_ready() && !self.core.is_closed() {
                step!("sleep.wait");
                sys::futex_wait(self.core.bell.futex(), ticket, limit);
            }
        }
        self.core.bell.rise(&self.core.slots, slot);
        self.pace.slept();
        Ok(())
    }

    /// Whether the next look would find something: a message, a new lane, or the loss of the slot.
    pub(super) fn is_ready(&self) -> bool {
        let message = match (&self.order, &self.trail) {
            (Some((order, index)), _) => order.read(index.get()) != Placed::Empty,
            (None, Some(trail)) => trail.is_ready(),
            (None, None) => self.lanes.iter().any(|cursor| cursor.reader.poll() != Poll::Empty),
        };
        message
            || self.evicted.is_some()
            || (self.trail.is_none() && self.core.born_count() != self.born_seen)
            || !self.is_active()
    }

    pub(super) fn is_active(&self) -> bool {
        self.core.slots.is_active(self.claimed)
    }

    /// The next message inside the segments that this subscriber stands in.
    #[inline(always)]
    pub(super) fn next_within(&self) -> Option<Found> {
        if self.fork_epoch != sys::fork_epoch() {
            return None;
        }
        if self.streak.get() >= CURSOR_EVERY {
            return None;
        }
        let found = if self.order.is_some() {
            self.next_in_order()?
        } else if let Some(trail) = &self.trail {
            self.next_in_log(trail)?
        } else {
            let cursor = self.lanes.get(self.turn)?;
            let Poll::Frame { offset, len } = cursor.reader.poll() else { return None };
            let sequence = cursor.reader.sequence();
            cursor.reader.advance(len);
            Found { lane: self.turn, offset, len, sequence, lane_sequence: sequence }
        };
        self.streak.set(self.streak.get() + 1);
        Some(found)
    }

    #[inline]
    fn next_in_order(&self) -> Option<Found> {
        let (order, index) = self.order.as_ref()?;
        let Placed::Place(place) = order.read(index.get()) else { return None };
        let lane = self.index_of[place.lane]?;
        let reader = &self.lanes[lane].reader;
        if reader.pinned().is_none() || reader.position() != place.position {
            return None;
        }
        let Poll::Frame { offset, len } = reader.poll() else { return None };
        let lane_sequence = reader.sequence();
        reader.advance(len);
        let sequence = index.get();
        index.set(sequence + 1);
        Some(Found { lane, offset, len, sequence, lane_sequence })
    }

    /// The next message anywhere, or the news that there is none.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<Found>, RecvError> {
        match self.next_within() {
            Some(found) => Ok(Some(found)),
            None => self.next_beyond(),
        }
    }

    #[cold]
    #[inline(never)]
    fn next_beyond(&mut self) -> Result<Option<Found>, RecvError> {
        if self.fork_epoch != sys::fork_epoch() {
            return Err(RecvError::Forked);
        }
        self.looks = self.looks.wrapping_add(1);
        if self.looks.is_multiple_of(LOOKS_BEFORE_PROBE) {
            self.probe();
        }
        let found = self.look_beyond();
        if self.core.loss.happened() {
            // What led to it may have read as zeroes.
            self.let_go();
            self.damaged = true;
            return Err(RecvError::Corrupt);
        }
        found
    }

    /// Looks whether all files are still as long as they were. One that was cut short shows nothing new for ever.
    pub(super) fn probe(&self) {
        self.core.probe(self.order.iter().map(|(order, _)| order.last()));
        match &self.trail {
            // Its files carry another mark.
            Some(trail) => {
                let (loss, mark) = (&self.core.loss, trail.log.files.identity);
                self.lanes.iter().for_each(|cursor| loss.probe(cursor.reader.lane().last(), mark));
            }
            None => self.core.probe(self.lanes.iter().map(|cursor| cursor.reader.lane().last())),
        }
    }

    /// Leaves all segments: nothing is found any more.
    pub(super) fn let_go(&mut self) {
        for cursor in &mut self.lanes {
            cursor.reader.leave();
        }
        self.lanes.clear();
        self.index_of.fill(None);
    }

    fn look_beyond(&mut self) -> Result<Option<Found>, RecvError> {
        if let Some(missed) = self.evicted {
            return Err(RecvError::Evicted { missed });
        }
        if self.damaged {
            return Err(RecvError::Corrupt);
        }
        if self.streak.get() > 0 {
            self.publish_cursors();
        }
        if !self.is_active() {
            // Nothing else may become of the slot of the living.
            let evicted = self.core.slots.is_evicted(self.claimed);
            return Err(if evicted { self.evict(0) } else { RecvError::Corrupt });
        }
        // CLOSE: read before the last look, so that what was published before closing is found by it: also in a lane
        // that was born before closing.
        let closed = self.core.is_closed();
        if self.trail.is_none() && self.core.born_count() != self.born_seen {
            self.open_new_lanes()?;
        }
        let found = match (&self.order, &self.trail) {
            (Some(_), _) => self.seek_in_order()?,
            (None, Some(_)) => self.seek_in_log()?,
            (None, None) => self.seek_in_lanes()?,
        };
        if found {
            return Ok(self.next_within());
        }
        if self.unreported > 0 {
            let missed = std::mem::take(&mut self.unreported);
            self.overtaken(missed)?;
        }
        self.check_wait(closed)?;
        if closed {
            return Err(RecvError::Closed);
        }
        Ok(None)
    }

    /// Tells publishers and `windlass info` how far this subscriber has read.
    #[cold]
    pub(super) fn publish_cursors(&mut self) {
        self.received += u64::from(self.streak.replace(0));
        let (slots, slot) = (&self.core.slots, self.claimed.slot);
        if self.core.shape.reliable {
            for cursor in &self.lanes {
                let reader = &cursor.reader;
                let gate = reader.position().max(cursor.gate);
                slots.set_gate(slot, reader.lane().index(), gate);
            }
        }
        if let Some((_, index)) = &self.order {
            slots.set_order_gate(slot, index.get());
        }
        if let Some(trail) = &self.trail {
            slots.set_order_gate(slot, trail.next.get());
        }
        step!("cursor.counts");
        slots.set_counts(slot, self.received, self.missed);
    }

    #[inline]
    pub(super) fn message(&self, found: Found) -> Message<'_, T> {
        Message::new(&self.lanes[found.lane], found)
    }

    /// The messages that are there now, at most `max`, to iterate over.
    ///
    /// Unlike [`try_recv`](Self::try_recv) it hands out several borrowed messages at a time. It ends at the end of a
    /// segment, of what is published, or of a lane's turn; call it again for more. Empty means: nothing now.
    ///
    /// # Errors
    ///
    /// As for [`try_recv`](Self::try_recv).
    pub fn batch(&mut self, max: usize) -> Result<Batch<'_, T>, RecvError> {
        let first = if max == 0 { None } else { self.next()? };
        if first.is_none() && max > 0 && self.watch.is_some() {
            self.arm_watch();
        }
        Ok(Batch::new(self, first, max.saturating_sub(1)))
    }

    /// Messages received so far.
    pub fn received(&self) -> u64 {
        self.received + u64::from(self.streak.get())
    }

    /// Messages missed so far: on a lossy topic, received and missed add up to everything that was published.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Messages that are published and not yet received. Walks the newest segment of each lane: not for every message.
    pub fn lag(&self) -> u64 {
        self.backlog()
    }

    /// The slot of this subscriber, as `windlass info` shows it.
    pub fn slot(&self) -> u32 {
        self.claimed.slot as u32
    }
}

impl<T: Payload> Drop for Subscriber<T> {
    fn drop(&mut self) {
        if self.fork_epoch != sys::fork_epoch() {
            return;
        }
        self.core.slots.set_counts(self.claimed.slot, self.received(), self.missed);
        for cursor in &mut self.lanes {
            cursor.reader.leave();
        }
        // The slot itself goes with the last view.
        self.core.slots.linger(self.claimed);
    }
}

impl<T: Payload> fmt::Debug for Subscriber<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber")
            .field("topic", &self.core.name)
            .field("slot", &self.claimed.slot)
            .field("received", &self.received())
            .field("missed", &self.missed)
            .finish()
    }
}
