//! `fork` without `exec`: the handles that a child inherits say so, and touch nothing.
//!
//! The forking is done in a process of its own, which has one thread that matters.

use super::process::{fork_and, until, Line, Role, Scene, Stage};
use nix::sys::wait::{waitpid, WaitStatus};
use windlass::{
    Bus, Error, ErrorKind, PublishError, Publisher, Raw, RecvError, Start, Subscriber, Topic, View,
    Wait,
};

pub const ROLES: &[(&str, Role)] = &[
    ("fork.parent", parent),
    ("fork.parent-of-an-heir", parent_of_an_heir),
    ("fork.lingering", lingering),
];

/// Everything that a process can hold.
struct Handles {
    bus: Bus,
    topic: Topic<Raw>,
    publisher: Publisher<Raw>,
    subscriber: Subscriber<Raw>,
    view: View<Raw>,
}

fn hold_everything(scene: &Scene) -> Handles {
    let bus = scene.bus();
    let topic = bus.topic::<Raw>("t").open().expect("it opens");
    let mut subscriber = topic.subscriber(Start::Latest).expect("there is a slot");
    let mut publisher = topic.publisher().expect("there is a lane");
    publisher.publish(b"before").expect("there is room");
    publisher.publish(b"unread").expect("there is room");
    let view = subscriber.try_recv().expect("it is sound").expect("it is there").pin();
    Handles { bus, topic, publisher, subscriber, view }
}

fn is_forked<V>(result: Result<V, Error>) -> bool {
    result.is_err_and(|error| error.kind() == ErrorKind::Forked)
}

/// What a child finds wrong with its inherited handles; empty if they all say that they are.
fn inherited_is_refused(handles: &mut Handles) -> Vec<&'static str> {
    let Handles { bus, topic, publisher, subscriber, view } = handles;
    let forked = Err(PublishError::Forked);
    let weak = view.downgrade();
    let checks = [
        ("publish", publisher.publish(b"child").map(drop) == forked),
        ("try_publish", publisher.try_publish(b"child").map(drop) == forked),
        ("loan", publisher.loan(8).map(drop) == forked),
        ("publish_batch", publisher.publish_batch([b"child"]) == Err((0, PublishError::Forked))),
        ("try_recv", subscriber.try_recv().map(drop) == Err(RecvError::Forked)),
        ("recv", subscriber.recv(Wait::Block).map(drop) == Err(RecvError::Forked)),
        ("batch", subscriber.batch(3).map(drop) == Err(RecvError::Forked)),
        ("upgrade", weak.upgrade().is_none()),
        ("publisher", is_forked(topic.publisher())),
        ("subscriber", is_forked(topic.subscriber(Start::Latest))),
        ("open", is_forked(bus.topic::<Raw>("t").open())),
        ("create", is_forked(bus.topic::<Raw>("u").create())),
        ("open_existing", is_forked(bus.topic::<Raw>("t").open_existing())),
        ("repair", is_forked(bus.repair())),
    ];
    checks.iter().filter(|(_, right)| !right).map(|(name, _)| *name).collect()
}

/// What can be seen of a topic, for a comparison.
fn looks(topic: &Topic<Raw>) -> String {
    format!("{:?}", topic.info().expect("it is sound"))
}

/// Holds everything, forks a child that tries everything and drops it, and goes on. Says `wrong …`.
fn parent(scene: &Scene, line: &mut Line) {
    let handles = hold_everything(scene);
    let before = looks(&handles.topic);
    let report = bus_file(scene, "report");
    let mut held = Some(handles);
    let child = fork_and(|| {
        // Taken from the copy of the child only, and dropped there.
        let mut handles = held.take().expect("it was filled above");
        let wrong = inherited_is_refused(&mut handles).join(",");
        std::fs::write(&report, wrong).expect("the den has room for a report");
        0
    });
    let handles = held.expect("the child took its copy");
    assert_eq!(waitpid(child, None).expect("it is ours"), WaitStatus::Exited(child, 0));
    line.say(format_args!("wrong {}", std::fs::read_to_string(&report).expect("it was written")));
    assert_eq!(looks(&handles.topic), before, "the child changed something");
    assert_eq!(handles.view.as_bytes(), b"before");
    let Handles { topic, mut publisher, mut subscriber, view, bus } = handles;
    let unread = subscriber.try_recv().expect("it is sound").expect("it is there");
    assert_eq!(unread.bytes(), b"unread");
    publisher.publish(b"after").expect("the lane is still ours");
    let after = subscriber.recv(Wait::Block).expect("it is sound").expect("it is there");
    assert_eq!(after.bytes(), b"after");
    line.say("whole");
    // The test looks at this node from outside.
    line.hear();
    drop((view, subscriber, publisher, topic, bus));
}

