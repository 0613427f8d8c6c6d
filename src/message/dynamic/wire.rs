//! The encoding of Cap'n Proto messages, read without generated code.
//!
//! The reader of the `capnp` crate is typed by generated code. Below that it has a layer that is hidden from its
//! documentation, promises nothing, and reads each pointer again after it was checked, which is sound only if nobody
//! writes. What is needed here is small: every pointer is loaded once, and everything that it says is checked before
//! it is used. So the bytes may be anything, and the worst that they do is to be [`Broken`].
//!
//! ```text
//!   struct   u2 = 0 │ i30 offset of the content │ u16 words of data │ u16 pointers
//!   list     u2 = 1 │ i30 offset of the content │ u3 size of an element │ u29 elements, or words if size is 7
//!   far      u2 = 2 │ u1 pad of two words │ u29 word of the pad in its segment │ u32 segment
//!   other    u2 = 3 │ u30 = 0 │ u32 index of a capability
//! ```
//!
//! A section that is shorter than its reader expects reads as zeroes behind its end: its writer knew fewer fields.

use crate::message::FrameSegments;
use std::fmt;

/// How many pointers deep a value may be, the root included.
const NESTING_MAX: u8 = 64;

/// A list whose elements take no room has at most this many for each word of its message, which otherwise could claim
/// half a billion of them in nothing.
const EMPTY_ELEMENTS_PER_WORD: usize = 8;

/// A message counts as this many words at least where a limit grows with it: a short one may say a lot by defaults.
pub const WORDS_MIN: usize = 64;

/// What is the matter with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// A pointer leads out of its segment, or into none.
    Bounds,
    /// A pointer leads deeper than [`NESTING_MAX`].
    Deep,
    /// It is not a pointer to a struct.
    NotStruct,
    /// It is not a pointer to a list.
    NotList,
    /// The elements of a list are not what its type says.
    Elements,
    /// A text that does not end with a zero byte.
    Text,
    /// Much more comes out of it than is in it.
    Amplified,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bounds => "its pointer leads out of the message",
            Self::Deep => "its pointer leads deeper than 64 levels",
            Self::NotStruct => "its pointer is not one to a struct, as its type says",
            Self::NotList => "its pointer is not one to a list, as its type says",
            Self::Elements => "its list has elements of another size than its type says",
            Self::Text => "its text does not end with a zero byte",
            Self::Amplified => "much more would come out of the message than is in it",
        })
    }
}

type Result<T> = std::result::Result<T, Broken>;

/// The word at byte `at`.
#[inline]
fn word(segment: &[u8], at: usize) -> Result<u64> {
    let bytes = segment.get(at..).and_then(|rest| rest.first_chunk::<8>());
    bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or(Broken::Bounds)
}

/// `len` bytes at byte `at`.
#[inline]
fn span(segment: &[u8], at: usize, len: usize) -> Result<&[u8]> {
    at.checked_add(len).and_then(|end| segment.get(at..end)).ok_or(Broken::Bounds)
}

/// The byte that the offset of the struct or list pointer `tag` at byte `at` names.
#[inline]
fn content(at: usize, tag: u64) -> Result<usize> {
    let words = i64::from((tag as u32 as i32) >> 2);
    let byte = at as i64 + 8 + words * 8;
    usize::try_from(byte).map_err(|_| Broken::Bounds)
}

/// Where a pointer leads.
#[derive(Clone, Copy)]
struct Target<'a> {
    segment: &'a [u8],
    at: usize,
    /// The struct or list pointer that says what lies there.
    tag: u64,
}

/// What the struct or list pointer at byte `at` leads to, through a landing pad or directly. None if there is no
/// pointer.
#[inline]
fn follow<'a>(
    segments: FrameSegments<'a>,
    segment: &'a [u8],
    at: usize,
) -> Result<Option<Target<'a>>> {
    let tag = word(segment, at)?;
    match tag & 3 {
        _ if tag == 0 => Ok(None),
        0 | 1 => Ok(Some(Target { segment, at: content(at, tag)?, tag })),
        2 => follow_far(segments, tag).map(Some),
        _ => Ok(Some(Target { segment, at: 0, tag })),
    }
}

