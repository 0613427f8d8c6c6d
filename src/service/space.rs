//! The bytes of requests and responses.
//!
//! Who may touch which is what `ring::calls` says (I2, I3): the caller its request while the call is free, the server
//! that has the call its parts until it has committed the last one, and everybody what the other side has committed.

#![allow(unsafe_code)]

use crate::layout::call::{self, INLINE_AT, INLINE_BYTES_MAX, PAYLOAD_AT};
use crate::message::arena::{Finished, LoanArena};
use crate::ring::calls::{Asked, Calls, Held};
use crate::shm::place::Region;
use capnp::message::Builder;

/// Smallest space in which a Cap'n Proto message is begun, unless there is less.
const BUILD_BYTES_MIN: usize = 256;

/// A free call that its owner has set aside, to build a request in.
#[derive(Debug, PartialEq, Eq)]
pub struct Reserved {
    /// Which one.
    pub call: usize,
}

/// Bytes that this process alone may write: a request or a response under construction.
pub struct Draft<'a> {
    region: &'a Region,
    at: usize,
    capacity: usize,
}

/// A message that has no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgrown {
    /// Bytes that it needs.
    pub need: usize,
}

impl<'a> Draft<'a> {
    /// The request of a call that was set aside.
    pub fn of_request(calls: &'a Calls, reserved: &'a mut Reserved) -> Self {
        let parts = calls.parts();
        let (at, capacity) = (parts.request_at(reserved.call), parts.request_bytes);
        Self { region: &parts.region, at, capacity }
    }

    /// Response `index` of a call that this server has, for which there is room.
    pub fn of_response(calls: &'a Calls, held: &'a mut Held, index: u64) -> Self {
        let parts = calls.parts();
        let at = parts.part_at(held.call(), index) + PAYLOAD_AT;
        Self { region: &parts.region, at, capacity: parts.part_bytes - PAYLOAD_AT }
    }

    /// Bytes that there are.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The first `len` bytes.
    #[inline]
    pub fn bytes(&mut self, len: usize) -> &mut [u8] {
        assert!(len <= self.capacity, "a length that was not checked");
        // SAFETY: contract 4: by I2 or I3 of `ring::calls` nobody else touches them; whoever made the draft borrows
        // what says so mutably, and `&mut self` makes this the only slice of it. Members map them writable.
        unsafe { self.region.bytes_mut(self.at, len) }
    }

    /// Writes a copy of `bytes`.
    #[inline]
    pub fn copy(&mut self, bytes: &[u8]) -> Result<usize, Outgrown> {
        if bytes.len() > self.capacity {
            return Err(Outgrown { need: bytes.len() });
        }
        self.bytes(bytes.len()).copy_from_slice(bytes);
        Ok(bytes.len())
    }

    /// Builds a message of about `bytes` bytes in place; its length and what `build` returned.
    ///
    /// One that outgrows that is put together when it is complete, at the price of one copy.
    pub fn build<T: capnp::traits::Owned, R>(
        &mut self,
        bytes: usize,
        build: impl FnOnce(T::Builder<'_>) -> R,
    ) -> Result<(usize, R), Outgrown> {
        // The capacity of both kinds is a multiple of eight.
        let len = bytes.next_multiple_of(8).max(BUILD_BYTES_MIN).min(self.capacity);
        let space = self.bytes(len);
        space.fill(0);
        // SAFETY: contract 4: the bytes are the caller's alone for as long as the draft is, and the builder is dropped
        // before that; just zeroed; aligned, because requests and responses begin at multiples of 64.
        let arena = unsafe { LoanArena::new(space) };
        let mut builder = Builder::new(arena);
        let result = build(builder.init_root());
        match LoanArena::finish(&builder, self.bytes(8)) {
            Finished::InPlace { payload_bytes } => Ok((payload_bytes, result)),
            Finished::Outgrown { payload_bytes } if payload_bytes <= self.capacity => {
                LoanArena::assemble(&builder, self.bytes(payload_bytes));
                Ok((payload_bytes, result))
            }
            Finished::Outgrown { payload_bytes } => Err(Outgrown { need: payload_bytes }),
        }
    }
}

/// The first `len` bytes of the request of a call that this server has.
#[inline]
pub fn request<'a>(calls: &'a Calls, held: &Held, len: usize) -> &'a [u8] {
    let parts = calls.parts();
    assert!(len <= parts.request_bytes, "a length that was not checked");
    // SAFETY: contract 4: the caller wrote them before CALL, and by I2 of `ring::calls` nobody writes them until the
    // call is free again, which this server brings about only after it has let go of them.
    unsafe { parts.region.bytes(parts.request_at(held.call()), len) }
}

/// Puts response `index` of `len` bytes, which is written and not yet committed, where one of that length belongs.
#[inline]
pub fn settle(calls: &Calls, held: &mut Held, index: u64, len: usize) {
    if len > INLINE_BYTES_MAX {
        return;
    }
    let (region, part) = (&calls.parts().region, calls.parts().part_at(held.call(), index));
    // SAFETY: contract 4: by I3 of `ring::calls` this server alone writes the part, and nobody reads it yet.
    let from = unsafe { region.bytes(part + PAYLOAD_AT, len) };
    // SAFETY: as above; it ends where the other one begins, because `len` is at most what lies between.
    let to = unsafe { region.bytes_mut(part + INLINE_AT, len) };
    to.copy_from_slice(from);
}

/// The first `len` bytes of response `index`, which was committed.
#[inline]
pub fn response<'a>(calls: &'a Calls, asked: &Asked, index: u64, len: usize) -> &'a [u8] {
    let parts = calls.parts();
    assert!(len <= parts.part_bytes - PAYLOAD_AT, "a length that was not checked");
    // SAFETY: contract 4: the server wrote them before ANSWER, and by I3 of `ring::calls` it writes them again only
    // once the caller has said that it read them, and nobody else does before the call is free.
    unsafe { parts.region.bytes(parts.part_at(asked.call(), index) + call::payload_at(len), len) }
}
