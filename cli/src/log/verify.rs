//! `windlass verify`: reads every message of a log and names those that are damaged.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::ReadError;

use super::interrupt::{self, Interrupted};
use super::place::find_log;
use super::progress::Progress;
use crate::args::VerifyArguments;
use crate::output::{self, bytes, count, some};

/// What the command found.
#[derive(Default, Serialize)]
struct Verified {
    log: String,
    first: u64,
    next: u64,
    /// Messages that are what was published.
    messages: u64,
    payload_bytes: u64,
    /// Whether they carry checksums: without them, changed bytes are not noticed.
    checksums: bool,
    /// Messages that were deleted while this command ran.
    deleted: u64,
    damaged: Vec<Damaged>,
}

#[derive(Serialize)]
struct Damaged {
    sequence: u64,
    what: String,
}

/// `windlass verify`.
pub fn run(arguments: &VerifyArguments) -> Result<ExitCode> {
    interrupt::watch()?;
    let log = find_log(&arguments.place.place, &arguments.place.bus)?.log;
    let (info, mut scan) = (log.info()?, log.scan(..)?);
    let mut verified = Verified {
        log: info.path.display().to_string(),
        first: scan.left().start,
        next: scan.left().end,
        checksums: info.checksums,
        ..Verified::default()
    };
    let mut progress = Progress::new(Some(verified.next - verified.first));
    while let Some(found) = scan.read() {
        if interrupt::came() {
            let done = count(verified.messages);
            return Err(Interrupted(format!("{done} messages are sound so far")).into());
        }
        match found {
            Ok(record) => {
                progress.message(record.bytes().len());
                verified.messages += 1;
                verified.payload_bytes += record.bytes().len() as u64;
            }
            Err(ReadError::Damaged { sequence, damage }) => {
                progress.message(0);
                verified.damaged.push(Damaged { sequence, what: damage.to_string() });
            }
            Err(ReadError::Lagged { missed }) => verified.deleted += missed,
            Err(error) => return Err(error.into()),
        }
    }
    drop(progress);
    match arguments.json {
        true => output::json(&verified)?,
        false => output::text(&page(&verified))?,
    }
    Ok(if verified.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn page(verified: &Verified) -> String {
    let messages = some(verified.messages, "message is", "messages are");
    let size = bytes(verified.payload_bytes);
    let mut page = String::new();
    for Damaged { sequence, what } in &verified.damaged {
        page += &format!("Message {sequence} is damaged: {what}.\n");
    }
    let damaged = match verified.damaged.len() as u64 {
        0 => "none is damaged".to_owned(),
        n => some(n, "is damaged", "are damaged"),
    };
    page += &format!("{}: {messages} sound, {size}; {damaged}.", verified.log);
    if verified.deleted > 0 {
        let were = some(verified.deleted, "message was", "messages were");
        page += &format!("\n{were} deleted by the retention of the log meanwhile.");
    }
    if !verified.checksums {
        page += "\nThe log has no checksums: changed bytes of a message are not noticed.";
    }
    page
}
