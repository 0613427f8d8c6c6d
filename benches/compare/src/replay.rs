//! Reading and checking all records in order, from memory.

use anyhow::Result;

use crate::append::{rates, BUSY, RATE};
use crate::disk::Folder;
use crate::report::{Sample, Section};
use crate::run::Run;
use crate::stores::{Plan, Reader};

/// Makes every store once, with the same records, and opens it.
pub fn filled(run: &Run, plan: &Plan) -> Result<Vec<(Folder, Box<dyn Reader>)>> {
    let mut readers = Vec::new();
    for (index, store) in run.stores.iter().enumerate() {
        run.tell(&format!("filling: {}", store.name()));
        let folder = run.folder(index)?;
        let mut writer = store.create(folder.path(), plan)?;
        writer.append(0..plan.records)?;
        writer.close()?;
        let reader = store.open(folder.path(), plan)?;
        readers.push((folder, reader));
    }
    Ok(readers)
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
        let ((), span) = run.cores.measure(|| reader.scan(records))?;
        let values = rates(records, &span);
        samples.push(Sample { store: store.name(), state: span.state, values });
        Ok(())
    })?;
    let title = format!("replay: {records} records of 128 bytes, every byte looked at");
    let notes = vec![
        "All stores are open and in memory. Windlass checks the checksums of what it replays, too."
            .to_owned(),
    ];
    Ok(vec![Section { title, metrics: vec![&RATE, &BUSY], samples, stores: run.names(), notes }])
}
