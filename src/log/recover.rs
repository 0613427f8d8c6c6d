//! Making a log ready that nobody uses: after an orderly end, a death of all its processes, or a crash of the machine.
//!
//! A crash of the machine may lose any page that was not put on disk, of any file, and may tear one. What is kept is
//! the longest beginning of the order, from the checkpoint on, all of whose records are sound; everything behind it is
//! cut off, in the order and in the lanes, counted, and overwritten with zeroes, so that it cannot be taken for
//! something newer after another crash.
//!
//! # If a process dies
//!
//! The claim of the log is still that of nobody, or of the topic before; whoever comes next begins again and finds the
//! same, or what was done of it.

use crate::error::{Error, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::log::Checkpoint;
use crate::layout::order::Place;
use crate::layout::record;
use crate::limits::{HEADER_BYTES, PLACES};
use crate::log::files::{Listing, LogFiles, Segment};
use crate::log::{checkpoint, cursor};
use crate::ring::order::TAIL_MAX;
use crate::shm::map::Access;
use rustix::fs::SeekFrom;
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// What a recovery found, and what it had to cut off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// Sequence of the oldest message that is there.
    pub first: u64,
    /// Sequence that the next message gets.
    pub next: u64,
    /// Messages, the newest ones, that were looked at.
    pub checked: u64,
    /// Messages that had a place in the order and are lost: they, or one before them, did not reach the disk.
    pub cut_messages: u64,
    /// Of each lane: bytes behind its last message that were not zero.
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

/// Walks the end of a log.
struct Walk<'a> {
    files: &'a LogFiles,
    /// Of each lane: where its next record is, if that is known.
    ends: Vec<Option<u64>>,
    /// Of each lane: the number of its next record, if that is known.
    numbers: Vec<Option<u64>>,
    /// Of each lane: the segment that was looked at last.
    segments: BTreeMap<usize, Segment>,
}

/// Makes the log ready. The caller holds its claim alone.
pub fn recover(files: &LogFiles) -> Result<Recovered> {
    let begun = Instant::now();
    let known = checkpoint::read(files)?;
    let listing = files.list()?;
    let floor = floor_of(files, &known, &listing)?;
    let lanes = files.shape.publishers_max as usize;
    let from = known.next.max(floor);
    let is_known = known.number > 0 && known.next >= floor;
    let begin = |words: &[u64]| -> Vec<Option<u64>> {
        let fresh = is_known || from == 0;
        words[..lanes].iter().map(|word| fresh.then_some(*word)).collect()
    };
    let (ends, numbers) = (begin(&known.ends), begin(&known.numbers));
    let mut walk = Walk { files, ends, numbers, segments: BTreeMap::new() };
    let next = walk.follow(from)?;
    let mut report = Recovery { first: floor, next, checked: next - from, ..Recovery::default() };
    report.cut_messages = cut_places(files, &listing, next)?;
    let mut result = Checkpoint { next, floor, cut: known.cut + report.cut_messages, ..known };
    result.number += 1;
    for lane in 0..lanes {
        let segments = listing.segments.get(&lane).map_or(&[][..], Vec::as_slice);
        let (end, number) = walk.end_of(lane, segments)?;
        (result.ends[lane], result.numbers[lane]) = (end, number);
        let cut = cut_lane(files, lane, end, segments)?;
        if cut > 0 {
            report.cut_bytes.insert(lane as u32, cut);
        }
    }
    cursor::rewind(files, next)?;
    files.folder.sync()?;
    checkpoint::write(files, &result)?;
    files.check_loss()?;
    report.took = begun.elapsed();
    if report.cut_messages > 0 {
        tracing::warn!(log = %files.folder, lost = report.cut_messages, next, "cut off the end of a log");
    }
    Ok(Recovered { checkpoint: result, report })
}

/// The first sequence from which on nothing was deleted.
pub(super) fn floor_of(files: &LogFiles, known: &Checkpoint, listing: &Listing) -> Result<u64> {
    let mut floor = known.floor.min(TAIL_MAX);
    if let Some(piece) = listing.pieces.first() {
        floor = floor.max(piece.saturating_mul(PLACES).min(TAIL_MAX));
    }
    for (lane, segments) in &listing.segments {
        let Some(oldest) = segments.first().filter(|oldest| **oldest > 0) else { continue };
        if let Ok(Some(segment)) = files.segment(*lane, *oldest, Access::Read) {
            floor = floor.max(segment.after().min(TAIL_MAX));
        }
    }
    Ok(floor)
}

