//! This process's membership of a bus.

use crate::error::{Error, ErrorKind, Result};
use crate::shm::home::{Folder, Home};
use crate::shm::loss::Loss;
use crate::shm::node::{Node, NodeLock, NodeTable};
use crate::shm::sys;
use std::cell::Cell;
use std::fmt;

/// This process's membership of a bus: a node. It lives until the last handle that was made through it is dropped.
pub struct Member {
    pub(super) home: Home,
    pub(super) folder: Folder,
    pub(super) lock: NodeLock,
    pub(super) table: NodeTable,
    /// What became of the control file of the bus.
    pub(super) loss: Loss,
    /// The inode of the PID namespace of this process.
    pub(super) namespace: u32,
}

impl Member {
    /// The number of this node.
    pub fn node(&self) -> u32 {
        self.lock.id()
    }

    /// The folder of the bus.
    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Refuses to go on in a child that inherited this membership through `fork`: it would act in
    /// the name of its parent.
    ///
    /// # Errors
    ///
    /// `Forked` in such a child.
    pub fn check_process(&self) -> Result<()> {
        if self.lock.is_inherited() {
            let text = format!(
                "this handle of bus {} was inherited through fork; open the bus again in the child",
                self.folder
            );
            return Err(Error::new(ErrorKind::Forked, text));
        }
        Ok(())
    }

    /// Whether a node lives. `false` only on the kernel's word.
    pub fn is_alive(&self, node: u32) -> bool {
        self.lock.is_alive(node)
    }

    /// The process of a node, if the node is still known.
    pub fn process_of(&self, node: u32) -> Option<Process> {
        self.table.find(node).map(|node| self.process(&node))
    }

    pub(super) fn process(&self, node: &Node) -> Process {
        Process { pid: node.pid, is_elsewhere: node.namespace != self.namespace }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        if !self.lock.is_inherited() {
            self.table.leave(&self.lock);
        }
    }
}

/// A number that no other bus or topic has, for all practical purposes.
pub fn new_identity() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    // The keys of `RandomState` come from the operating system; time and process make up for repeats within it.
    let mut hasher = std::collections::hash_map::RandomState::new().build_hasher();
    hasher.write_u64(sys::monotonic_ns());
    hasher.write_u32(std::process::id());
    hasher.finish()
}

/// A process that is a member of a bus, to show to people.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    /// Its number, in the PID namespace that it runs in.
    pub pid: u32,
    /// Whether that is another PID namespace than that of this process, in which another process may have the number.
    pub is_elsewhere: bool,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.is_elsewhere { " in another PID namespace" } else { "" };
        write!(f, "process {}{place}", self.pid)
    }
}

/// Nodes whose fate a round remembers; it asks the kernel again after others.
const REMEMBERED: usize = 16;

/// The nodes that were asked after in one round, a handful of them, without an allocation.
pub struct Living<'a> {
    member: &'a Member,
    known: Cell<[(u32, bool); REMEMBERED]>,
    count: Cell<usize>,
}

impl<'a> Living<'a> {
    /// Nobody was asked after yet.
    pub fn new(member: &'a Member) -> Self {
        Self { member, known: Cell::new([(0, false); REMEMBERED]), count: Cell::new(0) }
    }

    /// Whether a node lives, or did when it was asked after first.
    pub fn is_alive(&self, node: u32) -> bool {
        let (mut known, count) = (self.known.get(), self.count.get());
        if let Some((_, alive)) = known[..count].iter().find(|(known, _)| *known == node) {
            return *alive;
        }
        let alive = self.member.is_alive(node);
        if let Some(free) = known.get_mut(count) {
            *free = (node, alive);
            self.known.set(known);
            self.count.set(count + 1);
        }
        alive
    }
}
