//! A description of a mapping that a signal handler reads while others may change it.
//!
//! The handler can take no lock, so the words of a span carry a version: odd while they change, and another one
//! afterwards. A reader that sees the same even version before and after has read one span and not parts of two.
//!
//! # Invariants
//!
//! * `S1` — One thread at a time changes a span: behind the gate of `sys`.
//! * `S2` — Between two even versions that are equal no word changed.
//!
//! # Orderings
//!
//! | edge   | `Release`                                             | `Acquire`                                         | hands over           |
//! |--------|-------------------------------------------------------|---------------------------------------------------|----------------------|
//! | `SPAN` | store of the even version, after the words            | load of the version, before the words             | the words            |
//! | `TORN` | fence after the odd version, before the words         | fence after the words, before the version again   | that they are changing |
//!
//! Checked by `loom-tests/tests/span.rs`.

use crate::sync::{fence, AtomicU64, Ordering::*};

/// A mapping, as the handler has to know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Extent {
    /// Address of its first byte.
    pub start: usize,
    /// Address behind its last byte.
    pub end: usize,
    /// Whether it may be written.
    pub writable: bool,
    /// Address of what notes the loss.
    pub note: usize,
}

/// A place for an extent.
pub struct Span {
    version: AtomicU64,
    start: AtomicU64,
    /// The lowest bit says whether the mapping may be written: it ends at a page.
    end: AtomicU64,
    note: AtomicU64,
}

#[cfg(not(windlass_loom))]
impl Span {
    /// A place for nothing yet.
    pub const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            start: AtomicU64::new(0),
            end: AtomicU64::new(0),
            note: AtomicU64::new(0),
        }
    }
}

impl Span {
    /// Whether it holds nothing. Only for whoever may change it.
    pub fn is_free(&self) -> bool {
        // Relaxed: by `S1`.
        self.start.load(Relaxed) == 0
    }

    /// Puts `extent` there, or nothing. Only one thread at a time (`S1`).
    pub fn set(&self, extent: Option<Extent>) {
        let (start, end, note) = extent.map_or((0, 0, 0), |extent| {
            let end = extent.end as u64 | u64::from(extent.writable);
            (extent.start as u64, end, extent.note as u64)
        });
        // Relaxed: by `S1`.
        let version = self.version.load(Relaxed);
        self.version.store(version.wrapping_add(1), Relaxed);
        // TORN: whoever sees one of the words below sees the odd version, or a later one, behind its fence.
        fence(Release);
        self.start.store(start, Relaxed);
        self.end.store(end, Relaxed);
        self.note.store(note, Relaxed);
        // SPAN: pairs with the first load in `get`.
        self.version.store(version.wrapping_add(2), Release);
    }

    /// What is there; nothing if it is being changed.
    pub fn get(&self) -> Option<Extent> {
        // SPAN: pairs with the last store in `set`.
        let version = self.version.load(Acquire);
        let (start, end) = (self.start.load(Relaxed), self.end.load(Relaxed));
        let note = self.note.load(Relaxed);
        // TORN: pairs with the fence in `set`.
        fence(Acquire);
        if version % 2 == 1 || self.version.load(Relaxed) != version || start == 0 {
            return None;
        }
        let writable = end % 2 == 1;
        Some(Extent {
            start: start as usize,
            end: (end & !1) as usize,
            writable,
            note: note as usize,
        })
    }
}

#[cfg(windlass_loom)]
mod modelled {
    use super::*;

    impl Span {
        /// A place for nothing yet.
        #[expect(clippy::new_without_default, reason = "a constant elsewhere")]
        pub fn new() -> Self {
            let zero = || AtomicU64::new(0);
            Self { version: zero(), start: zero(), end: zero(), note: zero() }
        }

        /// The words, for copies of `set` and `get` with a flaw.
        pub fn words(&self) -> [&AtomicU64; 4] {
            [&self.version, &self.start, &self.end, &self.note]
        }
    }
}
