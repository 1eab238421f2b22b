//! One journal line: a record in a fixed field order with the hash of the line before it and its own checksum.
//!
//! `{"v":…,"seq":…,"epoch":…,"ts":…,["n":…,]"actor":…,"corr":…,"cause":…,"kind":…,"data":…,"prev":…,"crc":…}`.
//! This file knows bytes only; it never reads or writes a file.

use std::{borrow::Cow, fmt::Write as _, io::Write as _};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::model::{Event, Record, Ts, event::SCHEMA_VERSION};

/// First 32 hex digits of the SHA-256 of a line without its newline.
pub type LineHash = [u8; 32];

/// `prev` of the first record.
pub const NO_LINE: LineHash = [b'0'; 32];

/// Length of `,"prev":"<32>","crc":"<8>"}`.
const TAIL: usize = 60;
/// Length of `,"crc":"<8>"}`.
const CRC_TAIL: usize = 18;

/// The hash the next line must carry as `prev`.
pub fn line_hash(line: &[u8]) -> LineHash {
    let digest: [u8; 32] = Sha256::digest(line).into();
    let mut out = NO_LINE;
    // 16 bytes make exactly 32 hex digits, so this cannot fail.
    let _ = hex::encode_to_slice(&digest[..16], &mut out);
    out
}

/// Writes records as chained lines.
#[derive(Debug, Clone)]
pub struct Framer {
    prev: LineHash,
    at: Ts,
    at_text: String,
}

impl Framer {
    /// Continues a chain whose newest line has the hash `prev`.
    pub fn new(prev: LineHash) -> Framer {
        Framer { prev, at: Ts(0), at_text: Ts(0).to_string() }
    }

    /// Hash of the newest line.
    pub fn head(&self) -> LineHash {
        self.prev
    }

