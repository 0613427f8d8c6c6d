//! A service, with a process killed or stopped at each of its points.

use crate::figures::{show, Times};
use crate::place::Place;
use crate::points;
use crate::process::{say, Event, Fate, Process};
use crate::role;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};
use windlass::{Bus, CallError, Client, Pending, Raw, RepairReport, ReplyError, ServeError};
use windlass::{Server, Service, Wait};

/// What the points of a service begin with.
pub const POINTS: &[&str] = &["call.", "service."];
/// The roles of the victims: one that does everything, one that answers, one that heals, and one that waits.
pub const ROLES: &[&str] = &["service.all", "service.answer", "service.heal", "service.wait"];

/// Requests of survivors begin here, beside a stopped victim and after its end; that of the harness is the last one.
const BESIDE: u64 = 1000;
const AFTER: u64 = 2000;
const OURS: u64 = 3000;
/// Calls that a survivor makes.
const CALLS: u64 = 16;
/// Rounds of the victim.
const ROUNDS: u64 = 3;
/// Survivors go on within this time.
const RECOVERY_MAX: Duration = Duration::from_millis(100);
/// How often a run that took longer is repeated: what is slow every time is not the machine's doing.
const REPEATS: usize = 4;
/// Longest silence of a victim, and longest wait of a survivor.
const SILENCE_MAX: Duration = Duration::from_secs(30);

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;
type Echo = Service<Raw, Raw>;

fn service(bus: &Bus) -> windlass::Result<Echo> {
    let named = bus.service("s").request_bytes(64).response_bytes(56).calls(2).ahead(2);
    named.clients_max(8).servers_max(8).max_deliveries(100).open()
}

fn number_of(bytes: &[u8]) -> Outcome<u64> {
    Ok(u64::from_le_bytes(bytes.try_into()?))
}

/// Answers a call if there is one.
fn answer(server: &mut Server<Raw, Raw>, mut note: impl FnMut(u64, u32)) -> Outcome<bool> {
    let Some(call) = server.try_take()? else { return Ok(false) };
    let number = number_of(call.bytes())?;
    note(number, call.delivery());
    match call.reply(&number.to_le_bytes()) {
        // Its caller is dead, or has given it up.
        Ok(()) | Err(ReplyError::Abandoned) => Ok(true),
        Err(error) => Err(error.into()),
    }
}

fn tell(number: u64, delivery: u32) {
    say(&format!("answering {number} {delivery}"));
}

/// Answers calls until the answer to this one is there.
fn receive(
    mut pending: Pending<'_, Raw>,
    number: u64,
    server: &mut Server<Raw, Raw>,
    mut note: impl FnMut(u64, u32),
) -> Outcome {
    let end = Instant::now() + SILENCE_MAX;
    while Instant::now() < end {
        if let Some(response) = pending.try_response()? {
            let got = number_of(response.bytes())?;
            return if got == number { Ok(()) } else { Err(format!("{got} for {number}").into()) };
        }
        answer(server, &mut note)?;
    }
    Err(format!("nobody answers {number}").into())
}

/// Plays one of the roles.
pub fn play(path: &Path, role: &str) -> Outcome {
    let bus = role::bus(path)?;
    let service = service(&bus)?;
    match role {
        "service.all" => everything(&bus, &service),
        "service.answer" => {
            let mut server = service.server()?;
            let end = Instant::now() + SILENCE_MAX;
            while !answer(&mut server, tell)? && Instant::now() < end {}
            Ok(())
        }
        "service.heal" => {
            bus.repair()?;
            Ok(())
        }
        "service.wait" => {
            let mut server = service.server()?;
            let call = server.take(Wait::For(SILENCE_MAX))?.ok_or("the service was closed")?;
            let number = number_of(call.bytes())?;
            tell(number, call.delivery());
            match call.reply(&number.to_le_bytes()) {
                Ok(()) | Err(ReplyError::Abandoned) => Ok(()),
                Err(error) => Err(error.into()),
            }
        }
        role => Err(format!("there is no role {role}").into()),
    }
}

