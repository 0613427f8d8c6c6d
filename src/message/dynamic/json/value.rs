//! Single values of JSON as values of a message: what is taken, and what is said of anything else.

use base64::prelude::{Engine, BASE64_STANDARD};
use serde_json::{Number, Value};
use std::borrow::Cow;

use super::super::types::{Scalar, Types};
use super::{BASE64_KEY, INFINITY, NAN, NEGATIVE_INFINITY};

/// How much of a value an error shows, in characters.
const SHOWN_CHARS: usize = 60;

/// What is wrong, in words that follow the name of the field.
pub(super) type Built<T> = std::result::Result<T, String>;

/// A value as JSON, not all of it if it is long.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

pub(super) fn wrong(found: &Value, expected: impl std::fmt::Display) -> String {
    format!("is {}, expected {expected}", shown(found))
}

/// The bits of a value that is not behind a pointer.
pub(super) fn scalar(types: &Types, scalar: Scalar, value: &Value) -> Built<u64> {
    match scalar {
        Scalar::Void if value.is_null() => Ok(0),
        Scalar::Void => Err(wrong(value, "null: Void")),
        Scalar::Bool => {
            value.as_bool().map(u64::from).ok_or_else(|| wrong(value, "true or false: Bool"))
        }
        Scalar::Int(bits) => {
            let (least, most) = (i64::MIN >> (64 - bits), i64::MAX >> (64 - bits));
            let found = integer(value).filter(|found| (least.into()..=most.into()).contains(found));
            let found = found.ok_or_else(|| {
                wrong(value, format!("an integer from {least} to {most}: Int{bits}"))
            })?;
            Ok(found as u64 & u64::MAX >> (64 - bits))
        }
        Scalar::UInt(bits) => {
            let most = u64::MAX >> (64 - bits);
            let found = integer(value).filter(|found| (0..=most.into()).contains(found));
            let found = found
                .ok_or_else(|| wrong(value, format!("an integer from 0 to {most}: UInt{bits}")))?;
            Ok(found as u64)
        }
        Scalar::Float32 => float(value, "Float32").and_then(|found| {
            // By its digits: rounded twice, 7.038531e-26 would become its neighbour.
            let single = found.to_string().parse().unwrap_or(found as f32);
            if single.is_infinite() && found.is_finite() {
                return Err(wrong(value, format!("a number up to {:e}: Float32", f32::MAX)));
            }
            Ok(u64::from(single.to_bits()))
        }),
        Scalar::Float64 => float(value, "Float64").map(f64::to_bits),
        Scalar::Enum(index) => {
            let of = &types.enums[index];
            let found = match value {
                Value::String(name) => of.names.iter().position(|known| known == name),
                _ => integer(value).and_then(|found| usize::try_from(found).ok()),
            };
            match found.and_then(|found| u16::try_from(found).ok()) {
                Some(found) => Ok(found.into()),
                None => {
                    Err(wrong(value, format!("one of {}: enum {}", of.names.join(", "), of.name)))
                }
            }
        }
    }
}

/// An integer: a number without a fraction, or a string of one.
fn integer(value: &Value) -> Option<i128> {
    match value {
        Value::Number(number) => number_as_integer(number),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

fn number_as_integer(number: &Number) -> Option<i128> {
    if let Some(found) = number.as_i64() {
        return Some(found.into());
    }
    if let Some(found) = number.as_u64() {
        return Some(found.into());
    }
    // `1e3` is a float to the parser. Beyond 2^53 it is not clear which integer was meant.
    number
        .as_f64()
        .filter(|found| found.fract() == 0.0 && found.abs() <= 9e15)
        .map(|found| found as i128)
}

fn float(value: &Value, name: &str) -> Built<f64> {
    let found = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            NAN => Some(f64::NAN),
            INFINITY => Some(f64::INFINITY),
            NEGATIVE_INFINITY => Some(f64::NEG_INFINITY),
            _ => None,
        },
        _ => None,
    };
    found.ok_or_else(|| {
        wrong(
            value,
            format!("a number, \"{NAN}\", \"{INFINITY}\" or \"{NEGATIVE_INFINITY}\": {name}"),
        )
    })
}

pub(super) fn text(value: &Value) -> Built<Cow<'_, [u8]>> {
    let base64 = |value: &Value| value.as_str().and_then(|text| BASE64_STANDARD.decode(text).ok());
    let found = match value {
        Value::String(text) => Some(Cow::Borrowed(text.as_bytes())),
        Value::Object(map) if map.len() == 1 => {
            map.get(BASE64_KEY).and_then(base64).map(Cow::Owned)
        }
        _ => None,
    };
    found.ok_or_else(|| wrong(value, format!("a string, or {{\"{BASE64_KEY}\": \"…\"}}: Text")))
}

pub(super) fn data(value: &Value) -> Built<Vec<u8>> {
    let byte = |value: &Value| value.as_u64().and_then(|byte| u8::try_from(byte).ok());
    let found = match value {
        Value::String(text) => BASE64_STANDARD.decode(text).ok(),
        Value::Array(bytes) => bytes.iter().map(byte).collect(),
        _ => None,
    };
    found.ok_or_else(|| wrong(value, "a string in base64, or a list of bytes: Data"))
}
