//! A work queue small enough to explore, and copies of its steps with something left out.

use std::sync::atomic::Ordering::*;
use std::sync::{Arc, Mutex};
use windlass::layout::chunk::{Chunk, Entry, Note, State, Words, ENTRY_BITS};
use windlass::layout::token::{bytes, Form};
use windlass::ring::pool::{Held, Pool};
use windlass::ring::tokens::{Cursor, Refused, Tokens};
use windlass::shm::place::Region;
use windlass::step;

/// A message is delivered at most as often.
pub const DELIVERIES_MAX: u32 = 2;

/// A queue of chunks with one word of payload each.
#[derive(Clone)]
pub struct Queue {
    /// The chunks.
    pub pool: Pool,
    /// How far this clone, which is one handle, has walked when it entered messages.
    tail: Cursor,
    /// The same when it took them.
    head: Cursor,
    words: Region,
    pool_at: usize,
    /// What was acknowledged: the message, and how often it was delivered in vain before.
    done: Arc<Mutex<Vec<(u64, u32)>>>,
}

impl Queue {
    /// A fresh queue of `chunks` chunks, with a ring of `entries`.
    pub fn new(chunks: usize, entries: u64) -> Self {
        Self::delivering(DELIVERIES_MAX, chunks, entries)
    }

    /// The same with messages that are delivered at most so often.
    pub fn delivering(deliveries_max: u32, chunks: usize, entries: u64) -> Self {
        let pool_at = bytes(entries) as usize;
        let payload_at = pool_at + Pool::bytes(chunks);
        let words = Region::zeroed(payload_at + 8 * chunks, payload_at);
        let tokens = Tokens::new(words.clone(), 0, entries, Form::new(ENTRY_BITS));
        let pool = Pool::new(words.clone(), pool_at, chunks, tokens, deliveries_max);
        let (tail, head) = (Cursor::new(0), Cursor::new(0));
        Self { pool, tail, head, words, pool_at, done: Arc::new(Mutex::new(Vec::new())) }
    }

    fn payload_at(&self, chunk: usize) -> usize {
        self.pool_at + Pool::bytes(self.pool.len()) + 8 * chunk
    }

    /// Writes the payload of a chunk that the caller owns.
    pub fn write(&self, chunk: usize, message: u64) {
        self.words.set_payload(self.payload_at(chunk), message);
    }

    /// Reads the payload of a chunk that the caller owns.
    pub fn read(&self, chunk: usize) -> u64 {
        self.words.payload(self.payload_at(chunk))
    }

    /// Notes that a message was acknowledged.
    pub fn note(&self, message: u64, deliveries: u32) {
        self.done.lock().expect("a model that failed ends the test").push((message, deliveries));
    }

    /// What was acknowledged, in order of the messages.
    pub fn done(&self) -> Vec<(u64, u32)> {
        let mut done = self.done.lock().expect("a model that failed ends the test").clone();
        done.sort();
        done
    }

    /// Swaps the bare state word of a chunk, for broken copies.
    pub fn swap(&self, chunk: usize, from: Chunk, to: Chunk) -> bool {
        let word = self.words.word(self.pool_at + Words::of(self.pool.len()).state_at(chunk));
        word.compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Sets the bare word that says for which state an entry was made, for broken copies.
    pub fn set_placed(&self, chunk: usize, word: Chunk) {
        let at = self.pool_at + Words::of(self.pool.len()).placed_at(chunk);
        self.words.word(at).store(word.0, Release);
    }

    /// The entries that are in the ring, taken out.
    pub fn entries(&self) -> Vec<u64> {
        std::iter::from_fn(|| self.pool.tokens().take().expect("it is sound")).collect()
    }
}

/// What [`commit`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It makes the entry before the chunk is ready.
    EntersFirst,
    /// It says that there is an entry before there is.
    PlacedFirst,
    /// The word of a chunk is the same for every message of a producer.
    NoTurn,
}

