//! Event stores: streams, versions, optimistic concurrency, snapshots; and keys.

use crate::durable::Logs;
use windlass::{
    Append, AppendError, Bus, ErrorKind, EventStore, Expected, Keys, Raw, Start, Topic, View,
};

fn topic(logs: &Logs, name: &str) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>(name).durable_at(logs.0.join(name)).segment_bytes(1 << 16);
    topic.open().expect("the log can be opened")
}

fn store(topic: &Topic<Raw>) -> EventStore<Raw> {
    EventStore::open(topic.clone()).expect("it is durable and keeps all")
}

fn text(view: View<Raw>) -> String {
    view.as_str().expect("it is text").to_owned()
}

#[test]
fn streams_are_read_in_their_order_and_all_events_in_theirs() {
    let logs = Logs::new("streams");
    let topic = topic(&logs, "events");
    let (one, other) = (store(&topic), store(&topic));
    for number in 0..3000u32 {
        let (store, key) = if number % 2 == 0 { (&one, "even") } else { (&other, "odd") };
        let event = format!("{number}");
        let appended = store.append(key.as_bytes(), event.as_bytes(), Expected::Any);
        assert_eq!(appended.expect("nothing was expected").id, u64::from(number));
    }
    for store in [&one, &other] {
        assert_eq!((store.count().ok(), store.last_id().ok()), (Some(3000), Some(Some(2999))));
        let odd = store.read_stream(b"odd").expect("sound");
        assert_eq!(odd.len(), 1500);
        for (at, event) in odd.enumerate() {
            assert_eq!(text(event.expect("sound")), format!("{}", at * 2 + 1));
        }
        let all = store.read(2990).expect("it is there");
        let all: Vec<_> = all.map(|event| text(event.expect("sound"))).collect();
        assert_eq!(all, (2990..3000).map(|n| n.to_string()).collect::<Vec<_>>());
        let last = store.read_stream(b"even").expect("sound").next_back().expect("there is one");
        assert_eq!(text(last.expect("sound")), "2998");
        assert_eq!(store.read_stream(b"none").expect("sound").len(), 0);
        assert_eq!(
            store.read(3001).map(drop).expect_err("it is refused").kind(),
            ErrorKind::OutOfRange
        );
    }
    let mut live = one.subscribe(2999).expect("a free slot");
    assert_eq!(live.try_recv().expect("sound").expect("it is there").key(), b"odd");
}

#[test]
fn of_those_who_expect_the_same_version_one_succeeds() {
    let logs = Logs::new("versions");
    let topic = topic(&logs, "events");
    let rounds = 200u64;
    let won = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let store = store(&topic);
                scope.spawn(move || {
                    let mut won = 0u64;
                    for round in 0..rounds {
                        match store.append(b"one", b"event", Expected::Version(round)) {
                            Ok(appended) => {
                                assert_eq!(appended.version, Some(round + 1));
                                won += 1;
                            }
                            Err(AppendError::Version { expected, found }) => {
                                assert!(expected == round && found > round);
                            }
                            Err(error) => panic!("{error}"),
                        }
                        // Others move other streams meanwhile; that is no conflict.
                        store.append(b"other", b"event", Expected::Any).expect("room");
                    }
                    won
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().expect("it ends well")).sum::<u64>()
    });
    let store = store(&topic);
    assert_eq!((won, store.version(b"one").ok()), (rounds, Some(rounds)));
    assert_eq!(store.version(b"other").ok(), Some(3 * rounds));
}

#[test]
fn a_snapshot_and_what_came_since_are_the_whole() {
    let logs = Logs::new("snapshots");
    for round in 0..2u64 {
        let (events, snapshots) = (topic(&logs, "events"), topic(&logs, "snapshots"));
        let store = store(&events).with_snapshots(&snapshots).expect("it is durable");
        let before = store.load(b"key").expect("sound");
        assert_eq!(
            before.snapshot.map(|it| (it.version, it.state.as_bytes().to_vec())),
            match round {
                0 => None,
                _ => Some((7, b"state 7".to_vec())),
            }
        );
        assert_eq!(before.events.len(), if round == 0 { 0 } else { 3 });
        for _ in 0..10 {
            store.append(b"key", b"event", Expected::Any).expect("room");
        }
        store.save_snapshot(b"key", 5, b"state 5").expect("room");
        store.save_snapshot(b"key", 7, b"state 7").expect("room");
        assert_eq!(store.load(b"key").expect("sound").events.len() as u64, 3 + round * 10);
    }
}

#[test]
fn a_store_says_what_it_cannot_do() {
    let logs = Logs::new("refused");
    let bus = Bus::anonymous().expect("there is memory");
    let volatile = bus.topic::<Raw>("volatile").open().expect("a fresh topic");
    assert_eq!(EventStore::open(volatile).expect_err("it is refused").kind(), ErrorKind::Invalid);
    let forgets = bus.topic::<Raw>("forgets").durable_at(logs.0.join("forgets"));
    let forgets = forgets.retain_bytes(1 << 30).open().expect("a fresh log");
    let refused = EventStore::open(forgets).expect_err("it is refused").to_string();
    assert!(refused.contains("retain_bytes"), "{refused}");
    let store = store(&topic(&logs, "events"));
    assert!(matches!(store.append(b"", b"event", Expected::Any), Err(AppendError::Store(_))));
    assert!(store
        .load(b"key")
        .map(drop)
        .expect_err("it is refused")
        .to_string()
        .contains("with_snapshots"));
}

#[test]
fn the_newest_message_of_a_key_is_where_it_lies() {
    let logs = Logs::new("keys");
    let topic = topic(&logs, "events");
    let mut publisher = topic.publisher().expect("a free lane");
    publisher.publish(b"without a key").expect("room");
    for number in 0..100u32 {
        let key = format!("key {}", number % 7);
        let append = Append::new().key(key.as_bytes());
        publisher.append(&number.to_le_bytes(), &append).expect("room");
    }
    let keys = Keys::new(&topic).expect("it is durable");
    assert!(keys.is_empty());
    assert_eq!(keys.follow().expect("sound"), 101);
    assert_eq!((keys.len(), keys.count(b"key 3"), keys.count(b"key 7")), (7, 14, 0));
    let newest = keys.latest(b"key 3").expect("sound").expect("there is one");
    assert_eq!((newest.as_bytes(), newest.key()), (&94u32.to_le_bytes()[..], &b"key 3"[..]));
    // The same bytes for everybody: nothing is copied.
    let again = keys.clone().latest(b"key 3").expect("sound").expect("there is one");
    assert_eq!(newest.as_bytes().as_ptr(), again.as_bytes().as_ptr());
    let mut subscriber = topic.subscriber(Start::Last(1)).expect("a free slot");
    assert_eq!(subscriber.try_recv().expect("sound").expect("there is one").key(), b"key 1");
}
