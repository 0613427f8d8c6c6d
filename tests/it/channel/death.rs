//! Ends that are killed, at any instant, or stopped, and those that take their place.

use super::super::process::{scaled, until, Line, Scene};
use super::super::traffic::{check, number_of, write};
use super::{channel_of, wait_of, Name, CAPACITY};
use std::time::{Duration, Instant};
use windlass::channel::{Channel, Peer, RecvError, SendError};
use windlass::{ErrorKind, Wait};

/// Sends or receives from message `from` on until it is killed, and says `at <number>` for each: a sender when it is
/// committed, a receiver when it was received, before it is given back.
pub fn exact_role(scene: &Scene, line: &mut Line) {
    let channel = channel_of(scene).capacity(CAPACITY);
    if scene.text("end") == "sender" {
        let mut sender = channel.sender().expect("nobody has it");
        line.say("there");
        for number in scene.number("from").. {
            let len = 16 + (number % 600) as usize;
            let mut loan = sender.loan(len).expect("somebody reads");
            write(&mut loan, 0, number);
            loan.commit().expect("somebody reads");
            line.say(format_args!("at {number}"));
        }
    }
    let mut receiver = channel.receiver().expect("nobody has it");
    line.say("there");
    loop {
        match receiver.recv(Wait::Block) {
            Ok(Some(bytes)) => {
                let number = number_of(bytes).expect("it is long enough");
                check(bytes, 0, number);
                line.say(format_args!("at {number}"));
            }
            end => panic!("{end:?}"),
        }
    }
}

/// Waits in the way it is told, and says how the wait ended.
pub fn wait_role(scene: &Scene, line: &mut Line) {
    let (channel, wait) = (channel_of(scene).capacity(CAPACITY), wait_of(scene.text("wait")));
    if scene.text("end") == "receiver" {
        let mut receiver = channel.receiver().expect("nobody has it");
        line.say("there");
        line.hear();
        loop {
            match receiver.recv(wait) {
                Ok(Some(bytes)) => line.say(format_args!("got {}", bytes.len())),
                Ok(None) => return line.say("left"),
                Err(error) => return line.say(format_args!("error {error}")),
            }
        }
    }
    let mut sender = channel.sender().expect("nobody has it");
    line.say("there");
    line.hear();
    loop {
        match sender.send_waiting(&[1; 1000], wait) {
            Ok(()) => line.say("sent"),
            Err(error) => return line.say(format_args!("error {error}")),
        }
    }
}

/// Lets a child go on for a while that differs from round to round.
fn let_run(round: u64) {
    let time = Duration::from_micros(round.wrapping_mul(2_654_435_761) % 3000);
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::thread::yield_now();
    }
}

#[test]
fn senders_killed_at_any_instant_lose_nothing_and_leave_nothing_half() {
    let name = Name::new();
    let mut receiver = name.receiver();
    let mut due = 0;
    for round in 0..scaled(40) {
        let mut sender = name.start("channel.exact", &format!("end=sender from={due}"));
        sender.hear("there");
        // Some messages are read while it sends.
        for _ in 0..round % 20 {
            let bytes = receiver.recv(Wait::Block).expect("it is sound").expect("it sends");
            check(bytes, 0, due);
            due += 1;
        }
        receiver.release();
        let_run(round);
        sender.kill();
        let said = last_said(&mut sender);
        let end = loop {
            match receiver.recv(Wait::Block) {
                Ok(Some(bytes)) => {
                    check(bytes, 0, due);
                    due += 1;
                }
                Ok(None) => panic!("nobody left in order"),
                Err(end) => break end,
            }
        };
        assert_eq!(end, RecvError::Died { pid: sender.pid(), is_elsewhere: false });
        assert!(said.is_none_or(|said| said < due), "{said:?} was committed and only {due} came");
    }
}

/// The last number that somebody who is dead said.
fn last_said(actor: &mut super::Actor) -> Option<u64> {
    let said = std::iter::from_fn(|| actor.hear_any());
    let numbers = said.filter_map(|line| line.strip_prefix("at ")?.parse().ok());
    numbers.last()
}

#[test]
fn receivers_killed_at_any_instant_are_succeeded_where_they_were() {
    let name = Name::new();
    let mut sender = name.sender();
    let (mut number, mut first_due) = (0, 0);
    for round in 0..scaled(40) {
        let mut receiver = name.start("channel.exact", "end=receiver");
        receiver.hear("there");
        for _ in 0..20 + round % 40 {
            let mut message = vec![0; 16 + (number % 600) as usize];
            write(&mut message, 0, number);
            sender.send(&message).expect("somebody reads");
            number += 1;
        }
        let_run(round);
        receiver.kill();
        let said: Vec<u64> = std::iter::from_fn(|| receiver.hear_any())
            .filter_map(|line| line.strip_prefix("at ")?.parse().ok())
            .collect();
        if let (Some(first), Some(last)) = (said.first(), said.last()) {
            // What was said last may have been given back, or is read again; so it is with one that was not said.
            let expected = [first_due, first_due + 1];
            assert!(round == 0 || expected.contains(first), "{first} after {first_due}");
            assert_eq!(said, (*first..=*last).collect::<Vec<_>>());
            first_due = *last;
        }
    }
    assert!(matches!(sender.receiver(), Ok(Peer::Died { .. })));
    // Everything is still there for the last one.
    let mut receiver = name.receiver();
    drop(sender);
    while let Some(bytes) = receiver.recv(Wait::Block).expect("it is sound") {
        let found = number_of(bytes).expect("it is long enough");
        assert!(found == first_due || found == first_due + 1, "{found} after {first_due}");
        first_due = found;
    }
    assert_eq!(first_due + 1, number);
}