/// `Pool::loan` and `Pool::commit` of a message.
pub fn send(queue: &Queue, node: u32, message: u64, flaw: Option<Commit>) -> bool {
    let Some(held) = queue.pool.loan(0..queue.pool.len(), 0, node) else { return false };
    let (chunk, mut held) = (held.chunk, held.word);
    if flaw == Some(Commit::NoTurn) {
        let same = Chunk::new(node, 0, 0, State::Loaned);
        assert!(queue.swap(chunk, held, same));
        held = same;
    }
    queue.write(chunk, message);
    let ready = held.with(State::Ready, node);
    let enter = || match queue.pool.tokens().enter(Entry::of(chunk, ready).token()) {
        Ok(()) => {}
        Err(Refused::Full | Refused::Corrupt) => panic!("there is room"),
    };
    if flaw == Some(Commit::EntersFirst) {
        enter();
    }
    step::reached("pool.commit");
    assert!(queue.swap(chunk, held, ready));
    if flaw == Some(Commit::PlacedFirst) {
        queue.set_placed(chunk, ready);
    }
    step::reached("pool.enter");
    if flaw != Some(Commit::EntersFirst) {
        enter();
    }
    step::reached("pool.placed");
    queue.set_placed(chunk, ready);
    true
}

/// What [`take`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Take {
    /// It removes the entry before it takes the chunk.
    RemovesFirst,
    /// It takes the chunk by a store.
    Stores,
    /// It does not look at the turn, nor whether the entry still stands.
    Overtakes,
    /// It does not look at the turn.
    IgnoresTurn,
}

/// `Pool::take`.
pub fn take(queue: &Queue, node: u32, flaw: Option<Take>) -> Option<Held> {
    loop {
        let first = queue.pool.tokens().first().expect("it is sound")?;
        let entry = Entry::read(first.token);
        let chunk = entry.chunk;
        let seen = queue.pool.look(chunk);
        let is_stale = match flaw {
            Some(Take::IgnoresTurn | Take::Overtakes) => !seen.is(State::Ready),
            _ => !entry.is_of(seen),
        };
        if is_stale {
            queue.pool.tokens().remove(first);
            continue;
        }
        if flaw != Some(Take::Overtakes) && !queue.pool.tokens().stands(first) {
            continue;
        }
        let word = seen.with(State::Taken, node);
        if flaw == Some(Take::RemovesFirst) && !queue.pool.tokens().remove(first) {
            continue;
        }
        step::reached("pool.take");
        let mine = match flaw {
            Some(Take::Stores) => (0..2).any(|_| queue.swap(chunk, queue.pool.look(chunk), word)),
            _ => queue.swap(chunk, seen, word),
        };
        if mine {
            queue.pool.tokens().remove(first);
            return Some(Held { chunk, word });
        }
    }
}

/// `Pool::take_unplaced` without a look at the ring.
pub fn take_unplaced_blindly(queue: &Queue, node: u32) -> Option<Held> {
    (0..queue.pool.len()).find_map(|chunk| {
        let seen = queue.pool.look(chunk);
        let word = seen.with(State::Taken, node);
        let may = seen.is(State::Ready) && !queue.pool.is_placed(chunk, seen);
        (may && queue.swap(chunk, seen, word)).then_some(Held { chunk, word })
    })
}

/// `Pool::ack` without a look at whose the chunk is.
pub fn ack_by_store(queue: &Queue, held: Held) -> bool {
    let now = queue.pool.look(held.chunk);
    queue.swap(held.chunk, now, now.freed())
}

/// What [`repair`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repair {
    /// It frees what the dead made ready.
    FreesReady,
    /// It looks in the ring for an entry.
    SearchesRing,
    /// It makes what the dead had taken ready by a store.
    Stores,
}

