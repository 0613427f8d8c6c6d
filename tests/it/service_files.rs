//! The files of a service: what they are when somebody cut them short, exchanged or removed them.

use super::process::Den;
use super::service::{open, small, PATIENCE};
use std::fs::OpenOptions;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use windlass::{CallError, ErrorKind, ReplyError, ServeError, Wait};

#[test]
fn a_file_that_is_cut_short_is_an_error_for_everybody_and_no_signal() {
    for name in ["control", "data"] {
        // In the middle of a call, and before one.
        for taken in [true, false] {
            let den = Den::new();
            let bus = den.bus();
            let service = small(&bus).create().expect("it is new");
            let client = service.client().expect("there is a slot");
            let mut server = service.server().expect("there is a slot");
            let mut other = service.server().expect("there is a slot");
            let pending = client.begin(b"before").expect("it is free");
            let call = match taken {
                true => server.try_take().expect("it is sound"),
                false => None,
            };
            let path = format!("{}/s.service/{name}", den.bus_path());
            let file = OpenOptions::new().write(true).open(path).expect("it is there");
            file.set_len(4096).expect("it can be cut");
            assert_eq!(pending.wait(PATIENCE).err(), Some(CallError::Corrupt), "{name}");
            if let Some(call) = call {
                assert_eq!(call.reply(b"after"), Err(ReplyError::Corrupt), "{name}");
            }
            assert_eq!(client.begin(b"after").map(drop), Err(CallError::Corrupt), "{name}");
            let taken = other.take(Wait::For(Duration::from_secs(10)));
            assert_eq!(taken.err(), Some(ServeError::Corrupt), "{name}");
            let info = service.info().map(drop).map_err(|error| error.kind());
            assert_eq!(info, Err(ErrorKind::Corrupt), "{name}");
            let repaired = bus.repair().map(drop).map_err(|error| error.kind());
            assert_eq!(repaired, Err(ErrorKind::Corrupt), "{name}");
            let opened = small(&bus).open().and_then(|service| service.client());
            assert_eq!(opened.map(drop).map_err(|it| it.kind()), Err(ErrorKind::Corrupt), "{name}");
            bus.remove_service("s").expect("its folder is whole");
            small(&bus).create().expect("the name is free");
        }
    }
}

#[test]
fn the_data_of_another_service_is_refused() {
    let den = Den::new();
    let bus = den.bus();
    small(&bus).create().expect("it is new");
    let other = bus.service::<windlass::Raw, windlass::Raw>("t").request_bytes(256);
    other.response_bytes(300).calls(4).ahead(2).create().expect("it is new");
    let path = |name: &str| format!("{}/{name}.service/data", den.bus_path());
    std::fs::rename(path("t"), path("s")).expect("both are files");
    let error = open(&bus).client().map(drop).expect_err("it belongs to another one");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let error = bus.service::<windlass::Raw, windlass::Raw>("t").open_existing();
    let error = error.and_then(|service| service.server()).map(drop).expect_err("it is gone");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_service_that_is_removed_lives_on_for_those_who_have_it() {
    let den = Den::new();
    let bus = den.bus();
    let service = small(&bus).create().expect("it is new");
    let mode = |name: &str| {
        let path = format!("{}/s.service/{name}", den.bus_path());
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    };
    assert_eq!((mode("control"), mode("data")), (0o600, 0o600));
    let (client, mut server) =
        (service.client().expect("there is a slot"), service.server().expect("there is a slot"));
    bus.remove_service("s").expect("it is there");
    assert_eq!(bus.services().expect("it is sound"), [""; 0]);
    let pending = client.begin(b"still").expect("it is free");
    server.try_take().expect("it is sound").expect("it was made").reply(b"here").expect("waits");
    assert_eq!(pending.wait(PATIENCE).expect("answered").bytes(), b"here");
    let other = small(&bus).create().expect("the name is free");
    assert_eq!(other.info().expect("it is sound").made, 0);
}
