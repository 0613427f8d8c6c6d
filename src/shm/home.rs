//! Where the files of a bus live: in a directory that processes share, or in the memory of one
//! process.
//!
//! A [`Folder`] is one interface over both, so that an anonymous bus runs the same code as a shared
//! one. It offers atomic steps only: a folder or a file appears complete, or not at all, and a
//! folder disappears at once.
//!
//! ```text
//!   .ticks.topic.<unique>.tmp/   ── rename, never over another ──▶   ticks.topic/
//!   .lane-3.<unique>.tmp         ── rename, over the old one ─────▶   lane-3
//!    locked by its builder                                             complete
//! ```
//!
//! # Invariants
//!
//! * `H1` — What stands under its final name is complete, has exactly the mode asked for, and all
//!   of its memory.
//! * `H2` — A temporary is locked from before its builder relies on it until after the rename. So a
//!   temporary that is not locked has a dead builder, or one that has not begun and will notice.
//! * `H3` — Whoever deletes a temporary holds its lock, and has seen that the temporary name still
//!   means the file that is locked. So nothing that was renamed is ever deleted for a temporary.
//! * `H4` — A folder is held open by its handle. If it is removed and another one takes its name,
//!   the handle means the removed one, whose nodes it knows, and opens nothing in the other.
//!
//! # If a process dies
//!
//! Before the rename: a temporary is left, and [`Folder::sweep_temporaries`] removes it, with the
//! kernel's word that its lock is free. After: the folder or file is complete.

mod directory;
mod files;
mod memory;
mod temporary;
mod trust;

use super::map::Access;
use super::place::Region;
use crate::error::{Error, ErrorKind, Result};
use directory::Directory;
pub use memory::new_file as new_memory_file;
use memory::Memory;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use temporary::Temporary;

/// Names the directory that holds the buses that are opened by name.
pub const ROOT_VARIABLE: &str = "WINDLASS_ROOT";

/// Longest name: with its suffix and the decoration of a temporary it stays below the 255 of every
/// file system.
pub const NAME_BYTES_MAX: usize = 100;

/// Checks the name of a `kind` of thing: a bus, a topic.
///
/// # Errors
///
/// `Invalid`, with a sentence that says what a name may be.
pub fn check_name(kind: &str, name: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    let good = (1..=NAME_BYTES_MAX).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(plain);
    if good {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "\"{}\" cannot be the name of a {kind}: a name has 1 to {NAME_BYTES_MAX} of the \
             characters A-Z, a-z, 0-9, '.', '_' and '-', and does not begin with '.'",
            name.escape_default()
        ),
    ))
}

/// The bits of a folder's mode that are for its group.
const GROUP: u32 = 0o070;

/// The mode of a folder that lets its group take part: what is made in it belongs to the same group, and is removed or
/// replaced only by whoever made it, or made the folder.
pub const SHARED_MODE: u32 = 0o3770;

/// The mode of a folder whose files have `mode`. A group that may use them must reach them, and what is made among
/// them: execute follows read.
pub fn folder_mode(mode: u32) -> u32 {
    let shared = if mode & 0o040 != 0 { SHARED_MODE & !0o777 } else { 0 };
    shared | mode | (mode & 0o444) >> 2
}

/// The place of one bus: the folder that it is, or will be, in, and its name there.
pub struct Home {
    parent: Folder,
    bus: String,
    /// Whether the folder is one that no other user may enter.
    is_private: bool,
}

impl Home {
    /// Finds the place of a bus: a name in the directory of the user, or a path, which contains a
    /// '/'.
    ///
    /// # Errors
    ///
    /// `Invalid` for a bad name; `NotFound` if the parent of a path does not exist; `Permission` if
    /// the directory of the user is not the user's alone.
    pub fn find(name_or_path: &str) -> Result<Self> {
        let (parent, bus, is_private) = if name_or_path.contains('/') {
            let path = Path::new(name_or_path);
            let bus = path.file_name().and_then(|name| name.to_str());
            let (Some(bus), Some(parent)) = (bus, path.parent()) else {
                let text = format!("{name_or_path} cannot be a bus: it names no entry of a folder");
                return Err(Error::new(ErrorKind::Invalid, text));
            };
            let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
            (Directory::open_parent(parent)?, bus, false)
        } else {
            check_name("bus", name_or_path)?;
            let (root, is_private) = root()?;
            (root, name_or_path, is_private)
        };
        let parent = Folder::Directory(Arc::new(parent));
        Ok(Self { parent, bus: bus.to_owned(), is_private })
    }

    /// A place in the memory of this process, which nobody else can find.
    pub fn anonymous() -> Self {
        let parent = Folder::Memory(Memory::new("anonymous memory"));
        Self { parent, bus: "bus".to_owned(), is_private: true }
    }

    /// Where the bus is, or will be, to show.
    pub fn path(&self) -> PathBuf {
        self.parent.path().join(&self.bus)
    }

