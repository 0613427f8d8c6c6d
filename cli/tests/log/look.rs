//! `windlass verify`, `log info` and `cursors`, and what the commands for buses say of durable topics.

use super::*;
use windlass::{Start, SyncPolicy};

#[test]
fn a_sound_log_is_verified() {
    let folder = Folder::new();
    let log = path(&folder, "ticks.log");
    temperatures(&log, 2000);
    let told = json(&["verify", &log]);
    assert_eq!((&told["messages"], &told["next"]), (&2000.into(), &2000.into()), "{told}");
    assert_eq!(told["damaged"], serde_json::json!([]));
    let page = runs(&["verify", &log]);
    assert!(
        page.contains("2 000 messages are sound") && page.contains("none is damaged"),
        "{page}"
    );
    let empty = path(&folder, "empty.log");
    drop(bytes_at(&empty));
    assert_eq!(json(&["verify", &empty])["messages"], 0);
}

#[test]
fn a_byte_that_changed_is_named_by_its_message() {
    let folder = Folder::new();
    let log = path(&folder, "kept.log");
    counted(&log, 3000);
    damage(&log, "message 1234");
    damage(&log, "message 2500");
    let ran = windlass(&["verify", &log, "--json"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    let told = ran.json();
    let damaged: Vec<_> = told["damaged"].as_array().expect("a list").iter().collect();
    let sequences: Vec<_> = damaged.iter().map(|one| one["sequence"].clone()).collect();
    assert_eq!(sequences, [1234, 2500], "{told}");
    assert_eq!(told["messages"], 2998);
    let ran = windlass(&["verify", &log]);
    assert_eq!(ran.status, Some(1));
    assert!(
        ran.stdout.contains("Damaged: message 1234: its checksum is wrong (lane-0-"),
        "{}",
        ran.stdout
    );
}

#[test]
fn a_segment_that_is_gone_is_named_by_its_messages() {
    let folder = Folder::new();
    let log = path(&folder, "kept.log");
    counted(&log, 5000);
    std::fs::remove_file(format!("{log}/lane-0-000000000001")).expect("it is there");
    let ran = windlass(&["verify", &log, "--json"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stderr);
    let told = ran.json();
    let damaged = told["damaged"].as_array().expect("a list");
    assert!(damaged.len() > 100, "{}", damaged.len());
    assert!(damaged[0]["what"].as_str().is_some_and(|what| what.contains("gone")), "{told}");
    let all = [&told["messages"], &told["damaged_messages"]];
    assert_eq!(all.iter().filter_map(|n| n.as_u64()).sum::<u64>(), 5000, "{told}");
}

#[test]
fn a_log_says_what_it_is() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("used"), path(&folder, "kept.log"));
    made(&log, &[("a", b"one"), ("", b"three"), ("b", b"seven")]);
    let told = json(&["log", "info", &log]);
    assert_eq!(
        (&told["messages"], &told["first"], &told["next"]),
        (&3.into(), &0.into(), &3.into())
    );
    assert_eq!(told["first_time"], "1970-01-01T00:00:01.000000000Z");
    assert_eq!(told["last_time"], "1970-01-01T00:00:03.000000000Z");
    assert_eq!((&told["used_by"], &told["schema"]), (&().into(), &().into()), "{told}");
    assert!(told["payload_bytes"].is_null() && told["disk_bytes"].as_u64() > Some(64 << 10));
    let told = json(&["log", "info", &log, "--count"]);
    assert_eq!((&told["payload_bytes"], &told["key_bytes"]), (&13.into(), &2.into()), "{told}");
    assert_eq!(told["lanes"]["0"], 3);

    let bus = Bus::open(&at).expect("there");
    let topic = bus.topic::<Raw>("kept").durable_at(&log).open().expect("it is opened");
    let told = json(&["log", "info", &log]);
    let user = told["used_by"].as_str().expect("it is in use");
    assert!(user.contains("topic kept") && user.contains(&at), "{user}");
    // By the name of the topic as well.
    assert_eq!(json(&["log", "info", "kept", "--bus", &at])["log"], told["log"]);
    let page = runs(&["log", "info", &log]);
    assert!(page.contains("topic kept") && page.contains("3: first 0, next 3"), "{page}");
    drop(topic);
    assert!(json(&["log", "info", &log])["used_by"].is_null());
}

#[test]
fn durable_topics_are_listed_described_and_examined() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("kept"), path(&folder, "kept.log"));
    let bus = Bus::open(&at).expect("there");
    bus.topic::<Raw>("other").open().expect("it is made");
    let topic = bus.topic::<Raw>("kept").durable_at(&log).segment_bytes(64 << 10);
    let topic = topic.sync(SyncPolicy::Each).open().expect("it is made");
    let mut publisher = topic.publisher().expect("a lane");
    let _subscriber = topic.subscriber(Start::Latest).expect("a slot");
    for text in ["one", "two"] {
        publisher.publish(text.as_bytes()).expect("there is room");
    }
    let list = json(&["list", "--bus", &at]);
    let kept = &list["topics"][0];
    assert_eq!((&kept["name"], &kept["delivery"]), (&"kept".into(), &"durable, ordered".into()));
    assert_eq!((&kept["log"], &kept["published"]), (&log.as_str().into(), &2.into()), "{list}");
    assert_eq!((&kept["first"], &kept["next"], &kept["synced"]), (&0.into(), &2.into(), &2.into()));
    assert!(kept["disk_bytes"].as_u64() > Some(64 << 10), "{list}");
    assert!(list["topics"][1]["log"].is_null(), "{list}");
    let page = runs(&["list", "--bus", &at]);
    assert!(page.contains("on disk") && page.contains("durable"), "{page}");

    let info = json(&["info", "kept", "--bus", &at]);
    assert_eq!((&info["log"], &info["sync"]), (&log.as_str().into(), &"each".into()), "{info}");
    assert_eq!((&info["segments_per_lane"], &info["synced"]), (&().into(), &2.into()), "{info}");
    assert_eq!(info["subscribers"][0]["lag_messages"], 2);
    let page = runs(&["info", "kept", "--bus", &at]);
    assert!(page.contains(&log) && page.contains("all below 2 are on disk"), "{page}");
    assert_eq!(json(&["doctor", "--bus", &at])["damaged"], serde_json::json!([]));

    // A log that is gone is damage, and hides nothing else.
    std::fs::remove_dir_all(&log).expect("it is there");
    let list = json(&["list", "--bus", &at]);
    assert!(
        list["topics"][0]["error"].as_str().is_some_and(|why| why.contains("kept.log")),
        "{list}"
    );
    assert_eq!(list["topics"][1]["name"], "other");
    let ran = windlass(&["doctor", "--bus", &at, "--json"]);
    assert_eq!(ran.status, Some(1), "{}", ran.stdout);
    assert!(ran.json()["damaged"][0].as_str().is_some_and(|why| why.contains("topic kept")));
}

