//! A bounded queue of bare tokens, for those who bring their own memory.

mod inspect;
mod options;

pub use inspect::TokenQueueInfo;
pub use options::TokenQueueBuilder;

pub(crate) use inspect::inspect;

use crate::error::{Error, ErrorKind, Result};
use crate::layout::token::Form;
use crate::limits::{SLEEP_MS_MAX, TOKEN_BITS_DEFAULT};
use crate::ring::tokens::{Refused, Tokens};
use crate::shm::home::Home;
use crate::shm::loss::Loss;
use crate::topic::patience::{Patience, Pause};
use std::fmt;
use std::time::{Duration, Instant};

/// Why a token was not pushed, or none was popped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// Every slot holds a token. It may be otherwise a moment later.
    Full,
    /// The token has more bits than the queue was created for.
    TooLarge {
        /// The largest token of this queue.
        max: u64,
    },
    /// A word of the queue is none that it can have, or its file was cut short while it was mapped; in that case the
    /// token may have been pushed, or be lost.
    Corrupt,
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("the token queue is full"),
            Self::TooLarge { max } => write!(
                f,
                "the token is larger than {max}, the largest of this queue; create the queue with \
                 more token_bits"
            ),
            Self::Corrupt => f.write_str(
                "the token queue is damaged, or its file was cut short; remove it and create it \
                 anew",
            ),
        }
    }
}

impl std::error::Error for TokenError {}

/// A bounded lock-free queue of `u64` tokens, for any number of producers and consumers: threads, or the processes of
/// a bus.
///
/// Each token goes to one consumer. Tokens come out in the order in which they went in, so those of one producer come
/// out in the order of that producer. What a token means is up to you: an index into memory of your own, a position
/// that a [`Receipt`](crate::Receipt) named, a number of a file. What a producer did before it pushed a token is seen
/// by whoever pops it.
///
/// A push or a pop is one compare-and-swap of the slot itself. No process can hold others up by being stopped or killed
/// at any instruction, and nothing needs repair. A token is not owned by anybody: one that was popped by a process that
/// is killed then is gone. (Work that must survive whoever does it belongs into a queue with acknowledgement.)
///
/// Cheap to clone; a clone is the same queue. It holds no membership of the bus, so it outlives the [`Bus`](crate::Bus)
/// handle that opened it, and works in a child made by `fork`.
///
/// # Which tokens
///
/// A slot is one word, which carries the token and the *lap*: how often the ring has been filled up to here. A token
/// has [`token_bits`](TokenQueueBuilder::token_bits) bits, 32 by default and at most 47; the other 63 − `token_bits`
/// count laps. A process that is stopped in the middle of a push or a pop for exactly a multiple of
/// 2^(63 − `token_bits`) laps puts its token at a later place, where it waits until the ring gets there, or takes one
/// out of turn. Nothing is lost or doubled by that. With 32 bits that takes 2^31 laps: hours at full speed in a ring
/// of a thousand slots.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use windlass::{Bus, TokenQueue};
///
/// let queue = TokenQueue::new(1024)?; // for threads
/// std::thread::scope(|scope| {
///     scope.spawn(|| (0..10).try_for_each(|token| queue.push(token)));
///     let sum: u64 = (0..10).map(|_| loop {
///         if let Ok(Some(token)) = queue.pop() {
///             break token;
///         }
///     }).sum();
///     assert_eq!(sum, 45);
/// });
///
/// let bus = Bus::anonymous()?; // Bus::open("market")? for processes
/// let queue = bus.tokens("free-buffers").capacity(64).open()?;
/// queue.push(7)?;
/// assert_eq!(queue.pop()?, Some(7));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenQueue {
    ring: Tokens,
    form: Form,
    identity: u64,
    loss: Loss,
}

