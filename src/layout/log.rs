//! The files of a log: what it is, who uses it, segments, places, checkpoint.
//!
//! ```text
//!   log                 options and schema; never changes
//!   claim               which topic uses the log, and since which start of the machine; locked while in use
//!   checkpoint          how far the log is known to be on disk: two slots, written by turns
//!   lane-<lane>-<n>     segment n of a lane: a header page, then records
//!   places-<n>          piece n of the order: a header page, then a word for each record
//! ```
//!
//! The order is an array of words, one for each sequence, cut into pieces: `1 | lane: 7 | check: 8 | position / 8:
//! 48`, zero if not yet taken. A record is committed when its word is there.

use crate::error::{Error, Result};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::limits::{self, HEADER_BYTES, PLACES};

/// What a log was created with. Immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogShape {
    /// Whether records carry checksums.
    pub checksums: bool,
    /// Whether messages are Cap'n Proto of a stored schema.
    pub typed: bool,
    /// Lanes.
    pub publishers_max: u32,
    /// Bytes of a segment, without its header page; a power of two.
    pub segment_bytes: u64,
    /// When what is published is put on disk: 0 = when a segment is full, `u64::MAX` = before publishing returns, else
    /// every so many nanoseconds.
    pub sync_ns: u64,
    /// Bytes of all segments above which the oldest are deleted; 0 = never.
    pub retain_bytes: u64,
    /// Age above which segments are deleted, in nanoseconds; 0 = never.
    pub retain_ns: u64,
    /// Permission bits of the files.
    pub mode: u32,
    /// Bytes of the stored schema.
    pub schema_bytes: u64,
    /// Checksum of the stored schema.
    pub schema_crc: u32,
}

/// `sync_ns` of a log that is put on disk before publishing returns.
pub const SYNC_EACH: u64 = u64::MAX;

impl LogShape {
    /// Whether each message is put on disk before publishing returns.
    pub fn is_synced_each(&self) -> bool {
        self.sync_ns == SYNC_EACH
    }

    /// Whether what is published is put on disk more often than segments are full.
    pub fn is_synced_often(&self) -> bool {
        self.sync_ns != 0
    }

    /// The header of the file that says all this.
    pub fn to_header(self, identity: u64) -> Header {
        let flags = u64::from(self.checksums) | u64::from(self.typed) << 1;
        let fields: [u64; FIELDS] = [
            flags,
            u64::from(self.publishers_max),
            self.segment_bytes,
            PLACES,
            self.sync_ns,
            self.retain_bytes,
            self.retain_ns,
            u64::from(self.mode),
            self.schema_bytes,
            u64::from(self.schema_crc),
        ];
        Header { kind: Kind::Log, file_bytes: self.file_bytes(), identity, fields }
    }

