//! A bus: a directory of topics, and this process's membership of it.

mod member;
mod services;

pub(crate) use member::{new_identity, Living, Member, Process};

use crate::error::{Error, ErrorKind, Result};
use crate::layout::header::{Header, Kind, END_BYTES, FIELDS};
use crate::limits::{HEADER_BYTES, NODES_MAX};
use crate::message::dynamic::Schema;
use crate::queue::{self, Queue, QueueBuilder, QueueInfo, UntypedQueue};
use crate::shm::home::{Folder, Home, SHARED_MODE};
use crate::shm::loss::Loss;
use crate::shm::map::{self, Access};
use crate::shm::node::{own_namespace, Node, NodeLock, NodeTable, SLOT_BYTES};
use crate::tokens::{self, TokenQueueBuilder, TokenQueueInfo};
use crate::topic::core::Core;
use crate::topic::{inspect, repair, Payload, TopicBuilder, TopicInfo, UntypedTopic};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

const CONTROL: &str = "bus";
const COUNTER_AT: usize = 512;
const SLOTS_AT: usize = 1024;

/// How to open a bus, where the defaults of [`Bus::open`] do not fit.
#[derive(Clone, Debug)]
pub struct BusOptions {
    mode: u32,
    create: bool,
}

impl BusOptions {
    /// Shares the bus with a group: its members open it with this option, too, by the same path, and nobody else gets
    /// in. Topics let the group take part as well, unless their [`mode`](TopicBuilder::mode) says otherwise.
    ///
    /// The group is that of the folder that the bus is made in if that hands its group on (`chmod g+s`), else that of
    /// this process. Everybody writes lanes of their own, which the others can only read. What somebody made can be
    /// removed by them and by whoever made the bus.
    pub fn group(mut self) -> Self {
        self.mode = SHARED_MODE;
        self
    }

    /// Only opens a bus that exists.
    pub fn existing(mut self) -> Self {
        self.create = false;
        self
    }

    /// Opens the bus; see [`Bus::open`].
    ///
    /// # Errors
    ///
    /// As for [`Bus::open`]; `NotFound` if it has to exist and does not.
    pub fn open(&self, name_or_path: &str) -> Result<Bus> {
        let home = Home::find(name_or_path)?;
        let folder = if self.create {
            home.open_bus(self.mode, |folder| build(folder, self.mode & 0o660))?.0
        } else {
            let shared = self.mode == SHARED_MODE;
            home.open_existing_bus(shared).map_err(|error| match error.kind() {
                ErrorKind::NotFound => Error::new(
                    ErrorKind::NotFound,
                    format!(
                        "there is no bus at {}; start what makes it, or open it without \
                         BusOptions::existing",
                        home.path().display()
                    ),
                ),
                _ => error,
            })?
        };
        Bus::join(home, folder)
    }
}

/// Bytes of a control file with room for `nodes` nodes: pages.
fn bytes_of(nodes: usize) -> u64 {
    (SLOTS_AT + nodes * SLOT_BYTES + END_BYTES).next_multiple_of(HEADER_BYTES) as u64
}

/// Makes the control file of a new bus.
fn build(folder: &Folder, mode: u32) -> Result<()> {
    let bytes = bytes_of(NODES_MAX);
    folder.create_file_atomically(CONTROL, bytes, mode, |region| {
        let mut fields = [0; FIELDS];
        fields[0] = NODES_MAX as u64;
        let identity = new_identity();
        Header { kind: Kind::Bus, file_bytes: bytes, identity, fields }.write(region);
        Ok(())
    })?;
    Ok(())
}

/// A message bus of the processes of this machine: a directory in shared memory that holds topics.
///
/// Opening a bus makes this process a *node* of it. The kernel holds a lock for as long as the node lives; that lock,
/// and no timeout, is how others know. Cheap to clone; a clone is the same node.
///
/// # `fork`
///
/// A child made by `fork` without `exec` inherits handles that do not work: every operation on them says `Forked`, and
/// dropping them touches nothing. Open the bus again in the child.
///
/// # Examples
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use windlass::{Bus, Raw, Start};
///
/// let bus = Bus::anonymous()?; // Bus::open("market")? for processes
/// let topic = bus.topic::<Raw>("ticks").open()?;
/// let mut subscriber = topic.subscriber(Start::Latest)?;
/// let mut publisher = topic.publisher()?;
/// publisher.publish(b"101.25")?;
/// assert_eq!(subscriber.try_recv()?.map(|message| message.bytes().to_vec()), Some(b"101.25".to_vec()));
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Bus {
    member: Arc<Member>,
}

