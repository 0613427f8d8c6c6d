//! What happens in a soak, in order: everybody is started, killed and stopped for as long as was
//! asked for, and then the books are compared.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::blocks::Comparison;
use super::board::Word;
use super::cells::{self, CELLS};
use super::crew::{Crew, Event};
use super::ending;
use super::killer::{Blow, Killer};
use super::outcome::{self, Outcome};
use super::place::{resident_kib, Holdings, Place};
use super::recovery::Recovery;
use super::show::Show;
use crate::args::SoakArguments;

/// How often the supervisor looks whether survivors have gone on.
const LOOK: Duration = Duration::from_millis(5);
/// How often it looks whether somebody stands still.
const WEDGE_LOOK: Duration = Duration::from_millis(500);
/// Children that have not joined after this long never will.
const JOIN_MAX: Duration = Duration::from_secs(30);
/// Faults kept in words; the rest are only counted.
const FAULTS_MAX: usize = 40;

/// The run.
pub struct Run {
    pub crew: Crew,
    pub place: Place,
    pub recovery: Recovery,
    pub comparisons: Vec<Comparison>,
    pub blows: Blows,
    pub show: Show,
    /// What subscribers said when they had read to the end: seat, slot, received, missed.
    pub settled: Vec<(usize, u32, u64, u64)>,
    /// What is wrong, in sentences.
    pub faults: Vec<String>,
    /// How much is wrong.
    pub fault_count: u64,
    /// From now on processes end by themselves.
    pub ending: bool,
    /// Somebody stands still, or the bus cannot be used: there is no sense in going on.
    pub broken: bool,
    pub interrupted: bool,
}

/// What was done to whom.
#[derive(Clone, Debug, Default)]
pub struct Blows {
    /// Kills, by cell.
    pub kills: Vec<u64>,
    /// Of these: processes that had joined as publishers, by cell.
    pub publishers: Vec<u64>,
    /// Processes that had joined as subscribers, by cell.
    pub subscribers: Vec<u64>,
    /// Processes that were to be subscribers, whether or not they had joined, by cell.
    pub receivers: Vec<u64>,
    /// Kills, by what was killed.
    pub by_job: std::collections::BTreeMap<&'static str, u64>,
    pub stops: u64,
    pub long_stops: u64,
}

impl Blows {
    /// Subscribers and visitors killed in a cell, whether or not they had joined.
    pub fn by_cell_subscribers(&self, cell: usize) -> u64 {
        self.receivers[cell]
    }

    /// Kills of those who do this.
    pub fn of(&self, job: &str) -> u64 {
        self.by_job.get(job).copied().unwrap_or_default()
    }
}

/// `windlass soak`.
pub fn run(arguments: &SoakArguments) -> Result<Outcome> {
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(0..1 << 32));
    let place = Place::new(arguments.directory.as_deref())?;
    let crew = Crew::new(place.path.clone(), seed, arguments.sabotage.clone())?;
    interruptible(&crew)?;
    let time = Duration::from_secs_f64(arguments.minutes * 60.0);
    let cells = CELLS.len();
    let mut run = Run {
        crew,
        show: Show::new(time),
        place,
        recovery: Recovery::new(Duration::from_secs_f64(arguments.standstill_seconds)),
        comparisons: (0..cells).map(|_| Comparison::default()).collect(),
        blows: Blows {
            kills: vec![0; cells],
            publishers: vec![0; cells],
            subscribers: vec![0; cells],
            receivers: vec![0; cells],
            ..Blows::default()
        },
        settled: Vec::new(),
        faults: Vec::new(),
        fault_count: 0,
        ending: false,
        broken: false,
        interrupted: false,
    };
    run.show.note(&format!("seed {seed}, bus {}", run.place.path.display()));
    let holdings = Holdings::now(&run.place.path)?;
    run.begin()?;
    let (began, kib) = (Instant::now(), resident_kib());
    let per_second = arguments.kills_per_second;
    run.work(began + time, seed, per_second)?;
    let elapsed = began.elapsed();
    let kib = (kib, resident_kib());
    let totals = ending::end(&mut run, holdings, &arguments.sabotage)?;
    run.show.end();
    let outcome = outcome::of(&run, totals, (seed, per_second), elapsed, kib);
    // Whoever is left of a run that failed has nothing more to say.
    drop(run.crew);
    if outcome.ok && !arguments.keep {
        run.place.remove()?;
    }
    Ok(outcome)
}

fn interruptible(crew: &Crew) -> Result<()> {
    let sender = crew.sender();
    ctrlc::set_handler(move || {
        // Nobody listens once the crew is gone, and then nothing is left to interrupt.
        let _ = sender.send(Event::Interrupted);
    })
    .context("cannot listen to Ctrl-C")
}

impl Run {
    /// Starts everybody: first those who are to see every message from the first one on.
    fn begin(&mut self) -> Result<()> {
        let bus = self.place.open()?;
        for cell in CELLS {
            ending::open(cell, &bus)?;
        }
        drop(bus);
        let everybody = 0..self.crew.members.len();
        let (stay, come): (Vec<_>, Vec<_>) =
            everybody.partition(|&seat| self.crew.members[seat].job.stays());
        for seats in [stay, come] {
            for &seat in &seats {
                self.crew.start(seat)?;
            }
            let joined =
                |run: &Self| seats.iter().all(|&seat| run.crew.board.get(seat, Word::Beat) != 0);
            if !self.wait(JOIN_MAX, joined)? && !self.interrupted {
                self.fault("not everybody joined at the beginning".to_owned());
                self.broken = true;
                return Ok(());
            }
        }
        self.show.start();
        self.show.note(&format!("{} processes are at work", self.crew.members.len()));
        Ok(())
    }

