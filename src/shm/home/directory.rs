//! Folders that processes share: directories, held open, and entries relative to them.

use super::temporary::{temporary_name, temporary_target};
use super::trust;
use crate::error::{Error, ErrorKind, Result};
use crate::shm::map::Access;
use crate::shm::sys::Guarded;
use rustix::fs::{
    self, AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags, Stat,
};
use rustix::io::Errno;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// A directory, held open. Its entries are reached through it, whatever name it has by now: H4.
pub struct Directory {
    pub(super) opened: OwnedFd,
    pub(super) path: PathBuf,
}

/// How a directory is opened: as a place, which needs no right to list it, and never through a
/// link.
const PLACE: OFlags = OFlags::PATH.union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);
pub(super) const LOCKABLE: OFlags = OFlags::CLOEXEC.union(OFlags::NOFOLLOW).union(OFlags::NONBLOCK);
pub(super) const PRIVATE: u32 = 0o700;

/// An operating-system error as a sentence.
pub fn explain(doing: &str, path: &Path, errno: Errno) -> Error {
    Error::io(format_args!("cannot {doing} {}", path.display()), errno.into())
}

/// An error about `path`, in a folder that is open and has no name any more.
pub(super) fn gone(doing: &str, path: &Path) -> Error {
    Error::new(
        ErrorKind::NotFound,
        format!(
            "cannot {doing} {}: its folder was removed while it was in use; open the bus and the \
             topic again",
            path.display()
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
        let root = Self { opened, path: path.to_owned() };
        trust::own_root(path, &root.look()?)?;
        Ok(root)
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
        let opened = opened.map_err(|errno| match errno {
            Errno::NOENT => Error::new(
                ErrorKind::NotFound,
                format!(
                    "the folder {} does not exist; make it, or put the bus elsewhere",
                    path.display()
                ),
            ),
            errno => explain("open the folder", &path, errno),
        })?;
        let parent = Self { opened, path };
        trust::parent(&parent.path, &parent.look()?)?;
        Ok(parent)
    }

    /// Refuses a bus that others than those meant to can get at; see [`trust`].
    pub fn trust_as_bus(&self, shared: bool) -> Result<()> {
        trust::bus(&self.path, &self.look()?, shared)
    }

    /// Its permission bits.
    pub fn mode(&self) -> Result<u32> {
        Ok(self.look()?.st_mode & 0o7777)
    }

    /// What it is now. Asked of what is open, so that nobody can exchange it after the question.
    fn look(&self) -> Result<Stat> {
        fs::fstat(&self.opened).map_err(|errno| explain("look at", &self.path, errno))
    }

    /// Where it is, to show.
    pub fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn explain(&self, doing: &str, name: &str, errno: Errno) -> Error {
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
        let opened = opened.map_err(|errno| match errno {
            Errno::NOENT => Error::new(
                ErrorKind::NotFound,
                format!(
                    "cannot open {}: it does not exist, so somebody removed it; open again what \
                     it belongs to, or remove that to start over",
                    self.path.join(name).display()
                ),
            ),
            errno => self.explain("open", name, errno),
        })?;
        let found = fs::fstat(&opened).map_err(|errno| self.explain("look at", name, errno))?;
        let kind = match FileType::from_raw_mode(found.st_mode) {
            FileType::RegularFile => return Ok(File::from(opened)),
            FileType::Directory => return Err(self.explain("open", name, Errno::ISDIR)),
            FileType::Fifo => "a pipe",
            _ => "something else",
        };
        Err(Error::corrupt(self.path.join(name).display(), "its kind", kind, "a file"))
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
        entries_of(fs::openat(&self.opened, ".", flags, Mode::empty())?.as_fd())
    }

    /// The names of all folders, without temporaries.
    pub fn folders(&self) -> Result<Vec<String>> {
        let mut names = self.entries().map_err(|errno| match errno {
            Errno::NOENT => gone("list", &self.path),
            errno => explain("list", &self.path, errno),
        })?;
        // One that is gone by now is not listed.
        names
            .retain(|name| !name.starts_with('.') && self.kind_of(name) == Ok(FileType::Directory));
        Ok(names)
    }

    /// The names of all files, without temporaries.
    pub fn files(&self) -> Result<Vec<String>> {
        let mut names = self.entries().map_err(|errno| match errno {
            Errno::NOENT => gone("list", &self.path),
            errno => explain("list", &self.path, errno),
        })?;
        names.retain(|name| {
            !name.starts_with('.') && self.kind_of(name) == Ok(FileType::RegularFile)
        });
        Ok(names)
    }

    /// Removes file `name`, if there is one.
    pub fn remove_file(&self, name: &str) -> Result<()> {
        match fs::unlinkat(&self.opened, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(self.explain("remove", name, errno)),
        }
    }

    /// Puts the list of entries on disk.
    pub fn sync(&self) -> Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::openat(&self.opened, ".", flags, Mode::empty());
        let synced = opened.and_then(|opened| fs::fsync(&opened));
        synced.map_err(|errno| explain("put on disk the folder", &self.path, errno))
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
    pub(super) fn is_there(&self) -> bool {
        fs::fstat(&self.opened).is_ok_and(|found| found.st_nlink > 0)
    }

    /// Whether `name` means what is open as `file`.
    pub(super) fn is_still(&self, name: &str, file: &File) -> bool {
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

/// The names of all entries of a folder that is open to be read, however many were read from it before.
fn entries_of(folder: BorrowedFd<'_>) -> Result<Vec<String>, Errno> {
    fs::seek(folder, fs::SeekFrom::Start(0))?;
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut entries = RawDir::new(folder, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        // Not text: not a name that windlass gives.
        match entry?.file_name().to_str() {
            Ok("." | "..") | Err(_) => {}
            Ok(name) => names.push(name.to_owned()),
        }
    }
    Ok(names)
}

/// Deletes entry `name` of `parent` with all that is in it. Others may be deleting the same.
pub(super) fn delete(parent: BorrowedFd<'_>, name: &str) -> Result<(), Errno> {
    match fs::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let flags = LOCKABLE | OFlags::RDONLY | OFlags::DIRECTORY;
    delete_folder(parent, name, fs::openat(parent, name, flags, Mode::empty())?.as_fd())
}

/// The same for a folder that is open already. If it holds no folders this takes no other descriptor.
pub(super) fn delete_folder(
    parent: BorrowedFd<'_>,
    name: &str,
    folder: BorrowedFd<'_>,
) -> Result<(), Errno> {
    for entry in entries_of(folder)? {
        delete(folder, &entry)?;
    }
    match fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}
