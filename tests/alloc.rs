//! Nothing is allocated per message: an allocator that counts, and every operation of the hot path.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::time::Duration;
use windlass::schemas::tick_capnp::tick;
use windlass::{
    Append, Bus, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Topic, TopicBuilder,
    View, Wait,
};

struct Counting;

thread_local! {
    // Of this thread only: the harness has others.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

fn count() {
    ALLOCATIONS.with(|count| count.set(count.get() + 1));
}

// SAFETY: everything is left to the allocator of the system.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(block, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.with(Cell::get);
    work();
    ALLOCATIONS.with(Cell::get) - before
}

/// Rounds that pass the end of the lane many times.
const ROUNDS: usize = 2000;

struct Pair {
    publisher: Publisher<Raw>,
    subscriber: Subscriber<Raw>,
    topic: Topic<Raw>,
}

fn pair(name: &str, set: impl FnOnce(TopicBuilder<Raw>) -> TopicBuilder<Raw>) -> Pair {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let builder = bus.topic(name).segment_bytes(4096).segments_per_lane(4);
    let topic = set(builder).create().expect("it is new");
    let subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let publisher = topic.publisher().expect("there is a lane");
    let mut pair = Pair { publisher, subscriber, topic };
    // The lane is mapped, and the first message found, once.
    send_and_receive(&mut pair);
    pair
}

fn send_and_receive(Pair { publisher, subscriber, .. }: &mut Pair) {
    publisher.publish(&[7; 100]).expect("there is room");
    let message = subscriber.try_recv().expect("it is sound").expect("it was published");
    assert_eq!(message.bytes(), [7; 100]);
}

/// What `round` allocates, many times over, on every kind of topic.
fn allocates_nothing(what: &str, mut round: impl FnMut(&mut Pair)) {
    let kinds = [
        pair("reliable", |builder| builder),
        pair("lossy", TopicBuilder::lossy),
        pair("ordered", |builder| builder.ordered().order_slots(256)),
    ];
    for mut pair in kinds {
        let count = allocations(|| (0..ROUNDS).for_each(|_| round(&mut pair)));
        assert_eq!(count, 0, "{what} on a topic that is {}", pair.topic.name());
    }
}

fn next(subscriber: &mut Subscriber<Raw>) -> windlass::Message<'_, Raw> {
    subscriber.try_recv().expect("it is sound").expect("it was published")
}

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| drop(Box::new(1))), 1);
    assert_eq!(allocations(|| drop(vec![0u8; 10])), 1);
    assert_eq!(allocations(|| {}), 0);
}

#[test]
fn publish_and_try_recv_allocate_nothing() {
    allocates_nothing("publish, try_recv", send_and_receive);
}

#[test]
fn every_way_to_publish_allocates_nothing() {
    allocates_nothing("loans", |Pair { publisher, subscriber, .. }| {
        publisher.loan(200).expect("there is room").fill(1);
        let mut loan = publisher.try_loan(200).expect("there is room");
        loan.fill(2);
        loan.publish_len(50).expect("there is room");
        assert_eq!(next(subscriber).bytes(), [2; 50]);
        let patience = Duration::from_secs(1);
        publisher.loan_timeout(9, patience).expect("there is room").publish().expect("there is");
        next(subscriber);
        publisher.publish_timeout(&[3; 9], patience).expect("there is room");
        next(subscriber);
        assert_eq!(publisher.publish_batch([[4; 20], [5; 20]]), Ok(2));
        next(subscriber);
        assert_eq!(next(subscriber).bytes(), [5; 20]);
    });
}

#[test]
fn every_way_to_receive_allocates_nothing() {
    allocates_nothing("recv, batch", |Pair { publisher, subscriber, .. }| {
        for wait in [Wait::Spin, Wait::Yield, Wait::Block, Wait::For(Duration::from_secs(1))] {
            publisher.publish(&[6; 60]).expect("there is room");
            let message = subscriber.recv(wait).expect("it is sound").expect("it is there");
            assert_eq!(message.bytes(), [6; 60]);
        }
        assert_eq!(publisher.publish_batch([[8; 60]; 5]), Ok(5));
        let mut seen = 0;
        while seen < 5 {
            let batch = subscriber.batch(10).expect("it is sound");
            seen += batch.filter(|message| message.bytes() == [8; 60]).count();
        }
        assert!(matches!(subscriber.try_recv(), Ok(None)));
    });
}

