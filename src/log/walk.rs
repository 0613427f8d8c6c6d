//! Following the order of a log that nobody uses, and judging its records.

use crate::error::{ErrorKind, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::log::{places_file, segment_file, Checkpoint};
use crate::layout::order::Place;
use crate::layout::record;
use crate::limits::PLACES;
use crate::log::files::{Listing, LogFiles, Segment};
use crate::log::recover::{begin_of, is_lost};
use crate::ring::log::Piece;
use crate::shm::map::Access;
use std::fs::File;

/// Follows the end of a log.
pub struct Walk<'a> {
    files: &'a LogFiles,
    lanes: Vec<LaneWalk>,
    /// Places that were taken, of those that were looked at.
    pub checked: u64,
    /// Records that are kept and sound.
    pub sound: u64,
}

/// How far a lane was followed.
#[derive(Default)]
struct LaneWalk {
    /// Where its next record is and what number it has, if that is known.
    next: Option<(u64, u64)>,
    /// Whether the next record may also be further on: something before it is damaged.
    is_loose: bool,
    /// The first segment that no damaged record which is kept was in: nothing may be published in its place.
    clear_from: u64,
    /// The segment that was looked at last.
    segment: Option<Segment>,
}

/// How many segments behind the last one that is there a place may say that a record was.
const LOST_SEGMENTS_MAX: u64 = 1024;

/// What was found, or `None` if it is gone or damaged.
pub fn unless_lost<T>(found: Result<Option<T>>) -> Result<Option<T>> {
    match found {
        Err(error) if is_lost(&error) => Ok(None),
        found => found,
    }
}

impl<'a> Walk<'a> {
    /// A walk that begins where a checkpoint says that the lanes end; anywhere in them if there is none.
    pub fn new(files: &'a LogFiles, known: Option<&Checkpoint>) -> Self {
        let bytes = files.shape.segment_bytes;
        let begin = |lane: usize| {
            let next = known.map(|known| {
                let end = known.ends[lane].max(begin_of(files, known.ends[lane] / bytes));
                (end, known.numbers[lane])
            });
            LaneWalk { next, ..LaneWalk::default() }
        };
        let lanes = (0..files.shape.publishers_max as usize).map(begin).collect();
        Self { files, lanes, checked: 0, sound: 0 }
    }

