//! Random operations on a durable topic, next to a model: what was published is a list.
//!
//! The model does not know lanes, segments or pieces. A bus that goes takes nothing with it. A crash of the machine
//! takes the end of the list with it, down to what was on disk, and the report says how much.

use super::durable::Logs;
use super::log::disk::{lay, look, reboot, Dice, Files, History};
use super::process::scaled;
use proptest::prelude::*;
use std::path::PathBuf;
use windlass::{
    Append, Bus, ErrorKind, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Topic,
};

const LANES: usize = 3;
const SUBSCRIBERS: usize = 3;

/// Something that a user may do, or that may happen. Indexes count modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Publish {
        lane: usize,
        count: usize,
        len: usize,
        key: usize,
    },
    /// Under the sequence that is next, or so many more or less.
    AppendAt {
        lane: usize,
        off: i64,
        len: usize,
    },
    Loan {
        lane: usize,
        len: usize,
        used: usize,
    },
    Restart {
        lane: usize,
    },
    Subscribe {
        place: usize,
        start: Start,
    },
    Leave {
        place: usize,
    },
    Receive {
        place: usize,
        count: usize,
    },
    /// All handles go, and the bus, and another one opens the log.
    Reopen,
    /// The machine crashes. What was not on disk for sure may be lost.
    Crash {
        seed: u64,
    },
}

fn steps() -> impl Strategy<Value = Step> {
    let lane = || 0..LANES;
    let len = || prop_oneof![6 => 0usize..300, 1 => 1500usize..4050, 1 => 4050usize..4300];
    let start = prop_oneof![
        Just(Start::Oldest),
        Just(Start::Latest),
        (0..30u64).prop_map(Start::Last),
        (0..300u64).prop_map(Start::Sequence),
    ];
    prop_oneof![
        8 => (lane(), 1..20usize, len(), 0..40usize)
            .prop_map(|(lane, count, len, key)| Step::Publish { lane, count, len, key }),
        3 => (lane(), prop_oneof![2 => Just(0), 1 => -3i64..4], len())
            .prop_map(|(lane, off, len)| Step::AppendAt { lane, off, len }),
        2 => (lane(), 0..2000usize, any::<prop::sample::Index>())
            .prop_map(|(lane, len, used)| Step::Loan { lane, len, used: used.index(len + 1) }),
        1 => lane().prop_map(|lane| Step::Restart { lane }),
        3 => (0..SUBSCRIBERS, start).prop_map(|(place, start)| Step::Subscribe { place, start }),
        1 => (0..SUBSCRIBERS).prop_map(|place| Step::Leave { place }),
        6 => (0..SUBSCRIBERS, 1..60usize)
            .prop_map(|(place, count)| Step::Receive { place, count }),
        1 => Just(Step::Reopen),
        1 => any::<u64>().prop_map(|seed| Step::Crash { seed }),
    ]
}

struct Reading {
    subscriber: Subscriber<Raw>,
    next: usize,
}

struct World {
    _logs: Logs,
    path: PathBuf,
    topic: Option<Topic<Raw>>,
    publishers: [Option<Publisher<Raw>>; LANES],
    readings: [Option<Reading>; SUBSCRIBERS],
    list: Vec<Vec<u8>>,
    /// What the files held when all that was published by then was on disk.
    on_disk: Files,
    safe: usize,
    number: u64,
}

fn open(path: &std::path::Path) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("t").publishers_max(LANES as u32).segment_bytes(4096);
    topic.durable_at(path).open().expect("the log can be opened")
}

impl World {
    fn new() -> Self {
        let logs = Logs::in_memory("model");
        let path = logs.0.join("t");
        let topic = open(&path);
        let on_disk = look(&path);
        Self {
            _logs: logs,
            path,
            topic: Some(topic),
            publishers: [const { None }; LANES],
            readings: [const { None }; SUBSCRIBERS],
            list: Vec::new(),
            on_disk,
            safe: 0,
            number: 0,
        }
    }

    fn topic(&self) -> &Topic<Raw> {
        self.topic.as_ref().expect("it is open between steps")
    }

    fn publisher(&mut self, lane: usize) -> &mut Publisher<Raw> {
        let topic = self.topic.as_ref().expect("it is open between steps");
        self.publishers[lane].get_or_insert_with(|| topic.publisher().expect("there is a lane"))
    }

    /// A message that no other one equals.
    fn text(&mut self, len: usize) -> Vec<u8> {
        self.number += 1;
        let mut text: Vec<u8> = self.number.to_le_bytes().to_vec();
        text.resize(len.max(8), self.number as u8);
        text
    }

    fn published(&mut self, text: Vec<u8>, receipt: windlass::Receipt) {
        assert_eq!(receipt.sequence, self.list.len() as u64);
        self.list.push(text);
    }

