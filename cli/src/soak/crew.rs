//! The processes of the soak, seen from their parent: started, killed, stopped, replaced, listened
//! to.
//!
//! One thread a process reads its pipe to the end. Processes are started from the thread that owns
//! the crew, which must be the main thread: the kernel ends a child when the *thread* that started
//! it ends. Dropping the crew kills and reaps whoever is left.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

use super::board::{Board, Word};
use super::cells::{seats, Job, CELLS};
use super::sabotage::Sabotage;

/// What happened.
pub enum Event {
    /// The process of a seat said something.
    Said { seat: usize, line: String },
    /// The process of this generation in a seat closed its pipe: it ended.
    Closed { seat: usize, generation: u32 },
    /// The user wants the run to end.
    Interrupted,
}

/// A seat and the process that has it.
pub struct Member {
    pub seat: usize,
    pub cell: usize,
    pub job: Job,
    pub mortal: bool,
    /// Counts the processes of this seat.
    pub generation: u32,
    /// When it goes on, if it is stopped.
    pub stopped_until: Option<Instant>,
    process: Option<Child>,
}

/// What all processes of the seats had noted when they ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    pub sent: u64,
    pub received: u64,
    pub bytes: u64,
    pub missed: u64,
    pub evicted: u64,
    pub full: u64,
    pub views: u64,
    pub rounds: u64,
    pub faults: u64,
}

/// All of them.
pub struct Crew {
    pub members: Vec<Member>,
    pub board: Board,
    /// What the processes that ended had noted, by cell.
    pub tallies: Vec<Tally>,
    bus: PathBuf,
    seed: u64,
    sabotage: Vec<Sabotage>,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

impl Member {
    /// What people call it: `reliable publisher 2`.
    pub fn name(&self) -> String {
        let (cell, job) = (CELLS[self.cell].name, self.job.word());
        format!("{cell} {job} {}.{}", self.seat, self.generation)
    }

    /// Whether a process has the seat.
    pub fn lives(&self) -> bool {
        self.process.is_some()
    }

    /// The process.
    pub fn pid(&self) -> u32 {
        self.process.as_ref().map_or(0, Child::id)
    }
}

impl Crew {
    /// An empty seat for everybody.
    pub fn new(bus: PathBuf, seed: u64, sabotage: Vec<Sabotage>) -> Result<Self> {
        let (sender, events) = channel();
        let member = |(seat, (cell, each)): (usize, (usize, super::cells::Seat))| Member {
            seat,
            cell,
            job: each.job,
            mortal: each.mortal,
            generation: 0,
            stopped_until: None,
            process: None,
        };
        Ok(Self {
            members: seats().enumerate().map(member).collect(),
            board: Board::create()?,
            tallies: vec![Tally::default(); CELLS.len()],
            bus,
            seed,
            sabotage,
            events,
            sender,
        })
    }

    /// What a signal handler may send to.
    pub fn sender(&self) -> Sender<Event> {
        self.sender.clone()
    }

    /// Starts a process in an empty seat.
    pub fn start(&mut self, seat: usize) -> Result<()> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let member = &mut self.members[seat];
        let mut command = Command::new(program);
        command.arg("soak-child").arg("--bus").arg(&self.bus);
        command.args(["--parent", &std::process::id().to_string()]);
        command.args(["--seat", &seat.to_string(), "--seed", &self.seed.to_string()]);
        command.args(["--generation", &member.generation.to_string()]);
        let each = super::cells::Seat { job: member.job, mortal: member.mortal };
        let spoils = self.sabotage.iter().filter(|what| what.is_done_by(member.cell, &each));
        for word in spoils.filter_map(clap::ValueEnum::to_possible_value) {
            command.args(["--sabotage", word.get_name()]);
        }
        self.board.clear(seat);
        let mut process = command
            .stdin(self.board.as_input()?)
            .stdout(Stdio::piped())
            // Its own group: a Ctrl-C in the terminal reaches the parent alone, which ends the rest
            // in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start a {}", member.job.word()))?;
        let reports = process.stdout.take().expect("stdout was asked for as a pipe");
        let (sender, generation) = (self.sender.clone(), member.generation);
        thread::Builder::new()
            .stack_size(128 << 10)
            .spawn(move || listen(seat, generation, reports, &sender))
            .context("cannot start a thread that listens to a child")?;
        member.process = Some(process);
        Ok(())
    }

