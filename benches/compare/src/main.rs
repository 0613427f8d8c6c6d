//! `compare`: durable topics of Windlass beside redb, LMDB, SQLite, a buffered file and a bare mapping, in one run.
//!
//! ```text
//!   run                  options with everything decided; rounds over all stores
//!   append · sync        writing: left to the kernel, or put on disk
//!   replay · seek        reading all, reading one
//!   open                 opening a large one that is not in memory
//!   stores/              the contenders                 record    what is written, and checked when it is read
//!   pace                 how often to put on disk       disk      files, and what the kernel keeps of them
//!   machine              where the cores are            report    tables and JSON
//! ```
//!
//! In each round every store has its turn, so that all see the same states of the machine. Each record that is read is
//! checked whole; one mismatch fails the run.

mod append;
mod disk;
mod machine;
mod open;
mod pace;
mod record;
mod replay;
mod report;
mod run;
mod seek;
mod stores;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{bail, Result};
use clap::{Args, Parser, Subcommand};

use run::Run;
use stores::Bench;

/// Durable topics of Windlass beside redb, LMDB, SQLite, a buffered file and a bare mapping.
#[derive(Parser)]
#[command(name = "compare", version)]
struct Arguments {
    #[command(subcommand)]
    bench: Command,
    #[command(flatten)]
    options: Options,
}

/// How to run it.
#[derive(Args, Clone, Debug)]
struct Options {
    /// The folder for the stores; it should be on the disk that is of interest, and not in memory.
    #[arg(long, global = true, default_value = ".", value_name = "FOLDER")]
    dir: PathBuf,
    /// A smoke run of a few seconds; its figures are rough.
    #[arg(long, global = true)]
    quick: bool,
    /// One JSON object instead of tables.
    #[arg(long, global = true)]
    json: bool,
    /// How often each store has its turn.
    #[arg(long, global = true)]
    rounds: Option<u32>,
    /// Only stores whose names contain one of these words, and the baseline.
    #[arg(long, global = true, value_delimiter = ',')]
    only: Vec<String>,
    /// The core that measures, and the core for everything else; the first two if not given.
    #[arg(long, global = true, value_parser = two_cores, value_name = "FIRST,SECOND")]
    cores: Option<(usize, usize)>,
}

#[derive(Subcommand, Clone, Copy)]
enum Command {
    /// Append records and leave it to the kernel when they reach the disk
    Append {
        /// Records of 128 bytes
        #[arg(long)]
        records: Option<u64>,
        /// Records in a transaction
        #[arg(long, default_value_t = 1000)]
        batch: u64,
    },
    /// Append records and put them on disk: each, and every so often
    Sync {
        /// Records that are put on disk one by one
        #[arg(long)]
        each: Option<u64>,
        /// Records that are put on disk every so often
        #[arg(long)]
        records: Option<u64>,
        /// How often, in microseconds
        #[arg(long, default_value_t = 1000)]
        every_us: u64,
    },
    /// Read and check all records, from memory
    Replay {
        /// Records of 128 bytes
        #[arg(long)]
        records: Option<u64>,
    },
    /// Open a large store that is not in memory, and read its last record
    Open {
        /// GiB of payload
        #[arg(long)]
        gib: Option<f64>,
    },
    /// Read and check single records at random, from memory
    Seek {
        /// Records of 128 bytes
        #[arg(long)]
        records: Option<u64>,
        /// How many are read
        #[arg(long)]
        lookups: Option<u64>,
    },
}

impl Command {
    fn bench(self) -> Bench {
        match self {
            Self::Append { .. } => Bench::Append,
            Self::Sync { .. } => Bench::Sync,
            Self::Replay { .. } => Bench::Replay,
            Self::Open { .. } => Bench::Open,
            Self::Seek { .. } => Bench::Seek,
        }
    }
}

fn two_cores(text: &str) -> Result<(usize, usize), String> {
    let parsed =
        text.split_once(',').and_then(|(one, two)| Some((one.parse().ok()?, two.parse().ok()?)));
    parsed.ok_or_else(|| format!("\"{text}\" is not two numbers of cores, like 0,1"))
}

fn run(arguments: &Arguments) -> Result<()> {
    let run = Run::new(arguments.bench.bench(), &arguments.options)?;
    // A smoke run takes less of everything, unless it was told how much.
    let or = |asked: Option<u64>, whole: u64, quick: u64| {
        asked.unwrap_or(if run.quick { quick } else { whole }).max(1)
    };
    let sections = match arguments.bench {
        Command::Append { records, batch } => {
            append::run(&run, or(records, 4_000_000, 200_000), batch.max(1))?
        }
        Command::Sync { each, records, every_us } => {
            sync::run(&run, or(each, 2000, 50), or(records, 1_000_000, 50_000), every_us)?
        }
        Command::Replay { records } => replay::run(&run, or(records, 4_000_000, 200_000))?,
        Command::Open { gib } => {
            let gib = gib.unwrap_or(if run.quick { 0.0625 } else { 10.0 });
            if !gib.is_finite() || gib <= 0.0 {
                bail!("--gib {gib} leaves nothing to open; say how much there shall be");
            }
            open::run(&run, gib)?
        }
        Command::Seek { records, lookups } => {
            let records = or(records, 1_000_000, 100_000);
            seek::run(&run, records, or(lookups, 1_000_000, 50_000))?
        }
    };
    run.report(&sections)
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("compare: {error:#}");
            ExitCode::FAILURE
        }
    }
}
