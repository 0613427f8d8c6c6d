//! A log that a command writes.
//!
//! It is the log of a durable topic of a bus in the memory of this process: what is true of any publisher is true of
//! this one. Nobody else can use the log meanwhile.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use windlass::{Append, Bus, LogInfo, Publisher, Raw, Recovery, TopicBuilder};

use super::place::unfinished;
use crate::args::LogArguments;
use crate::output::{self, count, some};

/// A log to append to.
pub struct Target {
    publisher: Publisher<Raw>,
    path: PathBuf,
    /// Messages appended.
    pub messages: u64,
    /// Their payload bytes.
    pub payload_bytes: u64,
    /// The sequence of the first one.
    pub first: Option<u64>,
}

impl Target {
    /// Opens the log at `path`, or makes it, for messages of this schema; `what` is how it is named to those who find
    /// it in use.
    pub fn open(
        path: &Path,
        what: &str,
        schema: Option<Vec<u8>>,
        options: &LogArguments,
    ) -> Result<Self> {
        let mut builder = builder(path, what, schema)?;
        if let Some(bytes) = options.retain_bytes {
            builder = builder.retain_bytes(bytes);
        }
        if let Some(age) = options.retain_for {
            builder = builder.retain_for(age);
        }
        if let Some(sync) = options.sync {
            builder = builder.sync(sync);
        }
        if let Some(bytes) = options.segment_bytes {
            builder = builder.segment_bytes(bytes);
        }
        Self::new(path, builder)
    }

    /// Makes a log at `path` with the options of another one.
    pub fn like(path: &Path, what: &str, schema: Option<Vec<u8>>, other: &LogInfo) -> Result<Self> {
        let mut builder = builder(path, what, schema)?
            .sync(other.sync)
            .segment_bytes(other.segment_bytes)
            .publishers_max(other.publishers_max)
            .checksums(other.checksums);
        if let Some(bytes) = other.retain_bytes {
            builder = builder.retain_bytes(bytes);
        }
        if let Some(age) = other.retain_for {
            builder = builder.retain_for(age);
        }
        Self::new(path, builder)
    }

    fn new(path: &Path, builder: TopicBuilder<Raw>) -> Result<Self> {
        let topic = builder.create()?;
        tell_of_losses(path, topic.recovery());
        let publisher = topic.publisher()?;
        let path = path.to_owned();
        Ok(Self { publisher, path, messages: 0, payload_bytes: 0, first: None })
    }

    /// Appends a message, with its time if it has one.
    pub fn append(&mut self, payload: &[u8], key: &[u8], time_ns: Option<u64>) -> Result<()> {
        let append = match time_ns {
            Some(time_ns) => Append::new().key(key).time_ns(time_ns),
            None => Append::new().key(key),
        };
        let appended = self.publisher.append(payload, &append);
        let receipt = appended
            .with_context(|| format!("cannot append to the log {}", self.path.display()))?;
        self.first.get_or_insert(receipt.sequence);
        self.messages += 1;
        self.payload_bytes += payload.len() as u64;
        Ok(())
    }
}

fn builder(path: &Path, what: &str, schema: Option<Vec<u8>>) -> Result<TopicBuilder<Raw>> {
    let topic = Bus::anonymous()?.topic::<Raw>(what);
    Ok(topic.durable_at(path).with_schema(schema).subscribers_max(1))
}

/// Says what opening a log had to cut off.
pub fn tell_of_losses(path: &Path, recovery: Option<&Recovery>) {
    let Some(recovery) = recovery.filter(|recovery| recovery.cut_messages > 0) else { return };
    let lost = some(recovery.cut_messages, "message", "messages");
    output::complain(&format!(
        "windlass: the log {} lost its newest {lost}, which had not reached the disk when the machine \
         crashed; it goes on with sequence {}",
        path.display(),
        count(recovery.next)
    ));
}

/// A log, or a file, that is being made under another name, and removed unless it is finished.
pub struct Unfinished {
    path: PathBuf,
    to: PathBuf,
}

impl Unfinished {
    /// What is to be at `to`, where nothing must be.
    pub fn new(to: &Path) -> Result<Self> {
        let unfinished = Self { path: unfinished(to)?, to: to.to_owned() };
        unfinished.check()?;
        Ok(unfinished)
    }

    /// Where to make it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn check(&self) -> Result<()> {
        let to = self.to.display();
        if self.to.symlink_metadata().is_ok() {
            bail!("{to} exists already, and is not overwritten; give another name, or remove it");
        }
        Ok(())
    }

    /// Puts it on disk and gives it its name.
    pub fn finish(self) -> Result<()> {
        let cannot = || format!("cannot put {} on disk", self.to.display());
        let sync = |path: &Path| File::open(path).and_then(|file| file.sync_all());
        if self.path.is_dir() {
            for entry in std::fs::read_dir(&self.path).with_context(cannot)? {
                sync(&entry.with_context(cannot)?.path()).with_context(cannot)?;
            }
        }
        sync(&self.path).with_context(cannot)?;
        self.check()?;
        // Whoever was faster meanwhile keeps what is there: this fails unless it is an empty folder.
        let named = match self.path.is_dir() {
            true => std::fs::rename(&self.path, &self.to),
            false => std::fs::hard_link(&self.path, &self.to),
        };
        named.with_context(|| format!("cannot give {} its name", self.to.display()))?;
        let parent = self.to.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync(parent.unwrap_or(Path::new("."))).with_context(cannot)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // What was given its name is not there any more.
        let _ = match self.path.is_dir() {
            true => std::fs::remove_dir_all(&self.path),
            false => std::fs::remove_file(&self.path),
        };
    }
}
