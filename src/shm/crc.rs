//! CRC-32C of short runs of words, with the instruction that processors have for it.
//!
//! The checksum of a record is asked for at every message that is read. The crate that knows all processors and all
//! lengths spends more on finding out what it has than on a hundred bytes; it is used where there is no such
//! instruction.

#![allow(unsafe_code)]

/// The CRC-32C of three words and the bytes of `body`, a multiple of 8 of them, which goes on from `seed`.
#[inline]
pub fn of_record(seed: u32, head: [u64; 3], body: &[u8]) -> u32 {
    debug_assert!(body.len().is_multiple_of(8));
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instructions, just asked.
        return unsafe { by_instruction(seed, head, body) };
    }
    by_crate(seed, head, body)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_instruction(seed: u32, head: [u64; 3], body: &[u8]) -> u32 {
    use std::arch::x86_64::_mm_crc32_u64 as step;
    let word = |bytes: &[u8]| {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        u64::from_le_bytes(eight)
    };
    let mut crc = head.into_iter().fold(u64::from(!seed), |crc, word| step(crc, word));
    // Four at a time: one after the other they wait for each other, and the loop counts meanwhile.
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

fn by_crate(seed: u32, head: [u64; 3], body: &[u8]) -> u32 {
    let crc = head.iter().fold(seed, |crc, word| crc32c::crc32c_append(crc, &word.to_le_bytes()));
    crc32c::crc32c_append(crc, body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_instruction_and_the_crate_say_the_same() {
        let bytes: Vec<u8> = (0..4096u32).map(|at| (at * at >> 3) as u8).collect();
        for len in (0..200).chain([512]).map(|words| words * 8) {
            for seed in [0, 1, u32::MAX] {
                let head = [len as u64, u64::MAX, 77];
                let (one, other) =
                    (of_record(seed, head, &bytes[..len]), by_crate(seed, head, &bytes[..len]));
                assert_eq!(one, other, "{len} bytes");
            }
        }
    }
}
