//! Full, lossy, closed: who is told what, and who holds whom up.

use super::fixture::{anonymous, blocked_by, fill, publish, small};
use super::process::{until, Actor, Line, Role, Scene, Stage};
use super::traffic::{check, Checker};
use std::time::{Duration, Instant};
use windlass::{
    BlockReason, Blocker, ErrorKind, PublishError, Publisher, Raw, RecvError, Start,
    SubscriberState, Topic, Wait,
};

pub const ROLES: &[(&str, Role)] = &[("policies.idle", idle)];

/// Subscribes and never reads. Says `ready SLOT NODE`.
fn idle(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let topic = bus.topic::<Raw>("t").open_existing().expect("the test created it");
    let subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    line.say(format_args!("ready {} {}", subscriber.slot(), bus.node()));
    line.stay();
}

/// Lets somebody subscribe who never reads; returns its slot and node too.
fn start_idle(stage: &Stage) -> (Actor, u32, u32) {
    let mut actor = stage.start("policies.idle", "");
    let ready = actor.hear("ready");
    let (slot, node) = ready.split_once(' ').expect("two numbers");
    let number = |text: &str| text.parse().expect("a number");
    (actor, number(slot), number(node))
}

#[test]
fn full_names_the_node_process_slot_and_lag_of_who_blocks() {
    for stage in [Stage::processes(), Stage::threads()] {
        let bus = stage.bus();
        let topic = small(&bus).create().expect("it is new");
        let mut brisk = topic.subscriber(Start::Latest).expect("there is a slot");
        let (mut actor, slot, node) = start_idle(&stage);
        let mut publisher = topic.publisher().expect("there is a lane");
        let mut position = 0;
        let blocker = loop {
            match publish(&mut publisher, 509) {
                Err(PublishError::Full { blocker }) => break blocker,
                published => published.expect("nothing else is in the way"),
            };
            let message = brisk.try_recv().expect("it is sound").expect("it was published");
            position = message.position();
        };
        let pid = match stage {
            Stage::Processes(_) => actor.pid(),
            Stage::Threads(_) => std::process::id(),
        };
        assert_eq!((blocker.slot, blocker.node, blocker.pid), (slot, node, pid));
        assert_eq!(blocker.reason, BlockReason::Unread);
        // It stands at the very beginning: behind the last message and at most one prologue.
        let head = position + 8 + 512;
        assert!((head - 16..=head).contains(&blocker.lag), "{head} bytes, lag {}", blocker.lag);
        let text = PublishError::Full { blocker }.to_string();
        assert!(text.contains(&format!("process {pid}")), "{text}");
        actor.finish();
        publish(&mut publisher, 509).expect("who left blocks nobody");
    }
}

#[test]
fn a_full_lane_gives_up_when_its_time_is_over() {
    let bus = anonymous();
    let topic = small(&bus).create().expect("it is new");
    let _idle = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    fill(&mut publisher);
    let patience = Duration::from_millis(30);
    for attempt in 0..2 {
        let start = Instant::now();
        let error = match attempt {
            0 => publisher.publish_timeout(&[7; 509], patience).map(drop),
            _ => publisher.loan_timeout(509, patience).map(drop),
        };
        assert!(matches!(error, Err(PublishError::Full { .. })), "{error:?}");
        assert!(start.elapsed() >= patience, "it gave up too early");
    }
}

#[test]
fn info_says_whom_a_publisher_waits_for_and_only_while_it_waits() {
    let bus = anonymous();
    let topic = small(&bus).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    fill(&mut publisher);
    let waiting = std::thread::spawn(move || {
        publisher.publish(&[7; 509]).expect("the subscriber reads in the end");
        publisher
    });
    until("the publisher waits", || blocked_by(&topic) == Some(subscriber.slot()));
    while subscriber.try_recv().expect("it is sound").is_some() {}
    let mut publisher = waiting.join().expect("it published");
    assert_eq!(blocked_by(&topic), None);

    // The same for a publisher that does not wait, but asks and goes away.
    fill(&mut publisher);
    while subscriber.try_recv().expect("it is sound").is_some() {}
    publish(&mut publisher, 509).expect("there is room");
    assert_eq!(blocked_by(&topic), None);
    assert!(topic.info().expect("it is sound").publishers[0].full >= 2);
}

