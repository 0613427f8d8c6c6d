//! SQLite with a write-ahead log: numbers as row identifiers, blobs, prepared statements.

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use rusqlite::{Connection, Row};

use super::{Plan, Reader, Store, Writer};
use crate::pace::Pace;
use crate::record::{Checker, Source};

/// SQLite.
pub struct Sqlite;

const FILE: &str = "records.sqlite";

/// The largest mapping that SQLite allows, and a cache of 64 MiB.
const TO_READ: &str = "pragma mmap_size = 2147418112; pragma cache_size = -65536;";

fn connect(folder: &Path, plan: &Plan) -> Result<Connection> {
    let connection = Connection::open(folder.join(FILE)).context("cannot open a database")?;
    let synchronous = if plan.sync.is_some() { "full" } else { "off" };
    connection.execute_batch(&format!(
        "pragma journal_mode = wal; pragma synchronous = {synchronous}; {TO_READ}"
    ))?;
    Ok(connection)
}

impl Store for Sqlite {
    fn name(&self) -> String {
        "SQLite, WAL".to_owned()
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let connection = connect(folder, plan)?;
        connection.execute_batch("create table records (number integer primary key, body blob)")?;
        Ok(Box::new(SqliteWriter { connection, batch: plan.batch }))
    }

    fn open(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Reader>> {
        let connection = connect(folder, plan)?;
        Ok(Box::new(SqliteReader { connection, checker: Checker::default() }))
    }
}

struct SqliteWriter {
    connection: Connection,
    batch: u64,
}

impl SqliteWriter {
    fn put(&self, numbers: Range<u64>, source: &mut Source) -> Result<()> {
        let text = "insert into records values (?1, ?2)";
        let mut statement = self.connection.prepare_cached(text)?;
        for number in numbers {
            statement.execute((number as i64, source.next_record()))?;
        }
        Ok(())
    }

    fn say(&self, text: &str) -> Result<()> {
        Ok(self.connection.prepare_cached(text)?.execute(()).map(|_| ())?)
    }
}

impl Writer for SqliteWriter {
    fn append(&mut self, numbers: Range<u64>) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        for first in numbers.clone().step_by(self.batch as usize) {
            self.say("begin immediate")?;
            self.put(first..numbers.end.min(first + self.batch), &mut source)?;
            self.say("commit")?;
        }
        Ok(())
    }

    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let mut left = numbers;
        while pace.begin(&left) {
            self.say("begin immediate")?;
            while let Some(numbers) = pace.take(&mut left) {
                self.put(numbers, &mut source)?;
            }
            self.say("commit")?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.connection.close().map_err(|(_, error)| error).context("cannot close a database")
    }
}

struct SqliteReader {
    connection: Connection,
    checker: Checker,
}

impl SqliteReader {
    fn check(&self, number: u64, row: &Row<'_>) -> Result<()> {
        self.checker.check(number, row.get_ref(0)?.as_blob()?)
    }
}

impl Reader for SqliteReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        let text = "select body from records order by number";
        let mut statement = self.connection.prepare_cached(text)?;
        let mut rows = statement.query(())?;
        (0..count).try_for_each(|number| {
            let row = rows.next()?.with_context(|| format!("record {number} is gone"))?;
            self.check(number, row)
        })
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        self.connection.execute_batch("begin")?;
        let text = "select body from records where number = ?1";
        let mut statement = self.connection.prepare_cached(text)?;
        for &number in numbers {
            let mut rows = statement.query((number as i64,))?;
            let row = rows.next()?.with_context(|| format!("record {number} is gone"))?;
            self.check(number, row)?;
        }
        drop(statement);
        self.connection.execute_batch("commit")?;
        Ok(())
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        let text = "select body from records order by number desc limit 1";
        let mut statement = self.connection.prepare_cached(text)?;
        let mut rows = statement.query(())?;
        let row = rows.next()?.context("the store is empty")?;
        self.check(last, row)
    }
}
