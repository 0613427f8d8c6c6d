//! What the command line may say. One type a command; the words of `--help` are here.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::soak::Sabotage;

mod log;
mod queue;

pub use log::{
    CatArguments, CompactArguments, CursorAction, CursorsArguments, DamageArguments,
    ExportArguments, Format, ImportArguments, LogArguments, LogCommand, LogInfoArguments,
    RangeArguments, RecordArguments, ReplayArguments, Unkeyed, VerifyArguments,
};
pub use queue::{
    DeadLettersArguments, DrainArguments, LettersAction, QueueCommand, QueueInfoArguments,
    QueueListArguments,
};

const EXAMPLES: &str = "\
Examples:
  windlass demo                        five processes, two of them killed, every message checked
  windlass demo --seconds 30 --json    the same for longer, as one JSON object
  windlass list                        what is on the bus `default`
  windlass info readings --bus market  who publishes, who reads, who is behind, who blocks
  windlass queue info jobs             how deep it is, who works on what
  windlass record readings --to FOLDER keep what is published on any topic
  windlass cat readings --last 10      messages as JSON, by the schema that the topic stores
  windlass doctor --bus market         repair what dead processes left behind
  windlass soak --minutes 60           everything at once, killed and stopped for an hour
  windlass bench latency               measure this machine

A bus is a directory of shared memory. A name without a slash means /dev/shm/windlass-<uid>/NAME;
anything with a slash is a path.

Exit status: 0 success, 1 failure, 2 wrong usage, 130 interrupted.";

/// Look at, exercise and repair shared-memory message buses.
#[derive(Debug, Parser)]
#[command(name = "windlass", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Arguments {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run publishers and subscribers on real data, kill some of them, and check every message
    #[command(long_about = DEMO_HELP)]
    Demo(DemoArguments),
    /// List the topics, queues and services of a bus
    List(ListArguments),
    /// Show one topic: options, publishers, subscribers, lag, counters, who blocks
    Info(InfoArguments),
    /// Look at queues, empty them, and look after their dead letters
    #[command(subcommand)]
    Queue(QueueCommand),
    /// Keep what is published on a topic in a log of its own
    #[command(long_about = log::RECORD_HELP)]
    Record(RecordArguments),
    /// Publish the messages of a log on a topic, at the pace at which they were published
    #[command(long_about = log::REPLAY_HELP)]
    Replay(ReplayArguments),
    /// Print the messages of a log or a topic, as JSON
    #[command(long_about = log::CAT_HELP)]
    Cat(CatArguments),
    /// Read every message of a log, and name those that are damaged
    #[command(long_about = log::VERIFY_HELP)]
    Verify(VerifyArguments),
    /// Write a new log with only the newest message of each key
    #[command(long_about = log::COMPACT_HELP)]
    Compact(CompactArguments),
    /// Write the messages of a log to a file
    #[command(long_about = log::EXPORT_HELP)]
    Export(ExportArguments),
    /// Append the messages of a file to a log, or publish them on a topic
    #[command(long_about = log::IMPORT_HELP)]
    Import(ImportArguments),
    /// List, reset or remove the cursors of a log: how far its named consumers have come
    Cursors(CursorsArguments),
    /// Show one log
    #[command(subcommand)]
    Log(LogCommand),
    /// Find and repair what dead processes left in a bus
    #[command(long_about = DOCTOR_HELP)]
    Doctor(DoctorArguments),
    /// Run everything at once while processes are killed and stopped, and give a verdict
    #[command(long_about = SOAK_HELP)]
    Soak(SoakArguments),
    /// Measure latency, throughput, fan-out, queues, channels and calls on this machine
    #[command(subcommand)]
    Bench(BenchCommand),
    /// A publisher of the demo
    #[command(hide = true)]
    DemoPublisher(PublisherArguments),
    /// A subscriber of the demo
    #[command(hide = true)]
    DemoSubscriber(SubscriberArguments),
    /// A process of the soak
    #[command(hide = true)]
    SoakChild(SoakChildArguments),
}

// Each paragraph is one line, which clap wraps to the width of the terminal.
const DEMO_HELP: &str = "\
Starts two publishers and three subscribers, each a process of its own, on a bus made for the \
occasion. The publishers send 22 695 recorded machine temperatures, again and again, as Cap'n \
Proto messages built in shared memory, on two topics: `readings` is reliable and has two \
subscribers, `readings-lossy` has one that is too slow on purpose. On the way one publisher and \
one subscriber are killed with SIGKILL and replaced.

Every message is compared with the recorded data, and every sequence number with the one before. \
The demo succeeds only if nothing was lost on the reliable topic, what the slow subscriber missed \
was reported to it exactly, the replaced publisher went on where the killed one ended, and nothing \
of the killed is left in the topics.";

const DEMO_EXAMPLES: &str = "\
Examples:
  windlass demo
  windlass demo --seconds 60 --rate 100000
  windlass demo --json | jq .subscribers";

