//! Reading logs at will: whatever is read, by whatever way, is what was published.

use super::durable::Logs;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::*};
use windlass::{
    Append, Bus, Damage, ErrorKind, Log, Publisher, Raw, ReadError, Receipt, Start, Topic,
};

pub const SEGMENT: u64 = 1 << 14;

/// A message as it was published.
#[derive(Clone, Debug, PartialEq)]
pub struct Sent {
    pub lane: u32,
    pub key: Vec<u8>,
    pub payload: Vec<u8>,
}

pub fn folder(logs: &Logs) -> PathBuf {
    logs.0.join("events")
}

pub fn open(logs: &Logs) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(folder(logs)).publishers_max(4);
    topic.segment_bytes(SEGMENT).open().expect("the log can be opened")
}

/// Publishes `payload` and checks that it got the sequence after that of the last.
fn publish(publisher: &mut Publisher<Raw>, sent: &mut Vec<Sent>, payload: &[u8], key: &[u8]) {
    let receipt = publisher.append(payload, &Append::new().key(key)).expect("there is room");
    assert_eq!(receipt.sequence, sent.len() as u64);
    let (key, payload) = (key.to_vec(), payload.to_vec());
    sent.push(Sent { lane: receipt.lane, key, payload });
}

pub fn same(view: &windlass::View<Raw>, sent: &[Sent]) {
    let wanted = &sent[view.sequence() as usize];
    let got =
        Sent { lane: view.lane(), key: view.key().to_vec(), payload: view.as_bytes().to_vec() };
    assert_eq!(got, *wanted, "message {}", view.sequence());
    assert!(view.time_ns().is_some_and(|time| time > 0) && view.is_intact());
}

/// Every way to read says the same as the list.
fn agrees(log: &Log<Raw>, sent: &[Sent]) {
    let count = sent.len() as u64;
    assert_eq!((log.first().expect("sound"), log.next().expect("sound")), (0, count));
    assert_eq!(log.count().expect("sound"), count);
    for sequence in 0..count {
        let view = log.get(sequence).expect("it was published");
        assert_eq!(view.sequence(), sequence);
        same(&view, sent);
    }
    let of = |range| log.iter(range).expect("within").map(|view| view.expect("sound"));
    assert!(of(0..count).map(|view| view.sequence()).eq(0..count));
    of(0..count).for_each(|view| same(&view, sent));
    assert!(of(0..count).rev().map(|view| view.sequence()).eq((0..count).rev()));
    let (from, to) = (count / 3, count - count / 4);
    assert!(of(from..to).map(|view| view.sequence()).eq(from..to));
    let mut ends = of(from..to);
    let mut due = from..to;
    while let Some(front) = due.next() {
        assert_eq!(ends.next().map(|view| view.sequence()), Some(front));
        assert_eq!(ends.next_back().map(|view| view.sequence()), due.next_back());
    }
    for last in [0, 1, 5, count, count + 7] {
        let last_ones = log.last(last).expect("sound").map(|view| view.expect("sound").sequence());
        assert!(last_ones.eq(count.saturating_sub(last)..count));
    }
    for log in [log.clone(), log.clone().checked(false)] {
        let (mut scan, mut due) = (log.scan(..).expect("sound"), 0);
        while let Some(record) = scan.read() {
            let record = record.expect("sound");
            let wanted = &sent[due as usize];
            assert_eq!((record.sequence(), record.bytes()), (due, &wanted.payload[..]));
            assert_eq!((record.key(), record.lane()), (&wanted.key[..], wanted.lane));
            same(&record.pin(), sent);
            due += 1;
        }
        assert_eq!(due, count);
    }
    by_time(log);
    for wrong in [count, count + 1, u64::MAX] {
        let error = log.get(wrong).expect_err("not published");
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
        let said = format!("the oldest that is kept is 0, the next one is {count}");
        assert!(error.to_string().contains(&said), "{error}");
        assert!(log.iter(wrong.max(count + 1)..).is_err() && log.iter(..=wrong).is_err());
    }
}

