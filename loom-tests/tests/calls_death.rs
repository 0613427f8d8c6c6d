//! Calls, when servers, clients and those who repair die at any step: does a living client get one answer, from one
//! server, or learn that there will be none; and is every call of a dead client free in the end?
//!
//! Outcomes: how the calls of living clients ended.

#![cfg(windlass_loom)]

use loom_tests::calls::{self, ask, hear, is_alive, read_on, send_on, serve, Got, Service, Size};
use loom_tests::calls::{Tend, Ways, COPY, DEAD, DEAD_TOO, ONE, REAL};
use loom_tests::{explore, explore_deaths, Outcomes, Turn};
use windlass::layout::chunk::State;
use windlass::ring::calls::Outcome;

use Got::{Answer as By, Up};

/// A server dies at each of its steps; somebody repairs and another one serves, while the client waits.
fn dying_server(ways: Ways) -> Outcomes<(Got, Option<u64>)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let service = Service::new(ONE, 1);
        service.write(0, 10);
        let asked = service.ask(0, 1);
        let [a, b] = [0; 2].map(|_| service.clone());
        let ((), other, got) = turn.succeed(
            move || {
                death.of(|| serve(&a, DEAD, ways));
            },
            |()| {
                (ways.tend)(&service, 0, 77);
                serve(&service, 3, ways)
            },
            move || hear(&b, asked, 10, 2, ways),
        );
        let by_the_dead = service.answered().contains(&(10, DEAD));
        assert!(!by_the_dead || other.is_none(), "a call was answered twice");
        service.settle();
        record.add((got, other));
    });
    outcomes
}

#[test]
fn a_call_of_a_dead_server_is_answered_by_another_one() {
    dying_server(REAL).assert_are([
        // The dead had answered.
        (By(DEAD), None),
        (Up(Outcome::Free), None),
        // Another one did.
        (By(3), Some(10)),
        (Up(Outcome::Free), Some(10)),
        (Up(Outcome::Taken), Some(10)),
    ]);
}

/// A server dies at each step of a stream; somebody repairs, while the client reads. Returns how many responses it had
/// when it learned that there will be no more, if it did.
fn dying_stream(ways: Ways, looks_first: bool) -> Outcomes<(usize, bool)> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let service = Service::new(Size { parts: 2, ..ONE }, 1);
        service.write(0, 7);
        let asked = service.ask(0, 1);
        let held = service.take(DEAD).expect("it was asked");
        let [a, b] = [0; 2].map(|_| service.clone());
        let ((), other, (read, died)) = turn.succeed(
            move || {
                death.of(|| send_on(&a, &held, 0, 1, ways));
            },
            |()| {
                (ways.tend)(&service, 0, 77);
                serve(&service, 3, ways)
            },
            move || {
                let mut read = Vec::new();
                for _ in 0..2 {
                    let dead = b.calls.look(0).is(State::Dead);
                    if !looks_first && dead {
                        return (read, true);
                    }
                    if read_on(&b, &asked, &mut read, 1, ways).is_some() {
                        return (read, false);
                    }
                    if dead {
                        return (read, true);
                    }
                }
                (read, false)
            },
        );
        let mut all = read.clone();
        let over = service.calls.look(0).is(State::Free);
        let end = if over { None } else { read_on(&service, &asked, &mut all, 1, ways) };
        assert!(!died || all == read, "a response that was committed is not read");
        if other.is_some() {
            assert!(all.is_empty() || all == [7003], "two servers answered one call");
        } else {
            assert!(all.is_empty() || all == [70], "{all:?}");
        }
        if end.is_none() && other.is_none() && !over {
            let word = service.calls.look(0);
            assert!(word.is(State::Dead), "the client waits in vain: {word:?}");
        }
        service.settle();
        record.add((read.len(), died));
    });
    outcomes
}

#[test]
fn a_stream_of_a_dead_server_is_read_to_its_last_response_and_never_mixed() {
    dying_stream(REAL, true).assert_are([(0, false), (1, false), (1, true)]);
}

