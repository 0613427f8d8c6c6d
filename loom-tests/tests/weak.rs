//! Finding a message again by its position alone: does a reader that stands where a message was seen once read that
//! message, with the segment pinned from then on, or learn that it is gone, whatever the publisher, the last view of
//! the segment and a death do meanwhile?
//!
//! Outcomes: whether the message was found, and how many messages the publisher had room for.

#![cfg(windlass_loom)]

use loom_tests::{broken, explore, explore_deaths, payload_of, publish, receive};
use loom_tests::{Outcomes, Size, Topic, TWO_MESSAGES};
use windlass::ring::reader::{Entered, Poll};
use windlass::ring::writer::Writer;

/// The message that is looked for: the second one of the first segment.
const SOUGHT: u64 = 1;

/// A lossy topic of two segments that take two messages each, full; its writer, and the position of the sought message.
fn full_topic() -> (Topic, Writer, u64) {
    let topic = Topic::new(Size { segment_bytes: TWO_MESSAGES, ..Size::of(2, 1) });
    topic.claim(0, 1);
    let mut writer = topic.writer(0);
    let mut publish = || publish(&mut writer, &topic.slots, false).expect("the segments are free");
    let positions: Vec<u64> = (0..4).map(|_| publish()).collect();
    (topic, writer, positions[SOUGHT as usize])
}

/// Finds the sought message, as `WeakView::upgrade` does, reads it as a view and drops the view.
fn upgrade(topic: &Topic, position: u64) -> bool {
    let mut reader = topic.reader(0);
    let entered = reader.stand_at(position, SOUGHT);
    let offset = match reader.poll() {
        Poll::Frame { offset, .. } if entered == Ok(Entered::Inside) => offset,
        end => {
            assert_eq!(entered, Ok(Entered::Overtaken), "then {end:?}");
            reader.leave();
            return false;
        }
    };
    let pinned = reader.into_pin().expect("the reader is inside");
    assert_eq!(topic.lane(0).data().payload(offset), payload_of(SOUGHT));
    topic.pins.unpin(0, pinned, 0);
    true
}

fn publish_some(topic: &Topic, writer: &mut Writer, count: usize) -> usize {
    (0..count).filter(|_| publish(writer, &topic.slots, false).is_ok()).count()
}

fn assert_nothing_leaked(topic: &Topic, writer: &mut Writer) {
    assert_eq!(publish_some(topic, writer, 6), 6, "a segment is lost");
}

#[test]
fn a_position_gives_its_message_or_nothing() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, mut writer, position) = full_topic();
        let (upgrading, publishing) = (topic.clone(), topic.clone());
        let (found, (mut writer, published)) = turn.race(
            move || upgrade(&upgrading, position),
            move || {
                let published = publish_some(&publishing, &mut writer, 3);
                (writer, published)
            },
        );
        record.add((found, published));
        assert!(!upgrade(&topic, position) || published == 0);
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes
        .assert_are([true, false].into_iter().flat_map(|found| (0..=3).map(move |n| (found, n))));
}

#[test]
fn a_position_is_found_again_while_the_last_view_of_its_segment_goes() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let (topic, mut writer, position) = full_topic();
        let (upgrading, dropping, publishing) = (topic.clone(), topic.clone(), topic.clone());
        let mut reader = topic.reader(0);
        assert_eq!(reader.enter(0), Ok(Entered::Inside));
        let (found, (), (mut writer, published)) = turn.race_three(
            move || upgrade(&upgrading, position),
            move || {
                assert_eq!(receive(&reader), Some(0));
                dropping.pins.unpin(0, reader.into_pin().expect("the reader is inside"), 0);
            },
            move || {
                let published = publish_some(&publishing, &mut writer, 1);
                (writer, published)
            },
        );
        record.add((found, published));
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes.assert_are([(true, 0), (true, 1), (false, 0), (false, 1)]);
}

#[test]
fn whoever_dies_looking_leaves_nothing_pinned_once_its_slot_is_freed() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(3, move |turn, death| {
        let (topic, mut writer, position) = full_topic();
        let owner = topic.slots.owner(0);
        let (upgrading, publishing) = (topic.clone(), topic.clone());
        let ((), (mut writer, published)) = turn.race(
            move || {
                death.of(|| upgrade(&upgrading, position));
            },
            move || {
                let published = publish_some(&publishing, &mut writer, 3);
                (writer, published)
            },
        );
        record.add(published);
        assert!(topic.slots.reap(0, owner));
        assert_nothing_leaked(&topic, &mut writer);
    });
    outcomes.assert_are(0..=3);
}

/// A broken look at the first message beside the real publisher.
fn canary(flaw: Option<broken::StandAt>) {
    explore(3, move |turn| {
        let topic = Topic::new(Size::of(2, 1));
        topic.claim(0, 1);
        let mut writer = topic.writer(0);
        publish_some(&topic, &mut writer, 2);
        let looking = topic.clone();
        turn.race(
            move || broken::stand_at_first(&looking, flaw),
            move || publish_some(&topic, &mut writer, 1),
        );
    });
}

#[test]
fn the_look_without_a_flaw_passes() {
    canary(None);
}

#[test]
#[should_panic]
fn canary_a_header_word_is_trusted_in_place_of_the_mapping() {
    canary(Some(broken::StandAt::TrustsTheHeader));
}

#[test]
#[should_panic]
fn canary_a_mapping_is_trusted_that_was_seen_before_the_pin() {
    canary(Some(broken::StandAt::TrustsTheFirstLook));
}