/// Times, against a walk over all of them.
fn by_time(log: &Log<Raw>) {
    let times: Vec<u64> = log
        .iter(..)
        .expect("sound")
        .map(|view| view.expect("sound").time_ns().expect("it has a time"))
        .collect();
    let first = |time: u64| times.iter().position(|it| *it >= time).unwrap_or(times.len()) as u64;
    let some = times.iter().step_by(times.len() / 8 + 1).copied();
    for time in some.flat_map(|time| [time - 1, time, time + 1]).chain([0, u64::MAX]) {
        assert_eq!(log.at_time(time).expect("sound"), first(time));
        let since = log.since(time).expect("sound").next();
        let since = since.map(|view| view.expect("sound").sequence());
        assert_eq!(since, Some(first(time)).filter(|it| *it < times.len() as u64));
        let until = time.saturating_add(50_000);
        let between = log.between(time, until).expect("sound");
        assert_eq!(between.left(), first(time)..first(until).max(first(time)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Several lanes, keys, sizes from nothing to what fills a segment, reopening: every way to read gives what was
    /// published, while the topic is open, and from the folder alone.
    #[test]
    fn whatever_was_published_is_read_by_every_way(
        rounds in prop::collection::vec(
            prop::collection::vec((0..3usize, 0..4u8, 0..40usize), 1..120), 1..4)
    ) {
        let logs = Logs::new("read");
        let mut sent = Vec::new();
        for round in rounds {
            let topic = open(&logs);
            let mut publishers: Vec<_> =
                (0..3).map(|_| topic.publisher().expect("a free lane")).collect();
            // One that was made before there was anything to read.
            let early = topic.log().expect("durable");
            for (lane, kind, size) in round {
                let len = match kind {
                    0 => 0,
                    1 => size,
                    2 => size * 97,
                    _ => SEGMENT as usize - 24 - 16 - 64 * size - 48,
                };
                let payload: Vec<u8> = (0..len).map(|at| (at * 7 + size) as u8).collect();
                let key = vec![kind + 1; usize::from(kind) * size % 33];
                publish(&mut publishers[lane], &mut sent, &payload, &key);
            }
            agrees(&early, &sent);
            agrees(&topic.log().expect("durable"), &sent);
            agrees(&Log::open(folder(&logs)).expect("a log"), &sent);
        }
        agrees(&Log::open_untyped(folder(&logs)).expect("a log"), &sent);
    }
}

fn number_of(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"))
}

#[test]
fn readers_see_what_is_committed_while_others_publish() {
    let logs = Logs::new("live");
    let topic = open(&logs);
    let (count, done) = (30_000u64, AtomicU64::new(0));
    drop(topic.publisher());
    std::thread::scope(|scope| {
        for lane in 0..2u64 {
            let (topic, done) = (&topic, &done);
            scope.spawn(move || {
                let mut publisher = topic.publisher().expect("a free lane");
                for number in 0..count {
                    let mut bytes = [0; 24];
                    bytes[..8].copy_from_slice(&(2 * number + lane).to_le_bytes());
                    publisher.publish(&bytes).expect("there is room");
                }
                done.fetch_add(1, Release);
            });
        }
        let logs = [topic.log().expect("durable"), Log::open(folder(&logs)).expect("a log")];
        for log in logs {
            let done = &done;
            scope.spawn(move || {
                let (mut seen, mut due, mut dice) = (0, [0, 1], 7u64);
                loop {
                    let is_over = done.load(Acquire) == 2;
                    let next = log.next().expect("sound");
                    assert!(next >= seen, "the end goes forwards");
                    for view in log.iter(seen..next).expect("within") {
                        let number = number_of(view.expect("sound").as_bytes());
                        assert_eq!(number, due[number as usize % 2]);
                        due[number as usize % 2] += 2;
                    }
                    for _ in 0..100.min(next) {
                        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let sequence = (dice >> 33) % next;
                        assert_eq!(log.get(sequence).expect("there").sequence(), sequence);
                    }
                    seen = next;
                    if is_over {
                        break;
                    }
                }
                assert_eq!((seen, due), (2 * count, [2 * count, 2 * count + 1]));
            });
        }
    });
}

/// A hundred messages with keys, with their receipts.
pub fn hundred(topic: &Topic<Raw>) -> (Vec<Sent>, Vec<Receipt>) {
    let mut publishers = [0, 1].map(|_| topic.publisher().expect("a free lane"));
    let (mut sent, mut receipts) = (Vec::new(), Vec::new());
    for number in 0..100u8 {
        let publisher = &mut publishers[usize::from(number % 3 == 0)];
        let (payload, key) = (vec![number; 300 + usize::from(number)], [number; 5]);
        receipts.push(publisher.append(&payload, &Append::new().key(&key)).expect("room"));
        sent.push(Sent { lane: receipts[usize::from(number)].lane, key: key.to_vec(), payload });
    }
    (sent, receipts)
}

/// What reading says of each sequence: what is wrong with it.
fn wrongs(log: &Log<Raw>, sent: &[Sent]) -> Vec<(u64, Damage)> {
    let mut wrongs = Vec::new();
    let mut note = |found: Result<windlass::View<Raw>, ReadError>| match found {
        Ok(view) => same(&view, sent),
        Err(ReadError::Damaged { sequence, damage }) => wrongs.push((sequence, damage)),
        Err(other) => panic!("{other}"),
    };
    log.iter(..).expect("sound").for_each(&mut note);
    let mut back = Vec::new();
    for found in log.iter(..).expect("sound").rev() {
        if let Err(ReadError::Damaged { sequence, damage }) = found {
            back.insert(0, (sequence, damage));
        }
    }
    assert_eq!(back, wrongs);
    let (mut scanned, mut scan) = (Vec::new(), log.scan(..).expect("sound"));
    while let Some(found) = scan.read() {
        if let Err(ReadError::Damaged { sequence, damage }) = found {
            scanned.push((sequence, damage));
        }
    }
    assert_eq!(scanned, wrongs);
    for sequence in 0..sent.len() as u64 {
        let is_wrong = wrongs.iter().any(|wrong| wrong.0 == sequence);
        let kind = log.get(sequence).err().map(|error| error.kind());
        assert_eq!(kind, is_wrong.then_some(ErrorKind::Damaged), "message {sequence}");
    }
    wrongs
}

#[test]
fn a_byte_that_changed_anywhere_in_a_record_costs_that_record() {
    let logs = Logs::new("flips");
    let topic = open(&logs);
    let (sent, receipts) = hundred(&topic);
    for (number, receipt) in receipts.iter().enumerate() {
        let (logical, at) = (receipt.position / SEGMENT, receipt.position % SEGMENT);
        let file = folder(&logs).join(format!("lane-{}-{logical:012x}", receipt.lane));
        let file = std::fs::File::options().read(true).write(true).open(file).expect("there");
        let bytes = 24 + (300 + number as u64).next_multiple_of(8) + 8;
        // The number in the head, the time, the checksum, the payload, its zeroes, the key, and its zeroes.
        let marks = [5, 8, 16, 24 + number as u64, bytes - 8, bytes - 1];
        let at = 4096 + at + marks[number % marks.len()];
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is there");
        file.write_all_at(&[byte[0] ^ 0x10], at).expect("it can be written");
        let wanted = [(number as u64, Damage::Checksum)];
        assert_eq!(wrongs(&topic.log().expect("durable"), &sent), wanted);
        assert_eq!(wrongs(&Log::open(folder(&logs)).expect("a log"), &sent), wanted);
        file.write_all_at(&byte, at).expect("it can be written");
    }
    assert!(wrongs(&Log::open(folder(&logs)).expect("a log"), &sent).is_empty());
}

/// The word of the order that makes the record at `position_8 * 8` the message `sequence`.
pub fn place_word(lane: u64, position_8: u64, sequence: u64) -> u64 {
    let word = 1 << 63 | lane << 56 | position_8;
    let bytes = word.to_le_bytes().into_iter().chain(u64::to_le_bytes(sequence));
    word | u64::from(bytes.fold(0, |sum, byte| sum ^ byte)) << 48
}

#[test]
fn a_place_that_is_gone_or_wrong_costs_one_message() {
    let logs = Logs::new("places");
    let topic = open(&logs);
    let (sent, _) = hundred(&topic);
    let file = folder(&logs).join("places-000000000000");
    let file = std::fs::File::options().read(true).write(true).open(file).expect("there");
    for (word, damage) in [
        (0, Damage::Place),
        (u64::MAX, Damage::Place),
        (place_word(3, 2, 50), Damage::Gone),
        (place_word(0, 77, 50), Damage::Record),
    ] {
        let mut old = [0; 8];
        file.read_exact_at(&mut old, 4096 + 50 * 8).expect("it is there");
        file.write_all_at(&word.to_le_bytes(), 4096 + 50 * 8).expect("it can be written");
        let found = wrongs(&topic.log().expect("durable"), &sent);
        // Some other record may begin where a wrong place says.
        let found: Vec<_> = found.iter().map(|wrong| wrong.0).collect();
        assert_eq!(found, [50], "{damage}");
        file.write_all_at(&old, 4096 + 50 * 8).expect("it can be written");
    }
}

#[test]
fn a_segment_that_is_gone_costs_what_was_in_it() {
    let logs = Logs::new("gone");
    let topic = open(&logs);
    let (sent, receipts) = hundred(&topic);
    drop(topic);
    let file = |name: &str| folder(&logs).join(name);
    std::fs::rename(file("lane-0-000000000001"), file("aside")).expect("it is there");
    let lost = receipts.iter().enumerate();
    let lost = lost.filter(|(_, it)| it.lane == 0 && it.position / SEGMENT == 1);
    let lost: Vec<_> = lost.map(|(number, _)| (number as u64, Damage::Gone)).collect();
    assert!(lost.len() > 20);
    assert_eq!(wrongs(&Log::open(folder(&logs)).expect("a log"), &sent), lost);
    // Another one in its place is not taken for it.
    std::fs::copy(file("lane-0-000000000000"), file("lane-0-000000000001")).expect("room");
    let lost: Vec<_> = lost.iter().map(|wrong| (wrong.0, Damage::File)).collect();
    assert_eq!(wrongs(&Log::open(folder(&logs)).expect("a log"), &sent), lost);
    std::fs::rename(file("aside"), file("lane-0-000000000001")).expect("it is there");
    assert!(wrongs(&Log::open(folder(&logs)).expect("a log"), &sent).is_empty());
}

#[test]
fn what_is_not_a_log_is_refused_with_a_sentence() {
    let logs = Logs::new("refused");
    let refused = |kind: ErrorKind, words: &str| {
        let error = Log::<Raw>::open(folder(&logs)).expect_err("it is no log");
        assert!(error.kind() == kind && error.to_string().contains(words), "{error}");
    };
    refused(ErrorKind::NotFound, "does not exist");
    std::fs::create_dir(folder(&logs)).expect("there is room");
    refused(ErrorKind::NotFound, "is not the folder of a log");
    std::fs::write(folder(&logs).join("log"), [0; 4096]).expect("there is room");
    refused(ErrorKind::Corrupt, "the magic number");
    std::fs::remove_dir_all(folder(&logs)).expect("it is there");

    let bus = Bus::anonymous().expect("there is memory");
    let typed = bus.topic::<windlass::schemas::tick_capnp::tick::Owned>("ticks");
    let typed = typed.durable_at(folder(&logs)).open().expect("the log can be made");
    typed.publisher().expect("a free lane").loan().expect("room").publish().expect("room");
    refused(ErrorKind::Mismatch, "has Cap'n Proto messages, not raw bytes");
    let error = Log::<windlass::schemas::reading_capnp::reading::Owned>::open(folder(&logs));
    assert_eq!(error.expect_err("another type").kind(), ErrorKind::Mismatch);
    let log = Log::open_untyped(folder(&logs)).expect("any log");
    assert!(log.is_typed() && log.schema_bytes().expect("sound").len() > 100);
    let log = Log::<windlass::schemas::tick_capnp::tick::Owned>::open(folder(&logs));
    let log = log.expect("its own type");
    assert!(log.get(0).expect("published").get().expect("a tick").get_price() == 0.0);
    let info = log.info().expect("sound");
    assert_eq!((info.first, info.next, info.typed, info.checksums), (0, 1, true, true));
    assert!(info.disk_bytes > info.segment_bytes && info.segments[&0] >= 1, "{info:?}");
    let volatile = bus.topic::<Raw>("volatile").open().expect("there is memory");
    assert_eq!(volatile.log().expect_err("it has none").kind(), ErrorKind::Invalid);
}

/// A view outlives its files, its log, and everything else.
#[test]
fn a_view_is_valid_whatever_becomes_of_the_log() {
    let logs = Logs::new("views");
    let topic = open(&logs);
    let (sent, _) = hundred(&topic);
    let log = Log::<Raw>::open(folder(&logs)).expect("a log");
    let views: Vec<_> = log.iter(..).expect("sound").map(|view| view.expect("sound")).collect();
    drop((log, topic));
    std::fs::remove_dir_all(folder(&logs)).expect("it is there");
    views.iter().for_each(|view| same(view, &sent));
}

/// A subscriber and a log agree on where things begin.
#[test]
fn a_subscriber_begins_where_the_log_says() {
    let logs = Logs::new("agree");
    let topic = open(&logs);
    let (_, _) = hundred(&topic);
    let log = topic.log().expect("durable");
    for start in [0, 1, 50, 99] {
        let mut subscriber = topic.subscriber(Start::Sequence(start)).expect("a free slot");
        let message = subscriber.try_recv().expect("sound").expect("published");
        let view = log.get(start).expect("published");
        assert_eq!(message.position(), view.position());
        assert_eq!((message.time_ns(), message.key()), (view.time_ns(), view.key()));
    }
}
