//! Memory for a message that is built where it will be read.
//!
//! The first segment of the message is the space of a loan, behind the eight bytes of the stream
//! header. If the message outgrows it, further segments come from the heap, and the message is put
//! together once when it is published: never silently, and never panicking. The space is not
//! cleared when the builder is dropped: what the builder used is committed, and the lane knows that
//! the rest is still zero.

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

    /// Looks at a message that is built, and completes it if it lies in its loan: `header` is the
    /// first eight bytes of the space.
    ///
    /// A builder that nobody touched makes the message that has nothing but defaults.
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
        Finished::Outgrown { payload_bytes: framed_bytes(&segments) }
    }

    /// Puts a message together in `space`, which is as large as `finish` said and may begin where
    /// the loan began.
    ///
    /// The message in the builder is gone after that: drop it.
    ///
    /// # Panics
    ///
    /// If `space` has another size than `finish` asked for.
    pub fn assemble(builder: &Builder<Self>, space: &mut [u8]) {
        let segments = builder.get_segments_for_output();
        assert_eq!(space.len(), framed_bytes(&segments), "the space is what `finish` asked for");
        let table = table_of(&segments);
        let mut at = table.len();
        for segment in segments.iter() {
            let begin = (segment.as_ptr() as usize).wrapping_sub(space.as_ptr() as usize);
            if begin < space.len() {
                // The first segment, a little before its place, where the table goes afterwards. It
                // is read through `space`, which promises the compiler that nothing else reads what
                // is written here.
                space.copy_within(begin..begin + segment.len(), at);
            } else {
                space[at..at + segment.len()].copy_from_slice(segment);
            }
            at += segment.len();
        }
        // Without segments, the root pointer, which is null.
        space[at..].fill(0);
        space[..table.len()].copy_from_slice(&table);
    }
}

/// Bytes of the segments of a message and their table. No segments count as one that has only a
/// root pointer.
fn framed_bytes(segments: &[&[u8]]) -> usize {
    if segments.is_empty() {
        return HEADER + 8;
    }
    table_bytes(segments.len()) + segments.iter().map(|segment| segment.len()).sum::<usize>()
}

/// The table of a message of these segments, padding included.
fn table_of(segments: &[&[u8]]) -> Vec<u8> {
    let words = |segment: &&[u8]| (segment.len() / 8) as u32;
    let last = segments.len().saturating_sub(1) as u32;
    let mut table = last.to_le_bytes().to_vec();
    for words in segments.iter().map(words) {
        table.extend(words.to_le_bytes());
    }
    if segments.is_empty() {
        table.extend(1u32.to_le_bytes());
    }
    table.resize(table.len().next_multiple_of(8), 0);
    table
}

