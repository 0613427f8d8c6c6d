//! A blackboard: newcomers see the latest value at once, whoever is slow skips to what is current.
//!
//! `cargo run --example latest_value`

use windlass::{Bus, Raw, RecvError, Start};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::anonymous()?;
    let topic =
        bus.topic::<Raw>("position").lossy().segment_bytes(4096).segments_per_lane(4).open()?;
    let mut publisher = topic.publisher()?;
    let mut slow = topic.subscriber(Start::Latest)?;
    for step in 0..10_000u64 {
        publisher.publish(&step.to_le_bytes())?;
    }

    // A newcomer: the last message, and then whatever comes.
    let mut newcomer = topic.subscriber(Start::Last(1))?;
    let message = newcomer.try_recv()?.ok_or("there is a latest value")?;
    println!("newcomer sees {}", u64::from_le_bytes(message.bytes().try_into()?));
    assert_eq!(message.sequence(), 9_999);

    // The slow one is told exactly what it missed.
    let (mut received, mut missed) = (0, 0);
    loop {
        match slow.try_recv() {
            Ok(Some(_)) => received += 1,
            Ok(None) => break,
            Err(RecvError::Lagged { missed: lost }) => missed += lost,
            Err(error) => return Err(error.into()),
        }
    }
    println!("slow one received {received} and missed {missed}");
    assert_eq!(received + missed, 10_000);
    Ok(())
}
