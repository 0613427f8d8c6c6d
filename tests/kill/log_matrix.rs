//! A durable topic, with a process killed or stopped at each of its points; then everybody dies, and the log is opened
//! again.

use crate::figures::{show, Times};
use crate::log::{self, Books, Outcome, Survivor, Template, LIMIT, NEARLY};
use crate::place::Place;
use crate::points;
use crate::process::{Event, Fate, Process};
use crate::role;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

/// What the points of durable topics begin with.
pub const POINTS: &[&str] = &[
    "log.",
    "prepare.",
    "sync.",
    "retain.",
    "times.",
    "claim.",
    "checkpoint.",
    "recover.checkpoint",
    "recover.clear",
    "recover.cursor",
    "recover.mend",
    "recover.piece",
    "recover.places",
    "recover.segment",
    "recover.sync",
    "cursor.lock",
    "cursor.mark",
    "cursor.release",
    "cursor.remove",
    "cursor.sync",
    "file.link",
];

/// Kinds of logs that are about to begin another piece of their order.
const KINDS: [&str; 3] = ["durable-large", "durable-kept", "durable-timed"];

/// Survivors go on within this time.
const RECOVERY_MAX: Duration = Duration::from_millis(100);
/// How often a run that took longer is repeated: what is slow every time is not the machine's doing.
const REPEATS: usize = 4;

/// What the log is when the victim comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Before {
    /// Not there.
    Nothing,
    /// In use by a survivor.
    InUse,
    /// In use by a survivor, and about to begin the second piece of its order.
    AboutToTurn,
    /// Left by the dead, on a bus that is as they left it.
    Dead,
    /// Left by the dead, and their bus is gone, as after a restart of the machine.
    Restarted,
    /// The machine crashed when its second piece was begun: a place of the first one is lost.
    Crashed,
    /// As restarted, and some of its files were lost.
    Damaged,
}

#[derive(Debug)]
struct Scenario {
    name: &'static str,
    kind: &'static str,
    before: Before,
    /// Processes that are killed before the victim begins: role, point, pass.
    primers: &'static [(&'static str, &'static str, u32)],
    /// What the victim does, and how often.
    role: &'static str,
    count: u64,
    /// What the points begin with at which it is killed.
    focus: &'static [&'static str],
    /// Whether somebody else does the same beside it.
    rival: bool,
}

const PLAIN: Scenario = Scenario {
    name: "",
    kind: "durable",
    before: Before::InUse,
    primers: &[],
    role: "log.publish",
    count: 16,
    focus: &["log."],
    rival: false,
};

/// A successor of a publisher that was killed at a point.
const fn heir(name: &'static str, primers: &'static [(&str, &str, u32)]) -> Scenario {
    let focus: &[&str] = &["log.", "lease."];
    Scenario { name, primers, focus, count: 4, ..PLAIN }
}

const OPENING: &[&str] = &["claim.", "checkpoint.", "recover.", "log.", "lease.", "lane."];

