//! The process that measures: its peer, its ends of the open cases, and one repetition of each
//! kind.
//!
//! Every repetition stands between two looks at the machine. The look behind one repetition is the
//! look before the next, so a chain of repetitions costs one look each.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Instant;

use hdrhistogram::Histogram;
use nix::unistd::Pid;

use super::bare_ring::RING_BYTES;
use super::cores;
use super::failure::{During, Failure, Result};
use super::peer::{self, Plan};
use super::pingpong::{Ping, Pinger};
use super::report::{median, smallest};
use super::transport::{self, Carrier, Context, End, Side, Spec};
use super::watch::Watch;
use super::windlass::{self, Bus};
use super::wire::{Operation, Wire, CONTROL_BYTES};
use crate::memory::Memory;

/// Rounds before a latency is measured: both processes are awake and their code is in the cache.
const WARM_ROUNDS: u32 = 300;

/// Rounds of one timed batch.
const BATCH_ROUNDS: u32 = 100;

/// A value between two looks at the machine.
#[derive(Clone, Copy, Debug)]
pub struct Sample<T> {
    /// The look before.
    pub before: Ping,
    /// The look behind.
    pub after: Ping,
    /// What was measured between them.
    pub value: T,
}

/// One repetition of a latency case, in one-way nanoseconds.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// The batch in the middle, without a clock inside.
    pub median: f64,
    /// The fastest batch.
    pub min: f64,
    /// Percentiles of single rounds, each of which reads the clock once.
    pub p50: f64,
    /// As above.
    pub p99: f64,
    /// As above.
    pub p999: f64,
    /// The slowest single round.
    pub max: f64,
}

/// The driver of one run.
pub struct Driver {
    // Before the watch, so that nothing of this process is in the directory when it is removed.
    ends: Vec<Box<dyn End>>,
    bus: Bus,
    wires: Vec<Wire>,
    sockets: Vec<UnixStream>,
    groups: Vec<Vec<Spec>>,
    pinger: Pinger,
    last: Option<Ping>,
    watch: Watch,
}

impl Driver {
    /// Starts `peers` peers on the second core, and binds this process to the first.
    pub fn start(cores: (usize, usize), mut groups: Vec<Vec<Spec>>, peers: usize) -> Result<Self> {
        let bytes = lay_out(&mut groups);
        Self::start_as(cores, groups, bytes, peers, peers > 1)
    }

    /// Starts one peer that does nothing but answer when the machine is looked at, and sleeps meanwhile: others work.
    pub fn start_idle(cores: (usize, usize)) -> Result<Self> {
        Self::start_as(cores, Vec::new(), CONTROL_BYTES, 1, true)
    }

    /// Where the bus of this run is.
    pub fn bus_path(&self) -> PathBuf {
        self.watch.directory().join("bus")
    }

    fn start_as(
        cores: (usize, usize),
        groups: Vec<Vec<Spec>>,
        bytes: usize,
        peers: usize,
        sleepy: bool,
    ) -> Result<Self> {
        let watch = Watch::start()?;
        cores::pin(cores.0)?;
        let path = watch.directory().join("bus");
        let bus = windlass::open(&path)?;
        let driver = Pid::this().as_raw();
        let plan = Plan { driver, core: cores.1, sleepy, bus: path, groups: groups.clone() };
        let mut wires = Vec::new();
        let mut sockets = Vec::new();
        for _ in 0..peers {
            let memory = Memory::create(bytes)?;
            sockets.push(peer::start(&watch, &plan, &memory)?);
            wires.push(Wire::new(memory, false));
        }
        let (ends, pinger, last) = (Vec::new(), Pinger::default(), None);
        Ok(Self { ends, bus, wires, sockets, groups, pinger, last, watch })
    }

    /// The cases of a group.
    pub fn group(&self, group: usize) -> &[Spec] {
        &self.groups[group]
    }

    /// The bus of this run.
    pub fn bus(&self) -> &Bus {
        &self.bus
    }

    /// The shared memory of the first peer.
    pub fn memory(&self) -> &Memory {
        self.wires[0].memory()
    }

