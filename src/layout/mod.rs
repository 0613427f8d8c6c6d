//! The bytes that processes agree on: words, offsets, headers. No system calls, no orderings.
//!
//! `docs/format.md` is the normative description; a test ties it to the files of this room.

#[cfg(not(windlass_loom))]
pub(crate) mod control;
pub(crate) mod entry;
pub(crate) mod frame;
#[cfg(not(windlass_loom))]
pub(crate) mod header;
pub(crate) mod lane;
pub(crate) mod order;
pub(crate) mod owner;
