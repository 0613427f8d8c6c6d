//! What a message costs in a channel within one process: no transfer between cores, only the work.
//!
//! `cargo bench --bench channels`. Messages go in and come out by turns, a hundred at a time.

use criterion::{criterion_group, criterion_main, Criterion, Throughput};
use std::hint::black_box;
use windlass::channel::pair;

/// Messages of a turn.
const COUNT: u64 = 100;

fn sum(bytes: &[u8]) -> u64 {
    u64::from(bytes[0]) + u64::from(bytes[bytes.len() - 1])
}

fn one_to_one(c: &mut Criterion) {
    for size in [64usize, 1024] {
        let mut group = c.benchmark_group(format!("channel_{size}"));
        group.throughput(Throughput::Elements(COUNT));
        let payload = vec![7u8; size];
        let (mut sender, mut receiver) = pair(1 << 20).expect("there is memory");
        group.bench_function("send_recv", |bencher| {
            bencher.iter(|| {
                for _ in 0..COUNT {
                    sender.try_send(black_box(&payload)).expect("it is read at once");
                }
                let next = |_| receiver.try_recv().expect("sound").map_or(0, sum);
                (0..COUNT).map(next).sum::<u64>()
            })
        });
        group.bench_function("loan_stamp_commit_recv", |bencher| {
            bencher.iter(|| {
                for _ in 0..COUNT {
                    let mut loan = sender.try_loan(size).expect("it is read at once");
                    loan[0] = black_box(1);
                    loan[size - 1] = black_box(2);
                    loan.commit().expect("it is whole");
                }
                let next = |_| receiver.try_recv().expect("sound").map_or(0, sum);
                (0..COUNT).map(next).sum::<u64>()
            })
        });
        group.bench_function("group_stamp_commit_batch", |bencher| {
            bencher.iter(|| {
                let mut messages = sender.group();
                for _ in 0..COUNT {
                    let stamp = |space: &mut [u8]| {
                        space[0] = black_box(1);
                        space[size - 1] = black_box(2);
                    };
                    messages.build(size, stamp).expect("it is read at once");
                }
                messages.commit().expect("it is whole");
                receiver.batch(usize::MAX).expect("sound").map(sum).sum::<u64>()
            })
        });
        group.finish();
    }
}

criterion_group!(benches, one_to_one);
criterion_main!(benches);