const SCENARIOS: &[Scenario] = &[
    Scenario { name: "publish", focus: &["log.", "file.", "claim.", "lease.", "wake."], ..PLAIN },
    Scenario { name: "publish each", kind: "durable-each", focus: &["log.", "file.link"], ..PLAIN },
    Scenario {
        name: "turn to the next piece",
        kind: "durable-timed",
        before: Before::AboutToTurn,
        count: 32,
        focus: &["log.tail", "file.link", "prepare.piece", "times."],
        ..PLAIN
    },
    Scenario {
        name: "keep the newest",
        kind: "durable-kept",
        before: Before::AboutToTurn,
        count: 300,
        focus: &["prepare.", "sync.", "retain.", "checkpoint.", "log.begin"],
        ..PLAIN
    },
    Scenario {
        name: "move a cursor",
        kind: "durable-each",
        role: "log.cursor",
        count: 8,
        focus: &["cursor.", "file.link"],
        primers: &[("log.publish", "log.tail", 30)],
        ..PLAIN
    },
    Scenario { name: "contend", role: "log.contend", rival: true, ..PLAIN },
    heir("take over after log.record", &[("log.publish", "log.record", 3)]),
    heir("take over after log.intend", &[("log.publish", "log.intend", 3)]),
    heir("take over after log.number", &[("log.publish", "log.number", 3)]),
    heir("take over after log.intent", &[("log.publish", "log.intent", 3)]),
    heir("take over after log.place", &[("log.publish", "log.place", 3)]),
    heir("take over after log.tail", &[("log.publish", "log.tail", 3)]),
    heir("take over after log.roll", &[("log.publish", "log.roll", 1)]),
    heir(
        "take over after two",
        &[("log.publish", "log.tail", 4), ("log.publish", "log.intent", 1)],
    ),
    Scenario {
        name: "read",
        role: "read",
        count: 30,
        focus: &["slot.", "join.", "sleep.", "cursor.", "view."],
        primers: &[("log.publish", "log.tail", 30)],
        ..PLAIN
    },
    Scenario {
        name: "create",
        before: Before::Nothing,
        role: "log.open",
        count: 5,
        focus: &["claim.", "checkpoint.", "recover.", "log.", "home.", "file.", "lane."],
        ..PLAIN
    },
    Scenario {
        name: "open what the dead left",
        before: Before::Dead,
        primers: &[("log.publish", "log.place", 9), ("log.publish", "log.tail", 7)],
        role: "log.open",
        count: 3,
        focus: OPENING,
        ..PLAIN
    },
    Scenario {
        name: "recover after log.place",
        before: Before::Restarted,
        primers: &[("log.publish", "log.place", 9), ("log.publish", "log.intent", 7)],
        role: "log.open",
        count: 3,
        focus: OPENING,
        ..PLAIN
    },
    Scenario {
        name: "recover after log.tail",
        kind: "durable-each",
        before: Before::Restarted,
        primers: &[("log.publish", "log.tail", 9)],
        role: "log.open",
        count: 3,
        focus: OPENING,
        ..PLAIN
    },
    Scenario {
        name: "recover after log.roll",
        before: Before::Restarted,
        primers: &[("log.publish", "log.roll", 1)],
        role: "log.open",
        count: 3,
        focus: OPENING,
        ..PLAIN
    },
    Scenario {
        name: "recover after a death in a recovery",
        before: Before::Restarted,
        primers: &[
            ("log.publish", "log.roll", 1),
            ("log.open", "recover.clear", 1),
            ("log.open", "checkpoint.write", 1),
            ("log.open", "claim.share", 1),
        ],
        role: "log.open",
        count: 3,
        focus: OPENING,
        ..PLAIN
    },
    Scenario {
        name: "recover what lost some files",
        before: Before::Damaged,
        primers: &[("log.publish", "log.tail", 9)],
        role: "log.open",
        count: 3,
        focus: OPENING,
        ..PLAIN
    },
    Scenario {
        name: "recover after a crash",
        kind: "durable-large",
        before: Before::Crashed,
        role: "log.open",
        count: 30,
        focus: &["claim.s", "checkpoint.", "recover."],
        ..PLAIN
    },
];

#[derive(Debug, Default)]
struct Run {
    reached: bool,
    recovery: Duration,
    hits: BTreeMap<String, u32>,
    faults: Vec<String>,
}

/// How a process came to where nobody has to follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Well,
    Killed(Instant),
    Stopped,
    Silent,
}

/// Listens to a process until it ends or stops.
fn follow(process: &mut Process, books: &mut Books, hits: &mut BTreeMap<String, u32>) -> End {
    loop {
        match process.next(LIMIT) {
            None => {
                books.faults.push(format!("a process does nothing: {}", process.describe()));
                return End::Silent;
            }
            Some(Event::Said(line)) if books.heard(&line) => {}
            Some(Event::Said(line)) if line == "joined" || line == "done" => {}
            Some(Event::Said(line)) => books.faults.push(format!("somebody says: {line}")),
            Some(Event::Logged(line)) => {
                if let Some(step) = line.strip_prefix("step ") {
                    *hits.entry(step.into()).or_default() += 1;
                }
            }
            Some(Event::Stopped) => return End::Stopped,
            Some(Event::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _), at)) => {
                return End::Killed(at);
            }
            Some(Event::Ended(WaitStatus::Exited(_, 0), _)) => return End::Well,
            Some(Event::Ended(status, _)) => {
                books.faults.push(format!("a process ended with {status:?}"));
                return End::Well;
            }
        }
    }
}

