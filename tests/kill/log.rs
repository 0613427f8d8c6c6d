//! A durable topic: what its processes do until they are killed, and the books of what they did.
//!
//! A role says `try <lane> <number>` before it publishes and `has <lane> <number> <sequence>` once that is committed.
//! The books are held against the log itself: every record once, whole, in the order of its lane, under the sequence
//! that its publisher was told, with no gap.

use crate::content;
use crate::process::say;
use crate::role::{self, TOPIC};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use windlass::{
    Append, Bus, Log, PublishError, Publisher, Raw, Receipt, RecvError, Start, Subscriber,
    SyncPolicy, Topic, TopicBuilder, Wait,
};

/// What the roles of this file begin with.
pub const ROLES: &str = "log.";
/// Longest wait for anything: the kernel of a busy machine may take its time.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Publishers of a topic.
pub const LANES: u32 = 4;
/// Places of a piece of the order.
pub const PLACES: u64 = 1 << 17;
/// Records of a log that is about to begin its second piece.
pub const NEARLY: u64 = PLACES - 20;

/// Bytes of a file in front of what it is about.
const HEADER_BYTES: u64 = 4096;

pub type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

/// Where the log of the topic lies: beside the bus.
pub fn folder(bus: &Path) -> PathBuf {
    bus.with_file_name("log")
}

/// The options of a durable topic; `kind` is `durable`, `durable-each`, `durable-large`, of
/// which a segment has room for a piece of the order, `durable-timed`, which is that and put on disk often, or
/// `durable-kept`, of which only the newest messages are kept.
pub fn options(bus: &Bus, path: &Path, kind: &str) -> TopicBuilder<Raw> {
    let topic = bus.topic::<Raw>(TOPIC).durable_at(folder(path));
    let topic = topic.publishers_max(LANES).subscribers_max(12);
    match kind {
        "durable-each" => topic.segment_bytes(role::SEGMENT_BYTES).sync(SyncPolicy::Each),
        "durable-large" => topic.segment_bytes(8 << 20),
        "durable-timed" => {
            topic.segment_bytes(8 << 20).sync(SyncPolicy::Every(Duration::from_millis(2)))
        }
        "durable-kept" => {
            let topic = topic.segment_bytes(1 << 14).retain_bytes(1 << 16);
            topic.sync(SyncPolicy::Every(Duration::from_millis(2)))
        }
        _ => topic.segment_bytes(role::SEGMENT_BYTES),
    }
}

/// Opens the topic, or makes it.
pub fn topic(bus: &Bus, path: &Path, kind: &str) -> windlass::Result<Topic<Raw>> {
    options(bus, path, kind).open()
}

/// Plays one of the roles.
pub fn play(path: &Path, role: &str, kind: &str, count: u64) -> Outcome {
    let bus = role::bus(path)?;
    let topic = topic(&bus, path, kind)?;
    match role {
        "log.publish" => publish(&topic, count),
        "log.contend" => contend(&topic, count),
        "log.cursor" => consume(&topic, count),
        "log.open" => {
            publish(&topic, count)?;
            follow(&mut topic.subscriber(Start::Last(5))?, 5)
        }
        "log.stream" => {
            say("joined");
            publish(&topic, u64::MAX)
        }
        "log.follow" => {
            say("joined");
            loop {
                follow(&mut topic.subscriber(Start::Oldest)?, 5000)?;
                follow(&mut topic.subscriber(Start::Latest)?, 50)?;
            }
        }
        role => Err(format!("there is no role {role}").into()),
    }
}

fn publish(topic: &Topic<Raw>, count: u64) -> Outcome {
    let mut publisher = topic.publisher()?;
    for turn in 0..count {
        let (lane, number) = (publisher.lane(), publisher.sequence());
        say(&format!("try {lane} {number}"));
        let receipt = send(&mut publisher, turn)?;
        say(&format!("has {lane} {number} {}", receipt.sequence));
        if turn % 8 == 7 {
            // Long enough that subscribers fall asleep.
            crate::process::pause(Duration::from_millis(2));
        }
    }
    Ok(())
}

/// Publishes the next message of a lane in one of the ways there are.
fn send(publisher: &mut Publisher<Raw>, turn: u64) -> Outcome<Receipt> {
    let (lane, number) = (publisher.lane(), publisher.sequence());
    let message = content::message(lane, number, 0);
    let receipt = match turn % 4 {
        1 => {
            let mut loan = publisher.loan(message.len())?;
            loan.copy_from_slice(&message);
            loan.publish()?
        }
        2 => {
            publisher.loan(700)?.fill(0xA5);
            publisher.publish(&message)?
        }
        3 => publisher.append(&message, &Append::new().key(b"a key"))?,
        _ => publisher.publish(&message)?,
    };
    if receipt.lane != lane || publisher.sequence() != number + 1 {
        return Err(format!("{receipt:?} for message {number} of lane {lane}").into());
    }
    Ok(receipt)
}

