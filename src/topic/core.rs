//! What all handles of one open topic share within a process.

use crate::bus::Member;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::control::{self, Shape};
use crate::layout::header::{Header, Kind};
use crate::layout::owner::{Owner, State};
use crate::limits::CONTROL_BYTES_MAX;
use crate::log::core::LogCore;
use crate::log::files::LogFiles;
use crate::log::{self, site};
use crate::ring::lane::Lane;
use crate::ring::log::Head;
use crate::ring::order::Order;
use crate::ring::pins::Pins;
use crate::ring::slots::{Obstacle, Slots};
use crate::ring::wake::{Bell, Ring};
use crate::shm::home::Folder;
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use crate::shm::place::Region;
use crate::shm::sys;
use crate::sync::{fence, Ordering::*};
use std::sync::{Arc, Mutex, PoisonError};

/// Who blocks a publisher, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocker {
    /// The node that has to act.
    pub node: u32,
    /// Its process, in the PID namespace that it runs in; 0 if it is not known any more.
    pub pid: u32,
    /// Whether that is another PID namespace than that of this process: here another process may have the number.
    pub is_elsewhere: bool,
    /// Subscriber slot that is behind or holds the views.
    pub slot: u32,
    /// Bytes (on an ordered topic with a full order log: messages) between the subscriber and the publisher.
    pub lag: u64,
    /// What it does.
    pub reason: BlockReason,
}

/// What a blocker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockReason {
    /// It has not read the oldest segment yet.
    Unread,
    /// It holds views into every segment that could be taken.
    Views,
    /// It has not read the oldest place of the order log yet.
    Order,
}

/// One open topic.
pub struct Core {
    pub name: String,
    pub folder: Folder,
    pub member: Arc<Member>,
    pub shape: Shape,
    pub identity: u64,
    pub control: Region,
    pub slots: Slots,
    pub pins: Pins,
    pub bell: Bell,
    /// What became of the files of the topic.
    pub loss: Loss,
    /// The log of a durable topic, unless this process only looks.
    pub log: Option<Arc<LogCore>>,
    lanes: Mutex<Vec<Option<Lane>>>,
}

impl Core {
    /// Opens the control file of the topic in `folder`.
    pub fn open(
        name: &str,
        folder: Folder,
        member: Arc<Member>,
        access: Access,
    ) -> Result<Arc<Self>> {
        let what = format!("{folder}/control");
        let file = folder.open_file("control", access)?;
        let len = file.metadata().map_err(|error| Error::io(&what, error))?.len();
        if len > CONTROL_BYTES_MAX {
            let most = format!("at most {CONTROL_BYTES_MAX}");
            return Err(Error::corrupt(what, "its length", len, most));
        }
        let loss = Loss::default();
        let control = map::map(&file, &what, access, len, &loss)?;
        let header = Header::read(&control, Kind::Control, &what)?;
        let shape = Shape::from_header(&header, &what)?;
        let (lanes, segments) = (shape.publishers_max as usize, shape.segments as usize);
        let count = shape.subscribers_max as usize;
        let pins = Pins::new(control.clone(), shape.pins_at(), lanes, segments, count);
        let high_at = control::SLOTS_HIGH_AT;
        let slots = Slots::new(control.clone(), shape.slots_at(), high_at, count, lanes);
        let bell = Bell::new(control.clone(), control::HINT_AT, control::WAKE_AT);
        let log = match access {
            Access::Write if shape.durable => {
                let path = site::read(&folder, header.identity)?;
                let files = LogFiles::open(log::core::open_folder(&path)?, &loss)?;
                let head = Head::new(control.clone(), shape.head_at(), lanes);
                let user = log_user(name, &member);
                // LEASE: pairs with `swap_lease`.
                let lease_of = |lane| Owner(control.word(shape.lease_at(lane)).load(Acquire));
                let is_used = || {
                    let leases = (0..lanes).map(lease_of);
                    let mut owners = leases.chain((0..slots.high()).map(|at| slots.owner(at)));
                    owners.any(|owner| !owner.is_free() && member.is_alive(owner.node()))
                };
                Some(LogCore::open(files, head, header.identity, &user, is_used)?)
            }
            _ => None,
        };
        Ok(Arc::new(Self {
            name: name.to_owned(),
            folder,
            member,
            shape,
            identity: header.identity,
            control,
            slots,
            pins,
            bell,
            loss,
            log,
            lanes: Mutex::new(vec![None; lanes]),
        }))
    }

    /// The words of the log of a durable topic.
    pub fn head(&self) -> Option<Head> {
        let lanes = self.shape.publishers_max as usize;
        self.shape.durable.then(|| Head::new(self.control.clone(), self.shape.head_at(), lanes))
    }

