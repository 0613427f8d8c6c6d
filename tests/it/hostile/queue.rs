//! Damage to the files of queues: a work queue with messages in every state, and a queue of tokens.
//!
//! Offsets are those of `docs/format.md`, which also says which damage cannot be told from a sound value.

use super::place::Promise::{self, Believed, Content, Noticed};
use super::queue_visit::Visit;
use super::{flips_of, is_exhaustive, SAMPLE};
use crate::process::{Line, Scene};
use crate::traffic::message;
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use std::time::{Duration, Instant};
use windlass::{Bus, Raw};

const CONTROL: &str = "q.queue/control";
const DATA: &str = "q.queue/data";
const RING: &str = "t.tokens/ring";

const CONSUMERS: usize = 3;
/// Chunks of 128 bytes, and of 256.
const CHUNKS: [u32; 2] = [6, 3];
const ENTRIES: usize = 32;
const SLOTS_AT: usize = 4608;
const RING_AT: usize = SLOTS_AT + 128 * CONSUMERS;
const POOL_AT: usize = RING_AT + 256 + 8 * ENTRIES;
/// State word and note of each chunk, then placed of each, then due of each: areas of whole line pairs.
const PLACED_AT: usize = POOL_AT + 256;
const DUE_AT: usize = PLACED_AT + 128;
const TOKENS: usize = 8;

/// Words that say nothing about messages: whatever becomes of them, what waits is delivered.
const KEEPERS: &[&str] =
    &["entries", "entry", "head", "tail", "placed", "slots high", "round", "since", "sleeping"];

/// A visit that takes longer has no end.
const VISIT_MAX: Duration = Duration::from_secs(20);

/// The bytes of message `number`: every fourth one needs a large chunk.
pub fn content(number: u64) -> Vec<u8> {
    message(0, number, if number % 4 == 3 { 200 } else { 40 + number as usize % 60 })
}

type Files = BTreeMap<String, Vec<u8>>;

/// Builds a bus beside `path`, and copies it while its members live: in the copy they are dead.
fn build(path: &Path) -> Files {
    let bus = Bus::open(path.to_str().expect("it is text")).expect("a fresh bus");
    let queue = bus.queue::<Raw>("q").chunks(CHUNKS[0], 128).chunks(CHUNKS[1], 256);
    let queue = queue.consumers_max(CONSUMERS as u32).max_deliveries(3).create().expect("fresh");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    let mut enter = |number| producer.enqueue(&content(number)).expect("there is room");
    // More than once around the ring.
    for number in 0..40 {
        enter(number);
        consumer.try_take().expect("sound").expect("it waits").ack().expect("it is ours");
    }
    enter(40);
    for _ in 0..3 {
        consumer.try_take().expect("sound").expect("it waits").nack().expect("it is ours");
    }
    (41..46).for_each(&mut enter);
    let mut other = queue.producer().expect("sound");
    let _loan = other.loan(60).expect("there is room");
    let _taken = consumer.try_take().expect("sound").expect("it waits");
    let tokens = bus.tokens("t").capacity(TOKENS as u64).create().expect("fresh");
    for token in 0..20 {
        tokens.push(token).expect("there is room");
        tokens.pop().expect("sound").expect("it is there");
    }
    (20..23).for_each(|token| tokens.push(token).expect("there is room"));
    let mut files = Files::new();
    for name in ["bus", CONTROL, DATA, RING] {
        files.insert(name.to_owned(), std::fs::read(path.join(name)).expect("it is there"));
    }
    files
}

fn lay(path: &Path, files: &Files) {
    let _ = std::fs::remove_dir_all(path);
    for folder in ["q.queue", "t.tokens"] {
        let mut private = std::fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(path.join(folder)).expect("there is room");
    }
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).expect("there is room");
    }
}

/// A span of bytes with one promise.
struct Place {
    file: &'static str,
    what: &'static str,
    at: usize,
    len: usize,
    promise: Promise,
}

