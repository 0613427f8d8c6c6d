use super::*;

const RELIABLE: (bool, bool) = (false, false);
const LOSSY: (bool, bool) = (true, false);

fn books(kind: (bool, bool), begins: Begins) -> Ledger {
    Ledger::new(0, kind, begins, vec![Bounds { least: 5, most: 7 }; 2])
}

/// A message of the first author of its lane, unless another is named.
fn record(lane: u32, lane_sequence: u64, author: u64, number: u64) -> Record {
    Record { cell: 0, lane, lane_sequence, author: Author(author), number }
}

fn enter(books: &mut Ledger, lane: u32, sequence: u64, author: u64, number: u64) -> String {
    let taken = books.take(&record(lane, sequence, author, number), lane, sequence);
    taken.err().unwrap_or_default()
}

#[test]
fn dense_lanes_with_several_authors_are_right() {
    let mut books = books(RELIABLE, Begins::AtBirth);
    for (lane, sequence, author, number) in
        [(0, 0, 1, 0), (0, 1, 1, 1), (1, 0, 2, 0), (0, 2, 3, 0), (0, 3, 3, 1), (1, 1, 2, 1)]
    {
        assert_eq!(enter(&mut books, lane, sequence, author, number), "");
    }
    assert_eq!(books.settle(&[4, 2]), [""; 0]);
    assert_eq!(books.settle(&[5, 2]).len(), 2);
    assert_eq!(books.position(), (6, 6));
}

#[test]
fn gap_on_a_reliable_topic_is_a_loss() {
    let mut books = books(RELIABLE, Begins::AtBirth);
    assert_eq!(enter(&mut books, 0, 0, 1, 0), "");
    assert_eq!(enter(&mut books, 0, 2, 1, 2), "messages 1 to 1 of lane 0 are lost");
    assert!(books.lagged(1).is_err());
}

#[test]
fn missing_first_message_is_a_loss_for_who_was_there() {
    let mut books = books(RELIABLE, Begins::AtBirth);
    assert_eq!(enter(&mut books, 1, 1, 1, 1), "messages 0 to 0 of lane 1 are lost");
}

#[test]
fn repeated_message_is_found() {
    let mut books = books(RELIABLE, Begins::AtBirth);
    assert_eq!(enter(&mut books, 0, 0, 1, 0), "");
    assert!(enter(&mut books, 0, 0, 1, 0).contains("came again or too late"));
}

#[test]
fn authors_that_skip_or_repeat_a_number_are_found() {
    for (author, number) in [(1, 0), (1, 2), (2, 1)] {
        let mut books = books(RELIABLE, Begins::AtBirth);
        assert_eq!(enter(&mut books, 0, 0, 1, 0), "");
        assert!(enter(&mut books, 0, 1, author, number).contains("has number"), "{author}");
    }
}

#[test]
fn message_from_elsewhere_is_found() {
    let mut books = books(RELIABLE, Begins::AtBirth);
    assert!(books.take(&record(1, 0, 1, 0), 0, 0).is_err());
    assert!(books.take(&record(0, 0, 1, 0), 0, 1).is_err());
    assert!(books.take(&Record { cell: 1, ..record(0, 0, 1, 0) }, 0, 0).is_err());
}

#[test]
fn newcomer_begins_where_it_may() {
    for (first, right) in [(4, false), (5, true), (7, true), (8, false)] {
        let mut books = books(RELIABLE, Begins::Later);
        assert_eq!(enter(&mut books, 0, first, 1, 3).is_empty(), right, "{first}");
    }
    let mut books = books(RELIABLE, Begins::Somewhere);
    assert_eq!(enter(&mut books, 0, 100, 1, 3), "");
}

#[test]
fn lane_of_which_nothing_came_is_a_loss() {
    let mut books = books(RELIABLE, Begins::Later);
    assert_eq!(enter(&mut books, 0, 5, 1, 3), "");
    assert_eq!(books.settle(&[6, 7]), [""; 0]);
    let faults = books.settle(&[6, 8]);
    assert!(faults.len() == 1 && faults[0].starts_with("nothing came of lane 1"), "{faults:?}");
}

#[test]
fn reported_gaps_add_up() {
    let mut books = books(LOSSY, Begins::AtBirth);
    assert_eq!(enter(&mut books, 0, 0, 1, 0), "");
    books.lagged(4).expect("it is lossy");
    assert_eq!(enter(&mut books, 1, 0, 2, 0), "");
    assert_eq!(books.settle(&[1, 1]).len(), 2);
    assert_eq!(enter(&mut books, 0, 5, 1, 5), "");
    assert_eq!(books.settle(&[6, 1]), [""; 0]);
}

#[test]
fn unreported_gap_on_a_lossy_topic_is_found() {
    let mut books = books(LOSSY, Begins::AtBirth);
    assert_eq!(enter(&mut books, 0, 0, 1, 0), "");
    books.lagged(3).expect("it is lossy");
    assert!(enter(&mut books, 0, 5, 1, 5).contains("3 reported as missed"));
}

#[test]
fn what_was_missed_before_the_beginning_is_allowed_for() {
    let mut books = books(LOSSY, Begins::Later);
    books.lagged(3).expect("it is lossy");
    assert_eq!(enter(&mut books, 0, 9, 1, 5), "");
    assert_eq!(books.settle(&[10, 0]), [""; 0]);
    books.lagged(1).expect("it is lossy");
    assert_eq!(books.settle(&[10, 0]).len(), 1);
}

#[test]
fn ordered_topic_accounts_for_every_place() {
    let ordered_lossy = (true, true);
    let mut books = books(ordered_lossy, Begins::AtBirth);
    books.take(&record(0, 0, 1, 0), 0, 0).expect("the first");
    books.lagged(2).expect("it is lossy");
    books.take(&record(0, 2, 1, 2), 0, 3).expect("one of the two was of the other lane");
    assert!(books.take(&record(0, 3, 1, 3), 0, 5).expect_err("one left out").contains("was due"));
    let mut reliable = Ledger::new(0, (false, true), Begins::AtBirth, vec![]);
    assert!(reliable.take_place(1, &record(0, 0, 1, 0)).is_err());
}
