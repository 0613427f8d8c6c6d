//! Views: messages that outlive the call that received them, without a copy.
//!
//! A view is a position and a pin. Its segment is not written again before the last view of it is dropped, whatever the
//! subscriber does meanwhile. A pinned segment costs its size, never a wrong byte.

use crate::message::FrameSegments;
use crate::ring::lane::Lane;
use crate::ring::reader::{Entered, Poll, Reader};
use crate::ring::record::Record;
use crate::ring::slots::Claimed;
use crate::shm::loss::Loss;
use crate::shm::sys;
use crate::topic::core::Core;
use crate::topic::payload::{Payload, Raw};
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::ops::{Bound, RangeBounds};
use std::sync::{Arc, Weak};

/// A subscriber slot, for as long as its subscriber or any view of it lives.
pub struct SlotLease {
    core: Arc<Core>,
    pub claimed: Claimed,
    fork_epoch: u32,
}

impl SlotLease {
    pub fn new(core: Arc<Core>, claimed: Claimed) -> Arc<Self> {
        Arc::new(Self { core, claimed, fork_epoch: sys::fork_epoch() })
    }
}

impl Drop for SlotLease {
    fn drop(&mut self) {
        if self.fork_epoch == sys::fork_epoch() {
            self.core.slots.release(self.claimed.slot, self.claimed.owner);
        }
    }
}

/// What the views of one subscriber into one lane share.
///
/// A segment of a log needs no pin, and no slot: it is not used again, and its mapping, which `lane` keeps, outlives
/// its file.
pub struct Hold {
    lane: Lane,
    slot: Option<Arc<SlotLease>>,
    loss: Loss,
}

impl Hold {
    pub fn new(lane: Lane, slot: Arc<SlotLease>) -> Arc<Self> {
        let loss = slot.core.loss.clone();
        Arc::new(Self { lane, slot: Some(slot), loss })
    }

    /// For views of one segment of a log.
    pub fn in_log(segment: Lane, loss: Loss) -> Arc<Self> {
        Arc::new(Self { lane: segment, slot: None, loss })
    }

    /// Whether no file of the topic lost pages while this process had it mapped.
    pub fn is_intact(&self) -> bool {
        !self.loss.happened()
    }

    /// The slot whose pins count, unless none do: a child that inherited a view counts nothing, as it drops nothing.
    /// The pins are its parent's.
    fn counts(&self) -> Option<usize> {
        let slot = self.slot.as_ref()?;
        (slot.fork_epoch == sys::fork_epoch()).then_some(slot.claimed.slot)
    }

    /// The lane, or the segment of a log.
    #[inline]
    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Whether this is one of a log.
    pub fn is_in_log(&self) -> bool {
        self.slot.is_none()
    }
}

/// A pin on one segment.
pub struct Pinned {
    hold: Arc<Hold>,
    physical: usize,
}

impl Pinned {
    /// Counts one more holder of a segment that the caller has pinned.
    pub fn again(hold: &Arc<Hold>, physical: usize) -> Self {
        if let Some(slot) = hold.counts() {
            step!("view.pin");
            hold.lane.pins().pin(hold.lane.index(), physical, slot);
        }
        Self { hold: hold.clone(), physical }
    }
}

impl Clone for Pinned {
    fn clone(&self) -> Self {
        Self::again(&self.hold, self.physical)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        if let Some(slot) = self.hold.counts() {
            step!("view.unpin");
            let lane = &self.hold.lane;
            lane.pins().unpin(lane.index(), self.physical, slot);
        }
    }
}

/// Where a message lies, for a view of it.
#[derive(Clone, Copy)]
pub struct Spot {
    pub offset: usize,
    pub len: usize,
    pub sequence: u64,
    pub lane_sequence: u64,
    pub position: u64,
}

/// An owned, read-only message that was not copied and keeps its segment pinned.
///
/// `Send`, `Sync`, and cheap to clone. While any view into a segment lives, the publisher of the lane cannot take that
/// segment back: hold views for as long as needed and not longer, or copy.
///
/// # If a process dies
///
/// The pins of a killed process are dropped by the publisher that is hindered by them.
pub struct View<T: Payload> {
    pinned: Pinned,
    spot: Spot,
    held: T::Held,
}

impl<T: Payload> View<T> {
    pub(super) fn new(pinned: Pinned, spot: Spot) -> Self {
        Self { pinned, spot, held: T::Held::default() }
    }

