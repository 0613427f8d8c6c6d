//! A killer that strikes at random instants, and sometimes only stops its victim for a while.
//!
//! On each of four topics publishers and subscribers come, are killed, and are replaced, while two
//! subscribers and a publisher survive. The seed decides who is killed and when, as far as the
//! machine lets it.

use crate::cell::Receipts;
use crate::content::{self, Ledger};
use crate::figures::{show, Times};
use crate::place::{self, Place};
use crate::process::{self, Event, Fate, Process};
use crate::role::{self, TOPIC};
use crate::survivors::{Demand, Note, Survivors, LIMIT, WATCHERS};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use windlass::Bus;

const KILLS: u64 = 300;
const KINDS: &[&str] = &["reliable", "lossy", "ordered", "ordered-lossy"];
const ROLES: &[&str] = &["stream", "follow", "churn"];
/// The kernel of a busy machine may take its time to end a process.
const DEATH_MAX: Duration = Duration::from_secs(30);
/// Most deaths cost the survivors no more than this, on a machine with many more processes than cores.
const RECOVERY_MAX: Duration = Duration::from_millis(100);

/// A stream of numbers that a seed determines (the generator of Vigna, `splitmix64`).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % limit
    }
}

pub fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text}")))
}

/// One topic on a bus of its own, with those who die on it.
struct Arena {
    kind: &'static str,
    _place: Place,
    path: std::path::PathBuf,
    desk: Bus,
    survivors: Survivors,
    mortals: Vec<(&'static str, Process)>,
    receipts: Receipts,
    tag: u32,
    faults: Vec<String>,
}

impl Arena {
    fn open(kind: &'static str) -> windlass::Result<Self> {
        let place = Place::new();
        let path = place.bus();
        let desk = role::bus(&path)?;
        let survivors = Survivors::start(&path, kind);
        survivors.demand(Demand::Flow);
        let spawn = |role| (role, Process::spawn(role, &path, kind, 0, &Fate::Quiet));
        let mortals = ROLES.iter().map(|role| spawn(*role)).collect();
        let (receipts, faults) = (Receipts::default(), Vec::new());
        Ok(Self { kind, _place: place, path, desk, survivors, mortals, receipts, tag: 0, faults })
    }

    /// Kills a mortal, puts another in its place, and measures how soon the survivors go on.
    fn strike(&mut self, mortal: usize) -> Option<Duration> {
        let (role, victim) = &mut self.mortals[mortal];
        victim.signal(Signal::SIGKILL);
        let (role, victim_pid) = (*role, victim.pid);
        let death = self.drain(mortal)?;
        let first = self.recover(victim_pid, death);
        let process = Process::spawn(role, &self.path, self.kind, 0, &Fate::Quiet);
        self.mortals[mortal] = (role, process);
        if first.is_none() {
            self.faults.push(format!("the survivors do not go on after a {role} was killed"));
        }
        first
    }

    /// Stops a mortal for `time`. It goes on then, unless it is killed before it can.
    fn freeze(&mut self, mortal: usize, time: Duration) {
        let (_, process) = &self.mortals[mortal];
        process.signal(Signal::SIGSTOP);
        process::pause(time);
        process.signal(Signal::SIGCONT);
    }

