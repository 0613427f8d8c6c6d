//! Everything that a process can do with queues, what came of it, and what may come of it.

use super::place::Promise::{self, Believed, Content, Noticed};
use super::queue::content;
use crate::traffic::number_of;
use std::path::Path;
use std::time::Duration;
use windlass::{
    Bus, DeadLetters, EnqueueError, Error, ErrorKind, Queue, Raw, TakeError, TokenError, Wait,
};

/// More than there are, and more than any damage may make of them.
const SEEN_MAX: usize = 1000;

/// How something ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Refused(ErrorKind),
    Untaken(TakeError),
    Unentered,
    Full,
    Tokens(TokenError),
}

impl End {
    fn is_notice(self) -> bool {
        use ErrorKind::{Corrupt, Mismatch};
        matches!(self, Self::Refused(Corrupt | Mismatch) | Self::Unentered)
            || matches!(self, Self::Untaken(TakeError::Corrupt) | Self::Tokens(TokenError::Corrupt))
    }

    fn is_documented(self) -> bool {
        use ErrorKind::{Closed, Limit};
        match self {
            Self::Well | Self::Full | Self::Tokens(TokenError::Full) => true,
            Self::Refused(Limit | Closed) | Self::Untaken(TakeError::TimedOut) => true,
            _ => self.is_notice(),
        }
    }
}

/// A message or token that was seen: its number if it is whole, and how often it was delivered.
type Seen = (Option<u64>, u32);

fn seen(bytes: &[u8], delivery: u32) -> Seen {
    (number_of(bytes).filter(|number| bytes == content(*number)), delivery)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Step {
    what: &'static str,
    saw: Vec<Seen>,
    end: End,
}

/// Everything that was done, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    steps: Vec<Step>,
}

impl Visit {
    fn note<R>(&mut self, what: &'static str, result: Result<R, Error>) -> Option<R> {
        let end = result.as_ref().map_or_else(|error| End::Refused(error.kind()), |_| End::Well);
        self.steps.push(Step { what, saw: Vec::new(), end });
        result.ok()
    }

    /// Opens the bus at `path` and does everything with its queues.
    pub fn of(path: &Path) -> Self {
        let mut visit = Self::default();
        let opened = Bus::options().existing().open(path.to_str().expect("it is text"));
        let Some(bus) = visit.note("open", opened) else { return visit };
        visit.note("inspect", bus.inspect_queue("q"));
        visit.note("inspect tokens", bus.inspect_tokens("t"));
        if let Some(queue) = visit.note("open queue", bus.queue::<Raw>("q").open_existing()) {
            if let Some(mut letters) = visit.note("open letters", queue.dead_letters()) {
                visit.letters(&mut letters);
            }
            visit.note("repair", bus.repair());
            visit.take(&queue);
            visit.enter(&queue);
        }
        visit.tokens(&bus);
        visit.note("inspect again", bus.inspect_queue("q"));
        visit
    }

    fn letters(&mut self, letters: &mut DeadLetters<Raw>) {
        let (mut saw, mut from, mut end) = (Vec::new(), 0, End::Well);
        loop {
            match letters.next_from(from) {
                Ok(Some(letter)) => {
                    saw.push(seen(letter.bytes(), letter.deliveries()));
                    from = letter.chunk() + 1;
                }
                Ok(None) => break,
                Err(error) => {
                    end = End::Refused(error.kind());
                    break;
                }
            }
        }
        self.steps.push(Step { what: "letters", saw, end });
    }

    /// Takes what is there, as long as an idle consumer needs to heal. An error does not end it at once: behind a
    /// message that cannot be read there may be others.
    fn take(&mut self, queue: &Queue<Raw>) {
        let Some(mut consumer) = self.note("consumer", queue.consumer()) else { return };
        let (mut saw, mut end, mut errors) = (Vec::new(), End::Well, 0);
        while saw.len() < SEEN_MAX && errors < 20 {
            match consumer.take(Wait::For(Duration::from_millis(12))) {
                Ok(Some(job)) => {
                    saw.push(seen(job.bytes(), job.delivery()));
                    if let Err(error) = job.ack() {
                        end = End::Untaken(error);
                    }
                }
                Ok(None) | Err(TakeError::TimedOut) => break,
                Err(error) => {
                    end = End::Untaken(error);
                    errors += 1;
                }
            }
        }
        self.steps.push(Step { what: "take", saw, end });
    }

