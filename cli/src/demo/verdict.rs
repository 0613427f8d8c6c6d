//! Whether every check of the demo held: pure arithmetic over what the processes reported.
//!
//! The publishers say how far every lane was filled; what a subscriber received and what it was
//! told that it missed must add up to exactly that.

use std::collections::BTreeMap;

use super::ledger::Tally;
use super::outcome::PublisherOutcome;
use super::report::PublishedLane;

/// A topic and a lane.
pub type LaneName = (String, u32);

/// How many messages were published in each lane, by whichever publisher wrote it last.
pub fn totals(publishers: &[PublisherOutcome]) -> BTreeMap<LaneName, u64> {
    let mut totals = BTreeMap::new();
    for lane in publishers.iter().flat_map(|publisher| &publisher.lanes) {
        let Some(number) = lane.lane else { continue };
        let total = totals.entry((lane.topic.clone(), number)).or_insert(0);
        *total = lane.next.max(*total);
    }
    totals
}

/// How much of a topic a subscriber should have met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Every message since the first.
    Whole,
    /// Every message since the first that it received, in each lane.
    FromItsFirst,
    /// Nobody knows how far it came: it was killed.
    Cut,
}

/// Messages of `topic` that a subscriber neither received nor was told of.
///
/// # Errors
///
/// It received and missed more than there was.
pub fn lost(
    extent: Extent,
    topic: &str,
    tally: &Tally,
    totals: &BTreeMap<LaneName, u64>,
) -> Result<u64, String> {
    let due: u64 = match extent {
        Extent::Cut => tally.received + tally.gaps,
        Extent::Whole => of_topic(topic, totals).map(|(_, total)| total).sum(),
        Extent::FromItsFirst => of_topic(topic, totals)
            .filter_map(|(lane, total)| {
                let seen = tally.lanes.iter().find(|seen| seen.lane == lane)?;
                Some(total.saturating_sub(seen.first))
            })
            .sum(),
    };
    let known = tally.received + tally.missed;
    // Between being told that messages were missed and the next one the two may differ; death may
    // fall there.
    if extent == Extent::Cut {
        return Ok(due.saturating_sub(known));
    }
    due.checked_sub(known).ok_or_else(|| {
        format!(
            "received {} and missed {} of {due} messages, which is too many",
            tally.received, tally.missed
        )
    })
}

/// What is wrong with what a subscriber received, of which it `lost` so many.
pub fn subscriber_problems(name: &str, tally: &Tally, lost: u64) -> Vec<String> {
    let mut problems = Vec::new();
    if tally.received == 0 {
        problems.push(format!("{name} received nothing"));
    }
    if lost > 0 {
        problems.push(format!("{name} lost {lost} messages"));
    }
    if tally.faults > 0 {
        let (faults, examples) = (tally.faults, tally.examples.join("; "));
        problems.push(format!("{name} found {faults} faults, of which the first are: {examples}"));
    }
    problems
}

fn of_topic<'a>(
    topic: &'a str,
    totals: &'a BTreeMap<LaneName, u64>,
) -> impl Iterator<Item = (u32, u64)> + 'a {
    totals
        .iter()
        .filter(move |((name, _), _)| name == topic)
        .map(|((_, lane), total)| (*lane, *total))
}

/// What is wrong with how `successor` went on in the lanes of the killed `predecessor`.
pub fn takeover_problems(
    predecessor: &PublisherOutcome,
    successor: &PublisherOutcome,
) -> Vec<String> {
    let mut problems = Vec::new();
    for old in &predecessor.lanes {
        let Some(new) = successor.lanes.iter().find(|new| new.topic == old.topic) else {
            problems.push(format!("{} did not publish on {}", successor.name, old.topic));
            continue;
        };
        problems.extend(takeover_problem(old, new).map(|problem| {
            format!("{} after {} on {}: {problem}", successor.name, predecessor.name, old.topic)
        }));
    }
    problems
}

