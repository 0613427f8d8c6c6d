//! The inspector of the soak: lists, inspects and repairs the whole bus from outside, as people do
//! with the commands, and checks that what it is told can be.

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use windlass::{Bus, ErrorKind, TopicInfo};

use super::board::{Phase, Word};
use super::cells::CELLS;
use super::child::Child;

/// Between two rounds.
const REST: Duration = Duration::from_millis(15);

/// Looks and repairs until the run is over.
pub fn run(child: &Child) -> Result<()> {
    let path = child.bus.path().display().to_string();
    while child.phase() == Phase::Run {
        // From here on it may hold something of any topic.
        child.set(Word::Joined, 1);
        // As each of the commands does: a node that comes and goes.
        let bus = Bus::options().existing().open(&path)?;
        look(child, &bus)?;
        match bus.repair() {
            Ok(_) => {}
            // A topic was removed meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).context("cannot repair"),
        }
        drop(bus);
        child.set(Word::Joined, 0);
        child.add(Word::Rounds, 1);
        child.beat();
        thread::sleep(REST);
    }
    Ok(())
}

fn look(child: &Child, bus: &Bus) -> Result<()> {
    if !bus.nodes().iter().any(|node| node.node == bus.node() && node.alive) {
        child.fault(format!("node {} is not among those that live", bus.node()));
    }
    for topic in bus.topics()? {
        let cell = CELLS.iter().position(|cell| cell.name == topic);
        let committed = cell.map(|cell| lanes(cell, |lane| child.board.committed(cell, lane)));
        let info = match bus.inspect(&topic) {
            Ok(info) => info,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot inspect {topic}")),
        };
        if let (Some(cell), Some(committed)) = (cell, committed) {
            let tried = lanes(cell, |lane| child.board.tried(cell, lane));
            compare(child, &info, &committed, &tried);
        }
    }
    for queue in bus.queues()? {
        let info = bus.inspect_queue(&queue).with_context(|| format!("cannot inspect {queue}"))?;
        let chunks: u32 = info.classes.iter().map(|class| class.chunks).sum();
        if info.died > 0 || info.depth > chunks {
            child.fault(format!("queue {queue} cannot be as it is shown: {info:?}"));
        }
    }
    Ok(())
}

fn lanes(cell: usize, word: impl Fn(usize) -> u64) -> Vec<u64> {
    (0..CELLS[cell].lanes()).map(word).collect()
}

/// What is said of each lane lies between what was committed before and tried after.
fn compare(child: &Child, info: &TopicInfo, committed: &[u64], tried: &[u64]) {
    for publisher in &info.publishers {
        let (lane, published) = (publisher.lane as usize, publisher.published);
        let Some((least, most)) = committed.get(lane).zip(tried.get(lane)) else {
            child.fault(format!("topic {} has a lane {lane}", info.name));
            continue;
        };
        // A publisher that rolls all the time may leave nothing to look at, which is said as 0.
        if published != 0 && (published < *least || published > *most) {
            child.fault(format!(
                "topic {} is said to have {published} messages in lane {lane}, between {least} \
                 and {most} were published",
                info.name
            ));
        }
    }
}
