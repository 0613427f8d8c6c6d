//! The sending end.

use crate::channel::core::{Core, Doubt};
use crate::channel::loan::Loan;
use crate::channel::outcome::{Peer, SendError};
use crate::layout::channel::payload_bytes_max;
use crate::ring::stream::{Corrupt, Writer};
use crate::topic::wait::Wait;
use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;
use std::time::{Duration, Instant};

/// Bytes that a batch stages before it commits them: enough that the receiver finds several messages at a time, little
/// enough that it does not wait long for the first.
const GROUP_BYTES: u64 = 8192;

/// Spin hints between two looks for room.
const PAUSE: u32 = 32;

/// Looks for room before the line of the receiver itself is looked at, which it is writing all the time.
const LOOKS_BEFORE_CLOSER: u32 = 32;

/// Looks for room before a yielding wait yields.
const LOOKS_BEFORE_YIELD: u32 = 16;

/// Looks for room before a blocking wait sleeps.
const LOOKS_BEFORE_SLEEP: u32 = 128;

/// The sending end of a channel. There is one at a time.
///
/// A sender is wait-free but for the calls that are asked to wait for room. It makes no system call unless the receiver
/// sleeps, and allocates nothing.
///
/// # If a process dies
///
/// A message is there once it is committed, and not at all before. A successor goes on behind the last one.
///
/// A sender can move to another thread but not be used by two:
///
/// ```compile_fail
/// fn two_threads(sender: windlass::channel::Sender) {
///     let shared = &sender;
///     std::thread::scope(|scope| {
///         scope.spawn(move || shared.capacity());
///     });
/// }
/// ```
pub struct Sender {
    core: Core,
    pub(super) writer: Writer,
    /// The longest message.
    max: usize,
    doubt: Doubt,
    // A handle may move to another thread and not be shared by two.
    _not_sync: PhantomData<Cell<()>>,
}

impl Sender {
    pub(super) fn new(core: Core, writer: Writer) -> Self {
        let max = payload_bytes_max(core.stream().capacity());
        Self { core, writer, max, doubt: Doubt::default(), _not_sync: PhantomData }
    }

