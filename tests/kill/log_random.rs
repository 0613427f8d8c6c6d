//! A durable topic whose publishers and subscribers are killed at random instants, and sometimes only stopped for a
//! while; from time to time everybody dies, the bus is removed as by a restart of the machine, and the log is opened
//! again.
//!
//! Everything that was acknowledged is in books outside ([`Books`]), which the log is held against at each restart.

use crate::figures::{show, Times};
use crate::log::{self, Books, Outcome, Survivor, LANES, LIMIT};
use crate::place::Place;
use crate::process::{self, Event, Fate, Process};
use crate::random::{number, Dice};
use crate::role;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

const KILLS: u64 = 150;
/// Deaths between two restarts, on average.
const PER_RESTART: u64 = 25;
/// Those who die: as many publishers as there are lanes beside that of the survivor, and readers.
const ROLES: &[&str] = &["log.stream", "log.stream", "log.stream", "log.follow", "log.follow"];
const KINDS: &[&str] = &["durable", "durable-each", "durable-kept"];
/// Most deaths cost a survivor no more than this.
const RECOVERY_MAX: Duration = Duration::from_millis(100);

/// Kills a process, and enters what it said. When it was dead.
fn kill(process: &mut Process, books: &mut Books) -> Outcome<Instant> {
    process.signal(Signal::SIGKILL);
    let mut log = Vec::new();
    loop {
        match process.next(LIMIT) {
            None => return Err("a killed process does not end".into()),
            Some(Event::Said(line)) if books.heard(&line) || line == "joined" => {}
            Some(Event::Said(line)) => books.faults.push(line),
            Some(Event::Logged(line)) => log.push(line),
            Some(Event::Stopped) => {}
            Some(Event::Ended(WaitStatus::Signaled(_, Signal::SIGKILL, _), at)) => return Ok(at),
            Some(Event::Ended(status, _)) => {
                return Err(format!("a process ended with {status:?}: {log:?}").into());
            }
        }
    }
}

/// One life of the bus: so many deaths, then that of everybody, and of the bus itself.
fn live(
    path: &Path,
    kind: &str,
    kills: u64,
    dice: &mut Dice,
    books: &mut Books,
    times: &mut BTreeMap<&'static str, Times>,
) -> Outcome {
    let mut survivor = Survivor::join(log::topic(&role::bus(path)?, path, kind)?, books)?;
    let spawn = |role: &&'static str| (*role, Process::spawn(role, path, kind, 0, &Fate::Quiet));
    let mut mortals: Vec<_> = ROLES.iter().map(spawn).collect();
    assert_eq!(ROLES.iter().filter(|role| **role == "log.stream").count() as u32, LANES - 1);
    for _ in 0..kills {
        process::pause(Duration::from_micros(dice.below(16_000)));
        let which = dice.below(mortals.len() as u64) as usize;
        let (role, victim) = &mut mortals[which];
        if dice.below(8) == 0 {
            victim.signal(Signal::SIGSTOP);
            process::pause(Duration::from_micros(dice.below(60_000)));
            survivor.go_on(books)?;
            victim.signal(Signal::SIGCONT);
        }
        let death = kill(victim, books)?;
        survivor.go_on(books)?;
        times.entry(role).or_default().add(death.elapsed());
        mortals[which] = spawn(&*role);
    }
    for (_, mortal) in &mut mortals {
        kill(mortal, books)?;
    }
    drop((mortals, survivor));
    std::fs::remove_dir_all(path)?;
    let topic = log::topic(&role::bus(path)?, path, kind)?;
    books.balance(path, &topic)?;
    books.turn_the_page(path)?;
    drop(topic);
    std::fs::remove_dir_all(path)?;
    Ok(())
}

pub fn run() -> Outcome {
    let began = Instant::now();
    let kills = number("WINDLASS_KILLS").unwrap_or(KILLS);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let seed = number("WINDLASS_SEED").unwrap_or(now.map_or(1, |now| now.subsec_nanos().into()));
    show(&format!("{kills} random kills at durable topics, WINDLASS_SEED={seed}"));
    let (mut dice, mut times) = (Dice(seed), BTreeMap::new());
    for kind in KINDS {
        let (place, mut books, mut left) =
            (Place::new(), Books::default(), kills / KINDS.len() as u64);
        let mut restarts = 0;
        while left > 0 && books.faults.is_empty() {
            let now = (1 + dice.below(2 * PER_RESTART)).min(left);
            live(&place.bus(), kind, now, &mut dice, &mut books, &mut times)
                .map_err(|error| format!("WINDLASS_SEED={seed}, {kind}: {error}"))?;
            left -= now;
            restarts += 1;
        }
        show(&format!("  {kind:<14} {} records, {restarts} restarts", books.base));
        let faults = &books.faults;
        assert!(faults.is_empty(), "WINDLASS_SEED={seed}, {kind}: {faults:#?}");
    }
    for (role, times) in &times {
        show(&format!("until a survivor has a new message after a {role} died: {times}"));
        let median = times.quantile(0.5);
        assert!(median < RECOVERY_MAX, "WINDLASS_SEED={seed}: recovery from {role}: {median:?}");
    }
    show(&format!("the random kills at durable topics took {:?}", began.elapsed()));
    Ok(())
}
