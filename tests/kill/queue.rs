//! A work queue, with a process killed or stopped at each of its points.

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
use windlass::{Bus, Consumer, Producer, Queue, Raw, RepairReport, TakeError, Wait};

/// What the points of a queue begin with.
pub const POINTS: &[&str] = &["pool.", "queue."];
/// The roles of the victims: one that does everything, one that heals, and one that waits.
pub const ROLES: &[&str] = &["queue.all", "queue.heal", "queue.wait"];

/// Chunks of the queue.
const CHUNKS: u32 = 8;
/// How often a message is delivered.
const DELIVERIES: u32 = 3;
/// Messages of survivors begin here, beside a stopped victim and after its end.
const BESIDE: u64 = 1000;
const AFTER: u64 = 2000;
/// Rounds of the victim.
const ROUNDS: u64 = 6;
/// Survivors go on within this time.
const RECOVERY_MAX: Duration = Duration::from_millis(100);
/// How often a run that took longer is repeated: what is slow every time is not the machine's doing.
const REPEATS: usize = 4;
/// How long a victim waits for a message that is there.
const WAIT: Duration = Duration::from_secs(2);
/// Longest silence of a victim, and longest wait of a survivor.
const SILENCE_MAX: Duration = Duration::from_secs(30);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn queue(bus: &Bus) -> windlass::Result<Queue<Raw>> {
    bus.queue("q").chunks(CHUNKS, 64).max_deliveries(DELIVERIES).open()
}

fn number_of(bytes: &[u8]) -> Outcome<u64> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

fn enter(producer: &mut Producer<Raw>, number: u64) -> Outcome {
    say(&format!("try {number}"));
    producer.enqueue(&number.to_le_bytes())?;
    say(&format!("has {number}"));
    Ok(())
}

/// Takes what is there, and acknowledges it.
fn finish(consumer: &mut Consumer<Raw>) -> Outcome<bool> {
    let Some(job) = consumer.try_take()? else { return Ok(false) };
    let number = number_of(job.bytes())?;
    say(&format!("acking {number}"));
    job.ack()?;
    say(&format!("acked {number}"));
    Ok(true)
}

