//! Raw messages from every number of publishers to every number of subscribers: none is lost, torn,
//! doubled or out of order, on either stage and under every policy.
//!
//! Segments are as small as they may be and lengths do not divide them, so a run of some thousand
//! messages passes the end of a segment, and the end of a lane, as often as hours of traffic do.

use super::process::{scaled, Actor, Den, Stage};
use super::traffic::{self, from_text, Order, TOPIC};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use windlass::{Bus, Raw, Start, TopicBuilder, Wait};

/// A topic with the smallest segments.
fn builder(bus: &Bus) -> TopicBuilder<Raw> {
    bus.topic(TOPIC).segment_bytes(4096).publishers_max(4).subscribers_max(8)
}

/// What all participants of a run said.
struct Run {
    published: u64,
    /// Received and missed, of each subscriber.
    received: Vec<(u64, u64)>,
    /// On an ordered topic: what the publishers, and each subscriber, say about the order.
    orders: (Order, Vec<Order>),
}

/// How a run begins.
#[derive(Clone, Copy, PartialEq)]
enum First {
    Publishers,
    Subscribers,
}

/// Runs `publishers` × `subscribers` on the topic, which must exist, to its close.
fn run(stage: &Stage, publishers: u64, subscribers: u64, least: u64, first: First) -> Run {
    let count = scaled(48_000 / (publishers * (subscribers + 1)));
    let start_publisher = |_| {
        let arguments = format!("count={count} least={least} most=509");
        stage.start("traffic.publisher", &arguments)
    };
    let start_subscriber = |index: u64| {
        let kinds = match publishers + subscribers {
            // Who never leaves the core must not be many.
            2 => ["spin", "spin", "spin", "spin"],
            _ => ["block", "batch", "for", "yield"],
        };
        let wait = kinds[usize::try_from(index).expect("small") % kinds.len()];
        stage.start("traffic.subscriber", &format!("wait={wait}"))
    };
    let ready = |mut actors: Vec<Actor>| {
        actors.iter_mut().for_each(|actor| drop(actor.hear("ready")));
        actors
    };
    let (mut sending, receiving) = match first {
        First::Publishers => {
            let sending = ready((0..publishers).map(start_publisher).collect());
            (sending, ready((0..subscribers).map(start_subscriber).collect()))
        }
        First::Subscribers => {
            let receiving = ready((0..subscribers).map(start_subscriber).collect());
            (ready((0..publishers).map(start_publisher).collect()), receiving)
        }
    };
    let topic = stage.bus().topic::<Raw>(TOPIC).open_existing().expect("it exists");
    let ordered = topic.info().expect("it is sound").ordered;
    sending.iter_mut().for_each(|actor| actor.say("go"));
    let mut orders = (Order::new(), Vec::new());
    for mut actor in sending {
        if ordered {
            orders.0.extend(from_text(&actor.hear("order")));
        }
        let done = actor.hear("done");
        assert_eq!(done, format!("0 {count}"), "every lane begins at 0 and is dense");
        actor.finish();
    }
    topic.close();
    let mut received = Vec::new();
    for mut actor in receiving {
        if ordered {
            orders.1.push(from_text(&actor.hear("order")));
        }
        let done = actor.hear("done");
        let numbers = done.split_once(' ').expect("two numbers");
        let number = |text: &str| text.parse().expect("a number");
        received.push((number(numbers.0), number(numbers.1)));
        actor.finish();
    }
    Run { published: count * publishers, received, orders }
}

/// Every number of publishers and subscribers, on one stage.
fn matrix(stage: fn() -> Stage, create: impl Fn(TopicBuilder<Raw>), least: u64) -> Vec<Run> {
    let mut runs = Vec::new();
    for (publishers, subscribers, first) in [
        (1, 1, First::Subscribers),
        (1, 8, First::Publishers),
        (2, 3, First::Subscribers),
        (3, 1, First::Publishers),
        (4, 8, First::Subscribers),
    ] {
        let stage = stage();
        create(builder(&stage.bus()));
        runs.push(run(&stage, publishers, subscribers, least, first));
    }
    runs
}

fn reliable(stage: fn() -> Stage) {
    let create = |builder: TopicBuilder<Raw>| {
        builder.reliable().segments_per_lane(4).create().expect("it is new");
    };
    for run in matrix(stage, create, 1) {
        run.received.iter().for_each(|counts| assert_eq!(*counts, (run.published, 0)));
    }
}

fn lossy(stage: fn() -> Stage) {
    let create = |builder: TopicBuilder<Raw>| {
        // More than subscribers, so that those who stand still do not pin all of them.
        builder.lossy().segments_per_lane(11).create().expect("it is new");
    };
    for run in matrix(stage, create, 1) {
        for (received, missed) in run.received {
            assert_eq!(received + missed, run.published);
        }
    }
}

