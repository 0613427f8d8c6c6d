//! Files that are made only once, listed, removed and put on disk: those of logs.

use super::temporary::Temporary;
use super::{check_entry, fill, memory, Folder};
use crate::error::Result;
use crate::shm::place::Region;
use std::fs::File;

impl Folder {
    /// Makes file `name` as [`create_file_atomically`](Self::create_file_atomically) does, unless there is a file of
    /// that name: then nothing happens, and `false` is returned.
    pub fn create_file_if_absent(
        &self,
        name: &str,
        len: u64,
        mode: u32,
        init: impl FnOnce(&File, &Region) -> Result<()>,
    ) -> Result<bool> {
        check_entry(name)?;
        match self {
            Folder::Directory(parent) => {
                let temporary = Temporary::file(parent, name)?;
                let file = temporary.as_file();
                fill(file, &parent.path().join(name), len, |region| init(file, region))?;
                temporary.become_new_file(name, mode)
            }
            Folder::Memory(parent) => {
                let file = memory::new_file(&parent.path().join(name))?;
                fill(&file, &parent.path().join(name), len, |region| init(&file, region))?;
                Ok(parent.place_new(name, file))
            }
        }
    }

    /// The names of all files, temporaries not among them.
    pub fn files(&self) -> Result<Vec<String>> {
        match self {
            Folder::Directory(directory) => directory.files(),
            Folder::Memory(memory) => Ok(memory.files()),
        }
    }

    /// Removes file `name`, if there is one. Whoever has it open or mapped keeps it.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        check_entry(name)?;
        match self {
            Folder::Directory(directory) => directory.remove_file(name),
            Folder::Memory(memory) => {
                memory.remove_file(name);
                Ok(())
            }
        }
    }

    /// Puts the list of entries on disk: files that were made or removed are there, or not, after a crash.
    pub fn sync(&self) -> Result<()> {
        match self {
            Folder::Directory(directory) => directory.sync(),
            Folder::Memory(_) => Ok(()),
        }
    }
}
