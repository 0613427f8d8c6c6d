//! What a command is pointed at: the folder of a log, or a topic of a bus.

use std::path::{Path, PathBuf};

use anyhow::{bail, Result};
use windlass::{Bus, ErrorKind, Log, Raw, Schema};

use crate::args::BusArgument;

/// A log to read.
pub struct Source {
    /// The log.
    pub log: Log<Raw>,
    /// The type of its messages; `None` if they are bytes.
    pub schema: Option<Schema>,
    /// The same, as it is stored.
    pub schema_bytes: Option<Vec<u8>>,
    /// The topic that it was asked for by.
    pub topic: Option<(Bus, String)>,
}

/// What is meant by a name or a path.
pub enum Place {
    /// A log.
    Log(Box<Source>),
    /// A topic that has none.
    Topic(Bus, String),
}

impl Source {
    /// Opens the log in the folder at `path`.
    pub fn open(path: &Path) -> Result<Self> {
        let log = Log::open_untyped(path)?;
        let schema_bytes = log.is_typed().then(|| log.schema_bytes()).transpose()?;
        let schema = schema_bytes.as_deref().map(Schema::parse).transpose()?;
        Ok(Self { log, schema, schema_bytes, topic: None })
    }

    /// How people call it.
    pub fn name(&self) -> String {
        match &self.topic {
            Some((_, topic)) => topic.clone(),
            None => self.log.path().display().to_string(),
        }
    }

    /// Whether nothing more will come: the topic that it was asked for by is closed.
    pub fn is_closed(&self) -> bool {
        let closed = |(bus, topic): &(Bus, String)| bus.inspect(topic).is_ok_and(|it| it.closed);
        self.topic.as_ref().is_some_and(closed)
    }
}

/// Finds what is meant. A name without a slash is a topic, if there is one, or else a folder.
pub fn find(name: &str, bus: &BusArgument) -> Result<Place> {
    if name.contains('/') {
        return Ok(Place::Log(Box::new(Source::open(Path::new(name))?)));
    }
    let opened = Bus::options().existing().group().open(&bus.bus);
    let looked = opened.and_then(|bus| Ok((bus.inspect(name)?, bus)));
    match looked {
        Ok((info, bus)) => match info.log {
            Some(path) => {
                let topic = Some((bus, name.to_owned()));
                Ok(Place::Log(Box::new(Source { topic, ..Source::open(&path)? })))
            }
            None => Ok(Place::Topic(bus, name.to_owned())),
        },
        // What cannot be a topic may still be a folder.
        Err(_) if Path::new(name).join("log").is_file() => {
            Ok(Place::Log(Box::new(Source::open(Path::new(name))?)))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => bail!(
            "there is neither a log in a folder {name} here, nor a topic of that name: {error}"
        ),
        Err(error) => Err(error.into()),
    }
}

/// Finds a log.
pub fn find_log(name: &str, bus: &BusArgument) -> Result<Source> {
    match find(name, bus)? {
        Place::Log(source) => Ok(*source),
        Place::Topic(bus, topic) => bail!(
            "topic {topic} of bus {} has no log; `windlass record {topic} --to LOG` keeps one from \
             now on",
            bus.path().display()
        ),
    }
}

/// The schema that a log or a topic stores; `None` if its messages are bytes.
pub fn schema_of(name: &str, bus: &BusArgument) -> Result<Option<Vec<u8>>> {
    match find(name, bus)? {
        Place::Log(source) => Ok(source.schema_bytes),
        Place::Topic(bus, topic) => Ok(bus.topic_untyped(&topic)?.schema_bytes()?),
    }
}

/// Opens a bus, or makes one of this user alone.
pub fn open_or_make(bus: &BusArgument) -> Result<Bus> {
    match Bus::options().existing().group().open(&bus.bus) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Bus::open(&bus.bus)?),
        opened => Ok(opened?),
    }
}

/// A folder beside `path` to make something in that is to be there whole or not at all.
pub fn unfinished(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else { bail!("{} is no name of a file", path.display()) };
    let name = format!(".{}.unfinished-{}", name.to_string_lossy(), std::process::id());
    Ok(path.with_file_name(name))
}
