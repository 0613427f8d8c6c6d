//! The control file of a topic: options, leases, subscriber slots, pins, schema.
//!
//! ```text
//!   header page │ topic words │ lane leases │ subscriber slots │ pins │ words of a log │ schema
//! ```
//!
//! Every member of the topic maps it writable; the data of the lanes is elsewhere.

use crate::error::{Error, Result};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::limits::{self, HEADER_BYTES, LINE};
use crate::ring::log;
use crate::ring::pins::Pins;
use crate::ring::slots::Slots;

/// Nonzero once the topic is closed.
pub const CLOSED_AT: usize = HEADER_BYTES;
/// Raised whenever a lane is born.
pub const BORN_COUNT_AT: usize = HEADER_BYTES + 8;
/// One above the highest subscriber slot ever owned.
pub const SLOTS_HIGH_AT: usize = HEADER_BYTES + 16;
/// Subscriber slots freed because their process was dead.
pub const REAPED_AT: usize = HEADER_BYTES + LINE;
/// Lanes taken over from a dead publisher.
pub const TAKEN_OVER_AT: usize = HEADER_BYTES + LINE + 8;
/// Subscribers that lost their backlog.
pub const EVICTED_AT: usize = HEADER_BYTES + LINE + 16;
/// Times that publishers woke sleepers.
pub const WOKEN_AT: usize = HEADER_BYTES + LINE + 24;
/// The hint of the bell.
pub const HINT_AT: usize = HEADER_BYTES + 2 * LINE;
/// The futex word of the bell.
pub const WAKE_AT: usize = HEADER_BYTES + 3 * LINE;
const LANES_AT: usize = HEADER_BYTES + 4 * LINE;

/// Offset of a lane's lease in its line.
const LEASE_AT: usize = 0;
/// Offset of the word that says that the lane's file exists.
const BORN_AT: usize = 8;
/// Offset of the word that names who blocks the lane's publisher: an owner word, or 0.
const BLOCKER_AT: usize = 16;

/// What a topic was created with. Immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Whether publishers wait for subscribers.
    pub reliable: bool,
    /// Whether the topic has one total order.
    pub ordered: bool,
    /// Whether pages are touched when files are mapped.
    pub prefault: bool,
    /// Whether messages are Cap'n Proto of a stored schema.
    pub typed: bool,
    /// Whether the lanes and the order are those of a log.
    pub durable: bool,
    /// Lanes.
    pub publishers_max: u32,
    /// Subscriber slots.
    pub subscribers_max: u32,
    /// Segments of a lane.
    pub segments: u32,
    /// Bytes of a segment, a power of two.
    pub segment_bytes: u64,
    /// Places of the order log, a power of two; 0 if the topic is not ordered.
    pub order_slots: u64,
    /// After how long a publisher evicts whoever it waits for; 0 = never.
    pub evict_after_ns: u64,
    /// Permission bits of the files.
    pub mode: u32,
    /// Bytes of the stored schema.
    pub schema_bytes: u64,
    /// Checksum of the stored schema.
    pub schema_crc: u32,
}

impl Shape {
    /// The header fields that say all this.
    pub fn to_header(self, identity: u64) -> Header {
        let flags = u64::from(self.reliable)
            | u64::from(self.ordered) << 1
            | u64::from(self.prefault) << 2
            | u64::from(self.typed) << 3
            | u64::from(self.durable) << 4;
        let fields: [u64; FIELDS] = [
            flags,
            u64::from(self.publishers_max),
            u64::from(self.subscribers_max),
            u64::from(self.segments),
            self.segment_bytes,
            self.order_slots,
            self.evict_after_ns,
            u64::from(self.mode),
            self.schema_bytes,
            u64::from(self.schema_crc),
        ];
        Header { kind: Kind::Control, file_bytes: self.file_bytes(), identity, fields }
    }

