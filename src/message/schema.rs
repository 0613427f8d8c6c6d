//! The schema that a topic stores, and whether two of them may meet.
//!
//! A topic stores the nodes of its type as a `CodeGeneratorRequest`, the form in which Cap'n Proto's own tools exchange
//! schemas: every tool can print any message with no `.capnp` file at hand. The one requested file names the root type.
//!
//! Two schemas may meet if each can be the evolution of the other: a field that both have, told by its ordinal, must lie
//! in the same place with the same type and default. Fields, union members and enumerants may be missing on either side;
//! names do not matter, since they are not in the messages. Groups are compared as the structs they are.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::SCHEMA_BYTES_MAX;
use capnp::introspect::{Introspect, Type, TypeVariant};
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::schema::{EnumSchema, StructSchema};
use capnp::schema_capnp::{code_generator_request, field, node, type_, value};
use std::collections::BTreeMap;

type Nodes = BTreeMap<u64, node::Reader<'static>>;

/// The schema of `T`, as a topic stores it. The same type gives the same bytes.
pub fn describe<T: Introspect>() -> Result<Vec<u8>> {
    let unusable = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Invalid, format!("the type cannot be that of a topic: {why}"))
    };
    let TypeVariant::Struct(root) = T::introspect().which() else {
        return Err(unusable(&"it is not a struct"));
    };
    let root = StructSchema::new(root);
    let mut nodes = Nodes::new();
    collect(T::introspect(), &mut nodes).map_err(|error| unusable(&error))?;
    let bytes = write(root.get_proto(), &nodes).map_err(|error| unusable(&error))?;
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(unusable(&format!("its schema has {} bytes", bytes.len())));
    }
    Ok(bytes)
}

