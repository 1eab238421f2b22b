//! The real binary hears frames recorded from Kraken's public feed over a real WebSocket, faster than they were recorded:
//! `KRAKEN_REPLAY_SPEED` times (40 by default, two minutes in three seconds). Skipped where the recordings are absent.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use std::path::{Path, PathBuf};

use kraken_home::*;
use kraken_venue::Venue;
use serde_json::Value;

/// Acknowledgements of the venue: three channels of two symbols.
const ACKS: usize = 6;

/// The recorded book frames with their times from the first on, milliseconds at the speed of the replay; nothing where
/// the shared data are absent. The pair is renamed to one the account can value: no checksum covers its name.
fn recorded() -> Option<Vec<(u64, String)>> {
    let speed: i64 = std::env::var("KRAKEN_REPLAY_SPEED").map_or(40, |text| text.parse().unwrap());
    let shared = std::env::var_os("TRIPLEGAIN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared"), PathBuf::from);
    let Ok(text) = std::fs::read_to_string(shared.join("data/kraken_ws_v2/live_book_btcusd_2026-07-19.jsonl")) else {
        println!("skipped: shared data absent");
        return None;
    };
    let (mut first, mut due) = (None, 0);
    let frame = |line: &str| {
        let frame: Value = serde_json::from_str(line).unwrap();
        // A heartbeat carries no time: it comes with the frame before it.
        if let Some(at) = frame["data"][0]["timestamp"].as_str() {
            let at = chrono::DateTime::parse_from_rfc3339(at).unwrap().timestamp_millis();
            due = (at - *first.get_or_insert(at)) / speed;
        }
        (u64::try_from(due).unwrap(), line.replace("\"BTC/USD\"", "\"BTC/USDT\""))
    };
    Some(text.lines().map(frame).collect())
}

/// Plays the script to the program; the status when all of it was heard.
fn play(script: Vec<(u64, String)>) -> (Value, usize) {
    let frames = script.len();
    let venue = Venue::start();
    venue.control().script = script;
    let home = Home::new(&venue);
    let program = home.start();
    let status = program.status_when("the whole recording", |status| {
        feed(status, "BTC/USDT")["frames"].as_u64() >= Some((frames + ACKS) as u64)
    });
    let scripted = venue.control().scripted;
    program.stop("TERM");
    (status, scripted)
}

#[test]
fn every_recorded_frame_is_heard_and_every_book_keeps_its_checksum() {
    let Some(script) = recorded() else { return };
    assert_eq!(script.len(), 1_376);
    let last = script.last().unwrap().0;
    let (status, scripted) = play(script);
    let feed = feed(&status, "BTC/USDT");
    println!("{scripted} frames in {last} ms of program time: {feed}");
    assert_eq!(scripted, 1_376);
    assert_eq!((&feed["odd_frames"], &feed["broken_books"]), (&Value::from(0), &Value::from(0)), "{feed}");
    assert_eq!((&feed["frames"], &feed["reconnects"]), (&Value::from(1_376 + ACKS), &Value::from(0)), "{feed}");
    assert!(feed["last_message_age_seconds"].is_number(), "books are data: {feed}");
}

#[test]
fn one_changed_digit_in_the_recording_breaks_one_book_and_nothing_else() {
    let Some(mut script) = recorded() else { return };
    let (_, text) = &mut script[700..].iter_mut().find(|(_, text)| text.contains("\"checksum\":")).unwrap();
    let (before, after) = text.split_once("\"checksum\":").unwrap();
    *text = format!("{before}\"checksum\":1{}", &after[after.find(',').unwrap()..]);
    // The changes after it have no snapshot to stand on until the venue sends one; here it never does.
    let venue = Venue::start();
    let frames = script.len();
    script.truncate(frames.min(760));
    venue.control().script = script;
    let home = Home::new(&venue);
    let program = home.start();
    let status = program.status_when("the broken book", |status| feed(status, "BTC/USDT")["broken_books"] == 1);
    assert_eq!(feed(&status, "BTC/USDT")["odd_frames"], 0);
    let status =
        program.status_when("the end of the script", |status| feed(status, "BTC/USDT")["frames"].as_u64() >= Some(760));
    let feed = feed(&status, "BTC/USDT");
    assert_eq!((&feed["broken_books"], &feed["reconnects"]), (&Value::from(1), &Value::from(0)), "{feed}");
    program.stop("TERM");
}
