//! The algorithms of a lane and of the order log between threads, on one piece of memory, for the thread
//! sanitizer.
//!
//! In a topic the publisher has another mapping of a lane than its subscribers, and the sanitizer knows
//! addresses only: it would see neither a race between the two nor what orders them. Here all threads
//! share one region, so each payload byte that is read without an edge from its writer is reported.
//! `sanitize.sh canary` breaks edges one by one and asks for that report.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::*};
use windlass::layout::lane as layout;
use windlass::layout::order::{self as order_layout, Place};
use windlass::ring::lane::Lane;
use windlass::ring::order::{Found, Order};
use windlass::ring::pins::Pins;
use windlass::ring::reader::{Entered, Poll, Reader};
use windlass::ring::slots::{Claimed, Slots};
use windlass::ring::writer::Writer;
use windlass_fuzz::content::content;
use windlass_fuzz::memory::region;

const SEGMENTS: usize = 5;
const SEGMENT_BYTES: usize = 512;
const SLOTS_AT: usize = 128;

/// A topic without files.
struct Rig {
    lanes: Vec<Lane>,
    slots: Slots,
    pins: Pins,
    order: Order,
}

/// Never freed: the last count of a shared region ends with a fence, which the sanitizer does not know.
fn rig(lanes: usize, subscribers: usize) -> &'static Rig {
    let pins_at = SLOTS_AT + Slots::bytes(subscribers, lanes);
    let control = region(pins_at + Pins::bytes(lanes, SEGMENTS, subscribers));
    let pins = Pins::new(control.clone(), pins_at, lanes, SEGMENTS, subscribers);
    let slots = Slots::new(control, SLOTS_AT, 0, subscribers, lanes);
    let lane = |index| {
        let data = region(layout::file_bytes(SEGMENTS, SEGMENT_BYTES) as usize);
        let lane = Lane::new(data, pins.clone(), index, SEGMENTS, SEGMENT_BYTES);
        lane.init();
        lane
    };
    let lanes: Vec<Lane> = (0..lanes).map(lane).collect();
    let log = region(order_layout::file_bytes(lanes.len(), 64) as usize);
    let order = Order::new(log, 64, lanes.len());
    Box::leak(Box::new(Rig { lanes, slots, pins, order }))
}

fn scaled(count: u64) -> u64 {
    let scale = std::env::var("WINDLASS_TEST_SCALE").ok().and_then(|scale| scale.parse().ok());
    count * scale.unwrap_or(1)
}

fn len_of(number: u64) -> usize {
    (number * 37 % 150) as usize
}

/// Publishes as a publisher does; `None` if there is no room now.
fn try_publish(rig: &Rig, writer: &mut Writer, lane: usize, reliable: bool) -> Option<u64> {
    let number = writer.sequence();
    let len = len_of(number);
    if !writer.has_room(len) {
        let physical = writer.take(&rig.slots, reliable).ok()?;
        writer.roll(physical);
    }
    writer.clean(len);
    writer.space(len).copy_from_slice(&content(lane as u32, number, len));
    Some(writer.commit(len, len))
}

fn publish(rig: &Rig, writer: &mut Writer, lane: usize, reliable: bool) -> u64 {
    loop {
        if let Some(position) = try_publish(rig, writer, lane, reliable) {
            return position;
        }
        std::thread::yield_now();
    }
}

fn subscribe(rig: &Rig, slot: usize, lane: usize, reliable: bool) -> (Claimed, Reader) {
    let claimed = rig.slots.claim(slot, 7, &rig.pins).expect("it is free");
    let of = &rig.lanes[lane];
    if reliable {
        let store = |floor| rig.slots.set_gate(slot, lane, of.position(floor, 0));
        Slots::establish(store, || of.floor().expect("sound"));
    }
    let mut reader = Reader::new(of.clone(), slot);
    reader.seek_oldest().expect("sound");
    (claimed, reader)
}

