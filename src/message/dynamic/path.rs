//! One field of many messages: found by its name once, and then read without looking at names.
//!
//! A path is compiled to steps, each of which leads from one struct to the next, through a pointer or through all
//! elements of a list, after a look at the discriminants that select it. The groups of a struct are in the struct, so
//! they take no step. The last step reads a value.

mod values;

pub use values::FieldValues;

use crate::error::{Error, ErrorKind, Result};
use std::fmt;

use super::types::{
    default_holder, signed, Enum, Field, FieldKind, Member, Scalar, Scope, Slot, Struct, Type,
    Types,
};
use super::wire::{Broken, Object};
use super::{corrupt, unframed};

/// Names of a path at most. Deeper messages are not read either.
const NAMES_MAX: usize = 64;

/// A field of the messages of a topic; made by [`Schema::path`](super::Schema::path).
///
/// Reading it takes a few nanoseconds for each step and looks at no more of the message than what leads there. It
/// allocates only if it goes through lists.
///
/// # What is absent
///
/// A field has no value in a message if it is another member of its union that is selected, or if it is a pointer
/// that is null, or lies behind one, and the schema says no default for it. A number, a `Bool` or an enum that is not
/// set has its default, as always in Cap'n Proto.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use capnp::message::Builder;
/// use windlass::schemas::tick_capnp::tick;
/// use windlass::{FieldValue, Schema};
///
/// let mut builder = Builder::new_default();
/// builder.init_root::<tick::Builder>().set_symbol("ACME");
/// let payload = capnp::serialize::write_message_to_words(&builder);
///
/// let schema = Schema::of::<tick::Owned>()?;
/// let symbol = schema.path("symbol")?;
/// assert_eq!(symbol.get(&payload)?, Some(FieldValue::Text(b"ACME")));
/// let error = schema.path("sybmol").unwrap_err().to_string();
/// assert!(error.contains("it has symbol, price,"), "{error}");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct FieldPath {
    name: String,
    type_name: String,
    steps: Vec<Step>,
    leaf: Leaf,
    repeated: bool,
    /// The names of the values of an enum.
    names: Vec<String>,
}

/// A value in a message, borrowed from it.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum FieldValue<'a> {
    /// A `Void`, which says nothing, but may be selected in its union.
    Void,
    /// A `Bool`.
    Bool(bool),
    /// An integer with a sign, of any size.
    Int(i64),
    /// An integer without a sign, of any size.
    UInt(u64),
    /// A `Float32` or `Float64`.
    Float(f64),
    /// The value of an enum; [`FieldPath::enumerant`] knows its name.
    Enum(u16),
    /// A `Text`, without the zero byte that ends it in the message. It is UTF-8 if its writer kept to the rules.
    Text(&'a [u8]),
    /// A `Data`.
    Data(&'a [u8]),
}

/// From one struct to the next.
#[derive(Clone)]
struct Step {
    members: Vec<Member>,
    pointer: u16,
    target: Option<Vec<u8>>,
    /// Lists to go through: none for a struct, one for a list of structs, two for a list of lists of them.
    lists: u8,
}

/// From a struct to the value.
#[derive(Clone)]
struct Leaf {
    members: Vec<Member>,
    of: LeafKind,
    /// A bit of the data section, or a pointer.
    at: u32,
    bits: u64,
    target: Option<Vec<u8>>,
    /// Lists around it.
    lists: u8,
}

#[derive(Clone, Copy)]
enum LeafKind {
    Scalar(Scalar),
    Text,
    Data,
}

fn invalid(path: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Invalid, format!("there is no field `{path}` to read: {what}"))
}

/// The names of fields, for an error.
fn list(fields: &[Field]) -> String {
    match fields {
        [] => "no fields".into(),
        _ => fields.iter().map(|field| field.name.as_str()).collect::<Vec<_>>().join(", "),
    }
}

/// A path that is being resolved.
struct Resolving<'a> {
    types: &'a Types,
    type_name: &'a str,
    path: &'a str,
    steps: Vec<Step>,
    members: Vec<Member>,
}

