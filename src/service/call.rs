//! Answering: one response or several, built where the caller reads them, each committed by one store.

use crate::layout::call::End;
use crate::layout::owner::Owner;
use crate::layout::service as layout;
use crate::limits::ROUND_MS;
use crate::message::FrameSegments;
use crate::ring::calls::{Held, Outcome};
use crate::service::caller::follow;
use crate::service::client::owned;
use crate::service::outcome::ReplyError;
use crate::service::server::Server;
use crate::service::space::{self, Draft, Outgrown};
use crate::topic::loan::Construction;
use crate::topic::patience::{Patience, Pause};
use crate::topic::{Payload, Raw};
use std::cell::OnceCell;
use std::fmt;
use std::time::{Duration, Instant};

/// A call that this server has. Dropped without an answer = given back, and delivered again.
pub struct Call<'a, Req: Payload, Resp: Payload> {
    server: &'a Server<Req, Resp>,
    held: Held,
    /// Who owned the lane of the call when it was taken.
    owner: Owner,
    lane: usize,
    request: &'a [u8],
    opened: Req::Opened<'a>,
    /// Responses that were committed; [`DONE`] after the last one.
    index: u64,
}

/// More responses than a call can have.
const DONE: u64 = u64::MAX;

impl<'a, Req: Payload, Resp: Payload> Call<'a, Req, Resp> {
    #[inline(always)]
    pub(super) fn new(server: &'a Server<Req, Resp>, held: Held, request: &'a [u8]) -> Self {
        let lane = (held.call() as u32 / server.core.shape.calls) as usize;
        let owner = server.core.clients.owner(lane);
        let opened = Req::Opened::default();
        Self { server, held, owner, lane, request, opened, index: 0 }
    }

    /// The payload of the request.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.request
    }

    /// How often the call was delivered, this time included: 1 unless a server before died or gave it back. What that
    /// one did is not known.
    pub fn delivery(&self) -> u32 {
        self.held.word.deliveries() + 1
    }

    /// The node of the caller.
    pub fn caller(&self) -> u32 {
        self.owner.node()
    }

    /// Whether nobody waits for the answer any more: the caller gave the call up or is dead, by the word of the kernel.
    pub fn is_abandoned(&self) -> bool {
        self.is_given_up() || !self.server.core.member.is_alive(self.owner.node())
    }

    #[inline]
    fn is_given_up(&self) -> bool {
        let Server { core, calls, .. } = self.server;
        calls.is_given_up(self.held.call(), self.held.word)
            || core.clients.owner(self.lane) != self.owner
    }

    fn check(&self) -> Result<(), ReplyError> {
        if self.server.is_inherited() {
            return Err(ReplyError::Forked);
        }
        if self.server.core.loss.happened() {
            return Err(ReplyError::Corrupt);
        }
        Ok(())
    }

    /// Commits the next response.
    #[inline]
    fn commit(&mut self, len: usize, end: End) -> Result<(), ReplyError> {
        self.check()?;
        let Server { core, calls, bells, .. } = self.server;
        space::settle(calls, &mut self.held, self.index, len);
        calls.answer(&self.held, self.index, len as u32, end);
        let mut abandoned = self.is_given_up();
        let bells = &bells[self.lane];
        if bells.hint().is_set() {
            abandoned |= !core.member.is_alive(self.owner.node());
            core.wake_one(bells);
        }
        self.index += 1;
        if end != End::More {
            self.index = DONE;
            calls.remove_entry(&mut self.held);
        }
        match abandoned {
            true => Err(ReplyError::Abandoned),
            false => Ok(()),
        }
    }

    /// Writes the next response by `fill`, which returns its length.
    #[inline]
    fn draft<R>(&mut self, fill: impl FnOnce(&mut Draft<'_>, usize) -> R) -> R {
        let estimate = self.server.estimate.get();
        fill(&mut Draft::of_response(&self.server.calls, &mut self.held, self.index), estimate)
    }

    fn too_large(&self, outgrown: Outgrown) -> ReplyError {
        let max = self.server.core.shape.response_bytes.into();
        ReplyError::TooLarge { need: outgrown.need as u64, max }
    }

    /// Answers with one response, which `fill` writes.
    #[inline]
    fn answer(
        mut self,
        fill: impl FnOnce(&mut Draft<'_>, usize) -> Result<usize, Outgrown>,
    ) -> Result<(), ReplyError> {
        self.check()?;
        match self.draft(fill) {
            Ok(len) => self.commit(len, End::Last),
            Err(outgrown) => {
                let error = self.too_large(outgrown);
                self.fail(error)?;
                Err(error)
            }
        }
    }

    /// Answers that the call failed, and why: as much of the text as a response may have bytes.
    ///
    /// # Errors
    ///
    /// As for `reply`.
    pub fn fail(mut self, why: impl fmt::Display) -> Result<(), ReplyError> {
        self.commit_failure(&why.to_string())
    }

    fn commit_failure(&mut self, why: &str) -> Result<(), ReplyError> {
        self.check()?;
        let len = self.draft(|draft, _| {
            let len = (0..=draft.capacity().min(why.len()))
                .rev()
                .find(|len| why.is_char_boundary(*len))
                .unwrap_or(0);
            draft.bytes(len).copy_from_slice(&why.as_bytes()[..len]);
            len
        });
        self.commit(len, End::Failed)
    }

    /// Answers with several responses. While the caller is as many behind as the service allows
    /// ([`ahead`](crate::ServiceBuilder::ahead)), sending waits.
    pub fn stream(self) -> ReplyStream<'a, Req, Resp> {
        ReplyStream { call: self }
    }

    fn give_back(&mut self) {
        let Server { core, calls, .. } = self.server;
        let is_wanted = !self.is_abandoned();
        match calls.give_back(&mut self.held, is_wanted) {
            Outcome::Again => {
                core.count(layout::REDELIVERED_AT, 1);
                core.announce();
            }
            Outcome::Dead => {
                core.count(layout::DIED_AT, usize::from(is_wanted));
                core.wake_one(&self.server.bells[self.lane]);
            }
            // It is not ours any more.
            _ => {}
        }
    }
}

