//! Joining a reliable topic while its publisher takes segments back: is everything from the established floor on there
//! until the newcomer has read it, wherever the newcomer or the publisher dies, and is nobody held up by the dead?
//!
//! Outcomes: the floor that was established, and how many messages the publisher had room for meanwhile.

#![cfg(windlass_loom)]

use loom_tests::{broken, explore, explore_deaths, publish, receive};
use loom_tests::{Log, Outcomes, Size, Topic};
use windlass::layout::order::Place;
use windlass::layout::owner::State;
use windlass::ring::order::Found;
use windlass::ring::reader::{Entered, Poll, Reader};
use windlass::ring::slots::Slots;
use windlass::ring::writer::Writer;

/// A topic of two segments, each with a message in it, and one free slot.
fn full_topic() -> (Topic, Writer) {
    let topic = Topic::new(Size::of(2, 1));
    let mut writer = topic.writer(0);
    assert_eq!(publish_some(&topic, &mut writer, 2), 2);
    (topic, writer)
}

/// Tries to publish `count` messages on a reliable topic; returns how many there was room for.
fn publish_some(topic: &Topic, writer: &mut Writer, count: usize) -> usize {
    (0..count).filter(|_| publish(writer, &topic.slots, true).is_ok()).count()
}

/// Joins at the oldest message; returns the established floor.
fn join(topic: &Topic, reader: &mut Reader) -> u64 {
    topic.claim(0, 1);
    let lane = topic.lane(0);
    let store = |floor| topic.slots.set_gate(0, 0, lane.position(floor, 0));
    let floor = Slots::establish(store, || lane.floor().expect("the lane is sound"));
    assert_eq!(reader.enter(floor), Ok(Entered::Inside), "the gate did not hold the segment");
    floor
}

/// Reads all that is there and publishes the cursor in every segment; returns the sequence that is due.
fn read(topic: &Topic, reader: &mut Reader) -> u64 {
    loop {
        match reader.poll() {
            Poll::Frame { .. } => drop(receive(reader)),
            Poll::Next => {
                assert_eq!(reader.follow(), Ok(Entered::Inside), "the gate held nothing");
                topic.slots.set_gate(0, 0, reader.position());
            }
            end => {
                assert_eq!(end, Poll::Empty);
                topic.slots.set_gate(0, 0, reader.position());
                return reader.sequence();
            }
        }
    }
}

#[test]
fn a_newcomer_reads_everything_from_its_floor_on() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let (topic, mut writer) = full_topic();
        let (joining, publishing) = (topic.clone(), topic.clone());
        let mut reader = topic.reader(0);
        let ((mut reader, floor), (mut writer, published)) = turn.race(
            move || {
                let floor = join(&joining, &mut reader);
                read(&joining, &mut reader);
                (reader, floor)
            },
            move || {
                let published = publish_some(&publishing, &mut writer, 2);
                (writer, published)
            },
        );
        record.add((floor, published));
        assert_eq!(read(&topic, &mut reader), 2 + published as u64);
        assert_eq!(publish_some(&topic, &mut writer, 1), 1, "everything is read");
    });
    let held = (0..=1).flat_map(|floor| (0..=2).map(move |published| (floor, published)));
    outcomes.assert_are(held.chain([(2, 1), (2, 2)]));
}

#[test]
fn a_newcomer_that_dies_joining_holds_up_nobody_once_its_slot_is_freed() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, mut writer) = full_topic();
        let (joining, publishing) = (topic.clone(), topic.clone());
        let ((), (mut writer, published)) = turn.race(
            move || {
                death.of(|| {
                    let mut reader = joining.reader(0);
                    join(&joining, &mut reader);
                });
            },
            move || {
                let published = publish_some(&publishing, &mut writer, 2);
                (writer, published)
            },
        );
        let left = topic.slots.owner(0);
        record.add((left.state(), published));
        assert!(left.is_free() || topic.slots.reap(0, left));
        assert_eq!(publish_some(&topic, &mut writer, 3), 3, "somebody dead is in the way");
    });
    // Whoever dies before its slot is active never held anybody up.
    let early = [State::Free, State::Joining].map(|state| (Some(state), 2));
    let late = (0..=2).map(|published| (Some(State::Active), published));
    outcomes.assert_are(early.into_iter().chain(late));
}

