//! The end of the demo: what the children reported becomes the outcome.

use std::collections::BTreeMap;

use anyhow::Result;
use windlass::{Bus, TopicInfo};

use super::data::{self, DataSet};
use super::fleet::{Fleet, Member, State};
use super::outcome::{Kill, Outcome, PublisherOutcome, SubscriberOutcome, TopicOutcome};
use super::report::Received;
use super::scenario::{Blow, Role};
use super::topics;
use super::verdict::{self, Extent, LaneName};
use crate::args::DemoArguments;

/// A child and what it was there for.
type Actor<'a> = (&'a Member, Role);

/// Adds up what everybody reported and what the topics counted, and checks all of it.
pub fn outcome(
    arguments: &DemoArguments,
    fleet: &Fleet,
    roles: &[Role],
    blows: &[Blow],
    bus: &Bus,
) -> Result<Outcome> {
    let cast: Vec<Actor<'_>> = fleet.members().iter().zip(roles.iter().copied()).collect();
    let publishers: Vec<_> = cast.iter().filter_map(publisher).collect();
    let totals = verdict::totals(&publishers);
    let mut problems = Vec::new();
    let subscribers =
        cast.iter().filter_map(|actor| subscriber(actor, &totals, &mut problems)).collect();
    for blow in blows {
        let [old, new] = [blow.victim, blow.replacement].map(|i| publisher(&cast[i]));
        if let (Some(old), Some(new)) = (old, new) {
            problems.extend(verdict::takeover_problems(&old, &new));
        }
    }
    let topics = counted(bus, &mut problems)?;
    let outcome = Outcome {
        seconds: arguments.seconds,
        data: data::NAME.to_owned(),
        rows: DataSet::embedded()?.rows(),
        kills: blows.iter().map(|blow| kill(blow, &cast)).collect(),
        publishers,
        subscribers,
        topics,
        ..Outcome::default()
    };
    Ok(outcome.judged(problems))
}

fn publisher(&(member, role): &Actor<'_>) -> Option<PublisherOutcome> {
    let Role::Publisher { .. } = role else { return None };
    let lanes = member.published().map(|published| published.lanes.clone()).unwrap_or_default();
    Some(PublisherOutcome {
        name: member.name.clone(),
        pid: member.pid,
        state: member.state.word(),
        published: lanes.iter().map(|lane| lane.next - lane.first).sum(),
        lanes,
    })
}

fn subscriber(
    &(member, role): &Actor<'_>,
    totals: &BTreeMap<LaneName, u64>,
    problems: &mut Vec<String>,
) -> Option<SubscriberOutcome> {
    let Role::Subscriber { topic, pace, late } = role else { return None };
    let name = &member.name;
    let Some(Received { tally, latency, active_ns, .. }) = member.received() else {
        problems.push(format!("{name} never reported anything"));
        return None;
    };
    let extent = match (&member.state, late) {
        (State::Killed, _) => Extent::Cut,
        (_, true) => Extent::FromItsFirst,
        (_, false) => Extent::Whole,
    };
    let lost = verdict::lost(extent, topic, tally, totals).unwrap_or_else(|sentence| {
        problems.push(format!("{name} {sentence}"));
        0
    });
    problems.extend(verdict::subscriber_problems(name, tally, lost));
    Some(SubscriberOutcome {
        name: name.clone(),
        pid: member.pid,
        state: member.state.word(),
        topic,
        wait: pace.word(),
        late,
        messages: tally.received,
        rate: per_second(tally.received, *active_ns),
        latency: *latency,
        lost,
        missed: tally.missed,
        faults: tally.faults,
    })
}

fn per_second(messages: u64, active_ns: u64) -> u64 {
    (u128::from(messages) * 1_000_000_000 / u128::from(active_ns.max(1))) as u64
}

/// What a kill meant for the others.
fn kill(blow: &Blow, cast: &[Actor<'_>]) -> Kill {
    let (victim, replacement) = (cast[blow.victim], cast[blow.replacement]);
    let receivers = || cast.iter().filter_map(|(member, _)| member.received());
    let felt = || receivers().flat_map(|r| &r.pauses).filter(|pause| pause.at_ns == blow.at_ns);
    let first = match replacement.1 {
        Role::Publisher { source } => receivers()
            .flat_map(|received| &received.first_of)
            .filter(|(of, _)| *of == source)
            .map(|(_, at_ns)| *at_ns)
            .min(),
        Role::Subscriber { .. } => replacement
            .0
            .received()
            .and_then(|received| received.first_of.iter().map(|(_, at_ns)| *at_ns).min()),
    };
    Kill {
        victim: victim.0.name.clone(),
        pid: victim.0.pid,
        after_ms: blow.after.as_millis() as u64,
        next_message_ns: felt().map(|pause| pause.next_ns).max(),
        longest_pause_ns: felt().map(|pause| pause.longest_ns).max(),
        replacement: replacement.0.name.clone(),
        replaced_after_ns: first.map(|at_ns| at_ns.saturating_sub(blow.at_ns)),
    }
}

/// Has what the dead left repaired, as `windlass doctor` does, and asks the topics what they
/// counted.
fn counted(bus: &Bus, problems: &mut Vec<String>) -> Result<Vec<TopicOutcome>> {
    bus.repair()?;
    let mut outcomes = Vec::new();
    for topic in topics::ALL {
        let info = bus.inspect(topic)?;
        problems.extend(leftovers(&info).into_iter().map(|what| format!("{topic}: {what}")));
        outcomes.push(TopicOutcome {
            name: info.name,
            taken_over_lanes: info.taken_over_lanes,
            reaped_subscribers: info.reaped_subscribers,
            waits_for_room: info.publishers.iter().map(|publisher| publisher.full).sum(),
            wakes: info.wakes,
        });
    }
    Ok(outcomes)
}

/// What is wrong with a topic after everybody is gone: one publisher of each was killed and
/// replaced, and on the reliable topic one subscriber.
fn leftovers(info: &TopicInfo) -> Vec<String> {
    let mut problems = Vec::new();
    if info.taken_over_lanes != 1 {
        problems.push(format!("{} lanes were taken over, expected 1", info.taken_over_lanes));
    }
    let killed = u64::from(info.name == topics::RELIABLE);
    if info.reaped_subscribers != killed {
        let reaped = info.reaped_subscribers;
        problems.push(format!("{reaped} dead subscribers were freed, expected {killed}"));
    }
    if !info.subscribers.is_empty() {
        problems.push(format!("{} subscriber slots are left", info.subscribers.len()));
    }
    let held = info.publishers.iter().filter(|publisher| publisher.alive).count();
    if held > 0 {
        problems.push(format!("{held} lanes are still held"));
    }
    problems
}