/// Collects the nodes of a type and of all that it refers to.
fn collect(of: Type, nodes: &mut Nodes) -> capnp::Result<()> {
    match of.which() {
        TypeVariant::List(element) => collect(element, nodes),
        TypeVariant::Enum(raw) => {
            let proto = EnumSchema::new(raw).get_proto();
            nodes.insert(proto.get_id(), proto);
            Ok(())
        }
        TypeVariant::Struct(raw) => {
            let schema = StructSchema::new(raw);
            let proto = schema.get_proto();
            if nodes.insert(proto.get_id(), proto).is_none() {
                for field in schema.get_fields()?.iter() {
                    collect(field.get_type(), nodes)?;
                }
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn write(root: node::Reader<'_>, nodes: &Nodes) -> capnp::Result<Vec<u8>> {
    let mut builder = Builder::new(HeapAllocator::new());
    let mut request = builder.init_root::<code_generator_request::Builder<'_>>();
    let mut list = request.reborrow().init_nodes(nodes.len() as u32);
    for (index, proto) in nodes.values().enumerate() {
        list.set_with_caveats(index as u32, *proto)?;
    }
    let mut file = request.init_requested_files(1).get(0);
    file.set_id(root.get_id());
    file.set_filename(root.get_display_name()?);
    Ok(capnp::serialize::write_message_to_words(&builder))
}

/// A stored schema, opened. An input: everything in it may be missing or wrong.
struct Stored {
    words: Vec<capnp::Word>,
    len: usize,
}

impl Stored {
    fn new(bytes: &[u8]) -> Self {
        let mut words = capnp::Word::allocate_zeroed_vec(bytes.len().div_ceil(8));
        capnp::Word::words_to_bytes_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
        Self { words, len: bytes.len() }
    }

    fn open(&self) -> capnp::Result<Reader<super::FrameSegments<'_>>> {
        let bytes = &capnp::Word::words_to_bytes(&self.words)[..self.len];
        let segments = super::FrameSegments::parse(bytes).map_err(super::malformed)?;
        Ok(Reader::new(segments, ReaderOptions::new()))
    }
}

fn damaged(error: capnp::Error) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the stored schema is damaged: {error}"))
}

/// The name of the root type of a stored schema, as `file.capnp:Type`.
pub fn schema_name(bytes: &[u8]) -> Result<String> {
    let read = || -> capnp::Result<String> {
        let stored = Stored::new(bytes);
        let reader = stored.open()?;
        let request = reader.get_root::<code_generator_request::Reader<'_>>()?;
        let files = request.get_requested_files()?;
        let file = files.try_get(0).ok_or_else(|| missing("root type"))?;
        Ok(file.get_filename()?.to_string()?)
    };
    read().map_err(damaged)
}

fn missing(what: &str) -> capnp::Error {
    capnp::Error::failed(format!("it has no {what}"))
}

/// Refuses two schemas that cannot be evolutions of each other; the error names the type and the field.
pub fn check_schemas(topic: &str, stored: &[u8], mine: &[u8]) -> Result<()> {
    let (stored, mine) = (Stored::new(stored), Stored::new(mine));
    let compare = || -> capnp::Result<std::result::Result<(), String>> {
        let (stored, mine) = (stored.open()?, mine.open()?);
        let stored = stored.get_root::<code_generator_request::Reader<'_>>()?;
        let mine = mine.get_root::<code_generator_request::Reader<'_>>()?;
        Comparison::new(stored, mine)?.run()
    };
    match compare().map_err(damaged)? {
        Ok(()) => Ok(()),
        Err(difference) => Err(Error::new(
            ErrorKind::Mismatch,
            format!("topic {topic} carries another type: {difference}"),
        )),
    }
}

type Verdict = std::result::Result<(), String>;

struct Comparison<'a> {
    stored: BTreeMap<u64, node::Reader<'a>>,
    mine: BTreeMap<u64, node::Reader<'a>>,
    roots: [(u64, String); 2],
}

impl<'a> Comparison<'a> {
    fn new(
        stored: code_generator_request::Reader<'a>,
        mine: code_generator_request::Reader<'a>,
    ) -> capnp::Result<Self> {
        let root = |request: code_generator_request::Reader<'a>| -> capnp::Result<(u64, String)> {
            let files = request.get_requested_files()?;
            let file = files.try_get(0).ok_or_else(|| missing("root type"))?;
            Ok((file.get_id(), file.get_filename()?.to_string()?))
        };
        let nodes = |request: code_generator_request::Reader<'a>| -> capnp::Result<_> {
            let nodes = request.get_nodes()?;
            Ok(nodes.iter().map(|node| (node.get_id(), node)).collect::<BTreeMap<_, _>>())
        };
        Ok(Self { roots: [root(stored)?, root(mine)?], stored: nodes(stored)?, mine: nodes(mine)? })
    }

    fn run(&self) -> capnp::Result<Verdict> {
        let [(stored_id, stored_name), (my_id, my_name)] = &self.roots;
        if stored_id != my_id {
            return Ok(Err(format!(
                "{stored_name} (@{stored_id:#x}) there, {my_name} (@{my_id:#x}) here"
            )));
        }
        for (id, stored) in &self.stored {
            let Some(mine) = self.mine.get(id) else { continue };
            let verdict = self.structs(*stored, *mine)?;
            if verdict.is_err() {
                return Ok(verdict);
            }
        }
        Ok(Ok(()))
    }

    fn structs(&self, stored: node::Reader<'_>, mine: node::Reader<'_>) -> capnp::Result<Verdict> {
        let name = stored.get_display_name()?.to_string()?;
        let (node::Which::Struct(left), node::Which::Struct(right)) =
            (stored.which()?, mine.which()?)
        else {
            let same = matches!(
                (stored.which()?, mine.which()?),
                (node::Which::Enum(_), node::Which::Enum(_))
            );
            let verdict = if same { Ok(()) } else { Err(format!("{name} is not of one kind")) };
            return Ok(verdict);
        };
        let mut by_place = BTreeMap::new();
        for field in right.get_fields()?.iter() {
            by_place.insert(place_of(field)?, field);
        }
        for field in left.get_fields()?.iter() {
            let Some(other) = by_place.get(&place_of(field)?) else { continue };
            if let Err(difference) = fields(field, *other)? {
                return Ok(Err(format!("{name} {difference}")));
            }
        }
        Ok(Ok(()))
    }
}

/// What tells a field from the others of its struct in every version: its ordinal, or the id of its group.
fn place_of(field: field::Reader<'_>) -> capnp::Result<(u64, bool)> {
    Ok(match field.which()? {
        field::Which::Group(group) => (group.get_type_id(), true),
        field::Which::Slot(_) => match field.get_ordinal().which()? {
            field::ordinal::Which::Explicit(ordinal) => (ordinal.into(), false),
            field::ordinal::Which::Implicit(()) => (field.get_code_order().into(), false),
        },
    })
}

