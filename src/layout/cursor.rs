//! The file of a cursor: how far the consumer of that name has come in a log.
//!
//! ```text
//!        0   header page; at 128: who holds the cursor, process and PID namespace; means something while it is locked
//!     4096   slot 0:  number │ next sequence │ rewound │ time │ CRC-32C of these, with bit 32 set
//!     8192   slot 1:  the same
//! ```
//!
//! The slots are written by turns, each with a number one above that of the other. Whatever a crash does to the one
//! that is being written, the other one stands.

use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::limits::HEADER_BYTES;

/// A committed position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Raised by every one; the first is 1.
    pub number: u64,
    /// The first sequence that is not consumed.
    pub next: u64,
    /// How many messages the mark before it was further, because a recovery cut them off.
    pub rewound: u64,
    /// When it was committed, in nanoseconds since 1970.
    pub time: u64,
}

const WORDS: usize = 5;

/// Where the process is named that holds the cursor.
pub const HOLDER_AT: u64 = 128;

/// What the name of the file of every cursor begins with.
pub const PREFIX: &str = "cursor-";

impl Mark {
    /// Bytes of the file.
    pub const FILE_BYTES: u64 = (3 * HEADER_BYTES + END_BYTES) as u64;

    /// Bytes of a slot.
    pub const SLOT_BYTES: usize = WORDS * 8;

    /// Where the two slots are: in pages of their own.
    pub const SLOTS: [u64; 2] = [HEADER_BYTES as u64, 2 * HEADER_BYTES as u64];

    /// The header of the file.
    pub fn header(identity: u64) -> Header {
        let fields = [0; FIELDS];
        Header { kind: Kind::Cursor, file_bytes: Self::FILE_BYTES, identity, fields }
    }

    /// Where this one belongs, so that the one before it stays.
    pub fn slot_at(&self) -> u64 {
        Self::SLOTS[(self.number % 2) as usize]
    }

    /// The bytes of a slot.
    pub fn to_bytes(self) -> [u8; Self::SLOT_BYTES] {
        let mut bytes = [0; Self::SLOT_BYTES];
        let words = [self.number, self.next, self.rewound, self.time];
        for (at, word) in bytes.chunks_exact_mut(8).zip(words) {
            at.copy_from_slice(&word.to_le_bytes());
        }
        let end = Self::SLOT_BYTES - 8;
        // Not zero for a slot of zeroes.
        let crc = u64::from(crc32c::crc32c(&bytes[..end])) | 1 << 32;
        bytes[end..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// What a slot says; `None` if its checksum is wrong, or it was never written.
    pub fn from_bytes(bytes: &[u8; Self::SLOT_BYTES]) -> Option<Self> {
        let word = |index: usize| {
            let mut eight = [0; 8];
            eight.copy_from_slice(&bytes[index * 8..index * 8 + 8]);
            u64::from_le_bytes(eight)
        };
        let crc = u64::from(crc32c::crc32c(&bytes[..Self::SLOT_BYTES - 8])) | 1 << 32;
        let found = Self { number: word(0), next: word(1), rewound: word(2), time: word(3) };
        (word(4) == crc).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_with_a_flipped_bit_is_none() {
        let mark = Mark { number: 3, next: 77, rewound: 0, time: 5 };
        let bytes = mark.to_bytes();
        assert_eq!(Mark::from_bytes(&bytes), Some(mark));
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes;
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Mark::from_bytes(&bytes), None);
        }
        assert_eq!(Mark::from_bytes(&[0; Mark::SLOT_BYTES]), None);
    }
}
