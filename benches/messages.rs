//! What it costs to read a message without its generated code: one field by its path, and all of it as JSON.
//!
//! `cargo bench --bench messages`, and with `--features json` for the latter. The baseline is generated code on the
//! same bytes, opened as the `capnp` crate opens them.

use capnp::message::{Builder, ReaderOptions};
use criterion::{criterion_group, criterion_main, Criterion};
use std::hint::black_box;
use windlass::schemas::tick_capnp::tick;
use windlass::Schema;

fn payload() -> Vec<u8> {
    let mut builder = Builder::new_default();
    let mut tick = builder.init_root::<tick::Builder<'_>>();
    tick.set_symbol("ACME");
    tick.set_price(101.25);
    tick.set_number(7);
    capnp::serialize::write_message_to_words(&builder)
}

fn fields(c: &mut Criterion) {
    let (schema, payload) = (Schema::of::<tick::Owned>().expect("a struct"), payload());
    let mut group = c.benchmark_group("field");
    for name in ["number", "price", "symbol"] {
        let path = schema.path(name).expect("there is such a field");
        group.bench_function(name, |bencher| {
            bencher.iter(|| path.get(black_box(&payload)).expect("sound").is_some())
        });
    }
    group.bench_function("baseline_generated_number", |bencher| {
        let options = ReaderOptions { traversal_limit_in_words: None, nesting_limit: 64 };
        bencher.iter(|| {
            let mut bytes = black_box(&payload[..]);
            let message =
                capnp::serialize::read_message_from_flat_slice_no_alloc(&mut bytes, options);
            let message = message.expect("framed");
            message.get_root::<tick::Reader<'_>>().expect("a tick").get_number()
        })
    });
    group.finish();
}

#[cfg(feature = "json")]
fn json(c: &mut Criterion) {
    let (schema, payload) = (Schema::of::<tick::Owned>().expect("a struct"), payload());
    let text = schema.to_json(&payload).expect("sound");
    let mut group = c.benchmark_group("json");
    group.bench_function("write", |bencher| {
        bencher.iter(|| schema.to_json(black_box(&payload)).expect("sound").len())
    });
    group.bench_function("read", |bencher| {
        bencher.iter(|| schema.from_json(black_box(&text)).expect("of the type").len())
    });
    group.finish();
}

#[cfg(not(feature = "json"))]
fn json(_: &mut Criterion) {}

criterion_group!(benches, fields, json);
criterion_main!(benches);