    /// Sends a copy of `payload`, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], [`SendError::Died`], [`SendError::TooLarge`], [`SendError::Forked`],
    /// [`SendError::Corrupt`].
    #[inline]
    pub fn send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_within(payload, Some(Wait::Block))
    }

    /// Sends a copy of `payload` if there is room now.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`]; the others as for [`send`](Self::send).
    #[inline]
    pub fn try_send(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.send_within(payload, None)
    }

    /// Sends a copy of `payload`, waiting for room for at most `timeout`.
    ///
    /// # Errors
    ///
    /// As for [`try_send`](Self::try_send).
    pub fn send_timeout(&mut self, payload: &[u8], timeout: Duration) -> Result<(), SendError> {
        self.send_within(payload, Some(Wait::For(timeout)))
    }

    /// Sends a copy of `payload`, waiting for room as `wait` says.
    ///
    /// # Errors
    ///
    /// As for [`try_send`](Self::try_send); `Full` only with [`Wait::For`].
    #[inline]
    pub fn send_waiting(&mut self, payload: &[u8], wait: Wait) -> Result<(), SendError> {
        self.send_within(payload, Some(wait))
    }

    #[inline]
    fn send_within(&mut self, payload: &[u8], wait: Option<Wait>) -> Result<(), SendError> {
        self.begin();
        self.make_room(payload.len(), wait)?;
        self.writer.space(payload.len()).copy_from_slice(payload);
        self.commit(payload.len())
    }

    /// Sends copies of all `payloads`, waiting for room as long as it takes; returns how many.
    ///
    /// They are committed in groups, which is faster than one by one: the receiver is looked for, and finds something,
    /// less often. Those of a group appear at once.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send), with the number sent before the error.
    #[inline]
    pub fn send_batch<I>(&mut self, payloads: I) -> Result<u64, (u64, SendError)>
    where
        I: IntoIterator,
        I::Item: AsRef<[u8]>,
    {
        self.begin();
        let mut count = 0;
        for payload in payloads {
            let payload = payload.as_ref();
            if let Err(error) = self.make_room(payload.len(), Some(Wait::Block)) {
                self.flush();
                return Err((count, error));
            }
            self.stage(payload);
            count += 1;
            if self.writer.staged() >= GROUP_BYTES {
                self.flush();
            }
        }
        self.flush();
        self.check().map_err(|error| (0, error))?;
        Ok(count)
    }

    /// Begins a group: messages that appear at once, or never.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut sender, mut receiver) = windlass::channel::pair(4096)?;
    /// let mut group = sender.group();
    /// group.push(b"copied")?;
    /// group.build(8, |space| space.copy_from_slice(b"in place"))?;
    /// group.commit()?;
    /// let messages: Vec<_> = receiver.batch(10)?.collect();
    /// assert_eq!(messages, [&b"copied"[..], b"in place"]);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn group(&mut self) -> Group<'_> {
        self.begin();
        Group { sender: self }
    }

    /// Borrows space for a message of `len` bytes, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// As for [`send`](Self::send).
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let (mut sender, mut receiver) = windlass::channel::pair(4096)?;
    /// let mut loan = sender.loan(1024)?;
    /// loan[..5].copy_from_slice(b"hello");
    /// loan.commit_len(5)?; // the rest goes back
    /// drop(sender.loan(100)?); // this one never existed
    /// assert_eq!(receiver.try_recv()?, Some(&b"hello"[..]));
    /// assert_eq!(receiver.try_recv()?, None);
    /// # Ok(()) }
    /// ```
    #[inline]
    pub fn loan(&mut self, len: usize) -> Result<Loan<'_>, SendError> {
        self.loan_within(len, Some(Wait::Block))
    }

    /// Borrows space for a message of `len` bytes if there is room now.
    ///
    /// # Errors
    ///
    /// As for [`try_send`](Self::try_send).
    #[inline]
    pub fn try_loan(&mut self, len: usize) -> Result<Loan<'_>, SendError> {
        self.loan_within(len, None)
    }

    /// Borrows space for a message of `len` bytes, waiting for room as `wait` says.
    ///
    /// # Errors
    ///
    /// As for [`send_waiting`](Self::send_waiting).
    #[inline]
    pub fn loan_waiting(&mut self, len: usize, wait: Wait) -> Result<Loan<'_>, SendError> {
        self.loan_within(len, Some(wait))
    }

    #[inline]
    fn loan_within(&mut self, len: usize, wait: Option<Wait>) -> Result<Loan<'_>, SendError> {
        self.begin();
        self.make_room(len, wait)?;
        Ok(Loan::new(self, len))
    }

    /// Forgets what a group staged that was forgotten itself.
    #[inline]
    fn begin(&mut self) {
        if self.writer.is_staged() {
            self.writer.abandon();
        }
    }

    /// Commits the message of `len` bytes that was written where there is room for it.
    #[inline]
    pub(super) fn commit(&mut self, len: usize) -> Result<(), SendError> {
        self.writer.commit_one(len);
        self.core.nudge();
        self.check()
    }

    /// Whether what was done went where somebody reads it.
    #[inline]
    fn check(&self) -> Result<(), SendError> {
        if self.core.loss.happened() {
            return Err(SendError::Corrupt);
        }
        Ok(())
    }

    /// Refuses to commit in a child what its parent was building when it forked.
    #[inline]
    pub(super) fn check_process(&self) -> Result<(), SendError> {
        if self.core.is_forked() {
            return Err(SendError::Forked);
        }
        Ok(())
    }

    #[inline]
    fn stage(&mut self, payload: &[u8]) {
        self.writer.space(payload.len()).copy_from_slice(payload);
        self.writer.stage(payload.len());
    }

    /// Commits what is staged.
    #[inline]
    fn flush(&mut self) {
        self.writer.commit();
        self.core.nudge();
    }

    /// Makes room for a message of `len` bytes behind what is staged.
    #[inline]
    fn make_room(&mut self, len: usize, wait: Option<Wait>) -> Result<(), SendError> {
        let is_ready = len <= self.max
            && self.writer.has_room(len)
            && !self.core.is_left()
            && !self.core.is_forked();
        if is_ready {
            return Ok(());
        }
        self.make_room_slowly(len, wait)
    }

    #[cold]
    #[inline(never)]
    fn make_room_slowly(&mut self, len: usize, wait: Option<Wait>) -> Result<(), SendError> {
        if self.core.is_forked() {
            self.writer.abandon();
            return Err(SendError::Forked);
        }
        if len > self.max {
            return Err(SendError::TooLarge { need: len as u64, max: self.max as u64 });
        }
        if self.core.is_left() {
            return Err(SendError::Closed);
        }
        let room = match wait {
            None => self.look_for_room(len, true)?,
            Some(wait) => {
                // The receiver may be waiting for what is staged, and so would this.
                self.flush();
                self.wait_for_room(len, wait)?;
                true
            }
        };
        if self.core.loss.happened() {
            return Err(SendError::Corrupt);
        }
        if room {
            self.doubt.ends();
            return Ok(());
        }
        if self.doubt.grows() {
            self.question()?;
        }
        Err(SendError::Full)
    }

    /// Whether there is room by now. `closer`: also by the line that the receiver writes for every message.
    fn look_for_room(&mut self, len: usize, closer: bool) -> Result<bool, SendError> {
        let damaged = |Corrupt| SendError::Corrupt;
        self.writer.look().map_err(damaged)?;
        if closer && !self.writer.make_room(len) {
            self.writer.look_closer().map_err(damaged)?;
        }
        Ok(self.writer.make_room(len))
    }

    fn wait_for_room(&mut self, len: usize, wait: Wait) -> Result<(), SendError> {
        let (mut looks, mut end) = (0_u32, None);
        loop {
            let closer = looks % LOOKS_BEFORE_CLOSER == LOOKS_BEFORE_CLOSER - 1;
            if self.look_for_room(len, closer)? {
                return Ok(());
            }
            if self.core.is_left() {
                return Err(SendError::Closed);
            }
            looks = looks.wrapping_add(1);
            if self.doubt.grows() {
                self.question()?;
            }
            (0..PAUSE).for_each(|_| std::hint::spin_loop());
            let sleeps = matches!(wait, Wait::Block | Wait::For(_)) && looks >= LOOKS_BEFORE_SLEEP;
            if let Wait::For(limit) = wait {
                // The clock starts a few microseconds late: reading it costs more than the looks before.
                if sleeps || limit.is_zero() {
                    let now = Instant::now();
                    let end = *end.get_or_insert_with(|| now.checked_add(limit));
                    if end.is_some_and(|end| now >= end) {
                        return if self.look_for_room(len, true)? {
                            Ok(())
                        } else {
                            Err(SendError::Full)
                        };
                    }
                }
            }
            if sleeps {
                self.sleep(len, end.flatten())?;
                looks = LOOKS_BEFORE_SLEEP / 2;
            } else if wait == Wait::Yield && looks >= LOOKS_BEFORE_YIELD {
                std::thread::yield_now();
            }
        }
    }

    /// Sleeps until the receiver wakes this process, and asks who lives if nobody did.
    fn sleep(&mut self, len: usize, end: Option<Instant>) -> Result<(), SendError> {
        let Self { core, writer, .. } = self;
        core.sleep(end, || writer.look_closer().is_err() || writer.make_room(len));
        if !self.look_for_room(len, true)? {
            self.question()?;
        }
        Ok(())
    }

    /// Refuses to wait for the dead.
    #[cold]
    fn question(&mut self) -> Result<(), SendError> {
        self.core.probe();
        if self.core.loss.happened() {
            return Err(SendError::Corrupt);
        }
        match self.core.peer() {
            None => Err(SendError::Corrupt),
            Some(Peer::Died { pid, is_elsewhere }) => {
                self.doubt.is_grave();
                Err(SendError::Died { pid, is_elsewhere })
            }
            Some(_) => Ok(()),
        }
    }

    /// What is known about the receiver. Asks the kernel.
    ///
    /// # Errors
    ///
    /// [`SendError::Forked`], [`SendError::Corrupt`].
    pub fn receiver(&self) -> Result<Peer, SendError> {
        if self.core.is_forked() {
            return Err(SendError::Forked);
        }
        self.core.peer().ok_or(SendError::Corrupt)
    }

    /// Bytes of the ring.
    pub fn capacity(&self) -> usize {
        self.core.stream().capacity()
    }

    /// Bytes of the longest message.
    pub fn payload_bytes_max(&self) -> usize {
        self.max
    }
}

