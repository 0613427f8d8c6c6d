//! A simulated disk: what the files of a log held at several moments, and what a crash of the machine may leave of it.

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

/// What a file system writes at once, and a disk entirely or not at all.
pub const PAGE: usize = 4096;
pub const SECTOR: usize = 512;

/// Random numbers that are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `below`.
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % below.max(1) as u64) as usize
    }

    /// True once in `times`.
    pub fn once_in(&mut self, times: usize) -> bool {
        self.roll(times) == 0
    }
}

/// A file: its length, and its pages that are not all zeroes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct File {
    pub len: usize,
    pub pages: BTreeMap<usize, Vec<u8>>,
}

fn is_zero(bytes: &[u8]) -> bool {
    *bytes == [0; PAGE][..bytes.len()]
}

impl File {
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let pages = bytes.chunks(PAGE).enumerate();
        let pages = pages.filter(|(_, page)| !is_zero(page));
        let whole = |page: &[u8]| {
            let mut page = page.to_vec();
            page.resize(PAGE, 0);
            page
        };
        Self { len: bytes.len(), pages: pages.map(|(at, page)| (at, whole(page))).collect() }
    }

    pub fn page(&self, at: usize) -> Vec<u8> {
        self.pages.get(&at).cloned().unwrap_or_else(|| vec![0; PAGE])
    }

    /// Writes the file under `path`, without its zeroes.
    pub fn lay(&self, path: &Path) {
        let file = std::fs::File::create(path).expect("it can be made");
        file.set_len(self.len as u64).expect("there is room");
        for (at, page) in &self.pages {
            let from = at * PAGE;
            if from < self.len {
                let span = PAGE.min(self.len - from);
                file.write_all_at(&page[..span], from as u64).expect("there is room");
            }
        }
    }
}

/// The files of a folder at one moment.
pub type Files = BTreeMap<String, File>;

/// What lies in the folder at `path` now.
pub fn look(path: &Path) -> Files {
    let entries = std::fs::read_dir(path).expect("the folder is there");
    let entries = entries.map(|entry| entry.expect("it can be listed"));
    let named = entries.filter_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that is under construction, or gone since.
        let bytes = std::fs::read(entry.path()).ok().filter(|_| !name.starts_with('.'))?;
        Some((name, File::from_bytes(&bytes)))
    });
    named.collect()
}

/// Makes the folder at `path` hold exactly `files`.
pub fn lay(files: &Files, path: &Path) {
    let _ = std::fs::remove_dir_all(path);
    std::fs::create_dir(path).expect("the folder can be made");
    files.iter().for_each(|(name, file)| file.lay(&path.join(name)));
}

/// Makes what was a log in use look as if the machine had been started anew since.
pub fn reboot(files: &mut Files) {
    let claim = files.get_mut("claim").expect("every log has a claim");
    let page = claim.pages.entry(1).or_insert_with(|| vec![0; PAGE]);
    page[8..16].fill(0x55);
}

/// Makes copies of the files of a log look as if they were those that were in use, in this run of the machine.
pub fn settle(path: &Path) {
    let claim = std::fs::OpenOptions::new().write(true).open(path.join("claim"));
    let claim = claim.expect("every log has a claim");
    let number = claim.metadata().expect("it is open").ino();
    claim.write_all_at(&number.to_le_bytes(), PAGE as u64 + 16).expect("there is room");
}

/// The versions of the files of a log, from the last moment at which all of it was on disk.
#[derive(Clone, Default)]
pub struct History(pub Vec<Files>);

/// Which version of a page reached the disk.
#[derive(Clone, Copy, Debug)]
pub enum Choice {
    Version(usize),
    /// The first sectors of one version, the others of the next one.
    Torn(usize, usize),
}

impl History {
    /// The versions from the last one on in which the checkpoint, which says what is on disk, is not yet another one.
    pub fn since(&self, version: usize) -> Self {
        Self(self.0[version..].to_vec())
    }

