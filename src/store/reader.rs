//! The journal's reading end: whole batches in order, with every defect told apart from a torn tail.
//!
//! Only the very end of the newest segment may be torn: a last line without newline or with a bad checksum, or a batch
//! that is not complete. Anything else is damage and is reported with its place; nothing here changes a file.

use std::{
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use super::{
    error::{Damage, StoreError},
    files,
    frame::{self, LineDefect, LineHash, NO_LINE},
    journal::{Position, segment_first, segment_name},
    segments::{Folder, Segments},
};
use crate::{model::Record, runtime::failpoint};

/// Where reading begins: just after record `seq`, whose line has the hash `prev`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// Newest record before.
    pub seq: u64,
    /// Hash of its line.
    pub prev: LineHash,
    /// Where it ends.
    pub position: Position,
}

impl Start {
    /// The first record of the journal.
    pub const BEGINNING: Start = Start { seq: 0, prev: NO_LINE, position: Position { segment: 0, offset: 0 } };
}

/// Where reading ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct End {
    /// Newest record of a whole batch.
    pub seq: u64,
    /// Hash of its line.
    pub prev: LineHash,
    /// Where it ends.
    pub position: Position,
    /// Segments read.
    pub segments: usize,
    /// Bytes after the last whole batch of the newest segment, with what is wrong with them.
    pub torn: Option<(u64, String)>,
}

/// Why reading stopped.
#[derive(Debug)]
pub enum ReadError {
    /// Not a torn tail.
    Damage(Damage),
    /// A newer program wrote this, or the operating system failed.
    Refused(StoreError),
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> ReadError {
        ReadError::Damage(damage)
    }
}

/// All segments of `dir` by their first record.
///
/// # Errors
/// The directory cannot be read.
pub fn segments(dir: &Path) -> Result<Vec<u64>, StoreError> {
    segments_in(&Folder(dir))
}

fn segments_in(files: &impl Segments) -> Result<Vec<u64>, StoreError> {
    let names = files.names().map_err(|e| StoreError::io("list", &files.path(""), e))?;
    Ok(names.iter().filter_map(|name| segment_first(name)).collect())
}

/// Reads from `start` to the end and hands every whole batch to `each`, in order.
///
/// # Errors
/// [`ReadError::Damage`] for anything but a torn tail, also when `each` says a batch does not fit;
/// [`ReadError::Refused`] for records of a newer program and failures of the operating system.
pub fn read(
    dir: &Path,
    start: Start,
    each: &mut dyn FnMut(&mut Vec<Record>) -> Result<(), String>,
) -> Result<End, ReadError> {
    read_in(&Folder(dir), start, each)
}

/// As [`read`], from any place segments lie in.
///
/// # Errors
/// As [`read`].
pub fn read_in<S: Segments>(
    files: &S,
    start: Start,
    each: &mut dyn FnMut(&mut Vec<Record>) -> Result<(), String>,
) -> Result<End, ReadError> {
    let all = segments_in(files).map_err(ReadError::Refused)?;
    check_earlier(files, &all, start.position.segment)?;
    let rest: Vec<u64> = all.iter().copied().filter(|first| *first >= start.position.segment.max(1)).collect();
    if rest.first().copied().unwrap_or(0) != start.position.segment && start.seq > 0 {
        let what = "the segment the newest checkpoint points into is missing";
        return Err(damage(start.position.segment, 1, start.position.segment, what).into());
    }
    if start.seq > 0 {
        check_start(files, start)?;
    }
    let mut reader = Reader {
        files,
        end: End { seq: start.seq, prev: start.prev, position: start.position, segments: 0, torn: None },
        prev: start.prev,
        seq: start.seq,
        batch: Vec::new(),
        open: 0,
        scratch: Vec::new(),
    };
    for (index, first) in rest.iter().enumerate() {
        reader.segment(*first, index + 1 == rest.len(), each)?;
    }
    Ok(reader.end)
}

