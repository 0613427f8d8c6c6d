//! The operating system: files, mappings, locks, futexes. Nothing above this room makes a system call.
//!
//! # The contract that every `SAFETY` comment of this crate derives from
//!
//! 1. **Bounds.** A [`Region`](place::Region) covers `len` bytes that stay mapped for as long as any clone of it lives.
//!    Offsets are checked against `len` where a reference is made.
//! 2. **No shrinking.** Windlass never truncates a file that it has mapped, and reserves its memory with
//!    `fallocate`. If anybody else truncates one, [`loss`] puts zeroed pages in place of those that are gone and notes
//!    it, so contract 1 holds; whoever acts on what it read asks for the note first.
//! 3. **Words.** Everything that two processes may touch at once is an aligned 64-bit (or 32-bit futex) word and is
//!    accessed through an atomic only.
//! 4. **Bytes.** All other bytes belong to exactly one side at a time: to the publisher of the lane from the moment a
//!    segment is taken until the commit of the frame, to everybody, read-only, from the commit until no pin is left
//!    on a retired segment. The bytes of a chunk of a queue, and of a call of a service, belong to whom its state word
//!    names (`ring::pool`, `ring::calls`).
//! 5. **Input.** A value read from a region is checked before it is used as an index, a length or an offset.

#[cfg(all(test, not(windlass_loom)))]
mod child;
#[cfg(not(windlass_loom))]
pub(crate) mod clock;
#[cfg(not(windlass_loom))]
pub(crate) mod home;
#[cfg(not(windlass_loom))]
pub(crate) mod loss;
#[cfg(not(windlass_loom))]
pub(crate) mod map;
#[cfg(not(windlass_loom))]
pub(crate) mod named;
#[cfg(not(windlass_loom))]
pub(crate) mod node;
pub mod place;
pub mod span;
#[cfg(not(windlass_loom))]
pub(crate) mod sys;
