//! The ring of tokens: does every token that was entered come out exactly once, in its order, whoever enters, takes or
//! dies at the same time, and is the ring called full or empty only when it was?
//!
//! Outcomes: who entered, and what came out.

#![cfg(windlass_loom)]

use loom_tests::tokens::{self, Enter, Ring, Take, FEW_LAPS};
use loom_tests::{explore, explore_deaths, Outcomes, Turn};
use windlass::ring::tokens::Refused;

/// How tokens are entered and taken: by the real code, or by a broken copy.
#[derive(Clone, Copy)]
struct Calls {
    enter: fn(&Ring, u64) -> Result<(), Refused>,
    take: fn(&Ring) -> Option<u64>,
}

const REAL: Calls = Calls { enter: |ring, token| ring.enter(token), take: |ring| ring.take() };

/// A copy without a flaw.
const COPY: Calls = Calls {
    enter: |ring, token| tokens::enter(ring, token, None),
    take: |ring| tokens::take(ring, None),
};

/// Enters a token; false if the ring is full.
fn enter(ring: &Ring, token: u64, calls: Calls) -> bool {
    match (calls.enter)(ring, token) {
        Ok(()) => true,
        Err(Refused::Full) => false,
        Err(Refused::Corrupt) => panic!("nobody damaged the ring"),
    }
}

/// Where the next lap is one that two bits cannot tell from lap 0.
fn end_of_laps(capacity: u64) -> u64 {
    3 * capacity
}

/// Two producers and two consumers, one token each, at a ring with one token in it.
///
/// Outcomes: whether each producer entered, and what the consumers took.
fn two_and_two(capacity: u64, calls: Calls) -> Outcomes<(bool, bool, Vec<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(1, move |turn: Turn| {
        let ring = Ring::new(capacity, FEW_LAPS, end_of_laps(capacity));
        assert!(enter(&ring, 9, calls));
        let [a, b, c, d] = [0; 4].map(|_| ring.clone());
        let (one, two, first, second) = turn.race_four(
            move || enter(&a, 1, calls),
            move || enter(&b, 2, calls),
            move || (calls.take)(&c),
            move || (calls.take)(&d),
        );
        let mut taken: Vec<u64> = [first, second].into_iter().flatten().collect();
        taken.sort();
        let mut all = taken.clone();
        all.extend(ring.drain());
        assert!(taken.contains(&9), "it was the first one: {taken:?}");
        all.sort();
        let mut entered: Vec<u64> = one.then_some(1).into_iter().collect();
        entered.extend(two.then_some(2));
        entered.push(9);
        assert_eq!(all, entered, "what came out is not what went in");
        record.add((one, two, taken));
    });
    outcomes
}

#[test]
fn two_producers_and_two_consumers_at_two_slots() {
    two_and_two(2, REAL).assert_are([
        (true, true, vec![9]),
        (true, true, vec![1, 9]),
        (true, true, vec![2, 9]),
        (true, false, vec![9]),
        (true, false, vec![1, 9]),
        (false, true, vec![9]),
        (false, true, vec![2, 9]),
    ]);
}

#[test]
fn two_producers_and_two_consumers_at_one_slot() {
    two_and_two(1, REAL).assert_are([
        (false, false, vec![9]),
        (true, false, vec![9]),
        (true, false, vec![1, 9]),
        (false, true, vec![9]),
        (false, true, vec![2, 9]),
        (true, true, vec![1, 9]),
        (true, true, vec![2, 9]),
    ]);
}

/// One producer and one consumer, some attempts each; what was taken is in order.
fn in_order(capacity: u64, attempts: u64, calls: Calls) -> Outcomes<(usize, usize)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let ring = Ring::new(capacity, FEW_LAPS, end_of_laps(capacity));
        let (a, b) = (ring.clone(), ring.clone());
        let (entered, mut taken) = turn.race(
            move || {
                let enter = |token: &u64| {
                    a.meet();
                    enter(&a, *token, calls)
                };
                (1..=attempts).filter(enter).collect::<Vec<_>>()
            },
            move || {
                let take = |_| {
                    b.meet();
                    (calls.take)(&b)
                };
                (0..attempts).filter_map(take).collect::<Vec<_>>()
            },
        );
        record.add((entered.len(), taken.len()));
        taken.extend(ring.drain());
        assert_eq!(taken, entered);
    });
    outcomes
}

#[test]
fn one_slot_hands_over_lap_after_lap() {
    in_order(1, 2, REAL).assert_are([(1, 0), (1, 1), (2, 1), (2, 2)]);
}

