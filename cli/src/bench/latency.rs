//! One-way latency between two processes: ping-pong over two one-way transports, half a round.
//!
//! The loop is closed: the next message leaves when the last one is back, so a stall is one slow
//! round and not many late ones. Batches without a clock inside give the median and the minimum;
//! single rounds, with one reading of the clock each, give the percentiles.

use serde::Serialize;

use super::driver::{Driver, Latency, Sample};
use super::failure::Result;
use super::private::{self, Private};
use super::report::{self, figure, figure_or_dash, median, size, smallest, ByState, Setting};
use super::transport::{Carrier, Filling, Spec, Waiting};
use super::Run;

const SIZES: [usize; 2] = [64, 4096];

/// Where latency is about as large as that of a system call, fewer rounds say as much.
const SOCKET_SHARE: u32 = 8;

/// The figures of one case in one state, in one-way nanoseconds.
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
    /// Median of (median batch / two-line ping-pong around it).
    ratio_to_two_lines: f64,
    /// Fastest batch / fastest two-line ping-pong.
    ratio_of_minima: f64,
}

/// One case.
#[derive(Debug, Serialize)]
struct Row {
    carrier: Carrier,
    filling: Filling,
    waiting: Waiting,
    bytes: usize,
    #[serde(flatten)]
    figures: ByState<Figures>,
}

/// The latency report.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    /// Nanoseconds of one reading of the clock: in every single round once, so half of it in the
    /// percentiles.
    clock_ns: f64,
    cases: Vec<Row>,
    /// Cap'n Proto alone, nanoseconds.
    capnp_alone: Private,
}

