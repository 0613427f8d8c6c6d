//! A ring without any safety: what the machine gives when nothing is asked of the ring but speed.
//!
//! One producer, one consumer, one lap of `CAPACITY` bytes. A frame is a length word and its
//! payload, 8-byte aligned where throughput is measured, aligned to cache lines where latency is:
//! the better for each. No recovery, no second reader, no history, no check of what is read: the
//! denominator of every ratio, never a design to use.
//!
//! ```text
//!   | length | payload … | length | payload … | 0 |    0: nothing yet, SKIP: go on at the start
//! ```
//!
//! # Orderings
//!
//! | edge        | `Release` store          | `Acquire` load        | hands over             |
//! |-------------|--------------------------|-----------------------|------------------------|
//! | `BARE_SEND` | length word, in `commit` | length word, in `poll`| the frame              |
//! | `BARE_FREE` | consumed, in `release`   | in `wait_for`         | the bytes, for reuse   |

#![allow(unsafe_code)]

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::failure::Result;
use super::payload::{Check, Fill};
use super::transport::{Context, Receiver, Sender, Spec, Way};
use crate::memory::Memory;

/// Bytes of one lap: larger than a second-level cache, a fraction of a third-level one.
pub const CAPACITY: usize = 4 << 20;

/// Bytes of one ring in the shared memory: a page for the consumed position, then the lap.
pub const RING_BYTES: usize = 4096 + CAPACITY;

/// The consumer says how far it is after this many bytes, or when it runs dry.
const RELEASE_BYTES: u64 = LAP / 8;

const LAP: u64 = CAPACITY as u64;

/// What is zeroed at a time ahead of small frames where latency is measured: their lines are then
/// owned when they are written, and a block this small is not felt by the message that has to zero
/// it. Elsewhere only the next length word is zeroed.
const CLEAN_BYTES: u64 = 1 << 10;

/// Frames up to this are small.
const CLEAN_STRIDE_MAX: u64 = 256;

const SKIP: u64 = u64::MAX;

/// The bytes from one frame to the next.
fn stride(spec: &Spec) -> u64 {
    let alignment = if spec.both_ways { 64 } else { 8 };
    (8 + spec.bytes as u64).next_multiple_of(alignment)
}

struct Ring {
    base: *mut u8,
    _memory: Memory,
}

impl Ring {
    fn open(memory: &Memory, spec: &Spec, way: Way) -> Result<Self> {
        let offset = spec.area + if way == Way::There { 0 } else { RING_BYTES };
        Ok(Self { base: memory.span(offset, RING_BYTES)?, _memory: memory.clone() })
    }

    fn consumed(&self) -> &AtomicU64 {
        // SAFETY: the first word of the ring's span, aligned to a page and mapped while `_memory`
        // lives.
        unsafe { AtomicU64::from_ptr(self.base.cast()) }
    }

    #[inline]
    fn at(&self, position: u64) -> *mut u8 {
        let offset = 4096 + (position as usize & (CAPACITY - 1));
        // SAFETY: the masked position is less than `CAPACITY`, so it lies in the span of
        // `RING_BYTES`.
        unsafe { self.base.add(offset) }
    }

    #[inline]
    fn word(&self, position: u64) -> &AtomicU64 {
        // SAFETY: positions are multiples of 8 and below the capacity, which is a multiple of 8.
        unsafe { AtomicU64::from_ptr(self.at(position).cast()) }
    }
}

/// The producer.
pub struct BareSender<F> {
    ring: Ring,
    fill: F,
    bytes: usize,
    stride: u64,
    cleans: bool,
    position: u64,
    /// Frames and the word behind them may reach up to here: the end of the lap, or what the
    /// consumer has left free.
    limit: u64,
    overwrites: bool,
}

impl<F: Fill> BareSender<F> {
    /// A producer that overwrites: nobody reads, so nothing is ever full.
    pub fn unread(memory: &Memory, spec: &Spec) -> Result<Self> {
        Ok(Self { overwrites: true, ..Self::new(Ring::open(memory, spec, Way::There)?, spec) })
    }

    fn new(ring: Ring, spec: &Spec) -> Self {
        let (fill, bytes, stride) = (F::new(spec.bytes), spec.bytes, stride(spec));
        let cleans = spec.both_ways && stride <= CLEAN_STRIDE_MAX;
        Self { ring, fill, bytes, stride, cleans, position: 0, limit: 0, overwrites: false }
    }

    /// Makes room for a frame and the word behind it: goes to the next lap if this one ends before,
    /// and waits for the consumer.
    #[cold]
    fn make_room(&mut self) {
        let lap_end = (self.position | (LAP - 1)) + 1;
        if self.position + self.stride + 8 > lap_end {
            self.wait_for(lap_end + 8);
            self.commit(SKIP, lap_end);
        }
        let free_end = self.wait_for(self.position + self.stride + 8);
        let end = free_end.min((self.position | (LAP - 1)) + 1);
        if self.cleans {
            let begin = self.limit.max(self.position + 8);
            self.limit = end.min(self.position + self.stride + CLEAN_BYTES);
            self.clean(begin, self.limit);
        } else {
            self.limit = end;
        }
    }

    /// Zeroes the bytes from one position to another, which are free and in one lap.
    fn clean(&self, begin: u64, end: u64) {
        let bytes = usize::try_from(end - begin).unwrap_or(0);
        // SAFETY: the span is free and before the end of the lap: `make_room` asks for no other.
        unsafe { self.ring.at(begin).write_bytes(0, bytes) };
    }

