//! Subscriber slots: who subscribes, how far each has read, and whose death frees what.
//!
//! ```text
//!   slot:  │ owner │ sleeping │ order gate │ received │ missed │ … │ gate of lane 0 │ gate of lane 1 │ …
//! ```
//!
//! A *gate* is a subscriber's cursor in a lane. On a reliable topic a publisher takes no segment back that an active
//! gate has not passed. [`NO_GATE`] holds nobody up.
//!
//! # Invariants
//!
//! * `I1` — Free → Joining → Active → {Evicted, Lingering} → Free; every arrow is one compare-and-swap of the owner
//!   word from exactly the value seen.
//! * `I2` — Only the owner stores gates and pins; a reaper touches nothing but the owner word.
//! * `I3` — Gates count while the slot is Active, pins while it is neither Free nor Joining.
//! * `I4` — `high` is above every slot that was ever owned.
//!
//! # Orderings
//!
//! | edge   | `Release`                            | `Acquire`                     | hands over                          |
//! |--------|--------------------------------------|-------------------------------|-------------------------------------|
//! | `SLOT` | every change of an owner word        | every load of an owner word   | the slot with all that it contains  |
//! | `GATE` | a gate store                         | a gate load in `slowest`      | the bytes before the gate           |
//! | `JOIN` | gate store, `fence(SeqCst)`, floor load | floor store, `fence(SeqCst)`, gate load | one side sees the other |
//!
//! # If a process dies
//!
//! Its slot keeps its word. Whoever is hindered by it asks the kernel whether the node of that word lives, and frees
//! the slot if not. Checked by `loom-tests/tests/slot.rs`, `join.rs`, `evict.rs`.

use crate::layout::owner::{Owner, State};
use crate::limits::LINE;
use crate::ring::pins::Pins;
use crate::shm::place::Region;
use crate::sync::{fence, AtomicU64, Ordering::*};

/// The gate of a lane that holds nobody up.
pub const NO_GATE: u64 = u64::MAX;

const OWNER_AT: usize = 0;
const SLEEPING_AT: usize = 8;
const ORDER_GATE_AT: usize = 16;
const RECEIVED_AT: usize = 24;
const MISSED_AT: usize = 32;
/// Of a slot of a queue: the word on which its owner sleeps. (A modelled slot has no room for a word that topics do not
/// use.)
const FUTEX_AT: usize = if cfg!(windlass_loom) { MISSED_AT } else { 48 };
const GATES_AT: usize = LINE;

/// What a sleeper of a queue waits on: the value of a futex word.
#[cfg(not(windlass_loom))]
pub type Ticket = u32;
/// What a sleeper of a queue waits on: a modelled region has one futex word, so this is an ordinary one.
#[cfg(windlass_loom)]
pub type Ticket = u64;

/// All subscriber slots of a topic.
#[derive(Clone)]
pub struct Slots {
    region: Region,
    at: usize,
    high_at: usize,
    count: usize,
    lanes: usize,
    stride: usize,
}

/// A slot that this process owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Index of the slot.
    pub slot: usize,
    /// The word that says so, in state Active.
    pub owner: Owner,
}

/// A subscriber that stands in the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Obstacle {
    /// Index of its slot.
    pub slot: usize,
    /// The owner word that was seen there.
    pub owner: Owner,
    /// Its gate, or the position that it pins.
    pub at: u64,
}

impl Slots {
    /// The slots that begin at byte `at`; `high_at` is the byte offset of the high-water word.
    pub fn new(region: Region, at: usize, high_at: usize, count: usize, lanes: usize) -> Self {
        Self { region, at, high_at, count, lanes, stride: Self::stride(lanes) }
    }

    fn stride(lanes: usize) -> usize {
        LINE + (lanes * 8).next_multiple_of(LINE)
    }

    /// Bytes of `count` slots.
    pub fn bytes(count: usize, lanes: usize) -> usize {
        count * Self::stride(lanes)
    }

    fn word(&self, slot: usize, field: usize) -> &AtomicU64 {
        debug_assert!(slot < self.count);
        self.region.word(self.at + slot * self.stride + field)
    }

    fn owner_word(&self, slot: usize) -> &AtomicU64 {
        self.word(slot, OWNER_AT)
    }

    /// How many slots the topic has.
    pub fn len(&self) -> usize {
        self.count
    }