#[test]
fn a_publisher_without_subscribers_is_never_held_up() {
    for lossy in [false, true] {
        let bus = anonymous();
        let builder = small(&bus);
        let builder = if lossy { builder.lossy() } else { builder.reliable() };
        let topic = builder.create().expect("it is new");
        let mut publisher = topic.publisher().expect("there is a lane");
        for _ in 0..1000 {
            publish(&mut publisher, 509).expect("nobody is there to wait for");
        }
        let info = topic.info().expect("it is sound");
        assert_eq!((info.publishers[0].full, info.wakes), (0, 0));
        let mut late = topic.subscriber(Start::Oldest).expect("there is a slot");
        let mut number = info.publishers[0].oldest;
        assert!(number > 900 && number < 1000, "some of them are retained");
        while let Some(message) = late.try_recv().expect("it is sound") {
            check(message.bytes(), 0, number);
            number += 1;
        }
        assert_eq!(number, 1000);
    }
}

#[test]
fn an_overtaken_subscriber_is_told_exactly_what_it_missed() {
    let bus = anonymous();
    let topic = small(&bus).lossy().create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut checker = Checker::new(&topic);
    let (mut published, mut gaps) = (0, 0);
    // Bursts of every length: shorter than a segment, than the lane, and much longer.
    for burst in [3, 100, 7, 20, 400, 1, 0, 33, 1000] {
        for _ in 0..burst {
            publish(&mut publisher, 300).expect("a lossy topic has room");
            published += 1;
        }
        loop {
            match subscriber.try_recv() {
                Ok(Some(message)) => checker.take(&message),
                Ok(None) => break,
                Err(RecvError::Lagged { missed }) => {
                    gaps += 1;
                    checker.lag(missed);
                }
                Err(error) => panic!("{error}"),
            }
        }
        let (received, missed) = checker.finish();
        assert_eq!(received + missed, published, "after a burst of {burst}");
    }
    assert!(gaps >= 3, "the long bursts overtake");
}

#[test]
fn lagged_is_told_apart_from_empty_and_from_closed() {
    let bus = anonymous();
    let topic = small(&bus).lossy().create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    assert!(matches!(subscriber.try_recv(), Ok(None)), "nothing yet");
    for _ in 0..200 {
        publish(&mut publisher, 509).expect("a lossy topic has room");
    }
    topic.close();
    let (mut received, mut missed) = (0, 0);
    let end = loop {
        match subscriber.try_recv() {
            Ok(Some(_)) => received += 1,
            Err(RecvError::Lagged { missed: more }) => missed += more,
            other => break other,
        }
    };
    assert_eq!(end.map(drop), Err(RecvError::Closed), "closed comes last");
    assert!(missed > 0 && received + missed == 200);
    assert!(matches!(subscriber.recv(Wait::Block), Ok(None)));
}

/// A subscriber that stands still keeps the segment that it stands in, as a view would. With more
/// segments than that a lossy publisher goes on.
#[test]
fn a_lossy_publisher_overtakes_subscribers_that_stand_still() {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = small(&bus).lossy().create().expect("it is new");
    let mut idle: Vec<_> = (0..2).map(|_| start_idle(&stage)).collect();
    idle[0].0.stop();
    let mut publisher = topic.publisher().expect("there is a lane");
    for _ in 0..500 {
        publish(&mut publisher, 509).expect("a lossy topic has room");
    }
    idle[0].0.go_on();
    idle.into_iter().for_each(|(actor, ..)| actor.finish());
}

/// The price of pins: readers that stand still in every segment but one hold up even this.
#[test]
fn a_lossy_publisher_without_a_segment_left_says_who_stands_still() {
    let bus = anonymous();
    let topic = small(&bus).lossy().segments_per_lane(3).create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut first = topic.subscriber(Start::Latest).expect("there is a slot");
    (0..10).for_each(|_| assert!(publish(&mut publisher, 509).is_ok(), "there is room"));
    let second = topic.subscriber(Start::Latest).expect("there is a slot");
    let blocker = fill(&mut publisher);
    assert_eq!(blocker.reason, BlockReason::Views);
    assert!([first.slot(), second.slot()].contains(&blocker.slot));
    while !matches!(first.try_recv(), Ok(None)) {}
    publish(&mut publisher, 509).expect("one of them moved on");
}

