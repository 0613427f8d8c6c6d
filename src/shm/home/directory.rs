//! Folders that processes share: directories, held open, and entries relative to them.

use crate::error::{Error, ErrorKind, Result};
use crate::shm::map::Access;
use crate::shm::sys::{monotonic_ns, Guarded};
use crate::sync::{AtomicU32, Ordering};
use rustix::fs::{self, AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fmt::Display;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory, held open. Its entries are reached through it, whatever name it has by now: H4.
pub struct Directory {
    opened: OwnedFd,
    path: PathBuf,
}

/// How a directory is opened: as a place, which needs no right to list it, and never through a
/// link.
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
const LOCKABLE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
const PRIVATE: u32 = 0o700;

/// An operating-system error as a sentence that says what to do, where there is something to do.
pub fn explain(doing: &str, path: &Path, errno: Errno) -> Error {
    let path = path.display();
    let (kind, why) = match errno {
        Errno::ACCESS | Errno::PERM => (
            ErrorKind::Permission,
            "this user may not; it takes the right to read, write and enter the folder",
        ),
        Errno::ROFS => (ErrorKind::Permission, "its file system is mounted read-only"),
        Errno::LOOP => (ErrorKind::Permission, "it is a symbolic link, which is not followed"),
        Errno::NAMETOOLONG => (ErrorKind::Invalid, "the file system does not allow so long a name"),
        Errno::MFILE => (
            ErrorKind::Limit,
            "this process has too many files open; close some or raise its limit (ulimit -n)",
        ),
        Errno::NFILE => (ErrorKind::Limit, "this machine has too many files open"),
        Errno::NOENT => (ErrorKind::NotFound, "it does not exist"),
        Errno::NOSPC | Errno::DQUOT => {
            (ErrorKind::NoSpace, "its file system has no room for another file")
        }
        Errno::ISDIR => (ErrorKind::Corrupt, "it is a folder, expected a file"),
        Errno::NOTDIR => (ErrorKind::Corrupt, "it is a file, expected a folder"),
        _ => return Error::io(format!("cannot {doing} {path}"), errno.into()),
    };
    Error::new(kind, format!("cannot {doing} {path}: {why}"))
}

fn refuse(path: &Path, why: impl Display) -> Error {
    let path = path.display();
    Error::new(
        ErrorKind::Permission,
        format!(
            "{path} is refused as the place of this user's buses: {why}; remove it, or set {} to \
             another directory",
            super::ROOT_VARIABLE
        ),
    )
}

impl Directory {
    /// Opens the directory of a user's buses, and makes it first if it does not exist.
    ///
    /// Its name can be guessed and its parent is everybody's, so it must be a directory, not a
    /// link, that belongs to this user and that nobody else may enter.
    pub fn open_own_root(path: &Path) -> Result<Self> {
        make_private(path)?;
        let opened = fs::open(path, PLACE, Mode::empty());
        let opened = opened.map_err(|errno| explain("open", path, errno))?;
        // Asked of what is open, so that nobody can exchange it after the question.
        let found = fs::fstat(&opened).map_err(|errno| explain("look at", path, errno))?;
        match FileType::from_raw_mode(found.st_mode) {
            FileType::Directory => {}
            FileType::Symlink => return Err(refuse(path, "it is a symbolic link")),
            _ => return Err(refuse(path, "it is not a directory")),
        }
        let user = nix::unistd::geteuid().as_raw();
        if found.st_uid != user {
            let why = format!("it belongs to user {}, and this is user {user}", found.st_uid);
            return Err(refuse(path, why));
        }
        let mode = found.st_mode & 0o7777;
        if mode & 0o077 != 0 {
            let why = format!("its mode is {mode:04o}, which lets other users in; 0700 does not");
            return Err(refuse(path, why));
        }
        Ok(Self { opened, path: path.to_owned() })
    }

    /// Opens the directory that the environment names for buses, and makes it first if it does not
    /// exist.
    pub fn open_given_root(path: &Path) -> Result<Self> {
        make_private(path)?;
        Self::open_parent(path)
    }

    /// Opens a directory that somebody vouches for. It may be a link.
    pub fn open_parent(path: &Path) -> Result<Self> {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::DIRECTORY;
        let opened = fs::open(&path, flags, Mode::empty());
        let opened = opened.map_err(|errno| explain("open the folder", &path, errno))?;
        Ok(Self { opened, path })
    }

    /// Where it is, to show.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn explain(&self, doing: &str, name: &str, errno: Errno) -> Error {
        explain(doing, &self.path.join(name), errno)
    }

    /// Opens folder `name`.
    pub fn open_folder(&self, name: &str) -> Result<Self> {
        let opened = fs::openat(&self.opened, name, PLACE | OFlags::DIRECTORY, Mode::empty());
        let opened = opened.map_err(|errno| {
            let linked = errno == Errno::NOTDIR && self.kind_of(name) == Ok(FileType::Symlink);
            self.explain("open", name, if linked { Errno::LOOP } else { errno })
        })?;
        Ok(Self { opened, path: self.path.join(name) })
    }

    /// Opens file `name` by an open file of its own.
    pub fn open_file(&self, name: &str, access: Access) -> Result<File> {
        let access = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::RDWR,
        };
        // LOCKABLE does not wait for the other end of a pipe that somebody left here.
        let opened = fs::openat(&self.opened, name, access | LOCKABLE, Mode::empty());
        let opened = opened.map_err(|errno| self.explain("open", name, errno))?;
        let found = fs::fstat(&opened).map_err(|errno| self.explain("look at", name, errno))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            let path = self.path.join(name);
            return Err(Error::corrupt(path.display(), "its kind", "something else", "a file"));
        }
        Ok(File::from(opened))
    }

    fn kind_of(&self, name: &str) -> Result<FileType, Errno> {
        let found = fs::statat(&self.opened, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(FileType::from_raw_mode(found.st_mode))
    }

    /// Whether there is an entry `name`.
    pub fn exists(&self, name: &str) -> Result<bool> {
        match self.kind_of(name) {
            Ok(_) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(self.explain("look at", name, errno)),
        }
    }

    /// The names of all entries.
    fn entries(&self) -> Result<Vec<String>, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let entries = fs::Dir::new(fs::openat(&self.opened, ".", flags, Mode::empty())?)?;
        let name = |entry: Result<fs::DirEntry, Errno>| match entry {
            // Not text: not a name that windlass gives.
            Ok(entry) => entry.file_name().to_str().ok().map(|name| Ok(name.to_owned())),
            Err(errno) => Some(Err(errno)),
        };
        let own = |name: &Result<String, Errno>| !matches!(name.as_deref(), Ok("." | ".."));
        entries.filter_map(name).filter(own).collect()
    }

    /// The names of all folders, without temporaries.
    pub fn folders(&self) -> Result<Vec<String>> {
        let mut names = self.entries().map_err(|errno| explain("list", &self.path, errno))?;
        // One that is gone by now is not listed.
        names
            .retain(|name| !name.starts_with('.') && self.kind_of(name) == Ok(FileType::Directory));
        Ok(names)
    }

    /// Removes folder `name`: first its name, in one step, then what was under it.
    pub fn remove_folder(&self, name: &str) -> Result<()> {
        drop(self.open_folder(name)?);
        let aside = loop {
            let aside = temporary_name(name);
            step!("home.remove");
            match fs::renameat_with(
                &self.opened,
                name,
                &self.opened,
                &aside,
                RenameFlags::NOREPLACE,
            ) {
                Ok(()) => break aside,
                Err(Errno::EXIST) => {}
                Err(Errno::INVAL | Errno::NOSYS) => {
                    let renamed = fs::renameat(&self.opened, name, &self.opened, &aside);
                    renamed.map_err(|errno| self.explain("remove", name, errno))?;
                    break aside;
                }
                Err(errno) => return Err(self.explain("remove", name, errno)),
            }
        };
        step!("home.delete");
        // The folder is gone already. What cannot be deleted now is left to whoever sweeps.
        if let Err(errno) = delete(self.opened.as_fd(), &aside) {
            tracing::warn!(%errno, path = %self.path.join(aside).display(), "cannot delete");
        }
        Ok(())
    }

    /// Removes the temporaries, of entry `only` if it is given, whose builders are dead.
    pub fn sweep(&self, only: Option<&str>) -> usize {
        let names = self.entries().unwrap_or_default();
        let ours = |name: &&String| {
            let target = temporary_target(name);
            target.is_some_and(|target| only.is_none_or(|only| only == target))
        };
        names.iter().filter(ours).filter(|name| self.sweep_one(name)).count()
    }

    fn sweep_one(&self, name: &str) -> bool {
        // Guarded: a child that is forked while we delete would go on holding the lock.
        let opened = Guarded::open(|| {
            let opened = fs::openat(&self.opened, name, LOCKABLE, Mode::empty());
            opened.map(File::from).map_err(|errno| self.explain("open", name, errno))
        });
        let Ok(opened) = opened else { return false };
        step!("home.sweep");
        // H3: locked means that its builder lives; another file under the name, or none, that it
        // was renamed.
        if fs::flock(opened.file(), FlockOperation::NonBlockingLockExclusive).is_err()
            || !self.is_still(name, opened.file())
        {
            return false;
        }
        match delete(self.opened.as_fd(), name) {
            Ok(()) => true,
            Err(errno) => {
                let path = self.path.join(name);
                tracing::warn!(%errno, path = %path.display(), "cannot delete a temporary");
                false
            }
        }
    }

    /// Whether the directory still has a name.
    fn is_there(&self) -> bool {
        fs::fstat(&self.opened).is_ok_and(|found| found.st_nlink > 0)
    }

    /// Whether `name` means what is open as `file`.
    fn is_still(&self, name: &str, file: &File) -> bool {
        let named = fs::statat(&self.opened, name, AtFlags::SYMLINK_NOFOLLOW);
        let (Ok(named), Ok(opened)) = (named, fs::fstat(file)) else { return false };
        (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
    }
}