    /// Follows the order from sequence `from` on: up to the first record that is not sound if `is_strict`, else past
    /// those and up to the last one that is. Returns the sequence behind the last one that is kept. All that is kept
    /// is on disk then.
    pub fn follow(&mut self, from: u64, pieces: &[u64], is_strict: bool) -> Result<u64> {
        let (mut next, mut damaged) = (from, Vec::new());
        'order: for number in pieces.iter().copied().filter(|number| *number >= from / PLACES) {
            if is_strict && number != next / PLACES {
                break;
            }
            let Some((piece, file)) = self.piece(number)? else { continue };
            let first = from.max(number * PLACES);
            for sequence in first..(number + 1) * PLACES {
                let place = piece.read(sequence);
                self.checked += u64::from(place.is_some());
                let is_sound = match place {
                    Some(place) => self.is_sound(place)?,
                    None => false,
                };
                if is_sound {
                    next = sequence + 1;
                    self.sound += 1;
                    damaged.drain(..).for_each(|place| self.keep_damaged(place));
                } else if is_strict {
                    self.put_on_disk(&file)?;
                    break 'order;
                } else {
                    damaged.extend(place);
                    self.lanes.iter_mut().for_each(|lane| lane.is_loose = true);
                }
            }
            self.put_on_disk(&file)?;
        }
        for lane in 0..self.lanes.len() {
            self.leave(lane)?;
        }
        Ok(next)
    }

    /// Whether a record of its lane is at this place, whole, and the next one. Goes on behind it if so.
    fn is_sound(&mut self, place: Place) -> Result<bool> {
        let bytes = self.files.shape.segment_bytes;
        let (logical, at) = (place.position / bytes, (place.position % bytes) as usize);
        let Some(lane) = self.lanes.get(place.lane) else { return Ok(false) };
        let follows = lane.next.is_none_or(|(next, _)| {
            let is_next =
                place.position == next || place.position == begin_of(self.files, next / bytes + 1);
            is_next || (lane.is_loose && place.position > next)
        });
        if !follows || at < PROLOGUE || !self.stand_in(place.lane, logical)? {
            return Ok(false);
        }
        let lane = &mut self.lanes[place.lane];
        let Some(segment) = &lane.segment else { return Ok(false) };
        let Some(found) = segment.lane.record(at) else { return Ok(false) };
        let number = match lane.next {
            Some((_, number)) if !lane.is_loose => number,
            Some((_, least)) => record::number(found.head, least),
            None => record::number(found.head, segment.lane.first_number(logical).unwrap_or(0)),
        };
        let is_sound = record::is_numbered(found.head, number)
            && (!self.files.shape.checksums || segment.lane.is_sound(&found, segment.seed));
        if is_sound {
            lane.next = Some((logical * bytes + found.end() as u64, number + 1));
            lane.is_loose = false;
        }
        self.files.check_loss()?;
        Ok(is_sound)
    }

    /// Sees to it that no record will lie where this place, which is kept, says that one was.
    fn keep_damaged(&mut self, place: Place) {
        let logical = place.position / self.files.shape.segment_bytes;
        if let Some(lane) = self.lanes.get_mut(place.lane) {
            lane.clear_from = lane.clear_from.max(logical + 1);
        }
    }

    /// Maps the segment that the next record of a lane is in. False if it is lost.
    fn stand_in(&mut self, lane: usize, logical: u64) -> Result<bool> {
        let is_there = |segment: &Segment| segment.logical == logical;
        if self.lanes[lane].segment.as_ref().is_some_and(is_there) {
            return Ok(true);
        }
        self.leave(lane)?;
        let name = segment_file(lane, logical);
        let header = self.files.shape.segment_header(self.files.identity, lane, logical);
        let open = || self.files.segment(lane, logical, Access::Read);
        let found = match open() {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                self.files.mend(&name, &header)?;
                open()
            }
            found => found,
        };
        self.lanes[lane].segment = unless_lost(found)?;
        Ok(self.lanes[lane].segment.is_some())
    }

    /// Puts on disk what is in the segment that a lane was followed in.
    fn leave(&mut self, lane: usize) -> Result<()> {
        let Some(segment) = self.lanes[lane].segment.take() else { return Ok(()) };
        self.put_on_disk(segment.file())
    }

    fn put_on_disk(&self, file: &File) -> Result<()> {
        step!("recover.sync");
        file.sync_data().map_err(|error| self.files.cannot_sync(error))
    }

    fn piece(&self, number: u64) -> Result<Option<(Piece, File)>> {
        let open = || self.files.piece(number, Access::Read);
        match open() {
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                let header = self.files.shape.places_header(self.files.identity, number);
                self.files.mend(&places_file(number), &header)?;
                unless_lost(open())
            }
            found => found,
        }
    }

    /// Sees to it that the piece that publishers go on in can be used, if it is there.
    pub fn mend_piece(&self, number: u64, listing: &Listing) -> Result<()> {
        if listing.pieces.contains(&number) {
            self.piece(number)?;
        }
        Ok(())
    }

    /// Where a lane ends, and the number of its next record.
    pub fn end_of(&mut self, lane: usize, segments: &[u64]) -> Result<(u64, u64)> {
        let newest = segments.last().copied();
        if let Some((end, number)) = self.lanes[lane].next {
            let logical = end / self.files.shape.segment_bytes;
            let clear_from = self.lanes[lane].clear_from;
            // A place that points far away is damage of its own.
            let most = newest.unwrap_or(0).max(logical) + LOST_SEGMENTS_MAX;
            if (logical + 1..=most).contains(&clear_from) {
                return Ok((begin_of(self.files, clear_from), number));
            }
            if segments.contains(&logical) {
                self.stand_in(lane, logical)?;
                self.leave(lane)?;
            }
            return Ok((end, number));
        }
        // Nothing of it is in the part of the order that was looked at: it goes on in a new segment.
        let Some(newest) = newest else { return Ok((begin_of(self.files, 0), 0)) };
        let mut number = 0;
        if self.stand_in(lane, newest)? {
            let Some(segment) = &self.lanes[lane].segment else { return Ok((0, 0)) };
            number = segment.lane.first_number(newest).unwrap_or(0);
            let mut at = PROLOGUE;
            while let Some(record) = segment.lane.record(at) {
                (at, number) = (record.end(), number + 1);
            }
        }
        self.leave(lane)?;
        Ok((begin_of(self.files, newest + 1), number))
    }
}
