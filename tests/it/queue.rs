//! Work queues: every message goes to one consumer, and to another one if the first does not acknowledge it; between
//! threads and between processes, whoever is killed or stopped.

use super::process::{scaled, until, Actor, Den, Line, Role, Scene, Stage};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use windlass::{Bus, EnqueueError, Queue, QueueBuilder, Raw, TakeError, Wait};

pub const ROLES: &[(&str, Role)] = &[
    ("queue.give", give),
    ("queue.work", work),
    ("queue.hold", hold),
    ("queue.give_noting", give_noting),
    ("queue.work_noting", work_noting),
];

/// Long enough for whoever is not held up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time until a message of the dead is delivered again.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

pub fn small(bus: &Bus) -> QueueBuilder<Raw> {
    bus.queue("q").chunks(16, 64).chunks(4, 1024).max_deliveries(200)
}

fn open(bus: &Bus) -> Queue<Raw> {
    bus.queue("q").open_existing().expect("the test created it")
}

/// Message `number` of producer `id`: sixteen bytes and a pattern, of a size of its own.
pub fn message(id: u64, number: u64) -> Vec<u8> {
    let len = 16 + if number % 7 == 6 { 100 + number % 800 } else { number % 48 } as usize;
    let mut bytes = vec![(id * 31 + number) as u8; len];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Who sent these bytes, and under which number, if they are whole.
fn check(bytes: &[u8]) -> (u64, u64) {
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    let (id, number) = (word(0), word(8));
    assert_eq!(bytes, message(id, number), "a message is torn");
    (id, number)
}

/// Enters `count` messages as producer `id`; some through loans, some after a loan that was dropped. Says `done`.
fn give(scene: &Scene, line: &mut Line) {
    let mut producer = open(&scene.bus()).producer().expect("the queue is sound");
    let id = scene.number("id");
    for number in 0..scene.number("count") {
        let bytes = message(id, number);
        match number % 3 {
            0 => producer.enqueue_timeout(&bytes, PATIENCE).expect("there is room in time"),
            rest => {
                if rest == 1 {
                    drop(producer.loan_timeout(bytes.len(), PATIENCE).expect("room in time"));
                }
                let space = if bytes.len() > 64 { 1024 } else { 64 };
                let mut loan = producer.loan_timeout(space, PATIENCE).expect("room in time");
                loan[..bytes.len()].copy_from_slice(&bytes);
                loan.enqueue_len(bytes.len()).expect("it is sound");
            }
        }
    }
    line.say("done");
}

/// Takes until the queue is closed, gives some back at first, and notes what it acknowledged. Says `done`.
fn work(scene: &Scene, line: &mut Line) {
    let mut consumer = open(&scene.bus()).consumer().expect("there is a slot");
    let wait = match scene.text("wait") {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        _ => Wait::Block,
    };
    let mut done = Vec::new();
    loop {
        let Some(job) = consumer.take(wait).expect("it is sound") else { break };
        let (id, number) = check(job.bytes());
        match (number % 50, job.delivery()) {
            (0, 1) => job.nack().expect("it is ours"),
            (1, 1) => drop(job),
            (2, 1) => job.nack_after(Duration::from_millis(2)).expect("it is ours"),
            _ => {
                job.ack().expect("it is ours");
                done.extend([id, number]);
            }
        }
        let batch = consumer.batch(3).expect("it is sound");
        let jobs: Vec<_> = batch.collect();
        for job in jobs {
            let (id, number) = check(job.bytes());
            job.ack().expect("it is ours");
            done.extend([id, number]);
        }
    }
    let bytes: Vec<u8> = done.iter().flat_map(|word| word.to_le_bytes()).collect();
    std::fs::write(scene.text("note"), bytes).expect("there is room for a note");
    line.say("done");
}

/// The messages that a consumer noted.
fn noted(path: &str) -> Vec<(u64, u64)> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(16).map(|pair| (word(&pair[..8]), word(&pair[8..]))).collect()
}

pub fn assert_all_free(queue: &Queue<Raw>) {
    let info = queue.info().expect("it is sound");
    assert_eq!((info.depth, info.in_flight.len()), (0, 0), "{info:?}");
    for class in info.classes {
        assert_eq!(class.free(), class.chunks, "{class:?}");
    }
}

fn all_to_all(stage: &Stage, build: fn(&Bus) -> QueueBuilder<Raw>, producers: u64, waits: &[&str]) {
    let folder = Den::new();
    let note = |index: usize| folder.path().join(format!("note-{index}")).display().to_string();
    let queue = build(&stage.bus()).create().expect("it is new");
    let count = scaled(3000);
    let workers = waits.iter().enumerate().map(|(index, wait)| {
        stage.start("queue.work", &format!("wait={wait} note={}", note(index)))
    });
    let mut workers: Vec<_> = workers.collect();
    let mut givers: Vec<_> = (0..producers)
        .map(|id| stage.start("queue.give", &format!("id={id} count={count}")))
        .collect();
    givers.iter_mut().for_each(|giver| drop(giver.hear("done")));
    until("everything is acknowledged", || {
        let info = queue.info().expect("it is sound");
        info.classes.iter().all(|class| class.free() == class.chunks)
    });
    queue.close();
    workers.iter_mut().for_each(|worker| drop(worker.hear("done")));
    givers.into_iter().chain(workers).for_each(Actor::finish);
    let mut all: Vec<_> = (0..waits.len()).flat_map(|index| noted(&note(index))).collect();
    all.sort_unstable();
    let expected = (0..producers).flat_map(|id| (0..count).map(move |number| (id, number)));
    assert!(all.iter().copied().eq(expected), "{} messages were acknowledged", all.len());
    assert_all_free(&queue);
    let info = queue.info().expect("it is sound");
    assert!(info.redelivered >= count / 50, "{info:?}");
    assert_eq!(info.died, 0, "{info:?}");
}

