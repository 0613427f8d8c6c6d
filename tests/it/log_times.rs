//! Finding messages by their time, whatever the clock did while they were published.

use super::durable::Logs;
use super::process::until;
use std::time::Duration;
use windlass::{Append, Bus, Log, Raw, Start, SyncPolicy, Topic};

/// Messages: some blocks of summaries, and more than a piece of the order.
const COUNT: u64 = 150_000;

/// A clock that stands still, runs, and is set forward and back.
fn times() -> Vec<u64> {
    let mut random = 88_172_645_463_325_252u64;
    let mut now = 1_000_000_000_000u64;
    let times = (0..COUNT).map(|_| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        match random % 20_000 {
            0 => now += random % 10_000_000,
            1 => now -= (random >> 32) % 1_000_000,
            _ => now += (random >> 20) % 3 * 10,
        }
        now
    });
    times.collect()
}

fn open(logs: &Logs, sync: SyncPolicy) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events")).sync(sync);
    topic.segment_bytes(1 << 20).open().expect("the log can be opened")
}

/// Compares what is found with what a look at all of them finds.
fn compare(log: &Log<Raw>, first: u64, times: &[u64]) {
    let mut wanted: Vec<u64> = times.iter().step_by(1_499).copied().collect();
    wanted.extend(times.iter().step_by(4_096).flat_map(|time| [time - 1, time + 1]));
    wanted.extend([0, 1, u64::MAX, times[times.len() - 1], *times.iter().max().expect("some")]);
    for time in wanted {
        let from = &times[first as usize..];
        let expected = from
            .iter()
            .position(|it| *it >= time)
            .map_or(times.len() as u64, |at| at as u64 + first);
        assert_eq!(log.at_time(time).expect("sound"), expected, "time {time}");
    }
}

#[test]
fn a_time_is_found_with_summaries_and_without() {
    let logs = Logs::new("times");
    let times = times();
    let topic = open(&logs, SyncPolicy::Every(Duration::from_millis(1)));
    let mut publisher = topic.publisher().expect("a free lane");
    for (number, time) in times.iter().enumerate() {
        let append = Append::new().time_ns(*time);
        publisher.append(&(number as u64).to_le_bytes(), &append).expect("there is room");
    }
    // As it comes: some have summaries by now.
    compare(&topic.log().expect("it is durable"), 0, &times);
    // The keeper writes those of what is on disk.
    let piece = logs.0.join("events").join("places-000000000000");
    let summaries = 4096 + (1 << 17) * 8;
    until("the first piece has its summaries", || {
        let bytes = std::fs::read(&piece).expect("it is there");
        bytes[summaries..summaries + 32 * 16].chunks(8).all(|word| word != [0; 8])
    });
    compare(&topic.log().expect("it is durable"), 0, &times);
    compare(&Log::open(logs.0.join("events")).expect("it is there"), 0, &times);
    // What was summarised is what is there.
    let bytes = std::fs::read(&piece).expect("it is there");
    for (block, summary) in bytes[summaries..summaries + 32 * 16].chunks(16).enumerate() {
        let word = |at: usize| u64::from_le_bytes(summary[at..at + 8].try_into().expect("eight"));
        let of_block = &times[block * 4096..(block + 1) * 4096];
        let (earliest, latest) = (of_block.iter().min(), of_block.iter().max());
        assert_eq!((Some(&word(0)), Some(&word(8))), (earliest, latest), "block {block}");
    }
    let start = Start::Time(times[COUNT as usize / 2]);
    let mut subscriber = topic.subscriber(start).expect("a free slot");
    let found = subscriber.try_recv().expect("sound").expect("it is there").sequence();
    let expected = times.iter().position(|time| *time >= times[COUNT as usize / 2]);
    assert_eq!(Some(found as usize), expected);
}

#[test]
fn a_time_is_found_among_what_is_kept() {
    let logs = Logs::new("times-kept");
    let times = times();
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events"));
    let topic = topic.sync(SyncPolicy::Every(Duration::from_millis(1))).retain_bytes(1 << 20);
    let topic = topic.segment_bytes(1 << 18).open().expect("the log can be opened");
    let mut publisher = topic.publisher().expect("a free lane");
    for (number, time) in times.iter().enumerate() {
        let append = Append::new().time_ns(*time);
        publisher.append(&(number as u64).to_le_bytes(), &append).expect("there is room");
    }
    let log = topic.log().expect("it is durable");
    let least = COUNT - 5 * (1 << 18) / 32;
    until("what is not to be kept is gone", || log.first().expect("it is there") >= least);
    compare(&log, log.first().expect("it is there"), &times);
}
