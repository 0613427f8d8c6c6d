//! What a publisher pays for its subscribers: nanoseconds a message with none, 1, 4, 16 and 64 of
//! them.
//!
//! Only the publisher is timed. The subscribers live in four processes on the other core and sleep
//! while it publishes, so that what grows with their number is the publisher's own work and nothing
//! else:
//!
//! * **lossy, idle**: they hold their subscription and never look.
//! * **lossy, drained**: before each repetition they take everything that is there.
//! * **reliable, bursts**: after every burst of 128 they take all of it.
//!
//! The floor is the bare ring with nobody reading.

use std::time::Instant;

use serde::Serialize;

use super::bare_ring::BareSender;
use super::driver::{Driver, Sample};
use super::failure::{During, Failure, Result};
use super::payload::{Copied, Fill};
use super::pingpong::State;
use super::report::{self, figure, figure_or_dash, median, smallest, ByState, Setting};
use super::transport::{Carrier, Filling, Sender, Spec, Waiting};
use super::windlass::{self, LOSSY, RELIABLE, SUBSCRIBERS_MAX};
use super::wire::Operation;
use super::Run;

/// How many subscribers.
const COUNTS: [u32; 5] = [0, 1, 4, 16, SUBSCRIBERS_MAX];

/// Processes they live in.
const PEERS: usize = 4;

/// Bytes of a message.
const BYTES: usize = 64;

/// Messages of one repetition: enough to recycle segments of the default size.
const MESSAGES: u64 = 50_000;

/// Messages of a burst, and bursts of a repetition.
const BURST: u64 = 128;
const BURSTS: u64 = 40;

/// What the subscribers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    LossyIdle,
    LossyDrained,
    ReliableBursts,
}

const MODES: [Mode; 3] = [Mode::LossyIdle, Mode::LossyDrained, Mode::ReliableBursts];

impl Mode {
    fn policy(self) -> u64 {
        match self {
            Self::LossyIdle | Self::LossyDrained => LOSSY,
            Self::ReliableBursts => RELIABLE,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::LossyIdle => "lossy, idle",
            Self::LossyDrained => "lossy, drained",
            Self::ReliableBursts => "reliable, bursts of 128",
        }
    }
}

/// The figures of one mode and count in one state: nanoseconds a message.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    repetitions: usize,
    median: f64,
    min: f64,
    /// Against the same mode with one subscriber.
    ratio_to_one: Option<f64>,
    ratio_of_minima: Option<f64>,
}

/// One mode with one number of subscribers; no mode is the bare ring.
#[derive(Debug, Serialize)]
struct Row {
    mode: Option<Mode>,
    subscribers: u32,
    #[serde(flatten)]
    figures: ByState<Figures>,
}

/// The fan-out report.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    setting: Setting,
    bytes: usize,
    cases: Vec<Row>,
}

/// Measures and prints.
pub fn run(run: &Run) -> Result<()> {
    let progress = run.progress((MODES.len() * COUNTS.len()) as u64 * u64::from(run.repetitions));
    let mut driver = Driver::start(run.cores, vec![vec![floor_spec()]], PEERS)?;
    let mut rows = vec![Vec::new(); MODES.len() * COUNTS.len()];
    let floor = measure_floor(run, &mut driver)?;
    let modes = if run.baselines { &[] } else { &MODES[..] };
    for (of_mode, &mode) in rows.chunks_mut(COUNTS.len()).zip(modes) {
        let mut stage = Stage::open(&driver, mode)?;
        // Counts in turn within each repetition: all of them meet the same states of the machine.
        for repetition in 0..=run.repetitions {
            for (samples, &count) in of_mode.iter_mut().zip(&COUNTS) {
                stage.seat(&mut driver, count);
                let sample = driver.between(|driver| stage.play(driver))?;
                // The first repetition touches the memory and does not count.
                if repetition > 0 {
                    samples.push(sample);
                    progress.inc(1);
                }
            }
        }
        stage.seat(&mut driver, 0);
    }
    progress.finish_and_clear();
    let all = [floor.clone(), rows.concat()].concat();
    let setting = run.setting("fanout", report::summary_of_pings(&all));
    let mut cases = vec![row(None, 0, &floor)];
    for (of_mode, &mode) in rows.chunks(COUNTS.len()).zip(&MODES) {
        let mut of_mode: Vec<Row> =
            of_mode.iter().zip(&COUNTS).map(|(samples, &n)| row(Some(mode), n, samples)).collect();
        compare(&mut of_mode);
        cases.extend(of_mode);
    }
    let report = Report { setting, bytes: BYTES, cases };
    if run.json {
        report::print_json(&report)
    } else {
        report.print();
        Ok(())
    }
}

