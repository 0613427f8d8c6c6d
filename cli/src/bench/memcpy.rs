//! How fast one core copies memory: the ceiling of every transport that copies.

use std::hint::black_box;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::report::{largest, median};

/// Sizes that are copied.
const SIZES: [usize; 4] = [64, 1 << 10, 64 << 10, 1 << 20];

/// Both buffers walk through this many bytes, so that 64 B and 1 KiB come from the first-level
/// cache, and larger ones from where a ring of a few MiB would be.
const WINDOW_BYTES: usize = 8 << 10;

/// The speed of copies of one size.
#[derive(Clone, Debug, Serialize)]
pub struct Copying {
    /// Bytes of one copy.
    pub bytes: usize,
    /// Gigabytes a second in the repetition in the middle.
    pub gigabytes_per_second: f64,
    /// Gigabytes a second in the fastest repetition.
    pub best: f64,
}

/// Measures all sizes on the calling core.
pub fn measure(repetitions: u32) -> Vec<Copying> {
    SIZES.iter().map(|&bytes| measure_size(bytes, repetitions)).collect()
}

fn measure_size(bytes: usize, repetitions: u32) -> Copying {
    let window = WINDOW_BYTES.max(bytes);
    let from = vec![0x5a_u8; window];
    let mut to = vec![0_u8; window];
    let speeds: Vec<f64> =
        (0..=repetitions).map(|_| repetition(&from, &mut to, bytes)).skip(1).collect();
    Copying { bytes, gigabytes_per_second: median(&speeds), best: largest(&speeds) }
}

fn repetition(from: &[u8], to: &mut [u8], bytes: usize) -> f64 {
    let mut copied = 0_usize;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(1) {
        for _ in 0..16 {
            for (to, from) in to.chunks_exact_mut(bytes).zip(from.chunks_exact(bytes)) {
                to.copy_from_slice(black_box(from));
                black_box(&to[0]);
            }
            copied += from.len();
        }
    }
    copied as f64 / begin.elapsed().as_nanos() as f64
}
