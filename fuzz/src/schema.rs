//! A stored schema, with a checksum that was made to fit: whatever it says, it is compared or refused.

use capnp::message::ReaderOptions;
use capnp::serialize::read_message_from_flat_slice;
use windlass::message::schema::describe;
use windlass::message::{check_schemas, schema_name};
use windlass::schemas::tick_capnp::tick;
use windlass::Schema;

/// Reads the bytes as the schema of a topic.
pub fn run(data: &[u8]) {
    let mine = describe::<tick::Owned>().expect("it can be described");
    if data == mine {
        assert!(check_schemas("t", data, &mine).is_ok(), "a type is itself");
    }
    let named = schema_name(data);
    let checked = check_schemas("t", data, &mine);
    // Both directions: a process of an older or of a newer version may ask.
    let back = check_schemas("t", &mine, data);
    if named.is_err() {
        assert!(checked.is_err() && back.is_err(), "what has no name is no schema");
    }
    if let Ok(schema) = Schema::parse(data) {
        assert_eq!(named.as_deref().ok(), Some(schema.type_name()), "it has one name");
        for path in ["symbol", "price", "number.x", ""] {
            let Ok(path) = schema.path(path) else { continue };
            let _ = (path.get(&mine), path.values(&mine).map(Iterator::count));
        }
    }
    // What is no message at all is refused by all of them.
    let mut words = capnp::Word::allocate_zeroed_vec(data.len().div_ceil(8));
    capnp::Word::words_to_bytes_mut(&mut words)[..data.len()].copy_from_slice(data);
    let mut aligned = &capnp::Word::words_to_bytes(&words)[..data.len()];
    if read_message_from_flat_slice(&mut aligned, ReaderOptions::new()).is_err() {
        assert!(named.is_err());
    }
}
