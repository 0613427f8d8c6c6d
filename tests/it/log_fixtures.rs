//! Logs of format v1 that were written once and are read for ever, sound ones and damaged ones.
//!
//! They lie in `tests/fixtures/v1`, each as a text: of each file its name, its length, and what of it is not zero, 32
//! bytes to a line. `WINDLASS_MAKE_FIXTURES=1 cargo test --test it log_fixtures` makes those that are not there. One
//! that is there stays as it is: a library that cannot read it has changed the format.

use super::durable::Logs;
use super::log::disk::{lay, look, File, Files, PAGE};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use windlass::schemas::tick_capnp::tick;
use windlass::{Append, Bus, Raw, RecvError, Start, Topic};

const COUNT: u64 = 40;
/// What `torn` had on disk when its machine crashed.
const SYNCED: u64 = 25;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/v1").join(format!("{name}.log.txt"))
}

fn to_text(files: &Files) -> String {
    let mut text = String::new();
    for (name, file) in files {
        writeln!(text, "file {name} {}", file.len).expect("a text grows");
        for (page, bytes) in &file.pages {
            for (index, line) in bytes.chunks(32).enumerate().filter(|it| it.1 != [0; 32]) {
                write!(text, "{:x} ", page * PAGE + index * 32).expect("a text grows");
                line.iter().for_each(|byte| write!(text, "{byte:02x}").expect("a text grows"));
                text.push('\n');
            }
        }
    }
    text
}

fn from_text(text: &str) -> Files {
    let mut files: Files = Files::new();
    let mut last = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["file", name, len] = words[..] {
            last = name.to_owned();
            let len = len.parse().expect("a length");
            files.insert(last.clone(), File { len, ..File::default() });
            continue;
        }
        let at = usize::from_str_radix(words[0], 16).expect("an offset");
        let file = files.get_mut(&last).expect("a file comes first");
        let page = file.pages.entry(at / PAGE).or_insert_with(|| vec![0; PAGE]);
        for (index, byte) in page[at % PAGE..at % PAGE + 32].iter_mut().enumerate() {
            let digits = &words[1][index * 2..index * 2 + 2];
            *byte = u8::from_str_radix(digits, 16).expect("a byte");
        }
    }
    files
}

/// Message `number` and its key, as they were written into the fixtures.
fn text(number: u64) -> (Vec<u8>, Vec<u8>) {
    let text = (0..number * 11 % 400).map(|at| (number * 3 + at) as u8).collect();
    (text, b"a key of twenty bytes"[..(number % 21) as usize].to_vec())
}

fn open(path: &Path) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(path).publishers_max(2);
    topic.segment_bytes(4096).open().expect("format v1 is read for ever")
}

fn open_typed(path: &Path) -> Topic<tick::Owned> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<tick::Owned>("ticks").durable_at(path).publishers_max(1);
    topic.segment_bytes(4096).open().expect("format v1 is read for ever")
}

/// Publishes by turns of two on two lanes; returns file and byte where each record begins.
fn fill(topic: &Topic<Raw>, numbers: std::ops::Range<u64>) -> Vec<(String, usize)> {
    let mut publishers = [(); 2].map(|()| topic.publisher().expect("there is a lane"));
    let publish = |number| {
        let (text, key) = text(number);
        let publisher = &mut publishers[(number / 2 % 2) as usize];
        let receipt = publisher.append(&text, &Append::new().key(&key)).expect("there is room");
        let file = format!("lane-{}-{:012x}", receipt.lane, receipt.position / 4096);
        (file, PAGE + receipt.position as usize % 4096)
    };
    numbers.map(publish).collect()
}

fn flip(files: &mut Files, file: &str, at: usize) {
    let page = files.get_mut(file).and_then(|file| file.pages.get_mut(&(at / PAGE)));
    page.expect("it is not zero")[at % PAGE] ^= 0x10;
}

/// Writes a fixture if it is not there, and lays it at the path that is returned.
fn laid(logs: &Logs, name: &str, make: impl FnOnce(&Path) -> Files) -> PathBuf {
    let (path, file) = (logs.0.join("log"), fixture(name));
    if std::env::var_os("WINDLASS_MAKE_FIXTURES").is_some() && !file.exists() {
        let files = make(&path);
        std::fs::create_dir_all(file.parent().expect("it is in a folder")).expect("it is ours");
        std::fs::write(&file, to_text(&files)).expect("it is ours");
    }
    let text = std::fs::read_to_string(&file).expect("the fixture is there");
    let mut files = from_text(&text);
    assert_eq!(to_text(&files), text);
    // It was written in another run of the machine, whatever machine this is.
    super::log::disk::reboot(&mut files);
    lay(&files, &path);
    path
}

