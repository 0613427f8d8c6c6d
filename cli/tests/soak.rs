//! `windlass soak`, run as a user runs it: it passes, it fails when something is wrong, it can be
//! interrupted, and nothing is left behind.

mod common;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use common::Folder;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;

/// A soak in which these things are done wrong fails, keeps its bus, and says what is wrong: of each
/// thing, and of each check that it must fail, the parts of a sentence. A machine on which not
/// everything was done in the shortest time has more of it.
fn assert_fails(sabotage: &str, more: &[&str], sentences: &[&[&str]]) {
    let mut missing = Vec::new();
    for minutes in ["0.04", "0.15", "0.6"] {
        let folder = Folder::new();
        let line = ["soak", "--json", "--minutes", minutes, "--sabotage", sabotage];
        let ran = folder.windlass(&[&line[..], more].concat());
        let outcome = ran.json();
        let problems = outcome["problems"].as_array().expect("a list");
        let problems: Vec<_> = problems.iter().filter_map(|problem| problem.as_str()).collect();
        let failed = i32::from(!problems.is_empty());
        assert_eq!(ran.status, Some(failed), "{sabotage}: {}{}", ran.stdout, ran.stderr);
        let kept = std::fs::read_dir(folder.path()).expect("it can be listed").count();
        assert_eq!(kept, failed as usize, "{sabotage}: the bus of a failure is kept");
        let said = |parts: &[&str]| {
            problems.iter().any(|problem| parts.iter().all(|part| problem.contains(part)))
        };
        missing = sentences.iter().filter(|parts| !said(parts)).collect();
        if missing.is_empty() {
            return;
        }
        eprintln!("{sabotage}, {minutes} minutes: {missing:?} is not in {problems:#?}");
    }
    panic!("{sabotage}: nobody said {missing:?}");
}

#[test]
fn short_soak_passes_and_its_figures_agree() {
    let folder = Folder::new();
    let ran = folder.windlass(&["soak", "--minutes", "0.07", "--seed", "5", "--json"]);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    let outcome = ran.json();
    let number = |name: &str| outcome[name].as_u64().unwrap_or_else(|| panic!("{name}: {outcome}"));
    assert_eq!(outcome["ok"], true);
    assert_eq!(outcome["problems"], serde_json::json!([]));
    assert_eq!((number("problem_count"), number("seed")), (0, 5));
    // One that was dropped at once has no age.
    let oldest = number("recovery_dropped_max_ns");
    assert!(number("recovery_dropped") > 0 || oldest == 0, "{outcome}");
    for positive in ["killed", "stops", "published", "received", "bytes", "evictions"] {
        assert!(number(positive) > 0, "{positive}: {outcome}");
    }
    for positive in ["missed", "redelivered", "blocks_compared", "views_compared"] {
        assert!(number(positive) > 0, "{positive}: {outcome}");
    }
    let by_job = outcome["kills"].as_object().expect("an object").values();
    assert_eq!(by_job.filter_map(|kills| kills.as_u64()).sum::<u64>(), number("killed"));
    let cells = outcome["cells"].as_array().expect("a list");
    let worked = cells.iter().find(|cell| cell["name"] == "queue").expect("it is there");
    assert!(worked["published"].as_u64() > Some(100), "{worked}");
    for (sum, name) in [("killed", "killed"), ("published", "published"), ("missed", "missed")] {
        let total: u64 = cells.iter().filter_map(|cell| cell[name].as_u64()).sum();
        assert_eq!(total, number(sum), "{name}");
    }
    for cell in cells {
        let reports_misses = ["lossy", "ordered-lossy", "evicting"].map(Into::into);
        let missed = cell["missed"].as_u64() > Some(0);
        assert!(!missed || reports_misses.contains(&cell["name"]), "{cell}");
    }
    let times = outcome["recovery"].as_array().expect("a list");
    let any = times.iter().find(|time| time["killed"] == "any").expect("somebody survived");
    assert!(any["p50_ns"].as_u64() <= any["max_ns"].as_u64(), "{any}");
    assert_eq!(std::fs::read_dir(folder.path()).expect("it can be listed").count(), 0);
}

/// Nobody is killed, so nothing is wrong but what is done wrong on purpose.
const QUIET: &[&str] = &["--kills-per-second", "0"];

#[test]
fn wrong_messages_are_found() {
    assert_fails(
        "checksum,skip,repeat,commit,boast,forget",
        QUIET,
        &[
            &["typed subscriber", "is torn"],
            &["large subscriber", "has number 21"],
            &["ordered subscriber", "has number 19"],
            &["reliable publisher", "its last holder had committed"],
            &["evicting: ", "noted by publishers, 0 killed"],
            &["ordered-lossy: ", "noted by publishers, 0 killed"],
        ],
    );
}

#[test]
fn wrong_deliveries_are_found() {
    assert_fails(
        "lose,twice,sequence,order,view,missed,silence,evicted,untold",
        QUIET,
        &[
            &["reliable subscriber", "are lost"],
            &["large subscriber", "came again or too late"],
            &["alone visitor", "a newcomer began with message"],
            &["ordered: ", "received different messages, or in another order"],
            &["typed subscriber", "a view changed while it was held"],
            &["lossy subscriber", "more messages were reported as missed than were left out"],
            &["lossy subscriber", "were left out", "reported as missed"],
            &["evicting subscriber", "a subscriber that was evicted at"],
            &["evicting: ", "subscribers were evicted", "were told so"],
        ],
    );
}

