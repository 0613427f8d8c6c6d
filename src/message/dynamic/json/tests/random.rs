//! Random messages, and random damage to them and to their schemas.

use super::*;
use crate::message::dynamic::types::{signed, Field, FieldKind, Scalar, Scope, Type, Types};
use crate::message::schema::describe;
use crate::message::{reader, FrameSegments};
use crate::FieldValue;
use base64::prelude::{Engine, BASE64_STANDARD};
use proptest::prelude::*;
use serde_json::{Map, Number};
use std::collections::HashSet;

/// Random numbers that end: then every choice is the smallest.
struct Tape<'a> {
    left: std::slice::Iter<'a, u64>,
}

impl Tape<'_> {
    fn next(&mut self) -> u64 {
        self.left.next().copied().unwrap_or(0)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// A number that is often an extreme one.
    fn bits(&mut self) -> u64 {
        match self.below(4) {
            0 => [0, 1, u64::MAX, 1 << 63, i64::MAX as u64, 1 << 53][self.below(6) as usize],
            shift => self.next() >> (shift * 16 % 64),
        }
    }
}

fn float(value: f64, digits: String) -> Value {
    match value {
        _ if value.is_nan() => json!("NaN"),
        f64::INFINITY => json!("Infinity"),
        f64::NEG_INFINITY => json!("-Infinity"),
        _ => Number::from_f64(digits.parse().expect("a number")).expect("it is finite").into(),
    }
}

fn scalar(types: &Types, scalar: Scalar, tape: &mut Tape<'_>) -> Value {
    let bits = tape.bits();
    match scalar {
        Scalar::Void => Value::Null,
        Scalar::Bool => json!(bits & 1 != 0),
        Scalar::Int(size) => json!(signed(bits, size)),
        Scalar::UInt(size) => json!(bits & u64::MAX >> (64 - size)),
        Scalar::Float32 => {
            let value = f32::from_bits(bits as u32);
            // The digits of the library that writes them: there may be several shortest ones.
            float(value.into(), serde_json::to_string(&value).expect("a number"))
        }
        Scalar::Float64 => float(f64::from_bits(bits), f64::from_bits(bits).to_string()),
        Scalar::Enum(index) => {
            let names = &types.enums[index].names;
            match names.get(bits as usize % (names.len() + 1)) {
                Some(name) => json!(name),
                None => json!(names.len() as u64 + bits % 1000),
            }
        }
    }
}

fn pointed(types: &Types, of: &Type, scope: &Scope<'_>, tape: &mut Tape<'_>, depth: u32) -> Value {
    let (of, scope) = scope.resolve(of);
    let bytes = |tape: &mut Tape<'_>| -> Vec<u8> {
        (0..tape.below(20)).map(|_| tape.next() as u8).collect()
    };
    match of {
        Type::Text => match String::from_utf8(bytes(tape)) {
            Ok(text) => json!(text),
            Err(error) => json!({ "$base64": BASE64_STANDARD.encode(error.as_bytes()) }),
        },
        Type::Data => json!(BASE64_STANDARD.encode(bytes(tape))),
        Type::List(element) => {
            let count = if depth == 0 { 0 } else { tape.below(4) };
            (0..count).map(|_| pointed(types, element, scope, tape, depth - 1)).collect()
        }
        Type::Struct(index, bound) => {
            let scope = scope.inside(bound);
            fields(types, &types.structs[*index].fields, &scope, tape, depth.saturating_sub(1))
        }
        Type::Opaque(_) | Type::Parameter(..) => Value::Null,
        plain => scalar(types, plain.scalar().expect("nothing else is left"), tape),
    }
}

fn fields(
    types: &Types,
    all: &[Field],
    scope: &Scope<'_>,
    tape: &mut Tape<'_>,
    depth: u32,
) -> Value {
    let (mut map, mut chosen) = (Map::new(), HashSet::new());
    for field in all {
        let wanted = tape.below(3) > 0 && depth > 0;
        if !wanted || field.members.iter().any(|member| !chosen.insert(member.at)) {
            continue;
        }
        let value = match &field.of {
            FieldKind::Group(all) => fields(types, all, scope, tape, depth),
            FieldKind::Slot(slot) => match scope.resolve(&slot.of).0 {
                Type::Opaque(_) => continue,
                _ => pointed(types, &slot.of, scope, tape, depth),
            },
        };
        map.insert(field.name.clone(), value);
    }
    map.into()
}

