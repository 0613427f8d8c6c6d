//! The order of a log, which grows in pieces: has every record whose append returned exactly one sequence, dense and in
//! the order of its lane, whoever appends, helps or dies at the same time; is a record of the dead there once or never,
//! also if their successors die; does exactly one of two win the sequence that both want; and does a reader that begins
//! in the middle see every record from there on, whole, once, and without sleeping through one?
//!
//! A piece has two places here, so that almost everything crosses from one to the next. Outcomes: what the reader saw,
//! or which records of the dead are there.

#![cfg(windlass_loom)]

use loom::sync::atomic::fence;
use loom_tests::durable::{append, append_with, Append, Flaw, Follower, Log, Pen};
use loom_tests::{explore, explore_deaths, Outcomes, Size, Topic};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use windlass::ring::wake::Ring;
use windlass::step;

/// Two publishers append so many records each while a reader looks some times.
///
/// Outcomes: how many records of either the reader saw.
fn append_and_follow(
    (many, few): (u64, u64),
    looks: u64,
    append: Append,
) -> Outcomes<(usize, usize)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let log = Log::new(2);
        let publish = |lane: usize, count: u64| {
            let log = log.clone();
            move || {
                let mut pen = Pen::take(&log, lane, 1 + lane as u64, append);
                (0..count).map(|_| pen.publish(None).expect("any will do")).collect::<Vec<_>>()
            }
        };
        let mut reader = Follower::new(&log, 0);
        let (mut one, two, seen) = turn.race_three(publish(0, many), publish(1, few), move || {
            for _ in 0..looks {
                reader.take();
            }
            reader.places()
        });
        assert!(one.is_sorted() && two.is_sorted(), "{one:?} and {two:?}");
        one.extend(&two);
        one.sort_unstable();
        assert_eq!(one, (0..many + few).collect::<Vec<_>>());
        let all = log.all();
        assert_eq!(all.len() as u64, many + few);
        assert_eq!(seen, all[..seen.len()]);
        let of = |lane| seen.iter().filter(|place| place.lane == lane).count();
        record.add((of(0), of(1)));
    });
    outcomes
}

#[test]
fn two_publishers_have_one_dense_order_and_a_reader_sees_whole_records() {
    let outcomes = append_and_follow((1, 1), 2, append);
    outcomes.assert_are([(0, 0), (0, 1), (1, 0), (1, 1)]);
}

#[test]
fn a_piece_is_made_by_whoever_needs_it_first() {
    append_and_follow((2, 2), 0, append).assert_are([(0, 0)]);
}

#[test]
fn a_reader_follows_from_piece_to_piece() {
    append_and_follow((3, 0), 3, append).assert_are([(0, 0), (1, 0), (2, 0), (3, 0)]);
}

/// Two publishers want the same sequence, which is `taken` records ahead, and a third one takes any.
///
/// Outcomes: what the two, and the third, got.
fn contend(others: bool, append: Append) -> Outcomes<(Option<u64>, Option<u64>, Option<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let log = Log::new(3);
        let publish = |lane: usize, only: Option<u64>, wants: bool| {
            let log = log.clone();
            move || {
                let mut pen = Pen::take(&log, lane, 1 + lane as u64, append);
                let got = if wants { pen.publish(only) } else { None };
                (got, pen.number())
            }
        };
        let (one, two, three) = turn.race_three(
            publish(0, Some(0), true),
            publish(1, Some(0), true),
            publish(2, None, others),
        );
        let all = log.all();
        for (lane, (got, number)) in [one, two, three].into_iter().enumerate() {
            assert_eq!(number, u64::from(got.is_some()));
            // Who was refused goes on where it was.
            assert_eq!(log.end_of(lane), number);
            let there = all.iter().position(|place| place.lane == lane);
            assert_eq!(there.map(|at| at as u64), got);
            assert!(lane == 2 || got.is_none_or(|sequence| sequence == 0), "{lane} has {got:?}");
        }
        record.add((one.0, two.0, three.0));
    });
    outcomes
}

