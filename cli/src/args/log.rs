//! What the command line may say about the logs of durable topics.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use windlass::{Speed, SyncPolicy};

use super::BusArgument;
use crate::log::{duration, moment, size, speed, sync_policy, Spot};

/// A log, or a topic that may have one.
#[derive(Clone, Debug, Args)]
pub struct PlaceArguments {
    /// The folder of a log, or a topic: a name without a slash is a topic, if the bus has one of that name
    #[arg(value_name = "LOG|TOPIC")]
    pub place: String,
    #[command(flatten)]
    pub bus: BusArgument,
}

/// Which messages are meant. All by default.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct RangeArguments {
    /// From this sequence on
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["last", "since"])]
    pub from: Option<u64>,
    /// The newest so many
    #[arg(long, value_name = "N", conflicts_with_all = ["since", "until"])]
    pub last: Option<u64>,
    /// From the first message of this time on: 2026-11-21T09:30:00Z, or 10m for ten minutes ago, or @NANOSECONDS
    /// since 1970
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since: Option<u64>,
    /// Up to the first message of this time, without it
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub until: Option<u64>,
}

/// What becomes of messages that are not what was published.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct DamageArguments {
    /// Say on standard error which messages are damaged, and go on without them: the default
    #[arg(long, conflicts_with = "stop_on_damage")]
    pub skip_damaged: bool,
    /// End with an error at the first message that is damaged
    #[arg(long)]
    pub stop_on_damage: bool,
}

/// What `windlass record --help` begins with.
pub const RECORD_HELP: &str = "\
Subscribes to a topic and keeps what is published, from now on, in a log of its own, until the topic is closed or \
Ctrl-C. A log that exists goes on, if its messages are of the same type.

Recording disturbs nobody: what comes is taken out of the topic at once and waits in the memory of this command for \
the disk, up to 64 MiB of it. If the disk cannot keep up for longer, the publishers of a reliable topic wait, and \
messages of a lossy one are missed; this command says when, and how many. Messages of a durable topic keep their \
times and keys; others get the time at which they were received.";

const RECORD_EXAMPLES: &str = "\
Examples:
  windlass record readings --to /var/lib/readings.log
  windlass record readings --to readings.log --retain-bytes 10GiB --for 1h
  windlass record ticks --bus market --to ./ticks.log --sync 100ms --count 1000000 --json";

/// `windlass record`.
#[derive(Debug, Args)]
#[command(after_help = RECORD_EXAMPLES)]
pub struct RecordArguments {
    /// The topic to record
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// The folder of the log; made if it does not exist
    #[arg(long, value_name = "LOG")]
    pub to: PathBuf,
    #[command(flatten)]
    pub bus: BusArgument,
    /// Begin with the oldest message that the topic still has, not with the next one
    #[arg(long)]
    pub oldest: bool,
    #[command(flatten)]
    pub log: LogArguments,
    /// How long to record: 30s, 10m, 2h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub length: Option<Duration>,
    /// How many messages to record
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a log is made with. One that exists has its own options, and refuses others.
#[derive(Clone, Copy, Debug, Default, Args)]
pub struct LogArguments {
    /// Delete the oldest segments once all have more bytes than this: 500MiB, 10GiB [default: keep everything]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub retain_bytes: Option<u64>,
    /// Delete segments whose messages are all older than this: 12h, 7d [default: keep everything]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub retain_for: Option<Duration>,
    /// When messages are put on disk: `none` leaves it to the kernel, `each`, or every so often: 10ms [default: none]
    #[arg(long, value_name = "none|each|DURATION", value_parser = sync_policy)]
    pub sync: Option<SyncPolicy>,
    /// Bytes of a segment, a power of two: the unit of deleting, and room for the largest message [default: 64MiB]
    #[arg(long, value_name = "BYTES", value_parser = size)]
    pub segment_bytes: Option<u64>,
}

/// What `windlass replay --help` begins with.
pub const REPLAY_HELP: &str = "\
Publishes the messages of a log on a topic: at the distances in time at which they were published, so many times \
faster, or as fast as they are taken. The topic is made, with the schema of the log, if it does not exist. On a \
reliable topic this waits for slow subscribers, as every publisher does. Keys are kept if the topic is durable.";

const REPLAY_EXAMPLES: &str = "\
Examples:
  windlass replay readings.log --into readings --dry-run
  windlass replay ./ticks.log --into ticks --bus backtest --speed 100 --subscribers 1
  windlass replay ./ticks.log --into ticks --since 2026-11-21T09:30:00Z --until 2026-11-21T09:35:00Z --loop";

/// `windlass replay`.
#[derive(Debug, Args)]
#[command(after_help = REPLAY_EXAMPLES)]
pub struct ReplayArguments {
    /// The folder of a log, or a durable topic of the bus
    #[arg(value_name = "LOG")]
    pub place: String,
    /// The topic to publish on
    #[arg(long, value_name = "TOPIC")]
    pub into: String,
    #[command(flatten)]
    pub bus: BusArgument,
    /// How fast: `recorded`, a factor such as 10 or 0.5, or `flat` for no pauses at all
    #[arg(long, value_name = "recorded|N|flat", default_value = "recorded", value_parser = speed)]
    pub speed: Speed,
    #[command(flatten)]
    pub range: RangeArguments,
    /// Up to this sequence, without it
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["until", "last"])]
    pub to: Option<u64>,
    /// Begin again at the end, until Ctrl-C
    #[arg(long = "loop")]
    pub endless: bool,
    /// Wait until the topic has so many subscribers before the first message
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub subscribers: usize,
    #[command(flatten)]
    pub damage: DamageArguments,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `windlass verify --help` begins with.
