//! The writing end of a lane.
//!
//! ```text
//!              tail                    clean
//!   ───────────┼─────────────────────────┼──────────────
//!    committed │ 0 │ loan … zero         │ stale bytes
//!              └ the header word that readers poll
//! ```
//!
//! # Invariants
//!
//! * `I1` — The header word at `tail` is zero until the commit.
//! * `I2` — `tail + WORD <= clean`, and all bytes in `tail..clean` are zero. While a loan is out, `clean` is as low as
//!   it can be.
//! * `I3` — A commit makes sure that the next header word is zero *before* it stores this one.
//!
//! # If the publisher dies
//!
//! Before the commit: the message never existed. Inside a roll: [`Writer::recover`] completes it, because a
//! newcomer may already stand in the new segment. Bytes behind the tail may be a dead builder's, so the successor
//! trusts none of them. Checked by `loom-tests/tests/lane.rs` and `roll.rs`.

use crate::layout::entry::Entry;
use crate::layout::frame::{self, Head, PROLOGUE, WORD};
use crate::layout::lane as layout;
use crate::limits::CLEAN_AHEAD_BYTES;
use crate::ring::lane::{Corrupt, Lane};
use crate::sync::Ordering::*;

/// The one writer of a lane. Private to the process that holds the lane's lease.
pub struct Writer {
    pub(super) lane: Lane,
    base: usize,
    tail: usize,
    clean: usize,
    pub(super) logical: u64,
    pub(super) oldest: u64,
    sequence: u64,
    /// Bytes between the beginning of a frame, or of a record, and its payload.
    header: usize,
}

impl Writer {
    /// Takes a lane over where its last holder left it: a fresh lane, an orderly end, or any instant of a death.
    pub fn recover(lane: Lane) -> Result<Self, Corrupt> {
        let mut logical = lane.newest()?;
        if lane.entry(logical + 1)?.maps(logical + 1) {
            logical += 1;
            step!("recover.newest");
            lane.set_newest(logical);
        }
        let entry = lane.entry(logical)?;
        if !entry.maps(logical) {
            return Err(Corrupt);
        }
        let base = lane.base_of(entry.physical());
        let first = lane.first_sequence(base, logical)?;
        if logical > 0 {
            Self::complete_roll(&lane, logical - 1, first)?;
        }
        let (tail, sequence, head) = lane.walk(base, PROLOGUE, first, |_, _| false)?;
        if head != Head::Empty {
            return Err(Corrupt);
        }
        let oldest = lane.oldest_before(logical)?;
        Ok(Self { lane, base, tail, clean: tail + WORD, logical, oldest, sequence, header: WORD })
    }

    /// Ends segment `logical` if its publisher died between mapping the next one and saying so.
    fn complete_roll(lane: &Lane, logical: u64, first_of_next: u64) -> Result<(), Corrupt> {
        let entry = lane.entry(logical)?;
        if !entry.maps(logical) {
            // It was taken back, which happens after its end was written.
            return Ok(());
        }
        let base = lane.base_of(entry.physical());
        let first = lane.first_sequence(base, logical)?;
        let (at, sequence, head) = lane.walk(base, PROLOGUE, first, |_, _| false)?;
        if sequence != first_of_next {
            return Err(Corrupt);
        }
        if head == Head::Empty {
            step!("recover.next");
            // COMMIT: pairs with the load in `Lane::head`.
            lane.word(base + at).store(frame::next(sequence), Release);
        }
        Ok(())
    }

    /// The lane.
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// The sequence that the next message gets.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The position of the next message.
    #[inline]
    pub fn position(&self) -> u64 {
        self.lane.position(self.logical, self.tail)
    }

