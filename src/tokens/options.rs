//! Creating and opening a queue of tokens.

use super::TokenQueue;
use crate::bus::Member;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::header::{Header, Kind};
use crate::layout::token::{Form, TokenShape};
use crate::limits::{HEADER_BYTES, TOKENS_DEFAULT, TOKENS_MAX, TOKEN_BITS_DEFAULT, TOKEN_BITS_MAX};
use crate::ring::tokens::Tokens;
use crate::shm::home::{folder_mode, Created, Folder, Home};
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use std::fmt;
use std::sync::Arc;

/// The file of a queue, in its folder.
const RING: &str = "ring";

/// Names a queue of tokens and its options; made by [`Bus::tokens`](crate::Bus::tokens).
///
/// Options that are not set take their default when the queue is created, and whatever it has when it is opened. An
/// option that *is* set and differs from that of an existing queue is an error that names it and both values.
#[must_use = "a builder does nothing until open, create or open_existing"]
pub struct TokenQueueBuilder {
    member: Arc<Member>,
    name: String,
    capacity: Option<u64>,
    token_bits: Option<u32>,
    mode: Option<u32>,
}

impl TokenQueueBuilder {
    pub(crate) fn new(member: Arc<Member>, name: &str) -> Self {
        Self { member, name: name.to_owned(), capacity: None, token_bits: None, mode: None }
    }

    /// Most tokens in the queue at a time: a power of two from 1 to 2^26, 1024 by default.
    pub fn capacity(self, tokens: u64) -> Self {
        Self { capacity: Some(tokens), ..self }
    }

    /// Bits of a token: 1 to 47, 32 by default. The fewer, the more laps can be told apart; see
    /// [`TokenQueue`](TokenQueue#which-tokens).
    pub fn token_bits(self, bits: u32) -> Self {
        Self { token_bits: Some(bits), ..self }
    }

    /// Permission bits of the file: 0600 by default; 0660 lets the group take part.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Opens the queue, creating it if it does not exist.
    ///
    /// # Errors
    ///
    /// `Invalid` for an option outside its range, `Mismatch` if the queue exists with another value of an option that
    /// was set, `NoSpace` if memory cannot be reserved.
    pub fn open(self) -> Result<TokenQueue> {
        let shape = self.shape()?;
        self.try_create(shape)?;
        self.attach()
    }

    /// Creates the queue.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it exists; otherwise as for [`open`](Self::open).
    pub fn create(self) -> Result<TokenQueue> {
        let shape = self.shape()?;
        match self.try_create(shape)? {
            Created::Mine(_) => self.attach(),
            Created::Theirs => {
                let (name, bus) = (&self.name, self.member.folder());
                let text = format!("token queue {name} of bus {bus} exists already");
                Err(Error::new(ErrorKind::AlreadyExists, text))
            }
        }
    }

    /// Opens the queue, which must exist.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; otherwise as for [`open`](Self::open).
    pub fn open_existing(self) -> Result<TokenQueue> {
        self.shape()?;
        self.attach()
    }