/// Everything that can be done with a service by somebody who is both sides of it.
fn everything(bus: &Bus, service: &Echo) -> Outcome {
    let (client, mut server) = (service.client()?, service.server()?);
    // No other process has these numbers.
    let mine = u64::from(std::process::id()) << 16;
    for round in 0..ROUNDS {
        let first = mine + round * 16;
        // Two at a time, the first of them given back once.
        let numbers = [first, first + 1];
        let pending =
            [client.begin(&numbers[0].to_le_bytes())?, client.begin(&numbers[1].to_le_bytes())?];
        if let Some(call) = server.try_take()? {
            tell(number_of(call.bytes())?, call.delivery());
        }
        for (pending, number) in pending.into_iter().zip(numbers) {
            receive(pending, number, &mut server, tell)?;
        }
        // Given up before and after a server has it.
        drop(client.begin(&(first + 2).to_le_bytes())?);
        give_up(&client, &mut server, first + 3)?;
        stream(&client, &mut server, first + 4)?;
        match server.take(Wait::For(Duration::from_millis(8))) {
            Err(ServeError::TimedOut) => {}
            Ok(Some(call)) => tell(number_of(call.bytes())?, call.delivery()),
            other => return Err(format!("{:?}", other.map(|_| ())).into()),
        }
    }
    let other = bus.service::<Raw, Raw>("other").clients_max(1).servers_max(1).open()?;
    drop(other.client()?);
    other.close();
    bus.remove_service("other")?;
    Ok(())
}

