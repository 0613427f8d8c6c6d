//! The order of a log in modelled memory, the few calls that publishers and readers make of it, and a copy of its
//! append with something left out, for the canaries.

use loom::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::*;
use std::sync::Arc;
use windlass::layout::order::Place;
use windlass::layout::place as words;
use windlass::limits::{LINE, PLACES};
use windlass::ring::log::{self, Appended, Head, Intent, Piece};
use windlass::shm::place::Region;
use windlass::step;

/// Where the first record of a lane lies, and how long each is.
const FIRST: u64 = 16;
const RECORD: u64 = 32;

/// Records of a lane, and pieces, that a model has room for.
const RECORDS: u64 = 8;
const PIECES: u64 = 4;

// The words of `ring::log::Head`, for broken copies.
const TAIL_AT: usize = 0;
const FLOOR_AT: usize = LINE;
const LANES_AT: usize = 2 * LINE;
const POSITION_AT: usize = 0;
const NUMBER_AT: usize = 8;
const SEQUENCE_AT: usize = 16;

/// The record with this number in its lane.
pub fn place(lane: usize, number: u64) -> Place {
    Place { lane, position: FIRST + RECORD * number }
}

/// The number of the record at this place.
pub fn number_of(place: Place) -> u64 {
    (place.position - FIRST) / RECORD
}

/// The shared words and files of a log. A clone is the same log, as another process sees it.
#[derive(Clone)]
pub struct Log {
    /// What its publishers share.
    pub head: Head,
    words: Region,
    pieces: Arc<Vec<(Piece, Region)>>,
    /// Whether the file of each piece is there.
    files: Arc<Vec<AtomicU64>>,
    /// One payload word for each record of each lane.
    records: Region,
}

impl Log {
    /// A fresh one.
    pub fn new(lanes: usize) -> Self {
        let bytes = log::bytes(lanes);
        let words = Region::zeroed(bytes, bytes);
        let piece = |number| {
            let words = Region::zeroed(PLACES as usize * 8, PLACES as usize * 8);
            (Piece::new(words.clone(), 0, number), words)
        };
        let head = Head::new(words.clone(), 0, lanes);
        let (ends, numbers) = (vec![FIRST; lanes], vec![0; lanes]);
        head.reset(0, 0, &ends, &numbers);
        Self {
            head,
            words,
            pieces: Arc::new((0..PIECES).map(piece).collect()),
            files: Arc::new((0..PIECES).map(|_| AtomicU64::new(0)).collect()),
            records: Region::zeroed(lanes * RECORDS as usize * 8, 0),
        }
    }

    /// Maps piece `number` if its file is there.
    pub fn piece(&self, number: u64) -> Option<Piece> {
        // The kernel orders what becomes of a name; nothing that is stored in a file follows from it.
        let exists = self.files[number as usize].load(Acquire) == 1;
        exists.then(|| self.pieces[number as usize].0.clone())
    }

    /// Maps piece `number`, whose file is made first if nobody did.
    fn piece_to_write(&self, number: u64) -> Piece {
        // Not a release: that a file is there says nothing of what others did before.
        self.files[number as usize].fetch_or(1, Relaxed);
        self.pieces[number as usize].0.clone()
    }

    /// Deletes a piece, as retention does.
    pub fn delete(&self, number: u64) {
        self.files[number as usize].store(2, Release);
    }

    /// Raises the floor without an edge, for a canary.
    pub fn raise_floor_relaxed(&self, floor: u64) {
        self.words.word(FLOOR_AT).store(floor, Relaxed);
    }

    fn record_at(place: Place) -> usize {
        let number = number_of(place);
        assert!(number < RECORDS, "the model has no room for {place:?}");
        (place.lane as u64 * RECORDS + number) as usize * 8
    }

    /// What the record at a place says: its number, and its author. It has to be whole.
    pub fn read(&self, place: Place) -> (u64, u64) {
        let found = self.records.payload(Self::record_at(place));
        let (author, lane, number) = (found / 10_000, found / 100 % 100, found % 100);
        assert_eq!((lane, number), (place.lane as u64, number_of(place)), "of {found}");
        (number, author)
    }

