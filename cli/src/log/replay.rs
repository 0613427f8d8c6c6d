//! `windlass replay`: publishes the messages of a log.

use std::ops::{ControlFlow, Range};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use windlass::{ErrorKind, Log, Raw, Speed};

use super::interrupt::{self, Interrupted};
use super::outlet::Outlet;
use super::place::{find_log, open_or_make, Source};
use super::progress::Progress;
use super::range::{self, Losses};
use super::value::time;
use crate::args::ReplayArguments;
use crate::output::{self, bytes, count, duration, some};

/// How long to wait at a time, so that Ctrl-C is heard.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A sleep may end so much too late: the rest is waited for without one.
const SLEEP_ERROR: Duration = Duration::from_micros(100);

/// What the command did, or would do.
#[derive(Default, Serialize)]
struct Replayed {
    log: String,
    topic: String,
    bus: String,
    /// Whether it was done.
    done: bool,
    /// The sequences in the log of the first message and of the one behind the last.
    first: u64,
    next: u64,
    /// The times of the first message and of the last.
    first_time: Option<String>,
    last_time: Option<String>,
    /// How long a round takes at this speed.
    round_seconds: f64,
    /// Messages that were published, or would be in one round.
    messages: u64,
    payload_bytes: u64,
    /// Messages that were left out because they are damaged.
    damaged: u64,
    /// Messages that were deleted before they were read.
    deleted: u64,
    rounds: u64,
    seconds: f64,
}

/// `windlass replay`.
pub fn run(arguments: &ReplayArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let source = find_log(&arguments.place, &arguments.bus)?;
    let range = range::of(&source.log, &arguments.range, arguments.to)?;
    let mut replayed = plan(&source, &range, arguments)?;
    if arguments.dry_run {
        // What is there of the topic decides whether it could be done.
        replayed.bus.clone_from(&arguments.bus.bus);
        show(&replayed, arguments)?;
        return Ok(ExitCode::SUCCESS);
    }
    let bus = open_or_make(&arguments.bus)?;
    let mut outlet = Outlet::open(&bus, &arguments.into, source.schema_bytes.clone())?;
    replayed.bus = bus.path().display().to_string();
    wait_for_subscribers(&outlet, arguments.subscribers)?;
    let (began, mut losses) = (Instant::now(), Losses::new(&arguments.damage));
    let mut progress = Progress::new((!arguments.endless).then_some(range.end - range.start));
    let mut is_whole = true;
    while is_whole {
        is_whole =
            round(&source.log, range.clone(), arguments, &mut outlet, &mut losses, &mut progress)?;
        replayed.rounds += u64::from(is_whole);
        // An empty log has no end to wait for.
        if !arguments.endless || range.is_empty() {
            break;
        }
    }
    drop(progress);
    replayed.done = true;
    (replayed.messages, replayed.payload_bytes) = (outlet.messages, outlet.payload_bytes);
    (replayed.damaged, replayed.deleted) = (losses.damaged, losses.deleted);
    replayed.seconds = began.elapsed().as_secs_f64();
    if !is_whole && !arguments.endless {
        let (done, all) = (count(replayed.messages), count(range.end - range.start));
        return Err(Interrupted(format!("{done} of {all} messages are published")).into());
    }
    show(&replayed, arguments)?;
    Ok(ExitCode::SUCCESS)
}

/// What one round is.
fn plan(source: &Source, range: &Range<u64>, arguments: &ReplayArguments) -> Result<Replayed> {
    let ends = match range.is_empty() {
        true => None,
        false => time_at(&source.log, range.start)?.zip(time_at(&source.log, range.end - 1)?),
    };
    let recorded = ends.map_or(0, |(first, last)| last.saturating_sub(first)) as f64 / 1e9;
    Ok(Replayed {
        log: source.log.path().display().to_string(),
        topic: arguments.into.clone(),
        first: range.start,
        next: range.end,
        first_time: ends.map(|(first, _)| time(first)),
        last_time: ends.map(|(_, last)| time(last)),
        round_seconds: match arguments.speed {
            Speed::Recorded => recorded,
            Speed::Times(times) => recorded / times,
            Speed::Flat => 0.0,
        },
        messages: range.end - range.start,
        ..Replayed::default()
    })
}

