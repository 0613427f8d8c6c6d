//! Loans: messages that are being built where they will be read.
//!
//! A loan is the space behind the publisher's position. Publishing it is one store; dropping it leaves nothing. Until
//! then no other process can see it, however long it takes.

#![allow(unsafe_code)]

use crate::message::arena::{Finished, LoanArena};
use crate::topic::append::Append;
use crate::topic::outcome::{PublishError, Receipt};
use crate::topic::patience::Patience;
use crate::topic::payload::{Payload, Raw};
use crate::topic::publisher::Publisher;
use capnp::message::Builder;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

/// Smallest space of a typed loan, in payload bytes, unless a segment is smaller.
const LOAN_BYTES_MIN: usize = 256;

/// A message that is being built in shared memory. Dropped = it never existed.
pub struct Loan<'a, T: Payload> {
    publisher: &'a mut Publisher<T>,
    building: T::Building,
    /// Up to where the lane was clean when the loan was made.
    clean: usize,
}

/// The space of a raw loan.
#[derive(Clone, Copy)]
pub struct Space {
    len: usize,
}

/// A typed message under construction.
pub struct Construction {
    builder: Builder<LoanArena>,
    patience: Patience,
}

impl Publisher<Raw> {
    /// Borrows space for a message of `len` bytes, waiting for room as long as it takes.
    ///
    /// The bytes are whatever older messages of this lane left there: write all that you publish.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let bus = windlass::Bus::anonymous()?;
    /// # let topic = bus.topic::<windlass::Raw>("frames").open()?;
    /// # let mut subscriber = topic.subscriber(windlass::Start::Latest)?;
    /// # let mut publisher = topic.publisher()?;
    /// let mut loan = publisher.loan(1024)?;
    /// loan[..5].copy_from_slice(b"hello");
    /// loan.publish_len(5)?; // the rest goes back
    /// # assert_eq!(subscriber.try_recv()?.unwrap().bytes(), b"hello");
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_, Raw>, PublishError> {
        self.loan_within(len, Patience::Forever)
    }

    /// Borrows space for a message of `len` bytes if there is room now.
    ///
    /// # Errors
    ///
    /// As for [`try_publish`](Self::try_publish).
    #[inline]
    pub fn try_loan(&mut self, len: usize) -> Result<Loan<'_, Raw>, PublishError> {
        self.loan_within(len, Patience::Never)
    }

    /// Borrows space for a message of `len` bytes, waiting for room for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_publish`](Self::try_publish).
    pub fn loan_timeout(
        &mut self,
        len: usize,
        timeout: Duration,
    ) -> Result<Loan<'_, Raw>, PublishError> {
        self.loan_within(len, Patience::within(timeout))
    }

    #[inline]
    fn loan_within(
        &mut self,
        len: usize,
        patience: Patience,
    ) -> Result<Loan<'_, Raw>, PublishError> {
        self.make_room(len, patience)?;
        self.write_ahead(len);
        let clean = self.writer.lend();
        Ok(Loan { publisher: self, building: Space { len }, clean })
    }
}

impl Loan<'_, Raw> {
    /// Publishes the whole loan.
    ///
    /// # Errors
    ///
    /// [`PublishError::Corrupt`] if the order log of an ordered topic is damaged; [`PublishError::Forked`] in a child
    /// that inherited the loan through `fork`.
    #[inline]
    pub fn publish(self) -> Result<Receipt, PublishError> {
        let len = self.building.len;
        self.publish_len(len)
    }

    /// Publishes the first `len` bytes and gives the rest back.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish).
    ///
    /// # Panics
    ///
    /// If `len` is more than was loaned.
    #[inline]
    pub fn publish_len(self, len: usize) -> Result<Receipt, PublishError> {
        let touched = self.building.len;
        assert!(len <= touched, "published {len} bytes of a loan of {touched}");
        self.publisher.check_process()?;
        self.publisher.writer.take_back(self.clean);
        self.publisher.commit(len, touched)
    }
}

impl Deref for Loan<'_, Raw> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.publisher.writer.space_ref(self.building.len)
    }
}

impl DerefMut for Loan<'_, Raw> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.publisher.writer.space(self.building.len)
    }
}

