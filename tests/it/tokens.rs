//! Queues of tokens: every token goes to one consumer, those of a producer in their order, between threads and between
//! processes, whoever is killed or stopped; and bytes that no queue has are refused.

use super::process::{scaled, until, Actor, Den, Line, Role, Scene, Stage};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use windlass::{Bus, ErrorKind, TokenError, TokenQueue};

pub const ROLES: &[(&str, Role)] = &[
    ("tokens.push", push),
    ("tokens.pop", pop),
    ("tokens.push_noting", push_noting),
    ("tokens.pop_noting", pop_noting),
    ("tokens.swap", swap),
];

/// What ends a consumer.
const END: u64 = u32::MAX as u64;
/// Long enough for whoever is not held up.
const PATIENCE: Duration = Duration::from_secs(60);
const HEADER: u64 = 4096;

fn token(producer: u64, number: u64) -> u64 {
    producer << 24 | number
}

fn queue(bus: &Bus) -> TokenQueue {
    bus.tokens("q").open_existing().expect("the test created it")
}

/// Pushes `count` tokens as producer `id`. Says `done`.
fn push(scene: &Scene, line: &mut Line) {
    let (queue, id) = (queue(&scene.bus()), scene.number("id"));
    for number in 0..scene.number("count") {
        queue.push_within(token(id, number), PATIENCE).expect("there is room in time");
    }
    line.say("done");
}

/// Pops until the end, and notes what came. Says `done`.
fn pop(scene: &Scene, line: &mut Line) {
    let queue = queue(&scene.bus());
    let mut got = Vec::new();
    loop {
        match queue.pop_within(PATIENCE).expect("it is sound").expect("tokens come in time") {
            END => break,
            token => got.push(token),
        }
    }
    let bytes: Vec<u8> = got.iter().flat_map(|token| token.to_le_bytes()).collect();
    std::fs::write(scene.text("note"), bytes).expect("there is room for a note");
    line.say("done");
}

/// The tokens that a consumer noted.
fn noted(path: &str) -> Vec<u64> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    bytes.chunks_exact(8).map(word).collect()
}

/// How often each token was popped; fails if a consumer got those of a producer out of order.
fn tally(consumers: &[Vec<u64>]) -> BTreeMap<u64, u64> {
    let mut times = BTreeMap::new();
    for got in consumers {
        let mut last = BTreeMap::new();
        for token in got {
            *times.entry(*token).or_default() += 1;
            let before = last.insert(token >> 24, *token);
            assert!(
                before.is_none_or(|before| before < *token),
                "{token:#x} came after {before:?}"
            );
        }
    }
    times
}

fn all_to_all(stage: &Stage, producers: u64, consumers: u64, capacity: u64) {
    let folder = Den::new();
    let note = |index: u64| folder.path().join(format!("note-{index}")).display().to_string();
    let queue = stage.bus().tokens("q").capacity(capacity).create().expect("it is new");
    let count = scaled(20_000);
    let mut takers: Vec<_> = (0..consumers)
        .map(|index| stage.start("tokens.pop", &format!("note={}", note(index))))
        .collect();
    let mut givers: Vec<_> = (0..producers)
        .map(|id| stage.start("tokens.push", &format!("id={id} count={count}")))
        .collect();
    for giver in &mut givers {
        giver.hear("done");
    }
    for _ in 0..consumers {
        queue.push_within(END, PATIENCE).expect("there is room in time");
    }
    for taker in &mut takers {
        taker.hear("done");
    }
    givers.into_iter().chain(takers).for_each(Actor::finish);
    let got: Vec<_> = (0..consumers).map(|index| noted(&note(index))).collect();
    let times = tally(&got);
    assert_eq!(times.len() as u64, producers * count, "tokens are lost");
    assert!(times.values().all(|times| *times == 1), "tokens are doubled");
    let expected = (0..producers).flat_map(|id| (0..count).map(move |number| token(id, number)));
    assert!(times.keys().copied().eq(expected), "what came out is not what went in");
    assert!(queue.is_empty() && queue.pop() == Ok(None));
    queue.check().expect("it is sound");
}

