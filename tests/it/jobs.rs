//! Jobs: what becomes of a message that is not acknowledged, and what the options of a queue mean.

use super::process::{scaled, Actor, Den, Line, Role, Scene};
use super::queue::{assert_all_free, message, small, PATIENCE};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use windlass::schemas::tick_capnp::tick;
use windlass::{Bus, Consumer, EnqueueError, ErrorKind, Job, Raw, TakeError, Wait};

pub const ROLES: &[(&str, Role)] = &[("jobs.look", look)];

#[test]
fn a_message_that_is_never_acknowledged_is_a_dead_letter_in_the_end() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<Raw>("q").chunks(4, 64).max_deliveries(3).create().expect("new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    producer.enqueue(b"poison").expect("there is room");
    for delivery in 1..=3 {
        let job = consumer.try_take().expect("sound").expect("there is one");
        assert_eq!(job.delivery(), delivery);
        match delivery {
            1 => drop(job),
            2 => job.nack().expect("it is ours"),
            _ => job.nack_after(Duration::from_secs(3600)).expect("it is ours"),
        }
    }
    assert!(consumer.try_take().expect("it is sound").is_none());
    let mut letters = queue.dead_letters().expect("it is sound");
    for _ in 0..2 {
        let letter = letters.next_from(0).expect("sound").expect("there is one");
        assert_eq!((letter.bytes(), letter.deliveries()), (&b"poison"[..], 3));
    }
    let info = queue.info().expect("it is sound");
    assert_eq!((info.died, info.redelivered, info.classes[0].dead), (1, 2, 1), "{info:?}");
    letters.next_from(0).expect("sound").expect("there is one").revive().expect("it is ours");
    let job = consumer.try_take().expect("sound").expect("it lives again");
    assert_eq!((job.bytes(), job.delivery()), (&b"poison"[..], 1));
    job.ack().expect("it is ours");
    assert!(letters.next_from(0).expect("it is sound").is_none());
    assert_all_free(&queue);
}

#[test]
fn a_message_that_was_put_off_comes_when_it_is_due() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<Raw>("q").create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    producer.enqueue(b"later").expect("there is room");
    let delay = Duration::from_secs(1);
    let job = consumer.try_take().expect("sound").expect("there is one");
    let began = Instant::now();
    job.nack_after(delay).expect("it is ours");
    assert!(consumer.try_take().expect("it is sound").is_none());
    assert_eq!(queue.info().expect("it is sound").classes[0].later, 1);
    let job = consumer.take(Wait::For(PATIENCE)).expect("sound").expect("not closed");
    assert!(began.elapsed() >= delay && job.delivery() == 2);
    job.ack().expect("it is ours");
}

/// Looks, again and again, in one way.
type Look = fn(&mut Consumer<Raw>) -> bool;

#[test]
fn what_is_due_comes_however_one_looks() {
    let ways: [(&str, Look); 3] = [
        ("try_take", |consumer| finish(consumer.try_take().expect("it is sound"))),
        ("batch", |consumer| finish(consumer.batch(4).expect("it is sound").next())),
        ("take", |consumer| match consumer.take(Wait::For(Duration::from_micros(100))) {
            Err(TakeError::TimedOut) => false,
            job => finish(job.expect("it is sound")),
        }),
    ];
    for (way, look) in ways {
        let bus = Bus::anonymous().expect("there is memory");
        let queue = bus.queue::<Raw>("q").create().expect("it is new");
        let (mut producer, mut consumer) =
            (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
        producer.enqueue(b"later").expect("there is room");
        let job = consumer.try_take().expect("sound").expect("there is one");
        let began = Instant::now();
        job.nack_after(Duration::from_millis(20)).expect("it is ours");
        while !look(&mut consumer) {
            assert!(began.elapsed() < PATIENCE, "{way} finds nothing");
        }
    }
}

/// Acknowledges a message, if there is one.
fn finish(job: Option<Job<'_, Raw>>) -> bool {
    let found = job.is_some();
    job.map_or(Ok(()), Job::ack).expect("it is ours");
    found
}

#[test]
fn messages_are_built_and_read_in_place_whatever_they_need() {
    let bus = Bus::anonymous().expect("there is memory");
    let named = || bus.queue::<tick::Owned>("ticks").chunks(8, 256).chunks(4, 16384);
    let queue = named().create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    for number in [1, 2, 3] {
        let mut loan = producer.loan().expect("there is room");
        let mut root = loan.init_root();
        root.set_number(number);
        if number == 2 {
            // More than the loan, and more than the smaller chunks.
            root.set_symbol("x".repeat(5000));
        }
        loan.enqueue().expect("there is room");
    }
    drop(producer.loan().expect("there is room"));
    for number in [1, 2, 3] {
        let job = consumer.try_take().expect("sound").expect("there is one");
        let tick = job.get().expect("it is a tick");
        assert_eq!(tick.get_number(), number);
        let symbol = tick.get_symbol().expect("it is text");
        assert_eq!(symbol.len(), if number == 2 { 5000 } else { 0 });
        job.ack().expect("it is ours");
    }
    let mut loan = producer.loan().expect("there is room");
    loan.init_root().set_symbol("x".repeat(20_000));
    assert!(matches!(loan.enqueue(), Err(EnqueueError::TooLarge { max: 16384, .. })));
    let error = bus.queue::<Raw>("ticks").open().expect_err("it is typed");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    let info = queue.info().expect("it is sound");
    assert!(info.schema.is_some_and(|name| name.contains("Tick")));
    assert!(info.classes.iter().all(|class| class.free() == class.chunks));
}

#[test]
fn a_small_message_finds_a_small_chunk_though_large_ones_came_before() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<tick::Owned>("q").chunks(2, 256).chunks(1, 16384).create();
    let queue = queue.expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    for symbol in ["x".repeat(5000), "y".into(), "z".into()] {
        let mut loan = producer.try_loan().expect("a chunk is free");
        loan.init_root().set_symbol(&symbol);
        loan.enqueue().expect("a chunk that it fits is free");
    }
    assert!(matches!(producer.try_loan(), Err(EnqueueError::Full { .. })));
    for len in [5000, 1, 1] {
        let job = consumer.try_take().expect("sound").expect("there is one");
        assert_eq!(job.get().expect("a tick").get_symbol().expect("text").len(), len);
        job.ack().expect("it is ours");
    }
}

