//! The files of a bus with a topic, with words and lengths changed, opened and used as by anybody.
//!
//! Nothing panics, every operation ends, and an error is one that the documentation names. If nothing
//! was changed, everything is delivered.

use crate::content::content;
use crate::damage::Damage;
use arbitrary::{Arbitrary, Unstructured};
use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use windlass::schemas::tick_capnp::tick;
use windlass::{Bus, Error, ErrorKind, PublishError, Raw, RecvError, Start, Topic};

const MESSAGES: u64 = 30;
const LEN: usize = 500;

/// What becomes of one of the files.
#[derive(Arbitrary, Debug)]
enum Change {
    /// A word of the header, with a checksum that fits again or not.
    Header { file: u8, word: u8, damage: Damage, mend: bool },
    /// A word behind the header.
    Word { file: u8, at: u16, damage: Damage },
    /// Its length.
    Length { file: u8, len: u32 },
    /// It is gone.
    Gone { file: u8 },
    /// Its beginning is other bytes.
    Bytes { file: u8, bytes: Vec<u8> },
}

type Files = BTreeMap<String, Vec<u8>>;

/// What the names of the folders of all runs begin with; the process follows.
const DENS: &str = "/dev/shm/windlass-fuzz-";

const KINDS: [&str; 4] = ["reliable", "lossy", "ordered", "typed"];

/// Does what the bytes say.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(kind) = u8::arbitrary(&mut bytes) else { return };
    let kind = usize::from(kind) % KINDS.len();
    let mut files = templates()[kind].clone();
    let mut changed = false;
    for _ in 0..8 {
        let Ok(change) = Change::arbitrary(&mut bytes) else { break };
        if bytes.is_empty() {
            break;
        }
        changed |= apply(change, &mut files);
    }
    let path = place("bus");
    lay(&path, &files);
    let ended = visit(&path, KINDS[kind], changed);
    if let (Err(error), false) = (&ended, changed) {
        panic!("a sound bus is refused: {error}");
    }
    if let Err(error) = ended {
        assert!(is_documented(&error), "{error:?}");
    }
    let _ = std::fs::remove_dir_all(path);
}

fn is_documented(error: &Error) -> bool {
    use ErrorKind::{Closed, Corrupt, Limit, Mismatch, NotFound, OutOfRange};
    // `NotFound` is a control file that is gone: there is no such bus or topic.
    matches!(error.kind(), Closed | Corrupt | Limit | Mismatch | NotFound | OutOfRange)
}

/// A place of this process in shared memory.
fn place(name: &str) -> PathBuf {
    let den = PathBuf::from(format!("{DENS}{}", std::process::id()));
    let _ = std::fs::create_dir(&den);
    den.join(name)
}

/// A sound bus of every kind.
fn templates() -> &'static [Files] {
    static TEMPLATES: OnceLock<Vec<Files>> = OnceLock::new();
    TEMPLATES.get_or_init(|| {
        remove_dens_of_the_dead();
        KINDS.iter().map(|kind| template(kind)).collect()
    })
}

/// Removes what earlier runs left.
fn remove_dens_of_the_dead() {
    let entries = std::fs::read_dir("/dev/shm").expect("Linux has it");
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let pid = path.to_str().and_then(|path| path.strip_prefix(DENS));
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

fn template(kind: &str) -> Files {
    let path = place(kind);
    let _ = std::fs::remove_dir_all(&path);
    let bus = Bus::open(path.to_str().expect("it is text")).expect("a fresh bus");
    if kind == "typed" {
        let topic = bus.topic::<tick::Owned>("t").segment_bytes(4096).prefault(false);
        let topic = topic.publishers_max(2).subscribers_max(2).open().expect("a fresh topic");
        let mut publisher = topic.publisher().expect("a lane");
        for number in 0..MESSAGES {
            let mut loan = publisher.loan().expect("room");
            loan.init_root().set_number(number);
            loan.publish().expect("room");
        }
        return files_of(&path);
    }
    let topic = bus.topic::<Raw>("t").segment_bytes(4096).prefault(false).segments_per_lane(4);
    let topic = topic.publishers_max(2).subscribers_max(2);
    let topic = match kind {
        "lossy" => topic.lossy(),
        "ordered" => topic.ordered().order_slots(256),
        _ => topic,
    };
    let topic = topic.open().expect("a fresh topic");
    let mut publisher = topic.publisher().expect("a lane");
    let mut reader = topic.subscriber(Start::Oldest).expect("a slot");
    for number in 0..MESSAGES {
        publisher.publish(&content(0, number, LEN)).expect("it is read");
        if number < MESSAGES - 5 {
            while matches!(reader.try_recv(), Ok(Some(_))) {}
        }
    }
    // While both live: in the copy they are dead.
    files_of(&path)
}

fn files_of(path: &Path) -> Files {
    let mut files = Files::new();
    for folder in ["", "t.topic/"] {
        for entry in std::fs::read_dir(path.join(folder)).expect("it is there") {
            let entry = entry.expect("it is there");
            if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                let name = format!("{folder}{}", entry.file_name().to_string_lossy());
                files.insert(name, std::fs::read(entry.path()).expect("it is a file"));
            }
        }
    }
    files
}

