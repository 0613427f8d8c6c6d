//! Waking without a fence in publish: is there an end in which a subscriber sleeps, a message lies before it, and the
//! word that it sleeps on has not moved, with two sleepers and two publishers, with a dead sleeper whose flag stays,
//! and after a publisher that died ringing?
//!
//! The sleeper's barrier is a fence on both sides here. Sleeping is the last thing that a modelled sleeper does:
//! whether it would have been woken is decided when all others are done. Outcomes: for each sleeper, whether it saw
//! everything without sleeping, slept and was woken, or slept on.

#![cfg(windlass_loom)]

use loom::sync::atomic::{fence, AtomicU64};
use loom_tests::{explore, explore_deaths, Outcomes, Size, Topic};
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::Arc;
use windlass::ring::wake::Ring;

/// A topic with two subscribers and two lanes, of which only the number of messages matters.
#[derive(Clone)]
struct Scene {
    topic: Topic,
    lanes: Arc<[AtomicU64; 2]>,
    flaw: Option<Flaw>,
}

/// What a canary leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The sleeper passes no barrier.
    SleeperWithoutBarrier,
    /// Publishers do not pass the sleeper's barrier.
    PublisherWithoutBarrier,
    /// The sleeper looks for messages and then takes the value to wait on.
    TicketAfterLook,
    /// The sleeper announces itself and does not look again.
    NoSecondLook,
    /// A publisher withdraws the hint and does not look at the flags again.
    WithdrawsForGood,
    /// A publisher clears the flags of sleepers and does not change the word that they wait on.
    ClearsFlagsOnly,
}

/// How a sleeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It is awake.
    Up,
    /// It waits for the futex word to change from this value, and has seen so many messages.
    Down(u32, u64),
}

/// What became of a sleeper once everybody else is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Awake,
    Woken,
    Asleep,
}
use Fate::*;

impl Scene {
    /// Nobody sleeps. The hint may still be set, from the last time that somebody did.
    fn new(hint_is_set: bool, flaw: Option<Flaw>) -> Self {
        let topic = Topic::new(Size::of(2, 2));
        for slot in 0..2 {
            topic.claim(slot, 1 + slot as u32);
        }
        if hint_is_set {
            topic.bell.announce(&topic.slots, 0);
            topic.bell.rise(&topic.slots, 0);
        }
        Self { topic, lanes: Arc::new([AtomicU64::new(0), AtomicU64::new(0)]), flaw }
    }

    /// How many messages are there.
    fn look(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.load(Acquire)).sum()
    }

    /// Reads until it has seen `all` messages, as `Subscriber::recv` does, in at most `rounds` attempts to sleep.
    fn receive(&self, slot: usize, all: u64, rounds: usize) -> End {
        let (bell, slots) = (&self.topic.bell, &self.topic.slots);
        for _ in 0..rounds {
            let seen = self.look();
            if seen == all {
                return End::Up;
            }
            bell.announce(slots, slot);
            if self.flaw != Some(Flaw::SleeperWithoutBarrier) {
                // SLEEP: the barrier of the sleeper.
                fence(SeqCst);
            }
            let sleeps = match self.flaw {
                Some(Flaw::NoSecondLook) => bell.ticket(slots, slot),
                Some(Flaw::TicketAfterLook) if self.look() != seen => None,
                Some(Flaw::TicketAfterLook) => Some(bell.futex().load(Acquire)),
                _ => bell.ticket(slots, slot).filter(|_| self.look() == seen),
            };
            if let Some(ticket) = sleeps.filter(|ticket| bell.futex().load(Relaxed) == *ticket) {
                return End::Down(ticket, seen);
            }
            bell.rise(slots, slot);
        }
        End::Up
    }

    /// Publishes one message and wakes whoever sleeps, as `Publisher::commit` does.
    fn publish(&self, lane: usize) {
        let (bell, slots) = (&self.topic.bell, &self.topic.slots);
        self.lanes[lane].fetch_add(1, Release);
        let wanted = match self.flaw {
            Some(Flaw::PublisherWithoutBarrier) => loom_tests::broken::is_wanted(&self.topic),
            _ => bell.is_wanted(),
        };
        if !wanted {
            return;
        }
        let ring = match self.flaw {
            Some(Flaw::WithdrawsForGood) => loom_tests::broken::ring(&self.topic),
            _ => bell.ring(slots),
        };
        match ring {
            Ring::Nobody => return,
            Ring::Wake => {}
            // SLEEP: the barrier of a publisher that put the hint back.
            Ring::BarrierThenWake => fence(SeqCst),
        }
        if self.flaw != Some(Flaw::ClearsFlagsOnly) {
            bell.wake();
        }
    }

    /// What becomes of a sleeper when all others are done. Sleeping on with a message at hand is a lost wake-up.
    fn fate(&self, end: End) -> Fate {
        let End::Down(ticket, seen) = end else { return Awake };
        let woken = self.topic.bell.futex().load(Relaxed) != ticket;
        assert!(woken || seen == self.look(), "a wake-up is lost");
        if woken {
            Woken
        } else {
            Asleep
        }
    }

    /// A sleep is bounded: what lies before a sleeper, whoever should have woken it.
    fn rise(&self, slot: usize) {
        self.topic.bell.rise(&self.topic.slots, slot);
    }
}

