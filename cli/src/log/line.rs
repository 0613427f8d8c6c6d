//! A message as a line of JSON, and back.

use std::borrow::Cow;
use std::io::{self, Write};

use anyhow::{bail, Context, Result};
use base64::prelude::{Engine, BASE64_STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use windlass::Schema;

use super::value::{moment, time};

/// A message, wherever it was read.
pub struct Seen<'a> {
    /// Its number.
    pub sequence: u64,
    /// When it was published, if that is known.
    pub time_ns: Option<u64>,
    /// The lane that holds it.
    pub lane: u32,
    /// Its key; empty if it has none.
    pub key: &'a [u8],
    /// Its payload.
    pub payload: &'a [u8],
}

/// A message, as JSON.
#[derive(Serialize)]
pub struct Line<'a> {
    sequence: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    lane: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(flatten)]
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Content<'a> {
    /// A message of the schema.
    Message(Box<RawValue>),
    /// Bytes that are text.
    Text(&'a str),
    /// Any other bytes.
    Base64(String),
    /// How many there are.
    PayloadBytes(usize),
}

impl<'a> Line<'a> {
    /// A whole message; with `schema` if its payload is to be of one.
    pub fn of(seen: &Seen<'a>, schema: Option<&Schema>) -> Self {
        Self::by(seen, schema, |schema| schema.to_json(seen.payload))
    }

    /// The same, to be written indented.
    pub fn indented(seen: &Seen<'a>, schema: Option<&Schema>) -> Self {
        // No text in JSON holds the end of a line, so all of them are there for the eye.
        let inner = |json: String| json.replace('\n', "\n  ");
        Self::by(seen, schema, |schema| schema.to_json_pretty(seen.payload).map(inner))
    }

    fn by(
        seen: &Seen<'a>,
        schema: Option<&Schema>,
        json: impl FnOnce(&Schema) -> windlass::Result<String>,
    ) -> Self {
        let bytes = || match std::str::from_utf8(seen.payload) {
            Ok(text) => Content::Text(text),
            Err(_) => Content::Base64(BASE64_STANDARD.encode(seen.payload)),
        };
        let Some(schema) = schema else { return Self::with(seen, bytes(), None) };
        let json = json(schema).map_err(|error| error.to_string());
        match json.and_then(|json| RawValue::from_string(json).map_err(|error| error.to_string())) {
            Ok(message) => Self::with(seen, Content::Message(message), None),
            Err(problem) => {
                let bytes = Content::Base64(BASE64_STANDARD.encode(seen.payload));
                Self::with(seen, bytes, Some(problem))
            }
        }
    }

    /// Everything but the payload.
    pub fn head(seen: &Seen<'a>) -> Self {
        Self::with(seen, Content::PayloadBytes(seen.payload.len()), None)
    }

    /// Writes it, without a line end.
    pub fn write(&self, to: impl Write) -> io::Result<()> {
        Ok(serde_json::to_writer(to, self)?)
    }

    /// Writes it, indented.
    pub fn write_pretty(&self, to: impl Write) -> io::Result<()> {
        Ok(serde_json::to_writer_pretty(to, self)?)
    }

    fn with(seen: &Seen<'a>, content: Content<'a>, problem: Option<String>) -> Self {
        let text = std::str::from_utf8(seen.key).ok();
        Self {
            sequence: seen.sequence,
            time: seen.time_ns.map(time),
            lane: seen.lane,
            key: text.filter(|key| !key.is_empty()),
            key_base64: text.is_none().then(|| BASE64_STANDARD.encode(seen.key)),
            content,
            problem,
        }
    }
}

/// A message that a line holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Parsed {
    /// When it was published.
    pub time_ns: Option<u64>,
    /// Its key; empty if it has none.
    pub key: Vec<u8>,
    /// Its payload.
    pub payload: Vec<u8>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Incoming<'a> {
    #[serde(default, rename = "sequence")]
    _sequence: Option<u64>,
    time: Option<String>,
    #[serde(default, rename = "lane")]
    _lane: Option<u32>,
    #[serde(borrow)]
    key: Option<Cow<'a, str>>,
    key_base64: Option<String>,
    #[serde(borrow)]
    message: Option<&'a RawValue>,
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
    base64: Option<String>,
    #[serde(default, rename = "problem")]
    _problem: Option<String>,
}

