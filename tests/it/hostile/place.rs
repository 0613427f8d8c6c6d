//! Every place that damage is done to, and what the format promises of it.
//!
//! Offsets are those of `docs/format.md`, which also says which damage cannot be told from a sound
//! value, and what it does then.

use super::state::{State, LANES, ORDER_SLOTS, SEGMENTS, SEGMENT_BYTES, SUBSCRIBERS};
use super::word;

/// What a damaged byte may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// The right data, or `Corrupt`, or `Mismatch`.
    Noticed,
    /// It may be believed. What is delivered are whole messages of the lane that they name, each once
    /// and in their order; there may be fewer, and others may be refused or held up.
    Believed,
    /// It is content, or says where content ends: whatever it says is delivered.
    Content,
}
use Promise::{Believed, Content, Noticed};

/// A span of bytes with one promise.
#[derive(Clone, Debug)]
pub struct Place {
    pub file: String,
    pub what: &'static str,
    pub at: usize,
    pub len: usize,
    pub promise: Promise,
}

/// All places of a state.
pub fn all(state: &State) -> Vec<Place> {
    let mut places = Vec::new();
    let mut add = |file: &str, what, at, len, promise| {
        places.push(Place { file: file.to_owned(), what, at, len, promise });
    };
    add("bus", "header", 0, 128, Noticed);
    add("bus", "node counter", 512, 8, Believed);
    add("bus", "node table", 1024, 3 * 16, Believed);
    let control = "t.topic/control";
    add(control, "header", 0, 128, Noticed);
    add(control, "closed", 4096, 8, Believed);
    add(control, "births", 4104, 8, Noticed);
    add(control, "slots high", 4112, 8, Believed);
    add(control, "counters", 4224, 32, Noticed);
    add(control, "hint", 4352, 8, Noticed);
    add(control, "wake", 4480, 4, Noticed);
    for lane in 0..LANES {
        let at = 4608 + 128 * lane;
        add(control, "lease", at, 8, Believed);
        add(control, "born", at + 8, 8, Believed);
        add(control, "blocker", at + 16, 8, Noticed);
    }
    let slots_at = 4608 + 128 * LANES;
    let stride = 128 + (8 * LANES).next_multiple_of(128);
    for slot in 0..SUBSCRIBERS {
        let at = slots_at + slot * stride;
        add(control, "slot", at, 8, Believed);
        add(control, "sleeping", at + 8, 8, Noticed);
        add(control, "order gate", at + 16, 8, Believed);
        add(control, "counts", at + 24, 16, Noticed);
        add(control, "gates", at + 128, 8 * LANES, Believed);
    }
    let pins_at = slots_at + SUBSCRIBERS * stride;
    add(control, "pins", pins_at, LANES * SEGMENTS * SUBSCRIBERS * 8, Believed);
    for (file, bytes) in &state.files {
        if file.contains("lane-") {
            add(file, "header", 0, 128, Noticed);
            add(file, "newest", 128, 8, Noticed);
            add(file, "lane floor", 136, 8, Believed);
            add(file, "lane counters", 256, 24, Noticed);
            for entry in 0..SEGMENTS {
                // A mapping that is taken back is nothing unusual on a lossy topic, which says how much
                // was missed.
                let lossy = state.name.contains("lossy");
                let bit = if lossy { Believed } else { Noticed };
                add(file, "mapping, low", 1024 + 8 * entry, 1, bit);
                add(file, "mapping", 1024 + 8 * entry + 1, 7, Noticed);
            }
            segments(file, bytes, &mut add);
        }
        if file.contains("order") {
            add(file, "header", 0, 128, Noticed);
            add(file, "tail", 4096, 8, Noticed);
            add(file, "order floor", 4224, 8, Believed);
            add(file, "lapped", 4232, 8, Believed);
            add(file, "ordered", 4352, 8 * LANES, Noticed);
            add(file, "places", 4352 + 128, ORDER_SLOTS * 8, Believed);
        }
    }
    places
}

/// The prologues and first frames of the segments of a lane, and its last ones.
fn segments(
    file: &str,
    bytes: &[u8],
    add: &mut impl FnMut(&str, &'static str, usize, usize, Promise),
) {
    for physical in 0..SEGMENTS {
        let base = 4096 + physical * SEGMENT_BYTES;
        if word(bytes, base + 8) == 0 {
            continue;
        }
        // Three bytes are in every header word, once there is one; what is above them only a reader that
        // comes from the segment before can compare.
        let low = if word(bytes, base + 16) == 0 { Believed } else { Noticed };
        add(file, "first sequence, low", base, 3, low);
        add(file, "first sequence, high", base + 3, 5, Content);
        add(file, "logical number", base + 8, 8, Noticed);
        let mut at = base + 16;
        for frame in 0.. {
            let head = word(bytes, at);
            let len = head as u32 as usize;
            if head == 0 {
                add(file, "end", at, 8, Noticed);
                break;
            }
            if head >> 32 & 0xff == 2 {
                add(file, "next", at, 8, Noticed);
                break;
            }
            if frame < 3 {
                add(file, "length", at, 4, Content);
                add(file, "kind and sequence", at + 4, 4, Noticed);
                add(file, "payload", at + 8, 8, Content);
            }
            at += 8 + len.next_multiple_of(8);
        }
    }
}
