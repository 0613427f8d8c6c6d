//! What the keeper of a log does in the background: segments that are there before they are needed, checkpoints, and
//! what is not to be kept.

use super::durable::Logs;
use super::process::{until, Actor, Den, Line, Role, Scene};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use windlass::{Bus, Raw, RecvError, Start, SyncPolicy, Topic, TopicBuilder, Wait};

pub const ROLES: &[(&str, Role)] = &[("log_publisher", publisher)];

const SEGMENT: u64 = 1 << 14;

fn builder(bus: &Bus, path: &Path) -> TopicBuilder<Raw> {
    bus.topic::<Raw>("events").durable_at(path).segment_bytes(SEGMENT)
}

fn text(number: u64) -> Vec<u8> {
    format!("message {number} {}", "y".repeat(number as usize % 300)).into_bytes()
}

fn publish(topic: &Topic<Raw>, from: u64, to: u64) {
    let mut publisher = topic.publisher().expect("a free lane");
    for number in from..to {
        publisher.publish(&text(number)).expect("there is room");
    }
}

/// The names of the files of a log that begin with `prefix`.
fn files(path: &Path, prefix: &str) -> BTreeSet<String> {
    let names = std::fs::read_dir(path).expect("the log is there");
    let names = names.map(|entry| entry.expect("an entry").file_name().into_string());
    names.map(|name| name.expect("text")).filter(|name| name.starts_with(prefix)).collect()
}

/// Of the newest checkpoint: its number, what is on disk below, and the floor.
fn checkpoint(path: &Path) -> (u64, u64, u64) {
    let bytes = std::fs::read(path.join("checkpoint")).expect("there is one");
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let slot = |at: usize| (word(at), word(at + 8), word(at + 16));
    slot(4096).max(slot(8192))
}

#[test]
fn an_orderly_end_leaves_a_checkpoint_of_everything() {
    for sync in [SyncPolicy::None, SyncPolicy::Every(Duration::from_millis(1)), SyncPolicy::Each] {
        let logs = Logs::new("end");
        let path = logs.0.join("events");
        for round in 1..4 {
            let bus = Bus::anonymous().expect("there is memory");
            let topic = builder(&bus, &path).sync(sync).open().expect("the log can be opened");
            publish(&topic, (round - 1) * 200, round * 200);
            drop((topic, bus));
            assert_eq!(checkpoint(&path).1, round * 200, "{sync}");
        }
        let bus = Bus::anonymous().expect("there is memory");
        let topic = builder(&bus, &path).sync(sync).open().expect("the log can be opened");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
        for number in 0..600 {
            let message = subscriber.try_recv().expect("sound").expect("it was published");
            assert_eq!(message.bytes(), text(number));
        }
    }
}

#[test]
fn checkpoints_follow_while_messages_are_published() {
    let logs = Logs::new("follow");
    let path = logs.0.join("events");
    let bus = Bus::anonymous().expect("there is memory");
    let every = SyncPolicy::Every(Duration::from_millis(1));
    let topic = builder(&bus, &path).sync(every).open().expect("the log can be opened");
    let mut publisher = topic.publisher().expect("a free lane");
    for number in 0..500 {
        publisher.publish(&text(number)).expect("there is room");
    }
    until("all of it is on disk", || checkpoint(&path).1 == 500);
}

#[test]
fn the_next_segment_is_there_before_it_is_needed_and_nobody_takes_it_for_data() {
    let logs = Logs::new("ahead");
    let path = logs.0.join("events");
    let bus = Bus::anonymous().expect("there is memory");
    let topic = builder(&bus, &path).open().expect("the log can be opened");
    let mut publisher = topic.publisher().expect("a free lane");
    let mut count = 0;
    // Until the segment is so full that the next one had better be there.
    while publisher.publish(&text(count)).expect("there is room").position < SEGMENT / 2 {
        count += 1;
    }
    count += 1;
    until("the next segment is there", || files(&path, "lane-0").len() == 2);
    until("the next piece is there", || files(&path, "places-").len() == 2);
    drop((publisher, topic, bus));
    // Whoever opens the log finds no more than what was published, and goes on there.
    let bus = Bus::anonymous().expect("there is memory");
    let topic = builder(&bus, &path).open().expect("the log can be opened");
    assert_eq!(files(&path, "lane-0").len(), 1);
    publish(&topic, count, count + 500);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    for number in 0..count + 500 {
        let message = subscriber.try_recv().expect("sound").expect("it was published");
        assert_eq!(message.bytes(), text(number));
    }
}

