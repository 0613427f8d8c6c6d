//! Channels: one sender and one receiver, between threads and between processes.
//!
//! `death` kills and stops them, `damage` changes what is shared, `model` compares with a queue of the standard
//! library.

mod damage;
mod death;
mod model;

use super::process::{fork_and, scaled, Actor, Den, Line, Role, Scene};
use super::traffic::{check, len_of, write};
use nix::sys::wait::{waitpid, WaitStatus};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;
use windlass::channel::{pair, Channel, Peer, Receiver, RecvError, SendError, Sender};
use windlass::{ErrorKind, Wait};

pub const ROLES: &[(&str, Role)] = &[
    ("channel.send", send_role),
    ("channel.receive", receive_role),
    ("channel.hold", hold_role),
    ("channel.fork", fork_role),
    ("channel.exact", death::exact_role),
    ("channel.wait", death::wait_role),
    ("channel.limit", damage::limit_role),
];

/// Bytes of the ring of most tests: the smallest, so that messages pass its end all the time.
const CAPACITY: u64 = 4096;
/// Lengths of messages: they fit the ring, and do not divide it.
const LEAST: u64 = 16;
const MOST: u64 = 700;

/// A name that no other test has. Removed when dropped, even by a panic.
struct Name(String);

impl Name {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        Self(format!("windlass-channel-test-{}-{count}", std::process::id()))
    }

    fn channel(&self) -> Channel {
        Channel::named(&self.0).capacity(CAPACITY)
    }

    fn path(&self) -> PathBuf {
        PathBuf::from("/dev/shm").join(&self.0)
    }

    fn exists(&self) -> bool {
        self.path().exists()
    }

    fn sender(&self) -> Sender {
        self.channel().sender().expect("nobody has it")
    }

    fn receiver(&self) -> Receiver {
        self.channel().receiver().expect("nobody has it")
    }

    /// A process that plays `role` at this channel.
    fn start(&self, role: &str, arguments: &str) -> Actor {
        Actor::process(&Den::new(), role, &format!("name={} {arguments}", self.0))
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(self.path());
    }
}

/// The channel of a participant.
fn channel_of(scene: &Scene) -> Channel {
    Channel::named(scene.text("name"))
}

fn wait_of(text: &str) -> Wait {
    match text {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        "block" => Wait::Block,
        "for" => Wait::For(Duration::from_secs(100)),
        other => panic!("there is no way to wait called {other}"),
    }
}

/// Sends message `number`, in one of the ways that there are.
fn send(sender: &mut Sender, number: u64, wait: Wait) -> Result<(), SendError> {
    let len = len_of(number, LEAST, MOST);
    match number % 4 {
        0 => {
            let mut loan = sender.loan_waiting(len, wait)?;
            write(&mut loan, 0, number);
            loan.commit()
        }
        1 => {
            sender.loan_waiting(len + 50, wait)?.fill(0xee);
            let mut loan = sender.loan_waiting(len + 9, wait)?;
            loan.fill(0xdd);
            write(&mut loan[..len], 0, number);
            loan.commit_len(len)
        }
        2 => {
            let mut copy = vec![0; len];
            write(&mut copy, 0, number);
            sender.send_waiting(&copy, wait)
        }
        _ => {
            let mut group = sender.group();
            match group.build(len, |space| write(space, 0, number)) {
                Ok(()) => return group.commit(),
                Err(SendError::Full) => drop(group),
                Err(error) => return Err(error),
            }
            let mut copy = vec![0; len];
            write(&mut copy, 0, number);
            sender.send_batch([copy]).map(drop).map_err(|(_, error)| error)
        }
    }
}

/// Receives messages from `from` on, `count` of them or until the sender has left; returns how many.
fn receive(receiver: &mut Receiver, from: u64, count: u64, wait: Wait) -> Result<u64, RecvError> {
    let mut number = from;
    while number < from + count {
        if number % 7 == 3 {
            let most = (from + count - number).min(5);
            for bytes in receiver.batch(most as usize)? {
                check(bytes, 0, number);
                number += 1;
            }
            continue;
        }
        let Some(bytes) = receiver.recv(wait)? else { break };
        check(bytes, 0, number);
        number += 1;
    }
    Ok(number - from)
}

fn send_role(scene: &Scene, line: &mut Line) {
    let wait = wait_of(scene.text("wait"));
    let mut sender = channel_of(scene).capacity(CAPACITY).sender().expect("nobody has it");
    line.say("there");
    for number in 0..scene.number("count") {
        send(&mut sender, number, wait).expect("somebody reads");
    }
    line.say("sent");
    line.stay();
}

