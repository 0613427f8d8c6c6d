//! When a recorded message is due.

use std::time::{Duration, Instant};

/// How fast a replay goes.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Speed {
    /// With the distances in time at which the messages were published.
    #[default]
    Recorded,
    /// So many times as fast. Must be above zero.
    Times(f64),
    /// As fast as they are read.
    Flat,
}

/// Says when recorded messages are due. Every one is held against the beginning, not against the one before it, so that
/// being late once does not add up.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// How many times as fast as they were recorded; `None` for at once.
    factor: Option<f64>,
    /// When the first message was due.
    begun: Option<Instant>,
    /// The time of the last message.
    last_ns: u64,
    /// Recorded time from the first message to the last, not counting steps back of the clock.
    passed_ns: u64,
}

impl Schedule {
    /// One that begins with the next message. `None` if the speed is none.
    pub fn new(speed: Speed) -> Option<Self> {
        let factor = match speed {
            Speed::Recorded => Some(1.0),
            Speed::Times(factor) if factor.is_finite() && factor > 0.0 => Some(factor),
            Speed::Times(_) => return None,
            Speed::Flat => None,
        };
        Some(Self { factor, begun: None, last_ns: 0, passed_ns: 0 })
    }

    /// When the message that follows, recorded at `time_ns`, is due; `None` for at once. It is `now`.
    pub fn due(&mut self, time_ns: u64, now: Instant) -> Option<Instant> {
        let factor = self.factor?;
        let Some(begun) = self.begun else {
            (self.begun, self.last_ns, self.passed_ns) = (Some(now), time_ns, 0);
            return Some(now);
        };
        self.passed_ns = self.passed_ns.saturating_add(time_ns.saturating_sub(self.last_ns));
        self.last_ns = time_ns;
        let distance = self.passed_ns as f64 / factor;
        // What is further away than anybody waits is never due.
        let distance = Duration::from_nanos(distance.min(u64::MAX as f64) as u64);
        begun.checked_add(distance).or(Some(begun + Duration::from_secs(u32::MAX.into())))
    }

    /// Lets everything that follows be due so much later.
    pub fn delay(&mut self, by: Duration) {
        self.begun = self.begun.and_then(|begun| begun.checked_add(by));
    }

    /// Begins anew, with the next message.
    pub fn restart(&mut self) {
        self.begun = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dues(speed: Speed, times: &[u64]) -> Vec<Option<u64>> {
        let begun = Instant::now();
        let mut schedule = Schedule::new(speed).expect("a speed");
        let due = |time: &u64| {
            let due = schedule.due(*time, begun + Duration::from_secs(9))?;
            Some((due - begun).as_nanos() as u64 - 9_000_000_000)
        };
        times.iter().map(due).collect()
    }

    #[test]
    fn messages_are_due_at_their_distances_from_the_first() {
        let all = |dues: &[u64]| dues.iter().copied().map(Some).collect::<Vec<_>>();
        assert_eq!(dues(Speed::Recorded, &[100, 150, 150, 400]), all(&[0, 50, 50, 300]));
        assert_eq!(dues(Speed::Times(2.0), &[100, 150, 400]), all(&[0, 25, 150]));
        assert_eq!(dues(Speed::Flat, &[100, 150]), [None, None]);
        // The clock was set back by 100 and 40: no distance.
        assert_eq!(dues(Speed::Recorded, &[200, 100, 130, 90, 95]), all(&[0, 0, 30, 30, 35]));
    }

    #[test]
    fn a_speed_is_a_number_above_zero() {
        for factor in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Schedule::new(Speed::Times(factor)).is_none(), "{factor}");
        }
    }
}
