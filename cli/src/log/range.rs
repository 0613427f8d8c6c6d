//! The messages of a log that a command is about, and what is said of those that cannot be read.

use std::ops::{ControlFlow, Range};

use anyhow::{bail, Result};
use windlass::{Log, Raw, ReadError};

use super::interrupt;
use super::line::Seen;
use super::progress::Progress;
use crate::args::{DamageArguments, RangeArguments};
use crate::output::{self, some};

/// Damaged messages that are named one by one.
const NAMED_MAX: u64 = 20;

/// The sequences that are meant, all of them below `to`.
pub fn of(log: &Log<Raw>, range: &RangeArguments, to: Option<u64>) -> Result<Range<u64>> {
    let (first, next) = (log.first()?, log.next()?);
    let from = from(log, range, first, next)?;
    let to = match (to, range.until) {
        (Some(to), _) => to,
        (_, Some(until)) => log.at_time(until)?,
        _ => next,
    };
    Ok(from..to.max(from))
}

/// The sequence to begin with.
pub fn from(log: &Log<Raw>, range: &RangeArguments, first: u64, next: u64) -> Result<u64> {
    Ok(match (range.from, range.last, range.since) {
        (Some(from), ..) => from,
        (_, Some(last), _) => next.saturating_sub(last).max(first),
        (.., Some(since)) => log.at_time(since)?,
        _ => first,
    })
}

/// Calls `each` with the messages of a range, until there are no more, it has enough, or Ctrl-C. False if it was that.
pub fn read(
    log: &Log<Raw>,
    range: Range<u64>,
    losses: &mut Losses,
    progress: &mut Progress,
    mut each: impl FnMut(&Seen<'_>) -> Result<ControlFlow<()>>,
) -> Result<bool> {
    let mut scan = log.scan(range)?;
    while let Some(found) = scan.read() {
        if interrupt::came() {
            return Ok(false);
        }
        match found {
            Ok(record) => {
                progress.message(record.bytes().len());
                let seen = Seen {
                    sequence: record.sequence(),
                    time_ns: Some(record.time_ns()),
                    lane: record.lane(),
                    key: record.key(),
                    payload: record.bytes(),
                };
                if each(&seen)?.is_break() {
                    break;
                }
            }
            Err(error) => losses.met(error, |line| progress.say(line))?,
        }
    }
    Ok(true)
}

/// What could not be read.
#[derive(Default)]
pub struct Losses {
    stop: bool,
    /// Messages that are not what was published.
    pub damaged: u64,
    /// Messages that were deleted before they were read.
    pub deleted: u64,
}

impl Losses {
    /// None yet.
    pub fn new(damage: &DamageArguments) -> Self {
        Self { stop: damage.stop_on_damage, ..Self::default() }
    }

    /// Something cannot be read; `say` shows a line.
    ///
    /// # Errors
    ///
    /// If that is to be the end.
    pub fn met(&mut self, error: ReadError, say: impl FnOnce(&str)) -> Result<()> {
        match error {
            ReadError::Lagged { missed } => {
                self.deleted += missed;
                say(&format!("windlass: {error}"));
            }
            ReadError::Damaged { .. } if !self.stop => {
                self.damaged += 1;
                match self.damaged {
                    n if n < NAMED_MAX => say(&format!("windlass: {error}; it is left out")),
                    NAMED_MAX => say(&format!(
                        "windlass: {error}; it is left out, and so are others, which are not named \
                         here; windlass verify names all"
                    )),
                    _ => {}
                }
            }
            _ => bail!("{error}"),
        }
        Ok(())
    }

    /// Says at the end what was left out.
    pub fn tell(&self) {
        if self.damaged > 0 {
            let were = some(self.damaged, "damaged message was", "damaged messages were");
            output::complain(&format!("windlass: {were} left out"));
        }
    }
}
