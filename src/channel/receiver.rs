//! The receiving end.

use crate::channel::core::{Core, Doubt};
use crate::channel::outcome::{Peer, RecvError};
use crate::ring::stream::{Poll, Reader};
use crate::topic::wait::{Next, Pace, Wait};
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

/// The receiving end of a channel. There is one at a time.
///
/// A message is borrowed: it is read where the sender wrote it, and given back when the receiver is used again, or by
/// [`release`](Self::release). A receiver is wait-free but for [`recv`](Self::recv). It makes no system call unless the
/// sender sleeps, or to sleep itself, and allocates nothing.
///
/// # If a process dies
///
/// What a killed receiver had not given back, one message or one batch, its successor reads again. So each message is
/// read once, or once more after a death.
///
/// A message does not outlive the next call:
///
/// ```compile_fail
/// fn keep(mut receiver: windlass::channel::Receiver) {
///     let first = receiver.try_recv().unwrap().unwrap();
///     let second = receiver.try_recv();
///     println!("{first:?}");
/// }
/// ```
pub struct Receiver {
    core: Core,
    reader: Reader,
    pace: Pace,
    doubt: Doubt,
    // A handle may move to another thread and not be shared by two.
    _not_sync: PhantomData<Cell<()>>,
}

/// A message that was found.
#[derive(Clone, Copy)]
struct Found {
    offset: usize,
    len: usize,
}

impl Receiver {
    pub(super) fn new(core: Core, reader: Reader) -> Self {
        let pace = Pace::new(core.stream().capacity() as u64);
        Self { core, reader, pace, doubt: Doubt::default(), _not_sync: PhantomData }
    }

    /// The next message if there is one now; `None` if there is not. Gives the one before back.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]; `Closed` and `Died` once everything is read.
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<&[u8]>, RecvError> {
        let found = self.next()?;
        Ok(found.map(|found| self.reader.payload(found.offset, found.len)))
    }

    /// The next message, waiting for it as `wait` says; `None` once the sender has left and everything is read. Gives
    /// the one before back.
    ///
    /// A sender that comes later is waited for, and after one that has left another one may come: the next call goes
    /// on.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]; `TimedOut` only with [`Wait::For`].
    #[inline]
    pub fn recv(&mut self, wait: Wait) -> Result<Option<&[u8]>, RecvError> {
        let found = match self.next_within() {
            Some(found) => found,
            None => match self.wait_for_next(wait)? {
                Some(found) => found,
                None => return Ok(None),
            },
        };
        self.pace.found(found.len);
        Ok(Some(self.reader.payload(found.offset, found.len)))
    }

