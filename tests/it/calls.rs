//! What a call can end with, one by one: answers, failures, streams, deadlines, closing, options.

use super::process::{fork_and, until, Line, Role, Scene, Stage};
use super::service::{assert_all_free, check, request, response, small, PATIENCE};
use nix::sys::wait::{waitpid, WaitStatus};
use std::time::{Duration, Instant};
use windlass::schemas::reading_capnp::reading;
use windlass::schemas::tick_capnp::tick;
use windlass::{Bus, CallError, Client, ErrorKind, Raw, ReplyError, ServeError, Server, Service};
use windlass::{StreamResponse, Wait};

pub const ROLES: &[(&str, Role)] = &[("calls.parent", parent)];

type Ends = (Service<Raw, Raw>, Client<Raw, Raw>, Server<Raw, Raw>);

fn ends(bus: &Bus) -> Ends {
    let service = small(bus).max_deliveries(3).create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let server = service.server().expect("there is a slot");
    (service, client, server)
}

fn bus() -> Bus {
    Bus::anonymous().expect("there is memory")
}

#[test]
fn a_call_without_a_server_says_so_and_one_with_an_idle_server_says_otherwise() {
    let bus = bus();
    let (service, client, server) = ends(&bus);
    let short = Duration::from_millis(20);
    let began = Instant::now();
    assert_eq!(client.call(b"0", short).err(), Some(CallError::Timeout));
    assert!(began.elapsed() >= short);
    drop(server);
    assert_eq!(client.call(b"1", short).err(), Some(CallError::NoServer));
    assert_eq!(client.call(b"2", Duration::ZERO).err(), Some(CallError::NoServer));
    let error = CallError::NoServer.to_string();
    assert!(error.contains("start a server"), "{error}");
    assert_all_free(&service);
    let mut server = service.server().expect("there is a slot");
    assert!(server.try_take().expect("it is sound").is_none(), "nobody waits for them");
}

#[test]
fn several_calls_are_pending_at_a_time_and_are_answered_in_any_order() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let mut pending: Vec<_> =
        (0..4).map(|number| client.begin(&request(1, number)).expect("it is free")).collect();
    let busy = client.begin(b"fifth").expect_err("there are four calls");
    assert_eq!(busy, CallError::Busy { calls: 4, lingering: 0, server: None });
    assert!(pending[0].try_response().expect("sound").is_none());
    for _ in 0..4 {
        let call = server.try_take().expect("sound").expect("it was made");
        let answer = response(call.bytes(), 5);
        call.reply(&answer).expect("somebody waits");
    }
    let mut responses: Vec<_> = Vec::new();
    for number in (0..4).rev() {
        let mut pending = pending.pop().expect("there are four");
        let response = pending.try_response().expect("sound").expect("it was answered");
        assert!(pending.try_response().expect("sound").is_none(), "it was taken");
        assert_eq!(check(response.bytes(), 1, number), 5);
        responses.push(response);
    }
    // A response that is held keeps its call.
    assert!(matches!(client.begin(b"fifth"), Err(CallError::Busy { .. })));
    responses.pop();
    drop(client.begin(b"fifth").expect("one is free"));
    drop(responses);
    assert_all_free(&service);
    assert_eq!(service.info().expect("sound").made, 5);
}

#[test]
fn a_call_that_is_given_up_is_not_delivered_or_its_server_is_told() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    drop(client.begin(b"early").expect("it is free"));
    assert!(server.try_take().expect("sound").is_none());
    let pending = client.begin(b"late").expect("it is free");
    let call = server.try_take().expect("sound").expect("it was made");
    assert!(!call.is_abandoned());
    drop(pending);
    assert!(call.is_abandoned());
    assert_eq!(service.info().expect("sound").lingering, 1);
    assert_eq!(call.reply(b"answer"), Err(ReplyError::Abandoned));
    // Whoever drops an abandoned call gives it back to nobody.
    let pending = client.begin(b"later").expect("it is free");
    let call = server.try_take().expect("sound").expect("it was made");
    drop(pending);
    drop(call);
    assert!(server.try_take().expect("sound").is_none());
    drop(client.begin(b"last").expect("it is free"));
    let info = service.info().expect("sound");
    assert_eq!((info.abandoned, info.redelivered, info.died), (4, 0, 0), "{info:?}");
    assert_all_free(&service);
}