#[test]
fn what_is_not_to_be_kept_is_missed_exactly_and_views_of_it_stay() {
    let logs = Logs::new("retain");
    let path = logs.0.join("events");
    let bus = Bus::anonymous().expect("there is memory");
    let every = SyncPolicy::Every(Duration::from_millis(1));
    let kept = builder(&bus, &path).retain_bytes(5 * SEGMENT).sync(every);
    let topic = kept.open().expect("the log can be opened");
    let mut slow = topic.subscriber(Start::Oldest).expect("a free slot");
    publish(&topic, 0, 50);
    let view = slow.recv(Wait::Block).expect("sound").expect("published").pin();
    let before = checkpoint(&path).2;
    let count = 1000;
    publish(&topic, 50, count);
    let publisher = topic.publisher().expect("a free lane");
    // Four that are kept, and one that is prepared.
    until("no more is there than is to be kept", || files(&path, "lane-0").len() <= 5);
    assert_eq!(view.as_bytes(), text(0));
    // The next thing that the slow one hears of is exactly where the log begins now; nothing between is delivered.
    let mut due = 1;
    let mut missed = 0;
    while due < count {
        match slow.recv(Wait::Block) {
            Ok(message) => {
                let message = message.expect("not closed");
                assert_eq!((message.sequence(), message.bytes()), (due, &text(due)[..]));
                due += 1;
            }
            Err(RecvError::Lagged { missed: count }) => {
                missed += count;
                due += count;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!(missed > 0 && before == 0, "nothing was deleted");
    let first = checkpoint(&path).2;
    let mut oldest = topic.subscriber(Start::Oldest).expect("a free slot");
    let message = oldest.recv(Wait::Block).expect("sound").expect("not closed");
    assert_eq!(message.sequence(), first);
    drop(publisher);
}

#[test]
fn what_is_old_is_deleted() {
    let logs = Logs::new("age");
    let path = logs.0.join("events");
    let bus = Bus::anonymous().expect("there is memory");
    let every = SyncPolicy::Every(Duration::from_millis(1));
    let kept = builder(&bus, &path).retain_for(Duration::from_millis(1)).sync(every);
    let topic = kept.open().expect("the log can be opened");
    publish(&topic, 0, 1000);
    let newest = files(&path, "lane-0").into_iter().next_back();
    let _publisher = topic.publisher().expect("a free lane");
    until("all but what is written is deleted", || {
        files(&path, "lane-0").first() >= newest.as_ref()
    });
    let mut oldest = topic.subscriber(Start::Oldest).expect("a free slot");
    let message = oldest.recv(Wait::Block).expect("sound").expect("not closed");
    assert_eq!(message.bytes(), text(message.sequence()));
}

fn publisher(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let every = SyncPolicy::Every(Duration::from_millis(1));
    let topic = builder(&bus, Path::new(scene.text("path"))).sync(every).open();
    let topic = topic.expect("the log can be opened");
    let mut publisher = topic.publisher().expect("a free lane");
    for number in 0..scene.number("count") {
        publisher.publish(&text(number)).expect("there is room");
    }
    line.say("published");
    line.stay();
}

#[test]
fn what_a_stopped_or_killed_process_wrote_is_put_on_disk_by_another() {
    let logs = Logs::new("others");
    let path = logs.0.join("events");
    for ending in [Actor::stop, Actor::kill] {
        let den = Den::new();
        let bus = den.bus();
        let every = SyncPolicy::Every(Duration::from_millis(1));
        let topic = builder(&bus, &path).sync(every).open().expect("the log can be opened");
        let before = checkpoint(&path).1;
        let arguments = format!("path={} count=700", path.display());
        let mut other = Actor::process(&den, "log_publisher", &arguments);
        other.hear("published");
        ending(&mut other);
        publish(&topic, 0, 300);
        let _publisher = topic.publisher().expect("a free lane");
        until("what both published is on disk", || checkpoint(&path).1 == before + 1000);
    }
}
