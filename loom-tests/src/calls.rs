//! A service small enough to explore, and copies of its steps with something left out.

use std::sync::atomic::Ordering::*;
use std::sync::{Arc, Mutex};
use windlass::layout::call::{End, Part, CONSUMED_AT, PAYLOAD_AT, STATE_AT, STRIDE};
use windlass::layout::chunk::{Chunk, State};
use windlass::layout::token::{bytes, Form};
use windlass::ring::bells::Bells;
use windlass::ring::calls::{Asked, Calls, Held, Outcome, Parts};
use windlass::ring::pins::Pins;
use windlass::ring::slots::{Claimed, Slots};
use windlass::ring::tokens::{Cursor, Tokens};
use windlass::ring::wake::Hint;
use windlass::shm::place::Region;
use windlass::step;

/// A node that is dead.
pub const DEAD: u32 = 66;
/// Another one.
pub const DEAD_TOO: u32 = 67;

/// Whether a node of a model lives.
pub fn is_alive(node: u32) -> bool {
    node != DEAD && node != DEAD_TOO
}

/// How large a service is.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Calls of its one lane.
    pub calls: usize,
    /// Parts of a call.
    pub parts: usize,
    /// How often a request is delivered.
    pub deliveries_max: u32,
}

/// One call with one part.
pub const ONE: Size = Size { calls: 1, parts: 1, deliveries_max: 2 };

/// A service with one lane. Requests and responses have one word.
#[derive(Clone)]
pub struct Service {
    /// The calls.
    pub calls: Calls,
    /// The slot of the lane.
    pub clients: Slots,
    /// What wakes the owner of the lane.
    pub bells: Bells,
    pins: Pins,
    words: Region,
    calls_at: usize,
    count: usize,
    /// What was answered to the end: the request, and by whom.
    log: Arc<Mutex<Vec<(u64, u32)>>>,
}

impl Service {
    /// A fresh service, whose lane belongs to `client`.
    pub fn new(size: Size, client: u32) -> Self {
        let entries = (2 * size.calls as u64).next_power_of_two();
        let calls_at = bytes(entries) as usize;
        let high_at = calls_at + Calls::bytes(size.calls);
        let slots_at = high_at + 16;
        let data_at = slots_at + Slots::bytes(1, 0);
        let part_bytes = PAYLOAD_AT + 8;
        let len = data_at + size.calls * (8 + size.parts * part_bytes);
        let words = Region::zeroed(len, data_at);
        let tokens = Tokens::new(words.clone(), 0, entries, Form::new(8));
        let region = words.clone();
        let parts = Parts { region, at: data_at, request_bytes: 8, part_bytes, count: size.parts };
        let (count, most) = (size.calls, size.deliveries_max);
        let calls = Calls::new(words.clone(), calls_at, count, tokens, parts, most);
        let clients = Slots::new(words.clone(), slots_at, high_at, 1, 0);
        let bells = Bells::new(Hint::new(words.clone(), high_at + 8), clients.clone());
        let pins = Pins::new(words.clone(), data_at, 0, 0, 1);
        let log = Arc::new(Mutex::new(Vec::new()));
        let service = Self { calls, clients, bells, pins, words, calls_at, count, log };
        service.claim(client).expect("the lane is free");
        service
    }

    /// Makes `client` the owner of the lane.
    pub fn claim(&self, client: u32) -> Option<Claimed> {
        self.clients.claim(0, client, &self.pins)
    }

    /// Frees the lane, whose owner is dead.
    pub fn reap(&self) -> bool {
        let owner = self.clients.owner(0);
        !owner.is_free() && !is_alive(owner.node()) && self.clients.reap(0, owner)
    }

    /// Makes the call whose request was written.
    pub fn ask(&self, call: usize, node: u32) -> Asked {
        self.calls.ask(&Cursor::new(0), call, node, 8).expect("the call is free")
    }

    /// Takes a call.
    pub fn take(&self, node: u32) -> Option<Held> {
        self.calls.take(&Cursor::new(0), node).expect("it is sound")
    }

    /// Writes the request of a free call.
    pub fn write(&self, call: usize, request: u64) {
        self.words.set_payload(self.calls.parts().request_at(call), request);
    }

    /// Reads the request of a call that the caller has.
    pub fn read(&self, held: &Held) -> u64 {
        self.words.payload(self.calls.parts().request_at(held.call()))
    }

    fn part_at(&self, call: usize, index: u64) -> usize {
        self.calls.parts().part_at(call, index) + PAYLOAD_AT
    }

    /// Writes response `index` of a call that the caller has.
    pub fn write_part(&self, held: &Held, index: u64, response: u64) {
        self.words.set_payload(self.part_at(held.call(), index), response);
    }

    /// Reads response `index`, which is there.
    pub fn read_part(&self, asked: &Asked, index: u64) -> u64 {
        self.words.payload(self.part_at(asked.call(), index))
    }

    /// Sets the bare header of a part, for broken copies, and for what is left of other turns.
    pub fn set_header(&self, call: usize, index: u64, part: Part) {
        self.words.word(self.calls.parts().part_at(call, index)).store(part.0, Release);
    }

