//! Looking through a whole log: every header, every place, every record.
//!
//! Nothing is written, and nobody is held up. On a log that is in use, what was there at the beginning is looked at.

use crate::error::Result;
use crate::layout::cursor::PREFIX;
use crate::layout::frame::PROLOGUE;
use crate::layout::log::{places_file, segment_file, Checkpoint, SUMMARY_PLACES};
use crate::layout::order::Place;
use crate::layout::record;
use crate::limits::PLACES;
use crate::log::cache::{Cache, Miss};
use crate::log::files::{Listing, LogFiles};
use crate::log::outcome::Damage;
use crate::log::reader::Log;
use crate::log::recover::Past;
use crate::log::report::{DamagedRecord, VerifyReport};
use crate::log::source::Source;
use crate::log::{checkpoint, claim, cursor, cut, times};
use crate::shm::map::Access;
use crate::topic::payload::Payload;

/// Messages after which progress is told.
const PROGRESS_EVERY: u64 = 1 << 14;

/// Where a lane stands: what its next record must be.
#[derive(Clone, Copy, Debug, Default)]
struct Stand {
    /// Where it is, or where the segment before it ends; `None` if that is not known.
    end: Option<u64>,
    /// Its number, or a lower one if `end` is not known; `None` for any.
    number: Option<u64>,
    /// No record is before this position.
    least: u64,
}

/// The times of the messages of a block and of a piece of the order, as far as all of them are sound.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    /// The earliest and the latest one of the block.
    block: Option<(u64, u64)>,
    /// The latest one of the piece, and of all before it.
    piece: Option<u64>,
}

/// A look through a log.
struct Look<'a> {
    source: &'a Source,
    cache: Cache,
    known: Checkpoint,
    stands: Vec<Stand>,
    /// The first damaged message behind the checkpoint.
    behind: Option<u64>,
    /// One above the newest sound message behind the checkpoint, which is where it ends if there is none.
    sound_end: u64,
    times: Times,
    report: VerifyReport,
}

impl<T: Payload> Log<T> {
    /// Looks at everything in the log: headers, the order, how the records of each lane follow each other, their
    /// checksums, the checkpoint, and the cursors. Says what is damaged, by message and by file, and what the next
    /// opening of the log would cut off. Calls `progress` now and then with the messages done and all of them.
    ///
    /// Reads only, and may be used while others write the log: then it looks at what is there now.
    ///
    /// # Errors
    ///
    /// Those of listing the folder. Damage is no error, whatever it is.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let folder = std::env::temp_dir().join(format!("windlass-verify-{}", std::process::id()));
    /// # use windlass::{Bus, Log, Raw};
    /// # let topic = Bus::anonymous()?.topic::<Raw>("events").durable_at(&folder).open()?;
    /// # topic.publisher()?.publish(b"opened")?;
    /// let log = Log::open_untyped(&folder)?;
    /// let report = log.verify(|done, all| print!("\r{done} of {all}"))?;
    /// assert!(report.is_sound() && report.sound == 1, "{:?}", report.records);
    /// # while std::fs::remove_dir_all(&folder).is_err() {} // its keeper may be making a file
    /// # Ok(()) }
    /// ```
    pub fn verify(&self, mut progress: impl FnMut(u64, u64)) -> Result<VerifyReport> {
        let source = &*self.source;
        let files = source.files();
        // Before everything else: whoever comes now may write what is behind the end.
        let in_use = source.topic().is_some() || claim::is_held(files);
        let (listing, next) = (files.list()?, source.next()?);
        let mut report = VerifyReport {
            path: self.path().to_owned(),
            in_use,
            next,
            checksums: files.shape.checksums,
            ..VerifyReport::default()
        };
        let known = checkpoint::read(files).unwrap_or_else(|error| {
            report.note_file("checkpoint", error);
            Checkpoint::empty()
        });
        report.first = source.first()?.min(next);
        report.checkpoint_next = known.next;
        let stands = vec![Stand::default(); files.shape.publishers_max as usize];
        let (cache, behind, times) = (Cache::new(), None, Times::default());
        let sound_end = known.next.max(report.first).min(next);
        let mut look = Look { source, cache, known, stands, behind, sound_end, times, report };
        look.at_files(&listing);
        look.at_messages(&mut progress)?;
        look.at_checkpoint();
        if !in_use {
            look.behind_the_end(&listing);
        }
        let Look { mut report, .. } = look;
        if let Err(error) = files.check_loss() {
            report.note_file(".", error);
        }
        progress(next - report.first, next - report.first);
        Ok(report)
    }
}

