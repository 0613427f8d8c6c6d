//! How far a log is on disk.
//!
//! A message is on disk when its record is, and its place, and the same holds for all messages below it. The ledger
//! follows the order from what is known to be on disk, asks for the written ranges of the lanes, and no others, to be
//! put there, then for the places, and raises `synced` over what is there now. It knows where each lane stands at that
//! sequence: what a [`checkpoint`] says.
//!
//! Lanes are put on disk by the process that writes them. Each lane has a word that says how far it is, so the ledgers
//! of several processes add up. A lane that stays behind for two rounds belongs to somebody who is dead or stopped, and
//! whoever waits for it puts it on disk in its stead.

use crate::error::{Error, Result};
use crate::layout::log::{segment_file, Checkpoint};
use crate::layout::order::Place;
use crate::limits::{HEADER_BYTES, PLACES};
use crate::log::checkpoint;
use crate::log::files::{LogFiles, Segment};
use crate::ring::log::{Head, Piece};
use crate::ring::order::TAIL_MAX;
use crate::shm::map::{self, Access};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes after which somebody else gets a turn.
const STRIDE: usize = 4 << 20;

/// What is on disk.
pub struct Ledger {
    files: Arc<LogFiles>,
    head: Head,
    /// As far as everything is on disk.
    known: Checkpoint,
    /// The segment of each lane that was looked at last.
    segments: BTreeMap<usize, Segment>,
    piece: Option<Piece>,
    /// Where the last round ended that came to a lane of somebody else.
    stuck_at: Option<u64>,
}

impl Ledger {
    /// The ledger of a log.
    pub fn open(files: Arc<LogFiles>, head: Head) -> Result<Self> {
        let known = checkpoint::read(&files)?;
        let (segments, piece, stuck_at) = (BTreeMap::new(), None, None);
        Ok(Self { files, head, known, segments, piece, stuck_at })
    }

    /// What is known to be on disk.
    pub fn known(&self) -> &Checkpoint {
        &self.known
    }

    /// Puts on disk what the lanes in `mine` have, and those of others that stay behind: at once if not `patient`.
    /// Between parts of what takes long it calls the function.
    pub fn round(
        &mut self,
        mine: &[usize],
        patient: bool,
        between: &mut dyn FnMut(),
    ) -> Result<()> {
        if self.head.floor() > self.known.next {
            // Somebody else knew of more, and deleted it.
            self.known = checkpoint::read(&self.files)?;
        }
        let tail = self.head.tail().min(TAIL_MAX);
        let is_stuck = self.stuck_at == Some(self.known.next);
        for (lane, position) in self.newest_below(tail)? {
            let synced = self.head.lane_synced(lane);
            if position >= synced && (!patient || is_stuck || mine.contains(&lane)) {
                let end = self.end_of(lane, position)?;
                let from = synced.max(self.known.ends[lane]);
                self.put_lane_on_disk(lane, from, end, between)?;
                self.head.raise_lane_synced(lane, end);
            }
        }
        self.advance(tail)?;
        self.stuck_at = (self.known.next < tail).then_some(self.known.next);
        self.files.check_loss()
    }

    /// The position of the newest record of each lane below `tail` that is not known to be on disk.
    fn newest_below(&mut self, tail: u64) -> Result<BTreeMap<usize, u64>> {
        let mut newest = vec![None; self.head.lanes()];
        for sequence in self.known.next..tail {
            let place = self.place(sequence)?;
            newest[place.lane] = Some(place.position);
        }
        let found = newest.iter().enumerate();
        Ok(found.filter_map(|(lane, position)| Some((lane, (*position)?))).collect())
    }

    /// Puts the places on disk of all records that are there, and goes on behind them.
    fn advance(&mut self, tail: u64) -> Result<()> {
        let mut next = self.known.next;
        let mut known = self.known;
        let mut newest = vec![None; self.head.lanes()];
        while next < tail {
            let place = self.place(next)?;
            if place.position >= self.head.lane_synced(place.lane) {
                break;
            }
            newest[place.lane] = Some(place.position);
            known.numbers[place.lane] += 1;
            next += 1;
        }
        if next == known.next {
            return Ok(());
        }
        for (lane, position) in newest.iter().enumerate() {
            if let Some(position) = position {
                known.ends[lane] = self.end_of(lane, *position)?;
            }
        }
        step!("sync.places");
        put_places_on_disk(&self.files, known.next, next)?;
        step!("sync.raise");
        self.head.raise_synced(next);
        known.next = next;
        self.known = known;
        Ok(())
    }

