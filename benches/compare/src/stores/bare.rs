//! Copying records into a mapped file, and reading them there, with nothing around it: what the machine itself gives.

use std::fs::File;
use std::hint::black_box;
use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{ensure, Context, Result};
use memmap2::{Advice, Mmap, MmapMut, MmapOptions};
use rustix::fs::{fallocate, FallocateFlags};

use super::{Plan, Reader, Store, Writer};
use crate::pace::Pace;
use crate::record::{Checker, Source, BYTES};

/// What stands in front of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Nothing.
    None,
    /// 24 bytes: its length, which says that it is there, its number, and the complement of it.
    Plain,
    /// 24 bytes: its length, the time, and a CRC-32C of the record and the time, which is looked at when it is read.
    Sealed,
}

impl Header {
    const fn bytes(self) -> usize {
        match self {
            Self::None => 0,
            Self::Plain | Self::Sealed => 24,
        }
    }
}

/// A mapped file.
pub struct Bare {
    /// What stands in front of each record.
    pub header: Header,
    /// Whether its pages are there before the clock starts. If not, each is got by a fault.
    pub is_populated: bool,
}

const FILE: &str = "records";

impl Bare {
    fn stride(&self) -> usize {
        self.header.bytes() + BYTES
    }
}

impl Store for Bare {
    fn name(&self) -> String {
        let pages = if self.is_populated { "populated" } else { "faults" };
        match self.header {
            Header::None => format!("mmap, {pages}"),
            Header::Plain => format!("mmap, {pages}, 24 B headers"),
            Header::Sealed => format!("mmap, {pages}, CRC and time"),
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
        Ok(Box::new(BareWriter { map, header: self.header }))
    }

    fn open(&self, folder: &Path, _: &Plan) -> Result<Box<dyn Reader>> {
        let file = File::open(folder.join(FILE))?;
        let map = self.is_populated.then(|| map_to_read(&file, true)).transpose()?;
        let (header, checker) = (self.header, Checker::default());
        Ok(Box::new(BareReader { file, map, header, checker }))
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
    header: Header,
}

impl BareWriter {
    #[inline]
    fn put(&mut self, numbers: Range<u64>, source: &mut Source) {
        match self.header {
            Header::None => self.put_each(Header::None, numbers, source, |_, _| [0; WORDS]),
            Header::Plain => self.put_each(Header::Plain, numbers, source, plain),
            Header::Sealed => self.put_each(Header::Sealed, numbers, source, |_, record| {
                let time = now_ns();
                [u64::from(seal(time, record)), time, record.len() as u64]
            }),
        }
    }

    /// Puts each record where the one before it ends, and says so in front of it once it is there.
    #[inline(always)]
    fn put_each(
        &mut self,
        header: Header,
        numbers: Range<u64>,
        source: &mut Source,
        words: impl Fn(u64, &[u8]) -> [u64; WORDS],
    ) {
        let mut at = numbers.start as usize * (header.bytes() + BYTES);
        for number in numbers {
            let record = source.next_record();
            let end = at + header.bytes() + record.len();
            let (front, body) = self.map[at..end].split_at_mut(header.bytes());
            body.copy_from_slice(record);
            let words = words(number, record);
            for (word, value) in front.as_chunks_mut().0.iter_mut().zip(words) {
                *word = value.to_le_bytes();
            }
            at = end;
        }
    }
}

/// Words of a header, the last of which says that the record is there.
const WORDS: usize = 3;

#[inline]
fn plain(number: u64, record: &[u8]) -> [u64; WORDS] {
    [!number, number, record.len() as u64]
}

#[inline]
fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |time| time.as_nanos() as u64)
}

#[inline]
fn seal(time: u64, record: &[u8]) -> u32 {
    crc32c::crc32c_append(time as u32 ^ (time >> 32) as u32, record)
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
        let stride = self.header.bytes() + BYTES;
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
    header: Header,
    checker: Checker,
}

impl BareReader {
    fn mapped<R>(&self, read: impl FnOnce(&[u8]) -> Result<R>) -> Result<R> {
        match &self.map {
            Some(map) => read(map),
            None => read(&map_to_read(&self.file, false)?),
        }
    }

    #[inline]
    fn check_at(&self, bytes: &[u8], number: u64) -> Result<()> {
        let stride = self.header.bytes() + BYTES;
        let at = number as usize * stride;
        let (front, body) = bytes
            .get(at..at + stride)
            .context("the mapping ends early")?
            .split_at(self.header.bytes());
        if let (Header::Sealed, [crc, time, _]) = (self.header, front.as_chunks().0) {
            let (crc, time) = (u64::from_le_bytes(*crc), u64::from_le_bytes(*time));
            ensure!(u64::from(seal(time, body)) == crc, "record {number} has a wrong checksum");
        }
        self.checker.check(number, body)
    }
}

impl Reader for BareReader {
    fn scan(&mut self, count: u64) -> Result<()> {
        self.mapped(|bytes| (0..count).try_for_each(|number| self.check_at(bytes, number)))
    }

    fn find(&mut self, numbers: &[u64]) -> Result<()> {
        self.mapped(|bytes| numbers.iter().try_for_each(|&number| self.check_at(bytes, number)))
    }

    fn read_last(&mut self, last: u64) -> Result<()> {
        self.mapped(|bytes| self.check_at(bytes, last))
    }
}
