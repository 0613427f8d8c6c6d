//! The publishing end of a topic.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::control;
use crate::layout::frame;
use crate::layout::order::Place;
use crate::layout::owner::Owner;
use crate::log::pen::Pen;
use crate::ring::order::Order;
use crate::ring::recycle::Blocked;
use crate::ring::slots::Obstacle;
use crate::ring::writer::Writer;
use crate::shm::sys;
use crate::sync::Ordering::Relaxed;
use crate::topic::append::Append;
use crate::topic::core::{BlockReason, Core};
use crate::topic::lease::{self, Lease};
use crate::topic::outcome::{PublishError, Receipt};
use crate::topic::patience::{Patience, Pause};
use crate::topic::payload::{Payload, Raw};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What gives the messages of a topic their order.
pub(super) enum Line {
    /// Nothing: each lane has an order of its own.
    Lanes,
    /// The order log of an ordered topic.
    Ring(Order),
    /// The order of a log.
    Log(Box<Pen>),
}

/// The publishing end of a topic: one lane, one writer.
///
/// Publishing makes no system call, fence or lock and does no work per subscriber: it costs the same with one
/// subscriber and with sixty-four. A message becomes visible with one store; until then it never existed.
///
/// # If a process dies
///
/// A publisher that is killed at any instruction leaves every committed message in place and nothing of the one it
/// was building. The next [`Topic::publisher`](crate::Topic::publisher) continues its lane.
///
/// A publisher can move to another thread but not be used by two:
///
/// ```compile_fail
/// fn two_threads(publisher: windlass::Publisher<windlass::Raw>) {
///     let shared = &publisher;
///     std::thread::scope(|scope| {
///         scope.spawn(move || shared.sequence());
///     });
/// }
/// ```
pub struct Publisher<T: Payload> {
    pub(super) core: Arc<Core>,
    pub(super) writer: Writer,
    pub(super) line: Line,
    order_permitted: u64,
    owner: Owner,
    lane: usize,
    fork_epoch: u32,
    /// Whether `windlass info` shows somebody as blocking this publisher.
    told: bool,
    /// Where the writer stood when it found no room, and since when it has: `evict_after` counts across calls that do
    /// not wait.
    blocked: Option<((u64, u64), Instant)>,
    /// Payload bytes that typed loans start with: what recent messages needed.
    pub(super) estimate: usize,
    payload: PhantomData<fn() -> T>,
    // A handle may move to another thread and not be shared by two.
    _not_sync: PhantomData<Cell<()>>,
}

impl<T: Payload> Publisher<T> {
    pub(crate) fn join(core: Arc<Core>) -> Result<Self> {
        core.member.check_process()?;
        if core.is_closed() {
            let message = format!("topic {} was closed; remove it to start over", core.name);
            return Err(Error::new(ErrorKind::Closed, message));
        }
        if !sys::register_barrier() {
            core.bell.demand_fences();
        }
        let Lease { writer, line, owner, lane } = lease::acquire(&core)?;
        if let Err(error) = core.check_control() {
            core.release_lease(lane, owner);
            return Err(error);
        }
        Ok(Self {
            core,
            writer,
            line,
            order_permitted: 0,
            owner,
            lane,
            fork_epoch: sys::fork_epoch(),
            told: false,
            blocked: None,
            estimate: 0,
            payload: PhantomData,
            _not_sync: PhantomData,
        })
    }

    /// The lane that this publisher writes.
    pub fn lane(&self) -> u32 {
        self.lane as u32
    }

    /// The number, in its lane, of the message that this publisher commits next.
    ///
    /// A publisher that continues a lane begins where the last one ended.
    pub fn sequence(&self) -> u64 {
        self.writer.sequence()
    }

    /// The largest payload that fits a segment of this topic, in bytes.
    pub fn payload_bytes_max(&self) -> usize {
        self.writer.payload_bytes_max()
    }

    /// Refuses to commit in a child what its parent was building when it forked.
    #[inline]
    pub(super) fn check_process(&self) -> Result<(), PublishError> {
        if self.fork_epoch == sys::fork_epoch() {
            Ok(())
        } else {
            Err(PublishError::Forked)
        }
    }

    /// Makes room for a payload of `len` bytes at the writer's position.
    #[inline]
    pub(super) fn make_room(&mut self, len: usize, patience: Patience) -> Result<(), PublishError> {
        // Relaxed: closing is not ordered with messages of other processes.
        let closed = self.core.control.word(control::CLOSED_AT).load(Relaxed) != 0;
        let ready = self.writer.has_room(len)
            && !matches!(self.line, Line::Ring(_))
            && !closed
            && self.fork_epoch == sys::fork_epoch();
        if ready {
            return Ok(());
        }
        self.make_room_slowly(len, patience)
    }

