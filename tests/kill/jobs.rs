//! A work queue whose producers and consumers are killed at random instants, and sometimes only stopped for a while.
//!
//! Each process keeps a book in a file of its own, which outlives it: a producer what it tried and what it did, a
//! consumer each message before and after it acknowledged it. The parent reads the book of whoever was killed, and at
//! the end compares all of them: nothing is lost, nothing is acknowledged twice, a second delivery says that it is one,
//! and every chunk is free again. The parent itself produces and consumes after each death: that is how soon survivors
//! go on.

use crate::figures::{show, Times};
use crate::place::Place;
use crate::process::{self, say, Event, Fate, Process};
use crate::random::{number, Dice};
use crate::role;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use windlass::{Bus, Consumer, Producer, Queue, Raw, RepairReport, Wait};

pub const GIVE: &str = "jobs.give";
pub const WORK: &str = "jobs.work";

const KILLS: u64 = 300;
const PRODUCERS: usize = 4;
const CONSUMERS: usize = 4;
/// Messages that a consumer has at a time.
const HELD_MAX: u64 = 3;
/// The producer that is this process; the others count up from the next number.
const PARENT: u32 = 1;
/// Longest wait for anything: the kernel of a busy machine may take its time.
const LIMIT: Duration = Duration::from_secs(30);
/// Most deaths cost a survivor no more than this.
const RECOVERY_MAX: Duration = Duration::from_millis(100);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

fn queue(bus: &Bus) -> windlass::Result<Queue<Raw>> {
    bus.queue("q").chunks(16, 64).chunks(4, 512).max_deliveries(255).open()
}

/// Message `number` of producer `id`, of a size of its own.
fn message(id: u32, number: u32) -> Vec<u8> {
    let len = 8 + if number % 7 == 6 { 60 + number % 400 } else { number % 48 } as usize;
    let mut bytes = vec![(id * 31 + number) as u8; len];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    bytes[4..8].copy_from_slice(&number.to_le_bytes());
    bytes
}

/// Who sent these bytes, and under which number, if they are whole.
fn read(bytes: &[u8]) -> Outcome<(u32, u32)> {
    let word =
        |at: usize| bytes.get(at..at + 4).map(|word| word.try_into().map(u32::from_le_bytes));
    let (Some(Ok(id)), Some(Ok(number))) = (word(0), word(4)) else { return Err("short".into()) };
    match bytes == message(id, number) {
        true => Ok((id, number)),
        false => Err(format!("message {number} of {id} is torn").into()),
    }
}

/// What a line of a consumer's book says.
const TAKEN: u32 = 1;
const DONE: u32 = 2;
const RETURNED: u32 = 3;

fn note(book: &mut File, (id, number): (u32, u32), delivery: u32, what: u32) -> Outcome {
    let words = [id, number, delivery, what].map(u32::to_le_bytes);
    Ok(book.write_all(&words.concat())?)
}

/// Plays one of the roles for as long as it lives. The book is that of the path in `book`.
pub fn play(path: &Path, role: &str, book: &str, id: u64) -> Outcome {
    let queue = queue(&role::bus(path)?)?;
    let book = File::create(book)?;
    match role {
        GIVE => give(queue.producer()?, &book, u32::try_from(id)?),
        _ => work(queue.consumer()?, book),
    }
}

fn give(mut producer: Producer<Raw>, book: &File, id: u32) -> Outcome {
    say("ready");
    for number in 1.. {
        book.write_all_at(&u32::to_le_bytes(number), 0)?;
        let bytes = message(id, number);
        if number % 5 == 0 {
            drop(producer.loan_timeout(bytes.len(), LIMIT)?);
        }
        let mut loan = producer.loan_timeout(bytes.len(), LIMIT)?;
        loan.copy_from_slice(&bytes);
        loan.enqueue()?;
        book.write_all_at(&u32::to_le_bytes(number), 4)?;
    }
    Ok(())
}

