//! A ring of two blocks, at the end of the first one: does everybody find the true ends, whoever dies between a slot
//! and the hint?
//!
//! Outcomes: whether the token of the dead is in, or out, and what the others took.

#![cfg(windlass_loom)]

use loom_tests::tokens::{self, Enter, Ring, FEW_LAPS};
use loom_tests::{explore_deaths, Outcomes, Turn};

/// Slots: two blocks.
const CAPACITY: u64 = 16;

/// An empty ring in the last lap before two bits start over; its next place is the last one of a block.
fn ring() -> Ring {
    let ring = Ring::new(CAPACITY, FEW_LAPS, 3 * CAPACITY);
    for token in 0..7 {
        ring.enter(token).expect("there is room");
        assert_eq!(ring.take(), Some(token));
    }
    ring
}

/// It is sound, has all its slots, and hands over in order.
fn assert_all_usable(ring: &Ring) {
    assert_eq!(ring.drain(), []);
    assert!((0..CAPACITY).all(|token| ring.enter(token).is_ok()), "slots are lost");
    assert!(ring.enter(0).is_err(), "there are more slots than before");
    assert_eq!(ring.drain(), (0..CAPACITY).collect::<Vec<_>>());
    assert!(ring.tokens.check_wait().is_ok());
}

/// A producer dies at each of its steps; another one enters two tokens, and a consumer looks twice.
fn dying_producer(enter: fn(&Ring, u64)) -> Outcomes<(bool, Vec<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn: Turn, death| {
        let ring = ring();
        let [a, b, c] = [0; 3].map(|_| ring.clone());
        let (_, _, taken) = turn.race_three(
            move || {
                death.of(|| enter(&a, 1));
            },
            move || (2..4).for_each(|token| b.enter(token).expect("there is room")),
            move || (0..2).filter_map(|_| c.take()).collect::<Vec<_>>(),
        );
        let mut all = taken.clone();
        all.extend(ring.drain());
        let others: Vec<u64> = all.iter().copied().filter(|token| *token != 1).collect();
        assert_eq!(others, [2, 3], "{all:?}");
        assert!(all.len() <= 3, "{all:?}");
        assert_all_usable(&ring);
        record.add((all.len() == 3, taken));
    });
    outcomes
}

#[test]
fn a_producer_that_dies_at_the_end_of_a_block_is_in_nobodys_way() {
    let takes: [&[u64]; 3] = [&[], &[2], &[2, 3]];
    let without = takes.map(|took| (false, took.to_vec()));
    let more: [&[u64]; 6] = [&[], &[1], &[2], &[1, 2], &[2, 1], &[2, 3]];
    let with = more.map(|took| (true, took.to_vec()));
    let outcomes = dying_producer(|ring, token| ring.enter(token).expect("there is room"));
    outcomes.assert_are(without.into_iter().chain(with));
}

#[test]
#[should_panic]
fn canary_a_producer_raises_the_tail_before_it_fills_the_last_slot_of_a_block() {
    dying_producer(|ring, token| {
        tokens::enter(ring, token, Some(Enter::PassesBlindly)).expect("there is room");
    });
}

/// A consumer dies at each of its steps, at the last token of a block; another one and a producer are beside it.
fn dying_consumer() -> Outcomes<(Option<u64>, Vec<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn: Turn, death| {
        let ring = ring();
        (1..3).for_each(|token| ring.enter(token).expect("there is room"));
        let [a, b, c] = [0; 3].map(|_| ring.clone());
        let (_, taken, _) = turn.race_three(
            move || {
                death.of(|| a.take());
            },
            move || (0..2).filter_map(|_| b.take()).collect::<Vec<_>>(),
            move || c.enter(3).expect("there is room"),
        );
        let mut all = taken.clone();
        all.extend(ring.drain());
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?} is out of order");
        let mut gone = (1..4).filter(|token| !all.contains(token));
        let first = gone.next();
        assert_eq!(gone.next(), None, "of {all:?}");
        assert_all_usable(&ring);
        record.add((first, taken));
    });
    outcomes
}

#[test]
fn a_consumer_that_dies_at_the_end_of_a_block_is_in_nobodys_way() {
    dying_consumer().assert_are([
        (None, vec![1, 2]),
        (Some(1), vec![2]),
        (Some(1), vec![2, 3]),
        (Some(2), vec![1]),
        (Some(2), vec![1, 3]),
        (Some(3), vec![1, 2]),
    ]);
}
