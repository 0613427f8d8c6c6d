//! Damage with a plan: numbers at the ends of their range, tables that contradict themselves, files of
//! other lengths.

use super::place::Promise;
use super::state::{State, LANES, ORDER_SLOTS, SEGMENTS, SEGMENT_BYTES, SUBSCRIBERS};
use super::visit::Visit;
use super::{attempt, word};
use crate::process::{Line, Scene};
use std::fs::File;
use std::path::Path;
use Promise::{Believed, Content, Noticed};

/// What is done to the files, which lie at the path.
type Damage = Box<dyn Fn(&Path)>;

/// A damage, by name, with what is promised of it.
type Case = (String, Promise, Damage);

/// Numbers that overflow when something is added, multiplied or shifted.
pub const EDGES: [u64; 16] = [
    0,
    1,
    7,
    15,
    (1 << 24) - 1,
    1 << 32,
    (1 << 47) - 1,
    1 << 47,
    (1 << 56) - 1,
    1 << 57,
    (1 << 59) - 8,
    (1 << 62) - 1,
    1 << 63,
    u64::MAX - (1 << 16),
    u64::MAX - 1,
    u64::MAX,
];

const CONTROL: &str = "t.topic/control";
const LANE: &str = "t.topic/lane-0";
const ORDER: &str = "t.topic/order";

