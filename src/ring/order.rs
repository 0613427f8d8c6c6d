//! The order log: one total order over the messages of all lanes of a topic.
//!
//! Appending is **one compare-and-swap of the slot itself**. The tail is a hint that anyone may advance, so there is no
//! state in which a place is claimed and empty, and no process can die inside one.
//!
//! # Invariants
//!
//! * `I1` — Place `s` is written once in its lap, by a swap from exactly the word of the lap before.
//! * `I2` — `tail` never passes a place that is not taken.
//! * `I3` — `ordered[lane]` covers a frame before `tail` passes the frame's place.
//! * `I4` — `lapped` is above a place before that place is overwritten, and `floor` is never below `lapped`.
//! * `I5` — On a reliable topic no active gate is below `lapped`. One may be below `floor`, which moves before the
//!   gates are scanned.
//!
//! # Orderings
//!
//! | edge      | `Release`                              | `Acquire`                          | hands over               |
//! |-----------|----------------------------------------|------------------------------------|--------------------------|
//! | `ORDER`   | swap of a slot in `append`             | slot load in `read` and `append`   | the committed frame      |
//! | `TAIL`    | swap of `tail` in `finish`             | tail load in `append`              | `ordered` of that frame  |
//! | `COVERED` | `fetch_max` of `ordered` in `finish`   | load of `ordered` in `append`      | "this frame is in"       |
//! | `FLOOR`   | `fetch_max` of `floor` in `reserve`    | floor load when joining            | see `JOIN` in `slots`    |
//! | `LAPPED`  | `fetch_max` of `lapped` before a swap  | `lapped` load in `read`            | "the place may be lost"  |
//!
//! # If a process dies
//!
//! Before the swap: its frame is in its lane and not in the log; whoever takes the lane's lease appends it, once. After
//! the swap: whoever appends next finishes the place. Checked by `loom-tests/tests/order.rs`.
//!
//! The one-word append with a helped tail follows the idea of the Michael and Scott queue (PODC 1996).

use crate::layout::order::{self as layout, Place};
use crate::ring::lane::Corrupt;
use crate::ring::slots::{Obstacle, Slots};
use crate::shm::place::Region;
use crate::sync::{fence, AtomicU64, Ordering::*};

/// Most places: decades of messages at any speed. A tail beyond it was written by nobody who publishes.
pub const TAIL_MAX: u64 = u64::MAX >> 2;

/// Looks at words that move meanwhile, before they count as sound.
const LOOKS_MAX: u32 = 100;

/// The order log of a topic.
#[derive(Clone)]
pub struct Order {
    region: Region,
    slots: u64,
    slots_at: usize,
    lanes: usize,
}

/// What lies at a place of the order log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing yet.
    Empty,
    /// It may have been overwritten. What is still there begins at the floor.
    Lapped,
    /// The frame that has this place.
    Place(Place),
    /// A lane that does not exist.
    Corrupt,
}

impl Order {
    /// The order log in `region`, with `slots` (a power of two) places for `lanes` lanes.
    pub fn new(region: Region, slots: u64, lanes: usize) -> Self {
        assert!(slots.is_power_of_two());
        assert!(region.len() as u64 >= layout::file_bytes(lanes, slots));
        Self { region, slots, slots_at: layout::slots_at(lanes), lanes }
    }

    fn slot(&self, index: u64) -> &AtomicU64 {
        self.region.word(self.slots_at + (index & (self.slots - 1)) as usize * 8)
    }

    fn tail_word(&self) -> &AtomicU64 {
        self.region.word(layout::TAIL_AT)
    }

    fn floor_word(&self) -> &AtomicU64 {
        self.region.word(layout::FLOOR_AT)
    }

    fn lapped_word(&self) -> &AtomicU64 {
        self.region.word(layout::LAPPED_AT)
    }

    fn ordered_word(&self, lane: usize) -> &AtomicU64 {
        self.region.word(layout::ORDERED_AT + lane * 8)
    }

