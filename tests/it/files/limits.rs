//! A process that may not have another file, more memory, a longer file, locked memory or another thread.

use super::super::access::{become_user, folder_of, may_play_others, User};
use super::super::process::{Actor, Den, Line, Role, Scene};
use super::super::traffic::message;
use super::{names, says, Run, STEPS};
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use std::os::fd::AsRawFd;
use std::path::Path;
use windlass::{Bus, ErrorKind, Raw, RecvError, Start};

pub const ROLES: &[(&str, Role)] = &[
    ("files.descriptors", descriptors),
    ("files.addresses", addresses),
    ("files.lengths", lengths),
    ("files.locked", locked),
    ("files.threads", threads),
    ("files.news", news),
];

/// Runs `call` under a soft limit.
fn under<V>(resource: Resource, limit: u64, call: impl FnOnce() -> V) -> V {
    let (soft, hard) = getrlimit(resource).expect("Linux has it");
    setrlimit(resource, limit.min(hard), hard).expect("lowering is allowed");
    let value = call();
    setrlimit(resource, soft, hard).expect("so is raising it again");
    value
}

/// What this process has open, but for `/dev/null`, which the library keeps for children that are forked.
fn open_files() -> Vec<String> {
    let entries = std::fs::read_dir("/proc/self/fd").expect("Linux has it");
    let target = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.expect("it is there").path();
        std::fs::read_link(path).ok().map(|target| target.display().to_string())
    };
    let own = |target: &String| target != "/dev/null" && !target.starts_with("/proc/");
    let mut all: Vec<_> = entries.filter_map(target).filter(own).collect();
    all.sort();
    all
}

/// Makes the allocator keep memory for small things: without any a program in Rust ends, whatever it does.
fn warm_up() {
    drop((0..24).map(|_| vec![1_u8; 4000]).collect::<Vec<_>>());
}

/// Walks through all steps, each under a limit that begins at nothing more, `base`, and grows by `unit` whenever the
/// step fails. Says `failed STEP TIMES` for each, and `whole`.
fn walk(
    scene: &Scene,
    line: &mut Line,
    resource: Resource,
    (base, unit): (impl Fn() -> u64, u64),
    (kind, hint): (ErrorKind, &str),
) {
    let path = scene.bus_path();
    let place = Path::new(path).parent().expect("it has one");
    let mut run = Run::default();
    for step in STEPS {
        warm_up();
        let (mut times, mut limit) = (0, base());
        loop {
            warm_up();
            let before = open_files();
            let Err(error) = under(resource, limit, || run.step(path, step)) else { break };
            // The first thing that is opened may be that of the handlers of `fork`.
            let null = error.to_string().contains("/dev/null");
            let named = if null { "/dev/null".to_owned() } else { place.display().to_string() };
            let kind = if step == "descriptor" { ErrorKind::Limit } else { kind };
            says(&error, &[kind], &named, &[hint]);
            assert_eq!(open_files(), before, "{step} left something open");
            let left = names(place);
            assert!(!left.iter().any(|name| name.contains(".tmp")), "{step} left {left:?}");
            times += 1;
            limit += unit;
        }
        line.say(format_args!("failed {step} {times}"));
    }
    run.works();
    line.say("whole");
}

/// The lowest number that is free: with it as the limit no file can be opened.
fn lowest_free_number() -> u64 {
    let file = std::fs::File::open("/dev/null").expect("there are numbers");
    u64::try_from(file.as_raw_fd()).expect("it is open")
}

/// Bytes that are mapped now.
fn mapped_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages = status.split(' ').next().and_then(|pages| pages.parse::<u64>().ok());
    pages.expect("a number") * 4096
}

fn descriptors(scene: &Scene, line: &mut Line) {
    let hint = (ErrorKind::Limit, "ulimit -n");
    walk(scene, line, Resource::RLIMIT_NOFILE, (lowest_free_number, 1), hint);
}

fn addresses(scene: &Scene, line: &mut Line) {
    let hint = (ErrorKind::NoSpace, "ulimit -v");
    walk(scene, line, Resource::RLIMIT_AS, (mapped_bytes, 4096), hint);
}

fn lengths(scene: &Scene, line: &mut Line) {
    let hint = (ErrorKind::NoSpace, "ulimit -f");
    walk(scene, line, Resource::RLIMIT_FSIZE, (|| 0, 1024), hint);
}

fn failures(role: &str) -> [u64; 6] {
    let den = Den::new();
    let mut actor = Actor::process(&den, role, "");
    let failures = STEPS.map(|step| {
        let said = actor.hear("failed");
        let (name, times) = said.split_once(' ').expect("two words");
        assert_eq!(name, step);
        times.parse().expect("a number")
    });
    actor.hear("whole");
    actor.finish();
    println!("{role}: refused {failures:?} times");
    failures
}

#[test]
fn too_few_descriptors_at_any_stage_are_an_error_that_leaves_nothing() {
    let failed = failures("files.descriptors");
    // One file and its folder at least; a builder has its folder, what it builds and a lock open.
    assert!(failed[0] >= 4 && failed[1] >= 3 && failed[2] >= 3 && failed[3] >= 1, "{failed:?}");
    assert_eq!(failed[4..], [1, 1], "a subscriber opens one file at a time");
}