    /// Whether a payload of `len` bytes fits the current segment.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        // Its header and the one that follows it. A length may be any number: nothing is added to it.
        let room = (self.lane.segment_bytes() - self.tail).checked_sub(self.header + WORD);
        room.is_some_and(|room| len <= room)
    }

    /// Where the payload of the next message begins, in the file.
    #[inline]
    pub fn payload_at(&self) -> usize {
        self.base + self.tail + self.header
    }

    /// The largest payload that fits a segment.
    pub fn payload_bytes_max(&self) -> usize {
        self.lane.segment_bytes() - PROLOGUE - self.header - WORD
    }

    /// Payload bytes from `payload_at` on that are zero now.
    #[inline]
    pub fn clean_bytes(&self) -> usize {
        // The header word of the next message stays out of it.
        (self.clean - self.tail).saturating_sub(self.header + WORD)
    }

    /// Zeroes ahead until a payload of `len` bytes, which must fit, has nothing but zeroes.
    #[inline]
    pub fn clean(&mut self, len: usize) {
        let end = self.tail + self.header + ((len + 7) & !7) + WORD;
        if end > self.clean {
            self.clean_to(end);
        }
    }

    fn clean_to(&mut self, end: usize) {
        step!("loan.clean");
        let end = end.max(self.clean + CLEAN_AHEAD_BYTES).min(self.lane.segment_bytes());
        self.lane.zero(self.base + self.clean, end - self.clean);
        self.clean = end;
    }

    /// Commits the payload of `len` bytes that was written at `payload_at`; returns its position.
    ///
    /// `touched` payload bytes may have been written, at least `len`.
    #[inline]
    pub fn commit(&mut self, len: usize, touched: usize) -> u64 {
        let position = self.position();
        let next = self.tail + frame::frame_bytes(len);
        let dirty = self.tail + WORD + touched;
        if dirty > next || next + WORD > self.clean {
            step!("commit.clean");
            // Relaxed: ordered by the commit below.
            self.lane.word(self.base + next).store(0, Relaxed);
            self.clean = next + WORD;
        }
        step!("commit.head");
        // COMMIT: pairs with the load in `Lane::head`.
        self.lane.word(self.base + self.tail).store(frame::frame(len, self.sequence), Release);
        self.tail = next;
        self.sequence += 1;
        position
    }

    /// Lends the space behind the position to a builder, and says up to where it was clean.
    ///
    /// From now on nothing there counts as clean: a loan may be forgotten without a word, whatever was written into it.
    #[inline]
    pub fn lend(&mut self) -> usize {
        step!("loan.lend");
        std::mem::replace(&mut self.clean, self.tail + WORD)
    }

    /// Takes the space back from a builder that says what it wrote: the commit that follows covers it.
    #[inline]
    pub fn take_back(&mut self, clean: usize) {
        self.clean = clean;
    }

    /// Ends the current segment and goes on in `physical`, which `take` returned.
    pub fn roll(&mut self, physical: usize) {
        let lane = &self.lane;
        let (logical, base) = (self.logical + 1, lane.base_of(physical));
        step!("roll.prologue");
        // Relaxed: nobody reads a free segment; published by MAP.
        lane.word(base).store(self.sequence, Relaxed);
        lane.word(base + WORD).store(logical + 1, Relaxed);
        lane.word(base + PROLOGUE).store(0, Relaxed);
        step!("roll.map");
        // MAP: pairs with the load in `Lane::entry`.
        lane.entry_word(logical).store(Entry::new(logical, physical).0, Release);
        step!("roll.newest");
        lane.set_newest(logical);
        step!("roll.next");
        // COMMIT: pairs with the load in `Lane::head`.
        lane.word(self.base + self.tail).store(frame::next(self.sequence), Release);
        lane.count(layout::ROLLED_AT);
        self.base = base;
        self.tail = PROLOGUE;
        self.clean = PROLOGUE + WORD;
        self.logical = logical;
    }

    /// Counts a wait for room.
    pub fn count_full(&self) {
        self.lane.count(layout::FULL_AT);
    }

    /// Counts a typed message that outgrew its loan.
    pub fn count_outgrown(&self) {
        self.lane.count(layout::OUTGROWN_AT);
    }
}

#[cfg(not(windlass_loom))]
impl Writer {
    /// A writer in segment `logical` of a lane of a log, whose bytes from `tail` on are zero up to `clean`. `number` is
    /// that of the next record.
    pub fn in_log(lane: Lane, logical: u64, tail: usize, clean: usize, number: u64) -> Self {
        let base = lane.base_of(0);
        let header = crate::layout::record::HEADER;
        Self { lane, base, tail, clean, logical, oldest: logical, sequence: number, header }
    }

    /// Where the next message begins in its segment.
    pub fn tail(&self) -> usize {
        self.tail
    }

    /// Logical number of the segment.
    pub fn logical(&self) -> u64 {
        self.logical
    }

    /// Goes on behind a record of `bytes` bytes, of whose payload `touched` bytes may have been written.
    #[inline]
    pub fn pass_record(&mut self, bytes: usize, touched: usize) {
        let dirty = self.tail + self.header + touched;
        self.tail += bytes;
        self.sequence += 1;
        if dirty > self.tail || self.clean < self.tail {
            self.clean = self.tail;
        }
    }

    /// From now on nothing fits.
    pub fn seal(&mut self) {
        self.tail = self.lane.segment_bytes();
        self.clean = self.tail + WORD;
    }

    /// The mark at the end of the lane's file.
    pub fn last(&self) -> u64 {
        self.lane.last()
    }

    /// The space for a payload of `len` bytes, which must fit.
    #[inline]
    pub fn space(&mut self, len: usize) -> &mut [u8] {
        self.lane.space(self.payload_at(), len)
    }

    /// The same space, to read.
    #[inline]
    pub fn space_ref(&self, len: usize) -> &[u8] {
        self.lane.space(self.payload_at(), len)
    }
}

#[cfg(windlass_loom)]
impl Writer {
    /// Writes word `index` of the payload of the next message.
    pub fn write_payload(&mut self, index: usize, value: u64) {
        let at = self.payload_at() + index * 8;
        // In a mapping payload bytes and header words are the same memory: stale payload is what a reader would
        // see as a header.
        self.lane.word(at).store(value, Relaxed);
        self.lane.data().set_payload(at, value);
    }
}
