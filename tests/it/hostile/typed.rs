//! Damage to typed topics: the schema that is stored, and messages whose publisher changes them.

use super::word;
use crate::process::{Line, Scene};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use windlass::schemas::tick_capnp::tick;
use windlass::{Bus, ErrorKind, Start, Subscriber, Topic};

const SYMBOL: &str = "a symbol of some length";

fn topic(bus: &Bus) -> Topic<tick::Owned> {
    let builder = bus.topic::<tick::Owned>("t").segment_bytes(4096).prefault(false);
    builder.publishers_max(1).subscribers_max(2).open().expect("a fresh topic, or the same")
}

fn publish(topic: &Topic<tick::Owned>) {
    let mut publisher = topic.publisher().expect("the only one");
    let mut loan = publisher.loan().expect("room");
    let mut tick = loan.init_root();
    tick.set_symbol(SYMBOL);
    tick.set_number(77);
    loan.publish().expect("room");
}

fn file_of(bus: &str, name: &str) -> PathBuf {
    Path::new(bus).join("t.topic").join(name)
}

/// Flips every byte of the stored schema. Says `case …`, `wrong …` and `done COUNT`.
pub fn schema(scene: &Scene, line: &mut Line) {
    let bus = Bus::open(scene.bus_path()).expect("a fresh bus");
    publish(&topic(&bus));
    let path = file_of(scene.bus_path(), "control");
    let sound = std::fs::read(&path).expect("it is there");
    let file = File::options().write(true).open(&path).expect("it is there");
    let len = word(&sound, 104) as usize;
    let at = sound.len() - len.next_multiple_of(4096);
    let schema_at = (at..sound.len()).find(|at| is_schema(&sound, *at, len)).expect("stored");
    let mut count = 0u64;
    for at in schema_at..schema_at + len {
        line.say(format_args!("case schema byte {}", at - schema_at));
        let flip = [1, 0x80, 0xff][at % 3];
        file.write_all_at(&[sound[at] ^ flip], at as u64).expect("it is inside");
        let opened = bus.topic::<tick::Owned>("t").open_existing().map(drop);
        let looked = bus.inspect("t").map(drop);
        for result in [opened, looked] {
            if !result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
                line.say(format_args!("wrong schema byte {}: {result:?}", at - schema_at));
            }
        }
        file.write_all_at(&[sound[at]], at as u64).expect("it is inside");
        count += 1;
    }
    assert!(bus.inspect("t").is_ok(), "it is sound again");
    line.say(format_args!("done {count}"));
}

/// Whether the schema, whose checksum is in the header, begins at byte `at`.
fn is_schema(control: &[u8], at: usize, len: usize) -> bool {
    let crc = u64::from(crc32fast::hash(control.get(at..at + len).unwrap_or_default()));
    at.is_multiple_of(8) && crc == word(control, 112)
}

/// Copies a message again and again while somebody changes its bytes. Says `done COUNT`, of those copies
/// that were messages.
pub fn copies(scene: &Scene, line: &mut Line) {
    let bus = Bus::open(scene.bus_path()).expect("a fresh bus");
    let topic = topic(&bus);
    publish(&topic);
    let mut subscriber: Subscriber<tick::Owned> = topic.subscriber(Start::Oldest).expect("a slot");
    let message = subscriber.try_recv().expect("sound").expect("it was published");
    let (view, len) = (message.pin(), message.bytes().len());
    let lane = file_of(scene.bus_path(), "lane-0");
    let file = File::options().write(true).open(lane).expect("it is there");
    let payload_at = 4096 + message.position() + 8;
    let sound = message.bytes().to_vec();
    let ended = AtomicBool::new(false);
    let count = scene.number("count");
    let good = std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0u64.. {
                if ended.load(Relaxed) {
                    break;
                }
                let mixed = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 7;
                let at = (mixed % (len as u64 / 8)) * 8;
                let value =
                    [0, u64::MAX, mixed, 1 << (mixed % 64), mixed % 4096][turn as usize % 5];
                let value = value.to_le_bytes();
                file.write_all_at(&value, payload_at + at).expect("it is inside");
                if turn % 3 == 0 {
                    file.write_all_at(&sound, payload_at).expect("it is inside");
                }
            }
        });
        let mut is_good = |turn: u64| {
            line.say(format_args!("case copy {turn}"));
            let copy = if turn.is_multiple_of(2) {
                message.to_owned_message()
            } else {
                view.to_owned_message()
            };
            let Ok(copy) = copy else { return false };
            // Whatever it says, it can be walked, and says the same again.
            let tick = copy.get_root_as_reader().expect("a copy is a message");
            let size = tick.total_size().expect("all of it").word_count;
            // Where a text should be something else may be, and that is an error.
            let symbol = || tick.get_symbol().ok().map(|symbol| symbol.as_bytes().to_vec());
            let (first, number) = (symbol(), tick.get_number());
            std::thread::yield_now();
            assert_eq!((symbol(), tick.get_number()), (first.clone(), number));
            assert_eq!(tick.total_size().expect("the same").word_count, size);
            first.is_some_and(|symbol| symbol == SYMBOL.as_bytes()) && number == 77
        };
        let (mut good, mut turn, end) = (0, 0, Instant::now() + Duration::from_secs(60));
        // On a busy core the other thread may not have its turn for long: until both kinds were seen.
        while turn < count || (good == 0 || good == turn) && Instant::now() < end {
            good += u64::from(is_good(turn));
            turn += 1;
        }
        let good = if good == turn { count } else { good.min(count - 1) };
        ended.store(true, Relaxed);
        good
    });
    line.say(format_args!("done {good}"));
}
