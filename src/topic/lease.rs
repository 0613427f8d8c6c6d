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
use crate::log::pen::Pen;
use crate::ring::lane::{Corrupt, Lane};
use crate::ring::order::Order;
use crate::ring::writer::Writer;
use crate::shm::map::Access;
use crate::topic::core::{lane_file, Core};
use crate::topic::publisher::Line;

/// A lane that this process may write.
pub struct Lease {
    pub writer: Writer,
    pub line: Line,
    pub owner: Owner,
    pub lane: usize,
}

/// Why lanes were not taken.
#[derive(Default)]
struct Passed {
    /// Nodes that hold one and live.
    holders: Vec<u32>,
    /// Lanes whose file belongs to another user.
    foreign: Vec<usize>,
    /// What was wrong with the first one that is damaged, or could not be made.
    failed: Option<Error>,
}

/// Takes a lane: one that a dead publisher left, so that it is repaired; else one that is free; else a new one.
///
/// The file of a lane belongs to the user who made it, and nobody else writes it. So the lane of another user is not
/// taken over: it waits for the next publisher of that user.
pub fn acquire(core: &Core) -> Result<Lease> {
    let me = core.member.node();
    let lanes = core.shape.publishers_max as usize;
    let mut passed = Passed::default();
    let mut order: Vec<usize> = (0..lanes).collect();
    order.sort_by_key(|lane| (core.lease(*lane).is_free(), !core.is_born(*lane)));
    for lane in order {
        let seen = core.lease(lane);
        let dead = !seen.is_free() && !core.member.is_alive(seen.node());
        if !seen.is_free() && !dead {
            passed.holders.push(seen.node());
            continue;
        }
        if is_foreign(core, lane) {
            passed.foreign.push(lane);
            if dead {
                if let Err(error) = settle_foreign(core, lane, seen) {
                    tracing::error!(topic = %core.name, lane, %error, "skipped a lane");
                    passed.failed = passed.failed.or(Some(error));
                }
            }
            continue;
        }
        core.check_control()?;
        let mine = seen.succeeded_by(me, State::Active);
        if !core.swap_lease(lane, seen, mine) {
            passed.holders.push(core.lease(lane).node());
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
                let only_this_lane =
                    [ErrorKind::Corrupt, ErrorKind::NotFound, ErrorKind::Permission];
                if !only_this_lane.contains(&error.kind()) {
                    return Err(error);
                }
                // What is wrong with one lane is no reason not to publish in another.
                tracing::error!(topic = %core.name, lane, %error, "skipped a lane");
                passed.failed = passed.failed.or(Some(error));
            }
        }
    }
    Err(nothing_left(core, passed))
}

/// Says why there is no lane for another publisher.
fn nothing_left(core: &Core, passed: Passed) -> Error {
    if let Some(error) = passed.failed {
        return error;
    }
    let all = |words: Vec<String>| words.join(", ");
    let mut why = Vec::new();
    if !passed.holders.is_empty() {
        let unknown = || "an unknown process".to_owned();
        let process =
            |node: &u32| core.member.process_of(*node).map_or_else(unknown, |it| it.to_string());
        let count = passed.holders.len();
        why.push(format!("{count} live ({})", all(passed.holders.iter().map(process).collect())));
    }
    if !passed.foreign.is_empty() {
        let lanes = all(passed.foreign.iter().map(usize::to_string).collect());
        why.push(format!("lanes {lanes} belong to other users, who alone may write them"));
    }
    Error::new(
        ErrorKind::Limit,
        format!(
            "topic {} of {} has room for {} publishers: {}; end one, or create the topic with a \
             larger publishers_max",
            core.name,
            core.member.folder(),
            core.shape.publishers_max,
            why.join(", and ")
        ),
    )
}

/// Whether the file of a lane exists and this user may not write it.
fn is_foreign(core: &Core, lane: usize) -> bool {
    if core.shape.durable {
        return false;
    }
    // Anything else that is wrong with it is said when it is mapped.
    let opened = core.is_born(lane).then(|| core.folder.open_file(&lane_file(lane), Access::Write));
    matches!(opened, Some(Err(error)) if error.kind() == ErrorKind::Permission)
}

