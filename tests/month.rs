//! A whole month of the shipped program in virtual time: default settings, simulated market, no network.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/world/mod.rs"]
mod support;

use support::*;

/// The scenario's month with optimisation, as `cargo test --release` runs it; without, as much as half a minute allows.
const DAYS: i64 = if cfg!(debug_assertions) { 2 } else { 30 };

/// The journal of the whole month, and how many entries and exits it holds.
fn month() -> (Vec<u8>, usize, usize) {
    let bytes = Bytes::default();
    let setup = Setup { journal: Some(bytes.clone()), ..Setup::shipped() };
    let (entries, exits) = setup.play(async |world| {
        world.until(DAYS * 86_400).await;
        (world.count("PositionOpened"), world.count("PositionClosed"))
    });
    let journal = std::mem::take(&mut *bytes.0.lock().unwrap());
    (journal, entries, exits)
}

#[test]
fn a077_a_month_of_the_shipped_program_enters_and_exits_and_is_the_same_every_time() {
    let began = std::time::Instant::now();
    let other = std::thread::spawn(month);
    let (first, entries, exits) = month();
    println!("{DAYS} days: {entries} entries, {exits} exits, {} bytes in {:.1?}", first.len(), began.elapsed());
    assert!(entries >= 1 && exits >= 1, "{entries} entries, {exits} exits");
    let (second, ..) = other.join().unwrap();
    assert!(first == second, "two months of the same seed differ");
}
