//! Cursors: how far the consumers of a log have come, by name, kept beside it.
//!
//! A cursor is a file with two slots that are written by turns ([`Mark`]). It has one holder at a time, by the kernel's
//! word: an open-file lock, which is free the moment that its holder is dead.
//!
//! # If a process dies
//!
//! Before the write of a slot, or in it: the other slot stands, and what was received since is received again. After:
//! it is committed. The holder that is noted in the file means nothing once the lock is free.
//!
//! # If the machine crashes
//!
//! A commit that did not reach the disk is forgotten. If the log lost messages that were consumed already, those that
//! take their sequences are new: the recovery of the log sets the cursor back to the end of what is left, and it says
//! so until the next commit.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::cursor::{Mark, HOLDER_AT, PREFIX};
use crate::layout::header::{Header, Kind};
use crate::layout::log::SYNC_EACH;
use crate::log::claim::lock;
use crate::log::core::LogCore;
use crate::log::files::LogFiles;
use crate::shm::home::check_name;
use crate::shm::map::{self, Access};
use crate::shm::node::{own_namespace, range_of};
use crate::shm::sys::{self, Guarded};
use nix::fcntl::{fcntl, FcntlArg};
use std::fmt;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Who holds a cursor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CursorHolder {
    /// Its process, in the PID namespace that it runs in.
    pub pid: u32,
    /// Whether that is another PID namespace than that of this process: here another process may have the number.
    pub is_elsewhere: bool,
}

impl fmt::Display for CursorHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_elsewhere { " in another PID namespace" } else { "" };
        write!(f, "process {}{place}", self.pid)
    }
}

/// A cursor as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CursorInfo {
    /// Its name.
    pub name: String,
    /// The first sequence that is not consumed; `None` if nothing was committed yet.
    pub next: Option<u64>,
    /// Messages in the log from there on, or all if nothing was committed yet.
    pub lag: u64,
    /// When it was committed last, in nanoseconds since 1970.
    pub time_ns: Option<u64>,
    /// How many messages it was set back by a recovery since its last commit; see [`Cursor::rewound`].
    pub rewound: u64,
    /// Who holds it.
    pub held_by: Option<CursorHolder>,
}

/// The position of a named consumer in the log of a durable topic, kept on disk beside it.
///
/// A cursor has one holder at a time; a dead one does not hold it any more. A commit survives the death of the process.
/// A crash of the machine it survives as the messages of the topic do, by its [`SyncPolicy`](crate::SyncPolicy): with
/// `Each` it is on disk when `commit` returns; with `Every` a commit puts it there if the last one that did is so long
/// ago, and dropping the cursor does.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = std::env::temp_dir().join(format!("windlass-cursor-{}", std::process::id()));
/// use windlass::{Bus, Raw, Start};
///
/// let topic = Bus::anonymous()?.topic::<Raw>("orders").durable_at(&folder).open()?;
/// topic.publisher()?.publish(b"first")?;
///
/// let mut cursor = topic.cursor("billing")?;
/// assert_eq!(cursor.next(), None);
/// cursor.commit(1)?;
/// assert!(topic.cursor("billing").is_err(), "it is held");
/// drop(cursor);
/// assert_eq!(topic.cursor("billing")?.next(), Some(1));
/// # while std::fs::remove_dir_all(&folder).is_err() {} // its keeper may be making a file
/// # Ok(()) }
/// ```
pub struct Cursor {
    log: Arc<LogCore>,
    name: String,
    held: Guarded,
    mark: Option<Mark>,
    synced: Instant,
    /// Whether something was committed that was not put on disk.
    is_dirty: bool,
}

