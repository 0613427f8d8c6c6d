//! What all handles of a durable topic share within a process.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::frame::{PROLOGUE, WORD};
use crate::layout::record;
use crate::limits::PLACES;
use crate::log::checkpoint;
use crate::log::claim::{Claim, Found};
use crate::log::files::{LogFiles, Segment};
use crate::log::keeper::Keeper;
use crate::log::recover::{self, Recovery};
use crate::ring::log::{Head, Piece};
use crate::shm::home::{self, Folder};
use crate::shm::map::Access;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Segments that stay mapped for readers who come after those who needed them.
const KEPT_SEGMENTS: usize = 16;

/// Pieces of the order that do.
const KEPT_PIECES: usize = 8;

/// The log of a durable topic.
pub struct LogCore {
    /// Its files.
    pub files: Arc<LogFiles>,
    /// The words that publishers and subscribers share.
    pub head: Head,
    /// What was found when this process opened it before anybody else.
    pub recovery: Option<Recovery>,
    segments: Mutex<VecDeque<Segment>>,
    pieces: Mutex<VecDeque<Piece>>,
    /// What works in the background. Ends before the claim.
    pub keeper: Keeper,
    _claim: Claim,
}

/// Where a lane ends.
pub struct LaneEnd {
    /// Its last segment.
    pub logical: u64,
    /// Where the next record begins in it.
    pub tail: usize,
    /// The number of the next record.
    pub number: u64,
    /// A sequence that is above those of all its records.
    pub after: u64,
}

/// Opens the folder of a log.
pub fn open_folder(path: &Path) -> Result<Folder> {
    let (parent, name) = home::open_parent(path)?;
    parent.open_folder(&name)
}

