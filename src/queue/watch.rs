//! A descriptor that becomes readable when a consumer has something to take, for `epoll`, `poll` and event loops.
//!
//! It is the one that subscribers have ([`watch`](crate::topic::watch)). What a consumer does while it is idle falls to
//! the thread behind it: to look for what the dead left and for what is due, each time that it wakes.

use crate::error::Result;
use crate::queue::consumer::Consumer;
use crate::queue::core::Core;
use crate::topic::watch::{Place, Ready, Watch};
use crate::topic::Payload;
use std::os::fd::BorrowedFd;

impl<T: Payload> Consumer<T> {
    /// A descriptor that is readable when there may be a message: for `epoll`, `poll` and event loops.
    ///
    /// Wait until it is readable, then call [`try_take`](Self::try_take) or walk a [`batch`](Self::batch) until nothing
    /// is left; the look that finds nothing makes it unreadable again. It is level-triggered, readable from the
    /// beginning, and now and then readable though nothing is there: another consumer may have been faster. Do not read
    /// from it. When the queue was closed it stays readable; [`take`](Self::take) tells that from an empty queue.
    ///
    /// A thread of this process waits in the consumer's place, so this takes some microseconds longer than `take` with
    /// [`Wait::Block`](crate::Wait::Block), and a message that waits until it is due, or that a dead consumer had, may
    /// come 50 ms later than it could. The thread ends with the consumer.
    ///
    /// # Errors
    ///
    /// `Limit` or `Io` if there is no descriptor or thread left; `Forked` in a child of `fork`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    /// use windlass::{Bus, Raw};
    ///
    /// let bus = Bus::anonymous()?;
    /// let queue = bus.queue::<Raw>("jobs").open()?;
    /// let mut consumer = queue.consumer()?;
    /// queue.producer()?.enqueue(b"sweep the floor")?;
    ///
    /// let descriptor = consumer.descriptor()?;
    /// poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::NONE)?;
    /// while let Some(job) = consumer.try_take()? {
    ///     assert_eq!(job.bytes(), b"sweep the floor");
    ///     job.ack()?;
    /// }
    /// # Ok(()) }
    /// ```
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        self.core.member.check_process()?;
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => {
                let whose = format_args!("a consumer of {}", self.core.folder);
                Watch::new(Place::Own(self.core.bells.clone(), self.claimed.slot), whose)?
            }
        };
        Ok(self.watch.insert(watch).descriptor())
    }

    /// After a look that found nothing: lets the thread wait.
    #[cold]
    pub(super) fn arm_watch(&self) {
        if let Some(watch) = &self.watch {
            let is_ready = || self.core.is_ready();
            watch.arm(is_ready, || self.hint());
        }
    }

    /// What the thread asks from time to time: whether a look would find something. It heals, as every idle consumer.
    fn hint(&self) -> Ready {
        let (core, data) = (self.core.clone(), self.data.clone());
        Box::new(move || {
            core.probe([data.last()]);
            core.round_if_due();
            core.is_ready() || core.pool.has_ready()
        })
    }
}

impl Core {
    /// Whether there is an entry in the ring, or something that a consumer is to be told.
    pub(super) fn is_ready(&self) -> bool {
        let is_empty = matches!(self.pool.tokens().first(), Ok(None));
        !is_empty || self.is_closed() || self.loss.happened()
    }
}
