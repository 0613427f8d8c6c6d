//! CRC-32C of short runs of words, with the instruction that processors have for it.
//!
//! The checksum of a record is asked for at every message that is read. The crate that knows all processors and all
//! lengths spends more on finding out what it has than on a hundred bytes; it is used where there is no such
//! instruction.

#![allow(unsafe_code)]

/// Bytes of a record before its third word, half of which is the checksum itself.
const CHECKED_HEAD: usize = 16;

/// What the checksum of a record is made of there: not itself.
const CHECK_MASK: u64 = !0xffff_ffff;

/// The checksum that a whole record should have, header and all, in a segment whose checksums begin with `seed`.
///
/// Its length is a multiple of 8, and at least that of a header.
#[inline]
pub fn of_record(seed: u32, record: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instructions, just asked.
        return unsafe { by_instruction(seed, record) };
    }
    by_crate(seed, record)
}

fn word(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight.copy_from_slice(bytes);
    u64::from_le_bytes(eight)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(seed: u32, record: &[u8]) -> u32 {
    use std::arch::x86_64::_mm_crc32_u64 as step;
    let (head, body) = record.split_at(CHECKED_HEAD + 8);
    let mut crc = step(u64::from(!seed), word(&head[..8]));
    crc = step(crc, word(&head[8..CHECKED_HEAD]));
    crc = step(crc, word(&head[CHECKED_HEAD..]) & CHECK_MASK);
    // Four at a time: they wait for each other, and the counting is done meanwhile.
    let mut fours = body.chunks_exact(32);
    for four in &mut fours {
        crc = step(crc, word(&four[..8]));
        crc = step(crc, word(&four[8..16]));
        crc = step(crc, word(&four[16..24]));
        crc = step(crc, word(&four[24..]));
    }
    for one in fours.remainder().chunks_exact(8) {
        crc = step(crc, word(one));
    }
    !(crc as u32)
}

fn by_crate(seed: u32, record: &[u8]) -> u32 {
    let (head, body) = record.split_at(CHECKED_HEAD + 8);
    let check = word(&head[CHECKED_HEAD..]) & CHECK_MASK;
    let crc = crc32c::crc32c_append(seed, &head[..CHECKED_HEAD]);
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &check.to_le_bytes()), body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::record::{checksum, HEADER};

    #[test]
    fn the_instruction_the_crate_and_the_format_say_the_same() {
        let bytes: Vec<u8> = (0..4096u32).map(|at| (at * at >> 3) as u8).collect();
        for len in (3..200).chain([512]).map(|words| words * 8) {
            for seed in [0, 1, u32::MAX] {
                let record = &bytes[..len];
                let (head, time) = (word(&record[..8]), word(&record[8..16]));
                let key_bytes = (word(&record[16..24]) >> 32) as usize;
                let wanted = checksum(seed, head, time, key_bytes, &record[HEADER..]);
                let found = [of_record(seed, record), by_crate(seed, record)];
                assert_eq!(found, [wanted; 2], "{len} bytes");
            }
        }
    }
}
