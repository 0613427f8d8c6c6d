//! Messages of topics and queues, read and built by the schema that is stored with them, beside what the tool of
//! Cap'n Proto makes of the same bytes.

use crate::samples::kinds_capnp::{kinds, Color};
use crate::samples::{generic_capnp, shape_v1_capnp, shape_v2_capnp, tick_v1_capnp};
use capnp::message::{Builder, HeapAllocator};
use serde_json::Value;
use std::io::Write;
use std::process::{Command, Stdio};
use windlass::schemas::tick_capnp::{tick, Venue};
use windlass::{Bus, ErrorKind, FieldValue, Raw, Schema, Start};

#[test]
fn a_topic_is_read_by_its_stored_schema_alone() {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<tick::Owned>("ticks").open().expect("a fresh topic");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let schema = bus.schema("ticks").expect("sound").expect("typed");
    let number = schema.path("number").expect("there");
    // Each is longer than the one before, so that loans are outgrown and messages put together again.
    for count in 0..50u64 {
        let mut loan = publisher.loan().expect("room");
        let mut tick = loan.init_root();
        tick.set_symbol("x".repeat(count as usize * 50).as_str());
        tick.set_number(count);
        tick.set_venue(Venue::Dark);
        loan.publish().expect("room");
        let message = subscriber.try_recv().expect("sound").expect("it was published");
        assert_eq!(number.get(message.bytes()).expect("sound"), Some(FieldValue::UInt(count)));
        let json: Value =
            serde_json::from_str(&schema.to_json(message.bytes()).expect("sound")).expect("JSON");
        assert_eq!((&json["number"], &json["venue"]), (&count.into(), &"dark".into()));
        assert_eq!(json["symbol"].as_str().map(str::len), Some(count as usize * 50));
    }
}

#[test]
fn what_is_built_from_json_is_a_message_of_the_topic() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<tick::Owned>("ticks").open().expect("a fresh queue");
    let mut producer = queue.producer().expect("there is a place");
    let mut loan = producer.loan().expect("room");
    loan.init_root().set_price(0.5);
    loan.enqueue().expect("room");
    let untyped = bus.queue_untyped("ticks").expect("it exists");
    let schema = untyped.schema().expect("sound").expect("typed");
    let mut consumer = untyped.consumer().expect("there is a slot");
    let job = consumer.try_take().expect("sound").expect("it is there");
    let json = schema.to_json(job.bytes()).expect("sound");
    job.ack().expect("sound");

    // The same bytes go through a topic that knows nothing of them, and are read by generated code.
    let raw = bus.topic::<Raw>("raw").open().expect("a fresh topic");
    assert!(bus.schema("raw").expect("sound").is_none());
    assert_eq!(bus.schema("none").map(drop).expect_err("missing").kind(), ErrorKind::NotFound);
    let mut subscriber = raw.subscriber(Start::Latest).expect("there is a slot");
    let payload = schema.from_json(&json).expect("what was written is taken");
    raw.publisher().expect("a lane").publish(&payload).expect("room");
    let message = subscriber.try_recv().expect("sound").expect("it was published");
    let message =
        capnp::serialize::read_message(message.bytes(), Default::default()).expect("framed");
    let tick = message.get_root::<tick::Reader<'_>>().expect("a tick");
    assert_eq!((tick.get_price(), tick.has_symbol()), (0.5, false));
}

/// What `capnp convert` makes of the input; none if there is no such tool here.
fn convert(forms: &str, schema: &str, of: &str, input: &[u8]) -> Option<Vec<u8>> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/schemas");
    let tool = Command::new("capnp")
        .args(["convert", forms, schema, of, concat!("-I", env!("CARGO_MANIFEST_DIR"), "/schemas")])
        .current_dir(folder)
        .env("PWD", folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut tool =
        tool.map_err(|error| eprintln!("skipped, because capnp cannot be run: {error}")).ok()?;
    tool.stdin.take().expect("piped").write_all(input).expect("it reads");
    let output = tool.wait_with_output().expect("it ends");
    assert!(output.status.success(), "capnp convert {forms} {schema} {of}");
    Some(output.stdout)
}

fn parse(json: &[u8]) -> Value {
    serde_json::from_slice(json)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(json)))
}

/// The value as the other tool has it: what is left out there is left out, numbers of 64 bits are strings, and data
/// are lists of numbers. Which fields those are is known by their names.
fn as_the_tool_has_it(value: Value, theirs: &Value) -> Value {
    match (value, theirs) {
        (Value::Object(map), Value::Object(theirs)) => {
            let both = map.into_iter().filter_map(|(key, value)| {
                let theirs = theirs.get(&key)?;
                Some((key, as_the_tool_has_it(value, theirs)))
            });
            both.collect()
        }
        (Value::Array(values), Value::Array(theirs)) if values.len() == theirs.len() => values
            .into_iter()
            .zip(theirs)
            .map(|(value, theirs)| as_the_tool_has_it(value, theirs))
            .collect(),
        (Value::Number(number), Value::String(_)) => Value::String(number.to_string()),
        (Value::Number(number), Value::Number(_)) => serde_json::json!(number.as_f64()),
        // The only data in these messages.
        (Value::String(base64), Value::Array(_)) if base64 == "AP8=" => {
            serde_json::json!([0.0, 255.0])
        }
        (value, _) => value,
    }
}

