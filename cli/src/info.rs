//! `windlass info`: everything there is to know about one topic, queue or service.

use std::process::ExitCode;

use anyhow::Result;
use serde::Serialize;
use windlass::{Bus, Policy, PublisherInfo, SubscriberInfo, SubscriberState, TopicInfo};

use crate::args::InfoArguments;
use crate::list::delivery;
use crate::log::Extent;
use crate::output::{self, bytes, count, some, table};

/// A topic, as JSON shows it.
#[derive(Serialize)]
struct Info {
    bus: String,
    name: String,
    delivery: String,
    schema: Option<String>,
    closed: bool,
    segment_bytes: u64,
    /// None of a durable topic, which has as many as its log.
    segments_per_lane: Option<u32>,
    publishers_max: u32,
    subscribers_max: u32,
    order_slots: u64,
    evict_after_ms: Option<u128>,
    prefault: bool,
    mode: String,
    fenced: bool,
    bytes: u64,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    blockers: Vec<String>,
    counters: Counters,
    /// Of a durable topic.
    #[serde(flatten)]
    extent: Option<Extent>,
}

#[derive(Serialize)]
struct Publisher {
    lane: u32,
    node: u32,
    pid: Option<u32>,
    is_elsewhere: bool,
    alive: bool,
    published: u64,
    oldest: u64,
    segments_taken: u64,
    full: u64,
    outgrown: u64,
    blocked_by: Option<u32>,
}

#[derive(Serialize)]
struct Subscriber {
    slot: u32,
    node: u32,
    pid: Option<u32>,
    is_elsewhere: bool,
    alive: bool,
    state: &'static str,
    received: u64,
    missed: u64,
    lag_bytes: Option<u64>,
    lag_messages: Option<u64>,
    pins: u64,
}

/// What the topic counted since it was created.
#[derive(Serialize)]
struct Counters {
    taken_over_lanes: u64,
    reaped_subscribers: u64,
    evictions: u64,
    wakes: u64,
}

/// `windlass info`.
pub fn run(arguments: &InfoArguments) -> Result<ExitCode> {
    let bus = Bus::options().existing().group().open(&arguments.bus.bus)?;
    let info = match bus.inspect(&arguments.topic) {
        Ok(info) => Info::new(bus.path().display().to_string(), info)?,
        Err(error) if error.kind() == windlass::ErrorKind::NotFound => {
            // What people call by a name may be a queue or a service. If it is neither, topics are what was asked for.
            let shown = match crate::queue::show(&bus, &arguments.topic, arguments.json)? {
                None => crate::services::show(&bus, &arguments.topic, arguments.json)?,
                shown => shown,
            };
            return shown.map_or(Err(error.into()), |()| Ok(ExitCode::SUCCESS));
        }
        Err(error) => return Err(error.into()),
    };
    if arguments.json {
        output::json(&info)?;
    } else {
        output::text(&page(&info))?;
    }
    Ok(ExitCode::SUCCESS)
}

impl Info {
    fn new(bus: String, info: TopicInfo) -> Result<Self> {
        let extent = Extent::of_topic(&info)?;
        let is_durable = info.policy == Policy::Durable;
        Ok(Self {
            bus,
            extent,
            delivery: delivery(info.policy, info.ordered),
            blockers: blockers(&info),
            name: info.name,
            schema: info.schema,
            closed: info.closed,
            segment_bytes: info.segment_bytes,
            segments_per_lane: (!is_durable).then_some(info.segments_per_lane),
            publishers_max: info.publishers_max,
            subscribers_max: info.subscribers_max,
            order_slots: info.order_slots,
            evict_after_ms: info.evict_after.map(|limit| limit.as_millis()),
            prefault: info.prefault,
            mode: format!("{:04o}", info.mode),
            fenced: info.fenced,
            bytes: info.bytes,
            publishers: info.publishers.into_iter().map(Publisher::new).collect(),
            subscribers: info.subscribers.into_iter().map(Subscriber::new).collect(),
            counters: Counters {
                taken_over_lanes: info.taken_over_lanes,
                reaped_subscribers: info.reaped_subscribers,
                evictions: info.evictions,
                wakes: info.wakes,
            },
        })
    }
}

impl Publisher {
    fn new(info: PublisherInfo) -> Self {
        Self {
            lane: info.lane,
            node: info.node,
            pid: info.pid,
            is_elsewhere: info.is_elsewhere,
            alive: info.alive,
            published: info.published,
            oldest: info.oldest,
            segments_taken: info.segments_taken,
            full: info.full,
            outgrown: info.outgrown,
            blocked_by: info.blocked_by,
        }
    }
}

impl Subscriber {
    fn new(info: SubscriberInfo) -> Self {
        Self {
            slot: info.slot,
            node: info.node,
            pid: info.pid,
            is_elsewhere: info.is_elsewhere,
            alive: info.alive,
            state: match info.state {
                SubscriberState::Joining => "joining",
                SubscriberState::Active => "active",
                SubscriberState::Evicted => "evicted",
                SubscriberState::Lingering => "lingering",
            },
            received: info.received,
            missed: info.missed,
            lag_bytes: info.lag_bytes,
            lag_messages: info.lag_messages,
            pins: info.pins,
        }
    }
}

/// Everything there is to know about a topic, for people.
pub fn describe(bus: &Bus, topic: &str) -> Result<String> {
    Ok(page(&Info::new(bus.path().display().to_string(), bus.inspect(topic)?)?))
}

