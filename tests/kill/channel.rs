//! A channel, with a process killed or stopped at each of its points: once the sender, once the receiver.

use crate::figures::{show, Times};
use crate::place::Place;
use crate::points;
use crate::process::{pause, say, Event, Fate, Process};
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use windlass::channel::{Channel, Receiver, RecvError, SendError, Sender};
use windlass::Wait;

/// What the points of a channel begin with.
pub const POINTS: &[&str] = &["channel.", "stream.", "doze.", "rouse."];
/// The roles of the victims.
pub const ROLES: &[&str] = &["channel.send", "channel.receive"];

const CAPACITY: u64 = 4096;
/// Messages of the victim, or for it.
const COUNT: u64 = 240;
/// Messages of the survivors begin here.
const AFTER: u64 = 1 << 20;
/// How long a victim stays stopped: longer than every period of the library.
const STOPPED: Duration = Duration::from_millis(120);
/// Survivors go on within this time.
const RECOVERY_MAX: Duration = Duration::from_millis(100);
/// How often a run that took longer is repeated: what is slow every time is not the machine's doing.
const REPEATS: usize = 4;
/// How often a run is repeated whose victim did not come by its point.
const ATTEMPTS: usize = 8;
/// Longest silence of a victim, and longest wait of a survivor.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// How long each end lets the other one wait now and then, so that it lies down.
const QUIET: Duration = Duration::from_millis(2);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// The name of the channel of a run.
fn name(bus: &Path) -> String {
    let folder = bus.parent().and_then(Path::file_name).expect("a bus lies in a folder");
    format!("{}-channel", folder.to_string_lossy())
}

fn channel(bus: &Path) -> Channel {
    Channel::named(name(bus)).capacity(CAPACITY)
}

/// A channel that the victim has for itself.
fn beside(bus: &Path) -> Channel {
    Channel::named(format!("{}-2", name(bus))).capacity(CAPACITY)
}

/// Message `number`: as long as its number says, and all of it says which one it is.
fn message(number: u64) -> Vec<u8> {
    let mut bytes = number.to_le_bytes().to_vec();
    bytes.resize(8 + (number % 23 * 8) as usize, number as u8);
    bytes
}

fn number_of(bytes: &[u8]) -> Outcome<u64> {
    let number = u64::from_le_bytes(bytes.get(..8).ok_or("it is too short")?.try_into()?);
    if bytes != message(number) {
        return Err(format!("message {number} is torn").into());
    }
    Ok(number)
}

/// Plays the victim.
pub fn play(bus: &Path, role: &str) -> Outcome {
    // One that nobody else wants comes and goes.
    drop(beside(bus).sender()?);
    if role == ROLES[0] {
        let mut sender = channel(bus).sender()?;
        for first in (0..COUNT).step_by(4) {
            say(&format!("try {}", first + 3));
            let mut group = sender.group();
            let grouped =
                [first, first + 1].into_iter().all(|number| group.push(&message(number)).is_ok());
            if grouped {
                group.commit()?;
            } else {
                drop(group);
                sender.send(&message(first))?;
                sender.send(&message(first + 1))?;
            }
            sender.loan(100)?.fill(0xff);
            sender.send(&message(first + 2))?;
            let mut loan = sender.loan(400)?;
            let last = message(first + 3);
            loan[..last.len()].copy_from_slice(&last);
            loan.commit_len(last.len())?;
            say(&format!("has {}", first + 3));
            if first % 48 == 0 {
                pause(QUIET);
            }
        }
        return Ok(());
    }
    let mut receiver = channel(bus).receiver()?;
    loop {
        let bytes = receiver.recv(Wait::For(SILENCE_MAX))?.ok_or("nobody has left")?;
        let number = number_of(bytes)?;
        say(&format!("got {number}"));
        if number + 1 >= COUNT {
            return Ok(());
        }
        if number % 40 == 0 {
            pause(QUIET);
        }
    }
}

/// What a run came to.
#[derive(Debug, Default)]
struct Found {
    reached: bool,
    recovery: Duration,
    hits: BTreeMap<String, u32>,
    faults: Vec<String>,
}

