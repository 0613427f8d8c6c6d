//! Looking at a topic from outside, and repairing what the dead left in it.

use crate::bus::RepairReport;
use crate::error::Result;
use crate::layout::control;
use crate::layout::lane as lane_layout;
use crate::layout::owner::{Owner, State};
use crate::log::site;
use crate::ring::lane::Corrupt;
use crate::ring::log::Head;
use crate::shm::map::Access;
use crate::sync::Ordering::Relaxed;
use crate::topic::core::Core;
use crate::topic::lease;
use crate::topic::options::{policy_of, Policy};
use std::path::PathBuf;
use std::time::Duration;

/// Looks at a lane before one that is overtaken each time counts as damaged: a publisher would have to go around its
/// lane between two loads, so many times in a row.
const LOOKS_MAX: u32 = 100;

/// A topic, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicInfo {
    /// Its name.
    pub name: String,
    /// What happens when a lane is full.
    pub policy: Policy,
    /// Whether it has one total order.
    pub ordered: bool,
    /// Bytes of a segment.
    pub segment_bytes: u64,
    /// Segments of each lane.
    pub segments_per_lane: u32,
    /// Lanes.
    pub publishers_max: u32,
    /// Subscriber slots.
    pub subscribers_max: u32,
    /// Places of the order log; 0 if the topic is not ordered.
    pub order_slots: u64,
    /// After how long a publisher evicts whoever blocks it.
    pub evict_after: Option<Duration>,
    /// Whether pages are touched when a lane is mapped.
    pub prefault: bool,
    /// Permission bits of its files.
    pub mode: u32,
    /// Name of the stored schema; `None` for raw bytes.
    pub schema: Option<String>,
    /// Whether it was closed.
    pub closed: bool,
    /// Whether publishers fence after each commit, because some member has no asymmetric barrier.
    pub fenced: bool,
    /// One entry for each lane that was ever used.
    pub publishers: Vec<PublisherInfo>,
    /// One entry for each slot in use.
    pub subscribers: Vec<SubscriberInfo>,
    /// Subscriber slots freed because their process was dead.
    pub reaped_subscribers: u64,
    /// Lanes taken over from a dead publisher.
    pub taken_over_lanes: u64,
    /// Subscribers that lost their backlog.
    pub evictions: u64,
    /// Times that publishers woke sleepers.
    pub wakes: u64,
    /// Bytes of shared memory that the files of the topic occupy.
    pub bytes: u64,
    /// Of a durable topic: the folder of its log, which [`Log::open`](crate::Log::open) reads.
    pub log: Option<PathBuf>,
    /// Of a durable topic: every message below this sequence is known to be on disk.
    pub synced: Option<u64>,
}

/// A lane and its publisher.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PublisherInfo {
    /// The lane.
    pub lane: u32,
    /// The node that holds it, or held it last.
    pub node: u32,
    /// Its process, if the node is still known.
    pub pid: Option<u32>,
    /// Whether that process is in another PID namespace than this one, in which another process may have the number.
    pub is_elsewhere: bool,
    /// Whether somebody holds the lane; it is free for the next publisher if not.
    pub held: bool,
    /// Whether the holder lives. A lane that is held by the dead is taken over by the next publisher.
    pub alive: bool,
    /// Messages that were published in the lane since its birth.
    pub published: u64,
    /// Position of the next message.
    pub position: u64,
    /// Sequence of the oldest message that a newcomer gets.
    pub oldest: u64,
    /// Segments that were taken since the birth of the lane.
    pub segments_taken: u64,
    /// Times that the publisher had to wait for room.
    pub full: u64,
    /// Typed messages that outgrew their loan and were copied once.
    pub outgrown: u64,
    /// Slot of the subscriber that it waits for now.
    pub blocked_by: Option<u32>,
}

/// What a subscriber slot is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscriberState {
    /// Being taken.
    Joining,
    /// In use.
    Active,
    /// It lost its backlog and has not left yet.
    Evicted,
    /// It left, and views of it live on.
    Lingering,
}

