//! A message as JSON: walked once, and written as it is walked.

use crate::error::{Error, Result};
use base64::prelude::BASE64_STANDARD;
use serde::ser::{Error as _, SerializeMap, SerializeSeq};
use serde::{Serialize, Serializer};
use std::cell::{Cell, RefCell};
use std::fmt;

use super::super::types::{
    default_holder, signed, Field, FieldKind, Scalar, Scope, Slot, Type, Types,
};
use super::super::wire::{Broken, Items, Object};
use super::super::{corrupt, segments, unframed, words_of, Schema, TRAVERSALS_MAX};
use super::{BASE64_KEY, INFINITY, LEVELS_MAX, NAN, NEGATIVE_INFINITY};

/// What may come out of a message: so many bytes, and so many for each of its bytes. A byte is eight elements of a list
/// of bits; and a word may be a struct of a hundred fields with long names that are not set.
const OUTPUT_BYTES: usize = 16 << 20;
const OUTPUT_BYTES_PER_BYTE: usize = 256;

/// What a number or a name without its characters counts for.
const VALUE_BYTES: usize = 8;

/// Writes a message.
pub(super) fn message<W, F>(
    schema: &Schema,
    payload: &[u8],
    serializer: &mut serde_json::Serializer<W, F>,
) -> Result<()>
where
    W: std::io::Write,
    F: serde_json::ser::Formatter,
{
    let name = schema.type_name();
    let segments = segments(payload).map_err(|_| unframed(name, payload))?;
    let root =
        Object::root(segments).map_err(|broken| corrupt(name, format!("of its root {broken}")))?;
    let types = &schema.inner.types;
    let output = payload.len().saturating_mul(OUTPUT_BYTES_PER_BYTE).saturating_add(OUTPUT_BYTES);
    let walk = Walk {
        types,
        words: Cell::new(words_of(payload) * TRAVERSALS_MAX),
        output: Cell::new(output),
        path: RefCell::default(),
    };
    let fields = &types.structs[types.root].fields;
    let whole = Whole { walk: &walk, fields, object: root, scope: &Scope::NONE };
    whole.serialize(serializer).map_err(|error| match error.io_error_kind() {
        Some(kind) => Error::io("cannot write a message as JSON", kind.into()),
        None => corrupt(name, format!("of `{}` {error}", walk.path())),
    })
}

/// A message that is walked.
struct Walk<'a> {
    types: &'a Types,
    /// Words that may still be read.
    words: Cell<usize>,
    /// Bytes that may still be written, as far as they are counted.
    output: Cell<usize>,
    /// Where it is. After an error: where that is.
    path: RefCell<Vec<Place<'a>>>,
}

/// A step down.
#[derive(Clone, Copy)]
enum Place<'a> {
    Field(&'a str),
    Element(u32),
}

impl<'a> Walk<'a> {
    /// Counts words that are read.
    fn charge(&self, words: usize) -> Result<(), Broken> {
        let left = self.words.get().checked_sub(words).ok_or(Broken::Amplified)?;
        self.words.set(left);
        Ok(())
    }

    /// Counts bytes that are written.
    fn spend(&self, bytes: usize) -> Result<(), Broken> {
        let left = self.output.get().checked_sub(bytes).ok_or(Broken::Amplified)?;
        self.output.set(left);
        Ok(())
    }

    /// Does something one step down.
    fn at<T, E: serde::ser::Error>(
        &self,
        place: Place<'a>,
        what: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let mut path = self.path.borrow_mut();
        path.push(place);
        if path.len() > LEVELS_MAX {
            return Err(E::custom(Broken::Deep));
        }
        drop(path);
        let done = what()?;
        self.path.borrow_mut().pop();
        Ok(done)
    }

    fn path(&self) -> String {
        use fmt::Write;
        let mut text = String::new();
        for place in self.path.borrow().iter() {
            let dot = if text.is_empty() { "" } else { "." };
            let written = match place {
                Place::Field(name) => write!(text, "{dot}{name}"),
                Place::Element(index) => write!(text, "[{index}]"),
            };
            written.expect("a string takes everything");
        }
        text
    }
}

