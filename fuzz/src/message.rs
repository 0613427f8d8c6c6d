//! A payload of a typed topic, against the reader that the `capnp` crate has for it.
//!
//! Whatever the bytes are, a validated copy ends, stays inside, and is what an independent reader makes
//! of the same bytes; and the copy of a copy is the copy. What is read by the stored schema is what generated
//! code reads.

use capnp::message::{Builder, HeapAllocator, ReaderOptions, TypedBuilder};
use capnp::traits::Owned;
use windlass::message::{reader, to_owned_message, FrameSegments};
use windlass::schemas::{bench_capnp, reading_capnp, tick_capnp};
use windlass::{FieldValue, Schema};

/// Reads the bytes as messages of every type that there is.
pub fn run(data: &[u8]) {
    let mut words = capnp::Word::allocate_zeroed_vec(data.len().div_ceil(8));
    capnp::Word::words_to_bytes_mut(&mut words)[..data.len()].copy_from_slice(data);
    let payload = &capnp::Word::words_to_bytes(&words)[..data.len()];
    compare::<tick_capnp::tick::Owned>(payload);
    compare::<reading_capnp::reading::Owned>(payload);
    compare::<bench_capnp::sample::Owned>(payload);
    by_schema(payload);
    // In place: the table, and the fields of the root.
    if let Ok(segments) = FrameSegments::parse(payload) {
        let sum: usize = (0..segments.count() as u32)
            .map(|index| segments.segment(index).expect("it was counted").len())
            .sum();
        assert!(sum <= payload.len(), "segments lie in the payload");
        assert!(segments.segment(segments.count() as u32).is_none());
        let message = reader(segments);
        if let Ok(tick) = message.get_root::<tick_capnp::tick::Reader<'_>>() {
            let _ = (tick.get_price(), tick.get_symbol().map(|symbol| symbol.to_str().is_ok()));
        }
    }
}

/// A copy by this crate, and one by the reader of the other.
fn compare<T: Owned>(payload: &[u8]) {
    let mine = to_owned_message::<T>(payload);
    let theirs = independent::<T>(payload);
    match (&mine, &theirs) {
        (Ok(mine), Ok(theirs)) => {
            let mine = bytes_of(mine);
            assert_eq!(mine, bytes_of(theirs), "both read the same");
            let again = to_owned_message::<T>(&mine).expect("a copy is a message");
            assert_eq!(bytes_of(&again), mine, "the copy of a copy is the copy");
        }
        (Err(_), Ok(_)) => panic!("only the other reader takes it"),
        // The other one takes one segment fewer.
        (Ok(_), Err(error)) => {
            let few = FrameSegments::parse(payload).map_or(0, |segments| segments.count());
            assert!(few >= 512, "only this reader takes it: {error}");
        }
        (Err(_), Err(_)) => {}
    }
}

/// Fields by the stored schema, against those of a copy, if there can be one.
fn by_schema(payload: &[u8]) {
    let schema = Schema::of::<tick_capnp::tick::Owned>().expect("a struct");
    let [price, number, symbol] =
        ["price", "number", "symbol"].map(|name| schema.path(name).expect("it has such a field"));
    let found = [&price, &number, &symbol].map(|path| path.get(payload));
    let Ok(copy) = to_owned_message::<tick_capnp::tick::Owned>(payload) else { return };
    let tick = copy.get_root_as_reader().expect("a copy is sound");
    let bits = |value: &FieldValue<'_>| match value {
        FieldValue::Float(value) => value.to_bits(),
        FieldValue::UInt(value) => *value,
        other => panic!("{other:?} is of another type"),
    };
    let numbers = [tick.get_price().to_bits(), tick.get_number()];
    for (found, expected) in found.iter().zip(numbers) {
        assert_eq!(found.as_ref().expect("sound").as_ref().map(bits), Some(expected));
    }
    match (&found[2], tick.get_symbol()) {
        (Ok(Some(found)), Ok(symbol)) => assert_eq!(*found, FieldValue::Text(symbol.as_bytes())),
        (Ok(None), Ok(_)) => assert!(!tick.has_symbol(), "it is not there"),
        (Err(_), Err(_)) => {}
        (found, other) => panic!("{found:?} here, and {other:?} there"),
    }
}

fn independent<T: Owned>(mut payload: &[u8]) -> capnp::Result<TypedBuilder<T>> {
    let limit = (payload.len().div_ceil(8).max(64)).saturating_mul(8);
    let options = ReaderOptions { traversal_limit_in_words: Some(limit), nesting_limit: 64 };
    let reader = capnp::serialize::read_message_from_flat_slice(&mut payload, options)?;
    let mut builder = Builder::new(HeapAllocator::new());
    builder.set_root(reader.get_root::<T::Reader<'_>>()?)?;
    Ok(builder.into_typed())
}

fn bytes_of<T: Owned>(message: &TypedBuilder<T>) -> Vec<u8> {
    capnp::serialize::write_message_to_words(message.borrow_inner())
}
