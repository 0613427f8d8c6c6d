//! What all handles of one open queue share within a process.

use crate::bus::{Living, Member};
use crate::error::{Error, ErrorKind, Result};
use crate::layout::chunk::State;
use crate::layout::header::{Header, Kind};
use crate::layout::queue::{self as layout, Shape};
use crate::limits::{self, CONTROL_BYTES_MAX};
use crate::queue::space::Data;
use crate::queue::waking;
use crate::ring::bells::Bells;
use crate::ring::pins::Pins;
use crate::ring::pool::{Pool, Repaired};
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

/// One open queue.
pub struct Core {
    pub name: String,
    pub folder: Folder,
    pub member: Arc<Member>,
    pub shape: Shape,
    pub identity: u64,
    pub control: Region,
    pub pool: Pool,
    pub slots: Slots,
    /// A queue has no lanes, so there are none.
    pins: Pins,
    pub bells: Bells,
    /// What became of the files of the queue.
    pub loss: Loss,
}

/// Most spin hints for which whoever is near to the others lets them run ahead.
const RUN_PAUSE_MAX: usize = 200;

/// What a round found and did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Loans of the dead that are free now.
    pub freed: usize,
    /// Messages that will be delivered, or delivered again, because of it.
    pub ready: usize,
    /// Messages that were delivered as often as they may be.
    pub died: usize,
}