    /// The shape that a checked header describes, with every field inside its limits.
    pub fn from_header(header: &Header, file: impl std::fmt::Display) -> Result<Self> {
        let [flags, publishers, segment_bytes, places, ..] = header.fields;
        let [.., sync_ns, retain_bytes, retain_ns, mode, schema_bytes, schema_crc] = header.fields;
        let file = file.to_string();
        let within = |field: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                Err(Error::corrupt(&file, field, value, format!("{least} to {most}")))
            }
        };
        let (min, max) = (limits::SEGMENT_BYTES_MIN, limits::LOG_SEGMENT_BYTES_MAX);
        let shape = Self {
            checksums: flags & 1 != 0,
            typed: flags & 2 != 0,
            publishers_max: within("publishers_max", publishers, 1, limits::PUBLISHERS_MAX.into())?
                as u32,
            segment_bytes: within("segment_bytes", segment_bytes, min, max)?,
            sync_ns,
            retain_bytes,
            retain_ns,
            mode: within("mode", mode, 0, 0o777)? as u32,
            schema_bytes: within("schema_bytes", schema_bytes, 0, limits::SCHEMA_BYTES_MAX as u64)?,
            schema_crc: within("schema_crc", schema_crc, 0, u32::MAX.into())? as u32,
        };
        within("places of a piece", places, PLACES, PLACES)?;
        if !shape.segment_bytes.is_power_of_two() {
            return Err(Error::corrupt(&file, "segment_bytes", shape.segment_bytes, "2^n"));
        }
        if header.file_bytes != shape.file_bytes() {
            return Err(Error::corrupt(&file, "its length", header.file_bytes, shape.file_bytes()));
        }
        Ok(shape)
    }

    /// Where the schema begins.
    pub const SCHEMA_AT: usize = HEADER_BYTES;

    /// Bytes of the file that says all this: pages.
    pub fn file_bytes(&self) -> u64 {
        let schema_bytes = self.schema_bytes.next_multiple_of(8);
        (HEADER_BYTES as u64 + schema_bytes + END_BYTES as u64)
            .next_multiple_of(HEADER_BYTES as u64)
    }

    /// The header of a segment.
    pub fn segment_header(&self, identity: u64, lane: usize, logical: u64) -> Header {
        let file_bytes = HEADER_BYTES as u64 + self.segment_bytes + END_BYTES as u64;
        let mut fields = [0; FIELDS];
        fields[..3].copy_from_slice(&[lane as u64, logical, self.segment_bytes]);
        Header { kind: Kind::Segment, file_bytes, identity, fields }
    }

    /// The header of a piece of the order.
    pub fn places_header(&self, identity: u64, piece: u64) -> Header {
        let file_bytes = (SUMMARIES_END + END_BYTES) as u64;
        let mut fields = [0; FIELDS];
        fields[..2].copy_from_slice(&[piece, PLACES]);
        Header { kind: Kind::Places, file_bytes, identity, fields }
    }
}

/// In the header page of a segment: the sequence of the message that was published last before the segment was begun,
/// plus one. Everything in earlier segments of the lane is below it.
pub const AFTER_AT: usize = 128;

/// In the header page of a piece of the order: the latest time of all earlier records, once it is known, else 0.
pub const LATEST_BEFORE_AT: usize = 128;

/// Where the words of a piece of the order begin.
pub const PLACES_AT: usize = HEADER_BYTES;

/// Places that one summary of times is about.
pub const SUMMARY_PLACES: u64 = 4096;

/// Where the summaries begin: for each block of places its earliest and its latest time, once both are known, else 0.
pub const SUMMARIES_AT: usize = PLACES_AT + PLACES as usize * 8;

const SUMMARIES_BYTES: u64 = PLACES / SUMMARY_PLACES * 16;

/// Where the summaries end.
pub const SUMMARIES_END: usize = SUMMARIES_AT + SUMMARIES_BYTES as usize;

/// The name of a segment's file.
pub fn segment_file(lane: usize, logical: u64) -> String {
    format!("lane-{lane}-{logical:012x}")
}

/// The name of a piece of the order.
pub fn places_file(piece: u64) -> String {
    format!("places-{piece:012x}")
}

/// The lane and the number of the segment with this file name; `None` if it is not one.
pub fn segment_of(name: &str) -> Option<(usize, u64)> {
    let (lane, logical) = name.strip_prefix("lane-")?.split_once('-')?;
    let found = (lane.parse().ok()?, u64::from_str_radix(logical, 16).ok()?);
    (segment_file(found.0, found.1) == name).then_some(found)
}

/// The number of the piece of the order with this file name; `None` if it is not one.
pub fn piece_of(name: &str) -> Option<u64> {
    let piece = u64::from_str_radix(name.strip_prefix("places-")?, 16).ok()?;
    (places_file(piece) == name).then_some(piece)
}

/// What a log is known to have on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Raised by every one.
    pub number: u64,
    /// Every record below this sequence, and its place, is on disk.
    pub next: u64,
    /// The first sequence that is kept.
    pub floor: u64,
    /// Records that recoveries cut off, and had places, since the log was made.
    pub cut: u64,
    /// Of each lane: the position behind its last record below `next`.
    pub ends: [u64; limits::PUBLISHERS_MAX as usize],
    /// Of each lane: the number of its next record.
    pub numbers: [u64; limits::PUBLISHERS_MAX as usize],
}

