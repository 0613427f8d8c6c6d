//! Iterating over a stretch of a log.

use crate::layout::order::Place;
use crate::log::cache::{Cache, Miss};
use crate::log::outcome::{Damage, ReadError};
use crate::log::reader::{Log, Verdict};
use crate::log::record::Record;
use crate::ring::log::Piece;
use crate::ring::record::Record as Lain;
use crate::topic::payload::Payload;
use crate::topic::view::{Hold, View};
use std::iter::FusedIterator;
use std::ops::Range;
use std::sync::Arc;

/// Messages of a log, in their order or, from the other end, against it; see [`Log::iter`].
pub struct Iter<'a, T: Payload> {
    log: &'a Log<T>,
    left: Range<u64>,
}

impl<'a, T: Payload> Iter<'a, T> {
    pub(super) fn new(log: &'a Log<T>, left: Range<u64>) -> Self {
        Self { log, left }
    }

    /// The sequences that are still to come.
    pub fn left(&self) -> Range<u64> {
        self.left.clone()
    }

    #[cold]
    fn miss(&mut self, sequence: u64, miss: Miss) -> Option<Result<View<T>, ReadError>> {
        Some(match self.log.judge(sequence, miss) {
            Ok(Verdict::There(view)) => Ok(view),
            verdict => Err(told(verdict, sequence, &mut self.left)),
        })
    }
}

impl<T: Payload> Iterator for Iter<'_, T> {
    type Item = Result<View<T>, ReadError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let sequence = self.left.next()?;
        match self.log.look(sequence) {
            Ok(view) => Some(Ok(view)),
            Err(miss) => self.miss(sequence, miss),
        }
    }

    fn nth(&mut self, count: usize) -> Option<Self::Item> {
        self.left.start = self.left.start.saturating_add(count as u64).min(self.left.end);
        self.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Those that were deleted meanwhile are told of at once.
        (usize::from(!self.left.is_empty()), self.left.size_hint().1)
    }
}

impl<T: Payload> DoubleEndedIterator for Iter<'_, T> {
    #[inline]
    fn next_back(&mut self) -> Option<Self::Item> {
        let sequence = self.left.next_back()?;
        match self.log.look(sequence) {
            Ok(view) => Some(Ok(view)),
            Err(miss) => self.miss(sequence, miss),
        }
    }
}

impl<T: Payload> FusedIterator for Iter<'_, T> {}

/// A segment that a scan is in.
struct Here {
    hold: Arc<Hold>,
    /// The position of its first byte.
    begins: u64,
    seed: u32,
}

/// Messages of a log in their order, lent one at a time; see [`Log::scan`].
pub struct Scan<'a, T: Payload> {
    log: &'a Log<T>,
    left: Range<u64>,
    cache: Cache,
    /// The piece of the order, and the segment of each lane, that the last message was in.
    piece: Option<Piece>,
    lanes: Vec<Option<Here>>,
    segment_bytes: u64,
    checked: bool,
}

/// A message that was found: its lane, its position, and its record.
struct Found {
    place: Place,
    record: Lain,
}

impl<'a, T: Payload> Scan<'a, T> {
    pub(super) fn new(log: &'a Log<T>, left: Range<u64>) -> Self {
        let shape = &log.source.files().shape;
        let lanes = (0..shape.publishers_max).map(|_| None).collect();
        let segment_bytes = shape.segment_bytes;
        let (cache, checked) = (Cache::new(), log.checked);
        Self { log, left, cache, piece: None, lanes, segment_bytes, checked }
    }

    /// The sequences that are still to come.
    pub fn left(&self) -> Range<u64> {
        self.left.clone()
    }

    /// The next message; `None` at the end.
    ///
    /// # Errors
    ///
    /// As [`ReadError`] says. The next call goes on behind what was said.
    #[inline]
    pub fn read(&mut self) -> Option<Result<Record<'_, T>, ReadError>> {
        let mut sequence = self.left.start;
        if sequence >= self.left.end {
            return None;
        }
        self.left.start = sequence + 1;
        let found = match self.find(sequence) {
            Some(found) => found,
            None => match self.find_beyond() {
                Ok(found) => {
                    sequence = self.left.start - 1;
                    found
                }
                Err(error) => return Some(Err(error)),
            },
        };
        // It was found there.
        let here = self.lanes[found.place.lane].as_ref()?;
        Some(Ok(Record::new(&here.hold, found.place.position, found.record, sequence)))
    }

    /// A message in the piece and the segments that this scan is in.
    #[inline]
    fn find(&self, sequence: u64) -> Option<Found> {
        let piece = self.piece.as_ref()?;
        if !piece.covers(sequence) {
            return None;
        }
        let place = piece.read(sequence)?;
        let here = self.lanes.get(place.lane)?.as_ref()?;
        let at = place.position.wrapping_sub(here.begins);
        if at >= self.segment_bytes {
            return None;
        }
        let lane = here.hold.lane();
        let record = lane.record(at as usize)?;
        let sound = match self.checked {
            true => lane.is_sound(&record, here.seed),
            // What was not checked may have read as zeroes.
            false => here.hold.is_intact(),
        };
        sound.then_some(Found { place, record })
    }

    /// The message that was passed last, wherever it is, or what is said in its place.
    #[cold]
    #[inline(never)]
    fn find_beyond(&mut self) -> Result<Found, ReadError> {
        let sequence = self.left.start - 1;
        loop {
            match self.turn_to(sequence) {
                Ok(found) => return Ok(found),
                Err(miss) => match self.log.judge(sequence, miss) {
                    Ok(Verdict::There(_)) => {}
                    verdict => return Err(told(verdict, sequence, &mut self.left)),
                },
            }
        }
    }

    /// Enters the piece and the segment of a message.
    fn turn_to(&mut self, sequence: u64) -> Result<Found, Miss> {
        let source = &self.log.source;
        let place = self.cache.place(source, sequence)?;
        self.piece = self.cache.piece().cloned();
        let (kept, record) = self.cache.record(source, sequence, self.log.checked)?;
        let mapped = self.cache.mapped(kept);
        let begins = mapped.logical * self.segment_bytes;
        let here = Here { hold: mapped.hold.clone(), begins, seed: mapped.seed };
        self.lanes[place.lane] = Some(here);
        Ok(Found { place, record })
    }

    /// Calls `each` with every message that is left, and with what is said in the place of others.
    pub fn for_each(mut self, mut each: impl FnMut(Result<Record<'_, T>, ReadError>)) {
        while let Some(found) = self.read() {
            each(found);
        }
    }
}

/// What is said in the place of a message that is not there, when all but those in `left` were passed. If it was
/// deleted, so were all before it: they are missed together.
fn told<T: Payload>(
    verdict: crate::error::Result<Verdict<T>>,
    sequence: u64,
    left: &mut Range<u64>,
) -> ReadError {
    match verdict {
        Ok(Verdict::Lost(error)) => error,
        Ok(Verdict::Deleted { first }) => {
            // From either end: what was met counts, and nothing below it is left.
            let (from, to) = (left.start.min(sequence), first.min(left.end));
            let missed = to.max(sequence + 1) - from;
            left.start = to.max(left.start);
            ReadError::Lagged { missed }
        }
        // The end of an iteration lies within the log: the place is gone.
        Ok(_) => ReadError::Damaged { sequence, damage: Damage::Place },
        Err(error) => ReadError::Unmapped { sequence, kind: error.kind() },
    }
}
