//! The topic that most tests use: segments as small as they may be, in the memory of this process.

use super::traffic::message;
use windlass::{Blocker, Bus, PublishError, Publisher, Raw, Topic, TopicBuilder};

pub fn anonymous() -> Bus {
    Bus::anonymous().expect("there is memory for a bus")
}

/// Topic `t`, with four segments of 4 KiB in each lane.
pub fn small(bus: &Bus) -> TopicBuilder<Raw> {
    bus.topic("t").segment_bytes(4096).segments_per_lane(4)
}

/// Publishes the next message of the lane if there is room now; returns its sequence.
pub fn publish(publisher: &mut Publisher<Raw>, len: usize) -> Result<u64, PublishError> {
    let payload = message(publisher.lane(), publisher.sequence(), len);
    publisher.try_publish(&payload).map(|receipt| receipt.sequence)
}

/// Publishes until there is no room; returns who blocks.
pub fn fill(publisher: &mut Publisher<Raw>) -> Blocker {
    let first = publisher.sequence();
    loop {
        match publish(publisher, 509) {
            Ok(_) => {}
            Err(PublishError::Full { blocker }) => return blocker,
            Err(error) => panic!("{error}"),
        }
        assert!(publisher.sequence() < first + 1000, "a small lane never got full");
    }
}

/// The slot that the publisher of lane 0 waits for.
pub fn blocked_by(topic: &Topic<Raw>) -> Option<u32> {
    topic.info().expect("the topic is sound").publishers[0].blocked_by
}