    /// Reads what a process said until it ended.
    fn drain(&mut self, mortal: usize) -> Option<Instant> {
        let (role, process) = &mut self.mortals[mortal];
        let mut log = Vec::new();
        loop {
            match process.next(DEATH_MAX) {
                None => {
                    let state = process.describe();
                    self.faults.push(format!("a killed {role} does not end: {state}"));
                    return None;
                }
                Some(Event::Said(line)) if self.receipts.enter(&line) || line == "joined" => {}
                Some(Event::Said(line)) => self.faults.push(format!("{role} says: {line}")),
                Some(Event::Logged(line)) => log.push(line),
                Some(Event::Stopped) => {}
                Some(Event::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _), at)) => {
                    return Some(at);
                }
                Some(Event::Ended(status, at)) => {
                    self.faults.push(format!("{role} ended with {status:?}: {log:?}"));
                    return Some(at);
                }
            }
        }
    }

    fn recover(&mut self, victim: u32, death: Instant) -> Option<Duration> {
        self.tag += 1;
        let again = match role::delivery(self.kind).reliable {
            true => LIMIT,
            false => Duration::from_millis(10),
        };
        let mut pongs = BTreeMap::new();
        while pongs.len() < WATCHERS && death.elapsed() < LIMIT {
            self.survivors.demand(Demand::Ping(self.tag));
            let asked = Instant::now();
            while let Ok(note) =
                self.survivors.notes.recv_timeout(again.saturating_sub(asked.elapsed()))
            {
                match note {
                    Note::Pong(who, tag, at) if tag == self.tag => {
                        pongs.entry(who).or_insert(at);
                    }
                    Note::Full(blocker, began) if blocker.pid == victim && began > death => {
                        self.faults.push(format!("the dead are said to block: {blocker:?}"));
                    }
                    Note::Fault(fault) => self.faults.push(fault),
                    _ => {}
                }
                if pongs.len() == WATCHERS {
                    break;
                }
            }
        }
        let last = pongs.values().max()?;
        (pongs.len() == WATCHERS).then(|| *last - death)
    }

    /// Kills everybody, and compares the books.
    fn close(mut self) -> windlass::Result<Vec<String>> {
        self.faults.clear();
        for mortal in 0..self.mortals.len() {
            self.mortals[mortal].1.signal(Signal::SIGKILL);
            self.drain(mortal);
        }
        self.survivors.hush();
        // Repair ends what the dead had half done.
        self.desk.repair()?;
        let info = self.desk.inspect(TOPIC)?;
        let mut published: BTreeMap<u32, u64> =
            info.publishers.iter().map(|lane| (lane.lane, lane.published)).collect();
        for (lane, committed) in &self.receipts.committed {
            let (found, tried) = (published.get(lane), self.receipts.tried.get(lane));
            if found < Some(committed) || found > tried {
                let fault = format!("lane {lane} has {found:?}: {committed}, {tried:?} tried");
                self.faults.push(fault);
            }
        }
        let mut last = role::topic(&self.desk, self.kind)?.publisher()?;
        *published.entry(last.lane()).or_default() += 1;
        let message = content::message(last.lane(), last.sequence(), 0);
        let mut refused = None;
        let (ledgers, notes) = self.survivors.end(published.values().sum(), || {
            refused = last.publish_timeout(&message, LIMIT).err();
        });
        drop(last);
        self.faults.extend(refused.map(|error| format!("the last message is refused: {error}")));
        for note in notes {
            if let Note::Fault(fault) = note {
                self.faults.push(fault);
            }
        }
        let check = |ledger: &mut Ledger| ledger.close(&published);
        for mut ledger in ledgers {
            check(&mut ledger);
            let (received, missed) = (ledger.received, ledger.missed);
            show(&format!("  {:<14} {received} received, {missed} missed", self.kind));
            self.faults.extend(ledger.faults);
        }
        self.faults.extend(place::check_leftovers(&self.path, self.kind, &self.desk)?);
        Ok(self.faults)
    }
}

pub fn run() -> windlass::Result<()> {
    let began = Instant::now();
    let kills = number("WINDLASS_KILLS").unwrap_or(KILLS);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let fresh = now.map_or(1, |now| now.subsec_nanos().into());
    let seed = number("WINDLASS_SEED").unwrap_or(fresh);
    show(&format!("{kills} random kills, WINDLASS_SEED={seed}"));
    let mut dice = Dice(seed);
    let arenas: windlass::Result<Vec<_>> = KINDS.iter().map(|kind| Arena::open(kind)).collect();
    let mut arenas = arenas?;
    let mut times: BTreeMap<&str, Times> = BTreeMap::new();
    let (mut stops, mut strikes) = (0, 0);
    while strikes < kills {
        process::pause(Duration::from_micros(dice.below(25_000)));
        let arena = dice.below(KINDS.len() as u64) as usize;
        let mortal = dice.below(ROLES.len() as u64) as usize;
        if dice.below(8) == 0 {
            arenas[arena].freeze(mortal, Duration::from_micros(dice.below(90_000)));
            stops += 1;
            if dice.below(2) == 0 {
                continue;
            }
        }
        strikes += 1;
        let first = arenas[arena].strike(mortal);
        if !arenas[arena].faults.is_empty() {
            // Survivors that do not go on would only make it longer.
            break;
        }
        first.iter().for_each(|time| times.entry(ROLES[mortal]).or_default().add(*time));
    }
    let mut faults = Vec::new();
    for arena in arenas {
        let kind = arena.kind;
        faults.extend(arena.faults.iter().map(|fault| format!("{kind}: {fault}")));
        match arena.close() {
            Ok(found) => faults.extend(found.into_iter().map(|fault| format!("{kind}: {fault}"))),
            Err(error) => faults.push(format!("{kind}: {error}")),
        }
    }
    for (role, times) in &times {
        show(&format!("until all survivors have a new message after a {role} died: {times}"));
    }
    show(&format!("{stops} were stopped for up to 90 ms, half of them killed then"));
    show(&format!("the random kills took {:?}", began.elapsed()));
    assert!(faults.is_empty(), "WINDLASS_SEED={seed}: {faults:#?}");
    for (role, times) in &times {
        let median = times.quantile(0.5);
        assert!(
            median < RECOVERY_MAX,
            "WINDLASS_SEED={seed}: recovery from {role} takes {median:?}"
        );
    }
    Ok(())
}
