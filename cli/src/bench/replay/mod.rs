//! Reading a log, beside a plain walk over the same bytes in the same run: records a second by each way to read, one
//! record by its sequence, and opening a log whose pages are not in memory.
//!
//! ```text
//!   plain       a mapping, and a buffered file, read without any care
//!   opening     a log that is opened cold
//! ```

mod opening;
mod plain;

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;
use windlass::{Bus, Log, Publisher, Raw, Start, Topic};

use super::driver::{Driver, Sample};
use super::failure::{During, Failure, Result};
use super::report::{self, figure, figure_or_dash, median, smallest, ByState, Setting};
use super::Run;
use opening::Opening;
use plain::Mapped;

/// Bytes of a payload.
const PAYLOAD: usize = 128;

/// Bytes of a segment of the log.
const SEGMENT_BYTES: u64 = 64 << 20;

/// Records that are read.
const RECORDS: u64 = 2_000_000;

/// Records that are sought in one repetition.
const SEEKS: u64 = 200_000;

/// Records among which is sought when all are to be in the caches.
const WARM: u64 = 4096;

/// Who reads all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Reader {
    PlainMmap,
    Buffered1Mib,
    Scan,
    ScanUnchecked,
    Views,
    Subscriber,
}

const READERS: [Reader; 6] = [
    Reader::PlainMmap,
    Reader::Buffered1Mib,
    Reader::Scan,
    Reader::ScanUnchecked,
    Reader::Views,
    Reader::Subscriber,
];

/// Who reads one record by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Seeker {
    PlainIndex,
    Get,
    GetUnchecked,
}

const SEEKERS: [Seeker; 3] = [Seeker::PlainIndex, Seeker::Get, Seeker::GetUnchecked];

impl Reader {
    fn name(self) -> &'static str {
        match self {
            Self::PlainMmap => "plain mmap",
            Self::Buffered1Mib => "file, buffer of 1 MiB",
            Self::Scan => "windlass, scan",
            Self::ScanUnchecked => "windlass, scan unchecked",
            Self::Views => "windlass, a view each",
            Self::Subscriber => "windlass, subscriber",
        }
    }

    fn is_bare(self) -> bool {
        matches!(self, Self::PlainMmap | Self::Buffered1Mib)
    }
}

impl Seeker {
    fn name(self) -> &'static str {
        match self {
            Self::PlainIndex => "array of places, mmap",
            Self::Get => "windlass, get",
            Self::GetUnchecked => "windlass, get unchecked",
        }
    }
}

/// A log of one lane, whose messages begin with their numbers.
struct Recorded {
    path: PathBuf,
    count: u64,
    _publisher: Publisher<Raw>,
    topic: Topic<Raw>,
    mapped: Mapped,
    index: Vec<(u32, u32)>,
    log: Log<Raw>,
}

fn record(path: &Path, count: u64) -> Result<(Publisher<Raw>, Topic<Raw>)> {
    let bus = Bus::anonymous().during("cannot open a bus")?;
    let topic = bus.topic::<Raw>("replay").durable_at(path).segment_bytes(SEGMENT_BYTES);
    let topic = topic.open().during("cannot open a topic")?;
    let mut publisher = topic.publisher().during("cannot have a publisher")?;
    let mut payload = [7; PAYLOAD];
    for number in 0..count {
        payload[..8].copy_from_slice(&number.to_le_bytes());
        publisher.publish(&payload).during("cannot publish")?;
    }
    Ok((publisher, topic))
}

fn number_of(payload: &[u8]) -> u64 {
    let first = payload.first_chunk().copied().unwrap_or_default();
    u64::from_le_bytes(first)
}

impl Recorded {
    fn new(path: PathBuf, count: u64) -> Result<Self> {
        let (publisher, topic) = record(&path, count)?;
        let mapped = Mapped::open(&path)?;
        let index = mapped.index(count);
        let log = topic.log().during("cannot open a log")?;
        Ok(Self { path, count, _publisher: publisher, topic, mapped, index, log })
    }

    /// Nanoseconds a record.
    fn read(&self, reader: Reader) -> Result<f64> {
        let begin = Instant::now();
        let sum = match reader {
            Reader::PlainMmap => self.mapped.sum(self.count)?,
            Reader::Buffered1Mib => plain::sum_by_buffer(&self.path, self.count, 1 << 20)?,
            Reader::Scan => scan(&self.log)?,
            Reader::ScanUnchecked => scan(&self.log.clone().checked(false))?,
            Reader::Views => {
                let mut sum = 0_u64;
                for view in self.log.iter(..).during("cannot read a log")? {
                    let view = view.during("cannot read a message")?;
                    sum = sum.wrapping_add(number_of(view.as_bytes()));
                }
                sum
            }
            Reader::Subscriber => {
                let subscriber = self.topic.subscriber(Start::Oldest);
                let mut subscriber = subscriber.during("cannot subscribe")?;
                let mut sum = 0_u64;
                while let Some(message) = subscriber.try_recv().during("cannot receive")? {
                    sum = sum.wrapping_add(number_of(message.bytes()));
                }
                sum
            }
        };
        let ns = begin.elapsed().as_nanos() as f64 / self.count as f64;
        check(sum == self.count * (self.count - 1) / 2)?;
        Ok(ns)
    }

