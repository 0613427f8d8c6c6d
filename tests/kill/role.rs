//! What the processes of this test do until they are killed.
//!
//! A role says `try <lane> <sequence>` before it publishes a message and `has <lane> <sequence>`
//! once that is committed, `fault <text>` for everything that it finds wrong, and `done` at its
//! end.

use crate::content::{self, Delivery, Ledger};
use crate::process::{self, say};
use crate::{channel, jobs, log, queue, service, tokens};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use windlass::{Bus, Publisher, Raw, RecvError, Start, Subscriber, Topic, TopicBuilder, Wait};

/// The topic that everybody takes part in.
pub const TOPIC: &str = "events";
/// A topic that is made and removed beside it.
pub const SPARE: &str = "spare";
/// Segments of a lane, and bytes of one.
pub const SEGMENTS: u32 = 4;
pub const SEGMENT_BYTES: u64 = 4096;
pub const PUBLISHERS: u32 = 4;

/// After how long a topic of kind `evicting` evicts.
pub const EVICT_AFTER: Duration = Duration::from_millis(100);
/// How long a role waits for anything before it calls that a fault.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a kind of topic promises.
pub fn delivery(kind: &str) -> Delivery {
    let ordered = kind.starts_with("ordered") || kind.starts_with("durable");
    Delivery { reliable: !kind.ends_with("lossy"), ordered }
}

fn options(bus: &Bus, name: &str, kind: &str) -> TopicBuilder<Raw> {
    let topic = bus.topic::<Raw>(name).segment_bytes(SEGMENT_BYTES).segments_per_lane(SEGMENTS);
    let slots = if kind == "crowded" { 3 } else { 12 };
    let topic = topic.publishers_max(PUBLISHERS).subscribers_max(slots);
    let topic = if delivery(kind).reliable { topic.reliable() } else { topic.lossy() };
    let topic = if kind == "evicting" { topic.evict_after(EVICT_AFTER) } else { topic };
    if delivery(kind).ordered {
        return topic.ordered().order_slots(256);
    }
    topic
}

/// Opens the topic, or makes it.
pub fn topic(bus: &Bus, kind: &str) -> windlass::Result<Topic<Raw>> {
    options(bus, TOPIC, kind).open()
}

/// Opens the bus of `path`, or makes it.
pub fn bus(path: &Path) -> windlass::Result<Bus> {
    Bus::open(path.to_str().expect("the path is text"))
}