#[test]
fn a_call_that_is_given_back_is_delivered_again_as_often_as_it_may_be() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let mut pending = client.begin(b"hot").expect("it is free");
    for delivery in 1..=3 {
        assert!(pending.try_response().expect("it is not over").is_none());
        let call = server.try_take().expect("sound").expect("it is there");
        assert_eq!((call.bytes(), call.delivery()), (&b"hot"[..], delivery));
    }
    assert!(server.try_take().expect("sound").is_none());
    assert_eq!(pending.wait(PATIENCE).err(), Some(CallError::ServerDied));
    let info = service.info().expect("sound");
    assert_eq!((info.redelivered, info.died, info.abandoned), (2, 1, 0), "{info:?}");
    assert_all_free(&service);
}

#[test]
fn a_failure_arrives_as_text_cut_to_what_a_response_may_have() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let max = server.response_bytes_max();
    assert_eq!(max, 320, "300, in lines of 64");
    for (text, expected) in
        [("no", "no".to_owned()), ("", String::new()), (&"ü".repeat(200), "ü".repeat(160))]
    {
        let pending = client.begin(b"?").expect("it is free");
        let call = server.try_take().expect("sound").expect("it was made");
        call.fail(text).expect("somebody waits");
        assert_eq!(pending.wait(PATIENCE).err(), Some(CallError::Failed(expected)));
    }
    assert_all_free(&service);
}

#[test]
fn what_does_not_fit_is_an_error_that_names_the_option() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let error = client.begin(&[0; 257]).expect_err("it does not fit");
    assert_eq!(error, CallError::TooLarge { need: 257, max: 256 });
    assert!(error.to_string().contains("request_bytes"), "{error}");
    let error = client.begin_with(257, |_| panic!("there is no room")).expect_err("no room");
    assert_eq!(error, CallError::TooLarge { need: 257, max: 256 });
    let pending = client.begin_with(256, |space| space.fill(3)).expect("it fits");
    let call = server.try_take().expect("sound").expect("it was made");
    assert_eq!(call.bytes(), [3; 256]);
    let error = call.reply(&[0; 321]).expect_err("it does not fit");
    assert_eq!(error, ReplyError::TooLarge { need: 321, max: 320 });
    let failure = pending.wait(PATIENCE).expect_err("the call failed");
    assert_eq!(failure, CallError::Failed(error.to_string()));
    assert!(error.to_string().contains("response_bytes"), "{error}");
    let pending = client.begin(&[]).expect("nothing is a request, too");
    let call = server.try_take().expect("sound").expect("it was made");
    call.reply_with(320, |space| space.fill(4)).expect("it fits");
    assert_eq!(pending.wait(PATIENCE).expect("answered").bytes(), [4; 320]);
    assert_all_free(&service);
}

#[test]
fn a_stream_is_as_far_ahead_as_it_may_be_and_arrives_in_order() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    for count in [0u64, 1, 2, 3, 10, 20_000] {
        let mut responses = client.stream(&count.to_le_bytes(), PATIENCE).expect("it is free");
        std::thread::scope(|scope| {
            let server = &mut server;
            scope.spawn(move || {
                let call = server.take(Wait::Block).expect("sound").expect("open");
                let mut stream = call.stream();
                for number in 0..count {
                    stream.send(&number.to_le_bytes()).expect("somebody reads");
                }
                stream.finish().expect("somebody reads");
            });
            for number in 0..count {
                let response = responses.next().expect("in time").expect("there are more");
                assert_eq!(response.bytes(), number.to_le_bytes());
            }
            for _ in 0..2 {
                assert!(responses.next().expect("in time").is_none());
            }
        });
    }
    assert_all_free(&service);
}

#[test]
fn a_stream_waits_for_its_reader_and_learns_that_it_is_gone() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let mut responses = client.stream(b"", PATIENCE).expect("it is free");
    let mut stream = server.try_take().expect("sound").expect("it was made").stream();
    for number in 0..2u8 {
        stream.send_timeout(&[number], Duration::ZERO).expect("there is room");
    }
    let full = Duration::from_millis(2);
    assert_eq!(stream.send_timeout(&[2], full), Err(ReplyError::Full));
    // What is read makes room when the next one is asked for.
    let first = responses.next().map(|found| found.map(|first| first.bytes().to_vec()));
    assert_eq!(first, Ok(Some(vec![0])));
    assert_eq!(stream.send_timeout(&[2], full), Err(ReplyError::Full));
    let second = responses.next().map(|found| found.map(|second| second.bytes().to_vec()));
    assert_eq!(second, Ok(Some(vec![1])));
    let too_large = ReplyError::TooLarge { need: 321, max: 320 };
    assert_eq!(stream.send(&[0; 321]), Err(too_large), "nothing was sent");
    stream.send_timeout(&[2], Duration::ZERO).expect("there is room");
    assert!(!stream.call().is_abandoned());
    drop(responses);
    assert!(stream.call().is_abandoned());
    assert_eq!(stream.send(&[3]), Err(ReplyError::Abandoned));
    drop(stream);
    drop(client.begin(b"").expect("it is free"));
    assert_all_free(&service);
}