    /// Nanoseconds a record, for records chosen at random among the first `among`.
    fn seek(&self, seeker: Seeker, among: u64) -> Result<f64> {
        let (log, unchecked) = (&self.log, self.log.clone().checked(false));
        let mut dice = fastrand::Rng::with_seed(among);
        let mut once = |count: u64| -> Result<bool> {
            let mut wrong = 0;
            for _ in 0..count {
                let number = dice.u64(..among);
                let found = match seeker {
                    Seeker::PlainIndex => self.mapped.at(self.index[number as usize]),
                    Seeker::Get => number_of(log.get(number).during("cannot get")?.as_bytes()),
                    Seeker::GetUnchecked => {
                        number_of(unchecked.get(number).during("cannot get")?.as_bytes())
                    }
                };
                wrong += u64::from(black_box(found) != number);
            }
            Ok(wrong == 0)
        };
        // What is mapped anew is touched first.
        check(once(SEEKS)?)?;
        let begin = Instant::now();
        let is_right = once(SEEKS)?;
        let ns = begin.elapsed().as_nanos() as f64 / SEEKS as f64;
        check(is_right)?;
        Ok(ns)
    }
}

fn scan(log: &Log<Raw>) -> Result<u64> {
    let (mut sum, mut scan) = (0_u64, log.scan(..).during("cannot read a log")?);
    while let Some(record) = scan.read() {
        let record = record.during("cannot read a message")?;
        sum = sum.wrapping_add(number_of(record.bytes()));
    }
    Ok(sum)
}

fn check(is_right: bool) -> Result<()> {
    if is_right {
        return Ok(());
    }
    Err(Failure::new("another message was read than was written; no figure of this run counts"))
}

/// Records a second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    repetitions: usize,
    /// Millions of records a second, in the repetition in the middle.
    million_per_second: f64,
    /// The same in the fastest.
    million_per_second_best: f64,
    /// Against the plain walk in the same state: the medians.
    ratio_to_plain: Option<f64>,
    /// The bests.
    ratio_of_bests: Option<f64>,
}

#[derive(Debug, Serialize)]
struct RateRow {
    reader: Reader,
    #[serde(flatten)]
    figures: ByState<Rate>,
}

/// One record by its number, nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Seeking {
    median: f64,
    min: f64,
}

#[derive(Debug, Serialize)]
struct SeekRow {
    seeker: Seeker,
    /// Records among which is chosen.
    among: u64,
    #[serde(flatten)]
    figures: ByState<Seeking>,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    directory: PathBuf,
    payload_bytes: usize,
    records: u64,
    reading: Vec<RateRow>,
    seeking: Vec<SeekRow>,
    opening: Option<Opening>,
}

