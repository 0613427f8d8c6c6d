//! How often a store puts on disk what it was given, and how long each step took.
//!
//! ```text
//!   while pace.begin(&left) {                       a turn: one commit
//!       while let Some(numbers) = pace.take(&mut left) { … }
//!       commit
//!   }
//! ```

use std::ops::Range;
use std::time::{Duration, Instant};

/// Records that are appended between two looks at the clock, unless each is committed by itself.
const CHUNK: u64 = 64;

/// When to put on disk what was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cadence {
    /// After each record.
    Each,
    /// As soon as this long has passed since the last time.
    Every(Duration),
}

/// A cadence in use.
pub struct Pace {
    cadence: Cadence,
    turn_began: Instant,
    step_began: Option<Instant>,
    is_fresh: bool,
    /// Commits so far.
    pub commits: u64,
    /// What each step took, in nanoseconds: a record with its commit, or 64 records with the commit that fell among
    /// them, if any did.
    pub steps_ns: Vec<u64>,
}

impl Pace {
    /// Begins now.
    pub fn new(cadence: Cadence) -> Self {
        let (turn_began, steps_ns) = (Instant::now(), Vec::new());
        Self { cadence, turn_began, step_began: None, is_fresh: false, commits: 0, steps_ns }
    }

    /// How often.
    pub fn cadence(&self) -> Cadence {
        self.cadence
    }

    fn chunk(&self) -> u64 {
        match self.cadence {
            Cadence::Each => 1,
            Cadence::Every(_) => CHUNK,
        }
    }

    /// Begins a turn if anything is left.
    pub fn begin(&mut self, left: &Range<u64>) -> bool {
        self.is_fresh = true;
        self.commits += u64::from(!left.is_empty());
        self.turn_began = Instant::now();
        if left.is_empty() {
            self.note(self.turn_began);
        }
        !left.is_empty()
    }

    /// The numbers to append next in this turn; `None` when it is time to commit.
    pub fn take(&mut self, left: &mut Range<u64>) -> Option<Range<u64>> {
        let now = Instant::now();
        let is_due = match self.cadence {
            Cadence::Each => !self.is_fresh,
            Cadence::Every(time) => !self.is_fresh && now - self.turn_began >= time,
        };
        self.is_fresh = false;
        if is_due || left.is_empty() {
            return None;
        }
        self.note(now);
        self.step_began = Some(now);
        let end = left.end.min(left.start + self.chunk());
        let numbers = left.start..end;
        left.start = end;
        Some(numbers)
    }

    fn note(&mut self, now: Instant) {
        if let Some(began) = self.step_began.take() {
            self.steps_ns.push((now - began).as_nanos() as u64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(cadence: Cadence, count: u64) -> (Pace, u64) {
        let (mut pace, mut left, mut taken) = (Pace::new(cadence), 0..count, 0);
        while pace.begin(&left) {
            while let Some(numbers) = pace.take(&mut left) {
                assert_eq!(numbers.start, taken);
                taken = numbers.end;
            }
        }
        (pace, taken)
    }

    #[test]
    fn each_record_has_its_own_commit_and_step() {
        let (pace, taken) = run(Cadence::Each, 100);
        assert_eq!((taken, pace.commits, pace.steps_ns.len()), (100, 100, 100));
    }

    #[test]
    fn a_long_time_has_one_commit_and_a_step_for_each_chunk() {
        let (pace, taken) = run(Cadence::Every(Duration::from_secs(3600)), 130);
        assert_eq!((taken, pace.commits, pace.steps_ns.len()), (130, 1, 3));
    }

    #[test]
    fn no_time_at_all_still_gets_through() {
        let (pace, taken) = run(Cadence::Every(Duration::ZERO), 130);
        assert_eq!((taken, pace.commits), (130, 3));
    }
}