    /// Opens the bus, or makes it, by `build`, if it does not exist. `true` if it was made here.
    ///
    /// # Errors
    ///
    /// `Permission` if it is not to be trusted; `Invalid` or `Mismatch` if `mode` shares it with a group that cannot
    /// get there.
    pub fn open_bus(
        &self,
        mode: u32,
        build: impl FnMut(&Folder) -> Result<()>,
    ) -> Result<(Folder, bool)> {
        let shared = mode & GROUP != 0;
        if shared && self.is_private {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "bus {} cannot be shared with a group: only this user may enter the folder of \
                     buses that are opened by name; open it by a path in a folder of the group, or \
                     set {ROOT_VARIABLE} to such a folder",
                    self.path().display()
                ),
            ));
        }
        let (folder, made) = self.parent.open_or_create_folder(&self.bus, mode, build)?;
        if let Folder::Directory(directory) = &folder {
            directory.trust_as_bus(shared)?;
            let found = directory.mode()?;
            if shared && found & GROUP == 0 {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "bus {folder} exists and is this user's alone (mode {found:04o}), not \
                         shared with a group; open it without BusOptions::group, or remove it first"
                    ),
                ));
            }
        }
        Ok((folder, made))
    }

    /// Opens the bus. `shared`: whether it may be that of another user who shares it with a group.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; `Permission` if it is not to be trusted.
    pub fn open_existing_bus(&self, shared: bool) -> Result<Folder> {
        let folder = self.parent.open_folder(&self.bus)?;
        if let Folder::Directory(directory) = &folder {
            directory.trust_as_bus(shared)?;
        }
        Ok(folder)
    }

    /// Removes the bus with all that is in it. The name is free at once; whoever has it open keeps it.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist.
    pub fn remove_bus(&self) -> Result<()> {
        self.parent.remove_folder(&self.bus)
    }

    /// Removes what builders of this bus left when they died, and returns how many. Touches nothing
    /// else beside the bus.
    pub fn sweep_temporaries(&self) -> usize {
        match &self.parent {
            Folder::Directory(directory) => directory.sweep(Some(&self.bus)),
            Folder::Memory(_) => 0,
        }
    }
}

/// The directory of the buses that have a name only, and whether no other user may enter it.
fn root() -> Result<(Directory, bool)> {
    match std::env::var_os(ROOT_VARIABLE) {
        // Whoever sets it vouches for it, as for a path.
        Some(path) if !path.is_empty() => {
            Directory::open_given_root(Path::new(&path)).map(|root| (root, false))
        }
        _ => {
            let user = nix::unistd::geteuid();
            let path = PathBuf::from(format!("/dev/shm/windlass-{user}"));
            Directory::open_own_root(&path).map(|root| (root, true))
        }
    }
}

/// Opens the folder that has `path`, and returns it with the last name of the path.
///
/// # Errors
///
/// `Invalid` if the path names no entry of a folder; `NotFound` if that folder does not exist.
pub fn open_parent(path: &Path) -> Result<(Folder, String)> {
    let (Some(name), Some(parent)) =
        (path.file_name().and_then(|name| name.to_str()), path.parent())
    else {
        let text = format!("{} names no entry of a folder", path.display());
        return Err(Error::new(ErrorKind::Invalid, text));
    };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = Directory::open_parent(parent)?;
    Ok((Folder::Directory(Arc::new(parent)), name.to_owned()))
}

/// What became of an attempt to make a folder.
pub enum Created {
    /// It was made here.
    Mine(Folder),
    /// It exists, made by somebody else.
    Theirs,
}

/// A folder of a bus: the bus itself, or a topic. A clone means the same folder.
#[derive(Clone)]
pub enum Folder {
    /// A directory that processes share.
    Directory(Arc<Directory>),
    /// A list of files in the memory of this process.
    Memory(Arc<Memory>),
}

impl fmt::Display for Folder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.path().display().fmt(f)
    }
}

impl Folder {
    /// Where the folder is, to show: handles do not depend on it.
    pub fn path(&self) -> &Path {
        match self {
            Folder::Directory(directory) => directory.path(),
            Folder::Memory(memory) => memory.path(),
        }
    }

    /// The mode that files in this folder have unless somebody says otherwise.
    pub fn default_mode(&self) -> Result<u32> {
        Ok(if self.is_shared()? { 0o660 } else { 0o600 })
    }

    /// Whether the group of this folder takes part in what is in it.
    pub fn is_shared(&self) -> Result<bool> {
        match self {
            Folder::Directory(directory) => Ok(directory.mode()? & GROUP != 0),
            Folder::Memory(_) => Ok(false),
        }
    }

    /// Makes folder `name` with exactly `mode`, by `build`, unless it exists. It appears complete
    /// or not at all: H1.
    ///
    /// # Errors
    ///
    /// Those of `build` and of the operating system; nothing is left then.
    pub fn create_folder_atomically(
        &self,
        name: &str,
        mode: u32,
        build: impl FnOnce(&Folder) -> Result<()>,
    ) -> Result<Created> {
        check_entry(name)?;
        if self.exists(name)? {
            return Ok(Created::Theirs);
        }
        let made = match self {
            Folder::Directory(parent) => {
                let temporary = Temporary::folder(parent, name, mode)?;
                step!("home.build");
                build(&Folder::Directory(temporary.inside(name)?))?;
                temporary.become_folder(name, mode)?.map(Folder::Directory)
            }
            Folder::Memory(parent) => {
                let folder = parent.folder(name);
                build(&Folder::Memory(Arc::clone(&folder)))?;
                parent.adopt(name, &folder).then_some(Folder::Memory(folder))
            }
        };
        Ok(made.map_or(Created::Theirs, Created::Mine))
    }

