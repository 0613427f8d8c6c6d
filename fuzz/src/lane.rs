//! One lane: a writer that dies and is succeeded, and readers that come and go, against a list of what
//! was published. Then the same on damaged words, which must end within bounds and stay inside.

use crate::damage::Damage;
use crate::memory::region;
use arbitrary::{Arbitrary, Unstructured};
use std::sync::atomic::Ordering::Relaxed;
use windlass::layout::lane as layout;
use windlass::ring::lane::{Corrupt, Lane};
use windlass::ring::pins::Pins;
use windlass::ring::reader::{Entered, Poll, Reader};
use windlass::ring::slots::{Claimed, Slots, NO_GATE};
use windlass::ring::writer::Writer;
use windlass::shm::place::Region;

const READERS: usize = 3;
const SLOTS_AT: usize = 128;

/// How large the lane is, and what it does when it is full.
#[derive(Arbitrary, Debug)]
struct Shape {
    reliable: bool,
    segments: u8,
    segment_bytes: u8,
}

/// Where a reader begins.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Start {
    Oldest,
    Latest,
    Sequence(u16),
    Position(u32),
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A message of so many bytes.
    Publish(u8),
    /// A loan of so many bytes that is filled and comes to nothing.
    Abandon(u8),
    /// The writer dies and is succeeded.
    Succeed,
    /// A reader begins.
    Begin(u8, Start),
    /// A reader takes up to so many messages.
    Read(u8, u8),
    /// A reader leaves.
    Leave(u8),
    /// Somebody looks from outside.
    Look,
    /// A word of the lane becomes another one.
    DamageLane(u16, Damage),
    /// A word of the slots, gates or pins becomes another one.
    DamageControl(u16, Damage),
}

struct Follower {
    claimed: Claimed,
    reader: Reader,
}

struct World {
    shape: Shape,
    lane: Lane,
    data: Region,
    control: Region,
    slots: Slots,
    pins: Pins,
    writer: Option<Writer>,
    published: Vec<Vec<u8>>,
    followers: [Option<Follower>; READERS],
    damaged: bool,
}

/// Does what the bytes say.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(shape) = Shape::arbitrary(&mut bytes) else { return };
    let mut world = World::new(shape);
    for _ in 0..400 {
        let Ok(step) = Step::arbitrary(&mut bytes) else { return };
        if bytes.is_empty() {
            return;
        }
        world.step(step);
    }
}

