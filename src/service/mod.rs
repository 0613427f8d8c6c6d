//! Request and response: a call goes to one of any number of servers, and the response comes back to its caller.

mod call;
mod caller;
mod client;
pub(crate) mod core;
mod inspect;
mod options;
mod outcome;
mod server;
mod space;

pub use call::{Call, ReplyStream};
pub use client::{Client, Pending, Response, ResponseStream, StreamResponse};
pub use inspect::{ServiceInfo, ServiceMember};
pub use options::ServiceBuilder;
pub use outcome::{CallError, ReplyError, ServeError};
pub use server::Server;

pub(crate) use inspect::{inspect, repair};

use crate::error::Result;
use crate::topic::Payload;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// An open service of a bus: where clients and servers come from.
///
/// A client builds a request in a call of its own, and whichever server is free first takes it, reads it in place, and
/// builds the response where the client will read it. `Req` and `Resp` are [`Raw`](crate::Raw) for bytes or the `Owned`
/// types of Cap'n Proto structs.
///
/// # If a process dies
///
/// If a server dies before it has answered, the call is delivered to another one, which is told
/// ([`Call::delivery`]); after the last delivery, or at once if the service is not
/// [`repeatable`](ServiceBuilder::repeatable), the caller gets [`CallError::ServerDied`]. A stream that has begun is
/// not repeated. If a client dies, or gives a call up, the server is told when it answers, or asks
/// ([`Call::is_abandoned`]). Only the word of the kernel counts as a death: a call that a stopped server has stays with
/// it, and its caller waits until its deadline.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use windlass::{Bus, Raw, Wait};
///
/// let bus = Bus::anonymous()?; // Bus::open("market")? for processes
/// let service = bus.service::<Raw, Raw>("reverse").open()?;
/// let mut server = service.server()?;
/// let thread = std::thread::spawn(move || -> Result<(), windlass::ServeError> {
///     while let Some(call) = server.take(Wait::Block)? {
///         let reversed: Vec<u8> = call.bytes().iter().rev().copied().collect();
///         // That nobody waits any more is the caller's choice.
///         let _ = call.reply(&reversed);
///     }
///     Ok(())
/// });
///
/// let client = service.client()?;
/// let response = client.call(b"abc", Duration::from_secs(5))?;
/// assert_eq!(response.bytes(), b"cba");
/// service.close();
/// thread.join().expect("it does not panic")?;
/// # Ok(()) }
/// ```
pub struct Service<Req: Payload, Resp: Payload> {
    core: Arc<core::Core>,
    messages: PhantomData<fn(Req) -> Resp>,
}

impl<Req: Payload, Resp: Payload> Clone for Service<Req, Resp> {
    fn clone(&self) -> Self {
        Self { core: self.core.clone(), messages: PhantomData }
    }
}

impl<Req: Payload, Resp: Payload> Service<Req, Resp> {
    pub(crate) fn new(core: Arc<core::Core>) -> Self {
        Self { core, messages: PhantomData }
    }

    /// The name of the service.
    pub fn name(&self) -> &str {
        &self.core.name
    }

    /// Becomes a client.
    ///
    /// # Errors
    ///
    /// `Limit` if `clients_max` living clients exist; `Corrupt` if the service is damaged.
    pub fn client(&self) -> Result<Client<Req, Resp>> {
        Client::join(self.core.clone())
    }

    /// Becomes a server.
    ///
    /// # Errors
    ///
    /// `Limit` if `servers_max` living servers exist; `Corrupt` if the service is damaged.
    pub fn server(&self) -> Result<Server<Req, Resp>> {
        Server::join(self.core.clone())
    }

    /// Ends the service: clients get [`CallError::Closed`] for calls that no server has begun, servers answer what is
    /// there and then get `None`.
    ///
    /// In a child of `fork` this does nothing. Closing is for good.
    pub fn close(&self) {
        if self.core.member.check_process().is_ok() {
            self.core.close();
        }
    }

    /// Whether the service was closed.
    pub fn is_closed(&self) -> bool {
        self.core.is_closed()
    }

    /// Options, members, calls and counters, as they are now.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the service is damaged, `Forked`.
    pub fn info(&self) -> Result<ServiceInfo> {
        self.core.member.check_process()?;
        inspect(&self.core)
    }
}

impl<Req: Payload, Resp: Payload> fmt::Debug for Service<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name()).finish_non_exhaustive()
    }
}