#[test]
fn a_stream_can_end_with_a_failure_or_in_the_middle() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let text = |found: Result<Option<StreamResponse<'_, Raw>>, CallError>| {
        found.map(|found| found.map(|response| response.bytes().to_vec()))
    };
    let mut responses = client.stream(b"", PATIENCE).expect("it is free");
    let mut stream = server.try_take().expect("sound").expect("it was made").stream();
    stream.send(b"one").expect("there is room");
    stream.fail("enough").expect("there is room");
    assert_eq!(text(responses.next()), Ok(Some(b"one".to_vec())));
    assert_eq!(text(responses.next()), Err(CallError::Failed("enough".to_owned())));
    assert_eq!(text(responses.next()), Ok(None));
    drop(responses);
    let mut responses = client.stream(b"", PATIENCE).expect("it is free");
    let mut stream = server.try_take().expect("sound").expect("it was made").stream();
    stream.send(b"one").expect("there is room");
    drop(stream);
    assert_eq!(text(responses.next()), Ok(Some(b"one".to_vec())));
    assert_eq!(text(responses.next()), Err(CallError::ServerDied));
    drop(responses);
    // Without a response the call is delivered again.
    let responses = client.stream(b"", PATIENCE).expect("it is free");
    drop(server.try_take().expect("sound").expect("it was made").stream());
    let call = server.try_take().expect("sound").expect("it is there again");
    assert_eq!(call.delivery(), 2);
    drop(responses);
    drop(call);
    // One response to whoever asks for several, several to whoever asks for one, and none.
    let mut responses = client.stream(b"", PATIENCE).expect("it is free");
    server.try_take().expect("sound").expect("made").reply(b"only").expect("somebody waits");
    assert_eq!(text(responses.next()), Ok(Some(b"only".to_vec())));
    assert_eq!(text(responses.next()), Ok(None));
    drop(responses);
    let pending = client.begin(b"").expect("it is free");
    let mut stream = server.try_take().expect("sound").expect("it was made").stream();
    stream.send(b"first").expect("there is room");
    assert_eq!(pending.wait(PATIENCE).expect("answered").bytes(), b"first");
    assert_eq!(stream.send(b"second"), Err(ReplyError::Abandoned));
    drop(stream);
    let pending = client.begin(b"").expect("it is free");
    server.try_take().expect("sound").expect("made").stream().finish().expect("somebody waits");
    assert!(matches!(pending.wait(PATIENCE), Err(CallError::Failed(_))));
    drop(client.begin(b"").expect("it is free"));
    assert_all_free(&service);
}

#[test]
fn closing_ends_waiting_calls_and_servers_and_spares_what_is_worked_on() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let other = service.client().expect("there is a slot");
    let worked_on = other.begin(b"worked on").expect("it is free");
    let call = server.try_take().expect("sound").expect("it was made");
    let client = std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            assert_eq!(client.call(b"waiting", PATIENCE).err(), Some(CallError::Closed));
            client
        });
        until("the call is made", || service.info().expect("sound").waiting == 1);
        service.close();
        thread.join().expect("it does not panic")
    });
    call.reply(b"done").expect("somebody waits");
    assert_eq!(worked_on.wait(PATIENCE).expect("answered").bytes(), b"done");
    assert_eq!(client.begin(b"more").expect_err("it is closed"), CallError::Closed);
    assert!(server.take(Wait::Block).expect("sound").is_none());
    assert!(service.is_closed() && service.info().expect("sound").closed);
    assert_all_free(&service);
}