impl Cursor {
    /// Takes hold of cursor `name`, which is made if it does not exist.
    pub(crate) fn take(log: &Arc<LogCore>, name: &str) -> Result<Self> {
        check_name("cursor", name)?;
        let files = &log.files;
        let held = loop {
            make(files, name)?;
            if let Some(held) = hold(files, name)? {
                break held;
            }
        };
        let mark = read(files, name, held.file())?;
        let (log, name, synced) = (log.clone(), name.to_owned(), Instant::now());
        Ok(Self { log, name, held, mark, synced, is_dirty: false })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The first sequence that is not consumed; `None` if nothing was committed yet.
    pub fn next(&self) -> Option<u64> {
        self.mark.map(|mark| mark.next)
    }

    /// How many messages this cursor was set back by a recovery since its last commit.
    ///
    /// Not zero only after a crash of the machine took messages from the log that were consumed already. Those that are
    /// published under their sequences are other ones, and will be received.
    pub fn rewound(&self) -> u64 {
        self.mark.map_or(0, |mark| mark.rewound)
    }

    /// Messages in the log that are not consumed.
    pub fn lag(&self) -> Result<u64> {
        let (first, next) = (self.log.first(), self.log.next()?);
        Ok(next.saturating_sub(self.next().unwrap_or(0).max(first)))
    }

    /// Says that everything below `next` is consumed.
    ///
    /// # Errors
    ///
    /// `OutOfRange` if there is no such message yet, or if the cursor is further already ([`reset`](Self::reset) sets
    /// it back); `NoSpace`, `Io` if it cannot be written: then the last commit stands.
    pub fn commit(&mut self, next: u64) -> Result<()> {
        let least = self.next().unwrap_or(0);
        let most = match self.log.head.tail() {
            tail if next <= tail => tail,
            _ => self.log.next()?,
        };
        if !(least..=most).contains(&next) {
            return Err(Error::new(
                ErrorKind::OutOfRange,
                format!(
                    "cursor {} of {} cannot be committed at {next}: it is at {least}, and the next \
                     message to be published is {most}; to set it back, reset it",
                    self.name, self.log.files.folder
                ),
            ));
        }
        self.set(next)
    }

    /// Puts the cursor somewhere else.
    pub(crate) fn set(&mut self, next: u64) -> Result<()> {
        if self.held.is_inherited() {
            let text = "this cursor was inherited through fork; open the bus again in the child";
            return Err(Error::new(ErrorKind::Forked, text));
        }
        let number = self.mark.map_or(0, |mark| mark.number) + 1;
        let mark = Mark { number, next, rewound: 0, time: sys::realtime_ns() };
        write(&self.log.files, &self.name, self.held.file(), &mark)?;
        self.mark = Some(mark);
        self.is_dirty = true;
        let is_due = match self.log.files.shape.sync_ns {
            0 => false,
            SYNC_EACH => true,
            ns => self.synced.elapsed() >= Duration::from_nanos(ns),
        };
        if is_due {
            self.sync()?;
        }
        Ok(())
    }

    /// Puts what was committed on disk, whatever the policy.
    ///
    /// # Errors
    ///
    /// `Io` if that failed.
    pub fn sync(&mut self) -> Result<()> {
        if self.is_dirty {
            step!("cursor.sync");
            let synced = self.held.file().sync_data();
            synced.map_err(|error| cannot("put on disk", &self.log.files, &self.name, error))?;
            self.synced = Instant::now();
            self.is_dirty = false;
        }
        Ok(())
    }

    pub(crate) fn log(&self) -> &Arc<LogCore> {
        &self.log
    }
}

impl Drop for Cursor {
    fn drop(&mut self) {
        if self.held.is_inherited() {
            return;
        }
        if self.log.files.shape.sync_ns != 0 {
            if let Err(error) = self.sync() {
                tracing::warn!(%error, "a cursor may be behind after a crash of the machine");
            }
        }
        step!("cursor.release");
        // By name: a child that is being forked right now may hold a copy for an instant longer.
        if let Err(errno) = lock(self.held.file(), libc::F_UNLCK) {
            tracing::warn!(%errno, cursor = %self.name, "a cursor is released late");
        }
    }
}

impl fmt::Debug for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cursor").field("name", &self.name).field("next", &self.next()).finish()
    }
}

