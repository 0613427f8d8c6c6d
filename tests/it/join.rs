//! Joining: whoever comes first, in whatever order, knows which message it gets first.

use super::fixture::{self, anonymous};
use super::process::{scaled, until, EndWhenDropped, Line, Role, Scene, Stage};
use super::traffic::{self, check, len_of, message, Checker};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use windlass::{
    Bus, Error, ErrorKind, Publisher, Raw, RecvError, Start, Subscriber, Topic, TopicBuilder, Wait,
};

pub const ROLES: &[(&str, Role)] =
    &[("join.publisher", publisher), ("join.subscriber", subscriber)];

/// Publishes `count` messages at once, then says `done FIRST`.
fn publisher(scene: &Scene, line: &mut Line) {
    let topic = scene.bus().topic::<Raw>("t").open_existing().expect("the test created it");
    line.say("ready");
    line.hear();
    let mut publisher = topic.publisher().expect("there is a lane");
    let first = publisher.sequence();
    for _ in 0..scene.number("count") {
        traffic::publish_next(&mut publisher, 16, 400);
    }
    line.say(format_args!("done {first}"));
    line.stay();
}

/// Joins with `start=oldest` or `start=latest` once it is told to, says `first NUMBER` for its
/// first message, receives up to message `until`, and says `done`.
fn subscriber(scene: &Scene, line: &mut Line) {
    let topic = scene.bus().topic::<Raw>("t").open_existing().expect("the test created it");
    line.say("ready");
    line.hear();
    let start = if scene.text("start") == "oldest" { Start::Oldest } else { Start::Latest };
    let mut subscriber = topic.subscriber(start).expect("there is a slot");
    line.say("joined");
    let mut due = None;
    while due != Some(scene.number("until")) {
        let message = subscriber.recv(Wait::Block).expect("it is sound").expect("it is not closed");
        let number = message.sequence();
        check(message.bytes(), 0, number);
        match due {
            None => line.say(format_args!("first {number}")),
            Some(due) => assert_eq!(number, due),
        }
        due = Some(number + 1);
    }
    line.say("done");
}

fn small(bus: &Bus) -> TopicBuilder<Raw> {
    fixture::small(bus).publishers_max(4)
}

fn publish(publisher: &mut Publisher<Raw>, count: u64) {
    for _ in 0..count {
        traffic::publish_next(publisher, 16, 400);
    }
}

/// The sequence of the first message that a subscriber gets which joins with `start`.
fn first(topic: &Topic<Raw>, start: Start) -> Result<Option<u64>, Error> {
    let mut subscriber = topic.subscriber(start)?;
    let message = subscriber.try_recv().expect("the topic is sound");
    Ok(message.map(|message| message.sequence()))
}

fn refused(topic: &Topic<Raw>, start: Start) -> String {
    let error = topic.subscriber(start).map(drop).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
    error.to_string()
}

/// Everything that `Start` promises on a topic that retains `oldest..next`.
fn starts_are_exact(topic: &Topic<Raw>, oldest: u64, next: u64) {
    let first = |start| first(topic, start).expect("this start is retained");
    assert_eq!(first(Start::Latest), None);
    assert_eq!(first(Start::Oldest), (oldest < next).then_some(oldest));
    assert_eq!(first(Start::Last(0)), None);
    assert_eq!(first(Start::Last(u64::MAX)), first(Start::Oldest));
    assert_eq!(first(Start::Last(next - oldest)), first(Start::Oldest));
    assert_eq!(first(Start::Last(next - oldest + 1)), first(Start::Oldest));
    for back in 1..=next - oldest {
        assert_eq!(first(Start::Last(back)), Some(next - back));
        assert_eq!(first(Start::Sequence(next - back)), Some(next - back));
    }
    assert_eq!(first(Start::Sequence(next)), None, "the next one may be waited for");
    let names_both = |text: String| {
        let both = format!("oldest retained is {oldest}, the next to be published is {next}");
        assert!(text.contains(&both), "\"{text}\" does not say \"{both}\"");
    };
    names_both(refused(topic, Start::Sequence(next + 1)));
    names_both(refused(topic, Start::Sequence(u64::MAX)));
    if oldest > 0 {
        names_both(refused(topic, Start::Sequence(oldest - 1)));
        names_both(refused(topic, Start::Sequence(0)));
    }
}

fn every_kind(bus: &Bus) -> [TopicBuilder<Raw>; 4] {
    let named = |name| bus.topic(name).segment_bytes(4096).segments_per_lane(4).publishers_max(4);
    [
        named("reliable"),
        named("lossy").lossy(),
        named("ordered").ordered().order_slots(256),
        named("lossy-ordered").lossy().ordered().order_slots(256),
    ]
}

#[test]
fn every_start_is_exact_from_the_first_message_on() {
    let bus = anonymous();
    for builder in every_kind(&bus) {
        let topic = builder.create().expect("it is new");
        let mut publisher = topic.publisher().expect("there is a lane");
        for count in 0..20 {
            starts_are_exact(&topic, 0, count);
            publish(&mut publisher, 1);
        }
    }
}

