//! Copies of single steps of the protocols with something left out, for the canaries.
//!
//! They work on the same memory as the real code, so that a canary can set one broken side against the real other side.
//! Every copy also runs without a flaw, to show that a canary dies of its flaw.

use crate::{Log, Topic};
use loom::sync::atomic::{fence, AtomicU64};
use std::sync::atomic::Ordering::*;
use std::sync::Arc;
use windlass::layout::entry::Entry;
use windlass::layout::frame;
use windlass::layout::lane as layout;
use windlass::layout::order::{self, Place};
use windlass::layout::owner::Owner;
use windlass::ring::lane::Lane;
use windlass::ring::order::Found;
use windlass::ring::wake::{Ring, SLEEPERS};
use windlass::shm::span::{Extent, Span};

/// What [`commit`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// It never zeroes the header word behind the frame.
    LeavesNextHeader,
    /// It zeroes the header word behind the frame when the frame is out.
    ZeroesNextHeaderLate,
    /// Its commit is not a release.
    Relaxed,
}

fn base_of(lane: &Lane, physical: usize) -> usize {
    layout::segments_at(lane.segments()) + physical * lane.segment_bytes()
}

/// `Writer::commit` of a message of one word at byte `at` of a physical segment.
pub fn commit(lane: &Lane, physical: usize, at: usize, sequence: u64, flaw: Option<Commit>) {
    let (data, here) = (lane.data(), base_of(lane, physical) + at);
    let next = data.word(here + frame::frame_bytes(8));
    data.set_payload(here + frame::WORD, crate::payload_of(sequence));
    if !matches!(flaw, Some(Commit::LeavesNextHeader | Commit::ZeroesNextHeaderLate)) {
        next.store(0, Relaxed);
    }
    let order = if flaw == Some(Commit::Relaxed) { Relaxed } else { Release };
    data.word(here).store(frame::frame(8, sequence), order);
    if flaw == Some(Commit::ZeroesNextHeaderLate) {
        next.store(0, Relaxed);
    }
}

/// `Writer::recover` and two messages, by an heir that goes on where the last committed message is although the next
/// segment is mapped.
pub fn succeed_in_the_old_segment(lane: &Lane) {
    let here = frame::PROLOGUE + frame::frame_bytes(8);
    commit(lane, 0, here, 1, None);
    roll(lane, here + frame::frame_bytes(8), 2, None);
    commit(lane, 1, frame::PROLOGUE, 2, None);
}

/// What [`roll`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Roll {
    /// The old segment is ended before the next one is mapped.
    EndsBeforeMapping,
    /// The next segment is mapped before it has a prologue.
    MapsBeforePrologue,
}

/// `Writer::roll` from byte `end` of segment 0 to segment 1, which begins with message `first`.
pub fn roll(lane: &Lane, end: usize, first: u64, flaw: Option<Roll>) {
    let (data, base) = (lane.data(), base_of(lane, 1));
    let prologue = || {
        data.word(base).store(first, Relaxed);
        data.word(base + frame::WORD).store(2, Relaxed);
        data.word(base + frame::PROLOGUE).store(0, Relaxed);
    };
    let end = || data.word(base_of(lane, 0) + end).store(frame::next(first), Release);
    if flaw != Some(Roll::MapsBeforePrologue) {
        prologue();
    }
    if flaw == Some(Roll::EndsBeforeMapping) {
        end();
    }
    entry_word(lane, 1).store(Entry::new(1, 1).0, Release);
    data.word(layout::NEWEST_AT).store(1, Release);
    if flaw == Some(Roll::MapsBeforePrologue) {
        prologue();
    }
    if flaw != Some(Roll::EndsBeforeMapping) {
        end();
    }
}

fn entry_word(lane: &Lane, logical: u64) -> &AtomicU64 {
    let index = logical as usize % layout::table_len(lane.segments());
    lane.data().word(layout::TABLE_AT + index * 8)
}

/// The payload of the message in physical segment 0, which must be `expected`.
pub fn look(topic: &Topic, expected: u64) {
    let lane = topic.lane(0);
    let at = base_of(&lane, 0) + frame::PROLOGUE + frame::WORD;
    assert_eq!(lane.data().payload(at), expected, "the segment holds another message");
}

/// What [`visit`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visit {
    /// It does not fence between its pin and its second look at the mapping.
    NoFence,
    /// It does not look at the mapping again.
    NoSecondLook,
    /// Its unpin is not a release.
    RelaxedUnpin,
}

