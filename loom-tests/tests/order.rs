//! The order log: does every committed frame get exactly one place, dense and in the order of its lane, whoever
//! appends, dies or repairs at the same time, and does a reader see at a place the frame that has it, or that it was
//! lapped?
//!
//! Outcomes: what a reader found at the first places; for a death, how many frames had a place before anybody repaired.

#![cfg(windlass_loom)]

use loom_tests::broken::{self, Append};
use loom_tests::{explore, explore_deaths, publish_in_order, receive, repair_order};
use loom_tests::{Log, Outcomes, Size, Topic, Turn};
use windlass::layout::frame;
use windlass::layout::order::Place;
use windlass::ring::order::Found;
use windlass::ring::reader::Reader;
use windlass::ring::slots::Claimed;

/// The place of frame `number` of a lane.
fn place(lane: usize, number: u64) -> Place {
    Place { lane, position: 16 + 16 * number }
}

/// Everything that the log still holds, in order. Places that are lapped come before all others.
fn held(log: &Log) -> Vec<Place> {
    let mut tail = log.order.tail();
    while matches!(log.order.read(tail), Found::Place(_)) {
        tail += 1;
    }
    let place = |index| match log.order.read(index) {
        Found::Place(place) => place,
        other => panic!("place {index} of {tail} holds {other:?}"),
    };
    (tail.saturating_sub(log.slots)..tail).map(place).collect()
}

/// How append and read are done: by the real code, or by a broken copy.
#[derive(Clone, Copy)]
struct Calls {
    append: fn(&Log, Place) -> Option<u64>,
    read: fn(&Log, u64) -> Found,
}

const REAL: Calls = Calls {
    append: |log, place| log.order.append(place),
    read: |log, index| log.order.read(index),
};

/// Appends the first `count` frames of a lane; returns their indices.
fn append_some(log: &Log, lane: usize, count: u64, calls: Calls) -> Vec<(u64, Place)> {
    let append = |number| (calls.append)(log, place(lane, number));
    let index = |number| append(number).expect("nobody else appends this frame");
    (0..count).map(|number| (index(number), place(lane, number))).collect()
}

/// Follows the log from its first place on, for some looks; returns where it stands and what it saw.
fn follow_some(log: &Log, looks: u64, calls: Calls) -> (u64, Vec<(u64, Place)>) {
    let (mut index, mut seen) = (0, Vec::new());
    for _ in 0..looks {
        match (calls.read)(log, index) {
            Found::Empty => {}
            Found::Lapped => index = log.order.floor(),
            Found::Place(place) => {
                seen.push((index, place));
                index += 1;
            }
            Found::Corrupt => panic!("no publisher writes this"),
        }
    }
    (index, seen)
}

/// Two publishers append `many` and `few` frames to a ring of `slots` places while a reader follows for some looks.
///
/// Outcomes: where the reader stands in the end, and how many frames it saw on the way.
fn append_and_follow(
    slots: u64,
    (many, few): (u64, u64),
    looks: u64,
    calls: Calls,
) -> Outcomes<(u64, usize)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let log = Log::new(slots, 2);
        let (one, two, three) = (log.clone(), log.clone(), log.clone());
        let (mut placed, placed_too, (index, seen)) = turn.race_three(
            move || append_some(&one, 0, many, calls),
            move || append_some(&two, 1, few, calls),
            move || follow_some(&three, looks, calls),
        );
        for lane in [&placed, &placed_too] {
            assert!(lane.windows(2).all(|pair| pair[0].0 < pair[1].0), "{lane:?} is out of order");
        }
        placed.extend(placed_too);
        placed.sort_by_key(|(index, _)| *index);
        let all: Vec<Place> = placed.iter().map(|(_, place)| *place).collect();
        let dense = placed.iter().enumerate().all(|(n, (index, _))| *index == n as u64);
        assert!(dense, "places are not dense: {placed:?}");
        assert_eq!(held(&log), all[all.len().saturating_sub(slots as usize)..]);
        assert!(seen.iter().all(|found| placed.contains(found)), "{seen:?} is not in {placed:?}");
        record.add((index, seen.len()));
    });
    outcomes
}