#[test]
fn wrong_ends_are_found() {
    assert_fails(
        "crash,vanish,phantom,leak,files",
        QUIET,
        &[
            &["large subscriber", "ended by itself, signal"],
            &["reliable: 1 lanes were taken over, 0 publishers were killed"],
            &["large: 1 slots of dead subscribers were freed, 0 were killed"],
            &["lossy: 0 lanes were taken over, 3 publishers were killed"],
            &["lossy: 0 slots of dead subscribers were freed, 3 were killed"],
            &["subscribers are left"],
            &["nodes are left"],
            &["the supervisor held"],
            &["a topic without subscribers refuses"],
            &["segments in two laps"],
            &["topic ordered has the files", "stray"],
            &["the bus has the files", "stray"],
        ],
    );
}

#[test]
fn wrong_work_is_found() {
    assert_fails(
        "shirk,redo",
        QUIET,
        &[&["queue: producer", "is lost"], &["queue worker", "came after it was done"]],
    );
}

#[test]
fn survivor_that_only_meets_what_is_old_is_found() {
    let kills = ["--kills-per-second", "40", "--standstill-seconds", "2"];
    let sentence = ["typed subscriber 27.0 had nothing new for", "after a death"];
    assert_fails("trickle", &kills, &[&sentence]);
}

#[test]
fn subscriber_that_stands_still_is_found_and_described() {
    let folder = Folder::new();
    let quiet = ["soak", "--minutes", "5", "--kills-per-second", "0"];
    let ran = folder
        .windlass(&[&quiet[..], &["--standstill-seconds", "2", "--sabotage", "wedge"]].concat());
    assert_eq!(ran.status, Some(1), "{}{}", ran.stdout, ran.stderr);
    let (_, verdict) = ran.stdout.split_once("FAILED: ").expect("a verdict");
    assert!(verdict.contains("reliable subscriber 3.0 has stood still for"), "{verdict}");
    // What `windlass info` shows is there, and names who blocks.
    assert!(verdict.contains("Blocked: the publisher of lane"), "{verdict}");
    assert!(verdict.contains("The bus is left for inspection"), "{verdict}");
}

#[test]
fn kept_bus_is_whole_and_lies_where_it_was_asked_for() {
    let folder = Folder::new();
    let bus = folder.path().join("here").display().to_string();
    let line = ["soak", "--minutes", "0.02", "--directory", &bus, "--keep"];
    let ran = folder.windlass(&line);
    assert_eq!(ran.status, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert!(ran.stdout.contains("PASSED: "), "{}", ran.stdout);
    let doctor = folder.windlass(&["doctor", "--bus", &bus, "--json"]).json();
    assert_eq!(doctor["repaired"], 0, "{doctor}");
    let again = folder.windlass(&line);
    assert_eq!(again.status, Some(1), "{}", again.stdout);
    common::assert_one_sentence(&again.stderr);
    assert!(again.stderr.contains(&bus) && again.stderr.contains("exists"), "{}", again.stderr);
}

#[test]
fn interrupted_soak_gives_a_verdict_over_what_ran() {
    let folder = Folder::new();
    let mut command = folder.command(&["soak", "--minutes", "60", "--json"]);
    let mut soak =
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let stderr = soak.stderr.take().expect("it is a pipe");
    for line in BufReader::new(stderr).lines() {
        if line.expect("it prints text").contains("are at work") {
            break;
        }
    }
    kill(Pid::from_raw(soak.id() as i32), Signal::SIGINT).expect("it runs");
    let output = soak.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let outcome: serde_json::Value = serde_json::from_slice(&output.stdout).expect("it is JSON");
    assert_eq!((&outcome["ok"], &outcome["interrupted"]), (&true.into(), &true.into()));
    let bus = outcome["bus"].as_str().expect("a path");
    assert!(!Path::new(bus).exists(), "{bus} is left");
}

#[test]
fn wrong_arguments_are_sentences() {
    for (line, sentence) in [
        (&["--minutes", "0"][..], "expected a number of minutes above 0"),
        (&["--minutes", "soon"], "expected a number of minutes above 0"),
        (&["--minutes", "nan"], "expected a number of minutes above 0"),
        (&["--kills-per-second", "-1"], "expected a number from 0 to 200"),
        (&["--kills-per-second=-1"], "expected a number from 0 to 200"),
        (&["--kills-per-second", "1000"], "expected a number from 0 to 200"),
        (&["--seed", "x"], "invalid digit"),
    ] {
        let ran = common::windlass(&[&["soak"], line].concat());
        assert_eq!(ran.status, Some(2), "{line:?}: {}", ran.stderr);
        let says = ran.stderr.contains(sentence) || line.len() == 2 && line[1].starts_with('-');
        assert!(says && ran.stdout.is_empty(), "{line:?}: {}", ran.stderr);
    }
}