/// Measures and prints.
pub fn run(run: &Run) -> Result<()> {
    let groups: Vec<Vec<Spec>> = SIZES.iter().map(|&bytes| cases(run, bytes)).collect();
    let steps = groups.iter().map(Vec::len).sum::<usize>() as u64;
    let progress = run.progress(steps * u64::from(run.repetitions + 1));
    let mut driver = Driver::start(run.cores, groups.clone(), 1)?;
    let capnp_alone = private::measure(run.repetitions)?;
    let clock_ns = clock_cost();
    let mut all = Vec::new();
    let mut rows = Vec::new();
    for (group, specs) in groups.iter().enumerate() {
        driver.open(group)?;
        let mut samples: Vec<Vec<Sample<Latency>>> = vec![Vec::new(); specs.len()];
        for repetition in 0..=run.repetitions {
            for (case, spec) in specs.iter().enumerate() {
                progress.inc(1);
                let sample = driver.between(|driver| repetition_of(run, driver, case, spec))?;
                // The first repetition touches the memory and does not count.
                if repetition > 0 {
                    samples[case].push(sample);
                }
            }
        }
        driver.close();
        rows.extend(specs.iter().zip(&samples).map(|(spec, samples)| row(spec, samples)));
        all.extend(samples.concat());
    }
    progress.finish_and_clear();
    let setting = run.setting("latency", report::summary_of_pings(&all));
    let report = Report { setting, clock_ns, cases: rows, capnp_alone };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

/// The cases of one message size.
fn cases(run: &Run, bytes: usize) -> Vec<Spec> {
    let ways = [
        (Carrier::BareRing, Filling::Copied, Waiting::Impatient),
        (Carrier::BareRing, Filling::Words, Waiting::Impatient),
        (Carrier::Windlass, Filling::Copied, Waiting::Library),
        (Carrier::Windlass, Filling::Words, Waiting::Library),
        (Carrier::Windlass, Filling::Words, Waiting::Impatient),
        (Carrier::WindlassTyped, Filling::Built, Waiting::Library),
        (Carrier::UnixSocket, Filling::Copied, Waiting::Impatient),
    ];
    // The typed message has one size.
    let fits = |carrier| carrier != Carrier::WindlassTyped || bytes == SIZES[0];
    ways.into_iter()
        .filter(|&(carrier, ..)| fits(carrier) && run.wants(carrier))
        .enumerate()
        .map(|(index, (carrier, filling, waiting))| {
            let name = format!("latency-{bytes}-{index}");
            Spec { carrier, filling, waiting, bytes, both_ways: true, area: 0, name }
        })
        .collect()
}

fn repetition_of(run: &Run, driver: &mut Driver, case: usize, spec: &Spec) -> Result<Latency> {
    let share = if spec.carrier == Carrier::UnixSocket { SOCKET_SHARE } else { 1 };
    let (batches, rounds) = if run.quick { (16, 2_000) } else { (48, 10_000) };
    driver.latency(case, (batches / share).max(4), rounds / share)
}

fn row(spec: &Spec, samples: &[Sample<Latency>]) -> Row {
    let Spec { carrier, filling, waiting, bytes, .. } = *spec;
    Row { carrier, filling, waiting, bytes, figures: ByState::of(samples, figures) }
}

fn figures(samples: &[&Sample<Latency>]) -> Figures {
    let each = |value: fn(&Latency) -> f64| -> Vec<f64> {
        samples.iter().map(|sample| value(&sample.value)).collect()
    };
    let looks = |sample: &Sample<Latency>| (sample.before.two_lines, sample.after.two_lines);
    let ratios: Vec<f64> = samples
        .iter()
        .map(|sample| {
            let (before, after) = looks(sample);
            sample.value.median / f64::midpoint(before.median, after.median)
        })
        .collect();
    let bare_minima: Vec<f64> = samples
        .iter()
        .map(|sample| looks(sample))
        .map(|(before, after)| before.min.min(after.min))
        .collect();
    let min = smallest(&each(|value| value.min));
    Figures {
        repetitions: samples.len(),
        median: median(&each(|value| value.median)),
        min,
        p50: median(&each(|value| value.p50)),
        p99: median(&each(|value| value.p99)),
        p999: median(&each(|value| value.p999)),
        max: report::largest(&each(|value| value.max)),
        ratio_to_two_lines: median(&ratios),
        ratio_of_minima: min / smallest(&bare_minima),
    }
}

/// Nanoseconds of one reading of the clock.
fn clock_cost() -> f64 {
    const READINGS: u32 = 10_000;
    let begin = std::time::Instant::now();
    for _ in 0..READINGS {
        std::hint::black_box(std::time::Instant::now());
    }
    begin.elapsed().as_nanos() as f64 / f64::from(READINGS)
}

impl Report {
    fn print(&self) {
        self.setting.print();
        for &bytes in &SIZES {
            self.print_size(bytes);
        }
        let alone = self.capnp_alone;
        report::say(format_args!(
            "\n× two lines: the median batch against the bare two-line ping-pong around it; \
             beside it the\nfastest batch against the fastest. Percentiles include half a \
             reading of the clock\n({} ns a reading). Cap'n Proto alone, in private memory: \
             build {} ns, build and read\nthree fields {} ns.",
            figure(self.clock_ns),
            figure(alone.build),
            figure(alone.build_and_read)
        ));
        self.print_typed();
    }

    fn print_size(&self, bytes: usize) {
        let columns = [
            "transport",
            "payload",
            "wait",
            "state",
            "median",
            "min",
            "p50",
            "p99",
            "p99.9",
            "max",
            "× two lines",
            "min / min",
        ];
        let title = format!("One-way latency of {}, ns", size(bytes));
        let mut table = report::table(&title, &columns);
        for row in self.cases.iter().filter(|row| row.bytes == bytes) {
            for (state, figures) in row.figures.each() {
                let names = super::names(row.carrier, row.filling, row.waiting);
                let numbers = [
                    figures.median,
                    figures.min,
                    figures.p50,
                    figures.p99,
                    figures.p999,
                    figures.max,
                    figures.ratio_to_two_lines,
                    figures.ratio_of_minima,
                ];
                let mut cells: Vec<String> = names.map(str::to_owned).to_vec();
                cells.push(state.to_owned());
                cells.extend(numbers.map(figure));
                table.push(cells);
            }
        }
        table.print();
    }

    /// The typed message: what of its latency is Cap'n Proto's and what is the transport's.
    fn print_typed(&self) {
        let find = |carrier| {
            self.cases.iter().find(|row| {
                row.carrier == carrier
                    && row.bytes == SIZES[0]
                    && row.waiting == Waiting::Library
                    && row.filling != Filling::Copied
            })
        };
        let Some(typed) = find(Carrier::WindlassTyped) else { return };
        let raw = find(Carrier::Windlass);
        for (state, figures) in typed.figures.each() {
            let state_is = |name: &str| name == state;
            let raw = raw.and_then(|row| row.figures.each().find(|(name, _)| state_is(name)));
            report::say(format_args!(
                "{state}: typed {} ns one way, less Cap'n Proto alone {} ns; raw words {} ns.",
                figure(figures.median),
                figure(figures.median - self.capnp_alone.build_and_read),
                figure_or_dash(raw.map(|(_, figures)| figures.median))
            ));
        }
    }
}
