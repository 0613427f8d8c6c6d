//! Publishing into a segment and reading it: does a reader see a prefix of what was committed, whole and in order,
//! while the segment is full of stale bytes that look like frames, and does whoever takes the lane over from a
//! publisher that died at any step continue exactly behind the last committed message?
//!
//! Outcomes: how many messages the dead publisher committed, and how many the reader had seen by then.

#![cfg(windlass_loom)]

use loom_tests::{
    broken, explore, explore_deaths, payload_of, receive, Outcomes, Size, Topic, Turn,
};
use windlass::layout::frame;
use windlass::ring::reader::Reader;
use windlass::ring::writer::Writer;

/// Room for three frames of one word.
const SEGMENT_BYTES: usize = frame::PROLOGUE + 3 * 16 + frame::WORD;

fn topic() -> (Topic, Reader) {
    let topic = Topic::new(Size { lanes: 1, segments: 2, segment_bytes: SEGMENT_BYTES, slots: 1 });
    let mut reader = topic.reader(0);
    reader.enter(0).expect("the first segment is mapped");
    (topic, reader)
}

/// Publishes a copy: zeroes ahead first.
fn publish_copy(writer: &mut Writer) {
    writer.clean(8);
    writer.write_payload(0, payload_of(writer.sequence()));
    writer.commit(8, 8);
}

/// Writes a loan of `words` words, of which the first is the message and the others look like the frames that are due
/// behind it.
fn write_loan(writer: &mut Writer, words: usize) {
    let sequence = writer.sequence();
    writer.write_payload(0, payload_of(sequence));
    for word in 1..words {
        writer.write_payload(word, frame::frame(0, sequence + 1));
    }
}

/// Publishes the first word of a loan of `words` words that was clean, as typed loans are, or not.
fn publish_loan(writer: &mut Writer, words: usize, clean: bool) {
    if clean {
        writer.clean(words * 8);
    }
    let clean = writer.lend();
    write_loan(writer, words);
    writer.take_back(clean);
    writer.commit(8, words * 8);
}

/// Builds a loan and forgets it.
fn forget_loan(writer: &mut Writer) {
    writer.clean(24);
    writer.lend();
    write_loan(writer, 3);
}

fn receive_some(reader: &Reader, looks: usize) -> usize {
    (0..looks).filter_map(|_| receive(reader)).count()
}

#[test]
fn a_reader_sees_a_prefix_of_what_is_committed() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let (topic, reader) = topic();
        let mut writer = topic.writer(0);
        let (_, (reader, seen)) = turn.race(
            move || {
                forget_loan(&mut writer);
                publish_copy(&mut writer);
                publish_loan(&mut writer, 3, true);
                publish_loan(&mut writer, 1, false);
            },
            move || {
                let seen = receive_some(&reader, 3);
                (reader, seen)
            },
        );
        record.add(seen);
        assert_eq!(receive_some(&reader, 4), 3 - seen);
    });
    outcomes.assert_are(0..=3);
}

#[test]
fn whoever_takes_over_continues_behind_the_last_committed_message() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(3, move |turn, death| {
        let (topic, reader) = topic();
        let mut writer = topic.writer(0);
        let (dead, total, (reader, seen)) = turn.succeed(
            move || {
                death.of(|| {
                    publish_loan(&mut writer, 5, false);
                    publish_copy(&mut writer);
                });
            },
            |()| {
                let mut heir = topic.writer(0);
                let found = heir.sequence();
                publish_loan(&mut heir, 1, false);
                (found, heir.sequence())
            },
            move || {
                let seen = receive_some(&reader, 3);
                (reader, seen)
            },
        );
        let ((), (found, total)) = (dead, total);
        record.add((found, seen));
        assert_eq!(receive_some(&reader, 4) + seen, total as usize);
    });
    outcomes.assert_are(
        (0..=2).flat_map(|found| (0..=found as usize + 1).map(move |seen| (found, seen))),
    );
}

/// One message by a publisher that leaves out what `flaw` says, beside a reader.
fn canary(flaw: Option<broken::Commit>) {
    explore(3, move |turn: Turn| {
        let (topic, reader) = topic();
        let lane = topic.lane(0);
        turn.race(
            move || broken::commit(&lane, 0, frame::PROLOGUE, 0, flaw),
            move || receive_some(&reader, 2),
        );
    });
}

#[test]
fn the_copy_without_a_flaw_passes() {
    canary(None);
}

#[test]
#[should_panic]
fn canary_the_next_header_is_not_zeroed() {
    canary(Some(broken::Commit::LeavesNextHeader));
}

#[test]
#[should_panic]
fn canary_the_next_header_is_zeroed_after_the_commit() {
    canary(Some(broken::Commit::ZeroesNextHeaderLate));
}

#[test]
#[should_panic]
fn canary_the_header_is_committed_relaxed() {
    canary(Some(broken::Commit::Relaxed));
}
