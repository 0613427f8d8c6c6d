//! The thread that does for a process what the publishers of its log would otherwise wait for: it prepares segments and
//! pieces of the order ahead, puts on disk what was written, writes checkpoints, and deletes what is not to be kept.
//!
//! There is one for each log that a process publishes on. It begins with the first publisher and ends, with everything
//! on disk and a checkpoint of it, when the last handle of the process goes. It holds no claim and no lease. Nothing
//! waits for it: what is not prepared a publisher makes itself, a bit later than it would have been there.
//!
//! # If a process dies
//!
//! Files that were prepared and not used lie behind the end of their lane, where nobody looks but who goes on there: a
//! publisher in the same lane uses them, a recovery removes them. What was not put on disk yet others see to
//! ([`ledger`](super::ledger)).

use crate::error::{Error, ErrorKind, Result};
use crate::log::desk::{alarm_of, Desk};
use crate::log::files::{LogFiles, Segment};
use crate::log::ledger::Ledger;
use crate::log::prepare;
use crate::log::retain;
use crate::log::source::Source;
use crate::log::times::Summaries;
use crate::ring::log::{Head, Piece};
use crate::shm::map::{self, Access};
use crate::shm::sys;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const STACK_BYTES: usize = 256 << 10;

/// How often at most a checkpoint is written.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(1);

/// How long after a failure to try again.
const AGAIN: Duration = Duration::from_millis(100);

/// The keeper of one log in one process.
pub struct Keeper {
    files: Arc<LogFiles>,
    head: Head,
    shared: Arc<Mutex<State>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    fork_epoch: u32,
}

#[derive(Default)]
struct State {
    desks: Vec<Arc<Desk>>,
    has_ended: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Keeper {
    /// A keeper that has nothing to do yet.
    pub fn new(files: Arc<LogFiles>, head: Head) -> Self {
        let (shared, thread) = (Arc::default(), Mutex::default());
        Self { files, head, shared, thread, fork_epoch: sys::fork_epoch() }
    }

    /// A desk for the pen of a lane.
    ///
    /// # Errors
    ///
    /// `Limit` if there is no thread to be had; those of reading the checkpoint.
    pub fn attend(&self, lane: usize) -> Result<Arc<Desk>> {
        let mut thread = lock(&self.thread);
        let running = match &mut *thread {
            Some(running) => running,
            none => none.insert(self.start()?),
        };
        let desk = Arc::new(Desk::new(lane, running.thread().clone()));
        lock(&self.shared).desks.push(desk.clone());
        Ok(desk)
    }

    /// The pen of this desk is gone.
    pub fn leave(&self, desk: &Arc<Desk>) {
        if self.fork_epoch != sys::fork_epoch() {
            // A child of fork has no such thread, and nobody to unlock what it may have locked.
            return;
        }
        lock(&self.shared).desks.retain(|other| !Arc::ptr_eq(other, desk));
    }

    fn start(&self) -> Result<JoinHandle<()>> {
        let cannot = |error: &dyn std::fmt::Display| {
            Error::new(
                ErrorKind::Limit,
                format!(
                    "cannot start the thread that keeps the log {} ({error}): this user may not \
                     have another thread (ulimit -u), or this process has no memory for its stack \
                     (ulimit -v); raise the limit",
                    self.files.folder
                ),
            )
        };
        let ledger = Ledger::open(self.files.clone(), self.head.clone())?;
        // A thread that finds no memory while it starts ends the process. So it is asked for before.
        map::try_to_map(2 * STACK_BYTES).map_err(|error| cannot(&error))?;
        let source = Source::of_files((*self.files).clone());
        let mut work = Work {
            files: self.files.clone(),
            head: self.head.clone(),
            shared: self.shared.clone(),
            ledger: Some(ledger),
            lanes: Vec::new(),
            spare: None,
            summaries: Some(Summaries::new(source, self.head.floor())),
            has_rolled: false,
            synced_at: Instant::now(),
            written_at: Instant::now(),
            has_failed: false,
        };
        let builder = std::thread::Builder::new().name("windlass-keeper".into());
        let started = builder.stack_size(STACK_BYTES).spawn(move || {
            sys::let_faults_in();
            work.run();
        });
        started.map_err(|error| cannot(&error))
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let mut thread = match self.thread.get_mut() {
            Ok(thread) => thread.take(),
            Err(poisoned) => poisoned.into_inner().take(),
        };
        if self.fork_epoch != sys::fork_epoch() {
            // A child of fork has no such thread, and nobody to unlock what it may have locked.
            std::mem::forget(thread.take());
            return;
        }
        let Some(thread) = thread else { return };
        lock(&self.shared).has_ended = true;
        thread.thread().unpark();
        let _ = thread.join();
    }
}

/// A lane of this process.
struct Kept {
    desk: Arc<Desk>,
    /// The segment that is written, and the one before it, so that the publisher is not the last to have it mapped.
    segments: Vec<Segment>,
    /// The segment whose first part was touched.
    touched: Option<u64>,
}

/// What the thread has.
struct Work {
    files: Arc<LogFiles>,
    head: Head,
    shared: Arc<Mutex<State>>,
    /// Not there while it is at work, and lets others have a turn.
    ledger: Option<Ledger>,
    lanes: Vec<Kept>,
    /// The newest piece that was prepared.
    spare: Option<Piece>,
    /// Not there while it is at work.
    summaries: Option<Summaries>,
    /// Whether a segment was begun since the last round of the ledger.
    has_rolled: bool,
    /// When the last round was.
    synced_at: Instant,
    /// When the last checkpoint was written.
    written_at: Instant,
    /// Whether something failed that was told of.
    has_failed: bool,
}

impl Work {
    fn run(&mut self) {
        loop {
            let has_ended = self.look();
            if has_ended {
                break;
            }
            self.prepare();
            self.sync_if_due();
            match self.due() {
                Some(left) => std::thread::park_timeout(left),
                None => std::thread::park(),
            }
        }
        self.round(false);
        self.write();
    }