#[test]
fn two_publishers_lap_each_other_in_a_ring_of_one_place() {
    append_and_follow(1, (3, 1), 0, REAL).assert_are([(0, 0)]);
}

#[test]
fn two_publishers_lap_each_other_in_a_ring_of_two_places() {
    append_and_follow(2, (2, 2), 0, REAL).assert_are([(0, 0)]);
}

#[test]
fn a_reader_of_one_place_sees_frames_or_is_lapped() {
    let outcomes = append_and_follow(1, (1, 1), 2, REAL);
    outcomes.assert_are([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2)]);
}

#[test]
fn a_reader_of_two_places_sees_frames_or_is_lapped() {
    let outcomes = append_and_follow(2, (3, 0), 3, REAL);
    outcomes.assert_are([(0, 0), (1, 0), (1, 1), (2, 1), (2, 2), (3, 2), (3, 3)]);
}

/// Two lanes whose first segment has room for three messages, and a log with room for all of them.
fn ordered_topic() -> (Topic, Log) {
    let segment_bytes = frame::PROLOGUE + 3 * 16 + frame::WORD;
    (Topic::new(Size { lanes: 2, segments: 2, segment_bytes, slots: 1 }), Log::new(8, 2))
}

/// Every frame of either lane has exactly one place, in the order of the lanes; returns how many lane 0 has.
fn assert_all_have_places(topic: &Topic, log: &Log) -> u64 {
    let held = held(log);
    for lane in 0..2 {
        let committed = (0..topic.writer(lane).sequence()).map(|number| place(lane, number));
        let of_lane: Vec<Place> = held.iter().copied().filter(|place| place.lane == lane).collect();
        assert_eq!(of_lane, committed.collect::<Vec<_>>(), "of {held:?}");
    }
    topic.writer(0).sequence()
}

#[test]
fn what_a_dead_publisher_left_is_appended_once_by_two_who_repair() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let (topic, log) = ordered_topic();
        let mut writer = topic.writer(0);
        death.of(|| {
            for _ in 0..2 {
                publish_in_order(&mut writer, &topic.slots, &log);
            }
        });
        let before = held(&log).len();
        let (one, two) = ((topic.clone(), log.clone()), (topic.clone(), log.clone()));
        let three = (topic.clone(), log.clone());
        turn.race_three(
            move || repair_order(&one.0.writer(0), &one.1),
            move || repair_order(&two.0.writer(0), &two.1),
            move || publish_in_order(&mut three.0.writer(1), &three.0.slots, &three.1),
        );
        record.add((before, assert_all_have_places(&topic, &log)));
    });
    outcomes.assert_are([(0, 0), (0, 1), (1, 1), (1, 2), (2, 2)]);
}

#[test]
fn an_heir_places_each_frame_once_beside_a_living_publisher() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, log) = ordered_topic();
        let (dying, living) = ((topic.clone(), log.clone()), (topic.clone(), log.clone()));
        turn.succeed(
            move || {
                let mut writer = dying.0.writer(0);
                death.of(|| publish_in_order(&mut writer, &dying.0.slots, &dying.1));
            },
            |()| {
                let mut heir = topic.writer(0);
                repair_order(&heir, &log);
                publish_in_order(&mut heir, &topic.slots, &log);
            },
            move || publish_in_order(&mut living.0.writer(1), &living.0.slots, &living.1),
        );
        record.add(assert_all_have_places(&topic, &log));
    });
    outcomes.assert_are([1, 2]);
}

