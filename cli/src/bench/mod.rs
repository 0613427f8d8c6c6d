//! `windlass bench`: latency, throughput, fan-out and queues, each with its baselines in the same run.
//!
//! A figure without the machine beside it means nothing: a hypervisor moves the two cores between
//! sharing a cache and not sharing one, and every time changes by three to six. So every repetition
//! stands between two looks at the machine (`pingpong`), counts for the state they agree on, and
//! is reported as a ratio to what the bare machine does in that state.
//!
//! ```text
//!   latency · throughput · fanout     what is measured, and the tables
//!   queue                             work queues, beside those of threads
//!   call                              round trips of calls, beside pairs of channels
//!   channel                           channels, beside a ring of threads
//!   append · replay                   logs, beside files as they are usually written and read
//!   driver ─ wire ─ peer              two processes, one tells the other what to do
//!   transport                         what a transport offers, and the loops over messages
//!   windlass · bare_ring · unix       the transports
//!   pingpong · memcpy · private       what the machine and Cap'n Proto cost alone
//!   payload · report · memory · cores · watch
//! ```
//!
//! Every message carries its sequence and the complement of it, the receiver checks both, and one
//! mismatch fails the run.

mod append;
mod bare_ring;
mod call;
mod channel;
mod cores;
mod driver;
mod failure;
mod fanout;
mod latency;
mod memcpy;
mod payload;
mod peer;
mod pingpong;
mod private;
mod queue;
mod replay;
mod report;
#[rustfmt::skip]
#[allow(clippy::all, clippy::pedantic, unused_qualifications)]
mod sample_capnp;
mod throughput;
mod transport;
mod unix;
mod watch;
mod windlass;
mod wire;

use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressStyle};

use cores::Machine;
use failure::Result;
use pingpong::Ping;
use report::{ByState, Setting};
use transport::{Carrier, Filling, Waiting};

pub use peer::ROLE;

/// Which benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// One-way latency.
    Latency,
    /// Messages a second.
    Throughput,
    /// The publisher's cost with many subscribers.
    Fanout,
    /// Work queues.
    Queue,
    /// Round trips of calls.
    Call,
    /// Channels.
    Channel,
    /// Appending to logs.
    Append,
    /// Reading logs.
    Replay,
}

/// How to run it.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The core of the driver and the core of its peer; the first two allowed ones if not given.
    pub cores: Option<(usize, usize)>,
    /// Repetitions of each case; 30 if not given, 3 in a smoke run.
    pub repetitions: Option<u32>,
    /// A smoke run of a few seconds.
    pub quick: bool,
    /// Only what the machine gives: no windlass.
    pub baselines: bool,
    /// One JSON object instead of tables.
    pub json: bool,
    /// Where files are made that are to be on a disk.
    pub directory: Option<std::path::PathBuf>,
    /// How large a log is opened.
    pub gib: Option<u32>,
}

/// Runs a benchmark and prints its report on standard output.
///
/// Fails (exit code 1) if a message was lost, torn or out of order, if a process died, and if there
/// are not two cores to run on.
pub fn run(bench: Bench, options: &Options) -> ExitCode {
    let result = Run::new(options).and_then(|run| match bench {
        Bench::Latency => latency::run(&run),
        Bench::Throughput => throughput::run(&run),
        Bench::Fanout => fanout::run(&run),
        Bench::Queue => queue::run(&run),
        Bench::Call => call::run(&run),
        Bench::Channel => channel::run(&run),
        Bench::Append => append::run(&run, options.directory.as_deref()),
        Bench::Replay => replay::run(&run, options.directory.as_deref(), options.gib),
    });
    exit(result)
}

/// What a process does that was started with [`ROLE`] in its environment, instead of reading its
/// arguments.
pub fn child_main() -> ExitCode {
    let role = std::env::var_os(ROLE).unwrap_or_default();
    exit(if role == queue::WORKER {
        queue::worker_main()
    } else if role == channel::HELPER {
        channel::helper_main()
    } else {
        peer::main()
    })
}

fn exit(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("windlass bench: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// A run: options with everything decided.
struct Run {
    cores: (usize, usize),
    repetitions: u32,
    quick: bool,
    baselines: bool,
    json: bool,
    machine: Machine,
}

impl Run {
    fn new(options: &Options) -> Result<Self> {
        let default = if options.quick { 3 } else { 30 };
        Ok(Self {
            cores: cores::choose(options.cores)?,
            repetitions: options.repetitions.unwrap_or(default).max(1),
            quick: options.quick,
            baselines: options.baselines,
            json: options.json,
            machine: Machine::describe()?,
        })
    }

    /// Whether cases of this transport are measured.
    fn wants(&self, carrier: Carrier) -> bool {
        !self.baselines || matches!(carrier, Carrier::BareRing | Carrier::UnixSocket)
    }

    /// A bar on standard error, if that is a terminal.
    fn progress(&self, steps: u64) -> ProgressBar {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} repetitions, {eta} left");
        let bar = ProgressBar::new(steps);
        match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        }
    }

    fn setting(&self, bench: &'static str, ping: ByState<Ping>) -> Setting {
        let mut machine = self.machine.clone();
        machine.finish();
        Setting {
            bench,
            quick: self.quick,
            repetitions: self.repetitions,
            cores: self.cores,
            machine,
            ping,
        }
    }
}

/// A case for a person: transport, payload, wait.
fn names(carrier: Carrier, filling: Filling, waiting: Waiting) -> [&'static str; 3] {
    let carrier = match carrier {
        Carrier::BareRing => "bare ring",
        Carrier::UnixSocket => "Unix socket",
        Carrier::Windlass => "windlass",
        Carrier::WindlassTyped => "windlass, typed",
        Carrier::Call => "service",
        Carrier::CallTyped => "service, typed",
    };
    let filling = match filling {
        Filling::Copied => "copied",
        Filling::Stamped => "stamped",
        Filling::Words => "words in place",
        Filling::Built => "built in place",
    };
    let waiting = match waiting {
        Waiting::Impatient => "impatient",
        Waiting::Patient => "patient",
        Waiting::Library => "library",
        Waiting::Batches => "patient batches",
    };
    [carrier, filling, waiting]
}
