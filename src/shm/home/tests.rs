//! Tests of `home.rs` and its two kinds of folder.

mod access;
mod sweep;

use super::*;
use crate::shm::child::{self, until, Child};
use crate::shm::loss::Loss;
use crate::sync::Ordering::Relaxed;
use nix::sys::stat::{umask, Mode};
use nix::unistd::geteuid;
use std::os::unix::fs::{symlink, MetadataExt};
use std::process::Command;
use std::sync::atomic::AtomicUsize;

const PLACE: &str = "WINDLASS_TEST_PLACE";

/// A directory, for as long as the test runs.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        let path = format!("/dev/shm/windlass-test-{}-home-{count}", std::process::id());
        std::fs::create_dir(&path).expect("a test may write there");
        Self(PathBuf::from(path))
    }

    fn folder(&self) -> Folder {
        folder(&self.0)
    }

    /// The names of all that is there.
    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("it exists");
        let name = |entry: std::io::Result<std::fs::DirEntry>| {
            entry.expect("it exists").file_name().into_string().expect("it is text")
        };
        let mut names: Vec<_> = entries.map(name).collect();
        names.sort();
        names
    }

    /// Starts a child that finds this place.
    fn child(&self, test: &str, role: &str) -> Child {
        let mut command = Command::new(std::env::current_exe().expect("a test has a binary"));
        command.env(PLACE, &self.0);
        Child::start_in(command, test, role)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn folder(path: &Path) -> Folder {
    Folder::Directory(Arc::new(Directory::open_parent(path).expect("it exists")))
}

/// In a child: the place of the test.
fn own_place() -> PathBuf {
    PathBuf::from(std::env::var_os(PLACE).expect("the starter sets it"))
}

fn mode_of(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).expect("it exists").mode() & 0o7777
}

fn file(folder: &Folder, name: &str, value: u64) -> File {
    let init = |region: &Region| {
        region.word(0).store(value, Relaxed);
        Ok(())
    };
    folder.create_file_atomically(name, 4096, 0o600, init).expect("there is room")
}

fn value(file: &File) -> u64 {
    let region = super::super::map::map(file, "test", Access::Read, 4096, &Loss::default())
        .expect("it is mapped");
    region.word(0).load(Relaxed)
}

fn make(parent: &Folder, name: &str) -> Folder {
    let created = parent.create_folder_atomically(name, 0o700, |inside| {
        file(inside, "control", 7);
        Ok(())
    });
    match created.expect("there is room") {
        Created::Mine(folder) => folder,
        Created::Theirs => panic!("{name} was there already"),
    }
}

/// Runs a test on both kinds of folder.
fn on_both(test: impl Fn(&Folder)) {
    let place = Place::new();
    test(&place.folder());
    test(&Folder::Memory(Memory::new("memory")));
}

fn kind<T>(result: Result<T>) -> ErrorKind {
    result.map(|_| ()).expect_err("refused").kind()
}

#[test]
fn names_are_plain_and_short() {
    let longest = "x".repeat(NAME_BYTES_MAX);
    for good in ["a", "Market_2.eu-west", "0", "a.", "--", &longest] {
        assert!(check_name("bus", good).is_ok(), "{good}");
    }
    let long = "x".repeat(NAME_BYTES_MAX + 1);
    for bad in ["", ".", "..", ".hidden", "a/b", "a b", "ä", "a\0", "a\n", &long] {
        let error = check_name("topic", bad).expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains("cannot be the name of a topic"), "{error}");
        assert!(!error.to_string().contains(['\0', '\n']), "{error}");
    }
}

#[test]
fn entries_stay_inside_of_their_folder() {
    on_both(|folder| {
        for bad in ["", ".", "..", "a/b", "/", "a\0b"] {
            assert_eq!(kind(folder.open_file(bad, Access::Read)), ErrorKind::Invalid);
            assert_eq!(kind(folder.open_folder(bad)), ErrorKind::Invalid);
            assert_eq!(kind(folder.remove_folder(bad)), ErrorKind::Invalid);
        }
    });
}

