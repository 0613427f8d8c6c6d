//! What both ends of a channel share: the memory, who is there, sleeping and waking, and leaving.
//!
//! # Orderings
//!
//! | edge    | `Release` store              | `Acquire` load            | hands over                            |
//! |---------|------------------------------|---------------------------|---------------------------------------|
//! | `CLOSE` | holder word, in `enter`, `leave` | holder word, in `holder` | what the end that left had committed |

use crate::bus::Process;
use crate::channel::outcome::Peer;
use crate::layout::channel::{Holder, HOLDER, RECEIVER_AT, SENDER_AT, SLEEP, SPACE};
use crate::limits::SLEEP_MS_MAX;
use crate::ring::doze::Doze;
use crate::ring::stream::Stream;
use crate::shm::loss::Loss;
use crate::shm::named::{Byte, Named};
use crate::shm::node::own_namespace;
use crate::shm::sys;
use crate::sync::Ordering::{Acquire, Relaxed, Release};
use std::time::{Duration, Instant};

/// How long an end that leaves waits for somebody who is just coming. If that one is stopped the name stays.
const LEAVE_PATIENCE: Duration = Duration::from_millis(20);

/// One of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Sender,
    Receiver,
}

impl End {
    pub fn other(self) -> Self {
        match self {
            Self::Sender => Self::Receiver,
            Self::Receiver => Self::Sender,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Sender => "sender",
            Self::Receiver => "receiver",
        }
    }

    pub fn byte(self) -> Byte {
        match self {
            Self::Sender => Byte::Sender,
            Self::Receiver => Byte::Receiver,
        }
    }

    /// Where its words are.
    fn at(self) -> usize {
        match self {
            Self::Sender => SENDER_AT,
            Self::Receiver => RECEIVER_AT,
        }
    }

    /// Who holds this end, or held it, as its words say, to a process in PID namespace `space`.
    pub fn found(self, stream: &Stream, space: u32) -> Option<(Holder, Process)> {
        // CLOSE: pairs with the store in `Core::enter`.
        let holder = Holder::of(stream.region().word(self.at() + HOLDER).load(Acquire))?;
        let pid = match holder {
            Holder::Nobody => 0,
            Holder::Here(pid) | Holder::Left(pid) => pid,
        };
        // Relaxed: stored before the holder.
        let theirs = stream.region().word(self.at() + SPACE).load(Relaxed);
        Some((holder, Process { pid, is_elsewhere: theirs != u64::from(space) }))
    }
}

/// Looks in vain before the clock is read, and then again and again.
const LOOKS_BEFORE_CLOCK: u32 = 16;
const LOOKS_BETWEEN_CLOCKS: u32 = 64;

/// How long an end that finds nothing leaves the other one in peace, before it asks the kernel whether that one lives.
const PEACE: Duration = Duration::from_millis(10);

/// Says when an end that looks in vain should ask whether the other one lives.
#[derive(Debug, Default)]
pub struct Doubt {
    looks: u32,
    since: Option<Instant>,
}

impl Doubt {
    /// A look in vain: whether to ask now.
    pub fn grows(&mut self) -> bool {
        self.looks = self.looks.wrapping_add(1);
        let reads =
            self.looks == LOOKS_BEFORE_CLOCK || self.looks.is_multiple_of(LOOKS_BETWEEN_CLOCKS);
        if !reads {
            return false;
        }
        let now = Instant::now();
        let since = *self.since.get_or_insert(now);
        let asks = now.duration_since(since) >= PEACE;
        if asks {
            self.since = Some(now);
        }
        asks
    }

    /// Ask at the next look, and at every one behind it.
    pub fn is_grave(&mut self) {
        self.looks = LOOKS_BEFORE_CLOCK - 1;
        self.since = Instant::now().checked_sub(PEACE);
    }

    /// There was something.
    pub fn ends(&mut self) {
        *self = Self::default();
    }
}

/// One end of a channel, held by this process.
pub struct Core {
    stream: Stream,
    end: End,
    /// Nothing for a pair within this process.
    named: Option<Named>,
    pub loss: Loss,
    /// The mark at the end of the file.
    mark: u64,
    mine: Doze,
    theirs: Doze,
    /// The PID namespace of this process.
    space: u32,
    fork_epoch: u32,
}

impl Core {
    /// An end whose lock this process has.
    pub fn new(stream: Stream, end: End, named: Option<Named>, loss: Loss, mark: u64) -> Self {
        let doze = |end: End| Doze::new(stream.region().clone(), end.at() + SLEEP);
        let (mine, theirs) = (doze(end), doze(end.other()));
        Self {
            mine,
            theirs,
            stream,
            end,
            named,
            loss,
            mark,
            space: own_namespace(),
            fork_epoch: sys::fork_epoch(),
        }
    }

    /// Enters this process as the holder of the end.
    pub fn enter(&self) {
        // The bit of somebody who died asleep.
        self.mine.rise();
        if !sys::register_barrier() {
            // The other end cannot make this process pass a barrier.
            self.theirs.demand_fences();
        }
        let region = self.stream.region();
        region.word(self.end.at() + SPACE).store(u64::from(self.space), Relaxed);
        step!("channel.enter");
        // CLOSE: pairs with the load in `holder`.
        region.word(self.end.at() + HOLDER).store(Holder::Here(std::process::id()).word(), Release);
    }

