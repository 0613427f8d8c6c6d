//! A publisher of the soak: sends at an even pace, notes what it tries and what it committed, and
//! leaves and joins again now and then.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{anyhow, bail, ensure, Context, Result};
use windlass::{Bus, ErrorKind, PublishError, Publisher, Topic};

use super::board::{Phase, Word};
use super::cells::Cell;
use super::child::Child;
use super::parcel::{Draft, How, Parcel};
use super::record::{Author, Record, HEAD_BYTES};
use super::sabotage::Sabotage;

/// A blocked publisher looks this often whether the run is over.
const PATIENCE: Duration = Duration::from_millis(100);
/// A publisher leaves after about so many bursts and joins again.
const BURSTS_OF_A_LIFE: u64 = 2_000;
/// One burst in so many is published by one call.
const BATCH_EVERY: u64 = 8;
/// Small messages have up to so many bytes.
const SMALL_BYTES: u64 = 200;
/// Its number of the message that is spoiled in a test of the test.
const SPOILED: u64 = 20;

/// Publishes until the run is over.
pub fn run<P: Parcel>(child: &Child) -> Result<()> {
    let topic = child.cell().builder::<P>(&child.bus).open()?;
    let tick = Duration::from_micros(child.cell().options.tick_us);
    for life in 0u64.. {
        let Some(publisher) = join(child, &topic)? else { return Ok(()) };
        let mut desk = Desk::new(child, publisher, life as u16)?;
        child.set(Word::Joined, 1);
        let mut bursts = match child.spoils(Sabotage::Commit) {
            true => SPOILED,
            false => BURSTS_OF_A_LIFE / 2 + child.below(BURSTS_OF_A_LIFE),
        };
        let mut due = Instant::now();
        while bursts > 0 && child.phase() == Phase::Run {
            let burst = child.cell().options.burst;
            // What is done wrong is done in a call of its own.
            let single = !child.sabotage.is_empty() && desk.number <= SPOILED;
            match child.below(BATCH_EVERY) {
                0 if !single => desk.send_all(child, burst)?,
                _ => (0..burst).try_for_each(|_| desk.send(child))?,
            }
            bursts -= 1;
            due = (due + tick).max(Instant::now());
            thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        child.set(Word::Joined, 0);
        if child.spoils(Sabotage::Commit) {
            let (board, sequence) = (&child.board, desk.publisher.sequence() + 1);
            board.try_up_to(child.cell, desk.lane, sequence);
            board.commit_up_to(child.cell, desk.lane, sequence);
        }
        drop(desk);
        if child.phase() != Phase::Run {
            return Ok(());
        }
    }
    Ok(())
}

/// Takes a lane. All are held for a moment when somebody repairs one, or when a stopped process
/// was about to leave; `None` once the run is over.
fn join<P: Parcel>(child: &Child, topic: &Topic<P>) -> Result<Option<Publisher<P>>> {
    while child.phase() == Phase::Run {
        match topic.publisher() {
            Ok(publisher) => return Ok(Some(publisher)),
            Err(error) if error.kind() == ErrorKind::Limit => {
                thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error).context("cannot join as a publisher"),
        }
    }
    Ok(None)
}

/// One life of a publisher.
pub struct Desk<P: Parcel> {
    publisher: Publisher<P>,
    cell: &'static Cell,
    cell_index: usize,
    lane: usize,
    author: Author,
    number: u64,
}

impl<P: Parcel> Desk<P> {
    /// Checks where the lane goes on: what its last holder committed is there, what it was about to
    /// publish may be, and nothing else.
    fn new(child: &Child, publisher: Publisher<P>, life: u16) -> Result<Self> {
        let author = Author::new(child.seat as u16, child.generation, life);
        let (board, cell) = (&child.board, child.cell);
        let (lane, first) = (publisher.lane() as usize, publisher.sequence());
        let (committed, tried) = (board.committed(cell, lane), board.tried(cell, lane));
        if first < committed || first > tried {
            child.fault(format!(
                "lane {lane} goes on with message {first}; its last holder had committed \
                 {committed} and tried {tried}"
            ));
        }
        board.commit_up_to(cell, lane, first);
        board.try_up_to(cell, lane, first);
        Ok(Self { publisher, cell: child.cell(), cell_index: cell, lane, author, number: 0 })
    }

    /// Publishes one message, however long it takes, or nothing if the run is over.
    fn send(&mut self, child: &Child) -> Result<()> {
        let spoiled = self.number == SPOILED;
        if spoiled && child.spoils(Sabotage::Skip) {
            self.number += 1;
        }
        if spoiled && child.spoils(Sabotage::Repeat) {
            self.number -= 1;
        }
        let sequence = self.publisher.sequence();
        let draft = self.draft(child, 0, spoiled);
        let (board, cell, lane) = (&child.board, self.cell_index, self.lane);
        board.try_up_to(cell, lane, sequence + 1);
        let receipt = loop {
            match P::send(&mut self.publisher, &draft, PATIENCE) {
                Ok(receipt) => break receipt,
                Err(PublishError::Full { .. }) => {
                    child.add(Word::Full, 1);
                    if child.phase() != Phase::Run {
                        board.try_up_to(cell, lane, sequence);
                        return Ok(());
                    }
                }
                Err(error) => bail!("cannot publish: {error}"),
            }
        };
        board.commit_up_to(cell, lane, sequence + 1);
        let placed = self.cell.options.ordered || receipt.sequence == sequence;
        ensure!(
            placed && receipt.lane as usize == lane,
            "message {sequence} of lane {lane} was published as {receipt:?}"
        );
        self.number += 1;
        let sent = match spoiled {
            true if child.spoils(Sabotage::Boast) => 2,
            true if child.spoils(Sabotage::Forget) => 0,
            true if child.spoils(Sabotage::Vanish) && child.generation == 0 => {
                std::process::abort();
            }
            _ => 1,
        };
        child.add(Word::Sent, sent);
        child.add(Word::Bytes, draft.len as u64);
        child.beat();
        Ok(())
    }

    /// Publishes several messages by one call, however long it takes.
    fn send_all(&mut self, child: &Child, count: u32) -> Result<()> {
        let (board, cell, lane) = (&child.board, self.cell_index, self.lane);
        let sequence = self.publisher.sequence();
        let drafts: Vec<_> =
            (0..u64::from(count)).map(|ahead| self.draft(child, ahead, false)).collect();
        board.try_up_to(cell, lane, sequence + u64::from(count));
        let sent = P::send_all(&mut self.publisher, &drafts)
            .map_err(|(sent, error)| anyhow!("cannot publish after {sent} of {count}: {error}"))?;
        let next = self.publisher.sequence();
        ensure!(
            sent == u64::from(count) && next == sequence + sent,
            "{sent} of {count} messages were published from {sequence}, and {next} is next"
        );
        board.commit_up_to(cell, lane, next);
        self.number += sent;
        child.add(Word::Sent, sent);
        child.add(Word::Bytes, drafts.iter().map(|draft| draft.len as u64).sum());
        child.beat();
        Ok(())
    }

    /// The message after so many more.
    fn draft(&self, child: &Child, ahead: u64, torn: bool) -> Draft {
        let record = Record {
            cell: self.cell_index as u32,
            lane: self.lane as u32,
            lane_sequence: self.publisher.sequence() + ahead,
            author: self.author,
            number: self.number + ahead,
        };
        let how = match child.below(8) {
            0 => How::Trim,
            1 => How::Again,
            2..5 => How::Loan,
            _ => How::Copy,
        };
        let torn = torn && child.spoils(Sabotage::Checksum);
        Draft { record, len: self.len(child), how, torn }
    }

    /// The bytes of the next message: mostly few, now and then up to all that a segment takes.
    fn len(&self, child: &Child) -> usize {
        let room = P::room(&self.publisher);
        let large = child.below(u64::from(self.cell.options.large_every)) == 0;
        let more = match large {
            // One in eight of the large ones fills a segment.
            true if child.below(8) == 0 => room as u64,
            true => child.below(room as u64),
            false => child.below(SMALL_BYTES),
        };
        (HEAD_BYTES + more as usize).min(room)
    }
}

/// Supervisor, when all publishers are gone: takes every lane at once and publishes a last message
/// in each. So every lane can be taken, ends where its last holder left it, and whatever a
/// subscriber missed in it has a message behind it.
pub fn last<P: Parcel>(bus: &Bus, board: &super::board::Board, cell: usize) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let the_cell = &super::cells::CELLS[cell];
    let topic = the_cell.builder::<P>(bus).open_existing()?;
    let publishers: windlass::Result<Vec<_>> =
        (0..the_cell.lanes()).map(|_| topic.publisher()).collect();
    for (life, mut publisher) in publishers?.into_iter().enumerate() {
        let (lane, sequence) = (publisher.lane() as usize, publisher.sequence());
        let (committed, tried) = (board.committed(cell, lane), board.tried(cell, lane));
        if sequence < committed || sequence > tried {
            faults.push(format!(
                "lane {lane} ends at {sequence}; its holders had committed {committed} and tried \
                 {tried}"
            ));
        }
        let author = Author::new(u16::MAX, 0, life as u16);
        let record = Record {
            cell: cell as u32,
            lane: lane as u32,
            lane_sequence: sequence,
            author,
            number: 0,
        };
        let draft = Draft { record, len: HEAD_BYTES, how: How::Copy, torn: false };
        board.try_up_to(cell, lane, sequence + 1);
        P::send(&mut publisher, &draft, Duration::from_secs(10))
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("cannot publish the last message of lane {lane}"))?;
        board.commit_up_to(cell, lane, sequence + 1);
    }
    Ok(faults)
}
