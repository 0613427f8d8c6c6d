//! Reading the records of a log with nothing but a loop: from a mapping of its segments, and from a buffer.
//!
//! Nobody asks for an order, a lane, damage, or what is committed: the denominator of the ratios, never a design to
//! use. Whoever reads so knows that one publisher wrote all of it, and how many records there are.

#![allow(unsafe_code)]

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use memmap2::{Advice, MmapOptions, MmapRaw};

use crate::bench::failure::{During, Failure, Result};

/// Bytes before the first record of a segment's file.
const FIRST: usize = 4096 + 16;

/// Bytes of the header of a record.
const HEADER: usize = 24;

/// The files of the segments of lane 0, in their order.
pub fn segments(log: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(log).during("cannot list a log")?;
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| name(path).is_some_and(|name| name.starts_with("lane-0-")))
        .collect();
    paths.sort();
    Ok(paths)
}

/// All bytes of a record whose first word is `head`; `None` if there is none. No record of these logs has a key.
#[inline]
fn record_bytes(head: u64) -> Option<usize> {
    (head != 0).then(|| HEADER + (head as u32 as usize).next_multiple_of(8))
}

#[inline]
fn word(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}

/// The segments of a log, mapped, with all of their pages there.
pub struct Mapped(Vec<MmapRaw>);

impl Mapped {
    pub fn open(log: &Path) -> Result<Self> {
        let map = |path: PathBuf| {
            let file = File::open(&path).during("cannot open a segment")?;
            let map = MmapOptions::new().map_raw_read_only(&file).during("cannot map a segment")?;
            map.advise(Advice::PopulateRead).during("cannot touch the pages of a segment")?;
            Ok(map)
        };
        Ok(Self(segments(log)?.into_iter().map(map).collect::<Result<_>>()?))
    }

    fn bytes(&self, segment: usize) -> &[u8] {
        let map = &self.0[segment];
        // SAFETY: the bytes are mapped for as long as the slice lives, and the log is not written meanwhile but behind
        // its end, where nobody reads.
        unsafe { std::slice::from_raw_parts(map.as_ptr(), map.len()) }
    }

    /// Adds up the first words of the payloads of `count` records.
    pub fn sum(&self, count: u64) -> Result<u64> {
        let (mut sum, mut left) = (0_u64, count);
        for segment in 0..self.0.len() {
            let (bytes, mut at) = (self.bytes(segment), FIRST);
            while let Some(record) = word(bytes, at).and_then(record_bytes) {
                if left == 0 {
                    return Ok(sum);
                }
                sum = sum.wrapping_add(word(bytes, at + HEADER).unwrap_or(0));
                at += record;
                left -= 1;
            }
        }
        if left == 0 {
            return Ok(sum);
        }
        Err(Failure::new(format!("{left} records are not where they should be")))
    }

    /// Where each of `count` records is: its segment, and the byte in it.
    pub fn index(&self, count: u64) -> Vec<(u32, u32)> {
        let mut index = Vec::with_capacity(count as usize);
        for segment in 0..self.0.len() {
            let (bytes, mut at) = (self.bytes(segment), FIRST);
            while let Some(record) = word(bytes, at).and_then(record_bytes) {
                if index.len() as u64 == count {
                    return index;
                }
                index.push((segment as u32, at as u32));
                at += record;
            }
        }
        index
    }

    /// The first word of the payload of the record there.
    #[inline]
    pub fn at(&self, (segment, at): (u32, u32)) -> u64 {
        word(self.bytes(segment as usize), at as usize + HEADER).unwrap_or(0)
    }
}

/// The same sum from a file that is read through a buffer.
pub fn sum_by_buffer(log: &Path, count: u64, buffer: usize) -> Result<u64> {
    let (mut sum, mut left, mut payload) = (0_u64, count, Vec::new());
    for path in segments(log)? {
        let file = File::open(path).during("cannot open a segment")?;
        let mut file = BufReader::with_capacity(buffer, file);
        let mut skipped = [0; FIRST];
        file.read_exact(&mut skipped).during("cannot read a segment")?;
        let mut head = [0; HEADER];
        // The end of a full segment is shorter than a header, or zeroes.
        while left > 0 && file.read_exact(&mut head).is_ok() {
            let Some(record) = word(&head, 0).and_then(record_bytes) else { break };
            payload.resize(record - HEADER, 0);
            file.read_exact(&mut payload).during("cannot read a record")?;
            sum = sum.wrapping_add(word(&payload, 0).unwrap_or(0));
            left -= 1;
        }
    }
    if left == 0 {
        return Ok(sum);
    }
    Err(Failure::new(format!("{left} records are not where they should be")))
}
