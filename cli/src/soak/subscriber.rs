//! A subscriber of the soak: receives in its way, compares every message with what it must be, and
//! at the end everything that was published with everything that it received and missed.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use windlass::{ErrorKind, Message, RecvError, Start, Subscriber, Topic, View, Wait};

use super::blocks::Folding;
use super::board::{Phase, Word};
use super::cells::Way;
use super::child::Child;
use super::ledger::{Begins, Bounds, Ledger};
use super::parcel::Parcel;
use super::record::Record;
use super::sabotage::Sabotage;
use crate::clock;

/// A subscriber that sleeps with a limit looks this often whether something else is to be done.
const IDLE: Duration = Duration::from_millis(20);
/// A slow subscriber takes this many messages …
const SLOW_MESSAGES: u64 = 100;
/// … and then rests for so long, while more arrive than its lanes keep.
const SLOW_REST: Duration = Duration::from_millis(60);
/// A stuck subscriber takes up to this many messages …
const STUCK_MESSAGES: u64 = 3_000;
/// … and then gets stuck for so long, and up to twice as long.
const STUCK_MS: u64 = 300;
/// Messages taken at a time.
const BATCH: usize = 48;
/// One message in so many is copied out of the mapping.
const COPY_EVERY: u64 = 64;
/// Views held at a time. Few: what is pinned is taken from the publishers.
const VIEWS_MAX: usize = 2;
/// One message in so many is held for a while.
const VIEW_EVERY: u64 = 40;
/// The message that is spoiled in a test of the test.
const SPOILED: u64 = 60;

/// How a look ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// Something came, or was reported.
    Some,
    /// Nothing was there.
    None,
    /// A publisher evicted this subscriber.
    Evicted,
}

/// Receives until the end of the run; whenever it is evicted, it joins anew.
pub fn run<P: Parcel>(child: &Child, way: Way) -> Result<()> {
    let topic = child.cell().builder::<P>(&child.bus).open()?;
    // Whoever has the seat first is there before the first publisher.
    let mut begins = match child.generation {
        0 => Begins::AtBirth,
        _ => Begins::Later,
    };
    loop {
        let mut books = Books::join(child, &topic, begins)?;
        child.set(Word::Joined, 1);
        while !books.evicted {
            books.look(way)?;
            if books.is_settled()? {
                return books.settle();
            }
        }
        child.set(Word::Joined, 0);
        begins = Begins::Later;
    }
}

/// A subscriber and everything that it writes down.
pub struct Books<'a, P: Parcel> {
    child: &'a Child,
    subscriber: Subscriber<P>,
    pages: Pages<'a, P>,
    stuck_at: u64,
    quiet: bool,
    evicted: bool,
}

/// What it writes down of a message, apart from the subscriber that a message borrows.
struct Pages<'a, P: Parcel> {
    child: &'a Child,
    ledger: Ledger,
    folding: Folding,
    ordered: bool,
    views: VecDeque<(View<P>, u32, u64)>,
    holds: bool,
    /// Messages that were delivered, whether or not they are in the books.
    delivered: u64,
    last: Option<u64>,
}

impl<'a, P: Parcel> Books<'a, P> {
    /// Joins from the beginning, or with what is published from now on.
    pub fn join(child: &'a Child, topic: &Topic<P>, begins: Begins) -> Result<Self> {
        let start = match begins {
            Begins::AtBirth => Start::Oldest,
            _ => Start::Latest,
        };
        let committed = child.committed();
        let subscriber = loop {
            match topic.subscriber(start) {
                Ok(subscriber) => break subscriber,
                // Stopped processes may hold the rest of the slots.
                Err(error) if error.kind() == ErrorKind::Limit => {
                    thread::sleep(Duration::from_millis(1));
                }
                Err(error) => return Err(error).context("cannot join as a subscriber"),
            }
        };
        let bounds = committed
            .into_iter()
            .zip(child.tried())
            .map(|(least, most)| Bounds { least, most })
            .collect();
        Ok(Self::new(child, subscriber, begins, bounds))
    }

