//! The `windlass` command: demo, list, info, queue, doctor, soak and bench; and for logs record, replay,
//! cat, verify, compact, export, import and cursors.
//!
//! One file a command; each uses the public interface of the library and nothing else. What goes
//! wrong is one sentence on standard error. Exit status: 0 success, 1 failure, 2 wrong usage, 130
//! interrupted.

mod args;
mod bench;
mod clock;
mod demo;
mod doctor;
mod info;
mod list;
mod log;
mod memory;
mod output;
mod parent;
mod queue;
mod services;
mod soak;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use args::{Arguments, BenchArguments, BenchCommand, Command};
use bench::Bench;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    if std::env::var_os(bench::ROLE).is_some() {
        return bench::child_main();
    }
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return usage(&error),
    };
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) if error.is::<demo::Interrupted>() => {
            output::complain(
                "windlass: interrupted; its processes are ended and its bus is removed",
            );
            INTERRUPTED.into()
        }
        Err(error) if error.is::<log::Interrupted>() => {
            output::complain(&format!("windlass: {error}"));
            INTERRUPTED.into()
        }
        Err(error) if error.is::<clap::Error>() => {
            error.downcast_ref().map_or(FAILURE.into(), usage)
        }
        Err(error) => {
            output::complain(&format!("windlass: {error:#}"));
            FAILURE.into()
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Demo(arguments) => demo::run(&arguments),
        Command::List(arguments) => list::run(&arguments),
        Command::Info(arguments) => info::run(&arguments),
        Command::Queue(command) => queue::run(&command),
        Command::Record(arguments) => log::record(&arguments),
        Command::Replay(arguments) => log::replay(&arguments),
        Command::Cat(arguments) => log::cat(&arguments),
        Command::Verify(arguments) => log::verify(&arguments),
        Command::Compact(arguments) => log::compact(&arguments),
        Command::Export(arguments) => log::export(&arguments),
        Command::Import(arguments) => log::import(&arguments),
        Command::Cursors(arguments) => log::cursors(&arguments),
        Command::Log(command) => log::run(&command),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Soak(arguments) => soak::run(&arguments),
        Command::Bench(command) => Ok(benchmark(command)),
        Command::DemoPublisher(arguments) => demo::publisher::run(&arguments),
        Command::DemoSubscriber(arguments) => demo::subscriber::run(&arguments),
        Command::SoakChild(arguments) => soak::child::run(&arguments),
    }
}

fn benchmark(command: BenchCommand) -> ExitCode {
    let (mut directory, mut gib) = (None, None);
    let (bench, arguments) = match command {
        BenchCommand::Latency(arguments) => (Bench::Latency, arguments),
        BenchCommand::Throughput(arguments) => (Bench::Throughput, arguments),
        BenchCommand::Fanout(arguments) => (Bench::Fanout, arguments),
        BenchCommand::Queue(arguments) => (Bench::Queue, arguments),
        BenchCommand::Call(arguments) => (Bench::Call, arguments),
        BenchCommand::Channel(arguments) => (Bench::Channel, arguments),
        BenchCommand::Append(arguments) => {
            directory = arguments.dir;
            (Bench::Append, arguments.bench)
        }
        BenchCommand::Replay(arguments) => {
            (directory, gib) = (arguments.disk.dir, arguments.gib);
            (Bench::Replay, arguments.disk.bench)
        }
    };
    let BenchArguments { cores, repetitions, quick, baselines, json } = arguments;
    bench::run(
        bench,
        &bench::Options { cores, repetitions, quick, baselines, json, directory, gib },
    )
}

/// Shows what clap has to say: help and version are a success, the rest is wrong usage.
fn usage(error: &clap::Error) -> ExitCode {
    // Nobody may be there to read it, which changes nothing.
    let _ = error.print();
    if error.use_stderr() {
        USAGE.into()
    } else {
        ExitCode::SUCCESS
    }
}
