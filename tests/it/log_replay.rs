//! Replays: what was recorded, in its order and at its pace, and then what is published.

use super::durable::Logs;
use super::log_read::{folder, open};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use windlass::{ErrorKind, OnDamage, Raw, RecvError, Speed, Start, Topic, Wait};

fn publish(topic: &Topic<Raw>, numbers: std::ops::Range<u64>) -> Vec<windlass::Receipt> {
    let mut publisher = topic.publisher().expect("a free lane");
    let publish = |number: u64| publisher.publish(&number.to_le_bytes()).expect("there is room");
    numbers.map(publish).collect()
}

#[test]
fn a_replay_runs_into_what_is_published_with_no_gap_and_no_duplicate() {
    for speed in [Speed::Flat, Speed::Recorded, Speed::Times(7.0)] {
        let logs = Logs::new("into-live");
        let topic = open(&logs);
        publish(&topic, 0..5000);
        let other = topic.clone();
        let thread = std::thread::spawn(move || publish(&other, 5000..20_000));
        let mut replay = topic.replay(Start::Oldest, speed).expect("a free slot");
        for number in 0..20_000u64 {
            let message = replay.recv(Wait::Block).expect("sound").expect("not closed");
            assert_eq!(message.sequence(), number);
            assert_eq!(message.bytes(), number.to_le_bytes());
        }
        thread.join().expect("it ends well");
        assert!(replay.try_recv().expect("sound").is_none() && replay.is_live());
        // What comes later comes at once, however long after what was recorded.
        publish(&topic, 20_000..20_001);
        assert!(replay.try_recv().expect("sound").is_some());
        topic.close();
        assert!(replay.recv(Wait::Block).expect("sound").is_none());
    }
}

#[test]
fn messages_come_no_sooner_than_at_their_distance_from_the_first() {
    let logs = Logs::new("pace");
    let topic = open(&logs);
    let pause = Duration::from_millis(30);
    let begun = Instant::now();
    let mut publisher = topic.publisher().expect("a free lane");
    for number in 0..6u32 {
        // The recorded distances are what this loop makes of them, and at least so much.
        while begun.elapsed() < pause * number {
            std::thread::yield_now();
        }
        publisher.publish(&number.to_le_bytes()).expect("there is room");
    }
    let log = topic.log().expect("durable");
    let times: Vec<u64> =
        log.iter(..).expect("sound").map(|it| it.expect("sound").time_ns().unwrap_or(0)).collect();
    for (speed, factor) in [(Speed::Recorded, 1.0), (Speed::Times(3.0), 3.0)] {
        let mut replay = topic.replay(Start::Oldest, speed).expect("a free slot");
        let mut first = None;
        for time in &times {
            let message = replay.recv(Wait::Block).expect("sound").expect("not closed");
            assert_eq!(message.time_ns(), Some(*time));
            let now = Instant::now();
            let first = *first.get_or_insert(now);
            let distance = Duration::from_nanos(((time - times[0]) as f64 / factor) as u64);
            // The first one came a little after it was due.
            let late = Duration::from_millis(5);
            assert!(now.duration_since(first) + late >= distance, "{now:?}");
        }
    }
}

#[test]
fn what_is_not_due_is_not_handed_out() {
    let logs = Logs::new("due");
    let topic = open(&logs);
    let mut publisher = topic.publisher().expect("a free lane");
    publisher.publish(b"one").expect("room");
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(20) {
        std::thread::yield_now();
    }
    publisher.publish(b"two").expect("room");
    // At this speed the second one is due in half an hour.
    let mut replay = topic.replay(Start::Oldest, Speed::Times(1e-5)).expect("a free slot");
    assert_eq!(replay.try_recv().expect("sound").expect("due").bytes(), b"one");
    assert!(replay.try_recv().expect("sound").is_none() && !replay.is_live());
    let due = replay.due_at().expect("it has a time");
    assert!(due > Instant::now() + Duration::from_secs(60));
    let waited = replay.recv(Wait::For(Duration::from_millis(2)));
    assert_eq!(waited.map(|_| ()), Err(RecvError::TimedOut));
    // Held, it is due even later.
    replay.pause();
    assert_eq!(replay.recv(Wait::Block).map(|_| ()), Err(RecvError::TimedOut));
    replay.go_on();
    assert!(replay.due_at().expect("it has a time") > due);
    replay.set_speed(Speed::Flat).expect("a speed");
    assert_eq!(replay.recv(Wait::Block).expect("sound").expect("due").bytes(), b"two");
    assert!(replay.try_recv().expect("sound").is_none() && replay.is_live());
    replay.seek(Start::Sequence(0)).expect("it is there");
    assert!(!replay.is_live() && replay.seek(Start::Sequence(9)).is_err());
    assert_eq!(replay.try_recv().expect("sound").expect("due").bytes(), b"one");
    for wrong in [0.0, -1.0, f64::NAN] {
        let error = topic.replay(Start::Oldest, Speed::Times(wrong)).expect_err("no speed");
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn damage_stops_a_replay_or_is_skipped_and_counted() {
    let logs = Logs::new("damage");
    let topic = open(&logs);
    let receipts = publish(&topic, 0..100);
    let file = folder(&logs).join("lane-0-000000000000");
    let file = std::fs::File::options().write(true).open(file).expect("there");
    for number in [30, 31, 70] {
        let at = 4096 + receipts[number].position + 27;
        file.write_all_at(&[0xa5], at).expect("it can be written");
    }
    let mut replay = topic.replay(Start::Oldest, Speed::Flat).expect("a free slot");
    for number in 0..30 {
        assert_eq!(replay.recv(Wait::Block).expect("sound").expect("there").sequence(), number);
    }
    for _ in 0..2 {
        let stopped = replay.recv(Wait::Block).map(|_| ());
        assert_eq!(stopped, Err(RecvError::Damaged { sequence: 30 }));
    }
    let replay = topic.replay(Start::Oldest, Speed::Recorded).expect("a free slot");
    let mut replay = replay.on_damage(OnDamage::Skip);
    for number in (0..100).filter(|number| ![30, 31, 70].contains(number)) {
        assert_eq!(replay.recv(Wait::Block).expect("sound").expect("there").sequence(), number);
    }
    assert_eq!(replay.skipped(), 3);
}