pub const VERIFY_HELP: &str = "\
Reads every message of a log: its place in the order, its checksum, and whether it follows the one before it in its \
lane. Names each one that is damaged. Changes nothing, and may be run while the log is used. The status is 1 if \
anything is damaged.";

/// `windlass verify`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass verify readings.log\n  windlass verify readings.log --json"
)]
pub struct VerifyArguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `windlass compact --help` begins with.
pub const COMPACT_HELP: &str = "\
Writes a new log with only the newest message of each key, in the same order, with their times and keys. The key is \
that which a message was published with, or with --key a field of it. The log that is read is not changed. The \
new one has the same options, and is there once it is whole and on disk, or not at all.";

const COMPACT_EXAMPLES: &str = "\
Examples:
  windlass compact accounts.log --to accounts-small.log
  windlass compact ticks.log --to newest.log --key symbol --unkeyed drop";

/// `windlass compact`.
#[derive(Debug, Args)]
#[command(after_help = COMPACT_EXAMPLES)]
pub struct CompactArguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// The folder of the new log, which must not exist
    #[arg(long, value_name = "NEW")]
    pub to: PathBuf,
    /// The field that is the key, for messages with a schema: symbol, or order.id [default: the key they have]
    #[arg(long, value_name = "FIELD.PATH")]
    pub key: Option<String>,
    /// What becomes of messages without a key
    #[arg(long, value_name = "WHAT", default_value = "keep")]
    pub unkeyed: Unkeyed,
    #[command(flatten)]
    pub damage: DamageArguments,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What a compaction does with messages that have no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Unkeyed {
    /// All of them stay
    Keep,
    /// None of them stays
    Drop,
}

/// What `windlass cat --help` begins with.
pub const CAT_HELP: &str = "\
Prints messages, one line of JSON each: `sequence`, `time`, `lane`, `key` if there is one, and the message. That is \
`message` if a schema is stored, `text` if it is UTF-8, else `base64`; `problem` says why a message could not be \
read by the schema.

Of a topic without a log, these are the messages that it still has. Whoever reads those of a reliable topic slowly \
makes its publishers wait.";

const CAT_EXAMPLES: &str = "\
Examples:
  windlass cat readings.log --last 10
  windlass cat readings --follow --since 5m | jq .message.value
  windlass cat accounts.log --key alice --pretty";

/// `windlass cat`.
#[derive(Debug, Args)]
#[command(after_help = CAT_EXAMPLES)]
pub struct CatArguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    #[command(flatten)]
    pub range: RangeArguments,
    /// Up to this sequence, without it
    #[arg(long, value_name = "SEQ", conflicts_with_all = ["until", "last"])]
    pub to: Option<u64>,
    /// Only messages that were published with this key
    #[arg(long, value_name = "KEY")]
    pub key: Option<String>,
    /// Go on with what is published, until the topic is closed or Ctrl-C
    #[arg(long)]
    pub follow: bool,
    /// Print payloads as they are, one behind the other: of a type, that is a stream of Cap'n Proto messages
    #[arg(long, conflicts_with_all = ["head", "pretty"])]
    pub raw: bool,
    /// Print everything but the message, and how many bytes it has
    #[arg(long)]
    pub head: bool,
    /// Indent, over several lines
    #[arg(long)]
    pub pretty: bool,
    #[command(flatten)]
    pub damage: DamageArguments,
}

/// What `windlass export --help` begins with.
pub const EXPORT_HELP: &str = "\
Writes the messages of a log to a file: `jsonl`, lines as `windlass cat` prints them, which `windlass import` reads \
back with all that is in them; or `capnp`, the messages of a typed log one behind the other, as `capnp convert` reads \
them, without times and keys. The file is there once it is whole, or not at all.";