/// Reads a log to its end; returns the sequences of what was damaged.
fn read(topic: &Topic<Raw>, count: u64) -> Vec<u64> {
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let (mut next, mut damaged) = (0, Vec::new());
    loop {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                assert_eq!((message.sequence(), message.bytes()), (next, &text(next).0[..]));
            }
            Ok(None) => break,
            Err(RecvError::Damaged { sequence }) => damaged.push(sequence),
            Err(error) => panic!("{error}"),
        }
        next += 1;
    }
    assert_eq!(next, count);
    damaged
}

#[test]
fn a_log_of_two_lanes_is_read_for_ever() {
    let logs = Logs::in_memory("fixture-raw");
    let path = laid(&logs, "raw", |path| {
        fill(&open(path), 0..COUNT);
        look(path)
    });
    let topic = open(&path);
    assert_eq!(topic.recovery().expect("nobody else has it").cut_messages, 0);
    assert!(read(&topic, COUNT).is_empty());
    fill(&topic, COUNT..COUNT + 20);
    assert!(read(&topic, COUNT + 20).is_empty());
}

#[test]
fn a_log_of_typed_messages_is_read_for_ever() {
    let logs = Logs::in_memory("fixture-typed");
    let path = laid(&logs, "typed", |path| {
        let topic = open_typed(path);
        let mut publisher = topic.publisher().expect("there is a lane");
        for number in 0..COUNT {
            let mut loan = publisher.loan().expect("there is room");
            loan.init_root().set_symbol(&format!("tick {number}"));
            loan.publish().expect("there is room");
        }
        drop((publisher, topic));
        look(path)
    });
    let topic = open_typed(&path);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    for number in 0..COUNT {
        let message = subscriber.try_recv().expect("it is sound").expect("it was published");
        let tick = message.get().expect("it is a tick");
        let symbol = tick.get_symbol().expect("it has one").to_str().expect("it is text");
        assert_eq!(symbol, format!("tick {number}"));
    }
    assert!(subscriber.try_recv().expect("it is sound").is_none());
}

#[test]
fn a_flipped_byte_of_a_message_is_named_for_ever() {
    let logs = Logs::in_memory("fixture-flipped");
    let path = laid(&logs, "flipped-payload", |path| {
        let places = fill(&open(path), 0..COUNT);
        let mut files = look(path);
        flip(&mut files, &places[17].0, places[17].1 + 30);
        files
    });
    assert_eq!(read(&open(&path), COUNT), [17]);
}

#[test]
fn a_flipped_word_of_the_order_is_named_for_ever() {
    let logs = Logs::in_memory("fixture-place");
    let path = laid(&logs, "flipped-place", |path| {
        fill(&open(path), 0..COUNT);
        let mut files = look(path);
        flip(&mut files, "places-000000000000", PAGE + 8 * 23);
        files
    });
    assert_eq!(read(&open(&path), COUNT), [23]);
}

#[test]
fn the_torn_end_of_a_log_is_cut_off_for_ever() {
    let logs = Logs::in_memory("fixture-torn");
    let path = laid(&logs, "torn", |path| {
        fill(&open(path), 0..SYNCED);
        let before = look(path);
        let places = fill(&open(path), SYNCED..COUNT);
        let mut files = look(path);
        files.insert("checkpoint".to_owned(), before["checkpoint"].clone());
        // Message 31 lost its end, and those behind it in its segment are gone.
        let (file, at) = &places[31 - SYNCED as usize];
        let from = at + 24;
        let pages = &mut files.get_mut(file).expect("it is there").pages;
        pages.get_mut(&(from / PAGE)).expect("it is not zero")[from % PAGE..].fill(0);
        files
    });
    let topic = open(&path);
    let recovery = topic.recovery().expect("nobody else has it");
    assert_eq!((recovery.next, recovery.cut_messages), (31, COUNT - 31), "{recovery:?}");
    assert!(read(&topic, 31).is_empty());
    fill(&topic, 31..COUNT);
    assert!(read(&topic, COUNT).is_empty());
}