#[test]
fn two_slots_hand_over_in_order() {
    in_order(2, 3, REAL).assert_are([(2, 0), (2, 1), (2, 2), (3, 1), (3, 2), (3, 3)]);
}

/// Somebody enters or takes once, while another is around the ring of one slot as often as two bits of a lap go.
fn overtaken(slow: fn(&Ring, Calls), calls: Calls) {
    explore(1, move |turn: Turn| {
        let ring = Ring::new(1, FEW_LAPS, 0);
        let (a, b) = (ring.clone(), ring.clone());
        turn.race(
            move || slow(&a, calls),
            move || {
                for token in 1..=3 {
                    enter(&b, token, REAL);
                    (REAL.take)(&b);
                }
            },
        );
    });
}

#[test]
fn a_producer_that_is_overtaken_by_laps_looks_again() {
    overtaken(
        |ring, calls| {
            enter(ring, 7, calls);
        },
        REAL,
    );
}

#[test]
fn a_consumer_that_is_overtaken_by_laps_looks_again() {
    overtaken(
        |ring, calls| {
            (calls.take)(ring);
        },
        REAL,
    );
}

/// A producer that dies at each of its steps, another one and a consumer beside it.
///
/// Outcomes: whether the token of the dead is in, whether the other one entered, and what the consumer took.
fn dying_producer(calls: Calls) -> Outcomes<(bool, bool, Option<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let ring = Ring::new(2, FEW_LAPS, end_of_laps(2));
        let [a, b, c] = [0; 3].map(|_| ring.clone());
        let (_, other, taken) = turn.race_three(
            move || death.of(|| enter(&a, 1, calls)),
            move || enter(&b, 2, REAL),
            move || (REAL.take)(&c),
        );
        let mut all: Vec<u64> = taken.into_iter().collect();
        all.extend(ring.drain());
        all.sort();
        assert!(other && all.contains(&2), "a dead producer is in the way: {all:?}");
        assert!(all == [2] || all == [1, 2], "{all:?}");
        assert_all_usable(&ring, 2);
        record.add((all.len() == 2, other, taken));
    });
    outcomes
}

/// The ring is empty, and takes and gives as many tokens as it has slots.
fn assert_all_usable(ring: &Ring, capacity: u64) {
    assert_eq!(ring.drain(), []);
    assert!((0..capacity).all(|token| enter(ring, token, REAL)), "slots are lost");
    assert!(!enter(ring, 0, REAL), "there are more slots than before");
    assert_eq!(ring.drain(), (0..capacity).collect::<Vec<_>>());
    assert!(ring.tokens.check_wait().is_ok());
}

#[test]
fn a_producer_that_dies_entering_is_in_nobodys_way() {
    dying_producer(REAL).assert_are([
        (false, true, None),
        (false, true, Some(2)),
        (true, true, None),
        (true, true, Some(1)),
        (true, true, Some(2)),
    ]);
}

/// A consumer that dies at each of its steps, another one and a producer beside it, at a full ring.
///
/// Outcomes: what the dead took away, what the other one took, whether the producer entered.
fn dying_consumer(calls: Calls) -> Outcomes<(Option<u64>, Option<u64>, bool)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let ring = Ring::new(2, FEW_LAPS, end_of_laps(2));
        assert!(enter(&ring, 1, REAL) && enter(&ring, 2, REAL));
        let [a, b, c] = [0; 3].map(|_| ring.clone());
        let (_, taken, entered) = turn.race_three(
            move || death.of(|| (calls.take)(&a)),
            move || (REAL.take)(&b),
            move || enter(&c, 3, REAL),
        );
        let mut all: Vec<u64> = taken.into_iter().collect();
        all.extend(ring.drain());
        let mut lost = (1..=if entered { 3 } else { 2 }).filter(|token| !all.contains(token));
        let gone = lost.next();
        assert_eq!((lost.next(), taken.is_some()), (None, true), "of {all:?}");
        assert!(all.windows(2).all(|pair| pair[0] < pair[1]), "{all:?} is out of order");
        assert_all_usable(&ring, 2);
        record.add((gone, taken, entered));
    });
    outcomes
}

#[test]
fn a_consumer_that_dies_taking_is_in_nobodys_way() {
    dying_consumer(REAL).assert_are([
        (None, Some(1), false),
        (None, Some(1), true),
        (Some(1), Some(2), false),
        (Some(1), Some(2), true),
        (Some(2), Some(1), false),
        (Some(2), Some(1), true),
    ]);
}