impl<Req: Payload, Resp: Payload> Drop for Call<'_, Req, Resp> {
    fn drop(&mut self) {
        if self.index != DONE && !self.server.is_inherited() {
            self.give_back();
        }
    }
}

impl<'a, Req: capnp::traits::Owned, Resp: Payload> Call<'a, Req, Resp>
where
    Req: Payload<Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>>,
{
    /// The request, read in place.
    ///
    /// # Errors
    ///
    /// If the payload is not a Cap'n Proto message.
    #[inline]
    pub fn get(&self) -> capnp::Result<Req::Reader<'_>> {
        let segments = FrameSegments::parse(self.request).map_err(crate::message::malformed)?;
        self.opened.get_or_init(|| crate::message::reader(segments)).get_root()
    }

    /// A validated copy of the request on the heap: for those who do not trust the clients.
    ///
    /// # Errors
    ///
    /// If the payload is not a well-formed Cap'n Proto message, or its file was cut short.
    pub fn to_owned_message(&self) -> capnp::Result<capnp::message::TypedBuilder<Req>> {
        owned::<Req>(self.request, &self.server.core)
    }
}

impl<Req: Payload> Call<'_, Req, Raw> {
    /// Answers with a copy of `response`.
    ///
    /// # Errors
    ///
    /// `Abandoned` if nobody waits for it, as far as that is known without asking the kernel for each answer;
    /// `TooLarge`; `Forked`, `Corrupt`.
    #[inline]
    pub fn reply(self, response: &[u8]) -> Result<(), ReplyError> {
        self.answer(|draft, _| draft.copy(response))
    }

    /// Answers with a response of `len` bytes that `fill` writes in place. They are whatever older responses left
    /// there: write all of them.
    ///
    /// # Errors
    ///
    /// As for [`reply`](Self::reply).
    pub fn reply_with(self, len: usize, fill: impl FnOnce(&mut [u8])) -> Result<(), ReplyError> {
        self.answer(|draft, _| {
            if len > draft.capacity() {
                return Err(Outgrown { need: len });
            }
            fill(draft.bytes(len));
            Ok(len)
        })
    }
}

