//! The other process: how it is started, and what it does until it is killed.
//!
//! A peer is this executable, started again with [`ROLE`] in its environment. Its standard input is
//! the shared memory, its standard output one end of a socket, and [`PLAN`] tells it the rest. It
//! follows the commands of `wire` and never decides anything.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command as Process, Stdio};

use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::{getppid, Pid};
use serde::{Deserialize, Serialize};

use super::cores;
use super::failure::{During, Failure, Result};
use super::pingpong;
use super::transport::{self, Context, End, Side, Spec};
use super::watch::Watch;
use super::windlass::{self, Audience};
use super::wire::{Command, Operation, Wire};
use crate::memory::Memory;

/// The environment variable that makes this executable a peer.
pub const ROLE: &str = "WINDLASS_BENCH_ROLE";

/// The environment variable that carries the plan.
const PLAN: &str = "WINDLASS_BENCH_PLAN";

/// What a peer has to know.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The process that started the peer.
    pub driver: i32,
    /// The core of the peer.
    pub core: usize,
    /// Whether the peer sleeps between commands, because others share its core.
    pub sleepy: bool,
    /// The directory of the bus.
    pub bus: PathBuf,
    /// The cases, in groups that are open at the same time.
    pub groups: Vec<Vec<Spec>>,
}

/// Starts a peer and returns the driver's end of the socket.
pub fn start(watch: &Watch, plan: &Plan, memory: &Memory) -> Result<UnixStream> {
    let (ours, theirs) = UnixStream::pair().during("cannot make a pair of sockets")?;
    // The two ends are separate open files: each side makes its own non-blocking.
    ours.set_nonblocking(true).during("cannot poll the socket")?;
    let executable = std::env::current_exe().during("cannot find this executable")?;
    let text = serde_json::to_string(plan).during("cannot write the plan")?;
    let mut process = Process::new(executable);
    process
        .env(ROLE, "peer")
        .env(PLAN, text)
        .stdin(memory.as_input()?)
        .stdout(Stdio::from(OwnedFd::from(theirs)));
    watch.spawn(&mut process)?;
    Ok(ours)
}

/// What a peer does: it only returns when it fails.
pub fn main() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).during("cannot tie this process to its driver")?;
    let text = std::env::var(PLAN).during("a peer needs its plan")?;
    let plan: Plan = serde_json::from_str(&text).during("cannot read the plan")?;
    if getppid() != Pid::from_raw(plan.driver) {
        return Err(Failure::new("the driver was gone before its peer began"));
    }
    cores::pin(plan.core)?;
    let output = std::io::stdout();
    let socket = output.as_fd().try_clone_to_owned().during("cannot open the socket")?;
    let socket = UnixStream::from(socket);
    socket.set_nonblocking(true).during("cannot poll the socket")?;
    let memory = Memory::inherit()?;
    let bus = windlass::open(&plan.bus)?;
    let context = Context { memory: &memory, socket: &socket, bus: &bus };
    let mut wire = Wire::new(memory.clone(), plan.sleepy);
    let mut open = Opened { ends: Vec::new(), audiences: Vec::new() };
    loop {
        let command = wire.next()?;
        let answer = open.follow(&command, &context, &plan)?;
        wire.done(answer);
    }
}

/// What a peer has open.
struct Opened {
    ends: Vec<Box<dyn End>>,
    audiences: Vec<(u64, Audience)>,
}

impl Opened {
    fn follow(&mut self, command: &Command, context: &Context<'_>, plan: &Plan) -> Result<u64> {
        let &Command { operation, which, count } = command;
        match operation {
            Operation::Ping => pingpong::answer(context.memory, which, count),
            Operation::Open => self.open(context, plan, which),
            Operation::Close => {
                self.ends.clear();
                self.audiences.clear();
                Ok(0)
            }
            Operation::Echo => self.end(which, |end| end.echo(count)),
            Operation::Sink => self.end(which, |end| end.sink(count)),
            Operation::Subscribe => {
                self.audience(context, which)?.resize(count)?;
                Ok(0)
            }
            Operation::Drain => {
                let audience = self.audience(context, which)?;
                audience.drain()?;
                Ok(audience.mismatches())
            }
        }
    }

    fn open(&mut self, context: &Context<'_>, plan: &Plan, which: u64) -> Result<u64> {
        let group = usize::try_from(which).ok().and_then(|which| plan.groups.get(which));
        let group = group.ok_or_else(|| Failure::new("the driver asked for an unknown group"))?;
        for spec in group {
            self.ends.push(transport::open(context, spec, Side::Peer)?);
        }
        Ok(0)
    }

    fn end(&mut self, which: u64, run: impl FnOnce(&mut dyn End) -> Result<()>) -> Result<u64> {
        let end = usize::try_from(which).ok().and_then(|which| self.ends.get_mut(which));
        let end = end.ok_or_else(|| Failure::new("the driver asked for an unknown case"))?;
        run(end.as_mut())?;
        Ok(end.mismatches())
    }

    fn audience(&mut self, context: &Context<'_>, which: u64) -> Result<&mut Audience> {
        let known = self.audiences.iter().position(|&(policy, _)| policy == which);
        let index = match known {
            Some(index) => index,
            None => {
                self.audiences.push((which, Audience::open(context.bus, which)?));
                self.audiences.len() - 1
            }
        };
        Ok(&mut self.audiences[index].1)
    }
}
