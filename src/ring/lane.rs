//! A lane: the segments that one publisher writes, and the table that says where each logical one is.
//!
//! ```text
//!   logical   …  n-2      n-1       n         n+1
//!   table     retired   phys 3    phys 0       —          newest = n
//!                          │        │
//!   segment   │first seq│logical+1│ frame │ frame │ … │ NEXT │        frame = header word, payload, padding to 8
//! ```
//!
//! # Invariants
//!
//! * `I1` — At most one process writes: the holder of the lane's lease.
//! * `I2` — The table maps the logical segments `oldest..=newest`, one after the other, to different physical ones.
//! * `I3` — Every committed frame is followed, in its segment, by a header word: a frame, `NEXT`, or zero.
//! * `I4` — A physical segment is written only if no entry that is not retired names it and nobody pins it.
//!
//! # Orderings
//!
//! | edge     | `Release` store                     | `Acquire` load                  | hands over                     |
//! |----------|-------------------------------------|---------------------------------|--------------------------------|
//! | `COMMIT` | a header word, in `Writer::commit`  | header word, in `Reader::poll`  | the payload, to every reader   |
//! | `MAP`    | a table entry, in `Writer::roll`    | table entry, in `Reader::enter` | the prologue of the segment    |
//! | `NEWEST` | `newest`, in `Writer::roll`         | `newest`, when joining          | the table entry                |
//! | `FLOOR`  | `floor`, before the gates are scanned | `floor`, when joining         | see `JOIN` in `slots`          |
//!
//! The `PIN` edge is described in [`pins`](super::pins).

#![allow(unsafe_code)]

use crate::layout::entry::{Entry, LOGICAL_MAX};
use crate::layout::frame::{self, Head, PROLOGUE, WORD};
use crate::layout::lane as layout;
use crate::ring::pins::Pins;
use crate::shm::place::Region;
use crate::sync::{fence, AtomicU64, Ordering::*};

/// Most messages of a lane: decades of them at any speed.
const SEQUENCE_MAX: u64 = u64::MAX >> 7;

/// Most bytes of a lane: positions, and one segment more, are counted on without overflow.
const POSITION_MAX: u64 = u64::MAX >> 1;

/// A value in the lane's shared words that no publisher writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// The shared words and segments of one lane, seen by its writer or by a reader.
#[derive(Clone)]
pub struct Lane {
    data: Region,
    pins: Pins,
    index: usize,
    segments: usize,
    segment_bytes: usize,
    segments_at: usize,
    table_mask: u64,
    logical_max: u64,
}

impl Lane {
    /// Lane `index` with its file in `data`, whose length the caller has checked against the geometry.
    pub fn new(
        data: Region,
        pins: Pins,
        index: usize,
        segments: usize,
        segment_bytes: usize,
    ) -> Self {
        assert!(data.len() as u64 >= layout::file_bytes(segments, segment_bytes));
        Self {
            data,
            pins,
            index,
            segments,
            segment_bytes,
            segments_at: layout::segments_at(segments),
            table_mask: layout::table_len(segments) as u64 - 1,
            logical_max: LOGICAL_MAX.min(POSITION_MAX / segment_bytes as u64),
        }
    }

    /// Maps logical segment 0 in a zeroed lane file that nobody else sees yet.
    pub fn init(&self) {
        let base = self.base_of(0);
        self.word(base + WORD).store(1, Relaxed);
        self.entry_word(0).store(Entry::new(0, 0).0, Relaxed);
    }

    /// The number of this lane in its topic.
    pub fn index(&self) -> usize {
        self.index
    }

    /// The number of physical segments.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Bytes of a segment, a power of two.
    #[inline]
    pub fn segment_bytes(&self) -> usize {
        self.segment_bytes
    }

    /// The pin counters of the topic.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The file of this lane.
    #[cfg(windlass_loom)]
    pub fn data(&self) -> &Region {
        &self.data
    }

    /// The position of byte `at` of logical segment `logical`.
    #[inline]
    pub fn position(&self, logical: u64, at: usize) -> u64 {
        // Wraps only for numbers that no publisher writes; what they lead to is checked.
        logical.wrapping_mul(self.segment_bytes as u64).wrapping_add(at as u64)
    }

    /// The logical segment that holds `position`.
    pub fn logical_of(&self, position: u64) -> u64 {
        position / self.segment_bytes as u64
    }

    /// The offset of `position` in its segment.
    pub fn offset_of(&self, position: u64) -> usize {
        (position % self.segment_bytes as u64) as usize
    }

    /// Where physical segment `physical` begins in the file.
    #[inline]
    pub(super) fn base_of(&self, physical: usize) -> usize {
        debug_assert!(physical < self.segments);
        self.segments_at + physical * self.segment_bytes
    }

    #[inline]
    pub(super) fn word(&self, offset: usize) -> &AtomicU64 {
        self.data.word(offset)
    }

