//! Memory for a message that is built where it will be read.
//!
//! The first segment of the message is the space of a loan, behind the eight bytes of the stream header. If the message
//! outgrows it, further segments come from the heap, and the message is put together once when it is published: never
//! silently, and never panicking. The space is not cleared when the builder is dropped: what the builder used is
//! committed, and the lane knows that the rest is still zero.

#![allow(unsafe_code)]

use crate::message::segments::table_bytes;
use capnp::message::{Allocator, Builder};
use std::alloc::{alloc_zeroed, dealloc, handle_alloc_error, Layout};
use std::ptr::NonNull;

/// Bytes of the stream header of a message of one segment.
const HEADER: usize = 8;

/// The allocator of a message under construction.
pub struct LoanArena {
    first: NonNull<u8>,
    words: u32,
    given: bool,
    /// Words of the next segment from the heap: each is as large as all before.
    next_words: u32,
}

/// What a finished message needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finished {
    /// Nothing: it lies in its loan, `payload_bytes` long.
    InPlace {
        /// Bytes of the payload, header included.
        payload_bytes: usize,
    },
    /// To be put together in a space of `payload_bytes`.
    Outgrown {
        /// Bytes of the payload, header included.
        payload_bytes: usize,
    },
}

// SAFETY: the arena owns what its pointer points at, as a `&mut [u8]` would.
unsafe impl Send for LoanArena {}

impl LoanArena {
    /// An arena over `space`, the payload of a loan.
    ///
    /// # Safety
    ///
    /// * `space` is aligned to 8, all zero, and at least eight bytes.
    /// * It stays mapped, and nobody else writes it, for as long as the arena lives.
    pub unsafe fn new(space: &mut [u8]) -> Self {
        debug_assert_eq!(space.as_ptr() as usize % 8, 0);
        debug_assert!(space.len() >= HEADER);
        let words = u32::try_from((space.len() - HEADER) / 8).unwrap_or(u32::MAX);
        let first = NonNull::from(&mut space[HEADER..]).cast();
        Self { first, words, given: false, next_words: words.max(64) }
    }

    fn layout(words: u32) -> Layout {
        let bytes = words.max(1) as usize * 8;
        Layout::from_size_align(bytes, 8).expect("a segment is smaller than the address space")
    }

    /// Looks at a message that is built, and completes it if it lies in its loan: `header` is the first eight bytes of
    /// the space.
    pub fn finish(builder: &Builder<Self>, header: &mut [u8]) -> Finished {
        let segments = builder.get_segments_for_output();
        let in_place = header.as_ptr_range().end;
        if let [segment] = *segments {
            if segment.as_ptr() == in_place {
                let words = (segment.len() / 8) as u64;
                // Segments - 1, then the words of the only one.
                header.copy_from_slice(&(words << 32).to_le_bytes());
                return Finished::InPlace { payload_bytes: HEADER + segment.len() };
            }
        }
        let bytes: usize = segments.iter().map(|segment| segment.len()).sum();
        Finished::Outgrown { payload_bytes: table_bytes(segments.len()) + bytes }
    }

    /// Puts a message together in `space`, which is as large as `finish` said and may begin where the loan began.
    pub fn assemble(builder: &Builder<Self>, space: &mut [u8]) {
        let segments = builder.get_segments_for_output();
        let table = table_bytes(segments.len());
        let total: usize = segments.iter().map(|segment| segment.len()).sum();
        assert_eq!(space.len(), table + total, "the space is what `finish` asked for");
        let mut to = space[table..].as_mut_ptr();
        // The first segment may lie in the same space a little before: it is moved first, as overlapping memory, and
        // the table is written when its old place is free.
        for segment in segments.iter() {
            let from = segment.as_ptr();
            // SAFETY: `from` is a segment of the builder, `to` has room for it: the lengths add up to that of `space`.
            // `copy` allows overlap, and the segments after the first are on the heap.
            unsafe { std::ptr::copy(from, to, segment.len()) };
            // SAFETY: as above: at most one past the end of `space`.
            to = unsafe { to.add(segment.len()) };
        }
        let mut numbers = vec![(segments.len() - 1) as u32];
        numbers.extend(segments.iter().map(|segment| (segment.len() / 8) as u32));
        space[..table].fill(0);
        for (bytes, number) in space[..table].chunks_exact_mut(4).zip(numbers) {
            bytes.copy_from_slice(&number.to_le_bytes());
        }
    }
}

