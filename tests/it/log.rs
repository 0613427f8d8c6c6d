//! What the tests of logs share.

pub mod disk;
