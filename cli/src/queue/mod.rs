//! `windlass queue`: looking at queues, emptying them, and looking after their dead letters.

mod drain;
mod info;
mod letters;
pub mod list;
mod payload;

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory;
use windlass::Bus;

use crate::args::{Arguments, BusArgument, QueueCommand};

pub use info::{dead_holders, describe, show};

/// `windlass queue`.
pub fn run(command: &QueueCommand) -> Result<ExitCode> {
    match command {
        QueueCommand::List(arguments) => list::run(arguments),
        QueueCommand::Info(arguments) => info::run(arguments),
        QueueCommand::Drain(arguments) => drain::run(arguments),
        QueueCommand::DeadLetters(arguments) => {
            if let Err(why) = arguments.check() {
                let kind = clap::error::ErrorKind::MissingRequiredArgument;
                return Err(Arguments::command().error(kind, why).into());
            }
            letters::run(arguments)
        }
    }
}

/// Opens the bus that a command is to look at.
fn open(bus: &BusArgument) -> Result<Bus> {
    Ok(Bus::options().existing().group().open(&bus.bus)?)
}
