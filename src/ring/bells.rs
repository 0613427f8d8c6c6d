//! Waking one sleeper for one message, of several who could take it.
//!
//! It is the protocol of [`wake`](crate::ring::wake), with a word of his own for each sleeper. A producer that sees the
//! hint clears the flag of *one* sleeper and wakes him; the others sleep on, and the hint stays for the next message.
//!
//! # Invariants
//!
//! * `I1` to `I4` of [`wake`](crate::ring::wake), where the wake word is that of the sleeper whose flag was cleared.
//! * `I5` — A flag is cleared by one compare-and-swap. So as many messages wake as many sleepers, if there are any.
//! * `I6` — Whoever finds the hint gone although somebody sleeps wakes everybody: others may have passed by meanwhile
//!   without seeing it.
//!
//! # Orderings
//!
//! | edge    | sleeper                                                 | producer                                   |
//! |---------|---------------------------------------------------------|--------------------------------------------|
//! | `SLEEP` | hint, **barrier**, look at the queue                    | enter, load hint                           |
//! | `HINT`  | `Release` set of the hint                               | `Acquire` withdrawal, then the flags again |
//! | `WAKE`  | `Acquire` load of own word, own flag, look, wait        | clear a flag, `Release` add to its word    |
//!
//! # If a process dies
//!
//! A sleeper that is chosen and dead does not answer: nobody waits on his word, and the producer chooses another one.
//! One that dies, or is stopped, after he was woken leaves the message to those who are awake, and to the others when
//! their sleep ends. Checked by `loom-tests/tests/bells.rs`.

use crate::ring::slots::{Slots, Ticket};
use crate::ring::wake::Hint;
use crate::sync::Ordering::*;

/// The words through which the producers of a queue wake its consumers.
#[derive(Clone)]
pub struct Bells {
    hint: Hint,
    slots: Slots,
}

/// What a producer that saw the hint has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick {
    /// Nothing: nobody sleeps.
    Nobody,
    /// [`Bells::wake`] this one, then wake his futex; if nobody waits there, ask again.
    One(usize),
    /// Pass a barrier, then [`rouse`](Bells::rouse) and wake everybody: the hint was gone for a moment.
    Everybody,
}

impl Bells {
    /// The bells of `slots`, whose hint is this.
    pub fn new(hint: Hint, slots: Slots) -> Self {
        Self { hint, slots }
    }

    /// The word that everybody looks at.
    pub fn hint(&self) -> &Hint {
        &self.hint
    }

    /// The slots of the sleepers.
    pub fn slots(&self) -> &Slots {
        &self.slots
    }

    /// Producer: chooses whom to wake for one message.
    pub fn pick(&self) -> Pick {
        if !self.hint.is_meant() {
            return Pick::Nobody;
        }
        if let Some(slot) = (0..self.slots.high()).find(|slot| self.rouse(*slot)) {
            return Pick::One(slot);
        }
        step!("wake.withdraw");
        self.hint.withdraw();
        step!("wake.again");
        if !(0..self.slots.high()).any(|slot| self.slots.is_sleeping(slot)) {
            return Pick::Nobody;
        }
        step!("wake.hint");
        self.hint.set();
        Pick::Everybody
    }

    /// Producer: clears a flag; whether it was set, and nobody else has.
    pub fn rouse(&self, slot: usize) -> bool {
        if !self.slots.is_sleeping(slot) {
            return false;
        }
        step!("wake.rouse");
        self.slots.rouse(slot)
    }

    /// Producer: changes the word of a sleeper whose flag it cleared.
    pub fn wake(&self, slot: usize) {
        step!("wake.word");
        // WAKE: pairs with `ticket`.
        self.slots.futex(slot).fetch_add(1, Release);
    }

    /// Sleeper: says that it is about to sleep. A barrier and a last look follow.
    pub fn announce(&self, slot: usize) {
        step!("sleep.flag");
        self.slots.set_sleeping(slot, true);
        step!("sleep.hint");
        self.hint.set();
        step!("sleep.barrier");
    }

    /// Sleeper, after the barrier and before the last look: the value to wait on, or `None` if somebody woke it
    /// already.
    pub fn ticket(&self, slot: usize) -> Option<Ticket> {
        // WAKE: pairs with `wake`. If it saw the wake that cleared the flag, it sees the cleared flag.
        let ticket = self.slots.futex(slot).load(Acquire);
        self.slots.is_sleeping(slot).then_some(ticket)
    }

    /// Sleeper: awake again.
    pub fn rise(&self, slot: usize) {
        step!("sleep.rise");
        self.slots.set_sleeping(slot, false);
    }
}
