//! Looking through logs: what is sound is called sound, what is damaged is named, and nothing in a file can make a
//! reader fail otherwise.

use super::durable::Logs;
use super::log_read::{folder, hundred, open, place_word, Sent, SEGMENT};
use super::process::{scaled, until};
use proptest::prelude::*;
use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use windlass::{Damage, Log, OnDamage, Raw, ReadError, VerifyReport};

fn verify(path: &Path) -> VerifyReport {
    let log = Log::open_untyped(path).expect("a log");
    let mut last = 0;
    let report = log.verify(|done, all| {
        assert!(done >= last && done <= all, "{done} of {all} after {last}");
        last = done;
    });
    report.expect("the folder can be listed")
}

fn writable(path: &Path, name: &str) -> File {
    File::options().read(true).write(true).open(path.join(name)).expect("it is there")
}

#[test]
fn a_sound_log_is_called_sound_while_it_is_used_and_after() {
    let logs = Logs::new("sound");
    let topic = open(&logs);
    let (sent, receipts) = hundred(&topic);
    topic.cursor("billing").expect("free").commit(7).expect("it is there");
    let payload: u64 = sent.iter().map(|it| it.payload.len() as u64).sum();
    let check = |report: &VerifyReport, in_use: bool| {
        assert!(report.is_sound(), "{:?} {:?}", report.records, report.files);
        let found = (report.first, report.next, report.sound, report.in_use);
        assert_eq!(found, (0, 100, 100, in_use));
        assert_eq!(report.lanes.values().map(|lane| lane.messages).sum::<u64>(), 100);
        assert_eq!(report.lanes.values().map(|lane| lane.payload_bytes).sum::<u64>(), payload);
        assert_eq!((report.recovered_next, report.would_cut), (100, 0));
        assert!(report.times_ns.is_some_and(|(first, last)| first > 0 && first <= last));
    };
    check(&verify(&folder(&logs)), true);
    check(&topic.log().expect("durable").verify(|_, _| {}).expect("it can be listed"), true);
    // A message that is begun and not committed is no damage, and is told of once nobody uses the log.
    let mut publisher = topic.publisher().expect("a free lane");
    let mut loan = publisher.loan(64).expect("room");
    loan.copy_from_slice(&[0xee; 64]);
    let lane = receipts.iter().filter(|it| it.lane == 0).count();
    check(&verify(&folder(&logs)), true);
    drop((publisher, topic));
    let report = verify(&folder(&logs));
    check(&report, false);
    assert!(lane > 0 && report.lanes[&0].residue_bytes >= 64, "{:?}", report.lanes);
}

#[test]
fn each_damage_is_named_by_message_and_file() {
    let logs = Logs::new("named");
    let topic = open(&logs);
    let (_, receipts) = hundred(&topic);
    drop(topic);
    let path = folder(&logs);
    let receipt = receipts[50];
    let name = format!("lane-{}-{:012x}", receipt.lane, receipt.position / SEGMENT);
    let places = "places-000000000000".to_owned();
    let at = 4096 + receipt.position % SEGMENT;
    let word = 4096 + 50 * 8;
    let other = receipts[52];
    assert_eq!(other.lane, receipt.lane);
    let another = place_word(other.lane.into(), other.position / 8, 50);
    /// File, where in it, bytes, what is found, and in which file.
    type Case<'a> = (&'a str, u64, Vec<u8>, &'a [(u64, Damage)], &'a str);
    let cases: [Case<'_>; 5] = [
        (&name, at + 40, vec![0xaa], &[(50, Damage::Checksum)], &name),
        (&name, at + 4, vec![0xff], &[(50, Damage::Record)], &name),
        (&places, word, vec![0; 8], &[(50, Damage::Place)], &places),
        (&places, word + 7, vec![0xff], &[(50, Damage::Place)], &places),
        // The place of another message: that one does not follow the one before it.
        (&places, word, another.to_le_bytes().to_vec(), &[(50, Damage::Sequence)], &name),
    ];
    for (file, at, bytes, wanted, blamed) in cases {
        let opened = writable(&path, file);
        let mut before = vec![0; bytes.len()];
        opened.read_exact_at(&mut before, at).expect("it is there");
        opened.write_all_at(&bytes, at).expect("it can be written");
        let report = verify(&path);
        let found: Vec<_> = report.records.iter().map(|it| (it.sequence, it.damage)).collect();
        // Where the place of a message is wrong, the next one of its lane may be taken for wrong as well.
        assert_eq!(&found[..1], wanted, "{:?}", report.records);
        assert!(found.len() <= 2 && report.damaged == found.len() as u64, "{found:?}");
        assert_eq!(report.records[0].file, blamed);
        assert_eq!(report.sound + report.damaged, 100);
        assert!(report.files.is_empty(), "{:?}", report.files);
        opened.write_all_at(&before, at).expect("it can be written");
    }
    assert!(verify(&path).is_sound());
}

