//! How a subscriber gets from segment to segment and from lane to lane, and what it missed on the way.

use crate::error::ErrorKind;
use crate::log::trail::Trail;
use crate::ring::lane::Corrupt;
use crate::ring::order::{Found as Placed, TAIL_MAX};
use crate::ring::reader::{Entered, Poll, Reader};
use crate::topic::outcome::RecvError;
use crate::topic::payload::Payload;
use crate::topic::subscriber::{Cursor, Subscriber};
use crate::topic::view::Hold;

/// Looks in vain, after which a subscriber asks whether a word is gone that should be there. Publishers write what it
/// looks at then, so it does not look often.
const LOOKS_PER_CHECK: u32 = 256;

impl<T: Payload> Subscriber<T> {
    /// Turns to the next lane that has a message. True if `turn` stands at one.
    pub(super) fn seek_in_lanes(&mut self) -> Result<bool, RecvError> {
        let count = self.lanes.len();
        for step in 1..=count {
            let lane = (self.turn + step) % count;
            loop {
                match self.lanes[lane].reader.poll() {
                    Poll::Empty => break,
                    Poll::Frame { .. } => {
                        self.turn = lane;
                        return Ok(true);
                    }
                    Poll::Next => self.follow(lane)?,
                    Poll::Corrupt => return Err(RecvError::Corrupt),
                }
            }
        }
        Ok(false)
    }

    /// Goes on in the next segment of a lane, or where a publisher that overtook left something.
    fn follow(&mut self, lane: usize) -> Result<(), RecvError> {
        let reader = &mut self.lanes[lane].reader;
        let due = reader.sequence();
        let missed = reader.follow().and_then(|entered| {
            if entered == Entered::Inside {
                return Ok(None);
            }
            reader.seek_oldest()?;
            reader.sequence().checked_sub(due).map(Some).ok_or(Corrupt)
        });
        match missed {
            Ok(None) => {}
            Ok(Some(missed)) => self.overtaken(missed)?,
            Err(Corrupt) => {
                // The reader may stand nowhere now. Nothing is read with it any more.
                self.damaged = true;
                self.turn = usize::MAX;
                return Err(RecvError::Corrupt);
            }
        }
        self.publish_cursors();
        Ok(())
    }

    /// Reports that `missed` messages are gone, or why that should not be possible.
    pub(super) fn overtaken(&mut self, missed: u64) -> Result<(), RecvError> {
        if !self.is_active() {
            return Err(self.evict(missed));
        }
        if self.core.shape.reliable {
            return Err(RecvError::Corrupt);
        }
        self.missed = self.missed.saturating_add(missed);
        if missed > 0 {
            return Err(RecvError::Lagged { missed });
        }
        Ok(())
    }

    /// Ends a subscriber that a publisher evicted; `missed` messages of its backlog are counted already.
    pub(super) fn evict(&mut self, missed: u64) -> RecvError {
        let missed = missed.saturating_add(self.backlog());
        self.let_go();
        self.missed = self.missed.saturating_add(missed);
        self.evicted = Some(missed);
        RecvError::Evicted { missed }
    }

    /// Moves the reader of the next place of the order log to its frame. True if it stands there.
    pub(super) fn seek_in_order(&mut self) -> Result<bool, RecvError> {
        loop {
            let Some((order, index)) = &self.order else { return Ok(false) };
            let at = index.get();
            let place = match order.read(at) {
                Placed::Empty => return Ok(false),
                Placed::Corrupt => return Err(RecvError::Corrupt),
                Placed::Place(place) => place,
                Placed::Lapped => {
                    let floor = order.floor();
                    // The floor is raised first, and stays below the tail.
                    if floor <= at || floor > order.tail().min(TAIL_MAX) {
                        return Err(RecvError::Corrupt);
                    }
                    index.set(floor);
                    self.unreported += floor - at;
                    continue;
                }
            };
            if self.index_of[place.lane].is_none() {
                self.open_new_lanes()?;
            }
            let Some(lane) = self.index_of[place.lane] else {
                // In a topic that was removed it is somebody new, and one order has nothing behind.
                return Err(match self.core.is_removed() {
                    true => RecvError::Closed,
                    false => RecvError::Corrupt,
                });
            };
            let reader = &mut self.lanes[lane].reader;
            let inside = reader.pinned().is_some();
            if inside && place.position < reader.position() {
                // The log holds the messages of a lane in their order.
                return Err(RecvError::Corrupt);
            }
            if inside && self.core.shape.reliable && !reader.is_next(place.position) {
                self.overtaken(0)?;
            }
            let reader = &mut self.lanes[lane].reader;
            let here = inside && reader.position() == place.position;
            if here || reader.seek_position(place.position).map_err(|_| RecvError::Corrupt)? {
                return self.arrived(lane);
            }
            // Its segment was taken back: one message missed.
            if let Some((_, index)) = &self.order {
                index.set(at + 1);
            }
            self.unreported += 1;
            if self.core.shape.reliable && self.is_active() {
                return Err(RecvError::Corrupt);
            }
        }
    }

