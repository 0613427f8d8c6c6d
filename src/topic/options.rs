//! The options of a topic: set at creation, stored, and compared when it is opened again.

use crate::bus::Member;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::control::Shape;
use crate::limits;
use crate::log::site;
use crate::shm::home::{folder_mode, Created, Folder};
use crate::shm::map::Access;
use crate::sync::Ordering::Relaxed;
use crate::topic::core::Core;
use crate::topic::durable::Durable;
use crate::topic::payload::Payload;
use crate::topic::Topic;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// What happens when a lane is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// The publisher waits, or is told who blocks it. No message is lost.
    Reliable,
    /// The oldest messages are overwritten. A subscriber that was overtaken is told exactly how many it missed.
    Lossy,
    /// Messages are kept in a log on disk. A subscriber that is slower than the retention of the log is told exactly
    /// how many it missed.
    Durable,
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reliable => "reliable",
            Self::Lossy => "lossy",
            Self::Durable => "durable",
        })
    }
}

/// What happens in a topic of this shape.
pub(super) fn policy_of(shape: &Shape) -> Policy {
    match (shape.durable, shape.reliable) {
        (true, _) => Policy::Durable,
        (false, true) => Policy::Reliable,
        (false, false) => Policy::Lossy,
    }
}

/// Looks for a topic that somebody else is making, whose log is in use already, a millisecond apart. A topic of that
/// name that was removed, and is still in use, has the log for longer.
const TRIES_MAX: u32 = 2000;

/// Names a topic and its options; made by [`Bus::topic`](crate::Bus::topic).
///
/// Options that are not set take their default when the topic is created, and whatever it has when it is opened. An
/// option that *is* set and differs from that of an existing topic is an error that names it and both values.
#[must_use = "a builder does nothing until open, create or open_existing"]
pub struct TopicBuilder<T: Payload> {
    pub(super) member: Arc<Member>,
    pub(super) name: String,
    pub(super) policy: Option<Policy>,
    pub(super) ordered: Option<bool>,
    pub(super) segment_bytes: Option<u64>,
    pub(super) segments_per_lane: Option<u32>,
    pub(super) publishers_max: Option<u32>,
    pub(super) subscribers_max: Option<u32>,
    pub(super) order_slots: Option<u64>,
    pub(super) evict_after: Option<Duration>,
    pub(super) prefault: Option<bool>,
    pub(super) mode: Option<u32>,
    pub(super) durable: Option<Durable>,
    /// The schema of a topic whose type this process does not know.
    pub(super) schema: Option<Vec<u8>>,
    pub(super) payload: PhantomData<fn() -> T>,
}

impl<T: Payload> TopicBuilder<T> {
    pub(crate) fn new(member: Arc<Member>, name: &str) -> Self {
        Self {
            member,
            name: name.to_owned(),
            policy: None,
            ordered: None,
            segment_bytes: None,
            segments_per_lane: None,
            publishers_max: None,
            subscribers_max: None,
            order_slots: None,
            evict_after: None,
            prefault: None,
            mode: None,
            durable: None,
            schema: None,
            payload: PhantomData,
        }
    }

    /// No message is lost; a full lane holds its publisher up. The default.
    pub fn reliable(self) -> Self {
        Self { policy: Some(Policy::Reliable), ..self }
    }

    /// A full lane overwrites its oldest messages; who is overtaken is told exactly what it missed.
    pub fn lossy(self) -> Self {
        Self { policy: Some(Policy::Lossy), ..self }
    }

    /// One total order over the messages of all publishers, the same for every subscriber.
    pub fn ordered(self) -> Self {
        Self { ordered: Some(true), ..self }
    }

    /// Bytes of a segment: a power of two from 4 KiB to 1 GiB; 1 MiB by default. A message, with 32 bytes of headers,
    /// fits one segment.
    pub fn segment_bytes(self, bytes: u64) -> Self {
        Self { segment_bytes: Some(bytes), ..self }
    }

    /// Segments of each lane: 2 to 256, 8 by default. A lane holds up to all but one of them unread.
    pub fn segments_per_lane(self, segments: u32) -> Self {
        Self { segments_per_lane: Some(segments), ..self }
    }

