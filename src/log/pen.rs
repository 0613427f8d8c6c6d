//! What a publisher of a durable topic writes with besides its lane: the order, the clock, and the disk.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::log::SYNC_EACH;
use crate::layout::order::Place;
use crate::limits::PLACES;
use crate::log::core::LogCore;
use crate::log::files::Segment;
use crate::ring::log::{Appended, Piece};
use crate::ring::writer::Writer;
use crate::shm::map::Access;
use crate::shm::sys;
use crate::topic::PublishError;
use std::fs::File;
use std::sync::Arc;

/// The writing end of a log, beside the writer of one lane.
pub struct Pen {
    log: Arc<LogCore>,
    lane: usize,
    segment: Segment,
    piece: Piece,
    piece_file: File,
    /// One above the sequence of the message that was published last.
    after: u64,
    /// What checksums of the present segment begin with, if there are any.
    seed: Option<u32>,
    /// Whether each message is put on disk before publishing returns.
    is_each: bool,
}

impl Pen {
    /// A pen, and the writer, for lane `lane`, whose lease the caller holds.
    pub fn take(log: &Arc<LogCore>, lane: usize) -> Result<(Self, Writer)> {
        let end = log.end_of(lane)?;
        let files = &log.files;
        let (segment, is_new) = match files.segment(lane, end.logical, Access::Write)? {
            Some(segment) => (segment, false),
            None => (create(log, lane, end.logical)?, true),
        };
        if is_new || end.tail == PROLOGUE {
            segment.begin(end.number, end.after);
        }
        // Bytes behind the end may be those of the dead.
        let clean = if is_new { segment.lane.segment_bytes() } else { end.tail };
        let writer = Writer::in_log(segment.lane.clone(), end.logical, end.tail, clean, end.number);
        let (piece, piece_file) = piece_to_write(log, log.head.tail() / PLACES)?;
        let shape = &files.shape;
        let seed = shape.checksums.then_some(segment.seed);
        let (log, after) = (log.clone(), end.after);
        let is_each = shape.sync_ns == SYNC_EACH;
        Ok((Self { log, lane, segment, piece, piece_file, after, seed, is_each }, writer))
    }

    /// The log.
    pub fn log(&self) -> &Arc<LogCore> {
        &self.log
    }

    /// Goes on in the next segment.
    #[cold]
    pub fn roll(&mut self, writer: &mut Writer) -> Result<(), PublishError> {
        let logical = writer.logical() + 1;
        let (segment, is_new) = self.next_segment(logical).map_err(|error| refused(&error))?;
        step!("log.roll");
        segment.begin(writer.sequence(), self.after);
        let clean = if is_new { segment.lane.segment_bytes() } else { PROLOGUE };
        let (lane, number) = (segment.lane.clone(), writer.sequence());
        *writer = Writer::in_log(lane, logical, PROLOGUE, clean, number);
        self.seed = self.seed.map(|_| segment.seed);
        self.segment = segment;
        Ok(())
    }

    fn next_segment(&self, logical: u64) -> Result<(Segment, bool)> {
        // One that a dead publisher made, and did not get to.
        if let Some(segment) = self.log.files.segment(self.lane, logical, Access::Write)? {
            return Ok((segment, false));
        }
        Ok((create(&self.log, self.lane, logical)?, true))
    }

    /// Commits the payload of `len` bytes that lies at the writer's position, of which `touched` may have been written.
    /// With `only`: as the message of that sequence, or not at all. Returns its position and its sequence.
    #[inline]
    pub fn commit(
        &mut self,
        writer: &mut Writer,
        len: usize,
        touched: usize,
        key: &[u8],
        only: Option<u64>,
    ) -> Result<(u64, u64), PublishError> {
        let number = writer.sequence();
        step!("log.record");
        let (position, bytes) = writer.write_record(len, key, sys::realtime_ns(), self.seed);
        if self.is_each {
            put_on_disk(self.segment.file())?;
        }
        let place = Place { lane: self.lane, position };
        let sequence = loop {
            match self.log.head.append(&self.piece, place, number, only) {
                Appended::At(sequence) => break sequence,
                Appended::Beyond(piece) => self.turn_to(piece)?,
                Appended::Moved => return Err(PublishError::Conflict),
                Appended::Corrupt => return Err(PublishError::Corrupt),
            }
        };
        writer.pass_record(bytes, touched);
        self.after = sequence + 1;
        if self.is_each {
            put_on_disk(&self.piece_file)?;
            self.log.head.raise_synced(sequence + 1);
        }
        Ok((position, sequence))
    }

    #[cold]
    fn turn_to(&mut self, number: u64) -> Result<(), PublishError> {
        let turned = piece_to_write(&self.log, number).map_err(|error| refused(&error))?;
        (self.piece, self.piece_file) = turned;
        Ok(())
    }
}

fn create(log: &LogCore, lane: usize, logical: u64) -> Result<Segment> {
    log.files.create_segment(lane, logical)?;
    let made = log.files.segment(lane, logical, Access::Write)?;
    made.ok_or_else(|| gone(log))
}

/// Maps piece `number` of the order, and makes it first if it is not there.
fn piece_to_write(log: &LogCore, number: u64) -> Result<(Piece, File)> {
    log.files.create_piece(number)?;
    log.files.piece(number, Access::Write)?.ok_or_else(|| gone(log))
}

fn gone(log: &LogCore) -> Error {
    let text =
        format!("a file that was just made in {} is gone: somebody removed it", log.files.folder);
    Error::new(ErrorKind::NotFound, text)
}

/// What a publisher is told when the files of a log cannot be made.
fn refused(error: &Error) -> PublishError {
    tracing::error!(%error, "a log cannot grow");
    match error.kind() {
        ErrorKind::Corrupt => PublishError::Corrupt,
        kind => PublishError::Storage { kind },
    }
}

#[cold]
fn put_on_disk(file: &File) -> Result<(), PublishError> {
    step!("log.sync");
    file.sync_data().map_err(|error| {
        tracing::error!(%error, "a log cannot be put on disk");
        PublishError::Storage { kind: ErrorKind::Io }
    })
}
