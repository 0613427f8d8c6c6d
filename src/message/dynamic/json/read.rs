//! A message built from JSON, in the canonical form of Cap'n Proto: one segment, objects in the order in which a walk
//! meets them, and sections without the zeroes at their end.
//!
//! A struct is built in two steps. First its [`Shell`] is made: its data section, and which JSON belongs to which of
//! its pointers. That tells how large it is, for the elements of a list before the first of them is placed. Then its
//! words are placed, and the pointers are followed one after the other.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::SEGMENT_BYTES_MAX;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Write as _;

use super::super::types::{Field, FieldKind, Scope, Slot, Struct, Type, Types};
use super::super::Schema;
use super::value::{data, scalar as scalar_bits, text, wrong, Built};

/// How many pointers deep a message may be, the root included: deeper ones are not read.
const NESTING_MAX: usize = 64;

/// Words of a message at most: no segment of a topic takes a larger one.
const WORDS_MAX: usize = (SEGMENT_BYTES_MAX / 8) as usize;

/// A pointer to a struct of no words: a zero would be null.
const EMPTY_STRUCT: u64 = 0xffff_fffc;

/// Builds a message.
pub(super) fn message(schema: &Schema, value: &Value) -> Result<Vec<u8>> {
    let types = &schema.inner.types;
    let mut building = Building { types, words: vec![0], path: Vec::new(), depth: 0 };
    building.root(value).map_err(|what| building.error(schema.type_name(), &what))?;
    let words = &building.words;
    let table = [0, words.len() as u32].into_iter().flat_map(u32::to_le_bytes);
    Ok(table.chain(words.iter().flat_map(|word| word.to_le_bytes())).collect())
}

/// A message that is built.
struct Building<'a> {
    types: &'a Types,
    words: Vec<u64>,
    /// Where in the JSON it is. After an error: where that is.
    path: Vec<Place<'a>>,
    /// How many pointers were followed.
    depth: usize,
}

/// A step down.
enum Place<'a> {
    Field(Cow<'a, str>),
    Element(usize),
}

/// What is to be placed for a struct.
#[derive(Default)]
struct Shell<'a> {
    data: Vec<u64>,
    /// By pointer: the field, its name in the struct, and what was given for it.
    pointers: Vec<Option<(&'a Slot, String, &'a Value)>>,
}

impl<'a> Building<'a> {
    #[cold]
    fn error(&self, name: &str, what: &str) -> Error {
        let mut path = String::new();
        for place in &self.path {
            let dot = if path.is_empty() { "" } else { "." };
            let written = match place {
                Place::Field(name) => write!(path, "{dot}{name}"),
                Place::Element(index) => write!(path, "[{index}]"),
            };
            written.expect("a string takes everything");
        }
        let at = if path.is_empty() { "the whole".to_owned() } else { format!("`{path}`") };
        Error::new(ErrorKind::Invalid, format!("a message of {name} cannot be built: {at} {what}"))
    }

    /// Does something one step down.
    fn at<T>(&mut self, place: Place<'a>, what: impl FnOnce(&mut Self) -> Built<T>) -> Built<T> {
        self.path.push(place);
        let done = what(self)?;
        self.path.pop();
        Ok(done)
    }

    /// Counts a level.
    fn deeper(&mut self) -> Built<()> {
        self.depth += 1;
        if self.depth > NESTING_MAX {
            return Err(format!("is more than {NESTING_MAX} levels deep; no reader would follow"));
        }
        Ok(())
    }

    /// Makes room for words at the end; where they begin.
    fn room(&mut self, words: usize) -> Built<usize> {
        let at = self.words.len();
        if words > WORDS_MAX - at.min(WORDS_MAX) {
            return Err(format!(
                "makes the message larger than {SEGMENT_BYTES_MAX} bytes, which no topic takes"
            ));
        }
        self.words.resize(at + words, 0);
        Ok(at)
    }

    /// Writes a pointer at word `at` to what begins at word `to`.
    fn point(&mut self, at: usize, to: usize, rest: u64) {
        // Objects lie behind the pointers that lead to them.
        self.words[at] = ((to - at - 1) as u64) << 2 | rest;
    }

    fn root(&mut self, value: &'a Value) -> Built<()> {
        let Struct { name, fields } = &self.types.structs[self.types.root];
        let Value::Object(map) = value else {
            return Err(wrong(value, format!("an object: {name}")));
        };
        self.depth = 1;
        let mut shell = self.shell(fields, name, map)?;
        if shell.data.is_empty() && shell.pointers.is_empty() {
            // The tools of Cap'n Proto do not take a root of no words for one.
            shell.data.push(0);
        }
        self.place(0, shell, &Scope::NONE)
    }