#[test]
fn every_token_goes_to_one_of_three_threads() {
    all_to_all(&Stage::threads(), 3, 3, 64);
}

#[test]
fn every_token_goes_to_one_of_three_processes() {
    all_to_all(&Stage::processes(), 3, 3, 64);
}

#[test]
fn one_slot_is_enough_for_two_and_two() {
    all_to_all(&Stage::processes(), 2, 2, 1);
}

#[test]
fn one_consumer_gets_everything_in_the_order_of_the_pushes() {
    let queue = TokenQueue::new(16).expect("there is memory");
    let count = scaled(100_000);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            (0..count).for_each(|token| queue.push_within(token, PATIENCE).expect("there is room"));
        });
        for token in 0..count {
            assert_eq!(queue.pop_within(PATIENCE), Ok(Some(token)));
        }
    });
}

/// Pushes for as long as it lives, and notes what it tried and what it did: two words.
fn push_noting(scene: &Scene, line: &mut Line) {
    let (queue, id) = (queue(&scene.bus()), scene.number("id"));
    let note = File::create(scene.text("note")).expect("there is room for a note");
    line.say("ready");
    for number in 1u64.. {
        note.write_all_at(&number.to_le_bytes(), 0).expect("there is room for a note");
        queue.push_within(token(id, number), PATIENCE).expect("there is room in time");
        note.write_all_at(&number.to_le_bytes(), 8).expect("there is room for a note");
    }
}

/// Pops for as long as it lives, and notes each token.
fn pop_noting(scene: &Scene, line: &mut Line) {
    let queue = queue(&scene.bus());
    let mut note = File::create(scene.text("note")).expect("there is room for a note");
    line.say("ready");
    loop {
        if let Some(token) = queue.pop_within(PATIENCE).expect("it is sound") {
            note.write_all(&token.to_le_bytes()).expect("there is room for a note");
        }
    }
}

#[test]
fn whoever_is_killed_takes_one_token_with_it_at_most_and_holds_nobody_up() {
    let (den, kills) = (Den::new(), scaled(30));
    let bus = den.bus();
    let queue = bus.tokens("q").capacity(32).create().expect("it is new");
    let path =
        |what: &str, index: u64| den.path().join(format!("{what}-{index}")).display().to_string();
    let start = |index: u64| {
        let producer = format!("id={index} note={}", path("push", index));
        let consumer = format!("note={}", path("pop", index));
        let mut pair = [
            Actor::process(&den, "tokens.push_noting", &producer),
            Actor::process(&den, "tokens.pop_noting", &consumer),
        ];
        pair.iter_mut().for_each(|actor| drop(actor.hear("ready")));
        pair
    };
    let mut next = start(0);
    for kill in 0..kills {
        let mut victims = std::mem::replace(&mut next, start(kill + 1));
        // Some are stopped in the middle of something first.
        if kill % 3 == 0 {
            victims.iter_mut().for_each(Actor::stop);
        }
        let others = path("pop", kill + 1);
        let before = noted(&others).len();
        until("somebody else gets something", || noted(&others).len() > before + 20);
        victims.iter_mut().for_each(Actor::kill);
    }
    next.iter_mut().for_each(Actor::kill);
    let mut got: Vec<_> = (0..kills + 1).map(|index| noted(&path("pop", index))).collect();
    let mut rest = Vec::new();
    while let Some(token) = queue.pop().expect("it is sound") {
        rest.push(token);
    }
    got.push(rest);
    let times = tally(&got);
    assert!(times.values().all(|times| *times == 1), "tokens are doubled");
    let mut lost = 0;
    for id in 0..kills + 1 {
        let note = noted(&path("push", id));
        let (tried, pushed) = (note.first().copied(), note.get(1).copied());
        let (tried, pushed) = (tried.unwrap_or(0), pushed.unwrap_or(0));
        let mine = times.range(token(id, 0)..token(id + 1, 0)).map(|(token, _)| token & 0xff_ffff);
        let mine: Vec<u64> = mine.collect();
        assert!(mine.iter().all(|number| *number <= tried), "{id} never pushed all of that");
        lost += (1..=pushed).filter(|number| mine.binary_search(number).is_err()).count() as u64;
    }
    assert!(lost <= kills + 1, "{lost} tokens are lost, and each consumer had one at most");
    // Every slot works.
    for _ in 0..3 {
        (0..32).for_each(|token| queue.push(token).expect("there is room"));
        assert_eq!(queue.push(0), Err(TokenError::Full));
        (0..32).for_each(|token| assert_eq!(queue.pop(), Ok(Some(token))));
        assert_eq!(queue.pop(), Ok(None));
    }
    queue.check().expect("it is sound");
    assert_eq!(bus.repair().expect("it is sound").temporaries, 0, "nothing is left");
}

