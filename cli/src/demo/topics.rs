//! The two topics of the demo, the same for every process.

use std::time::Duration;

use windlass::schemas::reading_capnp::reading;
use windlass::{Bus, TopicBuilder};

/// The topic on which nothing may be lost.
pub const RELIABLE: &str = "readings";
/// The topic whose subscriber is too slow, and is told what it missed.
pub const LOSSY: &str = "readings-lossy";
/// Both, in the order in which publishers serve them.
pub const ALL: [&str; 2] = [RELIABLE, LOSSY];

/// Lanes a topic: one a publisher and no spare one, so a replacement must take over the dead one's
/// lane.
pub const PUBLISHERS: u32 = 2;
/// Slots for subscribers: the two of the reliable topic, their replacement, and one to look around.
const SUBSCRIBERS: u32 = 4;

/// How `topic` is opened; everyone names the same options, whoever comes first creates it.
pub fn builder(bus: &Bus, topic: &str) -> TopicBuilder<reading::Owned> {
    let builder = bus.topic::<reading::Owned>(topic);
    let builder = builder.publishers_max(PUBLISHERS).subscribers_max(SUBSCRIBERS);
    if topic == LOSSY {
        // Small on purpose: a subscriber that naps is lapped.
        builder.lossy().segment_bytes(64 << 10).segments_per_lane(4)
    } else {
        // 4 MiB a lane: a subscriber that is not scheduled for a while does not stop the
        // publishers.
        builder.reliable().segment_bytes(512 << 10).segments_per_lane(8)
    }
}

/// A publisher that meets a full topic for this long gives up and says who blocks it.
pub const FULL_FOR_MAX: Duration = Duration::from_secs(10);
