//! `windlass cursors`: how far the named consumers of a log have come.

use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use serde::Serialize;
use windlass::{Bus, Cursor, CursorInfo, ErrorKind, Raw, Topic, UntypedTopic};

use super::place::{find_log, Source};
use super::target::tell_of_losses;
use super::value::time;
use crate::args::{CursorAction, CursorsArguments};
use crate::output::{self, count, some, table};

#[derive(Serialize)]
struct List {
    log: String,
    cursors: Vec<Entry>,
}

/// A cursor, as JSON shows it.
#[derive(Serialize)]
pub struct Entry {
    name: String,
    /// The first sequence that is not consumed.
    next: Option<u64>,
    lag: u64,
    time: Option<String>,
    rewound: u64,
    held_by: Option<String>,
}

#[derive(Serialize)]
struct Done {
    log: String,
    cursor: String,
    /// Where it was, and where it is.
    before: Option<u64>,
    next: Option<u64>,
    removed: bool,
}

/// `windlass cursors`.
pub fn run(arguments: &CursorsArguments) -> Result<ExitCode> {
    match &arguments.action {
        None => {
            let place = arguments.place.as_deref().context("there is no log to look at")?;
            list(&find_log(place, &arguments.bus)?, arguments.json)?;
        }
        Some(CursorAction::Reset(reset)) => {
            let source = find_log(&reset.place.place, &reset.place.bus)?;
            check(&source, &reset.name)?;
            let mut cursor = Owner::of(&source)?.cursor(&reset.name)?;
            let before = cursor.next();
            cursor.reset(reset.to.0)?;
            let next = cursor.next();
            drop(cursor);
            tell(&source, &reset.name, (before, next), reset.json)?;
        }
        Some(CursorAction::Remove(remove)) => {
            let source = find_log(&remove.place.place, &remove.place.bus)?;
            let before = check(&source, &remove.name)?;
            Owner::of(&source)?.remove(&remove.name)?;
            tell(&source, &remove.name, (before, None), remove.json)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Whoever may change the cursors of a log: a topic that has it open.
enum Owner {
    /// The topic of the bus that the log was found by.
    Bus(UntypedTopic),
    /// One in the memory of this process, if nobody else uses the log.
    Mine(Topic<Raw>),
}

impl Owner {
    fn of(source: &Source) -> Result<Self> {
        if let Some((bus, topic)) = &source.topic {
            return Ok(Self::Bus(bus.topic_untyped(topic)?));
        }
        let topic = Bus::anonymous()?.topic::<Raw>("cursors").durable_at(source.log.path());
        match topic.with_schema(source.schema_bytes.clone()).open() {
            Ok(topic) => {
                tell_of_losses(source.log.path(), topic.recovery());
                Ok(Self::Mine(topic))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                let user = source.log.info()?.used_by.unwrap_or_else(|| "somebody".to_owned());
                bail!(
                    "the log {} is in use by {user}; name that topic and its bus instead of the log",
                    source.name()
                )
            }
            Err(error) => Err(error.into()),
        }
    }

    fn cursor(&self, name: &str) -> Result<Cursor> {
        Ok(match self {
            Self::Bus(topic) => topic.cursor(name)?,
            Self::Mine(topic) => topic.cursor(name)?,
        })
    }

    fn remove(&self, name: &str) -> Result<bool> {
        Ok(match self {
            Self::Bus(topic) => topic.remove_cursor(name)?,
            Self::Mine(topic) => topic.remove_cursor(name)?,
        })
    }
}

/// Refuses a name that no cursor has, so that none is made by a slip. Returns where the cursor is.
fn check(source: &Source, name: &str) -> Result<Option<u64>> {
    let cursors = source.log.cursors()?;
    if let Some(cursor) = cursors.iter().find(|cursor| cursor.name == name) {
        return Ok(cursor.next);
    }
    let names: Vec<&str> = cursors.iter().map(|cursor| cursor.name.as_str()).collect();
    let there = match names.is_empty() {
        true => "it has none".to_owned(),
        false => format!("there are {}", names.join(", ")),
    };
    bail!("{} has no cursor {name}: {there}", source.name())
}

/// The cursors of a log.
pub fn entries(cursors: Vec<CursorInfo>) -> Vec<Entry> {
    let entry = |cursor: CursorInfo| Entry {
        name: cursor.name,
        next: cursor.next,
        lag: cursor.lag,
        time: cursor.time_ns.map(time),
        rewound: cursor.rewound,
        held_by: cursor.held_by.map(|holder| holder.to_string()),
    };
    cursors.into_iter().map(entry).collect()
}

/// The cursors of a log, for people.
pub fn page(cursors: &[Entry]) -> String {
    let mut table = table("cursor | next> | behind> | committed | held by |");
    for cursor in cursors {
        let rewound = match cursor.rewound {
            0 => String::new(),
            n => format!("set back by {} after a crash", some(n, "message", "messages")),
        };
        table.add_row([
            cursor.name.clone(),
            cursor.next.map_or(String::new(), count),
            count(cursor.lag),
            cursor.time.clone().unwrap_or_default(),
            cursor.held_by.clone().unwrap_or_default(),
            rewound,
        ]);
    }
    table.trim_fmt()
}

fn list(source: &Source, json: bool) -> Result<()> {
    let log = source.log.path().display().to_string();
    let list = List { log, cursors: entries(source.log.cursors()?) };
    if json {
        return output::json(&list);
    }
    output::text(&match list.cursors.is_empty() {
        true => format!("The log {} has no cursors.", list.log),
        false => format!("{}\n{}", list.log, page(&list.cursors)),
    })
}

fn tell(
    source: &Source,
    name: &str,
    (before, next): (Option<u64>, Option<u64>),
    json: bool,
) -> Result<()> {
    let (log, cursor) = (source.log.path().display().to_string(), name.to_owned());
    if json {
        return output::json(&Done { log, cursor, before, next, removed: next.is_none() });
    }
    let was = before.map_or("nowhere".to_owned(), |before| format!("at {}", count(before)));
    output::text(&match next {
        Some(next) => format!("Cursor {name} of {log} is at {}; it was {was}.", count(next)),
        None => format!("Removed cursor {name} of {log}; it was {was}."),
    })
}
