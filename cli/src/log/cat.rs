//! `windlass cat`: prints the messages of a log or a topic.

use std::io::{BufWriter, ErrorKind, StdoutLock, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use windlass::{Bus, RecvError, Schema, Start, Wait};

use super::interrupt::{self, Interrupted};
use super::line::{Line, Seen};
use super::place::{find, Place, Source};
use super::progress::Progress;
use super::range::{self, Losses};
use crate::args::CatArguments;
use crate::output;

/// How long to wait at a time for what is published, so that Ctrl-C is heard.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long to wait before looking again at a log.
const LOOK_AT_LOG_EVERY: Duration = Duration::from_millis(20);

/// `windlass cat`.
pub fn run(arguments: &CatArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let whole = match find(&arguments.place.place, &arguments.place.bus)? {
        Place::Log(source) => of_log(&source, arguments)?,
        Place::Topic(bus, topic) => of_topic(&bus, &topic, arguments)?,
    };
    // Who follows has to say when that is enough; who does not wanted all of it.
    match whole || arguments.follow {
        true => Ok(ExitCode::SUCCESS),
        false => Err(Interrupted("there are more messages".to_owned()).into()),
    }
}

/// Prints messages of a log. False if Ctrl-C came first.
fn of_log(source: &Source, arguments: &CatArguments) -> Result<bool> {
    let log = &source.log;
    let mut printer = Printer::new(arguments, source.schema.as_ref());
    let (mut losses, mut progress) = (Losses::new(&arguments.damage), Progress::none());
    if !arguments.follow {
        let range = range::of(log, &arguments.range, arguments.to)?;
        let each = |seen: &Seen<'_>| printer.print(seen);
        let whole = range::read(log, range, &mut losses, &mut progress, each)?;
        printer.flush()?;
        losses.tell();
        return Ok(whole);
    }
    let mut at = range::from(log, &arguments.range, log.first()?, log.next()?)?;
    let (end, until) = (arguments.to.unwrap_or(u64::MAX), arguments.range.until);
    let mut goes_on = true;
    while goes_on && at < end && !interrupt::came() {
        let closed = source.is_closed();
        let (first, next) = (log.first()?, log.next()?.min(end));
        if at < first {
            losses.met(windlass::ReadError::Lagged { missed: first - at }, output::complain)?;
            at = first;
        }
        if at < next {
            range::read(log, at..next, &mut losses, &mut progress, |seen| {
                if until.is_some_and(|until| seen.time_ns >= Some(until)) {
                    goes_on = false;
                    return Ok(ControlFlow::Break(()));
                }
                let printed = printer.print(seen)?;
                goes_on = printed.is_continue();
                Ok(printed)
            })?;
            at = next;
            continue;
        }
        goes_on &= printer.flush()? && !closed;
        if goes_on {
            std::thread::sleep(LOOK_AT_LOG_EVERY);
        }
    }
    printer.flush()?;
    losses.tell();
    Ok(true)
}

/// Prints messages of a topic that has no log. False if Ctrl-C came first.
fn of_topic(bus: &Bus, name: &str, arguments: &CatArguments) -> Result<bool> {
    let range = &arguments.range;
    if range.since.is_some() || range.until.is_some() || arguments.key.is_some() {
        bail!("topic {name} has no log, and so its messages have no times and no keys");
    }
    let start = match (range.from, range.last) {
        (Some(from), _) => Start::Sequence(from),
        (_, Some(last)) => Start::Last(last),
        _ => Start::Oldest,
    };
    let schema = bus.schema(name)?;
    let mut printer = Printer::new(arguments, schema.as_ref());
    let topic = bus.topic_untyped(name)?;
    let mut subscriber = topic.subscriber(start)?;
    loop {
        if interrupt::came() {
            printer.flush()?;
            return Ok(false);
        }
        let received = match subscriber.try_recv() {
            Ok(None) if !arguments.follow => break,
            Ok(None) => {
                if !printer.flush()? {
                    break;
                }
                subscriber.recv(Wait::For(LOOK_EVERY))
            }
            received => received,
        };
        match received {
            // On a topic that is not ordered every lane counts for itself.
            Ok(Some(message)) if arguments.to.is_some_and(|to| message.sequence() >= to) => {}
            Ok(Some(message)) => {
                let seen = Seen {
                    sequence: message.sequence(),
                    time_ns: None,
                    lane: message.lane(),
                    key: &[],
                    payload: message.bytes(),
                };
                if printer.print(&seen)?.is_break() {
                    break;
                }
            }
            Ok(None) | Err(RecvError::Closed) => break,
            Err(RecvError::TimedOut) => {}
            Err(error @ RecvError::Lagged { .. }) => {
                output::complain(&format!("windlass: topic {name}: {error}"));
            }
            Err(error) => return Err(error).with_context(|| format!("topic {name}")),
        }
    }
    printer.flush()?;
    Ok(true)
}

/// What prints messages on standard output.
struct Printer<'a> {
    arguments: &'a CatArguments,
    schema: Option<&'a Schema>,
    out: BufWriter<StdoutLock<'static>>,
}

impl<'a> Printer<'a> {
    fn new(arguments: &'a CatArguments, schema: Option<&'a Schema>) -> Self {
        Self { arguments, schema, out: BufWriter::new(std::io::stdout().lock()) }
    }

    /// Prints a message, unless it has another key. Breaks once nobody reads any more.
    fn print(&mut self, seen: &Seen<'_>) -> Result<ControlFlow<()>> {
        let key = self.arguments.key.as_deref();
        if key.is_some_and(|key| key.as_bytes() != seen.key) {
            return Ok(ControlFlow::Continue(()));
        }
        let written = match self.arguments.raw {
            true => self.out.write_all(seen.payload),
            false => {
                let (head, pretty) = (self.arguments.head, self.arguments.pretty);
                let written = match (head, pretty) {
                    (true, true) => Line::head(seen).write_pretty(&mut self.out),
                    (true, false) => Line::head(seen).write(&mut self.out),
                    (false, true) => Line::indented(seen, self.schema).write_pretty(&mut self.out),
                    (false, false) => Line::of(seen, self.schema).write(&mut self.out),
                };
                written.and_then(|()| self.out.write_all(b"\n"))
            }
        };
        Ok(match read_on(written)? {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        })
    }

    /// Prints what was held back. False once nobody reads any more.
    fn flush(&mut self) -> Result<bool> {
        let flushed = self.out.flush();
        read_on(flushed)
    }
}

/// Whether there is still a reader. One that went away has read enough.
fn read_on(written: std::io::Result<()>) -> Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}
