//! Looking for a place to begin while the publisher of a lossy topic laps: does a newcomer that looks for the oldest
//! message, the newest one or a certain one stand at a message that is there, inside its segment, or learn that it is
//! gone, and is the lane never called damaged, wherever the publisher dies?
//!
//! Outcomes: the sequence at which the newcomer stands, if it found a place.

#![cfg(windlass_loom)]

use loom_tests::{explore, explore_deaths, publish, receive, Outcomes, Size, Topic};
use windlass::ring::lane::Corrupt;
use windlass::ring::reader::{Entered, Reader};
use windlass::ring::writer::Writer;

/// A lossy topic of two segments with a message in each, and a subscriber that stands nowhere.
fn full_topic() -> (Topic, Writer, Reader) {
    let topic = Topic::new(Size::of(2, 1));
    topic.claim(0, 1);
    let mut writer = topic.writer(0);
    publish_some(&topic, &mut writer, 2);
    let reader = topic.reader(0);
    (topic, writer, reader)
}

/// Tries to publish `count` messages; a newcomer's pin may be in the way.
fn publish_some(topic: &Topic, writer: &mut Writer, count: usize) {
    for _ in 0..count {
        publish(writer, &topic.slots, false).ok();
    }
}

/// How a newcomer looks for its place; false if there is none.
type Seek = fn(&mut Reader) -> Result<bool, Corrupt>;

const OLDEST: Seek = |reader| reader.seek_oldest().map(|()| true);
const LATEST: Seek = |reader| reader.seek_latest().map(|()| true);
const SECOND: Seek = |reader| reader.seek_sequence(1);

/// Looks for a place and reads the message there, if there is one yet; returns its sequence.
fn begin(reader: &mut Reader, seek: Seek) -> Option<u64> {
    let stands = seek(reader).expect("the lane is sound");
    let sequence = reader.sequence();
    if stands {
        receive(reader);
    }
    reader.leave();
    stands.then_some(sequence)
}

fn seek_beside_a_publisher(seek: Seek) -> Outcomes<Option<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer, mut reader) = full_topic();
        let ((), stood) = turn
            .race(move || publish_some(&topic, &mut writer, 2), move || begin(&mut reader, seek));
        record.add(stood);
    });
    outcomes
}

#[test]
fn the_oldest_message_is_found_while_the_publisher_laps() {
    seek_beside_a_publisher(OLDEST).assert_are((0..=2).map(Some));
}

#[test]
fn the_end_is_found_while_the_publisher_laps() {
    seek_beside_a_publisher(LATEST).assert_are((2..=4).map(Some));
}

#[test]
fn a_certain_message_is_found_or_known_to_be_gone() {
    seek_beside_a_publisher(SECOND).assert_are([Some(1), None]);
}

#[test]
fn a_place_is_found_wherever_the_publisher_dies() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let (topic, mut writer, mut reader) = full_topic();
        let dying = topic.clone();
        let ((), (), stood) = turn.succeed(
            move || {
                death.of(|| publish_some(&dying, &mut writer, 1));
            },
            |()| publish_some(&topic, &mut topic.writer(0), 1),
            move || (begin(&mut reader, OLDEST), begin(&mut reader, LATEST)),
        );
        record.add(stood);
    });
    // The floor is at segment 2 only once message 2 is committed.
    let all = (0..=2).flat_map(|oldest| (2..=4).map(move |end| (oldest, end)));
    let possible = all.filter(|place| *place != (2, 2));
    outcomes.assert_are(possible.map(|(oldest, end)| (Some(oldest), Some(end))));
}

#[test]
#[should_panic]
fn canary_a_newcomer_believes_the_first_floor_that_it_sees() {
    seek_beside_a_publisher(|reader| {
        let floor = reader.lane().floor()?;
        match reader.enter(floor)? {
            Entered::Inside => Ok(true),
            _ => Err(Corrupt),
        }
    });
}
