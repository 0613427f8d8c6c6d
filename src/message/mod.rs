//! Cap'n Proto in place: memory to build in, segments to read from, schemas to compare and to read by.

pub mod arena;
pub mod compat;
pub mod dynamic;
pub mod schema;
mod segments;

pub use compat::check_schemas;
pub use schema::schema_name;
pub use segments::{FrameSegments, Malformed};

use crate::error::{Error, Result};
use crate::shm::place::Region;
use crate::sync::Ordering::Relaxed;
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions, TypedBuilder};

/// How deep pointers may nest.
const NESTING_MAX: i32 = 64;

/// Options for a message that lies in a topic: it cannot change under the reader, so it may be read
/// any number of times.
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

/// A payload whose file was shortened while it was read.
#[cold]
pub fn shortened() -> capnp::Error {
    capnp::Error::failed("the file of the message was shortened while it was mapped".into())
}

/// Reads a message in place.
#[inline]
pub fn reader(segments: FrameSegments<'_>) -> Reader<FrameSegments<'_>> {
    Reader::new(segments, reader_options())
}

/// The schema of `len` bytes that a control file, which is `what`, stores at byte `at`, checked against its checksum.
pub fn stored_schema(
    control: &Region,
    at: usize,
    len: usize,
    crc: u32,
    what: &str,
) -> Result<Vec<u8>> {
    let words = (at..at + len.next_multiple_of(8)).step_by(8);
    // Relaxed: static since before the file had its name.
    let mut bytes: Vec<u8> =
        words.flat_map(|at| control.word(at).load(Relaxed).to_le_bytes()).collect();
    bytes.truncate(len);
    let found = crc32fast::hash(&bytes);
    if found != crc {
        return Err(Error::corrupt(what, "the schema checksum", found, crc));
    }
    Ok(bytes)
}

/// A validated copy: the bytes are copied first, so that nobody can change them, and walked whole
/// with limits.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::shape_v1_capnp::shape;

    /// The bytes of a message that `build` makes.
    fn framed(build: impl FnOnce(shape::Builder<'_>)) -> Vec<capnp::Word> {
        let mut builder = Builder::new(HeapAllocator::new().first_segment_words(1 << 16));
        build(builder.init_root());
        let bytes = capnp::serialize::write_message_to_words(&builder);
        let mut words = capnp::Word::allocate_zeroed_vec(bytes.len() / 8);
        capnp::Word::words_to_bytes_mut(&mut words).copy_from_slice(&bytes);
        words
    }

    fn opened(payload: &[u8]) -> capnp::Result<Reader<FrameSegments<'_>>> {
        let segments = FrameSegments::parse(payload).map_err(malformed)?;
        Ok(Reader::new(segments, reader_options()))
    }

    fn copied(words: &[capnp::Word]) -> capnp::Result<TypedBuilder<shape::Owned>> {
        to_owned_message(capnp::Word::words_to_bytes(words))
    }

    fn nested(depth: usize) -> Vec<capnp::Word> {
        framed(|shape| {
            let mut inner = shape;
            for _ in 0..depth {
                inner = inner.init_parent();
            }
        })
    }

    #[test]
    fn an_owned_message_says_the_same_and_does_not_change_with_the_payload() {
        let mut words = framed(|mut shape| {
            shape.set_name("square");
            shape.reborrow().init_corners(4).get(3).set_y(2.5);
        });
        let copy = copied(&words).expect("sound");
        capnp::Word::words_to_bytes_mut(&mut words).fill(0xff);
        let shape = copy.get_root_as_reader().expect("a shape");
        assert_eq!(shape.get_name().expect("there"), "square");
        let Ok(shape::Corners(Ok(corners))) = shape.which() else { panic!("it has corners") };
        assert_eq!(corners.get(3).get_y(), 2.5);
    }

    #[test]
    fn an_owned_message_is_read_from_the_copy_wherever_the_payload_lies() {
        let words = framed(|mut shape| shape.set_name("square"));
        let mut shifted = capnp::Word::allocate_zeroed_vec(words.len() + 1);
        let len = words.len() * 8;
        let payload = &mut capnp::Word::words_to_bytes_mut(&mut shifted)[3..3 + len];
        payload.copy_from_slice(capnp::Word::words_to_bytes(&words));
        assert!(opened(payload).is_err(), "not to be read in place");
        let copy = to_owned_message::<shape::Owned>(payload).expect("sound");
        assert!(copy.get_root_as_reader().is_ok_and(|shape| shape.has_name()));
    }

    #[test]
    fn a_message_that_is_too_deep_is_read_but_not_followed() {
        assert!(copied(&nested(60)).is_ok());
        let words = nested(70);
        assert!(copied(&words).is_err());
        let reader = opened(capnp::Word::words_to_bytes(&words)).expect("sound");
        let mut shape = reader.get_root::<shape::Reader<'_>>().expect("a shape");
        let depth = (0..70).take_while(|_| shape.get_parent().map(|next| shape = next).is_ok());
        assert_eq!(depth.count(), 63, "the root is a level too");
    }

    #[test]
    fn a_message_whose_pointers_share_a_target_is_not_multiplied() {
        const LISTS: u32 = 500;
        let mut words = framed(|shape| _ = shape.init_grid(LISTS).init(LISTS - 1, 2000));
        // The list of lists ends where the last list begins: each pointer is made to lead there.
        let len = words.len();
        let first = len - 500 - LISTS as usize;
        for index in 0..LISTS as usize {
            // A list of 2000 values of two bytes, so many words behind this one.
            let offset = (LISTS as usize - 1 - index) as u64;
            let pointer = 1 | offset << 2 | 3 << 32 | 2000 << 35;
            capnp::Word::words_to_bytes_mut(&mut words)[(first + index) * 8..][..8]
                .copy_from_slice(&pointer.to_le_bytes());
        }
        let reader = opened(capnp::Word::words_to_bytes(&words)).expect("sound");
        let shape = reader.get_root::<shape::Reader<'_>>().expect("a shape");
        for list in shape.get_grid().expect("there").iter() {
            assert_eq!(list.expect("each leads to the list").len(), 2000);
        }
        let error = copied(&words).map(drop).expect_err("500 times 500 words").to_string();
        assert!(error.contains("limit"), "{error}");
    }

    #[test]
    fn a_payload_that_is_no_message_is_an_error_that_says_why() {
        let words = framed(|_| ());
        let bytes = capnp::Word::words_to_bytes(&words);
        for (bytes, why) in [
            (&bytes[..4], "ends inside"),
            (&bytes[4..], "multiple of eight"),
            (&bytes[..0], "ends inside"),
        ] {
            let error =
                to_owned_message::<shape::Owned>(bytes).map(drop).map_err(|e| e.to_string());
            let opened = opened(bytes).map(drop).map_err(|e| e.to_string());
            // A copy is aligned whatever it is a copy of.
            assert!(error.is_err() && opened.is_err_and(|text| text.contains(why)), "{why}");
        }
    }
}
