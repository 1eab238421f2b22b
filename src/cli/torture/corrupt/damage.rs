//! One damage to one file or directory of a store, drawn from a random source: the same source gives the same damage.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::store::{files, frame::find};

/// Whose file is damaged.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Target {
    /// A segment of the journal.
    Journal,
    /// A checkpoint.
    Checkpoint,
    /// `identity.json`.
    Identity,
    /// The log of the embedded store.
    StateDb,
    /// The configuration of the embedded store.
    StateConf,
    /// A snapshot of the embedded store.
    StateSnap,
    /// The journal as a whole.
    JournalDir,
    /// All checkpoints.
    CheckpointDir,
    /// The embedded store as a whole.
    StateDir,
    /// `LOCK`, which no process holds.
    Lock,
}

/// What is done to it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub enum Way {
    /// One bit of one byte.
    Flip,
    /// The end is cut off.
    Truncate,
    /// A page of zeros.
    Zero,
    /// The file is gone.
    Remove,
    /// A block stands there twice.
    Duplicate,
    /// Two files, or two blocks of one file, have changed places.
    Swap,
    /// Bytes after the end, as an append that was interrupted leaves them.
    Append,
}

impl Target {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Target::Journal => "journal segment",
            Target::Checkpoint => "checkpoint",
            Target::Identity => "identity.json",
            Target::StateDb => "state/db",
            Target::StateConf => "state/conf",
            Target::StateSnap => "state/snap",
            Target::JournalDir => "journal/",
            Target::CheckpointDir => "checkpoint/",
            Target::StateDir => "state/",
            Target::Lock => "LOCK",
        }
    }

    const fn is_directory(self) -> bool {
        matches!(self, Target::JournalDir | Target::CheckpointDir | Target::StateDir)
    }

    /// True for what holds nothing that the journal does not hold as well: its damage may go unnoticed where the content
    /// is equal.
    pub const fn is_copy(self) -> bool {
        !matches!(self, Target::Journal | Target::JournalDir | Target::Identity)
    }

    /// True for what can be done without: no damage of it halts.
    pub const fn must_not_halt(self) -> bool {
        matches!(self, Target::Checkpoint | Target::CheckpointDir | Target::StateDir | Target::Lock)
    }

    fn files(self, store: &Path) -> io::Result<Vec<PathBuf>> {
        let (dir, wanted): (PathBuf, fn(&str) -> bool) = match self {
            Target::Journal => (store.join("journal"), |name| name.ends_with(".jsonl")),
            Target::Checkpoint => (store.join("checkpoint"), |name| name.ends_with(".json")),
            Target::Identity => (store.to_owned(), |name| name == "identity.json"),
            Target::StateDb => (store.join("state"), |name| name == "db"),
            Target::StateConf => (store.join("state"), |name| name == "conf"),
            Target::StateSnap => (store.join("state"), |name| name.starts_with("snap.")),
            Target::JournalDir => (store.to_owned(), |name| name == "journal"),
            Target::CheckpointDir => (store.to_owned(), |name| name == "checkpoint"),
            Target::StateDir => (store.to_owned(), |name| name == "state"),
            Target::Lock => (store.to_owned(), |name| name == "LOCK"),
        };
        Ok(files::names(&dir)?.into_iter().filter(|name| wanted(name)).map(|name| dir.join(name)).collect())
    }

    /// A journal is half of what can go wrong; identity, the library's small files and whole directories the least.
    fn draw(rng: &mut impl Rng) -> Target {
        match rng.random_range(0..100) {
            0..43 => Target::Journal,
            43..59 => Target::Checkpoint,
            59..66 => Target::Identity,
            66..83 => Target::StateDb,
            83..87 => Target::StateConf,
            87..94 => Target::StateSnap,
            94 => Target::JournalDir,
            95 => Target::CheckpointDir,
            96 => Target::StateDir,
            _ => Target::Lock,
        }
    }
}

