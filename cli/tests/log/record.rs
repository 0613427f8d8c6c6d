//! `windlass record`.

use super::*;
use windlass::schemas::tick_capnp::tick;

#[test]
fn what_is_published_meanwhile_is_in_the_log_and_nothing_twice() {
    const EACH: u64 = 20_000;
    let folder = Folder::new();
    let (at, log) = (folder.bus("live"), path(&folder, "kept.log"));
    let bus = Bus::open(&at).expect("the bus exists");
    let topic = bus.topic::<Raw>("numbers").segment_bytes(16 << 10).open().expect("it is made");
    let count = (EACH * 2).to_string();
    let line = ["record", "numbers", "--bus", &at, "--to", &log, "--count", &count, "--json"];
    let recorder = Running::start(&line);
    until_subscribed(&bus, "numbers");
    std::thread::scope(|scope| {
        for writer in 0..2u64 {
            let topic = &topic;
            scope.spawn(move || {
                let mut publisher = topic.publisher().expect("a lane");
                for number in 0..EACH {
                    let payload = [writer.to_le_bytes(), number.to_le_bytes()].concat();
                    publisher.publish(&payload).expect("there is room");
                }
            });
        }
    });
    let ran = recorder.ends();
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let told = ran.json();
    assert_eq!((&told["messages"], &told["missed"]), (&(EACH * 2).into(), &0.into()), "{told}");
    assert_eq!(told["payload_bytes"], EACH * 2 * 16);
    let mut next = [0; 2];
    for (_, _, payload) in contents(&log) {
        let word = |at: usize| u64::from_le_bytes(payload[at..at + 8].try_into().expect("8 bytes"));
        let writer = word(0) as usize;
        assert_eq!(word(8), next[writer], "of writer {writer}");
        next[writer] += 1;
    }
    assert_eq!(next, [EACH; 2]);
}

#[test]
fn a_recording_goes_on_in_the_same_log_and_keeps_the_type() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("typed"), path(&folder, "ticks.log"));
    let bus = Bus::open(&at).expect("the bus exists");
    for round in 0..2 {
        let name = format!("ticks-{round}");
        let topic = bus.topic::<tick::Owned>(&name).open().expect("it is made");
        let recorder = Running::start(&["record", &name, "--bus", &at, "--to", &log]);
        until_subscribed(&bus, &name);
        publish_temperatures(&topic, round * 500..round * 500 + 500);
        topic.close();
        let ran = recorder.ends();
        assert_eq!(ran.status, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains("Recorded 500 messages of topic ticks-"), "{}", ran.stdout);
        assert!(ran.stdout.contains("The topic is closed."), "{}", ran.stdout);
    }
    let log = Log::<tick::Owned>::open(&log).expect("it has ticks");
    let rows = TEMPERATURES.lines().skip(1);
    assert_eq!(log.count().expect("sound"), 1000);
    for (row, message) in rows.zip(log.iter(..).expect("sound")) {
        let message = message.expect("sound");
        let price = message.get().expect("a tick").get_price();
        assert_eq!(row.split_once(',').expect("two columns").1.parse(), Ok(price));
    }
}

#[test]
fn what_was_there_before_is_recorded_when_asked_for() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("oldest"), path(&folder, "kept.log"));
    let topic = Bus::open(&at).expect("there").topic::<Raw>("texts").open().expect("it is made");
    let mut publisher = topic.publisher().expect("a lane");
    for text in ["one", "two"] {
        publisher.publish(text.as_bytes()).expect("there is room");
    }
    topic.close();
    let told = json(&["record", "texts", "--bus", &at, "--to", &log, "--oldest"]);
    assert_eq!((&told["messages"], &told["closed"]), (&2.into(), &true.into()), "{told}");
    assert_eq!(texts(&log), ["one", "two"]);
}

#[test]
fn keys_and_times_of_a_durable_topic_are_kept() {
    let folder = Folder::new();
    let (at, from, log) = (folder.bus("d"), path(&folder, "from.log"), path(&folder, "to.log"));
    made(&from, &[("a", b"first"), ("", b"second"), ("b", b"\xff\0")]);
    let topic = Bus::open(&at).expect("there").topic::<Raw>("kept").durable_at(&from);
    let _topic = topic.open().expect("it is opened");
    let line = ["record", "kept", "--bus", &at, "--to", &log, "--oldest", "--count", "3"];
    assert_eq!(json(&line)["messages"], 3);
    assert_eq!(contents(&log), contents(&from));
}

