//! Views: a message that outlives its call is never another message, and its pin never outlives it.

use super::fixture::{anonymous, small};
use super::process::{scaled, until, EndWhenDropped, Line, Role, Scene, Stage};
use super::traffic::{self, check, message};
use bytes::Bytes;
use proptest::prelude::*;
use std::borrow::Cow;
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use windlass::{
    Bus, Publisher, Raw, RecvError, Start, StreamChunk, Subscriber, Topic, View, Wait, WeakView,
};

pub const ROLES: &[(&str, Role)] = &[("views.holder", holder)];

/// Keeps views of every tenth message, a few at a time, and looks at all of them again and again.
/// Says `ready`, and `checked COUNT` when the topic is closed.
fn holder(scene: &Scene, line: &mut Line) {
    let topic = scene.bus().topic::<Raw>("t").open_existing().expect("the test created it");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    line.say("ready");
    let (mut views, mut checked) = (Vec::<View<Raw>>::new(), 0);
    loop {
        match subscriber.recv(Wait::Block) {
            Ok(Some(message)) if message.sequence() % 10 == 0 => views.push(message.pin()),
            Ok(Some(_)) | Err(RecvError::Lagged { .. }) => {}
            Ok(None) => break,
            Err(error) => panic!("{error}"),
        }
        for view in &views {
            check(view.as_bytes(), 0, view.sequence());
            checked += 1;
        }
        if views.len() > 5 {
            views.remove(0);
        }
    }
    line.say(format_args!("checked {checked}"));
}

/// A lossy topic with one publisher and one subscriber.
fn pair(bus: &Bus) -> (Topic<Raw>, Publisher<Raw>, Subscriber<Raw>) {
    let topic = small(bus).lossy().create().expect("it is new");
    let subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let publisher = topic.publisher().expect("there is a lane");
    (topic, publisher, subscriber)
}

fn publish(publisher: &mut Publisher<Raw>) -> u64 {
    traffic::publish_next(publisher, 100, 400).sequence
}

/// Publishes the bytes and receives them as a view.
fn view_of(
    publisher: &mut Publisher<Raw>,
    subscriber: &mut Subscriber<Raw>,
    bytes: &[u8],
) -> View<Raw> {
    publisher.publish(bytes).expect("there is room");
    subscriber.try_recv().expect("it is sound").expect("it was published").pin()
}

/// Takes everything that is there.
fn drain(subscriber: &mut Subscriber<Raw>) {
    while !matches!(subscriber.try_recv(), Ok(None)) {}
}

/// Segments that the only subscriber pins, by its cursor or its views.
fn pins(topic: &Topic<Raw>) -> u64 {
    let info = topic.info().expect("it is sound");
    info.subscribers.iter().map(|subscriber| subscriber.pins).sum()
}

#[test]
fn a_view_outlives_its_message_and_any_number_of_laps() {
    let bus = anonymous();
    let (topic, mut publisher, mut subscriber) = pair(&bus);
    let first = publish(&mut publisher);
    let received = subscriber.try_recv().expect("it is sound").expect("it was published");
    let (address, view) = (received.bytes().as_ptr(), received.pin());
    assert_eq!(view.as_bytes().as_ptr(), address, "nothing was copied");
    for _ in 0..scaled(2000).max(200) {
        publish(&mut publisher);
        check(view.as_bytes(), 0, first);
        if publisher.sequence() % 7 == 0 {
            drain(&mut subscriber);
        }
    }
    let taken = topic.info().expect("it is sound").publishers[0].segments_taken;
    assert!(taken > publisher.sequence() / 20, "the lane was passed many times");
    // Nothing but the view keeps all of it.
    drop((subscriber, publisher, topic, bus));
    check(view.as_bytes(), 0, first);
    assert_eq!((view.lane(), view.sequence(), view.position()), (0, first, 16));
}

