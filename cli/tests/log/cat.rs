//! `windlass cat`.

use super::*;
use std::io::{BufRead, BufReader};

fn sequences(line: &[&str]) -> Vec<u64> {
    lines(line).iter().map(|line| line["sequence"].as_u64().expect("a number")).collect()
}

#[test]
fn messages_of_a_type_are_shown_by_the_schema_that_the_log_stores() {
    let folder = Folder::new();
    let log = path(&folder, "ticks.log");
    temperatures(&log, 4);
    let shown = lines(&["cat", &log]);
    assert_eq!(shown.len(), 4);
    for (n, (line, row)) in shown.iter().zip(TEMPERATURES.lines().skip(1)).enumerate() {
        assert_eq!((&line["sequence"], &line["lane"]), (&n.into(), &0.into()), "{line}");
        assert_eq!(line["message"]["number"], n);
        let value: f64 = row.split_once(',').expect("two columns").1.parse().expect("a number");
        assert_eq!(line["message"]["price"], value);
        assert!(line["time"].as_str().is_some_and(|time| time.ends_with('Z')), "{line}");
        assert!(line["key"].is_null() && line["problem"].is_null(), "{line}");
    }
    let page = runs(&["cat", &log, "--last", "1", "--pretty"]);
    assert!(page.contains("\n  \"message\": {\n    \"symbol\": \"odd\",\n"), "{page}");
    let one: serde_json::Value = serde_json::from_str(&page).expect("one object");
    assert_eq!(one, shown[3]);
    let raw = common::command(&["cat", &log, "--raw"]).output().expect("it runs").stdout;
    let payloads: Vec<_> = contents(&log).into_iter().map(|(.., payload)| payload).collect();
    assert_eq!(raw, payloads.concat());
}

#[test]
fn bytes_are_text_or_base64_and_keys_are_shown() {
    let folder = Folder::new();
    let log = path(&folder, "bytes.log");
    made(&log, &[("alice", "grün".as_bytes()), ("", b"\xff\0"), ("bob", b"")]);
    let expected = [
        r#"{"sequence":0,"time":"1970-01-01T00:00:01.000000000Z","lane":0,"key":"alice","text":"grün"}"#,
        r#"{"sequence":1,"time":"1970-01-01T00:00:02.000000000Z","lane":0,"base64":"/wA="}"#,
        r#"{"sequence":2,"time":"1970-01-01T00:00:03.000000000Z","lane":0,"key":"bob","text":""}"#,
    ];
    assert_eq!(runs(&["cat", &log]), expected.join("\n") + "\n");
    assert_eq!(sequences(&["cat", &log, "--key", "bob"]), [2]);
    let heads = lines(&["cat", &log, "--head"]);
    let bytes: Vec<_> = heads.iter().map(|head| head["payload_bytes"].clone()).collect();
    assert_eq!(bytes, [5, 2, 0]);
    assert!(heads[0]["text"].is_null());
}

#[test]
fn a_range_is_by_sequence_by_number_or_by_time() {
    let folder = Folder::new();
    let log = path(&folder, "kept.log");
    counted(&log, 10);
    let shown = |more: &[&str]| sequences(&[&["cat", &log], more].concat());
    assert_eq!(shown(&["--from", "8"]), [8, 9]);
    assert_eq!(shown(&["--from", "3", "--to", "5"]), [3, 4]);
    assert_eq!(shown(&["--last", "2"]), [8, 9]);
    assert_eq!(shown(&["--since", "1970-01-01T00:00:09Z"]), [8, 9]);
    assert_eq!(shown(&["--since", "@3500000000", "--until", "1970-01-01 00:00:06"]), [3, 4]);
    assert!(shown(&["--since", "1h"]).is_empty());
    let why = fails(&["cat", &log, "--from", "11"]);
    assert!(why.contains("no message 11") && why.contains("next one is 10"), "{why}");
}

#[test]
fn damaged_messages_are_named_and_left_out_or_end_it() {
    let folder = Folder::new();
    let log = path(&folder, "kept.log");
    counted(&log, 5);
    damage(&log, "message 3");
    let ran = windlass(&["cat", &log]);
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let shown: Vec<_> = objects(&ran.stdout).iter().map(|line| line["sequence"].clone()).collect();
    assert_eq!(shown, [0, 1, 2, 4]);
    assert!(ran.stderr.contains("message 3 is not what was published"), "{}", ran.stderr);
    assert!(ran.stderr.contains("1 damaged message was left out"), "{}", ran.stderr);
    let ran = windlass(&["cat", &log, "--stop-on-damage"]);
    assert_eq!((ran.status, ran.stdout.lines().count()), (Some(1), 3), "{}", ran.stdout);
    common::assert_one_sentence(&ran.stderr);
}

