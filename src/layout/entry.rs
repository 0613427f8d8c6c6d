//! A word of a lane's mapping table: which physical segment holds a logical one.
//!
//! ```text
//!  63                       16 15          1  0
//! ┌───────────────────────────┬─────────────┬───┐
//! │ logical segment + 1       │ physical    │ R │   R = retired; 0 = never mapped
//! └───────────────────────────┴─────────────┴───┘
//! ```
//!
//! The word carries the logical number, so a reader that was stopped for laps sees another value.

/// Highest number of a logical segment: with it and one more the word is not full.
pub const LOGICAL_MAX: u64 = (1 << 47) - 1;

/// A mapping word, taken apart. Not yet checked against the number of segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry(pub u64);

impl Entry {
    /// The word that maps `logical` to `physical`.
    pub fn new(logical: u64, physical: usize) -> Self {
        Self(((logical + 1) << 16) | ((physical as u64) << 1))
    }

    /// The logical segment that this word maps, if any.
    pub fn logical(self) -> Option<u64> {
        (self.0 >> 16).checked_sub(1)
    }

    /// The physical segment. An input: check it before use.
    pub fn physical(self) -> usize {
        ((self.0 >> 1) & 0x7fff) as usize
    }

    /// Whether the publisher has taken the mapping back.
    pub fn is_retired(self) -> bool {
        self.0 & 1 == 1
    }

    /// The same word, taken back.
    #[must_use]
    pub fn retired(self) -> Self {
        Self(self.0 | 1)
    }

    /// Whether this word maps `logical` now.
    pub fn maps(self, logical: u64) -> bool {
        self.logical() == Some(logical) && !self.is_retired()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_apart_as_it_was_put_together() {
        let entry = Entry::new(77, 255);
        assert_eq!((entry.logical(), entry.physical()), (Some(77), 255));
        assert!(entry.maps(77) && !entry.maps(78) && !entry.retired().maps(77));
        assert_eq!(entry.retired().logical(), Some(77));
        assert_eq!(Entry(0).logical(), None);
        assert!(!Entry(0).maps(0));
    }
}
