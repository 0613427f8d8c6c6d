//! Models of every lock-free protocol of windlass, explored by loom.
//!
//! A model runs the code of `windlass::ring` itself on modelled memory, with every interleaving of its threads up to a
//! bound of preemptions and with every value that a load may return. Run all of them with
//!
//! ```text
//! RUSTFLAGS="--cfg windlass_loom" cargo test -p loom-tests --profile loom --target-dir target/loom
//! ```
//!
//! Without the cfg this crate is empty. Every file of `tests/` asks the questions of one protocol, and
//!
//! * collects what happened in `Outcomes` and asserts the *set*: nothing else happens, and everything listed does;
//! * lets the operation die at each of its steps (`explore_deaths`), has somebody repair it, and looks again;
//! * has canaries: the same model with one step of the protocol left out (see `broken`), which must fail.
//!
//! # What a model cannot show
//!
//! Loom makes one `fence(SeqCst)` happen before the next one, which is more than the language promises; it orders
//! nothing after a load; and it explores a bounded number of preemptions. Its reduction of interleavings remembers the
//! last access to each word only, so that a thread's own load can hide a race with another thread's store. Every model
//! is therefore explored twice, with its threads begun in either order (`Turn`).

#![cfg(windlass_loom)]

pub mod broken;
pub mod calls;
pub mod durable;
mod explore;
pub mod pool;
pub mod stream;
pub mod tokens;
mod topic;

pub use explore::{explore, explore_deaths, Death, Outcomes, Turn};
pub use topic::{
    payload_of, publish, publish_in_order, read_on, receive, repair_order, Log, Size, Topic,
    ONE_MESSAGE, TWO_MESSAGES,
};
