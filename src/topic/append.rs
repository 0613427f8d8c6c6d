//! Publishing on a durable topic with a key, or only as a certain message.

use crate::layout::record::{padded, KEY_BYTES_MAX};
use crate::topic::outcome::{PublishError, Receipt};
use crate::topic::patience::Patience;
use crate::topic::payload::{Payload, Raw};
use crate::topic::publisher::{Line, Publisher};

/// What is said of a message besides its payload when it is published on a durable topic.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-append-{}", std::process::id()));
/// use windlass::{Append, Bus, PublishError, Raw};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("accounts").durable_at(&folder).open()?;
/// let mut publisher = topic.publisher()?;
/// let receipt = publisher.append(b"opened", &Append::new().key(b"alice"))?;
///
/// // Only if nothing was published since.
/// let next = Append::new().key(b"alice").at(receipt.sequence + 1);
/// publisher.append(b"closed", &next)?;
/// assert_eq!(publisher.append(b"closed again", &next), Err(PublishError::Conflict));
/// # while std::fs::remove_dir_all(&folder).is_err() {} // its keeper may be making a file
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Append<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) at: Option<u64>,
    pub(crate) time_ns: Option<u64>,
}

impl<'a> Append<'a> {
    /// Nothing but the payload.
    #[inline]
    pub fn new() -> Self {
        Self::default()
    }

    /// With a key of up to 65535 bytes, which is stored beside the payload. An empty one is none.
    pub fn key(self, key: &'a [u8]) -> Self {
        Self { key, ..self }
    }

    /// Under exactly this sequence, or not at all: fails with [`PublishError::Conflict`] unless all messages before it,
    /// and no others, are published.
    pub fn at(self, sequence: u64) -> Self {
        Self { at: Some(sequence), ..self }
    }

    /// With this time, in nanoseconds since 1970, instead of that of the clock: that of the event itself, or of a
    /// message that is copied from elsewhere. Times need not rise.
    pub fn time_ns(self, time_ns: u64) -> Self {
        Self { time_ns: Some(time_ns), ..self }
    }

    /// Bytes that a payload of `len` bytes needs together with the key. A length may be any number.
    pub(super) fn room(&self, len: usize) -> usize {
        len.saturating_add(7 + padded(self.key.len()))
    }
}

impl<T: Payload> Publisher<T> {
    /// Makes room for `more` bytes behind a payload of `len` bytes that lies at the writer's position, by moving it if
    /// there is none.
    pub(super) fn make_room_behind(
        &mut self,
        len: usize,
        more: usize,
        patience: Patience,
    ) -> Result<(), PublishError> {
        if self.writer.has_room(len.saturating_add(more)) {
            return Ok(());
        }
        let payload = self.writer.space_ref(len).to_vec();
        self.make_room(len.saturating_add(more), patience)?;
        self.writer.space(len).copy_from_slice(&payload);
        Ok(())
    }

    /// Commits the payload that lies at the writer's position, which has room for the key behind it.
    pub(super) fn commit_as(
        &mut self,
        len: usize,
        touched: usize,
        append: &Append<'_>,
    ) -> Result<Receipt, PublishError> {
        if append.key.len() > KEY_BYTES_MAX {
            let (need, max) = (append.key.len() as u64, KEY_BYTES_MAX as u64);
            return Err(PublishError::TooLarge { need, max });
        }
        let Line::Log(pen) = &mut self.line else { return Err(PublishError::NotDurable) };
        let committed = pen.commit(&mut self.writer, len, touched, append);
        let (position, sequence) = committed?;
        self.tell(position, sequence)
    }
}

impl Publisher<Raw> {
    /// Publishes a copy of `payload` on a durable topic with what `append` says of it.
    ///
    /// # Errors
    ///
    /// As for [`publish`](Self::publish); [`PublishError::Conflict`] if it was to have a sequence that another message
    /// got; [`PublishError::NotDurable`].
    pub fn append(&mut self, payload: &[u8], append: &Append<'_>) -> Result<Receipt, PublishError> {
        self.make_room(append.room(payload.len()), Patience::Forever)?;
        self.writer.space(payload.len()).copy_from_slice(payload);
        self.commit_as(payload.len(), payload.len() + padded(append.key.len()), append)
    }
}
