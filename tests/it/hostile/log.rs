//! Damaged files of a log. What is delivered was published, under its own sequence; of a record that changed it is
//! known which one it was; and whatever else is said is an error.

use super::super::log::disk::{lay, look, reboot, settle, File, Files};
use super::super::process::{Line, Scene};
use super::{flips_of, is_exhaustive, SAMPLE};
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use windlass::{Append, Bus, Error, Raw, RecvError, Start, Topic};

const RECORDS: u64 = 60;

/// A log of two lanes and several segments, and where its records lie.
struct Sound {
    files: Files,
    texts: Vec<Vec<u8>>,
    /// File, and bytes of it.
    records: Vec<(String, Range<usize>)>,
}

fn open(path: &Path) -> Result<Topic<Raw>, Error> {
    let bus = Bus::anonymous().expect("there is memory");
    bus.topic::<Raw>("events").durable_at(path).publishers_max(2).segment_bytes(4096).open()
}

fn build(path: &Path) -> Sound {
    let topic = open(path).expect("it is new");
    let mut publishers = [(); 2].map(|()| topic.publisher().expect("there is a lane"));
    let (mut texts, mut records) = (Vec::new(), Vec::new());
    for number in 0..RECORDS {
        let len = (number * 37 % 500) as usize;
        let text: Vec<u8> = (0..len).map(|at| (number as usize * 7 + at) as u8).collect();
        let key = &b"the key of a record"[..(number % 20) as usize];
        let publisher = &mut publishers[(number / 3 % 2) as usize];
        let receipt = publisher.append(&text, &Append::new().key(key)).expect("there is room");
        let at = (4096 + receipt.position % 4096) as usize;
        let bytes = 24 + len.next_multiple_of(8) + key.len().next_multiple_of(8);
        let file = format!("lane-{}-{:012x}", receipt.lane, receipt.position / 4096);
        records.push((file, at..at + bytes));
        texts.push(text);
    }
    drop((publishers, topic));
    Sound { files: look(path), texts, records }
}

/// What became of the messages of a log.
#[derive(Debug, Default)]
struct Visit {
    delivered: Vec<u64>,
    damaged: Vec<u64>,
    error: Option<String>,
    next: u64,
}

impl Sound {
    /// Opens a log, reads all of it, publishes, and reads that. The error says what was not right.
    fn visit(&self, path: &Path) -> Result<Visit, String> {
        let mut visit = Visit::default();
        let topic = match open(path) {
            Ok(topic) => topic,
            Err(error) => return Ok(Visit { error: Some(error.to_string()), ..visit }),
        };
        visit.next = topic.recovery().map_or(0, |it| it.next);
        self.read(&topic, &mut visit, &[])?;
        let mut publisher = match topic.publisher() {
            Ok(publisher) => publisher,
            Err(error) => {
                visit.error = Some(error.to_string());
                return Ok(visit);
            }
        };
        let mut more = Vec::new();
        for number in 0..30u8 {
            match publisher.publish(&[number; 300]) {
                Ok(receipt) => more.push((receipt.sequence, vec![number; 300])),
                Err(error) => visit.error = Some(error.to_string()),
            }
        }
        let mut again = Visit::default();
        self.read(&topic, &mut again, &more)?;
        let all = more.iter().all(|(sequence, _)| again.delivered.contains(sequence));
        if again.error.is_none() && !all {
            return Err(format!("what was published behind the damage is not there: {again:?}"));
        }
        visit.error = visit.error.or(again.error);
        Ok(visit)
    }

    fn read(
        &self,
        topic: &Topic<Raw>,
        visit: &mut Visit,
        more: &[(u64, Vec<u8>)],
    ) -> Result<(), String> {
        let mut subscriber = match topic.subscriber(Start::Oldest) {
            Ok(subscriber) => subscriber,
            Err(error) => {
                visit.error = Some(error.to_string());
                return Ok(());
            }
        };
        for _ in 0..200_000 {
            match subscriber.try_recv() {
                Ok(None) => return Ok(()),
                Ok(Some(message)) => {
                    let sequence = message.sequence();
                    let new = more.iter().find(|it| it.0 == sequence).map(|it| &it.1);
                    let old = || self.texts.get(sequence as usize);
                    if visit.delivered.last().is_some_and(|last| *last >= sequence) {
                        return Err(format!("{sequence} came after {:?}", visit.delivered));
                    }
                    if new.or_else(old).is_none_or(|text| text != message.bytes()) {
                        return Err(format!("{sequence} is not what was published"));
                    }
                    visit.delivered.push(sequence);
                }
                Err(RecvError::Damaged { sequence }) => visit.damaged.push(sequence),
                Err(RecvError::Lagged { .. }) => {}
                Err(error) => {
                    visit.error = Some(error.to_string());
                    return Ok(());
                }
            }
        }
        Err("the walk has no end".to_owned())
    }

    /// Damages a copy of the files at `path` and looks what is said of it.
    fn attempt(&self, path: &Path, damage: impl FnOnce(&Path)) -> Result<Visit, String> {
        lay(&self.files, path);
        settle(path);
        damage(path);
        let visited = catch_unwind(AssertUnwindSafe(|| self.visit(path)));
        visited.unwrap_or_else(|_| Err("it panicked".to_owned()))
    }

    /// Bytes that say something.
    fn places(&self) -> Vec<(String, usize)> {
        let mut places = Vec::new();
        for (name, file) in &self.files {
            let pages = file.pages.iter();
            let bytes = pages.flat_map(|(at, page)| {
                let said = page.iter().enumerate().filter(|(_, byte)| **byte != 0);
                said.map(move |(offset, _)| at * 4096 + offset)
            });
            places.extend(bytes.map(|at| (name.clone(), at)));
        }
        places
    }
}

