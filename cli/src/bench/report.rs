//! From repetitions to figures: sorted by the state of the machine, as tables or as one JSON
//! object.
//!
//! A repetition counts for a state only if the looks before and behind it agree. Figures of two
//! states never meet in one row.

use std::fmt;
use std::io::{self, Write};

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use super::cores::Machine;
use super::driver::Sample;
use super::failure::{During, Result};
use super::pingpong::{Ping, Span, State};

/// The value in the middle, or between the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count if count % 2 == 1 => sorted[count / 2],
        count => f64::midpoint(sorted[count / 2 - 1], sorted[count / 2]),
    }
}

/// The smallest value.
pub fn smallest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}

/// The largest value.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Figures of the same thing in the two states of the machine.
#[derive(Clone, Debug, Serialize)]
pub struct ByState<T> {
    /// While the two were threads of one core.
    pub twin: Option<T>,
    /// While the two cores shared a cache.
    pub near: Option<T>,
    /// While they did not.
    pub far: Option<T>,
    /// Repetitions that count for neither, because the machine moved between the two looks.
    pub moved: usize,
}

impl<T> ByState<T> {
    /// Sorts repetitions by state and makes one figure of those of each.
    pub fn of<S>(samples: &[Sample<S>], figure: impl Fn(&[&Sample<S>]) -> T) -> Self {
        let in_state = |state| {
            let chosen: Vec<_> =
                samples.iter().filter(|sample| state_of(sample) == Some(state)).collect();
            (!chosen.is_empty()).then(|| figure(&chosen))
        };
        let moved = samples.iter().filter(|sample| state_of(sample).is_none()).count();
        Self {
            twin: in_state(State::Twin),
            near: in_state(State::Near),
            far: in_state(State::Far),
            moved,
        }
    }

    /// The figures of one state.
    pub fn get(&self, state: State) -> Option<&T> {
        match state {
            State::Twin => self.twin.as_ref(),
            State::Near => self.near.as_ref(),
            State::Far => self.far.as_ref(),
        }
    }

    /// The figures of one state, to complete them.
    pub fn get_mut(&mut self, state: State) -> Option<&mut T> {
        match state {
            State::Twin => self.twin.as_mut(),
            State::Near => self.near.as_mut(),
            State::Far => self.far.as_mut(),
        }
    }

    /// Sets the figures of one state.
    pub fn set(&mut self, state: State, figures: T) {
        match state {
            State::Twin => self.twin = Some(figures),
            State::Near => self.near = Some(figures),
            State::Far => self.far = Some(figures),
        }
    }

    /// The figures with their states.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &T)> {
        [("twin", &self.twin), ("near", &self.near), ("far", &self.far)]
            .into_iter()
            .filter_map(|(name, figure)| figure.as_ref().map(|figure| (name, figure)))
    }
}

fn state_of<S>(sample: &Sample<S>) -> Option<State> {
    let state = sample.before.state()?;
    (sample.after.state() == Some(state)).then_some(state)
}

/// What the machine was like during a run.
#[derive(Debug, Serialize)]
pub struct Setting {
    /// Which benchmark.
    pub bench: &'static str,
    /// Whether it was a smoke run, whose figures are rough.
    pub quick: bool,
    /// Repetitions of each case.
    pub repetitions: u32,
    /// The core of the driver and the core of the peer.
    pub cores: (usize, usize),
    /// The machine.
    pub machine: Machine,
    /// The bare ping-pong, one-way nanoseconds.
    pub ping: ByState<Ping>,
}

/// All looks of a state as one: the smallest of the minima, the median of the medians.
pub fn summary_of_pings<S>(samples: &[Sample<S>]) -> ByState<Ping> {
    ByState::of(samples, |chosen| Ping {
        one_line: summary(chosen, |ping| ping.one_line),
        two_lines: summary(chosen, |ping| ping.two_lines),
    })
}

fn summary<S>(chosen: &[&Sample<S>], span: impl Fn(&Ping) -> Span) -> Span {
    let looks = || chosen.iter().flat_map(|sample| [&sample.before, &sample.after]);
    let minima: Vec<f64> = looks().map(|ping| span(ping).min).collect();
    let medians: Vec<f64> = looks().map(|ping| span(ping).median).collect();
    Span { min: smallest(&minima), median: median(&medians) }
}

