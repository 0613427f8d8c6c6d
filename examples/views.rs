//! Keeping messages without copying them: views, slices, `Bytes`, weak references.
//!
//! `cargo run --example views`

use windlass::{Bus, Raw, Start, StreamChunk};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bus = Bus::anonymous()?;
    let topic =
        bus.topic::<Raw>("frames").lossy().segment_bytes(4096).segments_per_lane(4).open()?;
    let mut subscriber = topic.subscriber(Start::Latest)?;
    let mut publisher = topic.publisher()?;
    publisher.publish(b"header:the first frame")?;

    let view = subscriber.try_recv()?.ok_or("one frame was published")?.pin();
    let body = view.slice(7..); // no copy
    let bytes = view.to_bytes(); // a real bytes::Bytes, pin and all
    let weak = view.downgrade();
    let chunk = StreamChunk::new(1, view.clone(), 0).slice(7..10);
    println!("{:?} {:?} at {}", body.as_str()?, chunk.data, chunk.offset);

    // The publisher laps the lane many times; pinned bytes stay.
    for _ in 0..10_000 {
        publisher.publish(&[0xff; 64])?;
    }
    assert_eq!(view.as_bytes(), b"header:the first frame");
    assert_eq!(&bytes[..], view.as_bytes());

    // Once nobody holds it, its space is used again, and a weak reference says so.
    drop((view, body, bytes, chunk));
    while let Err(error) = subscriber.try_recv() {
        println!("{error}");
    }
    for _ in 0..10_000 {
        publisher.publish(&[0xff; 64])?;
    }
    assert!(weak.upgrade().is_none());
    Ok(())
}
