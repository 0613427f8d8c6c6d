//! A creator of the soak: creates topics under a few names, uses them, closes and removes them, while
//! others do the same under the same names and are killed at it.
//!
//! Whoever removes a topic leaves those who have it open alone with it: they may still be told that
//! something is not found, and nothing else.

use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use windlass::{ErrorKind, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Wait};

use super::board::{Phase, Word};
use super::child::Child;
use super::record::{Author, Record, HEAD_BYTES};

/// Topics of creators are called this and a number.
pub const PREFIX: &str = "churn-";

const NAMES: u64 = 3;
/// Messages that are sent in a topic.
const MESSAGES: u64 = 60;
/// A stopped subscriber of the same topic may block for longer; then the topic is left.
const PATIENCE: Duration = Duration::from_millis(20);
const REST: Duration = Duration::from_millis(8);
/// The end of a closed topic is there at once.
const END_MAX: Duration = Duration::from_secs(10);

/// Creates and removes until the run is over.
pub fn run(child: &Child) -> Result<()> {
    for life in 0u64.. {
        if child.phase() != Phase::Run {
            break;
        }
        child.set(Word::Joined, 1);
        let name = format!("{PREFIX}{}", child.below(NAMES));
        if let Err(error) = round(child, &name, life as u16) {
            match error.downcast_ref::<windlass::Error>().map(windlass::Error::kind) {
                // Somebody removed it, or others hold all places.
                Some(ErrorKind::NotFound | ErrorKind::Limit) => {}
                Some(ErrorKind::Closed) => remove(child, &name)?,
                _ => return Err(error.context(format!("on topic {name}"))),
            }
        }
        child.add(Word::Rounds, 1);
        child.beat();
        thread::sleep(REST);
    }
    child.set(Word::Joined, 0);
    Ok(())
}

fn round(child: &Child, name: &str, life: u16) -> Result<()> {
    let topic = child
        .bus
        .topic::<Raw>(name)
        .segment_bytes(4096)
        .segments_per_lane(4)
        .publishers_max(4)
        .subscribers_max(6)
        .open()?;
    // In this order: a subscriber of a topic that is removed does not meet publishers that came later.
    let publisher = topic.publisher()?;
    let subscriber = topic.subscriber(Start::Latest)?;
    let author = Author::new(child.seat as u16, child.generation, life);
    let mut subscriber = converse(child, author, publisher, subscriber)?;
    match child.below(6) {
        0 => {
            // The next one that meets it removes it.
            topic.close();
            read_to_end(child, &mut subscriber)
        }
        1 | 2 => remove(child, name),
        _ => Ok(()),
    }
}

/// Publishes and receives; what this process sent comes back, once and in order.
fn converse(
    child: &Child,
    author: Author,
    mut publisher: Publisher<Raw>,
    mut subscriber: Subscriber<Raw>,
) -> Result<Subscriber<Raw>> {
    let (lane, mut due) = (publisher.lane(), 0);
    for number in 0..MESSAGES {
        let record = Record {
            cell: child.cell as u32,
            lane,
            lane_sequence: publisher.sequence(),
            author,
            number,
        };
        let mut bytes = vec![0; HEAD_BYTES + child.below(500) as usize];
        record.write(&mut bytes);
        match publisher.publish_timeout(&bytes, PATIENCE) {
            Ok(_) => {
                child.add(Word::Sent, 1);
                child.add(Word::Bytes, bytes.len() as u64);
            }
            Err(PublishError::Full { .. } | PublishError::Closed) => break,
            Err(error) => bail!("cannot publish: {error}"),
        }
        drain(child, &mut subscriber, author, &mut due)?;
        if due != number + 1 {
            child.fault(format!("{due} of {} messages came back", number + 1));
            break;
        }
    }
    Ok(subscriber)
}

/// Nobody publishes any more, but for one message of those who had begun: the end comes.
fn read_to_end(child: &Child, subscriber: &mut Subscriber<Raw>) -> Result<()> {
    loop {
        match subscriber.recv(Wait::For(END_MAX)) {
            Ok(Some(_)) => child.add(Word::Received, 1),
            Ok(None) => return Ok(()),
            Err(error) => bail!("a closed topic has no end: {error}"),
        }
    }
}

/// Receives what is there; counts in `due` what is of this process.
fn drain(
    child: &Child,
    subscriber: &mut Subscriber<Raw>,
    author: Author,
    due: &mut u64,
) -> Result<()> {
    loop {
        let message = match subscriber.try_recv() {
            Ok(Some(message)) => message,
            Ok(None) | Err(RecvError::Closed) => return Ok(()),
            Err(error) => bail!("cannot receive: {error}"),
        };
        let record = match Record::read(message.bytes()) {
            Ok((record, _)) => record,
            Err(sentence) => {
                child.fault(sentence);
                continue;
            }
        };
        if message.sequence() != record.lane_sequence || message.lane() != record.lane {
            child.fault(format!("{record:?} was delivered as {message:?}"));
        }
        if record.author == author {
            if record.number != *due {
                child.fault(format!("{record:?} came, number {due} was due"));
            }
            *due = record.number + 1;
        }
        child.add(Word::Received, 1);
    }
}

fn remove(child: &Child, name: &str) -> Result<()> {
    match child.bus.remove_topic(name) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error).context("cannot remove it"),
        _ => Ok(()),
    }
}
