//! Bytes that several processes share, seen as words and spans.
//!
//! A [`Region`] is the seam between the lock-free algorithms and the memory they run on. The algorithms take a region
//! and offsets; they cannot tell a mapped file from anonymous memory. In a model build the same type is a vector of
//! the model checker's atomics, and every span access is checked for a missing happens-before edge.

#![allow(unsafe_code)]

#[cfg(not(windlass_loom))]
pub use mapped::Region;
#[cfg(windlass_loom)]
pub use modelled::Region;

#[cfg(not(windlass_loom))]
mod mapped {
    use crate::sync::{AtomicU32, AtomicU64};
    use std::ptr::NonNull;
    use std::sync::Arc;

    /// What keeps the bytes of a region mapped. Dropped with the last clone of the region.
    pub type Keep = Arc<dyn std::any::Any + Send + Sync>;

    /// A span of shared memory that stays mapped for as long as any clone of it lives.
    #[derive(Clone)]
    pub struct Region {
        base: NonNull<u8>,
        len: usize,
        /// A word may begin at any byte before this one.
        words_end: usize,
        _keep: Keep,
    }

    // SAFETY: contract 1 and 3: the bytes stay mapped whichever thread holds the region, words are atomics, and all
    // other access goes through the unsafe functions below, whose callers own the bytes by protocol.
    unsafe impl Send for Region {}
    // SAFETY: as for `Send`.
    unsafe impl Sync for Region {}

    impl Region {
        /// Makes a region of `len` bytes at `base`.
        ///
        /// # Safety
        ///
        /// * `base` is aligned to 8 and `len` bytes from it are mapped until `keep` is dropped.
        /// * They are mapped readable, and writable if anything will be stored through the region.
        pub unsafe fn new(base: NonNull<u8>, len: usize, keep: Keep) -> Self {
            debug_assert_eq!(base.as_ptr() as usize % 8, 0);
            Self { base, len, words_end: len.saturating_sub(7), _keep: keep }
        }

        /// The number of bytes.
        #[inline]
        pub fn len(&self) -> usize {
            self.len
        }

        /// The address of the first byte in this process.
        #[inline]
        pub fn base(&self) -> *mut u8 {
            self.base.as_ptr()
        }

        #[inline]
        fn at(&self, offset: usize, len: usize) -> *mut u8 {
            assert!(
                offset <= self.len && len <= self.len - offset,
                "an unchecked offset reached shared memory"
            );
            // SAFETY: contract 1: `offset` is at most `len`, just checked.
            unsafe { self.base.as_ptr().add(offset) }
        }

        /// The 64-bit word at byte `offset`.
        #[inline]
        pub fn word(&self, offset: usize) -> &AtomicU64 {
            debug_assert_eq!(offset % 8, 0, "a word is aligned");
            // One comparison: a region without room for a word has no offset below zero.
            assert!(offset < self.words_end, "an unchecked offset reached shared memory");
            // SAFETY: contract 1: a word at `offset` ends at `len` at most, just checked.
            let at = unsafe { self.base.as_ptr().add(offset) }.cast();
            // SAFETY: contract 1 and 3; aligned, because `base` is a multiple of 8 and so is every offset of a word:
            // the layouts consist of multiples of 8, and so do frames.
            unsafe { AtomicU64::from_ptr(at) }
        }

        /// The last word: a mark that is gone, whatever the new length is, once the file was cut short.
        pub fn last(&self) -> u64 {
            let last = (self.len & !7).checked_sub(8);
            // Relaxed: it never changes.
            last.map_or(0, |at| self.word(at).load(crate::sync::Ordering::Relaxed))
        }

        /// The 32-bit word at byte `offset`: futex words only.
        #[inline]
        pub fn half(&self, offset: usize) -> &AtomicU32 {
            debug_assert_eq!(offset % 4, 0, "a word is aligned");
            let at = self.at(offset, 4).cast();
            // SAFETY: contract 1 (in bounds, aligned) and 3; futex words are never accessed as 64 bits.
            unsafe { AtomicU32::from_ptr(at) }
        }