#[test]
fn a_newcomer_reads_everything_when_the_publisher_dies_and_is_succeeded() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, mut writer) = full_topic();
        let (joining, dying) = (topic.clone(), topic.clone());
        let mut reader = topic.reader(0);
        let ((), mut heir, (mut reader, floor)) = turn.succeed(
            move || {
                death.of(|| publish_some(&dying, &mut writer, 1));
            },
            |()| {
                let mut heir = topic.writer(0);
                publish_some(&topic, &mut heir, 1);
                heir
            },
            move || {
                let floor = join(&joining, &mut reader);
                read(&joining, &mut reader);
                (reader, floor)
            },
        );
        record.add((floor, heir.sequence()));
        assert_eq!(read(&topic, &mut reader), heir.sequence());
        assert_eq!(publish_some(&topic, &mut heir, 1), 1, "everything is read");
    });
    let held = (0..=1).flat_map(|floor| (2..=4).map(move |end| (floor, end)));
    outcomes.assert_are(held.chain([(2, 3), (2, 4)]));
}

#[test]
fn a_newcomer_to_the_order_log_finds_every_place_from_its_floor_on() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let topic = Topic::new(Size::of(2, 1));
        let Log { order, .. } = Log::new(4, 1);
        let place = |index: u64| Place { lane: 0, position: 16 + 16 * index };
        for index in 0..3 {
            assert_eq!(order.append(place(index)), Some(index));
        }
        let (joining, publishing) =
            ((topic.clone(), order.clone()), (topic.clone(), order.clone()));
        let (floor, appended) = turn.race(
            move || {
                let (topic, order) = joining;
                topic.claim(0, 1);
                let store = |index| topic.slots.set_order_gate(0, index);
                let floor = Slots::establish(store, || order.floor());
                for index in floor..3 {
                    assert_eq!(order.read(index), Found::Place(place(index)));
                }
                floor
            },
            move || {
                let ((topic, order), mut permitted) = (publishing, 0);
                let append = |index| {
                    order.reserve(&topic.slots, true, &mut permitted).ok()?;
                    order.append(place(index))
                };
                (3..5).map_while(append).count()
            },
        );
        record.add((floor, appended));
    });
    outcomes.assert_are([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]);
}

/// A newcomer, broken or not, beside the real publisher.
fn canary_of_the_newcomer(flaw: Option<broken::Establish>) {
    explore(2, move |turn| {
        let (topic, mut writer) = full_topic();
        let (joining, publishing) = (topic.clone(), topic.clone());
        let mut reader = topic.reader(0);
        turn.race(
            move || {
                joining.claim(0, 1);
                let floor = broken::establish(&joining, flaw);
                assert_eq!(reader.enter(floor), Ok(Entered::Inside));
            },
            move || publish_some(&publishing, &mut writer, 2),
        );
    });
}

#[test]
fn the_newcomer_without_a_flaw_passes() {
    canary_of_the_newcomer(None);
}

#[test]
#[should_panic]
fn canary_the_newcomer_does_not_fence() {
    canary_of_the_newcomer(Some(broken::Establish::NoFence));
}

#[test]
#[should_panic]
fn canary_the_newcomer_does_not_look_again() {
    canary_of_the_newcomer(Some(broken::Establish::NoSecondLook));
}

/// A publisher that takes the oldest segment back, broken or not, beside a real newcomer.
fn canary_of_the_publisher(flaw: Option<broken::Retire>) {
    explore(2, move |turn| {
        let (topic, _) = full_topic();
        let (joining, retiring) = (topic.clone(), topic.clone());
        let mut reader = topic.reader(0);
        turn.race(
            move || {
                join(&joining, &mut reader);
            },
            move || broken::retire(&retiring, flaw),
        );
    });
}

#[test]
fn the_publisher_without_a_flaw_passes() {
    canary_of_the_publisher(None);
}

#[test]
#[should_panic]
fn canary_the_publisher_does_not_fence() {
    canary_of_the_publisher(Some(broken::Retire::NoFence));
}

#[test]
#[should_panic]
fn canary_the_publisher_scans_the_gates_before_it_moves_the_floor() {
    canary_of_the_publisher(Some(broken::Retire::ScansFirst));
}
