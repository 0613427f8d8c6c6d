//! The checkpoint of a log: how far it is known to be on disk, so that a recovery has little to look at.
//!
//! Two slots are written by turns, each with a number and a checksum. Whatever a crash does to the one that is being
//! written, the other one stands.

use crate::error::{Error, Result};
use crate::layout::header::{Header, Kind};
use crate::layout::log::Checkpoint;
use crate::log::files::{belongs, LogFiles};
use crate::shm::home::Folder;
use crate::shm::map::{self, Access};
use std::os::unix::fs::FileExt;

/// The newest checkpoint; an empty one if there is none, or none that is sound.
pub fn read(files: &LogFiles) -> Result<Checkpoint> {
    let what = format!("{}/checkpoint", files.folder);
    let file = files.folder.open_file("checkpoint", Access::Read)?;
    let region = map::map(&file, &what, Access::Read, Checkpoint::FILE_BYTES, &files.loss)?;
    belongs(&Header::read(&region, Kind::Checkpoint, &what)?, files.identity, &what)?;
    let mut newest = Checkpoint::empty();
    for at in Checkpoint::SLOTS {
        let mut bytes = [0; Checkpoint::SLOT_BYTES];
        let read = file.read_exact_at(&mut bytes, at as u64);
        read.map_err(|error| Error::io(format!("cannot read {what}"), error))?;
        let found = Checkpoint::from_bytes(&bytes);
        newest = found.filter(|found| found.number > newest.number).unwrap_or(newest);
    }
    Ok(newest)
}

/// Makes the file of the checkpoints of a log that has none.
pub fn create(folder: &Folder, identity: u64, mode: u32) -> Result<()> {
    let bytes = Checkpoint::FILE_BYTES;
    let file = folder.create_file_atomically("checkpoint", bytes, mode, |region| {
        Checkpoint::header(identity).write(region);
        Ok(())
    })?;
    file.sync_all().map_err(|error| Error::io(format!("cannot write {folder}/checkpoint"), error))
}

/// Writes a checkpoint and puts it on disk. What it says is on disk already. Its number is one above that of the newest.
pub fn write(files: &LogFiles, checkpoint: &Checkpoint) -> Result<()> {
    let what = format!("{}/checkpoint", files.folder);
    let file = files.folder.open_file("checkpoint", Access::Write)?;
    step!("checkpoint.write");
    let bytes = checkpoint.to_bytes();
    let written =
        file.write_all_at(&bytes, checkpoint.slot_at() as u64).and_then(|()| file.sync_data());
    written.map_err(|error| Error::io(format!("cannot write {what}"), error))
}
