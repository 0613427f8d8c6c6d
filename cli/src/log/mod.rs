//! The logs of durable topics: keeping, reading, writing, checking and copying them.

mod cat;
mod compact;
mod cursors;
mod export;
mod import;
mod info;
mod interrupt;
mod line;
mod outlet;
mod place;
mod progress;
mod range;
mod record;
mod replay;
mod stream;
mod target;
mod value;
mod verify;

use std::process::ExitCode;

use anyhow::Result;

use crate::args::LogCommand;

pub use cat::run as cat;
pub use compact::run as compact;
pub use cursors::run as cursors;
pub use export::run as export;
pub use import::run as import;
pub use info::Extent;
pub use interrupt::Interrupted;
pub use record::run as record;
pub use replay::run as replay;
pub use value::{duration, moment, size, speed, sync_policy, Spot};
pub use verify::run as verify;

/// `windlass log`.
pub fn run(command: &LogCommand) -> Result<ExitCode> {
    match command {
        LogCommand::Info(arguments) => info::run(arguments),
    }
}