impl Core {
    /// Opens the control file of the queue in `folder`.
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
        let header = Header::read(&control, Kind::Queue, &what)?;
        let shape = Shape::from_header(&header, &what)?;
        let tokens = Tokens::new(control.clone(), shape.ring_at(), shape.entries(), shape.form());
        let pool = Pool::new(
            control.clone(),
            shape.pool_at(),
            shape.chunks(),
            tokens,
            shape.deliveries_max,
        );
        let consumers = shape.consumers_max as usize;
        let slots =
            Slots::new(control.clone(), shape.slots_at(), layout::SLOTS_HIGH_AT, consumers, 0);
        let pins = Pins::new(control.clone(), shape.ring_at(), 0, 0, consumers);
        let bells = Bells::new(Hint::new(control.clone(), layout::HINT_AT), slots.clone());
        Ok(Arc::new(Self {
            name: name.to_owned(),
            folder,
            member,
            shape,
            identity: header.identity,
            control,
            pool,
            slots,
            pins,
            bells,
            loss,
        }))
    }

    /// The schema that the queue stores, checked against its checksum.
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

    /// Maps the payloads, for slices with `access`.
    pub fn map_data(&self, access: Access) -> Result<Data> {
        let map = |access| {
            let region = self.data_region(access)?;
            map::prefault(&region, 0, region.len(), access);
            Ok(region)
        };
        let writable = map(Access::Write)?;
        let region = if access == Access::Write { writable.clone() } else { map(access)? };
        Ok(Data::new(region, writable, self.shape))
    }

    /// Whether the file of the payloads is there, and what the control file says it is.
    pub fn check_data(&self) -> Result<()> {
        self.data_region(Access::Read).map(drop)
    }

    fn data_region(&self, access: Access) -> Result<Region> {
        let what = format!("{}/data", self.folder);
        let expected = self.shape.data_header(self.identity);
        let file = self.folder.open_file("data", access).map_err(|error| match error.kind() {
            ErrorKind::NotFound if !self.is_removed() => {
                Error::corrupt(&what, "the file", "missing", "there, as the control file says")
            }
            _ => error,
        })?;
        let region = map::map(&file, &what, access, expected.file_bytes, &self.loss)?;
        let header = Header::read(&region, Kind::Chunks, &what)?;
        if header != expected {
            let text = format!("{what} belongs to another queue than the control file beside it");
            return Err(Error::new(ErrorKind::Corrupt, text));
        }
        Ok(region)
    }

    /// Looks whether files are still as long as they were made: the control file, and those whose last words are given.
    pub fn probe(&self, others: impl IntoIterator<Item = u64>) {
        self.loss.probe(self.control.last(), self.identity);
        others.into_iter().for_each(|last| self.loss.probe(last, self.identity));
    }

    /// Lets those at the other end run ahead, for some microseconds: a small part of the time that it takes to fill or
    /// to empty the queue.
    pub fn let_run(&self) {
        let hints = (self.pool.len() / 4).min(RUN_PAUSE_MAX);
        (0..hints).for_each(|_| std::hint::spin_loop());
    }

    /// Refuses to act on what was read if a file of the queue lost pages: they read as zeroes.
    pub fn check_loss(&self) -> Result<()> {
        self.loss.check(format_args!("queue {}, at {},", self.name, self.folder))
    }

    /// Whether the queue was removed: under its name there is nothing, or another one.
    pub fn is_removed(&self) -> bool {
        let here = self.member.folder().open_folder(&format!("{}.queue", self.name));
        let there = here
            .and_then(|folder| Self::open(&self.name, folder, self.member.clone(), Access::Read));
        match there {
            Ok(there) => there.identity != self.identity,
            Err(error) => error.kind() == ErrorKind::NotFound,
        }
    }

    /// Whether the queue was closed.
    pub fn is_closed(&self) -> bool {
        // CLOSE: pairs with `close`.
        self.control.word(layout::CLOSED_AT).load(Acquire) != 0
    }

    /// Ends the queue.
    pub fn close(&self) {
        step!("queue.close");
        // CLOSE: what this process entered before is there; pairs with `is_closed`.
        self.control.word(layout::CLOSED_AT).store(1, Release);
        self.wake_everybody();
    }

    /// Adds to a statistics word of the control file.
    pub fn count(&self, at: usize, more: u64) {
        if more > 0 {
            // Relaxed: statistics.
            self.control.word(at).fetch_add(more, Relaxed);
        }
    }

    /// A statistics word of the control file.
    pub fn counter(&self, at: usize) -> u64 {
        // Relaxed: statistics.
        self.control.word(at).load(Relaxed)
    }

    /// Takes a consumer slot, freeing those of the dead if there is none.
    pub fn claim(&self) -> Result<Claimed> {
        let node = self.member.node();
        let try_all =
            || (0..self.slots.len()).find_map(|slot| self.slots.claim(slot, node, &self.pins));
        if let Some(claimed) = try_all() {
            return Ok(claimed);
        }
        self.reap_the_dead();
        try_all().ok_or_else(|| {
            Error::new(
                ErrorKind::Limit,
                format!(
                    "queue {} has room for {} consumers and all of them live; end one, or create \
                     the queue with a larger consumers_max",
                    self.name,
                    self.slots.len()
                ),
            )
        })
    }

    /// Frees the consumer slots of all whose nodes are dead, and says how many.
    pub fn reap_the_dead(&self) -> usize {
        let is_dead = |slot: &usize| {
            let owner = self.slots.owner(*slot);
            !owner.is_free() && !self.member.is_alive(owner.node()) && self.slots.reap(*slot, owner)
        };
        let reaped = (0..self.slots.high()).filter(is_dead).count();
        self.count(layout::REAPED_AT, reaped as u64);
        reaped
    }

    /// Wakes a consumer after a message became ready, if one may be asleep.
    #[inline]
    pub fn announce(&self) {
        if self.bells.hint().is_set() {
            self.count(layout::WOKEN_AT, waking::wake_one(&self.bells));
        }
    }

    fn wake_everybody(&self) {
        self.count(layout::WOKEN_AT, waking::wake_everybody(&self.bells));
    }

    /// Looks for what the dead left and for what is due, unless somebody did so a moment ago.
    pub fn round_if_due(&self) -> Round {
        let now = sys::monotonic_ns();
        let word = self.control.word(layout::ROUND_AT);
        // Relaxed: it says only that somebody looks, and that may be done too often. A time in the future is damage.
        let last = word.load(Relaxed);
        if now.saturating_sub(last) < limits::ROUND_MS * 1_000_000 && last <= now {
            return Round::default();
        }
        step!("queue.round");
        word.store(now, Relaxed);
        self.round(now)
    }

    /// Whether a message that is ready without an entry was entered so long ago that whoever made it ready must be
    /// stopped, if it lives. Consumers that are never idle do not find such a message.
    fn is_stalled(&self, chunk: usize) -> bool {
        // The clock behind the note: an age is never negative.
        let note = self.pool.note(chunk);
        note.age_ms(sys::monotonic_ns()) >= limits::STALLED_MS
    }

    /// Looks for what the dead left and for what is due at the time `now`.
    pub fn round(&self, now: u64) -> Round {
        let (mut round, mut again) = (Round::default(), 0);
        let (living, node) = (Living::new(&self.member), self.member.node());
        for chunk in 0..self.pool.len() {
            let seen = self.pool.look(chunk);
            let owned = match seen.state() {
                Some(State::Loaned | State::Taken) => true,
                Some(State::Ready) if self.pool.is_placed(chunk, seen) => false,
                Some(State::Ready) if self.is_stalled(chunk) => {
                    let entered = self.pool.repair(chunk, seen, node) == Repaired::Entered;
                    round.ready += usize::from(entered);
                    false
                }
                Some(State::Ready) => true,
                Some(State::Later) => {
                    round.ready += usize::from(self.pool.resume(chunk, seen, now, node));
                    false
                }
                Some(State::Free | State::Dead) | None => false,
            };
            if !owned || living.is_alive(seen.node()) {
                continue;
            }
            match self.pool.repair(chunk, seen, node) {
                Repaired::Nothing => {}
                Repaired::Freed => round.freed += 1,
                Repaired::Entered => round.ready += 1,
                Repaired::Again => again += 1,
                Repaired::Dead => round.died += 1,
            }
        }
        round.ready += again;
        self.count(layout::REDELIVERED_AT, again as u64);
        self.count(layout::DIED_AT, round.died as u64);
        self.count(layout::FREED_AT, round.freed as u64);
        if round.ready > 0 && self.bells.hint().is_set() {
            self.wake_everybody();
        }
        if round != Round::default() {
            tracing::info!(queue = %self.name, ?round, "did what was left to do");
        }
        round
    }
}