/// Puts back what was on disk before the log was written, in files that nobody can take for those that were in use.
pub fn as_after_a_crash(path: &Path, checkpoint: &[u8]) {
    std::fs::write(path.join("checkpoint"), checkpoint).expect("it can be written");
    let (claim, copy) = (path.join("claim"), path.join("copy"));
    std::fs::copy(&claim, &copy).expect("it can be copied");
    std::fs::rename(copy, claim).expect("it can be renamed");
}

#[test]
fn what_the_next_opening_would_cut_off_is_said() {
    let logs = Logs::new("cuts");
    let topic = open(&logs);
    let path = folder(&logs);
    let checkpoint = std::fs::read(path.join("checkpoint")).expect("it is there");
    let (_, receipts) = hundred(&topic);
    drop(topic);
    as_after_a_crash(&path, &checkpoint);
    let receipt = receipts[60];
    let name = format!("lane-{}-{:012x}", receipt.lane, receipt.position / SEGMENT);
    let at = 4096 + receipt.position % SEGMENT + 24;
    writable(&path, &name).write_all_at(&[0x77; 2], at).expect("it can be written");
    let report = verify(&path);
    assert_eq!((report.damaged, report.recovered_next, report.would_cut), (1, 60, 40));
    // And that is what it does.
    let log = open(&logs).log().expect("durable");
    assert_eq!(log.next().expect("sound"), 60);
    assert!(verify(&path).is_sound());
}

#[test]
fn files_that_are_damaged_or_gone_are_named() {
    let logs = Logs::new("files");
    let topic = open(&logs);
    hundred(&topic);
    topic.cursor("billing").expect("free").commit(7).expect("it is there");
    drop(topic);
    let path = folder(&logs);
    for (name, at) in [
        ("lane-1-000000000000", 0),
        ("places-000000000000", 17),
        ("checkpoint", 30),
        ("cursor-billing", 100),
    ] {
        let file = writable(&path, name);
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is there");
        file.write_all_at(&[byte[0] ^ 1], at).expect("it can be written");
        let report = verify(&path);
        let named: Vec<_> = report.files.iter().map(|it| it.file.as_str()).collect();
        assert_eq!(named, [name], "{:?}", report.files);
        file.write_all_at(&byte, at).expect("it can be written");
        let len = file.metadata().expect("it is there").len();
        file.set_len(len - 1).expect("it can be cut");
        let report = verify(&path);
        assert_eq!(report.files[0].file, name);
        file.set_len(len).expect("it can be made longer");
        file.write_all_at(&[0], len - 1).expect("it can be written");
        // The last word of every file is its identity again.
        let mut mark = [0; 8];
        file.read_exact_at(&mut mark, 32).expect("it is there");
        file.write_all_at(&mark, len - 8).expect("it can be written");
    }
    assert!(verify(&path).is_sound());
}

#[test]
fn a_summary_of_times_that_is_wrong_is_named() {
    let logs = Logs::new("summaries");
    let topic = open(&logs);
    let mut publisher = topic.publisher().expect("a free lane");
    for _ in 0..20_000 {
        publisher.publish(b"now").expect("room");
    }
    let (path, log) = (folder(&logs), topic.log().expect("durable"));
    let places = File::open(path.join("places-000000000000")).expect("it is there");
    // Behind the places: for each block of 4096 the earliest and the latest time.
    let summary = 4096 + (1 << 17) * 8 + 2 * 16;
    let mut told = [0; 16];
    until("the keeper has summarised the third block", || {
        places.read_exact_at(&mut told, summary).expect("it is there");
        told[8..] != [0; 8]
    });
    assert!(log.verify(|_, _| {}).expect("it can be listed").is_sound());
    drop((log, publisher, topic));
    let places = writable(&path, "places-000000000000");
    places.write_all_at(&[told[8] ^ 1], summary + 8).expect("it can be written");
    let report = verify(&path);
    assert_eq!((report.damaged, report.files.len()), (0, 1), "{:?}", report.files);
    assert!(report.files[0].to_string().contains("up to 12287"), "{}", report.files[0]);
}

/// What a hostile hand did to a file.
#[derive(Clone, Debug)]
enum Deed {
    Flip { at: u64, bit: u8 },
    Zero { at: u64, len: usize },
    Word { at: u64, word: u64 },
    Cut { len: u64 },
    Remove,
}

fn deed() -> impl Strategy<Value = Deed> {
    // Most of what matters is at the beginning of a file.
    let at = || prop_oneof![0..512u64, 4096..5120u64, 0..1u64 << 20];
    prop_oneof![
        4 => (at(), 0..8u8).prop_map(|(at, bit)| Deed::Flip { at, bit }),
        2 => (at(), 1..5000usize).prop_map(|(at, len)| Deed::Zero { at, len }),
        3 => (at(), any::<u64>()).prop_map(|(at, word)| Deed::Word { at: at & !7, word }),
        1 => (0..1u64 << 20).prop_map(|len| Deed::Cut { len }),
        1 => Just(Deed::Remove),
    ]
}

