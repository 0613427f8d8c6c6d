//! The order of a work queue: does a consumer that was stopped at an old entry take a message before its turn?
//!
//! Outcomes: what each of two consumers took.

#![cfg(windlass_loom)]

use loom_tests::pool::{consume, take, Calls, Queue, Take, COPY, REAL};
use loom_tests::{explore, Outcomes, Turn};

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
