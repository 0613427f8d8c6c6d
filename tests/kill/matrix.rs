//! Every point, in every scenario that passes it, with a death and with a stop there.

use crate::cell::{self, Outcome};
use crate::figures::{show, Times};
use crate::points;
use crate::process::Fate;
use crate::scenario::{self, Scenario};
use crate::{channel, log_matrix, queue, service, tokens};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Survivors go on within this time after a death is visible.
const RECOVERY_MAX: Duration = Duration::from_millis(100);
/// How often a run that took longer is repeated: what is slow more often than not is not the machine's doing.
const REPEATS: usize = 5;
/// Runs at a time.
const WORKERS: usize = 2;

/// Points that need no run of the matrix: what they begin with, and the reason. Those of durable topics beside them.
const EXCEPTIONS: &[(&str, &str)] = &[
    (tokens::POINTS, "they have runs of their own"),
    (queue::POINTS[0], "the same"),
    (queue::POINTS[1], "the same"),
    (service::POINTS[0], "the same"),
    (service::POINTS[1], "the same"),
    (channel::POINTS[0], "the same"),
    (channel::POINTS[1], "the same"),
    (channel::POINTS[2], "the same"),
    (channel::POINTS[3], "the same"),
];

type Job = (&'static Scenario, Fate);

/// Runs the jobs, some at a time; what became of each, in order.
fn run_all(jobs: &[Job]) -> Vec<Outcome> {
    let next = AtomicUsize::new(0);
    let outcomes = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| loop {
                // Relaxed: only a number that nobody else gets.
                let index = next.fetch_add(1, Relaxed);
                let Some((scenario, fate)) = jobs.get(index) else { return };
                let outcome = cell::run(scenario, fate);
                for fault in &outcome.faults {
                    show(&format!("FAULT {}, {fate:?}: {fault}", scenario.name));
                }
                outcomes.lock().expect("no run panics").insert(index, outcome);
            });
        }
    });
    outcomes.into_inner().expect("no run panics").into_values().collect()
}

/// What to interrupt: the points that each scenario passed when it was left alone. A death at the
/// first pass, in the middle and at the last one, which is often that of somebody who leaves; and a
/// stop in the middle.
fn jobs_of(scenario: &'static Scenario, hits: &BTreeMap<String, u32>) -> Vec<Job> {
    let mut jobs = Vec::new();
    let in_focus = |step: &str| scenario.focus.iter().any(|focus| step.starts_with(focus));
    for (step, last) in hits.iter().filter(|(step, _)| in_focus(step)) {
        let middle = last.div_ceil(2);
        if scenario.kills {
            let passes = BTreeSet::from([1, middle, *last]);
            jobs.extend(passes.iter().map(|hit| (scenario, Fate::Kill(step.clone(), *hit))));
        }
        jobs.push((scenario, Fate::Stop(step.clone(), middle)));
    }
    jobs
}

#[derive(Default)]
struct Summary {
    killed: BTreeMap<String, BTreeSet<&'static str>>,
    stopped: BTreeMap<String, BTreeSet<&'static str>>,
    kills: usize,
    stops: usize,
    named: usize,
    missed: usize,
    faults: usize,
    first: Times,
    laps: Times,
    slowest: Vec<(Duration, Job)>,
}

impl Summary {
    fn enter(&mut self, (scenario, fate): &Job, outcome: &Outcome) {
        self.faults += outcome.faults.len();
        if !outcome.reached {
            self.missed += usize::from(!matches!(fate, Fate::Live));
            return;
        }
        match fate {
            Fate::Kill(step, _) => {
                self.kills += 1;
                self.killed.entry(step.clone()).or_default().insert(scenario.name);
                if let Some(time) = outcome.first {
                    self.first.add(time);
                    self.slowest.push((time, (scenario, fate.clone())));
                }
                outcome.laps.iter().for_each(|time| self.laps.add(*time));
            }
            Fate::Stop(step, _) => {
                self.stops += 1;
                self.named += usize::from(outcome.named);
                self.stopped.entry(step.clone()).or_default().insert(scenario.name);
            }
            Fate::Live | Fate::Quiet => {}
        }
    }

