//! CRC-32C of short messages.
//!
//! The library that computes it works on three parts of a long message at once, and what that takes to prepare is more
//! than the checksum of a message of some hundred bytes. Those are computed here, by the same instruction, word by
//! word.

#![allow(unsafe_code)]

/// Longest message that is summed word by word.
#[cfg(target_arch = "x86_64")]
const SHORT: usize = 512;

/// The checksum of what `crc` is the checksum of, followed by `bytes`.
#[inline]
pub fn append(crc: u32, bytes: &[u8]) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: the processor has the instructions that the function is compiled for.
        return unsafe { by_words(crc, bytes) };
    }
    crc32c::crc32c_append(crc, bytes)
}

/// The same of whole words, with zeroes for the four bytes from `but` on, the first half of one of them.
#[inline]
pub fn append_but_half_a_word(crc: u32, bytes: &[u8], but: usize) -> u32 {
    #[cfg(target_arch = "x86_64")]
    if bytes.len() <= SHORT && std::arch::is_x86_feature_detected!("sse4.2") {
        // SAFETY: as above.
        return unsafe { by_words_but(crc, bytes, but) };
    }
    let (before, after) = (&bytes[..but], &bytes[but + 4..]);
    append(append(append(crc, before), &[0; 4]), after)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_words_but(crc: u32, bytes: &[u8], but: usize) -> u32 {
    use std::arch::x86_64::_mm_crc32_u64;
    // The compiler knows where the word is, and makes one run of it.
    let (before, rest) = bytes.split_at(but);
    let (half, after) = rest.split_at(8);
    let mut sum = u64::from(!crc);
    for word in before.as_chunks().0 {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word));
    }
    for word in half.as_chunks().0 {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word) & !0xffff_ffff);
    }
    for word in after.as_chunks().0 {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word));
    }
    !(sum as u32)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn by_words(crc: u32, bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u64, _mm_crc32_u8};
    let (words, rest) = bytes.as_chunks();
    let mut sum = u64::from(!crc);
    for word in words {
        sum = _mm_crc32_u64(sum, u64::from_le_bytes(*word));
    }
    let mut sum = sum as u32;
    for byte in rest {
        sum = _mm_crc32_u8(sum, *byte);
    }
    !sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_that_of_the_library_for_every_length() {
        let bytes: Vec<u8> = (0..2000u32).map(|at| (at * at % 251) as u8).collect();
        for len in 0..=bytes.len() {
            for crc in [0, 1, u32::MAX] {
                assert_eq!(append(crc, &bytes[..len]), crc32c::crc32c_append(crc, &bytes[..len]));
            }
        }
        assert_eq!(append(0, b"123456789"), 0xe306_9283);
    }
}
