//! What a publisher owes the dead, the evicted and the damaged.

use super::*;
use crate::layout::owner::State;
use crate::limits::LINE;
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use crate::{Bus, RecvError, Start, Topic};

fn topic(build: impl FnOnce(crate::TopicBuilder<Raw>) -> crate::TopicBuilder<Raw>) -> Topic<Raw> {
    let bus = Bus::anonymous().expect("there is memory");
    let small = bus.topic::<Raw>("bytes").segment_bytes(4096).segments_per_lane(3);
    build(small).open().expect("a fresh topic")
}

#[test]
fn a_lane_whose_maker_died_before_it_told_anybody_is_read() {
    let topic = topic(|topic| topic.publishers_max(1));
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    assert!(subscriber.try_recv().expect("sound").is_none());
    let told = topic.core.born_count();
    drop(topic.publisher().expect("a free lane"));
    // As if it had been killed between the two stores of `set_born`.
    topic.core.control.word(control::BORN_COUNT_AT).store(told, Relaxed);
    topic.publisher().expect("a free lane").publish(b"first").expect("room");
    let message = subscriber.try_recv().expect("sound").expect("it was published");
    assert_eq!(message.bytes(), b"first");
}

#[test]
fn a_joiner_that_stops_before_it_clears_old_pins_holds_nobody_up() {
    let topic = topic(|topic| topic.lossy());
    let mut publisher = topic.publisher().expect("a free lane");
    let core = &topic.core;
    let lanes = core.shape.publishers_max as usize;
    for physical in 0..3 {
        core.pins.pin(publisher.lane, physical, 0);
    }
    core.control.word(control::SLOTS_HIGH_AT).store(1, Relaxed);
    let word = core.control.word(core.shape.slots_at());
    assert!(core.shape.slots_at() + LINE + lanes * 8 < core.shape.pins_at());
    word.store(Owner::new(core.member.node(), 1, State::Joining).0, Relaxed);
    for _ in 0..20 {
        publisher.try_publish(&[7; 1000]).expect("nobody is in the way");
    }
    word.store(Owner::new(core.member.node(), 1, State::Active).0, Relaxed);
    let refused = (0..20).find_map(|_| publisher.try_publish(&[7; 1000]).err());
    assert!(matches!(refused, Some(PublishError::Full { .. })), "{refused:?}");
}

#[test]
fn the_pins_of_the_dead_are_dropped_though_somebody_living_holds_views_too() {
    let topic = topic(|topic| topic.lossy());
    let mut publisher = topic.publisher().expect("a free lane");
    let core = &topic.core;
    let stride = LINE + (core.shape.publishers_max as usize * 8).next_multiple_of(LINE);
    let owner_word = |slot: usize| core.control.word(core.shape.slots_at() + slot * stride);
    // Whichever of the two segments is looked at last: the living holds the other one.
    let dead = u32::MAX;
    for (dead_slot, living_slot) in [(0, 1), (1, 0)] {
        core.control.word(control::SLOTS_HIGH_AT).store(2, Relaxed);
        core.pins.clear(0);
        core.pins.clear(1);
        owner_word(dead_slot).store(Owner::new(dead, 1, State::Active).0, Relaxed);
        let me = core.member.node();
        owner_word(living_slot).store(Owner::new(me, 1, State::Active).0, Relaxed);
        let current = (publisher.writer.payload_at() - 4096) / 4096;
        let [other, another] = [1, 2].map(|turn| (current + turn) % 3);
        core.pins.pin(publisher.lane, other, dead_slot);
        core.pins.pin(publisher.lane, another, living_slot);
        for _ in 0..5 {
            publisher.try_publish(&[7; 1000]).expect("the dead hold nothing");
        }
    }
}

#[test]
fn the_gate_of_a_lane_that_is_opened_late_never_falls_back() {
    let topic = topic(|topic| topic.ordered().publishers_max(2));
    let mut subscriber = topic.subscriber(Start::Latest).expect("a free slot");
    let [mut first, mut second] = [(); 2].map(|()| topic.publisher().expect("a free lane"));
    // As if this lane had been born, and filled to here, while the subscriber joined.
    let gate = 3 * 4096 + 16;
    topic.core.slots.set_gate(subscriber.slot() as usize, second.lane, gate);
    first.publish(b"another lane").expect("room");
    assert!(subscriber.try_recv().expect("sound").is_some());
    assert!(subscriber.try_recv().expect("sound").is_none());
    let now = topic.core.slots.gate_of(subscriber.slot() as usize, second.lane);
    assert_eq!(now, gate);
    second.publish(b"this lane").expect("room");
}

