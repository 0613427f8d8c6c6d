//! A Unix stream socket between the two processes, polled, one call a message: what most programs
//! use today.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;

use super::failure::{During, Failure, Result};
use super::payload::{Check, Copied, Fill};
use super::transport::{Context, Receiver, Sender, Spec, Way};

/// The writing end.
pub struct UnixSender {
    socket: UnixStream,
    message: Copied,
}

impl Sender for UnixSender {
    fn open(context: &Context<'_>, spec: &Spec, _way: Way) -> Result<Self> {
        Ok(Self { socket: end(context)?, message: Copied::new(spec.bytes) })
    }

    fn send(&mut self, sequence: u64) -> Result<()> {
        let mut rest = self.message.made(sequence);
        while !rest.is_empty() {
            match self.socket.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if again(&error) => std::hint::spin_loop(),
                Err(error) => return Err(error).during("cannot write to the socket"),
            }
        }
        Ok(())
    }
}

/// The reading end.
pub struct UnixReceiver {
    socket: UnixStream,
    message: Vec<u8>,
}

impl Receiver for UnixReceiver {
    fn open(context: &Context<'_>, spec: &Spec, _way: Way) -> Result<Self> {
        Ok(Self { socket: end(context)?, message: vec![0; spec.bytes] })
    }

    fn take(&mut self, check: &mut Check) -> Result<()> {
        let mut filled = 0;
        while filled < self.message.len() {
            match self.socket.read(&mut self.message[filled..]) {
                Ok(0) => return Err(Failure::new("the socket was closed in the middle of a run")),
                Ok(read) => filled += read,
                Err(error) if again(&error) => std::hint::spin_loop(),
                Err(error) => return Err(error).during("cannot read from the socket"),
            }
        }
        check.bytes(&self.message);
        Ok(())
    }

    fn sink(&mut self, count: u64, check: &mut Check) -> Result<()> {
        (0..count).try_for_each(|_| self.take(check))
    }
}

fn end(context: &Context<'_>) -> Result<UnixStream> {
    context.socket.try_clone().during("cannot open the socket again")
}

fn again(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
