//! Waking: who sleeps is woken by the next message, and by the end.
//!
//! A sleeper looks again after 50 ms whatever happens, so a lost wake-up does not hang: it shows as
//! a round that takes tens of milliseconds. Rounds are therefore timed against that fallback, with
//! room for a busy machine: the median must be far below it, and rounds near it must be rare.

use super::process::{scaled, until, Actor, Line, Role, Scene, Stage, SILENCE_MAX};
use std::time::{Duration, Instant};
use windlass::{Bus, Publisher, Raw, RecvError, Start, Subscriber, Topic, Wait};

pub const ROLES: &[(&str, Role)] =
    &[("waking.echo", echo), ("waking.ping", ping), ("waking.waiter", waiter)];

/// After this long a sleeper looks again by itself.
const FALLBACK: Duration = Duration::from_millis(50);

fn topic(bus: &Bus, name: &str) -> Topic<Raw> {
    bus.topic(name).segment_bytes(4096).open().expect("it opens")
}

fn ends(bus: &Bus, out: &str, back: &str) -> (Publisher<Raw>, Subscriber<Raw>) {
    let subscriber = topic(bus, back).subscriber(Start::Latest).expect("there is a slot");
    (topic(bus, out).publisher().expect("there is a lane"), subscriber)
}

fn receive(subscriber: &mut Subscriber<Raw>, wait: Wait) -> Option<Vec<u8>> {
    let message = subscriber.recv(wait).expect("it is sound");
    message.map(|message| message.bytes().to_vec())
}

/// The thread of this process that plays the role, for `is_asleep`.
pub fn thread_id() -> nix::unistd::Pid {
    nix::unistd::gettid()
}

/// Answers everything with the same bytes, blocking in between. Says `ready THREAD`.
fn echo(scene: &Scene, line: &mut Line) {
    let (mut publisher, mut subscriber) = ends(&scene.bus(), "pong", "ping");
    line.say(format_args!("ready {}", thread_id()));
    while let Some(bytes) = receive(&mut subscriber, Wait::Block) {
        publisher.publish(&bytes).expect("there is room");
    }
}

/// Sends `rounds` messages, each after the answer to the one before. Says `took MICROSECONDS …`.
fn ping(scene: &Scene, line: &mut Line) {
    let (mut publisher, mut subscriber) = ends(&scene.bus(), "ping", "pong");
    line.say("ready");
    line.hear();
    let mut took = Vec::new();
    for round in 0..scene.number("rounds") {
        let start = Instant::now();
        publisher.publish(&round.to_le_bytes()).expect("there is room");
        let answer = receive(&mut subscriber, Wait::Block).expect("it is not closed");
        took.push(start.elapsed().as_micros().to_string());
        assert_eq!(answer, round.to_le_bytes());
    }
    line.say(format_args!("took {}", took.join(" ")));
}

/// Waits for messages, as `wait` says, until the topic is closed. Says `ready THREAD`, `got COUNT`
/// for each and `end`.
fn waiter(scene: &Scene, line: &mut Line) {
    let mut subscriber =
        topic(&scene.bus(), "t").subscriber(Start::Latest).expect("there is a slot");
    line.say(format_args!("ready {}", thread_id()));
    let mut count = 0;
    while receive(&mut subscriber, Wait::Block).is_some() {
        count += 1;
        line.say(format_args!("got {count}"));
    }
    line.say("end");
}

/// Whether a thread is asleep in the kernel.
pub fn is_asleep(thread: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{thread}/stat"));
    let stat = stat.expect("the participant lives");
    stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('S'))
}

/// Whether the rounds look as if every wake-up arrived.
fn in_time(what: &str, mut took: Vec<Duration>) -> Result<(), String> {
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() - 1) * percent / 100];
    let slow = took.iter().filter(|time| **time > FALLBACK * 4 / 5).count();
    let found = format!("{what}: median {:?}, 99 % {:?}, {slow} near the fallback", at(50), at(99));
    println!("{found}");
    let few = slow <= 2 + took.len() / 25;
    if at(50) < FALLBACK / 5 && few {
        Ok(())
    } else {
        Err(found)
    }
}

/// Fails if the rounds look as if wake-ups had been lost each time that they are repeated: on a busy machine a core
/// comes late now and then, a wake-up that is lost by the protocol is lost every time.
pub fn woken(what: &str, rounds: impl Fn() -> Vec<Duration>) {
    let tried: Vec<String> = (0..8).map_while(|_| in_time(what, rounds()).err()).collect();
    assert!(tried.len() < 8, "{tried:#?}");
}

/// The stages, to be set up anew for each try.
const STAGES: [fn() -> Stage; 2] = [Stage::processes, Stage::threads];

#[test]
fn two_processes_that_block_wake_each_other_every_time() {
    for stage in STAGES {
        woken("ping-pong", || {
            let stage = stage();
            let mut answering = stage.start("waking.echo", "");
            answering.hear("ready");
            let mut asking = stage.start("waking.ping", &format!("rounds={}", scaled(1500)));
            asking.hear("ready");
            asking.say("go");
            let took = asking.hear("took");
            let time = |text: &str| Duration::from_micros(text.parse().expect("a number"));
            asking.finish();
            topic(&stage.bus(), "ping").close();
            answering.finish();
            took.split(' ').map(time).collect()
        });
    }
}

