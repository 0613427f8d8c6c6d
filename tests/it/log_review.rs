//! Durable topics where two things meet: a refused append and the next loan, lengths and the end of a segment, copies
//! and the topic that used the original, times of one's own and retention.

use super::durable::Logs;
use super::process::{until, Den};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use windlass::schemas::tick_capnp::tick;
use windlass::{Append, Bus, ErrorKind, PublishError, Raw, Start, SyncPolicy, Topic};

fn open(bus: &Bus, path: &Path) -> Topic<Raw> {
    let topic = bus.topic::<Raw>("events").durable_at(path).segment_bytes(4096);
    topic.open().expect("the log can be opened")
}

fn anonymous() -> Bus {
    Bus::anonymous().expect("there is memory")
}

/// The sequences and the payloads that are there.
fn all(topic: &Topic<Raw>) -> Vec<(u64, Vec<u8>)> {
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    let mut all = Vec::new();
    while let Some(message) = subscriber.try_recv().expect("sound") {
        all.push((message.sequence(), message.bytes().to_vec()));
    }
    all
}

#[test]
fn a_refused_append_leaves_nothing_in_the_next_loan() {
    let logs = Logs::in_memory("refused");
    let bus = anonymous();
    let kept = bus.topic::<tick::Owned>("kept").durable_at(logs.0.join("kept"));
    let topics = [kept.open().expect("new"), bus.topic("ring").open().expect("new")];
    let long = vec![b'k'; 1 << 16];
    let refused =
        [Append::new().at(77), Append::new().at(77).key(&long[..100]), Append::new().key(&long)];
    for (index, topic) in topics.iter().enumerate() {
        let mut publisher = topic.publisher().expect("a free lane");
        for append in &refused {
            let mut refuse = || {
                let mut loan = publisher.loan().expect("room");
                let mut first = loan.init_root();
                first.set_number(77);
                first.set_symbol("ACME");
                loan.append(append).expect_err("it is refused")
            };
            let error = refuse();
            let told = matches!(error, PublishError::TooLarge { need: 65_536, .. });
            assert!(told || (error == PublishError::NotDurable) == (index == 1), "{error:?}");
            let mut loan = publisher.loan().expect("room");
            let number = loan.get_root().expect("the default").get_number();
            assert_eq!(number, 0, "topic {index}, after {error:?}");
        }
    }
    // What lies behind the first message, too: the text of the second one ends where the key of the first one was.
    let mut publisher = topics[0].publisher().expect("a free lane");
    let mut subscriber = topics[0].subscriber(Start::Latest).expect("a free slot");
    for len in 0..60 {
        let mut loan = publisher.loan().expect("room");
        loan.init_root().set_symbol("ACME");
        let refused = loan.append(&Append::new().at(1 << 40).key(&long[..100]));
        assert_eq!(refused, Err(PublishError::Conflict));
        let mut loan = publisher.loan().expect("room");
        let symbol = "x".repeat(len);
        loan.init_root().set_symbol(symbol.as_str());
        loan.append(&Append::new()).expect("room");
        let message = subscriber.try_recv().expect("sound").expect("published");
        let read = message.get().expect("a tick").get_symbol().map(|text| text.to_string());
        assert_eq!(read.ok().and_then(Result::ok), Some(symbol));
    }
}

#[test]
fn whatever_can_be_published_can_be_appended() {
    let logs = Logs::in_memory("longest");
    let topic = open(&anonymous(), &logs.0.join("events"));
    let mut publisher = topic.publisher().expect("a free lane");
    let max = publisher.payload_bytes_max();
    let key = [7; 100];
    let mut expected = Vec::new();
    for len in (0..70).chain(max - 200..=max) {
        for key in [&key[..0], &key[..1], &key[..8], &key[..]] {
            let payload: Vec<u8> = (0..len).map(|at| (at + key.len()) as u8).collect();
            let fits = len.next_multiple_of(8) + key.len().next_multiple_of(8) <= max;
            match publisher.append(&payload, &Append::new().key(key)) {
                Ok(receipt) => {
                    assert!(fits);
                    expected.push((receipt.sequence, payload));
                }
                Err(error) => {
                    assert!(!fits, "{len} bytes, a key of {}: {error}", key.len());
                    assert!(matches!(error, PublishError::TooLarge { .. }), "{error}");
                }
            }
        }
    }
    assert!(all(&topic) == expected);
}

#[test]
fn keys_of_every_length() {
    let logs = Logs::in_memory("keylengths");
    let bus = anonymous();
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events"));
    let topic = topic.segment_bytes(1 << 18).open().expect("new");
    let mut publisher = topic.publisher().expect("a free lane");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    for round in 0..20usize {
        for len in [0, 1, 7, 8, 65_528, 65_535] {
            let key = vec![round as u8; len];
            publisher.append(&[1, 2, 3], &Append::new().key(&key)).expect("it fits");
            let message = subscriber.try_recv().expect("sound").expect("published");
            assert!(message.key() == key && message.bytes() == [1, 2, 3]);
        }
        let refused = publisher.append(&[], &Append::new().key(&vec![0; 65_536]));
        assert_eq!(refused, Err(PublishError::TooLarge { need: 65_536, max: 65_535 }));
    }
}

