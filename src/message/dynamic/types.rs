//! What a stored schema says of the messages, prepared for those who read and build them.
//!
//! The stored form tells fields apart by ordinals and has dissolved their groups. Here the groups are objects again,
//! each field says where it lies in bits, and types are referred to by their place in a table. What a hostile schema
//! can still say, and no sound one does, is refused here: see [`Types::new`].
//!
//! Type parameters are bound while a message is walked, by a chain of [`Scope`]s on the stack, and never spelled out:
//! a generic type may contain itself with ever larger parameters, and would have no end.

use crate::error::{Error, ErrorKind, Result};
use crate::message::schema::{
    Binding as StoredBinding, Kind, Schema, Shape, Slot as Stored, Value,
};
use crate::message::FrameSegments;
use std::collections::{BTreeMap, HashMap};

use super::wire::Object;

/// How deep groups may be in groups.
const GROUPS_DEEP_MAX: usize = 64;

/// Words of a section of a struct at most: a pointer to it has 16 bits for them.
const SECTION_WORDS_MAX: u64 = 0xffff;

/// The structs and enums that messages are made of.
#[derive(Clone, Debug)]
pub struct Types {
    /// Of the messages.
    pub root: usize,
    pub structs: Vec<Struct>,
    pub enums: Vec<Enum>,
}

/// A struct.
#[derive(Clone, Debug)]
pub struct Struct {
    pub name: String,
    /// In the order of their ordinals; a group stands where its first field does.
    pub fields: Vec<Field>,
}

/// An enum.
#[derive(Clone, Debug)]
pub struct Enum {
    pub name: String,
    /// Its enumerants by value.
    pub names: Vec<String>,
}

/// A field of a struct or a group.
#[derive(Clone, Debug)]
pub struct Field {
    pub name: String,
    /// What selects it, if it is a member of a union.
    pub members: Vec<Member>,
    pub of: FieldKind,
}

/// Which value of which discriminant selects a member of a union.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Byte of the data section.
    pub at: u32,
    pub value: u16,
}

impl Member {
    /// Whether it is selected in a struct.
    #[inline]
    pub fn is_selected(self, object: &Object<'_>) -> bool {
        u16::from_le_bytes(object.data(self.at)) == self.value
    }
}

/// What a field is.
#[derive(Clone, Debug)]
pub enum FieldKind {
    Group(Vec<Field>),
    Slot(Slot),
}

/// A field with a value of its own.
#[derive(Clone, Debug)]
pub struct Slot {
    pub of: Type,
    /// The bit of the data section that it begins at, or its place among the pointers.
    pub at: u32,
    /// What its bits are compared with: what zeroes mean.
    pub bits: u64,
    /// What a null pointer means, if that is not nothing: bytes of a text or of data, otherwise a framed message.
    pub target: Option<Vec<u8>>,
}

/// A type.
#[derive(Clone, Debug)]
pub enum Type {
    Void,
    Bool,
    /// Of so many bits.
    Int(u8),
    /// Of so many bits.
    UInt(u8),
    Float32,
    Float64,
    Enum(usize),
    Text,
    Data,
    List(Box<Type>),
    Struct(usize, Vec<(u64, Binding)>),
    Parameter(u64, u16),
    /// A pointer to something that the schema does not describe, by the name of its type.
    Opaque(String),
}

/// What is bound to the type parameters of a scope.
#[derive(Clone, Debug)]
pub enum Binding {
    Inherit,
    Bind(Vec<Type>),
}

/// A type that is not a pointer.
#[derive(Clone, Copy, Debug)]
pub enum Scalar {
    Void,
    Bool,
    Int(u8),
    UInt(u8),
    Float32,
    Float64,
    Enum(usize),
}

impl Scalar {
    /// How many bits it has.
    #[inline]
    pub fn bits(self) -> u32 {
        match self {
            Self::Void => 0,
            Self::Bool => 1,
            Self::Int(bits) | Self::UInt(bits) => bits.into(),
            Self::Enum(_) => 16,
            Self::Float32 => 32,
            Self::Float64 => 64,
        }
    }

