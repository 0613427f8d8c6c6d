//! One order, compared: a subscriber of an ordered topic folds what it receives into one number for
//! each block of sequences, and the supervisor compares the numbers of all subscribers.

use std::collections::BTreeMap;

/// Sequences of a block. Small, so that a subscriber that misses some has whole blocks as well.
pub const BLOCK: u64 = 256;
/// Blocks that the supervisor remembers for each cell; a subscriber that is further behind is not
/// compared.
const REMEMBERED_MAX: usize = 4096;

/// What one subscriber folds.
#[derive(Debug, Default)]
pub struct Folding {
    due: Option<u64>,
    hash: u64,
}

impl Folding {
    /// Folds in the next message; the number of a block that is whole now, and its fold.
    pub fn fold(&mut self, sequence: u64, lane: u32, check: u32) -> Option<(u64, u64)> {
        if sequence.is_multiple_of(BLOCK) {
            (self.due, self.hash) = (Some(sequence), 0);
        }
        if self.due != Some(sequence) {
            self.due = None;
            return None;
        }
        self.due = Some(sequence + 1);
        for word in [sequence, u64::from(lane) << 32 | u64::from(check)] {
            self.hash = (self.hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29);
        }
        (sequence % BLOCK == BLOCK - 1).then_some((sequence / BLOCK, self.hash))
    }
}

/// What the subscribers of one cell say, side by side.
#[derive(Debug, Default)]
pub struct Comparison {
    folds: BTreeMap<u64, (u64, String)>,
    /// Blocks that at least two subscribers agreed on.
    pub agreed: u64,
}

impl Comparison {
    /// A subscriber has folded a block.
    ///
    /// # Errors
    ///
    /// A sentence if another one found something else there.
    pub fn compare(&mut self, block: u64, fold: u64, who: &str) -> Result<(), String> {
        if let Some((before, whose)) = self.folds.get(&block) {
            if *before != fold {
                let first = block * BLOCK;
                return Err(format!(
                    "{who} and {whose} received different messages, or in another order, within \
                     places {first} to {}",
                    first + BLOCK - 1
                ));
            }
            self.agreed += 1;
            return Ok(());
        }
        self.folds.insert(block, (fold, who.to_owned()));
        while self.folds.len() > REMEMBERED_MAX {
            self.folds.pop_first();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folds(messages: impl IntoIterator<Item = (u64, u32, u32)>) -> Vec<(u64, u64)> {
        let mut folding = Folding::default();
        messages.into_iter().filter_map(|(s, lane, check)| folding.fold(s, lane, check)).collect()
    }

    fn message(sequence: u64) -> (u64, u32, u32) {
        (sequence, (sequence % 3) as u32, sequence as u32 * 7)
    }

    #[test]
    fn newcomer_agrees_from_its_first_whole_block() {
        let all = folds((0..3 * BLOCK).map(message));
        assert_eq!(all.len(), 3);
        assert_eq!(folds((BLOCK / 2..3 * BLOCK).map(message)), all[1..]);
        assert_eq!(folds((0..2 * BLOCK).filter(|s| *s != BLOCK + 9).map(message)), all[..1]);
    }

    #[test]
    fn exchanged_messages_are_seen() {
        let whole: Vec<_> = (0..BLOCK).map(message).collect();
        let mut other = whole.clone();
        (other[4].1, other[5].1) = (whole[5].1, whole[4].1);
        assert_ne!(folds(whole.clone()), folds(other));
        let mut comparison = Comparison::default();
        let fold = folds(whole)[0].1;
        comparison.compare(0, fold, "one").expect("the first");
        comparison.compare(0, fold, "two").expect("the same");
        assert_eq!(comparison.agreed, 1);
        let said = comparison.compare(0, fold + 1, "three").expect_err("another");
        assert!(said.starts_with("three and one received different messages"), "{said}");
    }

    #[test]
    fn memory_is_bounded() {
        let mut comparison = Comparison::default();
        (0..3 * REMEMBERED_MAX as u64).for_each(|block| {
            comparison.compare(block, block, "one").expect("nobody else");
        });
        assert_eq!(comparison.folds.len(), REMEMBERED_MAX);
    }
}
