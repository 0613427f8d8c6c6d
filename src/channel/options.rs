//! Opening an end of a channel.

use crate::bus::new_identity;
use crate::channel::core::{has_unread, Core, End};
use crate::channel::receiver::Receiver;
use crate::channel::sender::Sender;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::channel::{file_bytes, READY_AT};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS, MAGIC};
use crate::limits::{CHANNEL_BYTES_DEFAULT, CHANNEL_BYTES_MAX, CHANNEL_BYTES_MIN, HEADER_BYTES};
use crate::ring::stream::{self, Reader, Stream, Writer};
use crate::shm::home::new_memory_file;
use crate::shm::loss::Loss;
use crate::shm::map::{self, prefault, Access};
use crate::shm::named::{self, Byte, Named};
use crate::shm::node::own_namespace;
use crate::shm::place::Region;
use crate::sync::Ordering::{Relaxed, Release};
use std::path::Path;
use std::time::Duration;

/// How long an end that comes waits for somebody who is just coming or leaving.
const OPEN_PATIENCE: Duration = Duration::from_secs(5);

/// A channel with a name: from which its two ends are opened, in any order and by any process of this user.
///
/// See the [module](crate::channel) for what it is. Nothing happens until an end is opened.
#[derive(Clone, Debug)]
pub struct Channel {
    name: String,
    capacity: Option<u64>,
}

impl Channel {
    /// The channel that the operating system knows as `name`: 1 to 100 of the characters `A-Z`, `a-z`, `0-9`, `.`, `_`
    /// and `-`, and no `.` at the beginning. On Linux it is the file `/dev/shm/<name>`.
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), capacity: None }
    }

    /// Bytes of the ring, a power of two from 4 KiB to 1 GiB; 256 KiB, or what is there, if this is not called.
    ///
    /// A message takes its own bytes, rounded up to eight, and eight more; the longest one takes half of the ring.
    pub fn capacity(mut self, bytes: u64) -> Self {
        self.capacity = Some(bytes);
        self
    }

    /// Takes the sending end. Makes the channel if it does not exist, and goes on where a dead sender broke off.
    ///
    /// # Errors
    ///
    /// `Limit` names the process that has this end. `Mismatch` if the channel exists with another capacity; `NoSpace`
    /// if its memory cannot be reserved; `Permission` if it is somebody else's; `Corrupt` if it is damaged; `Invalid`
    /// for a bad name or capacity.
    pub fn sender(&self) -> Result<Sender> {
        let (core, writer) = self.open(End::Sender, Writer::recover)?;
        Ok(Sender::new(core, writer))
    }

    /// Takes the receiving end. Makes the channel if it does not exist, and begins with the first message that a dead
    /// receiver had not given back.
    ///
    /// # Errors
    ///
    /// As for [`sender`](Self::sender).
    pub fn receiver(&self) -> Result<Receiver> {
        let (core, reader) = self.open(End::Receiver, Reader::recover)?;
        Ok(Receiver::new(core, reader))
    }

    /// Removes the channel, with all that nobody has read. The name is free at once; ends that are open keep what they
    /// have, and nobody else finds them.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none.
    pub fn remove(&self) -> Result<()> {
        named::remove(&self.name)
    }

    /// Takes an end, and what `recover` makes of the ring.
    fn open<T>(
        &self,
        end: End,
        recover: fn(Stream) -> Result<T, stream::Corrupt>,
    ) -> Result<(Core, T)> {
        let capacity = self.capacity.unwrap_or(CHANNEL_BYTES_DEFAULT);
        check_capacity(capacity)?;
        // Another round only if the name was made or removed by somebody in between.
        loop {
            let Some(named) = Named::open(&self.name)? else {
                Named::create(&self.name)?;
                continue;
            };
            if !named.lock_builder(OPEN_PATIENCE)? {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "cannot open channel {named}: another process is opening or leaving it, and has not gone on \
                         for {} s; if it is stopped, let it go on or end it",
                        OPEN_PATIENCE.as_secs()
                    ),
                ));
            }
            if let Some(taken) = self.take(named, end, capacity, recover)? {
                return Ok(taken);
            }
        }
    }

    /// Takes an end under the lock of the builder, which is given back. Nothing if the name is to be opened again.
    fn take<T>(
        &self,
        named: Named,
        end: End,
        capacity: u64,
        recover: fn(Stream) -> Result<T, stream::Corrupt>,
    ) -> Result<Option<(Core, T)>> {
        step!("channel.look");
        if !named.is_named()? {
            return Ok(None);
        }
        let loss = Loss::default();
        let (region, found, mark) = if is_complete(&named)? {
            map_existing(&named, &loss)?
        } else {
            match build(&named, capacity, &loss) {
                Ok(built) => built,
                Err(error) => {
                    // Nothing half-made stays.
                    let _ = named.unlink();
                    return Err(error);
                }
            }
        };
        let stream = Stream::new(region, found as usize);
        if !named.try_lock(end.byte())? {
            return Err(taken(&named, end, &stream));
        }
        if self.capacity.is_some() && found != capacity {
            if named.is_held(end.other().byte()) || has_unread(&stream) {
                return Err(Error::new(
                    ErrorKind::Mismatch,
                    format!(
                        "channel {named} has a capacity of {found} bytes, {capacity} were asked for, and it is in use \
                         or holds messages; open it without a capacity, or remove it first"
                    ),
                ));
            }
            step!("channel.renew");
            named.unlink()?;
            return Ok(None);
        }
        prefault(stream.region(), 0, stream.region().len(), Access::Write);
        let recovered = recover(stream.clone());
        let recovered =
            recovered.map_err(|_| damaged(&named, "one of its words", "what no end writes"))?;
        loss.check(&named)?;
        let core = Core::new(stream, end, Some(named), loss, mark);
        core.enter();
        core.unlock_builder();
        Ok(Some((core, recovered)))
    }
}