#[test]
fn an_heir_that_dies_repairing_is_repaired_after() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, log) = ordered_topic();
        let mut writer = topic.writer(0);
        // The publisher dies when its frame is committed and has no place.
        loom_tests::publish(&mut writer, &topic.slots, false).expect("a segment is free");
        let (heir, living) = ((topic.clone(), log.clone()), (topic.clone(), log.clone()));
        turn.succeed(
            move || {
                death.of(|| repair_order(&heir.0.writer(0), &heir.1));
            },
            |()| repair_order(&topic.writer(0), &log),
            move || publish_in_order(&mut living.0.writer(1), &living.0.slots, &living.1),
        );
        record.add(assert_all_have_places(&topic, &log));
    });
    outcomes.assert_are([1]);
}

#[test]
fn a_place_leads_to_a_committed_frame() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let (topic, log) = ordered_topic();
        let (one, two) = ((topic.clone(), log.clone()), (topic.clone(), log.clone()));
        let mut readers = [0, 1].map(|lane| Reader::new(topic.lane(lane), 0));
        topic.claim(0, 1);
        let (_, _, seen) = turn.race_three(
            move || publish_in_order(&mut one.0.writer(0), &one.0.slots, &one.1),
            move || publish_in_order(&mut two.0.writer(1), &two.0.slots, &two.1),
            move || {
                let (_, seen) = follow_some(&log, 2, REAL);
                for (_, place) in &seen {
                    let reader = &mut readers[place.lane];
                    assert_eq!(reader.seek_position(place.position), Ok(true));
                    assert_eq!(receive(reader), Some(0));
                }
                seen.iter().map(|(_, place)| place.lane).collect::<Vec<_>>()
            },
        );
        record.add(seen);
    });
    outcomes.assert_are([vec![], vec![0], vec![1], vec![0, 1], vec![1, 0]]);
}

/// A log of four places for two lanes, with one frame of each in it, and a subscriber that has read neither.
fn gated_log() -> (Topic, Log) {
    let (topic, log) = (Topic::new(Size::of(2, 1)), Log::new(4, 2));
    topic.claim(0, 1);
    topic.slots.set_order_gate(0, 0);
    for lane in 0..2 {
        log.order.append(place(lane, 0)).expect("nobody else appends this frame");
    }
    (topic, log)
}

/// Reserves a place for each of the next `count` frames of a lane and appends them, as long as there is room; returns
/// how many.
fn append_reserved(topic: &Topic, log: &Log, lane: usize, count: u64, reliable: bool) -> usize {
    let mut permitted = 0;
    let mut append = |number| {
        log.order.reserve(&topic.slots, reliable, &mut permitted).ok()?;
        log.order.append(place(lane, number))
    };
    (1..=count).map_while(&mut append).count()
}

/// Follows a reliable log for some looks and publishes the gate after each; returns where it stands.
fn follow_gated(topic: &Topic, log: &Log, from: u64, looks: usize) -> u64 {
    let mut index = from;
    for _ in 0..looks {
        match log.order.read(index) {
            Found::Empty => {}
            Found::Place(_) => {
                index += 1;
                topic.slots.set_order_gate(0, index);
            }
            lost => panic!("place {index} of a reliable log is {lost:?}"),
        }
    }
    index
}

#[test]
fn publishers_that_reserved_never_lap_an_active_subscriber() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(1, move |turn| {
        let (topic, log) = gated_log();
        let (one, two) = ((topic.clone(), log.clone()), (topic.clone(), log.clone()));
        let three = (topic.clone(), log.clone());
        let (placed, placed_too, index) = turn.race_three(
            move || append_reserved(&one.0, &one.1, 0, 2, true),
            move || append_reserved(&two.0, &two.1, 1, 2, true),
            move || follow_gated(&three.0, &three.1, 0, 3),
        );
        let end = 2 + placed + placed_too;
        record.add((placed + placed_too, index));
        assert_eq!(follow_gated(&topic, &log, index, 6), end as u64);
    });
    // Four places: the fourth message has one only when the subscriber is known to have read the first two.
    outcomes.assert_are([(0, 2), (1, 2), (1, 3), (2, 2), (2, 3), (3, 2), (3, 3)]);
}