    /// Books for a subscriber that has just joined.
    pub fn new(
        child: &'a Child,
        subscriber: Subscriber<P>,
        begins: Begins,
        bounds: Vec<Bounds>,
    ) -> Self {
        let options = &child.cell().options;
        let ledger = Ledger::new(child.cell, (options.lossy, options.ordered), begins, bounds);
        child.add(Word::Rounds, 1);
        child.beat();
        let pages = Pages {
            child,
            ledger,
            folding: Folding::default(),
            ordered: options.ordered,
            views: VecDeque::new(),
            holds: false,
            delivered: 0,
            last: None,
        };
        Self { child, subscriber, pages, stuck_at: SPOILED, quiet: false, evicted: false }
    }

    /// Receives a little, in this way.
    pub fn look(&mut self, way: Way) -> Result<Look> {
        self.pages.holds = matches!(way, Way::Views | Way::Visit);
        self.quiet = self.child.phase() >= Phase::Last;
        if self.quiet {
            // Whoever is to see the end must not wait for one more message.
            return self.receive(Wait::For(IDLE));
        }
        if self.child.spoils(Sabotage::Wedge) && self.pages.ledger.received() > SPOILED {
            thread::sleep(IDLE);
            return Ok(Look::None);
        }
        let crashes = self.child.spoils(Sabotage::Crash) && self.child.generation == 0;
        if crashes && self.pages.ledger.received() > SPOILED {
            std::process::abort();
        }
        match way {
            Way::Visit => self.receive(Wait::For(IDLE)),
            Way::Block | Way::Views => self.receive(Wait::Block),
            Way::Yield => self.receive(Wait::Yield),
            Way::Batch => self.receive_batch(),
            Way::Descriptor => self.receive_by_descriptor(),
            Way::Mixed => match self.pages.ledger.received() / 64 % 5 {
                0 => self.receive(Wait::Spin),
                1 => self.receive(Wait::Yield),
                2 => self.receive(Wait::Block),
                3 => self.receive_batch(),
                _ => self.receive(Wait::For(IDLE)),
            },
            Way::Slow => {
                if self.pages.ledger.received() % SLOW_MESSAGES == SLOW_MESSAGES - 1 {
                    thread::sleep(SLOW_REST);
                }
                self.receive(Wait::For(IDLE))
            }
            Way::Stuck => {
                if self.pages.ledger.received() >= self.stuck_at {
                    self.stuck_at += self.child.below(STUCK_MESSAGES);
                    thread::sleep(Duration::from_millis(STUCK_MS + self.child.below(STUCK_MS)));
                }
                self.receive(Wait::For(IDLE))
            }
        }
    }

    /// One message, or the news that there is none.
    pub fn receive(&mut self, wait: Wait) -> Result<Look> {
        let before = self.evictable();
        let error = match self.subscriber.recv(wait) {
            Ok(Some(message)) => {
                self.pages.take(&message);
                return Ok(Look::Some);
            }
            Ok(None) => bail!("the topic was closed, and nobody closes it"),
            Err(error) => error,
        };
        self.note(error, before)
    }

    fn receive_batch(&mut self) -> Result<Look> {
        let before = self.evictable();
        let received = self.received();
        let refused = match self.subscriber.batch(BATCH) {
            Ok(batch) => {
                batch.for_each(|message| self.pages.take(&message));
                None
            }
            Err(error) => Some(error),
        };
        match refused {
            Some(error) => self.note(error, before),
            None if self.received() > received => Ok(Look::Some),
            None => self.receive(Wait::For(IDLE)),
        }
    }

