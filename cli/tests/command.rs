//! The built binary, as a shell sees it: exit statuses, what is printed where, and what is left
//! behind.

mod common;

use common::{windlass, Folder};

#[test]
fn wrong_usage_is_status_2() {
    for line in [
        &[][..],
        &["frobnicate"],
        &["demo", "--seconds", "0"],
        &["demo", "--seconds", "soon"],
        &["info"],
        &["list", "--bus"],
    ] {
        let ran = windlass(line);
        assert_eq!(ran.status, Some(2), "{line:?}");
        // It says what would have been right, or where to read it.
        assert!(ran.stderr.contains("Usage") || ran.stderr.contains("--help"), "{}", ran.stderr);
        assert!(ran.stdout.is_empty(), "{line:?}: {}", ran.stdout);
    }
}

#[test]
fn help_is_a_success_with_examples() {
    for line in [&["--help"][..], &["demo", "--help"], &["list", "--help"], &["info", "--help"]] {
        let ran = windlass(line);
        assert_eq!(ran.status, Some(0), "{line:?}");
        assert!(ran.stdout.contains("Examples:"), "{line:?}: {}", ran.stdout);
    }
}

#[test]
fn children_of_the_demo_are_not_advertised() {
    assert!(!windlass(&["--help"]).stdout.contains("demo-"));
}

#[test]
fn missing_bus_is_a_sentence_and_status_1() {
    let folder = Folder::new();
    let bus = folder.path().join("missing");
    let bus_text = bus.display().to_string();
    for command in [&["list"][..], &["info", "readings"], &["doctor"]] {
        let ran = windlass(&[command, &["--bus", &bus_text]].concat());
        assert_eq!(ran.status, Some(1), "{command:?}");
        assert!(ran.stdout.is_empty(), "{command:?}: {}", ran.stdout);
        common::assert_one_sentence(&ran.stderr);
        assert!(ran.stderr.contains(&bus_text), "{command:?}: {}", ran.stderr);
        assert!(!bus.exists(), "{command:?} made the bus that it was to look at");
    }
}

#[test]
fn empty_bus_has_no_topics_and_nothing_to_repair() {
    let folder = Folder::new();
    let bus = folder.bus("empty");
    let list = windlass(&["list", "--bus", &bus]);
    assert_eq!(list.status, Some(0), "{}", list.stderr);
    assert!(list.stdout.contains("no topics"), "{}", list.stdout);
    let list = windlass(&["list", "--bus", &bus, "--json"]).json();
    assert_eq!(list["topics"], serde_json::json!([]));
    let doctor = windlass(&["doctor", "--bus", &bus, "--json"]);
    assert_eq!(doctor.status, Some(0), "{}", doctor.stderr);
    assert_eq!(doctor.json()["repaired"], 0);
    let info = windlass(&["info", "readings", "--bus", &bus]);
    assert_eq!(info.status, Some(1));
    common::assert_one_sentence(&info.stderr);
}

#[test]
fn list_and_info_describe_a_topic() {
    let folder = Folder::new();
    let path = folder.bus("described");
    let bus = windlass::Bus::open(&path).expect("the bus exists");
    let topic = bus.topic::<windlass::Raw>("ticks").lossy().open().expect("it is made");
    let mut publisher = topic.publisher().expect("there is room");
    let mut subscriber = topic.subscriber(windlass::Start::Oldest).expect("there is room");
    for n in 0..5u64 {
        publisher.publish(&n.to_le_bytes()).expect("there is room");
    }
    assert!(subscriber.try_recv().expect("it works").is_some());

    let list = windlass(&["list", "--bus", &path, "--json"]).json();
    assert_eq!(list["topics"][0]["name"], "ticks");
    let info = windlass(&["info", "ticks", "--bus", &path, "--json"]).json();
    assert_eq!(info["delivery"], "lossy");
    assert_eq!(info["publishers"][0]["pid"], std::process::id());
    assert_eq!(info["publishers"][0]["published"], 5);
    assert_eq!(info["subscribers"][0]["alive"], true);
    let page = windlass(&["info", "ticks", "--bus", &path]);
    assert!(page.stdout.contains("lossy") && page.stdout.contains("publisher"), "{}", page.stdout);
}

#[test]
fn reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    let bus = folder.bus("unread");
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let ran = common::command(&["list", "--bus", &bus]).stdout(writer).output().expect("it runs");
    assert_eq!(ran.status.code(), Some(0));
    assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
}
