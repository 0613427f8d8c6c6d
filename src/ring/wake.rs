//! Waking sleepers without a fence in publish.
//!
//! A publisher looks at one word, the *hint*, after each commit. As long as nobody sleeps it stays zero and in every
//! publisher's cache. The sleeper pays: it makes every publisher pass a barrier before it looks for the last time.
//!
//! # Invariants
//!
//! * `I1` — A sleeper's flag is set before the hint, and the hint before the barrier.
//! * `I2` — Whoever clears a sleeper's flag changes the wake word after it. So one wake is paid for one sleep, and a
//!   sleeper that finds its flag cleared does not sleep.
//! * `I3` — The hint is withdrawn only by a publisher that finds nobody's flag set, and is put back by the same
//!   publisher, behind a barrier, if somebody's flag was set meanwhile.
//! * `I4` — A sleep is bounded: a publisher that is killed between commit and wake delays nobody for good.
//!
//! # Orderings
//!
//! | edge    | sleeper                                             | publisher                                  |
//! |---------|-----------------------------------------------------|--------------------------------------------|
//! | `SLEEP` | hint, **barrier**, look at the lanes                | commit, load hint                          |
//! | `HINT`  | `Release` set of the hint                           | `Acquire` withdrawal, then the flags again |
//! | `WAKE`  | `Acquire` load of the wake word, own flag, look, wait | clear flags, `Release` add to the wake word |
//!
//! `SLEEP` is the store-load litmus with an asymmetric barrier (`membarrier`, global expedited): publishers registered
//! for it pass a full barrier while the sleeper waits for the call to return. If a process cannot have it, the bit
//! [`FENCE`] of the hint makes every publisher fence instead. Checked by `loom-tests/tests/wake.rs`.

use crate::ring::slots::Slots;
use crate::shm::place::Region;
use crate::sync::{fence, AtomicU32, AtomicU64, Ordering::*};

/// Somebody may be asleep.
pub const SLEEPERS: u64 = 1;
/// Publishers fence after each commit.
pub const FENCE: u64 = 2;

/// The word that whoever commits looks at.
#[derive(Clone)]
pub struct Hint {
    region: Region,
    at: usize,
}

impl Hint {
    /// The hint at byte `at`.
    pub fn new(region: Region, at: usize) -> Self {
        Self { region, at }
    }

    #[inline]
    fn word(&self) -> &AtomicU64 {
        self.region.word(self.at)
    }

    /// After a commit: whether somebody may be asleep.
    #[inline]
    pub fn is_set(&self) -> bool {
        // SLEEP: the sleeper's barrier stands for a fence here; the compiler must not move the load up.
        #[cfg(not(windlass_loom))]
        std::sync::atomic::compiler_fence(SeqCst);
        #[cfg(windlass_loom)]
        fence(SeqCst);
        // Relaxed: see SLEEP.
        self.word().load(Relaxed) != 0
    }

    /// The same once more, behind a fence if somebody asked for fences.
    pub fn is_meant(&self) -> bool {
        // Relaxed: the bit never goes away.
        if self.word().load(Relaxed) & FENCE == 0 {
            return true;
        }
        // SLEEP: without the asymmetric barrier both sides fence.
        fence(SeqCst);
        self.word().load(Relaxed) & SLEEPERS != 0
    }

    /// Nobody seems to be asleep. Look at the flags again after it.
    pub fn withdraw(&self) {
        // HINT: pairs with `set`; a flag set before the hint that this replaces is seen afterwards.
        self.word().fetch_and(!SLEEPERS, AcqRel);
    }

    /// Somebody is about to sleep, or sleeps although the hint was withdrawn.
    pub fn set(&self) {
        // HINT: pairs with `withdraw`, of another publisher.
        self.word().fetch_or(SLEEPERS, Release);
    }

    /// From now on every publisher fences after each commit, because this process has no asymmetric barrier.
    pub fn demand_fences(&self) {
        // SLEEP: from here on both sides fence, see `is_meant`.
        self.word().fetch_or(FENCE, AcqRel);
    }

    /// Whether publishers fence.
    pub fn is_fenced(&self) -> bool {
        // Relaxed: the bit never goes away.
        self.word().load(Relaxed) & FENCE != 0
    }
}

/// The words through which the publishers of a topic wake its subscribers.
#[derive(Clone)]
pub struct Bell {
    hint: Hint,
    region: Region,
    wake_at: usize,
}

/// What a publisher that saw the hint has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ring {
    /// Nothing: nobody sleeps.
    Nobody,
    /// [`Bell::wake`], then wake the futex.
    Wake,
    /// Pass a barrier, then as for `Wake`: the hint was gone for a moment.
    BarrierThenWake,
}

impl Bell {
    /// The bell whose hint is at `hint_at` and whose futex word is at `wake_at`.
    pub fn new(region: Region, hint_at: usize, wake_at: usize) -> Self {
        Self { hint: Hint::new(region.clone(), hint_at), region, wake_at }
    }

    /// The futex word.
    pub fn futex(&self) -> &AtomicU32 {
        self.region.half(self.wake_at)
    }

    /// Publisher, after a commit: whether [`ring`](Self::ring) has to be called.
    #[inline]
    pub fn is_wanted(&self) -> bool {
        self.hint.is_set()
    }

    /// Publisher: decides what the hint asks for.
    pub fn ring(&self, slots: &Slots) -> Ring {
        if !self.hint.is_meant() {
            return Ring::Nobody;
        }
        if Self::rouse(slots) {
            return Ring::Wake;
        }
        step!("wake.withdraw");
        self.hint.withdraw();
        step!("wake.again");
        if !Self::rouse(slots) {
            return Ring::Nobody;
        }
        step!("wake.hint");
        self.hint.set();
        Ring::BarrierThenWake
    }

    /// Clears the flags of all sleepers; whether there were any.
    fn rouse(slots: &Slots) -> bool {
        let mut any = false;
        for slot in 0..slots.high() {
            if slots.is_sleeping(slot) {
                step!("wake.rouse");
                slots.set_sleeping(slot, false);
                any = true;
            }
        }
        any
    }

    /// Publisher: changes the word that sleepers wait on.
    pub fn wake(&self) {
        step!("wake.word");
        // WAKE: pairs with `ticket`.
        self.futex().fetch_add(1, Release);
    }

    /// Sleeper: says that it is about to sleep. A barrier and a last look follow.
    pub fn announce(&self, slots: &Slots, slot: usize) {
        step!("sleep.flag");
        slots.set_sleeping(slot, true);
        step!("sleep.hint");
        self.hint.set();
        step!("sleep.barrier");
    }

    /// Sleeper, after the barrier and before the last look: the value to wait on, or `None` if somebody woke it
    /// already.
    pub fn ticket(&self, slots: &Slots, slot: usize) -> Option<u32> {
        // WAKE: pairs with `wake`. If it saw the wake that cleared the flag, it sees the cleared flag.
        let ticket = self.futex().load(Acquire);
        slots.is_sleeping(slot).then_some(ticket)
    }

    /// Sleeper: awake again.
    pub fn rise(&self, slots: &Slots, slot: usize) {
        step!("sleep.rise");
        slots.set_sleeping(slot, false);
    }

    /// From now on every publisher fences after each commit, because this process has no asymmetric barrier.
    pub fn demand_fences(&self) {
        self.hint.demand_fences();
    }

    /// Whether publishers fence.
    pub fn is_fenced(&self) -> bool {
        self.hint.is_fenced()
    }
}
