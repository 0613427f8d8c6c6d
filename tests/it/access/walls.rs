//! What the kernel refuses to those who do not keep to the library: writing what one only reads, and the files of other
//! members of a group.

use super::super::process::{deface, unprotect, Actor, Den, Line, Role, Scene};
use super::group::{open, shared_place};
use super::{become_user, may_play_others, User, ANNA, BEN};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use windlass::Start;

pub const ROLES: &[(&str, Role)] = &[
    ("access.speaker", speaker),
    ("access.vandal", vandal),
    ("access.intruder", intruder),
    ("access.mapper", mapper),
];

/// Publishes one message and stays. Says `spoke`.
fn speaker(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let mut publisher = open(scene).publisher().expect("there is a lane");
    publisher.publish(b"!").expect("there is room");
    line.say("spoke");
    line.stay();
}

/// Tries to write the message that it received in every way that a process has. Says `unprotect ERROR`, `memory ERROR`
/// and `writes`, and must not live to say more.
fn vandal(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let mut subscriber = open(scene).subscriber(Start::Oldest).expect("there is a slot");
    let view = subscriber.try_recv().expect("it is sound").expect("it was published").pin();
    let bytes = view.as_bytes();
    line.say(format_args!(
        "unprotect {:?}",
        unprotect(bytes).map_err(io::Error::from).map_err(|e| e.kind())
    ));
    let memory = OpenOptions::new().write(true).open("/proc/self/mem");
    let at = bytes.as_ptr() as u64;
    let written = memory.and_then(|memory| memory.write_all_at(b"x", at));
    line.say(format_args!("memory {}", written.is_ok()));
    line.say(format_args!("writes {}", bytes[0]));
    deface(bytes);
    line.say("alive");
}

#[test]
fn a_compromised_subscriber_cannot_write_through_its_mapping() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = shared_place(&den);
    let mut speaker = ANNA.start(&path, "access.speaker", "ordered=no");
    speaker.hear("spoke");
    for user in [ANNA, BEN] {
        let mut vandal = user.start(&path, "access.vandal", "ordered=no");
        assert_eq!(vandal.hear("unprotect"), "Err(PermissionDenied)");
        assert_eq!(vandal.hear("memory"), "false");
        assert_eq!(vandal.hear_number("writes"), u64::from(b'!'));
        assert_eq!(vandal.hear_any(), None, "it lived on");
        assert_eq!(vandal.status().signal(), Some(libc::SIGSEGV));
    }
    let lane = std::fs::read(path.join("t.topic/lane-0")).expect("root may");
    assert_eq!(lane[4096 + 16 + 8], b'!');
    speaker.finish();
}

/// Says `WHAT ok`, or `WHAT` and what kind of error it was.
fn attempt<V>(line: &mut Line, what: &str, result: io::Result<V>) {
    match result {
        Ok(_) => line.say(format_args!("{what} ok")),
        Err(error) => line.say(format_args!("{what} {:?}", error.kind())),
    }
}

/// Tries what the files of another member allow.
fn intruder(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let bus = Path::new(scene.bus_path());
    let topic = bus.join("t.topic");
    let lane = topic.join("lane-0");
    let write = |path: &Path| OpenOptions::new().read(true).write(true).open(path);
    attempt(line, "read-lane", File::open(&lane));
    attempt(line, "write-lane", write(&lane));
    attempt(line, "cut-lane", OpenOptions::new().write(true).truncate(true).open(&lane));
    attempt(line, "chmod-lane", std::fs::set_permissions(&lane, PermissionsExt::from_mode(0o666)));
    attempt(line, "remove-lane", std::fs::remove_file(&lane));
    attempt(line, "rename-lane", std::fs::rename(&lane, topic.join("gone")));
    let forged = topic.join("forged");
    attempt(line, "make-file", std::fs::write(&forged, "not a lane"));
    attempt(line, "replace-lane", std::fs::rename(&forged, &lane));
    attempt(line, "remove-file", std::fs::remove_file(&forged));
    attempt(line, "rename-topic", std::fs::rename(&topic, bus.join("u.topic")));
    attempt(line, "rename-bus", std::fs::rename(bus, bus.with_extension("gone")));
    let memory = format!("/proc/{}/mem", scene.text("speaker"));
    attempt(line, "write-memory", OpenOptions::new().write(true).open(memory));
    // What every member writes: slots, pins and leases lie there; the order of all lies in the log.
    attempt(line, "write-control", write(&topic.join("control")));
    attempt(line, "write-order", write(&topic.join("order")));
}

fn attempts(user: User, path: &Path, speaker: &mut Actor) -> BTreeMap<String, String> {
    let arguments = format!("speaker={}", speaker.pid());
    let mut actor = user.start(path, "access.intruder", &arguments);
    let mut all = BTreeMap::new();
    while let Some(said) = actor.hear_any() {
        let (what, how) = said.split_once(' ').expect("two words");
        all.insert(what.to_owned(), how.to_owned());
    }
    actor.finish();
    all
}

#[test]
fn another_member_cannot_write_or_replace_a_lane() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = shared_place(&den);
    let mut speaker = ANNA.start(&path, "access.speaker", "ordered=yes");
    speaker.hear("spoke");
    let before = std::fs::read(path.join("t.topic/lane-0")).expect("root may");
    let mut all = attempts(BEN, &path, &mut speaker);
    for allowed in ["read-lane", "make-file", "remove-file", "write-control", "write-order"] {
        assert_eq!(all.remove(allowed).as_deref(), Some("ok"), "{allowed}");
    }
    assert_eq!(all.len(), 9, "{all:?}");
    for (what, how) in all {
        assert_eq!(how, "PermissionDenied", "{what}");
    }
    assert_eq!(std::fs::read(path.join("t.topic/lane-0")).expect("root may"), before);
    speaker.finish();
}

/// Publishes and subscribes. Says `maps FILE=RIGHTS,… …`: what it may do with the files that it has mapped.
fn mapper(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let topic = open(scene);
    let _subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let _publisher = topic.publisher().expect("there is a lane");
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
    let mut all = BTreeMap::<&str, Vec<&str>>::new();
    for row in maps.lines().filter(|row| row.contains(scene.bus_path())) {
        let name = row.rsplit_once('/').expect("a path").1;
        let rights = row.split_whitespace().nth(1).expect("every line has rights");
        all.entry(name).or_default().push(&rights[..2]);
    }
    let show = |(name, mut rights): (&str, Vec<&str>)| {
        rights.sort_unstable();
        rights.dedup();
        format!("{name}={}", rights.join(","))
    };
    let all: Vec<String> = all.into_iter().map(show).collect();
    line.say(format_args!("maps {}", all.join(" ")));
}

#[test]
fn a_publisher_maps_no_lane_writable_but_its_own() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = shared_place(&den);
    let mut speaker = ANNA.start(&path, "access.speaker", "ordered=yes");
    speaker.hear("spoke");
    // `--` is the guard page behind each of them.
    let right = "maps bus=--,rw control=--,rw lane-0=--,r- lane-1=--,rw order=--,r-,rw";
    for user in [ANNA, BEN] {
        let mut mapper = user.start(&path, "access.mapper", "ordered=yes");
        assert_eq!(mapper.hear_any().as_deref(), Some(right));
        mapper.finish();
        // So that the next user makes it anew.
        std::fs::remove_file(path.join("t.topic/lane-1")).expect("root may");
        let control = OpenOptions::new().write(true).open(path.join("t.topic/control"));
        control.and_then(|file| file.write_all_at(&[0; 16], 4608 + 128)).expect("root may");
    }
    speaker.finish();
}