impl Bus {
    /// Opens the bus of that name or path, creating it if it does not exist.
    ///
    /// A name (letters, digits, `.`, `_`, `-`) lies under `/dev/shm/windlass-<uid>/`, which belongs to this user alone,
    /// or under the directory that the variable `WINDLASS_ROOT` names. Anything with a `/` is a path, whose parent must
    /// exist.
    ///
    /// # Errors
    ///
    /// `Permission` if the directory belongs to somebody else or is open to others, or if everybody may exchange what
    /// is in its parent; `Mismatch` if the bus was made by another version; `NoSpace`, `Limit`, `Corrupt`.
    pub fn open(name_or_path: &str) -> Result<Self> {
        Self::options().open(name_or_path)
    }

    /// How to open a bus otherwise than by default.
    pub fn options() -> BusOptions {
        BusOptions { mode: 0o700, create: true }
    }

    /// A bus in the memory of this process, for its threads and for tests: the same API, no files.
    ///
    /// # Errors
    ///
    /// `NoSpace` if there is no memory, or no descriptor left.
    pub fn anonymous() -> Result<Self> {
        let home = Home::anonymous();
        let (folder, _) = home.open_bus(0o700, |folder| build(folder, 0o600))?;
        Self::join(home, folder)
    }

    fn join(home: Home, folder: Folder) -> Result<Self> {
        let what = format!("{folder}/{CONTROL}");
        let file = folder.open_file(CONTROL, Access::Write)?;
        let len = file.metadata().map_err(|error| Error::io(&what, error))?.len();
        if len > bytes_of(NODES_MAX) {
            return Err(Error::corrupt(what, "its length", len, bytes_of(NODES_MAX)));
        }
        let loss = Loss::default();
        let region = map::map(&file, &what, Access::Write, len, &loss)?;
        let header = Header::read(&region, Kind::Bus, &what)?;
        let slots = header.fields[0];
        if slots == 0 || slots > NODES_MAX as u64 {
            return Err(Error::corrupt(&what, "its number of nodes", slots, NODES_MAX));
        }
        if len != bytes_of(slots as usize) {
            return Err(Error::corrupt(&what, "its length", len, bytes_of(slots as usize)));
        }
        let table = NodeTable::new(region.clone(), COUNTER_AT, SLOTS_AT, slots as usize)?;
        let id = table.draw_id()?;
        let lock = NodeLock::acquire(|| folder.open_file(CONTROL, Access::Write), id)?;
        table.join(&lock, std::process::id())?;
        loss.probe(region.last(), header.identity);
        loss.check(&what)?;
        let namespace = own_namespace();
        Ok(Self { member: Arc::new(Member { home, folder, lock, table, loss, namespace }) })
    }

    /// Names a topic of this bus, to create or open it. `T` is [`Raw`](crate::Raw) for bytes or the `Owned` type of a
    /// Cap'n Proto struct.
    pub fn topic<T: Payload>(&self, name: &str) -> TopicBuilder<T> {
        TopicBuilder::new(self.member.clone(), name)
    }

    /// The names of all topics, in order.
    pub fn topics(&self) -> Result<Vec<String>> {
        self.member.check_process()?;
        self.member.folder().folders(".topic")
    }

    /// Names a work queue of this bus, to create or open it. `T` is [`Raw`](crate::Raw) for bytes or the `Owned` type
    /// of a Cap'n Proto struct.
    pub fn queue<T: Payload>(&self, name: &str) -> QueueBuilder<T> {
        QueueBuilder::new(self.member.clone(), name)
    }

    /// The names of all work queues, in order.
    pub fn queues(&self) -> Result<Vec<String>> {
        self.member.check_process()?;
        self.member.folder().folders(".queue")
    }