/// Plays one of the roles.
pub fn play(path: &Path, role: &str) -> Outcome {
    let bus = role::bus(path)?;
    let queue = queue(&bus)?;
    match role {
        "queue.all" => everything(&bus, &queue),
        "queue.heal" => {
            bus.repair()?;
            Ok(())
        }
        "queue.wait" => {
            let mut consumer = queue.consumer()?;
            let job = match consumer.take(Wait::For(WAIT)) {
                Ok(job) => job.ok_or("the queue was closed")?,
                // Others found it while this process was stopped.
                Err(TakeError::TimedOut) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            let number = number_of(job.bytes())?;
            say(&format!("acking {number}"));
            job.ack()?;
            say(&format!("acked {number}"));
            Ok(())
        }
        role => Err(format!("there is no role {role}").into()),
    }
}

/// Everything that can be done with a queue by somebody who is alone with it.
fn everything(bus: &Bus, queue: &Queue<Raw>) -> Outcome {
    let (mut producer, mut consumer) = (queue.producer()?, queue.consumer()?);
    // No other process has these numbers.
    let mine = u64::from(std::process::id()) << 16;
    for round in 0..ROUNDS {
        drop(producer.loan(8)?);
        for number in [0, 1] {
            enter(&mut producer, mine + 2 * round + number)?;
        }
        finish(&mut consumer)?;
        // One is given back until it is dead, in every way there is.
        if round % 3 == 0 {
            for delivery in 1..=DELIVERIES {
                let job = match consumer.take(Wait::For(Duration::from_millis(40))) {
                    Ok(Some(job)) => job,
                    // Others took it while this process was stopped.
                    Ok(None) | Err(TakeError::TimedOut) => break,
                    Err(error) => return Err(error.into()),
                };
                match delivery {
                    1 => drop(job),
                    2 => job.nack_after(Duration::from_millis(6))?,
                    _ => job.nack()?,
                }
            }
            let mut letters = queue.dead_letters()?;
            drop(letters.next_from(0)?);
            let letter = letters.next_from(0)?;
            letter.map_or(Ok(()), |letter| letter.revive())?;
        }
        finish(&mut consumer)?;
    }
    while finish(&mut consumer)? {}
    let other = bus.queue::<Raw>("other").chunks(1, 64).open()?;
    other.close();
    bus.remove_queue("other")?;
    Ok(())
}

/// What went in, and what was acknowledged.
#[derive(Debug, Default)]
struct Books {
    tried: BTreeSet<u64>,
    entered: BTreeSet<u64>,
    acking: BTreeSet<u64>,
    acked: Vec<u64>,
    faults: Vec<String>,
}

impl Books {
    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    fn heard(&mut self, line: &str) {
        let mut words = line.split(' ');
        let word = words.next();
        match (word, words.next().and_then(|word| word.parse().ok())) {
            (Some("try"), Some(number)) => drop(self.tried.insert(number)),
            (Some("has"), Some(number)) => drop(self.entered.insert(number)),
            (Some("acking"), Some(number)) => drop(self.acking.insert(number)),
            (Some("acked"), Some(number)) => {
                self.acking.remove(&number);
                self.acked.push(number);
            }
            (Some("done"), None) => {}
            _ => self.fault(format!("somebody says: {line}")),
        }
    }

    /// A survivor enters messages and takes messages until its own have come: how long that took.
    fn go_on(&mut self, queue: &Queue<Raw>, from: u64) -> Outcome<Duration> {
        let (mut producer, mut consumer) = (queue.producer()?, queue.consumer()?);
        let began = Instant::now();
        for number in from..from + 2 * u64::from(CHUNKS) {
            self.tried.insert(number);
            // The victim may have left the queue full.
            while let Err(error) = producer.try_enqueue(&number.to_le_bytes()) {
                if !self.take(&mut consumer)? {
                    return Err(format!("a survivor cannot enter: {error}").into());
                }
            }
            self.entered.insert(number);
            if !self.take(&mut consumer)? {
                return Err("a survivor finds nothing".into());
            }
        }
        let time = began.elapsed();
        while self.take(&mut consumer)? {}
        Ok(time)
    }

    fn take(&mut self, consumer: &mut Consumer<Raw>) -> Outcome<bool> {
        let Some(job) = consumer.try_take()? else { return Ok(false) };
        self.acked.push(number_of(job.bytes())?);
        job.ack()?;
        Ok(true)
    }

    /// Everything that was entered was acknowledged once.
    fn balance(&mut self) {
        let out: BTreeSet<u64> = self.acked.iter().copied().collect();
        if out.len() != self.acked.len() {
            self.fault(format!("acknowledged twice: {:?}", self.acked));
        }
        let unknown: Vec<_> = out.difference(&self.tried).collect();
        // Who dies after the acknowledgement cannot say so any more.
        let missing: Vec<_> =
            self.entered.difference(&out).filter(|number| !self.acking.contains(number)).collect();
        if !unknown.is_empty() || !missing.is_empty() {
            let fault = format!("nobody entered {unknown:?}; {missing:?} are lost");
            self.fault(fault);
        }
    }
}

#[derive(Debug, Default)]
struct Run {
    reached: bool,
    recovery: Duration,
    hits: BTreeMap<String, u32>,
    faults: Vec<String>,
}

/// Listens to a process until it ends or stops. Whether it was killed or stopped.
fn follow(
    process: &mut Process,
    books: &mut Books,
    hits: &mut BTreeMap<String, u32>,
) -> (bool, bool) {
    loop {
        match process.next(SILENCE_MAX) {
            None => {
                books.fault(format!("a process does nothing: {}", process.describe()));
                return (false, false);
            }
            Some(Event::Said(line)) => books.heard(&line),
            Some(Event::Logged(line)) => {
                if let Some(step) = line.strip_prefix("step ") {
                    *hits.entry(step.into()).or_default() += 1;
                }
            }
            Some(Event::Stopped) => return (false, true),
            Some(Event::Ended(status, _)) => {
                let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
                let well = matches!(status, WaitStatus::Exited(_, 0));
                if !killed && !well {
                    books.fault(format!("a process ended with {status:?}"));
                }
                return (killed, false);
            }
        }
    }
}

/// A process that is killed, or stopped for the time being, before the victim begins.
type Primer = (&'static str, u32, bool);

/// What the victim does, and what others did before.
#[derive(Debug)]
struct Scenario {
    role: &'static str,
    primers: &'static [Primer],
}

const SCENARIOS: &[Scenario] = &[
    Scenario { role: "queue.all", primers: &[] },
    // A loan, a message that is ready and not entered, one that is entered and not placed, and one that is taken.
    Scenario {
        role: "queue.heal",
        primers: &[
            ("pool.commit", 1, true),
            ("pool.enter", 1, true),
            ("pool.placed", 1, true),
            ("pool.ack", 1, true),
        ],
    },
    // Somebody alive has a message that is ready and not entered.
    Scenario { role: "queue.wait", primers: &[("pool.enter", 1, false)] },
];

fn run_one(scenario: &Scenario, fate: &Fate) -> Outcome<Run> {
    let (place, mut books, mut run) = (Place::new(), Books::default(), Run::default());
    let bus = role::bus(&place.bus())?;
    let queue = queue(&bus)?;
    let (mut ignored, mut sleepers) = (BTreeMap::new(), Vec::new());
    for (step, hit, kills) in scenario.primers {
        let fate = match kills {
            true => Fate::Kill((*step).into(), *hit),
            false => Fate::Stop((*step).into(), *hit),
        };
        let mut primer = Process::spawn("queue.all", &place.bus(), "", 0, &fate);
        if follow(&mut primer, &mut books, &mut ignored) == (false, false) {
            books.fault(format!("a primer did not come by {step}"));
        }
        sleepers.extend((!kills).then_some(primer));
    }
    let mut victim = Process::spawn(scenario.role, &place.bus(), "", 0, fate);
    loop {
        let (killed, stopped) = follow(&mut victim, &mut books, &mut run.hits);
        run.reached |= killed || stopped;
        if !stopped {
            break;
        }
        run.recovery = run.recovery.max(books.go_on(&queue, BESIDE)?);
        victim.signal(Signal::SIGCONT);
    }
    // At once, before anybody but the survivor looks.
    run.recovery = run.recovery.max(books.go_on(&queue, AFTER)?);
    for mut sleeper in sleepers {
        sleeper.signal(Signal::SIGCONT);
        follow(&mut sleeper, &mut books, &mut ignored);
    }
    bus.repair()?;
    let mut letters = queue.dead_letters()?;
    while let Some(letter) = letters.next_from(0)? {
        letter.revive()?;
    }
    let mut consumer = queue.consumer()?;
    let end = Instant::now() + SILENCE_MAX;
    // What a victim put off is due a moment later.
    while queue.info()?.classes.iter().any(|class| class.free() < class.chunks) {
        if Instant::now() > end {
            books.fault(format!("chunks are lost: {:?}", queue.info()?));
            break;
        }
        if let Ok(Some(job)) = consumer.take(Wait::For(Duration::from_millis(1))) {
            books.acked.push(number_of(job.bytes())?);
            job.ack()?;
        }
    }
    drop(consumer);
    books.balance();
    if bus.queues()?.iter().any(|name| name == "other") {
        bus.remove_queue("other")?;
        bus.repair()?;
    }
    let report = bus.repair()?;
    if report != RepairReport::default() {
        books.fault(format!("a second repair found {report:?}"));
    }
    run.faults = books.faults;
    Ok(run)
}

/// Runs every point in every scenario at its first, middle and last pass, with a death and with a stop.
pub fn run() -> Outcome {
    let of_queues = |point: &String| POINTS.iter().any(|begin| point.starts_with(begin));
    let points: BTreeSet<String> = points::all().into_iter().filter(of_queues).collect();
    let (mut killed, mut stopped) = (BTreeSet::new(), BTreeSet::new());
    let (mut times, mut faults, mut slow) = (Times::default(), 0, Vec::new());
    for scenario in SCENARIOS {
        let hits = run_one(scenario, &Fate::Live)?.hits;
        for (step, last) in hits.iter().filter(|(step, _)| points.contains(*step)) {
            for hit in BTreeSet::from([1, last.div_ceil(2), *last]) {
                for fate in [Fate::Kill(step.clone(), hit), Fate::Stop(step.clone(), hit)] {
                    let run = run_one(scenario, &fate)?;
                    for fault in &run.faults {
                        show(&format!("FAULT {}, {fate:?}: {fault}", scenario.role));
                    }
                    faults += run.faults.len();
                    times.add(run.recovery);
                    if run.recovery > RECOVERY_MAX {
                        slow.push((scenario, fate.clone()));
                    }
                    if run.reached {
                        let kills = matches!(fate, Fate::Kill(..));
                        let of = if kills { &mut killed } else { &mut stopped };
                        of.insert(step.clone());
                    }
                }
            }
        }
    }
    show(&format!("queue: two times around the chunks beside the dead or stopped: {times}"));
    assert_eq!(killed, points, "these points should each have killed somebody");
    assert_eq!(stopped, points, "these points should each have stopped somebody");
    assert_eq!(faults, 0, "the faults are above");
    for (scenario, fate) in slow {
        let mut least = Duration::MAX;
        for _ in 0..REPEATS {
            least = least.min(run_one(scenario, &fate)?.recovery);
        }
        assert!(least <= RECOVERY_MAX, "{fate:?}: survivors need {least:?} each time");
    }
    Ok(())
}
