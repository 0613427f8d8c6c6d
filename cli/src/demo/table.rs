//! The result of the demo for people: tables of what everybody did, and the verdict in a sentence.

use super::outcome::{Outcome, SubscriberOutcome};
use super::report::PublishedLane;
use crate::output::{count, duration, table};

/// The whole result.
pub fn render(outcome: &Outcome) -> String {
    let parts = [publishers, subscribers, kills, topics, verdict];
    parts.map(|part| part(outcome)).join("\n\n")
}

fn publishers(outcome: &Outcome) -> String {
    let mut table = table("publisher | published> | | lanes, and sequences first to last");
    for publisher in &outcome.publishers {
        let lane = |lane: &PublishedLane| {
            let number = lane.lane.map_or("?".to_owned(), |number| number.to_string());
            let (first, last) = (count(lane.first), count(lane.next.saturating_sub(1)));
            format!("{} {number}: {first} to {last}", lane.topic)
        };
        let lanes: Vec<_> = publisher.lanes.iter().map(lane).collect();
        let killed = publisher.state == "killed";
        // A killed publisher's last report is older than its last message.
        let about = if killed { "at least " } else { "" };
        table.add_row([
            publisher.name.clone(),
            format!("{about}{}", count(publisher.published)),
            if killed { publisher.state } else { "" }.to_owned(),
            lanes.join(", "),
        ]);
    }
    table.trim_fmt()
}

fn subscribers(outcome: &Outcome) -> String {
    let mut table = table(
        "subscriber | topic | waits by | messages> | per s> | p50> | p99> | p99.9> | max> \
         | lost> | missed> |",
    );
    for subscriber in &outcome.subscribers {
        table.add_row(subscriber_row(subscriber));
    }
    table.trim_fmt()
}

fn subscriber_row(subscriber: &SubscriberOutcome) -> Vec<String> {
    let latency = subscriber.latency;
    let mut row = vec![
        subscriber.name.clone(),
        subscriber.topic.to_owned(),
        subscriber.wait.to_owned(),
        count(subscriber.messages),
        count(subscriber.rate),
    ];
    let quantiles = [latency.p50_ns, latency.p99_ns, latency.p99_9_ns, latency.max_ns];
    row.extend(quantiles.map(duration));
    row.extend([subscriber.lost, subscriber.missed].map(count));
    row.extend((subscriber.state == "killed").then(|| "killed".to_owned()));
    row
}

fn kills(outcome: &Outcome) -> String {
    let mut table = table(
        "killed | at> | next message for the others> | longest pause in 100 ms> | replaced by \
         | at work after>",
    );
    let time = |ns: Option<u64>| ns.map_or("?".to_owned(), duration);
    for kill in &outcome.kills {
        table.add_row([
            kill.victim.clone(),
            duration(kill.after_ms * 1_000_000),
            time(kill.next_message_ns),
            time(kill.longest_pause_ns),
            kill.replacement.clone(),
            time(kill.replaced_after_ns),
        ]);
    }
    table.trim_fmt()
}

fn topics(outcome: &Outcome) -> String {
    let mut table =
        table("topic | lanes taken over> | dead subscribers freed> | waits for room> | wake-ups>");
    for topic in &outcome.topics {
        let counters =
            [topic.taken_over_lanes, topic.reaped_subscribers, topic.waits_for_room, topic.wakes];
        table.add_row(std::iter::once(topic.name.clone()).chain(counters.map(count)));
    }
    table.trim_fmt()
}

fn verdict(outcome: &Outcome) -> String {
    if !outcome.ok {
        return format!("FAILED: {}.", outcome.problems.join(".\n        "));
    }
    format!(
        "PASSED: {} messages received, each compared with the recorded data\n        \
         ({} rows of {});\n        \
         0 lost; {} missed by the slow subscriber, which was told so exactly.",
        count(outcome.checked),
        count(outcome.rows as u64),
        outcome.data,
        count(outcome.missed),
    )
}
