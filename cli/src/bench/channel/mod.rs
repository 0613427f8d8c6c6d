//! Channels, beside `rtrb` moving the same items in the same run: messages a second one by one and in batches, and what
//! it takes to hand one over.
//!
//! ```text
//!   helper      who has the other end: a thread, or a process
//!   contest     what moves messages, and the loops that move them
//! ```

mod contest;
mod helper;

pub use helper::{main as helper_main, HELPER};

use std::time::Instant;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::driver::{Driver, Sample};
use super::failure::{During, Failure, Result};
use super::pingpong::State;
use super::report::{self, figure, figure_or_dash, median, smallest, ByState, Setting};
use super::Run;
use contest::Way;
use helper::{Helper, Mine, Order};

/// Who moves messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Contestant {
    /// A channel between two processes.
    Windlass,
    /// A channel between two threads.
    WindlassThreads,
    /// `rtrb`, between two threads.
    Rtrb,
}

const CONTESTANTS: [Contestant; 3] =
    [Contestant::Windlass, Contestant::WindlassThreads, Contestant::Rtrb];

const WAYS: [Way; 2] = [Way::Singles, Way::Batches];

/// Pauses after a look that found nothing: with few a waiting side takes the lines out of the other's cache again and
/// again, with many it lets them settle. Everybody is measured with each, and the best one counts.
const PAUSES: [u32; 3] = [1, 64, 1024];

/// Messages of one repetition.
const MESSAGES: u64 = 1_000_000;

/// Rounds of one repetition of the handing over.
const ROUNDS: u64 = 20_000;

impl Contestant {
    fn name(self) -> &'static str {
        match self {
            Self::Windlass => "windlass, processes",
            Self::WindlassThreads => "windlass, threads",
            Self::Rtrb => "rtrb, threads",
        }
    }
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Singles => "one by one",
            Self::Batches => "batches",
        }
    }
}

/// Both ends of a contestant, and how many messages have gone through.
struct Line {
    helper: Helper,
    mine: Mine,
    first: u64,
}

impl Line {
    fn open(run: &Run, driver: &Driver, contestant: Contestant) -> Result<Self> {
        let core = run.cores.1;
        let (helper, mine) = match contestant {
            Contestant::Windlass => {
                // A name as unique as that of the directory of this run.
                let path = driver.bus_path();
                let name = path.parent().and_then(|directory| directory.file_name());
                let name = name.unwrap_or_default().to_string_lossy();
                Helper::process(core, &format!("{name}-channel"))?
            }
            Contestant::WindlassThreads => Helper::windlass(core)?,
            Contestant::Rtrb => Helper::rtrb(core)?,
        };
        Ok(Self { helper, mine, first: 0 })
    }

    /// Nanoseconds a message.
    fn throughput(&mut self, count: u64, way: Way, pauses: u32) -> Result<f64> {
        let first = self.advance(count);
        let begin = Instant::now();
        self.helper.order(Order { first, count, way: Some(way), pauses })?;
        self.mine.0.send(first, count, way, pauses)?;
        let mismatches = self.helper.wait()?;
        let elapsed = begin.elapsed();
        check(mismatches)?;
        Ok(elapsed.as_nanos() as f64 / count as f64)
    }

    /// Half of every round, nanoseconds times two.
    fn latency(&mut self, count: u64) -> Result<Histogram<u64>> {
        let first = self.advance(count);
        self.helper.order(Order { first, count, way: None, pauses: 1 })?;
        let (there, back) = &mut self.mine;
        let (rounds, mismatches) = contest::call(there, back, first, count)?;
        check(mismatches + self.helper.wait()?)?;
        let mut histogram = Histogram::new(3).during("cannot make a histogram")?;
        // The first rounds wake the other end up.
        for round in &rounds[rounds.len() / 16..] {
            histogram.record((*round).max(1)).during("cannot record a round")?;
        }
        Ok(histogram)
    }

    fn advance(&mut self, count: u64) -> u64 {
        self.first += count;
        self.first - count
    }
}

fn check(mismatches: u64) -> Result<()> {
    if mismatches == 0 {
        return Ok(());
    }
    Err(Failure::new(format!(
        "{mismatches} messages were lost, torn or out of order; no figure of this run counts"
    )))
}

/// Messages a second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    repetitions: usize,
    /// Pauses after a look that found nothing, those of the best.
    pauses: u32,
    /// Millions of messages a second, in the repetition in the middle.
    million_per_second: f64,
    /// The same in the fastest.
    million_per_second_best: f64,
    /// Against `rtrb` driven in the same way, in the same state: the medians.
    ratio_to_rtrb: Option<f64>,
    /// The bests.
    ratio_of_bests: Option<f64>,
}