const SLOT_WORDS: usize = 5 + 2 * limits::PUBLISHERS_MAX as usize;

/// Bytes between the two slots of a checkpoint file: no page, and no sector, has parts of both.
const SLOT_STRIDE: usize = HEADER_BYTES;

impl Checkpoint {
    /// Of a log with nothing in it.
    pub fn empty() -> Self {
        let none = [0; limits::PUBLISHERS_MAX as usize];
        Self { number: 0, next: 0, floor: 0, cut: 0, ends: none, numbers: none }
    }

    /// Bytes of the file.
    pub const FILE_BYTES: u64 = (HEADER_BYTES + 2 * SLOT_STRIDE + END_BYTES) as u64;

    /// The header of the file.
    pub fn header(identity: u64) -> Header {
        let fields = [0; FIELDS];
        Header { kind: Kind::Checkpoint, file_bytes: Self::FILE_BYTES, identity, fields }
    }

    /// Where in the file this one belongs, so that the one before it stays.
    pub fn slot_at(&self) -> usize {
        Self::SLOTS[(self.number % 2) as usize]
    }

    /// Where the two slots are.
    pub const SLOTS: [usize; 2] = [HEADER_BYTES, HEADER_BYTES + SLOT_STRIDE];

    /// Bytes of a slot.
    pub const SLOT_BYTES: usize = SLOT_WORDS * 8;

    /// The bytes of a slot, checksum last.
    pub fn to_bytes(self) -> [u8; Self::SLOT_BYTES] {
        let mut words = [0; SLOT_WORDS];
        words[..4].copy_from_slice(&[self.number, self.next, self.floor, self.cut]);
        let lanes = self.ends.len();
        words[4..4 + lanes].copy_from_slice(&self.ends);
        words[4 + lanes..4 + 2 * lanes].copy_from_slice(&self.numbers);
        let mut bytes = [0; Self::SLOT_BYTES];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        let end = Self::SLOT_BYTES - 8;
        // Not zero for a slot of zeroes.
        let crc = u64::from(crc32c::crc32c(&bytes[..end])) | 1 << 32;
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What a slot says; `None` if its checksum is wrong, or it was never written.
    pub fn from_bytes(bytes: &[u8; Self::SLOT_BYTES]) -> Option<Self> {
        let mut words = [0; SLOT_WORDS];
        for (word, at) in words.iter_mut().zip(bytes.chunks_exact(8)) {
            let mut eight = [0; 8];
            eight.copy_from_slice(at);
            *word = u64::from_le_bytes(eight);
        }
        let end = Self::SLOT_BYTES - 8;
        if words[SLOT_WORDS - 1] != (u64::from(crc32c::crc32c(&bytes[..end])) | 1 << 32) {
            return None;
        }
        let mut found = Self::empty();
        [found.number, found.next, found.floor, found.cut] =
            [words[0], words[1], words[2], words[3]];
        let lanes = found.ends.len();
        found.ends.copy_from_slice(&words[4..4 + lanes]);
        found.numbers.copy_from_slice(&words[4 + lanes..4 + 2 * lanes]);
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_come_apart_as_they_were_put_together() {
        assert_eq!(segment_of(&segment_file(63, 1 << 44)), Some((63, 1 << 44)));
        assert_eq!(piece_of(&places_file(77)), Some(77));
        for name in ["lane-0", "lane-0-1", "lane-01-000000000001", "places-", "places-0", "log"] {
            assert_eq!((segment_of(name), piece_of(name)), (None, None), "{name}");
        }
    }

    #[test]
    fn a_checkpoint_with_a_flipped_bit_is_none() {
        let mut checkpoint = Checkpoint { number: 3, next: 9, ..Checkpoint::empty() };
        checkpoint.ends[63] = 77;
        let bytes = checkpoint.to_bytes();
        assert_eq!(Checkpoint::from_bytes(&bytes), Some(checkpoint));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Checkpoint::from_bytes(&bytes), None);
        }
        assert_eq!(Checkpoint::from_bytes(&[0; Checkpoint::SLOT_BYTES]), None);
    }
}
