//! Entering messages: a loan of a chunk, built in place, and one swap that commits it.

use crate::error::Result;
use crate::layout::chunk::{Note, State};
use crate::limits::{CLASSES_MAX, ROUND_MS};
use crate::queue::core::Core;
use crate::queue::outcome::{ClassUse, EnqueueError};
use crate::queue::space::Data;
use crate::ring::pool::Held;
use crate::ring::tokens::Cursor;
use crate::shm::map::Access;
use crate::shm::sys;
use crate::topic::patience::{Patience, Pause};
use crate::topic::{Payload, Raw};
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Chunks among which the next one is looked for first.
const NEAR: usize = 4;

/// How far ahead a producer looks for consumers that are near.
const NEAR_CHUNKS: usize = 32;

/// Chunks between two such looks.
const CHUNKS_PER_LOOK: usize = 8;

/// Looks of a waiting producer among near chunks to one among all.
const TURNS_PER_SEARCH: u32 = 32;

/// A producer of a queue.
///
/// Dropping it leaves what it entered. Several producers of one process do not disturb each other.
pub struct Producer<T: Payload> {
    pub(super) core: Arc<Core>,
    pub(super) data: Data,
    /// Where to look for a free chunk of each class.
    hints: [usize; CLASSES_MAX],
    cursor: Cursor,
    /// When it last looked for what the dead left.
    looked: Option<Instant>,
    fork_epoch: u32,
    /// Payload bytes to loan for the next typed message.
    pub(super) estimate: usize,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> Producer<T> {
    pub(super) fn join(core: Arc<Core>) -> Result<Self> {
        core.member.check_process()?;
        if !sys::register_barrier() {
            core.bells.hint().demand_fences();
        }
        let data = core.map_data(Access::Write)?;
        core.check_loss()?;
        // Producers that begin at the same chunk would meet at each of them.
        let mut hints = [0; CLASSES_MAX];
        for (class, hint) in hints.iter_mut().enumerate() {
            let range = core.shape.range(class);
            let share = core.member.node() as usize * 0x9e37 % range.len().max(1);
            *hint = range.start + share;
        }
        let fork_epoch = sys::fork_epoch();
        Ok(Self {
            core,
            data,
            hints,
            cursor: Cursor::new(0),
            looked: None,
            fork_epoch,
            estimate: 0,
            payload: PhantomData,
        })
    }

    /// Payload bytes that the largest chunk of the queue takes.
    pub fn payload_bytes_max(&self) -> usize {
        self.core.shape.classes().map(|class| class.bytes as usize).max().unwrap_or(0)
    }

    fn check(&self) -> Result<(), EnqueueError> {
        if self.fork_epoch != sys::fork_epoch() {
            return Err(EnqueueError::Forked);
        }
        if self.core.is_closed() {
            return Err(EnqueueError::Closed);
        }
        Ok(())
    }

    /// A free chunk of at least `bytes` bytes.
    #[inline]
    pub(super) fn claim(&mut self, bytes: usize, patience: Patience) -> Result<Held, EnqueueError> {
        self.check()?;
        let class = self.core.shape.classes().position(|class| class.bytes as usize >= bytes);
        let Some(class) = class else {
            let max = self.payload_bytes_max() as u64;
            return Err(EnqueueError::TooLarge { need: bytes as u64, max });
        };
        if !patience.is_over() && self.is_near(class) {
            self.core.let_run();
        }
        match self.claim_near(class) {
            Some(held) if !self.core.loss.happened() => Ok(held),
            Some(_) => Err(EnqueueError::Corrupt),
            None => self.wait_for(class, patience),
        }
    }

    /// A free chunk among those whose turn it is: chunks are freed in about the order in which they were used.
    #[inline]
    fn claim_near(&mut self, class: usize) -> Option<Held> {
        let Range { start, end } = self.core.shape.range(class);
        let from = if self.hints[class] < end { self.hints[class] } else { start };
        let (pool, node) = (&self.core.pool, self.core.member.node());
        let near = pool.loan_among(from..(from + NEAR).min(end), node);
        // Around the end, but not further than where that began.
        let rest = (from + NEAR).saturating_sub(end - start).clamp(start, from);
        let around = || pool.loan_among(start..rest, node);
        let held = near.or_else(around)?;
        self.hints[class] = held.chunk + 1;
        Some(held)
    }

    /// Whether the chunks that come soon are still somebody's: then consumers are at work close ahead, in lines that
    /// both would tear out of each other's caches. Looked at now and then.
    #[inline]
    fn is_near(&self, class: usize) -> bool {
        let (soon, range) = (self.hints[class] + NEAR_CHUNKS, self.core.shape.range(class));
        if !soon.is_multiple_of(CHUNKS_PER_LOOK) || range.len() < 4 * NEAR_CHUNKS {
            return false;
        }
        let soon = if soon < range.end { soon } else { soon - range.len() };
        !self.core.pool.look(soon).is(State::Free)
    }

    /// Any free chunk.
    fn claim_any(&mut self, class: usize) -> Option<Held> {
        let (range, node) = (self.core.shape.range(class), self.core.member.node());
        let held = self.core.pool.loan(range, self.hints[class], node)?;
        self.hints[class] = held.chunk + 1;
        Some(held)
    }

    #[cold]
    fn wait_for(&mut self, class: usize, patience: Patience) -> Result<Held, EnqueueError> {
        let (mut pause, mut turn) = (Pause::new(), 0u32);
        loop {
            // Who is hindered heals, and looks everywhere: at once, and every few milliseconds again. All that is read
            // meanwhile is taken out of the caches of those who work.
            let looked = self.looked.map(|looked| looked.elapsed());
            if looked.is_none_or(|ago| ago >= Duration::from_millis(ROUND_MS)) {
                self.core.probe([self.data.last()]);
                self.core.round(sys::monotonic_ns());
                self.looked = Some(Instant::now());
            }
            if self.core.loss.happened() {
                return Err(EnqueueError::Corrupt);
            }
            self.check()?;
            // Who may wait lets the consumers run ahead first: a chunk that is taken as soon as it is free is taken out
            // of the cache of the consumer that is about to free the next one.
            if !patience.is_over() {
                self.core.let_run();
            }
            // What is said to be full is: the last look is one among all.
            let is_over = turn > 0 && !pause.wait(patience);
            let far = is_over || turn % TURNS_PER_SEARCH == 0;
            let held = if far { self.claim_any(class) } else { self.claim_near(class) };
            if let Some(held) = held {
                return Ok(held);
            }
            if is_over || patience.is_over() {
                return Err(EnqueueError::Full { class: self.core.usage(class) });
            }
            turn = turn.wrapping_add(1);
        }
    }

    /// Commits a loan.
    #[inline]
    pub(super) fn commit(&mut self, held: Held, len: usize) -> Result<(), EnqueueError> {
        if self.fork_epoch != sys::fork_epoch() {
            return Err(EnqueueError::Forked);
        }
        let since_ms = (sys::coarse_ns() / 1_000_000) as u32;
        let note = Note { length: len as u32, since_ms };
        let committed = self.core.pool.commit(&self.cursor, held, note);
        self.core.announce();
        match committed && !self.core.loss.happened() {
            true => Ok(()),
            false => Err(EnqueueError::Corrupt),
        }
    }

    /// Gives a loan back.
    pub(super) fn abort(&self, held: Held) {
        // In a child of `fork` the loan is the parent's.
        if self.fork_epoch == sys::fork_epoch() {
            self.core.pool.abort(held);
        }
    }
}

impl Core {
    /// What the chunks of a class are used for.
    pub fn usage(&self, class: usize) -> ClassUse {
        let shape = self.shape.classes[class];
        let mut usage =
            ClassUse { chunk_bytes: shape.bytes, chunks: shape.count, ..ClassUse::default() };
        for chunk in self.shape.range(class) {
            match self.pool.look(chunk).state() {
                Some(State::Ready) => usage.ready += 1,
                Some(State::Later) => usage.later += 1,
                Some(State::Taken) => usage.taken += 1,
                Some(State::Loaned) => usage.loaned += 1,
                Some(State::Dead) => usage.dead += 1,
                Some(State::Free) | None => {}
            }
        }
        usage
    }
}

impl Producer<Raw> {
    /// Enters a copy of `payload`, waiting for a free chunk as long as it takes.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Closed`, `Forked`, `Corrupt`.
    pub fn enqueue(&mut self, payload: &[u8]) -> Result<(), EnqueueError> {
        self.enqueue_within(payload, Patience::Forever)
    }