#[test]
fn views_in_one_process_hold_while_a_publisher_in_another_goes_on() {
    for stage in [Stage::processes(), Stage::threads()] {
        for lossy in [false, true] {
            let bus = stage.bus();
            let builder = small(&bus).segments_per_lane(12);
            let builder = if lossy { builder.lossy() } else { builder.reliable() };
            let topic = builder.create().expect("it is new");
            let mut holders: Vec<_> = (0..2).map(|_| stage.start("views.holder", "")).collect();
            holders.iter_mut().for_each(|holder| drop(holder.hear("ready")));
            let mut publisher = topic.publisher().expect("there is a lane");
            for _ in 0..scaled(3000) {
                publish(&mut publisher);
            }
            topic.close();
            for mut holder in holders {
                assert!(holder.hear_number("checked") > 0);
                holder.finish();
            }
            bus.remove_topic("t").expect("it exists");
        }
    }
}

#[test]
fn a_pin_goes_with_the_last_view_wherever_that_is_dropped() {
    let bus = anonymous();
    let (topic, mut publisher, mut subscriber) = pair(&bus);
    assert_eq!(pins(&topic), 0, "nothing was ever published");
    let view = view_of(&mut publisher, &mut subscriber, b"kept");
    // The cursor moves on to another segment.
    (0..20).for_each(|_| assert!(publish(&mut publisher) > 0));
    drain(&mut subscriber);
    assert_eq!(pins(&topic), 2, "the cursor and the view");
    let (clone, slice) = (view.clone(), view.slice(1..3));
    std::thread::spawn(move || drop(view)).join().expect("a view may go to another thread");
    assert_eq!(pins(&topic), 2);
    assert_eq!((clone.as_bytes(), slice.as_bytes()), (b"kept".as_slice(), b"ep".as_slice()));
    drop(clone);
    assert_eq!(pins(&topic), 2, "a slice is a view");
    std::thread::spawn(move || drop(slice)).join().expect("a slice may go to another thread");
    assert_eq!(pins(&topic), 1, "only the cursor");
}

#[test]
fn a_pin_goes_with_the_last_slice_of_bytes() {
    let bus = anonymous();
    let (topic, mut publisher, mut subscriber) = pair(&bus);
    let view = view_of(&mut publisher, &mut subscriber, b"0123456789");
    (0..20).for_each(|_| assert!(publish(&mut publisher) > 0));
    drain(&mut subscriber);
    let address = view.as_bytes().as_ptr();
    let other: Bytes = view.to_bytes();
    let bytes: Bytes = view.into_bytes();
    assert_eq!((bytes.as_ptr(), other.as_ptr()), (address, address), "nothing was copied");
    let (head, tail) = (bytes.slice(..5), bytes.slice(5..));
    drop((bytes, other));
    assert_eq!(pins(&topic), 2);
    drop(head);
    assert_eq!((tail.as_ref(), pins(&topic)), (b"56789".as_slice(), 2));
    let static_bytes: Bytes = tail.slice(1..3);
    drop(tail);
    assert_eq!(static_bytes.as_ref(), b"67");
    drop(static_bytes);
    assert_eq!(pins(&topic), 1, "only the cursor");
}

