//! The lock-free algorithms. They never block, allocate, or make a system call, and cannot tell a mapped file from the
//! memory of a model.

pub mod bells;
pub mod calls;
pub mod doze;
pub mod lane;
pub mod log;
pub mod order;
pub mod pins;
pub mod pool;
pub mod reader;
#[cfg(not(windlass_loom))]
pub mod record;
pub mod recycle;
pub mod slots;
pub mod stream;
pub mod tokens;
pub mod wake;
pub mod writer;