/// A call is delivered for the last time, and its server dies.
#[test]
fn after_the_last_delivery_the_client_learns_that_nobody_answers() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let service = Service::new(Size { deliveries_max: 1, ..ONE }, 1);
        service.write(0, 10);
        let asked = service.ask(0, 1);
        let a = service.clone();
        let b = service.clone();
        let ((), other, found) = turn.succeed(
            move || {
                death.of(|| serve(&a, DEAD, REAL));
            },
            |()| {
                service.calls.tend(0, 0, &service.clients, is_alive, 77);
                serve(&service, 3, REAL)
            },
            move || {
                let dead = b.calls.look(0).is(State::Dead);
                (dead, b.calls.response(&asked, 0).is_some())
            },
        );
        assert!(found != (true, true), "a call that was answered died");
        let by_the_dead = service.answered().contains(&(10, DEAD));
        let dead = service.calls.look(0).is(State::Dead);
        assert!(dead || by_the_dead || other.is_some() || service.calls.is_answered(0, 1));
        assert!(!(dead && other.is_some()), "it was delivered twice");
        service.settle();
        record.add((found.0, other));
    });
    outcomes.assert_are([(false, None), (true, None), (false, Some(10))]);
}

/// A client dies at each of its steps, while a server serves; the next owner of the lane makes a call.
fn dying_client(ways: Ways) -> Outcomes<Option<Got>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(1, move |turn, death| {
        let service = Service::new(ONE, DEAD);
        let [a, b] = [0; 2].map(|_| service.clone());
        let ((), next, _) = turn.succeed(
            move || {
                death.of(|| ask(&a, 0, DEAD, 10, 1, ways));
            },
            |()| {
                assert!(service.reap());
                service.claim(5).expect("the lane is free");
                let free = (ways.give_up)(&service, 0) == Outcome::Free;
                free.then(|| {
                    service.calls.clear(0);
                    ask(&service, 0, 5, 20, 1, ways)
                })
            },
            move || (serve(&b, 3, ways), serve(&b, 3, ways)),
        );
        service.settle();
        record.add(next);
    });
    outcomes
}

#[test]
fn the_next_owner_of_a_lane_collects_what_a_dead_client_left() {
    dying_client(REAL).assert_are([
        None,
        Some(By(3)),
        Some(Up(Outcome::Free)),
        Some(Up(Outcome::Taken)),
    ]);
}

/// A client died at each of its steps. The next owner of its lane, somebody who repairs and a server meet.
fn succession(preemptions: usize, ways: Ways) -> Outcomes<Option<Got>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(preemptions, move |turn: Turn, death| {
        let service = Service::new(ONE, DEAD);
        death.of(|| ask(&service, 0, DEAD, 10, 1, ways));
        assert!(service.reap());
        let [a, b, c] = [0; 3].map(|_| service.clone());
        let (next, _, _) = turn.race_three(
            move || {
                a.claim(5).expect("the lane is free");
                let free = (ways.give_up)(&a, 0) == Outcome::Free;
                free.then(|| {
                    a.calls.clear(0);
                    ask(&a, 0, 5, 20, 1, ways)
                })
            },
            move || (ways.tend)(&b, 0, 77),
            move || serve(&c, 3, ways),
        );
        service.settle();
        record.add(next);
    });
    outcomes
}

#[test]
fn whoever_repairs_frees_no_call_of_the_next_owner() {
    succession(2, REAL).assert_are([
        None,
        Some(By(3)),
        Some(Up(Outcome::Free)),
        Some(Up(Outcome::Taken)),
    ]);
}

/// Two repair after a server that died with a call, beside another server and the client.
fn two_repairers(ways: Ways) -> Outcomes<Got> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(1, move |turn: Turn| {
        let service = Service::new(ONE, 1);
        service.write(0, 10);
        let asked = service.ask(0, 1);
        service.take(DEAD).expect("it was asked");
        let [a, b, c, d] = [0; 4].map(|_| service.clone());
        let (_, _, one, got) = turn.race_four(
            move || (ways.tend)(&a, 0, 77),
            move || (ways.tend)(&b, 0, 78),
            move || serve(&c, 3, ways),
            move || hear(&d, asked, 10, 2, ways),
        );
        assert!(one.is_some() || !matches!(got, By(_)));
        service.settle();
        record.add(got);
    });
    outcomes
}

#[test]
fn two_who_repair_deliver_once_more() {
    two_repairers(REAL).assert_are([By(3), Up(Outcome::Free), Up(Outcome::Taken)]);
}

