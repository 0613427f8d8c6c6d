//! Life and death: a node is alive for as long as the kernel holds its lock.
//!
//! One file, the control file of the bus, carries the locks of all nodes, far behind its last byte.
//! Node `id` holds a write lock on the one byte that is its own:
//!
//! ```text
//!   0          len              LOCK_BASE                LOCK_BASE + id
//!   ├── file ───┤ ··· nothing ··· ├───┬───┬───┬── ··· ─────┬───┬──
//!                                 │ 0 │ 1 │ 2 │            │ id│  one byte per node that ever was
//! ```
//!
//! The kernel gives a lock back when the last descriptor of its open file is closed: when the
//! handle is dropped, or the process ends, however it ends. Asking takes nothing and disturbs
//! nobody. A stopped, swapped or debugged process keeps its lock. Only the kernel's word that a
//! lock is free is proof of death; every doubt counts as alive.
//!
//! # Invariants
//!
//! * `N1` — A node number is used once. So a number that was proved dead stays dead.
//! * `N2` — A node holds its lock before its number stands in any shared word, and until it has
//!   left all of them. So a number that is found in a shared word, and whose lock is free, is that
//!   of a dead node.
//! * `N3` — Every node has an open file of its own, which no other node, and no child of its
//!   process, shares: dropping one of several nodes of a process releases one lock.
//!
//! # Orderings
//!
//! | edge    | `Release`                    | `Acquire`                     | hands over           |
//! |---------|------------------------------|-------------------------------|----------------------|
//! | `ALIVE` | fence in `try_lock`          | fence before the question     | that it is locked    |
//! | `DEATH` | the kernel, ending a process | fence after the kernel's word | what the dead stored |
//!
//! They are fences because the number of a node stands in many words, of this and other rooms:
//! whichever of them a process read it from, and however, N2 holds. The words of the table itself
//! are `Relaxed`: a slot hands over nothing but its own words, and each is complete in itself.
//!
//! # If a process dies
//!
//! Before its lock: its number is lost, nothing else. After: its slot of the node table is taken by
//! the next node that joins, or freed by whoever calls [`NodeTable::reap`]. Both may be killed
//! anywhere: each slot changes by one compare-and-swap from a word that names the dead. Checked by
//! the tests below, with processes.

use super::place::Region;
use super::sys::Guarded;
use crate::error::{Error, ErrorKind, Result};
use crate::sync::{fence, AtomicU64, Ordering, Ordering::Relaxed};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg};
use std::fs::File;
use std::os::unix::fs::MetadataExt;

/// Offset of the lock of node 0. Behind every byte that a control file can have.
pub const LOCK_BASE: i64 = 1 << 40;

/// The lock that makes a node alive. Dropping it is the death of the node.
pub struct NodeLock {
    id: u32,
    held: Guarded,
}

/// What the kernel is asked about, or for: the byte of node `id`.
fn byte_of(id: u32, kind: libc::c_int) -> libc::flock {
    range_of(kind, i64::from(id))
}

/// A lock of `kind` on the byte that is `byte` behind all bytes that a file can have.
pub fn range_of(kind: libc::c_int, byte: i64) -> libc::flock {
    let narrow = |value| libc::c_short::try_from(value).expect("lock constants are small");
    libc::flock {
        l_type: narrow(kind),
        l_whence: narrow(libc::SEEK_SET),
        l_start: LOCK_BASE + byte,
        l_len: 1,
        l_pid: 0, // Required for a lock that belongs to an open file.
    }
}

impl NodeLock {
    /// Takes the lock of node `id` on the file that `open` opens, which must be a new open file, to
    /// write (N3).
    ///
    /// # Errors
    ///
    /// Those of `open`; `Corrupt` if somebody holds the lock, which N1 excludes.
    pub fn acquire(open: impl FnOnce() -> Result<File>, id: u32) -> Result<Self> {
        let held = Guarded::open(open)?;
        step!("node.lock");
        match try_lock(held.file(), id) {
            Ok(true) => Ok(Self { id, held }),
            Ok(false) => Err(Error::corrupt(
                "the control file of the bus",
                "its count of nodes",
                id,
                "a number that no living node has",
            )),
            Err(error) => {
                Err(Error::io(format!("cannot take the lock of node {id}"), error.into()))
            }
        }
    }

    /// The number of this node.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Whether this process inherited the handle through `fork`, and so is not the node.
    pub fn is_inherited(&self) -> bool {
        self.held.is_inherited()
    }

