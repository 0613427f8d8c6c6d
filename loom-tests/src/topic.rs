//! A topic small enough to explore: its control words and lanes, and the few calls that a publisher and a subscriber
//! make of them.

use loom::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use windlass::layout::frame;
use windlass::layout::lane as layout;
use windlass::layout::order::{self as order_layout, Place};
use windlass::ring::bells::Bells;
use windlass::ring::lane::Lane;
use windlass::ring::order::Order;
use windlass::ring::pins::Pins;
use windlass::ring::reader::{Entered, Poll, Reader};
use windlass::ring::recycle::Blocked;
use windlass::ring::slots::{Claimed, Slots};
use windlass::ring::wake::{Bell, Hint};
use windlass::ring::writer::Writer;
use windlass::shm::place::Region;

/// Bytes of a segment that takes one message of one word.
pub const ONE_MESSAGE: usize = frame::PROLOGUE + 2 * frame::WORD + frame::WORD;

/// Bytes of a segment that takes two messages of one word.
pub const TWO_MESSAGES: usize = ONE_MESSAGE + 2 * frame::WORD;

const HIGH_AT: usize = 0;
const HINT_AT: usize = 8;
const WAKE_AT: usize = 16;
const SLOTS_AT: usize = 24;

/// How large a modelled topic is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Lanes.
    pub lanes: usize,
    /// Physical segments of a lane.
    pub segments: usize,
    /// Bytes of a segment.
    pub segment_bytes: usize,
    /// Subscriber slots.
    pub slots: usize,
}

impl Size {
    /// One lane of `segments` segments that take one message each, and room for `slots` subscribers.
    pub fn of(segments: usize, slots: usize) -> Self {
        Self { lanes: 1, segments, segment_bytes: ONE_MESSAGE, slots }
    }
}

/// The shared words of a topic. A clone is the same topic, as another process sees it.
#[derive(Clone)]
pub struct Topic {
    /// Subscriber slots.
    pub slots: Slots,
    /// Pin counters.
    pub pins: Pins,
    /// What sleepers wait for.
    pub bell: Bell,
    lanes: Vec<Lane>,
    control: Region,
    pins_at: usize,
}

impl Topic {
    /// A fresh topic whose unused segments hold stale bytes.
    pub fn new(size: Size) -> Self {
        let Size { lanes, segments, segment_bytes, slots } = size;
        let pins_at = SLOTS_AT + Slots::bytes(slots, lanes);
        let bytes = pins_at + Pins::bytes(lanes, segments, slots);
        let control = Region::zeroed(bytes, bytes);
        let pins = Pins::new(control.clone(), pins_at, lanes, segments, slots);
        let lane = |index| {
            let data_at = layout::segments_at(segments);
            let bytes = layout::file_bytes(segments, segment_bytes) as usize;
            let data = Region::zeroed(bytes, data_at);
            for physical in 0..segments {
                litter(&data, data_at + physical * segment_bytes, segment_bytes, physical == 0);
            }
            let lane = Lane::new(data, pins.clone(), index, segments, segment_bytes);
            lane.init();
            lane
        };
        Self {
            slots: Slots::new(control.clone(), SLOTS_AT, HIGH_AT, slots, lanes),
            bell: Bell::new(control.clone(), HINT_AT, WAKE_AT),
            lanes: (0..lanes).map(lane).collect(),
            pins,
            control,
            pins_at,
        }
    }

    /// Lane `index`.
    pub fn lane(&self, index: usize) -> Lane {
        self.lanes[index].clone()
    }

    /// The bare pin counter of `slot` on a physical segment of lane 0, for broken copies.
    pub fn pin_word(&self, physical: usize, slot: usize) -> &AtomicU64 {
        self.control.word(self.pins_at + (physical * self.slots.len() + slot) * 8)
    }

    /// The bare hint of the bell, for broken copies.
    pub fn hint_word(&self) -> &AtomicU64 {
        self.control.word(HINT_AT)
    }

    /// Bells over the slots and the hint of this topic, as a queue has them.
    pub fn bells(&self) -> Bells {
        Bells::new(Hint::new(self.control.clone(), HINT_AT), self.slots.clone())
    }

