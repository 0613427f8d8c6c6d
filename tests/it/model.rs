//! Random operations on a topic, next to a model that is two lines long: what was published is a
//! list, and a subscriber is a place in it.
//!
//! The model does not know segments, laps, gates or pins. It says what must come next, and whether
//! a refusal is excusable: full needs somebody who is behind or holds views, a loss needs a lossy
//! topic, and every loss must be reported, exactly, before the message after it.

use super::process::scaled;
use super::traffic;
use proptest::prelude::*;
use std::collections::VecDeque;
use windlass::{
    BlockReason, Bus, ErrorKind, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Topic,
    View, WeakView,
};

/// Something that a user may do. Indexes count modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    Publish { lane: usize, len: usize },
    Batch { lane: usize, lens: Vec<usize> },
    Loan { lane: usize, len: usize, used: usize },
    DropLoan { lane: usize, len: usize },
    Restart { lane: usize },
    Join(Start),
    Leave { subscriber: usize },
    Receive { subscriber: usize, count: usize },
    ReceiveBatch { subscriber: usize, max: usize },
    Pin { subscriber: usize },
    Clone { view: usize },
    Slice { view: usize, from: usize },
    Unpin { view: usize },
    Upgrade { weak: usize },
}

/// Lengths around everything that matters to a segment of 4 KiB, and longer than fits.
fn lens() -> impl Strategy<Value = usize> {
    prop_oneof![4 => 16usize..600, 2 => 1900usize..2100, 1 => 3900usize..4200]
}

fn steps() -> impl Strategy<Value = Step> {
    let index = 0..8usize;
    prop_oneof![
        12 => (0..2usize, lens()).prop_map(|(lane, len)| Step::Publish { lane, len }),
        2 => (0..2usize, proptest::collection::vec(lens(), 0..8))
            .prop_map(|(lane, lens)| Step::Batch { lane, lens }),
        4 => (0..2usize, lens(), any::<prop::sample::Index>()).prop_map(|(lane, len, used)| {
            Step::Loan { lane, len, used: 16 + used.index(len - 15) }
        }),
        2 => (0..2usize, lens()).prop_map(|(lane, len)| Step::DropLoan { lane, len }),
        1 => (0..2usize).prop_map(|lane| Step::Restart { lane }),
        2 => prop_oneof![
            Just(Start::Latest),
            Just(Start::Oldest),
            (0..40u64).prop_map(Start::Last),
            (0..200u64).prop_map(Start::Sequence),
        ].prop_map(Step::Join),
        1 => index.clone().prop_map(|subscriber| Step::Leave { subscriber }),
        8 => (index.clone(), 1..20usize)
            .prop_map(|(subscriber, count)| Step::Receive { subscriber, count }),
        3 => (index.clone(), 0..20usize)
            .prop_map(|(subscriber, max)| Step::ReceiveBatch { subscriber, max }),
        3 => index.clone().prop_map(|subscriber| Step::Pin { subscriber }),
        1 => index.clone().prop_map(|view| Step::Clone { view }),
        1 => (index.clone(), 0..16usize).prop_map(|(view, from)| Step::Slice { view, from }),
        4 => index.clone().prop_map(|view| Step::Unpin { view }),
        3 => index.prop_map(|weak| Step::Upgrade { weak }),
    ]
}

/// A message as the model remembers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    lane: u32,
    number: u64,
    len: usize,
}

/// A subscriber and its place in the list of each lane, or in the one list of an ordered topic.
struct Follower {
    subscriber: Subscriber<Raw>,
    due: [u64; 2],
    owed: u64,
    /// It has looked and found nothing. Before, what it has read may not be known to publishers.
    settled: bool,
}

struct World {
    topic: Topic<Raw>,
    ordered: bool,
    lossy: bool,
    publishers: Vec<Publisher<Raw>>,
    /// What was published: by lane, or, on an ordered topic, all of it in the first list.
    sent: [VecDeque<Sent>; 2],
    followers: Vec<Follower>,
    views: Vec<(View<Raw>, Sent, usize)>,
    weak: VecDeque<(WeakView<Raw>, Sent)>,
}

