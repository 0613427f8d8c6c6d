//! Making the files of a log so that writing them later costs nothing but the stores.
//!
//! A file that is only reserved is made quickly, and costs a page fault for each page and, where each message is put on
//! disk, a change of the extent for each first write. A file that is made *whole* was written with zeroes, put on disk
//! if the log is, and has all pages of its mapping touched. The zeroes are written before the file has its name: nobody
//! who finds it under its name ever has it overwritten.

use crate::error::{Error, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::log::LogShape;
use crate::limits::HEADER_BYTES;
use crate::log::files::{LogFiles, Segment};
use crate::ring::log::Piece;
use crate::shm::map::{self, Access};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// Bytes after which somebody else gets a turn.
const STRIDE: usize = 1 << 20;

/// A segment that nobody has written, and how many bytes of it are known to be zero.
pub struct Prepared {
    pub segment: Segment,
    pub clean: usize,
}

/// How a file is made: whole, with a call of the function between its parts, or, if there is none, just reserved.
pub type Making<'a> = Option<&'a mut dyn FnMut()>;

/// Bytes of a write of zeroes. Larger ones make the kernel keep larger pages, and put them on disk as a whole.
fn zeroes_of(shape: &LogShape) -> &'static [u8] {
    static ZEROES: [u8; 1 << 16] = [0; 1 << 16];
    &ZEROES[..if shape.is_synced_each() { 1 << 14 } else { 1 << 16 }]
}

/// Writes zeroes over all of a new file but its header page and its end.
pub fn fill(
    shape: &LogShape,
    file: &File,
    what: &str,
    len: usize,
    between: &mut dyn FnMut(),
) -> Result<()> {
    let zeroes = zeroes_of(shape);
    let cannot = |error| Error::io(format!("cannot prepare {what}"), error);
    let (mut at, end) = (HEADER_BYTES, len.saturating_sub(8));
    while at < end {
        let span = zeroes.len().min(end - at);
        file.write_all_at(&zeroes[..span], at as u64).map_err(cannot)?;
        at += span;
        if (at - HEADER_BYTES).is_multiple_of(STRIDE) {
            if shape.sync_ns > 0 {
                file.sync_data().map_err(cannot)?;
            }
            between();
        }
    }
    if shape.sync_ns > 0 {
        file.sync_all().map_err(cannot)?;
    }
    Ok(())
}

/// Segment `logical` of a lane, to be written: made now, unless it is there.
pub fn segment(
    files: &LogFiles,
    lane: usize,
    logical: u64,
    mut making: Making<'_>,
) -> Result<Prepared> {
    let found = match files.segment(lane, logical, Access::Write)? {
        // One that a publisher before this one, or its keeper, made and nobody got to.
        Some(found) => found,
        None => {
            step!("prepare.segment");
            files.create_segment(lane, logical, &mut making)?;
            let made = files.segment(lane, logical, Access::Write)?;
            made.ok_or_else(|| gone(files))?
        }
    };
    // A publisher begins a segment before it writes anything else into it.
    let is_clean = !found.is_begun();
    let clean = if is_clean { found.lane.segment_bytes() } else { PROLOGUE };
    if let Some(between) = making {
        touch(&found, 0, found.region().len(), between);
        if files.shape.sync_ns > 0 {
            files.folder.sync()?;
        }
    }
    Ok(Prepared { segment: found, clean })
}

/// Touches the pages of a segment in a part of its file.
pub fn touch(segment: &Segment, mut from: usize, to: usize, between: &mut dyn FnMut()) {
    let region = segment.region();
    let to = to.min(region.len());
    while from < to {
        let span = STRIDE.min(to - from);
        if !map::prefault(region, from, span, Access::Write) {
            return;
        }
        from += span;
        between();
    }
}

/// Piece `number` of the order, to be written: made now, unless it is there.
pub fn piece(files: &LogFiles, number: u64, mut making: Making<'_>) -> Result<Piece> {
    let is_whole = making.is_some();
    let found = match files.piece(number, Access::Write)? {
        Some((found, _)) => found,
        None => {
            step!("prepare.piece");
            files.create_piece(number, &mut making)?;
            files.piece(number, Access::Write)?.ok_or_else(|| gone(files))?.0
        }
    };
    if is_whole {
        map::prefault(found.region(), 0, found.region().len(), Access::Write);
        if files.shape.sync_ns > 0 {
            files.folder.sync()?;
        }
    }
    Ok(found)
}

fn gone(files: &LogFiles) -> Error {
    let text =
        format!("a file that was just made in {} is gone: somebody removed it", files.folder);
    Error::new(crate::error::ErrorKind::NotFound, text)
}
