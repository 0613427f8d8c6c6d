//! Cap'n Proto messages through a topic: built in place, read in place, grown, and met by other versions of their type.

use super::process::{scaled, Line, Role, Scene, Stage};
use crate::samples::{tick_broken_capnp, tick_v1_capnp, tick_v2_capnp};
use windlass::schemas::tick_capnp::{tick, Venue};
use windlass::{Bus, ErrorKind, PublishError, Publisher, Raw, Start, Wait};

pub const ROLES: &[(&str, Role)] = &[("typed.publisher", publisher)];

/// A symbol of another length for each message; some are longer than any loan that came before.
fn symbol_of(number: u64) -> String {
    let len = if number % 97 == 96 { 3000 } else { number % 61 };
    (0..len).map(|at| char::from(b'A' + ((at + number) % 26) as u8)).collect()
}

fn publish(publisher: &mut Publisher<tick::Owned>, number: u64) {
    let mut loan = publisher.loan().expect("somebody reads");
    let mut tick = loan.init_root();
    tick.set_symbol(symbol_of(number).as_str());
    tick.set_price(number as f64 / 4.0);
    tick.set_size(number as u32);
    tick.set_number(number);
    tick.set_venue(Venue::Dark);
    assert_eq!(loan.publish().expect("it fits").sequence, number);
}

fn check(tick: tick::Reader<'_>, number: u64) {
    assert_eq!(tick.get_number(), number);
    assert_eq!(tick.get_symbol().expect("text").to_str().expect("text"), symbol_of(number));
    assert_eq!(tick.get_price(), number as f64 / 4.0);
    assert_eq!(tick.get_size(), number as u32);
    assert_eq!(tick.get_venue(), Ok(Venue::Dark));
}

/// Publishes as many ticks as it is told, and closes the topic.
fn publisher(scene: &Scene, _line: &mut Line) {
    let topic = scene.bus().topic::<tick::Owned>("t").open_existing().expect("it was created");
    let mut publisher = topic.publisher().expect("there is a lane");
    (0..scene.number("count")).for_each(|number| publish(&mut publisher, number));
    topic.close();
}

#[test]
fn typed_messages_of_any_size_arrive_whole() {
    let count = scaled(20_000);
    for stage in [Stage::processes(), Stage::threads()] {
        let bus = stage.bus();
        let builder = bus.topic::<tick::Owned>("t").segment_bytes(4096).segments_per_lane(4);
        let topic = builder.create().expect("a fresh topic");
        let mut subscribers =
            [0, 1].map(|_| topic.subscriber(Start::Latest).expect("there is a slot"));
        let actor = stage.start("typed.publisher", &format!("count={count}"));
        let [first, second] = &mut subscribers;
        for number in 0..count {
            let message = first.recv(Wait::Yield).expect("sound").expect("not closed yet");
            message.get().map(|tick| check(tick, number)).expect("a tick");
            // A view of the same message, read by another thread after the subscriber went on.
            let message = second.recv(Wait::Yield).expect("sound").expect("not closed yet");
            if number % 1000 == 999 {
                let view = message.pin();
                let read = move || view.get().map(|tick| check(tick, number)).expect("a tick");
                std::thread::spawn(read).join().expect("the view is whole");
            }
        }
        for subscriber in &mut subscribers {
            assert!(subscriber.recv(Wait::Yield).expect("sound").is_none(), "closed and drained");
        }
        actor.finish();
        let info = topic.info().expect("sound");
        assert_eq!(info.schema.as_deref(), Some("tick.capnp:Tick"));
        assert!(info.publishers[0].outgrown > 0, "some messages outgrew their loans, and it shows");
    }
}

#[test]
fn a_message_that_no_segment_takes_is_refused_with_both_sizes() {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<tick::Owned>("t").segment_bytes(4096).open().expect("a fresh topic");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut loan = publisher.loan().expect("room");
    loan.init_root().set_symbol("x".repeat(5000).as_str());
    match loan.publish() {
        Err(PublishError::TooLarge { need, max }) => assert!(need > 5000 && max == 4096 - 32),
        other => panic!("{other:?}"),
    }
    assert!(matches!(publisher.loan_sized(5000), Err(PublishError::TooLarge { .. })));
    publish(&mut publisher, 0);
    let message = subscriber.try_recv().expect("sound").expect("the next one arrives");
    message.get().map(|tick| check(tick, 0)).expect("a tick");
}

#[test]
fn versions_of_a_type_meet_both_ways() {
    let bus = Bus::anonymous().expect("there is memory");
    type Old = tick_v1_capnp::tick::Owned;
    type New = tick_v2_capnp::tick::Owned;
    for (name, created_by_old) in [("old-first", true), ("new-first", false)] {
        // Whoever comes first stores its schema.
        let [old, new] = if created_by_old {
            let old = bus.topic::<Old>(name).open().map(|_| ());
            [old, bus.topic::<New>(name).open().map(|_| ())]
        } else {
            let new = bus.topic::<New>(name).open().map(|_| ());
            [bus.topic::<Old>(name).open().map(|_| ()), new]
        };
        old.and(new).expect("they may meet");
        let old = bus.topic::<Old>(name).open_existing().expect("it exists");
        let new = bus.topic::<New>(name).open_existing().expect("it exists");
        let mut old_reader = old.subscriber(Start::Latest).expect("there is a slot");
        let mut new_reader = new.subscriber(Start::Latest).expect("there is a slot");

        let mut publisher = old.publisher().expect("there is a lane");
        let mut loan = publisher.loan().expect("room");
        loan.init_root().set_size(7);
        loan.publish().expect("room");
        let message = new_reader.try_recv().expect("sound").expect("it was published");
        let tick = message.get().expect("a tick");
        assert_eq!((tick.get_quantity(), tick.get_published_ns()), (7, 0), "old to new");
        assert!(old_reader.try_recv().expect("sound").is_some());

        let mut publisher = new.publisher().expect("there is a lane");
        let mut loan = publisher.loan().expect("room");
        let mut tick = loan.init_root();
        tick.set_quantity(8);
        tick.set_published_ns(9);
        loan.publish().expect("room");
        let message = old_reader.try_recv().expect("sound").expect("it was published");
        assert_eq!(message.get().expect("a tick").get_size(), 8, "new to old");
    }
}

#[test]
fn another_type_is_refused_with_the_field_that_differs() {
    let bus = Bus::anonymous().expect("there is memory");
    bus.topic::<tick_v1_capnp::tick::Owned>("t").open().expect("a fresh topic");
    let broken = bus.topic::<tick_broken_capnp::tick::Owned>("t").open().map(|_| ());
    let error = broken.expect_err("a field has another type");
    assert_eq!(error.kind(), ErrorKind::Mismatch);
    let text = error.to_string();
    assert!(text.contains("there") || text.contains("here"), "{text}");
    assert!(text.contains('@'), "it names the field: {text}");

    let other = bus.topic::<tick::Owned>("t").open().map(|_| ()).expect_err("another type");
    assert_eq!(other.kind(), ErrorKind::Mismatch, "{other}");
    let raw = bus.topic::<Raw>("t").open().map(|_| ()).expect_err("not raw");
    assert_eq!(raw.kind(), ErrorKind::Mismatch, "{raw}");
}
