//! Appending to a log, beside a bare mapped file and files as they are usually written, in the same run: records a
//! second, what an append takes at a given rate, and what all of it costs the disk.
//!
//! ```text
//!   contest     what appends records, and the loops that have them do it
//!   bare        a mapped file without any safety
//! ```

mod bare;
mod contest;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;
use windlass::SyncPolicy;

use super::driver::{Driver, Sample};
use super::failure::{During, Failure, Result};
use super::report::{self, figure, figure_or_dash, median, smallest, ByState, Setting};
use super::Run;
use bare::{Bare, Sealed};
use contest::{Appender, Buffered, Log, Outcome, Synced, Task, PAYLOAD};

/// What appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Contestant {
    MmapPopulated,
    MmapPopulatedSealed,
    MmapFaults,
    Buffered64Kib,
    Buffered1Mib,
    WindlassNone,
    WindlassEvery1Ms,
    PwriteFdatasync,
    WindlassEach,
}

const CONTESTANTS: [Contestant; 9] = [
    Contestant::MmapPopulated,
    Contestant::MmapPopulatedSealed,
    Contestant::MmapFaults,
    Contestant::Buffered64Kib,
    Contestant::Buffered1Mib,
    Contestant::WindlassNone,
    Contestant::WindlassEvery1Ms,
    Contestant::PwriteFdatasync,
    Contestant::WindlassEach,
];

/// Records a second of the paced runs.
const RATES: [u64; 2] = [1_000_000, 4_000_000];

/// Records of a burst: more than a segment has.
const BURST: u64 = 600_000;

/// The same where each is put on disk.
const BURST_SYNCED: u64 = 1_000;

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Self::MmapPopulated => "mmap, populated",
            Self::MmapPopulatedSealed => "mmap, populated, checksum and time",
            Self::MmapFaults => "mmap, with faults",
            Self::Buffered64Kib => "file, buffer of 64 KiB",
            Self::Buffered1Mib => "file, buffer of 1 MiB",
            Self::WindlassNone => "windlass, none",
            Self::WindlassEvery1Ms => "windlass, every 1 ms",
            Self::PwriteFdatasync => "pwrite + fdatasync",
            Self::WindlassEach => "windlass, each",
        }
    }

    fn policy(self) -> Option<SyncPolicy> {
        match self {
            Self::WindlassNone => Some(SyncPolicy::None),
            Self::WindlassEvery1Ms => Some(SyncPolicy::Every(Duration::from_millis(1))),
            Self::WindlassEach => Some(SyncPolicy::Each),
            _ => None,
        }
    }

    fn is_synced(self) -> bool {
        matches!(self, Self::PwriteFdatasync | Self::WindlassEach)
    }
}

/// What one run of a contestant came to.
struct Done {
    outcome: Outcome,
    /// Bytes that this process had written, for each byte of payload.
    written: f64,
    /// Bytes of disk that are in use, for each byte of payload.
    used: f64,
}

/// Where the files of a run are, removed when dropped.
struct Place(PathBuf);

impl Place {
    fn new(parent: Option<&Path>) -> Result<Self> {
        let parent = parent.map_or_else(std::env::temp_dir, Path::to_owned);
        let path = parent.join(format!("windlass-bench-append-{}", std::process::id()));
        std::fs::create_dir(&path).during("cannot make a folder for the files")?;
        Ok(Self(path))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed does not change what was measured.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn perform(run: &Run, place: &Path, contestant: Contestant, task: Task) -> Result<Done> {
    let path = place.join("file");
    let count = match task {
        Task::Burst(count) | Task::Paced(count, _) => count,
    };
    let before = written_bytes()?;
    let (outcome, records) = match contestant.policy() {
        Some(policy) => {
            let mut log = Log::create(&path, policy, run.cores)?;
            let first = log.warm();
            let outcome = contest::run(&mut log, first, task)?;
            log.finish()?;
            (outcome, first + count)
        }
        None => (perform_bare(&path, contestant, count, task)?, count),
    };
    let payload = records as f64 * PAYLOAD as f64;
    let written = written_bytes()?.saturating_sub(before) as f64 / payload;
    let used = used_bytes(&path)? as f64 / payload;
    let removed =
        if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    removed.during("cannot remove a file")?;
    Ok(Done { outcome, written, used })
}

fn perform_bare(path: &Path, contestant: Contestant, count: u64, task: Task) -> Result<Outcome> {
    fn whole(mut appender: impl Appender, task: Task) -> Result<Outcome> {
        let outcome = contest::run(&mut appender, 0, task)?;
        appender.finish()?;
        Ok(outcome)
    }
    match contestant {
        Contestant::MmapPopulated => whole(Bare::create(path, count, true)?, task),
        Contestant::MmapPopulatedSealed => whole(Sealed(Bare::create(path, count, true)?), task),
        Contestant::MmapFaults => whole(Bare::create(path, count, false)?, task),
        Contestant::Buffered64Kib => whole(Buffered::create(path, 1 << 16)?, task),
        Contestant::Buffered1Mib => whole(Buffered::create(path, 1 << 20)?, task),
        _ => whole(Synced::create(path, count)?, task),
    }
}

/// Bytes that this process had the kernel write, less those that were thrown away before.
fn written_bytes() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/io").during("cannot read /proc/self/io")?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().parse::<u64>().ok()
    };
    let written = value("write_bytes:");
    written.ok_or_else(|| Failure::new("/proc/self/io says nothing of bytes written".to_owned()))
}