    /// Finds out which lanes there are, and what was begun in them. True if this is the end.
    fn look(&mut self) -> bool {
        let state = lock(&self.shared);
        let (desks, has_ended) = (state.desks.clone(), state.has_ended);
        drop(state);
        let left = self.lanes.len();
        self.lanes.retain(|kept| desks.iter().any(|desk| Arc::ptr_eq(desk, &kept.desk)));
        // What a pen wrote that is gone is put on disk soon.
        self.has_rolled |= self.lanes.len() < left;
        for desk in desks {
            if !self.lanes.iter().any(|kept| Arc::ptr_eq(&kept.desk, &desk)) {
                self.lanes.push(Kept { desk, segments: Vec::new(), touched: None });
            }
        }
        for kept in &mut self.lanes {
            while let Some(segment) = kept.desk.begun() {
                self.has_rolled |= !kept.segments.is_empty();
                kept.segments.push(segment);
            }
            // However long it is until they are put on disk: each is an open file and a mapping.
            let old = kept.segments.len().saturating_sub(2);
            kept.segments.drain(..old);
        }
        has_ended
    }

    /// Makes and touches what is wanted.
    fn prepare(&mut self) {
        self.prepare_pieces();
        let of = |kept: &mut Kept| {
            let segment = kept.segments.last().cloned();
            let logical = segment.as_ref().map(|segment| segment.logical);
            let is_new = std::mem::replace(&mut kept.touched, logical) != logical;
            (kept.desk.clone(), segment, is_new)
        };
        // Between the parts of the work lanes come and go.
        let lanes: Vec<_> = self.lanes.iter_mut().map(of).collect();
        for (desk, segment, is_new) in lanes {
            let files = self.files.clone();
            if let Some(segment) = segment {
                // The next one is wanted when a part of this one is full: the rest of it is as urgent.
                let alarm = alarm_of(files.shape.segment_bytes);
                let urgent = &mut || self.attend_to_urgent();
                if desk.is_wanting() {
                    prepare::touch(&segment, alarm, usize::MAX, urgent);
                } else if is_new {
                    prepare::touch(&segment, 0, alarm, urgent);
                }
            }
            let Some(logical) = desk.wanted() else { continue };
            let urgent = &mut || self.attend_to_urgent();
            match prepare::segment(&files, desk.lane, logical, Some(urgent)) {
                Ok(prepared) => {
                    desk.put_segment(prepared);
                    self.has_failed = false;
                }
                Err(error) => {
                    desk.want_again(logical);
                    self.fail(&error);
                }
            }
        }
    }

    /// Between the parts of what takes long.
    fn attend_to_urgent(&mut self) {
        self.prepare_pieces();
        self.sync_if_due();
    }

