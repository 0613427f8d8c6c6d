//! A consumer of a queue in the soak: takes messages, waits in each way, gives some back, and writes into the docket of
//! their producer what it does with each.

use std::time::Duration;

use anyhow::{bail, Context, Result};
use nix::errno::Errno;
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use windlass::{Consumer, Job, Raw, TakeError, Wait};

use super::board::{Phase, Word};
use super::cells::Way;
use super::child::Child;
use super::docket::{Docket, HELD_MAX};
use super::record::Record;
use super::sabotage::Sabotage;

/// A worker without work looks this often whether the run is over.
const PATIENCE_MS: u16 = 100;
/// One message in so many is given back, if it is its first delivery.
const RETURN_EVERY: u64 = 100;
/// For so long at most.
const DELAY_MS_MAX: u64 = 20;
/// One message in so many takes its time, up to so long.
const LONG_EVERY: u64 = 32;
const LONG_MS_MAX: u64 = 12;
/// The message that is dealt with wrongly in a test of the test.
const SPOILED: u64 = 20;

/// Works until the queue is closed and nothing is left in it.
pub fn run(child: &Child, way: Way) -> Result<()> {
    let queue = child.cell().queue(&child.bus).open_existing()?;
    let mut consumer = queue.consumer()?;
    child.set(Word::Joined, 1);
    child.beat();
    while look(child, &mut consumer, way)? {
        child.beat();
    }
    let received = child.board.get(child.seat, Word::Received);
    child.say(&format!("settled {} {received} 0", consumer.slot()));
    while child.phase() != Phase::Leave {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(consumer);
    child.set(Word::Joined, 0);
    Ok(())
}

/// Looks for work once, and waits a little if there is none. `false` at the end of the queue.
fn look(child: &Child, consumer: &mut Consumer<Raw>, way: Way) -> Result<bool> {
    let wait = match way {
        Way::Descriptor => {
            let descriptor = consumer.descriptor()?;
            let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
            match poll(&mut wanted, PollTimeout::from(PATIENCE_MS)) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(error) => return Err(error).context("cannot poll"),
            }
            while let Some(job) = consumer.try_take().context("cannot take")? {
                work(child, job)?;
            }
            // Tells a queue that is empty from one that was closed.
            Wait::For(Duration::ZERO)
        }
        // A queue that is closed ends this.
        Way::Yield => Wait::Yield,
        _ => Wait::For(Duration::from_millis(PATIENCE_MS.into())),
    };
    match consumer.take(wait) {
        Ok(Some(job)) => work(child, job)?,
        Ok(None) => return Ok(false),
        Err(TakeError::TimedOut) => return Ok(true),
        Err(error) => bail!("cannot take: {error}"),
    }
    if way == Way::Batch {
        let jobs: Vec<_> = consumer.batch(HELD_MAX - 1).context("cannot take")?.collect();
        jobs.into_iter().try_for_each(|job| work(child, job))?;
    }
    Ok(true)
}

/// Does what is to be done with a message.
fn work(child: &Child, job: Job<'_, Raw>) -> Result<()> {
    let record = match Record::read(job.bytes()) {
        Ok((record, _)) if record.cell as usize == child.cell => record,
        Ok((record, _)) => bail!("{record:?} is of another cell"),
        Err(sentence) => {
            child.fault(sentence);
            return job.ack().context("cannot acknowledge");
        }
    };
    let (number, delivery) = (record.number, job.delivery());
    let docket = Docket::new(&child.board, record.lane as usize);
    let received = child.board.get(child.seat, Word::Received);
    if child.spoils(Sabotage::Shirk) && received == SPOILED {
        child.add(Word::Received, 1);
        return job.ack().context("cannot acknowledge");
    }
    child.check(docket.take(number, delivery));
    if delivery == 1 && child.below(RETURN_EVERY) == 0 {
        // Noted before it is done: then there are never more deliveries than reasons.
        child.add(Word::Rounds, 1);
        let returned = match child.below(3) {
            0 => job.nack(),
            1 => job.nack_after(Duration::from_millis(child.below(DELAY_MS_MAX))),
            _ => {
                drop(job);
                Ok(())
            }
        };
        return returned.context("cannot give back");
    }
    if child.below(LONG_EVERY) == 0 {
        // So that those who are killed have something.
        std::thread::sleep(Duration::from_millis(child.below(LONG_MS_MAX)));
    }
    child.check(docket.end(number, delivery));
    child.add(Word::Bytes, job.bytes().len() as u64);
    job.ack().context("cannot acknowledge")?;
    child.check(docket.done(number, delivery));
    if child.spoils(Sabotage::Redo) && received == SPOILED + 1 {
        child.check(docket.take(number, delivery));
    }
    child.add(Word::Received, 1);
    Ok(())
}
