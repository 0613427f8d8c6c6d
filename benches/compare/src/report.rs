//! From samples to a table, or to JSON: by the state of the machine, with medians, bests, and ratios to the baseline.

use std::collections::BTreeMap;

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, Table};
use serde::Serialize;

use crate::machine::State;

/// Something that is measured.
#[derive(Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name in JSON, with its unit.
    pub name: &'static str,
    /// Its heading in a table, with its unit.
    pub title: &'static str,
    /// What a table shows is this many times smaller.
    pub divisor: u32,
    /// Whether more is better.
    pub more_is_better: bool,
}

impl Metric {
    fn best(&self, values: &[f64]) -> f64 {
        let best = if self.more_is_better { f64::max } else { f64::min };
        values.iter().copied().reduce(best).unwrap_or(f64::NAN)
    }

    fn shown(&self, value: f64) -> String {
        let value = value / f64::from(self.divisor);
        match value.abs() {
            size if size >= 1000.0 => format!("{value:.0}"),
            size if size >= 100.0 => format!("{value:.1}"),
            size if size >= 1.0 => format!("{value:.2}"),
            _ => format!("{value:.3}"),
        }
    }
}

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

/// The value that a share of all values, in thousandths, does not exceed.
pub fn quantile(values: &[u64], thousandths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * thousandths).div_ceil(1000).clamp(1, sorted.len().max(1)) - 1;
    sorted.get(at).map_or(f64::NAN, |&value| value as f64)
}

/// One measurement of one store.
pub struct Sample {
    /// Which store.
    pub store: String,
    /// Where the cores were.
    pub state: State,
    /// What came out, in the order of the metrics of the section. `None`: not measured this time.
    pub values: Vec<Option<f64>>,
}

/// A table: samples of the same thing.
pub struct Section {
    /// What it is about.
    pub title: String,
    /// What is measured; ratios are of the first.
    pub metrics: Vec<&'static Metric>,
    /// All samples.
    pub samples: Vec<Sample>,
    /// The stores, in order; the first is what the others are compared with.
    pub stores: Vec<String>,
    /// What a reader has to know.
    pub notes: Vec<String>,
}

#[derive(Serialize)]
struct Figures {
    median: f64,
    best: f64,
}

#[derive(Serialize)]
struct Row {
    store: String,
    state: State,
    samples: usize,
    /// How many times better than the baseline, by medians.
    ratio: Option<f64>,
    metrics: BTreeMap<&'static str, Figures>,
}

#[derive(Serialize)]
struct Rows<'a> {
    title: &'a str,
    rows: Vec<Row>,
    notes: &'a [String],
}

impl Section {
    fn values(&self, store: &str, state: State, metric: usize) -> Vec<f64> {
        let chosen = self.samples.iter().filter(|it| it.store == store && it.state == state);
        chosen.filter_map(|sample| sample.values.get(metric).copied().flatten()).collect()
    }

    fn ratio(&self, store: &str, state: State) -> Option<f64> {
        let metric = self.metrics.first()?;
        let middle = |store: &str| {
            let values = self.values(store, state, 0);
            (!values.is_empty()).then(|| median(&values))
        };
        let (value, baseline) = (middle(store)?, middle(self.stores.first()?)?);
        Some(if metric.more_is_better { value / baseline } else { baseline / value })
    }

    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for state in [State::Twin, State::Near, State::Far, State::Unknown] {
            for store in &self.stores {
                let samples = self.values(store, state, 0).len();
                if samples == 0 {
                    continue;
                }
                let metrics = self.metrics.iter().enumerate().filter_map(|(index, metric)| {
                    let values = self.values(store, state, index);
                    let figures = Figures { median: median(&values), best: metric.best(&values) };
                    (!values.is_empty()).then_some((metric.name, figures))
                });
                let (metrics, ratio) = (metrics.collect(), self.ratio(store, state));
                rows.push(Row { store: store.clone(), state, samples, ratio, metrics });
            }
        }
        rows
    }

    /// As JSON.
    pub fn json(&self) -> serde_json::Result<serde_json::Value> {
        let rows = Rows { title: &self.title, rows: self.rows(), notes: &self.notes };
        serde_json::to_value(rows)
    }

    /// As a table, with title and notes.
    pub fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(UTF8_FULL_CONDENSED);
        let mut head = vec!["store".to_owned(), "cores".to_owned(), "n".to_owned()];
        for (index, metric) in self.metrics.iter().enumerate() {
            head.push(metric.title.to_owned());
            if index == 0 {
                head.extend(["best".to_owned(), "× first".to_owned()]);
            }
        }
        let columns = head.len();
        table.set_header(head);
        for row in self.rows() {
            let state = row.state.name().to_owned();
            let mut cells = vec![row.store.clone(), state, row.samples.to_string()];
            for (index, metric) in self.metrics.iter().enumerate() {
                let figures = row.metrics.get(metric.name);
                let shown =
                    |value: Option<f64>| value.map_or("–".to_owned(), |it| metric.shown(it));
                cells.push(shown(figures.map(|it| it.median)));
                if index == 0 {
                    cells.push(shown(figures.map(|it| it.best)));
                    cells.push(row.ratio.map_or("–".to_owned(), |ratio| format!("{ratio:.3}")));
                }
            }
            table.add_row(cells);
        }
        for column in 2..columns {
            if let Some(column) = table.column_mut(column) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let notes: String = self.notes.iter().map(|note| format!("{note}\n")).collect();
        format!("{}\n{table}\n{notes}\n", self.title)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_occurred() {
        let values: Vec<u64> = (1..=1000).rev().collect();
        assert_eq!((quantile(&values, 500), quantile(&values, 990)), (500.0, 990.0));
        assert_eq!((quantile(&[7], 1), quantile(&[7], 999)), (7.0, 7.0));
        assert!(quantile(&[], 500).is_nan());
    }

    #[test]
    fn states_are_not_mixed_and_better_is_above_one() {
        const TIME: Metric = Metric { name: "ns", title: "ns", divisor: 1, more_is_better: false };
        let sample = |store: &str, state, value| Sample {
            store: store.to_owned(),
            state,
            values: vec![Some(value)],
        };
        let section = Section {
            title: String::new(),
            metrics: vec![&TIME],
            samples: vec![
                sample("one", State::Near, 10.0),
                sample("two", State::Near, 5.0),
                sample("two", State::Far, 50.0),
            ],
            stores: vec!["one".to_owned(), "two".to_owned()],
            notes: Vec::new(),
        };
        let rows = section.rows();
        let found: Vec<_> = rows.iter().map(|row| (&row.store[..], row.state, row.ratio)).collect();
        let near = [("one", State::Near, Some(1.0)), ("two", State::Near, Some(2.0))];
        assert_eq!(found, [near[0], near[1], ("two", State::Far, None)]);
    }
}