impl Parsed {
    /// Reads what [`Line::of`] wrote.
    pub fn line(line: &str, schema: Option<&Schema>) -> Result<Self> {
        let incoming: Incoming<'_> = serde_json::from_str(line).context(
            "it is not a line of windlass export (if each line is a message, and nothing else, say \
             --bare)",
        )?;
        let decoded = |text: &str| BASE64_STANDARD.decode(text).context("its base64 is damaged");
        let payload = match (&incoming.message, &incoming.text, &incoming.base64, schema) {
            (Some(message), None, None, Some(schema)) => schema.from_json(message.get())?,
            (Some(_), None, None, None) => bail!(
                "it has a message, and there is no schema to build it by; say --schema-of LOG|TOPIC"
            ),
            (None, Some(text), None, None) => text.as_bytes().to_vec(),
            (None, Some(_), None, Some(schema)) => {
                bail!("it has text, expected a message of {}", schema.type_name())
            }
            (None, None, Some(base64), schema) => {
                let payload = decoded(base64)?;
                schema.map_or(Ok(()), |schema| sound(schema, &payload))?;
                payload
            }
            _ => bail!("expected exactly one of message, text and base64 in it"),
        };
        let key = match (incoming.key, incoming.key_base64) {
            (Some(_), Some(_)) => bail!("it has both a key and a key_base64"),
            (Some(key), None) => key.into_owned().into_bytes(),
            (None, Some(base64)) => decoded(&base64)?,
            (None, None) => Vec::new(),
        };
        let time_ns = incoming.time.as_deref().map(moment).transpose();
        let time_ns = time_ns.map_err(|expected| anyhow::anyhow!("its time: {expected}"))?;
        Ok(Self { time_ns, key, payload })
    }

    /// Reads a line that is a message, or text, and nothing else.
    pub fn bare(line: &str, schema: Option<&Schema>) -> Result<Self> {
        let payload = match schema {
            Some(schema) => schema.from_json(line)?,
            None => line.as_bytes().to_vec(),
        };
        Ok(Self { time_ns: None, key: Vec::new(), payload })
    }
}

/// Refuses a payload that is not a message of the schema.
pub fn sound(schema: &Schema, payload: &[u8]) -> Result<()> {
    Ok(schema.write_json(payload, std::io::sink())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass::schemas::tick_capnp::tick;

    fn back_and_forth(key: &[u8], payload: &[u8], schema: Option<&Schema>) -> String {
        let time_ns = Some(1_795_298_400_123_456_789);
        let seen = Seen { sequence: 7, time_ns, lane: 2, key, payload };
        let line = serde_json::to_string(&Line::of(&seen, schema)).expect("it is JSON");
        let parsed = Parsed::line(&line, schema).expect("it is ours");
        let expected = Parsed { time_ns, key: key.to_vec(), payload: payload.to_vec() };
        assert_eq!(parsed, expected, "{line}");
        line
    }

    #[test]
    fn a_line_says_all_that_there_is_to_know() {
        let schema = Schema::of::<tick::Owned>().expect("a struct");
        let tick = schema.from_json(r#"{"symbol":"ACME","price":1.5}"#).expect("a tick");
        let line = back_and_forth(b"ACME", &tick, Some(&schema));
        let start =
            r#"{"sequence":7,"time":"2026-11-21T22:00:00.123456789Z","lane":2,"key":"ACME","#;
        let message = line.strip_prefix(start).unwrap_or_else(|| panic!("{line}"));
        assert!(message.starts_with(r#""message":{"symbol":"ACME","price":1.5,"#), "{line}");
        assert!(back_and_forth(b"", "grün\n".as_bytes(), None).ends_with(r#""text":"grün\n"}"#));
        assert!(
            back_and_forth(&[0xff], &[0xff, 0], None).contains(r#""key_base64":"/w==","base64""#)
        );
        back_and_forth(b"", b"", None);
    }

    #[test]
    fn a_line_that_is_not_ours_is_refused() {
        let schema = Schema::of::<tick::Owned>().expect("a struct");
        let refused = |line: &str, schema| {
            let error = Parsed::line(line, schema).expect_err("it is refused");
            format!("{error:#}")
        };
        assert!(refused(r#"{"symbol":"ACME"}"#, Some(&schema)).contains("--bare"));
        assert!(refused(r#"{"text":"a"}"#, Some(&schema)).contains("tick.capnp:Tick"));
        assert!(refused(r#"{"message":{}}"#, None).contains("--schema-of"));
        assert!(refused(r#"{"base64":"AAAA"}"#, Some(&schema)).contains("payload"));
        assert!(refused(r#"{"text":"a","base64":"AAAA"}"#, None).contains("exactly one"));
        assert!(refused(r#"{"text":"a","time":"soon"}"#, None).contains("time"));
        assert!(refused("", None).contains("windlass export"));
        assert!(Parsed::bare(r#"{"symbol":"ACME"}"#, Some(&schema)).is_ok());
    }
}
