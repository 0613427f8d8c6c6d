//! Logs: durable topics on disk.
//!
//! A log is a folder of its own. It belongs to one topic of one bus at a time, whose publishers write it and whose
//! subscribers read it; anybody else may look at it ([`files`]). Everything that processes must agree on while they run,
//! leases, tail and sleepers, is in the control file of the topic, as for every other topic, and is made anew from the
//! log by whoever opens it first ([`recover`]).

pub mod checkpoint;
pub mod claim;
pub mod core;
pub mod cut;
pub mod files;
pub mod pen;
pub mod recover;
pub mod site;
pub mod trail;
pub mod walk;