/// The time of a message; `None` if it cannot be read.
fn time_at(log: &Log<Raw>, sequence: u64) -> Result<Option<u64>> {
    match log.get(sequence) {
        Ok(message) => Ok(message.time_ns()),
        Err(error) if error.kind() == ErrorKind::Damaged => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn wait_for_subscribers(outlet: &Outlet, wanted: usize) -> Result<()> {
    let mut said = false;
    while !interrupt::came() {
        let there = outlet.subscribers()?;
        if there >= wanted {
            break;
        }
        if !said {
            let wanted = some(wanted as u64, "subscriber", "subscribers");
            output::complain(&format!("windlass: waiting for {wanted}; {there} there"));
            said = true;
        }
        std::thread::sleep(LOOK_EVERY / 5);
    }
    Ok(())
}

/// Publishes a range once. False if Ctrl-C came first.
fn round(
    log: &Log<Raw>,
    range: Range<u64>,
    arguments: &ReplayArguments,
    outlet: &mut Outlet,
    losses: &mut Losses,
    progress: &mut Progress,
) -> Result<bool> {
    let mut pace = Pace::new(arguments.speed);
    let mut goes_on = true;
    let is_read = range::read(log, range, losses, progress, |seen| {
        let is_due = pace.wait(seen.time_ns.unwrap_or(0));
        goes_on = is_due && outlet.publish(seen.payload, seen.key, None)?;
        Ok(if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    });
    Ok(is_read? && goes_on)
}

/// Holds messages back until they are due: each at its distance from the first.
struct Pace {
    times: Option<f64>,
    began: Option<Instant>,
    last_ns: u64,
    /// Recorded time since the first message, without steps back of the clock.
    passed_ns: u64,
}

impl Pace {
    fn new(speed: Speed) -> Self {
        let times = match speed {
            Speed::Recorded => Some(1.0),
            Speed::Times(times) => Some(times),
            Speed::Flat => None,
        };
        Self { times, began: None, last_ns: 0, passed_ns: 0 }
    }

    /// Waits until a message of this time is due. False if Ctrl-C came first.
    fn wait(&mut self, time_ns: u64) -> bool {
        let Some(times) = self.times else { return !interrupt::came() };
        let Some(began) = self.began else {
            (self.began, self.last_ns) = (Some(Instant::now()), time_ns);
            return true;
        };
        self.passed_ns = self.passed_ns.saturating_add(time_ns.saturating_sub(self.last_ns));
        self.last_ns = time_ns;
        let distance = Duration::from_nanos((self.passed_ns as f64 / times) as u64);
        loop {
            let left = distance.saturating_sub(began.elapsed());
            match left {
                _ if interrupt::came() => return false,
                Duration::ZERO => return true,
                left if left > SLEEP_ERROR => {
                    std::thread::sleep((left - SLEEP_ERROR).min(LOOK_EVERY))
                }
                _ => std::thread::yield_now(),
            }
        }
    }
}

fn show(replayed: &Replayed, arguments: &ReplayArguments) -> Result<()> {
    match arguments.json {
        true => output::json(replayed),
        false => output::text(&page(replayed)),
    }
}

fn page(replayed: &Replayed) -> String {
    let Replayed { log, topic, bus, first, next, .. } = replayed;
    let messages = some(replayed.messages, "message", "messages");
    if !replayed.done {
        let times = match (&replayed.first_time, &replayed.last_time) {
            (Some(first), Some(last)) => format!(", of {first} to {last}"),
            _ => String::new(),
        };
        let long = match replayed.round_seconds {
            0.0 => "as fast as they are taken".to_owned(),
            seconds => format!("in {}", duration((seconds * 1e9) as u64)),
        };
        let range = match next.checked_sub(1) {
            Some(last) if last >= *first => {
                format!("sequences {} to {}", count(*first), count(last))
            }
            _ => "which has none of them".to_owned(),
        };
        return format!(
            "Would publish {messages} of the log {log}, {range}{times}, {long}, on topic {topic} of \
             bus {bus}."
        );
    }
    let (size, seconds) =
        (bytes(replayed.payload_bytes), duration((replayed.seconds * 1e9) as u64));
    let mut page = format!(
        "Published {messages} of the log {log}, {size}, on topic {topic} of {bus} in {seconds}."
    );
    if replayed.damaged > 0 {
        let what = some(replayed.damaged, "message is", "messages are");
        page += &format!("\n{what} damaged, and left out.");
    }
    if replayed.deleted > 0 {
        let what = some(replayed.deleted, "message was", "messages were");
        page += &format!("\n{what} deleted by the retention of the log before it was their turn.");
    }
    page
}