/// Holds views until no segment can be taken; returns how many, and who is named.
fn hold_all(topic: &Topic<Raw>) -> (Vec<windlass::View<Raw>>, Publisher<Raw>, Blocker) {
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut views = Vec::new();
    let blocker = loop {
        match publish(&mut publisher, 2000) {
            Ok(_) => {}
            Err(PublishError::Full { blocker }) => break blocker,
            Err(error) => panic!("{error}"),
        }
        let message = subscriber.try_recv().expect("it is sound").expect("it was published");
        views.push(message.pin());
        assert!(views.len() < 100, "views did not hold the publisher up");
    };
    assert_eq!(blocker.slot, subscriber.slot());
    // The views, not the cursor, hold the segments.
    drop(subscriber);
    (views, publisher, blocker)
}

#[test]
fn views_of_every_segment_block_the_publisher_until_one_is_dropped() {
    for lossy in [false, true] {
        let bus = anonymous();
        let builder = small(&bus);
        let builder = if lossy { builder.lossy() } else { builder.reliable() };
        let topic = builder.create().expect("it is new");
        let (mut views, mut publisher, blocker) = hold_all(&topic);
        assert_eq!(blocker.reason, BlockReason::Views);
        assert_eq!(blocker.pid, std::process::id());
        assert_eq!(views.len(), 8, "two messages in each of four segments");
        let refused = publish(&mut publisher, 2000);
        assert!(matches!(refused, Err(PublishError::Full { .. })), "{refused:?}");
        for (number, view) in views.iter().enumerate() {
            check(view.as_bytes(), 0, number as u64);
        }
        // Both views of one segment, and not the newest, which the publisher stands in.
        views.drain(2..4);
        publish(&mut publisher, 2000).expect("one segment is free");
        publish(&mut publisher, 2000).expect("it takes two messages");
        let refused = publish(&mut publisher, 2000);
        assert!(matches!(refused, Err(PublishError::Full { .. })), "{refused:?}");
        let numbers = [0, 1, 4, 5, 6, 7];
        for (number, view) in numbers.into_iter().zip(&views) {
            check(view.as_bytes(), 0, number);
        }
        let info = topic.info().expect("it is sound");
        assert_eq!(info.subscribers[0].state, SubscriberState::Lingering);
        drop(views);
        publish(&mut publisher, 2000).expect("all of them are free");
        let info = topic.info().expect("it is sound");
        assert!(info.subscribers.is_empty(), "the slot went with the last view");
    }
}

#[test]
fn a_full_order_log_blocks_and_counts_messages() {
    let bus = anonymous();
    let builder = bus.topic::<Raw>("t").ordered().order_slots(256).publishers_max(1);
    let topic = builder.create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let blocker = fill(&mut publisher);
    assert_eq!(blocker.reason, BlockReason::Order);
    assert_eq!(blocker.slot, subscriber.slot());
    assert_eq!(blocker.lag, publisher.sequence(), "nothing was read");
    assert!((200..=256).contains(&blocker.lag));
    let mut received = 0;
    while let Some(message) = subscriber.try_recv().expect("it is sound") {
        assert_eq!(message.sequence(), received);
        received += 1;
    }
    assert_eq!(received, blocker.lag);
    publish(&mut publisher, 509).expect("there is room");
}

/// A subscriber of an ordered topic that has read everything must hold nobody up, even in a lane
/// from which it has received nothing yet.
#[test]
fn who_has_read_everything_in_order_blocks_no_lane() {
    for segments in [2, 4] {
        let bus = anonymous();
        let builder = small(&bus).ordered().segments_per_lane(segments);
        let topic = builder.create().expect("it is new");
        let mut full = topic.publisher().expect("there is a lane");
        let mut other = topic.publisher().expect("there is a second lane");
        // Every segment of the lane is used, and the newest has no room left.
        for _ in 0..segments * 2 {
            publish(&mut full, 2000).expect("nobody is there to wait for");
        }
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        for turn in 0..2 {
            publish(&mut other, 100).expect("this lane is empty");
            let message = subscriber.try_recv().expect("it is sound").expect("it is there");
            assert_eq!((message.lane(), message.sequence()), (1, u64::from(segments * 2 + turn)));
        }
        assert!(matches!(subscriber.try_recv(), Ok(None)), "it has read everything");
        publish(&mut full, 2000).expect("so nobody is behind");
        assert!(subscriber.try_recv().expect("it is sound").is_some());
    }
}