fn file_of(name: &str) -> String {
    format!("{PREFIX}{name}")
}

/// Makes the file of a cursor, unless it is there.
fn make(files: &LogFiles, name: &str) -> Result<()> {
    let file = file_of(name);
    if files.folder.exists(&file)? {
        return Ok(());
    }
    let (header, mode) = (Mark::header(files.identity), files.shape.mode);
    files.folder.create_file_if_absent(&file, Mark::FILE_BYTES, mode, |_, region| {
        header.write(region);
        Ok(())
    })?;
    if files.shape.sync_ns != 0 {
        files.folder.sync()?;
    }
    Ok(())
}

/// Takes the lock of a cursor, and notes who did. `None` if the file was removed meanwhile.
fn hold(files: &LogFiles, name: &str) -> Result<Option<Guarded>> {
    let file = file_of(name);
    let held = match Guarded::open(|| files.folder.open_file(&file, Access::Write)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    step!("cursor.lock");
    let locked = lock(held.file(), libc::F_WRLCK);
    if !locked.map_err(|errno| cannot("lock", files, name, errno.into()))? {
        let holder = holder_of(held.file()).map_or("somebody".to_owned(), |it| it.to_string());
        return Err(Error::new(
            ErrorKind::AlreadyExists,
            format!(
                "cursor {name} of {} is held by {holder}; use another name, or wait until that \
                 process has dropped it or ended",
                files.folder
            ),
        ));
    }
    // Whoever removes a cursor holds its lock; so once the name means what is locked, it stays so.
    let named = match files.folder.open_file(&file, Access::Read) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    if inode(&named).is_none() || inode(&named) != inode(held.file()) {
        return Ok(None);
    }
    let mut holder = [0; 16];
    holder[..8].copy_from_slice(&u64::from(std::process::id()).to_le_bytes());
    holder[8..].copy_from_slice(&u64::from(own_namespace()).to_le_bytes());
    let noted = held.file().write_all_at(&holder, HOLDER_AT);
    noted.map_err(|error| cannot("write", files, name, error))?;
    Ok(Some(held))
}

fn inode(file: &File) -> Option<(u64, u64)> {
    file.metadata().ok().map(|found| (found.dev(), found.ino()))
}

/// Who holds the lock of a cursor, if anybody does but the owner of `file`.
fn holder_of(file: &File) -> Option<CursorHolder> {
    let mut asked = range_of(libc::F_WRLCK, 0);
    fcntl(file, FcntlArg::F_OFD_GETLK(&mut asked)).ok()?;
    if libc::c_int::from(asked.l_type) == libc::F_UNLCK {
        return None;
    }
    let mut noted = [0; 16];
    file.read_exact_at(&mut noted, HOLDER_AT).ok()?;
    let word = |at: usize| u32::from_le_bytes([0, 1, 2, 3].map(|byte| noted[at + byte]));
    Some(CursorHolder { pid: word(0), is_elsewhere: word(8) != own_namespace() })
}

/// The newest mark of a cursor; `None` if there is none yet.
pub(super) fn read(files: &LogFiles, name: &str, file: &File) -> Result<Option<Mark>> {
    let what = format!("{}/{}", files.folder, file_of(name));
    let region = map::map(file, &what, Access::Read, Mark::FILE_BYTES, &files.loss)?;
    let header = Header::read(&region, Kind::Cursor, &what)?;
    if header.identity != files.identity {
        let text = format!("{what} belongs to another log; put the files back where they were");
        return Err(Error::new(ErrorKind::Corrupt, text));
    }
    let (mut newest, mut written): (Option<Mark>, _) = (None, 0);
    for at in Mark::SLOTS {
        let mut bytes = [0; Mark::SLOT_BYTES];
        let read = file.read_exact_at(&mut bytes, at);
        read.map_err(|error| cannot("read", files, name, error))?;
        written += u32::from(bytes != [0; Mark::SLOT_BYTES]);
        let found = Mark::from_bytes(&bytes);
        newest = newest.max_by(found);
    }
    // A torn first one was never committed.
    if newest.is_none() && written == 2 {
        let text = format!(
            "{what} is damaged: neither of its two positions has its checksum; remove the cursor \
             (Topic::remove_cursor), and begin where you know that you are"
        );
        return Err(Error::new(ErrorKind::Corrupt, text));
    }
    Ok(newest)
}

/// Chooses the newer of two marks.
trait Newer {
    fn max_by(self, other: Self) -> Self;
}

impl Newer for Option<Mark> {
    fn max_by(self, other: Self) -> Self {
        [self, other].into_iter().flatten().max_by_key(|mark| mark.number)
    }
}

fn write(files: &LogFiles, name: &str, file: &File, mark: &Mark) -> Result<()> {
    step!("cursor.mark");
    let written = file.write_all_at(&mark.to_bytes(), mark.slot_at());
    written.map_err(|error| cannot("write", files, name, error))?;
    step!("cursor.marked");
    Ok(())
}

fn cannot(verb: &str, files: &LogFiles, name: &str, error: std::io::Error) -> Error {
    Error::io(format!("cannot {verb} {}/{}", files.folder, file_of(name)), error)
}

/// All cursors of a log that has the messages `first..next`. One that cannot be read is left out, and a warning given.
pub fn list(files: &LogFiles, first: u64, next: u64) -> Result<Vec<CursorInfo>> {
    let mut all = Vec::new();
    for file_name in files.folder.files()? {
        let Some(name) = file_name.strip_prefix(PREFIX) else { continue };
        let opened = match files.folder.open_file(&file_name, Access::Read) {
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            opened => opened,
        };
        match opened.and_then(|file| Ok((read(files, name, &file)?, holder_of(&file)))) {
            Ok((mark, held_by)) => all.push(CursorInfo {
                name: name.to_owned(),
                next: mark.map(|mark| mark.next),
                lag: next.saturating_sub(mark.map_or(0, |mark| mark.next).max(first)),
                time_ns: mark.map(|mark| mark.time),
                rewound: mark.map_or(0, |mark| mark.rewound),
                held_by,
            }),
            Err(error) => tracing::warn!(%error, "a cursor cannot be read"),
        }
    }
    all.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(all)
}

/// Removes a cursor that nobody holds. False if there is none of that name.
pub fn remove(files: &LogFiles, name: &str) -> Result<bool> {
    check_name("cursor", name)?;
    let Some(held) = hold(files, name)? else { return Ok(false) };
    step!("cursor.remove");
    files.folder.remove_file(&file_of(name))?;
    // By name, as when it is dropped.
    let unlocked = lock(held.file(), libc::F_UNLCK);
    unlocked.map_err(|errno| cannot("unlock", files, name, errno.into()))?;
    Ok(true)
}

/// Sets back the cursors that are beyond `next`, where a recovery has just ended a log that nobody uses.
pub fn rewind(files: &LogFiles, next: u64) -> Result<()> {
    for file_name in files.folder.files()? {
        let Some(name) = file_name.strip_prefix(PREFIX) else { continue };
        // One that is damaged is for its holder to find.
        let Ok(file) = files.folder.open_file(&file_name, Access::Write) else { continue };
        let Ok(Some(mark)) = read(files, name, &file) else { continue };
        let Some(ahead) = mark.next.checked_sub(next).filter(|ahead| *ahead > 0) else { continue };
        let rewound = mark.rewound.saturating_add(ahead);
        step!("recover.cursor");
        write(files, name, &file, &Mark { number: mark.number + 1, next, rewound, ..mark })?;
        file.sync_data().map_err(|error| cannot("put on disk", files, name, error))?;
        tracing::warn!(cursor = name, log = %files.folder, ahead, "a cursor was set back to the end");
    }
    Ok(())
}
