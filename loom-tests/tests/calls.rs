//! Calls: does every call end with the response of one server to its own request, or without one and free, whoever
//! asks, gives up, answers, dies or repairs at the same time?
//!
//! Outcomes: how the calls of the client ended, and what others found.

#![cfg(windlass_loom)]

use loom_tests::calls::{self, ask, finish, read_on, send_on, serve, Answer, Got, Service, Size};
use loom_tests::calls::{Ways, COPY, ONE, REAL};
use loom_tests::{explore, Outcomes, Turn};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use windlass::layout::call::{consumed, End, Part};
use windlass::ring::bells::Pick;
use windlass::ring::calls::Outcome;

use Got::{Answer as By, Up};

/// A client makes two calls, one after the other in the same place, beside two servers.
fn two_calls(preemptions: usize, ways: Ways) -> Outcomes<(Got, Option<Got>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(preemptions, move |turn: Turn| {
        let service = Service::new(ONE, 1);
        let [a, b, c] = [0; 3].map(|_| service.clone());
        let (got, one, two) = turn.race_three(
            move || {
                let first = ask(&a, 0, 1, 10, 1, ways);
                let free =
                    !matches!(first, Up(Outcome::Taken)) || (ways.give_up)(&a, 0) == Outcome::Free;
                (first, free.then(|| ask(&a, 0, 1, 20, 1, ways)))
            },
            move || serve(&b, 3, ways),
            move || serve(&c, 4, ways),
        );
        assert!(one.is_none() || one != two, "a request was taken twice");
        service.settle();
        record.add(got);
    });
    outcomes
}

#[test]
fn a_call_ends_with_one_answer_to_it_or_none() {
    let ends = [By(3), By(4), Up(Outcome::Free), Up(Outcome::Taken)];
    let pairs = ends.into_iter().flat_map(|first| ends.map(|second| (first, Some(second))));
    // A server has it, and had it when the client looked once more.
    let lingering = [(Up(Outcome::Taken), None)];
    // Each server takes one call.
    let is_one = |(first, second): &(Got, Option<Got>)| {
        let server = |got: &Got| if let By(node) = got { Some(*node) } else { None };
        server(first).is_none() || Some(*first) != *second
    };
    two_calls(2, REAL).assert_are(pairs.filter(is_one).chain(lingering));
}

/// Responses of the stream of the models.
const SENT: u64 = 3;

/// A client reads a stream of more responses than there are parts, while the server sends it.
fn stream(ways: Ways) -> Outcomes<(usize, u64)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(3, move |turn: Turn| {
        let service = Service::new(Size { parts: 2, ..ONE }, 1);
        service.write(0, 7);
        let asked = service.ask(0, 1);
        let held = service.take(3).expect("it was asked");
        let [a, b] = [0; 2].map(|_| service.clone());
        let ((mut read, end), (sent, is_done)) = turn.race(
            move || {
                let mut read = Vec::new();
                let end = read_on(&a, &asked, &mut read, 2, ways);
                (read, end)
            },
            move || send_on(&b, &held, 0, SENT, ways),
        );
        record.add((read.len(), sent));
        // The rest, one after the other.
        let (mut sent, mut is_done, mut end) = (sent, is_done, end);
        for _ in 0..=SENT {
            if end.is_some() {
                break;
            }
            if !is_done {
                (sent, is_done) = send_on(&service, &held, sent, SENT, ways);
            }
            end = read_on(&service, &asked, &mut read, 1, ways);
        }
        assert_eq!((read, end), (vec![70, 71, 72], Some(End::Done)), "it is not what was sent");
        let mut held = held;
        service.calls.remove_entry(&mut held);
        service.settle();
    });
    outcomes
}

#[test]
fn a_stream_arrives_whole_and_in_order() {
    stream(REAL).assert_are([(0, 2), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)]);
}

