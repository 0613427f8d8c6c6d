//! Mapped files, with their memory reserved before and their end guarded after.
//!
//! ```text
//!   base                        base + len              next page
//!    ├── the file, shared ───────────┼── zeros of its page ──┼── guard: no access ──┤
//! ```
//!
//! * `M1` — Every byte of a file that [`reserve`] accepted has memory or disk behind it. A file
//!   system that is full says so there, as an error, and never later, as `SIGBUS`.
//! * `M2` — A file mapped with [`Access::Read`] cannot be written through the mapping: the
//!   processor refuses.
//! * `M3` — A page that lost its file after it was mapped is noted as a [`Loss`] instead of ending
//!   the process.
//! * `M4` — The page after a mapping faults. An index that escaped every check stops the process
//!   instead of reading or writing what happens to lie there.
//!
//! The guard is made without a second mapping: the file is mapped one page longer than it is, and
//! that page, which has no file behind it, loses every permission before anybody knows the address.

#![allow(unsafe_code)]

use super::loss::{Loss, Watched};
use super::place::Region;
use crate::error::{Error, ErrorKind, Result};
use memmap2::{MmapOptions, MmapRaw};
use nix::errno::Errno;
use nix::fcntl::{fallocate, FallocateFlags};
use nix::sys::resource::{getrlimit, Resource};
use nix::unistd::{sysconf, SysconfVar};
use rustix::mm::{Advice, MprotectFlags, MsyncFlags};
use std::fmt::Display;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::ptr::NonNull;
use std::sync::Arc;

/// What a mapping, or an open file, may be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Loads only; a store faults.
    Read,
    /// Loads and stores.
    Write,
}

/// How much is reserved by one system call. `tmpfs` gives up, and gives back, a whole call when a
/// signal arrives, so a call must be short enough that a process with a busy timer gets on.
const RESERVE_BYTES: u64 = 16 << 20;

/// A mapping, and what watches it, which ends first.
struct Mapping {
    _watched: Watched,
    _mapped: MmapRaw,
}

/// Maps all of `file`, which must be `expected_len` bytes long. `what` names it in errors. If the
/// file is shortened later, `loss` says so.
///
/// # Errors
///
/// `Corrupt` if the file has another length, `NoSpace` if the process may not map so much,
/// `Permission` if the file was not opened for `access`.
pub fn map(
    file: &File,
    what: impl Display,
    access: Access,
    expected_len: u64,
    loss: &Loss,
) -> Result<Region> {
    let metadata = file.metadata().map_err(|e| Error::io(format!("cannot look at {what}"), e))?;
    if metadata.len() != expected_len || expected_len == 0 {
        let expected = match expected_len {
            0 => "those of a windlass file".to_owned(),
            len => format!("{len} bytes"),
        };
        return Err(Error::corrupt(what, "its length", metadata.len(), expected));
    }
    let page = page_size();
    let lengths = usize::try_from(expected_len).ok().and_then(|len| {
        let guard_at = len.checked_next_multiple_of(page)?;
        Some((len, guard_at, guard_at.checked_add(page)?))
    });
    let Some((len, guard_at, total)) = lengths else {
        return Err(too_much(what, expected_len, &Errno::EOVERFLOW.into()));
    };
    let mut options = MmapOptions::new();
    options.len(total);
    let mapped = match access {
        Access::Read => options.map_raw_read_only(file),
        Access::Write => options.map_raw(file),
    };
    let mapped = mapped.map_err(|error| match error.kind() {
        std::io::ErrorKind::OutOfMemory => too_much(&what, expected_len, &error),
        std::io::ErrorKind::WouldBlock => Error::new(
            ErrorKind::NoSpace,
            format!(
                "cannot map the {expected_len} bytes of {what}: this process locks its memory \
                 (mlockall) and may not lock so much more; raise its limit (ulimit -l), or use \
                 smaller or fewer segments"
            ),
        ),
        _ => Error::io(format!("cannot map {what}"), error),
    })?;
    guard(&mapped, guard_at).map_err(|error| Error::io(format!("cannot map {what}"), error))?;
    let base = NonNull::new(mapped.as_ptr().cast_mut()).expect("a mapping is never at address 0");
    let start = base.as_ptr() as usize;
    let watched = Watched::new(start, start + guard_at, access == Access::Write, loss)?;
    let keep = Arc::new(Mapping { _watched: watched, _mapped: mapped });
    // SAFETY: a mapping starts at a page, and its first `len` bytes stay mapped, with the access
    // asked for, until `keep` is dropped, which the region keeps.
    Ok(unsafe { Region::new(base, len, keep) })
}

