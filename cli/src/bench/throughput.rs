//! Messages a second from one process to another, until the last one is received and checked.
//!
//! The cases of one size run in turn, so that each meets the same states of the machine, and the
//! bare ring is among them: it is what every ratio is taken against.

use serde::Serialize;

use super::driver::{Driver, Sample};
use super::failure::Result;
use super::memcpy::{self, Copying};
use super::pingpong::State;
use super::private::{self, Private};
use super::report::{self, figure, figure_or_dash, median, size, smallest, ByState, Setting};
use super::transport::{Carrier, Filling, Spec, Waiting};
use super::windlass::{self, TypedCost};
use super::Run;

const SIZES: [usize; 4] = [64, 1 << 10, 64 << 10, 1 << 20];

/// Bytes of payload in one repetition, within the bounds below.
const REPETITION_BYTES: usize = 256 << 20;

/// Messages in one repetition: some milliseconds at the speed of the bare ring.
const MESSAGES: std::ops::RangeInclusive<usize> = 256..=1_000_000;

/// A socket moves about a twentieth of the messages in the same time.
const SOCKET_SHARE: u64 = 20;

/// The figures of one case in one state.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    repetitions: usize,
    /// Millions of messages a second, in the repetition in the middle.
    million_per_second: f64,
    /// The same in the fastest.
    million_per_second_best: f64,
    gigabytes_per_second: f64,
    gigabytes_per_second_best: f64,
    /// Against the bare ring, written the same way, with the better of its receivers, in the same
    /// state.
    ratio_to_bare_ring: Option<f64>,
    ratio_of_bests: Option<f64>,
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

/// The throughput report.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    memcpy: Vec<Copying>,
    cases: Vec<Row>,
    /// Cap'n Proto alone, nanoseconds.
    capnp_alone: Private,
    /// The same message through a topic, on one core.
    typed_cost: Option<TypedCost>,
    /// What windlass adds: the cost through a topic against Cap'n Proto alone.
    typed_ratio: Option<f64>,
}

/// Measures and prints.
pub fn run(run: &Run) -> Result<()> {
    let groups: Vec<Vec<Spec>> = SIZES.iter().map(|&bytes| cases(run, bytes)).collect();
    let steps = groups.iter().map(Vec::len).sum::<usize>() as u64;
    let progress = run.progress(steps * u64::from(run.repetitions + 1));
    let mut driver = Driver::start(run.cores, groups.clone(), 1)?;
    let memcpy = memcpy::measure(run.repetitions);
    let capnp_alone = private::measure(run.repetitions)?;
    let typed_cost = run
        .wants(Carrier::WindlassTyped)
        .then(|| windlass::typed_cost(driver.bus(), run.repetitions))
        .transpose()?;
    let mut all = Vec::new();
    let mut rows = Vec::new();
    for (group, specs) in groups.iter().enumerate() {
        driver.open(group)?;
        let mut samples: Vec<Vec<Sample<f64>>> = vec![Vec::new(); specs.len()];
        for repetition in 0..=run.repetitions {
            for (case, spec) in specs.iter().enumerate() {
                progress.inc(1);
                let count = messages(run, spec);
                let sample = driver.between(|driver| driver.throughput(case, count))?;
                // The first repetition touches the memory and does not count.
                if repetition > 0 {
                    samples[case].push(sample);
                }
            }
        }
        driver.close();
        let mut of_size: Vec<Row> = specs.iter().zip(&samples).map(|(s, v)| row(s, v)).collect();
        compare(&mut of_size);
        rows.extend(of_size);
        all.extend(samples.concat());
    }
    progress.finish_and_clear();
    let setting = run.setting("throughput", report::summary_of_pings(&all));
    let typed_ratio = typed_cost.map(|cost| cost.median / capnp_alone.build_and_read);
    let report = Report { setting, memcpy, cases: rows, capnp_alone, typed_cost, typed_ratio };
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
        (Carrier::BareRing, Filling::Copied, Waiting::Patient),
        (Carrier::BareRing, Filling::Stamped, Waiting::Impatient),
        (Carrier::BareRing, Filling::Stamped, Waiting::Patient),
        (Carrier::Windlass, Filling::Copied, Waiting::Library),
        (Carrier::Windlass, Filling::Copied, Waiting::Batches),
        (Carrier::Windlass, Filling::Stamped, Waiting::Library),
        (Carrier::Windlass, Filling::Stamped, Waiting::Batches),
        (Carrier::WindlassTyped, Filling::Built, Waiting::Library),
        (Carrier::WindlassTyped, Filling::Built, Waiting::Batches),
        (Carrier::UnixSocket, Filling::Copied, Waiting::Impatient),
    ];
    // The typed message has one size.
    let fits = |carrier| carrier != Carrier::WindlassTyped || bytes == SIZES[0];
    ways.into_iter()
        .filter(|&(carrier, ..)| fits(carrier) && run.wants(carrier))
        .enumerate()
        .map(|(index, (carrier, filling, waiting))| {
            let name = format!("throughput-{bytes}-{index}");
            Spec { carrier, filling, waiting, bytes, both_ways: false, area: 0, name }
        })
        .collect()
}

