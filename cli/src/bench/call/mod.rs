//! The round trip of a call, beside the bare cache line and pairs of channels, and how many calls a second several
//! clients and servers make.
//!
//! ```text
//!   mod        what is measured, and the tables
//!   ends       a client and a server, as the loops of `transport` use them
//!   threads    pairs of channels, and crowds of clients and servers
//! ```
//!
//! All of `driver` is measured in halves of a round; here the figures are whole rounds. A round trip of the bare
//! machine is two ways of the bare ping-pong.

pub mod ends;
mod threads;

use std::time::Duration;

use serde::Serialize;

use super::driver::{Driver, Latency, Sample};
use super::failure::Result;
use super::pingpong::{Ping, Span};
use super::report::{self, figure, median, smallest, ByState, Setting};
use super::transport::{Carrier, Filling, Spec, Waiting};
use super::Run;
use threads::Kind;

/// Longest wait for a response in a crowd.
const PATIENCE: Duration = Duration::from_secs(30);

/// Bytes of a raw request and of its response.
const BYTES: usize = 64;

/// Clients and servers of the crowds.
const CROWDS: [(usize, usize); 5] = [(1, 1), (2, 1), (1, 2), (2, 2), (4, 4)];

/// The figures of one contestant in one state, in nanoseconds of a whole round.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    repetitions: usize,
    /// Median of the repetitions' median batches.
    median: f64,
    /// Fastest batch of all.
    min: f64,
    /// Medians of the repetitions' percentiles.
    p50: f64,
    p99: f64,
    p999: f64,
    /// Slowest round of all.
    max: f64,
    /// Medians of (median batch / bare ping-pong around it).
    ratio_to_one_line: f64,
    ratio_to_two_lines: f64,
}

#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    #[serde(flatten)]
    figures: ByState<Figures>,
}

/// Calls a second of a crowd.
#[derive(Debug, Serialize)]
struct Crowd {
    clients: usize,
    servers: usize,
    /// Median of the repetitions.
    calls_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    round_trips_ns: Vec<Row>,
    /// Calls that each client of a crowd has in flight.
    in_flight: usize,
    crowds: Vec<Crowd>,
}

/// Who takes part in the first table.
enum Contestant {
    /// Case of the driver.
    Service(usize),
    Channels(Kind),
}

