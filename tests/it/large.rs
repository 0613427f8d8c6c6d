//! Large messages: built and read in place up to the size of a segment, refused with both sizes
//! above it.

use super::process::{Line, Role, Scene, Stage};
use super::traffic;
use windlass::{PublishError, Raw, Start, View, Wait};

pub const ROLES: &[(&str, Role)] = &[("large.subscriber", subscriber)];

const MEBIBYTE: usize = 1 << 20;
const SEGMENT: usize = 128 * MEBIBYTE;
/// Bytes of a segment that no payload uses: the prologue and two header words.
const OVERHEAD: usize = 32;

/// A message too long to be computed byte by byte: a block that is repeated. The end of it is cut.
fn block(number: u64) -> Vec<u8> {
    traffic::message(0, number, 65_521)
}

fn write(into: &mut [u8], number: u64) {
    let block = block(number);
    for chunk in into.chunks_mut(block.len()) {
        chunk.copy_from_slice(&block[..chunk.len()]);
    }
}

fn check(bytes: &[u8], number: u64) {
    let block = block(number);
    let right = bytes.chunks(block.len()).all(|chunk| chunk == &block[..chunk.len()]);
    assert!(right, "message {number} of {} bytes is torn", bytes.len());
}

/// Receives all messages until the topic is closed. Says `ready`, and `got LEN` for each.
fn subscriber(scene: &Scene, line: &mut Line) {
    let topic = scene.bus().topic::<Raw>("t").open_existing().expect("the test created it");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    line.say("ready");
    let mut kept: Option<View<Raw>> = None;
    while let Some(message) = subscriber.recv(Wait::Block).expect("it is sound") {
        check(message.bytes(), message.sequence());
        line.say(format_args!("got {}", message.bytes().len()));
        // The one before, which the publisher may not have taken back.
        if let Some(kept) = kept.replace(message.pin()) {
            check(kept.as_bytes(), kept.sequence());
        }
        kept = kept.filter(|view| view.as_bytes().len() < MEBIBYTE);
    }
}

#[test]
fn messages_up_to_a_segment_go_through_in_place() {
    for stage in [Stage::processes(), Stage::threads()] {
        let bus = stage.bus();
        let builder = bus.topic::<Raw>("t").segment_bytes(SEGMENT as u64).segments_per_lane(2);
        let topic = builder.prefault(false).publishers_max(1).create().expect("there is memory");
        let mut actor = stage.start("large.subscriber", "");
        actor.hear("ready");
        let mut publisher = topic.publisher().expect("there is memory");
        let max = SEGMENT - OVERHEAD;
        assert_eq!(publisher.payload_bytes_max(), max);
        for len in [64 * MEBIBYTE, 1, 64 * MEBIBYTE - 1, 7 * MEBIBYTE + 5, max, 0, 64 * MEBIBYTE] {
            let number = publisher.sequence();
            let mut loan = publisher.loan(len).expect("it fits");
            write(&mut loan, number);
            loan.publish().expect("it fits");
            assert_eq!(actor.hear_number("got"), len as u64);
        }
        topic.close();
        actor.finish();
    }
}

#[test]
fn a_message_above_a_segment_is_refused_with_both_sizes() {
    let stage = Stage::threads();
    let bus = stage.bus();
    for segment in [4096, 65_536, SEGMENT] {
        let builder = bus.topic::<Raw>("t").segment_bytes(segment as u64).segments_per_lane(2);
        let topic = builder.prefault(false).publishers_max(1).create().expect("there is memory");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        let mut publisher = topic.publisher().expect("there is memory");
        let max = segment - OVERHEAD;
        for len in [max + 1, max + 8, segment, 2 * segment, usize::MAX / 2] {
            let refused = PublishError::TooLarge { need: len as u64, max: max as u64 };
            assert_eq!(publisher.loan(len).map(drop), Err(refused));
            assert_eq!(publisher.try_loan(len).map(drop), Err(refused));
            let text = refused.to_string();
            assert!(text.contains(&format!("needs {len} bytes")), "{text}");
            assert!(text.contains(&format!("takes {max}")), "{text}");
        }
        let refused = publisher.publish(&vec![0; max + 1]);
        assert_eq!(refused, Err(PublishError::TooLarge { need: max as u64 + 1, max: max as u64 }));
        // Nothing of it was published, and what fits still does.
        assert!(matches!(subscriber.try_recv(), Ok(None)));
        publisher.publish(&vec![7; max]).expect("it fits");
        let message = subscriber.try_recv().expect("it is sound").expect("it was published");
        assert_eq!((message.sequence(), message.bytes().len()), (0, max));
        drop((publisher, subscriber));
        bus.remove_topic("t").expect("it exists");
    }
}