    /// Publishers at a time: 1 to 64, 8 by default. Memory is reserved only for lanes that were ever used. On a bus of
    /// a group a lane stays with the user who used it first: this is the sum of what each of them needs.
    pub fn publishers_max(self, publishers: u32) -> Self {
        Self { publishers_max: Some(publishers), ..self }
    }

    /// Subscribers at a time: 1 to 1024, 64 by default.
    pub fn subscribers_max(self, subscribers: u32) -> Self {
        Self { subscribers_max: Some(subscribers), ..self }
    }

    /// Messages that the order log of an ordered topic holds: a power of two from 256 to 2^27, 131072 by default.
    pub fn order_slots(self, slots: u64) -> Self {
        Self { order_slots: Some(slots), ..self }
    }

    /// After this long a publisher of a reliable topic takes the backlog of a living subscriber that blocks it. Never
    /// by default.
    pub fn evict_after(self, limit: Duration) -> Self {
        Self { evict_after: Some(limit), ..self }
    }

    /// Touch all pages when a lane is mapped (the default), so that no message pays a page fault.
    pub fn prefault(self, prefault: bool) -> Self {
        Self { prefault: Some(prefault), ..self }
    }

    /// Permission bits of the topic's files: by default 0660 on a bus that is shared with a group, 0600 on any other.
    /// 0640 lets the group look (`Bus::inspect`) and not take part. The file of a lane is written by nobody but its
    /// owner, whatever the mode says.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Opens the topic, creating it if it does not exist.
    ///
    /// # Errors
    ///
    /// `Invalid` for an option outside its range, `Mismatch` if the topic exists with another value of an option that
    /// was set or with another type, `NoSpace` if memory cannot be reserved.
    pub fn open(self) -> Result<Topic<T>> {
        let wanted = self.shape()?;
        match self.try_create(&wanted)? {
            Some(core) => Ok(Topic::new(core)),
            None => self.attach(),
        }
    }

