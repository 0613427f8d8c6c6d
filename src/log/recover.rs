//! Making a log ready that nobody uses: after an orderly end, a death of all its processes, or a crash of the machine.
//!
//! ```text
//!                     checkpoint.next                       next
//!   order   │ … on disk, not looked at │ looked at: the tail │ cut off: taken, and not kept │ 0 0 0
//!   lane    │ …                   end ─┴─▶ follows its places │ overwritten with zeroes
//! ```
//!
//! A crash of the machine may lose any page that was not put on disk, of any file, and may tear one. What is kept then
//! is the longest beginning of the order, from the checkpoint on, all of whose records are sound. If the machine did
//! not crash since somebody used the log, or the checkpoint is lost, a record that is not sound is damage and not the
//! end: it is kept as what it is, and so is everything behind it up to the last sound one.
//!
//! Everything behind the end is cut off, in the order and in the lanes, counted, and overwritten with zeroes on disk,
//! so that it cannot be taken for something newer after another crash. What is kept is put on disk as well, before the
//! new checkpoint says that it is.
//!
//! # If a process dies
//!
//! The claim of the log is still that of nobody, or of the topic before; whoever comes next begins again and finds the
//! same, or what was done of it.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::log::Checkpoint;
use crate::layout::order::Place;
use crate::layout::place::POSITION_END;
use crate::limits::PLACES;
use crate::log::files::{Listing, LogFiles};
use crate::log::walk::{self, Walk};
use crate::log::{checkpoint, cursor, cut};
use crate::ring::order::TAIL_MAX;
use crate::shm::map::Access;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// What was found when a log was made ready that nobody used, and what had to be cut off.
///
/// Messages are cut off only if the machine crashed before they were put on disk, or their files are damaged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Sequence of the oldest message that is there.
    pub first: u64,
    /// Sequence that the next message gets.
    pub next: u64,
    /// Messages, the newest ones, that were looked at.
    pub checked: u64,
    /// Of those: messages that are kept and damaged. Whoever gets to them is told.
    pub damaged: u64,
    /// Messages that had a place in the order and are lost: they, or one before them, did not reach the disk.
    pub cut_messages: u64,
    /// Of each lane: bytes behind its last message that were not zero, as far as they were looked at.
    pub cut_bytes: BTreeMap<u32, u64>,
    /// How long it took.
    pub took: Duration,
}

/// A log that is ready.
pub struct Recovered {
    /// As far as it goes.
    pub checkpoint: Checkpoint,
    /// What was done.
    pub report: Recovery,
}

/// What may have become of a log since somebody used it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// The machine may have crashed, or the files are copies.
    Unknown,
    /// Whatever became of the processes, the machine did not crash.
    NoCrash,
}

/// Makes the log ready. The caller holds its claim alone.
pub fn recover(files: &LogFiles, past: Past) -> Result<Recovered> {
    let begun = Instant::now();
    let known = known(files)?;
    let listing = files.list()?;
    let floor = floor_of(files, &known, &listing)?;
    let from = known.next.max(floor);
    let is_known = known.number > 0 && known.next >= floor;
    let is_strict = past == Past::Unknown && known.number > 0;
    let mut walk = Walk::new(files, (is_known || from == 0).then_some(&known));
    let next = walk.follow(from, &listing.pieces, is_strict)?;
    let mut report = Recovery { first: floor, next, checked: walk.checked, ..Recovery::default() };
    report.damaged = next - from - walk.sound;
    walk.mend_piece(next / PLACES, &listing)?;
    report.cut_messages = cut::places(files, &listing.pieces, next)?;
    let cut = known.cut.saturating_add(report.cut_messages);
    let mut result =
        Checkpoint { number: known.number + 1, next, floor, cut, ..Checkpoint::empty() };
    for lane in 0..files.shape.publishers_max as usize {
        let segments = listing.segments.get(&lane).map_or(&[][..], Vec::as_slice);
        let (end, number) = walk.end_of(lane, segments)?;
        let (end, cut) = cut::lane(files, lane, end, segments)?;
        (result.ends[lane], result.numbers[lane]) = (end, number);
        if cut > 0 {
            report.cut_bytes.insert(lane as u32, cut);
        }
    }
    cursor::rewind(files, next)?;
    files.folder.sync()?;
    files.check_loss()?;
    checkpoint::write(files, &result)?;
    report.took = begun.elapsed();
    if report.cut_messages > 0 || report.damaged > 0 {
        let (lost, damaged) = (report.cut_messages, report.damaged);
        tracing::warn!(log = %files.folder, lost, damaged, next, "the end of a log is not whole");
    }
    Ok(Recovered { checkpoint: result, report })
}

/// The newest checkpoint that a log may have; an empty one if it is lost.
fn known(files: &LogFiles) -> Result<Checkpoint> {
    let found = match checkpoint::read(files) {
        Err(error) if is_lost(&error) => {
            step!("recover.checkpoint");
            checkpoint::create(&files.folder, files.identity, files.shape.mode)?;
            Checkpoint::empty()
        }
        found => found?,
    };
    let ends = found.ends.iter().all(|end| *end < POSITION_END && end.is_multiple_of(8));
    let possible = found.floor <= found.next && found.next <= TAIL_MAX && ends;
    Ok(if possible && found.number <= TAIL_MAX { found } else { Checkpoint::empty() })
}

/// Whether what could not be read is gone, or damaged: not merely out of reach for now, or the wrong file.
pub(super) fn is_lost(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Corrupt)
}

/// The first sequence from which on nothing was deleted, as far as can be known.
///
/// The checkpoint says so. Files that were deleted since, or if it is lost, are known by what is left: the oldest
/// segment of a lane notes which message was the last one before it, and the order must say that this was so.
pub(super) fn floor_of(files: &LogFiles, known: &Checkpoint, listing: &Listing) -> Result<u64> {
    let (mut floor, mut most) = (known.floor, known.next);
    if known.number == 0 {
        most = TAIL_MAX;
        floor = floor.max(listing.pieces.first().map_or(0, |piece| piece * PLACES));
    }
    for (lane, segments) in &listing.segments {
        let Some(oldest) = segments.first().copied().filter(|oldest| *oldest > 0) else { continue };
        let segment = walk::unless_lost(files.segment(*lane, oldest, Access::Read))?;
        let Some(after) = segment.map(|segment| segment.after()) else { continue };
        // Nothing is deleted that a checkpoint does not say is on disk: its file may have been lost instead.
        if (floor + 1..=most).contains(&after) {
            let piece = files.piece((after - 1) / PLACES, Access::Read);
            let last = walk::unless_lost(piece)?.and_then(|(piece, _)| piece.read(after - 1));
            let was_before = |place: Place| {
                place.lane == *lane && place.position / files.shape.segment_bytes < oldest
            };
            floor = if last.is_some_and(was_before) { after } else { floor };
        }
    }
    Ok(floor)
}

/// Where the first record of a segment begins.
pub(super) fn begin_of(files: &LogFiles, logical: u64) -> u64 {
    logical * files.shape.segment_bytes + PROLOGUE as u64
}