/// A struct, or a group of it.
struct Whole<'a, 's> {
    walk: &'s Walk<'a>,
    fields: &'a [Field],
    object: Object<'a>,
    scope: &'s Scope<'s>,
}

impl<'a> Serialize for Whole<'a, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { walk, object, scope, .. } = *self;
        let mut map = serializer.serialize_map(None)?;
        for field in self.fields {
            walk.spend(1).map_err(S::Error::custom)?;
            if !field.members.iter().all(|member| member.is_selected(&object)) {
                continue;
            }
            walk.at(Place::Field(&field.name), || {
                walk.spend(VALUE_BYTES + field.name.len()).map_err(S::Error::custom)?;
                match &field.of {
                    FieldKind::Group(fields) => {
                        map.serialize_entry(&field.name, &Whole { walk, fields, object, scope })
                    }
                    FieldKind::Slot(slot) => self.slot(&mut map, field, slot),
                }
            })?;
        }
        map.end()
    }
}

impl<'a> Whole<'a, '_> {
    /// Writes a field, if there is something to write.
    fn slot<M: SerializeMap>(
        &self,
        map: &mut M,
        field: &'a Field,
        slot: &'a Slot,
    ) -> Result<(), M::Error> {
        let Self { walk, object, scope, .. } = *self;
        let custom = <M::Error as serde::ser::Error>::custom::<Broken>;
        if let Some(scalar) = slot.of.scalar() {
            let bits = scalar.read(&object, slot.at, slot.bits);
            return map.serialize_entry(&field.name, &Plain { types: walk.types, scalar, bits });
        }
        let mut pointed =
            Pointed { walk, of: &slot.of, scope, holder: object, index: slot.at as u16 };
        if object.is_null(pointed.index).map_err(custom)? {
            match (&slot.target, &slot.of) {
                (Some(text), Type::Text) => {
                    return map.serialize_entry(&field.name, &Text { walk, text })
                }
                (Some(data), Type::Data) => {
                    return map.serialize_entry(&field.name, &Data { walk, data })
                }
                (Some(target), _) => {
                    pointed.holder = default_holder(target).map_err(custom)?;
                    pointed.index = 0;
                }
                (None, _) if field.members.is_empty() => return Ok(()),
                (None, _) => return map.serialize_entry(&field.name, &()),
            }
        }
        map.serialize_entry(&field.name, &pointed)
    }
}

/// A value that is not behind a pointer.
struct Plain<'s> {
    types: &'s Types,
    scalar: Scalar,
    bits: u64,
}

impl Serialize for Plain<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.scalar {
            Scalar::Void => serializer.serialize_unit(),
            Scalar::Bool => serializer.serialize_bool(self.bits != 0),
            Scalar::Int(size) => serializer.serialize_i64(signed(self.bits, size)),
            Scalar::UInt(_) => serializer.serialize_u64(self.bits),
            // In the fewest digits that tell it from its neighbours of the same size.
            Scalar::Float32 => match f32::from_bits(self.bits as u32) {
                value if value.is_finite() => serializer.serialize_f32(value),
                value => serializer.serialize_str(no_number(value.into())),
            },
            Scalar::Float64 => match f64::from_bits(self.bits) {
                value if value.is_finite() => serializer.serialize_f64(value),
                value => serializer.serialize_str(no_number(value)),
            },
            Scalar::Enum(index) => match self.types.enums[index].names.get(self.bits as usize) {
                Some(name) => serializer.serialize_str(name),
                None => serializer.serialize_u64(self.bits),
            },
        }
    }
}

fn no_number(value: f64) -> &'static str {
    match value {
        f64::INFINITY => INFINITY,
        f64::NEG_INFINITY => NEGATIVE_INFINITY,
        _ => NAN,
    }
}

/// What a pointer leads to. If it is null, the empty value of its type.
struct Pointed<'a, 's> {
    walk: &'s Walk<'a>,
    of: &'s Type,
    scope: &'s Scope<'s>,
    holder: Object<'a>,
    index: u16,
}

