//! Taking a segment back: which one, from whom, and who stands in the way.
//!
//! The publisher first looks for a segment that is not mapped and not pinned. If there is none it retires its oldest
//! mapping and looks again; on a reliable topic only after every active gate has passed it.
//!
//! # Orderings
//!
//! | edge   | this side                                         | other side                    |
//! |--------|---------------------------------------------------|-------------------------------|
//! | `PIN`  | retire mapping, `fence(SeqCst)`, load pins        | `Reader::enter`               |
//! | `JOIN` | move the floor, `fence(SeqCst)`, scan the gates   | `Slots::establish`            |
//!
//! # If the publisher dies
//!
//! A retired mapping whose segment was not used yet is a free segment; a floor that was moved too early costs a
//! newcomer one segment of history. The successor needs to repair neither. Checked by `loom-tests/tests/pin.rs`.

use crate::layout::owner::State;
use crate::limits::SEGMENTS_MAX;
use crate::ring::slots::{Obstacle, Slots};
use crate::ring::writer::Writer;
use crate::sync::{fence, Ordering::*};

/// Why no segment can be taken right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocked {
    /// An active subscriber of a reliable topic has not read it yet.
    Gate(Obstacle),
    /// Somebody holds views into it.
    Pin(Obstacle),
    /// The table is damaged.
    Corrupt,
}

impl Writer {
    /// Finds a physical segment that may be written, retiring the oldest mappings if need be.
    pub fn take(&mut self, slots: &Slots, reliable: bool) -> Result<usize, Blocked> {
        loop {
            // PIN: mappings retired before this fence are either seen retired by a reader that pins, or its pin is
            // seen here.
            fence(SeqCst);
            let holder = match self.find_free(slots)? {
                Ok(physical) => return Ok(physical),
                Err(holder) => holder,
            };
            if self.oldest == self.logical {
                return Err(holder.map_or(Blocked::Corrupt, Blocked::Pin));
            }
            self.retire_oldest(slots, reliable)?;
        }
    }

    /// A segment that no live mapping names and nobody pins, or one who pins such a segment.
    fn find_free(&self, slots: &Slots) -> Result<Result<usize, Option<Obstacle>>, Blocked> {
        let segments = self.lane.segments();
        let mut live = [0u64; SEGMENTS_MAX as usize / 64];
        for logical in self.oldest..=self.logical {
            let physical = self.lane.entry(logical).map_err(|_| Blocked::Corrupt)?.physical();
            live[physical / 64] |= 1 << (physical % 64);
        }
        let mut holder = None;
        // Start behind the newest, so that segments are used in turn.
        let start = self.logical as usize + 1;
        for turn in 0..segments {
            let physical = (start + turn) % segments;
            if live[physical / 64] >> (physical % 64) & 1 == 1 {
                continue;
            }
            match self.holder_of(physical, slots) {
                None => return Ok(Ok(physical)),
                Some(obstacle) => holder = Some(obstacle),
            }
        }
        Ok(Err(holder))
    }

    /// Somebody who pins the segment.
    fn holder_of(&self, physical: usize, slots: &Slots) -> Option<Obstacle> {
        (0..slots.high()).find_map(|slot| {
            if self.lane.pins().count(self.lane.index(), physical, slot) == 0 {
                return None;
            }
            // The owner is loaded after the counter: if the slot is free now, the holder is gone for good. Who is
            // joining has pinned nothing yet: the counter is that of an earlier owner, and a joiner may stop before it
            // is cleared.
            let owner = slots.owner(slot);
            let holds = !owner.is_free() && owner.state() != Some(State::Joining);
            holds.then_some(Obstacle { slot, owner, at: physical as u64 })
        })
    }

    /// Takes the oldest mapping back, if its readers allow it.
    fn retire_oldest(&mut self, slots: &Slots, reliable: bool) -> Result<(), Blocked> {
        let lane = &self.lane;
        let end = lane.position(self.oldest + 1, 0);
        if reliable {
            // A look before the floor moves: while a gate is in the way newcomers should still get this segment.
            if let Some(obstacle) = slots.slowest(lane.index(), end) {
                return Err(Blocked::Gate(obstacle));
            }
        }
        step!("recycle.floor");
        if lane.floor().map_err(|_| Blocked::Corrupt)? <= self.oldest {
            lane.set_floor(self.oldest + 1);
        }
        if reliable {
            // JOIN: pairs with the fence in `Slots::establish`.
            fence(SeqCst);
            if let Some(obstacle) = slots.slowest(lane.index(), end) {
                return Err(Blocked::Gate(obstacle));
            }
        }
        step!("recycle.retire");
        let entry = lane.entry(self.oldest).map_err(|_| Blocked::Corrupt)?;
        // MAP: whoever sees the mapping retired sees the floor above it. The fence of PIN in `take` does the rest.
        lane.entry_word(self.oldest).store(entry.retired().0, Release);
        self.oldest += 1;
        Ok(())
    }
}
