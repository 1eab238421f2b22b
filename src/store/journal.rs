//! The journal's writing end: segments of whole groups, one write and one data sync per group.
//!
//! A failed write or sync is never tried again: the caller ends the process.

use std::{
    fs::File,
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use super::{error::Fatal, files};
use crate::runtime::failpoint;

/// One open segment. The seam through which tests let the disk fail.
pub trait JournalFile: Send {
    /// Writes all bytes at the end.
    ///
    /// # Errors
    /// Any failure; part of the bytes may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything written durable.
    ///
    /// # Errors
    /// Any failure; what was written is then undefined.
    fn sync(&mut self) -> io::Result<()>;
}

impl JournalFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    /// A file that lost its name meanwhile takes every byte and gives none back at the next start.
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()?;
        match self.metadata()?.nlink() {
            0 => Err(io::Error::new(io::ErrorKind::NotFound, "the file was deleted while it was written")),
            _ => Ok(()),
        }
    }
}

/// Opens a segment for appending; `true` creates it.
pub type Opener = Box<dyn Fn(&Path, bool) -> io::Result<Box<dyn JournalFile>> + Send>;

/// Segments as plain files.
pub fn plain_files() -> Opener {
    Box::new(|path, new| {
        let file = files::owner_only().append(true).create_new(new).open(path)?;
        Ok(Box::new(file) as Box<dyn JournalFile>)
    })
}

/// Makes the names in the journal's directory durable.
pub type SyncNames = Box<dyn Fn(&Path) -> io::Result<()> + Send>;

/// Name of the segment that begins with record `first`.
pub fn segment_name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// First sequence number of a segment by its name; absent for other files.
pub fn segment_first(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl").filter(|digits| digits.len() == 20)?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

/// Where the journal ends: a segment and a length in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Position {
    /// First record of the segment; 0 = there is none yet.
    pub segment: u64,
    /// Bytes of it that are whole batches.
    pub offset: u64,
}

/// The writing end.
pub struct Journal {
    dir: PathBuf,
    opener: Opener,
    sync_names: SyncNames,
    file: Option<Box<dyn JournalFile>>,
    path: PathBuf,
    position: Position,
    day: i64,
    limit: u64,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal").field("path", &self.path).field("position", &self.position).finish_non_exhaustive()
    }
}

impl Journal {
    /// Continues at `position`; `day` is the UTC day of the newest record, `limit` the bytes that close a segment.
    pub fn new(dir: PathBuf, opener: Opener, position: Position, day: i64, limit: u64) -> Journal {
        let path = dir.join(segment_name(position.segment));
        Journal { dir, opener, sync_names: Box::new(files::sync_dir), file: None, path, position, day, limit }
    }

    /// The same journal in a directory that is not one of the file system.
    #[must_use]
    pub fn naming(mut self, sync_names: SyncNames) -> Journal {
        self.sync_names = sync_names;
        self
    }

    /// Makes durable what an earlier process may have left unsynced when it was killed: the end of the newest segment, and
    /// its name. A start reads it, so nothing may be built upon it before; a new segment would not sync it any more.
    ///
    /// # Errors
    /// [`Fatal::Journal`]; the process must end.
    pub fn adopt(&mut self) -> Result<(), Fatal> {
        if self.position.segment == 0 {
            return Ok(());
        }
        let opened = failpoint::write("journal.open").and_then(|()| (self.opener)(&self.path, false));
        let mut file = opened.map_err(|e| fatal("open", &self.path, e))?;
        failpoint::write("journal.sync").and_then(|()| file.sync()).map_err(|e| fatal("sync", &self.path, e))?;
        self.file = Some(file);
        let synced = failpoint::write("journal.dir_sync").and_then(|()| (self.sync_names)(&self.dir));
        synced.map_err(|e| fatal("sync", &self.dir, e))
    }

    /// Where the journal ends.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Appends whole batches beginning with record `first` of UTC day `day` and makes them durable.
    ///
    /// # Errors
    /// [`Fatal::Journal`]; the process must end.
    pub fn write(&mut self, bytes: &[u8], first: u64, day: i64) -> Result<(), Fatal> {
        let full = self.position.offset >= self.limit || day > self.day;
        if self.position.segment == 0 || (full && self.position.offset > 0) {
            self.roll(first)?;
        }
        self.day = day;
        if self.file.is_none() {
            let opened = failpoint::write("journal.open").and_then(|()| (self.opener)(&self.path, false));
            let opened = opened.map_err(|e| fatal("open", &self.path, e))?;
            self.file = Some(opened);
        }
        let Some(file) = self.file.as_mut() else {
            return Err(fatal("open", &self.path, io::ErrorKind::NotFound.into()));
        };
        let appended = failpoint::write("journal.append");
        let appended = appended.and_then(|()| file.append(failpoint::cut("journal.append", bytes)));
        appended.map_err(|e| fatal("append to", &self.path, e))?;
        failpoint::write("journal.sync").and_then(|()| file.sync()).map_err(|e| fatal("sync", &self.path, e))?;
        failpoint::effect("journal.synced", "");
        self.position.offset += bytes.len() as u64;
        Ok(())
    }

    /// Closes the segment and begins the next; its name is durable before anything is in it.
    fn roll(&mut self, first: u64) -> Result<(), Fatal> {
        if let Some(mut old) = self.file.take() {
            failpoint::write("journal.close").and_then(|()| old.sync()).map_err(|e| fatal("sync", &self.path, e))?;
        }
        self.path = self.dir.join(segment_name(first));
        let created = failpoint::write("journal.create").and_then(|()| (self.opener)(&self.path, true));
        self.file = Some(created.map_err(|e| fatal("create", &self.path, e))?);
        let synced = failpoint::write("journal.dir_sync").and_then(|()| (self.sync_names)(&self.dir));
        synced.map_err(|e| fatal("sync", &self.dir, e))?;
        self.position = Position { segment: first, offset: 0 };
        Ok(())
    }
}

fn fatal(what: &'static str, path: &Path, source: io::Error) -> Fatal {
    Fatal::Journal { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_deleted_under_the_running_process_acknowledges_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path().to_owned(), plain_files(), Position::default(), 0, 1_000);
        journal.write(b"1\n", 1, 5).unwrap();
        std::fs::remove_file(dir.path().join(segment_name(1))).unwrap();
        let error = journal.write(b"2\n", 2, 5).unwrap_err().to_string();
        assert!(error.contains("deleted"), "{error}");
    }

    #[test]
    fn segments_roll_by_size_and_by_day() {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = Journal::new(dir.path().to_owned(), plain_files(), Position::default(), 0, 10);
        journal.write(b"12345\n", 1, 5).unwrap();
        journal.write(b"12345\n", 2, 5).unwrap();
        journal.write(b"a\n", 3, 5).unwrap();
        journal.write(b"b\n", 4, 6).unwrap();
        journal.write(b"c\n", 5, 6).unwrap();
        let names = files::names(dir.path()).unwrap();
        assert_eq!(names, [segment_name(1), segment_name(3), segment_name(4)]);
        assert_eq!(journal.position(), Position { segment: 4, offset: 4 });
        assert_eq!(segment_first(&segment_name(3)), Some(3));
        assert_eq!(segment_first("torn-5"), None);
    }
}
