//! The word of everything that a process can own: subscriber slots and lane leases.
//!
//! ```text
//!  63                32 31            8 7       0
//! ┌────────────────────┬───────────────┬─────────┐
//! │ node               │ incarnation   │ state   │
//! └────────────────────┴───────────────┴─────────┘
//! ```
//!
//! A repairer proves the node of exactly this word dead and compare-and-swaps exactly this word; the incarnation,
//! raised by every new owner, makes the swap fail if anything happened in between.

/// What the owner does with the slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Nobody's.
    Free = 0,
    /// Taken; its old contents are being cleared.
    Joining = 1,
    /// In use: gates and pins count.
    Active = 2,
    /// A subscriber that lost its backlog: pins count, gates do not.
    Evicted = 3,
    /// A subscriber that is gone while views of it live: pins count, gates do not.
    Lingering = 4,
}

/// An owner word, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner(pub u64);

impl Owner {
    /// The word for `node` in `state`.
    pub fn new(node: u32, incarnation: u32, state: State) -> Self {
        Self((u64::from(node) << 32) | (u64::from(incarnation & 0xff_ffff) << 8) | state as u64)
    }

    /// The node that owns the slot, or owned it last.
    pub fn node(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// How often the slot changed hands, modulo 2^24.
    pub fn incarnation(self) -> u32 {
        ((self.0 >> 8) & 0xff_ffff) as u32
    }

    /// The state; `None` if the word is not one that windlass writes.
    pub fn state(self) -> Option<State> {
        Some(match self.0 & 0xff {
            0 => State::Free,
            1 => State::Joining,
            2 => State::Active,
            3 => State::Evicted,
            4 => State::Lingering,
            _ => return None,
        })
    }

    /// Whether nobody owns the slot.
    pub fn is_free(self) -> bool {
        self.0 & 0xff == State::Free as u64
    }

    /// Whether this is the same owner, in whatever state.
    pub fn is_same(self, other: Self) -> bool {
        (self.0 ^ other.0) <= 0xff
    }

    /// The same owner in another state.
    #[must_use]
    pub fn with(self, state: State) -> Self {
        Self((self.0 & !0xff) | state as u64)
    }

    /// The word of the next owner.
    #[must_use]
    pub fn succeeded_by(self, node: u32, state: State) -> Self {
        Self::new(node, self.incarnation().wrapping_add(1), state)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_comes_apart_as_it_was_put_together() {
        let owner = Owner::new(u32::MAX, 0xff_ffff, State::Active);
        assert_eq!(owner.node(), u32::MAX);
        assert_eq!(owner.state(), Some(State::Active));
        let heir = owner.succeeded_by(3, State::Joining);
        assert_eq!((heir.node(), heir.incarnation(), heir.state()), (3, 0, Some(State::Joining)));
        assert!(heir.with(State::Free).is_free());
        assert_eq!(Owner(0x55).state(), None);
    }
}
