//! What is kept no longer: whole segments, and pieces of the order, all of whose messages are below a floor.
//!
//! The floor is told to everybody, and noted in a checkpoint, before the first file goes. Any number of processes may
//! delete at once. Whoever has a file mapped keeps it.

use crate::error::Result;
use crate::layout::log::{piece_of, segment_file};
use crate::limits::{HEADER_BYTES, PLACES};
use crate::log::files::{Listing, LogFiles};
use crate::log::source::Source;
use crate::log::times;
use crate::ring::log::Head;
use crate::shm::map::Access;
use crate::shm::sys;
use std::collections::BTreeMap;

/// The first sequence that is to be kept, at most `most`, according to the options of the log.
pub fn floor(files: &LogFiles, head: &Head, most: u64) -> Result<u64> {
    let shape = &files.shape;
    let mut floor = head.floor();
    if shape.retain_bytes == 0 && shape.retain_ns == 0 {
        return Ok(floor);
    }
    let mut lanes = written(files, head)?;
    let file_bytes = HEADER_BYTES as u64 + shape.segment_bytes + 8;
    let mut bytes = lanes.values().map(|numbers| numbers.len() as u64 * file_bytes).sum::<u64>();
    let old_below = match shape.retain_ns {
        0 => 0,
        ns => {
            // Messages may carry times of their own, so the newest one of a segment may be anywhere in it.
            let oldest_kept = sys::realtime_ns().saturating_sub(ns);
            times::at_time_within(&Source::of_files(files.clone()), floor, most, oldest_kept)?
        }
    };
    loop {
        // The segment whose messages are all behind us first is the one whose successor begins first.
        let mut first: Option<(u64, usize)> = None;
        for (lane, numbers) in &lanes {
            let Some(next) = numbers.get(1) else { continue };
            let Some(next) = files.segment(*lane, *next, Access::Read)? else { continue };
            if !next.is_begun() {
                continue;
            }
            let after = next.after();
            if first.as_ref().is_none_or(|(least, ..)| after < *least) {
                first = Some((after, *lane));
            }
        }
        let Some((after, lane)) = first.filter(|(after, ..)| *after <= most) else { break };
        let is_much = shape.retain_bytes > 0 && bytes > shape.retain_bytes;
        let is_old = after <= old_below;
        if !is_much && !is_old && after > floor {
            break;
        }
        floor = floor.max(after);
        bytes -= file_bytes;
        if let Some(numbers) = lanes.get_mut(&lane) {
            numbers.remove(0);
        }
    }
    files.check_loss()?;
    Ok(floor)
}

/// The segments of each lane that are, or were, written, in order.
fn written(files: &LogFiles, head: &Head) -> Result<BTreeMap<usize, Vec<u64>>> {
    let Listing { mut segments, .. } = files.list()?;
    segments.retain(|lane, _| *lane < head.lanes());
    for (lane, numbers) in &mut segments {
        // One that is prepared is nobody's yet.
        let newest = head.reached(*lane).0 / files.shape.segment_bytes;
        numbers.retain(|number| *number <= newest);
    }
    Ok(segments)
}

/// Tells everybody that messages below `floor` are not kept, and deletes the files that have no others.
pub fn delete_below(files: &LogFiles, head: &Head, floor: u64) -> Result<()> {
    if floor == 0 {
        return Ok(());
    }
    head.raise_floor(floor);
    for (lane, numbers) in written(files, head)? {
        for pair in numbers.windows(2) {
            let next = files.segment(lane, pair[1], Access::Read)?;
            if next.is_none_or(|next| next.after() > floor || !next.is_begun()) {
                break;
            }
            step!("retain.segment");
            files.folder.remove_file(&segment_file(lane, pair[0]))?;
        }
    }
    for name in files.folder.files()? {
        if piece_of(&name).is_some_and(|piece| (piece + 1).saturating_mul(PLACES) <= floor) {
            step!("retain.piece");
            files.folder.remove_file(&name)?;
        }
    }
    files.check_loss()
}
