//! Channels that are damaged, cut short, unfinished, somebody else's or too large: an error with a sentence, never a
//! panic or a signal, and nothing that belongs to somebody else is touched.

use super::super::process::{until, Line, Scene};
use super::{channel_of, Name};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{symlink, FileExt, PermissionsExt};
use std::path::Path;
use windlass::channel::{Channel, Receiver, RecvError, SendError, Sender};
use windlass::{ErrorKind, Wait};

/// Where the words of a channel are, as docs/format.md has it: name, first byte, bytes.
const WORDS: &[(&str, u64, u64)] = &[
    ("header", 0, 128),
    ("ready", 128, 8),
    ("receiver", 256, 24),
    ("sender", 384, 24),
    ("read", 512, 8),
    ("room", 640, 8),
    // The header words of three messages of 24 bytes, and of what comes next.
    ("frame", 4096, 8),
    ("frame", 4128, 8),
    ("frame", 4160, 8),
    ("frame", 4192, 8),
    ("end mark", 8192, 8),
];

/// The bytes of a channel with three messages that nobody has read, and that nobody holds.
fn leftover() -> Vec<u8> {
    let name = Name::new();
    let mut sender = name.sender();
    (0..3).for_each(|number| sender.send(&[number; 24]).expect("there is room"));
    drop(sender);
    fs::read(name.path()).expect("the name stays while nobody has read")
}

fn put(path: &Path, bytes: &[u8], mode: u32) {
    fs::write(path, bytes).expect("shared memory has room");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is ours");
}

fn open_to_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).expect("it is ours")
}

/// Uses both ends for a while; how each of them ended, if with an error.
fn use_both(
    sender: &mut Sender,
    receiver: &mut Receiver,
) -> (Option<SendError>, Option<RecvError>) {
    let (mut refused, mut ended) = (None, None);
    for round in 0..200 {
        match sender.try_send(&[round as u8; 40]) {
            Ok(()) | Err(SendError::Full) => {}
            error => refused = error.err(),
        }
        match receiver.try_recv() {
            Ok(_) => {}
            error => ended = error.err(),
        }
    }
    (refused, ended)
}

#[test]
fn any_byte_of_any_word_of_a_leftover_may_be_changed() {
    let whole = leftover();
    for (word, at, len) in WORDS {
        for byte in *at..at + len {
            for change in [0xff, 1, 0x80] {
                let name = Name::new();
                let mut damaged = whole.clone();
                damaged[byte as usize] ^= change;
                put(&name.path(), &damaged, 0o600);
                let what = format!("byte {byte} of {word} changed by {change:#x}");
                let channel = Channel::named(&name.0);
                let ends = channel.sender().and_then(|sender| Ok((sender, channel.receiver()?)));
                match ends {
                    Ok((mut sender, mut receiver)) => {
                        assert!(
                            !["header", "ready", "end mark"].contains(word),
                            "{what}: it opens"
                        );
                        use_both(&mut sender, &mut receiver);
                    }
                    Err(error) => {
                        let kinds = [ErrorKind::Corrupt, ErrorKind::Mismatch];
                        assert!(kinds.contains(&error.kind()), "{what}: {error}");
                        assert!(error.to_string().contains(&name.0), "{what}: {error}");
                        assert!(name.exists(), "{what}: what is damaged does not vanish unseen");
                    }
                }
            }
        }
    }
}

#[test]
fn any_word_may_be_changed_while_it_is_in_use() {
    for (word, at, len) in WORDS.iter().filter(|(word, ..)| *word != "header") {
        for value in [0, 1, 8, 4096, 1 << 20, u64::MAX / 2, u64::MAX - 7, u64::MAX] {
            for place in (*at..at + len).step_by(8) {
                let name = Name::new();
                let (mut sender, mut receiver) = (name.sender(), name.receiver());
                (0..3_u8).for_each(|number| sender.send(&[number; 24]).expect("there is room"));
                assert_eq!(receiver.try_recv(), Ok(Some(&[0; 24][..])));
                let file = open_to_write(&name.path());
                file.write_all_at(&value.to_le_bytes(), place).expect("it is ours");
                let (refused, ended) = use_both(&mut sender, &mut receiver);
                let what = format!("{word} at {place} is {value}");
                let allowed = [None, Some(SendError::Corrupt), Some(SendError::Closed)];
                assert!(allowed.contains(&refused), "{what}: {refused:?}");
                let allowed = [None, Some(RecvError::Corrupt), Some(RecvError::Closed)];
                assert!(allowed.contains(&ended), "{what}: {ended:?}");
            }
        }
    }
}

