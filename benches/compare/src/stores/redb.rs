//! `redb`: numbers as keys.

use std::ops::Range;
use std::path::Path;

use ::redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use anyhow::{Context, Result};

use super::{Plan, Reader, Store, Writer};
use crate::pace::Pace;
use crate::record::{Checker, Source};

/// `redb`.
pub struct Redb;

const RECORDS: TableDefinition<'static, u64, &[u8]> = TableDefinition::new("records");
const FILE: &str = "records.redb";

impl Store for Redb {
    fn name(&self) -> String {
        "redb".to_owned()
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let database = Database::create(folder.join(FILE)).context("cannot make a database")?;
        let txn = database.begin_write()?;
        txn.open_table(RECORDS)?;
        txn.commit()?;
        Ok(Box::new(RedbWriter { database, batch: plan.batch }))
    }

    fn open(&self, folder: &Path, _: &Plan) -> Result<Box<dyn Reader>> {
        let database = Database::open(folder.join(FILE)).context("cannot open a database")?;
        Ok(Box::new(RedbReader { database, checker: Checker::default() }))
    }
}

struct RedbWriter {
    database: Database,
    batch: u64,
}

impl Writer for RedbWriter {
    fn append(&mut self, numbers: Range<u64>) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        for first in numbers.clone().step_by(self.batch as usize) {
            let mut txn = self.database.begin_write()?;
            txn.set_durability(Durability::None)?;
            let mut table = txn.open_table(RECORDS)?;
            for number in first..numbers.end.min(first + self.batch) {
                table.insert(number, source.next_record())?;
            }
            drop(table);
            txn.commit()?;
        }
        Ok(())
    }

    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let mut left = numbers;
        while pace.begin(&left) {
            let txn = self.database.begin_write()?;
            let mut table = txn.open_table(RECORDS)?;
            while let Some(numbers) = pace.take(&mut left) {
                for number in numbers {
                    table.insert(number, source.next_record())?;
                }
            }
            drop(table);
            txn.commit()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        // What was committed without being put on disk is kept only if something behind it is.
        self.database.begin_write()?.commit()?;
        Ok(())
    }
}

struct RedbReader {
    database: Database,
    checker: Checker,
}

impl Reader for RedbReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let mut all = table.iter()?;
        (0..count).try_for_each(|number| {
            let (_, record) = all.next().with_context(|| format!("record {number} is gone"))??;
            self.checker.check(number, record.value())
        })
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        for &number in numbers {
            let record = table.get(number)?.with_context(|| format!("record {number} is gone"))?;
            self.checker.check(number, record.value())?;
        }
        Ok(())
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        let table = self.database.begin_read()?.open_table(RECORDS)?;
        let (_, record) = table.last()?.context("the store is empty")?;
        self.checker.check(last, record.value())
    }
}