#[test]
fn a_publisher_that_only_tries_evicts_as_well() {
    let limit = Duration::from_millis(20);
    let topic = topic(|topic| topic.evict_after(limit));
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    let mut publisher = topic.publisher().expect("a free lane");
    let mut published = 0;
    let began = Instant::now();
    while published < 20 {
        match publisher.try_publish(&[7; 1000]) {
            Ok(_) => published += 1,
            Err(PublishError::Full { .. }) => std::thread::yield_now(),
            Err(error) => panic!("{error}"),
        }
        assert!(began.elapsed() < Duration::from_secs(30), "nobody was evicted");
    }
    assert!(began.elapsed() >= limit);
    let news = std::iter::repeat_with(|| subscriber.try_recv().map(|found| found.is_some()));
    assert!(matches!(news.take(20).find_map(Result::err), Some(RecvError::Evicted { .. })));
}

#[test]
fn a_forked_child_pins_nothing_and_commits_nothing() {
    let topic = topic(|topic| topic);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    let mut publisher = topic.publisher().expect("a free lane");
    publisher.publish(b"whole").expect("room");
    let view = subscriber.try_recv().expect("sound").expect("it was published").pin();
    let lane = publisher.lane;
    let pins = || (0..3).map(|n| topic.core.pins.count(lane, n, 0)).sum::<u64>();
    let before = pins();
    let mut loan = publisher.loan(4).expect("room");
    loan.fill(1);
    let child = sys::testing::fork_and(|| {
        std::mem::forget((view.clone(), view.slice(1..)));
        i32::from(loan.publish() != Err(PublishError::Forked))
    });
    let ended = nix::sys::wait::waitpid(child, None).expect("it ends");
    assert_eq!(ended, nix::sys::wait::WaitStatus::Exited(child, 0));
    assert_eq!(pins(), before);
    assert!(subscriber.try_recv().expect("sound").is_none());
}

#[test]
fn numbers_that_no_publisher_writes_end_nothing_but_the_call() {
    let hostile = [1, 2, 1 << 20, 1 << 47, u64::MAX >> 17, u64::MAX >> 1, u64::MAX - 1, u64::MAX];
    let starts = [Start::Oldest, Start::Latest, Start::Last(3), Start::Sequence(2)];
    // The bounds and the table of the lane, the head of its first segment, and the words of the order log.
    let lane = [128, 136, 1024, 1032, 4096, 4104, 4112].map(|at| ("lane-0", at));
    let order = [4096, 4096 + LINE, 4096 + LINE + 8].map(|at| ("order", at));
    for (file, at) in lane.into_iter().chain(order) {
        for value in hostile {
            for published in [1, 20] {
                let topic = topic(|topic| topic.ordered());
                let mut present = topic.subscriber(Start::Oldest).expect("a free slot");
                let mut publisher = topic.publisher().expect("a free lane");
                for _ in 0..published {
                    publisher.publish(&[7; 1000]).expect("room");
                    present.try_recv().expect("sound");
                }
                let file = topic.core.folder.open_file(file, Access::Write).expect("it exists");
                let len = file.metadata().expect("a file").len();
                let region = map::map(&file, "a file", Access::Write, len, &Loss::default())
                    .expect("it maps");
                region.word(at).store(value, Relaxed);
                for start in starts {
                    if let Ok(mut subscriber) = topic.subscriber(start) {
                        for _ in 0..10 {
                            let _ = subscriber.try_recv().map(drop);
                        }
                        let _ = subscriber.lag();
                    }
                }
                for _ in 0..10 {
                    let _ = present.try_recv().map(drop);
                }
                let _ = topic.info().map(drop);
                drop(publisher);
                let _ = topic.publisher().map(|mut heir| heir.try_publish(b"more"));
            }
        }
    }
}

/// Cuts a file of the topic to `len` bytes.
fn cut(topic: &Topic<Raw>, file: &str, len: u64) {
    let file = topic.core.folder.open_file(file, Access::Write).expect("it exists");
    file.set_len(len).expect("it is ours");
}

