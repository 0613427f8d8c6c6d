//! Records what an event camera saw, and replays it as it was, and a hundred times as fast.
//!
//! `cargo run --example replay`

use std::time::Instant;
use windlass::{Append, Bus, Raw, Replay, Speed, Start, Topic, Wait};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// 4325 events of 5 bytes: x, y, polarity and time; see `examples/data/README.md`.
const RECORDING: &[u8] = include_bytes!("data/nmnist.bin");

/// Microseconds since the recording began.
fn time_us(event: &[u8]) -> u64 {
    u64::from(event[2] & 0x7f) << 16 | u64::from(event[3]) << 8 | u64::from(event[4])
}

fn record(topic: &Topic<Raw>) -> Outcome<()> {
    let mut publisher = topic.publisher()?;
    for event in RECORDING.chunks_exact(5) {
        // The time of the event, not that of its import.
        publisher.append(event, &Append::new().time_ns(time_us(event) * 1000))?;
    }
    Ok(())
}

/// Counts the events of each polarity.
fn replay(topic: &Topic<Raw>, speed: Speed) -> Outcome<[u32; 2]> {
    let mut replay: Replay<Raw> = topic.replay(Start::Oldest, speed)?;
    let (mut counts, begun) = ([0; 2], Instant::now());
    for _ in 0..RECORDING.len() / 5 {
        let message = replay.recv(Wait::Block)?.ok_or("it was recorded")?;
        counts[usize::from(message.bytes()[2] >> 7)] += 1;
    }
    println!("{speed:?}: {counts:?} events in {:.1?}", begun.elapsed());
    Ok(counts)
}

fn main() -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("windlass-replay-{}", std::process::id()));
    let topic = Bus::anonymous()?.topic::<Raw>("camera").durable_at(&folder).open()?;
    record(&topic)?;
    let as_it_was = replay(&topic, Speed::Recorded)?;
    assert_eq!(as_it_was, replay(&topic, Speed::Times(100.0))?);
    assert_eq!(as_it_was, replay(&topic, Speed::Flat)?);
    drop(topic); // and with it the thread that keeps the log
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
