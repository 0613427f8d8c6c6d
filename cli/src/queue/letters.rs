//! `windlass queue dead-letters`: the messages that were delivered as often as they may be.

use std::process::ExitCode;

use anyhow::{bail, Context, Result};
use serde::Serialize;
use windlass::{DeadLetter, Raw, UntypedQueue};

use super::payload::{beginning, dump, Content};
use crate::args::{DeadLettersArguments, LettersAction};
use crate::output::{self, bytes, some, table};

#[derive(Serialize)]
struct List {
    bus: String,
    queue: String,
    dead_letters: Vec<Letter>,
}

/// A dead letter in a list.
#[derive(Serialize)]
struct Letter {
    chunk: u32,
    deliveries: u32,
    payload_bytes: usize,
    first: String,
}

/// A dead letter, whole.
#[derive(Serialize)]
struct Whole {
    bus: String,
    queue: String,
    schema: Option<String>,
    chunk: u32,
    deliveries: u32,
    payload_bytes: usize,
    #[serde(flatten)]
    content: Content,
    /// Why it is not shown as a message, if it should be one.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// As people see it.
    #[serde(skip)]
    page: String,
}

/// What was done.
#[derive(Serialize)]
struct Done {
    bus: String,
    queue: String,
    discarded: u64,
    revived: u64,
}

/// `windlass queue dead-letters`.
pub fn run(arguments: &DeadLettersArguments) -> Result<ExitCode> {
    let bus = super::open(&arguments.bus)?;
    let queue = bus.queue_untyped(&arguments.queue)?;
    let place = (bus.path().display().to_string(), arguments.queue.clone());
    match arguments.action {
        LettersAction::List => list(&queue, place, arguments.json)?,
        LettersAction::Show => show(&queue, place, arguments)?,
        LettersAction::Discard | LettersAction::Revive => end(&queue, place, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Does something with every dead letter, or with the one that is meant; how many there were.
fn each(
    queue: &UntypedQueue,
    only: Option<u32>,
    mut what: impl FnMut(DeadLetter<'_, Raw>) -> Result<()>,
) -> Result<u64> {
    let mut letters = queue.dead_letters()?;
    let (mut from, mut count) = (only.unwrap_or(0), 0);
    while let Some(letter) = letters.next_from(from)? {
        let chunk = letter.chunk();
        if only.is_some_and(|only| only != chunk) {
            break;
        }
        what(letter)?;
        count += 1;
        // The one behind it: what is revived may die again meanwhile.
        from = chunk + 1;
        if only.is_some() {
            break;
        }
    }
    match only {
        Some(chunk) if count == 0 => bail!(
            "queue {} has no dead letter in chunk {chunk}; `windlass queue dead-letters {}` lists \
             those that it has",
            queue.name(),
            queue.name()
        ),
        _ => Ok(count),
    }
}

fn list(queue: &UntypedQueue, (bus, name): (String, String), json: bool) -> Result<()> {
    let schema = queue.schema()?;
    let mut list = List { bus, queue: name, dead_letters: Vec::new() };
    each(queue, None, |letter| {
        let (chunk, deliveries) = (letter.chunk(), letter.deliveries());
        let (payload_bytes, first) =
            (letter.bytes().len(), beginning(letter.bytes(), schema.as_ref()));
        list.dead_letters.push(Letter { chunk, deliveries, payload_bytes, first });
        Ok(())
    })?;
    if json {
        return output::json(&list);
    }
    if list.dead_letters.is_empty() {
        return output::text(&format!("Queue {} has no dead letters.", list.queue));
    }
    let mut table = table("chunk> | deliveries> | bytes> | begins with");
    for letter in &list.dead_letters {
        table.add_row([
            letter.chunk.to_string(),
            letter.deliveries.to_string(),
            letter.payload_bytes.to_string(),
            letter.first.clone(),
        ]);
    }
    output::text(&format!("Queue {} of {}\n{}", list.queue, list.bus, table.trim_fmt()))
}

fn show(
    queue: &UntypedQueue,
    (bus, name): (String, String),
    arguments: &DeadLettersArguments,
) -> Result<()> {
    let (schema, mut whole) = (queue.schema()?, None);
    each(queue, arguments.chunk, |letter| {
        let payload = letter.bytes();
        let (content, problem) = Content::of(payload, schema.as_ref());
        let page = match (&content, &schema) {
            (Content::Message(_), Some(schema)) => schema.to_json_pretty(payload)?,
            (Content::Text(text), _) => text.clone(),
            _ => dump(payload),
        };
        whole = Some(Whole {
            bus: bus.clone(),
            queue: name.clone(),
            schema: schema.as_ref().map(|schema| schema.type_name().to_owned()),
            chunk: letter.chunk(),
            deliveries: letter.deliveries(),
            payload_bytes: payload.len(),
            content,
            problem,
            page,
        });
        Ok(())
    })?;
    let Some(whole) = whole else { return Ok(()) };
    if arguments.json {
        return output::json(&whole);
    }
    let Whole { chunk, deliveries, .. } = whole;
    let kind = whole.schema.unwrap_or_else(|| "bytes".to_owned());
    let size = bytes(whole.payload_bytes as u64);
    let head = format!(
        "Dead letter in chunk {chunk} of queue {name}: {size} of {kind}, delivered {}",
        some(deliveries.into(), "time", "times")
    );
    let problem = whole.problem.map(|problem| format!("\n{problem}")).unwrap_or_default();
    output::text(&format!("{head}{problem}\n\n{}", whole.page))
}

fn end(
    queue: &UntypedQueue,
    (bus, name): (String, String),
    arguments: &DeadLettersArguments,
) -> Result<()> {
    let discard = arguments.action == LettersAction::Discard;
    let count = each(queue, arguments.chunk, |letter| {
        let ended = if discard { letter.discard() } else { letter.revive() };
        ended.with_context(|| format!("queue {}", queue.name()))
    })?;
    let (discarded, revived) = if discard { (count, 0) } else { (0, count) };
    if arguments.json {
        return output::json(&Done { bus, queue: name, discarded, revived });
    }
    let letters = some(count, "dead letter", "dead letters");
    output::text(&match discard {
        true => format!("Discarded {letters} of queue {name}."),
        false => format!("Revived {letters} of queue {name}: they are entered again."),
    })
}