impl Setting {
    /// What a person has to know before reading a table.
    pub fn print(&self) {
        say(format_args!("{}", self.machine.sentence()));
        say(format_args!(
            "Driver on core {}, peer on core {}, {} repetitions of each case{}.",
            self.cores.0,
            self.cores.1,
            self.repetitions,
            if self.quick { " (a smoke run: the figures are rough)" } else { "" }
        ));
        let mut table = table(
            "Bare cache-line ping-pong, one way, ns",
            &["state", "one line, min", "median", "two lines, min", "median"],
        );
        for (state, ping) in self.ping.each() {
            let (one, two) = (ping.one_line, ping.two_lines);
            let numbers = [one.min, one.median, two.min, two.median].map(figure);
            table.push([vec![state.to_owned()], numbers.to_vec()].concat());
        }
        table.print();
        if self.ping.moved > 0 {
            say(format_args!(
                "The machine moved during {} repetitions, which do not count.",
                self.ping.moved
            ));
        }
    }
}

/// A titled table whose numbers are aligned.
pub struct Titled {
    title: String,
    table: Table,
}

/// An empty table.
pub fn table(title: &str, columns: &[&str]) -> Titled {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_header(columns);
    Titled { title: title.to_owned(), table }
}

impl Titled {
    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        self.table.add_row(row);
    }

    /// Prints it: columns with numbers in every row are aligned to the right.
    pub fn print(&mut self) {
        for column in self.table.column_iter_mut() {
            column.set_cell_alignment(CellAlignment::Right);
        }
        if let Some(first) = self.table.column_mut(0) {
            first.set_cell_alignment(CellAlignment::Left);
        }
        say(format_args!("\n{}\n{}", self.title, self.table));
    }
}

/// A number with as many digits as mean something.
pub fn figure(value: f64) -> String {
    match value {
        value if !value.is_finite() => "–".to_owned(),
        value if value < 0.0995 => format!("{value:.4}"),
        value if value < 9.995 => format!("{value:.2}"),
        value if value < 999.5 => format!("{value:.1}"),
        value => format!("{value:.0}"),
    }
}

/// A figure that may be missing.
pub fn figure_or_dash(value: Option<f64>) -> String {
    value.map_or_else(|| "–".to_owned(), figure)
}

/// A size for a person.
pub fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes % (1 << 20) == 0 => format!("{} MiB", bytes >> 20),
        bytes if bytes >= 1 << 10 && bytes % (1 << 10) == 0 => format!("{} KiB", bytes >> 10),
        bytes => format!("{bytes} B"),
    }
}

/// Prints a line. A reader that is gone has seen what it wanted.
pub fn say(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

/// Prints a report as one JSON object.
///
/// # Errors
///
/// Fails if it cannot be written whole, unless its reader is gone.
pub fn print_json(report: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(report).during("cannot write the report")?;
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(error).during("cannot write the report")
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(one_line: f64) -> Ping {
        let span = |ns| Span { min: ns, median: ns };
        Ping { one_line: span(one_line), two_lines: span(one_line * 1.8) }
    }

    fn sample(before: f64, after: f64, value: f64) -> Sample<f64> {
        Sample { before: look(before), after: look(after), value }
    }

    #[test]
    fn repetitions_are_sorted_by_both_looks() {
        let samples =
            [sample(27.0, 28.0, 1.0), sample(170.0, 160.0, 5.0), sample(27.0, 170.0, 9.0)];
        let sorted = ByState::of(&samples, |chosen| chosen.iter().map(|s| s.value).sum::<f64>());
        assert_eq!((sorted.near, sorted.far, sorted.moved), (Some(1.0), Some(5.0), 1));
        assert_eq!(sorted.twin, None);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn figures_keep_the_digits_that_mean_something() {
        let values = [0.0047, 0.5, 9.99, 27.03, 999.4, 12345.6, f64::NAN];
        assert_eq!(values.map(figure), ["0.0047", "0.50", "9.99", "27.0", "999.4", "12346", "–"]);
    }

    #[test]
    fn sizes_read_well() {
        assert_eq!([64, 1024, 65536, 1 << 20].map(size), ["64 B", "1 KiB", "64 KiB", "1 MiB"]);
    }
}
