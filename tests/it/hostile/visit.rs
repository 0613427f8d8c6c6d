//! Everything that a process can do with a bus, what came of it, and what may come of it.

use super::place::Promise;
use super::state::{content, State, LANES};
use crate::traffic::number_of;
use std::path::Path;
use windlass::{Bus, Error, ErrorKind, PublishError, Raw, RecvError, Start, Subscriber, Topic};

/// More messages than there are, and more than any damage may make of them.
const MESSAGES_MAX: usize = 4096;

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Well,
    Refused(ErrorKind),
    Unread(RecvError),
    Unpublished(PublishError),
}

impl End {
    /// Whether it says that something is damaged.
    fn is_notice(self) -> bool {
        matches!(
            self,
            Self::Refused(ErrorKind::Corrupt | ErrorKind::Mismatch)
                | Self::Unread(RecvError::Corrupt)
                | Self::Unpublished(PublishError::Corrupt)
        )
    }

    /// Whether the documentation names it as something that damage can do.
    fn is_documented(self) -> bool {
        use ErrorKind::{Closed, Limit, OutOfRange};
        match self {
            Self::Well => true,
            Self::Refused(Closed | Limit | OutOfRange) => true,
            Self::Unread(error) => !matches!(error, RecvError::Forked | RecvError::TimedOut),
            Self::Unpublished(error) => !matches!(error, PublishError::Forked),
            Self::Refused(_) => self.is_notice(),
        }
    }
}

/// A message that was seen: its lane and sequence, and the number that it carries if it is whole.
type Seen = (u32, u64, Option<u64>);

/// One thing that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    what: String,
    saw: Vec<Seen>,
    end: End,
}

/// Everything that was done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    steps: Vec<Step>,
}

impl Visit {
    fn note<R>(&mut self, what: &str, saw: Vec<Seen>, result: Result<R, Error>) -> Option<R> {
        let end = result.as_ref().map_or_else(|error| End::Refused(error.kind()), |_| End::Well);
        self.steps.push(Step { what: what.to_owned(), saw, end });
        result.ok()
    }

    /// Opens the bus at `path` and does everything with it.
    pub fn of(path: &Path, state: &State) -> Self {
        let mut visit = Self::default();
        let opened = Bus::options().existing().open(path.to_str().expect("it is text"));
        let Some(bus) = visit.note("open", vec![], opened) else { return visit };
        let _ = bus.nodes();
        visit.inspect(&bus);
        let opened = bus.topic::<Raw>("t").open_existing();
        if let Some(topic) = visit.note("open topic", vec![], opened) {
            visit.read_from_everywhere(&topic);
            let repaired = bus.repair();
            visit.note("repair", vec![], repaired);
            visit.publish(&topic, state);
            visit.read_from_everywhere(&topic);
        }
        visit.inspect(&bus);
        visit
    }

    fn inspect(&mut self, bus: &Bus) {
        let info = bus.inspect("t");
        let lanes = info.as_ref().map_or(&[][..], |info| &info.publishers);
        let saw = lanes.iter().map(|lane| (lane.lane, lane.published, Some(lane.oldest)));
        self.note("inspect", saw.collect(), info);
    }

    fn read_from_everywhere(&mut self, topic: &Topic<Raw>) {
        let from = |start| (format!("read from {start:?}"), topic.subscriber(start));
        for start in [
            Start::Oldest,
            Start::Latest,
            Start::Last(1),
            Start::Last(9),
            Start::Sequence(290),
            Start::Sequence(u64::MAX),
        ] {
            let (what, subscriber) = from(start);
            match subscriber {
                Ok(mut subscriber) => {
                    let (saw, end) = read(&mut subscriber);
                    let _ = (subscriber.lag(), subscriber.missed());
                    self.steps.push(Step { what, saw, end });
                }
                Err(error) => drop(self.note::<()>(&what, vec![], Err(error))),
            }
        }
    }

