//! What a message carries, so that a benchmark that loses or tears one fails.
//!
//! The first eight bytes are the sequence of the message and the last eight its complement. The
//! receiver knows which sequence comes next and checks both ends of every message, so a message
//! that is lost, doubled, reordered, torn or not written at all is a mismatch, and a mismatch fails
//! the run.

/// Writes the sequence into the first and its complement into the last eight bytes.
#[inline]
pub fn stamp(slot: &mut [u8], sequence: u64) {
    if let Some(first) = slot.first_chunk_mut::<8>() {
        *first = sequence.to_le_bytes();
    }
    if let Some(last) = slot.last_chunk_mut::<8>() {
        *last = (!sequence).to_le_bytes();
    }
}

/// How a sender writes a message into the place it will be read from.
pub trait Fill {
    /// Prepares for messages of `bytes` bytes.
    fn new(bytes: usize) -> Self;

    /// Writes message `sequence` over the whole of `slot`, or over as much of it as this way
    /// writes.
    fn fill(&mut self, sequence: u64, slot: &mut [u8]);
}

/// The message is made in a private buffer and copied.
pub struct Copied(Vec<u8>);

impl Copied {
    /// The private buffer with message `sequence` in it.
    #[inline]
    pub fn made(&mut self, sequence: u64) -> &[u8] {
        stamp(&mut self.0, sequence);
        &self.0
    }
}

impl Fill for Copied {
    fn new(bytes: usize) -> Self {
        Self(vec![0x5a; bytes])
    }

    #[inline]
    fn fill(&mut self, sequence: u64, slot: &mut [u8]) {
        slot.copy_from_slice(self.made(sequence));
    }
}

/// Only both ends are written, in place: what it costs when the payload costs nothing.
pub struct Stamped;

impl Fill for Stamped {
    fn new(_bytes: usize) -> Self {
        Self
    }

    #[inline]
    fn fill(&mut self, sequence: u64, slot: &mut [u8]) {
        stamp(slot, sequence);
    }
}

/// Every word of the message is computed and written in place.
pub struct Words;

impl Fill for Words {
    fn new(_bytes: usize) -> Self {
        Self
    }

    #[inline]
    fn fill(&mut self, sequence: u64, slot: &mut [u8]) {
        let mut value = sequence;
        for word in slot.chunks_exact_mut(8) {
            word.copy_from_slice(&value.to_le_bytes());
            value = value.wrapping_add(1);
        }
        stamp(slot, sequence);
    }
}

/// The receiver's side: the sequence that must come next, and how often it did not.
#[derive(Default)]
pub struct Check {
    expected: u64,
    mismatches: u64,
}

impl Check {
    /// Checks both ends of a message.
    #[inline]
    pub fn words(&mut self, first: u64, last: u64) {
        if first != self.expected || last != !first {
            self.mismatch(first);
        }
        self.expected = self.expected.wrapping_add(1);
    }

    /// Checks both ends of a message that lies in `bytes`.
    #[inline]
    pub fn bytes(&mut self, bytes: &[u8]) {
        match (bytes.first_chunk(), bytes.last_chunk()) {
            (Some(&first), Some(&last)) => {
                self.words(u64::from_le_bytes(first), u64::from_le_bytes(last));
            }
            _ => self.words(0, 0),
        }
    }

    /// A check for which `message` is the first one.
    pub fn from_first(message: &[u8]) -> Self {
        let first = message.first_chunk().map_or(0, |&first| u64::from_le_bytes(first));
        Self { expected: first, mismatches: 0 }
    }

    /// How many messages were not the one expected since this was last asked.
    pub fn take_mismatches(&mut self) -> u64 {
        std::mem::take(&mut self.mismatches)
    }

    /// How many messages were not the one expected.
    pub fn mismatches(&self) -> u64 {
        self.mismatches
    }

    #[cold]
    #[inline(never)]
    fn mismatch(&mut self, found: u64) {
        self.mismatches += 1;
        // Go on from what was found, so that one lost message counts as one.
        self.expected = found;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mismatches(messages: &[Vec<u8>]) -> u64 {
        let mut check = Check::default();
        messages.iter().for_each(|message| check.bytes(message));
        check.mismatches()
    }

    fn message<F: Fill>(sequence: u64, bytes: usize) -> Vec<u8> {
        let mut slot = vec![0; bytes];
        F::new(bytes).fill(sequence, &mut slot);
        slot
    }

    #[test]
    fn every_way_of_writing_passes_the_check() {
        for bytes in [16, 64, 72, 1024] {
            assert_eq!(mismatches(&[message::<Copied>(0, bytes), message::<Copied>(1, bytes)]), 0);
            assert_eq!(mismatches(&[message::<Stamped>(0, bytes)]), 0);
            assert_eq!(mismatches(&[message::<Words>(0, bytes), message::<Words>(1, bytes)]), 0);
        }
    }

    #[test]
    fn a_lost_message_is_one_mismatch() {
        let sent = [0, 1, 3, 4].map(|sequence| message::<Copied>(sequence, 64));
        assert_eq!(mismatches(&sent), 1);
    }

    #[test]
    fn a_torn_message_is_a_mismatch() {
        let mut torn = message::<Copied>(0, 64);
        torn[63] ^= 1;
        assert_eq!(mismatches(&[torn]), 1);
    }

    #[test]
    fn a_message_that_was_not_written_is_a_mismatch() {
        assert_eq!(mismatches(&[vec![0; 64]]), 1);
    }
}
