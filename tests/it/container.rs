//! Process numbers mean little: they are used again, they differ between PID namespaces, and a child may hold what its
//! parent opened. Life and death are the kernel's locks, and here they are shown to be.
//!
//! The namespaces are made by `unshare`. Where it is missing or refused, these tests say so and do nothing.

use super::access::{folder_of, may_play_others, ANNA};
use super::fixture::{fill, small};
use super::process::{clone_until_end_of, fork_and, until, Actor, Den, Line, Role, Scene, Stage};
use super::traffic::{check, message, publish_next};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use windlass::{Bus, Publisher, Raw, Start, Subscriber, Wait};

pub const ROLES: &[(&str, Role)] = &[
    ("container.member", member),
    ("container.host", host),
    ("container.bystander", bystander),
    ("container.recycler", recycler),
    ("container.spawner", spawner),
    ("container.cloner", cloner),
    ("container.family", family),
];

/// Longest time that the dead may hold somebody up here: a test on a busy machine, no promise.
const LIMIT: Duration = Duration::from_secs(60);

/// `unshare` with these arguments, to be followed by a program; `None`, with the reason said, if it is refused here.
fn unshared(arguments: &[&str], user: Option<u32>) -> Option<Command> {
    let command = || {
        let mut command = Command::new("unshare");
        command.args(arguments);
        if let Some(user) = user {
            command.uid(user).gid(user);
        }
        command
    };
    let why = match command().arg("true").output() {
        Ok(output) if output.status.success() => {
            let mut command = command();
            command.arg(std::env::current_exe().expect("a test knows its binary"));
            return Some(command);
        }
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => error.to_string(),
    };
    println!("skipped: unshare {} is not possible here ({why})", arguments.join(" "));
    None
}

/// Publishes and subscribes, as it is told. Says `ready LANE SEQUENCE PID NODE` first, and something to each word.
fn member(scene: &Scene, line: &mut Line) {
    let bus = Bus::open(scene.bus_path()).expect("it is ours");
    let topic = bus.topic::<Raw>("t").open_existing().expect("the test created it");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    let (lane, sequence) = (publisher.lane(), publisher.sequence());
    line.say(format_args!("ready {lane} {sequence} {} {}", std::process::id(), bus.node()));
    while let Some(order) = line.hear() {
        let (word, count) = order.split_once(' ').unwrap_or((&order, "0"));
        let count: u64 = count.parse().expect("a number");
        match word {
            "publish" => (0..count).for_each(|_| {
                publish(&mut publisher);
            }),
            "read" => (0..count).for_each(|_| read(&mut subscriber)),
            "fill" => {
                line.say(format_args!("full {}", full(&mut publisher, &mut subscriber)));
                continue;
            }
            "heal" => {
                for _ in 0..count {
                    let payload = message(publisher.lane(), publisher.sequence(), 300);
                    publisher.publish_timeout(&payload, LIMIT).expect("the dead hold nobody up");
                    drain(&mut subscriber);
                }
            }
            "inherit" => {
                let publisher = topic.publisher().expect("there is a lane");
                line.say(format_args!("lane {} {}", publisher.lane(), publisher.sequence()));
                continue;
            }
            _ => {
                let info = topic.info().expect("it is sound");
                let who = info.publishers.iter().map(|lane| {
                    let place = if lane.is_elsewhere { "elsewhere" } else { "here" };
                    let life = if lane.alive { "alive" } else { "dead" };
                    format!("{}:{}:{place}:{life}", lane.lane, lane.pid.unwrap_or(0))
                });
                line.say(format_args!("who {}", who.collect::<Vec<_>>().join(" ")));
                continue;
            }
        }
        line.say("done");
    }
}

fn publish(publisher: &mut Publisher<Raw>) -> u64 {
    publish_next(publisher, 16, 200).sequence
}

fn read(subscriber: &mut Subscriber<Raw>) {
    let message = subscriber.recv(Wait::For(LIMIT)).expect("it is sound").expect("not closed");
    check(message.bytes(), message.lane(), message.sequence());
}

fn drain(subscriber: &mut Subscriber<Raw>) {
    while let Some(message) = subscriber.try_recv().expect("it is sound") {
        check(message.bytes(), message.lane(), message.sequence());
    }
}

/// Publishes, and reads that again, until somebody else is in the way; returns what is said about that.
fn full(publisher: &mut Publisher<Raw>, own: &mut Subscriber<Raw>) -> String {
    for _ in 0..1000 {
        if let Err(error) = super::fixture::publish(publisher, 509) {
            return error.to_string();
        }
        drain(own);
    }
    panic!("a small lane never got full")
}