#[test]
fn views_allocate_nothing() {
    allocates_nothing("views", |Pair { publisher, subscriber, .. }| {
        publisher.publish(b"0123456789").expect("there is room");
        let view: View<Raw> = next(subscriber).pin();
        let (clone, slice) = (view.clone(), view.slice(2..5));
        let again = slice.slice(1..);
        assert_eq!((clone.as_bytes().len(), again.as_bytes()), (10, b"34".as_slice()));
        let weak = view.downgrade();
        drop((view, clone, slice, again));
        assert_eq!(weak.upgrade().expect("it is there").as_str(), Ok("0123456789"));
        assert!(weak.upgrade().is_some_and(|view| view.as_str_lossy() == "0123456789"));
    });
}

#[test]
fn bytes_of_a_view_cost_one_allocation_and_their_slices_none() {
    let Pair { mut publisher, mut subscriber, topic: _topic } = pair("bytes", |builder| builder);
    for _ in 0..ROUNDS {
        publisher.publish(b"0123456789").expect("there is room");
        let view = next(&mut subscriber).pin();
        let mut bytes = None;
        assert_eq!(allocations(|| bytes = Some(view.into_bytes())), 1);
        let bytes = bytes.expect("it was filled above");
        assert_eq!(allocations(|| drop((bytes.clone(), bytes.slice(2..4)))), 0);
    }
}

#[test]
fn typed_messages_cost_what_the_builder_of_capnp_allocates_and_reading_them_nothing() {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let topic = bus.topic::<tick::Owned>("ticks").segment_bytes(4096).create();
    let topic = topic.expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let mut send = |number: u64| {
        let mut loan = publisher.loan().expect("there is room");
        let mut root = loan.init_root();
        root.set_symbol("ACME");
        root.set_number(number);
        loan.publish().expect("there is room");
    };
    let mut receive = |number: u64| {
        let message = subscriber.try_recv().expect("it is sound").expect("it was published");
        let tick = message.get().expect("it is well formed");
        assert_eq!(tick.get_number(), number);
        assert_eq!(tick.get_symbol().expect("it is set"), "ACME");
    };
    // The first ones map the lane and find the size of a loan.
    (0..10).for_each(|number| {
        send(number);
        receive(number);
    });
    for number in 10..ROUNDS as u64 {
        let sent = allocations(|| send(number));
        assert!(sent <= 1, "{sent} allocations to send message {number}");
        assert_eq!(allocations(|| receive(number)), 0, "to receive message {number}");
    }
}