#[test]
fn one_of_two_who_want_a_sequence_has_it() {
    contend(false, append).assert_are([(Some(0), None, None), (None, Some(0), None)]);
}

#[test]
fn one_of_three_has_a_sequence_that_two_want() {
    contend(true, append).assert_are([
        (Some(0), None, Some(1)),
        (None, Some(0), Some(1)),
        (None, None, Some(0)),
    ]);
}

/// What a publisher leaves that dies with `count` records to publish.
fn publish_some(log: &Log, lane: usize, author: u64, count: u64, append: Append) {
    let mut pen = Pen::take(log, lane, author, append);
    for _ in 0..count {
        pen.publish(None).expect("any will do");
    }
}

/// How many records of `author` are there, and of a lane.
fn counts(log: &Log, lane: usize, author: u64) -> (usize, usize) {
    let of_lane: Vec<_> = log.all().into_iter().filter(|place| place.lane == lane).collect();
    let of_author = of_lane.iter().filter(|place| log.read(**place).1 == author).count();
    (of_author, of_lane.len())
}

/// A publisher dies with two records to publish, and its successor publishes one, beside a publisher of another lane.
///
/// Outcomes: how many records of the dead there are.
fn succeed(count: u64, append: Append) -> Outcomes<usize> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let log = Log::new(2);
        let (dying, living) = (log.clone(), log.clone());
        turn.succeed(
            move || {
                death.of(|| publish_some(&dying, 0, 1, count, append));
            },
            |()| publish_some(&log, 0, 2, 1, append),
            move || publish_some(&living, 1, 3, 1, append),
        );
        let (of_dead, of_lane) = counts(&log, 0, 1);
        assert_eq!(of_lane, of_dead + 1, "the successor has one record");
        assert_eq!(counts(&log, 1, 3), (1, 1));
        assert_eq!(log.end_of(0), of_lane as u64);
        record.add(of_dead);
    });
    outcomes
}

#[test]
fn a_record_of_the_dead_is_there_once_or_never() {
    succeed(2, append).assert_are([0, 1, 2]);
}

/// A publisher dies at a step of its second record, and its successor at any step of its first one; a third one comes.
///
/// Outcomes: how many records of the first two there are.
fn succeed_twice(append: Append) -> Outcomes<(usize, usize)> {
    let outcomes = Outcomes::new();
    for steps in 0..12 {
        let record = outcomes.clone();
        explore_deaths(1, move |turn, death| {
            let log = Log::new(2);
            let died = step::abandon_after(steps, || publish_some(&log, 0, 1, 2, append));
            assert_eq!(died.is_none(), steps < 10, "the steps of two records are others");
            let (dying, living) = (log.clone(), log.clone());
            turn.succeed(
                move || {
                    death.of(|| publish_some(&dying, 0, 2, 1, append));
                },
                |()| publish_some(&log, 0, 3, 1, append),
                move || publish_some(&living, 1, 4, 1, append),
            );
            let of = |author| counts(&log, 0, author).0;
            assert_eq!(of(3), 1);
            assert_eq!(counts(&log, 1, 4), (1, 1));
            record.add((of(1), of(2)));
        });
    }
    outcomes
}

