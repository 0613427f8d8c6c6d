//! A producer of the soak: enters messages in a queue at an even pace, each with a line in its docket.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{bail, Result};
use windlass::{EnqueueError, Producer, Raw};

use super::board::{Phase, Word};
use super::cells::{seats, Job};
use super::child::Child;
use super::docket::Docket;
use super::record::{Author, Record, HEAD_BYTES};

/// A producer that finds no room looks this often whether the run is over.
const PATIENCE: Duration = Duration::from_millis(100);
/// Small messages have up to so many bytes besides their head, large ones up to so many.
const SMALL_BYTES: u64 = 400;
const LARGE_BYTES: u64 = 4_000;
/// One message in so many comes after a loan that is dropped.
const DROP_EVERY: u64 = 16;

/// Which of the producers of its cell has this seat: the number of its docket.
fn docket_of(child: &Child) -> usize {
    let before = seats().take(child.seat);
    before.filter(|(cell, seat)| *cell == child.cell && seat.job == Job::Give).count()
}

/// Enters messages until the run is over.
pub fn run(child: &Child) -> Result<()> {
    let queue = child.cell().queue(&child.bus).open_existing()?;
    let mut producer = queue.producer()?;
    let (lane, board, cell) = (docket_of(child), &child.board, child.cell);
    let docket = Docket::new(board, lane);
    // What its predecessor tried and did not say that it did may be in the queue.
    let mut number = board.tried(cell, lane);
    (board.committed(cell, lane)..number).for_each(|number| docket.doubt(number));
    child.set(Word::Joined, 1);
    let options = &child.cell().options;
    let mut due = Instant::now();
    while child.phase() == Phase::Run {
        for _ in 0..options.burst {
            board.try_up_to(cell, lane, number + 1);
            child.check(docket.open(number));
            if !give(child, &mut producer, lane, number)? {
                docket.doubt(number);
                break;
            }
            number += 1;
            board.commit_up_to(cell, lane, number);
        }
        due = (due + Duration::from_micros(options.tick_us)).max(Instant::now());
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    child.set(Word::Joined, 0);
    Ok(())
}

/// Enters one message; `false` if the run was over before there was room.
fn give(child: &Child, producer: &mut Producer<Raw>, lane: usize, number: u64) -> Result<bool> {
    let large = child.below(child.cell().options.large_every.into()) == 0;
    let bytes = child.below(if large { LARGE_BYTES } else { SMALL_BYTES });
    let len = HEAD_BYTES + bytes as usize;
    let author = Author::new(child.seat as u16, child.generation, 0);
    let record = Record {
        cell: child.cell as u32,
        lane: lane as u32,
        lane_sequence: number,
        author,
        number,
    };
    if child.below(DROP_EVERY) == 0 {
        drop(producer.try_loan(len));
    }
    loop {
        match producer.loan_timeout(len, PATIENCE) {
            Ok(mut loan) => {
                record.write(&mut loan);
                loan.enqueue()?;
                child.add(Word::Sent, 1);
                child.add(Word::Bytes, len as u64);
                child.beat();
                return Ok(true);
            }
            Err(EnqueueError::Full { .. }) if child.phase() == Phase::Run => {
                child.add(Word::Full, 1);
            }
            Err(EnqueueError::Full { .. }) => return Ok(false),
            Err(error) => bail!("cannot enter a message: {error}"),
        }
    }
}
