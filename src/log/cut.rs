//! Cutting off what is behind the end of a log that nobody uses, so that it never comes back.

use crate::error::{ErrorKind, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::log as layout;
use crate::limits::{HEADER_BYTES, PLACES};
use crate::log::files::{LogFiles, Segment};
use crate::log::recover::begin_of;
use crate::log::times;
use crate::log::walk::unless_lost;
use crate::shm::map::Access;
use rustix::fs::{FallocateFlags, SeekFrom};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// After so many zeroes the rest of a segment is given back as a whole, and not looked at.
const QUIET_BYTES: u64 = 1 << 18;

/// Clears all places from `next` on. Returns how many were taken.
pub fn places(files: &LogFiles, pieces: &[u64], next: u64) -> Result<u64> {
    let mut cut = 0;
    for number in pieces.iter().copied().filter(|number| *number >= next / PLACES) {
        let access = if number == next / PLACES { Access::Write } else { Access::Read };
        if let Some((piece, file)) = unless_lost(files.piece(number, access))? {
            let from = next.max(number * PLACES);
            let taken = (from..(number + 1) * PLACES).filter(|at| piece.read(*at).is_some());
            let taken: Vec<u64> = taken.collect();
            cut += taken.len() as u64;
            if number == next / PLACES {
                step!("recover.places");
                taken.iter().for_each(|sequence| piece.set(*sequence, None));
                // What is said of the times of these blocks may be about messages that are gone.
                times::forget(&piece, next);
                file.sync_data().map_err(|error| files.cannot_sync(error))?;
            }
        }
        if number > next / PLACES {
            step!("recover.piece");
            files.folder.remove_file(&layout::places_file(number))?;
        }
    }
    Ok(cut)
}

/// Clears everything behind the end of a lane. Returns where it ends from now on, and how many bytes were there.
///
/// What another user's publisher wrote, this one may not clear: the lane goes on behind it, in a new segment.
pub fn lane(files: &LogFiles, lane: usize, end: u64, segments: &[u64]) -> Result<(u64, u64)> {
    let last = end / files.shape.segment_bytes;
    let mut cut = 0;
    let is_behind = |logical: &u64| *logical >= last;
    // The newest first: the segments of a lane never have a gap, whenever this ends.
    for logical in segments.iter().copied().filter(is_behind).rev() {
        let cleared = if logical > last {
            remove(files, lane, logical)
        } else {
            clear(files, lane, logical, end % files.shape.segment_bytes)
        };
        match cleared {
            Ok(found) => cut += found,
            Err(error) if error.kind() == ErrorKind::Permission => {
                tracing::info!(log = %files.folder, lane, %error, "goes on behind a segment");
                // Those behind it are removed by now.
                return Ok((begin_of(files, logical + 1), cut));
            }
            Err(error) => return Err(error),
        }
    }
    Ok((end, cut))
}

/// Removes a segment behind the last one. Returns how many bytes were in it, unless it was never begun.
fn remove(files: &LogFiles, lane: usize, logical: u64) -> Result<u64> {
    let mut found = 0;
    if let Some(segment) = unless_lost(files.segment(lane, logical, Access::Read))? {
        if segment.lane.first_number(logical).is_ok() {
            found = walk_data(&segment, PROLOGUE as u64, |_, _| Ok(()))
                .map_err(|error| files.cannot_sync(error))?;
        }
    }
    step!("recover.segment");
    files.folder.remove_file(&layout::segment_file(lane, logical))?;
    Ok(found)
}

/// Counts the bytes of a segment from byte `at` on that are not zero. It is mapped to be read.
pub fn residue(segment: &Segment, at: u64) -> std::io::Result<u64> {
    walk_data(segment, at, |_, _| Ok(()))
}

/// Overwrites a segment from byte `at` on with zeroes, on disk.
fn clear(files: &LogFiles, lane: usize, logical: u64, at: u64) -> Result<u64> {
    let Some(segment) = files.segment(lane, logical, Access::Write)? else { return Ok(0) };
    step!("recover.clear");
    let (file, zeroes) = (segment.file(), [0; CHUNK]);
    let found = walk_data(&segment, at, |at, span| file.write_all_at(&zeroes[..span], at));
    // Also if there was nothing: whoever cleared it before this one may have died before it was on disk.
    let cleared = found.and_then(|found| file.sync_data().map(|()| found));
    cleared.map_err(|error| files.cannot_sync(error))
}

/// Bytes that are looked at together.
const CHUNK: usize = 1 << 16;

/// Counts the bytes of a segment from byte `at` on that are not zero. Hands out the parts that have such.
fn walk_data(
    segment: &Segment,
    at: u64,
    clear: impl Fn(u64, usize) -> std::io::Result<()>,
) -> std::io::Result<u64> {
    let file = segment.file();
    let end = (HEADER_BYTES + segment.lane.segment_bytes()) as u64;
    let (mut at, mut found, mut quiet, mut buffer) = (HEADER_BYTES as u64 + at, 0, 0, [0; CHUNK]);
    while at < end {
        // What was reserved and never written reads as zeroes; most file systems say where that is.
        match rustix::fs::seek(&**file, SeekFrom::Data(at)) {
            Ok(data) if data >= end => break,
            Ok(data) => at = data.max(at),
            Err(rustix::io::Errno::NXIO) => break,
            Err(_) => {}
        }
        if quiet >= QUIET_BYTES && zero(file, at, end) {
            break;
        }
        let span = usize::try_from(end - at).map_or(CHUNK, |left| left.min(CHUNK));
        file.read_exact_at(&mut buffer[..span], at)?;
        let dirty = buffer[..span].iter().filter(|byte| **byte != 0).count() as u64;
        found += dirty;
        quiet += span as u64;
        if dirty > 0 {
            quiet = 0;
            clear(at, span)?;
        }
        at += span as u64;
    }
    Ok(found)
}

/// Makes zeroes of a part of a file without writing them. False if its file system cannot.
fn zero(file: &File, at: u64, end: u64) -> bool {
    rustix::fs::fallocate(file, FallocateFlags::ZERO_RANGE, at, end - at).is_ok()
}
