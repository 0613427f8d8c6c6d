//! `windlass replay`.

use super::*;
use windlass::{Start, Wait};

#[test]
fn a_log_comes_again_as_it_was_and_the_topic_has_its_type() {
    let folder = Folder::new();
    let (at, log) = (path(&folder, "again"), path(&folder, "ticks.log"));
    temperatures(&log, 300);
    // Neither the bus nor the topic is there yet.
    let line = ["replay", &log, "--into", "ticks", "--bus", &at, "--speed", "flat"];
    let told = json(&line);
    assert_eq!((&told["messages"], &told["rounds"]), (&300.into(), &1.into()), "{told}");
    let bus = Bus::open(&at).expect("it was made");
    let topic = bus.topic::<tick::Owned>("ticks").open_existing().expect("it has ticks");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a slot");
    for (_, _, payload) in contents(&log) {
        let message = subscriber.try_recv().expect("sound").expect("it was published");
        assert_eq!(message.bytes(), payload);
    }
    assert!(subscriber.try_recv().expect("sound").is_none());
}

#[test]
fn a_replay_waits_for_subscribers_and_for_those_that_are_slow() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("slow"), path(&folder, "kept.log"));
    counted(&log, 5_000);
    let bus = Bus::open(&at).expect("there");
    let topic = bus.topic::<Raw>("texts").segment_bytes(4096).segments_per_lane(4);
    let topic = topic.open().expect("it is made");
    let line = ["replay", &log, "--into", "texts", "--bus", &at, "--speed", "flat"];
    let mut replay = Running::start(&[&line[..], &["--subscribers", "1", "--json"]].concat());
    until("its publisher is there", || {
        let info = bus.inspect("texts").expect("it is there");
        info.publishers.iter().any(|publisher| publisher.alive)
    });
    let mut subscriber = topic.subscriber(Start::Latest).expect("a slot");
    let is_full = || {
        let info = bus.inspect("texts").expect("it is there");
        info.publishers.iter().any(|publisher| publisher.blocked_by.is_some())
    };
    until("it waits for the subscriber", is_full);
    assert!(!replay.has_ended());
    for n in 0..5_000 {
        let message = subscriber.recv(Wait::For(PATIENCE)).expect("in time").expect("not closed");
        assert_eq!(message.bytes(), format!("message {n}").as_bytes());
    }
    let ran = replay.ends();
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert_eq!(ran.json()["messages"], 5_000);
}

#[test]
fn the_pace_is_that_of_the_recording_or_so_many_times_it() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("paced"), path(&folder, "kept.log"));
    counted(&log, 3);
    let line = ["replay", &log, "--into", "texts", "--bus", &at];
    let seconds = |more: &[&str]| {
        let told = json(&[&line[..], more].concat());
        assert_eq!(told["messages"], 3, "{told}");
        told["seconds"].as_f64().expect("a number")
    };
    // Two seconds from the first to the last. That it may take longer on a busy machine is no fault.
    assert!(seconds(&["--speed", "10"]) >= 0.2);
    assert!(seconds(&["--speed", "4x"]) >= 0.5);
    assert!(seconds(&["--speed", "flat"]) < 2.0, "nothing is waited for");
    let told = json(&[&line[..], &["--dry-run"]].concat());
    assert_eq!((&told["round_seconds"], &told["done"]), (&2.0.into(), &false.into()), "{told}");
}

#[test]
fn a_dry_run_says_what_it_would_do_and_does_nothing() {
    let folder = Folder::new();
    let (at, log) = (path(&folder, "dry"), path(&folder, "kept.log"));
    counted(&log, 10);
    let range = ["--since", "1970-01-01T00:00:04Z", "--until", "@8000000000"];
    let line = ["replay", &log, "--into", "texts", "--bus", &at, "--dry-run"];
    let page = runs(&[&line[..], &range].concat());
    assert!(page.contains("4 messages") && page.contains("sequences 3 to 6"), "{page}");
    assert!(page.contains("1970-01-01T00:00:04.000000000Z to 1970-01-01T00:00:07"), "{page}");
    assert!(page.contains("in 3.0 s") && page.contains("topic texts"), "{page}");
    assert!(!Path::new(&at).exists(), "it made the bus");
}