    /// Publishes until the lane has rolled, beside a subscriber that reads.
    fn publish(&mut self, topic: &Topic<Raw>, state: &State) {
        let subscriber = topic.subscriber(Start::Latest);
        let Some(mut subscriber) = self.note("subscribe", vec![], subscriber) else { return };
        let Some(mut publisher) = self.note("join", vec![], topic.publisher()) else { return };
        let (mut saw, mut read_back, mut end) = (vec![], vec![], End::Well);
        for turn in 0..150 {
            let (lane, number) = (publisher.lane(), publisher.sequence());
            match publisher.try_publish(&content(lane, number)) {
                // On an ordered topic the receipt tells the place in the order.
                Ok(receipt) => saw.push((receipt.lane, receipt.sequence, Some(number))),
                Err(error) => end = End::Unpublished(error),
            }
            if end != End::Well {
                break;
            }
            if turn % 10 == 9 {
                read_back.extend(read(&mut subscriber).0);
            }
        }
        if let End::Unpublished(PublishError::Full { .. }) = end {
            // Who blocks has another node number in each visit.
            end = End::Unpublished(PublishError::Closed);
        }
        self.steps.push(Step { what: format!("publish in {}", state.name), saw, end });
        let (more, end) = read(&mut subscriber);
        read_back.extend(more);
        self.steps.push(Step { what: "read back".to_owned(), saw: read_back, end });
    }

    /// What is wrong with this visit of damaged files, given that of the sound ones.
    pub fn judge(&self, sound: &Self, promise: Promise) -> Result<(), String> {
        // Once damage was noticed, what comes after it is another story, of whole messages still.
        let mut promise = promise;
        for (index, step) in self.steps.iter().enumerate() {
            let usual = &sound.steps.get(index).filter(|usual| usual.what == step.what);
            let same = usual.is_some_and(|usual| usual == step);
            if same {
                continue;
            }
            let wrong = |why: &str| {
                let nothing = Step { what: "nothing".to_owned(), saw: vec![], end: End::Well };
                Err(format!("{why}: {}", step.differs_from(usual.unwrap_or(&nothing))))
            };
            let beginning = usual.is_some_and(|usual| step.is_beginning_of(usual));
            match promise {
                Promise::Noticed if !step.end.is_notice() => return wrong("unnoticed"),
                Promise::Noticed if !beginning => return wrong("noticed too late"),
                Promise::Noticed => promise = Promise::Believed,
                Promise::Believed if !step.end.is_documented() => return wrong("undocumented"),
                Promise::Believed if !step.is_whole() => return wrong("not whole"),
                Promise::Content if !step.end.is_documented() => return wrong("undocumented"),
                Promise::Believed | Promise::Content => {}
            }
            if step.saw.len() >= MESSAGES_MAX {
                return wrong("no end of it");
            }
        }
        Ok(())
    }
}

impl Step {
    /// Whether this saw of every lane what the usual one saw of it first.
    fn is_beginning_of(&self, usual: &Self) -> bool {
        (0..LANES as u32).all(|lane| {
            let of_lane = |step: &Self| -> Vec<Seen> {
                step.saw.iter().copied().filter(|seen| seen.0 == lane).collect()
            };
            of_lane(usual).starts_with(&of_lane(self))
        })
    }

    /// Where this step differs from the usual one, in one line.
    fn differs_from(&self, usual: &Self) -> String {
        let at = self.saw.iter().zip(&usual.saw).take_while(|(one, other)| one == other).count();
        let (mine, other) = (&self.saw, &usual.saw);
        format!(
            "{} ended {:?} after {} ({:?} at {at}), instead of {} ended {:?} after {} ({:?})",
            self.what,
            self.end,
            mine.len(),
            mine.get(at),
            usual.what,
            usual.end,
            other.len(),
            other.get(at)
        )
    }

    /// Whether every message is one that was published, and those of a lane come in their order.
    fn is_whole(&self) -> bool {
        if self.what == "inspect" {
            return true;
        }
        let mut last = std::collections::BTreeMap::new();
        self.saw.iter().all(|(lane, _, number)| match number {
            Some(number) => last.insert(*lane, *number).is_none_or(|last| last < *number),
            None => false,
        })
    }
}

/// Reads until there is nothing more, at least for as long as damage may hide from whoever waits.
fn read(subscriber: &mut Subscriber<Raw>) -> (Vec<Seen>, End) {
    let (mut saw, mut vain) = (Vec::new(), 0);
    while vain < 300 && saw.len() < MESSAGES_MAX {
        match subscriber.try_recv() {
            Ok(Some(message)) => {
                let (lane, bytes) = (message.lane(), message.bytes());
                let number = number_of(bytes).filter(|number| bytes == content(lane, *number));
                if saw.len() % 16 == 5 {
                    let view = message.pin();
                    let weak = view.downgrade();
                    let again = weak.upgrade();
                    assert!(again.is_none_or(|again| again.as_bytes() == view.as_bytes()));
                }
                saw.push((lane, message.sequence(), number));
            }
            Ok(None) => vain += 1,
            Err(RecvError::Lagged { .. }) => {}
            Err(error) => return (saw, End::Unread(error)),
        }
    }
    (saw, End::Well)
}
