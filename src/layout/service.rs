//! The files of a service: options, clients, servers, ring and calls in one, requests and responses in the other.
//!
//! ```text
//!   control:  header page │ service words │ client slots │ server slots │ lanes │ ring │ calls │ schemas
//!   data:     header page │ request 0 │ parts of its answer │ request 1 │ …
//! ```
//!
//! Every member of the service maps both writable: each side writes half of every call.

use crate::error::{Error, Result};
use crate::layout::call::PAYLOAD_AT;
use crate::layout::chunk::DELIVERIES_MAX;
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::layout::token::{self, Form};
use crate::limits::{self, HEADER_BYTES, LINE};
use crate::ring::calls::Calls;
use crate::ring::slots::Slots;
use std::ops::Range;

/// Nonzero once the service is closed.
pub const CLOSED_AT: usize = HEADER_BYTES;
/// One above the highest client slot ever owned.
pub const CLIENTS_HIGH_AT: usize = HEADER_BYTES + 8;
/// One above the highest server slot ever owned.
pub const SERVERS_HIGH_AT: usize = HEADER_BYTES + 16;
/// When somebody last looked for what the dead left.
pub const ROUND_AT: usize = HEADER_BYTES + LINE;
/// Requests that were delivered again.
pub const REDELIVERED_AT: usize = HEADER_BYTES + 2 * LINE;
/// Calls whose servers died, or gave them back, so that they will not be answered.
pub const DIED_AT: usize = HEADER_BYTES + 2 * LINE + 8;
/// Calls whose clients gave them up, or died.
pub const ABANDONED_AT: usize = HEADER_BYTES + 2 * LINE + 16;
/// Client and server slots freed because their process was dead.
pub const REAPED_AT: usize = HEADER_BYTES + 2 * LINE + 24;
/// Times that somebody woke sleepers.
pub const WOKEN_AT: usize = HEADER_BYTES + 2 * LINE + 32;
/// The hint that a server may be asleep.
pub const HINT_AT: usize = HEADER_BYTES + 3 * LINE;
const CLIENTS_AT: usize = HEADER_BYTES + 4 * LINE;

/// In a lane: calls that its owners have made.
pub const LANE_CALLS_AT: usize = 0;
/// In a lane: the hint that its owner may be asleep.
pub const LANE_HINT_AT: usize = LINE;
const LANE_STRIDE: usize = 2 * LINE;

/// Bits of a token of the ring: the number of a call.
const TOKEN_BITS: u32 = 24;

/// What is stored of a schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Whether there is one: messages are Cap'n Proto.
    pub typed: bool,
    /// Its length.
    pub bytes: u32,
    /// Its checksum.
    pub crc: u32,
}

/// What a service was created with. Immutable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Client slots.
    pub clients_max: u32,
    /// Server slots.
    pub servers_max: u32,
    /// Calls of a client.
    pub calls: u32,
    /// Parts of a call: responses that a server may be ahead.
    pub ahead: u32,
    /// How often a request is delivered at most.
    pub deliveries_max: u32,
    /// Permission bits of the files.
    pub mode: u32,
    /// Bytes of a request: a multiple of the space that a line of memory takes.
    pub request_bytes: u32,
    /// Bytes of a response: such a multiple as well.
    pub response_bytes: u32,
    /// The schemas of requests and responses.
    pub schemas: [Stored; 2],
}

/// Bytes of a request or response that takes `bytes`, as they are stored.
pub fn whole_lines(bytes: u32) -> u32 {
    let align = limits::CHUNK_ALIGN as u32;
    bytes.max(1).checked_next_multiple_of(align).unwrap_or(bytes)
}

