//! Reading a log at will: any message by its number, stretches of it forwards and backwards, and by time.

use crate::error::{Error, ErrorKind, Result};
use crate::log::cache::{Cache, Miss};
use crate::log::iter::{Iter, Scan};
use crate::log::outcome::{Damage, ReadError};
use crate::log::source::Source;
use crate::log::times;
use crate::topic::payload::{Payload, Raw};
use crate::topic::view::View;
use std::cell::RefCell;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Bound, Range, RangeBounds};
use std::path::Path;
use std::sync::Arc;

/// The log of a durable topic, to be read at will: by sequence, by time, forwards and backwards.
///
/// There are two ways to one. [`Topic::log`](crate::Topic::log) is that of a topic which is open. [`Log::open`] takes a
/// folder, without a bus, reads only, and claims nothing: for tools, archives and copies, while others write it or not.
/// Either sees whatever is committed.
///
/// Nothing is copied: a [`View`] is the message where it lies in the mapped file, and stays valid whatever becomes of
/// the file. A handle keeps the segments that it has read mapped, up to some number, so the next message from one of
/// them costs neither a lock nor a system call. It may move to another thread; to read on several threads at once, give
/// each a clone.
///
/// # Damage
///
/// Where the log has checksums they are looked at whenever a message is read, unless [`checked(false)`](Self::checked)
/// was said. A message that is not what was published is an error that names it; the others can be read.
///
/// A checksum belongs to a record and to where it lies; which message it is, its place in the order says, with a
/// check of its own in which a change of one byte is always noticed. Subscribers, which know what follows what, and
/// [`verify`](Self::verify) notice more.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-log-{}", std::process::id()));
/// use windlass::{Bus, ErrorKind, Log, Raw};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("events").durable_at(&folder).open()?;
/// let mut publisher = topic.publisher()?;
/// for event in ["opened", "paid", "closed"] {
///     publisher.publish(event.as_bytes())?;
/// }
///
/// let log = topic.log()?; // or, without a bus: Log::<Raw>::open(&folder)?
/// assert_eq!((log.first()?, log.next()?, log.count()?), (0, 3, 3));
/// assert_eq!(log.get(1)?.as_bytes(), b"paid");
/// let backwards: Result<Vec<_>, _> = log.iter(1..)?.rev().collect();
/// assert_eq!(backwards?[0].as_bytes(), b"closed");
///
/// let error = log.get(3).expect_err("it is not published yet");
/// assert_eq!(error.kind(), ErrorKind::OutOfRange);
/// assert!(error.to_string().contains("the oldest that is kept is 0, the next one is 3"));
/// # drop((log, publisher, topic));
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
pub struct Log<T: Payload> {
    pub(super) source: Arc<Source>,
    pub(super) checked: bool,
    cache: RefCell<Cache>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> Log<T> {
    pub(crate) fn new(source: Arc<Source>) -> Self {
        let checked = source.files().shape.checksums;
        Self { source, checked, cache: RefCell::new(Cache::new()), payload: PhantomData }
    }

    /// Opens the log in the folder at `path` to read it, whether or not a bus is using it.
    ///
    /// Where the log begins and ends is read from its files. On a log that is being written, [`next`](Self::next) goes
    /// on as messages are committed.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no log, `Mismatch` if it has messages of another type or was written by another version,
    /// `Corrupt` if what it says of itself is damaged.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let log = Self::new(Arc::new(Source::open(path.as_ref())?));
        let (mine, stored) = (T::schema()?, log.schema_bytes()?);
        let named = |typed| if typed { "Cap'n Proto messages" } else { "raw bytes" };
        match mine {
            Some(mine) if log.is_typed() && mine == stored => {}
            Some(mine) if log.is_typed() => {
                let name = log.path().display().to_string();
                crate::message::check_schemas(&name, &stored, &mine)?;
            }
            mine if mine.is_some() != log.is_typed() => {
                let (found, wanted) = (named(log.is_typed()), named(mine.is_some()));
                let path = log.path().display();
                let text = format!("the log {path} has {found}, not {wanted}");
                return Err(Error::new(ErrorKind::Mismatch, text));
            }
            _ => {}
        }
        Ok(log)
    }

