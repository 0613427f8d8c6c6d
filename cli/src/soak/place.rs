//! Where the bus of a run lies, and what this process holds of it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{bail, Context, Result};
use windlass::Bus;

use crate::clock;

/// The bus of one run.
pub struct Place {
    pub path: PathBuf,
}

impl Place {
    /// Makes the bus, at `directory` or under a name of its own. This process leaves it at once.
    pub fn new(directory: Option<&Path>) -> Result<Self> {
        let name = match directory {
            None => format!("soak-{}-{}", std::process::id(), clock::now_ns()),
            Some(path) => {
                let path = std::path::absolute(path)
                    .with_context(|| format!("{} is not a path", path.display()))?;
                if path.exists() {
                    bail!(
                        "{} exists; name a directory that does not, in which the bus is made",
                        path.display()
                    );
                }
                path.to_str().context("the directory must be named in UTF-8")?.to_owned()
            }
        };
        let bus = Bus::open(&name)?;
        Ok(Self { path: bus.path() })
    }

    /// The path as text, which it is, because a bus is opened by text.
    pub fn text(&self) -> &str {
        self.path.to_str().unwrap_or_default()
    }

    /// Opens the bus.
    pub fn open(&self) -> Result<Bus> {
        Ok(Bus::options().existing().open(self.text())?)
    }

    /// Removes the bus.
    pub fn remove(&self) -> Result<()> {
        Ok(Bus::remove(self.text())?)
    }
}

/// What this process holds: descriptors by what they are, and how many mappings of files under the
/// bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holdings {
    pub descriptors: Vec<String>,
    pub mappings: usize,
}

impl Holdings {
    /// What is held now.
    pub fn now(bus: &Path) -> Result<Self> {
        let mut descriptors = Vec::new();
        for entry in fs::read_dir("/proc/self/fd").context("cannot list own descriptors")? {
            // The descriptor by which the list is read is gone by the time it is looked at.
            if let Ok(target) = fs::read_link(entry?.path()) {
                descriptors.push(target.display().to_string());
            }
        }
        descriptors.retain(|target| !target.contains("/proc/"));
        descriptors.sort();
        let maps = fs::read_to_string("/proc/self/maps").context("cannot list own mappings")?;
        let bus = bus.display().to_string();
        let mappings = maps.lines().filter(|line| line.contains(&bus)).count();
        Ok(Self { descriptors, mappings })
    }
}

/// The memory of this process in use, in KiB.
pub fn resident_kib() -> u64 {
    let pages = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 =
        pages.split_whitespace().nth(1).and_then(|text| text.parse().ok()).unwrap_or_default();
    pages * 4
}
