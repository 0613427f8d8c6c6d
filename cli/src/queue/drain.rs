//! `windlass queue drain`: takes and acknowledges what waits in a queue.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::Serialize;
use windlass::{Schema, TakeError, UntypedQueue, Wait};

use super::payload::Content;
use crate::args::DrainArguments;
use crate::output::{self, bytes, some};

/// How long nothing more comes before it is believed that nothing is left: others may have taken it.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the command did, or would do.
#[derive(Serialize)]
struct Drained {
    bus: String,
    queue: String,
    /// Whether it was done.
    done: bool,
    /// Messages that were acknowledged, or would be.
    messages: u64,
    /// Their payload bytes, if it was done.
    payload_bytes: Option<u64>,
    /// Where they are now.
    to: Option<PathBuf>,
    /// Messages that wait now.
    left: u32,
}

/// A message, as a line of JSON.
#[derive(Serialize)]
struct Line<'a> {
    delivery: u32,
    payload_bytes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema: Option<&'a str>,
    #[serde(flatten)]
    content: Content,
    /// Why it is not shown as a message, if it should be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// `windlass queue drain`.
pub fn run(arguments: &DrainArguments) -> Result<ExitCode> {
    let bus = super::open(&arguments.bus)?;
    let queue = bus.queue_untyped(&arguments.queue)?;
    let depth = queue.info()?.depth;
    let most = arguments.limit.unwrap_or(depth).min(depth);
    let mut drained = Drained {
        bus: bus.path().display().to_string(),
        queue: arguments.queue.clone(),
        done: arguments.yes,
        messages: most.into(),
        payload_bytes: None,
        to: None,
        left: depth,
    };
    if arguments.yes {
        let (messages, payload_bytes) = drain(&queue, most, arguments)?;
        drained.messages = messages;
        drained.payload_bytes = Some(payload_bytes);
        drained.to = arguments.to.clone();
        drained.left = queue.info()?.depth;
    }
    if arguments.json {
        output::json(&drained)?;
    } else if arguments.print {
        output::complain(&page(&drained));
    } else {
        output::text(&page(&drained))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Takes and acknowledges up to `most` messages; how many there were, and how many payload bytes they had.
fn drain(queue: &UntypedQueue, most: u32, arguments: &DrainArguments) -> Result<(u64, u64)> {
    let schema = queue.schema()?;
    let mut keep = arguments.to.as_deref().map(|path| Keep::new(path, schema.is_some()));
    let mut keep = keep.take().transpose()?;
    let mut consumer = queue.consumer()?;
    let (mut messages, mut payload_bytes) = (0, 0);
    while messages < u64::from(most) {
        let job = match consumer.take(Wait::For(PATIENCE)) {
            Ok(Some(job)) => job,
            // Somebody else took what was there.
            Ok(None) | Err(TakeError::TimedOut) => break,
            Err(error) => return Err(error).with_context(|| format!("queue {}", queue.name())),
        };
        let payload = job.bytes();
        // Kept first: whatever happens to this process, the message is in the file, in the queue, or in both.
        if let Some(keep) = &mut keep {
            keep.message(payload)?;
        }
        if arguments.print {
            let (delivery, payload_bytes) = (job.delivery(), payload.len());
            let (content, problem) = Content::of(payload, schema.as_ref());
            let schema = schema.as_ref().map(Schema::type_name);
            output::json(&Line { delivery, payload_bytes, schema, content, problem })?;
        }
        payload_bytes += payload.len() as u64;
        job.ack().with_context(|| format!("queue {}", queue.name()))?;
        messages += 1;
    }
    keep.map_or(Ok(()), Keep::finish)?;
    Ok((messages, payload_bytes))
}

/// A file that keeps payloads.
struct Keep<'a> {
    path: &'a Path,
    file: File,
    typed: bool,
}

impl<'a> Keep<'a> {
    fn new(path: &'a Path, typed: bool) -> Result<Self> {
        let file = File::create_new(path).with_context(|| {
            format!("cannot make the file {}, which must not exist yet", path.display())
        })?;
        Ok(Self { path, file, typed })
    }

    fn message(&mut self, payload: &[u8]) -> Result<()> {
        // A message of a typed queue says itself where it ends.
        let length = (payload.len() as u64).to_le_bytes();
        let head = if self.typed { &[][..] } else { &length[..] };
        let written = self.file.write_all(&[head, payload].concat());
        written.with_context(|| {
            format!(
                "cannot write to {}; what was not written is still in the queue",
                self.path.display()
            )
        })
    }

    fn finish(self) -> Result<()> {
        let synced = self.file.sync_all();
        synced.with_context(|| format!("cannot write {} to its disk", self.path.display()))
    }
}

fn page(drained: &Drained) -> String {
    let Drained { queue, messages, left, .. } = drained;
    let what = some(*messages, "message", "messages");
    if !drained.done {
        let others = some(u64::from(*left), "message", "messages");
        return format!(
            "Queue {queue} has {others} that wait; {what} would be taken and acknowledged. Say --yes to \
             do it, and --to FILE or --print to keep the payloads."
        );
    }
    let size = bytes(drained.payload_bytes.unwrap_or(0));
    let kept = match &drained.to {
        Some(path) => format!(" They are in {}.", path.display()),
        None => String::new(),
    };
    let others = some(u64::from(*left), "message waits", "messages wait");
    format!(
        "Took and acknowledged {what} of queue {queue}, {size} in all.{kept} Now {others} in it."
    )
}
