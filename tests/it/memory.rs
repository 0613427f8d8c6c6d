//! The memory itself: one copy however many read it, at any address, read-only for those who read,
//! guarded at its end, and reserved before it is used.

use super::fixture::small;
use super::process::{deface, Actor, Den, Line, Role, Scene, Stage};
use super::traffic::{check, message};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use windlass::{Bus, ErrorKind, Publisher, Raw, Start, Topic};

pub const ROLES: &[(&str, Role)] = &[
    ("memory.address", address),
    ("memory.vandal", vandal),
    ("memory.reader", reader),
    ("memory.tiny", tiny),
];

/// A mapping of a process, as the kernel lists it.
#[derive(Clone, Debug)]
struct Mapping {
    start: usize,
    end: usize,
    rights: String,
    offset: usize,
    path: String,
}

/// The mappings of this process whose path contains `name`, in order of their addresses.
fn mappings(name: &str) -> Vec<Mapping> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let parse = |line: &str| {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("every line has five words");
        let (start, end) = word().split_once('-').expect("a range");
        let (rights, offset) = (word().to_owned(), word());
        let path = line.find('/').map_or(String::new(), |at| line[at..].to_owned());
        let number = |text| usize::from_str_radix(text, 16).expect("hexadecimal");
        let (start, end, offset) = (number(start), number(end), number(offset));
        Mapping { start, end, rights, offset, path }
    };
    let all = maps.lines().map(parse);
    all.filter(|mapping| mapping.path.contains(name)).collect()
}

/// Where in which file the bytes lie that begin at `address`.
fn file_offset(address: *const u8, name: &str) -> usize {
    let address = address as usize;
    let holds = |mapping: &Mapping| (mapping.start..mapping.end).contains(&address);
    let found = mappings(name).into_iter().find(holds);
    let found = found.unwrap_or_else(|| panic!("{address:#x} is not in a mapping of {name}"));
    address - found.start + found.offset
}

fn open(scene: &Scene) -> Topic<Raw> {
    scene.bus().topic("t").open_existing().expect("the test created it")
}

/// Reads all messages, checks them, and says `offset OFFSET…` for where in the lane file they lie.
fn address(scene: &Scene, line: &mut Line) {
    // Something else where the lane might have been mapped otherwise.
    let _other = scene.bus().topic::<Raw>("other").open().expect("it opens").publisher();
    let mut subscriber = open(scene).subscriber(Start::Oldest).expect("there is a slot");
    let mut offsets = Vec::new();
    while let Some(message) = subscriber.try_recv().expect("it is sound") {
        check(message.bytes(), 0, message.sequence());
        offsets.push(file_offset(message.bytes().as_ptr(), "t.topic/lane-0").to_string());
    }
    line.say(format_args!("offset {}", offsets.join(" ")));
}

#[test]
fn a_message_lies_at_the_same_offset_for_everybody_and_at_any_address() {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut written = Vec::new();
    for len in [100, 509, 1, 3000, 8, 700] {
        let number = publisher.sequence();
        let mut loan = publisher.loan(len).expect("there is room");
        loan.copy_from_slice(&message(0, number, len));
        written.push((loan.as_ptr(), file_offset(loan.as_ptr(), "t.topic/lane-0")));
        loan.publish().expect("there is room");
    }
    let mut reading = stage.start("memory.address", "");
    let said = reading.hear("offset");
    let offsets: Vec<String> = written.iter().map(|(_, offset)| offset.to_string()).collect();
    assert_eq!(said, offsets.join(" "));
    reading.finish();
    // Two more mappings of the same file in this process, through two nodes.
    let buses = [stage.bus(), stage.bus()];
    let topics = buses.each_ref().map(|bus| small(bus).open_existing().expect("it exists"));
    let mut readers =
        topics.each_ref().map(|topic| topic.subscriber(Start::Oldest).expect("a slot"));
    for (number, (address, offset)) in written.into_iter().enumerate() {
        let [one, two] = readers.each_mut().map(|reader| {
            let message = reader.try_recv().expect("it is sound").expect("it was published");
            check(message.bytes(), 0, number as u64);
            assert_eq!(file_offset(message.bytes().as_ptr(), "t.topic/lane-0"), offset);
            message.bytes().as_ptr()
        });
        assert!(one != two && one != address && two != address, "three addresses of one byte");
    }
}

/// Writes into a message that it received. Says `has BYTE` before, and must not live to say more.
fn vandal(scene: &Scene, line: &mut Line) {
    let mut subscriber = open(scene).subscriber(Start::Oldest).expect("there is a slot");
    let view = subscriber.try_recv().expect("it is sound").expect("it was published").pin();
    line.say(format_args!("has {}", view.as_bytes()[0]));
    deface(view.as_bytes());
    line.say("alive");
}

