//! Opening a large log whose pages are not in memory.

use std::fs::File;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{posix_fadvise, PosixFadviseAdvice};
use serde::Serialize;
use windlass::{Bus, Log, Raw, Start};

use crate::bench::failure::{During, Failure, Result};

/// What opening took, in milliseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Opening {
    /// Bytes of the files of the log.
    pub bytes: u64,
    pub messages: u64,
    /// The log alone, to read it.
    pub log_ms: f64,
    /// From there to its first message.
    pub first_message_ms: f64,
    /// From there to its last message.
    pub last_message_ms: f64,
    /// The topic, on a new bus: the claim of the log, and its recovery.
    pub topic_ms: f64,
    /// From there to the first message of a subscriber.
    pub subscriber_ms: f64,
}

/// Puts the files of a log on disk, and out of memory.
fn cool(log: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(log).during("cannot list a log")? {
        let path = entry.during("cannot list a log")?.path();
        let file = File::open(path).during("cannot open a file of a log")?;
        file.sync_all().during("cannot put a file on disk")?;
        bytes += file.metadata().during("cannot look at a file")?.len();
        let cooled = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        cooled.during("cannot let go of the pages of a file")?;
    }
    Ok(bytes)
}

/// Opens the log at `path`, which nobody uses, and has it closed again.
pub fn measure(path: &Path) -> Result<Opening> {
    let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
    let bytes = cool(path)?;
    let begin = Instant::now();
    let log = Log::<Raw>::open(path).during("cannot open a log")?;
    let log_ms = ms(begin);
    let (begin, messages) = (Instant::now(), log.next().during("cannot read a log")?);
    let first = log.get(0).during("cannot read a message")?;
    let first_message_ms = ms(begin);
    let begin = Instant::now();
    let last = log.get(messages.saturating_sub(1)).during("cannot read a message")?;
    let last_message_ms = ms(begin);
    if first.sequence() != 0 || last.sequence() + 1 != messages {
        return Err(Failure::new("another message was read than was asked for".to_owned()));
    }
    drop((first, last, log));
    cool(path)?;
    let begin = Instant::now();
    let bus = Bus::anonymous().during("cannot open a bus")?;
    let topic = bus.topic::<Raw>("replay").durable_at(path).open().during("cannot open a topic")?;
    let topic_ms = ms(begin);
    let begin = Instant::now();
    let mut subscriber = topic.subscriber(Start::Oldest).during("cannot subscribe")?;
    let found = subscriber.try_recv().during("cannot receive")?.is_some();
    let subscriber_ms = ms(begin);
    if !found {
        return Err(Failure::new("a log that was opened has no message".to_owned()));
    }
    let opening = Opening {
        bytes,
        messages,
        log_ms,
        first_message_ms,
        last_message_ms,
        topic_ms,
        subscriber_ms,
    };
    Ok(opening)
}
