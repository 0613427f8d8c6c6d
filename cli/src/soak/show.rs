//! The live progress of a soak, on standard error: one line that moves on a terminal, a line now and
//! then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use super::cells::CELLS;
use super::crew::Crew;
use super::scenario::Blows;
use crate::output;

/// Lines of progress that a run without a terminal prints.
const PLAIN_LINES: u32 = 30;
/// But not more often than this.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// What the user sees while the soak runs.
pub struct Show {
    bar: ProgressBar,
    interval: Duration,
    due: Duration,
    started: Option<Instant>,
    length: Duration,
}

impl Show {
    /// A show of this length.
    pub fn new(length: Duration) -> Self {
        let bar = ProgressBar::new(length.as_millis() as u64);
        bar.set_style(
            ProgressStyle::with_template("{bar:30.cyan/dim} {msg}")
                .expect("the template is correct")
                .progress_chars("━━─"),
        );
        let interval = (length / PLAIN_LINES).max(PLAIN_INTERVAL);
        Self { bar, interval, due: interval, started: None, length }
    }

    /// The clock runs from now.
    pub fn start(&mut self) {
        self.started = Some(Instant::now());
    }

    fn elapsed(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| started.elapsed())
    }

    /// Says that something happened.
    pub fn note(&self, sentence: &str) {
        let stamp = format!("{:8.1} s  {sentence}", self.elapsed().as_secs_f64());
        match self.bar.is_hidden() {
            true => output::complain(&stamp),
            false => self.bar.println(stamp),
        }
    }

    /// Shows how the run stands.
    pub fn look(&mut self, crew: &Crew, blows: &Blows, faults: u64) {
        let elapsed = self.elapsed();
        if self.bar.is_hidden() && elapsed < self.due {
            return;
        }
        let received: u64 = (0..CELLS.len()).map(|cell| crew.tally(cell).received).sum();
        let summary = format!(
            "{} messages checked, {} killed, {} stopped, {} faults",
            output::count(received),
            output::count(blows.kills.iter().sum()),
            output::count(blows.stops),
            output::count(faults),
        );
        if self.bar.is_hidden() {
            self.due = elapsed + self.interval;
            return self.note(&summary);
        }
        let shown = elapsed.min(self.length);
        self.bar.set_position(shown.as_millis() as u64);
        let (now, all) = (shown.as_secs(), self.length.as_secs());
        self.bar.set_message(format!("{now} of {all} s, {summary}"));
    }

    /// Clears the screen for the result.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}
