//! A ring of tokens: where its words lie, and what a word of it says.
//!
//! ```text
//!  63                T+1   T   T-1               0
//! ┌──────────────────────┬───┬────────────────────┐
//! │ lap                  │ F │ token              │   F = 1: the token stands there
//! └──────────────────────┴───┴────────────────────┘
//! ```
//!
//! Place `x` of the ring is slot `x mod capacity` in lap `x / capacity`. A word that is empty names the lap that may
//! fill it; so the zeroes of a fresh file are empty slots of lap 0. `T` is fixed at creation: what a token does not
//! need tells laps apart. Laps are counted modulo the width of their field.

use crate::limits::{LINE, TOKEN_BITS_MAX};

/// The place whose token goes next, as far as anybody has told. Anyone may advance it.
pub const HEAD_AT: usize = 0;
/// The next free place, as far as anybody has told. Anyone may advance it.
pub const TAIL_AT: usize = LINE;
/// The slots.
pub const SLOTS_AT: usize = 2 * LINE;

/// Bytes of a ring of `capacity` slots.
pub fn bytes(capacity: u64) -> u64 {
    SLOTS_AT as u64 + capacity * 8
}

/// How the words of one ring are divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    token_bits: u32,
}

/// A word of a ring, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// How many laps the word is ahead of the lap that was asked for. Negative: it is behind.
    pub ahead: i64,
    /// The token that stands there.
    pub token: Option<u64>,
}

impl Form {
    /// Words with tokens of so many bits.
    pub fn new(token_bits: u32) -> Self {
        assert!((1..=TOKEN_BITS_MAX).contains(&token_bits));
        Self { token_bits }
    }

    /// Bits of a token.
    pub fn token_bits(self) -> u32 {
        self.token_bits
    }

    /// The largest token.
    pub fn token_max(self) -> u64 {
        (1 << self.token_bits) - 1
    }

    /// The word of a slot that may be filled in `lap`.
    #[inline]
    pub fn empty(self, lap: u64) -> u64 {
        lap << (self.token_bits + 1)
    }

    /// The word of a slot that was filled in `lap`.
    #[inline]
    pub fn full(self, lap: u64, token: u64) -> u64 {
        self.empty(lap) | 1 << self.token_bits | (token & self.token_max())
    }

    /// The token of a word that was filled in `lap`; `None` for any other word.
    #[inline]
    pub fn filled_in(self, word: u64, lap: u64) -> Option<u64> {
        let token = word & self.token_max();
        (word == self.full(lap, token)).then_some(token)
    }

    /// Takes a word apart that is expected to be near `lap`.
    #[inline]
    pub fn read(self, word: u64, lap: u64) -> Slot {
        let shift = self.token_bits + 1;
        // The difference modulo the width of the field, with its sign.
        let ahead = (word.wrapping_sub(lap << shift) >> shift << shift) as i64 >> shift;
        let token = (word >> self.token_bits & 1 == 1).then_some(word & self.token_max());
        Slot { ahead, token }
    }
}

#[cfg(not(windlass_loom))]
pub use file::TokenShape;

#[cfg(not(windlass_loom))]
mod file {
    use super::{bytes, Form};
    use crate::error::{Error, Result};
    use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
    use crate::limits::{HEADER_BYTES, TOKENS_MAX, TOKEN_BITS_MAX};

    /// What a file with a ring of tokens was created with. Immutable.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct TokenShape {
        /// Slots, a power of two.
        pub capacity: u64,
        /// How the words are divided.
        pub form: Form,
        /// Permission bits of the file.
        pub mode: u32,
    }

    impl TokenShape {
        /// Bytes of a file with a ring of `capacity` slots: pages.
        pub fn file_bytes(capacity: u64) -> u64 {
            let bytes = HEADER_BYTES as u64 + bytes(capacity) + END_BYTES as u64;
            bytes.next_multiple_of(HEADER_BYTES as u64)
        }

        /// The header that says all this.
        pub fn to_header(self, identity: u64) -> Header {
            let mut fields = [0; FIELDS];
            let bits = self.form.token_bits();
            fields[..3].copy_from_slice(&[self.capacity, bits.into(), self.mode.into()]);
            let file_bytes = Self::file_bytes(self.capacity);
            Header { kind: Kind::Tokens, file_bytes, identity, fields }
        }

        /// The shape that a checked header describes, with every field inside its limits.
        pub fn from_header(header: &Header, file: impl std::fmt::Display) -> Result<Self> {
            let [capacity, bits, mode, ..] = header.fields;
            if !capacity.is_power_of_two() || capacity > TOKENS_MAX {
                let expected = format!("a power of two from 1 to {TOKENS_MAX}");
                return Err(Error::corrupt(file, "capacity", capacity, expected));
            }
            let bits = match u32::try_from(bits) {
                Ok(bits) if (1..=TOKEN_BITS_MAX).contains(&bits) => bits,
                _ => {
                    let expected = format!("1 to {TOKEN_BITS_MAX}");
                    return Err(Error::corrupt(file, "token_bits", bits, expected));
                }
            };
            let mode = match u32::try_from(mode) {
                Ok(mode) if mode <= 0o777 => mode,
                _ => return Err(Error::corrupt(file, "mode", mode, "at most 511 (0777)")),
            };
            if header.file_bytes != Self::file_bytes(capacity) {
                let expected = Self::file_bytes(capacity);
                return Err(Error::corrupt(file, "its length", header.file_bytes, expected));
            }
            Ok(Self { capacity, form: Form::new(bits), mode })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_comes_apart_as_it_was_put_together() {
        for bits in [1, 24, 32, TOKEN_BITS_MAX] {
            let form = Form::new(bits);
            let laps = 1u64 << (63 - bits);
            for lap in [0, 1, 2, laps - 1, laps, laps + 1, laps + laps / 2 + 1] {
                for token in [0, 1, form.token_max()] {
                    for (ahead, at) in
                        [(0, lap), (1, lap + 1), (-1, lap.wrapping_sub(1)), (2, lap + 2)]
                    {
                        let full = form.read(form.full(at, token), lap);
                        assert_eq!(
                            full,
                            Slot { ahead, token: Some(token) },
                            "{bits} bits, lap {lap}"
                        );
                        let empty = form.read(form.empty(at), lap);
                        assert_eq!(empty, Slot { ahead, token: None }, "{bits} bits, lap {lap}");
                    }
                }
            }
        }
        assert_eq!(Form::new(32).empty(0), 0, "a fresh slot is empty");
    }
}
