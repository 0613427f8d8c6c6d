//! A framed Cap'n Proto message as it lies in a frame, ready to be read in place.
//!
//! ```text
//!   u32 segments - 1 │ u32 words of segment 0 │ … │ padding to 8 │ segment 0 │ segment 1 │ …
//! ```
//!
//! This is the standard stream framing: `capnp decode` reads the payload as it lies. Everything is
//! checked before it is used; nothing is allocated.

use capnp::message::ReaderSegments;

/// Most segments of a message. Builders of this crate make one; others rarely make ten.
const SEGMENTS_MAX: usize = 512;

/// Why a payload is not a framed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// Its address is not a multiple of eight.
    Unaligned,
    /// It ends inside its table or a segment.
    Truncated,
    /// It claims more segments than any message has.
    Segments,
}

/// The segments of one message.
///
/// Two words, so that it travels in registers: a larger one is copied a few times between receiving a
/// message and reading it, in pieces of other sizes than it was stored in, and each copy waits for
/// the stores. That was a tenth of what a typed message costs.
#[derive(Clone, Copy, Debug)]
pub struct FrameSegments<'a> {
    /// From the table to the end of the last segment.
    framed: &'a [u8],
}

/// The little-endian number at byte `at`, which must be there.
fn number(payload: &[u8], at: usize) -> usize {
    let bytes = payload[at..at + 4].try_into().expect("four bytes");
    u32::from_le_bytes(bytes) as usize
}

/// Bytes of the table of a message of `count` segments.
pub fn table_bytes(count: usize) -> usize {
    (4 + 4 * count).next_multiple_of(8)
}

impl<'a> FrameSegments<'a> {
    /// Checks the table of a message that the `capnp` crate will read, which reads words.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, Malformed> {
        if !payload.as_ptr().cast::<u64>().is_aligned() {
            return Err(Malformed::Unaligned);
        }
        Self::parse_anywhere(payload)
    }

    /// Checks the table of a message at any address, for those who read bytes.
    #[inline]
    pub fn parse_anywhere(payload: &'a [u8]) -> Result<Self, Malformed> {
        let Some(head) = payload.first_chunk::<8>() else { return Err(Malformed::Truncated) };
        let head = u64::from_le_bytes(*head);
        if head as u32 == 0 {
            // The one case that builders of this crate make.
            let bytes = (head >> 32) as usize * 8;
            let framed = payload.get(..8 + bytes).ok_or(Malformed::Truncated)?;
            return Ok(Self { framed });
        }
        Self::parse_several(payload, head as u32)
    }

    /// All of it, with the table.
    pub fn framed(&self) -> &'a [u8] {
        self.framed
    }

    #[cold]
    fn parse_several(payload: &'a [u8], last: u32) -> Result<Self, Malformed> {
        let count = last as usize + 1;
        if count > SEGMENTS_MAX {
            return Err(Malformed::Segments);
        }
        let table = table_bytes(count);
        if payload.len() < table {
            return Err(Malformed::Truncated);
        }
        let end = (0..count).fold(table, |end, index| end + number(payload, 4 + 4 * index) * 8);
        let framed = payload.get(..end).ok_or(Malformed::Truncated)?;
        Ok(Self { framed })
    }

    /// Whether there is only one segment, behind a table of one word.
    #[inline]
    fn is_single(&self) -> bool {
        self.framed.first_chunk::<4>() == Some(&[0; 4])
    }

    /// The number of segments, at least one.
    pub fn count(&self) -> usize {
        number(self.framed, 0) + 1
    }

    /// Segment `index`.
    #[inline]
    pub fn segment(&self, index: u32) -> Option<&'a [u8]> {
        if index == 0 && self.is_single() {
            return self.framed.get(8..);
        }
        self.segment_of_several(index)
    }

    // Apart, so that the one case that matters is a handful of instructions. The table is read again here: a hostile
    // writer may have changed it since it was added up, hence every step is checked.
    #[cold]
    #[inline(never)]
    fn segment_of_several(&self, index: u32) -> Option<&'a [u8]> {
        let count = self.count();
        let table = table_bytes(count);
        if index as usize >= count || count > SEGMENTS_MAX || self.framed.len() < table {
            return None;
        }
        let mut at = table;
        for before in 0..index as usize {
            at += number(self.framed, 4 + 4 * before) * 8;
        }
        self.framed.get(at..at + number(self.framed, 4 + 4 * index as usize) * 8)
    }
}

