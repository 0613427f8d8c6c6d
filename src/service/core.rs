//! What all handles of one open service share within a process.

use crate::bus::{Living, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::header::{Header, Kind};
use crate::layout::service::{self as layout, Shape};
use crate::limits::{self, CONTROL_BYTES_MAX};
use crate::queue::waking;
use crate::ring::bells::Bells;
use crate::ring::calls::{Calls, Outcome, Parts};
use crate::ring::pins::Pins;
use crate::ring::slots::{Claimed, Slots};
use crate::ring::tokens::Tokens;
use crate::ring::wake::Hint;
use crate::shm::home::Folder;
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use crate::shm::place::Region;
use crate::shm::sys;
use crate::sync::Ordering::*;
use std::sync::Arc;

/// One open service.
pub struct Core {
    pub name: String,
    pub folder: Folder,
    pub member: Arc<Member>,
    pub shape: Shape,
    pub identity: u64,
    pub control: Region,
    pub clients: Slots,
    pub servers: Slots,
    /// A service has no lanes of a topic, so there are none.
    pins: Pins,
    /// Wakes a server for a call.
    pub bells: Bells,
    /// What became of the files of the service.
    pub loss: Loss,
}

/// What a round found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Calls of clients that are gone, which are free now.
    pub freed: usize,
    /// Requests that will be delivered again.
    pub ready: usize,
    /// Calls that will not be answered.
    pub died: usize,
}