    /// A view of a record in a segment of a log.
    #[inline]
    pub(crate) fn of_record(
        hold: &Arc<Hold>,
        record: &Record,
        sequence: u64,
        position: u64,
    ) -> Self {
        let offset = hold.lane.payload_of(record);
        let spot = Spot { offset, len: record.len, sequence, lane_sequence: 0, position };
        Self::new(Pinned { hold: hold.clone(), physical: 0 }, spot)
    }

    /// The payload.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.pinned.hold.lane.payload(self.spot.offset, self.spot.len)
    }

    /// Whether the files of the topic are still whole, so that what was read of the payload is what was published.
    ///
    /// No Windlass process ever shortens a file. If anybody else does, the pages that are gone read as zeroes, without
    /// a signal, and from the first access to one of them on this is false. Ask *after* reading where files may be in
    /// careless hands. (Within the page in which the file ends now, the kernel gives zeroes and nobody is told.)
    pub fn is_intact(&self) -> bool {
        self.pinned.hold.is_intact()
    }

    /// The number of the message: dense in its lane, and on an ordered topic dense in the topic.
    pub fn sequence(&self) -> u64 {
        self.spot.sequence
    }

    /// The lane that holds it.
    pub fn lane(&self) -> u32 {
        self.pinned.hold.lane.index() as u32
    }

    /// Byte offset of its frame in the lane since the lane's birth.
    pub fn position(&self) -> u64 {
        self.spot.position
    }

    /// When it was published, in nanoseconds since 1970 by the clock of the machine; `None` unless the topic is
    /// durable.
    pub fn time_ns(&self) -> Option<u64> {
        self.record().map(|record| self.pinned.hold.lane.record_time(record.at))
    }

    /// The key that it was published with; empty if there is none.
    pub fn key(&self) -> &[u8] {
        self.record().map_or(&[], |record| self.pinned.hold.lane.key(&record))
    }

    fn record(&self) -> Option<Record> {
        let lane = &self.pinned.hold.lane;
        let is_in_log = self.pinned.hold.is_in_log();
        is_in_log.then(|| lane.record(lane.offset_of(self.spot.position))).flatten()
    }

    /// A view of part of the payload, with a pin of its own.
    ///
    /// # Panics
    ///
    /// If the range is out of bounds, as for a slice.
    pub fn slice(&self, range: impl RangeBounds<usize>) -> View<Raw> {
        // An end of the range of numbers is out of bounds, and must not wrap to 0.
        let start = match range.start_bound() {
            Bound::Included(start) => *start,
            Bound::Excluded(start) => start.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(end) => end.checked_add(1).expect("a slice ends within its view"),
            Bound::Excluded(end) => *end,
            Bound::Unbounded => self.spot.len,
        };
        assert!(start <= end, "slice begins at {start} and ends at {end}");
        assert!(end <= self.spot.len, "slice ends at {end}, the view at {}", self.spot.len);
        let spot = Spot { offset: self.spot.offset + start, len: end - start, ..self.spot };
        View::new(self.pinned.clone(), spot)
    }

    /// The payload as text.
    ///
    /// # Errors
    ///
    /// If it is not UTF-8.
    pub fn as_str(&self) -> Result<&str, std::str::Utf8Error> {
        std::str::from_utf8(self.as_bytes())
    }

    /// The payload as text, borrowed if it is UTF-8, with replacement characters if not.
    pub fn as_str_lossy(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(self.as_bytes())
    }

    /// The payload as [`Bytes`], without a copy. The pin goes with the last slice of it.
    pub fn into_bytes(self) -> Bytes {
        Bytes::from_owner(View::<Raw>::new(self.pinned, self.spot))
    }

    /// The payload as [`Bytes`] with a pin of its own.
    pub fn to_bytes(&self) -> Bytes {
        self.slice(..).into_bytes()
    }

    /// A reference that does not keep the segment.
    pub fn downgrade(&self) -> WeakView<T> {
        WeakView {
            hold: Arc::downgrade(&self.pinned.hold),
            spot: self.spot,
            payload: std::marker::PhantomData,
        }
    }
}

impl<T: Payload> Clone for View<T> {
    fn clone(&self) -> Self {
        Self::new(self.pinned.clone(), self.spot)
    }
}

