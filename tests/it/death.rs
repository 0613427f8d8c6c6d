//! Real processes, really killed or stopped, at any instant: the others go on, nothing that was
//! committed is lost, nothing torn is seen, and everything that the dead held comes back.

use super::fixture::{self, blocked_by, fill, publish};
use super::process::{scaled, until, Actor, Line, Role, Scene, Stage};
use super::traffic::{self, check, message, Checker};
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};
use windlass::{
    BlockReason, Bus, PublishError, Publisher, Raw, RecvError, Start, Subscriber, SubscriberState,
    Topic, TopicBuilder, Wait,
};

pub const ROLES: &[(&str, Role)] = &[
    ("death.writer", writer),
    ("death.reader", reader),
    ("death.holder", holder),
    ("death.churn", churn),
];

/// Longest time that a death may hold a survivor up.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

fn topic_of(scene: &Scene) -> Topic<Raw> {
    scene.bus().topic("t").open_existing().expect("the test created it")
}

/// Publishes for as long as it lives, and notes in file `note` how many messages its lane has.
fn writer(scene: &Scene, line: &mut Line) {
    let note = std::fs::File::create(scene.text("note")).expect("the den has room for a note");
    let mut publisher = topic_of(scene).publisher().expect("there is a lane");
    line.say(format_args!("ready {}", publisher.lane()));
    loop {
        traffic::publish_next(&mut publisher, 16, 900);
        let words = [u64::from(publisher.lane()), publisher.sequence()];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        note.write_all_at(&bytes, 0).expect("the den has room for a note");
    }
}

/// Receives one message for every word it is told, and checks it. Says `ready SLOT`, `got NUMBER`.
fn reader(scene: &Scene, line: &mut Line) {
    let mut subscriber = topic_of(scene).subscriber(Start::Latest).expect("there is a slot");
    line.say(format_args!("ready {}", subscriber.slot()));
    while line.hear().is_some() {
        let message = subscriber.recv(Wait::Block).expect("it is sound").expect("not closed");
        check(message.bytes(), message.lane(), message.sequence());
        line.say(format_args!("got {}", message.sequence()));
    }
}

/// Pins every message that it is told of. Says `ready SLOT`, and `held` for each.
fn holder(scene: &Scene, line: &mut Line) {
    let mut subscriber = topic_of(scene).subscriber(Start::Latest).expect("there is a slot");
    line.say(format_args!("ready {}", subscriber.slot()));
    let mut views = Vec::new();
    while line.hear().is_some() {
        let message = subscriber.recv(Wait::Block).expect("it is sound").expect("not closed");
        views.push(message.pin());
        line.say("held");
    }
}

/// Subscribes, receives, pins, sleeps and leaves, over and over.
fn churn(scene: &Scene, line: &mut Line) {
    let topic = topic_of(scene);
    line.say("ready");
    for round in 0.. {
        let start = if round % 2 == 0 { Start::Latest } else { Start::Oldest };
        // All slots may be taken by the living for a moment.
        let Ok(mut subscriber) = topic.subscriber(start) else { continue };
        let mut views = Vec::new();
        for turn in 0..round % 50 {
            let got = subscriber.recv(Wait::For(Duration::from_millis(1)));
            let message = match got {
                Ok(Some(message)) => message,
                Err(RecvError::TimedOut) => continue,
                other => panic!("{other:?}"),
            };
            check(message.bytes(), 0, message.sequence());
            if turn % 5 == 0 && views.len() < 3 {
                views.push(message.pin());
            }
        }
        drop(subscriber);
    }
}

fn small(bus: &Bus) -> TopicBuilder<Raw> {
    fixture::small(bus).publishers_max(2)
}