    /// Whether node `id` is alive. `false` only if the kernel says that its lock is free.
    pub fn is_alive(&self, id: u32) -> bool {
        // An own lock is not in the way of its own open file, so the kernel would call it free. An
        // inherited handle has no file to ask about.
        id == self.id || self.is_inherited() || is_alive(self.held.file(), id)
    }
}

impl Drop for NodeLock {
    fn drop(&mut self) {
        if self.is_inherited() {
            return;
        }
        step!("node.unlock");
        // Released by name, not left to the close: a child that is being forked right now may hold
        // a copy of the open file for an instant longer.
        if let Err(error) = unlock(self.held.file(), self.id) {
            tracing::warn!(%error, node = self.id, "the lock of a node is released late");
        }
    }
}

/// Takes the lock of byte `id` through `file`, a [`Guarded`] one. False if another open file has it.
///
/// # Errors
///
/// If the kernel has no locks to give.
pub fn try_lock(file: &File, id: u32) -> Result<bool, Errno> {
    loop {
        match fcntl(file, FcntlArg::F_OFD_SETLK(&byte_of(id, libc::F_WRLCK))) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN | Errno::EACCES) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    // DEATH: whoever had it before is done, or dead: what it stored is seen from here on.
    fence(Ordering::Acquire);
    // ALIVE: pairs with the first fence in `is_alive`. Every store of the number comes after the lock.
    fence(Ordering::Release);
    Ok(true)
}

/// Gives the lock of byte `id` back.
///
/// # Errors
///
/// If the kernel refuses; it takes the lock back when the file is closed.
pub fn unlock(file: &File, id: u32) -> Result<(), Errno> {
    // DEATH: pairs with the fence in `try_lock` of the next holder.
    fence(Ordering::Release);
    fcntl(file, FcntlArg::F_OFD_SETLK(&byte_of(id, libc::F_UNLCK))).map(drop)
}

/// Whether a node other than the one that locked through `file`, if any, has number `id` and is
/// alive.
///
/// For a process that is not a node: `file` may be opened to read. A failed question counts as
/// alive.
pub fn is_alive(file: &File, id: u32) -> bool {
    let mut lock = byte_of(id, libc::F_WRLCK);
    // ALIVE: pairs with the fence in `try_lock`. The number was read before; the question comes
    // after.
    fence(Ordering::Acquire);
    while let Err(error) = fcntl(file, FcntlArg::F_OFD_GETLK(&mut lock)) {
        if error != Errno::EINTR {
            tracing::warn!(%error, node = id, "cannot tell whether a node is alive");
            return true;
        }
    }
    // DEATH: pairs with the end of the process, in the kernel. Whoever repairs sees all that the
    // dead did.
    fence(Ordering::Acquire);
    i32::from(lock.l_type) != libc::F_UNLCK
}

/// Bytes of one slot of a node table.
pub const SLOT_BYTES: usize = 16;

/// The nodes of a bus: who they are, for messages and tools. The truth about life is in the locks.
///
/// A slot is two words. The first, `{id: 32, pid: 32}`, is the slot: 0 is free. The second, `{id:
/// 32, inode: 32}`, tells in which process name space the pid counts, and holds only while its id
/// is that of the first.
#[derive(Clone)]
pub struct NodeTable {
    region: Region,
    counter: usize,
    slots: usize,
    slots_max: usize,
}

/// A node, as its slot has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its number.
    pub id: u32,
    /// Its process, in the process name space that it runs in.
    pub pid: u32,
    /// The inode of that name space; 0 if it is not known.
    pub namespace: u32,
}

fn pack(id: u32, low: u32) -> u64 {
    (u64::from(id) << 32) | u64::from(low)
}

fn unpack(word: u64) -> (u32, u32) {
    let low = u32::try_from(word & u64::from(u32::MAX)).expect("32 bits");
    (u32::try_from(word >> 32).expect("32 bits"), low)
}

impl NodeTable {
    /// The table of `slots_max` slots at `slots` of the control file, with the word at `counter`
    /// that counts nodes.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it does not fit the file: the offsets come from there.
    pub fn new(region: Region, counter: usize, slots: usize, slots_max: usize) -> Result<Self> {
        let bytes = slots_max.checked_mul(SLOT_BYTES);
        let end = bytes.and_then(|bytes| slots.checked_add(bytes));
        let fits = end.is_some_and(|end| end <= region.len())
            && counter.checked_add(8).is_some_and(|end| end <= region.len())
            && slots.is_multiple_of(8)
            && counter.is_multiple_of(8);
        if !fits {
            return Err(Error::corrupt(
                "the control file of the bus",
                "its node table",
                format!("{slots_max} slots at byte {slots}, counted at byte {counter}"),
                format!("aligned and within {} bytes", region.len()),
            ));
        }
        Ok(Self { region, counter, slots, slots_max })
    }

