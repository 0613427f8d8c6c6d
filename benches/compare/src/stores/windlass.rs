//! A durable topic with one publisher, with checksums and times, as it comes.

use std::ops::Range;
use std::path::{Path, PathBuf};

use ::windlass::{Bus, Publisher, Raw, Start, SyncPolicy, Topic};
use anyhow::{ensure, Context, Result};

use super::{Plan, Reader, Store, Writer};
use crate::disk;
use crate::pace::{Cadence, Pace};
use crate::record::{Checker, Source};

/// Windlass.
pub struct Windlass;

/// Messages that are asked for at a time.
const BATCH: usize = 4096;

fn topic(log: &Path, plan: &Plan) -> Result<Topic<Raw>> {
    let bus = Bus::anonymous().context("cannot make a bus")?;
    let topic = bus.topic::<Raw>("records").durable_at(log);
    let topic = match plan.sync {
        None => topic,
        Some(Cadence::Each) => topic.sync(SyncPolicy::Each),
        Some(Cadence::Every(time)) => topic.sync(SyncPolicy::Every(time)),
    };
    topic.open().context("cannot open a durable topic")
}

impl Store for Windlass {
    fn name(&self) -> String {
        "Windlass".to_owned()
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let log = folder.join("log");
        let topic = topic(&log, plan)?;
        let publisher = topic.publisher().context("cannot get a lane")?;
        Ok(Box::new(WindlassWriter { publisher, _topic: topic, log }))
    }

    fn open(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Reader>> {
        let topic = topic(&folder.join("log"), plan)?;
        Ok(Box::new(WindlassReader { topic, checker: Checker::default() }))
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

struct WindlassReader {
    topic: Topic<Raw>,
    checker: Checker,
}

impl Reader for WindlassReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        let mut subscriber = self.topic.subscriber(Start::Oldest).context("cannot subscribe")?;
        let mut number = 0;
        while number < count {
            let before = number;
            for message in subscriber.batch(BATCH)? {
                self.checker.check(number, message.bytes())?;
                number += 1;
            }
            ensure!(number > before, "record {number} is gone");
        }
        Ok(())
    }

    fn find(&mut self, _: &[u64]) -> Result<Option<()>> {
        Ok(None)
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        let mut subscriber = self.topic.subscriber(Start::Last(1)).context("cannot subscribe")?;
        let message = subscriber.try_recv()?.context("the store is empty")?;
        self.checker.check(last, message.bytes())
    }
}
