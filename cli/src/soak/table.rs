//! The result of a soak for people: tables of figures, and the verdict in a sentence.

use super::outcome::{CellOutcome, Outcome};
use crate::output::{bytes, count, duration, some, table};

/// The whole result.
pub fn render(outcome: &Outcome) -> String {
    [cells(outcome), recovery(outcome), figures(outcome), verdict(outcome)].join("\n\n")
}

fn cells(outcome: &Outcome) -> String {
    let mut table = table(
        "cell | published> | received> | bytes> | missed> | killed> | lanes taken over> \
         | slots freed> | evicted> | again> | long waits> | wake-ups> | joined, looked>",
    );
    for cell in &outcome.cells {
        let CellOutcome { name, published, received, missed, killed, .. } = cell;
        let counts = [
            cell.taken_over_lanes,
            cell.reaped_subscribers,
            cell.evictions,
            cell.redelivered,
            cell.waits,
            cell.wakes,
            cell.rounds,
        ];
        let head = [(*name).to_owned(), count(*published), count(*received), bytes(cell.bytes)];
        let counts = [*missed, *killed].into_iter().chain(counts).map(count);
        table.add_row(head.into_iter().chain(counts));
    }
    table.trim_fmt()
}

fn recovery(outcome: &Outcome) -> String {
    let mut table = table(
        "next message of a survivor after the death of | times> | p50> | p99> | p99.9> | max>",
    );
    for time in &outcome.recovery {
        let quantiles = [time.p50_ns, time.p99_ns, time.p99_9_ns, time.max_ns].map(duration);
        let head = [time.killed.to_owned(), count(time.samples)];
        table.add_row(head.into_iter().chain(quantiles));
    }
    table.trim_fmt()
}

fn figures(outcome: &Outcome) -> String {
    let kills: Vec<_> =
        outcome.kills.iter().map(|(job, kills)| some(*kills, job, &format!("{job}s"))).collect();
    let [before, after] = outcome.supervisor_kib.map(|kib| bytes(kib << 10));
    let dropped = some(outcome.recovery_dropped, "time was", "times were");
    let oldest = duration(outcome.recovery_dropped_max_ns);
    format!(
        "{} processes for {:.1} s, seed {}\n\
         killed   {} ({})\n\
         stopped  {} for 100 ms to 2.5 s, {} of them for more than 1 s\n\
         checked  {} messages, {} of one order by two subscribers each, {} held for a while\n\
         dropped  {dropped} not measured, because somebody was stopped or killed meanwhile, the \
         longest of {oldest} without the stops\n\
         machine  stood still {} for more than 1 s\n\
         memory   of the supervisor: {before} at the beginning, {after} at the end",
        outcome.processes,
        outcome.seconds,
        outcome.seed,
        count(outcome.killed),
        kills.join(", "),
        some(outcome.stops, "time", "times"),
        count(outcome.long_stops),
        count(outcome.received),
        some(outcome.blocks_compared, "block", "blocks"),
        some(outcome.views_compared, "view", "views"),
        some(outcome.machine_stood_still, "time", "times"),
    )
}

fn verdict(outcome: &Outcome) -> String {
    let early = if outcome.interrupted { " It was ended early." } else { "" };
    if outcome.ok {
        return format!(
            "PASSED: {} killed and {} stopped; {} messages published, {} received and compared: \
             none lost, torn, doubled or out of order, {} missed and reported exactly; nothing \
             is left behind.{early}",
            count(outcome.killed),
            count(outcome.stops),
            count(outcome.published),
            count(outcome.received),
            count(outcome.missed),
        );
    }
    let problems = outcome.problems.join("\n        ");
    let more = outcome.problem_count - outcome.problems.len() as u64;
    let more = if more > 0 { format!("\n        and {} more", count(more)) } else { String::new() };
    format!(
        "FAILED: {problems}{more}\n        The bus is left for inspection: {}; seed {}.{early}",
        outcome.bus, outcome.seed
    )
}