fn random(schema: &Schema, tape: &[u64]) -> Value {
    let types = &schema.inner.types;
    let mut tape = Tape { left: tape.iter() };
    fields(types, &types.structs[types.root].fields, &Scope::NONE, &mut tape, 6)
}

/// Where something of `part` is not in `whole`.
fn missing(whole: &Value, part: &Value, at: &str) -> Option<String> {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => part.iter().find_map(|(key, part)| {
            let at = format!("{at}.{key}");
            whole.get(key).map_or_else(|| Some(at.clone()), |whole| missing(whole, part, &at))
        }),
        (Value::Array(whole), Value::Array(part)) if whole.len() == part.len() => {
            whole.iter().zip(part).find_map(|(whole, part)| missing(whole, part, at))
        }
        _ => (whole != part).then(|| format!("{at}: {part} became {whole}")),
    }
}

fn tapes() -> impl Strategy<Value = Vec<u64>> {
    proptest::collection::vec(any::<u64>(), 0..600)
}

fn schemas() -> Vec<Schema> {
    vec![kinds_schema(), schema_of::<shape_v2_capnp::shape::Owned>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_goes_into_a_message_comes_out_of_it(tape in tapes()) {
        for schema in schemas() {
            let json = random(&schema, &tape);
            let payload = schema.from_json(&json.to_string()).expect("it is of the type");
            let all = value_of(&schema, &payload);
            prop_assert_eq!(missing(&all, &json, ""), None);
            let again = schema.from_json(&all.to_string()).expect("what was written is taken");
            prop_assert_eq!(value_of(&schema, &again), all);
            let message = capnp::serialize::read_message(&payload[..], Default::default()).expect("framed");
            let is_set = payload.len() > 24 || payload[16..] != [0; 8];
            prop_assert_eq!(message.is_canonical().expect("sound"), is_set);
        }
    }

    #[test]
    fn a_damaged_message_is_an_error_or_another_message(
        tape in tapes(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<Option<prop::sample::Index>>(),
        words in 1u32..200,
    ) {
        for (schema, several) in schemas().into_iter().zip([true, false]) {
            let mut payload = match several && tape.len() % 2 == 0 {
                true => built_in(words, fill),
                false => schema.from_json(&random(&schema, &tape).to_string()).expect("it is of the type"),
            };
            for (at, value) in &flips {
                let at = at.index(payload.len());
                let flipped = payload[at] ^ 1 << (value / 4 % 8);
                payload[at] = [0, 0xff, flipped, *value][usize::from(value % 4)];
            }
            let end = cut.map_or(payload.len(), |cut| cut.index(payload.len() + 1));
            survives(&schema, &payload[..end])?;
        }
    }

    #[test]
    fn fields_of_a_damaged_message_are_what_generated_code_reads(
        flips in proptest::collection::vec((any::<prop::sample::Index>(), 0u8..64), 0..4),
        words in 1u32..400,
    ) {
        let mut payload = built_in(words, fill);
        for (at, bit) in &flips {
            let at = at.index(payload.len());
            payload[at] ^= 1 << (bit % 8);
        }
        let schema = kinds_schema();
        let get = |path: &str| {
            let path = schema.path(path).expect("there");
            path.get(&payload).map(|value| value.map(|value| format!("{value:?}"))).map_err(|_| ())
        };
        let mut aligned = capnp::Word::allocate_zeroed_vec(payload.len() / 8);
        capnp::Word::words_to_bytes_mut(&mut aligned).copy_from_slice(&payload);
        let message = FrameSegments::parse(capnp::Word::words_to_bytes(&aligned)).map(reader);
        let root = message.as_ref().map_err(|_| ()).and_then(|message| {
            message.get_root::<kinds::Reader<'_>>().map_err(|_| ())
        });
        let Ok(kinds) = root else {
            prop_assert!(get("uint64").is_err() && get("text").is_err());
            return Ok(());
        };
        prop_assert_eq!(get("uint64"), Ok(Some(format!("UInt({})", kinds.get_uint64()))));
        prop_assert_eq!(get("int16Set"), Ok(Some(format!("Int({})", kinds.get_int16_set()))));
        prop_assert_eq!(get("group.number"), Ok(Some(format!("UInt({})", kinds.get_group().get_number()))));
        let text = kinds.get_text().map(|text| kinds.has_text().then(|| format!("Text({:?})", text.as_bytes())));
        prop_assert_eq!(get("text"), text.map_err(|_| ()));
        let data = kinds.get_data().map(|data| kinds.has_data().then(|| format!("Data({data:?})")));
        prop_assert_eq!(get("data"), data.map_err(|_| ()));
        let inner = kinds.get_inner().map_err(|_| ());
        let number = inner.map(|inner| kinds.has_inner().then(|| format!("UInt({})", inner.get_number())));
        prop_assert_eq!(get("inner.number"), number);
        let path = schema.path("int64s").expect("there");
        let values = path.values(&payload).and_then(|values| values.collect::<Result<Vec<_>>>());
        let theirs = kinds.get_int64s().map(|list| list.iter().map(FieldValue::Int).collect::<Vec<_>>());
        prop_assert_eq!(values.map_err(|_| ()), theirs.map_err(|_| ()));
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error_or_a_message(
        words in proptest::collection::vec(any::<u64>(), 0..40),
        shapes in proptest::collection::vec(0u8..6, 40),
    ) {
        // Words that look like pointers more often than others do, in a message of one segment.
        let pointer = |(word, shape): (&u64, &u8)| match shape {
            0 => *word,
            1 => 0,
            2 => (word & 0x3c) | (word >> 16 & 0xf) << 32 | (word >> 24 & 0xf) << 48,
            3 => (word & 0x3c) | 1 | (word >> 8 & 7) << 32 | (word >> 16 & 0x1f) << 35,
            4 => (word & 0x3c) | 0xffff_ff00 | (word >> 24 & 0xf) << 48,
            _ => 2 | (word & 0xf8),
        };
        let body: Vec<u8> = words.iter().zip(&shapes).flat_map(|pair| pointer(pair).to_le_bytes()).collect();
        let payload = [&[0; 4], &(words.len() as u32).to_le_bytes()[..], &body].concat();
        for schema in schemas() {
            survives(&schema, &payload)?;
            survives(&schema, &body)?;
        }
    }

    #[test]
    fn a_damaged_schema_is_an_error_or_another_schema(
        tape in tapes(),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut stored = describe::<kinds::Owned>().expect("a struct");
        let payload = kinds_schema().from_json(&random(&kinds_schema(), &tape).to_string()).expect("of the type");
        for (at, value) in &flips {
            let at = at.index(stored.len());
            stored[at] = if value % 2 == 0 { stored[at] ^ 1 << (value / 2 % 8) } else { *value };
        }
        match Schema::parse(&stored) {
            Ok(schema) => {
                // Its fields may overlap now, so that nothing holds but that there is an end.
                read_all(&schema, &payload)?;
                if let Ok(built) = schema.from_json(&random(&schema, &tape).to_string()) {
                    read_all(&schema, &built)?;
                }
            }
            Err(error) => prop_assert_eq!(error.kind(), ErrorKind::Corrupt),
        }
    }
}

/// Reads whatever it is in every way. What is written can be built again, and is the same then.
fn survives(schema: &Schema, payload: &[u8]) -> std::result::Result<(), TestCaseError> {
    if let Some(json) = read_all(schema, payload)? {
        // But for what is behind an `AnyPointer`, of which only that there is something was written.
        let built = schema.from_json(&json).expect("what was written is taken");
        let again = schema.to_json(&built).expect("sound");
        let rebuilt = schema.from_json(&again).expect("what was written is taken");
        prop_assert_eq!(schema.to_json(&rebuilt).expect("sound"), again);
    }
    Ok(())
}

/// Reads whatever it is in every way, as JSON if that can be: a soft error at most, and never without end.
fn read_all(schema: &Schema, payload: &[u8]) -> std::result::Result<Option<String>, TestCaseError> {
    let json = match schema.to_json(payload) {
        Ok(json) => Some(json),
        Err(error) => {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
            None
        }
    };
    let len = json.as_ref().map_or(0, String::len);
    prop_assert!(len < (1 << 20) + payload.len() * 2000, "{} bytes", len);
    let paths = [
        "uint64",
        "inner.inner.text",
        "inners.number",
        "lists",
        "bools",
        "grid",
        "corners.x",
        "choice.second",
    ];
    for path in paths {
        let Ok(path) = schema.path(path) else { continue };
        if let Err(error) = path.get(payload) {
            prop_assert_eq!(error.kind(), ErrorKind::Corrupt);
        }
        if let Ok(values) = path.values(payload) {
            prop_assert!(values.count() <= 64 * 8 * (payload.len() / 8 + 64));
        }
    }
    Ok(json)
}
