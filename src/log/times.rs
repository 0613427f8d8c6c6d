//! When the messages of a log were published: summaries, so that a time is found without reading the log.
//!
//! Beside the places, each piece of the order has for every block of places the earliest and the latest time of its
//! records, and in its header the latest time of all records before the piece. Keepers write them, for what is on disk,
//! and any number of them may: all come to the same. What is not there is computed by whoever needs it.
//!
//! Times may be equal, and may go back when the clock of the machine is set. The latest times *before* pieces never go
//! back, so they can be searched by halves; the rest is looked through block by block.
//!
//! # Orderings
//!
//! | edge    | `Release`                     | `Acquire`            | hands over       |
//! |---------|-------------------------------|----------------------|------------------|
//! | `TIMES` | store of the latest time      | load of it           | the earliest one |

use crate::error::Result;
use crate::layout::log::{LATEST_BEFORE_AT, SUMMARIES_AT, SUMMARY_PLACES};
use crate::limits::PLACES;
use crate::log::cache::Cache;
use crate::log::source::Source;
use crate::ring::log::Piece;
use crate::shm::map::Access;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// Blocks of a piece.
const BLOCKS: u64 = PLACES / SUMMARY_PLACES;

/// Where the summary of the block with `sequence` is in the file of its piece.
fn summary_at(sequence: u64) -> usize {
    SUMMARIES_AT + (sequence % PLACES / SUMMARY_PLACES) as usize * 16
}

/// The latest time of a block, if it is known.
fn latest_of(piece: &Piece, sequence: u64) -> Option<u64> {
    // TIMES: pairs with the store in `summarise_block`.
    let latest = piece.region().word(summary_at(sequence) + 8).load(Acquire);
    (latest != 0).then_some(latest)
}

/// The earliest and the latest time of a block, if they are known.
pub fn summary_of(piece: &Piece, sequence: u64) -> Option<(u64, u64)> {
    let latest = latest_of(piece, sequence)?;
    // Relaxed: behind the TIMES edge.
    Some((piece.region().word(summary_at(sequence)).load(Relaxed), latest))
}

/// The latest time of all records before a piece, if it is known.
pub fn latest_before(piece: &Piece) -> Option<u64> {
    // Relaxed: a number by itself.
    let latest = piece.region().word(LATEST_BEFORE_AT).load(Relaxed);
    (latest != 0).then_some(latest)
}

/// Forgets the summaries of the blocks from that of `sequence` on.
pub fn forget(piece: &Piece, sequence: u64) {
    let (from, end) = (summary_at(sequence), SUMMARIES_AT + BLOCKS as usize * 16);
    let words = (from..end).step_by(8).map(|at| piece.region().word(at));
    // Relaxed: published by whatever tells others of the piece.
    words.for_each(|word| word.store(0, Relaxed));
}

/// The time of a message; `None` if it is too damaged to have one.
fn time_of(source: &Source, cache: &mut Cache, sequence: u64) -> Option<u64> {
    let (kept, record) = cache.record(source, sequence, false).ok()?;
    Some(cache.mapped(kept).hold.lane().record_time(record.at))
}

/// The first sequence from which on there is a message of this time or a later one; the next one if there is none.
pub fn at_time(source: &Source, time: u64) -> Result<u64> {
    at_time_within(source, source.first()?, source.next()?, time)
}

