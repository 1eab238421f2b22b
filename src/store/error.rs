//! Everything that can go wrong with the store, each with a sentence for people and an exit code.

use std::{io, path::Path, path::PathBuf};

use super::{JOURNAL_DAMAGED, STORE_AHEAD};
use crate::model::apply::Misfit;

/// A defect of the journal that is not a torn tail. Nothing is repaired; the program starts HALTED.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the journal is damaged: segment {segment}, line {line}, seq {seq}: {what}; nothing was repaired")]
pub struct Damage {
    /// File name of the segment.
    pub segment: String,
    /// 1-based line within it.
    pub line: u64,
    /// The sequence number expected there.
    pub seq: u64,
    /// What is wrong.
    pub what: String,
}

impl Damage {
    /// The HALTED start over it, which knows the records up to `seq` and can write none.
    pub fn halt(&self, seq: u64) -> HaltReason {
        let text = format!(
            "{self}. This is a read-only view up to record {seq}: orders, fills and positions made after it are not known \
             to this process, nothing can be recorded, and so no stop, target or exit is carried out. Copy the directory, \
             restore journal/ from a backup, start again"
        );
        HaltReason { code: JOURNAL_DAMAGED, text }
    }
}

/// Why a start ends HALTED.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HaltReason {
    /// `store_moved`, `store_ahead` or `journal_damaged`.
    pub code: &'static str,
    /// For people.
    pub text: String,
}

impl HaltReason {
    /// Acknowledged records are gone or cannot be read: only `reset` leads out, after a look at the account.
    pub fn is_loss(&self) -> bool {
        HaltReason::tells_loss(self.code)
    }

    /// The same of the reason a HALTED state carries.
    pub fn tells_loss(reason: &str) -> bool {
        [STORE_AHEAD, JOURNAL_DAMAGED].iter().any(|code| reason.starts_with(code))
    }
}

/// The store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process owns the directory.
    #[error("the store {} is in use by {holder}; stop it first or choose another data directory", path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// `process 4711 since …`, as far as the lock file tells.
        holder: String,
    },
    /// A file stands where the directory should be.
    #[error("{} is not a directory; choose another place for the store with --store or `data_dir`", path.display())]
    NotADirectory {
        /// What was given.
        path: PathBuf,
    },
    /// The system refuses to make it, for a reason of the place.
    #[error(
        "the store directory {} cannot be made ({source}); make room and a writable directory above it, or choose another place \
         with --store or `data_dir`",
        path.display()
    )]
    CannotMake {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// No right to read or write.
    #[error("no permission for {}: the user of this process must own it and may read and write it", path.display())]
    Permission {
        /// The file or directory.
        path: PathBuf,
    },
    /// The file system or directory is read-only.
    #[error("{} is on a read-only file system; the store must be able to write", path.display())]
    ReadOnly {
        /// The file or directory.
        path: PathBuf,
    },
    /// No space left.
    #[error("no space left for {}; free some and start again, nothing acknowledged is lost", path.display())]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// Any other failure of the operating system.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Locks and syncs cannot be trusted there.
    #[error("{} is on a {kind} file system, whose locks and syncs cannot be trusted; use a local one", path.display())]
    NetworkFileSystem {
        /// The data directory.
        path: PathBuf,
        /// Type of the file system.
        kind: String,
    },
    /// Written by a newer program.
    #[error("{} has schema {found}, this program knows up to {known}; use the newer program", path.display())]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// What it says.
        found: u32,
        /// What is known here.
        known: u32,
    },
    /// A record this program does not understand.
    #[error(
        "journal segment {segment}, line {line}, seq {seq}: {what}; a newer program wrote it, this one does not start"
    )]
    UnknownRecord {
        /// File name of the segment.
        segment: String,
        /// 1-based line within it.
        line: u64,
        /// Its sequence number.
        seq: u64,
        /// Version or kind.
        what: String,
    },
    /// Simulated, csv and live data never share a store.
    #[error("the store {} holds {stored} data and was opened for {asked} data; choose another data directory", path.display())]
    OtherDataKind {
        /// The data directory.
        path: PathBuf,
        /// What the store holds.
        stored: String,
        /// What was asked for.
        asked: String,
    },
    /// `identity.json` cannot be understood.
    #[error("{} cannot be read: {why}; restore it from a backup", path.display())]
    BadIdentity {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The first commit of this start failed.
    #[error(transparent)]
    Fatal(#[from] Fatal),
}

impl StoreError {
    /// Sorts an operating-system error into the sentence that helps.
    pub fn io(what: &'static str, path: &Path, source: io::Error) -> StoreError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::PermissionDenied => StoreError::Permission { path },
            io::ErrorKind::ReadOnlyFilesystem => StoreError::ReadOnly { path },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => StoreError::Full { path },
            io::ErrorKind::NotADirectory => StoreError::NotADirectory { path },
            _ => StoreError::Io { what, path, source },
        }
    }

    /// Exit code of a process that cannot start: 73 in use, 2 where only a person can help, 70 otherwise.
    pub fn exit_code(&self) -> u8 {
        match self {
            StoreError::InUse { .. } => 73,
            StoreError::Io { .. } | StoreError::Full { .. } | StoreError::Fatal(_) => 70,
            _ => 2,
        }
    }
}

