//! `windlass record`: keeps what is published on a topic in a log of its own.
//!
//! ```text
//!   topic ──▶ this thread ── batches ──▶ the writer ──▶ log
//!                 ▲                          │
//!                 └────── empty batches ─────┘
//! ```
//!
//! What comes is copied out of the topic at once, so that no publisher waits for a disk. Only if all batches wait for
//! the disk does this thread wait as well, and says so.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread::ScopedJoinHandle;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde::Serialize;
use windlass::{Bus, Message, Policy, Raw, RecvError, Start, Subscriber, UntypedTopic, Wait};

use super::interrupt;
use super::progress::Progress;
use super::target::Target;
use super::value::now_ns;
use crate::args::RecordArguments;
use crate::output::{self, bytes, count, duration, some};

/// Batches that may wait for the disk.
const BATCHES: usize = 64;

/// Bytes after which a batch is full.
const BATCH_BYTES: usize = 1 << 20;

/// Messages after which it is.
const BATCH_MESSAGES: usize = 1 << 14;

/// How long nothing happens before this command looks whether it is to end.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How often it is said that the disk cannot keep up.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// How long the rest may take before it is said.
const SAY_AFTER: Duration = Duration::from_secs(1);

/// How long to wait before asking again whether the rest is written.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// What the command did.
#[derive(Default, Serialize)]
struct Recorded {
    bus: String,
    topic: String,
    to: PathBuf,
    /// Messages in the log since this command began.
    messages: u64,
    payload_bytes: u64,
    /// The sequence in the log of the first one.
    first: Option<u64>,
    /// Messages that came too fast, or were lost otherwise, and are not in the log.
    missed: u64,
    /// Messages of a durable topic that are not what was published.
    damaged: u64,
    /// How often this command was so slow that its backlog was taken away.
    evictions: u64,
    /// How long publishers of a reliable topic may have waited for this command, in all.
    waited_ms: u64,
    seconds: f64,
    /// Whether the topic was closed.
    closed: bool,
}

/// Messages on their way to the disk, one behind the other: key, then payload.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    messages: Vec<Entry>,
}

struct Entry {
    time_ns: u64,
    key_bytes: usize,
    payload_bytes: usize,
}

impl Batch {
    fn push(&mut self, message: &Message<'_, Raw>) {
        let (key, payload) = (message.key(), message.bytes());
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(payload);
        let time_ns = message.time_ns().unwrap_or_else(now_ns);
        let (key_bytes, payload_bytes) = (key.len(), payload.len());
        self.messages.push(Entry { time_ns, key_bytes, payload_bytes });
    }

    fn is_full(&self) -> bool {
        self.bytes.len() >= BATCH_BYTES || self.messages.len() >= BATCH_MESSAGES
    }

    fn append_to(&mut self, target: &mut Target) -> Result<()> {
        let mut at = 0;
        for Entry { time_ns, key_bytes, payload_bytes } in self.messages.drain(..) {
            let (key, rest) = self.bytes[at..].split_at(key_bytes);
            target.append(&rest[..payload_bytes], key, Some(time_ns))?;
            at += key_bytes + payload_bytes;
        }
        self.bytes.clear();
        // One large message is no reason to keep its room for ever.
        self.bytes.shrink_to(BATCH_BYTES * 2);
        Ok(())
    }
}