    /// The bare header of a part, for broken copies.
    pub fn header(&self, call: usize, index: u64) -> Part {
        Part(self.words.word(self.calls.parts().part_at(call, index)).load(Acquire))
    }

    /// Sets the bare count of responses that were read, for what is left of other turns.
    pub fn set_consumed(&self, call: usize, word: u64) {
        self.words.word(self.calls_at + call * STRIDE + CONSUMED_AT).store(word, Release);
    }

    /// Swaps the bare state word of a call, for broken copies.
    pub fn swap(&self, call: usize, from: Chunk, to: Chunk) -> bool {
        let word = self.words.word(self.calls_at + call * STRIDE + STATE_AT);
        word.compare_exchange(from.0, to.0, AcqRel, Relaxed).is_ok()
    }

    /// Notes that a server answered a request.
    pub fn note(&self, request: u64, node: u32) {
        self.log.lock().expect("a model that failed ends the test").push((request, node));
    }

    /// What was answered.
    pub fn answered(&self) -> Vec<(u64, u32)> {
        self.log.lock().expect("a model that failed ends the test").clone()
    }

    /// Does what is left to do in every call, in the name of `node`.
    pub fn tend(&self, node: u32) -> Vec<Outcome> {
        let tend = |call| self.calls.tend(call, 0, &self.clients, is_alive, node);
        (0..self.count).map(tend).collect()
    }

    /// Lets go of all calls, and checks that everything is free then and no entry is left.
    pub fn settle(&self) {
        self.tend(90);
        for call in 0..self.count {
            let outcome = self.calls.give_up(call, is_alive);
            let word = self.calls.look(call);
            assert_eq!(outcome, Outcome::Free, "call {call} is lost: {word:?}");
            assert!(word.is(State::Free), "call {call} is not free: {word:?}");
        }
        assert_eq!(self.take(91), None);
        assert_eq!(self.calls.tokens().depth(), 0, "entries are left");
    }
}

/// The response of server `node` to a request.
pub fn response_to(request: u64, node: u32) -> u64 {
    request * 1000 + u64::from(node)
}

/// How a service is used: by the real code, or by a broken copy.
#[derive(Clone, Copy)]
pub struct Ways {
    /// The header of a response that is there.
    pub hear: fn(&Service, &Asked, u64) -> Option<Part>,
    /// Gives a call up, or looks again after one.
    pub give_up: fn(&Service, usize) -> Outcome,
    /// Takes a call.
    pub take: fn(&Service, u32) -> Option<Held>,
    /// Writes and commits a response.
    pub answer: fn(&Service, &Held, u64, u64, End),
    /// Whether the server may write a part.
    pub has_room: fn(&Service, &Held, u64) -> bool,
    /// Does what is left to do in a call, in the name of a node.
    pub tend: fn(&Service, usize, u32) -> Outcome,
}

/// The real code.
pub const REAL: Ways = Ways {
    hear: |service, asked, index| service.calls.response(asked, index),
    give_up: |service, call| service.calls.give_up(call, is_alive),
    take: |service, node| service.take(node),
    answer: |service, held, index, response, end| {
        service.write_part(held, index, response);
        service.calls.answer(held, index, 8, end);
    },
    has_room: |service, held, index| service.calls.has_room(held, index),
    tend: |service, call, node| service.calls.tend(call, 0, &service.clients, is_alive, node),
};

/// What [`answer`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It commits the part before it is written.
    CommitsFirst,
}

/// `Calls::answer` with its payload.
pub fn answer(
    service: &Service,
    held: &Held,
    index: u64,
    response: u64,
    end: End,
    flaw: Option<Answer>,
) {
    if flaw.is_none() {
        service.write_part(held, index, response);
    }
    step::reached("call.answer");
    service.set_header(held.call(), index, Part::new(held.word.turn(), index, 8, end));
    if flaw == Some(Answer::CommitsFirst) {
        service.write_part(held, index, response);
    }
}

/// `Calls::response` of any turn.
pub fn hear_any(service: &Service, asked: &Asked, index: u64) -> Option<Part> {
    let part = service.header(asked.call(), index);
    (part.0 & 1 == 1).then_some(part)
}

/// `Calls::give_up` that does not wait for the server that has the call.
pub fn give_up_taken(service: &Service, call: usize) -> Outcome {
    loop {
        let seen = service.calls.look(call);
        if seen.is(State::Free) || service.swap(call, seen, seen.freed()) {
            return Outcome::Free;
        }
    }
}

/// `Calls::take` by a store.
pub fn take_by_store(service: &Service, node: u32) -> Option<Held> {
    let held = service.calls.take_without_entry(0..service.count, node);
    if held.is_some() {
        return held;
    }
    // Whatever it says by now.
    let seen = service.calls.look(0);
    let ready = seen.with(State::Ready, seen.node());
    if seen.is(State::Taken) && is_alive(seen.node()) && service.swap(0, seen, ready) {
        return service.calls.take_without_entry(0..1, node);
    }
    None
}