impl Core {
    /// Opens the control file of the service in `folder`.
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
        let header = Header::read(&control, Kind::Service, &what)?;
        let shape = Shape::from_header(&header, &what)?;
        let slots = |at, high_at, count| Slots::new(control.clone(), at, high_at, count, 0);
        let (count, servers_max) = (shape.clients_max as usize, shape.servers_max as usize);
        let clients = slots(shape.clients_at(), layout::CLIENTS_HIGH_AT, count);
        let servers = slots(shape.servers_at(), layout::SERVERS_HIGH_AT, servers_max);
        let pins = Pins::new(control.clone(), shape.ring_at(), 0, 0, count.max(servers_max));
        let bells = Bells::new(Hint::new(control.clone(), layout::HINT_AT), servers.clone());
        Ok(Arc::new(Self {
            name: name.to_owned(),
            folder,
            member,
            shape,
            identity: header.identity,
            control,
            clients,
            servers,
            pins,
            bells,
            loss,
        }))
    }

    /// The schema of requests (0) or responses (1) that the service stores, checked against its checksum.
    pub fn schema_bytes(&self, which: usize) -> Result<Vec<u8>> {
        let stored = self.shape.schemas[which];
        let (at, what) = (self.shape.schema_at(which), format!("{}/control", self.folder));
        crate::message::stored_schema(&self.control, at, stored.bytes as usize, stored.crc, &what)
    }

    /// Maps requests and responses, and with them the calls.
    pub fn map_calls(&self, access: Access) -> Result<Calls> {
        let what = format!("{}/data", self.folder);
        let file = self.folder.open_file("data", access).map_err(|error| match error.kind() {
            ErrorKind::NotFound if !self.is_removed() => {
                Error::corrupt(&what, "the file", "missing", "there, as the control file says")
            }
            _ => error,
        })?;
        let shape = &self.shape;
        let expected = shape.data_header(self.identity);
        let region = map::map(&file, &what, access, expected.file_bytes, &self.loss)?;
        let header = Header::read(&region, Kind::Calls, &what)?;
        if header != expected {
            let text = format!("{what} belongs to another service than the control file beside it");
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        map::prefault(&region, 0, region.len(), access);
        let parts = Parts {
            region,
            at: limits::HEADER_BYTES,
            request_bytes: shape.request_bytes as usize,
            part_bytes: shape.part_bytes(),
            count: shape.ahead as usize,
        };
        let tokens =
            Tokens::new(self.control.clone(), shape.ring_at(), shape.entries(), shape.form());
        let words = self.control.clone();
        let (at, count) = (shape.calls_at(), shape.count());
        Ok(Calls::new(words, at, count, tokens, parts, shape.deliveries_max))
    }

    /// Looks whether files are still as long as they were made: the control file, and those whose last words are given.
    pub fn probe(&self, others: impl IntoIterator<Item = u64>) {
        self.loss.probe(self.control.last(), self.identity);
        others.into_iter().for_each(|last| self.loss.probe(last, self.identity));
    }

    /// Refuses to act on what was read if a file of the service lost pages: they read as zeroes.
    pub fn check_loss(&self) -> Result<()> {
        self.loss.check(format_args!("service {}, at {},", self.name, self.folder))
    }

    /// Whether the service was removed: under its name there is nothing, or another one.
    pub fn is_removed(&self) -> bool {
        let here = self.member.folder().open_folder(&format!("{}.service", self.name));
        let there = here
            .and_then(|folder| Self::open(&self.name, folder, self.member.clone(), Access::Read));
        match there {
            Ok(there) => there.identity != self.identity,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Whether the service was closed.
    #[inline]
    pub fn is_closed(&self) -> bool {
        // CLOSE: pairs with `close`.
        self.control.word(layout::CLOSED_AT).load(Acquire) != 0
    }

    /// Ends the service.
    pub fn close(&self) {
        step!("service.close");
        // CLOSE: what this process did before is there; pairs with `is_closed`.
        self.control.word(layout::CLOSED_AT).store(1, Release);
        self.wake_everybody(&self.bells);
        (0..self.clients.high()).for_each(|lane| self.wake_everybody(&self.lane_bells(lane)));
    }

    /// Adds to a statistics word of the control file.
    pub fn count(&self, at: usize, more: usize) {
        if more > 0 {
            // Relaxed: statistics.
            self.control.word(at).fetch_add(more as u64, Relaxed);
        }
    }

    /// A statistics word of the control file.
    pub fn counter(&self, at: usize) -> u64 {
        // Relaxed: statistics.
        self.control.word(at).load(Relaxed)
    }

    /// What wakes the client of a lane: its slot alone, which is slot 0 there.
    pub fn lane_bells(&self, lane: usize) -> Bells {
        let hint_at = self.shape.lane_at(lane) + layout::LANE_HINT_AT;
        let slot_at = self.shape.clients_at() + Slots::bytes(lane, 0);
        let slot = Slots::new(self.control.clone(), slot_at, layout::CLIENTS_HIGH_AT, 1, 0);
        Bells::new(Hint::new(self.control.clone(), hint_at), slot)
    }

    /// Takes a slot, freeing those of the dead if there is none.
    pub fn claim(&self, slots: &Slots, who: &str) -> Result<Claimed> {
        let node = self.member.node();
        let try_all = || (0..slots.len()).find_map(|slot| slots.claim(slot, node, &self.pins));
        if let Some(claimed) = try_all() {
            return Ok(claimed);
        }
        self.reap_the_dead();
        try_all().ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                format!(
                    "service {} has room for {} {who} and all of them live; end one, or create \
                     the service with a larger {who}_max",
                    self.name,
                    slots.len()
                ),
            )
        })
    }

    /// Frees the slots of all whose nodes are dead, and says how many.
    pub fn reap_the_dead(&self) -> usize {
        let reap = |slots: &Slots| {
            let is_dead = |slot: &usize| {
                let owner = slots.owner(*slot);
                !owner.is_free() && !self.member.is_alive(owner.node()) && slots.reap(*slot, owner)
            };
            (0..slots.high()).filter(is_dead).count()
        };
        let reaped = reap(&self.clients) + reap(&self.servers);
        self.count(layout::REAPED_AT, reaped);
        reaped
    }

    /// Whether a living process has a server of this service.
    pub fn has_server(&self) -> bool {
        (0..self.servers.high()).any(|slot| {
            let owner = self.servers.owner(slot);
            !owner.is_free() && self.member.is_alive(owner.node())
        })
    }

    /// Wakes a server after a request became ready, if one may be asleep.
    #[inline]
    pub fn announce(&self) {
        if self.bells.hint().is_set() {
            self.wake_one(&self.bells);
        }
    }

    /// Wakes one of those who may be asleep.
    pub fn wake_one(&self, bells: &Bells) {
        self.count(layout::WOKEN_AT, waking::wake_one(bells) as usize);
    }

    fn wake_everybody(&self, bells: &Bells) {
        self.count(layout::WOKEN_AT, waking::wake_everybody(bells) as usize);
    }

    /// Looks for what the dead left, unless somebody did so a moment ago.
    pub fn round_if_due(&self, calls: &Calls) -> Round {
        let now = sys::monotonic_ns();
        let word = self.control.word(layout::ROUND_AT);
        // Relaxed: it says only that somebody looks, and that may be done too often or, if it lies in the future by
        // damage, by whoever is hindered only.
        let last = word.load(Relaxed);
        if now.saturating_sub(last) < limits::ROUND_MS * 1_000_000 && last <= now {
            return Round::default();
        }
        step!("service.round");
        word.store(now, Relaxed);
        self.round(calls, 0..self.clients.high())
    }

    /// Looks for what the dead left in these lanes.
    pub fn round(&self, calls: &Calls, lanes: std::ops::Range<usize>) -> Round {
        let (mut round, living) = (Round::default(), Living::new(&self.member));
        for lane in lanes {
            for call in self.shape.lane(lane) {
                let is_alive = |node| living.is_alive(node);
                match calls.tend(call, lane, &self.clients, is_alive, self.member.node()) {
                    Outcome::Free => round.freed += 1,
                    Outcome::Again => round.ready += 1,
                    Outcome::Dead => {
                        round.died += 1;
                        // Its caller may be asleep.
                        self.wake_one(&self.lane_bells(lane));
                    }
                    Outcome::Taken | Outcome::Nothing => {}
                }
            }
        }
        self.count(layout::REDELIVERED_AT, round.ready);
        self.count(layout::DIED_AT, round.died);
        self.count(layout::ABANDONED_AT, round.freed);
        if round.ready > 0 {
            self.announce();
        }
        if round != Round::default() {
            tracing::info!(service = %self.name, ?round, "did what was left to do");
        }
        round
    }
}
