//! Options, names and permissions: what is wrong is refused, with a sentence that says what.

use super::process::{Actor, Den, Line, Role, Scene};
use std::os::unix::fs::{symlink, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use windlass::{Bus, Error, ErrorKind, Policy, Raw, TopicBuilder};

pub const ROLES: &[(&str, Role)] = &[("options.named", named), ("options.visitor", visitor)];

type Builder = TopicBuilder<Raw>;
type Set = fn(Builder) -> Builder;

fn anonymous() -> Bus {
    Bus::anonymous().expect("there is memory for a bus")
}

fn refused<V>(result: Result<V, Error>, kind: ErrorKind) -> String {
    let error = result.map(drop).expect_err("it must be refused");
    assert_eq!(error.kind(), kind, "{error}");
    let text = error.to_string();
    assert!(!text.ends_with('.') && !text.contains('\n'), "one sentence, no full stop: {text}");
    text
}

#[test]
fn every_option_that_differs_is_named_with_both_values() {
    let bus = anonymous();
    let create = bus.topic::<Raw>("t").ordered().order_slots(512).segment_bytes(8192);
    let create = create.segments_per_lane(4).publishers_max(3).subscribers_max(5).prefault(false);
    create.evict_after(Duration::from_millis(7)).mode(0o640).create().expect("it is new");
    let cases: &[(Set, &str, &str, &str)] = &[
        (|builder| builder.lossy(), "policy", "reliable", "lossy"),
        (|builder| builder.segment_bytes(4096), "segment_bytes", "8192", "4096"),
        (|builder| builder.segments_per_lane(8), "segments_per_lane", "4", "8"),
        (|builder| builder.publishers_max(4), "publishers_max", "3", "4"),
        (|builder| builder.subscribers_max(64), "subscribers_max", "5", "64"),
        (|builder| builder.ordered().order_slots(256), "order_slots", "512", "256"),
        (
            |builder| builder.evict_after(Duration::from_millis(8)),
            "evict_after",
            "7000000",
            "8000000",
        ),
        (|builder| builder.prefault(true), "prefault", "false", "true"),
        (|builder| builder.mode(0o600), "mode", "0640", "0600"),
    ];
    for (set, option, stored, wanted) in cases {
        for open in [Builder::open, Builder::open_existing] {
            let text = refused(open(set(bus.topic("t"))), ErrorKind::Mismatch);
            for part in [*option, *stored, *wanted] {
                assert!(text.contains(part), "\"{text}\" does not say {part}");
            }
        }
    }
    let plain = bus.topic::<Raw>("plain").create().expect("it is new");
    let text = refused(bus.topic::<Raw>("plain").ordered().open(), ErrorKind::Mismatch);
    assert!(text.contains("ordered false, not true"), "{text}");
    assert!(!plain.info().expect("it is sound").ordered);
}

#[test]
fn options_that_are_not_set_are_taken_from_the_topic() {
    let bus = anonymous();
    let create = bus.topic::<Raw>("t").ordered().order_slots(512).segment_bytes(8192);
    let create = create.segments_per_lane(4).publishers_max(3).subscribers_max(5).prefault(false);
    create.evict_after(Duration::from_millis(7)).mode(0o640).create().expect("it is new");
    for topic in [bus.topic::<Raw>("t").open(), bus.topic::<Raw>("t").open_existing()] {
        let info = topic.expect("nothing differs").info().expect("it is sound");
        assert_eq!((info.name.as_str(), info.policy, info.ordered), ("t", Policy::Reliable, true));
        assert_eq!((info.segment_bytes, info.segments_per_lane), (8192, 4));
        assert_eq!((info.publishers_max, info.subscribers_max), (3, 5));
        assert_eq!((info.order_slots, info.mode, info.prefault), (512, 0o640, false));
        assert_eq!(info.evict_after, Some(Duration::from_millis(7)));
        assert_eq!(info.schema, None);
    }
    let same = bus.topic::<Raw>("t").segment_bytes(8192).ordered().reliable();
    same.open().expect("the same values are no difference");
}

#[test]
fn values_outside_their_range_are_refused_with_the_range() {
    let bus = anonymous();
    let cases: &[(Set, &str)] = &[
        (
            |builder| builder.segment_bytes(0),
            "segment_bytes is 0, expected a power of two from 4096",
        ),
        (|builder| builder.segment_bytes(2048), "segment_bytes is 2048"),
        (|builder| builder.segment_bytes(5000), "segment_bytes is 5000"),
        (|builder| builder.segment_bytes(1 << 31), "to 1073741824"),
        (|builder| builder.segments_per_lane(1), "segments_per_lane is 1, expected from 2 to 256"),
        (|builder| builder.segments_per_lane(257), "segments_per_lane is 257"),
        (
            |builder| builder.lossy().segments_per_lane(2),
            "segments_per_lane is 2, expected at least 3",
        ),
        (
            |builder| builder.evict_after(Duration::from_secs(1)).segments_per_lane(2),
            "segments_per_lane is 2, expected at least 3",
        ),
        (|builder| builder.publishers_max(0), "publishers_max is 0, expected from 1 to 64"),
        (|builder| builder.publishers_max(65), "publishers_max is 65"),
        (|builder| builder.subscribers_max(0), "subscribers_max is 0, expected from 1 to 1024"),
        (|builder| builder.subscribers_max(u32::MAX), "subscribers_max is 4294967295"),
        (
            |builder| builder.ordered().order_slots(100),
            "order_slots is 100, expected a power of two",
        ),
        (|builder| builder.ordered().order_slots(128), "order_slots is 128"),
        (|builder| builder.ordered().order_slots(1 << 28), "to 134217728"),
        (|builder| builder.order_slots(512), "order_slots needs ordered()"),
        (
            |builder| builder.lossy().evict_after(Duration::from_secs(1)),
            "evict_after needs reliable()",
        ),
        (|builder| builder.mode(0o1777), "mode is 1023"),
        (|builder| builder.mode(0o400), "mode is 0400"),
        (|builder| builder.mode(0o666), "mode is 0666"),
    ];
    for (set, said) in cases {
        for open in [Builder::open, Builder::create, Builder::open_existing] {
            let text = refused(open(set(bus.topic("t"))), ErrorKind::Invalid);
            assert!(text.contains(said), "\"{text}\" does not say \"{said}\"");
        }
    }
    assert!(bus.topics().expect("it can be listed").is_empty(), "nothing was made");
}

#[test]
fn names_that_could_mean_something_else_are_refused() {
    let den = Den::new();
    let bus = den.bus();
    let long = "x".repeat(101);
    for name in ["", ".", "..", ".hidden", "a/b", "../up", "a b", "ä", "a\0b", "a\n", &long] {
        let text = refused(bus.topic::<Raw>(name).create(), ErrorKind::Invalid);
        assert!(text.contains("cannot be the name of a topic"), "{text}");
        refused(bus.inspect(name), ErrorKind::Invalid);
        refused(bus.remove_topic(name), ErrorKind::Invalid);
    }
    for name in ["a", "A.b-c_9", &long[1..]] {
        bus.topic::<Raw>(name).create().expect("a good name");
    }
    let mut names = bus.topics().expect("they can be listed");
    names.sort();
    assert_eq!(names, ["A.b-c_9", "a", &long[1..]]);
    for name in ["", "a b", ".hidden", &long] {
        let text = refused(Bus::open(name), ErrorKind::Invalid);
        assert!(text.contains("cannot be the name of a bus"), "{text}");
    }
    refused(Bus::open("/nowhere/at/all/bus"), ErrorKind::NotFound);
    refused(Bus::open("/"), ErrorKind::Invalid);
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("it is there").permissions().mode() & 0o7777
}

#[test]
fn files_and_folders_have_exactly_the_mode_asked_for() {
    let den = Den::new();
    let bus = den.bus();
    let folder = den.path().join("bus");
    assert_eq!((mode(&folder), mode(&folder.join("bus"))), (0o700, 0o600));
    // A folder of the group hands the group on, and only the owner of a file in it removes it.
    let modes = [("own", 0o600, 0o600, 0o700), ("group", 0o660, 0o640, 0o3770)];
    for (name, files, lane, inside) in modes.into_iter().chain([("seen", 0o640, 0o640, 0o3750)]) {
        let topic = bus.topic::<Raw>(name).mode(files).ordered().create().expect("it is new");
        let _publisher = topic.publisher().expect("there is a lane");
        let folder = folder.join(format!("{name}.topic"));
        for (file, files) in [("control", files), ("order", files), ("lane-0", lane)] {
            assert_eq!(mode(&folder.join(file)), files, "{name}: {file}");
        }
        assert_eq!(mode(&folder), inside, "{name}");
    }
    let path = den.path().join("shared").display().to_string();
    let shared = Bus::options().group().open(&path).expect("it is new");
    assert_eq!(mode(Path::new(&path)), 0o3770);
    assert_eq!(
        shared.topic::<Raw>("t").create().expect("it is new").info().expect("sound").mode,
        0o660
    );
}

/// Opens the bus called `name`, and says `opened PATH`, or `refused KIND` and the sentence.
fn named(scene: &Scene, line: &mut Line) {
    match Bus::open(scene.text("name")) {
        Ok(bus) => line.say(format_args!("opened {}", bus.path().display())),
        Err(error) => line.say(format_args!("refused {:?} {error}", error.kind())),
    }
}

/// Runs `named` as user `user`, with `root` as the directory of all buses if it is not empty.
fn open_as(den: &Den, user: Option<u32>, root: &str) -> String {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its binary"));
    command.env("WINDLASS_ROOT", root);
    if let Some(user) = user {
        command.uid(user).gid(user);
    }
    let mut actor = Actor::process_by(command, den, "options.named", "name=b");
    let said = actor.hear_any().expect("it says one thing");
    actor.finish();
    said
}

/// A user that nobody is, and the directory of its buses, removed when dropped.
struct Nobody {
    user: u32,
    root: String,
}

impl Nobody {
    fn new(offset: u32) -> Self {
        // Tests of several processes must not meet.
        let user = 1_000_000_000 + std::process::id() * 8 + offset;
        Self { user, root: format!("/dev/shm/windlass-{user}") }
    }
}

impl Drop for Nobody {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.root);
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

fn set_mode(path: &str, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("it is ours");
}

/// Whether this process may play other users, and they may run this binary.
fn may_play_others(den: &Den) -> bool {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: only root can play other users");
        return false;
    }
    let exe = std::env::current_exe().expect("a test knows its binary");
    let mut command = Command::new(exe);
    let runs = command.uid(1_000_000_000).arg("--list").current_dir(den.path()).output();
    if !runs.is_ok_and(|output| output.status.success()) {
        println!("skipped: other users cannot run this binary where it lies");
        return false;
    }
    true
}

