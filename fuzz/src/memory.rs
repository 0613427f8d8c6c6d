//! Shared memory on the heap, where the address sanitizer sees its ends.

use std::ptr::NonNull;
use std::sync::Arc;
use windlass::shm::place::Region;

/// A zeroed region of `len` bytes.
pub fn region(len: usize) -> Region {
    let memory: Arc<Vec<std::sync::atomic::AtomicU64>> =
        Arc::new((0..len.div_ceil(8)).map(|_| Default::default()).collect());
    let base = NonNull::new(memory.as_ptr().cast_mut()).expect("a vector has an address").cast();
    // SAFETY: `len` bytes, aligned to 8, that live as long as the vector, which the region keeps; they
    // are atomics, which may be written through a shared reference.
    unsafe { Region::new(base, len, memory) }
}
