//! Messages as they are received: borrowed, in place.

use crate::message::FrameSegments;
use crate::ring::record::Record;
use crate::topic::payload::Payload;
use crate::topic::subscriber::{Cursor, Found, Subscriber};
use crate::topic::view::{Pinned, Spot, View};
use std::cell::OnceCell;
use std::fmt;

/// A received message, read where the publisher wrote it. Valid until the subscriber is used again.
///
/// Nothing was copied, and no other process may change the bytes: the segment is pinned and, in this process, mapped
/// read-only.
///
/// ```compile_fail
/// fn change(message: windlass::Message<'_, windlass::Raw>) {
///     message.bytes()[0] = 1;
/// }
/// ```
pub struct Message<'a, T: Payload> {
    payload: &'a [u8],
    cursor: &'a Cursor,
    found: Found,
    opened: T::Opened<'a>,
}

impl<'a, T: Payload> Message<'a, T> {
    #[inline]
    pub(super) fn new(cursor: &'a Cursor, found: Found) -> Self {
        let payload = cursor.reader.lane().payload(found.offset, found.len);
        Self { payload, cursor, found, opened: T::Opened::default() }
    }

    /// The payload.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        self.payload
    }

    /// The number of the message: dense in its lane, and on an ordered topic dense in the topic.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.found.sequence
    }

    /// Whether the files of the topic are still whole; see [`View::is_intact`].
    pub fn is_intact(&self) -> bool {
        self.cursor.hold.is_intact()
    }

    /// The lane that holds it: its publisher.
    #[inline]
    pub fn lane(&self) -> u32 {
        self.cursor.reader.lane().index() as u32
    }

    /// Byte offset of its frame in the lane since the lane's birth.
    #[inline]
    pub fn position(&self) -> u64 {
        // The payload lies behind its header, which lies in the segment that the reader stands in.
        self.cursor.reader.position_of(self.found.offset)
    }

    /// When it was published, in nanoseconds since 1970 by the clock of the machine; `None` unless the topic is
    /// durable.
    pub fn time_ns(&self) -> Option<u64> {
        self.record().map(|record| self.cursor.reader.lane().record_time(record.at))
    }

    /// The key that it was published with; empty if there is none.
    pub fn key(&self) -> &'a [u8] {
        self.record().map_or(&[], |record| self.cursor.reader.lane().key(&record))
    }

    fn record(&self) -> Option<Record> {
        let lane = self.cursor.reader.lane();
        let at = || lane.offset_of(self.position());
        self.cursor.hold.is_in_log().then(|| lane.record(at())).flatten()
    }

    /// Keeps the message: an owned view that pins its segment. Nothing is copied or allocated.
    pub fn pin(&self) -> View<T> {
        let Found { offset, len, sequence, lane_sequence, .. } = self.found;
        let position = self.position();
        let physical = match self.cursor.hold.is_in_log() {
            true => 0,
            false => self.cursor.reader.pinned().expect("a message was found in a pinned segment"),
        };
        let pinned = Pinned::again(&self.cursor.hold, physical);
        View::new(pinned, Spot { offset, len, sequence, lane_sequence, position })
    }
}

impl<'a, T: capnp::traits::Owned> Message<'a, T>
where
    T: Payload<Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>>,
{
    /// The message, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    #[inline]
    pub fn get(&self) -> capnp::Result<T::Reader<'_>> {
        let segments = FrameSegments::parse(self.payload).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }

    /// A validated copy on the heap: for those who do not trust the publishers of the topic.
    ///
    /// # Errors
    ///
    /// If the payload is not a well-formed Cap'n Proto message, or not [whole](Self::is_intact).
    pub fn to_owned_message(&self) -> capnp::Result<capnp::message::TypedBuilder<T>> {
        let copy = crate::message::to_owned_message(self.payload);
        if self.is_intact() {
            copy
        } else {
            Err(crate::message::shortened())
        }
    }
}

impl<T: Payload> fmt::Debug for Message<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("lane", &self.lane())
            .field("sequence", &self.sequence())
            .field("bytes", &self.payload.len())
            .finish()
    }
}

/// Several messages that are there now; see [`Subscriber::batch`].
pub struct Batch<'a, T: Payload> {
    subscriber: &'a Subscriber<T>,
    first: Option<Found>,
    left: usize,
}

impl<'a, T: Payload> Batch<'a, T> {
    pub(super) fn new(subscriber: &'a Subscriber<T>, first: Option<Found>, left: usize) -> Self {
        Self { subscriber, first, left }
    }
}

impl<'a, T: Payload> Iterator for Batch<'a, T> {
    type Item = Message<'a, T>;

    #[inline]
    fn next(&mut self) -> Option<Message<'a, T>> {
        let found = match self.first.take() {
            Some(found) => found,
            None if self.left > 0 => {
                self.left -= 1;
                self.subscriber.next_within()?
            }
            None => return None,
        };
        Some(self.subscriber.message(found))
    }
}
