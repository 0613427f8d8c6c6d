//! What a topic carries: bytes, or a Cap'n Proto struct.

use crate::message::FrameSegments;
use crate::topic::loan::{Construction, Space};
use crate::topic::view::HeldSegments;
use std::cell::OnceCell;
use std::sync::OnceLock;

/// The type of a topic: [`Raw`], or the `Owned` type of a Cap'n Proto struct.
///
/// Not to be implemented outside this crate: every generated `Owned` type has it already.
pub trait Payload: 'static {
    /// What a borrowed message keeps once it was opened.
    #[doc(hidden)]
    type Opened<'a>: Default;
    /// What a view keeps once it was opened.
    #[doc(hidden)]
    type Held: Default + Send + Sync;

    /// What a loan is while it is built.
    #[doc(hidden)]
    type Building;

    /// The schema that a topic of this type stores.
    #[doc(hidden)]
    fn schema() -> crate::error::Result<Option<Vec<u8>>>;
}

/// Messages are bytes, whatever they mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raw {}

impl Payload for Raw {
    type Opened<'a> = ();
    type Held = ();
    type Building = Space;

    fn schema() -> crate::error::Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

impl<T: capnp::traits::Owned + 'static> Payload for T {
    type Opened<'a> = OnceCell<capnp::message::Reader<FrameSegments<'a>>>;
    type Held = OnceLock<capnp::message::Reader<HeldSegments>>;
    type Building = Construction;

    fn schema() -> crate::error::Result<Option<Vec<u8>>> {
        crate::message::schema::describe::<T>().map(Some)
    }
}
