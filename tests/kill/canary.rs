//! Harm done on purpose, which the checks of this test must see.

use crate::content::{self, Delivery, Ledger};
use crate::place::{self, Place};
use crate::role;
use windlass::{Bus, Raw, Start};

const RELIABLE: Delivery = Delivery { reliable: true, ordered: false };
const LOSSY: Delivery = Delivery { reliable: false, ordered: false };

/// The books of a subscriber to which exactly these payloads were published.
fn books(delivery: Delivery, payloads: &[Vec<u8>]) -> windlass::Result<Ledger> {
    let bus = Bus::anonymous()?;
    let topic = bus.topic::<Raw>("canary").open()?;
    let mut subscriber = topic.subscriber(Start::Oldest)?;
    let mut publisher = topic.publisher()?;
    let mut ledger = Ledger::new(delivery, true);
    for payload in payloads {
        publisher.publish(payload).expect("the lane has room");
        let message = subscriber.try_recv().expect("the topic is sound");
        ledger.take(&message.expect("a message was published"));
    }
    Ok(ledger)
}

fn messages(sequences: &[u64]) -> Vec<Vec<u8>> {
    sequences.iter().map(|sequence| content::message(0, *sequence, 0)).collect()
}

#[test]
fn books_of_a_whole_stream_have_no_fault() -> windlass::Result<()> {
    let mut ledger = books(RELIABLE, &messages(&[0, 1, 2, 3, 4]))?;
    ledger.close(&[(0, 5)].into());
    assert_eq!(ledger.faults, Vec::<String>::new());
    Ok(())
}

#[test]
fn books_show_what_is_torn_lost_doubled_or_not_reported() -> windlass::Result<()> {
    let mut torn = messages(&[0, 1]);
    *torn[1].last_mut().expect("no message is empty") ^= 1;
    assert!(!books(RELIABLE, &torn)?.faults.is_empty(), "a torn message passes");
    let doubled = messages(&[0, 1, 1]);
    assert!(!books(RELIABLE, &doubled)?.faults.is_empty(), "a doubled message passes");
    assert!(!books(LOSSY, &doubled)?.faults.is_empty(), "a doubled message passes if lossy");
    let lost = messages(&[0, 2]);
    assert!(!books(RELIABLE, &lost)?.faults.is_empty(), "a lost message passes");
    let mut end = books(RELIABLE, &messages(&[0, 1]))?;
    end.close(&[(0, 3)].into());
    assert!(!end.faults.is_empty(), "a message lost at the end passes");
    let mut silent = books(LOSSY, &messages(&[0, 1]))?;
    silent.close(&[(0, 3)].into());
    assert!(!silent.faults.is_empty(), "a message that was missed in silence passes");
    Ok(())
}

#[test]
fn leftovers_are_found() -> windlass::Result<()> {
    let place = Place::new();
    let path = place.bus();
    let desk = role::bus(&path)?;
    drop(role::topic(&desk, "reliable")?.publisher()?);
    let all = role::topic(&desk, "reliable")?;
    let lanes: windlass::Result<Vec<_>> = (0..role::PUBLISHERS).map(|_| all.publisher()).collect();
    drop(lanes?);
    assert_eq!(place::check_leftovers(&path, "reliable", &desk)?, Vec::<String>::new());
    let other = role::bus(&path)?;
    let guest = role::topic(&other, "reliable")?.subscriber(Start::Latest)?;
    std::fs::write(path.join("left"), "over").expect("the folder can be written");
    let found = place::check_leftovers(&path, "reliable", &desk);
    // The slot that the guest has cannot be taken, so the last check ends in an error.
    assert!(found.is_err(), "an occupied slot passes");
    drop(guest);
    let found = place::check_leftovers(&path, "reliable", &desk)?;
    assert_eq!(found.len(), 2, "a node and a file are left, and found is {found:?}");
    Ok(())
}