/// `Reader::enter` of logical segment 0, in physical segment 0, one message, and `Reader::leave`, by the owner of slot
/// 0.
pub fn visit(topic: &Topic, flaw: Option<Visit>) {
    visit_mapped(topic, Entry::new(0, 0), flaw);
}

/// The same, if the mapping is `mapped`.
pub fn visit_mapped(topic: &Topic, mapped: Entry, flaw: Option<Visit>) {
    let lane = topic.lane(0);
    if entry_word(&lane, 0).load(Acquire) != mapped.0 {
        return;
    }
    topic.pins.pin(0, 0, 0);
    if flaw != Some(Visit::NoFence) {
        fence(SeqCst);
    }
    if flaw == Some(Visit::NoSecondLook) || entry_word(&lane, 0).load(Acquire) == mapped.0 {
        look(topic, crate::payload_of(0));
    }
    if flaw == Some(Visit::RelaxedUnpin) {
        topic.pin_word(0, 0).fetch_sub(1, Relaxed);
    } else {
        topic.pins.unpin(0, 0, 0);
    }
}

/// What [`take_back`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeBack {
    /// It does not fence between retiring the mapping and loading the counter.
    NoFence,
    /// It loads the counter and then retires the mapping.
    ScansFirst,
    /// Its load of the counter is not an acquire.
    RelaxedCount,
}

/// `Writer::take` of physical segment 0, which logical segment 0 maps and slot 0 may pin, and a write into it.
pub fn take_back(topic: &Topic, flaw: Option<TakeBack>) {
    let lane = topic.lane(0);
    let count = || {
        let order = if flaw == Some(TakeBack::RelaxedCount) { Relaxed } else { Acquire };
        topic.pin_word(0, 0).load(order)
    };
    let early = (flaw == Some(TakeBack::ScansFirst)).then(count);
    entry_word(&lane, 0).store(Entry::new(0, 0).retired().0, Relaxed);
    if flaw != Some(TakeBack::NoFence) {
        fence(SeqCst);
    }
    if early.unwrap_or_else(count) == 0 {
        let at = base_of(&lane, 0) + frame::PROLOGUE + frame::WORD;
        lane.data().set_payload(at, crate::payload_of(2));
    }
}

/// `Writer::take` of physical segment 0 from mapping `old`, one message, and the mapping `new`.
pub fn recycle(topic: &Topic, old: Entry, new: Entry, payload: u64) {
    let lane = topic.lane(0);
    entry_word(&lane, 0).store(old.retired().0, Relaxed);
    fence(SeqCst);
    if topic.pins.count(0, 0, 0) == 0 {
        let at = base_of(&lane, 0) + frame::PROLOGUE + frame::WORD;
        lane.data().set_payload(at, payload);
        entry_word(&lane, 0).store(new.0, Release);
    }
}

/// How the threads of one process count their pins of one segment.
#[derive(Clone)]
pub struct Count {
    /// The count of the process, if the word in shared memory is only a bit.
    local: Option<Arc<AtomicU64>>,
}

impl Count {
    /// A counter in shared memory, or a bit there that a count of the process guards.
    pub fn new(guarded_bit: bool) -> Self {
        Self { local: guarded_bit.then(|| Arc::new(AtomicU64::new(0))) }
    }

    /// Counts one more holder.
    pub fn pin(&self, word: &AtomicU64) {
        match &self.local {
            None => drop(word.fetch_add(1, Relaxed)),
            Some(local) if local.fetch_add(1, AcqRel) == 0 => word.store(1, Release),
            Some(_) => {}
        }
        fence(SeqCst);
    }

    /// Counts one holder less.
    pub fn unpin(&self, word: &AtomicU64) {
        match &self.local {
            None => drop(word.fetch_sub(1, Release)),
            Some(local) if local.fetch_sub(1, AcqRel) == 1 => word.store(0, Release),
            Some(_) => {}
        }
    }
}

/// `visit` with pins that are counted by `count`.
pub fn visit_counted(topic: &Topic, count: &Count) {
    let lane = topic.lane(0);
    let mapped = Entry::new(0, 0);
    if entry_word(&lane, 0).load(Acquire) != mapped.0 {
        return;
    }
    count.pin(topic.pin_word(0, 0));
    if entry_word(&lane, 0).load(Acquire) == mapped.0 {
        look(topic, crate::payload_of(0));
    }
    count.unpin(topic.pin_word(0, 0));
}