    /// Opens both ends of every case of a group.
    pub fn open(&mut self, group: usize) -> Result<()> {
        let memory = self.wires[0].memory();
        let context = Context { memory, socket: &self.sockets[0], bus: &self.bus };
        for spec in &self.groups[group] {
            if spec.carrier == Carrier::BareRing {
                // The consumed position and the first length word of both rings: all that must be
                // zero.
                memory.clear(spec.area, 4096 + 8);
                if spec.both_ways {
                    memory.clear(spec.area + RING_BYTES, 4096 + 8);
                }
            }
            self.ends.push(transport::open(&context, spec, Side::Driver)?);
        }
        self.wires[0].call(Operation::Open, group as u64, 0);
        Ok(())
    }

    /// Closes them.
    pub fn close(&mut self) {
        self.wires[0].call(Operation::Close, 0, 0);
        self.ends.clear();
    }

    /// Runs one repetition between two looks at the machine.
    pub fn between<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<Sample<T>> {
        let before = match self.last.take() {
            Some(look) => look,
            None => self.pinger.look(&mut self.wires[0])?,
        };
        let value = run(self)?;
        let after = self.pinger.look(&mut self.wires[0])?;
        self.last = Some(after);
        Ok(Sample { before, after, value })
    }

    /// One repetition of a latency case of the open group.
    pub fn latency(&mut self, case: usize, batches: u32, rounds: u32) -> Result<Latency> {
        let total = WARM_ROUNDS + batches * BATCH_ROUNDS + rounds;
        self.wires[0].command(Operation::Echo, case as u64, u64::from(total));
        let end = &mut self.ends[case];
        let mut one_way = Vec::with_capacity(batches as usize);
        let mut stamps = Vec::with_capacity(rounds as usize + 1);
        end.batches(1, WARM_ROUNDS, &mut one_way)?;
        one_way.clear();
        end.batches(batches, BATCH_ROUNDS, &mut one_way)?;
        end.stamps(rounds, &mut stamps)?;
        let answer = self.wires[0].wait();
        self.check(case, answer)?;
        let single = histogram(&stamps)?;
        let percentile = |quantile| single.value_at_quantile(quantile) as f64 / 2.0;
        Ok(Latency {
            median: median(&one_way),
            min: smallest(&one_way),
            p50: percentile(0.5),
            p99: percentile(0.99),
            p999: percentile(0.999),
            max: single.max() as f64 / 2.0,
        })
    }

    /// One repetition of a throughput case of the open group: nanoseconds a message, until all are
    /// received.
    pub fn throughput(&mut self, case: usize, count: u64) -> Result<f64> {
        self.wires[0].command(Operation::Sink, case as u64, count);
        let begin = Instant::now();
        self.ends[case].source(count)?;
        let answer = self.wires[0].wait();
        let elapsed = begin.elapsed();
        self.check(case, answer)?;
        Ok(elapsed.as_nanos() as f64 / count as f64)
    }

    /// Sends a command to every peer and waits for all; returns the sum of the answers.
    pub fn call_all(&mut self, operation: Operation, which: u64, counts: &[u64]) -> u64 {
        for (wire, &count) in self.wires.iter_mut().zip(counts) {
            wire.command(operation, which, count);
        }
        self.wires.iter_mut().map(Wire::wait).sum()
    }

    /// How many peers there are.
    pub fn peers(&self) -> usize {
        self.wires.len()
    }

    fn check(&self, case: usize, mismatches_of_peer: u64) -> Result<()> {
        let mismatches = mismatches_of_peer + self.ends[case].mismatches();
        if mismatches == 0 {
            return Ok(());
        }
        Err(Failure::new(format!(
            "{mismatches} messages were lost, torn or out of order; no figure of this run counts"
        )))
    }
}

/// Gives every bare ring of a group its area, and returns the bytes that the largest group needs.
fn lay_out(groups: &mut [Vec<Spec>]) -> usize {
    let mut end_max = CONTROL_BYTES;
    for group in groups {
        let mut end = CONTROL_BYTES;
        for spec in group.iter_mut().filter(|spec| spec.carrier == Carrier::BareRing) {
            spec.area = end;
            end += RING_BYTES * if spec.both_ways { 2 } else { 1 };
        }
        end_max = end_max.max(end);
    }
    end_max
}

/// The times between neighbours, in nanoseconds of a whole round.
fn histogram(stamps: &[Instant]) -> Result<Histogram<u64>> {
    let mut histogram = Histogram::new(3).during("cannot make a histogram")?;
    for pair in stamps.windows(2) {
        let round = u64::try_from(pair[1].duration_since(pair[0]).as_nanos()).unwrap_or(u64::MAX);
        histogram.record(round.max(1)).during("cannot record a round")?;
    }
    Ok(histogram)
}
