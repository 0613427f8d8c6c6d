//! The mappings that a reader of a log keeps, so that it finds a message without a lock and without a system call.

use crate::layout::order::Place;
use crate::limits::{PLACES, PUBLISHERS_MAX};
use crate::log::outcome::Damage;
use crate::log::source::Source;
use crate::ring::log::Piece;
use crate::ring::record::Record;
use crate::topic::view::Hold;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

/// Most segments that one reader keeps mapped: those of a log of 64 GiB with segments of the default size.
const SEGMENTS_MAX: usize = 1024;

/// Most pieces of the order that one reader keeps mapped: a gibibyte of them.
const PIECES_MAX: usize = 1024;

/// A segment that is mapped.
pub struct Mapped {
    pub hold: Arc<Hold>,
    pub logical: u64,
    pub seed: u32,
}

/// Why there is no message under a sequence.
#[derive(Debug)]
pub enum Miss {
    /// Its place is not taken, or the piece of the order with its place is not there.
    Untaken,
    /// The file of its segment is not there.
    Gone,
    /// It is not what was published.
    Damaged(Damage),
    /// Its file cannot be mapped.
    Unmapped(crate::error::Error),
}

/// Spreads numbers that come one after the other.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u64(u64::from(*byte)));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// Things by number, of which those that were not used for longest go when there are too many.
struct Kept<V> {
    most: usize,
    clock: u64,
    index: HashMap<u64, usize, BuildHasherDefault<Spread>>,
    entries: Vec<(u64, u64, V)>,
}

impl<V> Kept<V> {
    fn new(most: usize) -> Self {
        Self { most, clock: 0, index: HashMap::default(), entries: Vec::new() }
    }

    /// Where `key` is kept.
    fn find(&mut self, key: u64) -> Option<usize> {
        let at = *self.index.get(&key)?;
        self.clock += 1;
        self.entries[at].1 = self.clock;
        Some(at)
    }

    /// Whether `key` is kept at `at`.
    #[inline]
    fn is_at(&self, at: usize, key: u64) -> bool {
        self.entries.get(at).is_some_and(|entry| entry.0 == key)
    }

    /// Keeps `value`. Returns where.
    fn keep(&mut self, key: u64, value: V) -> usize {
        self.clock += 1;
        let entry = (key, self.clock, value);
        let at = if self.entries.len() < self.most {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let ages = self.entries.iter().enumerate();
            let oldest = ages.min_by_key(|(_, entry)| entry.1).map_or(0, |(at, _)| at);
            self.index.remove(&self.entries[oldest].0);
            self.entries[oldest] = entry;
            oldest
        };
        self.index.insert(key, at);
        at
    }
}

/// The mappings of one reader.
pub struct Cache {
    pieces: Kept<Piece>,
    segments: Kept<Mapped>,
    /// Where the piece is that was used last.
    piece: usize,
    /// Of each lane: where the segment is that was used last.
    last: [usize; PUBLISHERS_MAX as usize],
}

/// The number of a segment among those of all lanes. A position has 59 bits, a segment at least 12 of them.
fn key(lane: usize, logical: u64) -> u64 {
    (lane as u64) << 48 | logical
}

impl Cache {
    pub fn new() -> Self {
        let (pieces, segments) = (Kept::new(PIECES_MAX), Kept::new(SEGMENTS_MAX));
        Self { pieces, segments, piece: 0, last: [0; PUBLISHERS_MAX as usize] }
    }

    /// The place of a message.
    #[inline]
    pub fn place(&mut self, source: &Source, sequence: u64) -> Result<Place, Miss> {
        let number = sequence / PLACES;
        if !self.pieces.is_at(self.piece, number) {
            self.piece = self.turn_to(source, number)?;
        }
        self.pieces.entries[self.piece].2.read(sequence).ok_or(Miss::Untaken)
    }

    /// The piece that was used last. There is one once a place was found.
    pub fn piece(&self) -> Option<&Piece> {
        self.pieces.entries.get(self.piece).map(|entry| &entry.2)
    }

    #[cold]
    fn turn_to(&mut self, source: &Source, number: u64) -> Result<usize, Miss> {
        if let Some(at) = self.pieces.find(number) {
            return Ok(at);
        }
        match source.piece(number) {
            Ok(Some(piece)) => Ok(self.pieces.keep(number, piece)),
            Ok(None) => Err(Miss::Untaken),
            Err(error) => Err(unmapped(error, Damage::Place)),
        }
    }

    /// Where the segment of a place is kept, and the offset of the record in it. Nothing is said of the record.
    #[inline]
    pub fn segment(&mut self, source: &Source, place: Place) -> Result<(usize, usize), Miss> {
        let shape = &source.files().shape;
        if place.lane >= shape.publishers_max as usize {
            return Err(Miss::Damaged(Damage::Place));
        }
        let shift = shape.segment_bytes.trailing_zeros();
        let logical = place.position >> shift;
        let at = (place.position & (shape.segment_bytes - 1)) as usize;
        let key = key(place.lane, logical);
        if !self.segments.is_at(self.last[place.lane], key) {
            self.last[place.lane] = self.enter(source, place.lane, logical, key)?;
        }
        Ok((self.last[place.lane], at))
    }

    /// The segment that is kept at `at`.
    #[inline]
    pub fn mapped(&self, at: usize) -> &Mapped {
        &self.segments.entries[at].2
    }

    #[cold]
    fn enter(
        &mut self,
        source: &Source,
        lane: usize,
        logical: u64,
        key: u64,
    ) -> Result<usize, Miss> {
        if let Some(at) = self.segments.find(key) {
            return Ok(at);
        }
        match source.segment(lane, logical) {
            Ok(Some(segment)) => {
                let seed = segment.seed;
                let hold = Hold::in_log(segment.lane, source.files().loss.clone());
                Ok(self.segments.keep(key, Mapped { hold, logical, seed }))
            }
            Ok(None) => Err(Miss::Gone),
            Err(error) => Err(unmapped(error, Damage::File)),
        }
    }

    /// The record of a message, and where its segment is kept. Its checksum is looked at if `checked`.
    #[inline]
    pub fn record(
        &mut self,
        source: &Source,
        sequence: u64,
        checked: bool,
    ) -> Result<(usize, Record), Miss> {
        let place = self.place(source, sequence)?;
        let (kept, at) = self.segment(source, place)?;
        let mapped = self.mapped(kept);
        let lane = mapped.hold.lane();
        let record = lane.record(at).ok_or(Miss::Damaged(Damage::Record))?;
        if checked && !lane.is_sound(&record, mapped.seed) {
            return Err(Miss::Damaged(Damage::Checksum));
        }
        // What was not checked may have read as zeroes.
        if !checked && !mapped.hold.is_intact() {
            return Err(Miss::Damaged(Damage::Shortened));
        }
        Ok((kept, record))
    }
}

/// What it means that a file that is there cannot be mapped.
fn unmapped(error: crate::error::Error, damage: Damage) -> Miss {
    match error.kind() {
        crate::error::ErrorKind::Corrupt | crate::error::ErrorKind::Mismatch => {
            tracing::warn!(%error, "a file of a log is damaged");
            Miss::Damaged(damage)
        }
        _ => Miss::Unmapped(error),
    }
}
