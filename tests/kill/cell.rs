//! One scenario with one fate of its victim, and everything that must hold afterwards.

use crate::content::{self, Ledger};
use crate::place::{self, Place};
use crate::process::{Event, Fate, Process};
use crate::role::{self, PUBLISHERS, TOPIC};
use crate::scenario::Scenario;
use crate::survivors::{Demand, Note, Survivors, LIMIT, WATCHERS};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use windlass::{Bus, Publisher, Raw, RecvError, Start, Subscriber, TopicInfo};

/// How long a victim stays stopped: longer than every period of the library.
const STOPPED: Duration = Duration::from_millis(230);

/// Messages of each heir.
const HEIRLOOM: u64 = 3;

/// What processes said about their messages: for each lane the end of what they tried and of what
/// they committed.
#[derive(Debug, Default)]
pub struct Receipts {
    pub tried: BTreeMap<u32, u64>,
    pub committed: BTreeMap<u32, u64>,
}

impl Receipts {
    /// Enters what a process said. False if it is not about a message.
    pub fn enter(&mut self, said: &str) -> bool {
        let mut words = said.split(' ');
        let book = match words.next() {
            Some("try") => &mut self.tried,
            Some("has") => &mut self.committed,
            _ => return false,
        };
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let (Some(lane), Some(sequence)) = (number(), number()) else { return false };
        let end = book.entry(lane as u32).or_default();
        *end = (*end).max(sequence + 1);
        true
    }
}

/// How a run went.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Whether the victim was killed or stopped at its point.
    pub reached: bool,
    /// From the death until all survivors had a new message.
    pub first: Option<Duration>,
    /// From the death until the publisher had been twice around its lane.
    pub laps: Option<Duration>,
    /// Whether a stopped victim held the publisher up, which named it.
    pub named: bool,
    /// How often the victim passed each point.
    pub hits: BTreeMap<String, u32>,
    pub faults: Vec<String>,
}

struct Run<'a> {
    scenario: &'a Scenario,
    fate: &'a Fate,
    path: PathBuf,
    desk: Option<Bus>,
    stuck: Option<Subscriber<Raw>>,
    survivors: Option<Survivors>,
    receipts: Receipts,
    victim: u32,
    death: Option<Instant>,
    stopped: bool,
    done: bool,
    tag: u32,
    pongs: BTreeMap<usize, Instant>,
    lapped: Option<Instant>,
    outcome: Outcome,
}

/// Runs the scenario with that fate of its victim.
pub fn run(scenario: &Scenario, fate: &Fate) -> Outcome {
    let place = Place::new();
    let mut run = Run {
        scenario,
        fate,
        path: place.bus(),
        desk: None,
        stuck: None,
        survivors: None,
        receipts: Receipts::default(),
        victim: 0,
        death: None,
        stopped: false,
        done: false,
        tag: 0,
        pongs: BTreeMap::new(),
        lapped: None,
        outcome: Outcome::default(),
    };
    if let Err(error) = run.play() {
        run.fault(format!("an error: {error}"));
    }
    let held = place.held();
    if run.outcome.faults.is_empty() && !held.is_empty() {
        run.fault(format!("still mapped or open: {held:?}"));
    }
    run.outcome
}

