use super::types::FieldKind;
use super::*;
use crate::message::schema::{Binding as StoredBinding, Shape, Slot};
use crate::samples::kinds_capnp::{kinds, Color};
use crate::samples::{generic_capnp, shape_v1_capnp, shape_v2_capnp, tick_v1_capnp, tick_v2_capnp};
use crate::schemas::tick_capnp::tick;
use capnp::message::{Builder, HeapAllocator};
use std::collections::BTreeMap;

fn of<T: Introspect>() -> Schema {
    Schema::of::<T>().expect("a struct without parameters")
}

/// The payload that `build` makes.
fn built<T: capnp::traits::Owned>(build: impl FnOnce(T::Builder<'_>)) -> Vec<u8> {
    let mut builder = Builder::new(HeapAllocator::new().first_segment_words(1 << 10));
    build(builder.init_root::<T::Builder<'_>>());
    capnp::serialize::write_message_to_words(&builder)
}

fn get(schema: &Schema, path: &str, payload: &[u8]) -> Option<String> {
    let path = schema.path(path).expect("there is such a field");
    path.get(payload).expect("sound").map(|value| format!("{value:?}"))
}

/// All values of a field, with commas.
fn all(schema: &Schema, path: &str, payload: &[u8]) -> String {
    let path = schema.path(path).expect("there is such a field");
    let values =
        path.values(payload).expect("sound").map(|value| format!("{:?}", value.expect("sound")));
    values.collect::<Vec<_>>().join(", ")
}

#[test]
fn every_kind_of_value_is_read() {
    let schema = of::<kinds::Owned>();
    let payload = built::<kinds::Owned>(|mut kinds| {
        kinds.set_bool(true);
        kinds.set_int8(-1);
        kinds.set_int16(-2);
        kinds.set_int32(-3);
        kinds.set_int64(i64::MIN);
        kinds.set_uint8(8);
        kinds.set_uint16(16);
        kinds.set_uint32(32);
        kinds.set_uint64(u64::MAX);
        kinds.set_float32(0.5);
        kinds.set_float64(-0.25);
        kinds.set_color(Color::DarkBlue);
        kinds.set_text("text");
        kinds.set_data(&[1, 2]);
        kinds.reborrow().init_inner().init_inner().set_number(3);
        kinds.reborrow().init_group().init_deep().set_text("deep");
        kinds.reborrow().init_generic().set_content("bound").expect("set");
        kinds.init_nested().init_content().init_content().set_number(4);
    });
    for (path, expected) in [
        ("void", "Void"),
        ("bool", "Bool(true)"),
        ("int8", "Int(-1)"),
        ("int16", "Int(-2)"),
        ("int32", "Int(-3)"),
        ("int64", "Int(-9223372036854775808)"),
        ("uint8", "UInt(8)"),
        ("uint16", "UInt(16)"),
        ("uint32", "UInt(32)"),
        ("uint64", "UInt(18446744073709551615)"),
        ("float32", "Float(0.5)"),
        ("float64", "Float(-0.25)"),
        ("color", "Enum(2)"),
        ("text", "Text([116, 101, 120, 116])"),
        ("data", "Data([1, 2])"),
        ("inner.inner.number", "UInt(3)"),
        ("group.deep.text", "Text([100, 101, 101, 112])"),
        ("generic.content", "Text([98, 111, 117, 110, 100])"),
        ("nested.content.content.number", "UInt(4)"),
        // Defaults: of bits, of bytes, and of what is behind a pointer.
        ("boolSet", "Bool(true)"),
        ("int64Set", "Int(-64)"),
        ("uint64Set", "UInt(18446744073709551615)"),
        ("float64Set", "Float(-inf)"),
        ("textSet", "Text([115, 101, 116])"),
        ("dataSet", "Data([0, 255])"),
        ("innerSet.number", "UInt(9)"),
        ("innerSet.text", "Text([110, 105, 110, 101])"),
        ("listSet", "Text([97])"),
    ] {
        assert_eq!(get(&schema, path, &payload).as_deref(), Some(expected), "{path}");
    }
    let color = schema.path("color").expect("there");
    assert_eq!(
        [0, 2, 3].map(|value| color.enumerant(value)),
        [Some("red"), Some("darkBlue"), None]
    );
    assert_eq!((color.name(), color.is_repeated()), ("color", false));
}

#[test]
fn what_is_null_or_not_selected_is_absent() {
    let schema = of::<kinds::Owned>();
    let nothing = built::<kinds::Owned>(|_| ());
    for path in [
        "text",
        "data",
        "inner.number",
        "inner.inner.text",
        "texts",
        "inners.number",
        "count",
        "pair.left",
    ] {
        assert_eq!(get(&schema, path, &nothing), None, "{path}");
        assert_eq!(all(&schema, path, &nothing), "", "{path}");
    }
    assert_eq!(get(&schema, "nothing", &nothing).as_deref(), Some("Void"), "it is selected");
    let paired = built::<kinds::Owned>(|kinds| kinds.init_pair().set_left(3));
    assert_eq!(get(&schema, "pair.left", &paired).as_deref(), Some("UInt(3)"));
    assert_eq!(get(&schema, "pair.right", &paired), None, "it is null");
    assert_eq!(get(&schema, "nothing", &paired), None);
    let chosen = built::<kinds::Owned>(|kinds| kinds.init_choice().set_second(""));
    assert_eq!(get(&schema, "choice.second", &chosen).as_deref(), Some("Text([])"));
    assert_eq!(get(&schema, "choice.first", &chosen), None);
    // A message without a root has the defaults of its type.
    let empty = [[0; 4], [1, 0, 0, 0], [0; 4], [0; 4]].concat();
    assert_eq!(get(&schema, "int8Set", &empty).as_deref(), Some("Int(-8)"));
    assert_eq!(get(&schema, "text", &empty), None);
}

#[test]
fn a_path_through_lists_has_a_value_for_each_element() {
    let schema = of::<kinds::Owned>();
    let payload = built::<kinds::Owned>(|mut kinds| {
        kinds.set_bools([true, false].as_slice()).expect("set");
        kinds.set_int16s([-1i16, 2].as_slice()).expect("set");
        kinds.set_texts(&["a", ""][..]).expect("set");
        kinds.set_colors([Color::Green].as_slice()).expect("set");
        kinds.reborrow().init_voids(2);
        let mut inners = kinds.reborrow().init_inners(3);
        inners.reborrow().get(0).init_inner().set_number(1);
        inners.reborrow().get(2).init_inner().set_number(3);
        let mut lists = kinds.reborrow().init_lists(3);
        lists.reborrow().init(0, 1).set(0, [1i16, 2].as_slice()).expect("set");
        lists.reborrow().init(2, 2).set(1, [3i16].as_slice()).expect("set");
        kinds.reborrow().init_lists_of_inners(2).init(1, 1).get(0).set_number(7);
        kinds.init_generic_list(1).get(0).initn_content(2).set(1, 9);
    });
    for (path, expected) in [
        ("bools", "Bool(true), Bool(false)"),
        ("int16s", "Int(-1), Int(2)"),
        ("texts", "Text([97]), Text([])"),
        ("colors", "Enum(1)"),
        ("voids", "Void, Void"),
        ("inners.number", "UInt(5), UInt(5), UInt(5)"),
        ("inners.inner.number", "UInt(1), UInt(3)"),
        ("lists", "Int(1), Int(2), Int(3)"),
        ("listsOfInners.number", "UInt(7)"),
        ("genericList.content", "UInt(0), UInt(9)"),
        ("listSet", "Text([97]), Text([98])"),
        ("int8Set", "Int(-8)"),
    ] {
        assert_eq!(all(&schema, path, &payload), expected, "{path}");
        let repeated = schema.path(path).expect("there").is_repeated();
        assert_eq!(repeated, path != "int8Set", "{path}");
    }
    assert_eq!(
        get(&schema, "inners.inner.number", &payload).as_deref(),
        Some("UInt(1)"),
        "the first"
    );
}

#[test]
fn a_path_that_leads_nowhere_is_refused_with_what_there_is() {
    let schema = of::<shape_v2_capnp::shape::Owned>();
    for (path, expected) in [
        ("", "`` is not in struct Shape; it has number, name, center, dot,"),
        ("nam", "`nam` is not in struct Shape; it has number, name, center, dot, radius,"),
        ("center", "it is the whole group center; name one of x, y"),
        ("center.z", "`z` is not in group center; it has x, y"),
        ("load.mass", "`mass` is not in group load; it has weight, force"),
        ("bounds", "it is the whole struct Pair; name one of left, right"),
        ("bounds.left", "it is the whole struct Point; name one of x, y, z"),
        ("corners", "it is the whole struct Point; name one of x, y, z"),
        ("corners.", "`` is not in struct Point"),
        ("name.x", "`name` is Text, which has no fields, so there is no `x` in it"),
        ("grid.x", "`grid` is List(List(UInt16)), which has no fields"),
        ("more", "`more` is AnyPointer, and the schema does not say what is in it"),
    ] {
        let error = schema.path(path).map(drop).expect_err(path);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        let text = error.to_string();
        assert!(
            text.contains(&format!("there is no field `{path}` to read: {expected}")),
            "{text}"
        );
    }
    let deep = vec!["parent"; 70].join(".");
    assert!(schema.path(&deep).expect_err("too deep").to_string().contains("at most 64"));
    let kinds = of::<kinds::Owned>();
    for (path, expected) in [
        ("capability", "`capability` is Capability"),
        ("unbound.content", "`content` is AnyPointer"),
        ("anyList", "`anyList` is AnyList"),
    ] {
        let text = kinds.path(path).expect_err(path).to_string();
        assert!(text.contains(expected), "{text}");
    }
}

#[test]
fn versions_of_a_type_are_read_both_ways() {
    let [old, new] = [of::<tick_v1_capnp::tick::Owned>(), of::<tick_v2_capnp::tick::Owned>()];
    let of_old = built::<tick_v1_capnp::tick::Owned>(|mut tick| tick.set_size(7));
    let of_new = built::<tick_v2_capnp::tick::Owned>(|mut tick| {
        tick.set_quantity(8);
        tick.set_published_ns(9);
    });
    assert_eq!(get(&new, "quantity", &of_old).as_deref(), Some("UInt(7)"));
    assert_eq!(get(&new, "publishedNs", &of_old).as_deref(), Some("UInt(0)"));
    assert_eq!(get(&old, "size", &of_new).as_deref(), Some("UInt(8)"));

    let [old, new] = [of::<shape_v1_capnp::shape::Owned>(), of::<shape_v2_capnp::shape::Owned>()];
    let of_old = built::<shape_v1_capnp::shape::Owned>(|mut shape| {
        shape.set_weight(3);
        shape.init_corners(2).get(1).set_y(2.0);
    });
    assert_eq!(get(&new, "load.weight", &of_old).as_deref(), Some("UInt(3)"));
    assert_eq!(get(&new, "load.force", &of_old), None);
    assert_eq!(all(&new, "corners.z", &of_old), "Float(0.0), Float(0.0)");
    let of_new = built::<shape_v2_capnp::shape::Owned>(|mut shape| {
        shape.reborrow().init_load().set_force(1.0);
        shape.init_corners(1).get(0).set_z(5.0);
    });
    assert_eq!(all(&old, "corners.x", &of_new), "Float(0.0)");
    assert_eq!(get(&new, "load.force", &of_new).as_deref(), Some("Float(1.0)"));
}

#[test]
fn a_list_that_became_one_of_structs_is_read_as_what_it_was_and_the_other_way_round() {
    // Cap'n Proto allows it, although topics do not: a point has a float first, so two floats may be two points.
    let schema = of::<kinds::Owned>();
    let structs = built::<kinds::Owned>(|kinds| {
        let mut inners = kinds.init_inners(2);
        inners.reborrow().get(0).set_text("one");
        inners.get(1).set_number(6);
    });
    let swap = |payload: &[u8], from: &str, to: &str| {
        // The pointer of one list is moved to where the other's is.
        let [from, to] = [from, to].map(|name| {
            let root = &schema.inner.types.structs[schema.inner.types.root];
            let field = root.fields.iter().find(|field| field.name == name).expect("there");
            let FieldKind::Slot(slot) = &field.of else { panic!("not a slot") };
            let data = usize::from(u16::from_le_bytes([payload[12], payload[13]]));
            16 + (data + slot.at as usize) * 8
        });
        let mut swapped = payload.to_vec();
        let word = u64::from_le_bytes(payload[from..from + 8].try_into().expect("eight"));
        let moved = (to as i64 - from as i64) / 8;
        let offset = (i64::from(word as u32 as i32 >> 2) - moved) as u64;
        let word = word >> 32 << 32 | offset << 2 & 0xffff_ffff | word & 3;
        swapped[to..to + 8].copy_from_slice(&word.to_le_bytes());
        swapped
    };
    // Numbers have 5 as a default in the struct, and none in a list of them.
    assert_eq!(all(&schema, "uint32s", &swap(&structs, "inners", "uint32s")), "UInt(0), UInt(3)");
    let texts = all(&schema, "texts", &swap(&structs, "inners", "texts"));
    assert_eq!(texts, "Text([111, 110, 101]), Text([])");
    let numbers =
        built::<kinds::Owned>(|mut kinds| kinds.set_uint32s([5u32, 4].as_slice()).expect("set"));
    let swapped = swap(&numbers, "uint32s", "inners");
    assert_eq!(all(&schema, "inners.number", &swapped), "UInt(0), UInt(1)");
    assert_eq!(all(&schema, "inners.text", &swapped), "");
    for (path, other) in [("uint64s", "too small"), ("bools", "not bits"), ("texts", "no pointers")]
    {
        let swapped = swap(&numbers, "uint32s", path);
        let path = schema.path(path).expect("there");
        let error = path.values(&swapped).map(drop).expect_err(other).to_string();
        assert!(error.contains("has elements of another size"), "{error}");
    }
}

#[test]
fn a_payload_that_is_cut_or_loops_is_corrupt_and_ends() {
    let schema = of::<shape_v1_capnp::shape::Owned>();
    let payload = built::<shape_v1_capnp::shape::Owned>(|mut shape| {
        shape.set_name("square");
        shape.init_grid(2).init(1, 3).set(0, 4);
    });
    let grid = schema.path("grid").expect("there");
    let name = schema.path("name").expect("there");
    for len in 0..payload.len() {
        let error = name.get(&payload[..len]).expect_err("cut");
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error
            .to_string()
            .starts_with("the payload is not a sound message of shape_v1.capnp:Shape: its "));
        assert!(grid.values(&payload[..len]).is_err());
    }
    // A list of lists, each of which is made to be all of them, on a path of 60 lists.
    let mut words = vec![0u64, 1 << 48, 1 | 6 << 32 | 8 << 35];
    words.extend(
        (0..8).map(|at: i64| ((-at - 1) as u64) << 2 & 0xffff_ffff | 1 | 6 << 32 | 8 << 35),
    );
    words[0] = (words.len() as u64 - 1) << 32;
    let payload: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let mut endless = Shape::Plain("Void");
    for _ in 0..60 {
        endless = Shape::List(Box::new(endless));
    }
    let schema = edited(|slots| {
        slots.retain(|ordinal, _| *ordinal == 12);
        let slot = slots.get_mut(&12).expect("grid");
        (slot.of, slot.offset) = (endless, 0);
    });
    let grid = schema.path("grid").expect("there");
    let last = grid.values(&payload).expect("the first list").last().expect("an end");
    assert!(last.expect_err("an error").to_string().contains("much more would come out"));
}

#[test]
fn a_list_of_nothing_is_not_longer_than_its_message_allows() {
    let schema = of::<kinds::Owned>();
    let voids = schema.path("voids").expect("there");
    let of_count = |count: u32| {
        let payload = built::<kinds::Owned>(|kinds| _ = kinds.init_voids(count));
        voids.values(&payload).map(Iterator::count).map_err(|error| error.to_string())
    };
    // They take no room, so each message is as long as this one.
    let words = built::<kinds::Owned>(|kinds| _ = kinds.init_voids(1)).len() / 8;
    let most = words.max(64) as u32 * 8;
    assert_eq!(of_count(most), Ok(most as usize));
    for count in [most + 1, 1 << 28] {
        let error = of_count(count).expect_err("too many");
        assert!(error.contains("much more would come out"), "{error}");
    }
}

/// The schema of a shape with its slots edited.
pub(super) fn edited(edit: impl FnOnce(&mut BTreeMap<u16, Slot>)) -> Schema {
    try_edited(edit).expect("sound enough")
}

fn try_edited(edit: impl FnOnce(&mut BTreeMap<u16, Slot>)) -> Result<Schema> {
    let bytes = describe::<shape_v1_capnp::shape::Owned>().expect("a struct");
    let schema = schema::Schema::parse(&bytes).expect("sound").with_root_slots(edit);
    let inner = Inner { types: Types::new(&schema)?, name: schema.root_name().to_owned() };
    Ok(Schema { inner: Arc::new(inner) })
}

#[test]
fn a_type_that_contains_itself_with_ever_larger_parameters_is_read() {
    const SHAPE: u64 = 0xa4d7_e093_1bc8_6f25;
    const PAIR: u64 = 0xc0a9_6be8_1d27_f534;
    // A shape has a parent with both parameters of a pair bound to its own parameter, which doubles at each level.
    let parameter = || Some(Shape::Parameter(SHAPE, 0));
    let pair =
        Shape::Named(PAIR, vec![(PAIR, StoredBinding::Bind(vec![parameter(), parameter()]))]);
    let schema = edited(|slots| {
        slots.get_mut(&9).expect("parent").of =
            Shape::Named(SHAPE, vec![(SHAPE, StoredBinding::Bind(vec![Some(pair)]))]);
        slots.get_mut(&11).expect("more").of = Shape::Parameter(SHAPE, 0);
    });
    let parent = schema.path(&format!("{}number", "parent.".repeat(60))).expect("there");
    let payload = built::<shape_v1_capnp::shape::Owned>(|mut shape| {
        for _ in 0..60 {
            shape = shape.init_parent();
        }
        shape.set_number(3);
    });
    assert_eq!(parent.get(&payload).expect("sound"), Some(FieldValue::UInt(3)));
    // Each level binds one more pair around the one before; the outermost parameter is bound to nothing.
    let path = format!("{}more.left.right.left.x", "parent.".repeat(3));
    let text = schema.path(&path).expect_err("nothing is there").to_string();
    assert!(text.contains("`left` is AnyPointer"), "{text}");
    let generic = of::<generic_capnp::holder::Owned>();
    assert!(generic.path("both.content.content.number").is_ok_and(|path| path.is_repeated()));
}

#[test]
fn a_schema_that_no_compiler_writes_is_corrupt() {
    let refused = |edit: fn(&mut BTreeMap<u16, Slot>), expected: &str| {
        let error = try_edited(edit).expect_err(expected);
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        assert!(error.to_string().contains(expected), "{error}");
    };
    refused(
        |slots| slots.get_mut(&0).expect("there").name = "name".into(),
        "two fields are named `name`",
    );
    refused(
        |slots| slots.get_mut(&0).expect("there").name = "center".into(),
        "two fields are named `center`",
    );
    refused(
        |slots| slots.get_mut(&0).expect("there").name = "name.x".into(),
        "two fields are named `name`",
    );
    refused(
        |slots| slots.get_mut(&0).expect("there").name = "a.".repeat(70),
        "groups are too deep",
    );
    refused(
        |slots| slots.get_mut(&0).expect("there").offset = u32::MAX,
        "`number` lies outside of every struct",
    );
    refused(
        |slots| slots.get_mut(&1).expect("there").offset = 65_535,
        "`name` lies outside of every struct",
    );
    refused(
        |slots| slots.get_mut(&5).expect("there").unions = [(u32::MAX, 1)].into(),
        "`radius` lies outside of every struct",
    );
    refused(
        |slots| slots.get_mut(&0).expect("there").default = schema::Value::Target(vec![1; 8]),
        "`number` has a default of another type",
    );
    refused(
        |slots| slots.get_mut(&1).expect("there").default = schema::Value::Bits(7),
        "`name` has a default of another type",
    );
    // The largest that there may be.
    edited(|slots| slots.get_mut(&1).expect("there").offset = 65_534);
    edited(|slots| slots.get_mut(&0).expect("there").offset = 65_535 * 2 - 1);
}

#[test]
fn handles_are_sent_and_shared_and_say_what_they_are_of() {
    fn both<T: Send + Sync + Clone + fmt::Debug>(value: &T) -> String {
        format!("{value:?}")
    }
    let schema = of::<tick::Owned>();
    assert!(both(&schema).contains("tick.capnp:Tick"));
    assert_eq!(both(&schema.path("price").expect("there")), "FieldPath(\"price\")");
}
