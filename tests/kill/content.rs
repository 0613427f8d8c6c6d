//! Messages that say what they should be, and the books that a reader keeps of them.

use std::collections::BTreeMap;
use windlass::{Message, Raw};

/// Bytes in front of the pattern: magic, length, lane, tag, sequence.
pub const HEAD_BYTES: usize = 24;

const MAGIC: u32 = 0x5749_4e44;

/// Payload bytes of message `sequence`: mostly small, one in five large enough that segments end
/// soon.
pub fn size_of(sequence: u64) -> usize {
    let varied = if sequence % 5 == 4 { 1200 + sequence * 37 % 1500 } else { sequence * 13 % 120 };
    HEAD_BYTES + varied as usize
}

fn pattern(lane: u32, sequence: u64, at: usize) -> u8 {
    (sequence.wrapping_mul(31).wrapping_add(u64::from(lane) * 7).wrapping_add(at as u64)) as u8
}

/// Writes message `sequence` of `lane` over all of `space`.
pub fn fill(space: &mut [u8], lane: u32, sequence: u64, tag: u32) {
    let len = space.len() as u32;
    space[0..4].copy_from_slice(&MAGIC.to_le_bytes());
    space[4..8].copy_from_slice(&len.to_le_bytes());
    space[8..12].copy_from_slice(&lane.to_le_bytes());
    space[12..16].copy_from_slice(&tag.to_le_bytes());
    space[16..24].copy_from_slice(&sequence.to_le_bytes());
    for (at, byte) in space.iter_mut().enumerate().skip(HEAD_BYTES) {
        *byte = pattern(lane, sequence, at);
    }
}

/// Message `sequence` of `lane`.
pub fn message(lane: u32, sequence: u64, tag: u32) -> Vec<u8> {
    let mut bytes = vec![0; size_of(sequence)];
    fill(&mut bytes, lane, sequence, tag);
    bytes
}

/// What a whole message says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    pub lane: u32,
    pub sequence: u64,
    pub tag: u32,
}

/// Reads a message to its last byte; an error says how it is torn.
pub fn read(bytes: &[u8]) -> Result<Content, String> {
    if bytes.len() < HEAD_BYTES {
        return Err(format!("a message of {} bytes, which nobody sends", bytes.len()));
    }
    let half = |at: usize| {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has four bytes"))
    };
    let sequence = u64::from_le_bytes(bytes[16..24].try_into().expect("the range has eight bytes"));
    let (lane, tag) = (half(8), half(12));
    if half(0) != MAGIC || half(4) as usize != bytes.len() || size_of(sequence) != bytes.len() {
        return Err(format!("a torn header in {} bytes: {:?}", bytes.len(), &bytes[..HEAD_BYTES]));
    }
    let torn = (HEAD_BYTES..bytes.len()).find(|at| bytes[*at] != pattern(lane, sequence, *at));
    match torn {
        Some(at) => Err(format!("message {sequence} of lane {lane} is torn at byte {at}")),
        None => Ok(Content { lane, sequence, tag }),
    }
}

/// How the messages of a topic are delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    pub reliable: bool,
    pub ordered: bool,
}

/// What one subscriber received and missed, and everything that was wrong with it.
#[derive(Debug)]
pub struct Ledger {
    delivery: Delivery,
    /// Whether the subscriber was there before the first message.
    from_birth: bool,
    /// The sequence that is due in each lane.
    pub due: BTreeMap<u32, u64>,
    place_due: Option<u64>,
    pub received: u64,
    pub missed: u64,
    /// Messages that the sequences say were left out.
    gaps: u64,
    pub evicted: bool,
    pub faults: Vec<String>,
}

impl Ledger {
    pub fn new(delivery: Delivery, from_birth: bool) -> Self {
        Self {
            delivery,
            from_birth,
            due: BTreeMap::new(),
            place_due: from_birth.then_some(0),
            received: 0,
            missed: 0,
            gaps: 0,
            evicted: false,
            faults: Vec::new(),
        }
    }

    /// Goes on with another subscriber, which begins anywhere.
    pub fn restart(&mut self) {
        self.from_birth = false;
        self.due.clear();
        self.place_due = None;
    }

    /// Enters a message; returns its tag.
    pub fn take(&mut self, message: &Message<'_, Raw>) -> u32 {
        self.received += 1;
        let content = match read(message.bytes()) {
            Ok(content) => content,
            Err(fault) => {
                self.faults.push(fault);
                return 0;
            }
        };
        if content.lane != message.lane() {
            self.faults.push(format!("{content:?} was delivered from lane {}", message.lane()));
        }
        let late = if self.from_birth { 0 } else { content.sequence };
        let due = *self.due.get(&content.lane).unwrap_or(&late);
        self.check("lane", due, content.sequence, &content);
        if self.delivery.ordered {
            let due = self.place_due.unwrap_or(message.sequence());
            self.check("order", due, message.sequence(), &content);
            self.place_due = Some(message.sequence() + 1);
        } else if message.sequence() != content.sequence {
            self.faults.push(format!("{content:?} was delivered as {}", message.sequence()));
        }
        self.gaps += content.sequence.saturating_sub(due);
        self.due.insert(content.lane, content.sequence + 1);
        content.tag
    }

    fn check(&mut self, what: &str, due: u64, found: u64, content: &Content) {
        if found < due || (self.delivery.reliable && found > due) {
            self.faults.push(format!("{what}: {due} was due and {found} came, {content:?}"));
        }
    }

    /// Checks the books of a subscriber from birth that read to the end against `published` of each
    /// lane.
    pub fn close(&mut self, published: &BTreeMap<u32, u64>) {
        if self.evicted {
            return;
        }
        let total: u64 = published.values().sum();
        if self.received + self.missed != total {
            let (received, missed) = (self.received, self.missed);
            self.faults.push(format!("{received} received and {missed} missed of {total}"));
        }
        // What was missed after the last message of a lane leaves no gap.
        let ends: u64 = published
            .iter()
            .map(|(lane, end)| end.saturating_sub(*self.due.get(lane).unwrap_or(&0)))
            .sum();
        if self.gaps + ends != self.missed {
            let fault = format!("{} + {ends} left out, {} reported", self.gaps, self.missed);
            self.faults.push(fault);
        }
    }
}
