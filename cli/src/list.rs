//! `windlass list`: the topics, queues and services of a bus.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::Bus;

use crate::args::ListArguments;
use crate::log::Extent;
use crate::output::{self, bytes, count};
use crate::queue::list::Queues;
use crate::services::Services;

/// What the command found.
#[derive(Serialize)]
struct List {
    /// Where the bus is.
    bus: String,
    /// Its topics, in the order of their names.
    topics: Vec<Entry>,
    #[serde(flatten)]
    queues: Queues,
    #[serde(flatten)]
    services: Services,
}

/// One topic, or why it cannot be looked at.
#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(flatten)]
    standing: Standing,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Standing {
    Sound(Summary),
    Damaged { error: String },
}

/// What fits a line.
#[derive(Serialize)]
struct Summary {
    delivery: String,
    schema: Option<String>,
    publishers: usize,
    subscribers: usize,
    published: u64,
    bytes: u64,
    closed: bool,
    /// Of a durable topic.
    #[serde(flatten)]
    extent: Option<Extent>,
}

/// `windlass list`.
pub fn run(arguments: &ListArguments) -> Result<ExitCode> {
    let bus = Bus::options().existing().group().open(&arguments.bus.bus)?;
    let topics = bus.topics()?.into_iter().filter_map(|name| entry(&bus, name)).collect();
    let queues = Queues::of(&bus)?;
    let services = Services::of(&bus)?;
    let list = List { bus: bus.path().display().to_string(), topics, queues, services };
    if arguments.json {
        output::json(&list)?;
    } else {
        output::text(&page(&list))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks at a topic; `None` if it is gone by now. A damaged topic must not hide the others.
fn entry(bus: &Bus, name: String) -> Option<Entry> {
    let looked = bus.inspect(&name).and_then(|info| Ok((Extent::of_topic(&info)?, info)));
    let standing = match looked {
        Ok((extent, info)) => Standing::Sound(Summary {
            delivery: delivery(info.policy, info.ordered),
            schema: info.schema,
            publishers: info.publishers.iter().filter(|publisher| publisher.alive).count(),
            subscribers: info.subscribers.iter().filter(|subscriber| subscriber.alive).count(),
            published: info.publishers.iter().map(|publisher| publisher.published).sum(),
            bytes: info.bytes,
            closed: info.closed,
            extent,
        }),
        Err(error) if error.kind() == windlass::ErrorKind::NotFound && !is_there(bus, &name) => {
            return None;
        }
        Err(error) => Standing::Damaged { error: error.to_string() },
    };
    Some(Entry { name, standing })
}

/// Whether there is a topic of this name: if so, it is its log that was not found.
fn is_there(bus: &Bus, name: &str) -> bool {
    bus.topics().is_ok_and(|topics| topics.iter().any(|topic| topic == name))
}

/// `reliable`, `lossy`, `durable`, and whether ordered.
pub fn delivery(policy: windlass::Policy, ordered: bool) -> String {
    format!("{policy}{}", if ordered { ", ordered" } else { "" })
}

fn page(list: &List) -> String {
    let parts = [topics(list), list.queues.page(), list.services.page()];
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    match parts.is_empty() {
        true => format!("The bus {} has no topics, no queues and no services.", list.bus),
        false => format!("{}\n{}", list.bus, parts.join("\n\n")),
    }
}

fn topics(list: &List) -> String {
    if list.topics.is_empty() {
        return String::new();
    }
    let mut table = output::table(
        "topic | delivery | type | publishers> | subscribers> | published> | memory> | on disk> |",
    );
    for Entry { name, standing } in &list.topics {
        match standing {
            Standing::Sound(summary) => table.add_row([
                name.clone(),
                summary.delivery.clone(),
                summary.schema.clone().unwrap_or_else(|| "bytes".to_owned()),
                summary.publishers.to_string(),
                summary.subscribers.to_string(),
                count(summary.published),
                bytes(summary.bytes),
                summary.extent.as_ref().map_or(String::new(), |extent| bytes(extent.disk_bytes)),
                if summary.closed { "closed" } else { "" }.to_owned(),
            ]),
            Standing::Damaged { error } => table.add_row([name, error]),
        };
    }
    table.trim_fmt()
}