    /// The schema that the topic stores, checked against its checksum.
    pub fn schema_bytes(&self) -> Result<Vec<u8>> {
        let (shape, what) = (&self.shape, format!("{}/control", self.folder));
        let len = shape.schema_bytes as usize;
        crate::message::stored_schema(
            &self.control,
            shape.schema_at(),
            len,
            shape.schema_crc,
            &what,
        )
    }

    /// Looks whether files are still as long as they were made: the control file, and those whose last words are given.
    /// What is gone reads as zeroes, and so would a mark that was cut off and made up for.
    pub fn probe(&self, others: impl IntoIterator<Item = u64>) {
        self.loss.probe(self.control.last(), self.identity);
        others.into_iter().for_each(|last| self.loss.probe(last, self.identity));
    }

    /// The same of the control file alone, before something is done on the strength of what it says.
    pub fn check_control(&self) -> Result<()> {
        self.probe([]);
        self.check_loss()
    }

    /// Refuses to act on what was read if a file of the topic lost pages: they read as zeroes.
    pub fn check_loss(&self) -> Result<()> {
        self.loss.check(format_args!("topic {}, at {},", self.name, self.folder))
    }

    /// Who holds the lease of a lane.
    pub fn lease(&self, lane: usize) -> Owner {
        // LEASE: pairs with `swap_lease`.
        Owner(self.control.word(self.shape.lease_at(lane)).load(Acquire))
    }

