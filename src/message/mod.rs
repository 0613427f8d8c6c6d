//! Cap'n Proto in place: memory to build in, segments to read from, schemas to compare.

pub mod arena;
pub mod schema;
mod segments;

pub use schema::{check_schemas, schema_name};
pub use segments::{FrameSegments, Malformed};

use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions, TypedBuilder};

/// How deep pointers may nest.
const NESTING_MAX: i32 = 64;

/// Options for a message that lies in a topic: it cannot change under the reader, so it may be read any number of times.
pub fn reader_options() -> ReaderOptions {
    ReaderOptions { traversal_limit_in_words: None, nesting_limit: NESTING_MAX }
}

/// A payload that is not a framed message, as an error of the `capnp` crate.
#[cold]
pub fn malformed(why: Malformed) -> capnp::Error {
    let why = match why {
        Malformed::Unaligned => "its address is not a multiple of eight",
        Malformed::Truncated => "it ends inside its segment table or a segment",
        Malformed::Segments => "it claims more segments than any message has",
    };
    capnp::Error::failed(format!("the payload is not a framed Cap'n Proto message: {why}"))
}

/// Reads a message in place.
#[inline]
pub fn reader(segments: FrameSegments<'_>) -> Reader<FrameSegments<'_>> {
    Reader::new(segments, reader_options())
}

/// A validated copy: the bytes are copied first, so that nobody can change them, and walked whole with limits.
pub fn to_owned_message<T: capnp::traits::Owned>(payload: &[u8]) -> capnp::Result<TypedBuilder<T>> {
    let mut words = capnp::Word::allocate_zeroed_vec(payload.len().div_ceil(8));
    let bytes = capnp::Word::words_to_bytes_mut(&mut words);
    bytes[..payload.len()].copy_from_slice(payload);
    let copy = FrameSegments::parse(&bytes[..payload.len()]).map_err(malformed)?;
    let options = ReaderOptions {
        // A sound message is walked once; shared pieces of a hostile one multiply.
        traversal_limit_in_words: Some(words_of(payload).saturating_mul(8)),
        nesting_limit: NESTING_MAX,
    };
    let reader = Reader::new(copy, options);
    let mut builder = Builder::new(HeapAllocator::new());
    builder.set_root(reader.get_root::<T::Reader<'_>>()?)?;
    Ok(builder.into_typed())
}

fn words_of(payload: &[u8]) -> usize {
    payload.len().div_ceil(8).max(64)
}