    /// Enters a copy of `payload` if a chunk is free now.
    ///
    /// # Errors
    ///
    /// `Full` says what the chunks are used for; the others as for [`enqueue`](Self::enqueue).
    pub fn try_enqueue(&mut self, payload: &[u8]) -> Result<(), EnqueueError> {
        self.enqueue_within(payload, Patience::Never)
    }

    /// Enters a copy of `payload`, waiting for a free chunk for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_enqueue`](Self::try_enqueue).
    pub fn enqueue_timeout(
        &mut self,
        payload: &[u8],
        timeout: Duration,
    ) -> Result<(), EnqueueError> {
        self.enqueue_within(payload, Patience::within(timeout))
    }

    #[inline]
    fn enqueue_within(&mut self, payload: &[u8], patience: Patience) -> Result<(), EnqueueError> {
        let held = self.claim(payload.len(), patience)?;
        self.data.write(&held, payload.len()).copy_from_slice(payload);
        self.commit(held, payload.len())
    }

    /// Borrows a chunk for a message of `len` bytes, waiting for one as long as it takes.
    ///
    /// The bytes are whatever older messages left there: write all that you enter.
    ///
    /// # Errors
    ///
    /// As for [`enqueue`](Self::enqueue).
    pub fn loan(&mut self, len: usize) -> Result<RawLoan<'_>, EnqueueError> {
        self.loan_within(len, Patience::Forever)
    }

