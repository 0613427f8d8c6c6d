//! Cursors of consumers: what was committed is kept, whoever dies where; one holder at a time.

use super::durable::Logs;
use super::log_verify::as_after_a_crash;
use super::process::{Actor, Den, Line, Role, Scene};
use std::path::Path;
use windlass::{Bus, ErrorKind, Raw, RecvError, Start, SyncPolicy, Topic, Wait};

pub const ROLES: &[(&str, Role)] =
    &[("log_cursor.consumer", consumer), ("log_cursor.holder", holder)];

fn open(path: &Path, sync: SyncPolicy) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("orders").durable_at(path).sync(sync).segment_bytes(1 << 16);
    topic.open().expect("the log can be opened")
}

fn publish(topic: &Topic<Raw>, numbers: std::ops::Range<u64>) {
    let mut publisher = topic.publisher().expect("a free lane");
    for number in numbers {
        publisher.publish(&number.to_le_bytes()).expect("there is room");
    }
}

#[test]
fn a_cursor_is_where_it_was_committed() {
    let logs = Logs::new("cursor");
    let path = logs.0.join("orders");
    for (round, sync) in [SyncPolicy::None, SyncPolicy::None].into_iter().enumerate() {
        let topic = open(&path, sync);
        publish(&topic, 0..100);
        let mut cursor = topic.cursor("billing").expect("nobody holds it");
        assert_eq!(cursor.next(), (round > 0).then_some(60));
        for next in [1, 10, 10, 60] {
            let next = next.max(cursor.next().unwrap_or(0));
            cursor.commit(next).expect("it is there");
            assert_eq!(cursor.next(), Some(next));
        }
        assert_eq!(cursor.lag().expect("sound"), (round as u64 + 1) * 100 - 60);
        let most = (round as u64 + 1) * 100;
        for wrong in [59, most + 1, u64::MAX] {
            let error = cursor.commit(wrong).expect_err("out of range");
            assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
            assert!(error.to_string().contains("reset"), "{error}");
        }
        let places = [(Start::Oldest, 0), (Start::Latest, most), (Start::Last(5), most - 5)];
        for (start, next) in places.into_iter().chain([(Start::Sequence(60), 60)]) {
            cursor.reset(start).expect("it is there");
            assert_eq!(cursor.next(), Some(next));
        }
        assert!(cursor.reset(Start::Sequence(most + 1)).is_err());
        assert_eq!(cursor.rewound(), 0);
    }
}

#[test]
fn a_name_has_one_holder_and_is_listed_and_removed() {
    let logs = Logs::new("holders");
    let topic = open(&logs.0.join("orders"), SyncPolicy::Each);
    publish(&topic, 0..10);
    let mut billing = topic.cursor("billing").expect("nobody holds it");
    let error = topic.cursor("billing").expect_err("it is held");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    let me = format!("held by process {}", std::process::id());
    assert!(error.to_string().contains(&me), "{error}");
    assert_eq!(topic.remove_cursor("billing").expect_err("held").kind(), ErrorKind::AlreadyExists);
    billing.commit(4).expect("it is there");
    drop(topic.cursor("audit").expect("nobody holds it"));
    let all = topic.cursors().expect("sound");
    let [audit, listed] = &all[..] else { panic!("{all:?}") };
    assert_eq!((audit.name.as_str(), audit.next, audit.lag), ("audit", None, 10));
    assert_eq!((audit.held_by, audit.time_ns), (None, None));
    assert_eq!((listed.name.as_str(), listed.next, listed.lag), ("billing", Some(4), 6));
    let holder = listed.held_by.expect("it is held");
    assert_eq!((holder.pid, holder.is_elsewhere), (std::process::id(), false));
    drop(billing);
    assert!(topic.remove_cursor("billing").expect("free"));
    assert!(!topic.remove_cursor("billing").expect("free") || topic.cursors().is_err());
    assert_eq!(topic.cursor("billing").expect("a new one").next(), None);
    for name in ["", ".x", "a/b", "a b", &"x".repeat(101)] {
        assert_eq!(topic.cursor(name).expect_err(name).kind(), ErrorKind::Invalid);
    }
}

