//! Waking one sleeper for one message: is there an end in which a consumer sleeps while there are more messages than
//! consumers that are awake, with two sleepers and two producers, with a hint that is withdrawn meanwhile, and after a
//! sleeper that died?
//!
//! As in the model of `wake`, sleeping is the last thing that a modelled sleeper does, and its barrier is a fence on
//! both sides. A message that a sleeper takes is one that it works on: it does not look after the others. Outcomes: how
//! each sleeper ended.

#![cfg(windlass_loom)]

use loom::sync::atomic::{fence, AtomicU64};
use loom_tests::{explore, explore_deaths, Outcomes, Size, Topic};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, SeqCst};
use std::sync::Arc;
use windlass::ring::bells::{Bells, Pick};
use windlass::ring::slots::Ticket;

#[derive(Clone)]
struct Scene {
    topic: Topic,
    bells: Bells,
    sent: Arc<AtomicU64>,
    taken: Arc<AtomicU64>,
    flaw: Option<Flaw>,
}

/// What a canary leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The sleeper passes no barrier.
    NoBarrier,
    /// The sleeper announces itself and does not look again.
    NoSecondLook,
    /// A flag is cleared by whoever sees it, be it somebody else as well.
    ClearsTwice,
    /// A producer that finds the hint gone although somebody sleeps wakes one.
    WakesOneOnly,
    /// A producer clears a flag and does not change the word.
    ClearsFlagsOnly,
}

/// How a sleeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Took,
    Up,
    Down(Ticket),
}

/// What became of a sleeper once everybody else is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It works on a message.
    Works,
    /// It is awake and looks again.
    Awake,
    /// It was woken and looks again.
    Woken,
    /// It sleeps.
    Asleep,
}
use Fate::*;

impl Scene {
    fn new(hint_is_set: bool, flaw: Option<Flaw>) -> Self {
        let topic = Topic::new(Size::of(2, 2));
        for slot in 0..2 {
            topic.claim(slot, 1 + slot as u32);
        }
        let bells = topic.bells();
        if hint_is_set {
            bells.announce(0);
            bells.rise(0);
        }
        let (sent, taken) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        Self { topic, bells, sent, taken, flaw }
    }

    fn left(&self) -> u64 {
        // The messages last: they only grow.
        let taken = self.taken.load(Acquire);
        self.sent.load(Acquire) - taken
    }

    fn take(&self) -> bool {
        loop {
            let taken = self.taken.load(Acquire);
            if self.sent.load(Acquire) == taken {
                return false;
            }
            if self.taken.compare_exchange(taken, taken + 1, AcqRel, Relaxed).is_ok() {
                return true;
            }
        }
    }

    /// Takes one message, as `Consumer::take` does, in at most two attempts to sleep.
    fn consume(&self, slot: usize) -> End {
        for _ in 0..2 {
            if self.take() {
                return End::Took;
            }
            self.bells.announce(slot);
            if self.flaw != Some(Flaw::NoBarrier) {
                // SLEEP: the barrier of the sleeper.
                fence(SeqCst);
            }
            let looks = self.flaw != Some(Flaw::NoSecondLook);
            let ticket = self.bells.ticket(slot).filter(|_| !looks || self.left() == 0);
            if let Some(ticket) = ticket.filter(|ticket| self.word(slot) == *ticket) {
                return End::Down(ticket);
            }
            self.bells.rise(slot);
        }
        End::Up
    }

    fn word(&self, slot: usize) -> Ticket {
        self.topic.slots.futex(slot).load(Relaxed)
    }

    /// Enters one message and wakes somebody, as `Core::announce` does. Nobody is asked whether he was there.
    fn send(&self) {
        self.sent.fetch_add(1, AcqRel);
        if !self.bells.hint().is_set() {
            return;
        }
        let pick = match self.flaw {
            Some(Flaw::ClearsTwice) => self.pick_carelessly(),
            _ => self.bells.pick(),
        };
        match pick {
            Pick::Nobody => {}
            Pick::One(slot) => self.wake(slot),
            Pick::Everybody => self.wake_everybody(),
        }
    }

    /// What follows when the hint was gone although somebody slept.
    fn wake_everybody(&self) {
        // SLEEP: the barrier of a producer that put the hint back.
        fence(SeqCst);
        let roused = (0..2).filter(|slot| self.bells.rouse(*slot));
        let most = if self.flaw == Some(Flaw::WakesOneOnly) { 1 } else { 2 };
        roused.take(most).for_each(|slot| self.wake(slot));
    }

    fn wake(&self, slot: usize) {
        if self.flaw != Some(Flaw::ClearsFlagsOnly) {
            self.bells.wake(slot);
        }
    }

    fn pick_carelessly(&self) -> Pick {
        let slots = &self.topic.slots;
        match (0..2).find(|slot| slots.is_sleeping(*slot)) {
            Some(slot) => {
                slots.set_sleeping(slot, false);
                Pick::One(slot)
            }
            None => self.bells.pick(),
        }
    }

    fn fate(&self, slot: usize, end: End) -> Fate {
        match end {
            End::Took => Works,
            End::Up => Awake,
            End::Down(ticket) if self.word(slot) == ticket => Asleep,
            End::Down(_) => Woken,
        }
    }

    /// Whoever sleeps is not needed.
    fn check(&self, fates: &[Fate]) {
        let awake = fates.iter().filter(|fate| matches!(fate, Awake | Woken)).count() as u64;
        let sleeps = fates.contains(&Asleep);
        assert!(!sleeps || self.left() <= awake, "a wake-up is lost: {fates:?}");
    }
}

