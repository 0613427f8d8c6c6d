//! Entering Cap'n Proto messages that are built in their chunk.

use crate::message::arena::{Finished, LoanArena};
use crate::queue::outcome::EnqueueError;
use crate::queue::producer::Producer;
use crate::ring::pool::Held;
use crate::topic::loan::Construction;
use crate::topic::patience::Patience;
use crate::topic::Payload;
use capnp::message::Builder;
use std::time::Duration;

/// Smallest space of a loan, in payload bytes, unless the largest chunk is smaller.
const LOAN_BYTES_MIN: usize = 256;

impl<T: capnp::traits::Owned> Producer<T>
where
    T: Payload<Building = Construction>,
{
    /// Borrows a chunk for a message, waiting for one as long as it takes. The message is built in place.
    ///
    /// The space is what recent messages needed and then some. A message that outgrows it is not lost: it is put
    /// together when it is entered, in a larger chunk if it needs one, at the price of one copy. If no chunk of that
    /// space is free and a smaller one is, the message is built there.
    ///
    /// # Errors
    ///
    /// `Closed`, `Forked`, `Corrupt`.
    pub fn loan(&mut self) -> Result<TypedLoan<'_, T>, EnqueueError> {
        self.build_estimated(Patience::Forever)
    }

    /// Borrows a chunk for a message if one is free now.
    ///
    /// # Errors
    ///
    /// `Full` says what the chunks are used for; the others as for [`loan`](Self::loan).
    pub fn try_loan(&mut self) -> Result<TypedLoan<'_, T>, EnqueueError> {
        self.build_estimated(Patience::Never)
    }

    /// Borrows a chunk for a message, waiting for one for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_loan`](Self::try_loan).
    pub fn loan_timeout(&mut self, timeout: Duration) -> Result<TypedLoan<'_, T>, EnqueueError> {
        self.build_estimated(Patience::within(timeout))
    }

    /// Borrows a chunk for a message of about `bytes` payload bytes, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// `TooLarge` if no chunk takes that many; the others as for [`loan`](Self::loan).
    pub fn loan_sized(&mut self, bytes: usize) -> Result<TypedLoan<'_, T>, EnqueueError> {
        let max = self.payload_bytes_max();
        if bytes > max {
            return Err(EnqueueError::TooLarge { need: bytes as u64, max: max as u64 });
        }
        self.build_within(bytes, Patience::Forever)
    }

    /// Begins a message of which nobody says how large it will be.
    fn build_estimated(&mut self, patience: Patience) -> Result<TypedLoan<'_, T>, EnqueueError> {
        let len = self.space(self.estimate);
        let classes = self.core.shape.classes;
        let smaller = classes.iter().filter(|class| (1..len).contains(&(class.bytes as usize)));
        let mut sizes = smaller.map(|class| class.bytes as usize).rev().peekable();
        if sizes.peek().is_some() {
            // That recent messages were large must not keep a small one from a chunk that it fits.
            let now = std::iter::once(len).chain(sizes);
            for len in now {
                match self.claim(len, Patience::Never) {
                    Err(EnqueueError::Full { .. }) => {}
                    claimed => return Ok(self.build_in(claimed?, len, patience)),
                }
            }
        }
        self.build_within(len, patience)
    }

    fn build_within(
        &mut self,
        bytes: usize,
        patience: Patience,
    ) -> Result<TypedLoan<'_, T>, EnqueueError> {
        let len = self.space(bytes);
        let held = self.claim(len, patience)?;
        Ok(self.build_in(held, len, patience))
    }

    /// The space of a loan for about `bytes` payload bytes.
    fn space(&self, bytes: usize) -> usize {
        // Sizes of chunks are multiples of eight.
        bytes.max(LOAN_BYTES_MIN).min(self.payload_bytes_max()).next_multiple_of(8)
    }

    fn build_in(&mut self, held: Held, len: usize, patience: Patience) -> TypedLoan<'_, T> {
        let builder = self.data.build(&held, len);
        TypedLoan { builder, producer: self, held: Some(held), patience }
    }
}

/// A chunk in which a Cap'n Proto message is being built. Dropped = it never existed.
pub struct TypedLoan<'a, T>
where
    T: capnp::traits::Owned + Payload<Building = Construction>,
{
    // Dropped before the loan is given back.
    builder: Builder<LoanArena>,
    producer: &'a mut Producer<T>,
    held: Option<Held>,
    patience: Patience,
}

impl<T> TypedLoan<'_, T>
where
    T: capnp::traits::Owned + Payload<Building = Construction>,
{
    /// Begins the message: its root, with every field at its default.
    pub fn init_root(&mut self) -> T::Builder<'_> {
        self.builder.init_root()
    }

    /// The root of a message that was begun.
    ///
    /// # Errors
    ///
    /// If there is none of this type.
    pub fn get_root(&mut self) -> capnp::Result<T::Builder<'_>> {
        self.builder.get_root()
    }

    /// Makes the message a copy of another one.
    ///
    /// # Errors
    ///
    /// If the other one is malformed.
    pub fn set_root(&mut self, from: T::Reader<'_>) -> capnp::Result<()> {
        self.builder.set_root(from)
    }

    /// Enters the message, trimmed to what was used.
    ///
    /// # Errors
    ///
    /// `TooLarge` if it outgrew its loan and no chunk takes it; `Full` if it outgrew a loan that was not to wait. The
    /// message is gone then.
    pub fn enqueue(mut self) -> Result<(), EnqueueError> {
        let held = self.held.expect("it is there until the loan is entered");
        let len = match LoanArena::finish(&self.builder, self.producer.data.write(&held, 8)) {
            Finished::InPlace { payload_bytes } => {
                self.held = None;
                self.producer.commit(held, payload_bytes)?;
                payload_bytes
            }
            Finished::Outgrown { payload_bytes } => {
                self.enter_outgrown(held, payload_bytes)?;
                payload_bytes
            }
        };
        // Follows large messages at once, and small ones slowly.
        let estimate = &mut self.producer.estimate;
        *estimate = len.max(*estimate - *estimate / 16);
        Ok(())
    }

    /// Puts a message together that needed more segments than its loan.
    #[cold]
    fn enter_outgrown(&mut self, held: Held, len: usize) -> Result<(), EnqueueError> {
        if len <= self.producer.data.capacity(held.chunk) {
            LoanArena::assemble(&self.builder, self.producer.data.write(&held, len));
            self.held = None;
            return self.producer.commit(held, len);
        }
        // The smaller chunk is given back when the loan is dropped, after what was built there was copied.
        let larger = self.producer.claim(len, self.patience)?;
        LoanArena::assemble(&self.builder, self.producer.data.write(&larger, len));
        self.producer.commit(larger, len)
    }
}

impl<T> Drop for TypedLoan<'_, T>
where
    T: capnp::traits::Owned + Payload<Building = Construction>,
{
    fn drop(&mut self) {
        if let Some(held) = self.held.take() {
            self.producer.abort(held);
        }
    }
}
