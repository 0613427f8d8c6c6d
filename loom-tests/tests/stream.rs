//! A ring of bytes with one writer and one reader: does the reader see a prefix of what was committed, whole and in
//! order, while every word of the ring is stale, around the end of the lap, with groups that appear at once; does the
//! writer never write what the reader has not given back; and does whoever takes either end over from somebody who died
//! at any step go on where that one was?
//!
//! Outcomes: how many messages the reader had seen when the writer was done, or what the dead left.

#![cfg(windlass_loom)]

use loom_tests::stream::{self, receive, send, settle_relaxed, stage, Channel, Flaw};
use loom_tests::{explore, explore_deaths, Outcomes};
use windlass::ring::stream::{Reader, Writer};

/// What comes in so many looks, given back one by one.
fn receive_some(reader: &mut Reader, looks: usize) -> Vec<u64> {
    (0..looks)
        .filter_map(|_| {
            let number = receive(reader);
            if number.is_some() {
                reader.settle();
            }
            number
        })
        .collect()
}

/// Everything that is left.
fn drain(reader: &mut Reader) -> Vec<u64> {
    std::iter::from_fn(|| receive_some(reader, 1).pop()).collect()
}

/// A message of one word, then a group of two; returns how many there were.
fn send_a_group(writer: &mut Writer, first: u64, words: usize) -> u64 {
    assert!(send(writer, first, 1));
    assert!(stage(writer, first + 1, words) && stage(writer, first + 2, 1));
    writer.commit();
    3
}

#[test]
fn the_reader_sees_a_prefix_and_groups_at_once() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        // The first message ends the lap.
        let channel = Channel::used(6);
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        let (_, (mut reader, seen)) = turn.race(
            move || send_a_group(&mut writer, 1, 1),
            move || {
                let mut seen = receive_some(&mut reader, 2);
                if seen.len() == 2 {
                    // The whole group is there.
                    seen.extend(receive_some(&mut reader, 1));
                    assert_eq!(seen.len(), 3);
                }
                (reader, seen)
            },
        );
        let all: Vec<u64> = seen.iter().copied().chain(drain(&mut reader)).collect();
        assert_eq!(all, [1, 2, 3]);
        record.add(seen.len());
    });
    outcomes.assert_are([0, 1, 3]);
}

#[test]
fn the_largest_message_goes_round_the_end_of_the_lap() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        // Three words are left of the lap, and the message takes four: all of the ring but one word.
        let channel = Channel::used(5);
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        let (sent, (mut reader, seen)) = turn.race(
            move || (1..=2).filter(|number| send(&mut writer, *number, 3)).count() as u64,
            move || {
                let seen = receive_some(&mut reader, 3);
                (reader, seen)
            },
        );
        let all: Vec<u64> = seen.iter().copied().chain(drain(&mut reader)).collect();
        assert_eq!(all, (1..=sent).collect::<Vec<_>>());
        record.add((sent, seen.len()));
    });
    // The second one has room once the first is given back.
    outcomes.assert_are([(1, 0), (1, 1), (2, 1), (2, 2)]);
}

#[test]
fn a_full_ring_takes_what_was_given_back_and_nothing_more() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let channel = Channel::used(4);
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        assert_eq!((1..=4).filter(|number| send(&mut writer, *number, 1)).count(), 3);
        let (sent, (mut reader, seen)) = turn.race(
            move || (4..=5).take_while(|number| send(&mut writer, *number, 1)).count() as u64,
            move || {
                let seen = receive_some(&mut reader, 2);
                (reader, seen)
            },
        );
        let all: Vec<u64> = seen.iter().copied().chain(drain(&mut reader)).collect();
        assert_eq!(all, (1..=3 + sent).collect::<Vec<_>>());
        record.add(sent);
    });
    outcomes.assert_are([0, 1, 2]);
}

#[test]
fn whoever_succeeds_a_writer_goes_on_behind_the_last_committed_message() {
    for (words, begin) in [(1, 6), (3, 5), (3, 1)] {
        let outcomes = Outcomes::new();
        let record = outcomes.clone();
        explore_deaths(2, move |turn, death| {
            let channel = Channel::used(begin);
            let (mut writer, mut reader) = (channel.writer(), channel.reader());
            let heir = channel.clone();
            let (_, sent, (mut reader, seen)) = turn.succeed(
                move || {
                    death.of(|| {
                        send(&mut writer, 1, 1);
                        // They appear at once.
                        if stage(&mut writer, 2, words) {
                            stage(&mut writer, 3, 0);
                        }
                        writer.commit();
                    });
                },
                |()| {
                    let mut heir = heir.writer();
                    u64::from(send(&mut heir, 4, 1))
                },
                move || {
                    let seen = receive_some(&mut reader, 3);
                    (reader, seen)
                },
            );
            let all: Vec<u64> = seen.iter().copied().chain(drain(&mut reader)).collect();
            let (heirloom, left) = all.split_at(all.len() - sent as usize);
            assert!(left.iter().all(|number| *number == 4));
            record.add(heirloom.to_vec());
        });
        // A message without words is number 0. Where the second one goes round the end of the lap, the third one has
        // room only if the reader was fast.
        let round = (begin == 5).then(|| vec![1, 2]);
        outcomes.assert_are([vec![], vec![1], vec![1, 2, 0]].into_iter().chain(round));
    }
}