    /// Everything that is committed, in order.
    pub fn all(&self) -> Vec<Place> {
        let mut found = Vec::new();
        loop {
            let next = found.len() as u64;
            let piece = self.piece(next / PLACES);
            let Some(place) = piece.and_then(|piece| piece.read(next)) else {
                break;
            };
            self.read(place);
            found.push(place);
        }
        assert!(self.head.tail() <= found.len() as u64, "the tail is past what is committed");
        let behind = found.len() as u64..PIECES * PLACES;
        let taken = |at: &u64| self.pieces[(at / PLACES) as usize].0.read(*at).is_some();
        assert_eq!(behind.clone().find(taken), None, "a place is taken behind one that is free");
        for lane in 0..self.head.lanes() {
            let of: Vec<_> = found.iter().filter(|place| place.lane == lane).collect();
            let numbers: Vec<u64> = of.iter().map(|place| number_of(**place)).collect();
            let dense: Vec<u64> = (0..numbers.len() as u64).collect();
            assert_eq!(numbers, dense, "the records of lane {lane}");
        }
        found
    }

    /// Where a lane ends, as `LogCore::end_of` finds out: the number of its next record.
    pub fn end_of(&self, lane: usize) -> u64 {
        let intent: Intent = self.head.intent(lane);
        let piece = intent.sequence.and_then(|sequence| self.piece(sequence / PLACES));
        let at = Place { lane, position: intent.position };
        match intent.is_committed(lane, piece.as_ref()).expect("no publisher writes this") {
            true => {
                let (number, _) = self.read(at);
                let known = [number, number + 1].contains(&intent.number);
                assert!(known, "{intent:?} of record {number}");
                number + 1
            }
            false => {
                assert_eq!(number_of(at), intent.number, "{intent:?}");
                intent.number
            }
        }
    }
}

/// How a record is committed: by the real code, or by a broken copy.
pub type Append = fn(&Log, &Piece, Place, u64, Option<u64>) -> Appended;

/// `Head::append`.
pub fn append(log: &Log, piece: &Piece, place: Place, number: u64, only: Option<u64>) -> Appended {
    log.head.append(piece, place, number, only)
}

/// The publisher of a lane.
pub struct Pen {
    log: Log,
    lane: usize,
    author: u64,
    number: u64,
    piece: Piece,
    append: Append,
}

impl Pen {
    /// Takes a lane over, as `Pen::take` does.
    pub fn take(log: &Log, lane: usize, author: u64, append: Append) -> Self {
        let number = log.end_of(lane);
        let piece = log.piece_to_write(log.head.tail() / PLACES);
        Self { log: log.clone(), lane, author, number, piece, append }
    }

    /// The number of its next record.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Publishes a record, with `only` under that sequence or not at all, as `Pen::commit` does.
    pub fn publish(&mut self, only: Option<u64>) -> Option<u64> {
        let (log, place) = (&self.log, place(self.lane, self.number));
        let content = self.author * 10_000 + self.lane as u64 * 100 + self.number;
        log.records.set_payload(Log::record_at(place), content);
        loop {
            match (self.append)(log, &self.piece, place, self.number, only) {
                Appended::At(sequence) => {
                    self.number += 1;
                    return Some(sequence);
                }
                Appended::Beyond(number) => self.piece = log.piece_to_write(number),
                Appended::Moved => return None,
                Appended::Corrupt => panic!("no publisher writes this"),
            }
        }
    }
}

/// A subscriber that follows the order, as `Trail` and `Subscriber::seek_in_log` do.
pub struct Follower {
    log: Log,
    piece: Option<Piece>,
    /// The next sequence.
    pub next: u64,
    /// Sequences, places and authors of what it read.
    pub seen: Vec<(u64, Place, u64)>,
    /// How many were deleted before it got there.
    pub missed: u64,
}

impl Follower {
    /// One that begins at `next`.
    pub fn new(log: &Log, next: u64) -> Self {
        Self { log: log.clone(), piece: None, next, seen: Vec::new(), missed: 0 }
    }

    fn place(&self) -> Option<Place> {
        let piece = self.piece.as_ref().filter(|piece| piece.covers(self.next))?;
        piece.read(self.next)
    }

    /// `Trail::is_ready`.
    pub fn is_ready(&self) -> bool {
        self.place().is_some() || self.log.head.tail() > self.next
    }

