//! Files that are cut short while they are mapped.
//!
//! A page of a mapping that has no file behind it any more ends the process with `SIGBUS` when it is touched. Windlass
//! never shortens a file, but anybody with the right to write it can, on purpose or by mistake: `truncate`, `cp`, a
//! hole in a file on a full file system. So the handler of that signal looks whether the address belongs to one of our
//! mappings. If so it puts zeroed private pages there, from the page that faulted to the end of the mapping, and notes
//! the loss; the process goes on, and whatever it was doing says `Corrupt` before it acts on what it read. Any other
//! `SIGBUS` goes where it would have gone without us.
//!
//! ```text
//!   start            fault                end
//!     ├── the file ────┼── zeroed, private ──┼── guard
//! ```
//!
//! # Invariants
//!
//! * `L1` — A span is in the table from before anybody can touch its mapping until after nobody can.
//! * `L2` — Spans change behind the gate of `sys`, one at a time and never while the process forks; the handler, which
//!   cannot wait, reads none that changes (`span`). The span of a mapping that faults does not change, by `L1`.
//! * `L3` — A loss is noted before the pages are replaced. So whoever stored to a replaced page, and asks then, knows.
//!
//! # Orderings
//!
//! | edge    | `Release`                        | `Acquire`                | hands over            |
//! |---------|----------------------------------|--------------------------|-----------------------|
//! | `LOST`  | fence after the note, in the handler | fence before the note is asked for | the note |
//! | `CHUNK` | `next`, when the table grows     | `next`, in the handler   | a chunk of spans      |

#![allow(unsafe_code)]

use crate::error::{Error, Result};
use crate::shm::map::page_size;
use crate::shm::span::{Extent, Span};
use crate::shm::sys;
use rustix::mm::{MapFlags, ProtFlags};
use std::ptr::{null, null_mut};
use std::sync::atomic::{compiler_fence, fence, AtomicBool, AtomicPtr, AtomicUsize, Ordering::*};
use std::sync::{Arc, OnceLock};

/// Whether a file of a group, such as those of one topic, lost pages while this process had it mapped.
#[derive(Clone, Debug, Default)]
pub struct Loss(Arc<Note>);

/// On lines of its own: it is looked at for every message, and beside it somebody may write.
#[derive(Debug, Default)]
#[repr(C, align(128))]
struct Note {
    happened: AtomicBool,
}

impl Loss {
    /// True from the first access on that found nothing behind a page.
    #[inline]
    pub fn happened(&self) -> bool {
        // LOST: what was accessed before the question must not be accessed after it instead. Only the compiler could do
        // that: to the processor a fault is in its place.
        compiler_fence(SeqCst);
        // LOST: another thread, which the handler did not run in, sees the note if it saw one of the pages.
        fence(Acquire);
        self.0.happened.load(Relaxed)
    }

    /// Notes a loss if the last word of a file is not the mark that its maker left there: it was cut short, and perhaps
    /// made longer again.
    pub fn probe(&self, last: u64, mark: u64) {
        if last != mark {
            self.0.happened.store(true, Relaxed);
        }
    }

    /// Refuses to go on with what was read of the files of `what`.
    ///
    /// # Errors
    ///
    /// `Corrupt` if a loss happened.
    pub fn check(&self, what: impl std::fmt::Display) -> Result<()> {
        if !self.happened() {
            return Ok(());
        }
        let found = "shortened while this process had it mapped";
        Err(Error::corrupt(
            what,
            "a file of it",
            found,
            "its full length; remove it and create it anew",
        ))
    }
}

/// Spans in a chunk of the table.
const SPANS: usize = 64;

/// Part of the table. Chunks are never freed.
struct Chunk {
    spans: [Span; SPANS],
    next: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn empty() -> Self {
        Self { spans: [const { Span::new() }; SPANS], next: AtomicPtr::new(null_mut()) }
    }

    fn next(&self) -> Option<&'static Chunk> {
        // CHUNK: pairs with the store in `grow`.
        let next = self.next.load(Acquire);
        // SAFETY: a chunk that was linked is whole, by CHUNK, and is never freed.
        unsafe { next.as_ref() }
    }
}

static TABLE: Chunk = Chunk::empty();
/// What is done about a `SIGBUS` that is not ours.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();
/// Bytes of a page, for the handler.
static PAGE: AtomicUsize = AtomicUsize::new(4096);

type Detailed = extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void);
type Plain = extern "C" fn(libc::c_int);

fn chunks() -> impl Iterator<Item = &'static Chunk> {
    std::iter::successors(Some(&TABLE), |chunk| chunk.next())
}

/// A mapping whose faults are caught while this lives. It ends before the mapping does.
pub struct Watched {
    span: &'static Span,
    // The table points into it.
    _loss: Loss,
}