/// Bytes of disk that a file, or the files of a folder, use.
fn used_bytes(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path).during("cannot look at a file")?;
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * 512);
    }
    let mut sum = 0;
    for entry in std::fs::read_dir(path).during("cannot list a folder")? {
        sum += used_bytes(&entry.during("cannot list a folder")?.path())?;
    }
    Ok(sum)
}

/// Records a second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    repetitions: usize,
    /// Millions of records a second, in the repetition in the middle.
    million_per_second: f64,
    /// The same in the fastest.
    million_per_second_best: f64,
    /// Against the populated mapping in the same state: the medians.
    ratio_to_mmap: Option<f64>,
    /// The bests.
    ratio_of_bests: Option<f64>,
    /// Bytes written for each byte of payload.
    written_per_byte: f64,
    /// Bytes of disk in use for each byte of payload.
    used_per_byte: f64,
}

#[derive(Debug, Serialize)]
struct RateRow {
    contestant: Contestant,
    #[serde(flatten)]
    figures: ByState<Rate>,
}

/// What an append takes at a rate, nanoseconds. It includes two halves of reading the clock.
#[derive(Debug, Serialize)]
struct PacedRow {
    contestant: Contestant,
    per_second: u64,
    p50: u64,
    p99: u64,
    p999: u64,
    p9999: u64,
    max: u64,
    p9999_to_p50: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    directory: PathBuf,
    payload_bytes: usize,
    appending: Vec<RateRow>,
    paced: Vec<PacedRow>,
}