/// What the victim said.
#[derive(Debug, Default)]
struct Said {
    tried: u64,
    has: u64,
    got: Option<u64>,
}

struct Run {
    place: Place,
    found: Found,
    said: Said,
    /// What the survivor received: dense from 0 on.
    received: u64,
    /// What the survivor sent.
    sent: u64,
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = channel(&self.place.bus()).remove();
        let _ = beside(&self.place.bus()).remove();
    }
}

impl Run {
    fn fault(&mut self, fault: impl Into<String>) {
        self.found.faults.push(fault.into());
    }

    /// What a dead pair left: nothing to read, and another capacity.
    fn leave_another(&self) -> Outcome {
        let (bus, path) = (self.place.bus(), PathBuf::from("/dev/shm"));
        let path = path.join(name(&bus));
        let sender = Channel::named(name(&bus)).capacity(2 * CAPACITY).sender()?;
        let bytes = std::fs::read(&path)?;
        drop(sender);
        std::fs::write(&path, bytes)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
        Ok(())
    }

    /// Enters what the victim did; the status once it has ended.
    fn enter(&mut self, event: Event, process: &Process, fate: &Fate) -> bool {
        match event {
            Event::Said(line) => {
                let number = line.split(' ').nth(1).and_then(|word| word.parse::<u64>().ok());
                match (line.split(' ').next(), number) {
                    (Some("try"), Some(number)) => self.said.tried = number + 1,
                    (Some("has"), Some(number)) => self.said.has = number + 1,
                    (Some("got"), Some(number)) => self.said.got = Some(number),
                    (Some("done"), None) => {}
                    _ => self.fault(format!("the victim says: {line}")),
                }
            }
            Event::Logged(line) => {
                if let Some(step) = line.strip_prefix("step ") {
                    *self.found.hits.entry(step.into()).or_default() += 1;
                }
            }
            Event::Stopped => {
                self.found.reached = true;
                pause(STOPPED);
                process.signal(Signal::SIGCONT);
            }
            Event::Ended(status, _) => {
                let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
                self.found.reached |= killed;
                // Some points are passed in some runs only.
                let well = matches!(status, WaitStatus::Exited(_, 0));
                if !(well || killed && matches!(fate, Fate::Kill(..))) {
                    self.fault(format!("the victim ended with {status:?}"));
                }
                return true;
            }
        }
        false
    }

    /// Receives what is there, within `wait`; false once nothing came.
    fn receive(&mut self, receiver: &mut Receiver, wait: Duration) -> bool {
        match receiver.recv(Wait::For(wait)) {
            Ok(Some(bytes)) => match number_of(bytes) {
                Ok(number) if number == self.received => {
                    self.received += 1;
                    true
                }
                Ok(number) => {
                    self.fault(format!("message {number} came, {} was due", self.received));
                    false
                }
                Err(error) => {
                    self.fault(error.to_string());
                    false
                }
            },
            Ok(None) | Err(RecvError::TimedOut | RecvError::Died { .. }) => false,
            Err(error) => {
                self.fault(format!("a survivor: {error}"));
                false
            }
        }
    }

    fn send(&mut self, sender: &mut Sender, wait: Duration) -> bool {
        match sender.send_timeout(&message(self.sent), wait) {
            Ok(()) => {
                self.sent += 1;
                true
            }
            // A victim that is done has left.
            Err(SendError::Full | SendError::Died { .. } | SendError::Closed) => false,
            Err(error) => {
                self.fault(format!("a survivor: {error}"));
                false
            }
        }
    }

    /// What the survivor does beside the victim, until that one has ended.
    fn live_beside(&mut self, mut work: impl FnMut(&mut Self), process: &mut Process, fate: &Fate) {
        let end = Instant::now() + SILENCE_MAX;
        loop {
            while let Some(event) = process.next(Duration::ZERO) {
                if self.enter(event, process, fate) {
                    return;
                }
            }
            work(self);
            if Instant::now() > end {
                return self.fault(format!("the victim does not end: {}", process.describe()));
            }
        }
    }

