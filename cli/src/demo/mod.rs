//! `windlass demo`: processes on real data, some of them killed, every message checked.
//!
//! ```text
//!   publisher 1 ──┐                       ┌── subscriber 1   polls
//!                 ├── readings ───────────┼── subscriber 2   sleeps   ✗ killed, replaced by 4
//!   publisher 2 ──┤   (reliable)
//!   ✗ killed,     └── readings-lossy ─────┴── subscriber 3   naps, is lapped, and is told so
//!   replaced by 3
//! ```
//!
//! The parent ([`scenario`]) starts this program again for each of them ([`publisher`],
//! [`subscriber`]), listens to what they report over pipes ([`fleet`], [`report`], [`link`]), and
//! adds it up ([`ending`], [`verdict`]). The publishers say how far each lane was filled; what a
//! subscriber received, each message compared with the row of the data that it must be ([`data`],
//! [`reading`]), and what it was told that it missed ([`ledger`]), must be exactly that.
//!
//! # If a process dies
//!
//! A killed child is the point of the exercise. Children die with their parent, by order of the
//! kernel. The bus is removed when the parent ends, for whatever reason short of SIGKILL
//! ([`home`]).

mod data;
mod ending;
mod fleet;
mod home;
mod ledger;
mod link;
mod outcome;
pub mod publisher;
mod reading;
mod report;
mod scenario;
mod show;
pub mod subscriber;
mod table;
mod timeline;
mod topics;
mod verdict;

use std::process::ExitCode;

use anyhow::Result;

pub use fleet::Interrupted;

use crate::args::DemoArguments;
use crate::output;

/// `windlass demo`.
pub fn run(arguments: &DemoArguments) -> Result<ExitCode> {
    let fleet = fleet::Fleet::new();
    // Before there is anything to clean up.
    fleet.interruptible()?;
    let home = home::Home::new()?;
    let outcome = scenario::Scenario::new(arguments, home.bus(), fleet)?.run()?;
    if arguments.json {
        output::json(&outcome)?;
    } else {
        output::text(&table::render(&outcome))?;
    }
    if outcome.ok {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::FAILURE)
}
