//! Looking at a service from outside, and repairing what the dead left in it.

use crate::error::{Error, Result};
use crate::layout::chunk::State;
use crate::layout::service as layout;
use crate::ring::slots::Slots;
use crate::service::core::{Core, Round};
use crate::shm::map::Access;
use crate::sync::Ordering::Relaxed;

/// A service, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// Bytes that a request may have.
    pub request_bytes: u32,
    /// Bytes that a response may have.
    pub response_bytes: u32,
    /// Calls that a client may have at a time.
    pub calls: u32,
    /// Responses that a server may be ahead of its caller.
    pub ahead: u32,
    /// How often a call is delivered at most; 1 if it must not be repeated.
    pub max_deliveries: u32,
    /// Client slots.
    pub clients_max: u32,
    /// Server slots.
    pub servers_max: u32,
    /// Permission bits of its files.
    pub mode: u32,
    /// Name of the stored schema of requests; `None` for raw bytes.
    pub request_schema: Option<String>,
    /// Name of the stored schema of responses; `None` for raw bytes.
    pub response_schema: Option<String>,
    /// Whether it was closed.
    pub closed: bool,
    /// Calls that wait for a server.
    pub waiting: u32,
    /// Calls that a server works on.
    pub in_progress: u32,
    /// Calls that were answered, and whose callers have not finished with the answer.
    pub answered: u32,
    /// Calls that were given up, or whose clients are gone, and that a server still has.
    pub lingering: u32,
    /// Calls that will not be answered, and whose callers have not noticed yet.
    pub dead: u32,
    /// Clients, the dead included.
    pub clients: Vec<ServiceMember>,
    /// Servers, the dead included.
    pub servers: Vec<ServiceMember>,
    /// Calls that were made.
    pub made: u64,
    /// Calls that were delivered again.
    pub redelivered: u64,
    /// Calls that will not be answered, or were not.
    pub died: u64,
    /// Calls that their clients gave up, or left behind when they died.
    pub abandoned: u64,
    /// Client and server slots freed because their process was dead.
    pub reaped: u64,
    /// Times that somebody woke sleepers.
    pub wakes: u64,
    /// Bytes of shared memory that the files of the service occupy.
    pub bytes: u64,
}

/// A client or a server of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceMember {
    /// Its slot.
    pub slot: u32,
    /// Its node.
    pub node: u32,
    /// Its process, if the node is still known.
    pub pid: Option<u32>,
    /// Whether that process is in another PID namespace than this one, in which another process may have the number.
    pub is_elsewhere: bool,
    /// Whether it lives.
    pub alive: bool,
    /// Calls that it has: a client those that are not free, a server those that it works on.
    pub calls: u32,
}

fn members(core: &Core, slots: &Slots) -> Vec<ServiceMember> {
    let owners = (0..slots.high()).map(|slot| (slot as u32, slots.owner(slot)));
    let member = |(slot, owner): (u32, crate::layout::owner::Owner)| {
        let (node, process) = (owner.node(), core.member.process_of(owner.node()));
        ServiceMember {
            slot,
            node,
            pid: process.map(|process| process.pid),
            is_elsewhere: process.is_some_and(|process| process.is_elsewhere),
            alive: core.member.is_alive(node),
            calls: 0,
        }
    };
    owners.filter(|(_, owner)| !owner.is_free()).map(member).collect()
}

/// Looks at the service.
pub fn inspect(core: &Core) -> Result<ServiceInfo> {
    let (shape, calls) = (&core.shape, core.map_calls(Access::Read)?);
    let schema = |which: usize| match shape.schemas[which].typed {
        true => crate::message::schema_name(&core.schema_bytes(which)?).map(Some),
        false => Ok(None),
    };
    let mut info = ServiceInfo {
        name: core.name.clone(),
        request_bytes: shape.request_bytes,
        response_bytes: shape.response_bytes,
        calls: shape.calls,
        ahead: shape.ahead,
        max_deliveries: shape.deliveries_max,
        clients_max: shape.clients_max,
        servers_max: shape.servers_max,
        mode: shape.mode,
        request_schema: schema(0)?,
        response_schema: schema(1)?,
        closed: core.is_closed(),
        waiting: 0,
        in_progress: 0,
        answered: 0,
        lingering: 0,
        dead: 0,
        clients: members(core, &core.clients),
        servers: members(core, &core.servers),
        made: 0,
        redelivered: core.counter(layout::REDELIVERED_AT),
        died: core.counter(layout::DIED_AT),
        abandoned: core.counter(layout::ABANDONED_AT),
        reaped: core.counter(layout::REAPED_AT),
        wakes: core.counter(layout::WOKEN_AT),
        bytes: shape.control_bytes() + shape.data_bytes(),
    };
    for lane in 0..core.clients.high() {
        // Relaxed: statistics.
        let made = core.control.word(shape.lane_at(lane) + layout::LANE_CALLS_AT).load(Relaxed);
        info.made = info.made.wrapping_add(made);
        for call in shape.lane(lane) {
            let seen = calls.look(call);
            match seen.state() {
                Some(State::Free) => continue,
                Some(State::Ready) => info.waiting += 1,
                Some(State::Dead) => info.dead += 1,
                Some(State::Taken) if calls.is_answered(call, seen.turn()) => info.answered += 1,
                Some(State::Taken) => {
                    let owned = info.clients.iter().any(|client| client.slot as usize == lane);
                    match owned && !calls.is_given_up(call, seen) {
                        true => info.in_progress += 1,
                        false => info.lingering += 1,
                    }
                    // Of the servers of one process nobody knows which.
                    let server = info.servers.iter_mut().find(|it| it.node == seen.node());
                    server.into_iter().for_each(|server| server.calls += 1);
                }
                Some(State::Loaned | State::Later) | None => {
                    let what = format!("{}/control", core.folder);
                    let field = format!("the state of call {call}");
                    let found = format!("{:#x}", seen.0);
                    return Err(Error::corrupt(what, &field, found, "one that a call can have"));
                }
            }
            let client = info.clients.iter_mut().find(|it| it.slot as usize == lane);
            client.into_iter().for_each(|client| client.calls += 1);
        }
    }
    core.probe([]);
    core.check_loss()?;
    Ok(info)
}

/// Does now what the dead left to do.
pub fn repair(core: &Core) -> Result<(Round, usize)> {
    let calls = core.map_calls(Access::Write)?;
    // What is gone reads as zeroes: nothing is done on the strength of that.
    core.probe([calls.parts().region.last()]);
    core.check_loss()?;
    let round = core.round(&calls, 0..core.clients.high());
    let reaped = core.reap_the_dead();
    core.check_loss()?;
    Ok((round, reaped))
}