/// The two ends of a channel of `capacity` bytes within this process: a power of two from 4 KiB to 1 GiB.
///
/// # Errors
///
/// `Invalid` for another capacity, `NoSpace` if there is not so much memory.
pub fn pair(capacity: u64) -> Result<(Sender, Receiver)> {
    check_capacity(capacity)?;
    let (path, bytes) = (Path::new("anonymous memory"), bytes_of(capacity));
    let file = new_memory_file(path)?;
    map::reserve(&file, path.display(), bytes)?;
    let loss = Loss::default();
    let region = map::map(&file, path.display(), Access::Write, bytes, &loss)?;
    prefault(&region, 0, region.len(), Access::Write);
    let mark = lay_out(&region, capacity);
    let stream = Stream::new(region, capacity as usize);
    let core = |end| {
        let core = Core::new(stream.clone(), end, None, loss.clone(), mark);
        core.enter();
        core
    };
    let (sender, receiver) = (core(End::Sender), core(End::Receiver));
    let damaged = |_| damaged("in memory", "one of its words", "what no end writes");
    let writer = Writer::recover(stream.clone()).map_err(damaged)?;
    let reader = Reader::recover(stream.clone()).map_err(damaged)?;
    Ok((Sender::new(sender, writer), Receiver::new(receiver, reader)))
}

fn bytes_of(capacity: u64) -> u64 {
    file_bytes(capacity as usize, END_BYTES)
}

fn check_capacity(capacity: u64) -> Result<()> {
    let allowed = CHANNEL_BYTES_MIN..=CHANNEL_BYTES_MAX;
    if capacity.is_power_of_two() && allowed.contains(&capacity) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "the capacity of a channel cannot be {capacity} bytes: it is a power of two from {CHANNEL_BYTES_MIN} to \
             {CHANNEL_BYTES_MAX}"
        ),
    ))
}

/// Whether somebody has completed the file. What is not complete, and not that of another program, has a dead maker.
fn is_complete(named: &Named) -> Result<bool> {
    if named.peek(READY_AT) != 0 {
        return Ok(true);
    }
    let is_ours = named.peek(0) == MAGIC || named.is_blank()?;
    let is_used = named.is_held(Byte::Sender) || named.is_held(Byte::Receiver);
    if is_ours && !is_used {
        return Ok(false);
    }
    let found = if is_ours { "0 while it is in use" } else { "that of another program" };
    Err(damaged(named, "the word that says that it is complete", found))
}

/// Maps a complete file: its region, its capacity and the mark at its end.
fn map_existing(named: &Named, loss: &Loss) -> Result<(Region, u64, u64)> {
    let len = named.len()?;
    if len < bytes_of(CHANNEL_BYTES_MIN) || len > bytes_of(CHANNEL_BYTES_MAX) {
        return Err(damaged(named, "its length", len));
    }
    let region = named.map(len, loss)?;
    let header = Header::read(&region, Kind::Channel, named)?;
    let capacity = header.fields[0];
    let is_sound = check_capacity(capacity).is_ok() && bytes_of(capacity) == len;
    // Relaxed: under the lock of the builder.
    let ready = region.word(READY_AT).load(Relaxed);
    if !is_sound || ready != header.identity {
        return Err(damaged(named, "its capacity or its identity", capacity));
    }
    Ok((region, capacity, header.identity))
}

/// Makes the file: all that a dead maker left is gone.
fn build(named: &Named, capacity: u64, loss: &Loss) -> Result<(Region, u64, u64)> {
    let bytes = bytes_of(capacity);
    step!("channel.blank");
    named.blank(bytes)?;
    let region = named.map(bytes, loss)?;
    let mark = lay_out(&region, capacity);
    Ok((region, capacity, mark))
}

/// Writes the words of a channel into zeroes; returns the mark at its end.
fn lay_out(region: &Region, capacity: u64) -> u64 {
    let identity = new_identity().max(1);
    let mut fields = [0; FIELDS];
    fields[0] = capacity;
    Header { kind: Kind::Channel, file_bytes: region.len() as u64, identity, fields }.write(region);
    step!("channel.ready");
    // CLOSE: whoever sees it, under the lock of the builder, sees the header.
    region.word(READY_AT).store(identity, Release);
    debug_assert_eq!(region.last(), identity, "the header ends the file with its identity");
    identity
}

fn taken(named: &Named, end: End, stream: &Stream) -> Error {
    let who = match end.found(stream, own_namespace()) {
        Some((_, process)) => format!("{process} has it"),
        None => "a living process has it".to_owned(),
    };
    let end = end.name();
    Error::new(
        ErrorKind::Limit,
        format!(
            "cannot be the {end} of channel {named}: {who}, and a channel has one {end} at a time; let it leave, or \
             use another name"
        ),
    )
}

fn damaged(name: impl std::fmt::Display, field: &str, found: impl std::fmt::Display) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "channel {name} is damaged, or not a channel: {field} is {found}; to start over, remove it \
             (Channel::remove, or the file)"
        ),
    )
}

const _: () = assert!(READY_AT + 8 <= HEADER_BYTES);
