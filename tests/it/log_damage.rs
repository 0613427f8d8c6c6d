//! Damage to a log that is not the work of a crash: what is lost is what was damaged.

use super::durable::Logs;
use super::log::disk::{lay, look, reboot, settle};
use super::process::until;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use windlass::{Bus, ErrorKind, PublishError, Raw, RecvError, Start, Topic, TopicBuilder};

fn builder(path: &Path) -> TopicBuilder<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    bus.topic::<Raw>("events").durable_at(path).publishers_max(2).segment_bytes(4096)
}

fn open(path: &Path) -> Topic<Raw> {
    builder(path).open().expect("the log can be opened")
}

fn text(number: u64) -> Vec<u8> {
    format!("message {number} {}", "x".repeat(number as usize * 31 % 300)).into_bytes()
}

/// Publishes `count` messages, by turns of three on each of two lanes; returns lane and position of each.
fn fill(topic: &Topic<Raw>, from: u64, count: u64) -> Vec<(u32, u64)> {
    let mut publishers = [(); 2].map(|()| topic.publisher().expect("there is a lane"));
    let publish = |number: u64| {
        let publisher = &mut publishers[(number / 3 % 2) as usize];
        let receipt = publisher.publish(&text(number)).expect("there is room");
        assert_eq!(receipt.sequence, number);
        (receipt.lane, receipt.position)
    };
    (from..from + count).map(publish).collect()
}

/// Reads all of a topic; returns which messages were there, and which were said to be damaged.
fn read(topic: &Topic<Raw>) -> (BTreeSet<u64>, BTreeSet<u64>) {
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let (mut there, mut damaged) = (BTreeSet::new(), BTreeSet::new());
    loop {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                assert_eq!(message.bytes(), text(message.sequence()));
                there.insert(message.sequence());
            }
            Ok(None) => return (there, damaged),
            Err(RecvError::Damaged { sequence }) => assert!(damaged.insert(sequence)),
            Err(error) => panic!("{error}"),
        }
    }
}

fn segment(lane: u32, position: u64) -> String {
    format!("lane-{lane}-{:012x}", position / 4096)
}

#[test]
fn without_a_checkpoint_a_log_begins_where_its_files_do() {
    let logs = Logs::in_memory("floor");
    let path = logs.0.join("events");
    let places = fill(&open(&path), 0, 200);
    // What retention does: whole segments, of both lanes, up to some message.
    let kept = places.iter().position(|place| *place == (0, 3 * 4096 + 16)).expect("lane 0 rolled");
    let last =
        places[..kept].iter().rposition(|place| place.0 == 0).expect("there are earlier ones");
    for logical in 0..3 {
        std::fs::remove_file(path.join(segment(0, logical * 4096))).expect("it is there");
    }
    std::fs::remove_file(path.join("checkpoint")).expect("it is there");
    let topic = open(&path);
    let recovery = topic.recovery().expect("nobody else has it");
    assert_eq!((recovery.first, recovery.next), (last as u64 + 1, 200), "{recovery:?}");
    assert_eq!(read(&topic), ((last as u64 + 1..200).collect(), BTreeSet::new()));
    fill(&topic, 200, 50);
    assert_eq!(read(&topic).0.len(), 250 - last - 1);
}

#[test]
fn a_segment_that_is_gone_costs_its_own_messages() {
    let logs = Logs::in_memory("gone");
    let path = logs.0.join("events");
    let places = fill(&open(&path), 0, 200);
    let lost: BTreeSet<u64> = (0..200u64)
        .filter(|at| matches!(places[*at as usize], (1, at) if at / 4096 == 1))
        .collect();
    assert!(lost.len() > 3);
    std::fs::remove_file(path.join(segment(1, 4096))).expect("it is there");
    let topic = open(&path);
    let all: BTreeSet<u64> = (0..200).collect();
    assert_eq!(read(&topic), (&all - &lost, lost.clone()));
    fill(&topic, 200, 100);
    drop(topic);
    // It stays so, also for those who come after another recovery.
    let all: BTreeSet<u64> = (0..300).collect();
    assert_eq!(read(&open(&path)), (&all - &lost, lost));
}

#[test]
fn nothing_is_published_in_the_place_of_a_damaged_message_that_is_kept() {
    let logs = Logs::in_memory("place");
    let path = logs.0.join("events");
    let places = fill(&open(&path), 0, 60);
    // The last message of a lane, with messages of the other one behind it.
    let last = places.iter().rposition(|place| place.0 == 0).expect("lane 0 was used");
    assert!(last < 59);
    let file = path.join(segment(0, places[last].1));
    let mut bytes = std::fs::read(&file).expect("it is there");
    bytes[4096 + places[last].1 as usize % 4096 + 26] ^= 1;
    std::fs::write(&file, bytes).expect("it is ours");
    for round in 1..4 {
        let topic = open(&path);
        let (there, damaged) = read(&topic);
        assert_eq!(damaged, BTreeSet::from([last as u64]), "round {round}");
        assert_eq!(there.len() as u64, 60 * round - 1);
        fill(&topic, 60 * round, 60);
    }
}

