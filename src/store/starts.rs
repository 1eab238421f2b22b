//! Two small marks beside the truth, for counting crashes only: that a start is under way, and that a stop was asked for.
//!
//! The first counts a start that ends within recovery itself, before anything of it is in the journal; the second keeps a
//! drain that was cut short from counting as a crash. Both are best effort: without them a loop is counted a little wrong.

use std::{fs, io, path::Path};

use crate::{model::Ts, runtime::clock::wall_now, runtime::failpoint};

/// Instants of starts that never got through recovery, wall milliseconds, a JSON list.
const STARTING: &str = "starting";
/// The process was asked to stop.
const STOPPING: &str = "stopping";
/// Newest instants that are kept.
const KEPT: usize = 100;

fn note(data: &Path, name: &str, text: &str) {
    let noted = failpoint::write("starts.note").and_then(|()| fs::write(data.join(name), text));
    if let Err(error) = noted {
        tracing::warn!(%error, "`{name}` could not be noted beside the store; crashes may be counted wrong");
    }
}

fn forget(data: &Path, name: &str) {
    match failpoint::write("starts.forget").and_then(|()| fs::remove_file(data.join(name))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "`{name}` beside the store could not be removed; crashes may be counted wrong");
        }
        _ => {}
    }
}

fn keep(data: &Path, starts: &[Ts]) {
    if starts.is_empty() {
        return forget(data, STARTING);
    }
    let newest = &starts[starts.len().saturating_sub(KEPT)..];
    note(data, STARTING, &serde_json::to_string(newest).unwrap_or_default());
}

/// A start begins, and holds the lock. Gives the starts before it that never got through.
pub(super) fn begin(data: &Path) -> Vec<Ts> {
    // One that cannot be read is as good as none.
    let earlier = fs::read(data.join(STARTING)).ok().and_then(|bytes| serde_json::from_slice::<Vec<Ts>>(&bytes).ok());
    let earlier = earlier.unwrap_or_default();
    let mut starts = earlier.clone();
    starts.push(wall_now());
    keep(data, &starts);
    earlier
}

/// It is through, or has ended with an error of its own: either way it did not crash in there.
pub(super) fn through(data: &Path, earlier: &[Ts]) {
    keep(data, earlier);
}

/// Everything noted so far is counted elsewhere now.
pub fn counted(data: &Path) {
    forget(data, STARTING);
    forget(data, STOPPING);
}

/// The process is asked to stop: whatever ends it from now on is no crash of its own.
pub fn stopping(data: &Path) {
    note(data, STOPPING, "asked to stop\n");
}

/// Whether the last process was asked to stop and did not get to its clean stop.
pub fn was_stopping(data: &Path) -> bool {
    data.join(STOPPING).exists()
}
