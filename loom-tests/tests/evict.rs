//! Evicting a subscriber that holds a reliable topic up: does it find its next segment pinned and whole, or taken back
//! and itself evicted, and never anything else? Does its slot stay its own until it leaves or dies?
//!
//! Outcomes: whether the subscriber found its next message, whether it was still active then, and whether the publisher
//! had room for one more.

#![cfg(windlass_loom)]

use loom_tests::{broken, explore, explore_deaths, publish, receive};
use loom_tests::{Outcomes, Size, Topic};
use windlass::layout::owner::State;
use windlass::ring::reader::{Entered, Reader};
use windlass::ring::recycle::Blocked;
use windlass::ring::slots::Claimed;
use windlass::ring::writer::Writer;

/// A reliable topic of three segments, each with a message in it, and a subscriber that has read the first one.
fn topic_with_laggard() -> (Topic, Writer, Claimed, Reader) {
    let topic = Topic::new(Size::of(3, 2));
    let claimed = topic.claim(0, 1);
    topic.slots.set_gate(0, 0, 0);
    let mut writer = topic.writer(0);
    for _ in 0..3 {
        publish(&mut writer, &topic.slots, true).expect("the segments are free");
    }
    let mut reader = topic.reader(0);
    assert_eq!(reader.enter(0), Ok(Entered::Inside));
    assert_eq!(receive(&reader), Some(0));
    (topic, writer, claimed, reader)
}

/// Publishes one message, evicting whoever is behind with reading.
fn publish_over(topic: &Topic, writer: &mut Writer) -> bool {
    loop {
        match publish(writer, &topic.slots, true) {
            Ok(_) => return true,
            Err(Blocked::Gate(obstacle)) => drop(topic.slots.evict(obstacle.slot, obstacle.owner)),
            Err(_) => return false,
        }
    }
}

/// What the subscriber finds behind its segment; whether it found message 1 and was active afterwards.
fn read_next(topic: &Topic, claimed: Claimed, reader: &mut Reader) -> (bool, bool) {
    let found = match reader.follow().expect("the lane is sound") {
        Entered::Inside => {
            assert_eq!(receive(reader), Some(1));
            topic.slots.set_gate(0, 0, reader.position());
            true
        }
        _ => false,
    };
    let active = topic.slots.is_active(claimed);
    assert!(found || !active, "an active subscriber of a reliable topic was overtaken");
    let owner = topic.slots.owner(0);
    assert_eq!((owner.node(), owner.incarnation()), (1, claimed.owner.incarnation()));
    (found, active)
}

/// The subscriber leaves, and its views go.
fn leave(topic: &Topic, claimed: Claimed, mut reader: Reader) {
    reader.leave();
    topic.slots.linger(claimed);
    topic.slots.release(0, claimed.owner);
    assert!(topic.slots.owner(0).is_free());
}

fn assert_nothing_leaked(topic: &Topic, writer: &mut Writer) {
    for _ in 0..4 {
        publish(writer, &topic.slots, true).expect("nobody holds anything");
    }
}

/// Whoever found nothing is not active; a pin may cost the publisher its turn in any case.
fn possible() -> impl Iterator<Item = (bool, bool, bool)> {
    let subscriber = [(true, true), (true, false), (false, false)];
    subscriber
        .into_iter()
        .flat_map(|(found, active)| [(found, active, true), (found, active, false)])
}

#[test]
fn an_evicted_subscriber_finds_its_segment_whole_or_learns_that_it_is_evicted() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer, claimed, mut reader) = topic_with_laggard();
        let (reading, publishing) = (topic.clone(), topic.clone());
        let ((reader, (found, active)), (mut writer, published)) = turn.race(
            move || {
                let read = read_next(&reading, claimed, &mut reader);
                (reader, read)
            },
            move || {
                let published = publish_over(&publishing, &mut writer);
                (writer, published)
            },
        );
        record.add((found, active, published));
        leave(&topic, claimed, reader);
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes.assert_are(possible());
}

#[test]
fn a_publisher_that_dies_evicting_is_succeeded_by_one_that_goes_on() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, mut writer, claimed, mut reader) = topic_with_laggard();
        let (reading, dying) = (topic.clone(), topic.clone());
        let ((), (mut heir, published), (reader, (found, active))) = turn.succeed(
            move || {
                death.of(|| publish_over(&dying, &mut writer));
            },
            |()| {
                let mut heir = topic.writer(0);
                let published = publish_over(&topic, &mut heir);
                (heir, published)
            },
            move || {
                let read = read_next(&reading, claimed, &mut reader);
                (reader, read)
            },
        );
        record.add((found, active, published));
        leave(&topic, claimed, reader);
        assert_nothing_leaked(&topic, &mut heir);
    });
    outcomes.assert_are(possible());
}

#[test]
fn a_subscriber_that_leaves_while_it_is_evicted_leaves_a_free_slot() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, _, claimed, reader) = topic_with_laggard();
        let (leaving, one, two) = (topic.clone(), topic.clone(), topic.clone());
        let seen = topic.slots.owner(0);
        let ((), one, two) = turn.race_three(
            move || leave(&leaving, claimed, reader),
            move || one.slots.evict(0, seen),
            move || two.slots.evict(0, seen),
        );
        assert!(!(one && two), "one of two evicts");
        record.add(one || two);
        assert!(topic.slots.owner(0).is_free());
    });
    outcomes.assert_are([true, false]);
}

#[test]
fn an_evicted_subscriber_that_dies_leaving_is_found_and_freed() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(3, move |turn, death| {
        let (topic, mut writer, claimed, reader) = topic_with_laggard();
        let (leaving, publishing) = (topic.clone(), topic.clone());
        let ((), mut writer) = turn.race(
            move || {
                death.of(|| leave(&leaving, claimed, reader));
            },
            move || {
                publish_over(&publishing, &mut writer);
                writer
            },
        );
        let left = topic.slots.owner(0);
        record.add(left.state());
        assert!(left.is_free() || topic.slots.reap(0, left));
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes.assert_are([State::Free, State::Active, State::Evicted, State::Lingering].map(Some));
}

/// A broken eviction beside the real subscriber.
fn canary(flaw: Option<broken::Evict>) {
    explore(3, move |turn| {
        let (topic, _, claimed, mut reader) = topic_with_laggard();
        let (reading, evicting) = (topic.clone(), topic.clone());
        turn.race(
            move || read_next(&reading, claimed, &mut reader),
            move || broken::evict_and_take_back(&evicting, claimed.owner, flaw),
        );
    });
}

#[test]
fn the_eviction_without_a_flaw_passes() {
    canary(None);
}

#[test]
#[should_panic]
fn canary_nobody_is_evicted_and_the_segment_is_taken_back() {
    canary(Some(broken::Evict::Nobody));
}

#[test]
#[should_panic]
fn canary_the_mapping_is_retired_before_the_eviction() {
    canary(Some(broken::Evict::Late));
}

#[test]
#[should_panic]
fn canary_nothing_orders_the_retirement_behind_the_eviction() {
    canary(Some(broken::Evict::Unordered));
}

#[test]
#[should_panic]
fn canary_the_slot_is_given_away_with_the_backlog() {
    canary(Some(broken::Evict::GivesTheSlotAway));
}
