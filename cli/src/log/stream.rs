//! A stream of Cap'n Proto messages: one behind the other, each with a table of its segments in front.

use std::io::{BufRead, Read};

use anyhow::{bail, ensure, Context, Result};

/// Segments of a message: as many as Cap'n Proto itself accepts.
const SEGMENTS_MAX: u64 = 512;

/// Bytes of a message: no segment of a log has more.
const MESSAGE_BYTES_MAX: u64 = 1 << 28;

/// The next message, as it is in the stream; `None` at the end.
pub fn next(from: &mut impl BufRead) -> Result<Option<Vec<u8>>> {
    if from.fill_buf()?.is_empty() {
        return Ok(None);
    }
    let mut message = Vec::new();
    fill(from, &mut message, 4)?;
    let segments = u64::from(word(&message, 0)) + 1;
    if segments > SEGMENTS_MAX {
        bail!("it would have {segments} segments, expected at most {SEGMENTS_MAX}");
    }
    // The table ends on a word.
    let table_bytes = (4 + segments * 4).next_multiple_of(8);
    fill(from, &mut message, table_bytes)?;
    let words: u64 = (1..=segments as usize).map(|at| u64::from(word(&message, at * 4))).sum();
    let bytes = table_bytes + words * 8;
    if bytes > MESSAGE_BYTES_MAX {
        bail!("it would have {bytes} bytes, expected at most {MESSAGE_BYTES_MAX}");
    }
    fill(from, &mut message, bytes)?;
    Ok(Some(message))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut four = [0; 4];
    four.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(four)
}

/// Reads until the message has `bytes` bytes.
fn fill(from: &mut impl BufRead, message: &mut Vec<u8>, bytes: u64) -> Result<()> {
    let missing = bytes - message.len() as u64;
    // What is not there does not get memory because somebody says that it is.
    let read = from.by_ref().take(missing).read_to_end(message).context("cannot read it")?;
    ensure!(
        read as u64 == missing,
        "the file ends inside of it: it has {} bytes of at least {bytes}",
        message.len()
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass::schemas::tick_capnp::tick;
    use windlass::Schema;

    fn ticks(count: usize) -> Vec<Vec<u8>> {
        let schema = Schema::of::<tick::Owned>().expect("a struct");
        let tick = |n| schema.from_json(&format!(r#"{{"symbol":"{}"}}"#, "A".repeat(n)));
        (0..count).map(|n| tick(n * 9).expect("a tick")).collect()
    }

    #[test]
    fn messages_end_where_the_next_one_begins() {
        let ticks = ticks(5);
        let bytes = ticks.concat();
        let mut from = &bytes[..];
        for tick in &ticks {
            assert_eq!(next(&mut from).expect("sound").as_ref(), Some(tick));
        }
        assert_eq!(next(&mut from).expect("sound"), None);
    }

    #[test]
    fn a_stream_that_ends_early_or_begins_elsewhere_is_refused() {
        let tick = &ticks(2)[1];
        for end in 1..tick.len() {
            let error = next(&mut &tick[..end]).expect_err("it ends early");
            assert!(error.to_string().contains("ends inside"), "{end}: {error}");
        }
        let error = next(&mut &b"{\"symbol\":\"ACME\"}"[..]).expect_err("it is text");
        assert!(error.to_string().contains("segments"), "{error}");
        let huge = [&[0; 4][..], &u32::MAX.to_le_bytes()].concat();
        let error = next(&mut &huge[..]).expect_err("it is too large");
        assert!(error.to_string().contains("at most"), "{error}");
    }
}