/// A producer hands its payload to one of two consumers.
fn hand_over(calls: Calls) -> Outcomes<bool> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let ring = Ring::new(1, FEW_LAPS, 0);
        let (a, b) = (ring.clone(), ring.clone());
        let (_, taken) = turn.race(
            move || {
                a.words.set_payload(a.payload_at(), 42);
                enter(&a, 1, calls)
            },
            move || {
                let taken = (calls.take)(&b).is_some();
                assert!(!taken || b.words.payload(b.payload_at()) == 42);
                taken
            },
        );
        record.add(taken);
    });
    outcomes
}

#[test]
fn what_a_producer_did_is_seen_by_whoever_takes_its_token() {
    hand_over(REAL).assert_are([false, true]);
}

/// A consumer makes room, and a producer that was let in reads what the consumer did before.
fn make_room(calls: Calls) -> Outcomes<bool> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let ring = Ring::new(1, FEW_LAPS, 0);
        assert!(enter(&ring, 1, calls));
        let (a, b) = (ring.clone(), ring.clone());
        let (entered, _) = turn.race(
            move || {
                let entered = enter(&a, 2, calls);
                assert!(!entered || a.words.payload(a.payload_at()) == 43);
                entered
            },
            move || {
                b.words.set_payload(b.payload_at(), 43);
                (calls.take)(&b)
            },
        );
        record.add(entered);
    });
    outcomes
}

#[test]
fn what_a_consumer_did_is_seen_by_whoever_gets_its_slot() {
    make_room(REAL).assert_are([false, true]);
}

#[test]
fn the_copies_without_a_flaw_pass() {
    in_order(1, 2, COPY);
    overtaken(
        |ring, calls| {
            enter(ring, 7, calls);
            (calls.take)(ring);
        },
        COPY,
    );
    dying_producer(COPY);
    dying_consumer(COPY);
    hand_over(COPY);
    make_room(COPY);
}

#[test]
#[should_panic]
fn canary_a_producer_claims_its_place_before_it_fills_it() {
    dying_producer(Calls {
        enter: |ring, token| tokens::enter(ring, token, Some(Enter::ClaimsFirst)),
        ..COPY
    });
}

#[test]
#[should_panic]
fn canary_a_consumer_claims_its_place_before_it_empties_it() {
    dying_consumer(Calls { take: |ring| tokens::take(ring, Some(Take::ClaimsFirst)), ..COPY });
}

#[test]
#[should_panic]
fn canary_the_tail_is_never_raised() {
    let enter: fn(&Ring, u64) -> _ =
        |ring, token| tokens::enter(ring, token, Some(Enter::NeverPasses));
    in_order(1, 3, Calls { enter, ..COPY });
}

#[test]
#[should_panic]
fn canary_the_head_is_never_raised() {
    in_order(1, 3, Calls { take: |ring| tokens::take(ring, Some(Take::NeverPasses)), ..COPY });
}

#[test]
#[should_panic]
fn canary_the_tail_is_moved_past_an_empty_slot() {
    dying_producer(Calls {
        enter: |ring, token| tokens::enter(ring, token, Some(Enter::PassesBlindly)),
        ..COPY
    });
}

#[test]
#[should_panic]
fn canary_an_emptied_slot_keeps_its_lap() {
    in_order(1, 3, Calls { take: |ring| tokens::take(ring, Some(Take::LeavesLap)), ..COPY });
}

#[test]
#[should_panic]
fn canary_a_slot_is_emptied_by_a_store() {
    two_and_two(1, Calls { take: |ring| tokens::take(ring, Some(Take::Stores)), ..COPY });
}

#[test]
#[should_panic]
fn canary_a_token_is_entered_without_release() {
    hand_over(Calls {
        enter: |ring, token| tokens::enter(ring, token, Some(Enter::NotRelease)),
        ..COPY
    });
}

#[test]
#[should_panic]
fn canary_a_token_is_taken_without_acquire() {
    hand_over(Calls { take: |ring| tokens::take(ring, Some(Take::NotAcquire)), ..COPY });
}

#[test]
#[should_panic]
fn canary_a_slot_is_emptied_without_release() {
    make_room(Calls { take: |ring| tokens::take(ring, Some(Take::NotRelease)), ..COPY });
}

#[test]
#[should_panic]
fn canary_a_slot_is_looked_at_without_acquire_before_it_is_filled() {
    make_room(Calls {
        enter: |ring, token| tokens::enter(ring, token, Some(Enter::NotAcquire)),
        ..COPY
    });
}
