//! Rolling to the next segment: does a reader that follows, and one that joins at the newest message meanwhile, see
//! every message from where it stands, whatever step of the roll the publisher died at, and does whoever takes over
//! complete the roll, even if it dies of it as well?
//!
//! Outcomes: the messages that the dead publisher committed, and the sequence at which the newcomer stood.

#![cfg(windlass_loom)]

use loom_tests::TWO_MESSAGES;
use loom_tests::{broken, explore, explore_deaths, publish, read_on, Death, Outcomes, Size, Topic};
use windlass::layout::frame;
use windlass::ring::reader::{Poll, Reader};
use windlass::ring::writer::Writer;
use windlass::step;

/// A topic whose segments take one message each and are not recycled, with message 0 in it.
fn topic() -> (Topic, Writer) {
    let topic = Topic::new(Size::of(4, 2));
    topic.claim(0, 1);
    topic.claim(1, 2);
    let mut writer = topic.writer(0);
    publish(&mut writer, &topic.slots, false).expect("the first segment has room");
    (topic, writer)
}

fn publish_two(topic: &Topic, mut writer: Writer, death: &Death) {
    death.of(|| {
        for _ in 0..2 {
            publish(&mut writer, &topic.slots, false).expect("segments are free");
        }
    });
}

/// Takes over, publishes one message, and returns how many there were before.
fn succeed(topic: &Topic) -> u64 {
    let mut heir = topic.writer(0);
    let found = heir.sequence();
    publish(&mut heir, &topic.slots, false).expect("a segment is free");
    found
}

/// Reads to the end of the lane and checks that the messages are `first` and all that follow it.
fn read_all(mut reader: Reader, mut received: Vec<u64>, first: u64, end: u64) {
    assert_eq!(read_on(&mut reader, &mut received), Poll::Empty);
    assert_eq!(received, (first..end).collect::<Vec<_>>());
}

#[test]
fn a_newcomer_misses_nothing_when_the_publisher_dies_rolling() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, writer) = topic();
        let (dying, mut latest) = (topic.clone(), topic.reader(0));
        let ((), found, (latest, first, received)) = turn.succeed(
            move || publish_two(&dying, writer, &death),
            |()| succeed(&topic),
            move || {
                latest.seek_latest().expect("the lane is sound");
                let (first, mut received) = (latest.sequence(), Vec::new());
                read_on(&mut latest, &mut received);
                (latest, first, received)
            },
        );
        record.add((found, first));
        read_all(latest, received, first, found + 1);
    });
    let all = (1..=3).flat_map(|found| (1..=found + 1).map(move |first| (found, first)));
    outcomes.assert_are(all);
}

#[test]
fn a_reader_follows_over_a_roll_that_was_completed_by_the_heir() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, writer) = topic();
        let (dying, mut oldest) = (topic.clone(), topic.reader(0));
        let ((), found, (oldest, received)) = turn.succeed(
            move || publish_two(&dying, writer, &death),
            |()| succeed(&topic),
            move || {
                oldest.seek_oldest().expect("the lane is sound");
                let mut received = Vec::new();
                read_on(&mut oldest, &mut received);
                (oldest, received)
            },
        );
        record.add((found, received.len()));
        read_all(oldest, received, 0, found + 1);
    });
    let all = (1..=3).flat_map(|found| (1..=found as usize + 1).map(move |seen| (found, seen)));
    outcomes.assert_are(all);
}

#[test]
fn an_heir_that_dies_repairing_leaves_a_lane_that_the_next_one_repairs() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(3, move |turn, death| {
        let (topic, mut writer) = topic();
        // The publisher dies when the next segment is mapped and nothing says so yet.
        let steps_to_newest = 2;
        step::abandon_after(steps_to_newest, || publish(&mut writer, &topic.slots, false));
        let (first_heir, mut latest) = (topic.clone(), topic.reader(0));
        let ((), found, (latest, first, received)) = turn.succeed(
            move || {
                death.of(|| succeed(&first_heir));
            },
            |()| succeed(&topic),
            move || {
                latest.seek_latest().expect("the lane is sound");
                let (first, mut received) = (latest.sequence(), Vec::new());
                read_on(&mut latest, &mut received);
                (latest, first, received)
            },
        );
        record.add((found, first));
        read_all(latest, received, first, found + 1);
    });
    outcomes.assert_are([(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]);
}

/// A publisher that rolls before the old segment is full, for a larger message, and dies before it ends the old one;
/// its heir, who publishes two small messages; and a newcomer, who must see them.
fn canary_of_the_heir(stays_in_the_old_segment: bool) {
    explore(2, move |turn| {
        let topic = Topic::new(Size { segment_bytes: TWO_MESSAGES, ..Size::of(2, 1) });
        topic.claim(0, 1);
        let mut writer = topic.writer(0);
        publish(&mut writer, &topic.slots, false).expect("the first segment has room");
        let (dying, mut latest) = (topic.clone(), topic.reader(0));
        let ((), (), (latest, first)) = turn.succeed(
            move || {
                let steps_to_next = 3;
                step::abandon_after(steps_to_next, || {
                    let physical = writer.take(&dying.slots, false).expect("a segment is free");
                    writer.roll(physical);
                });
            },
            |()| match stays_in_the_old_segment {
                false => {
                    let mut heir = topic.writer(0);
                    for _ in 0..2 {
                        publish(&mut heir, &topic.slots, false).expect("a segment is free");
                    }
                }
                true => broken::succeed_in_the_old_segment(&topic.lane(0)),
            },
            move || {
                latest.seek_latest().expect("the lane is sound");
                let first = latest.sequence();
                (latest, first)
            },
        );
        read_all(latest, Vec::new(), first, 3);
    });
}

#[test]
fn the_heir_without_a_flaw_passes() {
    canary_of_the_heir(false);
}

#[test]
#[should_panic]
fn canary_the_heir_stays_in_the_old_segment() {
    canary_of_the_heir(true);
}

/// One roll beside a reader that begins at the oldest message, or at the newest one.
fn canary_of_the_roll(flaw: Option<broken::Roll>, latest: bool) {
    explore(3, move |turn| {
        let (topic, _) = topic();
        let (lane, mut reader) = (topic.lane(0), topic.reader(0));
        let end = frame::PROLOGUE + frame::frame_bytes(8);
        let (_, end) = turn.race(
            move || broken::roll(&lane, end, 1, flaw),
            move || {
                let stood = if latest { reader.seek_latest() } else { reader.seek_oldest() };
                stood.map(|()| read_on(&mut reader, &mut Vec::new()))
            },
        );
        assert_eq!(end, Ok(Poll::Empty), "the reader found what no publisher leaves");
    });
}

#[test]
fn the_roll_without_a_flaw_passes() {
    canary_of_the_roll(None, false);
    canary_of_the_roll(None, true);
}

#[test]
#[should_panic]
fn canary_the_old_segment_ends_before_the_next_one_is_mapped() {
    canary_of_the_roll(Some(broken::Roll::EndsBeforeMapping), false);
}

#[test]
#[should_panic]
fn canary_the_next_segment_is_mapped_before_its_prologue() {
    canary_of_the_roll(Some(broken::Roll::MapsBeforePrologue), true);
}
