//! The end of a soak: publishing stops, subscribers read to the end, and what everybody counted must
//! be the same.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use windlass::schemas::bench_capnp::sample;
use windlass::{Bus, Raw, TopicInfo};

use super::board::Phase;
use super::cells::{Cell, Kind, CELLS};
use super::crew::Tally;
use super::docket;
use super::leftovers;
use super::place::{Holdings, Place};
use super::publisher;
use super::sabotage::Sabotage;
use super::scenario::Run;
use crate::{info, queue};

/// Processes that have not finished this long after they were told to never will.
const FINISH_MAX: Duration = Duration::from_secs(60);
/// Statistics of a topic may be behind by a count that its owner did not live to make.
const UNCOUNTED_MAX: u64 = 2;
/// Kills that nobody made, in a test of the test, and the cell in which nobody made them.
const PHANTOMS: u64 = UNCOUNTED_MAX + 1;
const PHANTOM_CELL: usize = 2;

/// What one cell came to.
#[derive(Clone, Debug, Default)]
pub struct Total {
    pub tally: Tally,
    /// Messages in its lanes.
    pub published: u64,
    pub taken_over: u64,
    pub reaped: u64,
    pub evictions: u64,
    pub wakes: u64,
    /// Messages of a queue that were delivered again.
    pub redelivered: u64,
}

/// Makes the topic of a cell.
pub fn open(cell: &Cell, bus: &Bus) -> Result<()> {
    match cell.options.kind {
        Kind::Raw => cell.builder::<Raw>(bus).create().map(drop)?,
        Kind::Typed => cell.builder::<sample::Owned>(bus).create().map(drop)?,
        Kind::Queue => cell.queue(bus).create().map(drop)?,
        Kind::None => {}
    }
    Ok(())
}

/// A topic or queue as `windlass info` shows it, or why it cannot be shown.
pub fn describe(place: &Place, cell: &Cell) -> String {
    let shown = place.open().and_then(|bus| match cell.has_queue() {
        true => queue::describe(&bus, cell.name),
        false => info::describe(&bus, cell.name),
    });
    shown.unwrap_or_else(|error| format!("{error:#}"))
}

/// Ends the run; what each cell came to.
pub fn end(run: &mut Run, held: Holdings, sabotage: &[Sabotage]) -> Result<Vec<Total>> {
    run.ending = true;
    if sabotage.contains(&Sabotage::Phantom) {
        run.blows.publishers[PHANTOM_CELL] += PHANTOMS;
        run.blows.subscribers[PHANTOM_CELL] += PHANTOMS;
    }
    run.release();
    if !run.broken {
        if let Err(error) = settle(run, sabotage) {
            run.fault(format!("the run cannot be ended: {error:#}"));
            run.broken = true;
        }
    }
    let totals = totals(run);
    if !run.broken {
        check_reaped(run, &totals);
        wait_for_holdings(run, &held)?;
    }
    Ok(totals)
}

fn settle(run: &mut Run, sabotage: &[Sabotage]) -> Result<()> {
    run.crew.board.set_phase(Phase::Stop);
    let gone = |run: &Run| run.crew.members.iter().all(|one| one.job.stays() || !one.lives());
    if !finished(run, "stop", gone)? {
        return Ok(());
    }
    let bus = run.place.open()?;
    run.crew.board.set_phase(Phase::Last);
    for (index, cell) in CELLS.iter().enumerate().filter(|(_, cell)| cell.has_topic()) {
        let board = &run.crew.board;
        let faults = match cell.options.kind {
            Kind::Typed => publisher::last::<sample::Owned>(&bus, board, index),
            _ => publisher::last::<Raw>(&bus, board, index),
        };
        let faults = faults.with_context(|| format!("on topic {}", cell.name))?;
        faults.into_iter().for_each(|fault| run.fault(format!("{}: {fault}", cell.name)));
    }
    for cell in CELLS.iter().filter(|cell| cell.has_queue()) {
        cell.queue(&bus).open_existing()?.close();
    }
    run.crew.board.set_phase(Phase::Settle);
    let staying = run.crew.members.iter().filter(|one| one.job.stays()).count();
    if !finished(run, "read to the end", |run| run.settled.len() >= staying)? {
        return Ok(());
    }
    for (index, cell) in CELLS.iter().enumerate().filter(|(_, cell)| cell.has_topic()) {
        let info = bus.inspect(cell.name)?;
        for fault in compare(run, index, &info) {
            run.fault(format!("{}: {fault}", cell.name));
        }
    }
    drop(bus);
    run.crew.board.set_phase(Phase::Leave);
    if finished(run, "leave", |run| run.crew.members.iter().all(|one| !one.lives()))? {
        let bus = run.place.open()?;
        bus.repair().context("cannot repair")?;
        for (index, cell) in CELLS.iter().enumerate().filter(|(_, cell)| cell.has_queue()) {
            for fault in compare_queue(run, index, &bus)? {
                run.fault(format!("{}: {fault}", cell.name));
            }
        }
        drop(bus);
        let faults = leftovers::check(&run.place, sabotage)?;
        faults.into_iter().for_each(|fault| run.fault(fault));
    }
    Ok(())
}

/// What a queue counted, when everybody has left.
fn compare_queue(run: &Run, cell: usize, bus: &Bus) -> Result<Vec<String>> {
    let kills = (run.blows.subscribers[cell], run.blows.by_cell_subscribers(cell));
    docket::close(bus, &run.crew.board, cell, run.crew.tally(cell), kills)
}

