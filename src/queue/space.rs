//! The payloads of the chunks of a queue.
//!
//! Who may touch which bytes is what the state words say (`ring::pool`, I2): the producer while the chunk is loaned,
//! the consumer while it is taken. A consumer maps them to read.

#![allow(unsafe_code)]

use crate::layout::queue::Shape;
use crate::message::arena::LoanArena;
use crate::ring::pool::Held;
use crate::shm::place::Region;
use crate::sync::Ordering::Relaxed;
use capnp::message::Builder;

/// Payload bytes that [`Data::own`] makes the caller the owner of.
const OWN_BYTES_MAX: usize = 256;

/// The data file of a queue.
#[derive(Clone)]
pub struct Data {
    region: Region,
    /// The same bytes, mapped to write.
    writable: Region,
    shape: Shape,
}

impl Data {
    /// The payloads in `region`, which is as long as `shape` says; `writable` is the same bytes, mapped to write.
    pub fn new(region: Region, writable: Region, shape: Shape) -> Self {
        assert!(region.len() as u64 >= shape.data_bytes() && writable.len() == region.len());
        Self { region, writable, shape }
    }

    /// Stores the words of the first lines of a payload of `len` bytes that the caller has taken, as they are.
    ///
    /// A line that was only read is shared by two caches, and the next producer to write it has to wait until the other
    /// cache has given it up, at its next barrier; nothing that it could do before helps. A line that was written
    /// belongs to one cache and comes with everything else. On the processors where this was measured it makes a
    /// producer nearly twice as fast and costs the consumer next to nothing.
    #[inline]
    pub fn own(&self, held: &Held, len: usize) {
        let (at, _) = self.shape.payload(held.chunk);
        for line in (at..at + len.min(OWN_BYTES_MAX)).step_by(64) {
            let word = self.writable.word(line);
            // Relaxed: the caller owns the chunk, and the value stays.
            word.store(word.load(Relaxed), Relaxed);
        }
    }

    /// The mark at the end of the file.
    pub fn last(&self) -> u64 {
        self.region.last()
    }

    /// Bytes that a chunk takes.
    pub fn capacity(&self, chunk: usize) -> usize {
        self.shape.payload(chunk).1
    }

    /// The first `len` bytes of a chunk that the caller has taken, or holds as a loan.
    #[inline]
    pub fn read(&self, held: &Held, len: usize) -> &[u8] {
        let (at, capacity) = self.shape.payload(held.chunk);
        assert!(len <= capacity, "a length that was not checked");
        // SAFETY: contract 4: the state word names the caller as the owner of the chunk, so nobody writes it until the
        // caller gives it back, which ends the borrow of what it was read through.
        unsafe { self.region.bytes(at, len) }
    }

    /// The first `len` bytes of a chunk that the caller holds as a loan.
    #[inline]
    pub fn write(&mut self, held: &Held, len: usize) -> &mut [u8] {
        let (at, capacity) = self.shape.payload(held.chunk);
        assert!(len <= capacity, "a length that was not checked");
        // SAFETY: contract 4: the state word names the caller as the owner of the loan, and nobody else touches the
        // bytes of a loan; `&mut self` makes this the only slice of this process. A producer maps them writable.
        unsafe { self.writable.bytes_mut(at, len) }
    }

    /// A builder over the first `len` bytes of a chunk, at least eight and a multiple of them, that the caller holds as
    /// a loan. The caller keeps the loan, and these payloads, for as long as it keeps the builder.
    pub fn build(&mut self, held: &Held, len: usize) -> Builder<LoanArena> {
        let space = self.write(held, len);
        space.fill(0);
        // SAFETY: contract 4: the bytes are the caller's alone while it holds the loan, which it does for as long as it
        // keeps the builder; just zeroed; chunks begin at multiples of 64 from a page.
        let arena = unsafe { LoanArena::new(space) };
        Builder::new(arena)
    }
}
