//! A log whose files were damaged: it is opened or refused, and what is delivered of it was published. One damage gives
//! no message another sequence; several together may, if one of them is to the order.

use crate::content::content;
use crate::damage::Damage;
use arbitrary::{Arbitrary, Unstructured};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use windlass::{Append, Bus, Error, Raw, RecvError, Start, Topic};

const RECORDS: u64 = 60;

/// What becomes of a file.
#[derive(Arbitrary, Debug)]
enum Step {
    /// A word of it is another one: of its header, or of what it holds.
    Word(u8, u16, Damage),
    /// It has another length.
    Cut(u8, u32),
    /// It is gone.
    Remove(u8),
    /// It is a copy of another one.
    Copy(u8, u8),
}

/// A sound log: names and bytes of its files, without the zeroes at their ends, and their lengths.
type Files = Vec<(String, Vec<u8>, u64)>;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(format!("/dev/shm/windlass-fuzz-log-{}-{name}", std::process::id()))
}

fn open(path: &Path) -> Result<Topic<Raw>, Error> {
    let bus = Bus::anonymous().expect("there is memory");
    bus.topic::<Raw>("t").durable_at(path).publishers_max(2).segment_bytes(4096).open()
}

fn text(number: u64) -> Vec<u8> {
    content(0, number, (number * 37 % 500) as usize)
}

fn sound() -> &'static Files {
    static SOUND: OnceLock<Files> = OnceLock::new();
    SOUND.get_or_init(|| {
        let path = folder("sound");
        let _ = std::fs::remove_dir_all(&path);
        let topic = open(&path).expect("it is new");
        let mut publishers = [(); 2].map(|()| topic.publisher().expect("there is a lane"));
        for number in 0..RECORDS {
            let key = vec![1; (number % 20) as usize];
            let publisher = &mut publishers[(number / 3 % 2) as usize];
            publisher.append(&text(number), &Append::new().key(&key)).expect("there is room");
        }
        drop((publishers, topic));
        let entries = std::fs::read_dir(&path).expect("it is there");
        let mut files: Files = entries
            .map(|entry| {
                let entry = entry.expect("it can be listed");
                let mut bytes = std::fs::read(entry.path()).expect("it is there");
                let len = bytes.len() as u64;
                let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
                bytes.truncate(end);
                (entry.file_name().to_string_lossy().into_owned(), bytes, len)
            })
            .collect();
        files.sort();
        let _ = std::fs::remove_dir_all(&path);
        files
    })
}

/// Damages a log as the bytes say, and looks what becomes of it.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let mut files = sound().clone();
    let mut damages = 0;
    for _ in 0..20 {
        let Ok(step) = Step::arbitrary(&mut bytes) else { break };
        if bytes.is_empty() || files.is_empty() {
            break;
        }
        let count = files.len();
        damages += 1;
        let which = |file: u8| usize::from(file) % count;
        match step {
            Step::Word(file, at, damage) => {
                let content = &mut files[which(file)].1;
                let words = content.len() / 8;
                if words > 0 {
                    let at = usize::from(at) % words * 8;
                    let word = content[at..at + 8].try_into().expect("eight bytes");
                    let damaged = damage.of(u64::from_le_bytes(word));
                    content[at..at + 8].copy_from_slice(&damaged.to_le_bytes());
                }
            }
            Step::Cut(file, len) => files[which(file)].2 = u64::from(len) % (2 << 20),
            Step::Remove(file) => drop(files.remove(which(file))),
            Step::Copy(from, to) => {
                let (_, bytes, len) = files[which(from)].clone();
                (files[which(to)].1, files[which(to)].2) = (bytes, len);
            }
        }
    }
    let path = folder("damaged");
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir(&path).expect("there is room");
    for (name, bytes, len) in &files {
        std::fs::write(path.join(name), bytes).expect("there is room");
        let file = std::fs::OpenOptions::new().write(true).open(path.join(name));
        file.expect("it was just made").set_len(*len).expect("there is room");
    }
    visit(&path, damages < 2);
    let _ = std::fs::remove_dir_all(&path);
}

fn visit(path: &Path, exact: bool) {
    let Ok(topic) = open(path) else { return };
    read(&topic, &[], exact);
    let Ok(mut publisher) = topic.publisher() else { return };
    let mut more = Vec::new();
    for number in 0..20 {
        let text = content(1, number, 200);
        match publisher.publish(&text) {
            Ok(receipt) => more.push((receipt.sequence, text)),
            Err(_) => break,
        }
    }
    read(&topic, &more, exact);
}

fn read(topic: &Topic<Raw>, more: &[(u64, Vec<u8>)], exact: bool) {
    let Ok(mut subscriber) = topic.subscriber(Start::Oldest) else { return };
    let mut last = None;
    for _ in 0..400_000 {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                let sequence = message.sequence();
                assert!(last < Some(sequence), "{sequence} came after {last:?}");
                last = Some(sequence);
                match more.iter().find(|it| it.0 == sequence) {
                    Some((_, text)) => assert_eq!(message.bytes(), text),
                    None => {
                        let mut all =
                            (0..RECORDS).map(text).chain(more.iter().map(|it| it.1.clone()));
                        assert!(all.any(|text| message.bytes() == text), "{sequence} was made up");
                        let is_it = || sequence < RECORDS && message.bytes() == text(sequence);
                        assert!(!exact || is_it(), "{sequence} is another one");
                    }
                }
            }
            Err(RecvError::Damaged { .. } | RecvError::Lagged { .. }) => {}
            Ok(None) | Err(_) => return,
        }
    }
    panic!("the walk has no end");
}