fn numbers<const N: usize>(said: &str) -> [u64; N] {
    let mut words = said.split(' ').map(|word| word.parse().expect("a number"));
    [(); N].map(|()| words.next().expect("enough of them"))
}

fn ask(actor: &mut Actor, order: &str) {
    actor.say(order);
    actor.hear("done");
}

/// Two members work together; one is killed, and the other heals what it leaves. `place` is where the survivor sees the
/// victim: `here`, or `elsewhere`, in another PID namespace.
fn one_heals_the_other(mut survivor: Actor, victim: impl FnOnce() -> Actor, place: &str) {
    let [lane, _, own_pid, _] = numbers(&survivor.hear("ready"));
    assert_eq!(lane, 0);
    let mut victim = victim();
    let [lane, sequence, pid, node] = numbers(&victim.hear("ready"));
    assert_eq!((lane, sequence), (1, 0));
    for publishing in [0, 1] {
        ask([&mut survivor, &mut victim][publishing], "publish 5");
        ask(&mut survivor, "read 5");
        ask(&mut victim, "read 5");
    }
    survivor.say("who");
    let who = format!("0:{own_pid}:here:alive 1:{pid}:{place}:alive");
    assert_eq!(survivor.hear("who"), who);
    survivor.say("fill");
    let said = survivor.hear("full");
    let namespace = if place == "here" { "" } else { " in another PID namespace" };
    let name = format!("(process {pid}{namespace}, node {node})");
    assert!(said.contains(&name), "{said}, expected {name}");
    victim.kill();
    ask(&mut survivor, "heal 300");
    survivor.say("inherit");
    assert_eq!(survivor.hear("lane"), "1 5", "the lane of the dead goes on");
    survivor.finish();
}

fn here(den: &Den) -> Actor {
    let exe = std::env::current_exe().expect("a test knows its binary");
    Actor::process_at(Command::new(exe), &den.bus_path(), "container.member", "")
}

fn topic_in(den: &Den) -> Bus {
    let bus = den.bus();
    small(&bus).create().expect("it is new");
    bus
}

/// Both may die, and the other one heals.
fn either_side_heals_the_other(arguments: &[&str], place: &str) {
    for inside_dies in [true, false] {
        let Some(command) = unshared(arguments, None) else { return };
        let den = Den::new();
        let _bus = topic_in(&den);
        let inside = || Actor::process_at(command, &den.bus_path(), "container.member", "");
        match inside_dies {
            true => one_heals_the_other(here(&den), inside, place),
            false => one_heals_the_other(inside(), || here(&den), place),
        }
    }
}

#[test]
fn two_pid_namespaces_share_a_bus_and_each_heals_the_other() {
    either_side_heals_the_other(&["--pid", "--fork", "--kill-child"], "elsewhere");
}

#[test]
fn a_user_namespace_shares_a_bus_too() {
    let arguments = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    either_side_heals_the_other(&arguments, "elsewhere");
}

#[test]
fn two_siblings_of_one_namespace_are_not_elsewhere() {
    let den = Den::new();
    let _bus = topic_in(&den);
    one_heals_the_other(here(&den), || here(&den), "here");
}

#[test]
fn an_ordinary_user_in_a_namespace_shares_a_bus_with_that_user_outside() {
    if !may_play_others() {
        return;
    }
    let arguments = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"];
    let Some(command) = unshared(&arguments, Some(ANNA.id)) else { return };
    let den = Den::new();
    let path = folder_of(&den, ANNA.id, ANNA.id, 0o700).join("bus");
    let path = path.to_str().expect("it is text");
    let exe = std::env::current_exe().expect("a test knows its binary");
    let mut outside = Command::new(exe);
    outside.uid(ANNA.id).gid(ANNA.id);
    let mut host = Actor::process_at(outside, path, "container.host", "");
    host.hear("made");
    let exe = std::env::current_exe().expect("a test knows its binary");
    let mut outside = Command::new(exe);
    outside.uid(ANNA.id).gid(ANNA.id);
    let outside = || Actor::process_at(outside, path, "container.member", "");
    let inside = Actor::process_at(command, path, "container.member", "");
    one_heals_the_other(inside, outside, "elsewhere");
    host.finish();
}

/// Makes the topic for others. Says `made`.
fn host(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let _topic = small(&bus).create().expect("it is new");
    line.say("made");
    line.stay();
}