/// Publishes each message only as the one that it takes to be the next.
fn contend(topic: &Topic<Raw>, count: u64) -> Outcome {
    let (mut publisher, log) = (topic.publisher()?, topic.log()?);
    let mut won = 0;
    while won < count {
        let next = log.next()?;
        let (lane, number) = (publisher.lane(), publisher.sequence());
        say(&format!("try {lane} {number}"));
        let message = content::message(lane, number, 0);
        match publisher.append(&message, &Append::new().at(next)) {
            Ok(receipt) if receipt.sequence == next => {
                won += 1;
                say(&format!("has {lane} {number} {next}"));
            }
            Ok(receipt) => return Err(format!("{receipt:?}, and {next} was wanted").into()),
            Err(PublishError::Conflict) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The name of a cursor.
const CURSOR: &str = "billing";

/// Moves a cursor on by one, again and again.
fn consume(topic: &Topic<Raw>, count: u64) -> Outcome {
    drop(topic.cursor("spare")?);
    topic.remove_cursor("spare")?;
    let mut cursor = topic.cursor(CURSOR)?;
    for _ in 0..count {
        let next = cursor.next().unwrap_or(0) + 1;
        say(&format!("mark {next}"));
        cursor.commit(next)?;
        say(&format!("marked {next}"));
    }
    Ok(())
}

/// Reads so many messages, as far as they come, and checks what can be checked without books.
fn follow(subscriber: &mut Subscriber<Raw>, count: u64) -> Outcome {
    let (mut due, mut numbers) = (None, BTreeMap::new());
    for _ in 0..count {
        match subscriber.recv(Wait::For(Duration::from_millis(40))) {
            Ok(Some(message)) => check(&message, &mut due, &mut numbers)?,
            Ok(None) => return Err("nobody closed the topic".into()),
            Err(RecvError::TimedOut) => return Ok(()),
            Err(RecvError::Lagged { missed }) => pass(missed, &mut due, &mut numbers),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A message is whole, and follows the one before it in the order and in its lane.
fn check(
    message: &windlass::Message<'_, Raw>,
    due: &mut Option<u64>,
    numbers: &mut BTreeMap<u32, u64>,
) -> Outcome {
    let (content, sequence) = (content::read(message.bytes())?, message.sequence());
    let lane = numbers.entry(content.lane).or_insert(content.sequence);
    if due.is_some_and(|due| due != sequence) || *lane != content.sequence {
        let text = format!("{content:?} came as {sequence}; due were {due:?} and {lane}");
        return Err(text.into());
    }
    if content.lane != message.lane() {
        return Err(format!("{content:?} came from lane {}", message.lane()).into());
    }
    (*due, *lane) = (Some(sequence + 1), *lane + 1);
    Ok(())
}

/// So many messages are not kept.
fn pass(missed: u64, due: &mut Option<u64>, numbers: &mut BTreeMap<u32, u64>) {
    *due = due.map(|due| due + missed);
    numbers.clear();
}

/// Somebody who lives on: publishes, and follows the order from the beginning of the books.
pub struct Survivor {
    pub topic: Topic<Raw>,
    publisher: Publisher<Raw>,
    subscriber: Subscriber<Raw>,
    due: Option<u64>,
    numbers: BTreeMap<u32, u64>,
}

impl Survivor {
    pub fn join(topic: Topic<Raw>, books: &Books) -> Outcome<Self> {
        let (publisher, (from, numbers)) = (topic.publisher()?, books.begin(&topic)?);
        let subscriber = topic.subscriber(Start::Sequence(from))?;
        let due = Some(from);
        Ok(Self { topic, publisher, subscriber, due, numbers })
    }

    /// Publishes a message and follows the order up to it.
    pub fn go_on(&mut self, books: &mut Books) -> Outcome {
        let (lane, number) = (self.publisher.lane(), self.publisher.sequence());
        books.tried.insert((lane, number));
        let receipt = self.publisher.publish(&content::message(lane, number, 0))?;
        books.has.insert((lane, number), receipt.sequence);
        let end = Instant::now() + LIMIT;
        while self.due <= Some(receipt.sequence) {
            match self.subscriber.recv(Wait::For(LIMIT)) {
                Ok(Some(message)) => check(&message, &mut self.due, &mut self.numbers)?,
                Err(RecvError::Lagged { missed }) => {
                    pass(missed, &mut self.due, &mut self.numbers);
                }
                other => return Err(format!("a survivor gets {other:?}").into()),
            }
            if Instant::now() > end {
                return Err("a survivor does not get its own message".into());
            }
        }
        Ok(())
    }

    /// Gives its lane back, takes all of them, and publishes in each.
    pub fn inherit(self, books: &mut Books) -> Outcome {
        let Self { topic, publisher, .. } = self;
        drop(publisher);
        let heirs: windlass::Result<Vec<_>> = (0..LANES).map(|_| topic.publisher()).collect();
        for mut heir in heirs? {
            for turn in 0..3 {
                books.send(&mut heir, turn)?;
            }
        }
        Ok(())
    }
}

/// What was tried, and what was acknowledged.
#[derive(Debug, Default)]
pub struct Books {
    /// Sequence of the first record that the books are about, and the number of the first one of each lane.
    pub base: u64,
    pub numbers: BTreeMap<u32, u64>,
    /// Records, by lane and number.
    pub tried: BTreeSet<(u32, u64)>,
    pub has: BTreeMap<(u32, u64), u64>,
    /// Where the cursor was to be put last, and where it was put for sure.
    marks: (u64, u64),
    /// How far the log went when it was held against the books, and the next number of each lane.
    end: u64,
    numbers_at_end: BTreeMap<u32, u64>,
    pub faults: Vec<String>,
}

impl Books {
    /// Enters what somebody said. False if that is about something else.
    pub fn heard(&mut self, line: &str) -> bool {
        let mut words = line.split(' ');
        let word = words.next();
        let numbers: Vec<u64> = words.map_while(|word| word.parse().ok()).collect();
        match (word, &numbers[..]) {
            (Some("try"), [lane, number]) => drop(self.tried.insert((*lane as u32, *number))),
            (Some("has"), [lane, number, sequence]) => {
                let before = self.has.insert((*lane as u32, *number), *sequence);
                if before.is_some_and(|before| before != *sequence) {
                    self.faults.push(format!("{line}, and it had {before:?} before"));
                }
            }
            (Some("mark"), [next]) => self.marks.0 = *next,
            (Some("marked"), [next]) => self.marks.1 = *next,
            _ => return false,
        }
        true
    }

    fn send(&mut self, publisher: &mut Publisher<Raw>, turn: u64) -> Outcome {
        let record = (publisher.lane(), publisher.sequence());
        self.tried.insert(record);
        let receipt = send(publisher, turn)?;
        self.has.insert(record, receipt.sequence);
        Ok(())
    }

    /// Where the log begins, as far as these books know of it, and the numbers that are due there.
    fn begin(&self, topic: &Topic<Raw>) -> Outcome<(u64, BTreeMap<u32, u64>)> {
        let first = topic.log()?.first()?;
        Ok(match first > self.base {
            true => (first, BTreeMap::new()),
            false => (self.base, self.numbers.clone()),
        })
    }

    /// Forgets what was found to be there. From here on the books are about what follows.
    pub fn turn_the_page(&mut self, path: &Path) -> Outcome {
        let end = Log::<Raw>::open(folder(path))?.next()?;
        if end != self.end {
            return Err(format!("the log ends at {end}, not {}", self.end).into());
        }
        (self.base, self.numbers) = (end, std::mem::take(&mut self.numbers_at_end));
        (self.tried, self.has) = Default::default();
        Ok(())
    }

    /// Forgets what is lost: everything from this sequence on.
    pub fn cut(&mut self, next: u64) {
        self.has.retain(|_, sequence| *sequence < next);
    }

    /// Holds the log against the books, and publishes one more message.
    pub fn balance(&mut self, path: &Path, topic: &Topic<Raw>) -> Outcome {
        self.send(&mut topic.publisher()?, 0)?;
        let (from, mut numbers) = self.begin(topic)?;
        let mut subscriber = topic.subscriber(Start::Sequence(from))?;
        let (mut due, mut found, mut first) = (Some(from), BTreeMap::new(), from);
        loop {
            match subscriber.try_recv() {
                Ok(Some(message)) => {
                    check(&message, &mut due, &mut numbers)?;
                    let content = content::read(message.bytes())?;
                    found.insert((content.lane, content.sequence), message.sequence());
                }
                Ok(None) => break,
                // The keeper of the publisher above deletes what is too much.
                Err(RecvError::Lagged { missed }) => {
                    pass(missed, &mut due, &mut numbers);
                    first = due.unwrap_or(first);
                }
                Err(error) => return Err(error.into()),
            }
        }
        let strangers: Vec<_> = found.keys().filter(|key| !self.tried.contains(key)).collect();
        let is_kept = |sequence: u64| sequence >= first;
        let kept = self.has.iter().filter(|(_, sequence)| is_kept(**sequence));
        let wrong: Vec<_> =
            kept.filter(|(key, sequence)| found.get(key) != Some(sequence)).collect();
        if !strangers.is_empty() || !wrong.is_empty() {
            let text = format!("nobody published {strangers:?}; {wrong:?} are not there");
            self.faults.push(text);
        }
        let log = Log::<Raw>::open(folder(path))?;
        if Some(log.next()?) != due {
            self.faults.push(format!("the log goes up to {}, not {due:?}", log.next()?));
        }
        let mut scan = log.scan(log.first()?.max(first)..)?;
        while let Some(record) = scan.read() {
            if let Err(damage) = record {
                self.faults.push(format!("a scan finds {damage:?}"));
            }
        }
        if self.marks.0 > 0 {
            let next = topic.cursor(CURSOR)?.next().unwrap_or(0);
            if !(self.marks.1..=self.marks.0).contains(&next) {
                self.faults.push(format!("a cursor is at {next}, and should be: {:?}", self.marks));
            }
        }
        (self.end, self.numbers_at_end) = (due.unwrap_or(from), numbers);
        Ok(())
    }
}

/// A log that is about to begin its second piece, to be copied.
pub struct Template {
    folder: PathBuf,
}

impl Template {
    pub fn make(kind: &str) -> Outcome<Self> {
        let id = std::process::id();
        let folder = PathBuf::from(format!("/dev/shm/windlass-kill-log-{id}-{kind}"));
        std::fs::create_dir(&folder)?;
        let template = Self { folder };
        for round in 0..2 {
            // The second time puts a checkpoint behind everything, so that recoveries are quick.
            let path = template.folder.join(format!("bus-{round}"));
            let topic = topic(&role::bus(&path)?, &path, kind)?;
            let mut publisher = topic.publisher()?;
            while publisher.sequence() < NEARLY {
                publisher.publish(b"long ago")?;
            }
            // All summaries of times but the last one.
            let end = Instant::now() + LIMIT;
            while kind == "durable-timed" && !template.is_summarised()? && Instant::now() < end {
                crate::process::pause(Duration::from_millis(2));
            }
        }
        Ok(template)
    }

    /// Whether there is a summary of the last block of places but one of the first piece.
    fn is_summarised(&self) -> Outcome<bool> {
        use std::os::unix::fs::FileExt;
        let piece = std::fs::File::open(self.folder.join("log/places-000000000000"))?;
        let mut latest = [0; 8];
        piece
            .read_exact_at(&mut latest, HEADER_BYTES + PLACES * 8 + (PLACES / 4096 - 2) * 16 + 8)?;
        Ok(latest != [0; 8])
    }

    /// Makes it the log of the topic of this bus.
    pub fn copy(&self, bus: &Path, books: &mut Books) -> Outcome {
        let (from, to) = (self.folder.join("log"), folder(bus));
        std::fs::create_dir(&to)?;
        for entry in std::fs::read_dir(&from)? {
            let entry = entry?;
            std::fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
        (books.base, books.numbers) = (NEARLY, BTreeMap::from([(0, NEARLY)]));
        Ok(())
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        // What cannot be removed is in nobody's way.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Loses what a log can do without: its claim, its checkpoint, and the beginning of a piece of its order.
pub fn lose_files(bus: &Path) -> Outcome {
    use std::os::unix::fs::FileExt;
    for name in ["claim", "checkpoint"] {
        std::fs::remove_file(folder(bus).join(name))?;
    }
    let piece = folder(bus).join("places-000000000000");
    std::fs::File::options().write(true).open(piece)?.write_all_at(&[0; 64], 0)?;
    Ok(())
}

/// Where the claim of a log says which run of the machine it was used in.
const RUN_AT: u64 = HEADER_BYTES + 8;

/// Clears the place of a sequence, as a crash of the machine may; the run of the machine is another one then.
pub fn lose_place(bus: &Path, sequence: u64) -> Outcome {
    use std::os::unix::fs::FileExt;
    let name = format!("places-{:012x}", sequence / PLACES);
    let file = std::fs::File::options().write(true).open(folder(bus).join(name))?;
    file.write_all_at(&[0; 8], HEADER_BYTES + sequence % PLACES * 8)?;
    let claim = std::fs::File::options().write(true).open(folder(bus).join("claim"))?;
    claim.write_all_at(&[0xA5; 8], RUN_AT)?;
    Ok(())
}