fn pair(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn halves(word: u64) -> [u32; 2] {
    [(word >> 32) as u32, word as u32]
}

impl Shape {
    /// The header of the control file.
    pub fn to_header(self, identity: u64) -> Header {
        let [asked, answered] = self.schemas;
        let typed = u64::from(asked.typed) | u64::from(answered.typed) << 1;
        let mut fields = [0; FIELDS];
        fields[..8].copy_from_slice(&[
            typed,
            pair(self.clients_max, self.servers_max),
            pair(self.calls, self.ahead),
            pair(self.deliveries_max, self.mode),
            pair(self.request_bytes, self.response_bytes),
            pair(asked.bytes, asked.crc),
            pair(answered.bytes, answered.crc),
            0,
        ]);
        Header { kind: Kind::Service, file_bytes: self.control_bytes(), identity, fields }
    }

    /// The header of the data file.
    pub fn data_header(self, identity: u64) -> Header {
        let fields = self.to_header(identity).fields;
        let mut few = [0; FIELDS];
        few[..3].copy_from_slice(&[fields[1], fields[2], fields[4]]);
        Header { kind: Kind::Calls, file_bytes: self.data_bytes(), identity, fields: few }
    }

    /// The shape that a checked header describes, with every field inside its limits.
    pub fn from_header(header: &Header, file: impl std::fmt::Display) -> Result<Self> {
        let fields = header.fields;
        let [clients_max, servers_max] = halves(fields[1]);
        let [calls, ahead] = halves(fields[2]);
        let [deliveries_max, mode] = halves(fields[3]);
        let [request, response] = halves(fields[4]);
        let typed = |bit: u32| fields[0] >> bit & 1 == 1;
        let stored = |word: u64, bit: u32| {
            let [bytes, crc] = halves(word);
            Stored { typed: typed(bit), bytes, crc }
        };
        let shape = Self {
            clients_max,
            servers_max,
            calls,
            ahead,
            deliveries_max,
            mode,
            request_bytes: request,
            response_bytes: response,
            schemas: [stored(fields[5], 0), stored(fields[6], 1)],
        };
        let file = file.to_string();
        let found = shape.check().and_then(|()| match fields[0] {
            0..=3 => Ok(()),
            typed => Err(("typed", typed, "0 to 3".to_owned())),
        });
        if let Err((field, found, expected)) = found {
            return Err(Error::corrupt(&file, field, found, expected));
        }
        if header.file_bytes != shape.control_bytes() {
            let expected = shape.control_bytes();
            return Err(Error::corrupt(&file, "its length", header.file_bytes, expected));
        }
        Ok(shape)
    }

    /// Whether every option is inside its limits; if not, which one, what it is and what was expected.
    pub fn check(&self) -> std::result::Result<(), (&'static str, u64, String)> {
        let within = |field, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(());
            }
            Err((field, u64::from(value), format!("{least} to {most}")))
        };
        within("clients_max", self.clients_max, 1, limits::CLIENTS_MAX)?;
        within("servers_max", self.servers_max, 1, limits::SERVERS_MAX)?;
        within("calls", self.calls, 1, limits::CALLS_MAX)?;
        within("ahead", self.ahead, 1, limits::AHEAD_MAX)?;
        within("max_deliveries", self.deliveries_max, 1, DELIVERIES_MAX)?;
        within("mode", self.mode, 0, 0o777)?;
        let stored =
            [("request_bytes", self.request_bytes), ("response_bytes", self.response_bytes)];
        for (field, bytes) in stored {
            if bytes > limits::CHUNK_BYTES_MAX || bytes != whole_lines(bytes) {
                let align = limits::CHUNK_ALIGN;
                let expected =
                    format!("whole lines of {align} bytes, at most {}", limits::CHUNK_BYTES_MAX);
                return Err((field, bytes.into(), expected));
            }
        }
        for schema in self.schemas {
            within("schema_bytes", schema.bytes, 0, limits::SCHEMA_BYTES_MAX as u32)?;
        }
        if self.data_bytes() > limits::QUEUE_BYTES_MAX {
            let expected = format!("at most {}", limits::QUEUE_BYTES_MAX);
            return Err(("bytes of all requests and responses", self.data_bytes(), expected));
        }
        Ok(())
    }

    /// Calls of all clients.
    pub fn count(&self) -> usize {
        self.clients_max as usize * self.calls as usize
    }

    /// The calls of a lane.
    pub fn lane(&self, lane: usize) -> Range<usize> {
        let first = lane * self.calls as usize;
        first..first + self.calls as usize
    }

    /// Bytes of a part, header included.
    pub fn part_bytes(&self) -> usize {
        PAYLOAD_AT + self.response_bytes as usize
    }

    /// Bytes of the data file: pages.
    pub fn data_bytes(&self) -> u64 {
        let parts = u64::from(self.ahead) * self.part_bytes() as u64;
        let calls = u64::from(self.clients_max) * u64::from(self.calls);
        let bytes = calls * (u64::from(self.request_bytes) + parts);
        (HEADER_BYTES as u64 + bytes + END_BYTES as u64).next_multiple_of(HEADER_BYTES as u64)
    }

    /// Where the client slots begin.
    pub fn clients_at(&self) -> usize {
        CLIENTS_AT
    }

    /// Where the server slots begin.
    pub fn servers_at(&self) -> usize {
        self.clients_at() + Slots::bytes(self.clients_max as usize, 0)
    }

    /// Where a lane begins.
    pub fn lane_at(&self, lane: usize) -> usize {
        let first = self.servers_at() + Slots::bytes(self.servers_max as usize, 0);
        first + lane * LANE_STRIDE
    }

    /// Slots of the ring: two for each call.
    pub fn entries(&self) -> u64 {
        (2 * self.count() as u64).next_power_of_two()
    }

    /// How the words of the ring are divided.
    pub fn form(&self) -> Form {
        Form::new(TOKEN_BITS)
    }

    /// Where the ring begins.
    pub fn ring_at(&self) -> usize {
        self.lane_at(self.clients_max as usize)
    }

    /// Where the words of the calls begin.
    pub fn calls_at(&self) -> usize {
        (self.ring_at() + token::bytes(self.entries()) as usize).next_multiple_of(LINE)
    }

    /// Where the schema of requests (0) or responses (1) begins.
    pub fn schema_at(&self, which: usize) -> usize {
        let first = self.calls_at() + Calls::bytes(self.count());
        let before: usize = self.schemas[..which]
            .iter()
            .map(|schema| (schema.bytes as usize).next_multiple_of(8))
            .sum();
        first + before
    }

    /// Bytes of the control file: pages.
    pub fn control_bytes(&self) -> u64 {
        let bytes = self.schema_at(2) as u64 + END_BYTES as u64;
        bytes.next_multiple_of(HEADER_BYTES as u64)
    }
}

const _: () = assert!(limits::CLIENTS_MAX as u64 * (limits::CALLS_MAX as u64) < 1 << TOKEN_BITS);
