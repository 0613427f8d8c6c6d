//! Channels: one sender, one receiver, messages of any size, without a bus.
//!
//! A channel is a ring of bytes in shared memory with a name of the operating system, or in the memory of one process.
//! Messages are built in it and read in it. Both ends are wait-free: neither a stopped nor a killed process keeps the
//! other one from its next instruction.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use windlass::channel::Channel;
//! use windlass::Wait;
//!
//! let name = format!("doc-ticks-{}", std::process::id());
//! // In one process …
//! let mut sender = Channel::named(&name).sender()?;
//! sender.send(b"copied once")?;
//! let mut loan = sender.loan(64)?; // or built there
//! loan[..8].copy_from_slice(b"in place");
//! loan.commit_len(8)?;
//! drop(sender); // what was sent stays
//!
//! // … and in another one, which may as well come first.
//! let mut receiver = Channel::named(&name).receiver()?;
//! assert_eq!(receiver.recv(Wait::Block)?, Some(&b"copied once"[..]));
//! assert_eq!(receiver.recv(Wait::Block)?, Some(&b"in place"[..]));
//! assert_eq!(receiver.recv(Wait::Block)?, None); // the sender has left
//! # Ok(()) }
//! ```
//!
//! Between the threads of one process:
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut sender, mut receiver) = windlass::channel::pair(1 << 16)?;
//! std::thread::spawn(move || (0..100u8).try_for_each(|number| sender.send(&[number])));
//! let mut sum = 0;
//! while let Some(message) = receiver.recv(windlass::Wait::Block)? {
//!     sum += u32::from(message[0]);
//! }
//! assert_eq!(sum, 4950);
//! # Ok(()) }
//! ```
//!
//! # If a process dies
//!
//! Either end may be killed at any instruction, and another process may take its place. What was committed stays, and
//! nothing of what was not. A receiver gives a message back when it is used again; what a killed one had not given back
//! its successor reads again. Who holds an end is proved by a lock of the kernel: a second sender, or receiver, is
//! refused with the process that is in its way, and a dead one is in nobody's way.
//!
//! The end that stays is told: see [`RecvError::Died`] and [`SendError::Died`].
//!
//! # What the next pair finds
//!
//! The last end that leaves in order removes the name. It stays if there are messages that no receiver has had the
//! chance to read, because it did not come yet, or died; and after the death of both. The next pair goes on with what
//! is there: messages that nobody has read are the first that it reads. If it asks for another capacity it is refused,
//! but for a ring without messages that nobody holds, which is made anew. [`Channel::remove`] removes a name at any
//! time.

mod core;
mod loan;
mod options;
mod outcome;
mod receiver;
mod sender;

pub use loan::Loan;
pub use options::{pair, Channel};
pub use outcome::{Peer, RecvError, SendError};
pub use receiver::{Batch, Receiver};
pub use sender::{Group, Sender};
