//! The books of a queue: what became of each message, in words beside the bus.
//!
//! A producer has a *docket*, a ring of lines. It opens a line before it enters the message, and whoever works on the
//! message writes there what it does, before it does it, so its death leaves it there:
//!
//! ```text
//!              enter           take            about to acknowledge    acknowledged
//!   (settled) ───────▶ Open ──────────▶ Held ───────────────────────▶ Ending ─────────▶ Done
//!                        │               ▲ │ given back, or the death of whoever had it
//!   Perhaps: its producer died before    └─┘ with a higher delivery each time
//!   anybody knew whether it was entered
//! ```
//!
//! A line says which message it is of, and the highest delivery that anybody had. So whoever takes a message knows
//! whether it was done already, and whether its delivery count says the truth; and a producer that comes around finds
//! a message that was lost. A message that stays *Ending* belonged to somebody who died between its acknowledgement and
//! the next line of the book: it was acknowledged, or it comes again.

use std::sync::atomic::Ordering::{AcqRel, Acquire};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use windlass::{Bus, Wait};

use super::board::{Board, DOCKET_LINES};
use super::cells::CELLS;
use super::crew::Tally;
use super::record::Record;

/// Messages that a killed worker had at most.
pub const HELD_MAX: usize = 4;
/// A message that was put off comes within this time.
const LATER_MAX: Duration = Duration::from_secs(2);
/// Slots that were freed may be counted late by who did not live to count them.
const UNCOUNTED_MAX: u64 = 2;

/// What a line says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum State {
    Open = 1,
    Held = 2,
    Ending = 3,
    Done = 4,
    Perhaps = 5,
}

/// A line, taken apart.
#[derive(Clone, Copy, Debug)]
struct Line {
    number: u64,
    delivery: u32,
    state: Option<State>,
}

impl Line {
    fn of(word: u64) -> Self {
        let states = [State::Open, State::Held, State::Ending, State::Done, State::Perhaps];
        let state = states.into_iter().find(|state| *state as u64 == word & 0xff);
        Self { number: word >> 16, delivery: (word >> 8 & 0xff) as u32, state }
    }

    fn word(number: u64, delivery: u32, state: State) -> u64 {
        number << 16 | u64::from(delivery) << 8 | state as u64
    }
}

/// The docket of one producer.
#[derive(Clone, Copy)]
pub struct Docket<'a> {
    board: &'a Board,
    index: usize,
}

impl<'a> Docket<'a> {
    /// The docket of this number.
    pub fn new(board: &'a Board, index: usize) -> Self {
        Self { board, index }
    }

    fn read(&self, number: u64) -> (u64, Line) {
        let word = self.board.line(self.index, number).load(Acquire);
        (word, Line::of(word))
    }

    /// Changes a line that says `from`; whether it still did.
    fn write(&self, number: u64, from: u64, to: u64) -> bool {
        self.board.line(self.index, number).compare_exchange(from, to, AcqRel, Acquire).is_ok()
    }

    /// Producer: opens the line of a message that it is about to enter.
    ///
    /// # Errors
    ///
    /// A sentence, if the message that had the line before was lost.
    pub fn open(&self, number: u64) -> Result<(), String> {
        let (word, line) = self.read(number);
        let settled = line.settled();
        self.write(number, word, Line::word(number, 0, State::Open));
        settled.map_err(|what| format!("producer {} of a queue: {what}", self.index))
    }

    /// Producer: nobody knows whether its predecessor entered this message.
    pub fn doubt(&self, number: u64) {
        let open = Line::word(number, 0, State::Open);
        // If that fails somebody has it, and it was entered.
        self.write(number, open, Line::word(number, 0, State::Perhaps));
    }

    /// Worker: it has this message, delivered for this time.
    ///
    /// # Errors
    ///
    /// A sentence, if that cannot be.
    pub fn take(&self, number: u64, delivery: u32) -> Result<(), String> {
        loop {
            let (word, line) = self.read(number);
            let wrong = |why: &str| {
                let producer = self.index;
                Err(format!(
                    "delivery {delivery} of message {number} of producer {producer} {why}: {line:?}"
                ))
            };
            match line.state {
                _ if line.number != number => return wrong("came late: others have its line"),
                None | Some(State::Done) => return wrong("came after it was done"),
                Some(_) if delivery <= line.delivery => return wrong("was somebody's already"),
                Some(_) => {}
            }
            if self.write(number, word, Line::word(number, delivery, State::Held)) {
                return Ok(());
            }
            // Its producer was replaced meanwhile, or the next look says what is wrong.
        }
    }

    /// Worker: it is about to acknowledge the message.
    ///
    /// # Errors
    ///
    /// A sentence, if somebody else has it as well.
    pub fn end(&self, number: u64, delivery: u32) -> Result<(), String> {
        self.step(number, delivery, State::Held, State::Ending)
    }

    /// Worker: it has acknowledged the message.
    ///
    /// # Errors
    ///
    /// A sentence, if somebody else has it as well.
    pub fn done(&self, number: u64, delivery: u32) -> Result<(), String> {
        self.step(number, delivery, State::Ending, State::Done)
    }

