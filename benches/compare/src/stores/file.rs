//! A plain file that is written through a buffer, and read through one.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Seek, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::{Context, Result};

use super::bare::write_zeroes;
use super::{Plan, Reader, Store, Writer};
use crate::pace::Pace;
use crate::record::{Checker, Source, BYTES};

/// A file with a buffer.
pub struct Buffered {
    /// Bytes of the buffer.
    pub buffer_bytes: usize,
}

const FILE: &str = "records";

impl Store for Buffered {
    fn name(&self) -> String {
        format!("file, {} KiB buffer", self.buffer_bytes >> 10)
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let mut file = File::create_new(folder.join(FILE))?;
        if plan.sync.is_some() {
            write_zeroes(&file, plan.payload_bytes())?;
            file.rewind()?;
        }
        Ok(Box::new(FileWriter { file: BufWriter::with_capacity(self.buffer_bytes, file) }))
    }

    fn open(&self, folder: &Path, _: &Plan) -> Result<Box<dyn Reader>> {
        let file = File::open(folder.join(FILE))?;
        let (buffer_bytes, checker) = (self.buffer_bytes, Checker::default());
        Ok(Box::new(FileReader { file, buffer_bytes, checker }))
    }
}

struct FileWriter {
    file: BufWriter<File>,
}

impl FileWriter {
    #[inline]
    fn put(&mut self, numbers: Range<u64>, source: &mut Source) -> Result<()> {
        for _ in numbers {
            self.file.write_all(source.next_record())?;
        }
        Ok(())
    }
}

impl Writer for FileWriter {
    fn append(&mut self, numbers: Range<u64>) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        self.put(numbers, &mut source)?;
        self.file.flush().context("cannot write to a file")
    }

    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let mut left = numbers;
        while pace.begin(&left) {
            while let Some(numbers) = pace.take(&mut left) {
                self.put(numbers, &mut source)?;
            }
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct FileReader {
    file: File,
    buffer_bytes: usize,
    checker: Checker,
}

impl FileReader {
    fn check_at(&self, number: u64) -> Result<()> {
        let mut record = [0; BYTES];
        self.file.read_exact_at(&mut record, number * BYTES as u64)?;
        self.checker.check(number, &record)
    }
}

impl Reader for FileReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        self.file.rewind()?;
        let mut file = BufReader::with_capacity(self.buffer_bytes, &self.file);
        let mut record = [0; BYTES];
        (0..count).try_for_each(|number| {
            file.read_exact(&mut record)?;
            self.checker.check(number, &record)
        })
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        numbers.iter().try_for_each(|&number| self.check_at(number))
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        self.check_at(last)
    }
}