impl ReaderSegments for FrameSegments<'_> {
    #[inline]
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        self.segment(index)
    }

    #[inline]
    fn len(&self) -> usize {
        self.count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schemas::tick_capnp::tick;
    use capnp::message::{Builder, HeapAllocator, Reader};

    /// An aligned copy of a framed message whose segments begin with `first_words` words.
    fn framed(first_words: u32) -> Vec<capnp::Word> {
        let mut builder = Builder::new(HeapAllocator::new().first_segment_words(first_words));
        let mut tick = builder.init_root::<tick::Builder<'_>>();
        tick.set_symbol("a symbol that is long enough to need a segment of its own");
        tick.set_price(3.5);
        let bytes = capnp::serialize::write_message_to_words(&builder);
        let mut words = capnp::Word::allocate_zeroed_vec(bytes.len() / 8);
        capnp::Word::words_to_bytes_mut(&mut words).copy_from_slice(&bytes);
        words
    }

    #[test]
    fn one_segment_and_several_read_the_same() {
        for first_words in [1024, 1] {
            let words = framed(first_words);
            let segments =
                FrameSegments::parse(capnp::Word::words_to_bytes(&words)).expect("sound");
            assert_eq!(segments.count() > 1, first_words == 1);
            let reader = Reader::new(segments, crate::message::reader_options());
            let tick = reader.get_root::<tick::Reader<'_>>().expect("a tick");
            assert_eq!(tick.get_price(), 3.5);
            assert!(tick.get_symbol().is_ok_and(|symbol| symbol.len() > 40));
        }
    }

    #[test]
    fn a_message_cut_anywhere_is_malformed() {
        for first_words in [1024, 1] {
            let words = framed(first_words);
            let bytes = capnp::Word::words_to_bytes(&words);
            for len in 0..bytes.len() {
                assert_eq!(FrameSegments::parse(&bytes[..len]).err(), Some(Malformed::Truncated));
            }
        }
    }

    #[test]
    fn any_byte_changed_is_an_error_or_other_values_and_never_a_panic() {
        for first_words in [1024, 1] {
            let mut words = framed(first_words);
            let len = words.len() * 8;
            for at in 0..len {
                for flip in [1, 0x80, 0xff] {
                    capnp::Word::words_to_bytes_mut(&mut words)[at] ^= flip;
                    let bytes = capnp::Word::words_to_bytes(&words);
                    if let Ok(segments) = FrameSegments::parse(bytes) {
                        let reader = crate::message::reader(segments);
                        if let Ok(tick) = reader.get_root::<tick::Reader<'_>>() {
                            let _ = tick.get_symbol().map(|symbol| symbol.to_str().is_ok());
                        }
                    }
                    capnp::Word::words_to_bytes_mut(&mut words)[at] ^= flip;
                }
            }
        }
    }

    #[test]
    fn a_message_of_too_many_segments_is_refused_and_the_last_one_allowed_is_found() {
        for (last, allowed) in [(511u32, true), (512, false), (u32::MAX, false)] {
            let mut words = capnp::Word::allocate_zeroed_vec(260);
            let bytes = capnp::Word::words_to_bytes_mut(&mut words);
            bytes[..4].copy_from_slice(&last.to_le_bytes());
            // Segment 511 has one word; all others are empty.
            bytes[4 + 4 * 511] = 1;
            bytes[table_bytes(512)] = 7;
            match FrameSegments::parse(bytes) {
                Ok(segments) => {
                    assert!(allowed && segments.count() == 512);
                    assert_eq!(segments.segment(510), Some(&[][..]));
                    assert_eq!(segments.segment(511), Some(&[7, 0, 0, 0, 0, 0, 0, 0][..]));
                    assert_eq!(segments.segment(512), None);
                }
                Err(why) => assert!(!allowed && why == Malformed::Segments),
            }
        }
    }

    #[test]
    fn a_payload_at_an_odd_address_is_refused() {
        let words = framed(1024);
        let bytes = capnp::Word::words_to_bytes(&words);
        assert_eq!(FrameSegments::parse(&bytes[4..]).err(), Some(Malformed::Unaligned));
    }
}
