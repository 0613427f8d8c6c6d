//! The rules of the house, as tests. A new rule is ten lines here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Longest source file, in lines. Generated code has no limit.
const FILE_LINES_MAX: usize = 500;

/// Longest line, in characters.
const LINE_COLUMNS_MAX: usize = 120;

/// The files that may contain `unsafe`. `src/shm/mod.rs` states what they rely on.
const UNSAFE_FILES: &[&str] = &[
    "src/layout/crc.rs",
    "src/message/arena.rs",
    "src/queue/space.rs",
    "src/ring/lane.rs",
    "src/ring/stream.rs",
    "src/service/space.rs",
    "src/shm/clock.rs",
    "src/shm/loss.rs",
    "src/shm/map.rs",
    "src/shm/named.rs",
    "src/shm/place.rs",
    "src/shm/sys.rs",
    "src/topic/loan.rs",
];

/// The files of the tests that may, too: they fork, write where nobody may, and count allocations.
const UNSAFE_TESTS: &[&str] = &["tests/alloc.rs", "tests/it/process.rs"];

/// How far above a strong ordering its edge may be named, in lines.
const EDGE_LINES_MAX: usize = 4;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A line, with what the compiler sees of it apart from what only people see.
#[derive(Clone, Debug, Default)]
struct Line {
    whole: String,
    code: String,
    comment: String,
}

/// A source file of ours.
struct Source {
    /// From the root of the repository.
    path: String,
    lines: Vec<Line>,
}

impl Source {
    /// Whether unit tests begin here: what follows is not part of the library.
    fn is_tests(&self) -> bool {
        let name = self.path.rsplit('/').next().unwrap_or_default();
        name == "tests.rs" || self.path.contains("/tests/")
    }
}

/// Takes a text apart: comments, code, and strings, which are neither.
fn lines_of(text: &str) -> Vec<Line> {
    let mut lines: Vec<Line> =
        text.lines().map(|line| Line { whole: line.to_owned(), ..Line::default() }).collect();
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line) = (0, 0);
    let starts =
        |at: usize, what: &str| what.chars().eq(chars[at..].iter().copied().take(what.len()));
    // What ends the string or comment that we are in.
    let mut end: Option<String> = None;
    while at < chars.len() {
        let (char, mut step) = (chars[at], 1);
        match end.clone() {
            Some(close) if starts(at, &close) => {
                step = close.chars().count();
                end = None;
            }
            Some(close) if close == "\"" && char == '\\' => step = 2,
            Some(close) if close == "\n" || close == "*/" => lines[line].comment.push(char),
            Some(_) => {}
            None if starts(at, "//") => end = Some("\n".to_owned()),
            None if starts(at, "/*") => end = Some("*/".to_owned()),
            None if starts(at, "r\"") => (step, end) = (2, Some("\"\u{0}".to_owned())),
            None if starts(at, "r#\"") => (step, end) = (3, Some("\"#".to_owned())),
            None if starts(at, "'\"'") => step = 3,
            None if char == '"' => end = Some("\"".to_owned()),
            None => lines[line].code.push(char),
        }
        for passed in &chars[at..(at + step).min(chars.len())] {
            line += usize::from(*passed == '\n' && line + 1 < lines.len());
        }
        // A raw string without marks ends at the next quote, whatever is before it.
        if end.as_deref() == Some("\"\u{0}") && chars.get(at + step) == Some(&'"') {
            (step, end) = (step + 1, None);
        }
        at += step;
    }
    lines
}

/// All sources under the given folders, without generated ones.
fn sources(folders: &[&str]) -> Vec<Source> {
    let mut all = Vec::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("the source is there");
            let entries = entries.map(|entry| entry.expect("the source is there").path());
            left.extend(entries.filter(|path| !path.ends_with("target")));
            continue;
        }
        let name = path.strip_prefix(root()).expect("it is under the root").display().to_string();
        if name.ends_with(".rs") && !name.ends_with("_capnp.rs") {
            let text = std::fs::read_to_string(&path).expect("the source is text");
            all.push(Source { path: name, lines: lines_of(&text) });
        }
    }
    assert!(!all.is_empty(), "there is no source in {folders:?}");
    all.sort_by(|one, other| one.path.cmp(&other.path));
    all
}