    /// Borrows a chunk for a message of `len` bytes if one is free now.
    ///
    /// # Errors
    ///
    /// As for [`try_enqueue`](Self::try_enqueue).
    pub fn try_loan(&mut self, len: usize) -> Result<RawLoan<'_>, EnqueueError> {
        self.loan_within(len, Patience::Never)
    }

    /// Borrows a chunk for a message of `len` bytes, waiting for one for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_enqueue`](Self::try_enqueue).
    pub fn loan_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<RawLoan<'_>, EnqueueError> {
        self.loan_within(len, Patience::within(timeout))
    }

    fn loan_within(&mut self, len: usize, patience: Patience) -> Result<RawLoan<'_>, EnqueueError> {
        let held = self.claim(len, patience)?;
        Ok(RawLoan { producer: self, held: Some(held), len })
    }
}

impl<T: Payload> fmt::Debug for Producer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Producer").field("queue", &self.core.name).finish_non_exhaustive()
    }
}

/// A chunk in which a message of bytes is being built. Dropped = it never existed.
pub struct RawLoan<'a> {
    producer: &'a mut Producer<Raw>,
    held: Option<Held>,
    len: usize,
}

impl RawLoan<'_> {
    fn held(&self) -> Held {
        self.held.expect("it is there until the loan is entered")
    }

    /// Enters the whole loan.
    ///
    /// # Errors
    ///
    /// `Forked` in a child that inherited the loan; `Corrupt`.
    pub fn enqueue(self) -> Result<(), EnqueueError> {
        let len = self.len;
        self.enqueue_len(len)
    }

    /// Enters the first `len` bytes.
    ///
    /// # Errors
    ///
    /// As for [`enqueue`](Self::enqueue).
    ///
    /// # Panics
    ///
    /// If `len` is more than was loaned.
    pub fn enqueue_len(mut self, len: usize) -> Result<(), EnqueueError> {
        assert!(len <= self.len, "entered {len} bytes of a loan of {}", self.len);
        let held = self.held();
        self.held = None;
        self.producer.commit(held, len)
    }
}

impl Deref for RawLoan<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.producer.data.read(&self.held(), self.len)
    }
}

impl DerefMut for RawLoan<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        let (held, len) = (self.held(), self.len);
        self.producer.data.write(&held, len)
    }
}

impl Drop for RawLoan<'_> {
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.producer.abort(held);
        }
    }
}
