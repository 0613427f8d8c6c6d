//! How long a blocking publisher waits, and how.

use crossbeam::utils::Backoff;
use std::time::{Duration, Instant};

/// How long a publisher waits for room.
#[derive(Clone, Copy)]
pub enum Patience {
    /// Not at all.
    Never,
    /// Until there is room.
    Forever,
    /// Until then.
    Until(Instant),
}

impl Patience {
    /// Waits at most `timeout`.
    pub fn within(timeout: Duration) -> Self {
        Instant::now().checked_add(timeout).map_or(Self::Forever, Self::Until)
    }

    /// Whether there is none at all.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Never)
    }
}

/// How long a wait for room stays awake: a subscriber that reads frees a segment within this time.
const AWAKE: Duration = Duration::from_micros(200);

/// One wait for room: spins, then yields, then sleeps for longer and longer up to a millisecond.
///
/// Subscribers never signal a publisher; that would cost them a shared write per segment for the sake of the rare
/// case. So a blocked publisher looks again by itself.
pub struct Pause {
    started: Instant,
    backoff: Backoff,
    naps: u32,
}

impl Pause {
    /// A wait that begins now.
    pub fn new() -> Self {
        Self { started: Instant::now(), backoff: Backoff::new(), naps: 0 }
    }

    /// Waits a little longer than the last time. False if `patience` is at its end.
    pub fn wait(&mut self, patience: Patience) -> bool {
        let left = match patience {
            Patience::Never => return false,
            Patience::Forever => Duration::MAX,
            Patience::Until(end) => match end.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => left,
                _ => return false,
            },
        };
        if !self.backoff.is_completed() || self.started.elapsed() < AWAKE {
            self.backoff.snooze();
            return true;
        }
        self.naps = (self.naps + 1).min(20);
        std::thread::sleep(Duration::from_micros(50 * u64::from(self.naps)).min(left));
        true
    }
}