    fn word(&self, slot: usize) -> &AtomicU64 {
        self.region.word(self.slots + slot * SLOT_BYTES)
    }

    fn namespace_word(&self, slot: usize) -> &AtomicU64 {
        self.region.word(self.slots + slot * SLOT_BYTES + 8)
    }

    /// A node number that nobody had before: N1. The first is 1.
    ///
    /// # Errors
    ///
    /// `Limit` if all numbers are used up.
    pub fn draw_id(&self) -> Result<u32> {
        step!("node.number");
        let counter = self.region.word(self.counter);
        // Relaxed: the number is all that is drawn. It never wraps: a used number would come back
        // to life.
        let drawn = counter
            .fetch_update(Relaxed, Relaxed, |last| (last < u64::from(u32::MAX)).then(|| last + 1));
        let id = drawn.ok().and_then(|last| u32::try_from(last + 1).ok());
        id.ok_or_else(|| {
            let text = "the bus has had as many nodes as there are numbers; create it anew";
            Error::new(ErrorKind::Limit, text)
        })
    }

    /// Enters the node that holds `lock` with its `pid`, in a free slot or in that of a dead node.
    ///
    /// # Errors
    ///
    /// `Limit` if all slots belong to the living.
    pub fn join(&self, lock: &NodeLock, pid: u32) -> Result<usize> {
        let mine = pack(lock.id(), pid);
        step!("node.join");
        loop {
            let mut overtaken = false;
            for slot in 0..self.slots_max {
                let found = self.word(slot).load(Relaxed);
                if found != 0 && lock.is_alive(unpack(found).0) {
                    continue;
                }
                // N1: the word cannot have become that of another node and back.
                if self.word(slot).compare_exchange(found, mine, Relaxed, Relaxed).is_ok() {
                    step!("node.namespace");
                    self.namespace_word(slot).store(pack(lock.id(), own_namespace()), Relaxed);
                    return Ok(slot);
                }
                overtaken = true;
            }
            // Somebody else took a slot that was seen free. One that left in the meantime may have
            // freed another.
            if !overtaken {
                return Err(Error::new(
                    ErrorKind::Limit,
                    format!(
                        "the bus has room for {} nodes, and all of them are alive; close one, or \
                         create the bus anew with room for more",
                        self.slots_max
                    ),
                ));
            }
        }
    }

    /// Takes the node that holds `lock` out. Repeating it does nothing.
    pub fn leave(&self, lock: &NodeLock) {
        if lock.is_inherited() {
            return;
        }
        step!("node.leave");
        for slot in 0..self.slots_max {
            let found = self.word(slot).load(Relaxed);
            if unpack(found).0 == lock.id() {
                // It fails only if the slot is not ours.
                let _ = self.word(slot).compare_exchange(found, 0, Relaxed, Relaxed);
            }
        }
    }

    /// Frees the slots of the dead, and returns how many. `lock` is that of the caller.
    pub fn reap(&self, lock: &NodeLock) -> usize {
        let dead = |slot: &usize| {
            let found = self.word(*slot).load(Relaxed);
            if found == 0 || lock.is_alive(unpack(found).0) {
                return false;
            }
            step!("node.reap");
            // It fails if somebody else was faster: then it is theirs to count.
            self.word(*slot).compare_exchange(found, 0, Relaxed, Relaxed).is_ok()
        };
        (0..self.slots_max).filter(dead).count()
    }

    /// The node in a slot.
    fn node(&self, slot: usize) -> Option<Node> {
        let (id, pid) = unpack(self.word(slot).load(Relaxed));
        let (owner, namespace) = unpack(self.namespace_word(slot).load(Relaxed));
        let namespace = if owner == id { namespace } else { 0 };
        (id != 0).then_some(Node { id, pid, namespace })
    }

    /// All nodes that have a slot, the dead included.
    pub fn nodes(&self) -> Vec<Node> {
        (0..self.slots_max).filter_map(|slot| self.node(slot)).collect()
    }

    /// Node `id`, if it has a slot.
    pub fn find(&self, id: u32) -> Option<Node> {
        (0..self.slots_max).filter_map(|slot| self.node(slot)).find(|node| node.id == id)
    }
}

/// The inode of the process name space of this process; 0 if the kernel does not say.
pub fn own_namespace() -> u32 {
    let inode = std::fs::metadata("/proc/self/ns/pid").map_or(0, |metadata| metadata.ino());
    u32::try_from(inode).unwrap_or(0)
}

#[cfg(test)]
mod tests;
