//! Everything that a user does with a topic, in any order, against a list of what was published.

use crate::content::content;
use arbitrary::{Arbitrary, Unstructured};
use std::collections::BTreeMap;
use windlass::{Blocker, WeakView};
use windlass::{Bus, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Topic, View};

const PUBLISHERS: usize = 3;
const SUBSCRIBERS: usize = 3;

/// What kind of topic it is.
#[derive(Arbitrary, Debug)]
struct Shape {
    lossy: bool,
    ordered: bool,
    segments: u8,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Begin {
    Latest,
    Oldest,
    Last(u8),
}

#[derive(Arbitrary, Debug)]
enum Step {
    /// A publisher joins in a place, or leaves it.
    Publisher(u8),
    /// A message of so many bytes.
    Publish(u8, u16),
    /// A loan of which so many bytes are published, or none.
    Loan(u8, u16, Option<u16>),
    /// A subscriber joins in a place.
    Subscribe(u8, Begin),
    /// It leaves.
    Leave(u8),
    /// It reads up to so many messages, one by one or in batches.
    Read(u8, u8, bool),
    /// The last message that it read is kept.
    Keep(u8),
    /// The oldest message that is kept is let go, or held weakly.
    LetGo(bool),
    /// Somebody looks from outside.
    Look,
    /// Somebody repairs, which there is no need for.
    Repair,
}

/// A subscriber, and what it has to get next.
struct Reading {
    subscriber: Subscriber<Raw>,
    /// The number that is due in each lane; on an ordered topic the place in the order at 0.
    due: BTreeMap<u32, u64>,
    /// Whether it may not begin where it was told to: `Oldest` is wherever it is.
    fresh: bool,
    /// On a lossy topic: what was received and missed since the last time that it was all.
    last: Option<View<Raw>>,
    begun_at: u64,
}

struct World {
    shape: Shape,
    bus: Bus,
    topic: Topic<Raw>,
    publishers: [Option<Publisher<Raw>>; PUBLISHERS],
    readings: [Option<Reading>; SUBSCRIBERS],
    /// The length of every message of each lane.
    lanes: BTreeMap<u32, Vec<usize>>,
    /// Lane and number of every message, in the order in which they were published.
    order: Vec<(u32, u64)>,
    kept: Vec<View<Raw>>,
    weak: Vec<WeakView<Raw>>,
}

/// Does what the bytes say.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let Ok(shape) = Shape::arbitrary(&mut bytes) else { return };
    let mut world = World::new(shape);
    for _ in 0..300 {
        let Ok(step) = Step::arbitrary(&mut bytes) else { break };
        if bytes.is_empty() {
            break;
        }
        world.step(step);
    }
    world.end();
}