#[test]
fn typed_calls_are_built_and_read_in_place() {
    let bus = bus();
    let named = || bus.service::<tick::Owned, reading::Owned>("convert");
    let service = named().request_bytes(512).response_bytes(512).create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let mut server = service.server().expect("there is a slot");
    let thread = std::thread::spawn(move || {
        for _ in 0..1000 {
            let call = server.take(Wait::Block).expect("sound").expect("open");
            let number = call.get().expect("a tick").get_number();
            call.reply(|mut reading| reading.set_index(number + 1)).expect("somebody waits");
        }
        server.serve(|tick, mut reading| {
            let symbol = tick.get_symbol()?.to_str()?;
            if symbol.is_empty() {
                return Err(capnp::Error::failed("there is no symbol".to_owned()));
            }
            reading.set_timestamp(symbol);
            Ok(())
        })
    });
    for number in 0..1000 {
        let response = client.call(|mut tick| tick.set_number(number), PATIENCE).expect("answered");
        assert_eq!(response.get().expect("a reading").get_index(), number + 1);
    }
    // Longer than any before, and longer than what was reserved.
    for len in [1, 100, 300, 400] {
        let symbol = "x".repeat(len);
        let response =
            client.call(|mut tick| tick.set_symbol(symbol.as_str()), PATIENCE).expect("answered");
        let copy = response.to_owned_message().expect("well-formed");
        let copied = copy.get_root_as_reader().expect("a reading");
        for reading in [response.get().expect("a reading"), copied] {
            assert_eq!(reading.get_timestamp().expect("text"), symbol.as_str());
        }
    }
    let failed = client.call(|_| (), PATIENCE).expect_err("there is no symbol");
    assert!(matches!(&failed, CallError::Failed(why) if why.contains("there is no symbol")));
    let large = "x".repeat(600);
    let error = client.call(|mut tick| tick.set_symbol(large.as_str()), PATIENCE).expect_err("no");
    assert!(matches!(error, CallError::TooLarge { need, max: 512 } if need > 600), "{error}");
    let info = service.info().expect("it is sound");
    let schemas = [info.request_schema, info.response_schema].map(Option::unwrap_or_default);
    assert!(schemas[0].contains("Tick") && schemas[1].contains("Reading"), "{schemas:?}");
    service.close();
    thread.join().expect("it does not panic").expect("it is sound");
    let error = bus.service::<tick::Owned, tick::Owned>("convert").open().map(drop);
    assert_eq!(error.map_err(|error| error.kind()), Err(ErrorKind::Mismatch));
    let error = bus.service::<Raw, reading::Owned>("convert").open().map(drop).expect_err("raw");
    assert!(error.to_string().contains("requests of service convert"), "{error}");
}

#[test]
fn bytes_are_served_by_a_loop_as_well() {
    let bus = bus();
    let (service, client, mut server) = ends(&bus);
    let thread = std::thread::spawn(move || {
        server.serve(|request, space| match request.len() {
            0 => Err("nothing"),
            1 => Ok(space.len() + 1),
            len => {
                space[..len].copy_from_slice(request);
                Ok(len)
            }
        })
    });
    assert_eq!(client.call(b"echo", PATIENCE).expect("answered").bytes(), b"echo");
    let failed = client.call(b"", PATIENCE).expect_err("it fails");
    assert_eq!(failed, CallError::Failed("nothing".to_owned()));
    let failed = client.call(b"1", PATIENCE).expect_err("it claims too much").to_string();
    assert!(failed.contains("321 bytes"), "{failed}");
    service.close();
    thread.join().expect("it does not panic").expect("it is sound");
}

