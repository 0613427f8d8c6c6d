//! Eviction: who holds a publisher up for too long loses its backlog, is told so, and loses nothing
//! else.

use super::fixture::{anonymous, fill, publish, small};
use super::traffic::{check, message, Checker};
use std::time::{Duration, Instant};
use windlass::{ErrorKind, PublishError, RecvError, Start, SubscriberState, Wait};

#[test]
fn eviction_takes_the_backlog_and_neither_views_nor_the_slot() {
    let bus = anonymous();
    let limit = Duration::from_millis(20);
    let topic = small(&bus).evict_after(limit).subscribers_max(2).create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut stuck = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut checker = Checker::new(&topic);
    publish(&mut publisher, 509).expect("there is room");
    let first = stuck.try_recv().expect("it is sound").expect("it was published");
    checker.take(&first);
    let view = first.pin();
    fill(&mut publisher);
    let start = Instant::now();
    let payload = message(0, publisher.sequence(), 509);
    publisher.publish(&payload).expect("the subscriber is evicted in the end");
    assert!(start.elapsed() >= limit, "it was evicted too early");
    (0..50).for_each(|_| assert!(publish(&mut publisher, 509).is_ok(), "nobody blocks"));

    // What it stands in it may read; then it is told.
    let missed = loop {
        match stuck.try_recv() {
            Ok(Some(message)) => checker.take(&message),
            Err(RecvError::Evicted { missed }) => break missed,
            other => panic!("{other:?}"),
        }
    };
    let (received, _) = checker.finish();
    assert_eq!(received + missed, publisher.sequence(), "every loss is counted");
    assert_eq!(stuck.try_recv().map(drop), Err(RecvError::Evicted { missed }), "for good");
    assert_eq!(stuck.recv(Wait::Block).map(drop), Err(RecvError::Evicted { missed }));
    assert_eq!(stuck.missed(), missed);
    check(view.as_bytes(), 0, 0);

    let info = topic.info().expect("it is sound");
    assert_eq!((info.evictions, info.subscribers[0].state), (1, SubscriberState::Evicted));
    let _other = topic.subscriber(Start::Latest).expect("there is a second slot");
    let third = topic.subscriber(Start::Latest).map(drop).expect_err("the slot is not free");
    assert_eq!(third.kind(), ErrorKind::Limit, "{third}");
    drop(stuck);
    let third = topic.subscriber(Start::Latest).map(drop).expect_err("its view lives");
    assert_eq!(third.kind(), ErrorKind::Limit, "{third}");
    check(view.as_bytes(), 0, 0);
    drop(view);
    topic.subscriber(Start::Latest).expect("now it is free");
}

#[test]
fn an_evicted_subscriber_counts_lanes_that_it_never_opened() {
    let bus = anonymous();
    let topic = small(&bus).evict_after(Duration::from_millis(1)).create().expect("it is new");
    let mut stuck = topic.subscriber(Start::Latest).expect("there is a slot");
    // The lane is born after the subscriber joined, and the subscriber never looks.
    let mut publisher = topic.publisher().expect("there is a lane");
    for _ in 0..100 {
        publisher.publish(&[7; 509]).expect("the subscriber is evicted in the end");
    }
    let end = loop {
        match stuck.try_recv() {
            Ok(Some(_)) => {}
            Err(error) => break error,
            Ok(None) => panic!("an evicted subscriber is told so"),
        }
    };
    let missed = 100 - stuck.received();
    assert_eq!(end, RecvError::Evicted { missed });
}

#[test]
fn nobody_is_evicted_before_the_limit_or_without_blocking() {
    let bus = anonymous();
    let limit = Duration::from_secs(3600);
    let topic = small(&bus).evict_after(limit).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    fill(&mut publisher);
    let patience = Duration::from_millis(20);
    let refused = publisher.publish_timeout(&[7; 509], patience);
    assert!(matches!(refused, Err(PublishError::Full { .. })), "{refused:?}");
    let mut received = 0;
    while subscriber.try_recv().expect("it is sound").is_some() {
        received += 1;
    }
    assert_eq!(received, publisher.sequence());
}