#[test]
fn a_publisher_that_dies_reserving_holds_up_no_reader_and_no_publisher() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, log) = gated_log();
        let (dying, reading) = ((topic.clone(), log.clone()), (topic.clone(), log.clone()));
        let ((), (), index) = turn.succeed(
            move || {
                death.of(|| append_reserved(&dying.0, &dying.1, 0, 1, true));
            },
            |()| log.order.settle(),
            move || follow_gated(&reading.0, &reading.1, 0, 2),
        );
        let index = follow_gated(&topic, &log, index, 3);
        assert_eq!(index, log.order.tail());
        record.add(index);
        assert_eq!(append_reserved(&topic, &log, 1, 1, true), 1, "everything is read");
    });
    outcomes.assert_are([2, 3]);
}

#[test]
fn a_subscriber_that_is_lapped_has_been_evicted() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, log) = gated_log();
        let (evicting, reading) = ((topic.clone(), log.clone()), (topic.clone(), log));
        let claimed = Claimed { slot: 0, owner: topic.slots.owner(0) };
        let (_, lapped) = turn.race(
            move || {
                let (topic, log) = evicting;
                let mut permitted = 0;
                if let Err(obstacle) = log.order.reserve(&topic.slots, true, &mut permitted) {
                    topic.slots.evict(obstacle.slot, obstacle.owner);
                }
                append_reserved(&topic, &log, 0, 2, true)
            },
            move || {
                let (topic, log) = reading;
                let lapped = (0..2).any(|index| log.order.read(index) == Found::Lapped);
                assert!(!lapped || !topic.slots.is_active(claimed), "an active one was lapped");
                lapped
            },
        );
        record.add((lapped, topic.slots.is_active(claimed)));
    });
    outcomes.assert_are([(true, false), (false, false)]);
}

/// The copy of `append` with this flaw, and the real `read`.
fn broken(append: fn(&Log, Place) -> Option<u64>) -> Calls {
    Calls { append, ..REAL }
}

#[test]
fn the_append_without_a_flaw_passes() {
    let copy = broken(|log, place| broken::append(log, place, None));
    append_and_follow(1, (2, 1), 0, copy);
}

#[test]
#[should_panic]
fn canary_the_tail_is_not_looked_at_again() {
    let copy = broken(|log, place| broken::append(log, place, Some(Append::NoSecondLook)));
    append_and_follow(1, (3, 1), 0, copy);
}

#[test]
#[should_panic]
fn canary_a_place_is_lapped_before_anybody_says_so() {
    let copy = broken(|log, place| broken::append(log, place, Some(Append::LapsLate)));
    append_and_follow(1, (2, 1), 1, copy);
}

#[test]
#[should_panic]
fn canary_a_reader_does_not_ask_whether_it_was_lapped() {
    append_and_follow(1, (3, 0), 2, Calls { read: broken::read, ..REAL });
}

/// Two who repair append the same frame beside a publisher of the other lane.
fn canary_of_once(append: fn(&Log, Place) -> Option<u64>) {
    explore(2, move |turn| {
        let log = Log::new(8, 2);
        let (one, two, three) = (log.clone(), log.clone(), log.clone());
        turn.race_three(
            move || append(&one, place(0, 0)),
            move || append(&two, place(0, 0)),
            move || append(&three, place(1, 0)),
        );
        let held = held(&log);
        let count = held.iter().filter(|held| **held == place(0, 0)).count();
        assert_eq!(count, 1, "of {held:?}");
    });
}

#[test]
#[should_panic]
fn canary_the_tail_is_advanced_before_the_frame_is_covered() {
    canary_of_once(|log, place| broken::append(log, place, Some(Append::TailFirst)));
}

#[test]
#[should_panic]
fn canary_a_frame_is_looked_for_before_the_tail() {
    canary_of_once(|log, place| broken::append(log, place, Some(Append::CoveredFirst)));
}
