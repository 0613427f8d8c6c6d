//! The schema that a topic stores: every type that its messages are made of.
//!
//! It is stored as a `CodeGeneratorRequest`, the form in which the tools of Cap'n Proto exchange
//! schemas, so that every tool can tell what is in any message with no `.capnp` file at hand. The
//! one requested file of it is a marker: its id is that of the root type, its name the full name of
//! that type.
//!
//! [`describe`] writes it from the generated code of a type. [`Schema::parse`] reads it back, from
//! bytes that anybody may have written, into plain values: what is missing, doubled or endless in
//! them is an error here and nowhere later.
//!
//! # Invariants of a [`Schema`]
//!
//! * `I1` — It has a node for every struct and enum that a slot or an element of a list names, and
//!   for its root.
//! * `I2` — A struct has its groups and unions dissolved: all its slots are its own, told apart by
//!   their ordinals, which a field keeps for life, whatever it is renamed to or moved into.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::SCHEMA_BYTES_MAX;
use capnp::introspect::{Introspect, TypeVariant};
use capnp::message::{Builder, HeapAllocator};
use capnp::schema::{EnumSchema, StructSchema};
use capnp::schema_capnp::{code_generator_request, node};
use std::collections::{BTreeMap, HashSet};

mod read;

/// The schema of `T`, as a topic stores it. The same type gives the same bytes.
///
/// # Errors
///
/// `Invalid` if `T` is not a struct, takes type parameters, or is described by more than
/// `SCHEMA_BYTES_MAX` bytes.
pub fn describe<T: Introspect>() -> Result<Vec<u8>> {
    let TypeVariant::Struct(root) = T::introspect().which() else {
        return Err(unusable("a type that is not a struct"));
    };
    let root = StructSchema::new(root).get_proto();
    let bytes = collect::<T>().and_then(|nodes| write(root, &nodes));
    let bytes = bytes.map_err(|error| unusable(&format!("a type with damaged code: {error}")))?;
    if root.get_is_generic() {
        let name = root.get_display_name().ok().and_then(|name| name.to_str().ok()).unwrap_or("it");
        return Err(unusable(&format!(
            "{name}, which takes type parameters: put it into a struct that says which"
        )));
    }
    if bytes.len() > SCHEMA_BYTES_MAX {
        return Err(unusable(&format!(
            "a type whose schema has {} bytes; the most is {SCHEMA_BYTES_MAX}",
            bytes.len()
        )));
    }
    Ok(bytes)
}

fn unusable(what: &str) -> Error {
    Error::new(ErrorKind::Invalid, format!("a topic cannot carry {what}"))
}

type Nodes = BTreeMap<u64, node::Reader<'static>>;

/// The nodes of a type and of everything that it refers to, by id.
fn collect<T: Introspect>() -> capnp::Result<Nodes> {
    let mut nodes = Nodes::new();
    // One generic struct is one node, but leads to other nodes with other parameters.
    let mut seen = HashSet::new();
    let mut open = vec![T::introspect()];
    while let Some(next) = open.pop() {
        match next.which() {
            TypeVariant::List(element) => open.push(element),
            TypeVariant::Enum(raw) => {
                let proto = EnumSchema::new(raw).get_proto();
                nodes.insert(proto.get_id(), proto);
            }
            TypeVariant::Struct(raw) if seen.insert(raw) => {
                let schema = StructSchema::new(raw);
                nodes.insert(schema.get_proto().get_id(), schema.get_proto());
                open.extend(schema.get_fields()?.iter().map(|field| field.get_type()));
            }
            _ => {}
        }
    }
    Ok(nodes)
}

fn write(root: node::Reader<'_>, nodes: &Nodes) -> capnp::Result<Vec<u8>> {
    // Enough that the message has one segment, like every other message of windlass.
    let mut words = 64 + root.get_display_name()?.len() as u64;
    for node in nodes.values() {
        words += node.total_size()?.word_count + 1;
    }
    let words = u32::try_from(words).unwrap_or(u32::MAX).min(1 << 24);
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(words));
    let mut request = builder.init_root::<code_generator_request::Builder<'_>>();
    let mut list = request.reborrow().init_nodes(nodes.len() as u32);
    for (index, proto) in nodes.values().enumerate() {
        list.set_with_caveats(index as u32, *proto)?;
    }
    let mut marker = request.init_requested_files(1).get(0);
    marker.set_id(root.get_id());
    marker.set_filename(root.get_display_name()?);
    Ok(capnp::serialize::write_message_to_words(&builder))
}

