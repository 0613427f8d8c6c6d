//! Opening a large store of which nothing is in memory, and reading its last record.
//!
//! The stores are made one after the other, each removed before the next: together they would need too much room.

use std::time::Instant;

use anyhow::{Context, Result};

use crate::disk::{self, Traffic};
use crate::record::BYTES;
use crate::report::{Metric, Sample, Section};
use crate::run::Run;
use crate::stores::{Plan, Store};

const BOTH: Metric = Metric {
    name: "open_and_read_last_ns",
    title: "open and read last, ms",
    divisor: 1_000_000,
    more_is_better: false,
};
const OPEN: Metric =
    Metric { name: "open_ns", title: "open, ms", divisor: 1_000_000, more_is_better: false };
const READ: Metric =
    Metric { name: "disk_read_bytes", title: "KiB read", divisor: 1024, more_is_better: false };

/// Runs it.
pub fn run(run: &Run, gib: f64) -> Result<Vec<Section>> {
    let records = ((gib * f64::from(1 << 30)) as u64 / BYTES as u64).max(1);
    let plan = Plan { records, batch: 1000, sync: None };
    let mut samples = Vec::new();
    for (index, store) in run.stores.iter().enumerate() {
        open_one(run, index, store.as_ref(), &plan, &mut samples).with_context(|| store.name())?;
    }
    run.tell("");
    let title = format!("open: {gib} GiB in records of 128 bytes, none of it in memory");
    let notes =
        vec!["All were closed in order before. A file and a mapping have nothing to open."
            .to_owned()];
    let metrics = vec![&BOTH, &OPEN, &READ];
    Ok(vec![Section { title, metrics, samples, stores: run.names(), notes }])
}

fn open_one(
    run: &Run,
    index: usize,
    store: &dyn Store,
    plan: &Plan,
    samples: &mut Vec<Sample>,
) -> Result<()> {
    run.tell(&format!("filling: {}", store.name()));
    let folder = run.folder(index)?;
    let mut writer = store.create(folder.path(), plan)?;
    writer.append(0..plan.records)?;
    writer.close()?;
    for round in 0..run.rounds {
        run.tell(&format!("round {} of {}: {}", round + 1, run.rounds, store.name()));
        disk::forget(folder.path())?;
        let before = Traffic::so_far()?;
        let ((opened, _reader), span) = run.cores.measure(|| {
            let begin = Instant::now();
            let mut reader = store.open(folder.path(), plan)?;
            let opened = begin.elapsed();
            reader.read_last(plan.records - 1)?;
            Ok((opened, reader))
        })?;
        let read_bytes = Traffic::so_far()?.read_bytes - before.read_bytes;
        let values = [span.took_ns, opened.as_nanos() as f64, read_bytes as f64];
        let values = values.into_iter().map(Some).collect();
        samples.push(Sample { store: store.name(), state: span.state, values });
    }
    Ok(())
}