/// Measures and prints.
pub fn run(run: &Run, directory: Option<&Path>) -> Result<()> {
    let place = Place::new(directory)?;
    let chosen = CONTESTANTS.into_iter();
    let chosen = chosen.filter(|one| !run.baselines || one.policy().is_none());
    let contestants: Vec<Contestant> = chosen.collect();
    let progress = run.progress(contestants.len() as u64 * u64::from(run.repetitions + 1));
    let mut driver = Driver::start_idle(run.cores)?;
    let mut samples: Vec<Vec<Sample<Done>>> = contestants.iter().map(|_| Vec::new()).collect();
    let mut pings = Vec::new();
    // In turn, so that each meets the same states of the machine.
    for repetition in 0..=run.repetitions {
        for (contestant, samples) in contestants.iter().zip(&mut samples) {
            progress.inc(1);
            let count = if contestant.is_synced() { BURST_SYNCED } else { BURST };
            let task = Task::Burst(if run.quick { count / 10 } else { count });
            let sample = driver.between(|_| perform(run, &place.0, *contestant, task))?;
            // The first repetition warms up and does not count.
            if repetition > 0 {
                pings.push(Sample { before: sample.before, after: sample.after, value: () });
                samples.push(sample);
            }
        }
    }
    let mut paced = Vec::new();
    for contestant in contestants.iter().copied().filter(|one| !one.is_synced()) {
        for per_second in RATES {
            let count = per_second * if run.quick { 1 } else { 20 } / 10;
            let task = Task::Paced(count, 1_000_000_000 / per_second);
            if let Outcome::Paced(took) = perform(run, &place.0, contestant, task)?.outcome {
                paced.push(row_of(contestant, per_second, &took));
            }
        }
    }
    progress.finish_and_clear();
    let rows = contestants.iter().zip(&samples);
    let row = |(contestant, samples): (&Contestant, &Vec<_>)| RateRow {
        contestant: *contestant,
        figures: ByState::of(samples, rate),
    };
    let mut appending: Vec<RateRow> = rows.map(row).collect();
    compare(&mut appending);
    let report = Report {
        setting: run.setting("append", report::summary_of_pings(&pings)),
        directory: place.0.parent().map(Path::to_owned).unwrap_or_default(),
        payload_bytes: PAYLOAD,
        appending,
        paced,
    };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

fn rate(samples: &[&Sample<Done>]) -> Rate {
    let of = |value: &dyn Fn(&Done) -> f64| -> Vec<f64> {
        samples.iter().map(|sample| value(&sample.value)).collect()
    };
    let ns = of(&|done| match &done.outcome {
        Outcome::Burst(ns) => *ns,
        Outcome::Paced(took) => took.mean(),
    });
    Rate {
        repetitions: ns.len(),
        million_per_second: 1e3 / median(&ns),
        million_per_second_best: 1e3 / smallest(&ns),
        ratio_to_mmap: None,
        ratio_of_bests: None,
        written_per_byte: median(&of(&|done| done.written)),
        used_per_byte: median(&of(&|done| done.used)),
    }
}

fn row_of(contestant: Contestant, per_second: u64, took: &Histogram<u64>) -> PacedRow {
    let at = |quantile| took.value_at_quantile(quantile);
    PacedRow {
        contestant,
        per_second,
        p50: at(0.5),
        p99: at(0.99),
        p999: at(0.999),
        p9999: at(0.9999),
        max: took.max(),
        p9999_to_p50: at(0.9999) as f64 / at(0.5) as f64,
    }
}

fn compare(rows: &mut [RateRow]) {
    for state in super::pingpong::State::ALL {
        let bare = rows.iter().find(|row| row.contestant == Contestant::MmapPopulated);
        let Some(bare) = bare.and_then(|row| row.figures.get(state)).copied() else { continue };
        for row in rows.iter_mut() {
            let Some(mine) = row.figures.get_mut(state) else { continue };
            mine.ratio_to_mmap = Some(mine.million_per_second / bare.million_per_second);
            let bests = mine.million_per_second_best / bare.million_per_second_best;
            mine.ratio_of_bests = Some(bests);
        }
    }
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let columns =
            ["appended by", "state", "M/s", "best", "× mmap", "best / best", "written", "in use"];
        let title = format!("Records of {PAYLOAD} B appended in {}", self.directory.display());
        let mut table = report::table(&title, &columns);
        for row in &self.appending {
            for (state, rate) in row.figures.each() {
                table.push(vec![
                    row.contestant.name().to_owned(),
                    state.to_owned(),
                    figure(rate.million_per_second),
                    figure(rate.million_per_second_best),
                    figure_or_dash(rate.ratio_to_mmap),
                    figure_or_dash(rate.ratio_of_bests),
                    figure(rate.written_per_byte),
                    figure(rate.used_per_byte),
                ]);
            }
        }
        table.print();
        let columns =
            ["appended by", "a second", "p50", "p99", "p99.9", "p99.99", "max", "p99.99 / p50"];
        let mut table = report::table("What an append takes at a given rate, ns", &columns);
        for row in &self.paced {
            let numbers = [row.p50, row.p99, row.p999, row.p9999, row.max];
            let mut cells = vec![row.contestant.name().to_owned(), row.per_second.to_string()];
            cells.extend(numbers.map(|number| number.to_string()));
            cells.push(figure(row.p9999_to_p50));
            table.push(cells);
        }
        table.print();
        report::say(format_args!(
            "\nA log has a checksum and a time in each record, and its next segment is prepared by a \
             thread on the second core\nwhen the clock starts; a run goes through the end of a \
             segment. A populated mapping is all there, and has\nneither unless it says so: then \
             those of libraries, the checksum by crc32c and the time of the kernel's clock.\n\
             Written, in use: bytes that the process had the kernel write, and bytes of disk, for each byte of payload."
        ));
    }
}