/// Makes a directory that only this user may enter, unless there is something under its name.
fn make_private(path: &Path) -> Result<()> {
    match fs::mkdir(path, Mode::from_raw_mode(PRIVATE)) {
        // The mask of the process may have taken more.
        Ok(()) => fs::chmod(path, Mode::from_raw_mode(PRIVATE)),
        Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(errno),
    }
    .map_err(|errno| explain("make", path, errno))
}

/// Deletes entry `name` of `parent` with all that is in it. Others may be deleting the same.
fn delete(parent: rustix::fd::BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let place = fs::openat(parent, name, PLACE | OFlags::DIRECTORY, Mode::empty())?;
    let inside = Directory { opened: place, path: PathBuf::new() };
    for entry in inside.entries()? {
        delete(inside.opened.as_fd(), &entry)?;
    }
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// A name for something that is to become `name`: `.<name>.<pid>-<unique>.tmp`.
fn temporary_name(name: &str) -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    // Relaxed: only a number that no other thread gets. Processes with the same pid, in two name
    // spaces, differ by the time; if they do not, the second to make the entry finds it and takes
    // another name.
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let unique = monotonic_ns().rotate_left(24) ^ u64::from(count);
    format!(".{name}.{}-{unique:016x}.tmp", std::process::id())
}

/// What a temporary of this name was to become; `None` if it is not one of ours.
fn temporary_target(name: &str) -> Option<&str> {
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
}

