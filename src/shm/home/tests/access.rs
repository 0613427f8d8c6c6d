//! Who may, where, and with which mode.

use super::*;
use nix::unistd::{chown, setuid, Uid};
use std::os::unix::fs::PermissionsExt;

#[test]
fn modes_are_exact_whatever_the_mask_is() {
    let test = concat!(module_path!(), "::modes_are_exact_whatever_the_mask_is");
    if child::role().is_none() {
        let place = Place::new();
        std::fs::set_permissions(&place.0, PermissionsExt::from_mode(0o777)).expect("ours");
        return place.child(test, "masked").finish();
    }
    give_up_root();
    for mask in [0, 0o777] {
        umask(Mode::from_bits_truncate(mask));
        let place = own_place().join(format!("root-{mask}"));
        let root = Directory::open_own_root(&place).expect("it can be made");
        assert_eq!(mode_of(&place), 0o700);
        let root = Folder::Directory(Arc::new(root));
        for mode in [0o700, 0o770, 0o2775] {
            let name = format!("bus-{mode:o}");
            let built = root.create_folder_atomically(&name, mode, |inside| {
                let file = |mode| {
                    let name = format!("file-{mode:o}");
                    inside.create_file_atomically(&name, 4096, mode, |_| Ok(()))
                };
                file(0o600)?;
                file(0o664)?;
                Ok(())
            });
            assert!(matches!(built, Ok(Created::Mine(_))));
            assert_eq!(mode_of(&place.join(&name)), mode);
            assert_eq!(mode_of(&place.join(&name).join("file-600")), 0o600);
            assert_eq!(mode_of(&place.join(&name).join("file-664")), 0o664);
        }
    }
}

/// In a child: becomes a user whom access rights bind.
fn give_up_root() {
    if geteuid().is_root() {
        setuid(Uid::from_raw(65534)).expect("root may");
    }
}

#[test]
fn a_folder_that_may_not_be_written_is_a_sentence() {
    let test = concat!(module_path!(), "::a_folder_that_may_not_be_written_is_a_sentence");
    if child::role().is_none() {
        let place = Place::new();
        std::fs::set_permissions(&place.0, PermissionsExt::from_mode(0o555)).expect("ours");
        return place.child(test, "user").finish();
    }
    give_up_root();
    let folder = folder(&own_place());
    let made = folder.create_folder_atomically("bus", 0o700, |_| Ok(()));
    let error = made.err().expect("refused");
    assert_eq!(error.kind(), ErrorKind::Permission);
    let text = error.to_string();
    assert!(text.contains("/bus: this user may not"), "{text}");
    let made = folder.create_file_atomically("lane-0", 4096, 0o600, |_| Ok(()));
    assert_eq!(kind(made), ErrorKind::Permission);
}

#[test]
fn too_many_files_is_a_sentence() {
    use nix::sys::resource::{getrlimit, setrlimit, Resource};
    let test = concat!(module_path!(), "::too_many_files_is_a_sentence");
    if child::role().is_none() {
        return Place::new().child(test, "limited").finish();
    }
    let folder = folder(&own_place());
    drop(file(&folder, "control", 1));
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("Linux has it");
    setrlimit(Resource::RLIMIT_NOFILE, 3, hard).expect("lowering is allowed");
    let error = folder.open_file("control", Access::Read).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("ulimit -n"), "{error}");
    let memory = Folder::Memory(Memory::new("memory"));
    let made = memory.create_file_atomically("control", 4096, 0o600, |_| Ok(()));
    assert_eq!(kind(made), ErrorKind::Limit);
}

#[test]
fn a_name_that_is_too_long_is_a_sentence() {
    let place = Place::new();
    let error = place.folder().open_file(&"x".repeat(300), Access::Read).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.to_string().contains("so long a name"), "{error}");
}

#[test]
fn a_root_that_is_not_the_users_alone_is_refused() {
    let place = Place::new();
    let refused = |path: &Path, why: &str| {
        let error = Directory::open_own_root(path).err().expect("refused");
        assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
        assert!(error.to_string().contains(why), "{error}");
    };
    let good = place.0.join("good");
    assert!(Directory::open_own_root(&good).is_ok() && Directory::open_own_root(&good).is_ok());
    assert_eq!(mode_of(&good), 0o700);

    let link = place.0.join("link");
    symlink(&good, &link).expect("a test may write there");
    refused(&link, "it is a symbolic link");
    let file = place.0.join("file");
    std::fs::write(&file, "x").expect("a test may write there");
    refused(&file, "it is not a directory");
    for mode in [0o701, 0o710, 0o740, 0o707, 0o1777] {
        let open = place.0.join(format!("open-{mode:o}"));
        std::fs::create_dir(&open).expect("a test may write there");
        std::fs::set_permissions(&open, PermissionsExt::from_mode(mode)).expect("ours");
        refused(&open, &format!("its mode is {mode:04o}"));
    }
    let theirs = place.0.join("theirs");
    if geteuid().is_root() {
        std::fs::create_dir(&theirs).expect("a test may write there");
        std::fs::set_permissions(&theirs, PermissionsExt::from_mode(0o700)).expect("ours");
        chown(&theirs, Some(Uid::from_raw(65534)), None).expect("root may");
        refused(&theirs, "it belongs to user 65534");
    } else {
        refused(Path::new("/usr"), "it belongs to user 0");
    }
}

#[test]
fn a_bus_is_found_by_name_in_the_root_and_by_path_anywhere() {
    let test = concat!(module_path!(), "::a_bus_is_found_by_name_in_the_root_and_by_path_anywhere");
    let own = format!("/dev/shm/windlass-{}/market", geteuid());
    if let Some(role) = child::role() {
        let find = |name| Home::find(name).map(|home| home.path());
        match role.as_str() {
            // An empty variable is as good as none.
            "default" => assert_eq!(find("market").expect("ours"), Path::new(&own)),
            _ => assert_eq!(find("market").expect("ours"), own_place().join("root/market")),
        }
        return;
    }
    let place = Place::new();
    let start = |role, root: &Path| {
        let mut command = Command::new(std::env::current_exe().expect("a test has a binary"));
        command.env(PLACE, &place.0).env(ROOT_VARIABLE, root);
        Child::start_in(command, test, role).finish();
    };
    start("default", Path::new(""));
    start("given", &place.0.join("root"));
    assert_eq!(mode_of(&place.0.join("root")), 0o700);

    let path = |name: &str| place.0.join(name).to_str().expect("it is text").to_owned();
    let home = Home::find(&path("bus/")).expect("the parent exists");
    assert_eq!(home.path(), place.0.join("bus"));
    assert_eq!(kind(home.open_existing_bus(false)), ErrorKind::NotFound);
    let build = |inside: &Folder| {
        file(inside, "control", 7);
        Ok(())
    };
    assert!(home.open_bus(0o700, build).expect("it is made").1);
    assert!(!home.open_bus(0o700, build).expect("it is found").1);
    assert_eq!(home.open_existing_bus(false).expect("it exists").path(), place.0.join("bus"));
    assert_eq!(kind(Home::find(&path("missing/bus"))), ErrorKind::NotFound);
    for bad in ["", "..", "a b", "/", "../..", "x/.."] {
        assert_eq!(kind(Home::find(bad)), ErrorKind::Invalid, "{bad}");
    }
}
