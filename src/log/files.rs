//! The files of a log: making, opening and mapping them.

use crate::error::{Error, ErrorKind, Result};
use crate::layout::header::{Header, Kind};
use crate::layout::log::{self as layout, LogShape};
use crate::layout::place::POSITION_END;
use crate::layout::record;
use crate::limits::{HEADER_BYTES, PLACES};
use crate::log::prepare::{self, Making};
use crate::ring::lane::Lane;
use crate::ring::log::Piece;
use crate::ring::order::TAIL_MAX;
use crate::ring::pins::Pins;
use crate::shm::home::{folder_mode, Created, Folder};
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use crate::shm::place::Region;
use crate::sync::Ordering::Relaxed;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

/// An open log.
#[derive(Clone)]
pub struct LogFiles {
    /// Its folder.
    pub folder: Folder,
    /// What it was created with.
    pub shape: LogShape,
    /// The number that all its files carry.
    pub identity: u64,
    /// What became of its files.
    pub loss: Loss,
}

/// A mapped segment.
#[derive(Clone)]
pub struct Segment {
    /// Its bytes, as a lane with this one segment.
    pub lane: Lane,
    /// Its number in its lane.
    pub logical: u64,
    /// What its checksums begin with.
    pub seed: u32,
    region: Region,
    file: Arc<File>,
}

impl Segment {
    /// The sequence from which on everything is in this segment or in later ones.
    pub fn after(&self) -> u64 {
        // Relaxed: stored before the segment was told of.
        self.region.word(layout::AFTER_AT).load(Relaxed)
    }

    /// Begins the segment.
    pub fn begin(&self, number: u64, after: u64) {
        // Relaxed: published by what follows, which is told of by the place of its first record.
        self.region.word(layout::AFTER_AT).store(after, Relaxed);
        self.lane.begin_segment(self.logical, number);
    }

    /// Whether it was begun: what it says of earlier segments is true then.
    pub fn is_begun(&self) -> bool {
        self.lane.is_begun(self.logical)
    }

    /// Whether its file is still in its folder.
    pub fn has_name(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.nlink() > 0)
    }

    /// The mapping of the whole file.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// The file.
    pub fn file(&self) -> &Arc<File> {
        &self.file
    }
}

/// What lies in the folder of a log.
#[derive(Debug, Default)]
pub struct Listing {
    /// The numbers of the segments of each lane, in order.
    pub segments: BTreeMap<usize, Vec<u64>>,
    /// The numbers of the pieces of the order, in order.
    pub pieces: Vec<u64>,
}

const PUT_BACK: &str = "put the files back where they were, or remove this one to do without it";

/// Refuses a file of another log.
pub fn belongs(header: &Header, identity: u64, what: &str) -> Result<()> {
    if header.identity == identity {
        return Ok(());
    }
    let text = format!("{what} belongs to another log; {PUT_BACK}");
    Err(Error::new(ErrorKind::Mismatch, text))
}

impl LogFiles {
    /// Opens the log in `folder`. `loss` says whether its files, and what else is noted there, are whole.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; `Corrupt`, `Mismatch` if it is not one that this library reads.
    pub fn open(folder: Folder, loss: &Loss) -> Result<Self> {
        let what = format!("{folder}/log");
        let file = folder.open_file("log", Access::Read)?;
        let len = file.metadata().map_err(|error| Error::io(&what, error))?.len();
        let most = (HEADER_BYTES * 2 + crate::limits::SCHEMA_BYTES_MAX) as u64;
        if len > most {
            return Err(Error::corrupt(what, "its length", len, format!("at most {most}")));
        }
        let region = map::map(&file, &what, Access::Read, len, loss)?;
        let header = Header::read(&region, Kind::Log, &what)?;
        let shape = LogShape::from_header(&header, &what)?;
        Ok(Self { folder, shape, identity: header.identity, loss: loss.clone() })
    }

    /// Makes a log under `name` in `parent`, unless there is something of that name.
    pub fn create(parent: &Folder, name: &str, shape: &LogShape, schema: &[u8]) -> Result<()> {
        let identity = crate::bus::new_identity();
        let created = parent.create_folder_atomically(name, folder_mode(shape.mode), |folder| {
            let header = shape.to_header(identity);
            let made =
                folder.create_file_atomically("log", header.file_bytes, shape.mode, |region| {
                    for (index, chunk) in schema.chunks(8).enumerate() {
                        let mut word = [0; 8];
                        word[..chunk.len()].copy_from_slice(chunk);
                        let at = LogShape::SCHEMA_AT + index * 8;
                        // Relaxed: published by the rename.
                        region.word(at).store(u64::from_le_bytes(word), Relaxed);
                    }
                    header.write(region);
                    Ok(())
                })?;
            made.sync_all()
                .map_err(|error| Error::io(format!("cannot write {folder}/log"), error))?;
            super::checkpoint::create(folder, identity, shape.mode)?;
            super::claim::create(folder, identity, shape.mode)?;
            folder.sync()
        })?;
        match created {
            Created::Mine(_) => parent.sync(),
            Created::Theirs => Ok(()),
        }
    }

    /// The schema that the log stores, checked against its checksum.
    pub fn schema_bytes(&self) -> Result<Vec<u8>> {
        let what = format!("{}/log", self.folder);
        let file = self.folder.open_file("log", Access::Read)?;
        let region = map::map(&file, &what, Access::Read, self.shape.file_bytes(), &self.loss)?;
        let (len, crc) = (self.shape.schema_bytes as usize, self.shape.schema_crc);
        crate::message::stored_schema(&region, LogShape::SCHEMA_AT, len, crc, &what)
    }

