//! Messages that can be recognised: each is a function of its lane, its number there and its length.

/// Message `number` of `lane`, `len` bytes long.
pub fn content(lane: u32, number: u64, len: usize) -> Vec<u8> {
    let seed =
        (u64::from(lane) << 40 ^ number << 8 ^ len as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (0..len).map(|at| (seed.rotate_left(at as u32 * 5) as u8).wrapping_add(at as u8)).collect()
}