#[test]
fn too_little_address_space_at_any_stage_is_an_error_that_leaves_nothing() {
    let failed = failures("files.addresses");
    // Pages: those of a bus, of control files, of a lane and the order log, and the stack of a thread.
    let least = [6, 2, 2, 3, 3, 64];
    assert!(failed.iter().zip(least).all(|(times, least)| *times >= least), "{failed:?}");
}

#[test]
fn too_short_a_limit_of_files_is_an_error_and_no_signal() {
    // Kibibytes: of a bus, a control file, the longer of another one and the order log, a lane with its mark.
    let [bus, typed, topic, publisher, others @ ..] = failures("files.lengths");
    assert_eq!((bus, publisher), (20, 13));
    assert!(typed >= 8 && topic >= 8, "{typed}, {topic}");
    assert_eq!(others, [0, 0], "they make no files");
}

/// Locks all memory that it will ever map, of which it may not have much. Says `whole`.
fn locked(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let bus = Bus::open(scene.bus_path()).expect("it is ours");
    let make = |name| bus.topic::<Raw>(name).segment_bytes(1 << 20).segments_per_lane(4);
    let topic = make("t").create().expect("it is ours");
    let (_, hard) = getrlimit(Resource::RLIMIT_MEMLOCK).expect("Linux has it");
    let limit = hard.min(2 << 20);
    setrlimit(Resource::RLIMIT_MEMLOCK, limit, limit).expect("lowering is allowed");
    rustix::mm::mlockall(rustix::mm::MlockAllFlags::FUTURE).expect("within the limit");
    let error = topic.publisher().map(drop).expect_err("a lane has four mebibytes");
    says(&error, &[ErrorKind::NoSpace], scene.bus_path(), &["ulimit -l"]);
    // The lane is there, and others can use it.
    rustix::mm::munlockall().expect("this is always allowed");
    topic.publisher().expect("there is a lane").publish(b"!").expect("there is room");
    line.say("whole");
}

#[test]
fn a_process_that_may_not_lock_so_much_memory_is_told() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let user = lonely(0);
    let path = folder_of(&den, user.id, user.id, 0o700).join("bus");
    let mut actor = user.start(&path, "files.locked", "");
    actor.hear("whole");
    actor.finish();
}

/// A user whom no other test plays: threads and locked memory are counted for each user.
fn lonely(offset: u32) -> User {
    User { id: 1_200_000_000 + std::process::id() * 4 + offset, crew: 0 }
}

/// May not have another thread. Says `whole`.
fn threads(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let bus = Bus::open(scene.bus_path()).expect("it is ours");
    let topic = bus.topic::<Raw>("t").segment_bytes(4096).create().expect("it is ours");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let open = open_files();
    let error = under(Resource::RLIMIT_NPROC, 1, || subscriber.descriptor().map(drop));
    let error = error.expect_err("there are two threads already");
    says(&error, &[ErrorKind::Limit], scene.bus_path(), &["ulimit -u"]);
    assert_eq!(open_files(), open, "it left something open");
    // All else needs no thread, and the same call works once there may be one.
    publisher.try_publish(b"!").expect("there is room");
    assert!(subscriber.try_recv().expect("it is sound").is_some());
    subscriber.descriptor().expect("there may be a thread");
    line.say("whole");
}

#[test]
fn a_process_that_may_not_have_another_thread_is_told() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let user = lonely(1);
    let path = folder_of(&den, user.id, user.id, 0o700).join("bus");
    let mut actor = user.start(&path, "files.threads", "");
    actor.hear("whole");
    actor.finish();
}

/// Has no descriptor left when a publisher joins that is news to its subscriber. Says `whole`.
fn news(scene: &Scene, line: &mut Line) {
    let (bus, other) = (scene.bus(), scene.bus());
    for (name, ordered) in [("plain", false), ("ordered", true)] {
        let builder = bus.topic::<Raw>(name).segment_bytes(4096);
        let builder = if ordered { builder.ordered().order_slots(256) } else { builder };
        let topic = builder.create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
        let elsewhere = other.topic::<Raw>(name).open_existing().expect("it exists");
        let mut publisher = elsewhere.publisher().expect("there is a lane");
        publisher.publish(&message(0, 0, 100)).expect("there is room");
        under(Resource::RLIMIT_NOFILE, lowest_free_number(), || {
            for _ in 0..3 {
                let error = subscriber.try_recv().map(drop).expect_err("it cannot be mapped");
                assert_eq!(error, RecvError::Unmapped { lane: 0 });
                assert!(error.to_string().contains("Topic::info says why"), "{error}");
                let why = topic.info().map(drop).expect_err("it cannot be mapped");
                says(&why, &[ErrorKind::Limit], "lane-0", &["ulimit -n"]);
            }
        });
        let message = subscriber.try_recv().expect("it goes on").expect("nothing was lost");
        super::super::traffic::check(message.bytes(), 0, 0);
    }
    line.say("whole");
}

#[test]
fn a_subscriber_that_cannot_map_a_new_lane_is_told_and_goes_on_later() {
    let den = Den::new();
    let mut actor = Actor::process(&den, "files.news", "");
    actor.hear("whole");
    actor.finish();
}
