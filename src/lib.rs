//! Windlass

pub mod error;
pub(crate) mod shm;
#[cfg(any(windlass_loom, feature = "kill-points"))]
#[doc(hidden)]
pub mod step;
pub(crate) mod sync;