#[test]
fn a_closed_queue_gives_what_is_left_and_then_ends() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<Raw>("q").create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    producer.enqueue(b"last").expect("there is room");
    queue.close();
    assert_eq!(producer.enqueue(b"too late"), Err(EnqueueError::Closed));
    let job = consumer.take(Wait::Block).expect("sound").expect("one is left");
    job.ack().expect("it is ours");
    assert!(consumer.take(Wait::Block).expect("it is sound").is_none());
}

/// Looks at the queue without taking part. Says `depth DEPTH`.
fn look(scene: &Scene, line: &mut Line) {
    let info = scene.bus().inspect_queue("q").expect("the queue is sound");
    assert!(info.oldest_age.is_some());
    line.say(format_args!("depth {}", info.depth));
}

#[test]
fn a_third_process_sees_how_much_waits() {
    let den = Den::new();
    let queue = small(&den.bus()).create().expect("it is new");
    let mut producer = queue.producer().expect("it is sound");
    (0..5).for_each(|number| producer.enqueue(&message(0, number)).expect("there is room"));
    let mut actor = Actor::process(&den, "jobs.look", "");
    assert_eq!(actor.hear_number("depth"), 5);
    actor.finish();
    assert_eq!(den.bus().queues().expect("the bus is there"), ["q"]);
    den.bus().remove_queue("q").expect("it exists");
    let error = den.bus().inspect_queue("q").expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn a_message_that_comes_while_somebody_looks_is_not_older_than_all_others() {
    let bus = Bus::anonymous().expect("there is memory");
    let queue = bus.queue::<Raw>("q").chunks(1 << 16, 64).create().expect("it is new");
    let (mut producer, mut consumer) =
        (queue.producer().expect("sound"), queue.consumer().expect("a slot"));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Relaxed) {
                (0..64).for_each(|_| producer.enqueue(b"now").expect("there is room"));
                (0..64).for_each(|_| assert!(finish(consumer.try_take().expect("it is sound"))));
            }
        });
        let looks = (0..scaled(500)).map(|_| queue.info().expect("it is sound").oldest_age);
        let oldest = looks.max().flatten().unwrap_or_default();
        is_over.store(true, Relaxed);
        assert!(oldest < PATIENCE, "{oldest:?}");
    });
}

#[test]
fn the_options_of_a_queue_are_checked_and_compared() {
    let bus = Bus::anonymous().expect("there is memory");
    let named = || bus.queue::<Raw>("q");
    assert_eq!(named().open_existing().expect_err("none").kind(), ErrorKind::NotFound);
    for wrong in [
        named().chunks(0, 64),
        named().chunks(4, 128).chunks(4, 64),
        named().chunks(4, 64).chunks(4, 64),
        named().chunks(1 << 21, 64),
        named().chunks(4, u32::MAX),
        named().max_deliveries(0),
        named().max_deliveries(256),
        named().consumers_max(0),
        named().mode(0o604),
        (0..5).fold(named(), |builder, class| builder.chunks(1, 64 << class)),
    ] {
        let error = wrong.open().expect_err("it is out of range");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    named().chunks(4, 100).consumers_max(1).create().expect("it is new");
    assert_eq!(named().create().expect_err("it exists").kind(), ErrorKind::AlreadyExists);
    named().chunks(4, 128).open().expect("sizes are rounded up");
    for other in [named().chunks(8, 128), named().max_deliveries(9), named().consumers_max(2)] {
        let error = other.open().expect_err("it is another value");
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    }
    let queue = named().open().expect("it exists");
    let consumer = queue.consumer().expect("there is a slot");
    let error = queue.consumer().expect_err("there is one slot");
    assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
    drop(consumer);
    queue.consumer().expect("it is free");
    let mut producer = queue.producer().expect("it is sound");
    let too_large = Err(EnqueueError::TooLarge { need: 129, max: 128 });
    assert_eq!(producer.enqueue(&[0; 129]), too_large);
    producer.enqueue(&[7; 128]).expect("it fits");
    producer.enqueue(&[]).expect("nothing is a message, too");
}
