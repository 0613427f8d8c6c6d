//! The child's end of the pipes to its parent.
//!
//! A child never outlives its parent: the kernel kills it when the parent dies, and the end of the
//! orders, which means the same, ends it as well.

use std::io::{BufRead, Write};
use std::sync::mpsc::{channel, Receiver, TryRecvError};
use std::thread;

use anyhow::{bail, Context, Result};

use super::report::{Figures, Order, Report};
use crate::clock;
use crate::parent::tie_to;

/// How often a child says how far it is.
const PROGRESS_INTERVAL_NS: u64 = 100_000_000;

/// The child's end of the pipes.
pub struct Link {
    orders: Receiver<Order>,
    progress_due_ns: u64,
}

impl Link {
    /// Ties this process to the life of `parent` and listens to its orders.
    pub fn to_parent(parent: i32) -> Result<Self> {
        tie_to(parent, "windlass demo")?;
        let (sender, orders) = channel();
        thread::spawn(move || {
            for line in std::io::stdin().lock().lines() {
                let order = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                let Some(order) = order else { break };
                if sender.send(order).is_err() {
                    break;
                }
            }
        });
        Ok(Self { orders, progress_due_ns: 0 })
    }

    /// The next order, if there is one by now.
    ///
    /// # Errors
    ///
    /// The parent is gone, or speaks in riddles.
    pub fn order(&mut self) -> Result<Option<Order>> {
        match self.orders.try_recv() {
            Ok(order) => Ok(Some(order)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => bail!("the parent process is gone"),
        }
    }

    /// Says something to the parent.
    pub fn say(&mut self, report: &Report) -> Result<()> {
        let mut line = serde_json::to_vec(report).context("cannot write a report")?;
        line.push(b'\n');
        let mut out = std::io::stdout().lock();
        out.write_all(&line).and_then(|()| out.flush()).context("the parent process is gone")
    }

    /// Says how far this child is, if the last time is long enough ago.
    pub fn progress(&mut self, now_ns: u64, figures: impl FnOnce() -> Figures) -> Result<()> {
        if now_ns < self.progress_due_ns {
            return Ok(());
        }
        self.say(&Report::Progress(figures()))?;
        self.progress_due_ns = clock::now_ns() + PROGRESS_INTERVAL_NS;
        Ok(())
    }
}

/// Runs a child's work; what goes wrong is told to the parent, which prints it.
pub fn run(parent: i32, work: impl FnOnce(&mut Link) -> Result<Figures>) -> Result<()> {
    let mut link = Link::to_parent(parent)?;
    let last = match work(&mut link) {
        Ok(figures) => Report::Done(figures),
        Err(error) => Report::Failed(format!("{error:#}")),
    };
    link.say(&last)
}
