//! `windlass import`: messages from a file, into a log or a topic.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{anyhow, bail, Context, Result};
use serde::Serialize;
use windlass::{ErrorKind, Schema};

use super::interrupt::{self, Interrupted};
use super::line::Parsed;
use super::outlet::Outlet;
use super::place::{open_or_make, schema_of, Source};
use super::progress::Progress;
use super::stream;
use super::target::{Target, Unfinished};
use crate::args::{Format, ImportArguments};
use crate::output::{self, bytes, some};

/// What the command did.
#[derive(Serialize)]
struct Imported {
    file: PathBuf,
    /// The log, or the topic.
    into: String,
    messages: u64,
    payload_bytes: u64,
}

/// `windlass import`.
pub fn run(arguments: &ImportArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let format = format_of(arguments)?;
    let file: Box<dyn BufRead> = match arguments.file == Path::new("-") {
        true => Box::new(std::io::stdin().lock()),
        false => {
            let what = || format!("cannot read {}", arguments.file.display());
            Box::new(BufReader::new(File::open(&arguments.file).with_context(what)?))
        }
    };
    let (mut sink, schema) = Sink::open(arguments)?;
    let schema = schema.as_deref().map(Schema::parse).transpose()?;
    if format == Format::Capnp && schema.is_none() {
        bail!(
            "a file of Cap'n Proto messages needs their schema, and there is none; say --schema-of \
             LOG|TOPIC"
        );
    }
    let mut progress = Progress::new(None);
    let mut each = |parsed: Parsed| -> Result<bool> {
        progress.message(parsed.payload.len());
        Ok(sink.take(&parsed)? && !interrupt::came())
    };
    let read = match format {
        Format::Jsonl => lines(file, arguments, schema.as_ref(), &mut each),
        Format::Capnp => messages(file, schema.as_ref(), &mut each),
    };
    drop(progress);
    let (imported, what) = (sink.done(arguments), sink.so_far());
    let name = arguments.file.display();
    match read {
        Ok(true) => {}
        Ok(false) => return Err(Interrupted(what).into()),
        Err(error) => return Err(anyhow!("{name}: {error:#}; {what}")),
    }
    sink.finish()?;
    match arguments.json {
        true => output::json(&imported)?,
        false => output::text(&page(&imported))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn format_of(arguments: &ImportArguments) -> Result<Format> {
    if let Some(format) = arguments.format {
        return Ok(format);
    }
    let ending = arguments.file.extension().and_then(|ending| ending.to_str());
    match ending {
        Some("jsonl" | "ndjson" | "json") => Ok(Format::Jsonl),
        Some("capnp" | "bin") => Ok(Format::Capnp),
        _ => bail!(
            "the name {} does not say what is in the file; say --format jsonl or --format capnp",
            arguments.file.display()
        ),
    }
}

/// Reads lines. False if it was not to the end.
fn lines(
    mut file: Box<dyn BufRead>,
    arguments: &ImportArguments,
    schema: Option<&Schema>,
    each: &mut dyn FnMut(Parsed) -> Result<bool>,
) -> Result<bool> {
    let mut bytes = Vec::new();
    for number in 1_u64.. {
        bytes.clear();
        let at = || format!("line {number}");
        if file.read_until(b'\n', &mut bytes).with_context(at)? == 0 {
            break;
        }
        let line = std::str::from_utf8(&bytes).context("it is not UTF-8").with_context(at)?;
        let line = line.strip_suffix('\n').unwrap_or(line);
        let line = line.strip_suffix('\r').unwrap_or(line);
        if line.is_empty() && !(arguments.bare && schema.is_none()) {
            continue;
        }
        let parsed = match arguments.bare {
            true => Parsed::bare(line, schema),
            false => Parsed::line(line, schema),
        };
        if !each(parsed.with_context(at)?).with_context(at)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Reads Cap'n Proto messages. False if it was not to the end.
fn messages(
    mut file: Box<dyn BufRead>,
    schema: Option<&Schema>,
    each: &mut dyn FnMut(Parsed) -> Result<bool>,
) -> Result<bool> {
    let mut at_byte = 0_u64;
    for number in 1_u64.. {
        let at = || format!("message {number}, which begins at byte {at_byte}");
        let Some(payload) = stream::next(&mut file).with_context(at)? else { break };
        if let Some(schema) = schema {
            super::line::sound(schema, &payload).with_context(at)?;
        }
        let bytes = payload.len() as u64;
        let parsed = Parsed { time_ns: None, key: Vec::new(), payload };
        if !each(parsed).with_context(at)? {
            return Ok(false);
        }
        at_byte += bytes;
    }
    Ok(true)
}

/// Where messages go.
enum Sink {
    /// A log that is there.
    Log(Target),
    /// One that is made.
    NewLog(Target, Unfinished),
    /// A topic.
    Topic(Outlet),
}

impl Sink {
    /// Opens it, and finds the schema of its messages.
    fn open(arguments: &ImportArguments) -> Result<(Self, Option<Vec<u8>>)> {
        let asked = match &arguments.schema_of {
            Some(other) => Some(schema_of(other, &arguments.bus)?),
            None => None,
        };
        if let Some(topic) = &arguments.topic {
            let bus = open_or_make(&arguments.bus)?;
            let stored = match bus.topic_untyped(topic) {
                Ok(topic) => Some(topic.schema_bytes()?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => return Err(error.into()),
            };
            // One that is there has its own, which another one may be compared with.
            let schema = asked.or(stored).unwrap_or_default();
            return Ok((Self::Topic(Outlet::open(&bus, topic, schema.clone())?), schema));
        }
        let path = arguments.into.as_deref().context("there is no log to import into")?;
        let (what, log) = ("import", &arguments.log);
        if path.symlink_metadata().is_ok() {
            let stored = Source::open(path)?.schema_bytes;
            let schema = asked.unwrap_or(stored);
            return Ok((Self::Log(Target::open(path, what, schema.clone(), log)?), schema));
        }
        let (unfinished, schema) = (Unfinished::new(path)?, asked.unwrap_or_default());
        let target = Target::open(unfinished.path(), what, schema.clone(), log)?;
        Ok((Self::NewLog(target, unfinished), schema))
    }

    /// Takes a message. False if Ctrl-C came first.
    fn take(&mut self, parsed: &Parsed) -> Result<bool> {
        let Parsed { time_ns, key, payload } = parsed;
        match self {
            Self::Log(target) | Self::NewLog(target, _) => {
                target.append(payload, key, *time_ns).map(|()| true)
            }
            Self::Topic(outlet) => outlet.publish(payload, key, *time_ns),
        }
    }

    fn counts(&self) -> (u64, u64) {
        match self {
            Self::Log(target) | Self::NewLog(target, _) => (target.messages, target.payload_bytes),
            Self::Topic(outlet) => (outlet.messages, outlet.payload_bytes),
        }
    }

    fn done(&self, arguments: &ImportArguments) -> Imported {
        let (messages, payload_bytes) = self.counts();
        let log = arguments.into.as_ref().map(|log| format!("the log {}", log.display()));
        let topic = arguments.topic.as_ref().map(|topic| format!("topic {topic}"));
        let into = log.or(topic).unwrap_or_default();
        Imported { file: arguments.file.clone(), into, messages, payload_bytes }
    }

    /// What became of what was read if no more is.
    fn so_far(&self) -> String {
        let (messages, _) = self.counts();
        match self {
            Self::NewLog(..) => "nothing is imported, and there is no new log".to_owned(),
            _ => format!(
                "{} imported",
                some(messages, "message before it is", "messages before it are")
            ),
        }
    }

    fn finish(self) -> Result<()> {
        match self {
            Self::NewLog(target, unfinished) => {
                drop(target);
                unfinished.finish()
            }
            Self::Log(_) | Self::Topic(_) => Ok(()),
        }
    }
}

fn page(imported: &Imported) -> String {
    let Imported { file, into, messages, payload_bytes } = imported;
    let (messages, size) = (some(*messages, "message", "messages"), bytes(*payload_bytes));
    format!("Imported {messages} of {}, {size}, into {into}.", file.display())
}