fn places() -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |file, what, at, len, promise| {
        places.push(Place { file, what, at, len, promise });
    };
    add(CONTROL, "header", 0, 128, Noticed);
    add(CONTROL, "closed", 4096, 8, Believed);
    add(CONTROL, "slots high", 4104, 8, Believed);
    add(CONTROL, "round", 4224, 8, Believed);
    add(CONTROL, "counters", 4352, 40, Noticed);
    add(CONTROL, "hint", 4480, 8, Noticed);
    for slot in 0..CONSUMERS {
        add(CONTROL, "consumer slot", SLOTS_AT + 128 * slot, 8, Believed);
        add(CONTROL, "sleeping", SLOTS_AT + 128 * slot + 8, 8, Noticed);
        add(CONTROL, "wake", SLOTS_AT + 128 * slot + 48, 4, Noticed);
    }
    add(CONTROL, "head", RING_AT, 8, Believed);
    add(CONTROL, "tail", RING_AT + 128, 8, Believed);
    add(CONTROL, "entries", RING_AT + 256, 8 * ENTRIES, Believed);
    for chunk in 0..(CHUNKS[0] + CHUNKS[1]) as usize {
        let at = POOL_AT + 16 * chunk;
        add(CONTROL, "state", at, 8, Content);
        add(CONTROL, "length", at + 8, 4, Content);
        add(CONTROL, "since", at + 12, 4, Believed);
        add(CONTROL, "placed", PLACED_AT + 8 * chunk, 8, Believed);
        add(CONTROL, "due", DUE_AT + 8 * chunk, 8, Believed);
    }
    add(DATA, "header", 0, 128, Noticed);
    for chunk in 0..CHUNKS[0] as usize {
        add(DATA, "payload", 4096 + 128 * chunk, 8, Content);
    }
    add(RING, "header", 0, 128, Noticed);
    add(RING, "head", 4096, 8, Believed);
    add(RING, "tail", 4224, 8, Believed);
    add(RING, "tokens", 4352, 8 * TOKENS, Believed);
    places
}

/// What is done to one of the files.
type Damage = Box<dyn Fn(&mut Files)>;
type Case = (String, Promise, Damage);

/// Words of a file, each set to `value`.
fn words(file: &'static str, ats: Vec<usize>, value: u64) -> Damage {
    Box::new(move |files| {
        let bytes = files.get_mut(file).expect("it is one of them");
        ats.iter().for_each(|at| bytes[*at..at + 8].copy_from_slice(&value.to_le_bytes()));
    })
}

/// Numbers at the ends of their ranges, by the word and by the table; headers whose checksum fits.
fn plans(sound: &Files) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let chunks = (CHUNKS[0] + CHUNKS[1]) as usize;
    let all = |at: usize, stride: usize, count: usize| -> Vec<usize> {
        (0..count).map(|index| at + stride * index).collect()
    };
    for state in 0..8u64 {
        for node in [0u64, 1, 2, u64::from(u32::MAX)] {
            let word = node << 32 | state;
            let damage = words(CONTROL, all(POOL_AT, 16, chunks), word);
            cases.push((format!("all chunks are {word:#x}"), Content, damage));
            let damage = words(CONTROL, all(SLOTS_AT, 128, CONSUMERS), word);
            cases.push((format!("all consumer slots are {word:#x}"), Believed, damage));
        }
    }
    for value in super::structure::EDGES {
        let mut add = |what: &str, promise, damage| {
            cases.push((format!("{what} is {value:#x}"), promise, damage));
        };
        add("every note", Content, words(CONTROL, all(POOL_AT + 8, 16, chunks), value));
        add("every due", Believed, words(CONTROL, all(DUE_AT, 8, chunks), value));
        add("every placed", Believed, words(CONTROL, all(PLACED_AT, 8, chunks), value));
        add("every entry", Believed, words(CONTROL, all(RING_AT + 256, 8, ENTRIES), value));
        add("head and tail", Believed, words(CONTROL, vec![RING_AT, RING_AT + 128], value));
        add("every token", Believed, words(RING, all(4352, 8, TOKENS), value));
        add("head and tail of tokens", Believed, words(RING, vec![4096, 4224], value));
        for place in places().into_iter().filter(|place| place.what != "header") {
            // A word of which a part was named already is not taken twice.
            let first = place.at.next_multiple_of(8);
            for at in (first..place.at + place.len.min(32)).step_by(8) {
                let what = format!("{} {} at {at}", place.file, place.what);
                add(&what, place.promise, words(place.file, vec![at], value));
            }
        }
        for file in [CONTROL, DATA, RING] {
            for field in (8..120).step_by(8) {
                let damage: Damage = Box::new(move |files| {
                    words(file, vec![field], value)(files);
                    let bytes = files.get_mut(file).expect("it is one of them");
                    let crc = u64::from(crc32fast::hash(&bytes[..120]));
                    bytes[120..128].copy_from_slice(&crc.to_le_bytes());
                });
                add(&format!("{file} header at {field}, mended,"), Content, damage);
            }
        }
    }
    for (file, len) in sound.iter().filter(|(file, _)| *file != "bus").map(|(f, b)| (f, b.len())) {
        for other in [0, 1, 127, 128, 4095, 4096, len - 1, len + 1, len + 4096, 1 << 20] {
            let file = file.clone();
            let resize = move |files: &mut Files| {
                files.get_mut(&file).expect("it is one of them").resize(other, 0);
            };
            cases.push((format!("a file has {other} bytes"), Noticed, Box::new(resize)));
        }
    }
    let gone = |files: &mut Files| drop(files.remove(DATA));
    cases.push(("the payloads are gone".to_owned(), Noticed, Box::new(gone)));
    cases
}

