//! Random operations on a channel, next to a `VecDeque`: what was committed and not received is a queue.

use super::super::process::scaled;
use super::{Name, CAPACITY};
use proptest::prelude::*;
use std::collections::VecDeque;
use windlass::channel::{Receiver, SendError, Sender};

/// Something that a user may do.
#[derive(Clone, Debug)]
enum Step {
    Send(usize),
    Loan {
        len: usize,
        used: usize,
    },
    DropLoan(usize),
    Group {
        lens: Vec<usize>,
        commits: bool,
    },
    Batch(Vec<usize>),
    Receive(usize),
    ReceiveBatch(usize),
    Release,
    /// Another sender takes the place of this one.
    Resend,
    /// Another receiver takes the place of this one.
    Rereceive,
}

/// Lengths around everything that matters to a ring of 4 KiB.
fn lens() -> impl Strategy<Value = usize> {
    prop_oneof![6 => 0usize..300, 2 => 900usize..1100, 1 => 2000usize..2060]
}

fn steps() -> impl Strategy<Value = Step> {
    let many = || proptest::collection::vec(lens(), 0..6);
    prop_oneof![
        8 => lens().prop_map(Step::Send),
        4 => (lens(), any::<prop::sample::Index>())
            .prop_map(|(len, used)| Step::Loan { len, used: used.index(len + 1) }),
        2 => lens().prop_map(Step::DropLoan),
        3 => (many(), any::<bool>()).prop_map(|(lens, commits)| Step::Group { lens, commits }),
        2 => many().prop_map(Step::Batch),
        8 => (1..12usize).prop_map(Step::Receive),
        4 => (0..12usize).prop_map(Step::ReceiveBatch),
        1 => Just(Step::Release),
        1 => Just(Step::Resend),
        1 => Just(Step::Rereceive),
    ]
}

/// A channel, and what must be in it.
struct Twin {
    name: Name,
    sender: Option<Sender>,
    receiver: Option<Receiver>,
    model: VecDeque<(Vec<u8>, usize)>,
    /// The position behind what is committed.
    end: usize,
    /// The position behind what was given back, and behind what was received.
    read: usize,
    taken: usize,
    number: u8,
}

fn frame_bytes(len: usize) -> usize {
    8 + len.next_multiple_of(8)
}

impl Twin {
    fn new() -> Self {
        let name = Name::new();
        let (sender, receiver) = (Some(name.sender()), Some(name.receiver()));
        Self {
            name,
            sender,
            receiver,
            model: VecDeque::new(),
            end: 0,
            read: 0,
            taken: 0,
            number: 0,
        }
    }

    fn sender(&mut self) -> &mut Sender {
        self.sender.as_mut().expect("there is one between steps")
    }

    fn next(&mut self, len: usize) -> Vec<u8> {
        self.number = self.number.wrapping_add(1);
        vec![self.number; len]
    }

    /// The position behind a message of `len` bytes that comes behind `end`, and was built where `room` bytes fit.
    fn behind(end: usize, len: usize, room: usize) -> usize {
        let lap = CAPACITY as usize;
        let left = lap - end % lap;
        let start = if frame_bytes(room) <= left { end } else { end + left };
        start + frame_bytes(len)
    }

    /// Whether there is room for a message of `len` bytes behind `end`, and for the header word behind it.
    fn fits(&self, end: usize, len: usize) -> bool {
        Self::behind(end, len, len) + 8 <= self.read + CAPACITY as usize
    }

    fn committed(&mut self, message: Vec<u8>, room: usize) {
        self.end = Self::behind(self.end, message.len(), room);
        self.model.push_back((message, self.end));
    }

    /// Refused for want of room, and for nothing else.
    fn refused(&self, error: SendError, len: usize, end: usize) -> Result<(), TestCaseError> {
        let max = self.sender.as_ref().map_or(0, Sender::payload_bytes_max);
        match error {
            SendError::TooLarge { need, .. } => prop_assert!(need as usize == len && len > max),
            SendError::Full => prop_assert!(!self.fits(end, len), "{} bytes are refused", len),
            error => prop_assert!(false, "{error}"),
        }
        Ok(())
    }