/// The process must end with exit code 70: nothing was acknowledged, and nothing is tried again.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Write or sync of the journal failed.
    #[error("the journal cannot be written ({what} {}: {source}); the commit has no effect", path.display())]
    Journal {
        /// `append`, `sync`, `create`.
        what: &'static str,
        /// The segment.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The embedded store failed after the journal was written; recovery applies the records.
    #[error("the embedded store failed: {0}; the journal has the record and the next start applies it")]
    Embedded(String),
    /// Another boot wrote to the embedded store.
    #[error("the embedded store is at epoch {found}, this process at {ours}; another process wrote to it")]
    Fenced {
        /// Stored epoch.
        found: u32,
        /// Epoch of this process.
        ours: u32,
    },
    /// A batch contradicts the state: a broken invariant of the program.
    #[error(transparent)]
    Misfit(#[from] Misfit),
    /// A record has no text form: a broken invariant of the program.
    #[error("a record cannot be written as text: {0}")]
    Unwritable(String),
    /// A checkpoint could not be written.
    #[error("the checkpoint cannot be written: {0}")]
    Checkpoint(String),
    /// An observer of committed records is gone although nobody detached it.
    #[error("an observer of committed records is gone; it would miss what happened")]
    ObserverGone,
    /// An earlier failure already ended this store.
    #[error("the store failed before and accepts nothing more")]
    Poisoned,
    /// The store was opened HALTED over a damaged journal, or closed.
    #[error("the store is read-only: {0}")]
    Frozen(String),
}

impl Fatal {
    /// Exit code of the process that met it.
    pub const EXIT_CODE: u8 = 70;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_becomes_the_sentence_that_helps_and_its_exit_code() {
        use io::ErrorKind::{
            NotADirectory, NotFound, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
        };
        let told = |kind: io::ErrorKind| {
            let error = StoreError::io("open", Path::new("/x"), kind.into());
            (error.to_string().split_once("/x").unwrap().1.chars().take(24).collect::<String>(), error.exit_code())
        };
        for (kind, words, code) in [
            (PermissionDenied, ": the user of this proces", 2),
            (ReadOnlyFilesystem, " is on a read-only file ", 2),
            (StorageFull, "; free some and start ag", 70),
            (QuotaExceeded, "; free some and start ag", 70),
            (NotADirectory, " is not a directory; cho", 2),
            (NotFound, ": entity not found", 70),
        ] {
            assert_eq!(told(kind), (words.chars().take(24).collect(), code), "{kind:?}");
        }
        let path = PathBuf::from("/x");
        assert_eq!(StoreError::InUse { path, holder: "process 1".into() }.exit_code(), 73);
    }

    #[test]
    fn only_lost_or_unreadable_records_are_a_loss() {
        let reason = |code| HaltReason { code, text: String::new() };
        assert!(reason(STORE_AHEAD).is_loss() && reason(JOURNAL_DAMAGED).is_loss());
        assert!(!reason("store_moved").is_loss());
        assert!(HaltReason::tells_loss("journal_damaged: line 3") && !HaltReason::tells_loss("operator"));
    }
}
