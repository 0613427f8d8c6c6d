//! Types in several versions, for tests of what may meet on one topic: `tests/schemas/*.capnp`,
//! compiled.

#![allow(missing_docs, unused, clippy::all, clippy::unwrap_used)]

#[path = "generated/generic_capnp.rs"]
#[rustfmt::skip]
pub mod generic_capnp;
#[path = "generated/kinds_capnp.rs"]
#[rustfmt::skip]
pub mod kinds_capnp;
#[path = "generated/shape_v1_capnp.rs"]
#[rustfmt::skip]
pub mod shape_v1_capnp;
#[path = "generated/shape_v2_capnp.rs"]
#[rustfmt::skip]
pub mod shape_v2_capnp;
#[path = "generated/tick_broken_capnp.rs"]
#[rustfmt::skip]
pub mod tick_broken_capnp;
#[path = "generated/tick_v1_capnp.rs"]
#[rustfmt::skip]
pub mod tick_v1_capnp;
#[path = "generated/tick_v2_capnp.rs"]
#[rustfmt::skip]
pub mod tick_v2_capnp;