/// Waits until everybody has done what is asked; says who has not.
fn finished(run: &mut Run, what: &str, done: impl Fn(&Run) -> bool) -> Result<bool> {
    if run.wait(FINISH_MAX, &done)? {
        return Ok(true);
    }
    let settled = |seat| run.settled.iter().any(|(other, ..)| *other == seat);
    let late = run.crew.members.iter().filter(|one| one.lives() && !settled(one.seat));
    let late: Vec<_> = late.map(|one| one.name()).collect();
    let seconds = FINISH_MAX.as_secs();
    run.fault(format!("not everybody did {what} within {seconds} s: {}", late.join(", ")));
    run.broken = true;
    Ok(false)
}

/// What a topic counted against what its processes noted, when all is read and nobody has left.
fn compare(run: &Run, cell: usize, info: &TopicInfo) -> Vec<String> {
    let mut faults = Vec::new();
    let (board, tally) = (&run.crew.board, run.crew.tally(cell));
    let mut published = 0;
    for publisher in &info.publishers {
        let lane = publisher.lane as usize;
        let (committed, tried) = (board.committed(cell, lane), board.tried(cell, lane));
        if publisher.published != committed || publisher.published != tried {
            faults.push(format!(
                "lane {lane} has {} messages, {committed} were committed",
                publisher.published
            ));
        }
        published += publisher.published;
    }
    let (sent, lanes) = (tally.sent + info.publishers.len() as u64, CELLS[cell].lanes());
    if info.publishers.len() != lanes {
        faults.push(format!("{} of {lanes} lanes are in use", info.publishers.len()));
    }
    // Each of those that were killed may have had messages of one call committed and not noted.
    let burst = u64::from(CELLS[cell].options.burst);
    if published < sent || published > sent + run.blows.kills[cell] * burst {
        let kills = run.blows.kills[cell];
        faults.push(format!("{published} messages for {sent} noted by publishers, {kills} killed"));
    }
    faults.extend(compare_subscribers(run, cell, info));
    let (told, killed) = (tally.evicted, run.blows.by_cell_subscribers(cell));
    if info.evictions < told || info.evictions > told + killed {
        faults.push(format!(
            "{} subscribers were evicted, {told} were told so and {killed} killed",
            info.evictions
        ));
    }
    let publishers = run.blows.publishers[cell];
    let most = run.blows.kills[cell] + run.blows.of("inspector");
    if info.taken_over_lanes + UNCOUNTED_MAX < publishers || info.taken_over_lanes > most {
        faults.push(format!(
            "{} lanes were taken over, {publishers} publishers were killed in theirs",
            info.taken_over_lanes
        ));
    }
    faults
}

/// The slots of those who live, against what they said.
fn compare_subscribers(run: &Run, cell: usize, info: &TopicInfo) -> Vec<String> {
    let mut faults = Vec::new();
    let mut here = 0;
    for &(seat, slot, received, missed) in &run.settled {
        let member = &run.crew.members[seat];
        if member.cell != cell {
            continue;
        }
        here += 1;
        let found = info.subscribers.iter().find(|subscriber| subscriber.slot == slot);
        let counted = found.map(|subscriber| (subscriber.received, subscriber.missed));
        if counted != Some((received, missed)) {
            faults.push(format!(
                "{} received {received} and missed {missed}, its slot {slot} says {counted:?}",
                member.name()
            ));
        }
    }
    let living = info.subscribers.iter().filter(|subscriber| subscriber.alive).count();
    if living != here {
        faults.push(format!("{living} subscribers live, {here} were started"));
    }
    faults
}

/// What each cell came to, as far as can be seen.
fn totals(run: &mut Run) -> Vec<Total> {
    let bus = run.place.open();
    let total = |cell: usize| {
        let tally = run.crew.tally(cell);
        let (board, name) = (&run.crew.board, CELLS[cell].name);
        let published = (0..CELLS[cell].lanes()).map(|lane| board.committed(cell, lane)).sum();
        if CELLS[cell].has_queue() {
            let info = bus.as_ref().ok().and_then(|bus| bus.inspect_queue(name).ok());
            let counted = info.map(|info| (info.reaped_consumers, info.wakes, info.redelivered));
            let (reaped, wakes, redelivered) = counted.unwrap_or_default();
            return Total { tally, published, reaped, wakes, redelivered, ..Total::default() };
        }
        let info = bus.as_ref().ok().and_then(|bus| bus.inspect(name).ok());
        let Some(info) = info else { return Total { tally, ..Total::default() } };
        Total {
            tally,
            published,
            redelivered: 0,
            taken_over: info.taken_over_lanes,
            reaped: info.reaped_subscribers,
            evictions: info.evictions,
            wakes: info.wakes,
        }
    };
    (0..CELLS.len()).map(total).collect()
}

/// After the repair, every slot of the dead was freed.
fn check_reaped(run: &mut Run, totals: &[Total]) {
    for (cell, total) in totals.iter().enumerate().filter(|(cell, _)| CELLS[*cell].has_topic()) {
        let joined = run.blows.subscribers[cell];
        let most = run.blows.by_cell_subscribers(cell);
        if total.reaped + UNCOUNTED_MAX < joined || total.reaped > most {
            let (name, reaped) = (CELLS[cell].name, total.reaped);
            run.fault(format!(
                "{name}: {reaped} slots of dead subscribers were freed, {joined} were killed in \
                 theirs and {most} altogether"
            ));
        }
    }
}

/// This process holds what it held at the beginning, once the threads that listened are gone.
fn wait_for_holdings(run: &mut Run, held: &Holdings) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let now = Holdings::now(&run.place.path)?;
        if now == *held {
            return Ok(());
        }
        if Instant::now() >= deadline {
            run.fault(format!("the supervisor held {held:?} at the beginning and {now:?} now"));
            return Ok(());
        }
        run.listen(Instant::now() + Duration::from_millis(5))?;
    }
}