    fn receive_by_descriptor(&mut self) -> Result<Look> {
        let descriptor = self.subscriber.descriptor()?;
        let patience = PollTimeout::from(IDLE.as_millis() as u16);
        poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], patience)
            .context("cannot poll the descriptor of a subscriber")?;
        let mut look = Look::None;
        // Not for ever: there is the end of the run to look for.
        for _ in 0..BATCH {
            match self.try_receive()? {
                Look::Some => look = Look::Some,
                Look::None => break,
                Look::Evicted => return Ok(Look::Evicted),
            }
        }
        Ok(look)
    }

    /// A message that is there now.
    fn try_receive(&mut self) -> Result<Look> {
        let before = self.evictable();
        let error = match self.subscriber.try_recv() {
            Ok(Some(message)) => {
                self.pages.take(&message);
                return Ok(Look::Some);
            }
            Ok(None) => return Ok(Look::None),
            Err(error) => error,
        };
        self.note(error, before)
    }

    /// On a topic that evicts: how much there is at least.
    fn evictable(&self) -> u64 {
        match self.child.cell().options.evict_after_ms {
            0 => 0,
            _ => self.child.committed().iter().sum(),
        }
    }

    /// Enters what was told instead of a message.
    fn note(&mut self, error: RecvError, committed: u64) -> Result<Look> {
        let Self { child, pages, .. } = self;
        match error {
            RecvError::TimedOut => return Ok(Look::None),
            RecvError::Lagged { missed } if child.spoils(Sabotage::Silence) => {
                child.set(Word::Missed, pages.ledger.missed() + missed);
            }
            RecvError::Lagged { missed } => {
                let wrong = u64::from(child.spoils(Sabotage::Missed));
                child.check(pages.ledger.lagged(missed + wrong));
                child.add(Word::Missed, missed);
            }
            RecvError::Evicted { missed } if child.cell().options.evict_after_ms > 0 => {
                self.evicted(missed, committed);
                return Ok(Look::Evicted);
            }
            error => bail!("cannot receive: {error}"),
        }
        child.beat();
        Ok(Look::Some)
    }

    /// It was told that it was evicted: the number of messages must be exact.
    fn evicted(&mut self, missed: u64, committed: u64) {
        let child = self.child;
        self.evicted = true;
        let missed = missed + if child.spoils(Sabotage::Evicted) { 1_000_000 } else { 0 };
        let tried: u64 = child.tried().iter().sum();
        let (least, most) = self.pages.ledger.position();
        if most + missed < committed || least + missed > tried {
            child.fault(format!(
                "a subscriber that was evicted at {least} to {most} was told that it missed \
                 {missed}; between {committed} and {tried} were published"
            ));
        }
        let again = self.subscriber.try_recv().map(|message| message.is_some());
        if again != Err(RecvError::Evicted { missed }) {
            child.fault(format!("after an eviction with {missed} missed it was told {again:?}"));
        }
        if !child.spoils(Sabotage::Untold) {
            child.add(Word::Evicted, 1);
        }
        child.add(Word::Missed, missed);
        child.beat();
    }

    /// Whether everything is read that ever will be.
    fn is_settled(&mut self) -> Result<bool> {
        // The phase was looked at before the look that found nothing.
        if self.evicted || !self.quiet || self.child.phase() < Phase::Settle {
            return Ok(false);
        }
        loop {
            match self.try_receive()? {
                Look::Some => {}
                Look::None => return Ok(true),
                // It joins anew, and is settled then.
                Look::Evicted => return Ok(false),
            }
        }
    }

    /// The end: compares the books, says so, and stays until it is told to leave.
    fn settle(mut self) -> Result<()> {
        let child = self.child;
        self.pages.views.clear();
        for fault in self.pages.ledger.settle(&child.committed()) {
            child.fault(fault);
        }
        let (slot, received) = (self.subscriber.slot(), self.subscriber.received());
        let missed = self.subscriber.missed();
        let books = (self.pages.ledger.received(), self.pages.ledger.missed());
        if (received, missed) != books {
            child.fault(format!("the handle counts {received} and {missed}, the books {books:?}"));
        }
        child.say(&format!("settled {slot} {received} {missed}"));
        while child.phase() < Phase::Leave {
            thread::sleep(Duration::from_millis(2));
        }
        drop(self);
        child.set(Word::Joined, 0);
        Ok(())
    }

    /// The first message must be this one.
    pub fn expect_first(&mut self, sequence: u64) {
        self.pages.ledger.expect_place(sequence);
    }

    /// What the handle says of how far it is behind must lie between what is known.
    pub fn check_lag(&self) {
        let child = self.child;
        // What it missed and was not told of is neither behind it nor in its books.
        if child.cell().options.lossy || self.evicted || !self.pages.ledger.knows_all_lanes() {
            return;
        }
        let committed: u64 = child.committed().iter().sum();
        let lag = self.subscriber.lag();
        let tried: u64 = child.tried().iter().sum();
        let (least, most) = self.pages.ledger.position();
        if most + lag < committed || least + lag > tried {
            child.fault(format!(
                "a subscriber at {least} to {most} is said to be {lag} behind; between {committed} \
                 and {tried} were published"
            ));
        }
    }

    /// The sequence of the last message.
    pub fn last_sequence(&self) -> Option<u64> {
        self.pages.last
    }

    /// Messages received.
    pub fn received(&self) -> u64 {
        self.pages.ledger.received()
    }
}