#[test]
fn a_queue_says_when_it_is_full_and_what_it_takes() {
    let queue = TokenQueue::new(2).expect("there is memory");
    assert_eq!((queue.capacity(), queue.token_max()), (2, u64::from(u32::MAX)));
    let too_large = Err(TokenError::TooLarge { max: queue.token_max() });
    assert_eq!(queue.push(1 << 32), too_large);
    assert_eq!(queue.push_within(u64::MAX, Duration::ZERO), too_large);
    assert_eq!((queue.push(7), queue.push(8), queue.len()), (Ok(()), Ok(()), 2));
    assert_eq!(queue.push(9), Err(TokenError::Full));
    assert_eq!(queue.push_within(9, Duration::from_millis(2)), Err(TokenError::Full));
    assert_eq!((queue.pop(), queue.pop(), queue.pop()), (Ok(Some(7)), Ok(Some(8)), Ok(None)));
    assert_eq!(queue.pop_within(Duration::from_millis(2)), Ok(None));
    for capacity in [0, 3, 1 << 27] {
        let error = TokenQueue::new(capacity).expect_err("it is out of range");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
}

#[test]
fn the_options_of_a_queue_are_kept_and_compared() {
    let den = Den::new();
    let bus = den.bus();
    let named = || bus.tokens("q");
    let error = named().open_existing().expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    let queue = named().capacity(8).token_bits(47).mode(0o660).create().expect("it is new");
    queue.push((1 << 47) - 1).expect("it fits");
    assert_eq!(named().create().expect_err("it exists").kind(), ErrorKind::AlreadyExists);
    for (other, what) in [
        (named().capacity(16), "capacity 8, not 16"),
        (named().token_bits(32), "token_bits 47, not 32"),
        (named().mode(0o600), "mode 0660, not 0600"),
    ] {
        let error = other.open().expect_err("it is another value");
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
    for wrong in
        [named().capacity(6), named().token_bits(0), named().token_bits(48), named().mode(0o777)]
    {
        let error = wrong.open().expect_err("it is out of range");
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    }
    let same = named().open().expect("it exists");
    assert_eq!(same.pop(), Ok(Some((1 << 47) - 1)));
    assert_eq!(bus.token_queues().expect("the bus is there"), ["q"]);
    assert_eq!(bus.topics().expect("the bus is there"), [""; 0]);
    bus.remove_tokens("q").expect("it exists");
    assert_eq!(bus.token_queues().expect("the bus is there"), [""; 0]);
    let new = named().open().expect("the name is free");
    drop(bus);
    queue.push(1).expect("those who have it keep it, without a bus");
    assert_eq!((same.pop(), new.pop()), (Ok(Some(1)), Ok(None)));
}

/// Pushes what it pops until it cannot, and says why not.
fn swap(scene: &Scene, line: &mut Line) {
    let queue = queue(&scene.bus());
    line.say("begun");
    let error = loop {
        let step = queue.pop().and_then(|token| token.map_or(Ok(()), |token| queue.push(token)));
        match step {
            Ok(()) | Err(TokenError::Full) => {}
            Err(error) => break error,
        }
    };
    line.say(format_args!("{error:?}"));
}

fn file_of(den: &Den) -> File {
    let path = den.path().join("bus/q.tokens/ring");
    OpenOptions::new().read(true).write(true).open(path).expect("the queue has a file")
}

#[test]
fn a_file_that_is_cut_short_is_noticed_by_whoever_uses_it() {
    let den = Den::new();
    let queue = den.bus().tokens("q").capacity(4096).create().expect("it is new");
    (0..100).for_each(|token| queue.push(token).expect("there is room"));
    let mut actor = Actor::process(&den, "tokens.swap", "");
    actor.hear("begun");
    file_of(&den).set_len(HEADER).expect("a file of ours can be cut short");
    actor.hear("Corrupt");
    actor.finish();
    assert_eq!(queue.push(1), Err(TokenError::Corrupt));
    assert_eq!(queue.pop(), Err(TokenError::Corrupt));
    assert_eq!(queue.check().expect_err("it is damaged").kind(), ErrorKind::Corrupt);
    let error = den.bus().tokens("q").open().expect_err("it is too short");
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn no_byte_of_a_header_passes_for_another() {
    let den = Den::new();
    den.bus().tokens("q").capacity(4).create().expect("it is new");
    let file = file_of(&den);
    for at in 0..128 {
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).expect("it is there");
        for bit in 0..8 {
            file.write_all_at(&[byte[0] ^ 1 << bit], at).expect("it can be written");
            let error = den.bus().tokens("q").open().expect_err("it is damaged");
            let said = matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Mismatch);
            assert!(said, "byte {at}: {error}");
        }
        file.write_all_at(&byte, at).expect("it can be written");
    }
    den.bus().tokens("q").open().expect("it is as it was");
}

#[test]
fn a_damaged_word_ends_in_tokens_or_an_error() {
    let den = Den::new();
    let queue = den.bus().tokens("q").capacity(4).token_bits(40).create().expect("it is new");
    let file = file_of(&den);
    for filled in [0, 1, 4] {
        // In the second lap, so that there is one before it.
        (0..6).for_each(|token| {
            queue.push(token).expect("there is room");
            assert_eq!(queue.pop(), Ok(Some(token)));
        });
        (0..filled).for_each(|token| queue.push(token).expect("there is room"));
        let mut sound = vec![0; 256 + 4 * 8];
        file.read_exact_at(&mut sound, HEADER).expect("it is there");
        for at in [0, 128, 256, 264, 272, 280] {
            let word = u64::from_le_bytes(sound[at..at + 8].try_into().expect("eight bytes"));
            let near = [word + 1, word.wrapping_sub(1), word + 4, !word, 0, u64::MAX, 1 << 62];
            let flipped = (0..64).map(|bit| word ^ 1 << bit);
            for value in flipped.chain(near) {
                file.write_all_at(&value.to_le_bytes(), HEADER + at as u64).expect("writable");
                // Every call returns. A ring of four cannot take or give more than that.
                let pushed = (0..20).filter(|token| queue.push(*token).is_ok()).count();
                let popped = (0..20).filter(|_| matches!(queue.pop(), Ok(Some(_)))).count();
                assert!(pushed <= 4 && popped <= 8, "{at}: {value:#x}: {pushed}, {popped}");
                let _ = queue.check();
                assert!(queue.len() <= 4);
                file.write_all_at(&sound, HEADER).expect("writable");
            }
        }
        assert_eq!((0..20).filter(|_| matches!(queue.pop(), Ok(Some(_)))).count(), filled as usize);
        queue.check().expect("it is as it was");
    }
}

#[test]
fn a_wait_for_a_token_that_can_never_come_ends() {
    let den = Den::new();
    let queue = den.bus().tokens("q").capacity(4).create().expect("it is new");
    // The tail is beyond a place that nobody has filled.
    file_of(&den).write_all_at(&2u64.to_le_bytes(), HEADER + 128).expect("writable");
    queue.push(1).expect("there is room");
    assert_eq!(queue.pop_within(PATIENCE), Err(TokenError::Corrupt));
    assert_eq!(queue.check().expect_err("it is damaged").kind(), ErrorKind::Corrupt);
}
