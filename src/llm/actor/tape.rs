//! The recording of calls on disk: one file per request, mode 0600, replaced whole.
//!
//! A replay reads its whole folder at the start and touches neither disk nor network afterwards.

use std::{collections::BTreeMap, fs, path::PathBuf};

use crate::{
    llm::{
        cassette::{Recorded, VERSION, file_name},
        question::{FailureKind, Rejected},
    },
    settings::{CassetteMode, CassetteSettings},
    store::files,
};

/// What happens to calls besides being made.
#[derive(Clone, Debug, Default)]
pub enum Tape {
    /// Nothing.
    #[default]
    Off,
    /// Replies are kept in this folder.
    Record(PathBuf),
    /// Replies come from here, by request; the folder is for people.
    Replay(PathBuf, BTreeMap<String, Recorded>),
}

impl Tape {
    /// Opens what the settings ask for.
    ///
    /// # Errors
    /// The folder or one of its files cannot be used, with its path.
    pub fn open(settings: &CassetteSettings) -> Result<Tape, String> {
        let dir = PathBuf::from(&settings.dir);
        match settings.mode {
            CassetteMode::Off => Ok(Tape::Off),
            CassetteMode::Record => files::create_dir(&dir).map(|()| Tape::Record(dir)).map_err(|e| e.to_string()),
            CassetteMode::Replay => load(&dir).map(|calls| Tape::Replay(dir, calls)),
        }
    }

    /// Whether the network is out of use.
    pub const fn replays(&self) -> bool {
        matches!(self, Tape::Replay(..))
    }

    /// The recorded reply to a request.
    ///
    /// # Errors
    /// It was not recorded; names hash and file.
    pub fn play(&self, request_sha256: &str) -> Result<&Recorded, Rejected> {
        let Tape::Replay(dir, calls) = self else {
            let detail = "nothing is replayed".to_owned();
            return Err(Rejected { kind: FailureKind::NotRecorded, detail });
        };
        calls.get(request_sha256).ok_or_else(|| {
            let file = dir.join(file_name(request_sha256));
            let detail = format!(
                "request {request_sha256} is not recorded: {} does not exist; run once with cassette.mode = \"record\"",
                file.display()
            );
            Rejected { kind: FailureKind::NotRecorded, detail }
        })
    }

    /// Keeps a reply; the write happens beside the agents' thread and is awaited.
    pub async fn keep(&self, recorded: Recorded) {
        let Tape::Record(dir) = self else { return };
        let path = dir.join(file_name(&recorded.request_sha256));
        let written = tokio::task::spawn_blocking(move || {
            let mut bytes = serde_json::to_vec_pretty(&recorded).map_err(|error| error.to_string())?;
            bytes.push(b'\n');
            files::write_atomically(&path, &bytes).map_err(|error| error.to_string())
        });
        // A call that is not recorded is still an answer; the replay will name what is missing.
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "a model call could not be recorded"),
            Err(error) => tracing::error!(%error, "a model call could not be recorded"),
        }
    }
}

fn load(dir: &PathBuf) -> Result<BTreeMap<String, Recorded>, String> {
    let at = |error: &dyn std::fmt::Display| format!("cassette {}: {error}", dir.display());
    let mut calls = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|error| at(&error))? {
        let path = entry.map_err(|error| at(&error))?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let wrong = |error: &dyn std::fmt::Display| format!("cassette {}: {error}", path.display());
        let bytes = fs::read(&path).map_err(|error| wrong(&error))?;
        let recorded: Recorded = serde_json::from_slice(&bytes).map_err(|error| wrong(&error))?;
        if recorded.version != VERSION {
            return Err(wrong(&format!("has version {}, this program reads {VERSION}: record anew", recorded.version)));
        }
        if path.file_name().is_none_or(|name| name.to_string_lossy() != file_name(&recorded.request_sha256)) {
            return Err(wrong(&"is not named after its request; it was renamed or edited"));
        }
        calls.insert(recorded.request_sha256.clone(), recorded);
    }
    Ok(calls)
}