impl<T: Payload> AsRef<[u8]> for View<T> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<T: Payload> fmt::Debug for View<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("lane", &self.lane())
            .field("sequence", &self.sequence())
            .field("bytes", &self.spot.len)
            .finish()
    }
}

/// A position that may still hold its message: gives a [`View`] back as long as it does, and never other bytes.
///
/// It belongs to the subscriber that received the message: once that subscriber and all its views are gone, it gives
/// nothing back any more.
pub struct WeakView<T: Payload> {
    hold: Weak<Hold>,
    spot: Spot,
    payload: std::marker::PhantomData<fn() -> T>,
}

impl<T: Payload> WeakView<T> {
    /// The message, pinned again, unless its segment was taken back since.
    pub fn upgrade(&self) -> Option<View<T>> {
        let hold = self.hold.upgrade()?;
        if hold.is_in_log() {
            // The segment is mapped as long as the hold lives.
            return Some(View::new(Pinned { hold, physical: 0 }, self.spot));
        }
        let mut reader = Reader::new(hold.lane.clone(), hold.counts()?);
        let entered = reader.stand_at(self.spot.position, self.spot.lane_sequence);
        let here = entered == Ok(Entered::Inside)
            && matches!(reader.poll(), Poll::Frame { len, .. } if self.is_part_of(len));
        if !here {
            reader.leave();
            return None;
        }
        let physical = reader.into_pin()?;
        Some(View::new(Pinned { hold, physical }, self.spot))
    }

    /// A view of a slice has a weak reference too: its bytes must lie in the message.
    fn is_part_of(&self, len: usize) -> bool {
        self.spot.len <= len
    }
}

impl<T: Payload> Clone for WeakView<T> {
    fn clone(&self) -> Self {
        Self { hold: self.hold.clone(), spot: self.spot, payload: std::marker::PhantomData }
    }
}

/// The segments of a Cap'n Proto message in a view, for a reader that owns its pin.
pub struct HeldSegments {
    view: View<Raw>,
}

impl capnp::message::ReaderSegments for HeldSegments {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        FrameSegments::parse(self.view.as_bytes()).ok()?.segment(index)
    }

    fn len(&self) -> usize {
        FrameSegments::parse(self.view.as_bytes()).map_or(0, |segments| segments.count())
    }
}

impl<T: capnp::traits::Owned> View<T>
where
    T: Payload<Held = std::sync::OnceLock<capnp::message::Reader<HeldSegments>>>,
{
    /// The message, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    pub fn get(&self) -> capnp::Result<T::Reader<'_>> {
        if self.held.get().is_none() {
            FrameSegments::parse(self.as_bytes()).map_err(crate::message::malformed)?;
        }
        let open = || {
            let segments = HeldSegments { view: self.slice(..) };
            capnp::message::Reader::new(segments, crate::message::reader_options())
        };
        self.held.get_or_init(open).get_root()
    }

    /// A validated copy on the heap: for those who do not trust the publishers of the topic.
    ///
    /// # Errors
    ///
    /// If the payload is not a well-formed Cap'n Proto message, or not [whole](Self::is_intact).
    pub fn to_owned_message(&self) -> capnp::Result<capnp::message::TypedBuilder<T>> {
        let copy = crate::message::to_owned_message(self.as_bytes());
        if self.is_intact() {
            copy
        } else {
            Err(crate::message::shortened())
        }
    }
}

/// A piece of a numbered byte stream, cut out without a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamChunk {
    /// Which stream.
    pub stream_id: u64,
    /// The bytes. They keep the segment they lie in pinned.
    pub data: Bytes,
    /// Where in the stream they begin.
    pub offset: u64,
}

impl StreamChunk {
    /// The chunk that a view is, at `offset` of stream `stream_id`.
    pub fn new<T: Payload>(stream_id: u64, view: View<T>, offset: u64) -> Self {
        Self { stream_id, data: view.into_bytes(), offset }
    }

    /// Part of this chunk, without a copy. The offset moves with it.
    ///
    /// # Panics
    ///
    /// If the range is out of bounds, as for a slice.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        let offset = self.offset + range.start as u64;
        Self { stream_id: self.stream_id, data: self.data.slice(range), offset }
    }

    /// Where in the stream the chunk ends.
    pub fn end(&self) -> u64 {
        self.offset + self.data.len() as u64
    }
}
