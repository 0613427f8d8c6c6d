//! A queue of tokens, with a process killed or stopped at each of its points.

use crate::figures::{show, Times};
use crate::place::Place;
use crate::points;
use crate::process::{say, Event, Fate, Process};
use crate::role;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use windlass::{Bus, TokenError, TokenQueue};

/// What the points of a queue begin with.
pub const POINTS: &str = "tokens.";
/// The role of the victim.
pub const ROLE: &str = "tokens";

const CAPACITY: u64 = 8;
/// Tokens that are in the queue before the victim comes.
const BEFORE: u64 = 4;
/// Tokens of the victim begin here, and those of survivors there.
const MINE: u64 = 1000;
const THEIRS: u64 = 2000;
/// Tokens of the victim.
const COUNT: u64 = 24;
/// Survivors go on within this time.
const RECOVERY_MAX: Duration = Duration::from_millis(100);
/// How often a run that took longer is repeated: what is slow every time is not the machine's doing.
const REPEATS: usize = 4;
/// Longest silence of a victim.
const SILENCE_MAX: Duration = Duration::from_secs(30);

fn queue(bus: &Bus) -> windlass::Result<TokenQueue> {
    bus.tokens("q").capacity(CAPACITY).open()
}

/// Pushes a token and pops one, again and again. Says `try`, `has` and `got`.
pub fn play(path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let queue = queue(&role::bus(path)?)?;
    for token in MINE..MINE + COUNT {
        say(&format!("try {token}"));
        queue.push(token)?;
        say(&format!("has {token}"));
        if let Some(token) = queue.pop()? {
            say(&format!("got {token}"));
        }
    }
    Ok(())
}

/// What went in and what came out.
#[derive(Debug, Default)]
struct Books {
    tried: BTreeSet<u64>,
    pushed: BTreeSet<u64>,
    popped: Vec<u64>,
    faults: Vec<String>,
}

impl Books {
    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    fn heard(&mut self, line: &str) {
        let number = || line.split(' ').nth(1).and_then(|word| word.parse().ok());
        match (line.split(' ').next(), number()) {
            (Some("try"), Some(token)) => drop(self.tried.insert(token)),
            (Some("has"), Some(token)) => drop(self.pushed.insert(token)),
            (Some("got"), Some(token)) => self.popped.push(token),
            (Some("done"), None) => {}
            _ => self.fault(format!("the victim says: {line}")),
        }
    }

    fn push(&mut self, queue: &TokenQueue, token: u64) -> Result<(), TokenError> {
        self.tried.insert(token);
        queue.push(token)?;
        self.pushed.insert(token);
        Ok(())
    }

    /// Three times around the ring: everything that is in comes out, and every slot works.
    fn go_around(&mut self, queue: &TokenQueue, from: u64) -> Duration {
        let began = Instant::now();
        for token in from..from + 3 * CAPACITY {
            let popped = queue.pop();
            match popped {
                Ok(token) => self.popped.extend(token),
                Err(error) => self.fault(format!("a survivor cannot pop: {error}")),
            }
            if let Err(error) = self.push(queue, token) {
                self.fault(format!("a survivor cannot push: {error}"));
            }
        }
        began.elapsed()
    }

    /// Everything that was pushed came out once, but for `lost` tokens.
    fn balance(&mut self, lost_max: usize) {
        let out: BTreeSet<u64> = self.popped.iter().copied().collect();
        if out.len() != self.popped.len() {
            self.fault(format!("popped twice: {:?}", self.popped));
        }
        let unknown: Vec<_> = out.difference(&self.tried).collect();
        let missing: Vec<_> = self.pushed.difference(&out).collect();
        if !unknown.is_empty() || missing.len() > lost_max {
            let fault = format!("nobody pushed {unknown:?}; {missing:?} did not come out");
            self.fault(fault);
        }
    }
}

#[derive(Debug, Default)]
struct Outcome {
    reached: bool,
    recovery: Duration,
    hits: BTreeMap<String, u32>,
    faults: Vec<String>,
}

