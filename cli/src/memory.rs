//! Memory that a parent shares with its children beside the bus: words that they tell each other
//! about, and for the benchmarks everything that is measured without windlass.
//!
//! The file has no name (`memfd`), so nothing is left behind however the processes end. The parent
//! makes it and a child inherits it as its standard input. Words are atomics; the spans between
//! them are reached through raw pointers by `bench::bare_ring`, which owns its part of the memory.

#![allow(unsafe_code)]

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use anyhow::{bail, Context, Result};
use memmap2::{MmapOptions, MmapRaw};
use nix::fcntl::posix_fallocate;
use nix::sys::memfd::{memfd_create, MFdFlags};

/// Nameless memory that several processes have mapped.
#[derive(Clone)]
pub struct Memory {
    file: Arc<File>,
    map: Arc<MmapRaw>,
}

impl Memory {
    /// Makes `bytes` of memory, reserved and touched.
    pub fn create(bytes: usize) -> Result<Self> {
        let what = "cannot make shared memory";
        let descriptor = memfd_create("windlass-shared", MFdFlags::MFD_CLOEXEC).context(what)?;
        let size = i64::try_from(bytes).context(what)?;
        posix_fallocate(&descriptor, 0, size).context("cannot reserve shared memory")?;
        Self::map(File::from(descriptor))
    }

    /// Opens the memory that the parent passed as the standard input of this process.
    pub fn inherit() -> Result<Self> {
        let input = std::io::stdin();
        let descriptor: OwnedFd =
            input.as_fd().try_clone_to_owned().context("cannot open the inherited memory")?;
        Self::map(File::from(descriptor))
    }

    /// What a child gets as its standard input.
    pub fn as_input(&self) -> Result<Stdio> {
        Ok(Stdio::from(self.file.try_clone().context("cannot pass on the shared memory")?))
    }

    fn map(file: File) -> Result<Self> {
        let map = MmapOptions::new().populate().map_raw(&file).context("cannot map the memory")?;
        Ok(Self { file: Arc::new(file), map: Arc::new(map) })
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// The address of the span `offset..offset + bytes`, valid for as long as any clone of this
    /// memory lives.
    pub fn span(&self, offset: usize, bytes: usize) -> Result<*mut u8> {
        if offset > self.len() || bytes > self.len() - offset {
            bail!("the shared memory is smaller than the plan of the run");
        }
        Ok(self.map.as_mut_ptr().wrapping_add(offset))
    }

    /// The word at byte `offset`.
    #[inline]
    pub fn word(&self, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= self.len(), "a word lies in the memory");
        let at = self.map.as_mut_ptr().wrapping_add(offset).cast();
        // SAFETY: in bounds and aligned by the line above (a mapping begins on a page), mapped for
        // as long as `self.map` lives, and words are accessed as atomics by
        // all processes.
        unsafe { AtomicU64::from_ptr(at) }
    }

    /// Sets a span to zero, before the other side is told about it.
    pub fn clear(&self, offset: usize, bytes: usize) {
        for word in (offset..offset + bytes).step_by(8) {
            // Relaxed: the command that hands the span over orders these stores before its readers.
            self.word(word).store(0, Relaxed);
        }
    }
}