        /// Begins to fetch the line at byte `offset`, to be written: a later access waits less. A hint.
        #[inline]
        pub fn fetch_to_write(&self, offset: usize) {
            let at = self.at(offset, 1);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a prefetch faults nowhere and changes nothing; without it the instruction does nothing.
            unsafe {
                std::arch::asm!("prefetchw [{}]", in(reg) at, options(nostack, preserves_flags));
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                std::arch::asm!("prfm pstl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = at;
        }

        /// Begins to fetch the line at byte `offset`, to be read. A hint.
        #[inline]
        pub fn fetch_to_read(&self, offset: usize) {
            let at = self.at(offset, 1);
            #[cfg(target_arch = "x86_64")]
            // SAFETY: as for `fetch_to_write`.
            unsafe {
                std::arch::asm!("prefetcht0 [{}]", in(reg) at, options(nostack, preserves_flags));
            }
            #[cfg(target_arch = "aarch64")]
            // SAFETY: as above.
            unsafe {
                std::arch::asm!("prfm pldl1keep, [{}]", in(reg) at, options(nostack, preserves_flags));
            }
            #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
            let _ = at;
        }

        /// The bytes `offset..offset + len`, to read.
        ///
        /// # Safety
        ///
        /// * Contract 4: nobody writes them while the slice lives, in this process or another.
        #[inline]
        pub unsafe fn bytes(&self, offset: usize, len: usize) -> &[u8] {
            let at = self.at(offset, len);
            // SAFETY: contract 1 for the bounds; the caller vouches for contract 4.
            unsafe { std::slice::from_raw_parts(at, len) }
        }

        /// The bytes `offset..offset + len`, to write.
        ///
        /// # Safety
        ///
        /// * Contract 4: nobody else reads or writes them while the slice lives.
        /// * The region is mapped writable.
        #[inline]
        #[allow(clippy::mut_from_ref)]
        pub unsafe fn bytes_mut(&self, offset: usize, len: usize) -> &mut [u8] {
            let at = self.at(offset, len);
            // SAFETY: contract 1 for the bounds; the caller vouches for contract 4.
            unsafe { std::slice::from_raw_parts_mut(at, len) }
        }
    }
}

#[cfg(windlass_loom)]
mod modelled {
    use crate::limits::LINE;
    use crate::sync::{AtomicU32, AtomicU64};
    use loom::cell::UnsafeCell;
    use std::sync::Arc;

    struct Memory {
        words: Vec<AtomicU64>,
        halves: [AtomicU32; 2],
        payload_at: usize,
        payload: Vec<UnsafeCell<u64>>,
    }

    /// A span of modelled memory: an atomic for each 8 bytes, two futex words, and tracked cells for payload.
    ///
    /// In a mapping a payload word and a header word may be the same memory. Here a payload word has both an atomic, so
    /// that stale payload can be mistaken for a header, and a cell, so that the model checker sees who touches it when.
    #[derive(Clone)]
    pub struct Region {
        memory: Arc<Memory>,
    }

    // SAFETY: the payload cells are what the model is about: a missing edge is reported by loom.
    unsafe impl Send for Region {}
    // SAFETY: as for `Send`.
    unsafe impl Sync for Region {}

    impl Region {
        /// A zeroed region of `len` bytes, of which those from `payload_at` on may carry payload.
        pub fn zeroed(len: usize, payload_at: usize) -> Self {
            let words = (0..len / 8).map(|_| AtomicU64::new(0)).collect();
            let payload = (payload_at / 8..len / 8).map(|_| UnsafeCell::new(0)).collect();
            let halves = [AtomicU32::new(0), AtomicU32::new(0)];
            Self { memory: Arc::new(Memory { words, halves, payload_at, payload }) }
        }

        /// The number of bytes.
        pub fn len(&self) -> usize {
            self.memory.words.len() * 8
        }

        /// The 64-bit word at byte `offset`.
        pub fn word(&self, offset: usize) -> &AtomicU64 {
            assert_eq!(offset % 8, 0, "a word is aligned");
            &self.memory.words[offset / 8]
        }

        /// The futex word: a modelled region has one for the even lines and one for the odd ones.
        pub fn half(&self, offset: usize) -> &AtomicU32 {
            &self.memory.halves[offset / LINE % 2]
        }

        /// A hint to the processor; nothing in a model.
        pub fn fetch_to_write(&self, _offset: usize) {}

        /// A hint to the processor; nothing in a model.
        pub fn fetch_to_read(&self, _offset: usize) {}

        /// Reads the tracked payload word at byte `offset`: a concurrent write fails the model.
        pub fn payload(&self, offset: usize) -> u64 {
            // SAFETY: loom checks that no write is concurrent.
            self.cell(offset).with(|at| unsafe { *at })
        }

        /// Writes the tracked payload word at byte `offset`: a concurrent access fails the model.
        pub fn set_payload(&self, offset: usize, value: u64) {
            // SAFETY: loom checks that no other access is concurrent.
            self.cell(offset).with_mut(|at| unsafe { *at = value });
        }

        fn cell(&self, offset: usize) -> &UnsafeCell<u64> {
            &self.memory.payload[(offset - self.memory.payload_at) / 8]
        }
    }
}
