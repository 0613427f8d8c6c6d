//! `windlass export`: the messages of a log as a file.

use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{bail, Context, Result};

use super::interrupt::{self, Interrupted};
use super::line::Line;
use super::place::{find_log, Source};
use super::progress::Progress;
use super::range::{self, Losses};
use super::target::Unfinished;
use crate::args::{ExportArguments, Format};
use crate::output::{self, some};

/// `windlass export`.
pub fn run(arguments: &ExportArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let source = find_log(&arguments.place.place, &arguments.place.bus)?;
    if arguments.format == Format::Capnp && source.schema.is_none() {
        bail!(
            "the log {} has bytes, and no Cap'n Proto messages; export it as jsonl",
            source.name()
        );
    }
    if arguments.to == Path::new("-") {
        let out = BufWriter::new(std::io::stdout().lock());
        let written = write(&source, arguments, out);
        let is_unread = |error: &anyhow::Error| {
            let io = error.downcast_ref::<std::io::Error>();
            io.is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
        };
        return match written {
            // Who goes away has read enough.
            Err(error) if is_unread(&error) => Ok(ExitCode::SUCCESS),
            written => written.map(|_| ExitCode::SUCCESS),
        };
    }
    let unfinished = Unfinished::new(&arguments.to)?;
    let cannot = || format!("cannot write {}", arguments.to.display());
    let file = File::create_new(unfinished.path()).with_context(cannot)?;
    let messages = write(&source, arguments, BufWriter::new(file)).with_context(cannot)?;
    unfinished.finish()?;
    let messages = some(messages, "message", "messages");
    output::text(&format!(
        "Exported {messages} of {} to {}.",
        source.name(),
        arguments.to.display()
    ))?;
    Ok(ExitCode::SUCCESS)
}

/// Writes all messages that are meant; how many there were.
fn write(source: &Source, arguments: &ExportArguments, mut out: impl Write) -> Result<u64> {
    let range = range::of(&source.log, &arguments.range, None)?;
    let mut losses = Losses::new(&arguments.damage);
    let mut progress = Progress::new(Some(range.end - range.start));
    let mut messages = 0;
    let is_whole = range::read(&source.log, range, &mut losses, &mut progress, |seen| {
        match arguments.format {
            Format::Capnp => out.write_all(seen.payload)?,
            Format::Jsonl => {
                Line::of(seen, source.schema.as_ref()).write(&mut out)?;
                out.write_all(b"\n")?;
            }
        }
        messages += 1;
        Ok(ControlFlow::Continue(()))
    })?;
    out.flush()?;
    drop(progress);
    losses.tell();
    match is_whole {
        true => Ok(messages),
        false => Err(Interrupted("the export is not whole".to_owned()).into()),
    }
}