impl<T: capnp::traits::Owned> Publisher<T>
where
    T: Payload<Building = Construction>,
{
    /// Borrows space for a message, waiting for room as long as it takes. The message is built in place.
    ///
    /// The space is what recent messages needed and then some. A message that outgrows it is not lost: it gets a bigger
    /// loan when it is published, at the price of one copy, which `windlass info` counts.
    ///
    /// # Errors
    ///
    /// [`PublishError::Closed`], [`PublishError::Forked`], [`PublishError::Corrupt`].
    #[inline]
    pub fn loan(&mut self) -> Result<Loan<'_, T>, PublishError> {
        self.loan_within(self.estimate, Patience::Forever)
    }

    /// Borrows space for a message if there is room now.
    ///
    /// # Errors
    ///
    /// [`PublishError::Full`] names who blocks; the others as for [`loan`](Self::loan).
    #[inline]
    pub fn try_loan(&mut self) -> Result<Loan<'_, T>, PublishError> {
        self.loan_within(self.estimate, Patience::Never)
    }

    /// Borrows space for a message, waiting for room for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_loan`](Self::try_loan).
    pub fn loan_timeout(&mut self, timeout: Duration) -> Result<Loan<'_, T>, PublishError> {
        self.loan_within(self.estimate, Patience::within(timeout))
    }

    /// Borrows space for a message of about `bytes` payload bytes, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] if no segment takes that many; the others as for [`loan`](Self::loan).
    pub fn loan_sized(&mut self, bytes: usize) -> Result<Loan<'_, T>, PublishError> {
        let max = self.payload_bytes_max();
        if bytes > max {
            return Err(PublishError::TooLarge { need: bytes as u64, max: max as u64 });
        }
        self.loan_within(bytes, Patience::Forever)
    }

    #[inline]
    fn loan_within(
        &mut self,
        bytes: usize,
        patience: Patience,
    ) -> Result<Loan<'_, T>, PublishError> {
        let len = bytes.max(LOAN_BYTES_MIN).min(self.payload_bytes_max());
        self.make_room(len, patience)?;
        self.writer.clean(len);
        let capacity = self.writer.clean_bytes();
        let space = self.writer.space(capacity);
        // SAFETY: contract 4: the space behind the position is this publisher's alone, and zero, until the commit. It
        // stays mapped and untouched while the arena lives: the loan borrows the publisher and owns the arena.
        let arena = unsafe { LoanArena::new(space) };
        let builder = Builder::new(arena);
        let clean = self.writer.lend();
        Ok(Loan { publisher: self, building: Construction { builder, patience }, clean })
    }
}

impl<T: capnp::traits::Owned> Loan<'_, T>
where
    T: Payload<Building = Construction>,
{
    /// Begins the message: its root, with every field at its default.
    #[inline]
    pub fn init_root(&mut self) -> T::Builder<'_> {
        self.building.builder.init_root()
    }

    /// The root of a message that was begun.
    ///
    /// # Errors
    ///
    /// If there is none of this type.
    pub fn get_root(&mut self) -> capnp::Result<T::Builder<'_>> {
        self.building.builder.get_root()
    }

    /// Makes the message a copy of another one.
    ///
    /// # Errors
    ///
    /// If the other one is malformed.
    pub fn set_root(&mut self, from: T::Reader<'_>) -> capnp::Result<()> {
        self.building.builder.set_root(from)
    }

    /// Publishes the message, trimmed to what was used.
    ///
    /// # Errors
    ///
    /// [`PublishError::TooLarge`] if it outgrew its loan and no segment takes it; [`PublishError::Full`] if it outgrew
    /// a loan that was not to wait. The message is gone then.
    #[inline]
    pub fn publish(self) -> Result<Receipt, PublishError> {
        let Self { publisher, building: Construction { builder, patience }, clean } = self;
        publisher.check_process()?;
        let (len, receipt) = match LoanArena::finish(&builder, publisher.writer.space(8)) {
            Finished::InPlace { payload_bytes } => {
                publisher.writer.take_back(clean);
                (payload_bytes, publisher.commit(payload_bytes, payload_bytes)?)
            }
            Finished::Outgrown { payload_bytes } => {
                (payload_bytes, publisher.publish_outgrown(&builder, payload_bytes, patience)?)
            }
        };
        // Follows large messages at once, and small ones slowly.
        publisher.estimate = len.max(publisher.estimate - publisher.estimate / 16);
        Ok(receipt)
    }
}

