//! What dead builders leave, and who removes it.

use super::*;
use nix::sys::signal::Signal;

#[test]
fn what_a_killed_builder_left_is_swept_and_what_a_living_one_builds_is_not() {
    let test = concat!(
        module_path!(),
        "::what_a_killed_builder_left_is_swept_and_what_a_living_one_builds_is_not"
    );
    if let Some(role) = child::role() {
        let folder = folder(&own_place());
        let built = if role == "folder" {
            folder.create_folder_atomically("bus", 0o700, |inside| {
                make(inside, "inner");
                child::say("building", 1);
                child::stay();
                Ok(())
            })
        } else {
            let init = |_: &Region| {
                child::say("building", 1);
                child::stay();
                Ok(())
            };
            folder.create_file_atomically("lane-0", 4096, 0o600, init).map(|_| Created::Theirs)
        };
        return drop(built.expect("there is room"));
    }
    for (role, finished) in [("folder", "bus"), ("file", "lane-0")] {
        let place = Place::new();
        let folder = place.folder();
        let (mut dead, mut living) = (place.child(test, role), place.child(test, role));
        dead.hear("building").expect("it builds");
        living.hear("building").expect("it builds");
        assert_eq!((place.names().len(), folder.sweep_temporaries()), (2, 0));
        living.signal(Signal::SIGSTOP);
        dead.signal(Signal::SIGKILL);
        dead.wait();
        until("the kernel gave its lock back", || folder.sweep_temporaries() == 1);
        assert_eq!((place.names().len(), folder.sweep_temporaries()), (1, 0));
        living.signal(Signal::SIGCONT);
        living.finish();
        assert_eq!(place.names(), [finished]);
    }
}

#[test]
fn sweeping_touches_nothing_but_our_temporaries() {
    let place = Place::new();
    let ours = ".bus.4711-00c0ffee00c0ffee.tmp";
    let others = [
        ".bus.4711-00c0ffee.tmp",
        ".bus.4711-00c0ffee00c0ffee",
        ".bus.x-00c0ffee00c0ffee.tmp",
        ".4711-00c0ffee00c0ffee.tmp",
        "bus.4711-00c0ffee00c0ffee.tmp",
        ".bus.4711-00C0FFEE00C0FFEE.tmp",
    ];
    for name in others.into_iter().chain([ours, ".other.4711-00c0ffee00c0ffee.tmp"]) {
        std::fs::write(place.0.join(name), "x").expect("a test may write there");
    }
    let link = ".link.4711-00c0ffee00c0ffee.tmp";
    symlink(place.0.join(others[0]), place.0.join(link)).expect("a test may write there");
    let path = place.0.join("bus");
    let home = Home::find(path.to_str().expect("it is text")).expect("the parent exists");
    assert_eq!(home.sweep_temporaries(), 1, "that of this bus only");
    assert!(!place.names().contains(&ours.to_owned()));
    assert_eq!(place.folder().sweep_temporaries(), 1, "that of the other bus");
    assert_eq!(place.names().len(), others.len() + 1);
}

#[test]
fn sweepers_and_builders_do_not_meet() {
    let place = Place::new();
    let (parent, running) = (place.folder(), AtomicUsize::new(2));
    std::thread::scope(|scope| {
        let build = |name: &'static str| {
            let (parent, running) = (&parent, &running);
            move || {
                for round in 0..300 {
                    let bus = make(parent, name);
                    let made = file(&bus, "lane-0", round);
                    assert_eq!(value(&made), round);
                    parent.remove_folder(name).expect("it exists");
                }
                running.fetch_sub(1, Relaxed);
            }
        };
        scope.spawn(build("one"));
        scope.spawn(build("two"));
        while running.load(Relaxed) > 0 {
            parent.sweep_temporaries();
            for name in ["one", "two"] {
                if let Ok(bus) = parent.open_folder(name) {
                    bus.sweep_temporaries();
                }
            }
        }
    });
    parent.sweep_temporaries();
    assert_eq!(place.names(), [""; 0]);
}
