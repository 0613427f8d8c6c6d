//! An event store: streams of events under keys, in one log.

use crate::error::{Error, ErrorKind, Result};
use crate::log::keys::{KeyMessages, Keys};
use crate::log::reader::Log;
use crate::topic::loan::Construction;
use crate::topic::{
    Append, Loan, Payload, PublishError, Publisher, Raw, Receipt, Start, Subscriber, Topic, View,
};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What must be true of a stream for an event to be appended to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Nothing.
    Any,
    /// It has exactly so many events; 0: it does not exist.
    Version(u64),
}

/// Why an event was not appended. Nothing was.
#[derive(Debug)]
pub enum AppendError {
    /// The stream has another number of events than expected: somebody else appended to it. Read it again, decide
    /// again.
    Version {
        /// Events that it was to have.
        expected: u64,
        /// Events that it has.
        found: u64,
    },
    /// It could not be published.
    Publish(PublishError),
    /// The store could not be read up to its end, or not opened.
    Store(Error),
}

impl fmt::Display for AppendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { expected, found } => write!(
                f,
                "the stream has {found} events, not {expected}: somebody else appended to it; read \
                 it again"
            ),
            Self::Publish(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for AppendError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Version { .. } => None,
            Self::Publish(error) => Some(error),
            Self::Store(error) => Some(error),
        }
    }
}

impl From<PublishError> for AppendError {
    fn from(error: PublishError) -> Self {
        Self::Publish(error)
    }
}

impl From<Error> for AppendError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// Streams of events under keys, kept for ever in the log of a durable topic, in one total order.
///
/// Every process that opens the topic may have a store over it. An event has an *id*, its sequence in the topic, and
/// its stream has a *version*, the number of events in it. Appending with [`Expected::Version`] is optimistic
/// concurrency: of several processes that decided on the same state of a stream exactly one succeeds.
///
/// An event that changed on disk is counted by those who had read it before and not by others: what [`Keys::damaged`]
/// names makes the versions of its stream a matter of opinion, until the log is repaired from a copy.
///
/// Events are read where they lie; iterators and views share the mapping of the log. The keys are indexed in the memory
/// of each process ([`Keys`]), by reading the log once when the store is opened.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-store-{}", std::process::id()));
/// use windlass::{AppendError, Bus, EventStore, Expected, Raw};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("accounts").durable_at(&folder).open()?;
/// let store = EventStore::open(topic)?;
/// store.append(b"alice", b"opened", Expected::Version(0))?;
/// store.append(b"bob", b"opened", Expected::Any)?;
/// store.append(b"alice", b"deposited 10", Expected::Version(1))?;
///
/// let refused = store.append(b"alice", b"withdrew 10", Expected::Version(1));
/// assert!(matches!(refused, Err(AppendError::Version { expected: 1, found: 2 })));
///
/// let events: Vec<_> = store.read_stream(b"alice")?.collect::<Result<_, _>>()?;
/// assert_eq!(events[1].as_bytes(), b"deposited 10");
/// assert_eq!((store.count()?, store.last_id()?), (3, Some(2)));
/// # drop((events, store));
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
pub struct EventStore<T: Payload> {
    topic: Topic<T>,
    /// A handle is for one thread.
    log: Mutex<Log<T>>,
    keys: Keys<T>,
    /// Taken when the first event is appended: a store that is only read holds no lane.
    publisher: Mutex<Option<Publisher<T>>>,
    snapshots: Option<Snapshots>,
}

/// Where an appended event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Its id: its sequence in the topic.
    pub id: u64,
    /// The version of its stream with this event; `None` if no version was expected: others may have appended before
    /// it.
    pub version: Option<u64>,
}

