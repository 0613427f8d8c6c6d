//! Lanes as leases: who may write one, and what a new holder repairs.
//!
//! The lease word of a lane names its holder; the kernel lock of the holder's node is the proof that it lives. Whoever
//! swaps the word from a dead holder to itself completes a half-done roll and appends what the dead publisher committed
//! in its lane but not in the order log.
//!
//! # Orderings
//!
//! | edge    | `Release`                        | `Acquire`             | hands over               |
//! |---------|----------------------------------|-----------------------|--------------------------|
//! | `LEASE` | swap of the lease word           | load and swap of it   | the lane                 |
//! | `BORN`  | store after the lane file's rename | load before mapping | the existence of the file |

use crate::error::{Error, ErrorKind, Result};
use crate::layout::control;
use crate::layout::order::{Place, POSITION_END};
use crate::layout::owner::{Owner, State};
use crate::ring::lane::{Corrupt, Lane};
use crate::ring::order::Order;
use crate::ring::writer::Writer;
use crate::shm::map::Access;
use crate::topic::core::{lane_file, Core};

/// A lane that this process may write.
pub struct Lease {
    pub writer: Writer,
    pub order: Option<Order>,
    pub owner: Owner,
    pub lane: usize,
}

/// Takes a lane: one that a dead publisher left, so that it is repaired; else one that is free; else a new one.
pub fn acquire(core: &Core) -> Result<Lease> {
    let me = core.member.node();
    let lanes = core.shape.publishers_max as usize;
    let mut holders = Vec::new();
    let mut damaged = None;
    let mut order: Vec<usize> = (0..lanes).collect();
    order.sort_by_key(|lane| (core.lease(*lane).is_free(), !core.is_born(*lane)));
    for lane in order {
        let seen = core.lease(lane);
        let dead = !seen.is_free() && !core.member.is_alive(seen.node());
        if !seen.is_free() && !dead {
            holders.push(seen.node());
            continue;
        }
        core.check_control()?;
        let mine = seen.succeeded_by(me, State::Active);
        if !core.swap_lease(lane, seen, mine) {
            holders.push(core.lease(lane).node());
            continue;
        }
        if dead {
            core.count(control::TAKEN_OVER_AT);
            tracing::info!(topic = %core.name, lane, node = seen.node(), "took over a dead lane");
        }
        match enter(core, lane, mine) {
            Ok(lease) => {
                if dead {
                    // What the dead publisher left in its lane may be news to somebody asleep.
                    core.wake_all();
                }
                return Ok(lease);
            }
            Err(error) => {
                core.release_lease(lane, mine);
                if error.kind() != ErrorKind::Corrupt {
                    return Err(error);
                }
                // A damaged lane is no reason not to publish in another.
                tracing::error!(topic = %core.name, lane, %error, "skipped a lane");
                damaged = damaged.or(Some(error));
            }
        }
    }
    if let Some(error) = damaged {
        return Err(error);
    }
    let pids: Vec<String> = holders
        .iter()
        .map(|node| core.member.pid_of(*node).map_or("?".into(), |pid| pid.to_string()))
        .collect();
    Err(Error::new(
        ErrorKind::Limit,
        format!(
            "topic {} has room for {lanes} publishers and all of them live (processes {}); \
             end one, or create the topic with a larger publishers_max",
            core.name,
            pids.join(", ")
        ),
    ))
}

/// Takes exactly this lane if its holder is dead, repairs it, and gives it back.
pub fn repair(core: &Core, lane: usize) -> Result<bool> {
    let seen = core.lease(lane);
    if seen.is_free() || core.member.is_alive(seen.node()) {
        return Ok(false);
    }
    core.check_control()?;
    let mine = seen.succeeded_by(core.member.node(), State::Active);
    if !core.swap_lease(lane, seen, mine) {
        return Ok(false);
    }
    core.count(control::TAKEN_OVER_AT);
    let repaired =
        if core.is_born(lane) { enter(core, lane, mine).map(|_| true) } else { Ok(true) };
    core.release_lease(lane, mine);
    repaired
}

/// Maps the lane, creating its file if need be, and repairs what the last holder left.
fn enter(core: &Core, lane: usize, owner: Owner) -> Result<Lease> {
    let born = core.is_born(lane);
    core.check_control()?;
    if born {
        // Whoever made the lane may have died before it told anybody.
        core.announce_lanes();
    } else {
        create(core, lane)?;
    }
    let damaged = |_| core.damaged_lane(lane);
    let writer = Writer::recover(core.map_lane(lane, Access::Write)?).map_err(damaged)?;
    let order = core.map_order(Access::Write)?;
    if let Some(order) = &order {
        append_the_rest(order, &writer, lane).map_err(|_| {
            let what = format!("{}/order", core.folder);
            Error::corrupt(what, "what it says of a lane", "not so", "what lies in the lane")
        })?;
    }
    Ok(Lease { writer, order, owner, lane })
}

/// Appends to the order log what the last holder committed in its lane and not there: one message at most, because it
/// appended each before it built the next one.
fn append_the_rest(order: &Order, writer: &Writer, lane: usize) -> Result<(), Corrupt> {
    order.check()?;
    order.settle();
    let covered = order.ordered(lane);
    if covered > writer.position() || writer.position() >= POSITION_END {
        return Err(Corrupt);
    }
    let mut rest = Vec::new();
    writer.positions_from(covered, |position| rest.push(position))?;
    match rest[..] {
        [] => Ok(()),
        // A counter that fell back would have a message delivered twice.
        [position] if order.newest_of(lane).is_none_or(|newest| newest < position) => {
            order.append(Place { lane, position }).map(drop).ok_or(Corrupt)
        }
        _ => Err(Corrupt),
    }
}

fn create(core: &Core, lane: usize) -> Result<()> {
    let header = core.shape.lane_header(core.identity, lane);
    let (segments, bytes) = (core.shape.segments as usize, core.shape.segment_bytes as usize);
    let name = lane_file(lane);
    core.folder.create_file_atomically(&name, header.file_bytes, core.shape.mode, |region| {
        Lane::new(region.clone(), core.pins.clone(), lane, segments, bytes).init();
        header.write(region);
        Ok(())
    })?;
    core.set_born(lane);
    Ok(())
}