#[test]
fn a_folder_is_made_once_and_found_by_others() {
    on_both(|parent| {
        let mine = make(parent, "ticks.topic");
        let again = parent.create_folder_atomically("ticks.topic", 0o700, |_| {
            panic!("what exists is not built again")
        });
        assert!(matches!(again, Ok(Created::Theirs)));
        let found = parent.open_folder("ticks.topic").expect("it exists");
        for folder in [mine, found] {
            assert_eq!(folder.to_string(), format!("{parent}/ticks.topic"));
            assert_eq!(value(&folder.open_file("control", Access::Read).expect("complete")), 7);
        }
        assert_eq!(kind(parent.open_folder("other")), ErrorKind::NotFound);
        assert_eq!(kind(parent.open_file("other", Access::Read)), ErrorKind::NotFound);
        assert_eq!(kind(parent.remove_folder("other")), ErrorKind::NotFound);
    });
}

#[test]
fn nobody_sees_a_folder_before_it_is_complete() {
    let place = Place::new();
    let check = |parent: &Folder| {
        let created = parent.create_folder_atomically("bus", 0o700, |inside| {
            file(inside, "bus", 1);
            assert!(!parent.exists("bus").expect("readable"));
            assert_eq!(kind(parent.open_folder("bus")), ErrorKind::NotFound);
            assert_eq!(parent.folders("").expect("readable"), [""; 0]);
            assert_eq!(parent.sweep_temporaries(), 0, "its builder lives");
            file(inside, "more", 2);
            Ok(())
        });
        assert!(matches!(created, Ok(Created::Mine(_))));
        assert!(parent.exists("bus").expect("readable"));
    };
    check(&place.folder());
    check(&Folder::Memory(Memory::new("memory")));
    assert_eq!(place.names(), ["bus"]);
}

#[test]
fn whoever_loses_the_race_finds_the_winner_and_leaves_nothing() {
    let place = Place::new();
    let check = |parent: &Folder| {
        let created = parent.create_folder_atomically("bus", 0o700, |inside| {
            make(parent, "bus");
            file(inside, "control", 8);
            Ok(())
        });
        assert!(matches!(created, Ok(Created::Theirs)));
        let bus = parent.open_folder("bus").expect("it exists");
        assert_eq!(value(&bus.open_file("control", Access::Read).expect("complete")), 7);
    };
    check(&place.folder());
    check(&Folder::Memory(Memory::new("memory")));
    assert_eq!(place.names(), ["bus"]);
    // An empty folder is a folder too, and a file is in the way as well.
    let beside = |name: &str, take: &dyn Fn(&Path)| {
        let built = place.folder().create_folder_atomically(name, 0o700, |inside| {
            file(inside, "control", 8);
            take(&place.0.join(name));
            Ok(())
        });
        assert!(matches!(built, Ok(Created::Theirs)));
    };
    beside("empty", &|path| std::fs::create_dir(path).expect("a test may write there"));
    beside("file", &|path| std::fs::write(path, "x").expect("a test may write there"));
    assert_eq!(place.names(), ["bus", "empty", "file"]);
    assert!(!place.0.join("empty/control").exists());
}