    fn shape(&self) -> Result<TokenShape> {
        self.member.check_process()?;
        crate::shm::home::check_name("token queue", &self.name)?;
        let capacity = self.capacity.unwrap_or(TOKENS_DEFAULT);
        let bits = self.token_bits.unwrap_or(TOKEN_BITS_DEFAULT);
        check_options(&format!("token queue {}", self.name), capacity, bits)?;
        let mode = match self.mode {
            Some(mode) => mode,
            None => self.member.folder().default_mode()?,
        };
        if mode & 0o600 != 0o600 || mode & !0o660 != 0 {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "token queue {}: mode is {mode:04o}, expected 0600, or 0660 for a group",
                    self.name
                ),
            ));
        }
        Ok(TokenShape { capacity, form: Form::new(bits), mode })
    }

    fn try_create(&self, shape: TokenShape) -> Result<Created> {
        // A group that may use the file must reach it: execute follows read.
        let build = |folder: &Folder| build(folder, shape);
        self.member.folder().create_folder_atomically(
            &folder_name(&self.name),
            folder_mode(shape.mode),
            build,
        )
    }

    fn attach(&self) -> Result<TokenQueue> {
        let folder = find(&self.member, &self.name)?;
        let (queue, shape) = attach(&folder, Access::Write)?;
        self.same("capacity", self.capacity, shape.capacity)?;
        self.same("token_bits", self.token_bits, shape.form.token_bits())?;
        let octal = |mode| format!("{mode:04o}");
        self.same("mode", self.mode.map(octal), octal(shape.mode))?;
        Ok(queue)
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
                    "token queue {} exists with {option} {stored}, not {wanted}; open it without \
                     that option, or remove it first",
                    self.name
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Refuses options outside their ranges.
fn check_options(what: &str, capacity: u64, token_bits: u32) -> Result<()> {
    let invalid = |text: String| Err(Error::new(ErrorKind::Invalid, text));
    if !capacity.is_power_of_two() || capacity > TOKENS_MAX {
        return invalid(format!(
            "{what}: capacity is {capacity}, expected a power of two from 1 to {TOKENS_MAX}"
        ));
    }
    if !(1..=TOKEN_BITS_MAX).contains(&token_bits) {
        return invalid(format!(
            "{what}: token_bits is {token_bits}, expected from 1 to {TOKEN_BITS_MAX}"
        ));
    }
    Ok(())
}

/// A queue that nobody else can open.
pub fn anonymous(home: &Home, capacity: u64, token_bits: u32) -> Result<TokenQueue> {
    check_options("token queue", capacity, token_bits)?;
    let shape = TokenShape { capacity, form: Form::new(token_bits), mode: 0o600 };
    let (folder, _) = home.open_bus(0o700, |folder| build(folder, shape))?;
    attach(&folder, Access::Write).map(|(queue, _)| queue)
}

/// Makes the file of a new queue.
fn build(folder: &Folder, shape: TokenShape) -> Result<()> {
    let header = shape.to_header(crate::bus::new_identity());
    folder.create_file_atomically(RING, header.file_bytes, shape.mode, |region| {
        // The zeroes of the file are an empty ring.
        header.write(region);
        Ok(())
    })?;
    Ok(())
}

fn folder_name(name: &str) -> String {
    format!("{name}.tokens")
}

/// The folder of a queue that exists.
pub fn find(member: &Member, name: &str) -> Result<Folder> {
    let bus = member.folder();
    bus.open_folder(&folder_name(name)).map_err(|error| match error.kind() {
        ErrorKind::NotFound => {
            let text = format!("bus {bus} has no token queue {name}; create it first");
            Error::new(ErrorKind::NotFound, text)
        }
        _ => error,
    })
}

/// Maps the file of a queue. Who only looks touches no page.
pub fn attach(folder: &Folder, access: Access) -> Result<(TokenQueue, TokenShape)> {
    let what = format!("{folder}/{RING}");
    let file = folder.open_file(RING, access)?;
    let len = file.metadata().map_err(|error| Error::io(&what, error))?.len();
    let most = TokenShape::file_bytes(TOKENS_MAX);
    if len > most {
        return Err(Error::corrupt(what, "its length", len, format!("at most {most}")));
    }
    let loss = Loss::default();
    let region = map::map(&file, &what, access, len, &loss)?;
    let header = Header::read(&region, Kind::Tokens, &what)?;
    let shape = TokenShape::from_header(&header, &what)?;
    if let Access::Write = access {
        map::prefault(&region, 0, region.len(), access);
    }
    let ring = Tokens::new(region, HEADER_BYTES, shape.capacity, shape.form);
    let identity = header.identity;
    Ok((TokenQueue { ring, form: shape.form, identity, loss }, shape))
}
