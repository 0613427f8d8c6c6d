//! What stores leave on the disk, and what the kernel keeps of it in memory.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rustix::fs::{fadvise, Advice};

/// A folder that is removed when it is dropped.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes a new one in `parent`.
    pub fn new(parent: &Path, number: usize) -> Result<Self> {
        let path = parent.join(format!("windlass-compare-{}-{number}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("compare: cannot remove {}: {error}", self.path.display());
        }
    }
}

fn each_file(folder: &Path, visit: &mut impl FnMut(&Path) -> Result<()>) -> Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?
    {
        let path = entry?.path();
        let visited = match path.is_dir() {
            true => each_file(&path, visit),
            false => visit(&path).with_context(|| path.display().to_string()),
        };
        // What a store is about to make has another name by now.
        let is_gone = |error: &anyhow::Error| {
            let cause = error.root_cause().downcast_ref::<std::io::Error>();
            cause.is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
                || error.root_cause().downcast_ref() == Some(&rustix::io::Errno::NOENT)
        };
        match visited {
            Err(error) if is_gone(&error) => {}
            visited => visited?,
        }
    }
    Ok(())
}

/// Puts all files of a folder on disk.
pub fn sync(folder: &Path) -> Result<()> {
    each_file(folder, &mut |path| Ok(File::open(path)?.sync_data()?))
}

/// Makes the kernel forget what it has of the files of a folder. None of them may be mapped.
pub fn forget(folder: &Path) -> Result<()> {
    sync(folder)?;
    each_file(folder, &mut |path| Ok(fadvise(File::open(path)?, 0, None, Advice::DontNeed)?))
}

/// Bytes of the disk that the files of a folder occupy.
pub fn occupied_bytes(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    each_file(folder, &mut |path| {
        bytes += fs::metadata(path)?.blocks() * 512;
        Ok(())
    })?;
    Ok(bytes)
}

/// What this process made the disk do so far.
#[derive(Clone, Copy, Debug)]
pub struct Traffic {
    /// Bytes read.
    pub read_bytes: u64,
    /// Bytes written, or waiting to be.
    pub written_bytes: u64,
}

impl Traffic {
    /// Until now.
    pub fn so_far() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/io").context("cannot read /proc/self/io")?;
        let value = |name: &str| -> Result<u64> {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            let line = line.with_context(|| format!("/proc/self/io does not say {name}"))?;
            line.trim().parse().with_context(|| format!("/proc/self/io says {name}: {line}"))
        };
        Ok(Self { read_bytes: value("read_bytes")?, written_bytes: value("write_bytes")? })
    }
}