/// A subscriber.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SubscriberInfo {
    /// Its slot.
    pub slot: u32,
    /// Its node.
    pub node: u32,
    /// Its process, if the node is still known.
    pub pid: Option<u32>,
    /// Whether that process is in another PID namespace than this one, in which another process may have the number.
    pub is_elsewhere: bool,
    /// Whether the node lives. The slot of a dead one is freed by whoever needs it.
    pub alive: bool,
    /// What the slot is used for.
    pub state: SubscriberState,
    /// Messages received, as of its last note.
    pub received: u64,
    /// Messages missed, as of its last note.
    pub missed: u64,
    /// Bytes behind the publishers, summed over the lanes, as of its last note; `None` on a lossy topic, where
    /// subscribers leave no gates.
    pub lag_bytes: Option<u64>,
    /// On an ordered topic: messages behind.
    pub lag_messages: Option<u64>,
    /// Segments that it pins.
    pub pins: u64,
}

/// Looks at a topic. The caller may have mapped it read-only.
pub(crate) fn inspect(core: &Core) -> Result<TopicInfo> {
    let shape = &core.shape;
    let schema = match shape.typed {
        true => Some(crate::message::schema_name(&core.schema_bytes()?)?),
        false => None,
    };
    let publishers = publishers(core)?;
    let subscribers = subscribers(core, &publishers)?;
    let lane_bytes = shape.lane_header(core.identity, 0).file_bytes;
    core.check_control()?;
    let order_bytes = if shape.ordered && !shape.durable {
        shape.order_header(core.identity).file_bytes
    } else {
        0
    };
    let log = shape.durable.then(|| site::read(&core.folder, core.identity)).transpose()?;
    Ok(TopicInfo {
        name: core.name.clone(),
        policy: policy_of(shape),
        ordered: shape.ordered,
        segment_bytes: shape.segment_bytes,
        segments_per_lane: shape.segments,
        publishers_max: shape.publishers_max,
        subscribers_max: shape.subscribers_max,
        order_slots: shape.order_slots,
        evict_after: (shape.evict_after_ns > 0).then(|| Duration::from_nanos(shape.evict_after_ns)),
        prefault: shape.prefault,
        mode: shape.mode,
        schema,
        closed: core.is_closed(),
        fenced: core.bell.is_fenced(),
        reaped_subscribers: core.counter(control::REAPED_AT),
        taken_over_lanes: core.counter(control::TAKEN_OVER_AT),
        evictions: core.counter(control::EVICTED_AT),
        wakes: core.counter(control::WOKEN_AT),
        bytes: match shape.durable {
            true => shape.file_bytes(),
            false => shape.file_bytes() + order_bytes + lane_bytes * publishers.len() as u64,
        },
        publishers,
        subscribers,
        log,
        synced: core.head().map(|head| head.synced()),
    })
}

fn publishers(core: &Core) -> Result<Vec<PublisherInfo>> {
    let mut all = Vec::new();
    for index in 0..core.shape.publishers_max as usize {
        if let Some(head) = core.head() {
            all.extend(core.is_born(index).then(|| publisher_of_log(core, &head, index)));
            continue;
        }
        let Some(lane) = core.lane(index)? else { continue };
        let lease = core.lease(index);
        let (published, position) = look(core, index, || lane.look_at_tail())?;
        // Relaxed: a note for people.
        let blocker = Owner(core.control.word(core.shape.blocker_at(index)).load(Relaxed));
        let alive = !lease.is_free() && core.member.is_alive(lease.node());
        let slot = (0..core.slots.high())
            .find(|slot| alive && blocker.0 != 0 && core.slots.owner(*slot) == blocker);
        let process = core.member.process_of(lease.node());
        all.push(PublisherInfo {
            lane: index as u32,
            node: lease.node(),
            pid: process.map(|process| process.pid),
            is_elsewhere: process.is_some_and(|process| process.is_elsewhere),
            held: !lease.is_free(),
            alive,
            published,
            position,
            oldest: look(core, index, || lane.look_at_floor())?,
            segments_taken: lane.counter(lane_layout::ROLLED_AT),
            full: lane.counter(lane_layout::FULL_AT),
            outgrown: lane.counter(lane_layout::OUTGROWN_AT),
            blocked_by: slot.map(|slot| slot as u32),
        });
    }
    Ok(all)
}

