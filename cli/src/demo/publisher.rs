//! A publisher of the demo: sends the recorded rows on both topics, at an even pace, until it is
//! told to stop.
//!
//! What a message carries follows from its sequence, and the sequence follows from the lane. So a
//! publisher needs no state of its own to go on where a killed one ended: it asks its lane where
//! that was.

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{anyhow, Context, Result};
use nix::sys::prctl::set_timerslack;
use windlass::schemas::reading_capnp::reading;
use windlass::{Bus, Publisher};

use super::data::DataSet;
use super::link::{self, Link};
use super::reading::{self as message, Stamp};
use super::report::{Figures, Order, Published, PublishedLane, Report};
use super::topics;
use crate::args::PublisherArguments;
use crate::clock;

/// A publisher wakes this often and sends what is due. Shorter is smoother, and costs more
/// wake-ups.
const TICK: Duration = Duration::from_micros(250);
/// With `--spoil` this message of each lane carries the row of the next one.
const SPOILED: u64 = 100;
/// At most this many rows are sent before orders are looked at again.
const BURST_MAX: u64 = 512;

/// `windlass demo-publisher`.
pub fn run(arguments: &PublisherArguments) -> Result<ExitCode> {
    link::run(arguments.child.parent, |link| publish(arguments, link))?;
    Ok(ExitCode::SUCCESS)
}

fn publish(arguments: &PublisherArguments, link: &mut Link) -> Result<Figures> {
    let data = DataSet::embedded()?;
    let bus = Bus::open(&arguments.child.bus)?;
    let mut lanes = topics::ALL
        .iter()
        .map(|topic| Lane::open(&bus, topic, arguments))
        .collect::<Result<Vec<_>>>()?;
    // The kernel may end sleeps 50 µs late by default, which would show as bursts. Not essential.
    let _ = set_timerslack(1);
    link.say(&Report::Ready)?;
    let mut pace = Schedule::starting(clock::now_ns(), arguments.rate);
    loop {
        for _ in 0..pace.due(clock::now_ns()).min(BURST_MAX) {
            for lane in &mut lanes {
                lane.publish(&data)?;
            }
            pace.done();
        }
        if let Some(Order::Stop) = link.order()? {
            return Ok(figures(&lanes));
        }
        link.progress(clock::now_ns(), || figures(&lanes))?;
        if pace.due(clock::now_ns()) == 0 {
            thread::sleep(TICK);
        }
    }
}

fn figures(lanes: &[Lane]) -> Figures {
    Figures::Publisher(Published { lanes: lanes.iter().map(|lane| lane.figures.clone()).collect() })
}

/// How many rows are due: `rate` a second since the start, made up for if it was hindered.
struct Schedule {
    start_ns: u64,
    rate: u64,
    sent: u64,
}

impl Schedule {
    fn starting(start_ns: u64, rate: u64) -> Self {
        Self { start_ns, rate, sent: 0 }
    }

    fn due(&self, now_ns: u64) -> u64 {
        let elapsed = u128::from(now_ns.saturating_sub(self.start_ns));
        let all = elapsed * u128::from(self.rate) / 1_000_000_000;
        (all as u64).saturating_sub(self.sent)
    }

    fn done(&mut self) {
        self.sent += 1;
    }
}

/// A publisher's place in one topic.
struct Lane {
    publisher: Publisher<reading::Owned>,
    source: u32,
    spoiled: Option<u64>,
    figures: PublishedLane,
}

impl Lane {
    fn open(bus: &Bus, topic: &str, arguments: &PublisherArguments) -> Result<Self> {
        let publisher = topics::builder(bus, topic).open()?.publisher()?;
        let next = publisher.sequence();
        let lane = Some(publisher.lane());
        let figures = PublishedLane { topic: topic.to_owned(), lane, first: next, next };
        let spoiled = arguments.spoil.then_some(SPOILED);
        Ok(Self { publisher, source: arguments.source, spoiled, figures })
    }

    fn publish(&mut self, data: &DataSet) -> Result<()> {
        let index = self.figures.next;
        let stamp = Stamp { source: self.source, published_ns: clock::now_ns() };
        let mut loan = self
            .publisher
            .loan_timeout(topics::FULL_FOR_MAX)
            .with_context(|| format!("cannot publish on {}", self.figures.topic))?;
        let row = data.row(index + u64::from(self.spoiled == Some(index)));
        message::write(loan.init_root(), stamp, row);
        let receipt =
            loan.publish().with_context(|| format!("cannot publish on {}", self.figures.topic))?;
        if receipt.sequence != index {
            let (topic, found) = (&self.figures.topic, receipt.sequence);
            return Err(anyhow!("message {index} of {topic} was published as {found}"));
        }
        self.figures.next = index + 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule_makes_up_for_lost_time() {
        let mut schedule = Schedule::starting(1_000, 1_000_000);
        assert_eq!(schedule.due(1_000), 0);
        assert_eq!(schedule.due(4_000), 3);
        schedule.done();
        assert_eq!(schedule.due(4_000), 2);
        assert_eq!(schedule.due(1_000_001_000), 999_999);
    }
}