/// Measures and prints.
pub fn run(run: &Run) -> Result<()> {
    let specs = [(Carrier::Call, Filling::Copied), (Carrier::CallTyped, Filling::Built)];
    let specs: Vec<Spec> = specs
        .into_iter()
        .filter(|(carrier, _)| run.wants(*carrier))
        .map(|(carrier, filling)| {
            let name = format!("call-{filling:?}").to_lowercase();
            let waiting = Waiting::Library;
            Spec { carrier, filling, waiting, bytes: BYTES, both_ways: true, area: 0, name }
        })
        .collect();
    let mut contestants: Vec<(&str, Contestant)> = Vec::new();
    let names = ["windlass, raw, processes", "windlass, Cap'n Proto, processes"];
    for (case, name) in names.into_iter().enumerate().take(specs.len()) {
        contestants.push((name, Contestant::Service(case)));
    }
    contestants.push(("crossbeam channels, threads", Contestant::Channels(Kind::Crossbeam)));
    contestants.push(("kanal channels, threads", Contestant::Channels(Kind::Kanal)));
    let crowds = if run.wants(Carrier::Call) { CROWDS.as_slice() } else { &[] };
    let repetitions = u64::from(run.repetitions);
    let steps = contestants.len() as u64 * (repetitions + 1) + crowds.len() as u64 * repetitions;
    let progress = run.progress(steps);
    let mut driver = Driver::start(run.cores, vec![specs], 1)?;
    driver.open(0)?;
    let (batches, rounds) = if run.quick { (16, 2_000) } else { (48, 10_000) };
    let mut samples: Vec<Vec<Sample<Latency>>> = contestants.iter().map(|_| Vec::new()).collect();
    for repetition in 0..=run.repetitions {
        for ((_, contestant), samples) in contestants.iter().zip(&mut samples) {
            progress.inc(1);
            let sample = driver.between(|driver| match contestant {
                Contestant::Service(case) => driver.latency(*case, batches, rounds),
                Contestant::Channels(kind) => {
                    threads::channels(*kind, run.cores.1, batches, rounds)
                }
            })?;
            // The first repetition touches the memory and does not count.
            if repetition > 0 {
                samples.push(sample);
            }
        }
    }
    driver.close();
    let time = Duration::from_millis(if run.quick { 100 } else { 400 });
    let path = driver.bus().path().display().to_string();
    let mut crowd_rows = Vec::new();
    for (clients, servers) in crowds.iter().copied() {
        let mut speeds = Vec::new();
        for repetition in 0..run.repetitions {
            progress.inc(1);
            let size = (clients, servers);
            speeds.push(threads::crowd(&path, size, run.cores, time, repetition)?);
        }
        let calls_per_second = median(&speeds);
        crowd_rows.push(Crowd { clients, servers, calls_per_second });
    }
    progress.finish_and_clear();
    let all: Vec<_> = samples.concat();
    let setting = run.setting("call", report::summary_of_pings(&all));
    let rows = contestants
        .iter()
        .zip(&samples)
        .map(|((name, _), samples)| Row { name, figures: ByState::of(samples, figures) })
        .collect();
    let in_flight = threads::IN_FLIGHT;
    let report = Report { setting, round_trips_ns: rows, in_flight, crowds: crowd_rows };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

fn figures(samples: &[&Sample<Latency>]) -> Figures {
    let each = |value: fn(&Latency) -> f64| -> Vec<f64> {
        samples.iter().map(|sample| 2.0 * value(&sample.value)).collect()
    };
    let ratio = |span: fn(&Ping) -> Span| {
        let ratios = samples.iter().map(|sample| {
            let (before, after) = (span(&sample.before), span(&sample.after));
            sample.value.median / f64::midpoint(before.median, after.median)
        });
        median(&ratios.collect::<Vec<_>>())
    };
    Figures {
        repetitions: samples.len(),
        median: median(&each(|value| value.median)),
        min: smallest(&each(|value| value.min)),
        p50: median(&each(|value| value.p50)),
        p99: median(&each(|value| value.p99)),
        p999: median(&each(|value| value.p999)),
        max: report::largest(&each(|value| value.max)),
        ratio_to_one_line: ratio(|ping| ping.one_line),
        ratio_to_two_lines: ratio(|ping| ping.two_lines),
    }
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let columns = [
            "contestant",
            "state",
            "median",
            "min",
            "p50",
            "p99",
            "p99.9",
            "max",
            "× one line",
            "× two lines",
        ];
        let title = format!("Round trip of a request and a response of {BYTES} B, ns");
        let mut table = report::table(&title, &columns);
        for row in &self.round_trips_ns {
            for (state, figures) in row.figures.each() {
                let numbers = [
                    figures.median,
                    figures.min,
                    figures.p50,
                    figures.p99,
                    figures.p999,
                    figures.max,
                    figures.ratio_to_one_line,
                    figures.ratio_to_two_lines,
                ];
                let mut cells = vec![row.name.to_owned(), state.to_owned()];
                cells.extend(numbers.map(figure));
                table.push(cells);
            }
        }
        table.print();
        report::say(format_args!(
            "\n× one line, × two lines: the median batch against a round trip of the bare ping-pong \
             around it.\nPercentiles include a reading of the clock. The typed message has five \
             numbers and {BYTES} B of data."
        ));
        if self.crowds.is_empty() {
            return;
        }
        let title =
            format!("Calls of {BYTES} B a second, {} in flight for each client", self.in_flight);
        let mut table = report::table(&title, &["clients", "servers", "M calls/s"]);
        for crowd in &self.crowds {
            let speed = figure(crowd.calls_per_second / 1e6);
            table.push(vec![crowd.clients.to_string(), crowd.servers.to_string(), speed]);
        }
        table.print();
    }
}
