//! Reading and checking all records in order, from memory.

use anyhow::Result;

use crate::append::RATE;
use crate::report::{Sample, Section};
use crate::run::Run;
use crate::stores::{Plan, Reader};

/// Makes every store once, with the same records, and opens it.
pub fn filled(run: &Run, plan: &Plan) -> Result<Vec<(crate::disk::Folder, Box<dyn Reader>)>> {
    let make = |(index, store): (usize, &Box<dyn crate::stores::Store>)| {
        run.tell(&format!("filling: {}", store.name()));
        let folder = run.folder(index)?;
        let mut writer = store.create(folder.path(), plan)?;
        writer.append(0..plan.records)?;
        writer.close()?;
        let reader = store.open(folder.path(), plan)?;
        Ok((folder, reader))
    };
    run.stores.iter().enumerate().map(make).collect()
}

/// Runs it.
pub fn run(run: &Run, records: u64) -> Result<Vec<Section>> {
    let mut readers = filled(run, &Plan { records, batch: 1000, sync: None })?;
    let mut samples = Vec::new();
    run.rounds(|index, store, round| {
        let (_, reader) = &mut readers[index];
        if round == 0 {
            reader.scan(records)?;
        }
        let ((), took, state) = run.cores.measure(|| reader.scan(records))?;
        let values = vec![Some(records as f64 / took.as_secs_f64())];
        samples.push(Sample { store: store.name(), state, values });
        Ok(())
    })?;
    let title = format!("replay: {records} records of 128 bytes, every byte looked at");
    let notes = vec![
        "All stores are open and in memory. Windlass checks the checksums of what it replays, too."
            .to_owned(),
    ];
    Ok(vec![Section { title, metrics: vec![&RATE], samples, stores: run.names(), notes }])
}