#[test]
fn a_successor_that_dies_is_succeeded() {
    succeed_twice(append).assert_are([(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
}

#[test]
fn a_publisher_that_died_before_the_tail_is_helped_by_whoever_wants_the_next_sequence() {
    explore_deaths(1, |turn, death| {
        let log = Log::new(3);
        let died = death.of(|| publish_some(&log, 0, 1, 1, append)).is_none();
        let next = log.all().len() as u64;
        assert!(died || next == 1);
        let want = |lane: usize| {
            let log = log.clone();
            move || Pen::take(&log, lane, 1 + lane as u64, append).publish(Some(next))
        };
        let (one, two) = turn.race(want(1), want(2));
        assert!(one.is_some() != two.is_some(), "{one:?} and {two:?}");
        assert_eq!(log.all().len() as u64, next + 1);
    });
}

/// A log with two records in it, and a subscriber's slot and bell.
fn scene() -> (Log, Topic) {
    let (log, topic) = (Log::new(2), Topic::new(Size::of(2, 1)));
    topic.claim(0, 1);
    publish_some(&log, 0, 1, 2, append);
    (log, topic)
}

/// How a subscriber ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With everything.
    All,
    /// It slept, and was woken.
    Woken,
}

/// What is wrong with a sleeper.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleeper {
    Sound,
    NoBarrier,
    NoSecondLook,
}

/// A subscriber that begins at `from` replays what is there and runs into what two publishers append meanwhile, so many
/// records each.
///
/// Outcomes: whether it slept.
fn replay(from: u64, (many, few): (u64, u64), append: Append, sleeper: Sleeper) -> Outcomes<End> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    // With two publishers there are a million executions with two preemptions.
    explore(if few == 0 { 2 } else { 1 }, move |turn| {
        let (log, topic) = scene();
        let publish = |lane: usize, count: u64| {
            let (log, topic) = (log.clone(), topic.clone());
            move || {
                let mut pen = Pen::take(&log, lane, 1, append);
                for _ in 0..count {
                    pen.publish(None).expect("any will do");
                    let (bell, slots) = (&topic.bell, &topic.slots);
                    match if bell.is_wanted() { bell.ring(slots) } else { Ring::Nobody } {
                        Ring::Nobody => continue,
                        Ring::Wake => {}
                        // SLEEP: the barrier of a publisher that put the hint back.
                        Ring::BarrierThenWake => fence(SeqCst),
                    }
                    bell.wake();
                }
            }
        };
        let (log_too, topic_too) = (log.clone(), topic.clone());
        let follow = move || {
            let mut reader = Follower::new(&log_too, from);
            let (bell, slots) = (&topic_too.bell, &topic_too.slots);
            while reader.next < 2 + many + few {
                if reader.take() {
                    continue;
                }
                bell.announce(slots, 0);
                if sleeper != Sleeper::NoBarrier {
                    // SLEEP: the barrier of the sleeper.
                    fence(SeqCst);
                }
                let ticket = bell.ticket(slots, 0);
                let looks = sleeper != Sleeper::NoSecondLook;
                let ticket = ticket.filter(|_| !(looks && reader.is_ready()));
                if let Some(ticket) = ticket.filter(|it| bell.futex().load(Relaxed) == *it) {
                    return (reader, Some(ticket));
                }
                bell.rise(slots, 0);
            }
            (reader, None)
        };
        let (_, _, (mut reader, slept)) =
            turn.race_three(publish(0, many), publish(1, few), follow);
        if let Some(ticket) = slept {
            let woken = topic.bell.futex().load(Relaxed) != ticket;
            assert!(woken, "it sleeps on before sequence {}", reader.next);
        }
        while reader.take() {}
        assert_eq!(reader.places(), log.all()[from as usize..]);
        record.add(if slept.is_some() { End::Woken } else { End::All });
    });
    outcomes
}

#[test]
fn a_replay_runs_into_what_is_live() {
    replay(0, (1, 1), append, Sleeper::Sound).assert_are([End::All, End::Woken]);
    replay(1, (1, 0), append, Sleeper::Sound).assert_are([End::All, End::Woken]);
}

#[test]
fn a_replay_that_begins_at_the_end_waits_for_a_piece_that_is_not_made_yet() {
    replay(2, (1, 1), append, Sleeper::Sound).assert_are([End::All, End::Woken]);
    replay(2, (1, 0), append, Sleeper::Sound).assert_are([End::All, End::Woken]);
}

