//! Replaying a durable topic: its messages in their order and at their pace, and then what is published.

use crate::error::{Error, ErrorKind, Result};
use crate::log::pace::Schedule;
pub use crate::log::pace::Speed;
use crate::topic::message::Message;
use crate::topic::outcome::RecvError;
use crate::topic::payload::Payload;
use crate::topic::start::Start;
use crate::topic::subscriber::{Found, Subscriber};
use crate::topic::wait::Wait;
use crate::topic::Topic;
use std::fmt;
use std::time::{Duration, Instant};

/// A sleep may end so much too late: the rest is waited for without one.
const SLEEP_LATE: Duration = Duration::from_micros(100);

/// What a replay does when it meets a message that is damaged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnDamage {
    /// It ends there: this call and all later ones say [`RecvError::Damaged`].
    #[default]
    Stop,
    /// It counts the message, and goes on behind it.
    Skip,
}

/// A subscriber of a durable topic that hands out what was recorded at the pace at which it was.
///
/// It follows the one order of the topic and runs into what is being published with no gap and no duplicate: it is a
/// [`Subscriber`] that waits for the right moment. Each message is due at its distance from the first one, divided by
/// the speed; being late once does not make the others late. Where the clock of the machine was set back the distance
/// is nothing.
///
/// # Live
///
/// Once everything was handed out and nothing is left, the replay is *live*, for good: from then on messages come as
/// they are published. At the recorded speed that happens when the topic pauses for as long as the replay is behind it;
/// at a higher one it catches up.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-replay-{}", std::process::id()));
/// use windlass::{Bus, OnDamage, Raw, Speed, Start, Wait};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("ticks").durable_at(&folder).open()?;
/// let mut publisher = topic.publisher()?;
/// for tick in 0..3u8 {
///     publisher.publish(&[tick])?;
/// }
/// let mut replay = topic.replay(Start::Oldest, Speed::Times(100.0))?.on_damage(OnDamage::Skip);
/// for tick in 0..3u8 {
///     assert_eq!(replay.recv(Wait::Block)?.expect("not closed").bytes(), [tick]);
/// }
/// assert!(replay.try_recv()?.is_none() && replay.is_live());
/// # while std::fs::remove_dir_all(&folder).is_err() {} // its keeper may be making a file
/// # Ok(()) }
/// ```
pub struct Replay<T: Payload> {
    subscriber: Subscriber<T>,
    schedule: Schedule,
    on_damage: OnDamage,
    /// The next message, and when it is due.
    held: Option<(Found, Option<Instant>)>,
    is_live: bool,
    paused: Option<Instant>,
    skipped: u64,
    stopped: Option<RecvError>,
}

impl<T: Payload> Topic<T> {
    /// Replays a durable topic from `start` on.
    ///
    /// # Errors
    ///
    /// As for [`subscriber`](Self::subscriber); `Invalid` if the topic is not durable, or the speed none.
    pub fn replay(&self, start: Start, speed: Speed) -> Result<Replay<T>> {
        self.log_core()?;
        let schedule = schedule(speed)?;
        let subscriber = self.subscriber(start)?;
        Ok(Replay {
            subscriber,
            schedule,
            on_damage: OnDamage::Stop,
            held: None,
            is_live: false,
            paused: None,
            skipped: 0,
            stopped: None,
        })
    }
}

fn schedule(speed: Speed) -> Result<Schedule> {
    Schedule::new(speed).ok_or_else(|| {
        let text = format!("{speed:?} is no speed: name a number above zero");
        Error::new(ErrorKind::Invalid, text)
    })
}

impl<T: Payload> Replay<T> {
    /// What to do about messages that are damaged; unless this is said the replay stops there.
    pub fn on_damage(self, on_damage: OnDamage) -> Self {
        Self { on_damage, ..self }
    }