    /// The messages that are there now, at most `max`, to iterate over. Gives those before back.
    ///
    /// Unlike [`try_recv`](Self::try_recv) it hands out several borrowed messages at a time. All of them are given back
    /// at once, by the next call. Empty means: nothing now.
    ///
    /// # Errors
    ///
    /// As for [`try_recv`](Self::try_recv).
    #[inline]
    pub fn batch(&mut self, max: usize) -> Result<Batch<'_>, RecvError> {
        let first = if max == 0 { None } else { self.next()? };
        Ok(Batch { reader: &self.reader, first, left: max.saturating_sub(1) })
    }

    /// Gives back what was received last, before the receiver is used again: a sender that waits for room may have it,
    /// and a successor does not read it again.
    pub fn release(&mut self) {
        if !self.core.is_forked() && !self.reader.is_settled() {
            self.reader.settle();
            self.core.nudge();
        }
    }

    /// Gives back what was received last, and looks.
    #[inline(always)]
    fn next_within(&mut self) -> Option<Found> {
        if self.core.is_forked() {
            return None;
        }
        if !self.reader.is_settled() {
            self.reader.settle();
            self.core.nudge();
        }
        let Poll::Frame { offset, len } = self.reader.poll() else { return None };
        self.reader.take(len);
        Some(Found { offset, len })
    }

    #[inline]
    fn next(&mut self) -> Result<Option<Found>, RecvError> {
        match self.next_within() {
            Some(found) => Ok(Some(found)),
            None => self.next_beyond(),
        }
    }

    /// What it means that there is nothing.
    #[cold]
    #[inline(never)]
    fn next_beyond(&mut self) -> Result<Option<Found>, RecvError> {
        if self.core.is_forked() {
            return Err(RecvError::Forked);
        }
        // A sender that waits for room has all that there is.
        self.reader.settle_room();
        // CLOSE: read before the last look, so that what was sent before leaving is found by it.
        let has_left = self.core.is_left();
        // The same for one that died.
        let dead = if self.doubt.grows() { self.question()? } else { None };
        if let Some(found) = self.next_within() {
            self.doubt.ends();
            return Ok(Some(found));
        }
        if self.core.loss.happened() || self.reader.is_damaged() {
            return Err(RecvError::Corrupt);
        }
        if has_left {
            return Err(RecvError::Closed);
        }
        dead.map_or(Ok(None), Err)
    }

    /// Asks the kernel whether the sender lives, and looks whether the file is whole.
    #[cold]
    fn question(&mut self) -> Result<Option<RecvError>, RecvError> {
        self.core.probe();
        match self.core.peer() {
            None => Err(RecvError::Corrupt),
            Some(Peer::Died { pid, is_elsewhere }) => {
                self.doubt.is_grave();
                Ok(Some(RecvError::Died { pid, is_elsewhere }))
            }
            Some(_) => Ok(None),
        }
    }

    #[cold]
    #[inline(never)]
    fn wait_for_next(&mut self, wait: Wait) -> Result<Option<Found>, RecvError> {
        let mut end = None;
        loop {
            match self.next() {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(RecvError::Closed) => return Ok(None),
                Err(error) => return Err(error),
            }
            let next = self.pace.nothing(wait);
            if next == Next::Look {
                continue;
            }
            if let Wait::For(limit) = wait {
                // The clock starts a few microseconds late: reading it costs more than the looks before.
                let now = Instant::now();
                let end = *end.get_or_insert_with(|| now.checked_add(limit));
                if end.is_some_and(|end| now >= end) {
                    return Err(RecvError::TimedOut);
                }
            }
            match next {
                Next::Yield => std::thread::yield_now(),
                _ => {
                    self.core.sleep(end.flatten(), || self.reader.is_ready());
                    self.pace.slept();
                    // Whoever was not woken asks why.
                    self.doubt.is_grave();
                }
            }
        }
    }

    /// What is known about the sender. Asks the kernel.
    ///
    /// # Errors
    ///
    /// [`RecvError::Forked`], [`RecvError::Corrupt`].
    pub fn sender(&self) -> Result<Peer, RecvError> {
        if self.core.is_forked() {
            return Err(RecvError::Forked);
        }
        self.core.peer().ok_or(RecvError::Corrupt)
    }

    /// Whether the memory is still whole. If it was cut short by somebody, what was read may have been zeroes.
    pub fn is_intact(&self) -> bool {
        self.core.probe();
        !self.core.loss.happened()
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.core.stream().capacity()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        // What was received is not read again by a successor, unless it was what this thread panicked at.
        if !std::thread::panicking() {
            self.release();
        }
    }
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver")
            .field("channel", &self.core.name())
            .field("position", &self.reader.position())
            .finish()
    }
}

/// Several messages at a time; see [`Receiver::batch`].
pub struct Batch<'a> {
    reader: &'a Reader,
    first: Option<Found>,
    left: usize,
}

impl<'a> Iterator for Batch<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        if let Some(Found { offset, len }) = self.first.take() {
            return Some(self.reader.payload(offset, len));
        }
        self.left = self.left.checked_sub(1)?;
        let Poll::Frame { offset, len } = self.reader.poll() else {
            self.left = 0;
            return None;
        };
        self.reader.take(len);
        Some(self.reader.payload(offset, len))
    }
}
