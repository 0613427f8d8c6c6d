//! The chunks of a work queue: is every committed message acknowledged exactly once, and is every chunk free again,
//! whoever sends, takes, dies or repairs at the same time?
//!
//! Outcomes: which messages were acknowledged by whom, and after how many deliveries in vain.

#![cfg(windlass_loom)]

use loom_tests::pool::{self, consume, finish_one, settle, Calls, Commit, Queue, Repair, Take};
use loom_tests::pool::{COPY, REAL};
use loom_tests::{explore, explore_deaths, Outcomes, Turn};
use windlass::layout::chunk::{Chunk, State};
use windlass::ring::pool::{Held, Returned};

fn two_and_two(calls: Calls) -> Outcomes<(Option<u64>, Option<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(1, move |turn: Turn| {
        let queue = Queue::new(2, 4);
        let [a, b, c, d] = [0; 4].map(|_| queue.clone());
        let (_, _, one, two) = turn.race_four(
            move || assert!((calls.send)(&a, 1, 10)),
            move || assert!((calls.send)(&b, 2, 20)),
            move || consume(&c, 3, calls),
            move || consume(&d, 4, calls),
        );
        settle(&queue, &[], &[10, 20], &[]);
        record.add((one, two));
    });
    outcomes
}

#[test]
fn two_producers_and_two_consumers() {
    let each = [None, Some(10), Some(20)];
    let pairs = each.into_iter().flat_map(|one| each.map(|two| (one, two)));
    two_and_two(REAL).assert_are(pairs.filter(|(one, two)| one.is_none() || one != two));
}

/// A chunk is used again and again, while two consumers look at it.
fn reuse(calls: Calls) -> Outcomes<Vec<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        assert!((calls.send)(&queue, 1, 1));
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        let (sent, _, _) = turn.race_three(
            move || (2..4).filter(|message| (calls.send)(&a, 1, *message)).collect::<Vec<_>>(),
            move || (consume(&b, 3, calls), consume(&b, 3, calls)),
            move || consume(&c, 4, calls),
        );
        let all: Vec<u64> = std::iter::once(1).chain(sent.iter().copied()).collect();
        settle(&queue, &[], &all, &[]);
        record.add(sent);
    });
    outcomes
}

#[test]
fn a_chunk_that_is_used_again_carries_each_message_once() {
    reuse(REAL).assert_are([vec![], vec![2], vec![3], vec![2, 3]]);
}

/// A consumer dies at each of its steps; somebody repairs, while another one consumes and a producer goes on.
fn dying_consumer(calls: Calls) -> Outcomes<Vec<(u64, u32)>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let queue = Queue::new(2, 4);
        assert!((calls.send)(&queue, 1, 1));
        let [a, b] = [0; 2].map(|_| queue.clone());
        turn.succeed(
            move || {
                death.of(|| consume(&a, 66, calls));
            },
            |()| (calls.repair)(&queue, 66, 77),
            move || {
                assert!((calls.send)(&b, 2, 2));
                consume(&b, 3, calls)
            },
        );
        record.add(settle(&queue, &[66], &[1, 2], &[]));
    });
    outcomes
}

#[test]
fn what_a_dead_consumer_had_is_delivered_again_and_says_so() {
    dying_consumer(REAL).assert_are([
        vec![(1, 0), (2, 0)],
        vec![(1, 1), (2, 0)],
        vec![(1, 0), (2, 1)],
    ]);
}

/// A producer dies at each of its steps; somebody repairs, while a consumer and another producer go on.
fn dying_producer(calls: Calls, before: bool) -> Outcomes<Vec<(u64, u32)>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let queue = Queue::new(2, 4);
        if before {
            // An earlier message of the same producer in the same chunk.
            assert!((calls.send)(&queue, 66, 9));
            assert_eq!(consume(&queue, 3, calls), Some(9));
        }
        let [a, b] = [0; 2].map(|_| queue.clone());
        turn.succeed(
            move || {
                death.of(|| (calls.send)(&a, 66, 1));
            },
            |()| {
                (calls.repair)(&queue, 66, 77);
                // Whoever died after the commit has sent.
                queue.pool.look(0).is(State::Ready)
            },
            move || {
                assert!((calls.send)(&b, 2, 2));
                consume(&b, 3, calls)
            },
        );
        let is_ready = |chunk| queue.pool.look(chunk).is(State::Ready);
        let left = (0..2).filter(|chunk| is_ready(*chunk)).count() + queue.done().len();
        let done = settle(&queue, &[66], &[2], &[1, 9]);
        assert_eq!(done.len(), left, "a message that was ready is gone");
        record.add(done);
    });
    outcomes
}

#[test]
fn a_message_of_a_dead_producer_is_delivered_if_it_was_committed() {
    dying_producer(REAL, false).assert_are([vec![(2, 0)], vec![(1, 0), (2, 0)]]);
}

