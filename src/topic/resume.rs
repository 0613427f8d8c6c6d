//! Named consumers of a durable topic: a subscriber that goes on where the one before it had committed.

use crate::error::Result;
use crate::log::cursor::{self, Cursor, CursorInfo};
use crate::topic::join::begin_in_log;
use crate::topic::message::Message;
use crate::topic::outcome::RecvError;
use crate::topic::payload::Payload;
use crate::topic::start::Start;
use crate::topic::subscriber::Subscriber;
use crate::topic::wait::Wait;
use crate::topic::Topic;

/// A subscriber of a durable topic with a [`Cursor`]: it goes on behind what was committed under its name, whoever had
/// the name before, and however that one ended.
///
/// At least once: what was received after the last [`commit`](Self::commit) is received again by whoever resumes. The
/// place where a new name begins is committed at once.
///
/// # Lagging
///
/// If the retention of the log has deleted messages that were not received yet, the first call says how many:
/// [`RecvError::Lagged`].
///
/// # If the machine crashes
///
/// If the crash took messages from the end of the log that were committed here as received, their sequences are given
/// to other messages, which will be received. [`Cursor::rewound`] says how many, until the next commit.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-resume-{}", std::process::id()));
/// use windlass::{Bus, Raw, Start};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("orders").durable_at(&folder).open()?;
/// let mut publisher = topic.publisher()?;
/// for order in [b"one", b"two"] {
///     publisher.publish(order)?;
/// }
/// let mut billing = topic.resume("billing", Start::Oldest)?;
/// assert_eq!(billing.try_recv()?.map(|order| order.bytes().to_vec()), Some(b"one".to_vec()));
/// billing.commit()?;
/// billing.try_recv()?; // received, but not committed
/// drop(billing);
///
/// let mut billing = topic.resume("billing", Start::Oldest)?;
/// assert_eq!(billing.try_recv()?.map(|order| order.bytes().to_vec()), Some(b"two".to_vec()));
/// # while std::fs::remove_dir_all(&folder).is_err() {} // its keeper may be making a file
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Resumed<T: Payload> {
    subscriber: Subscriber<T>,
    cursor: Cursor,
}

impl<T: Payload> Resumed<T> {
    /// The next message if there is one now; `None` if there is not.
    ///
    /// # Errors
    ///
    /// As for [`Subscriber::try_recv`].
    #[inline]
    pub fn try_recv(&mut self) -> Result<Option<Message<'_, T>>, RecvError> {
        self.subscriber.try_recv()
    }

    /// The next message, waiting for it as `wait` says; `None` once a closed topic is read to its end.
    ///
    /// # Errors
    ///
    /// As for [`Subscriber::recv`].
    #[inline]
    pub fn recv(&mut self, wait: Wait) -> Result<Option<Message<'_, T>>, RecvError> {
        self.subscriber.recv(wait)
    }

    /// Commits everything that was received so far, and what was told to be lost. Returns the first sequence that is
    /// not part of it.
    ///
    /// # Errors
    ///
    /// As for [`Cursor::commit`].
    pub fn commit(&mut self) -> Result<u64> {
        // The order of the log is what a subscriber of it follows.
        let next = self.subscriber.trail.as_ref().map_or(0, |trail| trail.next.get());
        if self.cursor.next() != Some(next) || self.cursor.rewound() > 0 {
            self.cursor.commit(next)?;
        }
        Ok(next)
    }

    /// The cursor: what is committed.
    pub fn cursor(&self) -> &Cursor {
        &self.cursor
    }

    /// The subscriber: what is received.
    pub fn subscriber(&self) -> &Subscriber<T> {
        &self.subscriber
    }

    /// The subscriber, to receive in other ways. What is received through it is committed as well.
    pub fn subscriber_mut(&mut self) -> &mut Subscriber<T> {
        &mut self.subscriber
    }
}

impl Cursor {
    /// Puts the cursor where `start` says, forwards or back. Not for one that belongs to a [`Resumed`] in use.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if `start` names a sequence that is not there.
    pub fn reset(&mut self, start: Start) -> Result<()> {
        let log = self.log().clone();
        let what = format!("of the log {}", log.files.folder);
        self.set(begin_in_log(&what, &log, start)?)
    }
}

impl<T: Payload> Topic<T> {
    /// Takes hold of the cursor of a durable topic with this name, which is made if it does not exist. It goes with the
    /// log, not with the bus.
    ///
    /// # Errors
    ///
    /// `Invalid` if the topic is not durable, or the name cannot be one; `AlreadyExists` if another holder lives: the
    /// error names it; `Corrupt` if the cursor is damaged.
    pub fn cursor(&self, name: &str) -> Result<Cursor> {
        Cursor::take(&self.log_core()?, name)
    }

    /// All cursors of a durable topic, by name.
    pub fn cursors(&self) -> Result<Vec<CursorInfo>> {
        let log = self.log_core()?;
        cursor::list(&log.files, log.first(), log.next()?)
    }

    /// Removes the cursor with this name. False if there is none.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if somebody holds it.
    pub fn remove_cursor(&self, name: &str) -> Result<bool> {
        cursor::remove(&self.log_core()?.files, name)
    }

    /// Becomes the consumer of that name: a subscriber that goes on behind what was committed under it, or begins at
    /// `start` if nothing was.
    ///
    /// # Errors
    ///
    /// As for [`cursor`](Self::cursor) and [`subscriber`](Self::subscriber).
    pub fn resume(&self, name: &str, start: Start) -> Result<Resumed<T>> {
        let mut cursor = self.cursor(name)?;
        let log = cursor.log().clone();
        let next = match cursor.next() {
            Some(next) => next,
            None => {
                let next = begin_in_log(&format!("topic {}", self.core.name), &log, start)?;
                // Else a death before the first commit would lose what is published until somebody resumes.
                cursor.set(next)?;
                next
            }
        };
        let subscriber = Subscriber::join_log(self.core.clone(), next)?;
        Ok(Resumed { subscriber, cursor })
    }
}