/// Where the files of a run are, removed when dropped.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed does not change what was measured.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Measures and prints.
pub fn run(run: &Run, directory: Option<&Path>, gib: Option<u32>) -> Result<()> {
    let parent = directory.map_or_else(std::env::temp_dir, Path::to_owned);
    let place = parent.join(format!("windlass-bench-replay-{}", std::process::id()));
    std::fs::create_dir(&place).during("cannot make a folder for the files")?;
    let place = Place(place);
    let count = if run.quick { RECORDS / 10 } else { RECORDS };
    let recorded = Recorded::new(place.0.join("log"), count)?;
    let readers: Vec<Reader> =
        READERS.into_iter().filter(|reader| !run.baselines || reader.is_bare()).collect();
    let seekers: Vec<(Seeker, u64)> = SEEKERS
        .into_iter()
        .filter(|seeker| !run.baselines || *seeker == Seeker::PlainIndex)
        .flat_map(|seeker| [(seeker, WARM), (seeker, count)])
        .collect();
    let kinds = readers.len() + seekers.len();
    let progress = run.progress(kinds as u64 * u64::from(run.repetitions + 1));
    let mut driver = Driver::start_idle(run.cores)?;
    let mut rates: Vec<Vec<Sample<f64>>> = vec![Vec::new(); readers.len()];
    let mut seeks: Vec<Vec<Sample<f64>>> = vec![Vec::new(); seekers.len()];
    let mut pings = Vec::new();
    // In turn, so that each meets the same states of the machine.
    for repetition in 0..=run.repetitions {
        for (reader, samples) in readers.iter().zip(&mut rates) {
            progress.inc(1);
            let sample = driver.between(|_| recorded.read(*reader))?;
            // The first repetition warms up and does not count.
            if repetition > 0 {
                pings.push(Sample { before: sample.before, after: sample.after, value: () });
                samples.push(sample);
            }
        }
        for ((seeker, among), samples) in seekers.iter().zip(&mut seeks) {
            progress.inc(1);
            let sample = driver.between(|_| recorded.seek(*seeker, *among))?;
            if repetition > 0 {
                samples.push(sample);
            }
        }
    }
    progress.finish_and_clear();
    let path = recorded.path.clone();
    drop(recorded);
    let opening = if run.baselines { None } else { Some(open(&path, &place.0, gib)?) };
    let rows = readers.iter().zip(&rates);
    let row = |(reader, samples): (&Reader, &Vec<_>)| RateRow {
        reader: *reader,
        figures: ByState::of(samples, rate),
    };
    let mut reading: Vec<RateRow> = rows.map(row).collect();
    compare(&mut reading);
    let rows = seekers.iter().zip(&seeks);
    let row = |((seeker, among), samples): (&(Seeker, u64), &Vec<_>)| SeekRow {
        seeker: *seeker,
        among: *among,
        figures: ByState::of(samples, seeking),
    };
    let report = Report {
        setting: run.setting("replay", report::summary_of_pings(&pings)),
        directory: parent,
        payload_bytes: PAYLOAD,
        records: count,
        reading,
        seeking: rows.map(row).collect(),
        opening,
    };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

/// Opens the log at `path`, or one of so many GiB that is made for it.
fn open(path: &Path, place: &Path, gib: Option<u32>) -> Result<Opening> {
    let Some(gib) = gib else { return opening::measure(path) };
    let large = place.join("large");
    let records = (u64::from(gib) << 30) / (24 + PAYLOAD as u64);
    drop(record(&large, records)?);
    opening::measure(&large)
}

fn rate(samples: &[&Sample<f64>]) -> Rate {
    let ns: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    Rate {
        repetitions: ns.len(),
        million_per_second: 1e3 / median(&ns),
        million_per_second_best: 1e3 / smallest(&ns),
        ratio_to_plain: None,
        ratio_of_bests: None,
    }
}

fn seeking(samples: &[&Sample<f64>]) -> Seeking {
    let ns: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    Seeking { median: median(&ns), min: smallest(&ns) }
}

fn compare(rows: &mut [RateRow]) {
    for state in super::pingpong::State::ALL {
        let bare = rows.iter().find(|row| row.reader == Reader::PlainMmap);
        let Some(bare) = bare.and_then(|row| row.figures.get(state)).copied() else { continue };
        for row in rows.iter_mut() {
            let Some(mine) = row.figures.get_mut(state) else { continue };
            mine.ratio_to_plain = Some(mine.million_per_second / bare.million_per_second);
            let bests = mine.million_per_second_best / bare.million_per_second_best;
            mine.ratio_of_bests = Some(bests);
        }
    }
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let columns = ["read by", "state", "M/s", "best", "× plain", "best / best"];
        let (records, folder) = (self.records, self.directory.display());
        let title = format!("{records} records of {PAYLOAD} B, read in {folder}");
        let mut table = report::table(&title, &columns);
        for row in &self.reading {
            for (state, rate) in row.figures.each() {
                table.push(vec![
                    row.reader.name().to_owned(),
                    state.to_owned(),
                    figure(rate.million_per_second),
                    figure(rate.million_per_second_best),
                    figure_or_dash(rate.ratio_to_plain),
                    figure_or_dash(rate.ratio_of_bests),
                ]);
            }
        }
        table.print();
        let columns = ["one record by", "among", "state", "median", "min"];
        let mut table = report::table("A record by its sequence, at random, ns", &columns);
        for row in &self.seeking {
            for (state, seeking) in row.figures.each() {
                table.push(vec![
                    row.seeker.name().to_owned(),
                    row.among.to_string(),
                    state.to_owned(),
                    figure(seeking.median),
                    figure(seeking.min),
                ]);
            }
        }
        table.print();
        if let Some(opening) = &self.opening {
            let columns = ["log", "first message", "last message", "topic", "first received"];
            let gib = opening.bytes as f64 / f64::from(1 << 30);
            let title = format!(
                "Opening a log of {} GiB and {} messages whose pages are not in memory, ms",
                figure(gib),
                opening.messages
            );
            let mut table = report::table(&title, &columns);
            let (log, topic) = (opening.log_ms, opening.topic_ms);
            let (first, last) = (opening.first_message_ms, opening.last_message_ms);
            let cells = [log, first, last, topic, opening.subscriber_ms];
            table.push(cells.map(figure).to_vec());
            table.print();
        }
        report::say(format_args!(
            "\nEach reader adds up the first words of all payloads. The plain walk goes from header to \
             header; the log goes by its order,\nchecks what it reads from there before it uses it, \
             and unless it says otherwise the checksum of each record."
        ));
    }
}