fn receive_role(scene: &Scene, line: &mut Line) {
    let wait = wait_of(scene.text("wait"));
    let mut receiver = channel_of(scene).capacity(CAPACITY).receiver().expect("nobody has it");
    line.say("there");
    let count = receive(&mut receiver, 0, scene.number("count"), wait).expect("somebody sends");
    line.say(format_args!("received {count}"));
    line.stay();
}

/// Holds an end until the test hangs up.
fn hold_role(scene: &Scene, line: &mut Line) {
    let channel = channel_of(scene);
    match scene.text("end") {
        "sender" => {
            let mut sender = channel.sender().expect("nobody has it");
            for number in 0..scene.number("count") {
                send(&mut sender, number, Wait::Block).expect("there is room");
            }
            line.say("there");
            line.stay();
        }
        _ => {
            let mut receiver = channel.receiver().expect("nobody has it");
            receive(&mut receiver, 0, scene.number("count"), Wait::Block).expect("it is sound");
            line.say("there");
            line.stay();
        }
    }
}

const WAITS: [&str; 4] = ["spin", "yield", "block", "for"];

#[test]
fn messages_come_whole_and_in_order_between_threads() {
    for wait in WAITS.map(wait_of) {
        let count = scaled(20_000);
        let (mut sender, mut receiver) = pair(CAPACITY).expect("there is memory");
        let thread = std::thread::spawn(move || {
            (0..count).try_for_each(|number| send(&mut sender, number, wait))
        });
        // A batch may find that the sender has left before `recv` does.
        let received = receive(&mut receiver, 0, count, wait);
        assert_eq!(received, Ok(count));
        thread.join().expect("it does not panic").expect("somebody reads");
    }
}

#[test]
fn messages_come_whole_and_in_order_between_processes() {
    for wait in WAITS {
        let (name, count) = (Name::new(), scaled(10_000));
        let arguments = format!("count={count} wait={wait}");
        let mut sender = name.start("channel.send", &arguments);
        let mut receiver = name.start("channel.receive", &arguments);
        sender.hear("there");
        receiver.hear("there");
        sender.hear("sent");
        assert_eq!(receiver.hear_number("received"), count);
        sender.finish();
        receiver.finish();
        assert!(!name.exists(), "the last one to leave removes the name");
    }
}

#[test]
fn either_end_may_come_first() {
    for first in ["channel.send", "channel.receive"] {
        let name = Name::new();
        let arguments = "count=100 wait=block";
        let mut early = name.start(first, arguments);
        early.hear("there");
        let second = if first == "channel.send" { "channel.receive" } else { "channel.send" };
        let mut late = name.start(second, arguments);
        late.hear("there");
        let (mut sender, mut receiver) =
            if first == "channel.send" { (early, late) } else { (late, early) };
        sender.hear("sent");
        assert_eq!(receiver.hear_number("received"), 100);
        sender.finish();
        receiver.finish();
    }
}

#[test]
fn a_second_sender_or_receiver_is_refused_and_told_who_is_in_its_way() {
    for end in ["sender", "receiver"] {
        let name = Name::new();
        let mut holder = name.start("channel.hold", &format!("end={end} count=0"));
        holder.hear("there");
        let channel = Channel::named(&name.0);
        let refused = match end {
            "sender" => channel.sender().map(drop),
            _ => channel.receiver().map(drop),
        };
        let error = refused.expect_err("it is taken");
        assert_eq!(error.kind(), ErrorKind::Limit);
        let text = error.to_string();
        let who = format!("process {} has it", holder.pid());
        assert!(text.contains(&who) && text.contains(end), "{text}");
        // The refusal took nothing from anybody.
        let other = match end {
            "sender" => channel.receiver().map(drop),
            _ => channel.sender().map(drop),
        };
        other.expect("the other end is free");
        holder.finish();
        assert!(!name.exists());
    }
}

