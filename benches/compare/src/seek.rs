//! Reading and checking single records at random, by number, from memory.

use anyhow::Result;

use crate::replay::filled;
use crate::report::{Metric, Sample, Section};
use crate::run::Run;
use crate::stores::Plan;

const LOOKUP: Metric =
    Metric { name: "lookup_ns", title: "ns a lookup", divisor: 1, more_is_better: false };

const BUSY: Metric =
    Metric { name: "core_ns_per_lookup", title: "core ns", divisor: 1, more_is_better: false };

/// Runs it.
pub fn run(run: &Run, records: u64, lookups: u64) -> Result<Vec<Section>> {
    let mut readers = filled(run, &Plan { records, batch: 1000, sync: None })?;
    let mut random = fastrand::Rng::with_seed(5);
    let numbers: Vec<u64> = (0..lookups).map(|_| random.u64(..records)).collect();
    let mut samples = Vec::new();
    run.rounds(|index, store, round| {
        let (_, reader) = &mut readers[index];
        if round == 0 {
            reader.scan(records)?;
        }
        let ((), span) = run.cores.measure(|| reader.find(&numbers))?;
        let values = [span.took_ns, span.busy_ns].map(|ns| Some(ns / lookups as f64)).to_vec();
        samples.push(Sample { store: store.name(), state: span.state, values });
        Ok(())
    })?;
    let title = format!("seek: {lookups} lookups by number in {records} records of 128 bytes");
    let notes = vec!["All stores are open and in memory, and have been read before.".to_owned()];
    Ok(vec![Section { title, metrics: vec![&LOOKUP, &BUSY], samples, stores: run.names(), notes }])
}