/// Numbers that are not random, but have no pattern that matters.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Every lane and every slot of the topic can be taken: nothing is held by the dead.
fn everything_is_free(topic: &Topic<Raw>) {
    let info = topic.info().expect("the topic is sound");
    let all = (0..info.publishers_max).map(|_| topic.publisher());
    let publishers: Vec<_> = all.map(|one| one.expect("every lane is free")).collect();
    let all = (0..info.subscribers_max).map(|_| topic.subscriber(Start::Latest));
    let subscribers: Vec<_> = all.map(|one| one.expect("every slot is free")).collect();
    drop((publishers, subscribers));
    let info = topic.info().expect("the topic is sound");
    assert!(info.subscribers.is_empty(), "{:?}", info.subscribers);
    assert!(info.publishers.iter().all(|lane| !lane.alive), "{:?}", info.publishers);
}

/// What a dead writer had noted: its lane, and how many messages that had. `None` if it died early.
fn noted(path: &str) -> Option<(u32, u64)> {
    let bytes = std::fs::read(path).ok().filter(|bytes| bytes.len() == 16)?;
    let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"));
    Some((u32::try_from(word(0)).expect("a lane"), word(8)))
}

/// Receives the next message if there is one.
fn receive(subscriber: &mut Subscriber<Raw>, checker: &mut Checker) -> bool {
    match subscriber.try_recv() {
        Ok(Some(message)) => checker.take(&message),
        Ok(None) => return false,
        Err(RecvError::Lagged { missed }) => checker.lag(missed),
        Err(error) => panic!("{error}"),
    }
    true
}

/// Receives what is there, for some time.
fn receive_for(subscriber: &mut Subscriber<Raw>, checker: &mut Checker, time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        receive(subscriber, checker);
    }
}

/// Receives everything that is there.
fn drain(subscriber: &mut Subscriber<Raw>, checker: &mut Checker) {
    while receive(subscriber, checker) {}
}

/// Kills publishers at random instants, two at a time, while successors continue their lanes.
fn publishers_are_killed(create: impl Fn(TopicBuilder<Raw>) -> TopicBuilder<Raw>, kills: u64) {
    let stage = Stage::processes();
    let Stage::Processes(den) = &stage else { unreachable!("it was made so") };
    let bus = stage.bus();
    let topic = create(small(&bus)).subscribers_max(4).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut checker = Checker::new(&topic);
    let mut dice = Dice(kills);
    let note = |index: u64| den.path().join(format!("note-{index}")).display().to_string();
    let start = |index| {
        let arguments = format!("note={}", note(index));
        Actor::process(den, "death.writer", &arguments)
    };
    let mut alive = vec![start(0), start(1)];
    for kill in 0..kills {
        // From the first instruction of a process to long after it began to publish.
        if kill % 3 > 0 {
            alive[0].hear("ready");
        }
        if kill % 3 == 2 {
            until("it has published", || {
                receive_for(&mut subscriber, &mut checker, Duration::from_micros(100));
                noted(&note(kill)).is_some()
            });
        }
        let instant = Duration::from_micros(dice.below(if kill % 3 == 0 { 15_000 } else { 3000 }));
        receive_for(&mut subscriber, &mut checker, instant);
        alive.remove(0).kill();
        alive.push(start(kill + 2));
    }
    alive.iter_mut().for_each(Actor::kill);
    // A successor in each lane, and then everything up to the end.
    let repaired = bus.repair().expect("the topic can be repaired");
    assert!(repaired.lanes <= 2);
    let mut publishers: Vec<_> =
        (0..2).map(|_| topic.publisher().expect("every lane is free")).collect();
    for publisher in &mut publishers {
        drain(&mut subscriber, &mut checker);
        (0..20).for_each(|_| assert!(publish(publisher, 509).is_ok(), "there is room for some"));
        drain(&mut subscriber, &mut checker);
    }
    let (received, missed) = checker.finish();
    let total: u64 = publishers.iter().map(Publisher::sequence).sum();
    assert_eq!(received + missed, total, "committed means delivered, or counted");
    let mut committed = 0;
    for (lane, count) in (0..kills + 2).filter_map(|index| noted(&note(index))) {
        let end = publishers.iter().find(|publisher| publisher.lane() == lane);
        let end = end.expect("both lanes are here").sequence();
        assert!(count <= end, "lane {lane} ends at {end}, {count} were committed");
        committed += 1;
    }
    assert!(committed >= kills / 3, "{committed} of {kills} lived to publish something");
    drop((publishers, subscriber));
    everything_is_free(&topic);
}

