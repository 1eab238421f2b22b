//! Finds the one JSON object of a reply. A fence around it does not matter, nor do thoughts between `<think>` and
//! `</think>` before it; a second object, an object in a list, braces that are no JSON and prose beside the object do: it
//! may quote the object or take it back ("the wrong answer would be …"), and what is doubtful is no answer.

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IntoDeserializer},
};
use serde_json::Value;

use super::rejected;
use crate::llm::question::{FailureKind, Rejected};

/// Longest reply that is looked at, bytes.
pub const SIZE_MAX: usize = 256 * 1024;
/// Deepest nesting of an answer; the object itself is 1.
pub const DEPTH_MAX: usize = 16;
/// Opens and closes a block of code.
const FENCE: &str = "```";
/// Between these some local models think, in the text of their answer.
const THOUGHTS: (&str, &str) = ("<think>", "</think>");

/// The text of the one object in `text`.
///
/// # Errors
/// Empty, too large, cut off, not JSON, nested too deep, inside a list, beside prose, or more than one object.
pub fn object(text: &str) -> Result<&str, Rejected> {
    if text.len() > SIZE_MAX {
        let detail = format!("{} bytes, allowed: {SIZE_MAX}", text.len());
        return Err(rejected(FailureKind::TooLarge, detail));
    }
    let text = match text.trim_start().strip_prefix(THOUGHTS.0) {
        None => text,
        Some(thoughts) => match thoughts.split_once(THOUGHTS.1) {
            Some((_, answer)) => answer,
            None => return Err(rejected(FailureKind::Truncated, "the thoughts before the answer do not end")),
        },
    };
    if text.trim().is_empty() {
        return Err(rejected(FailureKind::Empty, "the reply has no text"));
    }
    let Some(start) = text.find('{') else {
        return Err(rejected(FailureKind::Unparsable, "there is no JSON object; prose is not read"));
    };
    let (before, rest) = text.split_at(start);
    let mut values = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(error)) if error.is_eof() => {
            return Err(rejected(FailureKind::Truncated, "the JSON object is not complete"));
        }
        Some(Err(error)) => return Err(rejected(FailureKind::Unparsable, format!("no JSON object: {error}"))),
        None => return Err(rejected(FailureKind::Unparsable, "there is no JSON object")),
    };
    let (found, after) = rest.split_at_checked(values.byte_offset()).unwrap_or((rest, ""));
    if before.trim_end().ends_with('[') || after.trim_start().starts_with([']', ',']) {
        return Err(rejected(FailureKind::Unparsable, "the object stands in a list"));
    }
    if after.contains('{') {
        return Err(rejected(FailureKind::Unparsable, "there is more than one object"));
    }
    let (before, after) = (before.trim(), after.trim());
    let said = |text: &str| text.chars().take(60).collect::<String>();
    let language = before.strip_prefix(FENCE);
    if !(before.is_empty() || language.is_some_and(|name| name.chars().all(char::is_alphanumeric))) {
        let detail = format!("text stands before the object: `{}`", said(before));
        return Err(rejected(FailureKind::Unparsable, detail));
    }
    if !(after.is_empty() || language.is_some() && after == FENCE) {
        return Err(rejected(FailureKind::Unparsable, format!("text follows the object: `{}`", said(after))));
    }
    if depth(&value) > DEPTH_MAX {
        return Err(rejected(FailureKind::Unparsable, format!("nested deeper than {DEPTH_MAX}")));
    }
    Ok(found)
}

/// Levels of nesting; the parser has bounded them at 128.
fn depth(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// One word of a list, given as a text. An object of that name, `{"BUY": null}`, would be taken for the same word
/// otherwise; it is no answer of the schema.
///
/// # Errors
/// No text, or no word of the list.
pub fn word<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    T::deserialize(String::deserialize(deserializer)?.into_deserializer())
}

/// The one object of `text` as a `T`. Unknown fields are ignored; a field given twice is a failure.
///
/// # Errors
/// As [`object`]; a missing field, a wrong type or an unknown word, with its path.
pub fn read<T: DeserializeOwned>(text: &str) -> Result<T, Rejected> {
    let mut parser = serde_json::Deserializer::from_str(object(text)?);
    serde_path_to_error::deserialize(&mut parser).map_err(|error| {
        let detail = error.to_string();
        let unknown_word = error.inner().to_string().starts_with("unknown variant");
        rejected(if unknown_word { FailureKind::OutOfRange } else { FailureKind::Unparsable }, detail)
    })
}
