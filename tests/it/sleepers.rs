//! Consumers that sleep: one message wakes one of them, as many messages as many, and the dead are passed by.

use super::process::{scaled, until, Actor, Line, Role, Scene, Stage};
use super::queue::small;
use super::waking::{is_asleep, thread_id, woken};
use std::time::Instant;
use windlass::{Bus, Producer, Queue, Raw, Wait};

pub const ROLES: &[(&str, Role)] = &[("sleepers.work", work)];

const COUNT: usize = 4;

fn open(bus: &Bus) -> Queue<Raw> {
    bus.queue("q").open_existing().expect("the test created it")
}

/// Works until the queue is closed; keeps each message until it is told to go on. Says `ready THREAD`, `got NUMBER` and
/// `end`.
fn work(scene: &Scene, line: &mut Line) {
    let mut consumer = open(&scene.bus()).consumer().expect("there is a slot");
    line.say(format_args!("ready {}", thread_id()));
    while let Some(job) = consumer.take(Wait::Block).expect("sound") {
        line.say(format_args!("got {}", job.bytes()[0]));
        line.hear();
        job.ack().expect("it is ours");
    }
    line.say("end");
}

/// So many consumers, with their threads.
fn start(stage: &Stage, count: usize) -> (Queue<Raw>, Producer<Raw>, Vec<(Actor, String)>) {
    let queue = small(&stage.bus()).create().expect("it is new");
    let producer = queue.producer().expect("sound");
    let worker = |_| {
        let mut actor = stage.start("sleepers.work", "");
        let thread = actor.hear("ready");
        (actor, thread)
    };
    (queue, producer, (0..count).map(worker).collect())
}

fn all_asleep(workers: &[(Actor, String)]) {
    until("all of them sleep", || workers.iter().all(|(_, thread)| is_asleep(thread)));
}

fn end(queue: &Queue<Raw>, workers: Vec<(Actor, String)>) {
    queue.close();
    for (mut worker, _) in workers {
        worker.hear("end");
        worker.finish();
    }
}

#[test]
fn as_many_messages_wake_as_many_sleepers_at_once() {
    woken("as many as there are", || {
        let stage = Stage::processes();
        let (queue, mut producer, mut workers) = start(&stage, COUNT);
        let mut took = Vec::new();
        for _ in 0..scaled(40) {
            all_asleep(&workers);
            let began = Instant::now();
            // Each of them keeps what it gets, so it takes all of them.
            for number in 0..COUNT as u8 {
                producer.enqueue(&[number]).expect("there is room");
            }
            let got = workers.iter_mut().map(|(worker, _)| worker.hear_number("got"));
            let mut got: Vec<u64> = got.collect();
            took.push(began.elapsed());
            got.sort_unstable();
            assert_eq!(got, [0, 1, 2, 3]);
            workers.iter_mut().for_each(|(worker, _)| worker.say("on"));
        }
        end(&queue, workers);
        took
    });
}

#[test]
fn a_dead_sleeper_is_passed_by_at_once() {
    woken("past the dead", || {
        let round = |_| {
            let stage = Stage::processes();
            let (queue, mut producer, mut workers) = start(&stage, 2);
            all_asleep(&workers);
            // The first one asleep, and so the first one to be chosen.
            let (mut dead, _) = workers.remove(0);
            dead.kill();
            let began = Instant::now();
            producer.enqueue(&[9]).expect("there is room");
            assert_eq!(workers[0].0.hear_number("got"), 9);
            let took = began.elapsed();
            workers[0].0.say("on");
            end(&queue, workers);
            took
        };
        (0..scaled(12)).map(round).collect()
    });
}
