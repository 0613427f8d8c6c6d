//! Crashes of the machine, simulated: whatever pages of a log were lost or torn that were not on disk for sure,
//! opening it keeps a beginning of the order, whole and right, with everything in it that was on disk; and what is cut
//! off never comes back.

use super::durable::Logs;
use super::log::disk::{lay, look, reboot, Choice, Dice, Files, History};
use super::process::scaled;
use std::path::{Path, PathBuf};
use windlass::{Append, Bus, Publisher, Raw, Recovery, Start, SyncPolicy, Topic};

const SEGMENT: u64 = 4096;

fn open(path: &Path, sync: SyncPolicy) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("events").durable_at(path).publishers_max(3).sync(sync);
    topic.segment_bytes(SEGMENT).open().expect("a crash is no reason to refuse a log")
}

/// What every message must be: in the order of the log, payload and key.
type Truth = Vec<Vec<u8>>;

/// A message that no other one equals, whose length is anything.
fn text(dice: &mut Dice, round: usize, number: usize) -> Vec<u8> {
    let len = if dice.once_in(8) { 1000 + dice.roll(2900) } else { dice.roll(300) };
    let mut text = format!("round {round} number {number} ").into_bytes();
    let begin = text.len();
    text.resize((begin + len).min(4000), 0);
    text[begin..].iter_mut().for_each(|byte| *byte = dice.roll(256) as u8);
    text
}

/// Publishes one message on a lane, and notes it.
fn publish(publisher: &mut Publisher<Raw>, truth: &mut Truth, dice: &mut Dice, round: usize) {
    let text = text(dice, round, truth.len());
    let key = text[..dice.roll(20).min(text.len())].to_vec();
    let append = Append::new().key(if text.len() < 3900 { &key } else { &[] });
    let receipt = publisher.append(&text, &append).expect("there is room");
    assert_eq!(receipt.sequence, truth.len() as u64, "sequences are dense");
    truth.push(text);
}

fn lanes(topic: &Topic<Raw>, count: usize) -> Vec<Publisher<Raw>> {
    (0..count).map(|_| topic.publisher().expect("there is a lane")).collect()
}

/// Reads all that is in a log and compares. Returns how many messages there are.
fn check(topic: &Topic<Raw>, truth: &Truth) -> usize {
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut count = 0;
    while let Some(message) = subscriber.try_recv().expect("what is kept is sound") {
        assert_eq!(message.sequence(), count as u64);
        assert!(message.bytes() == truth[count], "message {count} is another one");
        count += 1;
    }
    count
}

/// Opens what a crash left and judges: at least the first `safe` of `truth` are there, and nothing that is not.
fn judge(path: &Path, sync: SyncPolicy, truth: &mut Truth, safe: usize) -> (Topic<Raw>, Recovery) {
    let topic = open(path, sync);
    let recovery = topic.recovery().expect("nobody else has it").clone();
    let next = recovery.next as usize;
    assert!((safe..=truth.len()).contains(&next), "{next} of {safe} to {}", truth.len());
    assert_eq!(check(&topic, truth), next);
    assert_eq!((recovery.first, recovery.damaged), (0, 0));
    assert!(recovery.cut_messages <= (truth.len() - next) as u64, "{recovery:?}");
    truth.truncate(next);
    (topic, recovery)
}

/// Says which case it was if the test fails.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the crash was: {}", self.0);
        }
    }
}

/// A log that crashes, and crashes.
struct Rig {
    _logs: Logs,
    path: PathBuf,
    image: PathBuf,
    sync: SyncPolicy,
}

impl Rig {
    fn new(name: &str, sync: SyncPolicy) -> Self {
        // The disk is simulated: a real one would only take longer.
        let logs = Logs::in_memory(name);
        let (path, image) = (logs.0.join("events"), logs.0.join("image"));
        Self { _logs: logs, path, image, sync }
    }

    /// Opens the log, publishes on `lanes` lanes, and returns what its files held meanwhile.
    fn run(&self, truth: &mut Truth, lanes_max: usize, dice: &mut Dice, round: usize) -> History {
        let looks = 1 + dice.roll(5);
        self.run_for(looks, truth, lanes_max, dice, round)
    }

    fn run_for(
        &self,
        looks: usize,
        truth: &mut Truth,
        lanes_max: usize,
        dice: &mut Dice,
        round: usize,
    ) -> History {
        let topic = open(&self.path, self.sync);
        // What an opener found is on disk, for all of the lanes.
        let mut history = History(vec![look(&self.path)]);
        let count = 1 + dice.roll(lanes_max);
        let mut publishers = lanes(&topic, count);
        for _ in 0..looks {
            for _ in 0..1 + dice.roll(12) {
                publish(&mut publishers[dice.roll(count)], truth, dice, round);
            }
            history.0.push(look(&self.path));
        }
        history
    }

    fn lay(&self, mut files: Files) -> &Path {
        reboot(&mut files);
        lay(&files, &self.image);
        &self.image
    }
}