/// A message that another thread reads later: where it lies, its number, and the pin that keeps it there.
type Kept = [u64; 4];

/// What is handed from a reader to the thread that holds its views. Channels and locks of the standard
/// library are not compiled with ours as a whole, so the sanitizer would not see what they order.
struct Hands {
    kept: Vec<[AtomicU64; 4]>,
    given: AtomicU64,
    ended: AtomicBool,
}

impl Hands {
    fn new(most: u64) -> Self {
        let kept = (0..most).map(|_| Default::default()).collect();
        Self { kept, given: AtomicU64::new(0), ended: AtomicBool::new(false) }
    }

    fn give(&self, kept: Kept) {
        let given = self.given.load(Relaxed);
        let place = &self.kept[given as usize];
        place.iter().zip(kept).for_each(|(word, value)| word.store(value, Relaxed));
        self.given.store(given + 1, Release);
    }

    /// Calls `each` with everything that is given, until there will be nothing more.
    fn take_all(&self, mut each: impl FnMut(Kept)) {
        let mut taken = 0;
        loop {
            let ended = self.ended.load(Acquire);
            let given = self.given.load(Acquire) as usize;
            for place in &self.kept[taken..given] {
                each([0, 1, 2, 3].map(|word| place[word].load(Relaxed)));
            }
            taken = given;
            if ended {
                return;
            }
            std::thread::yield_now();
        }
    }
}

/// Reads until message `end` is due, and hands every seventh message on; returns how many were missed.
fn read_until(
    rig: &Rig,
    reader: &mut Reader,
    (slot, lane): (usize, usize),
    end: u64,
    reliable: bool,
    mut keep: impl FnMut(Kept),
) -> u64 {
    let mut missed = 0;
    while reader.sequence() < end {
        match reader.poll() {
            Poll::Frame { offset, len } => {
                let number = reader.sequence();
                assert_eq!(reader.lane().payload(offset, len), content(lane as u32, number, len));
                if number.is_multiple_of(7) {
                    let physical = reader.pinned().expect("it stands there");
                    rig.pins.pin(lane, physical, slot);
                    keep([offset as u64, len as u64, number, physical as u64]);
                }
                reader.advance(len);
            }
            Poll::Empty => {
                reader.check_wait().expect("sound");
                std::thread::yield_now();
            }
            Poll::Next => {
                let due = reader.sequence();
                if reader.follow().expect("sound") == Entered::Overtaken {
                    assert!(!reliable, "a gate was overtaken");
                    reader.seek_oldest().expect("sound");
                    missed += reader.sequence() - due;
                }
                if reliable {
                    rig.slots.set_gate(slot, lane, reader.position());
                }
            }
            Poll::Corrupt => panic!("no publisher writes this"),
        }
    }
    missed
}