    /// The shape that a checked header describes, with every field inside its limits.
    pub fn from_header(header: &Header, file: impl std::fmt::Display) -> Result<Self> {
        let [flags, publishers, subscribers, segments, segment_bytes, ..] = header.fields;
        let [.., order_slots, evict, mode, schema_bytes, schema_crc] = header.fields;
        let file = file.to_string();
        let within = |field: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(value)
            } else {
                Err(Error::corrupt(&file, field, value, format!("{least} to {most}")))
            }
        };
        let shape = Self {
            reliable: flags & 1 != 0,
            ordered: flags & 2 != 0,
            prefault: flags & 4 != 0,
            typed: flags & 8 != 0,
            durable: flags & 16 != 0,
            publishers_max: within("publishers_max", publishers, 1, limits::PUBLISHERS_MAX.into())?
                as u32,
            subscribers_max: within(
                "subscribers_max",
                subscribers,
                1,
                limits::SUBSCRIBERS_MAX.into(),
            )? as u32,
            segments: within(
                "segments_per_lane",
                segments,
                limits::SEGMENTS_MIN.into(),
                limits::SEGMENTS_MAX.into(),
            )? as u32,
            segment_bytes: within(
                "segment_bytes",
                segment_bytes,
                limits::SEGMENT_BYTES_MIN,
                limits::SEGMENT_BYTES_MAX,
            )?,
            order_slots: within("order_slots", order_slots, 0, limits::ORDER_SLOTS_MAX)?,
            evict_after_ns: evict,
            mode: within("mode", mode, 0, 0o777)? as u32,
            schema_bytes: within("schema_bytes", schema_bytes, 0, limits::SCHEMA_BYTES_MAX as u64)?,
            schema_crc: within("schema_crc", schema_crc, 0, u32::MAX.into())? as u32,
        };
        let has_ring = shape.ordered && !shape.durable;
        if shape.durable && (!shape.ordered || shape.reliable || shape.order_slots != 0) {
            return Err(Error::corrupt(
                &file,
                "the options",
                "those of no topic",
                "a durable one's",
            ));
        }
        if has_ring && shape.order_slots < limits::ORDER_SLOTS_MIN {
            let least = limits::ORDER_SLOTS_MIN;
            return Err(Error::corrupt(&file, "order_slots", shape.order_slots, least));
        }
        if shape.segments < 3 && !shape.durable && (!shape.reliable || shape.evict_after_ns > 0) {
            return Err(Error::corrupt(&file, "segments_per_lane", shape.segments, "at least 3"));
        }
        let powers = shape.segment_bytes.is_power_of_two()
            && (!has_ring || shape.order_slots.is_power_of_two());
        if !powers {
            return Err(Error::corrupt(&file, "segment_bytes or order_slots", "odd", "2^n"));
        }
        if header.file_bytes != shape.file_bytes() {
            return Err(Error::corrupt(&file, "its length", header.file_bytes, shape.file_bytes()));
        }
        Ok(shape)
    }

    /// Where the subscriber slots begin.
    pub fn slots_at(&self) -> usize {
        LANES_AT + self.publishers_max as usize * LINE
    }

    /// Where the pins begin.
    pub fn pins_at(&self) -> usize {
        let (slots, lanes) = (self.subscribers_max as usize, self.publishers_max as usize);
        self.slots_at() + Slots::bytes(slots, lanes)
    }

    /// Where the words of a log begin, if the topic is durable.
    pub fn head_at(&self) -> usize {
        let (slots, lanes) = (self.subscribers_max as usize, self.publishers_max as usize);
        let end = self.pins_at() + Pins::bytes(lanes, self.segments as usize, slots);
        if self.durable {
            end.next_multiple_of(LINE)
        } else {
            end
        }
    }

    /// Where the schema begins.
    pub fn schema_at(&self) -> usize {
        let head = if self.durable { log::bytes(self.publishers_max as usize) } else { 0 };
        self.head_at() + head
    }

    /// Bytes of the whole control file: pages.
    pub fn file_bytes(&self) -> u64 {
        let schema_bytes = self.schema_bytes.next_multiple_of(8);
        let bytes = self.schema_at() as u64 + schema_bytes + END_BYTES as u64;
        bytes.next_multiple_of(HEADER_BYTES as u64)
    }

    /// Byte offset of the lease of a lane.
    pub fn lease_at(&self, lane: usize) -> usize {
        LANES_AT + lane * LINE + LEASE_AT
    }

    /// Byte offset of the word that says that a lane's file exists.
    pub fn born_at(&self, lane: usize) -> usize {
        LANES_AT + lane * LINE + BORN_AT
    }

    /// Byte offset of the word that names who blocks a lane's publisher.
    pub fn blocker_at(&self, lane: usize) -> usize {
        LANES_AT + lane * LINE + BLOCKER_AT
    }

    /// The header of a lane file of this topic.
    pub fn lane_header(&self, identity: u64, lane: usize) -> Header {
        let bytes = super::lane::file_bytes(self.segments as usize, self.segment_bytes as usize);
        let mut fields = [0; FIELDS];
        fields[..3].copy_from_slice(&[lane as u64, self.segments.into(), self.segment_bytes]);
        Header { kind: Kind::Lane, file_bytes: bytes + END_BYTES as u64, identity, fields }
    }

    /// The header of the order log of this topic.
    pub fn order_header(&self, identity: u64) -> Header {
        let lanes = self.publishers_max as usize;
        let mut fields = [0; FIELDS];
        fields[..2].copy_from_slice(&[self.publishers_max.into(), self.order_slots]);
        let file_bytes = super::order::file_bytes(lanes, self.order_slots) + END_BYTES as u64;
        Header { kind: Kind::Order, file_bytes, identity, fields }
    }
}