fn work(mut consumer: Consumer<Raw>, mut book: File) -> Outcome {
    say("ready");
    loop {
        if let Some(job) = consumer.take(Wait::Block)? {
            let (what, delivery) = (read(job.bytes())?, job.delivery());
            note(&mut book, what, delivery, TAKEN)?;
            let returns = delivery == 1 && what.1 % 40 < 3;
            if returns {
                note(&mut book, what, delivery, RETURNED)?;
            }
            match what.1 % 40 {
                0 if returns => job.nack()?,
                1 if returns => drop(job),
                2 if returns => job.nack_after(Duration::from_millis(2))?,
                _ => {
                    job.ack()?;
                    note(&mut book, what, delivery, DONE)?;
                }
            }
        }
        let jobs: Vec<_> = consumer.batch(HELD_MAX as usize)?.collect();
        for job in &jobs {
            note(&mut book, read(job.bytes())?, job.delivery(), TAKEN)?;
        }
        for job in jobs {
            let (what, delivery) = (read(job.bytes())?, job.delivery());
            job.ack()?;
            note(&mut book, what, delivery, DONE)?;
        }
    }
}

/// What is known of one message.
#[derive(Clone, Copy, Default)]
struct Message {
    /// Somebody had its first delivery.
    first: bool,
    /// Somebody acknowledged it, and said so.
    done: bool,
    /// Somebody died with it, perhaps after the acknowledgement.
    unsure: bool,
}

/// The books of all producers and consumers.
#[derive(Default)]
struct Books {
    /// What a producer did for sure, and what it tried.
    sent: HashMap<u32, (u32, u32)>,
    messages: HashMap<u32, Vec<Message>>,
    /// Deliveries other than the first.
    again: HashSet<(u32, u32, u32)>,
    returned: u64,
    acknowledged: u64,
    faults: Vec<String>,
}

impl Books {
    fn message(&mut self, (id, number): (u32, u32)) -> &mut Message {
        let all = self.messages.entry(id).or_default();
        let at = number as usize;
        if all.len() <= at {
            all.resize(at + 1, Message::default());
        }
        &mut all[at]
    }

    fn taken(&mut self, what: (u32, u32), delivery: u32) {
        let doubled = match delivery {
            1 => std::mem::replace(&mut self.message(what).first, true),
            _ => !self.again.insert((what.0, what.1, delivery)),
        };
        if doubled {
            self.faults.push(format!("delivery {delivery} of {what:?} happened twice"));
        }
    }

    fn done(&mut self, what: (u32, u32)) {
        self.acknowledged += 1;
        if std::mem::replace(&mut self.message(what).done, true) {
            self.faults.push(format!("{what:?} was acknowledged twice"));
        }
    }

    /// Enters the book of a process that is gone.
    fn enter(&mut self, mortal: &Mortal) {
        // Who was killed before it had a book did nothing.
        let bytes = std::fs::read(&mortal.book).unwrap_or_default();
        let _ = std::fs::remove_file(&mortal.book);
        let words: Vec<u32> = bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().expect("four bytes")))
            .collect();
        if mortal.role == GIVE {
            let (tried, sent) = (words.first().copied(), words.get(1).copied());
            self.sent.insert(mortal.id, (sent.unwrap_or(0), tried.unwrap_or(0)));
            return;
        }
        let mut held = HashSet::new();
        for line in words.chunks_exact(4) {
            let what = (line[0], line[1]);
            match line[3] {
                TAKEN => {
                    self.taken(what, line[2]);
                    held.insert(what);
                }
                DONE => {
                    self.done(what);
                    held.remove(&what);
                }
                RETURNED => {
                    self.returned += 1;
                    held.remove(&what);
                }
                other => self.faults.push(format!("a book says {other}")),
            }
        }
        held.into_iter().for_each(|what| self.message(what).unsure = true);
    }

    /// Everything that was entered was acknowledged once, and nothing else.
    fn balance(&mut self) {
        let mut faults = Vec::new();
        for (id, (sent, tried)) in &self.sent {
            let all = self.messages.get(id).map_or(&[][..], Vec::as_slice);
            let of = |number: &u32| all.get(*number as usize).copied().unwrap_or_default();
            let lost = (1..=*sent).filter(|number| !of(number).done && !of(number).unsure);
            faults.extend(lost.map(|number| format!("message {number} of {id} is lost")));
            if all.len() > *tried as usize + 1 {
                faults.push(format!("producer {id} never sent message {}", all.len() - 1));
            }
        }
        let strangers = self.messages.keys().filter(|id| !self.sent.contains_key(id));
        faults.extend(strangers.map(|id| format!("there is no producer {id}")));
        self.faults.extend(faults);
    }
}