    /// The next message if it is due by now; `None` if it is not, or if there is none.
    ///
    /// # Errors
    ///
    /// See [`RecvError`]: `Damaged` as [`OnDamage`] says, `Lagged` if the retention of the log was faster than the
    /// replay, `Closed` once a closed topic is read to its end.
    pub fn try_recv(&mut self) -> Result<Option<Message<'_, T>>, RecvError> {
        if !self.hold()? {
            return Ok(None);
        }
        let is_due = self.held.is_some_and(|(_, due)| due.is_none_or(|due| due <= Instant::now()));
        if self.paused.is_some() || !is_due {
            return Ok(None);
        }
        Ok(self.held.take().map(|(found, _)| self.subscriber.message(found)))
    }

    /// The next message, waiting as `wait` says until there is one and it is due; `None` once a closed topic is read to
    /// its end.
    ///
    /// # Errors
    ///
    /// As for [`try_recv`](Self::try_recv); `TimedOut` only with [`Wait::For`]: then the message is still to come. A
    /// replay that is paused times out at once, whatever `wait` says: only this thread could let it go on.
    pub fn recv(&mut self, wait: Wait) -> Result<Option<Message<'_, T>>, RecvError> {
        let end = match wait {
            Wait::For(limit) => Instant::now().checked_add(limit),
            _ => None,
        };
        if self.paused.is_some() {
            return Err(RecvError::TimedOut);
        }
        loop {
            match self.hold() {
                Ok(true) => break,
                Ok(false) => {}
                Err(RecvError::Closed) => return Ok(None),
                Err(error) => return Err(error),
            }
            let left = match (wait, end) {
                (Wait::For(_), Some(end)) => {
                    Wait::For(end.saturating_duration_since(Instant::now()))
                }
                _ => wait,
            };
            match self.subscriber.wait_for_next(left) {
                Ok(Some(found)) => {
                    self.held = Some((found, None));
                    break;
                }
                Ok(None) => return Ok(None),
                Err(error) => self.meet(error)?,
            }
        }
        if let Some((_, Some(due))) = self.held {
            if !wait_until(due, wait, end) {
                return Err(RecvError::TimedOut);
            }
        }
        Ok(self.held.take().map(|(found, _)| self.subscriber.message(found)))
    }

    /// Takes the next message from the subscriber, if there is one, and says when it is due. False if there is none.
    fn hold(&mut self) -> Result<bool, RecvError> {
        if let Some(error) = self.stopped {
            return Err(error);
        }
        while self.held.is_none() {
            match self.subscriber.next() {
                Ok(Some(found)) => {
                    let due = if self.is_live { None } else { self.due(found) };
                    self.held = Some((found, due));
                }
                Ok(None) => {
                    self.is_live = true;
                    return Ok(false);
                }
                Err(error) => self.meet(error)?,
            }
        }
        Ok(true)
    }

    fn due(&mut self, found: Found) -> Option<Instant> {
        let time = self.subscriber.message(found).time_ns()?;
        self.schedule.due(time, Instant::now())
    }

    /// Deals with what came instead of a message.
    fn meet(&mut self, error: RecvError) -> Result<(), RecvError> {
        match error {
            RecvError::Damaged { .. } if self.on_damage == OnDamage::Skip => {
                self.skipped += 1;
                Ok(())
            }
            RecvError::Damaged { .. } => {
                self.stopped = Some(error);
                Err(error)
            }
            _ => Err(error),
        }
    }

    /// When the next message is due, if there is one that is not due at once.
    pub fn due_at(&mut self) -> Option<Instant> {
        if self.held.is_none() && self.hold().is_err() {
            return None;
        }
        self.held.and_then(|(_, due)| due)
    }

    /// Whether the replay has caught up with what is published.
    pub fn is_live(&self) -> bool {
        self.is_live
    }

    /// Damaged messages that were skipped.
    pub fn skipped(&self) -> u64 {
        self.skipped
    }

    /// Holds the clock of the replay.
    pub fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
    }

    /// Lets the clock of the replay go on: what was not due when it was held is due so much later.
    pub fn go_on(&mut self) {
        if let Some(since) = self.paused.take() {
            let by = since.elapsed();
            self.schedule.delay(by);
            if let Some((_, Some(due))) = &mut self.held {
                *due += by;
            }
        }
    }

    /// Goes on at another speed, from the next message on, which is due at once.
    ///
    /// # Errors
    ///
    /// `Invalid` if the speed is none.
    pub fn set_speed(&mut self, speed: Speed) -> Result<()> {
        self.schedule = schedule(speed)?;
        if let Some((found, _)) = self.held {
            let due = self.due(found);
            self.held = Some((found, due));
        }
        Ok(())
    }

    /// Goes on at another place, at the same speed: what is there is due at once, and the replay is not live.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if `start` names a sequence that is not there; then nothing changes.
    pub fn seek(&mut self, start: Start) -> Result<()> {
        self.subscriber = Subscriber::join(self.subscriber.core.clone(), start)?;
        self.schedule.restart();
        (self.held, self.is_live, self.stopped) = (None, false, None);
        Ok(())
    }
}

/// Waits until `due`. False if `end` comes first, and has come.
fn wait_until(due: Instant, wait: Wait, end: Option<Instant>) -> bool {
    loop {
        let now = Instant::now();
        if now >= due {
            return true;
        }
        if end.is_some_and(|end| now >= end) {
            return false;
        }
        let until = end.map_or(due, |end| end.min(due));
        let left = until.saturating_duration_since(now);
        match wait {
            Wait::Block | Wait::For(_) if left > SLEEP_LATE => {
                std::thread::sleep(left - SLEEP_LATE)
            }
            Wait::Yield => std::thread::yield_now(),
            _ => std::hint::spin_loop(),
        }
    }
}

impl<T: Payload> fmt::Debug for Replay<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replay")
            .field("subscriber", &self.subscriber)
            .field("is_live", &self.is_live)
            .field("skipped", &self.skipped)
            .finish()
    }
}