// SAFETY: 1: the space is zero (contract of `new`) and handed out once; `alloc_zeroed` zeroes. 2: the space outlives the
// arena; heap segments live until `deallocate_segment`. 3: different allocations. 4: `first` is 8 behind an aligned start.
unsafe impl Allocator for LoanArena {
    fn allocate_segment(&mut self, minimum_size: u32) -> (NonNull<u8>, u32) {
        if !self.given && minimum_size <= self.words {
            self.given = true;
            return (self.first, self.words);
        }
        let words = minimum_size.max(self.next_words);
        self.next_words = self.next_words.saturating_mul(2).min(1 << 24);
        let layout = Self::layout(words);
        // SAFETY: the layout is not empty.
        let segment = unsafe { alloc_zeroed(layout) };
        let segment = NonNull::new(segment).unwrap_or_else(|| handle_alloc_error(layout));
        (segment, words)
    }

    unsafe fn deallocate_segment(&mut self, segment: NonNull<u8>, words: u32, _used: u32) {
        if segment != self.first {
            // SAFETY: not the space of the loan, so it came from `alloc_zeroed` with this layout.
            unsafe { dealloc(segment.as_ptr(), Self::layout(words)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemas::tick_capnp::tick;

    fn build(space_bytes: usize, symbol: &str) -> (Vec<u64>, Finished, Vec<u8>) {
        let mut memory = vec![0u64; 4096];
        let base = memory.as_mut_ptr().cast::<u8>();
        // SAFETY: the vector is that long and lives until the end of the function.
        let space = unsafe { std::slice::from_raw_parts_mut(base, space_bytes) };
        // SAFETY: aligned, zero, and outlives the arena.
        let mut builder = Builder::new(unsafe { LoanArena::new(space) });
        let mut tick = builder.init_root::<tick::Builder<'_>>();
        tick.set_symbol(symbol);
        tick.set_number(77);
        // SAFETY: the first eight bytes are not part of the segment.
        let header = unsafe { std::slice::from_raw_parts_mut(base, 8) };
        let finished = LoanArena::finish(&builder, header);
        let payload = match finished {
            Finished::InPlace { payload_bytes } => payload_bytes,
            Finished::Outgrown { payload_bytes } => {
                // SAFETY: the vector is longer.
                let whole = unsafe { std::slice::from_raw_parts_mut(base, payload_bytes) };
                LoanArena::assemble(&builder, whole);
                payload_bytes
            }
        };
        drop(builder);
        let bytes: Vec<u8> = memory.iter().flat_map(|word| word.to_le_bytes()).collect();
        (memory, finished, bytes[..payload].to_vec())
    }

    fn symbol_of(framed: &[u8]) -> String {
        let mut rest = framed;
        let options = capnp::message::ReaderOptions::new();
        let reader = capnp::serialize::read_message_from_flat_slice(&mut rest, options)
            .expect("the standard framing");
        assert!(rest.is_empty(), "nothing behind the message");
        let tick = reader.get_root::<tick::Reader<'_>>().expect("a tick");
        assert_eq!(tick.get_number(), 77);
        tick.get_symbol().expect("a symbol").to_string().expect("text")
    }

    #[test]
    fn a_message_that_fits_is_built_in_place_and_leaves_the_rest_zero() {
        let (memory, finished, framed) = build(1024, "ACME");
        assert_eq!(finished, Finished::InPlace { payload_bytes: framed.len() });
        assert_eq!(symbol_of(&framed), "ACME");
        assert!(memory[framed.len() / 8..].iter().all(|word| *word == 0));
    }

    #[test]
    fn a_message_that_outgrows_its_space_is_put_together_whole() {
        let symbol = "x".repeat(5000);
        for space in [8, 16, 64, 128, 1024] {
            let (_, finished, framed) = build(space, &symbol);
            assert_eq!(finished, Finished::Outgrown { payload_bytes: framed.len() });
            assert_eq!(symbol_of(&framed), symbol, "space {space}");
        }
    }
}
