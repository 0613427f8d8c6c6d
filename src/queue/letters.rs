//! Dead letters: messages that were delivered as often as they may be, and wait for somebody to look after them.

use crate::error::Result;
use crate::message::FrameSegments;
use crate::queue::core::Core;
use crate::queue::outcome::TakeError;
use crate::queue::space::Data;
use crate::ring::pool::Held;
use crate::shm::map::Access;
use crate::shm::sys;
use crate::topic::Payload;
use std::cell::OnceCell;
use std::marker::PhantomData;
use std::sync::Arc;

/// The dead letters of a queue, one after the other.
///
/// Each takes its chunk until somebody discards or revives it.
pub struct DeadLetters<T: Payload> {
    core: Arc<Core>,
    data: Data,
    fork_epoch: u32,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> DeadLetters<T> {
    pub(super) fn open(core: Arc<Core>) -> Result<Self> {
        core.member.check_process()?;
        let data = core.map_data(Access::Read)?;
        core.check_loss()?;
        Ok(Self { core, data, fork_epoch: sys::fork_epoch(), payload: PhantomData })
    }

    /// The first dead letter of a chunk from number `from` on. Begin with 0, and go on behind
    /// [`DeadLetter::chunk`].
    ///
    /// # Errors
    ///
    /// `Forked`, `Corrupt`.
    pub fn next_from(&mut self, from: u32) -> Result<Option<DeadLetter<'_, T>>> {
        if self.fork_epoch != sys::fork_epoch() {
            self.core.member.check_process()?;
        }
        self.core.check_loss()?;
        let found = self.core.pool.take_dead(from as usize, self.core.member.node());
        let Some(held) = found else { return Ok(None) };
        let letter = |len| {
            let payload = self.data.read(&held, len);
            DeadLetter { letters: self, held, payload, opened: T::Opened::default(), done: false }
        };
        let len = self.core.pool.note(held.chunk).length as usize;
        // What does not fit nobody can read: what is left of it can be discarded.
        let fits = len <= self.data.capacity(held.chunk);
        Ok(Some(letter(if fits { len } else { 0 })))
    }
}

/// A message that was delivered as often as it may be. Dropped = it stays a dead letter.
pub struct DeadLetter<'a, T: Payload> {
    letters: &'a DeadLetters<T>,
    held: Held,
    payload: &'a [u8],
    opened: T::Opened<'a>,
    done: bool,
}

impl<'a, T: Payload> DeadLetter<'a, T> {
    /// The chunk that it takes.
    pub fn chunk(&self) -> u32 {
        self.held.chunk as u32
    }

    /// The payload.
    pub fn bytes(&self) -> &[u8] {
        self.payload
    }

    /// How often it was delivered.
    pub fn deliveries(&self) -> u32 {
        self.held.word.deliveries()
    }

    /// Ends it: its chunk is free.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not this process's any more; `Forked`.
    pub fn discard(mut self) -> Result<(), TakeError> {
        self.check()?;
        self.done = true;
        self.sure(self.letters.core.pool.ack(self.held))
    }

    /// Enters it again, as if it had never been delivered.
    ///
    /// # Errors
    ///
    /// As for [`discard`](Self::discard).
    pub fn revive(mut self) -> Result<(), TakeError> {
        self.check()?;
        self.done = true;
        let revived = self.letters.core.pool.revive(self.held);
        self.letters.core.announce();
        self.sure(revived)
    }

    fn check(&self) -> Result<(), TakeError> {
        match self.letters.fork_epoch == sys::fork_epoch() {
            true => Ok(()),
            false => Err(TakeError::Forked),
        }
    }

    fn sure(&self, mine: bool) -> Result<(), TakeError> {
        match mine && !self.letters.core.loss.happened() {
            true => Ok(()),
            false => Err(TakeError::Corrupt),
        }
    }
}

impl<'a, T: capnp::traits::Owned> DeadLetter<'a, T>
where
    T: Payload<Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>>,
{
    /// The message, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    pub fn get(&self) -> capnp::Result<T::Reader<'_>> {
        let segments = FrameSegments::parse(self.payload).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }
}

impl<T: Payload> Drop for DeadLetter<'_, T> {
    fn drop(&mut self) {
        if !self.done && self.check().is_ok() {
            self.letters.core.pool.bury(self.held);
        }
    }
}
