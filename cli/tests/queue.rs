//! `windlass queue`, and what the other commands say of queues.

mod common;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

use common::{windlass, Folder};
use windlass::schemas::tick_capnp::{tick, Venue};
use windlass::{Bus, Queue, Raw, Wait};

/// Where a process of these tests finds the bus on which it is to die.
const BUS: &str = "WINDLASS_TEST_BUS";

/// A bus with a queue of bytes: so many messages `job N` wait in it.
fn jobs(path: &str, count: u32) -> (Bus, Queue<Raw>) {
    let bus = Bus::open(path).expect("the bus exists");
    let queue = bus.queue::<Raw>("jobs").chunks(16, 64).max_deliveries(1).open().expect("sound");
    let mut producer = queue.producer().expect("sound");
    for n in 0..count {
        producer.enqueue(format!("job {n}").as_bytes()).expect("there is room");
    }
    (bus, queue)
}

/// Makes dead letters of the first messages.
fn kill_letters(queue: &Queue<Raw>, count: u32) {
    let mut consumer = queue.consumer().expect("a slot");
    for _ in 0..count {
        consumer.try_take().expect("sound").expect("it waits").nack().expect("it is ours");
    }
}

fn depth(queue: &Queue<Raw>) -> u32 {
    queue.info().expect("sound").depth
}

/// Runs a command that succeeds; what it printed.
fn runs(line: &[&str]) -> String {
    let ran = windlass(line);
    assert_eq!(ran.status, Some(0), "{line:?}: {}", ran.stderr);
    ran.stdout
}

fn json(line: &[&str]) -> serde_json::Value {
    serde_json::from_str(&runs(&[line, &["--json"]].concat())).expect("one object")
}

#[test]
fn queues_are_listed_and_described() {
    let folder = Folder::new();
    let path = folder.bus("described");
    let (bus, queue) = jobs(&path, 3);
    bus.queue::<tick::Owned>("ticks").open().expect("it is made");
    let tokens = bus.tokens("spares").capacity(8).open().expect("it is made");
    tokens.push(7).expect("there is room");
    let mut consumer = queue.consumer().expect("a slot");
    let job = consumer.try_take().expect("sound").expect("it waits");

    for list in [&["queue", "list"][..], &["list"]] {
        let list = json(&[list, &["--bus", &path]].concat());
        assert_eq!(list["queues"][0]["name"], "jobs", "{list}");
        assert_eq!(list["queues"][0]["depth"], 2);
        assert_eq!(list["queues"][0]["in_flight"], 1);
        assert_eq!(list["queues"][0]["consumers"], 1);
        assert!(list["queues"][0]["oldest_age_ms"].is_u64());
        assert!(list["queues"][1]["schema"].as_str().is_some_and(|name| name.ends_with(":Tick")));
        assert_eq!(list["token_queues"][0]["tokens"], 1);
    }
    let page = runs(&["queue", "list", "--bus", &path]);
    assert!(page.contains("jobs") && page.contains("spares") && page.contains("depth"), "{page}");

    let info = json(&["queue", "info", "jobs", "--bus", &path]);
    assert_eq!(info["in_flight"][0]["pid"], std::process::id());
    assert_eq!(info["in_flight"][0]["taken"], 1);
    assert_eq!(info["consumers"][0]["pid"], std::process::id());
    assert_eq!(info["classes"][0]["chunks"], 16);
    assert_eq!(info["classes"][0]["free"], 13);
    assert_eq!(info["max_deliveries"], 1);
    // People need not know which of the two it is.
    for info in [&["queue", "info", "jobs"][..], &["info", "jobs"]] {
        let page = runs(&[info, &["--bus", &path]].concat());
        assert!(page.contains("in flight at process") && page.contains("16"), "{page}");
    }
    let page = runs(&["queue", "info", "spares", "--bus", &path]);
    assert!(page.contains("1 of at most 8"), "{page}");
    job.ack().expect("it is ours");
}