/// What is left of the same turn, 2^16 turns ago, when a stream begins.
fn long_ago(clears: bool) {
    explore(2, move |turn: Turn| {
        let service = Service::new(Size { parts: 2, ..ONE }, 1);
        for part in 0..2 {
            service.set_header(0, part, Part::new(1, part, 8, End::More));
        }
        service.set_consumed(0, consumed(1, 100));
        if clears {
            service.calls.clear(0);
        }
        service.write(0, 7);
        let asked = service.ask(0, 1);
        assert_eq!(asked.turn(), 1);
        let [a, b] = [0; 2].map(|_| service.clone());
        let (read, (sent, _)) = turn.race(
            move || {
                let mut read = Vec::new();
                read_on(&a, &asked, &mut read, 1, REAL);
                read
            },
            move || {
                let held = b.take(3).expect("it was asked");
                send_on(&b, &held, 0, 2, REAL)
            },
        );
        assert!(read.len() as u64 <= sent && (70..).take(read.len()).eq(read), "it was not sent");
    });
}

#[test]
fn what_a_call_left_in_the_same_turn_is_cleared() {
    long_ago(true);
}

/// A client with two calls sleeps until both are answered, by two servers.
fn sleeper(rings: bool) -> Outcomes<bool> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let service = Service::new(Size { calls: 2, ..ONE }, 1);
        let asked = [0, 1].map(|call| {
            service.write(call, 10 + call as u64);
            service.ask(call, 1)
        });
        let [a, b, c] = [0; 3].map(|_| service.clone());
        let is_due = move |service: &Service| {
            asked.iter().all(|asked| service.calls.response(asked, 0).is_some())
        };
        let take = |node| service.take(node).expect("it was asked");
        let held = [take(3), take(4)];
        let answer = move |service: Service, which: usize| {
            finish(&service, held[which], REAL);
            if rings && service.bells.hint().is_set() {
                match service.bells.pick() {
                    Pick::Nobody => {}
                    Pick::One(slot) => service.bells.wake(slot),
                    Pick::Everybody => {
                        // SLEEP: the barrier of a server that put the hint back.
                        loom::sync::atomic::fence(SeqCst);
                        if service.bells.rouse(0) {
                            service.bells.wake(0);
                        }
                    }
                }
            }
        };
        let (ticket, (), ()) = turn.race_three(
            move || {
                for _ in 0..2 {
                    if is_due(&a) {
                        return None;
                    }
                    a.bells.announce(0);
                    // SLEEP: the barrier of the sleeper.
                    loom::sync::atomic::fence(SeqCst);
                    let ticket = a.bells.ticket(0).filter(|_| !is_due(&a));
                    if ticket.is_some_and(|ticket| a.clients.futex(0).load(Relaxed) == ticket) {
                        return ticket;
                    }
                    a.bells.rise(0);
                }
                None
            },
            move || answer(b, 0),
            move || answer(c, 1),
        );
        if let Some(ticket) = ticket {
            assert_ne!(service.clients.futex(0).load(Relaxed), ticket, "a wake-up is lost");
        }
        record.add(ticket.is_some());
        for asked in &asked {
            service.calls.end(asked);
        }
        service.settle();
    });
    outcomes
}

#[test]
fn a_client_that_sleeps_is_woken_by_the_server_that_answers() {
    sleeper(true).assert_are([false, true]);
}

#[test]
fn the_copies_without_a_flaw_pass() {
    two_calls(1, COPY);
    stream(COPY);
}

#[test]
#[should_panic(expected = "a wake-up is lost")]
fn canary_a_server_answers_and_does_not_ring() {
    sleeper(false);
}

#[test]
#[should_panic]
fn canary_what_a_call_left_in_the_same_turn_stays() {
    long_ago(false);
}

#[test]
#[should_panic]
fn canary_a_response_is_committed_before_it_is_written() {
    let answer = |service: &Service, held: &_, index, response, end| {
        calls::answer(service, held, index, response, end, Some(Answer::CommitsFirst));
    };
    two_calls(1, Ways { answer, ..COPY });
}

#[test]
#[should_panic(expected = "the answer to another request")]
fn canary_a_client_takes_the_answer_of_another_turn() {
    two_calls(1, Ways { hear: calls::hear_any, ..COPY });
}

#[test]
#[should_panic]
fn canary_a_call_that_a_server_has_is_free_when_it_is_given_up() {
    two_calls(1, Ways { give_up: calls::give_up_taken, ..COPY });
}

#[test]
#[should_panic]
fn canary_a_server_takes_a_call_whatever_it_says() {
    two_calls(1, Ways { take: calls::take_by_store, ..COPY });
}

#[test]
#[should_panic]
fn canary_a_server_writes_a_part_that_was_not_read() {
    stream(Ways { has_room: |_, _, _| true, ..COPY });
}