    /// Enters and takes, more than once around the ring.
    fn enter(&mut self, queue: &Queue<Raw>) {
        let Some(mut consumer) = self.note("consumer", queue.consumer()) else { return };
        let Some(mut producer) = self.note("producer", queue.producer()) else { return };
        let (mut saw, mut end) = (Vec::new(), End::Well);
        for number in 100..150 {
            match producer.try_enqueue(&content(number)) {
                Ok(()) => {}
                Err(EnqueueError::Full { .. } | EnqueueError::Closed) => end = End::Full,
                Err(EnqueueError::Corrupt) => end = End::Unentered,
                Err(error) => panic!("{error}"),
            }
            match consumer.try_take() {
                Ok(Some(job)) => {
                    saw.push(seen(job.bytes(), job.delivery()));
                    let _ = job.ack();
                }
                Ok(None) => {}
                Err(error) => end = End::Untaken(error),
            }
        }
        self.steps.push(Step { what: "enter", saw, end });
    }

    fn tokens(&mut self, bus: &Bus) {
        let Some(tokens) = self.note("open tokens", bus.tokens("t").open_existing()) else {
            return;
        };
        let (mut saw, mut end) = (Vec::new(), End::Well);
        let mut pop = |saw: &mut Vec<Seen>| match tokens.pop() {
            Ok(token) => {
                saw.extend(token.map(|token| (Some(token), 0)));
                token.is_some()
            }
            Err(error) => {
                end = End::Tokens(error);
                false
            }
        };
        while saw.len() < SEEN_MAX && pop(&mut saw) {}
        let mut full = None;
        for token in 100..120 {
            full = tokens.push(token).err().or(full);
            pop(&mut saw);
        }
        if end == End::Well {
            end = full.map_or(End::Well, End::Tokens);
        }
        self.steps.push(Step { what: "tokens", saw, end });
        self.note("check tokens", tokens.check());
    }

    /// Fails unless this visit of sound files found what was left in them.
    pub fn assert_is_sound(&self) {
        assert!(self.steps.iter().all(|step| step.end == End::Well), "{self:?}");
        let numbers = |what: &str| {
            let of = self.steps.iter().filter(|step| step.what == what);
            of.flat_map(|step| &step.saw).map(|seen| seen.0).collect::<Vec<_>>()
        };
        assert_eq!(numbers("letters"), [Some(40)], "{self:?}");
        assert_eq!(numbers("take"), [42, 43, 44, 45, 41].map(Some), "{self:?}");
        assert_eq!(numbers("enter").len(), 50, "{self:?}");
    }

    /// What is wrong with this visit of damaged files, given that of the sound ones. If the damage `keeps` what waits,
    /// it comes out.
    pub fn judge(&self, sound: &Self, mut promise: Promise, keeps: bool) -> Result<(), String> {
        for (index, step) in self.steps.iter().enumerate() {
            let usual = sound.steps.get(index).filter(|usual| usual.what == step.what);
            if usual == Some(step) {
                continue;
            }
            let wrong = |why: &str| Err(format!("{why}: {step:?} instead of {usual:?}"));
            let all = |step: &Step| {
                let numbers: Vec<_> = step.saw.iter().map(|seen| seen.0).collect();
                usual.is_none_or(|usual| usual.saw.iter().all(|seen| numbers.contains(&seen.0)))
            };
            let known = |seen: &Seen| usual.is_some_and(|usual| usual.saw.contains(seen));
            match promise {
                Noticed if !step.end.is_notice() => return wrong("unnoticed"),
                Noticed if !step.saw.iter().all(known) => return wrong("noticed too late"),
                // What comes after the notice is another story, of whole messages still.
                Noticed => promise = Believed,
                Believed | Content if !step.end.is_documented() => return wrong("undocumented"),
                Believed if step.saw.iter().any(|seen| seen.0.is_none()) => {
                    return wrong("not whole");
                }
                // Entries are hints: whatever they say, what waits is delivered, or somebody is told.
                Believed if keeps && step.what == "take" && !step.end.is_notice() && !all(step) => {
                    return wrong("lost");
                }
                Believed | Content => {}
            }
            if step.saw.len() >= SEEN_MAX {
                return wrong("no end of it");
            }
        }
        Ok(())
    }
}
