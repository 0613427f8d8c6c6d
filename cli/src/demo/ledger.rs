//! What one subscriber received of every lane, checked message by message against the sequence
//! numbers.
//!
//! Sequences are dense in a lane, so the ledger needs two numbers a lane: the first message and the
//! one expected next. A jump forward is a gap. On a reliable topic every gap is a loss. On a lossy
//! topic the gaps must add up to exactly what the bus said was missed: `gaps <= missed` at any
//! time, `gaps == missed` once the topic is closed and drained.

use serde::{Deserialize, Serialize};

/// Faults kept in words; the rest are only counted.
const EXAMPLES_MAX: usize = 3;
/// No topic of the demo has more lanes; a greater number is a fault, not a reason to allocate.
const LANES_MAX: u32 = 64;

/// Where a subscriber begins in a lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// It was there before the first message: message 0 is the first one expected.
    AtBirth,
    /// It joined later: whichever message comes first is the first one expected.
    AnyWhere,
}

/// What one subscriber received of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneTally {
    /// The lane's number.
    pub lane: u32,
    /// The first sequence that had to arrive.
    pub first: u64,
    /// The sequence after the last one that arrived.
    pub next: u64,
    /// Messages that arrived.
    pub received: u64,
}

/// What one subscriber received of all lanes, and everything that was wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// The lanes that brought a message.
    pub lanes: Vec<LaneTally>,
    /// Messages that arrived.
    pub received: u64,
    /// Messages skipped by the sequence numbers.
    pub gaps: u64,
    /// Messages that the bus said were missed.
    pub missed: u64,
    /// Messages that contradict the data set or the order of their lane.
    pub faults: u64,
    /// The first few faults, in words.
    pub examples: Vec<String>,
}

/// The books of one subscriber.
pub struct Ledger {
    begins: Begins,
    lossy: bool,
    tally: Tally,
}

impl Ledger {
    /// Empty books for a subscriber of a lossy or a reliable topic.
    pub fn new(begins: Begins, lossy: bool) -> Self {
        let tally = Tally {
            lanes: Vec::new(),
            received: 0,
            gaps: 0,
            missed: 0,
            faults: 0,
            examples: Vec::new(),
        };
        Self { begins, lossy, tally }
    }

    /// Message `sequence` of `lane` arrived.
    pub fn received(&mut self, lane: u32, sequence: u64) {
        if lane >= LANES_MAX {
            return self.fault(format!("a message came from lane {lane}, which cannot exist"));
        }
        let begins = self.begins;
        let at =
            self.tally.lanes.iter().position(|known| known.lane == lane).unwrap_or_else(|| {
                let first = if begins == Begins::AtBirth { 0 } else { sequence };
                self.tally.lanes.push(LaneTally { lane, first, next: first, received: 0 });
                self.tally.lanes.len() - 1
            });
        let expected = self.tally.lanes[at].next;
        if sequence < expected {
            return self.fault(format!(
                "message {sequence} of lane {lane} came again or too late, expected {expected}"
            ));
        }
        self.tally.lanes[at].next = sequence + 1;
        self.tally.lanes[at].received += 1;
        self.tally.received += 1;
        if sequence > expected {
            self.skipped(lane, expected, sequence);
        }
    }

    fn skipped(&mut self, lane: u32, expected: u64, sequence: u64) {
        self.tally.gaps += sequence - expected;
        if !self.lossy {
            self.fault(format!("messages {expected} to {} of lane {lane} are lost", sequence - 1));
        } else if self.tally.gaps > self.tally.missed {
            let (gaps, missed) = (self.tally.gaps, self.tally.missed);
            self.fault(format!(
                "{gaps} messages are skipped by message {sequence} of lane {lane}, \
                 but only {missed} were reported as missed"
            ));
        }
    }

    /// The bus said that `count` messages were missed.
    pub fn missed(&mut self, count: u64) {
        self.tally.missed += count;
        if !self.lossy {
            self.fault(format!("{count} messages were missed on a reliable topic"));
        }
    }

    /// Something contradicts what must be; `sentence` says what.
    pub fn fault(&mut self, sentence: String) {
        self.tally.faults += 1;
        if self.tally.examples.len() < EXAMPLES_MAX {
            self.tally.examples.push(sentence);
        }
    }

    /// The books as they stand.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(begins: Begins, lossy: bool, messages: &[(u32, u64)]) -> Ledger {
        let mut ledger = Ledger::new(begins, lossy);
        for &(lane, sequence) in messages {
            ledger.received(lane, sequence);
        }
        ledger
    }

    #[test]
    fn dense_lanes_are_without_fault() {
        let books = ledger(Begins::AtBirth, false, &[(0, 0), (1, 0), (0, 1), (1, 1), (1, 2)]);
        assert_eq!((books.tally().received, books.tally().faults), (5, 0));
        let lane = LaneTally { lane: 1, first: 0, next: 3, received: 3 };
        assert_eq!(books.tally().lanes[1], lane);
    }

    #[test]
    fn gap_on_a_reliable_topic_is_a_loss() {
        let books = ledger(Begins::AtBirth, false, &[(0, 0), (0, 3)]);
        assert_eq!((books.tally().gaps, books.tally().faults), (2, 1));
        assert_eq!(books.tally().examples, ["messages 1 to 2 of lane 0 are lost"]);
    }

    #[test]
    fn missing_first_message_is_a_loss_only_for_who_was_there() {
        assert_eq!(ledger(Begins::AtBirth, false, &[(0, 1)]).tally().faults, 1);
        assert_eq!(ledger(Begins::AnyWhere, false, &[(0, 1), (0, 2)]).tally().faults, 0);
    }

    #[test]
    fn repeated_message_is_a_fault_and_not_counted() {
        let books = ledger(Begins::AtBirth, false, &[(0, 0), (0, 0)]);
        assert_eq!((books.tally().received, books.tally().faults), (1, 1));
    }

    #[test]
    fn reported_gap_on_a_lossy_topic_is_no_fault() {
        let mut books = ledger(Begins::AtBirth, true, &[(0, 0)]);
        books.missed(4);
        books.received(0, 5);
        assert_eq!((books.tally().gaps, books.tally().missed, books.tally().faults), (4, 4, 0));
    }

    #[test]
    fn unreported_gap_on_a_lossy_topic_is_a_fault() {
        let mut books = ledger(Begins::AtBirth, true, &[(0, 0)]);
        books.missed(3);
        books.received(0, 5);
        assert_eq!(books.tally().faults, 1);
    }

    #[test]
    fn faults_are_counted_but_only_a_few_are_kept_in_words() {
        let books = ledger(Begins::AtBirth, false, &[(0, 0); 100]);
        assert_eq!((books.tally().faults, books.tally().examples.len()), (99, EXAMPLES_MAX));
    }
}