impl<P: Parcel> Pages<'_, P> {
    /// Compares a message with what it must be.
    fn take(&mut self, message: &Message<'_, P>) {
        let child = self.child;
        let (lane, sequence) = (message.lane(), message.sequence());
        let read = P::open(message).and_then(|bytes| Ok((Record::read(bytes)?, bytes.len())));
        let ((record, check), len) = match read {
            Ok(read) => read,
            Err(sentence) => {
                return child.fault(format!("lane {lane}, message {sequence}: {sentence}"));
            }
        };
        self.delivered += 1;
        let trickles = child.spoils(Sabotage::Trickle) && child.phase() == Phase::Run;
        if trickles && self.delivered > SPOILED {
            thread::sleep(IDLE);
        }
        let spoiled = self.delivered == SPOILED;
        if spoiled && child.spoils(Sabotage::Lose) {
            return;
        }
        let shown = match spoiled && child.spoils(Sabotage::Order) {
            true => check ^ 1,
            false => check,
        };
        child.check(self.ledger.take(&record, lane, sequence));
        if spoiled && child.spoils(Sabotage::Twice) {
            child.check(self.ledger.take(&record, lane, sequence));
        }
        if self.ordered {
            if let Some((block, fold)) = self.folding.fold(sequence, lane, shown) {
                child.say(&format!("fold {block} {fold}"));
            }
        }
        if self.delivered.is_multiple_of(COPY_EVERY) {
            child.check(P::copy(message));
        }
        if self.holds && self.delivered.is_multiple_of(VIEW_EVERY) {
            self.hold(message.pin(), check);
        }
        self.last = Some(sequence);
        self.noted(&record, len);
    }

    /// Tells the board that a message came.
    fn noted(&self, record: &Record, len: usize) {
        let Child { board, seat, cell, .. } = self.child;
        let now_ns = clock::now_ns();
        let deaths = board.deaths(*cell);
        let lane = record.lane as usize;
        // A reader that is behind goes on with what is new, not with what it had left to read.
        let news = || {
            let exists = lane < self.child.cell().lanes();
            exists && board.is_news(*cell, lane, record.lane_sequence)
        };
        if deaths != board.get(*seat, Word::Answered) && news() {
            board.set(*seat, Word::AnsweredNs, now_ns);
            board.set(*seat, Word::Answered, deaths);
        }
        board.add(*seat, Word::Received, 1);
        board.add(*seat, Word::Bytes, len as u64);
        board.set(*seat, Word::Beat, now_ns);
    }

    /// Holds a view for as long as there are no newer ones, and compares it again then.
    fn hold(&mut self, view: View<P>, check: u32) {
        self.views.push_back((view, check, clock::now_ns()));
        if self.views.len() <= VIEWS_MAX {
            return;
        }
        let Some((view, check, since_ns)) = self.views.pop_front() else { return };
        let child = self.child;
        let expected = check ^ u32::from(child.spoils(Sabotage::View));
        let weak = view.downgrade();
        let same = |view: &View<P>| {
            let (_, found) = Record::read(P::open_view(view)?)?;
            match found == expected {
                true => Ok(()),
                false => Err(format!("checksum {found:x} was {expected:x} when it came")),
            }
        };
        let held = Duration::from_nanos(clock::now_ns() - since_ns);
        if let Err(sentence) = same(&view) {
            child.fault(format!("a view changed while it was held for {held:?}: {sentence}"));
        }
        drop(view);
        // Nobody keeps it now. It may be gone, but it cannot be another.
        if let Some(Err(sentence)) = weak.upgrade().map(|view| same(&view)) {
            child.fault(format!("a weak view came back as another message: {sentence}"));
        }
        child.add(Word::Views, 1);
    }
}