fn takeover_problem(old: &PublishedLane, new: &PublishedLane) -> Option<String> {
    if new.lane != old.lane {
        return Some("it did not take over the lane".to_owned());
    }
    if new.first < old.next {
        return Some(format!(
            "it began with message {}, though {} were committed before the kill",
            new.first, old.next
        ));
    }
    (new.next == new.first).then(|| "it published nothing".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::ledger::LaneTally;
    use super::*;

    fn publisher(name: &str, lanes: &[(&str, u32, u64, u64)]) -> PublisherOutcome {
        let lanes: Vec<_> = lanes
            .iter()
            .map(|&(topic, lane, first, next)| PublishedLane {
                topic: topic.into(),
                lane: Some(lane),
                first,
                next,
            })
            .collect();
        PublisherOutcome { name: name.into(), pid: 1, state: "finished", lanes, published: 0 }
    }

    fn tally(lanes: &[(u32, u64, u64)], missed: u64) -> Tally {
        let lanes: Vec<_> = lanes
            .iter()
            .map(|&(lane, first, received)| LaneTally {
                lane,
                first,
                next: first + received,
                received,
            })
            .collect();
        let received = lanes.iter().map(|lane| lane.received).sum();
        Tally { lanes, received, gaps: missed, missed, faults: 0, examples: Vec::new() }
    }

    fn two_lanes() -> BTreeMap<LaneName, u64> {
        totals(&[
            publisher("1", &[("a", 0, 0, 100), ("b", 1, 0, 7)]),
            publisher("2", &[("a", 1, 0, 40), ("b", 0, 0, 5)]),
            publisher("3", &[("a", 1, 44, 90), ("b", 0, 6, 9)]),
        ])
    }

    #[test]
    fn last_publisher_of_a_lane_says_how_far_it_is_filled() {
        let totals: Vec<_> = two_lanes().into_values().collect();
        assert_eq!(totals, [100, 90, 9, 7]);
    }

    #[test]
    fn whole_topic_must_add_up_exactly() {
        let lost =
            |lanes: &[_], missed| lost(Extent::Whole, "a", &tally(lanes, missed), &two_lanes());
        assert_eq!(lost(&[(0, 0, 100), (1, 0, 90)], 0), Ok(0));
        assert_eq!(lost(&[(0, 0, 100), (1, 0, 80)], 10), Ok(0));
        assert_eq!(lost(&[(0, 0, 100), (1, 0, 80)], 9), Ok(1));
        assert_eq!(lost(&[(0, 0, 100)], 0), Ok(90));
        assert!(lost(&[(0, 0, 100), (1, 0, 90)], 1).is_err());
    }

    #[test]
    fn late_subscriber_answers_for_what_follows_its_first_message() {
        let lost = |lanes: &[_]| lost(Extent::FromItsFirst, "a", &tally(lanes, 0), &two_lanes());
        assert_eq!(lost(&[(0, 60, 40), (1, 50, 40)]), Ok(0));
        assert_eq!(lost(&[(0, 60, 40)]), Ok(0));
        assert_eq!(lost(&[(0, 60, 39), (1, 50, 40)]), Ok(1));
    }

    #[test]
    fn each_fault_of_a_subscriber_is_a_problem() {
        assert!(subscriber_problems("s", &tally(&[(0, 0, 1)], 0), 0).is_empty());
        assert_eq!(subscriber_problems("s", &tally(&[], 0), 0), ["s received nothing"]);
        assert_eq!(subscriber_problems("s", &tally(&[(0, 0, 1)], 0), 2), ["s lost 2 messages"]);
        let mut torn = tally(&[(0, 0, 1)], 0);
        torn.faults = 9;
        torn.examples.push("torn".into());
        assert!(subscriber_problems("s", &torn, 0)[0]
            .contains("9 faults, of which the first are: torn"));
    }

    #[test]
    fn takeover_behind_the_last_commit_is_no_problem() {
        let old = publisher("2", &[("a", 1, 0, 40)]);
        assert!(takeover_problems(&old, &publisher("3", &[("a", 1, 44, 90)])).is_empty());
        assert!(takeover_problems(&old, &publisher("3", &[("a", 1, 40, 90)])).is_empty());
    }

    #[test]
    fn each_bad_takeover_is_named() {
        let old = publisher("2", &[("a", 1, 0, 40)]);
        let problem = |lanes: &[_]| takeover_problems(&old, &publisher("3", lanes)).join("; ");
        assert!(problem(&[("a", 1, 39, 90)]).contains("though 40 were committed"));
        assert!(problem(&[("a", 0, 44, 90)]).contains("did not take over"));
        assert!(problem(&[("a", 1, 44, 44)]).contains("published nothing"));
        assert!(problem(&[]).contains("did not publish on a"));
    }
}
