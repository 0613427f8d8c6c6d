//! A log on a file system that is full: an error to the publisher, nothing lost, and on it goes once there is room.

use super::files::disk::mounted;
use super::process::{Den, Line, Role, Scene};
use std::fs::File;
use std::path::Path;
use windlass::{Bus, ErrorKind, PublishError, Raw, Start};

pub const ROLES: &[(&str, Role)] = &[("log_full.publish", publish)];

/// Room for two pieces of the order, some segments, and what the rest of the log needs.
const SMALL: &str = r#"mount -t tmpfs -o size=4m tmpfs "$0""#;

const BALLAST: u64 = 1 << 20;

fn text(number: u64) -> Vec<u8> {
    format!("message {number} {}", "z".repeat(number as usize % 400)).into_bytes()
}

fn publish(scene: &Scene, line: &mut Line) {
    let place = Path::new(scene.bus_path()).parent().expect("it has one").to_owned();
    let ballast = File::create(place.join("ballast")).expect("there is room");
    nix::fcntl::fallocate(&ballast, nix::fcntl::FallocateFlags::empty(), 0, BALLAST as i64)
        .expect("there is room");
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(place.join("events"));
    let topic = topic.segment_bytes(1 << 16).open().expect("the log can be opened");
    let mut publisher = topic.publisher().expect("a free lane");
    let mut count = 0;
    let mut fill = || loop {
        match publisher.publish(&text(count)) {
            Ok(receipt) => {
                assert_eq!(receipt.sequence, count);
                count += 1;
            }
            Err(PublishError::Storage { kind: ErrorKind::NoSpace }) => return count,
            Err(error) => panic!("{error}"),
        }
    };
    let before = fill();
    assert!(before > 100, "only {before} messages fitted");
    // It stays full.
    assert_eq!(fill(), before);
    ballast.set_len(0).expect("it shrinks");
    let after = fill();
    assert!(after > before + 100, "{after} messages after {before}");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    for number in 0..after {
        let message = subscriber.try_recv().expect("sound").expect("it was published");
        assert_eq!((message.sequence(), message.bytes()), (number, &text(number)[..]));
    }
    assert!(subscriber.try_recv().expect("sound").is_none());
    line.say("whole");
}

#[test]
fn a_publisher_goes_on_when_there_is_room_again_and_nothing_is_lost() {
    let den = Den::new();
    let Some(mut actor) = mounted(&den, SMALL, "log_full.publish") else { return };
    actor.hear("whole");
    actor.finish();
}
