//! Who uses a log: one topic at a time, and since which start of the machine.
//!
//! The `claim` file names the topic that uses the log, by identity and by name. Every process that has this topic open
//! holds a shared lock on the file; whoever makes the log ready for a topic holds it alone. So whoever finds another
//! topic's name, or that of its own topic from before the machine was started anew, and gets the lock alone, knows that
//! nobody uses the log, and that what its control file says of it means nothing. The claim also names the start of the
//! machine, and its own file by number: so it is known whether the log may be what a crash of the machine left, or a
//! copy that was made while it was in use.
//!
//! Everybody who uses the log also holds a shared lock on the file `log`. A claim file that is gone is made anew by
//! whoever gets that one alone.
//!
//! # If a process dies
//!
//! The kernel gives its lock back. If it held it alone the name is still the old one, or the new one with everything
//! done.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::limits::HEADER_BYTES;
use crate::log::files::LogFiles;
use crate::log::recover::Past;
use crate::shm::home::Folder;
use crate::shm::map::Access;
use crate::shm::node;
use crate::shm::sys::Guarded;
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::time::Duration;

const NAME_BYTES: usize = 1024;
const RECORD_AT: u64 = HEADER_BYTES as u64;
const NAME_AT: usize = 32;
const RECORD_BYTES: usize = NAME_AT + NAME_BYTES;

/// How long to wait before asking again for a lock that somebody holds who makes the log ready.
const AGAIN: Duration = Duration::from_millis(1);

/// The share of this process in the use of a log.
pub struct Claim {
    held: Guarded,
    // Closing it is enough: it says that somebody is there, and that may be late.
    _log: Guarded,
}

/// What a claim was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Others of the topic may use the log.
    Shared,
    /// Nobody else uses it. It has to be made ready, and the claim settled.
    Alone(Past),
}

/// Who uses a log, or used it last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct User {
    identity: u64,
    boot: u64,
    /// Number of the file that says so.
    file: u64,
    name: String,
}

/// Makes the claim file of a new log.
pub fn create(folder: &Folder, identity: u64, mode: u32) -> Result<()> {
    let bytes = (HEADER_BYTES + RECORD_BYTES + END_BYTES).next_multiple_of(HEADER_BYTES) as u64;
    folder.create_file_if_absent("claim", bytes, mode, |_, region| {
        let fields = [0; FIELDS];
        Header { kind: Kind::Claim, file_bytes: bytes, identity, fields }.write(region);
        Ok(())
    })?;
    Ok(())
}

/// Opens the claim file, and makes it anew if it is gone and nobody uses the log.
fn open(files: &LogFiles, log: &File) -> Result<Guarded> {
    let folder = &files.folder;
    loop {
        let opened = Guarded::open(|| folder.open_file("claim", Access::Write));
        match opened {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            opened => return opened,
        }
        if !lock(log, libc::F_WRLCK).map_err(|errno| cannot_lock(errno.into()))? {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "the file claim of the log {folder} is gone, and somebody uses the log; end all \
                     processes that do, and open it again"
                ),
            ));
        }
        step!("claim.create");
        create(folder, files.identity, files.shape.mode)?;
        lock(log, libc::F_RDLCK).map_err(|errno| cannot_lock(errno.into()))?;
    }
}