impl Call<'_, Raw, Raw> {
    /// Answers with what `handler` makes of the request: it is given that and the space for the response, and returns
    /// how much of it is written, or why the call fails.
    ///
    /// # Errors
    ///
    /// As for [`reply`](Self::reply).
    pub fn respond<E: fmt::Display>(
        mut self,
        handler: impl FnOnce(&[u8], &mut [u8]) -> Result<usize, E>,
    ) -> Result<(), ReplyError> {
        self.check()?;
        let request = self.request;
        let written = self.draft(|draft, _| {
            let capacity = draft.capacity();
            handler(request, draft.bytes(capacity)).map(|len| (len, capacity))
        });
        match written {
            Ok((len, capacity)) if len <= capacity => self.commit(len, End::Last),
            Ok((len, _)) => {
                let error = self.too_large(Outgrown { need: len });
                self.fail(error)?;
                Err(error)
            }
            Err(why) => self.fail(why),
        }
    }
}

impl<Req, Resp> Call<'_, Req, Resp>
where
    Req: Payload,
    Resp: capnp::traits::Owned + Payload<Building = Construction>,
{
    /// Answers with the response that `build` makes in place.
    ///
    /// # Errors
    ///
    /// `Abandoned` if nobody waits for it, as far as that is known without asking the kernel for each answer;
    /// `TooLarge`; `Forked`, `Corrupt`.
    #[inline]
    pub fn reply(self, build: impl FnOnce(Resp::Builder<'_>)) -> Result<(), ReplyError> {
        let kept = &self.server.estimate;
        self.answer(|draft, estimate| {
            let (len, ()) = draft.build::<Resp, ()>(estimate, build)?;
            kept.set(follow(estimate, len));
            Ok(len)
        })
    }
}

impl<Req, Resp> Call<'_, Req, Resp>
where
    Req: capnp::traits::Owned + Payload,
    Resp: capnp::traits::Owned + Payload<Building = Construction>,
{
    /// Answers with what `handler` makes of the request, both in place, or why the call fails.
    ///
    /// # Errors
    ///
    /// As for [`reply`](Self::reply).
    pub fn respond(
        mut self,
        handler: impl FnOnce(Req::Reader<'_>, Resp::Builder<'_>) -> capnp::Result<()>,
    ) -> Result<(), ReplyError> {
        self.check()?;
        let segments = FrameSegments::parse(self.request).map_err(crate::message::malformed);
        let reader = match segments.map(crate::message::reader) {
            Ok(reader) => reader,
            Err(error) => return self.fail(error),
        };
        let request = match reader.get_root::<Req::Reader<'_>>() {
            Ok(request) => request,
            Err(error) => return self.fail(error),
        };
        let kept = &self.server.estimate;
        let built = self.draft(|draft, estimate| {
            let (len, result) =
                draft.build::<Resp, _>(estimate, |built| handler(request, built))?;
            kept.set(follow(estimate, len));
            Ok(result.map(|()| len))
        });
        match built {
            Ok(Ok(len)) => self.commit(len, End::Last),
            Ok(Err(why)) => self.fail(why),
            Err(outgrown) => {
                let error = self.too_large(outgrown);
                self.fail(error)?;
                Err(error)
            }
        }
    }
}

impl<Req: Payload, Resp: Payload> fmt::Debug for Call<'_, Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("bytes", &self.request.len())
            .field("delivery", &self.delivery())
            .finish_non_exhaustive()
    }
}

/// An answer of several responses. Dropped before [`finish`](Self::finish), the caller is told that it is not complete;
/// if nothing was sent, the call is delivered again.
pub struct ReplyStream<'a, Req: Payload, Resp: Payload> {
    call: Call<'a, Req, Resp>,
}

