//! The result of a soak: what was sent, received, killed and stopped, how soon survivors went on,
//! and the verdict.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::cells::CELLS;
use super::ending::Total;
use super::scenario::Run;

/// The whole result; `--json` prints it as it is.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// Every check held.
    pub ok: bool,
    /// What did not hold, in sentences; the first of them.
    pub problems: Vec<String>,
    /// How many things did not hold.
    pub problem_count: u64,
    /// The user ended it early.
    pub interrupted: bool,
    /// Draws the same victims again.
    pub seed: u64,
    pub kills_per_second: f64,
    /// How long processes were killed.
    pub seconds: f64,
    /// Where the bus was.
    pub bus: String,
    /// Processes at work at a time.
    pub processes: usize,
    /// Messages in all topics.
    pub published: u64,
    /// Messages received by all processes, each compared with what it had to be.
    pub received: u64,
    /// Payload bytes published and received.
    pub bytes: u64,
    /// Messages that lossy topics, and evictions, reported as missed.
    pub missed: u64,
    /// Processes killed, by what they were.
    pub kills: BTreeMap<&'static str, u64>,
    pub killed: u64,
    /// Processes stopped for longer than any period of the library.
    pub stops: u64,
    /// Of these: for longer than a second.
    pub long_stops: u64,
    pub taken_over_lanes: u64,
    pub reaped_subscribers: u64,
    pub evictions: u64,
    /// Messages of queues that were delivered again, each of them flagged.
    pub redelivered: u64,
    /// Blocks of ordered messages that two subscribers found to be the same.
    pub blocks_compared: u64,
    /// Views compared after they were held.
    pub views_compared: u64,
    /// How soon survivors had a new message after a death, by what was killed.
    pub recovery: Vec<RecoveryTime>,
    /// Times that were not measured, because somebody was stopped or killed meanwhile.
    pub recovery_dropped: u64,
    /// The longest of these, until the survivor went on or was killed, not counting stops.
    pub recovery_dropped_max_ns: u64,
    /// Times that the machine did not run the supervisor for more than a second.
    pub machine_stood_still: u64,
    /// What every cell did.
    pub cells: Vec<CellOutcome>,
    /// Memory of the supervisor at the beginning and at the end, in KiB.
    pub supervisor_kib: [u64; 2],
}

/// How soon survivors had a new message.
#[derive(Clone, Debug, Serialize)]
pub struct RecoveryTime {
    pub killed: &'static str,
    pub samples: u64,
    pub p50_ns: u64,
    pub p99_ns: u64,
    pub p99_9_ns: u64,
    pub max_ns: u64,
}

/// What one cell did.
#[derive(Clone, Debug, Serialize)]
pub struct CellOutcome {
    pub name: &'static str,
    pub published: u64,
    pub received: u64,
    pub bytes: u64,
    pub missed: u64,
    pub killed: u64,
    pub taken_over_lanes: u64,
    pub reaped_subscribers: u64,
    pub evictions: u64,
    /// Times that a publisher waited for room for long.
    pub waits: u64,
    pub wakes: u64,
    /// Messages of a queue that were delivered again.
    pub redelivered: u64,
    /// Times that somebody joined, created, inspected or repaired.
    pub rounds: u64,
}

/// The outcome of a run.
pub fn of(
    run: &Run,
    totals: Vec<Total>,
    (seed, kills_per_second): (u64, f64),
    elapsed: Duration,
    kib: (u64, u64),
) -> Outcome {
    let cell = |(index, total): (usize, &Total)| CellOutcome {
        name: CELLS[index].name,
        published: total.published.max(total.tally.sent),
        received: total.tally.received,
        bytes: total.tally.bytes,
        missed: total.tally.missed,
        killed: run.blows.kills[index],
        taken_over_lanes: total.taken_over,
        reaped_subscribers: total.reaped,
        evictions: total.evictions,
        waits: total.tally.full,
        wakes: total.wakes,
        redelivered: total.redelivered,
        rounds: total.tally.rounds,
    };
    let cells: Vec<_> = totals.iter().enumerate().map(cell).collect();
    let sum = |figure: fn(&CellOutcome) -> u64| cells.iter().map(figure).sum();
    let mut recovery = Vec::new();
    let mut all: Option<Histogram<u64>> = None;
    for (killed, times) in &run.recovery.times {
        recovery.push(recovery_time(killed, times));
        match &mut all {
            // They have the same bounds, so adding them cannot fail.
            Some(all) => drop(all.add(times)),
            None => all = Some(times.clone()),
        }
    }
    recovery.extend(all.map(|all| recovery_time("any", &all)));
    Outcome {
        ok: run.fault_count == 0,
        problems: run.faults.clone(),
        problem_count: run.fault_count,
        interrupted: run.interrupted,
        seed,
        kills_per_second,
        seconds: elapsed.as_secs_f64(),
        bus: run.place.path.display().to_string(),
        processes: run.crew.members.len(),
        published: sum(|cell| cell.published),
        received: sum(|cell| cell.received),
        bytes: sum(|cell| cell.bytes),
        missed: sum(|cell| cell.missed),
        kills: run.blows.by_job.clone(),
        killed: run.blows.kills.iter().sum(),
        stops: run.blows.stops,
        long_stops: run.blows.long_stops,
        taken_over_lanes: sum(|cell| cell.taken_over_lanes),
        reaped_subscribers: sum(|cell| cell.reaped_subscribers),
        evictions: sum(|cell| cell.evictions),
        redelivered: sum(|cell| cell.redelivered),
        blocks_compared: run.comparisons.iter().map(|comparison| comparison.agreed).sum(),
        views_compared: totals.iter().map(|total| total.tally.views).sum(),
        recovery,
        recovery_dropped: run.recovery.dropped,
        recovery_dropped_max_ns: run.recovery.dropped_oldest.as_nanos() as u64,
        machine_stood_still: run.recovery.away,
        cells,
        supervisor_kib: [kib.0, kib.1],
    }
}

fn recovery_time(killed: &'static str, times: &Histogram<u64>) -> RecoveryTime {
    let at = |quantile| times.value_at_quantile(quantile);
    RecoveryTime {
        killed,
        samples: times.len(),
        p50_ns: at(0.5),
        p99_ns: at(0.99),
        p99_9_ns: at(0.999),
        max_ns: times.max(),
    }
}