/// A schema, read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schema {
    root: u64,
    root_name: String,
    nodes: BTreeMap<u64, Node>,
}

/// A struct or an enum.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name in its file: `Tick`, or `Tick.Venue`.
    pub name: String,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A struct: its slots by ordinal.
    Struct(BTreeMap<u16, Slot>),
    /// An enum: the names of its enumerants, by value.
    Enum(Vec<String>),
    /// Something that no message contains: a file, an interface, a constant, an annotation.
    Other,
}

/// A field that holds a value: one that is not a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Its name, behind those of its groups: `center.x`.
    pub name: String,
    /// Its type.
    pub of: Shape,
    /// Where it lies in its section, in units of its size.
    pub offset: u32,
    /// What it is when it is not set.
    pub default: Value,
    /// The unions that it, or a group that it is in, is a member of: which value at which
    /// discriminant selects it.
    pub unions: BTreeMap<u32, u16>,
}

/// A type as a field has it. Equal if and only if what lies in messages means the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A type of the language, by its name there.
    Plain(&'static str),
    /// A list of this.
    List(Box<Shape>),
    /// An enum or a struct by its id, with what is bound to the type parameters of its scopes.
    Named(u64, Vec<(u64, Binding)>),
    /// An interface by its id.
    Capability(u64),
    /// The type parameter of this number of this scope.
    Parameter(u64, u16),
}

/// What is bound to the type parameters of a scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Binding {
    /// What they are bound to where the type is used.
    Inherit,
    /// These types; one that is missing is any pointer.
    Bind(Vec<Option<Shape>>),
}

/// A default value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of a scalar: its bits.
    Bits(u64),
    /// Of anything behind a pointer: the canonical form of what it points at. Empty if there is
    /// nothing.
    Target(Vec<u8>),
}

impl Schema {
    /// Reads a schema that [`describe`] wrote, or that somebody claims it did.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not a schema, or breaks an invariant of one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        read::schema(bytes).map_err(|error| {
            Error::new(ErrorKind::Corrupt, format!("the schema of the topic is damaged: {error}"))
        })
    }

    /// The id of the type of the messages.
    pub fn root_id(&self) -> u64 {
        self.root
    }

    /// The full name of the type of the messages: `tick.capnp:Tick`.
    pub fn root_name(&self) -> &str {
        &self.root_name
    }

    /// The structs and enums that messages are made of, by id. Groups are dissolved in their
    /// structs.
    pub fn nodes(&self) -> &BTreeMap<u64, Node> {
        &self.nodes
    }

    /// A type as a person would write it.
    pub fn spell(&self, shape: &Shape) -> String {
        match shape {
            Shape::Plain(name) => (*name).into(),
            Shape::List(element) => format!("List({})", self.spell(element)),
            Shape::Named(id, scopes) => {
                let name = self.nodes.get(id).map(|node| node.name.clone());
                let name = name.unwrap_or_else(|| format!("@{id:#x}"));
                let spell = |bound: &Option<Shape>| {
                    bound.as_ref().map_or_else(|| "AnyPointer".into(), |shape| self.spell(shape))
                };
                let bound = scopes.iter().flat_map(|(_, binding)| match binding {
                    Binding::Inherit => Vec::new(),
                    Binding::Bind(bound) => bound.iter().map(spell).collect(),
                });
                let bound = bound.collect::<Vec<_>>().join(", ");
                if bound.is_empty() {
                    name
                } else {
                    format!("{name}({bound})")
                }
            }
            Shape::Capability(id) => format!("interface @{id:#x}"),
            Shape::Parameter(scope, index) => format!("parameter {index} of @{scope:#x}"),
        }
    }
}

impl Shape {
    /// The id of the struct or enum that a value of this type is, or is a list of.
    fn named(&self) -> Option<u64> {
        match self {
            Self::List(element) => element.named(),
            Self::Named(id, _) => Some(*id),
            Self::Plain(_) | Self::Capability(_) | Self::Parameter(..) => None,
        }
    }
}

/// The full name of the root type of a stored schema: `tick.capnp:Tick`.
///
/// # Errors
///
/// `Corrupt` if it is damaged.
pub fn schema_name(bytes: &[u8]) -> Result<String> {
    Ok(Schema::parse(bytes)?.root_name)
}

