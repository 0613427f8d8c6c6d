//! What every child of the soak has: its seat, the board, the way to say that something is wrong.
//!
//! A child says little, a line each, on its standard output: `fault` and a sentence, `fold` and a
//! block of an ordered topic, `settled` with its figures. A line is one write and shorter than what
//! a pipe takes at once, so a killed child leaves whole lines.

use std::cell::{Cell as Shared, RefCell};
use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result};
use windlass::schemas::bench_capnp::sample;
use windlass::{Bus, Raw};

use super::board::{Board, Phase, Word};
use super::cells::{self, Cell, Job, Kind, CELLS};
use super::sabotage::Sabotage;
use super::{churn, giver, inspector, publisher, subscriber, visitor, worker};
use crate::args::SoakChildArguments;
use crate::clock;
use crate::parent::tie_to;

/// Faults that one process says in words; the rest are only counted.
const FAULTS_MAX: u64 = 3;
/// Bytes of a line that a pipe takes at once, with some to spare.
const LINE_BYTES_MAX: usize = 2_000;

/// The process of a seat.
pub struct Child {
    pub bus: Bus,
    pub board: Board,
    pub seat: usize,
    pub cell: usize,
    pub generation: u32,
    pub job: Job,
    pub sabotage: Vec<Sabotage>,
    faults: Shared<u64>,
    dice: RefCell<fastrand::Rng>,
}

/// `windlass soak-child`.
pub fn run(arguments: &SoakChildArguments) -> Result<ExitCode> {
    tie_to(arguments.parent, "windlass soak")?;
    let board = Board::inherit()?;
    let (cell, seat) =
        cells::seats().nth(arguments.seat).context("there is no such seat in the soak")?;
    let mix = arguments.seed ^ (arguments.seat as u64) << 32 ^ u64::from(arguments.generation);
    let child = Child {
        bus: Bus::options().existing().open(&arguments.bus)?,
        board,
        seat: arguments.seat,
        cell,
        generation: arguments.generation,
        job: seat.job,
        sabotage: arguments.sabotage.clone(),
        faults: Shared::new(0),
        dice: RefCell::new(fastrand::Rng::with_seed(mix)),
    };
    if let Err(error) = child.work() {
        child.fault(format!("ends with an error: {error:#}"));
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

impl Child {
    fn work(&self) -> Result<()> {
        let typed = self.cell().options.kind == Kind::Typed;
        match self.job {
            Job::Publish if typed => publisher::run::<sample::Owned>(self),
            Job::Publish => publisher::run::<Raw>(self),
            Job::Subscribe(way) if typed => subscriber::run::<sample::Owned>(self, way),
            Job::Subscribe(way) => subscriber::run::<Raw>(self, way),
            Job::Visit if typed => visitor::run::<sample::Owned>(self),
            Job::Visit => visitor::run::<Raw>(self),
            Job::Give => giver::run(self),
            Job::Work(way) => worker::run(self, way),
            Job::Churn => churn::run(self),
            Job::Inspect => inspector::run(self),
        }
    }

    /// The cell that it works in.
    pub fn cell(&self) -> &'static Cell {
        &CELLS[self.cell]
    }

    /// What everybody is to do.
    pub fn phase(&self) -> Phase {
        self.board.phase()
    }

    /// A number below `limit`.
    pub fn below(&self, limit: u64) -> u64 {
        self.dice.borrow_mut().u64(0..limit.max(1))
    }

    /// Whether this process is to do this wrong.
    pub fn spoils(&self, what: Sabotage) -> bool {
        self.sabotage.contains(&what)
    }

    /// Counts something on the board.
    pub fn add(&self, word: Word, more: u64) {
        self.board.add(self.seat, word, more);
    }

    /// Notes something on the board.
    pub fn set(&self, word: Word, value: u64) {
        self.board.set(self.seat, word, value);
    }

    /// It has just done something.
    pub fn beat(&self) {
        self.set(Word::Beat, clock::now_ns());
    }

    /// What each lane of the cell has reached at least.
    pub fn committed(&self) -> Vec<u64> {
        (0..self.cell().lanes()).map(|lane| self.board.committed(self.cell, lane)).collect()
    }

    /// What each lane of the cell has reached at most.
    pub fn tried(&self) -> Vec<u64> {
        (0..self.cell().lanes()).map(|lane| self.board.tried(self.cell, lane)).collect()
    }

    /// Something is wrong with the bus.
    pub fn fault(&self, what: impl Display) {
        self.add(Word::Faults, 1);
        self.faults.set(self.faults.get() + 1);
        if self.faults.get() <= FAULTS_MAX {
            self.say(&format!("fault {what}"));
        }
    }

    /// Enters whatever is wrong.
    pub fn check(&self, result: Result<(), String>) {
        if let Err(sentence) = result {
            self.fault(sentence);
        }
    }

    /// Tells the supervisor something, in one line.
    pub fn say(&self, line: &str) {
        let mut line: String = line.chars().take(LINE_BYTES_MAX / 4).collect();
        line = line.replace('\n', " ");
        line.push('\n');
        let mut out = std::io::stdout().lock();
        // Without a supervisor there is nobody to tell, and this process is about to be killed.
        let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
    }
}