#[test]
fn of_many_who_open_a_bus_one_makes_it() {
    let place = Place::new();
    let check = |parent: &Folder| {
        let open = || {
            let build = |inside: &Folder| {
                file(inside, "control", 7);
                Ok(())
            };
            let (bus, made) = parent.open_or_create_folder("bus", 0o700, build).expect("it works");
            assert_eq!(value(&bus.open_file("control", Access::Read).expect("complete")), 7);
            usize::from(made)
        };
        for _ in 0..50 {
            let made: usize = std::thread::scope(|scope| {
                let threads = [scope.spawn(open), scope.spawn(open), scope.spawn(open)];
                threads.into_iter().map(|thread| thread.join().expect("it opens")).sum()
            });
            assert_eq!(made, 1);
            parent.remove_folder("bus").expect("it exists");
        }
    };
    check(&place.folder());
    check(&Folder::Memory(Memory::new("memory")));
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_failed_build_leaves_nothing() {
    let place = Place::new();
    let check = |parent: &Folder| {
        let fail = || Error::new(ErrorKind::Limit, "no");
        let built = parent.create_folder_atomically("bus", 0o700, |inside| {
            file(inside, "control", 1);
            make(inside, "inner");
            Err(fail())
        });
        assert_eq!(kind(built), ErrorKind::Limit);
        let made = parent.create_file_atomically("lane-0", 4096, 0o600, |_| Err(fail()));
        assert_eq!(kind(made), ErrorKind::Limit);
        let made = parent.create_file_atomically("lane-0", u64::MAX, 0o600, |_| Ok(()));
        assert_eq!(kind(made), ErrorKind::NoSpace);
        assert!(!parent.exists("bus").expect("readable"));
        assert!(!parent.exists("lane-0").expect("readable"));
    };
    check(&place.folder());
    check(&Folder::Memory(Memory::new("memory")));
    assert_eq!(place.names(), [""; 0]);
}

#[test]
fn a_new_file_is_complete_and_replaces_the_old_one() {
    on_both(|folder| {
        let old = file(folder, "lane-0", 1);
        assert_eq!(value(&old), 1);
        let new = folder.create_file_atomically("lane-0", 8192, 0o600, |region| {
            assert_eq!((region.len(), region.word(0).load(Relaxed)), (8192, 0));
            let seen = folder.open_file("lane-0", Access::Read).expect("the old one is there");
            assert_eq!(value(&seen), 1);
            assert_eq!(folder.sweep_temporaries(), 0, "its builder lives");
            region.word(8184).store(2, Relaxed);
            Ok(())
        });
        let new = new.expect("there is room").metadata().expect("it is a file");
        assert_eq!(new.len(), 8192);
        assert!(new.blocks() * 512 >= 8192, "its memory is reserved");
        let found = folder.open_file("lane-0", Access::Read).expect("it exists");
        assert_eq!(found.metadata().expect("it is a file").ino(), new.ino());
        assert_eq!(value(&old), 1, "whoever has the old one open keeps it");
    });
}

#[test]
fn a_file_is_opened_for_what_was_asked_and_by_its_own_open_file() {
    on_both(|folder| {
        drop(file(folder, "control", 1));
        let open = |access| folder.open_file("control", access).expect("it exists");
        let map = |file: &File| {
            super::super::map::map(file, "test", Access::Write, 4096, &Loss::default())
        };
        assert_eq!(kind(map(&open(Access::Read))), ErrorKind::Permission);
        assert!(map(&open(Access::Write)).is_ok());
        // A lock of one open file is in the way of another one only.
        let lock = |file: &File| {
            let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
            rustix::fs::flock(file, how).is_ok()
        };
        let (one, two) = (open(Access::Write), open(Access::Write));
        assert!(lock(&one) && lock(&one) && !lock(&two));
        for file in [one, two] {
            let flags = rustix::io::fcntl_getfd(&file).expect("it is open");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    });
}

#[test]
fn a_new_file_is_not_locked() {
    let place = Place::new();
    let made = file(&place.folder(), "lane-0", 1);
    let other = place.folder().open_file("lane-0", Access::Read).expect("it exists");
    let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
    assert_eq!(rustix::fs::flock(&other, how), Ok(()));
    drop(made);
}

#[test]
fn what_is_not_a_file_or_a_folder_is_refused() {
    let place = Place::new();
    let folder = place.folder();
    drop(file(&folder, "file", 1));
    make(&folder, "folder");
    symlink("file", place.0.join("link")).expect("a test may write there");
    symlink("folder", place.0.join("folder-link")).expect("a test may write there");
    nix::unistd::mkfifo(&place.0.join("pipe"), Mode::S_IRWXU).expect("a test may write there");
    for access in [Access::Read, Access::Write] {
        assert_eq!(kind(folder.open_file("folder", access)), ErrorKind::Corrupt);
        assert_eq!(kind(folder.open_file("pipe", access)), ErrorKind::Corrupt);
        let error = folder.open_file("link", access).expect_err("refused");
        assert_eq!(error.kind(), ErrorKind::Permission);
        assert!(error.to_string().contains("symbolic link"), "{error}");
    }
    assert_eq!(kind(folder.open_folder("file")), ErrorKind::Corrupt);
    let error = folder.open_folder("folder-link").err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.to_string().contains("symbolic link"), "{error}");
    assert_eq!(kind(folder.remove_folder("file")), ErrorKind::Corrupt);
    let over = folder.create_file_atomically("folder", 4096, 0o600, |_| Ok(()));
    assert_eq!(kind(over), ErrorKind::Corrupt);
    let over = folder.create_folder_atomically("file", 0o700, |_| Ok(()));
    assert!(matches!(over, Ok(Created::Theirs)));
}

#[test]
fn memory_keeps_files_and_folders_apart_too() {
    let folder = Folder::Memory(Memory::new("memory"));
    drop(file(&folder, "file", 1));
    make(&folder, "folder");
    assert_eq!(kind(folder.open_file("folder", Access::Read)), ErrorKind::Corrupt);
    assert_eq!(kind(folder.open_folder("file")), ErrorKind::Corrupt);
    assert_eq!(kind(folder.remove_folder("file")), ErrorKind::Corrupt);
    let over = folder.create_file_atomically("folder", 4096, 0o600, |_| Ok(()));
    assert_eq!(kind(over), ErrorKind::Corrupt);
    assert!(folder.exists("file").expect("readable") && folder.exists("folder").expect("readable"));
}

#[test]
fn folders_are_listed_by_suffix_without_temporaries() {
    on_both(|parent| {
        for name in ["b.topic", "a.topic", "c.queue", ".topic"] {
            make(parent, name);
        }
        drop(file(parent, "file.topic", 1));
        assert_eq!(parent.folders(".topic").expect("readable"), ["a", "b"]);
        assert_eq!(parent.folders(".queue").expect("readable"), ["c"]);
    });
}

#[test]
fn a_removed_folder_is_gone_at_once_and_its_handle_is_not_the_next_one() {
    on_both(|parent| {
        let old = make(parent, "bus");
        make(&old, "inner.topic");
        let kept = old.open_file("control", Access::Read).expect("it exists");
        parent.remove_folder("bus").expect("it exists");
        assert!(!parent.exists("bus").expect("readable"));
        assert_eq!(value(&kept), 7, "whoever has it open keeps it");
        make(parent, "bus");
        if matches!(parent, Folder::Directory(_)) {
            assert_eq!(kind(old.open_file("control", Access::Read)), ErrorKind::NotFound);
            let made = old.create_file_atomically("new", 4096, 0o600, |_| Ok(()));
            assert_eq!(kind(made), ErrorKind::NotFound);
        }
        assert_eq!(parent.folders("").expect("readable"), ["bus"]);
        assert_eq!(parent.sweep_temporaries(), 0, "nothing was left aside");
    });
}

#[test]
fn every_anonymous_bus_is_another_one() {
    let build = |inside: &Folder| {
        file(inside, "control", 7);
        Ok(())
    };
    let (one, two) = (Home::anonymous(), Home::anonymous());
    assert!(one.open_bus(0o700, build).expect("it is made").1);
    assert!(two.open_bus(0o700, build).expect("it is made").1);
    assert!(!one.open_bus(0o700, build).expect("it is found").1);
    assert_eq!(one.sweep_temporaries(), 0);
}

#[test]
fn nodes_live_and_die_on_an_anonymous_bus_too() {
    use crate::shm::node::NodeLock;
    on_both(|folder| {
        drop(file(folder, "bus", 0));
        let lock = |id| NodeLock::acquire(|| folder.open_file("bus", Access::Write), id);
        let (one, two) = (lock(1).expect("free"), lock(2).expect("free"));
        assert!(one.is_alive(2) && two.is_alive(1) && !one.is_alive(3));
        drop(two);
        assert!(!one.is_alive(2));
    });
}
