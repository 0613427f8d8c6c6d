//! Named places to die.
//!
//! `step!("lane.commit")` marks an instant between two atomic steps of a protocol on shared memory. In an ordinary
//! build it is nothing. With the feature `kill-points` a test can have the process killed or stopped exactly there;
//! in a model build the modelled thread can be abandoned there. Names are `<structure>.<step>`; the mark stands
//! *before* the step that it names.

/// Marks the instant before the step of a protocol that `$name` names.
macro_rules! step {
    ($name:literal) => {
        #[cfg(any(windlass_loom, feature = "kill-points"))]
        $crate::step::reached($name);
    };
}

#[cfg(windlass_loom)]
mod model {
    use std::cell::Cell;

    loom::thread_local! {
        static LEFT: Cell<Option<usize>> = Cell::new(None);
    }

    /// What an abandoned thread unwinds with.
    pub struct Died;

    /// The calling modelled thread dies at its `steps`-th step from now (0 is the next one).
    pub fn die_after(steps: usize) {
        LEFT.with(|left| left.set(Some(steps)));
    }

    /// The calling modelled thread lives.
    pub fn live() {
        LEFT.with(|left| left.set(None));
    }

    /// Called at every step.
    pub fn reached(_name: &str) {
        let dies = LEFT.with(|left| match left.get() {
            Some(0) => {
                left.set(None);
                true
            }
            Some(n) => {
                left.set(Some(n - 1));
                false
            }
            None => false,
        });
        if dies {
            std::panic::resume_unwind(Box::new(Died));
        }
    }

    /// Runs `operation` until it ends (`Some`) or dies at its `steps`-th step (`None`).
    pub fn abandon_after<R>(steps: usize, operation: impl FnOnce() -> R) -> Option<R> {
        die_after(steps);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(operation));
        live();
        match result {
            Ok(result) => Some(result),
            Err(payload) if payload.is::<Died>() => None,
            Err(payload) => std::panic::resume_unwind(payload),
        }
    }
}

#[cfg(windlass_loom)]
pub use model::{abandon_after, die_after, live, reached, Died};

#[cfg(all(feature = "kill-points", not(windlass_loom)))]
mod process {
    use std::sync::OnceLock;

    /// What the environment asks for.
    struct Plan {
        /// Where to be interrupted; empty for nowhere.
        name: String,
        hits_left: std::sync::atomic::AtomicI64,
        signal: i32,
        /// Where to let time pass, so that others come in between.
        pause: String,
        log: bool,
    }

    fn plan() -> Option<&'static Plan> {
        static PLAN: OnceLock<Option<Plan>> = OnceLock::new();
        PLAN.get_or_init(|| {
            let variable = |name| std::env::var(name).ok();
            let (name, pause) = (variable("WINDLASS_STEP"), variable("WINDLASS_STEP_PAUSE"));
            let log = variable("WINDLASS_STEP_LOG").is_some();
            if name.is_none() && pause.is_none() && !log {
                return None;
            }
            let hits = variable("WINDLASS_STEP_HIT").and_then(|n| n.parse().ok());
            let stop = variable("WINDLASS_STEP_STOP").is_some();
            Some(Plan {
                name: name.unwrap_or_default(),
                hits_left: hits.unwrap_or(1i64).into(),
                signal: if stop { libc::SIGSTOP } else { libc::SIGKILL },
                pause: pause.unwrap_or_default(),
                log,
            })
        })
        .as_ref()
    }

    /// Called at every step; kills or stops this process at the one that the environment names.
    #[cold]
    pub fn reached(name: &str) {
        let Some(plan) = plan() else { return };
        if plan.log {
            eprintln!("step {name}");
        }
        if plan.pause == name {
            // Longer than a sleep: everybody else looks again in between.
            std::thread::sleep(std::time::Duration::from_millis(crate::limits::SLEEP_MS_MAX + 20));
        }
        if plan.name == name
            && plan.hits_left.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 1
        {
            if let Ok(signal) = nix::sys::signal::Signal::try_from(plan.signal) {
                // To this thread: another one could take a stop, and this one would run on.
                let _ = nix::sys::signal::raise(signal);
            }
        }
    }
}

#[cfg(all(feature = "kill-points", not(windlass_loom)))]
pub use process::reached;