/// Flips bytes one by one, in files that nobody used since, and in files after a crash.
pub fn flips(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let mut sound = build(path);
    let whole = sound.attempt(path, |_| {}).expect("nothing is damaged");
    assert_eq!(whole.delivered, (0..RECORDS).collect::<Vec<_>>());
    let mut all: Vec<(String, usize, u8)> = Vec::new();
    for (name, at) in sound.places() {
        let byte = sound.files[&name].pages[&(at / 4096)][at % 4096];
        all.extend(flips_of(byte, at).into_iter().map(|value| (name.clone(), at, value)));
    }
    let crashed = scene.text("after") == "crash";
    if crashed {
        reboot(&mut sound.files);
    }
    let every = if is_exhaustive() { 1 } else { (all.len() / SAMPLE) | 1 };
    let mut count = 0;
    for (name, at, value) in all.into_iter().step_by(every) {
        let case = format!("{name} byte {at} = {value:#04x}");
        line.say(format_args!("case {case}"));
        let mut file = sound.files[&name].clone();
        file.pages.get_mut(&(at / 4096)).expect("it is not zero")[at % 4096] = value;
        let found = sound.attempt(path, |path| overwrite(&path.join(&name), &file));
        let record = sound.records.iter().position(|it| it.0 == name && it.1.contains(&at));
        if let Err(why) = found.and_then(|visit| judge(&visit, record, crashed)) {
            line.say(format_args!("wrong {case}: {why}"));
        }
        count += 1;
    }
    line.say(format_args!("done {count}"));
}

/// The same file, with other bytes: a file that was exchanged is a copy.
fn overwrite(path: &Path, file: &File) {
    file.lay(path);
}

/// What must be said if a byte of record `record` changed, or something else.
fn judge(visit: &Visit, record: Option<usize>, crashed: bool) -> Result<(), String> {
    let Some(record) = record.map(|record| record as u64) else { return Ok(()) };
    let expected: Vec<u64> = (0..RECORDS).filter(|sequence| *sequence != record).collect();
    let others = visit.delivered.iter().all(|sequence| expected.contains(sequence));
    let named = visit.damaged == [record] && visit.delivered == expected;
    // After a crash it is the end, and so it is if nothing follows.
    let may_end = crashed || record == RECORDS - 1;
    let cut = may_end && visit.next <= record && visit.damaged.is_empty();
    if others && visit.error.is_none() && (named || cut) {
        return Ok(());
    }
    Err(format!("record {record} changed: {visit:?}"))
}

/// What must be said of planned damage: a log whose files are gone or cut short can be used.
fn judge_plan(visit: &Visit, case: &str) -> Result<(), String> {
    let refused =
        ["log ", " of another log", " is a folder", " is a link", " is a pipe", " a copy of "];
    if refused.iter().any(|what| case.starts_with("log ") || case.contains(what)) {
        return Ok(());
    }
    let is_about_records = case.starts_with("lane") || case.starts_with("places");
    let whole = visit.delivered.len() as u64 == RECORDS;
    if visit.error.is_some() || !(whole || is_about_records) {
        return Err(format!("{visit:?}"));
    }
    Ok(())
}

/// Damage that takes more than a byte.
pub fn planned(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let other_path = path.with_extension("other");
    let other = build(&other_path);
    let sound = build(path);
    let mut count = 0;
    let mut attempt = |case: String, damage: &dyn Fn(&Path)| {
        line.say(format_args!("case {case}"));
        let found = sound.attempt(path, damage);
        if let Err(why) = found.and_then(|visit| judge_plan(&visit, &case)) {
            line.say(format_args!("wrong {case}: {why}"));
        }
        count += 1;
    };
    let names: Vec<&String> = sound.files.keys().collect();
    for name in &names {
        let file = &sound.files[*name];
        let remove = |path: &Path| std::fs::remove_file(path.join(name)).expect("it is there");
        attempt(format!("{name} removed"), &remove);
        for len in [0, 1, 100, 4096, 4097, file.len / 2, file.len - 8, file.len - 1, file.len + 8] {
            let len = len.min(file.len + 8);
            attempt(format!("{name} is {len} bytes long"), &|path| {
                let file = std::fs::OpenOptions::new().write(true).open(path.join(name));
                file.expect("it is there").set_len(len as u64).expect("it is ours");
            });
        }
        for page in file.pages.keys() {
            let mut file = file.clone();
            file.pages.remove(page);
            attempt(format!("{name} without page {page}"), &|path| file.lay(&path.join(name)));
        }
        attempt(format!("{name} is a folder"), &|path| {
            remove(path);
            std::fs::create_dir(path.join(name)).expect("the name is free");
        });
        attempt(format!("{name} is a link"), &|path| {
            std::fs::rename(path.join(name), path.join("moved")).expect("it is there");
            symlink(path.join("moved"), path.join(name)).expect("the name is free");
        });
        attempt(format!("{name} is a pipe"), &|path| {
            remove(path);
            let mode = nix::sys::stat::Mode::S_IRWXU;
            nix::unistd::mkfifo(&path.join(name), mode).expect("the name is free");
        });
        if let Some(file) = other.files.get(*name) {
            attempt(format!("{name} of another log"), &|path| file.lay(&path.join(name)));
        }
        for twin in &names {
            if twin != name && twin.get(..4) == name.get(..4) {
                attempt(format!("{name} is a copy of {twin}"), &|path| {
                    sound.files[*twin].lay(&path.join(name));
                });
            }
        }
    }
    line.say(format_args!("done {count}"));
}
