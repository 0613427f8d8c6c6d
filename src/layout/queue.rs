//! The files of a work queue: options, consumers, ring and chunks in one, payloads in the other.
//!
//! ```text
//!   control:  header page │ queue words │ consumer slots │ ring │ chunks │ schema
//!   data:     header page │ payloads of class 0 │ payloads of class 1 │ …
//! ```
//!
//! Every member of the queue maps both files writable. What an application reads it reads through a second mapping of
//! the data, which is read-only.

use crate::error::{Error, Result};
use crate::layout::chunk::DELIVERIES_MAX;
use crate::layout::chunk::{CHUNK_BITS, ENTRY_BITS};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::layout::token::{self, Form};
use crate::limits::{self, HEADER_BYTES, LINE};
use crate::ring::pool::Pool;
use crate::ring::slots::Slots;
use std::ops::Range;

/// Nonzero once the queue is closed.
pub const CLOSED_AT: usize = HEADER_BYTES;
/// One above the highest consumer slot ever owned.
pub const SLOTS_HIGH_AT: usize = HEADER_BYTES + 8;
/// When somebody last looked for what the dead left, and for what is due.
pub const ROUND_AT: usize = HEADER_BYTES + LINE;
/// Messages that were delivered again.
pub const REDELIVERED_AT: usize = HEADER_BYTES + 2 * LINE;
/// Messages that were delivered as often as they may be.
pub const DIED_AT: usize = HEADER_BYTES + 2 * LINE + 8;
/// Loans of dead producers that were freed.
pub const FREED_AT: usize = HEADER_BYTES + 2 * LINE + 16;
/// Consumer slots freed because their process was dead.
pub const REAPED_AT: usize = HEADER_BYTES + 2 * LINE + 24;
/// Times that somebody woke sleepers.
pub const WOKEN_AT: usize = HEADER_BYTES + 2 * LINE + 32;
/// The hint of the bells.
pub const HINT_AT: usize = HEADER_BYTES + 3 * LINE;
const SLOTS_AT: usize = HEADER_BYTES + 4 * LINE;

/// Header fields before those of the classes.
const FIXED: usize = FIELDS - limits::CLASSES_MAX;

/// Chunks of one size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// How many there are; 0 if the class does not exist.
    pub count: u32,
    /// Bytes of each: a multiple of the space that a line of memory takes.
    pub bytes: u32,
}

/// What a queue was created with. Immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether messages are Cap'n Proto of a stored schema.
    pub typed: bool,
    /// Consumer slots.
    pub consumers_max: u32,
    /// How often a message is delivered at most.
    pub deliveries_max: u32,
    /// Permission bits of the files.
    pub mode: u32,
    /// Bytes of the stored schema.
    pub schema_bytes: u64,
    /// Checksum of the stored schema.
    pub schema_crc: u32,
    /// The classes, by ascending size; those that do not exist come last.
    pub classes: [Class; limits::CLASSES_MAX],
}

impl Shape {
    /// The header of the control file.
    pub fn to_header(self, identity: u64) -> Header {
        let mut fields = [0; FIELDS];
        fields[..FIXED].copy_from_slice(&[
            u64::from(self.typed),
            self.consumers_max.into(),
            self.deliveries_max.into(),
            self.mode.into(),
            self.schema_bytes,
            self.schema_crc.into(),
        ]);
        for (field, class) in fields[FIXED..].iter_mut().zip(&self.classes) {
            *field = u64::from(class.count) << 32 | u64::from(class.bytes);
        }
        Header { kind: Kind::Queue, file_bytes: self.control_bytes(), identity, fields }
    }

    /// The header of the data file.
    pub fn data_header(self, identity: u64) -> Header {
        let mut fields = [0; FIELDS];
        fields[FIXED..].copy_from_slice(&self.to_header(identity).fields[FIXED..]);
        Header { kind: Kind::Chunks, file_bytes: self.data_bytes(), identity, fields }
    }