#[test]
fn many_threads_that_clone_and_drop_leave_no_pin_behind() {
    let bus = anonymous();
    let topic = small(&bus).segments_per_lane(16).lossy().create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let (senders, receivers): (Vec<_>, Vec<_>) =
        (0..3).map(|_| std::sync::mpsc::sync_channel::<View<Raw>>(2)).unzip();
    std::thread::scope(|scope| {
        for receiver in receivers {
            scope.spawn(move || {
                let mut kept = Vec::new();
                for view in receiver {
                    let clone = view.clone();
                    check(clone.as_bytes(), 0, clone.sequence());
                    kept.push(view);
                    if kept.len() > 2 {
                        kept.remove(0);
                    }
                    kept.iter().for_each(|view| check(view.as_bytes(), 0, view.sequence()));
                }
            });
        }
        for turn in 0..usize::try_from(scaled(3000)).expect("small") {
            publish(&mut publisher);
            match subscriber.try_recv() {
                Ok(Some(message)) => senders[turn % 3].send(message.pin()).expect("it listens"),
                Ok(None) | Err(RecvError::Lagged { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
        drop(senders);
    });
    assert_eq!(pins(&topic), 1, "only the cursor");
    drop(subscriber);
    assert!(topic.info().expect("it is sound").subscribers.is_empty());
}

#[test]
fn a_weak_view_gives_the_same_bytes_or_none() {
    let bus = anonymous();
    for builder in [small(&bus).lossy(), bus.topic("o").segment_bytes(4096).lossy().ordered()] {
        let topic = builder.segments_per_lane(4).create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        let mut other = topic.publisher().expect("there is a lane");
        let mut publisher = topic.publisher().expect("there is a second lane");
        // On an ordered topic sequences of the topic and of the lane differ from here on.
        other.publish(b"first").expect("there is room");
        let mut weak: Vec<(u64, WeakView<Raw>, WeakView<Raw>)> = Vec::new();
        let (mut alive, mut gone) = (0, 0);
        for _ in 0..scaled(600) {
            let number = publisher.sequence();
            publish(&mut publisher);
            loop {
                match subscriber.try_recv() {
                    Ok(Some(message)) if message.lane() == 1 => {
                        let view = message.pin();
                        weak.push((number, view.downgrade(), view.slice(3..50).downgrade()));
                    }
                    Ok(Some(_)) | Err(RecvError::Lagged { .. }) => {}
                    Ok(None) => break,
                    Err(error) => panic!("{error}"),
                }
            }
            let oldest = topic.info().expect("it is sound").publishers[1].oldest;
            for (number, whole, part) in &weak {
                let (whole, part) = (whole.upgrade(), part.upgrade());
                assert_eq!(whole.is_some(), *number >= oldest, "as long as it is retained");
                assert_eq!(whole.is_some(), part.is_some());
                match (whole, part) {
                    (Some(whole), Some(part)) => {
                        check(whole.as_bytes(), 1, *number);
                        assert_eq!(part.as_bytes(), &whole.as_bytes()[3..50]);
                        alive += 1;
                    }
                    _ => gone += 1,
                }
            }
            if weak.len() > 100 {
                weak.drain(..50);
            }
        }
        assert!(alive > 0 && gone > 0, "{alive} were there, {gone} were gone");
        assert_eq!(pins(&topic), 2, "the cursor in each of two lanes");
    }
}

/// The same while the publisher runs in another thread, so that segments are taken back during
/// the upgrade.
#[test]
fn a_weak_view_never_gives_other_bytes_to_a_racing_reader() {
    let bus = anonymous();
    let topic = small(&bus).lossy().create().expect("it is new");
    let stop = AtomicBool::new(false);
    let (mut alive, mut gone) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut publisher = topic.publisher().expect("there is a lane");
            while !stop.load(Relaxed) {
                publish(&mut publisher);
            }
        });
        let _end = EndWhenDropped(&stop);
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        for _ in 0..scaled(3000) {
            let weak = match subscriber.recv(Wait::Yield) {
                Ok(Some(message)) => message.pin().downgrade(),
                Err(RecvError::Lagged { .. }) => continue,
                other => panic!("{other:?}"),
            };
            // Moves the cursor out of the segment that the weak view means.
            for _ in 0..15 {
                if subscriber.try_recv().is_err() {
                    break;
                }
            }
            match weak.upgrade() {
                Some(view) => {
                    check(view.as_bytes(), 0, view.sequence());
                    alive += 1;
                }
                None => gone += 1,
            }
        }
    });
    assert!(alive + gone > 0);
    println!("{alive} were there, {gone} were gone");
}

#[test]
fn a_weak_view_ends_with_its_subscriber_and_its_views() {
    let bus = anonymous();
    let (topic, mut publisher, mut subscriber) = pair(&bus);
    let view = view_of(&mut publisher, &mut subscriber, b"kept");
    let (weak, again) = (view.downgrade(), view.downgrade());
    drop(subscriber);
    let second = weak.upgrade().expect("a view lives");
    drop(view);
    assert_eq!(second.as_bytes(), b"kept");
    drop(second);
    assert!(weak.upgrade().is_none() && again.clone().upgrade().is_none());
    assert!(topic.info().expect("it is sound").subscribers.is_empty(), "weak holds no slot");
}

