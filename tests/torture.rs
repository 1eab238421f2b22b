//! The kill harness with the real program: a short run that must find nothing, and runs that must find something.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

mod process_support;

use std::fs;

use process_support::*;

/// A slow clock and a wide window: a debug build needs a second until it answers.
const SHORT: [&str; 8] = ["--cycles", "20", "--parallel", "2", "--speed", "300", "--window-ms", "2500"];

fn figure(text: &str, name: &str) -> u64 {
    let row = text.lines().find(|line| line.contains(name)).unwrap_or_else(|| panic!("no {name}: {text}"));
    row.split_whitespace().rev().find_map(|word| word.parse().ok()).unwrap()
}

#[test]
fn a150_random_kills_lose_nothing_and_do_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("torture");
    let seed = std::process::id().to_string();
    let args = [&["--store", base.to_str().unwrap(), "torture", "kill", "--seed", &seed], &SHORT[..]].concat();
    let output = run_to_end(&args);
    let said = stdout(&output);
    assert!(output.status.success(), "seed {seed}: {said}{}", stderr(&output));
    assert_eq!((figure(&said, "│ kills  "), figure(&said, "violations")), (20, 0), "{said}");
    assert_eq!(figure(&said, "│ seed"), u64::from(std::process::id()));
    assert!(figure(&said, "records judged") > 0, "{said}");
    assert!(!base.exists(), "a sound run leaves nothing behind");
}

#[test]
fn a_program_that_ends_by_itself_is_a_violation_with_seed_cycle_and_kept_store() {
    let folder = tempfile::tempdir().unwrap();
    let (base, config) = (folder.path().join("torture"), folder.path().join("bad.toml"));
    // The child refuses to start: nothing the harness may take for a kill.
    fs::write(&config, "symbols = []\n").unwrap();
    let output = run_to_end(&[
        "--store",
        base.to_str().unwrap(),
        "--config",
        config.to_str().unwrap(),
        "torture",
        "kill",
        "--cycles",
        "3",
        "--seed",
        "7",
        "--window-ms",
        "60000",
    ]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(65), "{said}");
    for word in
        ["VIOLATION", "store 1, cycle 1", "ended by itself", "--seed 7", "lane-1/store-1", "journal verify --acks"]
    {
        assert!(said.contains(word), "`{word}` is missing: {said}");
    }
    assert_eq!(figure(&stdout(&output), "violations"), 1);
    assert!(base.join("lane-1/store-1.acks.jsonl").exists(), "what was acknowledged is kept");
}

#[test]
fn a_directory_with_something_in_it_is_never_used() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("precious"), "x").unwrap();
    let output = run_to_end(&["--store", folder.path().to_str().unwrap(), "torture", "kill", "--cycles", "1"]);
    assert_clear(&output, 2, &["not empty"]);
    assert!(folder.path().join("precious").exists());
}
