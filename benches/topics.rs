//! What one message costs within one process: no transfer between cores, only the work.
//!
//! `cargo bench --bench topics`. Each group carries its baseline: the same bytes moved or built without a bus.

use criterion::{criterion_group, criterion_main, BatchSize, Criterion, Throughput};
use std::collections::VecDeque;
use std::hint::black_box;
use windlass::schemas::bench_capnp::sample;
use windlass::{Bus, Publisher, Raw, Start, Subscriber, Topic};

/// Publisher and subscriber of a fresh topic on a bus of this process.
fn pair() -> (Topic<Raw>, Publisher<Raw>, Subscriber<Raw>) {
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<Raw>("bench").segment_bytes(8 << 20).open().expect("a fresh topic");
    let publisher = topic.publisher().expect("a free lane");
    let subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    (topic, publisher, subscriber)
}

fn sum(bytes: &[u8]) -> u64 {
    u64::from(bytes[0]) + u64::from(bytes[bytes.len() - 1])
}

fn publish_and_receive(c: &mut Criterion) {
    for size in [64usize, 1024, 65536, 1 << 20] {
        let mut group = c.benchmark_group(format!("one_to_one_{size}"));
        group.throughput(Throughput::Bytes(size as u64));
        let payload = vec![7u8; size];
        let (_topic, mut publisher, mut subscriber) = pair();
        group.bench_function("publish_copy_receive", |bencher| {
            bencher.iter(|| {
                publisher.publish(black_box(&payload)).expect("it is read at once");
                let message = subscriber.try_recv().expect("sound").expect("published");
                sum(message.bytes())
            })
        });
        group.bench_function("loan_stamp_commit_receive", |bencher| {
            bencher.iter(|| {
                let mut loan = publisher.loan(size).expect("it is read at once");
                loan[0] = black_box(1);
                loan[size - 1] = black_box(2);
                loan.publish().expect("room");
                let message = subscriber.try_recv().expect("sound").expect("published");
                sum(message.bytes())
            })
        });
        let mut queue = VecDeque::with_capacity(4);
        group.bench_function("baseline_boxed_copy", |bencher| {
            bencher.iter(|| {
                queue.push_back(black_box(&payload).clone());
                queue.pop_front().map(|message| sum(&message))
            })
        });
        group.finish();
    }
}

fn views(c: &mut Criterion) {
    let mut group = c.benchmark_group("views");
    for size in [64usize, 1 << 20] {
        let (_topic, mut publisher, mut subscriber) = pair();
        publisher.publish(&vec![7u8; size]).expect("room");
        let message = subscriber.try_recv().expect("sound").expect("published");
        let view = message.pin();
        group.bench_function(format!("pin_and_drop_{size}"), |bencher| {
            bencher.iter(|| sum(message.pin().as_bytes()))
        });
        group.bench_function(format!("clone_and_drop_{size}"), |bencher| {
            bencher.iter(|| sum(view.clone().as_bytes()))
        });
        group.bench_function(format!("slice_and_drop_{size}"), |bencher| {
            bencher.iter(|| sum(view.slice(1..black_box(33)).as_bytes()))
        });
        group.bench_function(format!("weak_upgrade_{size}"), |bencher| {
            let weak = view.downgrade();
            bencher.iter(|| weak.upgrade().map(|view| sum(view.as_bytes())))
        });
        group.bench_function(format!("baseline_copy_{size}"), |bencher| {
            bencher.iter(|| sum(&black_box(view.as_bytes().to_vec())))
        });
    }
    group.finish();
}

fn fill(mut sample: sample::Builder<'_>, data: &[u8]) {
    sample.set_sequence(1);
    sample.set_time(2);
    sample.set_value(3.0);
    sample.set_source(4);
    sample.set_flags(5);
    sample.set_data(data);
}

fn read(sample: sample::Reader<'_>) -> u64 {
    let data = sample.get_data().expect("it was set");
    sample.get_sequence() + sample.get_time() + u64::from(sample.get_source()) + sum(data)
}

fn typed(c: &mut Criterion) {
    let mut group = c.benchmark_group("typed");
    let data = [9u8; 64];
    let bus = Bus::anonymous().expect("there is memory");
    let topic = bus.topic::<sample::Owned>("typed").open().expect("a fresh topic");
    let mut publisher = topic.publisher().expect("a free lane");
    let mut subscriber = topic.subscriber(Start::Oldest).expect("a free slot");
    group.bench_function("loan_build_commit_receive_read", |bencher| {
        bencher.iter(|| {
            let mut loan = publisher.loan().expect("it is read at once");
            fill(loan.init_root(), black_box(&data));
            loan.publish().expect("room");
            let message = subscriber.try_recv().expect("sound").expect("published");
            let sum = message.get().map(read).expect("sound");
            sum
        })
    });
    group.bench_function("baseline_capnp_build_and_read", |bencher| {
        let mut scratch = capnp::Word::allocate_zeroed_vec(64);
        bencher.iter_batched_ref(
            || (),
            |()| {
                let bytes = capnp::Word::words_to_bytes_mut(&mut scratch);
                let allocator = capnp::message::SingleSegmentAllocator::new(bytes);
                let mut builder = capnp::message::Builder::new(allocator);
                fill(builder.init_root(), black_box(&data));
                let segments = builder.get_segments_for_output();
                let segments = [segments[0]];
                let array = capnp::message::SegmentArray::new(&segments);
                let reader = capnp::message::Reader::new(array, Default::default());
                reader.get_root::<sample::Reader<'_>>().map(read).expect("sound")
            },
            BatchSize::SmallInput,
        )
    });
    group.finish();
}

criterion_group!(benches, publish_and_receive, views, typed);
criterion_main!(benches);
