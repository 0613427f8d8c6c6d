//! What appends records, and the loops that have them do it.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use windlass::{Bus, Publisher, Raw, SyncPolicy, Topic};

use crate::bench::cores;
use crate::bench::failure::{During, Failure, Result};

/// Bytes of a payload.
pub const PAYLOAD: usize = 128;

/// Bytes of a record: three words and the payload.
pub const RECORD: usize = 24 + PAYLOAD;

/// Bytes of a segment of the log.
const SEGMENT_BYTES: u64 = 64 << 20;

/// What appends records.
pub trait Appender: Sized {
    /// Appends one.
    fn append(&mut self, payload: &[u8; PAYLOAD], sequence: u64) -> Result<()>;

    /// Puts all of it on disk, and ends.
    fn finish(self) -> Result<()>;
}

/// What is measured of an appender.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// So many records, one after the other.
    Burst(u64),
    /// So many records, at a rate: nanoseconds from one to the next.
    Paced(u64, u64),
}

/// What came of it.
pub enum Outcome {
    /// Nanoseconds a record.
    Burst(f64),
    /// What an append took, nanoseconds.
    Paced(Box<Histogram<u64>>),
}

/// Has `appender` do `task`, beginning with record `first`.
pub fn run(appender: &mut impl Appender, first: u64, task: Task) -> Result<Outcome> {
    let mut payload = [7; PAYLOAD];
    let mut append = |sequence: u64| {
        payload[..8].copy_from_slice(&sequence.to_le_bytes());
        appender.append(black_box(&payload), sequence)
    };
    match task {
        Task::Burst(count) => {
            let begin = Instant::now();
            for sequence in first..first + count {
                append(sequence)?;
            }
            Ok(Outcome::Burst(begin.elapsed().as_nanos() as f64 / count as f64))
        }
        Task::Paced(count, every) => {
            let mut took = Histogram::new(3).during("cannot make a histogram")?;
            let begin = Instant::now();
            for sequence in first..first + count {
                let due = Duration::from_nanos((sequence - first) * every);
                while begin.elapsed() < due {}
                let before = Instant::now();
                append(sequence)?;
                let ns = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
                took.record(ns.max(1)).during("cannot record an append")?;
            }
            Ok(Outcome::Paced(Box::new(took)))
        }
    }
}

/// A durable topic with one publisher.
pub struct Log {
    publisher: Publisher<Raw>,
    _topic: Topic<Raw>,
    _bus: Bus,
    warm: u64,
}

impl Log {
    /// A log in a folder that does not exist yet. What works in its background runs on the second core.
    pub fn create(path: &Path, sync: SyncPolicy, both: (usize, usize)) -> Result<Self> {
        cores::pin(both.1)?;
        let bus = Bus::anonymous().during("cannot open a bus")?;
        let topic = bus.topic::<Raw>("append").durable_at(path).sync(sync);
        let topic = topic.segment_bytes(SEGMENT_BYTES).open().during("cannot open a topic")?;
        let publisher = topic.publisher().during("cannot have a publisher")?;
        cores::pin(both.0)?;
        let mut log = Self { publisher, _topic: topic, _bus: bus, warm: 0 };
        if sync != SyncPolicy::Each {
            log.warm_up()?;
        }
        Ok(log)
    }

    /// Until the segment is so full that the next one is prepared, and some time for that.
    fn warm_up(&mut self) -> Result<()> {
        let mut position = 0;
        while position < SEGMENT_BYTES / 8 {
            position = self.publisher.publish(&[0; PAYLOAD]).during("cannot publish")?.position;
            self.warm += 1;
        }
        std::thread::sleep(Duration::from_millis(400));
        Ok(())
    }

    /// Records that were appended so far.
    pub fn warm(&self) -> u64 {
        self.warm
    }
}

impl Appender for Log {
    #[inline]
    fn append(&mut self, payload: &[u8; PAYLOAD], sequence: u64) -> Result<()> {
        let receipt = self.publisher.publish(payload).during("cannot publish")?;
        if receipt.sequence == sequence {
            return Ok(());
        }
        Err(Failure::new(format!(
            "message {sequence} got the sequence {}; no figure of this run counts",
            receipt.sequence
        )))
    }

    fn finish(self) -> Result<()> {
        Ok(())
    }
}

/// A file behind a buffer.
pub struct Buffered(BufWriter<File>);

impl Buffered {
    /// A file that does not exist yet, and a buffer of so many bytes.
    pub fn create(path: &Path, buffer: usize) -> Result<Self> {
        let file = File::create(path).during("cannot make a file")?;
        Ok(Self(BufWriter::with_capacity(buffer, file)))
    }
}

impl Appender for Buffered {
    #[inline]
    fn append(&mut self, payload: &[u8; PAYLOAD], sequence: u64) -> Result<()> {
        self.0.write_all(&record_of(payload, sequence)).during("cannot write")
    }

    fn finish(mut self) -> Result<()> {
        self.0.flush().during("cannot write")?;
        self.0.get_ref().sync_data().during("cannot put a file on disk")
    }
}

/// A file of which each record is written and put on disk.
pub struct Synced {
    file: File,
    at: u64,
}

impl Synced {
    /// A file that does not exist yet, with room for `records`: its length does not change later.
    pub fn create(path: &Path, records: u64) -> Result<Self> {
        let file = File::create(path).during("cannot make a file")?;
        let zeroes = vec![0; records as usize * RECORD];
        file.write_all_at(&zeroes, 0).during("cannot write")?;
        file.sync_all().during("cannot put a file on disk")?;
        Ok(Self { file, at: 0 })
    }
}

impl Appender for Synced {
    fn append(&mut self, payload: &[u8; PAYLOAD], sequence: u64) -> Result<()> {
        let record = record_of(payload, sequence);
        self.file.write_all_at(&record, self.at).during("cannot write")?;
        self.at += record.len() as u64;
        self.file.sync_data().during("cannot put a file on disk")
    }

    fn finish(self) -> Result<()> {
        Ok(())
    }
}

#[inline]
fn record_of(payload: &[u8; PAYLOAD], sequence: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..8].copy_from_slice(&(sequence + 1).to_le_bytes());
    record[8..16].copy_from_slice(&sequence.to_le_bytes());
    record[16..24].copy_from_slice(&(PAYLOAD as u64).to_le_bytes());
    record[24..].copy_from_slice(payload);
    record
}
