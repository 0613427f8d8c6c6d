//! A durable topic with one publisher, with times, and with checksums unless it is told otherwise.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ::windlass::{Bus, Log, Publisher, Raw, Start, SyncPolicy, Topic};
use anyhow::{ensure, Context, Result};

use super::{Plan, Reader, Store, Writer};
use crate::disk;
use crate::pace::{Cadence, Pace};
use crate::record::{Checker, Source};

/// Windlass.
pub struct Windlass {
    /// Whether records have checksums, which are looked at when they are read.
    pub checksums: bool,
    /// What reads.
    pub reading: Reading,
}

/// What reads a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// A subscriber of the open topic; single records through the log of the topic.
    Subscriber,
    /// The log by itself, without a topic.
    Log,
}

/// Messages that a subscriber is asked for at a time.
const BATCH: usize = 4096;

const FOLDER: &str = "log";

impl Windlass {
    fn topic(&self, folder: &Path, plan: &Plan) -> Result<Topic<Raw>> {
        let bus = Bus::anonymous().context("cannot make a bus")?;
        let topic = bus.topic::<Raw>("records").durable_at(folder.join(FOLDER));
        let topic = topic.checksums(self.checksums);
        let topic = match plan.sync {
            None => topic,
            Some(Cadence::Each) => topic.sync(SyncPolicy::Each),
            Some(Cadence::Every(time)) => topic.sync(SyncPolicy::Every(time)),
        };
        topic.open().context("cannot open a durable topic")
    }
}

impl Store for Windlass {
    fn name(&self) -> String {
        let reading = match self.reading {
            Reading::Subscriber => "Windlass",
            Reading::Log => "Windlass, log",
        };
        format!("{reading}{}", if self.checksums { "" } else { ", no checksums" })
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let topic = self.topic(folder, plan)?;
        let publisher = topic.publisher().context("cannot get a lane")?;
        Ok(Box::new(WindlassWriter { publisher, _topic: topic, log: folder.join(FOLDER) }))
    }

    fn open(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Reader>> {
        let checker = Checker::default();
        if self.reading == Reading::Log {
            let log = Log::open(folder.join(FOLDER)).context("cannot open a log")?;
            return Ok(Box::new(LogReader { log, checker }));
        }
        let topic = self.topic(folder, plan)?;
        let log = topic.log().context("cannot read the log of a topic")?;
        Ok(Box::new(TopicReader { topic, rest: LogReader { log, checker } }))
    }
}

struct WindlassWriter {
    publisher: Publisher<Raw>,
    _topic: Topic<Raw>,
    log: PathBuf,
}

impl WindlassWriter {
    #[inline]
    fn put(&mut self, numbers: Range<u64>, source: &mut Source) -> Result<()> {
        for _ in numbers {
            self.publisher.publish(source.next_record())?;
        }
        Ok(())
    }
}

impl Writer for WindlassWriter {
    fn append(&mut self, numbers: Range<u64>) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        self.put(numbers, &mut source)
    }

    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let mut left = numbers;
        // The topic puts on disk what it was told to by itself.
        while pace.begin(&left) {
            while let Some(numbers) = pace.take(&mut left) {
                self.put(numbers, &mut source)?;
            }
        }
        if pace.cadence() != Cadence::Each {
            // What was published since the last time would follow in a moment.
            disk::sync(&self.log)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct TopicReader {
    topic: Topic<Raw>,
    rest: LogReader,
}

impl Reader for TopicReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        let mut subscriber = self.topic.subscriber(Start::Oldest).context("cannot subscribe")?;
        let mut number = 0;
        while number < count {
            let before = number;
            for message in subscriber.batch(BATCH)? {
                self.rest.checker.check(number, message.bytes())?;
                number += 1;
            }
            ensure!(number > before, "record {number} is gone");
        }
        Ok(())
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        self.rest.find(numbers)
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        let mut subscriber = self.topic.subscriber(Start::Last(1)).context("cannot subscribe")?;
        let message = subscriber.try_recv()?.context("the store is empty")?;
        self.rest.checker.check(last, message.bytes())
    }
}

struct LogReader {
    log: Log<Raw>,
    checker: Checker,
}

impl Reader for LogReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        let mut scan = self.log.scan(..)?;
        (0..count).try_for_each(|number| {
            let record = scan.read().with_context(|| format!("record {number} is gone"))??;
            self.checker.check(number, record.bytes())
        })
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        numbers
            .iter()
            .try_for_each(|&number| self.checker.check(number, self.log.get(number)?.as_bytes()))
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        let record = self.log.last(1)?.next().context("the store is empty")??;
        self.checker.check(last, record.as_bytes())
    }
}