/// Numbers as floats, which is how both are compared.
fn as_floats(value: Value) -> Value {
    match value {
        Value::Object(map) => map.into_iter().map(|(key, value)| (key, as_floats(value))).collect(),
        Value::Array(values) => values.into_iter().map(as_floats).collect(),
        Value::Number(number) => serde_json::json!(number.as_f64()),
        value => value,
    }
}

/// Holds what is written here against what the tool writes, and what is built here from either against the message.
fn agree<T: capnp::introspect::Introspect>(file: &str, of: &str, payload: &[u8]) {
    let schema = Schema::of::<T>().expect("a struct");
    let Some(theirs) = convert("binary:json", file, of, payload) else { return };
    let text = schema.to_json(payload).expect("sound");
    let theirs_parsed = as_floats(parse(&theirs));
    let mine = as_the_tool_has_it(parse(text.as_bytes()), &theirs_parsed);
    assert_eq!(mine, theirs_parsed, "{of}");
    // What the tool wrote is taken, and means the same message, to the tool as well.
    let theirs = std::str::from_utf8(&theirs).expect("text");
    let built = schema.from_json(theirs).expect("the forms of the tool are taken");
    assert_eq!(schema.to_json(&built).expect("sound"), text);
    let again = convert("binary:json", file, of, &built).expect("it was there before");
    assert_eq!(as_floats(parse(&again)), theirs_parsed);
    // So is what was written here, in which more is said: the defaults of pointers.
    let built = schema.from_json(&text).expect("what was written is taken");
    let again =
        as_floats(parse(&convert("binary:json", file, of, &built).expect("it was there before")));
    assert_eq!(as_the_tool_has_it(parse(text.as_bytes()), &again), again);
}

fn framed<T: capnp::traits::Owned>(build: impl FnOnce(T::Builder<'_>)) -> Vec<u8> {
    let mut builder = Builder::new(HeapAllocator::new());
    build(builder.init_root::<T::Builder<'_>>());
    capnp::serialize::write_message_to_words(&builder)
}

#[test]
fn the_tool_of_capnp_writes_and_reads_the_same() {
    agree::<kinds::Owned>("kinds.capnp", "Kinds", &framed::<kinds::Owned>(|_| ()));
    let full = framed::<kinds::Owned>(|mut kinds| {
        kinds.set_bool(true);
        kinds.set_int64(i64::MIN);
        kinds.set_uint64(u64::MAX);
        kinds.set_float32(0.5);
        kinds.set_float64(1e300);
        kinds.set_color(Color::DarkBlue);
        kinds.set_text("a \"text\" with ü");
        kinds.reborrow().init_inner().init_inner().set_number(3);
        kinds.set_float64_set(f64::INFINITY);
        kinds.reborrow().init_voids(2);
        kinds.set_bools([true, false].as_slice()).expect("set");
        kinds.set_float32s([f32::NAN, f32::NEG_INFINITY].as_slice()).expect("set");
        kinds.set_int64s([1i64, -1].as_slice()).expect("set");
        kinds.set_texts(&["one", ""][..]).expect("set");
        kinds.set_colors([Color::Green].as_slice()).expect("set");
        kinds.reborrow().init_inners(2).get(1).set_text("second");
        kinds.reborrow().init_lists(1).init(0, 1).set(0, [1i16, 2].as_slice()).expect("set");
        kinds.reborrow().init_group().init_deep().set_text("deep");
        kinds.reborrow().init_choice().set_second("chosen");
        kinds.reborrow().init_generic().set_content("bound").expect("set");
        kinds.init_nested().init_content().init_content().set_number(4);
    });
    agree::<kinds::Owned>("kinds.capnp", "Kinds", &full);
    let tick = framed::<tick_v1_capnp::tick::Owned>(|mut tick| {
        tick.set_symbol("ACME");
        tick.set_price(101.25);
    });
    agree::<tick_v1_capnp::tick::Owned>("tick_v1.capnp", "Tick", &tick);
    let shape = framed::<shape_v1_capnp::shape::Owned>(|mut shape| {
        shape.reborrow().init_center().set_x(1.5);
        shape.reborrow().init_corners(2).get(0).set_y(2.0);
        shape.reborrow().init_bounds().init_left().set_x(3.0);
        shape.init_label().set_left("left").expect("set");
    });
    agree::<shape_v1_capnp::shape::Owned>("shape_v1.capnp", "Shape", &shape);
    // Old messages by a new schema, and new ones by an old schema.
    agree::<shape_v2_capnp::shape::Owned>("shape_v2.capnp", "Shape", &shape);
    let newer = framed::<shape_v2_capnp::shape::Owned>(|mut shape| {
        shape.set_radius(2.0);
        shape.reborrow().init_load().set_weight(4);
        shape.init_bounds().init_right().set_z(1.0);
    });
    agree::<shape_v1_capnp::shape::Owned>("shape_v1.capnp", "Shape", &newer);
    let holder = framed::<generic_capnp::holder::Owned>(|holder| {
        holder.init_both(1).get(0).init_content().init_content().set_number(5);
    });
    agree::<generic_capnp::holder::Owned>("generic.capnp", "Holder", &holder);
}