#[test]
fn a_message_whose_pages_are_gone_is_never_said_to_be_published() {
    let topic = topic(|topic| topic);
    let mut publisher = topic.publisher().expect("a free lane");
    publisher.publish(&[7; 1000]).expect("room");
    cut(&topic, "lane-0", 4096);
    assert_eq!(publisher.publish(&[7; 1000]), Err(PublishError::Corrupt));
    assert_eq!(publisher.publish(&[7; 1000]), Err(PublishError::Corrupt));
    let whole = |topic: &Topic<Raw>| topic.publisher().map(drop).map_err(|error| error.kind());
    assert_eq!(whole(&topic), Err(ErrorKind::Corrupt));
    assert_eq!(topic.info().map(drop).map_err(|error| error.kind()), Err(ErrorKind::Corrupt));
    assert!(topic.subscriber(Start::Latest).is_err());
}

#[test]
fn a_segment_is_not_taken_because_the_pages_of_its_pins_are_gone() {
    let topic = topic(|topic| topic.lossy());
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    let mut publisher = topic.publisher().expect("a free lane");
    publisher.publish(&[1; 1000]).expect("room");
    let view = subscriber.try_recv().expect("sound").expect("it was published").pin();
    // Until the segment of the view is the next one that could be taken.
    while publisher.writer.payload_at() < 4096 + 2 * 4096 || publisher.writer.has_room(1000) {
        publisher.try_publish(&[1; 1000]).expect("two segments are free");
        while subscriber.try_recv().expect("sound").is_some() {}
    }
    let pins_at = topic.core.shape.pins_at() as u64;
    assert!(pins_at.next_multiple_of(4096) < topic.core.control.len() as u64);
    cut(&topic, "control", pins_at / 4096 * 4096);
    let refused = (0..20).find_map(|_| publisher.try_publish(&[2; 1000]).err());
    assert_eq!(refused, Some(PublishError::Corrupt));
    assert!(view.as_bytes().iter().all(|byte| *byte == 1), "the view was overwritten");
}

#[test]
fn whoever_only_waits_learns_that_a_file_was_cut_within_a_page() {
    for (file, ordered) in
        [("lane-0", false), ("control", false), ("lane-0", true), ("order", true)]
    {
        for looks in [false, true] {
            let topic = topic(|topic| if ordered { topic.ordered() } else { topic });
            let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
            let mut publisher = topic.publisher().expect("a free lane");
            publisher.publish(&[1; 1000]).expect("room");
            assert!(subscriber.try_recv().expect("sound").is_some());
            let len = topic.core.folder.open_file(file, Access::Read).expect("it exists");
            let len = len.metadata().expect("a file").len();
            // All that the subscriber looks at stays.
            cut(&topic, file, len - 5000);
            let mut recv = || match looks {
                true => subscriber.try_recv().map(drop),
                false => subscriber.recv(crate::Wait::For(Duration::from_secs(1))).map(drop),
            };
            let told = (0..2000).find_map(|_| recv().err());
            assert_eq!(told, Some(RecvError::Corrupt), "{file} {ordered} {looks}");
        }
    }
}

#[test]
fn a_log_that_claims_to_be_endless_is_refused_in_time() {
    let topic = topic(|topic| topic.ordered());
    let mut publisher = topic.publisher().expect("a free lane");
    publisher.publish(b"one").expect("room");
    drop(publisher);
    let file = topic.core.folder.open_file("order", Access::Write).expect("it exists");
    let len = file.metadata().expect("a file").len();
    let log = map::map(&file, "a file", Access::Write, len, &Loss::default()).expect("it maps");
    let far = 1 << 60;
    log.word(crate::layout::order::TAIL_AT).store(far, Relaxed);
    log.word(crate::layout::order::FLOOR_AT).store(far, Relaxed);
    log.word(crate::layout::order::ORDERED_AT).store(0, Relaxed);
    let (say, said) = std::sync::mpsc::channel();
    std::thread::spawn(move || say.send(topic.publisher().map(drop).map_err(|e| e.kind())));
    let told = said.recv_timeout(Duration::from_secs(100)).expect("it is refused in time");
    assert!(told.is_ok() || told == Err(ErrorKind::Corrupt), "{told:?}");
}