/// What [`establish`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Establish {
    /// It does not fence between its gate and its second look at the floor.
    NoFence,
    /// It does not look at the floor again.
    NoSecondLook,
}

/// `Slots::establish` of the gate of slot 0 in lane 0.
pub fn establish(topic: &Topic, flaw: Option<Establish>) -> u64 {
    let lane = topic.lane(0);
    let mut at = lane.floor().expect("the lane is sound");
    loop {
        topic.slots.set_gate(0, 0, lane.position(at, 0));
        if flaw != Some(Establish::NoFence) {
            fence(SeqCst);
        }
        let now = lane.floor().expect("the lane is sound");
        if now == at || flaw == Some(Establish::NoSecondLook) {
            return at;
        }
        at = now;
    }
}

/// What [`retire`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retire {
    /// It does not fence between moving the floor and scanning the gates.
    NoFence,
    /// It scans the gates and then moves the floor.
    ScansFirst,
}

/// `Writer::retire_oldest` of logical segment 0 on a reliable topic.
pub fn retire(topic: &Topic, flaw: Option<Retire>) {
    let lane = topic.lane(0);
    let held = || topic.slots.slowest(0, lane.position(1, 0)).is_some();
    let early = (flaw == Some(Retire::ScansFirst)).then(held);
    lane.data().word(layout::FLOOR_AT).store(1, Release);
    if flaw != Some(Retire::NoFence) {
        fence(SeqCst);
    }
    if !early.unwrap_or_else(held) {
        entry_word(&lane, 0).store(Entry::new(0, 0).retired().0, Relaxed);
    }
}

/// What [`evict_and_take_back`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evict {
    /// It takes the segment back without a word.
    Nobody,
    /// It retires the mapping and then evicts.
    Late,
    /// It neither fences between the eviction and the retirement nor releases the latter.
    Unordered,
    /// It frees the slot, and somebody else takes it.
    GivesTheSlotAway,
}

/// `Slots::evict` of the owner of slot 0, and `Writer::take` of logical segment 1, in physical segment 1, and a write
/// into it.
pub fn evict_and_take_back(topic: &Topic, owner: Owner, flaw: Option<Evict>) {
    let (lane, slots) = (topic.lane(0), &topic.slots);
    let evict = || match flaw {
        Some(Evict::Nobody) => {}
        Some(Evict::GivesTheSlotAway) => {
            slots.reap(0, owner);
            slots.claim(0, 2, &topic.pins);
        }
        _ => drop(slots.evict(0, owner)),
    };
    if flaw != Some(Evict::Late) {
        evict();
    }
    if flaw != Some(Evict::Unordered) {
        fence(SeqCst);
    }
    entry_word(&lane, 1).store(Entry::new(1, 1).retired().0, Relaxed);
    if flaw == Some(Evict::Late) {
        evict();
    }
    fence(SeqCst);
    if topic.pins.count(0, 1, 0) == 0 {
        let at = base_of(&lane, 1) + frame::PROLOGUE + frame::WORD;
        lane.data().set_payload(at, crate::payload_of(3));
    }
}

/// What [`append`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Append {
    /// It does not look at the tail again between loading the place and swapping it.
    NoSecondLook,
    /// It swaps the place and then says that the frame there may be lost.
    LapsLate,
    /// It advances the tail and then says that the frame is in.
    TailFirst,
    /// It looks whether the frame is in before it looks for a place.
    CoveredFirst,
}

/// `Order::append`.
pub fn append(log: &Log, place: Place, flaw: Option<Append>) -> Option<u64> {
    let covered = || log.order.ordered(place.lane) > place.position;
    if flaw == Some(Append::CoveredFirst) && covered() {
        return None;
    }
    loop {
        let index = log.order.tail();
        let slot = log.words.word(order::slots_at(log.lanes) + (index % log.slots) as usize * 8);
        let word = slot.load(Acquire);
        if flaw != Some(Append::CoveredFirst) && covered() {
            return None;
        }
        if flaw != Some(Append::NoSecondLook) && log.order.tail() != index {
            continue;
        }
        if order::is_taken(word, index, log.slots) {
            finish(log, index, word, flaw);
            continue;
        }
        let lap = || {
            let limit = (index + 1).saturating_sub(log.slots);
            log.words.word(order::FLOOR_AT).fetch_max(limit, AcqRel);
            log.words.word(order::LAPPED_AT).fetch_max(limit, AcqRel);
        };
        if flaw != Some(Append::LapsLate) {
            lap();
        }
        let mine = order::pack(place, index, log.slots);
        if slot.compare_exchange(word, mine, AcqRel, Relaxed).is_ok() {
            if flaw == Some(Append::LapsLate) {
                lap();
            }
            finish(log, index, mine, flaw);
            return Some(index);
        }
    }
}

