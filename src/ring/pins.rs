//! Pins: how many times each subscriber slot holds each physical segment.
//!
//! A reader that stays in a segment, and every view into it, counts once. A pinned segment is never written.
//!
//! # Invariants
//!
//! * `I1` — A counter is changed by the owner of its slot only; several of its threads may do so at once, hence
//!   read-modify-write and never a bit guarded by a local count.
//! * `I2` — A counter of a free slot means nothing. The next owner of the slot clears it before it pins.
//!
//! # Orderings
//!
//! | edge    | one side                                   | other side                                    |
//! |---------|--------------------------------------------|-----------------------------------------------|
//! | `PIN`   | count up, `fence(SeqCst)`, load mapping    | retire mapping, `fence(SeqCst)`, load counter |
//! | `UNPIN` | `Release` count down                       | `Acquire` load of the counter                 |
//!
//! `PIN` is the store-load litmus: at least one side sees the other. `UNPIN` hands the bytes back to the publisher.
//!
//! # If a process dies
//!
//! Its counters stay. Whoever is hindered proves the owner of the slot dead and frees the slot (see
//! [`slots`](super::slots)). Checked by `loom-tests/tests/pin.rs`.

use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::Acquire, Ordering::Relaxed, Ordering::Release};

/// The pin counters of one topic.
#[derive(Clone)]
pub struct Pins {
    region: Region,
    at: usize,
    lanes: usize,
    segments: usize,
    slots: usize,
}

impl Pins {
    /// The counters that begin at byte `at` of the control file.
    pub fn new(region: Region, at: usize, lanes: usize, segments: usize, slots: usize) -> Self {
        Self { region, at, lanes, segments, slots }
    }

    /// Bytes of all counters.
    pub fn bytes(lanes: usize, segments: usize, slots: usize) -> usize {
        lanes * segments * slots * 8
    }

    #[inline]
    fn counter(&self, lane: usize, physical: usize, slot: usize) -> &AtomicU64 {
        debug_assert!(lane < self.lanes && physical < self.segments && slot < self.slots);
        let index = (lane * self.segments + physical) * self.slots + slot;
        self.region.word(self.at + index * 8)
    }

    /// Counts one more holder. The caller fences before it trusts the pin.
    #[inline]
    pub fn pin(&self, lane: usize, physical: usize, slot: usize) {
        // Relaxed: the fence of the PIN edge follows, or the segment is pinned already by the caller.
        self.counter(lane, physical, slot).fetch_add(1, Relaxed);
    }

    /// Counts one holder less.
    #[inline]
    pub fn unpin(&self, lane: usize, physical: usize, slot: usize) {
        // UNPIN: what this holder read is read; pairs with the load in `count`.
        self.counter(lane, physical, slot).fetch_sub(1, Release);
    }

    /// How many holders the slot has on the segment.
    #[inline]
    pub fn count(&self, lane: usize, physical: usize, slot: usize) -> u64 {
        // UNPIN: pairs with `unpin`.
        self.counter(lane, physical, slot).load(Acquire)
    }

    /// Clears every counter of a slot. Only its new owner, before it pins anything.
    pub fn clear(&self, slot: usize) {
        for lane in 0..self.lanes {
            for physical in 0..self.segments {
                // UNPIN: what the last owner read is read, by the SLOT edge, and the publisher may see this zero
                // instead of that owner's own; pairs with the load in `count`.
                self.counter(lane, physical, slot).store(0, Release);
            }
        }
    }
}
