//! Checkpoints: the whole state with its hash, the chain head and the place in the journal, replaced atomically.
//!
//! A checkpoint shortens a start; it is never the truth. One whose checksum or hash is wrong is skipped for the next
//! older one.

use std::{collections::BTreeSet, fs, path::Path};

use chrono::Datelike;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::{
    error::StoreError,
    files,
    frame::{self, LineHash, NO_LINE},
    journal::Position,
    reader::Start,
};
use crate::{
    model::{State, Ts, event::SCHEMA_VERSION},
    runtime::failpoint,
};

/// A checkpoint that was read.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// Where the journal goes on.
    pub start: Start,
    /// Logical time of the state.
    pub at: Ts,
    /// The state.
    pub state: State,
}

#[derive(Deserialize)]
struct Header {
    v: u32,
    seq: u64,
    ts: Ts,
    head: String,
    segment: u64,
    offset: u64,
    state_sha256: String,
}

/// SHA-256 of the state's JSON form, hex.
pub fn state_hash(state: &State) -> String {
    hex::encode(Sha256::digest(serde_json::to_vec(state).unwrap_or_default()))
}

/// Writes the checkpoint of `state` at `head` and `position`.
///
/// # Errors
/// A sentence for people; the older checkpoints still hold.
pub fn write(dir: &Path, state: &State, head: LineHash, position: Position) -> Result<(), String> {
    let bytes = encode(state, head, position)?;
    let path = dir.join(name(state.meta.seq));
    files::write_atomically(&path, &bytes).map_err(|error| StoreError::io("write", &path, error).to_string())
}

/// The content of the checkpoint of `state` at `head` and `position`.
///
/// # Errors
/// A sentence for people.
pub fn encode(state: &State, head: LineHash, position: Position) -> Result<Vec<u8>, String> {
    let body = serde_json::to_vec(state).map_err(|error| error.to_string())?;
    let mut bytes = format!(
        r#"{{"v":{SCHEMA_VERSION},"seq":{},"ts":"{}","head":"{}","segment":{},"offset":{},"state_sha256":"{}","state":"#,
        state.meta.seq,
        state.meta.logical_time,
        String::from_utf8_lossy(&head),
        position.segment,
        position.offset,
        hex::encode(Sha256::digest(&body)),
    )
    .into_bytes();
    bytes.extend_from_slice(&body);
    let crc = crc32c::crc32c(&bytes);
    bytes.extend_from_slice(format!(",\"crc\":\"{crc:08x}\"}}\n").as_bytes());
    Ok(bytes)
}

fn name(seq: u64) -> String {
    format!("{seq:020}.json")
}

/// Sequence numbers of all checkpoints, oldest first.
///
/// # Errors
/// The directory cannot be read.
pub fn list(dir: &Path) -> Result<Vec<u64>, StoreError> {
    let names = files::names(dir).map_err(|e| StoreError::io("list", dir, e))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".json")?.parse().ok()).collect())
}

/// Whether there is a checkpoint of record `seq`.
pub fn exists(dir: &Path, seq: u64) -> bool {
    dir.join(name(seq)).exists()
}

/// Reads one checkpoint.
///
/// # Errors
/// What is wrong with it, for people.
pub fn read(dir: &Path, seq: u64) -> Result<Checkpoint, String> {
    let bytes = fs::read(dir.join(name(seq))).map_err(|error| error.to_string())?;
    decode(&bytes, seq)
}

/// The checkpoint of record `seq` from its content.
///
/// # Errors
/// What is wrong with it, for people.
pub fn decode(bytes: &[u8], seq: u64) -> Result<Checkpoint, String> {
    let (header, body) = split(checked(bytes)?)?;
    if header.v > SCHEMA_VERSION {
        return Err(format!("it has schema {}, this program knows up to {SCHEMA_VERSION}", header.v));
    }
    if hex::encode(Sha256::digest(body)) != header.state_sha256 {
        return Err("its state does not match its hash".into());
    }
    let state: State = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if state.meta.seq != header.seq || header.seq != seq {
        return Err("its numbers contradict each other".into());
    }
    let mut prev = NO_LINE;
    if header.head.len() != prev.len() {
        return Err("its chain head is no hash".into());
    }
    prev.copy_from_slice(header.head.as_bytes());
    let position = Position { segment: header.segment, offset: header.offset };
    Ok(Checkpoint { start: Start { seq, prev, position }, at: header.ts, state })
}

