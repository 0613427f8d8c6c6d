//! Files and folders that are deleted, replaced, moved or removed while processes use them: whoever is inside goes on
//! with what it has, and whoever needs what is gone is told.

use super::super::fixture::small;
use super::super::process::Den;
use super::super::traffic::{check, message, number_of};
use super::damage::missed;
use super::{names, says};
use std::path::Path;
use windlass::{Bus, ErrorKind, Publisher, Raw, Start, Subscriber, Topic};

/// Two nodes of one topic, each with both ends.
struct Pair {
    _buses: [Bus; 2],
    topics: [Topic<Raw>; 2],
    publishers: [Publisher<Raw>; 2],
    subscribers: [Subscriber<Raw>; 2],
}

fn join<const ORDERED: bool>(bus: &Bus) -> Topic<Raw> {
    let builder = small(bus).publishers_max(4).subscribers_max(4);
    let builder = if ORDERED { builder.ordered().order_slots(256) } else { builder };
    builder.open().expect("it opens")
}

impl Pair {
    fn on(den: &Den) -> Self {
        let buses = [den.bus(), den.bus()];
        let topics = buses.each_ref().map(join::<true>);
        let publishers = topics.each_ref().map(|topic| topic.publisher().expect("a lane"));
        let subscribers =
            topics.each_ref().map(|topic| topic.subscriber(Start::Oldest).expect("a slot"));
        Self { _buses: buses, topics, publishers, subscribers }
    }

    /// Several laps of both lanes, and everybody reads everything.
    fn goes_on(&mut self) {
        for _ in 0..60 {
            for publisher in &mut self.publishers {
                let payload = message(publisher.lane(), publisher.sequence(), 509);
                publisher.try_publish(&payload).expect("everything is read");
                for subscriber in &mut self.subscribers {
                    let message = subscriber.try_recv().expect("it is sound").expect("published");
                    let number = number_of(message.bytes()).expect("it is long enough");
                    check(message.bytes(), message.lane(), number);
                }
            }
        }
    }
}

#[test]
fn files_that_are_deleted_while_in_use_are_kept_by_their_users_and_missed_by_others() {
    for file in ["t.topic/lane-0", "t.topic/order", "t.topic/control", "bus"] {
        let den = Den::new();
        let mut pair = Pair::on(&den);
        let path = den.path().join("bus").join(file);
        std::fs::remove_file(&path).expect("it is ours");
        pair.goes_on();
        // Those who come later need it.
        let visit = Bus::open(&den.bus_path()).and_then(|bus| {
            let topic = bus.topic::<Raw>("t").open_existing()?;
            topic.subscriber(Start::Oldest).map(drop)
        });
        let error = visit.expect_err("it is not there");
        let (kind, hint) = missed(file);
        says(&error, &[kind], &path.display().to_string(), &[hint]);
        pair.goes_on();
        drop(pair);
        // What is left can be removed, and then all begins anew.
        Bus::remove(&den.bus_path()).expect("it is ours");
        Pair::on(&den).goes_on();
    }
}

#[test]
fn files_that_are_replaced_while_in_use_are_kept_by_their_users() {
    for file in ["t.topic/lane-0", "t.topic/order", "t.topic/control", "bus"] {
        let (den, other) = (Den::new(), Den::new());
        let mut pair = Pair::on(&den);
        drop(Pair::on(&other));
        let path = den.path().join("bus").join(file);
        std::fs::rename(other.path().join("bus").join(file), &path).expect("both are ours");
        pair.goes_on();
        let told = Bus::open(&den.bus_path()).and_then(|bus| {
            let topic = bus.topic::<Raw>("t").open_existing()?;
            topic.subscriber(Start::Oldest).map(drop)
        });
        // Another bus file is a bus without these members. It fits any topic, and says that they are dead: whoever
        // replaces it breaks the bus. The others say whose they are.
        if file != "bus" {
            let error = told.expect_err("it is that of another topic");
            says(&error, &[ErrorKind::Corrupt], "t.topic/", &["belongs to another topic"]);
        }
        pair.goes_on();
    }
}