/// `windlass record`.
pub fn run(arguments: &RecordArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let bus = Bus::options().existing().group().open(&arguments.bus.bus)?;
    let topic = bus.topic_untyped(&arguments.topic)?;
    let (schema, policy) = (topic.schema_bytes()?, topic.info()?.policy);
    let target = Target::open(&arguments.to, &arguments.topic, schema, &arguments.log)?;
    let start = if arguments.oldest { Start::Oldest } else { Start::Latest };
    let mut taker = Taker {
        subscriber: Some(topic.subscriber(start)?),
        topic: &topic,
        policy,
        progress: Progress::new(arguments.count),
        left: arguments.count.unwrap_or(u64::MAX),
        said: None,
        recorded: Recorded {
            bus: bus.path().display().to_string(),
            topic: arguments.topic.clone(),
            to: arguments.to.clone(),
            ..Recorded::default()
        },
    };
    let began = Instant::now();
    let end = arguments.length.and_then(|length| began.checked_add(length));
    let written = std::thread::scope(|scope| {
        let ((full, filled), (emptied, empty)) = (channel(), channel());
        for _ in 0..BATCHES {
            emptied.send(Batch::default()).expect("the other end is here");
        }
        let writer = scope.spawn(move || write(target, &filled, &emptied));
        let taken = taker.take(end, &full, &empty);
        drop(full);
        taker.wait_for(&writer);
        let written = writer.join().expect("the writer does not panic");
        // Why nothing more can be written says more than that it cannot.
        written.and_then(|target| taken.map(|()| target))
    });
    let mut recorded = taker.finish();
    recorded.seconds = began.elapsed().as_secs_f64();
    let target = match written {
        Ok(target) => target,
        Err(error) => bail!("{error:#}; what was recorded before is in {}", recorded.to.display()),
    };
    recorded.messages = target.messages;
    (recorded.payload_bytes, recorded.first) = (target.payload_bytes, target.first);
    match arguments.json {
        true => output::json(&recorded)?,
        false => output::text(&page(&recorded))?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Appends what comes until nothing more does.
fn write(mut target: Target, full: &Receiver<Batch>, empty: &Sender<Batch>) -> Result<Target> {
    for mut batch in full {
        batch.append_to(&mut target)?;
        // Nobody needs it any more at the end.
        let _ = empty.send(batch);
    }
    Ok(target)
}

/// What takes messages out of a topic.
struct Taker<'a> {
    topic: &'a UntypedTopic,
    /// None once nothing more is taken.
    subscriber: Option<Subscriber<Raw>>,
    policy: Policy,
    progress: Progress,
    left: u64,
    said: Option<Instant>,
    recorded: Recorded,
}

impl Taker<'_> {
    /// Takes what comes, until it is to end.
    fn take(
        &mut self,
        end: Option<Instant>,
        full: &Sender<Batch>,
        empty: &Receiver<Batch>,
    ) -> Result<()> {
        while self.left > 0 && !self.recorded.closed && !interrupt::came() {
            let Some(mut batch) = self.empty_batch(empty)? else { continue };
            while batch.messages.is_empty() && !self.recorded.closed && !interrupt::came() {
                let left = end.map(|end| end.saturating_duration_since(Instant::now()));
                if left.is_some_and(|left| left.is_zero()) {
                    return Ok(());
                }
                self.first(&mut batch, left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY)))?;
            }
            let over = |now| end.is_some_and(|end| now >= end);
            while self.left > 0 && !batch.is_full() && self.next(&mut batch)? {}
            let is_over = over(Instant::now());
            if full.send(batch).is_err() || is_over {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A batch to fill; `None` if the disk has not given one back yet.
    fn empty_batch(&mut self, empty: &Receiver<Batch>) -> Result<Option<Batch>> {
        if let Ok(batch) = empty.try_recv() {
            return Ok(Some(batch));
        }
        let began = Instant::now();
        let batch = empty.recv_timeout(LOOK_EVERY);
        let waited = began.elapsed();
        self.recorded.waited_ms += waited.as_millis() as u64;
        if self.said.is_none_or(|said| said.elapsed() > SAY_EVERY) {
            self.said = Some(began);
            self.progress.say(&format!("windlass: {}", held_up(self.policy)));
        }
        match batch {
            Ok(batch) => Ok(Some(batch)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("nothing more can be written"),
        }
    }

    /// Waits for a message.
    fn first(&mut self, batch: &mut Batch, limit: Duration) -> Result<()> {
        let Some(subscriber) = &mut self.subscriber else { return Ok(()) };
        let came = match subscriber.recv(Wait::For(limit)) {
            Ok(Some(message)) => {
                batch.push(&message);
                Some(message.bytes().len())
            }
            Ok(None) => {
                self.recorded.closed = true;
                None
            }
            Err(error) => return self.without(error),
        };
        self.count(came);
        Ok(())
    }

    /// Takes a message if there is one. False if there is none now.
    fn next(&mut self, batch: &mut Batch) -> Result<bool> {
        let Some(subscriber) = &mut self.subscriber else { return Ok(false) };
        let came = match subscriber.try_recv() {
            Ok(Some(message)) => {
                batch.push(&message);
                Some(message.bytes().len())
            }
            Ok(None) => return Ok(false),
            Err(error) => {
                self.without(error)?;
                return Ok(!self.recorded.closed);
            }
        };
        self.count(came);
        Ok(true)
    }

    fn count(&mut self, came: Option<usize>) {
        if let Some(bytes) = came {
            self.left -= 1;
            self.progress.message(bytes);
        }
    }

    /// Deals with what came instead of a message.
    fn without(&mut self, error: RecvError) -> Result<()> {
        match error {
            RecvError::TimedOut => {}
            RecvError::Closed => self.recorded.closed = true,
            RecvError::Lagged { missed } => self.recorded.missed += missed,
            RecvError::Damaged { .. } => {
                self.recorded.damaged += 1;
                self.progress.say(&format!("windlass: topic {}: {error}", self.topic.name()));
            }
            RecvError::Evicted { missed } => {
                self.recorded.missed += missed;
                self.recorded.evictions += 1;
                self.progress.say(&format!(
                    "windlass: {error}: done, and what is published meanwhile is missed"
                ));
                self.subscriber = Some(self.topic.subscriber(Start::Latest)?);
            }
            _ => return Err(error).with_context(|| format!("topic {}", self.topic.name())),
        }
        Ok(())
    }

    /// Lets go of the topic, so that nobody waits for this command, and waits until what was taken is in the log.
    fn wait_for<R>(&mut self, writer: &ScopedJoinHandle<'_, R>) {
        self.subscriber = None;
        let (began, mut said) = (Instant::now(), false);
        while !writer.is_finished() {
            if began.elapsed() > SAY_AFTER && !said {
                said = true;
                self.progress.say(
                    "windlass: writing what still waits for the disk; Ctrl-C, once more if it came \
                     already, leaves that out",
                );
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn finish(self) -> Recorded {
        self.recorded
    }
}

/// What it means that the disk cannot keep up.
fn held_up(policy: Policy) -> &'static str {
    match policy {
        Policy::Reliable => {
            "the disk cannot keep up, and all memory for what waits for it is used: publishers of \
             this reliable topic may have to wait until it does"
        }
        Policy::Lossy => {
            "the disk cannot keep up, and all memory for what waits for it is used: messages of \
             this lossy topic may be missed, and are counted"
        }
        Policy::Durable => {
            "the disk cannot keep up, and all memory for what waits for it is used; nobody waits, \
             because the topic keeps what it has"
        }
    }
}

fn page(recorded: &Recorded) -> String {
    let Recorded { topic, missed, damaged, evictions, .. } = recorded;
    let messages = some(recorded.messages, "message", "messages");
    let size = bytes(recorded.payload_bytes);
    let to = recorded.to.display();
    let range = recorded.first.map_or(String::new(), |first| {
        let last = first + recorded.messages - 1;
        format!(", sequences {} to {}", count(first), count(last))
    });
    let seconds = duration((recorded.seconds * 1e9) as u64);
    let mut page =
        format!("Recorded {messages} of topic {topic}, {size}, in {seconds}, to {to}{range}.");
    if *missed > 0 {
        let what = some(*missed, "message", "messages");
        page += &format!("\nMissed {what}: published faster than they were taken.");
    }
    if *damaged > 0 {
        let what = some(*damaged, "message is", "messages are");
        page += &format!("\n{what} damaged in the log of the topic, and not recorded.");
    }
    if *evictions > 0 {
        let what = some(*evictions, "time", "times");
        page += &format!("\nThe topic took away the backlog of this command {what}.");
    }
    if recorded.waited_ms > 0 {
        let waited = duration(recorded.waited_ms * 1_000_000);
        page += &format!("\nThe disk could not keep up for {waited}.");
    }
    if recorded.closed {
        page += "\nThe topic is closed.";
    }
    page
}