/// Takes every permission from what lies behind `guard_at`: M4.
fn guard(mapped: &MmapRaw, guard_at: usize) -> std::io::Result<()> {
    let guard = mapped.as_ptr().cast_mut().wrapping_add(guard_at).cast();
    let len = mapped.len() - guard_at;
    // SAFETY: the pages are part of a mapping that we own, and no reference into it has been made
    // yet.
    unsafe { rustix::mm::mprotect(guard, len, MprotectFlags::empty()) }?;
    Ok(())
}

/// Maps so many bytes of memory, and gives them back: whether this process may, now.
pub fn try_to_map(bytes: usize) -> std::io::Result<()> {
    memmap2::MmapMut::map_anon(bytes).map(drop)
}

fn too_much(what: impl Display, bytes: u64, error: &std::io::Error) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!(
            "cannot map the {bytes} bytes of {what}: this process may not map more memory \
             ({error}); raise its limit (ulimit -v, or vm.max_map_count), or use smaller or fewer \
             segments"
        ),
    )
}

/// Touches the pages under `len` bytes at `offset`, so that no later access has to wait for the
/// kernel.
///
/// `access` must be one that the region was mapped with. `false` if the kernel cannot: pages are
/// then touched one by one as they are used, and nothing else differs.
pub fn prefault(region: &Region, offset: usize, len: usize, access: Access) -> bool {
    assert!(offset <= region.len() && len <= region.len() - offset, "only what is mapped");
    let start = region.base().wrapping_add(offset);
    let in_page = start as usize % page_size();
    let start = start.wrapping_sub(in_page);
    let advice = match access {
        Access::Read => Advice::LinuxPopulateRead,
        Access::Write => Advice::LinuxPopulateWrite,
    };
    loop {
        // SAFETY: contract 1: the pages are mapped while `region` lives; populating them changes no
        // byte, and what the kernel cannot populate it refuses.
        match unsafe { rustix::mm::madvise(start.cast(), in_page + len, advice) } {
            Ok(()) => return true,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => {
                tracing::debug!(%error, len, "pages are not touched ahead");
                return false;
            }
        }
    }
}

/// Puts the pages under `len` bytes at `offset` on disk, and no others, and waits for it.
///
/// # Errors
///
/// If they may not be there.
pub fn sync(region: &Region, offset: usize, len: usize) -> std::io::Result<()> {
    assert!(offset <= region.len() && len <= region.len() - offset, "only what is mapped");
    let start = region.base().wrapping_add(offset);
    let in_page = start as usize % page_size();
    let start = start.wrapping_sub(in_page);
    loop {
        // SAFETY: contract 1: the pages are mapped while `region` lives; writing them out changes no byte.
        match unsafe { rustix::mm::msync(start.cast(), in_page + len, MsyncFlags::SYNC) } {
            Err(rustix::io::Errno::INTR) => {}
            synced => return Ok(synced?),
        }
    }
}

/// Makes a new `file` `len` bytes long, all zero, with all of its memory or disk space: M1. `what`
/// names it in errors.
///
/// On an error the file has its old length again.
///
/// # Errors
///
/// `NoSpace` if the file system or the machine has not that much, or the process may not use it.
pub fn reserve(file: &File, what: impl Display, len: u64) -> Result<()> {
    reserve_by(file, what, len, |at, span| fallocate(file, FallocateFlags::empty(), at, span))
}

