//! Records: how a message lies in a lane of a log.
//!
//! A record is written as plain bytes behind the end of its lane, where nobody looks, and is committed by a place in
//! the order of the log (edge `PLACE` of [`log`](super::log)). From then on it does not change.

use crate::layout::frame::{PROLOGUE, WORD};
use crate::layout::record::{self as layout, HEADER, TIME_AT};
use crate::ring::lane::{Corrupt, Lane};
use crate::ring::writer::Writer;
use crate::sync::Ordering::{Acquire, Relaxed, Release};

/// A record in a segment, with its lengths checked against the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it begins in the segment.
    pub at: usize,
    /// Its first word.
    pub head: u64,
    /// Payload bytes.
    pub len: usize,
    /// Key bytes.
    pub key_bytes: usize,
    /// The checksum that it carries.
    pub crc: u32,
}

impl Record {
    /// Bytes of the whole record.
    #[inline]
    pub fn bytes(&self) -> usize {
        layout::record_bytes(self.len, self.key_bytes)
    }

    /// Where it ends in its segment.
    #[inline]
    pub fn end(&self) -> usize {
        self.at + self.bytes()
    }
}

impl Lane {
    /// Begins a segment of a log whose first record is number `number` of its lane.
    pub fn begin_segment(&self, logical: u64, number: u64) {
        let base = self.base_of(0);
        step!("log.begin");
        // Relaxed: published by the store below, and by the place of its first record.
        self.word(base).store(number, Relaxed);
        // BEGUN: pairs with `is_begun`.
        self.word(base + WORD).store(logical + 1, Release);
    }

    /// Whether a segment of a log was begun.
    pub fn is_begun(&self, logical: u64) -> bool {
        // BEGUN: pairs with `begin_segment`.
        self.word(self.base_of(0) + WORD).load(Acquire) == logical + 1
    }

    /// Where in the file the segment of a log begins.
    pub fn segment_at(&self) -> usize {
        self.base_of(0)
    }

    /// The number of the first record of a segment of a log.
    pub fn first_number(&self, logical: u64) -> Result<u64, Corrupt> {
        self.first_sequence(self.base_of(0), logical)
    }

    /// The record at byte `at` of a segment of a log; `None` if there is none that fits the segment.
    #[inline]
    pub fn record(&self, at: usize) -> Option<Record> {
        if at < PROLOGUE || !at.is_multiple_of(WORD) || at + HEADER > self.segment_bytes() {
            return None;
        }
        let here = self.base_of(0) + at;
        // Relaxed: behind the PLACE edge.
        let head = self.word(here).load(Relaxed);
        let len = layout::payload_bytes(head)?;
        let (crc, key_bytes) =
            layout::check_parts(self.word(here + layout::CHECK_AT).load(Relaxed))?;
        let found = Record { at, head, len, key_bytes, crc };
        (found.end() <= self.segment_bytes()).then_some(found)
    }

    /// The time of a record.
    #[inline]
    pub fn record_time(&self, at: usize) -> u64 {
        // Relaxed: as above.
        self.word(self.base_of(0) + at + TIME_AT).load(Relaxed)
    }

    /// Where in the file the payload of a record begins.
    #[inline]
    pub fn payload_of(&self, record: &Record) -> usize {
        self.base_of(0) + record.at + HEADER
    }

    /// The key of a record.
    pub fn key(&self, record: &Record) -> &[u8] {
        self.payload(self.payload_of(record) + layout::padded(record.len), record.key_bytes)
    }

    /// Whether a record is what was published in this place; `seed` is that of its segment.
    #[inline]
    pub fn is_sound(&self, record: &Record, seed: u32) -> bool {
        let whole = self.payload(self.base_of(0) + record.at, record.bytes());
        layout::checksum_of_sealed(seed, whole) == record.crc
    }
}

impl Writer {
    /// Writes what a record is made of besides its payload of `len` bytes, which lies at `payload_at` already. It has
    /// room for the key. Returns the position of the record and its bytes.
    #[inline]
    pub fn write_record(
        &mut self,
        len: usize,
        key: &[u8],
        time: u64,
        seed: Option<u32>,
    ) -> (u64, usize) {
        let bytes = layout::record_bytes(len, key.len());
        let number = self.sequence();
        let body = self.space(bytes - HEADER);
        let padded = layout::padded(len);
        body[len..padded].fill(0);
        if !key.is_empty() {
            let (whole, rest) = body[padded..].split_at_mut(key.len());
            whole.copy_from_slice(key);
            rest.fill(0);
        }
        let here = self.payload_at() - HEADER;
        let lane = self.lane();
        // Relaxed: nobody looks behind the end of the lane; published by the PLACE edge.
        lane.word(here).store(layout::head(len, number), Relaxed);
        lane.word(here + TIME_AT).store(time, Relaxed);
        let check = lane.word(here + layout::CHECK_AT);
        check.store(layout::check_word(0, key.len()), Relaxed);
        if let Some(seed) = seed {
            let crc = layout::checksum_of(seed, lane.space(here, bytes));
            check.store(layout::check_word(crc, key.len()), Relaxed);
        }
        (self.position(), bytes)
    }
}