fn run_one(fate: &Fate) -> windlass::Result<Outcome> {
    let (place, mut books, mut outcome) = (Place::new(), Books::default(), Outcome::default());
    let bus = role::bus(&place.bus())?;
    let queue = queue(&bus)?;
    for token in 0..BEFORE {
        if let Err(error) = books.push(&queue, token) {
            books.fault(format!("an empty queue refuses: {error}"));
        }
    }
    let mut process = Process::spawn(ROLE, &place.bus(), "", 0, fate);
    loop {
        match process.next(SILENCE_MAX) {
            None => {
                books.fault(format!("the victim does nothing: {}", process.describe()));
                break;
            }
            Some(Event::Said(line)) => books.heard(&line),
            Some(Event::Logged(line)) => {
                if let Some(step) = line.strip_prefix("step ") {
                    *outcome.hits.entry(step.into()).or_default() += 1;
                }
            }
            Some(Event::Stopped) => {
                outcome.reached = true;
                outcome.recovery = books.go_around(&queue, THEIRS);
                process.signal(Signal::SIGCONT);
            }
            Some(Event::Ended(status, _)) => {
                let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
                outcome.reached |= killed;
                if killed != matches!(fate, Fate::Kill(..)) {
                    books.fault(format!("the victim ended with {status:?}"));
                }
                break;
            }
        }
    }
    let time = books.go_around(&queue, 2 * THEIRS);
    outcome.recovery = outcome.recovery.max(time);
    while let Ok(Some(token)) = queue.pop() {
        books.popped.push(token);
    }
    // Whoever dies when a token is popped, and before it has told anybody, takes it along.
    books.balance(usize::from(matches!(fate, Fate::Kill(..))));
    let full = (0..CAPACITY).map(|token| queue.push(token)).chain([queue.push(0)]);
    let full: Vec<_> = full.collect();
    if full.iter().filter(|pushed| pushed.is_ok()).count() as u64 != CAPACITY {
        books.fault(format!("slots are lost: {full:?}"));
    }
    if let Err(error) = queue.check() {
        books.fault(error.to_string());
    }
    outcome.faults = books.faults;
    Ok(outcome)
}

/// Runs every point at its first, middle and last pass, with a death and with a stop.
pub fn run() -> windlass::Result<()> {
    let hits = run_one(&Fate::Live)?.hits;
    let (mut times, mut faults, mut slow) = (Times::default(), 0, Vec::new());
    let points: BTreeSet<String> =
        points::all().into_iter().filter(|point| point.starts_with(POINTS)).collect();
    let (mut killed, mut stopped) = (BTreeSet::new(), BTreeSet::new());
    for (step, last) in hits.iter().filter(|(step, _)| points.contains(*step)) {
        for hit in BTreeSet::from([1, 2, last.div_ceil(2), last - 1, *last]) {
            for fate in [Fate::Kill(step.clone(), hit), Fate::Stop(step.clone(), hit)] {
                let outcome = run_one(&fate)?;
                for fault in &outcome.faults {
                    show(&format!("FAULT {fate:?}: {fault}"));
                }
                faults += outcome.faults.len();
                times.add(outcome.recovery);
                if outcome.recovery > RECOVERY_MAX {
                    slow.push(fate.clone());
                }
                if outcome.reached {
                    let of =
                        if matches!(fate, Fate::Kill(..)) { &mut killed } else { &mut stopped };
                    of.insert(step.clone());
                }
            }
        }
    }
    show(&format!("tokens: three times around the ring beside the dead or stopped: {times}"));
    assert_eq!(killed, points, "these points should each have killed somebody");
    assert_eq!(stopped, points, "these points should each have stopped somebody");
    assert_eq!(faults, 0, "the faults are above");
    for fate in slow {
        let again = (0..REPEATS).map(|_| run_one(&fate).map(|outcome| outcome.recovery));
        let again: windlass::Result<Vec<_>> = again.collect();
        let least = again?.into_iter().min().unwrap_or_default();
        assert!(least <= RECOVERY_MAX, "{fate:?}: survivors need {least:?} each time");
    }
    Ok(())
}