/// A call that its client gives up while its server has it.
fn give_up(client: &Client<Raw, Raw>, server: &mut Server<Raw, Raw>, number: u64) -> Outcome {
    let pending = client.begin(&number.to_le_bytes())?;
    let taken = server.try_take()?;
    drop(pending);
    let Some(call) = taken else { return Ok(()) };
    tell(number_of(call.bytes())?, call.delivery());
    match call.reply(&number.to_le_bytes()) {
        Ok(()) | Err(ReplyError::Abandoned) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// A stream of three responses, of which the server is two ahead; unless others have answered while we were stopped.
fn stream(client: &Client<Raw, Raw>, server: &mut Server<Raw, Raw>, number: u64) -> Outcome {
    let bytes = number.to_le_bytes();
    let mut responses = client.stream(&bytes, SILENCE_MAX)?;
    if let Some(call) = server.try_take()? {
        if call.bytes() != bytes {
            return Err("somebody else's call".into());
        }
        tell(number, call.delivery());
        let mut stream = call.stream();
        stream.send(&bytes)?;
        stream.send(&bytes)?;
        // One is read, and the next one asked for: there is room for the third, and then for the end.
        for _ in 0..2 {
            responses.next()?.ok_or("a response is missing")?;
        }
        stream.send(&bytes)?;
        responses.next()?.ok_or("a response is missing")?;
        stream.finish()?;
    }
    while let Some(response) = responses.next()? {
        if response.bytes() != bytes {
            return Err("a response of another call".into());
        }
    }
    Ok(())
}

/// Which deliveries were answered, and what went wrong.
#[derive(Debug, Default)]
struct Books {
    answered: BTreeSet<(u64, u32)>,
    faults: Vec<String>,
}

impl Books {
    fn fault(&mut self, fault: impl Into<String>) {
        self.faults.push(fault.into());
    }

    fn note(&mut self, number: u64, delivery: u32) {
        if !self.answered.insert((number, delivery)) {
            self.fault(format!("delivery {delivery} of {number} came twice"));
        }
    }

    fn heard(&mut self, line: &str) {
        let mut words = line.split(' ');
        let word = words.next();
        let mut number = || words.next().and_then(|word| word.parse().ok());
        match (word, number(), number()) {
            (Some("answering"), Some(number), Some(delivery)) => {
                self.note(number, delivery as u32);
            }
            (Some("done"), None, None) => {}
            _ => self.fault(format!("somebody says: {line}")),
        }
    }

    /// The call of the harness is answered, if it made one.
    fn receive_ours(&mut self, service: &Echo, ours: Option<Pending<'_, Raw>>) -> Outcome {
        let Some(pending) = ours else { return Ok(()) };
        let mut server = service.server()?;
        receive(pending, OURS, &mut server, |number, delivery| self.note(number, delivery))
    }

    /// A survivor calls and answers until its own calls are answered: how long that took.
    fn go_on(&mut self, service: &Echo, from: u64) -> Outcome<Duration> {
        let (client, mut server) = (service.client()?, service.server()?);
        let began = Instant::now();
        for number in from..from + CALLS {
            let pending = client.begin(&number.to_le_bytes())?;
            receive(pending, number, &mut server, |number, delivery| self.note(number, delivery))?;
        }
        let time = began.elapsed();
        while answer(&mut server, |number, delivery| self.note(number, delivery))? {}
        Ok(time)
    }
}

#[derive(Debug, Default)]
struct Run {
    reached: bool,
    recovery: Duration,
    hits: BTreeMap<String, u32>,
    faults: Vec<String>,
}

/// Listens to a process until it ends or stops. Whether it was killed or stopped.
fn follow(
    process: &mut Process,
    books: &mut Books,
    hits: &mut BTreeMap<String, u32>,
) -> (bool, bool) {
    loop {
        match process.next(SILENCE_MAX) {
            None => {
                books.fault(format!("a process does nothing: {}", process.describe()));
                return (false, false);
            }
            Some(Event::Said(line)) => books.heard(&line),
            Some(Event::Logged(line)) => {
                if let Some(step) = line.strip_prefix("step ") {
                    *hits.entry(step.into()).or_default() += 1;
                }
            }
            Some(Event::Stopped) => return (false, true),
            Some(Event::Ended(status, _)) => {
                let killed = matches!(status, WaitStatus::Signaled(_, Signal::SIGKILL, _));
                let well = matches!(status, WaitStatus::Exited(_, 0));
                if !killed && !well {
                    books.fault(format!("a process ended with {status:?}"));
                }
                return (killed, false);
            }
        }
    }
}

/// A process that is killed, or stopped for the time being, before the victim begins: its role, and where.
type Primer = (&'static str, &'static str, bool);

/// What the victim does, and what others did before.
#[derive(Debug)]
struct Scenario {
    role: &'static str,
    primers: &'static [Primer],
}

const SCENARIOS: &[Scenario] = &[
    Scenario { role: "service.all", primers: &[] },
    // A call of a dead client that is ready, one that a dead server has, and one of ours that a dead server has.
    Scenario {
        role: "service.heal",
        primers: &[
            ("service.answer", "call.answer", true),
            ("service.all", "call.enter", true),
            ("service.all", "call.answer", true),
            ("service.all", "call.end", true),
        ],
    },
    // Somebody alive has made a call and not entered it.
    Scenario { role: "service.wait", primers: &[("service.all", "call.enter", false)] },
];

fn run_one(scenario: &Scenario, fate: &Fate) -> Outcome<Run> {
    let (place, mut books, mut run) = (Place::new(), Books::default(), Run::default());
    let bus = role::bus(&place.bus())?;
    let service = service(&bus)?;
    let client = service.client()?;
    let (mut ignored, mut sleepers) = (BTreeMap::new(), Vec::new());
    // Of ours: only where somebody dies with it before anybody else could answer it.
    let heals = scenario.role == "service.heal";
    let ours = heals.then(|| client.begin(&OURS.to_le_bytes())).transpose()?;
    for (role, step, kills) in scenario.primers {
        let fate = match kills {
            true => Fate::Kill((*step).into(), 1),
            false => Fate::Stop((*step).into(), 1),
        };
        let mut primer = Process::spawn(role, &place.bus(), "", 0, &fate);
        if follow(&mut primer, &mut books, &mut ignored) == (false, false) {
            books.fault(format!("a primer did not come by {step}"));
        }
        sleepers.extend((!kills).then_some(primer));
    }
    let mut victim = Process::spawn(scenario.role, &place.bus(), "", 0, fate);
    loop {
        let (killed, stopped) = follow(&mut victim, &mut books, &mut run.hits);
        run.reached |= killed || stopped;
        if !stopped {
            break;
        }
        run.recovery = run.recovery.max(books.go_on(&service, BESIDE)?);
        victim.signal(Signal::SIGCONT);
    }
    // At once, before anybody but the survivor looks.
    run.recovery = run.recovery.max(books.go_on(&service, AFTER)?);
    for mut sleeper in sleepers {
        sleeper.signal(Signal::SIGCONT);
        follow(&mut sleeper, &mut books, &mut ignored);
    }
    books.receive_ours(&service, ours)?;
    drop(client);
    bus.repair()?;
    let info = service.info()?;
    let left = [info.waiting, info.in_progress, info.answered, info.lingering, info.dead];
    if left != [0; 5] || !info.clients.is_empty() || !info.servers.is_empty() {
        books.fault(format!("something is left: {info:?}"));
    }
    if bus.services()?.iter().any(|name| name == "other") {
        bus.remove_service("other")?;
        bus.repair()?;
    }
    let report = bus.repair()?;
    if report != RepairReport::default() {
        books.fault(format!("a second repair found {report:?}"));
    }
    // All lanes can be used at once.
    let clients: Vec<_> = (0..8).map(|_| service.client()).collect::<Result<_, _>>()?;
    for client in &clients {
        let pending = [client.begin(b"12345678")?, client.begin(b"12345678")?];
        if !matches!(client.begin(b"12345678"), Err(CallError::Busy { .. })) {
            books.fault("a third call of two");
        }
        drop(pending);
    }
    run.faults = books.faults;
    Ok(run)
}

/// Runs every point in every scenario at its first, middle and last pass, with a death and with a stop.
pub fn run() -> Outcome {
    let of_services = |point: &String| POINTS.iter().any(|begin| point.starts_with(begin));
    let points: BTreeSet<String> = points::all().into_iter().filter(of_services).collect();
    let (mut killed, mut stopped) = (BTreeSet::new(), BTreeSet::new());
    let (mut times, mut faults, mut slow) = (Times::default(), 0, Vec::new());
    for scenario in SCENARIOS {
        let hits = run_one(scenario, &Fate::Live)?.hits;
        for (step, last) in hits.iter().filter(|(step, _)| points.contains(*step)) {
            for hit in BTreeSet::from([1, last.div_ceil(2), *last]) {
                for fate in [Fate::Kill(step.clone(), hit), Fate::Stop(step.clone(), hit)] {
                    let run = run_one(scenario, &fate)?;
                    for fault in &run.faults {
                        show(&format!("FAULT {}, {fate:?}: {fault}", scenario.role));
                    }
                    faults += run.faults.len();
                    times.add(run.recovery);
                    if run.recovery > RECOVERY_MAX {
                        slow.push((scenario, fate.clone()));
                    }
                    if run.reached {
                        let kills = matches!(fate, Fate::Kill(..));
                        let of = if kills { &mut killed } else { &mut stopped };
                        of.insert(step.clone());
                    }
                }
            }
        }
    }
    show(&format!("service: {CALLS} calls beside the dead or stopped: {times}"));
    assert_eq!(killed, points, "these points should each have killed somebody");
    assert_eq!(stopped, points, "these points should each have stopped somebody");
    assert_eq!(faults, 0, "the faults are above");
    for (scenario, fate) in slow {
        let mut least = Duration::MAX;
        for _ in 0..REPEATS {
            least = least.min(run_one(scenario, &fate)?.recovery);
        }
        assert!(least <= RECOVERY_MAX, "{fate:?}: survivors need {least:?} each time");
    }
    Ok(())
}
