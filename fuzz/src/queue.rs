//! The chunks of a work queue and their ring, used by nodes that live and die, while words change.
//!
//! As long as nothing was damaged everything is compared with a model: which message comes next, how often it was
//! delivered, which chunks are free, what is dead, what is due. After damage every operation ends, within the memory,
//! and names a chunk that there is.

use crate::damage::Damage;
use crate::memory::region;
use arbitrary::{Arbitrary, Unstructured};
use std::collections::VecDeque;
use std::sync::atomic::Ordering::Relaxed;
use windlass::layout::chunk::Note;
use windlass::layout::token::{bytes, Form};
use windlass::ring::pool::{Held, Pool, Repaired, Returned};
use windlass::ring::tokens::{Cursor, Tokens};
use windlass::shm::place::Region;

/// Chunks of a small class and a large one.
const SMALL: usize = 4;
const CHUNKS: usize = 6;
const ENTRIES: u64 = 16;
const DELIVERIES_MAX: u32 = 3;
/// Nodes that live at a time.
const NODES: usize = 3;
const TURNS_MAX: usize = 400;

#[derive(Arbitrary, Debug)]
enum Turn {
    Loan { node: u8, large: bool, from: u8 },
    Commit(u8),
    Abort(u8),
    Take { node: u8 },
    Look { node: u8 },
    Ack(u8),
    Nack(u8),
    Postpone { which: u8, by: u8 },
    Pass { time: u8 },
    Die { node: u8 },
    Letter { from: u8, end: End },
    Change { at: u16, damage: Damage },
}

/// What becomes of a dead letter.
#[derive(Arbitrary, Debug)]
enum End {
    Kept,
    Discarded,
    Revived,
}

/// What the model says of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Is {
    Free,
    Loaned,
    Ready,
    Taken,
    Dead,
    Later(u64),
}

/// A chunk that a node has.
#[derive(Clone, Copy)]
struct Owned {
    held: Held,
    node: u32,
    is_loan: bool,
}

struct World {
    pool: Pool,
    tail: Cursor,
    head: Cursor,
    words: Region,
    nodes: [u32; NODES],
    node_next: u32,
    owned: Vec<Owned>,
    now: u64,
    sent: u64,
    chunks: [(Is, u64, u32); CHUNKS],
    /// Chunks that are ready, in their turn.
    line: VecDeque<usize>,
    damaged: bool,
}

/// Does what the bytes say.
pub fn run(data: &[u8]) {
    let mut bytes = Unstructured::new(data);
    let mut world = World::new();
    for _ in 0..TURNS_MAX {
        let Ok(turn) = Turn::arbitrary(&mut bytes) else { return };
        if bytes.is_empty() {
            return;
        }
        world.turn(turn);
        world.compare();
    }
}

impl World {
    fn new() -> Self {
        let at = (bytes(ENTRIES) as usize).next_multiple_of(128);
        let words = region(at + Pool::bytes(CHUNKS));
        let tokens =
            Tokens::new(words.clone(), 0, ENTRIES, Form::new(windlass::layout::chunk::ENTRY_BITS));
        let pool = Pool::new(words.clone(), at, CHUNKS, tokens, DELIVERIES_MAX);
        Self {
            pool,
            tail: Cursor::new(0),
            head: Cursor::new(0),
            words,
            nodes: [1, 2, 3],
            node_next: 4,
            owned: Vec::new(),
            now: 0,
            sent: 0,
            chunks: [(Is::Free, 0, 0); CHUNKS],
            line: VecDeque::new(),
            damaged: false,
        }
    }

    fn turn(&mut self, turn: Turn) {
        match turn {
            Turn::Loan { node, large, from } => self.loan(self.node(node), large, from.into()),
            Turn::Commit(which) => self.commit(which),
            Turn::Abort(which) => self.abort(which),
            Turn::Take { node } => self.take(self.node(node)),
            Turn::Look { node } => self.look(self.node(node)),
            Turn::Ack(which) => self.ack(which),
            Turn::Nack(which) => self.nack(which, None),
            Turn::Postpone { which, by } => self.nack(which, Some(self.now + u64::from(by))),
            Turn::Pass { time } => self.pass(time.into()),
            Turn::Die { node } => self.die(usize::from(node) % NODES),
            Turn::Letter { from, end } => self.letter(usize::from(from) % (CHUNKS + 1), end),
            Turn::Change { at, damage } => {
                let word = self.words.word(usize::from(at) % (self.words.len() / 8) * 8);
                // Relaxed: there is one thread.
                let (old, new) = (word.load(Relaxed), damage.of(word.load(Relaxed)));
                word.store(new, Relaxed);
                self.damaged |= old != new;
            }
        }
    }