/// A topic `orders` with its log, five messages, and the cursors `billing` at 3 and `audit` at nothing.
fn orders(folder: &Folder, at: &str) -> (Topic<Raw>, String) {
    let log = path(folder, "orders.log");
    let bus = Bus::open(at).expect("there");
    let topic = bus.topic::<Raw>("orders").durable_at(&log).segment_bytes(64 << 10);
    let topic = topic.open().expect("it is made");
    let mut publisher = topic.publisher().expect("a lane");
    for n in 0..5 {
        publisher.publish(format!("order {n}").as_bytes()).expect("there is room");
    }
    topic.cursor("billing").expect("nobody holds it").commit(3).expect("there are so many");
    drop(topic.cursor("audit").expect("nobody holds it"));
    (topic, log)
}

#[test]
fn cursors_are_listed_with_who_holds_them() {
    let folder = Folder::new();
    let at = folder.bus("cursors");
    let (topic, log) = orders(&folder, &at);
    let _held = topic.cursor("audit").expect("nobody holds it");
    for place in [&["orders", "--bus", &at][..], &[&log]] {
        let told = json(&[&["cursors"], place].concat());
        let (audit, billing) = (&told["cursors"][0], &told["cursors"][1]);
        assert_eq!((&audit["name"], &audit["next"]), (&"audit".into(), &().into()), "{told}");
        let holder = format!("process {}", std::process::id());
        assert_eq!((&audit["lag"], &audit["held_by"]), (&5.into(), &holder.into()), "{told}");
        assert_eq!((&billing["next"], &billing["lag"]), (&3.into(), &2.into()), "{told}");
        assert!(billing["held_by"].is_null() && billing["time"].is_string(), "{told}");
    }
    let page = runs(&["cursors", &log]);
    assert!(page.contains("billing") && page.contains("held by"), "{page}");
    let info = json(&["log", "info", &log]);
    assert_eq!(info["cursors"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_cursor_is_put_elsewhere_by_topic_while_it_is_used_and_by_log_when_it_is_not() {
    let folder = Folder::new();
    let at = folder.bus("reset");
    let (topic, log) = orders(&folder, &at);
    let told = json(&["cursors", "reset", "billing", "orders", "--bus", &at, "--to", "oldest"]);
    assert_eq!((&told["before"], &told["next"]), (&3.into(), &0.into()), "{told}");
    assert_eq!(topic.cursor("billing").expect("nobody holds it").next(), Some(0));
    let why = fails(&["cursors", "reset", "billing", &log, "--to", "2"]);
    assert!(why.contains("topic orders") && why.contains(&at), "{why}");
    let held = topic.cursor("billing").expect("nobody holds it");
    let why = fails(&["cursors", "reset", "billing", "orders", "--bus", &at, "--to", "2"]);
    assert!(why.contains(&format!("process {}", std::process::id())), "{why}");
    drop((held, topic));

    for (to, next) in [("2", 2), ("latest", 5), ("1h", 0)] {
        let told = json(&["cursors", "reset", "billing", &log, "--to", to]);
        assert_eq!(told["next"], next, "{to}: {told}");
    }
    let why = fails(&["cursors", "reset", "billing", &log, "--to", "6"]);
    assert!(why.contains('6') && why.contains('5'), "{why}");
    let why = fails(&["cursors", "reset", "billling", &log, "--to", "oldest"]);
    assert!(why.contains("audit, billing"), "{why}");
    let told = json(&["cursors", "remove", "billing", &log]);
    assert_eq!(told["removed"], true, "{told}");
    assert_eq!(json(&["cursors", &log])["cursors"].as_array().map(Vec::len), Some(1));
}

#[test]
fn what_cannot_be_looked_at_is_said_in_a_sentence() {
    let folder = Folder::new();
    let at = folder.bus("bad");
    let missing = path(&folder, "missing.log");
    Bus::open(&at).expect("there").topic::<Raw>("volatile").open().expect("it is made");
    for command in [&["verify"][..], &["log", "info"], &["cursors"]] {
        let why = fails(&[command, &[&missing]].concat());
        assert!(why.contains("missing.log"), "{why}");
        let why = fails(&[command, &["volatile", "--bus", &at]].concat());
        assert!(why.contains("has no log"), "{why}");
    }
    for wrong in [
        &["verify"][..],
        &["log"],
        &["log", "info"],
        &["cursors"],
        &["cursors", "reset", "x", "y"],
        &["cursors", "reset", "x", "y", "--to", "soon"],
    ] {
        assert_eq!(windlass(wrong).status, Some(2), "{wrong:?}");
    }
    for command in ["record", "replay", "cat", "verify", "compact", "export", "import", "cursors"] {
        assert!(runs(&[command, "--help"]).contains("Examples:"), "{command}");
    }
}
