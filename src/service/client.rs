//! Calling: a request that is built in place, and the response to it, read where the server built it.

use crate::error::Result;
use crate::message::FrameSegments;
use crate::service::caller::{Caller, Found, Open};
use crate::service::core::Core;
use crate::service::outcome::CallError;
use crate::topic::loan::Construction;
use crate::topic::{Payload, Raw};
use std::cell::OnceCell;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

/// A client of a service.
///
/// It has a fixed number of calls that can be pending at a time ([`calls`](crate::ServiceBuilder::calls)); a response
/// that is still held counts, too. Several clients of one process do not disturb each other.
///
/// Dropping it gives up what it has not received.
pub struct Client<Req: Payload, Resp: Payload> {
    caller: Caller,
    messages: PhantomData<fn(Req) -> Resp>,
}

impl<Req: Payload, Resp: Payload> Client<Req, Resp> {
    pub(super) fn join(core: Arc<Core>) -> Result<Self> {
        Ok(Self { caller: Caller::join(core)?, messages: PhantomData })
    }

    /// The slot of this client.
    pub fn slot(&self) -> u32 {
        self.caller.lane() as u32
    }

    /// Bytes that a request may have.
    pub fn request_bytes_max(&self) -> usize {
        self.caller.core.shape.request_bytes as usize
    }
}

impl<Resp: Payload> Client<Raw, Resp> {
    /// Calls with a copy of `request`, and waits for the response for at most `deadline`.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    #[inline(always)]
    pub fn call(
        &self,
        request: &[u8],
        deadline: Duration,
    ) -> Result<Response<'_, Resp>, CallError> {
        self.begin(request)?.wait(deadline)
    }

    /// Makes a call with a copy of `request`, and does not wait for the response.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Busy`, `Closed`, `Forked`, `Corrupt`.
    #[inline(always)]
    pub fn begin(&self, request: &[u8]) -> Result<Pending<'_, Resp>, CallError> {
        Ok(Pending::new(self.caller.begin_bytes(request)?))
    }

    /// Makes a call with a request of `len` bytes that `fill` writes in place. They are whatever older requests left
    /// there: write all of them.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn begin_with(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<Pending<'_, Resp>, CallError> {
        let open = self.caller.begin(|draft| {
            if len > draft.capacity() {
                return Err(crate::service::space::Outgrown { need: len });
            }
            fill(draft.bytes(len));
            Ok(len)
        })?;
        Ok(Pending::new(open))
    }

    /// Calls with a copy of `request`, for any number of responses, each of which is waited for for at most `deadline`.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn stream(
        &self,
        request: &[u8],
        deadline: Duration,
    ) -> Result<ResponseStream<'_, Resp>, CallError> {
        Ok(ResponseStream::new(self.caller.begin_bytes(request)?, deadline))
    }
}

impl<Req, Resp> Client<Req, Resp>
where
    Req: capnp::traits::Owned + Payload<Building = Construction>,
    Resp: Payload,
{
    /// Calls with the request that `build` makes in place, and waits for the response for at most `deadline`.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    #[inline(always)]
    pub fn call(
        &self,
        build: impl FnOnce(Req::Builder<'_>),
        deadline: Duration,
    ) -> Result<Response<'_, Resp>, CallError> {
        self.begin(build)?.wait(deadline)
    }

    /// Makes a call with the request that `build` makes in place, and does not wait for the response.
    ///
    /// # Errors
    ///
    /// `TooLarge`, `Busy`, `Closed`, `Forked`, `Corrupt`.
    #[inline(always)]
    pub fn begin(
        &self,
        build: impl FnOnce(Req::Builder<'_>),
    ) -> Result<Pending<'_, Resp>, CallError> {
        Ok(Pending::new(self.caller.begin_built::<Req>(build)?))
    }

    /// Calls with the request that `build` makes in place, for any number of responses, each of which is waited for for
    /// at most `deadline`.
    ///
    /// # Errors
    ///
    /// As for [`begin`](Self::begin).
    pub fn stream(
        &self,
        build: impl FnOnce(Req::Builder<'_>),
        deadline: Duration,
    ) -> Result<ResponseStream<'_, Resp>, CallError> {
        Ok(ResponseStream::new(self.caller.begin_built::<Req>(build)?, deadline))
    }
}

impl<Req: Payload, Resp: Payload> fmt::Debug for Client<Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("service", &self.caller.core.name)
            .field("slot", &self.slot())
            .finish_non_exhaustive()
    }
}

/// A call that was made. Dropped = given up: the server that works on it is told.
pub struct Pending<'a, Resp: Payload> {
    open: Open<'a>,
    messages: PhantomData<fn() -> Resp>,
}

impl<'a, Resp: Payload> Pending<'a, Resp> {
    #[inline]
    fn new(open: Open<'a>) -> Self {
        Self { open, messages: PhantomData }
    }