    /// The victim is the sender, and its end is taken by another one.
    fn with_a_sender(&mut self, fate: &Fate) -> Outcome {
        self.leave_another()?;
        let bus = self.place.bus();
        let mut process = Process::spawn(ROLES[0], &bus, "", 0, fate);
        let mut receiver = None;
        let beside_it = |run: &mut Self| {
            if receiver.is_none() && run.said.tried > 0 {
                match channel(&bus).receiver() {
                    Ok(opened) => receiver = Some(opened),
                    Err(error) => return run.fault(format!("a survivor: {error}")),
                }
            }
            let Some(receiver) = &mut receiver else { return pause(QUIET / 4) };
            (0..24).take_while(|_| run.receive(receiver, QUIET)).for_each(drop);
            pause(QUIET);
        };
        self.live_beside(beside_it, &mut process, fate);
        let began = Instant::now();
        let mut receiver = match receiver {
            Some(receiver) => receiver,
            None => channel(&bus).receiver()?,
        };
        let mut heir = channel(&bus).sender()?;
        // The victim may have left it full.
        while heir.try_send(&message(AFTER)) == Err(SendError::Full) {
            self.receive_or(&mut receiver, AFTER)?;
            receiver.release();
        }
        while self.receive_or(&mut receiver, AFTER)? {}
        self.found.recovery = began.elapsed();
        let Said { tried, has, .. } = self.said;
        if !(has..=tried).contains(&self.received) {
            self.fault(format!("{} came, {has} were committed and {tried} tried", self.received));
        }
        drop((heir, receiver));
        Ok(())
    }

    /// Receives one; false if it is message `last`.
    fn receive_or(&mut self, receiver: &mut Receiver, last: u64) -> Outcome<bool> {
        let bytes = receiver.recv(Wait::For(SILENCE_MAX))?.ok_or("nobody has left")?;
        let number = number_of(bytes)?;
        if number == last {
            return Ok(false);
        }
        if number != self.received {
            self.fault(format!("message {number} came, {} was due", self.received));
        }
        self.received = number + 1;
        Ok(true)
    }

    /// The victim is the receiver, and its end is taken by another one.
    fn with_a_receiver(&mut self, fate: &Fate) -> Outcome {
        self.leave_another()?;
        let bus = self.place.bus();
        let mut process = Process::spawn(ROLES[1], &bus, "", 0, fate);
        let mut sender = None;
        let beside_it = |run: &mut Self| {
            // The victim makes it, if it gets that far.
            if sender.is_none() && PathBuf::from("/dev/shm").join(name(&bus)).exists() {
                sender = channel(&bus).sender().ok();
            }
            let Some(sender) = &mut sender else { return pause(QUIET / 4) };
            (0..60).take_while(|_| run.sent < 2 * COUNT && run.send(sender, QUIET)).for_each(drop);
            pause(QUIET);
        };
        self.live_beside(beside_it, &mut process, fate);
        let began = Instant::now();
        let mut sender = match sender {
            Some(sender) => sender,
            None => channel(&bus).sender()?,
        };
        let mut heir = channel(&bus).receiver()?;
        // What was said last may have been given back.
        let first = self.said.got;
        self.received = first.unwrap_or(0);
        let next = match self.sent {
            sent if sent > self.received + 1 => heir.recv(Wait::For(SILENCE_MAX))?.map(number_of),
            _ => None,
        };
        if let Some(next) = next.transpose()? {
            let due = first.map_or(0..=0, |first| first..=first + 1);
            if !due.contains(&next) {
                self.fault(format!("the heir begins with {next}, due is one of {due:?}"));
            }
            self.received = next + 1;
        } else if self.sent > 0 {
            // Nothing is left but perhaps the last one.
            if let Some(bytes) = heir.try_recv()? {
                self.received = number_of(bytes)? + 1;
            }
        }
        heir.release();
        while sender.try_send(&message(AFTER)) == Err(SendError::Full) {
            self.receive_or(&mut heir, AFTER)?;
            heir.release();
        }
        while self.receive_or(&mut heir, AFTER)? {}
        self.found.recovery = began.elapsed();
        drop((heir, sender));
        Ok(())
    }