#[cfg(test)]
impl Schema {
    /// The schema with its root made something else.
    pub fn with_root_kind(mut self, kind: Kind) -> Self {
        self.nodes.get_mut(&self.root).expect("the root is there").kind = kind;
        self
    }

    /// The schema with the slots of its root edited.
    pub fn with_root_slots(self, edit: impl FnOnce(&mut BTreeMap<u16, Slot>)) -> Self {
        let Kind::Struct(mut slots) = self.nodes[&self.root].kind.clone() else {
            panic!("the root is a struct");
        };
        edit(&mut slots);
        self.with_root_kind(Kind::Struct(slots))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{
        generic_capnp, shape_v1_capnp, shape_v2_capnp, tick_v1_capnp, tick_v2_capnp,
    };

    fn parsed<T: Introspect>() -> Schema {
        Schema::parse(&describe::<T>().expect("a struct without parameters")).expect("sound")
    }

    fn slots<'a>(schema: &'a Schema, name: &str) -> &'a BTreeMap<u16, Slot> {
        let node = schema.nodes().values().find(|node| node.name == name).expect("a node");
        let Kind::Struct(slots) = &node.kind else { panic!("{name} is not a struct") };
        slots
    }

    #[test]
    fn a_schema_names_its_root_and_holds_what_it_refers_to() {
        let schema = parsed::<tick_v2_capnp::tick::Owned>();
        assert_eq!(schema.root_id(), 0xf3c5_d8e7_a9b0_6142);
        assert_eq!(schema.root_name(), "tick_v2.capnp:Tick");
        let names: Vec<_> = schema.nodes().values().map(|node| node.name.as_str()).collect();
        assert_eq!(names, ["Venue", "Tick"]);
        let venue = &schema.nodes()[&0x8d3f_5ab7_c2e4_1906].kind;
        assert_eq!(*venue, Kind::Enum(["unknown", "primary", "dark"].map(String::from).to_vec()));
        let spelled: Vec<_> =
            slots(&schema, "Tick").values().map(|s| schema.spell(&s.of)).collect();
        assert_eq!(spelled, ["Text", "Float64", "UInt32", "Venue", "UInt64"]);
    }

    #[test]
    fn the_same_type_gives_the_same_bytes_in_one_segment() {
        let bytes = describe::<shape_v1_capnp::shape::Owned>().expect("a struct");
        assert_eq!(bytes, describe::<shape_v1_capnp::shape::Owned>().expect("a struct"));
        assert_eq!(bytes[..4], [0; 4], "one segment");
        assert_eq!(
            u32::from_le_bytes(bytes[4..8].try_into().expect("four")) as usize,
            bytes.len() / 8 - 1
        );
    }

    #[test]
    fn groups_and_unions_are_dissolved() {
        let schema = parsed::<shape_v2_capnp::shape::Owned>();
        let slots = slots(&schema, "Shape");
        let names: Vec<_> = slots.values().map(|slot| slot.name.as_str()).collect();
        let expected = [
            "number",
            "name",
            "center.x",
            "center.y",
            "dot",
            "radius",
            "corners",
            "bounds",
            "label",
            "parent",
            "anchors",
            "more",
            "grid",
            "load.weight",
            "load.force",
            "path",
        ];
        assert_eq!(names, expected);
        let values = [4, 5, 6, 13, 14, 15].map(|ordinal| slots[&ordinal].unions.values().collect());
        let [dot, radius, corners, weight, force, path]: [Vec<&u16>; 6] = values;
        assert_eq!([dot, radius, corners, path], [[&0], [&1], [&2], [&3]]);
        assert_eq!([weight, force], [[&0], [&1]]);
        assert!(slots[&13].unions.keys().ne(slots[&4].unions.keys()), "two discriminants");
    }

    #[test]
    fn parameters_are_bound_where_a_generic_type_is_used() {
        let schema = parsed::<shape_v1_capnp::shape::Owned>();
        let slots = slots(&schema, "Shape");
        let [bounds, label, grid] = [7, 8, 12].map(|ordinal| schema.spell(&slots[&ordinal].of));
        assert_eq!(bounds, "Pair(Point, Point)");
        assert_eq!(label, "Pair(Text, Data)");
        assert_eq!(grid, "List(List(UInt16))");
        assert!(schema.nodes().values().any(|node| node.name == "Point"));
    }

    #[test]
    fn types_are_found_through_every_binding_of_a_parameter() {
        let schema = parsed::<generic_capnp::holder::Owned>();
        let mut names: Vec<_> = schema.nodes().values().map(|node| node.name.as_str()).collect();
        names.sort_unstable();
        assert_eq!(names, ["Box", "Holder", "Left", "Right"]);
        let slots = slots(&schema, "Holder");
        assert_eq!(schema.spell(&slots[&2].of), "List(Box(Box(Left)))");
    }

    /// A schema of a struct and `groups` groups, each of which has one field: the group that `next`
    /// says.
    fn nested(groups: u64, next: impl Fn(u64) -> u64) -> String {
        let mut builder = Builder::new(HeapAllocator::new());
        let mut request = builder.init_root::<code_generator_request::Builder<'_>>();
        request.reborrow().init_requested_files(1).get(0).set_id(0);
        let mut nodes = request.init_nodes(groups as u32 + 1);
        for index in 0..=groups {
            let mut node = nodes.reborrow().get(index as u32);
            node.set_id(index);
            let mut body = node.init_struct();
            body.set_is_group(index > 0);
            if next(index) <= groups {
                body.init_fields(1).get(0).init_group().set_type_id(next(index));
            }
        }
        let bytes = capnp::serialize::write_message_to_words(&builder);
        Schema::parse(&bytes).map_or_else(|error| error.to_string(), |_| "sound".into())
    }

    #[test]
    fn groups_that_contain_each_other_or_go_too_deep_are_corrupt() {
        assert_eq!(nested(60, |index| index + 1), "sound");
        assert!(nested(2, |index| index % 2 + 1).contains("is in two places"));
        assert!(nested(5000, |index| index + 1).contains("too deep"));
        assert!(nested(0, |_| 0).contains("is not one"), "a struct is no group of itself");
    }

    #[test]
    fn types_that_no_topic_can_carry_are_refused_with_a_reason() {
        type Pair = shape_v1_capnp::pair::Owned<capnp::text::Owned, capnp::data::Owned>;
        let error = describe::<Pair>().expect_err("takes parameters");
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(
            error.to_string().contains("shape_v1.capnp:Pair, which takes type parameters"),
            "{error}"
        );
        let error = describe::<capnp::text::Owned>().expect_err("not a struct");
        assert!(error.to_string().contains("not a struct"), "{error}");
    }

    #[test]
    fn a_type_that_is_as_large_as_they_get_is_read_within_its_limits() {
        let schema = parsed::<capnp::schema_capnp::code_generator_request::Owned>();
        assert_eq!(slots(&schema, "Node").len(), 34);
        assert!(schema.nodes().len() >= 15);
    }

    #[test]
    fn a_schema_without_a_root_or_a_node_is_corrupt() {
        for lost in [0xf3c5_d8e7_a9b0_6142, 0x8d3f_5ab7_c2e4_1906] {
            let mut nodes = collect::<tick_v1_capnp::tick::Owned>().expect("sound");
            let root = nodes[&0xf3c5_d8e7_a9b0_6142];
            nodes.remove(&lost);
            let error =
                Schema::parse(&write(root, &nodes).expect("written")).expect_err("incomplete");
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            assert!(
                error.to_string().contains("not in it") || error.to_string().contains("its root")
            );
        }
    }

    #[test]
    fn bytes_that_anybody_wrote_never_panic() {
        let sound = describe::<shape_v2_capnp::shape::Owned>().expect("a struct");
        for len in 0..sound.len() {
            assert!(Schema::parse(&sound[..len]).is_err(), "cut to {len}");
        }
        let (mut state, mut corrupt) = (0x9e37_79b9_7f4a_7c15u64, 0);
        let mut random = move |below: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % below as u64) as usize
        };
        for _ in 0..20_000 {
            let mut bytes = sound.clone();
            for _ in 0..=random(4) {
                let at = random(bytes.len());
                bytes[at] =
                    [0, 1, 0xff, bytes[at] ^ (1 << random(8)), random(256) as u8][random(5)];
            }
            match Schema::parse(&bytes) {
                Ok(schema) => schema.nodes().values().for_each(|node| drop(node.name.clone())),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt);
                    corrupt += 1;
                }
            }
        }
        assert!(corrupt > 1_000, "the mutations reach something: {corrupt}");
    }
}