#[test]
fn publishers_killed_at_any_instant_lose_nothing_that_was_committed() {
    publishers_are_killed(TopicBuilder::reliable, scaled(200));
}

#[test]
fn publishers_killed_at_any_instant_leave_one_order() {
    publishers_are_killed(|builder| builder.ordered().order_slots(256), scaled(150));
}

#[test]
fn publishers_killed_at_any_instant_leave_exact_counts() {
    publishers_are_killed(|builder| builder.lossy().ordered().order_slots(256), scaled(60));
    publishers_are_killed(TopicBuilder::lossy, scaled(60));
}

#[test]
fn subscribers_killed_at_any_instant_hold_nobody_up() {
    let stage = Stage::processes();
    let Stage::Processes(den) = &stage else { unreachable!("it was made so") };
    let bus = stage.bus();
    let topic = small(&bus).subscribers_max(3).create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut dice = Dice(1);
    let start = || Actor::process(den, "death.churn", "");
    let mut alive = vec![start(), start()];
    for kill in 0..scaled(120) {
        if kill % 3 > 0 {
            alive[0].hear("ready");
        }
        let end = Instant::now() + Duration::from_micros(dice.below(15_000));
        while Instant::now() < end {
            let payload = message(0, publisher.sequence(), 509);
            match publisher.publish_timeout(&payload, RECOVERY_MAX) {
                // On a busy machine one of the living may take that long.
                Err(PublishError::Full { blocker }) => {
                    let named = alive.iter_mut().any(|actor| actor.pid() == blocker.pid);
                    assert!(named, "the dead hold it up: {blocker:?}");
                }
                published => drop(published.expect("nothing else is in the way")),
            }
        }
        alive.remove(0).kill();
        alive.push(start());
    }
    alive.iter_mut().for_each(Actor::kill);
    drop(publisher);
    bus.repair().expect("the topic can be repaired");
    assert!(topic.info().expect("it is sound").reaped_subscribers > 0, "some died in a slot");
    everything_is_free(&topic);
}

/// A publisher waits for a subscriber, which is then killed; returns how long it still waits.
fn time_to_survive(role: &str, reason: BlockReason) -> Duration {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    let mut actor = stage.start(role, "");
    let slot = u32::try_from(actor.hear_number("ready")).expect("a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let blocker = loop {
        match publish(&mut publisher, 509) {
            Err(PublishError::Full { blocker }) => break blocker,
            published => drop(published.expect("nothing else is in the way")),
        }
        if reason == BlockReason::Views {
            actor.say("next");
            actor.hear("held");
        }
        assert!(publisher.sequence() < 1000, "it holds nobody up");
    };
    assert_eq!((blocker.slot, blocker.pid, blocker.reason), (slot, actor.pid(), reason));
    let waiting = std::thread::spawn(move || {
        let payload = message(0, publisher.sequence(), 509);
        publisher.publish(&payload).map(|_| Instant::now())
    });
    until("the publisher waits", || blocked_by(&topic) == Some(slot));
    let killed = Instant::now();
    actor.kill();
    let published = waiting.join().expect("it returns").expect("the dead hold nobody up");
    let info = topic.info().expect("it is sound");
    assert_eq!(info.reaped_subscribers, 1);
    assert!(info.subscribers.is_empty() && blocked_by(&topic).is_none());
    published.saturating_duration_since(killed)
}

#[test]
fn a_publisher_survives_the_subscriber_that_it_waits_for() {
    for (role, reason) in
        [("death.reader", BlockReason::Unread), ("death.holder", BlockReason::Views)]
    {
        let time = time_to_survive(role, reason);
        println!("{role}: the publisher went on {time:?} after the death");
        assert!(time < RECOVERY_MAX, "{role} held the publisher up for {time:?}");
    }
}

