//! The time of the machine, read cheaply: by counting ticks of the processor since the last look at the clock.
//!
//! Asking the kernel's clock takes as long as copying a small message. The counter of the processor takes a fraction of
//! it. A [`Clock`] looks at both from time to time, some milliseconds apart, and in between converts ticks by the rate
//! that it saw between the last two looks. So it is never off by more than what its last look was, well below a
//! microsecond, plus what the clock of the machine was set by since, which it notices at the next look.
//!
//! The counter is used only where the kernel itself keeps time by it, which means that the kernel found it to run at
//! one rate, in all sleeping states, and to be the same on all processors. Elsewhere every reading asks the clock.

#![allow(unsafe_code)]

use crate::shm::sys::realtime_ns;
use std::sync::OnceLock;

/// For how long a look at the clock is good.
const SPAN_NS: u64 = 4_000_000;

/// Between two looks that say how fast the counter is.
const BASE_NS: std::ops::Range<u64> = 1_000_000..1_000_000_000;

/// Two readings of the counter, with one of the clock in between, that are not farther apart were not interrupted.
const LOOK_TICKS: u64 = 4_000;

/// A clock for one thread at a time.
pub struct Clock {
    /// The counter, and the clock, when both were looked at last.
    ticks: u64,
    ns: u64,
    /// Nanoseconds of a tick, times 2^32; 0 while it is not known.
    rate: u64,
    /// Ticks for which that is good; 0 while the rate is not known.
    span: u64,
    /// The look that the rate is measured from.
    base: Option<(u64, u64)>,
    has_counter: bool,
}

impl Clock {
    /// A clock that has not looked yet.
    pub fn new() -> Self {
        Self { ticks: 0, ns: 0, rate: 0, span: 0, base: None, has_counter: has_counter() }
    }

    /// Nanoseconds since 1970, by the clock of the machine, which may be set.
    #[inline]
    pub fn now(&mut self) -> u64 {
        // Also if the counter went back: that is a large number.
        let since = ticks().wrapping_sub(self.ticks);
        if since < self.span {
            return self.ns + ((since * self.rate) >> 32);
        }
        self.look()
    }

    #[cold]
    fn look(&mut self) -> u64 {
        if !self.has_counter {
            return realtime_ns();
        }
        let (ticks, ns) = look();
        let base = self.base.map(|(base_ticks, base_ns)| {
            (ticks.wrapping_sub(base_ticks), ns.wrapping_sub(base_ns))
        });
        match base {
            Some((ticks, ns)) if ns < BASE_NS.start && ticks < u64::MAX / 2 => {}
            Some((elapsed, passed)) if BASE_NS.contains(&passed) => {
                self.learn(elapsed, passed);
                self.base = Some((ticks, ns));
            }
            // The first look, the first one after a pause, or the clock was set: the rate of before is as good as any.
            _ => self.base = Some((ticks, ns)),
        }
        (self.ticks, self.ns) = (ticks, ns);
        ns
    }

    /// So many ticks took so long.
    fn learn(&mut self, ticks: u64, ns: u64) {
        let rate = (u128::from(ns) << 32).checked_div(u128::from(ticks)).unwrap_or(0);
        let rate = u64::try_from(rate).unwrap_or(0);
        // Only a clock that was set, or a machine that slept, makes the rate another one.
        let is_known = self.rate == 0 || rate.abs_diff(self.rate) <= self.rate >> 10;
        // From a tenth of a nanosecond to ten.
        let is_plausible = ((1 << 32) / 10..10 << 32).contains(&rate);
        self.rate = if is_known && is_plausible { rate } else { 0 };
        let span = (u128::from(SPAN_NS) << 32).checked_div(u128::from(self.rate)).unwrap_or(0);
        self.span = u64::try_from(span).unwrap_or(0);
    }
}

/// Counter and clock at the same time.
fn look() -> (u64, u64) {
    let mut best = (u64::MAX, 0, 0);
    for _ in 0..4 {
        let before = ticks();
        let ns = realtime_ns();
        let took = ticks().wrapping_sub(before);
        if took < best.0 {
            best = (took, before.wrapping_add(took / 2), ns);
        }
        if took < LOOK_TICKS {
            break;
        }
    }
    (best.1, best.2)
}

/// Whether the kernel keeps time by the counter.
fn has_counter() -> bool {
    static FOUND: OnceLock<bool> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        let name = std::fs::read_to_string(path).unwrap_or_default();
        cfg!(target_arch = "x86_64") && name.trim() == "tsc"
    })
}

/// The counter of the processor.
#[inline]
fn ticks() -> u64 {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads a counter and nothing else; every processor of this architecture has it, and a kernel that forbade
    // it to programs could not offer its own clock without a system call, which Linux does.
    unsafe {
        core::arch::x86_64::_rdtsc()
    }
    #[cfg(not(target_arch = "x86_64"))]
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Farther off than a clock may be, and nearer than any error of the rate would be after the time of the tests.
    const OFF_NS: u64 = 20_000;

    #[test]
    fn the_clock_is_that_of_the_machine() {
        let mut clock = Clock::new();
        let begin = realtime_ns();
        let (mut looks, mut readings) = (0u64, 0u64);
        loop {
            let before = realtime_ns();
            let last = clock.ticks;
            let now = clock.now();
            let after = realtime_ns();
            assert!((before - OFF_NS..=after + OFF_NS).contains(&now), "{before} {now} {after}");
            looks += u64::from(clock.ticks != last);
            readings += 1;
            if after - begin > 50_000_000 {
                break;
            }
        }
        if has_counter() {
            assert!(clock.span > 0 && looks < readings / 2, "{looks} looks, {readings} readings");
        }
    }

    #[test]
    fn a_clock_that_was_set_is_followed_at_the_next_look() {
        let mut clock = Clock::new();
        while has_counter() && clock.span == 0 {
            clock.now();
        }
        // As if the clock of the machine had been an hour ahead until now.
        let hour = 3_600_000_000_000;
        clock.base = clock.base.map(|(ticks, ns)| (ticks, ns + hour));
        (clock.ticks, clock.ns) = (clock.ticks.wrapping_sub(clock.span), clock.ns + hour);
        for _ in 0..100_000 {
            let before = realtime_ns();
            let now = clock.now();
            assert!((before - OFF_NS..=realtime_ns() + OFF_NS).contains(&now));
        }
    }

    #[test]
    fn a_rate_that_cannot_be_is_not_used() {
        let mut clock = Clock::new();
        for (ticks, ns) in [(0, 5_000_000), (1, 5_000_000), (u64::MAX, 5_000_000)] {
            clock.learn(ticks, ns);
            assert_eq!((clock.rate, clock.span), (0, 0));
        }
        clock.learn(10_000_000, 5_000_000);
        assert_eq!((clock.rate, clock.span), (1 << 31, 8_000_000));
        // Asleep for a while, and not counting.
        clock.learn(10_000_000, 500_000_000);
        assert_eq!(clock.span, 0);
    }
}
