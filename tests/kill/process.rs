//! Processes of this test: the same binary again, playing a role.
//!
//! A role speaks in lines that carry an `@`. What it says, that it was stopped, and how it ended
//! arrive at the parent in one channel, so that waiting for any of it is one `recv_timeout`.

use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{channel, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

/// Names the role that a process plays. Not set in the parent.
pub const ROLE: &str = "WINDLASS_KILL_ROLE";
/// The bus, and the kind of topic.
pub const BUS: &str = "WINDLASS_KILL_BUS";
pub const KIND: &str = "WINDLASS_KILL_KIND";
/// How many messages, if the role has no number of its own.
pub const COUNT: &str = "WINDLASS_KILL_COUNT";

/// What a process did.
#[derive(Debug)]
pub enum Event {
    /// It said something.
    Said(String),
    /// It wrote a line of diagnostics.
    Logged(String),
    /// It was stopped.
    Stopped,
    /// It ended, and since then its death is visible.
    Ended(WaitStatus, Instant),
}

/// Where, and how, a process is to be interrupted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Nowhere; it logs the points that it passes.
    Live,
    /// Nowhere, and it logs nothing.
    Quiet,
    Kill(String, u32),
    Stop(String, u32),
}

/// A process in a role. Killed and waited for when dropped.
pub struct Process {
    pub pid: u32,
    pub events: Receiver<Event>,
    ended: bool,
}

impl Process {
    #[expect(clippy::zombie_processes, reason = "a thread waits for the process by its number")]
    pub fn spawn(role: &str, bus: &Path, kind: &str, count: u64, fate: &Fate) -> Self {
        let binary = std::env::current_exe().expect("the test binary has a path");
        let mut command = Command::new(binary);
        command.args(["role", "--exact", "--nocapture", "--test-threads=1"]);
        command.env(ROLE, role).env(BUS, bus).env(KIND, kind).env(COUNT, count.to_string());
        for name in ["WINDLASS_STEP", "WINDLASS_STEP_HIT", "WINDLASS_STEP_STOP"] {
            command.env_remove(name);
        }
        match fate {
            Fate::Quiet => {}
            Fate::Live => {
                command.env("WINDLASS_STEP_LOG", "1");
            }
            Fate::Kill(step, hit) | Fate::Stop(step, hit) => {
                command.env("WINDLASS_STEP", step).env("WINDLASS_STEP_HIT", hit.to_string());
            }
        }
        if matches!(fate, Fate::Stop(..)) {
            command.env("WINDLASS_STEP_STOP", "1");
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("this binary can be started again");
        let (sender, events) = channel();
        let pid = child.id();
        let said = child.stdout.take().expect("the output is a pipe");
        let logged = child.stderr.take().expect("the diagnostics are a pipe");
        let said = forward(said, sender.clone(), |line| {
            line.split_once('@').map(|(_, said)| Event::Said(said.to_owned()))
        });
        let logged = forward(logged, sender.clone(), |line| Some(Event::Logged(line)));
        thread::spawn(move || {
            let end = wait(pid, &sender);
            // Everything that it said comes before its end.
            let _ = (said.join(), logged.join());
            let _ = sender.send(end);
        });
        Self { pid, events, ended: false }
    }

    /// The next event within `limit`.
    pub fn next(&mut self, limit: Duration) -> Option<Event> {
        let event = self.events.recv_timeout(limit).ok();
        self.ended |= matches!(event, Some(Event::Ended(..)));
        event
    }

    /// What the kernel says that it does, for whoever waits for it in vain.
    pub fn describe(&self) -> String {
        let read = |name| {
            let text = std::fs::read_to_string(format!("/proc/{}/{name}", self.pid));
            text.unwrap_or_else(|error| error.to_string())
        };
        let status = read("status");
        let wanted = ["State:", "SigPnd:", "ShdPnd:"];
        let lines = status.lines().filter(|line| wanted.iter().any(|word| line.starts_with(word)));
        let lines: Vec<_> = lines.collect();
        format!("{lines:?}, in {}, system call {}", read("wchan"), read("syscall"))
    }

    pub fn signal(&self, signal: Signal) {
        if !self.ended {
            // It fails if the process ended by itself, which its events say.
            let _ = kill(Pid::from_raw(self.pid as i32), signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        while !self.ended && self.next(Duration::from_secs(5)).is_some() {}
    }
}

fn forward(
    pipe: impl Read + Send + 'static,
    sender: Sender<Event>,
    event: impl Fn(String) -> Option<Event> + Send + 'static,
) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let Some(event) = event(line) {
                let _ = sender.send(event);
            }
        }
    })
}

fn wait(pid: u32, sender: &Sender<Event>) -> Event {
    loop {
        match waitpid(Pid::from_raw(pid as i32), Some(WaitPidFlag::WUNTRACED)) {
            Ok(WaitStatus::Stopped(..)) => {
                let _ = sender.send(Event::Stopped);
            }
            Ok(status) => return Event::Ended(status, Instant::now()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(error) => panic!("cannot wait for process {pid}: {error}"),
        }
    }
}

/// Says a line to the parent. It arrives whole or not at all.
pub fn say(line: &str) {
    let line = format!("@{line}\n");
    // An error means that the parent is gone, and then so is this process.
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// What every role does first: it dies with its parent.
pub fn die_with_parent() {
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("the kernel knows the signal");
}

/// Lets time pass.
pub fn pause(time: Duration) {
    let (_keep, never) = channel::<()>();
    let _ = never.recv_timeout(time);
}
