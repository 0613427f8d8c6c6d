//! What happens in the demo, in order: who is started, who is killed when, and who takes over.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use windlass::Bus;

use super::fleet::Fleet;
use super::outcome::Outcome;
use super::reading::Topic;
use super::report::Order;
use super::show::Show;
use super::{ending, topics};
use crate::args::{DemoArguments, Pace};

/// When the publisher is killed, in hundredths of the run.
const PUBLISHER_DIES: u32 = 40;
/// When the subscriber is killed, in hundredths of the run.
const SUBSCRIBER_DIES: u32 = 65;
/// A child that has not joined after this long never will.
const JOIN_MAX: Duration = Duration::from_secs(20);
/// Children that have not finished this long after they were told to never will.
const FINISH_MAX: Duration = Duration::from_secs(30);
/// With fewer cores than processes of the demo, a process that spins would spin against the others.
const CORES_TO_SPIN_MIN: usize = 6;

/// What a child is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It publishes on both topics, under this number.
    Publisher { source: u32 },
    /// It reads a topic.
    Subscriber { topic: &'static str, pace: Pace, late: bool },
}

/// The demo while it runs. The children end with it.
pub struct Scenario<'a> {
    arguments: &'a DemoArguments,
    bus: &'a Bus,
    topics: Vec<Topic>,
    fleet: Fleet,
    /// By the index of the child in the fleet.
    roles: Vec<Role>,
    kills: Vec<Blow>,
    show: Show,
}

/// A kill, and who took the victim's place.
pub struct Blow {
    /// The index of the victim.
    pub victim: usize,
    /// The index of the replacement.
    pub replacement: usize,
    /// When.
    pub at_ns: u64,
    /// When, after publishing began.
    pub after: Duration,
}

impl<'a> Scenario<'a> {
    /// Opens the topics; nobody is started yet.
    pub fn new(arguments: &'a DemoArguments, bus: &'a Bus, fleet: Fleet) -> Result<Self> {
        let topics = topics::ALL
            .iter()
            .map(|topic| topics::builder(bus, topic).open())
            .collect::<windlass::Result<Vec<_>>>()?;
        let show = Show::new(Duration::from_secs(arguments.seconds));
        Ok(Self { arguments, bus, topics, fleet, roles: Vec::new(), kills: Vec::new(), show })
    }

    /// Runs the demo to its end.
    pub fn run(mut self) -> Result<Outcome> {
        self.show.note(&format!("the bus is {}", self.bus.path().display()));
        let patient = polling_pace();
        let first = self.subscriber("subscriber 1", topics::RELIABLE, patient, false)?;
        let second = self.subscriber("subscriber 2", topics::RELIABLE, Pace::Block, false)?;
        let third = self.subscriber("subscriber 3", topics::LOSSY, Pace::Nap, false)?;
        self.joined(&[first, second, third])?;
        let steady = self.publisher("publisher 1", 1)?;
        let doomed = self.publisher("publisher 2", 2)?;
        self.joined(&[steady, doomed])?;

        let start = Instant::now();
        let end = start + Duration::from_secs(self.arguments.seconds);
        let part = |hundredths| start + (end - start) * hundredths / 100;
        self.show.start();
        self.show.note("2 publishers and 3 subscribers are at work");
        self.watch(part(PUBLISHER_DIES))?;
        let heir = self.replace(doomed, start, |s| s.publisher("publisher 3", 3))?;
        self.watch(part(SUBSCRIBER_DIES))?;
        let late = self.replace(second, start, |s| {
            s.subscriber("subscriber 4", topics::RELIABLE, Pace::Block, true)
        })?;
        self.watch(end)?;

        self.stop(&[doomed, steady, heir])?;
        self.close(&[first, second, third, late])?;
        self.show.end();
        ending::outcome(self.arguments, &self.fleet, &self.roles, &self.kills, self.bus)
    }

    fn publisher(&mut self, name: &str, source: u32) -> Result<usize> {
        let mut command = self.command("demo-publisher")?;
        command.args(["--source", &source.to_string()]);
        command.args(["--rate", &self.arguments.rate.to_string()]);
        command.args(self.arguments.spoil.then_some("--spoil"));
        self.start(name, command, Role::Publisher { source })
    }

