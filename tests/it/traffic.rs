//! Messages that can be recognised, and the two roles that most scenarios are made of.
//!
//! Every message is a function of its lane, its number in the lane and its length, so whoever
//! receives one knows all of its bytes. A message of 16 bytes or more begins with its number and
//! the complement of it, for those who cannot know the number otherwise.

use super::process::{Line, Role, Scene};
use std::time::Duration;
use windlass::{Message, Publisher, Raw, RecvError, Start, Subscriber, Topic, Wait};

pub const ROLES: &[(&str, Role)] =
    &[("traffic.publisher", publisher), ("traffic.subscriber", subscriber)];

/// The topic that the roles use. The test creates it.
pub const TOPIC: &str = "traffic";

/// Fewest bytes of a message that carries its number.
pub const NUMBERED_BYTES_MIN: usize = 16;

fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn word(index: usize, seed: u64, number: u64, len: usize) -> u64 {
    match index {
        0 if len >= NUMBERED_BYTES_MIN => number,
        1 if len >= NUMBERED_BYTES_MIN => !number,
        _ => mix(seed ^ index as u64),
    }
}

/// Writes message `number` of `lane`.
pub fn write(into: &mut [u8], lane: u32, number: u64) {
    let len = into.len();
    let seed = mix(number ^ (u64::from(lane) << 48) ^ ((len as u64) << 32));
    for (index, chunk) in into.chunks_mut(8).enumerate() {
        let bytes = word(index, seed, number, len).to_le_bytes();
        chunk.copy_from_slice(&bytes[..chunk.len()]);
    }
}

/// Message `number` of `lane`, `len` bytes long.
pub fn message(lane: u32, number: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    write(&mut bytes, lane, number);
    bytes
}

/// Fails unless `bytes` are message `number` of `lane`.
pub fn check(bytes: &[u8], lane: u32, number: u64) {
    let right = bytes == message(lane, number, bytes.len());
    let found = number_of(bytes);
    assert!(right, "message {number} of lane {lane} is torn, or is message {found:?}");
}

/// The number that a message carries, if it is long enough and whole.
pub fn number_of(bytes: &[u8]) -> Option<u64> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 8)?.try_into().expect("eight bytes");
        Some(u64::from_le_bytes(bytes))
    };
    word(0).filter(|number| word(8) == Some(!number))
}

/// The length of message `number`: takes every value from `least` to `most`, in a mixed order.
///
/// Most of them are no divisor of a segment, so frames end anywhere in it.
pub fn len_of(number: u64, least: u64, most: u64) -> usize {
    let span = most - least + 1;
    let step =
        [127, 131, 137].into_iter().find(|step| !span.is_multiple_of(*step)).expect("two primes");
    usize::try_from(least + number.wrapping_mul(step) % span).expect("it was a length")
}

/// Publishes the next message of this publisher, in one of the ways that there are.
pub fn publish_next(publisher: &mut Publisher<Raw>, least: u64, most: u64) -> windlass::Receipt {
    let (lane, number) = (publisher.lane(), publisher.sequence());
    let len = len_of(number, least, most);
    let spare = usize::try_from(number % 61).expect("it is below 61");
    let max = publisher.payload_bytes_max();
    let receipt = match number % 5 {
        0 => {
            let mut loan = publisher.loan(len).expect("there is room in the end");
            write(&mut loan, lane, number);
            loan.publish()
        }
        1 => {
            let mut loan = publisher.loan((len + spare).min(max)).expect("there is room");
            loan.fill(0xee);
            write(&mut loan[..len], lane, number);
            loan.publish_len(len)
        }
        2 => {
            // A message that never exists.
            publisher.loan((len + spare).min(max)).expect("there is room").fill(0xdd);
            publisher.publish(&message(lane, number, len))
        }
        _ => publisher.publish(&message(lane, number, len)),
    };
    let receipt = receipt.expect("there is room in the end");
    assert_eq!(receipt.lane, lane);
    receipt
}

/// Publishes `count` messages of `least` to `most` bytes once it is told to. Says `ready LANE`,
/// `order SEQUENCE:LANE:NUMBER …` on an ordered topic, and `done FIRST END`, numbers of its lane.
fn publisher(scene: &Scene, line: &mut Line) {
    let topic = open(scene);
    let ordered = topic.info().expect("the topic is sound").ordered;
    let mut publisher = topic.publisher().expect("there is a lane for it");
    let (least, most) = (scene.number("least"), scene.number("most"));
    line.say(format_args!("ready {}", publisher.lane()));
    line.hear();
    let (lane, first) = (publisher.lane(), publisher.sequence());
    let (mut order, mut position) = (Order::new(), None);
    for number in first..first + scene.number("count") {
        let receipt = publish_next(&mut publisher, least, most);
        assert!(position < Some(receipt.position), "positions only grow");
        position = Some(receipt.position);
        match ordered {
            true => order.push((receipt.sequence, lane, number)),
            false => assert_eq!(receipt.sequence, number, "sequences are dense"),
        }
    }
    if ordered {
        line.say(format_args!("order {}", to_text(&order)));
    }
    line.say(format_args!("done {first} {}", publisher.sequence()));
}

