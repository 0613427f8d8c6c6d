//! Joining as a subscriber: a slot, gates in force, and then a place to begin.
//!
//! The gates come first. Each is stored at the floor of its lane, and the floor is read again behind a fence; if it
//! moved meanwhile the gate follows. From then on nothing above the gate is taken back, so the place to begin can be
//! looked for in peace. Modelled in `loom-tests/tests/join.rs`.

use crate::error::{Error, ErrorKind, Result};
use crate::log::core::LogCore;
use crate::log::source::Source;
use crate::log::times;
use crate::log::trail::Trail;
use crate::ring::order::{Found, Order, TAIL_MAX};
use crate::ring::reader::Reader;
use crate::ring::slots::{Claimed, Slots};
use crate::shm::map::Access;
use crate::shm::sys;
use crate::topic::core::Core;
use crate::topic::payload::Payload;
use crate::topic::start::Start;
use crate::topic::subscriber::{Cursor, Subscriber};
use crate::topic::view::{Hold, SlotLease};
use std::sync::Arc;

impl<T: Payload> Subscriber<T> {
    pub(crate) fn join(core: Arc<Core>, start: Start) -> Result<Self> {
        core.member.check_process()?;
        if let Some(log) = &core.log {
            let next = begin_in_log(&format!("topic {}", core.name), log, start)?;
            return Self::join_log(core, next);
        }
        if matches!(start, Start::Time(_)) {
            return Err(not_durable(&core));
        }
        let slot = take_slot(&core)?;
        let claimed = slot.claimed;
        let order = core.map_order(Access::Read)?;
        if let Some(order) = &order {
            Slots::establish(|at| core.slots.set_order_gate(claimed.slot, at), || order.floor());
        }
        let born_seen = core.born_count();
        let mut lanes = Vec::new();
        for lane in 0..core.shape.publishers_max as usize {
            if let Some(reader) = gate(&core, claimed.slot, lane)? {
                let hold = Hold::new(reader.lane().clone(), slot.clone());
                lanes.push(Cursor { reader, hold, gate: 0, seed: 0 });
            }
        }
        let begun = match order {
            None => begin_in_lanes(&core, claimed.slot, &mut lanes, start).map(|()| None),
            Some(order) => begin_in_order(&core, claimed, &mut lanes, &order, start)
                .map(|index| Some((order, index))),
        };
        let order = match begun {
            Ok(order) => order,
            Err(error) => {
                lanes.iter_mut().for_each(|cursor| cursor.reader.leave());
                return Err(error);
            }
        };
        if let Err(error) = core.check_control() {
            lanes.iter_mut().for_each(|cursor| cursor.reader.leave());
            return Err(error);
        }
        Ok(Self::assemble(core, slot, lanes, order, born_seen))
    }

    /// Joins a durable topic as a subscriber whose next message is `next`, be it deleted by now.
    pub(super) fn join_log(core: Arc<Core>, next: u64) -> Result<Self> {
        let slot = take_slot(&core)?;
        let Some(log) = &core.log else { return Err(not_durable(&core)) };
        core.slots.set_order_gate(slot.claimed.slot, next);
        core.check_control()?;
        let born_seen = core.born_count();
        let trail = Trail::new(log.clone(), next, log.head.tail());
        let mut subscriber = Self::assemble(core, slot, Vec::new(), None, born_seen);
        subscriber.trail = Some(trail);
        Ok(subscriber)
    }
}

/// Takes a slot, which is given back whatever happens.
fn take_slot(core: &Arc<Core>) -> Result<Arc<SlotLease>> {
    if !sys::register_barrier() {
        core.bell.demand_fences();
    }
    Ok(SlotLease::new(core.clone(), claim(core)?))
}

/// Where in the order of a log to begin.
pub(super) fn begin_in_log(what: &str, log: &Arc<LogCore>, start: Start) -> Result<u64> {
    let (first, next) = (log.first(), log.next()?);
    match start {
        Start::Oldest => Ok(first),
        Start::Latest => Ok(next),
        Start::Last(count) => Ok(next.saturating_sub(count).max(first)),
        Start::Sequence(wanted) if (first..=next).contains(&wanted) => Ok(wanted),
        Start::Sequence(wanted) => Err(log.out_of_range(what, wanted)),
        Start::Time(time) => times::at_time(&Source::of_topic(log.clone()), time),
    }
}

