//! For tests of a power loss: what the store asks of the file system, in order, beside the real files.

use std::{
    cell::RefCell,
    path::{Path, PathBuf},
};

/// One request.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// A new empty file; its name is not durable yet.
    Create(PathBuf),
    /// Bytes after the end; not durable yet.
    Write(PathBuf, Vec<u8>),
    /// What was written to the file is durable, its name is not.
    Sync(PathBuf),
    /// A name given to another file.
    Rename(PathBuf, PathBuf),
    /// A name removed.
    Remove(PathBuf),
    /// The names in the directory are durable.
    SyncDir(PathBuf),
    /// Everything up to this record was acknowledged.
    Acknowledged(u64),
}

thread_local! {
    static OPS: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
}

/// Begins to record on this thread.
pub(crate) fn begin() {
    OPS.set(Some(Vec::new()));
}

/// What was recorded since [`begin`].
pub(crate) fn end() -> Vec<Op> {
    OPS.take().unwrap_or_default()
}

/// Records, when asked to.
pub(crate) fn record(op: impl FnOnce() -> Op) {
    OPS.with_borrow_mut(|ops| ops.as_mut().map(|ops| ops.push(op())).unwrap_or_default());
}

/// A whole file written beside its final name, as `files::write_atomically` does it.
pub(crate) fn written(path: &Path, bytes: &[u8]) {
    record(|| Op::Create(path.to_owned()));
    record(|| Op::Write(path.to_owned(), bytes.to_vec()));
    record(|| Op::Sync(path.to_owned()));
}
