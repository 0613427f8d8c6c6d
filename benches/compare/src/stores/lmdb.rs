//! LMDB, through `heed`: numbers as native keys, appended at the end of the tree.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use heed::byteorder::NativeEndian;
use heed::types::{Bytes, U64};
use heed::{CommitOrAbort, Env, EnvFlags, EnvOpenOptions, IntegerComparator, PutFlags, RwTxn};

use super::{Plan, Reader, Store, Writer};
use crate::pace::Pace;
use crate::record::{Checker, Source};

/// LMDB.
pub struct Lmdb;

type Database<'e> = heed::Database<'e, U64<NativeEndian>, Bytes, IntegerComparator>;

/// Room that the tree needs besides the payloads, at most as much again.
const SLACK_BYTES: u64 = 1 << 30;

/// The size of a mapping is a multiple of that of a page, whatever the machine has.
const PAGE_BYTES: u64 = 64 << 10;

fn environment(folder: &Path, plan: &Plan) -> Result<Env> {
    let mut options = EnvOpenOptions::new();
    let bytes = (plan.payload_bytes() * 2 + SLACK_BYTES).next_multiple_of(PAGE_BYTES);
    options.map_size(bytes as usize).max_dbs(1);
    if plan.sync.is_none() {
        // SAFETY: Without syncs a crash of the machine may leave the folder unusable; it is made for this run only.
        unsafe { options.flags(EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP) };
    }
    // SAFETY: The folder is this process's own: nothing else changes its files while they are mapped.
    unsafe { options.open(folder) }.context("cannot open an LMDB environment")
}

/// Makes the database, or opens it to be written to.
fn database(env: &Env) -> Result<Database<'_>> {
    let made = env.create_databases_and_commit(env.write_txn()?, |opener, txn| {
        let options = opener.database_options().types::<U64<NativeEndian>, Bytes>();
        let mut options = options.key_comparator::<IntegerComparator>();
        options.name("records").create(txn).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    Ok(made.unwrap_commit())
}

fn database_to_read(env: &Env) -> Result<Database<'_>> {
    let opened = env.open_databases_and_commit(env.read_txn()?, |opener, txn| {
        let options = opener.database_options().types::<U64<NativeEndian>, Bytes>();
        let mut options = options.key_comparator::<IntegerComparator>();
        options.name("records").open(txn).map(CommitOrAbort::<_, ()>::Commit)
    })?;
    opened.unwrap_commit().context("there is no database of records")
}

impl Store for Lmdb {
    fn name(&self) -> String {
        "LMDB".to_owned()
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let env = environment(folder, plan)?;
        database(&env)?;
        Ok(Box::new(LmdbWriter { env, batch: plan.batch }))
    }

    fn open(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Reader>> {
        let env = environment(folder, plan)?;
        Ok(Box::new(LmdbReader { env, checker: Checker::default() }))
    }
}

struct LmdbWriter {
    env: Env,
    batch: u64,
}

#[inline]
fn put(
    records: &Database<'_>,
    txn: &mut RwTxn<'_>,
    numbers: Range<u64>,
    source: &mut Source,
) -> Result<()> {
    for number in numbers {
        records.put_with_flags(txn, PutFlags::APPEND, &number, source.next_record())?;
    }
    Ok(())
}

impl Writer for LmdbWriter {
    fn append(&mut self, numbers: Range<u64>) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let records = database(&self.env)?;
        for first in numbers.clone().step_by(self.batch as usize) {
            let mut txn = self.env.write_txn()?;
            put(&records, &mut txn, first..numbers.end.min(first + self.batch), &mut source)?;
            txn.commit()?;
        }
        Ok(())
    }

    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let records = database(&self.env)?;
        let mut left = numbers;
        while pace.begin(&left) {
            let mut txn = self.env.write_txn()?;
            while let Some(numbers) = pace.take(&mut left) {
                put(&records, &mut txn, numbers, &mut source)?;
            }
            txn.commit()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

struct LmdbReader {
    env: Env,
    checker: Checker,
}

impl Reader for LmdbReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        let records = database_to_read(&self.env)?;
        let txn = self.env.read_txn()?;
        let mut all = records.iter(&txn)?;
        (0..count).try_for_each(|number| {
            let (_, record) = all.next().with_context(|| format!("record {number} is gone"))??;
            self.checker.check(number, record)
        })
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        let records = database_to_read(&self.env)?;
        let txn = self.env.read_txn()?;
        for number in numbers {
            let record = records.get(&txn, number)?;
            self.checker.check(*number, record.unwrap_or_default())?;
        }
        Ok(())
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        let records = database_to_read(&self.env)?;
        let txn = self.env.read_txn()?;
        let (_, record) = records.last(&txn)?.context("the store is empty")?;
        self.checker.check(last, record)
    }
}
