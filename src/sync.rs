//! The only switch between the atomics of the machine and those of the model checker.

#[cfg(not(windlass_loom))]
pub use std::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

#[cfg(windlass_loom)]
pub use loom::sync::atomic::{fence, AtomicU32, AtomicU64, Ordering};

/// Tells the processor, or the model, that this thread is polling.
#[inline]
pub fn relax() {
    #[cfg(not(windlass_loom))]
    core::hint::spin_loop();
    #[cfg(windlass_loom)]
    loom::thread::yield_now();
}
