use super::*;
use crate::samples::kinds_capnp::{kinds, Color};
use crate::samples::{shape_v1_capnp, shape_v2_capnp, tick_v1_capnp, tick_v2_capnp};
use capnp::introspect::Introspect;
use capnp::message::{Builder, HeapAllocator};
use capnp::traits::HasStructSize;
use serde_json::{json, Value};

mod random;

fn schema_of<T: Introspect>() -> Schema {
    Schema::of::<T>().expect("a struct without parameters")
}

fn kinds_schema() -> Schema {
    schema_of::<kinds::Owned>()
}

/// The payload that generated code makes, with segments that begin at so many words.
fn built_in(words: u32, build: impl FnOnce(kinds::Builder<'_>)) -> Vec<u8> {
    let mut builder = Builder::new(
        HeapAllocator::new()
            .first_segment_words(words)
            .allocation_strategy(capnp::message::AllocationStrategy::FixedSize),
    );
    build(builder.init_root());
    capnp::serialize::write_message_to_words(&builder)
}

fn built(build: impl FnOnce(kinds::Builder<'_>)) -> Vec<u8> {
    built_in(1 << 12, build)
}

fn value_of(schema: &Schema, payload: &[u8]) -> Value {
    let json = schema.to_json(payload).expect("a sound message");
    serde_json::from_str(&json).expect("it is JSON")
}

/// Something in every kind of field.
fn fill(mut kinds: kinds::Builder<'_>) {
    kinds.set_bool(true);
    kinds.set_int8(-1);
    kinds.set_int16(i16::MIN);
    kinds.set_int32(-3);
    kinds.set_int64(i64::MIN);
    kinds.set_uint8(255);
    kinds.set_uint16(65535);
    kinds.set_uint32(7);
    kinds.set_uint64(u64::MAX);
    kinds.set_float32(0.1);
    kinds.set_float64(1e300);
    kinds.set_color(Color::Green);
    kinds.set_text("a \"quoted\" ü\n");
    kinds.set_data(&[0, 1, 0xff]);
    kinds.reborrow().init_inner().init_inner().set_text("deep");
    kinds.reborrow().init_voids(2);
    kinds.set_bools([true, false, true].as_slice()).expect("set");
    kinds.set_int8s([-1i8, 2].as_slice()).expect("set");
    kinds.set_int64s([i64::MIN, i64::MAX].as_slice()).expect("set");
    kinds.set_uint8s([0u8, 255].as_slice()).expect("set");
    kinds.set_uint64s([u64::MAX].as_slice()).expect("set");
    kinds.set_float32s([f32::NAN, f32::INFINITY, -1.5].as_slice()).expect("set");
    kinds.set_float64s([f64::NEG_INFINITY, -0.0].as_slice()).expect("set");
    kinds.set_colors([Color::DarkBlue, Color::Red].as_slice()).expect("set");
    kinds.set_texts(&["", "two"][..]).expect("set");
    kinds.reborrow().init_datas(2).set(1, b"x");
    kinds.reborrow().init_inners(2).get(1).set_number(1);
    let mut lists = kinds.reborrow().init_lists(2);
    lists.reborrow().init(1, 1).set(0, [1i16, -2].as_slice()).expect("set");
    kinds.reborrow().init_lists_of_inners(1).init(0, 1).get(0).set_text("in two lists");
    let mut group = kinds.reborrow().init_group();
    group.set_number(4);
    group.init_deep().set_text("grouped");
    kinds.reborrow().init_pair().set_right("right");
    kinds.reborrow().init_choice().set_second("second");
    kinds.reborrow().init_generic().set_content("bound").expect("set");
    let nested = kinds.reborrow().init_nested().init_content();
    nested.init_content().set_number(3);
    let mut boxes = kinds.reborrow().init_generic_list(1);
    boxes.reborrow().get(0).initn_content(2).set(1, 9);
    let mut chain = kinds.reborrow().init_chain();
    chain.set_content("first").expect("set");
    chain.reborrow().init_inside().set_content("inside").expect("set");
    let next = chain.init_next();
    next.init_boxed().init_content().set_content("twice").expect("set");
    kinds.init_any().set_as("whatever").expect("set");
}

/// What [`fill`] is as JSON, but for what is not set.
fn filled() -> Value {
    let text = r#"{
        "void": null, "bool": true, "int8": -1, "int16": -32768, "int32": -3, "int64": -9223372036854775808,
        "uint8": 255, "uint16": 65535, "uint32": 7, "uint64": 18446744073709551615, "float32": 0.1, "float64": 1e300,
        "color": "green", "text": "a \"quoted\" ü\n", "data": "AAH/",
        "inner": {"number": 5, "inner": {"number": 5, "text": "deep"}},
        "boolSet": true, "int8Set": -8, "int16Set": -16, "int64Set": -64, "uint64Set": 18446744073709551615,
        "float32Set": 0.5, "float64Set": "-Infinity", "colorSet": "darkBlue", "textSet": "set",
        "dataSet": "AP8=", "innerSet": {"number": 9, "text": "nine"}, "listSet": ["a", "b"],
        "voids": [null, null], "bools": [true, false, true], "int8s": [-1, 2],
        "int64s": [-9223372036854775808, 9223372036854775807], "uint8s": [0, 255], "uint64s": [18446744073709551615],
        "float32s": ["NaN", "Infinity", -1.5], "float64s": ["-Infinity", -0.0],
        "colors": ["darkBlue", "red"], "texts": ["", "two"], "datas": ["", "eA=="],
        "inners": [{"number": 5}, {"number": 1}], "lists": [[], [[1, -2]]],
        "listsOfInners": [[{"number": 5, "text": "in two lists"}]],
        "group": {"number": 4, "deep": {"text": "grouped"}},
        "choice": {"second": "second"},
        "generic": {"content": "bound"}, "nested": {"content": {"content": {"number": 3}}},
        "genericList": [{"content": [0, 9]}], "any": null,
        "chain": {
            "content": "first", "inside": {"content": "inside"},
            "next": {"boxed": {"content": {"content": "twice"}}}
        }
    }"#;
    serde_json::from_str(text).expect("it is JSON")
}

#[test]
fn every_kind_of_field_is_written() {
    assert_eq!(value_of(&kinds_schema(), &built(fill)), filled());
}

#[test]
fn a_message_of_many_segments_says_the_same() {
    let schema = kinds_schema();
    let expected = value_of(&schema, &built(fill));
    // From segments of one word, where every object lies in another segment than its pointer, to a few.
    for words in [1, 2, 3, 5, 8, 13, 40, 90] {
        let payload = built_in(words, fill);
        assert!(payload[0] > 0, "there are several segments of {words} words");
        assert_eq!(value_of(&schema, &payload), expected, "segments of {words} words");
    }
}

#[test]
fn a_payload_is_read_at_any_address() {
    let payload = built(fill);
    for shift in 0..8 {
        let shifted = [&vec![0; shift], &payload[..]].concat();
        assert_eq!(value_of(&kinds_schema(), &shifted[shift..]), filled());
    }
}

#[test]
fn fields_are_in_their_order_and_groups_where_their_first_field_is() {
    let schema = schema_of::<shape_v2_capnp::shape::Owned>();
    let json = schema.to_json(&schema.from_json("{}").expect("an empty one")).expect("sound");
    let expected = r#"{"number":7,"name":"none","center":{"x":0.0,"y":0.0},"dot":null,"#;
    let rest = r#""anchors":[{"x":1.0,"y":2.0,"z":0.0}],"load":{"weight":0}}"#;
    assert_eq!(json, format!("{expected}{rest}"));
    let pretty = schema.to_json_pretty(&schema.from_json("{}").expect("an empty one"));
    assert!(pretty.expect("sound").starts_with("{\n  \"number\": 7,\n  \"name\": \"none\""));
}

#[test]
fn only_the_selected_member_of_a_union_is_written_even_if_it_is_null() {
    let schema = kinds_schema();
    let choose = |build: fn(kinds::Builder<'_>)| {
        let mut value = value_of(&schema, &built(build));
        let map = value.as_object_mut().expect("an object");
        let members = ["nothing", "count", "word", "pair", "items", "choice"];
        let found: Vec<_> =
            members.iter().filter_map(|name| Some((*name, map.remove(*name)?))).collect();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].clone()
    };
    assert_eq!(choose(|_| ()), ("nothing", json!(null)));
    assert_eq!(choose(|mut kinds| kinds.set_count(0)), ("count", json!(0)));
    assert_eq!(choose(|mut kinds| kinds.set_word("")), ("word", json!("")));
    let null = |kinds: kinds::Builder<'_>| kinds.init_choice().set_second("");
    assert_eq!(choose(null), ("choice", json!({"second": ""})));
    assert_eq!(choose(|kinds| _ = kinds.init_pair()), ("pair", json!({"left": 0})));
    let payload = schema.from_json(r#"{"items": null}"#).expect("null selects");
    assert_eq!(value_of(&schema, &payload)["items"], Value::Null);
    assert!(value_of(&schema, &payload).get("nothing").is_none());
    let payload = schema.from_json(r#"{"pair": {}}"#).expect("a group selects");
    assert_eq!(value_of(&schema, &payload)["pair"], json!({"left": 0}));
}

#[test]
fn what_this_schema_does_not_know_is_a_number_or_nothing() {
    let schema = schema_of::<tick_v1_capnp::tick::Owned>();
    let newer = schema_of::<tick_v2_capnp::tick::Owned>();
    let payload =
        newer.from_json(r#"{"quantity": 3, "venue": "dark", "publishedNs": 9}"#).expect("newer");
    let json = schema.to_json(&payload).expect("it is a version");
    assert_eq!(json, r#"{"price":0.0,"size":3,"venue":2}"#);
    // Numbers are taken back, so nothing that can be said is lost.
    let again = schema.from_json(&json).expect("an older one");
    assert_eq!(
        newer.to_json(&again).expect("sound"),
        r#"{"price":0.0,"quantity":3,"venue":"dark","publishedNs":0}"#
    );

    let schema = schema_of::<shape_v1_capnp::shape::Owned>();
    let newer = schema_of::<shape_v2_capnp::shape::Owned>();
    let payload = newer
        .from_json(r#"{"path": "p", "load": {"weight": 4}, "anchors": [{"z": 1}]}"#)
        .expect("newer");
    let value = value_of(&schema, &payload);
    for unknown in ["path", "dot", "radius", "corners"] {
        assert!(value.get(unknown).is_none(), "{unknown}");
    }
    assert_eq!((&value["weight"], &value["anchors"]), (&json!(4), &json!([{"x": 0.0, "y": 0.0}])));
    let back = value_of(&newer, &schema.from_json(r#"{"weight": 5, "radius": 1}"#).expect("older"));
    assert_eq!((&back["load"], &back["radius"]), (&json!({"weight": 5}), &json!(1.0)));
}

#[test]
fn a_text_that_is_not_utf8_is_kept() {
    let schema = kinds_schema();
    let payload = built(|mut kinds| kinds.set_text(capnp::text::Reader(b"\xff\x00z")));
    let value = value_of(&schema, &payload);
    assert_eq!(value["text"], json!({"$base64": "/wB6"}));
    let again = schema.from_json(&value.to_string()).expect("taken back");
    assert_eq!(value_of(&schema, &again), value);
}

#[test]
fn floats_keep_all_of_their_digits() {
    let schema = kinds_schema();
    // Written with the digits of a single, this one becomes its neighbour if it is rounded twice.
    let singles = [
        f32::from_bits(0x15ae_43fd),
        0.1,
        f32::MAX,
        f32::MIN_POSITIVE,
        f32::from_bits(1),
        -0.0,
        16_777_217.0,
    ];
    let doubles = [
        0.1 + 0.2,
        f64::MAX,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        -0.0,
        9_007_199_254_740_993.0,
        1e-7,
    ];
    let payload = built(|mut kinds| {
        kinds.set_float32s(singles.as_slice()).expect("set");
        kinds.set_float64s(doubles.as_slice()).expect("set");
    });
    let json = schema.to_json(&payload).expect("sound");
    assert!(json.contains("[7.038531e-26,0.1,"), "{json}");
    let again = schema.from_json(&json).expect("taken back");
    let message = capnp::serialize::read_message(&again[..], Default::default()).expect("framed");
    let kinds = message.get_root::<kinds::Reader<'_>>().expect("kinds");
    let read: Vec<u32> = kinds.get_float32s().expect("there").iter().map(f32::to_bits).collect();
    assert_eq!(read, singles.map(f32::to_bits));
    let read: Vec<u64> = kinds.get_float64s().expect("there").iter().map(f64::to_bits).collect();
    assert_eq!(read, doubles.map(f64::to_bits));
}

#[test]
fn what_is_built_is_what_generated_code_reads_and_canonical() {
    let schema = kinds_schema();
    let payload = schema.from_json(&filled().to_string()).expect("what was written");
    let message = capnp::serialize::read_message(&payload[..], Default::default()).expect("framed");
    assert!(message.is_canonical().expect("sound"));
    let kinds = message.get_root::<kinds::Reader<'_>>().expect("kinds");
    assert_eq!((kinds.get_int64(), kinds.get_uint64_set()), (i64::MIN, u64::MAX));
    assert_eq!(
        kinds.get_inner().and_then(|inner| inner.get_inner()?.get_text()).expect("there"),
        "deep"
    );
    assert_eq!(kinds.get_lists().and_then(|lists| lists.get(1)?.get(0)).expect("there").get(1), -2);
    assert_eq!(kinds.get_colors().expect("there").get(0), Ok(Color::DarkBlue));
    assert_eq!(kinds.get_voids().expect("there").len(), 2);
    let Ok(kinds::Choice(choice)) = kinds.which() else { panic!("a choice") };
    assert!(matches!(choice.which(), Ok(kinds::choice::Second(Ok(text))) if text == "second"));
    let boxed = kinds.get_chain().and_then(|chain| chain.get_next()?.get_boxed()).expect("there");
    assert_eq!(boxed.get_content().and_then(|boxed| boxed.get_content()).expect("there"), "twice");
    // Everything but the pointer that the schema does not describe.
    let size = <kinds::Builder<'_> as HasStructSize>::STRUCT_SIZE;
    assert!(size.pointers > 30 && payload.len() < built(fill).len());
    assert_eq!(value_of(&schema, &payload), {
        let mut expected = filled();
        expected.as_object_mut().expect("an object").remove("any");
        expected
    });
}

#[test]
fn what_cannot_be_built_is_refused_with_its_field_and_what_was_expected() {
    let schema = kinds_schema();
    for (json, expected) in [
        ("{", "it is not JSON: EOF"),
        ("[]", "the whole is [], expected an object: Kinds"),
        (r#"{"uint8": 256}"#, "`uint8` is 256, expected an integer from 0 to 255: UInt8"),
        (
            r#"{"uint64": -1}"#,
            "`uint64` is -1, expected an integer from 0 to 18446744073709551615: UInt64",
        ),
        (
            r#"{"uint64": 18446744073709551616}"#,
            "`uint64` is 1.8446744073709552e+19, expected an integer",
        ),
        (r#"{"int8": "-129"}"#, "`int8` is \"-129\", expected an integer from -128 to 127: Int8"),
        (r#"{"int32": 1.5}"#, "`int32` is 1.5, expected an integer"),
        (r#"{"int64": 1e30}"#, "`int64` is 1e+30, expected an integer"),
        (r#"{"bool": 1}"#, "`bool` is 1, expected true or false: Bool"),
        (r#"{"void": 1}"#, "`void` is 1, expected null: Void"),
        (
            r#"{"float32": 1e39}"#,
            "`float32` is 1e+39, expected a number up to 3.4028235e38: Float32",
        ),
        (r#"{"float64": "nan"}"#, "`float64` is \"nan\", expected a number, \"NaN\""),
        (
            r#"{"color": "blue"}"#,
            "`color` is \"blue\", expected one of red, green, darkBlue: enum Color",
        ),
        (r#"{"color": 65536}"#, "`color` is 65536, expected one of"),
        (r#"{"text": 1}"#, "`text` is 1, expected a string"),
        (r#"{"text": {"$base64": "?"}}"#, "`text` is {\"$base64\":\"?\"}, expected a string"),
        (r#"{"data": "?"}"#, "`data` is \"?\", expected a string in base64"),
        (r#"{"data": [256]}"#, "`data` is [256], expected a string in base64"),
        (r#"{"inner": 3}"#, "`inner` is 3, expected an object: Inner"),
        (r#"{"texts": {}}"#, "`texts` is {}, expected a list: List(Text)"),
        (
            r#"{"inners": [{}, {"number": true}]}"#,
            "`inners[1].number` is true, expected an integer",
        ),
        (r#"{"inners": [3]}"#, "`inners[0]` is 3, expected an object: Inner"),
        (r#"{"lists": [[[1], [2, 99999]]]}"#, "`lists[0][1][1]` is 99999, expected an integer"),
        (r#"{"lists": [[[1], null]]}"#, "`lists[0][1]` is null, expected a list: List(Int16)"),
        (r#"{"group": {"deep": {"text": 1}}}"#, "`group.deep.text` is 1, expected a string"),
        (r#"{"group": null}"#, "`group` is null, expected an object: a group"),
        (r#"{"group": {"x": 1}}"#, "`group.x` is not in group group, which has number, deep"),
        (
            r#"{"inner": {"nummer": 1}}"#,
            "`inner.nummer` is not in Inner, which has number, text, inner",
        ),
        (r#"{"count": 1, "word": ""}"#, "`word` and `count` are members of one union"),
        (
            r#"{"choice": {"first": 1, "second": ""}}"#,
            "`choice.second` and `first` are members of one union",
        ),
        (r#"{"any": 1}"#, "`any` is 1, expected null: it is AnyPointer"),
        (
            r#"{"chain": {"boxed": {"content": "x"}}}"#,
            "`chain.boxed.content` is \"x\", expected an object: Box",
        ),
    ] {
        let error = schema.from_json(json).expect_err(json);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expected), "{error}\n  of {json}, expected {expected}");
    }
}

#[test]
fn the_forms_of_other_tools_are_taken() {
    let schema = kinds_schema();
    let json = r#"{"int64": "-5", "uint64": "18446744073709551615", "uint8": 2e2, "data": [0, 255], "color": 1,
                   "void": null, "text": null, "any": null}"#;
    let value = value_of(&schema, &schema.from_json(json).expect("taken"));
    let found = ["int64", "uint64", "uint8", "data", "color"].map(|name| value[name].clone());
    assert_eq!(found, [json!(-5), json!(u64::MAX), json!(200), json!("AP8="), json!("green")]);
    assert!(value.get("text").is_none() && value.get("any").is_none());
}

#[test]
fn a_message_is_followed_as_deep_as_it_can_be_built_and_no_deeper() {
    let schema = schema_of::<shape_v1_capnp::shape::Owned>();
    let nested = |depth: usize| {
        format!("{}{}", r#"{"parent":"#.repeat(depth), "{}".to_owned() + &"}".repeat(depth))
    };
    let deepest = schema.from_json(&nested(63)).expect("the root is a level too");
    let json = schema.to_json(&deepest).expect("as deep as they get");
    assert_eq!(json.matches("parent").count(), 63);
    let error = schema.from_json(&nested(64)).expect_err("too deep").to_string();
    assert!(error.contains("is more than 64 levels deep"), "{error}");

    let mut builder = Builder::new_default();
    let mut inner = builder.init_root::<shape_v1_capnp::shape::Builder<'_>>();
    for _ in 0..70 {
        inner = inner.init_parent();
    }
    let error =
        schema.to_json(&capnp::serialize::write_message_to_words(&builder)).expect_err("too deep");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("deeper than 64 levels"), "{error}");
}

#[test]
fn a_message_that_points_to_itself_or_shares_what_it_points_to_is_an_error() {
    let schema = schema_of::<shape_v1_capnp::shape::Owned>();
    // A shape of eight pointers, each of which leads back to its beginning.
    let mut words = vec![9 << 32, 8 << 48];
    words.extend((1..=8).map(|back: i64| (-back as u64) << 2 & 0xffff_ffff | 8 << 48));
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert!(schema.to_json(&payload).is_err(), "it has no end");

    // A list of 499 lists, all of which are made to be the same, of 2000 values of two bytes behind them.
    let payload =
        schema.from_json(&json!({ "grid": vec![json!([]); 499] }).to_string()).expect("built");
    let end = payload.len() / 8;
    let mut shared = [&payload[..], &[1; 4000]].concat();
    for at in end - 499..end {
        let pointer = 1 | ((end - at - 1) as u64) << 2 | 3 << 32 | 2000 << 35;
        shared[at * 8..][..8].copy_from_slice(&u64::to_le_bytes(pointer));
    }
    let words = (shared.len() / 8 - 1) as u32;
    shared[4..8].copy_from_slice(&words.to_le_bytes());
    let error = schema.to_json(&shared).expect_err("499 times 500 words").to_string();
    assert!(error.contains("`grid[") && error.contains("much more would come out"), "{error}");
}

#[test]
fn defaults_do_not_make_much_of_a_small_message() {
    // A shape has a long name if it has none, and its corners are shapes.
    let schema = crate::message::dynamic::tests::edited(|slots| {
        // Nothing else, so that only what is written counts, and hardly anything is read.
        slots.retain(|ordinal, _| [1, 6, 9].contains(ordinal));
        let long = vec![b'x'; 1 << 19];
        slots.get_mut(&1).expect("name").default = crate::message::schema::Value::Target(long);
        let parent = slots[&9].of.clone();
        slots.get_mut(&6).expect("corners").of =
            crate::message::schema::Shape::List(Box::new(parent));
    });
    let corners = |count| json!({ "corners": vec![json!({}); count] }).to_string();
    let few = schema.from_json(&corners(3)).expect("built");
    assert!(schema.to_json(&few).is_ok_and(|json| json.len() > 3 << 19));
    let many = schema.from_json(&corners(400)).expect("built");
    assert!(many.len() < 1000);
    let error = schema.to_json(&many).expect_err("200 MiB").to_string();
    assert!(error.contains("`corners[") && error.contains("much more would come out"), "{error}");
}