#[test]
fn an_endless_replay_begins_again_until_ctrl_c() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("endless"), path(&folder, "kept.log"));
    counted(&log, 3);
    let bus = Bus::open(&at).expect("there");
    let topic = bus.topic::<Raw>("texts").open().expect("it is made");
    let mut subscriber = topic.subscriber(Start::Latest).expect("a slot");
    let line = ["replay", &log, "--into", "texts", "--bus", &at, "--speed", "flat", "--loop"];
    let mut replay = Running::start(&[&line[..], &["--json"]].concat());
    for n in 0..9 {
        let message = subscriber.recv(Wait::For(PATIENCE)).expect("in time").expect("not closed");
        assert_eq!(message.bytes(), format!("message {}", n % 3).as_bytes());
    }
    drop(subscriber);
    replay.signal(Signal::SIGINT);
    let ran = replay.ends();
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.json()["rounds"].as_u64().is_some_and(|rounds| rounds >= 2), "{}", ran.stdout);
}

#[test]
fn a_replay_that_is_interrupted_says_how_far_it_came() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("broken"), path(&folder, "kept.log"));
    counted(&log, 1000);
    let bus = Bus::open(&at).expect("there");
    let topic = bus.topic::<Raw>("texts").open().expect("it is made");
    let mut subscriber = topic.subscriber(Start::Latest).expect("a slot");
    let mut replay = Running::start(&["replay", &log, "--into", "texts", "--bus", &at]);
    subscriber.recv(Wait::For(PATIENCE)).expect("in time").expect("not closed");
    replay.signal(Signal::SIGINT);
    let ran = replay.ends();
    assert_eq!(ran.status, Some(130), "{}", ran.stdout);
    common::assert_one_sentence(&ran.stderr);
    assert!(ran.stderr.contains("of 1 000 messages are published"), "{}", ran.stderr);
}

#[test]
fn keys_come_again_in_a_durable_topic_and_damaged_messages_do_not() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("kept"), path(&folder, "kept.log"));
    let (to, from) = (path(&folder, "to.log"), &[("a", "one"), ("b", "two"), ("", "three")]);
    made(&log, &from.map(|(key, text)| (key, text.as_bytes())));
    damage(&log, "two");
    let topic = Bus::open(&at).expect("there").topic::<Raw>("kept").durable_at(&to);
    drop(topic.open().expect("it is made"));
    let line = ["replay", &log, "--into", "kept", "--bus", &at, "--speed", "flat"];
    let why = fails(&[&line[..], &["--stop-on-damage"]].concat());
    assert!(why.contains("message 1 ") && why.contains("checksum"), "{why}");
    let ran = windlass(&[&line[..], &["--json"]].concat());
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("message 1 "), "{}", ran.stderr);
    assert_eq!((&ran.json()["messages"], &ran.json()["damaged"]), (&2.into(), &1.into()));
    let pairs: Vec<_> = contents(&to).into_iter().map(|(_, key, text)| (key, text)).collect();
    let expected = [("a", "one"), ("a", "one"), ("", "three")];
    let expected = expected.map(|(key, text)| (key.as_bytes().to_vec(), text.as_bytes().to_vec()));
    assert_eq!(pairs, expected);
}

#[test]
fn what_cannot_be_replayed_is_said_in_a_sentence() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("bad"), path(&folder, "kept.log"));
    let missing = path(&folder, "missing.log");
    let why = fails(&["replay", &missing, "--into", "texts", "--bus", &at]);
    assert!(why.contains("missing.log"), "{why}");
    counted(&log, 3);
    let bus = Bus::open(&at).expect("there");
    bus.topic::<tick::Owned>("ticks").open().expect("it is made");
    let why = fails(&["replay", &log, "--into", "ticks", "--bus", &at]);
    assert!(why.contains("raw bytes"), "{why}");
    let why = fails(&["replay", &log, "--into", "texts", "--bus", &at, "--from", "9"]);
    assert!(why.contains("no message 9") && why.contains("next one is 3"), "{why}");
    let why = fails(&["replay", "ticks", "--into", "texts", "--bus", &at]);
    assert!(why.contains("has no log") && why.contains("windlass record"), "{why}");
    for wrong in [
        &["replay", "x"][..],
        &["replay", "x", "--into", "y", "--speed", "0"],
        &["replay", "x", "--into", "y", "--from", "1", "--last", "2"],
        &["replay", "x", "--into", "y", "--since", "soon"],
    ] {
        assert_eq!(windlass(wrong).status, Some(2), "{wrong:?}");
    }
}