fn finish(log: &Log, index: u64, word: u64, flaw: Option<Append>) {
    let place = order::unpack(word);
    let cover = || {
        log.words.word(order::ORDERED_AT + place.lane * 8).fetch_max(place.position + 8, AcqRel);
    };
    if flaw != Some(Append::TailFirst) {
        cover();
    }
    let tail = log.words.word(order::TAIL_AT);
    // Failing means that somebody else advanced it.
    tail.compare_exchange(index, index + 1, AcqRel, Relaxed).ok();
    if flaw == Some(Append::TailFirst) {
        cover();
    }
}

/// `Order::read` that does not ask whether the place may be lost.
pub fn read(log: &Log, index: u64) -> Found {
    let slot = log.words.word(order::slots_at(log.lanes) + (index % log.slots) as usize * 8);
    let word = slot.load(Acquire);
    if order::is_taken(word, index, log.slots) {
        Found::Place(order::unpack(word))
    } else {
        Found::Empty
    }
}

/// `Bell::is_wanted` in a publisher that does not pass the sleeper's barrier.
pub fn is_wanted(topic: &Topic) -> bool {
    topic.hint_word().load(Relaxed) != 0
}

/// `Bell::ring` that withdraws the hint before it looks whether anybody sleeps, and leaves it at that.
pub fn ring(topic: &Topic) -> Ring {
    let rouse = |slot| {
        let sleeps = topic.slots.is_sleeping(slot);
        if sleeps {
            topic.slots.set_sleeping(slot, false);
        }
        sleeps
    };
    if (0..topic.slots.high()).filter(|slot| rouse(*slot)).count() > 0 {
        return Ring::Wake;
    }
    topic.hint_word().fetch_and(!SLEEPERS, AcqRel);
    Ring::Nobody
}

/// `Lane::look_at_floor` that does not look at the mapping again.
pub fn look_at_floor(lane: &Lane) -> Option<u64> {
    let logical = lane.floor().expect("the lane is sound");
    let entry = Entry(entry_word(lane, logical).load(Acquire));
    let first = lane.data().word(base_of(lane, entry.physical())).load(Relaxed);
    entry.maps(logical).then_some(first)
}

/// What [`stand_at_first`] gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandAt {
    /// It pins where the message was and checks the header word there, not the mapping.
    TrustsTheHeader,
    /// It checks the mapping before it pins only.
    TrustsTheFirstLook,
}

/// `Reader::stand_at` for message 0, the only one of logical segment 0, and `Reader::leave`.
pub fn stand_at_first(topic: &Topic, flaw: Option<StandAt>) {
    let lane = topic.lane(0);
    let mapped = || entry_word(&lane, 0).load(Acquire) == Entry::new(0, 0).0;
    let header = lane.data().word(base_of(&lane, 0) + frame::PROLOGUE);
    if flaw != Some(StandAt::TrustsTheHeader) && !mapped() {
        return;
    }
    topic.pins.pin(0, 0, 0);
    fence(SeqCst);
    let here = match flaw {
        None => mapped(),
        Some(StandAt::TrustsTheHeader) => header.load(Acquire) == frame::frame(8, 0),
        Some(StandAt::TrustsTheFirstLook) => true,
    };
    if here {
        look(topic, crate::payload_of(0));
    }
    topic.pins.unpin(0, 0, 0);
}

/// `Span::get` that does not look at the version again.
pub fn get_span(span: &Span) -> Option<Extent> {
    let [version, start, end, note] = span.words().map(|word| word.load(Acquire));
    let whole = version % 2 == 0 && start != 0;
    let (start, note) = (start as usize, note as usize);
    whole.then_some(Extent { start, end: (end & !1) as usize, writable: end % 2 == 1, note })
}

/// `Span::set` without a fence behind the odd version.
pub fn set_span(span: &Span, extent: Option<Extent>) {
    let words = extent.map_or([0, 0, 0], |extent| {
        [extent.start, extent.end | usize::from(extent.writable), extent.note]
    });
    let [version, rest @ ..] = span.words();
    let before = version.load(Relaxed);
    version.store(before + 1, Relaxed);
    rest.iter().zip(words).for_each(|(word, value)| word.store(value as u64, Relaxed));
    version.store(before + 2, Release);
}