    /// The place of a sequence that is taken. An input, but for the lane, which is one.
    fn place(&mut self, sequence: u64) -> Result<Place> {
        let number = sequence / PLACES;
        if self.piece.as_ref().is_none_or(|piece| piece.number() != number) {
            let found = self.files.piece(number, Access::Read)?;
            self.piece = found.map(|(piece, _)| piece);
        }
        let place = self.piece.as_ref().and_then(|piece| piece.read(sequence));
        place.filter(|place| place.lane < self.head.lanes()).ok_or_else(|| {
            let what = format!("{}: the place of message {sequence}", self.files.folder);
            Error::corrupt(what, "what it says", "nothing that was published", "a record")
        })
    }

    fn segment(&mut self, lane: usize, logical: u64) -> Result<Segment> {
        if let Some(found) = self.segments.get(&lane).filter(|found| found.logical == logical) {
            return Ok(found.clone());
        }
        let found = self.files.segment(lane, logical, Access::Read)?;
        let found = found.ok_or_else(|| self.damaged(lane, logical, "missing", "there"))?;
        // A file that is new has to be in its folder after a crash, too.
        self.files.folder.sync()?;
        self.segments.insert(lane, found.clone());
        Ok(found)
    }

    fn damaged(&self, lane: usize, logical: u64, found: &str, expected: &str) -> Error {
        let name = segment_file(lane, logical);
        Error::corrupt(format!("{}/{name}", self.files.folder), "a record", found, expected)
    }

    /// The position behind the record at `position`.
    fn end_of(&mut self, lane: usize, position: u64) -> Result<u64> {
        let bytes = self.files.shape.segment_bytes;
        let (logical, at) = (position / bytes, (position % bytes) as usize);
        let segment = self.segment(lane, logical)?;
        let record = segment.lane.record(at);
        let end = record.map(|record| logical * bytes + record.end() as u64);
        end.ok_or_else(|| self.damaged(lane, logical, "not one", "one"))
    }

    /// Puts on disk what a lane has from position `from` on, up to `to`, which the process can read.
    fn put_lane_on_disk(
        &mut self,
        lane: usize,
        from: u64,
        to: u64,
        between: &mut dyn FnMut(),
    ) -> Result<()> {
        let bytes = self.files.shape.segment_bytes;
        if from >= to {
            return Ok(());
        }
        for logical in from / bytes..=to / bytes {
            // All that was in the segment in which the lane ended before may be below the floor by now.
            let may_be_deleted = logical == from / bytes && logical < to / bytes;
            if may_be_deleted && !self.files.folder.exists(&segment_file(lane, logical))? {
                continue;
            }
            let segment = self.segment(lane, logical)?;
            let begin = from.saturating_sub(logical * bytes) as usize;
            // The header page says what is in earlier segments.
            let mut at = if begin == 0 { 0 } else { HEADER_BYTES + begin };
            let end = HEADER_BYTES + (to - logical * bytes).min(bytes) as usize;
            while at < end {
                let span = STRIDE.min(end - at);
                step!("sync.lane");
                map::sync(segment.region(), at, span)
                    .map_err(|error| cannot_sync(&self.files, error))?;
                at += span;
                between();
            }
        }
        Ok(())
    }

    /// Writes a checkpoint of all that is on disk and keeps what is from `floor` on. False if somebody else is at it.
    pub fn write(&mut self, floor: u64) -> Result<bool> {
        let floor = floor.min(self.known.next);
        let Some(written) = checkpoint::advance(&self.files, &self.known, floor)? else {
            return Ok(false);
        };
        self.known = written;
        Ok(true)
    }
}

/// Puts on disk the places from sequence `from` on, up to `to`.
pub fn put_places_on_disk(files: &LogFiles, from: u64, to: u64) -> Result<()> {
    let mut at = from;
    while at < to {
        let number = at / PLACES;
        let end = to.min((number + 1) * PLACES);
        if let Some((piece, _)) = files.piece(number, Access::Read)? {
            put_piece_on_disk(files, &piece, at, end)?;
            if at.is_multiple_of(PLACES) {
                files.folder.sync()?;
            }
        }
        at = end;
    }
    Ok(())
}

/// The same of places in one piece.
pub fn put_piece_on_disk(files: &LogFiles, piece: &Piece, from: u64, to: u64) -> Result<()> {
    let first = piece.number() * PLACES;
    let at = |sequence: u64| crate::layout::log::PLACES_AT + (sequence - first) as usize * 8;
    let begin = if from == first { 0 } else { at(from) };
    let synced = map::sync(piece.region(), begin, at(to) - begin);
    synced.map_err(|error| cannot_sync(files, error))
}

fn cannot_sync(files: &LogFiles, error: std::io::Error) -> Error {
    Error::io(format!("cannot put the log {} on disk", files.folder), error)
}