impl<'a, Req: Payload, Resp: Payload> ReplyStream<'a, Req, Resp> {
    /// The call that is answered.
    pub fn call(&self) -> &Call<'a, Req, Resp> {
        &self.call
    }

    /// Waits for room for one more response.
    fn room(&self, patience: Patience) -> Result<(), ReplyError> {
        let call = &self.call;
        let mut pause = Pause::new();
        let mut asked = Instant::now();
        while !call.server.calls.has_room(&call.held, call.index) {
            call.check()?;
            let asks = asked.elapsed() >= Duration::from_millis(ROUND_MS);
            if call.is_given_up() || asks && call.is_abandoned() {
                return Err(ReplyError::Abandoned);
            }
            if asks {
                call.server.core.probe([call.server.calls.parts().region.last()]);
                asked = Instant::now();
            }
            if !pause.wait(patience) {
                return Err(ReplyError::Full);
            }
        }
        call.check()
    }

    fn push(
        &mut self,
        patience: Patience,
        fill: impl FnOnce(&mut Draft<'_>, usize) -> Result<usize, Outgrown>,
    ) -> Result<(), ReplyError> {
        self.room(patience)?;
        match self.call.draft(fill) {
            Ok(len) => self.call.commit(len, End::More),
            Err(outgrown) => Err(self.call.too_large(outgrown)),
        }
    }

    /// Says that the response before was the last one, as soon as there is room to say so.
    ///
    /// # Errors
    ///
    /// `Abandoned`, `Forked`, `Corrupt`.
    pub fn finish(mut self) -> Result<(), ReplyError> {
        self.room(Patience::Forever)?;
        self.call.commit(0, End::Done)
    }

    /// Says that the answer ends here because something went wrong, and what.
    ///
    /// # Errors
    ///
    /// As for [`finish`](Self::finish).
    pub fn fail(mut self, why: impl fmt::Display) -> Result<(), ReplyError> {
        self.room(Patience::Forever)?;
        self.call.commit_failure(&why.to_string())
    }
}

impl<Req: Payload> ReplyStream<'_, Req, Raw> {
    /// Sends a copy of `response`, and waits until there is room for it.
    ///
    /// # Errors
    ///
    /// `Abandoned` if nobody waits for it; `TooLarge`, and nothing was sent; `Forked`, `Corrupt`.
    pub fn send(&mut self, response: &[u8]) -> Result<(), ReplyError> {
        self.push(Patience::Forever, |draft, _| draft.copy(response))
    }

    /// Sends a copy of `response`, and waits for at most `timeout` until there is room for it.
    ///
    /// # Errors
    ///
    /// `Full`; otherwise as for [`send`](Self::send).
    pub fn send_timeout(&mut self, response: &[u8], timeout: Duration) -> Result<(), ReplyError> {
        self.push(Patience::within(timeout), |draft, _| draft.copy(response))
    }
}

impl<Req, Resp> ReplyStream<'_, Req, Resp>
where
    Req: Payload,
    Resp: capnp::traits::Owned + Payload<Building = Construction>,
{
    /// Sends the response that `build` makes in place, once there is room for it.
    ///
    /// # Errors
    ///
    /// `Abandoned` if nobody waits for it; `TooLarge`, and nothing was sent; `Forked`, `Corrupt`.
    pub fn send(&mut self, build: impl FnOnce(Resp::Builder<'_>)) -> Result<(), ReplyError> {
        self.send_within(Patience::Forever, build)
    }

    /// Sends the response that `build` makes in place, if there is room for it within `timeout`.
    ///
    /// # Errors
    ///
    /// `Full`; otherwise as for [`send`](Self::send).
    pub fn send_timeout(
        &mut self,
        build: impl FnOnce(Resp::Builder<'_>),
        timeout: Duration,
    ) -> Result<(), ReplyError> {
        self.send_within(Patience::within(timeout), build)
    }

    fn send_within(
        &mut self,
        patience: Patience,
        build: impl FnOnce(Resp::Builder<'_>),
    ) -> Result<(), ReplyError> {
        let kept = &self.call.server.estimate;
        self.push(patience, |draft, estimate| {
            let (len, ()) = draft.build::<Resp, ()>(estimate, build)?;
            kept.set(follow(estimate, len));
            Ok(len)
        })
    }
}

impl<Req: Payload, Resp: Payload> fmt::Debug for ReplyStream<'_, Req, Resp> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyStream").field("sent", &self.call.index).finish_non_exhaustive()
    }
}
