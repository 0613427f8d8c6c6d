//! A service whose words are overwritten with anything, while a client and a server use it.

use super::super::process::{scaled, Line, Scene};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use windlass::{Bus, Raw, Service, Wait};

/// Numbers that look random and are the same in every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ mixed >> 27
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// Writes a word somewhere behind the header of the file.
fn scribble(file: &File, dice: &mut Dice) {
    let words = file.metadata().expect("it is open").len() / 8;
    // The mark at the end says that the file was cut short.
    let at = 512 + dice.below(words - 513);
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at * 8).expect("it is there");
    let old = u64::from_le_bytes(bytes);
    let new = match dice.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => dice.next(),
        3 => dice.below(8),
        4 => old.wrapping_add(dice.below(5)).wrapping_sub(2),
        5 => old ^ dice.below(256) << 8,
        _ => old ^ 1 << dice.below(64),
    };
    file.write_all_at(&new.to_le_bytes(), at * 8).expect("it is there");
}

/// Uses whatever can be used. Results do not matter: that there is one does.
fn use_it(bus: &Bus, service: &Service<Raw, Raw>, mut damage: impl FnMut()) {
    let moment = Duration::from_millis(1);
    let (Ok(client), Ok(mut server)) = (service.client(), service.server()) else { return };
    damage();
    for round in 0..6 {
        let pending = client.begin(&[round; 40]);
        let mut stream = client.stream(&[round; 8], moment);
        damage();
        for _ in 0..3 {
            let Ok(Some(call)) = server.try_take() else { continue };
            let _ = (call.delivery(), call.is_abandoned(), call.bytes().to_vec());
            match call.bytes().len() {
                40 => drop(call.reply(&[1; 56])),
                8 => {
                    let mut stream = call.stream();
                    let _ = stream.send_timeout(&[2; 8], moment);
                    let _ = stream.send_timeout(&[3; 8], moment);
                    damage();
                    if stream.send_timeout(&[4; 8], moment).is_ok() && round % 2 == 0 {
                        drop(stream);
                    }
                }
                _ => drop(call),
            }
        }
        damage();
        if let Ok(mut pending) = pending {
            for _ in 0..300 {
                let _ = pending.try_response().map(|found| found.map(|it| it.bytes().to_vec()));
            }
            let _ = pending.wait(moment).map(|response| response.bytes().to_vec());
        }
        if let Ok(stream) = &mut stream {
            for _ in 0..4 {
                let _ = stream.next().map(|found| found.map(|it| it.bytes().to_vec()));
            }
        }
        drop(stream);
        let _ = server.take(Wait::For(8 * moment)).map(|call| call.map(|call| call.fail("no")));
        let _ = service.info();
    }
    drop((client, server));
    damage();
    let _ = (bus.repair(), bus.inspect_service("s"), service.client().map(drop));
    service.close();
}

/// Lays one service after the other, and damages each in its own way. Says `case` before each, and `done` after all.
pub fn scribbler(scene: &Scene, line: &mut Line) {
    let bus = scene.bus();
    for case in 0..scaled(150) {
        let mut dice = Dice(case);
        let named = bus.service::<Raw, Raw>("s").request_bytes(64).response_bytes(56);
        let service = named.calls(2).ahead(2).clients_max(2).servers_max(2).create();
        let service = service.expect("it is new");
        let open = |name| {
            let path = format!("{}/s.service/{name}", scene.bus_path());
            File::options().read(true).write(true).open(path).expect("it is there")
        };
        let files = [open("control"), open("data")];
        line.say(format_args!("case {case}"));
        use_it(&bus, &service, || {
            for _ in 0..dice.below(12) {
                let which = dice.below(4).min(1) as usize;
                scribble(&files[1 - which], &mut dice);
            }
        });
        bus.remove_service("s").expect("its folder is whole");
    }
    line.say("done");
}
