//! Durable topics: what is published is there for whoever comes later.

use windlass::{Bus, Raw, RecvError, Start, SyncPolicy, Topic, Wait};

/// A folder for logs, removed when dropped.
pub struct Logs(pub std::path::PathBuf);

impl Logs {
    pub fn new(name: &str) -> Self {
        Self::at(std::env::temp_dir(), name)
    }

    /// A folder in memory, for tests that do not care for a disk.
    pub fn in_memory(name: &str) -> Self {
        Self::at("/dev/shm".into(), name)
    }

    fn at(place: std::path::PathBuf, name: &str) -> Self {
        let path = place.join(format!("windlass-log-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir(&path).expect("a folder for logs can be made");
        Self(path)
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(logs: &Logs) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events"));
    topic.segment_bytes(1 << 16).open().expect("the log can be opened")
}

fn text(number: u64) -> Vec<u8> {
    format!("message {number} {}", "x".repeat(number as usize % 200)).into_bytes()
}

#[test]
fn what_was_published_is_there_for_the_next_bus() {
    let logs = Logs::new("next");
    let count = 5000;
    for round in 0..3 {
        let topic = open(&logs);
        let mut publisher = topic.publisher().expect("a free lane");
        for number in round * count..(round + 1) * count {
            let receipt = publisher.publish(&text(number)).expect("there is room");
            assert_eq!(receipt.sequence, number);
        }
        drop(publisher);
        let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
        for number in 0..(round + 1) * count {
            let message = subscriber.try_recv().expect("sound").expect("it was published");
            assert_eq!((message.sequence(), message.bytes()), (number, &text(number)[..]));
        }
        assert!(subscriber.try_recv().expect("sound").is_none());
    }
}

#[test]
fn two_publishers_have_one_order_and_a_replay_runs_into_what_is_live() {
    let logs = Logs::new("order");
    let topic = open(&logs);
    let publish = |topic: Topic<Raw>, name: u8| {
        std::thread::spawn(move || {
            let mut publisher = topic.publisher().expect("a free lane");
            for number in 0..20_000u64 {
                let mut text = number.to_le_bytes().to_vec();
                text.push(name);
                publisher.publish(&text).expect("there is room");
            }
        })
    };
    let threads = [publish(topic.clone(), 0), publish(topic.clone(), 1)];
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    let mut due = [0u64; 2];
    for sequence in 0..40_000 {
        let message = subscriber.recv(Wait::Block).expect("sound").expect("not closed");
        assert_eq!(message.sequence(), sequence);
        let (number, name) = message.bytes().split_at(8);
        let number = u64::from_le_bytes(number.try_into().expect("eight bytes"));
        assert_eq!(number, due[usize::from(name[0])]);
        due[usize::from(name[0])] += 1;
    }
    for thread in threads {
        thread.join().expect("publishers end well");
    }
}

#[test]
fn each_message_can_be_put_on_disk_before_publishing_returns() {
    let logs = Logs::new("each");
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(logs.0.join("events")).sync(SyncPolicy::Each);
    let topic = topic.open().expect("the log can be opened");
    let mut publisher = topic.publisher().expect("a free lane");
    for number in 0..20 {
        publisher.publish(&text(number)).expect("there is room");
    }
    let mut last = topic.subscriber(Start::Last(1)).expect("a free slot");
    assert_eq!(last.try_recv().expect("sound").expect("published").sequence(), 19);
}

#[test]
fn a_byte_that_changed_costs_one_message_which_is_named() {
    let logs = Logs::new("flip");
    let topic = open(&logs);
    let mut publisher = topic.publisher().expect("a free lane");
    let receipts: Vec<_> =
        (0..100).map(|number| publisher.publish(&text(number)).expect("room")).collect();
    let file = logs.0.join("events").join("lane-0-000000000000");
    let mut bytes = std::fs::read(&file).expect("the segment is there");
    bytes[4096 + receipts[50].position as usize + 30] ^= 4;
    std::fs::write(&file, bytes).expect("it can be written");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    for number in 0..100 {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                assert_ne!(number, 50);
                assert_eq!((message.sequence(), message.bytes()), (number, &text(number)[..]));
            }
            Err(error) => {
                assert_eq!((number, error), (50, RecvError::Damaged { sequence: 50 }));
            }
            Ok(None) => panic!("message {number} was published"),
        }
    }
}