#[test]
fn options_that_differ_or_cannot_be_are_errors_that_say_which() {
    let bus = bus();
    let named = || bus.service::<Raw, Raw>("s");
    named().clients_max(1).servers_max(1).create().expect("it is new");
    assert_eq!(named().create().map(drop).map_err(|it| it.kind()), Err(ErrorKind::AlreadyExists));
    for (other, option) in [
        (named().request_bytes(4096), "request_bytes"),
        (named().response_bytes(4096), "response_bytes"),
        (named().calls(1), "calls"),
        (named().ahead(1), "ahead"),
        (named().repeatable(false), "max_deliveries"),
        (named().clients_max(2), "clients_max"),
        (named().servers_max(2), "servers_max"),
        (named().mode(0o660), "mode"),
    ] {
        let error = other.open().map(drop).expect_err("it is another value");
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.to_string().contains(option), "{error}");
    }
    for (wrong, option) in [
        (named().request_bytes(u32::MAX), "request_bytes"),
        (named().response_bytes(u32::MAX), "response_bytes"),
        (named().calls(65), "calls"),
        (named().ahead(0), "ahead"),
        (named().max_deliveries(256), "max_deliveries"),
        (named().clients_max(0), "clients_max"),
        (named().servers_max(1025), "servers_max"),
        (named().mode(0o777), "mode"),
    ] {
        let error = wrong.open().map(drop).expect_err("it is outside its range");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains(option), "{error}");
    }
    let service = named().request_bytes(1000).response_bytes(1024).open().expect("rounded");
    let (client, server) = (service.client().expect("a slot"), service.server().expect("a slot"));
    let error = service.client().map(drop).expect_err("there is one slot");
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("clients_max"));
    let error = service.server().map(drop).expect_err("there is one slot");
    assert!(error.kind() == ErrorKind::Limit && error.to_string().contains("servers_max"));
    assert_eq!((client.request_bytes_max(), server.response_bytes_max()), (1024, 1024));
    drop((client, server));
    service.client().expect("it is free");
    service.server().expect("it is free");
    assert_eq!(bus.services().expect("sound"), ["s"]);
    assert_eq!(bus.inspect_service("s").expect("sound").ahead, 4);
    bus.remove_service("s").expect("it is there");
    let gone = bus.inspect_service("s").map(drop).map_err(|error| error.kind());
    assert_eq!(gone, Err(ErrorKind::NotFound));
    let gone = named().open_existing().map(drop).map_err(|error| error.kind());
    assert_eq!(gone, Err(ErrorKind::NotFound));
}

#[test]
fn what_a_stream_left_is_not_taken_for_a_response_when_its_turn_comes_again() {
    let bus = bus();
    let (_service, client, mut server) = ends(&bus);
    let mut stream_of = |sent: u8, ends: bool| {
        let mut responses = client.stream(&[sent], Duration::ZERO).expect("it is free");
        let mut stream = server.try_take().expect("sound").expect("it was made").stream();
        for index in 0..sent {
            stream.send(&[sent, index]).expect("there is room");
            let response = responses.next().expect("in time").expect("it was sent");
            assert_eq!(response.bytes(), [sent, index]);
        }
        if ends {
            stream.finish().expect("somebody reads");
        }
        responses.next().map(|response| response.map(|response| response.bytes().to_vec()))
    };
    assert_eq!(stream_of(2, true), Ok(None));
    // Turns have sixteen bits.
    for _ in 1..1 << 16 {
        assert_eq!(stream_of(0, true), Ok(None));
    }
    assert_eq!(stream_of(1, false), Err(CallError::Timeout), "the second one is not there");
}

/// Holds everything, forks a child that tries everything and drops it, and goes on. Says `whole`.
fn parent(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let (service, client, mut server) = ends(&bus);
    let pending = client.begin(b"one").expect("it is free");
    let call = server.try_take().expect("sound").expect("it was made");
    let other = client.begin(b"two").expect("it is free");
    let before = format!("{:?}", service.info().expect("sound"));
    let mut held = Some((pending, call, other));
    let child = fork_and(|| {
        // Taken from the copy of the child only, and dropped there.
        let (pending, call, other) = held.take().expect("it was filled above");
        assert_eq!(client.begin(b"child").expect_err("inherited"), CallError::Forked);
        assert_eq!(pending.wait(PATIENCE).err(), Some(CallError::Forked));
        assert_eq!(call.reply(b"child"), Err(ReplyError::Forked));
        drop(other);
        assert_eq!(service.client().map(drop).map_err(|it| it.kind()), Err(ErrorKind::Forked));
        assert_eq!(service.server().map(drop).map_err(|it| it.kind()), Err(ErrorKind::Forked));
        service.close();
        0
    });
    assert_eq!(waitpid(child, None).expect("it is ours"), WaitStatus::Exited(child, 0));
    let (pending, call, other) = held.expect("the child took its copy");
    assert_eq!(format!("{:?}", service.info().expect("sound")), before);
    call.reply(b"parent").expect("somebody waits");
    assert_eq!(pending.wait(PATIENCE).expect("answered").bytes(), b"parent");
    let child = fork_and(|| {
        let taken = server.try_take().map(drop);
        i32::from(taken != Err(ServeError::Forked))
    });
    assert_eq!(waitpid(child, None).expect("it is ours"), WaitStatus::Exited(child, 0));
    drop(other);
    assert_all_free(&service);
    line.say("whole");
}

#[test]
fn inherited_clients_and_servers_say_so_and_change_nothing() {
    let stage = Stage::processes();
    let mut actor = stage.start("calls.parent", "");
    actor.hear("whole");
    actor.finish();
}
