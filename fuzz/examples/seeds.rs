//! Writes inputs for the corpus to begin with, where chance would take long: messages and schemas.
//!
//! `cargo run --example seeds` in this folder.

use capnp::message::{Builder, HeapAllocator};
use std::path::Path;
use windlass::message::schema::describe;
use windlass::schemas::{bench_capnp, reading_capnp, tick_capnp};

fn write(target: &str, name: &str, bytes: &[u8]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target).join(name);
    std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn main() {
    for (name, first_words) in [("one-segment", 1024), ("segments", 1)] {
        let mut builder = Builder::new(HeapAllocator::new().first_segment_words(first_words));
        let mut tick = builder.init_root::<tick_capnp::tick::Builder<'_>>();
        tick.set_symbol("a symbol that needs a segment of its own");
        tick.set_price(3.5);
        let bytes = capnp::serialize::write_message_to_words(&builder);
        write("message", &format!("seed-tick-{name}"), &bytes);
        let mut builder = Builder::new(HeapAllocator::new().first_segment_words(first_words));
        builder.init_root::<reading_capnp::reading::Builder<'_>>();
        let bytes = capnp::serialize::write_message_to_words(&builder);
        write("message", &format!("seed-reading-{name}"), &bytes);
        let mut builder = Builder::new(HeapAllocator::new().first_segment_words(first_words));
        builder.init_root::<bench_capnp::sample::Builder<'_>>();
        let bytes = capnp::serialize::write_message_to_words(&builder);
        write("message", &format!("seed-sample-{name}"), &bytes);
    }
    let schemas = [
        ("tick", describe::<tick_capnp::tick::Owned>()),
        ("reading", describe::<reading_capnp::reading::Owned>()),
        ("sample", describe::<bench_capnp::sample::Owned>()),
    ];
    for (name, schema) in schemas {
        write("schema", &format!("seed-{name}"), &schema.expect("it can be described"));
    }
}
