//! The options of a durable topic, and its log.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::control::Shape;
use crate::layout::log::{LogShape, SYNC_EACH};
use crate::log::core::open_folder;
use crate::log::files::LogFiles;
use crate::log::site;
use crate::shm::home;
use crate::shm::loss::Loss;
use crate::topic::core::{log_user, Core};
use crate::topic::options::{Policy, TopicBuilder};
use crate::topic::payload::Payload;
use std::fmt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// When what was published on a durable topic is put on disk, so that a crash of the machine cannot take it away.
///
/// The death of a process takes nothing away, whatever the policy: what was published is in the memory of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncPolicy {
    /// In the background: when the kernel thinks fit, and when a segment is full.
    #[default]
    None,
    /// In the background, every so often, by every process that publishes.
    Every(Duration),
    /// Before publishing returns.
    Each,
}

impl SyncPolicy {
    pub(super) fn to_ns(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Every(time) => {
                u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(1, SYNC_EACH - 1)
            }
            Self::Each => SYNC_EACH,
        }
    }

    pub(crate) fn from_ns(ns: u64) -> Self {
        match ns {
            0 => Self::None,
            SYNC_EACH => Self::Each,
            ns => Self::Every(Duration::from_nanos(ns)),
        }
    }
}

impl fmt::Display for SyncPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Every(time) => write!(f, "every {time:?}"),
            Self::Each => f.write_str("each"),
        }
    }
}

/// What a builder was told of the log.
#[derive(Clone, Debug)]
pub struct Durable {
    /// Whether the topic is to be durable at all.
    pub asked: bool,
    pub path: Option<PathBuf>,
    pub sync: Option<SyncPolicy>,
    pub retain_bytes: Option<u64>,
    pub retain_for: Option<Duration>,
    pub checksums: Option<bool>,
}

impl Durable {
    /// Options of a log, without a log.
    pub fn not_asked_for() -> Self {
        Self { asked: false, ..Self::default() }
    }
}

impl Default for Durable {
    fn default() -> Self {
        let (path, sync, retain_bytes, retain_for, checksums) = (None, None, None, None, None);
        Self { asked: true, path, sync, retain_bytes, retain_for, checksums }
    }
}

/// The log that a topic is about to be made of.
pub(super) struct OpenedLog {
    pub path: PathBuf,
    pub schema: Vec<u8>,
    shape: LogShape,
}

impl OpenedLog {
    /// The shape of a topic with this log.
    pub fn adopted(&self, wanted: &Shape) -> Shape {
        Shape {
            typed: self.shape.typed,
            publishers_max: self.shape.publishers_max,
            segment_bytes: self.shape.segment_bytes,
            schema_bytes: self.shape.schema_bytes,
            schema_crc: self.shape.schema_crc,
            ..*wanted
        }
    }
}

impl<T: Payload> TopicBuilder<T> {
    /// Keeps the messages in a log on disk, in a place that follows from the names of bus and topic: under
    /// `WINDLASS_LOGS` if that is set; beside the topic if the bus was opened by a path that is not in `/dev/shm`; else
    /// under `XDG_DATA_HOME/windlass` or `~/.local/share/windlass`.
    ///
    /// Removing the topic leaves its log where it is; removing a bus removes the logs that are in its folder.
    ///
    /// The topic is [ordered](Self::ordered), its publishers never wait for its subscribers, and whoever opens it after
    /// all processes have ended, or the machine has crashed, finds what was published. The options of a log that exists
    /// are those that it was made with.
    pub fn durable(self) -> Self {
        let durable = Durable { path: None, ..self.durable.clone().unwrap_or_default() };
        Self { durable: Some(durable), ..self }
    }

    /// The same, in the folder `path`, which is made if it does not exist; that which it is in must exist.
    pub fn durable_at(self, path: impl Into<PathBuf>) -> Self {
        let path = Some(path.into());
        let durable = Durable { path, ..self.durable.clone().unwrap_or_default() };
        Self { durable: Some(durable), ..self }
    }

    /// When messages are put on disk; [`SyncPolicy::None`] by default. Durable topics only.
    pub fn sync(self, sync: SyncPolicy) -> Self {
        self.with_log(|log| log.sync = Some(sync))
    }

    /// Deletes the oldest segments once all of them together have more than `bytes` bytes. Everything is kept by
    /// default. Durable topics only.
    pub fn retain_bytes(self, bytes: u64) -> Self {
        self.with_log(|log| log.retain_bytes = Some(bytes))
    }

    /// Deletes segments whose messages are all older than `age`. Durable topics only.
    pub fn retain_for(self, age: Duration) -> Self {
        self.with_log(|log| log.retain_for = Some(age))
    }

    /// Whether messages carry checksums, as they do by default: without them a message that changed on disk is not
    /// noticed, and after a crash of the machine neither is one that did not get there. Durable topics only.
    pub fn checksums(self, checksums: bool) -> Self {
        self.with_log(|log| log.checksums = Some(checksums))
    }

    fn with_log(self, set: impl FnOnce(&mut Durable)) -> Self {
        let mut durable = self.durable.clone().unwrap_or_else(Durable::not_asked_for);
        set(&mut durable);
        Self { durable: Some(durable), ..self }
    }

