//! The commands for logs, as a shell sees them.

mod common;

#[path = "log/cat.rs"]
mod cat;
#[path = "log/look.rs"]
mod look;
#[path = "log/record.rs"]
mod record;
#[path = "log/replay.rs"]
mod replay;
#[path = "log/transfer.rs"]
mod transfer;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use common::{command, windlass, Folder, Ran};
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use windlass::schemas::tick_capnp::tick;
use windlass::{Append, Bus, Log, Raw, Topic};

/// What the demo publishes as well: recorded temperatures of a machine.
const TEMPERATURES: &str = include_str!("../data/machine_temperature.csv");

/// How long something may take before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command that succeeds; what it printed.
fn runs(line: &[&str]) -> String {
    let ran = windlass(line);
    assert_eq!(ran.status, Some(0), "{line:?}: {}{}", ran.stdout, ran.stderr);
    ran.stdout
}

/// Runs a command that succeeds and prints one object.
fn json(line: &[&str]) -> serde_json::Value {
    serde_json::from_str(&runs(&[line, &["--json"]].concat())).expect("one object")
}

/// Runs a command that prints an object a line.
fn lines(line: &[&str]) -> Vec<serde_json::Value> {
    objects(&runs(line))
}

fn objects(text: &str) -> Vec<serde_json::Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("an object")).collect()
}

/// Runs a command that fails with a sentence, which is returned.
fn fails(line: &[&str]) -> String {
    let ran = windlass(line);
    assert_eq!(ran.status, Some(1), "{line:?}: {}{}", ran.stdout, ran.stderr);
    common::assert_one_sentence(&ran.stderr);
    ran.stderr
}

/// A command that runs beside the test; killed if the test fails.
struct Running(Option<Child>);

impl Running {
    fn start(line: &[&str]) -> Self {
        let mut command = command(line);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("the binary runs")))
    }

    fn child(&mut self) -> &mut Child {
        self.0.as_mut().expect("it was not awaited yet")
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.child().id() as i32);
        kill(pid, signal).expect("it is ours");
    }

    fn has_ended(&mut self) -> bool {
        self.child().try_wait().expect("it is ours").is_some()
    }

    /// Waits for its end.
    fn ends(mut self) -> Ran {
        until("it ends", || self.has_ended());
        let output = self.0.take().expect("it is there").wait_with_output().expect("it ended");
        let text = |bytes| String::from_utf8(bytes).expect("it prints text");
        Ran {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Waits until something is so.
fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Waits until a topic has a living subscriber that is at work.
fn until_subscribed(bus: &Bus, topic: &str) {
    until("there is a subscriber", || {
        let info = bus.inspect(topic).expect("the topic is there");
        info.subscribers.iter().any(|it| it.state == windlass::SubscriberState::Active)
    });
}

/// A folder for the logs of one test.
fn path(folder: &Folder, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

/// The topic of a log of bytes at `path`.
fn bytes_at(path: &str) -> Topic<Raw> {
    let topic = Bus::anonymous().expect("a bus").topic::<Raw>("made").durable_at(path);
    topic.segment_bytes(64 << 10).open().expect("a log can be made")
}

/// Makes a log of messages with keys; the time of the first is a second after 1970, and each is a second later.
fn made(path: &str, messages: &[(&str, &[u8])]) {
    let mut publisher = bytes_at(path).publisher().expect("a lane");
    for (second, (key, payload)) in (1..).zip(messages) {
        let append = Append::new().key(key.as_bytes()).time_ns(second * 1_000_000_000);
        publisher.append(payload, &append).expect("there is room");
    }
}

/// Makes a log of so many messages `message N`, without keys.
fn counted(path: &str, count: u64) {
    let texts: Vec<String> = (0..count).map(|n| format!("message {n}")).collect();
    let messages: Vec<(&str, &[u8])> = texts.iter().map(|text| ("", text.as_bytes())).collect();
    made(path, &messages);
}

/// Publishes the recorded temperatures from row `from` on as ticks.
fn publish_temperatures(topic: &Topic<tick::Owned>, rows: std::ops::Range<usize>) {
    let mut publisher = topic.publisher().expect("a lane");
    for (number, row) in TEMPERATURES.lines().skip(1).enumerate().take(rows.end).skip(rows.start) {
        let (_, value) = row.split_once(',').expect("two columns");
        let mut loan = publisher.loan().expect("there is room");
        let mut tick = loan.init_root();
        tick.set_symbol(if number % 2 == 0 { "even" } else { "odd" });
        tick.set_number(number as u64);
        tick.set_price(value.parse().expect("a number"));
        loan.publish().expect("there is room");
    }
}

/// Makes a log of the first so many recorded temperatures.
fn temperatures(path: &str, rows: usize) {
    let topic = Bus::anonymous().expect("a bus").topic::<tick::Owned>("made").durable_at(path);
    publish_temperatures(&topic.segment_bytes(64 << 10).open().expect("a log"), 0..rows);
}

/// All that a log says of its messages but where they lie: time, key, payload.
fn contents(path: &str) -> Vec<(u64, Vec<u8>, Vec<u8>)> {
    let log = Log::open_untyped(path).expect("a log");
    let all = log.iter(..).expect("it can be read").map(|message| {
        let message = message.expect("it is sound");
        let time = message.time_ns().expect("it is in a log");
        (time, message.key().to_vec(), message.as_bytes().to_vec())
    });
    all.collect()
}

/// The payloads of a log of text.
fn texts(path: &str) -> Vec<String> {
    let text = |(_, _, payload)| String::from_utf8(payload).expect("it is text");
    contents(path).into_iter().map(text).collect()
}

/// Changes a byte of the message that has this payload.
fn damage(log: &str, payload: &str) {
    for entry in std::fs::read_dir(log).expect("a folder") {
        let file = entry.expect("an entry").path();
        let is_lane = file.file_name().is_some_and(|it| it.to_string_lossy().starts_with("lane-"));
        let mut bytes = std::fs::read(&file).expect("it can be read");
        let found = bytes.windows(payload.len()).position(|at| at == payload.as_bytes());
        if let Some(at) = found.filter(|_| is_lane) {
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).expect("it can be written");
            return;
        }
    }
    panic!("{payload} is not in {log}");
}

/// What of a log would be left behind under another name.
fn leftovers(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.contains("unfinished")).collect()
}