/// What is before the checksum. The hash covers the state alone; the checksum also covers the place in the journal, so
/// that a damaged checkpoint is never taken for a damaged journal.
fn checked(bytes: &[u8]) -> Result<&[u8], String> {
    let cut = bytes.len().checked_sub(CRC_TAIL).ok_or("it is too short")?;
    let (content, tail) = bytes.split_at(cut);
    let expected = format!(",\"crc\":\"{:08x}\"}}\n", crc32c::crc32c(content));
    if tail == expected.as_bytes() { Ok(content) } else { Err("its checksum does not match its bytes".into()) }
}

/// Length of `,"crc":"<8>"}` and the newline.
const CRC_TAIL: usize = 19;

fn split(bytes: &[u8]) -> Result<(Header, &[u8]), String> {
    const STATE: &[u8] = br#","state":"#;
    let at = frame::find(bytes, STATE).ok_or("it holds no state")?;
    let mut head = bytes[..at].to_vec();
    head.push(b'}');
    let header: Header = serde_json::from_slice(&head).map_err(|error| error.to_string())?;
    Ok((header, &bytes[at + STATE.len()..]))
}

/// The newest checkpoint that can be read, and what was wrong with newer ones.
///
/// # Errors
/// The directory cannot be read.
pub fn newest(dir: &Path) -> Result<(Option<Checkpoint>, Vec<String>), StoreError> {
    let mut wrong = Vec::new();
    for seq in list(dir)?.into_iter().rev() {
        match read(dir, seq) {
            Ok(found) => return Ok((Some(found), wrong)),
            Err(why) => wrong.push(format!("checkpoint {seq} is skipped: {why}")),
        }
    }
    Ok((None, wrong))
}

/// Removes all but the newest `keep` checkpoints and the newest of each month.
///
/// # Errors
/// A sentence for people.
pub fn prune(dir: &Path, keep: usize) -> Result<(), String> {
    let all = list(dir).map_err(|error| error.to_string())?;
    let mut months = BTreeSet::new();
    for seq in all.iter().rev().skip(keep.max(1)) {
        let path = dir.join(name(*seq));
        let month = month_of(&path);
        if month.is_none_or(|month| !months.insert(month)) {
            #[cfg(test)]
            super::trace::record(|| super::trace::Op::Remove(path.clone()));
            failpoint::write("checkpoint.prune")
                .and_then(|()| fs::remove_file(&path))
                .map_err(|error| StoreError::io("remove", &path, error).to_string())?;
        }
    }
    Ok(())
}

/// Year and month of a checkpoint, from its first bytes only.
fn month_of(path: &Path) -> Option<(i32, u32)> {
    use std::io::Read;
    let mut first = Vec::new();
    fs::File::open(path).ok()?.take(512).read_to_end(&mut first).ok()?;
    let at = frame::find(&first, br#","state":"#)?;
    first.truncate(at);
    first.push(b'}');
    let header: Header = serde_json::from_slice(&first).ok()?;
    let at = header.ts.utc();
    Some((at.year(), at.month()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::DAY_MS;

    fn state(seq: u64, at: Ts) -> State {
        let mut state = State::default();
        state.meta.seq = seq;
        state.meta.logical_time = at;
        state
    }

    #[test]
    fn a_damaged_checkpoint_is_skipped_for_the_older_one() {
        let dir = tempfile::tempdir().unwrap();
        for seq in [5, 9] {
            write(dir.path(), &state(seq, Ts(0)), [b'a'; 32], Position { segment: 1, offset: seq }).unwrap();
        }
        let (found, wrong) = newest(dir.path()).unwrap();
        assert_eq!((found.unwrap().start.seq, wrong.len()), (9, 0));
        let path = dir.path().join(name(9));
        let text = fs::read_to_string(&path).unwrap().replace("\"orders\":0", "\"orders\":1");
        fs::write(&path, text).unwrap();
        let (found, wrong) = newest(dir.path()).unwrap();
        let found = found.unwrap();
        assert_eq!((found.start.seq, found.start.position.offset, wrong.len()), (5, 5, 1));
        assert_eq!(found.state, state(5, Ts(0)));
    }

    #[test]
    fn the_last_ones_and_one_per_month_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for seq in 1..=9u64 {
            let at = Ts(seq as i64 * 15 * DAY_MS);
            write(dir.path(), &state(seq, at), NO_LINE, Position::default()).unwrap();
        }
        prune(dir.path(), 3).unwrap();
        // 1970: 1 and 2 in January, 3 in February, 4, 5 and 6 in March and April.
        assert_eq!(list(dir.path()).unwrap(), [2, 3, 5, 6, 7, 8, 9]);
    }
}
