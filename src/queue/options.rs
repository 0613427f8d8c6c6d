//! The options of a queue: set at creation, stored, and compared when it is opened again.

use crate::bus::Member;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::chunk::DELIVERIES_MAX;
use crate::layout::queue::{Class, Shape};
use crate::limits;
use crate::queue::core::Core;
use crate::queue::Queue;
use crate::shm::home::{folder_mode, Created, Folder};
use crate::shm::map::Access;
use crate::sync::Ordering::Relaxed;
use crate::topic::Payload;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Names a queue and its options; made by [`Bus::queue`](crate::Bus::queue).
///
/// Options that are not set take their default when the queue is created, and whatever it has when it is opened. An
/// option that *is* set and differs from that of an existing queue is an error that names it and both values.
#[must_use = "a builder does nothing until open, create or open_existing"]
pub struct QueueBuilder<T: Payload> {
    member: Arc<Member>,
    name: String,
    classes: Vec<Class>,
    max_deliveries: Option<u32>,
    consumers_max: Option<u32>,
    mode: Option<u32>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Payload> QueueBuilder<T> {
    pub(crate) fn new(member: Arc<Member>, name: &str) -> Self {
        Self {
            member,
            name: name.to_owned(),
            classes: Vec::new(),
            max_deliveries: None,
            consumers_max: None,
            mode: None,
            payload: PhantomData,
        }
    }

    /// Adds a class of `count` chunks that take messages of up to `bytes` bytes, rounded up to a multiple of 64. Up to
    /// four classes, by ascending size; 1024 chunks of 1024 bytes if there is no call.
    ///
    /// A message takes a chunk of the smallest class that it fits. If none of them is free the queue is full for such
    /// messages, and only for such: a flood of small ones leaves large ones their chunks. A Cap'n Proto message is
    /// built before anybody knows its size, in a chunk for what recent ones needed, at least 256 bytes; where sizes
    /// differ much, say its size: [`Producer::loan_sized`](crate::Producer::loan_sized).
    pub fn chunks(mut self, count: u32, bytes: u32) -> Self {
        let align = limits::CHUNK_ALIGN as u32;
        let bytes = bytes.max(1).checked_next_multiple_of(align).unwrap_or(bytes);
        self.classes.push(Class { count, bytes });
        self
    }

    /// How often a message is delivered at most before it is a dead letter: 1 to 255, 5 by default.
    pub fn max_deliveries(self, deliveries: u32) -> Self {
        Self { max_deliveries: Some(deliveries), ..self }
    }

    /// Consumers at a time: 1 to 1024, 64 by default.
    pub fn consumers_max(self, consumers: u32) -> Self {
        Self { consumers_max: Some(consumers), ..self }
    }

    /// Permission bits of the files: by default 0660 on a bus that is shared with a group, 0600 on any other.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Opens the queue, creating it if it does not exist.
    ///
    /// # Errors
    ///
    /// `Invalid` for an option outside its range, `Mismatch` if the queue exists with another value of an option that
    /// was set or with another type, `NoSpace` if memory cannot be reserved.
    pub fn open(self) -> Result<Queue<T>> {
        let wanted = self.shape()?;
        match self.try_create(&wanted)? {
            Some(core) => Ok(Queue::new(core)),
            None => self.attach(),
        }
    }

    /// Creates the queue.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it exists; otherwise as for [`open`](Self::open).
    pub fn create(self) -> Result<Queue<T>> {
        let wanted = self.shape()?;
        match self.try_create(&wanted)? {
            Some(core) => Ok(Queue::new(core)),
            None => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "queue {} of bus {} exists already; open it, or remove it first",
                    self.name,
                    self.member.folder()
                ),
            )),
        }
    }

    /// Opens the queue, which must exist.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; otherwise as for [`open`](Self::open).
    pub fn open_existing(self) -> Result<Queue<T>> {
        self.shape()?;
        self.attach()
    }

    fn shape(&self) -> Result<Shape> {
        self.member.check_process()?;
        crate::shm::home::check_name("queue", &self.name)?;
        let invalid = |text: String| Error::new(ErrorKind::Invalid, text);
        let within = |option: &str, value: u32, least: u32, most: u32| {
            if (least..=most).contains(&value) {
                return Ok(value);
            }
            let name = &self.name;
            Err(invalid(format!(
                "queue {name}: {option} is {value}, expected from {least} to {most}"
            )))
        };
        let schema = T::schema()?;
        let mut classes = [Class::default(); limits::CLASSES_MAX];
        let default = [Class { count: limits::CHUNKS_DEFAULT, bytes: limits::CHUNK_BYTES_DEFAULT }];
        let wanted = if self.classes.is_empty() { &default[..] } else { &self.classes };
        if wanted.len() > classes.len() {
            let (name, count, most) = (&self.name, wanted.len(), classes.len());
            return Err(invalid(format!(
                "queue {name}: there are {count} classes of chunks, expected at most {most}"
            )));
        }
        classes[..wanted.len()].copy_from_slice(wanted);
        let deliveries = self.max_deliveries.unwrap_or(limits::DELIVERIES_DEFAULT);
        let consumers = self.consumers_max.unwrap_or(limits::CONSUMERS_DEFAULT);
        let mode = match self.mode {
            Some(mode) => mode,
            None => self.member.folder().default_mode()?,
        };
        if mode & 0o600 != 0o600 || mode & !0o660 != 0 {
            let name = &self.name;
            return Err(invalid(format!(
                "queue {name}: mode is {mode:04o}, expected 0600, or 0660 for a group"
            )));
        }
        let shape = Shape {
            typed: schema.is_some(),
            consumers_max: within("consumers_max", consumers, 1, limits::CONSUMERS_MAX)?,
            deliveries_max: within("max_deliveries", deliveries, 1, DELIVERIES_MAX)?,
            mode,
            schema_bytes: schema.as_ref().map_or(0, Vec::len) as u64,
            schema_crc: crc32fast::hash(&schema.unwrap_or_default()),
            classes,
        };
        shape.check_classes().map_err(|(found, expected)| {
            let name = &self.name;
            invalid(format!("queue {name}: there are {found}, expected {expected}"))
        })?;
        Ok(shape)
    }

    fn folder_name(&self) -> String {
        format!("{}.queue", self.name)
    }

    /// Makes the queue and opens it. `None` if it exists.
    fn try_create(&self, shape: &Shape) -> Result<Option<Arc<Core>>> {
        let bus = self.member.folder();
        if bus.exists(&self.folder_name())? {
            return Ok(None);
        }
        let mut opened = None;
        let schema = T::schema()?.unwrap_or_default();
        let identity = crate::bus::new_identity();
        let build = |folder: &Folder| {
            let data = shape.data_header(identity);
            folder.create_file_atomically("data", data.file_bytes, shape.mode, |region| {
                data.write(region);
                Ok(())
            })?;
            let header = shape.to_header(identity);
            folder.create_file_atomically("control", header.file_bytes, shape.mode, |region| {
                for (index, chunk) in schema.chunks(8).enumerate() {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    let at = shape.schema_at() + index * 8;
                    // Relaxed: published by the rename.
                    region.word(at).store(u64::from_le_bytes(word), Relaxed);
                }
                header.write(region);
                Ok(())
            })?;
            // Before it has its name: either there is a queue and it is open, or there is none.
            let member = self.member.clone();
            opened = Some(Core::open(&self.name, folder.clone(), member, Access::Write)?);
            Ok(())
        };
        let created =
            bus.create_folder_atomically(&self.folder_name(), folder_mode(shape.mode), build)?;
        Ok(match created {
            Created::Mine(_) => opened,
            Created::Theirs => None,
        })
    }

    fn attach(&self) -> Result<Queue<T>> {
        let bus = self.member.folder();
        let folder = bus.open_folder(&self.folder_name()).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let text = format!("bus {bus} has no queue {}; create it first", self.name);
                Error::new(ErrorKind::NotFound, text)
            }
            _ => error,
        })?;
        let core = Core::open(&self.name, folder, self.member.clone(), Access::Write)?;
        self.compare(&core)?;
        Ok(Queue::new(core))
    }

    /// Compares the options that were set with those of the queue.
    fn compare(&self, core: &Core) -> Result<()> {
        let shape = &core.shape;
        let list = |classes: &mut dyn Iterator<Item = Class>| {
            let all: Vec<String> =
                classes.map(|class| format!("{} x {} bytes", class.count, class.bytes)).collect();
            all.join(", ")
        };
        let wanted = (!self.classes.is_empty()).then(|| list(&mut self.classes.iter().copied()));
        self.same("chunks", wanted, list(&mut shape.classes()))?;
        self.same("max_deliveries", self.max_deliveries, shape.deliveries_max)?;
        self.same("consumers_max", self.consumers_max, shape.consumers_max)?;
        let octal = |mode| format!("{mode:04o}");
        self.same("mode", self.mode.map(octal), octal(shape.mode))?;
        let stored = core.schema_bytes()?;
        match (T::schema()?, shape.typed) {
            (None, false) => Ok(()),
            (Some(mine), true) if mine == stored => Ok(()),
            (Some(mine), true) => crate::message::check_schemas(&self.name, &stored, &mine),
            (mine, _) => {
                let name = |typed| if typed { "Cap'n Proto messages" } else { "raw bytes" };
                let (stored, mine) = (name(shape.typed), name(mine.is_some()));
                let text = format!("queue {} carries {stored}, not {mine}", self.name);
                Err(Error::new(ErrorKind::Mismatch, text))
            }
        }
    }

    fn same<V: PartialEq + fmt::Display>(
        &self,
        option: &str,
        wanted: Option<V>,
        stored: V,
    ) -> Result<()> {
        match wanted {
            Some(wanted) if wanted != stored => Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "queue {} exists with {option} {stored}, not {wanted}; open it without that \
                     option, or remove it first",
                    self.name
                ),
            )),
            _ => Ok(()),
        }
    }
}