/// `Pool::repair` of every chunk that node `dead` owns.
pub fn repair(queue: &Queue, dead: u32, node: u32, flaw: Option<Repair>) {
    for chunk in 0..queue.pool.len() {
        let seen = queue.pool.look(chunk);
        if seen.node() != dead {
            continue;
        }
        match (flaw, seen.state()) {
            (Some(Repair::FreesReady), Some(State::Ready)) => {
                queue.swap(chunk, seen, seen.freed());
            }
            (Some(Repair::SearchesRing), Some(State::Ready)) => {
                let entries = queue.pool.tokens().depth();
                let first = queue.pool.tokens().first().expect("it is sound");
                let found =
                    entries > 0 && first.is_some_and(|it| Entry::read(it.token).chunk == chunk);
                if found {
                    let word = seen.with(State::Ready, node);
                    queue.swap(chunk, seen, word);
                    queue.set_placed(chunk, word);
                } else {
                    queue.pool.repair(chunk, seen, node);
                }
            }
            (Some(Repair::Stores), Some(State::Taken)) => {
                let ready = seen.with(State::Ready, node).failed();
                step::reached("pool.return");
                while !queue.swap(chunk, queue.pool.look(chunk), ready) {}
                let _ = queue.pool.tokens().enter(Entry::of(chunk, ready).token());
                queue.set_placed(chunk, ready);
            }
            _ => {
                queue.pool.repair(chunk, seen, node);
            }
        }
    }
}

/// How a queue is used: by the real code, or by a broken copy.
#[derive(Clone, Copy)]
pub struct Calls {
    /// Loans, writes and commits a message; false if there is no chunk.
    pub send: fn(&Queue, u32, u64) -> bool,
    /// Takes a message.
    pub take: fn(&Queue, u32) -> Option<Held>,
    /// Acknowledges a message.
    pub ack: fn(&Queue, Held) -> bool,
    /// Repairs what the first node owns, in the name of the second.
    pub repair: fn(&Queue, u32, u32),
}

/// The real code.
pub const REAL: Calls = Calls {
    send: |queue, node, message| {
        let Some(held) = queue.pool.loan(0..queue.pool.len(), 0, node) else { return false };
        queue.write(held.chunk, message);
        assert!(
            queue.pool.commit(&queue.tail, held, Note { length: 8, since_ms: 0 }),
            "nobody took the loan away"
        );
        true
    },
    take: |queue, node| queue.pool.take(&queue.head, node).expect("it is sound"),
    ack: |queue, held| queue.pool.ack(held),
    repair: |queue, dead, node| repair(queue, dead, node, None),
};

/// Copies without a flaw.
pub const COPY: Calls = Calls {
    send: |queue, node, message| send(queue, node, message, None),
    take: |queue, node| take(queue, node, None),
    ..REAL
};

/// Node `node` takes a message, reads it and acknowledges it; returns the message.
pub fn consume(queue: &Queue, node: u32, calls: Calls) -> Option<u64> {
    let held = (calls.take)(queue, node)?;
    Some(finish_one(queue, held, calls))
}

/// Reads a message that was taken and acknowledges it; returns it.
pub fn finish_one(queue: &Queue, held: Held, calls: Calls) -> u64 {
    let message = queue.read(held.chunk);
    if (calls.ack)(queue, held) {
        queue.note(message, held.word.deliveries());
    }
    message
}

/// Repairs after `dead`, acknowledges all that is left, and checks that the messages `sent`, and of those in `maybe`
/// any, were acknowledged once each, and that everything is free. Returns all that was acknowledged.
pub fn settle(queue: &Queue, dead: &[u32], sent: &[u64], maybe: &[u64]) -> Vec<(u64, u32)> {
    for node in dead {
        repair(queue, *node, 90, None);
    }
    while let Some(held) = (REAL.take)(queue, 91).or_else(|| queue.pool.take_unplaced(91)) {
        finish_one(queue, held, REAL);
    }
    let done = queue.done();
    let messages: Vec<u64> = done.iter().map(|(message, _)| *message).collect();
    let mut once = messages.clone();
    once.dedup();
    assert_eq!(once, messages, "acknowledged twice");
    assert!(sent.iter().all(|message| messages.contains(message)), "{sent:?} are not in {done:?}");
    let known = |message| sent.contains(message) || maybe.contains(message);
    assert!(messages.iter().all(known), "{done:?} was never sent");
    for chunk in 0..queue.pool.len() {
        let word = queue.pool.look(chunk);
        assert!(word.is(State::Free), "chunk {chunk} is lost: {word:?}");
    }
    assert_eq!(queue.entries(), [], "entries are left");
    done
}