impl Watched {
    /// Watches the pages `start..end`, a mapping of this process.
    ///
    /// # Errors
    ///
    /// If the process cannot be prepared for a fork.
    pub fn new(start: usize, end: usize, writable: bool, loss: &Loss) -> Result<Self> {
        let note = (&raw const loss.0.happened).expose_provenance();
        let extent = Extent { start, end, writable, note };
        let span = sys::while_nobody_forks(|| {
            install();
            let free = chunks().flat_map(|chunk| &chunk.spans).find(|span| span.is_free());
            let span = free.unwrap_or_else(|| &grow().spans[0]);
            span.set(Some(extent));
            span
        })?;
        Ok(Self { span, _loss: loss.clone() })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        sys::while_nobody_forks_again(|| self.span.set(None));
    }
}

/// Adds a chunk to the table. The caller keeps others from doing so.
fn grow() -> &'static Chunk {
    let last = chunks().last().expect("the table has a first chunk");
    let grown: &'static Chunk = Box::leak(Box::new(Chunk::empty()));
    // CHUNK: pairs with the load in `Chunk::next`.
    last.next.store(std::ptr::from_ref(grown).cast_mut(), Release);
    grown
}

/// Installs the handler, once per process. The caller keeps others from doing so.
fn install() {
    if BEFORE.get().is_some() {
        return;
    }
    // SAFETY: all zeroes are a valid action: the default, without flags and with an empty mask.
    let mut before: libc::sigaction = unsafe { std::mem::zeroed() };
    // What was there is noted first: a fault of another thread may come at once.
    // SAFETY: without a new action the call only writes to `before`.
    let asked = unsafe { libc::sigaction(libc::SIGBUS, null(), &mut before) };
    PAGE.store(page_size(), Relaxed);
    let _ = BEFORE.set(before);
    if asked != 0 || !set_handler() {
        tracing::warn!("a file that is shortened while it is mapped will end this process");
    }
}

/// Makes ours the handler. False if the system refuses. Allowed in a handler.
fn set_handler() -> bool {
    // SAFETY: all zeroes are a valid action.
    let mut ours: libc::sigaction = unsafe { std::mem::zeroed() };
    // On the alternative stack if the thread has one: that of the process may be what is full.
    ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    ours.sa_sigaction = on_fault as *const () as libc::sighandler_t;
    // SAFETY: `on_fault` makes only system calls that are allowed in a handler, and reads atomics.
    unsafe { libc::sigaction(libc::SIGBUS, &ours, null_mut()) == 0 }
}

extern "C" fn on_fault(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
) {
    // SAFETY: the kernel passes a valid description of the signal.
    let signal = unsafe { &*info };
    // SAFETY: the description of this signal has an address.
    let address = unsafe { signal.si_addr() } as usize;
    if signal.si_code == libc::BUS_ADRERR && replace(address) {
        return;
    }
    pass_on(number, info, context, signal.si_code <= 0);
}

/// Puts zeroed pages where `address` lies in a mapping of ours.
fn replace(address: usize) -> bool {
    let mut extents = chunks().flat_map(|chunk| &chunk.spans).filter_map(Span::get);
    let Some(extent) = extents.find(|extent| (extent.start..extent.end).contains(&address)) else {
        return false;
    };
    let loss = std::ptr::with_exposed_provenance::<AtomicBool>(extent.note);
    // SAFETY: by `L1` the span lives, and with it the note that it holds.
    unsafe { &*loss }.store(true, Relaxed);
    // LOST: pairs with the fence in `happened`; the kernel makes the pages visible behind it.
    fence(Release);
    // Relaxed: stored before the handler was installed.
    let start = address & !(PAGE.load(Relaxed) - 1);
    let access = if extent.writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
    // SAFETY: by `L1` the pages from `start` to `end` are a mapping of ours, of which no byte from `start` on has
    // anything behind it: what was read there is lost in any case.
    let replaced = unsafe {
        rustix::mm::mmap_anonymous(
            start as *mut _,
            extent.end - start,
            access,
            MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
        )
    };
    replaced.is_ok()
}

/// Does what would have been done without us. `sent`: by somebody, and not by an access.
fn pass_on(
    number: libc::c_int,
    info: *mut libc::siginfo_t,
    context: *mut libc::c_void,
    sent: bool,
) {
    let before = BEFORE.get();
    let before = before.map_or((libc::SIG_DFL, 0), |before| (before.sa_sigaction, before.sa_flags));
    match before {
        (libc::SIG_IGN, _) if sent => {}
        (libc::SIG_DFL | libc::SIG_IGN, _) => {
            // SAFETY: all zeroes are the default action, which has no handler.
            let default: libc::sigaction = unsafe { std::mem::zeroed() };
            // SAFETY: as above.
            unsafe { libc::sigaction(number, &default, null_mut()) };
            if sent {
                // Held back until this returns. An access is repeated instead.
                // SAFETY: a signal to this thread.
                unsafe { libc::raise(number) };
            }
        }
        (handler, flags) => {
            if flags & libc::SA_SIGINFO != 0 {
                // SAFETY: the kernel had it as a handler of this kind.
                let handler: Detailed = unsafe { std::mem::transmute(handler) };
                handler(number, info, context);
            } else {
                // SAFETY: the kernel had it as a handler of this kind.
                let handler: Plain = unsafe { std::mem::transmute(handler) };
                handler(number);
            }
            if sent {
                // It may have given up its place, expecting a repeated access to end the process.
                set_handler();
            }
        }
    }
}

#[cfg(test)]
mod tests;