    /// Whether checksums are looked at when messages are read, from now on; of no effect where the log has none. A
    /// message that was damaged on disk is not noticed without.
    pub fn checked(mut self, checked: bool) -> Self {
        self.checked = checked && self.source.files().shape.checksums;
        self
    }

    /// The sequence of the oldest message that is kept. Equal to [`next`](Self::next) if there is none.
    ///
    /// Without an open topic this takes a look at the folder.
    pub fn first(&self) -> Result<u64> {
        self.source.first()
    }

    /// The sequence that the next message gets: one above that of the newest.
    pub fn next(&self) -> Result<u64> {
        self.source.next()
    }

    /// Messages that are there.
    pub fn count(&self) -> Result<u64> {
        let first = self.first()?;
        Ok(self.next()?.saturating_sub(first))
    }

    /// The message with this sequence, in place.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if it was deleted by now or is not published yet: the error names the oldest and the next one;
    /// `Damaged` if it is not what was published; `Limit`, `NoSpace` or `Permission` if its file cannot be mapped.
    #[inline]
    pub fn get(&self, sequence: u64) -> Result<View<T>> {
        match self.look(sequence) {
            Ok(view) => Ok(view),
            Err(miss) => self.explain(sequence, miss),
        }
    }

    #[inline]
    pub(super) fn look(&self, sequence: u64) -> Result<View<T>, Miss> {
        if sequence < self.source.first_seen() {
            return Err(Miss::Untaken);
        }
        let mut cache = self.cache.borrow_mut();
        let (at, record) = cache.record(&self.source, sequence, self.checked)?;
        let mapped = cache.mapped(at);
        let position = mapped.hold.lane().position(mapped.logical, record.at);
        Ok(View::of_record(&mapped.hold, &record, sequence, position))
    }

    #[cold]
    fn explain(&self, sequence: u64, miss: Miss) -> Result<View<T>> {
        match self.judge(sequence, miss)? {
            Verdict::There(view) => Ok(view),
            Verdict::Deleted { .. } | Verdict::Future => Err(self.out_of_range(sequence)),
            Verdict::Lost(ReadError::Unmapped { kind, .. }) => {
                let text = format!("cannot map the file of message {sequence} of {}", self.what());
                Err(Error::new(kind, text))
            }
            Verdict::Lost(error) => Err(Error::new(
                ErrorKind::Damaged,
                format!("{}: {error}; windlass verify says more", self.what()),
            )),
        }
    }

    /// What it means that there is no message under a sequence.
    #[cold]
    pub(super) fn judge(&self, sequence: u64, miss: Miss) -> Result<Verdict<T>> {
        if let Miss::Unmapped(error) = miss {
            let kind = error.kind();
            tracing::error!(log = %self.source.files().folder, sequence, %error, "cannot read");
            return Ok(Verdict::Lost(ReadError::Unmapped { sequence, kind }));
        }
        let first = self.source.first()?;
        if sequence < first {
            return Ok(Verdict::Deleted { first });
        }
        let damage = match miss {
            Miss::Damaged(damage) => damage,
            Miss::Gone => Damage::Gone,
            _ if sequence >= self.source.next()? => return Ok(Verdict::Future),
            // It may have been committed since the first look.
            _ => match self.look(sequence) {
                Ok(view) => return Ok(Verdict::There(view)),
                Err(Miss::Damaged(damage)) => damage,
                Err(_) => Damage::Place,
            },
        };
        Ok(Verdict::Lost(ReadError::Damaged { sequence, damage }))
    }

