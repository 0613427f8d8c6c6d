//! Exploring a model: both orders of its threads, every death, and what came out of it.

use loom::thread;
use std::fmt::Debug;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;
use windlass::step;

/// Branches of one execution. A model that needs more spins.
const BRANCHES_MAX: usize = 5_000;

/// Steps of one operation. More means that the operation never ends.
const STEPS_MAX: usize = 64;

/// In which order the threads of a model begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// As written.
    Forth,
    /// The last one first.
    Back,
}

impl Turn {
    /// Runs two parts of a model as threads until both end.
    pub fn race<A: 'static, B: 'static>(
        self,
        a: impl FnOnce() -> A + 'static,
        b: impl FnOnce() -> B + 'static,
    ) -> (A, B) {
        let (a, b) = match self {
            Self::Forth => {
                let a = thread::spawn(a);
                (a, thread::spawn(b))
            }
            Self::Back => {
                let b = thread::spawn(b);
                (thread::spawn(a), b)
            }
        };
        (end(a), end(b))
    }

    /// Runs three parts of a model as threads until all of them end.
    pub fn race_three<A: 'static, B: 'static, C: 'static>(
        self,
        a: impl FnOnce() -> A + 'static,
        b: impl FnOnce() -> B + 'static,
        c: impl FnOnce() -> C + 'static,
    ) -> (A, B, C) {
        let (a, b, c) = match self {
            Self::Forth => {
                let a = thread::spawn(a);
                let b = thread::spawn(b);
                (a, b, thread::spawn(c))
            }
            Self::Back => {
                let c = thread::spawn(c);
                let b = thread::spawn(b);
                (thread::spawn(a), b, c)
            }
        };
        (end(a), end(b), end(c))
    }

    /// Runs four parts of a model as threads until all of them end.
    pub fn race_four<A: 'static, B: 'static, C: 'static, D: 'static>(
        self,
        a: impl FnOnce() -> A + 'static,
        b: impl FnOnce() -> B + 'static,
        c: impl FnOnce() -> C + 'static,
        d: impl FnOnce() -> D + 'static,
    ) -> (A, B, C, D) {
        let (a, b, c, d) = match self {
            Self::Forth => {
                let (a, b) = (thread::spawn(a), thread::spawn(b));
                let c = thread::spawn(c);
                (a, b, c, thread::spawn(d))
            }
            Self::Back => {
                let (d, c) = (thread::spawn(d), thread::spawn(c));
                let b = thread::spawn(b);
                (thread::spawn(a), b, c, d)
            }
        };
        (end(a), end(b), end(c), end(d))
    }

    /// Runs `first`, and when it has ended `then`, while `beside` runs: a death, its repair, and a witness.
    pub fn succeed<A: 'static, B, C: 'static>(
        self,
        first: impl FnOnce() -> A + 'static,
        then: impl FnOnce(&A) -> B,
        beside: impl FnOnce() -> C + 'static,
    ) -> (A, B, C) {
        let (first, beside) = match self {
            Self::Forth => {
                let first = thread::spawn(first);
                (first, thread::spawn(beside))
            }
            Self::Back => {
                let beside = thread::spawn(beside);
                (thread::spawn(first), beside)
            }
        };
        let first = end(first);
        let then = then(&first);
        (first, then, end(beside))
    }
}

fn end<R>(thread: thread::JoinHandle<R>) -> R {
    thread.join().expect("a modelled thread ends, and if it panics the model has failed before")
}

/// Explores `model`, with at most `preemptions` preemptions, in both orders of its threads.
pub fn explore(preemptions: usize, model: impl Fn(Turn) + Send + Sync + 'static) {
    let (begun, model) = (Instant::now(), Arc::new(model));
    let executions: usize = [Turn::Forth, Turn::Back]
        .map(|turn| {
            let model = model.clone();
            check(preemptions, move || model(turn))
        })
        .iter()
        .sum();
    report(&format!("{executions} executions"), begun);
}

/// When the operation under test dies: at its n-th step, for every n that there is.
#[derive(Clone)]
pub struct Death {
    after: usize,
    struck: Arc<AtomicBool>,
}

impl Death {
    /// Runs `operation` until it ends (`Some`) or dies (`None`).
    pub fn of<R>(&self, operation: impl FnOnce() -> R) -> Option<R> {
        let result = step::abandon_after(self.after, operation);
        if result.is_none() {
            self.struck.store(true, Relaxed);
        }
        result
    }
}

/// Explores `model` for a death at the first step, at the second, and so on until nothing dies any more.
pub fn explore_deaths(preemptions: usize, model: impl Fn(Turn, Death) + Send + Sync + 'static) {
    let (begun, model, mut executions) = (Instant::now(), Arc::new(model), 0);
    for after in 0..STEPS_MAX {
        let death = Death { after, struck: Arc::new(AtomicBool::new(false)) };
        for turn in [Turn::Forth, Turn::Back] {
            let (model, death) = (model.clone(), death.clone());
            executions += check(preemptions, move || model(turn, death.clone()));
        }
        if !death.struck.load(Relaxed) {
            assert!(after > 0, "the operation has no step to die at");
            report(&format!("{executions} executions, {after} places to die"), begun);
            return;
        }
    }
    panic!("the operation has more than {STEPS_MAX} steps");
}

fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) -> usize {
    let executions = Arc::new(AtomicUsize::new(0));
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = BRANCHES_MAX;
    builder.check({
        let executions = executions.clone();
        move || {
            executions.fetch_add(1, Relaxed);
            model();
        }
    });
    executions.load(Relaxed)
}

fn report(what: &str, begun: Instant) {
    let name = std::thread::current().name().unwrap_or("model").to_owned();
    println!("{name}: {what} in {:.1} s", begun.elapsed().as_secs_f64());
}

/// What the executions of a model came to: a set, of things that need not have an order.
#[derive(Debug)]
pub struct Outcomes<T>(Arc<Mutex<Vec<T>>>);

impl<T> Clone for Outcomes<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: PartialEq + Debug> Outcomes<T> {
    /// None yet.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Vec::new())))
    }

    /// Records what one execution came to.
    pub fn add(&self, outcome: T) {
        let mut seen = self.0.lock().expect("a model that failed ends the test");
        if !seen.contains(&outcome) {
            seen.push(outcome);
        }
    }

    /// Asserts that exactly `expected` happened.
    #[track_caller]
    pub fn assert_are(&self, expected: impl IntoIterator<Item = T>) {
        let seen = self.0.lock().expect("a model that failed ends the test");
        let expected: Vec<T> = expected.into_iter().collect();
        let never: Vec<_> = expected.iter().filter(|outcome| !seen.contains(outcome)).collect();
        let unlisted: Vec<_> = seen.iter().filter(|outcome| !expected.contains(outcome)).collect();
        assert!(
            never.is_empty() && unlisted.is_empty(),
            "never happened: {never:?}; not listed: {unlisted:?}"
        );
    }
}