    fn play(&mut self, step: Step) -> Result<(), TestCaseError> {
        match step {
            Step::Send(len) => {
                let message = self.next(len);
                match self.sender().try_send(&message) {
                    Ok(()) => self.committed(message, len),
                    Err(error) => self.refused(error, len, self.end)?,
                }
            }
            Step::Loan { len, used } => {
                let message = self.next(used);
                let sent = self.sender().try_loan(len).and_then(|mut loan| {
                    loan.fill(0xee);
                    loan[..used].copy_from_slice(&message);
                    loan.commit_len(used)
                });
                match sent {
                    Ok(()) => self.committed(message, len),
                    Err(error) => self.refused(error, len, self.end)?,
                }
            }
            Step::DropLoan(len) => {
                if let Err(error) = self.sender().try_loan(len).map(|mut loan| loan.fill(0xff)) {
                    self.refused(error, len, self.end)?;
                }
            }
            Step::Group { lens, commits } => self.group(&lens, commits)?,
            Step::Batch(lens) => self.batch(&lens)?,
            Step::Receive(count) => self.receive(count)?,
            Step::ReceiveBatch(max) => self.receive_batch(max)?,
            Step::Release => {
                self.receiver.as_mut().expect("there is one between steps").release();
                self.read = self.taken;
            }
            Step::Resend => {
                self.sender = None;
                self.sender = Some(self.name.sender());
            }
            Step::Rereceive => {
                // It gives back what it had.
                self.receiver = None;
                self.receiver = Some(self.name.receiver());
                self.read = self.taken;
            }
        }
        Ok(())
    }

    fn group(&mut self, lens: &[usize], commits: bool) -> Result<(), TestCaseError> {
        let messages: Vec<_> = lens.iter().map(|len| self.next(*len)).collect();
        let mut group = self.sender.as_mut().expect("there is one between steps").group();
        let (mut added, mut refused, mut end) = (Vec::new(), Vec::new(), self.end);
        for message in messages {
            match group.push(&message) {
                Ok(()) => {
                    end = Self::behind(end, message.len(), message.len());
                    added.push(message);
                }
                Err(error) => refused.push((error, message.len(), end)),
            }
        }
        if commits {
            prop_assert_eq!(group.commit(), Ok(()));
        } else {
            drop(group);
        }
        for (error, len, end) in refused {
            self.refused(error, len, end)?;
        }
        if commits {
            added.into_iter().for_each(|message| self.committed(message.clone(), message.len()));
        }
        Ok(())
    }

    /// As many as must fit: a batch waits for room, and nobody else would make it.
    fn batch(&mut self, lens: &[usize]) -> Result<(), TestCaseError> {
        let (mut end, mut fit) = (self.end, Vec::new());
        for len in lens {
            if *len > 2000 || !self.fits(end, *len) {
                break;
            }
            end = Self::behind(end, *len, *len);
            fit.push(self.next(*len));
        }
        prop_assert_eq!(self.sender().send_batch(&fit), Ok(fit.len() as u64));
        fit.into_iter().for_each(|message| self.committed(message.clone(), message.len()));
        Ok(())
    }

    fn receive(&mut self, count: usize) -> Result<(), TestCaseError> {
        let receiver = self.receiver.as_mut().expect("there is one between steps");
        for _ in 0..count {
            // What came before is given back.
            self.read = self.taken;
            let found = receiver.try_recv().expect("it is sound and open").map(<[u8]>::to_vec);
            let due = self.model.pop_front();
            self.taken = due.as_ref().map_or(self.taken, |(_, end)| *end);
            prop_assert_eq!(found, due.map(|(message, _)| message));
        }
        Ok(())
    }

    fn receive_batch(&mut self, max: usize) -> Result<(), TestCaseError> {
        let receiver = self.receiver.as_mut().expect("there is one between steps");
        let found: Vec<_> = receiver.batch(max).expect("it is sound").collect();
        prop_assert_eq!(found.len(), self.model.len().min(max));
        if max > 0 {
            self.read = self.taken;
        }
        for message in found {
            let (expected, end) = self.model.pop_front().expect("there are as many");
            prop_assert_eq!(message, &expected[..]);
            self.taken = end;
        }
        Ok(())
    }
}

#[test]
fn any_sequence_of_operations_is_that_of_a_queue() {
    let cases = u32::try_from(scaled(300)).expect("it is not that many");
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |(steps in proptest::collection::vec(steps(), 1..120))| {
        let mut twin = Twin::new();
        for step in steps {
            twin.play(step)?;
        }
        twin.receive(600)?;
        prop_assert!(twin.model.is_empty());
    });
}
