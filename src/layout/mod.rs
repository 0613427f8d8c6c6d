//! The bytes that processes agree on: words, offsets, headers. No system calls, no orderings.
//!
//! `docs/format.md` is the normative description; a test ties it to the files of this room.

pub mod call;
pub mod channel;
pub mod chunk;
#[cfg(not(windlass_loom))]
pub(crate) mod control;
pub mod crc;
#[cfg(not(windlass_loom))]
pub(crate) mod cursor;
pub mod entry;
pub mod frame;
#[cfg(not(windlass_loom))]
pub(crate) mod header;
pub mod lane;
#[cfg(not(windlass_loom))]
pub(crate) mod log;
pub mod order;
pub mod owner;
pub mod place;
#[cfg(not(windlass_loom))]
pub(crate) mod queue;
pub mod record;
#[cfg(not(windlass_loom))]
pub(crate) mod service;
pub mod token;
