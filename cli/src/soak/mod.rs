//! `windlass soak`: everything at once, over processes that are killed and stopped, every message
//! checked.
//!
//! ```text
//!   supervisor ── starts, kills, stops, replaces ──▶ the processes of all seats of all cells
//!       │                                               │  publish, receive, create, repair
//!       │◀── words on the board, faults over pipes ─────┤
//!       └── inspects, compares ──▶  one bus  ◀──────────┘
//! ```
//!
//! [`cells`] is the table of what runs. The supervisor ([`scenario`], [`crew`]) draws its victims
//! from a seed ([`killer`]), measures how soon survivors go on ([`recovery`]), ends the run and
//! compares the books ([`ending`], [`leftovers`]). A child ([`child`]) does the job of its seat
//! ([`publisher`], [`subscriber`], [`visitor`], [`giver`], [`worker`], [`churn`], [`inspector`]): it
//! writes messages that say what they are ([`record`], [`parcel`]), keeps books of what it receives
//! ([`ledger`], [`blocks`], [`docket`]), and notes how far it is where its death leaves it
//! ([`board`]).
//!
//! # If a process dies
//!
//! That is what this is about. Children die with their parent, by order of the kernel.

mod blocks;
mod board;
mod cells;
pub mod child;
mod churn;
mod crew;
mod docket;
mod ending;
mod giver;
mod inspector;
mod killer;
mod ledger;
mod leftovers;
mod outcome;
mod parcel;
mod place;
mod publisher;
mod record;
mod recovery;
mod sabotage;
mod scenario;
mod show;
mod subscriber;
mod table;
mod visitor;
mod worker;

use std::process::ExitCode;

use anyhow::Result;

pub use sabotage::Sabotage;

use crate::args::SoakArguments;
use crate::output;

/// `windlass soak`.
pub fn run(arguments: &SoakArguments) -> Result<ExitCode> {
    let outcome = scenario::run(arguments)?;
    if arguments.json {
        output::json(&outcome)?;
    } else {
        output::text(&table::render(&outcome))?;
    }
    Ok(if outcome.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
