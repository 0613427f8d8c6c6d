//! What threads of one process do: a pair of channels as a baseline of a round trip, and several clients and servers of
//! one service at a time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use ::windlass::{Pending, Raw, Wait};
use hdrhistogram::Histogram;

use super::ends;
use crate::bench::cores;
use crate::bench::driver::Latency;
use crate::bench::failure::{During, Failure, Result};
use crate::bench::payload::Check;
use crate::bench::report::{median, smallest};
use crate::bench::windlass;

/// What a channel carries: the 64 bytes of a raw call.
type Parcel = [u64; 8];

fn parcel(sequence: u64) -> Parcel {
    [sequence, 1, 2, 3, 4, 5, 6, !sequence]
}

/// A pair of channels: the calling thread asks, another one on the second core answers.
trait Channel: Sized {
    type Sender: Send;
    type Receiver: Send;

    fn make() -> (Self::Sender, Self::Receiver);
    fn send(sender: &Self::Sender, parcel: Parcel) -> bool;
    /// Polls without a pause, as the other contestants do.
    fn take(receiver: &Self::Receiver) -> Option<Parcel>;
}

/// Parcels that a channel holds.
const CAPACITY: usize = 16;

struct Crossbeam;

impl Channel for Crossbeam {
    type Sender = crossbeam::channel::Sender<Parcel>;
    type Receiver = crossbeam::channel::Receiver<Parcel>;

    fn make() -> (Self::Sender, Self::Receiver) {
        crossbeam::channel::bounded(CAPACITY)
    }

    fn send(sender: &Self::Sender, parcel: Parcel) -> bool {
        sender.send(parcel).is_ok()
    }

    #[inline]
    fn take(receiver: &Self::Receiver) -> Option<Parcel> {
        loop {
            match receiver.try_recv() {
                Ok(parcel) => return Some(parcel),
                Err(error) if error.is_disconnected() => return None,
                Err(_) => {}
            }
        }
    }
}

struct Kanal;

impl Channel for Kanal {
    type Sender = kanal::Sender<Parcel>;
    type Receiver = kanal::Receiver<Parcel>;

    fn make() -> (Self::Sender, Self::Receiver) {
        kanal::bounded(CAPACITY)
    }

    fn send(sender: &Self::Sender, parcel: Parcel) -> bool {
        sender.send(parcel).is_ok()
    }

