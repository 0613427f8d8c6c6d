//! The reading end of a lane: one subscriber's cursor in it.
//!
//! A reader stays in a segment under one pin and touches nothing shared per message. At the end of the segment it pins
//! the next one first and lets go of the old one then.
//!
//! # Orderings
//!
//! | edge     | this side                                             | other side          |
//! |----------|-------------------------------------------------------|---------------------|
//! | `COMMIT` | `Acquire` load of the header word in `poll`           | `Writer::commit`    |
//! | `MAP`    | `Acquire` load of the entry in `enter`                | `Writer::roll`      |
//! | `PIN`    | count up, `fence(SeqCst)`, load the entry again       | `Writer::take`      |
//! | `UNPIN`  | `Release` count down in `leave`                       | `Pins::count`       |

use crate::layout::frame::{self, Head, PROLOGUE};
use crate::ring::lane::{Corrupt, Lane};
use crate::sync::{fence, Ordering::*};
use std::cell::Cell;

/// What lies at the cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// A message: where its payload begins in the file, and its length.
    Frame {
        /// Byte offset of the payload in the lane file.
        offset: usize,
        /// Payload bytes.
        len: usize,
    },
    /// Nothing yet.
    Empty,
    /// The lane goes on in the next segment.
    Next,
    /// Something that no publisher writes.
    Corrupt,
}

/// How an attempt to enter a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The segment is pinned.
    Inside,
    /// It was taken back.
    Overtaken,
    /// It is not mapped yet.
    NotYet,
}

/// A cursor in a lane, with the pin of the segment that it stands in.
pub struct Reader {
    lane: Lane,
    slot: usize,
    base: usize,
    logical: u64,
    /// Bytes between the beginning of a frame, or of a record, and its payload.
    header: usize,
    // Cells, so that a batch can hand out messages of this segment while it moves the cursor.
    at: Cell<usize>,
    sequence: Cell<u64>,
    pinned: Option<usize>,
}

impl Reader {
    /// A reader for the owner of `slot` that stands nowhere yet.
    pub fn new(lane: Lane, slot: usize) -> Self {
        let (at, sequence) = (Cell::new(0), Cell::new(0));
        Self { lane, slot, base: 0, logical: 0, header: frame::WORD, at, sequence, pinned: None }
    }