#[test]
fn the_directory_of_a_users_buses_must_be_that_users_alone() {
    let den = Den::new();
    if !may_play_others(&den) {
        return;
    }
    set_mode(&den.path().display().to_string(), 0o711);
    // It is made, private, if it does not exist.
    let fresh = Nobody::new(0);
    let said = open_as(&den, Some(fresh.user), "");
    assert_eq!(said, format!("opened {}/b", fresh.root));
    assert_eq!(mode(Path::new(&fresh.root)), 0o700);
    // Open to others.
    set_mode(&fresh.root, 0o750);
    let said = open_as(&den, Some(fresh.user), "");
    assert!(said.starts_with("refused Permission") && said.contains("0750"), "{said}");
    set_mode(&fresh.root, 0o700);
    assert!(open_as(&den, Some(fresh.user), "").starts_with("opened"));
    // Somebody else's: root made it here.
    let stolen = Nobody::new(1);
    std::fs::create_dir(&stolen.root).expect("the name is free");
    set_mode(&stolen.root, 0o700);
    let said = open_as(&den, Some(stolen.user), "");
    assert!(said.starts_with("refused Permission") && said.contains("user 0"), "{said}");
    // A link to a directory that would do.
    let linked = Nobody::new(2);
    symlink(&fresh.root, &linked.root).expect("the name is free");
    let said = open_as(&den, Some(linked.user), "");
    assert!(said.starts_with("refused Permission") && said.contains("symbolic link"), "{said}");
    // A file.
    let blocked = Nobody::new(3);
    std::fs::write(&blocked.root, "").expect("the name is free");
    let said = open_as(&den, Some(blocked.user), "");
    assert!(said.starts_with("refused") && said.contains("directory"), "{said}");
}

#[test]
fn the_environment_can_name_another_directory_for_buses() {
    let den = Den::new();
    let root = den.path().join("root").display().to_string();
    assert_eq!(open_as(&den, None, &root), format!("opened {root}/b"));
    assert_eq!(mode(Path::new(&root)), 0o700, "it was made, and private");
}

/// Tries to use the bus of another user. Says `open KIND`, or `open Ok`.
fn visitor(scene: &Scene, line: &mut Line) {
    match Bus::open(scene.bus_path()) {
        Ok(_) => line.say("open Ok"),
        Err(error) => line.say(format_args!("open {:?}", error.kind())),
    }
}

#[test]
fn another_user_cannot_enter_a_bus() {
    let den = Den::new();
    if !may_play_others(&den) {
        return;
    }
    let _bus = den.bus();
    set_mode(&den.path().display().to_string(), 0o755);
    let mut command = Command::new(std::env::current_exe().expect("a test knows its binary"));
    command.uid(1_000_000_001).gid(1_000_000_001);
    let mut actor = Actor::process_by(command, &den, "options.visitor", "");
    assert_eq!(actor.hear("open"), "Permission");
    actor.finish();
}
