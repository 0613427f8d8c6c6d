//! Times, and what to say of them.

use std::fmt;
use std::io::Write;
use std::time::Duration;

/// Some durations of the same thing.
#[derive(Clone, Debug, Default)]
pub struct Times(Vec<Duration>);

impl Times {
    pub fn add(&mut self, time: Duration) {
        self.0.push(time);
    }

    pub fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.0.clone();
        sorted.sort();
        let last = sorted.len().saturating_sub(1);
        sorted.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |share| self.quantile(share).as_secs_f64() * 1e3;
        let (median, high, max) = (ms(0.5), ms(0.99), ms(1.0));
        write!(f, "p50 {median:.2} ms, p99 {high:.2} ms, max {max:.2} ms of {}", self.0.len())
    }
}

/// Shows a line even if the test passes.
pub fn show(line: &str) {
    // Nothing is lost but the line.
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}