impl Temporary {
    /// An empty folder that is to become `target`.
    pub fn folder(parent: &Arc<Directory>, target: &str) -> Result<Self> {
        Self::make(parent, target, |name| {
            let mode = Mode::from_raw_mode(PRIVATE);
            fs::mkdirat(&parent.opened, name, mode)?;
            // The mask of the process may have taken the right to open it.
            fs::chmodat(&parent.opened, name, mode, AtFlags::empty())?;
            fs::openat(&parent.opened, name, LOCKABLE | OFlags::DIRECTORY, Mode::empty())
        })
    }

    /// An empty file that is to become `target`.
    pub fn file(parent: &Arc<Directory>, target: &str) -> Result<Self> {
        Self::make(parent, target, |name| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | LOCKABLE;
            fs::openat(&parent.opened, name, flags, Mode::from_raw_mode(0o600))
        })
    }

    fn make(
        parent: &Arc<Directory>,
        target: &str,
        create: impl Fn(&str) -> Result<OwnedFd, Errno>,
    ) -> Result<Self> {
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
                // Swept between the call that made it and the one that opened it.
                Err(error) if error.kind() == ErrorKind::NotFound && parent.is_there() => continue,
                opened => opened?,
            };
            step!("home.lock");
            match fs::flock(opened.file(), FlockOperation::NonBlockingLockExclusive) {
                // H2: not locked until now, so a sweeper may have deleted it.
                Ok(()) if parent.is_still(&name, opened.file()) => {
                    return Ok(Self { parent: Arc::clone(parent), name, locked: Some(opened) });
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

    /// The mode exactly, whatever the mask of the process is: H1.
    fn set_mode(&self, target: &str, mode: u32) -> Result<()> {
        let set = fs::fchmod(self.as_file(), Mode::from_raw_mode(mode & 0o7777));
        set.map_err(|errno| self.parent.explain("set the mode of", target, errno))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Some(locked) = &self.locked else { return };
        // In a forked child it is still the parent's.
        if locked.is_inherited() {
            return;
        }
        if let Err(errno) = delete(self.parent.opened.as_fd(), &self.name) {
            let path = self.parent.path.join(&self.name);
            tracing::warn!(%errno, path = %path.display(), "cannot delete what was not finished");
        }
    }
}
