//! What is written and read: 128 bytes that carry their number, its complement, and a body that can be checked.
//!
//! The body is one of 64, by the number, and is filled once, so that making a record costs a store of its first two
//! words and not of all of them. The words are stored eight records ahead of their use: a copy of whole vectors right
//! behind a store of one word would wait for the store to reach the cache, in every contender alike.

use std::hint::black_box;

use anyhow::{bail, ensure, Result};

/// Bytes of a record.
pub const BYTES: usize = 128;

/// A record.
pub type Record = [u8; BYTES];

const BODIES: usize = 64;
const AHEAD: u64 = 8;
const STAMP_WORDS: usize = 2;

fn bodies() -> [Record; BODIES] {
    let mut bodies = [[0; BYTES]; BODIES];
    let mut word = 1u64;
    for body in &mut bodies {
        for at in body.as_chunks_mut().0.iter_mut().skip(STAMP_WORDS) {
            word = word.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            *at = word.to_le_bytes();
        }
    }
    bodies
}

/// Makes records one after the other.
pub struct Source {
    bodies: [Record; BODIES],
    next: u64,
}

impl Source {
    /// Begins with record `first`.
    pub fn starting_at(first: u64) -> Self {
        let mut source = Self { bodies: bodies(), next: first };
        (first..first + AHEAD).for_each(|number| source.stamp(number));
        source
    }

    #[inline]
    fn stamp(&mut self, number: u64) {
        let words = self.bodies[number as usize % BODIES].as_chunks_mut().0;
        words[0] = number.to_le_bytes();
        words[1] = (!number).to_le_bytes();
    }

    /// The next record. The compiler is not told how long it is: a log takes records of any length.
    #[inline]
    pub fn next_record(&mut self) -> &[u8] {
        let number = self.next;
        self.next += 1;
        self.stamp(number + AHEAD);
        black_box(&self.bodies[number as usize % BODIES][..])
    }
}

/// Reads every byte of records, and knows what each must be.
pub struct Checker {
    sums: [u64; BODIES],
}

impl Default for Checker {
    fn default() -> Self {
        Self { sums: bodies().map(|body| sum(&body)) }
    }
}

#[inline]
fn words(record: &Record) -> impl Iterator<Item = u64> + '_ {
    record.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word))
}

#[inline]
fn sum(record: &Record) -> u64 {
    words(record).skip(STAMP_WORDS).fold(0, u64::wrapping_add)
}

impl Checker {
    /// Checks that `bytes` are record `number`.
    ///
    /// # Errors
    ///
    /// Fails if they are not.
    #[inline]
    pub fn check(&self, number: u64, bytes: &[u8]) -> Result<()> {
        if let Ok(record) = <&Record>::try_from(bytes) {
            let is_stamped = words(record).take(STAMP_WORDS).eq([number, !number]);
            if is_stamped && sum(record) == self.sums[number as usize % BODIES] {
                return Ok(());
            }
        }
        refuse(number, bytes)
    }
}

#[cold]
fn refuse(number: u64, bytes: &[u8]) -> Result<()> {
    ensure!(bytes.len() == BYTES, "record {number} has {} bytes, not {BYTES}", bytes.len());
    bail!("record {number} is not what was appended; it begins with {:02x?}", &bytes[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_taken_for_itself_only() {
        let (mut source, checker) = (Source::starting_at(100), Checker::default());
        for number in 100..400 {
            let record = source.next_record().to_vec();
            checker.check(number, &record).expect("it is the record of that number");
            assert!(checker.check(number + 64, &record).is_err());
            assert!(checker.check(number, &record[..BYTES - 1]).is_err());
        }
    }

    #[test]
    fn a_flipped_bit_anywhere_is_seen() {
        let mut source = Source::starting_at(7);
        let record = source.next_record();
        for bit in 0..BYTES * 8 {
            let mut record = record.to_vec();
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(Checker::default().check(7, &record).is_err(), "bit {bit}");
        }
    }
}
