//! Everything that the commands print on standard output, in one place.
//!
//! A reader that goes away (`windlass list | head -1`) is not an error: what nobody reads need not
//! be written.

use std::io::{ErrorKind, Write};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, LineStyle, Table, TableStyle};
use serde::Serialize;

/// One line, under the headings.
const RULED: TableStyle =
    TableStyle::new().header_separator(LineStyle::none().fill('─').junction('─'));

/// Prints text and a line end.
pub fn text(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result.context("cannot write to standard output"),
    }
}

/// Prints `value` as one line of JSON.
pub fn json(value: &impl Serialize) -> Result<()> {
    text(&serde_json::to_string(value).context("cannot write JSON")?)
}

/// Prints a line on standard error. Nobody may be there to read it, which changes nothing.
pub fn complain(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// An empty table under headings separated by `|`; one that ends in `>` has numbers under it,
/// aligned right.
pub fn table(headings: &str) -> Table {
    let headings: Vec<_> = headings.split('|').map(str::trim).collect();
    let mut table = Table::new();
    table.load_style(RULED);
    table.set_header(headings.iter().map(|heading| heading.trim_end_matches('>')));
    for (i, _) in headings.iter().enumerate().filter(|(_, heading)| heading.ends_with('>')) {
        if let Some(column) = table.column_mut(i) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// A whole number in groups of three digits: `1 234 567`.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// A number of things: `1 lane`, `2 lanes`.
pub fn some(n: u64, one: &str, many: &str) -> String {
    format!("{} {}", count(n), if n == 1 { one } else { many })
}

/// A duration with the unit that suits it: `850 ns`, `4.2 µs`, `17 ms`, `2.5 s`.
pub fn duration(ns: u64) -> String {
    let (value, unit) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => (ns as f64 / 1e3, "µs"),
        1_000_000..1_000_000_000 => (ns as f64 / 1e6, "ms"),
        _ => (ns as f64 / 1e9, "s"),
    };
    if value < 9.95 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A size with the unit that suits it: `512 B`, `64 KiB`, `8 MiB`.
pub fn bytes(n: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| n >= *size) {
        Some((size, unit)) if n.is_multiple_of(*size) => format!("{} {unit}", n / size),
        Some((size, unit)) => format!("{:.1} {unit}", n as f64 / *size as f64),
        None => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_right_under_their_heading() {
        let mut table = table("name | n>");
        table.add_row(["a", "7"]).add_row(["b", "1 000"]);
        let shown = table.trim_fmt();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[0], " name       n");
        assert_eq!(lines[2..], [" a          7", " b      1 000"]);
    }

    #[test]
    fn counts_are_grouped_by_three() {
        let shown = [0, 12, 123, 1_234, 123_456, 1_234_567].map(count);
        assert_eq!(shown, ["0", "12", "123", "1 234", "123 456", "1 234 567"]);
    }

    #[test]
    fn durations_have_the_unit_that_suits() {
        let shown = [850, 4_210, 17_300_000, 999_999, 2_500_000_000].map(duration);
        assert_eq!(shown, ["850 ns", "4.2 µs", "17 ms", "1000 µs", "2.5 s"]);
    }

    #[test]
    fn sizes_have_the_unit_that_suits() {
        let shown = [512, 65_536, 8 << 20, 1_536].map(bytes);
        assert_eq!(shown, ["512 B", "64 KiB", "8 MiB", "1.5 KiB"]);
    }
}