/// Who makes a publisher wait now, in sentences.
pub fn blockers(info: &TopicInfo) -> Vec<String> {
    let blocked = info.publishers.iter().filter(|publisher| publisher.alive);
    let sentence = |publisher: &PublisherInfo| {
        let slot = publisher.blocked_by?;
        let subscriber = info.subscribers.iter().find(|subscriber| subscriber.slot == slot)?;
        let behind = match subscriber.lag_bytes {
            Some(lag) => format!("which is {} behind", bytes(lag)),
            None => format!("which pins {} segments", subscriber.pins),
        };
        Some(format!(
            "the publisher of lane {} ({}) waits for subscriber {slot} ({}), {behind}",
            publisher.lane,
            process(publisher.pid, publisher.is_elsewhere),
            process(subscriber.pid, subscriber.is_elsewhere),
        ))
    };
    blocked.filter_map(sentence).collect()
}

/// A process in a sentence.
pub fn process(pid: Option<u32>, is_elsewhere: bool) -> String {
    let place = if is_elsewhere { " in another PID namespace" } else { "" };
    pid.map_or("an unknown process".to_owned(), |pid| format!("process {pid}{place}"))
}

/// A process in a table.
pub fn process_cell(pid: Option<u32>, is_elsewhere: bool) -> String {
    known(pid) + if is_elsewhere { " elsewhere" } else { "" }
}

fn page(info: &Info) -> String {
    let head = format!("Topic {} of {}", info.name, info.bus);
    let mut parts = vec![head, options(info), publishers(info), subscribers(info)];
    if !info.blockers.is_empty() {
        let lines = info.blockers.iter().map(|blocker| format!("Blocked: {blocker}."));
        parts.push(lines.collect::<Vec<_>>().join("\n"));
    }
    parts.push(counters(&info.counters));
    parts.join("\n\n")
}

fn counters(counters: &Counters) -> String {
    let Counters { taken_over_lanes, reaped_subscribers, evictions, wakes } = *counters;
    format!(
        "Since its creation: {} taken over from dead publishers, {} freed,\n\
         {} evicted, sleepers woken {}.",
        some(taken_over_lanes, "lane", "lanes"),
        some(reaped_subscribers, "dead subscriber", "dead subscribers"),
        some(evictions, "living one", "living ones"),
        some(wakes, "time", "times"),
    )
}

fn options(info: &Info) -> String {
    let kind = info.schema.clone().unwrap_or_else(|| "bytes".to_owned());
    let segment = bytes(info.segment_bytes);
    let room = format!("{} publishers, {} subscribers", info.publishers_max, info.subscribers_max);
    let mut lines = vec![
        ("delivery", info.delivery.clone()),
        ("type", kind),
        (
            "lane",
            match info.segments_per_lane {
                Some(segments) => format!("{segments} segments of {segment}"),
                None => format!("segments of {segment}, on disk"),
            },
        ),
        ("room", room),
        ("memory", bytes(info.bytes)),
        ("mode", info.mode.clone()),
    ];
    if let Some(extent) = &info.extent {
        let Extent { first, next, synced, .. } = extent;
        let kept = format!("first {}, next {}", count(*first), count(*next));
        lines.push(("log", extent.log.display().to_string()));
        lines.push(("on disk", bytes(extent.disk_bytes)));
        lines.push(("sequences", kept));
        lines.push(("sync", format!("{}; all below {} are on disk", extent.sync, count(*synced))));
    }
    lines.extend(info.evict_after_ms.map(|ms| ("evicts after", format!("{ms} ms"))));
    if info.order_slots > 0 {
        lines.push(("order log", format!("{} places", count(info.order_slots))));
    }
    if info.prefault {
        lines.push(("prefault", "pages are touched at join".to_owned()));
    }
    if info.fenced {
        lines.push(("fenced", "a member has no membarrier, so publishers fence".to_owned()));
    }
    if info.closed {
        lines.push(("closed", "yes; publishing is over".to_owned()));
    }
    let lines = lines.iter().map(|(name, value)| format!("  {name:<13} {value}"));
    lines.collect::<Vec<_>>().join("\n")
}

fn publishers(info: &Info) -> String {
    let mut table = table(
        "publisher in lane> | process> | node> | | published> | oldest kept> | waited for room> \
         | blocked by>",
    );
    for publisher in &info.publishers {
        table.add_row([
            publisher.lane.to_string(),
            process_cell(publisher.pid, publisher.is_elsewhere),
            publisher.node.to_string(),
            if publisher.alive { "alive" } else { "vacant" }.to_owned(),
            count(publisher.published),
            if info.extent.is_some() { String::new() } else { count(publisher.oldest) },
            count(publisher.full),
            known(publisher.blocked_by),
        ]);
    }
    table.trim_fmt()
}

fn subscribers(info: &Info) -> String {
    let mut table =
        table("subscriber in slot> | process> | node> | | received> | missed> | behind> | pins>");
    for subscriber in &info.subscribers {
        let behind = match (subscriber.lag_messages, subscriber.lag_bytes) {
            (Some(messages), _) => format!("{} messages", count(messages)),
            (None, Some(lag)) => bytes(lag),
            (None, None) => String::new(),
        };
        table.add_row([
            subscriber.slot.to_string(),
            process_cell(subscriber.pid, subscriber.is_elsewhere),
            subscriber.node.to_string(),
            if subscriber.alive { subscriber.state } else { "dead" }.to_owned(),
            count(subscriber.received),
            count(subscriber.missed),
            behind,
            subscriber.pins.to_string(),
        ]);
    }
    table.trim_fmt()
}

fn known(number: Option<u32>) -> String {
    number.map_or(String::new(), |number| number.to_string())
}
