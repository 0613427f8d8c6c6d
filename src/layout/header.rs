//! The static part of every shared file: what it is, which version, and a checksum.
//!
//! ```text
//!   byte   0   magic "WINDLASS"
//!          8   layout version << 32 | kind of file
//!         16   byte-order mark
//!         24   bytes of the whole file
//!         32   identity of the bus or topic that it belongs to
//!         40   fields of the kind, eight bytes each
//!        120   CRC-32 of bytes 0..120
//! ```
//!
//! The last eight bytes of the file repeat the identity.
//!
//! It is written before the file has its name and never changes. [`Raw`] is what was read; [`Header`] is what was
//! checked.

use crate::error::{Error, ErrorKind, Result};
use crate::shm::place::Region;
use crate::sync::Ordering::Relaxed;

/// What every file begins with.
pub const MAGIC: u64 = u64::from_le_bytes(*b"WINDLASS");
const BYTE_ORDER: u64 = 0x0102_0304_0506_0708;
const CHECK_AT: usize = 120;

/// Version of the layout that this library reads and writes.
pub const VERSION: u32 = 1;

/// Bytes at the end of every file that hold its identity once more: they are gone when it was cut short, be it for a
/// moment.
pub const END_BYTES: usize = 8;

/// Number of fields that a kind of file may have.
pub const FIELDS: usize = 10;

/// What a shared file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// The control file of a bus.
    Bus = 1,
    /// The control file of a topic.
    Control = 2,
    /// A lane of a topic.
    Lane = 3,
    /// The order log of a topic.
    Order = 4,
    /// A ring of tokens.
    Tokens = 5,
    /// The control file of a work queue.
    Queue = 6,
    /// The payloads of a work queue.
    Chunks = 7,
    /// A channel.
    Channel = 8,
    /// The control file of a service.
    Service = 9,
    /// The requests and responses of a service.
    Calls = 10,
    /// What a log is: its options and its schema.
    Log = 11,
    /// Which topic uses a log.
    Claim = 12,
    /// A segment of a lane of a log.
    Segment = 13,
    /// A piece of the order of a log.
    Places = 14,
    /// How far a log is known to be on disk.
    Checkpoint = 15,
    /// Where the log of a durable topic is.
    Site = 16,
    /// How far a named consumer of a log has come.
    Cursor = 17,
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the file is.
    pub kind: Kind,
    /// Bytes of the whole file.
    pub file_bytes: u64,
    /// The bus or topic that the file belongs to.
    pub identity: u64,
    /// What else the kind says. Checked by the kind.
    pub fields: [u64; FIELDS],
}

/// Header words as they lie in a file.
struct Raw([u64; CHECK_AT / 8 + 1]);

impl Raw {
    fn crc(&self) -> u64 {
        let mut hasher = crc32fast::Hasher::new();
        for word in &self.0[..CHECK_AT / 8] {
            hasher.update(&word.to_le_bytes());
        }
        u64::from(hasher.finalize())
    }
}

impl Header {
    /// Writes the header of a file that has no name yet.
    pub fn write(&self, region: &Region) {
        let mut raw = Raw([0; CHECK_AT / 8 + 1]);
        raw.0[0] = MAGIC;
        raw.0[1] = (u64::from(VERSION) << 32) | self.kind as u64;
        raw.0[2] = BYTE_ORDER;
        raw.0[3] = self.file_bytes;
        raw.0[4] = self.identity;
        raw.0[5..5 + FIELDS].copy_from_slice(&self.fields);
        raw.0[CHECK_AT / 8] = raw.crc();
        for (index, word) in raw.0.iter().enumerate() {
            // Relaxed: published by the rename of the file.
            region.word(index * 8).store(*word, Relaxed);
        }
        region.word(region.len() - END_BYTES).store(self.identity, Relaxed);
    }

    /// Reads and checks the header of `file`, which must be of `kind` and mapped as a whole.
    pub fn read(region: &Region, kind: Kind, file: impl std::fmt::Display) -> Result<Self> {
        if region.len() < CHECK_AT + 8 {
            let least = format!("at least {}", CHECK_AT + 8);
            return Err(Error::corrupt(file, "its length", region.len(), least));
        }
        let mut raw = Raw([0; CHECK_AT / 8 + 1]);
        for (index, word) in raw.0.iter_mut().enumerate() {
            // Relaxed: static since before the file had its name.
            *word = region.word(index * 8).load(Relaxed);
        }
        // On a machine of the other byte order the whole header was written in that order.
        if raw.0[0] == MAGIC.swap_bytes() || (raw.0[0] == MAGIC && raw.0[2] != BYTE_ORDER) {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{file} was written by a machine with another byte order; use it there, or \
                     remove the bus to start over"
                ),
            ));
        }
        if raw.0[0] != MAGIC {
            let found = format!("{:#018x}", raw.0[0]);
            return Err(Error::corrupt(file, "the magic number", found, "that of a windlass file"));
        }
        let version = (raw.0[1] >> 32) as u32;
        if version != VERSION {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "{file} has layout version {version}, this library reads version {VERSION}; \
                     let all processes use the same version of windlass, or remove the bus"
                ),
            ));
        }
        if raw.crc() != raw.0[CHECK_AT / 8] {
            let found = format!("{:#010x}", raw.0[CHECK_AT / 8]);
            let expected = format!("{:#010x}", raw.crc());
            return Err(Error::corrupt(file, "the header checksum", found, expected));
        }
        if raw.0[1] as u32 != kind as u32 {
            return Err(Error::corrupt(file, "its kind", raw.0[1] as u32, kind as u32));
        }
        if raw.0[3] != region.len() as u64 {
            return Err(Error::corrupt(file, "its length", region.len(), raw.0[3]));
        }
        if region.last() != raw.0[4] {
            let (found, expected) =
                (format!("{:#018x}", region.last()), format!("{:#018x}", raw.0[4]));
            return Err(Error::corrupt(file, "the mark at its end", found, expected));
        }
        let mut fields = [0; FIELDS];
        fields.copy_from_slice(&raw.0[5..5 + FIELDS]);
        Ok(Self { kind, file_bytes: raw.0[3], identity: raw.0[4], fields })
    }
}
