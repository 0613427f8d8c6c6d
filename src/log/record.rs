//! A message that a scan of a log lends.

use crate::message::FrameSegments;
use crate::ring::record::Record as Found;
use crate::topic::payload::Payload;
use crate::topic::view::{Hold, View};
use std::cell::OnceCell;
use std::fmt;
use std::sync::Arc;

/// A message of a log, read where it lies, for as long as the [`Scan`](crate::Scan) that lends it stays there.
pub struct Record<'a, T: Payload> {
    hold: &'a Arc<Hold>,
    position: u64,
    found: Found,
    sequence: u64,
    opened: T::Opened<'a>,
}

impl<'a, T: Payload> Record<'a, T> {
    #[inline]
    pub(super) fn new(hold: &'a Arc<Hold>, position: u64, found: Found, sequence: u64) -> Self {
        Self { hold, position, found, sequence, opened: T::Opened::default() }
    }

    /// The payload.
    #[inline]
    pub fn bytes(&self) -> &'a [u8] {
        let lane = self.hold.lane();
        lane.payload(lane.payload_of(&self.found), self.found.len)
    }

    /// The number of the message in the log.
    #[inline]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// When it was published, in nanoseconds since 1970 by the clock of the machine.
    #[inline]
    pub fn time_ns(&self) -> u64 {
        self.hold.lane().record_time(self.found.at)
    }

    /// The key that it was published with; empty if there is none.
    #[inline]
    pub fn key(&self) -> &'a [u8] {
        self.hold.lane().key(&self.found)
    }

    /// The lane that holds it.
    pub fn lane(&self) -> u32 {
        self.hold.lane().index() as u32
    }

    /// Byte offset of the record in its lane since the lane's birth.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the files of the log are still whole; see [`View::is_intact`].
    pub fn is_intact(&self) -> bool {
        self.hold.is_intact()
    }

    /// Keeps the message: an owned view. Nothing is copied or allocated.
    pub fn pin(&self) -> View<T> {
        View::of_record(self.hold, &self.found, self.sequence, self.position)
    }
}

impl<'a, T: capnp::traits::Owned> Record<'a, T>
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
        let segments = FrameSegments::parse(self.bytes()).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }
}

impl<T: Payload> fmt::Debug for Record<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("sequence", &self.sequence)
            .field("lane", &self.lane())
            .field("bytes", &self.found.len)
            .finish()
    }
}