#[test]
fn a_stopped_subscriber_is_not_taken_for_dead() {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    let mut actor = stage.start("death.reader", "");
    let slot = u32::try_from(actor.hear_number("ready")).expect("a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    actor.stop();
    fill(&mut publisher);
    // Two seconds would be enough to take the slot of a dead one many times.
    let refused = publisher.publish_timeout(&[7; 509], Duration::from_millis(400));
    let Err(PublishError::Full { blocker }) = refused else { panic!("{refused:?}") };
    assert_eq!((blocker.slot, blocker.pid), (slot, actor.pid()));
    assert_eq!(bus.repair().expect("nothing is broken"), windlass::RepairReport::default());
    let info = topic.info().expect("it is sound");
    assert_eq!(info.reaped_subscribers, 0);
    let stopped = &info.subscribers[0];
    assert!(stopped.alive && stopped.state == SubscriberState::Active);
    actor.go_on();
    for number in 0..publisher.sequence() {
        actor.say("next");
        assert_eq!(actor.hear_number("got"), number, "it missed nothing");
    }
    actor.finish();
}

#[test]
fn a_stopped_publisher_keeps_its_lane() {
    let stage = Stage::processes();
    let Stage::Processes(den) = &stage else { unreachable!("it was made so") };
    let bus = stage.bus();
    let topic = small(&bus).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut checker = Checker::new(&topic);
    let note = den.path().join("note").display().to_string();
    let mut actor = Actor::process(den, "death.writer", &format!("note={note}"));
    actor.hear("ready");
    for _ in 0..scaled(10) {
        // It stops in the middle of whatever it does.
        receive_for(&mut subscriber, &mut checker, Duration::from_millis(3));
        actor.stop();
        assert_eq!(bus.repair().expect("nothing is broken").lanes, 0);
        let mut other = topic.publisher().expect("there is a second lane");
        assert_eq!(other.lane(), 1);
        let full = topic.publisher().map(drop).expect_err("the first lane is not free");
        assert_eq!(full.kind(), windlass::ErrorKind::Limit, "{full}");
        (0..5).for_each(|_| assert!(publish(&mut other, 509).is_ok(), "there is room"));
        drain(&mut subscriber, &mut checker);
        actor.go_on();
    }
    actor.kill();
    let info = topic.info().expect("it is sound");
    assert_eq!(info.taken_over_lanes, 0, "nobody took a lane of the living");
}

#[test]
fn what_a_dead_node_held_is_repaired_on_request_too() {
    let stage = Stage::processes();
    let bus = stage.bus();
    let topic = small(&bus).ordered().create().expect("it is new");
    let mut reading: Vec<_> = (0..3).map(|_| stage.start("death.reader", "")).collect();
    reading.iter_mut().for_each(|actor| drop(actor.hear("ready")));
    let note = format!("note={}", bus.path().with_extension("note").display());
    let mut writing = stage.start("death.writer", &note);
    writing.hear("ready");
    until("something was published", || {
        topic.info().is_ok_and(|info| info.publishers.iter().any(|lane| lane.published > 0))
    });
    let nothing = windlass::RepairReport::default();
    assert_eq!(bus.repair().expect("nothing is broken"), nothing);
    // The publisher first: it would repair what it is hindered by.
    [&mut writing].into_iter().chain(&mut reading).for_each(Actor::kill);
    let dead = |nodes: Vec<windlass::NodeInfo>| nodes.iter().filter(|node| !node.alive).count();
    assert_eq!((bus.nodes().len(), dead(bus.nodes())), (5, 4), "the dead are told apart");
    let report = bus.repair().expect("it can be repaired");
    assert_eq!((report.nodes, report.subscribers, report.lanes), (4, 3, 1));
    let me = bus.nodes();
    assert_eq!((me.len(), me[0].node, me[0].pid), (1, bus.node(), std::process::id()));
    assert_eq!(bus.repair().expect("nothing is broken"), nothing, "it was all repaired");
    everything_is_free(&topic);
}