/// The bus beside the bus of `path`.
pub fn spare_bus(path: &Path) -> PathBuf {
    path.with_file_name("spare-bus")
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Plays the role that the environment names.
pub fn play(role: &str) {
    process::die_with_parent();
    let text = |name| std::env::var(name).expect("the parent sets it");
    let (path, kind) = (PathBuf::from(text(process::BUS)), text(process::KIND));
    let count = text(process::COUNT).parse().expect("the count is a number");
    let result = match role {
        "publish" => publish(&path, &kind, count),
        "ring" => ring(&path, &kind, count),
        "read" => read(&path, &kind, count),
        "create" => create(&path, &kind),
        "repair" => repair(&path),
        "spare" => spare(&path),
        "stream" => stream(&path, &kind),
        "follow" => follow(&path, &kind),
        "churn" => churn(&path, &kind),
        tokens::ROLE => tokens::play(&path),
        jobs::GIVE | jobs::WORK => jobs::play(&path, role, &kind, count),
        role if role.starts_with(log::ROLES) => log::play(&path, role, &kind, count),
        role if channel::ROLES.contains(&role) => channel::play(&path, role),
        role if queue::ROLES.contains(&role) => queue::play(&path, role),
        role if service::ROLES.contains(&role) => service::play(&path, role),
        role => panic!("there is no role {role}"),
    };
    match result {
        Ok(()) => say("done"),
        Err(error) => say(&format!("fault {role}: {error}")),
    }
}

/// Publishes message after message; some through a loan, some after a loan that was dropped.
fn publish(path: &Path, kind: &str, count: u64) -> Outcome {
    let bus = bus(path)?;
    let mut publisher = topic(&bus, kind)?.publisher()?;
    for turn in 0..count {
        send(&mut publisher, turn)?;
        // Long enough that subscribers fall asleep.
        if turn % 8 == 7 {
            process::pause(Duration::from_millis(3));
        }
    }
    Ok(())
}

/// Publishes, and whenever it has found nobody asleep, gives others the time to lie down before it looks again.
fn ring(path: &Path, kind: &str, count: u64) -> Outcome {
    std::env::set_var("WINDLASS_STEP_PAUSE", "wake.again");
    publish(path, kind, count)
}

fn send(publisher: &mut Publisher<Raw>, turn: u64) -> Outcome {
    let (lane, sequence) = (publisher.lane(), publisher.sequence());
    say(&format!("try {lane} {sequence}"));
    let receipt = match turn % 4 {
        1 => {
            let mut loan = publisher.loan(content::size_of(sequence))?;
            content::fill(&mut loan, lane, sequence, 0);
            loan.publish()?
        }
        2 => {
            publisher.loan(700)?.fill(0xA5);
            publisher.publish(&content::message(lane, sequence, 0))?
        }
        _ => publisher.publish(&content::message(lane, sequence, 0))?,
    };
    if receipt.lane != lane {
        return Err(format!("{receipt:?} for lane {lane}").into());
    }
    say(&format!("has {lane} {sequence}"));
    Ok(())
}

/// Joins, reads, keeps views, sleeps, leaves with views, and joins again.
fn read(path: &Path, kind: &str, count: u64) -> Outcome {
    let bus = bus(path)?;
    let topic = match kind.starts_with("durable") {
        true => log::topic(&bus, path, kind)?,
        false => topic(&bus, kind)?,
    };
    let mut subscriber = topic.subscriber(Start::Oldest)?;
    say("joined");
    let mut ledger = Ledger::new(delivery(kind), false);
    let mut kept = VecDeque::new();
    let end = Instant::now() + PATIENCE;
    while ledger.received < count {
        if Instant::now() > end {
            return Err(format!("only {} messages came", ledger.received).into());
        }
        match subscriber.recv(Wait::For(Duration::from_millis(40))) {
            Ok(Some(message)) => {
                ledger.take(&message);
                if ledger.received.is_multiple_of(3) {
                    kept.push_back((message.pin(), message.sequence()));
                }
            }
            Ok(None) => return Err("nobody closed the topic".into()),
            Err(RecvError::TimedOut) => {}
            Err(RecvError::Lagged { missed }) => ledger.missed += missed,
            Err(RecvError::Evicted { .. }) if kind == "evicting" => {
                kept.clear();
                say("evicted");
                drop(subscriber);
                subscriber = topic.subscriber(Start::Latest)?;
                ledger.restart();
            }
            Err(error) => return Err(error.into()),
        }
        while kept.len() > 2 {
            let (view, sequence) = kept.pop_front().expect("there are three");
            check_view(&view, sequence, delivery(kind).ordered)?;
            let weak = view.downgrade();
            drop(view);
            if let Some(view) = weak.upgrade() {
                check_view(&view, sequence, delivery(kind).ordered)?;
            }
        }
    }
    if let Some(fault) = ledger.faults.first() {
        return Err(fault.clone().into());
    }
    drop(subscriber);
    drop(kept);
    rejoin(&topic)
}

fn check_view(view: &windlass::View<Raw>, sequence: u64, ordered: bool) -> Outcome {
    let content = content::read(view.as_bytes())?;
    let same = ordered || content.sequence == sequence;
    if view.sequence() != sequence || content.lane != view.lane() || !same {
        return Err(format!("a view of {sequence} shows {content:?}").into());
    }
    Ok(())
}

fn rejoin(topic: &Topic<Raw>) -> Outcome {
    for start in [Start::Last(5), Start::Latest] {
        let mut subscriber = topic.subscriber(start)?;
        match subscriber.batch(8) {
            Ok(batch) => {
                for message in batch {
                    content::read(message.bytes())?;
                }
            }
            Err(RecvError::Lagged { .. } | RecvError::Evicted { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Makes the bus, topics and lanes, and removes some of them.
fn create(path: &Path, kind: &str) -> Outcome {
    let bus = bus(path)?;
    let topic = topic(&bus, kind)?;
    let mut publisher = topic.publisher()?;
    for turn in 0..4 {
        send(&mut publisher, turn)?;
    }
    let mut subscriber = topic.subscriber(Start::Oldest)?;
    while let Some(message) = subscriber.try_recv()? {
        content::read(message.bytes())?;
    }
    spare(path)?;
    options(&bus, SPARE, "reliable").open()?.close();
    bus.remove_topic(SPARE)?;
    let beside = spare_bus(path);
    drop(self::bus(&beside)?);
    Bus::remove(beside.to_str().expect("the path is text"))?;
    Ok(())
}

/// Two nodes, and a topic beside the others.
fn spare(path: &Path) -> Outcome {
    let first = bus(path)?;
    let second = bus(path)?;
    options(&first, SPARE, "reliable").open()?;
    second.topics()?;
    Ok(())
}

/// Repairs twice, and looks at everything.
fn repair(path: &Path) -> Outcome {
    let bus = bus(path)?;
    bus.repair()?;
    for topic in bus.topics()? {
        bus.inspect(&topic)?;
    }
    bus.repair()?;
    Ok(())
}

/// Publishes in bursts until it is killed.
fn stream(path: &Path, kind: &str) -> Outcome {
    let bus = bus(path)?;
    let mut publisher = topic(&bus, kind)?.publisher()?;
    for turn in 0.. {
        send(&mut publisher, turn)?;
        if turn % 16 == 15 {
            process::pause(Duration::from_micros(500 + turn * 37 % 2500));
        }
    }
    Ok(())
}

/// Joins and reads and leaves until it is killed.
fn follow(path: &Path, kind: &str) -> Outcome {
    let bus = bus(path)?;
    let topic = topic(&bus, kind)?;
    for round in 0u64.. {
        let start = [Start::Oldest, Start::Latest, Start::Last(7)][round as usize % 3];
        let mut subscriber = topic.subscriber(start)?;
        if round == 0 {
            say("joined");
        }
        follow_once(&mut subscriber, delivery(kind), 100 + round * 31 % 200)?;
    }
    Ok(())
}

fn follow_once(subscriber: &mut Subscriber<Raw>, delivery: Delivery, count: u64) -> Outcome {
    let mut ledger = Ledger::new(delivery, false);
    let mut kept = VecDeque::new();
    while ledger.received < count {
        match subscriber.recv(Wait::Block) {
            Ok(Some(message)) => {
                ledger.take(&message);
                if ledger.received.is_multiple_of(5) {
                    kept.push_back((message.pin(), message.sequence()));
                }
            }
            Ok(None) => return Err("nobody closed the topic".into()),
            Err(RecvError::Lagged { missed }) => ledger.missed += missed,
            Err(error) => return Err(error.into()),
        }
        if kept.len() > 1 {
            let (view, sequence) = kept.pop_front().expect("there are two");
            check_view(&view, sequence, delivery.ordered)?;
        }
        if let Some(fault) = ledger.faults.first() {
            return Err(fault.clone().into());
        }
    }
    Ok(())
}

/// Comes, publishes, reads, repairs and leaves until it is killed.
fn churn(path: &Path, kind: &str) -> Outcome {
    for round in 0.. {
        let bus = bus(path)?;
        let topic = topic(&bus, kind)?;
        let mut publisher = topic.publisher()?;
        for turn in 0..round % 7 {
            send(&mut publisher, turn)?;
        }
        let mut subscriber = topic.subscriber(Start::Last(round % 11))?;
        if round % 2 == 0 {
            drop(publisher);
        }
        follow_once(&mut subscriber, delivery(kind), 5 + round % 5)?;
        bus.repair()?;
        bus.inspect(TOPIC)?;
    }
    Ok(())
}