impl<T: capnp::traits::Owned> Loan<'_, T>
where
    T: Payload<Building = Construction>,
{
    /// Publishes the message on a durable topic with what `append` says of it.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish), and [`PublishError::Conflict`] if it was to have a sequence that another
    /// message got: it is gone then.
    pub fn append(self, append: &Append<'_>) -> Result<Receipt, PublishError> {
        let Self { publisher, building: Construction { builder, patience }, clean } = self;
        publisher.check_process()?;
        let appended = publisher.append_built(&builder, patience, clean, append);
        if appended.is_err() {
            // What was built is still there: the next loan is not to find it.
            publisher.writer.lend();
        }
        appended
    }
}

impl<T: capnp::traits::Owned> Publisher<T>
where
    T: Payload<Building = Construction>,
{
    fn append_built(
        &mut self,
        builder: &Builder<LoanArena>,
        patience: Patience,
        clean: usize,
        append: &Append<'_>,
    ) -> Result<Receipt, PublishError> {
        let len = match LoanArena::finish(builder, self.writer.space(8)) {
            Finished::InPlace { payload_bytes } => {
                self.writer.take_back(clean);
                self.make_room_around(payload_bytes, append.room(payload_bytes), patience)?;
                payload_bytes
            }
            Finished::Outgrown { payload_bytes } => {
                self.make_room(append.room(payload_bytes), patience)?;
                self.writer.count_outgrown();
                LoanArena::assemble(builder, self.writer.space(payload_bytes));
                payload_bytes
            }
        };
        self.estimate = len.max(self.estimate - self.estimate / 16);
        self.commit_as(len, len, append)
    }

    /// Puts a message together that needed more segments than its loan.
    #[cold]
    fn publish_outgrown(
        &mut self,
        builder: &Builder<LoanArena>,
        len: usize,
        patience: Patience,
    ) -> Result<Receipt, PublishError> {
        let max = self.payload_bytes_max();
        if len > max {
            return Err(PublishError::TooLarge { need: len as u64, max: max as u64 });
        }
        self.writer.count_outgrown();
        // If this goes on in another segment, what was built in the old one is still there: a segment that is mapped
        // is not taken.
        self.make_room(len, patience)?;
        LoanArena::assemble(builder, self.writer.space(len));
        self.commit(len, len)
    }
}

#[cfg(test)]
mod tests {
    use crate::schemas::tick_capnp::tick;
    use crate::{Bus, PublishError, Raw, Start};

    #[test]
    fn a_forgotten_loan_leaves_nothing_in_the_next_one() {
        let bus = Bus::anonymous().expect("there is memory");
        let topic = bus.topic::<tick::Owned>("ticks").open().expect("a fresh topic");
        let mut publisher = topic.publisher().expect("a free lane");
        let mut loan = publisher.loan().expect("room");
        loan.init_root().set_number(77);
        std::mem::forget(loan);
        let mut loan = publisher.loan().expect("room");
        assert_eq!(loan.get_root().expect("the default").get_number(), 0);
    }

    #[test]
    fn a_loan_of_any_length_fits_or_is_too_large() {
        let bus = Bus::anonymous().expect("there is memory");
        let topic = bus.topic::<Raw>("bytes").segment_bytes(4096).open().expect("a fresh topic");
        let mut publisher = topic.publisher().expect("a free lane");
        let max = publisher.payload_bytes_max();
        for len in [max + 1, usize::MAX - 8, usize::MAX - 7, usize::MAX] {
            let refused = publisher.loan(len).map(drop);
            assert_eq!(refused, Err(PublishError::TooLarge { need: len as u64, max: max as u64 }));
        }
        for len in [max, 0, 1, max - 16 - 8, 0, max - 7] {
            let receipt = publisher.loan(len).and_then(|loan| loan.publish()).expect("it fits");
            assert_eq!(receipt.position % 8, 0);
        }
    }

    #[test]
    fn a_dropped_raw_loan_leaves_no_header_behind_the_next_message() {
        let bus = Bus::anonymous().expect("there is memory");
        let topic = bus.topic::<Raw>("bytes").open().expect("a fresh topic");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
        let mut publisher = topic.publisher().expect("a free lane");
        publisher.loan(512).expect("room").fill(0xff);
        publisher.publish(b"whole").expect("room");
        let message = subscriber.try_recv().expect("sound").expect("it was published");
        assert_eq!(message.bytes(), b"whole");
        assert!(subscriber.try_recv().expect("nothing stale behind it").is_none());
    }
}
