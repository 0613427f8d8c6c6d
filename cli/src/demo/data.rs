//! The recorded data that the demo carries: a machine's temperature, embedded at compile time.
//!
//! Publishers send the rows in their order, again and again; message `n` of a lane carries row `n %
//! rows`. So every subscriber knows what any message must contain from its sequence alone, whoever
//! published it and however often the publisher was replaced.

use anyhow::{ensure, Context, Result};

/// Where the data came from, for the report.
pub const NAME: &str = "machine_temperature.csv, Numenta Anomaly Benchmark";

const TEXT: &str = include_str!("../../data/machine_temperature.csv");
const HEADER: &str = "timestamp,value";

/// One recorded reading.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// Its place in the file, from 0.
    pub index: u64,
    /// When it was recorded, as the file spells it.
    pub timestamp: &'static str,
    /// The temperature.
    pub value: f64,
}

/// All recorded readings, in the order of the file; never empty.
pub struct DataSet {
    rows: Vec<Row>,
}

impl DataSet {
    /// The data set that this program carries.
    pub fn embedded() -> Result<Self> {
        Self::parse(TEXT).context("the embedded data set cannot be read")
    }

    fn parse(text: &'static str) -> Result<Self> {
        let mut lines = text.lines();
        let header = lines.next().unwrap_or_default();
        ensure!(header == HEADER, "the first line is {header:?}, expected {HEADER:?}");
        let rows = lines
            .enumerate()
            .map(|(i, line)| parse_row(i as u64, line).with_context(|| format!("line {}", i + 2)))
            .collect::<Result<Vec<_>>>()?;
        ensure!(!rows.is_empty(), "there are no rows");
        Ok(Self { rows })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// The row that message `sequence` of any lane carries.
    pub fn row(&self, sequence: u64) -> &Row {
        &self.rows[(sequence % self.rows.len() as u64) as usize]
    }
}

fn parse_row(index: u64, line: &'static str) -> Result<Row> {
    let (timestamp, value) = line.split_once(',').context("there is no comma")?;
    let value = value.parse().with_context(|| format!("{value:?} is not a number"))?;
    Ok(Row { index, timestamp, value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn embedded_data_set_has_every_row() {
        let data = DataSet::embedded().expect("the embedded data parses");
        assert_eq!(data.rows(), 22_695);
        let first = Row { index: 0, timestamp: "2013-12-02 21:15:00", value: 73.96732207 };
        assert_eq!(*data.row(0), first);
        assert_eq!(data.row(22_694).timestamp, "2014-02-19 15:25:00");
    }

    #[test]
    fn rows_repeat_after_the_last_one() {
        let data = DataSet::embedded().expect("the embedded data parses");
        assert_eq!(data.row(22_695), data.row(0));
        assert_eq!(data.row(u64::MAX), data.row(u64::MAX % 22_695));
    }

    #[test]
    fn damaged_line_is_named() {
        let error = DataSet::parse("timestamp,value\na,1\nb;2\n").err().expect("refused");
        assert_eq!(format!("{error:#}"), "line 3: there is no comma");
    }
}