#[test]
fn what_a_chunk_carried_before_does_not_hide_a_message_of_a_dead_producer() {
    let with = [vec![(2, 0), (9, 0)], vec![(1, 0), (2, 0), (9, 0)]];
    dying_producer(REAL, true).assert_are(with);
}

/// Somebody who repairs after a consumer dies as well, at each step, beside a consumer and somebody else who repairs.
fn dying_repairer(calls: Calls) -> Outcomes<Vec<(u64, u32)>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let queue = Queue::new(2, 4);
        assert!((calls.send)(&queue, 1, 1));
        // It died with its entry still in the ring.
        let seen = queue.pool.look(0);
        assert!(queue.swap(0, seen, seen.with(State::Taken, 66)));
        let [a, b] = [0; 2].map(|_| queue.clone());
        turn.succeed(
            move || {
                death.of(|| (calls.repair)(&a, 66, 77));
            },
            |()| {
                (calls.repair)(&queue, 66, 78);
                (calls.repair)(&queue, 77, 78);
            },
            move || consume(&b, 3, calls),
        );
        record.add(settle(&queue, &[66, 77], &[1], &[]));
    });
    outcomes
}

#[test]
fn whoever_repairs_may_die_as_well() {
    dying_repairer(REAL).assert_are([vec![(1, 1)]]);
}

/// Two repair after the same death, beside a consumer.
fn two_repairers(calls: Calls) -> Outcomes<Option<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        assert!((calls.send)(&queue, 1, 1));
        (calls.take)(&queue, 66).expect("it was sent");
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        let (_, _, taken) = turn.race_three(
            move || (calls.repair)(&a, 66, 77),
            move || (calls.repair)(&b, 66, 78),
            move || consume(&c, 3, calls),
        );
        assert_eq!(settle(&queue, &[66], &[1], &[]), [(1, 1)]);
        record.add(taken);
    });
    outcomes
}

#[test]
fn two_who_repair_deliver_once_more() {
    two_repairers(REAL).assert_are([None, Some(1)]);
}

/// Somebody is taken for dead and acknowledges late.
fn late_ack(calls: Calls) -> Outcomes<Vec<(u64, u32)>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        assert!((calls.send)(&queue, 1, 1));
        let held = (calls.take)(&queue, 66).expect("it was sent");
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        turn.race_three(
            move || {
                if (calls.ack)(&a, held) {
                    a.note(1, held.word.deliveries());
                }
            },
            move || (calls.repair)(&b, 66, 77),
            move || consume(&c, 3, calls),
        );
        record.add(settle(&queue, &[], &[1], &[]));
    });
    outcomes
}

#[test]
fn a_late_ack_and_a_redelivery_exclude_each_other() {
    late_ack(REAL).assert_are([vec![(1, 0)], vec![(1, 1)]]);
}

#[test]
fn what_was_placed_is_not_entered_again_when_its_producer_has_left() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        assert!((REAL.send)(&queue, 66, 1));
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        let (_, _, taken) = turn.race_three(
            move || (REAL.repair)(&a, 66, 77),
            move || (REAL.repair)(&b, 66, 78),
            move || consume(&c, 3, REAL),
        );
        let entries = queue.pool.tokens().depth();
        record.add((taken, entries));
        if taken.is_none() {
            settle(&queue, &[], &[1], &[]);
        }
    });
    outcomes.assert_are([(Some(1), 0)]);
}

#[test]
fn a_message_that_its_producer_has_not_entered_yet_can_be_taken() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        let (sent, found, _) = turn.race_three(
            move || (1..3).filter(|message| (REAL.send)(&a, 1, *message)).collect::<Vec<_>>(),
            move || b.pool.take_unplaced(3).map(|held| finish_one(&b, held, REAL)),
            move || consume(&c, 4, REAL),
        );
        settle(&queue, &[1], &sent, &[]);
        record.add((sent, found));
    });
    outcomes.assert_are([
        (vec![1], None),
        (vec![1], Some(1)),
        (vec![1, 2], None),
        (vec![1, 2], Some(1)),
        (vec![1, 2], Some(2)),
    ]);
}

#[test]
fn a_message_that_is_due_is_made_ready_once() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let queue = Queue::new(1, 2);
        assert!((REAL.send)(&queue, 1, 1));
        let held = (REAL.take)(&queue, 3).expect("it was sent");
        assert_eq!(queue.pool.postpone(held, 100), Returned::Again);
        let later = queue.pool.look(0);
        assert!(!queue.pool.resume(0, later, 99, 5), "it is not due");
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        let (_, other, taken) = turn.race_three(
            move || {
                death.of(|| a.pool.resume(0, later, 100, 66));
            },
            move || b.pool.resume(0, later, 100, 78),
            move || consume(&c, 4, REAL),
        );
        record.add((other, taken));
        let resumed = queue.pool.look(0);
        if resumed.is(State::Later) {
            assert!(queue.pool.resume(0, resumed, 100, 79));
        }
        assert_eq!(settle(&queue, &[66], &[1], &[]), [(1, 1)]);
    });
    outcomes.assert_are([(true, None), (true, Some(1)), (false, None), (false, Some(1))]);
}

