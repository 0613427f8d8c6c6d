//! Integration tests: one binary, which is also every process that it starts.
//!
//! `process` is the support: participants, in threads or processes. `traffic` is what they send.
//! Everything else is tests, one file for each promise. Counts are chosen so that all of it ends in
//! minutes on two cores; `WINDLASS_TEST_SCALE=10` does ten times as much where that means more.

#[path = "../schemas/samples.rs"]
mod samples;

mod access;
mod birth;
mod calls;
mod channel;
mod container;
mod death;
mod durable;
mod events;
mod eviction;
mod files;
mod fixture;
mod fork;
mod hostile;
mod jobs;
mod join;
#[cfg(feature = "json")]
mod json;
mod large;
mod log;
mod log_access;
mod log_crash;
mod log_cursor;
mod log_damage;
mod log_fixtures;
mod log_full;
mod log_keeper;
mod log_lanes;
mod log_model;
mod log_read;
mod log_replay;
mod log_review;
mod log_times;
mod log_verify;
mod memory;
mod model;
mod options;
mod policies;
mod polling;
mod process;
mod queue;
mod raw;
mod service;
mod service_files;
mod shortened;
mod sleepers;
mod tidy;
mod tokens;
mod traffic;
mod typed;
mod views;
mod waking;