    fn step(&self, number: u64, delivery: u32, from: State, to: State) -> Result<(), String> {
        let (from, to) = (Line::word(number, delivery, from), Line::word(number, delivery, to));
        match self.write(number, from, to) {
            true => Ok(()),
            false => Err(format!(
                "message {number} of producer {} was worked on by somebody else meanwhile: {:?}",
                self.index,
                self.read(number).1
            )),
        }
    }

    /// Everything that the docket remembers is done; a sentence for each message that is not.
    fn close(&self, tried: u64) -> Vec<String> {
        let first = tried.saturating_sub(DOCKET_LINES as u64);
        let lines = (first..tried).filter_map(|number| self.read(number).1.settled().err());
        lines.map(|what| format!("producer {}: {what}", self.index)).collect()
    }
}

impl Line {
    /// Whether nothing more is to become of the message.
    fn settled(self) -> Result<(), String> {
        match self.state {
            Some(State::Open | State::Held) => {
                Err(format!("message {} is lost: {self:?}", self.number))
            }
            None | Some(State::Ending | State::Done | State::Perhaps) => Ok(()),
        }
    }
}

/// Takes what is left in the queue of a cell, closes its books, and says what is wrong.
pub fn close(
    bus: &Bus,
    board: &Board,
    cell: usize,
    tally: Tally,
    (least, most): (u64, u64),
) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let queue = CELLS[cell].queue(bus).open_existing()?;
    let mut consumer = queue.consumer()?;
    let due = Instant::now() + LATER_MAX;
    // What the last ones who died had, and what is due a moment later.
    while queue.info()?.classes.iter().any(|class| class.free() < class.chunks) {
        let Some(job) = consumer.take(Wait::Block).context("cannot take what is left")? else {
            if Instant::now() > due {
                break;
            }
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        match Record::read(job.bytes()) {
            Ok((record, _)) => {
                let docket = Docket::new(board, record.lane as usize);
                faults.extend(docket.take(record.number, job.delivery()).err());
                faults.extend(docket.end(record.number, job.delivery()).err());
                faults.extend(docket.done(record.number, job.delivery()).err());
            }
            Err(sentence) => faults.push(sentence),
        }
        job.ack().context("cannot acknowledge what is left")?;
    }
    drop(consumer);
    for lane in 0..CELLS[cell].lanes() {
        faults.extend(Docket::new(board, lane).close(board.tried(cell, lane)));
    }
    let info = queue.info()?;
    if info.classes.iter().any(|class| class.free() != class.chunks) || !info.consumers.is_empty() {
        faults.push(format!("chunks or consumers are left: {info:?}"));
    }
    // A worker that was killed had a few messages; each of the others was given back, and noted.
    let reasons = tally.rounds + most * (HELD_MAX as u64 + 1);
    if info.died > 0 || info.redelivered > reasons {
        let (died, again) = (info.died, info.redelivered);
        faults.push(format!("{died} messages died and {again} came again, for {reasons} reasons"));
    }
    if info.reaped_consumers + UNCOUNTED_MAX < least || info.reaped_consumers > most {
        let reaped = info.reaped_consumers;
        faults.push(format!(
            "{reaped} slots of dead consumers were freed, {least} were killed in theirs and {most} \
             altogether"
        ));
    }
    Ok(faults)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_docket(test: impl FnOnce(Docket<'_>)) {
        let board = Board::create().expect("memory for a board");
        test(Docket::new(&board, 1));
    }

    #[test]
    fn a_message_that_is_done_is_settled_and_does_not_come_again() {
        with_docket(|docket| {
            docket.open(7).expect("a fresh line");
            assert_eq!(docket.close(8).len(), 1, "it is not done");
            docket.take(7, 1).expect("it was entered");
            docket.end(7, 1).expect("it is held");
            docket.done(7, 1).expect("it was about to end");
            assert!(docket.close(8).is_empty());
            assert!(docket.take(7, 2).is_err_and(|what| what.contains("after it was done")));
        });
    }

    #[test]
    fn a_second_delivery_says_that_it_is_one() {
        with_docket(|docket| {
            docket.open(7).expect("a fresh line");
            docket.take(7, 1).expect("it was entered");
            assert!(docket.take(7, 1).is_err_and(|what| what.contains("already")));
            // Whoever had it died.
            docket.take(7, 2).expect("it says so");
            assert!(docket.end(7, 1).is_err_and(|what| what.contains("somebody else")));
            docket.end(7, 2).expect("it is held");
            // Died before or after the acknowledgement: both may be.
            assert!(docket.close(8).is_empty());
            docket.take(7, 3).expect("it says so");
        });
    }

    #[test]
    fn a_message_that_was_lost_is_found_when_its_producer_comes_around() {
        with_docket(|docket| {
            let around = DOCKET_LINES as u64;
            docket.open(7).expect("a fresh line");
            assert!(docket.open(7 + around).is_err_and(|what| what.contains("message 7 is lost")));
            docket.doubt(7 + around);
            docket.open(7 + 2 * around).expect("nobody knows whether it was entered");
            docket.take(7 + 2 * around, 1).expect("it was entered");
            assert!(docket.take(7 + around, 1).is_err_and(|what| what.contains("came late")));
        });
    }
}
