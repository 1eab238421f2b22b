//! Counts the places in the sources where something becomes durable or leaves the process, and fails when one has no
//! failpoint beside it; holds the table of failpoints to the sources in both directions.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use triplegain::runtime::failpoint::SITES;

/// What writes or leaves the process.
const EFFECTS: [&str; 23] = [
    ".sync_all(",
    ".sync_data(",
    ".write_all(",
    "writeln!(file",
    "fs::rename(",
    "fs::write(",
    "fs::remove_file(",
    "File::create(",
    "OpenOptions::new(",
    ".set_len(",
    ".create(path)",
    "db.transact(",
    "db.flush(",
    "open_tree(format!",
    ".send(Commit(",
    "post(\"bus\"",
    ".execute(trade",
    "venue.submit(",
    "venue.cancel(",
    "request.send().await",
    "remove_dir_all(",
    "owner_only()",
    "sync_dir",
];

/// How far above its place a failpoint may stand, lines. Each stands for one place.
const BESIDE: usize = 6;
/// Where the process can be ended. What only shortens the bytes (`failpoint::cut`) is none.
const FAILPOINTS: [&str; 4] = ["failpoint::write(", "failpoint::write_about(", "failpoint::effect(", "fail(\""];

/// Places without a failpoint beside them, and why; each must still exist.
const EXCUSED: [(&str, &str, &str); 20] = [
    ("src/store/journal.rs", "self.write_all(bytes)", "behind `append`, whose callers have journal.append"),
    ("src/store/journal.rs", "self.sync_data()", "behind `sync`, whose callers have journal.sync and journal.close"),
    (
        "src/store/journal.rs",
        "files::owner_only().append(true)",
        "behind the opener, whose callers have journal.open and journal.create",
    ),
    ("src/store/twice.rs", "fs::remove_dir_all(&copy)", "a scratch copy of a check"),
    ("src/store/twice.rs", "fs::remove_dir_all(copy.join(name))", "a scratch copy of a check"),
    ("src/store/verify.rs", "fs::remove_dir_all(&copy)", "a scratch copy of a check"),
    ("src/store/journal.rs", "Box::new(files::sync_dir)", "behind sync_names, whose callers have journal.dir_sync"),
    ("src/store/files.rs", "File::open(path)?.sync_all()", "behind sync_dir, whose callers have a site each"),
    (
        "src/store/files.rs",
        "let mut options = OpenOptions::new();",
        "behind owner_only, whose callers have a site each",
    ),
    ("src/store/reader.rs", "let mut file = std::fs::OpenOptions", "opens only; tail.cut stands where it cuts"),
    ("src/store/core.rs", "out.write_all(&self.buffer)", "the copy of a journal that lives in memory"),
    ("src/store/state_db.rs", "self.db.open_tree(format!", "an auxiliary tree; its rows have aux.write"),
    ("src/execution/work.rs", "venue.execute(trade, tick, desk.now)", "pure; venue.execute stands around the venue"),
    (
        "src/execution/work.rs",
        "venue.execute(trade, Some(tick), desk.now)",
        "pure; venue.execute stands around the venue",
    ),
    (
        "src/llm/actor/shared.rs",
        "self.store.send(Commit(batch))",
        "a reservation or its end; its write is journal.append, and what a crash leaves open stays spent",
    ),
    ("src/store/bundle.rs", "fs::write(&path", "facts for people about a violation; nothing is recovered from it"),
    ("src/execution/venue.rs", "self.inner.execute(trade, price, now)", "a test double"),
    ("src/cli/journal.rs", "out.write_all(&bytes)", "prints to standard output"),
    ("src/cli/backtest/mod.rs", "File::create(&path)", "a report of a command that ends; nothing is recovered from it"),
    ("src/cli/backtest/mod.rs", "std::fs::write(&path, text)", "a report of a command that ends"),
];

