//! Where the participants of a test run: in threads of this process, or in processes that run this
//! binary again.
//!
//! A participant plays a *role*: a function that is given a [`Scene`], with the bus, and a
//! [`Line`], over which it and the test tell each other words. The same role runs on both kinds of
//! [`Stage`], so a scenario is written once. Nothing here waits for a time to pass: a test waits
//! for a word, and a participant that says nothing for two minutes fails it.
//!
//! A process plays by running the test [`child`] alone, with its role in the environment. It dies
//! with its test, whatever happens.

#![allow(unsafe_code)]

use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::{fork, ForkResult, Pid};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{channel, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use windlass::Bus;

const ROLE: &str = "WINDLASS_TEST_ROLE";
const ARGUMENTS: &str = "WINDLASS_TEST_ARGUMENTS";
const BUS: &str = "WINDLASS_TEST_BUS";

/// Longest silence of a participant, and longest wait for a state that must come.
pub const SILENCE_MAX: Duration = Duration::from_secs(120);

/// What a participant does.
pub type Role = fn(&Scene, &mut Line);

/// Every role of every file, by name.
fn roles() -> Vec<(&'static str, Role)> {
    let tables: &[&[(&str, Role)]] = &[
        super::traffic::ROLES,
        super::typed::ROLES,
        super::access::ROLES,
        super::access::group::ROLES,
        super::access::walls::ROLES,
        super::birth::ROLES,
        super::calls::ROLES,
        super::channel::ROLES,
        super::container::ROLES,
        super::death::ROLES,
        super::files::disk::ROLES,
        super::files::limits::ROLES,
        super::fork::ROLES,
        super::hostile::ROLES,
        super::jobs::ROLES,
        super::join::ROLES,
        super::large::ROLES,
        super::log_full::ROLES,
        super::log_keeper::ROLES,
        super::log_cursor::ROLES,
        super::log_access::ROLES,
        super::memory::ROLES,
        super::options::ROLES,
        super::policies::ROLES,
        super::polling::ROLES,
        super::queue::ROLES,
        super::service::ROLES,
        super::shortened::ROLES,
        super::tokens::ROLES,
        super::sleepers::ROLES,
        super::views::ROLES,
        super::waking::ROLES,
    ];
    tables.concat()
}

fn role(name: &str) -> Role {
    let found = roles().into_iter().find(|(role, _)| *role == name);
    found.unwrap_or_else(|| panic!("there is no role {name}")).1
}

/// `count`, multiplied by the variable `WINDLASS_TEST_SCALE`.
pub fn scaled(count: u64) -> u64 {
    let scale = std::env::var("WINDLASS_TEST_SCALE").ok();
    let scale = scale.map_or(1.0, |scale| scale.parse::<f64>().expect("a scale is a number"));
    ((count as f64 * scale) as u64).max(1)
}

/// Polls until `holds`, and fails when it has waited too long.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + SILENCE_MAX;
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        std::thread::yield_now();
    }
}

/// Ends a thread that looks at a flag, even if the test that drops this panics.
pub struct EndWhenDropped<'a>(pub &'a AtomicBool);

impl Drop for EndWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

/// What the names of all dens begin with; the process that made it follows.
const DENS: &str = "/dev/shm/windlass-test-";

/// Removes what earlier runs left that were killed.
fn remove_dens_of_the_dead() {
    let entries = std::fs::read_dir("/dev/shm").expect("Linux has it");
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let pid = path.to_str().and_then(|path| path.strip_prefix(DENS)?.split('-').next());
        if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

/// A fresh directory in shared memory, removed when dropped, even by a panic.
pub struct Den {
    path: PathBuf,
}

impl Den {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Relaxed);
        if count == 0 {
            remove_dens_of_the_dead();
        }
        let path = format!("{DENS}{}-{count}", std::process::id());
        std::fs::create_dir(&path).expect("shared memory has room for a directory of ours");
        Self { path: path.into() }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of the one bus of this directory, which may not exist yet.
    pub fn bus_path(&self) -> String {
        self.path.join("bus").to_str().expect("it was text above").to_owned()
    }

    pub fn bus(&self) -> Bus {
        Bus::open(&self.bus_path()).expect("a bus opens in a fresh directory")
    }
}

impl Drop for Den {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

/// What a participant is given.
pub struct Scene {
    bus: Result<String, Bus>,
    arguments: String,
}

impl Scene {
    /// The bus: a node of its own in a process, the node of the test in a thread.
    pub fn bus(&self) -> Bus {
        match &self.bus {
            Ok(path) => Bus::open(path).expect("the bus of the test opens"),
            Err(bus) => bus.clone(),
        }
    }

    /// Where the bus is; only in a process.
    pub fn bus_path(&self) -> &str {
        self.bus.as_ref().expect("this role is played by processes only")
    }

    /// Argument `key` of a list `key=value key=value`.
    pub fn text(&self, key: &str) -> &str {
        let mut all = self.arguments.split(' ').filter_map(|pair| pair.split_once('='));
        let found = all.find(|(name, _)| *name == key);
        found.unwrap_or_else(|| panic!("no {key} in \"{}\"", self.arguments)).1
    }

