//! Creation: a bus or a topic is there as a whole or not at all, whoever races and whoever dies.

use super::process::{scaled, Actor, Den, Line, Role, Scene};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use windlass::{Bus, ErrorKind, Raw, RecvError, Start};

pub const ROLES: &[(&str, Role)] = &[("birth.racer", racer)];

/// Opens bus and topic as soon as it is told to, and publishes one message. Says `done LANE`.
fn racer(scene: &Scene, line: &mut Line) {
    line.say("ready");
    line.hear();
    let bus = scene.bus();
    let builder = bus.topic::<Raw>("race").ordered().order_slots(256).segment_bytes(4096);
    let topic = builder.publishers_max(16).open().expect("it is created here or elsewhere");
    let mut publisher = topic.publisher().expect("there is a lane");
    publisher.publish(scene.text("name").as_bytes()).expect("there is room");
    line.say(format_args!("done {}", publisher.lane()));
    line.stay();
}

fn start_racers(den: &Den, count: u64) -> Vec<Actor> {
    let start = |index| Actor::process(den, "birth.racer", &format!("name=racer-{index}"));
    let mut racers: Vec<_> = (0..count).map(start).collect();
    racers.iter_mut().for_each(|racer| drop(racer.hear("ready")));
    racers.iter_mut().for_each(|racer| racer.say("go"));
    racers
}

/// Every name under `path`, but for temporaries that belong to nobody any more.
fn names(path: &std::path::Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(path).expect("it is there");
    entries.map(|entry| entry.expect("it is there").file_name().display().to_string()).collect()
}

#[test]
fn racing_processes_make_one_bus_and_one_topic() {
    for _ in 0..scaled(8) {
        let den = Den::new();
        let mut racers = start_racers(&den, 6);
        let mut lanes: Vec<_> = racers.iter_mut().map(|racer| racer.hear_number("done")).collect();
        lanes.sort_unstable();
        assert_eq!(lanes, [0, 1, 2, 3, 4, 5], "all of them opened the same topic");
        let bus = den.bus();
        assert_eq!(bus.topics().expect("it can be listed"), ["race"]);
        let topic = bus.topic::<Raw>("race").open_existing().expect("it is whole");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
        let mut seen = BTreeSet::new();
        while let Some(message) = subscriber.try_recv().expect("it is sound") {
            seen.insert(String::from_utf8_lossy(message.bytes()).into_owned());
        }
        let expected: BTreeSet<_> = (0..6).map(|index| format!("racer-{index}")).collect();
        assert_eq!(seen, expected);
        racers.into_iter().for_each(Actor::finish);
    }
}

#[test]
fn creators_killed_half_way_leave_nothing_half_made() {
    for round in 0..scaled(20) {
        let den = Den::new();
        let mut racers = start_racers(&den, 6);
        let end = Instant::now() + Duration::from_micros(round * 150);
        while Instant::now() < end {
            std::hint::spin_loop();
        }
        racers.iter_mut().take(3).for_each(Actor::kill);
        for racer in racers.iter_mut().skip(3) {
            racer.hear("done");
        }
        let bus = den.bus();
        assert_eq!(bus.topics().expect("it can be listed"), ["race"]);
        let info = bus.inspect("race").expect("it is whole");
        assert!(info.ordered && info.publishers_max == 16 && info.segment_bytes == 4096);
        let alive = info.publishers.iter().filter(|lane| lane.alive).count();
        assert_eq!(alive, 3, "the survivors have their lanes");
        let topic = bus.topic::<Raw>("race").open_existing().expect("it is whole");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
        let mut seen = 0;
        while let Some(message) = subscriber.try_recv().expect("it is sound") {
            assert!(message.bytes().starts_with(b"racer-"));
            seen += 1;
        }
        assert!((3..=6).contains(&seen), "{seen} messages of 3 survivors and 3 dead");
        racers.drain(3..).for_each(Actor::finish);
        drop((subscriber, topic));

        bus.repair().expect("it can be repaired");
        let folder = den.path().join("bus");
        let whole = |name: &str| name == "bus" || name == "race.topic";
        let left = names(&folder);
        assert!(left.iter().all(|name| whole(name)), "left in the bus: {left:?}");
        let whole = |name: &str| name == "control" || name == "order" || name.starts_with("lane-");
        let left = names(&folder.join("race.topic"));
        assert!(left.iter().all(|name| whole(name)), "left in the topic: {left:?}");
        let left = names(den.path());
        assert!(left.iter().all(|name| name == "bus"), "left beside the bus: {left:?}");
    }
}