#[test]
fn one_process_is_refused_its_own_second_end_too() {
    let name = Name::new();
    let _sender = name.sender();
    let error = name.channel().sender().expect_err("it is taken");
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[test]
fn the_name_stays_while_there_is_something_that_nobody_had_the_chance_to_read() {
    let name = Name::new();
    let mut sender = name.sender();
    sender.send(b"first").expect("there is room");
    sender.send(b"second").expect("there is room");
    drop(sender);
    assert!(name.exists());
    let mut receiver = name.receiver();
    assert_eq!(receiver.recv(Wait::Block), Ok(Some(&b"first"[..])));
    assert_eq!(receiver.recv(Wait::Block), Ok(Some(&b"second"[..])));
    assert_eq!(receiver.recv(Wait::Block), Ok(None));
    assert_eq!(receiver.try_recv(), Err(RecvError::Closed));
    drop(receiver);
    assert!(!name.exists());
}

#[test]
fn the_name_goes_with_the_last_end_if_the_receiver_wanted_no_more() {
    let name = Name::new();
    let (mut sender, receiver) = (name.sender(), name.receiver());
    sender.send(b"unread").expect("there is room");
    drop(receiver);
    assert!(name.exists());
    assert_eq!(sender.send(b"more"), Err(SendError::Closed));
    assert_eq!(sender.receiver(), Ok(Peer::Left));
    // Another one may come, and has what the first one did not read.
    let mut receiver = name.receiver();
    sender.send(b"more").expect("there is a receiver again");
    assert_eq!(receiver.try_recv(), Ok(Some(&b"unread"[..])));
    assert_eq!(receiver.try_recv(), Ok(Some(&b"more"[..])));
    drop(receiver);
    drop(sender);
    assert!(!name.exists());
}

#[test]
fn a_sender_that_comes_back_goes_on_and_a_receiver_that_was_told_reads_on() {
    let name = Name::new();
    let mut receiver = name.receiver();
    assert_eq!(receiver.sender(), Ok(Peer::Absent));
    assert_eq!(receiver.try_recv(), Ok(None));
    for round in 0..5_u8 {
        let mut sender = name.sender();
        sender.send(&[round]).expect("there is room");
        assert!(
            matches!(receiver.sender(), Ok(Peer::Here { pid, .. }) if pid == std::process::id())
        );
        drop(sender);
        assert_eq!(receiver.recv(Wait::Block), Ok(Some(&[round][..])));
        assert_eq!(receiver.recv(Wait::Block), Ok(None));
        assert_eq!(receiver.sender(), Ok(Peer::Left));
    }
}

#[test]
fn what_is_not_given_back_takes_room_until_it_is() {
    let (mut sender, mut receiver) = pair(CAPACITY).expect("there is memory");
    let half = vec![7; sender.payload_bytes_max()];
    sender.send(&half).expect("there is room");
    assert_eq!(sender.try_send(&half), Err(SendError::Full));
    assert_eq!(receiver.try_recv(), Ok(Some(&half[..])));
    assert_eq!(sender.try_send(&half), Err(SendError::Full));
    receiver.release();
    sender.try_send(&half).expect("it was given back");
    let timeout = Duration::from_millis(5);
    assert_eq!(sender.send_timeout(&half, timeout), Err(SendError::Full));
    assert_eq!(receiver.recv(Wait::For(timeout)), Ok(Some(&half[..])));
    receiver.release();
    assert_eq!(receiver.recv(Wait::For(timeout)), Err(RecvError::TimedOut));
    let one_more = vec![7; half.len() + 1];
    let (need, max) = (one_more.len() as u64, half.len() as u64);
    assert_eq!(sender.send(&one_more), Err(SendError::TooLarge { need, max }));
    assert_eq!(sender.loan(usize::MAX).map(drop), Err(SendError::TooLarge { need: u64::MAX, max }));
}

#[test]
fn one_message_given_back_makes_room_for_one_although_room_is_told_rarely() {
    let (mut sender, mut receiver) = pair(1 << 16).expect("there is memory");
    while sender.try_send(&[1; 56]).is_ok() {}
    for _ in 0..5000 {
        assert_eq!(receiver.try_recv(), Ok(Some(&[1; 56][..])));
        receiver.release();
        sender.try_send(&[1; 56]).expect("one was given back");
        assert_eq!(sender.try_send(&[1; 56]), Err(SendError::Full));
    }
}

#[test]
fn a_group_appears_at_once_or_never() {
    let (mut sender, mut receiver) = pair(CAPACITY).expect("there is memory");
    for round in 0..300_u64 {
        let mut group = sender.group();
        for index in 0..5 {
            group.push(&(round * 5 + index).to_le_bytes()).expect("there is room");
        }
        assert_eq!(receiver.try_recv(), Ok(None));
        if round % 3 == 0 {
            drop(group);
            assert_eq!(receiver.try_recv(), Ok(None));
            continue;
        }
        if round % 3 == 1 {
            // Forgotten without a word: it never existed either.
            std::mem::forget(group);
            sender.send(b"alone").expect("there is room");
            assert_eq!(receiver.batch(9).expect("it is sound").collect::<Vec<_>>(), [b"alone"]);
            continue;
        }
        group.commit().expect("there is somebody");
        let found = receiver.batch(9).expect("it is sound");
        let found: Vec<_> =
            found.map(|bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes"))).collect();
        assert_eq!(found, (round * 5..round * 5 + 5).collect::<Vec<_>>());
    }
}

#[test]
fn sleepers_are_woken() {
    // Without a wake-up each step would take 50 ms.
    let rounds = 200;
    let (mut there, mut their) = pair(CAPACITY).expect("there is memory");
    let (mut back, mut answers) = pair(CAPACITY).expect("there is memory");
    let thread = std::thread::spawn(move || {
        while let Some(message) = their.recv(Wait::Block).expect("it is sound") {
            back.send(message).expect("somebody reads");
        }
    });
    let begin = std::time::Instant::now();
    for number in 0..rounds as u64 {
        there.send(&number.to_le_bytes()).expect("somebody reads");
        assert_eq!(answers.recv(Wait::Block), Ok(Some(&number.to_le_bytes()[..])));
        // Long enough that the other one lies down.
        let quiet = std::time::Instant::now();
        while quiet.elapsed() < Duration::from_micros(300) {
            std::thread::yield_now();
        }
    }
    drop(there);
    thread.join().expect("it does not panic");
    assert!(begin.elapsed() < Duration::from_millis(50) * rounds, "nobody was woken");
}

/// Forks with both ends held; the child must be refused everything, and harm nothing.
fn fork_role(scene: &Scene, line: &mut Line) {
    let channel = channel_of(scene);
    let mut sender = Some(channel.sender().expect("nobody has it"));
    let mut receiver = Some(channel.receiver().expect("nobody has it"));
    let parent = (sender.as_mut().expect("above"), receiver.as_mut().expect("above"));
    parent.0.send(b"before").expect("there is room");
    parent.0.send(b"unread").expect("there is room");
    assert_eq!(parent.1.try_recv(), Ok(Some(&b"before"[..])));
    let mut loan = parent.0.loan(8).expect("there is room");
    loan.fill(9);
    let child = fork_and(|| i32::from(loan.commit() != Err(SendError::Forked)));
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    let child = fork_and(|| {
        let (mut sender, mut receiver) =
            (sender.take().expect("it is inherited"), receiver.take().expect("so is this"));
        let refused = sender.send(b"child") == Err(SendError::Forked)
            && sender.try_send(b"child") == Err(SendError::Forked)
            && sender.group().commit() == Err(SendError::Forked)
            && sender.receiver() == Err(SendError::Forked)
            && receiver.try_recv() == Err(RecvError::Forked)
            && receiver.recv(Wait::Block) == Err(RecvError::Forked)
            && receiver.batch(3).map(drop) == Err(RecvError::Forked)
            && receiver.sender() == Err(RecvError::Forked);
        receiver.release();
        drop((sender, receiver));
        i32::from(!refused)
    });
    assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0)));
    let (mut sender, mut receiver) =
        (sender.expect("a child took its own"), receiver.expect("a child took its own"));
    assert!(matches!(sender.receiver(), Ok(Peer::Here { .. })));
    assert_eq!(receiver.try_recv(), Ok(Some(&b"unread"[..])));
    sender.send(b"after").expect("there is room");
    assert_eq!(receiver.try_recv(), Ok(Some(&b"after"[..])));
    line.say("done");
}

#[test]
fn a_forked_child_is_refused_and_takes_nothing() {
    let name = Name::new();
    let mut parent = name.start("channel.fork", "");
    parent.hear("done");
    parent.finish();
    assert!(!name.exists());
}

#[test]
fn bad_names_and_capacities_are_refused_with_a_sentence() {
    for name in ["", ".hidden", "a/b", "with space", &"x".repeat(101)] {
        let error = Channel::named(name).sender().expect_err("it is no name");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    for capacity in [0, 1, 2048, 4095, 4097, 1 << 31, u64::MAX] {
        let error = pair(capacity).map(drop).expect_err("it is no capacity");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let error = Channel::named("windlass-none").remove().expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