    pub fn number(&self, key: &str) -> u64 {
        self.text(key).parse().expect("this argument is a number")
    }
}

/// The line of a participant to its test.
pub struct Line {
    say: Box<dyn FnMut(&str)>,
    hear: Box<dyn FnMut() -> Option<String>>,
}

impl Line {
    /// Tells the test something.
    pub fn say(&mut self, words: impl std::fmt::Display) {
        (self.say)(&words.to_string());
    }

    /// What the test says next; `None` once it has hung up.
    pub fn hear(&mut self) -> Option<String> {
        (self.hear)()
    }

    /// Waits until the test hangs up.
    pub fn stay(&mut self) {
        while self.hear().is_some() {}
    }
}

/// Where the participants run.
pub enum Stage {
    /// Processes, with a bus in shared memory.
    Processes(Den),
    /// Threads of this process, with an anonymous bus.
    Threads(Bus),
}

impl Stage {
    pub fn processes() -> Self {
        Self::Processes(Den::new())
    }

    pub fn threads() -> Self {
        Self::Threads(Bus::anonymous().expect("there is memory for a bus"))
    }

    /// The bus, for the test itself.
    pub fn bus(&self) -> Bus {
        match self {
            Self::Processes(den) => den.bus(),
            Self::Threads(bus) => bus.clone(),
        }
    }

    /// Lets somebody play `role`.
    pub fn start(&self, role: &str, arguments: &str) -> Actor {
        match self {
            Self::Processes(den) => Actor::process(den, role, arguments),
            Self::Threads(bus) => Actor::thread(bus, role, arguments),
        }
    }
}

enum Body {
    Process(std::process::Child),
    Thread(Option<std::thread::JoinHandle<()>>),
}

/// How a test tells its participant something.
type Say = Box<dyn FnMut(&str)>;

/// A participant, as its test sees it. A process is killed when it is dropped.
pub struct Actor {
    role: String,
    body: Body,
    say: Option<Say>,
    heard: Receiver<String>,
}

impl Actor {
    /// A process that plays `role` on the bus of `den`.
    pub fn process(den: &Den, role: &str, arguments: &str) -> Self {
        let exe = std::env::current_exe().expect("a test knows its binary");
        Self::process_by(Command::new(exe), den, role, arguments)
    }

    /// The same, started by `command`, which runs this binary with the arguments that follow.
    pub fn process_by(command: Command, den: &Den, role: &str, arguments: &str) -> Self {
        Self::process_at(command, &den.bus_path(), role, arguments)
    }

    /// The same, on the bus at `bus`.
    pub fn process_at(mut command: Command, bus: &str, role: &str, arguments: &str) -> Self {
        let mut process = command
            .args(["--exact", "process::child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENTS, arguments)
            .env(BUS, bus)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a test may start a process");
        let mut input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let (words, heard) = channel();
        std::thread::spawn(move || forward(output, &words));
        // A participant that was killed does not listen any more; its test knows that.
        let say = move |line: &str| drop(writeln!(input, "{line}"));
        let body = Body::Process(process);
        Self { role: role.to_owned(), body, say: Some(Box::new(say)), heard }
    }

    /// A thread that plays `role` on the bus of this process.
    fn thread(bus: &Bus, name: &str, arguments: &str) -> Self {
        let (play, scene) =
            (role(name), Scene { bus: Err(bus.clone()), arguments: arguments.to_owned() });
        let (words, heard) = channel();
        let (orders, ordered) = channel::<String>();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            let say = move |line: &str| drop(words.send(line.to_owned()));
            let hear = move || ordered.recv().ok();
            play(&scene, &mut Line { say: Box::new(say), hear: Box::new(hear) });
        });
        let body = Body::Thread(Some(thread.expect("a test may start a thread")));
        let say = move |line: &str| drop(orders.send(line.to_owned()));
        Self { role: name.to_owned(), body, say: Some(Box::new(say)), heard }
    }

    /// Tells the participant something.
    pub fn say(&mut self, words: &str) {
        (self.say.as_mut().expect("it was not hung up"))(words);
    }

    /// What the participant says next; `None` once it has ended.
    pub fn hear_any(&mut self) -> Option<String> {
        match self.heard.recv_timeout(SILENCE_MAX) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("{} has nothing to say", self.role),
        }
    }

    /// The rest of what the participant says next, which must begin with `word`.
    pub fn hear(&mut self, word: &str) -> String {
        let line = self.hear_any();
        let line = line.unwrap_or_else(|| panic!("{} ended before it said {word}", self.role));
        let (first, rest) = line.split_once(' ').unwrap_or((&line, ""));
        assert_eq!(first, word, "{} said \"{line}\"", self.role);
        rest.to_owned()
    }

    pub fn hear_number(&mut self, word: &str) -> u64 {
        self.hear(word).parse().expect("it says a number")
    }

    fn child(&mut self) -> &mut std::process::Child {
        match &mut self.body {
            Body::Process(child) => child,
            Body::Thread(_) => panic!("{} is not a process", self.role),
        }
    }