    /// Looks at a work queue without taking part in it: options, depth, who works on what, counters.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such queue; `Corrupt` if it is damaged.
    pub fn inspect_queue(&self, queue: &str) -> Result<QueueInfo> {
        let core = self.open_queue(queue, Access::Read)?;
        core.check_data()?;
        queue::inspect(&core)
    }

    /// Opens a work queue that exists without knowing its type: for tools.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such queue; `Corrupt` if it is damaged.
    pub fn queue_untyped(&self, queue: &str) -> Result<UntypedQueue> {
        let core = self.open_queue(queue, Access::Write)?;
        Ok(UntypedQueue::new(Queue::new(core)))
    }

    /// Removes a work queue with everything in it. Its name is free at once; processes that have it open keep it among
    /// themselves.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such queue.
    pub fn remove_queue(&self, queue: &str) -> Result<()> {
        self.member.check_process()?;
        crate::shm::home::check_name("queue", queue)?;
        self.member.folder().remove_folder(&format!("{queue}.queue"))
    }

    fn open_queue(&self, queue: &str, access: Access) -> Result<Arc<queue::core::Core>> {
        self.member.check_process()?;
        crate::shm::home::check_name("queue", queue)?;
        let folder = self.member.folder();
        let opened =
            folder.open_folder(&format!("{queue}.queue")).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    Error::new(ErrorKind::NotFound, format!("bus {folder} has no queue {queue}"))
                }
                _ => error,
            })?;
        queue::core::Core::open(queue, opened, self.member.clone(), access)
    }

    /// Names a queue of bare tokens of this bus, to create or open it.
    pub fn tokens(&self, name: &str) -> TokenQueueBuilder {
        TokenQueueBuilder::new(self.member.clone(), name)
    }

    /// The names of all queues of tokens, in order.
    pub fn token_queues(&self) -> Result<Vec<String>> {
        self.member.check_process()?;
        self.member.folder().folders(".tokens")
    }

    /// Looks at a queue of tokens: options, and how many tokens are in it.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such queue; `Corrupt` if it is damaged.
    pub fn inspect_tokens(&self, name: &str) -> Result<TokenQueueInfo> {
        self.member.check_process()?;
        crate::shm::home::check_name("token queue", name)?;
        tokens::inspect(&self.member, name)
    }

    /// Removes a queue of tokens. Its name is free at once; processes that have it open keep it among themselves.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such queue.
    pub fn remove_tokens(&self, name: &str) -> Result<()> {
        self.member.check_process()?;
        crate::shm::home::check_name("token queue", name)?;
        self.member.folder().remove_folder(&format!("{name}.tokens"))
    }

    /// Looks at a topic without taking part in it: options, members, lag, counters.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such topic; `Corrupt` if it is damaged.
    pub fn inspect(&self, topic: &str) -> Result<TopicInfo> {
        inspect(&*self.open_core(topic, Access::Read)?)
    }

    /// The type of the messages of a topic, to read them without their generated code. None if they are raw bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such topic; `Corrupt` if it is damaged.
    pub fn schema(&self, topic: &str) -> Result<Option<Schema>> {
        let core = self.open_core(topic, Access::Read)?;
        core.shape.typed.then(|| Schema::parse(&core.schema_bytes()?)).transpose()
    }

    /// Opens a topic that exists without knowing its type: for tools.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such topic; `Corrupt` if it is damaged.
    pub fn topic_untyped(&self, topic: &str) -> Result<UntypedTopic> {
        Ok(UntypedTopic::new(self.open_core(topic, Access::Write)?))
    }

    fn open_core(&self, topic: &str, access: Access) -> Result<Arc<Core>> {
        self.member.check_process()?;
        crate::shm::home::check_name("topic", topic)?;
        let folder = self.member.folder();
        let opened =
            folder.open_folder(&format!("{topic}.topic")).map_err(|error| match error.kind() {
                ErrorKind::NotFound => {
                    let text = format!("bus {folder} has no topic {topic}; create it first");
                    Error::new(ErrorKind::NotFound, text)
                }
                _ => error,
            })?;
        Core::open(topic, opened, self.member.clone(), access)
    }

    /// Removes a topic with everything in it. Its name is free at once; processes that have it open keep what they have
    /// until they let go, but meet nobody new: a subscriber that has not read from a publisher yet may not get to, and
    /// on an ordered topic its stream ends there.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such topic.
    pub fn remove_topic(&self, topic: &str) -> Result<()> {
        self.member.check_process()?;
        crate::shm::home::check_name("topic", topic)?;
        self.member.folder().remove_folder(&format!("{topic}.topic"))
    }

    /// Removes the bus of that name or path with everything in it; see [`remove_topic`](Self::remove_topic).
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such bus.
    pub fn remove(name_or_path: &str) -> Result<()> {
        Home::find(name_or_path)?.remove_bus()
    }

    /// Repairs now what the dead left in every topic. Nobody needs this to go on: whoever is hindered repairs by
    /// itself. What hinders nobody, such as the half-built files of a builder that died, stays until it is called. On
    /// a bus of a group, a topic that another member keeps for itself is left to that member.
    ///
    /// # Errors
    ///
    /// The first topic that cannot be opened or is damaged; what could be repaired is.
    pub fn repair(&self) -> Result<RepairReport> {
        self.member.check_process()?;
        let mut report =
            RepairReport { nodes: self.member.table.reap(&self.member.lock), ..Default::default() };
        let (home, folder) = (&self.member.home, self.member.folder());
        report.temporaries = home.sweep_temporaries() + folder.sweep_temporaries();
        let shared = folder.is_shared()?;
        let mut failed = None;
        for topic in self.topics()? {
            let repaired = match self.open_core(&topic, Access::Write) {
                Err(error) if shared && error.kind() == ErrorKind::Permission => Ok(()),
                opened => opened.and_then(|core| repair(&core, &mut report)),
            };
            if let Err(error) = repaired {
                failed = failed.or(Some(error));
            }
        }
        for queue in self.queues()? {
            let opened = self.open_queue(&queue, Access::Write);
            match opened.and_then(|core| queue::repair(&core)) {
                Err(error) if shared && error.kind() == ErrorKind::Permission => {}
                Ok((round, consumers)) => {
                    report.subscribers += consumers;
                    report.chunks += round.freed + round.ready + round.died;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        for service in self.services()? {
            let opened = self.open_service(&service, Access::Write);
            match opened.and_then(|core| crate::service::repair(&core)) {
                Err(error) if shared && error.kind() == ErrorKind::Permission => {}
                Ok((round, reaped)) => {
                    report.subscribers += reaped;
                    report.chunks += round.freed + round.ready + round.died;
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        self.member.loss.check(folder)?;
        failed.map_or(Ok(report), Err)
    }

    /// The nodes that have an entry in the bus, the dead included.
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let info = |node: Node| NodeInfo {
            node: node.id,
            pid: node.pid,
            pid_namespace: node.namespace,
            is_elsewhere: self.member.process(&node).is_elsewhere,
            alive: self.member.is_alive(node.id),
        };
        self.member.table.nodes().into_iter().map(info).collect()
    }

    /// Where the bus is.
    pub fn path(&self) -> PathBuf {
        self.member.folder().path().to_owned()
    }

    /// The number of this node.
    pub fn node(&self) -> u32 {
        self.member.node()
    }
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bus").field("path", &self.path()).field("node", &self.node()).finish()
    }
}

/// A member of a bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its number, never used twice.
    pub node: u32,
    /// Its process, in the name space that it runs in.
    pub pid: u32,
    /// The inode of that name space; 0 if it is not known.
    pub pid_namespace: u32,
    /// Whether that is another name space than that of this process: then `pid` is its number there, and here another
    /// process may have it.
    pub is_elsewhere: bool,
    /// Whether the kernel still holds its lock.
    pub alive: bool,
}

/// What [`Bus::repair`] found and repaired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RepairReport {
    /// Entries of dead nodes in the node table.
    pub nodes: usize,
    /// Subscriber, consumer, client and server slots of dead nodes.
    pub subscribers: usize,
    /// Lanes that dead publishers left, completed and given back.
    pub lanes: usize,
    /// Chunks of queues: loans of the dead that are free, and messages that are delivered again, or that are due. Calls
    /// of services that are free, delivered again, or lost.
    pub chunks: usize,
    /// Half-built files and directories.
    pub temporaries: usize,
}
