//! `windlass export`, `windlass import` and `windlass compact`.

use super::*;
use std::io::Write;
use windlass::Start;

fn exported(folder: &Folder, log: &str, format: &str) -> String {
    let file = path(folder, &format!("messages.{format}"));
    runs(&["export", log, "--format", format, "--to", &file]);
    file
}

#[test]
fn lines_that_were_exported_come_back_with_everything_in_them() {
    let folder = Folder::new();
    let (ticks, bytes) = (path(&folder, "ticks.log"), path(&folder, "bytes.log"));
    temperatures(&ticks, 500);
    made(&bytes, &[("alice", "grün\n".as_bytes()), ("", b"\xff\0"), ("b", b""), ("", b"{}")]);
    for (log, schema) in [(&ticks, &["--schema-of", &ticks][..]), (&bytes, &[])] {
        let (file, again) = (exported(&folder, log, "jsonl"), format!("{log}.again"));
        let told = json(&[&["import", &file, "--into", &again], schema].concat());
        assert_eq!(told["messages"], contents(log).len(), "{told}");
        // A message that is built from JSON need not have the bytes of the one that was published.
        let same = runs(&["cat", &again]) == runs(&["cat", log]);
        assert!(same && contents(&again).len() == contents(log).len(), "{again}");
        let schema = |path: &str| Log::open_untyped(path).expect("a log").schema_bytes().ok();
        assert_eq!(schema(&again), schema(log));
        std::fs::remove_file(file).expect("it is there");
    }
    // A log that is there goes on.
    let file = exported(&folder, &bytes, "jsonl");
    runs(&["import", &file, "--into", &bytes]);
    assert_eq!(contents(&bytes).len(), 8);
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn a_stream_of_messages_comes_back_message_by_message() {
    let folder = Folder::new();
    let log = path(&folder, "ticks.log");
    temperatures(&log, 500);
    let (file, again) = (exported(&folder, &log, "capnp"), path(&folder, "again.log"));
    let bytes = std::fs::read(&file).expect("it is there");
    let mut left = &bytes[..];
    for number in 0..500 {
        let message = capnp::serialize::read_message(&mut left, Default::default());
        let message = message.expect("a message");
        let tick = message.get_root::<tick::Reader<'_>>().expect("a tick");
        assert_eq!(tick.get_number(), number);
    }
    assert!(left.is_empty());
    runs(&["import", &file, "--into", &again, "--schema-of", &log]);
    let payloads = |log: &str| -> Vec<Vec<u8>> {
        contents(log).into_iter().map(|(.., payload)| payload).collect()
    };
    assert_eq!(payloads(&again), payloads(&log));

    // One that is cut off is imported as far as it goes into a log that is there, and into a new one not at all.
    std::fs::write(&file, &bytes[..bytes.len() - 8]).expect("it can be written");
    let why = fails(&["import", &file, "--into", &again]);
    assert!(why.contains("message 500") && why.contains("ends inside"), "{why}");
    assert!(why.contains("499 messages before it are imported"), "{why}");
    assert_eq!(payloads(&again).len(), 999);
    let new = path(&folder, "new.log");
    let why = fails(&["import", &file, "--into", &new, "--schema-of", &log]);
    assert!(why.contains("nothing is imported"), "{why}");
    assert!(!Path::new(&new).exists() && leftovers(folder.path()).is_empty());
}

#[test]
fn an_import_that_fails_names_the_line_and_what_came_before_it() {
    let folder = Folder::new();
    let (log, file) = (path(&folder, "ticks.log"), path(&folder, "ticks.jsonl"));
    temperatures(&log, 1);
    let good = r#"{"message":{"symbol":"ACME"}}"#;
    for (bad, why) in [
        (r#"{"message":{"symbl":"ACME"}}"#, "symbl"),
        (r#"{"message":{"price":"high"}}"#, "price"),
        (r#"{"text":"ACME"}"#, "tick.capnp:Tick"),
        (r#"{"symbol":"ACME"}"#, "--bare"),
        (r#"{"message":{}"#, "line"),
        ("ACME", "line"),
    ] {
        std::fs::write(&file, format!("{good}\n\n{good}\n{bad}\n{good}\n")).expect("written");
        let before = contents(&log).len();
        let told = fails(&["import", &file, "--into", &log]);
        assert!(told.contains("line 4") && told.contains(why), "{bad}: {told}");
        assert!(told.contains("2 messages before it are imported"), "{told}");
        assert_eq!(contents(&log).len(), before + 2);
    }
}

#[test]
fn plain_lines_are_published_on_a_topic() {
    let folder = Folder::new();
    let (at, log, file) = (folder.bus("in"), path(&folder, "t.log"), path(&folder, "ticks.jsonl"));
    temperatures(&log, 1);
    std::fs::write(&file, "{\"symbol\":\"A\",\"price\":1}\r\n{\"symbol\":\"B\"}").expect("written");
    let line = ["import", &file, "--bare", "--topic", "ticks", "--bus", &at];
    assert_eq!(json(&[&line[..], &["--schema-of", &log]].concat())["messages"], 2);
    let bus = Bus::open(&at).expect("there");
    let topic = bus.topic::<tick::Owned>("ticks").open_existing().expect("it has ticks");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a slot");
    for symbol in ["A", "B"] {
        let message = subscriber.try_recv().expect("sound").expect("it was published");
        let tick = message.get().expect("a tick");
        assert_eq!(tick.get_symbol().expect("text").to_str(), Ok(symbol));
    }
    // The topic knows its schema by now.
    assert_eq!(json(&line)["messages"], 2);

    // From a pipe, and as text.
    let mut import =
        Running::start_fed(&["import", "-", "--format", "jsonl", "--bare", "--into"], &{
            path(&folder, "texts.log")
        });
    let mut input = import.child().stdin.take().expect("a pipe");
    input.write_all("one\n\nthree".as_bytes()).expect("it reads");
    drop(input);
    assert_eq!(import.ends().status, Some(0));
    assert_eq!(texts(&path(&folder, "texts.log")), ["one", "", "three"]);
}

impl Running {
    /// Starts a command that reads its standard input.
    fn start_fed(line: &[&str], last: &str) -> Self {
        let mut command = command(&[line, &[last]].concat());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(Some(command.spawn().expect("the binary runs")))
    }
}

#[test]
fn a_compaction_keeps_the_newest_message_of_each_key() {
    let folder = Folder::new();
    let (log, to) = (path(&folder, "accounts.log"), path(&folder, "small.log"));
    let all: [(&str, &[u8]); 6] = [
        ("alice", b"alice 1"),
        ("", b"between"),
        ("bob", b"bob 1"),
        ("alice", b"alice 2"),
        ("carol", b"carol 1"),
        ("alice", b"alice 3"),
    ];
    made(&log, &all);
    let before = contents(&log);
    let told = json(&["compact", &log, "--to", &to]);
    assert_eq!((&told["before"], &told["messages"]), (&6.into(), &4.into()), "{told}");
    assert_eq!((&told["keys"], &told["unkeyed"]), (&3.into(), &1.into()), "{told}");
    assert_eq!((&told["payload_bytes_before"], &told["payload_bytes"]), (&40.into(), &26.into()));
    let kept: Vec<_> = [1, 2, 4, 5].iter().map(|at: &usize| before[*at].clone()).collect();
    assert_eq!(contents(&to), kept, "with their times and keys");
    assert_eq!(contents(&log), before, "what is read does not change");
    let (one, other) = (json(&["log", "info", &log]), json(&["log", "info", &to]));
    for option in ["segment_bytes", "publishers_max", "sync", "checksums", "retain_bytes"] {
        assert_eq!(one[option], other[option], "{option}");
    }
    let why = fails(&["compact", &log, "--to", &to]);
    assert!(why.contains("exists already"), "{why}");
    assert_eq!(contents(&to), kept);

    let bare = path(&folder, "bare.log");
    let page = runs(&["compact", &log, "--to", &bare, "--unkeyed", "drop"]);
    assert!(page.contains("Kept 3 of 6 messages"), "{page}");
    assert_eq!(texts(&bare), ["bob 1", "carol 1", "alice 3"]);
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn a_compaction_by_a_field_reads_it_from_the_messages() {
    let folder = Folder::new();
    let (log, to) = (path(&folder, "ticks.log"), path(&folder, "small.log"));
    temperatures(&log, 101);
    runs(&["compact", &log, "--to", &to, "--key", "symbol"]);
    let numbers: Vec<_> =
        lines(&["cat", &to]).iter().map(|line| line["message"]["number"].clone()).collect();
    assert_eq!(numbers, [99, 100]);

    let new = path(&folder, "new.log");
    let why = fails(&["compact", &log, "--to", &new, "--key", "colour"]);
    assert!(why.contains("colour") && why.contains("symbol"), "{why}");
    let bytes = path(&folder, "bytes.log");
    counted(&bytes, 1);
    let why = fails(&["compact", &bytes, "--to", &new, "--key", "symbol"]);
    assert!(why.contains("no fields"), "{why}");
    assert!(!Path::new(&new).exists() && leftovers(folder.path()).is_empty());
}

#[test]
fn what_is_damaged_is_left_out_of_a_compaction_and_said() {
    let folder = Folder::new();
    let (log, to) = (path(&folder, "kept.log"), path(&folder, "small.log"));
    made(&log, &[("a", b"a one"), ("b", b"b one"), ("a", b"a two")]);
    damage(&log, "a two");
    fails(&["compact", &log, "--to", &to, "--stop-on-damage"]);
    assert!(!Path::new(&to).exists());
    let ran = windlass(&["compact", &log, "--to", &to, "--json"]);
    assert_eq!((ran.status, &ran.json()["damaged"]), (Some(0), &1.into()), "{}", ran.stderr);
    assert!(ran.stderr.contains("message 2 "), "{}", ran.stderr);
    // The newest that there is.
    assert_eq!(texts(&to), ["a one", "b one"]);
}

#[test]
fn what_cannot_be_exported_or_imported_is_said_in_a_sentence() {
    let folder = Folder::new();
    let (log, file) = (path(&folder, "bytes.log"), path(&folder, "there.jsonl"));
    counted(&log, 2);
    std::fs::write(&file, "kept").expect("written");
    let why = fails(&["export", &log, "--format", "jsonl", "--to", &file]);
    assert!(why.contains("exists already"), "{why}");
    assert_eq!(std::fs::read(&file).expect("there"), b"kept");
    let why = fails(&["export", &log, "--format", "capnp", "--to", &path(&folder, "x")]);
    assert!(why.contains("jsonl"), "{why}");
    let why = fails(&["export", &log, "--format", "jsonl", "--to", &path(&folder, "no/where")]);
    assert!(why.contains("no/where"), "{why}");
    let why = fails(&["import", &path(&folder, "none.jsonl"), "--into", &log]);
    assert!(why.contains("none.jsonl"), "{why}");
    let why = fails(&["import", &log, "--into", &path(&folder, "y")]);
    assert!(why.contains("--format"), "{why}");
    let why = fails(&["import", &file, "--format", "capnp", "--into", &path(&folder, "y")]);
    assert!(why.contains("--schema-of"), "{why}");
    let why = fails(&["import", &file, "--into", &file]);
    assert!(why.contains("there.jsonl"), "{why}");
    for wrong in [
        &["import", "x.jsonl"][..],
        &["import", "x.jsonl", "--into", "y", "--topic", "z"],
        &["export", "x", "--to", "y"],
        &["export", "x", "--format", "csv", "--to", "y"],
        &["compact", "x"],
        &["compact", "x", "--to", "y", "--unkeyed", "lose"],
    ] {
        assert_eq!(windlass(wrong).status, Some(2), "{wrong:?}");
    }
    assert_eq!(leftovers(folder.path()), Vec::<String>::new());
}

#[test]
fn whoever_goes_on_with_a_log_is_told_what_a_crash_took_from_it() {
    let folder = Folder::new();
    let (whole, log, file) =
        (path(&folder, "whole.log"), path(&folder, "crashed.log"), path(&folder, "more.jsonl"));
    let topic = bytes_at(&whole);
    let mut publisher = topic.publisher().expect("a lane");
    for text in ["one", "two", "three"] {
        publisher.publish(text.as_bytes()).expect("there is room");
    }
    // What a crash leaves, before anything is known to be on disk: of the last message, all but a byte.
    std::fs::create_dir(&log).expect("it can be made");
    for entry in std::fs::read_dir(&whole).expect("a folder") {
        let file = entry.expect("an entry");
        std::fs::copy(file.path(), Path::new(&log).join(file.file_name())).expect("copied");
    }
    damage(&log, "three");
    std::fs::write(&file, "{\"text\":\"four\"}\n").expect("written");
    let ran = windlass(&["import", &file, "--into", &log]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    assert!(ran.stderr.contains("lost its newest 1 message"), "{}", ran.stderr);
    assert!(ran.stderr.contains("goes on with sequence 2"), "{}", ran.stderr);
    assert_eq!(texts(&log), ["one", "two", "four"]);
}
