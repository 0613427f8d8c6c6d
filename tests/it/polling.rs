//! Consumers that wait by a descriptor: it is readable for every message, for those that the dead had and those that
//! are due, and when the queue is closed, and not for nothing.

use super::process::{scaled, until, Actor, Den, Line, Role, Scene, Stage};
use super::queue::{assert_all_free, small};
use super::waking::{is_asleep, thread_id, woken};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use windlass::{Bus, Consumer, Queue, Raw, TakeError, Wait};

pub const ROLES: &[(&str, Role)] = &[("polling.work", work), ("polling.hold", hold)];

/// Where the ring of the queue of these tests begins in its control file, and how many slots it has.
const RING_AT: u64 = 4608 + 128 * 64;
const SLOTS: usize = 64;

/// Long enough for whoever is not held up.
const PATIENCE_MS: u16 = 30_000;

fn open(bus: &Bus) -> Queue<Raw> {
    bus.queue("q").open_existing().expect("the test created it")
}

fn is_readable(consumer: &mut Consumer<Raw>, limit: PollTimeout) -> bool {
    let descriptor = consumer.descriptor().expect("there are descriptors");
    let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
    poll(&mut wanted, limit).expect("polling works") == 1
}

/// Takes what is there; the deliveries of each.
fn take_all(consumer: &mut Consumer<Raw>) -> Vec<u32> {
    let mut all = Vec::new();
    while let Some(job) = consumer.try_take().expect("sound") {
        all.push(job.delivery());
        job.ack().expect("it is ours");
    }
    all
}

/// Waits until there is a message; looks that find nothing are no harm. The deliveries of what there was.
fn wait_for_some(consumer: &mut Consumer<Raw>) -> Vec<u32> {
    loop {
        assert!(is_readable(consumer, PATIENCE_MS.into()));
        let found = take_all(consumer);
        if !found.is_empty() {
            return found;
        }
    }
}

/// Looks until the descriptor says that nothing is there.
fn drain(consumer: &mut Consumer<Raw>) -> usize {
    let (mut count, mut vain) = (0, 0);
    while is_readable(consumer, PollTimeout::ZERO) {
        let found = take_all(consumer).len();
        count += found;
        vain += usize::from(found == 0);
        assert!(vain < 1000, "it is readable for nothing, again and again");
    }
    count
}

/// Works until the queue is closed, waiting by the descriptor only. Says `ready THREAD`, `got COUNT` for each message,
/// and `end`.
fn work(scene: &Scene, line: &mut Line) {
    let queue = open(&scene.bus());
    let mut consumer = queue.consumer().expect("there is a slot");
    line.say(format_args!("ready {}", thread_id()));
    let mut count = 0;
    loop {
        assert!(is_readable(&mut consumer, PATIENCE_MS.into()));
        for _ in take_all(&mut consumer) {
            count += 1;
            line.say(format_args!("got {count}"));
        }
        match consumer.take(Wait::For(Duration::ZERO)) {
            Ok(None) => break,
            Ok(Some(job)) => drop(job),
            Err(error) => assert_eq!(error, TakeError::TimedOut),
        }
    }
    line.say("end");
}

/// Takes a message and keeps it. Says `held`.
fn hold(scene: &Scene, line: &mut Line) {
    let mut consumer = open(&scene.bus()).consumer().expect("there is a slot");
    let job = consumer.take(Wait::Block).expect("sound").expect("not closed");
    line.say("held");
    line.stay();
    drop(job);
}

#[test]
fn who_waits_by_a_descriptor_is_woken_for_every_message_and_by_the_end() {
    for stage in [Stage::processes, Stage::threads] {
        woken("by a descriptor", || {
            let stage = stage();
            let queue = small(&stage.bus()).create().expect("it is new");
            let mut producer = queue.producer().expect("sound");
            let mut worker = stage.start("polling.work", "");
            let thread = worker.hear("ready");
            let mut took = Vec::new();
            for round in 0..scaled(100) {
                until("it sleeps", || is_asleep(&thread));
                let start = Instant::now();
                producer.enqueue(&round.to_le_bytes()).expect("there is room");
                assert_eq!(worker.hear_number("got"), round + 1);
                took.push(start.elapsed());
            }
            queue.close();
            worker.hear("end");
            worker.finish();
            assert_all_free(&queue);
            took
        });
    }
}

#[test]
fn a_descriptor_is_not_readable_for_nothing() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = small(&bus).create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    assert_eq!(drain(&mut consumer), 0);
    for round in 1..=scaled(200) {
        let count = 1 + round % 3;
        (0..count).for_each(|_| producer.enqueue(b"x").expect("there is room"));
        assert_eq!(wait_for_some(&mut consumer).len() + drain(&mut consumer), count as usize);
        // Every look of a batch that finds nothing says so as well.
        producer.enqueue(b"y").expect("there is room");
        assert!(is_readable(&mut consumer, PATIENCE_MS.into()));
        let batch = consumer.batch(8).expect("sound");
        assert_eq!(batch.map(|job| job.ack().expect("it is ours")).count(), 1);
        assert_eq!(drain(&mut consumer), 0);
    }
    let nothing = is_readable(&mut consumer, PollTimeout::from(120u16));
    assert!(!nothing, "neither the thread nor anybody else has anything to say");
}

#[test]
fn a_descriptor_is_readable_for_what_the_dead_had() {
    let den = Den::new();
    let queue = small(&den.bus()).create().expect("it is new");
    queue.producer().expect("sound").enqueue(b"x").expect("there is room");
    let mut holder = Actor::process(&den, "polling.hold", "");
    holder.hear("held");
    let mut consumer = queue.consumer().expect("a slot");
    assert_eq!(drain(&mut consumer), 0, "the living keep what they have");
    holder.kill();
    // Nobody else is there to heal.
    assert_eq!(wait_for_some(&mut consumer), [2]);
    assert_all_free(&queue);
}

#[test]
fn a_descriptor_is_readable_for_what_is_due() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = small(&bus).create().expect("it is new");
    queue.producer().expect("sound").enqueue(b"x").expect("there is room");
    let mut consumer = queue.consumer().expect("a slot");
    let job = consumer.try_take().expect("sound").expect("it waits");
    job.nack_after(Duration::from_millis(30)).expect("it is ours");
    assert_eq!(wait_for_some(&mut consumer), [2]);
}

#[test]
fn a_descriptor_is_readable_for_a_message_without_an_entry() {
    let den = Den::new();
    let bus = den.bus();
    let queue = small(&bus).create().expect("it is new");
    queue.producer().expect("sound").enqueue(b"x").expect("there is room");
    let mut consumer = queue.consumer().expect("a slot");
    // What a living producer leaves that is stopped before it makes the entry: the ring as it was, and nothing placed.
    let path = bus.path().join("q.queue/control");
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is ours");
    let zeroes = |at: u64, words: usize| {
        file.write_all_at(&vec![0; 8 * words], at).expect("it is there");
    };
    zeroes(RING_AT, 1);
    zeroes(RING_AT + 128, 1);
    zeroes(RING_AT + 256, SLOTS);
    (0..20).for_each(|chunk| zeroes(RING_AT + 256 + 8 * SLOTS as u64 + 128 * chunk + 64, 1));
    assert_eq!(wait_for_some(&mut consumer), [1]);
    assert_all_free(&queue);
}