    /// The next place, or one that is already taken but not yet counted.
    pub fn tail(&self) -> u64 {
        // TAIL: pairs with `finish`.
        self.tail_word().load(Acquire)
    }

    /// The first place that a newcomer may begin at.
    pub fn floor(&self) -> u64 {
        // FLOOR: pairs with the `fetch_max` in `reserve`; the fences of JOIN do the rest.
        self.floor_word().load(Acquire)
    }

    /// The first place that is certainly not overwritten.
    fn lapped(&self) -> u64 {
        // LAPPED: pairs with the `fetch_max` in `raise_lapped`.
        self.lapped_word().load(Acquire)
    }

    /// The position in `lane` below which every frame is in the log.
    pub fn ordered(&self, lane: usize) -> u64 {
        // COVERED: pairs with `finish`.
        self.ordered_word(lane).load(Acquire)
    }

    /// Makes sure that the next messages of all publishers have places that no subscriber still needs.
    ///
    /// Every publisher calls this before it builds a message, and has at most one message that is not appended. So
    /// room for one message of each, counted from the tail, is room for this one whenever it comes. `permitted` is
    /// what this publisher found out before: the index below which nobody needs anything.
    pub fn reserve(
        &self,
        slots: &Slots,
        reliable: bool,
        permitted: &mut u64,
    ) -> Result<(), Obstacle> {
        let needed = (self.tail().min(TAIL_MAX) + 1 + self.lanes as u64).saturating_sub(self.slots);
        if needed <= *permitted {
            return Ok(());
        }
        // Ahead by a piece of the ring, so that the fence and the scan are paid once per piece.
        let mut wanted = needed + self.slots / 16;
        if reliable {
            // A look before the floor moves: newcomers should get whatever is kept for somebody anyway.
            let slowest = slots.slowest_in_order(wanted);
            if let Some(obstacle) = slowest.filter(|slowest| slowest.at < needed) {
                return Err(obstacle);
            }
            wanted = slowest.map_or(wanted, |slowest| slowest.at);
        }
        step!("order.floor");
        // FLOOR: pairs with `floor`.
        self.floor_word().fetch_max(wanted, AcqRel);
        if reliable {
            // JOIN: pairs with the fence in `Slots::establish`.
            fence(SeqCst);
            if let Some(obstacle) = slots.slowest_in_order(wanted) {
                if obstacle.at < needed {
                    return Err(obstacle);
                }
                wanted = obstacle.at;
            }
        }
        // Not before the scan: a newcomer whose gate was seen there reads below the floor.
        self.raise_lapped(wanted);
        *permitted = wanted;
        Ok(())
    }

    /// Appends a committed frame, unless it is in the log already or the log is damaged; returns its place if this
    /// call put it there.
    ///
    /// The publisher and whoever repairs after it go through this one routine.
    pub fn append(&self, place: Place) -> Option<u64> {
        loop {
            let index = self.tail();
            if index > TAIL_MAX {
                return None;
            }
            // ORDER: pairs with the swap below.
            let word = self.slot(index).load(Acquire);
            step!("order.covered");
            if self.ordered(place.lane) > place.position {
                return None;
            }
            // The word belongs to `index` only if the tail has not moved: one lap bit cannot tell two laps apart.
            if self.tail() != index {
                continue;
            }
            if layout::is_taken(word, index, self.slots) {
                self.finish(index, word);
                continue;
            }
            // Publishers reserve ahead; this is for whoever repairs after one that did not.
            self.raise_lapped((index + 1).saturating_sub(self.slots));
            step!("order.swap");
            let mine = layout::pack(place, index, self.slots);
            // ORDER: pairs with the load above and in `read`.
            if self.slot(index).compare_exchange(word, mine, AcqRel, Relaxed).is_ok() {
                self.finish(index, mine);
                return Some(index);
            }
        }
    }