#[test]
fn every_start_is_exact_after_segments_were_taken_back() {
    let bus = anonymous();
    for builder in every_kind(&bus) {
        let topic = builder.create().expect("it is new");
        let mut publisher = topic.publisher().expect("there is a lane");
        for _ in 0..30 {
            publish(&mut publisher, 31);
            let info = topic.info().expect("it is sound");
            let (mut oldest, next) = (info.publishers[0].oldest, publisher.sequence());
            if info.ordered {
                // The order log may retain less than the lane.
                let mut oldest_there = topic.subscriber(Start::Oldest).expect("there is a slot");
                let there = oldest_there.try_recv().expect("it is sound").expect("not empty");
                assert!(there.sequence() >= oldest);
                oldest = there.sequence();
            }
            starts_are_exact(&topic, oldest, next);
        }
        let oldest = topic.info().expect("it is sound").publishers[0].oldest;
        assert!(oldest > 500, "segments were taken back");
    }
}

/// A subscriber that asks for a message must not be given others without a word, even if nothing
/// was ever published.
#[test]
fn a_sequence_that_cannot_exist_yet_is_refused_on_a_fresh_topic() {
    let bus = anonymous();
    for builder in every_kind(&bus) {
        let topic = builder.create().expect("it is new");
        assert_eq!(first(&topic, Start::Sequence(0)).expect("the next one"), None);
        let text = refused(&topic, Start::Sequence(7));
        assert!(text.contains("has no sequence 7"), "{text}");
    }
}

#[test]
fn start_applies_to_every_lane() {
    let bus = anonymous();
    let topic = small(&bus).create().expect("it is new");
    let mut publishers: Vec<_> =
        (0..3).map(|_| topic.publisher().expect("there is a lane")).collect();
    for (publisher, count) in publishers.iter_mut().zip([5, 9, 7]) {
        publish(publisher, count);
    }
    let mut subscriber = topic.subscriber(Start::Last(2)).expect("there is a slot");
    let mut seen = Vec::new();
    while let Some(message) = subscriber.try_recv().expect("it is sound") {
        seen.push((message.lane(), message.sequence()));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(0, 3), (0, 4), (1, 7), (1, 8), (2, 5), (2, 6)]);
    let text = refused(&topic, Start::Sequence(6));
    assert!(text.contains("lane 0 has no sequence 6"), "{text}");
}

#[test]
fn last_one_of_a_lossy_topic_is_the_latest_value() {
    let bus = anonymous();
    let topic = small(&bus).lossy().create().expect("it is new");
    let mut publisher = topic.publisher().expect("there is a lane");
    for number in 0..500 {
        publish(&mut publisher, 1);
        assert_eq!(first(&topic, Start::Last(1)).expect("one is retained"), Some(number));
    }
}