#[test]
fn a_channel_allocates_nothing() {
    use windlass::channel::RecvError;
    let (mut sender, mut receiver) = windlass::channel::pair(4096).expect("there is memory");
    let patience = Wait::For(Duration::from_millis(2));
    let count = allocations(|| {
        for round in 0..ROUNDS {
            sender.send(&[7; 100]).expect("there is room");
            let mut loan = sender.loan(200).expect("there is room");
            loan.fill(8);
            loan.commit_len(50).expect("it is whole");
            let mut group = sender.group();
            group.push(&[9; 20]).expect("there is room");
            group.build(30, |space| space.fill(10)).expect("there is room");
            group.commit().expect("it is whole");
            sender.send_batch([[11; 60], [12; 60]]).expect("there is room");
            assert_eq!(receiver.try_recv(), Ok(Some(&[7; 100][..])));
            assert_eq!(receiver.recv(Wait::Block), Ok(Some(&[8; 50][..])));
            assert_eq!(receiver.batch(9).expect("it is sound").count(), 4);
            assert_eq!(receiver.try_recv(), Ok(None));
            if round % 500 == 0 {
                assert_eq!(receiver.recv(patience).map(drop), Err(RecvError::TimedOut));
                while sender.try_send(&[1; 500]).is_ok() {}
                assert!(sender.send_waiting(&[1; 500], patience).is_err());
                while receiver.try_recv().is_ok_and(|message| message.is_some()) {}
            }
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn waiting_in_vain_allocates_nothing() {
    let Pair { mut subscriber, .. } = pair("in-vain", |builder| builder);
    let count = allocations(|| {
        for _ in 0..5 {
            let ended = subscriber.recv(Wait::For(Duration::from_millis(2))).map(drop);
            assert_eq!(ended, Err(RecvError::TimedOut));
        }
    });
    assert_eq!(count, 0);
}

#[test]
fn refusals_and_losses_allocate_nothing() {
    let Pair { mut publisher, subscriber: _subscriber, .. } = pair("full", |builder| builder);
    let count = allocations(|| {
        let mut refused = 0;
        for _ in 0..ROUNDS {
            match publisher.try_publish(&[7; 500]) {
                Err(PublishError::Full { .. }) => refused += 1,
                published => assert!(published.is_ok()),
            }
        }
        assert!(refused > 0);
    });
    assert_eq!(count, 0, "full");

    let Pair { mut publisher, mut subscriber, .. } = pair("overtaken", TopicBuilder::lossy);
    let count = allocations(|| {
        let mut lagged = 0;
        for _ in 0..20 {
            assert_eq!(publisher.publish_batch([[7; 500]; ROUNDS / 20]), Ok(100));
            loop {
                match subscriber.try_recv() {
                    Ok(Some(_)) => {}
                    Err(RecvError::Lagged { .. }) => lagged += 1,
                    end => break assert!(matches!(end, Ok(None))),
                }
            }
        }
        assert!(lagged > 0);
    });
    assert_eq!(count, 0, "overtaken");
}

#[test]
fn a_durable_topic_allocates_nothing_within_a_segment() {
    let folder = std::env::temp_dir().join(format!("windlass-alloc-{}", std::process::id()));
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let topic = bus.topic::<Raw>("durable").durable_at(&folder).create().expect("it is new");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let log = topic.log().expect("it is durable");
    let key = Append::new().key(b"key");
    let mut round = |at: u64| {
        publisher.append(&[7; 100], &key).expect("there is room");
        publisher.publish(&[8; 50]).expect("there is room");
        let kept = next(&mut subscriber).pin();
        assert_eq!(
            (kept.as_bytes(), kept.key(), next(&mut subscriber).bytes().len()),
            (&[7; 100][..], &b"key"[..], 50)
        );
        assert_eq!(log.get(at).expect("it is there").as_bytes(), kept.as_bytes());
    };
    round(0);
    assert_eq!(allocations(|| (1..ROUNDS as u64).for_each(|at| round(2 * at))), 0);
    drop((log, subscriber, publisher, topic));
    std::fs::remove_dir_all(folder).expect("nobody else removes it");
}

#[test]
fn raw_calls_allocate_nothing() {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let service = bus.service::<Raw, Raw>("calls").create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let mut server = service.server().expect("there is a slot");
    let patience = Duration::from_secs(1);
    let count = allocations(|| {
        for round in 0..ROUNDS {
            let pending = client.begin(&[round as u8; 100]).expect("there is a free call");
            let other = client.begin_with(8, |space| space.fill(1)).expect("there is a free call");
            for wait in [Wait::Spin, Wait::Block] {
                let call = server.take(wait).expect("it is sound").expect("it was made");
                assert_eq!((call.delivery(), call.is_abandoned()), (1, false));
                match call.bytes().len() {
                    100 => call.reply(&[7; 200]).expect("somebody waits"),
                    _ => call.reply_with(8, |space| space.fill(2)).expect("somebody waits"),
                }
            }
            assert_eq!(pending.wait(patience).expect("answered").bytes(), [7; 200]);
            assert_eq!(other.wait(patience).expect("answered").bytes(), [2; 8]);
            let mut stream = client.stream(&[], patience).expect("there is a free call");
            let mut answer = server.try_take().expect("sound").expect("it was made").stream();
            answer.send(&[3; 9]).expect("there is room");
            answer.finish().expect("there is room");
            assert_eq!(stream.next().expect("sent").expect("there is one").bytes(), [3; 9]);
            assert!(stream.next().expect("sent").is_none());
            drop(client.begin(&[]).expect("there is a free call"));
        }
    });
    assert_eq!(count, 0);
}