/// A process that will be killed.
struct Mortal {
    role: &'static str,
    id: u32,
    book: PathBuf,
    process: Process,
}

/// The queue, those who die at it, and the survivor.
struct Arena {
    place: Place,
    mortals: Vec<Mortal>,
    id_next: u32,
    producer: Producer<Raw>,
    consumer: Consumer<Raw>,
    sent: u32,
    books: Books,
    deaths: u64,
}

impl Arena {
    fn open(queue: &Queue<Raw>, place: Place) -> Outcome<Self> {
        let (producer, consumer) = (queue.producer()?, queue.consumer()?);
        let (mortals, books) = (Vec::new(), Books::default());
        let id_next = PARENT + 1;
        let mut arena =
            Self { place, mortals, id_next, producer, consumer, sent: 0, books, deaths: 0 };
        for index in 0..PRODUCERS + CONSUMERS {
            let mortal = arena.start(if index < PRODUCERS { GIVE } else { WORK });
            arena.mortals.push(mortal);
        }
        Ok(arena)
    }

    fn start(&mut self, role: &'static str) -> Mortal {
        let id = self.id_next;
        self.id_next += 1;
        let path = self.place.bus();
        let book = path.with_file_name(format!("book-{id}"));
        let name = book.to_str().expect("it was made of text");
        let process = Process::spawn(role, &path, name, id.into(), &Fate::Quiet);
        Mortal { role, id, book, process }
    }

    /// Stops a mortal for `time`.
    fn freeze(&mut self, which: usize, time: Duration) {
        let process = &self.mortals[which].process;
        process.signal(Signal::SIGSTOP);
        process::pause(time);
        process.signal(Signal::SIGCONT);
    }

    /// Waits until a mortal has joined.
    fn await_start(&mut self, which: usize) -> Outcome {
        let mortal = &mut self.mortals[which];
        let mut log = Vec::new();
        loop {
            match mortal.process.next(LIMIT) {
                Some(Event::Said(line)) if line == "ready" => return Ok(()),
                Some(Event::Stopped) => {}
                Some(Event::Logged(line)) => log.push(line),
                other => {
                    let role = mortal.role;
                    return Err(format!("a {role} does not begin: {other:?}, {log:?}").into());
                }
            }
        }
    }