// SAFETY: 1: the space is zero (contract of `new`) and handed out once; `alloc_zeroed` zeroes. 2:
// the space outlives the arena; heap segments live until `deallocate_segment`. 3: different
// allocations. 4: `first` is 8 behind an aligned start.
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
        // An address alone is not enough: a loan with no room for a segment ends where the heap may
        // begin.
        if !self.given || segment != self.first {
            // SAFETY: not the space of the loan, so it came from `alloc_zeroed` with this layout.
            unsafe { dealloc(segment.as_ptr(), Self::layout(words)) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::FrameSegments;
    use crate::samples::shape_v2_capnp::{point, shape};
    use crate::schemas::tick_capnp::tick;
    use capnp::message::Reader;
    use std::alloc::{GlobalAlloc, System};
    use std::cell::Cell;
    use std::io::Write;
    use std::process::{Command, Stdio};

    /// What lies before a loan, to see that nobody writes there.
    const FENCE: u64 = 0xfeed_feed_feed_feed;

    /// A loan in memory that ends behind it, with a fence before it.
    struct Space {
        memory: Vec<u64>,
    }

    impl Space {
        fn new(bytes: usize) -> Self {
            let mut memory = vec![0; 1 + bytes / 8];
            memory[0] = FENCE;
            Self { memory }
        }

        /// The payload of the loan, from its start, `len` bytes of it.
        fn payload(&mut self, len: usize) -> &mut [u8] {
            assert!(len <= (self.memory.len() - 1) * 8);
            let start = self.memory.as_mut_ptr().wrapping_add(1).cast();
            // SAFETY: in the vector, as just checked.
            unsafe { std::slice::from_raw_parts_mut(start, len) }
        }

        fn builder(&mut self, len: usize) -> Builder<LoanArena> {
            // SAFETY: aligned, zero, and every test drops the builder before the space.
            Builder::new(unsafe { LoanArena::new(self.payload(len)) })
        }

        fn finish(&mut self, builder: &Builder<LoanArena>) -> Finished {
            LoanArena::finish(builder, self.payload(8))
        }
    }

    impl Drop for Space {
        fn drop(&mut self) {
            assert_eq!(self.memory[0], FENCE, "nobody wrote before the loan");
        }
    }

    fn fill(builder: &mut Builder<LoanArena>, symbol: &str) {
        let mut tick = builder.init_root::<tick::Builder<'_>>();
        tick.set_symbol(symbol);
        tick.set_number(77);
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

    fn opened(payload: &[u8]) -> Option<Reader<FrameSegments<'_>>> {
        let segments = FrameSegments::parse(payload).ok()?;
        Some(Reader::new(segments, crate::message::reader_options()))
    }

    thread_local! {
        static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
    }

    /// The heap, counted by thread.
    struct Counted;

    // SAFETY: the heap of the system does it all.
    unsafe impl GlobalAlloc for Counted {
        unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
            ALLOCATIONS.set(ALLOCATIONS.get() + 1);
            // SAFETY: the caller's contract is the same.
            unsafe { System.alloc(layout) }
        }

        unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
            // SAFETY: as for `alloc`.
            unsafe { System.dealloc(at, layout) }
        }
    }

    #[global_allocator]
    static COUNTED: Counted = Counted;

    fn allocations_of(work: impl FnOnce()) -> usize {
        let before = ALLOCATIONS.get();
        work();
        ALLOCATIONS.get() - before
    }

    #[test]
    fn a_message_that_fits_is_built_in_place_and_leaves_the_rest_zero() {
        let mut space = Space::new(1024);
        let mut builder = space.builder(1024);
        fill(&mut builder, "ACME");
        let Finished::InPlace { payload_bytes } = space.finish(&builder) else { panic!("it fits") };
        drop(builder);
        assert_eq!(symbol_of(space.payload(payload_bytes)), "ACME");
        assert!(space.payload(1024)[payload_bytes..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn dropping_the_builder_clears_nothing_and_needs_no_finish() {
        let mut space = Space::new(1024);
        let mut builder = space.builder(1024);
        fill(&mut builder, &"x".repeat(5000));
        drop(builder);
        assert!(space.payload(1024)[8..].iter().any(|byte| *byte != 0));
    }

    #[test]
    fn a_message_that_fills_its_loan_to_the_last_word_is_in_place() {
        let mut space = Space::new(1024);
        let mut builder = space.builder(1024);
        fill(&mut builder, "ACME");
        let Finished::InPlace { payload_bytes: exact } = space.finish(&builder) else { panic!() };
        drop(builder);
        for (len, fits) in [(exact, true), (exact - 8, false)] {
            let mut space = Space::new(1024);
            let mut builder = space.builder(len);
            fill(&mut builder, "ACME");
            let in_place = matches!(space.finish(&builder), Finished::InPlace { .. });
            assert_eq!(in_place, fits, "{len} bytes");
        }
    }

    #[test]
    fn a_message_that_outgrows_its_loan_is_put_together_there_or_elsewhere() {
        for symbol_bytes in [9, 100, 5000, 100_000] {
            for loan in [8, 16, 24, 64, 72, 80, 128, 1024] {
                let symbol = "x".repeat(symbol_bytes);
                let mut space = Space::new(200_000);
                let mut elsewhere = Space::new(200_000);
                let mut builder = space.builder(loan);
                fill(&mut builder, &symbol);
                let Finished::Outgrown { payload_bytes } = space.finish(&builder) else { continue };
                LoanArena::assemble(&builder, elsewhere.payload(payload_bytes));
                // Stale bytes of older messages lie behind the loan when it grows in its place.
                space.payload(200_000)[loan..].fill(0xa5);
                LoanArena::assemble(&builder, space.payload(payload_bytes));
                drop(builder);
                assert_eq!(symbol_of(space.payload(payload_bytes)), symbol, "loan of {loan}");
                assert_eq!(symbol_of(elsewhere.payload(payload_bytes)), symbol, "loan of {loan}");
            }
        }
    }

    #[test]
    fn a_message_of_many_segments_is_put_together_in_its_place() {
        for loan in [64, 256, 4096] {
            let mut space = Space::new(4 << 20);
            let mut builder = space.builder(loan);
            let mut shape = builder.init_root::<shape::Builder<'_>>();
            shape.set_number(loan as u32);
            // Each list is larger than all segments before it.
            let mut lists = shape.init_grid(12);
            for index in 0..12 {
                let mut list = lists.reborrow().init(index, 64 << index);
                (0..list.len()).for_each(|at| list.set(at, (at + index) as u16));
            }
            let segments = builder.get_segments_for_output().len();
            assert!(segments > 4, "{segments} segments");
            let Finished::Outgrown { payload_bytes } = space.finish(&builder) else { panic!() };
            LoanArena::assemble(&builder, space.payload(payload_bytes));
            drop(builder);
            let reader = opened(space.payload(payload_bytes)).expect("sound");
            let shape = reader.get_root::<shape::Reader<'_>>().expect("a shape");
            assert_eq!(shape.get_number(), loan as u32);
            for (index, list) in shape.get_grid().expect("there").iter().enumerate() {
                let list = list.expect("sound");
                assert_eq!(list.len(), 64 << index);
                assert!(list.iter().enumerate().all(|(at, value)| value == (at + index) as u16));
            }
        }
    }

    #[test]
    fn a_builder_that_nobody_touched_makes_a_message_of_defaults() {
        let mut space = Space::new(1024);
        let builder = space.builder(256);
        let Finished::Outgrown { payload_bytes } = space.finish(&builder) else {
            panic!("nothing")
        };
        space.payload(1024).fill(0xa5);
        LoanArena::assemble(&builder, space.payload(payload_bytes));
        drop(builder);
        let reader = opened(space.payload(payload_bytes)).expect("sound");
        let shape = reader.get_root::<shape::Reader<'_>>().expect("a shape");
        assert_eq!(shape.get_number(), 7);
        assert!(!shape.has_label());
    }

    #[test]
    fn nothing_is_written_behind_the_used_words_whatever_is_set_and_set_again() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = move |below: u32| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % u64::from(below)) as u32
        };
        for _ in 0..300 {
            let mut space = Space::new(16 << 10);
            let mut builder = space.builder(16 << 10);
            builder.init_root::<shape::Builder<'_>>();
            for _ in 0..random(40) {
                let mut shape = builder.get_root::<shape::Builder<'_>>().expect("a shape");
                match random(8) {
                    0 => shape.set_name("y".repeat(random(60) as usize)),
                    1 => _ = shape.init_corners(random(9)),
                    2 => shape.init_anchors(1 + random(5)).get(0).set_z(1.5),
                    3 => shape.set_dot(()),
                    4 => _ = shape.init_parent().init_corners(random(4)),
                    5 => shape.init_bounds().init_left().set_x(f64::NAN),
                    6 => shape.init_more().init_as::<point::Builder<'_>>().set_y(-0.0),
                    _ => shape.init_path(random(30)).push_str(""),
                }
                if random(10) == 0 {
                    builder.init_root::<shape::Builder<'_>>();
                }
                let used: usize =
                    builder.get_segments_for_output().iter().map(|one| one.len()).sum();
                assert!(space.payload(16 << 10)[8 + used..].iter().all(|byte| *byte == 0));
            }
        }
    }

    #[test]
    fn building_in_place_allocates_once_inside_the_crate_and_reading_never() {
        let mut space = Space::new(1024);
        let allocations = allocations_of(|| {
            let mut builder = space.builder(1024);
            fill(&mut builder, "ACME");
            let finished = space.finish(&builder);
            assert!(matches!(finished, Finished::InPlace { .. }));
        });
        assert_eq!(allocations, 1);
        let allocations = allocations_of(|| {
            let reader = opened(space.payload(1024)).expect("sound");
            let tick = reader.get_root::<tick::Reader<'_>>().expect("a tick");
            assert_eq!(tick.get_symbol().expect("a symbol"), "ACME");
        });
        assert_eq!(allocations, 0);
    }

    #[test]
    fn the_tool_decodes_a_payload_as_it_lies() {
        let tool = Command::new("capnp").arg("--version").stdout(Stdio::null()).status();
        if !tool.is_ok_and(|status| status.success()) {
            eprintln!("skipped: the capnp tool is not installed");
            return;
        }
        for symbol in ["ACME".to_string(), "x".repeat(3000)] {
            let mut space = Space::new(8192);
            let mut builder = space.builder(512);
            fill(&mut builder, &symbol);
            let payload_bytes = match space.finish(&builder) {
                Finished::InPlace { payload_bytes } => payload_bytes,
                Finished::Outgrown { payload_bytes } => {
                    LoanArena::assemble(&builder, space.payload(payload_bytes));
                    payload_bytes
                }
            };
            drop(builder);
            let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/schemas");
            let mut tool = Command::new("capnp")
                .args(["decode", "--short", "-I", schemas, "tick.capnp", "Tick"])
                .current_dir(schemas)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("the tool starts");
            let mut input = tool.stdin.take().expect("piped");
            input.write_all(space.payload(payload_bytes)).expect("read by the tool");
            drop(input);
            let output = tool.wait_with_output().expect("the tool ends");
            let text = String::from_utf8(output.stdout).expect("text");
            assert!(output.status.success() && text.contains(&format!("symbol = \"{symbol}\"")));
            assert!(text.contains("number = 77"), "{text}");
        }
    }
}
