//! Files that are not what they were when a process opens them: an error that names the file and says what to do, and
//! everything as before once the file is back.

use super::super::process::Den;
use super::super::traffic::{check, message};
use super::says;
use nix::sys::stat::Mode;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use windlass::{Bus, Error, ErrorKind, Raw, Start, TopicBuilder};

/// Every file of a bus with one topic.
const FILES: [&str; 4] = ["bus", "t.topic/control", "t.topic/lane-0", "t.topic/order"];

const MESSAGES: u64 = 3;

fn builder(bus: &Bus) -> TopicBuilder<Raw> {
    let builder = bus.topic("t").ordered().order_slots(256).segment_bytes(4096);
    builder.segments_per_lane(2).publishers_max(1).subscribers_max(2)
}

/// A bus with messages in it, which nobody has open.
fn leave(path: &str) {
    let bus = Bus::open(path).expect("the den has room");
    let topic = builder(&bus).create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    for number in 0..MESSAGES {
        publisher.publish(&message(0, number, 100)).expect("there is room");
    }
}

/// Does everything that opens a file. The first error, if there is one.
fn visit(path: &str) -> Result<(), Error> {
    let bus = Bus::options().existing().open(path)?;
    bus.inspect("t")?;
    let topic = builder(&bus).open_existing()?;
    let mut subscriber = topic.subscriber(Start::Oldest)?;
    for number in 0..MESSAGES {
        let message = subscriber.try_recv().expect("it is sound").expect("it was published");
        check(message.bytes(), 0, number);
    }
    topic.publisher()?;
    bus.repair().map(drop)
}

/// Lets `damage` do something to a file, looks at what a visitor is told, and puts the file back.
#[track_caller]
fn refused(den: &Den, file: &str, damage: impl FnOnce(&Path), kinds: &[ErrorKind], hints: &[&str]) {
    let path = den.path().join("bus").join(file);
    let kept = den.path().join("kept");
    std::fs::copy(&path, &kept).expect("the den has room");
    damage(&path);
    let error = visit(&den.bus_path()).expect_err("this file is not what it was");
    says(&error, kinds, &path.display().to_string(), hints);
    // Everything again, in the same process: nothing is kept of what was seen.
    visit(&den.bus_path()).expect_err("it still is not");
    if path.is_dir() {
        std::fs::remove_dir(&path).expect("it is empty");
    } else if std::fs::symlink_metadata(&path).is_ok() {
        std::fs::remove_file(&path).expect("it is ours");
    }
    std::fs::rename(&kept, &path).expect("it is ours");
    visit(&den.bus_path()).expect("all is as it was");
}

fn set_len(path: &Path, len: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).expect("it is ours");
    file.set_len(len).expect("the den has room");
}

const START_OVER: &[&str] = &["to start over, remove the topic or the bus"];

#[test]
fn files_that_were_cut_short_or_made_longer_are_damaged() {
    let den = Den::new();
    leave(&den.bus_path());
    for file in FILES {
        let len = std::fs::metadata(den.path().join("bus").join(file)).expect("it is there").len();
        let shorter = [0, 1, 8, 127, 128, 129, 4095, 4096, len / 2, len - 4096, len - 1];
        let longer = [len + 1, len + 4096, 2 * len, 1 << 32];
        for other in shorter.into_iter().chain(longer) {
            if other != len {
                refused(&den, file, |path| set_len(path, other), &[ErrorKind::Corrupt], START_OVER);
            }
        }
    }
}

/// What is said of a file that is not there. The control file of a topic knows which others have to be.
pub fn missed(file: &str) -> (ErrorKind, &'static str) {
    match file {
        "bus" | "t.topic/control" => {
            (ErrorKind::NotFound, "somebody removed it; open again what it belongs to")
        }
        _ => (ErrorKind::Corrupt, "the file is missing"),
    }
}

#[test]
fn files_that_were_deleted_are_missed() {
    let den = Den::new();
    leave(&den.bus_path());
    for file in FILES {
        let delete = |path: &Path| std::fs::remove_file(path).expect("it is ours");
        let (kind, hint) = missed(file);
        refused(&den, file, delete, &[kind], &[hint]);
    }
}

