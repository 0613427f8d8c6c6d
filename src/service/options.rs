//! The options of a service: set at creation, stored, and compared when it is opened again.

use crate::bus::Member;
use crate::error::{Error, ErrorKind, Result};
use crate::layout::service::{self as layout, Shape, Stored};
use crate::limits;
use crate::service::core::Core;
use crate::service::Service;
use crate::shm::home::{folder_mode, Created, Folder};
use crate::shm::map::Access;
use crate::sync::Ordering::Relaxed;
use crate::topic::Payload;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// Names a service and its options; made by [`Bus::service`](crate::Bus::service).
///
/// Options that are not set take their default when the service is created, and whatever it has when it is opened. An
/// option that *is* set and differs from that of an existing service is an error that names it and both values.
#[must_use = "a builder does nothing until open, create or open_existing"]
pub struct ServiceBuilder<Req: Payload, Resp: Payload> {
    member: Arc<Member>,
    name: String,
    request_bytes: Option<u32>,
    response_bytes: Option<u32>,
    calls: Option<u32>,
    ahead: Option<u32>,
    max_deliveries: Option<u32>,
    clients_max: Option<u32>,
    servers_max: Option<u32>,
    mode: Option<u32>,
    messages: PhantomData<fn(Req) -> Resp>,
}

impl<Req: Payload, Resp: Payload> ServiceBuilder<Req, Resp> {
    pub(crate) fn new(member: Arc<Member>, name: &str) -> Self {
        Self {
            member,
            name: name.to_owned(),
            request_bytes: None,
            response_bytes: None,
            calls: None,
            ahead: None,
            max_deliveries: None,
            clients_max: None,
            servers_max: None,
            mode: None,
            messages: PhantomData,
        }
    }

    /// Bytes that a request may have: 1024 by default, at most 1 GiB, rounded up to whole lines of memory.
    pub fn request_bytes(self, bytes: u32) -> Self {
        Self { request_bytes: Some(layout::whole_lines(bytes)), ..self }
    }

    /// Bytes that a response may have: 1024 by default, at most 1 GiB, rounded up to whole lines of memory.
    pub fn response_bytes(self, bytes: u32) -> Self {
        Self { response_bytes: Some(layout::whole_lines(bytes)), ..self }
    }

    /// Calls that a client may have at a time, those included whose responses it holds: 1 to 64, 16 by default.
    pub fn calls(self, calls: u32) -> Self {
        Self { calls: Some(calls), ..self }
    }

    /// Responses of a stream that a server may be ahead of its caller: 1 to 64, 4 by default. Every call reserves room
    /// for so many.
    pub fn ahead(self, responses: u32) -> Self {
        Self { ahead: Some(responses), ..self }
    }

    /// How often a call is delivered at most, to servers that die or give it back: 1 to 255, 5 by default.
    pub fn max_deliveries(self, deliveries: u32) -> Self {
        Self { max_deliveries: Some(deliveries), ..self }
    }

    /// Whether a call may be done twice, which is the default. If not, it is delivered once: when its server dies, the
    /// caller gets [`ServerDied`](crate::CallError::ServerDied).
    pub fn repeatable(self, repeatable: bool) -> Self {
        let deliveries = if repeatable { limits::DELIVERIES_DEFAULT } else { 1 };
        self.max_deliveries(deliveries)
    }

    /// Clients at a time: 1 to 1024, 32 by default. Each of them has room reserved for its calls.
    pub fn clients_max(self, clients: u32) -> Self {
        Self { clients_max: Some(clients), ..self }
    }

    /// Servers at a time: 1 to 1024, 32 by default.
    pub fn servers_max(self, servers: u32) -> Self {
        Self { servers_max: Some(servers), ..self }
    }

    /// Permission bits of the files: by default 0660 on a bus that is shared with a group, 0600 on any other.
    pub fn mode(self, mode: u32) -> Self {
        Self { mode: Some(mode), ..self }
    }

    /// Opens the service, creating it if it does not exist.
    ///
    /// # Errors
    ///
    /// `Invalid` for an option outside its range, `Mismatch` if the service exists with another value of an option that
    /// was set or with another type, `NoSpace` if memory cannot be reserved.
    pub fn open(self) -> Result<Service<Req, Resp>> {
        let (wanted, schemas) = self.shape()?;
        match self.try_create(&wanted, &schemas)? {
            Some(core) => Ok(Service::new(core)),
            None => self.attach(schemas),
        }
    }

    /// Creates the service.
    ///
    /// # Errors
    ///
    /// `AlreadyExists` if it exists; otherwise as for [`open`](Self::open).
    pub fn create(self) -> Result<Service<Req, Resp>> {
        let (wanted, schemas) = self.shape()?;
        match self.try_create(&wanted, &schemas)? {
            Some(core) => Ok(Service::new(core)),
            None => Err(Error::new(
                ErrorKind::AlreadyExists,
                format!(
                    "service {} of bus {} exists already; open it, or remove it first",
                    self.name,
                    self.member.folder()
                ),
            )),
        }
    }

    /// Opens the service, which must exist.
    ///
    /// # Errors
    ///
    /// `NotFound` if it does not exist; otherwise as for [`open`](Self::open).
    pub fn open_existing(self) -> Result<Service<Req, Resp>> {
        let (_, schemas) = self.shape()?;
        self.attach(schemas)
    }