fn bus_file(scene: &Scene, name: &str) -> String {
    format!("{}-{name}", scene.bus_path())
}

#[test]
fn inherited_handles_say_so_and_change_nothing() {
    let stage = Stage::processes();
    let mut actor = stage.start("fork.parent", "");
    let wrong = actor.hear("wrong");
    actor.hear("whole");
    // To everybody else the parent lives: its lane and its slot are its own.
    let bus = stage.bus();
    let info = bus.inspect("t").expect("it is sound");
    assert!(info.publishers[0].alive && info.subscribers[0].alive);
    assert_eq!(bus.repair().expect("nothing is broken"), windlass::RepairReport::default());
    actor.say("go");
    actor.finish();
    assert_eq!(wrong, "", "these do not say that they were inherited");
}

/// Forks a child that opens the bus again and works with it while its parent works, too.
fn parent_of_an_heir(scene: &Scene, line: &mut Line) {
    let mut handles = hold_everything(scene);
    let child = fork_and(|| {
        let bus = Bus::open(scene.bus_path()).expect("a child may open the bus again");
        assert_ne!(bus.node(), handles.bus.node());
        let topic = bus.topic::<Raw>("t").open().expect("it opens");
        let mut publisher = topic.publisher().expect("there is a second lane");
        let mut subscriber = topic.subscriber(Start::Latest).expect("there is a second slot");
        publisher.publish(b"child").expect("there is room");
        let message = subscriber.try_recv().expect("it is sound").expect("it is there");
        assert_eq!((message.lane(), message.bytes()), (1, b"child".as_slice()));
        0
    });
    assert_eq!(waitpid(child, None).expect("it is ours"), WaitStatus::Exited(child, 0));
    handles.publisher.publish(b"parent").expect("the lane is still ours");
    let mut seen = Vec::new();
    while let Some(message) = handles.subscriber.try_recv().expect("it is sound") {
        seen.push((message.lane(), message.bytes().to_vec()));
    }
    seen.sort();
    let expected = [(0, "unread"), (0, "parent"), (1, "child")];
    let mut expected: Vec<_> = expected.map(|(lane, text)| (lane, text.as_bytes().to_vec())).into();
    expected.sort();
    assert_eq!(seen, expected);
    line.say("whole");
}

#[test]
fn a_child_that_opens_the_bus_again_is_a_node_of_its_own() {
    let stage = Stage::processes();
    let mut actor = stage.start("fork.parent-of-an-heir", "");
    actor.hear("whole");
    actor.finish();
}

/// Forks a child that lives until the test hangs up, and waits to be killed.
fn lingering(scene: &Scene, line: &mut Line) {
    let handles = hold_everything(scene);
    let child = fork_and(|| {
        // The line of the parent is inherited as well: the end of it ends this child.
        let mut stdin = std::io::stdin();
        let end = std::io::Read::read(&mut stdin, &mut [0]);
        i32::from(end.is_err())
    });
    line.say(format_args!("child {child}"));
    // Not by the line: that is the child's.
    loop {
        std::thread::park();
        assert_eq!(handles.view.as_bytes(), b"before");
    }
}

#[test]
fn a_child_does_not_keep_its_dead_parent_alive() {
    let stage = Stage::processes();
    let mut actor = stage.start("fork.lingering", "");
    let child = actor.hear("child");
    let bus = stage.bus();
    let alive = |bus: &Bus| bus.inspect("t").expect("it is sound").publishers[0].alive;
    assert!(alive(&bus));
    actor.kill();
    assert!(std::path::Path::new("/proc").join(&child).exists(), "the child lives on");
    // The child lets go of the locks of its parent in the first thing that it does, once it has a core.
    until("its parent does not", || !alive(&bus));
    let topic = bus.topic::<Raw>("t").open_existing().expect("it exists");
    let mut heir = topic.publisher().expect("the lane is free");
    assert_eq!((heir.lane(), heir.sequence()), (0, 2));
    heir.publish(b"heir").expect("the slot of the dead holds nobody up");
    drop(actor);
    until("the child has ended", || {
        let stat = std::fs::read_to_string(format!("/proc/{child}/stat"));
        stat.map_or(true, |stat| stat.contains(") Z "))
    });
}
