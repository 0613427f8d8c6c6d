//! An account whose state is the sum of its events, with a snapshot so that a long history is read once.
//!
//! `cargo run --example account`

use windlass::{AppendError, Bus, EventStore, Expected, Raw};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Opens the store as every process would, and as the same process would after a restart.
fn open(folder: &std::path::Path) -> Outcome<EventStore<Raw>> {
    let bus = Bus::anonymous()?;
    let events = bus.topic::<Raw>("accounts").durable_at(folder.join("accounts")).open()?;
    let snapshots = bus.topic::<Raw>("balances").durable_at(folder.join("balances")).open()?;
    Ok(EventStore::open(events)?.with_snapshots(&snapshots)?)
}

/// The balance of an account, its version, and how many events had to be read for it.
fn balance(store: &EventStore<Raw>, account: &[u8]) -> Outcome<(i64, u64, usize)> {
    let loaded = store.load(account)?;
    let (mut balance, mut version) = match &loaded.snapshot {
        Some(snapshot) => {
            (i64::from_le_bytes(snapshot.state.as_bytes().try_into()?), snapshot.version)
        }
        None => (0, 0),
    };
    let read = loaded.events.len();
    for event in loaded.events {
        balance += i64::from_le_bytes(event?.as_bytes().try_into()?);
        version += 1;
    }
    Ok((balance, version, read))
}

/// Withdraws unless the account would be overdrawn, whoever else uses it at the same time.
fn withdraw(store: &EventStore<Raw>, account: &[u8], amount: i64) -> Outcome<bool> {
    loop {
        let (balance, version, _) = balance(store, account)?;
        if balance < amount {
            return Ok(false);
        }
        match store.append(account, &(-amount).to_le_bytes(), Expected::Version(version)) {
            Ok(_) => return Ok(true),
            // Somebody was faster: look again, decide again.
            Err(AppendError::Version { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn main() -> Outcome<()> {
    let folder = std::env::temp_dir().join(format!("windlass-account-{}", std::process::id()));
    std::fs::create_dir(&folder)?;
    let store = open(&folder)?;
    for _ in 0..100 {
        store.append(b"alice", &10i64.to_le_bytes(), Expected::Any)?;
    }
    // Two threads want all of it, 30 at a time: 33 withdrawals succeed, whoever makes them.
    let all =
        || (0..).take_while(|_| withdraw(&store, b"alice", 30).is_ok_and(|done| done)).count();
    let (one, two) = std::thread::scope(|scope| {
        let other = scope.spawn(all);
        (all(), other.join().expect("it ends well"))
    });
    let (left, version, read) = balance(&store, b"alice")?;
    println!("{one} + {two} withdrawals; {left} is left, from {read} events");
    assert_eq!((one + two, left, read), (33, 10, 133));

    store.save_snapshot(b"alice", version, &left.to_le_bytes())?;
    store.append(b"alice", &5i64.to_le_bytes(), Expected::Version(version))?;
    drop(store);

    let (left, version, read) = balance(&open(&folder)?, b"alice")?;
    println!("after a restart: {left} at version {version}, from a snapshot and {read} event");
    assert_eq!((left, version, read), (15, 134, 1));
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}
