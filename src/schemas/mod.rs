//! The schemas that come with windlass, for the demo, the benchmarks and the examples:
//! `schemas/*.capnp`, compiled.

#![allow(missing_docs, clippy::all, clippy::unwrap_used)]

#[rustfmt::skip]
pub mod bench_capnp;
#[rustfmt::skip]
pub mod calculator_capnp;
#[rustfmt::skip]
pub mod reading_capnp;
#[rustfmt::skip]
pub mod tick_capnp;