impl TokenQueue {
    /// A queue of up to `capacity` (a power of two) tokens of 32 bits in the memory of this process, for its threads.
    ///
    /// # Errors
    ///
    /// `Invalid` for a capacity outside its range, `NoSpace` if there is no memory or no descriptor left.
    pub fn new(capacity: u64) -> Result<Self> {
        options::anonymous(&Home::anonymous(), capacity, TOKEN_BITS_DEFAULT)
    }

    /// Pushes a token.
    ///
    /// # Errors
    ///
    /// `Full`, `TooLarge`, `Corrupt`.
    #[inline]
    pub fn push(&self, token: u64) -> Result<(), TokenError> {
        if token > self.form.token_max() {
            return Err(TokenError::TooLarge { max: self.form.token_max() });
        }
        let entered = self.ring.enter(token);
        if self.loss.happened() {
            return Err(TokenError::Corrupt);
        }
        entered.map_err(|refused| match refused {
            Refused::Full => TokenError::Full,
            Refused::Corrupt => TokenError::Corrupt,
        })
    }

    /// Pops the token that was pushed first. `None` if there is none.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    #[inline]
    pub fn pop(&self) -> Result<Option<u64>, TokenError> {
        let taken = self.ring.take();
        if self.loss.happened() {
            return Err(TokenError::Corrupt);
        }
        taken.map_err(|_| TokenError::Corrupt)
    }

    /// Pushes a token, and waits for at most `timeout` until there is room.
    ///
    /// The wait spins, then yields, then sleeps for up to a millisecond at a time.
    ///
    /// # Errors
    ///
    /// As for [`push`](Self::push); `Full` if there was no room in all that time.
    pub fn push_within(&self, token: u64, timeout: Duration) -> Result<(), TokenError> {
        self.wait(timeout, || match self.push(token) {
            Err(TokenError::Full) => None,
            done => Some(done),
        })
        .unwrap_or(Err(TokenError::Full))
    }

    /// Pops a token, and waits for at most `timeout` until there is one. `None` if there was none in all that time.
    ///
    /// The wait spins, then yields, then sleeps for up to a millisecond at a time.
    ///
    /// # Errors
    ///
    /// As for [`pop`](Self::pop).
    pub fn pop_within(&self, timeout: Duration) -> Result<Option<u64>, TokenError> {
        self.wait(timeout, || self.pop().transpose()).transpose()
    }

    /// Asks again and again until there is an answer or the time is over.
    fn wait<R>(
        &self,
        timeout: Duration,
        mut ask: impl FnMut() -> Option<Result<R, TokenError>>,
    ) -> Option<Result<R, TokenError>> {
        let (patience, mut pause) = (Patience::within(timeout), Pause::new());
        let mut looked = Instant::now();
        loop {
            if let Some(answer) = ask() {
                return Some(answer);
            }
            // Damage can make a queue look empty for good.
            if looked.elapsed() >= Duration::from_millis(SLEEP_MS_MAX) {
                looked = Instant::now();
                if self.check().is_err() {
                    return Some(Err(TokenError::Corrupt));
                }
            }
            if !pause.wait(patience) {
                return None;
            }
        }
    }

    /// Fails if the queue shows damage.
    ///
    /// # Errors
    ///
    /// `Corrupt`.
    pub fn check(&self) -> Result<()> {
        let what = "the token queue";
        self.loss.probe(self.ring.last(), self.identity);
        self.loss.check(what)?;
        self.ring.check_wait().map_err(|_| {
            let text = format!("{what} is damaged: its tail is beyond an empty place");
            Error::new(ErrorKind::Corrupt, text)
        })
    }

    /// How many tokens it holds at most.
    pub fn capacity(&self) -> u64 {
        self.ring.capacity()
    }

    /// The largest token.
    pub fn token_max(&self) -> u64 {
        self.form.token_max()
    }

    /// How many tokens are in it: exact if nobody is at work.
    pub fn len(&self) -> u64 {
        self.ring.depth()
    }

    /// Whether no token is in it, as [`len`](Self::len) has it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Debug for TokenQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenQueue")
            .field("capacity", &self.capacity())
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
