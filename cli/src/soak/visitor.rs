//! A visitor of the soak: joins at every kind of beginning, checks that it is the one that was asked
//! for, receives a little, holds a view, and leaves.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use windlass::{ErrorKind, Start, Topic};

use super::board::{Phase, Word};
use super::cells::Way;
use super::child::Child;
use super::ledger::{Begins, Bounds};
use super::parcel::Parcel;
use super::sabotage::Sabotage;
use super::subscriber::{Books, Look};

/// A visit is over after so many messages at the latest …
const MESSAGES_MAX: u64 = 600;
/// … or after this long.
const VISIT_MS_MAX: u64 = 100;
/// Between two visits.
const REST: Duration = Duration::from_millis(5);

/// Visits the topic again and again until the run is over.
pub fn run<P: Parcel>(child: &Child) -> Result<()> {
    let topic = child.cell().builder::<P>(&child.bus).open()?;
    // The newest message that it has seen.
    let mut newest = 0;
    while child.phase() == Phase::Run {
        let start = match child.below(4) {
            0 => Start::Latest,
            1 => Start::Oldest,
            2 => Start::Last(1 + child.below(200)),
            _ => Start::Sequence(u64::saturating_sub(newest, child.below(400))),
        };
        if let Some(mut books) = join(child, &topic, start)? {
            child.set(Word::Joined, 1);
            newest = stay(child, &mut books)?.unwrap_or(newest);
            child.set(Word::Joined, 0);
        }
        thread::sleep(REST);
    }
    Ok(())
}

/// Joins at `start`, if that is there.
fn join<'a, P: Parcel>(
    child: &'a Child,
    topic: &Topic<P>,
    start: Start,
) -> Result<Option<Books<'a, P>>> {
    let committed = child.committed();
    let subscriber = match topic.subscriber(start) {
        Ok(subscriber) => subscriber,
        Err(error) if error.kind() == ErrorKind::Limit => return Ok(None),
        // A sequence that is gone, or not there yet, is refused.
        Err(error) if error.kind() == ErrorKind::OutOfRange => {
            child.beat();
            return Ok(None);
        }
        Err(error) => bail!("cannot join at {start:?}: {error}"),
    };
    let options = &child.cell().options;
    let begins = match start {
        // A place of the order says nothing of the lanes.
        Start::Sequence(_) if options.ordered => Begins::Somewhere,
        _ => Begins::Later,
    };
    let wrong = u64::from(child.spoils(Sabotage::Sequence));
    let bound = |(committed, most): (u64, u64)| match start {
        Start::Latest => Bounds { least: committed, most },
        Start::Last(count) => Bounds { least: committed.saturating_sub(count), most },
        // Exactly there in every lane, but for those that were not born: they begin at 0.
        Start::Sequence(wanted) if committed == 0 => Bounds { least: 0, most: wanted },
        Start::Sequence(wanted) => Bounds { least: wanted + wrong, most: wanted + wrong },
        // Nobody asks for a time here.
        Start::Oldest | Start::Time(_) => Bounds { least: 0, most },
    };
    let bounds = committed.into_iter().zip(child.tried()).map(bound).collect();
    let mut books = Books::new(child, subscriber, begins, bounds);
    if let (Start::Sequence(wanted), true, false) = (start, options.ordered, options.lossy) {
        // Where there is one order and nothing is lost, the first message is known.
        books.expect_first(wanted);
    }
    Ok(Some(books))
}

/// Receives a little; the sequence of the last message.
fn stay<P: Parcel>(child: &Child, books: &mut Books<'_, P>) -> Result<Option<u64>> {
    let (messages, time) = (child.below(MESSAGES_MAX), child.below(VISIT_MS_MAX));
    let until = Instant::now() + Duration::from_millis(time);
    while books.received() < messages && Instant::now() < until && child.phase() == Phase::Run {
        if books.look(Way::Visit)? == Look::Evicted {
            break;
        }
    }
    books.check_lag();
    Ok(books.last_sequence())
}
