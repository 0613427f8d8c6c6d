//! Whether two schemas may meet on one topic.
//!
//! They may if each can be a version of the other by the rules of Cap'n Proto, in either direction
//! and in both at once: a process that is older than a topic, or newer, reads and writes it all the
//! same.
//!
//! * The root type is the same: types are told by their ids, never by their names.
//! * A field that both have, told by its ordinal, lies in the same place, with the same type and
//!   the same default.
//! * It is selected by the same values of the same discriminants. One that a version moved into a
//!   new union is the member of value 0 there, which is what messages without that union hold in
//!   its place.
//! * Fields, members of unions and enumerants may be missing on either side.
//! * Names do not matter, since they are not in the messages. Nor do groups, which are dissolved in
//!   their structs.
//!
//! Cap'n Proto also lets a list of a plain type become a list of structs. That is refused here:
//! readers of the old version of such a topic would not be able to read it in place.

use crate::error::{Error, ErrorKind, Result};
use crate::message::schema::{Kind, Node, Schema, Slot};
use std::collections::BTreeMap;
use std::fmt;

/// How my schema relates to the one that a topic stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evolution {
    /// The same fields and enumerants.
    Same,
    /// The topic's has something that mine has not.
    Older,
    /// Mine has something that the topic's has not.
    Newer,
    /// Each has something that the other has not.
    Both,
}

/// Why two schemas are not versions of one type: a sentence that names the type and the field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaMismatch(String);

impl fmt::Display for SchemaMismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SchemaMismatch {}

/// Compares the schema that a topic stores with mine.
///
/// # Errors
///
/// The first difference that no two versions of one type have.
pub fn check(stored: &Schema, mine: &Schema) -> std::result::Result<Evolution, SchemaMismatch> {
    if stored.root_id() != mine.root_id() {
        return Err(SchemaMismatch(format!(
            "messages are of type {} (@{:#x}) in the topic and {} (@{:#x}) here",
            stored.root_name(),
            stored.root_id(),
            mine.root_name(),
            mine.root_id()
        )));
    }
    let mut seen = Extra::default();
    for (id, theirs) in stored.nodes() {
        if let Some(ours) = mine.nodes().get(id) {
            Pair { stored, mine, theirs, ours }.check(&mut seen)?;
        }
    }
    Ok(match (seen.in_stored, seen.in_mine) {
        (false, false) => Evolution::Same,
        (true, false) => Evolution::Older,
        (false, true) => Evolution::Newer,
        (true, true) => Evolution::Both,
    })
}

/// Compares two schemas as they are stored, for the topic of this name.
///
/// # Errors
///
/// `Mismatch` with the first difference that no two versions of one type have; `Corrupt` if either
/// is damaged.
pub fn check_schemas(topic: &str, stored: &[u8], mine: &[u8]) -> Result<()> {
    let (stored, mine) = (Schema::parse(stored)?, Schema::parse(mine)?);
    match check(&stored, &mine) {
        Ok(_) => Ok(()),
        Err(mismatch) => Err(Error::new(
            ErrorKind::Mismatch,
            format!("topic {topic} carries another type: {mismatch}"),
        )),
    }
}

/// Which side has something that the other has not.
#[derive(Default)]
struct Extra {
    in_stored: bool,
    in_mine: bool,
}

impl Extra {
    fn note<L, R>(&mut self, stored: Option<L>, mine: Option<R>) {
        self.in_stored |= stored.is_some() && mine.is_none();
        self.in_mine |= stored.is_none() && mine.is_some();
    }
}

/// The two versions of one node.
struct Pair<'a> {
    stored: &'a Schema,
    mine: &'a Schema,
    theirs: &'a Node,
    ours: &'a Node,
}