    fn shape(&self) -> Result<(Shape, Schemas)> {
        self.member.check_process()?;
        crate::shm::home::check_name("service", &self.name)?;
        let name = &self.name;
        let invalid = |text: String| Error::new(ErrorKind::Invalid, text);
        let mode = match self.mode {
            Some(mode) => mode,
            None => self.member.folder().default_mode()?,
        };
        if mode & 0o600 != 0o600 || mode & !0o660 != 0 {
            return Err(invalid(format!(
                "service {name}: mode is {mode:04o}, expected 0600, or 0660 for a group"
            )));
        }
        let schemas = [Req::schema()?, Resp::schema()?];
        let stored = |schema: &Option<Vec<u8>>| {
            let bytes = schema.as_deref().unwrap_or_default();
            Stored {
                typed: schema.is_some(),
                bytes: bytes.len() as u32,
                crc: crc32fast::hash(bytes),
            }
        };
        let bytes = limits::CALL_BYTES_DEFAULT;
        let shape = Shape {
            clients_max: self.clients_max.unwrap_or(limits::CLIENTS_DEFAULT),
            servers_max: self.servers_max.unwrap_or(limits::SERVERS_DEFAULT),
            calls: self.calls.unwrap_or(limits::CALLS_DEFAULT),
            ahead: self.ahead.unwrap_or(limits::AHEAD_DEFAULT),
            deliveries_max: self.max_deliveries.unwrap_or(limits::DELIVERIES_DEFAULT),
            mode,
            request_bytes: self.request_bytes.unwrap_or(bytes),
            response_bytes: self.response_bytes.unwrap_or(bytes),
            schemas: [stored(&schemas[0]), stored(&schemas[1])],
        };
        shape.check().map_err(|(option, value, expected)| {
            invalid(format!("service {name}: {option} is {value}, expected {expected}"))
        })?;
        Ok((shape, schemas))
    }

    fn folder_name(&self) -> String {
        format!("{}.service", self.name)
    }

    /// Makes the service and opens it. `None` if it exists.
    fn try_create(&self, shape: &Shape, schemas: &Schemas) -> Result<Option<Arc<Core>>> {
        let bus = self.member.folder();
        if bus.exists(&self.folder_name())? {
            return Ok(None);
        }
        let mut opened = None;
        let identity = crate::bus::new_identity();
        let build = |folder: &Folder| {
            let data = shape.data_header(identity);
            folder.create_file_atomically("data", data.file_bytes, shape.mode, |region| {
                data.write(region);
                Ok(())
            })?;
            let header = shape.to_header(identity);
            folder.create_file_atomically("control", header.file_bytes, shape.mode, |region| {
                for (which, schema) in schemas.iter().enumerate() {
                    let bytes = schema.as_deref().unwrap_or_default();
                    for (index, chunk) in bytes.chunks(8).enumerate() {
                        let mut word = [0; 8];
                        word[..chunk.len()].copy_from_slice(chunk);
                        let at = shape.schema_at(which) + index * 8;
                        // Relaxed: published by the rename.
                        region.word(at).store(u64::from_le_bytes(word), Relaxed);
                    }
                }
                header.write(region);
                Ok(())
            })?;
            // Before it has its name: either there is a service and it is open, or there is none.
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

    fn attach(&self, schemas: Schemas) -> Result<Service<Req, Resp>> {
        let bus = self.member.folder();
        let folder = bus.open_folder(&self.folder_name()).map_err(|error| match error.kind() {
            ErrorKind::NotFound => {
                let text = format!("bus {bus} has no service {}; create it first", self.name);
                Error::new(ErrorKind::NotFound, text)
            }
            _ => error,
        })?;
        let core = Core::open(&self.name, folder, self.member.clone(), Access::Write)?;
        self.compare(&core, schemas)?;
        Ok(Service::new(core))
    }

    /// Compares the options that were set with those of the service.
    fn compare(&self, core: &Core, schemas: Schemas) -> Result<()> {
        let shape = &core.shape;
        self.same("request_bytes", self.request_bytes, shape.request_bytes)?;
        self.same("response_bytes", self.response_bytes, shape.response_bytes)?;
        self.same("calls", self.calls, shape.calls)?;
        self.same("ahead", self.ahead, shape.ahead)?;
        self.same("max_deliveries", self.max_deliveries, shape.deliveries_max)?;
        self.same("clients_max", self.clients_max, shape.clients_max)?;
        self.same("servers_max", self.servers_max, shape.servers_max)?;
        let octal = |mode| format!("{mode:04o}");
        self.same("mode", self.mode.map(octal), octal(shape.mode))?;
        for (which, mine) in schemas.into_iter().enumerate() {
            let stored = core.schema_bytes(which)?;
            match (mine, shape.schemas[which].typed) {
                (None, false) => {}
                (Some(mine), true) if mine == stored => {}
                (Some(mine), true) => {
                    crate::message::check_schemas(&self.name, &stored, &mine)?;
                }
                (mine, typed) => {
                    let kind = |typed| if typed { "Cap'n Proto messages" } else { "raw bytes" };
                    let what = ["requests", "responses"][which];
                    let (stored, mine) = (kind(typed), kind(mine.is_some()));
                    let name = &self.name;
                    let text = format!("the {what} of service {name} are {stored}, not {mine}");
                    return Err(Error::new(ErrorKind::Mismatch, text));
                }
            }
        }
        Ok(())
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
                    "service {} exists with {option} {stored}, not {wanted}; open it without that \
                     option, or remove it first",
                    self.name
                ),
            )),
            _ => Ok(()),
        }
    }
}

/// Of requests and responses; `None` for bytes.
type Schemas = [Option<Vec<u8>>; 2];
