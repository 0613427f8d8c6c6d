//! Where the bus of one run lies, and that nothing is left there.

use crate::role::{self, PUBLISHERS, SEGMENTS, SEGMENT_BYTES, SPARE, TOPIC};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use windlass::{Bus, RepairReport, Start};

/// A folder of its own in shared memory, removed at the end.
pub struct Place {
    folder: PathBuf,
}

impl Place {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Relaxed: only a number that nobody else gets.
        let count = COUNT.fetch_add(1, Relaxed);
        let name = format!("/dev/shm/windlass-kill-{}-{count}", std::process::id());
        std::fs::create_dir(&name).expect("the folder is new");
        Self { folder: PathBuf::from(name) }
    }

    /// What this process still has mapped or open of it.
    pub fn held(&self) -> Vec<String> {
        let name = self.folder.to_str().expect("it was made of text");
        let inside = |path: &str| path.contains(&format!("{name}/"));
        let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux has it");
        let mut held: Vec<String> =
            maps.lines().filter(|line| inside(line)).map(str::to_owned).collect();
        // A descriptor of another thread may be closed while this looks.
        let open = std::fs::read_dir("/proc/self/fd").expect("Linux has it").flatten();
        let targets = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        held.extend(targets.map(|path| path.display().to_string()).filter(|path| inside(path)));
        held
    }

    pub fn bus(&self) -> PathBuf {
        self.folder.join("bus")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn listing(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).expect("the folder can be listed");
    let name = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.expect("the folder can be listed").file_name().to_string_lossy().into_owned()
    };
    entries.map(name).collect()
}

type Faults = Vec<String>;

fn expect(faults: &mut Faults, what: &str, good: bool, found: impl std::fmt::Debug) {
    if !good {
        faults.push(format!("{what}: {found:?}"));
    }
}

/// Checks that after a repair nothing of anybody but `desk` is left, and that everything is free
/// again.
pub fn check_leftovers(path: &Path, kind: &str, desk: &Bus) -> windlass::Result<Faults> {
    let mut faults = Faults::new();
    desk.repair()?;
    if desk.topics()?.iter().any(|topic| topic == SPARE) {
        desk.remove_topic(SPARE)?;
    }
    let again = desk.repair()?;
    expect(&mut faults, "a second repair found", again == RepairReport::default(), again);
    let nodes = desk.nodes();
    let alone = nodes.len() == 1 && nodes[0].node == desk.node();
    expect(&mut faults, "nodes left", alone, &nodes);
    let info = desk.inspect(TOPIC)?;
    let subscribers = &info.subscribers;
    expect(&mut faults, "subscribers left", subscribers.is_empty(), subscribers);
    let held: Vec<_> = info.publishers.iter().filter(|publisher| publisher.held).collect();
    expect(&mut faults, "lanes held", held.is_empty(), held);
    check_files(path, kind, info.publishers.len(), &mut faults)?;
    check_capacity(kind, desk, &mut faults)?;
    Ok(faults)
}

fn check_files(path: &Path, kind: &str, lanes: usize, faults: &mut Faults) -> windlass::Result<()> {
    let folder = format!("{TOPIC}.topic");
    let mut files: BTreeSet<String> = (0..lanes).map(|lane| format!("lane-{lane}")).collect();
    files.insert("control".into());
    if role::delivery(kind).ordered {
        files.insert("order".into());
    }
    let found = listing(&path.join(&folder));
    expect(faults, "files of the topic", found == files, &found);
    let found = listing(path);
    expect(faults, "files of the bus", found == ["bus".into(), folder].into(), &found);
    // A bus that was half made or half removed is cleaned up by whoever uses its name.
    let spare = role::spare_bus(path);
    role::bus(&spare)?.repair()?;
    Bus::remove(spare.to_str().expect("the path is text"))?;
    let found = listing(path.parent().expect("the bus lies in a folder"));
    expect(faults, "files beside the bus", found == ["bus".into()].into(), &found);
    Ok(())
}

/// All lanes, slots and segments can be taken at once.
fn check_capacity(kind: &str, desk: &Bus, faults: &mut Faults) -> windlass::Result<()> {
    let topic = role::topic(desk, kind)?;
    let info = topic.info()?;
    let subscribers: windlass::Result<Vec<_>> =
        (0..info.subscribers_max).map(|_| topic.subscriber(Start::Latest)).collect();
    let subscribers = subscribers?;
    // A newcomer stands in one segment of each lane, or, where the order log says whose turn it is,
    // in none. More would be pins that an owner before it left.
    let stands = if role::delivery(kind).ordered { 0 } else { info.publishers.len() as u64 };
    let pinned: Vec<_> = topic.info()?.subscribers;
    let good = pinned.len() == subscribers.len() && pinned.iter().all(|slot| slot.pins == stands);
    expect(faults, "pins of newcomers", good, pinned);
    drop(subscribers);
    let mut publishers = Vec::new();
    for _ in 0..PUBLISHERS {
        publishers.push(topic.publisher()?);
    }
    let message = vec![0; 900];
    let laps = 2 * u64::from(SEGMENTS) * SEGMENT_BYTES / 900;
    for publisher in &mut publishers {
        let refused = (0..laps).find_map(|_| publisher.try_publish(&message).err());
        expect(faults, "an empty topic refuses", refused.is_none(), refused);
    }
    Ok(())
}