impl Way {
    /// All of them, in the order of the table.
    pub const ALL: [Way; 7] =
        [Way::Flip, Way::Truncate, Way::Zero, Way::Remove, Way::Duplicate, Way::Swap, Way::Append];

    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Way::Flip => "bit flip",
            Way::Truncate => "truncated",
            Way::Zero => "zeroed page",
            Way::Remove => "removed",
            Way::Duplicate => "duplicated block",
            Way::Swap => "swapped",
            Way::Append => "torn append",
        }
    }

    fn draw(rng: &mut impl Rng) -> Way {
        // A flipped bit is the likeliest damage of a disk and has the most places to be.
        Way::ALL[if rng.random_range(0..4) == 0 { 0 } else { rng.random_range(0..Way::ALL.len()) }]
    }
}

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Damage {
    /// Whose file.
    pub target: Target,
    /// What was done to it.
    pub way: Way,
    /// File and place, for people.
    pub place: String,
}

/// Damages the store in `dir`; draws again until some byte differs from before.
///
/// # Errors
/// Any failure of the operating system.
pub fn inflict(dir: &Path, rng: &mut impl Rng) -> io::Result<Damage> {
    loop {
        let target = Target::draw(rng);
        let way = if target.is_directory() { Way::Remove } else { Way::draw(rng) };
        if let Some(place) = change(dir, target, way, rng)? {
            return Ok(Damage { target, way, place });
        }
    }
}

/// Changes files; none when this way does not fit what is there.
fn change(dir: &Path, target: Target, way: Way, rng: &mut impl Rng) -> io::Result<Option<String>> {
    let all = target.files(dir)?;
    if all.is_empty() {
        return Ok(None);
    }
    let path = &all[rng.random_range(0..all.len())];
    let name = |path: &Path| path.strip_prefix(dir).unwrap_or(path).display().to_string();
    if way == Way::Remove {
        if target.is_directory() {
            fs::remove_dir_all(path)?
        } else {
            fs::remove_file(path)?
        };
        return Ok(Some(name(path)));
    }
    let before = fs::read(path)?;
    if way == Way::Swap && target != Target::StateDb {
        let other = &all[rng.random_range(0..all.len())];
        let theirs = fs::read(other)?;
        if theirs == before {
            return Ok(None);
        }
        fs::write(path, &theirs)?;
        fs::write(other, &before)?;
        return Ok(Some(format!("{} with {}", name(path), name(other))));
    }
    let mut bytes = before.clone();
    let Some(place) = edit(&mut bytes, target, way, rng) else { return Ok(None) };
    if bytes == before {
        return Ok(None);
    }
    fs::write(path, &bytes)?;
    Ok(Some(format!("{} {place}", name(path))))
}

const PAGE: usize = 4_096;

/// Changes the bytes of one file; none when there is nothing to change.
fn edit(bytes: &mut Vec<u8>, target: Target, way: Way, rng: &mut impl Rng) -> Option<String> {
    let length = bytes.len();
    if length == 0 && way != Way::Append {
        return None;
    }
    // Half of all places are near the end, where a crash does its damage.
    let near = rng.random_bool(0.5);
    let mut draw = |limit: usize| {
        let from = if near { limit.saturating_sub(PAGE) } else { 0 };
        rng.random_range(from..limit.max(from + 1))
    };
    Some(match way {
        Way::Flip => {
            let at = draw(length);
            let bit = rng.random_range(0..8);
            bytes[at] ^= 1 << bit;
            format!("bit {bit} of byte {at} of {length}")
        }
        Way::Truncate => {
            let to = draw(length);
            bytes.truncate(to);
            format!("at byte {to} of {length}")
        }
        Way::Zero => {
            let from = draw(length) / PAGE * PAGE;
            let to = (from + PAGE).min(length);
            bytes[from..to].fill(0);
            format!("bytes {from} to {to} of {length}")
        }
        Way::Duplicate if target == Target::Journal => {
            let (from, to) = line_at(bytes, draw(length));
            let block = bytes[from..to].to_vec();
            bytes.splice(to..to, block);
            format!("the line at bytes {from} to {to} of {length}")
        }
        Way::Duplicate => {
            let from = draw(length);
            let to = (from + rng.random_range(1..=PAGE)).min(length);
            let block = bytes[from..to].to_vec();
            if target == Target::StateDb {
                // Its length is fixed: the block overwrites what follows.
                let end = (to + block.len()).min(length);
                bytes[to..end].copy_from_slice(&block[..end - to]);
            } else {
                bytes.splice(to..to, block);
            }
            format!("bytes {from} to {to} of {length}")
        }
        Way::Swap => {
            let pages = length / PAGE;
            if pages < 2 {
                return None;
            }
            let (a, b) = (rng.random_range(0..pages) * PAGE, rng.random_range(0..pages) * PAGE);
            for at in 0..PAGE {
                bytes.swap(a + at, b + at);
            }
            format!("pages at bytes {a} and {b} of {length}")
        }
        Way::Append => {
            let (from, to) = line_at(bytes, length.saturating_sub(1));
            let cut = rng.random_range(from..to.max(from + 1)).min(length);
            let mut more = bytes[from..cut].to_vec();
            if more.is_empty() {
                // No white space: that would change nothing in a JSON text.
                more.push(rng.random_range(128..=255));
            }
            bytes.extend_from_slice(&more);
            format!("{} bytes after byte {length}", more.len())
        }
        Way::Remove => return None,
    })
}

