//! What runs in a soak: one cell for each thing that the library offers, all at once on one bus.
//!
//! A cell is a topic, or another structure, and the seats of those who work on it. A later
//! structure is one more cell here, and a file for each new job.

use std::time::Duration;

use windlass::{Bus, Payload, QueueBuilder, Raw, TopicBuilder};

/// What a process does in its cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Publishes at an even pace.
    Publish,
    /// Receives everything, from its beginning to the end of the run, and waits in this way.
    Subscribe(Way),
    /// Joins at every kind of beginning, receives a little, and leaves.
    Visit,
    /// Creates topics, uses them, closes and removes them, in competition with others.
    Churn,
    /// Enters messages in a work queue at an even pace.
    Give,
    /// Takes messages of a work queue and acknowledges them, or gives them back, and waits in this way.
    Work(Way),
    /// Lists, inspects and repairs the whole bus, again and again.
    Inspect,
}

/// How a subscriber receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Sleeps until it is woken.
    Block,
    /// Polls and lets others run in between.
    Yield,
    /// Each way in turn, spinning included.
    Mixed,
    /// Takes several messages at a time.
    Batch,
    /// Sleeps in `poll` on the descriptor.
    Descriptor,
    /// Sleeps, and holds views for a while.
    Views,
    /// Too slow for a lossy topic.
    Slow,
    /// Gets stuck now and then, for longer than its topic puts up with.
    Stuck,
    /// Waits for a little while, as a visitor does, and holds views.
    Visit,
}

/// One seat: a process has it, and when that is killed, its successor.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// What it does.
    pub job: Job,
    /// Whether it is killed at times. A resident is only stopped at times: its books cover the
    /// whole run.
    pub mortal: bool,
}

/// What the messages of a topic are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Bytes.
    Raw,
    /// Cap'n Proto.
    Typed,
    /// The cell has a work queue, of bytes.
    Queue,
    /// The cell has no topic of its own.
    None,
}

/// How the topic of a cell is opened, and how much is sent on it.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub kind: Kind,
    pub lossy: bool,
    pub ordered: bool,
    pub evict_after_ms: u64,
    pub segment_bytes: u64,
    pub segments: u32,
    /// Lanes; more than publishers, because whoever repairs a lane holds it meanwhile.
    pub lanes: u32,
    pub subscribers_max: u32,
    /// A publisher sends this often …
    pub tick_us: u64,
    /// … this many messages.
    pub burst: u32,
    /// One in so many messages is large, up to all that a segment takes.
    pub large_every: u32,
}

/// One cell.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// The name of its topic.
    pub name: &'static str,
    pub options: Options,
    pub seats: &'static [Seat],
}

const BASE: Options = Options {
    kind: Kind::Raw,
    lossy: false,
    ordered: false,
    evict_after_ms: 0,
    segment_bytes: 16 << 10,
    segments: 8,
    lanes: 4,
    subscribers_max: 8,
    tick_us: 2_000,
    burst: 6,
    large_every: 64,
};

const fn resident(job: Job) -> Seat {
    Seat { job, mortal: false }
}

const fn mortal(job: Job) -> Seat {
    Seat { job, mortal: true }
}

/// The table.
pub const CELLS: &[Cell] = &[
    Cell {
        name: "reliable",
        options: Options { lanes: 5, ..BASE },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Block)),
            mortal(Job::Subscribe(Way::Batch)),
            mortal(Job::Subscribe(Way::Mixed)),
            mortal(Job::Visit),
        ],
    },
    Cell {
        name: "ordered",
        options: Options { ordered: true, lanes: 5, ..BASE },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Batch)),
            mortal(Job::Subscribe(Way::Block)),
            mortal(Job::Subscribe(Way::Views)),
            mortal(Job::Visit),
        ],
    },
    Cell {
        name: "lossy",
        options: Options { lossy: true, ..BASE },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Slow)),
            mortal(Job::Subscribe(Way::Block)),
            mortal(Job::Subscribe(Way::Slow)),
            mortal(Job::Visit),
        ],
    },
    Cell {
        name: "ordered-lossy",
        options: Options { lossy: true, ordered: true, ..BASE },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Slow)),
            mortal(Job::Subscribe(Way::Block)),
            mortal(Job::Subscribe(Way::Yield)),
        ],
    },
    Cell {
        name: "typed",
        options: Options { kind: Kind::Typed, burst: 3, ..BASE },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Views)),
            mortal(Job::Subscribe(Way::Block)),
        ],
    },
    Cell {
        name: "evicting",
        options: Options { evict_after_ms: 100, segments: 4, ..BASE },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Stuck)),
            mortal(Job::Subscribe(Way::Stuck)),
            mortal(Job::Subscribe(Way::Block)),
        ],
    },
    Cell {
        name: "large",
        options: Options {
            segment_bytes: 256 << 10,
            segments: 6,
            tick_us: 4_000,
            burst: 1,
            large_every: 2,
            ..BASE
        },
        seats: &[
            resident(Job::Publish),
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Block)),
            mortal(Job::Subscribe(Way::Descriptor)),
        ],
    },
    Cell {
        name: "alone",
        options: Options { lanes: 1, ..BASE },
        seats: &[
            mortal(Job::Publish),
            resident(Job::Subscribe(Way::Descriptor)),
            mortal(Job::Subscribe(Way::Block)),
            // Where there is one lane, most sequences that a visitor asks for are there.
            mortal(Job::Visit),
        ],
    },
    Cell {
        name: "queue",
        // A lane is the book of a producer.
        options: Options { kind: Kind::Queue, lanes: 3, ..BASE },
        seats: &[
            resident(Job::Give),
            mortal(Job::Give),
            mortal(Job::Give),
            resident(Job::Work(Way::Block)),
            mortal(Job::Work(Way::Yield)),
            mortal(Job::Work(Way::Batch)),
            mortal(Job::Work(Way::Descriptor)),
        ],
    },
    Cell {
        name: "churn",
        options: Options { kind: Kind::None, ..BASE },
        seats: &[resident(Job::Churn), mortal(Job::Churn), mortal(Job::Churn)],
    },
    Cell {
        name: "inspector",
        options: Options { kind: Kind::None, ..BASE },
        seats: &[mortal(Job::Inspect)],
    },
];

