//! Looking at a queue of tokens from outside.

use super::options::{attach, find};
use crate::bus::Member;
use crate::error::Result;
use crate::layout::token::TokenShape;
use crate::shm::map::Access;

/// A queue of tokens, as it was when it was looked at.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TokenQueueInfo {
    /// Its name.
    pub name: String,
    /// Most tokens in it at a time.
    pub capacity: u64,
    /// Bits of a token.
    pub token_bits: u32,
    /// Permission bits of its file.
    pub mode: u32,
    /// How many tokens are in it.
    pub len: u64,
    /// Bytes of shared memory that its file occupies.
    pub bytes: u64,
}

/// Looks at the queue of that name.
pub fn inspect(member: &Member, name: &str) -> Result<TokenQueueInfo> {
    let (queue, shape) = attach(&find(member, name)?, Access::Read)?;
    queue.check()?;
    Ok(TokenQueueInfo {
        name: name.to_owned(),
        capacity: shape.capacity,
        token_bits: shape.form.token_bits(),
        mode: shape.mode,
        len: queue.len(),
        bytes: TokenShape::file_bytes(shape.capacity),
    })
}