#[test]
fn a_subscriber_that_writes_into_a_message_dies_by_sigsegv() {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    topic.publisher().expect("there is a lane").publish(b"!").expect("there is room");
    let mut vandal = stage.start("memory.vandal", "");
    assert_eq!(vandal.hear_number("has"), u64::from(b'!'));
    assert_eq!(vandal.hear_any(), None, "it lived on");
    assert_eq!(vandal.status().signal(), Some(libc::SIGSEGV));
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let message = subscriber.try_recv().expect("it is sound").expect("it was published");
    assert_eq!(message.bytes(), b"!");
}

#[test]
fn only_the_own_lane_is_mapped_writable() {
    let den = Den::new();
    let bus = den.bus();
    let topic = small(&bus).create().expect("it is new");
    let _other_node = den.bus();
    let other = small(&_other_node).open_existing().expect("it exists");
    let _lane_0 = topic.publisher().expect("there is a lane");
    let _lane_1 = other.publisher().expect("there is a second lane");
    let subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let path = den.path().display().to_string();
    let writable = |lane: &str| {
        let all = mappings(&path).into_iter().filter(|mapping| mapping.path.ends_with(lane));
        all.filter(|mapping| mapping.rights.contains('w')).count()
    };
    // Both publishers are in this process, each with its own lane.
    assert_eq!((writable("lane-0"), writable("lane-1")), (1, 1));
    let readable = mappings(&path).into_iter().filter(|mapping| mapping.rights.starts_with("r--"));
    assert_eq!(readable.count(), 2, "the subscriber's, read-only");
    drop((subscriber, _lane_0, _lane_1, topic, other, bus, _other_node));
    assert!(mappings(&path).is_empty(), "nothing stays mapped: {:?}", mappings(&path));
}

#[test]
fn every_mapping_ends_at_a_guard_page() {
    let den = Den::new();
    let bus = den.bus();
    let topic = small(&bus).ordered().create().expect("it is new");
    let _publisher = topic.publisher().expect("there is a lane");
    let _subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let all = mappings(&den.path().display().to_string());
    let mut files = Vec::new();
    for mapping in all.iter().filter(|mapping| mapping.rights.starts_with('r')) {
        let next = all.iter().find(|next| next.start == mapping.end);
        let guard = next.unwrap_or_else(|| panic!("nothing guards {mapping:?}"));
        assert_eq!((guard.rights.as_str(), &guard.path), ("---s", &mapping.path), "{guard:?}");
        files.push(mapping.path.rsplit_once('/').expect("a path").1.to_owned());
    }
    files.sort();
    files.dedup();
    assert_eq!(files, ["bus", "control", "lane-0", "order"], "every kind of file");
}

/// Every file under `path`, without the folders.
fn files(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).expect("it is there");
    let all = entries.map(|entry| entry.expect("it is there").path());
    all.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[test]
fn every_page_of_every_file_is_reserved_before_it_is_used() {
    let den = Den::new();
    let bus = den.bus();
    for builder in [small(&bus), bus.topic("u").ordered().prefault(false)] {
        let topic = builder.create().expect("it is new");
        topic.publisher().expect("there is a lane");
    }
    let files = files(den.path());
    assert_eq!(files.len(), 6, "{files:?}");
    for file in files {
        let metadata = std::fs::metadata(&file).expect("it is there");
        assert!(metadata.blocks() * 512 >= metadata.len(), "{} has holes", file.display());
    }
}

/// Reads everything that is retained, checks it, and stays. Says `read COUNT`.
fn reader(scene: &Scene, line: &mut Line) {
    let mut subscriber = open(scene).subscriber(Start::Oldest).expect("there is a slot");
    let mut count = 0;
    while let Some(message) = subscriber.try_recv().expect("it is sound") {
        check(message.bytes(), 0, message.sequence());
        count += 1;
    }
    line.say(format_args!("read {count}"));
    line.stay();
}

/// The share that a process has in the memory of the files whose path contains `name`, in bytes.
fn proportional_share(pid: u32, name: &str) -> u64 {
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).expect("it lives");
    let (mut inside, mut sum) = (false, 0);
    for line in smaps.lines() {
        let first = line.split_whitespace().next().unwrap_or("");
        if !first.ends_with(':') {
            inside = line.contains(name);
        } else if inside && first == "Pss:" {
            let number = line.split_whitespace().nth(1).expect("a size in kB");
            sum += number.parse::<u64>().expect("a number") * 1024;
        }
    }
    sum
}