const EVERYTHING: &[&str] = &["src", "cli", "tests", "benches", "examples", "loom-tests", "fuzz"];

/// Fails with one line for each thing that is wrong.
fn nothing_wrong(wrong: &[String]) {
    assert!(wrong.is_empty(), "{} things are wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Whether `word` stands in `text` by itself.
fn has_word(text: &str, word: &str) -> bool {
    let part_of_name = |char: char| char.is_alphanumeric() || char == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        !before.is_some_and(part_of_name) && !after.is_some_and(part_of_name)
    })
}

#[test]
fn files_fit_one_reading() {
    let mut wrong = Vec::new();
    for source in sources(EVERYTHING) {
        let count = source.lines.len();
        if count > FILE_LINES_MAX {
            wrong.push(format!("{} has {count} lines, at most {FILE_LINES_MAX}", source.path));
        }
        for (number, line) in source.lines.iter().enumerate() {
            let columns = line.whole.chars().count();
            // A row of a table cannot be broken.
            let row = line.whole.trim_start().starts_with("//! |");
            if columns > LINE_COLUMNS_MAX && !row {
                wrong.push(format!("{}:{} has {columns} columns", source.path, number + 1));
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn unsafe_lives_in_the_files_that_may_have_it() {
    let mut wrong = Vec::new();
    for source in sources(&["src", "tests", "examples"]) {
        // The tests of a file may do what the file does.
        let owner = source.path.replace("/tests.rs", ".rs");
        if UNSAFE_FILES.contains(&owner.as_str()) || UNSAFE_TESTS.contains(&owner.as_str()) {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            if has_word(&line.code, "unsafe") {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, line.whole.trim()));
            }
        }
    }
    nothing_wrong(&wrong);
}

/// The edge that a comment names: a word in capitals before a colon.
fn edge_of(comment: &str) -> Option<&str> {
    let (before, _) = comment.trim_start_matches(['/', '!', ' ']).split_once(':')?;
    let capitals = |char: char| char.is_ascii_uppercase() || char == '_';
    (before.len() > 2 && before.chars().all(capitals)).then_some(before)
}

#[test]
fn strong_orderings_name_an_edge_that_has_two_ends() {
    let all = sources(&["src"]);
    // Where each edge is spoken of: both ends, and the table of the room. One end may be the kernel.
    let comments: Vec<&str> =
        all.iter().flat_map(|source| &source.lines).map(|line| line.comment.as_str()).collect();
    let mut ends = BTreeMap::<&str, usize>::new();
    for edge in comments.iter().filter_map(|comment| edge_of(comment)) {
        ends.entry(edge)
            .or_insert_with(|| comments.iter().filter(|comment| has_word(comment, edge)).count());
    }
    let mut wrong = Vec::new();
    for source in all.iter().filter(|source| !source.is_tests()) {
        for (number, line) in source.lines.iter().enumerate() {
            let strong = ["Acquire", "Release", "AcqRel", "SeqCst"];
            let code = line.code.trim_start();
            let imported = code.starts_with("use ") || code.starts_with("pub use ");
            if imported || !strong.iter().any(|ordering| has_word(code, ordering)) {
                continue;
            }
            let from = number.saturating_sub(EDGE_LINES_MAX);
            let above = source.lines[from..=number].iter().rev();
            let at = format!("{}:{}: {}", source.path, number + 1, line.whole.trim());
            match above.filter_map(|line| edge_of(&line.comment)).next() {
                None => wrong.push(format!("{at}: no edge is named above it")),
                Some(edge) if ends[edge] < 2 => wrong.push(format!("{at}: {edge} has one end")),
                Some(_) => {}
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn nothing_is_left_to_do() {
    // Put together here, so that this file does not contain them.
    let words = [concat!("to", "do!"), concat!("db", "g!("), concat!("unimple", "mented!")];
    let mark = concat!("FIX", "ME");
    let mut wrong = Vec::new();
    for source in sources(EVERYTHING) {
        for (number, line) in source.lines.iter().enumerate() {
            let left = words.iter().any(|word| line.code.contains(word));
            if left || has_word(&line.whole, mark) {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, line.whole.trim()));
            }
        }
    }
    nothing_wrong(&wrong);
}

#[test]
fn no_test_waits_for_a_time_to_pass() {
    let sleep = concat!("sle", "ep(");
    let mut wrong = Vec::new();
    for source in sources(EVERYTHING) {
        let of_tests = source.is_tests() || source.path.starts_with("tests/");
        if !of_tests {
            continue;
        }
        for (number, line) in source.lines.iter().enumerate() {
            let called = ["thread::", "time::"]
                .iter()
                .any(|module| line.code.contains(&format!("{module}{sleep}")));
            if called {
                wrong.push(format!("{}:{}: {}", source.path, number + 1, line.whole.trim()));
            }
        }
    }
    nothing_wrong(&wrong);
}

/// Every name in backticks with a dot in it of a table row of `page` whose first cell names places to die.
fn places_of(page: &str) -> BTreeSet<String> {
    let rows = page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
    let names = rows.flat_map(|cell| cell.split('`').skip(1).step_by(2));
    let place = |name: &&str| {
        name.contains('.') && name.chars().all(|char| char.is_ascii_lowercase() || char == '.')
    };
    names.filter(place).map(str::to_owned).collect()
}

#[test]
fn the_page_on_crashes_names_every_place_to_die() {
    let marks: BTreeSet<String> = sources(&["src"])
        .iter()
        .flat_map(|source| &source.lines)
        .filter(|line| line.code.contains("step!("))
        .filter_map(|line| line.whole.split('"').nth(1).map(str::to_owned))
        .collect();
    assert!(marks.len() > 50, "the sources name only {} places", marks.len());
    let page = std::fs::read_to_string(root().join("docs/crash.md"));
    let places = places_of(&page.expect("there is docs/crash.md"));
    let missing: Vec<_> = marks.symmetric_difference(&places).collect();
    assert!(missing.is_empty(), "in the sources or on the page only: {missing:?}");
}

/// A number that changes with the code, and not with the comments and the white space, of the layout.
fn layout_sum() -> String {
    let mut all = sources(&[
        "src/layout",
        "src/ring/slots.rs",
        "src/ring/pins.rs",
        "src/shm/node.rs",
        "src/bus.rs",
    ]);
    all.retain(|source| !source.is_tests());
    // Of the files that do more than that, what says where something lies.
    let says_where = |line: &&Line| {
        line.code.trim_start().starts_with("const ") || line.code.contains("pub const ")
    };
    let mut sum = crc32fast::Hasher::new();
    for source in &all {
        let layout = source.path.starts_with("src/layout/");
        for line in source.lines.iter().filter(|line| layout || says_where(line)) {
            line.code.split_whitespace().for_each(|word| sum.update(word.as_bytes()));
        }
    }
    format!("{:08x}", sum.finalize())
}

#[test]
fn the_page_on_bytes_was_held_against_the_layout() {
    let page =
        std::fs::read_to_string(root().join("docs/format.md")).expect("there is docs/format.md");
    let sum = layout_sum();
    assert!(
        page.contains(&format!("<!-- layout {sum} -->")),
        "the layout changed: hold docs/format.md against it, raise its version if processes of before would \
         misread it, and put <!-- layout {sum} --> into the page"
    );
}

#[test]
fn the_changelog_speaks_of_this_version() {
    let changelog = std::fs::read_to_string(root().join("CHANGELOG.md"));
    let changelog = changelog.expect("there is a CHANGELOG.md");
    let version = env!("CARGO_PKG_VERSION");
    let heads = changelog.lines().filter(|line| line.starts_with('#'));
    assert!(
        heads.into_iter().any(|head| head.contains(version)),
        "CHANGELOG.md has no section about {version}"
    );
}

#[test]
fn these_rules_see_what_they_look_for() {
    let text = "let a = \"unsafe // no\"; // unsafe: yes\nunsafe { b(r#\"\"unsafe\"#) }\n'\"'; c";
    let lines = lines_of(text);
    assert!(!has_word(&lines[0].code, "unsafe") && has_word(&lines[0].comment, "unsafe"));
    assert!(has_word(&lines[1].code, "unsafe") && lines[2].code.contains('c'));
    assert!(!has_word("unsafe_code unsafely", "unsafe") && has_word("(unsafe)", "unsafe"));
    assert_eq!(edge_of("/ COMMIT: pairs with"), Some("COMMIT"));
    assert_eq!(edge_of(" Relaxed: a note"), None);
    assert_eq!(edge_of(" no edge"), None);
}