/// What [`tend`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tend {
    /// It makes a call ready again that was answered.
    RepeatsAnswered,
    /// It makes a call ready again of which a response was committed.
    RepeatsBegun,
    /// It looks for the owner of the lane before it looks at the call.
    OwnerFirst,
    /// It frees what the dead had taken.
    FreesTaken,
}

/// `Calls::tend`.
pub fn tend(service: &Service, call: usize, node: u32, flaw: Option<Tend>) -> Outcome {
    let before = service.clients.owner(0);
    let seen = service.calls.look(call);
    let owner = match flaw {
        Some(Tend::OwnerFirst) => before,
        _ => service.clients.owner(0),
    };
    let is_dead = !is_alive(seen.node());
    let ready = seen.failed().with(State::Ready, node);
    match (flaw, seen.state()) {
        (Some(Tend::OwnerFirst), Some(State::Ready | State::Taken)) if owner.is_free() => {
            step::reached("call.free");
            service.swap(call, seen, seen.freed());
            Outcome::Free
        }
        (Some(Tend::RepeatsAnswered | Tend::RepeatsBegun), Some(State::Taken)) if is_dead => {
            let answered = service.calls.is_answered(call, seen.turn());
            if answered && flaw == Some(Tend::RepeatsBegun) {
                return Outcome::Nothing;
            }
            step::reached("call.return");
            if service.swap(call, seen, ready) {
                let _ = service.calls.tokens().enter(call as u64);
            }
            Outcome::Again
        }
        (Some(Tend::FreesTaken), Some(State::Taken)) if is_dead => {
            service.swap(call, seen, seen.freed());
            Outcome::Free
        }
        _ => service.calls.tend(call, 0, &service.clients, is_alive, node),
    }
}

/// Copies without a flaw.
pub const COPY: Ways = Ways {
    answer: |service, held, index, response, end| {
        answer(service, held, index, response, end, None);
    },
    tend: |service, call, node| tend(service, call, node, None),
    ..REAL
};

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Got {
    /// With the response of that server.
    Answer(u32),
    /// It was given up, and is free, or a server has it.
    Up(Outcome),
}

/// Client `node` makes a call, looks so many times for its answer, and gives it up then.
pub fn ask(service: &Service, call: usize, node: u32, request: u64, looks: u32, ways: Ways) -> Got {
    service.write(call, request);
    let asked = service.ask(call, node);
    hear(service, asked, request, looks, ways)
}

/// Looks so many times for the answer to a call that was made, and gives it up then.
pub fn hear(service: &Service, asked: Asked, request: u64, looks: u32, ways: Ways) -> Got {
    for _ in 0..looks {
        let Some(part) = (ways.hear)(service, &asked, 0) else { continue };
        assert_eq!((part.end(), part.bytes()), (End::Last, 8));
        let response = service.read_part(&asked, 0);
        assert_eq!(response / 1000, request, "the answer to another request");
        service.calls.end(&asked);
        return Got::Answer((response % 1000) as u32);
    }
    let word = service.calls.look(asked.call());
    let is_ours = word.turn() == asked.turn() && !word.is(State::Free);
    assert!(is_ours, "the call of a living client was taken away: {word:?}");
    Got::Up((ways.give_up)(service, asked.call()))
}

/// Server `node` takes a call if there is one, and answers it; returns the request.
pub fn serve(service: &Service, node: u32, ways: Ways) -> Option<u64> {
    let held = (ways.take)(service, node)?;
    Some(finish(service, held, ways))
}

/// Answers a call that was taken; returns the request.
pub fn finish(service: &Service, mut held: Held, ways: Ways) -> u64 {
    let request = service.read(&held);
    (ways.answer)(service, &held, 0, response_to(request, held.word.node()), End::Last);
    service.note(request, held.word.node());
    service.calls.remove_entry(&mut held);
    request
}

/// Reads what is there of the responses to a call, at most so many looks in vain; returns them, and what is behind.
pub fn read_on(
    service: &Service,
    asked: &Asked,
    read: &mut Vec<u64>,
    looks: u32,
    ways: Ways,
) -> Option<End> {
    let mut left = looks;
    while left > 0 {
        let index = read.len() as u64;
        if index > 0 {
            service.calls.consume(asked, index);
        }
        let Some(part) = (ways.hear)(service, asked, index) else {
            left -= 1;
            continue;
        };
        if part.end() == End::Done {
            service.calls.end(asked);
            return Some(End::Done);
        }
        read.push(service.read_part(asked, index));
    }
    None
}

/// Sends responses `10 * request + index` from `from` on, up to `to` of them and the end, as long as there is room;
/// returns how many there are now, and whether it has said the end.
pub fn send_on(service: &Service, held: &Held, from: u64, to: u64, ways: Ways) -> (u64, bool) {
    let request = service.read(held);
    for index in from..=to {
        if !(ways.has_room)(service, held, index) {
            return (index, false);
        }
        let end = if index == to { End::Done } else { End::More };
        (ways.answer)(service, held, index, 10 * request + index, end);
    }
    (to, true)
}
