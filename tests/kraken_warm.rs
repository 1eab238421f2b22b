//! The real binary warms up from history: hours that come late, an import that is refused for a while, and the first
//! scheduled slots of a fresh start.
#![allow(clippy::unwrap_used)] // a failed unwrap is a failed test

#[path = "support/kraken_home.rs"]
mod kraken_home;
#[path = "support/kraken_venue.rs"]
mod kraken_venue;
mod process_support;

use std::fs;

use kraken_home::*;
use kraken_venue::Venue;
use process_support::*;
use serde_json::Value;

fn lines_of(home: &Home, name: &str) -> usize {
    fs::read_to_string(home.store().join("candles").join(name)).map_or(0, |text| text.lines().count())
}

#[test]
fn hours_refused_at_a_fresh_start_come_later_and_warm_the_frames() {
    let venue = Venue::start();
    // Candles and hours of both symbols at the start, and the first two questions of the link.
    venue.control().too_many = 6;
    let home = Home::new(&venue);
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    until("the hours of both symbols", || {
        (lines_of(&home, "XBTUSDT_60.csv") == 719 && lines_of(&home, "XRPUSDT_60.csv") == 719).then_some(())
    });
    assert_eq!(venue.control().too_many, 0);
    for symbol in ["BTC/USDT", "XRP/USDT"] {
        program.status_when("the first analysis", |status| {
            program.cli(&["run-task", "technical_analysis", symbol]);
            let lines = status["tasks"].as_array().unwrap();
            let line = lines.iter().find(|line| line["task"] == "technical_analysis" && line["symbol"] == symbol);
            line.is_some_and(|line| line["last_success_at"].is_string())
        });
    }
    program.stop("TERM");
}

#[test]
fn after_sixty_hours_of_downtime_a_store_that_was_warm_is_warm_again() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    // 300 hours of minutes; REST gives the last twelve hours of them, and hours for what lies between.
    let files = [("XBTUSDT_1.csv", "BTC/USDT"), ("XRPUSDT_1.csv", "XRP/USDT")].map(|(name, symbol)| {
        let path = home.path().join(name);
        fs::write(&path, history(symbol, 300 * 60, 60 * 60)).unwrap();
        path.to_str().unwrap().to_owned()
    });
    let imported = home.run(&["--json", "import", "kraken-csv", &files[0], &files[1]]);
    assert!(imported.status.success(), "{}", stderr(&imported));
    let program = home.start();
    program.status_when("live data", |status| alive(status, "BTC/USDT") && alive(status, "XRP/USDT"));
    // What REST does not give of the 48 hours in between is told, as any other hole.
    let status = program.status();
    let missing = feed(&status, "BTC/USDT")["unfilled_candles"].as_i64().unwrap();
    assert!((48 * 60 - 1..=48 * 60 + 2).contains(&missing), "{status}");
    assert!(feed(&status, "BTC/USDT")["last_gap"].is_array(), "{status}");
    let hours = |path: &&String| path.contains("interval=60");
    assert_eq!(venue.control().asked.iter().filter(hours).count(), 2, "one question a symbol");
    for symbol in ["BTC/USDT", "XRP/USDT"] {
        program.done(&["run-task", "technical_analysis", symbol]);
        program.status_when("the first analysis", |status| {
            let lines = status["tasks"].as_array().unwrap();
            let line = lines.iter().find(|line| line["task"] == "technical_analysis" && line["symbol"] == symbol);
            line.is_some_and(|line| line["last_success_at"].is_string())
        });
    }
    // Noted when the link is next looked at, once a second.
    until("the notes of the holes", || {
        let journal = stdout(&program.cli(&["journal", "tail", "-n", "1000"]));
        (journal.matches("candles_missing").count() >= 2).then_some(())
    });
    let records = assert_sound(&program.stop("TERM"));
    let told = of_kind(&records, "Noted").into_iter().filter(|record| record["data"]["what"] == "candles_missing");
    let told: Vec<&Value> = told.map(|record| &record["data"]["facts"]).collect();
    let missing = Value::from(missing.to_string());
    assert!(told.len() == 2 && told.iter().any(|facts| facts["candles"] == missing), "{told:?}");
}

#[test]
fn an_import_that_is_refused_for_a_while_is_asked_again_and_ends_by_itself() {
    let venue = Venue::start();
    venue.control().too_many = 2;
    let home = Home::new(&venue);
    let fetched = home.run(&["import", "fetch"]);
    let text = stderr(&fetched);
    assert!(
        fetched.status.success() && text.contains("asked again in 2 s") && text.contains("asked again in 4 s"),
        "{text}"
    );
    assert_eq!((lines_of(&home, "XBTUSDT_1.csv"), lines_of(&home, "XRPUSDT_1.csv")), (719, 719));
}

#[test]
fn an_import_keeps_what_came_and_names_what_did_not() {
    let venue = Venue::start();
    let home = Home::new(&venue);
    fs::write(
        home.config(),
        venue.settings().replace("[\"BTC/USDT\"", "[\"BTC/USDT\", \"ETH/USDT\"")
            + "[market.symbol.\"ETH/USDT\"]\nprice_decimals = 2\nquantity_decimals = 5\nmin_quantity = 0.001\n",
    )
    .unwrap();
    let fetched = home.run(&["import", "fetch"]);
    assert_clear(&fetched, 1, &["ETH/USDT: the venue refuses", "what came is kept"]);
    assert_eq!(
        (lines_of(&home, "XBTUSDT_1.csv"), lines_of(&home, "XRPUSDT_1.csv")),
        (719, 719),
        "before it and after it"
    );
}

/// Every minute; with the defaults of an hour a test would wait for up to one.
const EVERY_MINUTE: &str = "[tasks.regime_detection]\ninterval_seconds = 60\ntimeout_seconds = 20\n\
    snapshot_timeout_seconds = 10\ncatch_up_seconds = 60\nstart_deadline_seconds = 60\n\
    [tasks.trading_decision]\ninterval_seconds = 60\ntimeout_seconds = 50\n\
    snapshot_timeout_seconds = 10\ncatch_up_seconds = 60\nstart_deadline_seconds = 60\n\
    [tasks.portfolio_rebalance]\ninterval_seconds = 60\ntimeout_seconds = 50\n\
    snapshot_timeout_seconds = 10\ncatch_up_seconds = 60\nstart_deadline_seconds = 60\n";

fn ms(record: &Value) -> i64 {
    let at: triplegain::model::Ts = serde_json::from_value(record["ts"].clone()).unwrap();
    at.0
}

#[test]
fn a_fresh_start_with_history_decides_and_trades_on_the_first_scheduled_slot() {
    let venue = Venue::start();
    let home = Home::with(&venue, EVERY_MINUTE);
    let imported = home.import();
    assert!(imported.status.success(), "{}", stderr(&imported));
    let program = home.start();
    let status = program.status_when("decisions of both symbols and an order", |status| {
        let totals = &status["totals"];
        totals["signals"].as_u64() >= Some(2) && totals["fills"].as_u64() >= Some(1)
    });
    assert_eq!(status["missed_slots"], 0, "{status}");
    let records = assert_sound(&program.stop("TERM"));
    // The slot under way at the boot is made up for when it can be, or else the next one is the first.
    let boot = ms(of_kind(&records, "Booted")[0]);
    let latest = (boot / 60_000 + 1) * 60_000 + 45_000;
    for kind in ["SignalReceived", "PlanCreated", "TradeFill"] {
        let first = ms(of_kind(&records, kind)[0]);
        assert!((boot..latest).contains(&first), "{kind} at {first}, the boot was at {boot}");
    }
}