    /// Kills the process of a seat and says when its death was seen. The seat is empty then.
    pub fn kill(&mut self, seat: usize) -> Result<Option<Instant>> {
        let Some(mut process) = self.members[seat].process.take() else { return Ok(None) };
        let name = self.members[seat].name();
        process.kill().with_context(|| format!("cannot kill {name}"))?;
        process.wait().with_context(|| format!("cannot reap {name}"))?;
        let seen = Instant::now();
        self.vacate(seat);
        Ok(Some(seen))
    }

    /// Sees to a process that ended by itself: whether it did so in good order, and how it ended.
    pub fn reap(&mut self, seat: usize) -> Result<(bool, String)> {
        let Some(mut process) = self.members[seat].process.take() else {
            return Ok((true, String::new()));
        };
        let status = process.wait().context("cannot reap a child")?;
        self.vacate(seat);
        Ok((status.success(), status.to_string()))
    }

    /// Enters what the last process of a seat had noted.
    fn vacate(&mut self, seat: usize) {
        let member = &mut self.members[seat];
        let tally = &mut self.tallies[member.cell];
        *tally = tally.with(&self.board, seat);
        member.generation += 1;
        member.stopped_until = None;
        self.board.clear(seat);
    }

    /// What all processes of a cell have noted so far.
    pub fn tally(&self, cell: usize) -> Tally {
        let living = self.members.iter().filter(|member| member.cell == cell && member.lives());
        living.fold(self.tallies[cell], |tally, member| tally.with(&self.board, member.seat))
    }

    /// Stops the process of a seat until then.
    pub fn stop(&mut self, seat: usize, until: Instant) -> bool {
        let member = &mut self.members[seat];
        let stopped = member.lives() && signal(member, Signal::SIGSTOP);
        if stopped {
            member.stopped_until = Some(member.stopped_until.unwrap_or(until).max(until));
        }
        stopped
    }

    /// Lets whoever is stopped for long enough go on.
    pub fn go_on(&mut self, now: Instant) {
        let due = |member: &&mut Member| member.stopped_until.is_some_and(|until| until <= now);
        for member in self.members.iter_mut().filter(due) {
            signal(member, Signal::SIGCONT);
            member.stopped_until = None;
        }
    }

    /// The next event, waiting for it until then.
    pub fn next(&mut self, until: Instant) -> Option<Event> {
        match self.events.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the crew keeps a sender"),
        }
    }
}

impl Tally {
    fn with(self, board: &Board, seat: usize) -> Self {
        let noted = |word| board.get(seat, word);
        Self {
            sent: self.sent + noted(Word::Sent),
            received: self.received + noted(Word::Received),
            bytes: self.bytes + noted(Word::Bytes),
            missed: self.missed + noted(Word::Missed),
            evicted: self.evicted + noted(Word::Evicted),
            full: self.full + noted(Word::Full),
            views: self.views + noted(Word::Views),
            rounds: self.rounds + noted(Word::Rounds),
            faults: self.faults + noted(Word::Faults),
        }
    }
}

fn signal(member: &Member, signal: Signal) -> bool {
    // Its parent has not reaped it yet, so the number means nobody else.
    member.lives() && kill(Pid::from_raw(member.pid() as i32), signal).is_ok()
}

impl Drop for Crew {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // Both fail only for a child that is reaped already.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Passes on what a child says until its pipe closes.
fn listen(seat: usize, generation: u32, reports: ChildStdout, sender: &Sender<Event>) {
    let mut reports = BufReader::with_capacity(4096, reports);
    let mut line = String::new();
    while reports.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
        // A killed child may leave half a line; every whole one counts.
        let whole = line.ends_with('\n');
        let said = Event::Said { seat, line: line.trim_end().to_owned() };
        if whole && sender.send(said).is_err() {
            return;
        }
        line.clear();
    }
    // Nobody listens once the crew is gone.
    let _ = sender.send(Event::Closed { seat, generation });
}