#[test]
fn a_topic_without_a_log_shows_what_it_still_has() {
    let folder = Folder::new();
    let at = folder.bus("live");
    let topic = Bus::open(&at).expect("there").topic::<Raw>("texts").open().expect("it is made");
    let mut publisher = topic.publisher().expect("a lane");
    for text in ["one", "two", "three"] {
        publisher.publish(text.as_bytes()).expect("there is room");
    }
    let shown = lines(&["cat", "texts", "--bus", &at]);
    let texts: Vec<_> = shown.iter().map(|line| line["text"].as_str().expect("text")).collect();
    assert_eq!(texts, ["one", "two", "three"]);
    assert!(shown[0]["time"].is_null());
    assert_eq!(sequences(&["cat", "texts", "--bus", &at, "--last", "1"]), [2]);
    let why = fails(&["cat", "texts", "--bus", &at, "--since", "1h"]);
    assert!(why.contains("no times"), "{why}");
}

/// Follows something, and returns its lines once there are as many as `count`.
fn follow(line: &[&str], count: usize, more: impl FnOnce(), end: impl FnOnce(&mut Running)) -> Ran {
    let mut cat = Running::start(line);
    let out = cat.child().stdout.take().expect("a pipe");
    let (line_came, came) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines() {
            let _ = line_came.send(line.expect("it prints text"));
        }
    });
    let mut shown = vec![came.recv_timeout(PATIENCE).expect("the first one")];
    more();
    while shown.len() < count {
        shown.push(came.recv_timeout(PATIENCE).expect("another one"));
    }
    end(&mut cat);
    let ran = cat.ends();
    shown.extend(came.iter());
    Ran { stdout: shown.join("\n"), ..ran }
}

#[test]
fn a_log_is_followed_until_ctrl_c() {
    let folder = Folder::new();
    let log = path(&folder, "kept.log");
    let topic = bytes_at(&log);
    let mut publisher = topic.publisher().expect("a lane");
    publisher.publish(b"first").expect("there is room");
    let more = || {
        for n in 0..100 {
            publisher.publish(format!("later {n}").as_bytes()).expect("there is room");
        }
    };
    let ran = follow(&["cat", &log, "--follow"], 101, more, |cat| cat.signal(Signal::SIGINT));
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""));
    let shown = objects(&ran.stdout);
    assert_eq!(shown.len(), 101);
    for (n, line) in shown.iter().enumerate() {
        assert_eq!(line["sequence"], n);
    }
    assert_eq!(shown[100]["text"], "later 99");
}

#[test]
fn topics_are_followed_until_they_are_closed() {
    let folder = Folder::new();
    let at = folder.bus("followed");
    let bus = Bus::open(&at).expect("there");
    for name in ["volatile", "durable"] {
        let topic = bus.topic::<Raw>(name);
        let topic = match name {
            "durable" => topic.durable_at(path(&folder, "kept.log")).segment_bytes(64 << 10),
            _ => topic,
        };
        let topic = topic.open().expect("it is made");
        let mut publisher = topic.publisher().expect("a lane");
        publisher.publish(b"first").expect("there is room");
        let more = || {
            publisher.publish(b"second").expect("there is room");
            topic.close();
        };
        let ran = follow(&["cat", name, "--bus", &at, "--follow"], 2, more, |_| {});
        assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{name}");
        let shown = objects(&ran.stdout);
        let texts: Vec<_> = shown.iter().map(|line| line["text"].clone()).collect();
        assert_eq!(texts, ["first", "second"], "{name}");
    }
}

#[test]
fn a_reader_that_has_enough_is_no_error() {
    let folder = Folder::new();
    let log = path(&folder, "kept.log");
    counted(&log, 5000);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    for line in [&["cat", &log][..], &["export", &log, "--format", "jsonl", "--to", "-"]] {
        let out = writer.try_clone().expect("a pipe");
        let ran = common::command(line).stdout(out).output().expect("it runs");
        assert_eq!(ran.status.code(), Some(0), "{line:?}");
        assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
    }
}

#[test]
fn what_is_nowhere_is_said_in_a_sentence() {
    let folder = Folder::new();
    let at = folder.bus("bare");
    for line in [
        &["cat", "nothing", "--bus", &at][..],
        &["cat", "nothing", "--bus", "/nowhere/at/all"],
        &["cat", "./nothing"],
        &["cat", "/dev/null"],
        &["cat", &at],
    ] {
        fails(line);
    }
    for wrong in [&["cat"][..], &["cat", "x", "--raw", "--pretty"], &["cat", "x", "--to", "soon"]] {
        assert_eq!(windlass(wrong).status, Some(2), "{wrong:?}");
    }
}