    fn node(&self, which: u8) -> u32 {
        self.nodes[usize::from(which) % NODES]
    }

    /// One of the chunks that somebody has, as a loan or not; it is nobody's in this list then.
    fn pick(&mut self, which: u8, is_loan: bool) -> Option<Owned> {
        let of = |owned: &&(usize, Owned)| owned.1.is_loan == is_loan;
        let all: Vec<_> = self.owned.iter().copied().enumerate().collect();
        let those: Vec<_> = all.iter().filter(of).collect();
        let (index, owned) = those.get(usize::from(which) % those.len().max(1))?;
        self.owned.remove(*index);
        Some(*owned)
    }

    /// What the model has of a chunk that an operation named.
    fn chunk(&mut self, chunk: usize) -> &mut (Is, u64, u32) {
        assert!(chunk < CHUNKS, "chunk {chunk}");
        &mut self.chunks[chunk]
    }

    fn loan(&mut self, node: u32, large: bool, from: usize) {
        let range = if large { SMALL..CHUNKS } else { 0..SMALL };
        let start = from.clamp(range.start, range.end);
        let mut order = (start..range.end).chain(range.start..start);
        let free = order.find(|chunk| self.chunks[*chunk].0 == Is::Free);
        let held = self.pool.loan(range, from, node);
        assert!(self.damaged || held.map(|held| held.chunk) == free, "{held:?}, not {free:?}");
        let Some(held) = held else { return };
        *self.chunk(held.chunk) = (Is::Loaned, 0, 0);
        self.owned.push(Owned { held, node, is_loan: true });
    }

    fn commit(&mut self, which: u8) {
        let Some(Owned { held, .. }) = self.pick(which, true) else { return };
        self.sent += 1;
        let note = Note { length: self.sent as u32, since_ms: self.now as u32 };
        let committed = self.pool.commit(&self.tail, held, note);
        assert!(self.damaged || committed);
        *self.chunk(held.chunk) = (Is::Ready, self.sent, 0);
        self.line.push_back(held.chunk);
    }

    fn abort(&mut self, which: u8) {
        let Some(Owned { held, .. }) = self.pick(which, true) else { return };
        assert!(self.pool.abort(held) || self.damaged);
        self.chunk(held.chunk).0 = Is::Free;
    }

    fn take(&mut self, node: u32) {
        let found = self.pool.take(&self.head, node);
        assert!(self.damaged || found.is_ok());
        let Ok(found) = found else { return };
        let due = self.line.pop_front();
        assert!(self.damaged || found.map(|held| held.chunk) == due, "{found:?}, not {due:?}");
        let Some(held) = found else { return };
        self.took(held, node);
    }

    fn took(&mut self, held: Held, node: u32) {
        let (length, deliveries) =
            (u64::from(self.pool.note(held.chunk).length), held.word.deliveries());
        let known = *self.chunk(held.chunk);
        assert!(self.damaged || known == (Is::Ready, length, deliveries), "{held:?}, {known:?}");
        self.chunk(held.chunk).0 = Is::Taken;
        self.owned.push(Owned { held, node, is_loan: false });
    }

    /// What an idle consumer does. In a sound queue nothing is without its entry.
    fn look(&mut self, node: u32) {
        let has_ready = self.pool.has_ready();
        for found in [self.pool.take_unplaced(node), self.pool.take_stray(node)] {
            assert!(self.damaged || found.is_none(), "{found:?} has an entry");
            found.into_iter().for_each(|held| self.took(held, node));
        }
        let (depth, checked) = (self.pool.tokens().depth(), self.pool.tokens().check_wait());
        if !self.damaged {
            assert_eq!((depth, checked), (self.line.len() as u64, Ok(())));
            assert_eq!(has_ready, !self.line.is_empty());
        }
    }

    fn ack(&mut self, which: u8) {
        let Some(Owned { held, .. }) = self.pick(which, false) else { return };
        assert!(self.pool.ack(held) || self.damaged);
        self.chunk(held.chunk).0 = Is::Free;
    }