fn not_durable(core: &Core) -> Error {
    let text = format!(
        "topic {} keeps no times, so nobody can begin at one; only a durable topic does",
        core.name
    );
    Error::new(ErrorKind::Invalid, text)
}

/// Takes a free slot, freeing those of the dead if there is none.
fn claim(core: &Core) -> Result<Claimed> {
    let node = core.member.node();
    let try_all =
        || (0..core.slots.len()).find_map(|slot| core.slots.claim(slot, node, &core.pins));
    if let Some(claimed) = try_all() {
        return Ok(claimed);
    }
    for slot in 0..core.slots.len() {
        core.reap_if_dead(slot, core.slots.owner(slot));
    }
    try_all().ok_or_else(|| {
        Error::new(
            ErrorKind::Limit,
            format!(
                "topic {} has room for {} subscribers and all of them live; end one, or create \
                 the topic with a larger subscribers_max",
                core.name,
                core.slots.len()
            ),
        )
    })
}

/// Puts the gate of a lane in force. A reader inside the oldest segment if the lane exists.
fn gate(core: &Core, slot: usize, lane: usize) -> Result<Option<Reader>> {
    loop {
        if let Some(mapped) = core.lane(lane)? {
            if core.shape.reliable {
                let store = |floor| core.slots.set_gate(slot, lane, mapped.position(floor, 0));
                // A damaged floor is noticed by the look for the oldest message.
                Slots::establish(store, || mapped.floor().unwrap_or(0));
            }
            let mut reader = Reader::new(mapped, slot);
            reader.seek_oldest().map_err(|_| core.damaged_lane(lane))?;
            return Ok(Some(reader));
        }
        // A lane that is not born yet is gated from its birth on.
        let store = |_| core.slots.set_gate(slot, lane, 0);
        if Slots::establish(store, || u64::from(core.is_born(lane))) == 0 {
            return Ok(None);
        }
    }
}

/// Begins in every lane by itself.
fn begin_in_lanes(core: &Core, slot: usize, lanes: &mut [Cursor], start: Start) -> Result<()> {
    if let (Start::Sequence(wanted @ 1..), []) = (start, &*lanes) {
        // Nothing was ever published: a lane that is born later begins at 0, which was not asked for.
        return Err(no_such_sequence(&core.name, "", wanted, 0, 0));
    }
    for cursor in lanes {
        let reader = &mut cursor.reader;
        let lane = reader.lane().index();
        begin_in_lane(core, reader, start)?.map_err(|_| core.damaged_lane(lane))?;
        if core.shape.reliable {
            core.slots.set_gate(slot, lane, cursor.reader.position());
        }
    }
    Ok(())
}

type Sought = std::result::Result<(), crate::ring::lane::Corrupt>;

fn begin_in_lane(core: &Core, reader: &mut Reader, start: Start) -> Result<Sought> {
    let seek = |reader: &mut Reader| -> std::result::Result<bool, crate::ring::lane::Corrupt> {
        match start {
            Start::Oldest => Ok(true),
            Start::Latest => reader.seek_latest().map(|()| true),
            Start::Last(count) => {
                let oldest = reader.sequence();
                reader.seek_latest()?;
                let wanted = reader.sequence().saturating_sub(count).max(oldest);
                if !reader.seek_sequence(wanted)? {
                    reader.seek_oldest()?;
                }
                Ok(true)
            }
            Start::Sequence(wanted) => reader.seek_sequence(wanted),
            // Refused before.
            Start::Time(_) => Ok(false),
        }
    };
    match seek(reader) {
        Ok(true) => Ok(Ok(())),
        Ok(false) => Err(out_of_range(core, reader, start)),
        Err(corrupt) => Ok(Err(corrupt)),
    }
}

fn out_of_range(core: &Core, reader: &Reader, start: Start) -> Error {
    let wanted = match start {
        Start::Sequence(wanted) => wanted,
        _ => 0,
    };
    let lane = reader.lane();
    let oldest = lane.look_at_floor().ok().flatten().unwrap_or(0);
    let next = lane.look_at_tail().ok().flatten().map_or(oldest, |(sequence, _)| sequence);
    no_such_sequence(&core.name, &format!(" lane {}", lane.index()), wanted, oldest, next)
}