    /// The messages of a range of sequences, in their order; [`rev`](Iterator::rev) turns it round.
    ///
    /// The end is fixed now: a range without one ends with the newest message of this moment. What becomes of a message
    /// that is damaged, or was deleted meanwhile, is said in its place ([`ReadError`]), and the iteration goes on.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if the range begins or ends outside of what is there: the error names it.
    pub fn iter(&self, range: impl RangeBounds<u64>) -> Result<Iter<'_, T>> {
        Ok(Iter::new(self, self.bounds(range)?))
    }

    /// The same, to be read faster: it lends one message at a time ([`Record`](crate::Record)), forwards only, without
    /// counting who holds the segment.
    ///
    /// # Errors
    ///
    /// As for [`iter`](Self::iter).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("windlass-scan-{}", std::process::id()));
    /// # use windlass::{Bus, Raw};
    /// # let topic = Bus::anonymous()?.topic::<Raw>("events").durable_at(&folder).open()?;
    /// # topic.publisher()?.publish(b"opened")?;
    /// let log = topic.log()?;
    /// let (mut bytes, mut scan) = (0, log.scan(..)?);
    /// while let Some(record) = scan.read() {
    ///     bytes += record?.bytes().len();
    /// }
    /// # assert_eq!(bytes, 6);
    /// # drop((log, topic));
    /// # std::fs::remove_dir_all(folder)?;
    /// # Ok(()) }
    /// ```
    pub fn scan(&self, range: impl RangeBounds<u64>) -> Result<Scan<'_, T>> {
        Ok(Scan::new(self, self.bounds(range)?))
    }

    /// The newest `count` messages, or all if there are fewer.
    pub fn last(&self, count: u64) -> Result<Iter<'_, T>> {
        let (first, next) = (self.first()?, self.next()?);
        Ok(Iter::new(self, next.saturating_sub(count).max(first)..next))
    }

    /// The first sequence from which on there is a message of this time, in nanoseconds since 1970, or of a later one;
    /// the next sequence if there is none.
    ///
    /// All messages before it are earlier. Behind it, where the clock of the machine was set back, there may be earlier
    /// ones, too.
    pub fn at_time(&self, time_ns: u64) -> Result<u64> {
        times::at_time(&self.source, time_ns)
    }

    /// The messages from the first one of this time, or a later one, on; see [`at_time`](Self::at_time).
    pub fn since(&self, time_ns: u64) -> Result<Iter<'_, T>> {
        let (from, next) = (self.at_time(time_ns)?, self.next()?);
        Ok(Iter::new(self, from..next))
    }

    /// The messages from the first one of time `from_ns`, or a later one, to the one before the first of time `to_ns`,
    /// or a later one: one stretch of the order. Where the clock was set back it has earlier ones, too, but none that
    /// is not before `to_ns`.
    pub fn between(&self, from_ns: u64, to_ns: u64) -> Result<Iter<'_, T>> {
        let from = self.at_time(from_ns)?;
        let to = if to_ns > from_ns { self.at_time(to_ns)? } else { from };
        Ok(Iter::new(self, from..to.max(from)))
    }

    /// The sequences that a range means.
    fn bounds(&self, range: impl RangeBounds<u64>) -> Result<Range<u64>> {
        let (first, next) = (self.first()?, self.next()?);
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => first,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.saturating_add(1),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => next.max(start),
        };
        if let Some(wrong) = [start, end].into_iter().find(|it| !(first..=next).contains(it)) {
            return Err(self.out_of_range(wrong));
        }
        Ok(start..end.max(start))
    }

    pub(super) fn what(&self) -> String {
        format!("the log {}", self.source.files().folder)
    }

    fn out_of_range(&self, wanted: u64) -> Error {
        let first = self.source.first().unwrap_or_else(|_| self.source.first_seen());
        let next = self.source.next().unwrap_or(first);
        let text = format!(
            "{} has no message {wanted}: the oldest that is kept is {first}, the next one is {next}",
            self.what()
        );
        Error::new(ErrorKind::OutOfRange, text)
    }
}

/// What it means that there was no message.
pub(super) enum Verdict<T: Payload> {
    /// There is one now.
    There(View<T>),
    /// It was deleted, with everything before `first`.
    Deleted { first: u64 },
    /// It is not published yet.
    Future,
    /// It cannot be read.
    Lost(ReadError),
}

impl Log<Raw> {
    /// Opens any log, whatever its messages are: they are bytes, and [`schema_bytes`](Self::schema_bytes) says what
    /// they mean. For tools.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn open_untyped(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(Arc::new(Source::open(path.as_ref())?)))
    }
}

impl<T: Payload> Clone for Log<T> {
    /// Another handle of the same log, with mappings of its own.
    fn clone(&self) -> Self {
        Self { checked: self.checked, ..Self::new(self.source.clone()) }
    }
}

impl<T: Payload> fmt::Debug for Log<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Log").field("path", &self.path()).finish()
    }
}
