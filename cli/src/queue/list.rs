//! `windlass queue list`: the queues of a bus.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::{Bus, ErrorKind, QueueInfo, TokenQueueInfo};

use crate::args::QueueListArguments;
use crate::output::{self, bytes, count, duration};

/// The queues of a bus.
#[derive(Serialize)]
pub struct Queues {
    /// Work queues, in the order of their names.
    pub queues: Vec<Entry<Summary>>,
    /// Queues of tokens, in the order of their names.
    pub token_queues: Vec<Entry<Tokens>>,
}

/// One queue, or why it cannot be looked at.
#[derive(Serialize)]
pub struct Entry<S> {
    name: String,
    #[serde(flatten)]
    standing: Standing<S>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Standing<S> {
    Sound(S),
    Damaged { error: String },
}

/// What of a work queue fits a line.
#[derive(Serialize)]
pub struct Summary {
    schema: Option<String>,
    depth: u32,
    oldest_age_ms: Option<u64>,
    in_flight: u32,
    later: u32,
    dead: u32,
    consumers: usize,
    redelivered: u64,
    bytes: u64,
    closed: bool,
}

/// What of a queue of tokens fits a line.
#[derive(Serialize)]
pub struct Tokens {
    tokens: u64,
    capacity: u64,
    token_bits: u32,
    bytes: u64,
}

#[derive(Serialize)]
struct List {
    /// Where the bus is.
    bus: String,
    #[serde(flatten)]
    queues: Queues,
}

/// `windlass queue list`.
pub fn run(arguments: &QueueListArguments) -> Result<ExitCode> {
    let bus = super::open(&arguments.bus)?;
    let list = List { bus: bus.path().display().to_string(), queues: Queues::of(&bus)? };
    if arguments.json {
        output::json(&list)?;
    } else {
        let page = match list.queues.page() {
            page if page.is_empty() => format!("The bus {} has no queues.", list.bus),
            page => format!("{}\n{page}", list.bus),
        };
        output::text(&page)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What is known of a queue; `None` if it is gone by now. A damaged queue must not hide the others.
fn entry<I, S>(
    name: String,
    looked: windlass::Result<I>,
    sum: impl FnOnce(I) -> S,
) -> Option<Entry<S>> {
    let standing = match looked {
        Ok(info) => Standing::Sound(sum(info)),
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        Err(error) => Standing::Damaged { error: error.to_string() },
    };
    Some(Entry { name, standing })
}

impl Queues {
    /// Looks at all queues of a bus.
    pub fn of(bus: &Bus) -> Result<Self> {
        let queues = bus.queues()?.into_iter();
        let tokens = bus.token_queues()?.into_iter();
        Ok(Self {
            queues: queues
                .filter_map(|name| entry(name.clone(), bus.inspect_queue(&name), Summary::new))
                .collect(),
            token_queues: tokens
                .filter_map(|name| entry(name.clone(), bus.inspect_tokens(&name), Tokens::new))
                .collect(),
        })
    }

    /// The tables, for people; empty if there are no queues.
    pub fn page(&self) -> String {
        let mut parts = Vec::new();
        if !self.queues.is_empty() {
            parts.push(self.work());
        }
        if !self.token_queues.is_empty() {
            parts.push(self.tokens());
        }
        parts.join("\n\n")
    }

    fn work(&self) -> String {
        let mut table = output::table(
            "queue | type | depth> | oldest> | in flight> | later> | dead> | consumers> | memory> |",
        );
        for Entry { name, standing } in &self.queues {
            match standing {
                Standing::Sound(summary) => table.add_row([
                    name.clone(),
                    summary.schema.clone().unwrap_or_else(|| "bytes".to_owned()),
                    count(summary.depth.into()),
                    age(summary.oldest_age_ms),
                    count(summary.in_flight.into()),
                    count(summary.later.into()),
                    count(summary.dead.into()),
                    summary.consumers.to_string(),
                    bytes(summary.bytes),
                    if summary.closed { "closed" } else { "" }.to_owned(),
                ]),
                Standing::Damaged { error } => table.add_row([name, error]),
            };
        }
        table.trim_fmt()
    }

    fn tokens(&self) -> String {
        let mut table = output::table("token queue | tokens> | capacity> | bits> | memory>");
        for Entry { name, standing } in &self.token_queues {
            match standing {
                Standing::Sound(tokens) => table.add_row([
                    name.clone(),
                    count(tokens.tokens),
                    count(tokens.capacity),
                    tokens.token_bits.to_string(),
                    bytes(tokens.bytes),
                ]),
                Standing::Damaged { error } => table.add_row([name, error]),
            };
        }
        table.trim_fmt()
    }
}

/// How long something has waited, for people.
pub fn age(ms: Option<u64>) -> String {
    ms.map_or(String::new(), |ms| duration(ms.saturating_mul(1_000_000)))
}

impl Summary {
    fn new(info: QueueInfo) -> Self {
        Self {
            depth: info.depth,
            oldest_age_ms: info.oldest_age.map(|age| age.as_millis() as u64),
            in_flight: info.in_flight.iter().map(|has| has.taken + has.loaned).sum(),
            later: info.classes.iter().map(|class| class.later).sum(),
            dead: info.classes.iter().map(|class| class.dead).sum(),
            consumers: info.consumers.iter().filter(|(_, alive)| *alive).count(),
            redelivered: info.redelivered,
            bytes: info.bytes,
            closed: info.closed,
            schema: info.schema,
        }
    }
}

impl Tokens {
    fn new(info: TokenQueueInfo) -> Self {
        Self {
            tokens: info.len,
            capacity: info.capacity,
            token_bits: info.token_bits,
            bytes: info.bytes,
        }
    }
}
