//! The order of a work queue: does a consumer that was stopped at an old entry, or that takes a message without one,
//! take it before its turn?
//!
//! Outcomes: what each of two consumers took; what one took that is idle.

#![cfg(windlass_loom)]

use loom_tests::pool::{consume, finish_one, take, take_unplaced_blindly};
use loom_tests::pool::{Calls, Queue, Take, COPY, REAL};
use loom_tests::{explore, Outcomes, Turn};
use windlass::ring::pool::Held;

/// Two messages are there. Each consumer takes one, and the chunk of one of them is used for a third message.
fn third(calls: Calls) -> Outcomes<(Option<u64>, Option<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(2, 4);
        assert!((calls.send)(&queue, 1, 1) && (calls.send)(&queue, 1, 2));
        let [a, b] = [0; 2].map(|_| queue.clone());
        let took = turn.race(
            move || consume(&a, 3, calls),
            move || {
                let took = consume(&b, 4, calls);
                assert!((calls.send)(&b, 4, 3));
                took
            },
        );
        record.add(took);
    });
    outcomes
}

const IN_TURN: [(Option<u64>, Option<u64>); 2] = [(Some(1), Some(2)), (Some(2), Some(1))];

#[test]
fn no_message_is_taken_before_its_turn() {
    third(REAL).assert_are(IN_TURN);
    third(COPY).assert_are(IN_TURN);
}

#[test]
#[should_panic]
fn canary_an_entry_is_not_looked_at_again() {
    let overtakes = |queue: &Queue, node| take(queue, node, Some(Take::Overtakes));
    third(Calls { take: overtakes, ..COPY }).assert_are(IN_TURN);
}

/// An idle consumer, which takes what may have no entry as well, while a producer enters two messages.
fn idle(take_unplaced: fn(&Queue, u32) -> Option<Held>) -> Outcomes<Vec<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(2, 4);
        let [a, b] = [0; 2].map(|_| queue.clone());
        let ((), took) = turn.race(
            move || (1..=2).for_each(|message| assert!((REAL.send)(&a, 1, message))),
            move || {
                let take = |_| {
                    let held = (REAL.take)(&b, 3).or_else(|| take_unplaced(&b, 3))?;
                    Some(finish_one(&b, held, REAL))
                };
                (0..2).filter_map(take).collect::<Vec<_>>()
            },
        );
        record.add(took);
    });
    outcomes
}

const PREFIXES: [&[u64]; 3] = [&[], &[1], &[1, 2]];

#[test]
fn an_idle_consumer_takes_nothing_before_its_turn() {
    idle(|queue, node| queue.pool.take_unplaced(node)).assert_are(PREFIXES.map(<[u64]>::to_vec));
}

#[test]
#[should_panic]
fn canary_a_message_without_an_entry_is_taken_whatever_is_in_the_ring() {
    idle(take_unplaced_blindly).assert_are(PREFIXES.map(<[u64]>::to_vec));
}

/// A message is taken before its producer has entered it, and its chunk is used again: the entry is then one of an
/// earlier message, and stands before those of later ones. What is taken after all that.
fn behind_a_stale_entry(calls: Calls) -> Outcomes<Vec<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(2, 4);
        let [a, b] = [0; 2].map(|_| queue.clone());
        turn.race(
            move || assert!((REAL.send)(&a, 1, 1)),
            move || {
                let Some(held) = b.pool.take_unplaced(3) else { return };
                // In the other chunk, and in the same one.
                assert!((REAL.send)(&b, 2, 2));
                finish_one(&b, held, REAL);
                assert!((REAL.send)(&b, 2, 3));
            },
        );
        let rest = || consume(&queue, 4, calls);
        record.add(std::iter::from_fn(rest).collect());
    });
    outcomes
}

#[test]
fn an_entry_of_an_earlier_message_brings_no_later_one_before_its_turn() {
    behind_a_stale_entry(REAL).assert_are([vec![1], vec![2, 3]]);
    behind_a_stale_entry(COPY).assert_are([vec![1], vec![2, 3]]);
}

#[test]
#[should_panic]
fn canary_an_entry_does_not_say_the_turn() {
    let take = |queue: &Queue, node| take(queue, node, Some(Take::IgnoresTurn));
    behind_a_stale_entry(Calls { take, ..COPY }).assert_are([vec![1], vec![2, 3]]);
}
