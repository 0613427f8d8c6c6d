//! A payload as people and JSON see it.

use serde::Serialize;
use serde_json::value::RawValue;
use windlass::Schema;

/// Bytes of a payload that a table shows.
const FIRST_BYTES: usize = 24;

/// Characters of a message that a table shows.
const FIRST_CHARS: usize = 60;

/// A payload: a message by its schema; bytes as text if that is what they are, otherwise in hexadecimal.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Content {
    /// It is a message, as JSON.
    Message(Box<RawValue>),
    /// It is text that a terminal can show.
    Text(String),
    /// It is anything else.
    Hex(String),
}

impl Content {
    /// All of a payload, and what is the matter with it if it is not a message of the schema that it should be of.
    pub fn of(payload: &[u8], schema: Option<&Schema>) -> (Self, Option<String>) {
        let bytes = || match readable(payload) {
            Some(text) => Self::Text(text.to_owned()),
            None => Self::Hex(hex(payload)),
        };
        let Some(schema) = schema else { return (bytes(), None) };
        let json = schema.to_json(payload).map_err(|error| error.to_string());
        let raw =
            json.and_then(|json| RawValue::from_string(json).map_err(|error| error.to_string()));
        match raw {
            Ok(message) => (Self::Message(message), None),
            Err(problem) => (bytes(), Some(problem)),
        }
    }
}

/// The text of a payload if it is some: characters and white space, and no control characters.
fn readable(payload: &[u8]) -> Option<&str> {
    let plain = |char: char| !char.is_control() || matches!(char, '\n' | '\r' | '\t');
    std::str::from_utf8(payload).ok().filter(|text| text.chars().all(plain))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The beginning of a payload, for a table.
pub fn beginning(payload: &[u8], schema: Option<&Schema>) -> String {
    if let Some(json) = schema.and_then(|schema| schema.to_json(payload).ok()) {
        return match json.char_indices().nth(FIRST_CHARS) {
            Some((end, _)) => format!("{} …", &json[..end]),
            None => json,
        };
    }
    let first = &payload[..payload.len().min(FIRST_BYTES)];
    let more = if payload.len() > FIRST_BYTES { " …" } else { "" };
    // A character may be cut in two at the end; what is before it tells whether this is text.
    let whole = match std::str::from_utf8(first) {
        Err(error) if error.error_len().is_none() => &first[..error.valid_up_to()],
        _ => first,
    };
    match readable(whole) {
        Some(text) => format!("{text:?}{more}"),
        None => format!("{}{more}", hex(first)),
    }
}

/// All of a payload, sixteen bytes a line with their place before and their characters behind.
pub fn dump(payload: &[u8]) -> String {
    let line = |(index, row): (usize, &[u8])| {
        let bytes: Vec<String> = row.iter().map(|byte| format!("{byte:02x}")).collect();
        let shown = |byte: &u8| match *byte {
            0x20..=0x7e => char::from(*byte),
            _ => '.',
        };
        let text: String = row.iter().map(shown).collect();
        format!("{:08x}  {:<47}  {text}", index * 16, bytes.join(" "))
    };
    payload.chunks(16).enumerate().map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass::schemas::tick_capnp::tick;

    fn raw(payload: &[u8]) -> String {
        beginning(payload, None)
    }

    #[test]
    fn text_is_shown_as_text_and_anything_else_in_hexadecimal() {
        assert_eq!(raw(b"sweep the floor"), "\"sweep the floor\"");
        assert_eq!(raw(b"two\nlines"), "\"two\\nlines\"");
        assert_eq!(raw(&[0, 1, 0xff]), "0001ff");
        assert_eq!(raw(&[b'a'; 30]), format!("\"{}\" …", "a".repeat(24)));
        let cut = format!("{}ä", "a".repeat(23));
        assert_eq!(raw(cut.as_bytes()), format!("\"{}\" …", "a".repeat(23)));
        let content = |payload| Content::of(payload, None).0;
        assert!(matches!(content("grün".as_bytes()), Content::Text(text) if text == "grün"));
        assert!(matches!(content(b"\x1b[2J"), Content::Hex(hex) if hex == "1b5b324a"));
    }

    #[test]
    fn a_message_is_shown_as_json_and_one_that_is_none_as_bytes_with_the_reason() {
        let schema = Schema::of::<tick::Owned>().expect("a struct");
        let payload = schema.from_json(r#"{"symbol": "ACME"}"#).expect("a tick");
        let (content, problem) = Content::of(&payload, Some(&schema));
        let line = serde_json::to_string(&content).expect("it is JSON");
        assert!(line.starts_with(r#"{"message":{"symbol":"ACME","price":0.0,"#), "{line}");
        assert_eq!(problem, None);
        let shown = beginning(&payload, Some(&schema));
        assert!(
            shown.starts_with(r#"{"symbol":"ACME","price":0.0,"#) && shown.ends_with(" …"),
            "{shown}"
        );

        let (content, problem) = Content::of(&payload[..12], Some(&schema));
        assert!(matches!(content, Content::Hex(hex) if hex.len() == 24));
        assert!(problem.is_some_and(|problem| problem.contains("its 12 bytes")));
        assert_eq!(beginning(b"what", Some(&schema)), "\"what\"");
    }

    #[test]
    fn a_dump_says_where_each_byte_is() {
        let shown = dump(b"0123456789abcdef\xffx");
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[0].starts_with("00000000  30 31") && lines[0].ends_with("0123456789abcdef"));
        assert!(lines[1].starts_with("00000010  ff 78 ") && lines[1].ends_with("  .x"));
        assert_eq!(lines[0].find("0123456789"), lines[1].find(".x"));
    }
}
