//! The result of the demo: what every process did, what the kills did to the survivors, and the
//! verdict.

use serde::Serialize;

use super::report::{Latency, PublishedLane};
use super::verdict;

/// The whole result; `--json` prints it as it is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outcome {
    /// Every check held.
    pub ok: bool,
    /// What did not hold, in sentences.
    pub problems: Vec<String>,
    /// How long was published.
    pub seconds: u64,
    /// The recorded data.
    pub data: String,
    /// Its rows.
    pub rows: usize,
    /// Messages published, on all topics.
    pub published: u64,
    /// Messages received and compared with the data, by all subscribers.
    pub checked: u64,
    /// Messages neither received nor reported as missed; must be 0.
    pub lost: u64,
    /// Messages that the lossy topic reported as missed.
    pub missed: u64,
    /// The publishers, the replacement last.
    pub publishers: Vec<PublisherOutcome>,
    /// The subscribers, the replacement last.
    pub subscribers: Vec<SubscriberOutcome>,
    /// What was killed, and what it meant for the rest.
    pub kills: Vec<Kill>,
    /// What the topics counted themselves.
    pub topics: Vec<TopicOutcome>,
}

/// What one publisher did.
#[derive(Clone, Debug, Serialize)]
pub struct PublisherOutcome {
    /// `publisher 1`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `finished` or `killed`.
    pub state: &'static str,
    /// Where it began and ended in each topic; for a killed one, as it last reported.
    pub lanes: Vec<PublishedLane>,
    /// Messages, on all topics.
    pub published: u64,
}

/// What one subscriber did.
#[derive(Clone, Debug, Serialize)]
pub struct SubscriberOutcome {
    /// `subscriber 1`.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// `finished` or `killed`.
    pub state: &'static str,
    /// The topic that it read.
    pub topic: &'static str,
    /// How it waited.
    pub wait: &'static str,
    /// Whether it joined when publishing had begun.
    pub late: bool,
    /// Messages received and compared with the data.
    pub messages: u64,
    /// Messages a second, from its first to its last.
    pub rate: u64,
    /// From publication to reception.
    pub latency: Latency,
    /// Messages neither received nor reported as missed.
    pub lost: u64,
    /// Messages reported as missed.
    pub missed: u64,
    /// Messages or sequences that were wrong.
    pub faults: u64,
}

/// One kill.
#[derive(Clone, Debug, Serialize)]
pub struct Kill {
    /// Who was killed.
    pub victim: String,
    /// Its process.
    pub pid: u32,
    /// When, after publishing began.
    pub after_ms: u64,
    /// Until every surviving subscriber saw its next message: the slowest one's time.
    pub next_message_ns: Option<u64>,
    /// The longest time between two messages that a survivor saw in the 100 ms after.
    pub longest_pause_ns: Option<u64>,
    /// Who took its place.
    pub replacement: String,
    /// Until the first message of, or to, the replacement; most of it is the start of a process.
    pub replaced_after_ns: Option<u64>,
}

/// What a topic counted itself.
#[derive(Clone, Debug, Serialize)]
pub struct TopicOutcome {
    /// Its name.
    pub name: String,
    /// Lanes taken over from a killed publisher.
    pub taken_over_lanes: u64,
    /// Slots of killed subscribers that were freed.
    pub reaped_subscribers: u64,
    /// Times that a publisher had to wait for room.
    pub waits_for_room: u64,
    /// Times that a publisher woke sleepers.
    pub wakes: u64,
}

impl Outcome {
    /// Adds up the totals, and writes the verdict under the `problems`.
    pub fn judged(mut self, problems: Vec<String>) -> Self {
        self.published = verdict::totals(&self.publishers).values().sum();
        self.checked = self.subscribers.iter().map(|subscriber| subscriber.messages).sum();
        self.lost = self.subscribers.iter().map(|subscriber| subscriber.lost).sum();
        self.missed = self.subscribers.iter().map(|subscriber| subscriber.missed).sum();
        self.ok = problems.is_empty();
        self.problems = problems;
        self
    }
}
