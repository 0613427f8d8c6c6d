//! Services, where `windlass list`, `info` and `doctor` speak of them.

use anyhow::Result;
use serde::Serialize;
use windlass::{Bus, ErrorKind, ServiceInfo, ServiceMember};

use crate::info::process;
use crate::output::{self, bytes, count, some};

/// The services of a bus.
#[derive(Serialize)]
pub struct Services {
    services: Vec<Entry>,
}

/// One service, or why it cannot be looked at.
#[derive(Serialize)]
struct Entry {
    name: String,
    #[serde(flatten)]
    standing: Standing,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Standing {
    Sound(Box<Service>),
    Damaged { error: String },
}

/// A service, as JSON shows it.
#[derive(Serialize)]
struct Service {
    request_schema: Option<String>,
    response_schema: Option<String>,
    closed: bool,
    request_bytes: u32,
    response_bytes: u32,
    calls: u32,
    ahead: u32,
    max_deliveries: u32,
    clients_max: u32,
    servers_max: u32,
    mode: String,
    bytes: u64,
    waiting: u32,
    in_progress: u32,
    answered: u32,
    lingering: u32,
    dead: u32,
    clients: Vec<Member>,
    servers: Vec<Member>,
    counters: Counters,
}

/// A client or a server.
#[derive(Serialize)]
struct Member {
    slot: u32,
    node: u32,
    pid: Option<u32>,
    is_elsewhere: bool,
    alive: bool,
    calls: u32,
}

/// What the service counted since it was created.
#[derive(Serialize)]
struct Counters {
    made: u64,
    redelivered: u64,
    died: u64,
    abandoned: u64,
    reaped: u64,
    wakes: u64,
}

impl Service {
    fn new(info: ServiceInfo) -> Self {
        let members = |members: Vec<ServiceMember>| members.into_iter().map(Member::new).collect();
        Self {
            request_schema: info.request_schema,
            response_schema: info.response_schema,
            closed: info.closed,
            request_bytes: info.request_bytes,
            response_bytes: info.response_bytes,
            calls: info.calls,
            ahead: info.ahead,
            max_deliveries: info.max_deliveries,
            clients_max: info.clients_max,
            servers_max: info.servers_max,
            mode: format!("{:04o}", info.mode),
            bytes: info.bytes,
            waiting: info.waiting,
            in_progress: info.in_progress,
            answered: info.answered,
            lingering: info.lingering,
            dead: info.dead,
            clients: members(info.clients),
            servers: members(info.servers),
            counters: Counters {
                made: info.made,
                redelivered: info.redelivered,
                died: info.died,
                abandoned: info.abandoned,
                reaped: info.reaped,
                wakes: info.wakes,
            },
        }
    }

    /// `Question → Answer`.
    fn types(&self) -> String {
        let name = |schema: &Option<String>| schema.clone().unwrap_or_else(|| "bytes".to_owned());
        format!("{} → {}", name(&self.request_schema), name(&self.response_schema))
    }
}

impl Member {
    fn new(info: ServiceMember) -> Self {
        let ServiceMember { slot, node, pid, is_elsewhere, alive, calls, .. } = info;
        Self { slot, node, pid, is_elsewhere, alive, calls }
    }
}

fn living(members: &[Member]) -> usize {
    members.iter().filter(|member| member.alive).count()
}

impl Services {
    /// Looks at all of them. A damaged one must not hide the others.
    pub fn of(bus: &Bus) -> Result<Self> {
        let mut services = Vec::new();
        for name in bus.services()? {
            let standing = match bus.inspect_service(&name) {
                Ok(info) => Standing::Sound(Box::new(Service::new(info))),
                // It is gone by now.
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => Standing::Damaged { error: error.to_string() },
            };
            services.push(Entry { name, standing });
        }
        Ok(Self { services })
    }