fn floor_spec() -> Spec {
    Spec {
        carrier: Carrier::BareRing,
        filling: Filling::Copied,
        waiting: Waiting::Impatient,
        bytes: BYTES,
        both_ways: false,
        area: 0,
        name: "floor".to_owned(),
    }
}

fn measure_floor(run: &Run, driver: &mut Driver) -> Result<Vec<Sample<f64>>> {
    let spec = driver.group(0)[0].clone();
    let mut sender = BareSender::<Copied>::unread(driver.memory(), &spec)?;
    let mut repetition = |_: &mut Driver| {
        let begin = Instant::now();
        (0..MESSAGES).try_for_each(|sequence| sender.send(sequence))?;
        Ok(begin.elapsed().as_nanos() as f64 / MESSAGES as f64)
    };
    let samples: Result<Vec<_>> =
        (0..=run.repetitions).map(|_| driver.between(&mut repetition)).collect();
    Ok(samples?.split_off(1))
}

/// A publisher and its audience.
struct Stage {
    mode: Mode,
    publisher: ::windlass::Publisher<::windlass::Raw>,
    message: Copied,
    sent: u64,
}

impl Stage {
    fn open(driver: &Driver, mode: Mode) -> Result<Self> {
        let publisher = windlass::fan_out_publisher(driver.bus(), mode.policy())?;
        Ok(Self { mode, publisher, message: Copied::new(BYTES), sent: 0 })
    }

    /// Spreads `count` subscriptions over the peers.
    fn seat(&self, driver: &mut Driver, count: u32) {
        let peers = driver.peers() as u64;
        let share = |peer| (u64::from(count) + peers - 1 - peer) / peers;
        let shares: Vec<u64> = (0..peers).map(share).collect();
        driver.call_all(Operation::Subscribe, self.mode.policy(), &shares);
    }

    /// One repetition: nanoseconds a message.
    fn play(&mut self, driver: &mut Driver) -> Result<f64> {
        match self.mode {
            Mode::LossyIdle => self.burst(MESSAGES),
            Mode::LossyDrained => {
                self.drain(driver)?;
                self.burst(MESSAGES)
            }
            Mode::ReliableBursts => {
                let mut total = 0.0;
                for _ in 0..BURSTS {
                    total += self.burst(BURST)?;
                    self.drain(driver)?;
                }
                Ok(total / BURSTS as f64)
            }
        }
    }

    fn burst(&mut self, count: u64) -> Result<f64> {
        let begin = Instant::now();
        for sequence in self.sent..self.sent + count {
            self.publisher.publish(self.message.made(sequence)).during("cannot publish")?;
        }
        let elapsed = begin.elapsed();
        self.sent += count;
        Ok(elapsed.as_nanos() as f64 / count as f64)
    }

    fn drain(&self, driver: &mut Driver) -> Result<()> {
        let counts = vec![0; driver.peers()];
        let mismatches = driver.call_all(Operation::Drain, self.mode.policy(), &counts);
        if mismatches == 0 {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{mismatches} messages were lost, torn or out of order; no figure of this run counts"
        )))
    }
}

fn row(mode: Option<Mode>, subscribers: u32, samples: &[Sample<f64>]) -> Row {
    Row { mode, subscribers, figures: ByState::of(samples, figures) }
}

fn figures(samples: &[&Sample<f64>]) -> Figures {
    let ns: Vec<f64> = samples.iter().map(|sample| sample.value).collect();
    Figures {
        repetitions: samples.len(),
        median: median(&ns),
        min: smallest(&ns),
        ratio_to_one: None,
        ratio_of_minima: None,
    }
}

/// Takes every count against one subscriber.
fn compare(rows: &mut [Row]) {
    let Some(one) = rows.iter().find(|row| row.subscribers == 1) else { return };
    let one = one.figures.clone();
    for row in rows {
        for state in State::ALL {
            let pair = one.get(state).zip(row.figures.get_mut(state));
            let Some((one, figures)) = pair else { continue };
            figures.ratio_to_one = Some(figures.median / one.median);
            figures.ratio_of_minima = Some(figures.min / one.min);
        }
    }
}

impl Report {
    fn print(&self) {
        self.setting.print();
        let columns = ["transport", "subscribers", "state", "median", "min", "× one", "min / min"];
        let title = format!("Publisher's cost of a message of {} B, ns", self.bytes);
        let mut table = report::table(&title, &columns);
        for row in &self.cases {
            for (state, figures) in row.figures.each() {
                table.push(vec![
                    row.mode.map_or("bare ring, nobody reads", Mode::name).to_owned(),
                    row.subscribers.to_string(),
                    state.to_owned(),
                    figure(figures.median),
                    figure(figures.min),
                    figure_or_dash(figures.ratio_to_one),
                    figure_or_dash(figures.ratio_of_minima),
                ]);
            }
        }
        table.print();
    }
}