#[test]
fn who_is_fast_asleep_is_woken_every_time() {
    for stage in STAGES {
        woken("asleep", || {
            let stage = stage();
            let bus = stage.bus();
            let mut answering = stage.start("waking.echo", "");
            let thread = answering.hear("ready");
            let (mut publisher, mut subscriber) = ends(&bus, "ping", "pong");
            let mut took = Vec::new();
            let rounds = scaled(100);
            for round in 0..rounds {
                until("it sleeps", || is_asleep(&thread));
                let start = Instant::now();
                publisher.publish(&round.to_le_bytes()).expect("there is room");
                let answer = receive(&mut subscriber, Wait::Spin).expect("it is not closed");
                took.push(start.elapsed());
                assert_eq!(answer, round.to_le_bytes());
            }
            let wakes = topic(&bus, "ping").info().expect("it is sound").wakes;
            assert!(wakes >= rounds / 2, "{wakes} wakes in {rounds} rounds: hardly anybody slept");
            topic(&bus, "ping").close();
            answering.finish();
            took
        });
    }
}

/// Messages that come at any instant between the last look of a subscriber and its sleep.
#[test]
fn a_message_that_races_with_falling_asleep_is_not_slept_through() {
    woken("racing", race_with_falling_asleep);
}

fn race_with_falling_asleep() -> Vec<Duration> {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let (mut publisher, mut back) = ends(&bus, "ping", "pong");
    let (mut answer, mut subscriber) = ends(&bus, "pong", "ping");
    let echo = std::thread::spawn(move || {
        while let Some(bytes) = receive(&mut subscriber, Wait::Block) {
            answer.publish(&bytes).expect("there is room");
        }
    });
    let mut took = Vec::new();
    for round in 0..scaled(2000) {
        // It looks for some tens of microseconds before it sleeps; this walks over all of that.
        let pause = Duration::from_nanos(round * 7919 % 400_000);
        let start = Instant::now();
        while start.elapsed() < pause {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        publisher.publish(&round.to_le_bytes()).expect("there is room");
        receive(&mut back, Wait::Yield).expect("it is not closed");
        took.push(start.elapsed());
    }
    topic(&bus, "ping").close();
    echo.join().expect("it ends with the topic");
    took
}

fn start_waiters(stage: &Stage, count: usize) -> Vec<(Actor, String)> {
    let start = |_| {
        let mut actor = stage.start("waking.waiter", "");
        let thread = actor.hear("ready");
        (actor, thread)
    };
    (0..count).map(start).collect()
}

#[test]
fn every_sleeper_is_woken_by_any_publisher() {
    for stage in STAGES {
        woken("four sleepers", || {
            let stage = stage();
            let bus = stage.bus();
            topic(&bus, "t");
            let mut waiters = start_waiters(&stage, 4);
            let mut publishers: Vec<Publisher<Raw>> = Vec::new();
            let mut took = Vec::new();
            for round in 0..usize::try_from(scaled(60)).expect("small") {
                // The first messages come from lanes that are born while everybody sleeps.
                if round < 3 {
                    publishers.push(topic(&bus, "t").publisher().expect("there is a lane"));
                }
                until("all of them sleep", || waiters.iter().all(|(_, thread)| is_asleep(thread)));
                let start = Instant::now();
                let publisher = round % publishers.len();
                publishers[publisher].publish(b"wake").expect("there is room");
                for (waiter, _) in &mut waiters {
                    assert_eq!(waiter.hear_number("got"), round as u64 + 1);
                }
                took.push(start.elapsed());
            }
            topic(&bus, "t").close();
            for (mut waiter, _) in waiters {
                waiter.hear("end");
                waiter.finish();
            }
            took
        });
    }
}

#[test]
fn closing_wakes_everybody_who_sleeps() {
    for stage in STAGES {
        woken("closed", || {
            let stage = stage();
            let bus = stage.bus();
            let closed = |_| {
                topic(&bus, "t");
                let mut waiters = start_waiters(&stage, 3);
                until("all of them sleep", || waiters.iter().all(|(_, thread)| is_asleep(thread)));
                let start = Instant::now();
                topic(&bus, "t").close();
                waiters.iter_mut().for_each(|(waiter, _)| drop(waiter.hear("end")));
                let took = start.elapsed();
                waiters.into_iter().for_each(|(waiter, _)| waiter.finish());
                bus.remove_topic("t").expect("it exists");
                took
            };
            (0..scaled(9)).map(closed).collect()
        });
    }
}

#[test]
fn a_wait_with_a_limit_ends_when_its_time_is_over() {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let topic = topic(&bus, "t");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    for limit in [0, 1, 20, 70, 130].map(Duration::from_millis) {
        let start = Instant::now();
        let ended = subscriber.recv(Wait::For(limit)).map(drop);
        let time = start.elapsed();
        assert_eq!(ended, Err(RecvError::TimedOut));
        assert!(time >= limit, "it gave up after {time:?} of {limit:?}");
        assert!(time < limit + SILENCE_MAX, "it waited {time:?} for {limit:?}");
    }
    // A limit that no clock reaches is no limit.
    let mut publisher = topic.publisher().expect("there is a lane");
    publisher.publish(b"now").expect("there is room");
    let message = subscriber.recv(Wait::For(Duration::MAX)).expect("it is sound");
    assert_eq!(message.expect("it is there").bytes(), b"now");
    let waiting = std::thread::spawn(move || {
        subscriber.recv(Wait::For(Duration::MAX)).map(|message| message.is_none())
    });
    topic.close();
    assert_eq!(waiting.join().expect("it returns"), Ok(true));
}

#[test]
fn publishers_stop_waking_a_dead_sleeper() {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = topic(&bus, "t");
    let mut waiters = start_waiters(&stage, 1);
    let (waiter, thread) = &mut waiters[0];
    until("it sleeps", || is_asleep(thread));
    waiter.kill();
    let mut publisher = topic.publisher().expect("there is a lane");
    for _ in 0..1000 {
        publisher.publish(b"nobody").expect("the dead hold nobody up");
    }
    let info = topic.info().expect("it is sound");
    assert!(info.wakes <= 2, "{} system calls for a dead sleeper", info.wakes);
}