    #[cold]
    fn make_room_slowly(&mut self, len: usize, patience: Patience) -> Result<(), PublishError> {
        if self.fork_epoch != sys::fork_epoch() {
            return Err(PublishError::Forked);
        }
        if self.core.loss.happened() {
            return Err(PublishError::Corrupt);
        }
        let max = self.payload_bytes_max();
        if len > max {
            return Err(PublishError::TooLarge { need: len as u64, max: max as u64 });
        }
        if let Line::Log(pen) = &mut self.line {
            if !self.writer.has_room(len) {
                pen.roll(&mut self.writer)?;
            }
        }
        let is_ring = matches!(self.line, Line::Ring(_));
        let mut pause = None;
        while is_ring || !self.writer.has_room(len) {
            if self.core.is_closed() {
                return Err(PublishError::Closed);
            }
            match self.try_room(len) {
                Ok(()) => break,
                Err(blocked) => self.overcome(blocked, patience, &mut pause)?,
            }
        }
        if self.told {
            self.tell_blocker(0);
        }
        if self.core.is_closed() {
            return Err(PublishError::Closed);
        }
        Ok(())
    }

    /// One attempt to have room in the segment and a place in the order log.
    fn try_room(&mut self, len: usize) -> Result<(), (Obstacle, BlockReason)> {
        let reliable = self.core.shape.reliable;
        if let Line::Ring(order) = &self.line {
            order
                .reserve(&self.core.slots, reliable, &mut self.order_permitted)
                .map_err(|obstacle| (obstacle, BlockReason::Order))?;
        }
        if self.writer.has_room(len) {
            return Ok(());
        }
        let taken = self.writer.take(&self.core.slots, reliable);
        self.core.probe([self.writer.last()]);
        if self.core.loss.happened() {
            // The pins and gates that allowed it may have read as zeroes.
            return Err(Self::damage());
        }
        match taken {
            Ok(physical) => {
                self.writer.roll(physical);
                Ok(())
            }
            Err(Blocked::Gate(obstacle)) => Err((obstacle, BlockReason::Unread)),
            Err(Blocked::Pin(obstacle)) => Err((obstacle, BlockReason::Views)),
            Err(Blocked::Corrupt) => Err(Self::damage()),
        }
    }

    /// An obstacle that is nobody's.
    fn damage() -> (Obstacle, BlockReason) {
        (Obstacle { slot: usize::MAX, owner: Owner(0), at: 0 }, BlockReason::Views)
    }

    /// Removes what stands in the way, or waits, or gives up.
    fn overcome(
        &mut self,
        (obstacle, reason): (Obstacle, BlockReason),
        patience: Patience,
        pause: &mut Option<Pause>,
    ) -> Result<(), PublishError> {
        if obstacle.slot == usize::MAX {
            return Err(PublishError::Corrupt);
        }
        if self.core.reap_if_dead(obstacle.slot, obstacle.owner) {
            return Ok(());
        }
        // One of those who hold views was named. Another one, of another segment, may be dead.
        if reason == BlockReason::Views && self.core.reap_the_dead() > 0 {
            return Ok(());
        }
        if pause.is_none() {
            self.writer.count_full();
            self.tell_blocker(obstacle.owner.0);
        }
        let position = self.writer.position();
        // The same subscriber, for the same message: whoever came since is not to blame for the wait.
        let key = (position, obstacle.owner.0);
        let (_, since) = *match &mut self.blocked {
            Some(blocked) if blocked.0 == key => blocked,
            blocked => blocked.insert((key, Instant::now())),
        };
        let core = &self.core;
        let pause = pause.get_or_insert_with(Pause::new);
        let limit = core.shape.evict_after_ns;
        let evicts = limit > 0 && since.elapsed() >= Duration::from_nanos(limit);
        if evicts && reason != BlockReason::Views {
            if core.slots.evict(obstacle.slot, obstacle.owner) {
                core.count(control::EVICTED_AT);
                core.wake_all();
            }
            return Ok(());
        }
        if !pause.wait(patience) {
            let head = match (reason, &self.line) {
                (BlockReason::Order, Line::Ring(order)) => order.tail(),
                _ => self.writer.position(),
            };
            let at = match reason {
                BlockReason::Views => head,
                _ => obstacle.at,
            };
            let blocker = core.blocker(obstacle, head.saturating_sub(at), reason);
            return Err(PublishError::Full { blocker });
        }
        Ok(())
    }