/// Every page that changed: old while all others are new, new while all others are old, and torn at every sector, with
/// all before it new and all behind it old; also in the order of the pages that is the reverse.
fn every_page(history: &History, mut visit: impl FnMut(String, Files)) {
    let changed = history.changed();
    let (first, last) = (Choice::Version(0), Choice::Version(history.last()));
    let order = |name: &str, page: usize| {
        changed.iter().position(|it| it.0 == name && it.1 == page).expect("it changed")
    };
    for (at, (name, page)) in changed.iter().enumerate() {
        let is_it = |n: &str, p: usize| n == name && p == *page;
        let mut show = |how: &str, choose: &dyn Fn(&str, usize) -> Choice| {
            visit(format!("{name} page {page}: {how}"), history.image(choose));
        };
        show("alone old", &|n, p| if is_it(n, p) { first } else { last });
        show("alone new", &|n, p| if is_it(n, p) { last } else { first });
        show("all before it new", &|n, p| if order(n, p) < at { last } else { first });
        show("all behind it new", &|n, p| if order(n, p) > at { last } else { first });
        for sectors in [1, 2, 4, 7] {
            let torn = Choice::Torn(history.last() - 1, sectors);
            show("torn", &|n, p| if is_it(n, p) { torn } else { last });
        }
    }
    for name in changed.iter().map(|it| &it.0).collect::<std::collections::BTreeSet<_>>() {
        if !history.0[0].contains_key(name) {
            let mut image = history.image(|_, _| last);
            image.remove(name);
            visit(format!("{name}: not there"), image);
            let mut image = history.image(|_, _| last);
            let file = image.get_mut(name).expect("it is in the last version");
            (file.len, file.pages) = (0, Default::default());
            visit(format!("{name}: empty"), image);
        }
    }
}

#[test]
fn every_page_that_a_crash_loses_or_tears_costs_the_end_and_nothing_else() {
    for (seed, lanes_max) in [(2, 2), (3, 3)] {
        let rig = Rig::new(&format!("pages-{lanes_max}"), SyncPolicy::None);
        let (mut dice, mut truth, mut cases) = (Dice::new(seed), Truth::new(), 0);
        rig.run(&mut truth, lanes_max, &mut dice, 0);
        let safe = truth.len();
        let history = rig.run_for(4, &mut truth, lanes_max, &mut dice, 1);
        every_page(&history, |what, image| {
            let _case = Case(format!("seed {seed}, {what}"));
            let mut kept = truth.clone();
            let (topic, recovery) = judge(rig.lay(image), rig.sync, &mut kept, safe);
            assert!(recovery.checked <= (truth.len() - safe) as u64, "{recovery:?}");
            // What was cut off does not come back when others take its place.
            let mut publishers = lanes(&topic, 3);
            for publisher in &mut publishers {
                publish(publisher, &mut kept, &mut Dice::new(cases), 7);
            }
            assert_eq!(check(&topic, &kept), kept.len());
            drop((publishers, topic));
            judge(&rig.image, rig.sync, &mut kept.clone(), kept.len());
            cases += 1;
        });
        assert!(cases > 40, "{cases} crashes are few");
    }
}

#[test]
fn crashes_upon_crashes_keep_a_beginning_and_nothing_comes_back() {
    for seed in 0..scaled(40) {
        let _case = Case(format!("seed {seed}"));
        let rig = Rig::new("crashes", SyncPolicy::None);
        let (mut dice, mut truth) = (Dice::new(seed), Truth::new());
        for round in 0..6 {
            let safe = truth.len();
            let history = rig.run(&mut truth, 3, &mut dice, round);
            let checkpoints = history.checkpoints();
            let since = checkpoints[dice.roll(checkpoints.len())];
            let mut image = history.since(since).random_image(&mut dice);
            // Up to two crashes while the log is made ready.
            for _ in 0..dice.roll(3) {
                reboot(&mut image);
                lay(&image, &rig.image);
                drop(judge(&rig.image, rig.sync, &mut truth.clone(), safe));
                // Before the new checkpoint is on disk anything may be of the old or of the new.
                let mut during = History(vec![image.clone(), look(&rig.image)]);
                during.0.iter_mut().for_each(|files| drop(files.remove("claim")));
                let claim = image["claim"].clone();
                image = during.random_image(&mut dice);
                image.insert("claim".to_owned(), claim);
            }
            lay(&image, &rig.path);
            reboot(&mut image);
            lay(&image, &rig.path);
            drop(judge(&rig.path, rig.sync, &mut truth, safe));
        }
    }
}

#[test]
fn what_was_acknowledged_under_each_survives_whatever_else_is_lost() {
    for seed in 0..scaled(4) {
        let rig = Rig::new("each", SyncPolicy::Each);
        let (mut dice, mut truth) = (Dice::new(seed), Truth::new());
        let topic = open(&rig.path, rig.sync);
        let mut publishers = lanes(&topic, 3);
        let mut before = look(&rig.path);
        for number in 0..40 {
            let acknowledged = truth.len();
            publish(&mut publishers[dice.roll(3)], &mut truth, &mut dice, 0);
            let after = look(&rig.path);
            let history = History(vec![before, after.clone()]);
            for _ in 0..3 {
                let _case = Case(format!("seed {seed}, message {number}"));
                let image = history.random_image(&mut dice);
                judge(rig.lay(image), rig.sync, &mut truth.clone(), acknowledged);
            }
            before = after;
        }
    }
}
