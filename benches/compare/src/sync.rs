//! Appending records and putting them on disk: each before the next one, or all that came within a while.

use std::time::Duration;

use anyhow::Result;

use crate::disk::Traffic;
use crate::pace::{Cadence, Pace};
use crate::report::{quantile, Metric, Sample, Section};
use crate::run::Run;
use crate::stores::Plan;

const EACH_MEDIAN: Metric =
    Metric {
        name: "commit_p50_ns", title: "commit p50, µs", divisor: 1000, more_is_better: false
    };
const EACH_TAIL: Metric =
    Metric { name: "commit_p99_ns", title: "p99, µs", divisor: 1000, more_is_better: false };
const EACH_RATE: Metric =
    Metric { name: "records_per_second", title: "records/s", divisor: 1, more_is_better: true };

const EVERY_RATE: Metric = Metric {
    name: "records_per_second",
    title: "k records/s",
    divisor: 1000,
    more_is_better: true,
};
const STEP_MEDIAN: Metric = Metric {
    name: "append_of_64_p50_ns",
    title: "64 records p50, µs",
    divisor: 1000,
    more_is_better: false,
};
const STEP_TAIL: Metric =
    Metric { name: "append_of_64_p99_ns", title: "p99, µs", divisor: 1000, more_is_better: false };
const STEP_WORST: Metric =
    Metric { name: "append_of_64_max_ns", title: "max, µs", divisor: 1000, more_is_better: false };
const WRITTEN: Metric = Metric {
    name: "written_bytes_per_payload_byte",
    title: "written / payload",
    divisor: 1,
    more_is_better: false,
};

/// Runs it.
pub fn run(run: &Run, each: u64, records: u64, every_us: u64) -> Result<Vec<Section>> {
    let every = Cadence::Every(Duration::from_micros(every_us.max(1)));
    Ok(vec![one_by_one(run, each)?, every_so_often(run, records, every, every_us)?])
}

struct Outcome {
    pace: Pace,
    rate: f64,
    written: f64,
}

fn samples(
    run: &Run,
    records: u64,
    cadence: Cadence,
    values: impl Fn(&Outcome) -> Vec<f64>,
) -> Result<Vec<Sample>> {
    let plan = Plan { records, batch: 1, sync: Some(cadence) };
    let mut samples = Vec::new();
    run.rounds(|index, store, round| {
        let folder = run.folder(index)?;
        let mut writer = store.create(folder.path(), &plan)?;
        let before = Traffic::so_far()?;
        let mut pace = Pace::new(cadence);
        let ((), span) = run.cores.measure(|| writer.append_durably(0..records, &mut pace))?;
        let written = Traffic::so_far()?.written_bytes - before.written_bytes;
        writer.close()?;
        if round == 0 {
            store.open(folder.path(), &plan)?.scan(records)?;
        }
        let rate = records as f64 * 1e9 / span.took_ns;
        let written = written as f64 / plan.payload_bytes() as f64;
        let values = values(&Outcome { pace, rate, written }).into_iter().map(Some).collect();
        samples.push(Sample { store: store.name(), state: span.state, values });
        Ok(())
    })?;
    Ok(samples)
}

fn one_by_one(run: &Run, records: u64) -> Result<Section> {
    let samples = samples(run, records, Cadence::Each, |outcome| {
        let steps = &outcome.pace.steps_ns;
        vec![quantile(steps, 500), quantile(steps, 990), outcome.rate, outcome.written]
    })?;
    Ok(Section {
        title: format!("sync, each: {records} records of 128 bytes, each on disk before the next"),
        metrics: vec![&EACH_MEDIAN, &EACH_TAIL, &EACH_RATE, &WRITTEN],
        samples,
        stores: run.names(),
        notes: vec![
            "mmap, file: written with zeroes and put on disk before, then msync or fdatasync."
                .to_owned(),
        ],
    })
}

fn every_so_often(run: &Run, records: u64, cadence: Cadence, every_us: u64) -> Result<Section> {
    let samples = samples(run, records, cadence, |outcome| {
        let steps = &outcome.pace.steps_ns;
        let worst = quantile(steps, 1000);
        let (middle, tail) = (quantile(steps, 500), quantile(steps, 990));
        vec![outcome.rate, middle, tail, worst]
    })?;
    Ok(Section {
        title: format!("sync, every {every_us} µs: {records} records of 128 bytes, as fast as it goes"),
        metrics: vec![&EVERY_RATE, &STEP_MEDIAN, &STEP_TAIL, &STEP_WORST],
        samples,
        stores: run.names(),
        notes: vec![
            "Others commit in the thread that appends. Windlass syncs in the background; what is left at the end is \
             synced before the clock stops."
                .to_owned(),
        ],
    })
}
