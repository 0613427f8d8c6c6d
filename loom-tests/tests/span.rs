//! What the handler of a fault reads about a mapping while another one takes its place: one of the two, or nothing.
//!
//! Outcomes: what was read.

#![cfg(windlass_loom)]

use loom_tests::{broken, explore, Outcomes};
use std::sync::Arc;
use windlass::shm::span::{Extent, Span};

const FIRST: Extent = Extent { start: 8, end: 16, writable: false, note: 1 };
const SECOND: Extent = Extent { start: 24, end: 48, writable: true, note: 2 };

type Set = fn(&Span, Option<Extent>);
type Get = fn(&Span) -> Option<Extent>;

fn read_while_it_changes(set: Set, get: Get) -> Outcomes<Option<Extent>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn| {
        let span = Arc::new(Span::new());
        set(&span, Some(FIRST));
        let changed = span.clone();
        let (read, ()) = turn.race(move || get(&span), move || set(&changed, Some(SECOND)));
        record.add(read);
    });
    outcomes
}

#[test]
fn a_reader_sees_one_mapping_whole_or_none() {
    read_while_it_changes(Span::set, Span::get).assert_are([None, Some(FIRST), Some(SECOND)]);
}

#[test]
#[should_panic]
fn canary_the_version_is_not_looked_at_again() {
    read_while_it_changes(Span::set, broken::get_span).assert_are([
        None,
        Some(FIRST),
        Some(SECOND),
    ]);
}

#[test]
#[should_panic]
fn canary_nothing_orders_the_words_behind_the_odd_version() {
    read_while_it_changes(broken::set_span, Span::get).assert_are([
        None,
        Some(FIRST),
        Some(SECOND),
    ]);
}