impl World {
    fn new(shape: Shape) -> Self {
        let bus = Bus::anonymous().expect("there is memory");
        let builder = bus.topic::<Raw>("t").segment_bytes(4096).prefault(false);
        let builder = builder.segments_per_lane(3 + u32::from(shape.segments % 3));
        let builder = builder.publishers_max(PUBLISHERS as u32).subscribers_max(SUBSCRIBERS as u32);
        let builder = if shape.lossy { builder.lossy() } else { builder.reliable() };
        let builder = if shape.ordered { builder.ordered().order_slots(256) } else { builder };
        let topic = builder.open().expect("a fresh topic");
        Self {
            shape,
            bus,
            topic,
            publishers: [const { None }; PUBLISHERS],
            readings: [const { None }; SUBSCRIBERS],
            lanes: BTreeMap::new(),
            order: Vec::new(),
            kept: Vec::new(),
            weak: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publisher(who) => {
                let place = &mut self.publishers[usize::from(who) % PUBLISHERS];
                *place = match place.take() {
                    Some(_) => None,
                    None => Some(self.topic.publisher().expect("there is a lane for each")),
                };
            }
            Step::Publish(who, len) => {
                let len = usize::from(len) % 2000;
                self.publish(who, |publisher, bytes| publisher.try_publish(bytes), len);
            }
            Step::Loan(who, len, part) => {
                let len = usize::from(len) % 2000;
                let part = part.map(|part| usize::from(part) % (len + 1));
                self.loan(who, len, part);
            }
            Step::Subscribe(who, begin) => self.subscribe(usize::from(who) % SUBSCRIBERS, begin),
            Step::Leave(who) => self.readings[usize::from(who) % SUBSCRIBERS] = None,
            Step::Read(who, count, batch) => {
                let who = usize::from(who) % SUBSCRIBERS;
                if let Some(mut reading) = self.readings[who].take() {
                    self.read(&mut reading, count, batch);
                    self.readings[who] = Some(reading);
                }
            }
            Step::Keep(who) => {
                let reading = self.readings[usize::from(who) % SUBSCRIBERS].as_mut();
                self.kept.extend(reading.and_then(|reading| reading.last.take()));
            }
            Step::LetGo(weakly) => {
                if !self.kept.is_empty() {
                    let view = self.kept.remove(0);
                    self.check(view.lane(), view.sequence(), view.as_bytes());
                    if weakly {
                        self.weak.push(view.downgrade());
                    }
                }
            }
            Step::Look => self.look(),
            Step::Repair => drop(self.bus.repair().expect("it is sound")),
        }
    }

    fn publish(
        &mut self,
        who: u8,
        by: impl FnOnce(&mut Publisher<Raw>, &[u8]) -> Result<windlass::Receipt, PublishError>,
        len: usize,
    ) {
        let Some(publisher) = &mut self.publishers[usize::from(who) % PUBLISHERS] else { return };
        let (lane, number) = (publisher.lane(), publisher.sequence());
        let receipt = by(publisher, &content(lane, number, len));
        self.note(lane, number, len, receipt);
    }

    fn loan(&mut self, who: u8, len: usize, part: Option<usize>) {
        let Some(publisher) = &mut self.publishers[usize::from(who) % PUBLISHERS] else { return };
        let (lane, number) = (publisher.lane(), publisher.sequence());
        let receipt = publisher.try_loan(len).and_then(|mut loan| {
            loan.fill(0xee);
            let Some(part) = part else { return Ok(None) };
            loan[..part].copy_from_slice(&content(lane, number, part));
            loan.publish_len(part).map(Some)
        });
        match receipt {
            Ok(None) => {}
            Ok(Some(receipt)) => self.note(lane, number, part.unwrap_or(0), Ok(receipt)),
            Err(error) => self.note(lane, number, 0, Err(error)),
        }
    }

