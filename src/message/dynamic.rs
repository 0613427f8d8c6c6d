//! Messages without their generated code: read, written and built by the schema that a topic stores.
//!
//! ```text
//!   stored schema ── types ──▶ Schema ──┬── path   one field, many messages      always there
//!                                       └── json   whole messages, out and in    with the feature `json`
//!   payload ── wire ──────────────────────▲
//! ```
//!
//! Both the schema and the messages are input. `types` checks the one once; `wire` checks every pointer of the other
//! before it is followed. How deep a message is followed, how often the same bytes are, and how much may come out of
//! them is limited, so that none of them costs much more than its size.

#[cfg(feature = "json")]
mod json;
mod path;
mod types;
mod wire;

pub use path::{FieldPath, FieldValue, FieldValues};

use crate::error::{Error, ErrorKind, Result};
use crate::message::schema::{self, describe};
use crate::message::{FrameSegments, Malformed};
use capnp::introspect::Introspect;
use std::fmt;
use std::sync::Arc;
use types::Types;

/// The type of the messages of a topic, as the topic stores it.
///
/// Made by [`Bus::schema`](crate::Bus::schema) or [`UntypedQueue::schema`](crate::UntypedQueue::schema), with no
/// generated code and no `.capnp` file at hand. It reads single fields ([`path`](Self::path)) and, with the feature
/// `json`, turns messages into JSON and back. Messages of other versions of the type are read as Cap'n Proto always
/// does: what their writer did not know has its default, and what is not known here is skipped.
///
/// Cheap to clone.
///
/// # Messages are input
///
/// A payload may hold any bytes. One that is not a message of the type, or is made to exhaust its reader, is a
/// `Corrupt` error: pointers may nest 64 deep, and may lead to the same bytes eight times over.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use windlass::schemas::tick_capnp::tick;
/// use windlass::{Bus, FieldValue, Start};
///
/// let bus = Bus::anonymous()?;
/// let topic = bus.topic::<tick::Owned>("ticks").open()?;
/// let mut subscriber = topic.subscriber(Start::Latest)?;
/// let mut publisher = topic.publisher()?;
/// let mut loan = publisher.loan()?;
/// loan.init_root().set_price(101.25);
/// loan.publish()?;
///
/// // A tool that has never heard of ticks:
/// let schema = bus.schema("ticks")?.ok_or("it is typed")?;
/// assert_eq!(schema.type_name(), "tick.capnp:Tick");
/// let price = schema.path("price")?;
/// let message = subscriber.try_recv()?.ok_or("it was published")?;
/// assert_eq!(price.get(message.bytes())?, Some(FieldValue::Float(101.25)));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Schema {
    inner: Arc<Inner>,
}

struct Inner {
    name: String,
    types: Types,
}

impl Schema {
    /// Reads a schema in the form in which topics store it: a `CodeGeneratorRequest` whose one requested file names
    /// the type.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it is not one.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let schema = schema::Schema::parse(bytes)?;
        let inner = Inner { types: Types::new(&schema)?, name: schema.root_name().to_owned() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The schema of a generated type: `Schema::of::<tick::Owned>()`.
    ///
    /// # Errors
    ///
    /// `Invalid` if no topic can carry the type: it is not a struct, or takes type parameters.
    pub fn of<T: Introspect>() -> Result<Self> {
        Self::parse(&describe::<T>()?)
    }

    /// The full name of the type: `tick.capnp:Tick`.
    pub fn type_name(&self) -> &str {
        &self.inner.name
    }

    /// Finds a field, to read it from many messages.
    ///
    /// A path is the names of fields with points between them, through structs and groups: `center.x`. It goes
    /// through lists as if they were their elements, and then has a value for each of them: `corners.x`.
    ///
    /// # Errors
    ///
    /// `Invalid` if there is no such field, if it has no value of its own, or if the schema does not say what is in it;
    /// the error says what there is instead.
    pub fn path(&self, path: &str) -> Result<FieldPath> {
        path::resolve(&self.inner.types, &self.inner.name, path)
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schema").field("type_name", &self.type_name()).finish_non_exhaustive()
    }
}

#[cold]
fn corrupt(name: &str, what: impl fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the payload is not a sound message of {name}: {what}"))
}

#[cold]
fn unframed(name: &str, payload: &[u8]) -> Error {
    let len = payload.len();
    corrupt(name, format!("its {len} bytes do not hold the segments that its first ones speak of"))
}

/// How often the words of a message may be read over: pointers may share what they lead to, but not multiply it.
const TRAVERSALS_MAX: usize = 8;

/// Words of a payload, as far as limits are concerned.
fn words_of(payload: &[u8]) -> usize {
    payload.len().div_ceil(8).max(wire::WORDS_MIN)
}

/// The segments of a payload at any address.
#[inline]
fn segments(payload: &[u8]) -> Result<FrameSegments<'_>, Malformed> {
    FrameSegments::parse_anywhere(payload)
}

#[cfg(test)]
mod tests;
