//! Where the measuring thread runs, and where the machine has put its two cores at that moment.
//!
//! A hypervisor moves virtual cores: at one time two of them share a cache, at another they do not, and what memory
//! costs changes with it. So a look at the bare ping-pong of two words stands before and behind everything that is
//! measured; figures count for a state if both looks agree on it, and figures of different states are never mixed.
//!
//! | edge    | `Release` store | `Acquire` load | hands over         |
//! |---------|-----------------|----------------|--------------------|
//! | `THERE` | flag, `look`    | flag, `answer` | the payload beside |
//! | `BACK`  | flag, `answer`  | flag, `look`   | the payload beside |

use std::fs;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::time::Instant;

use anyhow::{ensure, Context, Result};
use rustix::thread::{sched_getaffinity, sched_setaffinity, CpuSet};
use rustix::time::{clock_gettime, ClockId};
use serde::Serialize;

/// Batches of the ping-pong in one look.
const BATCHES: u64 = 24;

/// Rounds in a batch.
const ROUNDS: u64 = 200;

/// A one-way time of two lines from this on means that the two cores share no cache.
const FAR_NS: f64 = 110.0;

/// Below this they are two threads of one core.
const NEAR_NS: f64 = 36.0;

/// A load from which on the figures of a run are distorted.
const BUSY_LOAD: f64 = 0.7;

/// How far apart the two cores are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Two threads of one core.
    Twin,
    /// Two cores that share a cache.
    Near,
    /// They share none.
    Far,
    /// They were moved in between, or there is only one.
    Unknown,
}

impl State {
    /// How it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Twin => "twin",
            Self::Near => "near",
            Self::Far => "far",
            Self::Unknown => "unknown",
        }
    }
}

/// How long something took, and where.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    /// From its beginning to its end.
    pub took_ns: f64,
    /// Of which the thread had the core: without what others took of it, and without waiting.
    pub busy_ns: f64,
    /// Where the cores were.
    pub state: State,
}

/// The core that measures, and the one for whatever else a store does.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Cores {
    /// Measures.
    pub first: usize,
    /// Everything else; the same if there is only one.
    pub second: usize,
}

impl Cores {
    /// The ones that were asked for, or the first two that this process may use.
    pub fn choose(asked: Option<(usize, usize)>) -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot ask for the allowed cores")?;
        let all: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core)).collect();
        let first = *all.first().context("this process may run nowhere")?;
        let default = (first, all.get(1).copied().unwrap_or(first));
        let (first, second) = asked.unwrap_or(default);
        for core in [first, second] {
            ensure!(all.contains(&core), "this process may not run on core {core}");
        }
        Ok(Self { first, second })
    }

    /// Binds this thread to the second core, so that the threads of the store that is now made run there, too.
    pub fn prepare(&self) -> Result<()> {
        pin(self.second)
    }

    /// Measures `work` on the first core.
    pub fn measure<R>(&self, work: impl FnOnce() -> Result<R>) -> Result<(R, Span)> {
        pin(self.first)?;
        let before = self.look()?;
        let (begin, begin_busy) = (Instant::now(), busy_ns());
        let result = work()?;
        let (took, busy) = (begin.elapsed(), busy_ns() - begin_busy);
        let after = self.look()?;
        pin(self.second)?;
        let state = if before == after { before } else { State::Unknown };
        Ok((result, Span { took_ns: took.as_nanos() as f64, busy_ns: busy as f64, state }))
    }

    /// Looks where the cores are.
    fn look(&self) -> Result<State> {
        if self.first == self.second {
            return Ok(State::Unknown);
        }
        let (there, back) = (Flag::default(), Flag::default());
        let fastest = std::thread::scope(|scope| {
            let peer = scope.spawn(|| answer(self.second, &there, &back));
            let mut fastest = f64::INFINITY;
            for batch in 0..BATCHES {
                let begin = Instant::now();
                for number in batch * ROUNDS + 1..=(batch + 1) * ROUNDS {
                    // THERE: pairs with the load in `answer`.
                    there.send(number);
                    // BACK: pairs with the store in `answer`.
                    back.await_number(number);
                }
                let one_way = begin.elapsed().as_nanos() as f64 / (2 * ROUNDS) as f64;
                // The first holds the start of the peer.
                fastest = if batch == 0 { fastest } else { fastest.min(one_way) };
            }
            peer.join().map(|pinned| pinned.map(|()| fastest))
        });
        let fastest = fastest.ok().context("the other side of the ping-pong ended badly")??;
        Ok(match fastest {
            ns if ns >= FAR_NS => State::Far,
            ns if ns >= NEAR_NS => State::Near,
            _ => State::Twin,
        })
    }
}

/// How long this thread was given a core so far.
fn busy_ns() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    sched_setaffinity(None, &set).with_context(|| format!("cannot run on core {core}"))
}

#[repr(align(128))]
#[derive(Default)]
struct Line(AtomicU64);

#[derive(Default)]
struct Flag {
    number: Line,
    payload: Line,
}

impl Flag {
    #[inline]
    fn send(&self, number: u64) {
        self.payload.0.store(!number, Relaxed);
        // THERE, BACK: pairs with the load of the side that waits for the number.
        self.number.0.store(number, Release);
    }

    #[inline]
    fn await_number(&self, number: u64) {
        // THERE, BACK: pairs with the store of the side that sends it.
        while self.number.0.load(Acquire) != number {
            std::hint::spin_loop();
        }
        std::hint::black_box(self.payload.0.load(Relaxed));
    }
}

fn answer(core: usize, there: &Flag, back: &Flag) -> Result<()> {
    let pinned = pin(core);
    for number in 1..=BATCHES * ROUNDS {
        // THERE: pairs with the store in `look`.
        there.await_number(number);
        // BACK: pairs with the load in `look`.
        back.send(number);
    }
    pinned
}

/// The machine that a report was made on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    processor: String,
    kernel: String,
    memory_mib: u64,
    load: f64,
}

impl Machine {
    /// What the kernel says of it.
    pub fn describe() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let value = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let kib = value(&memory, "MemTotal").and_then(|it| it.split(' ').next()?.parse().ok());
        let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: value(&cpu, "model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
            kernel: kernel.trim().to_owned(),
            memory_mib: kib.unwrap_or(0u64) / 1024,
            load: load.split(' ').next().and_then(|it| it.parse().ok()).unwrap_or(0.0),
        }
    }

    /// One line for a person.
    pub fn sentence(&self) -> String {
        let busy = match self.load >= BUSY_LOAD {
            true => " Others are running: short measurements fall between their turns, long ones do not.",
            false => "",
        };
        format!(
            "{}, {} MiB, Linux {}, load {:.1} before.{busy}",
            self.processor, self.memory_mib, self.kernel, self.load
        )
    }
}