fn lay(path: &Path, files: &Files) {
    let _ = std::fs::remove_dir_all(path);
    let mut folder = std::fs::DirBuilder::new();
    folder.recursive(true).mode(0o700).create(path.join("t.topic")).expect("there is room");
    for (name, bytes) in files {
        std::fs::write(path.join(name), bytes).expect("there is room");
    }
}

/// Changes one of the files. Whether it is another one now.
fn apply(change: Change, files: &mut Files) -> bool {
    let before = files.clone();
    let names: Vec<String> = files.keys().cloned().collect();
    let pick = |file: u8| names[usize::from(file) % names.len()].clone();
    match change {
        Change::Header { file, word, damage, mend } => {
            let bytes = files.get_mut(&pick(file)).expect("it was named");
            change_word(bytes, usize::from(word) % 16 * 8, damage);
            if mend && bytes.len() >= 128 {
                let crc = u64::from(crc32fast::hash(&bytes[..120]));
                bytes[120..128].copy_from_slice(&crc.to_le_bytes());
            }
        }
        Change::Word { file, at, damage } => {
            let bytes = files.get_mut(&pick(file)).expect("it was named");
            let words = bytes.len() / 8;
            // Most of a file is nothing; the words at the beginning of each page matter most.
            let at = match at % 3 {
                0 => usize::from(at) % words.max(1) * 8,
                _ => usize::from(at) % (words / 512).max(1) * 4096 + usize::from(at / 64) % 96 * 8,
            };
            change_word(bytes, at, damage);
        }
        Change::Length { file, len } => {
            let bytes = files.get_mut(&pick(file)).expect("it was named");
            bytes.resize(len as usize % (1 << 17), 0);
        }
        Change::Gone { file } => drop(files.remove(&pick(file))),
        Change::Bytes { file, bytes } => {
            let there = files.get_mut(&pick(file)).expect("it was named");
            let len = bytes.len().min(there.len());
            there[..len].copy_from_slice(&bytes[..len]);
        }
    }
    // There is always a file to change.
    if files.is_empty() {
        *files = before;
        return true;
    }
    *files != before
}

fn change_word(bytes: &mut [u8], at: usize, damage: Damage) {
    if let Some(word) = bytes.get_mut(at..at + 8) {
        let old = u64::from_le_bytes((&*word).try_into().expect("eight bytes"));
        word.copy_from_slice(&damage.of(old).to_le_bytes());
    }
}

/// Does with the bus what anybody may do.
fn visit(path: &Path, kind: &str, changed: bool) -> Result<(), Error> {
    let bus = Bus::options().existing().open(path.to_str().expect("it is text"))?;
    let _ = (bus.nodes(), bus.topics());
    let looked = [bus.inspect("t").map(drop), bus.repair().map(drop)];
    for error in looked.into_iter().filter_map(Result::err) {
        assert!(changed && is_documented(&error), "{error:?}");
    }
    if kind == "typed" {
        let topic = bus.topic::<tick::Owned>("t").open_existing()?;
        let mut subscriber = topic.subscriber(Start::Oldest)?;
        for _ in 0..200 {
            let Ok(Some(message)) = subscriber.try_recv() else { break };
            let _ = message.get().map(|tick| tick.get_symbol().map(|symbol| symbol.len()));
            let _ = message.to_owned_message();
        }
        return Ok(());
    }
    let topic = bus.topic::<Raw>("t").open_existing()?;
    let count = read(&topic, Start::Oldest)?;
    assert!(changed || count > 0, "what was published is there");
    for start in [Start::Latest, Start::Last(3), Start::Sequence(MESSAGES - 3)] {
        read(&topic, start)?;
    }
    publish(&topic, changed)?;
    bus.inspect("t").map(drop)
}

fn read(topic: &Topic<Raw>, start: Start) -> Result<usize, Error> {
    let mut subscriber = topic.subscriber(start)?;
    let (mut count, mut vain) = (0, 0);
    while vain < 260 {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                count +=
                    usize::from(message.bytes().iter().fold(0u8, |sum, byte| sum ^ byte) < 255);
                assert!(message.bytes().len() <= 4096 - 32, "it lies in its segment");
                let weak = message.pin().downgrade();
                let _ = weak.upgrade();
            }
            Ok(None) => vain += 1,
            Err(RecvError::Lagged { .. }) => {}
            Err(error) => {
                assert!(!matches!(error, RecvError::Forked | RecvError::TimedOut));
                break;
            }
        }
        assert!(count < 5000, "there is no end of it");
    }
    let _ = subscriber.lag();
    Ok(count)
}

fn publish(topic: &Topic<Raw>, changed: bool) -> Result<(), Error> {
    let mut publisher = topic.publisher()?;
    for _ in 0..20 {
        let payload = content(publisher.lane(), publisher.sequence(), LEN);
        if let Err(error) = publisher.try_publish(&payload) {
            assert!(changed && error != PublishError::Forked, "{error}");
            break;
        }
    }
    Ok(())
}
