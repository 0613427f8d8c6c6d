//! Values that damage puts in place of others.

use arbitrary::Arbitrary;

/// What becomes of a word.
#[derive(Arbitrary, Clone, Copy, Debug)]
pub enum Damage {
    /// One bit is the other one.
    Flip(u8),
    /// It is a little more or less.
    Add(i8),
    /// It is another word.
    Set(u64),
    /// It is a small number.
    Small(u8),
    /// It is at the end of a range.
    Edge(u8),
}

impl Damage {
    /// The damaged word.
    pub fn of(self, word: u64) -> u64 {
        match self {
            Self::Flip(bit) => word ^ 1 << (bit % 64),
            Self::Add(some) => word.wrapping_add_signed(some.into()),
            Self::Set(other) => other,
            Self::Small(other) => other.into(),
            Self::Edge(bit) => (u64::MAX >> (bit % 64)).wrapping_add(u64::from(bit > 127)),
        }
    }
}
