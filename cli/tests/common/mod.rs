//! Running the built binary and looking at what it did.

#![allow(dead_code, reason = "each test program uses its own part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// What a run of the binary came to.
pub struct Ran {
    /// Its exit status; `None` if a signal ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub stdout: String,
    /// What it complained.
    pub stderr: String,
}

impl Ran {
    /// What it printed, which is one JSON object and nothing else.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}{}", self.stdout, self.stderr))
    }
}

/// The binary with these arguments, ready to run.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
    command.args(arguments).stdin(Stdio::null());
    command
}

/// Runs the binary to its end.
pub fn windlass(arguments: &[&str]) -> Ran {
    run(&mut command(arguments))
}

fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the binary runs");
    let text = |bytes| String::from_utf8(bytes).expect("it prints text");
    Ran { status: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// Checks that a failure is one line for people, without traces of how errors are represented.
pub fn assert_one_sentence(stderr: &str) {
    assert!(stderr.starts_with("windlass: "), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    for trace in ["Error {", "Err(", "Os {", "panicked", "Caused by"] {
        assert!(!stderr.contains(trace), "{stderr}");
    }
}

/// A directory in shared memory for the buses of one test, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    /// A new one.
    pub fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only the numbers must differ.
        let n = MADE.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/windlass-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("/dev/shm is writable");
        Self(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The binary with these arguments, for which this is where buses are.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = command(arguments);
        command.env("WINDLASS_ROOT", &self.0);
        command
    }

    /// Runs the binary to its end; this is where its buses are.
    pub fn windlass(&self, arguments: &[&str]) -> Ran {
        run(&mut self.command(arguments))
    }

    /// Makes an empty bus in it and returns its path.
    pub fn bus(&self, name: &str) -> String {
        let path = self.0.join(name).display().to_string();
        drop(windlass::Bus::open(&path).expect("a bus can be made"));
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left of a failed test is no reason to hide why it failed.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