    /// Waits until everything before `end` is free, and returns up to where it is.
    fn wait_for(&self, end: u64) -> u64 {
        loop {
            if self.overwrites {
                return u64::MAX;
            }
            // BARE_FREE: pairs with the store in `release`.
            let free_end = self.ring.consumed().load(Acquire) + LAP;
            if free_end >= end {
                return free_end;
            }
            std::hint::spin_loop();
        }
    }

    /// Makes the frame at the position visible, behind a zero where the next one will be.
    #[inline]
    fn commit(&mut self, length: u64, next: u64) {
        if !self.cleans || length == SKIP {
            // Relaxed: ordered by BARE_SEND below.
            self.ring.word(next).store(0, Relaxed);
        }
        // BARE_SEND: pairs with the load in `poll`.
        self.ring.word(self.position).store(length, Release);
        self.position = next;
    }
}

impl<F: Fill> Sender for BareSender<F> {
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self> {
        Ok(Self::new(Ring::open(context.memory, spec, way)?, spec))
    }

    #[inline]
    fn send(&mut self, sequence: u64) -> Result<()> {
        if self.position + self.stride + 8 > self.limit {
            self.make_room();
        }
        let start = self.ring.at(self.position + 8);
        // SAFETY: the frame and the word behind it lie before `limit`: before the end of the lap,
        // and free; they belong to the producer until `commit`.
        let slot = unsafe { std::slice::from_raw_parts_mut(start, self.bytes) };
        self.fill.fill(sequence, slot);
        self.commit(self.bytes as u64, self.position + self.stride);
        Ok(())
    }
}

/// The consumer.
pub struct BareReceiver {
    ring: Ring,
    pauses: u32,
    stride: u64,
    position: u64,
    released: u64,
}

impl BareReceiver {
    fn new(ring: Ring, spec: &Spec) -> Self {
        let (pauses, stride) = (spec.waiting.pauses(), stride(spec));
        Self { ring, pauses, stride, position: 0, released: 0 }
    }

    #[inline]
    fn poll(&mut self, check: &mut Check) -> bool {
        // BARE_SEND: pairs with the store in `commit`.
        let mut length = self.ring.word(self.position).load(Acquire);
        if length == SKIP {
            self.position = (self.position | (LAP - 1)) + 1;
            // BARE_SEND: as above.
            length = self.ring.word(self.position).load(Acquire);
        }
        if length == 0 {
            return false;
        }
        // Relaxed: ordered by BARE_SEND.
        let first = self.ring.word(self.position + 8).load(Relaxed);
        let last = self.ring.word(self.position + length).load(Relaxed);
        check.words(u64::from_le(first), u64::from_le(last));
        self.position += self.stride;
        if self.position - self.released >= RELEASE_BYTES {
            self.release();
        }
        true
    }

    fn release(&mut self) {
        if self.released != self.position {
            // BARE_FREE: pairs with the load in `wait_for`.
            self.ring.consumed().store(self.position, Release);
            self.released = self.position;
        }
    }
}

impl Receiver for BareReceiver {
    fn open(context: &Context<'_>, spec: &Spec, way: Way) -> Result<Self> {
        Ok(Self::new(Ring::open(context.memory, spec, way)?, spec))
    }

    #[inline]
    fn take(&mut self, check: &mut Check) -> Result<()> {
        while !self.poll(check) {}
        Ok(())
    }

    fn sink(&mut self, count: u64, check: &mut Check) -> Result<()> {
        for _ in 0..count {
            while !self.poll(check) {
                self.release();
                (0..self.pauses).for_each(|_| std::hint::spin_loop());
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::{Copied, Stamped, Words};
    use super::super::transport::{Carrier, Filling, Waiting};
    use super::*;

    /// Sends `laps` laps of messages of `bytes` bytes from one thread to another, and returns how
    /// many did not arrive as they were sent.
    fn mismatches<F: Fill>(bytes: usize, both_ways: bool, laps: usize) -> u64 {
        let spec = Spec {
            carrier: Carrier::BareRing,
            filling: Filling::Copied,
            waiting: Waiting::Impatient,
            bytes,
            both_ways,
            area: 0,
            name: String::new(),
        };
        let count = (laps * CAPACITY / bytes) as u64;
        let memory = Memory::create(RING_BYTES).expect("the memory can be had");
        let receiving = {
            let (memory, spec) = (memory.clone(), spec.clone());
            std::thread::spawn(move || {
                let ring = Ring::open(&memory, &spec, Way::There).expect("the ring fits");
                let mut check = Check::default();
                BareReceiver::new(ring, &spec).sink(count, &mut check).expect("a ring cannot fail");
                check.mismatches()
            })
        };
        let ring = Ring::open(&memory, &spec, Way::There).expect("the ring fits");
        let mut sender = BareSender::<F>::new(ring, &spec);
        for sequence in 0..count {
            sender.send(sequence).expect("a ring cannot fail");
        }
        receiving.join().expect("the receiver ended")
    }

    #[test]
    fn messages_arrive_as_they_were_sent_over_several_laps() {
        for both_ways in [false, true] {
            assert_eq!(mismatches::<Copied>(64, both_ways, 3), 0);
            assert_eq!(mismatches::<Words>(1000, both_ways, 3), 0);
            assert_eq!(mismatches::<Stamped>(1 << 20, both_ways, 20), 0);
        }
    }
}
