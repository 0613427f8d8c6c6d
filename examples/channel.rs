//! A channel between two processes. The receiver dies half-way, and another one takes its place.
//!
//! `cargo run --example channel`

use std::process::{Child, Command};
use windlass::channel::{Channel, SendError};
use windlass::Wait;

const COUNT: u64 = 1_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    if let Ok(name) = std::env::var("EXAMPLE_CHANNEL") {
        return receive(&name);
    }
    let name = format!("windlass-example-{}", std::process::id());
    let mut sender = Channel::named(&name).sender()?;
    let mut receivers = vec![start(&name)?];
    for number in 0..COUNT {
        while let Err(error) = sender.send(&number.to_le_bytes()) {
            let SendError::Died { pid, .. } = error else { return Err(error.into()) };
            // There is no room, and nobody left to make some.
            if receivers.len() == 1 {
                println!("process {pid} is dead, another one reads on");
                receivers.push(start(&name)?);
            }
            std::thread::yield_now();
        }
    }
    drop(sender); // the end of the stream; whatever is not read yet stays
    receivers.iter_mut().try_for_each(|receiver| receiver.wait().map(drop))?;
    Ok(())
}

/// Starts this program again, as a receiver.
fn start(name: &str) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?).env("EXAMPLE_CHANNEL", name).spawn()
}

fn receive(name: &str) -> Result<(), Box<dyn std::error::Error>> {
    let mut receiver = Channel::named(name).receiver()?;
    let mut due = None;
    while let Some(message) = receiver.recv(Wait::Block)? {
        let number = u64::from_le_bytes(message.try_into()?);
        assert_eq!(number, due.unwrap_or(number), "none is lost, and none comes twice");
        if due.is_none() {
            println!("process {} begins with message {number}", std::process::id());
        }
        if number == COUNT / 2 && due.is_some() {
            std::process::abort(); // this message was not given back: the next one reads it again
        }
        due = Some(number + 1);
    }
    println!("process {} read up to message {}", std::process::id(), due.unwrap_or(0));
    Ok(())
}