#[cold]
fn follow_far(segments: FrameSegments<'_>, far: u64) -> Result<Target<'_>> {
    let landing = |far: u64| {
        let segment = segments.segment((far >> 32) as u32).ok_or(Broken::Bounds)?;
        Ok((segment, (far as u32 >> 3) as usize * 8))
    };
    let (segment, at) = landing(far)?;
    let pad = word(segment, at)?;
    if far & 4 == 0 {
        // One pad: a pointer like any other. Another far one is refused for not being one to a struct or a list.
        return Ok(Target { segment, at: content(at, pad)?, tag: pad });
    }
    // Two: where the content is, and what it is.
    let tag = word(segment, at + 8)?;
    let (segment, at) = landing(pad)?;
    Ok(Target { segment, at, tag })
}

/// A struct in a message.
#[derive(Clone, Copy)]
pub struct Object<'a> {
    segments: FrameSegments<'a>,
    segment: &'a [u8],
    data: &'a [u8],
    pointers_at: usize,
    pointers: u16,
    /// How many levels may follow.
    nesting: u8,
}

impl<'a> Object<'a> {
    /// As if the first word of a message, which leads to its root, were the only pointer of a struct that holds it.
    #[inline]
    pub fn holder(segments: FrameSegments<'a>) -> Result<Self> {
        let segment = segments.segment(0).ok_or(Broken::Bounds)?;
        Ok(Self { segments, segment, data: &[], pointers_at: 0, pointers: 1, nesting: NESTING_MAX })
    }

    /// The root of a message. An empty message has one of which nothing is set.
    #[inline]
    pub fn root(segments: FrameSegments<'a>) -> Result<Self> {
        let holder = Self::holder(segments)?;
        let empty = Self { pointers: 0, ..holder };
        Ok(holder.object(0)?.unwrap_or(empty))
    }

    /// The `BYTES` bytes at byte `at` of its data section, with zeroes for those that it has not.
    #[inline]
    pub fn data<const BYTES: usize>(&self, at: u32) -> [u8; BYTES] {
        let rest = self.data.get(at as usize..).unwrap_or_default();
        // A section of whole words, or one element of a list, ends where a value ends. Never within.
        rest.first_chunk().copied().unwrap_or([0; BYTES])
    }

    /// Whether bit `bit` of its data section is set.
    #[inline]
    pub fn bit(&self, bit: u32) -> bool {
        self.data.get(bit as usize / 8).is_some_and(|byte| byte >> (bit % 8) & 1 != 0)
    }

    /// Words that it takes.
    pub fn words(&self) -> usize {
        self.data.len().div_ceil(8) + usize::from(self.pointers)
    }

    /// What the pointer `index` leads to; none if it is null, or if its writer did not know it.
    #[inline]
    fn target(&self, index: u16) -> Result<Option<Target<'a>>> {
        if index >= self.pointers {
            return Ok(None);
        }
        follow(self.segments, self.segment, self.pointers_at + usize::from(index) * 8)
    }

    /// Whether the pointer `index` is null.
    pub fn is_null(&self, index: u16) -> Result<bool> {
        if index >= self.pointers {
            return Ok(true);
        }
        Ok(word(self.segment, self.pointers_at + usize::from(index) * 8)? == 0)
    }

    /// The struct that the pointer `index` leads to.
    #[inline]
    pub fn object(&self, index: u16) -> Result<Option<Self>> {
        let Some(Target { segment, at, tag }) = self.target(index)? else { return Ok(None) };
        if tag & 3 != 0 {
            return Err(Broken::NotStruct);
        }
        let nesting = self.nesting.checked_sub(1).ok_or(Broken::Deep)?;
        let (data, pointers) = (usize::from((tag >> 32) as u16) * 8, (tag >> 48) as u16);
        let whole = span(segment, at, data + usize::from(pointers) * 8)?;
        let data = &whole[..data];
        let pointers_at = at + data.len();
        Ok(Some(Self { segments: self.segments, segment, data, pointers_at, pointers, nesting }))
    }

    /// The list that the pointer `index` leads to.
    #[inline]
    pub fn items(&self, index: u16) -> Result<Option<Items<'a>>> {
        let Some(target) = self.target(index)? else { return Ok(None) };
        let nesting = self.nesting.checked_sub(1).ok_or(Broken::Deep)?;
        Items::at(self.segments, target, nesting).map(Some)
    }

    /// The bytes that the pointer `index` leads to.
    #[inline]
    pub fn bytes(&self, index: u16) -> Result<Option<&'a [u8]>> {
        let Some(Target { segment, at, tag }) = self.target(index)? else { return Ok(None) };
        if tag & 3 != 1 {
            return Err(Broken::NotList);
        }
        if (tag >> 32) & 7 != 2 {
            return Err(Broken::Elements);
        }
        span(segment, at, (tag >> 35) as usize).map(Some)
    }

    /// The text that the pointer `index` leads to, without the zero byte that ends it.
    #[inline]
    pub fn text(&self, index: u16) -> Result<Option<&'a [u8]>> {
        match self.bytes(index)? {
            None => Ok(None),
            Some([text @ .., 0]) => Ok(Some(text)),
            Some(_) => Err(Broken::Text),
        }
    }
}