fn fields(stored: field::Reader<'_>, mine: field::Reader<'_>) -> capnp::Result<Verdict> {
    let (ordinal, _) = place_of(stored)?;
    let name = format!("field {} (@{ordinal})", stored.get_name()?.to_str()?);
    let [there, here] = [stored.get_discriminant_value(), mine.get_discriminant_value()];
    if there != here {
        return Ok(Err(format!(
            "{name} is another member of its union ({there} there, {here} here)"
        )));
    }
    let (field::Which::Slot(left), field::Which::Slot(right)) = (stored.which()?, mine.which()?)
    else {
        return Ok(Ok(()));
    };
    let [there, here] = [type_name(left.get_type()?)?, type_name(right.get_type()?)?];
    if there != here {
        return Ok(Err(format!("{name} is {there} there and {here} here")));
    }
    if left.get_offset() != right.get_offset() {
        let [there, here] = [left.get_offset(), right.get_offset()];
        return Ok(Err(format!("{name} lies at {there} there and at {here} here")));
    }
    let [there, here] =
        [default_of(left.get_default_value()?)?, default_of(right.get_default_value()?)?];
    if there != here {
        return Ok(Err(format!("{name} has another default there than here")));
    }
    Ok(Ok(()))
}

/// A type, so that two are equal if messages of them are.
fn type_name(of: type_::Reader<'_>) -> capnp::Result<String> {
    Ok(match of.which()? {
        type_::Which::Void(()) => "Void".into(),
        type_::Which::Bool(()) => "Bool".into(),
        type_::Which::Int8(()) => "Int8".into(),
        type_::Which::Int16(()) => "Int16".into(),
        type_::Which::Int32(()) => "Int32".into(),
        type_::Which::Int64(()) => "Int64".into(),
        type_::Which::Uint8(()) => "UInt8".into(),
        type_::Which::Uint16(()) => "UInt16".into(),
        type_::Which::Uint32(()) => "UInt32".into(),
        type_::Which::Uint64(()) => "UInt64".into(),
        type_::Which::Float32(()) => "Float32".into(),
        type_::Which::Float64(()) => "Float64".into(),
        type_::Which::Text(()) => "Text".into(),
        type_::Which::Data(()) => "Data".into(),
        type_::Which::List(list) => format!("List({})", type_name(list.get_element_type()?)?),
        type_::Which::Enum(of) => format!("enum @{:#x}", of.get_type_id()),
        type_::Which::Struct(of) => format!("struct @{:#x}", of.get_type_id()),
        type_::Which::Interface(of) => format!("interface @{:#x}", of.get_type_id()),
        type_::Which::AnyPointer(_) => "AnyPointer".into(),
    })
}

/// The default of a scalar as its bits. Defaults of pointers do not change what lies in a message.
fn default_of(of: value::Reader<'_>) -> capnp::Result<u64> {
    Ok(match of.which()? {
        value::Which::Bool(value) => value.into(),
        value::Which::Int8(value) => value as u64,
        value::Which::Int16(value) => value as u64,
        value::Which::Int32(value) => value as u64,
        value::Which::Int64(value) => value as u64,
        value::Which::Uint8(value) => value.into(),
        value::Which::Uint16(value) => value.into(),
        value::Which::Uint32(value) => value.into(),
        value::Which::Uint64(value) => value,
        value::Which::Float32(value) => value.to_bits().into(),
        value::Which::Float64(value) => value.to_bits(),
        value::Which::Enum(value) => value.into(),
        _ => 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemas::{bench_capnp::sample, tick_capnp::tick};

    #[test]
    fn a_schema_names_its_type_and_meets_itself() {
        let bytes = describe::<tick::Owned>().expect("a struct");
        assert_eq!(bytes, describe::<tick::Owned>().expect("a struct"), "deterministic");
        assert_eq!(schema_name(&bytes).expect("sound"), "tick.capnp:Tick");
        check_schemas("t", &bytes, &bytes).expect("the same");
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let [tick, sample] = [describe::<tick::Owned>(), describe::<sample::Owned>()];
        let [tick, sample] = [tick.expect("a struct"), sample.expect("a struct")];
        let error = check_schemas("t", &tick, &sample).expect_err("different");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().contains("tick.capnp:Tick"), "{error}");
    }

    #[test]
    fn any_byte_changed_never_panics() {
        let bytes = describe::<tick::Owned>().expect("a struct");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 0xff;
            let _ = schema_name(&changed);
            let _ = check_schemas("t", &changed, &bytes);
        }
    }
}
