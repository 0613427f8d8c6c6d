//! How soon survivors go on after a death, and whether anybody stands still.
//!
//! A sample begins when the supervisor has seen a death, and ends when one subscriber of that topic
//! has a message that was published after that. It measures only what the death did: if anybody is
//! stopped meanwhile who may hold others up, it is dropped from the figures. It is watched all the
//! same, by the clock of its cell, which goes only while the supervisor runs and nobody who matters
//! to the cell is stopped: so no stop hides that somebody stands still.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use hdrhistogram::Histogram;

use super::board::Word;
use super::cells::{self, Job, CELLS};
use super::crew::{Crew, Member};
use crate::clock;

/// A sample that is dropped may not be older than this part of what nobody stands still for: what is
/// not in the figures must not be bad.
const DROPPED_PART: u32 = 5;
/// A supervisor that did not run for so long stood still itself, and with it the machine: nothing
/// that was being measured then says anything about the bus.
const AWAY: Duration = Duration::from_secs(1);
/// What a look adds to the clocks at most.
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
    /// When it began, by the clock of its cell.
    since: Duration,
    /// Whether anybody was stopped meanwhile.
    disturbed: bool,
}

/// All samples.
pub struct Recovery {
    /// Nobody stands still for this long on account of a death, nor without any reason. What the
    /// library promises is milliseconds; this is what a machine with far more processes than cores
    /// may add.
    pub standstill_max: Duration,
    open: Vec<Sample>,
    /// By what was killed.
    pub times: BTreeMap<&'static str, Histogram<u64>>,
    /// Samples that were dropped.
    pub dropped: u64,
    /// How old the oldest of them was, by the clock of its cell.
    pub dropped_oldest: Duration,
    /// Times that the machine stood still.
    pub away: u64,
    /// The clock of each cell.
    clocks: Vec<Duration>,
    last: Instant,
    /// What each seat last noted, and when that was first seen, by the clock of its cell.
    beats: Vec<((u32, u64), Duration)>,
    faults: Vec<String>,
}

impl Recovery {
    /// No samples.
    pub fn new(standstill_max: Duration) -> Self {
        Self {
            standstill_max,
            open: Vec::new(),
            times: BTreeMap::new(),
            dropped: 0,
            dropped_oldest: Duration::ZERO,
            away: 0,
            clocks: vec![Duration::ZERO; CELLS.len()],
            last: Instant::now(),
            beats: vec![((0, 0), Duration::ZERO); cells::seats().count()],
            faults: Vec::new(),
        }
    }

    /// From now on the clocks go.
    pub fn start(&mut self) {
        self.last = Instant::now();
    }

    /// The supervisor runs: to be called all the time, and between a stop and its end.
    pub fn tick(&mut self, crew: &Crew) {
        let passed = self.last.elapsed();
        self.last = Instant::now();
        self.advance(crew, passed);
    }

    fn advance(&mut self, crew: &Crew, passed: Duration) {
        let away = passed > AWAY;
        self.away += u64::from(away);
        let stopped: Vec<_> = (0..CELLS.len()).map(|cell| is_stopped(crew, cell)).collect();
        for sample in &mut self.open {
            sample.disturbed |= away || stopped[sample.cell];
        }
        for (clock, _) in self.clocks.iter_mut().zip(stopped).filter(|(_, stopped)| !stopped) {
            *clock += passed.min(LOOK_MAX);
        }
    }

    /// The supervisor has seen a death.
    pub fn died(&mut self, crew: &Crew, victim: usize) {
        let (job, cell) = (crew.members[victim].job, crew.members[victim].cell);
        let at_ns = clock::now_ns();
        self.forget(crew, |sample| sample.seat == victim);
        match job {
            Job::Inspect => {
                // It may have been repairing any of them.
                (0..CELLS.len()).for_each(|cell| self.begin(crew, cell, "inspector", at_ns));
            }
            Job::Publish if !publishes(crew, cell) => {
                // What was measured of other deaths now waits for a successor of this one.
                self.forget(crew, |sample| sample.cell == cell);
                self.begin(crew, cell, "only publisher", at_ns);
            }
            _ if publishes(crew, cell) => self.begin(crew, cell, job.word(), at_ns),
            _ => {}
        }
    }

