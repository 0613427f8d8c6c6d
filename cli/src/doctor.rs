//! `windlass doctor`: finds and repairs what dead processes left in a bus.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::{Bus, ErrorKind, RepairReport};

use crate::args::DoctorArguments;
use crate::info::{blockers, process};
use crate::log::Extent;
use crate::output::{self, some};
use crate::queue::dead_holders;

/// What the command found and did.
#[derive(Default, Serialize)]
struct Diagnosis {
    /// Where the bus is.
    bus: String,
    /// How many topics it has.
    topics: u64,
    /// How many queues it has, those of tokens included.
    queues: u64,
    /// How many services it has.
    services: u64,
    /// What the dead left, in sentences.
    found: Vec<String>,
    /// How many things were repaired.
    repaired: u64,
    /// Of these: entries of dead nodes.
    nodes: u64,
    /// Subscriber and consumer slots of dead processes.
    subscribers: u64,
    /// Lanes of dead publishers.
    lanes: u64,
    /// Chunks of queues: loans of the dead, and messages that are delivered again.
    chunks: u64,
    /// Half-built files and directories.
    temporaries: u64,
    /// Whom the living wait for, and dead letters. Not repaired: only their owner can.
    waiting: Vec<String>,
    /// What is damaged. Not repaired: it would lose what may still be of use.
    damaged: Vec<String>,
}

/// `windlass doctor`.
pub fn run(arguments: &DoctorArguments) -> Result<ExitCode> {
    let bus = Bus::options().existing().group().open(&arguments.bus.bus)?;
    let mut diagnosis = Diagnosis { bus: bus.path().display().to_string(), ..Diagnosis::default() };
    examine(&bus, &mut diagnosis)?;
    examine_queues(&bus, &mut diagnosis)?;
    examine_services(&bus, &mut diagnosis)?;
    match bus.repair() {
        Ok(report) => diagnosis.repaired_as(report),
        // What is damaged was found above, in its own words; anything else is said here.
        Err(error) if diagnosis.damaged.is_empty() => diagnosis.damaged.push(error.to_string()),
        Err(_) => {}
    }
    if arguments.json {
        output::json(&diagnosis)?;
    } else {
        output::text(&page(&diagnosis))?;
    }
    Ok(if diagnosis.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Looks at every topic before anything is repaired.
fn examine(bus: &Bus, diagnosis: &mut Diagnosis) -> Result<()> {
    for topic in bus.topics()? {
        diagnosis.topics += 1;
        let Some(info) = diagnosis.sound(bus.inspect(&topic)) else { continue };
        if let Err(error) = Extent::of_topic(&info) {
            diagnosis.damaged.push(format!("the log of topic {topic}: {error}"));
        }
        let dead = info.subscribers.iter().filter(|subscriber| !subscriber.alive);
        diagnosis.found.extend(dead.map(|subscriber| {
            let whose = match subscriber.pid {
                Some(_) => format!(" of {}", process(subscriber.pid, subscriber.is_elsewhere)),
                None => String::new(),
            };
            format!("topic {topic}: subscriber slot {}{whose} is held by the dead", subscriber.slot)
        }));
        let waiting = blockers(&info);
        diagnosis.waiting.extend(waiting.iter().map(|who| format!("topic {topic}: {who}")));
    }
    Ok(())
}

/// The same for every queue.
fn examine_queues(bus: &Bus, diagnosis: &mut Diagnosis) -> Result<()> {
    for queue in bus.queues()? {
        diagnosis.queues += 1;
        let Some(info) = diagnosis.sound(bus.inspect_queue(&queue)) else { continue };
        let dead = dead_holders(bus, &info);
        diagnosis.found.extend(dead.iter().map(|what| format!("queue {queue}: {what}")));
        let letters: u32 = info.classes.iter().map(|class| class.dead).sum();
        if letters > 0 {
            let letters = some(letters.into(), "dead letter waits", "dead letters wait");
            let how = format!("`windlass queue dead-letters {queue}`");
            diagnosis
                .waiting
                .push(format!("queue {queue}: {letters} for somebody to look at: {how}"));
        }
    }
    for queue in bus.token_queues()? {
        diagnosis.queues += 1;
        let _ = diagnosis.sound(bus.inspect_tokens(&queue));
    }
    Ok(())
}

/// The same for every service.
fn examine_services(bus: &Bus, diagnosis: &mut Diagnosis) -> Result<()> {
    for service in bus.services()? {
        diagnosis.services += 1;
        let Some(info) = diagnosis.sound(bus.inspect_service(&service)) else { continue };
        let dead = crate::services::dead_members(&info);
        diagnosis.found.extend(dead.iter().map(|what| format!("service {service}: {what}")));
    }
    Ok(())
}

impl Diagnosis {
    /// What was found, or a note of the damage that it shows.
    fn sound<I>(&mut self, looked: windlass::Result<I>) -> Option<I> {
        match looked {
            Ok(info) => return Some(info),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            // That of somebody else, who repairs it; one of this user is said to be denied by the repair.
            Err(error) if error.kind() == ErrorKind::Permission => {}
            Err(error) => self.damaged.push(error.to_string()),
        }
        None
    }

    fn repaired_as(&mut self, report: RepairReport) {
        let RepairReport { nodes, subscribers, lanes, chunks, temporaries } = report;
        (self.nodes, self.subscribers) = (nodes as u64, subscribers as u64);
        (self.lanes, self.temporaries) = (lanes as u64, temporaries as u64);
        self.chunks = chunks as u64;
        self.repaired = self.nodes + self.subscribers + self.lanes + self.chunks + self.temporaries;
    }
}

fn page(diagnosis: &Diagnosis) -> String {
    let topics = some(diagnosis.topics, "topic", "topics");
    let queues = some(diagnosis.queues, "queue", "queues");
    let services = some(diagnosis.services, "service", "services");
    let mut page = format!("{}: {topics}, {queues}, {services}\n", diagnosis.bus);
    let mut line = |head: &str, text: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(page, "{head:<10}{text}");
    };
    diagnosis.found.iter().for_each(|text| line("found", text));
    let repairs = [
        (diagnosis.nodes, "entry of a dead node", "entries of dead nodes", "cleared"),
        (
            diagnosis.subscribers,
            "subscriber or consumer slot",
            "subscriber or consumer slots",
            "freed",
        ),
        (diagnosis.lanes, "lane of a dead publisher", "lanes of dead publishers", "completed"),
        (diagnosis.chunks, "chunk of a queue", "chunks of queues", "freed or delivered again"),
        (diagnosis.temporaries, "half-built file", "half-built files", "removed"),
    ];
    for (n, one, many, done) in repairs.into_iter().filter(|(n, ..)| *n > 0) {
        line("repaired", &format!("{} {done}", some(n, one, many)));
    }
    diagnosis.waiting.iter().for_each(|text| line("waiting", text));
    diagnosis.damaged.iter().for_each(|text| line("damaged", text));
    page + verdict(diagnosis)
}

fn verdict(diagnosis: &Diagnosis) -> &'static str {
    if !diagnosis.damaged.is_empty() {
        "What is damaged is left as it is; to start over, remove its directory."
    } else if diagnosis.repaired > 0 {
        "Everything that the dead left is repaired."
    } else {
        "Nothing to repair: the dead left nothing."
    }
}