impl World {
    fn new(bus: &Bus, ordered: bool, lossy: bool) -> Self {
        let builder = bus.topic("t").segment_bytes(4096).segments_per_lane(4).publishers_max(2);
        let builder = if lossy { builder.lossy() } else { builder.reliable() };
        let builder = if ordered { builder.ordered().order_slots(256) } else { builder };
        let topic = builder.create().expect("it is new");
        let publishers = (0..2).map(|_| topic.publisher().expect("there is a lane")).collect();
        Self {
            topic,
            ordered,
            lossy,
            publishers,
            sent: Default::default(),
            followers: Vec::new(),
            views: Vec::new(),
            weak: VecDeque::new(),
        }
    }

    fn list(&self, lane: u32) -> usize {
        if self.ordered {
            0
        } else {
            lane as usize
        }
    }

    /// Notes that a message was published, or checks why it was not.
    fn note(&mut self, lane: usize, len: usize, result: Result<windlass::Receipt, PublishError>) {
        let max = self.publishers[lane].payload_bytes_max();
        match result {
            Ok(receipt) => {
                let number = self.publishers[lane].sequence() - 1;
                let list = self.list(receipt.lane);
                assert_eq!(receipt.lane as usize, lane);
                assert_eq!(receipt.sequence, self.sent[list].len() as u64, "dense");
                self.sent[list].push_back(Sent { lane: receipt.lane, number, len });
            }
            Err(PublishError::TooLarge { need, max: said }) => {
                assert!(len > max && (need, said) == (len as u64, max as u64));
            }
            Err(PublishError::Full { blocker }) => {
                let behind = |follower: &Follower| {
                    let lists = self.sent.iter().zip(follower.due);
                    let unread: u64 = lists.map(|(list, due)| list.len() as u64 - due).sum();
                    unread > 0 || !follower.settled
                };
                let mine = |follower: &&Follower| follower.subscriber.slot() == blocker.slot;
                let follower = self.followers.iter().find(mine);
                match blocker.reason {
                    BlockReason::Views => assert!(!self.views.is_empty() || self.lossy),
                    _ => assert!(!self.lossy && follower.is_some_and(behind), "{blocker:?}"),
                }
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn publish(&mut self, lane: usize, len: usize) {
        let publisher = &mut self.publishers[lane];
        let payload = traffic::message(publisher.lane(), publisher.sequence(), len);
        let result = publisher.try_publish(&payload);
        self.note(lane, len, result);
    }

    fn loan(&mut self, lane: usize, len: usize, used: Option<usize>) {
        let publisher = &mut self.publishers[lane];
        let (index, number) = (publisher.lane(), publisher.sequence());
        let result = publisher.try_loan(len).and_then(|mut loan| {
            loan.fill(0xaa);
            let Some(used) = used else { return Ok(None) };
            traffic::write(&mut loan[..used], index, number);
            loan.publish_len(used).map(Some)
        });
        if let Some(result) = result.transpose() {
            // What does not fit is refused for what was asked for, not for what would be used.
            let len = if result.is_ok() { used.unwrap_or(len) } else { len };
            self.note(lane, len, result);
        }
    }

    fn join(&mut self, start: Start) {
        if self.followers.len() >= 3 {
            return;
        }
        let info = self.topic.info().expect("it is sound");
        match self.topic.subscriber(start) {
            Ok(subscriber) => {
                let due = [0, 1].map(|list| {
                    let next = self.sent[list].len() as u64;
                    let oldest = info.publishers[list].oldest;
                    match start {
                        Start::Latest => next,
                        Start::Oldest if self.ordered => u64::MAX,
                        Start::Oldest => oldest,
                        Start::Last(_) if self.ordered => u64::MAX,
                        Start::Last(count) => next.saturating_sub(count).max(oldest),
                        Start::Sequence(sequence) => sequence.min(next),
                        Start::Time(_) => next,
                    }
                });
                self.followers.push(Follower { subscriber, due, owed: 0, settled: false });
                let newest = self.followers.len() - 1;
                self.settle(newest, start);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
                let Start::Sequence(sequence) = start else { panic!("{error}") };
                let lists = if self.ordered { 1 } else { 2 };
                let absent = |list: usize| {
                    let next = self.sent[list].len() as u64;
                    sequence > next || self.ordered || sequence < info.publishers[list].oldest
                };
                assert!((0..lists).any(absent), "{error}");
            }
        }
    }

    /// On an ordered topic what is retained is seen by looking: takes the place from the first
    /// message of a second subscriber with the same start.
    fn settle(&mut self, follower: usize, start: Start) {
        let unknown = self.followers[follower].due[0] == u64::MAX;
        if !unknown {
            return;
        }
        let next = self.sent[0].len() as u64;
        let mut twin = self.topic.subscriber(start).expect("there is a slot");
        let first = twin.try_recv().expect("it is sound").map_or(next, |first| first.sequence());
        if let Start::Last(count) = start {
            assert!(first >= next.saturating_sub(count));
        }
        self.followers[follower].due = [first, 0];
    }

    /// Takes one message; false if there was none.
    fn receive(&mut self, follower: usize, pin: bool) -> bool {
        let lossy = self.lossy;
        let Follower { subscriber, due, owed, settled } = &mut self.followers[follower];
        let sent = &self.sent;
        *settled = false;
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                let list = if self.ordered { 0 } else { message.lane() as usize };
                let missing = message.sequence() - due[list];
                assert!(missing <= *owed, "{missing} messages are missing, {owed} reported");
                *owed -= missing;
                due[list] = message.sequence() + 1;
                let sent = sent[list][usize::try_from(message.sequence()).expect("small")];
                assert_eq!((message.lane(), message.bytes().len()), (sent.lane, sent.len));
                traffic::check(message.bytes(), sent.lane, sent.number);
                if pin {
                    let view = message.pin();
                    self.weak.push_back((view.downgrade(), sent));
                    self.views.push((view, sent, 0));
                    self.weak.drain(..self.weak.len().saturating_sub(8));
                }
                true
            }
            Ok(None) => {
                let lists = sent.iter().zip(*due);
                let behind: u64 = lists.map(|(list, due)| list.len() as u64 - due).sum();
                assert_eq!((behind, *owed), (0, 0), "nothing came, and there is something");
                *settled = true;
                false
            }
            Err(RecvError::Lagged { missed }) if lossy => {
                *owed += missed;
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn receive_batch(&mut self, follower: usize, max: usize) {
        let ordered = self.ordered;
        let Follower { subscriber, due, owed, settled } = &mut self.followers[follower];
        *settled = false;
        match subscriber.batch(max) {
            Ok(batch) => {
                let messages: Vec<_> = batch.collect();
                assert!(messages.len() <= max);
                for message in messages {
                    let list = if ordered { 0 } else { message.lane() as usize };
                    let missing = message.sequence() - due[list];
                    assert!(missing <= *owed, "{missing} messages are missing in a batch");
                    *owed -= missing;
                    due[list] = message.sequence() + 1;
                    let sent = self.sent[list][usize::try_from(message.sequence()).expect("small")];
                    traffic::check(message.bytes(), sent.lane, sent.number);
                }
            }
            Err(RecvError::Lagged { missed }) if self.lossy => *owed += missed,
            Err(error) => panic!("{error}"),
        }
    }

    fn restart(&mut self, lane: usize) {
        let old = self.publishers.remove(lane);
        let (index, sequence) = (old.lane(), old.sequence());
        drop(old);
        let new = self.topic.publisher().expect("the lane is free");
        assert_eq!((new.lane(), new.sequence()), (index, sequence), "it goes on");
        self.publishers.insert(lane, new);
    }

    /// Every view still has its bytes, whatever was done.
    fn look_at_views(&self) {
        for (view, sent, from) in &self.views {
            let whole = traffic::message(sent.lane, sent.number, sent.len);
            assert_eq!(view.as_bytes(), &whole[*from..]);
        }
    }

    fn step(&mut self, step: &Step) {
        let followers = self.followers.len().max(1);
        let views = self.views.len().max(1);
        match step {
            Step::Publish { lane, len } => self.publish(*lane, *len),
            Step::Batch { lane, lens } => lens.iter().for_each(|len| self.publish(*lane, *len)),
            Step::Loan { lane, len, used } => self.loan(*lane, *len, Some(*used)),
            Step::DropLoan { lane, len } => self.loan(*lane, *len, None),
            Step::Restart { lane } => self.restart(*lane),
            Step::Join(start) => self.join(*start),
            Step::Leave { subscriber } if !self.followers.is_empty() => {
                self.followers.remove(subscriber % followers);
            }
            Step::Receive { subscriber, count } if !self.followers.is_empty() => {
                (0..*count).all(|_| self.receive(subscriber % followers, false));
            }
            Step::ReceiveBatch { subscriber, max } if !self.followers.is_empty() => {
                self.receive_batch(subscriber % followers, *max);
            }
            Step::Pin { subscriber } if !self.followers.is_empty() => {
                self.receive(subscriber % followers, true);
            }
            Step::Clone { view } if !self.views.is_empty() => {
                let (view, sent, from) = &self.views[view % views];
                let clone = (view.clone(), *sent, *from);
                self.views.push(clone);
            }
            Step::Slice { view, from } if !self.views.is_empty() => {
                let (view, sent, cut) = &self.views[view % views];
                let from = (*from).min(view.as_bytes().len());
                let slice = (view.slice(from..), *sent, cut + from);
                self.views.push(slice);
            }
            Step::Unpin { view } if !self.views.is_empty() => {
                self.views.swap_remove(view % views);
            }
            Step::Upgrade { weak } if !self.weak.is_empty() => {
                let (weak, sent) = &self.weak[weak % self.weak.len()];
                if let Some(view) = weak.upgrade() {
                    traffic::check(view.as_bytes(), sent.lane, sent.number);
                }
            }
            _ => {}
        }
        self.look_at_views();
    }

    /// Everybody reads to the end, everything is let go, and the topic is as new.
    fn end(mut self) {
        self.views.clear();
        for follower in 0..self.followers.len() {
            while self.receive(follower, false) {}
        }
        let before = self.sent.clone();
        (0..2).for_each(|lane| self.publish(lane, 3000));
        let grown = |(now, then): (&VecDeque<_>, &VecDeque<_>)| now.len() - then.len();
        assert_eq!(self.sent.iter().zip(&before).map(grown).sum::<usize>(), 2, "nobody blocks");
        for Follower { subscriber, .. } in &mut self.followers {
            let mut last = 0;
            while let Some(message) = subscriber.try_recv().expect("it is sound") {
                last = message.bytes().len();
            }
            assert_eq!(last, 3000);
        }
        self.followers.clear();
        let info = self.topic.info().expect("it is sound");
        assert!(info.subscribers.is_empty(), "{:?}", info.subscribers);
    }
}

fn play(steps: &[Step], ordered: bool, lossy: bool) {
    let bus = Bus::anonymous().expect("there is memory for a bus");
    let mut world = World::new(&bus, ordered, lossy);
    steps.iter().for_each(|step| world.step(step));
    world.end();
}

fn config() -> ProptestConfig {
    let cases = u32::try_from(scaled(48)).expect("a sane scale");
    ProptestConfig { max_shrink_iters: 5000, ..ProptestConfig::with_cases(cases) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_reliable_topic_is_a_list(steps in proptest::collection::vec(steps(), 1..400)) {
        play(&steps, false, false);
    }

    #[test]
    fn a_lossy_topic_is_a_list_with_reported_gaps(
        steps in proptest::collection::vec(steps(), 1..400),
    ) {
        play(&steps, false, true);
    }

    #[test]
    fn an_ordered_topic_is_one_list(steps in proptest::collection::vec(steps(), 1..400)) {
        play(&steps, true, false);
    }

    #[test]
    fn a_lossy_ordered_topic_is_one_list_with_reported_gaps(
        steps in proptest::collection::vec(steps(), 1..400),
    ) {
        play(&steps, true, true);
    }
}
