//! Taking a segment back from its readers: does a reader that entered a segment, or holds a view into it, read the
//! bytes that it entered for, whatever the publisher does meanwhile, does the publisher get every segment that nobody
//! holds, and does a death on either side leave nothing pinned or lapped?
//!
//! A reader is lapped if it reads the payload of another message, or while the publisher writes: payload lies in
//! tracked cells. Outcomes: whether each visit found its segment, and how many messages the publisher had room for.

#![cfg(windlass_loom)]

use loom_tests::{broken, explore, explore_deaths, payload_of, publish, receive};
use loom_tests::{Outcomes, Size, Topic};
use std::sync::atomic::Ordering::Release;
use windlass::layout::entry::Entry;
use windlass::layout::lane as layout;
use windlass::ring::reader::{Entered, Poll, Reader};
use windlass::ring::writer::Writer;

/// How a visit to a segment ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Visit {
    Read,
    Overtaken,
}
use Visit::*;

/// A lossy topic of `segments` segments, each with a message in it, and `slots` subscribers.
fn full_topic(segments: usize, slots: usize) -> (Topic, Writer) {
    let topic = Topic::new(Size::of(segments, slots));
    for slot in 0..slots {
        topic.claim(slot, 1 + slot as u32);
    }
    let mut writer = topic.writer(0);
    publish_some(&topic, &mut writer, segments);
    (topic, writer)
}

/// Tries to publish `count` messages; returns how many there was room for.
fn publish_some(topic: &Topic, writer: &mut Writer, count: usize) -> usize {
    (0..count).filter(|_| publish(writer, &topic.slots, false).is_ok()).count()
}

/// Enters a segment that has been mapped and reads its message.
fn visit(reader: &mut Reader, logical: u64) -> Visit {
    match reader.enter(logical).expect("the lane is sound") {
        Entered::Inside => {
            assert_eq!(receive(reader), Some(logical));
            Read
        }
        Entered::Overtaken => Overtaken,
        Entered::NotYet => panic!("segment {logical} was mapped before"),
    }
}

/// Nobody holds anything: the publisher finds a segment for every message.
fn assert_nothing_leaked(topic: &Topic, writer: &mut Writer) {
    let count = topic.lane(0).segments() + 1;
    assert_eq!(publish_some(topic, writer, count), count, "a segment is lost");
}

#[test]
fn a_reader_of_two_segments_is_never_lapped() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer) = full_topic(2, 1);
        let (publishing, mut reader) = (topic.clone(), topic.reader(0));
        let ((mut writer, published), visits) = turn.race(
            move || {
                let published = publish_some(&publishing, &mut writer, 2);
                (writer, published)
            },
            move || {
                let visits = (visit(&mut reader, 0), visit(&mut reader, 1));
                reader.leave();
                visits
            },
        );
        record.add((visits, published));
        assert_nothing_leaked(&topic, &mut writer);
    });
    // Whoever is inside a segment finds the next one: its own one is what the publisher would need to go past that.
    // A stray pin of an overtaken reader may cost the publisher a turn.
    let both = |visits| (0..=2).map(move |published| (visits, published));
    let lost = (1..=2).map(|published| ((Overtaken, Overtaken), published));
    outcomes.assert_are(both((Read, Read)).chain(both((Overtaken, Read))).chain(lost));
}

#[test]
fn two_readers_of_one_segment_are_never_lapped() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let (topic, mut writer) = full_topic(2, 2);
        let publishing = topic.clone();
        let (mut one, mut two) = (topic.reader(0), topic.reader(1));
        let leave = |reader: &mut Reader| {
            let visit = visit(reader, 0);
            reader.leave();
            visit
        };
        let ((mut writer, published), one, two) = turn.race_three(
            move || {
                let published = publish_some(&publishing, &mut writer, 2);
                (writer, published)
            },
            move || leave(&mut one),
            move || leave(&mut two),
        );
        record.add((one, two, published));
        assert_nothing_leaked(&topic, &mut writer);
    });
    let visits = [Read, Overtaken];
    let all = visits.iter().flat_map(|one| visits.iter().map(move |two| (*one, *two)));
    outcomes.assert_are(all.flat_map(|(one, two)| (0..=2).map(move |n| (one, two, n))));
}