/// Retention deletes the first piece of three while a subscriber reads from the beginning, and a publisher appends.
///
/// Outcomes: how many it missed, and how many it saw.
fn retain(floor_first: bool) -> Outcomes<(u64, usize)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let log = Log::new(1);
        publish_some(&log, 0, 1, 3, append);
        let (retaining, publishing) = (log.clone(), log.clone());
        let mut reader = Follower::new(&log, 0);
        let (_, _, mut reader) = turn.race_three(
            move || {
                if floor_first {
                    retaining.head.raise_floor(2);
                }
                retaining.delete(0);
                if !floor_first {
                    retaining.head.raise_floor(2);
                }
            },
            move || publish_some(&publishing, 0, 1, 1, append),
            move || {
                for _ in 0..2 {
                    reader.take();
                }
                reader
            },
        );
        while reader.take() {}
        assert_eq!(reader.next, 4);
        record.add((reader.missed, reader.places().len()));
    });
    outcomes
}

#[test]
fn a_reader_that_finds_a_piece_gone_knows_that_it_is_below_the_floor() {
    retain(true).assert_are([(0, 4), (1, 3), (2, 2)]);
}

#[test]
fn the_append_without_a_flaw_passes() {
    let copy: Append =
        |log, piece, place, number, only| append_with(log, piece, place, number, only, None);
    append_and_follow((1, 1), 1, copy);
    contend(false, copy);
    succeed(1, copy).assert_are([0, 1]);
    replay(2, (1, 0), copy, Sleeper::Sound);
}

/// The copy of `append` with this flaw.
macro_rules! broken {
    ($flaw:ident) => {
        |log, piece, place, number, only| {
            append_with(log, piece, place, number, only, Some(Flaw::$flaw))
        }
    };
}

#[test]
#[should_panic]
fn canary_the_intent_is_noted_after_the_place() {
    succeed(1, broken!(IntentLate));
}

#[test]
#[should_panic]
fn canary_the_position_is_noted_after_the_sequence() {
    succeed(2, broken!(SequenceFirst));
}

#[test]
#[should_panic]
fn canary_the_position_is_noted_before_the_number() {
    succeed(2, broken!(PositionFirst));
}

#[test]
#[should_panic]
fn canary_the_tail_is_advanced_before_the_place_is_taken() {
    succeed(1, broken!(TailFirst));
}

#[test]
#[should_panic]
fn canary_a_place_is_not_a_release() {
    append_and_follow((1, 0), 1, broken!(RelaxedPlace));
}

#[test]
#[should_panic]
fn canary_a_place_is_taken_with_a_store() {
    append_and_follow((1, 1), 0, broken!(StoresPlace));
}

#[test]
#[should_panic]
fn canary_the_tail_is_left_to_others() {
    replay(2, (1, 0), broken!(NoFinish), Sleeper::Sound);
}

#[test]
#[should_panic]
fn canary_nobody_helps_the_dead() {
    succeed(1, broken!(NoHelp));
}

#[test]
#[should_panic]
fn canary_a_wanted_sequence_is_compared_with_a_tail_that_is_behind() {
    let copy: Append = broken!(OnlyBeforeLook);
    explore_deaths(1, move |_, death| {
        let log = Log::new(2);
        death.of(|| publish_some(&log, 0, 1, 1, copy));
        let next = log.all().len() as u64;
        assert_eq!(Pen::take(&log, 1, 2, copy).publish(Some(next)), Some(next));
    });
}

#[test]
#[should_panic]
fn canary_a_wanted_sequence_is_compared_once() {
    contend(false, broken!(OnlyOnce));
}

#[test]
#[should_panic]
fn canary_a_sleeper_passes_no_barrier() {
    replay(2, (1, 0), append, Sleeper::NoBarrier);
}

#[test]
#[should_panic]
fn canary_a_sleeper_does_not_look_again() {
    replay(2, (1, 0), append, Sleeper::NoSecondLook);
}

#[test]
#[should_panic]
fn canary_the_floor_is_raised_after_the_piece_is_gone() {
    retain(false);
}
