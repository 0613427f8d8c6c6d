//! Several publishers, one total order that every subscriber sees.
//!
//! `cargo run --example ordered`

use windlass::{Bus, Raw, Start, Wait};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::anonymous()?;
    let topic = bus.topic::<Raw>("orders").ordered().open()?;
    let mut readers = [topic.subscriber(Start::Latest)?, topic.subscriber(Start::Latest)?];
    std::thread::scope(|scope| {
        for desk in 0..3u8 {
            let topic = &topic;
            scope.spawn(move || {
                let mut publisher = topic.publisher().expect("there is room for three");
                for number in 0..1000u16 {
                    let [low, high] = number.to_le_bytes();
                    publisher.publish(&[desk, low, high]).expect("both readers have room");
                }
            });
        }
    });
    topic.close();

    let mut seen = Vec::new();
    for reader in &mut readers {
        let mut mine = Vec::new();
        while let Some(message) = reader.recv(Wait::Block)? {
            assert_eq!(message.sequence(), mine.len() as u64, "dense");
            mine.push(message.bytes().to_vec());
        }
        seen.push(mine);
    }
    assert_eq!(seen[0].len(), 3000);
    assert_eq!(seen[0], seen[1], "the same order for everybody");
    println!("two readers saw the same {} messages in the same order", seen[0].len());
    Ok(())
}
