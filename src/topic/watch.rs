//! A descriptor that becomes readable when there is something to read, for `epoll`, `poll` and event loops: of the
//! subscriber of a topic, or the consumer of a queue.
//!
//! Publishers know only the futex of the topic. A thread of the waiting process sleeps on it in the place of the
//! subscriber and writes to an event descriptor when it wakes. It runs only for those who asked for a descriptor.
//!
//! The thread is *armed* by the look that found nothing: the subscriber clears the descriptor, announces itself as a
//! sleeper, passes the barrier, looks once more, and hands the ticket over. So no message falls in between, for the
//! reasons that [`wake`](crate::ring::wake) gives. As every sleep of windlass this one is bounded: whatever happened to
//! a publisher between its commit and its wake, the thread looks again by itself.

use crate::error::{Error, ErrorKind, Result};
use crate::limits::SLEEP_MS_MAX;
use crate::ring::bells::Bells;
use crate::ring::lane::Lane;
use crate::ring::order::{Found, Order};
use crate::ring::slots::Slots;
use crate::ring::wake::Bell;
use crate::shm::{map, sys};
use crate::sync::{fence, AtomicU32, Ordering::Acquire, Ordering::SeqCst};
use crate::topic::payload::Payload;
use crate::topic::subscriber::Subscriber;
use nix::sys::eventfd::{EfdFlags, EventFd};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// Bytes of the stack of the thread, which calls little and is never deep.
const STACK_BYTES: usize = 256 << 10;

/// Whether there is something to read or to be told, as a thread without a cursor can tell.
pub type Ready = Box<dyn Fn() -> bool + Send>;

enum State {
    /// The subscriber has not looked since the descriptor became readable.
    Idle,
    /// Nothing was there; wake up when the futex is not `ticket` any more.
    Armed { ticket: u32, ready: Ready },
    /// The subscriber is gone.
    Ended,
}

/// Where the thread sleeps.
pub enum Place {
    /// On the word of all subscribers of a topic, for this slot.
    Common(Bell, Slots, usize),
    /// On the word of this consumer slot.
    Own(Bells, usize),
}

impl Place {
    fn futex(&self) -> &AtomicU32 {
        match self {
            Self::Common(bell, ..) => bell.futex(),
            Self::Own(bells, slot) => bells.slots().futex(*slot),
        }
    }

    fn announce(&self) {
        match self {
            Self::Common(bell, slots, slot) => bell.announce(slots, *slot),
            Self::Own(bells, slot) => bells.announce(*slot),
        }
    }

    fn ticket(&self) -> Option<u32> {
        match self {
            Self::Common(bell, slots, slot) => bell.ticket(slots, *slot),
            Self::Own(bells, slot) => bells.ticket(*slot),
        }
    }

    fn rise(&self) {
        match self {
            Self::Common(bell, slots, slot) => bell.rise(slots, *slot),
            Self::Own(bells, slot) => bells.rise(*slot),
        }
    }

    fn demand_fences(&self) {
        match self {
            Self::Common(bell, ..) => bell.demand_fences(),
            Self::Own(bells, _) => bells.hint().demand_fences(),
        }
    }
}

struct Shared {
    place: Place,
    event: EventFd,
    state: Mutex<State>,
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn signal(&self) {
        // It fails only if the counter is full, and then it is readable anyway.
        let _ = self.event.write(1);
    }

    /// The thread: sleeps in the subscriber's place.
    fn run(&self) {
        let limit = Duration::from_millis(SLEEP_MS_MAX);
        let futex = self.place.futex();
        loop {
            let mut state = self.state();
            let ticket = loop {
                match &*state {
                    State::Ended => return,
                    State::Armed { ticket, .. } => break *ticket,
                    State::Idle => {
                        state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                    }
                }
            };
            drop(state);
            sys::futex_wait(futex, ticket, limit);
            let mut state = self.state();
            if let State::Armed { ticket, ready } = &*state {
                // WAKE: pairs with `Bell::wake` and `Bells::wake`.
                if futex.load(Acquire) != *ticket || ready() {
                    *state = State::Idle;
                    self.signal();
                }
            }
        }
    }
}

/// The descriptor of one subscriber or consumer and the thread behind it.
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    fork_epoch: u32,
}