#[test]
fn create_refuses_what_exists_and_open_existing_what_does_not() {
    let den = Den::new();
    let error = Bus::options().existing().open(&den.bus_path()).map(drop);
    let error = error.expect_err("nobody made it");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(names(den.path()).is_empty(), "looking makes nothing");
    let bus = den.bus();
    Bus::options().existing().open(&den.bus_path()).expect("now it exists");
    let builder = || bus.topic::<Raw>("t").segment_bytes(4096);
    let error = builder().open_existing().map(drop).expect_err("nobody made it");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let error = bus.inspect("t").map(drop).expect_err("nobody made it");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    builder().create().expect("it is new");
    let error = builder().create().map(drop).expect_err("it exists");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    builder().open().expect("it exists");
}

/// A topic is removed in the moment in which a publisher is new to it. Nothing is damaged, and that is not what its
/// subscriber may be told.
#[test]
fn a_subscriber_of_a_removed_topic_meets_nobody_new() {
    for ordered in [false, true] {
        let den = Den::new();
        let bus = den.bus();
        let builder = || {
            let builder = bus.topic::<Raw>("t").segment_bytes(4096);
            if ordered {
                builder.ordered()
            } else {
                builder
            }
        };
        let mut known = builder().create().expect("it is new").publisher().expect("a lane");
        let topic = builder().open_existing().expect("it exists");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        let again = builder().open_existing().expect("it exists");
        let mut new = again.publisher().expect("there is a lane");
        new.publish(b"new").expect("there is room");
        bus.remove_topic("t").expect("it exists");
        known.publish(b"known").expect("there is room");
        let found = subscriber.try_recv().map(|message| message.map(|one| one.bytes().to_vec()));
        if ordered {
            // What is first in the order cannot be had, and one order has nothing behind it.
            assert_eq!(found, Err(RecvError::Closed));
            continue;
        }
        assert_eq!(found, Ok(Some(b"known".to_vec())));
        assert!(matches!(subscriber.try_recv(), Ok(None)));
        // The same under a name that means another topic by now.
        let _other = builder().create().expect("the name is free");
        assert!(matches!(subscriber.try_recv(), Ok(None)));
    }
}

#[test]
fn a_removed_topic_leaves_its_name_and_keeps_its_users() {
    for bus in [Bus::anonymous().expect("there is memory"), Den::new().bus()] {
        let builder = || bus.topic::<Raw>("t").segment_bytes(4096);
        let old = builder().create().expect("it is new");
        let mut publisher = old.publisher().expect("there is a lane");
        let mut subscriber = old.subscriber(Start::Latest).expect("there is a slot");
        bus.remove_topic("t").expect("it exists");
        assert!(bus.topics().expect("it can be listed").is_empty());
        let error = bus.remove_topic("t").expect_err("it is gone");
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        let new = builder().create().expect("the name is free");
        publisher.publish(b"old").expect("those who have it open keep it");
        let message = subscriber.try_recv().expect("it is sound").expect("it is there");
        assert_eq!(message.bytes(), b"old");
        let mut other = new.subscriber(Start::Oldest).expect("there is a slot");
        assert!(matches!(other.try_recv(), Ok(None)), "they are different topics");
    }
}