    /// The shape that a checked header describes, with every field inside its limits.
    pub fn from_header(header: &Header, file: impl std::fmt::Display) -> Result<Self> {
        let [typed, consumers, deliveries, mode, schema_bytes, schema_crc, ..] = header.fields;
        let file = file.to_string();
        let within = |field: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                Err(Error::corrupt(&file, field, value, format!("{least} to {most}")))
            }
        };
        let mut classes = [Class::default(); limits::CLASSES_MAX];
        for (class, field) in classes.iter_mut().zip(&header.fields[FIXED..]) {
            *class = Class { count: (field >> 32) as u32, bytes: *field as u32 };
        }
        let shape = Self {
            typed: within("typed", typed, 0, 1)? == 1,
            consumers_max: within("consumers_max", consumers, 1, limits::CONSUMERS_MAX.into())?
                as u32,
            deliveries_max: within("max_deliveries", deliveries, 1, DELIVERIES_MAX.into())? as u32,
            mode: within("mode", mode, 0, 0o777)? as u32,
            schema_bytes: within("schema_bytes", schema_bytes, 0, limits::SCHEMA_BYTES_MAX as u64)?,
            schema_crc: within("schema_crc", schema_crc, 0, u32::MAX.into())? as u32,
            classes,
        };
        if let Err((found, expected)) = shape.check_classes() {
            return Err(Error::corrupt(&file, "its classes of chunks", found, expected));
        }
        if header.file_bytes != shape.control_bytes() {
            let expected = shape.control_bytes();
            return Err(Error::corrupt(&file, "its length", header.file_bytes, expected));
        }
        Ok(shape)
    }

    /// Whether the classes are what they should be; if not, what was found and what was expected.
    pub fn check_classes(&self) -> std::result::Result<(), (String, String)> {
        let mut before = 0;
        let mut over = false;
        for Class { count, bytes } in self.classes {
            let found = format!("{count} chunks of {bytes} bytes");
            if count == 0 && bytes == 0 {
                over = true;
                continue;
            }
            let (least, most) = (limits::CHUNK_ALIGN as u32, limits::CHUNK_BYTES_MAX);
            if over || bytes <= before || !bytes.is_multiple_of(least) || bytes > most {
                let expected = format!(
                    "sizes that ascend, multiples of {least} up to {most}, one behind the other"
                );
                return Err((found, expected));
            }
            if count == 0 || count > limits::CHUNKS_MAX {
                return Err((found, format!("1 to {} chunks", limits::CHUNKS_MAX)));
            }
            before = bytes;
        }
        let chunks: u64 = self.classes.iter().map(|class| u64::from(class.count)).sum();
        if chunks == 0 || chunks > limits::CHUNKS_MAX.into() {
            let expected = format!("1 to {} chunks in all", limits::CHUNKS_MAX);
            return Err((format!("{chunks} chunks"), expected));
        }
        if self.data_bytes() > limits::QUEUE_BYTES_MAX {
            let expected = format!("at most {} bytes", limits::QUEUE_BYTES_MAX);
            return Err((format!("{} bytes of chunks", self.data_bytes()), expected));
        }
        Ok(())
    }

    /// The classes that exist.
    pub fn classes(&self) -> impl Iterator<Item = Class> + '_ {
        self.classes.iter().copied().filter(|class| class.count > 0)
    }

    /// Chunks of all classes.
    pub fn chunks(&self) -> usize {
        self.classes.iter().map(|class| class.count as usize).sum()
    }

    /// The numbers of the chunks of a class.
    pub fn range(&self, class: usize) -> Range<usize> {
        let first = self.classes[..class].iter().map(|class| class.count as usize).sum();
        first..first + self.classes[class].count as usize
    }

    /// Where the payload of a chunk that exists lies in the data file, and how large it may be.
    pub fn payload(&self, chunk: usize) -> (usize, usize) {
        let mut at = HEADER_BYTES;
        let mut first = 0;
        for class in self.classes {
            let (count, bytes) = (class.count as usize, class.bytes as usize);
            if chunk < first + count {
                return (at + (chunk - first) * bytes, bytes);
            }
            at += count * bytes;
            first += count;
        }
        unreachable!("chunk {chunk} of {} was checked before", self.chunks())
    }

    /// Bytes of the data file: pages.
    pub fn data_bytes(&self) -> u64 {
        let payloads =
            self.classes.iter().map(|class| u64::from(class.count) * u64::from(class.bytes));
        let bytes = HEADER_BYTES as u64 + payloads.sum::<u64>() + END_BYTES as u64;
        bytes.next_multiple_of(HEADER_BYTES as u64)
    }

    /// Where the consumer slots begin.
    pub fn slots_at(&self) -> usize {
        SLOTS_AT
    }

    /// Slots of the ring: two for each chunk.
    pub fn entries(&self) -> u64 {
        (2 * self.chunks() as u64).next_power_of_two()
    }

    /// How the words of the ring are divided.
    pub fn form(&self) -> Form {
        Form::new(ENTRY_BITS)
    }

    /// Where the ring begins.
    pub fn ring_at(&self) -> usize {
        self.slots_at() + Slots::bytes(self.consumers_max as usize, 0)
    }

    /// Where the words of the chunks begin.
    pub fn pool_at(&self) -> usize {
        (self.ring_at() + token::bytes(self.entries()) as usize).next_multiple_of(LINE)
    }

    /// Where the schema begins.
    pub fn schema_at(&self) -> usize {
        self.pool_at() + Pool::bytes(self.chunks())
    }

    /// Bytes of the control file: pages.
    pub fn control_bytes(&self) -> u64 {
        let schema_bytes = self.schema_bytes.next_multiple_of(8);
        let bytes = self.schema_at() as u64 + schema_bytes + END_BYTES as u64;
        bytes.next_multiple_of(HEADER_BYTES as u64)
    }
}

const _: () = assert!(limits::CHUNKS_MAX < 1 << CHUNK_BITS);
const _: () = assert!(limits::CHUNK_ALIGN.is_multiple_of(8));
