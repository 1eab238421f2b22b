//! Damaged copies of a store: each damage is found, nothing acknowledged is lost silently, no start ends by a panic.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

use std::process::Command;

/// Number of cases with optimisation, as CI runs it; without, an eighth. `torture corrupt --cases 10000` is the long form.
const CASES: &str = if cfg!(debug_assertions) { "25" } else { "200" };

#[test]
fn a141_a142_k43_damaged_stores_are_all_noticed() {
    let done = Command::new(env!("CARGO_BIN_EXE_triplegain"))
        .args(["torture", "corrupt", "--parallel", "4", "--seed", "1", "--cases", CASES])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    println!("{text}{}", String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success());
    assert!(text.contains(&format!("{CASES} cases, 0 violations")));
}
