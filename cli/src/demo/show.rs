//! The live progress of the demo, on standard error: a line a process on a terminal, a line now and
//! then elsewhere.

use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::fleet::{Fleet, Member};
use super::report::Figures;
use crate::output;

/// Lines of progress that a run without a terminal prints, at most one a second.
const PLAIN_LINES: u32 = 8;

/// What the user sees while the demo runs.
pub struct Show {
    screen: MultiProgress,
    clock: ProgressBar,
    lines: Vec<ProgressBar>,
    plain: Option<Plain>,
    started: Option<Instant>,
    length: Duration,
}

/// Progress without a terminal.
struct Plain {
    interval: Duration,
    due: Duration,
}

impl Show {
    /// A show of this length.
    pub fn new(length: Duration) -> Self {
        let screen = MultiProgress::new();
        let interval = (length / PLAIN_LINES).max(Duration::from_secs(1));
        let plain = screen.is_hidden().then_some(Plain { interval, due: interval });
        let clock = screen.add(ProgressBar::new(length.as_millis() as u64));
        clock.set_style(
            ProgressStyle::with_template("{bar:40.cyan/dim} {msg}")
                .expect("the template is correct")
                .progress_chars("━━─"),
        );
        Self { screen, clock, lines: Vec::new(), plain, started: None, length }
    }

    /// The clock runs from now.
    pub fn start(&mut self) {
        self.started = Some(Instant::now());
    }

    /// Says that something happened.
    pub fn note(&self, sentence: &str) {
        let stamp = match self.started {
            Some(started) => format!("{:6.2} s  {sentence}", started.elapsed().as_secs_f64()),
            None => format!("          {sentence}"),
        };
        if self.plain.is_some() {
            output::complain(&stamp);
        } else {
            // A terminal that has gone away misses it.
            let _ = self.screen.println(stamp);
        }
    }

    /// Shows how the children stand.
    pub fn look(&mut self, fleet: &Fleet) {
        let elapsed = self.started.map_or(Duration::ZERO, |started| started.elapsed());
        if let Some(plain) = &mut self.plain {
            if elapsed >= plain.due && plain.due < self.length {
                plain.due += plain.interval;
                self.note(&summary(fleet));
            }
            return;
        }
        let shown = elapsed.min(self.length);
        self.clock.set_position(shown.as_millis() as u64);
        self.clock.set_message(format!(
            "{:.1} of {} s, {}",
            shown.as_secs_f64(),
            self.length.as_secs(),
            summary(fleet)
        ));
        for (i, member) in fleet.members().iter().enumerate() {
            if i == self.lines.len() {
                let line = self.screen.add(ProgressBar::new_spinner());
                line.set_style(ProgressStyle::with_template("  {msg}").expect("it is correct"));
                self.lines.push(line);
            }
            self.lines[i].set_message(standing(member));
        }
    }

    /// Clears the screen for the result.
    pub fn end(&self) {
        // A terminal that has gone away need not be cleared.
        let _ = self.screen.clear();
    }
}

fn summary(fleet: &Fleet) -> String {
    let received = fleet.members().iter().filter_map(Member::received);
    let (checked, faults) = received.fold((0, 0), |(checked, faults), figures| {
        (checked + figures.tally.received, faults + figures.tally.faults)
    });
    format!("{} messages checked, {} faults", output::count(checked), output::count(faults))
}

fn standing(member: &Member) -> String {
    let head = format!("{:<14} {:>8}  {:<9}", member.name, member.pid, member.state.word());
    match &member.figures {
        None => head,
        Some(Figures::Publisher(published)) => {
            let sent = published.lanes.iter().map(|lane| lane.next - lane.first).sum();
            format!("{head} {:>14} published", output::count(sent))
        }
        Some(Figures::Subscriber(received)) => format!(
            "{head} {:>14} received   p50 {:>7}  p99 {:>7}  missed {}",
            output::count(received.tally.received),
            output::duration(received.latency.p50_ns),
            output::duration(received.latency.p99_ns),
            output::count(received.tally.missed),
        ),
    }
}