    /// Refuses options that exclude each other.
    pub(super) fn check_durable(&self, durable: bool) -> Result<()> {
        let refuse = |text: String| {
            Err(Error::new(ErrorKind::Invalid, format!("topic {}: {text}", self.name)))
        };
        let Some(log) = &self.durable else { return Ok(()) };
        if !durable {
            return refuse(
                "sync, retain_bytes, retain_for and checksums are for a log; add durable() or \
                 durable_at(path)"
                    .to_owned(),
            );
        }
        let of_ring = [
            ("reliable() or lossy()", self.policy.is_some_and(|policy| policy != Policy::Durable)),
            ("segments_per_lane", self.segments_per_lane.is_some()),
            ("order_slots", self.order_slots.is_some()),
            ("evict_after", self.evict_after.is_some()),
        ];
        if let Some((option, _)) = of_ring.iter().find(|(_, is_set)| *is_set) {
            return refuse(format!("{option} is for topics that are not durable; leave it out"));
        }
        if self.ordered == Some(false) {
            return refuse("a durable topic is always ordered".to_owned());
        }
        if log.sync.is_some_and(|sync| sync == SyncPolicy::Every(Duration::ZERO)) {
            return refuse("sync every 0 ns; say SyncPolicy::Each, or some time".to_owned());
        }
        if log.retain_bytes == Some(0) || log.retain_for == Some(Duration::ZERO) {
            return refuse("retention of nothing; leave it out to keep everything".to_owned());
        }
        Ok(())
    }

    /// Opens the log of a topic that is to be made, or makes it, if the topic is to be durable.
    pub(super) fn open_log(&self, shape: &Shape) -> Result<Option<OpenedLog>> {
        let Some(durable) = self.durable.as_ref().filter(|durable| durable.asked) else {
            return Ok(None);
        };
        let path = match &durable.path {
            Some(path) => std::path::absolute(path).unwrap_or_else(|_| path.clone()),
            None => make_parents(site::default(self.member.folder(), &self.name)?)?,
        };
        let ns = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let wanted = LogShape {
            checksums: durable.checksums.unwrap_or(true),
            typed: shape.typed,
            publishers_max: shape.publishers_max,
            segment_bytes: shape.segment_bytes,
            sync_ns: durable.sync.unwrap_or_default().to_ns(),
            retain_bytes: durable.retain_bytes.unwrap_or(0),
            retain_ns: durable.retain_for.map_or(0, ns),
            mode: shape.mode,
            schema_bytes: shape.schema_bytes,
            schema_crc: shape.schema_crc,
        };
        let (parent, name) = home::open_parent(&path)?;
        let schema = self.stored_schema()?;
        if !parent.exists(&name)? {
            LogFiles::create(&parent, &name, &wanted, schema.as_deref().unwrap_or_default())?;
        }
        let folder = open_folder(&path)?;
        let files =
            LogFiles::open(folder, &Loss::default()).map_err(|error| match error.kind() {
                ErrorKind::NotFound => not_a_log(&path),
                _ => error,
            })?;
        self.compare_with(&files, self.segment_bytes, self.publishers_max)?;
        let stored = files.schema_bytes()?;
        match (&schema, files.shape.typed) {
            (Some(mine), true) if *mine != stored => {
                crate::message::check_schemas(&self.name, &stored, mine)?;
            }
            (mine, typed) if mine.is_some() != typed => {
                let name = |typed| if typed { "Cap'n Proto messages" } else { "raw bytes" };
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!("the log {} has {}, not {}", files.folder, name(typed), name(!typed)),
                ));
            }
            _ => {}
        }
        Ok(Some(OpenedLog { path, schema: stored, shape: files.shape }))
    }

    /// Compares the options of the log that were set with those of the log.
    fn compare_with(
        &self,
        files: &LogFiles,
        segment_bytes: Option<u64>,
        publishers_max: Option<u32>,
    ) -> Result<()> {
        let Some(durable) = &self.durable else { return Ok(()) };
        let shape = &files.shape;
        self.same("segment_bytes", segment_bytes, shape.segment_bytes)?;
        self.same("publishers_max", publishers_max, shape.publishers_max)?;
        self.same("sync", durable.sync, SyncPolicy::from_ns(shape.sync_ns))?;
        self.same("retain_bytes", durable.retain_bytes, shape.retain_bytes)?;
        let age = durable.retain_for.map(|age| age.as_nanos());
        self.same("retain_for (ns)", age, shape.retain_ns.into())?;
        self.same("checksums", durable.checksums, shape.checksums)
    }

    /// Compares what was said of the log with the log of an open topic.
    pub(super) fn compare_log(&self, core: &Core) -> Result<()> {
        let Some(durable) = &self.durable else { return Ok(()) };
        self.same("durable", Some(durable.asked), core.shape.durable)?;
        let Some(log) = &core.log else { return Ok(()) };
        let here = log.files.folder.path();
        if let Some(path) = durable.path.as_deref().filter(|path| !is_same(path, here)) {
            self.same("its log", Some(path.display().to_string()), here.display().to_string())?;
        }
        self.compare_with(&log.files, None, None)
    }

    /// Whether a log could not be had because another process is making this very topic, and uses it already.
    pub(super) fn is_made_by_another(&self, error: &Error) -> bool {
        let user = format!("is in use by {};", log_user(&self.name, &self.member));
        error.kind() == ErrorKind::AlreadyExists && error.to_string().contains(&user)
    }
}

fn not_a_log(path: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "{} is a folder without a log: name one that does not exist yet, for example {}, and \
             it will be made",
            path.display(),
            path.join("log").display()
        ),
    )
}

fn is_same(one: &Path, other: &Path) -> bool {
    let canonical = |path: &Path| std::fs::canonicalize(path).ok();
    one == other || (canonical(one).is_some() && canonical(one) == canonical(other))
}

/// Makes the folders that a path is in.
fn make_parents(path: PathBuf) -> Result<PathBuf> {
    if let Some(parent) = path.parent() {
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(parent);
        made.map_err(|error| Error::io(format!("cannot make {}", parent.display()), error))?;
    }
    Ok(path)
}