    /// Its bits at bit `at` of a struct whose zeroes mean `default`.
    #[inline]
    pub fn read(self, object: &Object<'_>, at: u32, default: u64) -> u64 {
        let found = match self.bits() {
            0 => 0,
            1 => u64::from(object.bit(at)),
            8 => u64::from(object.data::<1>(at / 8)[0]),
            16 => u64::from(u16::from_le_bytes(object.data(at / 8))),
            32 => u64::from(u32::from_le_bytes(object.data(at / 8))),
            _ => u64::from_le_bytes(object.data(at / 8)),
        };
        found ^ default
    }
}

/// `bits` bits of a number that may have a sign, as a signed number.
#[inline]
pub fn signed(value: u64, bits: u8) -> i64 {
    let unused = 64 - u32::from(bits);
    (value << unused) as i64 >> unused
}

impl Type {
    /// The type as one that is not a pointer.
    #[inline]
    pub fn scalar(&self) -> Option<Scalar> {
        Some(match *self {
            Self::Void => Scalar::Void,
            Self::Bool => Scalar::Bool,
            Self::Int(bits) => Scalar::Int(bits),
            Self::UInt(bits) => Scalar::UInt(bits),
            Self::Float32 => Scalar::Float32,
            Self::Float64 => Scalar::Float64,
            Self::Enum(index) => Scalar::Enum(index),
            _ => return None,
        })
    }
}

/// What type parameters mean at a place: what the type that it is in was given, and where that was said.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    bound: &'a [(u64, Binding)],
    outer: Option<&'a Scope<'a>>,
}

/// What a parameter is that nothing is bound to.
const UNBOUND: &Type = &Type::Opaque(String::new());

impl<'a> Scope<'a> {
    /// Where nothing is bound.
    pub const NONE: Scope<'static> = Scope { bound: &[], outer: None };

    /// Inside of a type that was named here with these parameters.
    pub fn inside(&'a self, bound: &'a [(u64, Binding)]) -> Scope<'a> {
        Scope { bound, outer: Some(self) }
    }

    /// What a type that is named here means, and where what it says of parameters does.
    pub fn resolve(&'a self, mut of: &'a Type) -> (&'a Type, &'a Scope<'a>) {
        let mut here = self;
        // Each round goes one scope outwards.
        while let Type::Parameter(scope, index) = *of {
            let binding = here.bound.iter().find(|(id, _)| *id == scope);
            let Some(outer) = here.outer else { return (UNBOUND, here) };
            of = match binding {
                Some((_, Binding::Inherit)) => of,
                Some((_, Binding::Bind(types))) => types.get(usize::from(index)).unwrap_or(UNBOUND),
                None => UNBOUND,
            };
            here = outer;
        }
        (of, here)
    }
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the schema of the topic is damaged: {what}"))
}

impl Types {
    /// Prepares a stored schema.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it has two fields of one name, a field outside of every struct, a default of another kind than its
    /// field, a type that no message contains, or groups without end.
    pub fn new(schema: &Schema) -> Result<Self> {
        let mut places = Places::default();
        let (mut structs, mut enums) = (Vec::new(), Vec::new());
        for (id, node) in schema.nodes() {
            match &node.kind {
                Kind::Struct(slots) => {
                    places.structs.insert(*id, structs.len());
                    structs.push((node.name.clone(), slots));
                }
                Kind::Enum(names) => {
                    places.enums.insert(*id, enums.len());
                    enums.push(Enum { name: node.name.clone(), names: names.clone() });
                }
                Kind::Other => {}
            }
        }
        let root = places.structs.get(&schema.root_id()).copied();
        let root = root.ok_or_else(|| damaged("its root is not a struct in it"))?;
        let prepare = |(name, slots): (String, &BTreeMap<u16, Stored>)| {
            let named = slots.values().map(|slot| (slot.name.as_str(), slot)).collect();
            let fields = places.fields(named, &[], 0);
            let fields = fields.map_err(|what| damaged(format!("in `{name}` {what}")))?;
            Ok(Struct { name, fields })
        };
        let structs = structs.into_iter().map(prepare).collect::<Result<_>>()?;
        Ok(Self { root, structs, enums })
    }