#[test]
fn every_message_is_acknowledged_once_by_one_of_three_threads() {
    all_to_all(&Stage::threads(), small, 3, &["spin", "yield", "block"]);
}

#[test]
fn every_message_is_acknowledged_once_by_one_of_three_processes() {
    all_to_all(&Stage::processes(), small, 3, &["block", "yield", "block"]);
}

#[test]
fn one_chunk_is_enough_for_two_and_two() {
    let one = |bus: &Bus| bus.queue("q").chunks(1, 1024).max_deliveries(200);
    all_to_all(&Stage::processes(), one, 2, &["block", "yield"]);
}

#[test]
fn one_consumer_gets_messages_in_the_order_in_which_they_were_entered() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<Raw>("q").chunks(8, 64).create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    let count = scaled(20_000);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..count {
                producer.enqueue_timeout(&number.to_le_bytes(), PATIENCE).expect("room in time");
            }
        });
        for number in 0..count {
            let job = consumer.take(Wait::For(PATIENCE)).expect("sound").expect("not closed");
            assert_eq!((job.bytes(), job.delivery()), (&number.to_le_bytes()[..], 1));
            job.ack().expect("it is ours");
        }
    });
}

/// Takes so many messages and holds them. Says `held NODE` and stays.
fn hold(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let mut consumer = open(&bus).consumer().expect("there is a slot");
    let batch = consumer.batch(scene.number("count") as usize).expect("it is sound");
    let jobs: Vec<_> = batch.collect();
    assert_eq!(jobs.len() as u64, scene.number("count"));
    line.say(format_args!("held {}", bus.node()));
    line.stay();
}

#[test]
fn what_a_killed_consumer_had_is_delivered_to_another_at_once_and_says_so() {
    let den = Den::new();
    let queue = small(&den.bus()).create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    for number in 0..3 {
        producer.enqueue(&message(0, number)).expect("there is room");
    }
    let mut holder = Actor::process(&den, "queue.hold", "count=2");
    let node = holder.hear_number("held") as u32;
    let info = queue.info().expect("it is sound");
    assert_eq!((info.depth, info.in_flight.len()), (1, 1), "{info:?}");
    let flight = info.in_flight[0];
    assert_eq!((flight.node, flight.taken, flight.alive), (node, 2, true));
    let last = consumer.take(Wait::Block).expect("sound").expect("not closed");
    assert_eq!((check(last.bytes()), last.delivery()), ((0, 2), 1));
    last.ack().expect("it is ours");
    // A stopped one keeps what it has.
    holder.stop();
    let nothing = consumer.take(Wait::For(Duration::from_millis(100)));
    assert_eq!(nothing.err(), Some(TakeError::TimedOut));
    holder.kill();
    let killed = Instant::now();
    for number in 0..2 {
        let job = consumer.take(Wait::Block).expect("sound").expect("not closed");
        assert_eq!((check(job.bytes()), job.delivery()), ((0, number), 2));
        job.ack().expect("it is ours");
    }
    assert!(killed.elapsed() < RECOVERY_MAX, "{:?}", killed.elapsed());
    assert_all_free(&queue);
}

#[test]
fn a_producer_that_is_hindered_by_the_dead_goes_on() {
    let den = Den::new();
    let queue = den.bus().queue::<Raw>("q").chunks(2, 64).max_deliveries(1).create().expect("new");
    let mut producer = queue.producer().expect("it is sound");
    producer.enqueue(&message(0, 0)).expect("there is room");
    producer.enqueue(&message(0, 1)).expect("there is room");
    let mut holder = Actor::process(&den, "queue.hold", "count=1");
    holder.hear_number("held");
    match producer.try_enqueue(&message(0, 2)) {
        Err(EnqueueError::Full { class }) => {
            assert_eq!((class.chunks, class.ready, class.taken, class.free()), (2, 1, 1, 0));
        }
        other => panic!("{other:?}"),
    }
    holder.kill();
    // It was the last delivery: what the dead had is a dead letter, which takes its chunk.
    let killed = Instant::now();
    let error = loop {
        let error = producer.try_enqueue(&message(0, 2)).expect_err("no chunk is free");
        if matches!(error, EnqueueError::Full { class } if class.dead == 1) {
            break error;
        }
        assert!(killed.elapsed() < RECOVERY_MAX, "{error}");
    };
    assert!(error.to_string().contains("1 are dead letters"), "{error}");
    let mut letters = queue.dead_letters().expect("it is sound");
    let letter = letters.next_from(0).expect("sound").expect("there is one");
    assert_eq!((check(letter.bytes()), letter.deliveries()), ((0, 0), 1));
    letter.discard().expect("it is ours");
    producer.try_enqueue(&message(0, 2)).expect("its chunk is free");
}