const EXPORT_EXAMPLES: &str = "\
Examples:
  windlass export readings.log --format jsonl --to readings.jsonl
  windlass export ticks.log --format capnp --to - | capnp convert binary:json ticks.capnp Tick";

/// `windlass export`.
#[derive(Debug, Args)]
#[command(after_help = EXPORT_EXAMPLES)]
pub struct ExportArguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// What to write
    #[arg(long, value_name = "FORMAT")]
    pub format: Format,
    /// The file, which must not exist; - is standard output
    #[arg(long, value_name = "FILE|-")]
    pub to: PathBuf,
    #[command(flatten)]
    pub range: RangeArguments,
    #[command(flatten)]
    pub damage: DamageArguments,
}

/// What a file of messages looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One line of JSON for each message
    Jsonl,
    /// Cap'n Proto messages, one behind the other
    Capnp,
}

/// What `windlass import --help` begins with.
pub const IMPORT_HELP: &str = "\
Reads messages from a file, as `windlass export` writes it, and appends them to a log, or publishes them on a topic. \
Messages are checked against the schema: that of the log or topic, or for a new one that of --schema-of. Without a \
schema they are bytes. A log, and a durable topic, keep the keys and times that the file has.

At the first message that cannot be read the import ends, with the line that it is in and how many messages were \
imported before. A log that is new is there once all of it is imported, or not at all.";

const IMPORT_EXAMPLES: &str = "\
Examples:
  windlass import readings.jsonl --into readings.log --schema-of old.log
  windlass import rows.jsonl --bare --topic readings --bus market";

/// `windlass import`.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
#[command(group(clap::ArgGroup::new("target").required(true).args(["into", "topic"])))]
pub struct ImportArguments {
    /// The file to read; - is standard input
    #[arg(value_name = "FILE|-")]
    pub file: PathBuf,
    /// The folder of the log to append to; made if it does not exist
    #[arg(long, value_name = "LOG")]
    pub into: Option<PathBuf>,
    /// The topic to publish on; made if it does not exist
    #[arg(long, value_name = "TOPIC")]
    pub topic: Option<String>,
    #[command(flatten)]
    pub bus: BusArgument,
    /// What the file is [default: what its name ends in]
    #[arg(long, value_name = "FORMAT")]
    pub format: Option<Format>,
    /// Each line is a message, and nothing else
    #[arg(long)]
    pub bare: bool,
    /// For a log or topic that is new: its messages are of the type of this one
    #[arg(long, value_name = "LOG|TOPIC")]
    pub schema_of: Option<String>,
    #[command(flatten)]
    pub log: LogArguments,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

const CURSORS_EXAMPLES: &str = "\
Examples:
  windlass cursors orders
  windlass cursors /var/lib/orders.log --json
  windlass cursors reset billing orders --to oldest
  windlass cursors remove billing orders";

/// `windlass cursors`.
#[derive(Debug, Args)]
#[command(after_help = CURSORS_EXAMPLES)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct CursorsArguments {
    /// The folder of a log, or a durable topic of the bus
    #[arg(value_name = "LOG|TOPIC", required = true)]
    pub place: Option<String>,
    #[command(flatten)]
    pub bus: BusArgument,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
    /// What to do with them.
    #[command(subcommand)]
    pub action: Option<CursorAction>,
}

/// What to do with a cursor.
#[derive(Debug, Subcommand)]
pub enum CursorAction {
    /// Put a cursor somewhere else, so that its consumer goes on from there
    Reset(CursorResetArguments),
    /// Remove a cursor, so that its consumer begins as if it had never been there
    Remove(CursorRemoveArguments),
}

/// `windlass cursors reset`.
#[derive(Debug, Args)]
pub struct CursorResetArguments {
    /// The name of the cursor
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Where to: `oldest`, `latest`, a sequence, or a time as `windlass cat --since` knows it
    #[arg(long, value_name = "oldest|latest|SEQ|TIME")]
    pub to: Spot,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `windlass cursors remove`.
#[derive(Debug, Args)]
pub struct CursorRemoveArguments {
    /// The name of the cursor
    #[arg(value_name = "NAME")]
    pub name: String,
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `windlass log`.
#[derive(Debug, Subcommand)]
pub enum LogCommand {
    /// Show one log: options, extent, bytes, times, lanes, cursors, who uses it
    Info(LogInfoArguments),
}

/// `windlass log info`.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  windlass log info readings.log\n  windlass log info readings --count --json"
)]
pub struct LogInfoArguments {
    #[command(flatten)]
    pub place: PlaceArguments,
    /// Read every message as well, to say how many bytes of payload there are
    #[arg(long)]
    pub count: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    pub json: bool,
}
