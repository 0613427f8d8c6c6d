//! Things that a process does wrong on purpose, each to see that one kind of check can fail. Several
//! can be done in one run: each has a seat of its own, mostly in a cell of its own.

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
    /// A publisher counts a message that it did not send.
    Boast,
    /// A publisher does not count a message that it sent.
    Forget,
    /// A subscriber of a reliable topic forgets a message that it received.
    Lose,
    /// A subscriber receives a message twice.
    Twice,
    /// A visitor asks for another sequence than it expects.
    Sequence,
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
    /// A subscriber goes on, but so slowly that it only ever meets what is old.
    Trickle,
    /// A subscriber ends by itself: a death that nobody counted.
    Crash,
    /// A publisher does.
    Vanish,
    /// A worker acknowledges a message and does not do it.
    Shirk,
    /// A worker does a message twice.
    Redo,
    /// The supervisor counts kills that nobody made.
    Phantom,
    /// The supervisor leaves a place in a topic behind.
    Leak,
    /// The supervisor leaves files behind.
    Files,
}

impl Sabotage {
    /// Who does it: the cell, the job, and whether it is killed at times. `None` for the supervisor.
    fn culprit(self) -> Option<(&'static str, Job, bool)> {
        Some(match self {
            Self::Checksum => ("typed", Job::Publish, false),
            Self::Skip => ("large", Job::Publish, false),
            Self::Repeat => ("ordered", Job::Publish, false),
            Self::Commit | Self::Vanish => ("reliable", Job::Publish, false),
            Self::Boast => ("evicting", Job::Publish, false),
            Self::Forget => ("ordered-lossy", Job::Publish, false),
            Self::Lose | Self::Wedge => ("reliable", Job::Subscribe(Way::Block), false),
            Self::Twice | Self::Crash => ("large", Job::Subscribe(Way::Block), false),
            Self::Sequence => ("alone", Job::Visit, true),
            Self::Missed => ("lossy", Job::Subscribe(Way::Slow), false),
            Self::Silence => ("lossy", Job::Subscribe(Way::Slow), true),
            Self::Order => ("ordered", Job::Subscribe(Way::Batch), false),
            Self::Evicted => ("evicting", Job::Subscribe(Way::Stuck), false),
            Self::Untold => ("evicting", Job::Subscribe(Way::Stuck), true),
            Self::View | Self::Trickle => ("typed", Job::Subscribe(Way::Views), false),
            Self::Shirk | Self::Redo => ("queue", Job::Work(Way::Block), false),
            Self::Phantom | Self::Leak | Self::Files => return None,
        })
    }

    /// Whether the process in this seat is the one that does it.
    pub fn is_done_by(self, cell: usize, seat: &Seat) -> bool {
        self.culprit() == Some((CELLS[cell].name, seat.job, seat.mortal))
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
            assert_eq!(count, usize::from(sabotage.culprit().is_some()), "{sabotage:?}");
        }
    }
}