    fn show(&mut self, points: &BTreeSet<String>) {
        for point in points {
            let count = |of: &BTreeMap<String, BTreeSet<_>>| of.get(point).map_or(0, BTreeSet::len);
            let (killed, stopped) = (count(&self.killed), count(&self.stopped));
            show(&format!("  {point:<16} killed in {killed} scenarios, stopped in {stopped}"));
        }
        show(&format!("kills at points: {}; stops at points: {}", self.kills, self.stops));
        show(&format!("stops that held a publisher up, which named them: {}", self.named));
        show(&format!("runs that did not come by their point: {}", self.missed));
        show(&format!("until all survivors have a new message: {}", self.first));
        self.slowest.sort_by_key(|(time, _)| *time);
        for (time, (scenario, fate)) in self.slowest.iter().rev().take(8) {
            show(&format!("  {time:?}: {}, {fate:?}", scenario.name));
        }
        show(&format!("until two laps of a lane are published:  {}", self.laps));
    }
}

/// The runs that are mostly too slow when they are repeated, with nothing beside them.
fn slow_ones(summary: &mut Summary) -> Vec<String> {
    let slow = summary.slowest.iter().filter(|(time, _)| *time > RECOVERY_MAX);
    let slow: Vec<Job> = slow.map(|(_, job)| job.clone()).collect();
    let too_slow = |(scenario, fate): &Job, faults: &mut usize| {
        let outcome = cell::run(scenario, fate);
        *faults += outcome.faults.len();
        outcome.first.is_some_and(|time| time > RECOVERY_MAX)
    };
    // More often slow than not: a stall that needs luck shows as well.
    let stays_slow = |job: &Job| {
        let slow = (0..REPEATS).filter(|_| too_slow(job, &mut summary.faults)).count();
        slow > REPEATS / 2
    };
    slow.into_iter()
        .filter(stays_slow)
        .map(|(scenario, fate)| format!("{}, {fate:?}", scenario.name))
        .collect()
}

/// Runs the matrix; of a scenario that `WINDLASS_SCENARIO` names a part of, if it is set.
pub fn run() {
    let began = Instant::now();
    let points = points::all();
    let mut summary = Summary::default();
    let only = std::env::var("WINDLASS_SCENARIO").unwrap_or_default();
    let chosen = scenario::ALL.iter().filter(|scenario| scenario.name.contains(&only));
    let probes: Vec<Job> = chosen.map(|scenario| (scenario, Fate::Live)).collect();
    let mut jobs = Vec::new();
    for (probe, outcome) in probes.iter().zip(run_all(&probes)) {
        summary.enter(probe, &outcome);
        jobs.extend(jobs_of(probe.0, &outcome.hits));
    }
    show(&format!("{} scenarios probed in {:?}", probes.len(), began.elapsed()));
    for (job, outcome) in jobs.iter().zip(run_all(&jobs)) {
        summary.enter(job, &outcome);
    }
    summary.show(&points);
    let slow = slow_ones(&mut summary);
    show(&format!("the matrix took {:?}", began.elapsed()));
    let names = EXCEPTIONS.iter().map(|(name, _)| *name).chain(log_matrix::POINTS.iter().copied());
    let names: Vec<&str> = names.collect();
    let excepted = |point: &&String| names.iter().any(|name| point.starts_with(name));
    let missing = |of: &BTreeMap<String, BTreeSet<_>>| {
        let missing = points.iter().filter(|point| !of.contains_key(*point));
        missing.filter(|point| !excepted(point)).cloned().collect::<Vec<_>>()
    };
    let (killed, stopped) = (missing(&summary.killed), missing(&summary.stopped));
    if only.is_empty() {
        assert!(killed.is_empty(), "nobody was killed at these points: {killed:?}");
        assert!(stopped.is_empty(), "nobody was stopped at these points: {stopped:?}");
    }
    assert_eq!(summary.faults, 0, "the faults are above");
    assert!(slow.is_empty(), "recovery mostly takes more than {RECOVERY_MAX:?}: {slow:?}");
}