/// Rings that contradict the chunks that wait. All of these are tried each time.
fn rings(sound: &Files) -> Vec<Case> {
    let word = |file: &str, at: usize| super::word(&sound[file], at);
    let slot = |place: u64| RING_AT + 256 + 8 * (place as usize % ENTRIES);
    let empty = |place: u64| (place / ENTRIES as u64) << 41;
    // The words of head and tail are hints: the entries themselves say where the ring begins and ends.
    let is_full = |place: &u64| word(CONTROL, slot(*place)) >> 40 == empty(*place) >> 40 | 1;
    let hint = word(CONTROL, RING_AT);
    let head = (hint..hint + ENTRIES as u64).find(is_full).expect("messages wait");
    let tail = (head..head + ENTRIES as u64).find(|place| !is_full(place)).expect("it is not full");
    let mut cases: Vec<Case> = Vec::new();
    let mut add = |what: &str, changes: Vec<(usize, u64)>| {
        let damage: Damage = Box::new(move |files| {
            changes.iter().for_each(|(at, value)| words(CONTROL, vec![*at], *value)(files));
        });
        cases.push((format!("{what}: entries"), Believed, damage));
    };
    let of_ring: Vec<usize> =
        [RING_AT, RING_AT + 128].into_iter().chain((0..32).map(slot)).collect();
    add("the ring is that of a fresh queue", of_ring.iter().map(|at| (*at, 0)).collect());
    add("the head is at the tail", vec![(RING_AT, tail)]);
    add("the tail is at the head", vec![(RING_AT + 128, head)]);
    for place in head..tail {
        add(&format!("place {place} is empty"), vec![(slot(place), empty(place))]);
        add(&format!("place {place} was emptied"), vec![(slot(place), empty(place) + (1 << 41))]);
        for chunk in [0, 8, 9, (1 << 24) - 1] {
            let turn = 1 << 24;
            let full = empty(place) | 1 << 40 | turn | chunk;
            add(&format!("place {place} names chunk {chunk}"), vec![(slot(place), full)]);
        }
    }
    cases
}

/// Every flip of every byte.
fn flips(sound: &Files) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    for place in places() {
        let (file, what, promise) = (place.file, place.what, place.promise);
        let bytes = sound[file].iter().copied().enumerate().skip(place.at).take(place.len);
        for (at, byte) in bytes {
            for value in flips_of(byte, at) {
                let damage: Damage = Box::new(move |files| {
                    files.get_mut(file).expect("it is one of them")[at] = value;
                });
                cases.push((format!("{file} byte {at} ({what}) = {value:#04x}"), promise, damage));
            }
        }
    }
    cases
}

fn attempt(
    path: &Path,
    files: &Files,
    sound: &Visit,
    promise: Promise,
    keeps: bool,
) -> Result<(), String> {
    lay(path, files);
    let began = Instant::now();
    let visit = catch_unwind(AssertUnwindSafe(|| Visit::of(path)));
    let time = began.elapsed();
    match visit {
        Ok(_) if time > VISIT_MAX => Err(format!("it took {time:?}")),
        Ok(visit) => visit.judge(sound, promise, keeps),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// Damages the files of queues, by `flips` or as `planned`. Says `case …` before each, `wrong …` and `done COUNT`.
pub fn damaged(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let files = build(&path.with_extension("model"));
    lay(path, &files);
    let sound = Visit::of(path);
    lay(path, &files);
    assert_eq!(Visit::of(path), sound, "a visit of sound files is always the same");
    sound.assert_is_sound();
    let (always, cases) = match scene.text("how") {
        "flips" => (Vec::new(), flips(&files)),
        _ => (rings(&files), plans(&files)),
    };
    // Odd, so that all kinds have their turn.
    let every = if is_exhaustive() { 1 } else { (cases.len() / SAMPLE) | 1 };
    let mut count = 0;
    for (name, promise, damage) in always.into_iter().chain(cases.into_iter().step_by(every)) {
        line.say(format_args!("case {name}"));
        let mut damaged = files.clone();
        damage(&mut damaged);
        let keeps = KEEPERS.iter().any(|what| name.contains(what));
        if let Err(why) = attempt(path, &damaged, &sound, promise, keeps) {
            line.say(format_args!("wrong {name}: {}", why.replace('\n', " ")));
        }
        count += 1;
    }
    line.say(format_args!("done {count}"));
}
