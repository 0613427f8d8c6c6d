//! Damaged files: whatever a byte of a header or table says, the result is the right data or an error
//! that says so, within bounds, and never a panic, a crash or a hang.
//!
//! Damage that no format could notice, because the value is a possible one, is listed in
//! `docs/format.md`; of it the tests ask that what is delivered are whole messages in their order.
//! The visits run in a process of their own, whose death is a failure of the case that it announced.
//!
//! By default a sample of all flips is tried, the same in every run. `WINDLASS_EXHAUSTIVE=1` tries all
//! of them, which takes minutes.

mod log;
mod place;
mod queue;
mod queue_visit;
mod scribble;
mod service;
mod state;
mod structure;
mod typed;
mod visit;

use super::process::{Actor, Den, Line, Role, Scene};
use place::{Place, Promise};
use state::State;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::path::Path;
use visit::Visit;

pub const ROLES: &[(&str, Role)] = &[
    ("hostile.flips", flips),
    ("hostile.planned", structure::planned),
    ("hostile.log", log::flips),
    ("hostile.log.planned", log::planned),
    ("hostile.queue", queue::damaged),
    ("hostile.schema", typed::schema),
    ("hostile.copies", typed::copies),
    ("hostile.layer", scribble::layer),
    ("hostile.publisher", scribble::publisher),
    ("hostile.subscriber", scribble::subscriber),
    ("hostile.scribbler", scribble::scribbler),
    ("hostile.service", service::scribbler),
];

/// About how many flips of each state are tried by default.
const SAMPLE: usize = 400;

fn is_exhaustive() -> bool {
    std::env::var_os("WINDLASS_EXHAUSTIVE").is_some()
}

/// The word at byte `at`.
fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Every other value that a byte is tried with.
fn flips_of(byte: u8, at: usize) -> Vec<u8> {
    let mut values: Vec<u8> = (0..8).map(|bit| byte ^ 1 << bit).collect();
    let mixed = (at as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    values.extend([!byte, 0, 0xff, mixed as u8]);
    values.sort_unstable();
    values.dedup();
    values.retain(|value| *value != byte);
    values
}

/// Visits the files of `state` at `path` after `damage` was done to them, and judges.
fn attempt(
    path: &Path,
    state: &State,
    sound: &Visit,
    promise: Promise,
    damage: impl Fn(&Path),
) -> Result<(), String> {
    state.lay(path);
    damage(path);
    let visit = catch_unwind(AssertUnwindSafe(|| Visit::of(path, state)));
    match visit {
        Ok(visit) => visit.judge(sound, promise),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            Err(format!("panicked: {}", text.unwrap_or_default()))
        }
    }
}

/// Flips bytes of a state one by one. Says `case …` before each, `wrong …` and `done COUNT`.
fn flips(scene: &Scene, line: &mut Line) {
    let path = Path::new(scene.bus_path());
    let state = State::build(scene.text("state"), &path.with_extension("model"));
    state.lay(path);
    let sound = Visit::of(path, &state);
    state.lay(path);
    assert_eq!(Visit::of(path, &state), sound, "a visit of sound files is always the same");
    let mut all: Vec<(Place, usize, u8)> = Vec::new();
    for place in place::all(&state) {
        for at in place.at..place.at + place.len {
            let byte = state.files[&place.file][at];
            all.extend(flips_of(byte, at).into_iter().map(|value| (place.clone(), at, value)));
        }
    }
    // Odd, so that all kinds of flips have their turn.
    let every = if is_exhaustive() { 1 } else { (all.len() / SAMPLE) | 1 };
    let mut count = 0;
    for (place, at, value) in all.into_iter().step_by(every) {
        let case = format!("{} byte {at} ({}) = {value:#04x}", place.file, place.what);
        line.say(format_args!("case {case}"));
        let mut damaged = state.files[&place.file].clone();
        damaged[at] = value;
        let file = path.join(&place.file);
        let damage = |_: &Path| std::fs::write(&file, &damaged).expect("there is room");
        if let Err(why) = attempt(path, &state, &sound, place.promise, damage) {
            line.say(format_args!("wrong {case}: {}", why.replace('\n', " ")));
        }
        count += 1;
    }
    line.say(format_args!("done {count}"));
}

/// Says which case it was if the test fails meanwhile.
struct Case(String);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the last case was: {}", self.0);
        }
    }
}

/// Listens to a role that says `case`, `wrong` and `done`; returns how many cases there were.
fn listen(mut actor: Actor) -> u64 {
    let (mut case, mut wrong) = (Case(String::new()), Vec::new());
    let count = loop {
        let said = actor.hear_any().expect("it ended in the middle of a case");
        match said.split_once(' ') {
            Some(("case", now)) => case.0 = now.to_owned(),
            Some(("wrong", what)) => wrong.push(what.to_owned()),
            Some(("done", count)) => break count.parse().expect("it says a number"),
            _ => panic!("it said {said}"),
        }
    };
    actor.finish();
    let shown: Vec<_> = wrong.iter().take(20).cloned().collect();
    assert!(wrong.is_empty(), "{} of {count} went wrong:\n{}", wrong.len(), shown.join("\n"));
    count
}

