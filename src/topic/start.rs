//! Where a subscriber begins.

/// Where a subscriber begins.
///
/// On a topic with several publishers and no order, `Last` and `Sequence` apply to each lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// With the first message that is published after `subscribe` was called.
    Latest,
    /// With the oldest message that is retained.
    Oldest,
    /// With the `n`-th last message, or the oldest if fewer are retained. `Last(1)` on a lossy topic is the latest
    /// value: a blackboard.
    Last(u64),
    /// With exactly this sequence, which must be retained or the next one.
    Sequence(u64),
    /// On a durable topic: with the first message that was published at this time or later, in nanoseconds since 1970.
    /// Times are those of the clock of the machine, which may have been set: messages behind it may be earlier.
    Time(u64),
}
