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

#[cfg(feature = "kill-points")]
#[test]
fn a_process_killed_at_any_step_leaves_all_or_nothing() {
    let test = concat!(module_path!(), "::a_process_killed_at_any_step_leaves_all_or_nothing");
    let work = |folder: &Folder| {
        folder.sweep_temporaries();
        make(folder, "bus");
        drop(file(folder, "lane-0", 2));
        folder.remove_folder("bus").expect("it exists");
    };
    if child::role().is_some() {
        return work(&folder(&own_place()));
    }
    let steps = [
        ("home.sweep", 1),
        ("home.lock", 3),
        ("home.build", 1),
        ("home.rename", 1),
        ("file.reserve", 2),
        ("file.init", 2),
        ("file.rename", 2),
        ("file.unlock", 2),
        ("home.remove", 1),
        ("home.delete", 1),
    ];
    for (step, hits) in steps {
        for hit in 1..=hits {
            let place = Place::new();
            let parent = place.folder();
            drop(file(&parent, "lane-0", 1));
            std::fs::create_dir(place.0.join(".bus.1-00c0ffee00c0ffee.tmp")).expect("ours");
            let mut command = Command::new(std::env::current_exe().expect("a test has a binary"));
            command.env(PLACE, &place.0).env("WINDLASS_STEP", step);
            command.env("WINDLASS_STEP_HIT", hit.to_string());
            let end = Child::start_in(command, test, "worker").wait();
            let signal = std::os::unix::process::ExitStatusExt::signal(&end);
            assert_eq!(signal, Some(libc::SIGKILL), "{step} {hit}");

            parent.sweep_temporaries();
            let names = place.names();
            assert!(names == ["bus", "lane-0"] || names == ["lane-0"], "{step} {hit}: {names:?}");
            let lane = parent.open_file("lane-0", Access::Read).expect("it is never absent");
            assert!([1, 2].contains(&value(&lane)), "{step} {hit}");
            if let Ok(bus) = parent.open_folder("bus") {
                assert_eq!(value(&bus.open_file("control", Access::Read).expect("complete")), 7);
                parent.remove_folder("bus").expect("it exists");
            }
            work(&parent);
            assert_eq!(place.names(), ["lane-0"], "{step} {hit}");
        }
    }
}

/// Starts `test` in `role` and waits until it has stopped itself at `step`, or shortly after: a stop
/// is a signal to all threads, and the one that sent it may get a little further.
#[cfg(feature = "kill-points")]
fn stopped_at(place: &Place, test: &str, role: &str, step: &str) -> Child {
    use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
    let mut command = Command::new(std::env::current_exe().expect("a test has a binary"));
    command.env(PLACE, &place.0).env("WINDLASS_STEP", step).env("WINDLASS_STEP_STOP", "1");
    let child = Child::start_in(command, test, role);
    let stopped = waitpid(child.pid(), Some(WaitPidFlag::WUNTRACED));
    assert_eq!(stopped, Ok(WaitStatus::Stopped(child.pid(), Signal::SIGSTOP)));
    child
}

#[cfg(feature = "kill-points")]
#[test]
fn a_builder_that_was_swept_before_it_locked_begins_again() {
    let test = concat!(module_path!(), "::a_builder_that_was_swept_before_it_locked_begins_again");
    if let Some(role) = child::role() {
        let folder = folder(&own_place());
        if role == "folder" {
            make(&folder, "bus");
        } else {
            drop(file(&folder, "lane-0", 7));
        }
        return;
    }
    for (role, made) in [("folder", "bus"), ("file", "lane-0")] {
        until("a builder was swept before it locked", || {
            let place = Place::new();
            let builder = stopped_at(&place, test, role, "home.lock");
            let swept = place.folder().sweep_temporaries() == 1;
            builder.signal(Signal::SIGCONT);
            builder.finish();
            assert_eq!(place.names(), [made]);
            swept
        });
    }
    // The same with a sweeper that has locked it, and not yet deleted it.
    let mut place = Place::new();
    until("a sweeper was faster than a builder", || {
        place = Place::new();
        let builder = stopped_at(&place, test, "folder", "home.lock");
        let name = place.names().remove(0);
        let sweeper = std::fs::File::open(place.0.join(&name)).expect("it is there");
        let how = rustix::fs::FlockOperation::NonBlockingLockExclusive;
        let locked = rustix::fs::flock(&sweeper, how).is_ok();
        let faster = locked && name.starts_with('.') && place.0.join(&name).exists();
        builder.signal(Signal::SIGCONT);
        builder.finish();
        faster
    });
    assert_eq!(place.names().len(), 2, "the bus, and what the sweeper is about to delete");
    assert_eq!(place.folder().sweep_temporaries(), 1);
    let bus = place.folder().open_folder("bus").expect("it was made");
    assert_eq!(value(&bus.open_file("control", Access::Read).expect("complete")), 7);
}

#[cfg(feature = "kill-points")]
#[test]
fn a_sweeper_that_comes_too_late_deletes_nothing() {
    let test = concat!(module_path!(), "::a_sweeper_that_comes_too_late_deletes_nothing");
    if child::role().is_some() {
        assert_eq!(folder(&own_place()).sweep_temporaries(), 0);
        return;
    }
    let place = Place::new();
    let parent = place.folder();
    let mut sweeper = None;
    // It has opened the temporary, and as a rule not yet tried its lock, when that is renamed.
    let built = parent.create_folder_atomically("bus", 0o700, |inside| {
        file(inside, "control", 7);
        sweeper = Some(stopped_at(&place, test, "sweeper", "home.sweep"));
        Ok(())
    });
    assert!(matches!(built, Ok(Created::Mine(_))));
    let sweeper = sweeper.expect("it was started");
    sweeper.signal(Signal::SIGCONT);
    sweeper.finish();
    let bus = parent.open_folder("bus").expect("it was made");
    assert_eq!(value(&bus.open_file("control", Access::Read).expect("complete")), 7);
}