/// The same among the messages from `first` to `next`.
pub fn at_time_within(source: &Source, first: u64, next: u64, time: u64) -> Result<u64> {
    let piece_of = |number: u64| source.piece(number);
    // The last piece with everything before it known to be earlier.
    let (mut from, mut end) = (first / PLACES, next / PLACES + 1);
    while end - from > 1 {
        let middle = from + (end - from) / 2;
        let latest = piece_of(middle)?.as_ref().and_then(latest_before);
        if latest.is_some_and(|latest| latest < time) {
            from = middle;
        } else {
            end = middle;
        }
    }
    let mut cache = Cache::new();
    let mut at = first.max(from * PLACES);
    let mut piece = None;
    while at < next {
        if piece.as_ref().is_none_or(|piece: &Piece| !piece.covers(at)) {
            piece = piece_of(at / PLACES)?;
        }
        let end = next.min((at / SUMMARY_PLACES + 1) * SUMMARY_PLACES);
        let latest = piece.as_ref().and_then(|piece| latest_of(piece, at));
        if latest.is_none_or(|latest| latest >= time) {
            let is_found = |sequence: &u64| {
                time_of(source, &mut cache, *sequence).is_some_and(|it| it >= time)
            };
            if let Some(found) = (at..end).find(is_found) {
                return Ok(found);
            }
        }
        at = end;
    }
    source.files().check_loss()?;
    Ok(next)
}

/// Writes summaries.
pub struct Summaries {
    source: Source,
    cache: Cache,
    piece: Option<Piece>,
    /// All blocks below this sequence have theirs.
    next: u64,
}

impl Summaries {
    /// Of a log whose records from `first` on are kept.
    pub fn new(source: Source, first: u64) -> Self {
        Self {
            source,
            cache: Cache::new(),
            piece: None,
            next: first / SUMMARY_PLACES * SUMMARY_PLACES,
        }
    }

    /// Writes one summary that is missing, if all of its block is below `end`. False if there is none.
    pub fn write_one(&mut self, first: u64, end: u64) -> Result<bool> {
        self.next = self.next.max(first / SUMMARY_PLACES * SUMMARY_PLACES);
        while self.next + SUMMARY_PLACES <= end {
            let at = self.next;
            if self.piece.as_ref().is_none_or(|piece| !piece.covers(at)) {
                // Nothing that is deleted meanwhile is kept for long.
                self.cache = Cache::new();
                let files = self.source.files();
                self.piece = files.piece(at / PLACES, Access::Write)?.map(|(piece, _)| piece);
            }
            self.next += SUMMARY_PLACES;
            let Some(piece) = &self.piece else { continue };
            let is_new = latest_of(piece, at).is_none();
            if is_new {
                self.summarise_block(at, first)?;
            }
            if self.next.is_multiple_of(PLACES) {
                self.tell_next_piece()?;
            }
            if is_new {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Writes the summary of the block that begins at `begin`, but for one that is not there as a whole.
    fn summarise_block(&mut self, begin: u64, first: u64) -> Result<()> {
        let Some(piece) = &self.piece else { return Ok(()) };
        if begin < first {
            return Ok(());
        }
        let (mut earliest, mut latest) = (u64::MAX, 0);
        for sequence in begin..begin + SUMMARY_PLACES {
            let Some(time) = time_of(&self.source, &mut self.cache, sequence) else { continue };
            (earliest, latest) = (earliest.min(time), latest.max(time));
        }
        // What was cut short read as zeroes.
        self.source.files().check_loss()?;
        let at = summary_at(begin);
        step!("times.earliest");
        // Relaxed: published by the store below.
        piece.region().word(at).store(earliest.min(latest), Relaxed);
        step!("times.latest");
        // TIMES: pairs with `latest_of`.
        piece.region().word(at + 8).store(latest, Release);
        Ok(())
    }

    /// Writes into the piece after this one, which is full, what is the latest time before it.
    fn tell_next_piece(&mut self) -> Result<()> {
        let Some(piece) = &self.piece else { return Ok(()) };
        let number = piece.number();
        let before = if number == 0 { Some(0) } else { latest_before(piece) };
        let begin = number * PLACES;
        let blocks = (0..BLOCKS).map(|block| latest_of(piece, begin + block * SUMMARY_PLACES));
        let latest = blocks.fold(before, |latest, block| Some(latest?.max(block?)));
        let (Some(latest), Some((next, _))) =
            (latest, self.source.files().piece(number + 1, Access::Write)?)
        else {
            return Ok(());
        };
        step!("times.before");
        // Relaxed: a number by itself.
        next.region().word(LATEST_BEFORE_AT).store(latest, Relaxed);
        Ok(())
    }
}
