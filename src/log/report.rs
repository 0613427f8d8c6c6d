//! What a look through a whole log found.

use crate::log::outcome::Damage;
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// A message that is not what was published, and where it is, as far as its place in the order says so.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedRecord {
    /// The message.
    pub sequence: u64,
    /// What is wrong with it.
    pub damage: Damage,
    /// The lane that its place names.
    pub lane: Option<u32>,
    /// The position that its place names.
    pub position: Option<u64>,
    /// The file that is damaged: that of its record, or that of its place.
    pub file: String,
}

impl fmt::Display for DamagedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, damage, file, .. } = self;
        write!(f, "message {sequence}: {damage} ({file}")?;
        if let (Some(lane), Some(position)) = (self.lane, self.position) {
            write!(f, ", lane {lane}, position {position}")?;
        }
        f.write_str(")")
    }
}

/// A file of a log that is not what it should be, beyond what is said of each message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DamagedFile {
    /// Its name.
    pub file: String,
    /// What is wrong with it.
    pub what: String,
}

impl fmt::Display for DamagedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// What is in a lane of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaneReport {
    /// Segments.
    pub segments: u64,
    /// Sound messages.
    pub messages: u64,
    /// Payload bytes of them.
    pub payload_bytes: u64,
    /// Bytes of them with headers, keys and padding.
    pub record_bytes: u64,
    /// Bytes behind the last message that are not zero: those of messages that were begun and not committed. Not looked
    /// at while the log is in use. Whoever opens the log next clears them.
    pub residue_bytes: u64,
}

/// What a look through a whole log found; see [`Log::verify`](crate::Log::verify).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// The folder.
    pub path: PathBuf,
    /// Whether the log was in use meanwhile.
    pub in_use: bool,
    /// Sequence of the oldest message that was looked at.
    pub first: u64,
    /// Sequence behind the newest one.
    pub next: u64,
    /// Messages that are sound.
    pub sound: u64,
    /// Messages that are not.
    pub damaged: u64,
    /// Messages that were deleted, by the retention of the log, before they were looked at.
    pub deleted: u64,
    /// The first of those that are damaged, at most [`LISTED_MAX`](Self::LISTED_MAX).
    pub records: Vec<DamagedRecord>,
    /// Files that are damaged, at most [`LISTED_MAX`](Self::LISTED_MAX).
    pub files: Vec<DamagedFile>,
    /// What is in each lane.
    pub lanes: BTreeMap<u32, LaneReport>,
    /// Times of the first and of the last sound message, in nanoseconds since 1970.
    pub times_ns: Option<(u64, u64)>,
    /// Earliest and latest time of all sound messages: others, if the clock of the machine was set back.
    pub extremes_ns: Option<(u64, u64)>,
    /// Messages whose time is before that of the message before them.
    pub steps_back: u64,
    /// Whether checksums were looked at: whether the log has them.
    pub checksums: bool,
    /// Everything below this sequence was put on disk, says the newest checkpoint.
    pub checkpoint_next: u64,
    /// Where the log would end if everybody left it now and somebody opened it. If the machine may have crashed since
    /// it was used, that is before the first damage behind the checkpoint, else behind the last sound message.
    pub recovered_next: u64,
    /// Messages that would be cut off then, sound or not.
    pub would_cut: u64,
}

impl VerifyReport {
    /// Most damages that are listed; all are counted.
    pub const LISTED_MAX: usize = 1000;

    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damaged == 0 && self.files.is_empty()
    }

    pub(super) fn note_record(&mut self, record: DamagedRecord) {
        self.damaged += 1;
        if self.records.len() < Self::LISTED_MAX {
            self.records.push(record);
        }
    }

    pub(super) fn note_file(&mut self, file: impl Into<String>, what: impl fmt::Display) {
        if self.files.len() < Self::LISTED_MAX {
            self.files.push(DamagedFile { file: file.into(), what: what.to_string() });
        }
    }

    pub(super) fn note_time(&mut self, time: u64) {
        let last = self.times_ns.map_or(time, |(_, last)| last);
        self.steps_back += u64::from(time < last);
        self.times_ns = Some((self.times_ns.map_or(time, |(first, _)| first), time));
        let (least, most) = self.extremes_ns.unwrap_or((time, time));
        self.extremes_ns = Some((least.min(time), most.max(time)));
    }
}
