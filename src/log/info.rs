//! What a log is: options, extent, bytes.

use crate::error::{Error, Result};
use crate::layout::log as layout;
use crate::log::claim;
use crate::log::cursor::{self, CursorInfo};
use crate::log::reader::Log;
use crate::shm::map::Access;
use crate::topic::payload::Payload;
use crate::topic::SyncPolicy;
use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What a log was created with, and what is in it now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogInfo {
    /// Its folder.
    pub path: PathBuf,
    /// Sequence of the oldest message that is kept.
    pub first: u64,
    /// Sequence that the next message gets.
    pub next: u64,
    /// Every message below this sequence is known to be on disk; `None` if nobody has the topic open here.
    pub synced: Option<u64>,
    /// Whether its messages are Cap'n Proto of a stored schema.
    pub typed: bool,
    /// Whether its messages carry checksums.
    pub checksums: bool,
    /// When what is published is put on disk.
    pub sync: SyncPolicy,
    /// Bytes of all segments above which the oldest are deleted.
    pub retain_bytes: Option<u64>,
    /// Age above which segments are deleted.
    pub retain_for: Option<Duration>,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Lanes that it has room for.
    pub publishers_max: u32,
    /// Of each lane that has any: its segments.
    pub segments: BTreeMap<u32, u64>,
    /// Bytes on disk of all its files.
    pub disk_bytes: u64,
    /// The topic that has it open now, and its bus.
    pub used_by: Option<String>,
}

impl<T: Payload> Log<T> {
    /// The folder of the log.
    pub fn path(&self) -> &Path {
        self.source.files().folder.path()
    }

    /// Whether its messages are Cap'n Proto of a stored schema, or bytes.
    pub fn is_typed(&self) -> bool {
        self.source.files().shape.typed
    }

    /// The schema that the log stores: a `CodeGeneratorRequest` as the Cap'n Proto compiler writes it; empty if its
    /// messages are bytes.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is damaged.
    pub fn schema_bytes(&self) -> Result<Vec<u8>> {
        self.source.files().schema_bytes()
    }

    /// What the log was created with, and what is in it now.
    ///
    /// Lists the folder.
    pub fn info(&self) -> Result<LogInfo> {
        let files = self.source.files();
        let (shape, mut segments, mut disk_bytes) = (&files.shape, BTreeMap::new(), 0);
        for name in files.folder.files()? {
            if let Some((lane, _)) = layout::segment_of(&name) {
                *segments.entry(lane as u32).or_default() += 1;
            }
            // One that is gone by now takes no room.
            let Ok(file) = files.folder.open_file(&name, Access::Read) else { continue };
            let metadata = file.metadata();
            let metadata = metadata.map_err(|e| Error::io(format!("cannot look at {name}"), e))?;
            disk_bytes += metadata.blocks() * 512;
        }
        Ok(LogInfo {
            path: self.path().to_owned(),
            first: self.first()?,
            next: self.next()?,
            synced: self.source.topic().map(|log| log.head.synced()),
            typed: shape.typed,
            checksums: shape.checksums,
            sync: SyncPolicy::from_ns(shape.sync_ns),
            retain_bytes: Some(shape.retain_bytes).filter(|bytes| *bytes > 0),
            retain_for: Some(shape.retain_ns).filter(|ns| *ns > 0).map(Duration::from_nanos),
            segment_bytes: shape.segment_bytes,
            publishers_max: shape.publishers_max,
            segments,
            disk_bytes,
            used_by: claim::user_of(files)?,
        })
    }

    /// The cursors that are kept beside the log, by name.
    pub fn cursors(&self) -> Result<Vec<CursorInfo>> {
        cursor::list(self.source.files(), self.first()?, self.next()?)
    }
}