/// A lane of a log.
fn publisher_of_log(core: &Core, head: &Head, lane: usize) -> PublisherInfo {
    let lease = core.lease(lane);
    let process = core.member.process_of(lease.node());
    let (position, number) = head.reached(lane);
    // What it wrote last is published, unless its place is not taken yet.
    let is_committed = head.intent(lane).sequence.is_some_and(|sequence| sequence < head.tail());
    let published = number + u64::from(is_committed);
    PublisherInfo {
        lane: lane as u32,
        node: lease.node(),
        pid: process.map(|process| process.pid),
        is_elsewhere: process.is_some_and(|process| process.is_elsewhere),
        held: !lease.is_free(),
        alive: !lease.is_free() && core.member.is_alive(lease.node()),
        published,
        position,
        oldest: 0,
        segments_taken: position / core.shape.segment_bytes,
        full: 0,
        outgrown: 0,
        blocked_by: None,
    }
}

/// What a look at a lane tells. A busy publisher may take the segment back between two looks; then the next one is at
/// another segment.
fn look<R>(core: &Core, lane: usize, at: impl Fn() -> Result<Option<R>, Corrupt>) -> Result<R> {
    for _ in 0..LOOKS_MAX {
        match at() {
            Ok(Some(told)) => return Ok(told),
            Ok(None) => {}
            Err(Corrupt) => break,
        }
    }
    Err(core.damaged_lane(lane))
}

fn subscribers(core: &Core, publishers: &[PublisherInfo]) -> Result<Vec<SubscriberInfo>> {
    let order = core.map_order(Access::Read)?;
    let tail = order.map(|order| order.tail()).or_else(|| core.head().map(|head| head.tail()));
    let mut all = Vec::new();
    for slot in 0..core.slots.high() {
        let owner = core.slots.owner(slot);
        let state = match owner.state() {
            None | Some(State::Free) => continue,
            Some(State::Joining) => SubscriberState::Joining,
            Some(State::Active) => SubscriberState::Active,
            Some(State::Evicted) => SubscriberState::Evicted,
            Some(State::Lingering) => SubscriberState::Lingering,
        };
        let active = state == SubscriberState::Active;
        let behind = |publisher: &PublisherInfo| {
            publisher.position.saturating_sub(core.slots.gate_of(slot, publisher.lane as usize))
        };
        let (received, missed) = core.slots.counts(slot);
        let pins = |publisher: &PublisherInfo| {
            let lane = publisher.lane as usize;
            let segments = 0..core.shape.segments as usize;
            segments.filter(|segment| core.pins.count(lane, *segment, slot) > 0).count() as u64
        };
        let process = core.member.process_of(owner.node());
        all.push(SubscriberInfo {
            slot: slot as u32,
            node: owner.node(),
            pid: process.map(|process| process.pid),
            is_elsewhere: process.is_some_and(|process| process.is_elsewhere),
            alive: core.member.is_alive(owner.node()),
            state,
            received,
            missed,
            lag_bytes: (active && core.shape.reliable)
                .then(|| publishers.iter().map(behind).fold(0, u64::saturating_add)),
            lag_messages: tail
                .filter(|_| active)
                .map(|tail| tail.saturating_sub(core.slots.order_gate_of(slot))),
            pins: publishers.iter().map(pins).sum(),
        });
    }
    Ok(all)
}

/// Frees the slots, completes the lanes and removes the half-built files of the dead; adds how many
/// of each to `report`.
pub(crate) fn repair(core: &Core, report: &mut RepairReport) -> Result<()> {
    report.subscribers += core.reap_the_dead();
    report.temporaries += core.folder.sweep_temporaries();
    if let Some(log) = &core.log {
        report.temporaries += log.files.folder.sweep_temporaries();
    }
    let (mut lanes, mut failed) = (0, None);
    for lane in 0..core.shape.publishers_max as usize {
        match lease::repair(core, lane) {
            Ok(repaired) => lanes += usize::from(repaired),
            // A damaged lane is no reason not to repair the others.
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    report.lanes += lanes;
    if lanes > 0 {
        core.wake_all();
    }
    core.check_loss()?;
    failed.map_or(Ok(()), Err)
}