    #[inline]
    fn take(receiver: &Self::Receiver) -> Option<Parcel> {
        loop {
            match receiver.try_recv() {
                Ok(Some(parcel)) => return Some(parcel),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }
}

/// Which channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `crossbeam::channel::bounded`.
    Crossbeam,
    /// `kanal::bounded`.
    Kanal,
}

/// Rounds before anything is measured.
const WARM_ROUNDS: u64 = 2_000;
/// Rounds of one timed batch.
const BATCH_ROUNDS: u64 = 100;

/// Half round trips through a pair of channels between this thread and one on `core`.
pub fn channels(kind: Kind, core: usize, batches: u32, rounds: u32) -> Result<Latency> {
    match kind {
        Kind::Crossbeam => pair::<Crossbeam>(core, batches, rounds),
        Kind::Kanal => pair::<Kanal>(core, batches, rounds),
    }
}

fn pair<C: Channel>(core: usize, batches: u32, rounds: u32) -> Result<Latency> {
    let ((ask, asked), (answer, answered)) = (C::make(), C::make());
    std::thread::scope(|scope| {
        let peer = scope.spawn(move || -> Result<()> {
            cores::pin(core)?;
            while let Some(parcel) = C::take(&asked) {
                if !C::send(&answer, parcel) {
                    break;
                }
            }
            Ok(())
        });
        let mut sequences = 0u64..;
        let mut round = || -> Result<()> {
            let sequence = sequences.next().unwrap_or_default();
            let sent = C::send(&ask, parcel(sequence));
            match C::take(&answered) {
                Some(back) if sent && back == parcel(sequence) => Ok(()),
                _ => Err(Failure::new("a channel returned another parcel")),
            }
        };
        (0..WARM_ROUNDS).try_for_each(|_| round())?;
        let mut one_way = Vec::new();
        for _ in 0..batches {
            let begin = Instant::now();
            (0..BATCH_ROUNDS).try_for_each(|_| round())?;
            one_way.push(begin.elapsed().as_nanos() as f64 / (2 * BATCH_ROUNDS) as f64);
        }
        let mut single = Histogram::<u64>::new(3).during("cannot make a histogram")?;
        let mut last = Instant::now();
        for _ in 0..rounds {
            round()?;
            let now = Instant::now();
            let taken = u64::try_from((now - last).as_nanos()).unwrap_or(u64::MAX);
            single.record(taken.max(1)).during("cannot record a round")?;
            last = now;
        }
        drop(ask);
        peer.join().map_err(|_| Failure::new("the other thread panicked"))??;
        let percentile = |quantile| single.value_at_quantile(quantile) as f64 / 2.0;
        Ok(Latency {
            median: median(&one_way),
            min: smallest(&one_way),
            p50: percentile(0.5),
            p99: percentile(0.99),
            p999: percentile(0.999),
            max: single.max() as f64 / 2.0,
        })
    })
}

/// Calls that a client of a crowd has in flight.
pub const IN_FLIGHT: usize = 8;

/// Calls a second of so many clients and servers, for about `time`. They are threads with a membership of their own,
/// and may run on both cores.
pub fn crowd(
    path: &str,
    (clients, servers): (usize, usize),
    cores: (usize, usize),
    time: Duration,
    repetition: u32,
) -> Result<f64> {
    let name = format!("crowd-{clients}-{servers}-{repetition}");
    let bus = windlass::open(path.as_ref())?;
    let service = ends::service::<Raw>(&bus, &name)?;
    let (done, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let elapsed = std::thread::scope(|scope| -> Result<Duration> {
        let (done, over, name) = (&done, &over, name.as_str());
        let member = move || ends::service::<Raw>(&windlass::open(path.as_ref())?, name);
        let mut threads = Vec::new();
        for _ in 0..servers {
            threads.push(scope.spawn(move || -> Result<()> {
                cores::pin_to_both(cores)?;
                let mut server = member()?.server().during("cannot become a server")?;
                let echo = |request: &[u8], space: &mut [u8]| -> Result<usize> {
                    space[..request.len()].copy_from_slice(request);
                    Ok(request.len())
                };
                while let Some(call) = server.take(Wait::Block).during("cannot take a call")? {
                    call.respond(echo).during("cannot answer")?;
                }
                Ok(())
            }));
        }
        for _ in 0..clients {
            threads.push(scope.spawn(move || -> Result<()> {
                cores::pin_to_both(cores)?;
                let client = member()?.client().during("cannot become a client")?;
                let mut pending: std::collections::VecDeque<Pending<'_, Raw>> =
                    std::collections::VecDeque::with_capacity(IN_FLIGHT);
                let (mut check, mut sequence) = (Check::default(), 0u64);
                // Relaxed: it ends a loop.
                while !over.load(Relaxed) {
                    while pending.len() < IN_FLIGHT {
                        let mut request = [0x5a; 64];
                        crate::bench::payload::stamp(&mut request, sequence);
                        sequence += 1;
                        pending.push_back(client.begin(&request).during("cannot call")?);
                    }
                    let Some(oldest) = pending.pop_front() else { continue };
                    let response = oldest.wait(super::PATIENCE).during("cannot call")?;
                    check.bytes(response.bytes());
                    // Relaxed: statistics.
                    done.fetch_add(1, Relaxed);
                }
                // None is given up: its server would say so.
                for pending in pending {
                    let response = pending.wait(super::PATIENCE).during("cannot call")?;
                    check.bytes(response.bytes());
                }
                match check.mismatches() {
                    0 => Ok(()),
                    count => Err(Failure::new(format!("{count} responses were to other requests"))),
                }
            }));
        }
        let begin = Instant::now();
        std::thread::sleep(time);
        over.store(true, Relaxed);
        let elapsed = begin.elapsed();
        let (workers, callers) = (threads.len() - clients, clients);
        for thread in threads.drain(workers..workers + callers) {
            thread.join().map_err(|_| Failure::new("a client panicked"))??;
        }
        service.close();
        for thread in threads {
            thread.join().map_err(|_| Failure::new("a server panicked"))??;
        }
        Ok(elapsed)
    })?;
    bus.remove_service(&name).during("cannot remove a service")?;
    Ok(done.load(Relaxed) as f64 / elapsed.as_secs_f64())
}
