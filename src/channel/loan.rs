//! Loans: messages that are being built where they will be read.

use crate::channel::outcome::SendError;
use crate::channel::sender::Sender;
use std::ops::{Deref, DerefMut};

/// A message that is being built in the channel. Dropped = it never existed.
///
/// The bytes are whatever older messages left there: write all that you commit.
pub struct Loan<'a> {
    sender: &'a mut Sender,
    len: usize,
}

impl<'a> Loan<'a> {
    pub(super) fn new(sender: &'a mut Sender, len: usize) -> Self {
        Self { sender, len }
    }

    /// Sends the whole loan.
    ///
    /// # Errors
    ///
    /// [`SendError::Forked`] in a child that inherited the loan through `fork`; [`SendError::Corrupt`] if the memory
    /// was cut short.
    #[inline]
    pub fn commit(self) -> Result<(), SendError> {
        let len = self.len;
        self.commit_len(len)
    }

    /// Sends the first `len` bytes and gives the rest back.
    ///
    /// # Errors
    ///
    /// As for [`commit`](Self::commit).
    ///
    /// # Panics
    ///
    /// If `len` is more than was loaned.
    #[inline]
    pub fn commit_len(self, len: usize) -> Result<(), SendError> {
        assert!(len <= self.len, "committed {len} bytes of a loan of {}", self.len);
        self.sender.check_process()?;
        self.sender.commit(len)
    }
}

impl Deref for Loan<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.sender.writer.space_ref(self.len)
    }
}

impl DerefMut for Loan<'_> {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        self.sender.writer.space(self.len)
    }
}