#[cfg(test)]
mod tests {
    use crate::layout::chunk::{Note, Words};
    use crate::ring::tokens::Cursor;
    use crate::shm::sys;
    use crate::sync::Ordering::Relaxed;
    use crate::{Bus, Raw};

    #[test]
    fn a_message_whose_producer_is_stopped_before_it_enters_it_is_entered_by_others() {
        let bus = Bus::anonymous().expect("there is memory");
        let queue = bus.queue::<Raw>("q").chunks(4, 64).create().expect("it is new");
        let core = queue.core();
        for (age_ms, ready) in [(0, 0), (super::limits::STALLED_MS, 1)] {
            let held = core.pool.loan(0..4, 0, core.member.node()).expect("one is free");
            let now_ms = (sys::coarse_ns() / 1_000_000) as u32;
            let note = Note { length: 8, since_ms: now_ms.wrapping_sub(age_ms) };
            assert!(core.pool.commit(&Cursor::new(0), held, note));
            // As if it were stopped between its entry and the word that says so.
            let placed_at = core.shape.pool_at() + Words::of(4).placed_at(held.chunk);
            core.control.word(placed_at).store(0, Relaxed);
            assert_eq!(core.round(sys::monotonic_ns()).ready, ready, "after {age_ms} ms");
            assert_eq!(core.round(sys::monotonic_ns()).ready, 0, "it is placed");
        }
    }
}
