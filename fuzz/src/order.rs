//! The order log: publishers that append, and repairers that append after them, against a list of what
//! was appended. Then the same on damaged words.

use crate::damage::Damage;
use crate::memory::region;
use arbitrary::{Arbitrary, Unstructured};
use std::sync::atomic::Ordering::Relaxed;
use windlass::layout::order::{self as layout, Place, TAIL_AT};
use windlass::ring::order::{Found, Order};
use windlass::ring::slots::{Claimed, Slots};
use windlass::shm::place::Region;

const LANES: usize = 3;
const READERS: usize = 2;
const SLOTS_AT: usize = 128;
/// The proportion of places to publishers is that of the library.
const PLACES: u64 = 16;

#[derive(Arbitrary, Debug)]
enum Step {
    /// A publisher of a lane reserves and appends its next frame.
    Publish(u8),
    /// Somebody appends a frame again that is in the log already.
    Repeat(u8),
    /// A publisher dies after it took a place and before it told the tail.
    ForgetTail,
    /// Somebody finishes what the dead left.
    Settle,
    /// A reader begins at the floor.
    Begin(u8),
    /// A reader reads up to so many places.
    Read(u8, u8),
    /// Everything is looked at.
    Check(u8),
    /// A word of the log becomes another one.
    Damage(u16, Damage),
    /// A word of the slots becomes another one.
    DamageSlots(u16, Damage),
}

struct World {
    reliable: bool,
    log: Region,
    control: Region,
    order: Order,
    slots: Slots,
    readers: [(Claimed, u64); READERS],
    permitted: [u64; LANES],
    next: [u64; LANES],
    appended: Vec<Place>,
    damaged: bool,
}

/// Does what the bytes say.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(reliable) = bool::arbitrary(&mut bytes) else { return };
    let mut world = World::new(reliable);
    for _ in 0..400 {
        let Ok(step) = Step::arbitrary(&mut bytes) else { return };
        if bytes.is_empty() {
            return;
        }
        world.step(step);
    }
}

impl World {
    fn new(reliable: bool) -> Self {
        let control = region(SLOTS_AT + Slots::bytes(READERS, LANES) + 64);
        let log = region(layout::file_bytes(LANES, PLACES) as usize);
        let order = Order::new(log.clone(), PLACES, LANES);
        let slots = Slots::new(control.clone(), SLOTS_AT, 0, READERS, LANES);
        // No pins: nobody holds a segment here.
        let pins = windlass::ring::pins::Pins::new(control.clone(), SLOTS_AT, 0, 0, READERS);
        let claim = |slot| (slots.claim(slot, 7, &pins).expect("it is free"), 0);
        let readers = [claim(0), claim(1)];
        readers.iter().for_each(|(claimed, _)| slots.set_order_gate(claimed.slot, 0));
        let (permitted, next) = ([0; LANES], [16; LANES]);
        let (appended, damaged) = (Vec::new(), false);
        let world = Self {
            reliable,
            log,
            control,
            order,
            slots,
            readers,
            permitted,
            next,
            appended,
            damaged,
        };
        assert_eq!(world.order.check(), Ok(()));
        world
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish(lane) => self.publish(usize::from(lane) % LANES),
            Step::Repeat(back) => {
                let from_end = usize::from(back) % PLACES as usize;
                if let Some(place) = self.appended.iter().rev().nth(from_end) {
                    let again = self.order.append(*place);
                    assert!(self.damaged || again.is_none(), "{place:?} has its place");
                }
            }
            Step::ForgetTail => {
                let tail = self.log.word(TAIL_AT);
                let taken = tail.load(Relaxed);
                // Only the newest place can be one that the tail does not know of.
                if !self.damaged && taken > 0 && taken == self.appended.len() as u64 {
                    tail.store(taken - 1, Relaxed);
                    self.order.settle();
                    assert_eq!(tail.load(Relaxed), taken, "it is told by whoever comes next");
                }
            }
            Step::Settle => {
                self.order.settle();
                if !self.damaged {
                    assert_eq!(self.order.check(), Ok(()));
                    assert_eq!(self.order.tail(), self.appended.len() as u64);
                }
            }
            Step::Begin(who) => {
                let (claimed, index) = &mut self.readers[usize::from(who) % READERS];
                let store = |at| self.slots.set_order_gate(claimed.slot, at);
                *index = Slots::establish(store, || self.order.floor());
                assert!(self.damaged || *index <= self.appended.len() as u64);
            }
            Step::Read(who, count) => self.read(usize::from(who) % READERS, count),
            Step::Check(lane) => {
                let lane = usize::from(lane) % LANES;
                let (sound, newest) = (self.order.check(), self.order.newest_of(lane));
                if !self.damaged {
                    assert_eq!(sound, Ok(()));
                    let last = self.appended.iter().rev().find(|place| place.lane == lane);
                    assert!(newest.is_none() || newest == last.map(|place| place.position));
                    let covered = last.map_or(0, |place| place.position + 8);
                    assert_eq!(self.order.ordered(lane), covered);
                }
            }
            Step::Damage(at, damage) => {
                // The first page is the header, which nobody reads here.
                let words = (self.log.len() - TAIL_AT) / 8;
                self.damage(false, TAIL_AT + usize::from(at) % words * 8, damage);
            }
            Step::DamageSlots(at, damage) => {
                let words = self.control.len() / 8;
                self.damage(true, usize::from(at) % words * 8, damage);
            }
        }
    }

    fn damage(&mut self, control: bool, at: usize, damage: Damage) {
        let region = if control { &self.control } else { &self.log };
        let word = region.word(at);
        word.store(damage.of(word.load(Relaxed)), Relaxed);
        self.damaged = true;
    }

    fn publish(&mut self, lane: usize) {
        let reserved = self.order.reserve(&self.slots, self.reliable, &mut self.permitted[lane]);
        if reserved.is_err() {
            assert!(self.damaged || self.reliable, "nobody holds up a lossy topic");
            return;
        }
        let place = Place { lane, position: self.next[lane] };
        self.next[lane] += 24;
        let index = self.order.append(place);
        if !self.damaged {
            assert_eq!(index, Some(self.appended.len() as u64), "places are dense");
        }
        self.appended.push(place);
    }

    fn read(&mut self, who: usize, count: u8) {
        let (claimed, index) = &mut self.readers[who];
        for _ in 0..count {
            match self.order.read(*index) {
                Found::Place(place) => {
                    assert!(place.lane < LANES, "a lane that is not there");
                    let there = self.appended.get(*index as usize);
                    assert!(self.damaged || there == Some(&place), "another frame is there");
                    *index = index.saturating_add(1);
                }
                Found::Empty => {
                    let end = self.appended.len() as u64;
                    assert!(self.damaged || *index == end, "a place was forgotten");
                    assert!(self.damaged || self.order.check_wait(*index).is_ok());
                    break;
                }
                Found::Lapped => {
                    let floor = self.order.floor();
                    assert!(self.damaged || !self.reliable, "a gate was overtaken");
                    assert!(self.damaged || floor > *index, "it goes on further on");
                    *index = floor;
                }
                Found::Corrupt => {
                    assert!(self.damaged, "a sound log is read");
                    break;
                }
            }
        }
        if self.reliable {
            self.slots.set_order_gate(claimed.slot, *index);
        }
    }
}
