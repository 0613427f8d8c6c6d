//! A bus that a group shares: its members publish and subscribe both ways and heal what one of them leaves, and nobody
//! else takes part.

use super::super::process::{until, Actor, Den, Line, Role, Scene};
use super::super::traffic::{check, publish_next};
use super::{become_user, folder_of, may_play_others, rights, told, ANNA, BEN, CREW, EVE};
use std::path::{Path, PathBuf};
use windlass::{Bus, Error, Publisher, Raw, Start, Subscriber, Topic, Wait};

pub const ROLES: &[(&str, Role)] =
    &[("access.member", member), ("access.guest", guest), ("access.host", host)];

/// Where the crew has its bus. Only Anna may make it.
pub fn shared_place(den: &Den) -> PathBuf {
    folder_of(den, ANNA.id, CREW, 0o2755).join("bus")
}

pub fn open(scene: &Scene) -> Topic<Raw> {
    let bus = Bus::options().group().open(scene.bus_path()).expect("a member may");
    let builder = bus.topic::<Raw>("t").segment_bytes(4096).segments_per_lane(4);
    let ordered = scene.text("ordered") == "yes";
    let builder = if ordered { builder.ordered().order_slots(256) } else { builder };
    builder.open().expect("a member may")
}

/// Takes part, as it is told: `publish N`, `read N`, `both N`, `rejoin`, `count`. Says `joined LANE SEQUENCE` first.
fn member(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let topic = open(scene);
    let mut subscriber = topic.subscriber(Start::Oldest).expect("there is a slot");
    let mut publisher = Some(topic.publisher().expect("there is a lane"));
    let joined = |publisher: &Option<Publisher<Raw>>| {
        let publisher = publisher.as_ref().expect("it joined");
        format!("joined {} {}", publisher.lane(), publisher.sequence())
    };
    line.say(joined(&publisher));
    let mut counts = [0_u64; 8];
    while let Some(order) = line.hear() {
        let (word, count) = order.split_once(' ').unwrap_or((&order, "0"));
        let mut publish = || {
            publish_next(publisher.as_mut().expect("it joined"), 16, 200);
        };
        match word {
            "publish" => (0..number(count)).for_each(|_| publish()),
            "read" => (0..number(count)).for_each(|_| read(&mut subscriber, &mut counts)),
            "both" => (0..number(count)).for_each(|_| {
                publish();
                read(&mut subscriber, &mut counts);
            }),
            "rejoin" => {
                drop(publisher.take());
                publisher = Some(topic.publisher().expect("there is a lane"));
            }
            _ => {
                while let Ok(Some(message)) = subscriber.try_recv() {
                    counts[message.lane() as usize] += 1;
                }
                let info = topic.info().expect("it is sound");
                let lane = info.publishers.iter().find(|lane| lane.lane == 1);
                let published = lane.map_or(0, |lane| lane.published);
                line.say(format_args!("count {} {published}", counts[1]));
                continue;
            }
        }
        line.say(joined(&publisher));
    }
}

fn number(count: &str) -> u64 {
    count.parse().expect("a number")
}

fn read(subscriber: &mut Subscriber<Raw>, counts: &mut [u64]) {
    let message = subscriber.recv(Wait::Block).expect("it is sound").expect("it is not closed");
    let lane = message.lane();
    // On an ordered topic the number of a message is that in the topic.
    let number = super::super::traffic::number_of(message.bytes()).expect("it is long enough");
    check(message.bytes(), lane, number);
    counts[lane as usize] += 1;
}

fn start(user: super::User, bus: &Path, ordered: &str) -> (Actor, String) {
    let mut actor = user.start(bus, "access.member", &format!("ordered={ordered}"));
    let lane = actor.hear("joined");
    (actor, lane)
}

fn ask(actor: &mut Actor, order: &str) -> String {
    actor.say(order);
    actor.hear("joined")
}

#[test]
fn two_users_of_a_group_share_a_bus_and_one_heals_what_the_other_leaves() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = shared_place(&den);
    let (mut anna, lane) = start(ANNA, &path, "no");
    assert_eq!(lane, "0 0");
    let (mut ben, lane) = start(BEN, &path, "no");
    assert_eq!(lane, "1 0");
    for (who, sequence) in [(0, "0 5"), (1, "1 5")] {
        let said = ask(if who == 0 { &mut anna } else { &mut ben }, "publish 5");
        assert_eq!(said, sequence);
        ask(&mut anna, "read 5");
        ask(&mut ben, "read 5");
    }
    // What they made belongs to them and to the group, and a lane is written by its owner.
    let right = [
        ("", ANNA.id, 0o3770),
        ("bus", ANNA.id, 0o660),
        ("t.topic", ANNA.id, 0o3770),
        ("t.topic/control", ANNA.id, 0o660),
        ("t.topic/lane-0", ANNA.id, 0o640),
        ("t.topic/lane-1", BEN.id, 0o640),
    ];
    let right = right.map(|(name, user, mode)| (name.to_owned(), user, CREW, mode));
    assert_eq!(rights(&path), right);

    anna.kill();
    // Laps of Ben's lane, which the gate of the dead would hold up.
    assert_eq!(ask(&mut ben, "both 500"), "1 505");
    // The lane of the dead is hers. Another publisher of Ben gets one of his own.
    let (mut second, lane) = start(BEN, &path, "no");
    assert_eq!(lane, "2 0");
    assert_eq!(ask(&mut second, "publish 3"), "2 3");
    ask(&mut ben, "read 3");
    // Hers goes on where it ended when she comes back.
    let (mut anna, lane) = start(ANNA, &path, "no");
    assert_eq!(lane, "0 5");
    assert_eq!(ask(&mut anna, "publish 4"), "0 9");
    ask(&mut ben, "read 4");
    [anna, ben, second].into_iter().for_each(Actor::finish);
}

