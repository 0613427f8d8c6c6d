//! The reading end of a ring of bytes; [`stream`](super) has the theory.

use super::{Corrupt, Stream};
use crate::layout::channel::{self as layout, Head, DATA_AT, READ_AT, ROOM_AT, WORD};
use crate::sync::Ordering::*;
use std::cell::Cell;

/// Bytes of a line of the cache.
const LINE_BYTES: usize = 64;

/// Bytes of a message whose lines a reader makes its own: what it receives costs the same however long it is.
const OWN_BYTES_MAX: usize = 256;

/// What a reader found at its position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Poll {
    /// Nothing yet.
    Empty,
    /// A message: where its payload begins in the region, and its length.
    Frame {
        /// Offset of the payload.
        offset: usize,
        /// Its bytes.
        len: usize,
    },
    /// A word that no sender writes.
    Corrupt,
}

/// The reading end. Private to the process that holds the lock of the receiver.
pub struct Reader {
    stream: Stream,
    /// The header word that is due.
    at: Cell<u64>,
    /// Whether there was a message at the last look.
    streams: Cell<bool>,
    /// `READ`, as this stored it.
    read: u64,
    /// `ROOM`, as this stored it.
    room: u64,
}

impl Reader {
    /// Takes the reading end over where its last holder left it.
    pub fn recover(stream: Stream) -> Result<Self, Corrupt> {
        let read = stream.read()?;
        let reader =
            Self { at: Cell::new(read), streams: Cell::new(false), read, room: read, stream };
        if reader.stream.head(read) == Head::Bad {
            return Err(Corrupt);
        }
        reader.tell_room();
        Ok(reader)
    }

    /// The position of the message that is due.
    #[inline]
    pub fn position(&self) -> u64 {
        self.at.get()
    }

    /// What is due, if it is there.
    #[inline]
    pub fn poll(&self) -> Poll {
        match self.stream.head(self.at.get()) {
            Head::Frame(len) => self.found(len),
            Head::Empty => self.nothing(),
            Head::Next => self.poll_next_lap(),
            Head::Bad => Poll::Corrupt,
        }
    }

    #[inline]
    fn nothing(&self) -> Poll {
        self.streams.set(false);
        Poll::Empty
    }

    #[inline]
    fn found(&self, len: usize) -> Poll {
        Poll::Frame { offset: DATA_AT + self.stream.offset(self.at.get()) + WORD, len }
    }

    #[cold]
    fn poll_next_lap(&self) -> Poll {
        self.at.set(self.stream.lap_behind(self.at.get()));
        match self.stream.head(self.at.get()) {
            Head::Frame(len) => self.found(len),
            Head::Empty => self.nothing(),
            // A lap begins with a message.
            Head::Next | Head::Bad => Poll::Corrupt,
        }
    }

    /// Whether something is there: a message, the end of a lap, or damage.
    pub fn is_ready(&self) -> bool {
        self.stream.head(self.at.get()) != Head::Empty
    }

    /// Whether what is due is a word that no sender writes.
    pub fn is_damaged(&self) -> bool {
        self.poll() == Poll::Corrupt
    }

    /// Takes the message of `len` bytes that `poll` found.
    #[inline]
    pub fn take(&self, len: usize) {
        let at = self.at.get();
        // While single messages come the writer is just working in these lines.
        if self.streams.replace(true) {
            // Relaxed: what is there already. A line that was only read is shared by two caches, and the writer has to
            // wait for each of them when it comes round; one that was written belongs to one cache and comes ahead of
            // time.
            self.stream.word(at).store(layout::frame(len, at), Relaxed);
            if len >= LINE_BYTES {
                self.own(at, len);
            }
        }
        self.at.set(at + layout::frame_bytes(len) as u64);
    }

    /// The same for the lines behind the first one.
    fn own(&self, at: u64, len: usize) {
        for line in (LINE_BYTES..=len.min(OWN_BYTES_MAX)).step_by(LINE_BYTES) {
            let word = self.stream.word(at + line as u64);
            // Relaxed: nobody else touches it before it is given back, and its value stays.
            word.store(word.load(Relaxed), Relaxed);
        }
    }

    /// Whether everything that was taken is settled.
    #[inline]
    pub fn is_settled(&self) -> bool {
        self.at.get() == self.read
    }

    /// Gives what was taken back to the writer: nobody reads it any more.
    #[inline]
    pub fn settle(&mut self) {
        step!("stream.read");
        // READ: pairs with the load in `Writer::look_closer`.
        self.stream.region.word(READ_AT).store(self.at.get(), Release);
        self.read = self.at.get();
        // An eighth is as much as a writer at full speed fills in some microseconds.
        if self.read - self.room >= self.stream.capacity as u64 / 8 {
            self.settle_room();
        }
    }

    /// Says how much room there is, if that was not said yet. Costs a waiting writer's line.
    #[inline]
    pub fn settle_room(&mut self) {
        if self.room != self.read {
            self.room = self.read;
            self.tell_room();
        }
    }

    fn tell_room(&self) {
        step!("stream.room");
        // ROOM: pairs with the load in `Writer::look`.
        self.stream.region.word(ROOM_AT).store(self.room, Release);
    }
}

#[cfg(not(windlass_loom))]
impl Reader {
    /// The payload of a message that `poll` found. `settle` takes the reader by `&mut`, so it is not given back
    /// meanwhile.
    #[inline]
    pub fn payload(&self, offset: usize, len: usize) -> &[u8] {
        self.stream.payload(offset, len)
    }
}

#[cfg(windlass_loom)]
impl Reader {
    /// The payload word at byte `at` of the region.
    pub fn payload_word(&self, at: usize) -> u64 {
        self.stream.region.payload(at)
    }
}
