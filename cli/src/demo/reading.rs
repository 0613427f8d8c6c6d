//! One message of the demo: a row of the recorded data, who sent it, when, and a checksum over all
//! of it.

use windlass::schemas::reading_capnp::reading;

use super::data::Row;

/// The type of the demo's topics.
pub type Topic = windlass::Topic<reading::Owned>;

/// What a publisher adds to a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The number of the publisher.
    pub source: u32,
    /// When the publisher began with it.
    pub published_ns: u64,
}

/// Writes a message.
pub fn write(mut message: reading::Builder<'_>, stamp: Stamp, row: &Row) {
    message.set_source(stamp.source);
    message.set_index(row.index);
    message.set_published_ns(stamp.published_ns);
    message.set_timestamp(row.timestamp);
    message.set_value(row.value);
    message.set_check(checksum(stamp, row));
}

/// Compares message `sequence` with the row that it must carry, and returns what its publisher
/// added.
///
/// # Errors
///
/// A sentence that says what is wrong.
pub fn check(message: reading::Reader<'_>, sequence: u64, row: &Row) -> Result<Stamp, String> {
    let stamp = Stamp { source: message.get_source(), published_ns: message.get_published_ns() };
    if message.get_index() != row.index {
        let (found, expected) = (message.get_index(), row.index);
        return Err(format!("message {sequence} carries row {found}, expected {expected}"));
    }
    let timestamp = message.get_timestamp().map_err(|error| {
        format!("message {sequence} has no readable timestamp: {}", error.extra)
    })?;
    if timestamp.as_bytes() != row.timestamp.as_bytes() {
        let found = String::from_utf8_lossy(timestamp.as_bytes());
        let expected = row.timestamp;
        return Err(format!("message {sequence} is of {found}, expected {expected}"));
    }
    if message.get_value().to_bits() != row.value.to_bits() {
        let (found, expected) = (message.get_value(), row.value);
        return Err(format!("message {sequence} has value {found}, expected {expected}"));
    }
    if message.get_check() != checksum(stamp, row) {
        return Err(format!("message {sequence} has a wrong checksum"));
    }
    Ok(stamp)
}

/// FNV-1a over 64-bit words: any field torn or exchanged changes it.
fn checksum(stamp: Stamp, row: &Row) -> u64 {
    let fields = [u64::from(stamp.source), stamp.published_ns, row.index, row.value.to_bits()];
    let text = row.timestamp.as_bytes().chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    fields.into_iter().chain(text).fold(0xcbf2_9ce4_8422_2325, |hash, word| {
        (hash ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROW: Row = Row { index: 7, timestamp: "2013-12-02 21:15:00", value: 73.5 };
    const STAMP: Stamp = Stamp { source: 2, published_ns: 99 };

    fn verdict(spoil: impl FnOnce(&mut reading::Builder<'_>)) -> Result<Stamp, String> {
        let mut message = capnp::message::Builder::new_default();
        let mut root = message.init_root::<reading::Builder<'_>>();
        write(root.reborrow(), STAMP, &ROW);
        spoil(&mut root);
        check(root.into_reader(), 30, &ROW)
    }

    #[test]
    fn written_message_passes() {
        assert_eq!(verdict(|_| {}), Ok(STAMP));
    }

    #[test]
    fn each_wrong_field_is_found() {
        let wrong = |spoil: fn(&mut reading::Builder<'_>)| verdict(spoil).expect_err("found");
        assert!(wrong(|m| m.set_index(8)).contains("row 8, expected 7"));
        assert!(wrong(|m| m.set_source(3)).contains("checksum"));
        assert!(wrong(|m| m.set_published_ns(98)).contains("checksum"));
        assert!(wrong(|m| m.set_value(73.25)).contains("value 73.25, expected 73.5"));
        assert!(wrong(|m| m.set_timestamp("2013-12-02 21:20:00")).contains("21:20:00"));
        assert!(wrong(|m| m.set_check(0)).contains("checksum"));
    }
}