/// Receives until the topic is closed. Says `ready SLOT`, on an ordered topic `order …` as a
/// publisher does, and `done RECEIVED MISSED`.
fn subscriber(scene: &Scene, line: &mut Line) {
    let topic = open(scene);
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot for it");
    // Nobody publishes before this subscriber is ready.
    let mut checker = Checker::new(&topic);
    line.say(format_args!("ready {}", subscriber.slot()));
    match scene.text("wait") {
        "spin" => receive(&mut subscriber, Wait::Spin, &mut checker),
        "yield" => receive(&mut subscriber, Wait::Yield, &mut checker),
        "for" => receive(&mut subscriber, Wait::For(Duration::from_millis(20)), &mut checker),
        "batch" => receive_batches(&mut subscriber, &mut checker),
        _ => receive(&mut subscriber, Wait::Block, &mut checker),
    }
    let (received, missed) = checker.finish();
    assert_eq!((subscriber.received(), subscriber.missed()), (received, missed));
    if checker.ordered {
        line.say(format_args!("order {}", to_text(&checker.order)));
    }
    line.say(format_args!("done {received} {missed}"));
}

fn open(scene: &Scene) -> Topic<Raw> {
    scene.bus().topic(TOPIC).open_existing().expect("the test created the topic")
}

fn receive(subscriber: &mut Subscriber<Raw>, wait: Wait, checker: &mut Checker) {
    loop {
        match subscriber.recv(wait) {
            Ok(Some(message)) => checker.take(&message),
            Ok(None) => return,
            Err(RecvError::Lagged { missed }) => checker.lag(missed),
            Err(RecvError::TimedOut) => {}
            Err(error) => panic!("{error}"),
        }
    }
}

fn receive_batches(subscriber: &mut Subscriber<Raw>, checker: &mut Checker) {
    loop {
        match subscriber.batch(32) {
            Ok(batch) => {
                // All of a batch is there at once.
                let messages: Vec<_> = batch.collect();
                messages.iter().for_each(|message| checker.take(message));
                if messages.is_empty() {
                    std::thread::yield_now();
                }
            }
            Err(RecvError::Lagged { missed }) => checker.lag(missed),
            Err(RecvError::Closed) => return,
            Err(error) => panic!("{error}"),
        }
    }
}

/// What has which place in the order of a topic: sequence, lane, number in the lane.
pub type Order = Vec<(u64, u32, u64)>;

fn to_text(order: &Order) -> String {
    let place = |(sequence, lane, number): &(u64, u32, u64)| format!("{sequence}:{lane}:{number}");
    order.iter().map(place).collect::<Vec<_>>().join(" ")
}

/// Reads what a role said after `order`.
pub fn from_text(text: &str) -> Order {
    let place = |place: &str| {
        let numbers: Vec<u64> =
            place.split(':').map(|number| number.parse().expect("a number")).collect();
        (numbers[0], u32::try_from(numbers[1]).expect("a lane"), numbers[2])
    };
    text.split_whitespace().map(place).collect()
}

/// Checks what one subscriber is given, message by message.
pub struct Checker {
    ordered: bool,
    lossy: bool,
    /// Number that is due in each lane.
    due: Vec<u64>,
    /// On an ordered topic: the sequence that is due.
    sequence_due: u64,
    /// Missed messages that were reported and not yet seen as a gap.
    owed: u64,
    received: u64,
    missed: u64,
    pub order: Order,
}

impl Checker {
    /// For a subscriber that begins now, with the next message, while nobody publishes.
    pub fn new(topic: &Topic<Raw>) -> Self {
        let info = topic.info().expect("the topic is sound");
        let mut due = vec![0; info.publishers_max as usize];
        info.publishers.iter().for_each(|lane| due[lane.lane as usize] = lane.published);
        Self {
            ordered: info.ordered,
            lossy: info.policy == windlass::Policy::Lossy,
            sequence_due: due.iter().sum(),
            due,
            owed: 0,
            received: 0,
            missed: 0,
            order: Order::new(),
        }
    }

    /// Takes a message, which must be the next one of its lane.
    pub fn take(&mut self, message: &Message<'_, Raw>) {
        let (lane, bytes) = (message.lane(), message.bytes());
        let number = match self.ordered {
            true => number_of(bytes).expect("ordered messages are long enough, and whole"),
            false => message.sequence(),
        };
        check(bytes, lane, number);
        let due = &mut self.due[lane as usize];
        assert!(number >= *due, "message {number} of lane {lane} came twice, or late");
        let gap = match self.ordered {
            true => message.sequence() - self.sequence_due,
            false => number - *due,
        };
        if !self.lossy {
            assert_eq!(number, *due, "lane {lane} has a gap");
        }
        assert!(gap <= self.owed, "{gap} messages are missing, {} were reported", self.owed);
        *due = number + 1;
        self.owed -= gap;
        self.received += 1;
        if self.ordered {
            self.sequence_due = message.sequence() + 1;
            self.order.push((message.sequence(), lane, number));
        }
    }

    /// Takes the news that messages are missing.
    pub fn lag(&mut self, missed: u64) {
        assert!(self.lossy, "a reliable topic loses nothing");
        assert!(missed > 0, "news of nothing");
        self.owed += missed;
        self.missed += missed;
    }

    /// How many were received, and missed. Every missed one must have been seen as a gap.
    pub fn finish(&self) -> (u64, u64) {
        assert_eq!(self.owed, 0, "these messages are missing nowhere");
        (self.received, self.missed)
    }
}
