//! A file system that is full, at every stage, or that may not be written.

use super::super::access::{become_user, folder_of, may_play_others, set_mode, ANNA};
use super::super::process::{Actor, Den, Line, Role, Scene};
use super::{names, says, Run, STEPS};
use nix::fcntl::{fallocate, FallocateFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use windlass::{Bus, Error, ErrorKind, Raw, Start};

pub const ROLES: &[(&str, Role)] = &[
    ("files.full", full),
    ("files.no-inodes", no_inodes),
    ("files.read-only", read_only),
    ("files.denied", denied),
];

/// Starts a role in a mount namespace of its own, in which `SCRIPT` mounted something at `$0`. `None`, with the reason
/// said, if that is not possible here.
pub fn mounted(den: &Den, script: &str, role: &str) -> Option<Actor> {
    let place = den.path().join("disk");
    std::fs::create_dir(&place).expect("the den has room");
    let command = |script: &str| {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(&place);
        command
    };
    let why = match command(script).output() {
        Ok(output) if output.status.success() => {
            let mut command = command(&format!("{script} && exec \"$@\""));
            command.arg(std::env::current_exe().expect("a test knows its binary"));
            let bus = place.join("bus");
            let bus = bus.to_str().expect("it is text");
            return Some(Actor::process_at(command, bus, role, ""));
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: a mount in a namespace of its own is not possible here ({why})");
    None
}

/// A file of a mebibyte.
const TINY: &str = r#"mount -t tmpfs -o size=1m tmpfs "$0""#;
const FEW: &str = r#"mount -t tmpfs -o nr_inodes=64 tmpfs "$0""#;

fn parent(scene: &Scene) -> PathBuf {
    Path::new(scene.bus_path()).parent().expect("it has one").to_owned()
}

/// Walks through all steps; `give` gives a little more whenever one fails. Says `failed STEP TIMES` for each.
fn walk(scene: &Scene, line: &mut Line, hint: &str, mut give: impl FnMut()) {
    let (path, place) = (scene.bus_path(), parent(scene));
    let mut run = Run::default();
    for step in STEPS {
        let mut times = 0;
        loop {
            let before = names(&place);
            let Err(error) = run.step(path, step) else { break };
            says(&error, &[ErrorKind::NoSpace], path, &[hint]);
            assert_eq!(names(&place), before, "{step} left something");
            times += 1;
            give();
        }
        line.say(format_args!("failed {step} {times}"));
    }
    run.works();
    line.say("whole");
}

/// A file system that has no page left, and then one more with each try.
fn full(scene: &Scene, line: &mut Line) {
    let ballast = File::create(parent(scene).join("ballast")).expect("there is room");
    let mut len: i64 = 1 << 20;
    while fallocate(&ballast, FallocateFlags::empty(), 0, len).is_err() {
        len -= 4096;
    }
    walk(scene, line, "bytes are free there; use smaller segments", || {
        len -= 4096;
        ballast.set_len(u64::try_from(len).expect("there is ballast left")).expect("it shrinks");
    });
}

/// A file system that takes no other file, and then one more with each try.
fn no_inodes(scene: &Scene, line: &mut Line) {
    let place = parent(scene);
    let file = |number: usize| place.join(format!("file-{number}"));
    let mut count = (0..).take_while(|number| File::create(file(*number)).is_ok()).count();
    walk(scene, line, "no room for another file; remove some", || {
        count -= 1;
        std::fs::remove_file(file(count)).expect("it is there");
    });
}

/// How often each step failed.
fn failures(mut actor: Actor) -> [u64; 6] {
    let failures = STEPS.map(|step| {
        let said = actor.hear("failed");
        let (name, times) = said.split_once(' ').expect("two words");
        assert_eq!(name, step);
        times.parse().expect("a number")
    });
    actor.hear("whole");
    actor.finish();
    failures
}

#[test]
fn a_file_system_that_is_full_at_any_stage_is_an_error_that_leaves_nothing() {
    let den = Den::new();
    let Some(actor) = mounted(&den, TINY, "files.full") else { return };
    let [bus, typed, topic, publisher, subscriber, descriptor] = failures(actor);
    // Pages: a control file of a bus, one of a topic with a schema, one with an order log, a lane.
    println!("pages that were missing: {bus}, {typed}, {topic}, {publisher}");
    assert!(bus >= 5 && typed >= 2 && topic >= 4 && publisher >= 3, "{publisher}");
    assert_eq!((subscriber, descriptor), (0, 0), "they take nothing");
}

#[test]
fn a_file_system_without_inodes_is_an_error_that_leaves_nothing() {
    let den = Den::new();
    let Some(actor) = mounted(&den, FEW, "files.no-inodes") else { return };
    let [bus, typed, topic, publisher, subscriber, descriptor] = failures(actor);
    assert_eq!((bus, typed, topic, publisher), (2, 2, 3, 1), "folders and files");
    assert_eq!((subscriber, descriptor), (0, 0), "they take nothing");
}

/// Makes a bus, has the file system mounted read-only, and tries everything. Says `whole`.
fn read_only(scene: &Scene, line: &mut Line) {
    let (path, place) = (scene.bus_path(), parent(scene));
    let bus = Bus::open(path).expect("there is room");
    let topic = bus.topic::<Raw>("t").segment_bytes(4096).create().expect("it is new");
    drop((topic, bus));
    let mut mount = Command::new("mount");
    let status = mount.args(["-o", "remount,ro"]).arg(&place).status().expect("there is mount");
    assert!(status.success(), "{status}");
    let denied = |result: Result<(), Error>| {
        let error = result.expect_err("nothing can be written");
        says(
            &error,
            &[ErrorKind::Permission],
            path,
            &["mounted read-only; mount it to be written"],
        );
    };
    denied(Bus::open(path).map(drop));
    denied(Bus::options().existing().open(path).map(drop));
    denied(Bus::open(&format!("{path}-2")).map(drop));
    denied(Bus::remove(path));
    line.say("whole");
}

#[test]
fn a_file_system_that_is_mounted_read_only_is_an_error_that_says_so() {
    let den = Den::new();
    let Some(mut actor) = mounted(&den, TINY, "files.read-only") else { return };
    actor.hear("whole");
    actor.finish();
}

/// Tries what needs the right to write in a folder, as it is told which folder has lost it. Says `tried` for each.
fn denied(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let path = scene.bus_path();
    let bus = Bus::open(path).expect("it is ours");
    let make = |name: &str| bus.topic::<Raw>(name).segment_bytes(4096).create();
    let topic = make("t").expect("it is ours");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    line.say("tried");
    while let Some(what) = line.hear() {
        let result = match what.as_str() {
            "bus" => Bus::open(&format!("{path}-2")).map(drop),
            "topic" => make("u").map(drop),
            "remove" => bus.remove_topic("t"),
            _ => topic.publisher().map(drop),
        };
        let error = result.expect_err("the folder may not be written");
        let parent = parent(scene).display().to_string();
        says(&error, &[ErrorKind::Permission], &parent, &["this user may not; it takes the right"]);
        // Who is inside goes on.
        publisher.try_publish(b"on").expect("there is room");
        assert!(subscriber.try_recv().expect("it is sound").is_some());
        line.say("tried");
    }
}

#[test]
fn a_folder_that_may_not_be_written_is_an_error_and_no_harm_to_those_inside() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let place = folder_of(&den, ANNA.id, ANNA.id, 0o700);
    let path = place.join("bus");
    let mut actor = ANNA.start(&path, "files.denied", "");
    actor.hear("tried");
    let before = names(&place);
    for (folder, what) in [
        (place.clone(), "bus"),
        (path.clone(), "topic"),
        (path.clone(), "remove"),
        (path.join("t.topic"), "publisher"),
    ] {
        set_mode(&folder, 0o500);
        actor.say(what);
        actor.hear("tried");
        set_mode(&folder, 0o700);
        assert_eq!(names(&place), before, "{what} left something");
    }
    actor.finish();
}