#[test]
fn ten_readers_share_one_copy_of_the_payload() {
    const SEGMENT: u64 = 1 << 20;
    let stage = Stage::processes();
    let bus = stage.bus();
    let builder = bus.topic::<Raw>("t").segment_bytes(SEGMENT).segments_per_lane(4);
    let topic = builder.create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut payload = 0;
    loop {
        let receipt = publisher.publish(&message(0, publisher.sequence(), 1024));
        payload += 1024;
        if receipt.expect("nobody is behind").position > 4 * SEGMENT - 2 * 1032 {
            break;
        }
    }
    let path = bus.path().display().to_string();
    let mut readers: Vec<Actor> = Vec::new();
    for count in 1..=10 {
        let mut reader = stage.start("memory.reader", "");
        assert_eq!(reader.hear_number("read"), publisher.sequence());
        readers.push(reader);
        let pids = readers.iter_mut().map(Actor::pid).chain([std::process::id()]);
        let pids: Vec<u32> = pids.collect();
        let share_of =
            |name: &str| -> u64 { pids.iter().map(|pid| proportional_share(*pid, name)).sum() };
        let lane = share_of(&format!("{path}/t.topic/lane"));
        assert!(lane >= payload, "{lane} bytes of {payload}: this counts the wrong thing");
        let ratio = lane as f64 / payload as f64;
        assert!(ratio <= 1.1, "{count} readers use {ratio} times the payload");
        if count == 10 {
            let all = share_of(&path) as f64 / payload as f64;
            println!("10 readers: data {ratio:.3}, with control files {all:.3} times the payload");
        }
    }
    readers.into_iter().for_each(Actor::finish);
}

/// A file system of one mebibyte, unmounted when dropped.
struct TinyDisk {
    path: PathBuf,
}

impl TinyDisk {
    /// `None`, with the reason, if this user may not mount.
    fn mount(den: &Den) -> Result<Self, String> {
        let path = den.path().join("tiny");
        std::fs::create_dir(&path).expect("the den has room");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&path);
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self { path }),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.path).status();
    }
}

/// Publishes several laps and reads the rest of them.
fn works(publisher: &mut Publisher<Raw>, topic: &Topic<Raw>) {
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    for _ in 0..200 {
        let number = publisher.sequence();
        publisher.try_publish(&message(0, number, 509)).expect("it is read at once");
        let message = subscriber.try_recv().expect("it is sound").expect("it was published");
        check(message.bytes(), 0, number);
    }
}

/// Fills a file system of one mebibyte with topics. Says `whole` when everything was refused that
/// had to be, and everything else works.
fn tiny(scene: &Scene, line: &mut Line) {
    let bus = Bus::open(scene.text("path")).expect("a bus is small");
    let no_space = |error: windlass::Error| {
        assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
        let text = error.to_string();
        assert!(text.contains("bytes are free") || text.contains("no room"), "{text}");
    };
    // A control file that does not fit: nothing is left of the topic.
    let huge = bus.topic::<Raw>("huge").subscribers_max(1024).publishers_max(64);
    no_space(huge.create().map(drop).expect_err("it needs four mebibytes and more"));
    assert!(bus.topics().expect("it can be listed").is_empty());
    // A lane that does not fit: the topic is there, its publisher is not.
    let wide = bus.topic::<Raw>("wide").create().expect("its control file is small");
    no_space(wide.publisher().map(drop).expect_err("it needs eight mebibytes"));
    assert!(wide.info().expect("it is sound").publishers.is_empty());
    // Small ones until nothing fits any more.
    let mut topics = Vec::new();
    let full = loop {
        let builder = bus.topic::<Raw>(&format!("small-{}", topics.len()));
        let builder = builder.segment_bytes(4096).segments_per_lane(8).publishers_max(1);
        let topic = builder.subscribers_max(4).create();
        match topic.and_then(|topic| topic.publisher().map(|publisher| (topic, publisher))) {
            Ok(pair) => topics.push(pair),
            Err(error) => break error,
        }
        assert!(topics.len() < 100, "a mebibyte holds no more");
    };
    no_space(full);
    assert!(topics.len() > 5, "{} topics fitted", topics.len());
    topics.iter_mut().for_each(|(topic, publisher)| works(publisher, topic));
    // What is given back can be used again.
    drop(topics.pop());
    bus.remove_topic(&format!("small-{}", topics.len())).expect("it exists");
    let again = bus.topic::<Raw>("again").segment_bytes(4096).publishers_max(1).subscribers_max(4);
    let again = again.create().expect("there is room again");
    works(&mut again.publisher().expect("there is room again"), &again);
    line.say("whole");
}

#[test]
fn a_full_file_system_is_an_error_and_never_a_signal() {
    let den = Den::new();
    let disk = match TinyDisk::mount(&den) {
        Ok(disk) => disk,
        Err(reason) => return println!("skipped: cannot mount a file system ({reason})"),
    };
    let path = disk.path.join("bus").display().to_string();
    let mut actor = Actor::process(&den, "memory.tiny", &format!("path={path}"));
    actor.hear("whole");
    actor.finish();
}