#[test]
fn a_sender_notices_that_the_receiver_is_said_to_be_ahead_of_it_or_to_go_back() {
    for (place, value) in [(512, 1 << 20), (640, 1 << 20), (512, 8)] {
        let name = Name::new();
        let (mut sender, mut receiver) = (name.sender(), name.receiver());
        // The sender has looked once how far the receiver is.
        while sender.try_send(&[1; 400]).is_ok() {}
        while receiver.try_recv().expect("it is sound").is_some() {}
        while sender.try_send(&[1; 400]).is_ok() {}
        let file = open_to_write(&name.path());
        file.write_all_at(&u64::to_le_bytes(value), place).expect("it is ours");
        assert_eq!(sender.try_send(&[1; 400]), Err(SendError::Corrupt), "{value} at {place}");
    }
}

#[test]
fn a_file_that_is_cut_short_while_it_is_used_is_an_error_to_both_ends() {
    for (len, again) in [(0, false), (4096, false), (0, true), (4096, true), (8192, true)] {
        let name = Name::new();
        let (mut sender, mut receiver) = (name.sender(), name.receiver());
        sender.send(&[1; 300]).expect("there is room");
        let file = open_to_write(&name.path());
        let whole = file.metadata().expect("it is ours").len();
        file.set_len(len).expect("it is ours");
        if again {
            file.set_len(whole).expect("it is ours");
        }
        until("the sender is told", || {
            matches!(sender.try_send(&[1; 300]), Err(SendError::Corrupt))
        });
        until("the receiver is told", || receiver.try_recv() == Err(RecvError::Corrupt));
        assert_eq!(receiver.recv(Wait::Block), Err(RecvError::Corrupt));
        assert_eq!(sender.send(&[1; 3000]).map_err(|error| error == SendError::Full), Err(false));
        assert!(!receiver.is_intact());
        drop((sender, receiver));
        // There is nothing in it that anybody could want.
        assert!(!name.exists());
    }
}

#[test]
fn what_whoever_died_while_making_it_left_is_made_anew() {
    let whole = leftover();
    let mut unfinished = whole.clone();
    unfinished[128..136].fill(0);
    for bytes in [&[][..], &[0], &[0; 4096], &[0; 8200], &unfinished, &unfinished[..8000]] {
        let name = Name::new();
        // Whatever rights it had got by then.
        put(&name.path(), bytes, 0o600);
        let (mut sender, mut receiver) = (name.sender(), name.receiver());
        assert_eq!(receiver.try_recv(), Ok(None));
        sender.send(b"works").expect("there is room");
        assert_eq!(receiver.try_recv(), Ok(Some(&b"works"[..])));
    }
}

#[test]
fn what_is_not_a_channel_is_refused_and_left_as_it_is() {
    let text = vec![b'x'; 10_000];
    let mut late = vec![0; 10_000];
    late[9_000] = 7;
    for bytes in [text, late, vec![1]] {
        let name = Name::new();
        put(&name.path(), &bytes, 0o600);
        let error = name.channel().sender().expect_err("it is no channel");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(fs::read(name.path()).expect("it is still there"), bytes);
    }
    let name = Name::new();
    fs::create_dir(name.path()).expect("shared memory has room");
    let error = name.channel().sender().expect_err("it is no channel");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    fs::remove_dir(name.path()).expect("it is still there");

    let (name, other) = (Name::new(), Name::new());
    put(&other.path(), &[], 0o600);
    symlink(other.path(), name.path()).expect("shared memory has room");
    let error = name.channel().sender().expect_err("it is no channel");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert_eq!(fs::read(other.path()).expect("it is still there"), [0u8; 0]);
}

#[test]
fn a_channel_is_its_users_alone() {
    let name = Name::new();
    let _sender = name.sender();
    let mode = fs::metadata(name.path()).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o7777, 0o600);
    fs::set_permissions(name.path(), Permissions::from_mode(0o644)).expect("it is ours");
    let error = name.channel().receiver().expect_err("others may read it");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(error.to_string().contains("100644"), "{error}");
}

/// Opens a channel that is longer than a file of this process may be.
pub fn limit_role(scene: &Scene, line: &mut Line) {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).expect("Linux has it");
    setrlimit(Resource::RLIMIT_FSIZE, 100_000, hard).expect("lowering is allowed");
    let channel = channel_of(scene);
    let error = channel.clone().capacity(1 << 20).sender().expect_err("it is too long");
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    line.say("refused");
    channel.capacity(4096).sender().expect("this one is not");
    line.say("opened");
}

#[test]
fn too_little_room_is_an_error_that_leaves_no_name() {
    let name = Name::new();
    let mut limited = name.start("channel.limit", "");
    limited.hear("refused");
    limited.hear("opened");
    limited.finish();
    assert!(!name.exists());
}