/// Enters messages for as long as it lives, and notes what it tried and what it did.
fn give_noting(scene: &Scene, line: &mut Line) {
    let mut producer = open(&scene.bus()).producer().expect("the queue is sound");
    let id = scene.number("id");
    let note = File::create(scene.text("note")).expect("there is room for a note");
    line.say("ready");
    for number in 1u64.. {
        note.write_all_at(&number.to_le_bytes(), 0).expect("there is room for a note");
        let bytes = message(id, number);
        producer.enqueue_timeout(&bytes, PATIENCE).expect("there is room in time");
        note.write_all_at(&number.to_le_bytes(), 8).expect("there is room for a note");
    }
}

/// Works for as long as it lives, and notes each message before it acknowledges it.
fn work_noting(scene: &Scene, line: &mut Line) {
    let mut consumer = open(&scene.bus()).consumer().expect("there is a slot");
    let mut note = File::create(scene.text("note")).expect("there is room for a note");
    line.say("ready");
    while let Some(job) = consumer.take(Wait::Block).expect("it is sound") {
        let (id, number) = check(job.bytes());
        let mut words = [0; 24];
        words[..8].copy_from_slice(&id.to_le_bytes());
        words[8..16].copy_from_slice(&number.to_le_bytes());
        words[16..].copy_from_slice(&u64::from(job.delivery()).to_le_bytes());
        note.write_all(&words).expect("there is room for a note");
        job.ack().expect("it is ours");
    }
}

/// What a worker noted: message and delivery.
fn worked(path: &str) -> Vec<[u64; 3]> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let words = |row: &[u8]| [word(&row[..8]), word(&row[8..16]), word(&row[16..])];
    bytes.chunks_exact(24).map(words).collect()
}

#[test]
fn whoever_is_killed_loses_nothing_and_holds_nobody_up() {
    let (den, kills) = (Den::new(), scaled(24));
    let bus = den.bus();
    let queue = small(&bus).create().expect("it is new");
    let path =
        |what: &str, index: u64| den.path().join(format!("{what}-{index}")).display().to_string();
    let start = |index: u64| {
        let producer = format!("id={index} note={}", path("give", index));
        let consumer = format!("note={}", path("work", index));
        let mut pair = [
            Actor::process(&den, "queue.give_noting", &producer),
            Actor::process(&den, "queue.work_noting", &consumer),
        ];
        pair.iter_mut().for_each(|actor| drop(actor.hear("ready")));
        pair
    };
    let mut next = start(0);
    for kill in 0..kills {
        let mut victims = std::mem::replace(&mut next, start(kill + 1));
        if kill % 3 == 0 {
            victims.iter_mut().for_each(Actor::stop);
        }
        let others = path("work", kill + 1);
        let before = worked(&others).len();
        until("somebody else works", || worked(&others).len() > before + 20);
        victims.iter_mut().for_each(Actor::kill);
    }
    next.iter_mut().for_each(Actor::kill);
    bus.repair().expect("it is sound");
    let mut consumer = queue.consumer().expect("there is a slot");
    let mut all: Vec<[u64; 3]> =
        (0..kills + 1).flat_map(|index| worked(&path("work", index))).collect();
    while let Some(job) = consumer.try_take().expect("it is sound") {
        let (id, number) = check(job.bytes());
        all.push([id, number, job.delivery().into()]);
        job.ack().expect("it is ours");
    }
    let mut times = BTreeMap::<(u64, u64), Vec<u64>>::new();
    for [id, number, delivery] in all {
        times.entry((id, number)).or_default().push(delivery);
    }
    for (message, deliveries) in &mut times {
        deliveries.sort_unstable();
        // A second time only after a death, and it says so.
        assert!(deliveries.windows(2).all(|pair| pair[0] < pair[1]), "{message:?}: {deliveries:?}");
    }
    for id in 0..kills + 1 {
        let note = std::fs::read(path("give", id)).unwrap_or_default();
        let word = |at: usize| {
            note.get(at..at + 8)
                .map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")))
        };
        let (tried, entered) = (word(0), word(8));
        let lost: Vec<_> =
            (1..=entered).filter(|number| !times.contains_key(&(id, *number))).collect();
        assert!(lost.is_empty(), "producer {id} entered {entered}, and {lost:?} are lost");
        let last = times.range((id, 0)..(id + 1, 0)).next_back();
        assert!(last.is_none_or(|((_, number), _)| *number <= tried), "{id}: {last:?} {tried}");
    }
    let doubled = times.values().filter(|deliveries| deliveries.len() > 1).count() as u64;
    assert!(doubled <= kills + 1, "{doubled} messages were worked on twice");
    assert_all_free(&queue);
    assert_eq!(bus.repair().expect("it is sound"), Default::default(), "nothing is left");
}
