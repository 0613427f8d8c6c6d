//! What building and reading the typed message costs without any transport.
//!
//! Cap'n Proto's own cost is not the transport's. The same message is built and read here in
//! private memory, in the same run, so that a report can name both and the difference.

use std::hint::black_box;
use std::time::Instant;

use capnp::message::{self, ReaderOptions, SegmentArray, SingleSegmentAllocator};
use serde::Serialize;

use super::failure::{During, Result};
use super::payload::Check;
use super::report::{median, smallest};
use super::sample_capnp::sample;

/// Bytes of data in the message, beside its five numbers.
pub const DATA_BYTES: usize = 64;

/// Bytes of the built message: root pointer, four words of numbers, one pointer, the data.
pub const MESSAGE_BYTES: usize = 8 + 32 + 8 + DATA_BYTES;

const ROUNDS: u32 = 2_000;

/// Nanoseconds of Cap'n Proto alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Private {
    /// Build the message, in the median repetition.
    pub build: f64,
    /// Build it, open it and read three fields, in the median repetition.
    pub build_and_read: f64,
    /// The same in the fastest repetition.
    pub build_and_read_min: f64,
}

/// Fills the message: five numbers, two of which are what the receiver checks, and 64 bytes.
#[inline]
pub fn fill(mut message: sample::Builder<'_>, sequence: u64) {
    message.set_sequence(sequence);
    message.set_complement(!sequence);
    message.set_price(101.25);
    message.set_quantity(7);
    message.set_side(1);
    message.set_data(&[0x5a; DATA_BYTES]);
}

/// Reads three fields: the two numbers that are checked, and the data.
#[inline]
pub fn read(message: sample::Reader<'_>, check: &mut Check) -> Result<()> {
    check.words(message.get_sequence(), message.get_complement());
    black_box(message.get_data().during("cannot read a typed message")?);
    Ok(())
}

/// What a receiver of trusted messages reads with: no limit on how much of a message is read.
pub fn reader_options() -> ReaderOptions {
    ReaderOptions { traversal_limit_in_words: None, ..ReaderOptions::new() }
}

/// Measures both on the calling core.
pub fn measure(repetitions: u32) -> Result<Private> {
    let mut builds = Vec::new();
    let mut both = Vec::new();
    for _ in 0..=repetitions {
        builds.push(repetition(false)?);
        both.push(repetition(true)?);
    }
    // The first repetition of each is a warm-up.
    Ok(Private {
        build: median(&builds[1..]),
        build_and_read: median(&both[1..]),
        build_and_read_min: smallest(&both[1..]),
    })
}

fn repetition(reads: bool) -> Result<f64> {
    let mut words = capnp::Word::allocate_zeroed_vec(MESSAGE_BYTES / 8);
    let mut allocator = SingleSegmentAllocator::new(capnp::Word::words_to_bytes_mut(&mut words));
    let mut check = Check::default();
    let begin = Instant::now();
    for sequence in 0..u64::from(ROUNDS) {
        let mut builder = message::Builder::new(&mut allocator);
        fill(builder.init_root(), sequence);
        let segments = builder.get_segments_for_output();
        black_box(segments[0].as_ptr());
        if reads {
            let reader = message::Reader::new(SegmentArray::new(&segments), reader_options());
            read(reader.get_root().during("cannot open a typed message")?, &mut check)?;
        }
    }
    let elapsed = begin.elapsed();
    assert_eq!(check.mismatches(), 0, "private memory returns what was built in it");
    Ok(elapsed.as_nanos() as f64 / f64::from(ROUNDS))
}