    fn begin(&mut self, crew: &Crew, cell: usize, killed: &'static str, at_ns: u64) {
        // A publisher that waits to evict somebody is held up by the living.
        let evicts = CELLS[cell].options.evict_after_ms > 0;
        if evicts || !CELLS[cell].has_topic() {
            return;
        }
        let death = crew.board.count_death(cell);
        let (since, disturbed) = (self.clocks[cell], is_stopped(crew, cell));
        for member in crew.members.iter().filter(|member| member.cell == cell) {
            let joined = crew.board.get(member.seat, Word::Joined) == 1;
            if member.job.is_prompt() && member.lives() && joined {
                let (seat, generation) = (member.seat, member.generation);
                self.open.push(Sample {
                    seat,
                    generation,
                    cell,
                    death,
                    at_ns,
                    killed,
                    since,
                    disturbed,
                });
            }
        }
    }

    fn forget(&mut self, crew: &Crew, which: impl Fn(&Sample) -> bool) {
        let (gone, open) = std::mem::take(&mut self.open).into_iter().partition(which);
        self.open = open;
        gone.into_iter().for_each(|sample| self.drop(crew, &sample));
    }

    /// A sample does not count, and must not have been bad.
    fn drop(&mut self, crew: &Crew, sample: &Sample) {
        let age = self.clocks[sample.cell] - sample.since;
        self.dropped += 1;
        self.dropped_oldest = self.dropped_oldest.max(age);
        if age > self.standstill_max / DROPPED_PART {
            self.accuse(crew, sample, age);
        }
    }

    /// Somebody did not go on.
    fn accuse(&mut self, crew: &Crew, sample: &Sample, age: Duration) {
        let (name, killed) = (crew.members[sample.seat].name(), sample.killed);
        let seconds = age.as_secs_f64();
        self.faults.push(format!(
            "{name} had nothing new for {seconds:.1} s after a death ({killed}), not counting stops"
        ));
    }

    /// Looks who has gone on; a sentence for each who took too long.
    pub fn look(&mut self, crew: &Crew) -> Result<Vec<String>> {
        for sample in std::mem::take(&mut self.open) {
            let same = crew.members[sample.seat].generation == sample.generation;
            let answered = same && crew.board.get(sample.seat, Word::Answered) >= sample.death;
            let age = self.clocks[sample.cell] - sample.since;
            if !same || sample.disturbed && (answered || age > self.standstill_max / DROPPED_PART) {
                self.drop(crew, &sample);
            } else if answered {
                let at_ns = crew.board.get(sample.seat, Word::AnsweredNs);
                self.enter(crew, &sample, at_ns.saturating_sub(sample.at_ns))?;
            } else if age > self.standstill_max {
                self.accuse(crew, &sample, age);
            } else {
                self.open.push(sample);
            }
        }
        Ok(std::mem::take(&mut self.faults))
    }

    fn enter(&mut self, crew: &Crew, sample: &Sample, time_ns: u64) -> Result<()> {
        let fresh = || Histogram::new_with_max(NS_MAX, DIGITS);
        let times = match self.times.entry(sample.killed) {
            std::collections::btree_map::Entry::Occupied(times) => times.into_mut(),
            std::collections::btree_map::Entry::Vacant(place) => {
                place.insert(fresh().context("cannot make a histogram")?)
            }
        };
        times.saturating_record(time_ns);
        let time = Duration::from_nanos(time_ns);
        if time > self.standstill_max {
            self.accuse(crew, sample, time);
        }
        Ok(())
    }

    /// The killing is over: whoever has not gone on by now is not waited for.
    pub fn end(&mut self, crew: &Crew) -> Vec<String> {
        self.forget(crew, |_| true);
        std::mem::take(&mut self.faults)
    }

    /// Whoever stands still, not counting the time in which anybody was stopped who matters to it.
    pub fn wedged<'a>(&mut self, crew: &'a Crew) -> Vec<&'a Member> {
        let mut wedged = Vec::new();
        for member in crew.members.iter().filter(|member| member.lives()) {
            let noted = (member.generation, crew.board.get(member.seat, Word::Beat));
            let (seen, since) = &mut self.beats[member.seat];
            if *seen != noted {
                (*seen, *since) = (noted, self.clocks[member.cell]);
            }
            if self.clocks[member.cell] - *since > self.standstill_max {
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

/// Whether anybody is stopped who could hold up a cell: one of its own, or an inspector at work, but
/// not one that rests, nor whoever has another topic.
fn is_stopped(crew: &Crew, cell: usize) -> bool {
    crew.members.iter().filter(|member| member.stopped_until.is_some()).any(|member| {
        let inspects = || crew.board.get(member.seat, Word::Joined) == 1;
        member.cell == cell || member.job == Job::Inspect && inspects()
    })
}

#[cfg(test)]
#[path = "recovery_tests.rs"]
mod tests;