    /// Appends one line with its newline to `out`.
    ///
    /// # Errors
    /// When the record has no JSON form; `out` is then unusable.
    pub fn push(&mut self, out: &mut Vec<u8>, record: &Record) -> Result<(), serde_json::Error> {
        if record.ts != self.at {
            self.at = record.ts;
            self.at_text.clear();
            // Writing into a String cannot fail.
            let _ = write!(self.at_text, "{}", record.ts);
        }
        let start = out.len();
        let Record { v, seq, epoch, n, .. } = record;
        // Writing into a Vec cannot fail; neither can the writes below.
        let _ = write!(out, r#"{{"v":{v},"seq":{seq},"epoch":{epoch},"ts":"{}","#, self.at_text);
        if let Some(n) = n {
            let _ = write!(out, r#""n":{n},"#);
        }
        out.extend_from_slice(br#""actor":"#);
        serde_json::to_writer(&mut *out, record.actor.as_ref())?;
        out.extend_from_slice(br#","corr":"#);
        serde_json::to_writer(&mut *out, &record.corr)?;
        out.extend_from_slice(br#","cause":"#);
        serde_json::to_writer(&mut *out, &record.cause)?;
        let event = out.len();
        serde_json::to_writer(&mut *out, &record.event)?;
        // The event's own braces become a comma and, with the tail below, the closing brace of the line.
        out[event] = b',';
        out.pop();
        out.extend_from_slice(br#","prev":""#);
        out.extend_from_slice(&self.prev);
        out.push(b'"');
        let crc = crc32c::crc32c(&out[start..]);
        let _ = write!(out, r#","crc":"{crc:08x}"}}"#);
        self.prev = line_hash(&out[start..]);
        out.push(b'\n');
        Ok(())
    }
}

/// What is wrong with one line.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum LineDefect {
    /// Too short, or `prev` and `crc` are not where they belong.
    #[error("the line has no `prev` and `crc` at its end")]
    Shape,
    /// The checksum does not match the bytes.
    #[error("checksum {found} does not match the bytes, which give {computed:08x}")]
    Crc {
        /// As written.
        found: String,
        /// As computed.
        computed: u32,
    },
    /// The version is newer than this program.
    #[error("record version {0} is unknown here (known: {SCHEMA_VERSION})")]
    Version(u64),
    /// The kind does not exist here.
    #[error("event kind `{0}` is unknown here")]
    Kind(String),
    /// The checksum is right but the content is no record.
    #[error("the content is no record: {0}")]
    Content(String),
}

impl LineDefect {
    /// True when the bytes are intact and a newer program could read them.
    pub fn is_newer(&self) -> bool {
        matches!(self, LineDefect::Version(_) | LineDefect::Kind(_))
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    v: u32,
    seq: u64,
    epoch: u32,
    ts: Ts,
    #[serde(default)]
    n: Option<u32>,
    #[serde(borrow)]
    actor: Cow<'a, str>,
    #[serde(borrow)]
    corr: Cow<'a, str>,
    #[serde(borrow)]
    cause: Cow<'a, str>,
}

/// Checks shape and checksum of a line without its newline and gives its body (before `prev`) and `prev`.
fn checked(line: &[u8]) -> Result<(&[u8], LineHash), LineDefect> {
    let cut = line.len().checked_sub(TAIL).ok_or(LineDefect::Shape)?;
    let (body, tail) = line.split_at(cut);
    let prev = tail.strip_prefix(br#","prev":""#).and_then(|rest| rest.get(..32)).ok_or(LineDefect::Shape)?;
    let crc_tail = line.get(line.len() - CRC_TAIL..).ok_or(LineDefect::Shape)?;
    let digits = crc_tail.strip_prefix(br#","crc":""#).and_then(|rest| rest.strip_suffix(br#""}"#));
    let digits = digits.ok_or(LineDefect::Shape)?;
    let computed = crc32c::crc32c(&line[..line.len() - CRC_TAIL]);
    let mut expected = [0; 8];
    // 4 bytes make exactly 8 hex digits, so this cannot fail.
    let _ = hex::encode_to_slice(computed.to_be_bytes(), &mut expected);
    if digits != expected {
        return Err(LineDefect::Crc { found: String::from_utf8_lossy(digits).into_owned(), computed });
    }
    let mut hash = NO_LINE;
    hash.copy_from_slice(prev);
    Ok((body, hash))
}

/// Reads one line without its newline: the record and its `prev`. `scratch` is reused between calls.
///
/// # Errors
/// [`LineDefect`] with what is wrong.
pub fn decode(line: &[u8], scratch: &mut Vec<u8>) -> Result<(Record, LineHash), LineDefect> {
    let (body, prev) = checked(line)?;
    let content = |why: &str| LineDefect::Content(why.to_owned());
    let v = leading_number(body, br#"{"v":"#).ok_or_else(|| content("it does not begin with its version"))?;
    if v == 0 || v > u64::from(SCHEMA_VERSION) {
        return Err(LineDefect::Version(v));
    }
    // Inside a JSON text every quote follows a backslash, so this pattern occurs outside of texts only.
    let kind_at = find(body, br#","kind":""#).ok_or_else(|| content("it has no kind"))?;
    scratch.clear();
    scratch.extend_from_slice(&body[..kind_at]);
    scratch.push(b'}');
    let header: Header<'_> = serde_json::from_slice(scratch).map_err(|e| LineDefect::Content(e.to_string()))?;
    let Header { v, seq, epoch, ts, n, actor, corr, cause } = header;
    let (actor, corr, cause) = (Cow::Owned(actor.into_owned()), corr.into_owned(), cause.into_owned());
    scratch.clear();
    scratch.push(b'{');
    scratch.extend_from_slice(&body[kind_at + 1..]);
    scratch.push(b'}');
    let event: Event = serde_json::from_slice(scratch).map_err(|error| {
        let kind = scratch[9..].split(|byte| *byte == b'"').next().unwrap_or_default();
        let kind = String::from_utf8_lossy(kind).into_owned();
        let text = error.to_string();
        if text.starts_with(&format!("unknown variant `{kind}`")) {
            LineDefect::Kind(kind)
        } else {
            LineDefect::Content(text)
        }
    })?;
    Ok((Record { v, seq, epoch, ts, n, actor, corr, cause, event }, prev))
}

/// The sequence number of a line, read without checking anything else.
pub fn peek_seq(line: &[u8]) -> Option<u64> {
    let at = find(line.get(..64.min(line.len()))?, br#""seq":"#)?;
    leading_number(&line[at..], br#""seq":"#)
}

fn leading_number(bytes: &[u8], prefix: &[u8]) -> Option<u64> {
    let rest = bytes.strip_prefix(prefix)?;
    let digits = rest.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(rest.len());
    std::str::from_utf8(&rest[..digits]).ok()?.parse().ok()
}

/// Position of the first occurrence of `needle`.
pub(crate) fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// A JSON value with its schema, the record it is from and a checksum: how objects lie in the embedded store.
pub fn envelope(seq: u64, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(data.len() + 64);
    let _ = write!(out, r#"{{"v":{SCHEMA_VERSION},"seq":{seq},"data":"#);
    out.extend_from_slice(data);
    let crc = crc32c::crc32c(&out);
    let _ = write!(out, r#","crc":"{crc:08x}"}}"#);
    out
}

/// The JSON value inside an [`envelope`].
///
/// # Errors
/// What is wrong with it, for people.
pub fn open_envelope(bytes: &[u8]) -> Result<&[u8], String> {
    let cut = bytes.len().checked_sub(CRC_TAIL).ok_or("a value is too short")?;
    let (body, tail) = bytes.split_at(cut);
    let expected = format!(r#","crc":"{:08x}"}}"#, crc32c::crc32c(body));
    if tail != expected.as_bytes() {
        return Err("a value has a wrong checksum".into());
    }
    if leading_number(body, br#"{"v":"#) != Some(u64::from(SCHEMA_VERSION)) {
        return Err("a value has another schema".into());
    }
    let at = find(body, br#","data":"#).ok_or("a value has no data")?;
    Ok(&body[at + 8..])
}

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;
