//! Things that a child does wrong on purpose, each to see that one kind of check can fail.

use clap::ValueEnum;

use super::cells::{Job, Seat, Way, CELLS};

/// What is done wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// A publisher sends a wrong checksum.
    Checksum,
    /// A publisher leaves one of its numbers out.
    Skip,
    /// A publisher sends one of its numbers twice.
    Repeat,
    /// A publisher says that it committed what it never sent.
    Commit,
    /// A subscriber of a reliable topic forgets a message that it received.
    Lose,
    /// A subscriber receives a message twice.
    Twice,
    /// A subscriber of a lossy topic is told of a miss that nobody counted.
    Missed,
    /// A subscriber of a lossy topic is not told of a miss.
    Silence,
    /// A subscriber of an ordered topic receives two messages in another order.
    Order,
    /// A subscriber that was evicted is told of another number of messages.
    Evicted,
    /// A subscriber that was evicted is not told.
    Untold,
    /// A view changes while it is held.
    View,
    /// A subscriber stops receiving.
    Wedge,
    /// A process ends by itself.
    Crash,
    /// Something of the bus stays behind.
    Leak,
}

impl Sabotage {
    /// Whether the process in this seat is the one that does it.
    pub fn is_done_by(self, cell: usize, seat: &Seat) -> bool {
        let name = match self {
            Self::Missed | Self::Silence => "lossy",
            Self::Order => "ordered",
            Self::Evicted | Self::Untold => "evicting",
            Self::View => "typed",
            Self::Leak => return false,
            _ => "reliable",
        };
        let job = match self {
            Self::Checksum | Self::Skip | Self::Repeat | Self::Commit => Job::Publish,
            Self::Lose | Self::Twice | Self::Wedge | Self::Crash => Job::Subscribe(Way::Block),
            Self::Missed | Self::Silence => Job::Subscribe(Way::Slow),
            Self::Order => Job::Subscribe(Way::Batch),
            Self::Evicted | Self::Untold => Job::Subscribe(Way::Stuck),
            Self::View => Job::Subscribe(Way::Views),
            Self::Leak => return false,
        };
        CELLS[cell].name == name && seat.job == job && !seat.mortal
    }
}

#[cfg(test)]
mod tests {
    use super::super::cells::seats;
    use super::*;

    #[test]
    fn each_is_done_by_one_process() {
        for &sabotage in Sabotage::value_variants() {
            let count = seats().filter(|(cell, seat)| sabotage.is_done_by(*cell, seat)).count();
            assert_eq!(count, usize::from(sabotage != Sabotage::Leak), "{sabotage:?}");
        }
    }
}