/// A number of the present run of the machine; 0 if the kernel does not say.
fn boot() -> u64 {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

impl Claim {
    /// Claims the log for the topic `identity`, which is shown as `name`.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if another topic uses the log.
    pub fn take(files: &LogFiles, identity: u64, name: &str) -> Result<(Self, Found)> {
        let folder = &files.folder;
        let log = Guarded::open(|| folder.open_file("log", Access::Write))?;
        while !lock(log.file(), libc::F_RDLCK).map_err(|errno| cannot_lock(errno.into()))? {
            std::thread::sleep(AGAIN);
        }
        let claim = Self { held: open(files, log.file())?, _log: log };
        let number = claim.number()?;
        // What the control file of the topic says is not about a copy that was put in the place of the log.
        let me =
            |user: &User| user.identity == identity && user.boot == boot() && user.file == number;
        loop {
            let mine = me(&claim.user()?);
            if claim.lock(if mine { libc::F_RDLCK } else { libc::F_WRLCK })? {
                match (mine, me(&claim.user()?)) {
                    (true, true) => return Ok((claim, Found::Shared)),
                    (false, false) => {
                        let past = claim.past()?;
                        return Ok((claim, Found::Alone(past)));
                    }
                    // It changed before the lock was there.
                    (false, true) => {
                        claim.lock(libc::F_RDLCK)?;
                        return Ok((claim, Found::Shared));
                    }
                    (true, false) => {
                        claim.lock(libc::F_UNLCK)?;
                        continue;
                    }
                }
            }
            let user = claim.user()?;
            if !mine && !me(&user) && claim.holder()? == Some(libc::F_RDLCK) {
                return Err(in_use(folder, &user.name, name));
            }
            std::thread::sleep(AGAIN);
        }
    }

    /// Says that the log is ready for the topic, and lets others of it in.
    pub fn settle(&self, identity: u64, name: &str) -> Result<()> {
        let mut record = [0; RECORD_BYTES];
        record[..8].copy_from_slice(&identity.to_le_bytes());
        record[8..16].copy_from_slice(&boot().to_le_bytes());
        let name = &name.as_bytes()[..name.len().min(NAME_BYTES)];
        record[16..24].copy_from_slice(&self.number()?.to_le_bytes());
        record[24..32].copy_from_slice(&(name.len() as u64).to_le_bytes());
        record[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
        step!("claim.settle");
        let written = self.held.file().write_all_at(&record, RECORD_AT);
        written.map_err(|error| Error::io("cannot write the claim of a log", error))?;
        step!("claim.share");
        self.lock(libc::F_RDLCK).map(drop)
    }

    fn user(&self) -> Result<User> {
        user_in(self.held.file())
    }

    /// What may have become of the log since the claim was settled.
    fn past(&self) -> Result<Past> {
        past_in(self.held.file())
    }

    fn number(&self) -> Result<u64> {
        number_of(self.held.file())
    }

    /// Takes, changes or gives back the lock. False if somebody else's is in the way.
    fn lock(&self, kind: libc::c_int) -> Result<bool> {
        lock(self.held.file(), kind).map_err(|errno| cannot_lock(errno.into()))
    }

    /// The kind of lock that somebody else holds.
    fn holder(&self) -> Result<Option<libc::c_int>> {
        let mut asked = node::range_of(libc::F_WRLCK, 0);
        fcntl(self.held.file(), FcntlArg::F_OFD_GETLK(&mut asked))
            .map_err(|errno| cannot_lock(errno.into()))?;
        let kind = libc::c_int::from(asked.l_type);
        Ok((kind != libc::F_UNLCK).then_some(kind))
    }
}

/// Takes, changes or gives back the lock on a file. False if somebody else's is in the way.
pub fn lock(file: &File, kind: libc::c_int) -> Result<bool, Errno> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&node::range_of(kind, 0))) {
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
}

/// The number of the claim file in its file system: a copy has another one.
fn number_of(file: &File) -> Result<u64> {
    let found = file.metadata();
    Ok(found.map_err(|error| Error::io("cannot look at the claim of a log", error))?.ino())
}

fn past_in(file: &File) -> Result<Past> {
    let (user, boot) = (user_in(file)?, boot());
    let is_same = boot != 0 && user.boot == boot && user.file == number_of(file)?;
    Ok(if is_same { Past::NoCrash } else { Past::Unknown })
}

/// What may have become of a log since it was used; anything if that cannot be told.
pub fn past_of(files: &LogFiles) -> Past {
    let opened = files.folder.open_file("claim", Access::Read);
    opened.and_then(|file| past_in(&file)).unwrap_or(Past::Unknown)
}

/// Whether some process has a topic open that uses the log.
pub(super) fn is_held(files: &LogFiles) -> bool {
    let mut asked = node::range_of(libc::F_WRLCK, 0);
    let Ok(file) = files.folder.open_file("claim", Access::Read) else { return false };
    let answer = fcntl(&file, FcntlArg::F_OFD_GETLK(&mut asked));
    answer.is_ok() && libc::c_int::from(asked.l_type) != libc::F_UNLCK
}

/// The topic that uses the log now, and its bus.
pub fn user_of(files: &LogFiles) -> Result<Option<String>> {
    if !is_held(files) {
        return Ok(None);
    }
    let file = files.folder.open_file("claim", Access::Read)?;
    Ok(Some(user_in(&file)?.name))
}

fn user_in(file: &File) -> Result<User> {
    let mut record = [0; RECORD_BYTES];
    // What was cut off names nobody.
    let read = file.read_at(&mut record, RECORD_AT);
    read.map_err(|error| Error::io("cannot read the claim of a log", error))?;
    let word = |at: usize| {
        let mut eight = [0; 8];
        eight.copy_from_slice(&record[at..at + 8]);
        u64::from_le_bytes(eight)
    };
    let len = usize::try_from(word(24)).map_or(NAME_BYTES, |len| len.min(NAME_BYTES));
    let name = String::from_utf8_lossy(&record[NAME_AT..NAME_AT + len]).into_owned();
    Ok(User { identity: word(0), boot: word(8), file: word(16), name })
}

fn cannot_lock(error: std::io::Error) -> Error {
    Error::io("cannot lock the claim of a log", error)
}

fn in_use(folder: &Folder, user: &str, name: &str) -> Error {
    Error::new(
        ErrorKind::AlreadyExists,
        format!(
            "the log {folder} is in use by {user}; {name} needs another one; or wait until all \
             processes of that topic have ended"
        ),
    )
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.held.is_inherited() {
            return;
        }
        step!("claim.release");
        // By name, not left to the close: a child that is being forked right now may hold a copy for an instant longer.
        if let Err(errno) = lock(self.held.file(), libc::F_UNLCK) {
            tracing::warn!(%errno, "the lock of a log is released late");
        }
    }
}