    /// Kills a mortal. When it was dead.
    fn kill(&mut self, which: usize) -> Outcome<Instant> {
        let mortal = &mut self.mortals[which];
        mortal.process.signal(Signal::SIGKILL);
        let mut log = Vec::new();
        loop {
            match mortal.process.next(LIMIT) {
                None => return Err(format!("a killed {} does not end", mortal.role).into()),
                Some(Event::Stopped) => {}
                Some(Event::Said(line)) if line == "ready" => {}
                Some(Event::Said(line)) => self.books.faults.push(line),
                Some(Event::Logged(line)) => log.push(line),
                Some(Event::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _), at)) => {
                    self.deaths += 1;
                    return Ok(at);
                }
                Some(Event::Ended(status, _)) => {
                    return Err(format!("a {} ended with {status:?}: {log:?}", mortal.role).into());
                }
            }
        }
    }

    /// The survivor enters a message and takes one.
    fn go_on(&mut self) -> Outcome {
        self.sent += 1;
        self.producer.enqueue_timeout(&message(PARENT, self.sent), LIMIT)?;
        self.take(LIMIT)?.then_some(()).ok_or_else(|| "a survivor finds nothing".into())
    }

    fn take(&mut self, limit: Duration) -> Outcome<bool> {
        let Ok(Some(job)) = self.consumer.take(Wait::For(limit)) else { return Ok(false) };
        let what = read(job.bytes())?;
        self.books.taken(what, job.delivery());
        job.ack()?;
        self.books.done(what);
        Ok(true)
    }

    /// Kills everybody, takes what is left, and compares the books.
    fn close(&mut self, bus: &Bus, queue: &Queue<Raw>) -> Outcome {
        for which in 0..self.mortals.len() {
            self.kill(which)?;
            self.books.enter(&self.mortals[which]);
        }
        self.mortals.clear();
        self.books.sent.insert(PARENT, (self.sent, self.sent));
        bus.repair()?;
        let end = Instant::now() + LIMIT;
        // What was put off is due a moment later.
        while queue.info()?.classes.iter().any(|class| class.free() < class.chunks) {
            if Instant::now() > end {
                let info = queue.info()?;
                self.books.faults.push(format!("chunks are lost: {info:?}"));
                break;
            }
            self.take(Duration::from_millis(5))?;
        }
        self.books.balance();
        let (info, books) = (queue.info()?, &mut self.books);
        let reasons = self.deaths * HELD_MAX + books.returned;
        if info.redelivered > reasons || info.died > 0 {
            books.faults.push(format!("more came again than {reasons}: {info:?}"));
        }
        let report = bus.repair()?;
        if report != RepairReport::default() {
            books.faults.push(format!("a second repair found {report:?}"));
        }
        let sent: u64 = books.sent.values().map(|(sent, _)| u64::from(*sent)).sum();
        show(&format!(
            "{sent} messages surely entered, {} surely acknowledged, {} delivered again: {} were given back, {} \
             processes died with at most {HELD_MAX} each",
            books.acknowledged, info.redelivered, books.returned, self.deaths
        ));
        Ok(())
    }
}

pub fn run() -> Outcome {
    let began = Instant::now();
    let kills = number("WINDLASS_KILLS").unwrap_or(KILLS);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("WINDLASS_SEED").unwrap_or(now.map_or(1, |now| now.subsec_nanos().into()));
    show(&format!("{kills} random kills at a queue, WINDLASS_SEED={seed}"));
    let (mut dice, place) = (Dice(seed), Place::new());
    let bus = role::bus(&place.bus())?;
    let queue = queue(&bus)?;
    let mut arena = Arena::open(&queue, place)?;
    let (mut times, mut stops) = (HashMap::<&str, Times>::new(), 0);
    for _ in 0..kills {
        process::pause(Duration::from_micros(dice.below(12_000)));
        let which = dice.below(arena.mortals.len() as u64) as usize;
        // Some die while they join.
        if dice.below(6) > 0 {
            arena.await_start(which)?;
        }
        if dice.below(8) == 0 {
            arena.freeze(which, Duration::from_micros(dice.below(60_000)));
            stops += 1;
        }
        let death = arena.kill(which)?;
        arena.go_on()?;
        let role = arena.mortals[which].role;
        times.entry(role).or_default().add(death.elapsed());
        arena.books.enter(&arena.mortals[which]);
        arena.mortals[which] = arena.start(role);
        if !arena.books.faults.is_empty() {
            break;
        }
    }
    arena.close(&bus, &queue)?;
    for (role, times) in &times {
        show(&format!("until a survivor entered and took a message after a {role} died: {times}"));
    }
    show(&format!("{stops} were stopped before; all of it took {:?}", began.elapsed()));
    let faults = &arena.books.faults;
    assert!(
        faults.is_empty(),
        "WINDLASS_SEED={seed}: {} faults, {:#?}",
        faults.len(),
        faults.first()
    );
    for (role, times) in &times {
        let median = times.quantile(0.5);
        assert!(median < RECOVERY_MAX, "WINDLASS_SEED={seed}: recovery from {role}: {median:?}");
    }
    Ok(())
}