#[test]
fn an_old_time_of_its_own_deletes_nothing_that_is_new() {
    let logs = Logs::in_memory("owntime");
    let bus = anonymous();
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events")).segment_bytes(4096);
    let topic = topic.retain_for(Duration::from_secs(3600)).open().expect("new");
    let mut publisher = topic.publisher().expect("a free lane");
    for number in 0..3u8 {
        publisher.publish(&[number; 1000]).expect("room");
    }
    // Copied from elsewhere, and long ago.
    for number in 3..30u8 {
        publisher.append(&[number; 1000], &Append::new().time_ns(1)).expect("room");
    }
    let log = topic.log().expect("durable");
    let begun = std::time::Instant::now();
    until("the keeper has looked", || begun.elapsed() > Duration::from_secs(4));
    assert_eq!(log.first().expect("readable"), 0, "the first three are an instant old");
}

#[test]
fn a_copy_that_is_put_back_is_what_the_topic_goes_on_with() {
    let (logs, den) = (Logs::new("putback"), Den::new());
    let (path, copy) = (logs.0.join("events"), logs.0.join("copy"));
    let bus = den.bus();
    let publish = |from: u8, to: u8| {
        let topic = open(&bus, &path);
        let mut publisher = topic.publisher().expect("a free lane");
        (from..to).for_each(|number| assert!(publisher.publish(&[number]).is_ok()));
    };
    publish(0, 10);
    std::fs::create_dir(&copy).expect("a free name");
    for entry in std::fs::read_dir(&path).expect("the log") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), copy.join(entry.file_name())).expect("it can be copied");
    }
    publish(10, 20);
    std::fs::remove_dir_all(&path).expect("nobody uses it");
    std::fs::rename(&copy, &path).expect("a free name");
    publish(10, 15);
    let expected: Vec<_> = (0..15u8).map(|number| (u64::from(number), vec![number])).collect();
    assert_eq!(all(&open(&bus, &path)), expected);
}

#[test]
fn a_log_that_was_exchanged_under_a_topic_in_use_is_refused() {
    let (logs, den) = (Logs::new("exchanged"), Den::new());
    let path = logs.0.join("events");
    let first = den.bus();
    let topic = open(&first, &path);
    let mut publisher = topic.publisher().expect("a free lane");
    (0..10u8).for_each(|number| assert!(publisher.publish(&[number]).is_ok()));
    std::fs::rename(&path, logs.0.join("aside")).expect("a free name");
    drop(open(&anonymous(), &path).publisher().expect("another log"));
    let other = den.bus();
    let again = other.topic::<Raw>("events").durable_at(&path).segment_bytes(4096).open();
    let error = again.map(drop).expect_err("somebody uses the topic with another log");
    assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
    publisher.publish(&[10]).expect("it has its files");
    let expected: Vec<_> = (0..11u8).map(|number| (u64::from(number), vec![number])).collect();
    assert_eq!(all(&topic), expected);
}

#[test]
fn a_publisher_that_rolls_on_keeps_no_file_open() {
    let logs = Logs::in_memory("open");
    let bus = anonymous();
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events")).segment_bytes(4096);
    let topic = topic.sync(SyncPolicy::Every(Duration::from_secs(3600))).open().expect("new");
    let mut publisher = topic.publisher().expect("a free lane");
    let files = || std::fs::read_dir("/proc/self/fd").expect("there is one").count();
    let before = files();
    for _ in 0..1000 {
        publisher.publish(&[1; 4000]).expect("room");
    }
    until("they are closed", || files() < before + 200);
}

#[test]
fn a_place_that_cannot_have_a_log_is_refused_at_once() {
    let logs = Logs::in_memory("odd");
    let refused = |path: &Path| {
        let topic = anonymous().topic::<Raw>("events").durable_at(path).open();
        topic.map(drop).expect_err("there can be no log")
    };
    std::fs::create_dir(logs.0.join("empty")).expect("free");
    let error = refused(&logs.0.join("empty"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(error.to_string().contains("is a folder without a log"), "{error}");
    std::fs::write(logs.0.join("file"), b"x").expect("free");
    let error = refused(&logs.0.join("file"));
    assert!(error.to_string().contains("it is a file, expected a folder"), "{error}");
    // Whatever is made there is not there.
    let error = refused(Path::new("/proc/log"));
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    for nothing in ["", "/", ".."] {
        assert_eq!(refused(Path::new(nothing)).kind(), ErrorKind::Invalid, "{nothing}");
    }
}

#[test]
fn a_lane_that_goes_on_behind_the_segment_of_another_user_has_no_gap() {
    if !nix::unistd::geteuid().is_root() {
        return;
    }
    let logs = Logs::in_memory("users");
    let path = logs.0.join("events");
    let topic = open(&anonymous(), &path);
    let mut publisher = topic.publisher().expect("a free lane");
    for number in 0..8u8 {
        publisher.publish(&[number; 900]).expect("room");
    }
    until("the next segment is there", || path.join("lane-0-000000000002").exists());
    drop((publisher, topic));
    let allow = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    };
    allow(&path, 0o777);
    for entry in std::fs::read_dir(&path).expect("the log") {
        let path = entry.expect("an entry").path();
        allow(&path, if path.ends_with("lane-0-000000000001") { 0o644 } else { 0o666 });
    }
    let other = std::thread::spawn(move || {
        // Of this thread alone, and of those that it starts.
        nix::unistd::setfsuid(nix::unistd::Uid::from_raw(65_534));
        let topic = open(&anonymous(), &path);
        let mut publisher = topic.publisher().expect("a free lane");
        for number in 8..12u8 {
            publisher.publish(&[number; 900]).expect("room");
        }
        all(&topic)
    });
    let expected: Vec<_> = (0..12u8).map(|number| (u64::from(number), vec![number; 900])).collect();
    assert!(other.join().expect("nothing is damaged") == expected);
}