impl Run<'_> {
    fn fault(&mut self, fault: impl Into<String>) {
        self.outcome.faults.push(fault.into());
    }

    fn play(&mut self) -> windlass::Result<()> {
        if self.scenario.exists {
            self.settle()?;
        }
        for primer in self.scenario.primers {
            let fate = Fate::Kill(primer.step.into(), primer.hit);
            if !self.process(primer.role, &fate) {
                self.fault(format!("primer {} was not killed at {}", primer.role, primer.step));
            }
        }
        if !self.scenario.quiet {
            self.demand(Demand::Flow);
        }
        let (role, fate) = (self.scenario.role, self.fate);
        self.outcome.reached = self.process(role, fate);
        if self.survivors.is_none() {
            self.settle()?;
        }
        self.recover();
        self.stuck = None;
        self.account()
    }

    /// Makes the survivors join.
    fn settle(&mut self) -> windlass::Result<()> {
        let desk = role::bus(&self.path)?;
        let topic = role::topic(&desk, self.scenario.kind)?;
        self.survivors = Some(Survivors::start(&self.path, self.scenario.kind));
        if self.scenario.stuck {
            self.stuck = Some(topic.subscriber(Start::Latest)?);
        }
        self.desk = Some(desk);
        Ok(())
    }

    fn demand(&self, demand: Demand) {
        if let Some(survivors) = &self.survivors {
            survivors.demand(demand);
        }
    }

    /// Lets a process play its role to its end. Whether it was interrupted where it should be.
    fn process(&mut self, role: &str, fate: &Fate) -> bool {
        let (kind, count) = (self.scenario.kind, self.scenario.count);
        let mut process = Process::spawn(role, &self.path, kind, count, fate);
        (self.victim, self.death, self.done) = (process.pid, None, false);
        let mut stopped = false;
        let mut log = Vec::new();
        loop {
            match process.next(2 * LIMIT) {
                None => {
                    let state = process.describe();
                    self.fault(format!("{role} does nothing: {state}; it said {log:?}"));
                    return false;
                }
                Some(Event::Said(line)) => self.heard(role, &line),
                Some(Event::Logged(line)) => match line.strip_prefix("step ") {
                    Some(step) => *self.outcome.hits.entry(step.into()).or_default() += 1,
                    None => log.push(line),
                },
                Some(Event::Stopped) => {
                    stopped = true;
                    self.while_stopped();
                    process.signal(Signal::SIGCONT);
                    self.stopped = false;
                }
                Some(Event::Ended(status, at)) => {
                    self.death = Some(at);
                    let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
                    let whole = matches!(status, WaitStatus::Exited(_, 0)) && self.done;
                    if !(whole || killed && matches!(fate, Fate::Kill(..))) {
                        self.fault(format!("{role} ended with {status:?}: {log:?}"));
                    }
                    return killed || stopped;
                }
            }
        }
    }

    fn heard(&mut self, role: &str, line: &str) {
        if self.receipts.enter(line) {
            return;
        }
        match line {
            "joined" => self.demand(Demand::Flow),
            "done" => self.done = true,
            "evicted" => {}
            line => self.fault(format!("{role} says: {line}")),
        }
    }

    /// Takes in what the survivors tell, for `time` at most or until `enough`.
    fn listen(&mut self, time: Duration, enough: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + time;
        while !enough(self) {
            let left = end.saturating_duration_since(Instant::now());
            let Some(survivors) = &self.survivors else { return false };
            let Ok(note) = survivors.notes.recv_timeout(left) else { return false };
            self.note(note);
        }
        true
    }

    /// Listens, and on a lossy topic, where a message may be overtaken, asks again for an answer.
    fn insist(&mut self, time: Duration, enough: impl Fn(&Self) -> bool) -> bool {
        let end = Instant::now() + time;
        let again = match role::delivery(self.scenario.kind).reliable {
            true => LIMIT,
            false => Duration::from_millis(10),
        };
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if self.listen(again.min(left), &enough) {
                return true;
            }
            if left.is_zero() {
                return false;
            }
            self.demand(Demand::Ping(self.tag));
        }
    }

    fn note(&mut self, note: Note) {
        match note {
            Note::Ready => {}
            // A ping that was asked for before is not an answer.
            Note::Pong(who, tag, at) if tag >= self.tag => {
                self.pongs.entry(who).or_insert(at);
            }
            Note::Pong(..) => {}
            Note::Lapped(at) => self.lapped = Some(at),
            Note::Full(blocker, began) => {
                let names = blocker.pid == self.victim;
                self.outcome.named |= names && self.stopped;
                if names && self.death.is_some_and(|death| began > death) {
                    self.fault(format!("the dead are said to block: {blocker:?}"));
                }
            }
            Note::Fault(fault) => self.fault(fault),
        }
    }

    fn ping(&mut self) {
        self.tag += 1;
        self.pongs.clear();
        self.lapped = None;
        self.demand(Demand::Ping(self.tag));
    }

    /// The victim is stopped. Others go on, or say that they wait for it; nobody takes it for dead.
    fn while_stopped(&mut self) {
        let since = Instant::now();
        self.stopped = true;
        if self.survivors.is_none() {
            if let Err(error) = self.settle() {
                self.fault(format!("joining beside a stopped process: {error}"));
                return;
            }
        }
        // First the message, then the laps, which overtake it on a lossy topic.
        self.ping();
        self.insist(STOPPED / 2, |run| run.pongs.len() == WATCHERS);
        self.demand(Demand::Laps(2));
        self.listen((STOPPED / 2).saturating_sub(since.elapsed()), |_| false);
        if let Err(error) = self.check_alive() {
            self.fault(format!("looking at a stopped process: {error}"));
        }
        self.listen(STOPPED.saturating_sub(since.elapsed()), |_| false);
        let evicts = self.scenario.kind == "evicting";
        let excused = |run: &Self| run.outcome.named && run.scenario.role != "publish";
        let goes_on = |run: &Self| (evicts || run.pongs.len() == WATCHERS) && run.lapped.is_some();
        if !self.insist(LIMIT / 4, |run| goes_on(run) || excused(run)) {
            let (pongs, lapped) = (&self.pongs, self.lapped);
            let fault = format!("a stopped process stands in the way: {pongs:?} {lapped:?}");
            self.fault(fault);
        }
    }

    /// Nobody takes the victim for dead, and a repair takes nothing from it.
    fn check_alive(&mut self) -> windlass::Result<()> {
        let Some(desk) = self.desk.clone() else { return Ok(()) };
        let before = self.seats(&desk.inspect(TOPIC)?);
        let report = desk.repair()?;
        let info = desk.inspect(TOPIC)?;
        // It may delete the temporary of a builder that has not locked it yet, which makes another,
        // and a folder that was removed and not yet deleted.
        let unlocked = ["home.lock", "home.delete"];
        let unlocked =
            matches!(self.fate, Fate::Stop(step, _) if unlocked.contains(&step.as_str()));
        let taken = report.nodes + report.subscribers + report.lanes;
        let temporaries = if unlocked { 0 } else { report.temporaries };
        // The victims of some scenarios are stopped before they repair what the dead left.
        if self.scenario.primers.is_empty() && taken + temporaries > 0 {
            self.fault(format!("a repair took from the living: {report:?}"));
        }
        let dead = desk.nodes().into_iter().find(|node| node.pid == self.victim && !node.alive);
        if let Some(dead) = dead {
            self.fault(format!("a stopped process is taken for dead: {dead:?}"));
        }
        let after = self.seats(&info);
        let evicts = self.scenario.kind == "evicting";
        if before != after && !evicts {
            self.fault(format!("a stopped process had {before:?} and has {after:?}"));
        }
        Ok(())
    }

    /// The lanes and slots of the victim, and whether it is said to live.
    fn seats(&self, info: &TopicInfo) -> BTreeSet<(&'static str, u32, bool)> {
        let mine = |pid: Option<u32>| pid == Some(self.victim);
        let lanes = info.publishers.iter().filter(|lane| lane.held && mine(lane.pid));
        let slots = info.subscribers.iter().filter(|slot| mine(slot.pid));
        let mut seats: BTreeSet<_> = lanes.map(|lane| ("lane", lane.lane, lane.alive)).collect();
        seats.extend(slots.map(|slot| ("slot", slot.slot, slot.alive)));
        seats
    }

    /// Measures how soon the survivors go on.
    fn recover(&mut self) {
        let death = self.death.unwrap_or_else(Instant::now);
        if self.scenario.kind != "evicting" {
            self.ping();
            let all = |run: &Self| run.pongs.len() == WATCHERS;
            self.insist(LIMIT, all);
            match self.pongs.values().max() {
                Some(last) if all(self) => self.outcome.first = Some(*last - death),
                _ => self.fault("the survivors do not go on"),
            }
        }
        self.demand(Demand::Laps(2));
        self.lapped = None;
        if self.listen(LIMIT, |run| run.lapped.is_some()) {
            self.outcome.laps = self.lapped.map(|at| at - death);
        } else {
            self.fault("the publisher does not get around its lane");
        }
    }

    /// Takes all lanes, ends everything, and compares the books.
    fn account(&mut self) -> windlass::Result<()> {
        let (Some(mut survivors), Some(desk)) = (self.survivors.take(), self.desk.take()) else {
            return Ok(());
        };
        survivors.hush();
        let topic = role::topic(&desk, self.scenario.kind)?;
        if matches!(self.fate, Fate::Kill(_, 1)) {
            // Otherwise it is the heirs who heal.
            desk.repair()?;
            let info = desk.inspect(TOPIC)?;
            if info.publishers.iter().any(|lane| lane.held) {
                self.fault(format!("a repair left lanes: {:?}", info.publishers));
            }
            if info.subscribers.iter().any(|slot| !slot.alive) {
                self.fault(format!("a repair left slots: {:?}", info.subscribers));
            }
        }
        // It may stand in a segment that the dead had mapped and not yet announced.
        let mut newcomer = topic.subscriber(Start::Latest)?;
        let mut heirs = Vec::new();
        for _ in 0..PUBLISHERS {
            heirs.push(topic.publisher()?);
        }
        for heir in &mut heirs {
            self.inherit(heir);
        }
        let info = desk.inspect(TOPIC)?;
        let mut published: BTreeMap<u32, u64> =
            info.publishers.iter().map(|lane| (lane.lane, lane.published)).collect();
        self.check_newcomer(&mut newcomer, &published);
        drop(newcomer);
        *published.entry(heirs[0].lane()).or_default() += 1;
        let mut refused = None;
        let (ledgers, notes) = survivors.end(published.values().sum(), || {
            let last = content::message(heirs[0].lane(), heirs[0].sequence(), 0);
            refused = heirs[0].publish_timeout(&last, LIMIT).err();
        });
        drop(heirs);
        if let Some(error) = refused {
            self.fault(format!("the last message is refused: {error}"));
        }
        for note in notes {
            self.note(note);
        }
        for (who, mut ledger) in ledgers.into_iter().enumerate() {
            ledger.close(&published);
            self.check_ledger(who, &ledger);
        }
        drop(topic);
        let faults = place::check_leftovers(&self.path, self.scenario.kind, &desk)?;
        self.outcome.faults.extend(faults);
        Ok(())
    }

    fn inherit(&mut self, heir: &mut Publisher<Raw>) {
        let (lane, next) = (heir.lane(), heir.sequence());
        let committed = *self.receipts.committed.get(&lane).unwrap_or(&0);
        let tried = *self.receipts.tried.get(&lane).unwrap_or(&0);
        // The survivor may have had the lane in between if it came later than the victim.
        let excess = self.scenario.exists && tried > 0 && next > tried;
        if next < committed || excess {
            let fault = format!("lane {lane} goes on at {next}: {committed}..={tried}");
            self.fault(fault);
        }
        for _ in 0..HEIRLOOM {
            let message = content::message(lane, heir.sequence(), 0);
            if let Err(error) = heir.publish_timeout(&message, LIMIT) {
                self.fault(format!("an heir cannot publish in lane {lane}: {error}"));
            }
        }
    }

    /// Whoever joined before the heirs has all that they published.
    fn check_newcomer(&mut self, newcomer: &mut Subscriber<Raw>, published: &BTreeMap<u32, u64>) {
        let mut ledger = Ledger::new(role::delivery(self.scenario.kind), false);
        loop {
            match newcomer.try_recv() {
                Ok(Some(message)) => {
                    ledger.take(&message);
                }
                Ok(None) => break,
                Err(RecvError::Lagged { missed }) => ledger.missed += missed,
                Err(error) => return self.fault(format!("a newcomer: {error}")),
            }
        }
        let (came, due) = (ledger.received + ledger.missed, HEIRLOOM * u64::from(PUBLISHERS));
        if came < due || &ledger.due != published || !ledger.faults.is_empty() {
            self.fault(format!("a newcomer has {ledger:?} of {published:?}"));
        }
    }

    fn check_ledger(&mut self, who: usize, ledger: &Ledger) {
        for fault in &ledger.faults {
            self.fault(format!("subscriber {who}: {fault}"));
        }
        if ledger.evicted {
            return;
        }
        // What an heir published came after it, so on a reliable topic it was delivered.
        let lost = self.receipts.committed.iter().find(|(lane, end)| {
            role::delivery(self.scenario.kind).reliable
                && ledger.due.get(*lane).unwrap_or(&0) < *end
        });
        if let Some((lane, end)) = lost {
            let fault = format!("subscriber {who} lacks messages of lane {lane} below {end}");
            self.fault(fault);
        }
    }
}
