//! Who has the other end: a thread of this process, or a process that is told what to do through its input.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use serde::{Deserialize, Serialize};
use windlass::channel::Channel;

use super::contest::{self, Sink, Source, Way, RING_BYTES};
use crate::bench::failure::{During, Failure, Result};
use crate::bench::{cores, ROLE};

/// The value of [`ROLE`] that makes this executable a helper.
pub const HELPER: &str = "channel-helper";

/// The environment variables that carry the core and the name of the channels.
const CORE: &str = "WINDLASS_BENCH_CORE";
const NAME: &str = "WINDLASS_BENCH_CHANNEL";

/// What the other end does next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Order {
    /// The number of the first message.
    pub first: u64,
    /// How many.
    pub count: u64,
    /// Nothing: every message is sent back.
    pub way: Option<Way>,
    /// Pauses after a look that found nothing.
    pub pauses: u32,
}

/// What the other end has.
struct Ends {
    there: Sink,
    back: Source,
}

impl Ends {
    fn follow(&mut self, order: Order) -> Result<u64> {
        let Order { first, count, way, pauses } = order;
        match way {
            Some(way) => self.there.receive(first, count, way, pauses),
            None => contest::echo(&mut self.there, &mut self.back, first, count),
        }
    }
}

enum Body {
    Thread { orders: mpsc::Sender<Order>, answers: mpsc::Receiver<Result<u64>> },
    Process { child: Child, input: ChildStdin, output: BufReader<ChildStdout> },
}

/// The other end.
pub struct Helper(Body);

/// The two ends of this side: to the helper, and from it.
pub type Mine = (Source, Sink);

impl Helper {
    /// A thread on `core`, with rings of `rtrb`.
    pub fn rtrb(core: usize) -> Result<(Self, Mine)> {
        let (there, sink) = rtrb::RingBuffer::new(contest::CAPACITY);
        let (back, mine) = rtrb::RingBuffer::new(contest::CAPACITY);
        let ends = Ends { there: Sink::Rtrb(sink), back: Source::Rtrb(back) };
        Ok((Self::thread(core, ends)?, (Source::Rtrb(there), Sink::Rtrb(mine))))
    }

    /// A thread on `core`, with channels.
    pub fn windlass(core: usize) -> Result<(Self, Mine)> {
        let pair = || windlass::channel::pair(RING_BYTES).during("cannot make a channel");
        let ((there, sink), (back, mine)) = (pair()?, pair()?);
        let ends = Ends { there: Sink::Windlass(sink), back: Source::Windlass(back) };
        Ok((Self::thread(core, ends)?, (Source::Windlass(there), Sink::Windlass(mine))))
    }

    fn thread(core: usize, mut ends: Ends) -> Result<Self> {
        let (orders, ordered) = mpsc::channel::<Order>();
        let (answer, answers) = mpsc::channel();
        let work = move || {
            let pinned = cores::pin(core);
            while let Ok(order) = ordered.recv() {
                let result = match &pinned {
                    Ok(()) => ends.follow(order),
                    Err(failure) => Err(Failure::new(failure.to_string())),
                };
                if answer.send(result).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().spawn(work).during("cannot start a thread")?;
        Ok(Self(Body::Thread { orders, answers }))
    }

    /// A process on `core`, with channels that have names.
    pub fn process(core: usize, name: &str) -> Result<(Self, Mine)> {
        let open = |way: &str| Channel::named(format!("{name}-{way}")).capacity(RING_BYTES);
        let there = open("there").sender().during("cannot open a channel")?;
        let mine = open("back").receiver().during("cannot open a channel")?;
        let executable = std::env::current_exe().during("cannot find this executable")?;
        let mut child = Command::new(executable)
            .env(ROLE, HELPER)
            .env(CORE, core.to_string())
            .env(NAME, name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .during("cannot start a process")?;
        let gone = || Failure::new("a process has no input or output");
        let input = child.stdin.take().ok_or_else(gone)?;
        let mut output = BufReader::new(child.stdout.take().ok_or_else(gone)?);
        let mut line = String::new();
        output.read_line(&mut line).during("cannot hear from a process")?;
        let helper = Self(Body::Process { child, input, output });
        Ok((helper, (Source::Windlass(there), Sink::Windlass(mine))))
    }

    /// Tells the other end what to do.
    pub fn order(&mut self, order: Order) -> Result<()> {
        match &mut self.0 {
            Body::Thread { orders, .. } => orders.send(order).during("a thread has ended"),
            Body::Process { input, .. } => {
                let text = serde_json::to_string(&order).during("cannot write an order")?;
                writeln!(input, "{text}").during("a process has ended")
            }
        }
    }

    /// Waits until it has done it; how many messages were not those that were due.
    pub fn wait(&mut self) -> Result<u64> {
        match &mut self.0 {
            Body::Thread { answers, .. } => answers.recv().during("a thread has ended")?,
            Body::Process { output, .. } => {
                let mut line = String::new();
                output.read_line(&mut line).during("cannot hear from a process")?;
                line.trim().parse().during("a process has ended")
            }
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        if let Body::Process { child, .. } = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What a helper process does until its input ends.
pub fn main() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).during("cannot be bound to the driver")?;
    let text = |name| std::env::var(name).during("a helper is told everything");
    cores::pin(text(CORE)?.parse().during("the core is a number")?)?;
    let name = text(NAME)?;
    let open = |way: &str| Channel::named(format!("{name}-{way}")).capacity(RING_BYTES);
    let there = open("there").receiver().during("cannot open a channel")?;
    let back = open("back").sender().during("cannot open a channel")?;
    let mut ends = Ends { there: Sink::Windlass(there), back: Source::Windlass(back) };
    let say = |what: &str| writeln!(std::io::stdout(), "{what}").during("nobody listens");
    say("there")?;
    for line in std::io::stdin().lines() {
        let line = line.during("cannot read an order")?;
        let order = serde_json::from_str(&line).during("cannot read an order")?;
        say(&ends.follow(order)?.to_string())?;
    }
    Ok(())
}
