//! Copying records into a mapped file, and reading them there, with nothing around it: what the machine itself gives.

use std::fs::File;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result};
use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use rustix::fs::{fallocate, FallocateFlags};

use super::{Plan, Reader, Store, Writer};
use crate::pace::Pace;
use crate::record::{Checker, Source, BYTES};

/// A mapped file.
pub struct Bare {
    /// Bytes that are written in front of each record.
    pub header_bytes: usize,
    /// Whether its pages are there before the clock starts. If not, each is got by a fault.
    pub is_populated: bool,
}

const FILE: &str = "records";

impl Bare {
    fn stride(&self) -> usize {
        self.header_bytes + BYTES
    }
}

impl Store for Bare {
    fn name(&self) -> String {
        let pages = if self.is_populated { "populated" } else { "faults" };
        match self.header_bytes {
            0 => format!("mmap, {pages}"),
            bytes => format!("mmap, {pages}, {bytes} B headers"),
        }
    }

    fn create(&self, folder: &Path, plan: &Plan) -> Result<Box<dyn Writer>> {
        let path = folder.join(FILE);
        let file = File::options().read(true).write(true).create_new(true).open(&path)?;
        let bytes = plan.records * self.stride() as u64;
        if plan.sync.is_some() {
            write_zeroes(&file, bytes)?;
        } else {
            fallocate(&file, FallocateFlags::empty(), 0, bytes).context("cannot reserve a file")?;
        }
        // SAFETY: The file is this process's own, and nothing changes it while it is mapped but this mapping.
        let mut map = unsafe { MmapOptions::new().map_mut(&file) }?;
        if self.is_populated {
            populate(&mut map)?;
        }
        Ok(Box::new(BareWriter { map, header_bytes: self.header_bytes }))
    }

    fn open(&self, folder: &Path, _: &Plan) -> Result<Box<dyn Reader>> {
        let file = File::open(folder.join(FILE))?;
        let map = self.is_populated.then(|| map_to_read(&file, true)).transpose()?;
        let (header_bytes, checker) = (self.header_bytes, Checker::default());
        Ok(Box::new(BareReader { file, map, header_bytes, checker }))
    }
}

/// Fills a file and puts it on disk, so that putting a page there again changes nothing about the file.
pub fn write_zeroes(file: &File, bytes: u64) -> Result<()> {
    use std::os::unix::fs::FileExt;
    let zeroes = vec![0; 1 << 20];
    let mut at = 0;
    while at < bytes {
        let count = (bytes - at).min(zeroes.len() as u64);
        file.write_all_at(&zeroes[..count as usize], at).context("cannot fill a file")?;
        at += count;
    }
    file.sync_all().context("cannot put a file on disk")
}

fn populate(map: &mut MmapMut) -> Result<()> {
    map.advise(Advice::PopulateWrite).context("cannot populate a mapping")
}

fn map_to_read(file: &File, populated: bool) -> Result<Mmap> {
    let mut options = MmapOptions::new();
    if populated {
        options.populate();
    }
    // SAFETY: The file is this process's own, and nothing changes it while it is mapped to be read.
    unsafe { options.map(file) }.context("cannot map a file")
}

struct BareWriter {
    map: MmapMut,
    header_bytes: usize,
}

impl BareWriter {
    #[inline]
    fn put(&mut self, numbers: Range<u64>, source: &mut Source) {
        match self.header_bytes {
            0 => self.put_behind::<0>(numbers, source),
            _ => self.put_behind::<24>(numbers, source),
        }
    }

    /// Puts each record where the one before it ends, and says so in front of it once it is there.
    #[inline]
    fn put_behind<const HEADER: usize>(&mut self, numbers: Range<u64>, source: &mut Source) {
        let mut at = numbers.start as usize * (HEADER + BYTES);
        for number in numbers {
            let record = source.next_record();
            let place = &mut self.map[at..at + HEADER + record.len()];
            let (header, body) = place.split_at_mut(HEADER);
            body.copy_from_slice(record);
            let words = [!number, number, record.len() as u64];
            for (word, value) in header.as_chunks_mut().0.iter_mut().zip(words) {
                *word = value.to_le_bytes();
            }
            at += HEADER + record.len();
        }
    }
}

impl Writer for BareWriter {
    fn append(&mut self, numbers: Range<u64>) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        self.put(numbers, &mut source);
        black_box(&self.map[..]);
        Ok(())
    }

    fn append_durably(&mut self, numbers: Range<u64>, pace: &mut Pace) -> Result<()> {
        let mut source = Source::starting_at(numbers.start);
        let stride = self.header_bytes + BYTES;
        let mut left = numbers;
        while pace.begin(&left) {
            let first = left.start as usize * stride;
            while let Some(numbers) = pace.take(&mut left) {
                self.put(numbers, &mut source);
            }
            self.map.flush_range(first, left.start as usize * stride - first)?;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

struct BareReader {
    file: File,
    map: Option<Mmap>,
    header_bytes: usize,
    checker: Checker,
}

impl BareReader {
    fn mapped<R>(&self, read: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        match &self.map {
            Some(map) => read(map),
            None => read(&map_to_read(&self.file, false)?),
        }
    }

    fn check_at(&self, bytes: &[u8], number: u64) -> Result<()> {
        let at = number as usize * (self.header_bytes + BYTES) + self.header_bytes;
        self.checker.check(number, bytes.get(at..at + BYTES).unwrap_or_default())
    }
}

impl Reader for BareReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        self.mapped(|bytes| {
            let stride = self.header_bytes + BYTES;
            let mut records = bytes.chunks_exact(stride);
            (0..count).try_for_each(|number| {
                let record = records.next().unwrap_or_default();
                self.checker.check(number, record.get(self.header_bytes..).unwrap_or_default())
            })
        })
    }

    fn find(&mut self, numbers: &[u64]) -> Result<Option<()>> {
        self.mapped(|bytes| numbers.iter().try_for_each(|&number| self.check_at(bytes, number)))
            .map(Some)
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        self.mapped(|bytes| self.check_at(bytes, last))
    }
}
