//! Who may: one user alone by default, the group that was asked for, and nobody else.
//!
//! The users are real ones: processes that root started and that gave up being root. Without root, and where other
//! users cannot run this binary, these tests say so and do nothing.

pub mod group;
pub mod walls;

use super::process::{Actor, Den, Line, Role, Scene};
use nix::sys::signal::Signal;
use nix::unistd::{chown, setgid, setgroups, setuid, Gid, Uid};
use std::os::unix::fs::{symlink, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use windlass::{Bus, ErrorKind, Raw, Start};

pub const ROLES: &[(&str, Role)] = &[("access.owner", owner), ("access.visitor", visitor)];

/// A user, whose own group has the same number.
#[derive(Clone, Copy)]
pub struct User {
    pub id: u32,
    /// The other group that this user is in; 0 for none.
    pub crew: u32,
}

/// The group that Anna and Ben are in besides their own, and Eve is not.
pub const CREW: u32 = 62_000;
pub const ANNA: User = User { id: 61_001, crew: CREW };
pub const BEN: User = User { id: 61_002, crew: CREW };
pub const EVE: User = User { id: 61_003, crew: 0 };

impl User {
    /// Starts a process that plays `role` on the bus at `bus`. The role has to call [`become_user`].
    pub fn start(self, bus: &Path, role: &str, arguments: &str) -> Actor {
        let exe = std::env::current_exe().expect("a test knows its binary");
        let bus = bus.to_str().expect("it is text");
        let arguments = format!("user={} crew={} {arguments}", self.id, self.crew);
        Actor::process_at(Command::new(exe), bus, role, &arguments)
    }
}

/// Makes this process one of the user that it was started for. There is no way back.
pub fn become_user(scene: &Scene) {
    let number = |key| u32::try_from(scene.number(key)).expect("a user has 32 bits");
    let (user, crew) = (number("user"), number("crew"));
    let groups: Vec<Gid> = (crew != 0).then(|| Gid::from_raw(crew)).into_iter().collect();
    setgroups(&groups).expect("root may");
    setgid(Gid::from_raw(user)).expect("root may");
    setuid(Uid::from_raw(user)).expect("root may");
    // The kernel forgets it when a process becomes another user's.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a process may die with its parent");
}

/// Whether this process can play other users.
pub fn may_play_others() -> bool {
    let may = nix::unistd::geteuid().is_root();
    if !may {
        println!("skipped: only root can play other users");
        return false;
    }
    // Root of a user namespace has nobody else to be.
    let mut command = Command::new("/proc/self/exe");
    let runs = command.uid(ANNA.id).gid(ANNA.id).arg("--list").output();
    let may = runs.is_ok_and(|output| output.status.success());
    if !may {
        println!("skipped: other users cannot run this binary where it lies");
    }
    may
}

/// A folder of `user` and `group` in a den, with `mode`.
pub fn folder_of(den: &Den, user: u32, group: u32, mode: u32) -> PathBuf {
    set_mode(den.path(), 0o755);
    let path = den.path().join("place");
    std::fs::create_dir(&path).expect("the den has room");
    chown(&path, Some(Uid::from_raw(user)), Some(Gid::from_raw(group))).expect("root may");
    set_mode(&path, mode);
    path
}

pub fn set_mode(path: &Path, mode: u32) {
    let permissions = std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(path, permissions).expect("it is ours, or we are root");
}

/// Owner, group and mode of everything under `path`, by name.
pub fn rights(path: &Path) -> Vec<(String, u32, u32, u32)> {
    let mut all = Vec::new();
    let mut left = vec![path.to_owned()];
    while let Some(here) = left.pop() {
        let metadata = std::fs::symlink_metadata(&here).expect("it is there");
        let name = here.strip_prefix(path).expect("it is inside").display().to_string();
        all.push((name, metadata.uid(), metadata.gid(), metadata.mode() & 0o7777));
        if metadata.is_dir() {
            let entries = std::fs::read_dir(&here).expect("root may");
            left.extend(entries.map(|entry| entry.expect("it is there").path()));
        }
    }
    all.sort();
    all
}

/// Makes a bus by name or path, and everything that there is in one, under a mask. Says `made PATH`.
fn owner(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let mask = u32::try_from(scene.number("mask")).expect("a mode is small");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask));
    let name = scene.text("name");
    let bus = Bus::open(if name == "-" { scene.bus_path() } else { name }).expect("it is ours");
    let topic = bus.topic::<Raw>("t").ordered().order_slots(256).segment_bytes(4096);
    let topic = topic.create().expect("it is new");
    let _publisher = topic.publisher().expect("there is a lane");
    let _subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    line.say(format_args!("made {}", bus.path().display()));
    line.stay();
}

/// Tries to open the bus in the ways that there are. Says `opened`, or `KIND SENTENCE`, for each.
fn visitor(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let path = scene.bus_path();
    let ways = [Bus::options(), Bus::options().existing(), Bus::options().group()];
    for options in ways {
        match options.open(path) {
            Ok(_) => line.say("opened"),
            Err(error) => line.say(format_args!("{:?} {error}", error.kind())),
        }
    }
}

/// What `user` is told who tries to open the bus at `bus`, alone, existing and shared.
fn told(user: User, bus: &Path) -> [String; 3] {
    let mut actor = user.start(bus, "access.visitor", "");
    let said = [(); 3].map(|()| actor.hear_any().expect("it says three things"));
    actor.finish();
    said
}

#[track_caller]
fn refused(said: &[String], path: &Path, hints: &[&str]) {
    for said in said {
        let right = said.starts_with("Permission ") && said.contains(&path.display().to_string());
        assert!(right && hints.iter().all(|hint| said.contains(hint)), "{said}");
    }
}

