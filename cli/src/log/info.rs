//! `windlass log info`: what a log was made with, and what is in it; and what other commands show of logs.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::{ErrorKind, Log, LogInfo, Raw, Schema, TopicInfo};

use super::cursors::{self, Entry};
use super::interrupt::{self, Interrupted};
use super::place::find_log;
use super::progress::Progress;
use super::range::{self, Losses};
use super::value::time;
use crate::args::{DamageArguments, LogInfoArguments, RangeArguments};
use crate::output::{self, bytes, count, duration, some};

/// A log, as JSON shows it.
#[derive(Serialize)]
struct Info {
    log: PathBuf,
    used_by: Option<String>,
    schema: Option<String>,
    first: u64,
    next: u64,
    messages: u64,
    first_time: Option<String>,
    last_time: Option<String>,
    disk_bytes: u64,
    /// Of lanes that have any: their segments.
    segments: BTreeMap<u32, u64>,
    segment_bytes: u64,
    publishers_max: u32,
    checksums: bool,
    sync: String,
    retain_bytes: Option<u64>,
    retain_for_ms: Option<u128>,
    cursors: Vec<Entry>,
    #[serde(flatten)]
    contents: Option<Contents>,
}

/// What only reading all of it tells.
#[derive(Default, Serialize)]
struct Contents {
    payload_bytes: u64,
    key_bytes: u64,
    keyed: u64,
    /// Of each lane: its messages.
    lanes: BTreeMap<u32, u64>,
    damaged: u64,
}

/// `windlass log info`.
pub fn run(arguments: &LogInfoArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let source = find_log(&arguments.place.place, &arguments.place.bus)?;
    let contents = arguments.count.then(|| contents(&source.log)).transpose()?;
    let name = source.schema.as_ref().map(Schema::type_name);
    let info = Info::new(&source.log, source.log.info()?, name, contents)?;
    match arguments.json {
        true => output::json(&info)?,
        false => output::text(&page(&info))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn contents(log: &Log<Raw>) -> Result<Contents> {
    let (mut contents, mut losses) =
        (Contents::default(), Losses::new(&DamageArguments::default()));
    let range = range::of(log, &RangeArguments::default(), None)?;
    let mut progress = Progress::new(Some(range.end - range.start));
    let is_whole = range::read(log, range, &mut losses, &mut progress, |seen| {
        contents.payload_bytes += seen.payload.len() as u64;
        contents.key_bytes += seen.key.len() as u64;
        contents.keyed += u64::from(!seen.key.is_empty());
        *contents.lanes.entry(seen.lane).or_default() += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    contents.damaged = losses.damaged;
    match is_whole {
        true => Ok(contents),
        false => Err(Interrupted("not everything was read".to_owned()).into()),
    }
}

impl Info {
    fn new(
        log: &Log<Raw>,
        info: LogInfo,
        schema: Option<&str>,
        contents: Option<Contents>,
    ) -> Result<Self> {
        Ok(Self {
            used_by: info.used_by,
            schema: schema.map(str::to_owned),
            messages: info.next - info.first,
            first_time: time_of(log, info.first, info.next)?,
            last_time: time_of(log, info.next.saturating_sub(1).max(info.first), info.next)?,
            log: info.path,
            first: info.first,
            next: info.next,
            disk_bytes: info.disk_bytes,
            segments: info.segments,
            segment_bytes: info.segment_bytes,
            publishers_max: info.publishers_max,
            checksums: info.checksums,
            sync: info.sync.to_string(),
            retain_bytes: info.retain_bytes,
            retain_for_ms: info.retain_for.map(|age| age.as_millis()),
            cursors: cursors::entries(log.cursors()?),
            contents,
        })
    }
}

/// The time of a message; `None` if there is none, or it cannot be read.
fn time_of(log: &Log<Raw>, sequence: u64, next: u64) -> Result<Option<String>> {
    if sequence >= next {
        return Ok(None);
    }
    match log.get(sequence) {
        Ok(message) => Ok(message.time_ns().map(time)),
        Err(error) if matches!(error.kind(), ErrorKind::Damaged | ErrorKind::OutOfRange) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

fn page(info: &Info) -> String {
    let head = format!("Log {}", info.log.display());
    let used = info.used_by.clone().unwrap_or_else(|| "nobody".to_owned());
    let span = match (&info.first_time, &info.last_time) {
        (Some(first), Some(last)) => format!("{first} to {last}"),
        _ => "none".to_owned(),
    };
    let segments: u64 = info.segments.values().sum();
    let in_lanes = some(info.segments.len() as u64, "lane", "lanes");
    let mut lines = vec![
        ("used by", used),
        ("type", info.schema.clone().unwrap_or_else(|| "bytes".to_owned())),
        (
            "messages",
            format!(
                "{}: first {}, next {}",
                count(info.messages),
                count(info.first),
                count(info.next)
            ),
        ),
        ("times", span),
        ("on disk", bytes(info.disk_bytes)),
        (
            "segments",
            format!("{} of {}, in {in_lanes}", count(segments), bytes(info.segment_bytes)),
        ),
        ("room", some(info.publishers_max.into(), "publisher", "publishers")),
        ("sync", info.sync.clone()),
        ("checksums", if info.checksums { "yes" } else { "no" }.to_owned()),
    ];
    let age = info
        .retain_for_ms
        .map(|ms| duration(u64::try_from(ms.saturating_mul(1_000_000)).unwrap_or(u64::MAX)));
    let kept = match (info.retain_bytes, age) {
        (None, None) => "everything".to_owned(),
        (Some(most), None) => bytes(most),
        (None, Some(age)) => format!("what is younger than {age}"),
        (Some(most), Some(age)) => format!("{}, of what is younger than {age}", bytes(most)),
    };
    lines.push(("keeps", kept));
    if let Some(contents) = &info.contents {
        lines.push(("payload", bytes(contents.payload_bytes)));
        let keyed = some(contents.keyed, "message has", "messages have");
        lines.push(("keys", format!("{keyed} one, {}", bytes(contents.key_bytes))));
        if contents.damaged > 0 {
            lines.push(("damaged", some(contents.damaged, "message", "messages")));
        }
    }
    let lines = lines.iter().map(|(name, value)| format!("  {name:<13} {value}"));
    let mut parts = vec![head, lines.collect::<Vec<_>>().join("\n")];
    if !info.cursors.is_empty() {
        parts.push(cursors::page(&info.cursors));
    }
    parts.join("\n\n")
}

/// What lists of topics show of a log.
#[derive(Serialize)]
pub struct Extent {
    /// Its folder.
    pub log: PathBuf,
    /// The oldest sequence that is kept.
    pub first: u64,
    /// The sequence that the next message gets.
    pub next: u64,
    /// Everything below is known to be on disk.
    pub synced: u64,
    /// Bytes of its files.
    pub disk_bytes: u64,
    /// When messages are put on disk.
    pub sync: String,
}

impl Extent {
    /// The log of a topic, if it has one that may be read.
    pub fn of_topic(topic: &TopicInfo) -> windlass::Result<Option<Self>> {
        let Some(path) = &topic.log else { return Ok(None) };
        let info = match Log::open_untyped(path).and_then(|log| log.info()) {
            // That of somebody else.
            Err(error) if error.kind() == ErrorKind::Permission => return Ok(None),
            looked => looked?,
        };
        Ok(Some(Self {
            log: info.path,
            first: info.first,
            next: info.next,
            synced: topic.synced.unwrap_or(info.first),
            disk_bytes: info.disk_bytes,
            sync: info.sync.to_string(),
        }))
    }
}