#[test]
fn a_closed_topic_refuses_publishers_and_is_drained_by_subscribers() {
    let bus = anonymous();
    let topic = small(&bus).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    (0..3).for_each(|_| assert!(publish(&mut publisher, 50).is_ok(), "there is room"));
    assert!(!topic.is_closed());
    topic.close();
    assert!(topic.is_closed() && topic.info().expect("it is sound").closed);
    assert_eq!(publisher.publish(b"late").map(drop), Err(PublishError::Closed));
    assert_eq!(publisher.try_loan(4).map(drop), Err(PublishError::Closed));
    assert_eq!(publisher.publish_batch([b"late"]), Err((0, PublishError::Closed)));
    let error = topic.publisher().map(drop).expect_err("it is closed");
    assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
    for number in 0..3 {
        let message = subscriber.recv(Wait::Block).expect("it is sound").expect("it is there");
        assert_eq!(message.sequence(), number);
    }
    assert!(matches!(subscriber.recv(Wait::Spin), Ok(None)));
    assert_eq!(subscriber.try_recv().map(drop), Err(RecvError::Closed));
    assert_eq!(subscriber.batch(3).map(drop), Err(RecvError::Closed));
    let mut late = topic.subscriber(Start::Oldest).expect("what is there can still be read");
    assert!(late.try_recv().expect("it is sound").is_some());
}

#[test]
fn closing_ends_the_wait_of_a_blocked_publisher() {
    let bus = anonymous();
    let topic = small(&bus).create().expect("it is new");
    let subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    fill(&mut publisher);
    let waiting = std::thread::spawn(move || publisher.publish(&[7; 509]).map(drop));
    until("the publisher waits", || blocked_by(&topic) == Some(subscriber.slot()));
    topic.close();
    assert_eq!(waiting.join().expect("it returns"), Err(PublishError::Closed));
}

#[test]
fn a_batch_says_how_many_were_published_before_an_error() {
    let bus = anonymous();
    let topic = small(&bus).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    assert_eq!(publisher.publish_batch([b"a".as_slice(), b"bc", b""]), Ok(3));
    let large = vec![0; publisher.payload_bytes_max() + 1];
    let (count, error) = publisher
        .publish_batch([b"d".as_slice(), large.as_slice(), b"never"])
        .expect_err("the second one is too large");
    let max = publisher.payload_bytes_max() as u64;
    assert_eq!((count, error), (1, PublishError::TooLarge { need: max + 1, max }));
    let batch: Vec<_> = subscriber.batch(10).expect("it is sound").collect();
    let bytes: Vec<_> = batch.iter().map(windlass::Message::bytes).collect();
    assert_eq!(bytes, [b"a".as_slice(), b"bc", b"", b"d"]);
}

#[test]
fn the_last_lane_and_the_last_slot_are_errors_that_say_the_limit() {
    let bus = anonymous();
    let topic = small(&bus).publishers_max(2).subscribers_max(3).create().expect("it is new");
    let publishers: Vec<_> = (0..2).map(|_| topic.publisher().expect("there is a lane")).collect();
    let error = topic.publisher().map(drop).expect_err("there is no third lane");
    assert_eq!(error.kind(), ErrorKind::Limit);
    let pid = std::process::id();
    assert!(error.to_string().contains(&format!("process {pid}, process {pid}")), "{error}");
    let slots = || topic.subscriber(Start::Latest);
    let subscribers: Vec<_> = (0..3).map(|_| slots().expect("there is a slot")).collect();
    let error = slots().map(drop).expect_err("there is no fourth slot");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("room for 3 subscribers"), "{error}");
    drop((publishers, subscribers));
    topic.publisher().expect("lanes come back");
    slots().expect("slots come back");
}