impl World {
    fn new(shape: Shape) -> Self {
        let segments = 3 + usize::from(shape.segments % 4);
        let segment_bytes = 64 << (shape.segment_bytes % 4);
        let pins_at = SLOTS_AT + Slots::bytes(READERS, 1);
        let control = region(pins_at + Pins::bytes(1, segments, READERS));
        let data = region(layout::file_bytes(segments, segment_bytes) as usize);
        let pins = Pins::new(control.clone(), pins_at, 1, segments, READERS);
        let slots = Slots::new(control.clone(), SLOTS_AT, 0, READERS, 1);
        let lane = Lane::new(data.clone(), pins.clone(), 0, segments, segment_bytes);
        lane.init();
        let writer = Writer::recover(lane.clone()).ok();
        let (published, followers) = (Vec::new(), [const { None }; READERS]);
        let damaged = false;
        Self { shape, lane, data, control, slots, pins, writer, published, followers, damaged }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(len) => self.publish(len.into()),
            Step::Abandon(len) => {
                let Some(writer) = &mut self.writer else { return };
                if writer.has_room(len.into()) {
                    let clean = writer.lend();
                    writer.space(len.into()).fill(0xee);
                    let _ = clean;
                }
            }
            Step::Succeed => {
                self.writer = None;
                let heir = Writer::recover(self.lane.clone());
                assert!(self.damaged || heir.is_ok(), "a sound lane is taken over");
                self.writer = heir.ok();
                if let (Some(writer), false) = (&self.writer, self.damaged) {
                    assert_eq!(writer.sequence(), self.published.len() as u64);
                    let mut count = 0;
                    writer.lane().positions_from(0, |_| count += 1).expect("it is sound");
                    assert!(count <= self.published.len());
                }
            }
            Step::Begin(who, start) => self.begin(usize::from(who) % READERS, start),
            Step::Read(who, count) => {
                let who = usize::from(who) % READERS;
                if let Some(mut follower) = self.followers[who].take() {
                    if self.read(&mut follower, count) == Ok(()) {
                        self.followers[who] = Some(follower);
                    } else {
                        assert!(self.damaged, "a sound lane is read");
                        self.leave(follower);
                    }
                }
            }
            Step::Leave(who) => {
                if let Some(follower) = self.followers[usize::from(who) % READERS].take() {
                    self.leave(follower);
                }
            }
            Step::Look => {
                let (tail, floor) = (self.lane.look_at_tail(), self.lane.look_at_floor());
                if !self.damaged {
                    let tail = tail.expect("sound").expect("nobody is faster");
                    assert_eq!(tail.0, self.published.len() as u64);
                    assert!(floor.expect("sound").expect("nobody is faster") <= tail.0);
                }
            }
            Step::DamageLane(at, damage) => {
                // Headers and tables come first, and deserve most of it.
                let words = self.data.len() / 8;
                let at = match at % 4 {
                    0 => 16 + usize::from(at / 4) % 2,
                    1 => 128 + usize::from(at / 4) % 8,
                    _ => 512 + usize::from(at / 4) % (words - 512),
                };
                let word = self.data.word(at * 8);
                word.store(damage.of(word.load(Relaxed)), Relaxed);
                self.damaged = true;
            }
            Step::DamageControl(at, damage) => {
                let word = self.control.word(usize::from(at) % (self.control.len() / 8) * 8);
                word.store(damage.of(word.load(Relaxed)), Relaxed);
                self.damaged = true;
            }
        }
    }

    fn publish(&mut self, len: usize) {
        let Some(writer) = &mut self.writer else { return };
        let most = self.lane.segment_bytes() - 32;
        let len = len.min(most);
        if !writer.has_room(len) {
            match writer.take(&self.slots, self.shape.reliable) {
                Ok(physical) => writer.roll(physical),
                Err(_) => return,
            }
        }
        assert!(writer.has_room(len), "a fresh segment takes every message");
        let number = writer.sequence();
        let bytes: Vec<u8> = (0..len).map(|at| (number as usize * 7 + at) as u8).collect();
        writer.clean(len);
        writer.space(len).copy_from_slice(&bytes);
        writer.commit(len, len);
        if !self.damaged {
            assert_eq!(number, self.published.len() as u64);
        }
        self.published.push(bytes);
    }

    fn begin(&mut self, who: usize, start: Start) {
        if let Some(follower) = self.followers[who].take() {
            self.leave(follower);
        }
        let Some(claimed) = self.slots.claim(who, 7, &self.pins) else {
            assert!(self.damaged, "the slot is free");
            return;
        };
        let mut reader = Reader::new(self.lane.clone(), who);
        let end = self.published.len() as u64;
        if self.shape.reliable {
            let lane = &self.lane;
            let store = |floor| self.slots.set_gate(who, 0, lane.position(floor, 0));
            Slots::establish(store, || lane.floor().unwrap_or(0));
        }
        let begun = reader.seek_oldest().and_then(|()| match start {
            Start::Oldest => Ok(true),
            Start::Latest => reader.seek_latest().map(|()| {
                assert!(self.damaged || reader.sequence() == end, "it begins behind the newest");
                true
            }),
            Start::Sequence(wanted) => {
                let oldest = reader.sequence();
                let found = reader.seek_sequence(wanted.into())?;
                let there = (oldest..=end).contains(&wanted.into());
                assert!(self.damaged || found == there, "what is retained is found");
                Ok(found)
            }
            Start::Position(wanted) => {
                // Only frames have positions; anything else is damage.
                let _ = reader.seek_position(wanted.into());
                Ok(false)
            }
        });
        assert!(self.damaged || begun.is_ok(), "a sound lane has a place to begin");
        let follower = Follower { claimed, reader };
        if begun == Ok(true) {
            self.followers[who] = Some(follower);
        } else {
            self.leave(follower);
        }
    }

    fn read(&self, follower: &mut Follower, count: u8) -> Result<(), Corrupt> {
        let Follower { reader, claimed } = follower;
        for _ in 0..count {
            match reader.poll() {
                Poll::Frame { offset, len } => {
                    // Every byte is touched, so that the sanitizer sees where it lies.
                    let payload = self.lane.payload(offset, len).to_vec();
                    if !self.damaged {
                        assert_eq!(payload, self.published[reader.sequence() as usize]);
                        let position = reader.position_of(offset);
                        let again = Reader::new(self.lane.clone(), claimed.slot);
                        self.stand(again, position, reader.sequence(), len);
                    }
                    reader.advance(len);
                }
                Poll::Empty => {
                    let due = reader.sequence();
                    assert!(self.damaged || due == self.published.len() as u64, "nothing is lost");
                    reader.check_wait()?;
                    break;
                }
                Poll::Next => {
                    let due = reader.sequence();
                    if reader.follow()? == Entered::Overtaken {
                        assert!(self.damaged || !self.shape.reliable, "a gate was overtaken");
                        reader.seek_oldest()?;
                        assert!(self.damaged || reader.sequence() > due, "it goes on further on");
                    }
                }
                Poll::Corrupt => return Err(Corrupt),
            }
        }
        let gate = if self.shape.reliable { reader.position() } else { NO_GATE };
        self.slots.set_gate(claimed.slot, 0, gate);
        Ok(())
    }

    /// A weak view of a message that was just read gives it back.
    fn stand(&self, mut again: Reader, position: u64, sequence: u64, len: usize) {
        let entered = again.stand_at(position, sequence);
        if entered == Ok(Entered::Overtaken) && !self.shape.reliable {
            // Taken back, and kept by the reader that stands in it: whoever comes now is too late.
            return;
        }
        assert_eq!(entered, Ok(Entered::Inside));
        assert!(matches!(again.poll(), Poll::Frame { len: there, .. } if there == len));
        again.leave();
    }

    fn leave(&self, mut follower: Follower) {
        follower.reader.leave();
        self.slots.linger(follower.claimed);
        self.slots.release(follower.claimed.slot, follower.claimed.owner);
    }
}