#[test]
fn a_consumer_goes_on_behind_its_last_commit() {
    let logs = Logs::new("resume");
    let path = logs.0.join("orders");
    let topic = open(&path, SyncPolicy::None);
    publish(&topic, 0..100);
    let mut due = 0u64;
    for round in 0..5 {
        let mut billing = topic.resume("billing", Start::Oldest).expect("nobody holds it");
        for number in due..due + 20 {
            let message = billing.recv(Wait::Block).expect("sound").expect("not closed");
            assert_eq!((message.sequence(), message.bytes()), (number, &number.to_le_bytes()[..]));
            if number == due + 11 {
                assert_eq!(billing.commit().expect("it can be written"), number + 1);
            }
        }
        assert_eq!(billing.cursor().next(), Some(due + 12), "round {round}");
        due += 12;
    }
    // The place where a new name begins is committed at once.
    drop(topic.resume("late", Start::Latest).expect("nobody holds it"));
    publish(&topic, 100..103);
    let mut late = topic.resume("late", Start::Latest).expect("nobody holds it");
    assert_eq!(late.try_recv().expect("sound").expect("published").sequence(), 100);
}

#[test]
fn a_mark_that_was_torn_costs_one_commit_and_two_are_said() {
    let logs = Logs::new("torn");
    let path = logs.0.join("orders");
    let topic = open(&path, SyncPolicy::None);
    publish(&topic, 0..10);
    let mut cursor = topic.cursor("billing").expect("nobody holds it");
    cursor.commit(3).expect("it is there");
    cursor.commit(7).expect("it is there");
    drop(cursor);
    let file = path.join("cursor-billing");
    let mut bytes = std::fs::read(&file).expect("it is there");
    // The second commit has the even slot.
    bytes[4096 + 9] ^= 1;
    std::fs::write(&file, &bytes).expect("it can be written");
    assert_eq!(topic.cursor("billing").expect("one mark is left").next(), Some(3));
    bytes[8192 + 9] ^= 1;
    std::fs::write(&file, &bytes).expect("it can be written");
    let error = topic.cursor("billing").expect_err("no mark is left");
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("remove the cursor"), "{error}");
    assert!(topic.cursors().expect("the others are listed").is_empty());
    assert!(topic.remove_cursor("billing").expect("free"));
}

#[test]
fn a_recovery_that_cuts_the_log_sets_cursors_back_to_its_end() {
    let logs = Logs::new("ahead");
    let path = logs.0.join("orders");
    let topic = open(&path, SyncPolicy::None);
    let checkpoint = std::fs::read(path.join("checkpoint")).expect("it is there");
    publish(&topic, 0..100);
    topic.cursor("billing").expect("nobody holds it").commit(90).expect("it is there");
    topic.cursor("audit").expect("nobody holds it").commit(40).expect("it is there");
    drop(topic);
    // What a crash of the machine leaves if the page with this record was not written.
    let file = path.join("lane-0-000000000000");
    let mut bytes = std::fs::read(&file).expect("it is there");
    let record = 4096 + 16 + 70 * 32;
    bytes[record..record + 32].fill(0);
    std::fs::write(&file, bytes).expect("it can be written");
    // Without the checkpoint that the end of the topic wrote.
    as_after_a_crash(&path, &checkpoint);
    let topic = open(&path, SyncPolicy::None);
    publish(&topic, 1000..1010);
    let cursor = topic.cursor("billing").expect("nobody holds it");
    assert_eq!((cursor.next(), cursor.rewound()), (Some(70), 20));
    drop(cursor);
    let mut billing = topic.resume("billing", Start::Oldest).expect("nobody holds it");
    for number in 1000..1010u64 {
        let message = billing.try_recv().expect("sound").expect("published");
        assert_eq!(message.bytes(), number.to_le_bytes());
    }
    assert_eq!(billing.commit().expect("it can be written"), 80);
    assert_eq!(billing.cursor().rewound(), 0);
    let audit = topic.cursor("audit").expect("nobody holds it");
    assert_eq!((audit.next(), audit.rewound()), (Some(40), 0));
}
/// Most messages that a consumer commits before it waits to be killed.
const ROUND: u64 = 500;

