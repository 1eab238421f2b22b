//! The real binary at a venue that goes out of service, or whose prices stop while the connection stands: entries are
//! refused with the reason, it is shown, and it is in the journal as an alert.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use std::fs;

use kraken_home::*;
use kraken_venue::{Venue, candle, now};
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

/// Minutes and closes of the candles that are kept of BTC/USDT.
fn kept(home: &Home) -> Vec<(i64, f64)> {
    let text = fs::read_to_string(home.store().join("candles/XBTUSDT_1.csv")).unwrap();
    let number = |line: &str, field: usize| line.split(',').nth(field).unwrap().parse::<f64>().unwrap();
    text.lines().map(|line| (number(line, 0) as i64 / 60, number(line, 4))).collect()
}

/// Freezes the candles of BTC/USDT, and waits until that of the minute it happened in is there all the same.
fn freeze_candles(venue: &Venue, home: &Home) -> i64 {
    // What is seconds old at the end of its minute is believed.
    until("a minute that has not ended soon", || (now() % 60_000 < 50_000).then_some(()));
    let frozen = now() / 60_000;
    venue.control().frozen_candles.insert("BTC/USDT".to_owned());
    until("the candle that did not come", || kept(home).iter().any(|(minute, _)| *minute == frozen).then_some(()));
    frozen
}

/// From the minute before the freeze on no candle is missing, and each is as it ended.
fn assert_whole(home: &Home, frozen: i64) {
    let kept = kept(home);
    let of_then = &kept[kept.iter().position(|(minute, _)| *minute == frozen - 1).unwrap()..];
    assert!(of_then.windows(2).all(|pair| pair[1].0 == pair[0].0 + 1), "a hole in {of_then:?}");
    let (_, close) = of_then[1];
    assert!((close - candle("BTC/USDT", frozen)[3]).abs() < 1e-6, "minute {frozen} is not as it ended");
}

/// `KRAKEN_FREEZE=1` (`just freeze-kraken`) goes on until the freeze is told and over, which takes five minutes.
#[test]
fn candles_that_stop_while_prices_go_on_are_fetched_whole_and_take_no_entry_after_three() {
    let venue = Venue::start();
    let (home, program) = warm(&venue);
    let began = freeze_candles(&venue, &home);
    assert_whole(&home, began);
    let shown = feed(&program.status(), "BTC/USDT");
    assert_eq!((&shown["reconnects"], &shown["unfilled_candles"]), (&Value::from(0), &Value::from(0)), "{shown}");
    assert_eq!((&shown["candles_frozen"], &shown["gaps"]), (&Value::from(false), &Value::from(0)), "{shown}");
    if std::env::var_os("KRAKEN_FREEZE").is_none() {
        program.stop("TERM");
        return;
    }
    let frozen = program.status_when("the freeze", |status| feed(status, "BTC/USDT")["candles_frozen"] == true);
    assert_eq!((&frozen["state"], &feed(&frozen, "BTC/USDT")["silent"]), (&Value::from("RUNNING"), &Value::from(true)));
    assert_eq!(feed(&frozen, "BTC/USDT")["silences"], 0, "its prices are there");
    assert_eq!(feed(&frozen, "XRP/USDT")["silent"], false);
    let text = stdout(&program.cli(&["status"]));
    assert!(text.contains("no candles: no entries"), "{text}");
    venue.control().frozen_candles.clear();
    program.status_when("candles again", |status| feed(status, "BTC/USDT")["silent"] == false);
    until("one of the feed", || kept(&home).iter().any(|(minute, _)| *minute == began + 4).then_some(()));
    let back = feed(&program.status(), "BTC/USDT");
    assert_eq!((&back["candle_freezes"], &back["gaps"]), (&Value::from(1), &Value::from(0)), "{back}");
    assert_whole(&home, began);
    let records = assert_sound(&program.stop("TERM"));
    let told = noted(&records, "candles_frozen");
    assert!(told.len() == 1 && told[0]["data"]["facts"]["symbol"] == "BTC/USDT", "{told:?}");
}
