//! How soon survivors go on after a death, and whether anybody stands still.
//!
//! A sample begins when the supervisor has seen a death, and ends with the next message of one
//! subscriber of that topic. It counts only what the death did: it is dropped if that subscriber
//! dies, or if anybody in the cell is stopped meanwhile, since whoever is stopped may hold others
//! up.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::board::Word;
use super::cells::{self, Job, CELLS};
use super::crew::{Crew, Member};
use crate::clock;

/// Nobody stands still for this long on account of a death, nor without any reason. What the
/// library promises is milliseconds; this is what a machine with far more processes than cores may
/// add.
pub const STANDSTILL_MAX: Duration = Duration::from_secs(10);
/// A supervisor that did not run for so long stood still itself, and with it the machine: nothing
/// that was being measured then says anything about the bus.
const AWAY: Duration = Duration::from_secs(1);
/// What a look adds to the clock of the supervisor at most.
const LOOK_MAX: Duration = Duration::from_millis(50);
/// A time above a minute counts as a minute.
const NS_MAX: u64 = 60_000_000_000;
/// Three digits of a time.
const DIGITS: u8 = 3;

struct Sample {
    seat: usize,
    generation: u32,
    cell: usize,
    death: u64,
    at_ns: u64,
    killed: &'static str,
}

/// All samples.
pub struct Recovery {
    open: Vec<Sample>,
    /// By what was killed.
    pub times: BTreeMap<&'static str, Histogram<u64>>,
    /// Samples that were dropped.
    pub dropped: u64,
    /// Times that the machine stood still.
    pub away: u64,
    /// The clock of the supervisor: it goes only while the supervisor runs.
    clock: Duration,
    last: Instant,
    /// When anybody in a cell was last stopped or let go on, by that clock.
    stopped: Vec<Duration>,
    /// What each seat last noted, and when that was first seen, by that clock.
    beats: Vec<((u32, u64), Duration)>,
}

impl Recovery {
    /// No samples.
    pub fn new() -> Self {
        Self {
            open: Vec::new(),
            times: BTreeMap::new(),
            dropped: 0,
            away: 0,
            clock: Duration::ZERO,
            last: Instant::now(),
            stopped: vec![Duration::ZERO; CELLS.len()],
            beats: vec![((0, 0), Duration::ZERO); cells::seats().count()],
        }
    }

    /// From now on the clock goes.
    pub fn start(&mut self) {
        self.last = Instant::now();
    }

    /// The supervisor runs: to be called all the time.
    pub fn tick(&mut self) {
        let passed = self.last.elapsed();
        self.last = Instant::now();
        self.clock += passed.min(LOOK_MAX);
        if passed > AWAY {
            self.away += 1;
            self.forget(|_| true);
        }
    }

    /// The supervisor has seen a death.
    pub fn died(&mut self, crew: &Crew, victim: usize) {
        let (job, cell) = (crew.members[victim].job, crew.members[victim].cell);
        let at_ns = clock::now_ns();
        self.forget(|sample| sample.seat == victim);
        match job {
            Job::Inspect => {
                // It may have been repairing any of them.
                (0..CELLS.len()).for_each(|cell| self.begin(crew, cell, "inspector", at_ns));
            }
            Job::Publish if !publishes(crew, cell) => {
                // What was measured of other deaths now waits for a successor of this one.
                self.forget(|sample| sample.cell == cell);
                self.begin(crew, cell, "only publisher", at_ns);
            }
            _ if publishes(crew, cell) => self.begin(crew, cell, job.word(), at_ns),
            _ => {}
        }
    }

    fn begin(&mut self, crew: &Crew, cell: usize, killed: &'static str, at_ns: u64) {
        // A publisher that waits to evict somebody is held up by the living.
        let evicts = CELLS[cell].options.evict_after_ms > 0;
        if evicts || !CELLS[cell].has_topic() || is_stopped(crew, cell) {
            return;
        }
        let death = crew.board.count_death(cell);
        for member in crew.members.iter().filter(|member| member.cell == cell) {
            let joined = crew.board.get(member.seat, Word::Joined) == 1;
            if member.job.is_prompt() && member.lives() && joined {
                let (seat, generation) = (member.seat, member.generation);
                self.open.push(Sample { seat, generation, cell, death, at_ns, killed });
            }
        }
    }

    fn forget(&mut self, which: impl Fn(&Sample) -> bool) {
        let before = self.open.len();
        self.open.retain(|sample| !which(sample));
        self.dropped += (before - self.open.len()) as u64;
    }

    /// Somebody in a cell was stopped, or goes on.
    pub fn stopped(&mut self, cell: usize) {
        self.stopped[cell] = self.clock;
        self.forget(|sample| sample.cell == cell);
    }

    /// Looks who has gone on; a sentence for each who took too long.
    pub fn look(&mut self, crew: &Crew) -> Result<Vec<String>> {
        let mut faults = Vec::new();
        let mut open = Vec::new();
        for sample in std::mem::take(&mut self.open) {
            let member = &crew.members[sample.seat];
            if member.generation != sample.generation {
                self.dropped += 1;
                continue;
            }
            if crew.board.get(sample.seat, Word::Answered) < sample.death {
                open.push(sample);
                continue;
            }
            let at_ns = crew.board.get(sample.seat, Word::AnsweredNs);
            let time_ns = at_ns.saturating_sub(sample.at_ns);
            let fresh = || Histogram::new_with_max(NS_MAX, DIGITS);
            let times = match self.times.entry(sample.killed) {
                std::collections::btree_map::Entry::Occupied(times) => times.into_mut(),
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(fresh().context("cannot make a histogram")?)
                }
            };
            times.saturating_record(time_ns);
            if time_ns > STANDSTILL_MAX.as_nanos() as u64 {
                let (name, killed) = (member.name(), sample.killed);
                let seconds = time_ns as f64 / 1e9;
                faults.push(format!("{name} went on {seconds:.1} s after a {killed} was killed"));
            }
        }
        self.open = open;
        Ok(faults)
    }

    /// Whoever stands still although nobody in its cell is stopped.
    pub fn wedged<'a>(&mut self, crew: &'a Crew) -> Vec<&'a Member> {
        let mut wedged = Vec::new();
        for member in crew.members.iter().filter(|member| member.lives()) {
            let noted = (member.generation, crew.board.get(member.seat, Word::Beat));
            let (seen, since) = &mut self.beats[member.seat];
            if *seen != noted {
                (*seen, *since) = (noted, self.clock);
            }
            let still = self.clock - self.stopped[member.cell].max(*since);
            if still > STANDSTILL_MAX && !is_stopped(crew, member.cell) {
                wedged.push(member);
            }
        }
        wedged
    }
}

/// Whether a publisher of a cell is at work.
fn publishes(crew: &Crew, cell: usize) -> bool {
    crew.members.iter().any(|member| {
        let joined = crew.board.get(member.seat, Word::Joined) == 1;
        member.cell == cell && member.job == Job::Publish && member.lives() && joined
    })
}

/// Whether anybody is stopped who could hold up a cell.
fn is_stopped(crew: &Crew, cell: usize) -> bool {
    crew.members.iter().any(|member| {
        let concerns = member.cell == cell || member.job == Job::Inspect;
        concerns && member.stopped_until.is_some()
    })
}