/// The words of `file` at `ats`, each set to `value`.
fn words(file: &str, ats: Vec<usize>, value: u64) -> Damage {
    let file = file.to_owned();
    Box::new(move |path| {
        let file = path.join(&file);
        let mut bytes = std::fs::read(&file).expect("it was laid");
        for at in &ats {
            bytes[*at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        std::fs::write(file, bytes).expect("there is room");
    })
}

/// Every word of the tables at every edge of its range.
fn edges(state: &State, cases: &mut Vec<Case>) {
    let places = super::place::all(state).into_iter().filter(|place| place.at % 8 == 0);
    for place in places.filter(|place| !place.what.contains("payload")) {
        let end = (place.at + place.len).min(place.at + 64);
        for at in (place.at..end).step_by(8) {
            for value in EDGES {
                let name = format!("{} {} at {at} is {value:#x}", place.file, place.what);
                // A word is more than its lowest bytes.
                let promise = match place.what {
                    "first sequence, low" | "length" => Content,
                    "mapping, low" => Believed,
                    "next" | "end" => Content,
                    _ => place.promise,
                };
                cases.push((name, promise, words(&place.file, vec![at], value)));
            }
        }
    }
}

/// A table of a lane whose words contradict each other.
fn tables(state: &State, cases: &mut Vec<Case>) {
    let lane = &state.files[LANE];
    let newest = word(lane, 128);
    let entry_at = |logical: u64| 1024 + 8 * (logical as usize % SEGMENTS);
    let base = |physical: u64| 4096 + physical as usize * SEGMENT_BYTES;
    let physical_of = |logical: u64| word(lane, entry_at(logical)) >> 1 & 0x7fff;
    let mut add = |name: &str, promise, damage| cases.push((name.to_owned(), promise, damage));
    let lossy = state.name.contains("lossy");
    for physical in [SEGMENTS as u64, 255, 0x7fff] {
        let entry = (newest + 1) << 16 | physical << 1;
        let damage = words(LANE, vec![entry_at(newest)], entry);
        add("the newest segment is one that is not there", Noticed, damage);
    }
    let twice = newest << 16 | physical_of(newest) << 1;
    let damage = words(LANE, vec![entry_at(newest - 1)], twice);
    add("two numbers have the same segment", Noticed, damage);
    let damage = words(LANE, (0..SEGMENTS).map(|entry| 1024 + 8 * entry).collect(), 0);
    add("no segment is mapped", Noticed, damage);
    let damage = words(LANE, (0..SEGMENTS).map(|entry| 1024 + 8 * entry).collect(), twice);
    add("all numbers have the same entry", Noticed, damage);
    let retired = word(lane, entry_at(newest)) | 1;
    let damage = words(LANE, vec![entry_at(newest)], retired);
    add("the newest segment was taken back", if lossy { Believed } else { Noticed }, damage);
    for step in [1, 2, 3, 1 << 20] {
        let damage = words(LANE, vec![128], newest + step);
        add("the newest number is ahead of the table", Noticed, damage);
        let damage = words(LANE, vec![136], newest + step);
        add("the floor is above the newest segment", Noticed, damage);
        let damage = words(LANE, vec![128], newest.saturating_sub(step));
        add("the newest number fell back", Noticed, damage);
    }
    // A segment that says it ends where it begins, and one in the middle of whose frames it ends.
    let (new, old) = (base(physical_of(newest)), base(physical_of(newest - 1)));
    let begins = word(lane, new);
    let next = |sequence: u64| (sequence & 0xff_ffff) << 40 | 2 << 32;
    let damage = words(LANE, vec![new + 16], next(begins));
    add("the newest segment is empty and ends", Noticed, damage);
    let damage = words(LANE, vec![old + 16], next(word(lane, old)));
    add("a segment is empty and ends", Noticed, damage);
    for len in [SEGMENT_BYTES - 32, SEGMENT_BYTES - 31, SEGMENT_BYTES, 1 << 31, u32::MAX as usize] {
        let head = (word(lane, old) & 0xff_ffff) << 40 | 1 << 32 | len as u64;
        let damage = words(LANE, vec![old + 16], head);
        let promise = if len == SEGMENT_BYTES - 32 { Content } else { Noticed };
        add("a frame is as long as its segment, or longer", promise, damage);
    }
    // Words that hide what is behind them, in a segment that goes on elsewhere.
    let damage = words(LANE, vec![old + 16], 0);
    add("the first header word of a full segment is gone", Noticed, damage);
}

/// An order log that contradicts itself or its lanes.
fn orders(state: &State, cases: &mut Vec<Case>) {
    let log = &state.files[ORDER];
    let tail = word(log, 4096);
    let slot_at = |index: u64| 4352 + 128 + 8 * (index as usize % ORDER_SLOTS);
    let mut add = |name: String, promise, damage| cases.push((name, promise, damage));
    let around = ORDER_SLOTS as u64;
    for by in [1, 2, around / 2, around, 2 * around, 1 << 40] {
        add(format!("the tail is ahead by {by}"), Noticed, words(ORDER, vec![4096], tail + by));
        // By one it is what a publisher leaves that dies before it tells the tail.
        let back = tail.saturating_sub(by);
        add(format!("the tail fell back by {by}"), Noticed, words(ORDER, vec![4096], back));
    }
    for index in [tail - 1, tail - 2, tail - 20] {
        let place = word(log, slot_at(index));
        for lane in [LANES as u64, 64, 127] {
            let named = place & !(0x7f << 56) | lane << 56;
            let damage = words(ORDER, vec![slot_at(index)], named);
            add(format!("place {index} names lane {lane}"), Noticed, damage);
        }
        let lapped = words(ORDER, vec![slot_at(index)], place ^ 1 << 63);
        add(format!("place {index} is of another lap"), Noticed, lapped);
        let other = word(log, slot_at(index - 1)) & !(1 << 63) | place & 1 << 63;
        let doubled = words(ORDER, vec![slot_at(index)], other);
        // The first place that a newcomer reads has nothing before it to contradict.
        add(format!("place {index} names the frame before it"), Believed, doubled);
        let beyond = place & !((1 << 56) - 1) | ((1 << 56) - 1);
        let damage = words(ORDER, vec![slot_at(index)], beyond);
        add(format!("place {index} is at the end of all positions"), Noticed, damage);
    }
    for lane in 0..LANES {
        let at = 4352 + 8 * lane;
        let back = word(log, at).saturating_sub(200);
        add(format!("lane {lane} is covered less"), Noticed, words(ORDER, vec![at], back));
        let ahead = word(log, at) + 200;
        add(format!("lane {lane} is covered more"), Noticed, words(ORDER, vec![at], ahead));
    }
}

/// Words of the control file that name nobody, or somebody absurd.
fn owners(cases: &mut Vec<Case>) {
    let slots_at = 4608 + 128 * LANES;
    let stride = 128 + (8 * LANES).next_multiple_of(128);
    let slots: Vec<usize> = (0..SUBSCRIBERS).map(|slot| slots_at + slot * stride).collect();
    let leases: Vec<usize> = (0..LANES).map(|lane| 4608 + 128 * lane).collect();
    for node in [0u64, 1, 3, u64::from(u32::MAX)] {
        for state in 0..7 {
            let owner = node << 32 | 0xff_ffff << 8 | state;
            for (what, ats) in [("slots", &slots), ("leases", &leases)] {
                let name = format!("all {what} are those of node {node} in state {state}");
                cases.push((name, Believed, words(CONTROL, ats.clone(), owner)));
            }
        }
    }
    let born = leases.iter().map(|at| at + 8).collect();
    cases.push(("no lane is born".to_owned(), Believed, words(CONTROL, born, 0)));
}

/// Files of other lengths than they say.
fn lengths(state: &State, cases: &mut Vec<Case>) {
    for (file, bytes) in &state.files {
        let len = bytes.len() as u64;
        for other in [0, 1, 127, 128, 4095, 4096, len - 1, len + 1, len + 4096, 1 << 40, 1 << 62] {
            let file = file.clone();
            let name = format!("{file} has {other} bytes");
            let resize = move |path: &Path| {
                let file = File::options().write(true).open(path.join(&file));
                // A file system may refuse the longest ones, and then nothing is damaged.
                let _ = file.expect("it was laid").set_len(other);
            };
            if other != len {
                cases.push((name, Noticed, Box::new(resize)));
            }
        }
    }
    for file in [LANE, ORDER] {
        if state.files.contains_key(file) {
            let gone = move |path: &Path| std::fs::remove_file(path.join(file)).expect("laid");
            cases.push((format!("{file} is gone"), Noticed, Box::new(gone)));
        }
    }
}

/// Damages a state in every planned way. Says `case …` before each, `wrong …` and `done COUNT`.
pub fn planned(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let state = State::build(scene.text("state"), &path.with_extension("model"));
    state.lay(path);
    let sound = Visit::of(path, &state);
    let mut cases = Vec::new();
    tables(&state, &mut cases);
    if state.is_ordered() {
        orders(&state, &mut cases);
    }
    owners(&mut cases);
    lengths(&state, &mut cases);
    let first_edge = cases.len();
    edges(&state, &mut cases);
    let every = if super::is_exhaustive() { 1 } else { (cases.len() / super::SAMPLE) | 1 };
    let mut count = 0;
    for (index, (name, promise, damage)) in cases.into_iter().enumerate() {
        if index >= first_edge && index % every != 0 {
            continue;
        }
        line.say(format_args!("case {name}"));
        if let Err(why) = attempt(path, &state, &sound, promise, damage) {
            line.say(format_args!("wrong {name}: {}", why.replace('\n', " ")));
        }
        count += 1;
    }
    line.say(format_args!("done {count}"));
}