#[test]
fn text_is_borrowed_when_it_is_valid_and_repaired_when_not() {
    let bus = anonymous();
    let (_topic, mut publisher, mut subscriber) = pair(&bus);
    let view = view_of(&mut publisher, &mut subscriber, "Größe".as_bytes());
    assert_eq!(view.as_str(), Ok("Größe"));
    let text = view.as_str_lossy();
    assert!(matches!(text, Cow::Borrowed("Größe")), "{text}");
    assert_eq!(text.as_ptr(), view.as_bytes().as_ptr(), "nothing was copied");
    assert!(view.slice(..3).as_str().is_err(), "it cuts a character");
    let view = view_of(&mut publisher, &mut subscriber, b"a\xffb");
    assert!(view.as_str().is_err());
    assert_eq!(view.as_str_lossy(), "a\u{fffd}b");
}

#[test]
fn chunks_of_a_stream_are_cut_without_a_copy_and_know_where_they_are() {
    let bus = anonymous();
    let (topic, mut publisher, mut subscriber) = pair(&bus);
    let whole = message(0, 0, 1000);
    let view = view_of(&mut publisher, &mut subscriber, &whole);
    let address = view.as_bytes().as_ptr() as usize;
    (0..20).for_each(|_| assert!(publish(&mut publisher) > 0));
    drain(&mut subscriber);
    let chunk = StreamChunk::new(7, view, 5000);
    assert_eq!((chunk.stream_id, chunk.offset, chunk.end()), (7, 5000, 6000));
    let parts: Vec<_> = [0..1, 1..400, 400..400, 400..1000].map(|range| chunk.slice(range)).into();
    drop(chunk);
    let mut at = 5000;
    for part in &parts {
        assert_eq!((part.stream_id, part.offset), (7, at));
        if !part.data.is_empty() {
            assert_eq!(part.data.as_ptr() as u64 - address as u64, at - 5000);
        }
        at = part.end();
    }
    let joined: Vec<u8> = parts.iter().flat_map(|part| part.data.to_vec()).collect();
    assert_eq!(joined, whole);
    assert_eq!(pins(&topic), 2);
    drop(parts);
    assert_eq!(pins(&topic), 1, "only the cursor");
}

fn bounds(len: usize) -> impl Strategy<Value = Bound<usize>> {
    let at = prop_oneof![0..=len + 2, Just(usize::MAX)];
    at.prop_flat_map(|at| {
        prop_oneof![Just(Bound::Included(at)), Just(Bound::Excluded(at)), Just(Bound::Unbounded)]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn slices_are_those_of_a_slice(
        bytes in proptest::collection::vec(any::<u8>(), 0..40),
        first in (bounds(40), bounds(40)),
        second in (bounds(40), bounds(40)),
    ) {
        let bus = anonymous();
        let (_topic, mut publisher, mut subscriber) = pair(&bus);
        let view = view_of(&mut publisher, &mut subscriber, &bytes);
        let expected = bytes.get(first);
        let slice = quietly(|| view.slice(first));
        prop_assert_eq!(slice.as_ref().map(View::as_bytes), expected);
        if let (Some(slice), Some(expected)) = (slice, expected) {
            // A slice of a slice, as a view and as bytes.
            let expected = expected.get(second);
            let again = quietly(|| slice.slice(second));
            prop_assert_eq!(again.as_ref().map(View::as_bytes), expected);
            let again = quietly(|| slice.to_bytes().slice(second));
            prop_assert_eq!(again.as_deref(), expected);
        }
    }
}

/// The result of `call`, or `None` if it panics, which is what a slice does out of bounds.
fn quietly<R>(call: impl FnOnce() -> R) -> Option<R> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(call)).ok()
}

#[test]
fn a_view_of_a_closed_and_removed_topic_stays() {
    let bus = anonymous();
    let (topic, mut publisher, mut subscriber) = pair(&bus);
    let view = view_of(&mut publisher, &mut subscriber, b"kept");
    topic.close();
    bus.remove_topic("t").expect("it exists");
    drop((publisher, subscriber, topic, bus));
    until("the view was read", || view.as_bytes() == b"kept");
}
