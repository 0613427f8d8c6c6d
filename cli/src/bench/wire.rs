//! How the driver tells its peer what to do next, and hears that it is done.
//!
//! The first page of the shared memory is the control page. Each word that one side stores and the
//! other polls has cache lines of its own (two, because processors fetch lines in pairs).
//!
//! ```text
//!    0  COMMAND number   driver stores   128  operation and its two arguments
//!  256  DONE number      peer stores     384  answer
//!  512  lines of the bare ping-pong      4096 areas of the transports
//! ```
//!
//! # Orderings
//!
//! | edge      | `Release` store      | `Acquire` load    | hands over                       |
//! |-----------|----------------------|-------------------|----------------------------------|
//! | `COMMAND` | number, in `command` | number, in `next` | arguments and all cleared memory |
//! | `DONE`    | number, in `done`    | number, in `wait` | the answer, all received memory  |
//!
//! # If a process dies
//!
//! A peer is killed by the kernel when its driver dies. The watch thread of the driver sees a dead
//! peer and ends the run, so neither side needs a timeout in a loop that is measured.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Duration;

use super::failure::{Failure, Result};
use crate::memory::Memory;

/// Bytes of the control page; the areas of the transports begin behind it.
pub const CONTROL_BYTES: usize = 4096;

/// Where the lines of the bare ping-pong begin.
pub const PING_OFFSET: usize = 512;

const COMMAND: usize = 0;
const OPERATION: usize = 128;
const FIRST: usize = 136;
const SECOND: usize = 144;
const DONE: usize = 256;
const ANSWER: usize = 384;

/// Polls before a waiting side sleeps: longer than any pause inside a measurement, so that only an
/// idle process sleeps.
const POLLS_MAX: u32 = 200_000;

/// Polls of a side that shares its core with others and leaves it to the one at work.
const SLEEPY_POLLS_MAX: u32 = 100;

/// What an idle side sleeps between looks.
const IDLE: Duration = Duration::from_micros(50);

/// What a peer can be told to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Operation {
    /// Open the ends of one group of the plan.
    Open = 1,
    /// Close them.
    Close = 2,
    /// Answer a number of bare ping-pong rounds.
    Ping = 3,
    /// Send a number of messages back.
    Echo = 4,
    /// Take a number of messages.
    Sink = 5,
    /// Hold exactly this many subscriptions.
    Subscribe = 6,
    /// Take whatever all subscriptions still have.
    Drain = 7,
}

impl Operation {
    const ALL: [Self; 7] =
        [Self::Open, Self::Close, Self::Ping, Self::Echo, Self::Sink, Self::Subscribe, Self::Drain];

    fn from_word(word: u64) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|&operation| operation as u64 == word);
        found.ok_or_else(|| Failure::new(format!("the driver sent the unknown command {word}")))
    }
}

/// One command with its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Command {
    /// What to do.
    pub operation: Operation,
    /// Which one: a group, a case, a kind.
    pub which: u64,
    /// How many.
    pub count: u64,
}

/// One side of the control page.
pub struct Wire {
    memory: Memory,
    number: u64,
    polls: u32,
}

impl Wire {
    /// The control page of `memory`, before the first command. A sleepy side shares its core with
    /// others.
    pub fn new(memory: Memory, sleepy: bool) -> Self {
        let polls = if sleepy { SLEEPY_POLLS_MAX } else { POLLS_MAX };
        Self { memory, number: 0, polls }
    }

    /// The memory that the control page is part of.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Driver: sends a command and goes on at once.
    pub fn command(&mut self, operation: Operation, which: u64, count: u64) {
        self.number += 1;
        // Relaxed: ordered by COMMAND below.
        self.memory.word(OPERATION).store(operation as u64, Relaxed);
        self.memory.word(FIRST).store(which, Relaxed);
        self.memory.word(SECOND).store(count, Relaxed);
        // COMMAND: pairs with the load in `next`.
        self.memory.word(COMMAND).store(self.number, Release);
    }

    /// Driver: waits until the peer has done the last command and returns its answer.
    pub fn wait(&mut self) -> u64 {
        // DONE: pairs with the store in `done`.
        poll(self.polls, || self.memory.word(DONE).load(Acquire) == self.number);
        // Relaxed: ordered by DONE above.
        self.memory.word(ANSWER).load(Relaxed)
    }

    /// Driver: sends a command and waits for the answer.
    pub fn call(&mut self, operation: Operation, which: u64, count: u64) -> u64 {
        self.command(operation, which, count);
        self.wait()
    }

    /// Peer: waits for the next command.
    pub fn next(&mut self) -> Result<Command> {
        self.number += 1;
        // COMMAND: pairs with the store in `command`.
        poll(self.polls, || self.memory.word(COMMAND).load(Acquire) == self.number);
        // Relaxed: ordered by COMMAND above.
        let operation = Operation::from_word(self.memory.word(OPERATION).load(Relaxed))?;
        let which = self.memory.word(FIRST).load(Relaxed);
        let count = self.memory.word(SECOND).load(Relaxed);
        Ok(Command { operation, which, count })
    }

    /// Peer: says that the last command is done.
    pub fn done(&mut self, answer: u64) {
        // Relaxed: ordered by DONE below.
        self.memory.word(ANSWER).store(answer, Relaxed);
        // DONE: pairs with the load in `wait`.
        self.memory.word(DONE).store(self.number, Release);
    }
}

fn poll(polls: u32, mut ready: impl FnMut() -> bool) {
    for _ in 0..polls {
        if ready() {
            return;
        }
        std::hint::spin_loop();
    }
    while !ready() {
        std::thread::sleep(IDLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_arrive_in_order_and_answers_come_back() {
        let memory = Memory::create(CONTROL_BYTES).expect("a page can be had");
        let mut peer = Wire::new(memory.clone(), true);
        let serving = std::thread::spawn(move || {
            for _ in 0..100 {
                let command = peer.next().expect("the driver sends known commands");
                peer.done(command.which + command.count);
            }
        });
        let mut driver = Wire::new(memory, true);
        for count in 0..100 {
            assert_eq!(driver.call(Operation::Sink, 7, count), 7 + count);
        }
        serving.join().expect("the peer ended");
    }

    #[test]
    fn an_unknown_command_is_refused() {
        assert!(Operation::from_word(99).is_err());
        for operation in Operation::ALL {
            assert_eq!(Operation::from_word(operation as u64).ok(), Some(operation));
        }
    }
}