struct Reader<'a, S> {
    files: &'a S,
    end: End,
    /// Chain and number of the newest line, which may be inside an open batch.
    prev: LineHash,
    seq: u64,
    batch: Vec<Record>,
    /// Records still missing of the open batch.
    open: u32,
    scratch: Vec<u8>,
}

impl<S: Segments> Reader<'_, S> {
    fn segment(
        &mut self,
        first: u64,
        newest: bool,
        each: &mut dyn FnMut(&mut Vec<Record>) -> Result<(), String>,
    ) -> Result<(), ReadError> {
        let path = self.files.path(&segment_name(first));
        let io = |error| ReadError::Refused(StoreError::io("read", &path, error));
        if first != self.end.position.segment {
            if first != self.seq + 1 {
                return Err(damage(first, 1, self.seq + 1, "records or a whole segment before it are missing").into());
            }
            self.end.position = Position { segment: first, offset: 0 };
        }
        self.end.segments += 1;
        let (mut file, length) = self.files.open(&segment_name(first)).map_err(io)?;
        file.seek(SeekFrom::Start(self.end.position.offset)).map_err(io)?;
        // What is appended while this is read is not looked at: half of a line would look like damage.
        let unread = length.saturating_sub(self.end.position.offset);
        let mut input = BufReader::with_capacity(1 << 18, file.take(unread));
        let mut line = Vec::new();
        let mut at = self.end.position.offset;
        loop {
            line.clear();
            let read = input.read_until(b'\n', &mut line).map_err(io)? as u64;
            if read == 0 {
                break;
            }
            at += read;
            if let Err(wrong) = self.line(first, &mut line) {
                if wrong.may_be_torn && newest && at == length {
                    self.end.torn = Some((length - self.end.position.offset, wrong.what));
                    return Ok(());
                }
                return Err(wrong.place(first, self.seq + 1, &path));
            }
            if self.open == 0 {
                each(&mut self.batch).map_err(|what| damage(first, self.seq + 1 - first, self.seq, &what))?;
                self.batch.clear();
                self.end.seq = self.seq;
                self.end.prev = self.prev;
                self.end.position.offset = at;
            }
        }
        if self.open > 0 {
            let what = format!("the last batch lacks {} of its records", self.open);
            if !newest {
                return Err(damage(first, self.seq + 1 - first, self.seq, &what).into());
            }
            self.end.torn = Some((length - self.end.position.offset, what));
        }
        Ok(())
    }

    fn line(&mut self, _segment: u64, line: &mut Vec<u8>) -> Result<(), Wrong> {
        if line.pop() != Some(b'\n') {
            return Err(Wrong { what: "the line has no end".into(), may_be_torn: true, newer: false });
        }
        let (record, prev) = frame::decode(line, &mut self.scratch).map_err(|defect| Wrong {
            what: defect.to_string(),
            may_be_torn: matches!(defect, LineDefect::Shape | LineDefect::Crc { .. }),
            newer: defect.is_newer(),
        })?;
        if record.seq != self.seq + 1 {
            return Err(Wrong::damage(format!("it has seq {} where {} belongs", record.seq, self.seq + 1)));
        }
        if prev != self.prev {
            return Err(Wrong::damage("it does not name the line before it: the chain is broken".into()));
        }
        match (self.open, record.n) {
            (0, n) => self.open = n.unwrap_or(1).max(1) - 1,
            (_, Some(_)) => return Err(Wrong::damage("a batch begins inside another".into())),
            (open, None) => self.open = open - 1,
        }
        self.prev = frame::line_hash(line);
        self.seq = record.seq;
        self.batch.push(record);
        Ok(())
    }
}

struct Wrong {
    what: String,
    may_be_torn: bool,
    newer: bool,
}

impl Wrong {
    fn damage(what: String) -> Wrong {
        Wrong { what, may_be_torn: false, newer: false }
    }

    fn place(self, segment: u64, seq: u64, path: &Path) -> ReadError {
        let line = seq + 1 - segment;
        if !self.newer {
            return damage(segment, line, seq, &self.what).into();
        }
        let segment = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        ReadError::Refused(StoreError::UnknownRecord { segment, line, seq, what: self.what })
    }
}

