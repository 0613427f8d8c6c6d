//! What is going on when a process is killed or stopped.

/// A process that is killed at a point before the victim begins, and leaves what it leaves.
#[derive(Debug)]
pub struct Primer {
    pub role: &'static str,
    pub step: &'static str,
    pub hit: u32,
}

/// One piece of life of a bus, in which a victim plays the main part.
#[derive(Debug)]
pub struct Scenario {
    pub name: &'static str,
    pub kind: &'static str,
    /// What the victim does.
    pub role: &'static str,
    /// Its messages.
    pub count: u64,
    /// The points at which it is killed: those with one of these beginnings. An empty one is all.
    pub focus: &'static [&'static str],
    pub primers: &'static [Primer],
    /// Whether the survivors are silent until the victim has joined or is gone.
    pub quiet: bool,
    /// Whether a living subscriber never reads.
    pub stuck: bool,
    /// Whether the bus is there before the victim.
    pub exists: bool,
    /// Whether the victim is killed, or stopped only.
    pub kills: bool,
}

const PLAIN: Scenario = Scenario {
    name: "",
    kind: "reliable",
    role: "publish",
    count: 60,
    focus: &[""],
    primers: &[],
    quiet: false,
    stuck: false,
    exists: true,
    kills: true,
};

const fn publishing(name: &'static str, kind: &'static str, count: u64) -> Scenario {
    let focus: &[&str] = &["loan.", "commit.", "roll.", "recycle.", "order.", "wake.", "lease."];
    Scenario { name, kind, count, focus, ..PLAIN }
}

const fn reading(name: &'static str, kind: &'static str) -> Scenario {
    let focus: &[&str] = &["slot.", "join.", "reader.", "view.", "sleep.", "cursor."];
    Scenario { name, kind, role: "read", count: 50, focus, ..PLAIN }
}

const fn primer(role: &'static str, step: &'static str, hit: u32) -> Primer {
    Primer { role, step, hit }
}

/// All scenarios. Each point is killed in each scenario that has it in its focus and passes it.
pub const ALL: &[Scenario] = &[
    Scenario { name: "publish", ..PLAIN },
    publishing("publish lossy", "lossy", 60),
    publishing("publish ordered", "ordered", 400),
    publishing("publish ordered lossy", "ordered-lossy", 400),
    Scenario { focus: &[""], ..reading("read", "reliable") },
    reading("read lossy", "lossy"),
    reading("read ordered", "ordered"),
    reading("read ordered lossy", "ordered-lossy"),
    Scenario {
        name: "take over after roll.newest",
        focus: &["recover.", "lease.", "commit.head"],
        primers: &[primer("publish", "roll.newest", 2)],
        ..PLAIN
    },
    Scenario {
        name: "take over after roll.next",
        focus: &["recover.", "lease."],
        primers: &[primer("publish", "roll.next", 3)],
        ..PLAIN
    },
    Scenario {
        name: "take over after order.swap",
        kind: "ordered",
        focus: &["order.", "lease."],
        primers: &[primer("publish", "order.swap", 20)],
        ..PLAIN
    },
    Scenario {
        name: "take over after order.cover",
        kind: "ordered",
        focus: &["order."],
        primers: &[primer("publish", "order.cover", 20)],
        quiet: true,
        ..PLAIN
    },
    Scenario {
        name: "publish past the dead",
        focus: &["slot."],
        primers: &[primer("read", "join.check", 4)],
        quiet: true,
        ..PLAIN
    },
    Scenario {
        name: "publish past dead sleepers",
        focus: &["slot.", "wake."],
        primers: &[primer("read", "sleep.barrier", 1)],
        quiet: true,
        ..PLAIN
    },
    Scenario {
        name: "ring while others lie down",
        role: "ring",
        count: 24,
        focus: &["wake."],
        quiet: true,
        ..PLAIN
    },
    Scenario {
        name: "join where the dead sit",
        kind: "crowded",
        focus: &["slot.", "join."],
        primers: &[primer("read", "join.check", 4)],
        quiet: true,
        ..reading("", "crowded")
    },
    Scenario {
        name: "evict",
        kind: "evicting",
        count: 30,
        focus: &["slot."],
        quiet: true,
        stuck: true,
        ..PLAIN
    },
    Scenario {
        name: "be evicted",
        focus: &["reader.pin", "reader.check", "sleep.", "cursor.", "view."],
        kills: false,
        ..reading("", "evicting")
    },
    Scenario {
        name: "repair",
        kind: "ordered",
        role: "repair",
        primers: &[
            primer("publish", "file.init", 1),
            primer("publish", "roll.newest", 2),
            primer("publish", "order.swap", 9),
            primer("read", "join.check", 4),
            primer("spare", "home.build", 1),
        ],
        quiet: true,
        ..PLAIN
    },
    Scenario { name: "create", kind: "ordered", role: "create", exists: false, ..PLAIN },
];