    /// From time to time while there is nothing to read, or `now`: whether that can be.
    pub(super) fn check_wait(&mut self, now: bool) -> Result<(), RecvError> {
        self.vain = self.vain.wrapping_add(1);
        let now = now || self.trail.as_ref().is_some_and(Trail::is_taken);
        if !now && !self.vain.is_multiple_of(LOOKS_PER_CHECK) {
            return Ok(());
        }
        if self.trail.is_some() {
            return self.check_wait_in_log();
        }
        let sound = match &self.order {
            Some((order, index)) => order.check_wait(index.get()),
            None => self.lanes.iter().try_for_each(|cursor| cursor.reader.check_wait()),
        };
        sound.map_err(|Corrupt| RecvError::Corrupt)
    }

    /// The reader of `lane` stands at the next place of the order log.
    fn arrived(&mut self, lane: usize) -> Result<bool, RecvError> {
        if self.unreported > 0 {
            let missed = std::mem::take(&mut self.unreported);
            return self.overtaken(missed).map(|()| true);
        }
        if !matches!(self.lanes[lane].reader.poll(), Poll::Frame { .. }) {
            return Err(RecvError::Corrupt);
        }
        self.publish_cursors();
        Ok(true)
    }

    /// Begins to read lanes that were born since the last look.
    pub(super) fn open_new_lanes(&mut self) -> Result<(), RecvError> {
        let count = self.core.born_count();
        for lane in 0..self.index_of.len() {
            if self.index_of[lane].is_some() {
                continue;
            }
            let mapped = match self.core.lane(lane) {
                Ok(Some(mapped)) => mapped,
                Ok(None) => continue,
                // Whoever has a removed topic open meets nobody new.
                Err(error) if error.kind() == ErrorKind::NotFound && self.core.is_removed() => {
                    continue;
                }
                Err(error) => {
                    tracing::error!(topic = %self.core.name, lane, %error, "cannot map a new lane");
                    return Err(match error.kind() {
                        ErrorKind::Corrupt => RecvError::Corrupt,
                        _ => RecvError::Unmapped { lane: lane as u32 },
                    });
                }
            };
            let mut reader = Reader::new(mapped, self.claimed.slot);
            // This subscriber is older than the lane: everything since the lane's birth is due. On an ordered topic the
            // order log says when.
            let mut missed = 0;
            if self.order.is_none() {
                reader.seek_oldest().map_err(|_| RecvError::Corrupt)?;
                missed = reader.sequence();
            }
            self.index_of[lane] = Some(self.lanes.len());
            let hold = Hold::new(reader.lane().clone(), self.slot.clone());
            // A lane that was born while this subscriber joined may have its gate ahead of the reader already. It must
            // not fall back: nothing that is due would raise it again.
            let gate = self.core.slots.gate_of(self.claimed.slot, lane);
            self.lanes.push(Cursor { reader, hold, gate, seed: 0 });
            if missed > 0 {
                self.overtaken(missed)?;
            }
        }
        self.born_seen = count;
        Ok(())
    }

    /// Messages that are committed and that this subscriber has not read, as far as it can see.
    pub(super) fn backlog(&self) -> u64 {
        if self.evicted.is_some() {
            return 0;
        }
        if let Some((order, index)) = &self.order {
            return order.tail().saturating_sub(index.get());
        }
        if let Some(trail) = &self.trail {
            return trail.log.head.tail().saturating_sub(trail.next.get());
        }
        let behind = |lane: usize| {
            // A lane that was born since the last look is due from its birth.
            let due = self.index_of[lane].map_or(0, |index| self.lanes[index].reader.sequence());
            let lane = self.core.lane(lane).ok().flatten()?;
            // A busy publisher may roll between two looks; then the next one is at its new segment.
            let (sequence, _) = (0..100).find_map(|_| lane.look_at_tail().ok().flatten())?;
            Some(sequence.saturating_sub(due))
        };
        (0..self.index_of.len()).filter_map(behind).sum()
    }
}