#[test]
fn a_message_for_which_there_is_no_room_in_the_ring_is_found() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(2, 2);
        assert!((REAL.send)(&queue, 1, 1));
        // As if somebody had died after a second entry of the same chunk.
        queue.pool.tokens().enter(0).expect("there is room");
        let [a, b] = [0; 2].map(|_| queue.clone());
        let (_, taken) = turn.race(
            move || assert!((REAL.send)(&a, 1, 2)),
            move || (consume(&b, 3, REAL), consume(&b, 3, REAL)),
        );
        settle(&queue, &[], &[1, 2], &[]);
        record.add(taken);
    });
    outcomes.assert_are([(Some(1), None), (Some(1), Some(2))]);
}

#[test]
fn the_copies_without_a_flaw_pass() {
    reuse(COPY);
    dying_consumer(COPY);
    dying_producer(COPY, true);
    search(COPY);
}

#[test]
#[should_panic]
fn canary_a_consumer_removes_the_entry_before_it_takes_the_chunk() {
    dying_consumer(Calls {
        take: |queue, node| pool::take(queue, node, Some(Take::RemovesFirst)),
        ..COPY
    });
}

#[test]
#[should_panic]
fn canary_a_consumer_takes_a_chunk_whatever_it_says() {
    reuse(Calls { take: |queue, node| pool::take(queue, node, Some(Take::Stores)), ..COPY });
}

#[test]
#[should_panic]
fn canary_a_message_is_entered_before_it_is_ready() {
    let send: fn(&Queue, u32, u64) -> bool =
        |queue, node, message| pool::send(queue, node, message, Some(Commit::EntersFirst));
    two_and_two(Calls { send, ..COPY });
}

#[test]
#[should_panic]
fn canary_a_message_counts_as_placed_before_it_is_entered() {
    let send: fn(&Queue, u32, u64) -> bool =
        |queue, node, message| pool::send(queue, node, message, Some(Commit::PlacedFirst));
    dying_producer(Calls { send, ..COPY }, false);
}

#[test]
#[should_panic]
fn canary_a_word_does_not_tell_the_messages_of_a_producer_apart() {
    let send: fn(&Queue, u32, u64) -> bool =
        |queue, node, message| pool::send(queue, node, message, Some(Commit::NoTurn));
    dying_producer(Calls { send, ..COPY }, true);
}

#[test]
#[should_panic]
fn canary_an_ack_does_not_look_whose_the_chunk_is() {
    late_ack(Calls { ack: pool::ack_by_store, ..REAL });
}

#[test]
#[should_panic]
fn canary_what_a_dead_repairer_made_ready_is_freed() {
    dying_repairer(Calls {
        repair: |queue, dead, node| pool::repair(queue, dead, node, Some(Repair::FreesReady)),
        ..REAL
    });
}

#[test]
#[should_panic]
fn canary_a_repair_takes_a_chunk_from_the_living() {
    two_repairers(Calls {
        repair: |queue, dead, node| pool::repair(queue, dead, node, Some(Repair::Stores)),
        ..REAL
    });
}

/// A chunk with a stale entry is used by a producer that dies before it enters its message.
fn search(calls: Calls) {
    explore(1, move |turn: Turn| {
        let queue = Queue::new(1, 4);
        assert!((REAL.send)(&queue, 1, 1));
        // Taken, and not yet removed from the ring, by somebody who acknowledges nevertheless.
        let seen = queue.pool.look(0);
        let taken = seen.with(State::Taken, 5);
        assert!(queue.swap(0, seen, taken));
        queue.note(1, 0);
        let [a, b] = [0; 2].map(|_| queue.clone());
        turn.race(
            move || {
                assert!(a.pool.ack(Held { chunk: 0, word: taken }));
                let held = a.pool.loan(0..1, 0, 66).expect("it is free");
                a.write(0, 2);
                let ready: Chunk = held.word.with(State::Ready, 66);
                assert!(a.swap(0, held.word, ready));
                (calls.repair)(&a, 66, 77);
            },
            move || consume(&b, 3, calls),
        );
        settle(&queue, &[66], &[1, 2], &[]);
    });
}

#[test]
fn a_stale_entry_does_not_pass_for_that_of_a_message_of_the_dead() {
    search(REAL);
}

#[test]
#[should_panic]
fn canary_a_repair_looks_in_the_ring_for_an_entry() {
    search(Calls {
        repair: |queue, dead, node| pool::repair(queue, dead, node, Some(Repair::SearchesRing)),
        ..REAL
    });
}
