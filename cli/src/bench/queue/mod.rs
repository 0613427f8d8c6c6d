//! Work queues: messages a second with one and with two on each side, and what it takes to hand one over, beside the
//! queues that threads of one process use.
//!
//! ```text
//!   contest ─ crew     what is moved by what, and by whom
//! ```

mod contest;
mod crew;

pub use crew::{main as worker_main, WORKER};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::driver::{Driver, Sample};
use super::failure::{During, Failure, Result};
use super::pingpong::State;
use super::report::{self, figure, figure_or_dash, median, smallest, ByState, Setting};
use super::Run;
use contest::Contestant;
use crew::{Done, Part, Processes};

const CONTESTANTS: [Contestant; 6] = [
    Contestant::Windlass,
    Contestant::WindlassBatches,
    Contestant::WindlassThreads,
    Contestant::ArrayQueue,
    Contestant::CrossbeamChannel,
    Contestant::Kanal,
];

/// Producers, and consumers.
const CREWS: [usize; 2] = [1, 2];

/// Pauses between two looks: with few a waiting side takes the lines out of the other's cache again and again, with
/// many it lets them settle. Everybody is measured with each, and the better one counts.
const PAUSES: [u32; 2] = [4, 100];

/// Messages of one repetition.
const MESSAGES: u64 = 400_000;

/// Rounds of one repetition of the handing over.
const ROUNDS: u64 = 20_000;

/// Messages a second.
#[derive(Clone, Copy, Debug, Serialize)]
struct Rate {
    repetitions: usize,
    /// Millions of messages a second, in the repetition in the middle.
    million_per_second: f64,
    /// The same in the fastest.
    million_per_second_best: f64,
    /// Against `ArrayQueue` in the same state: the medians.
    ratio_to_array_queue: Option<f64>,
    /// The bests.
    ratio_of_bests: Option<f64>,
}

#[derive(Debug, Serialize)]
struct RateRow {
    contestant: Contestant,
    producers: usize,
    consumers: usize,
    /// Pauses between two looks, those of the better.
    #[serde(flatten)]
    figures: ByState<Rate>,
}

/// Half of a round from one queue into another and back, nanoseconds.
#[derive(Clone, Copy, Debug, Serialize)]
struct Handing {
    p50: f64,
    p99: f64,
    p999: f64,
    min: f64,
    /// The median against one way of the bare ping-pong with two lines.
    ratio_to_two_lines: Option<f64>,
    /// The median against that of `ArrayQueue`.
    ratio_to_array_queue: Option<f64>,
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
    capacity: usize,
    throughput: Vec<RateRow>,
    handing_over: Vec<HandingRow>,
}

