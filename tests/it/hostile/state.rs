//! Sound buses to damage, as the bytes of their files.
//!
//! Each is copied while its publishers and subscribers live. Nobody holds their locks in the copy, so
//! it is what a power cut at that instant, or `SIGKILL` for everybody, leaves.

use super::word;
use crate::traffic::{len_of, message, NUMBERED_BYTES_MIN};
use std::collections::BTreeMap;
use std::path::Path;
use windlass::{Bus, Raw, Start, TopicBuilder};

pub const LANES: usize = 3;
pub const SUBSCRIBERS: usize = 3;
pub const SEGMENTS: usize = 4;
pub const SEGMENT_BYTES: usize = 4096;
pub const ORDER_SLOTS: usize = 256;

/// Longest message.
const LEN_MAX: u64 = 120;

/// The length of message `number`.
pub fn len(number: u64) -> usize {
    len_of(number, NUMBERED_BYTES_MIN as u64, LEN_MAX)
}

/// The bytes of message `number` of `lane`.
pub fn content(lane: u32, number: u64) -> Vec<u8> {
    message(lane, number, len(number))
}

/// The files of a bus with one topic, `t`, by their path in the folder of the bus.
#[derive(Clone)]
pub struct State {
    pub name: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

impl State {
    pub fn is_ordered(&self) -> bool {
        self.name.contains("ordered")
    }

    /// Builds the state `name` beside `path`, which may not exist.
    pub fn build(name: &str, path: &Path) -> Self {
        let bus = Bus::open(path.to_str().expect("it is text")).expect("a fresh bus");
        let topic = builder(&bus, name).create().expect("a fresh topic");
        let mut busy = topic.publisher().expect("the first lane");
        let mut calm = topic.publisher().expect("the second lane");
        let mut reader = topic.subscriber(Start::Latest).expect("a slot");
        let mut behind = topic.subscriber(Start::Latest).expect("another slot");
        let mut kept = Vec::new();
        // Around the lane, and around the order log.
        while busy.sequence() < 300 || (name.contains("rolling") && !begins_segment(path)) {
            let (lane, number) = (busy.lane(), busy.sequence());
            busy.publish(&content(lane, number)).expect("both subscribers read");
            if number % 40 == 7 {
                let number = calm.sequence();
                calm.publish(&content(calm.lane(), number)).expect("both subscribers read");
            }
            // The last ones stay unread, and a view stays into the last segment but one.
            if number < 280 {
                while let Ok(Some(message)) = reader.try_recv() {
                    if number == 270 {
                        kept.push(message.pin());
                    }
                }
                while let Ok(Some(_)) = behind.try_recv() {}
            }
        }
        let mut state = Self { name: name.to_owned(), files: files_of(path) };
        if name.contains("rolling") {
            state.undo_the_end_of_a_roll();
        }
        state
    }

    /// Makes the last roll of lane 0 one that was broken off before the old segment got its end: the
    /// new segment is there, and empty.
    fn undo_the_end_of_a_roll(&mut self) {
        let ordered = self.is_ordered();
        let lane = self.files.get_mut("t.topic/lane-0").expect("it was published in");
        let newest = word(lane, 128);
        let base_of = |logical: u64, lane: &[u8]| {
            let entry = word(lane, 1024 + 8 * (logical as usize % SEGMENTS));
            assert_eq!(entry >> 16, logical + 1, "it is mapped");
            4096 + SEGMENT_BYTES * ((entry >> 1) as usize & 0x7fff)
        };
        let (new, old) = (base_of(newest, lane), base_of(newest - 1, lane));
        // The only message of the new segment never was.
        lane[new + 16..new + 24].fill(0);
        let mut at = old + 16;
        while word(lane, at) >> 32 & 0xff == 1 {
            at += 8 + (word(lane, at) as u32 as usize).next_multiple_of(8);
        }
        lane[at..at + 8].fill(0);
        if ordered {
            let position = newest * SEGMENT_BYTES as u64 + 16;
            let log = self.files.get_mut("t.topic/order").expect("it is ordered");
            let index = word(log, 4096) - 1;
            log[4096..4104].copy_from_slice(&index.to_le_bytes());
            log[4352..4360].copy_from_slice(&(position - 8).to_le_bytes());
            let slot = 4352 + 128 + 8 * (index as usize % ORDER_SLOTS);
            log[slot + 7] ^= 0x80;
        }
    }

    /// Lays the files at `path`, and nothing else.
    pub fn lay(&self, path: &Path) {
        let topic = path.join("t.topic");
        let _ = std::fs::remove_dir_all(path);
        std::fs::create_dir_all(&topic).expect("there is room");
        for (name, bytes) in &self.files {
            std::fs::write(path.join(name), bytes).expect("there is room");
        }
    }
}

fn builder(bus: &Bus, name: &str) -> TopicBuilder<Raw> {
    let builder = bus.topic("t").segment_bytes(SEGMENT_BYTES as u64).prefault(false);
    let builder = builder.segments_per_lane(SEGMENTS as u32).publishers_max(LANES as u32);
    let builder = builder.subscribers_max(SUBSCRIBERS as u32);
    let builder = if name.contains("lossy") { builder.lossy() } else { builder.reliable() };
    match name.contains("ordered") {
        true => builder.ordered().order_slots(ORDER_SLOTS as u64),
        false => builder,
    }
}

/// Whether the newest segment of lane 0 holds exactly one message.
fn begins_segment(path: &Path) -> bool {
    let lane = std::fs::read(path.join("t.topic/lane-0")).expect("it was published in");
    let entry = word(&lane, 1024 + 8 * (word(&lane, 128) as usize % SEGMENTS));
    let first = 4096 + SEGMENT_BYTES * ((entry >> 1) as usize & 0x7fff) + 16;
    let second = first + 8 + (word(&lane, first) as u32 as usize).next_multiple_of(8);
    word(&lane, first) != 0 && word(&lane, second) == 0
}

fn files_of(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for folder in ["", "t.topic/"] {
        for entry in std::fs::read_dir(path.join(folder)).expect("the bus is there") {
            let entry = entry.expect("the bus is there");
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let name = format!("{folder}{}", entry.file_name().to_string_lossy());
                files.insert(name, std::fs::read(entry.path()).expect("it is a file"));
            }
        }
    }
    files
}