impl Cell {
    /// How the topic of this cell is opened; everybody names the same options.
    pub fn builder<P: Payload>(&self, bus: &Bus) -> TopicBuilder<P> {
        let options = &self.options;
        let mut builder = bus
            .topic::<P>(self.name)
            .segment_bytes(options.segment_bytes)
            .segments_per_lane(options.segments)
            .publishers_max(options.lanes)
            .subscribers_max(options.subscribers_max);
        if options.lossy {
            builder = builder.lossy();
        }
        if options.ordered {
            // Few places, so that the log is lapped again and again.
            builder = builder.ordered().order_slots(4096);
        }
        if options.evict_after_ms > 0 {
            builder = builder.evict_after(Duration::from_millis(options.evict_after_ms));
        }
        builder
    }

    /// Whether the cell has a topic that lives as long as the run.
    pub fn has_topic(&self) -> bool {
        matches!(self.options.kind, Kind::Raw | Kind::Typed)
    }

    /// Whether the cell has a queue that lives as long as the run.
    pub fn has_queue(&self) -> bool {
        self.options.kind == Kind::Queue
    }

    /// How the queue of this cell is opened: chunks of two sizes, few enough that it is full at times, and no message
    /// is ever given up.
    pub fn queue(&self, bus: &Bus) -> QueueBuilder<Raw> {
        let queue = bus.queue(self.name).chunks(48, 512).chunks(8, 4096).max_deliveries(255);
        queue.consumers_max(self.options.subscribers_max)
    }

    /// Its lanes.
    pub fn lanes(&self) -> usize {
        self.options.lanes as usize
    }
}

/// All seats with the index of their cell, in the order of the table. The index in this list is the
/// number of the seat.
pub fn seats() -> impl Iterator<Item = (usize, Seat)> {
    let cells = CELLS.iter().enumerate();
    cells.flat_map(|(cell, each)| each.seats.iter().map(move |seat| (cell, *seat)))
}

impl Job {
    /// What a table calls it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Publish => "publisher",
            Self::Subscribe(_) => "subscriber",
            Self::Visit => "visitor",
            Self::Churn => "creator",
            Self::Give => "producer",
            Self::Work(_) => "worker",
            Self::Inspect => "inspector",
        }
    }

    /// Whether its process has a place in the topic as a subscriber, or in the queue as a consumer.
    pub fn subscribes(self) -> bool {
        matches!(self, Self::Subscribe(_) | Self::Visit | Self::Work(_))
    }

    /// Whether it receives as soon as it can, so that a pause of it says something about the bus.
    pub fn is_prompt(self) -> bool {
        matches!(self, Self::Subscribe(way) if !matches!(way, Way::Slow | Way::Stuck))
    }

    /// Whether it goes on until everything is settled, rather than until publishing stops.
    pub fn stays(self) -> bool {
        matches!(self, Self::Subscribe(_) | Self::Work(_))
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::{CELLS_MAX, LANES_MAX, SEATS_MAX};
    use super::*;

    #[test]
    fn board_has_room_for_the_table() {
        assert!(CELLS.len() <= CELLS_MAX && seats().count() <= SEATS_MAX);
        assert!(CELLS.iter().all(|cell| cell.lanes() <= LANES_MAX));
    }

    #[test]
    fn every_kind_of_topic_is_there_and_every_way_to_receive() {
        let kinds: Vec<_> = CELLS
            .iter()
            .filter(|cell| cell.has_topic())
            .map(|cell| (cell.options.lossy, cell.options.ordered))
            .collect();
        for kind in [(false, false), (false, true), (true, false), (true, true)] {
            assert!(kinds.contains(&kind), "{kind:?}");
        }
        let ways = [
            Way::Block,
            Way::Yield,
            Way::Mixed,
            Way::Batch,
            Way::Descriptor,
            Way::Views,
            Way::Slow,
            Way::Stuck,
        ];
        for way in ways {
            assert!(seats().any(|(_, seat)| seat.job == Job::Subscribe(way)), "{way:?}");
        }
        assert!(CELLS.iter().any(|cell| cell.options.kind == Kind::Typed));
        assert!(CELLS.iter().any(|cell| cell.options.evict_after_ms > 0));
    }

    #[test]
    fn every_topic_has_somebody_who_is_there_from_the_beginning_to_the_end() {
        for cell in CELLS.iter().filter(|cell| cell.has_topic()) {
            let resident = |seat: &&Seat| seat.job.stays() && !seat.mortal;
            assert!(cell.seats.iter().any(|seat| resident(&seat)), "{}", cell.name);
        }
    }
}