    /// Listens until `done`, or for so long, or until the run is broken or interrupted.
    pub fn wait(&mut self, time: Duration, done: impl Fn(&Self) -> bool) -> Result<bool> {
        let deadline = Instant::now() + time;
        while !done(self) {
            if Instant::now() >= deadline || self.broken || self.interrupted && !self.ending {
                return Ok(false);
            }
            self.listen(Instant::now() + LOOK)?;
        }
        Ok(true)
    }

    /// Kills and stops until then.
    fn work(&mut self, until: Instant, seed: u64, per_second: f64) -> Result<()> {
        let mortals: Vec<_> =
            self.crew.members.iter().filter(|one| one.mortal).map(|one| one.seat).collect();
        let seats = self.crew.members.len();
        let mut killer = Killer::new(seed, per_second, mortals.len(), seats);
        let mut wedge_look = Instant::now();
        self.recovery.start();
        while Instant::now() < until && !self.broken && !self.interrupted {
            let now = Instant::now();
            self.recovery.tick(&self.crew);
            match killer.blow(now) {
                Some(Blow::Kill { mortal }) => self.kill(mortals[mortal])?,
                Some(Blow::Stop { seat, time }) => self.stop(seat, time),
                None => {
                    let due = killer.due().unwrap_or(until).min(until).min(now + LOOK);
                    self.listen(due)?;
                }
            }
            self.crew.go_on(now);
            for fault in self.recovery.look(&self.crew)? {
                self.fault(fault);
            }
            if now >= wedge_look {
                wedge_look = now + WEDGE_LOOK;
                self.look_for_wedges()?;
                self.show.look(&self.crew, &self.blows, self.fault_count);
            }
        }
        for fault in self.recovery.end(&self.crew) {
            self.fault(fault);
        }
        Ok(())
    }

    fn kill(&mut self, seat: usize) -> Result<()> {
        let member = &self.crew.members[seat];
        let (cell, job) = (member.cell, member.job);
        let joined = self.crew.board.get(seat, Word::Joined) == 1;
        if self.crew.kill(seat)?.is_none() {
            return Ok(());
        }
        self.recovery.died(&self.crew, seat);
        self.blows.kills[cell] += 1;
        *self.blows.by_job.entry(job.word()).or_default() += 1;
        self.blows.publishers[cell] += u64::from(joined && job == cells::Job::Publish);
        self.blows.subscribers[cell] += u64::from(joined && job.subscribes());
        self.blows.receivers[cell] += u64::from(job.subscribes());
        self.crew.start(seat)
    }

    fn stop(&mut self, seat: usize, time: Duration) {
        if self.crew.stop(seat, Instant::now() + time) {
            self.blows.stops += 1;
            self.blows.long_stops += u64::from(time >= Duration::from_secs(1));
        }
    }

    /// Lets everybody who is stopped go on.
    pub fn release(&mut self) {
        let far = Instant::now() + Duration::from_secs(86_400);
        self.crew.go_on(far);
    }

    /// Takes in what happens until then.
    pub fn listen(&mut self, until: Instant) -> Result<()> {
        let Some(event) = self.crew.next(until) else { return Ok(()) };
        match event {
            Event::Interrupted => self.interrupted = true,
            Event::Said { seat, line } => self.said(seat, &line),
            Event::Closed { seat, generation } => self.closed(seat, generation)?,
        }
        Ok(())
    }

    fn said(&mut self, seat: usize, line: &str) {
        let member = &self.crew.members[seat];
        let (cell, name) = (member.cell, member.name());
        let (head, tail) = line.split_once(' ').unwrap_or((line, ""));
        let numbers: Vec<u64> = tail.split(' ').map_while(|word| word.parse().ok()).collect();
        match (head, &*numbers) {
            ("fold", [block, fold]) => {
                if let Err(fault) = self.comparisons[cell].compare(*block, *fold, &name) {
                    self.fault(format!("{}: {fault}", CELLS[cell].name));
                }
            }
            ("settled", [slot, received, missed]) => {
                self.settled.push((seat, *slot as u32, *received, *missed));
            }
            ("fault", _) => self.fault(format!("{name}: {tail}")),
            _ => self.fault(format!("{name} says: {line}")),
        }
    }

    /// A pipe was closed: by a process that was killed, or by one that ended.
    fn closed(&mut self, seat: usize, generation: u32) -> Result<()> {
        let member = &self.crew.members[seat];
        if member.generation != generation || !member.lives() {
            return Ok(());
        }
        let name = member.name();
        let (good, how) = self.crew.reap(seat)?;
        if self.ending && good {
            return Ok(());
        }
        self.fault(format!("{name} ended by itself, {how}"));
        if !self.ending {
            self.crew.start(seat)?;
        }
        Ok(())
    }

    /// Something is wrong.
    pub fn fault(&mut self, sentence: String) {
        self.fault_count += 1;
        if self.faults.len() < FAULTS_MAX {
            self.show.note(&format!("FAULT: {sentence}"));
            self.faults.push(sentence);
        }
    }

    fn look_for_wedges(&mut self) -> Result<()> {
        let wedged = self.recovery.wedged(&self.crew);
        let wedged: Vec<_> = wedged.iter().map(|member| (member.name(), member.cell)).collect();
        for (name, cell) in &wedged {
            let seconds = self.recovery.standstill_max.as_secs();
            let info = ending::describe(&self.place, &CELLS[*cell]);
            self.fault(format!(
                "{name} has stood still for {seconds} s, not counting stops: {info}"
            ));
        }
        self.broken |= !wedged.is_empty();
        Ok(())
    }
}