    /// Takes a lane over.
    pub fn writer(&self, lane: usize) -> Writer {
        Writer::recover(self.lane(lane)).expect("a lane can be taken over whatever happened to it")
    }

    /// A reader of lane 0 for the owner of `slot`, inside no segment yet.
    pub fn reader(&self, slot: usize) -> Reader {
        Reader::new(self.lane(0), slot)
    }

    /// Makes `node` the owner of `slot`, which is free.
    pub fn claim(&self, slot: usize, node: u32) -> Claimed {
        self.slots.claim(slot, node, &self.pins).expect("the slot is free")
    }
}

/// An order log, and its bare words for broken copies.
#[derive(Clone)]
pub struct Log {
    /// The log.
    pub order: Order,
    /// Its words.
    pub words: Region,
    /// How many places the ring has.
    pub slots: u64,
    /// For how many lanes it is.
    pub lanes: usize,
}

impl Log {
    /// A fresh log of `slots` places for `lanes` lanes.
    pub fn new(slots: u64, lanes: usize) -> Self {
        let bytes = order_layout::file_bytes(lanes, slots) as usize;
        let words = Region::zeroed(bytes, bytes);
        Self { order: Order::new(words.clone(), slots, lanes), words, slots, lanes }
    }
}

/// Makes every word behind the first header word of a segment look like the frame that could be due there.
fn litter(data: &Region, base: usize, bytes: usize, in_use: bool) {
    let first = if in_use { frame::PROLOGUE + frame::WORD } else { frame::PROLOGUE };
    for at in (first..bytes).step_by(8) {
        let sequence = ((at - frame::PROLOGUE) / (2 * frame::WORD)) as u64;
        data.word(base + at).store(frame::frame(0, sequence), Relaxed);
    }
}

/// The payload of the message `sequence`.
pub fn payload_of(sequence: u64) -> u64 {
    100 + sequence
}

/// Publishes one message of one word, as `Publisher::try_publish` does; returns its position.
pub fn publish(writer: &mut Writer, slots: &Slots, reliable: bool) -> Result<u64, Blocked> {
    if !writer.has_room(8) {
        let physical = writer.take(slots, reliable)?;
        writer.roll(physical);
    }
    writer.clean(8);
    writer.write_payload(0, payload_of(writer.sequence()));
    Ok(writer.commit(8, 8))
}

/// Publishes one message in the order of a topic whose places all are free, as `Publisher::commit` does; returns its
/// place.
pub fn publish_in_order(writer: &mut Writer, slots: &Slots, log: &Log) -> u64 {
    let lane = writer.lane().index();
    let position = publish(writer, slots, false).expect("a segment is free");
    log.order.append(Place { lane, position }).expect("nobody else appends this frame")
}

/// Appends what the dead publisher of a lane committed and did not append, as whoever takes the lane's lease does.
pub fn repair_order(writer: &Writer, log: &Log) {
    let (lane, order) = (writer.lane().index(), &log.order);
    order.settle();
    let append = |position| {
        order.append(Place { lane, position });
    };
    writer.lane().positions_from(order.ordered(lane), append).expect("the lane is sound");
}

/// Takes the message at the cursor if there is one, checks that it is the one due, and returns its sequence.
pub fn receive(reader: &Reader) -> Option<u64> {
    let Poll::Frame { offset, len } = reader.poll() else { return None };
    let sequence = reader.sequence();
    assert_eq!(len, 8, "message {sequence} has another length than was published");
    let payload = reader.lane().data().payload(offset);
    assert_eq!(payload, payload_of(sequence), "message {sequence} holds the bytes of another");
    reader.advance(len);
    Some(sequence)
}

/// Takes all messages that are there, over the ends of segments, as `Subscriber::try_recv` does again and again.
///
/// Ends with what it met: `Empty`, `Corrupt`, or `Next` if the segment behind was taken back.
pub fn read_on(reader: &mut Reader, received: &mut Vec<u64>) -> Poll {
    loop {
        match reader.poll() {
            Poll::Frame { .. } => received.extend(receive(reader)),
            Poll::Next => match reader.follow() {
                Ok(Entered::Inside) => {}
                Ok(_) => return Poll::Next,
                Err(_) => return Poll::Corrupt,
            },
            end => return end,
        }
    }
}