/// One sleeper and two publishers.
fn one_and_two(hint_is_set: bool, flaw: Option<Flaw>) -> Outcomes<Fate> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let scene = Scene::new(hint_is_set, flaw);
        let (one, two, three) = (scene.clone(), scene.clone(), scene.clone());
        let (end, (), ()) = turn.race_three(
            move || one.receive(0, 2, 2),
            move || two.publish(0),
            move || three.publish(1),
        );
        record.add(scene.fate(end));
    });
    outcomes
}

/// Two sleepers and one publisher.
fn two_and_one(hint_is_set: bool, flaw: Option<Flaw>) -> Outcomes<(Fate, Fate)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let scene = Scene::new(hint_is_set, flaw);
        let (one, two, three) = (scene.clone(), scene.clone(), scene.clone());
        let (end, end_too, ()) = turn.race_three(
            move || one.receive(0, 1, 2),
            move || two.receive(1, 1, 2),
            move || three.publish(0),
        );
        record.add((scene.fate(end), scene.fate(end_too)));
    });
    outcomes
}

fn each() -> [(Fate, Fate); 4] {
    [(Awake, Awake), (Awake, Woken), (Woken, Awake), (Woken, Woken)]
}

#[test]
fn one_sleeper_and_two_publishers_lose_no_wake_up() {
    one_and_two(false, None).assert_are([Awake, Woken]);
}

#[test]
fn one_sleeper_and_two_publishers_lose_no_wake_up_when_the_hint_is_withdrawn() {
    one_and_two(true, None).assert_are([Awake, Woken]);
}

#[test]
fn two_sleepers_and_one_publisher_lose_no_wake_up() {
    two_and_one(false, None).assert_are(each());
    two_and_one(true, None).assert_are(each());
}

#[test]
fn two_sleepers_and_two_publishers_lose_no_wake_up() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(1, move |turn| {
        let scene = Scene::new(true, None);
        let (one, two, three, four) = (scene.clone(), scene.clone(), scene.clone(), scene.clone());
        let (end, end_too, (), ()) = turn.race_four(
            move || one.receive(0, 2, 2),
            move || two.receive(1, 2, 2),
            move || three.publish(0),
            move || four.publish(1),
        );
        record.add((scene.fate(end), scene.fate(end_too)));
    });
    outcomes.assert_are(each());
}

#[test]
fn a_dead_sleeper_keeps_nobody_asleep_and_is_forgotten_with_its_slot() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let scene = Scene::new(false, None);
        let dead = scene.topic.slots.owner(0);
        let (one, two, three) = (scene.clone(), scene.clone(), scene.clone());
        let (_, end, ()) = turn.race_three(
            move || {
                death.of(|| one.receive(0, 2, 1));
            },
            move || two.receive(1, 1, 2),
            move || three.publish(0),
        );
        record.add(scene.fate(end));
        scene.rise(1);
        assert!(scene.topic.slots.reap(0, dead));
        scene.publish(1);
        assert!(!scene.topic.bell.is_wanted(), "the hint stays although nobody sleeps");
    });
    outcomes.assert_are([Awake, Woken]);
}

#[test]
fn a_publisher_that_dies_ringing_costs_one_bounded_sleep() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let scene = Scene::new(true, None);
        let (one, two) = (scene.clone(), scene.clone());
        turn.race(
            move || one.receive(0, 1, 1),
            move || {
                death.of(|| two.publish(0));
            },
        );
        // The sleep ends by itself. From here on nothing is lost.
        scene.rise(0);
        let (one, two) = (scene.clone(), scene.clone());
        let (end, ()) = turn.race(move || one.receive(0, 2, 2), move || two.publish(1));
        record.add(scene.fate(end));
    });
    outcomes.assert_are([Awake, Woken]);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_passes_no_barrier() {
    one_and_two(false, Some(Flaw::SleeperWithoutBarrier));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_publishers_pass_no_barrier() {
    one_and_two(false, Some(Flaw::PublisherWithoutBarrier));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_takes_its_ticket_after_its_last_look() {
    one_and_two(false, Some(Flaw::TicketAfterLook));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_does_not_look_again() {
    one_and_two(false, Some(Flaw::NoSecondLook));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_a_publisher_withdraws_the_hint_for_good() {
    one_and_two(true, Some(Flaw::WithdrawsForGood));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_a_publisher_clears_flags_and_wakes_nobody() {
    one_and_two(false, Some(Flaw::ClearsFlagsOnly));
}