#[test]
fn a_bus_that_is_mounted_at_another_path_is_the_same_bus() {
    const SCRIPT: &str = r#"mount --bind "$0" "$1" && shift && exec "$@""#;
    for inside_dies in [true, false] {
        let arguments = ["--mount", "--pid", "--fork", "--kill-child"];
        if unshared(&arguments, None).is_none() {
            return;
        }
        let den = Den::new();
        let _bus = topic_in(&den);
        let other = den.path().join("other");
        std::fs::create_dir(&other).expect("the den has room");
        let mut command = Command::new("unshare");
        command.args(arguments).args(["sh", "-c", SCRIPT]).arg(den.path()).arg(&other);
        command.arg(std::env::current_exe().expect("a test knows its binary"));
        let path = other.join("bus");
        let path = path.to_str().expect("it is text");
        let inside = || Actor::process_at(command, path, "container.member", "");
        match inside_dies {
            true => one_heals_the_other(here(&den), inside, "elsewhere"),
            false => one_heals_the_other(inside(), || here(&den), "elsewhere"),
        }
        assert!(!path_exists(path), "the mount is not private");
    }
}

fn path_exists(path: &str) -> bool {
    Path::new(path).exists()
}

/// Opens the bus and nothing in it. Says `ready PID NODE`.
fn bystander(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    line.say(format_args!("ready {} {}", std::process::id(), bus.node()));
    line.stay();
}

/// In a PID namespace of its own: kills a member that holds a publisher up and a lane, lets a bystander have its
/// number, and heals. Says `recycled` and `whole`, or `refused WHY`.
fn recycler(scene: &Scene, line: &mut Line) {
    let start = |role| {
        let exe = std::env::current_exe().expect("a test knows its binary");
        Actor::process_at(Command::new(exe), scene.bus_path(), role, "")
    };
    let bus = scene.bus();
    let topic = bus.topic::<Raw>("t").open_existing().expect("the test created it");
    let mut own = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    // An entry of the table that the newcomer takes, so that the one of the dead stays.
    let spare = scene.bus();
    let mut victim = start("container.member");
    let [lane, _, pid, dead_node] = numbers(&victim.hear("ready"));
    ask(&mut victim, "publish 5");
    victim.kill();
    drop(spare);
    let newcomer = (0..1000).find_map(|_| {
        let last = (pid - 1).to_string();
        if let Err(error) = std::fs::write("/proc/sys/kernel/ns_last_pid", last) {
            line.say(format_args!("refused {error}"));
            std::process::exit(0);
        }
        // Another thread or process may have been faster.
        let mut actor = start("container.bystander");
        let [found, node] = numbers(&actor.hear("ready"));
        (found == pid).then_some((actor, node))
    });
    let (mut newcomer, living_node) = newcomer.expect("the number comes back");
    line.say("recycled");
    let life = |node: u64| {
        let nodes = bus.nodes().into_iter();
        let mut found = nodes.filter(|entry| u64::from(entry.node) == node);
        found.next().map(|entry| (u64::from(entry.pid), entry.alive))
    };
    // One number, two nodes.
    assert_eq!(life(living_node), Some((pid, true)));
    assert_eq!(life(dead_node), Some((pid, false)));
    let lane_info =
        |lane: u64| topic.info().expect("it is sound").publishers[lane as usize].clone();
    assert!(lane_info(lane).held && !lane_info(lane).alive, "the newcomer is not the publisher");
    // The dead one has not read: its gate is in the way until the kernel says that it is dead.
    for _ in 0..300 {
        let payload = message(publisher.lane(), publisher.sequence(), 300);
        publisher.publish_timeout(&payload, LIMIT).expect("the dead hold nobody up");
        drain(&mut own);
    }
    let heir = topic.publisher().expect("there is a lane");
    assert_eq!((u64::from(heir.lane()), heir.sequence()), (lane, 5));
    bus.repair().expect("it is sound");
    assert_eq!(life(dead_node), None);
    assert_eq!(life(living_node), Some((pid, true)), "the newcomer was taken for the dead");
    newcomer.kill();
    assert_eq!(bus.repair().expect("it is sound").nodes, 1);
    assert_eq!(life(living_node), None);
    line.say("whole");
}

#[test]
fn a_process_number_that_is_used_again_deceives_nobody() {
    let Some(command) = unshared(&["--pid", "--fork", "--kill-child"], None) else { return };
    let den = Den::new();
    let _bus = topic_in(&den);
    let mut actor = Actor::process_at(command, &den.bus_path(), "container.recycler", "");
    let said = actor.hear_any().expect("it says something");
    if said != "recycled" {
        return println!("skipped: the next process number cannot be chosen here ({said})");
    }
    actor.hear("whole");
    actor.finish();
}