    /// The lane.
    #[inline]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The sequence that is due at the cursor.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence.get()
    }

    /// The cursor.
    #[inline]
    pub fn position(&self) -> u64 {
        self.lane.position(self.logical, self.at.get())
    }

    /// The position of the frame whose payload `poll` found at byte `offset` of the file, in the segment that the
    /// reader stands in.
    pub fn position_of(&self, offset: usize) -> u64 {
        self.lane.position(self.logical, offset - self.header - self.base)
    }

    /// The physical segment that this reader pins.
    #[inline]
    pub fn pinned(&self) -> Option<usize> {
        self.pinned
    }

    /// A reader of segment `logical` of a log, before byte `at` of it. It needs no pin: a segment of a log is not used
    /// again, and its mapping keeps it.
    #[cfg(not(windlass_loom))]
    pub fn in_log(segment: Lane, logical: u64, at: usize) -> Self {
        let base = segment.base_of(0);
        let header = crate::layout::record::HEADER;
        let (at, sequence) = (Cell::new(at), Cell::new(0));
        Self { lane: segment, slot: 0, base, logical, header, at, sequence, pinned: None }
    }

    /// The record at `position` of a log, if that is where this reader stands, and there is one.
    #[cfg(not(windlass_loom))]
    #[inline]
    pub fn record(&self, position: u64) -> Option<crate::ring::record::Record> {
        if position != self.position() {
            return None;
        }
        self.lane.record(self.at.get())
    }

    /// Steps over a record of a log.
    #[cfg(not(windlass_loom))]
    #[inline]
    pub fn pass(&self, record: &crate::ring::record::Record) {
        self.at.set(record.end());
    }

    /// The segment that this reader stands in.
    pub fn logical(&self) -> u64 {
        self.logical
    }

    /// Pins `logical` and stands at its first frame. The segment it stood in before is let go in any case.
    pub fn enter(&mut self, logical: u64) -> Result<Entered, Corrupt> {
        let entered = self.pin(logical);
        let old = self.pinned.take();
        if let Some(old) = old {
            step!("reader.unpin");
            self.lane.pins().unpin(self.lane.index(), old, self.slot);
        }
        let physical = match entered? {
            Ok(physical) => physical,
            Err(entered) => return Ok(entered),
        };
        self.pinned = Some(physical);
        self.base = self.lane.base_of(physical);
        self.logical = logical;
        self.at.set(PROLOGUE);
        self.sequence.set(self.lane.first_sequence(self.base, logical)?);
        Ok(Entered::Inside)
    }

    fn pin(&self, logical: u64) -> Result<Result<usize, Entered>, Corrupt> {
        let entry = self.lane.entry(logical)?;
        if !entry.maps(logical) {
            let mapped = entry.logical().filter(|mapped| *mapped >= logical);
            return match mapped {
                // A mapping is stored before its number is told.
                Some(mapped) if mapped > self.lane.newest()? + 1 => Err(Corrupt),
                Some(_) => Ok(Err(Entered::Overtaken)),
                None => Ok(Err(Entered::NotYet)),
            };
        }
        step!("reader.pin");
        let (lane, physical) = (&self.lane, entry.physical());
        lane.pins().pin(lane.index(), physical, self.slot);
        // PIN: either the publisher's scan sees the pin, or we see the mapping retired.
        fence(SeqCst);
        step!("reader.check");
        if lane.entry(logical)? == entry {
            return Ok(Ok(physical));
        }
        lane.pins().unpin(lane.index(), physical, self.slot);
        Ok(Err(Entered::Overtaken))
    }

    /// Lets go of the segment.
    pub fn leave(&mut self) {
        if let Some(physical) = self.pinned.take() {
            step!("reader.leave");
            self.lane.pins().unpin(self.lane.index(), physical, self.slot);
        }
    }

    /// Looks at the cursor. The reader must be inside a segment.
    #[inline]
    pub fn poll(&self) -> Poll {
        match self.lane.head(self.base, self.at.get(), self.sequence.get()) {
            Head::Frame(len) => {
                Poll::Frame { offset: self.base + self.at.get() + frame::WORD, len }
            }
            Head::Empty => Poll::Empty,
            Head::Next => Poll::Next,
            Head::Bad => Poll::Corrupt,
        }
    }

    /// Whether something was committed at the place where this reader stands now, to be asked by another thread.
    ///
    /// A hint: once the reader has moved on, the place may be used again and the answer means nothing.
    #[cfg(not(windlass_loom))]
    pub fn hint(&self) -> impl Fn() -> bool + Send + 'static {
        let (lane, offset) = (self.lane.clone(), self.base + self.at.get());
        // Relaxed: whoever hears "yes" looks for itself.
        move || lane.word(offset).load(Relaxed) != 0
    }

    /// Fails if a header word is gone: nothing is committed at the cursor, and yet the lane goes on elsewhere.
    ///
    /// Costs more than a look. For whoever has waited for a while.
    pub fn check_wait(&self) -> Result<(), Corrupt> {
        // The second look comes last: meanwhile the publisher may have gone on from the place of the first.
        let waits = self.pinned.is_some() && self.poll() == Poll::Empty;
        if waits && !self.lane.goes_on(self.logical, self.sequence())? && self.poll() == Poll::Empty
        {
            return Err(Corrupt);
        }
        Ok(())
    }

    /// Whether the frame at `position` is the next one after those that this reader has stepped over.
    pub fn is_next(&self, position: u64) -> bool {
        let here = self.position();
        let begins = || self.lane.position(self.logical + 1, PROLOGUE);
        position == here || (self.poll() == Poll::Next && position == begins())
    }

    /// Steps over the message of `len` bytes that `poll` returned.
    #[inline]
    pub fn advance(&self, len: usize) {
        self.at.set(self.at.get() + frame::frame_bytes(len));
        self.sequence.set(self.sequence.get() + 1);
    }

    /// Goes on in the next segment, after `poll` returned `Next`.
    pub fn follow(&mut self) -> Result<Entered, Corrupt> {
        let due = self.sequence();
        let entered = self.enter(self.logical + 1)?;
        match entered {
            Entered::Inside if self.sequence() != due => Err(Corrupt),
            // `NEXT` is committed after the mapping.
            Entered::NotYet => Err(Corrupt),
            Entered::Overtaken => {
                self.sequence.set(due);
                Ok(entered)
            }
            entered => Ok(entered),
        }
    }

    /// Enters the oldest segment that a newcomer may start in.
    pub fn seek_oldest(&mut self) -> Result<(), Corrupt> {
        loop {
            let floor = self.lane.floor()?;
            match self.enter(floor)? {
                Entered::Inside => return Ok(()),
                // MAP: the floor moves before the mapping does.
                Entered::Overtaken if self.lane.floor()? > floor => crate::sync::relax(),
                Entered::Overtaken | Entered::NotYet => return Err(Corrupt),
            }
        }
    }

    /// Stands behind the newest message.
    pub fn seek_latest(&mut self) -> Result<(), Corrupt> {
        loop {
            let newest = self.lane.newest()?;
            match self.enter(newest)? {
                Entered::Inside => {}
                // MAP: the newest mapping is not taken back before there is a newer one.
                Entered::Overtaken if self.lane.newest()? > newest => continue,
                Entered::Overtaken | Entered::NotYet => return Err(Corrupt),
            }
            self.walk_to(|_, _| false)?;
            if self.poll() != Poll::Next {
                return Ok(());
            }
            // COMMIT: whoever sees the end of a segment sees that there is a newer one.
            if self.lane.newest()? <= newest {
                return Err(Corrupt);
            }
            // The publisher rolled meanwhile: its new segment begins after this call did.
            if self.follow()? == Entered::Inside {
                return Ok(());
            }
        }
    }

    /// Stands at message `sequence`. False if it is not retained or more than one ahead of the newest.
    pub fn seek_sequence(&mut self, sequence: u64) -> Result<bool, Corrupt> {
        let mut logical = self.lane.newest()?;
        loop {
            match self.enter(logical)? {
                Entered::Inside => {}
                Entered::Overtaken => return Ok(false),
                Entered::NotYet => return Err(Corrupt),
            }
            if self.sequence() <= sequence {
                break;
            }
            if logical <= self.lane.floor()? {
                return Ok(false);
            }
            logical -= 1;
        }
        loop {
            self.walk_to(|_, at| at == sequence)?;
            if self.sequence() == sequence && self.poll() != Poll::Next {
                return Ok(true);
            }
            if self.poll() != Poll::Next || self.follow()? != Entered::Inside {
                return Ok(false);
            }
        }
    }

    /// Stands at the frame at `position`. False if its segment is gone.
    pub fn seek_position(&mut self, position: u64) -> Result<bool, Corrupt> {
        let (logical, offset) = (self.lane.logical_of(position), self.lane.offset_of(position));
        let here = self.pinned.is_some() && self.logical == logical && self.at.get() <= offset;
        if !here {
            match self.enter(logical)? {
                Entered::Inside => {}
                Entered::Overtaken => return Ok(false),
                Entered::NotYet => return Err(Corrupt),
            }
        }
        self.walk_to(|at, _| at >= offset)?;
        if self.at.get() != offset {
            return Err(Corrupt);
        }
        Ok(true)
    }

    /// Enters the segment of `position` and stands there, where message `sequence` of the lane was seen once.
    pub fn stand_at(&mut self, position: u64, sequence: u64) -> Result<Entered, Corrupt> {
        let offset = self.lane.offset_of(position);
        if offset < PROLOGUE || offset + frame::WORD > self.lane.segment_bytes() {
            return Err(Corrupt);
        }
        let entered = self.enter(self.lane.logical_of(position))?;
        self.at.set(offset);
        self.sequence.set(sequence);
        Ok(entered)
    }

    /// Gives the pin of this reader away, to a view.
    pub fn into_pin(mut self) -> Option<usize> {
        self.pinned.take()
    }

    fn walk_to(&mut self, stop: impl Fn(usize, u64) -> bool) -> Result<(), Corrupt> {
        let from = (self.at.get(), self.sequence.get());
        let (at, sequence, _) = self.lane.walk(self.base, from.0, from.1, stop)?;
        self.at.set(at);
        self.sequence.set(sequence);
        Ok(())
    }
}