/// Does for the dead publisher of another user what needs no right to write its lane: appends to the order log what it
/// committed, and gives the lane back. A half-done roll waits for a publisher of that user; nothing was committed
/// behind it.
fn settle_foreign(core: &Core, lane: usize, seen: Owner) -> Result<bool> {
    let mine = seen.succeeded_by(core.member.node(), State::Active);
    if !core.swap_lease(lane, seen, mine) {
        return Ok(false);
    }
    let settled = core.lane(lane).and_then(|mapped| {
        let Some(mapped) = mapped else { return Ok(None) };
        // The lease is held, so nobody goes on writing.
        let tail = mapped.look_at_tail().ok().flatten();
        let (_, end) = tail.ok_or_else(|| core.damaged_lane(lane))?;
        complete_order(core, &mapped, end)
    });
    core.release_lease(lane, mine);
    core.wake_all();
    tracing::info!(topic = %core.name, lane, node = seen.node(), "gave back the lane of another user");
    settled.map(|_| true)
}

/// Takes exactly this lane if its holder is dead, repairs it, and gives it back.
pub fn repair(core: &Core, lane: usize) -> Result<bool> {
    let seen = core.lease(lane);
    if seen.is_free() || core.member.is_alive(seen.node()) {
        return Ok(false);
    }
    core.check_control()?;
    if is_foreign(core, lane) {
        return settle_foreign(core, lane, seen);
    }
    let mine = seen.succeeded_by(core.member.node(), State::Active);
    if !core.swap_lease(lane, seen, mine) {
        return Ok(false);
    }
    core.count(control::TAKEN_OVER_AT);
    let repaired = if core.is_born(lane) && !core.shape.durable {
        enter(core, lane, mine).map(|_| true)
    } else {
        Ok(true)
    };
    core.release_lease(lane, mine);
    repaired
}

/// Maps the lane, creating its file if need be, and repairs what the last holder left.
fn enter(core: &Core, lane: usize, owner: Owner) -> Result<Lease> {
    let born = core.is_born(lane);
    core.check_control()?;
    if let Some(log) = &core.log {
        let (pen, writer) = Pen::take(log, lane)?;
        if !born {
            core.set_born(lane);
        }
        return Ok(Lease { writer, line: Line::Log(Box::new(pen)), owner, lane });
    }
    if born {
        // Whoever made the lane may have died before it told anybody.
        core.announce_lanes();
    } else {
        create(core, lane)?;
    }
    let writer = Writer::recover(core.map_lane(lane, Access::Write)?);
    let writer = writer.map_err(|_| core.damaged_lane(lane))?;
    let order = complete_order(core, writer.lane(), writer.position())?;
    let line = order.map_or(Line::Lanes, Line::Ring);
    Ok(Lease { writer, line, owner, lane })
}

/// Appends to the order log, if the topic has one, what the last publisher of a lane committed up to `end` and did not
/// append.
fn complete_order(core: &Core, lane: &Lane, end: u64) -> Result<Option<Order>> {
    let order = core.map_order(Access::Write)?;
    if let Some(order) = &order {
        append_the_rest(order, lane, end).map_err(|_| {
            let what = format!("{}/order", core.folder);
            Error::corrupt(what, "what it says of a lane", "not so", "what lies in the lane")
        })?;
    }
    Ok(order)
}

/// Appends to the order log what the last holder committed in its lane and not there: one message at most, because it
/// appended each before it built the next one.
fn append_the_rest(order: &Order, holding: &Lane, end: u64) -> Result<(), Corrupt> {
    order.check()?;
    order.settle();
    let lane = holding.index();
    let covered = order.ordered(lane);
    if covered > end || end >= POSITION_END {
        return Err(Corrupt);
    }
    let mut rest = Vec::new();
    holding.positions_from(covered, |position| rest.push(position))?;
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
    // The others of a group read it.
    let mode = core.shape.mode & !0o022;
    core.folder.create_file_atomically(&name, header.file_bytes, mode, |region| {
        Lane::new(region.clone(), core.pins.clone(), lane, segments, bytes).init();
        header.write(region);
        Ok(())
    })?;
    core.set_born(lane);
    Ok(())
}