    /// A table of them for people; empty if there are none.
    pub fn page(&self) -> String {
        if self.services.is_empty() {
            return String::new();
        }
        let mut table = output::table(
            "service | types | clients> | servers> | waiting> | in progress> | calls> | memory> |",
        );
        for Entry { name, standing } in &self.services {
            match standing {
                Standing::Sound(service) => table.add_row([
                    name.clone(),
                    service.types(),
                    living(&service.clients).to_string(),
                    living(&service.servers).to_string(),
                    service.waiting.to_string(),
                    service.in_progress.to_string(),
                    count(service.counters.made),
                    bytes(service.bytes),
                    if service.closed { "closed" } else { "" }.to_owned(),
                ]),
                Standing::Damaged { error } => table.add_row([name, error]),
            };
        }
        table.trim_fmt()
    }
}

/// One service, with where it is.
#[derive(Serialize)]
struct Shown<'a> {
    bus: String,
    name: &'a str,
    #[serde(flatten)]
    service: Service,
}

/// Prints everything there is to know about a service; `None` if there is none of that name.
pub fn show(bus: &Bus, name: &str, json: bool) -> Result<Option<()>> {
    let service = match bus.inspect_service(name) {
        Ok(info) => Service::new(info),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let shown = Shown { bus: bus.path().display().to_string(), name, service };
    match json {
        true => output::json(&shown)?,
        false => output::text(&page(&shown))?,
    }
    Ok(Some(()))
}

fn page(shown: &Shown<'_>) -> String {
    let Shown { bus, name, service } = shown;
    let counters = &service.counters;
    let repeats = match service.max_deliveries {
        1 => "never repeated".to_owned(),
        most => format!("delivered up to {most} times"),
    };
    let mut parts = vec![
        format!("Service {name} of {bus}"),
        format!(
            "{}{}, {repeats}. Requests of up to {}, responses of up to {}, {} ahead.\nUp to {} and {}, \
             {} each; mode {}, {} of memory.",
            service.types(),
            if service.closed { ", closed" } else { "" },
            bytes(service.request_bytes.into()),
            bytes(service.response_bytes.into()),
            some(service.ahead.into(), "response", "responses"),
            some(service.clients_max.into(), "client", "clients"),
            some(service.servers_max.into(), "server", "servers"),
            some(service.calls.into(), "call", "calls"),
            service.mode,
            bytes(service.bytes),
        ),
        format!(
            "Now: {} waiting, {} in progress, {} answered, {} lingering, {} dead.\nSo far: {} made, \
             {} delivered again, {} never answered, {} abandoned; {} reaped, {} woken.",
            service.waiting,
            service.in_progress,
            service.answered,
            service.lingering,
            service.dead,
            count(counters.made),
            count(counters.redelivered),
            count(counters.died),
            count(counters.abandoned),
            some(counters.reaped, "slot", "slots"),
            count(counters.wakes),
        ),
    ];
    for (who, members) in [("client", &service.clients), ("server", &service.servers)] {
        if members.is_empty() {
            parts.push(format!("There are no {who}s."));
            continue;
        }
        let mut table = output::table(&format!("{who}> | node> | process | calls> |"));
        for member in members {
            table.add_row([
                member.slot.to_string(),
                member.node.to_string(),
                process(member.pid, member.is_elsewhere),
                member.calls.to_string(),
                if member.alive { "" } else { "dead" }.to_owned(),
            ]);
        }
        parts.push(table.trim_fmt());
    }
    parts.join("\n\n")
}

/// Which slots of a service the dead hold, in sentences.
pub fn dead_members(info: &ServiceInfo) -> Vec<String> {
    let mut found = Vec::new();
    for (who, members) in [("client", &info.clients), ("server", &info.servers)] {
        found.extend(members.iter().filter(|member| !member.alive).map(|member| {
            let whose = match member.pid {
                Some(_) => format!(" of {}", process(member.pid, member.is_elsewhere)),
                None => String::new(),
            };
            let calls = some(member.calls.into(), "call", "calls");
            format!("{who} slot {}{whose} is held by the dead, with {calls}", member.slot)
        }));
    }
    found
}
