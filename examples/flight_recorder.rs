//! A flight recorder: a process keeps its last messages on disk, dies, and somebody else reads what happened.
//!
//! `cargo run --example flight_recorder`

use std::path::Path;
use std::process::Command;
use windlass::{Bus, Log, Raw};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const KEPT_BYTES: u64 = 1 << 20;

fn main() -> Outcome<()> {
    if let Some(folder) = std::env::args().nth(1) {
        fly(Path::new(&folder))?;
    }
    let folder = std::env::temp_dir().join(format!("windlass-flight-{}", std::process::id()));
    let status = Command::new(std::env::current_exe()?).arg(&folder).status()?;
    assert!(!status.success(), "it crashed");

    // No bus, and nobody of the flight: the log is all there is.
    let log = Log::<Raw>::open(&folder)?;
    let (first, next) = (log.first()?, log.next()?);
    println!("{next} messages were recorded, the last {} are kept", next - first);
    let last = log.get(next - 1)?;
    for message in log.iter(next - 3..)? {
        let message = message?;
        let before = (last.time_ns().unwrap_or(0) - message.time_ns().unwrap_or(0)) / 1000;
        println!("  {before:4} µs before the end: {}", message.as_str()?);
    }
    assert_eq!(last.as_str()?, "99999 altitude 0 m");
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// Publishes what its instruments say, until it hits the ground.
fn fly(folder: &Path) -> Outcome<()> {
    let topic = Bus::anonymous()?.topic::<Raw>("instruments").durable_at(folder);
    // The oldest segments are deleted in the background.
    let topic = topic.segment_bytes(1 << 17).retain_bytes(KEPT_BYTES).open()?;
    let mut publisher = topic.publisher()?;
    for step in 0..100_000u32 {
        let altitude = (99_999 - step) / 10;
        publisher.publish(format!("{step} altitude {altitude} m").as_bytes())?;
    }
    std::process::abort()
}