fn play(role: &str, state: &str) {
    let den = Den::new();
    let count = listen(Actor::process(&den, role, &format!("state={state}")));
    assert!(count >= SAMPLE as u64 / 2, "{count} cases are no sample");
    println!("{state}: {count} cases");
}

fn every_flip_of(state: &str) {
    play("hostile.flips", state);
}

fn every_plan_for(state: &str) {
    play("hostile.planned", state);
}

#[test]
fn every_flip_of_a_reliable_topic_is_noticed_or_bounded() {
    every_flip_of("reliable");
}

#[test]
fn every_flip_of_a_lossy_topic_is_noticed_or_bounded() {
    every_flip_of("lossy");
}

#[test]
fn every_flip_of_an_ordered_topic_is_noticed_or_bounded() {
    every_flip_of("ordered");
}

#[test]
fn every_flip_of_an_ordered_lossy_topic_is_noticed_or_bounded() {
    every_flip_of("ordered-lossy");
}

#[test]
fn every_flip_beside_a_roll_is_noticed_or_bounded() {
    every_flip_of("rolling");
}

#[test]
fn every_flip_of_an_ordered_topic_beside_a_roll_is_noticed_or_bounded() {
    every_flip_of("rolling-ordered");
}

#[test]
fn planned_damage_to_a_reliable_topic_is_noticed_or_bounded() {
    every_plan_for("reliable");
}

#[test]
fn planned_damage_to_a_lossy_topic_is_noticed_or_bounded() {
    every_plan_for("lossy");
}

#[test]
fn planned_damage_to_an_ordered_topic_is_noticed_or_bounded() {
    every_plan_for("ordered");
}

#[test]
fn planned_damage_to_an_ordered_lossy_topic_is_noticed_or_bounded() {
    every_plan_for("ordered-lossy");
}

#[test]
fn every_flip_of_the_files_of_queues_is_noticed_or_bounded() {
    queues_damaged_by("flips");
}

#[test]
fn planned_damage_to_the_files_of_queues_is_noticed_or_bounded() {
    queues_damaged_by("plans");
}

#[test]
fn every_flip_of_the_files_of_a_log_is_noticed_or_bounded() {
    for after in ["end", "crash"] {
        let den = Den::new();
        let count = listen(Actor::process(&den, "hostile.log", &format!("after={after}")));
        assert!(count >= SAMPLE as u64 / 2, "{count} cases are no sample");
        println!("logs, after a {after}: {count} cases");
    }
}

#[test]
fn planned_damage_to_the_files_of_a_log_is_noticed_or_bounded() {
    let den = Den::new();
    println!("logs: {} cases", listen(Actor::process(&den, "hostile.log.planned", "")));
}

fn queues_damaged_by(how: &str) {
    let den = Den::new();
    let count = listen(Actor::process(&den, "hostile.queue", &format!("how={how}")));
    assert!(count >= SAMPLE as u64 / 2, "{count} cases are no sample");
    println!("queues, {how}: {count} cases");
}

/// Two publishers and two subscribers, and one who writes into their tables.
fn scribbled_into(state: &str) {
    let den = Den::new();
    let start = |role: &str, arguments: String| Actor::process(&den, role, &arguments);
    listen(start("hostile.layer", format!("state={state}")));
    let mut scribbler = start("hostile.scribbler", format!("seed={}", state.len()));
    scribbler.hear("ready");
    let rounds = if is_exhaustive() { 20_000 } else { 400 };
    let roles = ["publisher", "publisher", "subscriber", "subscriber"];
    let start_member = |role: &&str| start(&format!("hostile.{role}"), format!("rounds={rounds}"));
    let members: Vec<Actor> = roles.iter().map(start_member).collect();
    let attended = members.into_iter().map(|mut member| {
        member.hear("ready");
        listen(member)
    });
    let done: Vec<u64> = attended.collect();
    scribbler.finish();
    println!("{state}: published and received {done:?}");
}

#[test]
fn members_go_on_or_end_while_a_reliable_topic_is_scribbled_into() {
    scribbled_into("reliable");
}

#[test]
fn members_go_on_or_end_while_an_ordered_topic_is_scribbled_into() {
    scribbled_into("ordered-lossy");
}

#[test]
fn every_byte_of_a_stored_schema_is_guarded() {
    let den = Den::new();
    assert!(listen(Actor::process(&den, "hostile.schema", "")) > 100);
}

#[test]
fn a_copy_is_a_message_whatever_its_publisher_does_meanwhile() {
    let den = Den::new();
    let count = if is_exhaustive() { 1_000_000 } else { 3_000 };
    let good = listen(Actor::process(&den, "hostile.copies", &format!("count={count}")));
    assert!(0 < good && good < count, "{good} of {count} copies were what was published");
}

#[test]
fn a_service_whose_words_are_overwritten_ends_every_call_and_harms_nobody() {
    let den = Den::new();
    let mut actor = Actor::process(&den, "hostile.service", "");
    let mut last = String::new();
    loop {
        match actor.hear_any() {
            Some(line) if line == "done" => break,
            Some(line) => last = line,
            None => panic!("the process ended in {last}"),
        }
    }
    actor.finish();
}