fn kill_at(scenario: &Scenario, path: &Path, books: &mut Books) {
    for (role, step, hit) in scenario.primers {
        let fate = Fate::Kill((*step).into(), *hit);
        let mut primer = Process::spawn(role, path, scenario.kind, 60, &fate);
        if !matches!(follow(&mut primer, books, &mut BTreeMap::new()), End::Killed(_)) {
            books.faults.push(format!("a primer did not come by {step}"));
        }
        let restarts = [Before::Restarted, Before::Damaged].contains(&scenario.before);
        if restarts && *role == "log.publish" {
            restart(path);
        }
    }
}

/// Takes away what a restart of the machine takes away. Nobody may have it open.
fn restart(path: &Path) {
    // It may not be there.
    let _ = std::fs::remove_dir_all(path);
}

/// Makes the log what it is when the victim comes; who uses it.
fn prepare(
    scenario: &Scenario,
    templates: &[Template; 3],
    path: &Path,
    books: &mut Books,
) -> Outcome<Option<Survivor>> {
    let open = || log::topic(&role::bus(path)?, path, scenario.kind);
    let kind = KINDS.iter().position(|kind| *kind == scenario.kind).unwrap_or(0);
    let template = &templates[kind];
    match scenario.before {
        Before::Nothing => {}
        Before::InUse => {
            let survivor = Survivor::join(open()?, books)?;
            kill_at(scenario, path, books);
            return Ok(Some(survivor));
        }
        Before::AboutToTurn => {
            template.copy(path, books)?;
            return Ok(Some(Survivor::join(open()?, books)?));
        }
        Before::Dead | Before::Restarted => kill_at(scenario, path, books),
        Before::Damaged => {
            kill_at(scenario, path, books);
            log::lose_files(path)?;
        }
        Before::Crashed => {
            template.copy(path, books)?;
            // Not to its end: that puts everything on disk.
            let fate = Fate::Kill("log.tail".into(), 40);
            let mut publisher = Process::spawn("log.publish", path, scenario.kind, 60, &fate);
            follow(&mut publisher, books, &mut BTreeMap::new());
            // And a consumer was further than what is left.
            open()?.cursor("ahead")?.commit(NEARLY + 39)?;
            restart(path);
            log::lose_place(path, NEARLY + 12)?;
            books.cut(NEARLY + 12);
        }
    }
    Ok(None)
}

fn run_one(scenario: &Scenario, fate: &Fate, templates: &[Template; 3]) -> Outcome<Run> {
    let (place, mut books, mut run) = (Place::new(), Books::default(), Run::default());
    let path = place.bus();
    let mut survivor = prepare(scenario, templates, &path, &mut books)?;
    let spawn = |fate| Process::spawn(scenario.role, &path, scenario.kind, scenario.count, fate);
    let mut victim = spawn(fate);
    let mut others: Vec<Process> = Vec::new();
    others.extend(scenario.rival.then(|| spawn(&Fate::Quiet)));
    if scenario.role == "read" {
        // News for those who sleep.
        let role = "log.publish";
        others.push(Process::spawn(role, &path, scenario.kind, 24, &Fate::Quiet));
    }
    loop {
        let end = follow(&mut victim, &mut books, &mut run.hits);
        let began = match end {
            End::Killed(at) => at,
            _ => Instant::now(),
        };
        run.reached |= matches!(end, End::Killed(_) | End::Stopped);
        if let Some(survivor) = &mut survivor {
            survivor.go_on(&mut books)?;
            run.recovery = run.recovery.max(began.elapsed());
        } else if end == End::Stopped {
            // Whoever opens the log now may have to wait.
            others.push(Process::spawn("log.open", &path, scenario.kind, 2, &Fate::Quiet));
        }
        if end != End::Stopped {
            break;
        }
        victim.signal(Signal::SIGCONT);
    }
    for mut other in others {
        follow(&mut other, &mut books, &mut BTreeMap::new());
    }
    drop(victim);
    match survivor {
        Some(survivor) => survivor.inherit(&mut books)?,
        // The next one who opens it.
        None => {
            let topic = log::topic(&role::bus(&path)?, &path, scenario.kind)?;
            Survivor::join(topic, &books)?.inherit(&mut books)?;
        }
    }
    let topic = log::topic(&role::bus(&path)?, &path, scenario.kind)?;
    books.balance(&path, &topic)?;
    drop(topic);
    restart(&path);
    let topic = log::topic(&role::bus(&path)?, &path, scenario.kind)?;
    books.balance(&path, &topic)?;
    drop(topic);
    if let Some(left) = place.held().first() {
        books.faults.push(format!("something of it is still open or mapped: {left}"));
    }
    run.faults = books.faults;
    Ok(run)
}

