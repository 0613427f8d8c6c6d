//! Messages as JSON, and back.

mod read;
mod value;
mod write;

use crate::error::{Error, ErrorKind, Result};
use std::io;

use super::Schema;

/// How deep objects and lists of JSON may nest: as deep as common parsers follow.
const LEVELS_MAX: usize = 127;

/// The key of a text that is not UTF-8.
const BASE64_KEY: &str = "$base64";

/// How a number that JSON has no form for is written.
const NAN: &str = "NaN";
const INFINITY: &str = "Infinity";
const NEGATIVE_INFINITY: &str = "-Infinity";

/// # JSON
///
/// With the feature `json`. A message is one object with its fields under their names, in the order of their ordinals.
/// Fields that are not set have their defaults.
///
/// | in the message | in JSON |
/// |---|---|
/// | `Void` | `null` |
/// | `Bool` | `true`, `false` |
/// | integers of any size, `Float32`, `Float64` | a number with all of its digits |
/// | a float that is no number | `"NaN"`, `"Infinity"`, `"-Infinity"` |
/// | an enum | the name of its value, or the number if this schema has no name for it |
/// | `Text` | a string; `{"$base64": "…"}` if it is not UTF-8 |
/// | `Data` | a string in base64 |
/// | a list, a struct, a group | a list, an object |
/// | a union | the member that is selected, and no other; none if this schema does not know it |
/// | a pointer that is null | nothing; its default if it has one, and `null` if it is the selected member of a union |
/// | a pointer that is null in a list | the empty value of its type |
/// | `AnyPointer`, an interface | nothing if it is null, else `null`: the schema does not say what is there |
///
/// These are the conventions of Cap'n Proto's own codec (`capnp convert binary:json`), except that it writes integers
/// of 64 bits as strings and `Data` as lists of numbers, leaves out pointers that have their default, and has no form
/// for texts that are not UTF-8, and none for an `AnyPointer`. What it writes is understood here.
impl Schema {
    /// A message as one line of JSON.
    ///
    /// # Errors
    ///
    /// `Corrupt` if the payload is not a sound message of the type; the error names the field.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use windlass::{schemas::tick_capnp::tick, Schema};
    ///
    /// let schema = Schema::of::<tick::Owned>()?;
    /// let json = r#"{"symbol":"ACME","price":101.25,"size":7,"number":0,"publishedNs":0,"venue":"dark"}"#;
    /// let payload = schema.from_json(json)?;
    /// assert_eq!(schema.to_json(&payload)?, json);
    /// # Ok(()) }
    /// ```
    pub fn to_json(&self, payload: &[u8]) -> Result<String> {
        let mut text = Vec::new();
        write::message(self, payload, &mut serde_json::Serializer::new(&mut text))?;
        into_text(text)
    }

    /// A message as JSON of several lines, indented.
    ///
    /// # Errors
    ///
    /// As for [`to_json`](Self::to_json).
    pub fn to_json_pretty(&self, payload: &[u8]) -> Result<String> {
        let mut text = Vec::new();
        write::message(self, payload, &mut serde_json::Serializer::pretty(&mut text))?;
        into_text(text)
    }

    /// Writes a message as one line of JSON, without a line end.
    ///
    /// # Errors
    ///
    /// As for [`to_json`](Self::to_json), and `Io` if it cannot be written. A part of it may have been written then.
    pub fn write_json(&self, payload: &[u8], to: impl io::Write) -> Result<()> {
        write::message(self, payload, &mut serde_json::Serializer::new(to))
    }

    /// Builds a message from JSON: the payload to publish, in one segment and in the canonical form of Cap'n Proto, but
    /// that one of which nothing is set has a word.
    ///
    /// Fields may come in any order; one that is missing, or a pointer that is `null`, is not set. A `null` selects
    /// the member of a union that it is given for. Besides what [`to_json`](Self::to_json) writes, integers may be
    /// strings, and `Data` a list of numbers.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is not JSON, or a field is not known, given twice by a union, of another type or out of range;
    /// the error names the field, what was found and what was expected.
    pub fn from_json(&self, json: &str) -> Result<Vec<u8>> {
        let value = serde_json::from_str(json).map_err(|error| {
            Error::new(
                ErrorKind::Invalid,
                format!("a message cannot be built: it is not JSON: {error}"),
            )
        })?;
        read::message(self, &value)
    }
}

fn into_text(text: Vec<u8>) -> Result<String> {
    // What is written is text, and that of messages is looked at first.
    String::from_utf8(text).map_err(|error| Error::new(ErrorKind::Io, error.to_string()))
}

#[cfg(test)]
mod tests;
