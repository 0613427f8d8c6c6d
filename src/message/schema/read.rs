//! Reads a stored schema, which may be any bytes.
//!
//! The `capnp` crate checks every pointer; what it leaves to its user is checked here: how much is
//! read, how deep, and whether what one part of the schema says of another is so.

use super::{Binding, Kind, Node, Schema, Shape, Slot, Value};
use crate::limits::SCHEMA_BYTES_MAX;
use crate::message::{malformed, FrameSegments};
use capnp::message::{Builder, HeapAllocator, Reader, ReaderOptions};
use capnp::schema_capnp::{brand, code_generator_request, field, node, type_, value};
use capnp::{any_pointer, Word};
use std::collections::{BTreeMap, BTreeSet};

/// How deep types, and groups in groups, may nest.
const NESTING_MAX: i32 = 64;

/// How often a schema may be read over while it is parsed. A sound one is read about once; in a
/// hostile one many pointers share one target, which multiplies.
const TRAVERSALS_MAX: usize = 8;

/// Reads a schema and checks it.
pub(super) fn schema(bytes: &[u8]) -> capnp::Result<Schema> {
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(bad(format!("it has {} bytes", bytes.len())));
    }
    let mut words = Word::allocate_zeroed_vec(bytes.len().div_ceil(8));
    let copy = &mut Word::words_to_bytes_mut(&mut words)[..bytes.len()];
    copy.copy_from_slice(bytes);
    let segments = FrameSegments::parse(copy).map_err(malformed)?;
    let options = ReaderOptions {
        traversal_limit_in_words: Some(TRAVERSALS_MAX * bytes.len().div_ceil(8)),
        nesting_limit: NESTING_MAX,
    };
    let reader = Reader::new(segments, options);
    let request = reader.get_root::<code_generator_request::Reader<'_>>()?;
    let files = request.get_requested_files()?;
    let marker = files.try_get(0).ok_or_else(|| bad("it names no root type"))?;
    let mut protos = BTreeMap::new();
    for proto in request.get_nodes()?.iter() {
        if protos.insert(proto.get_id(), proto).is_some() {
            return Err(bad(format!("it has two nodes @{:#x}", proto.get_id())));
        }
    }
    let root_name = marker.get_filename()?.to_string()?;
    let mut schema = Schema { root: marker.get_id(), root_name, nodes: BTreeMap::new() };
    // A group belongs to one struct; finding it again means that groups contain each other.
    let mut groups = BTreeSet::new();
    for (id, proto) in &protos {
        if let Some(node) = read_node(*proto, &protos, &mut groups)? {
            schema.nodes.insert(*id, node);
        }
    }
    check(&schema)?;
    Ok(schema)
}

/// `I1`.
fn check(schema: &Schema) -> capnp::Result<()> {
    if !matches!(schema.nodes.get(&schema.root), Some(Node { kind: Kind::Struct(_), .. })) {
        return Err(bad("its root is not a struct in it"));
    }
    for node in schema.nodes.values() {
        let Kind::Struct(slots) = &node.kind else { continue };
        for slot in slots.values() {
            if let Some(id) = slot.of.named().filter(|id| !schema.nodes.contains_key(id)) {
                let (name, field) = (&node.name, &slot.name);
                return Err(bad(format!("the type @{id:#x} of {name}.{field} is not in it")));
            }
        }
    }
    Ok(())
}

fn bad(what: impl Into<String>) -> capnp::Error {
    capnp::Error::failed(what.into())
}

fn full_name(proto: node::Reader<'_>) -> capnp::Result<String> {
    Ok(proto.get_display_name()?.to_string()?)
}

type Protos<'a> = BTreeMap<u64, node::Reader<'a>>;

/// A node; none if it is a group, which its struct reads.
fn read_node(
    proto: node::Reader<'_>,
    protos: &Protos<'_>,
    groups: &mut BTreeSet<u64>,
) -> capnp::Result<Option<Node>> {
    let full = full_name(proto)?;
    let name = full.split_once(':').map_or(full.as_str(), |(_, name)| name).to_string();
    let kind = match proto.which()? {
        node::Struct(body) if body.get_is_group() => return Ok(None),
        node::Struct(_) => {
            let mut slots = BTreeMap::new();
            let within = Within { path: String::new(), unions: BTreeMap::new(), depth: 0 };
            read_fields(proto, &within, protos, groups, &mut slots)?;
            Kind::Struct(slots)
        }
        node::Enum(body) => {
            let names = body.get_enumerants()?.iter().map(|one| Ok(one.get_name()?.to_string()?));
            Kind::Enum(names.collect::<capnp::Result<_>>()?)
        }
        _ => Kind::Other,
    };
    Ok(Some(Node { name, kind }))
}

/// Where the fields of a struct or of a group in it are.
struct Within {
    path: String,
    unions: BTreeMap<u32, u16>,
    depth: i32,
}

