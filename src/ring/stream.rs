//! A ring of bytes with one writer and one reader.
//!
//! ```text
//!         read                       tail                    read + capacity
//!    ──────┼──────────────────────────┼──────────────────────────┼─────────
//!     free │ committed: the reader's  │ 0 │ staged, loan: the writer's
//!                                     └ the header word that the reader polls
//! ```
//!
//! Positions are bytes since the birth of the ring; they only grow. There is no shared tail: a message is there once
//! its header word is. One that does not fit the rest of the lap begins at the next one, and a word `NEXT` says so.
//!
//! # Invariants
//!
//! * `I1` — The header word at the tail is zero between commits.
//! * `I2` — Every committed frame is followed by a header word: a frame, `NEXT`, or zero. So `tail + WORD` is at most
//!   `read + capacity`.
//! * `I3` — What is staged is committed by the one store of its first header word, behind all others: several messages
//!   appear at once or never.
//! * `I4` — Only the reader stores `READ` and `ROOM`, and `ROOM` is never ahead of `READ`. Only the writer changes
//!   anything in the ring; what the reader stores there is what it found, in messages that it has not given back.
//!
//! # Orderings
//!
//! | edge     | `Release` store                     | `Acquire` load                  | hands over                 |
//! |----------|-------------------------------------|---------------------------------|----------------------------|
//! | `COMMIT` | a header word, in `Writer::commit`  | header word, in `Reader::poll`  | the messages, to the reader |
//! | `READ`   | `READ`, in `Reader::settle`         | `READ`, in `Writer::look_closer` | their bytes, to the writer |
//! | `ROOM`   | `ROOM`, in `Reader::tell_room`      | `ROOM`, in `Writer::look`       | the same                   |
//!
//! `ROOM` is `READ` told rarely, on a line of its own: so a reader that stores `READ` for every message keeps that
//! line, and a writer that looks for room takes another one away from it. Everything else is `Relaxed`: `COMMIT`
//! publishes it.
//!
//! # If a process dies
//!
//! The writer, before a commit: nothing of what it staged was ever there. Its successor walks from `READ` to the first
//! zero word, trusts no byte behind it, and goes on there. The reader: its successor begins at `READ`, so it reads
//! again what was taken and not settled. Either of them comes behind the death of its predecessor, which the kernel
//! vouches for: see `DEATH` in `shm/node.rs`. Checked by `loom-tests/tests/stream.rs`.

#![allow(unsafe_code)]

mod reader;

pub use reader::{Poll, Reader};

use crate::layout::channel::{self as layout, Head, DATA_AT, READ_AT, ROOM_AT, WORD};
use crate::shm::place::Region;
use crate::sync::{AtomicU64, Ordering::*};

/// Most bytes that pass through a channel: positions, and two laps more, are counted on without overflow.
const POSITION_MAX: u64 = u64::MAX >> 1;

/// A value in the shared words that neither end writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Corrupt;

/// The shared words and the ring, seen by either end.
#[derive(Clone)]
pub struct Stream {
    region: Region,
    capacity: usize,
}

impl Stream {
    /// The ring of `capacity` bytes, a power of two, in `region`, whose length the caller has checked.
    pub fn new(region: Region, capacity: usize) -> Self {
        assert!(capacity.is_power_of_two() && region.len() >= DATA_AT + capacity);
        Self { region, capacity }
    }

    /// Bytes of the ring.
    #[inline]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The memory.
    #[inline]
    pub fn region(&self) -> &Region {
        &self.region
    }

    #[inline]
    fn offset(&self, position: u64) -> usize {
        position as usize & (self.capacity - 1)
    }

    /// The header word at `position`.
    #[inline]
    fn word(&self, position: u64) -> &AtomicU64 {
        self.region.word(DATA_AT + self.offset(position))
    }

    /// The header word at `position`, checked against the end of the lap: a frame ends inside of it, and is no longer
    /// than any that a writer makes.
    #[inline]
    fn head(&self, position: u64) -> Head {
        // COMMIT: pairs with the store in `Writer::commit`.
        let word = self.word(position).load(Acquire);
        match layout::head(word, position) {
            Head::Frame(len) if len > self.longest_at(position) => Head::Bad,
            // A lap begins with a message.
            Head::Next if self.offset(position) == 0 => Head::Bad,
            head => head,
        }
    }

    /// The longest payload that a frame at `position` may have.
    #[inline]
    fn longest_at(&self, position: u64) -> usize {
        let left = self.capacity - self.offset(position) - WORD;
        left.min(layout::payload_bytes_max(self.capacity))
    }

