//! Sleeping and waking between two: one end of a channel sleeps, the other one wakes it.
//!
//! Each end has a half that it sleeps on, in the lines that the other end looks at anyway. The other end loads it after
//! every commit, or every message that it is done with; as long as nobody sleeps it stays in its cache.
//!
//! # Invariants
//!
//! * `I1` — The bit [`ASLEEP`] is set before the barrier, and the last look comes after it.
//! * `I2` — Whoever clears the bit wakes the futex after it. A half without the bit is not slept on.
//! * `I3` — A sleep is bounded: an end that is killed between its commit and its wake delays nobody for good.
//!
//! # Orderings
//!
//! | edge    | sleeper                                           | the other end                          |
//! |---------|---------------------------------------------------|----------------------------------------|
//! | `SLEEP` | set the bit, **barrier**, look                    | commit or settle, load the half        |
//! | `WAKE`  | `Acquire` load of the half, look, wait on that value | `Release` clearing of the bit, wake |
//!
//! `SLEEP` is the store-load litmus with an asymmetric barrier, as in [`wake`](super::wake). Where a process cannot
//! have it, the bit [`FENCE`] makes the other end fence instead. Checked by `loom-tests/tests/doze.rs`.
//!
//! # If a process dies
//!
//! A dead sleeper leaves its bit: the other end clears it once and wakes nobody, and its successor clears it when it
//! comes. A dead waker leaves a sleeper that looks again by itself.

use crate::shm::place::Region;
use crate::sync::{fence, AtomicU32, Ordering::*};

/// The end sleeps, or is about to.
pub const ASLEEP: u32 = 1;
/// The other end fences before it looks.
pub const FENCE: u32 = 2;

/// The half that one end sleeps on.
#[derive(Clone)]
pub struct Doze {
    region: Region,
    at: usize,
}

impl Doze {
    /// The half at byte `at`.
    pub fn new(region: Region, at: usize) -> Self {
        Self { region, at }
    }

    /// The futex word.
    #[inline]
    pub fn futex(&self) -> &AtomicU32 {
        self.region.half(self.at)
    }

    /// The other end, after what the sleeper may wait for: whether [`rouse`](Self::rouse) has to be called.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        // SLEEP: the sleeper's barrier stands for a fence here; the compiler must not move the load up.
        #[cfg(not(windlass_loom))]
        std::sync::atomic::compiler_fence(SeqCst);
        #[cfg(windlass_loom)]
        fence(SeqCst);
        // Relaxed: see SLEEP.
        self.futex().load(Relaxed) != 0
    }

    /// The other end: ends the sleep. True if the futex is to be woken.
    #[cold]
    pub fn rouse(&self) -> bool {
        // Relaxed: the bit never goes away.
        if self.futex().load(Relaxed) & FENCE != 0 {
            // SLEEP: without the asymmetric barrier both sides fence.
            fence(SeqCst);
        }
        if self.futex().load(Relaxed) & ASLEEP == 0 {
            return false;
        }
        step!("rouse.half");
        // WAKE: pairs with `ticket`. Whoever sees the bit gone sees what it was waiting for.
        let roused = self.futex().fetch_and(!ASLEEP, Release) & ASLEEP != 0;
        step!("rouse.futex");
        roused
    }

    /// Sleeper: says that it is about to sleep. A barrier and a last look follow.
    pub fn announce(&self) {
        step!("doze.half");
        // Relaxed: the barrier orders it.
        self.futex().fetch_or(ASLEEP, Relaxed);
        step!("doze.barrier");
    }

    /// Sleeper, after the barrier and before the last look: the value to wait on, or `None` if somebody woke it
    /// already.
    pub fn ticket(&self) -> Option<u32> {
        // WAKE: pairs with the clearing of the bit in `rouse`.
        let half = self.futex().load(Acquire);
        (half & ASLEEP != 0).then_some(half)
    }

    /// Sleeper: awake again.
    pub fn rise(&self) {
        step!("doze.rise");
        // Relaxed: it says nothing but itself.
        self.futex().fetch_and(!ASLEEP, Relaxed);
    }

    /// From now on the other end fences, because this process has no asymmetric barrier.
    pub fn demand_fences(&self) {
        // SLEEP: from here on both sides fence, see `rouse`.
        self.futex().fetch_or(FENCE, AcqRel);
    }
}
