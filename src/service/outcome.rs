//! What calling and answering return besides messages: values that say what to do next.

use std::fmt;

/// Why a call has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// No response came in time, although a server lives. If one works on the call, it is told that nobody waits.
    Timeout,
    /// No response came in time, because there is no server.
    NoServer,
    /// Every server that took the call died or gave it back, as often as it may be delivered. Or the server of a stream
    /// did so in the middle of it. What it did until then is not known.
    ServerDied,
    /// The server says that the call failed, and why.
    Failed(String),
    /// Every call of this client is in use.
    Busy {
        /// Calls that the client has.
        calls: u32,
        /// Those that were given up, and that servers still work on. The others are pending, or their responses are
        /// still held.
        lingering: u32,
        /// The node and the process of one such server.
        server: Option<(u32, Option<u32>)>,
    },
    /// The request does not fit.
    TooLarge {
        /// Bytes that it needs.
        need: u64,
        /// Bytes that a request may have.
        max: u64,
    },
    /// The service was closed.
    Closed,
    /// This handle was inherited through `fork`.
    Forked,
    /// A word of the service is none that it can have, or a file of it was cut short while it was mapped.
    Corrupt,
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no response came in time, although a server lives"),
            Self::NoServer => f.write_str(
                "no response came in time, because no process serves this service; start a server",
            ),
            Self::ServerDied => f.write_str(
                "every server that took the call died or gave it back before it was answered, and \
                 it will not be delivered again",
            ),
            Self::Failed(why) => write!(f, "the server could not answer: {why}"),
            Self::Busy { calls, lingering, server } => {
                write!(
                    f,
                    "all {calls} calls of this client are in use: {lingering} were given up while \
                     a server works on them"
                )?;
                match server {
                    Some((node, Some(pid))) => write!(f, " (such as node {node}, process {pid})")?,
                    Some((node, None)) => write!(f, " (such as node {node})")?,
                    None => {}
                }
                write!(
                    f,
                    ", the others are pending or their responses are held; drop some, or create \
                     the service with more calls"
                )
            }
            Self::TooLarge { need, max } => write!(
                f,
                "the request needs {need} bytes and one of this service takes {max}; create the \
                 service with a larger request_bytes"
            ),
            Self::Closed => f.write_str("the service was closed"),
            Self::Forked => f.write_str(
                "this client was inherited through fork; open the bus again in the child",
            ),
            Self::Corrupt => f.write_str("the service is damaged; remove it and create it anew"),
        }
    }
}

impl std::error::Error for CallError {}

/// Why an answer was not given, or not all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// Nobody waits for it: the caller gave the call up, or is dead.
    Abandoned,
    /// The caller is as many responses behind as it may be, for all that time.
    Full,
    /// The response does not fit. If it was to be the only one, the call failed with this text.
    TooLarge {
        /// Bytes that it needs.
        need: u64,
        /// Bytes that a response may have.
        max: u64,
    },
    /// This handle was inherited through `fork`.
    Forked,
    /// A word of the service is none that it can have, or a file of it was cut short while it was mapped.
    Corrupt,
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Abandoned => {
                f.write_str("nobody waits for this answer: the caller gave the call up, or is dead")
            }
            Self::Full => {
                f.write_str("the caller has not read enough of the responses before this one")
            }
            Self::TooLarge { need, max } => write!(
                f,
                "the response needs {need} bytes and one of this service takes {max}; create the \
                 service with a larger response_bytes"
            ),
            Self::Forked => f.write_str(
                "this server was inherited through fork; open the bus again in the child",
            ),
            Self::Corrupt => f.write_str("the service is damaged; remove it and create it anew"),
        }
    }
}

impl std::error::Error for ReplyError {}

/// Why there is no call to answer. Except for `TimedOut`, the next attempt will say the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServeError {
    /// There was none in all that time.
    TimedOut,
    /// This handle was inherited through `fork`.
    Forked,
    /// A word of the service is none that it can have, or a file of it was cut short while it was mapped.
    Corrupt,
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TimedOut => "no call came in time",
            Self::Forked => {
                "this server was inherited through fork; open the bus again in the child"
            }
            Self::Corrupt => "the service is damaged; remove it and create it anew",
        })
    }
}

impl std::error::Error for ServeError {}
