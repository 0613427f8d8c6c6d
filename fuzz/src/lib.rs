//! What the fuzz targets do with the bytes that they are given, and what must come of it.
//!
//! Each target is a function from bytes to nothing that panics if something is wrong, so the committed
//! corpus can be replayed by an ordinary test, without libFuzzer. Every target has an oracle: a model of
//! what has to be delivered as long as nothing is damaged, and bounds for what damage may do.

pub mod content;
pub mod damage;
pub mod lane;
pub mod log;
pub mod memory;
pub mod message;
pub mod open;
pub mod order;
pub mod queue;
pub mod schema;
pub mod topic;

/// What a target does with bytes.
pub type Target = fn(&[u8]);

/// Every target, by the name of its corpus.
pub const TARGETS: [(&str, Target); 8] = [
    ("lane", lane::run),
    ("log", log::run),
    ("message", message::run),
    ("open", open::run),
    ("order", order::run),
    ("queue", queue::run),
    ("schema", schema::run),
    ("topic", topic::run),
];
