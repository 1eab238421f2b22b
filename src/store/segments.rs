//! The journal's directory as its reader sees it: names and bytes of segments. Files on a disk, or a disk of memory.

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
};

use super::files;

/// Where segments are read from.
pub trait Segments {
    /// An open segment.
    type File: Read + Seek;

    /// Names of all files, sorted; an absent directory has none.
    ///
    /// # Errors
    /// The directory cannot be read.
    fn names(&self) -> io::Result<Vec<String>>;

    /// Opens a file at its beginning and tells its length in bytes.
    ///
    /// # Errors
    /// It is not there or cannot be read.
    fn open(&self, name: &str) -> io::Result<(Self::File, u64)>;

    /// Where a file lies, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// A directory of the file system.
#[derive(Clone, Copy, Debug)]
pub struct Folder<'a>(pub &'a Path);

impl Segments for Folder<'_> {
    type File = File;

    fn names(&self) -> io::Result<Vec<String>> {
        files::names(self.0)
    }

    fn open(&self, name: &str) -> io::Result<(File, u64)> {
        let file = File::open(self.0.join(name))?;
        let length = file.metadata()?.len();
        Ok((file, length))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}