fn sources() -> Vec<(String, Vec<String>)> {
    fn walk(dir: &Path, found: &mut Vec<PathBuf>) {
        let mut entries: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = Vec::new();
    walk(&root.join("src"), &mut paths);
    let code = |path: &PathBuf| {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(path).unwrap();
        // Tests stand at the end of their file.
        let text = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        let lines = text.lines().map(|line| if line.trim_start().starts_with("//") { "" } else { line }.to_owned());
        (name, lines.collect())
    };
    let not_code = |name: &str| {
        let test = name.ends_with("_tests.rs") || name.ends_with("fixtures.rs") || name.ends_with("testkit.rs");
        // Harnesses keep no truth: what they lose is run again.
        let harness = name.starts_with("src/cli/torture/") || name.starts_with("src/cli/simulate/");
        // Candles can be fetched or imported again; no decision of the past is read from them.
        let candles = name == "src/market/feed/candle_store.rs";
        test || harness || candles || name.starts_with("src/runtime/failpoint")
    };
    paths.iter().map(code).filter(|(name, _)| !not_code(name)).collect()
}

#[test]
fn every_write_and_every_effect_has_a_failpoint_beside_it() {
    let (mut sites, mut with, mut bare, mut used) = (0, 0, Vec::new(), BTreeSet::new());
    for (name, lines) in sources() {
        let mut taken = BTreeSet::new();
        for (at, line) in lines.iter().enumerate() {
            if !EFFECTS.iter().any(|effect| line.contains(effect)) || line.contains("fn ") {
                continue;
            }
            if let Some(index) = EXCUSED.iter().position(|(file, text, _)| *file == name && line.contains(text)) {
                used.insert(index);
                continue;
            }
            sites += 1;
            let is_one = |line: &String| FAILPOINTS.iter().any(|call| line.contains(call));
            let free = |near: &usize| is_one(&lines[*near]) && !taken.contains(near);
            match (at.saturating_sub(BESIDE)..=at).rev().find(free) {
                Some(near) => {
                    taken.insert(near);
                    with += 1;
                }
                None => bare.push(format!("{name}:{}: {}", at + 1, line.trim())),
            }
        }
    }
    println!("failpoints: {sites} sites, {with} with a failpoint, {} excused", used.len());
    assert!(sites > 40, "only {sites} sites were found: the patterns do not fit the sources any more");
    assert!(bare.is_empty(), "without a failpoint:\n{}", bare.join("\n"));
    let gone: Vec<_> = (0..EXCUSED.len()).filter(|index| !used.contains(index)).map(|index| EXCUSED[index]).collect();
    assert!(gone.is_empty(), "excused, but no longer there: {gone:?}");
}

#[test]
fn the_table_names_what_the_sources_use_and_nothing_else() {
    let names: Vec<&str> = SITES.iter().map(|site| site.name).collect();
    let known: BTreeSet<&str> = names.iter().copied().collect();
    assert_eq!(known.len(), names.len(), "a name stands twice");
    assert!(SITES.iter().all(|site| !site.rows.is_empty()), "a site that no row reaches");
    let text: String = sources().into_iter().flat_map(|(_, lines)| lines).collect::<Vec<_>>().join("\n");
    let mut used = BTreeSet::new();
    for call in ["failpoint::write(", "failpoint::write_about(", "failpoint::effect(", "failpoint::cut(", "fail("] {
        for (at, _) in text.match_indices(call) {
            let rest = text[at + call.len()..].trim_start();
            if let Some(name) = rest.strip_prefix('"').and_then(|rest| rest.split('"').next())
                && name.contains('.') | known.contains(name)
            {
                used.insert(name);
            }
        }
    }
    let unknown: Vec<_> = used.difference(&known).collect();
    assert!(unknown.is_empty(), "used, but not in the table: {unknown:?}");
    let unused: Vec<_> = known.difference(&used).collect();
    assert!(unused.is_empty(), "in the table, but nowhere used: {unused:?}");
}

#[cfg(not(feature = "failpoints"))]
#[test]
fn a_build_without_the_feature_holds_nothing_of_it_and_ignores_the_variable() {
    let binary = Path::new(env!("CARGO_BIN_EXE_triplegain"));
    let bytes = fs::read(binary).unwrap();
    for word in ["TRIPLEGAIN_FAILPOINTS", "the failpoint "] {
        let found = bytes.windows(word.len()).any(|window| window == word.as_bytes());
        assert!(!found, "`{word}` is in the binary");
    }
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store");
    let check = |args: &[&str]| {
        let mut command = std::process::Command::new(binary);
        command.arg("--store").arg(&store).args(args).env("TRIPLEGAIN_FAILPOINTS", "*=kill;nonsense");
        command.output().unwrap()
    };
    let output = check(&["config", "check"]);
    assert!(output.status.success(), "{output:?}");
}
