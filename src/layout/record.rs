//! The header of a record: a message in a log.
//!
//! ```text
//!   byte  0   63        40 39   32 31                 0
//!            ┌────────────┬───────┬────────────────────┐
//!            │ number     │ kind  │ payload bytes      │
//!         8  │ time: nanoseconds since 1970            │
//!        16  │ 0           │ key bytes │ CRC-32C       │
//!            └────────────┴───────────┴───────────────┘
//!        24   payload, zeroes up to a multiple of 8, key, zeroes up to a multiple of 8
//! ```
//!
//! The number is the low 24 bits of the record's number in its lane. The checksum covers, in this order, the three
//! words with zero in its own place, the payload and the key, both with their zeroes. It begins at a value that
//! depends on the log, the lane and the segment ([`seed`]), so a record is sound in its own place only.
//!
//! A record says nothing about being committed: the order of the log does.

use crate::layout::crc;
use crate::layout::frame::WORD;

/// Bytes of the header of a record.
pub const HEADER: usize = 24;

/// Longest key, in bytes.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

/// Offset of the time in a record.
pub const TIME_AT: usize = 8;

/// Offset of the word with the checksum and the length of the key.
pub const CHECK_AT: usize = 16;

const KIND: u64 = 3;
const NUMBER_MASK: u64 = (1 << 24) - 1;

/// Numbers of records in a lane that differ by less than this differ in what the header says of them.
#[cfg(test)]
const NUMBERS: u64 = NUMBER_MASK + 1;

/// The first word of a record.
#[inline]
pub fn head(len: usize, number: u64) -> u64 {
    ((number & NUMBER_MASK) << 40) | (KIND << 32) | len as u64
}

/// The payload bytes that a first word says, if it is one of a record.
#[inline]
pub fn payload_bytes(word: u64) -> Option<usize> {
    ((word >> 32) & 0xff == KIND).then_some(word as u32 as usize)
}

/// The number that a first word says, given one that is not more than 2^24 below.
pub fn number(word: u64, since: u64) -> u64 {
    since + ((word >> 40).wrapping_sub(since & NUMBER_MASK) & NUMBER_MASK)
}

/// Whether a first word says the number of record `number` of its lane.
pub fn is_numbered(word: u64, number: u64) -> bool {
    word >> 40 == number & NUMBER_MASK
}

/// The third word.
#[inline]
pub fn check_word(crc: u32, key_bytes: usize) -> u64 {
    u64::from(crc) | ((key_bytes as u64) << 32)
}

/// The checksum and the length of the key that a third word says; `None` if it is not one of a record.
#[inline]
pub fn check_parts(word: u64) -> Option<(u32, usize)> {
    (word >> 48 == 0).then_some((word as u32, (word >> 32) as usize))
}

/// Bytes with their zeroes up to the next word.
#[inline]
pub fn padded(len: usize) -> usize {
    (len + WORD - 1) & !(WORD - 1)
}

/// Bytes of a whole record.
#[inline]
pub fn record_bytes(len: usize, key_bytes: usize) -> usize {
    HEADER + padded(len) + padded(key_bytes)
}

/// What the checksums of a segment begin with.
pub fn seed(identity: u64, lane: usize, logical: u64) -> u32 {
    let mut crc = 0;
    for word in [identity, lane as u64, logical] {
        crc = crc::append(crc, &word.to_le_bytes());
    }
    crc
}

/// The checksum of a record that lies there with zero in the place of the checksum: the record is all that it is
/// made of, behind the seed.
#[inline]
pub fn checksum_of(seed: u32, record: &[u8]) -> u32 {
    crc::append(seed, record)
}

/// The same of one with its checksum in place.
#[inline]
pub fn checksum_of_sealed(seed: u32, record: &[u8]) -> u32 {
    crc::append_but_half_a_word(seed, record, CHECK_AT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_comes_apart_as_it_was_put_together() {
        for at in [0, 1, NUMBERS - 1, NUMBERS, 77 * NUMBERS + 3] {
            for len in [0, 1, 1 << 27] {
                let word = head(len, at);
                assert_eq!(payload_bytes(word), Some(len));
                assert!(is_numbered(word, at) && !is_numbered(word, at + 1));
                assert_eq!(number(word, at.saturating_sub(NUMBERS - 1)), at);
            }
        }
        assert_eq!(payload_bytes(0), None);
        assert_eq!(check_parts(check_word(7, KEY_BYTES_MAX)), Some((7, KEY_BYTES_MAX)));
        assert_eq!(check_parts(1 << 48), None);
        assert_eq!(record_bytes(1, 9), HEADER + 8 + 16);
    }

    #[test]
    fn a_checksum_is_the_same_before_and_after_it_is_put_in_place() {
        for bytes in (24..2000).step_by(8) {
            let mut record: Vec<u8> = (0..bytes as u32).map(|at| (at * at % 251) as u8).collect();
            record[CHECK_AT..CHECK_AT + 4].fill(0);
            let crc = checksum_of(7, &record);
            record[CHECK_AT..CHECK_AT + 4].copy_from_slice(&crc.to_le_bytes());
            assert_eq!(checksum_of_sealed(7, &record), crc, "{bytes} bytes");
        }
    }

    #[test]
    fn a_checksum_belongs_to_one_place() {
        let of = |lane, logical| checksum_of(seed(1, lane, logical), &[5; 32]);
        assert_ne!(of(0, 0), of(0, 1));
        assert_ne!(of(0, 0), of(1, 0));
        assert_eq!(of(3, 4), of(3, 4));
    }
}