    /// Waits for the response for at most `deadline`, and gives the call up after that.
    ///
    /// Of a call that is answered by a stream this is the first response.
    ///
    /// # Errors
    ///
    /// `Timeout`, `NoServer`, `ServerDied`, `Failed`, `Closed`, `Forked`, `Corrupt`. Some time after the service was
    /// closed a call that no server has begun is `Closed`; one that is worked on is still answered.
    #[inline(always)] // See `Caller::begin`.
    pub fn wait(mut self, deadline: Duration) -> Result<Response<'a, Resp>, CallError> {
        if self.open.is_spent() {
            return Err(spent());
        }
        let found = self.open.wait(deadline)?;
        Response::new(self.open, found)
    }

    /// The response if it is there; from then on there is nothing left to wait for.
    ///
    /// # Errors
    ///
    /// `ServerDied`, `Failed`, `Closed`, `Forked`, `Corrupt`.
    pub fn try_response(&mut self) -> Result<Option<Response<'a, Resp>>, CallError> {
        if self.open.is_spent() {
            return Ok(None);
        }
        let found = self.open.poll();
        if matches!(found, Ok(None)) && !self.open.is_over() {
            return Ok(None);
        }
        // With the call, which ends here if there is an error.
        let open = self.open.take();
        Response::new(open, found?).map(Some)
    }
}

impl<Resp: Payload> fmt::Debug for Pending<'_, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").field("is_spent", &self.open.is_spent()).finish_non_exhaustive()
    }
}

#[cold]
fn spent() -> CallError {
    CallError::Failed("its response was taken before".to_owned())
}

/// A response, read where the server built it. Its call is free when it is dropped.
pub struct Response<'a, Resp: Payload> {
    payload: &'a [u8],
    opened: Resp::Opened<'a>,
    open: Open<'a>,
}

#[cold]
fn nothing() -> CallError {
    CallError::Failed("the server ended its answer without a response".to_owned())
}

impl<'a, Resp: Payload> Response<'a, Resp> {
    #[inline(always)]
    fn new(open: Open<'a>, found: Option<Found<'a>>) -> Result<Self, CallError> {
        let Some(Found { payload }) = found else { return Err(nothing()) };
        Ok(Self { payload, opened: Resp::Opened::default(), open })
    }

    /// The payload.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.payload
    }
}

impl<'a, Resp: capnp::traits::Owned> Response<'a, Resp>
where
    Resp: Payload<Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>>,
{
    /// The message, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    #[inline]
    pub fn get(&self) -> capnp::Result<Resp::Reader<'_>> {
        let segments = FrameSegments::parse(self.payload).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }

    /// A validated copy on the heap: for those who do not trust the servers.
    ///
    /// # Errors
    ///
    /// If the payload is not a well-formed Cap'n Proto message, or its file was cut short.
    pub fn to_owned_message(&self) -> capnp::Result<capnp::message::TypedBuilder<Resp>> {
        owned::<Resp>(self.payload, self.open.core())
    }
}

impl<Resp: Payload> fmt::Debug for Response<'_, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response").field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}

pub(super) fn owned<T: capnp::traits::Owned>(
    payload: &[u8],
    core: &Core,
) -> capnp::Result<capnp::message::TypedBuilder<T>> {
    let copy = crate::message::to_owned_message(payload);
    match core.loss.happened() {
        false => copy,
        true => Err(crate::message::shortened()),
    }
}

/// The responses to a call, one after the other. Dropped before the last = given up.
///
/// The server is ahead by as many as the service allows ([`ahead`](crate::ServiceBuilder::ahead)), and then waits.
pub struct ResponseStream<'a, Resp: Payload> {
    open: Open<'a>,
    deadline: Duration,
    messages: PhantomData<fn() -> Resp>,
}

impl<'a, Resp: Payload> ResponseStream<'a, Resp> {
    fn new(open: Open<'a>, deadline: Duration) -> Self {
        Self { open, deadline, messages: PhantomData }
    }

    /// The next response, and a wait for it. `None` after the last one.
    ///
    /// # Errors
    ///
    /// As for [`Pending::wait`]. `ServerDied` comes after all responses that the server had committed.
    #[allow(clippy::should_implement_trait)] // A response borrows the stream.
    pub fn next(&mut self) -> Result<Option<StreamResponse<'_, Resp>>, CallError> {
        self.open.consume();
        let found = self.open.wait(self.deadline)?;
        Ok(found.map(|Found { payload }| StreamResponse {
            payload,
            opened: Resp::Opened::default(),
            core: self.open.core(),
        }))
    }
}

impl<Resp: Payload> fmt::Debug for ResponseStream<'_, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseStream")
            .field("service", &self.open.core().name)
            .finish_non_exhaustive()
    }
}

/// One of several responses to a call.
pub struct StreamResponse<'a, Resp: Payload> {
    payload: &'a [u8],
    opened: Resp::Opened<'a>,
    core: &'a Core,
}

impl<'a, Resp: Payload> StreamResponse<'a, Resp> {
    /// The payload.
    pub fn bytes(&self) -> &[u8] {
        self.payload
    }
}

impl<'a, Resp: capnp::traits::Owned> StreamResponse<'a, Resp>
where
    Resp: Payload<Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>>,
{
    /// The message, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    pub fn get(&self) -> capnp::Result<Resp::Reader<'_>> {
        let segments = FrameSegments::parse(self.payload).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }

    /// A validated copy on the heap: for those who do not trust the servers.
    ///
    /// # Errors
    ///
    /// If the payload is not a well-formed Cap'n Proto message, or its file was cut short.
    pub fn to_owned_message(&self) -> capnp::Result<capnp::message::TypedBuilder<Resp>> {
        owned::<Resp>(self.payload, self.core)
    }
}

impl<Resp: Payload> fmt::Debug for StreamResponse<'_, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamResponse").field("bytes", &self.payload.len()).finish_non_exhaustive()
    }
}