fn commit(path: &Path, deed: &Deed) {
    let file = File::options().read(true).write(true).open(path).expect("it is there");
    let len = file.metadata().expect("it is there").len();
    let within = |at: u64, span: u64| at.min(len.saturating_sub(span));
    match deed {
        Deed::Flip { at, bit } => {
            let (at, mut byte) = (within(*at, 1), [0]);
            file.read_exact_at(&mut byte, at).expect("it is there");
            file.write_all_at(&[byte[0] ^ (1 << bit)], at).expect("it can be written");
        }
        Deed::Zero { at, len: span } => {
            let span = (*span).min(len as usize);
            let at = within(*at, span as u64);
            file.write_all_at(&vec![0; span], at).expect("it can be written");
        }
        Deed::Word { at, word } => {
            let at = within(*at, 8);
            file.write_all_at(&word.to_le_bytes(), at).expect("it can be written");
        }
        Deed::Cut { len } => file.set_len(*len).expect("it can be cut"),
        Deed::Remove => std::fs::remove_file(path).expect("it is there"),
    }
}

/// Whether a message is the one of its sequence. If not it must be another one that was sent: a place may have come to
/// name the record of another message, which is whole.
fn is_itself(view: &windlass::View<Raw>, sent: &[Sent]) -> bool {
    let (lane, key, payload) = (view.lane(), view.key().to_vec(), view.as_bytes().to_vec());
    let found = Sent { lane, key, payload };
    assert!(sent.contains(&found), "message {} was never sent", view.sequence());
    sent.get(view.sequence() as usize) == Some(&found)
}

/// Reads a log in every way there is. Whatever is given as a message must be one that was sent, and if it is under
/// another sequence, a look through the log must say so.
fn read_all(log: &Log<Raw>, sent: &[Sent]) {
    let _ = (log.info(), log.schema_bytes(), log.at_time(1), log.count());
    let strays = Cell::new(0);
    let check = |view: &windlass::View<Raw>| {
        strays.set(strays.get() + u64::from(!is_itself(view, sent)));
    };
    if let Ok(all) = log.iter(..) {
        all.take(500).for_each(|view| view.iter().for_each(check));
    }
    if let Ok(all) = log.iter(..) {
        all.rev().take(500).for_each(|view| view.iter().for_each(check));
    }
    if let Ok(mut scan) = log.scan(..) {
        for _ in 0..500 {
            match scan.read() {
                Some(Ok(record)) => check(&record.pin()),
                Some(Err(ReadError::Damaged { .. } | ReadError::Lagged { .. })) => {}
                Some(Err(other)) => panic!("{other}"),
                None => break,
            }
        }
    }
    for sequence in (0..sent.len() as u64 + 3).chain([u64::MAX, 1 << 40]) {
        let _ = log.get(sequence).map(|view| check(&view));
    }
    let report = log.verify(|_, _| {}).expect("the folder can be listed");
    assert!(report.sound + report.damaged + report.deleted <= report.next.max(sent.len() as u64));
    assert!(strays.get() == 0 || report.damaged > 0, "a message is not in its place: {report:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: scaled(64) as u32, ..ProptestConfig::default() })]

    /// Whatever the files hold: no panic, no signal, and no message that was not sent. What the next
    /// opening makes of it is sound, as far as it opens.
    #[test]
    fn hostile_files_are_told_of_and_never_believed(
        deeds in prop::collection::vec((any::<prop::sample::Index>(), deed()), 1..5)
    ) {
        let logs = Logs::new("hostile");
        let topic = open(&logs);
        let (sent, _) = hundred(&topic);
        topic.cursor("billing").expect("free").commit(7).expect("it is there");
        drop(topic);
        for (which, deed) in &deeds {
            let mut files: Vec<_> = std::fs::read_dir(folder(&logs)).expect("it is there")
                .map(|entry| entry.expect("it is there").path())
                // What the log says of itself is trusted to be there.
                .filter(|path| !path.ends_with("log"))
                .collect();
            files.sort();
            commit(&files[which.index(files.len())], deed);
        }
        if let Ok(log) = Log::open_untyped(folder(&logs)) {
            read_all(&log, &sent);
        }
        let bus = windlass::Bus::anonymous().expect("there is memory");
        let topic = bus.topic::<Raw>("events").durable_at(folder(&logs)).publishers_max(4);
        let Ok(topic) = topic.segment_bytes(SEGMENT).open() else { return Ok(()) };
        let _ = (topic.cursors(), topic.cursor("billing").map(|cursor| cursor.next()));
        read_all(&topic.log().expect("durable"), &sent);
        if let Ok(replay) = topic.replay(windlass::Start::Oldest, windlass::Speed::Flat) {
            let mut replay = replay.on_damage(OnDamage::Skip);
            while let Ok(Some(message)) = replay.try_recv() {
                is_itself(&message.pin(), &sent);
            }
        }
    }
}
