//! Folders and files under construction.

use super::directory::{delete, delete_folder, gone, Directory, LOCKABLE, PRIVATE};
use crate::error::{Error, ErrorKind, Result};
use crate::shm::sys::{monotonic_ns, Guarded};
use crate::sync::{AtomicU32, Ordering};
use rustix::fs::{self, AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

/// The bit of a folder's mode that hands its group on to what is made in it.
const INHERIT_GROUP: u32 = 0o2000;

/// How often what was just made may be gone before it is said that it cannot be made.
const VANISHED_MAX: u32 = 1000;

/// A name for something that is to become `name`: `.<name>.<pid>-<unique>.tmp`.
pub(super) fn temporary_name(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only a number that no other thread gets. Processes with the same pid, in two name
    // spaces, differ by the time; if they do not, the second to make the entry finds it and takes
    // another name.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let unique = monotonic_ns().rotate_left(24) ^ u64::from(count);
    format!(".{name}.{}-{unique:016x}.tmp", std::process::id())
}

/// What a temporary of this name was to become; `None` if it is not one of ours.
pub(super) fn temporary_target(name: &str) -> Option<&str> {
    let (rest, unique) = name.strip_prefix('.')?.strip_suffix(".tmp")?.rsplit_once('-')?;
    let (target, pid) = rest.rsplit_once('.')?;
    let hexadecimal = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let good = unique.len() == 16
        && unique.bytes().all(hexadecimal)
        && !pid.is_empty()
        && pid.bytes().all(|byte| byte.is_ascii_digit())
        && !target.is_empty();
    good.then_some(target)
}

/// A folder or file under construction. Locked; removed when dropped before it has its name: H2.
pub struct Temporary {
    parent: Arc<Directory>,
    name: String,
    locked: Option<Guarded>,
    is_folder: bool,
}

impl Temporary {
    /// An empty folder that is to become `target`, with `mode`: from the beginning what is made in it gets its group
    /// if that mode says so.
    pub fn folder(parent: &Arc<Directory>, target: &str, mode: u32) -> Result<Self> {
        Self::make(parent, target, true, |name| {
            fs::mkdirat(&parent.opened, name, Mode::from_raw_mode(PRIVATE))?;
            // The mask of the process may have taken the right to open it.
            let mode = Mode::from_raw_mode(PRIVATE | mode & INHERIT_GROUP);
            let made = fs::chmodat(&parent.opened, name, mode, AtFlags::empty()).and_then(|()| {
                fs::openat(&parent.opened, name, LOCKABLE | OFlags::DIRECTORY, Mode::empty())
            });
            made.inspect_err(|_| {
                // Nobody knows of it yet. If it is not there any more a sweeper was faster.
                let _ = fs::unlinkat(&parent.opened, name, AtFlags::REMOVEDIR);
            })
        })
    }

    /// An empty file that is to become `target`.
    pub fn file(parent: &Arc<Directory>, target: &str) -> Result<Self> {
        Self::make(parent, target, false, |name| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | LOCKABLE;
            let mode = Mode::from_raw_mode(0o600);
            let opened = fs::openat(&parent.opened, name, flags, mode)?;
            // The mask of the process may have taken the right to open it from whoever sweeps.
            fs::fchmod(&opened, mode).map(|()| opened)
        })
    }

    fn make(
        parent: &Arc<Directory>,
        target: &str,
        is_folder: bool,
        create: impl Fn(&str) -> Result<OwnedFd, Errno>,
    ) -> Result<Self> {
        let mut vanished = 0;
        loop {
            let name = temporary_name(target);
            let mut taken = false;
            let opened = Guarded::open(|| {
                create(&name).map(File::from).map_err(|errno| {
                    taken = errno == Errno::EXIST;
                    parent.explain("make", target, errno)
                })
            });
            let opened = match opened {
                Err(_) if taken => continue,
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    if parent.is_there() && vanished < VANISHED_MAX {
                        // Swept between the call that made it and the one that opened it.
                        vanished += 1;
                        continue;
                    }
                    if parent.is_there() {
                        // A file system in which nothing can be made says that nothing is there.
                        return Err(error);
                    }
                    return Err(gone("make", &parent.path.join(target)));
                }
                opened => opened?,
            };
            step!("home.lock");
            match fs::flock(opened.file(), FlockOperation::NonBlockingLockExclusive) {
                // H2: not locked until now, so a sweeper may have deleted it.
                Ok(()) if parent.is_still(&name, opened.file()) => {
                    let parent = Arc::clone(parent);
                    return Ok(Self { parent, name, locked: Some(opened), is_folder });
                }
                // A sweeper has it, and deletes it.
                Ok(()) | Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => return Err(parent.explain("lock", target, errno)),
            }
        }
    }

    /// The file under construction.
    pub fn as_file(&self) -> &File {
        self.locked.as_ref().expect("a temporary is locked until it has its name").file()
    }

    /// The folder under construction, which shows itself as the `target` that it will be.
    pub fn inside(&self, target: &str) -> Result<Arc<Directory>> {
        let mut inside = self.parent.open_folder(&self.name)?;
        inside.path = self.parent.path.join(target);
        Ok(Arc::new(inside))
    }

    /// Gives the folder its mode and its name. `None` if the name is taken: the folder is removed
    /// then.
    pub fn become_folder(mut self, target: &str, mode: u32) -> Result<Option<Arc<Directory>>> {
        let inside = self.inside(target)?;
        self.set_mode(target, mode)?;
        step!("home.rename");
        let parent = &self.parent.opened;
        let renamed =
            match fs::renameat_with(parent, &self.name, parent, target, RenameFlags::NOREPLACE) {
                // Without the flag a folder still replaces nothing but an empty folder, and no bus
                // is empty.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    fs::renameat(parent, &self.name, parent, target)
                }
                renamed => renamed,
            };
        match renamed {
            Ok(()) => {
                // Unlocks by closing it.
                self.locked = None;
                Ok(Some(inside))
            }
            Err(Errno::EXIST | Errno::NOTEMPTY | Errno::NOTDIR) => Ok(None),
            Err(errno) => Err(self.parent.explain("make", target, errno)),
        }
    }

    /// Gives the file its mode and its name, in place of the file that has it.
    pub fn become_file(mut self, target: &str, mode: u32) -> Result<File> {
        self.set_mode(target, mode)?;
        step!("file.rename");
        let parent = &self.parent.opened;
        fs::renameat(parent, &self.name, parent, target)
            .map_err(|errno| self.parent.explain("make", target, errno))?;
        let locked = self.locked.take().expect("a temporary is locked until it has its name");
        step!("file.unlock");
        fs::flock(locked.file(), FlockOperation::Unlock)
            .map_err(|errno| self.parent.explain("unlock", target, errno))?;
        Ok(locked.into_file())
    }

    /// Gives the file its mode and its name, unless the name is taken. False, and the file is removed, if it is.
    pub fn become_new_file(mut self, target: &str, mode: u32) -> Result<bool> {
        self.set_mode(target, mode)?;
        step!("file.link");
        let parent = &self.parent.opened;
        let renamed =
            match fs::renameat_with(parent, &self.name, parent, target, RenameFlags::NOREPLACE) {
                // A link is refused as well if the name is taken. What stays under the old name is swept.
                Err(Errno::INVAL | Errno::NOSYS) => {
                    fs::linkat(parent, &self.name, parent, target, AtFlags::empty())
                        .and_then(|()| fs::unlinkat(parent, &self.name, AtFlags::empty()))
                }
                renamed => renamed,
            };
        match renamed {
            Ok(()) => {
                self.locked = None;
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.parent.explain("make", target, errno)),
        }
    }

    /// The mode exactly, whatever the mask of the process is: H1.
    fn set_mode(&self, target: &str, mode: u32) -> Result<()> {
        let explain = |errno| self.parent.explain("set the mode of", target, errno);
        let mode = mode & 0o7777;
        fs::fchmod(self.as_file(), Mode::from_raw_mode(mode)).map_err(explain)?;
        let found = fs::fstat(self.as_file()).map_err(explain)?;
        if found.st_mode & 0o7777 == mode {
            return Ok(());
        }
        // The kernel takes this bit from those who are not of the group, without a word.
        Err(Error::new(
            ErrorKind::Permission,
            format!(
                "cannot share {} with its group, {}: this user is not a member of it; join the \
                 group, or use a folder of another one",
                self.parent.path().join(target).display(),
                found.st_gid
            ),
        ))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(locked) = &self.locked else { return };
        // In a forked child it is still the parent's.
        if locked.is_inherited() {
            return;
        }
        let parent = self.parent.opened.as_fd();
        // By the descriptor that it has: there may be no other left.
        let deleted = match self.is_folder {
            true => delete_folder(parent, &self.name, locked.file().as_fd()),
            false => delete(parent, &self.name),
        };
        if let Err(errno) = deleted {
            let path = self.parent.path.join(&self.name);
            tracing::warn!(%errno, path = %path.display(), "cannot delete what was not finished");
        }
    }
}