impl Walk<'_> {
    /// Follows the order from `sequence` on for as long as its records are sound.
    fn follow(&mut self, mut sequence: u64) -> Result<u64> {
        while sequence < TAIL_MAX {
            let Ok(Some((piece, _))) = self.files.piece(sequence / PLACES, Access::Read) else {
                break;
            };
            while piece.covers(sequence) {
                match piece.read(sequence) {
                    Some(place) if self.is_sound(place)? => sequence += 1,
                    _ => return Ok(sequence),
                }
            }
        }
        Ok(sequence)
    }

    /// Whether the next record of its lane is at this place, whole. Goes on behind it if so.
    fn is_sound(&mut self, place: Place) -> Result<bool> {
        let bytes = self.files.shape.segment_bytes;
        let (logical, at) = (place.position / bytes, (place.position % bytes) as usize);
        let Some(end) = self.ends.get(place.lane) else { return Ok(false) };
        let follows = end.is_none_or(|end| {
            let begins = (end / bytes + 1) * bytes + PROLOGUE as u64;
            let first = end == 0 && place.position == PROLOGUE as u64;
            first || place.position == end || place.position == begins
        });
        if !follows {
            return Ok(false);
        }
        if self.segments.get(&place.lane).is_none_or(|segment| segment.logical != logical) {
            // Whatever is wrong with a file, what it should have held is lost.
            let Ok(Some(segment)) = self.files.segment(place.lane, logical, Access::Read) else {
                return Ok(false);
            };
            self.segments.insert(place.lane, segment);
        }
        let segment = &self.segments[&place.lane];
        let Ok(first) = segment.lane.first_number(logical) else { return Ok(false) };
        let Some(found) = segment.lane.record(at) else { return Ok(false) };
        let number = self.numbers[place.lane].unwrap_or_else(|| record::number(found.head, first));
        let sound = number >= first
            && record::is_numbered(found.head, number)
            && (!self.files.shape.checksums || segment.lane.is_sound(&found, segment.seed));
        if sound {
            self.ends[place.lane] = Some(logical * bytes + found.end() as u64);
            self.numbers[place.lane] = Some(number + 1);
        }
        self.files.check_loss()?;
        Ok(sound)
    }

    /// Where a lane ends, and the number of its next record.
    fn end_of(&self, lane: usize, segments: &[u64]) -> Result<(u64, u64)> {
        if let (Some(end), Some(number)) = (self.ends[lane], self.numbers[lane]) {
            return Ok((end, number));
        }
        // Nothing of it is in the part of the order that is there: it goes on in a new segment.
        let Some(newest) = segments.last() else { return Ok((0, 0)) };
        let bytes = self.files.shape.segment_bytes;
        let mut number = 0;
        if let Ok(Some(segment)) = self.files.segment(lane, *newest, Access::Read) {
            if let Ok(first) = segment.lane.first_number(*newest) {
                number = first;
                let mut at = PROLOGUE;
                while let Some(record) = segment.lane.record(at) {
                    (at, number) = (record.end(), number + 1);
                }
            }
        }
        Ok(((newest + 1) * bytes, number))
    }
}

/// Clears all places from `next` on. Returns how many were taken.
fn cut_places(files: &LogFiles, listing: &Listing, next: u64) -> Result<u64> {
    let mut cut = 0;
    for number in listing.pieces.iter().copied().filter(|number| *number >= next / PLACES) {
        // A piece that cannot be read is not counted.
        let piece = files.piece(number, Access::Write);
        if let Ok(Some((piece, file))) = &piece {
            let from = next.max(number * PLACES);
            let taken: Vec<u64> = (from..(number + 1).saturating_mul(PLACES))
                .filter(|sequence| piece.read(*sequence).is_some())
                .collect();
            cut += taken.len() as u64;
            if number == next / PLACES && !taken.is_empty() {
                step!("recover.places");
                taken.iter().for_each(|sequence| piece.set(*sequence, None));
                file.sync_data().map_err(|error| cannot_sync(files, error))?;
            }
        }
        if number > next / PLACES || (piece.is_err() && next.is_multiple_of(PLACES)) {
            step!("recover.piece");
            files.folder.remove_file(&crate::layout::log::places_file(number))?;
        }
    }
    Ok(cut)
}

/// Clears everything behind the end of a lane. Returns how many bytes were there.
fn cut_lane(files: &LogFiles, lane: usize, end: u64, segments: &[u64]) -> Result<u64> {
    let bytes = files.shape.segment_bytes;
    let (last, at) = (end / bytes, (end % bytes).max(PROLOGUE as u64));
    let mut cut = 0;
    for logical in segments.iter().copied().filter(|logical| *logical >= last) {
        if logical > last || end == 0 {
            if let Ok(Some(segment)) = files.segment(lane, logical, Access::Read) {
                cut += clear(&segment, PROLOGUE as u64, false).unwrap_or(0);
            }
            step!("recover.segment");
            files.folder.remove_file(&crate::layout::log::segment_file(lane, logical))?;
        } else if let Some(segment) = files.segment(lane, logical, Access::Write)? {
            step!("recover.clear");
            cut += clear(&segment, at, true).map_err(|error| cannot_sync(files, error))?;
        }
    }
    Ok(cut)
}

/// Counts what is not zero in a segment from byte `at` on, and overwrites it if `clears`.
fn clear(segment: &Segment, at: u64, clears: bool) -> std::io::Result<u64> {
    let file = segment.file();
    let (mut at, end) = (HEADER_BYTES as u64 + at, segment_end(segment));
    let (mut found, mut buffer, zeros) = (0, vec![0; 1 << 16], vec![0; 1 << 16]);
    while at < end {
        // What was reserved and never written reads as zeroes; most file systems say where that is.
        match rustix::fs::seek(&**file, SeekFrom::Data(at)) {
            Ok(data) if data >= end => break,
            Ok(data) => at = data.max(at),
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => {}
        }
        let span = usize::try_from(end - at).map_or(buffer.len(), |left| left.min(buffer.len()));
        file.read_exact_at(&mut buffer[..span], at)?;
        let dirty = buffer[..span].iter().filter(|byte| **byte != 0).count();
        found += dirty as u64;
        if dirty > 0 && clears {
            file.write_all_at(&zeros[..span], at)?;
        }
        at += span as u64;
    }
    if found > 0 && clears {
        file.sync_data()?;
    }
    Ok(found)
}

fn segment_end(segment: &Segment) -> u64 {
    (HEADER_BYTES + segment.lane.segment_bytes()) as u64
}

fn cannot_sync(files: &LogFiles, error: std::io::Error) -> Error {
    Error::io(format!("cannot put on disk what was cleared in {}", files.folder), error)
}
