//! What a message of the soak says of itself: who sent it, which of theirs it is, where it should
//! lie, and a checksum over all of it.

use std::fmt;

/// Bytes in front of the body.
pub const HEAD_BYTES: usize = 48;

const MAGIC: u32 = 0x6b61_6f73;

/// Who sent a message: a seat, which process in that seat, and which life of that process as a
/// publisher. No two publishers of a run are the same author.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Author(pub u64);

impl Author {
    /// The author of a seat.
    pub fn new(seat: u16, generation: u32, life: u16) -> Self {
        Self(u64::from(seat) << 48 | u64::from(generation) << 16 | u64::from(life))
    }
}

impl fmt::Display for Author {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seat, generation, life) = (self.0 >> 48, self.0 >> 16 & 0xffff_ffff, self.0 & 0xffff);
        write!(f, "seat {seat}, process {generation}, life {life}")
    }
}

/// The head of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// The cell that it was published in.
    pub cell: u32,
    /// The lane that it was published in.
    pub lane: u32,
    /// Its number in that lane.
    pub lane_sequence: u64,
    /// Who sent it.
    pub author: Author,
    /// Its number among those of its author.
    pub number: u64,
}

impl Record {
    /// Writes the message over all of `space`, which is at least [`HEAD_BYTES`] long, with another
    /// body for every message.
    pub fn write(&self, space: &mut [u8]) {
        let len = space.len() as u64;
        let (head, body) = space.split_at_mut(HEAD_BYTES);
        let mut word = self.number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ self.author.0;
        let mut words = body.chunks_exact_mut(8);
        for chunk in &mut words {
            chunk.copy_from_slice(&word.to_le_bytes());
            word = word.wrapping_add(0xD1B5_4A32_D192_ED03);
        }
        for (byte, of) in words.into_remainder().iter_mut().zip(word.to_le_bytes()) {
            *byte = of;
        }
        head[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        head[8..16].copy_from_slice(&len.to_le_bytes());
        head[16..20].copy_from_slice(&self.cell.to_le_bytes());
        head[20..24].copy_from_slice(&self.lane.to_le_bytes());
        head[24..32].copy_from_slice(&self.lane_sequence.to_le_bytes());
        head[32..40].copy_from_slice(&self.author.0.to_le_bytes());
        head[40..48].copy_from_slice(&self.number.to_le_bytes());
        let check = crc32fast::hash(&space[8..]);
        space[4..8].copy_from_slice(&check.to_le_bytes());
    }

    /// Reads a message to its last byte; returns its head and its checksum.
    ///
    /// # Errors
    ///
    /// A sentence that says how it is torn.
    pub fn read(bytes: &[u8]) -> Result<(Self, u32), String> {
        if bytes.len() < HEAD_BYTES {
            return Err(format!("a message has {} bytes, which nobody sends", bytes.len()));
        }
        let half = |at: usize| {
            u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range has four bytes"))
        };
        let word = |at: usize| {
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range has eight bytes"))
        };
        let (check, found) = (half(4), crc32fast::hash(&bytes[8..]));
        if half(0) != MAGIC || word(8) != bytes.len() as u64 || check != found {
            return Err(format!(
                "a message of {} bytes is torn: mark {:x}, length {}, checksum {check:x}, whose \
                 bytes have the checksum {found:x}",
                bytes.len(),
                half(0),
                word(8),
            ));
        }
        let record = Self {
            cell: half(16),
            lane: half(20),
            lane_sequence: word(24),
            author: Author(word(32)),
            number: word(40),
        };
        Ok((record, check))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let author = Author::new(3, 17, 2);
        Record { cell: 1, lane: 2, lane_sequence: 1_000_000_007, author, number: 99 }
    }

    #[test]
    fn message_is_read_as_it_was_written() {
        for len in [HEAD_BYTES, HEAD_BYTES + 1, 200, 4_099] {
            let mut space = vec![0xaa; len];
            record().write(&mut space);
            assert_eq!(Record::read(&space).expect("it is whole").0, record());
        }
        assert_eq!(record().author.to_string(), "seat 3, process 17, life 2");
    }

    #[test]
    fn every_changed_byte_is_found() {
        let mut space = vec![0; 131];
        record().write(&mut space);
        for at in 0..space.len() {
            space[at] ^= 0x10;
            assert!(Record::read(&space).is_err(), "byte {at}");
            space[at] ^= 0x10;
        }
        assert!(Record::read(&space[..130]).is_err());
        assert!(Record::read(&space[..7]).is_err());
    }
}
