//! `windlass demo`, run as a user runs it: it finishes, it can be interrupted, and nothing is left
//! behind.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::Folder;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// Long enough for the slowest machine, short enough to end a test that hangs.
const ENOUGH: Duration = Duration::from_secs(60);

#[test]
fn short_demo_loses_nothing_and_counts_what_was_missed() {
    let folder = Folder::new();
    let ran = folder.windlass(&["demo", "--seconds", "2", "--json"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let outcome = ran.json();
    assert_eq!(outcome["ok"], true);
    assert_eq!(outcome["problems"], serde_json::json!([]));
    assert_eq!(outcome["lost"], 0);
    assert_eq!(outcome["rows"], 22_695);
    let states = |role: &str| {
        let list = outcome[role].as_array().expect("a list").iter();
        list.map(|one| one["state"].as_str().expect("a word").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(states("publishers"), ["finished", "killed", "finished"]);
    assert_eq!(states("subscribers"), ["finished", "killed", "finished", "finished"]);
    for subscriber in outcome["subscribers"].as_array().expect("a list") {
        assert!(subscriber["messages"].as_u64() > Some(0), "{subscriber}");
        assert_eq!(subscriber["faults"], 0, "{subscriber}");
        let reliable = subscriber["topic"] == "readings";
        assert!(!reliable || subscriber["missed"] == 0, "{subscriber}");
    }
    assert_eq!(outcome["kills"].as_array().map(Vec::len), Some(2));
}

#[test]
fn demo_that_sends_a_wrong_row_fails_and_says_which() {
    let folder = Folder::new();
    let ran = folder.windlass(&["demo", "--seconds", "1", "--spoil"]);
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    let found = "lane 0: message 100 carries row 101, expected 100";
    assert!(ran.stdout.contains("FAILED: ") && ran.stdout.contains(found), "{}", ran.stdout);
}

#[test]
fn interrupted_demo_leaves_nothing_behind() {
    let folder = Folder::new();
    let mut demo = Demo::start(&folder);
    kill(demo.pid(), Signal::SIGINT).expect("it runs");
    let status = demo.process.wait().expect("it ends");
    assert_eq!(status.code(), Some(130));
    assert!(!Path::new(&demo.bus).exists(), "{} is left", demo.bus);
    assert_eq!(members_of(&demo.bus), Vec::<String>::new());
}

#[test]
fn children_die_with_their_parent() {
    let folder = Folder::new();
    let mut demo = Demo::start(&folder);
    assert!(members_of(&demo.bus).len() >= 5);
    demo.process.kill().expect("it runs");
    demo.process.wait().expect("it ends");
    let deadline = Instant::now() + ENOUGH;
    while !members_of(&demo.bus).is_empty() {
        assert!(Instant::now() < deadline, "{:?} live on", members_of(&demo.bus));
        std::thread::yield_now();
    }
    // Five processes were killed at once: two lanes of each topic, and three subscribers.
    let doctor = || folder.windlass(&["doctor", "--bus", &demo.bus, "--json"]).json();
    let diagnosis = doctor();
    assert_eq!(diagnosis["lanes"], 4, "{diagnosis}");
    assert_eq!(diagnosis["subscribers"], 3, "{diagnosis}");
    assert_eq!(diagnosis["found"].as_array().map(Vec::len), Some(3), "{diagnosis}");
    assert_eq!(doctor()["repaired"], 0);
    // Nobody was left to remove the bus; the next demo does it.
    let ran = folder.windlass(&["demo", "--seconds", "1", "--json"]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(!Path::new(&demo.bus).exists(), "{} is left", demo.bus);
}

/// A demo whose five processes are at work.
struct Demo {
    process: Child,
    bus: String,
}

impl Demo {
    fn start(folder: &Folder) -> Self {
        let mut command = folder.command(&["demo", "--seconds", "600"]);
        let mut process =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts");
        let stderr = BufReader::new(process.stderr.take().expect("it is a pipe"));
        let mut bus = String::new();
        for line in stderr.lines() {
            let line = line.expect("it prints text");
            if let Some((_, path)) = line.split_once("the bus is ") {
                bus = path.to_owned();
            }
            if line.contains("are at work") {
                return Self { process, bus };
            }
        }
        panic!("the demo ended before it began: {:?}", process.wait());
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // Both fail only if it has ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command lines of all processes that were told of this bus.
fn members_of(bus: &str) -> Vec<String> {
    let processes = std::fs::read_dir("/proc").expect("there is a /proc").flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains(bus) && line.contains("demo-")).collect()
}
