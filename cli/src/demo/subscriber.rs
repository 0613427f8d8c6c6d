//! A subscriber of the demo: compares every message with the recorded row that it must be, until
//! the topic is closed and drained.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use hdrhistogram::Histogram;
use windlass::schemas::reading_capnp::reading;
use windlass::{Bus, Message, RecvError, Start, Subscriber, Wait};

use super::data::DataSet;
use super::ledger::{Begins, Ledger};
use super::link::{self, Link};
use super::report::{Figures, Latency, Order, Received, Report};
use super::timeline::Timeline;
use super::{reading as message, topics};
use crate::args::{Pace, SubscriberArguments};
use crate::clock;

/// A subscriber that sleeps is woken by a message; this long it sleeps if there is none.
const IDLE: Duration = Duration::from_millis(20);
/// A napping subscriber looks this often …
const NAP: Duration = Duration::from_millis(50);
/// … and takes this many messages a look: far fewer than arrive meanwhile, so it is lapped.
const NAP_MESSAGES_MAX: u64 = 1_000;
/// Orders and the clock for reports are looked at once in this many messages.
const LOOK_MESSAGES: u64 = 64;
/// A message that took longer than a minute counts as a minute.
const LATENCY_NS_MAX: u64 = 60_000_000_000;
/// Two digits are plenty for a table, and cheap enough to evaluate while messages arrive.
const LATENCY_DIGITS: u8 = 2;

/// `windlass demo-subscriber`.
pub fn run(arguments: &SubscriberArguments) -> Result<ExitCode> {
    link::run(arguments.child.parent, |link| receive(arguments, link))?;
    Ok(ExitCode::SUCCESS)
}

fn receive(arguments: &SubscriberArguments, link: &mut Link) -> Result<Figures> {
    let data = DataSet::embedded()?;
    let bus = Bus::open(&arguments.child.bus)?;
    let topic = topics::builder(&bus, &arguments.topic).open()?;
    let start = if arguments.late { Start::Latest } else { Start::Oldest };
    let mut subscriber = topic.subscriber(start)?;
    link.say(&Report::Ready)?;
    let mut books = Books::new(&data, arguments)?;
    loop {
        let open = take(&mut subscriber, arguments.pace, &mut books)?;
        while let Some(order) = link.order()? {
            if let (Order::Killed { at_ns }, true) = (order, arguments.pace != Pace::Nap) {
                // A nap is longer than any pause that a kill could cause.
                books.timeline.kill(at_ns);
            }
        }
        if !open {
            books.timeline.settle();
            return Ok(books.figures());
        }
        link.progress(clock::now_ns(), || books.figures())?;
    }
}

/// Receives a few messages at the pace asked for; `false` once the topic is closed and drained.
fn take(
    subscriber: &mut Subscriber<reading::Owned>,
    pace: Pace,
    books: &mut Books<'_>,
) -> Result<bool> {
    let wait = match pace {
        Pace::Spin => Wait::Spin,
        Pace::Yield => Wait::Yield,
        Pace::Block => Wait::For(IDLE),
        Pace::Nap => {
            thread::sleep(NAP);
            Wait::For(Duration::ZERO)
        }
    };
    for _ in 0..if pace == Pace::Nap { NAP_MESSAGES_MAX } else { LOOK_MESSAGES } {
        match subscriber.recv(wait) {
            Ok(Some(message)) => books.received(&message),
            Ok(None) | Err(RecvError::Closed) => return Ok(false),
            Err(RecvError::Lagged { missed }) => books.ledger.missed(missed),
            Err(RecvError::TimedOut) => break,
            Err(error) => return Err(anyhow!("cannot receive: {error}")),
        }
    }
    Ok(true)
}

/// Everything that a subscriber writes down.
struct Books<'a> {
    data: &'a DataSet,
    ledger: Ledger,
    timeline: Timeline,
    latency: Histogram<u64>,
    first_ns: Option<u64>,
    last_ns: u64,
    first_of: Vec<(u32, u64)>,
}

impl<'a> Books<'a> {
    fn new(data: &'a DataSet, arguments: &SubscriberArguments) -> Result<Self> {
        let begins = if arguments.late { Begins::AnyWhere } else { Begins::AtBirth };
        Ok(Self {
            data,
            ledger: Ledger::new(begins, arguments.topic == topics::LOSSY),
            timeline: Timeline::new(),
            latency: Histogram::new_with_max(LATENCY_NS_MAX, LATENCY_DIGITS)
                .context("cannot make a histogram")?,
            first_ns: None,
            last_ns: 0,
            first_of: Vec::new(),
        })
    }

    fn received(&mut self, message: &Message<'_, reading::Owned>) {
        let now_ns = clock::now_ns();
        self.first_ns.get_or_insert(now_ns);
        self.last_ns = now_ns;
        self.timeline.arrived(now_ns);
        let (lane, sequence) = (message.lane(), message.sequence());
        self.ledger.received(lane, sequence);
        let verdict = message
            .get()
            .map_err(|error| format!("message {sequence} cannot be read: {error}"))
            .and_then(|reading| message::check(reading, sequence, self.data.row(sequence)));
        match verdict {
            Ok(stamp) => {
                self.latency.saturating_record(now_ns.saturating_sub(stamp.published_ns));
                if !self.first_of.iter().any(|(source, _)| *source == stamp.source) {
                    self.first_of.push((stamp.source, now_ns));
                }
            }
            Err(sentence) => self.ledger.fault(format!("lane {lane}: {sentence}")),
        }
    }

    fn figures(&self) -> Figures {
        let at = |quantile| self.latency.value_at_quantile(quantile);
        Figures::Subscriber(Received {
            tally: self.ledger.tally().clone(),
            latency: Latency {
                p50_ns: at(0.5),
                p99_ns: at(0.99),
                p99_9_ns: at(0.999),
                max_ns: self.latency.max(),
            },
            active_ns: self.last_ns - self.first_ns.unwrap_or(self.last_ns),
            first_of: self.first_of.clone(),
            pauses: self.timeline.pauses().to_vec(),
        })
    }
}