#[derive(Debug, Serialize)]
struct RateRow {
    contestant: Contestant,
    way: Way,
    #[serde(flatten)]
    figures: ByState<Rate>,
}

/// Half of a round from one ring into another and back, nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Handing {
    p50: f64,
    p99: f64,
    p999: f64,
    min: f64,
    /// The median against one way of the bare ping-pong with two lines.
    ratio_to_two_lines: Option<f64>,
    /// The median against that of `rtrb`.
    ratio_to_rtrb: Option<f64>,
}

#[derive(Debug, Serialize)]
struct HandingRow {
    contestant: Contestant,
    #[serde(flatten)]
    figures: ByState<Handing>,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    message_bytes: usize,
    ring_bytes: u64,
    batch: u64,
    throughput: Vec<RateRow>,
    handing_over: Vec<HandingRow>,
}

/// Measures and prints.
pub fn run(run: &Run) -> Result<()> {
    let chosen = CONTESTANTS.into_iter();
    let chosen = chosen.filter(|one| !run.baselines || *one == Contestant::Rtrb);
    let contestants: Vec<Contestant> = chosen.collect();
    let kinds = contestants.len() * (WAYS.len() * PAUSES.len() + 1);
    let progress = run.progress(kinds as u64 * u64::from(run.repetitions + 1));
    // Its peer answers when the machine is looked at, and sleeps meanwhile.
    let mut driver = Driver::start_idle(run.cores)?;
    let (count, rounds) = if run.quick { (MESSAGES / 8, ROUNDS / 8) } else { (MESSAGES, ROUNDS) };
    let mut lines = Vec::new();
    for contestant in &contestants {
        lines.push((*contestant, Line::open(run, &driver, *contestant)?));
    }
    let mut pings = Vec::new();
    let mut rates: Vec<(Contestant, Way, u32, Vec<Sample<f64>>)> = Vec::new();
    for contestant in &contestants {
        for way in WAYS {
            rates.extend(PAUSES.map(|pauses| (*contestant, way, pauses, Vec::new())));
        }
    }
    let mut handings: Vec<Vec<Sample<Histogram<u64>>>> = vec![Vec::new(); lines.len()];
    // In turn, so that each meets the same states of the machine.
    for repetition in 0..=run.repetitions {
        for (contestant, way, pauses, samples) in &mut rates {
            progress.inc(1);
            let line = lines.iter_mut().find(|(other, _)| other == contestant);
            let Some((_, line)) = line else { continue };
            let sample = driver.between(|_| line.throughput(count, *way, *pauses))?;
            // The first repetition touches the memory and does not count.
            if repetition > 0 {
                pings.push(Sample { before: sample.before, after: sample.after, value: () });
                samples.push(sample);
            }
        }
        for ((_, line), samples) in lines.iter_mut().zip(&mut handings) {
            progress.inc(1);
            let sample = driver.between(|_| line.latency(rounds))?;
            if repetition > 0 {
                samples.push(sample);
            }
        }
    }
    drop(lines);
    progress.finish_and_clear();
    let pings = report::summary_of_pings(&pings);
    let mut throughput = rows_of(&rates);
    compare_rates(&mut throughput);
    let row = |(contestant, samples): (&Contestant, &Vec<_>)| HandingRow {
        contestant: *contestant,
        figures: ByState::of(samples, handing),
    };
    let mut handing_over: Vec<HandingRow> = contestants.iter().zip(&handings).map(row).collect();
    compare_handing(&mut handing_over, &pings);
    let report = Report {
        setting: run.setting("channel", pings),
        message_bytes: size_of::<contest::Item>(),
        ring_bytes: contest::RING_BYTES,
        batch: contest::BATCH,
        throughput,
        handing_over,
    };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

/// The best of the pauses, in each state.
fn rows_of(rates: &[(Contestant, Way, u32, Vec<Sample<f64>>)]) -> Vec<RateRow> {
    let mut rows: Vec<RateRow> = Vec::new();
    for (contestant, way, pauses, samples) in rates {
        let figures = ByState::of(samples, |chosen| rate(*pauses, chosen));
        match rows.iter_mut().find(|row| row.contestant == *contestant && row.way == *way) {
            Some(row) => row.improve(&figures),
            None => rows.push(RateRow { contestant: *contestant, way: *way, figures }),
        }
    }
    rows
}

fn rate(pauses: u32, samples: &[&Sample<f64>]) -> Rate {
    let ns: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    Rate {
        repetitions: ns.len(),
        pauses,
        million_per_second: 1e3 / median(&ns),
        million_per_second_best: 1e3 / smallest(&ns),
        ratio_to_rtrb: None,
        ratio_of_bests: None,
    }
}

impl RateRow {
    /// Keeps the better of two figures of each state.
    fn improve(&mut self, other: &ByState<Rate>) {
        for state in State::ALL {
            let Some(rival) = other.get(state).copied() else { continue };
            match self.figures.get_mut(state) {
                Some(mine) if mine.million_per_second >= rival.million_per_second => {}
                Some(mine) => *mine = rival,
                None => self.figures.set(state, rival),
            }
        }
        self.figures.moved += other.moved;
    }
}

fn compare_rates(rows: &mut [RateRow]) {
    for state in State::ALL {
        for way in WAYS {
            let is_rival = |row: &&RateRow| row.contestant == Contestant::Rtrb && row.way == way;
            let rival = rows.iter().find(is_rival).and_then(|row| row.figures.get(state)).copied();
            let Some(rival) = rival else { continue };
            for row in rows.iter_mut().filter(|row| row.way == way) {
                let Some(mine) = row.figures.get_mut(state) else { continue };
                mine.ratio_to_rtrb = Some(mine.million_per_second / rival.million_per_second);
                let bests = mine.million_per_second_best / rival.million_per_second_best;
                mine.ratio_of_bests = Some(bests);
            }
        }
    }
}

fn handing(samples: &[&Sample<Histogram<u64>>]) -> Handing {
    let of = |value: &dyn Fn(&Histogram<u64>) -> u64| -> Vec<f64> {
        samples.iter().map(|sample| value(&sample.value) as f64 / 2.0).collect()
    };
    let middle = |quantile| median(&of(&|rounds| rounds.value_at_quantile(quantile)));
    Handing {
        p50: middle(0.5),
        p99: middle(0.99),
        p999: middle(0.999),
        min: smallest(&of(&Histogram::min)),
        ratio_to_two_lines: None,
        ratio_to_rtrb: None,
    }
}

fn compare_handing(rows: &mut [HandingRow], pings: &ByState<super::pingpong::Ping>) {
    for state in State::ALL {
        let rival = rows.iter().find(|row| row.contestant == Contestant::Rtrb);
        let rival = rival.and_then(|row| row.figures.get(state)).map(|rival| rival.p50);
        let bare = pings.get(state).map(|ping| ping.two_lines.median);
        for row in rows.iter_mut() {
            let Some(mine) = row.figures.get_mut(state) else { continue };
            mine.ratio_to_rtrb = rival.map(|rival| mine.p50 / rival);
            mine.ratio_to_two_lines = bare.map(|bare| mine.p50 / bare);
        }
    }
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let columns = ["ring", "moved", "state", "pauses", "M/s", "best", "× rtrb", "best / best"];
        let mut table = report::table("Messages of 64 B from one core to the other", &columns);
        for row in &self.throughput {
            for (state, rate) in row.figures.each() {
                table.push(vec![
                    row.contestant.name().to_owned(),
                    row.way.name().to_owned(),
                    state.to_owned(),
                    rate.pauses.to_string(),
                    figure(rate.million_per_second),
                    figure(rate.million_per_second_best),
                    figure_or_dash(rate.ratio_to_rtrb),
                    figure_or_dash(rate.ratio_of_bests),
                ]);
            }
        }
        table.print();
        let columns = ["ring", "state", "p50", "p99", "p99.9", "min", "× two lines", "× rtrb"];
        let mut table = report::table("Handing over a message, one way, ns", &columns);
        for row in &self.handing_over {
            for (state, handing) in row.figures.each() {
                let numbers = [handing.p50, handing.p99, handing.p999, handing.min].map(figure);
                let ratios = [handing.ratio_to_two_lines, handing.ratio_to_rtrb];
                let mut cells = vec![row.contestant.name().to_owned(), state.to_owned()];
                cells.extend(numbers);
                cells.extend(ratios.map(figure_or_dash));
                table.push(cells);
            }
        }
        table.print();
        report::say(format_args!(
            "\nRings of {}, messages built in place, batches of {}. Everybody waits in the same \
             ways between two looks,\n{PAUSES:?} pauses, and the best counts.",
            report::size(self.ring_bytes as usize),
            self.batch
        ));
    }
}
