//! Files that somebody cuts short while they are mapped: nobody dies of it, nobody goes on as if nothing had happened.

use super::fixture::{publish, small};
use super::process::{Actor, Den, Line, Role, Scene, Stage};
use super::traffic::{check, message};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use std::fs::OpenOptions;
use std::path::PathBuf;
use windlass::{
    ErrorKind, Message, PublishError, Raw, RecvError, Start, Subscriber, Topic, TopicBuilder, Wait,
};

pub const ROLES: &[(&str, Role)] =
    &[("shortened.publish", publisher), ("shortened.read", reader), ("shortened.hold", holder)];

/// A multiple of the size of a page.
const PAGE: u64 = 4096;

/// A topic with every file there is, whose publishers never wait, and whose control file has several pages.
fn topic(builder: TopicBuilder<Raw>) -> TopicBuilder<Raw> {
    builder.ordered().lossy().order_slots(4096).subscribers_max(64)
}

fn open(scene: &Scene) -> Topic<Raw> {
    scene.bus().topic("t").open_existing().expect("the test created it")
}

/// Publishes until it cannot, and says why not.
fn publisher(scene: &Scene, line: &mut Line) {
    let mut publisher = open(scene).publisher().expect("there is a lane");
    line.say("begun");
    let error = loop {
        let payload = message(publisher.lane(), publisher.sequence(), 300);
        match publisher.try_publish(&payload) {
            Ok(_) => {}
            Err(PublishError::Full { .. }) => std::thread::yield_now(),
            Err(error) => break error,
        }
    };
    assert_eq!(publisher.try_publish(b"again").err(), Some(error), "it stays so");
    line.say(format_args!("{error:?}"));
    line.stay();
}

/// Waits for the next message in one of the ways there are.
fn look<'a>(
    subscriber: &'a mut Subscriber<Raw>,
    wait: &str,
) -> Result<Option<Message<'a, Raw>>, RecvError> {
    match wait {
        "spin" => subscriber.recv(Wait::Spin),
        "yield" => subscriber.recv(Wait::Yield),
        "block" => subscriber.recv(Wait::Block),
        "look" => subscriber.try_recv(),
        "descriptor" => {
            let descriptor = subscriber.descriptor().expect("there are descriptors");
            let mut wanted = [PollFd::new(descriptor, PollFlags::POLLIN)];
            poll(&mut wanted, PollTimeout::NONE).expect("polling works");
            subscriber.try_recv()
        }
        other => panic!("there is no wait {other}"),
    }
}

/// Reads until it cannot, and says why not.
fn reader(scene: &Scene, line: &mut Line) {
    let mut subscriber = open(scene).subscriber(Start::Oldest).expect("there is a slot");
    let checks = scene.text("checks") == "yes";
    line.say("begun");
    let error = loop {
        match look(&mut subscriber, scene.text("wait")) {
            // What is gone reads as zeroes, which is asked for after reading.
            Ok(Some(found)) => {
                let copy = found.bytes().to_vec();
                if checks && found.is_intact() {
                    check(&copy, found.lane(), found.sequence());
                }
            }
            Ok(None) => {}
            Err(RecvError::Lagged { .. }) => {}
            Err(error) => break error,
        }
    };
    assert_eq!(subscriber.recv(Wait::Spin).err(), Some(error), "it stays so");
    assert_eq!(subscriber.try_recv().err(), Some(error), "it stays so");
    line.say(format_args!("{error:?}"));
    line.stay();
}

/// Holds a view while its file goes, and says what it has before and after.
fn holder(scene: &Scene, line: &mut Line) {
    let mut subscriber = open(scene).subscriber(Start::Oldest).expect("there is a slot");
    let message = subscriber.try_recv().expect("it is sound").expect("it was published");
    let view = message.pin();
    line.say(format_args!("begun {} {}", view.as_bytes()[0], view.is_intact()));
    line.hear();
    let byte = view.as_bytes()[0];
    line.say(format_args!("has {byte} {}", view.is_intact()));
    let shared = view.to_bytes();
    line.say(format_args!("bytes {}", shared.iter().all(|byte| *byte == 0)));
    line.stay();
}

fn cut(den: &Den, file: &str, len: u64) -> u64 {
    let path: PathBuf = den.path().join("bus").join(file);
    let file = OpenOptions::new().write(true).open(path).expect("it exists");
    let before = file.metadata().expect("it is open").len();
    file.set_len(len.min(before)).expect("it is ours");
    before
}

/// Cuts `file` to `len` bytes under the hands of everybody.
fn everybody_is_told(file: &str, len: u64) {
    let den = Den::new();
    let bus = den.bus();
    let topic = topic(small(&bus)).create().expect("it is new");
    // What is behind the end in its last page reads as zeroes without a fault.
    let checks = if len.is_multiple_of(PAGE) { "yes" } else { "no" };
    let mut actors = vec![Actor::process(&den, "shortened.publish", "")];
    actors.extend(["spin", "yield", "block", "look", "descriptor"].map(|wait| {
        Actor::process(&den, "shortened.read", &format!("wait={wait} checks={checks}"))
    }));
    actors.iter_mut().for_each(|actor| drop(actor.hear("begun")));
    cut(&den, file, len);
    for actor in &mut actors {
        actor.hear("Corrupt");
    }
    // Leaving touches the files once more.
    actors.into_iter().for_each(Actor::finish);
    drop(topic);
    let error = bus.inspect("t").expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("t.topic"), "{error}");
    // What is damaged can be removed, and its name used again.
    bus.remove_topic("t").expect("it can be removed");
    let topic = small(&bus).create().expect("the name is free");
    publish(&mut topic.publisher().expect("there is a lane"), 100).expect("there is room");
}

