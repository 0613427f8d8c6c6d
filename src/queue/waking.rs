//! Waking those who sleep beside [`Bells`]: consumers of a queue, servers and clients of a service.

use crate::ring::bells::{Bells, Pick};
use crate::shm::sys;
use crate::sync::{fence, Ordering::SeqCst};

/// Wakes one of those who may be asleep, and says how many woke.
#[cold]
pub fn wake_one(bells: &Bells) -> u64 {
    loop {
        match bells.pick() {
            Pick::Nobody => return 0,
            // Nobody waits there if its owner is dead, or has not fallen asleep yet and looks again.
            Pick::One(slot) => {
                if wake(bells, slot) {
                    return 1;
                }
            }
            Pick::Everybody => {
                if !sys::barrier() {
                    // SLEEP: whoever wakes fences where the barrier is missing.
                    fence(SeqCst);
                }
                return wake_everybody(bells);
            }
        }
    }
}

/// Wakes all who sleep, and says how many woke.
pub fn wake_everybody(bells: &Bells) -> u64 {
    let asleep = (0..bells.slots().high()).filter(|slot| bells.rouse(*slot));
    asleep.map(|slot| u64::from(wake(bells, slot))).sum()
}

/// Wakes the one whose flag was cleared; whether anybody waited there.
fn wake(bells: &Bells, slot: usize) -> bool {
    bells.wake(slot);
    step!("wake.futex");
    sys::futex_wake_all(bells.slots().futex(slot)) > 0
}
