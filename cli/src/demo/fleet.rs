//! The processes that the demo starts, kills and replaces, seen from their parent.
//!
//! One thread a child reads its pipe to the end; everything that happens arrives as an event in one
//! channel, and the fleet's state changes only while its owner waits. Children are started from the
//! thread that owns the fleet, which must be the main thread: the kernel ends a child when the
//! *thread* that started it ends. Dropping the fleet kills and reaps whoever is left.

use std::fmt;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Context, Result};
use serde::{Deserialize, Serialize};

use super::report::{Figures, Order, Published, Received, Report};
use crate::clock;

/// How often a waiting owner is called to draw what it sees.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The user ended the demo.
#[derive(Debug)]
pub struct Interrupted;

impl fmt::Display for Interrupted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("interrupted")
    }
}

impl std::error::Error for Interrupted {}

/// How a child stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Started, not yet joined.
    Starting,
    /// Joined and at work.
    Running,
    /// Killed by its parent, on purpose.
    Killed,
    /// Finished its work.
    Finished,
}

impl State {
    /// One word for a table.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Killed => "killed",
            Self::Finished => "finished",
        }
    }
}

/// What happened.
enum Event {
    Said(usize, Report),
    Closed(usize),
    Interrupted,
}

/// One child.
pub struct Member {
    /// What people call it: `publisher 2`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// How it stands.
    pub state: State,
    /// The last figures that it reported.
    pub figures: Option<Figures>,
    /// Its pipe is read to the end.
    closed: bool,
    process: Child,
    orders: ChildStdin,
}

impl Member {
    /// Its figures, if it is a publisher and has reported.
    pub fn published(&self) -> Option<&Published> {
        match &self.figures {
            Some(Figures::Publisher(published)) => Some(published),
            _ => None,
        }
    }

    /// Its figures, if it is a subscriber and has reported.
    pub fn received(&self) -> Option<&Received> {
        match &self.figures {
            Some(Figures::Subscriber(received)) => Some(received),
            _ => None,
        }
    }

    /// Nothing more will come from it.
    fn over(&self) -> bool {
        self.closed && matches!(self.state, State::Killed | State::Finished)
    }
}

/// All children of the demo, in the order in which they were started; a child's index stays its
/// own.
pub struct Fleet {
    members: Vec<Member>,
    events: Receiver<Event>,
    sender: Sender<Event>,
}

impl Fleet {
    /// An empty fleet.
    pub fn new() -> Self {
        let (sender, events) = channel();
        Self { members: Vec::new(), events, sender }
    }

    /// From now on Ctrl-C and the termination signals end a wait with [`Interrupted`]. Once in a
    /// process.
    pub fn interruptible(&self) -> Result<()> {
        let interrupts = self.sender.clone();
        ctrlc::set_handler(move || {
            // Nobody listens once the fleet is gone, and then nothing is left to interrupt.
            let _ = interrupts.send(Event::Interrupted);
        })
        .context("cannot listen to Ctrl-C")
    }

    /// Starts a child; it is at work once [`Self::started`].
    pub fn start(&mut self, name: &str, mut command: Command) -> Result<usize> {
        let mut process = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its own group: a Ctrl-C in the terminal reaches the parent alone, which ends the rest
            // in order.
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let orders = process.stdin.take().expect("stdin was asked for as a pipe");
        let reports = process.stdout.take().expect("stdout was asked for as a pipe");
        let (index, pid) = (self.members.len(), process.id());
        let sender = self.sender.clone();
        thread::spawn(move || listen(index, reports, &sender));
        self.members.push(Member {
            name: name.to_owned(),
            pid,
            state: State::Starting,
            figures: None,
            closed: false,
            process,
            orders,
        });
        Ok(index)
    }

    /// The children, in the order in which they were started.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether these children have joined, or are over already.
    pub fn started(&self, indices: &[usize]) -> bool {
        indices.iter().all(|&i| self.members[i].state != State::Starting)
    }

    /// Whether these children are over and all that they said is heard.
    pub fn over(&self, indices: &[usize]) -> bool {
        indices.iter().all(|&i| self.members[i].over())
    }

    /// Tells a child something. One that is over does not mind.
    pub fn order(&mut self, index: usize, order: Order) -> Result<()> {
        let member = &mut self.members[index];
        if matches!(member.state, State::Killed | State::Finished) {
            return Ok(());
        }
        let mut line = serde_json::to_vec(&order).context("cannot write an order")?;
        line.push(b'\n');
        // A child that died on its own is found by its closed pipe, with its status; not here.
        let _ = member.orders.write_all(&line).and_then(|()| member.orders.flush());
        Ok(())
    }

    /// Kills a child with SIGKILL and says when. What it said before still arrives.
    pub fn kill(&mut self, index: usize) -> Result<u64> {
        let member = &mut self.members[index];
        member.state = State::Killed;
        let at_ns = clock::now_ns();
        member.process.kill().with_context(|| format!("cannot kill {}", member.name))?;
        member.process.wait().with_context(|| format!("cannot reap {}", member.name))?;
        Ok(at_ns)
    }

