//! Subscriber slots changing hands: does a repairer that proved an owner dead long ago free that owner's slot and no
//! other, does the next owner start clean whatever the last one left and whatever step its own death comes at, and does
//! the publisher, who counts pins by slot, lap nobody meanwhile?
//!
//! Outcomes: what the next owner read, if it got the slot, and whether the publisher had room for a message.

#![cfg(windlass_loom)]

use loom_tests::{explore, explore_deaths, publish, receive};
use loom_tests::{Outcomes, Size, Topic};
use windlass::layout::owner::{Owner, State};
use windlass::ring::reader::{Entered, Reader};
use windlass::ring::recycle::Blocked;
use windlass::ring::slots::NO_GATE;
use windlass::ring::writer::Writer;

/// A topic of two segments, each with a message in it, and one slot, whose dead owner pins the older segment.
fn haunted_topic() -> (Topic, Writer, Owner) {
    let topic = Topic::new(Size::of(2, 1));
    let dead = topic.claim(0, 1).owner;
    topic.slots.set_gate(0, 0, 0);
    topic.slots.set_order_gate(0, 0);
    topic.slots.set_sleeping(0, true);
    let mut writer = topic.writer(0);
    for _ in 0..2 {
        publish(&mut writer, &topic.slots, false).expect("the segments are free");
    }
    let mut reader = topic.reader(0);
    assert_eq!(reader.enter(0), Ok(Entered::Inside));
    reader.into_pin().expect("the reader was inside");
    (topic, writer, dead)
}

/// Enters segment 0 and reads its message. False if it was taken back.
fn visit(reader: &mut Reader) -> bool {
    let inside = reader.enter(0).expect("the lane is sound") == Entered::Inside;
    if inside {
        assert_eq!(receive(reader), Some(0));
    }
    reader.leave();
    inside
}

/// Takes the slot if it is free, visits segment 0 and gives the slot back; nobody may take it away in between.
fn subscribe(topic: &Topic, node: u32) -> Option<bool> {
    let claimed = topic.slots.claim(0, node, &topic.pins)?;
    assert_eq!(topic.slots.gate_of(0, 0), NO_GATE);
    let read = visit(&mut topic.reader(0));
    assert!(topic.slots.is_active(claimed), "the slot was taken away from a living owner");
    topic.slots.release(0, claimed.owner);
    Some(read)
}

/// Publishes one message, over the dead body of the owner of slot 0.
fn publish_over(topic: &Topic, writer: &mut Writer, dead: Owner) -> bool {
    match publish(writer, &topic.slots, false) {
        Ok(_) => true,
        Err(Blocked::Pin(obstacle)) if obstacle.owner == dead => {
            topic.slots.reap(obstacle.slot, obstacle.owner);
            publish(writer, &topic.slots, false).is_ok()
        }
        Err(_) => false,
    }
}

fn assert_nothing_leaked(topic: &Topic, writer: &mut Writer) {
    for _ in 0..3 {
        publish(writer, &topic.slots, true).expect("nobody holds anything");
    }
}

/// Two who repair after the same death, one of whom then subscribes, and a publisher.
fn repair(
    stale: impl Fn(&Topic, Owner) + Clone + Send + Sync + 'static,
) -> Outcomes<(Option<bool>, bool)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let (topic, mut writer, dead) = haunted_topic();
        let (repairing, subscribing, publishing) = (topic.clone(), topic.clone(), topic.clone());
        let (stale, stale_too) = (stale.clone(), stale.clone());
        let ((), read, (mut writer, published)) = turn.race_three(
            move || stale(&repairing, dead),
            move || {
                stale_too(&subscribing, dead);
                subscribe(&subscribing, 2)
            },
            move || {
                let published = publish_over(&publishing, &mut writer, dead);
                (writer, published)
            },
        );
        record.add((read, published));
        assert!(topic.slots.owner(0).is_free());
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes
}