fn topic_of(scene: &Scene) -> Topic<Raw> {
    let topic = scene.bus().topic::<Raw>("orders").durable_at(scene.text("log"));
    topic.segment_bytes(1 << 16).open().expect("the log can be opened")
}

/// Receives and commits until it is killed, or has done all that a round may. Says `got N` before and `done N` after
/// each commit.
fn consumer(scene: &Scene, line: &mut Line) {
    let topic = topic_of(scene);
    let mut billing = topic.resume("billing", Start::Oldest).expect("nobody holds it");
    line.say(format_args!("from {}", billing.cursor().next().expect("it was committed")));
    for _ in 0..ROUND {
        let message = billing.recv(Wait::Block).expect("sound").expect("not closed");
        let number = message.sequence();
        assert_eq!(message.bytes(), number.to_le_bytes());
        line.say(format_args!("got {number}"));
        let next = billing.commit().expect("it can be written");
        line.say(format_args!("done {next}"));
    }
    line.stay();
}

/// Holds a cursor until the test hangs up.
fn holder(scene: &Scene, line: &mut Line) {
    let _cursor = topic_of(scene).cursor("billing").expect("nobody holds it");
    line.say("holds");
    line.stay();
}

#[test]
fn a_killed_consumer_is_followed_by_one_that_goes_on_behind_its_last_commit() {
    let (logs, den) = (Logs::new("killed"), Den::new());
    let path = logs.0.join("orders");
    let topic = den.bus().topic::<Raw>("orders").durable_at(&path).segment_bytes(1 << 16);
    let topic = topic.open().expect("the log can be made");
    publish(&topic, 0..13 * ROUND);
    let argument = format!("log={}", path.display());
    let mut committed = 0;
    for round in 0..12 {
        let mut actor = Actor::process(&den, "log_cursor.consumer", &argument);
        // A commit whose end was not heard of may stand.
        let from = actor.hear_number("from");
        assert!((committed..=committed + 1).contains(&from), "{from} after {committed}");
        committed = from;
        for _ in 0..=round {
            let got = actor.hear_number("got");
            assert_eq!(got, committed, "nothing is left out, nothing comes twice");
            if actor.hear_number("done") == got + 1 {
                committed = got + 1;
            }
        }
        // Wherever it is by now. What it says after the last word that was heard is lost with it.
        actor.kill();
        while let Some(word) = actor.hear_any() {
            if let Some(next) = word.strip_prefix("done ") {
                committed = next.parse().expect("a number");
            }
        }
    }
    assert!(committed >= 60);
}

#[test]
fn the_cursor_of_the_dead_is_free_at_once() {
    let (logs, den) = (Logs::new("dead"), Den::new());
    let path = logs.0.join("orders");
    let topic = den.bus().topic::<Raw>("orders").durable_at(&path).segment_bytes(1 << 16);
    let topic = topic.open().expect("the log can be made");
    let mut actor = Actor::process(&den, "log_cursor.holder", &format!("log={}", path.display()));
    actor.hear("holds");
    let error = topic.cursor("billing").expect_err("it is held");
    assert!(error.to_string().contains(&format!("process {}", actor.pid())), "{error}");
    let listed = topic.cursors().expect("sound");
    assert_eq!(listed[0].held_by.map(|it| it.pid), Some(actor.pid()));
    actor.kill();
    topic.cursor("billing").expect("its holder is dead");
    assert_eq!(topic.cursors().expect("sound")[0].held_by, None);
}

/// A closed topic ends a consumer, as it ends a subscriber.
#[test]
fn a_consumer_of_a_closed_topic_reads_to_its_end() {
    let logs = Logs::new("closed");
    let topic = open(&logs.0.join("orders"), SyncPolicy::Every(std::time::Duration::from_secs(1)));
    publish(&topic, 0..3);
    let mut billing = topic.resume("billing", Start::Oldest).expect("nobody holds it");
    topic.close();
    for _ in 0..3 {
        assert!(billing.recv(Wait::Block).expect("sound").is_some());
    }
    assert!(billing.recv(Wait::Block).expect("sound").is_none());
    assert_eq!(billing.try_recv().map(|_| ()), Err(RecvError::Closed));
    assert_eq!(billing.commit().expect("it can be written"), 3);
}
