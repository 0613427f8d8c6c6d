//! The keys of a durable topic: which messages each one has, and which is the newest.
//!
//! An index in the memory of one process, made by reading the topic from its oldest message on, and kept up to date by
//! reading on. It holds each key once and a number for each message; the messages stay where they are.

use crate::error::{Error, ErrorKind, Result};
use crate::log::reader::Log;
use crate::topic::{Payload, RecvError, Start, Subscriber, Topic, View};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// The messages of one key, oldest first, by sequence. Only grows.
type Numbers = RwLock<Vec<u64>>;

/// The keys of a durable topic, shared by all clones of this handle.
///
/// Messages that were published without a key are not in it. What was published before a call of
/// [`follow`](Self::follow) is in it after that call.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-keys-{}", std::process::id()));
/// use windlass::{Append, Bus, Keys, Raw};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("prices").durable_at(&folder).open()?;
/// let mut publisher = topic.publisher()?;
/// for (symbol, price) in [("ACME", "10"), ("INIT", "7"), ("ACME", "11")] {
///     publisher.append(price.as_bytes(), &Append::new().key(symbol.as_bytes()))?;
/// }
/// let keys = Keys::new(&topic)?;
/// keys.follow()?;
/// assert_eq!(keys.latest(b"ACME")?.expect("it has a price").as_bytes(), b"11");
/// assert_eq!(keys.count(b"ACME"), 2);
/// # drop((keys, publisher, topic));
/// # std::fs::remove_dir_all(folder)?;
/// # Ok(()) }
/// ```
pub struct Keys<T: Payload> {
    shared: Arc<Shared<T>>,
}

struct Shared<T: Payload> {
    /// A handle is for one thread.
    log: Mutex<Log<T>>,
    follower: Mutex<Follower<T>>,
    keys: RwLock<HashMap<Box<[u8]>, Arc<Numbers>>>,
}

struct Follower<T: Payload> {
    subscriber: Subscriber<T>,
    /// Messages that are not what was published.
    damaged: Vec<u64>,
}

impl<T: Payload> Clone for Keys<T> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone() }
    }
}

impl<T: Payload> Keys<T> {
    /// The keys of `topic`: none, before the first [`follow`](Self::follow).
    ///
    /// # Errors
    ///
    /// `Invalid` if the topic is not durable; those of [`Topic::subscriber`].
    pub fn new(topic: &Topic<T>) -> Result<Self> {
        let log = topic.log()?;
        let subscriber = topic.subscriber(Start::Oldest)?;
        let follower = Mutex::new(Follower { subscriber, damaged: Vec::new() });
        let (log, keys) = (Mutex::new(log), RwLock::default());
        Ok(Self { shared: Arc::new(Shared { log, follower, keys }) })
    }

