//! Who may use a log, and where it lies.

use super::durable::Logs;
use super::process::{Actor, Den, Line, Role, Scene};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use windlass::{Bus, Error, ErrorKind, Raw, Start, Topic};

pub const ROLES: &[(&str, Role)] = &[("log.racer", racer)];

const RACERS: u64 = 8;
const EACH: u64 = 50;

fn open(bus: &Bus, path: impl AsRef<Path>) -> Result<Topic<Raw>, Error> {
    let topic = bus.topic::<Raw>("events").publishers_max(8);
    topic.segment_bytes(4096).durable_at(path.as_ref()).open()
}

fn count(topic: &Topic<Raw>) -> u64 {
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut count = 0;
    while let Some(message) = subscriber.try_recv().expect("it is sound") {
        assert_eq!(message.sequence(), count);
        count += 1;
    }
    count
}

fn publish(topic: &Topic<Raw>, texts: u64) {
    let mut publisher = topic.publisher().expect("there is a lane");
    for _ in 0..texts {
        publisher.publish(&[3; 100]).expect("there is room");
    }
}

#[test]
fn a_second_bus_on_a_log_is_refused_and_told_who_has_it() {
    let (logs, den) = (Logs::in_memory("two"), Den::new());
    let path = logs.0.join("events");
    let first = open(&den.bus(), &path).expect("it is new");
    publish(&first, 10);
    let error =
        open(&Bus::anonymous().expect("there is memory"), &path).err().expect("it is in use");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert!(error.to_string().contains("topic events of bus"), "{error}");
    assert!(error.to_string().contains(&den.bus_path()), "{error}");
    drop(first);
    let other = open(&Bus::anonymous().expect("there is memory"), &path).expect("it is free");
    assert_eq!(count(&other), 10);
}

#[test]
fn a_bus_that_was_removed_and_made_anew_goes_on_with_the_log() {
    let (logs, den) = (Logs::in_memory("anew"), Den::new());
    let path = logs.0.join("events");
    for round in 0..3 {
        let bus = den.bus();
        let topic = open(&bus, &path).expect("nobody else has it");
        let recovery = topic.recovery().expect("the bus is new");
        assert_eq!((recovery.next, recovery.cut_messages), (round * 10, 0));
        publish(&topic, 10);
        assert_eq!(count(&topic), (round + 1) * 10);
        drop((topic, bus));
        Bus::remove(&den.bus_path()).expect("it is there");
    }
}

/// Opens the log with all others at once, and publishes.
fn racer(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    line.say("ready");
    line.hear();
    let topic = open(&bus, scene.text("log")).expect("all are of one topic");
    line.say(format_args!("recovered {}", u8::from(topic.recovery().is_some())));
    publish(&topic, EACH);
    line.say("done");
    line.stay();
}

#[test]
fn of_many_processes_that_open_a_log_at_once_one_makes_it_ready() {
    let logs = Logs::in_memory("race");
    let path = logs.0.join("events");
    for round in 0..5 {
        let den = Den::new();
        let bus = den.bus();
        let start = |_| Actor::process(&den, "log.racer", &format!("log={}", path.display()));
        let mut actors: Vec<Actor> = (0..RACERS).map(start).collect();
        actors.iter_mut().for_each(|actor| drop(actor.hear("ready")));
        actors.iter_mut().for_each(|actor| actor.say("go"));
        let recovered = |actor: &mut Actor| actor.hear("recovered").trim() == "1";
        let recovered: Vec<bool> = actors.iter_mut().map(recovered).collect();
        assert_eq!(recovered.iter().filter(|it| **it).count(), 1, "{recovered:?}");
        actors.iter_mut().for_each(|actor| drop(actor.hear("done")));
        let topic = open(&bus, &path).expect("it is the same topic");
        assert!(topic.recovery().is_none(), "others have it");
        assert_eq!(count(&topic), (round + 1) * RACERS * EACH);
        actors.into_iter().for_each(Actor::finish);
    }
}

#[test]
fn a_log_is_found_by_any_name_of_its_folder_but_a_link() {
    let logs = Logs::in_memory("names");
    let bus = || Bus::anonymous().expect("there is memory");
    let here = std::env::current_dir().expect("there is one");
    let up: String = here.components().skip(1).map(|_| "../").collect();
    let relative = format!("{up}{}/events", logs.0.display().to_string().trim_start_matches('/'));
    publish(&open(&bus(), &relative).expect("a relative path is a path"), 5);
    assert_eq!(count(&open(&bus(), logs.0.join("events")).expect("it is the same")), 5);
    // A link to the folder that the log is in is followed; one in the place of the log is not.
    symlink(&logs.0, logs.0.join("link")).expect("the name is free");
    assert_eq!(count(&open(&bus(), logs.0.join("link/events")).expect("it is the same")), 5);
    symlink(logs.0.join("events"), logs.0.join("alias")).expect("the name is free");
    let error = open(&bus(), logs.0.join("alias")).err().expect("it is a link");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    let error =
        open(&bus(), logs.0.join("not/there/events")).err().expect("there is no such folder");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("not/there"), "{error}");
    let error = open(&bus(), logs.0.join("..")).err().expect("that is no name");
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    let odd = logs.0.join(OsStr::from_bytes(b"events-\xff"));
    match open(&bus(), &odd) {
        Ok(topic) => {
            publish(&topic, 5);
            assert_eq!(count(&topic), 5);
        }
        Err(error) => assert_eq!(error.kind(), ErrorKind::Invalid, "{error}"),
    }
}
