//! Which cores the two processes run on, and what machine they belong to.

use std::fs;

use nix::sched::{sched_getaffinity, sched_setaffinity, CpuSet};
use nix::unistd::Pid;
use serde::Serialize;

use super::failure::{During, Failure, Result};

/// The machine that a report was made on.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    processor: String,
    kernel: String,
    cores: usize,
    load_before: f64,
    load_after: f64,
}

impl Machine {
    /// Reads what the kernel says about this machine.
    pub fn describe() -> Result<Self> {
        let load = load_average();
        Ok(Self {
            processor: processor_name(),
            kernel: first_line("/proc/sys/kernel/osrelease"),
            cores: allowed()?.len(),
            load_before: load,
            load_after: load,
        })
    }

    /// Notes how busy the machine is at the end of the run: two polling processes make a load of
    /// two.
    pub fn finish(&mut self) {
        self.load_after = load_average();
    }

    /// One line for a person.
    pub fn sentence(&self) -> String {
        format!(
            "{}, {} cores, Linux {}, load {:.1} before and {:.1} after.",
            self.processor, self.cores, self.kernel, self.load_before, self.load_after
        )
    }
}

/// The cores that this process may run on, in ascending order.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0)).during("cannot ask for the allowed cores")?;
    Ok((0..CpuSet::count()).filter(|&core| set.is_set(core).unwrap_or(false)).collect())
}

/// Lets the calling thread run on two cores, whatever its starter was bound to.
pub fn pin_to_both(cores: (usize, usize)) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cores.0).during("cannot name the core")?;
    set.set(cores.1).during("cannot name the core")?;
    sched_setaffinity(Pid::from_raw(0), &set).during("cannot bind to two cores")
}

/// Binds the calling thread, and every thread it starts from now on, to one core.
pub fn pin(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core).during("cannot name the core")?;
    sched_setaffinity(Pid::from_raw(0), &set).during("cannot bind to the core")
}

/// The core of the driver and the core of the peer: those asked for, else the first two allowed.
///
/// # Errors
///
/// Fails if only one core is allowed, or if the pair asked for is not two different allowed cores.
pub fn choose(asked: Option<(usize, usize)>) -> Result<(usize, usize)> {
    choose_from(&allowed()?, asked)
}

fn choose_from(allowed: &[usize], asked: Option<(usize, usize)>) -> Result<(usize, usize)> {
    let &[first, second, ..] = allowed else {
        return Err(Failure::new(
            "this process may use one core only, and two processes that poll for each other \
             need two; nothing was measured",
        ));
    };
    let (driver, peer) = asked.unwrap_or((first, second));
    if driver == peer {
        return Err(Failure::new(format!("the two cores must differ, and both are {driver}")));
    }
    for core in [driver, peer] {
        if !allowed.contains(&core) {
            return Err(Failure::new(format!("this process may not run on core {core}")));
        }
    }
    Ok((driver, peer))
}

fn processor_name() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").to_owned()
}

fn load_average() -> f64 {
    let text = first_line("/proc/loadavg");
    text.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_core_is_refused_with_a_sentence() {
        let refusal = choose_from(&[3], None).expect_err("one core is not enough").to_string();
        assert!(refusal.contains("one core only"), "{refusal}");
    }

    #[test]
    fn the_first_two_cores_are_the_default() {
        assert_eq!(choose_from(&[2, 5, 7], None).expect("three cores are enough"), (2, 5));
    }

    #[test]
    fn a_core_that_is_not_allowed_is_refused() {
        assert!(choose_from(&[0, 1], Some((0, 9))).is_err());
        assert!(choose_from(&[0, 1], Some((1, 1))).is_err());
    }
}