#[test]
fn a_topic_that_is_renamed_is_the_same_topic_under_another_name() {
    let den = Den::new();
    let mut pair = Pair::on(&den);
    let bus = den.path().join("bus");
    std::fs::rename(bus.join("t.topic"), bus.join("u.topic")).expect("it is ours");
    pair.goes_on();
    // Whoever has it open makes new lanes in it, wherever it is now.
    let mut third = pair.topics[0].publisher().expect("there is a lane");
    assert!(bus.join("u.topic/lane-2").exists());
    let later = den.bus();
    let found = later.topic::<Raw>("u").open_existing().expect("that is its name");
    let mut newcomer = found.subscriber(Start::Latest).expect("there is a slot");
    third.publish(&message(2, 0, 100)).expect("there is room");
    let received = newcomer.try_recv().expect("it is sound").expect("it was published");
    check(received.bytes(), 2, 0);
    let error = later.topic::<Raw>("t").open_existing().map(drop).expect_err("it is renamed");
    says(&error, &[ErrorKind::NotFound], "topic t", &["has no topic t"]);
}

#[test]
fn a_topic_that_is_deleted_while_in_use_is_kept_by_its_users_who_are_told_when_they_need_more() {
    let by_hand = |bus: &Path| {
        std::fs::remove_dir_all(bus.join("t.topic")).expect("it is ours");
    };
    let by_name = |bus: &Path| {
        let bus = Bus::open(bus.to_str().expect("it is text")).expect("it is ours");
        bus.remove_topic("t").expect("it is there");
    };
    for remove in [&by_hand as &dyn Fn(&Path), &by_name] {
        let den = Den::new();
        let mut pair = Pair::on(&den);
        remove(&den.path().join("bus"));
        pair.goes_on();
        let path = den.path().join("bus/t.topic/lane-2");
        let error = pair.topics[0].publisher().map(drop).expect_err("there is no folder");
        let hint = "was removed while it was in use; open the bus and the topic again";
        says(&error, &[ErrorKind::NotFound], &path.display().to_string(), &[hint]);
        // The name is free, for another topic.
        let mut others = Pair::on(&den);
        others.goes_on();
        pair.goes_on();
        assert!(!names(den.path()).iter().any(|name| name.contains(".tmp")));
    }
}

#[test]
fn a_bus_that_is_removed_while_in_use_is_kept_by_its_users_who_are_told_when_they_need_more() {
    let den = Den::new();
    let mut pair = Pair::on(&den);
    let bus = pair._buses[0].clone();
    Bus::remove(&den.bus_path()).expect("it is ours");
    assert!(names(den.path()).is_empty(), "{:?}", names(den.path()));
    pair.goes_on();
    // Its users still know of each other.
    assert_eq!(bus.nodes().iter().filter(|node| node.alive).count(), 2);
    let error = bus.topic::<Raw>("new").create().map(drop).expect_err("there is no folder");
    let hint = "was removed while it was in use; open the bus and the topic again";
    says(&error, &[ErrorKind::NotFound], &den.bus_path(), &[hint]);
    let error = bus.topics().expect_err("there is no folder");
    says(&error, &[ErrorKind::NotFound], &den.bus_path(), &[hint]);
    // Another bus takes the name, and they do not meet.
    let other = den.bus();
    assert_eq!(other.nodes().len(), 1);
    Pair::on(&den).goes_on();
    pair.goes_on();
}

#[test]
fn a_bus_that_is_moved_while_in_use_goes_on_and_can_be_opened_at_its_new_place() {
    let den = Den::new();
    let mut pair = Pair::on(&den);
    let moved = den.path().join("moved");
    std::fs::rename(den.path().join("bus"), &moved).expect("it is ours");
    pair.goes_on();
    drop(pair.topics[1].publisher().expect("there is a lane"));
    let bus = Bus::open(moved.to_str().expect("it is text")).expect("it is the same bus");
    assert_eq!(bus.nodes().iter().filter(|node| node.alive).count(), 3);
    assert_eq!(bus.inspect("t").expect("it is sound").publishers.len(), 3);
}
