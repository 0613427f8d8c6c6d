//! Those who do the work of a contest: processes that are told what to do through a pipe, or threads.
//!
//! All of a crew begin at one moment, for which they wait on the clock that they share, and each says when it was done.
//! What counts is the time from that moment to the last of them. Producers share the first core, consumers the second.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getppid, Pid};
use serde::{Deserialize, Serialize};

use super::contest::{self, Contestant, Entrance, Exit, Hesitation, Local, Tally};
use crate::bench::failure::{During, Failure, Result};
use crate::bench::{cores, windlass, ROLE};
use crate::clock;

/// The value of [`ROLE`] that makes this executable a worker.
pub const WORKER: &str = "queue-worker";

/// The environment variable that carries the plan.
const PLAN: &str = "WINDLASS_BENCH_PLAN";

/// From the order to the beginning: everybody has woken up by then.
const AHEAD_NS: u64 = 2_000_000;

/// What a worker does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub enum Part {
    /// Enters messages under this number.
    Producer(u64),
    /// Takes messages.
    Consumer,
    /// Enters a message into the first queue and takes it back from the second, and times that.
    Caller,
    /// Takes a message from the first queue and enters it into the second.
    Echo,
}

/// What a worker has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Plan {
    driver: i32,
    core: usize,
    contestant: Contestant,
    part: Part,
    bus: PathBuf,
    /// The queues: one, or one for each way.
    queues: Vec<String>,
}

/// One order to a worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Order {
    begin_ns: u64,
    count: u64,
    pauses: u32,
}

/// What a worker says when it is done.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// When.
    pub end_ns: u64,
    /// How many messages it took.
    pub count: u64,
    /// Sum of their first words.
    pub sum: u64,
    /// Messages that are torn, doubled or out of order.
    pub wrong: u64,
    /// Nanoseconds of every round of a caller.
    pub rounds: Vec<u64>,
}

impl Done {
    fn of(tally: Tally, rounds: Vec<u64>) -> Self {
        let Tally { count, sum, wrong, .. } = tally;
        Self { end_ns: clock::now_ns(), count, sum, wrong, rounds }
    }
}

/// The ends that a worker works with.
enum Ends {
    Entrance(Box<dyn Entrance>),
    Exit(Box<dyn Exit>),
    Both(Box<dyn Entrance>, Box<dyn Exit>),
}

fn work(part: Part, ends: &mut Ends, order: Order) -> Result<Done> {
    let mut hesitation = Hesitation::default();
    while clock::now_ns() < order.begin_ns {
        hesitation.wait(10);
    }
    let Order { count, pauses, .. } = order;
    match (part, ends) {
        (Part::Producer(number), Ends::Entrance(entrance)) => {
            entrance.produce(number, count, pauses)?;
            Ok(Done::of(Tally::default(), Vec::new()))
        }
        (Part::Consumer, Ends::Exit(exit)) => {
            Ok(Done::of(exit.consume(count, pauses)?, Vec::new()))
        }
        (Part::Caller, Ends::Both(entrance, exit)) => {
            let (mut rounds, mut all) = (Vec::with_capacity(count as usize), Tally::default());
            for number in 0..count {
                let begin = clock::now_ns();
                enter(&mut **entrance, number)?;
                while !exit.try_take(1, &mut all)? {}
                rounds.push(clock::now_ns() - begin);
            }
            Ok(Done::of(all, rounds))
        }
        (Part::Echo, Ends::Both(entrance, exit)) => {
            let mut all = Tally::default();
            for number in 0..count {
                while !exit.try_take(1, &mut all)? {}
                enter(&mut **entrance, number)?;
            }
            Ok(Done::of(all, Vec::new()))
        }
        _ => Err(Failure::new("a worker has not the ends that its part needs")),
    }
}

fn enter(entrance: &mut dyn Entrance, number: u64) -> Result<()> {
    let message = contest::message(0, number);
    while !entrance.try_enter(&message)? {}
    Ok(())
}

/// A crew of processes.
pub struct Processes(Vec<Process>);

struct Process {
    child: Child,
    orders: UnixStream,
    answers: BufReader<UnixStream>,
}

impl Processes {
    /// Starts a process for every part, on its core, with ends of the queues of those names on the bus at `bus`.
    pub fn start(
        bus: &std::path::Path,
        contestant: Contestant,
        queues: &[String],
        parts: &[(Part, usize)],
    ) -> Result<Self> {
        let start = |&(part, core): &(Part, usize)| {
            let (ours, theirs) = UnixStream::pair().during("cannot make a pair of sockets")?;
            let executable = std::env::current_exe().during("cannot find this executable")?;
            let driver = Pid::this().as_raw();
            let (bus, queues) = (bus.to_owned(), queues.to_owned());
            let plan = Plan { driver, core, contestant, part, bus, queues };
            let text = serde_json::to_string(&plan).during("cannot write the plan")?;
            let input = theirs.try_clone().during("cannot share a socket")?;
            let mut command = Command::new(executable);
            command
                .env(ROLE, WORKER)
                .env(PLAN, text)
                .stdin(Stdio::from(OwnedFd::from(input)))
                .stdout(Stdio::from(OwnedFd::from(theirs)));
            let child = command.spawn().during("cannot start a worker")?;
            let answers = ours.try_clone().during("cannot share a socket")?;
            let mut process = Process { child, orders: ours, answers: BufReader::new(answers) };
            // It has opened its ends.
            process.answer()?;
            Ok(process)
        };
        Ok(Self(parts.iter().map(start).collect::<Result<_>>()?))
    }