    /// Waits until `done` or the deadline, calling `look` now and then; says whether it was `done`.
    ///
    /// # Errors
    ///
    /// A child failed or died unasked, or the user interrupts.
    pub fn wait(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Self) -> bool,
        look: &mut dyn FnMut(&Self),
    ) -> Result<bool> {
        let mut look_due = Instant::now();
        loop {
            if done(self) {
                return Ok(true);
            }
            let now = Instant::now();
            if now >= deadline {
                return Ok(false);
            }
            if now >= look_due {
                look(self);
                look_due = now + LOOK_INTERVAL;
            }
            match self.events.recv_timeout(deadline.min(look_due).saturating_duration_since(now)) {
                Ok(event) => self.happened(event)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => unreachable!("the fleet keeps a sender"),
            }
        }
    }

    fn happened(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Interrupted => Err(Interrupted.into()),
            Event::Said(index, report) => self.said(index, report),
            Event::Closed(index) => self.closed(index),
        }
    }

    fn said(&mut self, index: usize, report: Report) -> Result<()> {
        let member = &mut self.members[index];
        let killed = member.state == State::Killed;
        match report {
            Report::Ready if !killed => member.state = State::Running,
            Report::Ready => {}
            Report::Progress(figures) => member.figures = Some(figures),
            Report::Done(figures) => {
                member.figures = Some(figures);
                if !killed {
                    member.state = State::Finished;
                }
            }
            Report::Failed(sentence) => {
                bail!("{} (process {}) failed: {sentence}", member.name, member.pid)
            }
        }
        Ok(())
    }

    fn closed(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        member.closed = true;
        if member.state == State::Killed {
            return Ok(());
        }
        let status =
            member.process.wait().with_context(|| format!("cannot reap {}", member.name))?;
        if member.state != State::Finished || !status.success() {
            bail!("{} (process {}) ended unasked, {status}", member.name, member.pid);
        }
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Both fail only for a child that is reaped already.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
    }
}

/// Passes on what a child says until its pipe closes.
fn listen(index: usize, reports: ChildStdout, sender: &Sender<Event>) {
    for line in BufReader::new(reports).lines() {
        let Ok(line) = line else { break };
        // A killed child may leave half a line; every whole one is a report.
        let Ok(report) = serde_json::from_str(&line) else { continue };
        if sender.send(Event::Said(index, report)).is_err() {
            return;
        }
    }
    // Nobody listens once the fleet is gone.
    let _ = sender.send(Event::Closed(index));
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENOUGH: Duration = Duration::from_secs(60);

    /// A fleet with one child that runs this shell script.
    fn fleet_of(script: &str) -> Fleet {
        let mut fleet = Fleet::new();
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        fleet.start("child", command).expect("sh starts");
        fleet
    }

    fn wait(fleet: &mut Fleet, done: impl Fn(&Fleet) -> bool) -> Result<bool> {
        fleet.wait(Instant::now() + ENOUGH, done, &mut |_| {})
    }

    #[test]
    fn last_report_of_a_killed_child_counts() {
        // The first report shows that the second one is in the pipe, or about to be; `read` then
        // waits for ever.
        let progress = r#"{"progress":{"publisher":{"lanes":[]}}}"#;
        let mut fleet = fleet_of(&format!("printf '{progress}\n\"ready\"\n'; read order"));
        assert!(wait(&mut fleet, |fleet| fleet.started(&[0])).expect("it reports"));
        fleet.kill(0).expect("it can be killed");
        assert!(wait(&mut fleet, |fleet| fleet.over(&[0])).expect("a kill is no failure"));
        assert_eq!(fleet.members()[0].published(), Some(&Published::default()));
        assert_eq!(fleet.members()[0].state, State::Killed);
    }

    #[test]
    fn orders_reach_a_child() {
        let script =
            r#"read order; test "$order" = '"stop"' && echo '{"done":{"publisher":{"lanes":[]}}}'"#;
        let mut fleet = fleet_of(script);
        fleet.order(0, Order::Stop).expect("orders are plain data");
        assert!(wait(&mut fleet, |fleet| fleet.over(&[0])).expect("it obeys"));
        assert_eq!(fleet.members()[0].state, State::Finished);
    }

    #[test]
    fn child_that_ends_unasked_is_an_error() {
        let error = wait(&mut fleet_of("exit 3"), |_| false).expect_err("found");
        assert!(error.to_string().ends_with("ended unasked, exit status: 3"), "{error}");
    }

    #[test]
    fn child_that_fails_is_quoted() {
        let error = wait(&mut fleet_of(r#"echo '{"failed":"no room"}'"#), |_| false);
        let error = error.expect_err("found").to_string();
        assert!(error.starts_with("child (process ") && error.ends_with("failed: no room"));
    }

    #[test]
    fn interruption_ends_a_wait() {
        let mut fleet = fleet_of("read order");
        fleet.sender.send(Event::Interrupted).expect("the fleet listens");
        assert!(wait(&mut fleet, |_| false).expect_err("interrupted").is::<Interrupted>());
    }

    #[test]
    fn dropped_fleet_leaves_no_child() {
        let fleet = fleet_of("read order");
        let pid = nix::unistd::Pid::from_raw(fleet.members()[0].pid as i32);
        drop(fleet);
        assert_eq!(nix::sys::signal::kill(pid, None), Err(nix::errno::Errno::ESRCH));
    }
}