    /// Where the next lap begins.
    #[inline]
    fn lap_behind(&self, position: u64) -> u64 {
        position + (self.capacity - self.offset(position)) as u64
    }

    /// `READ`, as somebody finds it who holds no end, or has just got one.
    pub fn read(&self) -> Result<u64, Corrupt> {
        // ROOM: pairs with the store in `Reader::tell_room`; so `READ` is not behind it.
        let room = self.region.word(ROOM_AT).load(Acquire);
        // READ: pairs with the store in `Reader::settle`.
        let read = self.region.word(READ_AT).load(Acquire);
        // A batch is at most a lap, and `ROOM` follows when it is a part of a lap behind.
        let behind = 2 * self.capacity as u64;
        let sound = read.is_multiple_of(8) && room.is_multiple_of(8) && read <= POSITION_MAX;
        if sound && room <= read && read - room <= behind {
            Ok(read)
        } else {
            Err(Corrupt)
        }
    }

    /// The position behind the last committed message, and how many there are from `from` on.
    pub fn walk(&self, from: u64) -> Result<(u64, u64), Corrupt> {
        let (mut at, mut count) = (from, 0);
        // A lap, less the header word behind it, is the most that can be committed.
        while at - from < self.capacity as u64 {
            match self.head(at) {
                Head::Empty => return Ok((at, count)),
                Head::Bad => return Err(Corrupt),
                Head::Next => at = self.lap_behind(at),
                Head::Frame(len) => {
                    at += layout::frame_bytes(len) as u64;
                    count += 1;
                }
            }
        }
        Err(Corrupt)
    }
}

/// The writing end. Private to the process that holds the lock of the sender.
pub struct Writer {
    stream: Stream,
    /// Behind what is committed, and staged.
    end: u64,
    /// Whether anything is staged. Then the tail and the header word there, which is held back:
    is_staged: bool,
    tail: u64,
    first: u64,
    /// Up to where the reader was done when this looked.
    read: u64,
    /// The position up to which a frame may reach from `end`: the end of the lap, or of the room less the header word
    /// behind it.
    limit: u64,
}

impl Writer {
    /// Takes the writing end over where its last holder left it: fresh, in order, or at any instant of a death.
    pub fn recover(stream: Stream) -> Result<Self, Corrupt> {
        let read = stream.read()?;
        let (tail, _) = stream.walk(read)?;
        let mut writer =
            Self { stream, end: tail, is_staged: false, tail, first: 0, read, limit: 0 };
        writer.measure();
        Ok(writer)
    }

    /// Behind what is committed.
    #[inline]
    pub fn tail(&self) -> u64 {
        if self.is_staged {
            self.tail
        } else {
            self.end
        }
    }

    /// Bytes that are staged and not committed.
    #[inline]
    pub fn staged(&self) -> u64 {
        self.end - self.tail()
    }

    /// Whether anything is staged.
    #[inline]
    pub fn is_staged(&self) -> bool {
        self.is_staged
    }

    /// How far a frame may reach.
    fn measure(&mut self) {
        let room = self.read + (self.stream.capacity - WORD) as u64;
        self.limit = self.stream.lap_behind(self.end).min(room);
    }

    /// Whether there is room for a message of `len` bytes, which is at most the longest, behind what is staged.
    #[inline]
    pub fn has_room(&self, len: usize) -> bool {
        // I2: its bytes, and the header word behind it.
        self.end + layout::frame_bytes(len) as u64 <= self.limit
    }

    /// Whether there is room for it, in the next lap if the rest of this one is too short.
    pub fn make_room(&mut self, len: usize) -> bool {
        self.measure();
        let bytes = layout::frame_bytes(len) as u64;
        let lap = self.stream.lap_behind(self.end);
        let is_short = self.end + bytes > lap;
        // Nothing is passed over in vain.
        if is_short && lap + bytes + WORD as u64 <= self.read + self.stream.capacity as u64 {
            self.stage_word(layout::next(self.end), lap - self.end);
            self.measure();
        }
        self.has_room(len)
    }

    /// Looks how far the reader said it was.
    pub fn look(&mut self) -> Result<(), Corrupt> {
        // ROOM: pairs with the store in `Reader::tell_room`.
        let room = self.stream.region.word(ROOM_AT).load(Acquire);
        // It may be behind what `READ` told before. That can only make the ring look fuller than it is.
        if room > self.tail() || !room.is_multiple_of(8) {
            return Err(Corrupt);
        }
        self.read = self.read.max(room);
        Ok(())
    }

