//! The real binary at a venue that goes out of service, or whose prices stop while the connection stands: entries are
//! refused with the reason, it is shown, and it is in the journal as an alert.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use kraken_home::*;
use kraken_venue::Venue;
use process_support::*;
use serde_json::Value;

fn paused_for_venue(status: &Value) -> bool {
    status["state"] == "PAUSED" && status["pause_reasons"].as_array().unwrap().contains(&Value::from("venue"))
}

fn noted<'r>(records: &'r [Value], what: &str) -> Vec<&'r Value> {
    of_kind(records, "Noted").into_iter().filter(|record| record["data"]["what"] == what).collect()
}

/// A warm program with live prices.
fn warm(venue: &Venue) -> (Home, Program) {
    let home = Home::new(venue);
    let imported = home.import();
    assert!(imported.status.success(), "{}", stderr(&imported));
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    (home, program)
}

#[test]
fn a_frozen_feed_pauses_says_so_and_ends_with_its_cause() {
    let venue = Venue::start();
    let (_home, program) = warm(&venue);
    assert_eq!(program.status()["state"], "RUNNING");
    venue.control().frozen = true;
    let frozen = program.status_when("the pause", paused_for_venue);
    assert_eq!(feed(&frozen, "BTC/USDT")["connected"], true, "the connection stands");
    let text = stdout(&program.cli(&["status"]));
    assert!(text.contains("PAUSED (venue)") && text.contains("silences") && text.contains("up"), "{text}");
    let resumed = program.done(&["resume"]);
    assert!(resumed.to_string().contains("venue"), "the operator does not thaw it: {resumed}");
    assert!(paused_for_venue(&program.status()));
    let reason = program.refused(&["run-task", "trading_decision", "BTC/USDT"], "state_paused");
    assert!(reason.contains("paused: venue"), "{reason}");

    venue.control().frozen = false;
    program.status_when("the end of the pause", |status| {
        status["state"] == "RUNNING" && alive(status, "BTC/USDT") && alive(status, "XRP/USDT")
    });
    let store = program.stop("TERM");
    let records = assert_sound(&store);
    let alerts = noted(&records, "feed_frozen");
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["data"]["facts"]["no_price_for_seconds"], "3");
}

#[test]
fn a_venue_in_maintenance_pauses_whatever_its_prices_look_like() {
    let venue = Venue::start();
    let (home, program) = warm(&venue);
    venue.control().system = "maintenance".to_owned();
    let status = program.status_when("the pause", paused_for_venue);
    assert!(alive(&status, "BTC/USDT"), "prices go on: {status}");
    assert_eq!(feed(&status, "BTC/USDT")["system"], "maintenance");
    let text = stdout(&program.cli(&["status"]));
    assert!(text.contains("PAUSED (venue)") && text.contains("engine is `maintenance`"), "{text}");
    let reason = program.refused(&["run-task", "trading_decision", "BTC/USDT"], "state_paused");
    assert!(reason.contains("paused: venue"), "{reason}");

    // It outlives the process, and ends when the venue says so.
    program.kill9();
    let program = home.start();
    assert!(paused_for_venue(&program.status_when("a boot", |status| status["boot_epoch"] == 2)));
    program.status_when("live data", |status| {
        alive(status, "BTC/USDT") && feed(status, "BTC/USDT")["system"] == "maintenance" && paused_for_venue(status)
    });
    venue.control().system = "online".to_owned();
    program.status_when("the end of the pause", |status| status["state"] == "RUNNING");
    let records = assert_sound(&program.stop("TERM"));
    let alerts = noted(&records, "venue_not_in_service");
    assert!(!alerts.is_empty() && alerts.iter().all(|alert| alert["data"]["facts"]["system"] == "maintenance"));
}