impl<T: Payload> EventStore<T> {
    /// A store over a durable topic that keeps everything. Reads its keys.
    ///
    /// # Errors
    ///
    /// `Invalid` if the topic is not durable, or deletes old messages: the versions of streams could not be told then.
    pub fn open(topic: Topic<T>) -> Result<Self> {
        let log = topic.log()?;
        let info = log.info()?;
        if info.retain_bytes.is_some() || info.retain_for.is_some() {
            let text = format!(
                "topic {} deletes old messages, and an event store keeps all; create it without \
                 retain_bytes and retain_for",
                topic.name()
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        }
        let keys = Keys::new(&topic)?;
        keys.follow()?;
        Ok(Self { topic, log: Mutex::new(log), keys, publisher: Mutex::default(), snapshots: None })
    }

    /// The same store, with snapshots of its streams in `topic`: a durable topic of bytes, for nothing else.
    ///
    /// # Errors
    ///
    /// `Invalid` if the topic is not durable.
    pub fn with_snapshots(self, topic: &Topic<Raw>) -> Result<Self> {
        Ok(Self { snapshots: Some(Snapshots::open(topic)?), ..self })
    }

    /// The topic behind the store.
    pub fn topic(&self) -> &Topic<T> {
        &self.topic
    }

    /// The keys of the store.
    pub fn keys(&self) -> &Keys<T> {
        &self.keys
    }

    fn log(&self) -> MutexGuard<'_, Log<T>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publisher(&self) -> MutexGuard<'_, Option<Publisher<T>>> {
        self.publisher.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends with `publish`, again and again until it is clear whether the stream is as expected.
    fn append_by(
        &self,
        key: &[u8],
        expected: Expected,
        mut publish: impl FnMut(&mut Publisher<T>, &Append<'_>) -> Result<Receipt, PublishError>,
    ) -> Result<Appended, AppendError> {
        if key.is_empty() {
            let text = "an event needs a key: that of its stream".to_owned();
            return Err(AppendError::Store(Error::new(ErrorKind::Invalid, text)));
        }
        let mut publisher = self.publisher();
        let publisher = match &mut *publisher {
            Some(publisher) => publisher,
            none => none.insert(self.topic.publisher()?),
        };
        let append = Append::new().key(key);
        let Expected::Version(expected) = expected else {
            let receipt = publish(publisher, &append)?;
            return Ok(Appended { id: receipt.sequence, version: None });
        };
        loop {
            let next = self.keys.follow()?;
            let found = self.keys.count(key);
            if found != expected {
                return Err(AppendError::Version { expected, found });
            }
            match publish(publisher, &append.at(next)) {
                Ok(receipt) => {
                    return Ok(Appended { id: receipt.sequence, version: Some(found + 1) });
                }
                // Somebody appended; perhaps to another stream.
                Err(PublishError::Conflict) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The version of a stream: how many events it has.
    ///
    /// # Errors
    ///
    /// If the log cannot be read up to its end.
    pub fn version(&self, key: &[u8]) -> Result<u64> {
        self.keys.follow()?;
        Ok(self.keys.count(key))
    }

    /// How many events there are.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn count(&self) -> Result<u64> {
        self.log().count()
    }

    /// The id of the newest event.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    pub fn last_id(&self) -> Result<Option<u64>> {
        Ok(self.log().next()?.checked_sub(1))
    }

    /// All events from id `from` on that are there now, oldest first.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if there is no such id and it is not the next one either.
    pub fn read(&self, from: u64) -> Result<Events<T>> {
        let log = self.log().clone();
        let end = log.next()?;
        if from > end {
            // Says what there is.
            log.get(from)?;
        }
        Ok(Events { log, at: from, end })
    }

    /// The event with this id.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if there is none; `Damaged` if it is not what was published.
    pub fn get(&self, id: u64) -> Result<View<T>> {
        self.log().get(id)
    }

    /// The events of one stream that are there now, oldest first.
    ///
    /// # Errors
    ///
    /// If the log cannot be read up to its end.
    pub fn read_stream(&self, key: &[u8]) -> Result<KeyMessages<T>> {
        self.read_stream_from(key, 0)
    }

    /// The events of one stream from a version on: those that made it newer than that.
    ///
    /// # Errors
    ///
    /// If the log cannot be read up to its end.
    pub fn read_stream_from(&self, key: &[u8], version: u64) -> Result<KeyMessages<T>> {
        self.keys.follow()?;
        Ok(self.keys.messages(key, version))
    }

    /// Every event from id `from` on, and those that are yet to come, without a gap.
    ///
    /// # Errors
    ///
    /// As for [`Topic::subscriber`].
    pub fn subscribe(&self, from: u64) -> Result<Subscriber<T>> {
        self.topic.subscriber(Start::Sequence(from))
    }

    /// Keeps `state` as that of a stream at `version`, to begin with when it is read the next time.
    ///
    /// # Errors
    ///
    /// `Invalid` without [`with_snapshots`](Self::with_snapshots).
    pub fn save_snapshot(&self, key: &[u8], version: u64, state: &[u8]) -> Result<(), AppendError> {
        self.snapshots()?.save(key, version, state)
    }

    /// The newest snapshot of a stream, if there is any, and the events since.
    ///
    /// # Errors
    ///
    /// `Invalid` without [`with_snapshots`](Self::with_snapshots); `Corrupt` if the snapshot is damaged.
    pub fn load(&self, key: &[u8]) -> Result<Loaded<T>> {
        let snapshot = self.snapshots()?.newest(key)?;
        let version = self.version(key)?;
        // One of a version that was lost in a crash of the machine is of no use.
        let snapshot = snapshot.filter(|snapshot| snapshot.version <= version);
        let from = snapshot.as_ref().map_or(0, |snapshot| snapshot.version);
        Ok(Loaded { snapshot, events: self.keys.messages(key, from) })
    }

    fn snapshots(&self) -> Result<&Snapshots> {
        self.snapshots.as_ref().ok_or_else(|| {
            let text = "this event store has no snapshots; open it with_snapshots".to_owned();
            Error::new(ErrorKind::Invalid, text)
        })
    }
}

impl EventStore<Raw> {
    /// Appends an event to a stream.
    ///
    /// # Errors
    ///
    /// [`AppendError::Version`] if the stream is not as expected.
    pub fn append(
        &self,
        key: &[u8],
        event: &[u8],
        expected: Expected,
    ) -> Result<Appended, AppendError> {
        self.append_by(key, expected, |publisher, append| publisher.append(event, append))
    }
}

impl<T: capnp::traits::Owned> EventStore<T>
where
    T: Payload<Building = Construction>,
{
    /// Appends an event to a stream. `build` makes it in place, perhaps several times: when another process was faster.
    ///
    /// # Errors
    ///
    /// [`AppendError::Version`] if the stream is not as expected.
    pub fn append_with(
        &self,
        key: &[u8],
        expected: Expected,
        mut build: impl FnMut(&mut Loan<'_, T>),
    ) -> Result<Appended, AppendError> {
        self.append_by(key, expected, |publisher, append| {
            let mut loan = publisher.loan()?;
            build(&mut loan);
            loan.append(append)
        })
    }
}

impl<T: Payload> fmt::Debug for EventStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventStore")
            .field("topic", &self.topic.name())
            .field("streams", &self.keys.len())
            .finish_non_exhaustive()
    }
}

/// Events of all streams, in their order; see [`EventStore::read`]. Nothing is copied, and making one costs the same
/// for few and for many.
pub struct Events<T: Payload> {
    log: Log<T>,
    at: u64,
    end: u64,
}

impl<T: Payload> Iterator for Events<T> {
    type Item = Result<View<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        self.at += 1;
        Some(self.log.get(self.at - 1))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl<T: Payload> DoubleEndedIterator for Events<T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        self.end -= 1;
        Some(self.log.get(self.end))
    }
}

impl<T: Payload> ExactSizeIterator for Events<T> {}

/// A stream, from its newest snapshot on.
pub struct Loaded<T: Payload> {
    /// The newest snapshot.
    pub snapshot: Option<Snapshot>,
    /// The events since; all of them without a snapshot.
    pub events: KeyMessages<T>,
}

/// The state of a stream at one of its versions.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The version.
    pub version: u64,
    /// The state, where it lies.
    pub state: View<Raw>,
}

/// The snapshots of a store: under the key of the stream, the version and then the state.
struct Snapshots {
    keys: Keys<Raw>,
    publisher: Mutex<Option<Publisher<Raw>>>,
    topic: Topic<Raw>,
}

const VERSION_BYTES: usize = 8;

impl Snapshots {
    fn open(topic: &Topic<Raw>) -> Result<Self> {
        let keys = Keys::new(topic)?;
        Ok(Self { keys, publisher: Mutex::default(), topic: topic.clone() })
    }

    fn save(&self, key: &[u8], version: u64, state: &[u8]) -> Result<(), AppendError> {
        let mut publisher = self.publisher.lock().unwrap_or_else(PoisonError::into_inner);
        let publisher = match &mut *publisher {
            Some(publisher) => publisher,
            none => none.insert(self.topic.publisher()?),
        };
        let mut payload = version.to_le_bytes().to_vec();
        payload.extend_from_slice(state);
        publisher.append(&payload, &Append::new().key(key))?;
        Ok(())
    }

    fn newest(&self, key: &[u8]) -> Result<Option<Snapshot>> {
        self.keys.follow()?;
        let Some(view) = self.keys.latest(key)? else { return Ok(None) };
        let Some(version) = view.as_bytes().first_chunk::<VERSION_BYTES>() else {
            let text = format!(
                "message {} of topic {} is no snapshot: use a topic of its own for them",
                view.sequence(),
                self.topic.name()
            );
            return Err(Error::new(ErrorKind::Invalid, text));
        };
        let version = u64::from_le_bytes(*version);
        Ok(Some(Snapshot { version, state: view.slice(VERSION_BYTES..) }))
    }
}