    pub fn last(&self) -> usize {
        self.0.len() - 1
    }

    /// The first version of each checkpoint.
    pub fn checkpoints(&self) -> Vec<usize> {
        let is_new = |at: &usize| {
            *at == 0 || self.0[*at].get("checkpoint") != self.0[*at - 1].get("checkpoint")
        };
        (0..self.0.len()).filter(is_new).collect()
    }

    /// Every page of every file that is not the same in all versions, files by name and pages in order.
    pub fn changed(&self) -> Vec<(String, usize)> {
        let mut changed = Vec::new();
        let names: std::collections::BTreeSet<_> = self.0.iter().flat_map(|it| it.keys()).collect();
        for name in names {
            // What a checkpoint says is on disk before it is written, so it is never newer than the rest.
            if name == "checkpoint" || name == "claim" {
                continue;
            }
            let pages = self.0.iter().filter_map(|it| it.get(name)).map(|it| it.len.div_ceil(PAGE));
            for page in 0..pages.max().unwrap_or(0) {
                // Zeroes are what a page has that was never written.
                let of = |at: usize| self.0[at].get(name).and_then(|it| it.pages.get(&page));
                if (1..self.0.len()).any(|at| of(at) != of(0)) {
                    changed.push((name.clone(), page));
                }
            }
        }
        changed
    }

    /// What is on disk if of each changed page that version is there which `choose` says.
    pub fn image(&self, mut choose: impl FnMut(&str, usize) -> Choice) -> Files {
        let mut image = self.0[0].clone();
        for (name, page) in self.changed() {
            let newest = self.0.iter().rev().find_map(|it| it.get(&name)).expect("it was in one");
            let file = image.entry(name.clone()).or_default();
            file.len = newest.len;
            let of = |version: usize| self.0[version].get(&name).map(|it| it.page(page));
            let found = match choose(&name, page) {
                Choice::Version(version) => of(version),
                Choice::Torn(version, sectors) => {
                    let old = of(version).unwrap_or_else(|| vec![0; PAGE]);
                    of((version + 1).min(self.last())).map(|mut new| {
                        new[sectors * SECTOR..].copy_from_slice(&old[sectors * SECTOR..]);
                        new
                    })
                }
            };
            match found.filter(|page| !is_zero(page)) {
                Some(found) => file.pages.insert(page, found),
                None => file.pages.remove(&page),
            };
        }
        image
    }

    /// The same at random: pages of any version, torn ones, and what a crash does to files that are new.
    pub fn random_image(&self, dice: &mut Dice) -> Files {
        let (kind, last) = (dice.roll(4), self.last());
        let mut place = 0;
        let border = dice.roll(self.changed().len() + 1);
        let mut image = self.image(|_, _| {
            place += 1;
            match kind {
                // Any page of any version.
                0 => Choice::Version(dice.roll(last + 1)),
                // A few old ones.
                1 => Choice::Version(if dice.once_in(8) { 0 } else { last }),
                // All up to one, which is torn, and none behind it.
                2 if place < border => Choice::Version(last),
                2 if place == border => Choice::Torn(dice.roll(last.max(1)), dice.roll(9)),
                2 => Choice::Version(0),
                _ => Choice::Torn(dice.roll(last.max(1)), dice.roll(9)),
            }
        });
        let new: Vec<String> =
            image.keys().filter(|name| !self.0[0].contains_key(*name)).cloned().collect();
        for name in new {
            let file = image.get_mut(&name).expect("it was just there");
            match dice.roll(8) {
                // Its name was not on disk, or its length, or its first page.
                0 => drop(image.remove(&name)),
                1 => {
                    file.len = dice.roll(file.len + 1);
                    file.pages.retain(|page, _| page * PAGE < file.len);
                }
                2 => drop(file.pages.remove(&0)),
                _ => {}
            }
        }
        image
    }
}