impl Serialize for Pointed<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { walk, holder, index, .. } = *self;
        let (of, scope) = self.scope.resolve(self.of);
        match of {
            Type::Text => {
                let text = holder.text(index).map_err(S::Error::custom)?.unwrap_or_default();
                Text { walk, text }.serialize(serializer)
            }
            Type::Data => {
                let data = holder.bytes(index).map_err(S::Error::custom)?.unwrap_or_default();
                Data { walk, data }.serialize(serializer)
            }
            Type::List(element) => match holder.items(index).map_err(S::Error::custom)? {
                Some(items) => {
                    walk.charge(items.words()).map_err(S::Error::custom)?;
                    let (of, scope) = scope.resolve(element);
                    List { walk, of, scope, items }.serialize(serializer)
                }
                None => serializer.serialize_seq(Some(0))?.end(),
            },
            Type::Struct(index_of, bound) => {
                match holder.object(index).map_err(S::Error::custom)? {
                    Some(object) => {
                        walk.charge(object.words()).map_err(S::Error::custom)?;
                        let fields = &walk.types.structs[*index_of].fields;
                        Whole { walk, fields, object, scope: &scope.inside(bound) }
                            .serialize(serializer)
                    }
                    None => serializer.serialize_map(Some(0))?.end(),
                }
            }
            // Nothing else is behind a pointer and described.
            _ => serializer.serialize_unit(),
        }
    }
}

/// A list, whose elements are of a type that is resolved.
struct List<'a, 's> {
    walk: &'s Walk<'a>,
    of: &'s Type,
    scope: &'s Scope<'s>,
    items: Items<'a>,
}

impl Serialize for List<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { walk, of, scope, items } = *self;
        let custom = S::Error::custom::<Broken>;
        let scalar = of.scalar();
        match (scalar, of) {
            (Some(scalar), _) => items.check_scalar(scalar.bits()),
            (None, Type::Struct(..)) => items.check_structs(),
            (None, _) => items.check_pointers(),
        }
        .map_err(custom)?;
        let mut seq = serializer.serialize_seq(Some(items.len() as usize))?;
        for index in 0..items.len() {
            walk.at(Place::Element(index), || {
                walk.spend(VALUE_BYTES).map_err(custom)?;
                if let Some(scalar) = scalar {
                    let bits = match scalar {
                        Scalar::Bool => items.bit(index).into(),
                        _ => scalar.read(&items.object(index).map_err(custom)?, 0, 0),
                    };
                    return seq.serialize_element(&Plain { types: walk.types, scalar, bits });
                }
                let object = items.object(index).map_err(custom)?;
                match of {
                    Type::Struct(index_of, bound) => {
                        let fields = &walk.types.structs[*index_of].fields;
                        let scope = &scope.inside(bound);
                        seq.serialize_element(&Whole { walk, fields, object, scope })
                    }
                    _ => seq.serialize_element(&Pointed {
                        walk,
                        of,
                        scope,
                        holder: object,
                        index: 0,
                    }),
                }
            })?;
        }
        seq.end()
    }
}

/// A text.
struct Text<'s, 'a> {
    walk: &'s Walk<'a>,
    text: &'s [u8],
}

impl Serialize for Text<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { walk, text } = *self;
        match std::str::from_utf8(text) {
            Ok(text) => {
                walk.spend(text.len()).map_err(S::Error::custom)?;
                serializer.serialize_str(text)
            }
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry(BASE64_KEY, &Data { walk, data: text })?;
                map.end()
            }
        }
    }
}

/// Bytes.
struct Data<'s, 'a> {
    walk: &'s Walk<'a>,
    data: &'s [u8],
}

impl Serialize for Data<'_, '_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.walk.spend(self.data.len()).map_err(S::Error::custom)?;
        serializer.collect_str(&base64::display::Base64Display::new(self.data, &BASE64_STANDARD))
    }
}