impl Pair<'_> {
    fn check(&self, seen: &mut Extra) -> std::result::Result<(), SchemaMismatch> {
        match (&self.theirs.kind, &self.ours.kind) {
            (Kind::Struct(theirs), Kind::Struct(ours)) => self.check_slots(theirs, ours, seen),
            (Kind::Enum(theirs), Kind::Enum(ours)) => {
                seen.in_stored |= theirs.len() > ours.len();
                seen.in_mine |= theirs.len() < ours.len();
                Ok(())
            }
            (Kind::Other, Kind::Other) => Ok(()),
            (theirs, ours) => Err(SchemaMismatch(format!(
                "`{}` is {} in the topic and {} here",
                self.theirs.name,
                kind_name(theirs),
                kind_name(ours)
            ))),
        }
    }

    fn check_slots(
        &self,
        theirs: &BTreeMap<u16, Slot>,
        ours: &BTreeMap<u16, Slot>,
        seen: &mut Extra,
    ) -> std::result::Result<(), SchemaMismatch> {
        for (ordinal, slot) in theirs {
            let other = ours.get(ordinal);
            seen.note(Some(slot), other);
            if let Some(other) = other {
                self.check_slot(slot, other)
                    .map_err(|what| self.name(*ordinal, slot, other, what))?;
            }
        }
        for ordinal in ours.keys() {
            seen.note(theirs.get(ordinal), Some(()));
        }
        Ok(())
    }

    /// What is the matter with a field, in words that follow its name.
    fn check_slot(&self, theirs: &Slot, ours: &Slot) -> std::result::Result<(), String> {
        if theirs.of != ours.of {
            let [found, expected] = [self.stored.spell(&theirs.of), self.mine.spell(&ours.of)];
            return Err(if found == expected {
                format!("is a {found} in the topic and another type of that name here")
            } else {
                format!("is {found} in the topic and {expected} here")
            });
        }
        if theirs.offset != ours.offset {
            let [found, expected] = [theirs.offset, ours.offset];
            return Err(format!("lies at offset {found} in the topic and {expected} here"));
        }
        if theirs.default != ours.default {
            return Err("has one default in the topic and another here".into());
        }
        let discriminants = theirs.unions.keys().chain(ours.unions.keys());
        for at in discriminants {
            let [found, expected] = [theirs, ours].map(|slot| slot.unions.get(at).copied());
            if found.unwrap_or(0) != expected.unwrap_or(0) {
                let [found, expected] = [found, expected].map(member_name);
                return Err(format!("is {found} in the topic and {expected} here"));
            }
        }
        Ok(())
    }

    fn name(&self, ordinal: u16, theirs: &Slot, ours: &Slot, what: String) -> SchemaMismatch {
        let mut name = format!("`{}` (@{ordinal})", theirs.name);
        if theirs.name != ours.name {
            name += &format!(", `{}` here,", ours.name);
        }
        SchemaMismatch(format!("field {name} of `{}` {what}", self.theirs.name))
    }
}

fn kind_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Struct(_) => "a struct",
        Kind::Enum(_) => "an enum",
        Kind::Other => "neither struct nor enum",
    }
}

