//! `windlass queue info`: everything there is to know about one queue.

use std::process::ExitCode;

use anyhow::{bail, Result};
use serde::Serialize;
use windlass::{Bus, ClassUse, ErrorKind, InFlight, QueueInfo, TokenQueueInfo};

use super::list::age;
use crate::args::QueueInfoArguments;
use crate::info::{process, process_cell};
use crate::output::{self, bytes, count, some, table};

/// A queue, as JSON shows it.
#[derive(Serialize)]
struct Info {
    bus: String,
    name: String,
    schema: Option<String>,
    closed: bool,
    max_deliveries: u32,
    consumers_max: u32,
    mode: String,
    bytes: u64,
    depth: u32,
    oldest_age_ms: Option<u64>,
    classes: Vec<Class>,
    in_flight: Vec<Holder>,
    consumers: Vec<Consumer>,
    counters: Counters,
}

/// What the chunks of one size are used for.
#[derive(Serialize)]
struct Class {
    chunk_bytes: u32,
    chunks: u32,
    free: u32,
    ready: u32,
    later: u32,
    taken: u32,
    loaned: u32,
    dead: u32,
}

/// What a process has.
#[derive(Serialize)]
struct Holder {
    node: u32,
    pid: Option<u32>,
    is_elsewhere: bool,
    alive: bool,
    taken: u32,
    loaned: u32,
}

#[derive(Serialize)]
struct Consumer {
    node: u32,
    pid: Option<u32>,
    is_elsewhere: bool,
    alive: bool,
}

/// What the queue counted since it was created.
#[derive(Serialize)]
struct Counters {
    redelivered: u64,
    died: u64,
    freed_loans: u64,
    reaped_consumers: u64,
    wakes: u64,
}

/// A queue of tokens, as JSON shows it.
#[derive(Serialize)]
struct Tokens {
    bus: String,
    name: String,
    tokens: u64,
    capacity: u64,
    token_bits: u32,
    mode: String,
    bytes: u64,
}

/// `windlass queue info`.
pub fn run(arguments: &QueueInfoArguments) -> Result<ExitCode> {
    let (bus, queue) = (super::open(&arguments.bus)?, &arguments.queue);
    match show(&bus, queue, arguments.json)? {
        Some(()) => Ok(ExitCode::SUCCESS),
        None => bail!(
            "bus {} has no queue {queue}; `windlass queue list` lists those that it has",
            bus.path().display()
        ),
    }
}