/// Measures and prints.
pub fn run(run: &Run) -> Result<()> {
    let contestants: Vec<Contestant> = CONTESTANTS
        .into_iter()
        .filter(|contestant| !run.baselines || !contestant.is_windlass())
        .collect();
    let kinds = contestants.len() * (CREWS.len() * PAUSES.len() + 1);
    let progress = run.progress(kinds as u64 * u64::from(run.repetitions + 1));
    // Its peer answers when the machine is looked at, and sleeps meanwhile.
    let mut driver = Driver::start_idle(run.cores)?;
    let mut pings = Vec::new();
    let mut throughput = Vec::new();
    for crew in CREWS {
        let mut cases = Vec::new();
        for &contestant in &contestants {
            for pauses in PAUSES {
                let moving = Moving::start(run, &driver, contestant, crew)?;
                cases.push((contestant, pauses, moving, Vec::new()));
            }
        }
        // In turn, so that each meets the same states of the machine.
        for repetition in 0..=run.repetitions {
            for (_, pauses, moving, samples) in &mut cases {
                progress.inc(1);
                let sample: Sample<f64> = driver.between(|_| moving.run(run, *pauses))?;
                // The first repetition touches the memory and does not count.
                if repetition > 0 {
                    pings.push(without_value(&sample));
                    samples.push(sample);
                }
            }
        }
        let mut rows: Vec<RateRow> = Vec::new();
        for (contestant, _, _, samples) in &cases {
            let figures = ByState::of(samples, rate);
            match rows.iter_mut().find(|row| row.contestant == *contestant) {
                Some(row) => row.improve(figures),
                None => {
                    let (contestant, producers, consumers) = (*contestant, crew, crew);
                    rows.push(RateRow { contestant, producers, consumers, figures });
                }
            }
        }
        compare_rates(&mut rows);
        throughput.extend(rows);
    }
    let mut cases = Vec::new();
    for &contestant in &contestants {
        cases.push((contestant, Ponging::start(run, &driver, contestant)?, Vec::new()));
    }
    for repetition in 0..=run.repetitions {
        for (_, ponging, samples) in &mut cases {
            progress.inc(1);
            let sample = driver.between(|_| ponging.run(run))?;
            if repetition > 0 {
                pings.push(without_value(&sample));
                samples.push(sample);
            }
        }
    }
    let row = |(contestant, _, samples): &(Contestant, Ponging, Vec<_>)| HandingRow {
        contestant: *contestant,
        figures: ByState::of(samples, handing),
    };
    let mut handing_over: Vec<HandingRow> = cases.iter().map(row).collect();
    let pings = report::summary_of_pings(&pings);
    compare_handing(&mut handing_over, &pings);
    progress.finish_and_clear();
    let setting = run.setting("queue", pings);
    let (message_bytes, capacity) = (size_of::<contest::Message>(), contest::CAPACITY);
    let report = Report { setting, message_bytes, capacity, throughput, handing_over };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

fn without_value<T>(sample: &Sample<T>) -> Sample<()> {
    Sample { before: sample.before, after: sample.after, value: () }
}

/// Messages through one queue.
struct Moving {
    contestant: Contestant,
    parts: Vec<(Part, usize)>,
    processes: Option<Processes>,
}

/// How many queues were made: each has a name of its own.
fn fresh_names(count: usize) -> Vec<String> {
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    static MADE: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: only this process counts.
    (0..count).map(|_| format!("queue-{}", MADE.fetch_add(1, Relaxed))).collect()
}

impl Moving {
    fn start(run: &Run, driver: &Driver, contestant: Contestant, crew: usize) -> Result<Self> {
        let (first, second) = run.cores;
        let producers = (0..crew).map(|number| (Part::Producer(number as u64), first));
        let consumers = (0..crew).map(|_| (Part::Consumer, second));
        let parts: Vec<_> = producers.chain(consumers).collect();
        let processes = contestant
            .is_of_processes()
            .then(|| Processes::start(&driver.bus_path(), contestant, &fresh_names(1), &parts))
            .transpose()?;
        Ok(Self { contestant, parts, processes })
    }

    /// Nanoseconds a message.
    fn run(&mut self, run: &Run, pauses: u32) -> Result<f64> {
        let crew = self.parts.len() as u64 / 2;
        let each = if run.quick { MESSAGES / 8 } else { MESSAGES } / crew;
        let counts = vec![each; self.parts.len()];
        let (elapsed, done) = match &mut self.processes {
            Some(processes) => processes.run(&counts, pauses)?,
            None => crew::run_threads(self.contestant, &self.parts, &counts, pauses)?,
        };
        let all = each * crew;
        let sent = (0..crew).flat_map(|producer| {
            (0..each).map(move |number| contest::message(producer, number)[0])
        });
        check(&done, all, sent.fold(0, u64::wrapping_add))?;
        Ok(elapsed as f64 / all as f64)
    }
}

/// A message to and fro between two queues.
struct Ponging {
    contestant: Contestant,
    parts: [(Part, usize); 2],
    processes: Option<Processes>,
}

impl Ponging {
    fn start(run: &Run, driver: &Driver, contestant: Contestant) -> Result<Self> {
        let parts = [(Part::Caller, run.cores.0), (Part::Echo, run.cores.1)];
        let processes = contestant
            .is_of_processes()
            .then(|| Processes::start(&driver.bus_path(), contestant, &fresh_names(2), &parts))
            .transpose()?;
        Ok(Self { contestant, parts, processes })
    }

    fn run(&mut self, run: &Run) -> Result<Histogram<u64>> {
        let count = if run.quick { ROUNDS / 8 } else { ROUNDS };
        let counts = [count; 2];
        let (_, done) = match &mut self.processes {
            Some(processes) => processes.run(&counts, 0)?,
            None => crew::run_threads(self.contestant, &self.parts, &counts, 0)?,
        };
        let sent = (0..count).map(|number| contest::message(0, number)[0]);
        check(&done, 2 * count, sent.fold(0, u64::wrapping_add).wrapping_mul(2))?;
        let mut histogram = Histogram::new(3).during("cannot make a histogram")?;
        for round in done.iter().flat_map(|done| &done.rounds) {
            histogram.record((*round).max(1)).during("cannot record a round")?;
        }
        Ok(histogram)
    }
}

fn check(done: &[Done], count: u64, sum: u64) -> Result<()> {
    let taken: u64 = done.iter().map(|done| done.count).sum();
    let found = done.iter().fold(0u64, |sum, done| sum.wrapping_add(done.sum));
    let wrong: u64 = done.iter().map(|done| done.wrong).sum();
    if (taken, found, wrong) == (count, sum, 0) {
        return Ok(());
    }
    Err(Failure::new(format!(
        "of {count} messages {taken} arrived, {wrong} of them torn or out of order, and their sum \
         is {found}, not {sum}; no figure of this run counts"
    )))
}

fn rate(samples: &[&Sample<f64>]) -> Rate {
    let ns: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    Rate {
        repetitions: ns.len(),
        million_per_second: 1e3 / median(&ns),
        million_per_second_best: 1e3 / smallest(&ns),
        ratio_to_array_queue: None,
        ratio_of_bests: None,
    }
}

impl RateRow {
    /// Keeps the better of two figures of each state.
    fn improve(&mut self, other: ByState<Rate>) {
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
        let rival = rows.iter().find(|row| row.contestant == Contestant::ArrayQueue);
        let Some(rival) = rival.and_then(|row| row.figures.get(state)).copied() else { continue };
        for row in rows.iter_mut() {
            let Some(mine) = row.figures.get_mut(state) else { continue };
            mine.ratio_to_array_queue = Some(mine.million_per_second / rival.million_per_second);
            let bests = mine.million_per_second_best / rival.million_per_second_best;
            mine.ratio_of_bests = Some(bests);
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
        ratio_to_array_queue: None,
    }
}

fn compare_handing(rows: &mut [HandingRow], pings: &ByState<super::pingpong::Ping>) {
    for state in State::ALL {
        let rival = rows.iter().find(|row| row.contestant == Contestant::ArrayQueue);
        let rival = rival.and_then(|row| row.figures.get(state)).map(|rival| rival.p50);
        let bare = pings.get(state).map(|ping| ping.two_lines.median);
        for row in rows.iter_mut() {
            let Some(mine) = row.figures.get_mut(state) else { continue };
            mine.ratio_to_array_queue = rival.map(|rival| mine.p50 / rival);
            mine.ratio_to_two_lines = bare.map(|bare| mine.p50 / bare);
        }
    }
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let columns =
            ["queue", "in and out", "state", "M/s", "best", "× ArrayQueue", "best / best"];
        let title = "Messages of 64 B, producers on one core, consumers on the other";
        let mut table = report::table(title, &columns);
        for row in &self.throughput {
            for (state, rate) in row.figures.each() {
                table.push(vec![
                    row.contestant.name().to_owned(),
                    format!("{}P{}C", row.producers, row.consumers),
                    state.to_owned(),
                    figure(rate.million_per_second),
                    figure(rate.million_per_second_best),
                    figure_or_dash(rate.ratio_to_array_queue),
                    figure_or_dash(rate.ratio_of_bests),
                ]);
            }
        }
        table.print();
        let columns =
            ["queue", "state", "p50", "p99", "p99.9", "min", "× two lines", "× ArrayQueue"];
        let mut table = report::table("Handing over a message, one way, ns", &columns);
        for row in &self.handing_over {
            for (state, handing) in row.figures.each() {
                let numbers = [handing.p50, handing.p99, handing.p999, handing.min].map(figure);
                let ratios = [handing.ratio_to_two_lines, handing.ratio_to_array_queue];
                let mut cells = vec![row.contestant.name().to_owned(), state.to_owned()];
                cells.extend(numbers);
                cells.extend(ratios.map(figure_or_dash));
                table.push(cells);
            }
        }
        table.print();
        report::say(format_args!(
            "\nWindlass waits as the library does (in batches: {PAUSES:?} pauses between two looks, the \
             better counts),\nthe others with {PAUSES:?} pauses, the better counts. Windlass takes \
             and acknowledges; the others\nonly take."
        ));
    }
}