    /// Leaves a note for `windlass info`: whom this publisher waits for.
    fn tell_blocker(&mut self, owner: u64) {
        self.told = owner != 0;
        // Relaxed: a note for people.
        self.core.control.word(self.core.shape.blocker_at(self.lane)).store(owner, Relaxed);
    }

    /// Commits the payload that lies at the writer's position.
    #[inline]
    pub(super) fn commit(&mut self, len: usize, touched: usize) -> Result<Receipt, PublishError> {
        let (position, sequence) = match &mut self.line {
            Line::Lanes => {
                let sequence = self.writer.sequence();
                (self.writer.commit(len, touched), sequence)
            }
            Line::Ring(order) => {
                let position = self.writer.commit(len, touched);
                let place = Place { lane: self.lane, position };
                (position, order.append(place).ok_or(PublishError::Corrupt)?)
            }
            Line::Log(pen) => {
                let committed = pen.commit(&mut self.writer, len, touched, &Append::new());
                if committed.is_err() {
                    // What was written is still there: the next loan is not to find it.
                    self.writer.lend();
                }
                committed?
            }
        };
        self.tell(position, sequence)
    }

    /// Tells whoever sleeps of the message that was committed.
    #[inline]
    pub(super) fn tell(&mut self, position: u64, sequence: u64) -> Result<Receipt, PublishError> {
        if self.core.bell.is_wanted() {
            self.core.ring();
        }
        if self.core.loss.happened() {
            // Some of the stores above may have gone where nobody reads. The next call does not get here.
            self.writer.seal();
            return Err(PublishError::Corrupt);
        }
        Ok(Receipt { lane: self.lane as u32, sequence, position })
    }
}

impl Publisher<Raw> {
    /// Publishes a copy of `payload`, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`], [`PublishError::Closed`], [`PublishError::Forked`], [`PublishError::Corrupt`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use windlass::{Bus, Raw, Start};
    ///
    /// let bus = Bus::anonymous()?;
    /// let topic = bus.topic::<Raw>("greetings").open()?;
    /// let mut subscriber = topic.subscriber(Start::Oldest)?;
    /// let receipt = topic.publisher()?.publish(b"hello")?;
    /// assert_eq!(receipt.sequence, 0);
    /// assert_eq!(subscriber.try_recv()?.expect("it was published").bytes(), b"hello");
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn publish(&mut self, payload: &[u8]) -> Result<Receipt, PublishError> {
        self.publish_within(payload, Patience::Forever)
    }

    /// Publishes a copy of `payload` if there is room now.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] names who blocks; the others as for [`publish`](Self::publish).
    #[inline]
    pub fn try_publish(&mut self, payload: &[u8]) -> Result<Receipt, PublishError> {
        self.publish_within(payload, Patience::Never)
    }

    /// Publishes a copy of `payload`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_publish`](Self::try_publish).
    pub fn publish_timeout(
        &mut self,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<Receipt, PublishError> {
        self.publish_within(payload, Patience::within(timeout))
    }

    /// Publishes copies of all `payloads`, waiting for room as long as it takes; returns how many.
    ///
    /// Each message becomes visible as it is committed.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish), with the number published before the error.
    pub fn publish_batch<I>(&mut self, payloads: I) -> Result<u64, (u64, PublishError)>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        let mut count = 0;
        for payload in payloads {
            self.publish(payload.as_ref()).map_err(|error| (count, error))?;
            count += 1;
        }
        Ok(count)
    }

    #[inline]
    fn publish_within(
        &mut self,
        payload: &[u8],
        patience: Patience,
    ) -> Result<Receipt, PublishError> {
        self.make_room(payload.len(), patience)?;
        self.write_ahead(payload.len());
        self.writer.space(payload.len()).copy_from_slice(payload);
        self.commit(payload.len(), payload.len())
    }

    /// Keeps the lines of small messages clean, and so owned, ahead of the position.
    #[inline]
    pub(super) fn write_ahead(&mut self, len: usize) {
        if frame::frame_bytes(len) <= crate::limits::CLEAN_AHEAD_BYTES {
            self.writer.clean(len);
        }
    }
}

impl<T: Payload> Drop for Publisher<T> {
    fn drop(&mut self) {
        if self.fork_epoch == sys::fork_epoch() {
            self.core.release_lease(self.lane, self.owner);
        }
    }
}

impl<T: Payload> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("topic", &self.core.name)
            .field("lane", &self.lane)
            .field("sequence", &self.sequence())
            .finish()
    }
}

#[cfg(test)]
mod tests;