/// Prints everything there is to know about the work queue of that name, or the queue of tokens. `None` if there is
/// neither.
pub fn show(bus: &Bus, queue: &str, json: bool) -> Result<Option<()>> {
    match bus.inspect_queue(queue) {
        Ok(info) => {
            let info = Info::new(bus, info);
            return if json { output::json(&info) } else { output::text(&page(&info)) }.map(Some);
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    let info = match bus.inspect_tokens(queue) {
        Ok(info) => Tokens::new(bus, info),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let Tokens { bus, name, tokens, capacity, token_bits, mode, .. } = &info;
    let page = format!(
        "Token queue {name} of {bus}\n\n  tokens        {} of at most {}\n  bits          {token_bits} \
         a token\n  memory        {}\n  mode          {mode}",
        count(*tokens),
        count(*capacity),
        bytes(info.bytes)
    );
    if json { output::json(&info) } else { output::text(&page) }.map(Some)
}

/// Everything there is to know about a work queue, for people.
pub fn describe(bus: &Bus, queue: &str) -> Result<String> {
    Ok(page(&Info::new(bus, bus.inspect_queue(queue)?)))
}

impl Tokens {
    fn new(bus: &Bus, info: TokenQueueInfo) -> Self {
        Self {
            bus: bus.path().display().to_string(),
            name: info.name,
            tokens: info.len,
            capacity: info.capacity,
            token_bits: info.token_bits,
            mode: format!("{:04o}", info.mode),
            bytes: info.bytes,
        }
    }
}

/// What the dead have of a queue, and where they sit, in sentences.
pub fn dead_holders(bus: &Bus, info: &QueueInfo) -> Vec<String> {
    let held = info.in_flight.iter().filter(|has| !has.alive).map(|has| {
        let who = whose(has.node, has.pid, has.is_elsewhere);
        let taken = some(has.taken.into(), "message", "messages");
        let loaned = some(has.loaned.into(), "loan", "loans");
        format!("{who} is dead and has {taken} and {loaned}")
    });
    let nodes = bus.nodes();
    let seats = info.consumers.iter().filter(|(_, alive)| !alive).map(|(node, _)| {
        let of = nodes.iter().find(|known| known.node == *node);
        let who = whose(*node, of.map(|of| of.pid), of.is_some_and(|of| of.is_elsewhere));
        format!("{who} is dead and has a consumer slot")
    });
    held.chain(seats).collect()
}

/// A node in a sentence. The process of one that is dead is known until another one takes its entry in the bus.
fn whose(node: u32, pid: Option<u32>, is_elsewhere: bool) -> String {
    match pid {
        Some(_) => format!("node {node}, {},", process(pid, is_elsewhere)),
        None => format!("node {node}"),
    }
}

impl Info {
    fn new(bus: &Bus, info: QueueInfo) -> Self {
        let nodes = bus.nodes();
        let consumer = |(node, alive): (u32, bool)| {
            let of = nodes.iter().find(|known| known.node == node);
            let is_elsewhere = of.is_some_and(|of| of.is_elsewhere);
            Consumer { node, pid: of.map(|of| of.pid), is_elsewhere, alive }
        };
        Self {
            bus: bus.path().display().to_string(),
            name: info.name,
            schema: info.schema,
            closed: info.closed,
            max_deliveries: info.max_deliveries,
            consumers_max: info.consumers_max,
            mode: format!("{:04o}", info.mode),
            bytes: info.bytes,
            depth: info.depth,
            oldest_age_ms: info.oldest_age.map(|age| age.as_millis() as u64),
            classes: info.classes.into_iter().map(Class::new).collect(),
            in_flight: info.in_flight.into_iter().map(Holder::new).collect(),
            consumers: info.consumers.into_iter().map(consumer).collect(),
            counters: Counters {
                redelivered: info.redelivered,
                died: info.died,
                freed_loans: info.freed_loans,
                reaped_consumers: info.reaped_consumers,
                wakes: info.wakes,
            },
        }
    }
}

impl Class {
    fn new(class: ClassUse) -> Self {
        let free = class.free();
        let ClassUse { chunk_bytes, chunks, ready, later, taken, loaned, dead } = class;
        Self { chunk_bytes, chunks, free, ready, later, taken, loaned, dead }
    }
}

impl Holder {
    fn new(has: InFlight) -> Self {
        Self {
            node: has.node,
            pid: has.pid,
            is_elsewhere: has.is_elsewhere,
            alive: has.alive,
            taken: has.taken,
            loaned: has.loaned,
        }
    }
}

fn page(info: &Info) -> String {
    let head = format!("Queue {} of {}", info.name, info.bus);
    let mut parts = vec![head, options(info), classes(info)];
    if !info.in_flight.is_empty() {
        parts.push(in_flight(info));
    }
    if !info.consumers.is_empty() {
        parts.push(consumers(info));
    }
    parts.push(counters(&info.counters));
    parts.join("\n\n")
}

fn options(info: &Info) -> String {
    let mut lines = vec![
        ("type", info.schema.clone().unwrap_or_else(|| "bytes".to_owned())),
        ("depth", some(info.depth.into(), "message", "messages")),
        ("deliveries", format!("at most {}", info.max_deliveries)),
        ("room", some(info.consumers_max.into(), "consumer", "consumers")),
        ("memory", bytes(info.bytes)),
        ("mode", info.mode.clone()),
    ];
    if info.oldest_age_ms.is_some() {
        lines.insert(2, ("oldest", age(info.oldest_age_ms)));
    }
    if info.closed {
        lines.push(("closed", "yes; nothing more is entered".to_owned()));
    }
    let lines = lines.iter().map(|(name, value)| format!("  {name:<13} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn classes(info: &Info) -> String {
    let mut table = table(
        "chunks of> | chunks> | free> | ready> | later> | being worked on> | being built> | dead>",
    );
    for class in &info.classes {
        let Class { chunks, free, ready, later, taken, loaned, dead, .. } = *class;
        let counts = [chunks, free, ready, later, taken, loaned, dead];
        let row = counts.map(|n| count(n.into()));
        table.add_row([&[bytes(class.chunk_bytes.into())], &row[..]].concat());
    }
    table.trim_fmt()
}

fn life(alive: bool) -> String {
    if alive { "alive" } else { "dead" }.to_owned()
}

fn in_flight(info: &Info) -> String {
    let mut table = table("in flight at process> | node> | | works on> | builds>");
    for has in &info.in_flight {
        table.add_row([
            process_cell(has.pid, has.is_elsewhere),
            has.node.to_string(),
            life(has.alive),
            count(has.taken.into()),
            count(has.loaned.into()),
        ]);
    }
    table.trim_fmt()
}

fn consumers(info: &Info) -> String {
    let mut table = table("consumer in process> | node> |");
    for consumer in &info.consumers {
        let process = process_cell(consumer.pid, consumer.is_elsewhere);
        table.add_row([process, consumer.node.to_string(), life(consumer.alive)]);
    }
    table.trim_fmt()
}

fn counters(counters: &Counters) -> String {
    let Counters { redelivered, died, freed_loans, reaped_consumers, wakes } = *counters;
    format!(
        "Since its creation: {} delivered again, {} became dead letters,\n\
         {} of dead producers and {} of dead consumers freed, sleepers woken {}.",
        some(redelivered, "message was", "messages were"),
        count(died),
        some(freed_loans, "loan", "loans"),
        some(reaped_consumers, "slot", "slots"),
        some(wakes, "time", "times"),
    )
}
