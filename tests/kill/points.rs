//! The kill points, as the sources name them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const MARK: &str = "step!(\"";

/// Every name that a `step!` of the sources carries. Read at run time, so that a new mark is a new
/// point of the matrix without a change here.
pub fn all() -> BTreeSet<String> {
    let mut points = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for path in entries(&folder) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source file can be read");
                points.extend(text.lines().filter_map(mark).map(str::to_owned));
            }
        }
    }
    assert!(points.len() > 40, "the sources name only {} kill points", points.len());
    points
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let listed = fs::read_dir(folder).expect("the sources can be listed");
    listed.map(|entry| entry.expect("the sources can be listed").path()).collect()
}

/// The point that a line of code marks. A comment marks none.
fn mark(line: &str) -> Option<&str> {
    if line.trim_start().starts_with("//") {
        return None;
    }
    let (_, rest) = line.split_once(MARK)?;
    rest.split_once('"').map(|(name, _)| name)
}