#[test]
fn a_reader_that_moves_on_is_never_lapped() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer) = full_topic(3, 1);
        let (publishing, mut reader) = (topic.clone(), topic.reader(0));
        assert_eq!(visit(&mut reader, 0), Read);
        let ((mut writer, published), moved) = turn.race(
            move || {
                let published = publish_some(&publishing, &mut writer, 2);
                (writer, published)
            },
            move || {
                let moved = match reader.follow().expect("the lane is sound") {
                    Entered::Inside => receive(&reader),
                    _ => None,
                };
                reader.leave();
                moved
            },
        );
        assert!(moved.is_none_or(|sequence| sequence == 1));
        record.add((moved.is_some(), published));
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes
        .assert_are([true, false].into_iter().flat_map(|moved| (0..=2).map(move |n| (moved, n))));
}

/// Two threads of one subscriber share its slot: one drops the last view of a segment, the other enters it again.
#[test]
fn a_view_dropped_by_one_thread_does_not_unpin_what_another_enters() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer) = full_topic(2, 1);
        let (lane, publishing) = (topic.lane(0), topic.clone());
        let (mut first, mut second) = (topic.reader(0), topic.reader(0));
        assert_eq!(first.enter(0), Ok(Entered::Inside));
        let Poll::Frame { offset, .. } = first.poll() else { panic!("it holds a message") };
        let view = first.into_pin().expect("the reader was inside");
        let ((), visited, (mut writer, published)) = turn.race_three(
            move || {
                assert_eq!(lane.data().payload(offset), payload_of(0));
                lane.pins().unpin(0, view, 0);
            },
            move || {
                let visited = visit(&mut second, 0);
                second.leave();
                visited
            },
            move || {
                let published = publish_some(&publishing, &mut writer, 1);
                (writer, published)
            },
        );
        record.add((visited, published));
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes.assert_are([(Read, 0), (Read, 1), (Overtaken, 0), (Overtaken, 1)]);
}

#[test]
fn a_reader_that_dies_leaves_nothing_pinned_once_its_slot_is_freed() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(3, move |turn, death| {
        let (topic, mut writer) = full_topic(2, 1);
        let owner = topic.slots.owner(0);
        let (publishing, mut reader) = (topic.clone(), topic.reader(0));
        let ((mut writer, published), ()) = turn.race(
            move || {
                let published = publish_some(&publishing, &mut writer, 2);
                (writer, published)
            },
            move || {
                death.of(|| {
                    visit(&mut reader, 0);
                    visit(&mut reader, 1);
                    reader.leave();
                });
            },
        );
        record.add(published);
        assert!(topic.slots.reap(0, owner));
        assert_nothing_leaked(&topic, &mut writer);
        topic.claim(0, 2);
        assert!((0..2).all(|physical| topic.pins.count(0, physical, 0) == 0));
    });
    outcomes.assert_are([0, 1, 2]);
}

#[test]
fn a_publisher_that_dies_taking_a_segment_laps_nobody_and_loses_no_segment() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, mut writer) = full_topic(2, 1);
        let (dying, mut reader) = (topic.clone(), topic.reader(0));
        let ((), (mut heir, published), visits) = turn.succeed(
            move || {
                death.of(|| publish_some(&dying, &mut writer, 2));
            },
            |()| {
                let mut heir = topic.writer(0);
                let published = publish_some(&topic, &mut heir, 1);
                (heir, published)
            },
            move || {
                let visits = (visit(&mut reader, 0), visit(&mut reader, 1));
                reader.leave();
                visits
            },
        );
        record.add((visits, published));
        assert_nothing_leaked(&topic, &mut heir);
    });
    let visits = [(Read, Read), (Overtaken, Read), (Overtaken, Overtaken)];
    outcomes.assert_are(visits.into_iter().flat_map(|visits| [(visits, 0), (visits, 1)]));
}