fn damage(segment: u64, line: u64, seq: u64, what: &str) -> Damage {
    Damage { segment: segment_name(segment), line, seq, what: what.to_owned() }
}

/// Segments before the one reading begins in: each must end where the next begins.
fn check_earlier(files: &impl Segments, all: &[u64], start: u64) -> Result<(), ReadError> {
    if let Some(first) = all.first().filter(|first| **first != 1) {
        return Err(damage(*first, 1, 1, "the segments before it are missing").into());
    }
    for pair in all.windows(2).filter(|pair| pair[1] <= start) {
        let line = line_ending_at(files, pair[0], None).map_err(ReadError::Refused)?;
        let seq = line.as_deref().and_then(frame::peek_seq).unwrap_or(0);
        if seq + 1 != pair[1] {
            let what = format!("it begins after {}, but the segment before it ends with {seq}", pair[1] - 1);
            return Err(damage(pair[1], 1, seq + 1, &what).into());
        }
    }
    Ok(())
}

/// The line before `start` must be the one the checkpoint saw.
fn check_start(files: &impl Segments, start: Start) -> Result<(), ReadError> {
    let line =
        line_ending_at(files, start.position.segment, Some(start.position.offset)).map_err(ReadError::Refused)?;
    let matches = line.is_some_and(|line| frame::line_hash(&line) == start.prev);
    if matches {
        return Ok(());
    }
    let what = "the journal does not hold the record the newest checkpoint was made of: it is shorter or was changed";
    Err(damage(start.position.segment, start.seq + 1 - start.position.segment.min(start.seq), start.seq, what).into())
}

/// The line whose newline is the byte before `end` (the end of the file when absent), without it; absent when there is
/// none.
fn line_ending_at(files: &impl Segments, segment: u64, end: Option<u64>) -> Result<Option<Vec<u8>>, StoreError> {
    let name = segment_name(segment);
    let path = files.path(&name);
    let io = |error: io::Error| StoreError::io("read", &path, error);
    let (mut file, length) = files.open(&name).map_err(io)?;
    let end = end.unwrap_or(length);
    if length < end || end == 0 {
        return Ok(None);
    }
    let mut span = 1u64 << 16;
    loop {
        let from = end.saturating_sub(span);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(from)).map_err(io)?;
        Read::by_ref(&mut file).take(end - from).read_to_end(&mut bytes).map_err(io)?;
        if bytes.pop() != Some(b'\n') {
            return Ok(None);
        }
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(before) => return Ok(Some(bytes.split_off(before + 1))),
            None if from == 0 => return Ok(Some(bytes)),
            None => span *= 8,
        }
    }
}

/// Moves the bytes after `end` of the newest segment into a file of their own and cuts them off. Returns that file.
///
/// # Errors
/// Any failure of the operating system.
pub fn cut_torn_tail(dir: &Path, position: Position, number: i64) -> Result<PathBuf, StoreError> {
    let path = dir.join(segment_name(position.segment));
    let io = |error: io::Error| StoreError::io("cut the torn tail of", &path, error);
    let mut file = std::fs::OpenOptions::new().read(true).write(true).open(&path).map_err(io)?;
    let mut torn = Vec::new();
    file.seek(SeekFrom::Start(position.offset)).map_err(io)?;
    file.read_to_end(&mut torn).map_err(io)?;
    let mut number = number;
    while dir.join(format!("torn-{number}")).exists() {
        number += 1;
    }
    let aside = dir.join(format!("torn-{number}"));
    files::write_atomically(&aside, &torn).map_err(|e| StoreError::io("write", &aside, e))?;
    failpoint::write("tail.cut").and_then(|()| file.set_len(position.offset)).map_err(io)?;
    failpoint::write("tail.sync").and_then(|()| file.sync_all()).map_err(io)?;
    Ok(aside)
}
