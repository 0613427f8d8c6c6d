//! Two processes: this one subscribes, and starts itself again to publish.
//!
//! `cargo run --example processes`

use std::process::Command;
use windlass::{Bus, Raw, Start, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = format!("example-{}", std::process::id());
    match std::env::args().nth(1) {
        Some(bus) => publish(&bus),
        None => {
            let received = subscribe(&name);
            Bus::remove(&name)?;
            println!("received {} messages from another process", received?);
            Ok(())
        }
    }
}

fn subscribe(name: &str) -> Result<u64, Box<dyn std::error::Error>> {
    let bus = Bus::open(name)?;
    let topic = bus.topic::<Raw>("greetings").open()?;
    // From here on nothing is missed, however fast the other process is.
    let mut subscriber = topic.subscriber(Start::Latest)?;
    let mut child = Command::new(std::env::current_exe()?).arg(name).spawn()?;
    let mut received = 0;
    while let Some(message) = subscriber.recv(Wait::Block)? {
        assert_eq!(message.bytes(), format!("hello {received}").as_bytes());
        received += 1;
    }
    assert!(child.wait()?.success());
    assert_eq!(received, 1000);
    Ok(received)
}

fn publish(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let topic = Bus::open(name)?.topic::<Raw>("greetings").open_existing()?;
    let mut publisher = topic.publisher()?;
    for number in 0..1000 {
        publisher.publish(format!("hello {number}").as_bytes())?;
    }
    topic.close(); // readers get what is there and then `None`
    Ok(())
}
