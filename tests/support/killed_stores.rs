//! Stores as a kill leaves them.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    fs,
    path::{Path, PathBuf},
};

use triplegain::store::files;

/// Segments of the journal in order.
pub fn segments(data: &Path) -> Vec<PathBuf> {
    let dir = data.join("journal");
    let names = files::names(&dir).unwrap();
    names.into_iter().filter(|name| name.ends_with(".jsonl")).map(|name| dir.join(name)).collect()
}

/// Copies a store as a kill leaves it: the bytes on disk, nothing closed.
pub fn killed(data: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_all(data, copy.path());
    // The copy stands for the same place after the kill.
    triplegain::store::identity::adopt(copy.path()).unwrap();
    copy
}

pub fn copy_all(from: &Path, to: &Path) {
    for name in files::names(from).unwrap() {
        let (source, target) = (from.join(&name), to.join(&name));
        if source.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&source, &target);
        } else {
            fs::copy(&source, &target).unwrap();
        }
    }
}
