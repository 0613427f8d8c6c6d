//! What the pen of a lane and the keeper of its process share: the pen takes what the keeper has prepared.

use crate::layout::log as layout;
use crate::log::files::Segment;
use crate::log::prepare::Prepared;
use crate::ring::log::Piece;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use crossbeam::queue::{ArrayQueue, SegQueue};
use std::thread::Thread;

/// Between one pen and its keeper.
pub struct Desk {
    /// The lane.
    pub lane: usize,
    /// The segment that is wanted, plus one; 0 if none is.
    wanted: AtomicU64,
    /// The piece of the order that is wanted, plus one; 0 if none is.
    wanted_piece: AtomicU64,
    /// The next segment, once it is prepared.
    segments: ArrayQueue<Prepared>,
    /// The next piece, once it is prepared.
    pieces: ArrayQueue<Piece>,
    /// Segments that the pen has begun to write.
    begun: SegQueue<Segment>,
    keeper: Thread,
}

impl Desk {
    /// A desk with nothing on it, for a keeper that runs in thread `keeper`.
    pub fn new(lane: usize, keeper: Thread) -> Self {
        let (wanted, wanted_piece) = (AtomicU64::new(0), AtomicU64::new(0));
        let (segments, pieces) = (ArrayQueue::new(1), ArrayQueue::new(1));
        Self { lane, wanted, wanted_piece, segments, pieces, begun: SegQueue::new(), keeper }
    }

    /// Pen: segment `logical` will be needed.
    pub fn want_segment(&self, logical: u64) {
        // Relaxed: whoever is woken by what follows sees it.
        self.wanted.store(logical + 1, Relaxed);
        self.keeper.unpark();
    }

    /// Pen: piece `number` will be needed.
    pub fn want_piece(&self, number: u64) {
        // Relaxed: as above.
        self.wanted_piece.store(number + 1, Relaxed);
        self.keeper.unpark();
    }

    /// Pen: segment `logical`, if it is prepared.
    pub fn take_segment(&self, logical: u64) -> Option<Prepared> {
        // An older one came too late, and was made by the pen.
        std::iter::from_fn(|| self.segments.pop()).find(|found| found.segment.logical == logical)
    }

    /// Pen: piece `number`, if it is prepared.
    pub fn take_piece(&self, number: u64) -> Option<Piece> {
        std::iter::from_fn(|| self.pieces.pop()).find(|found| found.number() == number)
    }

    /// Pen: a segment is written from now on.
    pub fn begin(&self, segment: Segment) {
        self.begun.push(segment);
        self.keeper.unpark();
    }

    /// Keeper: a segment that is written since the last call.
    pub fn begun(&self) -> Option<Segment> {
        self.begun.pop()
    }

    /// Keeper: the segment that is wanted.
    pub fn wanted(&self) -> Option<u64> {
        self.wanted.swap(0, Relaxed).checked_sub(1)
    }

    /// Keeper: what was wanted could not be had, and may be had later.
    pub fn want_again(&self, logical: u64) {
        // Not if the pen wants another one by now.
        let _ = self.wanted.compare_exchange(0, logical + 1, Relaxed, Relaxed);
    }

    /// Keeper: the piece that is wanted.
    pub fn wanted_piece(&self) -> Option<u64> {
        self.wanted_piece.swap(0, Relaxed).checked_sub(1)
    }

    /// Keeper: whether anything is wanted.
    pub fn is_wanting(&self) -> bool {
        self.wanted.load(Relaxed) != 0
    }

    /// Keeper: here it is.
    pub fn put_segment(&self, prepared: Prepared) {
        self.segments.force_push(prepared);
    }

    /// Keeper: here it is.
    pub fn put_piece(&self, piece: Piece) {
        self.pieces.force_push(piece);
    }
}

/// The byte of a segment's file from which on the next segment had better be prepared.
pub fn alarm_of(segment_bytes: u64) -> usize {
    layout::PLACES_AT.min(segment_bytes as usize) / 2 + segment_bytes as usize / 16
}