/// Whoever repairs dies as well, at each step, beside a server; the client sees to it that its call is entered.
fn dying_repairer(ways: Ways, enters: bool) -> Outcomes<Option<u64>> {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore_deaths(2, move |turn, death| {
        let service = Service::new(ONE, 1);
        service.write(0, 10);
        let mut asked = service.ask(0, 1);
        service.take(DEAD).expect("it was asked");
        let [a, b] = [0; 2].map(|_| service.clone());
        let ((), (), one) = turn.succeed(
            move || {
                death.of(|| (ways.tend)(&a, 0, DEAD_TOO));
            },
            |()| {
                (ways.tend)(&service, 0, 78);
                if enters {
                    service.calls.enter_again(&mut asked);
                }
            },
            move || serve(&b, 3, ways),
        );
        let two = serve(&service, 4, ways);
        assert!(one.is_some() != two.is_some(), "the call was answered {one:?} and {two:?}");
        assert!(matches!(hear(&service, asked, 10, 1, ways), By(3 | 4)));
        service.settle();
        record.add(one);
    });
    outcomes
}

#[test]
fn whoever_repairs_may_die_as_well() {
    dying_repairer(REAL, true).assert_are([None, Some(10)]);
}

#[test]
fn a_call_without_an_entry_is_entered_by_its_client_or_taken_by_an_idle_server() {
    let outcomes = Outcomes::new();
    let record = outcomes.clone();
    explore(2, move |turn: Turn| {
        let service = Service::new(ONE, 1);
        service.write(0, 10);
        let mut asked = service.ask(0, 1);
        service.take(DEAD).expect("it was asked");
        // Stopped, not dead, before it enters the call.
        let seen = service.calls.look(0);
        assert!(service.swap(0, seen, seen.failed().with(State::Ready, 9)));
        let [a, b, c] = [0; 3].map(|_| service.clone());
        let (asked, idle, two) = turn.race_three(
            move || {
                a.calls.enter_again(&mut asked);
                assert!(!a.calls.enter_again(&mut asked), "once for each word");
                asked
            },
            move || {
                let held = b.calls.take_without_entry(0..1, 3);
                held.map(|held| calls::finish(&b, held, REAL))
            },
            move || serve(&c, 4, REAL),
        );
        let rest = serve(&service, 4, REAL);
        let all = [idle, two, rest].into_iter().flatten().count();
        assert_eq!(all, 1, "it was answered {all} times");
        assert!(matches!(hear(&service, asked, 10, 1, REAL), By(3 | 4)));
        service.settle();
        record.add((idle, two));
    });
    outcomes.assert_are([(Some(10), None), (None, Some(10))]);
}

#[test]
fn the_copies_without_a_flaw_pass() {
    dying_server(COPY);
    dying_stream(COPY, true);
    succession(1, COPY);
    two_repairers(COPY);
    dying_repairer(COPY, true);
}

fn with_tend(tend: fn(&Service, usize, u32) -> Outcome) -> Ways {
    Ways { tend, ..COPY }
}

#[test]
#[should_panic]
fn canary_a_call_that_was_answered_is_delivered_again() {
    dying_server(with_tend(|service, call, node| {
        calls::tend(service, call, node, Some(Tend::RepeatsAnswered))
    }));
}

#[test]
#[should_panic]
fn canary_a_call_of_a_dead_server_is_freed() {
    dying_server(with_tend(|service, call, node| {
        calls::tend(service, call, node, Some(Tend::FreesTaken))
    }));
}

#[test]
#[should_panic]
fn canary_a_stream_that_has_begun_is_delivered_again() {
    dying_stream(
        with_tend(|service, call, node| calls::tend(service, call, node, Some(Tend::RepeatsBegun))),
        true,
    );
}

#[test]
#[should_panic(expected = "is not read")]
fn canary_a_client_learns_of_the_death_before_it_reads_what_is_there() {
    dying_stream(COPY, false);
}

#[test]
#[should_panic]
fn canary_whoever_repairs_looks_at_the_owner_of_a_lane_before_the_call() {
    succession(
        1,
        with_tend(|service, call, node| calls::tend(service, call, node, Some(Tend::OwnerFirst))),
    );
}

#[test]
#[should_panic]
fn canary_a_client_gives_a_call_up_that_a_server_has() {
    dying_client(Ways { give_up: calls::give_up_taken, ..COPY });
}

#[test]
#[should_panic]
fn canary_nobody_enters_what_a_dead_repairer_made_ready() {
    dying_repairer(COPY, false);
}