#[test]
fn what_a_lossy_topic_was_too_fast_with_is_counted() {
    const ALL: u64 = 50_000;
    let folder = Folder::new();
    let (at, log) = (folder.bus("lossy"), path(&folder, "kept.log"));
    let bus = Bus::open(&at).expect("the bus exists");
    let topic = bus.topic::<Raw>("numbers").lossy().segment_bytes(4096).segments_per_lane(4);
    let topic = topic.open().expect("it is made");
    let mut recorder = Running::start(&["record", "numbers", "--bus", &at, "--to", &log, "--json"]);
    until_subscribed(&bus, "numbers");
    recorder.signal(Signal::SIGSTOP);
    let mut publisher = topic.publisher().expect("a lane");
    for number in 0..ALL {
        publisher.publish(&number.to_le_bytes()).expect("nobody is waited for");
    }
    topic.close();
    recorder.signal(Signal::SIGCONT);
    let ran = recorder.ends();
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let told = ran.json();
    let (messages, missed) = (told["messages"].as_u64(), told["missed"].as_u64());
    let (messages, missed) = (messages.expect("a number"), missed.expect("a number"));
    assert!(missed > 0, "{told}");
    assert_eq!(messages + missed, ALL, "{told}");
    assert_eq!(contents(&log).len() as u64, messages);
}

#[test]
fn ctrl_c_ends_a_recording_in_order() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("ended"), path(&folder, "kept.log"));
    let bus = Bus::open(&at).expect("the bus exists");
    let topic = bus.topic::<Raw>("texts").open().expect("it is made");
    let mut recorder = Running::start(&["record", "texts", "--bus", &at, "--to", &log, "--json"]);
    until_subscribed(&bus, "texts");
    let mut publisher = topic.publisher().expect("a lane");
    publisher.publish(b"before").expect("there is room");
    // Opened anew each time: a log that is read does not go on by itself before it is there.
    let is_there = || Log::open_untyped(&log).is_ok_and(|log| log.count().is_ok_and(|n| n == 1));
    until("it is recorded", is_there);
    recorder.signal(Signal::SIGINT);
    let ran = recorder.ends();
    assert_eq!((ran.status, ran.stderr.as_str()), (Some(0), ""), "{}", ran.stdout);
    let told = ran.json();
    assert_eq!((&told["messages"], &told["closed"]), (&1.into(), &false.into()), "{told}");
    assert_eq!(texts(&log), ["before"]);
    // It holds nobody up any more.
    let info = bus.inspect("texts").expect("it is there");
    assert!(info.subscribers.is_empty(), "{info:?}");
}

#[test]
fn a_recording_ends_after_its_time() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("timed"), path(&folder, "kept.log"));
    Bus::open(&at).expect("there").topic::<Raw>("texts").open().expect("it is made");
    let told = json(&["record", "texts", "--bus", &at, "--to", &log, "--for", "50ms"]);
    assert_eq!(told["messages"], 0, "{told}");
    assert!(told["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.05), "{told}");
}

#[test]
fn a_log_has_the_options_that_it_was_made_with() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("options"), path(&folder, "kept.log"));
    Bus::open(&at).expect("there").topic::<Raw>("texts").open().expect("it is made");
    let line = ["record", "texts", "--bus", &at, "--to", &log, "--for", "1ms"];
    let options = ["--retain-bytes", "10MiB", "--retain-for", "7d", "--sync", "10ms"];
    runs(&[&line[..], &options, &["--segment-bytes", "64KiB"]].concat());
    let info = json(&["log", "info", &log]);
    assert_eq!(
        (&info["retain_bytes"], &info["segment_bytes"]),
        (&10_485_760.into(), &65_536.into())
    );
    assert_eq!(info["retain_for_ms"], 7 * 24 * 3_600_000);
    assert_eq!(info["sync"], "every 10ms", "{info}");
    let why = fails(&[&line[..], &["--segment-bytes", "128KiB"]].concat());
    assert!(why.contains("segment_bytes") && why.contains("65536"), "{why}");
}

#[test]
fn what_cannot_be_recorded_is_said_in_a_sentence() {
    let folder = Folder::new();
    let (at, log) = (folder.bus("bad"), path(&folder, "kept.log"));
    let bus = Bus::open(&at).expect("the bus exists");
    let why = fails(&["record", "nothing", "--bus", &at, "--to", &log]);
    assert!(why.contains("no topic nothing"), "{why}");
    assert!(!Path::new(&log).exists(), "nothing was recorded");
    bus.topic::<tick::Owned>("ticks").open().expect("it is made");
    counted(&log, 1);
    let why = fails(&["record", "ticks", "--bus", &at, "--to", &log]);
    assert!(why.contains("raw bytes") && why.contains("Cap'n Proto"), "{why}");
    let nowhere = path(&folder, "nowhere/kept.log");
    let why = fails(&["record", "ticks", "--bus", &at, "--to", &nowhere]);
    assert!(why.contains("nowhere"), "{why}");
    bus.topic::<Raw>("texts").open().expect("it is made");
    let _user = bytes_at(&log);
    let why = fails(&["record", "texts", "--bus", &at, "--to", &log]);
    assert!(why.contains("in use by"), "{why}");
    for wrong in [
        &["record", "texts"][..],
        &["record", "--to", "x"],
        &["record", "texts", "--to", "x", "--sync", "often"],
        &["record", "texts", "--to", "x", "--for", "0s"],
        &["record", "texts", "--to", "x", "--count", "0"],
        &["record", "texts", "--to", "x", "--retain-bytes", "many"],
    ] {
        assert_eq!(windlass(wrong).status, Some(2), "{wrong:?}");
    }
}