/// A run whose errors are faults.
fn attempt(scenario: &Scenario, fate: &Fate, templates: &[Template; 3]) -> Run {
    run_one(scenario, fate, templates).unwrap_or_else(|error| Run {
        faults: vec![format!("an error: {error}")],
        ..Run::default()
    })
}

/// Runs every point in every scenario: a death at its first, middle and last pass, and a stop in the middle.
pub fn run() -> Outcome {
    let began = Instant::now();
    let of_logs = |point: &String| POINTS.iter().any(|begin| point.starts_with(begin));
    let points: BTreeSet<String> = points::all().into_iter().filter(of_logs).collect();
    let (mut killed, mut stopped) = (BTreeMap::new(), BTreeMap::new());
    let (mut times, mut faults, mut slow, mut runs) = (Times::default(), 0, Vec::new(), 0);
    let [large, kept, timed] = KINDS.map(Template::make);
    let templates = [large?, kept?, timed?];
    let only = std::env::var("WINDLASS_SCENARIO").unwrap_or_default();
    for scenario in SCENARIOS.iter().filter(|scenario| scenario.name.contains(&only)) {
        let probe = attempt(scenario, &Fate::Live, &templates);
        let in_focus = |step: &str| scenario.focus.iter().any(|focus| step.starts_with(focus));
        let mut fates = Vec::new();
        for (step, last) in probe.hits.iter().filter(|(step, _)| in_focus(step)) {
            let middle = last.div_ceil(2);
            let passes = BTreeSet::from([1, middle, *last]);
            fates.extend(passes.iter().map(|hit| Fate::Kill(step.clone(), *hit)));
            fates.push(Fate::Stop(step.clone(), middle));
        }
        let mut show_faults = |fate: &Fate, run: &Run| {
            for fault in &run.faults {
                show(&format!("FAULT {}, {fate:?}: {fault}", scenario.name));
            }
            faults += run.faults.len();
        };
        show_faults(&Fate::Live, &probe);
        for fate in fates {
            let run = attempt(scenario, &fate, &templates);
            show_faults(&fate, &run);
            runs += 1;
            times.add(run.recovery);
            if run.recovery > RECOVERY_MAX {
                slow.push((scenario, fate.clone()));
            }
            if run.reached {
                let (of, step) = match &fate {
                    Fate::Kill(step, _) => (&mut killed, step),
                    Fate::Stop(step, _) => (&mut stopped, step),
                    Fate::Live | Fate::Quiet => continue,
                };
                *of.entry(step.clone()).or_insert(0) += 1;
            }
        }
    }
    let total = |of: &BTreeMap<String, u64>| of.values().sum::<u64>();
    show(&format!(
        "durable topics: {} killed, {} stopped in {runs} runs, {:?}; until a survivor goes on: {times}",
        total(&killed),
        total(&stopped),
        began.elapsed()
    ));
    for (point, kills) in &killed {
        let stops = stopped.get(point).unwrap_or(&0);
        show(&format!("  {point:<18} killed {kills} times, stopped {stops} times"));
    }
    assert_eq!(faults, 0, "the faults are above");
    let missing = |of: &BTreeMap<String, u64>| -> Vec<String> {
        points.iter().filter(|point| !of.contains_key(*point)).cloned().collect()
    };
    if only.is_empty() {
        assert_eq!(missing(&killed), [""; 0], "nobody was killed at these points");
        assert_eq!(missing(&stopped), [""; 0], "nobody was stopped at these points");
    }
    for (scenario, fate) in slow {
        let mut least = Duration::MAX;
        for _ in 0..REPEATS {
            least = least.min(attempt(scenario, &fate, &templates).recovery);
        }
        assert!(least <= RECOVERY_MAX, "{fate:?}: survivors need {least:?} each time");
    }
    Ok(())
}