fn received(subscriber: &mut Subscriber<Raw>, checker: &mut Checker) {
    loop {
        match subscriber.try_recv() {
            Ok(Some(message)) => checker.take(&message),
            Ok(None) => return,
            Err(RecvError::Lagged { missed }) => checker.lag(missed),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_lane_that_is_born_late_is_received_from_its_first_message() {
    let bus = anonymous();
    for builder in every_kind(&bus) {
        let topic = builder.create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        let mut checker = Checker::new(&topic);
        let mut publishers = Vec::new();
        for lanes in 1..=4 {
            let mut publisher = topic.publisher().expect("there is a lane");
            publish(&mut publisher, 10);
            publishers.push(publisher);
            received(&mut subscriber, &mut checker);
            assert_eq!(checker.finish(), (10 * lanes, 0));
        }
    }
}

/// On a lossy topic a lane may be born, and overtake a subscriber, before that has looked once.
#[test]
fn a_late_lane_that_overtakes_is_counted_from_its_first_message() {
    let bus = anonymous();
    for builder in every_kind(&bus).into_iter().skip(1).step_by(2) {
        let topic = builder.create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        let mut checker = Checker::new(&topic);
        let mut publishers: Vec<_> =
            (0..2).map(|_| topic.publisher().expect("there is a lane")).collect();
        publishers.iter_mut().for_each(|publisher| publish(publisher, 300));
        received(&mut subscriber, &mut checker);
        let (received, missed) = checker.finish();
        assert!(missed > 0, "it was overtaken");
        assert_eq!(received + missed, 600);
    }
}

#[test]
fn subscriber_first_and_publisher_first_begin_where_they_should() {
    for stage in [Stage::processes(), Stage::threads()] {
        let topic = small(&stage.bus()).segments_per_lane(8).create().expect("it is new");
        // Subscriber first: everything.
        let mut early = stage.start("join.subscriber", "start=latest until=80");
        early.hear("ready");
        early.say("go");
        early.hear("joined");
        let mut sending = stage.start("join.publisher", "count=40");
        sending.hear("ready");
        sending.say("go");
        assert_eq!(early.hear("first"), "0");
        assert_eq!(sending.hear("done"), "0");
        // Publisher first: what is retained, or what comes.
        let mut oldest = stage.start("join.subscriber", "start=oldest until=80");
        let mut latest = stage.start("join.subscriber", "start=latest until=80");
        for actor in [&mut oldest, &mut latest] {
            actor.hear("ready");
            actor.say("go");
            actor.hear("joined");
        }
        assert_eq!(oldest.hear("first"), "0");
        sending.finish();
        until("the lane is given back", || {
            topic.info().is_ok_and(|info| !info.publishers[0].alive)
        });
        // Another publisher goes on where the first one ended.
        let mut sending = stage.start("join.publisher", "count=40");
        sending.hear("ready");
        sending.say("go");
        assert_eq!(latest.hear("first"), "40");
        assert_eq!(sending.hear("done"), "40");
        sending.finish();
        for mut actor in [early, oldest, latest] {
            actor.hear("done");
            actor.finish();
        }
    }
}

#[test]
fn racing_to_join_loses_nothing_from_the_first_message_on() {
    for stage in [Stage::processes(), Stage::threads()] {
        for round in 0..scaled(15) {
            let bus = stage.bus();
            let topic = small(&bus).segments_per_lane(8).open().expect("it opens");
            let start = ["oldest", "latest"][usize::try_from(round % 2).expect("small")];
            let mut receiving = stage.start("join.subscriber", &format!("start={start} until=60"));
            let mut sending = stage.start("join.publisher", "count=50");
            receiving.hear("ready");
            sending.hear("ready");
            if round % 4 < 2 {
                receiving.say("go");
                sending.say("go");
            } else {
                sending.say("go");
                receiving.say("go");
            }
            receiving.hear("joined");
            let at_most = topic.info().expect("it is sound");
            let at_most = at_most.publishers.first().map_or(0, |lane| lane.published);
            sending.hear("done");
            sending.finish();
            // Enough for a subscriber that came after the last of them.
            let mut publisher = topic.publisher().expect("the lane is free");
            publish(&mut publisher, 10);
            let first = receiving.hear_number("first");
            match start {
                "oldest" => assert_eq!(first, 0),
                // It had joined by the time that so many were published.
                _ => assert!(first <= at_most, "began at {first} of {at_most}"),
            }
            receiving.hear("done");
            receiving.finish();
            drop(publisher);
            bus.remove_topic("t").expect("it exists");
        }
    }
}

#[test]
fn a_publisher_that_restarts_continues_its_lane() {
    let bus = anonymous();
    for builder in every_kind(&bus) {
        let topic = builder.create().expect("it is new");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
        let mut checker = Checker::new(&topic);
        let mut total = 0;
        for count in (0..40).chain([100, 1, 0, 2]) {
            let mut publisher = topic.publisher().expect("the lane is free");
            assert_eq!((publisher.lane(), publisher.sequence()), (0, total));
            // It may leave with a loan that it dropped.
            publisher.try_loan(64).expect("there is room").fill(0xff);
            for _ in 0..count {
                let payload = message(0, total, len_of(total, 16, 400));
                publisher.publish(&payload).expect("there is room");
                total += 1;
                received(&mut subscriber, &mut checker);
            }
        }
        assert_eq!(checker.finish(), (total, 0));
    }
}

/// Joining while a publisher takes segments back all the time: from the moment that the call
/// returns everything is delivered, and on a reliable topic nothing is missed.
#[test]
fn a_join_holds_under_a_publisher_that_never_stops() {
    let bus = anonymous();
    for builder in every_kind(&bus) {
        let topic = builder.create().expect("it is new");
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut publisher = topic.publisher().expect("there is a lane");
                while !stop.load(Relaxed) {
                    traffic::publish_next(&mut publisher, 16, 400);
                }
            });
            let _end = EndWhenDropped(&stop);
            for round in 0..scaled(240) {
                let start = match round % 3 {
                    0 => Start::Latest,
                    1 => Start::Oldest,
                    _ => Start::Last(5),
                };
                let mut subscriber = topic.subscriber(start).expect("there is a slot");
                receive_some(&topic, &mut subscriber);
            }
        });
    }
}

/// Receives some messages, which must be dense but for what is reported.
fn receive_some(topic: &Topic<Raw>, subscriber: &mut Subscriber<Raw>) {
    let lossy = topic.info().expect("it is sound").policy == windlass::Policy::Lossy;
    let (mut due, mut owed) = (None, 0);
    for _ in 0..40 {
        match subscriber.recv(Wait::Yield) {
            Ok(Some(message)) => {
                let number = traffic::number_of(message.bytes()).expect("it is whole");
                check(message.bytes(), 0, number);
                assert_eq!(number, message.sequence(), "one lane is its own order");
                assert_eq!(number - due.unwrap_or(number), owed);
                (due, owed) = (Some(number + 1), 0);
            }
            Err(RecvError::Lagged { missed }) if lossy => {
                owed += if due.is_some() { missed } else { 0 }
            }
            other => panic!("{other:?}"),
        }
    }
}