#[test]
fn whoever_succeeds_a_reader_reads_again_what_was_not_given_back() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let channel = Channel::used(2);
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        assert_eq!((1..=3).filter(|number| send(&mut writer, *number, 1)).count(), 3);
        let heir = channel.clone();
        let (taken, again, sent) = turn.succeed(
            move || {
                let taken = std::rc::Rc::new(std::cell::Cell::new(0));
                let count = taken.clone();
                death.of(move || {
                    for _ in 0..2 {
                        count.set(receive(&reader).expect("three were sent"));
                        reader.settle();
                    }
                });
                taken.get()
            },
            |_| {
                let mut heir = heir.reader();
                drain(&mut heir)
            },
            // The writer takes whatever room there is, and writes over it.
            move || (4..=5).take_while(|number| send(&mut writer, *number, 1)).count() as u64,
        );
        let first = again.first().copied().unwrap_or(4);
        // The one that was being read, or the one behind it.
        assert!(first == taken || first == taken + 1, "{first} after {taken}");
        assert_eq!(again, (first..first + again.len() as u64).collect::<Vec<_>>());
        let mut rest = channel.reader();
        let rest = drain(&mut rest);
        assert_eq!(again.len() as u64 + rest.len() as u64 + first - 1, 3 + sent);
        record.add(first);
    });
    outcomes.assert_are([1, 2, 3]);
}

/// One message by a writer that leaves out what `flaw` says, beside a reader.
fn canary(flaw: Option<Flaw>) {
    explore(3, move |turn| {
        let channel = Channel::used(2);
        let (begin, mut reader) = (channel.writer().tail(), channel.reader());
        turn.race(
            move || stream::commit(&channel, begin, 1, flaw),
            move || receive_some(&mut reader, 2),
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
    canary(Some(Flaw::LeavesNextHeader));
}

#[test]
#[should_panic]
fn canary_the_next_header_is_zeroed_after_the_commit() {
    canary(Some(Flaw::ZeroesNextHeaderLate));
}

#[test]
#[should_panic]
fn canary_the_header_is_committed_relaxed() {
    canary(Some(Flaw::Relaxed));
}

/// A full ring, a writer that writes over its first message, and a reader that gives messages back before it has read
/// them, or not as a release.
fn give_back(early: bool, relaxed: bool) {
    explore(3, move |turn| {
        let channel = Channel::used(2);
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        (1..=3).for_each(|number| assert!(send(&mut writer, number, 1)));
        turn.race(
            move || (4..=5).take_while(|number| send(&mut writer, *number, 1)).count(),
            move || {
                let end = reader.position() + 32;
                if early {
                    settle_relaxed(&channel, end);
                }
                assert_eq!((receive(&reader), receive(&reader)), (Some(1), Some(2)));
                match (early, relaxed) {
                    (true, _) => {}
                    (false, true) => settle_relaxed(&channel, end),
                    (false, false) => reader.settle(),
                }
            },
        );
    });
}

#[test]
fn the_reader_without_a_flaw_passes() {
    give_back(false, false);
}

#[test]
#[should_panic]
fn canary_messages_are_given_back_before_they_were_read() {
    give_back(true, false);
}

#[test]
#[should_panic]
fn canary_messages_are_given_back_relaxed() {
    give_back(false, true);
}

#[test]
#[should_panic(expected = "lost")]
fn canary_a_writer_fills_the_word_behind_the_last_message() {
    explore(3, move |turn| {
        let channel = Channel::used(2);
        let (begin, mut reader) = (channel.writer().tail(), channel.reader());
        let (_, (mut reader, seen)) = turn.race(
            // The fourth one ends where the first one begins, and its zero word lies on that one's header.
            move || (0..4).for_each(|n| stream::commit(&channel, begin + n * 16, n + 1, None)),
            move || {
                let seen = receive_some(&mut reader, 1);
                (reader, seen)
            },
        );
        let count = seen.len() + drain(&mut reader).len();
        assert_eq!(count, 4, "messages are lost");
    });
}