impl Times {
    fn note(&mut self, time: u64) {
        self.block = self.block.map(|(least, most)| (least.min(time), most.max(time)));
        self.piece = self.piece.map(|latest| latest.max(time));
    }
}

impl Look<'_> {
    fn files(&self) -> &LogFiles {
        self.source.files()
    }

    /// Looks at the header of every file.
    fn at_files(&mut self, listing: &Listing) {
        let lanes = self.files().shape.publishers_max as usize;
        for (lane, numbers) in &listing.segments {
            if *lane >= lanes {
                let name = segment_file(*lane, numbers[0]);
                self.report.note_file(name, format_args!("the log has {lanes} lanes"));
                continue;
            }
            self.report.lanes.entry(*lane as u32).or_default().segments = numbers.len() as u64;
            for number in numbers {
                if let Err(error) = self.files().segment(*lane, *number, Access::Read) {
                    self.report.note_file(segment_file(*lane, *number), error);
                }
            }
        }
        for number in &listing.pieces {
            if let Err(error) = self.files().piece(*number, Access::Read) {
                self.report.note_file(places_file(*number), error);
            }
        }
        let (first, next) = (self.report.first / PLACES, self.report.next.div_ceil(PLACES));
        for number in (first..next).filter(|number| !listing.pieces.contains(number)) {
            if self.source.first().is_ok_and(|first| first / PLACES <= number) {
                self.report.note_file(places_file(number), "it is gone");
            }
            if self.report.files.len() == VerifyReport::LISTED_MAX {
                break;
            }
        }
        self.at_cursors();
    }

    fn at_cursors(&mut self) {
        for file in self.files().folder.files().unwrap_or_default() {
            let Some(name) = file.strip_prefix(PREFIX) else { continue };
            let opened = self.files().folder.open_file(&file, Access::Read);
            let read = opened.and_then(|opened| cursor::read(self.files(), name, &opened));
            let next = self.source.next().unwrap_or(u64::MAX);
            match read {
                Ok(Some(mark)) if mark.next > next => {
                    let at = mark.next;
                    let what = format!("it is at {at}, and the next message is {next}");
                    self.report.note_file(file, what);
                }
                Ok(_) => {}
                Err(error) => self.report.note_file(file, error),
            }
        }
    }

    /// Looks at every place and every record.
    fn at_messages(&mut self, progress: &mut impl FnMut(u64, u64)) -> Result<()> {
        let (first, next) = (self.report.first, self.report.next);
        if first == 0 {
            // Nothing was ever deleted: every lane begins at its beginning.
            let begin = Stand { end: Some(PROLOGUE as u64), number: Some(0), least: 0 };
            self.stands.fill(begin);
        }
        let mut sequence = first;
        while sequence < next {
            if (sequence - first).is_multiple_of(PROGRESS_EVERY) {
                progress(sequence - first, next - first);
            }
            if sequence == self.known.next {
                self.compare_with_checkpoint();
            }
            if sequence.is_multiple_of(SUMMARY_PLACES) {
                self.begin_block(sequence);
            }
            match self.at_message(sequence) {
                Ok(time) => {
                    self.report.sound += 1;
                    self.sound_end = self.sound_end.max(sequence + 1);
                    self.report.note_time(time);
                    self.times.note(time);
                }
                Err((place, damage)) => {
                    let kept = self.source.first()?;
                    if kept > sequence {
                        // Deleted meanwhile, with all before it.
                        self.stands.fill(Stand::default());
                        self.times = Times::default();
                        self.report.deleted += kept.min(next) - sequence;
                        sequence = kept;
                        continue;
                    }
                    self.damaged(sequence, place, damage);
                }
            }
            sequence += 1;
            if sequence.is_multiple_of(SUMMARY_PLACES) {
                self.end_block(sequence - 1);
            }
        }
        if next == self.known.next {
            self.compare_with_checkpoint();
        }
        Ok(())
    }

    /// Looks at what a piece says of the times before it, if `sequence` is its first one.
    fn begin_block(&mut self, sequence: u64) {
        self.times.block = Some((u64::MAX, 0));
        if !sequence.is_multiple_of(PLACES) {
            return;
        }
        let Ok(Some(piece)) = self.source.piece(sequence / PLACES) else {
            self.times.piece = None;
            return;
        };
        let told = times::latest_before(&piece);
        match (told, self.times.piece) {
            (Some(told), Some(latest)) if told != latest => {
                let file = places_file(sequence / PLACES);
                let what =
                    format!("it says that the latest time before it is {told}, not {latest}");
                self.report.note_file(file, what);
            }
            // What was deleted is known from here only.
            (told, None) => self.times.piece = told.or((sequence == 0).then_some(0)),
            _ => {}
        }
    }

    /// Compares the times of a block of messages, of which `last` is the last one, with its summary.
    fn end_block(&mut self, last: u64) {
        let Some(found) = self.times.block else { return };
        let Ok(Some(piece)) = self.source.piece(last / PLACES) else { return };
        if let Some(told) = times::summary_of(&piece, last).filter(|told| *told != found) {
            let what = format!(
                "it says that the times of the messages up to {last} are from {} to {}, and they \
                 are from {} to {}",
                told.0, told.1, found.0, found.1
            );
            self.report.note_file(places_file(last / PLACES), what);
        }
    }

    /// Looks at a message. Its time, or what is wrong with it, and the place that it has.
    fn at_message(&mut self, sequence: u64) -> Result<u64, (Option<Place>, Damage)> {
        let source = self.source;
        let damage = |miss| match miss {
            Miss::Damaged(damage) => damage,
            Miss::Gone => Damage::Gone,
            Miss::Untaken => Damage::Place,
            Miss::Unmapped(_) => Damage::File,
        };
        let place = self.cache.place(source, sequence).map_err(|miss| (None, damage(miss)))?;
        let wrong = |damage| (Some(place), damage);
        let segment = self.cache.segment(source, place);
        let (kept, at) = segment.map_err(|miss| wrong(damage(miss)))?;
        let mapped = self.cache.mapped(kept);
        let (lane, logical) = (mapped.hold.lane(), mapped.logical);
        let found = lane.record(at).ok_or(wrong(Damage::Record))?;
        if source.files().shape.checksums && !lane.is_sound(&found, mapped.seed) {
            return Err(wrong(Damage::Checksum));
        }
        let begins = lane.first_number(logical).map_err(|_| wrong(Damage::File))?;
        // The lane was found in the log by its place.
        let stand = self.stands[place.lane];
        let bytes = source.files().shape.segment_bytes;
        let number = match stand.number {
            Some(number) => record::number(found.head, number.max(begins)),
            None => record::number(found.head, begins),
        };
        let follows = match stand.end {
            Some(end) => {
                let rolled = (end / bytes + 1) * bytes + PROLOGUE as u64;
                place.position == end || place.position == rolled
            }
            None => place.position >= stand.least,
        };
        let is_next = stand.end.is_none() || stand.number == Some(number);
        let is_first = at == PROLOGUE;
        if !follows || !is_next || (is_first && number != begins) {
            return Err(wrong(Damage::Sequence));
        }
        let end = logical * bytes + found.end() as u64;
        self.stands[place.lane] = Stand { end: Some(end), number: Some(number + 1), least: end };
        let time = lane.record_time(at);
        let report = self.report.lanes.entry(place.lane as u32).or_default();
        report.messages += 1;
        report.payload_bytes += found.len as u64;
        report.record_bytes += found.bytes() as u64;
        Ok(time)
    }

    /// Notes a damage. What follows in its lane may be anywhere ahead.
    fn damaged(&mut self, sequence: u64, place: Option<Place>, damage: Damage) {
        let lanes = self.stands.len();
        let bytes = self.files().shape.segment_bytes;
        self.times = Times::default();
        let known = place.filter(|place| place.lane < lanes);
        match known {
            Some(place) => self.stands[place.lane].end = None,
            None => self.stands.iter_mut().for_each(|stand| stand.end = None),
        }
        let file = match known {
            Some(place) if damage != Damage::Place => {
                segment_file(place.lane, place.position / bytes)
            }
            _ => places_file(sequence / PLACES),
        };
        if sequence >= self.known.next {
            self.behind.get_or_insert(sequence);
        }
        let lane = place.map(|place| place.lane as u32);
        let position = place.map(|place| place.position);
        self.report.note_record(DamagedRecord { sequence, damage, lane, position, file });
    }

    /// Compares where the lanes stand with what the checkpoint says, at its sequence.
    fn compare_with_checkpoint(&mut self) {
        for (lane, stand) in self.stands.iter().enumerate() {
            let (Some(end), Some(number)) = (stand.end, stand.number) else { continue };
            let (told, count) = (self.known.ends[lane], self.known.numbers[lane]);
            // A lane that had nothing yet has no end.
            if (told, count) != (end, number) && !(number == 0 && count == 0) {
                // A recovery may have let it go on in a new segment.
                let bytes = self.source.files().shape.segment_bytes;
                let moved = told.is_multiple_of(bytes) && told > end && count == number;
                if !moved {
                    let what = format!(
                        "it says that lane {lane} ends at {told} with {count} messages, and it \
                         ends at {end} with {number}"
                    );
                    self.report.note_file("checkpoint", what);
                }
            }
        }
    }

    /// Where a recovery would end the log.
    fn at_checkpoint(&mut self) {
        let report = &mut self.report;
        if self.known.next > report.next {
            let what = format!(
                "it says that all messages below {} are on disk, and the log ends at {}",
                self.known.next, report.next
            );
            report.note_file("checkpoint", what);
        }
        if self.known.floor > report.next {
            let what = format!("it says that the oldest message is {}", self.known.floor);
            report.note_file("checkpoint", what);
        }
        // As the recovery does: the end of what reached the disk, or the end of what is sound.
        let is_strict =
            claim::past_of(self.source.files()) == Past::Unknown && self.known.number > 0;
        report.recovered_next = match self.behind {
            Some(behind) if is_strict => behind,
            Some(_) => self.sound_end,
            None => report.next,
        };
        report.would_cut = report.next - report.recovered_next;
    }

    /// What is behind the end of a log that nobody uses: what a recovery clears.
    fn behind_the_end(&mut self, listing: &Listing) {
        let next = self.report.next;
        for number in listing.pieces.iter().copied().filter(|it| *it >= next / PLACES) {
            let Ok(Some(piece)) = self.source.piece(number) else { continue };
            let from = next.max(number * PLACES);
            let all = from..(number + 1).saturating_mul(PLACES);
            self.report.would_cut += all.filter(|it| piece.read(*it).is_some()).count() as u64;
        }
        let bytes = self.files().shape.segment_bytes;
        for (lane, numbers) in &listing.segments {
            let Some(end) = self.stands.get(*lane).and_then(|stand| stand.end) else { continue };
            let mut residue = 0;
            for logical in numbers.iter().copied().filter(|it| *it >= end / bytes) {
                let at = if logical == end / bytes { end % bytes } else { PROLOGUE as u64 };
                let Ok(Some(segment)) = self.source.segment(*lane, logical) else { continue };
                residue += cut::residue(&segment, at).unwrap_or(0);
            }
            self.report.lanes.entry(*lane as u32).or_default().residue_bytes = residue;
        }
    }
}