    /// Lets everybody work, each on its count; returns nanoseconds and what they said.
    pub fn run(&mut self, counts: &[u64], pauses: u32) -> Result<(u64, Vec<Done>)> {
        let begin_ns = clock::now_ns() + AHEAD_NS;
        for (process, &count) in self.0.iter_mut().zip(counts) {
            let order = serde_json::to_string(&Order { begin_ns, count, pauses });
            let order = order.during("cannot write an order")? + "\n";
            process.orders.write_all(order.as_bytes()).during("cannot send an order")?;
        }
        let done = self.0.iter_mut().map(Process::answer).collect::<Result<Vec<_>>>()?;
        Ok((elapsed(begin_ns, &done), done))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It has nothing to save, and may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Process {
    fn answer(&mut self) -> Result<Done> {
        let mut line = String::new();
        self.answers.read_line(&mut line).during("cannot hear a worker")?;
        serde_json::from_str(&line).during("a worker ended in the middle of the run")
    }
}

fn elapsed(begin_ns: u64, done: &[Done]) -> u64 {
    let end_ns = done.iter().map(|done| done.end_ns).max().unwrap_or(begin_ns);
    end_ns.saturating_sub(begin_ns).max(1)
}

/// What a process of a crew does until its driver ends it.
pub fn main() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).during("cannot tie this process to its driver")?;
    let text = std::env::var(PLAN).during("a worker needs its plan")?;
    let plan: Plan = serde_json::from_str(&text).during("cannot read the plan")?;
    if getppid() != Pid::from_raw(plan.driver) {
        return Err(Failure::new("the driver was gone before its worker began"));
    }
    cores::pin(plan.core)?;
    let bus = windlass::open(&plan.bus)?;
    let queue = |index: usize| {
        let name = plan.queues.get(index);
        contest::queue(&bus, name.ok_or_else(|| Failure::new("the plan names no such queue"))?)
    };
    let entrance = |index| -> Result<Box<dyn Entrance>> {
        Ok(Box::new(queue(index)?.producer().during("cannot become a producer")?))
    };
    let exit = |index| contest::exit_of(&queue(index)?, plan.contestant);
    let mut ends = match plan.part {
        Part::Producer(_) => Ends::Entrance(entrance(0)?),
        Part::Consumer => Ends::Exit(exit(0)?),
        Part::Caller => Ends::Both(entrance(0)?, exit(1)?),
        Part::Echo => Ends::Both(entrance(1)?, exit(0)?),
    };
    say(&Done::default())?;
    for line in std::io::stdin().lock().lines() {
        let order = serde_json::from_str(&line.during("cannot hear the driver")?);
        let done = work(plan.part, &mut ends, order.during("cannot read an order")?)?;
        say(&done)?;
    }
    Ok(())
}

fn say(done: &Done) -> Result<()> {
    let line = serde_json::to_string(done).during("cannot write an answer")? + "\n";
    let mut output = std::io::stdout().lock();
    output.write_all(line.as_bytes()).during("cannot answer")?;
    output.flush().during("cannot answer")
}

/// Lets threads of this process work over queues of `contestant`; as [`Processes::run`].
pub fn run_threads(
    contestant: Contestant,
    parts: &[(Part, usize)],
    counts: &[u64],
    pauses: u32,
) -> Result<(u64, Vec<Done>)> {
    let (there, back) = (Local::new(contestant)?, Local::new(contestant)?);
    let begin_ns = clock::now_ns() + AHEAD_NS;
    let done = std::thread::scope(|scope| {
        let start = |(&(part, core), &count): (&(Part, usize), &u64)| {
            let (there, back) = (there.clone(), back.clone());
            scope.spawn(move || {
                cores::pin(core)?;
                let mut ends = match part {
                    Part::Producer(_) => Ends::Entrance(there.entrance()?),
                    Part::Consumer => Ends::Exit(there.exit()?),
                    Part::Caller => Ends::Both(there.entrance()?, back.exit()?),
                    Part::Echo => Ends::Both(back.entrance()?, there.exit()?),
                };
                work(part, &mut ends, Order { begin_ns, count, pauses })
            })
        };
        let threads: Vec<_> = parts.iter().zip(counts).map(start).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Done>>| {
            thread.join().map_err(|_| Failure::new("a thread of the contest panicked"))?
        };
        threads.into_iter().map(join).collect::<Result<Vec<_>>>()
    })?;
    Ok((elapsed(begin_ns, &done), done))
}
