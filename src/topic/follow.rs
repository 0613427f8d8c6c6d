//! How a subscriber of a durable topic follows its log: from record to record, segment to segment, past what was
//! deleted and past what is damaged.

use crate::error::ErrorKind;
use crate::layout::frame::PROLOGUE;
use crate::layout::order::Place;
use crate::limits::PLACES;
use crate::log::files::Segment;
use crate::log::trail::Trail;
use crate::ring::reader::Reader;
use crate::topic::outcome::RecvError;
use crate::topic::payload::Payload;
use crate::topic::subscriber::{Cursor, Found, Subscriber};
use crate::topic::view::Hold;

/// What became of an attempt to stand at a record.
enum Stood {
    /// The reader of its lane stands there.
    There,
    /// Its segment is not there.
    Gone,
    /// It is not what was published.
    Damaged,
}

impl<T: Payload> Subscriber<T> {
    /// The next message, if it follows in the segment that the reader of its lane stands in.
    #[inline]
    pub(super) fn next_in_log(&self, trail: &Trail) -> Option<Found> {
        let place = trail.place()?;
        let lane = (*self.index_of.get(place.lane)?)?;
        let reader = &self.lanes[lane].reader;
        let record = reader.record(place.position)?;
        let sequence = trail.next.get();
        if sequence < trail.checked_below {
            let seed = self.lanes[lane].seed;
            if !reader.lane().is_sound(&record, seed) {
                return None;
            }
        }
        reader.pass(&record);
        trail.next.set(sequence + 1);
        let offset = reader.lane().payload_of(&record);
        Some(Found { lane, offset, len: record.len, sequence, lane_sequence: 0 })
    }

    /// Moves the reader of the next message's lane to it. True if it stands there.
    pub(super) fn seek_in_log(&mut self) -> Result<bool, RecvError> {
        loop {
            let Some(trail) = &mut self.trail else { return Ok(false) };
            let (next, first) = (trail.next.get(), trail.log.first());
            if next < first {
                trail.next.set(first);
                self.lose_count();
                self.overtaken(first - next)?;
                continue;
            }
            match trail.turn() {
                Ok(true) => {}
                // Deleted since, or not made yet.
                Ok(false) if trail.log.first() > next => continue,
                Ok(false) => return Ok(false),
                Err(error) => {
                    tracing::error!(topic = %self.core.name, %error, "cannot map the order of a log");
                    return Err(RecvError::Corrupt);
                }
            }
            let Some(place) = trail.place() else { return Ok(false) };
            match self.stand_at(place, next)? {
                Stood::There => {
                    self.publish_cursors();
                    return Ok(true);
                }
                Stood::Gone
                    if self.trail.as_ref().is_some_and(|trail| trail.log.first() > next) => {}
                Stood::Gone | Stood::Damaged => return Err(self.pass_damaged(next)),
            }
        }
    }

    /// The sequence of the message that comes next, or of the one behind what is lost.
    pub(crate) fn due(&self) -> u64 {
        self.trail.as_ref().map_or(0, |trail| trail.next.get())
    }

    /// Goes on behind a message that is not what was published.
    fn pass_damaged(&mut self, sequence: u64) -> RecvError {
        if let Some(trail) = &self.trail {
            trail.next.set(sequence + 1);
        }
        self.missed = self.missed.saturating_add(1);
        self.lose_count();
        RecvError::Damaged { sequence }
    }

    /// From now on the next record of each lane may be anywhere ahead.
    fn lose_count(&mut self) {
        self.lanes.iter_mut().for_each(|cursor| cursor.gate = 0);
    }

    fn stand_at(&mut self, place: Place, sequence: u64) -> Result<Stood, RecvError> {
        let Some(trail) = &self.trail else { return Ok(Stood::Damaged) };
        let Some(index) = self.index_of.get(place.lane).copied() else { return Ok(Stood::Damaged) };
        let bytes = trail.log.files.shape.segment_bytes;
        let (logical, at) = (place.position / bytes, (place.position % bytes) as usize);
        if let Some(index) = index {
            let cursor = &self.lanes[index];
            // The records of a lane follow each other, each where the one before it ends or its segment begins.
            let here = cursor.reader.position();
            let begins = (here / bytes + 1) * bytes + PROLOGUE as u64;
            let is_known = cursor.gate != 0;
            let follows = place.position == here || place.position == begins;
            if place.position < here || (is_known && !follows) {
                return Ok(Stood::Damaged);
            }
        }
        let log = trail.log.clone();
        let mapped =
            index.map(|index| &self.lanes[index]).filter(|it| it.reader.logical() == logical);
        let segment = match mapped {
            Some(cursor) => (cursor.reader.lane().clone(), cursor.seed, cursor.hold.clone()),
            None => match log.segment(place.lane, logical) {
                Ok(Some(Segment { lane, seed, .. })) => {
                    let hold = Hold::in_log(lane.clone(), log.files.loss.clone());
                    (lane, seed, hold)
                }
                Ok(None) => return Ok(Stood::Gone),
                Err(error) => return self.unmapped(place.lane, &error),
            },
        };
        let (lane, seed, hold) = segment;
        let Some(record) = lane.record(at) else { return Ok(Stood::Damaged) };
        if sequence < trail.checked_below && !lane.is_sound(&record, seed) {
            return Ok(Stood::Damaged);
        }
        // A gate that is not zero says that the next record of the lane follows this one.
        let cursor = Cursor { reader: Reader::in_log(lane, logical, at), hold, gate: 1, seed };
        match index {
            Some(index) => self.lanes[index] = cursor,
            None => {
                self.index_of[place.lane] = Some(self.lanes.len());
                self.lanes.push(cursor);
            }
        }
        Ok(Stood::There)
    }

    fn unmapped(&self, lane: usize, error: &crate::error::Error) -> Result<Stood, RecvError> {
        tracing::error!(topic = %self.core.name, lane, %error, "cannot map a segment");
        match error.kind() {
            // Not a file of this log, or not whole.
            ErrorKind::Corrupt | ErrorKind::Mismatch => Ok(Stood::Damaged),
            _ => Err(RecvError::Unmapped { lane: lane as u32 }),
        }
    }

    /// Whether a place is gone that was taken: what was found to be missing is damaged.
    pub(super) fn check_wait_in_log(&mut self) -> Result<(), RecvError> {
        let Some(trail) = &mut self.trail else { return Ok(()) };
        let next = trail.next.get();
        let tail = trail.log.head.tail();
        if tail <= next || trail.log.first() > next || trail.turn().is_err() {
            return Ok(());
        }
        if trail.piece.is_some() && trail.place().is_none() {
            return Err(self.pass_damaged(next));
        }
        let lost = (next / PLACES + 1) * PLACES;
        if trail.piece.is_none() && trail.log.first() <= next {
            trail.next.set(lost.min(tail));
            self.missed = self.missed.saturating_add(lost.min(tail) - next - 1);
            self.lose_count();
            return Err(RecvError::Damaged { sequence: next });
        }
        Ok(())
    }
}