    fn note(
        &mut self,
        lane: u32,
        number: u64,
        len: usize,
        receipt: Result<windlass::Receipt, PublishError>,
    ) {
        match receipt {
            Ok(receipt) => {
                let lens = self.lanes.entry(lane).or_default();
                assert_eq!(number, lens.len() as u64, "a lane is dense");
                lens.push(len);
                let order = self.order.len() as u64;
                let expected = if self.shape.ordered { order } else { number };
                assert_eq!((receipt.lane, receipt.sequence), (lane, expected));
                self.order.push((lane, number));
            }
            Err(PublishError::Full { blocker: Blocker { slot, .. } }) => {
                let slots = self.readings.iter().flatten().map(|one| one.subscriber.slot());
                let known = slots.into_iter().any(|one| one == slot) || !self.kept.is_empty();
                let held = self.readings.iter().flatten().any(|one| one.last.is_some());
                assert!(known || held, "somebody who is not there blocks");
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn subscribe(&mut self, who: usize, begin: Begin) {
        self.readings[who] = None;
        let start = match begin {
            Begin::Latest => Start::Latest,
            Begin::Oldest => Start::Oldest,
            Begin::Last(count) => Start::Last(count.into()),
        };
        // Views of those who left keep their slots.
        let Ok(subscriber) = self.topic.subscriber(start) else {
            assert!(!self.kept.is_empty(), "there is a slot for each");
            return;
        };
        let due = match self.shape.ordered {
            true => BTreeMap::from([(0, self.order.len() as u64)]),
            false => self.lanes.iter().map(|(lane, lens)| (*lane, lens.len() as u64)).collect(),
        };
        let fresh = !matches!(begin, Begin::Latest);
        let begun_at = subscriber.received() + subscriber.missed();
        self.readings[who] = Some(Reading { subscriber, due, fresh, last: None, begun_at });
    }

    fn read(&self, reading: &mut Reading, count: u8, batch: bool) {
        reading.last = None;
        let mut seen: Vec<(u32, u64)> = Vec::new();
        for _ in 0..count {
            let before = seen.len();
            let ended = if batch {
                reading.subscriber.batch(7).map(|batch| {
                    for message in batch {
                        self.check(message.lane(), message.sequence(), message.bytes());
                        seen.push((message.lane(), message.sequence()));
                        reading.last = Some(message.pin());
                    }
                    seen.len() == before
                })
            } else {
                reading.subscriber.try_recv().map(|message| {
                    let Some(message) = message else { return true };
                    self.check(message.lane(), message.sequence(), message.bytes());
                    seen.push((message.lane(), message.sequence()));
                    reading.last = Some(message.pin());
                    false
                })
            };
            match ended {
                Ok(false) => {}
                Ok(true) => break,
                Err(RecvError::Lagged { missed }) => {
                    assert!(self.shape.lossy && missed > 0, "only a lossy topic overtakes");
                    // Which lane it was is not said.
                    reading.fresh = true;
                }
                Err(error) => panic!("{error}"),
            }
            for (lane, sequence) in seen.drain(..) {
                let lane = if self.shape.ordered { 0 } else { lane };
                let due = reading.due.entry(lane).or_insert(0);
                let right = sequence == *due || (reading.fresh && self.may_begin(sequence, *due));
                assert!(right, "{sequence} of lane {lane} came when {due} was due");
                *due = sequence + 1;
            }
        }
    }

    /// Whether a subscriber that does not know where it begins may get `sequence` while `due` is due: it
    /// began at something older, or lost something.
    fn may_begin(&self, sequence: u64, due: u64) -> bool {
        sequence < due || self.shape.lossy
    }

    fn check(&self, lane: u32, sequence: u64, bytes: &[u8]) {
        let (lane, number) = match self.shape.ordered {
            true => {
                let there = self.order[sequence as usize];
                assert_eq!(there.0, lane, "it is another lane's");
                there
            }
            false => (lane, sequence),
        };
        let len = self.lanes[&lane][number as usize];
        assert_eq!(bytes, content(lane, number, len), "message {number} of lane {lane} is torn");
    }

    fn look(&self) {
        let info = self.topic.info().expect("it is sound");
        for lane in &info.publishers {
            let count = self.lanes.get(&lane.lane).map_or(0, Vec::len) as u64;
            assert_eq!(lane.published, count);
        }
        for weak in &self.weak {
            if let Some(view) = weak.upgrade() {
                self.check(view.lane(), view.sequence(), view.as_bytes());
            }
        }
        for reading in self.readings.iter().flatten() {
            assert!(reading.subscriber.lag() <= self.order.len() as u64);
        }
    }

    /// Everybody reads to the end.
    fn end(mut self) {
        self.kept.clear();
        for reading in std::mem::take(&mut self.readings).iter_mut().flatten() {
            let latest = !reading.fresh && reading.begun_at == 0;
            let before: u64 = reading.due.values().sum();
            let already = reading.subscriber.received() + reading.subscriber.missed();
            for _ in 0..20 {
                self.read(reading, u8::MAX, false);
            }
            assert_eq!(reading.subscriber.lag(), 0, "everything was read");
            let got = reading.subscriber.received() + reading.subscriber.missed() - already;
            let total = self.order.len() as u64;
            assert!(!latest || !self.shape.ordered || before + got == total, "all adds up");
        }
        self.look();
    }
}
