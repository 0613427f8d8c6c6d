//! Appending records one after the other, in transactions where a store has them, without putting anything on disk on
//! purpose.

use anyhow::Result;

use crate::disk::{self, Traffic};
use crate::machine::Span;
use crate::report::{Metric, Sample, Section};
use crate::run::Run;
use crate::stores::Plan;

/// Records in the time that passed.
pub const RATE: Metric = Metric {
    name: "records_per_second",
    title: "M records/s",
    divisor: 1_000_000,
    more_is_better: true,
};
/// Time of the core that the thread took for a record.
pub const BUSY: Metric = Metric {
    name: "core_ns_per_record",
    title: "core ns a record",
    divisor: 1,
    more_is_better: false,
};
const OCCUPIED: Metric = Metric {
    name: "disk_bytes_per_payload_byte",
    title: "on disk / payload",
    divisor: 1,
    more_is_better: false,
};
const WRITTEN: Metric = Metric {
    name: "written_bytes_per_payload_byte",
    title: "written / payload",
    divisor: 1,
    more_is_better: false,
};

/// What every record cost, in the order of the two metrics.
pub fn rates(records: u64, span: &Span) -> Vec<Option<f64>> {
    let count = records as f64;
    vec![Some(count * 1e9 / span.took_ns), Some(span.busy_ns / count)]
}

/// Runs it.
pub fn run(run: &Run, records: u64, batch: u64) -> Result<Vec<Section>> {
    let plan = Plan { records, batch, sync: None };
    let mut samples = Vec::new();
    run.rounds(|index, store, round| {
        let folder = run.folder(index)?;
        let before = Traffic::so_far()?;
        let mut writer = store.create(folder.path(), &plan)?;
        let ((), span) = run.cores.measure(|| writer.append(0..records))?;
        writer.close()?;
        let mut values = rates(records, &span);
        // Waiting for the disk costs more than all the rest; what it comes to is the same every time.
        if round == 0 {
            disk::sync(folder.path())?;
            let after = Traffic::so_far()?;
            let share = |bytes: u64| Some(bytes as f64 / plan.payload_bytes() as f64);
            values.push(share(disk::occupied_bytes(folder.path())?));
            values.push(share(after.written_bytes - before.written_bytes));
            let mut reader = store.open(folder.path(), &plan)?;
            reader.scan(records)?;
        }
        samples.push(Sample { store: store.name(), state: span.state, values });
        Ok(())
    })?;
    let title = format!("append: {records} records of 128 bytes, not synced");
    let notes = vec![
        "Core: of the thread that appends; without what others took, and without waiting for the disk.".to_owned(),
        format!(
            "Transactions of {batch} records. Windlass: with checksums and times. mmap: neither."
        ),
        "Written: what the process handed to the disk until all was there, once.".to_owned(),
    ];
    let metrics = vec![&RATE, &BUSY, &OCCUPIED, &WRITTEN];
    Ok(vec![Section { title, metrics, samples, stores: run.names(), notes }])
}
