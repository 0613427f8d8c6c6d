//! Where a log is read: in a topic that is open, or in its folder alone.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::log::Checkpoint;
use crate::limits::PLACES;
use crate::log::checkpoint;
use crate::log::core::{open_folder, LogCore};
use crate::log::files::{LogFiles, Segment};
use crate::log::recover;
use crate::ring::log::Piece;
use crate::ring::order::TAIL_MAX;
use crate::shm::loss::Loss;
use crate::shm::map::Access;
use crate::sync::{AtomicU64, Ordering::Relaxed};
use std::path::Path;
use std::sync::Arc;

/// Where the files of a log come from.
enum Origin {
    /// From a topic that is open: its words say where the log begins and ends.
    Topic(Arc<LogCore>),
    /// From the folder. Its files say it, as far as they do.
    Folder(LogFiles),
}

/// A log that is read.
pub struct Source {
    origin: Origin,
    /// A sequence that is not above the next one.
    next: AtomicU64,
    /// A sequence that is not above the first one.
    first: AtomicU64,
}

impl Source {
    /// The log of a topic that is open.
    pub fn of_topic(log: Arc<LogCore>) -> Self {
        let (next, first) = (log.head.tail(), log.first());
        Self { origin: Origin::Topic(log), next: next.into(), first: first.into() }
    }

    /// The log that has these files, of whose end nothing is asked.
    pub fn of_files(files: LogFiles) -> Self {
        let (next, first) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { origin: Origin::Folder(files), next, first }
    }

    /// The log in the folder at `path`, which others may be writing.
    pub fn open(path: &Path) -> Result<Self> {
        let files = LogFiles::open(open_folder(path)?, &Loss::default()).map_err(|error| {
            match error.kind() {
                ErrorKind::NotFound => no_log(path, &error),
                _ => error,
            }
        })?;
        let (next, first) = (AtomicU64::new(0), AtomicU64::new(0));
        let source = Self { origin: Origin::Folder(files), next, first };
        let next = source.look_for_next()?;
        // Relaxed: hints, here and below; what they lead to is looked at.
        source.next.store(next, Relaxed);
        source.first()?;
        Ok(source)
    }

    /// Its files.
    pub fn files(&self) -> &LogFiles {
        match &self.origin {
            Origin::Topic(log) => &log.files,
            Origin::Folder(files) => files,
        }
    }

    /// The topic that is open.
    pub fn topic(&self) -> Option<&Arc<LogCore>> {
        match &self.origin {
            Origin::Topic(log) => Some(log),
            Origin::Folder(_) => None,
        }
    }

    /// A read-only mapping of a segment; `None` if there is no such file.
    pub fn segment(&self, lane: usize, logical: u64) -> Result<Option<Segment>> {
        match &self.origin {
            Origin::Topic(log) => log.segment(lane, logical),
            Origin::Folder(files) => files.segment(lane, logical, Access::Read),
        }
    }

    /// A read-only mapping of a piece of the order; `None` if there is no such file.
    pub fn piece(&self, number: u64) -> Result<Option<Piece>> {
        match &self.origin {
            Origin::Topic(log) => log.piece(number),
            Origin::Folder(files) => Ok(files.piece(number, Access::Read)?.map(|(piece, _)| piece)),
        }
    }

    /// The first sequence that is not taken.
    pub fn next(&self) -> Result<u64> {
        if let Origin::Topic(log) = &self.origin {
            return log.next();
        }
        let mut next = self.next.load(Relaxed);
        while next < TAIL_MAX {
            let piece = match self.piece(next / PLACES) {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                // Nothing is said behind what is known.
                Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch) => {
                    break;
                }
                Err(error) => return Err(error),
            };
            while piece.covers(next) && piece.read(next).is_some() {
                next += 1;
            }
            if piece.covers(next) {
                break;
            }
        }
        self.next.fetch_max(next, Relaxed);
        Ok(next)
    }

    /// The first sequence that is kept. Without an open topic it takes a look at the folder.
    pub fn first(&self) -> Result<u64> {
        let first = match &self.origin {
            Origin::Topic(log) => log.first(),
            Origin::Folder(files) => {
                recover::floor_of(files, &checkpoint_of(files), &files.list()?)?
            }
        };
        self.first.fetch_max(first, Relaxed);
        Ok(first)
    }

    /// The first sequence that is kept, as it was a while ago at worst.
    #[inline]
    pub fn first_seen(&self) -> u64 {
        match &self.origin {
            Origin::Topic(log) => log.first(),
            Origin::Folder(_) => self.first.load(Relaxed),
        }
    }

    /// The first sequence that is not taken, without anything to begin at.
    fn look_for_next(&self) -> Result<u64> {
        let files = self.files();
        let listing = files.list()?;
        let known = checkpoint_of(files).next.min(TAIL_MAX);
        for number in listing.pieces.iter().rev().copied() {
            // One that was made ahead has nothing in it; one that is damaged says nothing.
            let Ok(Some(piece)) = self.piece(number) else { continue };
            let end = piece.end();
            if end > number * PLACES {
                return Ok(end.max(known));
            }
        }
        let oldest = listing.pieces.first().map_or(0, |number| number * PLACES);
        Ok(known.max(oldest))
    }
}

/// The newest checkpoint, or none: a log can be read without one.
pub fn checkpoint_of(files: &LogFiles) -> Checkpoint {
    checkpoint::read(files).unwrap_or_else(|error| {
        tracing::warn!(log = %files.folder, %error, "a log is read without its checkpoint");
        Checkpoint::empty()
    })
}

fn no_log(path: &Path, error: &Error) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "{} is not the folder of a log: it has no file \"log\", or is not there ({error}); name \
             the folder that durable_at was given, or that windlass info shows",
            path.display()
        ),
    )
}