    pub fn pid(&mut self) -> u32 {
        self.child().id()
    }

    fn signal(&mut self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().cast_signed());
        kill(pid, signal).expect("it is ours and not yet waited for");
    }

    /// Kills the process and waits for its death.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        let status = self.child().wait().expect("it is ours");
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "it died of something else");
    }

    /// Stops the process and waits until the kernel has stopped it.
    pub fn stop(&mut self) {
        self.signal(Signal::SIGSTOP);
        let pid = Pid::from_raw(self.pid().cast_signed());
        let stopped = waitpid(pid, Some(WaitPidFlag::WUNTRACED)).expect("it is ours");
        assert_eq!(stopped, WaitStatus::Stopped(pid, Signal::SIGSTOP));
    }

    /// Lets a stopped process go on.
    pub fn go_on(&mut self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits for the end of the process, whatever it is.
    pub fn status(&mut self) -> ExitStatus {
        self.say = None;
        while self.hear_any().is_some() {}
        self.child().wait().expect("it is ours")
    }

    /// Hangs up and waits for a good end.
    pub fn finish(mut self) {
        self.say = None;
        while self.hear_any().is_some() {}
        match &mut self.body {
            Body::Process(child) => {
                let status = child.wait().expect("it is ours");
                assert!(status.success(), "{} ended with {status}", self.role);
            }
            Body::Thread(thread) => {
                let ended = thread.take().expect("it is joined once").join();
                assert!(ended.is_ok(), "{} panicked", self.role);
            }
        }
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if let Body::Process(child) = &mut self.body {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Passes on what a process says to its test, until it ends.
fn forward(output: impl BufRead, words: &Sender<String>) {
    for line in output.lines() {
        let Ok(line) = line else { return };
        if let Some(said) = line.strip_prefix('@') {
            if words.send(said.to_owned()).is_err() {
                return;
            }
        }
    }
}

/// Plays the role that this process was started for. In an ordinary run of the tests there is none.
#[test]
fn child() {
    let Ok(name) = std::env::var(ROLE) else {
        let mut names: Vec<_> = roles().into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count, "every role has a name of its own");
        return;
    };
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).expect("a process may die with its parent");
    let variable = |name| std::env::var(name).expect("a participant is told everything");
    let scene = Scene { bus: Ok(variable(BUS)), arguments: variable(ARGUMENTS) };
    let say = |line: &str| {
        // On a line of its own: the harness writes to the same stream.
        println!("\n@{line}");
        std::io::stdout().flush().expect("the test listens");
    };
    let hear = || {
        let mut line = String::new();
        let bytes = std::io::stdin().read_line(&mut line).expect("a test writes text");
        (bytes > 0).then(|| line.trim_end().to_owned())
    };
    role(&name)(&scene, &mut Line { say: Box::new(say), hear: Box::new(hear) });
}

/// Forks this process, which must have one thread that matters. The copy runs `body` and ends with
/// the status that it returns, without any exit handler.
pub fn fork_and(body: impl FnOnce() -> i32) -> Pid {
    // SAFETY: the copy runs test code that at most allocates, which glibc allows, and never returns.
    match unsafe { fork() }.expect("a test may fork") {
        ForkResult::Parent { child } => child,
        ForkResult::Child => {
            let status = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body));
            // SAFETY: always allowed; ends the copy at once.
            unsafe { libc::_exit(status.unwrap_or(101)) }
        }
    }
}

/// Copies this process by a bare system call, of which no handler of `fork` hears. The copy waits until `input` ends,
/// and then ends as well.
pub fn clone_until_end_of(input: std::os::fd::RawFd) -> Pid {
    // SAFETY: with no flags but the signal this is `fork`; the copy makes only system calls.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
    if pid == 0 {
        let mut byte = 0_u8;
        // SAFETY: `byte` is a place for one byte.
        while unsafe { libc::read(input, (&raw mut byte).cast(), 1) } > 0 {}
        // SAFETY: always allowed; ends the copy at once.
        unsafe { libc::_exit(0) }
    }
    assert!(pid > 0, "a test may start a process");
    Pid::from_raw(i32::try_from(pid).expect("a process number"))
}

/// Asks the kernel to make the page of these bytes writable, and leaves it as it was.
pub fn unprotect(bytes: &[u8]) -> rustix::io::Result<()> {
    use rustix::mm::{mprotect, MprotectFlags};
    let page = (bytes.as_ptr() as usize & !4095) as *mut std::ffi::c_void;
    // SAFETY: the page is mapped, since it holds the bytes; more rights than it has harm nobody.
    unsafe { mprotect(page, 1, MprotectFlags::READ | MprotectFlags::WRITE) }?;
    // SAFETY: as above; these are the rights that it had.
    unsafe { mprotect(page, 1, MprotectFlags::READ) }
}

/// Writes through the address of bytes that nobody may write: the processor must end this process.
pub fn deface(bytes: &[u8]) {
    let first = bytes.as_ptr().cast_mut();
    // SAFETY: none. That this is not possible is what the caller tests, in a process of its own.
    unsafe { first.write_volatile(!bytes[0]) };
}
