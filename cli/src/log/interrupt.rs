//! Ctrl-C: the work ends in order, and says how far it came.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use anyhow::{Context, Result};

static CAME: AtomicBool = AtomicBool::new(false);

/// Work that was not done to its end because somebody did not want that: what there is of it, in a sentence.
#[derive(Debug)]
pub struct Interrupted(pub String);

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "interrupted; {}", self.0)
    }
}

impl std::error::Error for Interrupted {}

/// From now on Ctrl-C is noted; the second one ends this process.
pub fn watch() -> Result<()> {
    ctrlc::set_handler(|| {
        // Relaxed: a flag, which nothing is handed over with.
        if CAME.swap(true, Relaxed) {
            std::process::exit(crate::INTERRUPTED.into());
        }
    })
    .context("cannot watch for Ctrl-C")
}

/// Whether Ctrl-C, or a wish to terminate, came.
pub fn came() -> bool {
    CAME.load(Relaxed)
}