    /// Makes the shell of a struct of this name.
    fn shell(
        &mut self,
        fields: &'a [Field],
        name: &'a str,
        map: &'a Map<String, Value>,
    ) -> Built<Shell<'a>> {
        let mut shell = Shell::default();
        let mut chosen = HashMap::new();
        self.fill(&mut shell, &mut chosen, fields, name, "", map)?;
        Ok(shell)
    }

    /// Puts what was given for the fields of a struct or a group into its shell.
    fn fill(
        &mut self,
        shell: &mut Shell<'a>,
        chosen: &mut HashMap<u32, &'a str>,
        fields: &'a [Field],
        name: &str,
        group: &str,
        map: &'a Map<String, Value>,
    ) -> Built<()> {
        let unknown = |key: &&String| fields.iter().all(|field| field.name != **key);
        if let Some(key) = map.keys().find(unknown) {
            let known: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            self.path.push(Place::Field(key.as_str().into()));
            return Err(format!("is not in {name}, which has {}", known.join(", ")));
        }
        for field in fields {
            let Some(value) = map.get(&field.name) else { continue };
            self.at(Place::Field(field.name.as_str().into()), |building| {
                building.field(shell, chosen, field, group, value)
            })?;
        }
        Ok(())
    }

    fn field(
        &mut self,
        shell: &mut Shell<'a>,
        chosen: &mut HashMap<u32, &'a str>,
        field: &'a Field,
        group: &str,
        value: &'a Value,
    ) -> Built<()> {
        for member in &field.members {
            if let Some(other) = chosen.insert(member.at, &field.name) {
                return Err(format!("and `{other}` are members of one union: give one of them"));
            }
            shell.set(member.at * 8, member.value.into(), 16);
        }
        let full = format!("{group}{}", field.name);
        match &field.of {
            FieldKind::Group(fields) => {
                let Value::Object(map) = value else {
                    return Err(wrong(value, "an object: a group"));
                };
                self.fill(
                    shell,
                    chosen,
                    fields,
                    &format!("group {}", field.name),
                    &format!("{full}."),
                    map,
                )
            }
            FieldKind::Slot(slot) => match slot.of.scalar() {
                Some(scalar) => {
                    let bits = scalar_bits(self.types, scalar, value)?;
                    shell.set(slot.at, bits ^ slot.bits, scalar.bits());
                    Ok(())
                }
                None if value.is_null() => Ok(()),
                None => {
                    shell.pointer(slot.at as usize, (slot, full, value));
                    Ok(())
                }
            },
        }
    }

    /// Places a struct and everything behind it, and makes the pointer at word `at` lead there.
    fn place(&mut self, at: usize, shell: Shell<'a>, scope: &Scope<'_>) -> Built<()> {
        let (data, pointers) = (shell.data.len(), shell.pointers.len());
        if data + pointers == 0 {
            self.words[at] = EMPTY_STRUCT;
            return Ok(());
        }
        let to = self.room(data + pointers)?;
        self.point(at, to, (data as u64) << 32 | (pointers as u64) << 48);
        self.place_at(to, data, shell, scope)
    }

    /// Places a struct at word `to`, with its pointers behind `data` words.
    fn place_at(
        &mut self,
        to: usize,
        data: usize,
        shell: Shell<'a>,
        scope: &Scope<'_>,
    ) -> Built<()> {
        self.words[to..to + shell.data.len()].copy_from_slice(&shell.data);
        for (index, pointer) in shell.pointers.into_iter().enumerate() {
            let Some((slot, name, value)) = pointer else { continue };
            let at = to + data + index;
            self.at(Place::Field(name.into()), |building| {
                building.pointed(at, &slot.of, scope, value)
            })?;
        }
        Ok(())
    }

    /// Places what a pointer at word `at` leads to.
    fn pointed(&mut self, at: usize, of: &Type, scope: &Scope<'_>, value: &'a Value) -> Built<()> {
        self.deeper()?;
        let (of, scope) = scope.resolve(of);
        match of {
            Type::Text => {
                let mut text = text(value)?.into_owned();
                text.push(0);
                self.bytes(at, &text)?;
            }
            Type::Data => self.bytes(at, &data(value)?)?,
            Type::List(element) => {
                let Value::Array(values) = value else {
                    let expected = format!("a list: {}", self.types.spell(of));
                    return Err(wrong(value, expected));
                };
                let (element, scope) = scope.resolve(element);
                self.list(at, element, scope, values)?;
            }
            Type::Struct(index, bound) => {
                let Struct { name, fields } = &self.types.structs[*index];
                let Value::Object(map) = value else {
                    return Err(wrong(value, format!("an object: {name}")));
                };
                let shell = self.shell(fields, name, map)?;
                self.place(at, shell, &scope.inside(bound))?;
            }
            // A null is no value, and that is all that is known of it.
            other if !value.is_null() => {
                let expected = format!(
                    "null: it is {}, of which the schema does not say what is in it",
                    self.types.spell(other)
                );
                return Err(wrong(value, expected));
            }
            _ => {}
        }
        self.depth -= 1;
        Ok(())
    }

    fn bytes(&mut self, at: usize, bytes: &[u8]) -> Built<()> {
        let to = self.room(bytes.len().div_ceil(8))?;
        for (word, chunk) in self.words[to..].iter_mut().zip(bytes.chunks(8)) {
            let mut whole = [0; 8];
            whole[..chunk.len()].copy_from_slice(chunk);
            *word = u64::from_le_bytes(whole);
        }
        let count = count(bytes.len())?;
        self.point(at, to, 1 | 2 << 32 | count << 35);
        Ok(())
    }

    fn list(&mut self, at: usize, of: &Type, scope: &Scope<'_>, values: &'a [Value]) -> Built<()> {
        let length = count(values.len())?;
        if let Some(scalar) = of.scalar() {
            let bits = scalar.bits();
            let to = self.room((values.len() * bits as usize).div_ceil(64))?;
            for (index, value) in values.iter().enumerate() {
                let found = self.at(Place::Element(index), |building| {
                    scalar_bits(building.types, scalar, value)
                })?;
                let bit = index * bits as usize;
                if bits > 0 {
                    self.words[to + bit / 64] |= found << (bit % 64);
                }
            }
            let size = match bits {
                0 | 1 => u64::from(bits),
                _ => u64::from(bits.ilog2()) - 1,
            };
            self.point(at, to, 1 | size << 32 | length << 35);
            return Ok(());
        }
        if let Type::Struct(index, bound) = of {
            return self.structs(at, *index, &scope.inside(bound), values);
        }
        let to = self.room(values.len())?;
        self.point(at, to, 1 | 6 << 32 | length << 35);
        for (index, value) in values.iter().enumerate() {
            self.at(Place::Element(index), |building| {
                building.pointed(to + index, of, scope, value)
            })?;
        }
        Ok(())
    }

    fn structs(
        &mut self,
        at: usize,
        index: usize,
        scope: &Scope<'_>,
        values: &'a [Value],
    ) -> Built<()> {
        let Struct { name, fields } = &self.types.structs[index];
        let mut shells = Vec::with_capacity(values.len());
        for (index, value) in values.iter().enumerate() {
            let Value::Object(map) = value else {
                self.path.push(Place::Element(index));
                return Err(wrong(value, format!("an object: {name}")));
            };
            shells.push(
                self.at(Place::Element(index), |building| building.shell(fields, name, map))?,
            );
        }
        let data = shells.iter().map(|shell| shell.data.len()).max().unwrap_or(0);
        let pointers = shells.iter().map(|shell| shell.pointers.len()).max().unwrap_or(0);
        let words = shells.len().saturating_mul(data + pointers);
        let to = self.room(words.saturating_add(1))?;
        // A word says what the elements are, and the pointer how many words there are behind it.
        self.words[to] = count(shells.len())? << 2 | (data as u64) << 32 | (pointers as u64) << 48;
        self.point(at, to, 1 | 7 << 32 | count(words)? << 35);
        // Readers count the elements as a level of their own.
        self.deeper()?;
        for (index, shell) in shells.into_iter().enumerate() {
            let to = to + 1 + index * (data + pointers);
            self.at(Place::Element(index), |building| building.place_at(to, data, shell, scope))?;
        }
        self.depth -= 1;
        Ok(())
    }
}

impl<'a> Shell<'a> {
    /// Sets `count` bits at bit `at` of the data section, which is as long as the last of them that is not zero needs.
    fn set(&mut self, at: u32, bits: u64, count: u32) {
        let word = at as usize / 64;
        if bits == 0 || count == 0 {
            return;
        }
        if self.data.len() <= word {
            self.data.resize(word + 1, 0);
        }
        self.data[word] |= bits << (at % 64);
    }

    fn pointer(&mut self, index: usize, what: (&'a Slot, String, &'a Value)) {
        if self.pointers.len() <= index {
            self.pointers.resize_with(index + 1, || None);
        }
        self.pointers[index] = Some(what);
    }
}

/// The number of elements of a list, if a pointer can say it.
fn count(len: usize) -> Built<u64> {
    match len {
        0..0x2000_0000 => Ok(len as u64),
        _ => Err(format!("has {len} elements or words, at most {} are possible", 0x1fff_ffff)),
    }
}