#[test]
fn everything_belongs_to_its_user_alone_whatever_the_mask_is() {
    if !may_play_others() {
        return;
    }
    for mask in [0, 0o777, 0o022] {
        let den = Den::new();
        let path = folder_of(&den, ANNA.id, ANNA.id, 0o700).join("bus");
        // By path, and by name in the folder of the user.
        let nobody = User { id: 1_100_000_000 + std::process::id() * 4, crew: 0 };
        let root = PathBuf::from(format!("/dev/shm/windlass-{}", nobody.id));
        for (user, name, folder) in [(ANNA, "-", &path), (nobody, "b", &root)] {
            let mut owner = user.start(&path, "access.owner", &format!("mask={mask} name={name}"));
            owner.hear("made");
            let all = rights(folder);
            assert!(all.len() >= 6, "{all:?}");
            for (name, uid, gid, mode) in all {
                let file = ["bus", "control", "lane-0", "order"].iter().any(|end| {
                    name.ends_with(&format!("/{end}")) || (name == *end && folder == &path)
                });
                let right = if file { 0o600 } else { 0o700 };
                let right = (user.id, user.id, right);
                assert_eq!((uid, gid, mode), right, "{name} under a mask of {mask:o}");
            }
            owner.finish();
        }
        std::fs::remove_dir_all(root).expect("it was made");
    }
}

#[test]
fn a_bus_of_one_user_is_refused_to_every_other_with_a_reason() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = folder_of(&den, ANNA.id, ANNA.id, 0o755).join("bus");
    let mut owner = ANNA.start(&path, "access.owner", "mask=18 name=-");
    owner.hear("made");
    let alone = "belongs to user 61001 alone, and this is user 61002";
    refused(&told(BEN, &path), &path, &[alone, "act as user 61001", "BusOptions::group"]);
    // Root could, and would leave files that Anna cannot read.
    let error = Bus::open(path.to_str().expect("it is text")).expect_err("it is not root's");
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    assert!(error.to_string().contains("alone, and this is user 0"), "{error}");
    owner.finish();
    // A folder that Ben may not even pass.
    set_mode(path.parent().expect("it has one"), 0o700);
    refused(&told(BEN, &path), &path, &["this user may not", "BusOptions::group"]);
}

#[test]
fn what_somebody_else_put_in_the_way_is_refused() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = folder_of(&den, 0, 0, 0o1777).join("bus");
    let give = |path: &Path, user: u32, mode: u32| {
        let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(CREW));
        chown(path, Some(uid), Some(gid)).expect("root may");
        set_mode(path, mode);
    };
    // Ben was faster, in a place that is everybody's.
    for (mode, hint) in [(0o700, "belongs to user 61002 alone"), (0o777, "lets everybody in")] {
        std::fs::create_dir(&path).expect("the name is free");
        give(&path, BEN.id, mode);
        refused(&told(ANNA, &path), &path, &[hint]);
        std::fs::remove_dir(&path).expect("nothing was made in it");
    }
    // A folder of the crew: whoever did not ask for a shared bus does not get Ben's.
    std::fs::create_dir(&path).expect("the name is free");
    give(&path, BEN.id, 0o2770);
    let hints = ["belongs to user 61002, and this is user 61001", "BusOptions::group"];
    refused(&told(ANNA, &path)[..2], &path, &hints);
    std::fs::remove_dir(&path).expect("nothing was made in it");
    // A link to a folder of Anna's that would do.
    let own = den.path().join("own");
    std::fs::create_dir(&own).expect("the den has room");
    give(&own, ANNA.id, 0o700);
    symlink(&own, &path).expect("the name is free");
    refused(&told(ANNA, &path), &path, &["symbolic link", "remove it"]);
    assert_eq!(std::fs::read_dir(&own).expect("root may").count(), 0, "the link was followed");
    std::fs::remove_file(&path).expect("it is there");
    // A place where everybody may exchange everything.
    set_mode(path.parent().expect("it has one"), 0o777);
    let parent = path.parent().expect("it has one");
    refused(&told(ANNA, &path), parent, &["everybody may exchange", "chmod +t"]);
    assert_eq!(std::fs::read_dir(parent).expect("root may").count(), 0, "something was made");
}

#[test]
fn modes_that_somebody_changed_are_refused_or_do_not_matter() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = folder_of(&den, ANNA.id, ANNA.id, 0o700).join("bus");
    let mut owner = ANNA.start(&path, "access.owner", "mask=18 name=-");
    owner.hear("made");
    for (mode, hint) in [(0o777, "lets everybody in"), (0o701, "0701"), (0o705, "chmod it to 0700")]
    {
        set_mode(&path, mode);
        refused(&told(ANNA, &path), &path, &[hint]);
    }
    for mode in [0, 0o500, 0o300] {
        set_mode(&path, mode);
        refused(&told(ANNA, &path)[..2], &path, &["not even its owner", "chmod it to 0700"]);
    }
    set_mode(&path, 0o700);
    // A group that was not asked for: the bus exists, and is not a shared one.
    let [alone, existing, shared] = told(ANNA, &path);
    assert_eq!((alone.as_str(), existing.as_str()), ("opened", "opened"));
    assert!(shared.starts_with("Mismatch ") && shared.contains("not shared"), "{shared}");
    // Files in a folder that nobody else may enter.
    let control = path.join("bus");
    set_mode(&control, 0o666);
    assert_eq!(told(ANNA, &path)[0], "opened");
    for mode in [0o400, 0] {
        set_mode(&control, mode);
        refused(&told(ANNA, &path)[..2], &control, &["this user may not"]);
    }
    owner.finish();
}
