//! How a subscriber of a durable topic follows the order of its log.

use crate::layout::order::Place;
use crate::limits::PLACES;
use crate::log::core::LogCore;
use crate::ring::log::Piece;
use std::cell::Cell;
use std::sync::Arc;

/// A cursor in the order of a log.
pub struct Trail {
    pub log: Arc<LogCore>,
    /// The piece that has the next place, once it is there.
    pub piece: Option<Piece>,
    /// The next place.
    pub next: Cell<u64>,
    /// Messages below this sequence may come from a disk: their checksums are looked at.
    pub checked_below: u64,
    /// Places below this one were taken when the cursor was made: where there is nothing, something is gone.
    taken_below: u64,
}

impl Trail {
    /// A cursor at `next`. What is there by now, below `taken_below`, is checked.
    pub fn new(log: Arc<LogCore>, next: u64, taken_below: u64) -> Self {
        let checked_below = if log.files.shape.checksums { taken_below } else { 0 };
        Self { log, piece: None, next: Cell::new(next), checked_below, taken_below }
    }

    /// Whether nothing at the next place can only be damage.
    pub fn is_taken(&self) -> bool {
        self.next.get() < self.taken_below
    }

    /// The place that is next, if it is taken and in the piece that is mapped.
    #[inline]
    pub fn place(&self) -> Option<Place> {
        let next = self.next.get();
        let piece = self.piece.as_ref()?;
        if !piece.covers(next) {
            return None;
        }
        piece.read(next)
    }

    /// Whether there is, or may be, something at the next place.
    pub fn is_ready(&self) -> bool {
        self.place().is_some() || self.log.head.tail() > self.next.get()
    }

    /// Maps the piece that has the next place. False if it is not there (yet, or any more).
    pub fn turn(&mut self) -> crate::error::Result<bool> {
        let number = self.next.get() / PLACES;
        if self.piece.as_ref().is_none_or(|piece| piece.number() != number) {
            self.piece = self.log.piece(number)?;
        }
        Ok(self.piece.is_some())
    }
}