fn messages(run: &Run, spec: &Spec) -> u64 {
    let budget = if run.quick { REPETITION_BYTES / 4 } else { REPETITION_BYTES };
    let most = if run.quick { *MESSAGES.end() / 4 } else { *MESSAGES.end() };
    let count = (budget / spec.bytes).clamp(*MESSAGES.start(), most) as u64;
    if spec.carrier == Carrier::UnixSocket {
        (count / SOCKET_SHARE).max(64)
    } else {
        count
    }
}

fn row(spec: &Spec, samples: &[Sample<f64>]) -> Row {
    let Spec { carrier, filling, waiting, bytes, .. } = *spec;
    let figures = ByState::of(samples, |chosen| figures(bytes, chosen));
    Row { carrier, filling, waiting, bytes, figures }
}

fn figures(bytes: usize, samples: &[&Sample<f64>]) -> Figures {
    let ns: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    let (middle, best) = (median(&ns), smallest(&ns));
    Figures {
        repetitions: samples.len(),
        million_per_second: 1e3 / middle,
        million_per_second_best: 1e3 / best,
        gigabytes_per_second: bytes as f64 / middle,
        gigabytes_per_second_best: bytes as f64 / best,
        ratio_to_bare_ring: None,
        ratio_of_bests: None,
    }
}

/// Takes every raw case against the bare ring that is written the same way, in the same state:
/// against the faster of its two receivers, because a patient one leaves a ring of a few large
/// messages full.
fn compare(rows: &mut [Row]) {
    for state in State::ALL {
        for filling in [Filling::Copied, Filling::Stamped] {
            let same = |row: &Row| row.filling == filling;
            let bare = rows.iter().filter(|row| row.carrier == Carrier::BareRing && same(row));
            let bare: Vec<Figures> =
                bare.filter_map(|row| row.figures.get(state)).cloned().collect();
            let middle = largest_of(&bare, |figures| figures.million_per_second);
            let best = largest_of(&bare, |figures| figures.million_per_second_best);
            for row in rows.iter_mut().filter(|row| same(row)) {
                let Some(figures) = row.figures.get_mut(state) else { continue };
                figures.ratio_to_bare_ring = Some(figures.million_per_second / middle);
                figures.ratio_of_bests = Some(figures.million_per_second_best / best);
            }
        }
    }
}

fn largest_of(figures: &[Figures], value: fn(&Figures) -> f64) -> f64 {
    report::largest(&figures.iter().map(value).collect::<Vec<_>>())
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let mut copies = report::table("One core's memcpy, GB/s", &["size", "median", "best"]);
        for copying in &self.memcpy {
            let numbers = [copying.gigabytes_per_second, copying.best].map(figure);
            copies.push([vec![size(copying.bytes)], numbers.to_vec()].concat());
        }
        copies.print();
        SIZES.iter().for_each(|&bytes| self.print_size(bytes));
        report::say(format_args!(
            "\n× bare ring: against the bare ring written the same way, with the better of its two \
             receivers; the\nmedians, and the bests.\nTyped, on one core: {} ns a message through \
             a topic, {} ns for Cap'n Proto alone: {} ×.",
            figure_or_dash(self.typed_cost.map(|cost| cost.median)),
            figure(self.capnp_alone.build_and_read),
            figure_or_dash(self.typed_ratio)
        ));
    }

    fn print_size(&self, bytes: usize) {
        let columns = [
            "transport",
            "payload",
            "wait",
            "state",
            "M/s",
            "best",
            "GB/s",
            "best",
            "× bare ring",
            "best / best",
        ];
        let mut table = report::table(&format!("Throughput of {}", size(bytes)), &columns);
        for row in self.cases.iter().filter(|row| row.bytes == bytes) {
            for (state, figures) in row.figures.each() {
                let names = super::names(row.carrier, row.filling, row.waiting);
                let mut cells: Vec<String> = names.map(str::to_owned).to_vec();
                cells.push(state.to_owned());
                cells.push(figure(figures.million_per_second));
                cells.push(figure(figures.million_per_second_best));
                cells.push(figure(figures.gigabytes_per_second));
                cells.push(figure(figures.gigabytes_per_second_best));
                cells.push(figure_or_dash(figures.ratio_to_bare_ring));
                cells.push(figure_or_dash(figures.ratio_of_bests));
                table.push(cells);
            }
        }
        table.print();
    }
}
