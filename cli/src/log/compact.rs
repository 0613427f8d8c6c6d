//! `windlass compact`: a new log with only the newest message of each key.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Result};
use serde::Serialize;
use windlass::{FieldPath, FieldValue};

use super::interrupt::{self, Interrupted};
use super::line::Seen;
use super::place::{find_log, Source};
use super::progress::Progress;
use super::range::{self, Losses};
use super::target::{Target, Unfinished};
use crate::args::{CompactArguments, RangeArguments, Unkeyed};
use crate::output::{self, bytes, count, some};

/// What the command did.
#[derive(Serialize)]
struct Compacted {
    log: String,
    to: PathBuf,
    /// Messages before, and those of them in the new log.
    before: u64,
    messages: u64,
    /// Keys that differ.
    keys: u64,
    /// Messages without a key.
    unkeyed: u64,
    /// Messages that are damaged, and so not in the new log.
    damaged: u64,
    payload_bytes_before: u64,
    payload_bytes: u64,
    disk_bytes_before: u64,
    disk_bytes: u64,
}

/// `windlass compact`.
pub fn run(arguments: &CompactArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let source = find_log(&arguments.place.place, &arguments.place.bus)?;
    let unfinished = Unfinished::new(&arguments.to)?;
    let (info, keys) = (source.log.info()?, Keys::of(&source, arguments)?);
    // What is published meanwhile is not part of it.
    let range = range::of(&source.log, &RangeArguments::default(), None)?;
    let mut losses = Losses::new(&arguments.damage);
    let stopped = || -> anyhow::Error { Interrupted("there is no new log".to_owned()).into() };

    let mut newest = HashMap::<Box<[u8]>, u64>::new();
    let (mut unkeyed, mut before, mut payload_bytes_before) = (0, 0, 0);
    let mut progress = Progress::new(Some(2 * (range.end - range.start)));
    let is_whole = range::read(&source.log, range.clone(), &mut losses, &mut progress, |seen| {
        before += 1;
        payload_bytes_before += seen.payload.len() as u64;
        match keys.key(seen)? {
            Some(key) => match newest.get_mut(&*key) {
                Some(sequence) => *sequence = seen.sequence,
                None => _ = newest.insert(key.into(), seen.sequence),
            },
            None => unkeyed += 1,
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !is_whole {
        return Err(stopped());
    }

    let schema = source.schema_bytes.clone();
    let mut target = Target::like(unfinished.path(), "compaction", schema, &info)?;
    // They were named in the first round. What was deleted since then is missing from the new log.
    let mut again = Losses::default();
    let is_whole = range::read(&source.log, range, &mut again, &mut progress, |seen| {
        let stays = match keys.key(seen)? {
            Some(key) => newest.get(&*key) == Some(&seen.sequence),
            None => arguments.unkeyed == Unkeyed::Keep,
        };
        if stays {
            target.append(seen.payload, seen.key, seen.time_ns)?;
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if !is_whole {
        return Err(stopped());
    }
    drop(progress);
    let (messages, payload_bytes) = (target.messages, target.payload_bytes);
    drop(target);
    unfinished.finish()?;
    losses.tell();
    let compacted = Compacted {
        log: info.path.display().to_string(),
        to: arguments.to.clone(),
        before,
        messages,
        keys: newest.len() as u64,
        unkeyed,
        damaged: losses.damaged,
        payload_bytes_before,
        payload_bytes,
        disk_bytes_before: info.disk_bytes,
        disk_bytes: Source::open(&arguments.to)?.log.info()?.disk_bytes,
    };
    match arguments.json {
        true => output::json(&compacted)?,
        false => output::text(&page(&compacted))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Where the key of a message is.
enum Keys {
    /// Beside it.
    Own,
    /// In a field of it.
    Field(FieldPath),
}

impl Keys {
    fn of(source: &Source, arguments: &CompactArguments) -> Result<Self> {
        let Some(path) = &arguments.key else { return Ok(Self::Own) };
        let Some(schema) = &source.schema else {
            bail!(
                "the log {} has bytes, which have no fields; leave out --key, to go by the keys that \
                 messages were published with",
                source.name()
            )
        };
        let field = schema.path(path)?;
        if field.is_repeated() {
            bail!("{path} has a value for each element of a list, and a message has one key");
        }
        Ok(Self::Field(field))
    }

    /// The key of a message, if it has one. That of a field is told apart from that of another type by its first byte.
    fn key<'a>(&self, seen: &Seen<'a>) -> Result<Option<Cow<'a, [u8]>>> {
        let field = match self {
            Self::Own => return Ok((!seen.key.is_empty()).then_some(Cow::Borrowed(seen.key))),
            Self::Field(field) => field,
        };
        let Some(value) = field.get(seen.payload)? else { return Ok(None) };
        let tagged = |tag: u8, value: &[u8]| Ok(Some(Cow::Owned([&[tag][..], value].concat())));
        match value {
            FieldValue::Void => tagged(0, &[]),
            FieldValue::Bool(value) => tagged(1, &[u8::from(value)]),
            FieldValue::Int(value) => tagged(2, &value.to_le_bytes()),
            FieldValue::UInt(value) => tagged(3, &value.to_le_bytes()),
            FieldValue::Float(value) => tagged(4, &value.to_bits().to_le_bytes()),
            FieldValue::Enum(value) => tagged(5, &value.to_le_bytes()),
            FieldValue::Text(value) => tagged(6, value),
            FieldValue::Data(value) => tagged(7, value),
            _ => bail!("{} is not a value that can be a key", field.name()),
        }
    }
}

fn page(compacted: &Compacted) -> String {
    let Compacted { before, messages, keys, unkeyed, damaged, .. } = compacted;
    let mut page = format!(
        "Kept {} of {} of the log {} in {}: {}, {} without a key.\n\
         Payload {} of {}, on disk {} of {}.",
        count(*messages),
        some(*before, "message", "messages"),
        compacted.log,
        compacted.to.display(),
        some(*keys, "key", "keys"),
        some(*unkeyed, "message", "messages"),
        bytes(compacted.payload_bytes),
        bytes(compacted.payload_bytes_before),
        bytes(compacted.disk_bytes),
        bytes(compacted.disk_bytes_before),
    );
    if *damaged > 0 {
        page +=
            &format!("\n{} damaged, and left out.", some(*damaged, "message is", "messages are"));
    }
    page
}