/// The line around byte `at`, with its newline.
fn line_at(bytes: &[u8], at: usize) -> (usize, usize) {
    let at = at.min(bytes.len());
    let from = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |before| before + 1);
    let to = find(&bytes[at..], b"\n").map_or(bytes.len(), |end| at + end + 1);
    (from, to)
}

/// Copies a directory.
///
/// # Errors
/// Any failure of the operating system.
pub fn copy(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for name in files::names(from)? {
        let (source, target) = (from.join(&name), to.join(&name));
        if fs::metadata(&source)?.is_dir() { copy(&source, &target)? } else { fs::copy(&source, &target).map(drop)? }
    }
    Ok(())
}

/// The content of all files directly in `dir` that `wanted` names.
///
/// # Errors
/// Any failure of the operating system.
pub fn contents(dir: &Path, wanted: fn(&str) -> bool) -> io::Result<BTreeMap<String, Vec<u8>>> {
    let names = files::names(dir)?.into_iter().filter(|name| wanted(name));
    names.map(|name| fs::read(dir.join(&name)).map(|bytes| (name, bytes))).collect()
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[test]
    fn every_damage_changes_something_and_comes_from_its_seed_alone() {
        for seed in 0..200 {
            println!("seed {seed}");
            let mut made = Vec::new();
            for _ in 0..2 {
                let home = tempfile::tempdir().unwrap();
                let (dir, whole) = (home.path().join("store"), home.path().join("whole"));
                for name in ["journal", "checkpoint", "state"] {
                    fs::create_dir_all(dir.join(name)).unwrap();
                }
                for name in ["journal/00000000000000000001.jsonl", "journal/00000000000000000007.jsonl"] {
                    fs::write(dir.join(name), format!("{name}\nb\nc\n")).unwrap();
                }
                fs::write(dir.join("state/db"), vec![7; 3 * PAGE]).unwrap();
                fs::write(dir.join("identity.json"), "{}").unwrap();
                fs::write(dir.join("checkpoint/7.json"), "{\"a\":1}").unwrap();
                fs::write(dir.join("LOCK"), "1 since").unwrap();
                copy(&dir, &whole).unwrap();
                let damage = inflict(&dir, &mut ChaCha8Rng::seed_from_u64(seed)).unwrap();
                let all = |root: &Path| {
                    ["", "journal", "state", "checkpoint"]
                        .map(|sub| {
                            contents(&root.join(sub), |name| name.contains('.') || ["db", "LOCK"].contains(&name))
                        })
                        .map(Result::unwrap)
                };
                assert_ne!(all(&dir), all(&whole), "{damage:?}");
                made.push((damage, all(&dir)));
            }
            assert_eq!(made[0], made[1]);
        }
    }
}
