//! Nothing is left: after a repair, nodes, slots, pins, lanes, segments, files and temporaries are
//! what they were before anybody was killed.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use windlass::schemas::bench_capnp::sample;
use windlass::{Bus, Raw, RepairReport, Start};

use super::cells::{Cell, Kind, CELLS};
use super::churn;
use super::parcel::{Draft, How, Parcel};
use super::place::Place;
use super::record::{Author, Record};
use super::sabotage::Sabotage;

/// Bytes of the messages that fill a lane.
const FILL_BYTES: usize = 900;

/// Everybody has left: repairs, and says what is left all the same.
pub fn check(place: &Place, sabotage: &[Sabotage]) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let bus = place.open()?;
    if sabotage.contains(&Sabotage::Leak) {
        let topic = CELLS[0].builder::<Raw>(&place.open()?).open()?;
        std::mem::forget(topic.subscriber(Start::Oldest)?);
    }
    bus.repair().context("cannot repair")?;
    for topic in bus.topics()?.iter().filter(|topic| topic.starts_with(churn::PREFIX)) {
        bus.remove_topic(topic)?;
    }
    let again = bus.repair()?;
    if again != RepairReport::default() {
        faults.push(format!("a second repair found {again:?}"));
    }
    let nodes = bus.nodes();
    if nodes.len() != 1 || nodes[0].node != bus.node() {
        faults.push(format!("nodes are left: {nodes:?}"));
    }
    for cell in CELLS.iter().filter(|cell| cell.has_topic()) {
        let left = match cell.options.kind {
            Kind::Typed => check_topic::<sample::Owned>(&bus, cell),
            _ => check_topic::<Raw>(&bus, cell),
        };
        let left = left.with_context(|| format!("on topic {}", cell.name))?;
        faults.extend(left.into_iter().map(|what| format!("{}: {what}", cell.name)));
    }
    if sabotage.contains(&Sabotage::Files) {
        for folder in [place.path.clone(), place.path.join(format!("{}.topic", CELLS[1].name))] {
            std::fs::write(folder.join("stray"), "").context("cannot leave a file behind")?;
        }
    }
    faults.extend(check_files(&place.path)?);
    Ok(faults)
}

fn check_topic<P: Parcel>(bus: &Bus, cell: &Cell) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let info = bus.inspect(cell.name)?;
    if !info.subscribers.is_empty() {
        faults.push(format!("subscribers are left: {:?}", info.subscribers));
    }
    let held: Vec<_> = info.publishers.iter().filter(|publisher| publisher.held).collect();
    if !held.is_empty() {
        faults.push(format!("lanes are held: {held:?}"));
    }
    let topic = cell.builder::<P>(bus).open_existing()?;
    // All slots can be taken at once, and none has a pin of an owner before it.
    let subscribers: windlass::Result<Vec<_>> =
        (0..cell.options.subscribers_max).map(|_| topic.subscriber(Start::Latest)).collect();
    match subscribers {
        Err(error) => faults.push(format!("not every slot can be taken: {error}")),
        Ok(subscribers) => {
            // A newcomer stands in one segment of each lane, or, where the order says whose turn it
            // is, in none.
            let stands = if cell.options.ordered { 0 } else { info.publishers.len() as u64 };
            let pinned = topic.info()?.subscribers;
            if pinned.len() != subscribers.len() || pinned.iter().any(|one| one.pins != stands) {
                faults.push(format!("newcomers have pins that are not theirs: {pinned:?}"));
            }
        }
    }
    faults.extend(fill::<P>(&topic, cell)?);
    Ok(faults)
}

/// All lanes can be taken at once, and all their segments can be written twice over.
fn fill<P: Parcel>(topic: &windlass::Topic<P>, cell: &Cell) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let publishers: windlass::Result<Vec<_>> =
        (0..cell.lanes()).map(|_| topic.publisher()).collect();
    let bytes = u64::from(cell.options.segments) * cell.options.segment_bytes;
    for mut publisher in publishers.context("not every lane can be taken")? {
        let before = lane_info(topic, publisher.lane())?;
        for _ in 0..2 * bytes / FILL_BYTES as u64 + 1 {
            let record = Record {
                cell: 0,
                lane: publisher.lane(),
                lane_sequence: publisher.sequence(),
                author: Author::new(u16::MAX, 1, 0),
                number: 0,
            };
            let draft = Draft { record, len: FILL_BYTES, how: How::Copy, torn: false };
            if let Err(error) = P::send(&mut publisher, &draft, Duration::ZERO) {
                faults.push(format!("a topic without subscribers refuses: {error}"));
                break;
            }
        }
        let taken = lane_info(topic, publisher.lane())?.saturating_sub(before);
        if taken < u64::from(cell.options.segments) {
            let lane = publisher.lane();
            faults.push(format!("lane {lane} went through {taken} segments in two laps"));
        }
    }
    Ok(faults)
}

/// The segments that were taken in a lane.
fn lane_info<P: Parcel>(topic: &windlass::Topic<P>, lane: u32) -> Result<u64> {
    let info = topic.info()?;
    let lane = info.publishers.iter().find(|publisher| publisher.lane == lane);
    Ok(lane.map_or(0, |lane| lane.segments_taken))
}

fn check_files(bus: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut expected: BTreeSet<String> = ["bus".to_owned()].into();
    for cell in CELLS.iter().filter(|cell| cell.has_topic()) {
        let folder = format!("{}.topic", cell.name);
        let mut files: BTreeSet<String> =
            (0..cell.lanes()).map(|lane| format!("lane-{lane}")).collect();
        files.insert("control".to_owned());
        if cell.options.ordered {
            files.insert("order".to_owned());
        }
        let found = listing(&bus.join(&folder))?;
        if found != files {
            faults.push(format!("topic {} has the files {found:?}", cell.name));
        }
        expected.insert(folder);
    }
    for cell in CELLS.iter().filter(|cell| cell.has_queue()) {
        let folder = format!("{}.queue", cell.name);
        let found = listing(&bus.join(&folder))?;
        if found != BTreeSet::from(["control", "data"].map(str::to_owned)) {
            faults.push(format!("queue {} has the files {found:?}", cell.name));
        }
        expected.insert(folder);
    }
    let found = listing(bus)?;
    if found != expected {
        faults.push(format!("the bus has the files {found:?}"));
    }
    Ok(faults)
}

fn listing(folder: &Path) -> Result<BTreeSet<String>> {
    let entries =
        std::fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        Ok(entry?.file_name().to_string_lossy().into_owned())
    };
    entries.map(name).collect()
}