#[test]
fn a_piece_of_the_order_that_is_gone_costs_its_own_messages() {
    const PIECE: u64 = 1 << 17;
    let logs = Logs::in_memory("piece");
    let path = logs.0.join("events");
    let options = || builder(&path).segment_bytes(1 << 20);
    let topic = options().open().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    for number in 0..2 * PIECE + 100 {
        publisher.publish(&number.to_le_bytes()).expect("there is room");
    }
    drop((publisher, topic));
    std::fs::remove_file(path.join("places-000000000001")).expect("it is there");
    let topic = options().open().expect("it can be used");
    assert_eq!(topic.recovery().expect("nobody else has it").next, 2 * PIECE + 100);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let (mut count, mut damaged) = (0, Vec::new());
    loop {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                assert_eq!(message.bytes(), message.sequence().to_le_bytes());
                count += 1;
            }
            Ok(None) => break,
            Err(RecvError::Damaged { sequence }) => damaged.push(sequence),
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((count, damaged[0]), (PIECE + 100, PIECE));
}

#[test]
fn a_copy_of_a_log_in_use_is_a_beginning_of_it() {
    let logs = Logs::in_memory("copies");
    let (path, copy) = (logs.0.join("events"), logs.0.join("copy"));
    let topic = open(&path);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Not more than can be copied again and again.
            for round in (0..500).take_while(|_| !stop.load(Relaxed)) {
                fill(&topic, round * 60, 60);
            }
        });
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        for _ in 0..20 {
            subscriber.try_recv().expect("it is sound");
            lay(&look(&path), &copy);
            let copied = open(&copy);
            let (there, damaged) = read(&copied);
            let recovery = copied.recovery().expect("nobody else has it");
            assert_eq!((there.len() as u64, damaged.len()), (recovery.next, 0));
            fill(&copied, recovery.next, 20);
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn a_log_is_refused_that_lost_what_says_what_it_is() {
    let logs = Logs::in_memory("refused");
    let (path, other) = (logs.0.join("events"), logs.0.join("other"));
    fill(&open(&path), 0, 30);
    fill(&open(&other), 0, 30);
    // A file of another log is not lost: nothing is cut off on its account.
    let places = path.join("places-000000000000");
    let kept = std::fs::read(&places).expect("it is there");
    std::fs::copy(other.join("places-000000000000"), &places).expect("it is ours");
    let error = builder(&path).open().err().expect("it is not of this log");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    assert!(error.to_string().contains("belongs to another log"), "{error}");
    std::fs::write(&places, kept).expect("it is ours");
    assert_eq!(read(&open(&path)).0.len(), 30);
    std::fs::remove_file(path.join("log")).expect("it is there");
    let error = builder(&path).open().err().expect("nobody knows what it is");
    assert!(error.to_string().contains("events/log"), "{error}");
}

#[test]
fn a_recovery_costs_what_is_behind_the_checkpoint() {
    let logs = Logs::in_memory("cost");
    let path = logs.0.join("events");
    fill(&open(&path), 0, 3000);
    // Opening it makes a checkpoint.
    drop(open(&path));
    fill(&open(&path), 3000, 60);
    let mut files = look(&path);
    reboot(&mut files);
    lay(&files, &path);
    let topic = open(&path);
    let recovery = topic.recovery().expect("nobody else has it");
    assert_eq!((recovery.next, recovery.cut_messages), (3060, 0));
    assert!(recovery.checked <= 60, "{recovery:?}");
    assert_eq!(read(&topic).0.len(), 3060);
}

#[test]
fn a_segment_that_is_cut_off_under_both_ends_is_an_error_for_both() {
    let logs = Logs::in_memory("short");
    let path = logs.0.join("events");
    let topic = open(&path);
    fill(&topic, 0, 6);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    subscriber.try_recv().expect("it is sound").expect("it was published");
    let file = std::fs::OpenOptions::new().write(true).open(path.join(segment(0, 0)));
    file.expect("it is there").set_len(0).expect("it is ours");
    let told = (0..100).find_map(|number| publisher.publish(&text(number)).err());
    assert_eq!(told, Some(PublishError::Corrupt));
    until("the subscriber is told", || matches!(subscriber.try_recv(), Err(RecvError::Corrupt)));
    drop((subscriber, publisher, topic));
    // Nobody is there who had it mapped: what is lost is what was in it.
    let topic = open(&path);
    assert!(topic.recovery().expect("nobody else has it").cut_messages > 0);
    let mut publisher = topic.publisher().expect("there is a lane");
    publisher.publish(b"on").expect("there is room");
}

#[test]
fn a_folder_that_is_removed_under_a_publisher_ends_it_with_an_error() {
    let logs = Logs::in_memory("removed");
    let path = logs.0.join("events");
    let topic = open(&path);
    let mut publisher = topic.publisher().expect("there is a lane");
    publisher.publish(&text(1)).expect("there is room");
    std::fs::remove_dir_all(&path).expect("it is ours");
    let told = (0..1000).find_map(|number| publisher.publish(&text(number)).err());
    assert!(matches!(told, Some(PublishError::Storage { .. })), "{told:?}");
    // What is mapped is still there.
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    assert!(subscriber.try_recv().expect("it is sound").is_none());
}

#[test]
fn a_claim_that_is_removed_is_made_anew_once_nobody_uses_the_log() {
    let logs = Logs::in_memory("claim");
    let path = logs.0.join("events");
    let topic = open(&path);
    fill(&topic, 0, 10);
    std::fs::remove_file(path.join("claim")).expect("it is there");
    let error = builder(&path).open().err().expect("it is in use");
    assert!(error.to_string().contains("somebody uses the log"), "{error}");
    fill(&topic, 10, 10);
    drop(topic);
    assert_eq!(read(&open(&path)).0.len(), 20);
    settle(&path);
}