#[test]
fn a_name_that_a_killed_pair_left_is_used_again_with_what_nobody_read() {
    let name = Name::new();
    let mut sender = name.start("channel.hold", "end=sender count=6");
    sender.hear("there");
    let mut receiver = name.start("channel.hold", "end=receiver count=2");
    receiver.hear("there");
    sender.kill();
    receiver.kill();
    assert!(name.exists());
    let capacity = 1 << 18;
    let error = Channel::named(&name.0).capacity(CAPACITY).sender().expect_err("it has another");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    assert!(text.contains(&capacity.to_string()) && text.contains(&CAPACITY.to_string()), "{text}");
    let channel = Channel::named(&name.0);
    let (mut sender, mut receiver) = (
        channel.sender().expect("the dead are in nobody's way"),
        channel.receiver().expect("the dead are in nobody's way"),
    );
    super::send(&mut sender, 6, Wait::Block).expect("there is room");
    // The second one was received and not given back, so it is read again.
    let found = super::receive(&mut receiver, 1, 6, Wait::Block);
    assert_eq!(found, Ok(6));
    drop((sender, receiver));
    assert!(!name.exists());
}

#[test]
fn a_name_that_a_killed_pair_left_empty_is_made_anew_with_the_capacity_asked_for() {
    let name = Name::new();
    let mut sender = name.start("channel.hold", "end=sender count=0");
    sender.hear("there");
    let error = name.channel().receiver().expect_err("somebody uses it");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    sender.kill();
    let (mut sender, mut receiver) = (name.sender(), name.receiver());
    assert_eq!((sender.capacity(), receiver.capacity()), (4096, 4096));
    sender.send(b"works").expect("there is room");
    assert_eq!(receiver.try_recv(), Ok(Some(&b"works"[..])));
}

#[test]
fn whoever_waits_is_told_that_the_other_end_died_or_left_in_every_way_to_wait() {
    for wait in ["spin", "yield", "block", "for"] {
        for dies in [true, false] {
            told(wait, dies);
        }
    }
}

/// A receiver that waits while its sender ends, and a sender that waits for room while its receiver ends.
fn told(wait: &str, dies: bool) {
    let name = Name::new();
    let mut receiver = name.start("channel.wait", &format!("end=receiver wait={wait}"));
    receiver.hear("there");
    let mut sender = name.start("channel.send", "count=3 wait=block");
    sender.hear("there");
    sender.hear("sent");
    receiver.say("go");
    (0..3).for_each(|_| drop(receiver.hear("got")));
    let pid = sender.pid();
    if dies {
        sender.kill();
        let text = receiver.hear("error");
        assert!(text.contains(&format!("process {pid}")) && text.contains("died"), "{text}");
    } else {
        sender.finish();
        receiver.hear("left");
    }
    receiver.finish();

    let name = Name::new();
    let mut receiver = name.start("channel.receive", "count=0 wait=block");
    receiver.hear("there");
    let mut sender = name.start("channel.wait", &format!("end=sender wait={wait}"));
    sender.hear("there");
    sender.say("go");
    // Three or four of them fill it.
    (0..3).for_each(|_| drop(sender.hear("sent")));
    let pid = receiver.pid();
    let wanted = if dies {
        receiver.kill();
        format!("process {pid}, died")
    } else {
        receiver.finish();
        "has left".to_owned()
    };
    let text = loop {
        let said = sender.hear_any().expect("it says how it ended");
        if let Some(text) = said.strip_prefix("error ") {
            break text.to_owned();
        }
    };
    assert!(text.contains(&wanted), "{text}");
    sender.finish();
}

#[test]
fn a_sender_goes_on_past_a_dead_receiver_until_there_is_no_room() {
    let name = Name::new();
    let mut sender = name.sender();
    let mut receiver = name.start("channel.wait", "end=receiver wait=block");
    receiver.hear("there");
    receiver.kill();
    let error = loop {
        match sender.send(&[5; 500]) {
            Ok(()) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(error, SendError::Died { pid: receiver.pid(), is_elsewhere: false });
    // Sooner or later a sender that only tries is told as well.
    until("a sender that tries is told", || sender.try_send(&[5; 500]) == Err(error));
    let mut successor = name.receiver();
    assert_eq!(successor.try_recv(), Ok(Some(&[5; 500][..])));
    successor.release();
    sender.send(&[6; 500]).expect("there is somebody again");
}

#[test]
fn whoever_is_stopped_is_alive() {
    let name = Name::new();
    let mut receiver = name.receiver();
    let mut sender = name.start("channel.send", "count=2 wait=block");
    sender.hear("there");
    sender.hear("sent");
    sender.stop();
    let long = Wait::For(Duration::from_millis(200));
    for _ in 0..2 {
        assert!(matches!(receiver.recv(long), Ok(Some(_))));
    }
    assert_eq!(receiver.recv(long).map(drop), Err(RecvError::TimedOut));
    assert!(matches!(receiver.sender(), Ok(Peer::Here { pid, .. }) if pid == sender.pid()));
    assert_eq!(name.channel().sender().expect_err("it lives").kind(), ErrorKind::Limit);
    sender.go_on();
    sender.finish();
    assert_eq!(receiver.recv(long).map(|message| message.is_none()), Ok(true));
}