    /// Publishes one message; `at` is the sequence that it has to get.
    fn append(&mut self, lane: usize, len: usize, key: usize, at: Option<u64>) {
        let (text, next) = (self.text(len), self.list.len() as u64);
        let key = vec![7; key];
        let append = Append::new().key(&key);
        let append = at.map_or(append, |at| append.at(at));
        let room = self.publisher(lane).payload_bytes_max();
        match self.publisher(lane).append(&text, &append) {
            Ok(receipt) => {
                assert!(at.is_none_or(|at| at == next));
                self.published(text, receipt);
            }
            Err(PublishError::TooLarge { .. }) => assert!(text.len() + key.len() + 15 > room),
            Err(PublishError::Conflict) => assert!(at.is_some_and(|at| at != next)),
            Err(error) => panic!("{error}"),
        }
    }

    fn loan(&mut self, lane: usize, len: usize, used: usize) {
        let text = self.text(used);
        let mut loan = self.publisher(lane).loan(len.max(text.len())).expect("there is room");
        loan[..text.len()].copy_from_slice(&text);
        let receipt = loan.publish_len(text.len()).expect("there is room");
        self.published(text, receipt);
    }

    fn subscribe(&mut self, place: usize, start: Start) {
        let count = self.list.len();
        let begin = match start {
            Start::Oldest => 0,
            Start::Latest => count,
            Start::Last(last) => count.saturating_sub(last as usize),
            Start::Sequence(sequence) => sequence as usize,
            other => panic!("no step begins at {other:?}"),
        };
        match self.topic().subscriber(start) {
            Ok(subscriber) if begin <= count => {
                self.readings[place] = Some(Reading { subscriber, next: begin });
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange);
                assert!(begin > count);
            }
            Ok(_) => panic!("nobody published {begin} yet"),
        }
    }

    fn receive(&mut self, place: usize, count: usize) {
        let Some(reading) = &mut self.readings[place] else { return };
        for _ in 0..count {
            match reading.subscriber.try_recv() {
                Ok(Some(message)) => {
                    assert_eq!(message.sequence(), reading.next as u64);
                    assert!(message.bytes() == self.list[reading.next]);
                    reading.next += 1;
                }
                Ok(None) => {
                    assert_eq!(reading.next, self.list.len());
                    break;
                }
                Err(error @ RecvError::Damaged { .. }) => panic!("{error}"),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn let_go(&mut self) {
        self.publishers = [const { None }; LANES];
        self.readings = [const { None }; SUBSCRIBERS];
        self.topic = None;
    }

    fn reopen(&mut self) {
        self.let_go();
        let topic = open(&self.path);
        let recovery = topic.recovery().expect("nobody else has it").clone();
        assert_eq!((recovery.cut_messages, recovery.damaged), (0, 0));
        assert_eq!(recovery.next, self.list.len() as u64);
        self.topic = Some(topic);
        self.look();
    }

    /// An opener puts on disk what it found.
    fn look(&mut self) {
        self.on_disk = look(&self.path);
        self.safe = self.list.len();
    }

    fn crash(&mut self, seed: u64) {
        let history = History(vec![std::mem::take(&mut self.on_disk), look(&self.path)]);
        let since = history.checkpoints().pop().expect("there is a first one");
        self.let_go();
        let mut image = history.since(since).random_image(&mut Dice::new(seed));
        reboot(&mut image);
        lay(&image, &self.path);
        let topic = open(&self.path);
        let next = topic.recovery().expect("nobody else has it").next as usize;
        assert!((self.safe..=self.list.len()).contains(&next));
        self.list.truncate(next);
        self.topic = Some(topic);
        self.look();
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Publish { lane, count, len, key } => {
                (0..count).for_each(|_| self.append(lane, len, key, None));
            }
            Step::AppendAt { lane, off, len } => {
                let at = (self.list.len() as u64).saturating_add_signed(off);
                self.append(lane, len, 0, Some(at));
            }
            Step::Loan { lane, len, used } => self.loan(lane, len, used),
            Step::Restart { lane } => self.publishers[lane] = None,
            Step::Subscribe { place, start } => self.subscribe(place, start),
            Step::Leave { place } => self.readings[place] = None,
            Step::Receive { place, count } => self.receive(place, count),
            Step::Reopen => self.reopen(),
            Step::Crash { seed } => self.crash(seed),
        }
    }

    /// Reads all of it, by somebody who begins at the oldest.
    fn end(mut self) {
        self.reopen();
        self.subscribe(0, Start::Oldest);
        self.receive(0, usize::MAX);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: scaled(60) as u32,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_log_is_a_list(steps in proptest::collection::vec(steps(), 1..60)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.end();
    }
}