impl Watch {
    /// A descriptor that is readable until somebody has looked. `whose` says for errors who asked for it.
    pub fn new(place: Place, whose: impl std::fmt::Display) -> Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(1, flags).map_err(|error| {
            Error::io(format!("cannot make a descriptor for {whose}"), error.into())
        })?;
        let cannot = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Limit,
                format!(
                    "cannot start the thread behind the descriptor of {whose} ({error}): this user \
                     may not have another thread (ulimit -u), or this process has no memory for \
                     its stack (ulimit -v); raise the limit, or use recv or take, which need no \
                     thread"
                ),
            )
        };
        // A thread that finds no memory while it starts ends the process. So it is asked for before.
        map::try_to_map(2 * STACK_BYTES).map_err(|error| cannot(&error))?;
        let (state, changed) = (Mutex::new(State::Idle), Condvar::new());
        let shared = Arc::new(Shared { place, event, state, changed });
        let builder = std::thread::Builder::new().name("windlass-watch".into());
        let thread = builder.stack_size(STACK_BYTES).spawn({
            let shared = shared.clone();
            move || {
                sys::let_faults_in();
                shared.run();
            }
        });
        let thread = thread.map_err(|error| cannot(&error))?;
        Ok(Self { shared, thread: Some(thread), fork_epoch: sys::fork_epoch() })
    }

    /// The descriptor.
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }

    /// After a look that found nothing: not readable any more, and the thread waits, unless `is_ready` says by now that
    /// there is something. `hint` makes what the thread asks from time to time.
    pub fn arm(&self, is_ready: impl FnOnce() -> bool, hint: impl FnOnce() -> Ready) {
        let place = &self.shared.place;
        // It fails if it was not readable.
        let _ = self.shared.event.read();
        place.announce();
        // SLEEP: every publisher passes this barrier before the look below.
        if !sys::barrier() {
            place.demand_fences();
            fence(SeqCst);
        }
        match place.ticket() {
            Some(ticket) if !is_ready() => {
                *self.shared.state() = State::Armed { ticket, ready: hint() };
                self.shared.changed.notify_one();
            }
            _ => {
                place.rise();
                self.shared.signal();
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if self.fork_epoch != sys::fork_epoch() {
            // A child of fork has no such thread, and nobody to unlock what it may have locked.
            std::mem::forget(self.thread.take());
            return;
        }
        *self.shared.state() = State::Ended;
        self.shared.changed.notify_one();
        // The thread may be about to sleep on the futex: then this waits for the limit of a sleep.
        sys::futex_wake_all(self.shared.place.futex());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl<T: Payload> Subscriber<T> {
    /// A descriptor that is readable when there may be something to read: for `epoll`, `poll` and event loops.
    ///
    /// Wait until it is readable, then call [`try_recv`](Self::try_recv) or [`batch`](Self::batch) until there is
    /// nothing left; the look that finds nothing makes it unreadable again. It is level-triggered, readable from the
    /// beginning, and now and then readable though nothing is there. Do not read from it. It becomes readable for a
    /// message, for a loss that is to be reported, and when the topic is closed.
    ///
    /// A thread of this process waits in the subscriber's place, so this takes some microseconds longer than
    /// [`recv`](Self::recv) with [`Wait::Block`](crate::Wait::Block). It ends with the subscriber.
    ///
    /// # Errors
    ///
    /// `Limit` or `Io` if there is no descriptor or thread left; `Forked` in a child of `fork`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    /// use windlass::{Bus, Raw, Start};
    ///
    /// let bus = Bus::anonymous()?;
    /// let topic = bus.topic::<Raw>("events").open()?;
    /// let mut subscriber = topic.subscriber(Start::Latest)?;
    /// let mut publisher = topic.publisher()?;
    /// publisher.publish(b"ready")?;
    ///
    /// let descriptor = subscriber.descriptor()?;
    /// poll(&mut [PollFd::new(descriptor, PollFlags::POLLIN)], PollTimeout::NONE)?;
    /// while let Some(message) = subscriber.try_recv()? {
    ///     assert_eq!(message.bytes(), b"ready");
    /// }
    /// # Ok(()) }
    /// ```
    pub fn descriptor(&mut self) -> Result<BorrowedFd<'_>> {
        self.core.member.check_process()?;
        let watch = match self.watch.take() {
            Some(watch) => watch,
            None => {
                let whose = format_args!("a subscriber of {}", self.core.folder);
                let (bell, slots) = (self.core.bell.clone(), self.core.slots.clone());
                Watch::new(Place::Common(bell, slots, self.claimed.slot), whose)?
            }
        };
        Ok(self.watch.insert(watch).descriptor())
    }

    /// After a look that found nothing: lets the thread wait for the next message.
    #[cold]
    pub(super) fn arm_watch(&mut self) {
        let Some(watch) = &self.watch else { return };
        let is_ready = || self.is_ready() || self.core.is_closed();
        watch.arm(is_ready, || self.hint());
    }

    /// What the thread asks from time to time: whether a look would find something.
    fn hint(&self) -> Ready {
        let (core, claimed, born) = (self.core.clone(), self.claimed, self.born_seen);
        let lanes: Vec<_> = self.lanes.iter().map(|cursor| cursor.reader.lane().clone()).collect();
        let log = self.order.as_ref().map(|(order, _)| order.clone());
        let changed = move || {
            core.probe(lanes.iter().map(Lane::last));
            core.probe(log.iter().map(Order::last));
            let lost = core.loss.happened();
            let told = lost || core.is_closed();
            told || core.born_count() != born || !core.slots.is_active(claimed)
        };
        match &self.order {
            Some((order, index)) => {
                let (order, index) = (order.clone(), index.get());
                Box::new(move || changed() || order.read(index) != Found::Empty)
            }
            None => {
                let hints: Vec<_> = self.lanes.iter().map(|cursor| cursor.reader.hint()).collect();
                Box::new(move || changed() || hints.iter().any(|hint| hint()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{Bus, Publisher, Raw, RecvError, Start, Subscriber, Topic};
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};

    fn pair(ordered: bool) -> (Topic<Raw>, Publisher<Raw>, Subscriber<Raw>) {
        let bus = Bus::anonymous().expect("there is memory");
        let builder = bus.topic::<Raw>("events");
        let builder = if ordered { builder.ordered() } else { builder };
        let topic = builder.open().expect("a fresh topic");
        let publisher = topic.publisher().expect("a free lane");
        let subscriber = topic.subscriber(Start::Latest).expect("a free slot");
        (topic, publisher, subscriber)
    }

    fn is_readable(subscriber: &mut Subscriber<Raw>, limit: PollTimeout) -> bool {
        let descriptor = subscriber.descriptor().expect("there are descriptors");
        let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
        poll(&mut wanted, limit).expect("polling works") == 1
    }

    /// Looks until nothing is left and the descriptor says so; returns what was there.
    fn drain(subscriber: &mut Subscriber<Raw>) -> u64 {
        let mut count = 0;
        while is_readable(subscriber, PollTimeout::ZERO) {
            while subscriber.try_recv().expect("sound").is_some() {
                count += 1;
            }
        }
        count
    }

    #[test]
    fn a_descriptor_is_readable_for_every_message_and_not_without() {
        for ordered in [false, true] {
            let (_topic, mut publisher, mut subscriber) = pair(ordered);
            assert_eq!(drain(&mut subscriber), 0);
            for round in 1..=200u64 {
                let copies = 1 + round % 3;
                let sent = std::thread::scope(|scope| {
                    let sender = scope.spawn(|| {
                        (0..copies).for_each(|_| {
                            publisher.publish(b"x").expect("it is read");
                        });
                    });
                    let mut received = 0;
                    while received < copies {
                        assert!(is_readable(&mut subscriber, PollTimeout::from(5000u16)), "woken");
                        while subscriber.try_recv().expect("sound").is_some() {
                            received += 1;
                        }
                    }
                    sender.join().expect("it does not panic");
                    received
                });
                assert_eq!(sent, copies);
                assert_eq!(drain(&mut subscriber), 0);
            }
        }
    }

    #[test]
    fn a_descriptor_is_readable_when_the_topic_is_closed() {
        let (topic, _publisher, mut subscriber) = pair(false);
        assert_eq!(drain(&mut subscriber), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| topic.close());
            assert!(is_readable(&mut subscriber, PollTimeout::from(5000u16)));
        });
        assert_eq!(subscriber.try_recv().err(), Some(RecvError::Closed));
    }

    #[test]
    fn a_descriptor_is_readable_for_a_publisher_that_came_later() {
        let (topic, first, mut subscriber) = pair(false);
        assert_eq!(drain(&mut subscriber), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut second = topic.publisher().expect("a free lane");
                second.publish(b"news").expect("room");
            });
            let mut received = 0;
            while received == 0 {
                assert!(is_readable(&mut subscriber, PollTimeout::from(5000u16)));
                received += drain(&mut subscriber);
            }
            assert_eq!(received, 1);
        });
        drop(first);
    }
}