fn two_and_one(hint_is_set: bool, flaw: Option<Flaw>) -> Outcomes<(Fate, Fate)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let scene = Scene::new(hint_is_set, flaw);
        let [one, two, three] = [0; 3].map(|_| scene.clone());
        let (a, b, ()) =
            turn.race_three(move || one.consume(0), move || two.consume(1), move || three.send());
        let fates = (scene.fate(0, a), scene.fate(1, b));
        scene.check(&[fates.0, fates.1]);
        record.add(fates);
    });
    outcomes
}

fn one_and_two(hint_is_set: bool, flaw: Option<Flaw>) -> Outcomes<Fate> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let scene = Scene::new(hint_is_set, flaw);
        let [one, two, three] = [0; 3].map(|_| scene.clone());
        let (a, (), ()) =
            turn.race_three(move || one.consume(0), move || two.send(), move || three.send());
        let fate = scene.fate(0, a);
        scene.check(&[fate]);
        record.add(fate);
    });
    outcomes
}

/// Both sleep, or are about to, when two messages come.
fn two_and_two() -> Outcomes<(Fate, Fate)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(1, move |turn| {
        let scene = Scene::new(true, None);
        let [one, two, three, four] = [0; 4].map(|_| scene.clone());
        let (a, b, (), ()) = turn.race_four(
            move || one.consume(0),
            move || two.consume(1),
            move || three.send(),
            move || four.send(),
        );
        let fates = (scene.fate(0, a), scene.fate(1, b));
        scene.check(&[fates.0, fates.1]);
        record.add(fates);
    });
    outcomes
}

/// Two messages come while both sleep: nobody but the producers moves.
fn two_asleep(flaw: Option<Flaw>) -> Outcomes<(Fate, Fate)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let scene = Scene::new(false, flaw);
        let (a, b) = (scene.consume(0), scene.consume(1));
        let [one, two] = [0; 2].map(|_| scene.clone());
        turn.race(move || one.send(), move || two.send());
        let fates = (scene.fate(0, a), scene.fate(1, b));
        scene.check(&[fates.0, fates.1]);
        record.add(fates);
    });
    outcomes
}

/// A producer withdraws the hint that both set who sleep, finds them, and puts it back; another one passes by.
fn late_withdrawal(flaw: Option<Flaw>) -> Outcomes<(Fate, Fate)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn| {
        let scene = Scene::new(false, flaw);
        let (a, b) = (scene.consume(0), scene.consume(1));
        let [one, two] = [0; 2].map(|_| scene.clone());
        turn.race(
            move || {
                one.sent.fetch_add(1, AcqRel);
                one.bells.hint().withdraw();
                one.bells.hint().set();
                one.wake_everybody();
            },
            move || two.send(),
        );
        let fates = (scene.fate(0, a), scene.fate(1, b));
        scene.check(&[fates.0, fates.1]);
        record.add(fates);
    });
    outcomes
}

#[test]
fn whoever_passes_by_while_the_hint_is_gone_is_not_left_alone() {
    late_withdrawal(None).assert_are([(Woken, Woken)]);
}

#[test]
fn one_message_wakes_one_of_two_who_sleep() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |_| {
        let scene = Scene::new(false, None);
        let (a, b) = (scene.consume(0), scene.consume(1));
        scene.send();
        record.add((scene.fate(0, a), scene.fate(1, b)));
    });
    outcomes.assert_are([(Woken, Asleep)]);
}

#[test]
fn two_messages_wake_two_who_sleep() {
    two_asleep(None).assert_are([(Woken, Woken)]);
}

#[test]
fn two_sleepers_and_one_producer_lose_no_wake_up() {
    let ends = [
        (Works, Asleep),
        (Works, Awake),
        (Works, Woken),
        (Asleep, Works),
        (Awake, Works),
        (Woken, Works),
        (Woken, Asleep),
        // The first has been woken before it slept, and looks again.
        (Awake, Asleep),
    ];
    two_and_one(false, None).assert_are(ends);
    two_and_one(true, None).assert_are(ends);
}

#[test]
fn one_sleeper_and_two_producers_lose_no_wake_up() {
    one_and_two(false, None).assert_are([Works, Woken, Awake]);
    one_and_two(true, None).assert_are([Works, Woken, Awake]);
}

#[test]
fn two_sleepers_and_two_producers_lose_no_wake_up() {
    let ends = [Works, Woken, Awake].into_iter();
    let pairs = ends.clone().flat_map(|one| ends.clone().map(move |two| (one, two)));
    // Whoever wakes for nothing was woken by one of the two, or found the other one's message gone.
    two_and_two().assert_are(pairs.filter(|pair| *pair != (Awake, Awake)));
}

#[test]
fn a_dead_sleeper_is_chosen_once() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let scene = Scene::new(false, None);
        let [one, two, three] = [0; 3].map(|_| scene.clone());
        let (_, b, ()) = turn.race_three(
            move || {
                death.of(|| one.consume(0));
            },
            move || two.consume(1),
            move || three.send(),
        );
        // Nobody answers for the dead, so the producer asks again.
        scene.send();
        scene.send();
        let fate = scene.fate(1, b);
        assert_ne!(fate, Asleep, "the dead are chosen again and again");
        record.add(fate);
    });
    outcomes.assert_are([Works, Awake, Woken]);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_passes_no_barrier() {
    one_and_two(false, Some(Flaw::NoBarrier));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_does_not_look_again() {
    one_and_two(false, Some(Flaw::NoSecondLook));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_two_producers_choose_the_same_sleeper() {
    two_asleep(Some(Flaw::ClearsTwice));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_a_hint_that_was_gone_wakes_one() {
    late_withdrawal(Some(Flaw::WakesOneOnly));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_a_producer_clears_flags_and_wakes_nobody() {
    two_asleep(Some(Flaw::ClearsFlagsOnly));
}
