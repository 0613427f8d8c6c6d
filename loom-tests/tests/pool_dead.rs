//! The dead letters of a work queue: is a message that was revived delivered, whoever dies on the way?
//!
//! Outcomes: what became of the message, and who took it.

#![cfg(windlass_loom)]

use loom_tests::pool::{self, consume, repair, settle, Queue, REAL};
use loom_tests::{explore, explore_deaths, Outcomes, Turn};
use windlass::layout::chunk::{Chunk, Entry, State};
use windlass::ring::pool::{Held, Returned};
use windlass::step;

#[test]
fn after_its_last_delivery_a_message_is_dead_until_it_is_revived() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let queue = Queue::new(1, 2);
        assert!((REAL.send)(&queue, 1, 1));
        let nack = |queue: Queue, node| {
            move || (REAL.take)(&queue, node).map(|held| queue.pool.nack(held))
        };
        let (one, two) = turn.race(nack(queue.clone(), 3), nack(queue.clone(), 4));
        record.add((one, two));
        for _ in 0..2 {
            if let Some(held) = (REAL.take)(&queue, 5) {
                assert!(matches!(queue.pool.nack(held), Returned::Again | Returned::Dead));
            }
        }
        assert_eq!((REAL.take)(&queue, 5), None, "it was delivered often enough");
        assert!(queue.pool.look(0).is(State::Dead));
        let held = queue.pool.take_dead(0, 5).expect("it is dead");
        assert_eq!(held.word.deliveries(), pool::DELIVERIES_MAX);
        assert!(queue.pool.revive(held));
        assert_eq!(settle(&queue, &[], &[1], &[]), [(1, 0)]);
    });
    let again = Some(Returned::Again);
    outcomes.assert_are([
        (again, Some(Returned::Dead)),
        (Some(Returned::Dead), again),
        (again, None),
        (None, again),
    ]);
}

/// A producer revives its message, which is a dead letter after one delivery, and dies at each step of that.
fn dying_reviver(revive: fn(&Queue, Held) -> bool) -> Outcomes<bool> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let queue = Queue::delivering(1, 1, 2);
        assert!((REAL.send)(&queue, 66, 1));
        let held = (REAL.take)(&queue, 3).expect("it was sent");
        assert_eq!(queue.pool.nack(held), Returned::Dead);
        let held = queue.pool.take_dead(0, 66).expect("it is dead");
        let [a, b] = [0; 2].map(|_| queue.clone());
        let (_, taken) = turn.race(
            move || {
                death.of(|| revive(&a, held));
            },
            move || consume(&b, 3, REAL),
        );
        record.add(taken.is_some());
        repair(&queue, 66, 77, None);
        if let Some(held) = queue.pool.take_dead(0, 78) {
            assert_eq!(held.word.deliveries(), 1, "a look at a dead letter is no delivery");
            assert!(queue.pool.revive(held));
        }
        assert_eq!(settle(&queue, &[], &[1], &[]), [(1, 0)]);
    });
    outcomes
}

#[test]
fn a_dead_letter_is_delivered_though_whoever_revived_it_died() {
    dying_reviver(|queue, held| queue.pool.revive(held)).assert_are([false, true]);
}

#[test]
#[should_panic(expected = "are not in")]
fn canary_a_revived_message_has_the_word_that_it_had() {
    dying_reviver(|queue, held| {
        let ready = Chunk::new(held.word.node(), 0, held.word.turn(), State::Ready);
        assert!(queue.swap(held.chunk, held.word, ready));
        step::reached("pool.enter");
        let entry = Entry::of(held.chunk, ready).token();
        queue.pool.tokens().enter(entry).expect("there is room");
        queue.set_placed(held.chunk, ready);
        true
    });
}
