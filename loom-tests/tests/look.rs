//! Looking at a lane without a pin, for reports and counts: does a look that succeeds tell the sequence that belongs to
//! the segment that it looked at, although the publisher may be taking that segment back?
//!
//! Outcomes: what was told about the oldest and about the newest message.

#![cfg(windlass_loom)]

use loom_tests::{broken, explore, publish, Outcomes, Size, Topic};
use windlass::ring::lane::Lane;
use windlass::ring::writer::Writer;

/// A lossy topic of two segments with a message in each: the segment of message `n` is logical segment `n`.
fn full_topic() -> (Topic, Writer) {
    let topic = Topic::new(Size::of(2, 1));
    let mut writer = topic.writer(0);
    for _ in 0..2 {
        publish(&mut writer, &topic.slots, false).expect("the segments are free");
    }
    (topic, writer)
}

fn look_at_floor(look: fn(&Lane) -> Option<u64>) -> Outcomes<Option<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer) = full_topic();
        let lane = topic.lane(0);
        let (told, _) = turn.race(
            move || look(&lane),
            move || publish(&mut writer, &topic.slots, false).expect("nobody pins anything"),
        );
        record.add(told);
    });
    outcomes
}

#[test]
fn a_look_at_the_floor_tells_what_was_oldest() {
    look_at_floor(|lane| lane.look_at_floor().expect("the lane is sound")).assert_are([
        None,
        Some(0),
        Some(1),
    ]);
}

#[test]
fn a_look_at_the_tail_tells_what_is_due() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer) = full_topic();
        let (lane, looked) = (topic.lane(0), topic.lane(0));
        let (told, _) = turn.race(
            move || looked.look_at_tail().expect("the lane is sound"),
            move || {
                for _ in 0..2 {
                    publish(&mut writer, &topic.slots, false).expect("nobody pins anything");
                }
            },
        );
        if let Some((sequence, position)) = told {
            let (ends, begins) = (lane.position(sequence - 1, 32), lane.position(sequence, 16));
            assert!(position == ends || position == begins, "{sequence} is due at {position}");
        }
        record.add(told.map(|(sequence, _)| sequence));
    });
    outcomes.assert_are([None, Some(2), Some(3), Some(4)]);
}

#[test]
#[should_panic]
fn canary_a_look_does_not_look_at_the_mapping_again() {
    look_at_floor(broken::look_at_floor).assert_are([None, Some(0), Some(1)]);
}