impl LogCore {
    /// Uses a log for topic `identity`, shown as `name`, and makes it ready if nobody uses it. `is_used` says whether
    /// somebody publishes on the topic, or subscribes to it.
    pub fn open(
        files: LogFiles,
        head: Head,
        identity: u64,
        name: &str,
        is_used: impl FnOnce() -> bool,
    ) -> Result<Arc<Self>> {
        if head.lanes() < files.shape.publishers_max as usize {
            let what = format!("{}/log", files.folder);
            let (found, most) = (files.shape.publishers_max, head.lanes());
            return Err(Error::corrupt(what, "its number of lanes", found, most));
        }
        let (claim, found) = Claim::take(&files, identity, name)?;
        let mut recovery = None;
        if let Found::Alone(past) = found {
            if is_used() {
                // Then they have files that are not here any more, and what is shared is about those.
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "{name} is in use with a log that was at {} before: it was removed, or \
                         exchanged for this one; end all processes of the topic, or put the files \
                         back",
                        files.folder
                    ),
                ));
            }
            files.folder.sweep_temporaries();
            let recovered = recover::recover(&files, past)?;
            let checkpoint = &recovered.checkpoint;
            head.reset(checkpoint.next, checkpoint.floor, &checkpoint.ends, &checkpoint.numbers);
            claim.settle(identity, name)?;
            recovery = Some(recovered.report);
        }
        let (segments, pieces, files) = (Mutex::default(), Mutex::default(), Arc::new(files));
        let keeper = Keeper::new(files.clone(), head.clone());
        Ok(Arc::new(Self { files, head, recovery, segments, pieces, keeper, _claim: claim }))
    }

    /// The read-only mapping of a segment; `None` if its file is gone, or not there yet.
    pub fn segment(&self, lane: usize, logical: u64) -> Result<Option<Segment>> {
        let mut kept = self.segments.lock().unwrap_or_else(PoisonError::into_inner);
        let wanted = |kept: &&Segment| kept.lane.index() == lane && kept.logical == logical;
        if let Some(found) = kept.iter().find(wanted) {
            return Ok(Some(found.clone()));
        }
        let Some(mapped) = self.files.segment(lane, logical, Access::Read)? else {
            return Ok(None);
        };
        // What was deleted takes room on the disk for as long as it is mapped.
        kept.retain(Segment::has_name);
        kept.truncate(KEPT_SEGMENTS - 1);
        kept.push_front(mapped.clone());
        Ok(Some(mapped))
    }

    /// The read-only mapping of a piece of the order; `None` if its file is gone, or not there yet.
    pub fn piece(&self, number: u64) -> Result<Option<Piece>> {
        let mut kept = self.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(found) = kept.iter().find(|kept| kept.number() == number) {
            return Ok(Some(found.clone()));
        }
        let Some((mapped, _)) = self.files.piece(number, Access::Read)? else { return Ok(None) };
        kept.truncate(KEPT_PIECES - 1);
        kept.push_front(mapped.clone());
        Ok(Some(mapped))
    }

    /// The first sequence that is not taken: behind the tail, which may be behind.
    pub fn next(&self) -> Result<u64> {
        let mut next = self.head.tail();
        loop {
            let Some(piece) = self.piece(next / PLACES)? else { return Ok(next) };
            while piece.covers(next) {
                if piece.read(next).is_none() {
                    return Ok(next);
                }
                next += 1;
            }
        }
    }

    /// The first sequence that is kept.
    pub fn first(&self) -> u64 {
        self.head.floor()
    }

    /// Where a lane ends, whatever its last publisher was doing when it ended. For the holder of its lease.
    pub fn end_of(&self, lane: usize) -> Result<LaneEnd> {
        let intent = self.head.intent(lane);
        let bytes = self.files.shape.segment_bytes;
        let damaged = || {
            let what = format!("{}: lane {lane}", self.files.folder);
            Error::corrupt(what, "what its last publisher was about to do", "not so", "a record")
        };
        if !intent.position.is_multiple_of(WORD as u64) {
            return Err(damaged());
        }
        let piece = match intent.sequence {
            // The place may be deleted by now. Before that a checkpoint says where the lane ends.
            Some(sequence) => match self.piece(sequence / PLACES)? {
                None => return self.noted_end_of(lane, sequence)?.ok_or_else(damaged),
                found => found,
            },
            None => None,
        };
        let committed = intent.is_committed(lane, piece.as_ref()).map_err(|_| damaged())?;
        let (logical, at) = (intent.position / bytes, (intent.position % bytes) as usize);
        if !committed {
            let (tail, number) = (at.max(PROLOGUE), intent.number);
            return Ok(LaneEnd { logical, tail, number, after: self.head.tail() });
        }
        let segment = self.segment(lane, logical)?.ok_or_else(damaged)?;
        let record = segment.lane.record(at).ok_or_else(damaged)?;
        let number = record::number(record.head, intent.number.saturating_sub(1));
        if number > intent.number {
            return Err(damaged());
        }
        // Whoever died between its place and the tail left the tail below it.
        let after = self.head.tail().max(intent.sequence.map_or(0, |sequence| sequence + 1));
        Ok(LaneEnd { logical, tail: record.end(), number: number + 1, after })
    }

    /// Where a lane ends all of whose records are at or below `sequence`, as the checkpoint says, if it says so.
    fn noted_end_of(&self, lane: usize, sequence: u64) -> Result<Option<LaneEnd>> {
        let noted = checkpoint::read(&self.files)?;
        let (bytes, end) = (self.files.shape.segment_bytes, noted.ends[lane]);
        let (logical, at) = (end / bytes, (end % bytes) as usize);
        let (tail, number, after) = (at.max(PROLOGUE), noted.numbers[lane], self.head.tail());
        let says = noted.next > sequence && at.is_multiple_of(WORD);
        Ok(says.then_some(LaneEnd { logical, tail, number, after }))
    }

    /// What is said of a sequence that is not there.
    pub fn out_of_range(&self, what: &str, wanted: u64) -> Error {
        let (first, next) = (self.first(), self.next().unwrap_or_else(|_| self.head.tail()));
        Error::new(
            ErrorKind::OutOfRange,
            format!(
                "{what} has no sequence {wanted}: the oldest retained is {first}, the next \
                 to be published is {next}"
            ),
        )
    }
}