fn member_name(value: Option<u16>) -> String {
    match value {
        Some(value) => format!("member {value} of a union"),
        None => "in no such union".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::schema::{describe, Binding, Shape, Value};
    use crate::samples::{
        shape_v1_capnp, shape_v2_capnp, tick_broken_capnp, tick_v1_capnp, tick_v2_capnp,
    };
    use capnp::introspect::Introspect;

    fn schema<T: Introspect>() -> Schema {
        Schema::parse(&describe::<T>().expect("a struct without parameters")).expect("sound")
    }

    /// What is said of the shape and a copy of it whose slots were edited, in both directions.
    fn edited(edit: impl FnOnce(&mut BTreeMap<u16, Slot>)) -> [String; 2] {
        let sound = schema::<shape_v1_capnp::shape::Owned>();
        let other = sound.clone().with_root_slots(edit);
        let said = |stored, mine| match check(stored, mine) {
            Ok(evolution) => format!("{evolution:?}"),
            Err(mismatch) => mismatch.to_string(),
        };
        [said(&sound, &other), said(&other, &sound)]
    }

    #[test]
    fn versions_meet_in_both_directions() {
        let v1 = schema::<tick_v1_capnp::tick::Owned>();
        let v2 = schema::<tick_v2_capnp::tick::Owned>();
        assert_eq!(check(&v1, &v1), Ok(Evolution::Same));
        assert_eq!(check(&v1, &v2), Ok(Evolution::Newer));
        assert_eq!(check(&v2, &v1), Ok(Evolution::Older));
    }

    #[test]
    fn an_enumerant_more_is_a_version_too() {
        let v1 = schema::<tick_v1_capnp::tick::Owned>();
        let v2 = schema::<tick_v2_capnp::tick::Owned>();
        let v2 = v2.with_root_slots(|slots| drop(slots.remove(&4)));
        assert_eq!(check(&v1, &v2), Ok(Evolution::Newer));
        assert_eq!(check(&v2, &v1), Ok(Evolution::Older));
    }

    #[test]
    fn a_field_in_a_nested_type_a_member_and_a_new_union_are_versions_too() {
        let v1 = schema::<shape_v1_capnp::shape::Owned>();
        let v2 = schema::<shape_v2_capnp::shape::Owned>();
        assert_eq!(check(&v1, &v2), Ok(Evolution::Newer));
        assert_eq!(check(&v2, &v1), Ok(Evolution::Older));
    }

    #[test]
    fn a_changed_type_is_named_with_its_field() {
        let v1 = schema::<tick_v1_capnp::tick::Owned>();
        let broken = schema::<tick_broken_capnp::tick::Owned>();
        let said = check(&v1, &broken).expect_err("refused").to_string();
        assert_eq!(said, "field `price` (@1) of `Tick` is Float64 in the topic and UInt64 here");
        let said = check(&broken, &v1).expect_err("refused").to_string();
        assert_eq!(said, "field `price` (@1) of `Tick` is UInt64 in the topic and Float64 here");
    }

    #[test]
    fn the_error_of_a_topic_says_its_name_and_the_field() {
        let stored = describe::<tick_v1_capnp::tick::Owned>().expect("a struct");
        let mine = describe::<tick_broken_capnp::tick::Owned>().expect("a struct");
        let error = check_schemas("ticks", &stored, &mine).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Mismatch);
        assert!(error.to_string().starts_with("topic ticks carries another type: field `price`"));
        let newer = describe::<tick_v2_capnp::tick::Owned>().expect("a struct");
        check_schemas("ticks", &stored, &newer).expect("a version");
        let error = check_schemas("ticks", &stored[..80], &mine).expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }

    #[test]
    fn another_root_type_is_refused_by_its_name() {
        let tick = schema::<tick_v1_capnp::tick::Owned>();
        let shape = schema::<shape_v1_capnp::shape::Owned>();
        let said = check(&tick, &shape).expect_err("refused").to_string();
        assert!(said.contains("tick_v1.capnp:Tick (@0xf3c5d8e7a9b06142) in the topic"), "{said}");
        assert!(said.contains("shape_v1.capnp:Shape (@0xa4d7e0931bc86f25) here"), "{said}");
    }

    #[test]
    fn each_side_may_have_what_the_other_has_not() {
        let said = edited(|slots| drop((slots.remove(&13), slots.insert(99, slots[&0].clone()))));
        assert_eq!(said, ["Both", "Both"]);
    }

    #[test]
    fn a_renamed_field_is_the_same_field() {
        let said = edited(|slots| slots.get_mut(&2).expect("x").name = "centre.left".into());
        assert_eq!(said, ["Same", "Same"]);
        let [said, _] = edited(|slots| {
            let slot = slots.get_mut(&2).expect("x");
            (slot.name, slot.offset) = ("left".into(), 9);
        });
        let expected = "field `center.x` (@2), `left` here, of `Shape` \
                        lies at offset 1 in the topic and 9 here";
        assert_eq!(said, expected);
    }

    #[test]
    fn a_field_that_moved_is_refused() {
        for said in edited(|slots| slots.get_mut(&13).expect("weight").offset += 1) {
            assert!(said.contains("`weight` (@13) of `Shape` lies at offset"), "{said}");
        }
    }

    #[test]
    fn a_changed_default_is_refused_whatever_it_is_of() {
        let changes: [(u16, Value); 4] = [
            (0, Value::Bits(8)),
            (1, Value::Target(b"some".to_vec())),
            (10, Value::Target(vec![])),
            (13, Value::Bits(1)),
        ];
        for (ordinal, value) in changes {
            for said in
                edited(|slots| slots.get_mut(&ordinal).expect("a field").default = value.clone())
            {
                assert!(said.ends_with("has one default in the topic and another here"), "{said}");
            }
        }
    }

    #[test]
    fn other_parameters_of_a_generic_type_are_another_type() {
        for said in edited(|slots| {
            let Shape::Named(_, scopes) = &mut slots.get_mut(&8).expect("label").of else {
                panic!()
            };
            scopes[0].1 = Binding::Bind(vec![None, Some(Shape::Plain("Data"))]);
        }) {
            assert!(said.contains("Pair(Text, Data)"), "{said}");
            assert!(said.contains("Pair(AnyPointer, Data)"), "{said}");
        }
    }

    #[test]
    fn a_list_does_not_become_a_list_of_structs() {
        for said in edited(|slots| slots.get_mut(&12).expect("grid").of = slots[&6].of.clone()) {
            assert!(said.contains("List(List(UInt16))") && said.contains("List(Point)"), "{said}");
        }
    }

    #[test]
    fn a_field_joins_a_new_union_only_as_its_first_member() {
        let join = |value| {
            move |slots: &mut BTreeMap<u16, Slot>| {
                slots.get_mut(&0).expect("number").unions.insert(40, value);
            }
        };
        assert_eq!(edited(join(0)), ["Same", "Same"]);
        let [said, _] = edited(join(1));
        assert!(
            said.ends_with("is in no such union in the topic and member 1 of a union here"),
            "{said}"
        );
    }

    #[test]
    fn a_union_keeps_its_discriminant_and_its_values() {
        let swap = |slots: &mut BTreeMap<u16, Slot>| {
            slots.get_mut(&5).expect("radius").unions.values_mut().for_each(|value| *value = 2);
        };
        let [said, _] = edited(swap);
        assert!(
            said.ends_with("is member 1 of a union in the topic and member 2 of a union here"),
            "{said}"
        );
        let move_it = |slots: &mut BTreeMap<u16, Slot>| {
            for ordinal in [4, 5, 6] {
                let unions = &mut slots.get_mut(&ordinal).expect("a member").unions;
                *unions = unions.iter().map(|(at, value)| (at + 1, *value)).collect();
            }
        };
        for said in edited(move_it) {
            assert!(said.contains("`radius` (@5) of `Shape` is "), "{said}");
        }
    }

    #[test]
    fn a_struct_does_not_become_an_enum() {
        let sound = schema::<tick_v1_capnp::tick::Owned>();
        let other = sound.clone().with_root_kind(Kind::Enum(Vec::new()));
        let said = check(&sound, &other).expect_err("refused").to_string();
        assert_eq!(said, "`Tick` is a struct in the topic and an enum here");
    }
}
