//! A job runner that survives the death of its workers: processes take jobs from a queue, and one after the other of
//! them is killed in the middle of its work.
//!
//! `cargo run --example jobs`

use std::collections::BTreeMap;
use std::process::{Child, Command};
use std::time::Duration;
use windlass::{Bus, EnqueueError, Queue, Raw, TakeError, Wait};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const JOBS: u64 = 400;
const WORKERS: usize = 3;

/// After so many results one of the workers is killed.
const RESULTS_PER_KILL: usize = 25;

fn main() -> Outcome {
    match std::env::args().nth(1) {
        None => run(&format!("jobs-example-{}", std::process::id())),
        Some(bus) => work(&Bus::open(&bus)?),
    }
}

/// The queue of what is to be done, and the one of what came of it.
fn queues(bus: &Bus) -> windlass::Result<(Queue<Raw>, Queue<Raw>)> {
    // A job that kills whoever works on it is not tried for ever: after ten deliveries it is a dead letter.
    let jobs = bus.queue::<Raw>("jobs").chunks(32, 64).max_deliveries(10).open()?;
    let results = bus.queue::<Raw>("results").chunks(256, 64).open()?;
    Ok((jobs, results))
}

/// A worker: takes a job, enters its result, and only then says that the job is done.
fn work(bus: &Bus) -> Outcome {
    let (jobs, results) = queues(bus)?;
    let (mut consumer, mut producer) = (jobs.consumer()?, results.producer()?);
    while let Some(job) = consumer.take(Wait::Block)? {
        let number = u64::from_le_bytes(job.bytes().try_into()?);
        let mut result = producer.loan(24)?;
        result[..8].copy_from_slice(&number.to_le_bytes());
        result[8..16].copy_from_slice(&primes_below(number * 50).to_le_bytes());
        result[16..].copy_from_slice(&u64::from(job.delivery()).to_le_bytes());
        result.enqueue()?;
        job.ack()?;
    }
    Ok(())
}

fn primes_below(end: u64) -> u64 {
    (2..end).filter(|n| (2..).take_while(|d| d * d <= *n).all(|d| n % d != 0)).count() as u64
}

fn run(name: &str) -> Outcome {
    let bus = Bus::open(name)?;
    let (jobs, results) = queues(&bus)?;
    let start = || Command::new(std::env::current_exe()?).arg(name).spawn();
    let mut workers = (0..WORKERS).map(|_| start()).collect::<std::io::Result<Vec<Child>>>()?;
    let (mut producer, mut consumer) = (jobs.producer()?, results.consumer()?);

    let (mut next, mut killed, mut again) = (0, 0, 0);
    let mut done = BTreeMap::new();
    while done.len() < JOBS as usize {
        // As many as there is room for: a full queue is back-pressure, not an error.
        while next < JOBS {
            match producer.try_enqueue(&u64::to_le_bytes(next)) {
                Ok(()) => next += 1,
                Err(EnqueueError::Full { .. }) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let result = match consumer.take(Wait::For(Duration::from_secs(1))) {
            Ok(Some(result)) => result,
            Ok(None) | Err(TakeError::TimedOut) => continue,
            Err(error) => return Err(error.into()),
        };
        let word = |at: usize| result.bytes()[at..at + 8].try_into().map(u64::from_le_bytes);
        let (number, primes, delivery) = (word(0)?, word(8)?, word(16)?);
        result.ack()?;
        again += u64::from(delivery > 1);
        // At least once: a worker that dies between its result and its acknowledgement leaves two results.
        let is_new = done.insert(number, primes).is_none();
        if is_new && done.len() % RESULTS_PER_KILL == 0 && done.len() < JOBS as usize {
            let victim = &mut workers[killed % WORKERS];
            victim.kill()?;
            victim.wait()?;
            *victim = start()?;
            killed += 1;
        }
    }

    jobs.close();
    for mut worker in workers {
        assert!(worker.wait()?.success(), "a worker failed");
    }
    let info = jobs.info()?;
    println!("{JOBS} jobs done; {killed} workers killed, {again} jobs done by another one");
    assert!(done.iter().all(|(number, primes)| *primes == primes_below(number * 50)));
    assert_eq!((info.depth, info.in_flight.len(), info.died), (0, 0, 0));
    Ok(Bus::remove(name)?)
}
