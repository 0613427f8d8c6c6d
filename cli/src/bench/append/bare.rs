//! Appending to a mapped file without any safety: what the machine gives when nothing is asked of a log but speed.
//!
//! A record has as many bytes as one of a log. There is no checksum, no time, no order, no end of a segment, nobody
//! else who appends, and nothing is known after a crash: the denominator of the ratios, never a design to use.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::time::SystemTime;

use memmap2::{Advice, MmapOptions, MmapRaw};

use super::contest::{Appender, PAYLOAD, RECORD};
use crate::bench::failure::{During, Failure, Result};

/// A file that is mapped as a whole.
pub struct Bare {
    map: MmapRaw,
    at: usize,
}

impl Bare {
    /// A file for `records` records; with all of its pages there already if `populated`.
    pub fn create(path: &Path, records: u64, populated: bool) -> Result<Self> {
        let bytes = (records as usize * RECORD).next_multiple_of(4096);
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path);
        let file = file.during("cannot make a file")?;
        if populated {
            let zeroes = vec![0; 1 << 16];
            for at in (0..bytes).step_by(zeroes.len()) {
                let span = zeroes.len().min(bytes - at);
                file.write_all_at(&zeroes[..span], at as u64).during("cannot write a file")?;
            }
        } else {
            file.set_len(bytes as u64).during("cannot make a file long")?;
        }
        let map = MmapOptions::new().len(bytes).map_raw(&file).during("cannot map a file")?;
        if populated {
            map.advise(Advice::PopulateWrite).during("cannot touch the pages of a file")?;
        }
        Ok(Self { map, at: 0 })
    }
}

/// The same with what a record of a log says besides its payload: a checksum and a time.
pub struct Sealed(pub Bare);

impl Appender for Sealed {
    #[inline]
    fn append(&mut self, payload: &[u8; PAYLOAD], sequence: u64) -> Result<()> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let time = now.during("the clock is set to before 1970")?.as_nanos() as u64;
        self.0.write(payload, sequence, time, u64::from(crc32c::crc32c(payload)))
    }

    fn finish(self) -> Result<()> {
        self.0.finish()
    }
}

impl Appender for Bare {
    #[inline]
    fn append(&mut self, payload: &[u8; PAYLOAD], sequence: u64) -> Result<()> {
        self.write(payload, sequence, sequence, PAYLOAD as u64)
    }

    fn finish(self) -> Result<()> {
        self.map.flush().during("cannot put a file on disk")
    }
}

impl Bare {
    #[inline]
    fn write(&mut self, payload: &[u8; PAYLOAD], sequence: u64, one: u64, two: u64) -> Result<()> {
        if self.at + RECORD > self.map.len() {
            return Err(Failure::new("a bare file is full".to_owned()));
        }
        // SAFETY: the record lies within the mapping, which is this appender's alone.
        let base = unsafe { self.map.as_mut_ptr().add(self.at) };
        // SAFETY: as above; the payload is behind three words.
        let body = unsafe { base.add(24) };
        // SAFETY: as above; the payload is not part of the mapping.
        unsafe { std::ptr::copy_nonoverlapping(payload.as_ptr(), body, PAYLOAD) };
        // SAFETY: as above; records, and so their words, are aligned to 8 bytes.
        let words = unsafe { std::slice::from_raw_parts(base.cast::<AtomicU64>(), 3) };
        words[1].store(one, Relaxed);
        words[2].store(two, Relaxed);
        // BARE_APPEND: what a reader of the word would load with Acquire to see the record.
        words[0].store(sequence + 1, Release);
        self.at += RECORD;
        Ok(())
    }
}
