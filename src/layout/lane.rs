//! The bytes of a lane file: a header page with the mapping table, then the segments.
//!
//! Only the publisher that holds the lane maps it writable; everybody else maps it read-only.

use crate::limits::{HEADER_BYTES, LINE};

const WORDS_AT: usize = if cfg!(windlass_loom) { 0 } else { 128 };

/// Logical number of the newest mapped segment.
pub const NEWEST_AT: usize = WORDS_AT;
/// Oldest logical segment that a newcomer may start in.
pub const FLOOR_AT: usize = WORDS_AT + 8;
/// Times that the publisher found no segment to take.
pub const FULL_AT: usize = WORDS_AT + LINE;
/// Typed messages that outgrew their loan and were copied once.
pub const OUTGROWN_AT: usize = WORDS_AT + LINE + 8;
/// Segments taken since the birth of the lane.
pub const ROLLED_AT: usize = WORDS_AT + LINE + 16;
/// The mapping table: one word for each table entry.
pub const TABLE_AT: usize = if cfg!(windlass_loom) { 2 * LINE } else { 1024 };

/// Where physical segment 0 begins.
pub fn segments_at(segments: usize) -> usize {
    if cfg!(windlass_loom) {
        TABLE_AT + table_len(segments) * 8
    } else {
        HEADER_BYTES
    }
}

/// Entries of the mapping table: a power of two, so that the low bits of a logical number select one.
pub fn table_len(segments: usize) -> usize {
    segments.next_power_of_two()
}

/// Bytes of a whole lane file.
pub fn file_bytes(segments: usize, segment_bytes: usize) -> u64 {
    segments_at(segments) as u64 + segments as u64 * segment_bytes as u64
}
