//! Request and response between threads and processes, whoever is killed or stopped: every call has one answer, to its
//! own request, or an error that says why not.

use super::process::{scaled, until, Actor, Den, Line, Role, Scene, Stage};
use std::time::{Duration, Instant};
use windlass::{Bus, CallError, Raw, ReplyError, ServeError, Service, ServiceBuilder, Wait};

pub const ROLES: &[(&str, Role)] = &[
    ("service.serve", serve),
    ("service.call", call),
    ("service.hold", hold),
    ("service.wait", wait),
    ("service.call_for_ever", call_for_ever),
];

/// Long enough for whoever is not held up.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Longest time until others notice a death.
const RECOVERY_MAX: Duration = Duration::from_secs(2);

pub fn small(bus: &Bus) -> ServiceBuilder<Raw, Raw> {
    bus.service("s").request_bytes(256).response_bytes(300).calls(4).ahead(2).max_deliveries(200)
}

pub fn open(bus: &Bus) -> Service<Raw, Raw> {
    bus.service("s").open_existing().expect("the test created it")
}

/// Request `number` of client `id`: of a size and with a pattern of its own.
pub fn request(id: u64, number: u64) -> Vec<u8> {
    let mut bytes = vec![(id * 31 + number) as u8; 16 + (number * 7 % 200) as usize];
    bytes[..8].copy_from_slice(&id.to_le_bytes());
    bytes[8..16].copy_from_slice(&number.to_le_bytes());
    bytes
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The answer of server `id` to a request, which must be whole: it, and who answered.
pub fn response(request_bytes: &[u8], id: u64) -> Vec<u8> {
    let (client, number) = (word(request_bytes, 0), word(request_bytes, 8));
    assert_eq!(request_bytes, request(client, number), "a request is torn");
    let mut bytes = id.to_le_bytes().to_vec();
    bytes.extend_from_slice(request_bytes);
    bytes
}

/// Who answered, if it is the whole answer to that request.
pub fn check(response_bytes: &[u8], id: u64, number: u64) -> u64 {
    assert_eq!(response_bytes[8..], request(id, number), "the answer to another request");
    word(response_bytes, 0)
}

/// Serves until the service is closed: some calls are given back at first, some get no answer but a reason, some are
/// answered by streams. Says `ready`, and `done COUNT`.
fn serve(scene: &Scene, line: &mut Line) {
    let mut server = open(&scene.bus()).server().expect("there is a slot");
    let id = scene.number("id");
    let wait = match scene.text("wait") {
        "spin" => Wait::Spin,
        "yield" => Wait::Yield,
        _ => Wait::Block,
    };
    line.say("ready");
    let mut count = 0;
    while let Some(call) = server.take(wait).expect("it is sound") {
        let (number, answer) = (word(call.bytes(), 8), response(call.bytes(), id));
        count += 1;
        let answered = match number % 50 {
            1 if call.delivery() == 1 => {
                drop(call);
                Ok(())
            }
            2 => call.fail(format_args!("no {number}")),
            3 => {
                let mut stream = call.stream();
                let sent = (0..5).try_for_each(|_| stream.send(&answer));
                sent.and_then(|()| stream.finish())
            }
            4 => call.reply_with(answer.len(), |space| space.copy_from_slice(&answer)),
            _ => call.reply(&answer),
        };
        // Its caller may be killed.
        assert!(matches!(answered, Ok(()) | Err(ReplyError::Abandoned)), "{answered:?}");
    }
    line.say(format_args!("done {count}"));
}

/// Makes so many calls, some of them at a time, and checks every answer. Says `done`.
fn call(scene: &Scene, line: &mut Line) {
    let client = open(&scene.bus()).client().expect("there is a slot");
    let (id, count) = (scene.number("id"), scene.number("count"));
    let mut servers = [0u64; 8];
    let mut number = 0;
    while number < count {
        if number % 50 == 3 {
            let mut stream = client.stream(&request(id, number), PATIENCE).expect("a free call");
            for _ in 0..5 {
                let response = stream.next().expect("in time").expect("there are five");
                check(response.bytes(), id, number);
            }
            assert!(stream.next().expect("in time").is_none());
            number += 1;
            continue;
        }
        let batch: Vec<u64> = (number..count.min(number + 1 + number % 4))
            .take_while(|next| next % 50 != 3)
            .collect();
        number += batch.len() as u64;
        let begin = |next: &u64| client.begin(&request(id, *next)).expect("there is a free call");
        let pending: Vec<_> = batch.iter().map(begin).collect();
        // The last one first: answers are told apart.
        for (next, pending) in batch.iter().zip(pending).rev() {
            match pending.wait(PATIENCE) {
                Ok(response) => servers[check(response.bytes(), id, *next) as usize] += 1,
                Err(CallError::Failed(why)) => assert_eq!(why, format!("no {next}")),
                Err(error) => panic!("call {next}: {error}"),
            }
        }
    }
    line.say(format_args!("done {servers:?}"));
}

/// All calls are free, or will be once their owner has collected them.
pub fn assert_all_free(service: &Service<Raw, Raw>) {
    let info = service.info().expect("it is sound");
    let left = [info.waiting, info.in_progress, info.answered, info.lingering, info.dead];
    assert_eq!(left, [0; 5], "{info:?}");
}

fn all_to_all(stage: &Stage, clients: u64, waits: &[&str]) {
    let service = small(&stage.bus()).create().expect("it is new");
    let count = scaled(2000);
    let mut servers: Vec<_> = (0..waits.len())
        .map(|id| stage.start("service.serve", &format!("id={id} wait={}", waits[id])))
        .collect();
    servers.iter_mut().for_each(|server| drop(server.hear("ready")));
    let mut callers: Vec<_> = (0..clients)
        .map(|id| stage.start("service.call", &format!("id={id} count={count}")))
        .collect();
    callers.iter_mut().for_each(|caller| drop(caller.hear("done")));
    service.close();
    let counts: Vec<u64> = servers.iter_mut().map(|server| server.hear_number("done")).collect();
    callers.into_iter().chain(servers).for_each(Actor::finish);
    let info = service.info().expect("it is sound");
    assert_eq!(info.made, clients * count, "{info:?}");
    assert_eq!(counts.iter().sum::<u64>(), info.made + info.redelivered, "{info:?}");
    assert_eq!((info.died, info.abandoned), (0, 0), "{info:?}");
    assert_all_free(&service);
}

#[test]
fn every_call_of_three_threads_is_answered_once_by_one_of_three() {
    all_to_all(&Stage::threads(), 3, &["yield", "yield", "block"]);
}

#[test]
fn every_call_of_three_processes_is_answered_once_by_one_of_three() {
    all_to_all(&Stage::processes(), 3, &["block", "yield", "block"]);
}

/// Takes a call, sends so many responses to it, and has it from then on. Says `held NODE`; then, for each word that it
/// hears, how an attempt to answer it ends.
fn hold(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let mut server = open(&bus).server().expect("there is a slot");
    let held = server.take(Wait::Block).expect("it is sound").expect("it is open");
    let answer = response(held.bytes(), 7);
    let count = scene.number("stream");
    if count == 0 {
        line.say(format_args!("held {}", bus.node()));
        line.hear();
        line.say(format_args!("abandoned {}", held.is_abandoned()));
        line.hear();
        line.say(format_args!("replied {:?}", held.reply(&answer)));
    } else {
        let mut stream = held.stream();
        for _ in 0..count {
            stream.send(&answer).expect("there is room");
        }
        line.say(format_args!("held {}", bus.node()));
        while line.hear().is_some() {
            line.say(format_args!("sent {:?}", stream.send_timeout(&answer, Duration::ZERO)));
        }
    }
    line.stay();
}

#[test]
fn a_call_of_a_killed_server_is_answered_by_another_one_which_is_told() {
    let den = Den::new();
    let service = small(&den.bus()).create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let pending = client.begin(&request(1, 2)).expect("there is a free call");
    let mut holder = Actor::process(&den, "service.hold", "stream=0");
    let node = holder.hear_number("held") as u32;
    let info = service.info().expect("it is sound");
    assert_eq!((info.waiting, info.in_progress), (0, 1), "{info:?}");
    assert!(info.servers.iter().any(|server| (server.node, server.calls) == (node, 1)));
    let mut server = service.server().expect("there is a slot");
    // A stopped one keeps what it has.
    holder.stop();
    let nothing = server.take(Wait::For(Duration::from_millis(100)));
    assert_eq!(nothing.err(), Some(ServeError::TimedOut));
    holder.kill();
    let killed = Instant::now();
    let call = server.take(Wait::Block).expect("it is sound").expect("it is open");
    assert!(killed.elapsed() < RECOVERY_MAX, "{:?}", killed.elapsed());
    assert_eq!((call.delivery(), call.is_abandoned()), (2, false));
    call.reply(&response(&request(1, 2), 3)).expect("somebody waits");
    let response = pending.wait(PATIENCE).expect("it was answered");
    assert_eq!(check(response.bytes(), 1, 2), 3);
    drop(response);
    assert_all_free(&service);
}

#[test]
fn a_waiting_client_heals_if_nobody_else_does() {
    let den = Den::new();
    let service = small(&den.bus()).repeatable(false).create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let mut holder = Actor::process(&den, "service.hold", "stream=0");
    let pending = client.begin(&request(1, 2)).expect("there is a free call");
    holder.hear("held");
    holder.kill();
    let killed = Instant::now();
    assert_eq!(pending.wait(PATIENCE).err(), Some(CallError::ServerDied));
    assert!(killed.elapsed() < RECOVERY_MAX, "{:?}", killed.elapsed());
    assert_eq!(service.info().expect("it is sound").died, 1);
    assert_all_free(&service);
}

#[test]
fn a_call_that_must_not_be_repeated_ends_with_its_server() {
    let den = Den::new();
    let service = small(&den.bus()).repeatable(false).create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let mut pending = client.begin(&request(1, 2)).expect("there is a free call");
    let mut holder = Actor::process(&den, "service.hold", "stream=0");
    holder.hear("held");
    let mut server = service.server().expect("there is a slot");
    holder.kill();
    let nothing = server.take(Wait::For(Duration::from_millis(100)));
    assert_eq!(nothing.err(), Some(ServeError::TimedOut), "it is not delivered again");
    assert_eq!(pending.try_response().err(), None, "a look at the response alone");
    assert_eq!(pending.wait(PATIENCE).err(), Some(CallError::ServerDied));
    assert_all_free(&service);
}

#[test]
fn of_a_stream_the_client_reads_what_was_committed_and_then_learns_of_the_death() {
    for polls in [false, true] {
        let den = Den::new();
        let service = small(&den.bus()).create().expect("it is new");
        let client = service.client().expect("there is a slot");
        let mut other = service.server().expect("there is a slot");
        let mut holder = Actor::process(&den, "service.hold", "stream=2");
        let mut stream = client.stream(&request(4, 5), PATIENCE).expect("there is a free call");
        holder.hear("held");
        // It is as far ahead as it may be.
        holder.say("send");
        assert_eq!(holder.hear("sent"), "Err(Full)");
        let first = stream.next().expect("in time").expect("there are two");
        assert_eq!(check(first.bytes(), 4, 5), 7);
        holder.kill();
        if polls {
            let nothing = other.take(Wait::For(Duration::from_millis(100)));
            assert_eq!(nothing.err(), Some(ServeError::TimedOut), "it has begun");
        }
        let second = stream.next().expect("in time").expect("there are two");
        assert_eq!(check(second.bytes(), 4, 5), 7);
        for _ in 0..2 {
            assert_eq!(stream.next().err(), Some(CallError::ServerDied));
        }
        drop(stream);
        assert_all_free(&service);
    }
}

/// Begins so many calls, and has them from then on. Says `begun`.
fn wait(scene: &Scene, line: &mut Line) {
    let client = open(&scene.bus()).client().expect("there is a slot");
    let begin = |number| client.begin(&request(9, number)).expect("there is a free call");
    let pending: Vec<_> = (0..scene.number("count")).map(begin).collect();
    line.say(format_args!("begun {}", pending.len()));
    line.stay();
}

#[test]
fn a_server_learns_that_its_caller_was_killed_and_others_free_its_calls() {
    let den = Den::new();
    let bus = den.bus();
    let service = small(&bus).create().expect("it is new");
    let mut caller = Actor::process(&den, "service.wait", "count=4");
    caller.hear("begun");
    let mut server = service.server().expect("there is a slot");
    let call = server.try_take().expect("it is sound").expect("it was made");
    assert!(!call.is_abandoned());
    caller.stop();
    assert!(!call.is_abandoned(), "a stopped caller is alive");
    caller.kill();
    assert!(call.is_abandoned());
    let answer = response(call.bytes(), 1);
    // Nobody sleeps and nobody has taken the lane: this answer does not ask the kernel.
    assert_eq!(call.reply(&answer), Ok(()));
    let info = service.info().expect("it is sound");
    assert_eq!((info.waiting, info.answered), (3, 1), "{info:?}");
    let report = bus.repair().expect("it is sound");
    assert_eq!((report.chunks, report.subscribers, report.nodes), (4, 1, 1), "{report:?}");
    assert!(server.try_take().expect("it is sound").is_none(), "they are free");
    assert_eq!(service.info().expect("it is sound").abandoned, 4);
    assert_all_free(&service);
}

#[test]
fn an_answer_to_a_caller_that_was_killed_asleep_says_so() {
    let den = Den::new();
    let service = small(&den.bus()).create().expect("it is new");
    let mut server = service.server().expect("there is a slot");
    let mut caller = Actor::process(&den, "service.call", "id=1 count=1");
    let call = server.take(Wait::Block).expect("it is sound").expect("it is open");
    let answer = response(call.bytes(), 1);
    until_asleep(&mut caller);
    caller.kill();
    assert_eq!(call.reply(&answer), Err(ReplyError::Abandoned));
}

/// Polls until that process sleeps.
fn until_asleep(process: &mut Actor) {
    let folder = format!("/proc/{}", process.pid());
    until("the process sleeps", || {
        let stat = std::fs::read_to_string(format!("{folder}/task/{}/stat", thread_of(&folder)));
        stat.is_ok_and(|stat| stat.contains(") S "))
    });
}

#[test]
fn whoever_sleeps_is_woken_by_the_other_side() {
    let den = Den::new();
    let service = small(&den.bus()).create().expect("it is new");
    let wakes = || service.info().expect("it is sound").wakes;
    // Somebody who looks again by itself just then needs nobody: another attempt.
    let client = service.client().expect("there is a slot");
    let mut other = Actor::process(&den, "service.serve", "id=1 wait=block");
    other.hear("ready");
    until("a client has woken a server", || {
        until_asleep(&mut other);
        let before = wakes();
        let pending = client.begin(&request(1, 5)).expect("it is free");
        let woke = wakes() > before;
        check(pending.wait(PATIENCE).expect("in time").bytes(), 1, 5);
        woke
    });
    other.kill();
    let mut server = service.server().expect("there is a slot");
    let mut other = Actor::process(&den, "service.call_for_ever", "id=2");
    until("a server has woken a client", || {
        let call = server.take(Wait::Block).expect("it is sound").expect("it is open");
        until_asleep(&mut other);
        let (before, answer) = (wakes(), response(call.bytes(), 3));
        call.reply(&answer).expect("somebody waits");
        wakes() > before
    });
    other.kill();
}

/// The thread of a process that plays a role: the last one that it started.
fn thread_of(process: &str) -> String {
    let tasks = std::fs::read_dir(format!("{process}/task")).expect("it lives");
    let numbers = tasks.map(|task| task.expect("it lives").file_name());
    let number = |name: std::ffi::OsString| name.to_string_lossy().parse::<u64>().expect("number");
    numbers.map(number).max().expect("it has a thread").to_string()
}

#[test]
fn the_next_client_collects_what_a_killed_one_left() {
    let den = Den::new();
    let service = small(&den.bus()).clients_max(1).create().expect("it is new");
    let mut caller = Actor::process(&den, "service.wait", "count=4");
    caller.hear("begun");
    let mut server = service.server().expect("there is a slot");
    assert!(service.client().is_err(), "there is one slot");
    let held = server.try_take().expect("it is sound").expect("it was made");
    caller.kill();
    let client = service.client().expect("the slot of the dead");
    assert_eq!(client.slot(), 0);
    let info = service.info().expect("it is sound");
    assert_eq!((info.waiting, info.lingering), (0, 1), "{info:?}");
    assert!(held.is_abandoned());
    // Three of the four calls can be used at once, and the fourth when its server is done.
    let begin = |number| client.begin(&request(2, number));
    let pending: Vec<_> = (0..3).map(|number| begin(number).expect("it is free")).collect();
    let lingers = matches!(begin(3), Err(CallError::Busy { calls: 4, lingering: 1, .. }));
    assert!(lingers, "a server works on the fourth");
    assert_eq!(held.reply(b"late"), Err(ReplyError::Abandoned));
    drop(begin(3).expect("it is free"));
    drop(pending);
    assert_all_free(&service);
}

#[test]
fn a_server_that_is_stopped_keeps_its_call_and_the_client_goes_on_without_it() {
    let den = Den::new();
    let service = small(&den.bus()).calls(2).create().expect("it is new");
    let client = service.client().expect("there is a slot");
    let mut holders = [0; 2].map(|_| {
        let pending = client.begin(&request(1, 1)).expect("there is a free call");
        let mut holder = Actor::process(&den, "service.hold", "stream=0");
        let node = holder.hear_number("held");
        holder.stop();
        let late = pending.wait(Duration::from_millis(30));
        assert_eq!(late.err(), Some(CallError::Timeout));
        (holder, node)
    });
    let pid = holders[0].0.pid();
    match client.begin(&request(1, 2)) {
        Err(CallError::Busy { calls: 2, lingering: 2, server: Some((node, Some(process))) }) => {
            assert_eq!((u64::from(node), process), (holders[0].1, pid));
        }
        other => panic!("{other:?}"),
    }
    // One goes on, and is told; the other is killed.
    let [(first, _), (second, _)] = &mut holders;
    first.go_on();
    first.say("asked?");
    assert_eq!(first.hear("abandoned"), "true");
    first.say("reply");
    assert_eq!(first.hear("replied"), "Err(Abandoned)");
    second.kill();
    let pending: Vec<_> =
        (2..4).map(|number| client.begin(&request(1, number)).expect("it is free")).collect();
    drop(pending);
    drop(client);
    assert_all_free(&service);
    assert_eq!(service.info().expect("it is sound").abandoned, 4);
}

/// Calls for as long as it lives, and says so now and then.
fn call_for_ever(scene: &Scene, line: &mut Line) {
    let client = open(&scene.bus()).client().expect("there is a slot");
    let id = scene.number("id");
    for number in 0u64.. {
        match client.call(&request(id, number), PATIENCE) {
            Ok(response) => drop(check(response.bytes(), id, number)),
            Err(CallError::Failed(why)) => assert_eq!(why, format!("no {number}")),
            // A stream that its server did not end.
            Err(CallError::ServerDied) if number % 50 == 3 => {}
            Err(error) => panic!("call {number}: {error}"),
        }
        if number % 10 == 9 {
            line.say("called");
        }
    }
}

#[test]
fn whoever_is_killed_holds_nobody_up_and_leaves_nothing() {
    let (den, kills) = (Den::new(), scaled(20));
    let bus = den.bus();
    let service = small(&bus).clients_max(3).servers_max(3).create().expect("it is new");
    let start = |id: u64| {
        let server = Actor::process(&den, "service.serve", &format!("id={} wait=block", id % 8));
        let client = Actor::process(&den, "service.call_for_ever", &format!("id={id}"));
        let mut pair = [server, client];
        pair[0].hear("ready");
        pair
    };
    let mut next = start(0);
    for kill in 0..kills {
        let mut victims = std::mem::replace(&mut next, start(kill + 1));
        (0..5).for_each(|_| drop(next[1].hear("called")));
        if kill % 3 == 0 {
            // Whoever is stopped keeps what it has: nobody waits for it here.
            victims.iter_mut().for_each(Actor::stop);
        }
        victims.iter_mut().for_each(Actor::kill);
        // Without them, and with what they had.
        (0..5).for_each(|_| drop(next[1].hear("called")));
    }
    next.iter_mut().for_each(Actor::kill);
    bus.repair().expect("it is sound");
    assert_all_free(&service);
    assert_eq!(bus.repair().expect("it is sound"), Default::default(), "nothing is left");
    let info = service.info().expect("it is sound");
    assert!(info.clients.is_empty() && info.servers.is_empty(), "{info:?}");
}
