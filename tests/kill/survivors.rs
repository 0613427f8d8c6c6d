//! Those who live on: two subscribers and a publisher, each a node of its own.

use crate::content::{self, Ledger};
use crate::role;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use windlass::{Blocker, PublishError, Publisher, Raw, RecvError, Start, Wait};

/// Longer than a survivor may ever be held up by the dead, and than a virtual machine stands still.
pub const LIMIT: Duration = Duration::from_secs(30);
/// How many subscribers survive.
pub const WATCHERS: usize = 2;

/// What a survivor tells.
#[derive(Debug)]
pub enum Note {
    Ready,
    /// Watcher and tag of a message that was published on demand.
    Pong(usize, u32, Instant),
    /// Everything that was ordered is published.
    Lapped(Instant),
    /// The lane was full in a call that began then.
    Full(Blocker, Instant),
    Fault(String),
}

/// What the publisher is told.
#[derive(Debug)]
pub enum Demand {
    /// One message with this tag.
    Ping(u32),
    /// As many bytes as so many lanes hold.
    Laps(u64),
    /// A few messages every two milliseconds.
    Flow,
}

pub struct Survivors {
    pub notes: Receiver<Note>,
    demands: Sender<Demand>,
    publisher: Option<JoinHandle<()>>,
    watchers: Vec<JoinHandle<Ledger>>,
    halt: Arc<AtomicBool>,
    total: Arc<AtomicU64>,
}

impl Survivors {
    /// Starts them. They have joined when this returns.
    pub fn start(path: &Path, kind: &'static str) -> Self {
        let (sender, notes) = channel();
        let (demands, orders) = channel();
        let halt = Arc::new(AtomicBool::new(false));
        let total = Arc::new(AtomicU64::new(u64::MAX));
        let watcher = |who| {
            let (path, sender, total) = (path.to_owned(), sender.clone(), total.clone());
            thread::spawn(move || {
                let mut ledger = Ledger::new(role::delivery(kind), true);
                if let Err(error) = watch(&path, kind, who, &sender, &total, &mut ledger) {
                    ledger.faults.push(format!("watcher {who}: {error}"));
                    let _ = sender.send(Note::Fault(format!("watcher {who}: {error}")));
                }
                ledger
            })
        };
        let watchers = (0..WATCHERS).map(watcher).collect();
        for _ in 0..WATCHERS {
            ready(&notes);
        }
        let publisher = {
            let (path, halt) = (path.to_owned(), halt.clone());
            thread::spawn(move || {
                if let Err(error) = publish(&path, kind, &orders, &sender, &halt) {
                    let _ = sender.send(Note::Fault(format!("publisher: {error}")));
                }
            })
        };
        ready(&notes);
        Self { notes, demands, publisher: Some(publisher), watchers, halt, total }
    }

    pub fn demand(&self, demand: Demand) {
        // It fails if the publisher is gone, which its note says.
        let _ = self.demands.send(demand);
    }

    /// Ends the publisher.
    pub fn hush(&mut self) {
        self.halt.store(true, Relaxed);
        if let Some(publisher) = self.publisher.take() {
            publisher.join().expect("a publisher does not panic");
        }
    }

    /// Ends the subscribers once they have accounted for `total` messages, of which `publish` adds
    /// the last one.
    pub fn end(mut self, total: u64, publish: impl FnOnce()) -> (Vec<Ledger>, Vec<Note>) {
        self.hush();
        self.total.store(total, Relaxed);
        publish();
        let watchers = self.watchers.drain(..);
        let ledgers =
            watchers.map(|watcher| watcher.join().expect("a watcher does not panic")).collect();
        (ledgers, self.notes.try_iter().collect())
    }
}

impl Drop for Survivors {
    fn drop(&mut self) {
        self.halt.store(true, Relaxed);
        self.total.store(0, Relaxed);
    }
}

fn ready(notes: &Receiver<Note>) {
    match notes.recv_timeout(LIMIT) {
        Ok(Note::Ready) => {}
        other => panic!("a survivor did not join: {other:?}"),
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn watch(
    path: &Path,
    kind: &str,
    who: usize,
    notes: &Sender<Note>,
    total: &AtomicU64,
    ledger: &mut Ledger,
) -> Outcome {
    let bus = role::bus(path)?;
    let mut subscriber = role::topic(&bus, kind)?.subscriber(Start::Oldest)?;
    notes.send(Note::Ready)?;
    let mut told = Instant::now();
    loop {
        // Much longer than a sleep, so that waking late shows.
        match subscriber.recv(Wait::For(LIMIT / 6)) {
            Ok(Some(message)) => {
                let tag = ledger.take(&message);
                if tag != 0 {
                    notes.send(Note::Pong(who, tag, Instant::now()))?;
                }
                told = Instant::now();
            }
            Ok(None) => return Err("nobody closed the topic".into()),
            Err(RecvError::TimedOut) => {}
            Err(RecvError::Lagged { missed }) => ledger.missed += missed,
            Err(RecvError::Evicted { .. }) if kind == "evicting" => {
                ledger.evicted = true;
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        }
        let total = total.load(Relaxed);
        if ledger.received + ledger.missed >= total {
            return Ok(());
        }
        if total != u64::MAX && told.elapsed() > LIMIT {
            return Err(format!("{} messages came, {total} are due", ledger.received).into());
        }
    }
}

fn publish(
    path: &Path,
    kind: &str,
    demands: &Receiver<Demand>,
    notes: &Sender<Note>,
    halt: &AtomicBool,
) -> Outcome {
    let bus = role::bus(path)?;
    let mut publisher = role::topic(&bus, kind)?.publisher()?;
    notes.send(Note::Ready)?;
    let mut flows = false;
    while !halt.load(Relaxed) {
        match demands.recv_timeout(Duration::from_millis(2)) {
            Ok(Demand::Ping(tag)) => send(&mut publisher, tag, notes, halt)?,
            Ok(Demand::Laps(laps)) => {
                let lane = u64::from(role::SEGMENTS) * role::SEGMENT_BYTES;
                let mut left = (laps * lane) as i64;
                while left > 0 && !halt.load(Relaxed) {
                    left -= content::size_of(publisher.sequence()) as i64;
                    send(&mut publisher, 0, notes, halt)?;
                }
                notes.send(Note::Lapped(Instant::now()))?;
            }
            Ok(Demand::Flow) => flows = true,
            Err(RecvTimeoutError::Timeout) => {
                for _ in 0..if flows { 3 } else { 0 } {
                    send(&mut publisher, 0, notes, halt)?;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

/// Publishes one message, however long that takes, and tells who is in the way.
fn send(
    publisher: &mut Publisher<Raw>,
    tag: u32,
    notes: &Sender<Note>,
    halt: &AtomicBool,
) -> Outcome {
    let message = content::message(publisher.lane(), publisher.sequence(), tag);
    let since = Instant::now();
    while !halt.load(Relaxed) {
        let began = Instant::now();
        match publisher.publish_timeout(&message, Duration::from_millis(120)) {
            Ok(_) => return Ok(()),
            Err(PublishError::Full { blocker }) => notes.send(Note::Full(blocker, began))?,
            Err(error) => return Err(error.into()),
        }
        if since.elapsed() > LIMIT {
            return Err(format!("held up for {:?}", since.elapsed()).into());
        }
    }
    Ok(())
}
