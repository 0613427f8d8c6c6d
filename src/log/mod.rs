//! Logs: durable topics on disk.
//!
//! A log is a folder of its own. It belongs to one topic of one bus at a time, whose publishers write it and whose
//! subscribers read it; anybody else may look at it ([`files`]). Everything that processes must agree on while they
//! run, leases, tail and sleepers, is in the control file of the topic, as for every other topic, and is made anew
//! from the log by whoever opens it first ([`recover`]).

pub mod cache;
pub mod checkpoint;
pub mod claim;
pub mod core;
pub mod cursor;
pub mod cut;
pub mod desk;
pub mod events;
pub mod files;
pub mod info;
pub mod iter;
pub mod keeper;
pub mod keys;
pub mod ledger;
pub mod outcome;
pub mod pace;
pub mod pen;
pub mod prepare;
pub mod reader;
pub mod record;
pub mod recover;
pub mod report;
pub mod retain;
pub mod site;
pub mod source;
pub mod times;
pub mod trail;
mod verify;
pub mod walk;

pub use cursor::{Cursor, CursorHolder, CursorInfo};
pub use events::{AppendError, Appended, EventStore, Events, Expected, Loaded, Snapshot};
pub use info::LogInfo;
pub use iter::{Iter, Scan};
pub use keys::{KeyMessages, Keys};
pub use outcome::{Damage, ReadError};
pub use reader::Log;
pub use record::Record;
pub use report::{DamagedFile, DamagedRecord, LaneReport, VerifyReport};
