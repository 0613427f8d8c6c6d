//! A run: options with everything decided, and rounds in which every store has its turn.

use std::io::{ErrorKind, IsTerminal, Write};
use std::path::PathBuf;

use anyhow::{ensure, Context, Result};
use serde_json::json;

use crate::disk::Folder;
use crate::machine::{Cores, Machine};
use crate::report::Section;
use crate::stores::{contenders, Bench, Store};
use crate::Options;

/// What a benchmark needs to know.
pub struct Run {
    /// Where to run.
    pub cores: Cores,
    /// Whether it is a smoke run.
    pub quick: bool,
    /// Turns of each store.
    pub rounds: u32,
    /// The stores; the first is the baseline.
    pub stores: Vec<Box<dyn Store>>,
    folder: PathBuf,
    bench: Bench,
    json: bool,
    machine: Machine,
}

impl Run {
    /// Decides everything.
    pub fn new(bench: Bench, options: &Options) -> Result<Self> {
        let mut stores = contenders(bench);
        let words: Vec<_> = options.only.iter().map(|word| word.to_lowercase()).collect();
        let mut is_first = true;
        stores.retain(|store| {
            let name = store.name().to_lowercase();
            let is_wanted = words.is_empty() || words.iter().any(|word| name.contains(word));
            std::mem::take(&mut is_first) || is_wanted
        });
        let is_folder = options.dir.is_dir();
        ensure!(is_folder, "{} is no folder; make it, or say another", options.dir.display());
        Ok(Self {
            cores: Cores::choose(options.cores)?,
            quick: options.quick,
            rounds: options.rounds.unwrap_or(if options.quick { 2 } else { 9 }).max(1),
            stores,
            folder: options.dir.clone(),
            bench,
            json: options.json,
            machine: Machine::describe(),
        })
    }

    /// A fresh folder for store `index`, made where its threads are to run.
    pub fn folder(&self, index: usize) -> Result<Folder> {
        self.cores.prepare()?;
        Folder::new(&self.folder, index)
    }

    /// Names of the stores, in order.
    pub fn names(&self) -> Vec<String> {
        self.stores.iter().map(|store| store.name()).collect()
    }

    /// Gives every store its turns, each round all of them.
    pub fn rounds(&self, mut turn: impl FnMut(usize, &dyn Store, u32) -> Result<()>) -> Result<()> {
        for round in 0..self.rounds {
            for (index, store) in self.stores.iter().enumerate() {
                self.tell(&format!("round {} of {}: {}", round + 1, self.rounds, store.name()));
                turn(index, store.as_ref(), round).with_context(|| store.name())?;
            }
        }
        self.tell("");
        Ok(())
    }

    /// Says on a terminal what is going on, in one line that the next one replaces.
    pub fn tell(&self, what: &str) {
        if std::io::stderr().is_terminal() {
            eprint!("\r\x1b[K{what}");
        }
    }

    /// Prints what came out.
    pub fn report(&self, sections: &[Section]) -> Result<()> {
        let text = if self.json {
            let sections: Vec<_> = sections.iter().map(Section::json).collect::<Result<_, _>>()?;
            let report = json!({
                "bench": format!("{:?}", self.bench).to_lowercase(),
                "quick": self.quick,
                "rounds": self.rounds,
                "record_bytes": crate::record::BYTES,
                "cores": self.cores,
                "machine": self.machine,
                "sections": sections,
            });
            format!("{report:#}\n")
        } else {
            let sections: String = sections.iter().map(Section::text).collect();
            format!("{}\n\n{sections}", self.machine.sentence())
        };
        match std::io::stdout().write_all(text.as_bytes()) {
            // Whoever reads has enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
            written => written.context("cannot print the report"),
        }
    }
}
