//! When the last messages arrived, so that a subscriber can say afterwards what it felt of a kill.
//!
//! The parent tells the survivors about a kill after it happened: until the word arrives the
//! subscriber has gone on receiving. So it remembers the times of its recent arrivals in a ring and
//! answers from there, [`WINDOW_NS`] after the kill: how long until the next message, and what the
//! longest pause between two messages was.

use serde::{Deserialize, Serialize};

/// How long after a kill a pause is still put down to it.
pub const WINDOW_NS: u64 = 100_000_000;
/// Arrivals remembered: [`WINDOW_NS`] at more than a million messages a second.
const ARRIVALS_KEPT: usize = 1 << 17;

/// What a survivor felt of a kill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// The instant of the kill.
    pub at_ns: u64,
    /// From the kill to the next message.
    pub next_ns: u64,
    /// The longest time between two messages in the window after the kill.
    pub longest_ns: u64,
}

/// The recent arrivals of one subscriber and what it felt of each kill.
pub struct Timeline {
    arrivals: Vec<u64>,
    count: usize,
    open: Option<u64>,
    pauses: Vec<Pause>,
}

impl Timeline {
    /// An empty timeline.
    pub fn new() -> Self {
        Self { arrivals: vec![0; ARRIVALS_KEPT], count: 0, open: None, pauses: Vec::new() }
    }

    /// A message arrived.
    pub fn arrived(&mut self, at_ns: u64) {
        self.arrivals[self.count % ARRIVALS_KEPT] = at_ns;
        self.count += 1;
        if self.open.is_some_and(|kill| at_ns > kill + WINDOW_NS) {
            self.settle();
        }
    }

    /// Somebody was killed at that instant.
    pub fn kill(&mut self, at_ns: u64) {
        self.settle();
        self.open = Some(at_ns);
    }

    /// Answers for the last kill with what has arrived by now.
    pub fn settle(&mut self) {
        let Some(kill) = self.open.take() else { return };
        self.pauses.extend(self.pause_after(kill));
    }

    /// What this subscriber felt of each kill that it can answer for.
    pub fn pauses(&self) -> &[Pause] {
        &self.pauses
    }

    fn oldest_first(&self) -> impl Iterator<Item = u64> + '_ {
        let oldest = self.count.saturating_sub(ARRIVALS_KEPT);
        (oldest..self.count).map(|i| self.arrivals[i % ARRIVALS_KEPT])
    }

    /// `None` if nothing arrived since, or if the ring no longer reaches back to the kill.
    fn pause_after(&self, kill: u64) -> Option<Pause> {
        let (mut before, mut next, mut longest) = (None, None, 0);
        for at in self.oldest_first() {
            if at >= kill {
                next.get_or_insert(at);
                longest = longest.max(at - before?);
            }
            if at > kill + WINDOW_NS {
                break;
            }
            before = Some(at);
        }
        Some(Pause { at_ns: kill, next_ns: next? - kill, longest_ns: longest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(arrivals: impl IntoIterator<Item = u64>) -> Timeline {
        let mut timeline = Timeline::new();
        for at in arrivals {
            timeline.arrived(at);
        }
        timeline
    }

    #[test]
    fn kill_is_answered_from_what_arrived_before_the_word_of_it() {
        let mut timeline = timeline([10, 20, 30, 70, 80]);
        timeline.kill(35);
        timeline.settle();
        assert_eq!(timeline.pauses(), [Pause { at_ns: 35, next_ns: 35, longest_ns: 40 }]);
    }

    #[test]
    fn pauses_outside_the_window_do_not_count() {
        let late = 100 + WINDOW_NS;
        let mut timeline = timeline([0, 90, 110, 120]);
        timeline.kill(100);
        timeline.arrived(late - 10);
        timeline.arrived(late + 1);
        timeline.arrived(late + 5 * WINDOW_NS);
        let longest_ns = late - 10 - 120;
        assert_eq!(timeline.pauses(), [Pause { at_ns: 100, next_ns: 10, longest_ns }]);
    }

    #[test]
    fn kill_that_the_ring_no_longer_reaches_has_no_answer() {
        let mut timeline = timeline(0..2 * ARRIVALS_KEPT as u64);
        timeline.kill(5);
        timeline.settle();
        assert!(timeline.pauses().is_empty());
        assert_eq!(timeline.oldest_first().count(), ARRIVALS_KEPT);
    }

    #[test]
    fn silence_since_the_kill_has_no_answer() {
        let mut timeline = timeline([1, 2]);
        timeline.kill(5);
        timeline.settle();
        assert!(timeline.pauses().is_empty());
    }
}