    pub(super) fn entry_word(&self, logical: u64) -> &AtomicU64 {
        self.word(layout::TABLE_AT + (logical & self.table_mask) as usize * 8)
    }

    /// The table entry for `logical`, with its physical segment checked.
    pub(super) fn entry(&self, logical: u64) -> Result<Entry, Corrupt> {
        self.checked(logical)?;
        // MAP: pairs with the store in `Writer::roll`.
        let entry = Entry(self.entry_word(logical).load(Acquire));
        // The numbers of one table entry lie a whole table apart.
        let belongs = |mapped: u64| (mapped ^ logical) & self.table_mask == 0;
        if entry.physical() >= self.segments || !entry.logical().is_none_or(belongs) {
            return Err(Corrupt);
        }
        Ok(entry)
    }

    /// A logical number that was read from somewhere, unless it is beyond what any lane reaches.
    fn checked(&self, logical: u64) -> Result<u64, Corrupt> {
        if logical <= self.logical_max {
            Ok(logical)
        } else {
            Err(Corrupt)
        }
    }

    /// Logical number of the newest mapped segment.
    pub fn newest(&self) -> Result<u64, Corrupt> {
        // NEWEST: pairs with the store in `Writer::roll`.
        self.checked(self.word(layout::NEWEST_AT).load(Acquire))
    }

    pub(super) fn set_newest(&self, logical: u64) {
        // NEWEST: pairs with `newest`.
        self.word(layout::NEWEST_AT).store(logical, Release);
    }

    /// Oldest logical segment that a newcomer may start in.
    pub fn floor(&self) -> Result<u64, Corrupt> {
        // FLOOR: pairs with `set_floor`; the fences of JOIN do the rest.
        self.checked(self.word(layout::FLOOR_AT).load(Acquire))
    }

    pub(super) fn set_floor(&self, logical: u64) {
        // FLOOR: pairs with `floor`.
        self.word(layout::FLOOR_AT).store(logical, Release);
    }

    /// Reads the header word at byte `at` of the segment at `base`, checked against the end of the segment.
    ///
    /// `Head::Frame` means that the frame and the header word behind it lie inside the segment.
    #[inline]
    pub(super) fn head(&self, base: usize, at: usize, sequence: u64) -> Head {
        // COMMIT: pairs with the store in `Writer::commit`.
        let word = self.word(base + at).load(Acquire);
        match frame::head(word, sequence) {
            Head::Frame(len) if at + frame::frame_bytes(len) + WORD > self.segment_bytes => {
                Head::Bad
            }
            head => head,
        }
    }

    /// Checks the prologue of the segment at `base` and returns its first sequence.
    pub(super) fn first_sequence(&self, base: usize, logical: u64) -> Result<u64, Corrupt> {
        // Relaxed: behind the MAP edge, and the segment is pinned or the reader checks the mapping again.
        if self.word(base + WORD).load(Relaxed) != logical + 1 {
            return Err(Corrupt);
        }
        let first = self.word(base).load(Relaxed);
        // So that sequences, and sums of those of all lanes, can be counted on without overflow.
        if first > SEQUENCE_MAX {
            return Err(Corrupt);
        }
        Ok(first)
    }

    /// Follows the committed headers of a segment from byte `at` until `stop` or the end of what is committed.
    ///
    /// Returns where it stands, the sequence due there, and what it found there.
    pub(super) fn walk(
        &self,
        base: usize,
        mut at: usize,
        mut sequence: u64,
        stop: impl Fn(usize, u64) -> bool,
    ) -> Result<(usize, u64, Head), Corrupt> {
        loop {
            match self.head(base, at, sequence) {
                Head::Bad => return Err(Corrupt),
                Head::Frame(len) if !stop(at, sequence) => {
                    at += frame::frame_bytes(len);
                    sequence += 1;
                }
                head => return Ok((at, sequence, head)),
            }
        }
    }

    /// The oldest logical segment from which on all are mapped up to `newest`.
    pub(super) fn oldest_before(&self, newest: u64) -> Result<u64, Corrupt> {
        let mut oldest = newest;
        while oldest > 0 && self.entry(oldest - 1)?.maps(oldest - 1) {
            oldest -= 1;
        }
        Ok(oldest)
    }

    /// Follows the committed frames from `position` on, which must be a frame boundary of a live segment; calls `each`
    /// with every position. Used by the holder of the lease, to append to an order log what a dead publisher did not.
    pub fn positions_from(&self, position: u64, mut each: impl FnMut(u64)) -> Result<(), Corrupt> {
        let newest = self.newest()?;
        for logical in self.logical_of(position).max(self.oldest_before(newest)?)..=newest {
            let entry = self.entry(logical)?;
            if !entry.maps(logical) {
                return Err(Corrupt);
            }
            let base = self.base_of(entry.physical());
            let (mut at, mut sequence) = (PROLOGUE, self.first_sequence(base, logical)?);
            while let Head::Frame(len) = self.head(base, at, sequence) {
                let here = self.position(logical, at);
                if here >= position {
                    each(here);
                }
                at += frame::frame_bytes(len);
                sequence += 1;
            }
        }
        Ok(())
    }