    /// Opens folder `name`, or makes it as
    /// [`create_folder_atomically`](Self::create_folder_atomically) does. `true` if it was made
    /// here.
    pub fn open_or_create_folder(
        &self,
        name: &str,
        mode: u32,
        mut build: impl FnMut(&Folder) -> Result<()>,
    ) -> Result<(Folder, bool)> {
        // Another round only if somebody made the folder, and removed it again, in between.
        loop {
            match self.open_folder(name) {
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                opened => return opened.map(|folder| (folder, false)),
            }
            if let Created::Mine(folder) = self.create_folder_atomically(name, mode, &mut build)? {
                return Ok((folder, true));
            }
        }
    }

    /// Opens folder `name`.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; `Permission` if it is a symbolic link.
    pub fn open_folder(&self, name: &str) -> Result<Folder> {
        check_entry(name)?;
        match self {
            Folder::Directory(parent) => {
                parent.open_folder(name).map(|folder| Folder::Directory(Arc::new(folder)))
            }
            Folder::Memory(parent) => parent.open_folder(name).map(Folder::Memory),
        }
    }

    /// Makes file `name`, `len` bytes long, with exactly `mode` and all of its memory, by `init`,
    /// which finds zeros. Replaces a file of that name: whoever has the old one open keeps it.
    ///
    /// # Errors
    ///
    /// `NoSpace`, those of `init` and of the operating system; nothing is left, and nothing
    /// replaced, then.
    pub fn create_file_atomically(
        &self,
        name: &str,
        len: u64,
        mode: u32,
        init: impl FnOnce(&Region) -> Result<()>,
    ) -> Result<File> {
        check_entry(name)?;
        match self {
            Folder::Directory(parent) => {
                let temporary = Temporary::file(parent, name)?;
                fill(temporary.as_file(), &parent.path().join(name), len, init)?;
                temporary.become_file(name, mode)
            }
            Folder::Memory(parent) => {
                let file = memory::new_file(&parent.path().join(name))?;
                fill(&file, &parent.path().join(name), len, init)?;
                parent.place(name, file)
            }
        }
    }

    /// Opens file `name` by an open file of its own.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; `Permission` if it is a symbolic link; `Corrupt` if it is
    /// not a file.
    pub fn open_file(&self, name: &str, access: Access) -> Result<File> {
        check_entry(name)?;
        match self {
            Folder::Directory(parent) => parent.open_file(name, access),
            Folder::Memory(parent) => parent.open_file(name, access),
        }
    }

    /// The names of the folders whose names end in `suffix`, without it, in order.
    pub fn folders(&self, suffix: &str) -> Result<Vec<String>> {
        let all = match self {
            Folder::Directory(directory) => directory.folders()?,
            Folder::Memory(memory) => memory.folders(),
        };
        let named = all.iter().filter_map(|name| name.strip_suffix(suffix));
        let mut names: Vec<_> =
            named.filter(|name| !name.is_empty()).map(ToOwned::to_owned).collect();
        names.sort();
        Ok(names)
    }

    /// Whether a file or folder `name` exists.
    pub fn exists(&self, name: &str) -> Result<bool> {
        check_entry(name)?;
        match self {
            Folder::Directory(directory) => directory.exists(name),
            Folder::Memory(memory) => Ok(memory.exists(name)),
        }
    }

    /// Removes folder `name` with all that is in it. The name is free at once; whoever has it open
    /// keeps it.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist.
    pub fn remove_folder(&self, name: &str) -> Result<()> {
        check_entry(name)?;
        match self {
            Folder::Directory(directory) => directory.remove_folder(name),
            Folder::Memory(memory) => memory.remove_folder(name),
        }
    }

    /// Removes what builders in this folder left when they died, and returns how many: H3.
    pub fn sweep_temporaries(&self) -> usize {
        match self {
            Folder::Directory(directory) => directory.sweep(None),
            Folder::Memory(_) => 0,
        }
    }
}

/// Reserves, maps and initialises a new file.
fn fill(
    file: &File,
    path: &Path,
    len: u64,
    init: impl FnOnce(&Region) -> Result<()>,
) -> Result<()> {
    super::map::reserve(file, path.display(), len)?;
    let loss = super::loss::Loss::default();
    let region = super::map::map(file, path.display(), Access::Write, len, &loss)?;
    step!("file.init");
    init(&region)?;
    loss.check(path.display())
}

/// Checks a name that goes to the file system. It comes from a caller, a user or a file.
fn check_entry(name: &str) -> Result<()> {
    let bad = name.is_empty() || name == "." || name == ".." || name.contains(['/', '\0']);
    if bad {
        let text = format!("\"{}\" is not the name of an entry of a folder", name.escape_default());
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