pub(super) fn resolve(types: &Types, type_name: &str, path: &str) -> Result<FieldPath> {
    let names: Vec<&str> = path.split('.').collect();
    if names.len() > NAMES_MAX {
        return Err(invalid(
            path,
            format!("it has {} names, at most {NAMES_MAX} nest", names.len()),
        ));
    }
    let Struct { name, fields } = &types.structs[types.root];
    let resolving = Resolving { types, type_name, path, steps: Vec::new(), members: Vec::new() };
    resolving.struct_fields(&names, fields, &format!("struct {name}"), &Scope::NONE)
}

impl Resolving<'_> {
    /// Goes on among the fields of `what`, a struct or a group.
    fn struct_fields(
        mut self,
        names: &[&str],
        fields: &[Field],
        what: &str,
        scope: &Scope<'_>,
    ) -> Result<FieldPath> {
        let Some((name, rest)) = names.split_first() else {
            let fields = list(fields);
            return Err(invalid(
                self.path,
                format!("it is the whole {what}; name one of {fields}"),
            ));
        };
        let Some(field) = fields.iter().find(|field| field.name == *name) else {
            let fields = list(fields);
            return Err(invalid(self.path, format!("`{name}` is not in {what}; it has {fields}")));
        };
        self.members.extend(&field.members);
        match &field.of {
            FieldKind::Group(fields) => {
                self.struct_fields(rest, fields, &format!("group {name}"), scope)
            }
            FieldKind::Slot(slot) => self.slot(name, rest, slot, scope),
        }
    }

    fn slot(
        mut self,
        name: &str,
        rest: &[&str],
        slot: &Slot,
        scope: &Scope<'_>,
    ) -> Result<FieldPath> {
        let (mut of, mut scope) = scope.resolve(&slot.of);
        let mut lists = 0u8;
        while let Type::List(element) = of {
            (of, scope) = scope.resolve(element);
            lists = lists.saturating_add(1);
        }
        let of = match of {
            Type::Struct(index, bound) => {
                let Struct { name, fields } = &self.types.structs[*index];
                let (members, target) = (std::mem::take(&mut self.members), slot.target.clone());
                self.steps.push(Step { members, pointer: slot.at as u16, target, lists });
                let (what, inside) = (format!("struct {name}"), scope.inside(bound));
                return self.struct_fields(rest, fields, &what, &inside);
            }
            Type::Text => LeafKind::Text,
            Type::Data => LeafKind::Data,
            other => match other.scalar() {
                Some(scalar) => LeafKind::Scalar(scalar),
                None => {
                    let spelled = self.types.spell(other);
                    let text =
                        format!("`{name}` is {spelled}, and the schema does not say what is in it");
                    return Err(invalid(self.path, text));
                }
            },
        };
        if let Some(next) = rest.first() {
            let spelled = self.types.spell(&slot.of);
            let text = format!(
                "`{name}` is {spelled}, which has no fields, so there is no `{next}` in it"
            );
            return Err(invalid(self.path, text));
        }
        let names = match of {
            LeafKind::Scalar(Scalar::Enum(index)) => {
                let Enum { names, .. } = &self.types.enums[index];
                names.clone()
            }
            _ => Vec::new(),
        };
        let Slot { at, bits, ref target, .. } = *slot;
        let leaf = Leaf { members: self.members, of, at, bits, target: target.clone(), lists };
        let repeated = lists > 0 || self.steps.iter().any(|step| step.lists > 0);
        let (name, type_name) = (self.path.to_owned(), self.type_name.to_owned());
        Ok(FieldPath { name, type_name, steps: self.steps, leaf, repeated, names })
    }
}

/// Whether all of them are selected.
#[inline]
fn selected(members: &[Member], object: &Object<'_>) -> bool {
    members.iter().all(|member| member.is_selected(object))
}

/// The struct whose pointer `index` leads on; the default's if that is null; none if there is none.
#[inline]
fn holder<'a>(
    object: Object<'a>,
    index: u16,
    target: Option<&'a [u8]>,
) -> Result<Option<(Object<'a>, u16)>, Broken> {
    match target {
        _ if !object.is_null(index)? => Ok(Some((object, index))),
        Some(target) => Ok(Some((default_holder(target)?, 0))),
        None => Ok(None),
    }
}