    /// Hands the lease of a lane on. False if it is not `from` any more.
    pub fn swap_lease(&self, lane: usize, from: Owner, to: Owner) -> bool {
        step!("lease.swap");
        let word = self.control.word(self.shape.lease_at(lane));
        // LEASE: everything the last holder wrote is seen by the next one; pairs with `lease`.
        word.compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Gives the lease of a lane back.
    pub fn release_lease(&self, lane: usize, owner: Owner) {
        self.swap_lease(lane, owner, owner.with(State::Free));
    }

    /// Whether the lane's file exists.
    pub fn is_born(&self, lane: usize) -> bool {
        // BORN: pairs with `set_born`.
        self.control.word(self.shape.born_at(lane)).load(Acquire) != 0
    }

    /// Says that the lane's file exists.
    pub fn set_born(&self, lane: usize) {
        step!("lane.born");
        // BORN: pairs with `is_born`.
        self.control.word(self.shape.born_at(lane)).store(1, Release);
        self.announce_lanes();
    }

    /// Makes every subscriber look for lanes that it does not know.
    pub fn announce_lanes(&self) {
        step!("lane.announce");
        // BORN: pairs with `born_count`.
        self.control.word(control::BORN_COUNT_AT).fetch_add(1, Release);
    }

    /// Changes whenever a lane is born.
    pub fn born_count(&self) -> u64 {
        // BORN: pairs with `set_born`.
        self.control.word(control::BORN_COUNT_AT).load(Acquire)
    }

    /// Maps the file of a lane that exists.
    pub fn map_lane(&self, index: usize, access: Access) -> Result<Lane> {
        let name = lane_file(index);
        let what = format!("{}/{name}", self.folder);
        let file =
            self.folder.open_file(&name, access).map_err(|error| self.missing(&what, error))?;
        let expected = self.shape.lane_header(self.identity, index);
        let region = map::map(&file, &what, access, expected.file_bytes, &self.loss)?;
        let header = Header::read(&region, Kind::Lane, &what)?;
        check_header(&header, &expected, &what)?;
        if self.shape.prefault {
            map::prefault(&region, 0, region.len(), access);
        }
        let (segments, bytes) = (self.shape.segments as usize, self.shape.segment_bytes as usize);
        Ok(Lane::new(region, self.pins.clone(), index, segments, bytes))
    }

    /// What is said of a file that the control file speaks of and that cannot be opened.
    fn missing(&self, what: &str, error: Error) -> Error {
        match error.kind() {
            ErrorKind::NotFound if !self.is_removed() => {
                Error::corrupt(what, "the file", "missing", "there, as the control file says")
            }
            _ => error,
        }
    }

    /// What is said of a lane with a value that no publisher writes.
    pub fn damaged_lane(&self, index: usize) -> Error {
        let what = format!("{}/{}", self.folder, lane_file(index));
        Error::corrupt(what, "a table entry or header word", "not one", "a publisher's")
    }

    /// The read-only mapping of a lane, once its file exists. Mapped once per process.
    pub fn lane(&self, index: usize) -> Result<Option<Lane>> {
        if !self.is_born(index) {
            return Ok(None);
        }
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if lanes[index].is_none() {
            lanes[index] = Some(self.map_lane(index, Access::Read)?);
        }
        Ok(lanes[index].clone())
    }

    /// Maps the order log, if the topic has one.
    pub fn map_order(&self, access: Access) -> Result<Option<Order>> {
        if !self.shape.ordered || self.shape.durable {
            return Ok(None);
        }
        let what = format!("{}/order", self.folder);
        let file =
            self.folder.open_file("order", access).map_err(|error| self.missing(&what, error))?;
        let expected = self.shape.order_header(self.identity);
        let region = map::map(&file, &what, access, expected.file_bytes, &self.loss)?;
        let header = Header::read(&region, Kind::Order, &what)?;
        check_header(&header, &expected, &what)?;
        let lanes = self.shape.publishers_max as usize;
        Ok(Some(Order::new(region, self.shape.order_slots, lanes)))
    }

    /// Whether the topic was closed.
    pub fn is_closed(&self) -> bool {
        // CLOSE: pairs with `close`.
        self.control.word(control::CLOSED_AT).load(Acquire) != 0
    }

    /// Whether the topic was removed: under its name there is nothing, or another one.
    pub fn is_removed(&self) -> bool {
        let here = self.member.folder().open_folder(&format!("{}.topic", self.name));
        let there = here
            .and_then(|folder| Self::open(&self.name, folder, self.member.clone(), Access::Read));
        match there {
            Ok(there) => there.identity != self.identity,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Ends the topic.
    pub fn close(&self) {
        step!("topic.close");
        // CLOSE: what this process published before is there; pairs with `is_closed`.
        self.control.word(control::CLOSED_AT).store(1, Release);
        self.wake_all();
    }

    /// Adds one to a statistics word of the control file.
    pub fn count(&self, at: usize) {
        // Relaxed: statistics.
        self.control.word(at).fetch_add(1, Relaxed);
    }

    /// A statistics word of the control file.
    pub fn counter(&self, at: usize) -> u64 {
        // Relaxed: statistics.
        self.control.word(at).load(Relaxed)
    }

    /// Wakes every subscriber that sleeps, whatever the hint says.
    pub fn wake_all(&self) {
        self.bell.wake();
        self.wake_sleepers();
    }

    /// Publisher, when the hint is set after a commit.
    #[cold]
    pub fn ring(&self) {
        match self.bell.ring(&self.slots) {
            Ring::Nobody => return,
            Ring::Wake => {}
            Ring::BarrierThenWake => {
                if !sys::barrier() {
                    // SLEEP: publishers fence where the barrier is missing.
                    fence(SeqCst);
                }
            }
        }
        self.bell.wake();
        self.count(control::WOKEN_AT);
        self.wake_sleepers();
    }

    fn wake_sleepers(&self) {
        step!("wake.futex");
        sys::futex_wake_all(self.bell.futex());
    }

    /// Frees the slot of `owner` if the kernel says that its node is dead.
    pub fn reap_if_dead(&self, slot: usize, owner: Owner) -> bool {
        if owner.is_free() || self.member.is_alive(owner.node()) {
            return false;
        }
        let reaped = self.slots.reap(slot, owner);
        if reaped {
            self.count(control::REAPED_AT);
            tracing::info!(topic = %self.name, slot, node = owner.node(), "freed a dead subscriber");
        }
        // Whoever freed it, it does not stand in the way any more.
        true
    }

    /// Frees the slots of all whose nodes are dead, and says how many.
    pub fn reap_the_dead(&self) -> usize {
        let is_dead = |slot: &usize| self.reap_if_dead(*slot, self.slots.owner(*slot));
        (0..self.slots.high()).filter(is_dead).count()
    }

    /// Describes who stands in the way of a publisher at `position`.
    pub fn blocker(&self, obstacle: Obstacle, lag: u64, reason: BlockReason) -> Blocker {
        let node = obstacle.owner.node();
        let process = self.member.process_of(node);
        let (pid, is_elsewhere) = process.map_or((0, false), |it| (it.pid, it.is_elsewhere));
        Blocker { node, pid, is_elsewhere, slot: obstacle.slot as u32, lag, reason }
    }
}

/// How a topic is named in the claim of its log.
pub fn log_user(topic: &str, member: &Member) -> String {
    format!("topic {topic} of bus {}", member.folder())
}

/// The name of a lane's file.
pub fn lane_file(index: usize) -> String {
    format!("lane-{index}")
}

fn check_header(found: &Header, expected: &Header, what: &str) -> Result<()> {
    if found.identity != expected.identity {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!("{what} belongs to another topic than the control file beside it"),
        ));
    }
    if found != expected {
        return Err(Error::corrupt(
            what,
            "its geometry",
            format_args!("{} bytes", found.file_bytes),
            format_args!("{} bytes, as the control file says", expected.file_bytes),
        ));
    }
    Ok(())
}
