//! The checkpoint of a log: how far it is known to be on disk, so that a recovery has little to look at.
//!
//! Two slots are written by turns, each with a number and a checksum. Whatever a crash does to the one that is being
//! written, the other one stands. Several processes may write them: who writes holds a lock on the file, and whoever
//! finds it locked leaves it at that.

use crate::error::{Error, Result};
use crate::layout::header::{Header, Kind};
use crate::layout::log::Checkpoint;
use crate::log::claim;
use crate::log::files::{belongs, LogFiles};
use crate::shm::home::Folder;
use crate::shm::map::{self, Access};
use crate::shm::sys::Guarded;
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

/// Writes a checkpoint and puts it on disk. What it says is on disk already. Its number is one above the newest one's.
pub fn write(files: &LogFiles, checkpoint: &Checkpoint) -> Result<()> {
    let what = format!("{}/checkpoint", files.folder);
    let file = files.folder.open_file("checkpoint", Access::Write)?;
    step!("checkpoint.write");
    let bytes = checkpoint.to_bytes();
    let written =
        file.write_all_at(&bytes, checkpoint.slot_at() as u64).and_then(|()| file.sync_data());
    written.map_err(|error| Error::io(format!("cannot write {what}"), error))
}

/// Writes a checkpoint that says what `known` says, with a floor of at least `floor`, unless one says more already, and
/// returns what is written now; `None` if somebody else is writing one.
pub fn advance(files: &LogFiles, known: &Checkpoint, floor: u64) -> Result<Option<Checkpoint>> {
    // Guarded: a child that is forked meanwhile would go on holding the lock.
    let guarded = Guarded::open(|| files.folder.open_file("checkpoint", Access::Write))?;
    if !claim::lock(guarded.file(), libc::F_WRLCK).map_err(|errno| cannot_lock(files, errno))? {
        return Ok(None);
    }
    let written = read(files).and_then(|newest| {
        let floor = floor.max(newest.floor);
        let mut next = if newest.next > known.next { newest } else { *known };
        (next.number, next.floor, next.cut) = (newest.number + 1, floor, newest.cut);
        let is_news = (next.next, floor) != (newest.next, newest.floor);
        if is_news {
            write(files, &next)?;
        }
        Ok(if is_news { next } else { newest })
    });
    // By name: a child that is being forked right now may hold a copy for an instant longer.
    let unlocked = claim::lock(guarded.file(), libc::F_UNLCK);
    unlocked.map_err(|errno| cannot_lock(files, errno))?;
    written.map(Some)
}

fn cannot_lock(files: &LogFiles, errno: nix::errno::Errno) -> Error {
    Error::io(format!("cannot lock {}/checkpoint", files.folder), errno.into())
}