#[test]
fn a_user_outside_of_the_group_is_refused() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = shared_place(&den);
    let (anna, _) = start(ANNA, &path, "no");
    super::refused(&told(EVE, &path)[..2], &path, &["belongs to user 61001", "BusOptions::group"]);
    let asked = &told(EVE, &path)[2..];
    super::refused(asked, &path.join("bus"), &["this user may not", "BusOptions::group"]);
    // A member has to say that the bus is meant to be shared.
    let [alone, existing, shared] = told(BEN, &path);
    super::refused(&[alone, existing], &path, &["if it is meant to be shared"]);
    assert_eq!(shared, "opened");
    anna.finish();
}

#[test]
fn what_a_dead_member_committed_gets_its_place_in_the_order_from_another() {
    if !may_play_others() {
        return;
    }
    for hit in [1, 7, 40] {
        let den = Den::new();
        let path = shared_place(&den);
        let (mut first, _) = start(ANNA, &path, "yes");
        let (mut ben, lane) = start(BEN, &path, "yes");
        assert_eq!(lane, "1 0");
        // Ben dies between the commit in his lane and the order log, where the steps have names; else anywhere.
        ask(&mut first, "both 2");
        let mut dying = None;
        if cfg!(feature = "kill-points") {
            ben.finish();
            let exe = std::env::current_exe().expect("a test knows its binary");
            let mut command = std::process::Command::new(exe);
            command.env("WINDLASS_STEP", "order.swap").env("WINDLASS_STEP_HIT", hit.to_string());
            let arguments = format!("user={} crew={} ordered=yes", BEN.id, BEN.crew);
            let bus = path.to_str().expect("it is text");
            let mut actor = Actor::process_at(command, bus, "access.member", &arguments);
            assert_eq!(actor.hear("joined"), "1 0");
            actor.say("both 100");
            assert_eq!(actor.hear_any(), None, "it dies on its way");
            dying = Some(actor);
        } else {
            ben.say("both 1000");
            until("his lane is in use", || {
                let lane = std::fs::read(path.join("t.topic/lane-1")).expect("root may");
                lane[4096 + 16..].iter().take(2000 + hit * 10).any(|byte| *byte != 0)
            });
            ben.kill();
        }
        drop(dying);
        // Anna's next publisher finds his lane, which it cannot write, and completes what is in it.
        assert!(ask(&mut first, "rejoin").starts_with("0 "));
        first.say("count");
        let said = first.hear("count");
        let (seen, published) = said.split_once(' ').expect("two numbers");
        assert_eq!(seen, published, "of the messages that Ben committed");
        if cfg!(feature = "kill-points") {
            assert_eq!(number(published), hit as u64, "the last one was not in the order");
        }
        first.finish();
    }
}

/// Makes a bus of the group with topics for oneself, and to look at. Says `made`.
fn host(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let bus = Bus::options().group().open(scene.bus_path()).expect("it is ours");
    let make = |name: &str, mode| {
        let builder = bus.topic::<Raw>(name).segment_bytes(4096).mode(mode);
        builder.create().expect("it is new").publisher().expect("there is a lane")
    };
    let _publishers = [make("private", 0o600), make("seen", 0o640)];
    line.say("made");
    line.stay();
}

/// Tries what one can do with topics of others. Says `topic WHAT KIND SENTENCE`, or `topic WHAT done`.
fn guest(scene: &Scene, line: &mut Line) {
    become_user(scene);
    let bus = Bus::options().group().open(scene.bus_path()).expect("a member may");
    for topic in ["private", "seen"] {
        let mut say = |what: &str, result: Result<(), Error>| match result {
            Ok(()) => line.say(format_args!("{topic} {what} done")),
            Err(error) => line.say(format_args!("{topic} {what} {:?} {error}", error.kind())),
        };
        say("inspect", bus.inspect(topic).map(drop));
        say("open", bus.topic::<Raw>(topic).open().map(drop));
        say("remove", bus.remove_topic(topic));
    }
    let repaired = bus.repair().map(|report| report == windlass::RepairReport::default());
    line.say(format_args!("bus repair {}", repaired.is_ok_and(|nothing| nothing)));
    let error = Bus::remove(scene.bus_path()).expect_err("it is not ours");
    line.say(format_args!("bus remove {:?} {error}", error.kind()));
}

#[test]
fn topics_of_a_shared_bus_can_be_kept_for_oneself_or_shown() {
    if !may_play_others() {
        return;
    }
    let den = Den::new();
    let path = shared_place(&den);
    let mut host = ANNA.start(&path, "access.host", "");
    host.hear("made");
    let mut guest = BEN.start(&path, "access.guest", "");
    let mut heard = Vec::new();
    while let Some(said) = guest.hear_any() {
        heard.push(said);
    }
    let begins = [
        "private inspect Permission cannot open ",
        "private open Permission cannot open ",
        "private remove Permission cannot remove ",
        "seen inspect done",
        "seen open Permission cannot open ",
        "seen remove Permission cannot remove ",
        "bus repair true",
        "bus remove Permission cannot remove ",
    ];
    assert_eq!(heard.len(), begins.len(), "{heard:?}");
    for (said, begin) in heard.iter().zip(begins) {
        assert!(said.starts_with(begin), "{said}");
        let explains = said.contains("this user may not") && said.contains("its owner has");
        assert!(said == begin || explains, "{said}");
    }
    host.finish();
    assert!(path.join("private.topic/lane-0").exists() && path.join("seen.topic/lane-0").exists());
}