/// Messages that appear at once: a receiver finds all of them or none. Dropped = they never existed.
pub struct Group<'a> {
    sender: &'a mut Sender,
}

impl Group<'_> {
    /// Adds a copy of `payload`, if there is room for it behind the others.
    ///
    /// # Errors
    ///
    /// As for [`Sender::try_send`]; what was added before stays.
    #[inline]
    pub fn push(&mut self, payload: &[u8]) -> Result<(), SendError> {
        self.sender.make_room(payload.len(), None)?;
        self.sender.stage(payload);
        Ok(())
    }

    /// Adds a message of `len` bytes that `fill` writes in place, if there is room for it behind the others.
    ///
    /// The bytes are whatever older messages left there: write all of them.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push).
    #[inline]
    pub fn build(&mut self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), SendError> {
        self.sender.make_room(len, None)?;
        fill(self.sender.writer.space(len));
        self.sender.writer.stage(len);
        Ok(())
    }

    /// Sends all of them.
    ///
    /// # Errors
    ///
    /// [`SendError::Forked`], [`SendError::Corrupt`].
    #[inline]
    pub fn commit(self) -> Result<(), SendError> {
        self.sender.check_process()?;
        self.sender.flush();
        self.sender.check()
    }
}

impl Drop for Group<'_> {
    fn drop(&mut self) {
        // Nothing is staged behind a commit.
        self.sender.writer.abandon();
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender")
            .field("channel", &self.core.name())
            .field("position", &self.writer.tail())
            .finish()
    }
}