/// Becomes a member, starts a program in both ways that there are, and waits to be killed. Says `programs PID PID`.
#[allow(clippy::zombie_processes)] // Whoever would wait for them is killed.
fn spawner(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let topic = small(&bus).open().expect("it opens");
    let _subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let _publisher = topic.publisher().expect("there is a lane");
    // The line of this process is inherited: it ends with the test, and then these do.
    let program = || {
        let mut command = Command::new("cat");
        command.stdin(Stdio::inherit()).stdout(Stdio::null());
        command
    };
    let spawned = program().spawn().expect("there is cat");
    // To become a user, even the same one, takes a copy of this process that then executes.
    let forked = program().uid(nix::unistd::geteuid().as_raw()).spawn().expect("there is cat");
    line.say(format_args!("programs {} {}", spawned.id(), forked.id()));
    loop {
        std::thread::park();
    }
}

/// The publisher of lane 0, and the only subscriber.
fn both_are_alive(bus: &Bus) -> (bool, bool) {
    let info = bus.inspect("t").expect("it is sound");
    let subscriber = info.subscribers.first().is_some_and(|subscriber| subscriber.alive);
    (info.publishers[0].alive, subscriber)
}

fn ends(pid: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_program_that_a_member_started_does_not_keep_it_alive() {
    let stage = Stage::processes();
    let mut actor = stage.start("container.spawner", "");
    let programs: [u64; 2] = numbers(&actor.hear("programs"));
    let bus = stage.bus();
    assert_eq!(both_are_alive(&bus), (true, true));
    actor.kill();
    assert_eq!(both_are_alive(&bus), (false, false));
    assert!(programs.iter().all(|pid| !ends(*pid)), "the programs live on");
    assert_eq!(bus.repair().expect("it is sound").lanes, 1);
    drop(actor);
    until("the programs have ended", || programs.iter().all(|pid| ends(*pid)));
}

/// Becomes a member, copies itself past every handler, and waits to be killed. Says `copy PID`.
fn cloner(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let topic = small(&bus).open().expect("it opens");
    let _subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let _publisher = topic.publisher().expect("there is a lane");
    line.say(format_args!("copy {}", clone_until_end_of(0)));
    loop {
        std::thread::park();
    }
}

#[test]
fn a_copy_that_no_handler_knows_of_keeps_its_parent_until_it_ends() {
    let stage = Stage::processes();
    let mut actor = stage.start("container.cloner", "");
    let [copy] = numbers(&actor.hear("copy"));
    let bus = stage.bus();
    let topic = bus.topic::<Raw>("t").open_existing().expect("it exists");
    actor.kill();
    assert!(!ends(copy), "the copy lives on");
    // Alive counts whoever holds the lock. Nothing is taken away, and the one in the way is named.
    assert_eq!(both_are_alive(&bus), (true, true));
    assert_eq!(bus.repair().expect("it is sound"), windlass::RepairReport::default());
    let mut publisher = topic.publisher().expect("there is a second lane");
    assert_eq!(publisher.lane(), 1);
    assert_eq!(fill(&mut publisher).pid, actor.pid());
    // It ends with the line of the test.
    drop(actor);
    publisher.publish_timeout(&[7; 509], LIMIT).expect("the dead hold nobody up");
    until("the copy has ended", || ends(copy));
    assert!(!both_are_alive(&bus).0);
}

/// Becomes a member, and lets a forked worker become one, too. Says `node NODE` and, as the worker, `worker NODE`; then
/// as the worker `published` for every word.
fn family(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    let topic = small(&bus).open().expect("it opens");
    let _publisher = topic.publisher().expect("there is a lane");
    line.say(format_args!("node {}", bus.node()));
    fork_and(|| {
        let bus = Bus::open(scene.bus_path()).expect("a child may open the bus again");
        let topic = bus.topic::<Raw>("t").open_existing().expect("it exists");
        let mut publisher = topic.publisher().expect("there is a lane");
        line.say(format_args!("worker {}", bus.node()));
        while line.hear().is_some() {
            publish(&mut publisher);
            line.say("published");
        }
        0
    });
    loop {
        std::thread::park();
    }
}

#[test]
fn a_forked_worker_with_a_bus_of_its_own_outlives_its_parent() {
    let stage = Stage::processes();
    let mut actor = stage.start("container.family", "");
    let parent = actor.hear_number("node");
    let worker = actor.hear_number("worker");
    assert_ne!(parent, worker);
    let bus = stage.bus();
    let alive = |node: u64| {
        let mut nodes = bus.nodes().into_iter();
        nodes.any(|entry| u64::from(entry.node) == node && entry.alive)
    };
    assert!(alive(parent) && alive(worker));
    actor.kill();
    assert!(!alive(parent) && alive(worker), "one lock each");
    assert_eq!(bus.repair().expect("it is sound").lanes, 1);
    actor.say("publish");
    actor.hear("published");
    assert_eq!(bus.inspect("t").expect("it is sound").publishers[1].published, 1);
    drop(actor);
    until("the worker has ended", || !alive(worker));
}