/// `I2`: adds the slots of a struct, or of a group in it.
fn read_fields(
    proto: node::Reader<'_>,
    within: &Within,
    protos: &Protos<'_>,
    groups: &mut BTreeSet<u64>,
    slots: &mut BTreeMap<u16, Slot>,
) -> capnp::Result<()> {
    let node::Struct(body) = proto.which()? else { return Ok(()) };
    if within.depth > NESTING_MAX {
        return Err(bad("its groups are too deep"));
    }
    for field in body.get_fields()?.iter() {
        let name = format!("{}{}", within.path, field.get_name()?.to_str()?);
        let mut unions = within.unions.clone();
        if field.get_discriminant_value() != field::NO_DISCRIMINANT {
            unions.insert(body.get_discriminant_offset(), field.get_discriminant_value());
        }
        match field.which()? {
            field::Slot(slot) => {
                let field::ordinal::Explicit(ordinal) = field.get_ordinal().which()? else {
                    return Err(bad(format!("its field {name} has no ordinal")));
                };
                let slot = Slot {
                    of: read_shape(slot.get_type()?)?,
                    offset: slot.get_offset(),
                    default: read_value(slot.get_default_value()?)?,
                    unions,
                    name,
                };
                if slots.insert(ordinal, slot).is_some() {
                    return Err(bad(format!("it has two fields @{ordinal} in one struct")));
                }
            }
            field::Group(group) => {
                let id = group.get_type_id();
                let missing = || bad(format!("its group {name} is not in it"));
                let proto = protos.get(&id).ok_or_else(missing)?;
                if !matches!(proto.which()?, node::Struct(body) if body.get_is_group()) {
                    return Err(bad(format!("its group {name} is not one")));
                }
                if !groups.insert(id) {
                    return Err(bad(format!("its group {name} is in two places")));
                }
                let path = format!("{name}.");
                let within = Within { path, unions, depth: within.depth + 1 };
                read_fields(*proto, &within, protos, groups, slots)?;
            }
        }
    }
    Ok(())
}

fn read_shape(proto: type_::Reader<'_>) -> capnp::Result<Shape> {
    let plain = match proto.which()? {
        type_::Void(()) => "Void",
        type_::Bool(()) => "Bool",
        type_::Int8(()) => "Int8",
        type_::Int16(()) => "Int16",
        type_::Int32(()) => "Int32",
        type_::Int64(()) => "Int64",
        type_::Uint8(()) => "UInt8",
        type_::Uint16(()) => "UInt16",
        type_::Uint32(()) => "UInt32",
        type_::Uint64(()) => "UInt64",
        type_::Float32(()) => "Float32",
        type_::Float64(()) => "Float64",
        type_::Text(()) => "Text",
        type_::Data(()) => "Data",
        type_::List(list) => {
            return Ok(Shape::List(Box::new(read_shape(list.get_element_type()?)?)));
        }
        type_::Enum(of) => return Ok(Shape::Named(of.get_type_id(), read_brand(of.get_brand()?)?)),
        type_::Struct(of) => {
            return Ok(Shape::Named(of.get_type_id(), read_brand(of.get_brand()?)?));
        }
        type_::Interface(of) => return Ok(Shape::Capability(of.get_type_id())),
        type_::AnyPointer(any) => return read_any(any),
    };
    Ok(Shape::Plain(plain))
}

fn read_any(any: type_::any_pointer::Reader<'_>) -> capnp::Result<Shape> {
    use type_::any_pointer::{unconstrained, ImplicitMethodParameter, Parameter, Unconstrained};
    Ok(Shape::Plain(match any.which()? {
        Unconstrained(kind) => match kind.which()? {
            unconstrained::AnyKind(()) => "AnyPointer",
            unconstrained::Struct(()) => "AnyStruct",
            unconstrained::List(()) => "AnyList",
            unconstrained::Capability(()) => "Capability",
        },
        Parameter(of) => return Ok(Shape::Parameter(of.get_scope_id(), of.get_parameter_index())),
        ImplicitMethodParameter(_) => return Err(bad("it has a field of a method's type")),
    }))
}

fn read_brand(proto: brand::Reader<'_>) -> capnp::Result<Vec<(u64, Binding)>> {
    let mut scopes = Vec::new();
    for scope in proto.get_scopes()?.iter() {
        let binding = match scope.which()? {
            brand::scope::Inherit(()) => Binding::Inherit,
            brand::scope::Bind(list) => {
                let mut bound = Vec::new();
                for one in list?.iter() {
                    bound.push(match one.which()? {
                        brand::binding::Unbound(()) => None,
                        brand::binding::Type(of) => Some(read_shape(of?)?),
                    });
                }
                Binding::Bind(bound)
            }
        };
        scopes.push((scope.get_scope_id(), binding));
    }
    Ok(scopes)
}

fn read_value(proto: value::Reader<'_>) -> capnp::Result<Value> {
    // Signed values are sign-extended on both sides of every comparison.
    Ok(Value::Bits(match proto.which()? {
        value::Void(()) | value::Interface(()) => 0,
        value::Bool(value) => value.into(),
        value::Int8(value) => value as u64,
        value::Int16(value) => value as u64,
        value::Int32(value) => value as u64,
        value::Int64(value) => value as u64,
        value::Uint8(value) => value.into(),
        value::Uint16(value) | value::Enum(value) => value.into(),
        value::Uint32(value) => value.into(),
        value::Uint64(value) => value,
        value::Float32(value) => value.to_bits().into(),
        value::Float64(value) => value.to_bits(),
        value::Text(text) => return Ok(Value::Target(text?.as_bytes().to_vec())),
        value::Data(data) => return Ok(Value::Target(data?.to_vec())),
        value::List(target) | value::Struct(target) | value::AnyPointer(target) => {
            return Ok(Value::Target(canonical(target)?));
        }
    }))
}

/// What a pointer leads to, so that equal values are equal bytes, whichever version of their type
/// they were written with.
fn canonical(target: any_pointer::Reader<'_>) -> capnp::Result<Vec<u8>> {
    if target.is_null() {
        return Ok(Vec::new());
    }
    // A canonical message has one segment, which must be large enough from the start. It is never
    // larger than the original; and that is as large as the traversal limit at most, which reading
    // its size has just passed.
    let words = target.target_size()?.word_count + 1;
    let words = u32::try_from(words).map_err(|_| bad("it has an endless default"))?;
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(words));
    builder.set_root_canonical(target)?;
    Ok(builder.get_segments_for_output().concat())
}