#[test]
fn a_control_file_that_is_cut_off_under_everybody_is_an_error_for_everybody() {
    everybody_is_told("t.topic/control", 0);
}

#[test]
fn a_lane_that_is_cut_off_under_everybody_is_an_error_for_everybody() {
    everybody_is_told("t.topic/lane-0", 0);
    // Its header stays, and some segments.
    everybody_is_told("t.topic/lane-0", 2 * PAGE);
    everybody_is_told("t.topic/lane-0", PAGE + 100);
}

#[test]
fn an_order_log_that_is_cut_off_under_everybody_is_an_error_for_everybody() {
    everybody_is_told("t.topic/order", 0);
    everybody_is_told("t.topic/order", 3 * PAGE);
}

#[test]
fn a_view_whose_file_is_cut_off_reads_as_zeroes_and_says_so() {
    let stage = Stage::processes();
    let Stage::Processes(den) = &stage else { unreachable!("these are processes") };
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    publisher.publish(&[9; 500]).expect("there is room");
    let mut holder = stage.start("shortened.hold", "");
    assert_eq!(holder.hear("begun"), "9 true");
    cut(den, "t.topic/lane-0", 0);
    holder.say("look");
    assert_eq!(holder.hear("has"), "0 false");
    assert_eq!(holder.hear("bytes"), "true");
    holder.finish();
}

#[test]
fn a_bus_file_that_is_cut_off_refuses_newcomers_and_leaves_the_others_alone() {
    let stage = Stage::processes();
    let Stage::Processes(den) = &stage else { unreachable!("these are processes") };
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    cut(den, "bus", 0);
    assert_eq!(publish(&mut publisher, 100), Ok(0));
    assert!(subscriber.try_recv().expect("it is sound").is_some());
    // Life and death are locks, not bytes.
    assert!(bus.repair().is_err_and(|error| error.kind() == ErrorKind::Corrupt));
    let error = windlass::Bus::open(&den.bus_path()).expect_err("it is damaged");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(publish(&mut publisher, 100), Ok(1));
}

/// Cuts a file to `len` bytes and makes it as long as it was: no page is missing afterwards, only what was in them.
fn cut_and_restore(den: &Den, file: &str, len: u64) {
    let before = cut(den, file, len);
    let file = OpenOptions::new().write(true).open(den.path().join("bus").join(file));
    file.expect("it exists").set_len(before).expect("it is ours");
}

#[test]
fn pins_that_were_cut_off_for_a_moment_let_nobody_overwrite_a_view() {
    // All of the file; what follows the words of the topic; what is behind one word of them.
    for len in [0, PAGE + 1, 2 * PAGE - 1] {
        let den = Den::new();
        let bus = den.bus();
        let builder = small(&bus).lossy().publishers_max(1).subscribers_max(4);
        let topic = builder.create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
        let mut publisher = topic.publisher().expect("there is a lane");
        publisher.publish(&[7; 1000]).expect("there is room");
        let view = subscriber.try_recv().expect("it is sound").expect("it was published").pin();
        cut_and_restore(&den, "t.topic/control", len);
        let told = (0..100).find_map(|_| publisher.try_publish(&[9; 1000]).err());
        assert_eq!(told, Some(PublishError::Corrupt), "cut to {len}");
        assert!(view.as_bytes().iter().all(|byte| *byte == 7), "cut to {len}");
        let told = (0..5000).find_map(|_| subscriber.try_recv().err());
        assert_eq!(told, Some(RecvError::Corrupt), "cut to {len}");
        assert!(!view.is_intact());
    }
}

#[test]
fn leases_that_were_cut_off_for_a_moment_give_no_lane_away_twice() {
    for restored in [true, false] {
        let den = Den::new();
        let bus = den.bus();
        let topic = bus.topic::<Raw>("t").lossy().segment_bytes(PAGE).create().expect("it is new");
        let mut living = [(); 3].map(|()| topic.publisher().expect("there is a lane"));
        // Behind the words of lane 0: the other leases read as free, and their lanes as unborn.
        let len = PAGE + 640;
        match restored {
            true => cut_and_restore(&den, "t.topic/control", len),
            false => drop(cut(&den, "t.topic/control", len)),
        }
        let error = topic.publisher().expect_err("the file is damaged");
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        for publisher in &mut living {
            let told = (0..100).find_map(|_| publisher.try_publish(&[9; 1000]).err());
            assert_eq!(told, Some(PublishError::Corrupt));
        }
    }
}

#[test]
fn a_lane_that_was_cut_off_for_a_moment_is_an_error_for_both_ends() {
    for len in [PAGE, PAGE + 200, 2 * PAGE] {
        let den = Den::new();
        let topic = small(&den.bus()).lossy().create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
        let mut publisher = topic.publisher().expect("there is a lane");
        for _ in 0..10 {
            publish(&mut publisher, 300).expect("there is room");
        }
        cut_and_restore(&den, "t.topic/lane-0", len);
        let told = (0..5000).find_map(|_| subscriber.try_recv().err());
        assert_eq!(told, Some(RecvError::Corrupt), "cut to {len}");
        let told = (0..100).find_map(|_| publish(&mut publisher, 300).err());
        assert_eq!(told, Some(PublishError::Corrupt), "cut to {len}");
    }
}
