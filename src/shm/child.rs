//! Test support: other processes, made by running one test of this binary again in another role.

use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ROLE: &str = "WINDLASS_TEST_ROLE";

/// The role that this process was started in; `None` in the test itself.
pub fn role() -> Option<String> {
    std::env::var(ROLE).ok()
}

/// Tells the starter a word, and a value.
pub fn say(word: &str, value: impl std::fmt::Display) {
    // On a line of its own: the test harness writes to the same stream.
    println!("\n@{word} {value}");
    std::io::stdout().flush().expect("the starter reads");
}

/// Waits until the starter hangs up, or ends.
pub fn stay() {
    let _ = std::io::stdin().read(&mut [0]);
}

/// Polls until `holds`, and fails after a minute.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "waited a minute until {what}");
        std::thread::yield_now();
    }
}

/// A process that runs one test of this binary. Killed when dropped.
pub struct Child {
    process: std::process::Child,
    output: BufReader<std::process::ChildStdout>,
}

impl Child {
    /// Starts `test` (with `module_path!()`) in `role`.
    pub fn start(test: &str, role: &str) -> Self {
        let exe = std::env::current_exe().expect("a test knows its binary");
        Self::start_in(Command::new(exe), test, role)
    }

    /// Starts `test` in `role` by `command`, which runs this binary with the arguments that follow.
    pub fn start_in(mut command: Command, test: &str, role: &str) -> Self {
        let (_crate, path) = test.split_once("::").expect("a path has a crate");
        let mut process = command
            .args(["--exact", path, "--nocapture", "--include-ignored", "--test-threads=1"])
            .env(ROLE, role)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a test may start a process");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, output }
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().cast_signed())
    }

    /// Reads on until the child says `word`; returns the value, or `None` if it ended before.
    pub fn hear(&mut self, word: &str) -> Option<String> {
        let start = format!("@{word} ");
        let mut line = String::new();
        while self.output.read_line(&mut line).expect("output is text") > 0 {
            if let Some(value) = line.trim_end().strip_prefix(&start) {
                return Some(value.to_owned());
            }
            line.clear();
        }
        None
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the child is ours and not yet waited for");
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.process.wait().expect("the child is ours")
    }

    /// Hangs up and waits for a good end.
    pub fn finish(mut self) {
        drop(self.process.stdin.take());
        let status = self.wait();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