    /// Creates the topic.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it exists; otherwise as for [`open`](Self::open).
    pub fn create(self) -> Result<Topic<T>> {
        let wanted = self.shape()?;
        match self.try_create(&wanted)? {
            Some(core) => Ok(Topic::new(core)),
            None => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "topic {} of bus {} exists already; open it, or remove it first",
                    self.name,
                    self.member.folder()
                ),
            )),
        }
    }

    /// Opens the topic, which must exist.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; otherwise as for [`open`](Self::open).
    pub fn open_existing(self) -> Result<Topic<T>> {
        self.shape()?;
        self.attach()
    }

    fn shape(&self) -> Result<Shape> {
        self.member.check_process()?;
        crate::shm::home::check_name("topic", &self.name)?;
        let durable = self.durable.as_ref().is_some_and(|durable| durable.asked);
        self.check_durable(durable)?;
        let ordered = self.ordered.unwrap_or(durable);
        let schema = self.stored_schema()?;
        let typed = schema.is_some();
        let schema = schema.unwrap_or_default();
        let evict = self.evict_after.unwrap_or(Duration::ZERO).as_nanos();
        let shape = Shape {
            reliable: !durable && self.policy.unwrap_or(Policy::Reliable) == Policy::Reliable,
            ordered,
            durable,
            prefault: self.prefault.unwrap_or(true),
            typed,
            publishers_max: self.publishers_max.unwrap_or(limits::PUBLISHERS_DEFAULT),
            subscribers_max: self.subscribers_max.unwrap_or(limits::SUBSCRIBERS_DEFAULT),
            segments: match durable {
                true => limits::SEGMENTS_MIN,
                false => self.segments_per_lane.unwrap_or(limits::SEGMENTS_DEFAULT),
            },
            segment_bytes: self.segment_bytes.unwrap_or(match durable {
                true => limits::LOG_SEGMENT_BYTES_DEFAULT,
                false => limits::SEGMENT_BYTES_DEFAULT,
            }),
            order_slots: match ordered && !durable {
                true => self.order_slots.unwrap_or(limits::ORDER_SLOTS_DEFAULT),
                false => 0,
            },
            evict_after_ns: u64::try_from(evict).unwrap_or(u64::MAX),
            mode: match self.mode {
                Some(mode) => mode,
                None => self.member.folder().default_mode()?,
            },
            schema_bytes: schema.len() as u64,
            schema_crc: crc32fast::hash(&schema),
        };
        self.check(&shape)?;
        Ok(shape)
    }

    fn check(&self, shape: &Shape) -> Result<()> {
        let within = |option: &str, value: u64, least: u64, most: u64, power: bool| {
            if (least..=most).contains(&value) && (!power || value.is_power_of_two()) {
                return Ok(());
            }
            let what = if power { "a power of two from" } else { "from" };
            Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "topic {}: {option} is {value}, expected {what} {least} to {most}",
                    self.name
                ),
            ))
        };
        let (min, max) = match shape.durable {
            true => (limits::SEGMENT_BYTES_MIN, limits::LOG_SEGMENT_BYTES_MAX),
            false => (limits::SEGMENT_BYTES_MIN, limits::SEGMENT_BYTES_MAX),
        };
        within("segment_bytes", shape.segment_bytes, min, max, true)?;
        let (min, max) = (limits::SEGMENTS_MIN.into(), limits::SEGMENTS_MAX.into());
        within("segments_per_lane", shape.segments.into(), min, max, false)?;
        let max = limits::PUBLISHERS_MAX.into();
        within("publishers_max", shape.publishers_max.into(), 1, max, false)?;
        let max = limits::SUBSCRIBERS_MAX.into();
        within("subscribers_max", shape.subscribers_max.into(), 1, max, false)?;
        within("mode", shape.mode.into(), 0, 0o777, false)?;
        if shape.mode & 0o600 != 0o600 || shape.mode & 0o007 != 0 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "topic {}: mode is {:04o}, expected the owner to read and write (0600) and \
                     nobody outside the group to do anything",
                    self.name, shape.mode
                ),
            ));
        }
        if shape.durable {
            return within(
                "the control file",
                shape.file_bytes(),
                0,
                limits::CONTROL_BYTES_MAX,
                false,
            );
        }
        if shape.ordered {
            let (min, max) = (limits::ORDER_SLOTS_MIN, limits::ORDER_SLOTS_MAX);
            within("order_slots", shape.order_slots, min, max, true)?;
        } else if self.order_slots.is_some() {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("topic {}: order_slots needs ordered()", self.name),
            ));
        }
        if (shape.evict_after_ns > 0 || !shape.reliable) && shape.segments < 3 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "topic {}: segments_per_lane is {}, expected at least 3 with lossy() or \
                     evict_after(): one is written, one is where a reader stands still",
                    self.name, shape.segments
                ),
            ));
        }
        if self.evict_after == Some(Duration::ZERO) {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!("topic {}: evict_after is zero, expected some time to read in", self.name),
            ));
        }
        if shape.evict_after_ns > 0 && !shape.reliable {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "topic {}: evict_after needs reliable(); a lossy topic overtakes",
                    self.name
                ),
            ));
        }
        within("the control file", shape.file_bytes(), 0, limits::CONTROL_BYTES_MAX, false)
    }

    pub(super) fn folder_name(&self) -> String {
        format!("{}.topic", self.name)
    }

    /// Makes the topic and opens it. `None` if it exists.
    fn try_create(&self, shape: &Shape) -> Result<Option<Arc<Core>>> {
        for _ in 0..TRIES_MAX {
            match self.try_create_once(shape) {
                Err(error) if self.is_made_by_another(&error) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                tried => return tried,
            }
        }
        self.try_create_once(shape)
    }

    fn try_create_once(&self, shape: &Shape) -> Result<Option<Arc<Core>>> {
        let name = self.folder_name();
        let bus = self.member.folder();
        if bus.exists(&name)? {
            return Ok(None);
        }
        let log = self.open_log(shape)?;
        // What a log was made with stands.
        let (shape, schema) = match &log {
            Some(log) => (&log.adopted(shape), log.schema.clone()),
            None => (shape, self.stored_schema()?.unwrap_or_default()),
        };
        let identity = crate::bus::new_identity();
        let mut opened = None;
        let created = bus.create_folder_atomically(&name, folder_mode(shape.mode), |folder| {
            let (bytes, mode) = (shape.file_bytes(), shape.mode);
            folder.create_file_atomically("control", bytes, mode, |region| {
                for (index, chunk) in schema.chunks(8).enumerate() {
                    let mut word = [0; 8];
                    word[..chunk.len()].copy_from_slice(chunk);
                    let at = shape.schema_at() + index * 8;
                    // Relaxed: published by the rename.
                    region.word(at).store(u64::from_le_bytes(word), Relaxed);
                }
                shape.to_header(identity).write(region);
                Ok(())
            })?;
            if let Some(log) = &log {
                site::write(folder, &log.path, identity, shape.mode)?;
            }
            self.create_order(shape, folder, identity)?;
            // Before it has its name: either there is a topic and it is open, or there is none.
            let member = self.member.clone();
            opened = Some(Core::open(&self.name, folder.clone(), member, Access::Write)?);
            Ok(())
        })?;
        Ok(match created {
            Created::Mine(_) => opened,
            Created::Theirs => None,
        })
    }

    fn create_order(&self, shape: &Shape, folder: &Folder, identity: u64) -> Result<()> {
        if !shape.ordered || shape.durable {
            return Ok(());
        }
        let header = shape.order_header(identity);
        folder.create_file_atomically("order", header.file_bytes, shape.mode, |region| {
            header.write(region);
            Ok(())
        })?;
        Ok(())
    }

    fn attach(&self) -> Result<Topic<T>> {
        let name = self.folder_name();
        let bus = self.member.folder();
        if !bus.exists(&name)? {
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("bus {bus} has no topic {}; create it first", self.name),
            ));
        }
        let folder = bus.open_folder(&name)?;
        let core = Core::open(&self.name, folder, self.member.clone(), Access::Write)?;
        self.compare(&core)?;
        Ok(Topic::new(core))
    }

    /// The schema of the messages; `None` for bytes.
    pub(super) fn stored_schema(&self) -> Result<Option<Vec<u8>>> {
        match &self.schema {
            Some(schema) => Ok(Some(schema.clone())),
            None => T::schema(),
        }
    }

    /// Compares the options that were set with those of the topic.
    fn compare(&self, core: &Core) -> Result<()> {
        let shape = &core.shape;
        self.same("policy", self.policy, policy_of(shape))?;
        self.compare_log(core)?;
        self.same("ordered", self.ordered, shape.ordered)?;
        self.same("segment_bytes", self.segment_bytes, shape.segment_bytes)?;
        self.same("segments_per_lane", self.segments_per_lane, shape.segments)?;
        self.same("publishers_max", self.publishers_max, shape.publishers_max)?;
        self.same("subscribers_max", self.subscribers_max, shape.subscribers_max)?;
        self.same("order_slots", self.order_slots, shape.order_slots)?;
        let evict = self.evict_after.map(|limit| limit.as_nanos());
        self.same("evict_after (ns)", evict, shape.evict_after_ns.into())?;
        self.same("prefault", self.prefault, shape.prefault)?;
        let octal = |mode| format!("{mode:04o}");
        self.same("mode", self.mode.map(octal), octal(shape.mode))?;
        self.compare_schema(core)
    }

    pub(super) fn same<V: PartialEq + fmt::Display>(
        &self,
        option: &str,
        wanted: Option<V>,
        stored: V,
    ) -> Result<()> {
        match wanted {
            Some(wanted) if wanted != stored => Err(Error::new(
                ErrorKind::Mismatch,
                format!(
                    "topic {} exists with {option} {stored}, not {wanted}; open it without that \
                     option, or remove it first",
                    self.name
                ),
            )),
            _ => Ok(()),
        }
    }

    fn compare_schema(&self, core: &Core) -> Result<()> {
        let stored = core.schema_bytes()?;
        match (self.stored_schema()?, core.shape.typed) {
            (None, false) => Ok(()),
            (Some(mine), true) if mine == stored => Ok(()),
            (Some(mine), true) => crate::message::check_schemas(&self.name, &stored, &mine),
            (mine, _) => {
                let name = |typed| if typed { "Cap'n Proto messages" } else { "raw bytes" };
                Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "topic {} carries {}, not {}",
                        self.name,
                        name(core.shape.typed),
                        name(mine.is_some())
                    ),
                ))
            }
        }
    }
}