#[test]
fn what_is_missing_or_mistyped_is_said_in_a_sentence() {
    let folder = Folder::new();
    let path = folder.bus("bare");
    assert!(runs(&["queue", "list", "--bus", &path]).contains("no queues"));
    for line in [
        &["queue", "info", "jobs"][..],
        &["queue", "drain", "jobs", "--yes"],
        &["queue", "dead-letters", "jobs"],
        &["queue", "dead-letters", "jobs", "revive", "--all"],
        &["info", "jobs"],
    ] {
        let ran = windlass(&[line, &["--bus", &path]].concat());
        assert_eq!(ran.status, Some(1), "{line:?}");
        common::assert_one_sentence(&ran.stderr);
        assert!(ran.stderr.contains("jobs"), "{line:?}: {}", ran.stderr);
    }
    drop(jobs(&path, 1));
    for line in [
        &["queue"][..],
        &["queue", "dead-letters", "jobs", "show"],
        &["queue", "dead-letters", "jobs", "discard"],
        &["queue", "dead-letters", "jobs", "list", "3"],
        &["queue", "dead-letters", "jobs", "revive", "3", "--all"],
        &["queue", "drain", "jobs", "--print", "--json"],
    ] {
        let ran = windlass(line);
        assert_eq!(ran.status, Some(2), "{line:?}: {}", ran.stderr);
        assert!(ran.stderr.contains("Usage"), "{line:?}: {}", ran.stderr);
    }
    let letter = ["queue", "dead-letters", "jobs", "discard", "3", "--bus", &path];
    let ran = windlass(&letter);
    assert_eq!(ran.status, Some(1));
    common::assert_one_sentence(&ran.stderr);
    assert!(ran.stderr.contains("chunk 3"), "{}", ran.stderr);
}

#[test]
fn a_drain_says_what_it_would_do_and_does_it_when_told() {
    let folder = Folder::new();
    let path = folder.bus("drained");
    let (_bus, queue) = jobs(&path, 5);
    let told = json(&["queue", "drain", "jobs", "--bus", &path]);
    assert_eq!((&told["done"], &told["messages"]), (&false.into(), &5.into()), "{told}");
    assert!(runs(&["queue", "drain", "jobs", "--bus", &path]).contains("--yes"));
    assert_eq!(depth(&queue), 5, "it only said so");

    let file = folder.path().join("kept");
    let kept = file.display().to_string();
    let line = ["queue", "drain", "jobs", "--bus", &path, "--yes", "--limit", "2", "--to", &kept];
    let done = json(&line);
    assert_eq!((&done["messages"], &done["left"]), (&2.into(), &3.into()), "{done}");
    let expected: Vec<u8> = ["job 0", "job 1"]
        .iter()
        .flat_map(|job| [&5u64.to_le_bytes()[..], job.as_bytes()].concat())
        .collect();
    assert_eq!(std::fs::read(&file).expect("it is there"), expected);

    // It overwrites nothing, and takes nothing that it cannot keep.
    let ran = windlass(&line);
    assert_eq!(ran.status, Some(1));
    common::assert_one_sentence(&ran.stderr);
    assert_eq!((std::fs::read(&file).expect("there"), depth(&queue)), (expected, 3));

    let ran = windlass(&["queue", "drain", "jobs", "--bus", &path, "--yes", "--print"]);
    let lines: Vec<serde_json::Value> =
        ran.stdout.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    let texts: Vec<_> = lines.iter().map(|line| line["text"].as_str().expect("text")).collect();
    assert_eq!(texts, ["job 2", "job 3", "job 4"]);
    assert_eq!(lines[0]["delivery"], 1);
    assert!(ran.stderr.contains("3 messages"), "{}", ran.stderr);
    let info = queue.info().expect("sound");
    assert_eq!((info.depth, info.classes[0].free()), (0, 16));
}

#[test]
fn a_drained_queue_of_a_type_is_a_stream_of_its_messages() {
    let folder = Folder::new();
    let path = folder.bus("typed");
    let bus = Bus::open(&path).expect("the bus exists");
    let queue = bus.queue::<tick::Owned>("ticks").open().expect("it is made");
    let mut producer = queue.producer().expect("sound");
    for n in 0..3 {
        let mut loan = producer.loan().expect("there is room");
        loan.init_root().set_price(f64::from(n));
        loan.enqueue().expect("it fits");
    }
    let file = folder.path().join("kept");
    let kept = file.display().to_string();
    runs(&["queue", "drain", "ticks", "--bus", &path, "--yes", "--to", &kept]);
    let bytes = std::fs::read(&file).expect("it is there");
    let mut left = &bytes[..];
    for n in 0..3 {
        let message = capnp::serialize::read_message(&mut left, Default::default());
        let message = message.expect("a message");
        let price = message.get_root::<tick::Reader<'_>>().expect("a tick").get_price();
        assert_eq!(price, f64::from(n));
    }
    assert!(left.is_empty());
}