    /// Nothing is left, and both names work.
    fn check_end(&mut self) -> Outcome {
        let bus = self.place.bus();
        let (mut sender, mut receiver) = (beside(&bus).sender()?, beside(&bus).receiver()?);
        sender.send(b"works")?;
        if receiver.try_recv()? != Some(b"works") {
            self.fault("a channel of the dead does not work");
        }
        drop((sender, receiver));
        for left in [channel(&bus), beside(&bus)] {
            if left.remove().is_ok() {
                self.fault(format!("a name is left: {left:?}"));
            }
        }
        Ok(())
    }
}

fn run_one(role: &str, fate: &Fate) -> Found {
    let mut run = Run {
        place: Place::new(),
        found: Found::default(),
        said: Said::default(),
        received: 0,
        sent: 0,
    };
    let ended = match role == ROLES[0] {
        true => run.with_a_sender(fate),
        false => run.with_a_receiver(fate),
    };
    if let Err(error) = ended.and_then(|()| run.check_end()) {
        run.fault(format!("a survivor: {error}"));
    }
    std::mem::take(&mut run.found)
}

/// Runs of a fate, until the victim comes by its point: whether anybody is asleep, and how often, is different in each.
fn run_until_reached<'a>(role: &'a str, fate: &'a Fate) -> impl Iterator<Item = Found> + 'a {
    let mut reached = false;
    (0..ATTEMPTS).map_while(move |attempt| {
        // Later passes are rarer.
        let fate = match fate {
            Fate::Kill(step, _) if attempt > 1 => Fate::Kill(step.clone(), 1),
            Fate::Stop(step, _) if attempt > 1 => Fate::Stop(step.clone(), 1),
            fate => fate.clone(),
        };
        let found = (!reached).then(|| run_one(role, &fate))?;
        reached = found.reached;
        Some(found)
    })
}

/// Runs every point at its first, middle and last pass, with a death and with a stop.
pub fn run() {
    let (mut times, mut faults, mut slow, mut runs) = (Times::default(), 0, Vec::new(), 0);
    let is_ours = |point: &String| POINTS.iter().any(|begin| point.starts_with(begin));
    let points: BTreeSet<String> = points::all().into_iter().filter(is_ours).collect();
    let (mut killed, mut stopped) = (BTreeSet::new(), BTreeSet::new());
    for role in ROLES {
        let probe = run_one(role, &Fate::Live);
        let mut jobs = vec![(Fate::Live, probe)];
        let hits = jobs[0].1.hits.clone();
        for (step, last) in hits.iter().filter(|(step, _)| points.contains(*step)) {
            let middle = last.div_ceil(2);
            let kills = BTreeSet::from([1, middle, *last]).into_iter();
            let fates = kills.map(|hit| Fate::Kill(step.clone(), hit));
            for fate in fates.chain([Fate::Stop(step.clone(), middle)]) {
                jobs.extend(run_until_reached(role, &fate).map(|found| (fate.clone(), found)));
            }
        }
        for (fate, found) in jobs {
            runs += 1;
            for fault in &found.faults {
                show(&format!("FAULT {role}, {fate:?}: {fault}"));
            }
            faults += found.faults.len();
            times.add(found.recovery);
            if found.recovery > RECOVERY_MAX {
                slow.push((*role, fate.clone()));
            }
            match fate {
                Fate::Kill(step, _) if found.reached => drop(killed.insert(step)),
                Fate::Stop(step, _) if found.reached => drop(stopped.insert(step)),
                _ => {}
            }
        }
    }
    show(&format!("channels, {runs} runs: until an heir's first message is received: {times}"));
    assert_eq!(killed, points, "these points should each have killed somebody");
    assert_eq!(stopped, points, "these points should each have stopped somebody");
    assert_eq!(faults, 0, "the faults are above");
    for (role, fate) in slow {
        let least = (0..REPEATS).map(|_| run_one(role, &fate).recovery).min().unwrap_or_default();
        assert!(least <= RECOVERY_MAX, "{role}, {fate:?}: survivors need {least:?} each time");
    }
}
