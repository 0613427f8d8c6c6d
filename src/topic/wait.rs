//! How a subscriber waits for the next message.

use std::time::Duration;

/// How a subscriber waits when there is nothing to read.
///
/// All of them adapt to the stream. While it is idle they look as often as they can, for the lowest latency of the
/// first message. While it is busy they pause between looks and then drain a batch, so that the publisher's cache lines
/// are not torn out of its cache while it writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Look until there is something; never leave the core. Lowest latency, one core per waiter.
    Spin,
    /// Look, and give the core to others between looks.
    Yield,
    /// Look for some microseconds, then sleep until a publisher wakes this process.
    Block,
    /// As `Block`, for at most this long.
    For(Duration),
}

/// Longest pause between two looks at a busy stream, in spin hints.
const PAUSE_MAX: u32 = 2048;

/// Looks before a blocking wait goes to sleep.
const LOOKS_BEFORE_SLEEP: u32 = 2000;

/// Looks before a yielding wait yields.
const LOOKS_BEFORE_YIELD: u32 = 100;

/// What to do after a look that found nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Look again.
    Look,
    /// Give the core away, then look again.
    Yield,
    /// Sleep until woken.
    Sleep,
}

/// Adapts the pauses of one subscriber to its stream.
#[derive(Debug)]
pub struct Pace {
    /// Payload bytes since the last look that found nothing, at which a publisher may be waiting for this subscriber.
    bytes_max: u64,
    /// Messages since the last look that found nothing.
    batch: u32,
    /// Their payload bytes.
    bytes: u64,
    /// Spin hints after a look that found nothing.
    pause: u32,
    /// Looks in a row that found nothing.
    looks: u32,
}

impl Pace {
    /// For lanes of `lane_bytes`.
    pub fn new(lane_bytes: u64) -> Self {
        Self { bytes_max: lane_bytes / 4, batch: 0, bytes: 0, pause: 0, looks: 0 }
    }

    /// A message of `len` payload bytes was there.
    #[inline]
    pub fn found(&mut self, len: usize) {
        self.batch = self.batch.saturating_add(1);
        self.bytes += len as u64;
    }

    /// Nothing was there: pauses as the stream deserves and says what to do next.
    pub fn nothing(&mut self, wait: Wait) -> Next {
        if self.batch > 0 {
            self.looks = 0;
            self.pause = if self.bytes > self.bytes_max {
                // The lane fills up while we pause: the publisher waits for us, or soon will.
                self.pause / 2
            } else if self.batch > 1 {
                // A run of messages means that the publisher is ahead of us: let it run further ahead.
                (self.pause * 2).clamp(16, PAUSE_MAX).min(self.batch.saturating_mul(16))
            } else {
                // A single one means that we wait for the publisher: look again at once.
                self.pause / 4
            };
            self.batch = 0;
            self.bytes = 0;
        } else {
            self.pause /= 2;
        }
        self.looks = self.looks.saturating_add(1);
        for _ in 0..self.pause {
            std::hint::spin_loop();
        }
        match wait {
            Wait::Spin => Next::Look,
            Wait::Yield if self.looks < LOOKS_BEFORE_YIELD => Next::Look,
            Wait::Yield => Next::Yield,
            Wait::Block | Wait::For(_) if self.looks < LOOKS_BEFORE_SLEEP => Next::Look,
            Wait::Block | Wait::For(_) => Next::Sleep,
        }
    }

    /// The waiter slept: look with full attention again.
    pub fn slept(&mut self) {
        self.looks = LOOKS_BEFORE_SLEEP / 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answering_peer_is_looked_for_without_pauses() {
        let mut pace = Pace::new(1 << 23);
        for _ in 0..100 {
            pace.found(64);
            pace.nothing(Wait::Spin);
            assert_eq!(pace.pause, 0);
        }
    }

    #[test]
    fn a_busy_stream_is_drained_in_batches_and_an_idle_one_looked_at_again() {
        let mut pace = Pace::new(1 << 23);
        for _ in 0..20 {
            (0..1000).for_each(|_| pace.found(64));
            pace.nothing(Wait::Spin);
        }
        assert_eq!(pace.pause, PAUSE_MAX);
        for _ in 0..20 {
            pace.nothing(Wait::Spin);
        }
        assert_eq!(pace.pause, 0);
    }

    #[test]
    fn a_waiter_may_look_for_ever() {
        let mut pace = Pace::new(1 << 23);
        pace.looks = u32::MAX;
        assert_eq!(pace.nothing(Wait::Spin), Next::Look);
        assert_eq!(pace.nothing(Wait::Yield), Next::Yield);
    }

    #[test]
    fn a_publisher_that_fills_its_lane_is_not_left_waiting() {
        let mut pace = Pace::new(1 << 20);
        for _ in 0..20 {
            (0..1000).for_each(|_| pace.found(64));
            pace.nothing(Wait::Spin);
        }
        assert_eq!(pace.pause, PAUSE_MAX);
        for _ in 0..20 {
            (0..100).for_each(|_| pace.found(65536));
            pace.nothing(Wait::Spin);
        }
        assert_eq!(pace.pause, 0);
    }

    #[test]
    fn a_blocking_wait_sleeps_after_some_looks() {
        let mut pace = Pace::new(1 << 23);
        let looks = (0..).take_while(|_| pace.nothing(Wait::Block) == Next::Look).count();
        assert_eq!(looks as u32, LOOKS_BEFORE_SLEEP - 1);
        assert_eq!(Pace::new(1 << 23).nothing(Wait::Spin), Next::Look);
    }
}