/// A list in a message.
#[derive(Clone, Copy)]
pub struct Items<'a> {
    segments: FrameSegments<'a>,
    segment: &'a [u8],
    /// Where the first element begins.
    at: usize,
    count: u32,
    /// Of an element: its data, and its pointers behind it. A bit for a list of bits.
    data_bits: u32,
    pointers: u16,
    nesting: u8,
}

impl<'a> Items<'a> {
    fn at(segments: FrameSegments<'a>, target: Target<'a>, nesting: u8) -> Result<Self> {
        let Target { segment, at, tag } = target;
        if tag & 3 != 1 {
            return Err(Broken::NotList);
        }
        let count = (tag >> 35) as u32;
        let (data_bits, pointers) = match (tag >> 32) & 7 {
            0 => (0, 0),
            1 => (1, 0),
            size @ 2..=5 => (8 << (size - 2), 0),
            6 => (0, 1),
            _ => return Self::at_structs(segments, target, nesting),
        };
        let items = Self { segments, segment, at, count, data_bits, pointers, nesting };
        span(segment, at, (u64::from(count) * items.element_bits()).div_ceil(8) as usize)?;
        items.check_empty()
    }

    /// A list of structs says in a word before them what they are.
    fn at_structs(segments: FrameSegments<'a>, target: Target<'a>, nesting: u8) -> Result<Self> {
        let Target { segment, at, tag } = target;
        let words = (tag >> 35) as usize;
        let element = word(segment, at)?;
        if element & 3 != 0 {
            return Err(Broken::NotStruct);
        }
        let at = at + 8;
        span(segment, at, words * 8)?;
        let count = element as u32 >> 2;
        let (data, pointers) = (u32::from((element >> 32) as u16), (element >> 48) as u16);
        if u64::from(count) * u64::from(data + u32::from(pointers)) > words as u64 {
            return Err(Broken::Bounds);
        }
        Self { segments, segment, at, count, data_bits: data * 64, pointers, nesting }.check_empty()
    }

    fn element_bits(&self) -> u64 {
        u64::from(self.data_bits) + u64::from(self.pointers) * 64
    }

    fn check_empty(self) -> Result<Self> {
        let words = (self.segments.framed().len() / 8).max(WORDS_MIN);
        if self.element_bits() == 0 && self.count as usize > words * EMPTY_ELEMENTS_PER_WORD {
            return Err(Broken::Amplified);
        }
        Ok(self)
    }

    /// How many elements it has.
    #[inline]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Words that it takes; one for each element that takes none.
    pub fn words(&self) -> usize {
        match self.element_bits() {
            0 => self.count as usize,
            bits => (u64::from(self.count) * bits).div_ceil(64) as usize,
        }
    }

    /// Checks that its elements hold a value of `bits` bits, or are structs that begin with one.
    pub fn check_scalar(&self, bits: u32) -> Result<()> {
        // Bits never become anything else, and everything holds nothing.
        let fits = match bits {
            0 => true,
            1 => self.data_bits == 1,
            _ => self.data_bits != 1 && self.data_bits >= bits,
        };
        if fits {
            Ok(())
        } else {
            Err(Broken::Elements)
        }
    }

    /// Checks that its elements hold a pointer, or are structs whose first pointer it is.
    pub fn check_pointers(&self) -> Result<()> {
        if self.pointers > 0 {
            Ok(())
        } else {
            Err(Broken::Elements)
        }
    }

    /// Checks that its elements are structs, or what may become one: anything but bits.
    pub fn check_structs(&self) -> Result<()> {
        if self.data_bits != 1 {
            Ok(())
        } else {
            Err(Broken::Elements)
        }
    }

    /// Element `index`, as the struct that it is or that begins with it. Nothing if it is not in the list.
    #[inline]
    pub fn object(&self, index: u32) -> Result<Object<'a>> {
        let Self { segments, segment, pointers, nesting, .. } = *self;
        let (data, pointed) = (self.data_bits as usize / 8, usize::from(pointers) * 8);
        if index >= self.count {
            return Err(Broken::Bounds);
        }
        let at = self.at + index as usize * (data + pointed);
        let data = span(segment, at, data)?;
        let pointers_at = at + data.len();
        Ok(Object { segments, segment, data, pointers_at, pointers, nesting })
    }

    /// Element `index` of a list of bits.
    #[inline]
    pub fn bit(&self, index: u32) -> bool {
        let byte = self.segment.get(self.at + index as usize / 8);
        index < self.count && byte.is_some_and(|byte| byte >> (index % 8) & 1 != 0)
    }
}
