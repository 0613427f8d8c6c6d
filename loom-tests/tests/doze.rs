//! Two ends that wake each other without a fence on the fast path: is there an end in which one of them sleeps, what it
//! waits for is there, and the half that it sleeps on still says so?
//!
//! The sleeper's barrier is a fence on both sides here. Sleeping is the last thing that a modelled sleeper does:
//! whether it would have been woken is decided when all others are done. Outcomes: awake, woken, asleep.

#![cfg(windlass_loom)]

use loom::sync::atomic::fence;
use loom_tests::stream::{receive, send, Channel};
use loom_tests::{explore, explore_deaths, Outcomes};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use windlass::ring::doze::Doze;
use windlass::ring::stream::{Reader, Writer};

/// What a canary leaves out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// The sleeper passes no barrier.
    SleeperWithoutBarrier,
    /// The other end does not pass the sleeper's barrier.
    WakerWithoutBarrier,
    /// The sleeper does not look again.
    NoSecondLook,
    /// The other end looks whether somebody sleeps before it does what that one waits for.
    LooksFirst,
}

/// How a sleeper ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Up,
    /// It waits for the half to change from this value.
    Down(u32),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Awake,
    Woken,
    Asleep,
}
use Fate::*;

/// Looks once, and lies down if there is nothing, as `Core::sleep` does.
fn lie_down(doze: &Doze, flaw: Option<Flaw>, mut is_ready: impl FnMut() -> bool) -> End {
    if is_ready() {
        return End::Up;
    }
    doze.announce();
    if flaw != Some(Flaw::SleeperWithoutBarrier) {
        // SLEEP: the barrier of the sleeper.
        fence(SeqCst);
    }
    if let Some(ticket) = doze.ticket() {
        if flaw == Some(Flaw::NoSecondLook) || !is_ready() {
            return End::Down(ticket);
        }
    }
    doze.rise();
    End::Up
}

/// What the other end does after it has done something, as `Core::nudge` does.
fn nudge(doze: &Doze, flaw: Option<Flaw>) {
    let is_wanted = match flaw {
        Some(Flaw::WakerWithoutBarrier) => doze.futex().load(Relaxed) != 0,
        _ => doze.is_wanted(),
    };
    if is_wanted {
        doze.rouse();
    }
}

/// What became of a sleeper once the other end is done, which has done what it waits for.
fn fate(doze: &Doze, end: End) -> Fate {
    let End::Down(ticket) = end else { return Awake };
    if doze.futex().load(Relaxed) == ticket {
        Asleep
    } else {
        Woken
    }
}

fn is_ready(reader: &Reader) -> bool {
    reader.is_ready()
}

fn has_room(writer: &mut Writer) -> bool {
    writer.look_closer().expect("the words are sound");
    writer.make_room(8)
}

/// A receiver that lies down, and a sender that sends one message.
fn receiver_sleeps(fenced: bool, flaw: Option<Flaw>) {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let channel = Channel::new();
        let (mut writer, reader) = (channel.writer(), channel.reader());
        let (mine, theirs) = (channel.receiver_doze(), channel.receiver_doze());
        if fenced {
            mine.demand_fences();
        }
        let (end, ()) = turn.race(
            move || lie_down(&mine, flaw, || is_ready(&reader)),
            move || {
                if flaw == Some(Flaw::LooksFirst) {
                    nudge(&theirs, None);
                }
                assert!(send(&mut writer, 1, 1));
                if flaw != Some(Flaw::LooksFirst) {
                    nudge(&theirs, flaw);
                }
            },
        );
        let fate = fate(&channel.receiver_doze(), end);
        assert_ne!(fate, Asleep, "a wake-up is lost");
        record.add(fate);
    });
    outcomes.assert_are([Awake, Woken]);
}

#[test]
fn a_receiver_that_lies_down_is_woken_or_sees_the_message() {
    receiver_sleeps(false, None);
    receiver_sleeps(true, None);
}

#[test]
fn a_sender_that_lies_down_is_woken_or_sees_the_room() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let channel = Channel::used(2);
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        (1..=3).for_each(|number| assert!(send(&mut writer, number, 1)));
        let (mine, theirs) = (channel.sender_doze(), channel.sender_doze());
        let (end, ()) = turn.race(
            move || lie_down(&mine, None, || has_room(&mut writer)),
            move || {
                assert_eq!(receive(&reader), Some(1));
                reader.settle();
                nudge(&theirs, None);
            },
        );
        let fate = fate(&channel.sender_doze(), end);
        assert_ne!(fate, Asleep, "a wake-up is lost");
        record.add(fate);
    });
    outcomes.assert_are([Awake, Woken]);
}

#[test]
fn a_waker_that_dies_costs_one_bounded_sleep_and_its_successor_wakes() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let channel = Channel::new();
        let (mut writer, reader) = (channel.writer(), channel.reader());
        let (mine, theirs) = (channel.receiver_doze(), channel.receiver_doze());
        let (end, _) = turn.race(
            move || lie_down(&mine, None, || is_ready(&reader)),
            move || {
                death.of(|| {
                    send(&mut writer, 1, 1);
                    nudge(&theirs, None);
                })
            },
        );
        record.add(fate(&channel.receiver_doze(), end));
        // The sleep ends by itself; from here on nothing is lost.
        channel.receiver_doze().rise();
        let mut heir = channel.writer();
        assert!(send(&mut heir, 2, 1));
        nudge(&channel.receiver_doze(), None);
        assert!(!channel.receiver_doze().is_wanted(), "a bit stays although nobody sleeps");
    });
    outcomes.assert_are([Awake, Woken, Asleep]);
}

#[test]
fn a_sleeper_that_dies_is_roused_once() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let channel = Channel::new();
        let (mut writer, reader) = (channel.writer(), channel.reader());
        let (mine, theirs) = (channel.receiver_doze(), channel.receiver_doze());
        turn.race(
            move || {
                death.of(|| lie_down(&mine, None, || is_ready(&reader)));
            },
            move || {
                assert!(send(&mut writer, 1, 1));
                nudge(&theirs, None);
            },
        );
        // The successor begins awake, and finds the message.
        let reader = channel.reader();
        channel.receiver_doze().rise();
        record.add(lie_down(&channel.receiver_doze(), None, || is_ready(&reader)));
    });
    outcomes.assert_are([End::Up]);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_passes_no_barrier() {
    receiver_sleeps(false, Some(Flaw::SleeperWithoutBarrier));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_waker_passes_no_barrier() {
    receiver_sleeps(false, Some(Flaw::WakerWithoutBarrier));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_sleeper_does_not_look_again() {
    receiver_sleeps(false, Some(Flaw::NoSecondLook));
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_the_waker_looks_before_it_commits() {
    receiver_sleeps(false, Some(Flaw::LooksFirst));
}
