//! When the machine has not enough of something, or the files are not what they were: an error that says what and what
//! to do, nothing half-made, and the same call works once there is enough.

pub mod damage;
pub mod disk;
pub mod in_use;
pub mod limits;

use super::traffic::{check, message};
use std::collections::BTreeSet;
use std::path::Path;
use windlass::schemas::tick_capnp::tick;
use windlass::{
    Bus, Error, ErrorKind, Publisher, Raw, Start, Subscriber, Topic, TopicBuilder, Wait,
};

/// Everything that a process does on its way into a bus, one step at a time. A step that failed can be tried again.
#[derive(Default)]
pub struct Run {
    bus: Option<Bus>,
    typed: Option<Topic<tick::Owned>>,
    topic: Option<Topic<Raw>>,
    publisher: Option<Publisher<Raw>>,
    subscriber: Option<Subscriber<Raw>>,
    is_watched: bool,
}

/// The steps, in order.
pub const STEPS: [&str; 6] = ["bus", "typed", "topic", "publisher", "subscriber", "descriptor"];

impl Run {
    /// Tries one step, of those that are named in [`STEPS`].
    pub fn step(&mut self, path: &str, step: &str) -> Result<(), Error> {
        match step {
            "bus" => self.bus = Some(Bus::open(path)?),
            // Its control file holds a schema as well.
            "typed" => self.typed = Some(small(self.bus().topic("typed")).create()?),
            "topic" => {
                let builder = small(self.bus().topic("t")).ordered().order_slots(256);
                self.topic = Some(builder.create()?);
            }
            "publisher" => self.publisher = Some(self.topic().publisher()?),
            "subscriber" => self.subscriber = Some(self.topic().subscriber(Start::Oldest)?),
            _ => {
                let subscriber = self.subscriber.as_mut().expect("it was an earlier step");
                subscriber.descriptor()?;
                self.is_watched = true;
            }
        }
        Ok(())
    }

    fn bus(&self) -> &Bus {
        self.bus.as_ref().expect("it was the first step")
    }

    fn topic(&self) -> &Topic<Raw> {
        self.topic.as_ref().expect("it was an earlier step")
    }

    /// After all steps: publishes and receives, and finds that nothing is left of what failed.
    pub fn works(&mut self) {
        let publisher = self.publisher.as_mut().expect("it was a step");
        let subscriber = self.subscriber.as_mut().expect("it was a step");
        assert!(self.is_watched && self.typed.is_some());
        for number in 0..100 {
            publisher.try_publish(&message(0, number, 300)).expect("it is read at once");
            let message = subscriber.recv(Wait::Block).expect("it is sound").expect("not closed");
            check(message.bytes(), 0, number);
        }
        assert_eq!(self.bus().nodes().len(), 1, "a node was left");
        let info = self.topic().info().expect("it is sound");
        assert_eq!((info.publishers.len(), info.subscribers.len()), (1, 1), "{info:?}");
        assert_eq!(self.bus().repair().expect("it is sound"), windlass::RepairReport::default());
    }
}

/// As little memory as a topic can take.
fn small<T: windlass::Payload>(builder: TopicBuilder<T>) -> TopicBuilder<T> {
    builder.segment_bytes(4096).segments_per_lane(2).publishers_max(1).subscribers_max(2)
}

/// Every name under `path`, hidden ones included.
pub fn names(path: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    let mut left = vec![path.to_owned()];
    while let Some(here) = left.pop() {
        for entry in std::fs::read_dir(&here).expect("it is a folder") {
            let entry = entry.expect("it is there").path();
            all.insert(entry.strip_prefix(path).expect("it is inside").display().to_string());
            if entry.is_dir() && !entry.is_symlink() {
                left.push(entry);
            }
        }
    }
    all
}

/// Fails unless `error` is of one of these kinds and names `path` and one of these hints.
#[track_caller]
pub fn says(error: &Error, kinds: &[ErrorKind], path: &str, hints: &[&str]) {
    let text = error.to_string();
    assert!(kinds.contains(&error.kind()), "{:?}: {text}", error.kind());
    assert!(text.contains(path), "it does not name {path}: {text}");
    assert!(hints.iter().any(|hint| text.contains(hint)), "it does not say what to do: {text}");
}