impl Leaf {
    #[inline]
    fn read<'a>(&'a self, object: Object<'a>) -> Result<Option<FieldValue<'a>>, Broken> {
        if !selected(&self.members, &object) {
            return Ok(None);
        }
        match self.of {
            LeafKind::Scalar(scalar) => {
                Ok(Some(value_of(scalar, scalar.read(&object, self.at, self.bits))))
            }
            LeafKind::Text => match object.text(self.at as u16)? {
                Some(text) => Ok(Some(FieldValue::Text(text))),
                None => Ok(self.target.as_deref().map(FieldValue::Text)),
            },
            LeafKind::Data => match object.bytes(self.at as u16)? {
                Some(data) => Ok(Some(FieldValue::Data(data))),
                None => Ok(self.target.as_deref().map(FieldValue::Data)),
            },
        }
    }
}

#[inline]
fn value_of(scalar: Scalar, bits: u64) -> FieldValue<'static> {
    match scalar {
        Scalar::Void => FieldValue::Void,
        Scalar::Bool => FieldValue::Bool(bits != 0),
        Scalar::Int(size) => FieldValue::Int(signed(bits, size)),
        Scalar::UInt(_) => FieldValue::UInt(bits),
        Scalar::Float32 => FieldValue::Float(f32::from_bits(bits as u32).into()),
        Scalar::Float64 => FieldValue::Float(f64::from_bits(bits)),
        Scalar::Enum(_) => FieldValue::Enum(bits as u16),
    }
}

impl FieldPath {
    /// The path, as it was asked for.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it goes through a list, so that a message may have any number of values of it; see
    /// [`values`](Self::values).
    pub fn is_repeated(&self) -> bool {
        self.repeated
    }

    /// The name of a value of the enum that the field is; none if it is not an enum, or if a newer version of it has
    /// the value.
    pub fn enumerant(&self, value: u16) -> Option<&str> {
        self.names.get(usize::from(value)).map(String::as_str)
    }

    /// The value in a message; the first one if there are several. None if it is absent.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the payload is not a message, or what leads to the field is damaged.
    #[inline]
    pub fn get<'a>(&'a self, payload: &'a [u8]) -> Result<Option<FieldValue<'a>>> {
        if self.repeated {
            return self.values(payload)?.next().transpose();
        }
        let Ok(segments) = super::segments(payload) else { return Err(self.unframed(payload)) };
        match self.read(Object::root(segments)) {
            Ok(value) => Ok(value),
            Err(broken) => Err(self.broken(broken)),
        }
    }

    /// All values in a message, in their order.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the payload is not a message. The values themselves are errors if what leads to them is damaged;
    /// nothing follows an error.
    pub fn values<'a>(&'a self, payload: &'a [u8]) -> Result<FieldValues<'a>> {
        let segments = super::segments(payload).map_err(|_| self.unframed(payload))?;
        FieldValues::begin(self, segments, payload).map_err(|broken| self.broken(broken))
    }

    /// Follows a path without lists.
    #[inline]
    fn read<'a>(
        &'a self,
        root: Result<Object<'a>, Broken>,
    ) -> Result<Option<FieldValue<'a>>, Broken> {
        let mut object = root?;
        for step in &self.steps {
            if !selected(&step.members, &object) {
                return Ok(None);
            }
            let held = holder(object, step.pointer, step.target.as_deref())?;
            let Some((holder, index)) = held else { return Ok(None) };
            let Some(next) = holder.object(index)? else { return Ok(None) };
            object = next;
        }
        self.leaf.read(object)
    }

    #[cold]
    fn unframed(&self, payload: &[u8]) -> Error {
        unframed(&self.type_name, payload)
    }

    #[cold]
    fn broken(&self, broken: Broken) -> Error {
        corrupt(&self.type_name, format!("on the way to `{}` {broken}", self.name))
    }
}

impl fmt::Debug for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FieldPath").field(&self.name).finish()
    }
}
