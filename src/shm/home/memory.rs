//! Folders in the memory of one process: files without a name, and a list of them.
//!
//! The list is behind a mutex, which no hot path takes. The files are memory files, opened anew
//! through `/proc` by everybody who opens them: locks and access rights work as they do on a file
//! of a directory.

use crate::error::{Error, ErrorKind, Result};
use crate::shm::map::Access;
use rustix::fs::{memfd_create, MemfdFlags};
use rustix::io::Errno;
use std::collections::btree_map::{BTreeMap, Entry as Slot};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

enum Entry {
    File(File),
    Folder(Arc<Memory>),
}

/// A folder in memory.
pub struct Memory {
    path: PathBuf,
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Memory {
    /// An empty folder that no list holds.
    pub fn new(path: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { path: path.into(), entries: Mutex::default() })
    }

    /// Where it is, to show.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Every change is one call on the map: a panic elsewhere leaves it whole.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An empty folder that can become entry `name` of this one.
    pub fn folder(&self, name: &str) -> Arc<Self> {
        Self::new(self.path.join(name))
    }

    /// Makes `folder` the entry `name`, unless there is one.
    pub fn adopt(&self, name: &str, folder: &Arc<Self>) -> bool {
        match self.entries().entry(name.to_owned()) {
            Slot::Occupied(_) => false,
            Slot::Vacant(vacant) => {
                vacant.insert(Entry::Folder(Arc::clone(folder)));
                true
            }
        }
    }

    /// Makes `file` the entry `name`, in place of another file, and returns it opened anew.
    pub fn place(&self, name: &str, file: File) -> Result<File> {
        let path = self.path.join(name);
        let opened = reopen(&file, &path, Access::Write)?;
        match self.entries().entry(name.to_owned()) {
            Slot::Vacant(vacant) => {
                vacant.insert(Entry::File(file));
            }
            Slot::Occupied(mut occupied) => match occupied.get_mut() {
                Entry::File(old) => *old = file,
                Entry::Folder(_) => return Err(other_kind(&path, "a folder", "a file")),
            },
        }
        Ok(opened)
    }

    /// Makes `file` the entry `name`, unless there is one.
    pub fn place_new(&self, name: &str, file: File) -> bool {
        match self.entries().entry(name.to_owned()) {
            Slot::Occupied(_) => false,
            Slot::Vacant(vacant) => {
                vacant.insert(Entry::File(file));
                true
            }
        }
    }

    /// The names of all files.
    pub fn files(&self) -> Vec<String> {
        let entries = self.entries();
        let files = entries.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(name, _)| name.clone()).collect()
    }

    /// Takes file `name` off the list.
    pub fn remove_file(&self, name: &str) {
        let mut entries = self.entries();
        if matches!(entries.get(name), Some(Entry::File(_))) {
            entries.remove(name);
        }
    }

    /// Opens folder `name`.
    pub fn open_folder(&self, name: &str) -> Result<Arc<Self>> {
        match self.entries().get(name) {
            Some(Entry::Folder(folder)) => Ok(Arc::clone(folder)),
            Some(Entry::File(_)) => Err(other_kind(&self.path.join(name), "a file", "a folder")),
            None => Err(self.missing(name)),
        }
    }

    /// Opens file `name` by an open file of its own.
    pub fn open_file(&self, name: &str, access: Access) -> Result<File> {
        let path = self.path.join(name);
        match self.entries().get(name) {
            Some(Entry::File(file)) => reopen(file, &path, access),
            Some(Entry::Folder(_)) => Err(other_kind(&path, "a folder", "a file")),
            None => Err(self.missing(name)),
        }
    }

    /// The names of all folders.
    pub fn folders(&self) -> Vec<String> {
        let entries = self.entries();
        let folders = entries.iter().filter(|(_, entry)| matches!(entry, Entry::Folder(_)));
        folders.map(|(name, _)| name.clone()).collect()
    }

    /// Whether there is an entry `name`.
    pub fn exists(&self, name: &str) -> bool {
        self.entries().contains_key(name)
    }

    /// Takes folder `name` off the list.
    pub fn remove_folder(&self, name: &str) -> Result<()> {
        let mut entries = self.entries();
        match entries.get(name) {
            Some(Entry::Folder(_)) => {}
            Some(Entry::File(_)) => {
                return Err(other_kind(&self.path.join(name), "a file", "a folder"));
            }
            None => return Err(self.missing(name)),
        }
        entries.remove(name);
        Ok(())
    }

    fn missing(&self, name: &str) -> Error {
        let text = format!("{} does not exist", self.path.join(name).display());
        Error::new(ErrorKind::NotFound, text)
    }
}

fn other_kind(path: &Path, found: &str, expected: &str) -> Error {
    Error::corrupt(path.display(), "its kind", found, expected)
}

/// An empty file in memory. `path` is what tools show for it.
pub fn new_file(path: &Path) -> Result<File> {
    let create = |flags| memfd_create("windlass", MemfdFlags::CLOEXEC | flags);
    // Where memory may not be executed a file must say that it never is; an old kernel does not
    // know the word.
    let made = match create(MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => create(MemfdFlags::empty()),
        made => made,
    };
    let made = made.map_err(|errno| super::directory::explain("make", path, errno))?;
    Ok(File::from(made))
}

/// Opens `file` again: another open file, with its own locks and its own access.
fn reopen(file: &File, path: &Path, access: Access) -> Result<File> {
    let again = format!("/proc/self/fd/{}", file.as_raw_fd());
    let opened = File::options().read(true).write(access == Access::Write).open(again);
    opened.map_err(|error| {
        Error::io(format!("cannot open {} through /proc, which is needed", path.display()), error)
    })
}
