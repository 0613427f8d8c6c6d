//! Iterating over a stretch of a log.

use crate::log::cache::{Cache, Miss};
use crate::log::outcome::{Damage, ReadError};
use crate::log::reader::{Log, Verdict};
use crate::log::record::Record;
use crate::topic::payload::Payload;
use crate::topic::view::View;
use std::iter::FusedIterator;
use std::ops::Range;

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

/// Messages of a log in their order, lent one at a time; see [`Log::scan`].
pub struct Scan<'a, T: Payload> {
    log: &'a Log<T>,
    left: Range<u64>,
    cache: Cache,
}

impl<'a, T: Payload> Scan<'a, T> {
    pub(super) fn new(log: &'a Log<T>, left: Range<u64>) -> Self {
        Self { log, left, cache: Cache::new() }
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
        let log = self.log;
        loop {
            let sequence = self.left.next()?;
            match self.cache.record(&log.source, sequence, log.checked) {
                Ok((at, found)) => {
                    let mapped = self.cache.mapped(at);
                    let record = Record::new(&mapped.hold, mapped.logical, found, sequence);
                    return Some(Ok(record));
                }
                Err(miss) => match self.miss(sequence, miss) {
                    Some(error) => return Some(Err(error)),
                    None => self.left.start = sequence,
                },
            }
        }
    }

    /// Calls `each` with every message that is left, and with what is said in the place of others.
    pub fn for_each(mut self, mut each: impl FnMut(Result<Record<'_, T>, ReadError>)) {
        while let Some(found) = self.read() {
            each(found);
        }
    }

    /// What is said in the place of a message that is not there; `None` if it is there now.
    #[cold]
    fn miss(&mut self, sequence: u64, miss: Miss) -> Option<ReadError> {
        match self.log.judge(sequence, miss) {
            Ok(Verdict::There(_)) => None,
            verdict => Some(told(verdict, sequence, &mut self.left)),
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