    fn prepare_pieces(&mut self) {
        for index in 0..self.lanes.len() {
            let desk = self.lanes[index].desk.clone();
            let Some(number) = desk.wanted_piece() else { continue };
            if self.spare.as_ref().is_none_or(|spare| spare.number() != number) {
                match prepare::piece(&self.files, number, Some(&mut || {})) {
                    Ok(piece) => self.spare = Some(piece),
                    Err(error) => {
                        self.fail(&error);
                        continue;
                    }
                }
            }
            if let Some(spare) = self.spare.clone() {
                desk.put_piece(spare);
            }
        }
    }

    /// When something has to be done though nobody asks for it.
    fn due(&self) -> Option<Duration> {
        let shape = &self.files.shape;
        let of_sync = match shape.sync_ns {
            0 => self.has_rolled.then_some(AGAIN),
            _ if shape.is_synced_each() => Some(CHECKPOINT_EVERY),
            ns => Some(Duration::from_nanos(ns).saturating_sub(self.synced_at.elapsed())),
        };
        let of_age = (shape.retain_ns > 0).then_some(CHECKPOINT_EVERY);
        let of_failure = self.lanes.iter().any(|kept| kept.desk.is_wanting()).then_some(AGAIN);
        [of_sync, of_age, of_failure].into_iter().flatten().min()
    }

    fn sync_if_due(&mut self) {
        if self.ledger.is_none() {
            return;
        }
        let shape = &self.files.shape;
        let is_due = match shape.sync_ns {
            0 => self.has_rolled,
            _ if shape.is_synced_each() => self.synced_at.elapsed() >= CHECKPOINT_EVERY,
            ns => self.synced_at.elapsed() >= Duration::from_nanos(ns),
        };
        if is_due {
            self.has_rolled = false;
            let patient = shape.sync_ns > 0;
            self.synced_at = Instant::now();
            self.round(patient);
        }
        let is_time = self.written_at.elapsed() >= CHECKPOINT_EVERY;
        if (is_due && !self.files.shape.is_synced_often()) || is_time {
            self.write();
        }
    }

    /// Puts on disk what was written.
    fn round(&mut self, patient: bool) {
        let mine: Vec<usize> = self.lanes.iter().map(|kept| kept.desk.lane).collect();
        let Some(mut ledger) = self.ledger.take() else { return };
        let done = ledger.round(&mine, patient, &mut || {
            self.look();
            self.prepare();
        });
        match done {
            Ok(()) => self.has_failed = false,
            // Somebody else deleted, as was to be, what was about to be put on disk.
            Err(_) if self.head.floor() > ledger.known().next => {}
            Err(error) => self.fail(&error),
        }
        self.ledger = Some(ledger);
        // What was put on disk may not be written without a fault: it is touched before the publisher gets there.
        let bytes = self.files.shape.segment_bytes;
        for kept in &self.lanes {
            let (synced, page) = (self.head.lane_synced(kept.desk.lane), map::page_size());
            let Some(segment) = kept.segments.last() else { continue };
            if segment.logical == synced / bytes {
                let at = segment.lane.segment_at() + (synced % bytes) as usize;
                map::prefault(
                    segment.region(),
                    at,
                    page.min(segment.region().len() - at),
                    Access::Write,
                );
            }
        }
    }

    /// Writes a checkpoint of what is on disk, and deletes what is not to be kept.
    fn write(&mut self) {
        self.written_at = Instant::now();
        let Some(mut ledger) = self.ledger.take() else { return };
        if let Err(error) = self.write_by(&mut ledger) {
            self.fail(&error);
        }
        self.ledger = Some(ledger);
        self.summarise();
    }

    /// Writes summaries of the times of what is on disk.
    fn summarise(&mut self) {
        let Some(mut summaries) = self.summaries.take() else { return };
        loop {
            let next = self.ledger.as_ref().map_or(0, |ledger| ledger.known().next);
            match summaries.write_one(self.head.floor(), next) {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) => {
                    self.fail(&error);
                    break;
                }
            }
            if self.look() {
                break;
            }
            self.prepare();
            self.sync_if_due();
        }
        self.summaries = Some(summaries);
    }

    fn write_by(&self, ledger: &mut Ledger) -> Result<()> {
        let floor = retain::floor(&self.files, &self.head, ledger.known().next)?;
        if ledger.write(floor)? {
            retain::delete_below(&self.files, &self.head, ledger.known().floor)?;
        }
        Ok(())
    }

    /// Says what went wrong, once for as long as it goes wrong.
    fn fail(&mut self, error: &Error) {
        if !self.has_failed {
            tracing::error!(log = %self.files.folder, %error, "the keeper of a log goes on later");
        }
        self.has_failed = true;
    }
}
