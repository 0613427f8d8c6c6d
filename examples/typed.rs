//! Cap'n Proto messages built in shared memory by one end and read in place by the other.
//!
//! `cargo run --example typed`

use windlass::schemas::tick_capnp::{tick, Venue};
use windlass::{Bus, Start, View};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::anonymous()?; // Bus::open("market")? to share it with other processes
    let topic = bus.topic::<tick::Owned>("ticks").open()?;
    let mut subscriber = topic.subscriber(Start::Latest)?;
    let mut publisher = topic.publisher()?;

    for number in 0..3 {
        let mut loan = publisher.loan()?; // a builder in shared memory
        let mut tick = loan.init_root();
        tick.set_symbol("ACME");
        tick.set_price(101.25 + number as f64);
        tick.set_number(number);
        tick.set_venue(Venue::Primary);
        let receipt = loan.publish()?; // one store: now everybody sees it
        println!("published sequence {} at {}", receipt.sequence, receipt.position);
    }
    drop(publisher.loan()?); // dropped: it never existed

    let mut kept: Option<View<tick::Owned>> = None;
    while let Some(message) = subscriber.try_recv()? {
        let tick = message.get()?; // read in place, nothing copied
        println!("{} {} {}", message.sequence(), tick.get_symbol()?.to_str()?, tick.get_price());
        kept = Some(message.pin()); // owned, Send, Clone; outlives the call
    }
    let kept = kept.ok_or("three messages were published")?;
    assert_eq!(kept.get()?.get_price(), 103.25);
    Ok(())
}