    /// Takes the next record if there is one.
    pub fn take(&mut self) -> bool {
        loop {
            let first = self.log.head.floor();
            if self.next < first {
                self.missed += first - self.next;
                self.next = first;
                continue;
            }
            // Before the place: whatever is below the tail is there.
            let tail = self.log.head.tail();
            if self.piece.as_ref().is_none_or(|piece| !piece.covers(self.next)) {
                self.piece = self.log.piece(self.next / PLACES);
            }
            if self.piece.is_none() && self.log.head.floor() > self.next {
                continue;
            }
            let Some(place) = self.place() else {
                assert!(tail <= self.next, "{} is below the tail {tail}, and lost", self.next);
                return false;
            };
            let (_, author) = self.log.read(place);
            self.seen.push((self.next, place, author));
            self.next += 1;
            return true;
        }
    }

    /// What it read, checked to be dense.
    pub fn places(&self) -> Vec<Place> {
        let dense = self.seen.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0);
        assert!(dense || self.missed > 0, "{:?} has gaps", self.seen);
        self.seen.iter().map(|(_, place, _)| *place).collect()
    }
}

/// What [`append_with`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The intent is noted when the record is committed.
    IntentLate,
    /// The position is noted after the sequence.
    SequenceFirst,
    /// The position is noted before the number.
    PositionFirst,
    /// The tail is advanced before the place is taken.
    TailFirst,
    /// The place is not taken with a release.
    RelaxedPlace,
    /// The tail is left to others.
    NoFinish,
    /// A place that is taken is not a reason to advance the tail.
    NoHelp,
    /// The sequence that is asked for is compared before anybody looks whether the tail is behind.
    OnlyBeforeLook,
    /// It is compared once.
    OnlyOnce,
    /// A place is taken with a store.
    StoresPlace,
}

/// `Head::append`, perhaps with a flaw.
pub fn append_with(
    log: &Log,
    piece: &Piece,
    place: Place,
    number: u64,
    only: Option<u64>,
    flaw: Option<Flaw>,
) -> Appended {
    let is = |which| flaw == Some(which);
    let lane = |field| log.words.word(LANES_AT + place.lane * LINE + field);
    let finish = |sequence: u64| {
        step::reached("log.tail");
        let tail = log.words.word(TAIL_AT);
        let _ = tail.compare_exchange(sequence, sequence + 1, AcqRel, Relaxed);
    };
    let note = |sequence: u64| {
        step::reached("log.intend");
        let first = [(NUMBER_AT, number), (POSITION_AT, place.position), (SEQUENCE_AT, sequence)];
        let mut order = first;
        if is(Flaw::PositionFirst) {
            order.swap(0, 1);
        }
        if is(Flaw::SequenceFirst) {
            order.swap(1, 2);
        }
        for (field, value) in order {
            step::reached("log.intent");
            lane(field).store(value, Release);
        }
    };
    let words = &log.pieces[piece.number() as usize].1;
    let mut asked = false;
    loop {
        let sequence = log.words.word(TAIL_AT).load(Acquire);
        if !piece.covers(sequence) {
            return Appended::Beyond(sequence / PLACES);
        }
        let word = words.word((sequence % PLACES) as usize * 8);
        let moved = only.is_some_and(|only| only != sequence) && !(asked && is(Flaw::OnlyOnce));
        asked = true;
        if moved && is(Flaw::OnlyBeforeLook) {
            return Appended::Moved;
        }
        if word.load(Acquire) != 0 {
            if !is(Flaw::NoHelp) {
                finish(sequence);
            }
            continue;
        }
        if moved {
            return Appended::Moved;
        }
        if is(Flaw::TailFirst) {
            finish(sequence);
        }
        if !is(Flaw::IntentLate) {
            note(sequence);
        }
        step::reached("log.place");
        let packed = words::pack(place, sequence);
        let order = if is(Flaw::RelaxedPlace) { Relaxed } else { AcqRel };
        let taken = match is(Flaw::StoresPlace) {
            true => {
                word.store(packed, Release);
                true
            }
            false => word.compare_exchange(0, packed, order, Relaxed).is_ok(),
        };
        if taken {
            if is(Flaw::IntentLate) {
                note(sequence);
            }
            if !is(Flaw::NoFinish) {
                finish(sequence);
            }
            return Appended::At(sequence);
        }
    }
}