/// `windlass demo`.
#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = DEMO_EXAMPLES)]
pub struct DemoArguments {
    /// How long to publish
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Messages per second that each publisher sends on each topic
    #[arg(long, value_name = "N", default_value_t = 60_000,
          value_parser = clap::value_parser!(u64).range(100..=10_000_000))]
    pub rate: u64,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Send one wrong row, to see that the demo fails: a test of the test
    #[arg(long, hide = true)]
    pub spoil: bool,
}

/// Which bus a command looks at.
#[derive(Clone, Debug, Args)]
pub struct BusArgument {
    /// The bus: a name, or a path if it has a slash in it
    #[arg(long, value_name = "NAME_OR_PATH", default_value = "default")]
    pub bus: String,
}

/// `windlass list`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass list\n  windlass list --bus /dev/shm/mine --json")]
pub struct ListArguments {
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `windlass info`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass info readings\n  windlass info readings --json")]
pub struct InfoArguments {
    /// The topic to show, or the queue if there is no topic of that name
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const DOCTOR_HELP: &str = "\
Looks for what processes left in a bus when they died: nodes, lanes, slots of subscribers and \
consumers, messages of queues, unfinished files. A process counts as dead only when the kernel has \
released its lock, so the living, the stopped and the debugged are never touched, and running this \
beside a busy bus is safe. The bus repairs itself as it is used; this command does it now and says \
what there was.";

/// `windlass doctor`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass doctor\n  windlass queue info jobs             how deep it is, who works on what
  windlass doctor --bus market --json"
)]
pub struct DoctorArguments {
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const SOAK_HELP: &str = "\
Runs all that the library offers at once, over some fifty processes on a bus made for the occasion: \
reliable, lossy, ordered, typed and evicting topics, small and large messages, every way to wait, \
views, newcomers, a work queue, topics that come and go, inspection and repair. Meanwhile processes \
are killed with SIGKILL and replaced, and others are stopped with SIGSTOP for up to 2.5 s and go on.

Every message says who sent it, which of theirs it is, and a checksum. The verdict is PASSED only if \
no message was lost, torn, doubled or out of order, everything missed was reported exactly, all \
subscribers of an ordered topic saw the same order, every message of the queue was done once and a \
second delivery said that it was one, nobody stood still for 10 s, all counters agree, and after a \
repair nothing of the dead is left: no node, slot, pin, lane, segment, chunk, file or mapping.

It loads two cores. After a failure the bus is left for inspection.";

const SOAK_EXAMPLES: &str = "\
Examples:
  windlass soak
  windlass soak --minutes 60 --kills-per-second 10
  windlass soak --minutes 0.2 --seed 7 --json | jq .recovery";

/// `windlass soak`.
#[derive(Clone, Debug, Args)]
#[command(after_help = SOAK_EXAMPLES)]
pub struct SoakArguments {
    /// How long to kill, in minutes; parts of one are fine
    #[arg(long, value_name = "N", default_value_t = 1.0, value_parser = minutes)]
    pub minutes: f64,
    /// Draw the same victims again [default: any]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How many processes to kill in a second, on average; a quarter as many are stopped
    #[arg(long, value_name = "N", default_value_t = 6.0, value_parser = kills_per_second)]
    pub kills_per_second: f64,
    /// Where to make the bus: a directory that does not exist yet [default: in /dev/shm]
    #[arg(long, value_name = "PATH")]
    pub directory: Option<PathBuf>,
    /// Leave the bus after a success as well
    #[arg(long)]
    pub keep: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Do something wrong, to see that the soak fails: a test of the test
    #[arg(long, hide = true, value_name = "WHAT,…", value_delimiter = ',')]
    pub sabotage: Vec<Sabotage>,
    /// How long nobody stands still, in seconds: shorter for a test of the test
    #[arg(long, hide = true, value_name = "N", default_value_t = 10.0, value_parser = seconds)]
    pub standstill_seconds: f64,
}

fn minutes(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(minutes) if minutes > 0.0 && minutes <= 20_160.0 => Ok(minutes),
        _ => Err("expected a number of minutes above 0, at most 20160 (two weeks)".to_owned()),
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(seconds) if seconds > 0.0 && seconds <= 3_600.0 => Ok(seconds),
        _ => Err("expected a number of seconds above 0, at most 3600".to_owned()),
    }
}

fn kills_per_second(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(kills) if (0.0..=200.0).contains(&kills) => Ok(kills),
        _ => Err("expected a number from 0 to 200".to_owned()),
    }
}

/// `windlass soak-child`.
#[derive(Debug, Args)]
pub struct SoakChildArguments {
    /// The bus to join.
    #[arg(long)]
    pub bus: String,
    /// The process whose death is this one's death.
    #[arg(long)]
    pub parent: i32,
    /// Its seat.
    #[arg(long)]
    pub seat: usize,
    /// How many processes had the seat before.
    #[arg(long)]
    pub generation: u32,
    /// Where its choices come from.
    #[arg(long)]
    pub seed: u64,
    /// What it does wrong.
    #[arg(long, value_delimiter = ',')]
    pub sabotage: Vec<Sabotage>,
}

