//! The recording of calls on disk: one file per request, mode 0600, replaced whole, so that a kill leaves the attempts
//! that were kept and never half of one.
//!
//! A replay reads its whole folder at the start and touches neither disk nor network afterwards.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    llm::{
        cassette::{self, Attempt, Recorded, file_name},
        question::{FailureKind, Rejected},
    },
    settings::{CassetteMode, CassetteSettings},
    store::files,
};

/// What happens to calls besides being made.
#[derive(Debug, Default)]
pub enum Tape {
    /// Nothing.
    #[default]
    Off,
    /// Attempts are kept in this folder.
    Record(Folder),
    /// What is recorded is played; what is not is asked for and kept: a recording in virtual time, which goes on where an
    /// earlier one ended.
    Continue(Folder),
    /// Attempts come from here.
    Replay(Folder),
}

/// A recording's folder.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    /// Attempts not yet played, by request; the next one is the last.
    left: RefCell<BTreeMap<String, Vec<Attempt>>>,
    /// A file is read and replaced by one call at a time.
    alone: Arc<Mutex<()>>,
}

impl Tape {
    /// Opens what the settings ask for; `held`: virtual time stands still during a call.
    ///
    /// # Errors
    /// The folder or one of its files cannot be used, with its path and what to do.
    pub fn open(settings: &CassetteSettings, held: bool) -> Result<Tape, String> {
        let dir = PathBuf::from(&settings.dir);
        let folder = |left| Folder { dir: dir.clone(), left: RefCell::new(left), alone: Arc::default() };
        match settings.mode {
            CassetteMode::Off => Ok(Tape::Off),
            CassetteMode::Record => {
                files::create_dir(&dir).map_err(|error| format!("cassette {}: {error}", dir.display()))?;
                // Nobody pays for a recording that no replay could read.
                let known = load(&dir)?;
                Ok(if held { Tape::Continue(folder(known)) } else { Tape::Record(folder(BTreeMap::new())) })
            }
            CassetteMode::Replay => load(&dir).map(|known| Tape::Replay(folder(known))),
        }
    }

    /// Whether the network is out of use.
    pub const fn replays(&self) -> bool {
        matches!(self, Tape::Replay(_))
    }

    /// Whether attempts are kept.
    pub const fn records(&self) -> bool {
        matches!(self, Tape::Record(_) | Tape::Continue(_))
    }

    /// The next recorded attempt at a request; it is played once.
    pub fn next(&self, request_sha256: &str) -> Option<Attempt> {
        match self {
            Tape::Off | Tape::Record(_) => None,
            Tape::Continue(folder) | Tape::Replay(folder) => folder.left.borrow_mut().get_mut(request_sha256)?.pop(),
        }
    }

    /// Why a request cannot be played; names hash and file.
    pub fn miss(&self, request_sha256: &str) -> Rejected {
        let rejected = |detail| Rejected { kind: FailureKind::NotRecorded, detail };
        let (Tape::Record(folder) | Tape::Continue(folder) | Tape::Replay(folder)) = self else {
            return rejected("nothing is replayed".to_owned());
        };
        let known = folder.left.borrow().contains_key(request_sha256);
        let file = folder.dir.join(file_name(request_sha256));
        let what = if known { "holds fewer attempts than are asked for" } else { "does not exist" };
        rejected(format!(
            "request {request_sha256} is not recorded: {} {what}; run once with cassette.mode = \"record\"",
            file.display()
        ))
    }

    /// Appends an attempt to those of its request; `request` says which, its attempts are not looked at. Blocks for a
    /// write to disk; see [`Tape::keep_beside`].
    ///
    /// # Errors
    /// The file could not be read or replaced.
    pub fn keep(&self, request: Recorded, attempt: Attempt) -> Result<(), String> {
        let (Tape::Record(folder) | Tape::Continue(folder)) = self else { return Ok(()) };
        append(&folder.dir, &folder.alone, request, attempt)
    }

    /// [`Tape::keep`] beside the agents' thread; awaited.
    ///
    /// # Errors
    /// As [`Tape::keep`].
    pub async fn keep_beside(&self, request: Recorded, attempt: Attempt) -> Result<(), String> {
        let (Tape::Record(folder) | Tape::Continue(folder)) = self else { return Ok(()) };
        let (dir, alone) = (folder.dir.clone(), Arc::clone(&folder.alone));
        let written = tokio::task::spawn_blocking(move || append(&dir, &alone, request, attempt)).await;
        written.unwrap_or_else(|error| Err(error.to_string()))
    }
}

fn append(dir: &Path, alone: &Mutex<()>, request: Recorded, attempt: Attempt) -> Result<(), String> {
    // It guards nothing in memory that a panic could have left half done.
    let _alone = alone.lock().unwrap_or_else(PoisonError::into_inner);
    let path = dir.join(file_name(&request.request_sha256));
    let wrong = |error: &dyn std::fmt::Display| format!("cassette {}: {error}", path.display());
    let mut recorded = match fs::read(&path) {
        Ok(bytes) => cassette::read(&bytes).map_err(|error| wrong(&error))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Recorded { attempts: Vec::new(), ..request },
        Err(error) => return Err(wrong(&error)),
    };
    recorded.attempts.push(attempt);
    let mut bytes = serde_json::to_vec_pretty(&recorded).map_err(|error| wrong(&error))?;
    bytes.push(b'\n');
    files::write_atomically(&path, &bytes).map_err(|error| wrong(&error))
}

/// Attempts by request, in reverse order.
fn load(dir: &Path) -> Result<BTreeMap<String, Vec<Attempt>>, String> {
    let at = |error: &dyn std::fmt::Display| format!("cassette {}: {error}", dir.display());
    let mut calls = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| at(&error))? {
        let path = entry.map_err(|error| at(&error))?.path();
        // What a kill left of a write ends in another word.
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let wrong = |error: &dyn std::fmt::Display| format!("cassette {}: {error}", path.display());
        let bytes = fs::read(&path).map_err(|error| wrong(&error))?;
        let mut recorded = cassette::read(&bytes).map_err(|error| wrong(&error))?;
        if path.file_name().is_none_or(|name| name.to_string_lossy() != file_name(&recorded.request_sha256)) {
            return Err(wrong(&"is not named after its request; it was renamed or edited"));
        }
        recorded.attempts.reverse();
        calls.insert(recorded.request_sha256, recorded.attempts);
    }
    Ok(calls)
}
