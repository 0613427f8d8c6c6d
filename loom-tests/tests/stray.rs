//! Messages whose entry is gone: does an idle consumer ever take a message for one that is none, and so out of turn,
//! while a producer enters and another consumer takes and acknowledges?
//!
//! Outcomes: which messages were sent, and which the other consumer took.

#![cfg(windlass_loom)]

use loom_tests::pool::{consume, settle, Queue, REAL};
use loom_tests::{explore, Outcomes, Turn};
use windlass::layout::chunk::{Chunk, State};

/// What a consumer does that looks for messages without an entry; whether it found one.
type Look = fn(&Queue) -> bool;

fn beside_a_sound_ring(look: Look) -> Outcomes<(Vec<u64>, Option<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        let [a, b, c] = [0; 3].map(|_| queue.clone());
        let (sent, stray, taken) = turn.race_three(
            move || (1..3).filter(|message| (REAL.send)(&a, 1, *message)).collect::<Vec<_>>(),
            move || look(&b),
            move || consume(&c, 4, REAL),
        );
        assert!(!stray, "its entry is in the ring");
        settle(&queue, &[], &sent, &[]);
        record.add((sent, taken));
    });
    outcomes
}

#[test]
fn no_message_of_a_sound_ring_is_taken_out_of_turn() {
    let outcomes = beside_a_sound_ring(|queue| queue.pool.take_stray(3).is_some());
    outcomes.assert_are([(vec![1], None), (vec![1], Some(1)), (vec![1, 2], Some(1))]);
}

#[test]
#[should_panic(expected = "its entry is in the ring")]
fn canary_the_ring_is_looked_at_before_the_chunk() {
    beside_a_sound_ring(|queue| {
        let is_empty = matches!(queue.pool.tokens().first(), Ok(None));
        let seen = queue.pool.look(0);
        let placed = seen.is(State::Ready) && queue.pool.is_placed(0, seen);
        let word = seen.with(State::Taken, 3);
        placed && is_empty && queue.swap(0, seen, word)
    });
}

#[test]
fn a_message_without_its_entry_is_taken_once() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        assert!((REAL.send)(&queue, 1, 1));
        assert_eq!(queue.entries().len(), 1, "this is the damage");
        let [a, b] = [0; 2].map(|_| queue.clone());
        let take = |queue: Queue, node| move || queue.pool.take_stray(node).map(|held| held.word);
        let (one, two) = turn.race(take(a, 3), take(b, 4));
        let taken = [one, two].into_iter().flatten().collect::<Vec<Chunk>>();
        assert!(taken.len() == 1 && taken[0].is(State::Taken), "{taken:?}");
        record.add(one.is_some());
    });
    outcomes.assert_are([true, false]);
}