#[test]
fn messages_of_a_typed_queue_are_shown_by_the_schema_of_the_queue() {
    let folder = Folder::new();
    let path = folder.bus("shown");
    let bus = Bus::open(&path).expect("the bus exists");
    let queue = bus.queue::<tick::Owned>("ticks").max_deliveries(1).open().expect("it is made");
    let mut producer = queue.producer().expect("sound");
    for n in 0..2u64 {
        let mut loan = producer.loan().expect("there is room");
        let mut tick = loan.init_root();
        tick.set_symbol("ACME");
        tick.set_number(n);
        tick.set_venue(Venue::Dark);
        loan.enqueue().expect("it fits");
    }
    let letter = queue.consumer().expect("a slot").try_take().expect("sound").map(|job| job.nack());
    letter.expect("it waits").expect("it is ours");

    let letters = json(&["queue", "dead-letters", "ticks", "--bus", &path]);
    let letter = &letters["dead_letters"][0];
    assert!(letter["first"].as_str().is_some_and(|first| first.starts_with(r#"{"symbol":"ACME""#)));
    let chunk = letter["chunk"].to_string();
    let show = ["queue", "dead-letters", "ticks", "show", &chunk, "--bus", &path];
    let page = runs(&show);
    assert!(page.contains("tick.capnp:Tick") && page.contains("\n  \"venue\": \"dark\""), "{page}");
    assert_eq!(json(&show)["message"]["symbol"], "ACME");

    let ran = windlass(&["queue", "drain", "ticks", "--bus", &path, "--yes", "--print"]);
    let line: serde_json::Value = serde_json::from_str(&ran.stdout).expect("one line");
    assert_eq!(
        (&line["message"]["number"], &line["message"]["venue"]),
        (&1.into(), &"dark".into())
    );
    assert!(line["problem"].is_null() && line["schema"] == "tick.capnp:Tick", "{line}");
    // Fields come in the order of the schema, not in that of the alphabet.
    assert!(ran.stdout.contains(r#""message":{"symbol":"ACME","price":0.0,"#), "{}", ran.stdout);
}

#[test]
fn dead_letters_are_listed_shown_discarded_and_revived() {
    let folder = Folder::new();
    let path = folder.bus("letters");
    let (_bus, queue) = jobs(&path, 4);
    let letters = |more: &[&str]| {
        json(&[&["queue", "dead-letters", "jobs"], more, &["--bus", &path]].concat())
    };
    assert_eq!(letters(&[])["dead_letters"], serde_json::json!([]));
    kill_letters(&queue, 4);
    let list = letters(&[]);
    let all = list["dead_letters"].as_array().expect("a list");
    assert_eq!(all.len(), 4, "{list}");
    let of = |job: &str| {
        let letter = all.iter().find(|letter| letter["first"] == format!("{job:?}"));
        letter.expect("it is listed")["chunk"].to_string()
    };
    let first = of("job 0");
    let shown = letters(&["show", &first]);
    assert_eq!((&shown["text"], &shown["deliveries"]), (&"job 0".into(), &1.into()), "{shown}");
    assert_eq!(letters(&[]), list, "whoever looks changes nothing");

    assert_eq!(letters(&["revive", &first])["revived"], 1);
    assert_eq!(depth(&queue), 1);
    assert_eq!(letters(&["discard", &of("job 1")])["discarded"], 1);
    assert_eq!(letters(&["revive", "--all"])["revived"], 2);
    let mut consumer = queue.consumer().expect("a slot");
    let mut texts = Vec::new();
    while let Some(job) = consumer.try_take().expect("sound") {
        assert_eq!(job.delivery(), 1, "as if it had never been delivered");
        texts.push(String::from_utf8(job.bytes().to_vec()).expect("text"));
        job.ack().expect("it is ours");
    }
    texts.sort();
    assert_eq!(texts, ["job 0", "job 2", "job 3"]);
    assert_eq!(queue.info().expect("sound").classes[0].free(), 16);
}

/// A process of these tests that has a message and a loan, until it is killed.
fn holder(path: &str) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("it runs"));
    command.args(["--exact", "holds_what_it_has", "--ignored", "--nocapture"]).env(BUS, path);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    let said = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut lines = said.map(|line| line.expect("it says text"));
    assert!(lines.any(|line| line.contains("held")), "it ended before it held anything");
    child
}

#[test]
#[ignore = "a process that others start"]
fn holds_what_it_has() {
    let Ok(path) = std::env::var(BUS) else { return };
    let (_bus, queue) = jobs(&path, 0);
    let mut consumer = queue.consumer().expect("a slot");
    let _job = consumer.take(Wait::Block).expect("sound").expect("it waits");
    let mut producer = queue.producer().expect("sound");
    let _loan = producer.loan(8).expect("there is room");
    println!("held");
    std::io::stdout().flush().expect("there is a reader");
    // Until it is killed: nobody writes to this pipe.
    let _ = std::io::stdin().read_line(&mut String::new());
}

#[test]
fn the_doctor_says_what_the_dead_had_and_gives_it_back() {
    let folder = Folder::new();
    let path = folder.bus("healed");
    let (_bus, queue) = jobs(&path, 3);
    kill_letters(&queue, 1);
    let mut child = holder(&path);
    let pid = child.id();
    let info = json(&["queue", "info", "jobs", "--bus", &path]);
    assert_eq!(info["in_flight"][0]["pid"], pid, "{info}");
    let node = info["in_flight"][0]["node"].to_string();
    let told = json(&["doctor", "--bus", &path]);
    assert_eq!(told["found"], serde_json::json!([]), "the living keep what they have");
    child.kill().expect("it lives");
    child.wait().expect("it ends");

    let told = json(&["doctor", "--bus", &path]);
    let found = told["found"].to_string();
    assert_eq!(told["queues"], 1);
    // Its process is not known any more if the doctor took its entry in the bus.
    assert!(found.contains(&format!("node {node}")), "{told}");
    assert!(found.contains("1 message and 1 loan") && found.contains("consumer slot"), "{told}");
    assert_eq!((&told["chunks"], &told["subscribers"]), (&2.into(), &1.into()), "{told}");
    assert!(told["waiting"].to_string().contains("1 dead letter waits"), "{told}");
    let info = json(&["queue", "info", "jobs", "--bus", &path]);
    assert_eq!((&info["depth"], &info["in_flight"]), (&1.into(), &serde_json::json!([])), "{info}");
    // The message of the dead was delivered as often as it may be.
    assert_eq!(info["classes"][0]["dead"], 2);
}

#[test]
fn the_doctor_and_the_lists_name_damage() {
    let folder = Folder::new();
    let path = folder.bus("damaged");
    let (bus, _queue) = jobs(&path, 1);
    bus.queue::<Raw>("other").open().expect("it is made");
    bus.tokens("spares").open().expect("it is made");
    for file in ["jobs.queue/data", "spares.tokens/ring"] {
        let file = format!("{path}/{file}");
        let mut bytes = std::fs::read(&file).expect("it is there");
        bytes[64] ^= 1;
        std::fs::write(&file, bytes).expect("it is ours");
    }
    let list = json(&["queue", "list", "--bus", &path]);
    let of = |list: &serde_json::Value, name: &str| {
        let all = list.as_array().expect("a list");
        all.iter().find(|queue| queue["name"] == name).expect("listed")["error"].to_string()
    };
    assert!(of(&list["queues"], "jobs").contains("data"), "{list}");
    assert!(of(&list["token_queues"], "spares").contains("ring"), "{list}");
    assert_eq!(of(&list["queues"], "other"), "null");
    let ran = windlass(&["doctor", "--bus", &path, "--json"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert_eq!(ran.json()["damaged"].as_array().map(Vec::len), Some(2), "{}", ran.stdout);
}
