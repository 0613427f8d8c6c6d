//! Lanes of a durable topic that pass from publisher to publisher.

use super::durable::Logs;
use super::process::until;
use windlass::{Bus, Raw, Start, Topic};

/// Places of a piece of the order.
const PLACES: u64 = 1 << 17;

fn open(logs: &Logs, bus: &str) -> Topic<Raw> {
    let bus = Bus::open(logs.0.join(bus).to_str().expect("text")).expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events"));
    let topic = topic.segment_bytes(1 << 16).retain_bytes(1 << 18);
    topic.open().expect("the log can be opened")
}

#[test]
fn a_lane_goes_on_where_it_ended_when_the_place_of_its_last_message_is_deleted() {
    let logs = Logs::new("lanes");
    let topic = open(&logs, "bus");
    let (mut busy, mut idle) = (topic.publisher().expect("free"), topic.publisher().expect("free"));
    let lane = idle.lane();
    for text in [&b"the first"[..], b"the last"] {
        idle.publish(text).expect("there is room");
    }
    drop(idle);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    let _ = subscriber.try_recv().expect("sound").expect("it was published");
    let view = subscriber.try_recv().expect("sound").expect("it was published").pin();
    let first_piece = logs.0.join("events").join("places-000000000000");
    until("the first piece of the order is deleted", || {
        for _ in 0..PLACES / 4 {
            busy.publish(b"busy").expect("there is room");
        }
        !first_piece.exists()
    });

    // Another process, which has never seen that piece.
    let other = open(&logs, "bus");
    let mut heir = other.publisher().expect("a free lane");
    assert_eq!((heir.lane(), heir.sequence()), (lane, 2));
    heir.publish(b"the next").expect("there is room");
    assert_eq!(view.as_bytes(), b"the last");
    let next = other.log().expect("it is durable").next().expect("sound");
    drop((view, subscriber, heir, busy, other, topic));

    let again = open(&logs, "another bus");
    assert_eq!(again.log().expect("it is durable").next().expect("sound"), next);
    let mut subscriber = again.subscriber(Start::Last(1)).expect("a free slot");
    let message = subscriber.try_recv().expect("sound").expect("it was published");
    assert_eq!(message.bytes(), b"the next");
}