/// A broken reader of segment 0 beside the real publisher.
fn canary_of_the_reader(flaw: Option<broken::Visit>) {
    explore(3, move |turn| {
        let (topic, mut writer) = full_topic(2, 1);
        let (publishing, reading) = (topic.clone(), topic.clone());
        turn.race(
            move || publish_some(&publishing, &mut writer, 2),
            move || broken::visit(&reading, flaw),
        );
    });
}

#[test]
fn the_reader_without_a_flaw_passes() {
    canary_of_the_reader(None);
}

#[test]
#[should_panic]
fn canary_the_reader_does_not_fence() {
    canary_of_the_reader(Some(broken::Visit::NoFence));
}

#[test]
#[should_panic]
fn canary_the_reader_does_not_look_again() {
    canary_of_the_reader(Some(broken::Visit::NoSecondLook));
}

#[test]
#[should_panic]
fn canary_the_reader_unpins_relaxed() {
    canary_of_the_reader(Some(broken::Visit::RelaxedUnpin));
}

/// A broken publisher beside the real reader.
fn canary_of_the_publisher(flaw: Option<broken::TakeBack>) {
    explore(3, move |turn| {
        let (topic, _) = full_topic(2, 1);
        let (publishing, mut reader) = (topic.clone(), topic.reader(0));
        turn.race(
            move || broken::take_back(&publishing, flaw),
            move || {
                visit(&mut reader, 0);
                reader.leave();
            },
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
    canary_of_the_publisher(Some(broken::TakeBack::NoFence));
}

#[test]
#[should_panic]
fn canary_the_publisher_scans_before_it_retires() {
    canary_of_the_publisher(Some(broken::TakeBack::ScansFirst));
}

#[test]
#[should_panic]
fn canary_the_publisher_loads_the_count_relaxed() {
    canary_of_the_publisher(Some(broken::TakeBack::RelaxedCount));
}

/// The publisher recycles segment 0 twice as fast as a reader looks, with mappings that say which logical segment they
/// are of, or not.
fn canary_of_the_mapping(names_the_logical_segment: bool) {
    explore(2, move |turn| {
        let (topic, _) = full_topic(2, 1);
        let (publishing, reading) = (topic.clone(), topic.clone());
        let word =
            move |logical| Entry::new(if names_the_logical_segment { logical } else { 0 }, 0);
        topic.lane(0).data().word(layout::TABLE_AT).store(word(0).0, Release);
        turn.race(
            move || broken::recycle(&publishing, word(0), word(2), payload_of(2)),
            move || broken::visit_mapped(&reading, word(0), None),
        );
    });
}

#[test]
fn the_mapping_without_a_flaw_passes() {
    canary_of_the_mapping(true);
}

#[test]
#[should_panic]
fn canary_a_mapping_does_not_name_its_logical_segment() {
    canary_of_the_mapping(false);
}

/// The model of two threads of one slot, with a bit in shared memory that a count of the process guards, or a counter.
fn canary_of_the_count(guarded_bit: bool) {
    explore(3, move |turn| {
        let (topic, _) = full_topic(2, 1);
        let count = broken::Count::new(guarded_bit);
        let (viewing, receiving, publishing) = (topic.clone(), topic.clone(), topic.clone());
        let (view, receiver) = (count.clone(), count.clone());
        count.pin(topic.pin_word(0, 0));
        turn.race_three(
            move || {
                broken::look(&viewing, payload_of(0));
                view.unpin(viewing.pin_word(0, 0));
            },
            move || broken::visit_counted(&receiving, &receiver),
            move || broken::take_back(&publishing, None),
        );
    });
}

#[test]
fn the_count_without_a_flaw_passes() {
    canary_of_the_count(false);
}

#[test]
#[should_panic]
fn canary_a_count_of_the_process_guards_a_bit() {
    canary_of_the_count(true);
}