    /// Sequence that is due next, and its position, read without a pin by somebody who only looks: `None` if it was
    /// overtaken.
    pub fn look_at_tail(&self) -> Result<Option<(u64, u64)>, Corrupt> {
        self.look_at(self.newest()?, |base, logical| {
            let first = self.first_sequence(base, logical)?;
            let (at, sequence, head) = self.walk(base, PROLOGUE, first, |_, _| false)?;
            // COMMIT: whoever sees the end of a segment sees that there is a newer one.
            if head == Head::Next && self.newest()? <= logical {
                return Err(Corrupt);
            }
            Ok((sequence, self.position(logical, at)))
        })
    }

    /// First sequence of the oldest segment a newcomer may start in, without a pin: `None` if it was overtaken.
    pub fn look_at_floor(&self) -> Result<Option<u64>, Corrupt> {
        self.look_at(self.floor()?, |base, logical| {
            let first = self.first_sequence(base, logical)?;
            match self.head(base, PROLOGUE, first) {
                Head::Bad => Err(Corrupt),
                _ => Ok(first),
            }
        })
    }

    /// Reads a segment that nobody pinned. What was found counts, be it damage, only if the segment was not taken back
    /// meanwhile.
    fn look_at<R>(
        &self,
        logical: u64,
        read: impl FnOnce(usize, u64) -> Result<R, Corrupt>,
    ) -> Result<Option<R>, Corrupt> {
        let entry = self.entry(logical)?;
        if !entry.maps(logical) {
            // A number is told after its mapping was stored.
            let overtaken = entry.logical().is_some_and(|mapped| mapped >= logical);
            return if overtaken { Ok(None) } else { Err(Corrupt) };
        }
        let found = read(self.base_of(entry.physical()), logical);
        if self.still_maps(logical, entry) {
            found.map(Some)
        } else {
            Ok(None)
        }
    }

    /// Whether segment `logical` goes on, for a reader that found nothing at the place where message `sequence` is due:
    /// false if the next segment says that it begins with another message, so that a header word is gone.
    ///
    /// A publisher that died while it rolled leaves a segment without an end, and the next one begins where it broke
    /// off.
    pub(super) fn goes_on(&self, logical: u64, sequence: u64) -> Result<bool, Corrupt> {
        let next = logical + 1;
        if self.entry(next)?.logical().is_none_or(|mapped| mapped < next) {
            return Ok(true);
        }
        let begins = self.look_at(next, |base, next| self.first_sequence(base, next))?;
        Ok(begins == Some(sequence))
    }

    /// Whether `entry` was not taken back while its segment was read without a pin.
    fn still_maps(&self, logical: u64, entry: Entry) -> bool {
        // PIN: whatever was read of a segment that is used again was stored behind the fence in `Writer::take`. With
        // this fence the mapping that was retired before that one is seen retired.
        fence(Acquire);
        self.entry(logical) == Ok(entry)
    }

    /// A statistics word of the lane's header page.
    pub fn counter(&self, at: usize) -> u64 {
        // Relaxed: statistics.
        self.word(at).load(Relaxed)
    }

    /// Raises a statistics word. Only the writer.
    pub(super) fn count(&self, at: usize) {
        // Relaxed: statistics with a single writer.
        let word = self.word(at);
        word.store(word.load(Relaxed).wrapping_add(1), Relaxed);
    }
}

#[cfg(not(windlass_loom))]
impl Lane {
    /// The mark at the end of its file.
    pub fn last(&self) -> u64 {
        self.data.last()
    }

    /// The payload bytes of a committed frame, as `Reader::poll` found it, in a segment that the caller keeps pinned.
    #[inline]
    pub fn payload(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: contract 4: a reader calls this between COMMIT and its unpin; committed bytes do not change.
        unsafe { self.data.bytes(offset, len) }
    }

    /// Bytes of the uncommitted space of the writer's own segment.
    #[inline]
    #[allow(clippy::mut_from_ref)]
    pub(super) fn space(&self, offset: usize, len: usize) -> &mut [u8] {
        // SAFETY: contract 4 and `I1`, `I4`: only the lease holder calls this, for bytes behind its position in a
        // segment that it took; readers look no further than the header word at its position.
        unsafe { self.data.bytes_mut(offset, len) }
    }

    /// Zeroes bytes of the uncommitted space.
    #[inline]
    pub(super) fn zero(&self, offset: usize, len: usize) {
        self.space(offset, len).fill(0);
    }
}

#[cfg(windlass_loom)]
impl Lane {
    pub(super) fn zero(&self, offset: usize, len: usize) {
        for at in (offset..offset + len).step_by(8) {
            // Relaxed: as plain bytes in a mapping.
            self.word(at).store(0, Relaxed);
            self.data.set_payload(at, 0);
        }
    }
}