#[test]
fn files_that_were_replaced_are_refused() {
    let den = Den::new();
    leave(&den.bus_path());
    let elsewhere = den.path().join("elsewhere");
    let remove = |path: &Path| std::fs::remove_file(path).expect("it is ours");
    for file in FILES {
        let folder = |path: &Path| {
            remove(path);
            std::fs::create_dir(path).expect("the name is free");
        };
        let hints = ["it is a folder, expected a file; remove it to start over"];
        refused(&den, file, folder, &[ErrorKind::Corrupt], &hints);
        let pipe = |path: &Path| {
            remove(path);
            nix::unistd::mkfifo(path, Mode::S_IRWXU).expect("the name is free");
        };
        refused(&den, file, pipe, &[ErrorKind::Corrupt], START_OVER);
        let socket = |path: &Path| {
            remove(path);
            drop(std::os::unix::net::UnixListener::bind(path).expect("the name is free"));
        };
        let hints = ["it is a socket or a device, expected a file; remove it to start over"];
        refused(&den, file, socket, &[ErrorKind::Corrupt], &hints);
        // Even to what would do.
        let link = |path: &Path| {
            std::fs::rename(path, &elsewhere).expect("it is ours");
            symlink(&elsewhere, path).expect("the name is free");
        };
        let hints = ["it is a symbolic link, which is not followed; remove it"];
        refused(&den, file, link, &[ErrorKind::Permission], &hints);
        let nonsense = |path: &Path| {
            let len = std::fs::metadata(path).expect("it is there").len();
            let bytes: Vec<u8> = (0..len).map(|at| (at * 131 % 251) as u8).collect();
            std::fs::write(path, bytes).expect("the den has room");
        };
        refused(&den, file, nonsense, &[ErrorKind::Corrupt], START_OVER);
        let zeroes = |path: &Path| {
            let len = std::fs::metadata(path).expect("it is there").len();
            std::fs::write(path, vec![0; usize::try_from(len).expect("it is small")])
                .expect("the den has room");
        };
        refused(&den, file, zeroes, &[ErrorKind::Corrupt], START_OVER);
    }
}

#[test]
fn the_files_of_another_topic_are_noticed() {
    let (den, other) = (Den::new(), Den::new());
    leave(&den.bus_path());
    leave(&other.bus_path());
    for file in ["t.topic/lane-0", "t.topic/order"] {
        let theirs = other.path().join("bus").join(file);
        let exchange = |path: &Path| {
            std::fs::remove_file(path).expect("it is ours");
            std::fs::copy(&theirs, path).expect("the den has room");
        };
        refused(&den, file, exchange, &[ErrorKind::Corrupt], &["belongs to another topic"]);
    }
    // One kind of file in place of another of the same length.
    let bus = std::fs::read(den.path().join("bus/bus")).expect("it is there");
    let confuse = |path: &Path| std::fs::write(path, &bus).expect("the den has room");
    refused(&den, "t.topic/control", confuse, &[ErrorKind::Corrupt], &["its kind is 1"]);
}

/// Changes the 64-bit words of the header.
fn change(path: &Path, change: impl Fn(usize, u64) -> u64) {
    let mut bytes = std::fs::read(path).expect("it is there");
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let value = u64::from_le_bytes(word.try_into().expect("eight bytes"));
        word.copy_from_slice(&change(index, value).to_le_bytes());
    }
    std::fs::write(path, bytes).expect("the den has room");
}

#[test]
fn another_version_and_another_byte_order_are_told_apart_from_damage() {
    let den = Den::new();
    leave(&den.bus_path());
    for file in FILES {
        let version = |path: &Path| {
            change(path, |index, word| if index == 1 { word + (1 << 32) } else { word });
        };
        let hints = ["layout version 2, this library reads version 1; let all processes use"];
        refused(&den, file, version, &[ErrorKind::Mismatch], &hints);
        // As a machine of the other byte order would have written it.
        let swap = |path: &Path| change(path, |_, word| word.swap_bytes());
        let hints = ["was written by a machine with another byte order; use it there"];
        refused(&den, file, swap, &[ErrorKind::Mismatch], &hints);
    }
}

#[test]
fn folders_that_were_replaced_are_refused() {
    let den = Den::new();
    leave(&den.bus_path());
    let bus = den.path().join("bus");
    for folder in [bus.join("t.topic"), bus] {
        let kept = den.path().join("kept");
        let refused = |kind: ErrorKind, hint: &str| {
            let error = visit(&den.bus_path()).expect_err("this folder is not what it was");
            let named = if kind == ErrorKind::NotFound { den.path() } else { &folder };
            says(&error, &[kind], &named.display().to_string(), &[hint]);
            if let Ok(found) = std::fs::symlink_metadata(&folder) {
                let remove: fn(PathBuf) -> std::io::Result<()> =
                    if found.is_dir() { std::fs::remove_dir } else { std::fs::remove_file };
                remove(folder.clone()).expect("it is ours");
            }
        };
        std::fs::rename(&folder, &kept).expect("it is ours");
        let hints = if folder.ends_with("bus") { "start what makes it" } else { "create it first" };
        refused(ErrorKind::NotFound, hints);
        std::fs::write(&folder, "a file").expect("the name is free");
        refused(ErrorKind::Corrupt, "it is a file, expected a folder; remove it to start over");
        symlink(&kept, &folder).expect("the name is free");
        refused(ErrorKind::Permission, "it is a symbolic link, which is not followed; remove it");
        std::fs::create_dir(&folder).expect("the name is free");
        super::super::access::set_mode(&folder, 0o700);
        let error = visit(&den.bus_path()).expect_err("this folder is empty");
        let inside = folder.display().to_string();
        says(&error, &[ErrorKind::NotFound], &inside, &["so somebody removed it"]);
        std::fs::remove_dir(&folder).expect("it is empty");
        std::fs::rename(&kept, &folder).expect("it is ours");
        visit(&den.bus_path()).expect("all is as it was");
    }
}