    /// A type as a person would write it, without its parameters.
    pub fn spell(&self, of: &Type) -> String {
        match of {
            Type::Void => "Void".into(),
            Type::Bool => "Bool".into(),
            Type::Int(bits) => format!("Int{bits}"),
            Type::UInt(bits) => format!("UInt{bits}"),
            Type::Float32 => "Float32".into(),
            Type::Float64 => "Float64".into(),
            Type::Enum(index) => format!("enum {}", self.enums[*index].name),
            Type::Text => "Text".into(),
            Type::Data => "Data".into(),
            Type::List(element) => format!("List({})", self.spell(element)),
            Type::Struct(index, _) => format!("struct {}", self.structs[*index].name),
            Type::Parameter(..) => "a type parameter".into(),
            Type::Opaque(name) if name.is_empty() => "AnyPointer".into(),
            Type::Opaque(name) => name.clone(),
        }
    }
}

/// Where the types are in their tables, by id.
#[derive(Default)]
struct Places {
    structs: HashMap<u64, usize>,
    enums: HashMap<u64, usize>,
}

type Named<'a> = Vec<(&'a str, &'a Stored)>;

/// What a name stands for: a slot, or the fields of a group.
enum Entry<'a> {
    Slot(&'a Stored),
    Group(Named<'a>),
}

impl Places {
    /// The fields of a struct, or of a group that `outer` selects.
    fn fields(
        &self,
        slots: Named<'_>,
        outer: &[Member],
        depth: usize,
    ) -> Result<Vec<Field>, String> {
        if depth > GROUPS_DEEP_MAX {
            return Err("groups are too deep".into());
        }
        let mut entries: Vec<(&str, Entry<'_>)> = Vec::new();
        let mut known: HashMap<&str, usize> = HashMap::new();
        for (path, slot) in slots {
            let (name, rest) = match path.split_once('.') {
                Some((name, rest)) => (name, Some(rest)),
                None => (path, None),
            };
            let place = known.get(name).map(|index| &mut entries[*index].1);
            match (place, rest) {
                (Some(Entry::Group(slots)), Some(rest)) => slots.push((rest, slot)),
                (Some(_), _) => return Err(format!("two fields are named `{name}`")),
                (None, rest) => {
                    known.insert(name, entries.len());
                    let entry =
                        rest.map_or(Entry::Slot(slot), |rest| Entry::Group(vec![(rest, slot)]));
                    entries.push((name, entry));
                }
            }
        }
        let field = |(name, entry): (&str, Entry<'_>)| {
            let all = entry.members();
            let members = all.iter().filter(|member| !outer.contains(member)).copied().collect();
            let of = match entry {
                Entry::Group(slots) => FieldKind::Group(self.fields(slots, &all, depth + 1)?),
                Entry::Slot(slot) => FieldKind::Slot(
                    self.slot(slot).map_err(|what| format!("the field `{}` {what}", slot.name))?,
                ),
            };
            Ok(Field { name: name.to_owned(), members, of })
        };
        entries.into_iter().map(field).collect()
    }

    fn slot(&self, slot: &Stored) -> Result<Slot, String> {
        let of = self.of(&slot.of)?;
        let (unit, units) = match of.scalar() {
            Some(scalar) => (scalar.bits(), SECTION_WORDS_MAX * 64),
            None => (1, SECTION_WORDS_MAX),
        };
        let outside = || "lies outside of every struct".to_owned();
        let at = u64::from(slot.offset) * u64::from(unit);
        if at + u64::from(unit) > units {
            return Err(outside());
        }
        if slot.unions.keys().any(|offset| u64::from(*offset) >= SECTION_WORDS_MAX * 4) {
            return Err(outside());
        }
        let (mut bits, mut target) = (0, None);
        match (&slot.default, of.scalar()) {
            (Value::Bits(value), Some(scalar)) => {
                // They were sign-extended.
                bits =
                    if scalar.bits() == 64 { *value } else { value & ((1 << scalar.bits()) - 1) };
            }
            // An interface has no other default.
            (Value::Bits(0), None) => {}
            (Value::Target(bytes), None) if bytes.is_empty() => {}
            (Value::Target(bytes), None) => target = target_of(&of, bytes),
            _ => return Err("has a default of another type".into()),
        }
        Ok(Slot { of, at: at as u32, bits, target })
    }

    fn of(&self, shape: &Shape) -> Result<Type, String> {
        Ok(match shape {
            Shape::Plain(name) => match *name {
                "Void" => Type::Void,
                "Bool" => Type::Bool,
                "Int8" => Type::Int(8),
                "Int16" => Type::Int(16),
                "Int32" => Type::Int(32),
                "Int64" => Type::Int(64),
                "UInt8" => Type::UInt(8),
                "UInt16" => Type::UInt(16),
                "UInt32" => Type::UInt(32),
                "UInt64" => Type::UInt(64),
                "Float32" => Type::Float32,
                "Float64" => Type::Float64,
                "Text" => Type::Text,
                "Data" => Type::Data,
                other => Type::Opaque(other.to_owned()),
            },
            Shape::List(element) => Type::List(Box::new(self.of(element)?)),
            Shape::Named(id, scopes) => match (self.structs.get(id), self.enums.get(id)) {
                (Some(index), _) => {
                    let scopes =
                        scopes.iter().map(|(id, binding)| Ok((*id, self.binding(binding)?)));
                    Type::Struct(*index, scopes.collect::<Result<_, String>>()?)
                }
                (None, Some(index)) => Type::Enum(*index),
                (None, None) => {
                    return Err(format!("has the type @{id:#x}, which no message contains"))
                }
            },
            Shape::Capability(_) => Type::Opaque("an interface".into()),
            Shape::Parameter(scope, index) => Type::Parameter(*scope, *index),
        })
    }

    fn binding(&self, binding: &StoredBinding) -> Result<Binding, String> {
        let of = |shape: &Option<Shape>| match shape {
            Some(shape) => self.of(shape),
            None => Ok(UNBOUND.clone()),
        };
        Ok(match binding {
            StoredBinding::Inherit => Binding::Inherit,
            StoredBinding::Bind(shapes) => {
                Binding::Bind(shapes.iter().map(of).collect::<Result<_, _>>()?)
            }
        })
    }
}

impl Entry<'_> {
    /// What selects it: what selects all of its slots. No union has only one member.
    fn members(&self) -> Vec<Member> {
        let of = |slot: &Stored| -> Vec<Member> {
            let unions = slot.unions.iter();
            unions
                .map(|(offset, value)| Member { at: offset.saturating_mul(2), value: *value })
                .collect()
        };
        match self {
            Self::Slot(slot) => of(slot),
            Self::Group(slots) => {
                let mut all = slots.first().map(|(_, slot)| of(slot)).unwrap_or_default();
                for (_, slot) in slots {
                    let theirs = of(slot);
                    all.retain(|member| theirs.contains(member));
                }
                all
            }
        }
    }
}

/// What a null pointer of a type means, which the schema has as bytes or as a message of one segment without its
/// table.
fn target_of(of: &Type, bytes: &[u8]) -> Option<Vec<u8>> {
    match of {
        Type::Text | Type::Data => Some(bytes.to_vec()),
        Type::List(_) | Type::Struct(..) => {
            let words = (bytes.len() / 8) as u32;
            Some([&[0; 4], &words.to_le_bytes(), bytes].concat())
        }
        _ => None,
    }
}

/// The struct whose first pointer leads to a default.
///
/// # Errors
///
/// If what the schema has there is no message.
pub fn default_holder(target: &[u8]) -> Result<Object<'_>, super::wire::Broken> {
    let segments =
        FrameSegments::parse_anywhere(target).map_err(|_| super::wire::Broken::Bounds)?;
    Object::holder(segments)
}