    /// What lies in the folder now.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        let (lanes, segments) =
            (self.shape.publishers_max as usize, POSITION_END / self.shape.segment_bytes);
        for name in self.folder.files()? {
            // Names that no file of the log can have are those of other things.
            match (layout::segment_of(&name), layout::piece_of(&name)) {
                (Some((lane, logical)), _) if lane < lanes && logical + 1 < segments => {
                    listing.segments.entry(lane).or_default().push(logical);
                }
                (_, Some(piece)) if piece < TAIL_MAX / PLACES => listing.pieces.push(piece),
                _ => {}
            }
        }
        listing.segments.values_mut().for_each(|numbers| numbers.sort_unstable());
        listing.pieces.sort_unstable();
        Ok(listing)
    }

    /// Maps segment `logical` of a lane. `None` if there is no such file.
    pub fn segment(&self, lane: usize, logical: u64, access: Access) -> Result<Option<Segment>> {
        let name = layout::segment_file(lane, logical);
        let expected = self.shape.segment_header(self.identity, lane, logical);
        let Some((region, file)) = self.map(&name, &expected, access)? else { return Ok(None) };
        let pins = Pins::new(region.clone(), 0, 0, 0, 0);
        let bytes = self.shape.segment_bytes as usize;
        let seed = record::seed(self.identity, lane, logical);
        let file = Arc::new(file);
        let lane = Lane::new(region.clone(), pins, lane, 1, bytes);
        Ok(Some(Segment { lane, logical, seed, region, file }))
    }

    /// Makes segment `logical` of a lane, unless it is there.
    pub fn create_segment(&self, lane: usize, logical: u64, making: &mut Making<'_>) -> Result<()> {
        let name = layout::segment_file(lane, logical);
        // The others of a group read it.
        let mode = self.shape.mode & !0o022;
        let header = self.shape.segment_header(self.identity, lane, logical);
        self.make(&name, &header, mode, making)
    }

    /// Maps piece `number` of the order. `None` if there is no such file.
    pub fn piece(&self, number: u64, access: Access) -> Result<Option<(Piece, File)>> {
        let expected = self.shape.places_header(self.identity, number);
        let mapped = self.map(&layout::places_file(number), &expected, access)?;
        Ok(mapped.map(|(region, file)| (Piece::new(region, layout::PLACES_AT, number), file)))
    }

    /// Makes piece `number` of the order, unless it is there.
    pub fn create_piece(&self, number: u64, making: &mut Making<'_>) -> Result<()> {
        let header = self.shape.places_header(self.identity, number);
        self.make(&layout::places_file(number), &header, self.shape.mode, making)
    }

    fn make(&self, name: &str, header: &Header, mode: u32, making: &mut Making<'_>) -> Result<()> {
        if self.folder.exists(name)? {
            return Ok(());
        }
        let bytes = header.file_bytes;
        let made = self.folder.create_file_if_absent(name, bytes, mode, |file, region| {
            header.write(region);
            match making {
                None => Ok(()),
                Some(between) => {
                    let what = format!("{}/{name}", self.folder);
                    prepare::fill(&self.shape, file, &what, region.len(), *between)
                }
            }
        });
        made.map(drop)
    }

    fn map(&self, name: &str, expected: &Header, access: Access) -> Result<Option<(Region, File)>> {
        let file = match self.folder.open_file(name, access) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let what = format!("{}/{name}", self.folder);
        let region = map::map(&file, &what, access, expected.file_bytes, &self.loss)?;
        let header = Header::read(&region, expected.kind, &what)?;
        belongs(&header, expected.identity, &what)?;
        if header != *expected {
            return Err(Error::new(
                ErrorKind::Mismatch,
                format!("{what} is a file of this log under the name of another one; {PUT_BACK}"),
            ));
        }
        Ok(Some((region, file)))
    }

    /// Gives a file whose beginning, end or length is damaged those that it should have. What is between stays.
    ///
    /// For whoever makes the log ready, and judges what is between.
    pub fn mend(&self, name: &str, header: &Header) -> Result<()> {
        let what = format!("{}/{name}", self.folder);
        let file = self.folder.open_file(name, Access::Write)?;
        let len = file.metadata().map_err(|error| Error::io(&what, error))?.len();
        step!("recover.mend");
        if len > header.file_bytes {
            file.set_len(header.file_bytes).map_err(|error| Error::io(&what, error))?;
        }
        map::reserve(&file, &what, header.file_bytes)?;
        let region = map::map(&file, &what, Access::Write, header.file_bytes, &self.loss)?;
        header.write(&region);
        tracing::warn!(%what, len, "gave a damaged file a beginning and an end again");
        file.sync_all().map_err(|error| self.cannot_sync(error))
    }

    /// What is said if what a recovery did cannot be put on disk.
    pub fn cannot_sync(&self, error: std::io::Error) -> Error {
        Error::io(format!("cannot read the end of the log {}, or write it", self.folder), error)
    }

    /// Refuses to act on what was read if a file of the log lost pages: they read as zeroes.
    pub fn check_loss(&self) -> Result<()> {
        self.loss.check(format_args!("the log {}", self.folder))
    }
}
