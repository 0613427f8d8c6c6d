//! Reading and checking single records at random, by number, from memory.

use anyhow::Result;

use crate::replay::filled;
use crate::report::{Metric, Sample, Section};
use crate::run::Run;
use crate::stores::Plan;

const LOOKUP: Metric =
    Metric { name: "lookup_ns", title: "ns a lookup", divisor: 1, more_is_better: false };

/// Runs it.
pub fn run(run: &Run, records: u64, lookups: u64) -> Result<Vec<Section>> {
    let mut readers = filled(run, &Plan { records, batch: 1000, sync: None })?;
    let mut random = fastrand::Rng::with_seed(5);
    let numbers: Vec<u64> = (0..lookups).map(|_| random.u64(..records)).collect();
    let mut samples = Vec::new();
    let mut notes = Vec::new();
    run.rounds(|index, store, round| {
        let (_, reader) = &mut readers[index];
        if round == 0 {
            reader.scan(records)?;
        }
        let (found, took, state) = run.cores.measure(|| reader.find(&numbers))?;
        match found {
            Some(()) => {
                let values = vec![Some(took.as_nanos() as f64 / lookups as f64)];
                samples.push(Sample { store: store.name(), state, values });
            }
            None if round == 0 => {
                notes
                    .push(format!("{}: has no reading of single records; left out.", store.name()));
            }
            None => {}
        }
        Ok(())
    })?;
    let title = format!("seek: {lookups} lookups by number in {records} records of 128 bytes");
    Ok(vec![Section { title, metrics: vec![&LOOKUP], samples, stores: run.names(), notes }])
}