    /// One above the highest slot that was ever owned.
    pub fn high(&self) -> usize {
        // Relaxed: raised before the slot's owner fences on JOIN or PIN, loaded after the other side's fence. An
        // input, hence the bound.
        (self.region.word(self.high_at).load(Relaxed) as usize).min(self.count)
    }

    /// Who owns the slot.
    pub fn owner(&self, slot: usize) -> Owner {
        // SLOT: pairs with every change of an owner word.
        Owner(self.owner_word(slot).load(Acquire))
    }

    /// Whether the slot is still what `claimed` says, and not evicted.
    pub fn is_active(&self, claimed: Claimed) -> bool {
        self.owner(claimed.slot) == claimed.owner
    }

    /// Whether a publisher evicted the owner of the slot.
    pub fn is_evicted(&self, claimed: Claimed) -> bool {
        self.owner(claimed.slot) == claimed.owner.with(State::Evicted)
    }

    fn swap(&self, slot: usize, from: Owner, to: Owner) -> bool {
        // SLOT: pairs with `owner`. Acquire on success: the next owner clears what the last one left.
        self.owner_word(slot).compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Takes slot `slot` for `node` if it is free, and clears what the last owner left in it.
    pub fn claim(&self, slot: usize, node: u32, pins: &Pins) -> Option<Claimed> {
        let seen = self.owner(slot);
        if !seen.is_free() {
            return None;
        }
        step!("slot.claim");
        let joining = seen.succeeded_by(node, State::Joining);
        if !self.swap(slot, seen, joining) {
            return None;
        }
        step!("slot.pins");
        pins.clear(slot);
        for lane in 0..self.lanes {
            step!("slot.clear");
            // Relaxed: published by the swap to Active below.
            self.gate(slot, lane).store(NO_GATE, Relaxed);
        }
        for field in [SLEEPING_AT, RECEIVED_AT, MISSED_AT] {
            self.word(slot, field).store(0, Relaxed);
        }
        self.order_gate(slot).store(NO_GATE, Relaxed);
        step!("slot.high");
        self.region.word(self.high_at).fetch_max(slot as u64 + 1, Relaxed);
        step!("slot.activate");
        let owner = joining.with(State::Active);
        // Nobody else swaps the word of a living node that is joining.
        self.swap(slot, joining, owner).then_some(Claimed { slot, owner })
    }

    /// Lets go of the gates but keeps the slot for the views that still live.
    pub fn linger(&self, claimed: Claimed) {
        let mut seen = self.owner(claimed.slot);
        // If the word was damaged, the slot may be somebody else's by now.
        if !seen.is_same(claimed.owner) {
            return;
        }
        for lane in 0..self.lanes {
            step!("slot.ungate");
            // GATE: everything before was read.
            self.gate(claimed.slot, lane).store(NO_GATE, Release);
        }
        self.order_gate(claimed.slot).store(NO_GATE, Release);
        step!("slot.linger");
        // An eviction may come in between; then the second round ends it.
        while !self.swap(claimed.slot, seen, seen.with(State::Lingering)) {
            seen = self.owner(claimed.slot);
            if !seen.is_same(claimed.owner) {
                return;
            }
        }
    }

    /// Gives a slot back that this process owns.
    pub fn release(&self, slot: usize, owner: Owner) {
        step!("slot.release");
        let mut seen = owner;
        while !self.swap(slot, seen, seen.with(State::Free)) {
            seen = self.owner(slot);
            if !seen.is_same(owner) || seen.is_free() {
                return;
            }
        }
    }

    /// Frees the slot of an owner that was proven dead. False if somebody was faster.
    pub fn reap(&self, slot: usize, dead: Owner) -> bool {
        step!("slot.reap");
        self.swap(slot, dead, dead.with(State::Free))
    }

    /// Takes the backlog of an active subscriber away, not its slot nor its pins.
    pub fn evict(&self, slot: usize, seen: Owner) -> bool {
        step!("slot.evict");
        seen.state() == Some(State::Active) && self.swap(slot, seen, seen.with(State::Evicted))
    }

    fn gate(&self, slot: usize, lane: usize) -> &AtomicU64 {
        self.word(slot, GATES_AT + lane * 8)
    }

    fn order_gate(&self, slot: usize) -> &AtomicU64 {
        self.word(slot, ORDER_GATE_AT)
    }

    /// Publishes how far the slot's owner has read in a lane.
    #[inline]
    pub fn set_gate(&self, slot: usize, lane: usize, position: u64) {
        step!("cursor.gate");
        // GATE: pairs with the load in `gate_of`.
        self.gate(slot, lane).store(position, Release);
    }

    /// Publishes how far the slot's owner has read in the order log.
    #[inline]
    pub fn set_order_gate(&self, slot: usize, index: u64) {
        step!("cursor.order");
        // GATE: pairs with the load in `order_gate_of`.
        self.order_gate(slot).store(index, Release);
    }

    /// The gate of a slot in a lane.
    pub fn gate_of(&self, slot: usize, lane: usize) -> u64 {
        // GATE: pairs with the store in `set_gate`.
        self.gate(slot, lane).load(Acquire)
    }

    /// The gate of a slot in the order log.
    pub fn order_gate_of(&self, slot: usize) -> u64 {
        // GATE: pairs with the store in `set_order_gate`.
        self.order_gate(slot).load(Acquire)
    }

    /// Puts a gate in force at the floor of what is still there, and returns that floor.
    ///
    /// `store` sets the gate, `floor` loads the floor. When this returns, everything from the floor on stays until
    /// the gate moves.
    pub fn establish(store: impl Fn(u64), floor: impl Fn() -> u64) -> u64 {
        let mut at = floor();
        loop {
            step!("join.gate");
            store(at);
            // JOIN: pairs with the fence between moving the floor and scanning the gates.
            fence(SeqCst);
            step!("join.check");
            let now = floor();
            if now == at {
                return at;
            }
            at = now;
        }
    }

    /// The active subscriber that has read least of `lane`, if any has not passed `position`.
    pub fn slowest(&self, lane: usize, position: u64) -> Option<Obstacle> {
        self.slowest_by(position, |slots, slot| slots.gate_of(slot, lane))
    }

    /// The active subscriber that has read least of the order log, if any has not passed `index`.
    pub fn slowest_in_order(&self, index: u64) -> Option<Obstacle> {
        self.slowest_by(index, |slots, slot| slots.order_gate_of(slot))
    }

    fn slowest_by(&self, limit: u64, gate: impl Fn(&Self, usize) -> u64) -> Option<Obstacle> {
        let mut slowest: Option<Obstacle> = None;
        for slot in 0..self.high() {
            let owner = self.owner(slot);
            if owner.state() != Some(State::Active) {
                continue;
            }
            let at = gate(self, slot);
            if at < limit && slowest.is_none_or(|other| at < other.at) {
                slowest = Some(Obstacle { slot, owner, at });
            }
        }
        slowest
    }

    /// Whether the owner of the slot is about to sleep or asleep.
    pub fn is_sleeping(&self, slot: usize) -> bool {
        // Relaxed: ordered by the swap of the hint, see `wake`.
        self.word(slot, SLEEPING_AT).load(Relaxed) != 0 && !self.owner(slot).is_free()
    }

    /// Says that the owner of the slot is about to sleep, or awake again.
    pub fn set_sleeping(&self, slot: usize, sleeping: bool) {
        // Relaxed: the hint that follows is stored with Release.
        self.word(slot, SLEEPING_AT).store(u64::from(sleeping), Relaxed);
    }

    /// Clears the flag of a sleeper; whether it was set, and nobody else has.
    pub fn rouse(&self, slot: usize) -> bool {
        // Relaxed: the word that is changed next is stored with Release, see `bells`.
        self.word(slot, SLEEPING_AT).compare_exchange(1, 0, Relaxed, Relaxed).is_ok()
    }

    /// The word on which the owner of a slot of a queue sleeps.
    #[cfg(not(windlass_loom))]
    pub fn futex(&self, slot: usize) -> &crate::sync::AtomicU32 {
        debug_assert!(slot < self.count);
        self.region.half(self.at + slot * self.stride + FUTEX_AT)
    }

    /// The word on which the owner of a slot of a queue sleeps.
    #[cfg(windlass_loom)]
    pub fn futex(&self, slot: usize) -> &AtomicU64 {
        self.word(slot, FUTEX_AT)
    }

    /// Publishes the counters of a subscriber.
    #[inline]
    pub fn set_counts(&self, slot: usize, received: u64, missed: u64) {
        // Relaxed: statistics.
        self.word(slot, RECEIVED_AT).store(received, Relaxed);
        self.word(slot, MISSED_AT).store(missed, Relaxed);
    }

    /// The counters of a subscriber: received and missed.
    pub fn counts(&self, slot: usize) -> (u64, u64) {
        // Relaxed: statistics.
        (self.word(slot, RECEIVED_AT).load(Relaxed), self.word(slot, MISSED_AT).load(Relaxed))
    }
}