/// `windlass bench`.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// One-way latency between two processes, beside a bare cache line and a Unix socket
    Latency(BenchArguments),
    /// Messages a second from one process to another, beside a bare ring and a Unix socket
    Throughput(BenchArguments),
    /// What a message costs its publisher with 1 to 64 subscribers
    Fanout(BenchArguments),
    /// Messages a second through work queues, and handing one over, beside queues of threads
    Queue(BenchArguments),
    /// The round trip of a call, beside a bare cache line and channels of threads, and calls a second
    Call(BenchArguments),
    /// Messages a second through channels, and handing one over, beside a ring of threads
    Channel(BenchArguments),
    /// Records a second appended to a log, and what an append takes, beside a bare mapped file and others
    Append(DiskBenchArguments),
    /// Records a second read from a log, seeking in it and opening it, beside a bare mapped file and others
    Replay(ReplayBenchArguments),
}

const BENCH_EXAMPLES: &str = "\
Examples:
  windlass bench latency
  windlass bench throughput --quick --json";

/// How a benchmark is run.
#[derive(Debug, Args)]
#[command(after_help = BENCH_EXAMPLES)]
pub struct BenchArguments {
    /// The two cores to run on; without it the first two allowed ones
    #[arg(long, value_name = "A,B", value_parser = two_cores)]
    pub cores: Option<(usize, usize)>,
    /// Repetitions of each case [default: 30, with --quick 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub repetitions: Option<u32>,
    /// Only see that it works, in seconds
    #[arg(long)]
    pub quick: bool,
    /// Only measure what the machine gives, without Windlass
    #[arg(long)]
    pub baselines: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// How a benchmark of files on a disk is run.
#[derive(Debug, Args)]
pub struct DiskBenchArguments {
    #[command(flatten)]
    pub bench: BenchArguments,
    /// Where to make the files [default: the folder for temporary files]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// `windlass bench replay`.
#[derive(Debug, Args)]
pub struct ReplayBenchArguments {
    #[command(flatten)]
    pub disk: DiskBenchArguments,
    /// How large a log is opened cold, in GiB [default: the one that is read, a third of one]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub gib: Option<u32>,
}

fn two_cores(text: &str) -> Result<(usize, usize), String> {
    let cores = text.split_once(',').and_then(|(a, b)| Some((a.parse().ok()?, b.parse().ok()?)));
    match cores {
        Some((a, b)) if a == b => Err("the two cores must differ".to_owned()),
        Some(cores) => Ok(cores),
        None => Err("expected two numbers with a comma between them, such as 0,1".to_owned()),
    }
}

/// What every child of the demo is told.
#[derive(Debug, Args)]
pub struct ChildArguments {
    /// The bus to join.
    #[arg(long)]
    pub bus: String,
    /// The process whose death is this one's death.
    #[arg(long)]
    pub parent: i32,
}

/// `windlass demo-publisher`.
#[derive(Debug, Args)]
pub struct PublisherArguments {
    #[command(flatten)]
    pub child: ChildArguments,
    /// The number that its messages carry.
    #[arg(long)]
    pub source: u32,
    /// Messages per second on each topic.
    #[arg(long)]
    pub rate: u64,
    /// Send one wrong row.
    #[arg(long)]
    pub spoil: bool,
}

/// `windlass demo-subscriber`.
#[derive(Debug, Args)]
pub struct SubscriberArguments {
    #[command(flatten)]
    pub child: ChildArguments,
    /// The topic to read.
    #[arg(long)]
    pub topic: String,
    /// The pace at which it reads.
    #[arg(long)]
    pub pace: Pace,
    /// It was not there from the beginning.
    #[arg(long)]
    pub late: bool,
}

/// How a subscriber of the demo waits for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Pace {
    /// It keeps its core to itself: the lowest latency.
    Spin,
    /// It polls and lets others run in between.
    Yield,
    /// It sleeps until it is woken.
    Block,
    /// It looks only now and then, and is too slow.
    Nap,
}

impl Pace {
    /// The word for it on the command line and in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Spin => "spin",
            Self::Yield => "yield",
            Self::Block => "block",
            Self::Nap => "nap",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn words_of_the_paces_are_those_of_the_command_line() {
        for &pace in Pace::value_variants() {
            assert_eq!(Pace::from_str(pace.word(), false), Ok(pace));
        }
    }

    #[test]
    fn two_different_cores_are_asked_for() {
        assert_eq!(two_cores("0,3"), Ok((0, 3)));
        for wrong in ["", "1", "1,", "1,x", "2,2", "1,2,3"] {
            assert!(two_cores(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn zero_seconds_are_refused() {
        assert!(Arguments::try_parse_from(["windlass", "demo", "--seconds", "0"]).is_err());
        assert!(Arguments::try_parse_from(["windlass", "demo", "--seconds", "1"]).is_ok());
    }
}