fn no_such_sequence(topic: &str, lane: &str, wanted: u64, oldest: u64, next: u64) -> Error {
    Error::new(
        ErrorKind::OutOfRange,
        format!(
            "topic {topic}{lane} has no sequence {wanted}: the oldest retained is {oldest}, \
             the next to be published is {next}"
        ),
    )
}

/// Begins at a place of the order log, and moves the gates of the lanes to what is read from there on.
fn begin_in_order(
    core: &Core,
    claimed: Claimed,
    lanes: &mut [Cursor],
    order: &Order,
    start: Start,
) -> Result<u64> {
    // Before the tail is looked for: what is covered now lies below it.
    let covered: Vec<u64> =
        (0..core.shape.publishers_max as usize).map(|lane| order.ordered(lane)).collect();
    let bounds = tail_of(order).and_then(|tail| Some((oldest_of(core, order, lanes, tail)?, tail)));
    let (oldest, tail) = bounds.ok_or_else(|| {
        let what = format!("{}/order", core.folder);
        Error::corrupt(what, "its tail or its floor", "not one", "a publisher's")
    })?;
    let index = match start {
        Start::Oldest => oldest,
        Start::Latest => tail,
        Start::Last(count) => tail.saturating_sub(count).max(oldest),
        Start::Sequence(wanted) if (oldest..=tail).contains(&wanted) => wanted,
        Start::Sequence(wanted) => {
            return Err(no_such_sequence(&core.name, "", wanted, oldest, tail));
        }
        Start::Time(_) => return Err(not_durable(core)),
    };
    if core.shape.reliable {
        let mut gates: Vec<Option<u64>> = vec![None; covered.len()];
        for at in index..tail {
            if let Found::Place(place) = order.read(at) {
                gates[place.lane].get_or_insert(place.position);
            }
        }
        for (lane, gate) in gates.into_iter().enumerate() {
            // A lane without a message from here on is read up to what was covered.
            let gate = gate.unwrap_or(covered[lane]);
            core.slots.set_gate(claimed.slot, lane, gate);
            let cursor = lanes.iter_mut().find(|cursor| cursor.reader.lane().index() == lane);
            if let Some(cursor) = cursor {
                cursor.gate = gate;
            }
        }
        core.slots.set_order_gate(claimed.slot, index);
    }
    // A reader that waits for its turn must not keep a segment.
    lanes.iter_mut().for_each(|cursor| cursor.reader.leave());
    Ok(index)
}

/// The first place that is not taken. `None` if no publisher wrote this tail.
fn tail_of(order: &Order) -> Option<u64> {
    let mut tail = order.tail();
    loop {
        match order.read(tail.min(TAIL_MAX)) {
            _ if tail > TAIL_MAX => return None,
            Found::Empty => return Some(tail),
            // Everybody who overwrites a place knows of a tail beyond it.
            Found::Lapped => tail = Some(order.tail()).filter(|now| *now > tail)?,
            Found::Place(_) | Found::Corrupt => tail += 1,
        }
    }
}

/// The first place from which on every frame is still in its lane. `None` if no publisher wrote this log.
fn oldest_of(core: &Core, order: &Order, lanes: &[Cursor], tail: u64) -> Option<u64> {
    let floor_of = |lane: usize| {
        let cursor = lanes.iter().find(|cursor| cursor.reader.lane().index() == lane);
        // A lane that was born since has not lost anything.
        let Some(cursor) = cursor else { return Some(0) };
        let lane = cursor.reader.lane();
        Some(lane.position(lane.floor().ok()?, 0))
    };
    let mut floors: Vec<Option<u64>> = vec![None; crate::limits::PUBLISHERS_MAX as usize];
    let floor = order.floor();
    // The floor stays below the tail that it was raised for, and keeps up with the ring.
    if floor > order.tail().min(TAIL_MAX) || tail.saturating_sub(floor) > core.shape.order_slots {
        return None;
    }
    let mut oldest = floor;
    for at in floor..tail {
        let place = match order.read(at) {
            Found::Place(place) => place,
            Found::Lapped => {
                oldest = at + 1;
                continue;
            }
            // The tail passes no place that is not taken.
            Found::Empty | Found::Corrupt => return None,
        };
        let floor = floors.get_mut(place.lane)?;
        if floor.is_none() {
            *floor = Some(floor_of(place.lane)?);
        }
        if floor.is_some_and(|floor| place.position < floor) {
            oldest = at + 1;
        }
    }
    Some(oldest)
}