    /// Says that places below `limit` may be overwritten from now on.
    fn raise_lapped(&self, limit: u64) {
        if self.lapped() < limit {
            step!("order.lap");
            // FLOOR: pairs with `floor`. A reader that finds its place lapped goes on at the floor.
            self.floor_word().fetch_max(limit, AcqRel);
            step!("order.lapped");
            // LAPPED: pairs with `lapped`.
            self.lapped_word().fetch_max(limit, AcqRel);
        }
    }

    /// Does what is left to do for a taken place, in this order: the lane's counter, then the tail.
    fn finish(&self, index: u64, word: u64) {
        let place = layout::unpack(word);
        if place.lane < self.lanes {
            step!("order.cover");
            // COVERED: pairs with `ordered`.
            self.ordered_word(place.lane).fetch_max(place.position + 8, AcqRel);
        }
        step!("order.tail");
        // TAIL: pairs with `tail`. Failing means that somebody else advanced it.
        let _ = self.tail_word().compare_exchange(index, index + 1, AcqRel, Relaxed);
    }

    /// The mark at the end of its file.
    #[cfg(not(windlass_loom))]
    pub fn last(&self) -> u64 {
        self.region.last()
    }

    /// Finishes the place at the tail if a publisher died in between, so that `ordered` can be believed.
    pub fn settle(&self) {
        loop {
            let index = self.tail();
            // ORDER: pairs with the swap in `append`.
            let word = self.slot(index).load(Acquire);
            if self.tail() != index {
                continue;
            }
            if !layout::is_taken(word, index, self.slots) || index > TAIL_MAX {
                return;
            }
            self.finish(index, word);
        }
    }

    /// Fails if the tail, the floor and the place before the tail cannot be what publishers wrote.
    ///
    /// To be asked before anything is appended. A tail that moved by damage would be believed otherwise: the log would
    /// get a gap, or lose what it overwrites.
    pub fn check(&self) -> Result<(), Corrupt> {
        for _ in 0..LOOKS_MAX {
            // In this order each may be too old for the next one, and never too new.
            let (lapped, floor, tail) = (self.lapped(), self.floor(), self.tail());
            let last_is_taken = tail.checked_sub(1).is_none_or(|last| {
                // ORDER: pairs with the swap in `append`.
                layout::is_taken(self.slot(last).load(Acquire), last, self.slots)
            });
            let bounded = tail <= TAIL_MAX && lapped <= floor && floor <= tail;
            if bounded && tail - lapped <= self.slots && last_is_taken {
                return Ok(());
            }
            if (self.lapped(), self.floor(), self.tail()) == (lapped, floor, tail) {
                return Err(Corrupt);
            }
        }
        // It moves: publishers wrote it a moment ago.
        Ok(())
    }

    /// Fails if a reader that found nothing at place `index` waits in vain: the tail passed that place.
    pub fn check_wait(&self, index: u64) -> Result<(), Corrupt> {
        if self.tail() > index && self.read(index) == Found::Empty {
            return Err(Corrupt);
        }
        Ok(())
    }

    /// The position of the newest frame of `lane` that is still in the log.
    ///
    /// Walks the log backwards. For repairs.
    pub fn newest_of(&self, lane: usize) -> Option<u64> {
        let tail = self.tail();
        (tail.saturating_sub(self.slots)..tail).rev().find_map(|index| match self.read(index) {
            Found::Place(place) if place.lane == lane => Some(place.position),
            _ => None,
        })
    }

    /// Looks at a place.
    #[inline]
    pub fn read(&self, index: u64) -> Found {
        // ORDER: pairs with the swap in `append`.
        let word = self.slot(index).load(Acquire);
        // After the slot: an overwriter raises `lapped` before it swaps.
        if self.lapped() > index {
            return Found::Lapped;
        }
        if !layout::is_taken(word, index, self.slots) {
            return Found::Empty;
        }
        let place = layout::unpack(word);
        if place.lane >= self.lanes {
            return Found::Corrupt;
        }
        Found::Place(place)
    }
}
