//! Looking at a queue from outside, and repairing what the dead left in it.

use crate::error::{Error, Result};
use crate::layout::chunk::State;
use crate::layout::queue as layout;
use crate::limits::CLASSES_MAX;
use crate::queue::core::{Core, Round};
use crate::queue::outcome::ClassUse;
use crate::shm::sys;
use std::collections::BTreeMap;
use std::time::Duration;

/// A queue, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name.
    pub name: String,
    /// How often a message is delivered at most.
    pub max_deliveries: u32,
    /// Consumer slots.
    pub consumers_max: u32,
    /// Permission bits of its files.
    pub mode: u32,
    /// Name of the stored schema; `None` for raw bytes.
    pub schema: Option<String>,
    /// Whether it was closed.
    pub closed: bool,
    /// Messages that wait for a consumer.
    pub depth: u32,
    /// How long the oldest of them has waited since it was entered, to some milliseconds, modulo 49 days.
    pub oldest_age: Option<Duration>,
    /// What the chunks of each class are used for.
    pub classes: Vec<ClassUse>,
    /// Who has messages: consumers those that they work on, producers those that they build.
    pub in_flight: Vec<InFlight>,
    /// Nodes of the consumers that are there, the dead included, one entry for each slot.
    pub consumers: Vec<(u32, bool)>,
    /// Messages that were delivered again.
    pub redelivered: u64,
    /// Messages that became dead letters.
    pub died: u64,
    /// Loans of dead producers that were freed.
    pub freed_loans: u64,
    /// Consumer slots freed because their process was dead.
    pub reaped_consumers: u64,
    /// Times that somebody woke sleepers.
    pub wakes: u64,
    /// Bytes of shared memory that the files of the queue occupy.
    pub bytes: u64,
}

/// What a node has of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InFlight {
    /// The node.
    pub node: u32,
    /// Its process, if the node is still known.
    pub pid: Option<u32>,
    /// Whether that process is in another PID namespace than this one, in which another process may have the number.
    pub is_elsewhere: bool,
    /// Whether it lives. What the dead have is delivered again, or free, soon.
    pub alive: bool,
    /// Messages that it works on.
    pub taken: u32,
    /// Messages that it builds.
    pub loaned: u32,
}

/// Looks at the queue.
pub fn inspect(core: &Core) -> Result<QueueInfo> {
    let mut nodes = BTreeMap::<u32, InFlight>::new();
    let (mut depth, mut oldest) = (0, None::<u32>);
    for chunk in 0..core.pool.len() {
        let word = core.pool.look(chunk);
        let Some(state) = word.state() else {
            let what = format!("{}/control", core.folder);
            let field = format!("the state of chunk {chunk}");
            return Err(Error::corrupt(what, &field, format!("{:#x}", word.0), "one of six"));
        };
        match state {
            State::Ready => {
                depth += 1;
                let note = core.pool.note(chunk);
                let age = note.age_ms(sys::monotonic_ns());
                // The chunk may be another message's by now.
                if core.pool.look(chunk) == word {
                    oldest = oldest.max(Some(age));
                }
            }
            State::Taken => nodes.entry(word.node()).or_default().taken += 1,
            State::Loaned => nodes.entry(word.node()).or_default().loaned += 1,
            State::Free | State::Dead | State::Later => {}
        }
    }
    let in_flight = nodes.into_iter().map(|(node, found)| {
        let (process, alive) = (core.member.process_of(node), core.member.is_alive(node));
        InFlight {
            node,
            pid: process.map(|process| process.pid),
            is_elsewhere: process.is_some_and(|process| process.is_elsewhere),
            alive,
            ..found
        }
    });
    let owners = (0..core.slots.high()).map(|slot| core.slots.owner(slot));
    let consumers = owners.filter(|owner| !owner.is_free());
    let schema = match core.shape.typed {
        true => Some(crate::message::schema_name(&core.schema_bytes()?)?),
        false => None,
    };
    let classes = (0..CLASSES_MAX).filter(|class| core.shape.classes[*class].count > 0);
    let info = QueueInfo {
        name: core.name.clone(),
        max_deliveries: core.shape.deliveries_max,
        consumers_max: core.shape.consumers_max,
        mode: core.shape.mode,
        schema,
        closed: core.is_closed(),
        depth,
        oldest_age: oldest.map(|age| Duration::from_millis(age.into())),
        classes: classes.map(|class| core.usage(class)).collect(),
        in_flight: in_flight.collect(),
        consumers: consumers
            .map(|owner| (owner.node(), core.member.is_alive(owner.node())))
            .collect(),
        redelivered: core.counter(layout::REDELIVERED_AT),
        died: core.counter(layout::DIED_AT),
        freed_loans: core.counter(layout::FREED_AT),
        reaped_consumers: core.counter(layout::REAPED_AT),
        wakes: core.counter(layout::WOKEN_AT),
        bytes: core.shape.control_bytes() + core.shape.data_bytes(),
    };
    core.probe([]);
    core.check_loss()?;
    Ok(info)
}

/// Does now what the dead left to do.
pub fn repair(core: &Core) -> Result<(Round, usize)> {
    // What is gone reads as zeroes: nothing is done on the strength of that.
    core.probe([]);
    core.check_loss()?;
    let round = core.round(sys::monotonic_ns());
    let consumers = core.reap_the_dead();
    core.check_loss()?;
    Ok((round, consumers))
}