    /// Looks how far the reader is, at the price of its line.
    pub fn look_closer(&mut self) -> Result<(), Corrupt> {
        // READ: pairs with the store in `Reader::settle`.
        let read = self.stream.region.word(READ_AT).load(Acquire);
        if read > self.tail() || read < self.read || !read.is_multiple_of(8) {
            return Err(Corrupt);
        }
        self.read = read;
        Ok(())
    }

    /// Stages the message of `len` bytes that was written where there is room for it.
    #[inline]
    pub fn stage(&mut self, len: usize) {
        debug_assert!(self.has_room(len), "a message is staged where it has room");
        self.stage_word(layout::frame(len, self.end), layout::frame_bytes(len) as u64);
    }

    /// Stages a header word, and what it says about the `bytes` from it on.
    #[inline]
    fn stage_word(&mut self, word: u64, bytes: u64) {
        if !self.is_staged {
            (self.is_staged, self.tail, self.first) = (true, self.end, word);
        } else {
            step!("stream.stage");
            // Relaxed: published by the commit.
            self.stream.word(self.end).store(word, Relaxed);
        }
        self.end += bytes;
    }

    /// Commits what is staged.
    #[inline]
    pub fn commit(&mut self) {
        if self.is_staged {
            self.publish(self.tail, self.end, self.first);
            self.is_staged = false;
        }
    }

    /// Commits the message of `len` bytes that was written where there is room for it, behind what is staged.
    #[inline]
    pub fn commit_one(&mut self, len: usize) {
        debug_assert!(self.has_room(len), "a message is committed where it has room");
        if self.is_staged {
            self.stage(len);
            return self.commit();
        }
        // The same in as few stores as it takes: how many lines a processor waits for at a time depends on how many
        // stores it has in between.
        let end = self.end + layout::frame_bytes(len) as u64;
        self.publish(self.end, end, layout::frame(len, self.end));
        self.end = end;
    }

    #[inline]
    fn publish(&self, tail: u64, end: u64, first: u64) {
        step!("stream.clean");
        // Relaxed: ordered by the commit below. I2: there is room for it.
        self.stream.word(end).store(0, Relaxed);
        step!("stream.commit");
        // COMMIT: pairs with the load in `Stream::head`.
        self.stream.word(tail).store(first, Release);
    }

    /// Forgets what is staged.
    pub fn abandon(&mut self) {
        self.end = self.tail();
        self.is_staged = false;
        self.measure();
    }
}

#[cfg(not(windlass_loom))]
impl Stream {
    /// The payload of a message that the reader found and has not given back.
    #[inline]
    fn payload(&self, offset: usize, len: usize) -> &[u8] {
        // SAFETY: contract 4: only the reader calls this, between COMMIT and READ; nobody writes the bytes meanwhile.
        unsafe { self.region.bytes(offset, len) }
    }
}

#[cfg(not(windlass_loom))]
impl Writer {
    /// The space for a payload of `len` bytes, for which there is room.
    #[inline]
    pub fn space(&mut self, len: usize) -> &mut [u8] {
        let at = self.space_at(len);
        // SAFETY: contract 4 and `I4`: this is the one writer, `has_room` has seen by READ or ROOM that the reader is
        // done with these bytes, and it reads no further than the header word at the tail.
        unsafe { self.stream.region.bytes_mut(at, len) }
    }

    /// The same space, to read.
    #[inline]
    pub fn space_ref(&self, len: usize) -> &[u8] {
        let at = self.space_at(len);
        // SAFETY: as for `space`; nobody writes it while the writer is borrowed.
        unsafe { self.stream.region.bytes(at, len) }
    }

    #[inline]
    fn space_at(&self, len: usize) -> usize {
        assert!(self.has_room(len), "a loan has room");
        DATA_AT + self.stream.offset(self.end) + WORD
    }
}

#[cfg(windlass_loom)]
impl Writer {
    /// Writes word `index` of the payload of the message that comes next.
    pub fn write_payload(&mut self, index: usize, value: u64) {
        assert!(self.has_room((index + 1) * 8));
        let at = DATA_AT + self.stream.offset(self.end) + WORD + index * 8;
        // In a mapping payload and header words are the same memory: stale payload is what a reader would see as a
        // header.
        self.stream.region.word(at).store(value, Relaxed);
        self.stream.region.set_payload(at, value);
    }
}
