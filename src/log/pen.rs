//! What a publisher of a durable topic writes with besides its lane: the order, the clock, and the disk.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::frame::PROLOGUE;
use crate::layout::order::Place;
use crate::limits::PLACES;
use crate::log::core::LogCore;
use crate::log::desk::{self, Desk};
use crate::log::files::{LogFiles, Segment};
use crate::log::ledger;
use crate::log::prepare::{self, Prepared};
use crate::ring::log::{Appended, Piece};
use crate::ring::writer::Writer;
use crate::shm::clock::Clock;
use crate::shm::map;
use crate::topic::{Append, PublishError};
use std::sync::Arc;

/// The writing end of a log, beside the writer of one lane.
pub struct Pen {
    log: Arc<LogCore>,
    lane: usize,
    segment: Segment,
    piece: Piece,
    /// One above the sequence of the message that was published last.
    after: u64,
    /// What checksums of the present segment begin with, if there are any.
    seed: Option<u32>,
    /// Whether each message is put on disk before publishing returns.
    is_each: bool,
    /// What is before this byte of the segment's file is on disk, if each message is.
    synced: usize,
    /// The position from which on the next segment had better be prepared.
    alarm: u64,
    desk: Arc<Desk>,
    clock: Clock,
}

impl Pen {
    /// A pen, and the writer, for lane `lane`, whose lease the caller holds.
    pub fn take(log: &Arc<LogCore>, lane: usize) -> Result<(Self, Writer)> {
        let end = log.end_of(lane)?;
        let files = &log.files;
        let is_each = files.shape.is_synced_each();
        let Prepared { segment, clean } = make_segment(files, lane, end.logical)?;
        // Bytes behind the end may be those of the dead.
        let clean = if end.tail == PROLOGUE { clean } else { end.tail };
        if end.tail == PROLOGUE || !segment.is_begun() {
            segment.begin(end.number, end.after);
        }
        let writer = Writer::in_log(segment.lane.clone(), end.logical, end.tail, clean, end.number);
        let after = end.after;
        let piece = make_piece(files, log.head.tail() / PLACES)?;
        let seed = files.shape.checksums.then_some(segment.seed);
        let desk = log.keeper.attend(lane)?;
        desk.want_piece(piece.number() + 1);
        desk.begin(segment.clone());
        let alarm = alarm_in(&writer);
        let log = log.clone();
        let (synced, clock) = (0, Clock::new());
        let pen =
            Self { log, lane, segment, piece, after, seed, is_each, synced, alarm, desk, clock };
        Ok((pen, writer))
    }

    /// Goes on in the next segment.
    #[cold]
    pub fn roll(&mut self, writer: &mut Writer) -> Result<(), PublishError> {
        let logical = writer.logical() + 1;
        let prepared = match self.desk.take_segment(logical) {
            Some(prepared) => prepared,
            None => make_segment(&self.log.files, self.lane, logical)
                .map_err(|error| refused(&error))?,
        };
        let Prepared { segment, clean } = prepared;
        step!("log.roll");
        segment.begin(writer.sequence(), self.after);
        let (lane, number) = (segment.lane.clone(), writer.sequence());
        *writer = Writer::in_log(lane, logical, PROLOGUE, clean, number);
        self.seed = self.seed.map(|_| segment.seed);
        self.desk.begin(segment.clone());
        self.segment = segment;
        self.synced = 0;
        self.alarm = alarm_in(writer);
        Ok(())
    }