    fn follower(&self) -> MutexGuard<'_, Follower<T>> {
        self.shared.follower.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, Log<T>> {
        self.shared.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn map(&self) -> RwLockReadGuard<'_, HashMap<Box<[u8]>, Arc<Numbers>>> {
        self.shared.keys.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbers(&self, key: &[u8]) -> Option<Arc<Numbers>> {
        self.map().get(key).cloned()
    }

    /// Reads what was published since the last call. Returns the sequence up to which everything is in, which is that
    /// of the next message.
    ///
    /// Messages that are [damaged](RecvError::Damaged), or deleted before they were read, are not in; see
    /// [`damaged`](Self::damaged).
    ///
    /// # Errors
    ///
    /// `Corrupt`, `Forked`, `Io` as the subscriber behind it says.
    pub fn follow(&self) -> Result<u64> {
        let mut follower = self.follower();
        loop {
            let Follower { subscriber, damaged } = &mut *follower;
            match subscriber.try_recv() {
                Ok(Some(message)) => {
                    self.add(message.key(), message.sequence());
                }
                Ok(None) | Err(RecvError::Closed) => break,
                Err(RecvError::Damaged { sequence }) => damaged.push(sequence),
                Err(RecvError::Lagged { .. }) => {}
                Err(error) => return Err(unreadable(error)),
            }
        }
        Ok(follower.subscriber.due())
    }

    fn add(&self, key: &[u8], sequence: u64) {
        if key.is_empty() {
            return;
        }
        let numbers = match self.numbers(key) {
            Some(numbers) => numbers,
            None => {
                let mut keys = self.shared.keys.write().unwrap_or_else(PoisonError::into_inner);
                keys.entry(key.into()).or_default().clone()
            }
        };
        numbers.write().unwrap_or_else(PoisonError::into_inner).push(sequence);
    }

    /// How many messages of a key were read.
    pub fn count(&self, key: &[u8]) -> u64 {
        let count = |numbers: Arc<Numbers>| {
            numbers.read().unwrap_or_else(PoisonError::into_inner).len() as u64
        };
        self.numbers(key).map_or(0, count)
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.map().len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.map().is_empty()
    }

    /// A copy of every key, in no order.
    pub fn keys(&self) -> Vec<Box<[u8]>> {
        self.map().keys().cloned().collect()
    }

    /// The newest message of a key that was read, unless it was deleted since.
    ///
    /// # Errors
    ///
    /// `Damaged` if it is not what was published.
    pub fn latest(&self, key: &[u8]) -> Result<Option<View<T>>> {
        let Some(numbers) = self.numbers(key) else { return Ok(None) };
        let last = numbers.read().unwrap_or_else(PoisonError::into_inner).last().copied();
        let Some(last) = last else { return Ok(None) };
        match self.log().get(last) {
            Err(error) if error.kind() == ErrorKind::OutOfRange => Ok(None),
            found => found.map(Some),
        }
    }

    /// The messages of a key from number `from` on (0 is its oldest), oldest first, as far as they were read when this
    /// was called. Costs the same for few and for many; nothing is copied.
    pub fn messages(&self, key: &[u8], from: u64) -> KeyMessages<T> {
        let numbers = self.numbers(key);
        let end = self.count(key);
        KeyMessages { log: self.log().clone(), numbers, at: from, end }
    }

    /// The sequences of the messages that were found to be damaged.
    pub fn damaged(&self) -> Vec<u64> {
        self.follower().damaged.clone()
    }
}

fn unreadable(error: RecvError) -> Error {
    let kind = match error {
        RecvError::Forked => ErrorKind::Forked,
        RecvError::Unmapped { .. } => ErrorKind::Io,
        _ => ErrorKind::Corrupt,
    };
    Error::new(kind, error.to_string())
}

impl<T: Payload> fmt::Debug for Keys<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("keys", &self.len()).finish_non_exhaustive()
    }
}

/// The messages of one key; see [`Keys::messages`].
pub struct KeyMessages<T: Payload> {
    log: Log<T>,
    numbers: Option<Arc<Numbers>>,
    at: u64,
    end: u64,
}

impl<T: Payload> KeyMessages<T> {
    fn at(&self, number: u64) -> Option<Result<View<T>>> {
        let numbers = self.numbers.as_ref()?.read().unwrap_or_else(PoisonError::into_inner);
        let sequence = *numbers.get(usize::try_from(number).ok()?)?;
        drop(numbers);
        Some(self.log.get(sequence))
    }
}

impl<T: Payload> Iterator for KeyMessages<T> {
    type Item = Result<View<T>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        self.at += 1;
        self.at(self.at - 1)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = usize::try_from(self.end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        (left, Some(left))
    }
}

impl<T: Payload> DoubleEndedIterator for KeyMessages<T> {
    fn next_back(&mut self) -> Option<Self::Item> {
        if self.at >= self.end {
            return None;
        }
        self.end -= 1;
        self.at(self.end)
    }
}

impl<T: Payload> ExactSizeIterator for KeyMessages<T> {}