/// Every subscriber saw what the publishers were told, and nothing else.
fn agree(run: &Run) {
    let (published, seen) = &run.orders;
    let places: BTreeMap<u64, _> =
        published.iter().map(|(sequence, lane, number)| (*sequence, (*lane, *number))).collect();
    let dense = places.keys().copied().eq(0..run.published);
    assert!(dense, "the sequences of an ordered topic are dense");
    for order in seen {
        for (sequence, lane, number) in order {
            assert_eq!(places[sequence], (*lane, *number), "place {sequence}");
        }
    }
}

fn ordered(stage: fn() -> Stage) {
    let create = |builder: TopicBuilder<Raw>| {
        builder.ordered().order_slots(256).segments_per_lane(4).create().expect("it is new");
    };
    for run in matrix(stage, create, 16) {
        agree(&run);
        run.received.iter().for_each(|counts| assert_eq!(*counts, (run.published, 0)));
    }
}

fn ordered_lossy(stage: fn() -> Stage) {
    let create = |builder: TopicBuilder<Raw>| {
        let builder = builder.ordered().lossy().order_slots(256).segments_per_lane(11);
        builder.create().expect("it is new");
    };
    for run in matrix(stage, create, 16) {
        agree(&run);
        for (received, missed) in &run.received {
            assert_eq!(received + missed, run.published);
        }
    }
}

#[test]
fn reliable_topics_lose_nothing_between_processes() {
    reliable(Stage::processes);
}

#[test]
fn reliable_topics_lose_nothing_between_threads() {
    reliable(Stage::threads);
}

#[test]
fn lossy_topics_count_every_loss_between_processes() {
    lossy(Stage::processes);
}

#[test]
fn lossy_topics_count_every_loss_between_threads() {
    lossy(Stage::threads);
}

#[test]
fn ordered_topics_have_one_order_between_processes() {
    ordered(Stage::processes);
}

#[test]
fn ordered_topics_have_one_order_between_threads() {
    ordered(Stage::threads);
}

#[test]
fn lossy_ordered_topics_have_one_order_between_processes() {
    ordered_lossy(Stage::processes);
}

#[test]
fn lossy_ordered_topics_have_one_order_between_threads() {
    ordered_lossy(Stage::threads);
}

/// However much there is in the first lanes, the later ones get their turn.
#[test]
fn a_busy_lane_starves_no_other() {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let topic = bus.topic::<Raw>(TOPIC).segment_bytes(65_536).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publishers: Vec<_> =
        (0..4).map(|_| topic.publisher().expect("there is a lane")).collect();
    for (lane, publisher) in publishers.iter_mut().enumerate() {
        let count = if lane == 3 { 5 } else { 1000 };
        (0..count).for_each(|_| assert_eq!(publisher.publish(b"x").map(drop), Ok(())));
    }
    let mut before = 0;
    let mut seen = [0; 4];
    while seen[3] < 5 {
        let message = subscriber.try_recv().expect("it is sound").expect("there is more");
        seen[message.lane() as usize] += 1;
        before += 1;
        // The busy lane is refilled as it is read.
        let lane = message.lane() as usize;
        if lane < 3 {
            publishers[lane].publish(b"x").expect("there is room");
        }
        assert!(before < 1000, "the last lane waits after {seen:?} messages");
    }
    // The same for batches.
    let mut batches = 0;
    publishers[3].publish(b"last").expect("there is room");
    loop {
        let batch = subscriber.batch(usize::MAX).expect("it is sound");
        if batch.filter(|message| message.bytes() == b"last").count() > 0 {
            break;
        }
        batches += 1;
        assert!(batches < 100, "the last lane gets no batch");
    }
}

/// The header word of a frame carries 24 bits of the sequence. Here a lane begins just below the
/// places where that part, and 32 bits, are full.
#[test]
fn sequences_pass_the_width_of_every_field() {
    for first in [(1 << 24) - 50, (1 << 32) - 50, (1 << 40) - 50] {
        let den = Den::new();
        let bus = den.bus();
        let topic = builder(&bus).create().expect("it is new");
        drop(topic.publisher().expect("the first one makes the lane"));
        // Nobody has the lane mapped to write: the first sequence of its first segment is ours.
        let path = den.path().join("bus").join(format!("{TOPIC}.topic")).join("lane-0");
        let file = std::fs::File::options().write(true).open(path).expect("the lane is there");
        file.write_all_at(&u64::to_le_bytes(first), 4096).expect("the first word of segment 0");

        let mut publisher = topic.publisher().expect("the lane is free");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        assert_eq!(publisher.sequence(), first);
        for number in first..first + scaled(400) {
            traffic::publish_next(&mut publisher, 1, 509);
            let message = subscriber.recv(Wait::Yield).expect("it is there").expect("not closed");
            assert_eq!(message.sequence(), number);
            traffic::check(message.bytes(), 0, number);
        }
        let late = topic.subscriber(Start::Sequence(publisher.sequence() - 3));
        let mut late = late.expect("three messages are retained");
        let again = late.try_recv().expect("it is sound").expect("there are three");
        assert_eq!(again.sequence(), publisher.sequence() - 3);
    }
}
