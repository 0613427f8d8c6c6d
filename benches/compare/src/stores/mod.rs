//! The contenders, and what is asked of each.
//!
//! The loops over records are inside of the stores: nothing is called through a pointer for each record.

mod bare;
mod file;
mod lmdb;
mod redb;
mod sqlite;
mod windlass;

use std::ops::Range;
use std::path::Path;

use anyhow::Result;

use crate::pace::{Cadence, Pace};

/// What a store is made for.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Records that will be in it.
    pub records: u64,
    /// Records in a transaction, for those that have transactions, when nothing is put on disk on purpose.
    pub batch: u64,
    /// When to put on disk what is appended; `None` leaves it to the kernel.
    pub sync: Option<Cadence>,
}

impl Plan {
    /// Bytes of all payloads.
    pub fn payload_bytes(&self) -> u64 {
        self.records * crate::record::BYTES as u64
    }
}

/// A contender.
pub trait Store {
    /// How it is called in reports.
    fn name(&self) -> String;

    /// Makes an empty store in an empty folder. Whatever a store prepares for `plan` before its first record, it
    /// prepares here.
    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>>;

    /// Opens what is in a folder, with what an opener needs to read and to append.
    fn open(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Reader>>;
}

/// Appends to a store.
pub trait Writer {
    /// Appends records. When it returns, other processes could read them; they need not be on disk.
    fn append(&mut self, numbers: Range<u64>) -> Result<()>;

    /// Appends records, and puts them on disk as often as `pace` says. All are on disk when it returns.
    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()>;

    /// Leaves the store so that it can be opened again.
    fn close(self: Box<Self>) -> Result<()>;
}

/// Reads a store.
pub trait Reader {
    /// Reads and checks all of `count` records from the first to the last.
    fn scan(&mut self, count: u64) -> Result<()>;

    /// Reads and checks single records.
    fn find(&mut self, numbers: &[u64]) -> Result<()>;

    /// Reads and checks the last record, whose number is `last`.
    fn read_last(&mut self, last: u64) -> Result<()>;
}

/// What others are compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bench {
    /// Appending, not synced.
    Append,
    /// Appending, synced.
    Sync,
    /// Reading all.
    Replay,
    /// Opening a large one.
    Open,
    /// Reading single records.
    Seek,
}

/// The contenders of a benchmark. The first is the baseline that the others are compared with.
pub fn contenders(bench: Bench) -> Vec<Box<dyn Store>> {
    use bare::{Bare, Header};
    use file::Buffered;
    use windlass::{Reading, Windlass};
    let mut all: Vec<Box<dyn Store>> = match bench {
        Bench::Append | Bench::Replay => vec![
            Box::new(Bare { header: Header::None, is_populated: true }),
            Box::new(Bare { header: Header::Plain, is_populated: true }),
            Box::new(Bare { header: Header::Sealed, is_populated: true }),
            Box::new(Bare { header: Header::None, is_populated: false }),
            Box::new(Buffered { buffer_bytes: 1 << 20 }),
            Box::new(Buffered { buffer_bytes: 64 << 10 }),
        ],
        // Populating a mapping to open it would read all of it.
        Bench::Sync | Bench::Open | Bench::Seek => vec![
            Box::new(Bare { header: Header::None, is_populated: bench != Bench::Open }),
            Box::new(Buffered { buffer_bytes: 64 << 10 }),
        ],
    };
    all.push(Box::new(lmdb::Lmdb));
    all.push(Box::new(redb::Redb));
    all.push(Box::new(sqlite::Sqlite));
    let ours = |checksums, reading| Box::new(Windlass { checksums, reading });
    all.push(ours(true, Reading::Subscriber));
    match bench {
        Bench::Sync => {}
        Bench::Append => all.push(ours(false, Reading::Subscriber)),
        Bench::Open => all.push(ours(true, Reading::Log)),
        Bench::Seek => all.push(ours(false, Reading::Log)),
        Bench::Replay => {
            all.push(ours(false, Reading::Subscriber));
            all.push(ours(true, Reading::Log));
            all.push(ours(false, Reading::Log));
        }
    }
    all
}