/// One writer, two readers that leave and come back, and for each a thread that holds views.
fn one_lane(reliable: bool) {
    let count = scaled(4000);
    let rig = rig(1, 2);
    let ended = &AtomicBool::new(false);
    let hands = &[0, 1].map(|_| Hands::new(count / 7 + 1));
    std::thread::scope(|scope| {
        let mut readers = Vec::new();
        for slot in 0..2 {
            let (claimed, reader) = subscribe(rig, slot, 0, reliable);
            readers.push(scope.spawn(move || {
                let hands = &hands[slot];
                let lane = rig.lanes[0].clone();
                let holder = scope.spawn(move || {
                    hands.take_all(|[offset, len, number, physical]| {
                        let payload = lane.payload(offset as usize, len as usize);
                        assert_eq!(payload, content(0, number, len as usize));
                        lane.pins().unpin(0, physical as usize, slot);
                    });
                });
                let mut reader = reader;
                for part in 1..=4 {
                    let keep = |kept| hands.give(kept);
                    let end = count * part / 4;
                    read_until(rig, &mut reader, (slot, 0), end, reliable, keep);
                    if !reliable && part < 4 {
                        // Leaves and begins again, in the same slot or in one that is its own again.
                        reader.leave();
                        let found = reader.seek_latest();
                        assert!(found.is_ok(), "there is a newest message");
                    }
                }
                hands.ended.store(true, Release);
                holder.join().expect("it saw what was published");
                reader.leave();
                rig.slots.linger(claimed);
                rig.slots.release(slot, claimed.owner);
            }));
        }
        scope.spawn(move || {
            let mut writer = Writer::recover(rig.lanes[0].clone()).expect("sound");
            for number in 0..count {
                publish(rig, &mut writer, 0, reliable);
                // Dies and is succeeded, in another place of the lane each time.
                if number % 97 == 5 {
                    writer = Writer::recover(rig.lanes[0].clone()).expect("sound");
                }
            }
        });
        let looker = scope.spawn(move || {
            while !ended.load(Relaxed) {
                let told = rig.lanes[0].look_at_tail().expect("sound");
                assert!(told.is_none_or(|(sequence, _)| sequence <= count));
                rig.lanes[0].look_at_floor().expect("sound");
                std::thread::yield_now();
            }
        });
        for reader in readers {
            reader.join().expect("it read everything");
        }
        ended.store(true, Relaxed);
        looker.join().expect("it saw a sound lane");
    });
}

#[test]
fn a_reliable_lane_hands_every_byte_over() {
    one_lane(true);
}

#[test]
fn a_lossy_lane_hands_every_byte_over() {
    one_lane(false);
}

#[test]
fn an_order_log_hands_every_frame_over() {
    let count = scaled(2000);
    let rig = rig(2, 2);
    let subscribed: Vec<_> = (0..2)
        .map(|slot| {
            let claimed = rig.slots.claim(slot, 7, &rig.pins).expect("it is free");
            rig.slots.set_order_gate(slot, 0);
            (0..2).for_each(|lane| rig.slots.set_gate(slot, lane, 0));
            claimed
        })
        .collect();
    let published = &AtomicU64::new(0);
    std::thread::scope(|scope| {
        for lane in 0..2 {
            scope.spawn(move || {
                let mut writer = Writer::recover(rig.lanes[lane].clone()).expect("sound");
                let mut permitted = 0;
                for _ in 0..count {
                    while rig.order.reserve(&rig.slots, true, &mut permitted).is_err() {
                        std::thread::yield_now();
                    }
                    let position = publish(rig, &mut writer, lane, true);
                    let place = Place { lane, position };
                    rig.order.append(place).expect("nobody else appends it");
                    published.fetch_add(1, Relaxed);
                }
            });
        }
        for claimed in subscribed {
            scope.spawn(move || {
                let slot = claimed.slot;
                let mut readers: Vec<Reader> =
                    rig.lanes.iter().map(|lane| Reader::new(lane.clone(), slot)).collect();
                let mut index = 0;
                while index < 2 * count {
                    let Found::Place(place) = rig.order.read(index) else {
                        rig.order.check_wait(index).expect("sound");
                        std::thread::yield_now();
                        continue;
                    };
                    let reader = &mut readers[place.lane];
                    if reader.pinned().is_none() || reader.position() != place.position {
                        assert_eq!(reader.seek_position(place.position), Ok(true));
                    }
                    let Poll::Frame { offset, len } = reader.poll() else {
                        panic!("it was committed before")
                    };
                    let expected = content(place.lane as u32, reader.sequence(), len);
                    assert_eq!(reader.lane().payload(offset, len), expected);
                    reader.advance(len);
                    rig.slots.set_gate(slot, place.lane, reader.position());
                    index += 1;
                    rig.slots.set_order_gate(slot, index);
                }
                readers.iter_mut().for_each(Reader::leave);
            });
        }
    });
    assert_eq!(published.load(Relaxed), 2 * count);
}
