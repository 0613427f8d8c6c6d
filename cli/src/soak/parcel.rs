//! The same messages as bytes and as Cap'n Proto: how they are sent and opened.

use std::time::Duration;

use windlass::schemas::bench_capnp::sample;
use windlass::{Message, Payload, PublishError, Publisher, Raw, Receipt, View};

use super::record::Record;

/// What Cap'n Proto adds to the bytes that it carries, at most.
const TYPED_BYTES: usize = 128;

/// As long as it takes: nobody is stopped for as long.
const FOREVER: Duration = Duration::from_secs(3_600);

/// A message to be sent.
pub struct Draft {
    pub record: Record,
    pub len: usize,
    pub how: How,
    /// It gets a wrong checksum: a test of the test.
    pub torn: bool,
}

/// How a message is published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Copied.
    Copy,
    /// Built in place.
    Loan,
    /// Built in place in more space than it needs.
    Trim,
    /// Begun in place, dropped, and built anew.
    Again,
}

impl Draft {
    fn write(&self, space: &mut [u8]) {
        self.record.write(space);
        if self.torn {
            space[4] ^= 1;
        }
    }
}

/// A type of topic that the soak can use.
pub trait Parcel: Payload + Sized {
    /// The most bytes of a record that fit a message of this topic.
    fn room(publisher: &Publisher<Self>) -> usize;

    /// Publishes a message, waiting for room for at most `patience`.
    fn send(
        publisher: &mut Publisher<Self>,
        draft: &Draft,
        patience: Duration,
    ) -> Result<Receipt, PublishError>;

    /// Publishes several messages, waiting for room as long as it takes.
    ///
    /// # Errors
    ///
    /// As for `send`, with the number published before.
    fn send_all(
        publisher: &mut Publisher<Self>,
        drafts: &[Draft],
    ) -> Result<u64, (u64, PublishError)>;

    /// Copies a message out of the mapping, with all checks, and compares the copy.
    fn copy(message: &Message<'_, Self>) -> Result<(), String>;

    /// The record in a message.
    fn open<'a>(message: &'a Message<'_, Self>) -> Result<&'a [u8], String>;

    /// The record in a view.
    fn open_view(view: &View<Self>) -> Result<&[u8], String>;
}

impl Parcel for Raw {
    fn room(publisher: &Publisher<Self>) -> usize {
        publisher.payload_bytes_max()
    }

    fn send(
        publisher: &mut Publisher<Self>,
        draft: &Draft,
        patience: Duration,
    ) -> Result<Receipt, PublishError> {
        let Draft { len, how, .. } = *draft;
        if how == How::Copy {
            let mut bytes = vec![0; len];
            draft.write(&mut bytes);
            return publisher.publish_timeout(&bytes, patience);
        }
        if how == How::Again {
            let mut loan = publisher.loan_timeout(len, patience)?;
            loan.fill(0xee);
        }
        let more = if how == How::Trim { len / 2 } else { 0 };
        let space = (len + more).min(publisher.payload_bytes_max());
        let mut loan = publisher.loan_timeout(space, patience)?;
        draft.write(&mut loan[..len]);
        loan.publish_len(len)
    }

    fn send_all(
        publisher: &mut Publisher<Self>,
        drafts: &[Draft],
    ) -> Result<u64, (u64, PublishError)> {
        publisher.publish_batch(drafts.iter().map(|draft| {
            let mut bytes = vec![0; draft.len];
            draft.write(&mut bytes);
            bytes
        }))
    }

    fn copy(message: &Message<'_, Self>) -> Result<(), String> {
        let bytes = message.pin().into_bytes();
        same(message.bytes(), &bytes)
    }

    fn open<'a>(message: &'a Message<'_, Self>) -> Result<&'a [u8], String> {
        Ok(message.bytes())
    }

    fn open_view(view: &View<Self>) -> Result<&[u8], String> {
        Ok(view.as_bytes())
    }
}

impl Parcel for sample::Owned {
    fn room(publisher: &Publisher<Self>) -> usize {
        publisher.payload_bytes_max() - TYPED_BYTES
    }

    fn send(
        publisher: &mut Publisher<Self>,
        draft: &Draft,
        patience: Duration,
    ) -> Result<Receipt, PublishError> {
        if draft.how == How::Again {
            publisher.loan_timeout(patience)?.init_root().set_sequence(u64::MAX);
        }
        let mut loan = publisher.loan_timeout(patience)?;
        let mut root = loan.init_root();
        root.set_sequence(draft.record.lane_sequence);
        root.set_time(draft.record.author.0);
        root.set_source(draft.record.lane);
        root.set_flags(draft.len as u32);
        root.set_value(draft.record.number as f64);
        draft.write(root.init_data(draft.len as u32));
        loan.publish()
    }

    fn send_all(
        publisher: &mut Publisher<Self>,
        drafts: &[Draft],
    ) -> Result<u64, (u64, PublishError)> {
        for (sent, draft) in (0..).zip(drafts) {
            Self::send(publisher, draft, FOREVER).map_err(|error| (sent, error))?;
        }
        Ok(drafts.len() as u64)
    }

    fn copy(message: &Message<'_, Self>) -> Result<(), String> {
        let copy = message.to_owned_message().map_err(unreadable)?;
        let copy = copy.get_root_as_reader().map_err(unreadable)?;
        same(Self::open(message)?, record_of(copy)?)
    }

    fn open<'a>(message: &'a Message<'_, Self>) -> Result<&'a [u8], String> {
        record_of(message.get().map_err(unreadable)?)
    }

    fn open_view(view: &View<Self>) -> Result<&[u8], String> {
        record_of(view.get().map_err(unreadable)?)
    }
}

fn same(bytes: &[u8], copy: &[u8]) -> Result<(), String> {
    match bytes == copy {
        true => Ok(()),
        false => Err("a copy is not the same as the message".to_owned()),
    }
}

fn unreadable(error: capnp::Error) -> String {
    format!("a message cannot be read: {}", error.extra)
}

/// The record in a sample, whose fields must say the same as the record.
fn record_of(sample: sample::Reader<'_>) -> Result<&[u8], String> {
    let bytes = sample.get_data().map_err(unreadable)?;
    let (record, _) = Record::read(bytes)?;
    let same = sample.get_sequence() == record.lane_sequence
        && sample.get_time() == record.author.0
        && sample.get_source() == record.lane
        && sample.get_flags() as usize == bytes.len()
        && sample.get_value() == record.number as f64;
    match same {
        true => Ok(bytes),
        false => Err(format!("the fields of a message are torn: it carries {record:?}")),
    }
}