    /// Lets others come and leave.
    pub fn unlock_builder(&self) {
        if let Some(named) = &self.named {
            named.unlock_builder();
        }
    }

    pub fn stream(&self) -> &Stream {
        &self.stream
    }

    /// What this channel is called, to show.
    pub fn name(&self) -> String {
        self.named.as_ref().map_or_else(|| "a pair".to_owned(), Named::to_string)
    }

    /// Whether this handle was inherited through `fork`.
    #[inline]
    pub fn is_forked(&self) -> bool {
        self.fork_epoch != sys::fork_epoch()
    }

    #[inline]
    fn holder(&self) -> Option<Holder> {
        // CLOSE: pairs with the store in `leave`.
        Holder::of(self.stream.region().word(self.end.other().at() + HOLDER).load(Acquire))
    }

    /// Whether the other end has left in order.
    #[inline]
    pub fn is_left(&self) -> bool {
        matches!(self.holder(), Some(Holder::Left(_)))
    }

    /// What is known about the other end; nothing if its word is damaged. Asks the kernel.
    pub fn peer(&self) -> Option<Peer> {
        loop {
            let (holder, Process { pid, is_elsewhere }) =
                self.end.other().found(&self.stream, self.space)?;
            let is_here = match holder {
                Holder::Nobody => return Some(Peer::Absent),
                Holder::Left(_) => return Some(Peer::Left),
                Holder::Here(_) => {
                    let named = self.named.as_ref();
                    named.is_none_or(|named| named.is_held(self.end.other().byte()))
                }
            };
            if is_here {
                return Some(Peer::Here { pid, is_elsewhere });
            }
            // It may have left between the two questions.
            if self.holder() == Some(holder) {
                return Some(Peer::Died { pid, is_elsewhere });
            }
        }
    }

    /// Notes a loss if the mark at the end of the file is gone.
    pub fn probe(&self) {
        self.loss.probe(self.stream.region().last(), self.mark);
    }

    /// Wakes the other end if it sleeps: after a commit, and after giving messages back.
    #[inline]
    pub fn nudge(&self) {
        if self.theirs.is_wanted() {
            self.rouse();
        }
    }

    #[cold]
    #[inline(never)]
    fn rouse(&self) {
        if self.theirs.rouse() {
            sys::futex_wake_all(self.theirs.futex());
        }
    }

    /// Sleeps until the other end wakes this one, `is_ready`, or `end`; never longer than the limit.
    pub fn sleep(&self, end: Option<Instant>, is_ready: impl FnOnce() -> bool) {
        let mut limit = Duration::from_millis(SLEEP_MS_MAX);
        if let Some(end) = end {
            limit = limit.min(end.saturating_duration_since(Instant::now()));
        }
        self.probe();
        self.mine.announce();
        // SLEEP: the other end passes this barrier before the look below.
        if !sys::barrier() {
            self.mine.demand_fences();
            crate::sync::fence(crate::sync::Ordering::SeqCst);
        }
        if let Some(ticket) = self.mine.ticket() {
            if !is_ready() && !self.is_left() && !self.loss.happened() {
                step!("doze.wait");
                sys::futex_wait(self.mine.futex(), ticket, limit);
            }
        }
        self.mine.rise();
    }

    /// Gives the end back, and removes the name if nobody needs it any more.
    fn leave(&self) {
        step!("channel.leave");
        let word = self.stream.region().word(self.end.at() + HOLDER);
        // CLOSE: pairs with the load in `holder`.
        word.store(Holder::Left(std::process::id()).word(), Release);
        self.nudge();
        let Some(named) = &self.named else { return };
        let is_alone = named.lock_builder(LEAVE_PATIENCE).unwrap_or(false);
        if is_alone && named.is_named().unwrap_or(false) && !self.is_needed(named) {
            step!("channel.unlink");
            if let Err(error) = named.unlink() {
                tracing::warn!(%error, "the name of a channel stays");
            }
        }
        step!("channel.unlock");
        named.unlock();
    }

    /// Whether somebody holds the other end, or may come to read what nobody has read.
    fn is_needed(&self, named: &Named) -> bool {
        if named.is_held(self.end.other().byte()) {
            return true;
        }
        let receiver = End::Receiver.found(&self.stream, self.space);
        let has_left = receiver.is_some_and(|(holder, _)| matches!(holder, Holder::Left(_)));
        !has_left && !self.loss.happened() && has_unread(&self.stream)
    }
}

/// Whether there is a message that nobody has read, or damage, which is not to vanish unseen.
pub fn has_unread(stream: &Stream) -> bool {
    stream.read().and_then(|read| stream.walk(read)).map_or(true, |(_, count)| count > 0)
}

impl Drop for Core {
    fn drop(&mut self) {
        if !self.is_forked() {
            self.leave();
        }
    }
}
