//! Damage that is done while the files are mapped: somebody scribbles into them, and the members of the
//! bus go on, or say what is wrong, and can always end.

use super::state::{content, State};
use super::visit::Visit;
use crate::process::{Line, Scene};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;
use windlass::{Bus, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Topic, Wait};

/// Numbers that look random and are the same in every run.
struct Mixed(u64);

impl Mixed {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn word(&mut self) -> u64 {
        match self.below(5) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << self.below(64),
            3 => self.next() % 1024,
            _ => self.next(),
        }
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

/// Writes words where the tables are, and now and then anywhere in the lanes, until the test hangs up.
/// From time to time it writes back what was there at first, so that the others can begin again.
pub fn scribbler(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let mut mixed = Mixed(scene.number("seed"));
    let files = ["t.topic/control", "t.topic/lane-0", "t.topic/lane-1", "t.topic/order"];
    let open = |name: &&str| {
        let file = File::options().write(true).open(path.join(name)).ok()?;
        Some((std::fs::read(path.join(name)).expect("it is open"), file))
    };
    let files: Vec<(Vec<u8>, File)> = files.iter().filter_map(open).collect();
    line.say("ready");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for turn in 0u64.. {
                if ended.load(Relaxed) {
                    break;
                }
                if turn % 40 == 0 {
                    for (bytes, file) in &files {
                        file.write_all_at(bytes, 0).expect("it is as long as it was");
                    }
                }
                let (bytes, file) = &files[mixed.below(files.len())];
                let at = match mixed.below(4) {
                    0 => mixed.below(bytes.len() / 8) * 8,
                    _ => mixed.below(768.min(bytes.len() / 8)) * 8,
                };
                file.write_all_at(&mixed.word().to_le_bytes(), at as u64).expect("it is inside");
                // As fast as everybody else can take notice of.
                (0..mixed.below(8)).for_each(|_| std::thread::yield_now());
            }
        });
        line.stay();
        ended.store(true, Relaxed);
    });
}

/// Opens the topic, as soon as somebody repaired enough for that.
fn open(scene: &Scene) -> Option<(Bus, Topic<Raw>)> {
    let bus = Bus::options().existing().open(scene.bus_path()).ok()?;
    let topic = bus.topic::<Raw>("t").open_existing().ok()?;
    Some((bus, topic))
}

/// Publishes, and joins again after every error, for some rounds. Says `done COUNT`.
pub fn publisher(scene: &Scene, line: &mut Line) {
    let mut published = 0u64;
    attend(scene, line, |topic: &Topic<Raw>| {
        let mut publisher: Publisher<Raw> = topic.publisher().ok()?;
        for _ in 0..30 {
            let payload = content(publisher.lane(), publisher.sequence());
            match publisher.publish_timeout(&payload, Duration::from_millis(5)) {
                Ok(_) => published += 1,
                Err(PublishError::Full { .. }) => {}
                Err(_) => return None,
            }
        }
        Some(())
    });
    line.say(format_args!("done {published}"));
}

/// Subscribes, reads and keeps, and joins again after every error, for some rounds. Says `done COUNT`.
pub fn subscriber(scene: &Scene, line: &mut Line) {
    let (mut received, mut round) = (0u64, 0u64);
    attend(scene, line, |topic: &Topic<Raw>| {
        round += 1;
        let start = match round % 4 {
            0 => Start::Latest,
            1 => Start::Last(5),
            2 => Start::Sequence(round),
            _ => Start::Oldest,
        };
        let mut subscriber: Subscriber<Raw> = topic.subscriber(start).ok()?;
        let mut sum = 0u64;
        for _ in 0..60 {
            match subscriber.recv(Wait::For(Duration::from_millis(1))) {
                Ok(Some(message)) => {
                    // Every byte is touched: it lies inside of the mapping, whatever it says.
                    sum += message.bytes().iter().map(|byte| u64::from(*byte)).sum::<u64>();
                    let weak = message.pin().downgrade();
                    received += u64::from(weak.upgrade().is_some());
                }
                Ok(None) => return None,
                Err(RecvError::TimedOut | RecvError::Lagged { .. }) => {}
                Err(_) => return None,
            }
        }
        let _ = (std::hint::black_box(sum), subscriber.lag());
        Some(())
    });
    line.say(format_args!("done {received}"));
}

/// Does `once` for as many rounds as there are, with a fresh membership each time.
fn attend(scene: &Scene, line: &mut Line, mut once: impl FnMut(&Topic<Raw>) -> Option<()>) {
    line.say("ready");
    for round in 0..scene.number("rounds") {
        line.say(format_args!("case round {round}"));
        let Some((bus, topic)) = open(scene) else {
            std::thread::yield_now();
            continue;
        };
        let _ = (once(&topic), bus.inspect("t"), bus.repair());
    }
}

/// Lays a state for the others. Says `done`.
pub fn layer(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let state = State::build(scene.text("state"), &path.with_extension("model"));
    state.lay(path);
    assert_ne!(Visit::of(path, &state), Visit::default(), "the state can be visited");
    state.lay(path);
    line.say("done 0");
}
