//! `windlass verify`: looks at everything in a log and names what is damaged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::VerifyReport;

use super::place::find_log;
use super::progress::Progress;
use super::value::time;
use crate::args::VerifyArguments;
use crate::output::{self, bytes, count, some};

/// What the command found.
#[derive(Serialize)]
struct Verified {
    log: PathBuf,
    first: u64,
    next: u64,
    /// Messages that are what was published.
    messages: u64,
    payload_bytes: u64,
    /// Whether they carry checksums: without them, changed bytes are not noticed.
    checksums: bool,
    first_time: Option<String>,
    last_time: Option<String>,
    /// Messages that are earlier than the one before them.
    steps_back: u64,
    /// Messages that were deleted while this command ran.
    deleted: u64,
    /// How many are damaged, and the first of them.
    damaged_messages: u64,
    damaged: Vec<Damaged>,
    damaged_files: Vec<DamagedFile>,
    /// What is in each lane.
    lanes: BTreeMap<u32, Lane>,
    /// Whether the log was in use.
    in_use: bool,
    /// Everything below is known to have been put on disk.
    checkpoint: u64,
    /// Where the next opening would end the log, and how many messages it would cut off.
    recovered_next: u64,
    would_cut: u64,
}

#[derive(Serialize)]
struct Damaged {
    sequence: u64,
    what: String,
    file: String,
    lane: Option<u32>,
    position: Option<u64>,
}

#[derive(Serialize)]
struct DamagedFile {
    file: String,
    what: String,
}

#[derive(Serialize)]
struct Lane {
    segments: u64,
    messages: u64,
    payload_bytes: u64,
    record_bytes: u64,
    residue_bytes: u64,
}

/// `windlass verify`.
///
/// It changes nothing, so Ctrl-C may end it anywhere.
pub fn run(arguments: &VerifyArguments) -> Result<ExitCode> {
    let log = find_log(&arguments.place.place, &arguments.place.bus)?.log;
    let mut progress = Progress::new(Some(log.count()?));
    let report = log.verify(|done, _| progress.at(done))?;
    drop(progress);
    let is_sound = report.is_sound();
    let page = page(&report);
    match arguments.json {
        true => output::json(&Verified::new(report))?,
        false => output::text(&page)?,
    }
    Ok(if is_sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Verified {
    fn new(report: VerifyReport) -> Self {
        let damaged = report.records.into_iter().map(|record| Damaged {
            sequence: record.sequence,
            what: record.damage.to_string(),
            file: record.file,
            lane: record.lane,
            position: record.position,
        });
        let files = report.files.into_iter();
        let payload_bytes = report.lanes.values().map(|lane| lane.payload_bytes).sum();
        let lanes = report.lanes.into_iter().map(|(number, lane)| {
            let shown = Lane {
                segments: lane.segments,
                messages: lane.messages,
                payload_bytes: lane.payload_bytes,
                record_bytes: lane.record_bytes,
                residue_bytes: lane.residue_bytes,
            };
            (number, shown)
        });
        Self {
            log: report.path,
            first: report.first,
            next: report.next,
            messages: report.sound,
            payload_bytes,
            checksums: report.checksums,
            first_time: report.times_ns.map(|(first, _)| time(first)),
            last_time: report.times_ns.map(|(_, last)| time(last)),
            steps_back: report.steps_back,
            deleted: report.deleted,
            damaged_messages: report.damaged,
            damaged: damaged.collect(),
            damaged_files: files.map(|it| DamagedFile { file: it.file, what: it.what }).collect(),
            lanes: lanes.collect(),
            in_use: report.in_use,
            checkpoint: report.checkpoint_next,
            recovered_next: report.recovered_next,
            would_cut: report.would_cut,
        }
    }
}

fn page(report: &VerifyReport) -> String {
    let mut lines = Vec::new();
    lines.extend(report.records.iter().map(|record| format!("Damaged: {record}.")));
    let more = report.damaged - report.records.len() as u64;
    if more > 0 {
        lines.push(format!("Damaged: {} more.", some(more, "message", "messages")));
    }
    lines.extend(report.files.iter().map(|file| format!("Damaged: file {file}.")));
    let payload_bytes = report.lanes.values().map(|lane| lane.payload_bytes).sum();
    let damaged = match report.damaged {
        0 => "none is damaged".to_owned(),
        n => some(n, "is damaged", "are damaged"),
    };
    lines.push(format!(
        "{}: {} sound, {}; {damaged}.",
        report.path.display(),
        some(report.sound, "message is", "messages are"),
        bytes(payload_bytes),
    ));
    if report.deleted > 0 {
        let were = some(report.deleted, "message was", "messages were");
        lines.push(format!("{were} deleted by the retention of the log meanwhile."));
    }
    if report.would_cut > 0 {
        lines.push(format!(
            "Whoever opens it next ends it before sequence {}, and cuts off {}: they were not on disk \
             when the machine crashed.",
            count(report.recovered_next),
            some(report.would_cut, "message", "messages"),
        ));
    }
    if !report.checksums {
        let why = "The log has no checksums: changed bytes of a message are not noticed.";
        lines.push(why.to_owned());
    }
    lines.join("\n")
}