    fn subscriber(
        &mut self,
        name: &str,
        topic: &'static str,
        pace: Pace,
        late: bool,
    ) -> Result<usize> {
        let mut command = self.command("demo-subscriber")?;
        command.args(["--topic", topic, "--pace", pace.word()]);
        command.args(late.then_some("--late"));
        self.start(name, command, Role::Subscriber { topic, pace, late })
    }

    fn command(&self, role: &str) -> Result<Command> {
        let program = std::env::current_exe().context("cannot find this program's own file")?;
        let mut command = Command::new(program);
        command.arg(role).arg("--bus").arg(self.bus.path());
        command.args(["--parent", &std::process::id().to_string()]);
        Ok(command)
    }

    fn start(&mut self, name: &str, command: Command, role: Role) -> Result<usize> {
        let index = self.fleet.start(name, command)?;
        self.roles.push(role);
        Ok(index)
    }

    /// Waits until these children are at work.
    fn joined(&mut self, indices: &[usize]) -> Result<()> {
        let deadline = Instant::now() + JOIN_MAX;
        let Self { fleet, show, .. } = self;
        if !fleet.wait(deadline, |fleet| fleet.started(indices), &mut |fleet| show.look(fleet))? {
            bail!("{} did not join within {} s", starting(fleet, indices), JOIN_MAX.as_secs());
        }
        Ok(())
    }

    /// Lets everybody work until then.
    fn watch(&mut self, until: Instant) -> Result<()> {
        let Self { fleet, show, .. } = self;
        fleet.wait(until, |_| false, &mut |fleet| show.look(fleet)).map(drop)
    }

    /// Kills a child, tells the others, and starts another one in its place.
    fn replace(
        &mut self,
        victim: usize,
        start: Instant,
        successor: impl FnOnce(&mut Self) -> Result<usize>,
    ) -> Result<usize> {
        let after = start.elapsed();
        let at_ns = self.fleet.kill(victim)?;
        for survivor in 0..self.fleet.members().len() {
            if matches!(self.roles[survivor], Role::Subscriber { .. }) {
                self.fleet.order(survivor, Order::Killed { at_ns })?;
            }
        }
        let replacement = successor(self)?;
        let [old, new] = [victim, replacement].map(|i| &self.fleet.members()[i]);
        self.show.note(&format!(
            "{} (process {}) was killed with SIGKILL; {} (process {}) takes its place",
            old.name, old.pid, new.name, new.pid
        ));
        self.kills.push(Blow { victim, replacement, at_ns, after });
        self.joined(&[replacement])?;
        Ok(replacement)
    }

    /// Tells the publishers to stop and waits for their last figures.
    fn stop(&mut self, indices: &[usize]) -> Result<()> {
        for &index in indices {
            self.fleet.order(index, Order::Stop)?;
        }
        self.show.note("the publishers stop, the subscribers read to the end");
        self.finished(indices)
    }

    /// Closes the topics and waits until the subscribers have read to the end.
    fn close(&mut self, indices: &[usize]) -> Result<()> {
        for topic in &self.topics {
            topic.close();
        }
        self.finished(indices)
    }

    fn finished(&mut self, indices: &[usize]) -> Result<()> {
        let deadline = Instant::now() + FINISH_MAX;
        let Self { fleet, show, .. } = self;
        if !fleet.wait(deadline, |fleet| fleet.over(indices), &mut |fleet| show.look(fleet))? {
            let late = indices.iter().filter(|&&i| !fleet.over(&[i]));
            let late: Vec<_> = late.map(|&i| fleet.members()[i].name.as_str()).collect();
            bail!("{} did not finish within {} s", late.join(", "), FINISH_MAX.as_secs());
        }
        Ok(())
    }
}

/// How a subscriber polls on this machine: it spins only where every process can have a core of its
/// own.
fn polling_pace() -> Pace {
    match std::thread::available_parallelism() {
        Ok(cores) if cores.get() >= CORES_TO_SPIN_MIN => Pace::Spin,
        _ => Pace::Yield,
    }
}

fn starting(fleet: &Fleet, indices: &[usize]) -> String {
    let late = indices.iter().filter(|&&i| !fleet.started(&[i]));
    late.map(|&i| fleet.members()[i].name.as_str()).collect::<Vec<_>>().join(", ")
}
