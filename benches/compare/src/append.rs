//! Appending records one after the other, in transactions where a store has them, without putting anything on disk on
//! purpose.

use anyhow::Result;

use crate::disk::{self, Traffic};
use crate::report::{Metric, Sample, Section};
use crate::run::Run;
use crate::stores::Plan;

pub const RATE: Metric = Metric {
    name: "records_per_second",
    title: "M records/s",
    divisor: 1_000_000,
    more_is_better: true,
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

/// Runs it.
pub fn run(run: &Run, records: u64, batch: u64) -> Result<Vec<Section>> {
    let plan = Plan { records, batch, sync: None };
    let mut samples = Vec::new();
    run.rounds(|index, store, round| {
        let folder = run.folder(index)?;
        let before = Traffic::so_far()?;
        let mut writer = store.create(folder.path(), &plan)?;
        let ((), took, state) = run.cores.measure(|| writer.append(0..records))?;
        writer.close()?;
        let mut values = vec![Some(records as f64 / took.as_secs_f64())];
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
        samples.push(Sample { store: store.name(), state, values });
        Ok(())
    })?;
    let title = format!("append: {records} records of 128 bytes, not synced");
    let notes = vec![
        format!(
            "Transactions of {batch} records. Windlass: with checksums and times. mmap: neither."
        ),
        "Written: what the process handed to the disk until all was there, once.".to_owned(),
    ];
    let metrics = vec![&RATE, &OCCUPIED, &WRITTEN];
    Ok(vec![Section { title, metrics, samples, stores: run.names(), notes }])
}
