//! Who is killed, who is stopped, when, and for how long: drawn from the seed alone, so that the
//! same seed makes the same choices.

use std::time::{Duration, Instant};

/// A stop is longer than any period of the library, of which the longest is 50 ms.
const STOP_MS_MIN: u64 = 100;
/// Most stops are shorter than this …
const STOP_MS_MAX: u64 = 500;
/// … and one in so many …
const LONG_EVERY: u64 = 5;
/// … takes from this long …
const LONG_MS_MIN: u64 = 1_000;
/// … to this long.
const LONG_MS_MAX: u64 = 2_500;
/// One stop for so many kills.
const KILLS_PER_STOP: f64 = 4.0;
/// One kill in so many is the first of several within a moment.
const VOLLEY_EVERY: u64 = 10;

/// What happens next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// This mortal is killed with SIGKILL.
    Kill { mortal: usize },
    /// This seat is stopped with SIGSTOP for this long.
    Stop { seat: usize, time: Duration },
}

/// A stream of blows.
pub struct Killer {
    kills: Stream,
    stops: Stream,
    mortals: u64,
    seats: u64,
}

struct Stream {
    dice: fastrand::Rng,
    gap_ns: u64,
    due: Option<Instant>,
}

impl Stream {
    fn new(seed: u64, per_second: f64, now: Instant) -> Self {
        let gap_ns = if per_second > 0.0 { (1e9 / per_second) as u64 } else { 0 };
        let mut stream = Self { dice: fastrand::Rng::with_seed(seed), gap_ns, due: None };
        stream.due = (gap_ns > 0).then(|| now + stream.gap());
        stream
    }

    fn gap(&mut self) -> Duration {
        Duration::from_nanos(self.dice.u64(0..=2 * self.gap_ns))
    }

    /// Whether it is time; the next one is due a while after this one.
    fn strikes(&mut self, now: Instant) -> bool {
        let struck = self.due.is_some_and(|due| now >= due);
        if struck {
            let volley = self.dice.u64(0..VOLLEY_EVERY) == 0;
            let gap = self.gap();
            self.due = Some(now + if volley { gap / 50 } else { gap });
        }
        struck
    }
}

impl Killer {
    /// Blows from now on, on so many seats, of which so many may be killed.
    pub fn new(seed: u64, kills_per_second: f64, mortals: usize, seats: usize) -> Self {
        let now = Instant::now();
        Self {
            kills: Stream::new(seed, kills_per_second, now),
            stops: Stream::new(!seed, kills_per_second / KILLS_PER_STOP, now),
            mortals: mortals as u64,
            seats: seats as u64,
        }
    }

    /// The next blow, if it is time for one.
    pub fn blow(&mut self, now: Instant) -> Option<Blow> {
        if self.kills.strikes(now) {
            return Some(Blow::Kill { mortal: self.kills.dice.u64(0..self.mortals) as usize });
        }
        if self.stops.strikes(now) {
            let dice = &mut self.stops.dice;
            let seat = dice.u64(0..self.seats) as usize;
            let ms = match dice.u64(0..LONG_EVERY) {
                0 => dice.u64(LONG_MS_MIN..LONG_MS_MAX),
                _ => dice.u64(STOP_MS_MIN..STOP_MS_MAX),
            };
            return Some(Blow::Stop { seat, time: Duration::from_millis(ms) });
        }
        None
    }

    /// When the next blow is due.
    pub fn due(&self) -> Option<Instant> {
        self.kills.due.into_iter().chain(self.stops.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first blows of each kind, without the times, which are the machine's.
    fn choices(seed: u64) -> (Vec<Blow>, Vec<Blow>) {
        let mut killer = Killer::new(seed, 100.0, 30, 40);
        let later = Instant::now() + Duration::from_secs(3_600);
        let mut blows = Vec::new();
        for now in (0..2_000).map(|seconds| later + Duration::from_secs(seconds)) {
            blows.extend(std::iter::from_fn(|| killer.blow(now)));
        }
        blows.into_iter().partition(|blow| matches!(blow, Blow::Kill { .. }))
    }

    #[test]
    fn same_seed_makes_the_same_choices() {
        let (kills, stops) = choices(7);
        assert!(kills.len() > 500 && stops.len() > 100, "{} {}", kills.len(), stops.len());
        assert_eq!(choices(7), (kills.clone(), stops));
        assert_ne!(choices(8).0, kills);
    }

    #[test]
    fn everybody_is_struck_and_stops_are_long() {
        let (kills, stops) = choices(1);
        for mortal in 0..30 {
            assert!(kills.contains(&Blow::Kill { mortal }), "{mortal}");
        }
        for stop in stops {
            let Blow::Stop { seat, time } = stop else { panic!("{stop:?}") };
            assert!(seat < 40 && time >= Duration::from_millis(100), "{stop:?}");
        }
    }

    #[test]
    fn nobody_is_struck_if_so_asked() {
        let mut killer = Killer::new(1, 0.0, 30, 40);
        assert_eq!(killer.blow(Instant::now() + Duration::from_secs(9)), None);
        assert_eq!(killer.due(), None);
    }
}