#[test]
fn whoever_repairs_late_does_not_touch_the_next_owner() {
    let outcomes = repair(|topic, dead| {
        topic.slots.reap(0, dead);
    });
    outcomes.assert_are([
        (Some(true), false),
        (Some(true), true),
        (Some(false), false),
        (Some(false), true),
    ]);
}

#[test]
#[should_panic]
fn canary_a_repairer_frees_whom_it_finds() {
    repair(|topic, dead| {
        let found = topic.slots.owner(0);
        if dead.state() == Some(State::Active) && !found.is_free() {
            topic.slots.reap(0, found);
        }
    });
}

#[test]
#[should_panic]
fn canary_a_repairer_clears_the_pins() {
    repair(|topic, dead| {
        topic.pins.clear(0);
        topic.slots.reap(0, dead);
    });
}

#[test]
fn an_owner_that_dies_joining_leaves_a_slot_that_the_next_one_finds_clean() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, mut writer, dead) = haunted_topic();
        assert!(topic.slots.reap(0, dead));
        let (joining, publishing) = (topic.clone(), topic.clone());
        let (_, (mut writer, published)) = turn.race(
            move || {
                death.of(|| subscribe(&joining, 2));
            },
            move || {
                let published = publish(&mut writer, &publishing.slots, true);
                assert!(!matches!(published, Err(Blocked::Gate(_))), "it has no gate");
                (writer, published.is_ok())
            },
        );
        let left = topic.slots.owner(0);
        record.add((left.state(), published));
        assert!(left.is_free() || topic.slots.reap(0, left));
        assert_nothing_leaked(&topic, &mut writer);
        let next = topic.claim(0, 3);
        assert_eq!((next.owner.node(), next.owner.state()), (3, Some(State::Active)));
        assert!(next.owner.incarnation() > left.incarnation());
        assert!((0..2).all(|physical| topic.pins.count(0, physical, 0) == 0));
        assert_eq!(topic.slots.slowest(0, NO_GATE - 1), None);
        assert_eq!(topic.slots.slowest_in_order(NO_GATE - 1), None);
        assert!(!topic.slots.is_sleeping(0));
    });
    let all = [
        (State::Free, false),
        (State::Free, true),
        (State::Joining, true),
        (State::Active, false),
        (State::Active, true),
    ];
    outcomes.assert_are(all.map(|(state, published)| (Some(state), published)));
}

#[test]
fn a_slot_that_is_handed_over_while_the_publisher_scans_hides_no_reader() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let topic = Topic::new(Size::of(2, 1));
        let mut writer = topic.writer(0);
        let first = topic.claim(0, 1);
        for _ in 0..2 {
            publish(&mut writer, &topic.slots, false).expect("the segments are free");
        }
        let (leaving, joining, publishing) = (topic.clone(), topic.clone(), topic.clone());
        let (read, read_too, (mut writer, published)) = turn.race_three(
            move || {
                let read = visit(&mut leaving.reader(0));
                leaving.slots.release(0, first.owner);
                read
            },
            move || subscribe(&joining, 2),
            move || {
                let published = publish(&mut writer, &publishing.slots, false).is_ok();
                (writer, published)
            },
        );
        record.add((read, read_too, published));
        assert_nothing_leaked(&topic, &mut writer);
    });
    // What the first one missed the second one cannot find.
    let reads = [
        (true, None),
        (true, Some(true)),
        (true, Some(false)),
        (false, None),
        (false, Some(false)),
    ];
    outcomes
        .assert_are(reads.into_iter().flat_map(|(one, two)| [(one, two, false), (one, two, true)]));
}

#[test]
fn one_of_two_gets_a_free_slot() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let topic = Topic::new(Size::of(2, 1));
        let (one, two) = (topic.clone(), topic.clone());
        let (one, two) = turn.race(
            move || one.slots.claim(0, 1, &one.pins),
            move || two.slots.claim(0, 2, &two.pins),
        );
        let winner = one.xor(two).expect("exactly one of them gets the slot");
        assert!(topic.slots.is_active(winner));
        record.add(winner.owner.node());
    });
    outcomes.assert_are([1, 2]);
}
