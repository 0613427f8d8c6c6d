//! A ring of bytes in modelled memory, and copies of its steps with something left out, for the canaries.

use std::sync::atomic::Ordering::*;
use windlass::layout::channel::{
    self as layout, DATA_AT, READ_AT, RECEIVER_AT, SENDER_AT, SLEEP, WORD,
};
use windlass::ring::doze::Doze;
use windlass::ring::stream::{Poll, Reader, Stream, Writer};
use windlass::shm::place::Region;

/// Bytes of the ring: eight words, in which three messages of one word leave a header word for what follows.
pub const CAPACITY: usize = 64;

/// What word `word` of message `number` carries.
fn content(number: u64, word: usize) -> u64 {
    100 + number * 8 + word as u64
}

/// The memory of a channel.
#[derive(Clone)]
pub struct Channel {
    /// The memory.
    pub region: Region,
}

impl Channel {
    /// A fresh one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { region: Region::zeroed(DATA_AT + CAPACITY, DATA_AT) }
    }

    /// One in which messages went round, so that every word of the ring is stale; the next message begins `words` words
    /// behind the beginning of the ring.
    pub fn used(words: usize) -> Self {
        let channel = Self::new();
        let (mut writer, mut reader) = (channel.writer(), channel.reader());
        let (begin, mut number) = (writer.tail(), 1000);
        while writer.tail() < begin + CAPACITY as u64
            || writer.tail() as usize % CAPACITY != words * WORD
        {
            // Steps of one word, where two do not lead there.
            let left = (words * WORD + CAPACITY - writer.tail() as usize % CAPACITY) % CAPACITY;
            assert!(send(&mut writer, number, usize::from(left != WORD)));
            assert!(receive(&reader).is_some());
            reader.settle();
            reader.settle_room();
            number += 1;
        }
        channel
    }

    /// The ring.
    pub fn stream(&self) -> Stream {
        Stream::new(self.region.clone(), CAPACITY)
    }

    /// Takes the writing end.
    pub fn writer(&self) -> Writer {
        Writer::recover(self.stream()).expect("the words are sound")
    }

    /// Takes the reading end.
    pub fn reader(&self) -> Reader {
        Reader::recover(self.stream()).expect("the words are sound")
    }

    /// Where the receiver sleeps.
    pub fn receiver_doze(&self) -> Doze {
        Doze::new(self.region.clone(), RECEIVER_AT + SLEEP)
    }

    /// Where the sender sleeps.
    pub fn sender_doze(&self) -> Doze {
        Doze::new(self.region.clone(), SENDER_AT + SLEEP)
    }
}

/// Stages message `number` of `words` words if there is room.
pub fn stage(writer: &mut Writer, number: u64, words: usize) -> bool {
    let len = words * WORD;
    if !writer.make_room(len) {
        writer.look().expect("the words are sound");
        if !writer.make_room(len) {
            writer.look_closer().expect("the words are sound");
            if !writer.make_room(len) {
                return false;
            }
        }
    }
    for word in 0..words {
        writer.write_payload(word, content(number, word));
    }
    writer.stage(len);
    true
}

/// Sends message `number` of `words` words if there is room.
pub fn send(writer: &mut Writer, number: u64, words: usize) -> bool {
    let sent = stage(writer, number, words);
    writer.commit();
    sent
}

/// Takes what is due: its number. It has to be whole; one without words has number 0.
pub fn receive(reader: &Reader) -> Option<u64> {
    match reader.poll() {
        Poll::Empty => None,
        Poll::Corrupt => panic!("the reader is told that the ring is damaged"),
        Poll::Frame { offset, len } => {
            reader.take(len);
            Some(number_at(reader, offset, len))
        }
    }
}

fn number_at(reader: &Reader, offset: usize, len: usize) -> u64 {
    let words = (0..len / WORD).map(|word| reader.payload_word(offset + word * WORD));
    let numbers: Vec<u64> = words
        .enumerate()
        .map(|(index, word)| {
            assert_eq!((word - 100) % 8, index as u64, "a message is not whole");
            (word - 100) / 8
        })
        .collect();
    assert!(numbers.iter().all(|number| *number == numbers[0]), "a message is not whole");
    numbers.first().copied().unwrap_or(0)
}

/// What a broken writer gets wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// It never zeroes the header word behind the frame.
    LeavesNextHeader,
    /// It zeroes it when the frame is out.
    ZeroesNextHeaderLate,
    /// Its commit is not a release.
    Relaxed,
}

/// `Writer::stage` and `commit` of a message of one word at `position`.
pub fn commit(channel: &Channel, position: u64, number: u64, flaw: Option<Flaw>) {
    let at = |position: u64| DATA_AT + position as usize % CAPACITY;
    let region = &channel.region;
    region.word(at(position) + WORD).store(content(number, 0), Relaxed);
    region.set_payload(at(position) + WORD, content(number, 0));
    let next = region.word(at(position + layout::frame_bytes(WORD) as u64));
    if !matches!(flaw, Some(Flaw::LeavesNextHeader | Flaw::ZeroesNextHeaderLate)) {
        next.store(0, Relaxed);
    }
    let order = if flaw == Some(Flaw::Relaxed) { Relaxed } else { Release };
    region.word(at(position)).store(layout::frame(WORD, position), order);
    if flaw == Some(Flaw::ZeroesNextHeaderLate) {
        next.store(0, Relaxed);
    }
}

/// `Reader::settle` of everything below `position`, that is not a release.
pub fn settle_relaxed(channel: &Channel, position: u64) {
    channel.region.word(READ_AT).store(position, Relaxed);
}