    /// A message is given back, or put off until it is due.
    fn nack(&mut self, which: u8, due: Option<u64>) {
        let Some(Owned { held, .. }) = self.pick(which, false) else { return };
        let returned = match due {
            Some(due) => self.pool.postpone(held, due),
            None => self.pool.nack(held),
        };
        let expected = self.failed(held.chunk, due);
        assert!(self.damaged || returned == expected, "{returned:?}, not {expected:?}");
    }

    /// The model of a delivery in vain.
    fn failed(&mut self, chunk: usize, due: Option<u64>) -> Returned {
        let known = self.chunk(chunk);
        known.2 += 1;
        if known.2 >= DELIVERIES_MAX {
            known.0 = Is::Dead;
            return Returned::Dead;
        }
        match due {
            Some(due) => known.0 = Is::Later(due),
            None => {
                known.0 = Is::Ready;
                self.line.push_back(chunk);
            }
        }
        Returned::Again
    }

    fn pass(&mut self, time: u64) {
        self.now += time;
        for chunk in 0..CHUNKS {
            let seen = self.pool.look(chunk);
            let resumed = self.pool.resume(chunk, seen, self.now, self.nodes[0]);
            let due = matches!(self.chunks[chunk].0, Is::Later(due) if due <= self.now);
            assert!(self.damaged || resumed == due);
            if due {
                self.chunks[chunk].0 = Is::Ready;
                self.line.push_back(chunk);
            }
        }
    }

    /// A node dies, another one takes its place, and somebody repairs what it left.
    fn die(&mut self, which: usize) {
        let dead = std::mem::replace(&mut self.nodes[which], self.node_next);
        self.node_next += 1;
        let left: Vec<Owned> =
            self.owned.iter().copied().filter(|owned| owned.node == dead).collect();
        self.owned.retain(|owned| owned.node != dead);
        for chunk in 0..CHUNKS {
            let seen = self.pool.look(chunk);
            if seen.node() != dead {
                continue;
            }
            let repaired = self.pool.repair(chunk, seen, self.nodes[which]);
            let expected = match left.iter().find(|owned| owned.held.chunk == chunk) {
                None => Repaired::Nothing,
                Some(owned) if owned.is_loan => {
                    self.chunks[chunk].0 = Is::Free;
                    Repaired::Freed
                }
                Some(_) => match self.failed(chunk, None) {
                    Returned::Dead => Repaired::Dead,
                    _ => Repaired::Again,
                },
            };
            assert!(self.damaged || repaired == expected, "{repaired:?}, not {expected:?}");
        }
    }

    fn letter(&mut self, from: usize, end: End) {
        let dead = (from..CHUNKS).find(|chunk| self.chunks[*chunk].0 == Is::Dead);
        let found = self.pool.take_dead(from, self.nodes[0]);
        assert!(self.damaged || found.map(|held| held.chunk) == dead, "{found:?}, not {dead:?}");
        let Some(held) = found else { return };
        let (mine, is) = match end {
            End::Kept => (self.pool.bury(held), Is::Dead),
            End::Discarded => (self.pool.ack(held), Is::Free),
            End::Revived => (self.pool.revive(held), Is::Ready),
        };
        assert!(self.damaged || mine);
        let known = self.chunk(held.chunk);
        known.0 = is;
        if is == Is::Ready {
            known.2 = 0;
            self.line.push_back(held.chunk);
        }
    }

    /// Every state word says what the model says.
    fn compare(&self) {
        if self.damaged {
            return;
        }
        for (chunk, (is, message, deliveries)) in self.chunks.iter().enumerate() {
            use windlass::layout::chunk::State;
            let (word, length) = (self.pool.look(chunk), u64::from(self.pool.note(chunk).length));
            let expected = match is {
                Is::Free => State::Free,
                Is::Loaned => State::Loaned,
                Is::Ready => State::Ready,
                Is::Taken => State::Taken,
                Is::Dead => State::Dead,
                Is::Later(_) => State::Later,
            };
            assert_eq!(word.state(), Some(expected), "chunk {chunk}");
            if !matches!(is, Is::Free | Is::Loaned) {
                assert_eq!((length, word.deliveries()), (*message, *deliveries), "chunk {chunk}");
            }
        }
    }
}
