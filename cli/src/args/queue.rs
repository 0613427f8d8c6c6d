//! What the command line may say about queues.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::BusArgument;

/// `windlass queue`.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// List the queues of a bus: depth, age, who works on what
    List(QueueListArguments),
    /// Show one queue: options, chunks, consumers, who has what, counters
    Info(QueueInfoArguments),
    /// Take and acknowledge the messages that wait in a queue
    #[command(long_about = DRAIN_HELP)]
    Drain(DrainArguments),
    /// List, show, discard or revive the messages that were delivered as often as they may be
    DeadLetters(DeadLettersArguments),
}

/// `windlass queue list`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass queue list\n  windlass queue list --bus market --json"
)]
pub struct QueueListArguments {
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `windlass queue info`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  windlass queue info jobs\n  windlass queue info jobs --json")]
pub struct QueueInfoArguments {
    /// The queue to show
    #[arg(value_name = "QUEUE")]
    pub queue: String,
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const DRAIN_HELP: &str = "\
Takes the messages that wait in a queue and acknowledges them, as a consumer would: as many as waited when \
it began, and no others. Without --yes it only says what it would do.

With --to the payloads are appended to a new file, each before it is acknowledged. Those of a queue of bytes \
stand behind their length, eight bytes with the lowest first; those of a typed queue stand there as they are, \
which is a stream of Cap'n Proto messages: `capnp convert binary:json SCHEMA TYPE < FILE` reads it.";

const DRAIN_EXAMPLES: &str = "\
Examples:
  windlass queue drain jobs                       what it would do
  windlass queue drain jobs --yes --to jobs.bin
  windlass queue drain jobs --yes --print --limit 10";

/// `windlass queue drain`.
#[derive(Debug, Args)]
#[command(after_help = DRAIN_EXAMPLES)]
pub struct DrainArguments {
    /// The queue to drain
    #[arg(value_name = "QUEUE")]
    pub queue: String,
    #[command(flatten)]
    pub bus: BusArgument,
    /// Do it
    #[arg(long)]
    pub yes: bool,
    /// At most so many messages [default: all that wait now]
    #[arg(long, value_name = "N")]
    pub limit: Option<u32>,
    /// Keep the payloads in a file that does not exist yet
    #[arg(long, value_name = "FILE")]
    pub to: Option<PathBuf>,
    /// Print each message as one line of JSON, and what was done on standard error
    #[arg(long, conflicts_with = "json")]
    pub print: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const LETTERS_EXAMPLES: &str = "\
Examples:
  windlass queue dead-letters jobs
  windlass queue dead-letters jobs show 12
  windlass queue dead-letters jobs revive --all
  windlass queue dead-letters jobs discard 12 --json";

/// `windlass queue dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = LETTERS_EXAMPLES)]
pub struct DeadLettersArguments {
    /// The queue whose dead letters are meant
    #[arg(value_name = "QUEUE")]
    pub queue: String,
    /// What to do with them
    #[arg(value_name = "ACTION", default_value = "list")]
    pub action: LettersAction,
    /// The chunk of the one that is meant, as the list names it
    #[arg(value_name = "CHUNK")]
    pub chunk: Option<u32>,
    /// All of them
    #[arg(long, conflicts_with = "chunk")]
    pub all: bool,
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What to do with dead letters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LettersAction {
    /// Say which there are
    List,
    /// Print one whole
    Show,
    /// End it: its chunk is free
    Discard,
    /// Enter it again, as if it had never been delivered
    Revive,
}

impl DeadLettersArguments {
    /// What is missing or too much, in a sentence.
    pub fn check(&self) -> Result<(), &'static str> {
        let named = self.chunk.is_some() || self.all;
        match self.action {
            LettersAction::List if self.chunk.is_some() => {
                Err("list shows all dead letters; to see one whole, say `show CHUNK`")
            }
            LettersAction::Show if self.chunk.is_none() => {
                Err("show needs the chunk of a dead letter, as the list names it")
            }
            LettersAction::Discard | LettersAction::Revive if !named => {
                Err("say which dead letter is meant, by its chunk as the list names it, or --all")
            }
            _ => Ok(()),
        }
    }
}
