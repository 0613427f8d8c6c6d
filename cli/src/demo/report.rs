//! What a child of the demo says to its parent, and the parent to the child: one line of JSON each.
//!
//! They speak through pipes and not through a topic, on purpose. The bus is what is being judged,
//! so it does not carry the verdict; and a line that a child wrote before it was killed stays in
//! the pipe, so the last figures of a killed child count.

use serde::{Deserialize, Serialize};

use super::ledger::Tally;
use super::timeline::Pause;

/// A line from a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// It has joined; from now on nothing passes it by.
    Ready,
    /// How far it is.
    Progress(Figures),
    /// It has done all that it was asked for; the figures are final.
    Done(Figures),
    /// It cannot go on; the sentence says why.
    Failed(String),
}

/// A line from the parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Order {
    /// Stop publishing and say how far you came.
    Stop,
    /// Somebody was killed at this instant.
    Killed {
        /// `CLOCK_MONOTONIC`, in nanoseconds.
        at_ns: u64,
    },
}

/// The figures of a child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Figures {
    /// Of a publisher.
    Publisher(Published),
    /// Of a subscriber.
    Subscriber(Received),
}

/// What a publisher published on each topic.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Published {
    /// One entry a topic.
    pub lanes: Vec<PublishedLane>,
}

/// What a publisher published on one topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedLane {
    /// The topic's name.
    pub topic: String,
    /// The lane that it writes, once it has published.
    pub lane: Option<u32>,
    /// The sequence of its first message: where its predecessor in the lane ended.
    pub first: u64,
    /// The sequence after its last message.
    pub next: u64,
}

/// What a subscriber received.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Received {
    /// Messages by lane, and what was wrong.
    pub tally: Tally,
    /// From publication to reception.
    pub latency: Latency,
    /// From the first to the last message.
    pub active_ns: u64,
    /// When the first message of each publisher arrived: its number, and nanoseconds of
    /// `CLOCK_MONOTONIC`.
    pub first_of: Vec<(u32, u64)>,
    /// What it felt of each kill.
    pub pauses: Vec<Pause>,
}

/// A distribution of latencies, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the messages took at most this long.
    pub p50_ns: u64,
    /// 99 in 100.
    pub p99_ns: u64,
    /// 999 in 1000.
    pub p99_9_ns: u64,
    /// The slowest one.
    pub max_ns: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back_as_they_were_written() {
        let lane =
            PublishedLane { topic: "readings".into(), lane: Some(1), first: 3, next: u64::MAX };
        for report in [
            Report::Ready,
            Report::Done(Figures::Publisher(Published { lanes: vec![lane] })),
            Report::Failed("a \"quoted\"\nsentence".into()),
        ] {
            let line = serde_json::to_string(&report).expect("reports are plain data");
            assert!(!line.contains('\n'));
            let read: Report = serde_json::from_str(&line).expect("it reads back");
            assert_eq!(read, report);
        }
    }
}