    /// Commits the payload of `len` bytes that lies at the writer's position, of which `touched` may have been written.
    /// Returns its position and its sequence.
    #[inline]
    pub fn commit(
        &mut self,
        writer: &mut Writer,
        len: usize,
        touched: usize,
        append: &Append<'_>,
    ) -> Result<(u64, u64), PublishError> {
        let number = writer.sequence();
        step!("log.record");
        let time = append.time_ns.unwrap_or_else(|| self.clock.now());
        let (position, bytes) = writer.write_record(len, append.key, time, self.seed);
        if self.is_each {
            self.put_record_on_disk(writer.tail() + bytes, position + bytes as u64)?;
        }
        let place = Place { lane: self.lane, position };
        let sequence = loop {
            match self.log.head.append(&self.piece, place, number, append.at) {
                Appended::At(sequence) => break sequence,
                Appended::Beyond(piece) => self.turn_to(piece)?,
                Appended::Moved => return Err(PublishError::Conflict),
                Appended::Corrupt => return Err(PublishError::Corrupt),
            }
        };
        writer.pass_record(bytes, touched);
        self.after = sequence + 1;
        if position >= self.alarm {
            self.raise_alarm(writer.logical() + 1);
        }
        if self.is_each {
            self.put_places_on_disk(sequence + 1)?;
        }
        Ok((position, sequence))
    }

    #[cold]
    fn raise_alarm(&mut self, wanted: u64) {
        self.alarm = u64::MAX;
        self.desk.want_segment(wanted);
    }

    #[cold]
    fn turn_to(&mut self, number: u64) -> Result<(), PublishError> {
        self.piece = match self.desk.take_piece(number) {
            Some(piece) => piece,
            None => make_piece(&self.log.files, number).map_err(|error| refused(&error))?,
        };
        self.desk.want_piece(number + 1);
        Ok(())
    }

    /// Puts the record on disk that ends at byte `end` of the segment, which is `position`.
    #[cold]
    fn put_record_on_disk(&mut self, end: usize, position: u64) -> Result<(), PublishError> {
        step!("log.sync");
        let end = self.segment.lane.segment_at() + end;
        map::sync(self.segment.region(), self.synced, end - self.synced)
            .map_err(|error| not_on_disk(&error))?;
        self.synced = end;
        self.log.head.raise_lane_synced(self.lane, position);
        Ok(())
    }

    /// Puts the places below sequence `to` on disk, whosever they are: the records that have them are there already.
    #[cold]
    fn put_places_on_disk(&mut self, to: u64) -> Result<(), PublishError> {
        step!("log.sync.place");
        let (files, from) = (&self.log.files, self.log.head.synced().min(to - 1));
        let synced = if self.piece.covers(from) {
            ledger::put_piece_on_disk(files, &self.piece, from, to)
        } else {
            ledger::put_places_on_disk(files, from, to)
        };
        synced.map_err(|error| not_on_disk(&error))?;
        self.log.head.raise_synced(to);
        Ok(())
    }
}

impl Drop for Pen {
    fn drop(&mut self) {
        self.log.keeper.leave(&self.desk);
    }
}

/// What is reserved only has to be changed on disk, too, when it is first written: not where everybody waits for that.
fn make_segment(files: &LogFiles, lane: usize, logical: u64) -> Result<Prepared> {
    let mut nothing = || {};
    let making = files.shape.is_synced_each().then_some(&mut nothing as &mut dyn FnMut());
    prepare::segment(files, lane, logical, making)
}

fn make_piece(files: &LogFiles, number: u64) -> Result<Piece> {
    let mut nothing = || {};
    let making = files.shape.is_synced_each().then_some(&mut nothing as &mut dyn FnMut());
    prepare::piece(files, number, making)
}

/// The position in the writer's segment from which on the next one is wanted.
fn alarm_in(writer: &Writer) -> u64 {
    let bytes = writer.lane().segment_bytes() as u64;
    writer.logical() * bytes + desk::alarm_of(bytes) as u64
}

/// What a publisher is told when the files of a log cannot be made.
fn refused(error: &Error) -> PublishError {
    tracing::error!(%error, "a log cannot grow");
    match error.kind() {
        ErrorKind::Corrupt => PublishError::Corrupt,
        kind => PublishError::Storage { kind },
    }
}

fn not_on_disk(error: &dyn std::fmt::Display) -> PublishError {
    tracing::error!(%error, "a message cannot be put on disk");
    PublishError::Storage { kind: ErrorKind::Io }
}