/// Reserves `len` bytes by calls of `reserve_span`, which gets offsets and lengths.
fn reserve_by(
    file: &File,
    what: impl Display,
    len: u64,
    reserve_span: impl FnMut(libc::off_t, libc::off_t) -> nix::Result<()>,
) -> Result<()> {
    let cannot = |error| Error::io(format!("cannot reserve {len} bytes for {what}"), error);
    let metadata = file.metadata().map_err(cannot)?;
    let old_len = metadata.len();
    if old_len > len {
        return Err(Error::corrupt(what, "its length", old_len, format!("at most {len} bytes")));
    }
    // The kernel ends a process that exceeds this limit with a signal.
    let limit = getrlimit(Resource::RLIMIT_FSIZE).map_err(|error| cannot(error.into()))?.0;
    if len > limit {
        return Err(Error::new(
            ErrorKind::NoSpace,
            format!(
                "cannot reserve {len} bytes for {what}: this process may not make a file longer \
                 than {limit} bytes; raise its limit (ulimit -f) or use smaller segments"
            ),
        ));
    }
    // Asked first, because a file system that fills up while we try would fail everybody else too.
    let needed = len.saturating_sub(metadata.blocks().saturating_mul(512));
    let free = free_bytes(file).map_err(cannot)?;
    if needed > free {
        return Err(no_space(what, needed, free));
    }
    step!("file.reserve");
    let reserved = file.set_len(len).and_then(|()| allocate(file, old_len, len, reserve_span));
    reserved.map_err(|error| {
        // Gives back what was reserved. Nobody has mapped the new part yet.
        let _ = file.set_len(old_len);
        match error.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM | Errno::EFBIG) => {
                no_space(&what, needed, free_bytes(file).unwrap_or(0))
            }
            _ => Error::io(format!("cannot reserve {len} bytes for {what}"), error),
        }
    })
}

/// Puts memory or disk blocks under the first `len` bytes of `file`.
fn allocate(
    file: &File,
    old_len: u64,
    len: u64,
    mut reserve_span: impl FnMut(libc::off_t, libc::off_t) -> nix::Result<()>,
) -> std::io::Result<()> {
    let mut done = 0;
    while done < len {
        let bytes = RESERVE_BYTES.min(len - done);
        let range = (libc::off_t::try_from(done), libc::off_t::try_from(bytes));
        let (Ok(at), Ok(span)) = range else {
            return Err(Errno::EFBIG.into());
        };
        match reserve_span(at, span) {
            Ok(()) => done += bytes,
            Err(Errno::EINTR) => {}
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => return write_zeros(file, old_len, len),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The same for a file system that cannot reserve: what is written is there.
fn write_zeros(file: &File, from: u64, to: u64) -> std::io::Result<()> {
    let zeros = vec![0; 1 << 16];
    let mut at = from;
    while at < to {
        let span = usize::try_from(to - at).map_or(zeros.len(), |left| left.min(zeros.len()));
        file.write_all_at(&zeros[..span], at)?;
        at += span as u64;
    }
    Ok(())
}

/// The bytes that a new file can get beside `file`.
fn free_bytes(file: &File) -> std::io::Result<u64> {
    let system = rustix::fs::fstatvfs(file)?;
    if system.f_blocks > 0 {
        return Ok(system.f_bfree.saturating_mul(system.f_frsize));
    }
    // A file system without a size lives in the memory of the machine, and would get the process
    // killed instead.
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let bytes = |name: &str| {
        let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    let free = bytes("MemAvailable:").map(|free| free + bytes("SwapFree:").unwrap_or(0));
    Ok(free.unwrap_or(u64::MAX))
}

fn no_space(what: impl Display, needed: u64, free: u64) -> Error {
    Error::new(
        ErrorKind::NoSpace,
        format!(
            "cannot reserve {needed} bytes for {what}: {free} bytes are free there; use smaller \
             segments, use fewer, or give the file system more room (for /dev/shm: mount -o \
             remount,size=... /dev/shm)"
        ),
    )
}

/// Bytes of a page of memory.
pub fn page_size() -> usize {
    let size = sysconf(SysconfVar::PAGE_SIZE).ok().flatten();
    size.and_then(|size| usize::try_from(size).ok()).expect("every kernel has a page size")
}

#[cfg(test)]
mod tests;
